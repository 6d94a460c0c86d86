/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/cut.h"

#include <stdlib.h>
#include <string.h>

int prep_cut_add(void *arg, const struct prep_chunk_piece *piece, struct prep_err *err)
{
	struct prep_cut *c = arg;

	if (c->chunks == c->room) {
		const uint32_t room = c->room == 0 ? 4 : c->room * 2;
		struct prep_item_chunk *grown = NULL;

		if (room <= PREP_CATALOG_CHUNKS_MAX)
			grown = reallocarray(c->chunk, room, sizeof *grown);
		if (grown == NULL)
			return prep_fail_nomem(err);
		c->chunk = grown;
		c->room = room;
	}
	c->chunk[c->chunks] = (struct prep_item_chunk){ .at = piece->at, .size = piece->size };
	memcpy(c->chunk[c->chunks++].digest, piece->digest, PREP_DIGEST_SIZE);
	return 0;
}

void prep_cut_clear(struct prep_cut *c)
{
	free(c->chunk);
	*c = (struct prep_cut){ .chunks = 0 };
}

int prep_catalog_add_cut(struct prep_catalog *c, const struct prep_cut *cut, struct prep_err *err)
{
	for (uint32_t i = 0; i < cut->chunks; i++)
		if (prep_catalog_add_chunk(c, cut->chunk[i].digest, cut->chunk[i].at, cut->chunk[i].size, err) < 0)
			return -1;
	return 0;
}
