/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Places: for each chunk of an index, everywhere on the disk where it belongs.
 */
#ifndef PREP_TRIM_PLACES_H
#define PREP_TRIM_PLACES_H

#include "libprep/ckm/index.h"

struct prep_places {
	const struct prep_ckm_index *index;
	uint32_t *first;  /* of each chunk, and the end: in ref */
	uint32_t *ref;    /* reference numbers, by chunk */
	uint64_t *at;     /* of each reference: bytes from its stream's start */
	uint64_t *run_at; /* of each run: bytes from its stream's start */
};

/* The index must outlive it. Clear with prep_places_clear. */
int prep_places_new(const struct prep_ckm_index *index, struct prep_places *ret, struct prep_err *err);
void prep_places_clear(struct prep_places *p);

/* A piece of a place: bytes of the chunk, and of the disk. */
struct prep_piece {
	uint64_t off;  /* on the disk */
	uint32_t at;   /* in the chunk */
	uint32_t len;
};

/*
 * Reference number `ref` in pieces, one call each: start with piece all zero;
 * false when there are no more. A fragmented file has a place in pieces.
 */
bool prep_places_piece(const struct prep_places *p, uint32_t ref, struct prep_piece *piece);

#endif
