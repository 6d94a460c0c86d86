/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/overlay.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"

#define PAGE PREP_OVERLAY_PAGE
#define LEAF_PAGES 512u
#define LEAF_BYTES ((uint64_t)PAGE * LEAF_PAGES)
#define MEMORY_PAGES ((uint32_t)(32 * PREP_MIB / PAGE))
#define CHUNK_PAGES 256u

/* Where the changed pages of 2 MiB of the disk are: slot numbers, 0 for none. */
struct leaf {
	uint32_t slot[LEAF_PAGES];
};

struct fill {
	uint64_t off, end;
	uint8_t byte;
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

	/* Fills: ascending, never overlapping. A page wins over a fill. */
	struct fill *fill;
	size_t fills, fill_room;
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

/* The first fill that ends after off: an index, o->fills when there is none. */
static size_t fill_at(const struct overlay *o, uint64_t off)
{
	size_t lo = 0, hi = o->fills;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (o->fill[mid].end <= off)
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

/* Read what the base and the fills hold, the pages left out. */
static int read_below(struct overlay *o, unsigned char *buf, uint64_t len, uint64_t off,
		      struct prep_err *err)
{
	size_t i = fill_at(o, off);

	while (len > 0) {
		uint64_t n = len;

		if (i < o->fills && o->fill[i].off <= off) {
			n = prep_min(n, o->fill[i].end - off);
			memset(buf, o->fill[i++].byte, (size_t)n);
		} else {
			if (i < o->fills)
				n = prep_min(n, o->fill[i].off - off);
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

/* Make room for one more fill at index i. */
static int fill_insert(struct overlay *o, size_t i, struct fill f, struct prep_err *err)
{
	if (o->fills == o->fill_room) {
		const size_t room = o->fill_room != 0 ? o->fill_room * 2 : 256;
		struct fill *more = reallocarray(o->fill, room, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		o->fill = more;
		o->fill_room = room;
	}
	memmove(o->fill + i + 1, o->fill + i, (o->fills - i) * sizeof *o->fill);
	o->fill[i] = f;
	o->fills++;
	return 0;
}

/* Cut [off, end) out of the fills. Returns the index where a fill of that range belongs, or -1. */
static int64_t fill_cut(struct overlay *o, uint64_t off, uint64_t end, struct prep_err *err)
{
	size_t i = fill_at(o, off), gone;

	if (i < o->fills && o->fill[i].off < off) {
		struct fill rest = { end, o->fill[i].end, o->fill[i].byte };

		o->fill[i++].end = off;
		if (rest.end > end)
			return fill_insert(o, i, rest, err) < 0 ? -1 : (int64_t)i;
	}
	for (gone = i; gone < o->fills && o->fill[gone].end <= end; gone++)
		;
	memmove(o->fill + i, o->fill + gone, (o->fills - gone) * sizeof *o->fill);
	o->fills -= gone - i;
	if (i < o->fills && o->fill[i].off < end)
		o->fill[i].off = end;
	return (int64_t)i;
}

int prep_overlay_fill(struct prep_disk *overlay, uint64_t off, uint64_t len, uint8_t byte,
		      struct prep_err *err)
{
	struct overlay *o = overlay_of(overlay);
	const uint64_t end = off + len;
	unsigned char same[PAGE];
	int64_t i;

	if (off > o->disk.size || len > o->disk.size - off)
		return prep_fail(err, PREP_EDAMAGED, "%s: a fill at offset %llu is outside the disk",
				 o->disk.name, (unsigned long long)off);
	if (len == 0)
		return 0;
	/* What is filled of changed pages is changed in them: pages win. */
	memset(same, byte, sizeof same);
	for (uint64_t p = next_page(o, off / PAGE, (end + PAGE - 1) / PAGE); p < (end + PAGE - 1) / PAGE;
	     p = next_page(o, p + 1, (end + PAGE - 1) / PAGE)) {
		const uint64_t from = prep_max(off, p * PAGE), to = prep_min(end, (p + 1) * PAGE);

		if (slot_write(o, slot_of(o, p), same, (size_t)(to - from), (size_t)(from % PAGE), err) < 0)
			return -1;
	}
	i = fill_cut(o, off, end, err);
	if (i < 0)
		return -1;
	if (i > 0 && o->fill[i - 1].end == off && o->fill[i - 1].byte == byte) {
		o->fill[i - 1].end = end;
		return 0;
	}
	return fill_insert(o, (size_t)i, (struct fill){ off, end, byte }, err);
}

static int overlay_zero(struct prep_disk *d, uint64_t off, uint64_t len, struct prep_err *err)
{
	return prep_overlay_fill(d, off, len, 0, err);
}

/* Where the unchanged range that holds off ends; off is in no changed page and no fill. */
static uint64_t unchanged_end(const struct overlay *o, uint64_t off, uint64_t end)
{
	const size_t i = fill_at(o, off);

	if (i < o->fills)
		end = prep_min(end, o->fill[i].off);
	return prep_min(end, next_page(o, off / PAGE, (end + PAGE - 1) / PAGE) * PAGE);
}

static int overlay_extent(struct prep_disk *d, uint64_t off, struct prep_extent *ret,
			  struct prep_err *err)
{
	struct overlay *o = overlay_of(d);
	const uint32_t slot = slot_of(o, off / PAGE);
	const size_t i = fill_at(o, off);
	uint64_t end;

	if (slot != 0) {
		end = prep_min(prep_round_down(off, PAGE) + PAGE, d->size);
		*ret = (struct prep_extent){ off, end - off, PREP_EXTENT_DATA };
		return 0;
	}
	if (i < o->fills && o->fill[i].off <= off && o->fill[i].byte != 0) {
		end = o->fill[i].end;
		end = prep_min(end, next_page(o, off / PAGE, (end + PAGE - 1) / PAGE) * PAGE);
		*ret = (struct prep_extent){ off, end - off, PREP_EXTENT_DATA };
		return 0;
	}
	if (o->base->ops->extent(o->base, off, ret, err) < 0)
		return -1;
	end = off + ret->len;
	if (i < o->fills && o->fill[i].off <= off) {
		end = prep_min(end, o->fill[i].end);
		end = prep_min(end, next_page(o, off / PAGE, (end + PAGE - 1) / PAGE) * PAGE);
		if (ret->kind == PREP_EXTENT_DATA)
			ret->kind = PREP_EXTENT_ZERO;
	} else {
		end = unchanged_end(o, off, end);
	}
	ret->len = end - off;
	return 0;
}

static bool overlay_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret)
{
	struct overlay *o = overlay_of(d);
	const size_t i = fill_at(o, off);

	if (slot_of(o, off / PAGE) != 0 || (i < o->fills && o->fill[i].off <= off) ||
	    !prep_disk_backing(o->base, off, ret))
		return false;
	ret->len = unchanged_end(o, off, off + ret->len) - off;
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
			ret->fill = false;
			return slot_read(o, slot_of(o, page), ret->page, (size_t)ret->len, (size_t)(off % PAGE),
					 err) < 0 ? -1 : 1;
		}
		i = fill_at(o, off);
		if (i < o->fills && o->fill[i].off <= off) {
			limit = (o->fill[i].end + PAGE - 1) / PAGE;
			next = next_page(o, page, limit);
			ret->off = off;
			ret->len = prep_min(o->fill[i].end, next * PAGE) - off;
			ret->fill = true;
			ret->byte = o->fill[i].byte;
			return 1;
		}
		limit = i < o->fills ? (o->fill[i].off + PAGE - 1) / PAGE : pages;
		next = next_page(o, page, limit);
		if (next < limit)
			off = next * PAGE;
		else if (i < o->fills)
			off = o->fill[i].off;
		else
			break;
	}
	return 0;
}

uint64_t prep_overlay_page_bytes(const struct prep_disk *overlay)
{
	return (uint64_t)overlay_of(overlay)->slots * PAGE;
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
	free(o->fill);
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
