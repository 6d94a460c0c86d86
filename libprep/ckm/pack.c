/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/pack.h"

#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/base.h"
#include "libprep/ckm/hash.h"
#include "libprep/ckm/patch.h"
#include "libprep/ckm/section_write.h"

uint32_t prep_pack_frame_size(enum prep_codec codec, unsigned level)
{
	/*
	 * Measured: from 8 MiB on little is gained, and a client that lacks one chunk
	 * fetches its whole frame. The highest levels take what there is all the same.
	 */
	if (codec == PREP_CODEC_XZ && level > 6)
		return (8u << 20) << (level - 6);
	return 8u << 20;
}

/* One frame under way. */
struct frame_job {
	struct prep_job job;
	const struct prep_survey *survey;
	const struct prep_plan *plan;
	const struct prep_pack_how *how;
	uint32_t number;
	uint8_t *raw, *packed; /* plan's largest frame, and room for a tag */
	uint8_t *reference;    /* its largest reference */
	struct prep_base_reader reader;

	uint8_t codec, digest[PREP_DIGEST_SIZE];
	size_t stored;
	struct prep_err err;
};

/* The frame's bytes. Each chunk must still be what the survey saw. */
static int read_chunks(struct frame_job *j, struct prep_err *err)
{
	const struct prep_ckm_index *in = &j->plan->index;
	const struct prep_frame *f = &in->frame[j->number];
	const struct prep_layout *l = &j->survey->layout;
	uint8_t *p = j->raw;
	uint32_t *source = malloc((size_t)f->chunks * sizeof *source);
	int r;

	if (source == NULL)
		return prep_fail_nomem(err);
	for (uint32_t k = 0; k < f->chunks; k++)
		source[k] = j->plan->source[prep_frame_chunk(in, f, k)];
	r = prep_survey_read(j->survey, source, f->chunks, p, err);
	for (uint32_t k = 0; r == 0 && k < f->chunks; k++) {
		const struct prep_survey_chunk *c = &j->survey->chunk[source[k]];

		if (lzma_crc64(p, c->size, 0) != c->crc)
			r = prep_fail(err, PREP_EFAIL, "%s: changed while it was packed%s%s", l->disk->name,
				      l->stream[c->stream].path[0] != '\0' ? ": " : "", l->stream[c->stream].path);
		p += c->size;
	}
	free(source);
	return r;
}

/* Of a patch frame: what it is packed with. */
static int read_reference(struct frame_job *j, struct prep_err *err)
{
	const struct prep_ckm_index *in = &j->plan->index;
	const struct prep_patch *patch = prep_frame_patch(in, j->number);
	uint8_t *to = j->reference;

	if (j->reader.hash.md == NULL && prep_base_reader_open(&j->reader, err) < 0)
		return -1;
	for (uint32_t k = 0; k < patch->references; k++) {
		const uint32_t number = in->patch_reference[patch->first + k];
		const struct prep_plan_reference *from = &j->plan->reference[number];

		if (prep_base_read(&j->reader, &j->plan->base[from->base], from->chunk, to, err) < 0)
			return -1;
		to += in->reference[number].size;
	}
	return 0;
}

/* The codec that was used, or -1. */
static int pack_bytes(struct frame_job *j, struct prep_err *err)
{
	const struct prep_frame *f = &j->plan->index.frame[j->number];
	const struct prep_codec_how how = { j->how->codec, j->how->level, j->plan->content[j->number] };

	if (f->kind != PREP_FRAME_PATCH)
		return prep_codec_pack(&how, j->raw, f->size, j->packed, &j->stored, err);
	if (read_reference(j, err) < 0)
		return -1;
	return prep_patch_pack(&how, j->reference, prep_frame_patch(&j->plan->index, j->number)->size, j->raw, f->size,
			       j->packed, &j->stored, err);
}

static int pack_frame(struct frame_job *j, struct prep_hash *hash, struct prep_err *err)
{
	int codec;

	if (read_chunks(j, err) < 0)
		return -1;
	codec = pack_bytes(j, err);
	if (codec < 0)
		return -1;
	j->codec = (uint8_t)codec;
	if (j->how->seal != NULL) {
		uint8_t *sealed = j->raw;

		if (prep_seal_seal(j->how->seal, PREP_SEAL_FRAME, j->number, NULL, 0, j->packed, j->stored, sealed,
				   err) < 0)
			return -1;
		j->raw = j->packed;
		j->packed = sealed;
		j->stored += PREP_SEAL_TAG;
	}
	return prep_hash_of(hash, j->packed, j->stored, j->digest, err);
}

static void run_frame(struct prep_job *job)
{
	struct frame_job *j = (struct frame_job *)job;
	struct prep_hash hash;

	if (prep_hash_open(&hash, &j->err) < 0)
		return;
	pack_frame(j, &hash, &j->err);
	prep_hash_close(&hash);
}

/* The frames' state, between the jobs that end in order. */
struct packer {
	const struct prep_survey *survey;
	struct prep_plan *plan;
	const struct prep_pack_how *how;
	struct prep_pool *pool;
	struct prep_output *out;
	struct prep_pack_report *report;
	const struct prep_progress *progress;
	uint64_t done, total; /* bytes, unpacked */
};

static int write_frame(struct packer *p, const struct frame_job *j, struct prep_err *err)
{
	struct prep_frame *f = &p->plan->index.frame[j->number];

	if (j->err.code != PREP_DONE)
		return prep_fail(err, j->err.code, "%s", j->err.msg);
	f->off = prep_output_size(p->out);
	f->stored = (uint32_t)j->stored;
	f->codec = j->codec;
	memcpy(f->digest, j->digest, sizeof f->digest);
	p->done += f->size;
	if (f->kind == PREP_FRAME_PATCH)
		p->report->patches_len += f->stored;
	else
		p->report->stored[p->plan->content[j->number]] += j->stored;
	if (j->number >= p->plan->kept_frames && f->kind != PREP_FRAME_PATCH) {
		if (p->report->new_len == 0)
			p->report->new_off = f->off;
		p->report->new_len += f->stored;
	}
	if (prep_output_write(p->out, j->packed, j->stored, err) < 0)
		return -1;
	return prep_progress(p->progress, "packing", p->done, p->total, err);
}

/* The next frame that is to be packed, from `i` on. */
static uint32_t next_present(const struct prep_plan *plan, uint32_t i)
{
	while (i < plan->index.frames && plan->index.frame[i].kind == PREP_FRAME_ABSENT)
		i++;
	return i;
}

/* window jobs, used in turn, each with its buffers. */
static int pack_frames(struct packer *p, struct frame_job *job, size_t window, struct prep_err *err)
{
	const uint32_t frames = p->plan->index.frames;
	uint32_t next = next_present(p->plan, 0);
	size_t first = 0, last = 0;

	/* After a failure no more begin, but those that have must end. */
	while (first < last || (next < frames && err->code == PREP_DONE)) {
		struct frame_job *j = &job[last % window];

		if (next < frames && last - first < window && err->code == PREP_DONE) {
			j->number = next;
			next = next_present(p->plan, next + 1);
			last++;
			prep_pool_submit(p->pool, &j->job);
			continue;
		}
		j = &job[first++ % window];
		prep_pool_wait(p->pool, &j->job);
		if (err->code == PREP_DONE)
			write_frame(p, j, err);
	}
	return err->code == PREP_DONE ? 0 : -1;
}

static int run_frames(struct packer *p, struct prep_err *err)
{
	const size_t window = (size_t)prep_pool_threads(p->pool) + 2;
	struct frame_job *job = calloc(window, sizeof *job);
	const struct prep_ckm_index *in = &p->plan->index;
	size_t largest = 0, reference = 0;
	int r = 0;

	if (job == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < in->patches; i++)
		reference = prep_max(reference, in->patch[i].size);
	for (uint32_t i = 0; i < in->frames; i++) {
		const struct prep_frame *f = &in->frame[i];

		if (f->kind == PREP_FRAME_ABSENT)
			continue;
		p->total += f->size;
		largest = prep_max(largest, f->size);
	}
	for (size_t i = 0; i < window; i++) {
		job[i] = (struct frame_job){
			.job.run = run_frame, .survey = p->survey, .plan = p->plan, .how = p->how,
			.raw = malloc(largest + PREP_SEAL_TAG), .packed = malloc(largest + PREP_SEAL_TAG),
			.reference = malloc(reference + 1),
		};
		if (job[i].raw == NULL || job[i].packed == NULL || job[i].reference == NULL)
			r = prep_fail_nomem(err);
	}
	if (r == 0)
		r = pack_frames(p, job, window, err);
	for (size_t i = 0; i < window; i++) {
		free(job[i].raw);
		free(job[i].packed);
		free(job[i].reference);
		prep_base_reader_close(&job[i].reader);
	}
	free(job);
	return r;
}

/* Bytes that the package takes at the least: digests do not shrink, nor does what is to be stored. */
static uint64_t least_size(const struct prep_plan *plan, const struct prep_pack_how *how)
{
	uint64_t sum = (uint64_t)plan->index.chunks * PREP_DIGEST_SIZE;

	for (uint32_t i = 0; how->codec == PREP_CODEC_STORE && i < plan->index.frames; i++)
		if (plan->index.frame[i].kind != PREP_FRAME_ABSENT)
			sum += plan->index.frame[i].size;
	return sum;
}

int prep_pack(const struct prep_survey *survey, struct prep_plan *plan, const struct prep_pack_how *how,
	      struct prep_pool *pool, struct prep_output *out, struct prep_output *out_index,
	      struct prep_pack_report *report, const struct prep_progress *progress,
	      struct prep_err *err)
{
	static const uint8_t lead[PREP_CKM_LEAD_SIZE];
	struct packer p = { survey, plan, how, pool, out, report, progress, 0, 0 };

	*report = (struct prep_pack_report){ .package_size = 0 };
	if (!prep_output_seekable(out))
		return prep_fail(err, PREP_EUSAGE, "%s: a package goes to a file", prep_output_name(out));
	if (prep_output_check_space(out, least_size(plan, how), err) < 0)
		return -1;
	/* The lead is written last, when what it says is known. */
	if (prep_output_write(out, lead, sizeof lead, err) < 0 || run_frames(&p, err) < 0)
		return -1;
	return prep_section_write(plan, how, out, out_index, report, err);
}
