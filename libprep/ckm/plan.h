/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Plan: which chunks go to which frame, in what order, and the index that
 * says so.
 */
#ifndef PREP_CKM_PLAN_H
#define PREP_CKM_PLAN_H

#include "libprep/ckm/survey.h"

struct prep_base;

struct prep_plan_how {
	uint32_t frame_size;                /* bytes, at most PREP_CKM_FRAME_MAX; frames of programs may be larger */
	struct prep_chunk_table *const *base; /* what one of them lacks goes to frames of its own, at the end */
	unsigned bases;
	bool difference;                    /* what all hold is left out */
	const uint8_t *patched;             /* bits of the survey's chunks: patches give it to who has any base; or NULL */
	bool patches_only;                  /* those are left out too; else they have frames of their own */
};

struct prep_plan {
	struct prep_ckm_index index; /* complete but for what packing the frames tells: stored, codec, digest, off */
	uint32_t *source;            /* of each of its chunks: the chunk of the survey */
	uint8_t *content;            /* of each frame: enum prep_content */
	uint32_t kept_frames;        /* the first ones, of chunks that all bases hold, or that are left out */

	/* Made by prep_patch_add (patch_plan.h). */
	const struct prep_base *base;
	struct prep_plan_reference { /* of each reference: where it is read */
		uint32_t base, chunk;
	} *reference;
};

/* Release with prep_plan_clear. */
int prep_plan_make(const struct prep_survey *s, const struct prep_plan_how *how,
		   struct prep_plan *ret, struct prep_err *err);
void prep_plan_clear(struct prep_plan *p);

#endif
