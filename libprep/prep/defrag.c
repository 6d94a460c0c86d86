/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/defrag.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/overlay.h"
#include "libprep/disk/slice.h"
#include "libprep/prep/defrag_plan.h"
#include "libprep/prep/gate.h"

#define COMPRESSION_UNIT 16 /* clusters; NTFS compresses, and we move, so many at a time */

/* A fragmented stream, for the choice of those that are worth being made whole. */
struct candidate {
	uint64_t id;
	uint32_t type, name_hash;
	uint64_t fragments, bytes;
};

struct defrag {
	const struct prep_volume *v;
	const struct prep_defrag *how;
	struct prep_disk *overlay;
	struct prep_disk *staged;        /* the volume as the overlay shows it */
	struct prep_fs *fs, *staged_fs;  /* as it was, read; as it becomes, written */
	struct prep_defrag_volume *report;
	const struct prep_progress *progress;

	struct prep_layout layout;
	uint8_t *movable;                /* one bit a cluster */
	struct prep_evacuation plan;
	struct prep_holes *holes;

	struct candidate *whole;         /* to be made contiguous, by id, type and name */
	size_t wholes, whole_room;

	struct prep_fs_piece *piece;     /* of the stream at hand */
	size_t pieces, piece_room;
	uint64_t to_move;                /* bytes planned, for progress */
};

static uint32_t hash_name(const char *s)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (; *s != '\0'; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h;
}

/*
 * Files that something finds by their place on the disk: boot code reads the
 * loaders by the runs it was told, and the resume loader reads hiberfil.sys so.
 */
static bool is_fixed_file(const char *path)
{
	static const char *const names[] = { "/bootmgr", "/ntldr", "/hiberfil.sys", "/NTDETECT.COM", "/BOOTNXT" };

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (strcasecmp(path, names[i]) == 0)
			return true;
	return false;
}

static bool is_movable(const struct prep_fs_stream *s)
{
	/* libntfs-3g takes the sparse flag away from a stream without holes when its runs are written. */
	bool holes = false;

	if (s->fixed || (s->path != NULL && is_fixed_file(s->path)))
		return false;
	if (!s->sparse || s->compressed)
		return true;
	for (size_t i = 0; i < s->runs && !holes; i++)
		holes = s->run[i].off == PREP_FS_HOLE;
	return holes;
}

static uint64_t fragments_of(const struct prep_fs_stream *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < s->runs; i++)
		n += s->run[i].off != PREP_FS_HOLE;
	return n;
}

/*
 * The clusters of run i that may be moved, in the stream's clusters: all of
 * them, but in compressed streams only units that lie in this run as a whole.
 */
static void movable_part(const struct prep_fs_stream *s, size_t i, uint64_t cs, uint64_t *from,
			 uint64_t *to)
{
	const struct prep_fs_run *r = &s->run[i];
	const bool goes_on = i + 1 < s->runs && s->run[i + 1].at == r->at + r->len &&
			     s->run[i + 1].off != PREP_FS_HOLE;

	*from = r->at / cs;
	*to = (r->at + r->len) / cs;
	if (!s->compressed)
		return;
	*from = prep_round_up(*from, COMPRESSION_UNIT);
	if (goes_on)
		*to = prep_round_down(*to, COMPRESSION_UNIT);
	*to = prep_max(*from, *to);
}

static int note_candidate(struct defrag *d, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct candidate *more;
	uint64_t bytes = 0;

	if (d->wholes == d->whole_room) {
		more = reallocarray(d->whole, d->whole_room * 2 + 64, sizeof *more);
		if (more == NULL)
			return prep_fail_nomem(err);
		d->whole = more;
		d->whole_room = d->whole_room * 2 + 64;
	}
	for (size_t i = 0; i < s->runs; i++)
		bytes += s->run[i].off != PREP_FS_HOLE ? s->run[i].len : 0;
	d->whole[d->wholes++] = (struct candidate){
		s->id, s->type, hash_name(s->name), fragments_of(s), bytes,
	};
	return 0;
}

/* First walk: which clusters can be moved, and which streams are in pieces. */
static int look_at_stream(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct defrag *d = arg;
	const uint64_t cs = d->layout.cluster_size;

	if (!is_movable(s))
		return 0;
	for (size_t i = 0; i < s->runs; i++) {
		uint64_t from, to;

		if (s->run[i].off == PREP_FS_HOLE)
			continue;
		movable_part(s, i, cs, &from, &to);
		for (uint64_t vcn = from; vcn < to; vcn++)
			prep_bit_set(d->movable, s->run[i].off / cs + (vcn - s->run[i].at / cs));
	}
	if (d->how->goal == PREP_DEFRAG_FILES && s->data && !s->compressed && fragments_of(s) > 1)
		return note_candidate(d, s, err);
	return 0;
}

/* Pin the blocks of clusters that are used and cannot be moved. */
static void pin_immovable(struct defrag *d)
{
	struct prep_layout *l = &d->layout;

	for (uint64_t lcn = 0; lcn < l->clusters; lcn++) {
		uint64_t end;

		lcn = prep_bit_next(l->free, lcn, l->clusters, false);
		if (lcn == l->clusters)
			break;
		/* Runs of movable clusters are passed at once. */
		end = prep_bit_next(d->movable, lcn, l->clusters, false);
		if (end > lcn) {
			lcn = end - 1;
			continue;
		}
		prep_bit_set(l->pinned, prep_layout_first(l, lcn));
		prep_bit_set(l->pinned, prep_layout_last(l, lcn));
	}
}

/* Pin the blocks at the volume's ends that hold data of others, the backup boot sector included. */
static int pin_ends(struct defrag *d, struct prep_disk *disk, struct prep_err *err)
{
	struct prep_layout *l = &d->layout;
	const uint64_t first = l->first_block * l->block_size;
	const uint64_t last = (l->first_block + l->blocks - 1) * l->block_size;
	const uint64_t end = l->start + l->clusters * l->cluster_size;
	const struct { uint64_t off, end, block; } part[] = {
		{ first, l->start, 0 },
		{ end, prep_min(last + l->block_size, disk->size), l->blocks - 1 },
	};
	struct prep_extent e;

	for (size_t i = 0; i < sizeof part / sizeof part[0]; i++) {
		for (uint64_t off = part[i].off; off < part[i].end; off += e.len) {
			if (prep_disk_extent(disk, off, part[i].end, &e, err) < 0)
				return -1;
			if (e.kind == PREP_EXTENT_DATA)
				prep_bit_set(l->pinned, part[i].block);
		}
	}
	return 0;
}

static int make_layout(struct defrag *d, const struct prep_fs_audit *audit, struct prep_disk *disk,
		       struct prep_err *err)
{
	struct prep_layout *l = &d->layout;
	const uint64_t cs = prep_fs_info(d->fs)->cluster_size, bs = d->how->block_size;
	const uint64_t end = d->v->part->off + audit->clusters * cs;

	if (cs > bs)
		return prep_fail(err, PREP_EREFUSED, "%s: clusters larger than a block", d->v->slice->name);
	*l = (struct prep_layout){
		.start = d->v->part->off, .cluster_size = cs, .clusters = audit->clusters, .block_size = bs,
		.free = audit->free_map, .first_block = d->v->part->off / bs,
	};
	l->blocks = (end + bs - 1) / bs - l->first_block;
	l->pinned = calloc((size_t)(l->blocks / 8 + 9), 1);
	d->movable = calloc((size_t)(l->clusters / 8 + 9), 1);
	if (l->pinned == NULL || d->movable == NULL)
		return prep_fail_nomem(err);
	if (prep_fs_walk(d->fs, PREP_FS_WALK_PATHS, look_at_stream, d, err) < 0)
		return -1;
	pin_immovable(d);
	return pin_ends(d, disk, err);
}

static void clear_layout(struct defrag *d)
{
	free(d->layout.pinned);
	free(d->movable);
	free(d->whole);
	free(d->piece);
	prep_evacuation_clear(&d->plan);
	prep_holes_free(d->holes);
}

static int by_gain(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	/* Fragments saved per byte moved; cross-multiplied, in 128 bits. */
	const unsigned __int128 p = (unsigned __int128)(x->fragments - 1) * y->bytes;
	const unsigned __int128 q = (unsigned __int128)(y->fragments - 1) * x->bytes;

	return (p < q) - (p > q);
}

static int by_identity(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	if (x->type != y->type)
		return x->type < y->type ? -1 : 1;
	return (x->name_hash > y->name_hash) - (x->name_hash < y->name_hash);
}

/* Keep the candidates that the budget allows, those that gain most for their bytes first. */
static void choose_wholes(struct defrag *d)
{
	uint64_t left = d->how->budget != 0 ? d->how->budget : UINT64_MAX;
	size_t n = 0;

	if (d->wholes == 0)
		return;
	qsort(d->whole, d->wholes, sizeof *d->whole, by_gain);
	for (size_t i = 0; i < d->wholes; i++) {
		if (d->whole[i].bytes > left)
			continue;
		left -= d->whole[i].bytes;
		d->whole[n++] = d->whole[i];
	}
	d->wholes = n;
	qsort(d->whole, n, sizeof *d->whole, by_identity);
}

static int add_piece(struct defrag *d, uint64_t at, uint64_t len, uint64_t to, struct prep_err *err)
{
	if (d->pieces == d->piece_room) {
		struct prep_fs_piece *more = reallocarray(d->piece, d->piece_room * 2 + 64, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		d->piece = more;
		d->piece_room = d->piece_room * 2 + 64;
	}
	d->piece[d->pieces++] = (struct prep_fs_piece){ at, len, to };
	return 0;
}

/* Find room for clusters [from, to) of the stream, in as few runs as there can be. */
static int place(struct defrag *d, const struct prep_fs_stream *s, uint64_t from, uint64_t to,
		 struct prep_err *err)
{
	const uint64_t cs = d->layout.cluster_size;

	while (from < to) {
		const uint64_t unit = s->compressed ? prep_min(COMPRESSION_UNIT, to - from) : 1;
		uint64_t lcn, len;
		const int r = prep_holes_take(d->holes, to - from, unit, &lcn, &len, err);

		if (r < 0)
			return -1;
		if (r == 0)
			return 0; /* the plan was for the whole; what finds no room stays */
		if (add_piece(d, from * cs, len * cs, lcn * cs, err) < 0)
			return -1;
		from += len;
	}
	return 0;
}

static bool goes(const struct defrag *d, uint64_t lcn)
{
	return prep_bit_get(d->plan.evacuate, prep_layout_first(&d->layout, lcn)) ||
	       prep_bit_get(d->plan.evacuate, prep_layout_last(&d->layout, lcn));
}

/*
 * Where the clusters of run r from `vcn` on (at most to `to`) stop to be all in
 * evacuated blocks, or all not; *go says which.
 */
static uint64_t same_fate(const struct defrag *d, const struct prep_fs_stream *s,
			  const struct prep_fs_run *r, uint64_t vcn, uint64_t to, bool *go)
{
	const uint64_t base = r->off / d->layout.cluster_size - r->at / d->layout.cluster_size;
	uint64_t end = vcn, next;
	bool g;

	while (end < to) {
		if (s->compressed) {
			/* A unit goes as a whole. It is smaller than any block. */
			next = prep_min(to, prep_round_down(end, COMPRESSION_UNIT) + COMPRESSION_UNIT);
			g = goes(d, base + end) || goes(d, base + next - 1);
		} else {
			next = prep_min(to, prep_layout_piece(&d->layout, base + end) - base);
			g = goes(d, base + end);
		}
		if (end == vcn)
			*go = g;
		else if (g != *go)
			break;
		end = next;
	}
	return end;
}

/* Plan the pieces of s that lie in evacuated blocks. */
static int plan_evacuation(struct defrag *d, const struct prep_fs_stream *s, struct prep_err *err)
{
	for (size_t i = 0; i < s->runs; i++) {
		uint64_t vcn, to, next;

		if (s->run[i].off == PREP_FS_HOLE)
			continue;
		movable_part(s, i, d->layout.cluster_size, &vcn, &to);
		for (; vcn < to; vcn = next) {
			bool go = false;

			next = same_fate(d, s, &s->run[i], vcn, to, &go);
			if (go && place(d, s, vcn, next, err) < 0)
				return -1;
		}
	}
	return 0;
}

/* Plan all of s into one run, where it was chosen for that and a hole holds it. */
static int plan_whole(struct defrag *d, const struct prep_fs_stream *s, struct prep_err *err)
{
	const struct candidate key = { .id = s->id, .type = s->type, .name_hash = hash_name(s->name) };
	const uint64_t cs = d->layout.cluster_size;
	const struct candidate *c;
	uint64_t lcn, len;
	int r;

	if (d->wholes == 0)
		return 0;
	c = bsearch(&key, d->whole, d->wholes, sizeof key, by_identity);
	if (c == NULL)
		return 0;
	/* A run of as many clusters or none: the hole is its own unit. */
	r = prep_holes_take(d->holes, c->bytes / cs, c->bytes / cs, &lcn, &len, err);
	if (r <= 0)
		return r;
	for (size_t i = 0; i < s->runs; i++) {
		if (s->run[i].off == PREP_FS_HOLE)
			continue;
		if (add_piece(d, s->run[i].at, s->run[i].len, lcn * cs, err) < 0)
			return -1;
		lcn += s->run[i].len / cs;
	}
	return 0;
}

/* Stage the bytes of a piece at its new place, and zeros at its old ones. */
static int stage_bytes(struct defrag *d, const struct prep_fs_stream *s, const struct prep_fs_piece *p,
		       struct prep_err *err)
{
	const uint64_t start = d->layout.start;
	unsigned char buf[64 * 1024];

	for (size_t i = 0; i < s->runs; i++) {
		const struct prep_fs_run *r = &s->run[i];
		const uint64_t from = prep_max(p->at, r->at), to = prep_min(p->at + p->len, r->at + r->len);
		const uint64_t old = r->off + (from - r->at), new = p->to + (from - p->at);

		if (r->off == PREP_FS_HOLE || from >= to)
			continue;
		if (s->data) {
			if (prep_overlay_copy(d->overlay, start + new, start + old, to - from, err) < 0)
				return -1;
		} else {
			/* Indexes may have been written by what was staged before. */
			for (uint64_t n = 0, step; n < to - from; n += step) {
				step = prep_min(sizeof buf, to - from - n);
				if (prep_disk_read(d->overlay, buf, (size_t)step, start + old + n, err) < 0 ||
				    prep_disk_write(d->overlay, buf, (size_t)step, start + new + n, err) < 0)
					return -1;
			}
		}
		if (prep_overlay_fill(d->overlay, start + old, to - from, 0, err) < 0)
			return -1;
		d->report->moved += to - from;
	}
	return 0;
}

static int by_at(const void *a, const void *b)
{
	const struct prep_fs_piece *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

/*
 * Have the metadata changed for the pieces planned. The file system may have
 * taken a target for itself (a longer $MFT): then that piece is placed anew.
 */
static int move_pieces(struct defrag *d, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct prep_fs_move m = { .id = s->id, .type = s->type, .name = s->name };
	const uint64_t cs = d->layout.cluster_size;

	while (d->pieces > 0) {
		struct prep_fs_piece again;
		int r;

		m.piece = d->piece;
		m.pieces = d->pieces;
		r = prep_fs_move(d->staged_fs, &m, err);
		if (r != 0 || m.taken == m.pieces)
			return r;
		again = d->piece[m.taken];
		d->piece[m.taken] = d->piece[--d->pieces];
		if (place(d, s, again.at / cs, (again.at + again.len) / cs, err) < 0)
			return -1;
		if (d->pieces > 0)
			qsort(d->piece, d->pieces, sizeof *d->piece, by_at);
	}
	return 0;
}

/* Second walk: move what the plan says of one stream. */
static int move_stream(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct defrag *d = arg;
	int r;

	d->pieces = 0;
	if (!is_movable(s))
		return 0;
	if (d->how->goal == PREP_DEFRAG_FILES ? plan_whole(d, s, err) < 0 : plan_evacuation(d, s, err) < 0)
		return -1;
	r = move_pieces(d, s, err);
	for (size_t i = 0; r > 0 && i < d->pieces; i++)
		if (stage_bytes(d, s, &d->piece[i], err) < 0)
			r = -1;
	if (r <= 0)
		return r;
	return prep_progress(d->progress, "planning", d->report->moved, d->to_move, err);
}

/* Audit what is staged, and count the blocks that it leaves in use. */
static int audit_result(struct defrag *d, struct prep_err *err)
{
	struct prep_fs_audit audit;
	struct prep_layout l = d->layout;
	struct prep_fs *fs;
	int r;

	if (prep_fs_open(d->staged, 0, &fs, err) < 0)
		return -1;
	r = prep_fs_audit(fs, &audit, d->progress, err);
	if (r == 0) {
		l.free = audit.free_map;
		d->report->fragments_after = audit.fragments;
		d->report->fragmented_after = audit.fragmented;
		r = prep_gate_judge(&audit, PREP_GATE_RECORDS, d->staged->name, err);
		if (r == 0)
			r = prep_layout_in_use(&l, &d->report->blocks_after, err);
		prep_fs_audit_clear(&audit);
	}
	return prep_fs_close(fs, err) < 0 ? -1 : r;
}

static void report_plan(struct defrag *d)
{
	d->report->blocks_before = d->plan.before;
	d->report->blocks_pinned = d->plan.pinned;
	d->report->blocks_bound = d->plan.bound;
	d->report->blocks_after = d->plan.after;
}

static int carry_out(struct defrag *d, struct prep_err *err)
{
	int r;

	for (uint64_t lcn = 0, end; lcn < d->layout.clusters; lcn = end) {
		end = prep_layout_piece(&d->layout, lcn);
		if (!prep_bit_get(d->layout.free, lcn) && goes(d, lcn))
			d->to_move += (end - lcn) * d->layout.cluster_size;
	}
	for (size_t i = 0; i < d->wholes; i++)
		d->to_move += d->whole[i].bytes;
	if (prep_holes_new(&d->layout, &d->plan, &d->holes, err) < 0 ||
	    prep_slice_open(d->overlay, d->v->part->off, d->v->part->len, d->v->slice->name, &d->staged, err) < 0)
		return -1;
	r = prep_fs_open(d->staged, PREP_FS_WRITE, &d->staged_fs, err);
	if (r == 0) {
		r = prep_fs_walk(d->fs, PREP_FS_WALK_PATHS, move_stream, d, err);
		if (prep_fs_close(d->staged_fs, err) < 0)
			r = -1;
	}
	if (r == 0)
		r = audit_result(d, err);
	prep_disk_close(d->staged);
	return r;
}

static int defrag_volume(struct defrag *d, struct prep_disk *disk, struct prep_err *err)
{
	struct prep_err ignored = PREP_ERR_INIT;
	struct prep_fs_audit audit;
	int r;

	if (prep_gate_open(d->v, PREP_GATE_RECORDS, &d->fs, &audit, d->progress, err) < 0)
		return -1;
	d->report->fragments_before = d->report->fragments_after = audit.fragments;
	d->report->fragmented_before = d->report->fragmented_after = audit.fragmented;
	r = make_layout(d, &audit, disk, err);
	if (r == 0)
		r = prep_evacuation_choose(&d->layout, &d->plan, err);
	if (r == 0) {
		report_plan(d);
		if (d->how->goal == PREP_DEFRAG_FILES) {
			/* Every block stays, and every free cluster will do: the blocks have their own run. */
			memset(d->plan.evacuate, 0, (size_t)(d->layout.blocks / 8 + 9));
			memset(d->plan.stays, 0xFF, (size_t)(d->layout.blocks / 8 + 9));
			d->report->blocks_after = d->report->blocks_before;
			choose_wholes(d);
		}
		if (d->report->blocks_after < d->report->blocks_before || d->wholes > 0)
			r = carry_out(d, err);
		d->report->done = r == 0;
	}
	clear_layout(d);
	prep_fs_audit_clear(&audit);
	prep_fs_close(d->fs, &ignored);
	return r;
}

int prep_defrag(const struct prep_volumes *volumes, struct prep_disk *overlay,
		const struct prep_defrag *how, struct prep_defrag_report *report,
		const struct prep_progress *progress, struct prep_err *err)
{
	*report = (struct prep_defrag_report){ .n = 0 };
	if (prep_volumes_changeable(volumes, how->volume, err) < 0)
		return -1;
	for (unsigned i = 0; i < volumes->n; i++) {
		const struct prep_volume *v = &volumes->volume[i];
		struct prep_defrag_volume *r = &report->volume[report->n];
		struct defrag d = { .v = v, .how = how, .overlay = overlay, .report = r, .progress = progress };

		if (how->volume != 0 && v->part->number != how->volume)
			continue;
		*r = (struct prep_defrag_volume){ .number = v->part->number, .kind = v->kind };
		report->n++;
		if (v->kind == PREP_FS_NTFS && defrag_volume(&d, volumes->disk, err) < 0)
			return -1;
		if (v->kind != PREP_FS_NTFS && how->volume != 0)
			return prep_fail(err, PREP_EREFUSED, "%s: %s: only NTFS can be defragmented", v->slice->name,
					 prep_fs_kind_name(v->kind));
		report->moved += r->moved;
	}
	return 0;
}

int prep_defrag_estimate(const struct prep_volume *v, struct prep_fs *fs, struct prep_disk *disk,
			 const struct prep_fs_audit *audit, uint64_t block_size,
			 struct prep_defrag_volume *ret, struct prep_err *err)
{
	const struct prep_defrag how = { .block_size = block_size };
	struct defrag d = { .v = v, .how = &how, .fs = fs, .report = ret };
	int r;

	*ret = (struct prep_defrag_volume){ .number = v->part->number, .kind = v->kind };
	r = make_layout(&d, audit, disk, err);
	if (r == 0)
		r = prep_evacuation_choose(&d.layout, &d.plan, err);
	if (r == 0)
		report_plan(&d);
	clear_layout(&d);
	return r;
}
