/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Zeroing free space on a small NTFS of mkntfs -Q, which leaves what was on
 * the disk before: noise here, so that every byte that is zeroed, and every
 * byte that is not, is seen. tests/vhd-zerofree.bats has the larger volumes.
 */
#include "libprep/prep/zerofree.h"

#include <sys/wait.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/overlay.h"
#include "libprep/prep/scan.h"
#include "tests/unit/check.h"

#define SIZE (8u << 20)

static struct prep_err err;
static struct prep_disk *disk, *overlay;
static struct prep_volumes *volumes;
static unsigned char *before, *after;

static int make_ntfs(const char *path)
{
	unsigned char *p = malloc(SIZE);
	const int fd = check_create("ntfs");
	int status;
	pid_t pid;

	check_seed = 80;
	check_noise(p, SIZE);
	check_write(fd, p, SIZE, 0);
	close(fd);
	free(p);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		const int null = open("/dev/null", O_WRONLY);

		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		setenv("PATH", "/usr/sbin:/sbin:/usr/bin:/bin", 1);
		execlp("mkntfs", "mkntfs", "-F", "-Q", "-q", "-c", "4096", path, (char *)NULL);
		_exit(127);
	}
	return waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -1;
}

static void begin(void)
{
	before = malloc(SIZE);
	after = malloc(SIZE);
	if (prep_disk_open(check_path("ntfs"), 0, &disk, &err) < 0 ||
	    prep_overlay_open(disk, check_dir(), &overlay, &err) < 0 ||
	    prep_volumes_open(disk, &volumes, &err) < 0 || prep_disk_read(disk, before, SIZE, 0, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		exit(1);
	}
}

static void end(void)
{
	prep_volumes_close(volumes);
	prep_disk_close(overlay);
	prep_disk_close(disk);
	free(before);
	free(after);
}

/* Where $Bitmap's data stands: its record is the sixth after the one that the boot sector names, its data in one run. */
static uint64_t bitmap_offset(void)
{
	const unsigned char *record = before + get_le64(before + 0x30) * 4096 + 6 * 1024, *run;
	uint32_t at = get_le16(record + 20);
	uint64_t lcn = 0;

	while (get_le32(record + at) != 0x80)
		at += get_le32(record + at + 4);
	run = record + at + get_le16(record + at + 32);
	for (unsigned i = run[0] >> 4; i > 0; i--)
		lcn = lcn << 8 | run[(run[0] & 15) + i];
	return lcn * 4096;
}

static bool cluster_used(uint64_t lcn)
{
	return prep_bit_get(before + bitmap_offset(), lcn);
}

static void zeroes_what_is_free_and_nothing_else(void)
{
	const struct prep_zerofree how = { .volume = 0 };
	struct prep_zerofree_report report;
	uint64_t free_clusters = 0, nonzero;

	begin();
	CHECK_DONE(prep_zerofree(volumes, overlay, &how, &report, NULL, &err));
	CHECK_DONE(prep_disk_read(overlay, after, SIZE, 0, &err));
	CHECK_EQ(report.n, 1);
	CHECK(report.volume[0].done && report.volume[0].kind == PREP_FS_NTFS);
	CHECK_EQ(report.volume[0].size, SIZE);
	for (uint64_t lcn = 0; lcn < SIZE / 4096 - 1; lcn++) {
		const unsigned char *a = after + lcn * 4096;

		if (cluster_used(lcn)) {
			CHECK(memcmp(a, before + lcn * 4096, 4096) == 0);
		} else {
			CHECK(prep_is_zero(a, 4096));
			free_clusters++;
		}
	}
	/* behind the last whole cluster stands the backup boot sector */
	CHECK(memcmp(after + SIZE - 4096, before + SIZE - 4096, 4096) == 0);
	CHECK_EQ(report.volume[0].free, free_clusters * 4096);
	CHECK_EQ(report.volume[0].slack, 0);
	CHECK_EQ(report.volume[0].log, 0);
	CHECK_EQ(report.volume[0].used_unclaimed, 0);
	/* all of it was noise */
	CHECK_DONE(prep_scan_fills(overlay, &nonzero, NULL, &err));
	CHECK_EQ(nonzero, free_clusters * 4096);
	/* only fills: nothing of the free space was read into memory */
	CHECK_EQ(prep_overlay_page_bytes(overlay), 0);
	end();
}

static void log_to_ones(void)
{
	const struct prep_zerofree how = { .log = true, .keep_slack = true };
	struct prep_zerofree_report report;
	uint64_t ones = 0;

	begin();
	CHECK_DONE(prep_zerofree(volumes, overlay, &how, &report, NULL, &err));
	CHECK_DONE(prep_disk_read(overlay, after, SIZE, 0, &err));
	for (uint64_t lcn = 0; lcn < SIZE / 4096; lcn++) {
		bool all = true;

		for (unsigned i = 0; i < 4096; i++)
			all &= after[lcn * 4096 + i] == 0xFF;
		ones += all ? 4096 : 0;
	}
	CHECK(report.volume[0].log > 0);
	CHECK_EQ(ones, report.volume[0].log);
	end();
}

static void one_volume_alone(void)
{
	struct prep_zerofree how = { .volume = 2 };
	struct prep_zerofree_report report;
	struct prep_overlay_change c;

	begin();
	CHECK_FAILS(prep_zerofree(volumes, overlay, &how, &report, NULL, &err), PREP_EUSAGE, "no volume 2");
	CHECK_EQ(prep_overlay_change(overlay, 0, &c, &err), 0);
	how.volume = 1;
	CHECK_DONE(prep_zerofree(volumes, overlay, &how, &report, NULL, &err));
	end();
}

static void a_lost_bit_is_damage(void)
{
	const struct prep_zerofree how = { .volume = 0 };
	struct prep_zerofree_report report;
	unsigned char byte;
	uint64_t at, mft;
	int fd;

	/* the first cluster of $MFT, marked free */
	begin();
	mft = get_le64(before + 0x30);
	at = bitmap_offset() + mft / 8;
	byte = before[at] & (unsigned char)~(1u << mft % 8);
	fd = open(check_path("ntfs"), O_RDWR);
	check_write(fd, &byte, 1, at);
	close(fd);
	end();
	begin();
	CHECK_FAILS(prep_zerofree(volumes, overlay, &how, &report, NULL, &err), PREP_EDAMAGED, "marked free");
	CHECK(strstr(err.msg, "cluster") != NULL);
	end();
}

int main(void)
{
	if (make_ntfs(check_path("ntfs")) < 0) {
		printf("skip zerofree: mkntfs is not installed\n");
		return 0;
	}
	RUN(zeroes_what_is_free_and_nothing_else);
	RUN(log_to_ones);
	RUN(one_volume_alone);
	RUN(a_lost_bit_is_damage);
	return check_result();
}
