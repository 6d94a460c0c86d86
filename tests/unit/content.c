/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What files are by their first bytes, and which chunks are not worth packing. */
#include "libprep/ckm/content.h"

#include <zlib.h>

#include "libprep/base/bytes.h"
#include "tests/unit/check.h"

#define LEN 16384u

static uint8_t buf[LEN];

/* A PE file's headers: an optional header with this magic, a CLR directory or none. */
static void make_pe(uint16_t machine, uint16_t magic, uint32_t clr)
{
	const uint32_t pe = 0x80, directories = magic == 0x020B ? 112 : 96;

	memset(buf, 0, sizeof buf);
	memcpy(buf, "MZ", 2);
	put_le32(buf + 0x3C, pe);
	memcpy(buf + pe, "PE\0", 4);
	put_le16(buf + pe + 4, machine);
	put_le16(buf + pe + 24, magic);
	put_le32(buf + pe + 24 + directories + 8 * 14, clr);
}

static void programs(void)
{
	make_pe(0x014C, 0x010B, 0);
	CHECK_EQ(prep_content_of(buf, LEN), PREP_CONTENT_PE);
	make_pe(0x8664, 0x020B, 0);
	CHECK_EQ(prep_content_of(buf, LEN), PREP_CONTENT_PE);
	make_pe(0x014C, 0x010B, 0x2008);
	CHECK_EQ(prep_content_of(buf, LEN), PREP_CONTENT_DOTNET);
	make_pe(0x8664, 0x020B, 0x2008);
	CHECK_EQ(prep_content_of(buf, LEN), PREP_CONTENT_DOTNET);
	/* Another processor's, and headers that lead out of what is seen. */
	make_pe(0xAA64, 0x020B, 0);
	CHECK_EQ(prep_content_of(buf, LEN), PREP_CONTENT_OTHER);
	make_pe(0x8664, 0x020B, 0);
	for (size_t len = 2; len < 0x80 + 26; len++)
		CHECK_EQ(prep_content_of(buf, len), PREP_CONTENT_OTHER);
	put_le32(buf + 0x3C, UINT32_MAX);
	CHECK_EQ(prep_content_of(buf, LEN), PREP_CONTENT_OTHER);
}

static void other_kinds(void)
{
	CHECK_EQ(prep_content_of((const uint8_t *)"regf\0\0\0", 8), PREP_CONTENT_HIVE);
	CHECK_EQ(prep_content_of((const uint8_t *)"PK\3\4\0\0\0", 8), PREP_CONTENT_PACKED);
	CHECK_EQ(prep_content_of((const uint8_t *)"plain words\r\n", 13), PREP_CONTENT_TEXT);
	CHECK_EQ(prep_content_of((const uint8_t *)"\xFF\xFE" "a\0b\0", 6), PREP_CONTENT_TEXT);
	CHECK_EQ(prep_content_of((const uint8_t *)"\1\0\2\0\3", 5), PREP_CONTENT_OTHER);
	CHECK_EQ(prep_content_of((const uint8_t *)"", 0), PREP_CONTENT_TEXT);
}

static void noise_and_packed_bytes_are_dense(void)
{
	uint8_t words[8 * LEN];
	uLongf len = LEN;

	check_seed = 51;
	for (int i = 0; i < 200; i++) {
		check_noise(buf, LEN);
		CHECK(prep_content_dense(buf, LEN));
		CHECK(prep_content_dense(buf, 2048));
	}
	/* Too short to tell. */
	CHECK(!prep_content_dense(buf, 2047));
	for (size_t i = 0; i < sizeof words; i++)
		words[i] = (uint8_t)("etaoin shrdlu"[check_random(13)] + check_random(2));
	CHECK(compress2(buf, &len, words, LEN, 9) == Z_OK && len > 4096);
	CHECK(prep_content_dense(buf, len));
}

static void what_shrinks_is_not_dense(void)
{
	check_seed = 52;
	for (int i = 0; i < 100; i++) {
		/* Of 64 values, as base64 has them; noise with a text in an eighth of it; noise and zeros by turns. */
		for (size_t k = 0; k < LEN; k++)
			buf[k] = (uint8_t)(' ' + check_random(64));
		CHECK(!prep_content_dense(buf, LEN));
		check_noise(buf, LEN);
		for (size_t k = 0; k < LEN / 8; k++)
			buf[k] = (uint8_t)"all work and no play "[k % 21];
		CHECK(!prep_content_dense(buf, LEN));
		check_noise(buf, LEN);
		for (size_t k = 0; k < LEN; k += 4096)
			memset(buf + k, 0, 2048);
		CHECK(!prep_content_dense(buf, LEN));
	}
}

int main(void)
{
	RUN(programs);
	RUN(other_kinds);
	RUN(noise_and_packed_bytes_are_dense);
	RUN(what_shrinks_is_not_dense);
	return check_result();
}
