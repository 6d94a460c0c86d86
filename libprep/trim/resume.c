/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/resume.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/ckm/hash.h"
#include "libprep/trim/crew.h"

#define BATCH 64u /* chunks that a thread takes at once */

struct check {
	const struct prep_writer *w;
	uint8_t *here;     /* of each chunk: it is */
};

/* Look at each place of a chunk: 1 when it is right in all of them now, 0 when in none. */
static int check_chunk(const struct prep_writer *w, uint32_t chunk, struct prep_hash *hash,
		       uint8_t *good, uint8_t *other, struct prep_err *err)
{
	const uint32_t first = w->places.first[chunk], end = w->places.first[chunk + 1];
	const struct prep_chunk *c = &w->index->chunk[chunk];
	struct prep_writer_pending pending = { .len = 0 };
	uint8_t digest[PREP_DIGEST_SIZE];
	uint32_t right = first;

	for (; right < end; right++) {
		if (prep_writer_read(w, w->places.ref[right], good, err) < 0 ||
		    prep_hash_of(hash, good, c->size, digest, err) < 0)
			return -1;
		if (memcmp(digest, c->digest, sizeof digest) == 0)
			break;
	}
	if (right == end)
		return 0;
	for (uint32_t i = first; i < end; i++) {
		if (i == right)
			continue;
		if (prep_writer_read(w, w->places.ref[i], other, err) < 0)
			return -1;
		if (memcmp(good, other, c->size) != 0 && prep_writer_place(w, &pending, w->places.ref[i], good, err) < 0)
			return -1;
	}
	return prep_writer_flush(w, &pending, err) < 0 ? -1 : 1;
}

static int check_chunks(struct prep_crew *crew, void *arg, struct prep_err *err)
{
	struct check *c = arg;
	const struct prep_ckm_index *in = c->w->index;
	uint8_t *good = malloc(PREP_CKM_CHUNK_MAX), *other = malloc(PREP_CKM_CHUNK_MAX);
	struct prep_hash hash = { NULL, NULL };
	int r = 0;

	if (good == NULL || other == NULL)
		r = prep_fail_nomem(err);
	else
		r = prep_hash_open(&hash, err);
	while (r >= 0 && !atomic_load(&crew->stop)) {
		const uint64_t from = (uint64_t)atomic_fetch_add(&crew->next, 1) * BATCH;

		if (from >= in->chunks)
			break;
		for (uint64_t i = from; r >= 0 && i < prep_min(from + BATCH, in->chunks); i++) {
			r = check_chunk(c->w, (uint32_t)i, &hash, good, other, err);
			c->here[i] = r == 1;
			atomic_fetch_add(&crew->done, in->chunk[i].size);
		}
	}
	prep_hash_close(&hash);
	free(good);
	free(other);
	return r < 0 ? -1 : 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct prep_run *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

/* Make [off, off+len) of the file zeros, if it is not. */
static int clear_file(int fd, uint64_t off, uint64_t len, const char *name, struct prep_err *err)
{
	const uint64_t end = off + len;
	uint8_t buf[4096];

	while (off < end) {
		bool hole;
		const uint64_t to = prep_file_extent(fd, NULL, off, end, &hole);

		if (hole) {
			off = to;
			continue;
		}
		while (off < to) {
			const size_t n = (size_t)prep_min(sizeof buf, to - off);

			if (prep_file_pread(fd, buf, n, off, name, err) < 0 ||
			    (!prep_is_zero(buf, n) && prep_file_zero(fd, off, n, name, err) < 0))
				return -1;
			off += n;
		}
	}
	return 0;
}

/* Make [off, end) of the disk zeros where the file has bytes for it. */
static int clear_gap(const struct prep_writer *w, uint64_t off, uint64_t end, uint64_t file_end,
		     struct prep_err *err)
{
	const struct prep_target *t = &w->target;

	while (off < end) {
		uint64_t at, n = prep_target_find(t, off, end - off, &at);

		if (n == 0) {
			/* A block that the image does not have. */
			off = prep_round_down(off, t->block_size) + t->block_size;
			continue;
		}
		if (at < file_end && clear_file(prep_output_fd(w->out), at, prep_min(n, file_end - at),
						prep_output_name(w->out), err) < 0)
			return -1;
		off += n;
	}
	return 0;
}

static int clear_gaps(const struct prep_writer *w, struct prep_err *err)
{
	const struct prep_ckm_index *in = w->index;
	struct prep_run *run = malloc(((size_t)in->runs + 1) * sizeof *run);
	uint64_t at = 0;
	struct stat st;
	int r = 0;

	if (run == NULL)
		return prep_fail_nomem(err);
	if (fstat(prep_output_fd(w->out), &st) != 0)
		r = prep_fail_errno(err, "%s", prep_output_name(w->out));
	if (in->runs > 0)
		memcpy(run, in->run, in->runs * sizeof *run);
	qsort(run, in->runs, sizeof *run, by_offset);
	for (uint32_t i = 0; r == 0 && i < in->runs; i++) {
		r = clear_gap(w, at, run[i].off, (uint64_t)st.st_size, err);
		at = run[i].off + run[i].len;
	}
	if (r == 0)
		r = clear_gap(w, at, in->disk_size, (uint64_t)st.st_size, err);
	free(run);
	return r;
}

int prep_resume(const struct prep_writer *w, struct prep_supply *supply, unsigned jobs, uint64_t *bytes,
		const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_crew crew = { .what = "checking what is there" };
	struct check c = { .w = w, .here = calloc((size_t)w->index->chunks + 1, 1) };
	int r;

	*bytes = 0;
	if (c.here == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < w->index->chunks; i++)
		crew.total += w->index->chunk[i].size;
	r = prep_crew_run(&crew, jobs, check_chunks, &c, progress, err);
	for (uint32_t i = 0; r == 0 && i < w->index->chunks; i++) {
		if (!c.here[i])
			continue;
		prep_supply_here(supply, i);
		*bytes += w->index->chunk[i].size;
	}
	free(c.here);
	return r < 0 ? -1 : clear_gaps(w, err);
}
