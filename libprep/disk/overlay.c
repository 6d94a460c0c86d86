/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/overlay.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"

#define PAGE PREP_OVERLAY_PAGE
#define LEAF_PAGES 512u
#define LEAF_BYTES ((uint64_t)PAGE * LEAF_PAGES)
#define MEMORY_PAGES ((uint32_t)(32 * PREP_MIB / PAGE))
#define CHUNK_PAGES 256u
#define WORTH_ASKING (64 * PREP_KIB) /* shorter ranges are not looked up in the base: there may be 100,000s */

/* Where the changed pages of 2 MiB of the disk are: slot numbers, 0 for none. */
struct leaf {
	uint32_t slot[LEAF_PAGES];
};

/* A range of one byte, or of what a disk (the base or another) holds from `from` on. */
struct range {
	uint64_t off, end;
	struct prep_disk *source; /* NULL: one byte */
	uint8_t byte;
	bool exact;
	uint64_t from;
};

struct overlay {
	struct prep_disk disk;
	struct prep_disk *base;

	/* Pages: a two-level table of slots; the first MEMORY_PAGES slots are in
	 * memory, in chunks, the others in an unnamed file. Slot numbers begin at 1. */
	struct leaf **leaf;
	unsigned char *chunk[MEMORY_PAGES / CHUNK_PAGES];
	uint32_t slots;
	char *tmpdir;
	int spill;

	/* Fills and copies: ascending, never overlapping. A page wins over a range. */
	struct range *range;
	size_t ranges, range_room;

	struct prep_overlay_guard *guard;
	size_t guards;

	struct prep_overlay_settled *settled;
	size_t settleds, settled_room;
};

static struct overlay *overlay_of(const struct prep_disk *d)
{
	return (struct overlay *)d;
}

static uint32_t slot_of(const struct overlay *o, uint64_t page)
{
	const struct leaf *l = o->leaf[page / LEAF_PAGES];

	return l != NULL ? l->slot[page % LEAF_PAGES] : 0;
}

/* The place of a slot in memory, or NULL with *off its place in the spill file. */
static unsigned char *slot_memory(const struct overlay *o, uint32_t slot, uint64_t *off)
{
	slot--;
	if (slot < MEMORY_PAGES)
		return o->chunk[slot / CHUNK_PAGES] + (size_t)(slot % CHUNK_PAGES) * PAGE;
	*off = (uint64_t)(slot - MEMORY_PAGES) * PAGE;
	return NULL;
}

static int slot_read(const struct overlay *o, uint32_t slot, void *buf, size_t len, size_t at,
		     struct prep_err *err)
{
	uint64_t off = 0;
	const unsigned char *mem = slot_memory(o, slot, &off);

	if (mem == NULL)
		return prep_file_pread(o->spill, buf, len, off + at, "temporary file", err);
	memcpy(buf, mem + at, len);
	return 0;
}

static int slot_write(const struct overlay *o, uint32_t slot, const void *buf, size_t len, size_t at,
		      struct prep_err *err)
{
	uint64_t off = 0;
	unsigned char *mem = slot_memory(o, slot, &off);

	if (mem == NULL)
		return prep_file_pwrite(o->spill, buf, len, off + at, "temporary file", err);
	memcpy(mem + at, buf, len);
	return 0;
}

/* A new slot for a page that has none. */
static int slot_new(struct overlay *o, uint64_t page, uint32_t *ret, struct prep_err *err)
{
	struct leaf **l = &o->leaf[page / LEAF_PAGES];

	if (*l == NULL && (*l = calloc(1, sizeof **l)) == NULL)
		return prep_fail_nomem(err);
	if (o->slots < MEMORY_PAGES) {
		unsigned char **c = &o->chunk[o->slots / CHUNK_PAGES];

		if (*c == NULL && (*c = malloc((size_t)CHUNK_PAGES * PAGE)) == NULL)
			return prep_fail_nomem(err);
	} else if (o->slots == UINT32_MAX - 1) {
		return prep_fail(err, PREP_EFAIL, "%s: too many changes", o->disk.name);
	} else if (o->spill < 0) {
		o->spill = prep_file_temp(o->tmpdir, err);
		if (o->spill < 0)
			return -1;
	}
	*ret = ++o->slots;
	(*l)->slot[page % LEAF_PAGES] = *ret;
	return 0;
}

/* The first range that ends after off: an index, o->ranges when there is none. */
static size_t range_at(const struct overlay *o, uint64_t off)
{
	size_t lo = 0, hi = o->ranges;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (o->range[mid].end <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* The first changed page in [page, end), or end. */
static uint64_t next_page(const struct overlay *o, uint64_t page, uint64_t end)
{
	while (page < end) {
		const struct leaf *l = o->leaf[page / LEAF_PAGES];

		if (l == NULL) {
			page = prep_round_down(page, LEAF_PAGES) + LEAF_PAGES;
			continue;
		}
		if (l->slot[page % LEAF_PAGES] != 0)
			return page;
		page++;
	}
	return end;
}

/* Read what the base and the ranges hold, the pages left out. */
static int read_below(struct overlay *o, unsigned char *buf, uint64_t len, uint64_t off,
		      struct prep_err *err)
{
	size_t i = range_at(o, off);

	while (len > 0) {
		uint64_t n = len;

		if (i < o->ranges && o->range[i].off <= off) {
			const struct range *r = &o->range[i++];

			n = prep_min(n, r->end - off);
			if (r->source == NULL)
				memset(buf, r->byte, (size_t)n);
			else if (prep_disk_read(r->source, buf, (size_t)n, r->from + (off - r->off), err) < 0)
				return -1;
		} else {
			if (i < o->ranges)
				n = prep_min(n, o->range[i].off - off);
			if (prep_disk_read(o->base, buf, (size_t)n, off, err) < 0)
				return -1;
		}
		buf += n;
		off += n;
		len -= n;
	}
	return 0;
}

static int overlay_read(struct prep_disk *d, void *buf, size_t len, uint64_t off,
			struct prep_err *err)
{
	struct overlay *o = overlay_of(d);
	unsigned char *p = buf;
	const uint64_t end = off + len;

	while (off < end) {
		const uint64_t page = off / PAGE;
		const uint64_t next = next_page(o, page, (end + PAGE - 1) / PAGE);
		uint64_t n;

		if (next > page) {
			n = prep_min(next * PAGE, end) - off;
			if (read_below(o, p, n, off, err) < 0)
				return -1;
		} else {
			n = prep_min((page + 1) * PAGE, end) - off;
			if (slot_read(o, slot_of(o, page), p, (size_t)n, off % PAGE, err) < 0)
				return -1;
		}
		p += n;
		off += n;
	}
	return 0;
}

static int overlay_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
			 struct prep_err *err)
{
	struct overlay *o = overlay_of(d);
	unsigned char whole[PAGE];
	const unsigned char *p = buf;

	while (len > 0) {
		const uint64_t page = off / PAGE;
		const size_t at = (size_t)(off % PAGE);
		const size_t n = (size_t)prep_min(len, PAGE - at);
		uint32_t slot = slot_of(o, page);

		if (slot == 0) {
			/* A disk's last page may be short. */
			const uint64_t have = prep_min(PAGE, d->size - page * PAGE);

			if (n < have && read_below(o, whole, have, page * PAGE, err) < 0)
				return -1;
			if (slot_new(o, page, &slot, err) < 0 ||
			    (n < have && slot_write(o, slot, whole, (size_t)have, 0, err) < 0))
				return -1;
		}
		if (slot_write(o, slot, p, n, at, err) < 0)
			return -1;
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

/* Make room for one more range at index i. */
static int range_insert(struct overlay *o, size_t i, struct range r, struct prep_err *err)
{
	if (o->ranges == o->range_room) {
		const size_t room = o->range_room != 0 ? o->range_room * 2 : 256;
		struct range *more = reallocarray(o->range, room, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		o->range = more;
		o->range_room = room;
	}
	memmove(o->range + i + 1, o->range + i, (o->ranges - i) * sizeof *o->range);
	o->range[i] = r;
	o->ranges++;
	return 0;
}

/* What is left of r from `off` on. */
static struct range range_tail(struct range r, uint64_t off)
{
	r.from += off - r.off;
	r.off = off;
	return r;
}

/* Cut [off, end) out of the ranges. Returns the index where a range of that place belongs, or -1. */
static int64_t range_cut(struct overlay *o, uint64_t off, uint64_t end, struct prep_err *err)
{
	size_t i = range_at(o, off), gone;

	if (i < o->ranges && o->range[i].off < off) {
		const struct range whole = o->range[i];

		o->range[i++].end = off;
		if (whole.end > end)
			return range_insert(o, i, range_tail(whole, end), err) < 0 ? -1 : (int64_t)i;
	}
	for (gone = i; gone < o->ranges && o->range[gone].end <= end; gone++)
		;
	if (gone > i)
		memmove(o->range + i, o->range + gone, (o->ranges - gone) * sizeof *o->range);
	o->ranges -= gone - i;
	if (i < o->ranges && o->range[i].off < end)
		o->range[i] = range_tail(o->range[i], end);
	return (int64_t)i;
}

/* Whether b, which begins where a ends, goes on as a does. */
static bool range_continues(const struct range *a, const struct range *b)
{
	if (a->end != b->off || a->source != b->source)
		return false;
	return a->source != NULL ? a->from + (a->end - a->off) == b->from : a->byte == b->byte && a->exact == b->exact;
}

/* Stage a range in place of what was staged there. */
static int range_add(struct overlay *o, struct range r, struct prep_err *err)
{
	const uint64_t first = r.off / PAGE, last = (r.end + PAGE - 1) / PAGE;
	unsigned char bytes[PAGE];
	int64_t i;

	/* What covers changed pages is changed in them: pages win. */
	for (uint64_t p = next_page(o, first, last); p < last; p = next_page(o, p + 1, last)) {
		const uint64_t from = prep_max(r.off, p * PAGE), to = prep_min(r.end, (p + 1) * PAGE);

		memset(bytes, r.byte, sizeof bytes);
		if (r.source != NULL &&
		    prep_disk_read(r.source, bytes, (size_t)(to - from), r.from + (from - r.off), err) < 0)
			return -1;
		if (slot_write(o, slot_of(o, p), bytes, (size_t)(to - from), (size_t)(from % PAGE), err) < 0)
			return -1;
	}
	i = range_cut(o, r.off, r.end, err);
	if (i < 0)
		return -1;
	if (i > 0 && range_continues(&o->range[i - 1], &r)) {
		o->range[i - 1].end = r.end;
		return 0;
	}
	return range_insert(o, (size_t)i, r, err);
}

static int check_inside(const struct overlay *o, uint64_t off, uint64_t len, struct prep_err *err)
{
	if (off > o->disk.size || len > o->disk.size - off)
		return prep_fail(err, PREP_EDAMAGED, "%s: a change at offset %llu is outside the disk",
				 o->disk.name, (unsigned long long)off);
	return 0;
}

static int add_fill(struct prep_disk *overlay, uint64_t off, uint64_t len, uint8_t byte, bool exact,
		    struct prep_err *err)
{
	struct overlay *o = overlay_of(overlay);

	if (check_inside(o, off, len, err) < 0)
		return -1;
	return len == 0 ? 0 : range_add(o, (struct range){ off, off + len, NULL, byte, exact, 0 }, err);
}

int prep_overlay_fill(struct prep_disk *overlay, uint64_t off, uint64_t len, uint8_t byte,
		      struct prep_err *err)
{
	return add_fill(overlay, off, len, byte, false, err);
}

int prep_overlay_fill_exact(struct prep_disk *overlay, uint64_t off, uint64_t len, uint8_t byte,
			    struct prep_err *err)
{
	return add_fill(overlay, off, len, byte, true, err);
}

int prep_overlay_copy(struct prep_disk *overlay, uint64_t off, uint64_t from, uint64_t len,
		      struct prep_err *err)
{
	struct overlay *o = overlay_of(overlay);

	if (check_inside(o, off, len, err) < 0 || check_inside(o, from, len, err) < 0)
		return -1;
	return len == 0 ? 0 : range_add(o, (struct range){ off, off + len, o->base, 0, false, from }, err);
}

int prep_overlay_patch(struct prep_disk *overlay, uint64_t off, uint64_t len, struct prep_disk *from,
		       struct prep_err *err)
{
	struct overlay *o = overlay_of(overlay);

	if (check_inside(o, off, len, err) < 0)
		return -1;
	return len == 0 ? 0 : range_add(o, (struct range){ off, off + len, from, 0, false, off }, err);
}

static int note_settled(struct overlay *o, const struct prep_overlay_settled *s, struct prep_err *err)
{
	struct prep_overlay_settled *last = o->settleds > 0 ? &o->settled[o->settleds - 1] : NULL;

	if (last != NULL && last->zero && s->zero && last->off + last->len == s->off) {
		last->len += s->len;
		return 0;
	}
	if (o->settled == NULL || o->settleds == o->settled_room) {
		const size_t room = o->settled_room * 2 + 64;
		struct prep_overlay_settled *more = reallocarray(o->settled, room, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		o->settled = more;
		o->settled_room = room;
	}
	o->settled[o->settleds++] = *s;
	return 0;
}

/* Write to the base what has been read; what is zero takes no room there. */
static int settle(struct overlay *o, const unsigned char *buf, size_t len, uint64_t off, struct prep_err *err)
{
	struct prep_overlay_settled s;
	uint64_t ignored;

	for (size_t at = 0; at < len; at += s.len) {
		s.off = off + at;
		s.len = prep_zero_run(buf + at, len - at, PAGE, &s.zero);
		s.crc = s.zero ? 0 : (uint32_t)crc32(0, buf + at, (uInt)s.len);
		if (note_settled(o, &s, err) < 0 ||
		    (s.zero ? prep_disk_zero(o->base, s.off, s.len, &ignored, err)
			    : prep_disk_write(o->base, buf + at, (size_t)s.len, s.off, err)) < 0)
			return -1;
	}
	return 0;
}

/* Copies to places in a row are read one by one, and written at once. */
int prep_overlay_settle(struct prep_disk *overlay, const struct prep_progress *progress,
			struct prep_err *err)
{
	struct overlay *o = overlay_of(overlay);
	unsigned char *buf = malloc(PREP_MIB);
	uint64_t total = 0, done = 0, to = 0;
	size_t have = 0, kept = 0;
	int r = -1;

	if (buf == NULL)
		return prep_fail_nomem(err);
	for (size_t i = 0; i < o->ranges; i++)
		total += o->range[i].source == o->base ? o->range[i].end - o->range[i].off : 0;
	for (size_t i = 0; i < o->ranges; i++) {
		const struct range *c = &o->range[i];

		for (uint64_t off = c->off, n; c->source == o->base && off < c->end; off += n) {
			if (have > 0 && (have == PREP_MIB || to + have != off)) {
				if (settle(o, buf, have, to, err) < 0)
					goto out;
				have = 0;
			}
			if (have == 0)
				to = off;
			n = prep_min(PREP_MIB - have, c->end - off);
			if (prep_disk_read(o->base, buf + have, (size_t)n, c->from + (off - c->off), err) < 0)
				goto out;
			have += n;
			done += n;
			if (prep_progress(progress, "moving", done, total, err) < 0)
				goto out;
		}
	}
	if (have > 0 && (settle(o, buf, have, to, err) < 0 || prep_disk_flush(o->base, err) < 0))
		goto out;
	for (size_t i = 0; i < o->ranges; i++)
		if (o->range[i].source != o->base)
			o->range[kept++] = o->range[i];
	o->ranges = kept;
	r = 0;
out:
	free(buf);
	return r;
}

int prep_overlay_tidy(struct prep_disk *overlay, struct prep_err *err)
{
	struct overlay *o = overlay_of(overlay);
	const uint64_t pages = (overlay->size + PAGE - 1) / PAGE;
	unsigned char now[PAGE], below[PAGE];

	for (uint64_t p = next_page(o, 0, pages); p < pages; p = next_page(o, p + 1, pages)) {
		const size_t len = (size_t)prep_min(PAGE, overlay->size - p * PAGE);

		if (slot_read(o, slot_of(o, p), now, len, 0, err) < 0 || read_below(o, below, len, p * PAGE, err) < 0)
			return -1;
		if (memcmp(now, below, len) == 0)
			o->leaf[p / LEAF_PAGES]->slot[p % LEAF_PAGES] = 0;
	}
	return 0;
}

static int overlay_zero(struct prep_disk *d, uint64_t off, uint64_t len, struct prep_err *err)
{
	return prep_overlay_fill(d, off, len, 0, err);
}

static int overlay_extent(struct prep_disk *d, uint64_t off, struct prep_extent *ret,
			  struct prep_err *err)
{
	struct overlay *o = overlay_of(d);
	const size_t i = range_at(o, off);
	const struct range *r = i < o->ranges && o->range[i].off <= off ? &o->range[i] : NULL;
	const bool moved = r != NULL && r->source != NULL;
	struct prep_disk *source = moved ? r->source : o->base;
	uint64_t end;

	if (slot_of(o, off / PAGE) != 0) {
		end = prep_min(prep_round_down(off, PAGE) + PAGE, d->size);
		*ret = (struct prep_extent){ off, end - off, PREP_EXTENT_DATA };
		return 0;
	}
	if (r != NULL && r->source == NULL && r->byte != 0) {
		*ret = (struct prep_extent){ off, r->end - off, PREP_EXTENT_DATA };
	} else if (r != NULL && r->end - r->off < WORTH_ASKING) {
		*ret = (struct prep_extent){ off, r->end - off, moved ? PREP_EXTENT_DATA : PREP_EXTENT_ZERO };
	} else {
		/* A hole under zeros is still a hole; data under zeros is zeros. */
		if (source->ops->extent(source, moved ? r->from + (off - r->off) : off, ret, err) < 0)
			return -1;
		if (r != NULL && r->source == NULL && ret->kind == PREP_EXTENT_DATA)
			ret->kind = PREP_EXTENT_ZERO;
	}
	end = off + ret->len;
	end = r != NULL ? prep_min(end, r->end) : i < o->ranges ? prep_min(end, o->range[i].off) : end;
	end = prep_min(end, next_page(o, off / PAGE, (end + PAGE - 1) / PAGE) * PAGE);
	ret->off = off;
	ret->len = end - off;
	return 0;
}

static bool overlay_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret)
{
	struct overlay *o = overlay_of(d);
	const size_t i = range_at(o, off);
	const struct range *r = i < o->ranges && o->range[i].off <= off ? &o->range[i] : NULL;
	uint64_t end;

	if (slot_of(o, off / PAGE) != 0 || (r != NULL && r->source == NULL) ||
	    !prep_disk_backing(r != NULL ? r->source : o->base, r != NULL ? r->from + (off - r->off) : off, ret))
		return false;
	end = off + ret->len;
	end = r != NULL ? prep_min(end, r->end) : i < o->ranges ? prep_min(end, o->range[i].off) : end;
	ret->len = prep_min(end, next_page(o, off / PAGE, (end + PAGE - 1) / PAGE) * PAGE) - off;
	return true;
}

int prep_overlay_change(struct prep_disk *overlay, uint64_t off, struct prep_overlay_change *ret,
			struct prep_err *err)
{
	struct overlay *o = overlay_of(overlay);
	const uint64_t pages = (o->disk.size + PAGE - 1) / PAGE;
	size_t i;

	while (off < o->disk.size) {
		const uint64_t page = off / PAGE;
		uint64_t limit, next;

		if (slot_of(o, page) != 0) {
			ret->off = off;
			ret->len = prep_min((page + 1) * PAGE, o->disk.size) - off;
			ret->fill = ret->copy = ret->exact = false;
			return slot_read(o, slot_of(o, page), ret->page, (size_t)ret->len, (size_t)(off % PAGE),
					 err) < 0 ? -1 : 1;
		}
		i = range_at(o, off);
		if (i < o->ranges && o->range[i].off <= off) {
			limit = (o->range[i].end + PAGE - 1) / PAGE;
			next = next_page(o, page, limit);
			ret->off = off;
			ret->len = prep_min(o->range[i].end, next * PAGE) - off;
			ret->copy = o->range[i].source == o->base;
			ret->fill = o->range[i].source == NULL;
			ret->byte = o->range[i].byte;
			ret->exact = o->range[i].exact;
			ret->from = o->range[i].from + (off - o->range[i].off);
			if (ret->copy || ret->fill)
				return 1;
			ret->len = prep_min(ret->len, PAGE - off % PAGE);
			return prep_disk_read(o->range[i].source, ret->page, (size_t)ret->len, ret->from, err) < 0 ? -1 : 1;
		}
		limit = i < o->ranges ? (o->range[i].off + PAGE - 1) / PAGE : pages;
		next = next_page(o, page, limit);
		if (next < limit)
			off = next * PAGE;
		else if (i < o->ranges)
			off = o->range[i].off;
		else
			break;
	}
	return 0;
}

int prep_overlay_guard(struct prep_disk *overlay, uint64_t off, uint64_t len, struct prep_err *err)
{
	struct overlay *o = overlay_of(overlay);
	struct prep_overlay_guard *more;

	if (check_inside(o, off, len, err) < 0)
		return -1;
	more = reallocarray(o->guard, o->guards + 1, sizeof *more);
	if (more == NULL)
		return prep_fail_nomem(err);
	o->guard = more;
	o->guard[o->guards++] = (struct prep_overlay_guard){ off, len };
	return 0;
}

const struct prep_overlay_settled *prep_overlay_settled(const struct prep_disk *overlay, size_t *n)
{
	const struct overlay *o = overlay_of(overlay);

	*n = o->settleds;
	return o->settled;
}

const struct prep_overlay_guard *prep_overlay_guards(const struct prep_disk *overlay, size_t *n)
{
	*n = overlay_of(overlay)->guards;
	return overlay_of(overlay)->guard;
}

uint64_t prep_overlay_page_bytes(const struct prep_disk *overlay)
{
	const struct overlay *o = overlay_of(overlay);
	uint64_t n = (uint64_t)o->slots * PAGE;

	for (size_t i = 0; i < o->ranges; i++)
		if (o->range[i].source != NULL && o->range[i].source != o->base)
			n += o->range[i].end - o->range[i].off;
	return n;
}

size_t prep_overlay_ranges(const struct prep_disk *overlay)
{
	return overlay_of(overlay)->ranges;
}

struct prep_disk *prep_overlay_base(const struct prep_disk *overlay)
{
	return overlay_of(overlay)->base;
}

static void overlay_close(struct prep_disk *d)
{
	struct overlay *o = overlay_of(d);
	const uint64_t leaves = (d->size + LEAF_BYTES - 1) / LEAF_BYTES;

	for (uint64_t i = 0; o->leaf != NULL && i < leaves; i++)
		free(o->leaf[i]);
	for (size_t i = 0; i < sizeof o->chunk / sizeof o->chunk[0]; i++)
		free(o->chunk[i]);
	if (o->spill >= 0)
		close(o->spill);
	free(o->leaf);
	free(o->tmpdir);
	free(o->range);
	free(o->guard);
	free(o->settled);
	free(o);
}

static const struct prep_disk_ops overlay_ops = {
	.kind = "overlay",
	.read = overlay_read,
	.write = overlay_write,
	.zero = overlay_zero,
	.extent = overlay_extent,
	.backing = overlay_backing,
	.close = overlay_close,
};

int prep_overlay_open(struct prep_disk *base, const char *tmpdir, struct prep_disk **ret,
		      struct prep_err *err)
{
	struct overlay *o = calloc(1, sizeof *o);

	if (o == NULL)
		return prep_fail_nomem(err);
	o->disk.ops = &overlay_ops;
	o->disk.size = base->size;
	o->disk.sector_size = base->sector_size;
	o->base = base;
	o->spill = -1;
	o->disk.name = strdup(base->name);
	o->tmpdir = strdup(tmpdir);
	o->leaf = calloc((size_t)((base->size + LEAF_BYTES - 1) / LEAF_BYTES), sizeof(struct leaf *));
	if (o->disk.name == NULL || o->tmpdir == NULL || o->leaf == NULL) {
		prep_disk_close(&o->disk);
		return prep_fail_nomem(err);
	}
	*ret = &o->disk;
	return 0;
}
