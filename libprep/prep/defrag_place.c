/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/defrag_place.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"

#define WORTH_MOVING 8 /* a run so many times as long as a stream's fragments */

static uint64_t cluster_size(const struct prep_place *p)
{
	return p->survey->layout.cluster_size;
}

/* Room for one more in an array; `array` is the address of its pointer. */
static int grow(void *array, size_t n, size_t *room, size_t size, struct prep_err *err)
{
	void *more;

	if (n < *room)
		return 0;
	memcpy(&more, array, sizeof more);
	more = reallocarray(more, *room * 2 + 64, size);
	if (more == NULL)
		return prep_fail_nomem(err);
	memcpy(array, &more, sizeof more);
	*room = *room * 2 + 64;
	return 0;
}

int prep_place_init(struct prep_place *p, const struct prep_defrag_survey *survey, const struct prep_evacuation *plan,
		    struct prep_err *err)
{
	*p = (struct prep_place){ .survey = survey, .plan = plan };
	return prep_holes_new(&survey->layout, plan->stays, false, &p->holes, err);
}

void prep_place_clear(struct prep_place *p)
{
	prep_holes_free(p->holes);
	free(p->whole);
	free(p->part);
	free(p->piece);
	*p = (struct prep_place){ .parts = 0 };
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
	struct prep_place *p = arg;
	struct prep_whole w = { .id = s->id, .type = s->type, .name_hash = hash_name(s->name) };
	uint64_t next = UINT64_MAX;

	for (size_t i = 0; i < s->runs; i++) {
		if (s->run[i].off == PREP_FS_HOLE)
			continue;
		w.fragments += s->run[i].off != next;
		next = s->run[i].off + s->run[i].len;
		w.clusters += s->run[i].len / cluster_size(p);
	}
	if (w.fragments < 2 || !prep_defrag_survey_movable(p->survey, s))
		return 0;
	if (grow(&p->whole, p->wholes, &p->whole_room, sizeof w, err) < 0)
		return -1;
	p->whole[p->wholes++] = w;
	return 0;
}

static int by_gain(const void *a, const void *b)
{
	const struct prep_whole *x = a, *y = b;
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
	const struct prep_whole *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	if (x->type != y->type)
		return x->type < y->type ? -1 : 1;
	return (x->name_hash > y->name_hash) - (x->name_hash < y->name_hash);
}

int prep_place_choose_wholes(struct prep_place *p, struct prep_fs *fs, uint64_t budget, uint64_t *bytes,
			     struct prep_err *err)
{
	uint64_t left = budget / cluster_size(p);
	size_t n = 0;

	*bytes = 0;
	if (prep_fs_walk(fs, PREP_FS_WALK_DATA, look_at_fragments, p, err) < 0)
		return -1;
	if (p->wholes == 0)
		return 0;
	qsort(p->whole, p->wholes, sizeof *p->whole, by_gain);
	for (size_t i = 0; i < p->wholes; i++) {
		if (p->whole[i].clusters > left)
			continue;
		left -= p->whole[i].clusters;
		*bytes += p->whole[i].clusters * cluster_size(p);
		p->whole[n++] = p->whole[i];
	}
	p->wholes = n;
	qsort(p->whole, n, sizeof *p->whole, by_identity);
	return 0;
}

/* ---- Pieces ---- */

static int add_piece(struct prep_place *p, uint64_t vcn, uint64_t len, uint64_t lcn, struct prep_err *err)
{
	const uint64_t cs = cluster_size(p);

	if (grow(&p->piece, p->pieces, &p->piece_room, sizeof *p->piece, err) < 0)
		return -1;
	p->piece[p->pieces++] = (struct prep_fs_piece){ vcn * cs, len * cs, lcn * cs };
	return 0;
}

static int add_part(struct prep_place *p, const struct prep_defrag_survey_part *part, struct prep_err *err)
{
	if (grow(&p->part, p->parts, &p->part_room, sizeof *part, err) < 0)
		return -1;
	p->part[p->parts++] = *part;
	return 0;
}

/*
 * Find room for the parts from *next on, in as few runs as there can be, none
 * shorter than `least` clusters but the last. *next is the first part that
 * finds none, with what is left of it, or p->parts.
 */
static int place_parts(struct prep_place *p, size_t *next, uint64_t least, struct prep_err *err)
{
	uint64_t want = 0, lcn = 0, room = 0;
	int r = 1;

	for (size_t i = *next; i < p->parts; i++)
		want += p->part[i].len;
	while (r > 0 && *next < p->parts) {
		struct prep_defrag_survey_part *part = &p->part[*next];
		uint64_t n = prep_min(part->len, room);

		if (n == 0 || (part->whole && n < part->len)) {
			if (prep_holes_give(p->holes, lcn, room, err) < 0)
				return -1;
			r = prep_holes_take(p->holes, want, prep_max(prep_min(least, want), part->whole ? part->len : 1),
					    &lcn, &room, err);
			continue;
		}
		if (add_piece(p, part->vcn, n, lcn, err) < 0)
			return -1;
		lcn += n;
		room -= n;
		want -= n;
		part->vcn += n;
		part->len -= n;
		*next += part->len == 0;
	}
	/* Nothing is left of the last run: it was as long as what was wanted, or given back. */
	return r < 0 ? -1 : 0;
}

bool prep_place_goes(const struct prep_place *p, uint64_t lcn)
{
	const struct prep_defrag_layout *l = &p->survey->layout;

	return prep_bit_get(p->plan->evacuate, prep_defrag_layout_first(l, lcn)) ||
	       prep_bit_get(p->plan->evacuate, prep_defrag_layout_last(l, lcn));
}

/* Cut *part down to the clusters at its front that share a fate: whether they go. */
static bool fate(struct prep_place *p, const struct prep_fs_stream *s, struct prep_defrag_survey_part *part)
{
	const uint64_t end = part->vcn + part->len;
	uint64_t vcn = part->vcn, dragged = 0, next;
	size_t run = part->run;
	bool go = false;

	if (part->fixed)
		return false;
	for (; vcn < end; vcn = next) {
		const uint64_t lcn = prep_defrag_survey_lcn(p->survey, s, &run, vcn);
		const uint64_t run_end = (s->run[run].at + s->run[run].len) / cluster_size(p);
		const bool g = prep_place_goes(p, lcn);

		/* A unit goes as a whole where any of it must. */
		if (!part->whole && vcn > part->vcn && g != go)
			break;
		next = prep_min(prep_min(end, run_end), vcn + (prep_defrag_layout_piece(&p->survey->layout, lcn) - lcn));
		dragged += g ? 0 : next - vcn;
		go |= g;
	}
	part->len = vcn - part->vcn;
	p->dragged += go ? dragged : 0;
	return go;
}

/* A part that stays, for want of a hole, keeps the blocks that it touches. */
static void note_stuck(struct prep_place *p, const struct prep_fs_stream *s,
		       const struct prep_defrag_survey_part *part)
{
	const struct prep_defrag_layout *l = &p->survey->layout;
	size_t run = part->run;

	p->stuck++;
	for (uint64_t vcn = part->vcn; p->pin != NULL && vcn < part->vcn + part->len; vcn++) {
		const uint64_t lcn = prep_defrag_survey_lcn(p->survey, s, &run, vcn);

		if (!prep_place_goes(p, lcn))
			continue;
		prep_bit_set(p->pin, prep_defrag_layout_first(l, lcn));
		prep_bit_set(p->pin, prep_defrag_layout_last(l, lcn));
	}
}

/* Place the parts collected, which are neighbours, and those behind one that finds no room. */
static int place_neighbours(struct prep_place *p, const struct prep_fs_stream *s, struct prep_err *err)
{
	for (size_t next = 0; next < p->parts; next++) {
		if (place_parts(p, &next, 1, err) < 0)
			return -1;
		if (next < p->parts)
			note_stuck(p, s, &p->part[next]);
	}
	p->parts = 0;
	return 0;
}

int prep_place_evacuated(struct prep_place *p, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct prep_defrag_survey_part part;
	size_t run = 0;

	p->pieces = p->parts = 0;
	for (uint64_t vcn = 0; prep_defrag_survey_part(p->survey, s, &run, vcn, &part); vcn = part.vcn + part.len) {
		if (fate(p, s, &part) ? add_part(p, &part, err) < 0 : place_neighbours(p, s, err) < 0)
			return -1;
	}
	return place_neighbours(p, s, err);
}

/*
 * If no hole holds all of it, then from its front on what goes into runs that
 * are many times as long as its fragments are now.
 */
int prep_place_whole(struct prep_place *p, const struct prep_fs_stream *s, struct prep_err *err)
{
	const struct prep_whole key = { .id = s->id, .type = s->type, .name_hash = hash_name(s->name) };
	const struct prep_whole *w;
	struct prep_defrag_survey_part part;
	uint64_t clusters = 0;
	size_t run = 0, next = 0;

	p->pieces = p->parts = 0;
	w = p->wholes > 0 ? bsearch(&key, p->whole, p->wholes, sizeof key, by_identity) : NULL;
	if (w == NULL)
		return 0;
	for (uint64_t vcn = 0; prep_defrag_survey_part(p->survey, s, &run, vcn, &part); vcn = part.vcn + part.len) {
		if (part.fixed)
			return 0;
		if (add_part(p, &part, err) < 0)
			return -1;
		clusters += part.len;
	}
	/* Of two streams whose names have one hash the other is not meant. */
	if (clusters != w->clusters)
		return 0;
	if (place_parts(p, &next, clusters, err) < 0)
		return -1;
	return next > 0 ? 0 : place_parts(p, &next, WORTH_MOVING * (clusters / w->fragments + 1), err);
}

int prep_place_give_back(struct prep_place *p, struct prep_err *err)
{
	const uint64_t cs = cluster_size(p);

	for (size_t i = 0; i < p->pieces; i++)
		if (prep_holes_give(p->holes, p->piece[i].to / cs, p->piece[i].len / cs, err) < 0)
			return -1;
	return 0;
}
