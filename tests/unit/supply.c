/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The supply: which chunk comes from where, which frames are needed, and in
 * how many ranges, on indexes made by hand.
 */
#include "libprep/trim/supply.h"

#include "tests/unit/check.h"

#define FRAMES 8u
#define PER_FRAME 4u
#define CHUNKS (FRAMES * PER_FRAME)
#define SIZE 1000u   /* of a chunk */
#define STORED 3000u /* of a frame */

static struct prep_err err;

/* Eight frames of four chunks, one file to a frame, and the places of the files. */
static struct {
	struct prep_ckm_index in;
	struct prep_frame frame[FRAMES];
	struct prep_chunk chunk[CHUNKS];
	struct prep_stream stream[FRAMES];
	struct prep_run run[FRAMES];
	uint32_t ref[CHUNKS];
	char path[FRAMES][16];
} w;

static void digest_of(uint32_t n, uint8_t *ret)
{
	memset(ret, 0, PREP_DIGEST_SIZE);
	ret[0] = (uint8_t)(n * 37);
	ret[1] = (uint8_t)n;
}

static void make_index(void)
{
	memset(&w, 0, sizeof w);
	w.in = (struct prep_ckm_index){
		.disk_size = 1 << 20, .frame = w.frame, .frames = FRAMES, .chunk = w.chunk, .chunks = CHUNKS,
		.stream = w.stream, .streams = FRAMES, .ref = w.ref, .refs = CHUNKS, .run = w.run, .runs = FRAMES,
	};
	for (uint32_t i = 0; i < FRAMES; i++) {
		w.frame[i] = (struct prep_frame){
			.off = 64 + i * STORED, .stored = STORED, .size = PER_FRAME * SIZE,
			.first_chunk = i * PER_FRAME, .chunks = PER_FRAME,
		};
		snprintf(w.path[i], sizeof w.path[i], "/file%u", i);
		w.stream[i] = (struct prep_stream){
			.path = w.path[i], .size = PER_FRAME * SIZE, .first_ref = i * PER_FRAME, .refs = PER_FRAME,
			.first_run = i, .runs = 1,
		};
		w.run[i] = (struct prep_run){ i * 8192, PER_FRAME * SIZE };
	}
	for (uint32_t i = 0; i < CHUNKS; i++) {
		w.chunk[i] = (struct prep_chunk){ .size = SIZE, .frame = i / PER_FRAME, .at = i % PER_FRAME * SIZE };
		digest_of(i, w.chunk[i].digest);
		w.ref[i] = i;
	}
}

/* An origin that holds the chunks [from, to). */
static void make_catalog(struct prep_catalog *c, const char *path, uint32_t from, uint32_t to)
{
	uint8_t digest[PREP_DIGEST_SIZE];

	*c = (struct prep_catalog){ .origins = 0 };
	CHECK_DONE(prep_catalog_add_origin(c, PREP_ORIGIN_FOLDER, path, NULL, &err));
	CHECK_DONE(prep_catalog_add_item(c, "x", NULL, &err));
	for (uint32_t i = from; i < to; i++) {
		digest_of(i, digest);
		CHECK_DONE(prep_catalog_add_chunk(c, digest, i * SIZE, SIZE, &err));
	}
}

static void nothing_here(void)
{
	struct prep_supply_range *range;
	struct prep_supply s;
	uint32_t n;

	make_index();
	CHECK_DONE(prep_supply_new(&w.in, &s, &err));
	CHECK_DONE(prep_supply_make(&s, &err));
	CHECK_EQ(s.frames, FRAMES);
	CHECK_EQ(s.frame_bytes, FRAMES * STORED);
	CHECK_EQ(s.wanted_bytes, CHUNKS * SIZE);
	CHECK_EQ(s.local_chunks, 0);
	CHECK_DONE(prep_supply_check(&s, "p", &err));
	CHECK_DONE(prep_supply_ranges(&s, NULL, 0, UINT64_MAX, &range, &n, &err));
	CHECK_EQ(n, 1);
	CHECK_EQ(range[0].off, 64);
	CHECK_EQ(range[0].len, FRAMES * STORED);
	CHECK_EQ(range[0].frames, FRAMES);
	free(range);
	/* what is there already is not asked for, and not joined over */
	CHECK_DONE(prep_supply_ranges(&s, (const uint32_t[FRAMES]){ 10, 0, STORED, 0, 0, 1, 0, 0 }, STORED * 3, UINT64_MAX,
				      &range, &n, &err));
	CHECK_EQ(n, 3);
	CHECK_EQ(range[0].off, 64 + 10);
	CHECK_EQ(range[0].len, 2 * STORED - 10);
	CHECK_EQ(range[1].off, 64 + 3 * STORED);
	CHECK_EQ(range[1].len, 2 * STORED);
	CHECK_EQ(range[1].first, 3);
	CHECK_EQ(range[2].off, 64 + 5 * STORED + 1);
	CHECK_EQ(range[2].frames, 3);
	free(range);
	/* no longer than that, but never less than a frame */
	CHECK_DONE(prep_supply_ranges(&s, NULL, 0, 2 * STORED, &range, &n, &err));
	CHECK_EQ(n, FRAMES / 2);
	free(range);
	CHECK_DONE(prep_supply_ranges(&s, NULL, 0, 10, &range, &n, &err));
	CHECK_EQ(n, FRAMES);
	free(range);
	prep_supply_clear(&s);
}

static void whole_frames(void)
{
	struct prep_supply_range *range;
	struct prep_catalog c;
	struct prep_supply s;
	uint32_t n;

	make_index();
	/* of frames 2 and 3 all, of frame 4 half: that comes from the package as a whole */
	make_catalog(&c, "/a", 2 * PER_FRAME, 4 * PER_FRAME + 2);
	CHECK_DONE(prep_supply_new(&w.in, &s, &err));
	CHECK_DONE(prep_supply_add(&s, &c, &err));
	CHECK_DONE(prep_supply_make(&s, &err));
	CHECK_EQ(s.frames, FRAMES - 2);
	CHECK_EQ(s.found_chunks, 2 * PER_FRAME + 2);
	CHECK_EQ(s.local_chunks, 2 * PER_FRAME);
	CHECK_EQ(s.origin[0].chunks, 2 * PER_FRAME + 2);
	CHECK_EQ(s.origin[0].found_bytes, (2 * PER_FRAME + 2) * SIZE);
	CHECK_EQ(s.origin[0].used_chunks, 2 * PER_FRAME);
	CHECK_DONE(prep_supply_ranges(&s, NULL, 2 * STORED - 1, UINT64_MAX, &range, &n, &err));
	CHECK_EQ(n, 2);
	CHECK_EQ(range[0].len, 2 * STORED);
	CHECK_EQ(range[1].off, 64 + 4 * STORED);
	CHECK_EQ(range[1].first, 2);
	free(range);
	CHECK_DONE(prep_supply_ranges(&s, NULL, 2 * STORED, UINT64_MAX, &range, &n, &err));
	CHECK_EQ(n, 1);
	CHECK_EQ(range[0].len, FRAMES * STORED);
	CHECK_EQ(range[0].frames, FRAMES - 2);
	free(range);
	prep_supply_clear(&s);
	prep_catalog_clear(&c);
}

static void several(void)
{
	struct prep_catalog a, b;
	struct prep_supply s;

	make_index();
	make_catalog(&a, "/a", 0, 6);
	make_catalog(&b, "/b", 4, CHUNKS + 3);
	CHECK_DONE(prep_supply_new(&w.in, &s, &err));
	CHECK_DONE(prep_supply_add(&s, &a, &err));
	CHECK_DONE(prep_supply_add(&s, &b, &err));
	CHECK_DONE(prep_supply_make(&s, &err));
	CHECK_EQ(s.frames, 0);
	CHECK_EQ(s.origin[0].used_chunks, 6);
	CHECK_EQ(s.origin[1].used_chunks, CHUNKS - 6);
	CHECK_EQ(s.origin[1].found_chunks, CHUNKS - 4);
	CHECK_EQ(s.origin[1].chunks, CHUNKS - 1);
	/* what the first promised in vain the second has; what both did is fetched */
	CHECK_EQ(s.from[5].origin, 0);
	prep_supply_bad(&s, 5);
	prep_supply_bad(&s, 0);
	prep_supply_here(&s, 1);
	CHECK_EQ(s.origin[0].bad_chunks, 2);
	CHECK_EQ(s.origin[0].got_chunks, 1);
	CHECK_DONE(prep_supply_make(&s, &err));
	CHECK_EQ(s.from[5].origin, 1);
	CHECK_EQ(s.from[0].origin, PREP_FROM_FRAME);
	CHECK_EQ(s.from[1].origin, PREP_FROM_HERE);
	CHECK_EQ(s.from[2].origin, PREP_FROM_FRAME); /* its frame comes anyway */
	CHECK_EQ(s.frames, 1);
	prep_supply_bad(&s, 5);
	CHECK_DONE(prep_supply_make(&s, &err));
	CHECK_EQ(s.from[5].origin, PREP_FROM_FRAME);
	CHECK_EQ(s.frames, 2);
	prep_supply_clear(&s);
	prep_catalog_clear(&a);
	prep_catalog_clear(&b);
}

static void difference(void)
{
	struct prep_catalog c;
	struct prep_supply s;

	make_index();
	for (uint32_t i = 0; i < 4; i++)
		w.frame[i].kind = PREP_FRAME_ABSENT;
	make_catalog(&c, "/a", 0, 3 * PER_FRAME + 1);
	CHECK_DONE(prep_supply_new(&w.in, &s, &err));
	CHECK_DONE(prep_supply_add(&s, &c, &err));
	CHECK_DONE(prep_supply_make(&s, &err));
	CHECK_EQ(s.frames, FRAMES - 4);
	CHECK_EQ(s.nowhere_chunks, 3);
	CHECK_EQ(s.nowhere_bytes, 3 * SIZE);
	CHECK_EQ(s.local_chunks, 3 * PER_FRAME + 1);
	CHECK_FAILS(prep_supply_check(&s, "p.ckm", &err), PREP_EREFUSED, "3 chunks (3000 bytes)");
	CHECK(strstr(err.msg, "/file3") != NULL && strstr(err.msg, "/file2") == NULL);
	prep_supply_clear(&s);
	prep_catalog_clear(&c);
}

/* A chunk of the right digest and another size is no match. */
static void other_size(void)
{
	uint8_t digest[PREP_DIGEST_SIZE];
	struct prep_catalog c = { .origins = 0 };
	struct prep_supply s;

	make_index();
	digest_of(3, digest);
	CHECK_DONE(prep_catalog_add_origin(&c, PREP_ORIGIN_FOLDER, "/a", NULL, &err));
	CHECK_DONE(prep_catalog_add_item(&c, "empty", NULL, &err));
	CHECK_DONE(prep_catalog_add_item(&c, "x", NULL, &err));
	CHECK_DONE(prep_catalog_add_chunk(&c, digest, 0, SIZE + 1, &err));
	CHECK_DONE(prep_catalog_add_item(&c, "empty too", NULL, &err));
	CHECK_EQ(prep_catalog_item_of(&c, 0), 1);
	CHECK_DONE(prep_supply_new(&w.in, &s, &err));
	CHECK_DONE(prep_supply_add(&s, &c, &err));
	CHECK_DONE(prep_supply_make(&s, &err));
	CHECK_EQ(s.origin[0].chunks, 1);
	CHECK_EQ(s.found_chunks, 0);
	prep_supply_clear(&s);
	prep_catalog_clear(&c);
}

int main(void)
{
	RUN(nothing_here);
	RUN(whole_frames);
	RUN(several);
	RUN(difference);
	RUN(other_size);
	return check_result();
}
