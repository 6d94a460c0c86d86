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
	struct prep_frame frame[FRAMES + 2];
	struct prep_chunk chunk[CHUNKS];
	struct prep_stream stream[FRAMES];
	struct prep_run run[FRAMES];
	uint32_t ref[CHUNKS];
	char path[FRAMES][16];
	struct prep_patch patch[2];
	struct prep_chunk reference[3];
	uint32_t patch_chunk[6], patch_reference[4];
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

#define OLD 100u    /* the number of the first reference's digest */
#define PATCH 500u  /* stored bytes of a patch */

/* And two patches: of all chunks of frame 0, against references 0 and 1; of half of frame 1, against 1 and 2. */
static void make_patched(void)
{
	make_index();
	for (uint32_t i = 0; i < 3; i++) {
		w.reference[i].size = SIZE;
		digest_of(OLD + i, w.reference[i].digest);
	}
	for (uint32_t i = 0; i < 6; i++)
		w.patch_chunk[i] = i;
	for (uint32_t i = 0; i < 2; i++) {
		w.frame[FRAMES + i] = (struct prep_frame){
			.off = 64 + FRAMES * STORED + i * PATCH, .stored = PATCH, .size = (i == 0 ? 4 : 2) * SIZE,
			.kind = PREP_FRAME_PATCH, .codec = PREP_CODEC_ZSTD, .first_chunk = i * 4, .chunks = i == 0 ? 4 : 2,
		};
		w.patch[i] = (struct prep_patch){ .first = 2 * i, .references = 2, .size = 2 * SIZE };
		w.patch_reference[2 * i] = i;
		w.patch_reference[2 * i + 1] = i + 1;
	}
	w.in.frames = FRAMES + 2;
	w.in.patches = 2;
	w.in.patch = w.patch;
	w.in.patch_chunk = w.patch_chunk;
	w.in.patch_chunks = 6;
	w.in.reference = w.reference;
	w.in.references = 3;
	w.in.patch_reference = w.patch_reference;
	w.in.patch_references = 4;
}

/* The frames that are needed are these, n of them. */
static void frames_are(const struct prep_supply *s, uint32_t n, uint32_t first, uint32_t second)
{
	CHECK_EQ(s->frames, n);
	CHECK_EQ(s->frame[0], first);
	if (n > 1)
		CHECK_EQ(s->frame[1], second);
}

static void patches_where_they_cost_less(void)
{
	struct prep_catalog chunks, more, old;
	struct prep_supply s;

	make_patched();
	make_catalog(&chunks, "/chunks", 8, CHUNKS);
	make_catalog(&more, "/more", 6, 8);
	make_catalog(&old, "/old", OLD, OLD + 3);
	/* Nobody has what they are made of. */
	CHECK_DONE(prep_supply_new(&w.in, &s, &err));
	CHECK_DONE(prep_supply_add(&s, &chunks, &err));
	CHECK_DONE(prep_supply_make(&s, &err));
	frames_are(&s, 2, 0, 1);
	CHECK_EQ(s.useless, 2);
	CHECK_EQ(s.patches, 0);
	/* Half of frame 1 has no patch: then it is needed, and its own patch is not. */
	CHECK_DONE(prep_supply_add(&s, &old, &err));
	CHECK_DONE(prep_supply_make(&s, &err));
	frames_are(&s, 2, 1, FRAMES);
	CHECK_EQ(s.useless, 0);
	CHECK_EQ(s.patches, 1);
	CHECK_EQ(s.patch_bytes, PATCH);
	CHECK_EQ(s.patched_bytes, 4 * SIZE);
	CHECK_EQ(s.frame_bytes, STORED + PATCH);
	CHECK_EQ(s.unchecked, 2);
	CHECK_EQ(s.unchecked_bytes, 2 * SIZE);
	CHECK_EQ(s.from[0].chunk, FRAMES);
	CHECK_EQ(s.from[4].chunk, 1);
	/* That half is here. */
	CHECK_DONE(prep_supply_add(&s, &more, &err));
	CHECK_DONE(prep_supply_make(&s, &err));
	frames_are(&s, 2, FRAMES, FRAMES + 1);
	CHECK_EQ(s.unchecked, 3);
	CHECK_EQ(s.local_chunks, CHUNKS - 6);
	CHECK_EQ(s.from[5].chunk, FRAMES + 1);
	prep_supply_reference_good(&s, 0);
	CHECK_DONE(prep_supply_make(&s, &err));
	CHECK_EQ(s.unchecked, 2);
	/* Reference 2 is something else: frame 1 after all. */
	prep_supply_reference_bad(&s, 2);
	CHECK_DONE(prep_supply_make(&s, &err));
	frames_are(&s, 2, 1, FRAMES);
	CHECK_EQ(s.origin[1].bad_chunks, 1);
	CHECK_EQ(s.useless, 1);
	/* A patch that is larger than what it is for. */
	w.frame[FRAMES].stored = STORED;
	CHECK_DONE(prep_supply_make(&s, &err));
	frames_are(&s, 2, 0, 1);
	/* In a difference there is no choice. */
	w.frame[0].kind = PREP_FRAME_ABSENT;
	w.frame[0].stored = 0;
	CHECK_DONE(prep_supply_make(&s, &err));
	frames_are(&s, 2, 1, FRAMES);
	CHECK_DONE(prep_supply_check(&s, "p", &err));
	prep_supply_reference_bad(&s, 1);
	CHECK_DONE(prep_supply_make(&s, &err));
	frames_are(&s, 1, 1, 0);
	CHECK_EQ(s.nowhere_chunks, 4);
	CHECK_FAILS(prep_supply_check(&s, "p", &err), PREP_EREFUSED, "or in patches of what no seed has; needed by /file0");
	prep_supply_clear(&s);
	prep_catalog_clear(&chunks);
	prep_catalog_clear(&more);
	prep_catalog_clear(&old);
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
	RUN(patches_where_they_cost_less);
	RUN(whole_frames);
	RUN(several);
	RUN(difference);
	RUN(other_size);
	return check_result();
}
