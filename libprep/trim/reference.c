/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/reference.h"

const struct prep_seed *prep_seed_of(const struct prep_supply *supply, uint32_t origin,
				     struct prep_seed *const *seed, size_t n)
{
	const struct prep_catalog *c = supply->origin[origin].catalog;
	size_t i = 0;

	while (i + 1 < n && &seed[i]->catalog != c)
		i++;
	return seed[i];
}

int prep_reference_read(struct prep_seed_reader *r, const struct prep_supply *supply, struct prep_seed *const *seed,
			size_t n, uint32_t i, uint8_t *buf, uint32_t *bad, struct prep_err *err)
{
	const struct prep_ckm_index *in = supply->index;
	const struct prep_patch *patch = prep_frame_patch(in, i);

	for (uint32_t k = 0; k < patch->references; k++) {
		const uint32_t number = in->patch_reference[patch->first + k];
		const struct prep_supply_from *from = &supply->reference[number].from;
		int ok = 0;

		if (from->origin != PREP_FROM_NOWHERE)
			ok = prep_seed_read(r, prep_seed_of(supply, from->origin, seed, n), from->chunk, buf, err);
		if (ok != 1) {
			*bad = number;
			return ok;
		}
		buf += in->reference[number].size;
	}
	return 1;
}
