/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The encoded index of a package. What decodes must encode to the same bytes:
 * there is one encoding of everything.
 */
#include "tests/fuzz/replay.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/ckm/index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_ckm_index in;
	uint8_t *again;
	size_t len;

	if (prep_ckm_index_decode(data, size, "input", &in, &err) < 0)
		return 0;
	if (prep_ckm_index_encode(&in, &again, &len, &err) < 0)
		abort();
	if (len != size || memcmp(again, data, len) != 0)
		abort();
	free(again);
	prep_ckm_index_clear(&in);
	return 0;
}
