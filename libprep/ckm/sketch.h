/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Sketch: a few numbers that tell how much two pieces of data have in common,
 * wherever it stands: the smallest of the hashes at places that the content chooses.
 */
#ifndef PREP_CKM_SKETCH_H
#define PREP_CKM_SKETCH_H

#include <stddef.h>
#include <stdint.h>

#define PREP_SKETCH_SIZE 32u

struct prep_sketch {
	uint64_t value[PREP_SKETCH_SIZE]; /* ascending, no two the same */
	unsigned n;
	uint64_t h; /* of the bytes just seen */
};

/* Start with an all-zero struct. gear: prep_chunk_gear's. */
void prep_sketch_add(struct prep_sketch *s, const uint64_t gear[256], const uint8_t *p, size_t len);

#endif
