/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/defrag.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/overlay.h"
#include "libprep/disk/slice.h"
#include "libprep/prep/defrag_plan.h"
#include "libprep/prep/defrag_survey.h"
#include "libprep/prep/gate.h"

#define WORTH_MOVING 8 /* a run so many times as long as a stream's fragments */

/* A fragmented stream, for the choice of those that are worth being made whole. */
struct candidate {
	uint64_t id;
	uint32_t type, name_hash;
	uint64_t fragments, clusters;
};

/* Data to be copied, on the disk. */
struct copy {
	uint64_t to, from, len;
};

struct defrag {
	const struct prep_volume *v;
	const struct prep_defrag *how;
	struct prep_disk *overlay;
	struct prep_disk *staged;        /* the volume as the overlay shows it */
	struct prep_fs *fs, *staged_fs;  /* as it was, read; as it becomes, written */
	struct prep_defrag_volume *report;
	const struct prep_progress *progress;

	struct prep_survey survey;
	struct prep_evacuation plan;
	struct prep_holes *holes;        /* where data may go */
	struct prep_holes *others;       /* for the file system's needs when those are used up; NULL until then */

	struct candidate *whole;         /* to be made contiguous, by id, type and name */
	size_t wholes, whole_room;

	/* Of the stream at hand */
	struct prep_survey_part *part;   /* to go to one place, if there is one for all of it */
	size_t parts, part_room;
	struct prep_fs_piece *piece;
	size_t pieces, piece_room;

	struct copy *copy;               /* of all streams so far */
	size_t copies, copy_room;
	uint8_t *empty;                  /* one bit a cluster: of evacuated blocks, and free now */
	uint64_t to_move;                /* bytes planned, for progress */
};

/* Room for one more in an array that doubles. */
static int grow(void **array, size_t n, size_t *room, size_t size, struct prep_err *err)
{
	void *more;

	if (n < *room)
		return 0;
	more = reallocarray(*array, *room * 2 + 64, size);
	if (more == NULL)
		return prep_fail_nomem(err);
	*array = more;
	*room = *room * 2 + 64;
	return 0;
}

static uint64_t cluster_size(const struct defrag *d)
{
	return d->survey.layout.cluster_size;
}

/* ---- Which streams to make contiguous ---- */

static uint32_t hash_name(const char *s)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (; *s != '\0'; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h;
}

static int look_at_fragments(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct defrag *d = arg;
	struct candidate c = { .id = s->id, .type = s->type, .name_hash = hash_name(s->name) };
	uint64_t next = UINT64_MAX;

	for (size_t i = 0; i < s->runs; i++) {
		if (s->run[i].off == PREP_FS_HOLE)
			continue;
		c.fragments += s->run[i].off != next;
		next = s->run[i].off + s->run[i].len;
		c.clusters += s->run[i].len / cluster_size(d);
	}
	if (c.fragments < 2 || !prep_survey_movable(&d->survey, s))
		return 0;
	if (grow((void **)&d->whole, d->wholes, &d->whole_room, sizeof c, err) < 0)
		return -1;
	d->whole[d->wholes++] = c;
	return 0;
}

static int by_gain(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;
	/* Fragments saved per cluster moved; cross-multiplied, in 128 bits. */
	const unsigned __int128 p = (unsigned __int128)(x->fragments - 1) * y->clusters;
	const unsigned __int128 q = (unsigned __int128)(y->fragments - 1) * x->clusters;

	if (p != q)
		return p > q ? -1 : 1;
	/* Then in the order of the walk: the same input gives the same result. */
	return x->id != y->id ? (x->id > y->id) - (x->id < y->id)
			      : (x->name_hash > y->name_hash) - (x->name_hash < y->name_hash);
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
static int choose_wholes(struct defrag *d, struct prep_err *err)
{
	uint64_t left = (d->how->budget != 0 ? d->how->budget : UINT64_MAX) / cluster_size(d);
	size_t n = 0;

	if (prep_fs_walk(d->fs, PREP_FS_WALK_DATA, look_at_fragments, d, err) < 0)
		return -1;
	if (d->wholes == 0)
		return 0;
	qsort(d->whole, d->wholes, sizeof *d->whole, by_gain);
	for (size_t i = 0; i < d->wholes; i++) {
		if (d->whole[i].clusters > left)
			continue;
		left -= d->whole[i].clusters;
		d->to_move += d->whole[i].clusters * cluster_size(d);
		d->whole[n++] = d->whole[i];
	}
	d->wholes = n;
	qsort(d->whole, n, sizeof *d->whole, by_identity);
	return 0;
}

/* ---- Where a stream's clusters go ---- */

static int add_piece(struct defrag *d, uint64_t vcn, uint64_t len, uint64_t lcn, struct prep_err *err)
{
	const uint64_t cs = cluster_size(d);

	if (grow((void **)&d->piece, d->pieces, &d->piece_room, sizeof *d->piece, err) < 0)
		return -1;
	d->piece[d->pieces++] = (struct prep_fs_piece){ vcn * cs, len * cs, lcn * cs };
	return 0;
}

static int add_part(struct defrag *d, const struct prep_survey_part *p, struct prep_err *err)
{
	if (grow((void **)&d->part, d->parts, &d->part_room, sizeof *p, err) < 0)
		return -1;
	d->part[d->parts++] = *p;
	return 0;
}

/*
 * Find room for the parts collected, in as few runs as there can be, none
 * shorter than `least` clusters but the last. What finds none stays.
 */
static int place_parts(struct defrag *d, uint64_t least, struct prep_err *err)
{
	uint64_t want = 0, lcn = 0, room = 0;
	int r = 1;

	for (size_t i = 0; i < d->parts; i++)
		want += d->part[i].len;
	for (size_t i = 0; r > 0 && i < d->parts;) {
		struct prep_survey_part *p = &d->part[i];
		uint64_t n = prep_min(p->len, room);

		if (n == 0 || (p->whole && n < p->len)) {
			if (prep_holes_give(d->holes, lcn, room, err) < 0)
				return -1;
			r = prep_holes_take(d->holes, want, prep_max(prep_min(least, want), p->whole ? p->len : 1), &lcn,
					    &room, err);
			continue;
		}
		if (add_piece(d, p->vcn, n, lcn, err) < 0)
			return -1;
		lcn += n;
		room -= n;
		want -= n;
		p->vcn += n;
		p->len -= n;
		i += p->len == 0;
	}
	/* A run too short for the next part was given back above. */
	return r < 0 ? -1 : r > 0 ? prep_holes_give(d->holes, lcn, room, err) : 0;
}

static bool goes(const struct defrag *d, uint64_t lcn)
{
	const struct prep_layout *l = &d->survey.layout;

	return prep_bit_get(d->plan.evacuate, prep_layout_first(l, lcn)) ||
	       prep_bit_get(d->plan.evacuate, prep_layout_last(l, lcn));
}

/* Cut *p down to the clusters at its front that share a fate: whether they go. */
static bool fate(const struct defrag *d, const struct prep_fs_stream *s, size_t run,
		 struct prep_survey_part *p)
{
	const uint64_t end = p->vcn + p->len;
	uint64_t vcn = p->vcn;
	bool go = false;

	if (p->fixed)
		return false;
	while (vcn < end) {
		const uint64_t lcn = prep_survey_lcn(&d->survey, s, &run, vcn);
		const uint64_t run_end = (s->run[run].at + s->run[run].len) / cluster_size(d);
		const bool g = goes(d, lcn);

		/* A unit goes as a whole where any of it must. */
		if (!p->whole && vcn > p->vcn && g != go)
			break;
		go |= g;
		vcn = prep_min(prep_min(end, run_end), vcn + (prep_layout_piece(&d->survey.layout, lcn) - lcn));
	}
	p->len = vcn - p->vcn;
	return go;
}

/* Plan the pieces of s that lie in evacuated blocks; what goes and is neighbours in s is kept together. */
static int plan_evacuation(struct defrag *d, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct prep_survey_part part;
	size_t run = 0;

	for (uint64_t vcn = 0; prep_survey_part(&d->survey, s, &run, vcn, &part); vcn = part.vcn + part.len) {
		if (fate(d, s, run, &part)) {
			if (add_part(d, &part, err) < 0)
				return -1;
		} else if (d->parts > 0) {
			if (place_parts(d, 1, err) < 0)
				return -1;
			d->parts = 0;
		}
	}
	return d->parts > 0 ? place_parts(d, 1, err) : 0;
}

/*
 * Plan all of s into one run, where it was chosen for that. If no hole holds
 * it, then from its front on what goes into runs that are many times as long as its
 * fragments are now.
 */
static int plan_whole(struct defrag *d, const struct prep_fs_stream *s, struct prep_err *err)
{
	const struct candidate key = { .id = s->id, .type = s->type, .name_hash = hash_name(s->name) };
	const struct candidate *c;
	struct prep_survey_part part;
	uint64_t clusters = 0;
	size_t run = 0;

	c = d->wholes > 0 ? bsearch(&key, d->whole, d->wholes, sizeof key, by_identity) : NULL;
	if (c == NULL)
		return 0;
	for (uint64_t vcn = 0; prep_survey_part(&d->survey, s, &run, vcn, &part); vcn = part.vcn + part.len) {
		if (part.fixed)
			return 0;
		if (add_part(d, &part, err) < 0)
			return -1;
		clusters += part.len;
	}
	/* Of two streams whose names have one hash the other is not meant. */
	if (clusters != c->clusters)
		return 0;
	if (place_parts(d, clusters, err) < 0)
		return -1;
	return d->pieces > 0 ? 0 : place_parts(d, WORTH_MOVING * (clusters / c->fragments + 1), err);
}

/* ---- Carrying it out ---- */

/* Grant the file system clusters for its own needs: 1, or 0 when the volume has none left. */
static int grant(struct defrag *d, uint64_t clusters, struct prep_err *err)
{
	uint64_t lcn, len, got;
	int r;

	for (got = 0; got < clusters; got += len) {
		r = prep_holes_take(d->holes, clusters - got, 1, &lcn, &len, err);
		if (r == 0 && d->others == NULL &&
		    prep_holes_new(&d->survey.layout, d->plan.stays, true, &d->others, err) < 0)
			return -1;
		/* Better one block more in use than nothing moved. */
		if (r == 0)
			r = prep_holes_take(d->others, clusters - got, 1, &lcn, &len, err);
		if (r <= 0)
			return r;
		if (prep_fs_move_grant(d->staged_fs, lcn, len, err) < 0)
			return -1;
	}
	return 1;
}

/* Indexes and the like may have been written by what was staged before: copied as they are now, at once. */
static int copy_now(struct defrag *d, uint64_t to, uint64_t from, uint64_t len, struct prep_err *err)
{
	unsigned char buf[64 * 1024];

	for (uint64_t n = 0, step; n < len; n += step) {
		step = prep_min(sizeof buf, len - n);
		if (prep_disk_read(d->overlay, buf, (size_t)step, from + n, err) < 0 ||
		    prep_disk_write(d->overlay, buf, (size_t)step, to + n, err) < 0)
			return -1;
	}
	return 0;
}

/* Data is copied later, all of it in the order of the disk: libntfs-3g never looks at it. */
static int copy_later(struct defrag *d, uint64_t to, uint64_t from, uint64_t len, struct prep_err *err)
{
	if (grow((void **)&d->copy, d->copies, &d->copy_room, sizeof *d->copy, err) < 0)
		return -1;
	d->copy[d->copies++] = (struct copy){ to, from, len };
	return 0;
}

/* Have the bytes of the pieces copied, and remember the places they leave. */
static int copy_pieces(struct defrag *d, const struct prep_fs_stream *s, struct prep_err *err)
{
	const uint64_t cs = cluster_size(d), start = d->survey.layout.start;
	size_t run = 0;

	for (size_t i = 0; i < d->pieces; i++) {
		const struct prep_fs_piece *p = &d->piece[i];
		uint64_t at = p->at, n;

		for (; at < p->at + p->len; at += n) {
			const uint64_t lcn = prep_survey_lcn(&d->survey, s, &run, at / cs);
			const uint64_t to = start + p->to + (at - p->at);

			n = prep_min(p->at + p->len, s->run[run].at + s->run[run].len) - at;
			if (s->data ? copy_later(d, to, start + lcn * cs, n, err) < 0
				    : copy_now(d, to, start + lcn * cs, n, err) < 0)
				return -1;
			for (uint64_t c = lcn; c < lcn + n / cs; c++)
				if (goes(d, c))
					prep_bit_set(d->empty, c);
			d->report->moved += n;
		}
	}
	return 0;
}

/* The holes planned for a stream that is not moved after all are free for others. */
static int give_back(struct defrag *d, struct prep_err *err)
{
	const uint64_t cs = cluster_size(d);

	for (size_t i = 0; i < d->pieces; i++)
		if (prep_holes_give(d->holes, d->piece[i].to / cs, d->piece[i].len / cs, err) < 0)
			return -1;
	return 0;
}

static int move_stream(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct defrag *d = arg;
	struct prep_fs_move m = { .stream = s };
	int r;

	d->pieces = d->parts = 0;
	if (!prep_survey_movable(&d->survey, s))
		return 0;
	if (d->how->goal == PREP_DEFRAG_FILES ? plan_whole(d, s, err) < 0 : plan_evacuation(d, s, err) < 0)
		return -1;
	if (d->pieces == 0)
		return 0;
	m.piece = d->piece;
	m.pieces = d->pieces;
	while ((r = prep_fs_move(d->staged_fs, &m, err)) == 0 && m.lacks > 0) {
		r = grant(d, m.lacks, err);
		if (r <= 0)
			break;
	}
	if (r < 0 || (r == 0 ? give_back(d, err) : copy_pieces(d, s, err)) < 0)
		return -1;
	return prep_progress(d->progress, "planning", d->report->moved, d->to_move, err);
}

static int by_target(const void *a, const void *b)
{
	const struct copy *x = a, *y = b;

	return (x->to > y->to) - (x->to < y->to);
}

/*
 * What was free in evacuated blocks all along is zeroed with what has left: a
 * block at a time is far cheaper than cluster by cluster, and then it is empty.
 * Not where the file system may have taken something.
 */
static void empty_blocks(struct defrag *d)
{
	const struct prep_layout *l = &d->survey.layout;

	for (uint64_t lcn = 0, end; d->others == NULL && lcn < l->clusters; lcn = end) {
		end = prep_layout_piece(l, lcn);
		if (prep_bit_get(l->free, lcn) && goes(d, lcn))
			prep_bit_fill(d->empty, lcn, end - lcn, true);
	}
}

/* Stage the copies, and zeros in evacuated blocks, in one ascending order: so it is cheap. */
static int stage_data(struct defrag *d, struct prep_err *err)
{
	const struct prep_layout *l = &d->survey.layout;
	uint64_t lcn = 0, end;
	size_t i = 0;

	if (d->copies > 0)
		qsort(d->copy, d->copies, sizeof *d->copy, by_target);
	empty_blocks(d);
	for (;;) {
		lcn = prep_bit_next(d->empty, lcn, l->clusters, true);
		for (; i < d->copies && (lcn == l->clusters || d->copy[i].to < l->start + lcn * l->cluster_size); i++)
			if (prep_overlay_copy(d->overlay, d->copy[i].to, d->copy[i].from, d->copy[i].len, err) < 0)
				return -1;
		if (lcn == l->clusters)
			return 0;
		end = prep_bit_next(d->empty, lcn, l->clusters, false);
		if (prep_overlay_fill(d->overlay, l->start + lcn * l->cluster_size, (end - lcn) * l->cluster_size, 0,
				      err) < 0)
			return -1;
		lcn = end;
	}
}

/* Audit what is staged, and count the blocks that it leaves in use. */
static int audit_result(struct defrag *d, struct prep_err *err)
{
	struct prep_layout l = d->survey.layout;
	struct prep_fs_audit audit;
	struct prep_fs *fs;
	int r;

	if (prep_fs_open(d->staged, 0, &fs, err) < 0)
		return -1;
	r = prep_fs_audit(fs, &audit, d->progress, err);
	if (r == 0) {
		/* Idle: what is free now, and what was used all along without weight. */
		for (uint64_t i = 0; i < (l.clusters + 7) / 8; i++)
			d->survey.idle[i] = (uint8_t)((d->survey.idle[i] & ~l.free[i]) | audit.free_map[i]);
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

static int move_all(struct defrag *d, struct prep_err *err)
{
	int r = prep_fs_open(d->staged, PREP_FS_WRITE, &d->staged_fs, err);

	if (r < 0)
		return -1;
	r = prep_fs_move_begin(d->staged_fs, err);
	if (r == 0)
		r = prep_fs_walk(d->fs, 0, move_stream, d, err);
	if (r == 0)
		r = prep_fs_move_end(d->staged_fs, err);
	return prep_fs_close(d->staged_fs, err) < 0 ? -1 : r;
}

static int carry_out(struct defrag *d, struct prep_err *err)
{
	const struct prep_layout *l = &d->survey.layout;
	int r;

	d->empty = calloc((size_t)(l->clusters / 8 + 9), 1);
	if (d->empty == NULL)
		return prep_fail_nomem(err);
	if (prep_holes_new(l, d->plan.stays, false, &d->holes, err) < 0 ||
	    prep_slice_open(d->overlay, d->v->part->off, d->v->part->len, d->v->slice->name, &d->staged, err) < 0)
		return -1;
	r = move_all(d, err);
	if (r == 0)
		r = stage_data(d, err);
	if (r == 0)
		r = audit_result(d, err);
	prep_disk_close(d->staged);
	return r;
}

static void report_plan(struct defrag *d)
{
	d->report->blocks_before = d->plan.before;
	d->report->blocks_pinned = d->plan.pinned;
	d->report->blocks_bound = d->plan.bound;
	d->report->blocks_after = d->plan.after;
}

static int plan(struct defrag *d, const struct prep_fs_audit *audit, struct prep_disk *disk,
		struct prep_err *err)
{
	if (prep_survey(d->v, d->fs, disk, audit, d->how->block_size, &d->survey, err) < 0 ||
	    prep_evacuation_choose(&d->survey.layout, &d->plan, err) < 0)
		return -1;
	report_plan(d);
	d->to_move = d->plan.moves * cluster_size(d);
	if (d->how->goal == PREP_DEFRAG_BLOCKS)
		return 0;
	/* Every block stays, and every free cluster will do: the blocks have their own run. */
	memset(d->plan.evacuate, 0, (size_t)(d->survey.layout.blocks / 8 + 9));
	memset(d->plan.stays, 0xFF, (size_t)(d->survey.layout.blocks / 8 + 9));
	d->report->blocks_after = d->report->blocks_before;
	d->to_move = 0;
	return choose_wholes(d, err);
}

static void clear(struct defrag *d)
{
	prep_evacuation_clear(&d->plan);
	prep_survey_clear(&d->survey);
	prep_holes_free(d->holes);
	prep_holes_free(d->others);
	free(d->whole);
	free(d->part);
	free(d->piece);
	free(d->copy);
	free(d->empty);
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
	r = plan(d, &audit, disk, err);
	if (r == 0 && d->to_move > 0)
		r = carry_out(d, err);
	d->report->done = r == 0;
	clear(d);
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
	/* $Bitmap was written for the time of the moves, and most of it is as it was. */
	return prep_overlay_tidy(overlay, err);
}

int prep_defrag_estimate(const struct prep_volume *v, struct prep_fs *fs, struct prep_disk *disk,
			 const struct prep_fs_audit *audit, uint64_t block_size,
			 struct prep_defrag_volume *ret, struct prep_err *err)
{
	const struct prep_defrag how = { .goal = PREP_DEFRAG_BLOCKS, .block_size = block_size };
	struct defrag d = { .v = v, .how = &how, .fs = fs, .report = ret };
	int r;

	*ret = (struct prep_defrag_volume){ .number = v->part->number, .kind = v->kind };
	r = plan(&d, audit, disk, err);
	ret->moved = d.to_move;
	clear(&d);
	return r;
}
