/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Export: any kind of disk written as any format shows the guest the same
 * bytes, to a file and to a pipe the same file, and no larger than it must be.
 */
#include "libprep/disk/export.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include "libprep/disk/overlay.h"
#include "libprep/disk/raw.h"
#include "libprep/disk/vhd.h"
#include "libprep/disk/vhd_write.h"
#include "tests/unit/image.h"

#define BLOCK (512u * 1024)

static struct prep_err err;
static const uint32_t mixed[] = { 6, 0, 3, 1 };

/* A dynamic disk whose block 1 is zero, block 3 partly, block 6 in its first half. */
static void make_source(struct image *im, uint64_t size, uint32_t align)
{
	check_seed = 70;
	image_dynamic(im, size, BLOCK, mixed, 4, align);
	memset(im->guest + BLOCK, 0, BLOCK);
	memset(im->file + image_data(im, 1), 0, BLOCK);
	memset(im->guest + 3 * BLOCK + 100000, 0, 300000);
	memset(im->file + image_data(im, 3) + 100000, 0, 300000);
	memset(im->guest + 6 * BLOCK, 0, (size_t)prep_min(BLOCK / 2, size - 6 * BLOCK));
	memset(im->file + image_data(im, 6), 0, BLOCK / 2);
}

/* Through a pipe into a file: a process stands at its end. */
static int export_to_pipe(struct prep_disk *d, const struct prep_export *how, struct prep_export_report *report,
			  const char *path)
{
	struct prep_output *out;
	const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	char proc[64];
	int ends[2], r, status;
	pid_t pid;

	if (pipe(ends) != 0)
		return -1;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		static char buf[65536];
		ssize_t n;

		close(ends[1]);
		while ((n = read(ends[0], buf, sizeof buf)) > 0)
			if (write(fd, buf, (size_t)n) != n)
				_exit(1);
		_exit(0);
	}
	close(ends[0]);
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", ends[1]);
	r = prep_output_open(proc, false, &out, &err);
	if (r == 0)
		r = prep_export(d, out, how, report, NULL, &err);
	if (r == 0)
		r = prep_output_commit(out, &err);
	prep_output_close(out);
	close(ends[1]);
	close(fd);
	waitpid(pid, &status, 0);
	return r;
}

static bool same_files(const char *a, const char *b)
{
	size_t la, lb;
	unsigned char *pa = check_read(a, &la), *pb = check_read(b, &lb);
	const bool same = la == lb && memcmp(pa, pb, la) == 0;

	free(pa);
	free(pb);
	return same;
}

/* Write d as `how` says to a file and to a pipe, and look at what came. */
static void check_export(struct prep_disk *d, struct prep_export *how, const unsigned char *guest, uint64_t blocks)
{
	const char *path = check_path("out");
	struct prep_export_report report, piped;
	const struct prep_vhd_info *info;
	struct prep_output *out;
	struct prep_disk *result;
	uint64_t estimate;
	unsigned char *p = malloc((size_t)d->size);

	CHECK_DONE(prep_export_estimate(d, how, &estimate, NULL, &err));
	CHECK_DONE(prep_output_open(path, true, &out, &err));
	CHECK_DONE(prep_export(d, out, how, &report, NULL, &err));
	CHECK_DONE(prep_output_commit(out, &err));
	CHECK(prep_output_allocated(out) <= estimate);
	if (how->format == PREP_FORMAT_DYNAMIC)
		CHECK(prep_output_size(out) <= estimate);
	prep_output_close(out);
	CHECK_DONE(export_to_pipe(d, how, &piped, check_path("piped")));
	CHECK(same_files(path, check_path("piped")));
	CHECK_EQ(report.blocks, piped.blocks);
	CHECK(report.data <= d->size);

	CHECK_DONE(prep_disk_open(path, 0, &result, &err));
	CHECK_EQ(result->notes.n, 0);
	CHECK_EQ(result->size, d->size);
	CHECK_DONE(prep_disk_read(result, p, (size_t)d->size, 0, &err));
	CHECK(memcmp(p, guest, (size_t)d->size) == 0);
	info = prep_vhd_disk_info(result);
	CHECK((info == NULL) == (how->format == PREP_FORMAT_RAW));
	if (info != NULL) {
		CHECK_EQ(info->footer.type, how->format == PREP_FORMAT_FIXED ? PREP_VHD_FIXED : PREP_VHD_DYNAMIC);
		CHECK(memcmp(info->footer.id, how->identity.id, 16) == 0);
		CHECK_EQ(info->footer.time_stamp, how->identity.time_stamp);
	}
	if (how->format == PREP_FORMAT_DYNAMIC) {
		CHECK_EQ(info->header.block_size, how->block_size);
		CHECK_EQ(info->blocks_allocated, report.blocks);
		if (blocks != 0)
			CHECK_EQ(report.blocks, blocks);
	}
	prep_disk_close(result);
	free(p);
}

/* Blocks of the guest's bytes that are not all zero. */
static uint64_t count_blocks(const unsigned char *guest, uint64_t size, uint64_t block_size)
{
	uint64_t n = 0;

	for (uint64_t off = 0; off < size; off += block_size)
		n += !prep_is_zero(guest + off, (size_t)prep_min(block_size, size - off));
	return n;
}

static void check_formats(struct prep_disk *d, const unsigned char *guest)
{
	static const enum prep_format formats[] = { PREP_FORMAT_DYNAMIC, PREP_FORMAT_FIXED, PREP_FORMAT_RAW };
	struct prep_export how;

	for (int zeros = 0; zeros < 2; zeros++) {
		for (unsigned f = 0; f < 3; f++) {
			for (uint32_t bs = BLOCK; bs <= (f == 0 ? 4u << 20 : BLOCK); bs *= 2) {
				CHECK_DONE(prep_export_same(d, 5, &how, &err));
				how.format = formats[f];
				how.block_size = bs;
				how.find_zeros = zeros;
				check_export(d, &how, guest, zeros ? count_blocks(guest, d->size, bs) : 0);
				if (check_ended)
					return;
			}
		}
	}
}

static void from_dynamic(void)
{
	static const struct { uint64_t size; uint32_t align; } layout[] = {
		{ 7 * BLOCK, 512 }, { 7 * BLOCK, 4096 }, { 6 * BLOCK + 512, 512 }, { 7 * BLOCK - 1536, 4096 },
	};

	for (size_t i = 0; i < sizeof layout / sizeof layout[0]; i++) {
		struct prep_export how;
		struct prep_disk *d;
		struct image im;

		make_source(&im, layout[i].size, layout[i].align);
		CHECK_DONE(prep_disk_open(image_save(&im, "in.vhd", im.len), 0, &d, &err));
		CHECK_DONE(prep_export_same(d, 5, &how, &err));
		CHECK(how.format == PREP_FORMAT_DYNAMIC && how.block_size == BLOCK && !how.find_zeros);
		CHECK(memcmp(how.identity.id, "0123456789abcdef", 16) == 0);
		CHECK_EQ(how.identity.time_stamp, 0x12345678);
		check_formats(d, im.guest);
		prep_disk_close(d);
		image_free(&im);
		if (check_ended)
			return;
	}
}

static void from_fixed_and_raw(void)
{
	struct prep_export how;
	struct prep_disk *d;
	struct image im;

	check_seed = 71;
	image_fixed(&im, 5 * BLOCK + 512);
	memset(im.guest + BLOCK, 0, BLOCK + 70000);
	memcpy(im.file, im.guest, (size_t)im.size);
	CHECK_DONE(prep_disk_open(image_save(&im, "in.vhd", im.len), 0, &d, &err));
	CHECK_DONE(prep_export_same(d, 5, &how, &err));
	CHECK_EQ(how.format, PREP_FORMAT_FIXED);
	check_formats(d, im.guest);
	prep_disk_close(d);
	if (check_ended)
		return;
	CHECK_DONE(prep_disk_open(image_save(&im, "in.raw", (size_t)im.size), 0, &d, &err));
	CHECK_DONE(prep_export_same(d, 5, &how, &err));
	CHECK_EQ(how.format, PREP_FORMAT_RAW);
	CHECK_EQ(how.identity.time_stamp, 5);
	check_formats(d, im.guest);
	prep_disk_close(d);
	image_free(&im);
}

/* What is staged comes out merged with what it lies over; staged zeros leave blocks out without a look at them. */
static void from_overlay(void)
{
	struct prep_disk *d, *overlay;
	struct prep_export how;
	unsigned char p[20000];
	struct image im;

	make_source(&im, 6 * BLOCK + 512, 512);
	CHECK_DONE(prep_disk_open(image_save(&im, "in.vhd", im.len), 0, &d, &err));
	CHECK_DONE(prep_overlay_open(d, check_dir(), &overlay, &err));
	CHECK_DONE(prep_overlay_fill(overlay, 0, BLOCK, 0, &err));
	memset(im.guest, 0, BLOCK);
	CHECK_DONE(prep_overlay_fill(overlay, 3 * BLOCK + 777, 50000, 0, &err));
	memset(im.guest + 3 * BLOCK + 777, 0, 50000);
	check_noise(p, sizeof p);
	CHECK_DONE(prep_disk_write(overlay, p, sizeof p, 4 * BLOCK + 1000, &err));
	memcpy(im.guest + 4 * BLOCK + 1000, p, sizeof p);
	for (int zeros = 0; zeros < 2 && !check_ended; zeros++) {
		CHECK_DONE(prep_export_same(d, 0, &how, &err));
		how.find_zeros = zeros;
		/* without a look, the zero block 1 of the source stays, and block 6, whose one sector is zero */
		check_export(overlay, &how, im.guest, zeros ? count_blocks(im.guest, im.size, BLOCK) : 4);
	}
	prep_disk_close(overlay);
	prep_disk_close(d);
	image_free(&im);
}

static void zeros_become_holes(void)
{
	struct prep_export_report report;
	struct prep_export how;
	struct prep_output *out;
	struct prep_disk *d;
	struct stat st;
	struct image im;

	make_source(&im, 7 * BLOCK, 512);
	CHECK_DONE(prep_disk_open(image_save(&im, "in.vhd", im.len), 0, &d, &err));
	CHECK_DONE(prep_export_same(d, 0, &how, &err));
	how.find_zeros = true;
	CHECK_DONE(prep_output_open(check_path("holes"), true, &out, &err));
	CHECK_DONE(prep_export(d, out, &how, &report, NULL, &err));
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
	prep_disk_close(d);
	CHECK(stat(check_path("holes"), &st) == 0);
	CHECK_EQ(report.blocks, 3);
	CHECK(st.st_size < 3 * (BLOCK + 4096) + 8192);
	/* block 3 has 300000 zeros, block 6 a half */
	CHECK(report.data <= 3 * BLOCK - 290000 - BLOCK / 2);
	if (st.st_blocks * 512 >= st.st_size)
		CHECK_SKIP("the file system of $TMPDIR has no holes");
	CHECK((uint64_t)st.st_blocks * 512 <= report.data + 65536);
	image_free(&im);
}

static void too_large_for_a_vhd(void)
{
	struct prep_export_report report;
	struct prep_export how;
	struct prep_output *out;
	struct prep_disk *d;
	uint64_t estimate;
	const int fd = check_create("huge.raw");

	if (ftruncate(fd, (off_t)3 << 40) != 0)
		CHECK_SKIP("no files of 3 TiB here");
	CHECK_DONE(prep_raw_open(fd, "huge.raw", (uint64_t)3 << 40, &d, &err));
	CHECK_DONE(prep_export_same(d, 0, &how, &err));
	CHECK_DONE(prep_output_open(check_path("huge"), true, &out, &err));
	for (int i = 0; i < 2; i++) {
		how.format = i == 0 ? PREP_FORMAT_FIXED : PREP_FORMAT_DYNAMIC;
		CHECK_FAILS(prep_export(d, out, &how, &report, NULL, &err), PREP_EREFUSED, "2040 GiB");
		CHECK_EQ(prep_output_size(out), 0);
		CHECK_FAILS(prep_export_estimate(d, &how, &estimate, NULL, &err), PREP_EREFUSED, "2040 GiB");
	}
	prep_output_close(out);
	prep_disk_close(d);
	unlink(check_path("huge.raw"));
}

static int stop(void *arg, const char *what, uint64_t done, uint64_t total)
{
	unsigned *left = arg;

	(void)what;
	(void)done;
	(void)total;
	return --*left == 0;
}

static void stops_when_told(void)
{
	struct prep_export_report report;
	unsigned left = 2;
	const struct prep_progress progress = { stop, &left };
	struct prep_export how;
	struct prep_output *out;
	struct prep_disk *d;
	struct image im;

	make_source(&im, 7 * BLOCK, 512);
	CHECK_DONE(prep_disk_open(image_save(&im, "in.vhd", im.len), 0, &d, &err));
	CHECK_DONE(prep_export_same(d, 0, &how, &err));
	CHECK_DONE(prep_output_open(check_path("stopped"), false, &out, &err));
	CHECK_FAILS(prep_export(d, out, &how, &report, &progress, &err), PREP_EFAIL, "interrupted");
	prep_output_close(out);
	CHECK(access(check_path("stopped"), F_OK) != 0);
	prep_disk_close(d);
	image_free(&im);
}

int main(void)
{
	RUN(from_dynamic);
	RUN(from_fixed_and_raw);
	RUN(from_overlay);
	RUN(zeros_become_holes);
	RUN(too_large_for_a_vhd);
	RUN(stops_when_told);
	return check_result();
}
