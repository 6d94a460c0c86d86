/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/patch_plan.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/pair.h"
#include "libprep/ckm/patch.h"

/*
 * Measured (HACKING.md): more of the old file than this around the place gains nothing, and
 * frames need not be larger.
 */
#define UNIT (512 * PREP_KIB)           /* of consecutive new chunks that refer to one place */
#define MARGIN_LEAST (64 * PREP_KIB)    /* before and behind that place */
#define MARGIN_MOST (1 * PREP_MIB)
#define GROUP_SIZE (1 * PREP_MIB)       /* a frame has that, or references of */
#define GROUP_REFERENCE (3 * PREP_MIB)
#define LOOK_AHEAD 1024u                /* chunks, for one that has not changed */
#define NEIGHBOURHOOD (64 * PREP_KIB)   /* of what is in no file */

/* A chunk of the base that is in no file, and where on the disk it begins. */
struct neighbour {
	uint64_t off;
	uint32_t chunk;
};

/* Patches against one base. */
struct finder {
	const struct prep_plan *plan;
	const struct prep_ckm_index *in, *old;
	const struct prep_base *base;
	uint32_t number;          /* of the base */
	struct prep_patches *ret;
	struct prep_patch_group group; /* being filled: its chunks and references are the last ones */
	uint32_t *known;          /* of each chunk of in: that of old, or UINT32_MAX */
	uint8_t *done;            /* bits of each chunk of in: it is in a group */
	uint32_t *in_group;       /* of each chunk of old: the last group that refers to it, */
	uint32_t now;             /* counted from 1, those that come to nothing too: this one */
	uint32_t *ref_of;         /* of each chunk of old: its reference in the stream at hand, or UINT32_MAX */
	uint64_t *old_at;         /* where the references of that stream begin in it, and where it ends */
	size_t old_at_room;
	struct neighbour *neighbour; /* by offset */
	size_t neighbours;
};

static int grow(uint32_t **array, uint32_t n, uint32_t *room, struct prep_err *err)
{
	uint32_t *more;

	if (n < *room)
		return 0;
	if (n >= PREP_CKM_REFS_MAX)
		return prep_fail(err, PREP_EREFUSED, "more patches than a package can hold");
	more = reallocarray(*array, *room != 0 ? (size_t)*room * 2 : 1024, sizeof *more);
	if (more == NULL)
		return prep_fail_nomem(err);
	*array = more;
	*room = *room != 0 ? *room * 2 : 1024;
	return 0;
}

/* ---- Groups ---- */

static int flush(struct finder *f, struct prep_err *err)
{
	struct prep_patches *p = f->ret;
	struct prep_patch_group *g = &f->group;

	/* The format bounds references by what they serve. */
	while (g->reference_size > (uint64_t)g->size * PREP_CKM_REFERENCE_RATIO) {
		g->references--;
		p->references--;
		g->reference_size -= f->old->chunk[p->reference[p->references]].size;
	}
	if (g->references == 0) {
		p->chunks -= g->chunks;
	} else {
		if (p->groups == p->groups_room) {
			const uint32_t room = p->groups_room != 0 ? p->groups_room * 2 : 64;
			struct prep_patch_group *more = reallocarray(p->group, room, sizeof *more);

			if (more == NULL)
				return prep_fail_nomem(err);
			p->group = more;
			p->groups_room = room;
		}
		p->group[p->groups++] = *g;
	}
	*g = (struct prep_patch_group){ .base = f->number, .first_chunk = p->chunks, .first_reference = p->references };
	f->now++;
	return 0;
}

static int add_chunk(struct finder *f, uint32_t chunk, struct prep_err *err)
{
	if (grow(&f->ret->chunk, f->ret->chunks, &f->ret->chunks_room, err) < 0)
		return -1;
	f->ret->chunk[f->ret->chunks++] = f->plan->source[chunk];
	f->group.chunks++;
	f->group.size += f->in->chunk[chunk].size;
	prep_bit_set(f->done, chunk);
	return 0;
}

static int add_reference(struct finder *f, uint32_t chunk, struct prep_err *err)
{
	const uint32_t size = f->old->chunk[chunk].size;

	if (f->in_group[chunk] == f->now || f->group.reference_size + size > PREP_CKM_REFERENCE_MAX ||
	    !prep_base_readable(f->base, chunk))
		return 0;
	if (grow(&f->ret->reference, f->ret->references, &f->ret->references_room, err) < 0)
		return -1;
	f->in_group[chunk] = f->now;
	f->ret->reference[f->ret->references++] = chunk;
	f->group.references++;
	f->group.reference_size += size;
	return 0;
}

static int end_unit(struct finder *f, struct prep_err *err)
{
	return f->group.size >= GROUP_SIZE || f->group.reference_size >= GROUP_REFERENCE ? flush(f, err) : 0;
}

static bool is_new(const struct finder *f, uint32_t chunk)
{
	return f->known[chunk] == UINT32_MAX && !prep_bit_get(f->done, chunk);
}

/* ---- Files ---- */

/* Learn where the chunks of a stream of the base are in it. forget_stream undoes it. */
static int learn_stream(struct finder *f, const struct prep_stream *old, struct prep_err *err)
{
	uint64_t at = 0;

	if (old->refs >= f->old_at_room) {
		free(f->old_at);
		f->old_at_room = (size_t)old->refs * 2 + 1;
		f->old_at = malloc(f->old_at_room * sizeof *f->old_at);
		if (f->old_at == NULL)
			return prep_fail_nomem(err);
	}
	for (uint32_t k = 0; k < old->refs; k++) {
		const uint32_t chunk = f->old->ref[old->first_ref + k];

		f->old_at[k] = at;
		at += f->old->chunk[chunk].size;
		if (f->ref_of[chunk] == UINT32_MAX)
			f->ref_of[chunk] = k;
	}
	f->old_at[old->refs] = at;
	return 0;
}

static void forget_stream(struct finder *f, const struct prep_stream *old)
{
	for (uint32_t k = old->first_ref; k < old->first_ref + old->refs; k++)
		f->ref_of[f->old->ref[k]] = UINT32_MAX;
}

/* Refer to what is in [from, to) of the old stream. */
static int add_window(struct finder *f, const struct prep_stream *old, int64_t from, int64_t to,
		      struct prep_err *err)
{
	uint32_t low = 0, high = old->refs;

	/* The first reference that ends behind `from`. */
	while (low < high) {
		const uint32_t mid = low + (high - low) / 2;

		if ((int64_t)f->old_at[mid + 1] <= from)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < old->refs && (int64_t)f->old_at[low] < to; low++)
		if (add_reference(f, f->old->ref[old->first_ref + low], err) < 0)
			return -1;
	return 0;
}

/* How far a chunk, which stands at `at` of the new stream, stood behind that in the old one. */
static bool find_shift(const struct finder *f, uint32_t chunk, uint64_t at, int64_t *ret)
{
	const uint32_t known = f->known[chunk];

	if (known == UINT32_MAX || f->ref_of[known] == UINT32_MAX)
		return false;
	*ret = (int64_t)f->old_at[f->ref_of[known]] - (int64_t)at;
	return true;
}

/* What has changed of a stream refers to the old one, between what has not. */
static int patch_file(struct finder *f, const struct prep_stream *s, const struct prep_stream *old, struct prep_err *err)
{
	const uint32_t end = s->first_ref + s->refs;
	const int64_t grown = (int64_t)old->size - (int64_t)s->size;
	int64_t before = 0, behind = 0;
	bool has_before = false;
	uint64_t at = 0;

	for (uint32_t k = s->first_ref; k < end;) {
		uint64_t len = 0, ahead;
		int64_t margin;
		bool has_behind = false;

		if (!is_new(f, f->in->ref[k])) {
			has_before |= find_shift(f, f->in->ref[k], at, &before);
			at += f->in->chunk[f->in->ref[k++]].size;
			continue;
		}
		for (; k < end && len < UNIT && is_new(f, f->in->ref[k]); k++) {
			len += f->in->chunk[f->in->ref[k]].size;
			if (add_chunk(f, f->in->ref[k], err) < 0)
				return -1;
		}
		ahead = at + len;
		for (uint32_t i = k; i < end && i - k < LOOK_AHEAD && !has_behind; i++) {
			has_behind = find_shift(f, f->in->ref[i], ahead, &behind);
			ahead += f->in->chunk[f->in->ref[i]].size;
		}
		if (!has_behind)
			behind = has_before ? before : grown;
		if (!has_before)
			before = has_behind ? behind : 0;
		/* The place itself first: of what is around it there may be too much. */
		margin = (int64_t)prep_min(prep_max(2 * len, MARGIN_LEAST), MARGIN_MOST);
		if (add_window(f, old, (int64_t)at + before, (int64_t)(at + len) + before, err) < 0 ||
		    add_window(f, old, (int64_t)at + behind, (int64_t)(at + len) + behind, err) < 0 ||
		    add_window(f, old, (int64_t)at + before - margin, (int64_t)(at + len) + before + margin, err) < 0 ||
		    add_window(f, old, (int64_t)at + behind - margin, (int64_t)(at + len) + behind + margin, err) < 0 ||
		    end_unit(f, err) < 0)
			return -1;
		if (!has_before)
			before = 0;
		at += len;
	}
	return 0;
}

/* ---- What is in no file ---- */

static int by_offset(const void *a, const void *b)
{
	const struct neighbour *x = a, *y = b;

	if (x->off != y->off)
		return x->off < y->off ? -1 : 1;
	return (x->chunk > y->chunk) - (x->chunk < y->chunk);
}

/* Call fn for each reference of a stream, with the place of its first byte on the disk. */
static int each_place(const struct prep_ckm_index *in, const struct prep_stream *s, void *arg,
		      int (*fn)(void *arg, uint32_t chunk, uint64_t off, struct prep_err *err), struct prep_err *err)
{
	uint32_t run = s->first_run;
	uint64_t in_run = 0;

	for (uint32_t k = s->first_ref; k < s->first_ref + s->refs; k++) {
		while (in_run >= in->run[run].len)
			in_run -= in->run[run++].len;
		if (fn(arg, in->ref[k], in->run[run].off + in_run, err) < 0)
			return -1;
		in_run += in->chunk[in->ref[k]].size;
	}
	return 0;
}

static int add_neighbour(void *arg, uint32_t chunk, uint64_t off, struct prep_err *err)
{
	struct finder *f = arg;

	(void)err;
	f->neighbour[f->neighbours++] = (struct neighbour){ off, chunk };
	return 0;
}

static int find_neighbours(struct finder *f, struct prep_err *err)
{
	size_t n = 0;

	for (uint32_t i = 0; i < f->old->streams; i++)
		if (f->old->stream[i].path[0] == '\0')
			n += f->old->stream[i].refs;
	f->neighbour = malloc((n + 1) * sizeof *f->neighbour);
	if (f->neighbour == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < f->old->streams; i++)
		if (f->old->stream[i].path[0] == '\0' &&
		    each_place(f->old, &f->old->stream[i], f, add_neighbour, err) < 0)
			return -1;
	qsort(f->neighbour, f->neighbours, sizeof *f->neighbour, by_offset);
	return 0;
}

/* A new chunk refers to those that began near its place. */
static int patch_place(void *arg, uint32_t chunk, uint64_t off, struct prep_err *err)
{
	struct finder *f = arg;
	const uint64_t from = off - prep_min(off, NEIGHBOURHOOD), to = off + f->in->chunk[chunk].size + NEIGHBOURHOOD;
	size_t low = 0, high = f->neighbours;

	if (!is_new(f, chunk))
		return 0;
	while (low < high) {
		const size_t mid = low + (high - low) / 2;

		if (f->neighbour[mid].off < from)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == f->neighbours || f->neighbour[low].off >= to)
		return 0;
	if (add_chunk(f, chunk, err) < 0)
		return -1;
	for (; low < f->neighbours && f->neighbour[low].off < to; low++)
		if (add_reference(f, f->neighbour[low].chunk, err) < 0)
			return -1;
	return end_unit(f, err);
}

/* ---- All of a base ---- */

static int find_groups(struct finder *f, const uint32_t *pair, struct prep_err *err)
{
	f->now = 1;
	f->group = (struct prep_patch_group){ .base = f->number, .first_chunk = f->ret->chunks,
					      .first_reference = f->ret->references };
	for (uint32_t i = 0; i < f->in->streams; i++) {
		const struct prep_stream *s = &f->in->stream[i], *old;
		int r;

		if (s->path[0] == '\0') {
			if (each_place(f->in, s, f, patch_place, err) < 0)
				return -1;
			continue;
		}
		if (pair[i] == PREP_PAIR_NONE)
			continue;
		old = &f->old->stream[pair[i]];
		r = learn_stream(f, old, err);
		if (r == 0)
			r = patch_file(f, s, old, err);
		forget_stream(f, old);
		if (r < 0)
			return -1;
	}
	return flush(f, err);
}

static int find_against(const struct prep_survey *s, const struct prep_plan *plan, const struct prep_base *base,
			uint32_t number, struct prep_pool *pool, struct prep_patches *ret, struct prep_err *err)
{
	struct finder f = {
		.plan = plan, .in = &plan->index, .old = base->index, .base = base, .number = number, .ret = ret,
	};
	uint32_t *pair = NULL;
	int r = -1;

	f.known = malloc(((size_t)f.in->chunks + 1) * sizeof *f.known);
	f.done = calloc((size_t)f.in->chunks / 8 + 1, 1);
	f.in_group = calloc((size_t)f.old->chunks + 1, sizeof *f.in_group);
	f.ref_of = malloc(((size_t)f.old->chunks + 1) * sizeof *f.ref_of);
	if (f.known == NULL || f.done == NULL || f.in_group == NULL || f.ref_of == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	memset(f.ref_of, 0xFF, ((size_t)f.old->chunks + 1) * sizeof *f.ref_of);
	for (uint32_t i = 0; i < f.in->chunks; i++)
		f.known[i] = prep_chunk_table_find(base->table, f.in->chunk[i].digest);
	if (prep_pair_streams(s, plan, base, f.known, pool, &pair, err) == 0 && find_neighbours(&f, err) == 0)
		r = find_groups(&f, pair, err);
out:
	free(pair);
	free(f.known);
	free(f.done);
	free(f.in_group);
	free(f.ref_of);
	free(f.old_at);
	free(f.neighbour);
	return r;
}

/* ---- What is worth it ---- */

struct trial_job {
	struct prep_job job;
	const struct prep_survey *survey;
	const struct prep_base *base;
	const struct prep_patches *patches;
	struct prep_patch_group *group;
	uint8_t *raw, *reference, *scratch;
	struct prep_base_reader reader;
	struct prep_err err;
};

static void try(struct prep_job *job)
{
	struct trial_job *j = (struct trial_job *)job;
	struct prep_patch_group *g = j->group;
	const struct prep_base *base = &j->base[g->base];
	uint8_t *to = j->reference;
	int r;

	if (j->reader.hash.md == NULL && prep_base_reader_open(&j->reader, &j->err) < 0)
		return;
	r = prep_survey_read(j->survey, j->patches->chunk + g->first_chunk, g->chunks, j->raw, &j->err);
	for (uint32_t k = 0; r == 0 && k < g->references; k++) {
		const uint32_t chunk = j->patches->reference[g->first_reference + k];

		r = prep_base_read(&j->reader, base, chunk, to, &j->err);
		to += base->index->chunk[chunk].size;
	}
	if (r == 0)
		g->worth = prep_patch_worth(j->reference, g->reference_size, j->raw, g->size, j->scratch, &j->err) == 1;
}

/* Try every group; no more begin after a failure. */
static int try_groups(struct prep_patches *p, struct trial_job *job, size_t window, struct prep_pool *pool,
		      const struct prep_progress *progress, struct prep_err *err)
{
	size_t first = 0, last = 0;

	while (first < last || (last < p->groups && err->code == PREP_DONE)) {
		struct trial_job *j = &job[last % window];

		if (last < p->groups && last - first < window && err->code == PREP_DONE) {
			j->group = &p->group[last++];
			j->err = (struct prep_err)PREP_ERR_INIT;
			prep_pool_submit(pool, &j->job);
			continue;
		}
		j = &job[first++ % window];
		prep_pool_wait(pool, &j->job);
		if (j->err.code != PREP_DONE)
			prep_fail(err, j->err.code, "%s", j->err.msg);
		if (err->code == PREP_DONE)
			prep_progress(progress, "comparing with the base", first, p->groups, err);
	}
	return err->code == PREP_DONE ? 0 : -1;
}

static int find_worth(const struct prep_survey *s, const struct prep_base *base, struct prep_patches *p,
		      struct prep_pool *pool, const struct prep_progress *progress, struct prep_err *err)
{
	const size_t window = (size_t)prep_pool_threads(pool) + 1;
	struct trial_job *job = calloc(window, sizeof *job);
	int r = 0;

	if (job == NULL)
		return prep_fail_nomem(err);
	for (size_t i = 0; i < window; i++) {
		job[i] = (struct trial_job){
			.job.run = try, .survey = s, .base = base, .patches = p, .raw = malloc(PREP_CKM_PATCH_MAX),
			.scratch = malloc(PREP_CKM_PATCH_MAX), .reference = malloc(PREP_CKM_REFERENCE_MAX),
		};
		if (job[i].raw == NULL || job[i].reference == NULL || job[i].scratch == NULL)
			r = prep_fail_nomem(err);
	}
	if (r == 0)
		r = try_groups(p, job, window, pool, progress, err);
	for (size_t i = 0; i < window; i++) {
		free(job[i].raw);
		free(job[i].reference);
		free(job[i].scratch);
		prep_base_reader_close(&job[i].reader);
	}
	free(job);
	return r;
}

/* The chunks that the holder of any base has, or gets by a patch. */
static int find_patched(const struct prep_survey *s, const struct prep_base *base, unsigned bases,
			struct prep_patches *p, struct prep_err *err)
{
	uint8_t *covered = malloc((size_t)s->chunks / 8 + 1);

	p->patched = malloc((size_t)s->chunks / 8 + 1);
	if (covered == NULL || p->patched == NULL) {
		free(covered);
		return prep_fail_nomem(err);
	}
	memset(p->patched, 0xFF, (size_t)s->chunks / 8 + 1);
	for (unsigned b = 0; b < bases; b++) {
		memset(covered, 0, (size_t)s->chunks / 8 + 1);
		for (uint32_t i = 0; i < p->groups; i++)
			for (uint32_t k = 0; p->group[i].worth && p->group[i].base == b && k < p->group[i].chunks; k++)
				prep_bit_set(covered, p->chunk[p->group[i].first_chunk + k]);
		for (uint32_t i = 0; i < s->chunks; i++)
			if (!prep_bit_get(covered, i) &&
			    prep_chunk_table_find(base[b].table, s->chunk[i].digest) == UINT32_MAX)
				prep_bit_fill(p->patched, i, 1, false);
	}
	free(covered);
	return 0;
}

int prep_patches_find(const struct prep_survey *s, const struct prep_plan *plan, const struct prep_base *base,
		      unsigned bases, struct prep_pool *pool, struct prep_patches *ret,
		      const struct prep_progress *progress, struct prep_err *err)
{
	int r = 0;

	*ret = (struct prep_patches){ .groups = 0 };
	for (unsigned b = 0; r == 0 && b < bases; b++)
		if (base[b].has_content)
			r = find_against(s, plan, &base[b], b, pool, ret, err);
	if (r == 0)
		r = find_worth(s, base, ret, pool, progress, err);
	if (r == 0)
		r = find_patched(s, base, bases, ret, err);
	if (r < 0)
		prep_patches_clear(ret);
	return r;
}

void prep_patches_clear(struct prep_patches *p)
{
	free(p->group);
	free(p->chunk);
	free(p->reference);
	free(p->patched);
	*p = (struct prep_patches){ .groups = 0 };
}
