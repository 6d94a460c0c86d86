/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Packages, whole: packed from a disk, read back, damaged in every way. */
#include "libprep/ckm/package.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <openssl/pem.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/frame_cache.h"
#include "libprep/ckm/pack.h"
#include "libprep/ckm/section.h"
#include "libprep/ckm/verify.h"
#include "tests/unit/check.h"

#define DISK (3u << 20)

static uint8_t disk_bytes[DISK];
static const struct prep_ckm_access nothing;

/* What a test packs with. */
struct how {
	enum prep_codec codec;
	unsigned threads;
	const struct prep_seal *seal;
	const uint8_t *slots;
	unsigned n_slots;
	EVP_PKEY *sign;
	const struct prep_ckm_index *base;
	bool difference;
};

/* Noise, text, repetition and zeros; a raw disk without a table. */
static void fill_disk(uint64_t seed)
{
	memset(disk_bytes, 0, DISK);
	check_seed = seed;
	check_noise(disk_bytes + 5000, 300000);
	memcpy(disk_bytes + (1 << 20), disk_bytes + 65536, 131072);
	for (size_t i = 2 << 20; i < (2 << 20) + 400000; i++)
		disk_bytes[i] = (uint8_t)("all work and no play "[i % 21] + (check_random(30) == 0));
	disk_bytes[DISK - 1] = 1;
}

static int pack_disk(const char *path, const struct how *how, struct prep_err *err)
{
	const struct prep_pack_how pack = { how->codec, 1, how->seal, how->slots, how->n_slots, how->sign };
	struct prep_chunk_table *base = NULL;
	struct prep_plan_how plan_how = { .frame_size = 256 << 10, .base = &base, .difference = how->difference };
	struct prep_survey survey = { .chunks = 0 };
	struct prep_plan plan = { .kept_frames = 0 };
	struct prep_pack_report report;
	struct prep_output *out = NULL, *out_index = NULL;
	struct prep_pool *pool = NULL;
	struct prep_disk *d = NULL;
	char index[4300];
	const int fd = check_create("disk.raw");
	int r = -1;

	check_write(fd, disk_bytes, DISK, 0);
	close(fd);
	snprintf(index, sizeof index, "%s.index", path);
	if (how->base != NULL && prep_chunk_table_new(how->base, &base, err) < 0)
		return -1;
	plan_how.bases = base != NULL;
	if (prep_pool_open(how->threads, &pool, err) == 0 && prep_disk_open(check_path("disk.raw"), 0, &d, err) == 0 &&
	    prep_survey_make(d, pool, &survey, NULL, err) == 0 && prep_plan_make(&survey, &plan_how, &plan, err) == 0 &&
	    prep_output_open(path, true, &out, err) == 0 && prep_output_open(index, true, &out_index, err) == 0) {
		strcpy(plan.index.name, "test");
		plan.index.disk_size = d->size;
		memset(plan.index.base_id, how->base != NULL, 16);
		r = prep_pack(&survey, &plan, &pack, pool, out, out_index, &report, NULL, err);
	}
	if (r == 0)
		r = prep_output_commit(out, err) == 0 ? prep_output_commit(out_index, err) : -1;
	prep_output_close(out);
	prep_output_close(out_index);
	prep_plan_clear(&plan);
	prep_survey_clear(&survey);
	prep_pool_close(pool);
	prep_disk_close(d);
	prep_chunk_table_free(base);
	return r;
}

/* The disk as the package has it, equal to disk_bytes? Frames that are absent count as right. */
static void holds_the_disk(struct prep_ckm *p)
{
	const struct prep_ckm_index *in = prep_ckm_index(p);
	uint8_t *disk = calloc(1, DISK), *known = calloc(1, DISK);
	struct prep_err err;

	CHECK_EQ(in->disk_size, DISK);
	for (uint32_t i = 0; i < in->streams; i++) {
		const struct prep_stream *s = &in->stream[i];
		uint32_t run = s->first_run;
		uint64_t in_run = 0;

		for (uint32_t k = 0; k < s->refs; k++) {
			const struct prep_chunk *c = &in->chunk[in->ref[s->first_ref + k]];
			const struct prep_frame *f = &in->frame[c->frame];
			uint8_t *stored = malloc(f->stored + 1), *raw = malloc(f->size);
			const bool absent = f->kind == PREP_FRAME_ABSENT;

			if (!absent) {
				CHECK_DONE(prep_ckm_read_frame(p, c->frame, stored, &err));
				CHECK_DONE(prep_ckm_decode_frame(p, c->frame, stored, NULL, raw, &err));
			}
			for (uint32_t at = 0; at < c->size; at++) {
				const uint64_t off = in->run[run].off + in_run;

				disk[off] = absent ? disk_bytes[off] : raw[c->at + at];
				known[off]++;
				if (++in_run == in->run[run].len) {
					run++;
					in_run = 0;
				}
			}
			free(stored);
			free(raw);
		}
		CHECK_EQ(run, s->first_run + s->runs);
	}
	CHECK(memcmp(disk, disk_bytes, DISK) == 0);
	for (size_t i = 0; i < DISK; i++)
		CHECK(known[i] <= 1);
	free(disk);
	free(known);
}

static void every_codec_packs_and_unpacks(void)
{
	struct prep_ckm *p;
	struct prep_err err;

	fill_disk(31);
	for (int codec = 0; codec < PREP_CODECS; codec++) {
		const struct how how = { .codec = (enum prep_codec)codec, .threads = 2 };

		CHECK_DONE(pack_disk(check_path("a.ckm"), &how, &err));
		CHECK_DONE(prep_ckm_open(check_path("a.ckm"), &nothing, &p, &err));
		holds_the_disk(p);
		prep_ckm_close(p);
	}
}

static void the_same_bytes_whatever_the_threads(void)
{
	struct how how = { .codec = PREP_CODEC_ZSTD, .threads = 1 };
	unsigned char *a, *b;
	size_t a_len, b_len;
	struct prep_err err;

	fill_disk(32);
	CHECK_DONE(pack_disk(check_path("a.ckm"), &how, &err));
	how.threads = 5;
	CHECK_DONE(pack_disk(check_path("b.ckm"), &how, &err));
	a = check_read(check_path("a.ckm"), &a_len);
	b = check_read(check_path("b.ckm"), &b_len);
	CHECK(a_len == b_len && memcmp(a, b, a_len) == 0);
	free(b);
	/* And the index beside it is the one inside. */
	b = check_read(check_path("a.ckm.index"), &b_len);
	CHECK(memcmp(a + a_len - PREP_CKM_TRAILER_SIZE - b_len, b, b_len) == 0);
	free(a);
	free(b);
}

static void an_index_alone_opens(void)
{
	const struct how how = { .codec = PREP_CODEC_ZSTD, .threads = 1 };
	struct prep_ckm *p, *q;
	struct prep_err err;
	uint8_t byte;

	fill_disk(33);
	CHECK_DONE(pack_disk(check_path("a.ckm"), &how, &err));
	CHECK_DONE(prep_ckm_open(check_path("a.ckm.index"), &nothing, &p, &err));
	CHECK_EQ(prep_ckm_info(p)->section_off, 0);
	CHECK_STR(prep_ckm_index(p)->name, "test");
	CHECK_FAILS(prep_ckm_read_frame(p, 0, &byte, &err), PREP_EREFUSED, "an index alone");
	CHECK_DONE(prep_ckm_open_index(prep_ckm_section(p), prep_ckm_info(p)->section_len, "memory", &nothing, &q, &err));
	CHECK(memcmp(prep_ckm_info(p)->id, prep_ckm_info(q)->id, 16) == 0);
	prep_ckm_close(q);
	CHECK_FAILS(prep_ckm_open_index(prep_ckm_section(p), prep_ckm_info(p)->section_len - 1, "memory", &nothing, &q, &err),
		    PREP_EDAMAGED, "memory: the index section has");
	prep_ckm_close(p);
}

static void keys_open_sealed_packages(void)
{
	uint8_t slots[2 * PREP_CKM_SLOT_SIZE];
	struct how how = { .codec = PREP_CODEC_ZSTD, .threads = 2, .slots = slots, .n_slots = 2 };
	struct prep_ckm_access access = { .passphrase_file = check_path("phrase") };
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
	struct prep_seal *seal;
	struct prep_ckm *p;
	struct prep_err err;
	int fd = check_create("phrase");

	check_write(fd, "right\n", 6, 0);
	close(fd);
	fill_disk(34);
	CHECK_DONE(prep_seal_new(&seal, &err));
	CHECK_DONE(prep_seal_slot_recipient(seal, key, slots, &err));
	CHECK_DONE(prep_seal_slot_passphrase(seal, "right", 5, slots + PREP_CKM_SLOT_SIZE, &err));
	how.seal = seal;
	CHECK_DONE(pack_disk(check_path("a.ckm"), &how, &err));
	CHECK_FAILS(prep_ckm_open(check_path("a.ckm"), &nothing, &p, &err), PREP_EREFUSED, "sealed");
	CHECK_DONE(prep_ckm_open(check_path("a.ckm"), &access, &p, &err));
	CHECK(prep_ckm_info(p)->sealed);
	CHECK_EQ(prep_ckm_info(p)->slots, 2);
	holds_the_disk(p);
	prep_ckm_close(p);
	fd = check_create("phrase");
	check_write(fd, "wrong\n", 6, 0);
	close(fd);
	CHECK_FAILS(prep_ckm_open(check_path("a.ckm"), &access, &p, &err), PREP_EREFUSED, "the passphrase from");
	access = (struct prep_ckm_access){ .outer_only = true };
	CHECK_DONE(prep_ckm_open(check_path("a.ckm"), &access, &p, &err));
	CHECK(prep_ckm_index(p) == NULL);
	prep_ckm_close(p);
	prep_seal_free(seal);
	EVP_PKEY_free(key);
}

static void a_difference_leaves_out_what_the_base_holds(void)
{
	struct how how = { .codec = PREP_CODEC_ZSTD, .threads = 2 };
	struct prep_ckm *base, *p;
	const struct prep_ckm_index *in;
	struct prep_err err;
	uint8_t byte;

	fill_disk(35);
	CHECK_DONE(pack_disk(check_path("base.ckm"), &how, &err));
	CHECK_DONE(prep_ckm_open(check_path("base.ckm"), &nothing, &base, &err));
	check_noise(disk_bytes + 700000, 70000);
	how.base = prep_ckm_index(base);
	/* New chunks stand in frames of their own, behind all others. */
	CHECK_DONE(pack_disk(check_path("new.ckm"), &how, &err));
	CHECK_DONE(prep_ckm_open(check_path("new.ckm"), &nothing, &p, &err));
	holds_the_disk(p);
	in = prep_ckm_index(p);
	CHECK(in->frame[in->frames - 1].size >= 65536 && in->frame[in->frames - 1].size <= 70000 + 131072);
	prep_ckm_close(p);
	how.difference = true;
	CHECK_DONE(pack_disk(check_path("diff.ckm"), &how, &err));
	CHECK_DONE(prep_ckm_open(check_path("diff.ckm"), &nothing, &p, &err));
	CHECK(prep_ckm_info(p)->difference);
	CHECK_EQ(prep_ckm_index(p)->frame[0].kind, PREP_FRAME_ABSENT);
	CHECK_FAILS(prep_ckm_read_frame(p, 0, &byte, &err), PREP_EREFUSED, "frame 0 is not in this difference package");
	holds_the_disk(p);
	CHECK(prep_ckm_info(p)->package_size < prep_ckm_info(base)->package_size / 2);
	prep_ckm_close(p);
	prep_ckm_close(base);
}

/* Verify b.ckm: what is wrong with it to `what`, "" if nothing. True: it is damage or a refusal. */
static bool is_found(const struct prep_ckm_access *access, struct prep_pool *pool, char *what, size_t room)
{
	struct prep_verify_report v = { .frames = 0 };
	struct prep_err err = PREP_ERR_INIT;
	struct prep_ckm *ckm = NULL;
	bool found;

	if (prep_ckm_open(check_path("b.ckm"), access, &ckm, &err) == 0)
		prep_verify(ckm, NULL, pool, &v, NULL, &err);
	found = v.damaged > 0 || err.code == PREP_EDAMAGED || err.code == PREP_EREFUSED;
	snprintf(what, room, "%s", v.damaged > 0 ? v.damage[0].what : err.code != PREP_DONE ? err.msg : "");
	prep_verify_clear(&v);
	prep_ckm_close(ckm);
	return found;
}

/* Every byte but of the frames, and a sample of these; in a package that is sealed and signed, so that it has all there is. */
static void any_flipped_bit_is_found_and_named(void)
{
	uint8_t slots[2 * PREP_CKM_SLOT_SIZE];
	struct how how = { .codec = PREP_CODEC_ZSTD, .threads = 1, .slots = slots, .n_slots = 2 };
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
	char *key_file = strdup(check_path("key.pem"));
	const struct prep_ckm_access access = { .key_file = key_file };
	char what[600], frame[40];
	struct prep_seal *seal;
	struct prep_pool *pool;
	struct prep_ckm *ckm;
	struct prep_err err;
	unsigned char *p;
	uint64_t section, signature, trailer;
	uint32_t number = 0;
	size_t len;
	int fd;
	FILE *f = fopen(key_file, "w");

	CHECK(f != NULL && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1 && fclose(f) == 0);
	fill_disk(36);
	CHECK_DONE(prep_seal_new(&seal, &err));
	CHECK_DONE(prep_seal_slot_recipient(seal, key, slots, &err));
	CHECK_DONE(prep_seal_slot_recipient(seal, key, slots + PREP_CKM_SLOT_SIZE, &err));
	how.seal = seal;
	how.sign = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	CHECK_DONE(pack_disk(check_path("a.ckm"), &how, &err));
	CHECK_DONE(prep_ckm_open(check_path("a.ckm"), &access, &ckm, &err));
	CHECK_DONE(prep_pool_open(1, &pool, &err));
	p = check_read(check_path("a.ckm"), &len);
	fd = check_create("b.ckm");
	check_write(fd, p, len, 0);
	CHECK(!is_found(&access, pool, what, sizeof what));
	CHECK_STR(what, "");
	section = get_le64(p + 40);
	trailer = len - PREP_CKM_TRAILER_SIZE;
	signature = trailer - PREP_CKM_SIGNATURE_SIZE;
	for (size_t i = 0; i < len; i += i < PREP_CKM_LEAD_SIZE || i >= section ? 1 : 4999) {
		const struct prep_frame *frames = prep_ckm_index(ckm)->frame;
		const char *name = frame;

		while (i < section && i >= frames[number].off + frames[number].stored)
			number++;
		snprintf(frame, sizeof frame, "frame %u is damaged", number);
		if (i < 8)
			name = "not a CKM package";
		else if (i < PREP_CKM_LEAD_SIZE)
			name = "the lead";
		else if (i >= trailer)
			name = "the trailer";
		else if (i >= signature)
			name = "signature";
		else if (i >= section + PREP_CKM_HEADER_SIZE)
			name = "the index section is damaged";
		else if (i >= section + 8)
			name = "the header of the index section";
		else if (i >= section)
			name = "not a CKM index";
		p[i] ^= (unsigned char)(1u << i % 8);
		check_write(fd, p + i, 1, i);
		if (!is_found(&access, pool, what, sizeof what) || strstr(what, name) == NULL)
			CHECK_FAIL("byte %zu of %zu, section at %" PRIu64 ": \"%s\", not \"%s\"", i, len, section, what, name);
		p[i] ^= (unsigned char)(1u << i % 8);
		check_write(fd, p + i, 1, i);
	}
	close(fd);
	prep_ckm_close(ckm);
	prep_seal_free(seal);
	EVP_PKEY_free(how.sign);
	EVP_PKEY_free(key);
	prep_pool_close(pool);
	free(key_file);
	free(p);
}

static void cut_off_anywhere_is_found(void)
{
	const struct how how = { .codec = PREP_CODEC_ZSTD, .threads = 1 };
	struct prep_pool *pool;
	struct prep_err err;
	unsigned char *p;
	char what[600];
	size_t len;
	int fd;

	fill_disk(37);
	CHECK_DONE(pack_disk(check_path("a.ckm"), &how, &err));
	CHECK_DONE(prep_pool_open(1, &pool, &err));
	p = check_read(check_path("a.ckm"), &len);
	fd = check_create("b.ckm");
	check_write(fd, p, len, 0);
	check_write(fd, "", 1, len);
	for (size_t n = len + 1;; n -= n < 200 || n + 3000 > len ? 1 : prep_min(3001, n - 199)) {
		CHECK(ftruncate(fd, (off_t)n) == 0);
		if (n != len && !is_found(&nothing, pool, what, sizeof what))
			CHECK_FAIL("%zu bytes of %zu: \"%s\"", n, len, what);
		if (n == 0)
			break;
	}
	close(fd);
	prep_pool_close(pool);
	free(p);
}

/* Frames are bound to their place and package even where digests were made to agree: by the seal. */
static void the_error_names_the_frame(void)
{
	const struct how how = { .codec = PREP_CODEC_STORE, .threads = 1 };
	struct prep_verify_report v;
	struct prep_pool *pool;
	struct prep_ckm *ckm;
	struct prep_err err;
	const struct prep_frame *f;
	unsigned char *p, *a, *b;
	size_t len;
	int fd;

	fill_disk(38);
	CHECK_DONE(pack_disk(check_path("a.ckm"), &how, &err));
	CHECK_DONE(prep_ckm_open(check_path("a.ckm"), &nothing, &ckm, &err));
	CHECK(prep_ckm_index(ckm)->frames >= 2);
	f = prep_ckm_index(ckm)->frame;
	p = check_read(check_path("a.ckm"), &len);
	/* The same number of bytes of two frames change places. */
	a = p + f[0].off;
	b = p + f[1].off;
	for (size_t i = 0; i < prep_min(f[0].stored, f[1].stored); i++) {
		const unsigned char was = a[i];

		a[i] = b[i];
		b[i] = was;
	}
	fd = open(check_path("a.ckm"), O_WRONLY | O_CLOEXEC);
	check_write(fd, p, len, 0);
	close(fd);
	CHECK_DONE(prep_pool_open(2, &pool, &err));
	CHECK_DONE(prep_verify(ckm, NULL, pool, &v, NULL, &err));
	CHECK_EQ(v.damaged, 2);
	CHECK(strstr(v.damage[0].what, "frame 0 is damaged") != NULL);
	CHECK(strstr(v.damage[1].what, "frame 1 is damaged") != NULL);
	CHECK(v.hit[0]);
	prep_verify_clear(&v);
	prep_ckm_close(ckm);
	prep_pool_close(pool);
	free(p);
}

/* ---- The frame cache ---- */

/* What is in a frame of a.ckm changes, or changes back. */
static void flip_frame(const struct prep_frame *f)
{
	const int fd = open(check_path("a.ckm"), O_RDWR | O_CLOEXEC);
	uint8_t byte;

	if (fd < 0 || pread(fd, &byte, 1, (off_t)f->off) != 1)
		abort();
	byte ^= 1;
	check_write(fd, &byte, 1, f->off);
	close(fd);
}

static void a_frame_is_unpacked_once_while_it_is_held_or_kept(void)
{
	const struct how how = { .codec = PREP_CODEC_ZSTD, .threads = 1 };
	struct prep_cached_frame *first, *again, *other;
	struct prep_frame_cache *c;
	const struct prep_frame *f;
	struct prep_ckm *ckm;
	struct prep_err err;

	fill_disk(39);
	CHECK_DONE(pack_disk(check_path("a.ckm"), &how, &err));
	CHECK_DONE(prep_ckm_open(check_path("a.ckm"), &nothing, &ckm, &err));
	f = prep_ckm_index(ckm)->frame;
	CHECK(prep_ckm_index(ckm)->frames >= 3);

	CHECK_DONE(prep_frame_cache_new(ckm, (uint64_t)f[1].size + f[2].size, &c, &err));
	CHECK_DONE(prep_frame_cache_get(c, 0, NULL, &first, &err));
	flip_frame(&f[0]);
	CHECK_DONE(prep_frame_cache_get(c, 0, NULL, &again, &err));
	CHECK(first == again);
	prep_frame_cache_put(again);
	prep_frame_cache_put(first);
	CHECK_DONE(prep_frame_cache_get(c, 0, NULL, &again, &err));
	CHECK(first == again);
	/* Held, it stays whatever comes. */
	for (uint32_t i = 1; i < 3; i++) {
		CHECK_DONE(prep_frame_cache_get(c, i, NULL, &other, &err));
		prep_frame_cache_put(other);
	}
	CHECK_DONE(prep_frame_cache_get(c, 0, NULL, &again, &err));
	CHECK(first == again);
	prep_frame_cache_put(again);
	prep_frame_cache_put(first);
	prep_frame_cache_free(c);

	CHECK_DONE(prep_frame_cache_new(ckm, 0, &c, &err));
	CHECK_FAILS(prep_frame_cache_get(c, 0, NULL, &first, &err), PREP_EDAMAGED, "frame 0 is damaged");
	flip_frame(&f[0]);
	CHECK_DONE(prep_frame_cache_get(c, 0, NULL, &first, &err));
	prep_frame_cache_put(first);
	flip_frame(&f[0]);
	CHECK_FAILS(prep_frame_cache_get(c, 0, NULL, &first, &err), PREP_EDAMAGED, "frame 0 is damaged");
	prep_frame_cache_free(c);
	prep_ckm_close(ckm);
}

struct cache_reader {
	pthread_t thread;
	struct prep_frame_cache *c;
	const struct prep_ckm_index *index;
	uint8_t *const *want; /* of each frame: its bytes */
	uint64_t seed;
	unsigned wrong;
};

static void *read_cache(void *arg)
{
	struct cache_reader *r = arg;

	for (unsigned i = 0; i < 200; i++) {
		struct prep_err err = PREP_ERR_INIT;
		struct prep_cached_frame *f;
		uint32_t number;

		r->seed = r->seed * 6364136223846793005u + 1442695040888963407u;
		number = (uint32_t)((r->seed >> 33) % r->index->frames);
		if (prep_frame_cache_get(r->c, number, NULL, &f, &err) != 1) {
			r->wrong++;
			continue;
		}
		r->wrong += memcmp(f->data, r->want[number], r->index->frame[number].size) != 0;
		prep_frame_cache_put(f);
	}
	return NULL;
}

static void threads_share_the_cache(void)
{
	const struct how how = { .codec = PREP_CODEC_ZSTD, .threads = 1 };
	struct cache_reader reader[4];
	const struct prep_ckm_index *in;
	struct prep_frame_cache *c;
	struct prep_ckm *ckm;
	struct prep_err err;
	uint8_t **want;

	fill_disk(40);
	CHECK_DONE(pack_disk(check_path("a.ckm"), &how, &err));
	CHECK_DONE(prep_ckm_open(check_path("a.ckm"), &nothing, &ckm, &err));
	in = prep_ckm_index(ckm);
	want = calloc(in->frames, sizeof *want);
	for (uint32_t i = 0; i < in->frames; i++) {
		uint8_t *stored = malloc(in->frame[i].stored);

		want[i] = malloc(in->frame[i].size);
		CHECK_DONE(prep_ckm_read_frame(ckm, i, stored, &err));
		CHECK_DONE(prep_ckm_decode_frame(ckm, i, stored, NULL, want[i], &err));
		free(stored);
	}
	CHECK_DONE(prep_frame_cache_new(ckm, in->frame[0].size, &c, &err));
	for (unsigned i = 0; i < 4; i++) {
		reader[i] = (struct cache_reader){ .c = c, .index = in, .want = want, .seed = i };
		CHECK_EQ(pthread_create(&reader[i].thread, NULL, read_cache, &reader[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(reader[i].thread, NULL);
		CHECK_EQ(reader[i].wrong, 0);
	}
	prep_frame_cache_free(c);
	for (uint32_t i = 0; i < in->frames; i++)
		free(want[i]);
	free(want);
	prep_ckm_close(ckm);
}

/* ---- Headers ---- */

static void unknown_versions_and_flags_are_refused(void)
{
	struct prep_ckm_header h = { .package_size = 10000, .body_len = 100, .index_len = 200 }, back;
	uint8_t p[PREP_CKM_HEADER_SIZE];
	struct prep_err err;

	h.section_len = PREP_CKM_HEADER_SIZE + 100 + PREP_DIGEST_SIZE;
	prep_ckm_header_encode(&h, p);
	CHECK_DONE(prep_ckm_header_decode(p, "it", &back, &err));
	CHECK(memcmp(&h, &back, sizeof h) == 0);
	/* What a reader may ignore it ignores. */
	h.compatible = 0x80000001;
	prep_ckm_header_encode(&h, p);
	CHECK_DONE(prep_ckm_header_decode(p, "it", &back, &err));
	h.required = PREP_CKM_PATCHES;
	prep_ckm_header_encode(&h, p);
	CHECK_DONE(prep_ckm_header_decode(p, "it", &back, &err));
	h.required = 1u << 30;
	prep_ckm_header_encode(&h, p);
	CHECK_FAILS(prep_ckm_header_decode(p, "it", &back, &err), PREP_EREFUSED, "flags 0x40000000");
	h.required = PREP_CKM_SEALED;
	prep_ckm_header_encode(&h, p);
	CHECK_FAILS(prep_ckm_header_decode(p, "it", &back, &err), PREP_EDAMAGED, "key slots");
	h.required = 0;
	h.section_len++;
	prep_ckm_header_encode(&h, p);
	CHECK_FAILS(prep_ckm_header_decode(p, "it", &back, &err), PREP_EDAMAGED, "lengths");
	h.section_len--;
	h.index_len = prep_ckm_index_max(h.body_len) + 1;
	prep_ckm_header_encode(&h, p);
	CHECK_FAILS(prep_ckm_header_decode(p, "it", &back, &err), PREP_EDAMAGED, "lengths");
	h.index_len--;
	prep_ckm_header_encode(&h, p);
	CHECK_DONE(prep_ckm_header_decode(p, "it", &back, &err));
	h.body_len = UINT64_MAX;
	prep_ckm_header_encode(&h, p);
	CHECK_FAILS(prep_ckm_header_decode(p, "it", &back, &err), PREP_EDAMAGED, "lengths");
	p[0] ^= 1;
	CHECK_FAILS(prep_ckm_header_decode(p, "it", &back, &err), PREP_EREFUSED, "not a CKM index");
}

int main(void)
{
	RUN(every_codec_packs_and_unpacks);
	RUN(the_same_bytes_whatever_the_threads);
	RUN(an_index_alone_opens);
	RUN(keys_open_sealed_packages);
	RUN(a_difference_leaves_out_what_the_base_holds);
	RUN(any_flipped_bit_is_found_and_named);
	RUN(cut_off_anywhere_is_found);
	RUN(the_error_names_the_frame);
	RUN(a_frame_is_unpacked_once_while_it_is_held_or_kept);
	RUN(threads_share_the_cache);
	RUN(unknown_versions_and_flags_are_refused);
	return check_result();
}
