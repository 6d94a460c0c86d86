/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Bytes: every function against the obvious one. Buffers end where their data ends, so that sanitizers see a byte too far. */
#include "libprep/base/bytes.h"

#include "tests/unit/check.h"

static void integers(void)
{
	const uint8_t p[8] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef };
	uint8_t q[10] = { 0 };

	CHECK_EQ(get_be16(p), 0x0123);
	CHECK_EQ(get_le16(p), 0x2301);
	CHECK_EQ(get_be32(p), 0x01234567);
	CHECK_EQ(get_le32(p), 0x67452301);
	CHECK_EQ(get_be64(p), 0x0123456789abcdef);
	CHECK_EQ(get_le64(p), 0xefcdab8967452301);
	/* unaligned, and no byte beside */
	put_be64(q + 1, 0x0123456789abcdef);
	CHECK(q[0] == 0 && memcmp(q + 1, p, 8) == 0 && q[9] == 0);
	put_le64(q + 1, 0xefcdab8967452301);
	CHECK(memcmp(q + 1, p, 8) == 0 && q[9] == 0);
	put_be32(q + 1, 0xa1b2c3d4);
	put_le16(q + 5, 0x0102);
	CHECK(q[1] == 0xa1 && q[4] == 0xd4 && q[5] == 2 && q[6] == 1 && q[7] == p[6]);
}

static void rounding(void)
{
	CHECK_EQ(prep_round_up(0, 512), 0);
	CHECK_EQ(prep_round_up(1, 512), 512);
	CHECK_EQ(prep_round_up(512, 512), 512);
	CHECK_EQ(prep_round_up(513, 512), 1024);
	CHECK_EQ(prep_round_up(((uint64_t)1 << 40) + 1, 4096), ((uint64_t)1 << 40) + 4096);
	CHECK_EQ(prep_round_down(511, 512), 0);
	CHECK_EQ(prep_round_down(((uint64_t)1 << 40) + 4095, 4096), (uint64_t)1 << 40);
	CHECK(!prep_is_pow2(0) && prep_is_pow2(1) && prep_is_pow2((uint64_t)1 << 63) && !prep_is_pow2(3) &&
	      !prep_is_pow2(UINT64_MAX));
	CHECK_EQ(prep_min(3, 2), 2);
	CHECK_EQ(prep_max(3, 2), 3);
}

static void is_zero(void)
{
	CHECK(prep_is_zero("", 0));
	for (size_t len = 1; len < 200; len++) {
		unsigned char *p = calloc(1, len);

		if (!prep_is_zero(p, len))
			check_fail(__FILE__, __LINE__, "%zu zeros", len);
		for (size_t i = 0; i < len; i++) {
			p[i] = 0x80;
			if (prep_is_zero(p, len))
				check_fail(__FILE__, __LINE__, "byte %zu of %zu", i, len);
			p[i] = 0;
		}
		free(p);
	}
}

static void zero_run(void)
{
	check_seed = 1;
	for (unsigned round = 0; round < 2000; round++) {
		const size_t unit = 1 + check_random(9), len = 1 + check_random(60);
		unsigned char *p = calloc(1, len);
		bool first = true, zero;
		size_t want = 0, n;

		for (size_t i = check_random(3); i < len; i += 1 + check_random(25))
			p[i] = 1;
		for (size_t at = 0; at < len; at += unit) {
			bool z = true;

			for (size_t i = at; i < at + unit && i < len; i++)
				z &= p[i] == 0;
			if (at == 0)
				first = z;
			if (z != first)
				break;
			want = at + unit < len ? at + unit : len;
		}
		n = prep_zero_run(p, len, unit, &zero);
		free(p);
		CHECK_EQ(n, want);
		CHECK_EQ(zero, first);
	}
}

static void bits(void)
{
	check_seed = 2;
	for (unsigned round = 0; round < 3000; round++) {
		const uint64_t end = check_random(300), from = check_random(end + 1);
		uint8_t *p = malloc((size_t)(end + 7) / 8 + (end == 0));
		const bool value = round % 2;
		uint64_t want = from;

		/* mostly of one kind, so that whole words are passed over */
		memset(p, value ? 0 : 0xff, (size_t)(end + 7) / 8);
		for (unsigned i = (unsigned)check_random(4); i > 0 && end > 0; i--) {
			const uint64_t bit = check_random(end);

			if (value)
				prep_bit_set(p, bit);
			else
				p[bit / 8] &= (uint8_t)~(1u << bit % 8);
		}
		while (want < end && prep_bit_get(p, want) != value)
			want++;
		if (prep_bit_next(p, from, end, value) != want)
			check_fail(__FILE__, __LINE__, "round %u: %" PRIu64 " from %" PRIu64 " of %" PRIu64, round,
				   want, from, end);
		free(p);
	}
}

int main(void)
{
	RUN(integers);
	RUN(rounding);
	RUN(is_zero);
	RUN(zero_run);
	RUN(bits);
	return check_result();
}
