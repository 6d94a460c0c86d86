/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/survey.h"

#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/chunk.h"
#include "libprep/ckm/content.h"

/* A job takes streams until it has this many bytes: enough to be worth its while, not more. */
#define JOB_BYTES (16 * PREP_MIB)

/* Streams cut by one job, and what came out. */
struct cut_job {
	struct prep_job job;
	struct prep_layout *layout;
	size_t from, to; /* streams */
	uint64_t bytes;
	struct prep_err err;

	size_t stream;   /* at hand */
	struct prep_survey_chunk *piece;
	size_t pieces, room;
};

static int read_stream(void *arg, void *buf, size_t len, uint64_t at, struct prep_err *err)
{
	const struct cut_job *j = arg;

	return prep_layout_read(j->layout, &j->layout->stream[j->stream], buf, len, at, err);
}

static int zeros_of_stream(void *arg, uint64_t at, uint64_t end, uint64_t *ret, struct prep_err *err)
{
	const struct cut_job *j = arg;

	return prep_layout_zeros(j->layout, &j->layout->stream[j->stream], at, end, ret, err);
}

static int add_piece(void *arg, const struct prep_chunk_piece *p, struct prep_err *err)
{
	struct cut_job *j = arg;
	struct prep_layout_stream *s = &j->layout->stream[j->stream];

	if (s->is_file && p->at == 0)
		s->content = (uint8_t)prep_content_of(p->data, p->size);
	if (j->pieces == j->room) {
		const size_t room = j->room != 0 ? j->room * 2 : 64;
		struct prep_survey_chunk *more = reallocarray(j->piece, room, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		j->piece = more;
		j->room = room;
	}
	j->piece[j->pieces] = (struct prep_survey_chunk){
		.size = p->size, .stream = (uint32_t)j->stream, .at = p->at,
		.crc = lzma_crc64(p->data, p->size, 0), .dense = prep_content_dense(p->data, p->size),
	};
	memcpy(j->piece[j->pieces++].digest, p->digest, PREP_DIGEST_SIZE);
	return 0;
}

static void cut_streams(struct prep_job *job)
{
	struct cut_job *j = (struct cut_job *)job;
	struct prep_chunk_cutter *cutter;

	if (prep_chunk_cutter_new(&cutter, &j->err) < 0)
		return;
	for (j->stream = j->from; j->stream < j->to && j->err.code == PREP_DONE; j->stream++) {
		const struct prep_layout_stream *s = &j->layout->stream[j->stream];
		const struct prep_chunk_source source = { s->size, read_stream, zeros_of_stream, j };

		prep_chunk_cut(cutter, &source, s->block, add_piece, j, &j->err);
	}
	prep_chunk_cutter_free(cutter);
}

/* ---- Joining ---- */

/*
 * Digests to chunk numbers, by open addressing. The digests are our own, so
 * their first bytes are as good as random.
 */
struct table {
	uint32_t *slot; /* chunk number + 1, or 0 */
	uint32_t mask;
};

struct joiner {
	struct prep_survey *s;
	struct table table;
	size_t chunk_room, ref_room;
};

static uint32_t *find_slot(const struct joiner *j, const uint8_t *digest)
{
	uint32_t i = get_le32(digest) & j->table.mask;

	while (j->table.slot[i] != 0 &&
	       memcmp(j->s->chunk[j->table.slot[i] - 1].digest, digest, PREP_DIGEST_SIZE) != 0)
		i = (i + 1) & j->table.mask;
	return &j->table.slot[i];
}

static int grow_table(struct joiner *j, struct prep_err *err)
{
	const uint32_t size = j->table.slot != NULL ? (j->table.mask + 1) * 2 : 1024;
	uint32_t *slot = calloc(size, sizeof *slot);

	if (slot == NULL)
		return prep_fail_nomem(err);
	free(j->table.slot);
	j->table.slot = slot;
	j->table.mask = size - 1;
	for (uint32_t i = 0; i < j->s->chunks; i++)
		*find_slot(j, j->s->chunk[i].digest) = i + 1;
	return 0;
}

static int add_chunk(struct joiner *j, const struct prep_survey_chunk *p, uint32_t *slot, struct prep_err *err)
{
	struct prep_survey *s = j->s;

	if (s->chunks == PREP_CKM_CHUNKS_MAX)
		return prep_fail(err, PREP_EREFUSED, "the disk has more distinct chunks than a package can hold");
	if (s->chunks == j->chunk_room) {
		const size_t room = j->chunk_room != 0 ? j->chunk_room * 2 : 1024;
		struct prep_survey_chunk *more = reallocarray(s->chunk, room, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		s->chunk = more;
		j->chunk_room = room;
	}
	s->chunk[s->chunks++] = *p;
	*slot = s->chunks;
	return s->chunks > j->table.mask / 2 ? grow_table(j, err) : 0;
}

static int add_ref(struct joiner *j, const struct prep_survey_chunk *p, struct prep_err *err)
{
	struct prep_survey *s = j->s;
	uint32_t *slot = find_slot(j, p->digest), chunk = *slot;

	if (s->refs == PREP_CKM_REFS_MAX)
		return prep_fail(err, PREP_EREFUSED, "the disk has more chunks than a package can hold");
	if (chunk == 0) {
		chunk = s->chunks + 1;
		if (add_chunk(j, p, slot, err) < 0)
			return -1;
	}
	if (s->refs == j->ref_room) {
		const size_t room = j->ref_room != 0 ? j->ref_room * 2 : 1024;
		struct prep_survey_ref *more = reallocarray(s->ref, room, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		s->ref = more;
		j->ref_room = room;
	}
	s->ref[s->refs++] = (struct prep_survey_ref){ p->at, chunk - 1 };
	return 0;
}

/* Take over what a job found, in the order of the streams. */
static int join(struct joiner *j, const struct cut_job *job, struct prep_err *err)
{
	size_t next = 0;

	if (job->err.code != PREP_DONE)
		return prep_fail(err, job->err.code, "%s", job->err.msg);
	for (size_t i = job->from; i < job->to; i++) {
		j->s->first_ref[i] = j->s->refs;
		for (; next < job->pieces && job->piece[next].stream == i; next++)
			if (add_ref(j, &job->piece[next], err) < 0)
				return -1;
	}
	return 0;
}

/* ---- The whole ---- */

/* Fill in the next job: from which stream, to which. */
static void plan_job(struct cut_job *job, struct prep_layout *layout, size_t from)
{
	*job = (struct cut_job){ .job.run = cut_streams, .layout = layout, .from = from, .to = from };
	while (job->to < layout->streams && job->bytes < JOB_BYTES)
		job->bytes += layout->stream[job->to++].size;
}

static int survey(struct joiner *j, struct prep_pool *pool, const struct prep_progress *progress,
		  struct prep_err *err)
{
	struct prep_layout *layout = &j->s->layout;
	const size_t window = 4 * (size_t)prep_pool_threads(pool);
	struct cut_job *job = calloc(window, sizeof *job);
	uint64_t total = 0, done = 0;
	size_t first = 0, last = 0, planned = 0; /* jobs submitted: [first, last), modulo window */

	if (job == NULL)
		return prep_fail_nomem(err);
	for (size_t i = 0; i < layout->streams; i++)
		total += layout->stream[i].size;
	/* After a failure no more begin, but those that have must end. */
	while (first < last || (planned < layout->streams && err->code == PREP_DONE)) {
		struct cut_job *oldest = &job[first % window];

		if (planned < layout->streams && last - first < window && err->code == PREP_DONE) {
			plan_job(&job[last % window], layout, planned);
			planned = job[last % window].to;
			prep_pool_submit(pool, &job[last++ % window].job);
			continue;
		}
		prep_pool_wait(pool, &oldest->job);
		if (err->code == PREP_DONE && join(j, oldest, err) == 0) {
			done += oldest->bytes;
			prep_progress(progress, "hashing", done, total, err);
		}
		free(oldest->piece);
		first++;
	}
	free(job);
	j->s->first_ref[layout->streams] = j->s->refs;
	return err->code == PREP_DONE ? 0 : -1;
}

int prep_survey_make(struct prep_disk *d, struct prep_pool *pool, struct prep_survey *ret,
		     const struct prep_progress *progress, struct prep_err *err)
{
	struct joiner j = { .s = ret };
	int r = -1;

	*ret = (struct prep_survey){ .chunks = 0 };
	if (prep_layout_make(d, pool, &ret->layout, progress, err) < 0)
		return -1;
	ret->first_ref = calloc(ret->layout.streams + 1, sizeof *ret->first_ref);
	if (ret->first_ref == NULL)
		prep_fail_nomem(err);
	else if (ret->layout.streams > PREP_CKM_STREAMS_MAX)
		prep_fail(err, PREP_EREFUSED, "%s: more files than a package can hold", d->name);
	else if (grow_table(&j, err) == 0)
		r = survey(&j, pool, progress, err);
	free(j.table.slot);
	if (r < 0)
		prep_survey_clear(ret);
	return r;
}

void prep_survey_clear(struct prep_survey *s)
{
	prep_layout_clear(&s->layout);
	free(s->chunk);
	free(s->ref);
	free(s->first_ref);
	*s = (struct prep_survey){ .chunks = 0 };
}

/* At once what stands together in a stream. */
int prep_survey_read(const struct prep_survey *s, const uint32_t *chunk, uint32_t n, uint8_t *buf,
		     struct prep_err *err)
{
	const struct prep_layout *l = &s->layout;

	for (uint32_t i = 0, next; i < n; i = next) {
		const struct prep_survey_chunk *c = &s->chunk[chunk[i]];
		uint64_t len = c->size;

		for (next = i + 1; next < n; next++) {
			const struct prep_survey_chunk *more = &s->chunk[chunk[next]];

			if (more->stream != c->stream || more->at != c->at + len)
				break;
			len += more->size;
		}
		if (prep_layout_read(l, &l->stream[c->stream], buf, (size_t)len, c->at, err) < 0)
			return -1;
		buf += len;
	}
	return 0;
}
