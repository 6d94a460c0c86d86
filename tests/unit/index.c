/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The index: encoded and back, and what a damaged or hostile one meets. */
#include "libprep/ckm/index.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/section.h"
#include "tests/unit/check.h"

#define CHUNKS 200
#define FRAMES 10
#define STREAMS 20
#define PATCHES 2
#define REFERENCES 30

static struct prep_frame frame[FRAMES + PATCHES];
static struct prep_patch patch[PATCHES];
static struct prep_chunk reference[REFERENCES];
static uint32_t patch_chunk[2 * 10], patch_reference[20 + REFERENCES + 1]; /* the last for a test of too many */
static struct prep_chunk chunk[CHUNKS];
static struct prep_stream stream[STREAMS];
static uint32_t ref[2 * CHUNKS];
static struct prep_run run[CHUNKS];
static char paths[STREAMS][64];

/* A disk of FRAMES frames of 20 chunks; streams of ten chunks, two runs each. */
static struct prep_ckm_index make(void)
{
	struct prep_ckm_index in = {
		.name = "gold", .version = "1.0", .comment = "line\nand line", .disk_size = 1 << 30,
		.disk_type = PREP_VHD_DYNAMIC, .block_size = 2 << 20,
		.frame = frame, .frames = FRAMES, .chunk = chunk, .chunks = CHUNKS, .stream = stream,
		.streams = STREAMS, .ref = ref, .refs = CHUNKS, .run = run, .runs = 2 * STREAMS,
	};
	uint64_t off = PREP_CKM_LEAD_SIZE, disk = 0;

	in.identity.current_size = in.disk_size;
	in.identity.type = PREP_VHD_DYNAMIC;
	memset(in.identity.id, 0x5A, 16);
	check_seed = 21;
	for (uint32_t i = 0; i < FRAMES; i++) {
		frame[i] = (struct prep_frame){ .off = off, .codec = PREP_CODEC_ZSTD, .first_chunk = i * 20, .chunks = 20 };
		for (uint32_t k = i * 20; k < i * 20 + 20; k++) {
			chunk[k] = (struct prep_chunk){ .size = 1 + (uint32_t)check_random(65536), .frame = i, .at = frame[i].size };
			check_noise(chunk[k].digest, PREP_DIGEST_SIZE);
			frame[i].size += chunk[k].size;
		}
		frame[i].stored = frame[i].size / 2 + 1;
		check_noise(frame[i].digest, PREP_DIGEST_SIZE);
		off += frame[i].stored;
	}
	for (uint32_t i = 0; i < STREAMS; i++) {
		struct prep_stream *s = &stream[i];

		snprintf(paths[i], sizeof paths[i], i % 5 == 4 ? "" : "/Windows/System32/file%03u.dll", i);
		*s = (struct prep_stream){ .path = paths[i], .content = (uint8_t)(i % PREP_CONTENT_KINDS), .volume = 2,
					   .first_ref = i * 10, .refs = 10, .first_run = 2 * i, .runs = 2 };
		for (uint32_t k = 0; k < 10; k++) {
			ref[i * 10 + k] = (i * 10 + (k % 3 == 0 ? k : 9 - k)) % CHUNKS;
			s->size += chunk[ref[i * 10 + k]].size;
		}
		/* The second run before the first. */
		run[2 * i] = (struct prep_run){ disk + 1000000, 512 * (i + 1) };
		run[2 * i + 1] = (struct prep_run){ disk, s->size - run[2 * i].len };
		disk += 2000000;
	}
	return in;
}

/* The same, and two patch frames: of every other chunk from 20 and 50 on, each against 20 references that overlap. */
static struct prep_ckm_index make_patched(void)
{
	struct prep_ckm_index in = make();

	for (uint32_t i = 0; i < REFERENCES; i++) {
		reference[i] = (struct prep_chunk){ .size = 1 + (uint32_t)check_random(65536) };
		check_noise(reference[i].digest, PREP_DIGEST_SIZE);
	}
	for (uint32_t i = 0; i < PATCHES; i++) {
		struct prep_frame *f = &frame[FRAMES + i];

		patch[i] = (struct prep_patch){ .first = i * 20, .references = 20 };
		*f = (struct prep_frame){ .off = f[-1].off + f[-1].stored, .stored = 1000 + i, .first_chunk = i * 10,
					  .chunks = 10, .kind = PREP_FRAME_PATCH,
					  .codec = i == 0 ? PREP_CODEC_LZMA2 : PREP_CODEC_ZSTD };
		check_noise(f->digest, PREP_DIGEST_SIZE);
		for (uint32_t k = 0; k < 10; k++) {
			patch_chunk[i * 10 + k] = 20 + i * 30 + 2 * k;
			f->size += chunk[20 + i * 30 + 2 * k].size;
		}
		for (uint32_t k = 0; k < 20; k++) {
			patch_reference[i * 20 + k] = i * 10 + k;
			patch[i].size += reference[i * 10 + k].size;
		}
	}
	in.frames = FRAMES + PATCHES;
	in.patches = PATCHES;
	in.patch = patch;
	in.patch_chunk = patch_chunk;
	in.patch_chunks = 20;
	in.reference = reference;
	in.references = REFERENCES;
	in.patch_reference = patch_reference;
	in.patch_references = 40;
	return in;
}

static bool same_patches(const struct prep_ckm_index *a, const struct prep_ckm_index *b)
{
	return a->patches == b->patches && a->patch_chunks == b->patch_chunks && a->references == b->references &&
	       a->patch_references == b->patch_references &&
	       (a->patches == 0 ||
		(memcmp(a->patch, b->patch, a->patches * sizeof *a->patch) == 0 &&
		 memcmp(a->patch_chunk, b->patch_chunk, a->patch_chunks * sizeof *a->patch_chunk) == 0 &&
		 memcmp(a->reference, b->reference, a->references * sizeof *a->reference) == 0 &&
		 memcmp(a->patch_reference, b->patch_reference, a->patch_references * sizeof *a->patch_reference) == 0));
}

static bool same(const struct prep_ckm_index *a, const struct prep_ckm_index *b)
{
	bool ok = strcmp(a->name, b->name) == 0 && strcmp(a->version, b->version) == 0 &&
		  strcmp(a->comment, b->comment) == 0 && a->disk_size == b->disk_size &&
		  a->disk_type == b->disk_type && a->block_size == b->block_size && a->frames == b->frames &&
		  a->chunks == b->chunks && a->streams == b->streams && a->refs == b->refs && a->runs == b->runs &&
		  memcmp(a->identity.id, b->identity.id, 16) == 0 && memcmp(a->base_id, b->base_id, 16) == 0;

	for (uint32_t i = 0; ok && i < a->frames; i++)
		ok = memcmp(&a->frame[i], &b->frame[i], sizeof a->frame[i]) == 0;
	for (uint32_t i = 0; ok && i < a->chunks; i++)
		ok = memcmp(&a->chunk[i], &b->chunk[i], sizeof a->chunk[i]) == 0;
	for (uint32_t i = 0; ok && i < a->streams; i++)
		ok = strcmp(a->stream[i].path, b->stream[i].path) == 0 && a->stream[i].size == b->stream[i].size &&
		     a->stream[i].content == b->stream[i].content && a->stream[i].volume == b->stream[i].volume &&
		     a->stream[i].first_ref == b->stream[i].first_ref && a->stream[i].first_run == b->stream[i].first_run &&
		     a->stream[i].refs == b->stream[i].refs && a->stream[i].runs == b->stream[i].runs;
	return ok && same_patches(a, b) && memcmp(a->ref, b->ref, a->refs * sizeof *a->ref) == 0 &&
	       memcmp(a->run, b->run, a->runs * sizeof *a->run) == 0;
}

/* Encode in, decode it: must be refused as damage, by a message with `text`; NULL: must be taken. */
static void decode_is(const struct prep_ckm_index *in, const char *text)
{
	struct prep_ckm_index back;
	struct prep_err err;
	uint8_t *p;
	size_t len;

	CHECK_DONE(prep_ckm_index_encode(in, &p, &len, &err));
	if (text != NULL) {
		CHECK_FAILS(prep_ckm_index_decode(p, len, "it", &back, &err), PREP_EDAMAGED, text);
	} else {
		CHECK_DONE(prep_ckm_index_decode(p, len, "it", &back, &err));
		CHECK(same(in, &back));
		prep_ckm_index_clear(&back);
	}
	free(p);
}

static void what_is_encoded_is_decoded(void)
{
	const struct prep_ckm_index in = make();

	decode_is(&in, NULL);
}

static void an_empty_disk(void)
{
	struct prep_ckm_index in = make();

	in.disk_type = 0;
	in.block_size = 0;
	in.frames = in.chunks = in.streams = in.refs = in.runs = 0;
	decode_is(&in, NULL);
}

static void absent_frames(void)
{
	struct prep_ckm_index in = make();

	frame[0] = (struct prep_frame){ .off = PREP_CKM_LEAD_SIZE, .size = frame[0].size, .chunks = 20, .kind = PREP_FRAME_ABSENT };
	for (uint32_t i = 1; i < FRAMES; i++)
		frame[i].off = frame[i - 1].off + frame[i - 1].stored;
	memset(in.base_id, 7, 16);
	decode_is(&in, NULL);
}

static void what_cannot_be_is_refused(void)
{
	struct prep_ckm_index in;

#define REFUSED(change, text)             \
	do {                              \
		in = make();              \
		change;                   \
		decode_is(&in, text);     \
		if (check_ended)          \
			return;           \
	} while (0)
	REFUSED(in.disk_type = 1, "meta: no such type");
	REFUSED(in.disk_type = 4, "meta: a number out of its bounds");
	REFUSED(in.block_size = 3 << 20, "meta: the block size");
	REFUSED(in.disk_type = PREP_VHD_FIXED, "meta: the block size");
	REFUSED(in.disk_size = UINT64_MAX, "meta: a number out of its bounds");
	REFUSED(strcpy(in.name, "a b"), "meta: a character in the name");
	REFUSED(strcpy(in.comment, "\x1B[2J"), "meta: a control character");
	REFUSED(strcpy(in.comment, "caf\xE9"), "meta: a text that is not UTF-8");
	REFUSED(strcpy(paths[3], "/Windows/\xC0\xAF"), "paths: a path that is not UTF-8");
	REFUSED(frame[3].kind = PREP_FRAME_PATCH, "frames: a frame behind the patches");
	REFUSED(frame[3].codec = PREP_CODEC_LZMA2, "frames: a frame of a kind");
	REFUSED(frame[3].kind = 9, "frames: a frame of a kind");
	REFUSED(frame[3].codec = PREP_CODECS, "frames: a frame of a kind");
	REFUSED(frame[3].stored = 0, "frames: an empty frame");
	REFUSED(frame[3].stored = PREP_CKM_FRAME_MAX + 17, "frames: a number out of its bounds");
	REFUSED(frame[3].stored = frame[3].size + 17, "chunks: a frame that takes more");
	REFUSED(frame[3].chunks = 0, "frames: the number of a frame's chunks");
	REFUSED(frame[9].chunks = 21, "chunks: fewer than");
	REFUSED(frame[9].chunks = 19, "chunks: more than");
	REFUSED(frame[9].chunks = PREP_CKM_CHUNKS_MAX + 1, "frames: a number out of its bounds");
	REFUSED(chunk[50].size = 0, "chunks: an empty chunk");
	REFUSED(chunk[50].size = PREP_CKM_CHUNK_MAX + 1, "chunks: a number out of its bounds");
	REFUSED(memcpy(chunk[50].digest, chunk[150].digest, 32), "chunks: one stands twice");
	REFUSED(stream[4].content = PREP_CONTENT_KINDS, "streams: a stream that cannot be");
	REFUSED(stream[4].refs = 0, "streams: a stream that cannot be");
	REFUSED(stream[4].refs = 11, "references: fewer");
	REFUSED(stream[4].refs = PREP_CKM_REFS_MAX + 1, "streams: a number out of its bounds");
	REFUSED(ref[17] = CHUNKS, "references: a chunk that there is not");
	REFUSED(ref[17] = UINT32_MAX, "references: ");
	REFUSED(run[5].off = in.disk_size - 5, "runs: a run beyond the end");
	REFUSED(run[5].off = UINT64_MAX - 5, "runs: a run beyond the end");
	REFUSED(run[4].len = stream[2].size, "runs: an empty run");
	REFUSED(run[4].len = 0, "runs: an empty run");
	REFUSED(run[4].len = UINT64_MAX / 2, "runs: a number out of its bounds");
	REFUSED(run[4].off = run[5].off + 1, "runs: two runs overlap");
	REFUSED(run[4].off = run[8].off, "runs: two runs overlap");
}

static void patches(void)
{
	struct prep_ckm_index in = make_patched();

	decode_is(&in, NULL);
	/* In a difference package they may be all that there is of their chunks. */
	frame[1].kind = PREP_FRAME_ABSENT;
	frame[1].codec = 0;
	frame[1].stored = 0;
	memset(frame[1].digest, 0, PREP_DIGEST_SIZE);
	for (uint32_t i = 1; i < FRAMES + PATCHES; i++)
		frame[i].off = frame[i - 1].off + frame[i - 1].stored;
	decode_is(&in, NULL);
}

static void patches_that_cannot_be_are_refused(void)
{
	struct prep_ckm_index in;

#define PATCH_REFUSED(change, text)       \
	do {                              \
		in = make_patched();      \
		change;                   \
		decode_is(&in, text);     \
		if (check_ended)          \
			return;           \
	} while (0)
	PATCH_REFUSED(frame[10].codec = PREP_CODEC_XZ, "frames: a frame of a kind");
	PATCH_REFUSED(frame[10].codec = PREP_CODEC_DEFLATE, "frames: a frame of a kind");
	PATCH_REFUSED(frame[10].codec = PREP_CODEC_LZMA2 + 1, "frames: a frame of a kind");
	PATCH_REFUSED(frame[10].stored = frame[10].size + 17, "patches: a frame that takes more");
	/* A chunk that there is not; the same one twice, which no encoding says. */
	PATCH_REFUSED(patch_chunk[9] = CHUNKS, "patches: a chunk that there is not");
	PATCH_REFUSED(patch_chunk[9] = patch_chunk[8], "patches: a ");
	PATCH_REFUSED(patch_reference[19] = REFERENCES, "patches: a chunk that there is not");
	PATCH_REFUSED(patch_reference[19] = patch_reference[18], "patches: a ");
	PATCH_REFUSED(patch[1].references = 0, "patches: ");
	PATCH_REFUSED(patch[1].references = REFERENCES + 1, "patches: ");
	PATCH_REFUSED(reference[5].size = 0, "patches: an empty chunk");
	PATCH_REFUSED(reference[5].size = PREP_CKM_CHUNK_MAX + 1, "patches: a number out of its bounds");
	PATCH_REFUSED(memcpy(reference[5].digest, reference[25].digest, 32), "patches: one stands twice");
	PATCH_REFUSED(in.references = 0, "patches: ");
	/* More to read than the frame gives, or than a decoder keeps. */
	PATCH_REFUSED(for (uint32_t i = 0; i < 9; i++) reference[i].size = PREP_CKM_CHUNK_MAX,
		      "patches: a frame of too many reference bytes");
	PATCH_REFUSED(for (uint32_t i = 0; i < 10; i++) chunk[patch_chunk[i]].size = frame[i].stored = 200,
		      "patches: a frame of too many reference bytes");
	PATCH_REFUSED(for (uint32_t i = 0; i < 5; i++) chunk[patch_chunk[i]].size = PREP_CKM_CHUNK_MAX,
		      "patches: a frame of too many bytes");
	/* The section and the frames of that kind come together or not at all. */
	PATCH_REFUSED((in.patches = 0, in.frames = FRAMES + 1), "sections: it ends too early");
	in = make_patched();
	in.frames = FRAMES;
	in.patches = 0;
	in.patch_chunks = in.references = in.patch_references = 0;
	decode_is(&in, NULL);
}

/* Every way to cut it off, and a byte too many. */
static void lengths_must_be_exact(void)
{
	const struct prep_ckm_index in = make_patched();
	struct prep_ckm_index back;
	struct prep_err err;
	uint8_t *p, *copy;
	size_t len;

	CHECK_DONE(prep_ckm_index_encode(&in, &p, &len, &err));
	for (size_t n = 0; n < len; n++) {
		/* Of its own size, so that a sanitizer sees a byte read beyond it. */
		copy = malloc(n + 1);
		memcpy(copy, p, n);
		CHECK_FAILS(prep_ckm_index_decode(copy, n, "it", &back, &err), PREP_EDAMAGED, "the index is damaged");
		free(copy);
	}
	copy = calloc(1, len + 1);
	memcpy(copy, p, len);
	CHECK_FAILS(prep_ckm_index_decode(copy, len + 1, "it", &back, &err), PREP_EDAMAGED, "sections: bytes too many");
	free(copy);
	free(p);
}

/* No digest stands between this and the decoder: whatever it makes of it, it must check and not crash. */
static void flipped_bits_are_no_harm(void)
{
	const struct prep_ckm_index in = make_patched();
	struct prep_ckm_index back;
	struct prep_err err;
	uint8_t *p;
	size_t len;

	CHECK_DONE(prep_ckm_index_encode(&in, &p, &len, &err));
	for (size_t i = 0; i < len * 8; i++) {
		p[i / 8] ^= (uint8_t)(1u << i % 8);
		err = (struct prep_err)PREP_ERR_INIT;
		if (prep_ckm_index_decode(p, len, "it", &back, &err) == 0)
			prep_ckm_index_clear(&back);
		else
			CHECK_EQ(err.code, PREP_EDAMAGED);
		p[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	free(p);
}

static void numbers_have_one_form(void)
{
	const struct prep_ckm_index in = make();
	struct prep_ckm_index back;
	struct prep_err err;
	uint8_t *p;
	size_t len;

	CHECK_DONE(prep_ckm_index_encode(&in, &p, &len, &err));
	/* The sections' number, then the length of the first: two bytes; its high one made useless. */
	CHECK(p[0] == 1 && (p[1] & 0x80) && !(p[2] & 0x80));
	p[2] = 0;
	CHECK_FAILS(prep_ckm_index_decode(p, len, "it", &back, &err), PREP_EDAMAGED, "longer than it need be");
	memset(p + 1, 0xFF, 11);
	CHECK_FAILS(prep_ckm_index_decode(p, len, "it", &back, &err), PREP_EDAMAGED, "more than 64 bits");
	free(p);
}

/* A path that says less of the one before than is the same in both. */
static void paths_have_one_form(void)
{
	static const char second[] = "\x18\x05" "1.dll"; /* 24 bytes in common, 5 others */
	const struct prep_ckm_index in = make();
	struct prep_ckm_index back;
	struct prep_err err;
	uint8_t *p, *at;
	size_t len;

	CHECK_DONE(prep_ckm_index_encode(&in, &p, &len, &err));
	at = memmem(p, len, second, sizeof second - 1);
	CHECK(at != NULL);
	/* One byte fewer in common, at the cost of the third path's, so that the lengths stay. */
	CHECK(memcmp(at + 7, "\x18\x05" "2.dll", 7) == 0);
	memcpy(at, "\x17\x06" "01.dll" "\x18\x04" ".dll", 14);
	CHECK_FAILS(prep_ckm_index_decode(p, len, "it", &back, &err), PREP_EDAMAGED,
		    "paths: a path that has more in common with the one before");
	free(p);
}

/*
 * KiB that a process of its own had in use at its most while it encoded and
 * decoded `in`; 0 when it failed.
 */
static long memory_for(const struct prep_ckm_index *in)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_ckm_index back;
	struct rusage usage;
	uint8_t *p;
	size_t len;
	pid_t pid;
	int status;

	if (prep_ckm_index_encode(in, &p, &len, &err) < 0)
		return 0;
	pid = fork();
	if (pid == 0)
		_exit(len > (12u << 20) || prep_ckm_index_decode(p, len, "it", &back, &err) < 0);
	free(p);
	return pid > 0 && wait4(pid, &status, 0, &usage) == pid && status == 0 ? usage.ru_maxrss : 0;
}

/* KiB; AddressSanitizer has memory of its own, for everything. */
#if defined(__SANITIZE_ADDRESS__)
#define MEMORY_MAX (4l << 20)
#else
#define MEMORY_MAX (512l << 10)
#endif

/* What an index of 8 MiB can hold at most, which as a file may be next to nothing. */
static void a_small_index_takes_little_memory(void)
{
	enum { RUNS = 4190000, PATHS = 1030, LONG = 131000 };
	struct prep_ckm_index in = make();
	struct prep_stream *many;
	struct prep_run *runs;
	char *path;
	long most;

	CHECK_SKIP_UNDER_VALGRIND("it takes memory of its own");
	many = calloc(PATHS, sizeof *many);
	runs = calloc(RUNS, sizeof *runs);
	path = malloc(LONG + 1);
	/* As many runs as possible, of one byte each, in one stream of one chunk over and over. */
	chunk[0].size = PREP_CKM_CHUNK_MAX;
	frame[0].size += PREP_CKM_CHUNK_MAX;
	in.streams = 1;
	in.refs = in.stream[0].refs = 5;
	memset(ref, 0, sizeof ref);
	in.runs = in.stream[0].runs = RUNS;
	for (uint32_t i = 0; i < RUNS; i++)
		runs[i] = (struct prep_run){ 2 * (uint64_t)i, 1 };
	runs[RUNS - 1].len = 5 * PREP_CKM_CHUNK_MAX - (RUNS - 1);
	in.run = runs;
	most = memory_for(&in);
	CHECK(most > 0);
	CHECK(most < MEMORY_MAX);

	/* The longest paths, each like the one before. */
	in = make();
	memset(path, 'a', LONG);
	path[LONG] = '\0';
	in.stream = many;
	in.streams = in.refs = in.runs = PATHS;
	in.ref = calloc(PATHS, sizeof *in.ref);
	in.run = runs;
	for (uint32_t i = 0; i < PATHS; i++) {
		many[i] = (struct prep_stream){ .path = path, .size = chunk[0].size, .first_ref = i, .refs = 1, .first_run = i, .runs = 1 };
		runs[i] = (struct prep_run){ (uint64_t)i << 17, chunk[0].size };
	}
	most = memory_for(&in);
	CHECK(most > 0);
	CHECK(most < MEMORY_MAX);
	free(in.ref);
	free(many);
	free(runs);
	free(path);
}

/* Counts that promise more than the bytes behind them can hold are refused before anything is allocated for them. */
static void counts_are_bounded_by_bytes(void)
{
	struct prep_ckm_index in = make(), back;
	struct prep_err err;
	uint8_t *p, *at;
	size_t len;

	/* The section of paths is empty: then no stream can be. */
	in.streams = in.refs = in.runs = 0;
	CHECK_DONE(prep_ckm_index_encode(&in, &p, &len, &err));
	at = memmem(p, len, "\x04\x01\x00\x05\x00\x06\x00\x07\x00", 9);
	CHECK(at != NULL);
	at[2] = 1;
	CHECK_FAILS(prep_ckm_index_decode(p, len, "it", &back, &err), PREP_EDAMAGED, "streams: it is too short for its count");
	free(p);
}

/* What no reader would take is not written. */
static void paths_that_are_too_long_are_refused(void)
{
	struct prep_ckm_index in = make();
	char *path = malloc((1 << 17) + 2);
	struct prep_err err;
	uint8_t *p;
	size_t len;

	memset(path, 'a', (1 << 17) + 1);
	path[(1 << 17) + 1] = '\0';
	stream[2].path = path;
	CHECK_FAILS(prep_ckm_index_encode(&in, &p, &len, &err), PREP_EREFUSED, "the paths of the files");
	free(path);
}

static void the_table_finds_every_chunk(void)
{
	struct prep_ckm_index in = make();
	struct prep_chunk_table *t;
	struct prep_err err;
	uint8_t digest[PREP_DIGEST_SIZE] = { 1, 2, 3 };

	/* Some that differ in the last byte only. */
	for (uint32_t i = 100; i < 150; i++) {
		memcpy(chunk[i].digest, chunk[100].digest, PREP_DIGEST_SIZE);
		chunk[i].digest[31] = (uint8_t)i;
	}
	for (in.chunks = 0; in.chunks <= CHUNKS; in.chunks += in.chunks < 5 ? 1 : 65) {
		CHECK_DONE(prep_chunk_table_new(&in, &t, &err));
		for (uint32_t i = 0; i < CHUNKS; i++)
			CHECK_EQ(prep_chunk_table_find(t, chunk[i].digest), i < in.chunks ? i : UINT32_MAX);
		CHECK_EQ(prep_chunk_table_find(t, digest), UINT32_MAX);
		prep_chunk_table_free(t);
	}
}

static void names(void)
{
	CHECK(prep_ckm_name_allowed("Windows-XP_SP3.gold"));
	CHECK(prep_ckm_name_allowed("Gr\xC3\xBC\xC3\x9F" "e"));
	for (const char *p = " \"<>|\\/:*?\n\x7F"; *p != '\0'; p++) {
		const char name[3] = { 'a', *p, '\0' };

		CHECK(!prep_ckm_name_allowed(name));
	}
	for (unsigned i = 0; i < PREP_CONTENT_KINDS; i++)
		CHECK(strcmp(prep_content_name(i), "unknown") != 0);
	CHECK_STR(prep_content_name(PREP_CONTENT_KINDS), "unknown");
}

int main(void)
{
	RUN(what_is_encoded_is_decoded);
	RUN(an_empty_disk);
	RUN(absent_frames);
	RUN(what_cannot_be_is_refused);
	RUN(patches);
	RUN(patches_that_cannot_be_are_refused);
	RUN(lengths_must_be_exact);
	RUN(flipped_bits_are_no_harm);
	RUN(numbers_have_one_form);
	RUN(paths_have_one_form);
	RUN(a_small_index_takes_little_memory);
	RUN(counts_are_bounded_by_bytes);
	RUN(paths_that_are_too_long_are_refused);
	RUN(the_table_finds_every_chunk);
	RUN(names);
	return check_result();
}
