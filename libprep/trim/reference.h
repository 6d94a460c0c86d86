/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reference: what a patch frame is decoded with, read from seeds.
 */
#ifndef PREP_TRIM_REFERENCE_H
#define PREP_TRIM_REFERENCE_H

#include "libprep/trim/seed.h"
#include "libprep/trim/supply.h"

/* The seed whose catalog an origin of the supply is of; it is among the n. */
const struct prep_seed *prep_seed_of(const struct prep_supply *supply, uint32_t origin,
				     struct prep_seed *const *seed, size_t n);

/*
 * Read the reference data of patch frame i to buf (prep_patch.size bytes), every
 * chunk verified. 1; 0: the supply, which is made, knows no origin of a chunk, or *bad, the
 * number of the reference, is not there what it should be; -1: no memory.
 */
int prep_reference_read(struct prep_seed_reader *r, const struct prep_supply *supply, struct prep_seed *const *seed,
			size_t n, uint32_t i, uint8_t *buf, uint32_t *bad, struct prep_err *err);

#endif
