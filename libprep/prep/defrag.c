/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/defrag.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/overlay.h"
#include "libprep/disk/slice.h"
#include "libprep/prep/defrag_place.h"
#include "libprep/prep/gate.h"

#define TRIALS 16 /* a hostile volume must not keep us at it */

/* Data to be copied, on the disk. */
struct copy {
	uint64_t to, from, len;
};

/* Which streams a walk is about. Units that need a hole of their length choose before others cut the holes up. */
enum pass { ALL, UNITS, OTHERS };

struct defrag {
	const struct prep_volume *v;
	const struct prep_defrag *how;
	struct prep_disk *overlay;
	struct prep_disk *staged;        /* the volume as the overlay shows it */
	struct prep_fs *fs, *staged_fs;  /* as it was, read; as it becomes, written */
	struct prep_defrag_volume *report;
	const struct prep_progress *progress;

	struct prep_defrag_survey survey;
	struct prep_evacuation plan;
	struct prep_place place;
	struct prep_holes *others;       /* for the file system's needs, when the place's holes are used up; else NULL */
	enum pass pass;

	struct copy *copy;               /* of all streams so far */
	size_t copies, copy_room;
	uint8_t *empty;                  /* one bit a cluster: of evacuated blocks, and free now */
	uint64_t to_move;                /* bytes planned, for progress */
};

static uint64_t cluster_size(const struct defrag *d)
{
	return d->survey.layout.cluster_size;
}

/* ---- Carrying it out ---- */

/* Grant the file system clusters for its own needs: 1, or 0 when the volume has none left. */
static int grant(struct defrag *d, uint64_t clusters, struct prep_err *err)
{
	uint64_t lcn, len, got;
	int r;

	for (got = 0; got < clusters; got += len) {
		r = prep_holes_take(d->place.holes, clusters - got, 1, &lcn, &len, err);
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
	if (d->copies == d->copy_room) {
		struct copy *const more = reallocarray(d->copy, d->copy_room * 2 + 256, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		d->copy = more;
		d->copy_room = d->copy_room * 2 + 256;
	}
	d->copy[d->copies++] = (struct copy){ to, from, len };
	return 0;
}

/* Have the bytes of the pieces copied, and remember the places they leave. */
static int copy_pieces(struct defrag *d, const struct prep_fs_stream *s, struct prep_err *err)
{
	const uint64_t cs = cluster_size(d), start = d->survey.layout.start;
	size_t run = 0;

	for (size_t i = 0; i < d->place.pieces; i++) {
		const struct prep_fs_piece *p = &d->place.piece[i];
		uint64_t at = p->at, n;

		for (; at < p->at + p->len; at += n) {
			const uint64_t lcn = prep_defrag_survey_lcn(&d->survey, s, &run, at / cs);
			const uint64_t to = start + p->to + (at - p->at);

			n = prep_min(p->at + p->len, s->run[run].at + s->run[run].len) - at;
			if (s->data ? copy_later(d, to, start + lcn * cs, n, err) < 0
				    : copy_now(d, to, start + lcn * cs, n, err) < 0)
				return -1;
			for (uint64_t c = lcn; c < lcn + n / cs; c++)
				if (prep_place_goes(&d->place, c))
					prep_bit_set(d->empty, c);
			d->report->moved += n;
		}
	}
	return 0;
}

/* Whether the walk at hand is about s. */
static bool takes_part(const struct defrag *d, const struct prep_fs_stream *s)
{
	return (d->pass == ALL || (d->pass == UNITS) == s->compressed) && prep_defrag_survey_movable(&d->survey, s);
}

static int move_stream(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct defrag *d = arg;
	struct prep_fs_move m = { .stream = s };
	int r;

	if (!takes_part(d, s))
		return 0;
	if (d->how->goal == PREP_DEFRAG_FILES ? prep_place_whole(&d->place, s, err) < 0
					      : prep_place_evacuated(&d->place, s, err) < 0)
		return -1;
	if (d->place.pieces == 0)
		return 0;
	m.piece = d->place.piece;
	m.pieces = d->place.pieces;
	while ((r = prep_fs_move(d->staged_fs, &m, err)) == 0 && m.lacks > 0) {
		r = grant(d, m.lacks, err);
		if (r <= 0)
			break;
	}
	if (r < 0 || (r == 0 ? prep_place_give_back(&d->place, err) : copy_pieces(d, s, err)) < 0)
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
	const struct prep_defrag_layout *l = &d->survey.layout;

	for (uint64_t lcn = 0, end; d->others == NULL && lcn < l->clusters; lcn = end) {
		end = prep_defrag_layout_piece(l, lcn);
		if (prep_bit_get(l->free, lcn) && prep_place_goes(&d->place, lcn))
			prep_bit_fill(d->empty, lcn, end - lcn, true);
	}
}

/* Stage the copies, and zeros in evacuated blocks, in one ascending order: so it is cheap. */
static int stage_data(struct defrag *d, struct prep_err *err)
{
	const struct prep_defrag_layout *l = &d->survey.layout;
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
	struct prep_defrag_layout l = d->survey.layout;
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
			r = prep_defrag_layout_in_use(&l, &d->report->blocks_after, err);
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
	for (d->pass = d->survey.units ? UNITS : ALL; r == 0; d->pass = OTHERS) {
		r = prep_fs_walk(d->fs, 0, move_stream, d, err);
		if (d->pass != UNITS)
			break;
	}
	if (r == 0)
		r = prep_fs_move_end(d->staged_fs, err);
	return prep_fs_close(d->staged_fs, err) < 0 ? -1 : r;
}

static int carry_out(struct defrag *d, struct prep_err *err)
{
	int r;

	d->empty = calloc((size_t)(d->survey.layout.clusters / 8 + 9), 1);
	if (d->empty == NULL)
		return prep_fail_nomem(err);
	if (prep_slice_open(d->overlay, d->v->part->off, d->v->part->len, d->v->slice->name, &d->staged, err) < 0)
		return -1;
	r = move_all(d, err);
	if (r == 0)
		r = stage_data(d, err);
	if (r == 0)
		r = audit_result(d, err);
	prep_disk_close(d->staged);
	return r;
}

/* ---- Planning ---- */

static int place_unit(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct defrag *d = arg;

	return takes_part(d, s) ? prep_place_evacuated(&d->place, s, err) : 0;
}

/*
 * Choose blocks to evacuate. How many clusters fit is plain arithmetic, but a
 * unit fits only into a hole of its length. So units are placed for a trial, and
 * blocks with one that finds no hole are kept, until all find one.
 */
static int choose_blocks(struct defrag *d, struct prep_err *err)
{
	struct prep_defrag_layout *l = &d->survey.layout;
	uint64_t pinned, bound, dragged = 0;
	bool stuck = d->survey.units;

	if (prep_evacuation_choose(l, &d->plan, err) < 0)
		return -1;
	pinned = d->plan.pinned;
	bound = d->plan.bound;
	d->pass = UNITS;
	for (unsigned i = 0; stuck && i < TRIALS; i++) {
		if (prep_place_init(&d->place, &d->survey, &d->plan, err) < 0)
			return -1;
		d->place.pin = l->pinned;
		if (prep_fs_walk(d->fs, 0, place_unit, d, err) < 0)
			return -1;
		stuck = d->place.stuck > 0;
		dragged = d->place.dragged;
		prep_place_clear(&d->place);
		if (stuck) {
			prep_evacuation_clear(&d->plan);
			if (prep_evacuation_choose(l, &d->plan, err) < 0)
				return -1;
		}
	}
	d->plan.pinned = pinned;
	d->plan.bound = bound;
	d->plan.moves += dragged;
	return 0;
}

static int plan(struct defrag *d, const struct prep_fs_audit *audit, struct prep_disk *disk,
		struct prep_err *err)
{
	struct prep_defrag_volume *r = d->report;

	if (prep_defrag_survey(d->v, d->fs, disk, audit, d->how->block_size, &d->survey, err) < 0 ||
	    choose_blocks(d, err) < 0)
		return -1;
	r->blocks_before = r->blocks_after = d->plan.before;
	r->blocks_pinned = d->plan.pinned;
	r->blocks_bound = d->plan.bound;
	if (d->how->goal == PREP_DEFRAG_BLOCKS) {
		r->blocks_after = d->plan.after;
		d->to_move = d->plan.moves * cluster_size(d);
		return prep_place_init(&d->place, &d->survey, &d->plan, err);
	}
	/* Every block stays, and every free cluster will do: the blocks have their own run. */
	memset(d->plan.evacuate, 0, (size_t)(d->survey.layout.blocks / 8 + 9));
	memset(d->plan.stays, 0xFF, (size_t)(d->survey.layout.blocks / 8 + 9));
	if (prep_place_init(&d->place, &d->survey, &d->plan, err) < 0)
		return -1;
	return prep_place_choose_wholes(&d->place, d->fs, d->how->budget, &d->to_move, err);
}

static void clear(struct defrag *d)
{
	prep_evacuation_clear(&d->plan);
	prep_defrag_survey_clear(&d->survey);
	prep_place_clear(&d->place);
	prep_holes_free(d->others);
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
