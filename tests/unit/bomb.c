/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Bombs: small packages and indexes, sound by their checksums, that claim or
 * become far more than they hold. Each is refused in little memory and time.
 *
 * bomb DIR only makes them there, for the tests of the commands.
 */
#include <lzma.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <zlib.h>
#include <zstd.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/hash.h"
#include "libprep/ckm/plan.h"
#include "libprep/ckm/section_write.h"
#include "libprep/ckm/verify.h"
#include "tests/unit/check.h"

#define PIECE 65536u
#define CLAIM (1u << 20)       /* bytes that a frame says it becomes: less than it holds is refused by the index */
#define MEMORY (384u << 20)    /* that opening and checking may take, beyond what the program has */
#define SECONDS 10

static struct prep_err err;
static const uint8_t zeros[CLAIM];

/* `pieces` of zeros packed: the bytes, to be freed. */
static uint8_t *pack_zeros(enum prep_codec codec, unsigned pieces, size_t *len)
{
	const size_t room = (size_t)pieces * PIECE / 500 + PIECE;
	uint8_t *out = malloc(room);
	ZSTD_CCtx *c = ZSTD_createCCtx();
	ZSTD_outBuffer to = { out, room, 0 };
	lzma_stream x = LZMA_STREAM_INIT;
	z_stream z = { .next_out = out, .avail_out = (unsigned)room };

	x.next_out = out;
	x.avail_out = room;
	if (out == NULL || c == NULL || deflateInit(&z, 9) != Z_OK || lzma_easy_encoder(&x, 0, LZMA_CHECK_NONE) != LZMA_OK)
		exit(1);
	for (unsigned i = 0; i < pieces; i++) {
		const bool last = i + 1 == pieces;
		ZSTD_inBuffer in = { zeros, PIECE, 0 };

		x.next_in = z.next_in = (uint8_t *)zeros;
		x.avail_in = z.avail_in = PIECE;
		if (codec == PREP_CODEC_ZSTD)
			while (ZSTD_compressStream2(c, &to, &in, last ? ZSTD_e_end : ZSTD_e_continue) != 0 &&
			       (last || in.pos < PIECE))
				;
		else if (codec == PREP_CODEC_XZ)
			while (lzma_code(&x, last ? LZMA_FINISH : LZMA_RUN) == LZMA_OK && (last || x.avail_in > 0))
				;
		else
			deflate(&z, last ? Z_FINISH : Z_NO_FLUSH);
	}
	*len = codec == PREP_CODEC_ZSTD ? to.pos : codec == PREP_CODEC_XZ ? (size_t)x.total_out : (size_t)z.total_out;
	ZSTD_freeCCtx(c);
	lzma_end(&x);
	deflateEnd(&z);
	return out;
}

/* A package of one frame, which is `stored`, of one chunk, at the end of a disk of disk_size bytes, of the file `name`. */
static void make_package(const char *path, enum prep_codec codec, const uint8_t *stored, size_t len,
			 uint64_t disk_size, char *name)
{
	static uint8_t lead[PREP_CKM_LEAD_SIZE];
	struct prep_frame frame = {
		.off = PREP_CKM_LEAD_SIZE, .stored = (uint32_t)len, .size = CLAIM, .codec = (uint8_t)codec, .chunks = 1,
	};
	struct prep_chunk chunk = { .size = CLAIM };
	struct prep_stream stream = { .path = name, .content = PREP_CONTENT_OTHER, .size = CLAIM, .refs = 1, .runs = 1 };
	struct prep_run run = { disk_size - CLAIM, CLAIM };
	uint32_t ref = 0;
	struct prep_plan plan = {
		.index = {
			.name = "bomb", .disk_size = disk_size, .frame = &frame, .frames = 1, .chunk = &chunk, .chunks = 1,
			.stream = &stream, .streams = 1, .ref = &ref, .refs = 1, .run = &run, .runs = 1,
			.strings = name, .strings_len = strlen(name) + 1,
		},
	};
	const struct prep_pack_how how = { .codec = PREP_CODEC_ZSTD };
	struct prep_pack_report report;
	struct prep_output *out;

	CHECK_DONE(prep_hash_once(stored, len, frame.digest, &err));
	CHECK_DONE(prep_hash_once(zeros, CLAIM, chunk.digest, &err));
	CHECK_DONE(prep_output_open(path, true, &out, &err));
	CHECK_DONE(prep_output_write(out, lead, sizeof lead, &err));
	CHECK_DONE(prep_output_write(out, stored, len, &err));
	CHECK_DONE(prep_section_write(&plan, &how, out, NULL, &report, &err));
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
}

/* An index alone, whose body becomes more than the index_len that it says. */
static void make_index(const char *path, uint64_t index_len)
{
	struct prep_ckm_header h = {
		.package_size = 1 << 20, .index_len = index_len, .body_codec = PREP_CODEC_ZSTD,
	};
	size_t len;
	uint8_t *body = pack_zeros(PREP_CODEC_ZSTD, 16384, &len), *p;
	uint64_t digest;
	int fd;

	h.body_len = len;
	digest = prep_ckm_digest_at(&h);
	h.section_len = digest + PREP_DIGEST_SIZE;
	p = calloc(1, h.section_len);
	CHECK(p != NULL);
	prep_ckm_header_encode(&h, p);
	memcpy(p + prep_ckm_body_at(&h), body, len);
	CHECK_DONE(prep_hash_once(p, digest, p + digest, &err));
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	check_write(fd, p, h.section_len, 0);
	close(fd);
	free(p);
	free(body);
}

static void make_all(void)
{
	static char name[PREP_CKM_CHUNK_MAX / 8 - 2], empty[] = "";
	static const struct {
		const char *file;
		enum prep_codec codec;
		unsigned pieces;
	} frames[] = {
		{ "frame-zstd.ckm", PREP_CODEC_ZSTD, 16384 },
		{ "frame-xz.ckm", PREP_CODEC_XZ, 2048 },
		{ "frame-deflate.ckm", PREP_CODEC_DEFLATE, 2048 },
	};
	uint8_t *p;
	size_t len;

	for (unsigned i = 0; i < 3; i++) {
		p = pack_zeros(frames[i].codec, frames[i].pieces, &len);
		make_package(check_path(frames[i].file), frames[i].codec, p, len, 4 << 20, empty);
		free(p);
	}
	for (size_t i = 0; i < sizeof name - 1; i++)
		name[i] = "/a"[i % 2];
	make_package(check_path("path.ckm"), PREP_CODEC_STORE, zeros, CLAIM, 4 << 20, name);
	make_package(check_path("exabyte.ckm"), PREP_CODEC_STORE, zeros, CLAIM, (uint64_t)1 << 60, empty);
	make_index(check_path("index.ckm.index"), 8 << 20);
	make_index(check_path("claim.ckm.index"), (uint64_t)1 << 60);
}

/* ---- Opening and verifying them, in a child with limits ---- */

static int open_and_verify(const char *path)
{
	static const struct prep_ckm_access access;
	struct prep_verify_report v;
	struct prep_pool *pool;
	struct prep_ckm *p;
	int r = PREP_DONE;

	if (prep_ckm_open(path, &access, &p, &err) < 0 || prep_pool_open(1, &pool, &err) < 0)
		return err.code;
	if (prep_ckm_info(p)->section_off != 0) {
		if (prep_verify(p, NULL, pool, &v, NULL, &err) < 0)
			return err.code;
		r = v.damaged > 0 ? PREP_EDAMAGED : PREP_DONE;
		prep_verify_clear(&v);
	}
	prep_pool_close(pool);
	prep_ckm_close(p);
	return r;
}

static void limited(const char *name, int want)
{
	const pid_t pid = fork();
	struct rusage use;
	int status;

	if (pid == 0) {
		const struct rlimit cpu = { SECONDS, SECONDS };

		setrlimit(RLIMIT_CPU, &cpu);
		_exit(open_and_verify(check_path(name)));
	}
	CHECK(pid > 0 && wait4(pid, &status, 0, &use) == pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), want);
	/* KiB */
	CHECK((uint64_t)use.ru_maxrss * 1024 < MEMORY);
}

static void frames_that_expand(void)
{
	limited("frame-zstd.ckm", PREP_EDAMAGED);
	limited("frame-xz.ckm", PREP_EDAMAGED);
	limited("frame-deflate.ckm", PREP_EDAMAGED);
}

static void indexes_that_expand(void)
{
	limited("index.ckm.index", PREP_EDAMAGED);
	limited("claim.ckm.index", PREP_EDAMAGED);
}

static void long_paths(void)
{
	limited("path.ckm", PREP_DONE);
}

/* It is what it says, though no file can hold what it makes. */
static void a_disk_of_an_exabyte(void)
{
	limited("exabyte.ckm", PREP_DONE);
}

int main(int argc, char **argv)
{
	check_name = "bombs are made";
	if (argc > 1) {
		snprintf(check_folder, sizeof check_folder, "%s", argv[1]);
		make_all();
		return check_result();
	}
	make_all();
	RUN(frames_that_expand);
	RUN(indexes_that_expand);
	RUN(long_paths);
	RUN(a_disk_of_an_exabyte);
	return check_result();
}
