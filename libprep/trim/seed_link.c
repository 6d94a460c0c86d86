/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Seeds that are packages with patches: what these are made of, in the other seeds. */
#include <stdlib.h>

#include "libprep/trim/seed.h"

/* Where the chunks of a catalog end that no patch makes. */
static uint32_t plain_chunks(const struct prep_seed *s)
{
	const struct prep_ckm_index *in = prep_seed_index(s);

	return in == NULL || in->patches == 0 ? s->catalog.chunks
					      : s->catalog.item[in->frames - in->patches].first_chunk;
}

static void look_in(struct prep_seed *s, const struct prep_chunk_table *t, const struct prep_ckm_index *in,
		    const struct prep_seed *other)
{
	const uint32_t end = plain_chunks(other);

	for (uint32_t i = 0; i < end; i++) {
		const struct prep_item_chunk *k = &other->catalog.chunk[i];
		const uint32_t n = prep_chunk_table_find(t, k->digest);

		if (n != UINT32_MAX && !k->bad && k->size == in->reference[n].size && s->reference[n].seed == NULL)
			s->reference[n] = (struct prep_seed_chunk){ other, i };
	}
}

/* The chunks of the patches that can be applied are no longer bad. */
static void allow_patches(struct prep_seed *s, const struct prep_ckm_index *in)
{
	for (uint32_t i = in->frames - in->patches; i < in->frames; i++) {
		const struct prep_patch *patch = prep_frame_patch(in, i);
		const struct prep_item *item = &s->catalog.item[i];
		bool usable = true;

		for (uint32_t k = 0; k < patch->references; k++)
			usable &= s->reference[in->patch_reference[patch->first + k]].seed != NULL;
		for (uint32_t k = 0; usable && k < item->chunks; k++)
			s->catalog.chunk[item->first_chunk + k].bad = false;
	}
}

static int link_package(struct prep_seed *s, struct prep_seed *const *seed, size_t n, struct prep_err *err)
{
	const struct prep_ckm_index *in = prep_seed_index(s);
	const struct prep_ckm_index references = { .chunk = in->reference, .chunks = in->references };
	struct prep_chunk_table *t;

	s->reference = calloc((size_t)in->references + 1, sizeof *s->reference);
	if (s->reference == NULL)
		return prep_fail_nomem(err);
	if (prep_chunk_table_new(&references, &t, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++)
		look_in(s, t, in, seed[i]);
	prep_chunk_table_free(t);
	allow_patches(s, in);
	return 0;
}

int prep_seeds_link(struct prep_seed *const *seed, size_t n, struct prep_err *err)
{
	for (size_t i = 0; i < n; i++) {
		const struct prep_ckm_index *in = prep_seed_index(seed[i]);

		/* Where plain frames have everything nothing is looked for. */
		if (in != NULL && plain_chunks(seed[i]) < seed[i]->catalog.chunks && seed[i]->reference == NULL &&
		    link_package(seed[i], seed, n, err) < 0)
			return -1;
	}
	return 0;
}
