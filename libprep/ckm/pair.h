/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pair: for the files of a new image that have changed, what they were in a base.
 *
 * By their path; else by what they have in common: chunks that have not
 * changed, then samples of their bytes; else by their name (the versions that
 * Windows keeps side by side in WinSxS have folders of similar names).
 */
#ifndef PREP_CKM_PAIR_H
#define PREP_CKM_PAIR_H

#include "libprep/ckm/base.h"

#define PREP_PAIR_NONE UINT32_MAX

/*
 * For each stream of plan->index that has a path and a chunk that the base lacks, the
 * stream of base->index, whose content must be there, or PREP_PAIR_NONE. known: of each chunk of
 * plan->index its number in the base, or UINT32_MAX. The caller frees *ret.
 */
int prep_pair_streams(const struct prep_survey *s, const struct prep_plan *plan, const struct prep_base *base,
		      const uint32_t *known, struct prep_pool *pool, uint32_t **ret, struct prep_err *err);

#endif
