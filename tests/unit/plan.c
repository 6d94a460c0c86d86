/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which chunks share frames. */
#include "libprep/ckm/plan.h"

#include "libprep/base/bytes.h"
#include "tests/unit/check.h"

#define CHUNK 65536u
#define STREAMS 8
#define CHUNKS 256

static struct prep_layout_stream stream[STREAMS];
static struct prep_layout_piece piece[STREAMS];
static struct prep_survey_chunk chunk[CHUNKS];
static struct prep_survey_ref ref[CHUNKS];
static size_t first_ref[STREAMS + 1];
static struct prep_survey survey;
static struct prep_plan plan;

static void begin(void)
{
	survey = (struct prep_survey){
		.layout = { .stream = stream, .piece = piece }, .chunk = chunk, .ref = ref, .first_ref = first_ref,
	};
	check_seed = 61;
}

/* A file of n chunks that no other has. */
static void add_file(const char *path, enum prep_content content, uint32_t n)
{
	const size_t i = survey.layout.streams++;

	stream[i] = (struct prep_layout_stream){
		.path = path, .content = (uint8_t)content, .is_file = true, .size = (uint64_t)n * CHUNK, .first = i, .pieces = 1,
	};
	piece[i] = (struct prep_layout_piece){ .off = (uint64_t)i << 32, .len = stream[i].size };
	for (uint32_t k = 0; k < n; k++) {
		struct prep_survey_chunk *c = &chunk[survey.chunks];

		*c = (struct prep_survey_chunk){ .size = CHUNK, .stream = (uint32_t)i, .at = (uint64_t)k * CHUNK };
		check_noise(c->digest, sizeof c->digest);
		ref[survey.refs++] = (struct prep_survey_ref){ c->at, survey.chunks++ };
	}
	first_ref[i + 1] = survey.refs;
}

/* Plan frames of `size` bytes and expect these numbers of chunks in them. */
static void frames_are(uint32_t size, const uint32_t *chunks, uint32_t n)
{
	const struct prep_plan_how how = { .frame_size = size };
	struct prep_err err;

	CHECK_DONE(prep_plan_make(&survey, &how, &plan, &err));
	CHECK_EQ(plan.index.frames, n);
	for (uint32_t i = 0; i < n; i++)
		CHECK_EQ(plan.index.frame[i].chunks, chunks[i]);
	prep_plan_clear(&plan);
}

#define FRAMES_ARE(size, ...)                                                  \
	do {                                                                   \
		static const uint32_t want[] = { __VA_ARGS__ };                \
		frames_are(size, want, sizeof want / sizeof want[0]);          \
		if (check_ended)                                               \
			return;                                                \
	} while (0)

static void small_files_share_frames_by_content(void)
{
	begin();
	add_file("/a.txt", PREP_CONTENT_TEXT, 2);
	add_file("/b.dat", PREP_CONTENT_OTHER, 3);
	add_file("/c.txt", PREP_CONTENT_TEXT, 2);
	FRAMES_ARE(8 << 20, 4, 3);
	FRAMES_ARE(3 * CHUNK, 3, 1, 3);
}

static void large_files_stand_apart_and_versions_of_one_together(void)
{
	begin();
	add_file("/Windows/d3dx9_25.dll", PREP_CONTENT_PE, 10);
	add_file("/Windows/System32/D3DX9_30.dll", PREP_CONTENT_PE, 11);
	add_file("/Windows/kernel32.dll", PREP_CONTENT_PE, 12);
	add_file("/Windows/WinSxS/1/kernel32.dll", PREP_CONTENT_PE, 13);
	add_file("/Windows/lz32.dll", PREP_CONTENT_PE, 1);
	add_file("/Windows/shell32.dll", PREP_CONTENT_PE, 14);
	FRAMES_ARE(8 << 20, 21, 25, 1, 14);
}

static void frames_of_programs_are_larger(void)
{
	begin();
	add_file("/one.dll", PREP_CONTENT_PE, 20);
	add_file("/two.dat", PREP_CONTENT_OTHER, 20);
	FRAMES_ARE(8 * CHUNK, 16, 4, 8, 8, 4);
	/* But none is too large for a reader. */
	FRAMES_ARE(PREP_CKM_FRAME_MAX, 20, 20);
}

static void dense_chunks_stand_apart(void)
{
	begin();
	add_file("/one.dat", PREP_CONTENT_OTHER, 9);
	for (uint32_t i = 1; i < 9; i += 2)
		chunk[i].dense = true;
	FRAMES_ARE(8 << 20, 5, 4);
}

int main(void)
{
	RUN(small_files_share_frames_by_content);
	RUN(large_files_stand_apart_and_versions_of_one_together);
	RUN(frames_of_programs_are_larger);
	RUN(dense_chunks_stand_apart);
	return check_result();
}
