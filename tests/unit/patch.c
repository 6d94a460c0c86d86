/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Patches: bytes packed with a reference and back; sketches. */
#include "libprep/ckm/patch.h"

#include "libprep/ckm/chunk.h"
#include "libprep/ckm/sketch.h"
#include "tests/unit/check.h"

#define REF (700u << 10)
#define LEN (300u << 10)

static uint8_t ref[REF], in[LEN], out[LEN], back[LEN];

/* A piece of the reference, moved, a byte of every 1000 changed. */
static void fill(void)
{
	check_seed = 7;
	check_noise(ref, REF);
	memcpy(in, ref + 123457, LEN);
	for (size_t i = 0; i < LEN; i += 1000)
		in[i] = (uint8_t)check_random(256);
}

static void every_codec_and_level(void)
{
	struct prep_err err = PREP_ERR_INIT;

	fill();
	for (unsigned xz = 0; xz < 2; xz++) {
		for (unsigned level = 0; level < 10; level++) {
			const struct prep_codec_how how = { xz ? PREP_CODEC_XZ : PREP_CODEC_ZSTD, level, true };
			size_t stored = 0;
			int codec;

			CHECK_DONE(codec = prep_patch_pack(&how, ref, REF, in, LEN, out, &stored, &err));
			CHECK_EQ(codec, xz ? PREP_CODEC_LZMA2 : PREP_CODEC_ZSTD);
			/* Noise: nothing but the reference makes it smaller. */
			CHECK(stored < LEN / 30);
			memset(back, 0, LEN);
			CHECK_DONE(prep_patch_unpack((unsigned)codec, ref, REF, out, stored, back, LEN, "it", &err));
			CHECK(memcmp(in, back, LEN) == 0);
		}
	}
}

static void what_does_not_shrink_is_stored(void)
{
	const struct prep_codec_how how = { PREP_CODEC_XZ, 6, false };
	struct prep_err err = PREP_ERR_INIT;
	size_t stored = 0;

	fill();
	check_noise(in, LEN);
	CHECK_EQ(prep_patch_pack(&how, ref, REF, in, LEN, out, &stored, &err), PREP_CODEC_STORE);
	CHECK_EQ(stored, LEN);
	CHECK_DONE(prep_patch_unpack(PREP_CODEC_STORE, ref, REF, out, stored, back, LEN, "it", &err));
	CHECK(memcmp(in, back, LEN) == 0);
	CHECK_EQ(prep_patch_worth(ref, REF, in, LEN, back, &err), 0);
	fill();
	CHECK_EQ(prep_patch_worth(ref, REF, in, LEN, back, &err), 1);
}

/* Cut off, too long, of another length, flipped: refused, or other bytes, which the digests find; never beyond the buffers. */
static void damage_is_no_harm(void)
{
	static const enum prep_codec codecs[] = { PREP_CODEC_ZSTD, PREP_CODEC_XZ };
	struct prep_err err = PREP_ERR_INIT;

	fill();
	for (unsigned c = 0; c < 2; c++) {
		const struct prep_codec_how how = { codecs[c], 4, false };
		uint8_t *copy, *small;
		size_t stored = 0;
		int codec;

		CHECK_DONE(codec = prep_patch_pack(&how, ref, REF, in, LEN, out, &stored, &err));
		for (size_t n = 0; n < stored; n += 97) {
			/* Of its own size, so that a sanitizer sees a byte read beyond it. */
			copy = malloc(n + 1);
			memcpy(copy, out, n);
			CHECK_FAILS(prep_patch_unpack((unsigned)codec, ref, REF, copy, n, back, LEN, "it", &err), PREP_EDAMAGED,
				    "it: its patch cannot be applied");
			free(copy);
		}
		small = malloc(LEN - 1);
		CHECK_FAILS(prep_patch_unpack((unsigned)codec, ref, REF, out, stored, small, LEN - 1, "it", &err),
			    PREP_EDAMAGED, "cannot be applied");
		free(small);
		out[stored] = 0;
		CHECK_FAILS(prep_patch_unpack((unsigned)codec, ref, REF, out, stored + 1, back, LEN, "it", &err),
			    PREP_EDAMAGED, "cannot be applied");
		for (size_t i = 0; i < stored; i += 13) {
			out[i] ^= 1u << i % 8;
			err = (struct prep_err)PREP_ERR_INIT;
			if (prep_patch_unpack((unsigned)codec, ref, REF, out, stored, back, LEN, "it", &err) < 0)
				CHECK_EQ(err.code, PREP_EDAMAGED);
			out[i] ^= 1u << i % 8;
		}
		/* Less reference than it was made with: what lies before it is not there. */
		copy = malloc(1000);
		memcpy(copy, ref + REF - 1000, 1000);
		err = (struct prep_err)PREP_ERR_INIT;
		if (prep_patch_unpack((unsigned)codec, copy, 1000, out, stored, back, LEN, "it", &err) == 0)
			CHECK(memcmp(in, back, LEN) != 0);
		free(copy);
	}
	CHECK_FAILS(prep_patch_unpack(PREP_CODEC_XZ, ref, REF, out, 100, back, LEN, "it", &err), PREP_EDAMAGED, "it");
	CHECK_FAILS(prep_patch_unpack(15, ref, REF, out, 100, back, LEN, "it", &err), PREP_EDAMAGED, "it");
}

static unsigned in_common(const struct prep_sketch *a, const struct prep_sketch *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->n; i++)
		for (unsigned k = 0; k < b->n; k++)
			n += a->value[i] == b->value[k];
	return n;
}

static void sketches(void)
{
	struct prep_sketch whole = { .n = 0 }, pieces = { .n = 0 }, moved = { .n = 0 }, other = { .n = 0 };
	uint64_t gear[256];

	fill();
	prep_chunk_gear(gear);
	prep_sketch_add(&whole, gear, ref, REF);
	for (size_t i = 0; i < REF; i += 1000)
		prep_sketch_add(&pieces, gear, ref + i, REF - i < 1000 ? REF - i : 1000);
	CHECK_EQ(whole.n, PREP_SKETCH_SIZE);
	CHECK(memcmp(&whole, &pieces, sizeof whole) == 0);
	for (unsigned i = 1; i < whole.n; i++)
		CHECK(whole.value[i - 1] < whole.value[i]);
	/* The same with something before it, and bytes changed all over. */
	check_noise(in, 5000);
	prep_sketch_add(&moved, gear, in, 5000);
	for (size_t i = 0; i < REF; i += 3000)
		ref[i]++;
	prep_sketch_add(&moved, gear, ref, REF);
	CHECK(in_common(&whole, &moved) > PREP_SKETCH_SIZE / 2);
	check_noise(ref, REF);
	prep_sketch_add(&other, gear, ref, REF);
	CHECK_EQ(in_common(&whole, &other), 0);
}

int main(void)
{
	RUN(every_codec_and_level);
	RUN(what_does_not_shrink_is_stored);
	RUN(damage_is_no_harm);
	RUN(sketches);
	return check_result();
}
