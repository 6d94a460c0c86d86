/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Patch plan: which chunks of a new image are packed as patches, in which
 * frames, and which chunks of a base each of these refers to.
 *
 * What has changed in a file refers to the same place of what the file was in
 * the base (pair.h), between what has not changed around it, and a bit more; what is in no
 * file refers to what stood at the same place of the disk.
 */
#ifndef PREP_CKM_PATCH_PLAN_H
#define PREP_CKM_PATCH_PLAN_H

#include "libprep/ckm/base.h"

/* A patch frame to be. */
struct prep_patch_group {
	uint32_t base;                     /* number of the base that it is against */
	uint32_t first_chunk, chunks;      /* in patches->chunk */
	uint32_t first_reference, references; /* in patches->reference */
	uint32_t size, reference_size;     /* bytes */
	bool worth;                        /* the reference saves something */
};

struct prep_patches {
	struct prep_patch_group *group;
	uint32_t *chunk;      /* numbers in the survey */
	uint32_t *reference;  /* numbers in the base */
	uint32_t groups, chunks, references;
	uint32_t groups_room, chunks_room, references_room;
	uint8_t *patched;     /* a bit of each chunk of the survey: as prep_plan_how has it */
};

/*
 * Find patches against each of the bases whose content is there. plan: of the survey,
 * without regard to bases. Reads what may be patched and its references once, to see
 * whether it is worth it. PREP_EREFUSED when a base is not what its index says.
 * Deterministic. Release with prep_patches_clear.
 */
int prep_patches_find(const struct prep_survey *s, const struct prep_plan *plan, const struct prep_base *base,
		      unsigned bases, struct prep_pool *pool, struct prep_patches *ret,
		      const struct prep_progress *progress, struct prep_err *err);
void prep_patches_clear(struct prep_patches *p);

/* Append those that are worth it to the frames of a plan; bases must outlive it. */
int prep_patches_add(const struct prep_patches *p, const struct prep_survey *s, const struct prep_base *base,
		     unsigned bases, struct prep_plan *plan, struct prep_err *err);

#endif
