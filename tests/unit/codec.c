/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Codecs: what goes in comes out, and nothing else does. */
#include "libprep/ckm/codec.h"

#include "libprep/base/bytes.h"
#include "tests/unit/check.h"

#define LEN (300 * 1024)

static uint8_t in[LEN], packed[LEN], out[LEN + 1];

/* Words that repeat, some code-like calls, some noise. */
static void fill(void)
{
	check_seed = 11;
	for (size_t i = 0; i < LEN; i++)
		in[i] = (uint8_t)("the quick brown fox "[i % 20] + (check_random(50) == 0));
	for (size_t i = LEN / 2; i + 5 < LEN * 3 / 4; i += 5) {
		in[i] = 0xE8;
		put_le32(in + i + 1, (uint32_t)(5000 - i));
	}
}

static void every_codec_and_level_returns_its_input(void)
{
	struct prep_err err;
	size_t stored;

	fill();
	for (int codec = 0; codec < PREP_CODECS; codec++)
		for (unsigned level = 0; level <= 9; level += codec == PREP_CODEC_XZ ? 3 : 1)
			for (int content = 0; content < (level == 0 ? PREP_CONTENT_KINDS : 1); content++) {
				const struct prep_codec_how how = { (enum prep_codec)codec, level, (enum prep_content)content };
				int used;

				CHECK_DONE(used = prep_codec_pack(&how, in, LEN, packed, &stored, &err));
				CHECK_EQ(used, codec);
				CHECK(codec == PREP_CODEC_STORE ? stored == LEN : stored < LEN / 2);
				memset(out, 0xAA, sizeof out);
				CHECK_DONE(prep_codec_unpack(used, packed, stored, out, LEN, "it", &err));
				CHECK(memcmp(in, out, LEN) == 0 && out[LEN] == 0xAA);
			}
}

static void what_does_not_shrink_is_stored(void)
{
	struct prep_err err;
	size_t stored;

	check_seed = 12;
	check_noise(in, LEN);
	for (int codec = 0; codec < PREP_CODECS; codec++) {
		const struct prep_codec_how how = { (enum prep_codec)codec, 5, PREP_CONTENT_TEXT };

		for (size_t len = 1; len <= LEN; len = len * 17 + 1) {
			int used;

			CHECK_DONE(used = prep_codec_pack(&how, in, len, packed, &stored, &err));
			CHECK_EQ(used, PREP_CODEC_STORE);
			CHECK_EQ(stored, len);
			CHECK(memcmp(in, packed, len) == 0);
		}
	}
}

/* A byte more, a byte less, on either side. */
static void lengths_must_be_exact(void)
{
	struct prep_err err;
	size_t stored;

	fill();
	for (int codec = 0; codec < PREP_CODECS; codec++) {
		const struct prep_codec_how how = { (enum prep_codec)codec, 3, PREP_CONTENT_OTHER };

		CHECK_DONE(prep_codec_pack(&how, in, LEN - 8, packed, &stored, &err));
		packed[stored] = 0;
		CHECK_FAILS(prep_codec_unpack(codec, packed, stored + 1, out, LEN - 8, "it", &err), PREP_EDAMAGED, "it: its");
		CHECK_FAILS(prep_codec_unpack(codec, packed, stored - 1, out, LEN - 8, "it", &err), PREP_EDAMAGED, "it: its");
		CHECK_FAILS(prep_codec_unpack(codec, packed, stored, out, LEN - 7, "it", &err), PREP_EDAMAGED, "it: its");
		CHECK_FAILS(prep_codec_unpack(codec, packed, stored, out, LEN - 9, "it", &err), PREP_EDAMAGED, "it: its");
		CHECK_FAILS(prep_codec_unpack(codec, packed, 0, out, LEN - 8, "it", &err), PREP_EDAMAGED, "it: its");
	}
	CHECK_FAILS(prep_codec_unpack((enum prep_codec)9, packed, 1, out, 1, "it", &err), PREP_EDAMAGED, "unknown");
}

static void garbage_is_an_error(void)
{
	struct prep_err err;
	size_t stored;

	fill();
	for (int codec = PREP_CODEC_DEFLATE; codec < PREP_CODECS; codec++) {
		const struct prep_codec_how how = { (enum prep_codec)codec, 1, PREP_CONTENT_PE };

		CHECK_DONE(prep_codec_pack(&how, in, LEN, packed, &stored, &err));
		for (unsigned i = 0; i < 200; i++) {
			const size_t at = (size_t)check_random(stored);
			const uint8_t was = packed[at];

			/* A codec without a checksum may not see it: then the digest does. It must not run amok. */
			packed[at] ^= (uint8_t)(1u << check_random(8));
			err = (struct prep_err)PREP_ERR_INIT;
			if (prep_codec_unpack(codec, packed, stored, out, LEN, "it", &err) < 0)
				CHECK_EQ(err.code, PREP_EDAMAGED);
			packed[at] = was;
		}
	}
}

static void names(void)
{
	for (int codec = 0; codec < PREP_CODECS; codec++)
		CHECK_EQ(prep_codec_by_name(prep_codec_name(codec)), codec);
	CHECK(prep_codec_by_name("lzma") == -1);
	CHECK(prep_codec_name((enum prep_codec)99) == NULL);
}

int main(void)
{
	RUN(every_codec_and_level_returns_its_input);
	RUN(what_does_not_shrink_is_stored);
	RUN(lengths_must_be_exact);
	RUN(garbage_is_an_error);
	RUN(names);
	return check_result();
}
