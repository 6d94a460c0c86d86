/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A local index, but for its digest, which is put right: whatever the rest
 * says, all that is decoded is where it is said to be.
 */
#include "tests/fuzz/replay.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/ckm/hash.h"
#include "libprep/trim/local_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct prep_err err = PREP_ERR_INIT;
	uint8_t *p = malloc(size + PREP_DIGEST_SIZE);
	struct prep_catalog c;

	if (p == NULL)
		return 0;
	if (size > 0)
		memcpy(p, data, size);
	if (prep_hash_once(p, size, p + size, &err) < 0)
		abort();
	if (prep_local_index_decode(p, size + PREP_DIGEST_SIZE, "input", &c, &err) == 0) {
		for (uint32_t i = 0; i < c.origins; i++)
			prep_catalog_bytes(&c, &c.origin[i]);
		for (uint32_t i = 0; i < c.items; i++)
			if (strlen(prep_item_path(&c, &c.item[i])) >= c.strings_len)
				abort();
		for (uint32_t i = 0; i < c.chunks; i++)
			if (prep_catalog_item_of(&c, i) >= c.items)
				abort();
		prep_catalog_clear(&c);
	}
	free(p);
	return 0;
}
