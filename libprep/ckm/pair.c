/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/pair.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/chunk.h"
#include "libprep/ckm/sketch.h"

#define SKETCH_BYTES (8 * PREP_MIB) /* of a stream are looked at */
#define SKETCH_LEAST 4096u          /* bytes of a stream that is worth it */
#define SKETCH_ALIKE 4u             /* values in common */
#define SHARED_LEAST 16u            /* a part of the stream: less in common is chance */

struct pairer {
	const struct prep_survey *survey;
	const struct prep_plan *plan;
	const struct prep_ckm_index *in, *old; /* the plan's, the base's */
	const struct prep_base *base;
	const uint32_t *known;
	struct prep_pool *pool;
	uint32_t *pair;
	uint32_t *by_path, *by_name; /* streams of the base that have a path, sorted */
	uint32_t named;
	uint8_t *wanted;             /* of each stream: it is looked for; of the base's: it may be what was */
	uint8_t *offered;
};

static const char *file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

static int compare_paths(const struct prep_stream *a, const struct prep_stream *b)
{
	return strcasecmp(a->path, b->path);
}

static int compare_names(const struct prep_stream *a, const struct prep_stream *b)
{
	const int r = strcasecmp(file_name(a->path), file_name(b->path));

	return r != 0 ? r : strcasecmp(a->path, b->path);
}

static int by_path(const void *a, const void *b, void *arg)
{
	const struct prep_stream *s = arg;
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	const int r = compare_paths(&s[x], &s[y]);

	return r != 0 ? r : (x > y) - (x < y);
}

static int by_name(const void *a, const void *b, void *arg)
{
	const struct prep_stream *s = arg;
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	const int r = compare_names(&s[x], &s[y]);

	return r != 0 ? r : (x > y) - (x < y);
}

/* The first place in an order that is not before the stream. */
static uint32_t lower_bound(const struct pairer *p, const uint32_t *order, const struct prep_stream *s,
			    int (*compare)(const struct prep_stream *a, const struct prep_stream *b))
{
	uint32_t from = 0, to = p->named;

	while (from < to) {
		const uint32_t mid = from + (to - from) / 2;

		if (compare(&p->old->stream[order[mid]], s) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

/* The same path, on the same partition if there is one. */
static uint32_t find_path(const struct pairer *p, const struct prep_stream *s)
{
	uint32_t i = lower_bound(p, p->by_path, s, compare_paths), ret = PREP_PAIR_NONE;

	for (; i < p->named && compare_paths(&p->old->stream[p->by_path[i]], s) == 0; i++) {
		if (p->old->stream[p->by_path[i]].volume == s->volume)
			return p->by_path[i];
		if (ret == PREP_PAIR_NONE)
			ret = p->by_path[i];
	}
	return ret;
}

static size_t in_common(const char *a, const char *b)
{
	size_t n = 0;

	while (a[n] != '\0' && a[n] == b[n])
		n++;
	return n;
}

/* The same name, the folder's as similar as can be: that is a neighbour in the order. */
static uint32_t find_name(const struct pairer *p, const struct prep_stream *s)
{
	const uint32_t at = lower_bound(p, p->by_name, s, compare_names);
	uint32_t ret = PREP_PAIR_NONE;
	size_t most = 0;

	for (uint32_t i = at > 0 ? at - 1 : 0; i <= at && i < p->named; i++) {
		const struct prep_stream *o = &p->old->stream[p->by_name[i]];

		if (strcasecmp(file_name(o->path), file_name(s->path)) == 0 && in_common(o->path, s->path) >= most) {
			most = in_common(o->path, s->path);
			ret = p->by_name[i];
		}
	}
	return ret;
}

/* The stream that has most of its unchanged chunks. weight: of each of the base's, zero; and is so again. */
static uint32_t find_shared(const struct pairer *p, const struct prep_stream *s, uint64_t *weight)
{
	uint32_t best = PREP_PAIR_NONE;
	uint64_t most = s->size / SHARED_LEAST;

	for (unsigned pass = 0; pass < 2; pass++) {
		for (uint32_t k = s->first_ref; k < s->first_ref + s->refs; k++) {
			const uint32_t known = p->known[p->in->ref[k]];
			const uint32_t home = known != UINT32_MAX ? p->base->home[known].stream : PREP_PAIR_NONE;

			if (home == PREP_PAIR_NONE || p->old->stream[home].path[0] == '\0')
				continue;
			if (pass == 1) {
				weight[home] = 0;
				continue;
			}
			weight[home] += p->in->chunk[p->in->ref[k]].size;
			if (weight[home] > most) {
				most = weight[home];
				best = home;
			}
		}
	}
	return best;
}

/* ---- Sketches ---- */

struct sketch_job {
	struct prep_job job;
	const struct pairer *p;
	bool old;           /* of the base's streams */
	uint32_t from, to;  /* streams */
	struct prep_sketch *sketch; /* of each stream */
	struct prep_err err;
};

static int sketch_stream(const struct pairer *p, bool old, uint32_t stream, struct prep_base_reader *reader,
			 const uint64_t *gear, uint8_t *buf, struct prep_sketch *ret, struct prep_err *err)
{
	const struct prep_ckm_index *in = old ? p->old : p->in;
	const struct prep_stream *s = &in->stream[stream];
	uint64_t at = 0;

	for (uint32_t k = s->first_ref; k < s->first_ref + s->refs && at < SKETCH_BYTES; k++) {
		const uint32_t chunk = in->ref[k], size = in->chunk[chunk].size;

		if (old && !prep_base_readable(p->base, chunk))
			continue;
		if (old ? prep_base_read(reader, p->base, chunk, buf, err) < 0
			: prep_survey_read(p->survey, &p->plan->source[chunk], 1, buf, err) < 0)
			return -1;
		prep_sketch_add(ret, gear, buf, size);
		at += size;
	}
	return 0;
}

static void sketch_streams(struct prep_job *job)
{
	struct sketch_job *j = (struct sketch_job *)job;
	const struct pairer *p = j->p;
	const uint8_t *bits = j->old ? p->offered : p->wanted;
	struct prep_base_reader reader = { .frame = NULL };
	uint8_t *buf = malloc(PREP_CKM_CHUNK_MAX);
	uint64_t gear[256];

	prep_chunk_gear(gear);
	if (buf == NULL)
		prep_fail_nomem(&j->err);
	else
		prep_base_reader_open(&reader, &j->err);
	for (uint32_t i = j->from; i < j->to && j->err.code == PREP_DONE; i++)
		if (prep_bit_get(bits, i))
			sketch_stream(p, j->old, i, &reader, gear, buf, &j->sketch[i], &j->err);
	prep_base_reader_close(&reader);
	free(buf);
}

/* Sketches of the streams that are looked for, or offered. The caller frees *ret. */
static int make_sketches(const struct pairer *p, bool old, struct prep_sketch **ret, struct prep_err *err)
{
	const uint32_t n = old ? p->old->streams : p->in->streams;
	const uint32_t jobs = 8 * prep_pool_threads(p->pool);
	struct sketch_job *job = calloc(jobs, sizeof *job);

	*ret = calloc((size_t)n + 1, sizeof **ret);
	if (job == NULL || *ret == NULL) {
		free(job);
		return prep_fail_nomem(err);
	}
	for (uint32_t i = 0; i < jobs; i++) {
		job[i] = (struct sketch_job){
			.job.run = sketch_streams, .p = p, .old = old, .sketch = *ret,
			.from = (uint32_t)((uint64_t)n * i / jobs), .to = (uint32_t)((uint64_t)n * (i + 1) / jobs),
		};
		prep_pool_submit(p->pool, &job[i].job);
	}
	for (uint32_t i = 0; i < jobs; i++) {
		prep_pool_wait(p->pool, &job[i].job);
		if (job[i].err.code != PREP_DONE)
			prep_fail(err, job[i].err.code, "%s", job[i].err.msg);
	}
	free(job);
	return err->code == PREP_DONE ? 0 : -1;
}

/* A value, and a stream of the base that has it. */
struct posting {
	uint64_t value;
	uint32_t stream;
};

static int by_value(const void *a, const void *b)
{
	const struct posting *x = a, *y = b;

	if (x->value != y->value)
		return x->value < y->value ? -1 : 1;
	return (x->stream > y->stream) - (x->stream < y->stream);
}

#define POSTINGS_LOOKED_AT 64u /* of one value: what very many have tells nothing */

/* The stream that has most values of the sketch. count: of each of the base's, zero; and is so again. */
static uint32_t find_alike(const struct posting *posting, size_t postings, const struct prep_sketch *s,
			   uint64_t *count)
{
	uint32_t best = PREP_PAIR_NONE;
	uint64_t most = SKETCH_ALIKE - 1;

	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < s->n; i++) {
			size_t from = 0, to = postings;

			while (from < to) {
				const size_t mid = from + (to - from) / 2;

				if (posting[mid].value < s->value[i])
					from = mid + 1;
				else
					to = mid;
			}
			to = from;
			for (; to < postings && to - from < POSTINGS_LOOKED_AT && posting[to].value == s->value[i]; to++) {
				uint64_t *c = &count[posting[to].stream];

				*c = pass == 0 ? *c + 1 : 0;
				if (*c > most) {
					most = *c;
					best = posting[to].stream;
				}
			}
		}
	}
	return best;
}

/* Pair what is still looked for by samples of its bytes. */
static int pair_alike(struct pairer *p, uint64_t *count, struct prep_err *err)
{
	struct prep_sketch *old = NULL, *new = NULL;
	struct posting *posting = NULL;
	size_t n = 0;
	int r = -1;

	if (make_sketches(p, true, &old, err) < 0 || make_sketches(p, false, &new, err) < 0)
		goto out;
	for (uint32_t i = 0; i < p->old->streams; i++)
		n += old[i].n;
	posting = malloc((n + 1) * sizeof *posting);
	if (posting == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	n = 0;
	for (uint32_t i = 0; i < p->old->streams; i++)
		for (unsigned k = 0; k < old[i].n; k++)
			posting[n++] = (struct posting){ old[i].value[k], i };
	qsort(posting, n, sizeof *posting, by_value);
	for (uint32_t i = 0; i < p->in->streams; i++) {
		uint32_t alike;

		if (!prep_bit_get(p->wanted, i))
			continue;
		alike = find_alike(posting, n, &new[i], count);
		if (alike != PREP_PAIR_NONE)
			p->pair[i] = alike;
	}
	r = 0;
out:
	free(posting);
	free(old);
	free(new);
	return r;
}

/* ---- The whole ---- */

static int sort_base(struct pairer *p, struct prep_err *err)
{
	p->by_path = malloc(((size_t)p->old->streams + 1) * sizeof *p->by_path);
	p->by_name = malloc(((size_t)p->old->streams + 1) * sizeof *p->by_name);
	if (p->by_path == NULL || p->by_name == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < p->old->streams; i++)
		if (p->old->stream[i].path[0] != '\0')
			p->by_path[p->named++] = i;
	if (p->named > 0)
		memcpy(p->by_name, p->by_path, p->named * sizeof *p->by_name);
	qsort_r(p->by_path, p->named, sizeof *p->by_path, by_path, p->old->stream);
	qsort_r(p->by_name, p->named, sizeof *p->by_name, by_name, p->old->stream);
	return 0;
}

static bool has_new(const struct pairer *p, const struct prep_stream *s)
{
	for (uint32_t k = s->first_ref; k < s->first_ref + s->refs; k++)
		if (p->known[p->in->ref[k]] == UINT32_MAX)
			return true;
	return false;
}

static int pair(struct pairer *p, uint64_t *weight, struct prep_err *err)
{
	bool any = false;

	/* Every file that is gone from its path may be what another was. */
	for (uint32_t i = 0; i < p->named; i++)
		if (p->old->stream[p->by_path[i]].size >= SKETCH_LEAST)
			prep_bit_set(p->offered, p->by_path[i]);
	for (uint32_t i = 0; i < p->in->streams; i++) {
		const struct prep_stream *s = &p->in->stream[i];
		const uint32_t same = s->path[0] != '\0' ? find_path(p, s) : PREP_PAIR_NONE;

		p->pair[i] = PREP_PAIR_NONE;
		if (same != PREP_PAIR_NONE)
			prep_bit_fill(p->offered, same, 1, false);
		if (s->path[0] == '\0' || !has_new(p, s))
			continue;
		p->pair[i] = same != PREP_PAIR_NONE ? same : find_shared(p, s, weight);
		if (p->pair[i] != PREP_PAIR_NONE)
			continue;
		p->pair[i] = find_name(p, s);
		if (s->size >= SKETCH_LEAST) {
			prep_bit_set(p->wanted, i);
			any = true;
		}
	}
	/* One of the same name competes with those that are gone. */
	for (uint32_t i = 0; i < p->in->streams && any; i++)
		if (prep_bit_get(p->wanted, i) && p->pair[i] != PREP_PAIR_NONE)
			prep_bit_set(p->offered, p->pair[i]);
	return any ? pair_alike(p, weight, err) : 0;
}

int prep_pair_streams(const struct prep_survey *s, const struct prep_plan *plan, const struct prep_base *base,
		      const uint32_t *known, struct prep_pool *pool, uint32_t **ret, struct prep_err *err)
{
	struct pairer p = {
		.survey = s, .plan = plan, .in = &plan->index, .old = base->index, .base = base, .known = known,
		.pool = pool,
	};
	uint64_t *weight = calloc((size_t)p.old->streams + 1, sizeof *weight);
	int r = -1;

	*ret = p.pair = malloc(((size_t)p.in->streams + 1) * sizeof *p.pair);
	p.wanted = calloc((size_t)p.in->streams / 8 + 1, 1);
	p.offered = calloc((size_t)p.old->streams / 8 + 1, 1);
	if (weight == NULL || p.pair == NULL || p.wanted == NULL || p.offered == NULL)
		prep_fail_nomem(err);
	else if (sort_base(&p, err) == 0)
		r = pair(&p, weight, err);
	free(weight);
	free(p.wanted);
	free(p.offered);
	free(p.by_path);
	free(p.by_name);
	if (r < 0) {
		free(*ret);
		*ret = NULL;
	}
	return r;
}
