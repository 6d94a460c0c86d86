/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/verify.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"

struct frame_job {
	struct prep_job job;
	struct prep_ckm *package;
	const struct prep_verify_references *references;
	uint32_t number;
	uint8_t *stored, *raw, *reference; /* room for the largest frame, and what a patch refers to */
	bool applied;          /* a patch */
	struct prep_err read, decode;
};

static void check_frame(struct prep_job *job)
{
	struct frame_job *j = (struct frame_job *)job;

	j->read = j->decode = (struct prep_err)PREP_ERR_INIT;
	if (prep_ckm_read_frame(j->package, j->number, j->stored, &j->read) < 0)
		return;
	if (prep_ckm_index(j->package)->frame[j->number].kind == PREP_FRAME_PATCH) {
		const struct prep_verify_references *from = j->references;
		const int ok = from != NULL ? from->read(from->arg, j->number, j->reference, &j->decode) : 0;

		j->applied = ok == 1;
		if (ok < 0)
			return;
		if (!j->applied) {
			prep_ckm_check_frame(j->package, j->number, j->stored, &j->decode);
			return;
		}
	}
	prep_ckm_decode_frame(j->package, j->number, j->stored, j->reference, j->raw, &j->decode);
}

static int note_damage(struct prep_verify_report *r, uint32_t frame, const char *what, struct prep_err *err)
{
	if (r->damaged == r->room) {
		const size_t room = r->room != 0 ? r->room * 2 : 16;
		struct prep_verify_damage *more = reallocarray(r->damage, room, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		r->damage = more;
		r->room = room;
	}
	r->damage[r->damaged] = (struct prep_verify_damage){ frame, strdup(what) };
	if (r->damage[r->damaged].what == NULL)
		return prep_fail_nomem(err);
	r->damaged++;
	return 0;
}

static int take_result(const struct frame_job *j, struct prep_verify_report *r, struct prep_err *err)
{
	const struct prep_frame *f = &prep_ckm_index(j->package)->frame[j->number];

	r->frames++;
	if (f->kind == PREP_FRAME_PATCH) {
		r->patches++;
		r->unapplied += !j->applied;
	}
	r->stored += f->stored;
	r->bytes += f->size;
	if (j->read.code != PREP_DONE)
		return note_damage(r, j->number, j->read.msg, err);
	if (j->decode.code == PREP_EDAMAGED)
		return note_damage(r, j->number, j->decode.msg, err);
	return j->decode.code == PREP_DONE ? 0 : prep_fail(err, j->decode.code, "%s", j->decode.msg);
}

static uint32_t next_present(const struct prep_ckm_index *in, uint32_t i)
{
	while (i < in->frames && in->frame[i].kind == PREP_FRAME_ABSENT)
		i++;
	return i;
}

static int check_frames(struct prep_ckm *p, struct prep_pool *pool, struct frame_job *job, size_t window,
			struct prep_verify_report *r, uint64_t total, const struct prep_progress *progress,
			struct prep_err *err)
{
	const struct prep_ckm_index *in = prep_ckm_index(p);
	uint32_t next = next_present(in, 0);
	size_t first = 0, last = 0;

	while (first < last || (next < in->frames && err->code == PREP_DONE)) {
		struct frame_job *j = &job[last % window];

		if (next < in->frames && last - first < window && err->code == PREP_DONE) {
			j->number = next;
			next = next_present(in, next + 1);
			last++;
			prep_pool_submit(pool, &j->job);
			continue;
		}
		j = &job[first++ % window];
		prep_pool_wait(pool, &j->job);
		if (err->code == PREP_DONE && take_result(j, r, err) == 0)
			prep_progress(progress, "verifying", r->bytes, total, err);
	}
	return err->code == PREP_DONE ? 0 : -1;
}

/* Which streams have chunks in damaged frames. */
static int find_hits(const struct prep_ckm_index *in, struct prep_verify_report *r, struct prep_err *err)
{
	uint8_t *patched;
	bool *bad;

	if (r->damaged == 0)
		return 0;
	bad = calloc((size_t)in->frames + 1, sizeof *bad);
	r->hit = calloc((size_t)in->streams + 1, sizeof *r->hit);
	if (bad == NULL || r->hit == NULL) {
		free(bad);
		return prep_fail_nomem(err);
	}
	for (size_t i = 0; i < r->damaged; i++)
		bad[r->damage[i].frame] = true;
	patched = calloc((size_t)in->chunks / 8 + 1, 1);
	for (uint32_t i = in->frames - in->patches; i < in->frames && patched != NULL; i++)
		for (uint32_t k = 0; bad[i] && k < in->frame[i].chunks; k++)
			prep_bit_set(patched, prep_frame_chunk(in, &in->frame[i], k));
	for (uint32_t i = 0; i < in->streams && patched != NULL; i++)
		for (uint32_t k = 0; k < in->stream[i].refs && !r->hit[i]; k++) {
			const uint32_t chunk = in->ref[in->stream[i].first_ref + k];

			r->hit[i] = bad[in->chunk[chunk].frame] || prep_bit_get(patched, chunk);
		}
	free(bad);
	if (patched == NULL)
		return prep_fail_nomem(err);
	free(patched);
	return 0;
}

int prep_verify(struct prep_ckm *p, const struct prep_verify_references *references, struct prep_pool *pool,
		struct prep_verify_report *ret, const struct prep_progress *progress, struct prep_err *err)
{
	const struct prep_ckm_index *in = prep_ckm_index(p);
	const size_t window = 2 * (size_t)prep_pool_threads(pool);
	struct frame_job *job = calloc(window, sizeof *job);
	size_t stored = 1, raw = 1, reference = 1;
	uint64_t total = 0;
	int r = 0;

	*ret = (struct prep_verify_report){ .frames = 0 };
	if (job == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < in->frames; i++) {
		if (in->frame[i].kind == PREP_FRAME_ABSENT) {
			ret->absent++;
			continue;
		}
		stored = prep_max(stored, in->frame[i].stored);
		raw = prep_max(raw, in->frame[i].size);
		total += in->frame[i].size;
	}
	for (uint32_t i = 0; i < in->patches; i++)
		reference = prep_max(reference, in->patch[i].size);
	for (size_t i = 0; i < window; i++) {
		job[i] = (struct frame_job){
			.job.run = check_frame, .package = p, .references = references, .stored = malloc(stored),
			.raw = malloc(raw), .reference = malloc(reference),
		};
		if (job[i].stored == NULL || job[i].raw == NULL || job[i].reference == NULL)
			r = prep_fail_nomem(err);
	}
	if (r == 0)
		r = check_frames(p, pool, job, window, ret, total, progress, err);
	if (r == 0)
		r = find_hits(in, ret, err);
	for (size_t i = 0; i < window; i++) {
		free(job[i].stored);
		free(job[i].raw);
		free(job[i].reference);
	}
	free(job);
	if (r < 0)
		prep_verify_clear(ret);
	return r;
}

void prep_verify_clear(struct prep_verify_report *r)
{
	for (size_t i = 0; i < r->damaged; i++)
		free(r->damage[i].what);
	free(r->damage);
	free(r->hit);
	*r = (struct prep_verify_report){ .frames = 0 };
}
