/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Resume: what of an unfinished image is right already.
 *
 * Nothing is taken on trust from the run that was cut off, so that it does
 * not matter how it ended: every chunk that is there is hashed.
 */
#ifndef PREP_TRIM_RESUME_H
#define PREP_TRIM_RESUME_H

#include "libprep/trim/supply.h"
#include "libprep/trim/writer.h"

/*
 * Hash what stands at each chunk's places. A chunk that is right in one is
 * written to its others and marked as here. What belongs to no
 * chunk is made zeros. *bytes: of the chunks that are here.
 */
int prep_resume(const struct prep_writer *w, struct prep_supply *supply, unsigned jobs, uint64_t *bytes,
		const struct prep_progress *progress, struct prep_err *err);

#endif
