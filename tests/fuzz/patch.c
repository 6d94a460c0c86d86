/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The bytes of a patch, against a reference that does not change: the first
 * says by which codec, the next two how many bytes they are to become.
 */
#include "tests/fuzz/replay.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/patch.h"

#define REFERENCE 20000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t reference[REFERENCE];
	struct prep_err err = PREP_ERR_INIT;
	uint8_t *out;
	size_t want;

	if (size < 4)
		return 0;
	for (size_t i = 0; reference[1] == 0 && i < REFERENCE; i++)
		reference[i] = (uint8_t)(i * i >> 7 ^ i);
	want = 1 + (size_t)get_le16(data + 1) * 16;
	out = malloc(want);
	if (out == NULL)
		abort();
	prep_patch_unpack(data[0], reference, REFERENCE, data + 3, size - 3, out, want, "input", &err);
	free(out);
	return 0;
}
