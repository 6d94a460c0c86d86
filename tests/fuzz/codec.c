/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The bytes of a frame: the first says by which codec, the next two how many
 * KiB they are to become. What unpacks must pack and unpack to the same.
 */
#include "tests/fuzz/replay.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_codec_how how = { .level = 1 };
	uint8_t *out, *packed, *again;
	size_t want, stored;

	if (size < 5)
		return 0;
	how.codec = (enum prep_codec)(data[0] % PREP_CODECS);
	how.content = (enum prep_content)((data[0] >> 4) % PREP_CONTENT_KINDS);
	want = how.codec == PREP_CODEC_STORE ? size - 4 : 1 + get_le16(data + 1) % 4096 * (size_t)(1 + data[3] * 16);
	out = malloc(want);
	if (out == NULL)
		abort();
	if (prep_codec_unpack(how.codec, data + 4, size - 4, out, want, "input", &err) == 0 && want <= 65536) {
		packed = malloc(want);
		again = malloc(want);
		if (packed == NULL || again == NULL)
			abort();
		if (prep_codec_pack(&how, out, want, packed, &stored, &err) < 0 || stored > want)
			abort();
		if (stored < want && (prep_codec_unpack(how.codec, packed, stored, again, want, "again", &err) < 0 ||
				      memcmp(out, again, want) != 0))
			abort();
		free(packed);
		free(again);
	}
	free(out);
	return 0;
}
