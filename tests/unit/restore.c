/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Restoring: the disk comes back in every format, from frames, seeds, both,
 * and from what an earlier try left, whatever that was.
 */
#include "libprep/trim/restore.h"

#include <sys/stat.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/ckm/pack.h"
#include "libprep/disk/disk.h"
#include "libprep/trim/target.h"
#include "tests/unit/check.h"

#define DISK_SIZE (9 * PREP_MIB + 512) /* the last block is a short one */
#define BLOCK (512u << 10)
#define FRAME (256u << 10)

static struct prep_err err;
static unsigned char *guest; /* what the disk holds */

/* Data here and there, some of it twice, some by halves of pages, zeros between. */
static void make_disk(void)
{
	const int fd = check_create("disk");

	free(guest);
	guest = calloc(1, DISK_SIZE);
	check_seed = 11;
	check_noise(guest + 300, 700000);
	check_noise(guest + 3 * PREP_MIB - 1000, 200000);
	memcpy(guest + 5 * PREP_MIB, guest + 65536, 400000);
	check_noise(guest + 6 * PREP_MIB + 100, 1);
	check_noise(guest + DISK_SIZE - 512, 512);
	check_write(fd, guest, DISK_SIZE, 0);
	close(fd);
}

/* Pack that disk, as a fixed VHD would be, unless `difference`: then without what `base` holds. */
static void make_package(const char *name, const struct prep_ckm_index *base)
{
	struct prep_pack_how how = { .codec = PREP_CODEC_ZSTD, .level = 1 };
	struct prep_chunk_table *table = NULL;
	const struct prep_plan_how plan_how = { .frame_size = FRAME, .base = &table, .bases = base != NULL,
						.difference = base != NULL };
	struct prep_pack_report report;
	struct prep_survey survey;
	struct prep_export same;
	struct prep_plan plan;
	struct prep_disk *d;
	struct prep_pool *pool;
	struct prep_output *out;

	if (base != NULL)
		CHECK_DONE(prep_chunk_table_new(base, &table, &err));
	CHECK_DONE(prep_disk_open(check_path("disk"), 0, &d, &err));
	CHECK_DONE(prep_pool_open(2, &pool, &err));
	CHECK_DONE(prep_survey_make(d, pool, &survey, NULL, &err));
	CHECK_DONE(prep_plan_make(&survey, &plan_how, &plan, &err));
	CHECK_DONE(prep_export_same(d, 0, &same, &err));
	plan.index.disk_size = d->size;
	plan.index.disk_type = PREP_VHD_DYNAMIC;
	plan.index.block_size = BLOCK;
	plan.index.identity = same.identity;
	strcpy(plan.index.name, "test");
	CHECK_DONE(prep_output_open(check_path(name), true, &out, &err));
	CHECK_DONE(prep_pack(&survey, &plan, &how, pool, out, NULL, &report, NULL, &err));
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
	prep_plan_clear(&plan);
	prep_survey_clear(&survey);
	prep_pool_close(pool);
	prep_disk_close(d);
	prep_chunk_table_free(table);
}

/* Whether an image, opened by the library, is the disk. */
static bool is_disk(const char *path)
{
	unsigned char *p = malloc(DISK_SIZE);
	struct prep_disk *d;
	bool same;

	if (prep_disk_open(path, 0, &d, &err) < 0) {
		free(p);
		return false;
	}
	same = d->size == DISK_SIZE && prep_disk_read(d, p, DISK_SIZE, 0, &err) == 0 &&
	       memcmp(p, guest, DISK_SIZE) == 0;
	prep_disk_close(d);
	free(p);
	return same;
}

/* One restore: what it works on, and with. */
struct job {
	struct prep_ckm *package;
	struct prep_supply supply;
	struct prep_seed *seed[4];
	size_t seeds;
	struct prep_package_source ps;
	struct prep_frame_source source;
	struct prep_export how;
	struct prep_restore restore;
	struct prep_restore_report report;
};

static void start(struct job *j, const char *package)
{
	static const struct prep_ckm_access none;

	memset(j, 0, sizeof *j);
	CHECK_DONE(prep_ckm_open(check_path(package), &none, &j->package, &err));
	CHECK_DONE(prep_supply_new(prep_ckm_index(j->package), &j->supply, &err));
	CHECK_DONE(prep_target_choose(prep_ckm_index(j->package), -1, "it", &j->how, &err));
	prep_package_source(j->package, &j->ps, &j->source);
	j->restore = (struct prep_restore){
		.package = j->package, .supply = &j->supply, .seed = j->seed, .source = &j->source, .how = &j->how,
		.jobs = 2,
	};
}

static void add_seed(struct job *j, const char *path)
{
	static const struct prep_ckm_access none;
	const struct prep_seed_how how = { .jobs = 1, .access = &none };

	CHECK_DONE(prep_seed_open(path, &how, &j->seed[j->seeds], NULL, &err));
	CHECK_DONE(prep_supply_add(&j->supply, &j->seed[j->seeds++]->catalog, &err));
	j->restore.seeds = j->seeds;
}

static int restore(struct job *j, const char *path)
{
	int r;

	unlink(path);
	if (prep_output_open(path, false, &j->restore.out, &err) < 0)
		return -1;
	r = prep_restore(&j->restore, &j->report, NULL, &err);
	if (r == 0)
		r = prep_output_commit(j->restore.out, &err);
	prep_output_close(j->restore.out);
	return r;
}

static void end(struct job *j)
{
	prep_supply_clear(&j->supply);
	for (size_t i = 0; i < j->seeds; i++)
		prep_seed_close(j->seed[i]);
	prep_ckm_close(j->package);
}

static void formats(void)
{
	static const enum prep_format format[] = { PREP_FORMAT_DYNAMIC, PREP_FORMAT_FIXED, PREP_FORMAT_RAW };
	struct stat st;
	struct job j;

	make_disk();
	make_package("p.ckm", NULL);
	for (unsigned jobs = 1; jobs < 4; jobs += 2) {
		for (size_t i = 0; i < 3; i++) {
			start(&j, "p.ckm");
			CHECK_EQ(j.how.format, PREP_FORMAT_DYNAMIC);
			CHECK_EQ(j.how.block_size, BLOCK);
			j.how.format = format[i];
			j.restore.jobs = jobs;
			CHECK_DONE(restore(&j, check_path("out")));
			CHECK(is_disk(check_path("out")));
			CHECK_EQ(j.report.seed_chunks, 0);
			CHECK(j.report.frames > 2);
			CHECK(stat(check_path("out"), &st) == 0);
			CHECK_EQ(st.st_size, j.report.file_size);
			if (format[i] == PREP_FORMAT_DYNAMIC)
				CHECK_EQ(j.report.blocks, 7);
			/* zeros are holes */
			CHECK((uint64_t)st.st_blocks * 512 < 2 * PREP_MIB);
			CHECK(prep_target_estimate(prep_ckm_index(j.package), &j.how) >= (uint64_t)st.st_blocks * 512);
			end(&j);
		}
	}
}

static void from_seeds(void)
{
	struct job j;

	make_disk();
	make_package("p.ckm", NULL);
	/* the disk itself: no frame is needed */
	start(&j, "p.ckm");
	add_seed(&j, check_path("disk"));
	CHECK_DONE(restore(&j, check_path("out")));
	CHECK(is_disk(check_path("out")));
	CHECK_EQ(j.report.frames, 0);
	CHECK_EQ(j.report.seed_chunks, prep_ckm_index(j.package)->chunks);
	CHECK_EQ(j.supply.origin[0].got_chunks, j.report.seed_chunks);
	end(&j);
	/* another package */
	start(&j, "p.ckm");
	add_seed(&j, check_path("p.ckm"));
	CHECK_DONE(restore(&j, check_path("out")));
	CHECK(is_disk(check_path("out")));
	CHECK_EQ(j.report.frames, 0);
	end(&j);
}

static void seed_that_changed(void)
{
	unsigned char *p;
	struct job j;
	size_t len;
	int fd;

	make_disk();
	make_package("p.ckm", NULL);
	start(&j, "p.ckm");
	p = check_read(check_path("disk"), &len);
	fd = check_create("copy");
	check_write(fd, p, len, 0);
	add_seed(&j, check_path("copy"));
	/* every chunk of it becomes something else; then a second seed, that is right */
	for (size_t i = 0; i < len; i += 4096)
		check_write(fd, "\1\2\3", 3, i);
	CHECK_DONE(restore(&j, check_path("out")));
	CHECK(is_disk(check_path("out")));
	CHECK_EQ(j.report.bad_chunks, j.supply.origin[0].bad_chunks);
	CHECK(j.report.bad_chunks > 10);
	CHECK(j.report.frames > 2);
	end(&j);

	start(&j, "p.ckm");
	check_write(fd, p, len, 0);
	add_seed(&j, check_path("copy"));
	add_seed(&j, check_path("disk"));
	for (size_t i = 0; i < len / 2; i += 4096)
		check_write(fd, "\1\2\3", 3, i);
	CHECK_DONE(restore(&j, check_path("out")));
	CHECK(is_disk(check_path("out")));
	CHECK_EQ(j.report.frames, 0);
	CHECK(j.report.bad_chunks > 5);
	CHECK(j.supply.origin[0].got_chunks > 0 && j.supply.origin[1].got_chunks > 0);
	end(&j);
	close(fd);
	free(p);
}

static void difference(void)
{
	static const struct prep_ckm_access none;
	struct prep_ckm *base;
	struct job j;
	int fd;

	make_disk();
	make_package("p.ckm", NULL);
	CHECK_DONE(prep_ckm_open(check_path("p.ckm"), &none, &base, &err));
	/* a new version of the disk, of which the package has only what is new */
	fd = check_create("old");
	check_write(fd, guest, DISK_SIZE, 0);
	close(fd);
	check_noise(guest + PREP_MIB, 100000);
	fd = open(check_path("disk"), O_RDWR);
	check_write(fd, guest, DISK_SIZE, 0);
	close(fd);
	make_package("d.ckm", prep_ckm_index(base));
	prep_ckm_close(base);

	start(&j, "d.ckm");
	CHECK_FAILS(restore(&j, check_path("out")), PREP_EREFUSED, "difference package");
	CHECK(access(check_path("out"), F_OK) != 0);
	end(&j);
	start(&j, "d.ckm");
	add_seed(&j, check_path("old"));
	CHECK_DONE(restore(&j, check_path("out")));
	CHECK(is_disk(check_path("out")));
	CHECK(j.report.frames > 0 && j.report.seed_chunks > 0);
	end(&j);
	/* both packages, no image */
	start(&j, "d.ckm");
	add_seed(&j, check_path("p.ckm"));
	CHECK_DONE(restore(&j, check_path("out")));
	CHECK(is_disk(check_path("out")));
	end(&j);
}

/* ---- Seeds and frames at once ---- */

/* A slow source: what it has comes only when a seed has been read from. */
static struct {
	unsigned starts;
	_Atomic unsigned in_vain, handed_out;
	uint32_t wanted;  /* frames of all starts */
	uint8_t *seen;    /* of each frame of the index: it was handed out */
	bool twice;
} slow;

static int slow_start(void *arg, const struct prep_supply *supply, struct prep_err *e)
{
	struct job *j = arg;
	struct prep_package_source *const ps = &j->ps;
	struct prep_frame_source s;

	slow.starts++;
	slow.wanted += supply->frames;
	prep_package_source(j->package, ps, &s);
	return s.start(ps, supply, e);
}

static int slow_next(void *arg, struct prep_crew *crew, bool wait, uint8_t *buf, uint32_t *frame, struct prep_err *e)
{
	struct job *j = arg;
	struct prep_package_source other;
	struct prep_frame_source s;
	int r;

	if (!wait && atomic_fetch_add(&slow.in_vain, 1) == 0)
		return 0;
	prep_package_source(j->package, &other, &s);
	r = s.next(&j->ps, crew, wait, buf, frame, e);
	if (r == 1) {
		atomic_fetch_add(&slow.handed_out, 1);
		slow.twice |= slow.seen[*frame]++ > 0;
	}
	return r;
}

/* Half of what the seed promises has gone: it is fetched when the rest has been, each frame once. */
static void both_at_once(void)
{
	unsigned char *p;
	struct job j;
	size_t len;
	int fd;

	make_disk();
	make_package("p.ckm", NULL);
	p = check_read(check_path("disk"), &len);
	/* the last megabytes are not in the seed */
	memset(p + 5 * PREP_MIB + 300000, 0, len - 5 * PREP_MIB - 300000);
	check_noise(p + 6 * PREP_MIB, 8192);
	fd = check_create("copy");
	check_write(fd, p, len, 0);
	start(&j, "p.ckm");
	j.source = (struct prep_frame_source){ "fetching", slow_start, slow_next, j.source.done, j.source.bad, &j };
	j.restore.jobs = 1;
	memset(&slow, 0, sizeof slow);
	slow.seen = calloc(prep_ckm_index(j.package)->frames, 1);
	add_seed(&j, check_path("copy"));
	for (size_t i = 0; i < PREP_MIB / 3; i += 4096)
		check_write(fd, "\1\2\3", 3, i);
	CHECK_DONE(restore(&j, check_path("out")));
	CHECK(is_disk(check_path("out")));
	CHECK(j.report.seed_chunks > 5);
	CHECK(j.report.bad_chunks > 5);
	CHECK_EQ(slow.starts, 2);
	/* frames were asked for while there was something to read from the seed */
	CHECK(atomic_load(&slow.in_vain) > 0);
	CHECK_EQ(atomic_load(&slow.handed_out), slow.wanted);
	CHECK_EQ(j.report.frames, slow.wanted);
	CHECK(!slow.twice);
	end(&j);
	free(slow.seen);
	free(p);
	close(fd);
}

/* ---- A source that fails ---- */

static _Atomic unsigned refusals;

/* Hands out each frame with a bit flipped. */
static int flip_next(void *arg, struct prep_crew *crew, bool wait, uint8_t *buf, uint32_t *frame, struct prep_err *e)
{
	struct job *j = arg;
	struct prep_package_source other;
	struct prep_frame_source s;
	int r;

	prep_package_source(j->package, &other, &s);
	r = s.next(&j->ps, crew, wait, buf, frame, e);
	if (r == 1)
		buf[5] ^= 4;
	return r;
}

static int flip_bad(void *arg, uint32_t frame, const struct prep_err *why, struct prep_err *e)
{
	(void)arg;
	(void)frame;
	atomic_fetch_add(&refusals, 1);
	return prep_fail(e, why->code, "%s", why->msg);
}

static int flip_start(void *arg, const struct prep_supply *supply, struct prep_err *e)
{
	(void)e;
	((struct job *)arg)->ps.supply = supply;
	return 0;
}

static void damaged_frame(void)
{
	struct job j;

	make_disk();
	make_package("p.ckm", NULL);
	start(&j, "p.ckm");
	j.source = (struct prep_frame_source){ "unpacking", flip_start, flip_next, j.source.done, flip_bad, &j };
	CHECK_FAILS(restore(&j, check_path("out")), PREP_EDAMAGED, "frame");
	CHECK(atomic_load(&refusals) > 0);
	CHECK(access(check_path("out"), F_OK) != 0);
	end(&j);
}

/* ---- What an earlier try left ---- */

/* Go on with the file "part", and see that the disk comes of it. */
static void resume(enum prep_format format, uint64_t *resumed, uint64_t *frames)
{
	uint64_t size;
	struct job j;

	unlink(check_path("out"));
	start(&j, "p.ckm");
	j.how.format = format;
	j.restore.resume = true;
	CHECK_DONE(prep_output_open_part(check_path("out"), false, check_path("part"), &size, &j.restore.out, &err));
	CHECK_DONE(prep_restore(&j.restore, &j.report, NULL, &err));
	CHECK_DONE(prep_output_commit(j.restore.out, &err));
	prep_output_close(j.restore.out);
	CHECK(is_disk(check_path("out")));
	CHECK(access(check_path("part"), F_OK) != 0);
	*resumed = j.report.resumed_bytes;
	*frames = j.report.frames;
	end(&j);
}

static void resumed(void)
{
	static const enum prep_format format[] = { PREP_FORMAT_DYNAMIC, PREP_FORMAT_FIXED, PREP_FORMAT_RAW };
	uint64_t bytes, frames;
	unsigned char *whole, *noise = malloc(64 << 10);
	size_t len;
	int fd;

	make_disk();
	make_package("p.ckm", NULL);
	for (size_t i = 0; i < 3; i++) {
		/* nothing at all */
		unlink(check_path("part"));
		resume(format[i], &bytes, &frames);
		if (check_ended)
			return;
		CHECK_EQ(bytes, 0);
		CHECK(frames > 2);
		/* everything */
		whole = check_read(check_path("out"), &len);
		CHECK(rename(check_path("out"), check_path("part")) == 0);
		resume(format[i], &bytes, &frames);
		if (check_ended)
			return;
		CHECK_EQ(frames, 0);
		/* cut off anywhere, with noise anywhere: in data, in gaps, in tables, behind the end */
		for (unsigned n = 0; n < 12; n++) {
			fd = check_create("part");
			check_write(fd, whole, check_random(len), 0);
			for (unsigned k = 0; k < check_random(6); k++) {
				const size_t some = 1 + check_random(60000);

				check_noise(noise, some);
				check_write(fd, noise, some, check_random(len + 100000));
			}
			close(fd);
			resume(format[i], &bytes, &frames);
			if (check_ended)
				return;
		}
		free(whole);
	}
	free(noise);
}

int main(void)
{
	RUN(formats);
	RUN(from_seeds);
	RUN(seed_that_changed);
	RUN(difference);
	RUN(both_at_once);
	RUN(damaged_frame);
	RUN(resumed);
	free(guest);
	return check_result();
}
