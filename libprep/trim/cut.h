/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What cutting one stream gave, until it goes into a catalog.
 */
#ifndef PREP_TRIM_CUT_H
#define PREP_TRIM_CUT_H

#include "libprep/ckm/chunk.h"
#include "libprep/trim/catalog.h"

struct prep_cut {
	struct prep_item_chunk *chunk;
	uint32_t chunks, room;
};

/* For prep_chunk_cut: append a piece to the struct prep_cut that arg is. */
int prep_cut_add(void *arg, const struct prep_chunk_piece *piece, struct prep_err *err);
void prep_cut_clear(struct prep_cut *c);

/* Append the chunks to the last item of a catalog. */
int prep_catalog_add_cut(struct prep_catalog *c, const struct prep_cut *cut, struct prep_err *err);

#endif
