/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the NTFS unit tests share: a populated volume, made once by mkntfs and
 * ntfs-populate in a temporary folder, an overlay over it for each test, and
 * ways to look at and damage its structures.
 */
#ifndef PREP_TESTS_UNIT_NTFS_FIXTURE_H
#define PREP_TESTS_UNIT_NTFS_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/overlay.h"
#include "libprep/disk/raw.h"
#include "libprep/volume/ntfs_dir.h"
#include "libprep/volume/ntfs_internal.h"

#define VOLUME_SIZE (64 * PREP_MIB)
#define CLUSTER 4096u

static const char manifest[] =
	"gen /dir/one.txt noise 20000 1\n"
	"gen /dir/two.txt noise 20000 2\n"
	"gen /single/only.txt noise 20000 3\n"
	"gen /noise.bin noise 100000 4\n"
	"gen /noise.bin:stream noise 30000 5\n"
	"link /dir/hard.txt /noise.bin\n"
	"gen /small.txt text 100 6\n"
	"gen \"/Long File Name Here.txt\" noise 9000 7\n"
	"short \"/Long File Name Here.txt\" LONGFI~1.TXT\n"
	"mkdir \"/Program Files\"\n"
	"short \"/Program Files\" PROGRA~1\n"
	"gen \"/Program Files/app/x.exe\" noise 5000 8\n"
	"fragment /fragments.bin 3000 noise 9\n"
	"compress /compressed.txt\n"
	"write /compressed.txt 0 text 200000 10\n"
	"sparse /sparse.bin 1000000\n"
	"write /sparse.bin 500000 noise 5000 11\n"
	"junction /junction C:\\\\dir\n"
	"reparse /wof.exe 80000017 noise 5000 12\n"
	"gen /tree/a/b/c/deep.txt noise 5000 13\n"
	"gen /tree/a/b/deep.txt noise 5000 14\n"
	"gen /tree/a/other.txt text 50 15\n"
	"gen /Ünïcode/ÄÖÜ.txt text 50 16\n"
	"usnjrnl 65536 17\n";
#define BIG_FILES 600 /* in /big */

static char work[PATH_MAX];
static char volume_path[PATH_MAX + 16];
static char populate_path[PATH_MAX + 32];
static struct prep_disk *base;

/* libntfs-3g leaks when a mount fails half-way, and inodes that it could not write. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libntfs-3g\n";
}

const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
	return "print_suppressions=0";
}

/* ---- Results ---- */

static const char *test;
static bool failed, any_failed;

static void check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline void check(bool ok, const char *fmt, ...)
{
	va_list ap;

	if (ok || failed)
		return;
	failed = any_failed = true;
	printf("not ok %s: ", test);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* ---- Making the volume ---- */

static inline bool run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static inline bool run(const char *fmt, ...)
{
	char command[4 * PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof command, fmt, ap);
	va_end(ap);
	return system(command) == 0;
}

static inline void remove_work(void)
{
	prep_disk_close(base);
	run("rm -rf '%s'", work);
}

/* The volume's disk, or NULL where a tool is missing, after saying so. */
static inline struct prep_disk *make_volume(const char *argv0)
{
	const char *tmp = getenv("TMPDIR");
	const char *slash = strrchr(argv0, '/');
	struct prep_err err = PREP_ERR_INIT;
	FILE *f;
	int fd;

	snprintf(populate_path, sizeof populate_path, "%.*s/../ntfs-populate", slash != NULL ? (int)(slash - argv0) : 1,
		 slash != NULL ? argv0 : ".");
	if (access(populate_path, X_OK) != 0)
		snprintf(populate_path, sizeof populate_path, "build/tests/ntfs-populate");
	if (access(populate_path, X_OK) != 0 || !run("command -v mkntfs >/dev/null 2>&1")) {
		printf("skip all: mkntfs or ntfs-populate is missing\n");
		return NULL;
	}
	snprintf(work, sizeof work, "%s/ntfs-test-XXXXXX", tmp != NULL ? tmp : "/tmp");
	if (mkdtemp(work) == NULL) {
		printf("not ok fixture: %s: %s\n", work, strerror(errno));
		exit(1);
	}
	snprintf(volume_path, sizeof volume_path, "%s/volume", work);
	if (!run("truncate -s %llu '%s' && mkntfs -q -Q -F -T -c %u -L Fixture '%s' >/dev/null 2>&1",
		 (unsigned long long)VOLUME_SIZE, volume_path, CLUSTER, volume_path))
		goto bad;
	{
		char command[3 * PATH_MAX];

		snprintf(command, sizeof command, "'%s' '%s'", populate_path, volume_path);
		f = popen(command, "w");
	}
	if (f == NULL)
		goto bad;
	fputs(manifest, f);
	for (int i = 0; i < BIG_FILES; i++)
		fprintf(f, "gen /big/file-number-%04d.dat text 40 %d\n", i, 100 + i);
	if (pclose(f) != 0)
		goto bad;
	fd = open(volume_path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || prep_raw_open(fd, "volume", VOLUME_SIZE, &base, &err) < 0)
		goto bad;
	atexit(remove_work);
	setlinebuf(stdout);
	return base;
bad:
	printf("not ok fixture: the volume cannot be made: %s\n", err.msg);
	exit(1);
}

/* ---- One test ---- */

static struct prep_disk *disk; /* the overlay of the test */

static inline void begin(const char *name)
{
	struct prep_err err = PREP_ERR_INIT;

	test = name;
	failed = false;
	if (prep_overlay_open(base, work, &disk, &err) < 0)
		check(false, "%s", err.msg);
}

static inline void end(void)
{
	prep_disk_close(disk);
	disk = NULL;
	if (!failed)
		printf("ok %s\n", test);
}

static inline struct prep_fs *open_fs(unsigned flags)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs *fs;

	if (prep_fs_open(disk, flags, &fs, &err) < 0) {
		printf("not ok %s: cannot open: %s\n", test, err.msg);
		exit(1);
	}
	return fs;
}

static inline void close_fs(struct prep_fs *fs)
{
	struct prep_err err = PREP_ERR_INIT;

	check(prep_fs_close(fs, &err) == 0, "cannot close: %s", err.msg);
}

static inline struct prep_fs_audit audit(void)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs_audit a;
	struct prep_fs *fs = open_fs(0);

	check(prep_fs_audit(fs, &a, NULL, &err) == 0, "audit: %s", err.msg);
	close_fs(fs);
	return a;
}

/* Whether some problem was noted in words that include `text`. */
static inline bool noted(const struct prep_fs_audit *a, const char *text)
{
	for (size_t i = 0; i < a->problems.n; i++)
		if (strstr(a->problems.text[i], text) != NULL)
			return true;
	return false;
}

static inline void show_audit(const struct prep_fs_audit *a)
{
	for (size_t i = 0; i < a->problems.n; i++)
		printf("# %s\n", a->problems.text[i]);
}

/* ---- Looking at structures ---- */

/* All that a pattern finds. The caller clears it. */
static inline struct prep_fs_list find(const char *pattern, bool recursive)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs_list list = { .n = 0 };
	struct prep_fs *fs = open_fs(0);

	check(prep_fs_find(fs, pattern, recursive, &list, &err) == 0, "%s: %s", pattern, err.msg);
	close_fs(fs);
	return list;
}

/* The one entry that the pattern finds. */
static inline struct prep_fs_entry look_up(const char *pattern)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs_list list = { .n = 0 };
	struct prep_fs_entry e = { .id = 0 };
	struct prep_fs *fs = open_fs(0);

	check(prep_fs_find(fs, pattern, false, &list, &err) == 0, "%s: %s", pattern, err.msg);
	check(list.n == 1, "%s: %zu found", pattern, list.n);
	if (list.n > 0)
		e = list.entry[0];
	e.path = NULL;
	prep_fs_list_clear(&list);
	close_fs(fs);
	return e;
}

static inline uint64_t record_of(const char *pattern)
{
	return PREP_NTFS_NUMBER(look_up(pattern).id);
}

/* Where byte `off` of a stream stands on the disk. */
static inline uint64_t stream_offset(uint64_t record, uint32_t type, const char *name, uint64_t off)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs *fs = open_fs(0);
	struct prep_ntfs *n = (struct prep_ntfs *)fs;
	struct prep_ntfs_mft m;
	struct prep_ntfs_file f;
	struct prep_ntfs_attr a;
	struct prep_ntfs_runs runs;
	uint64_t at = 0;

	check(prep_ntfs_mft_open(&m, n, &err) == 0 && prep_ntfs_file_load(&m, record, &f, &err) == 0 &&
		      prep_ntfs_file_find(n, &f, type, name, &a, &runs, &err) == 1 && !a.resident,
	      "no stream in record %llu: %s", (unsigned long long)record, err.msg);
	for (size_t i = 0; !failed && i < runs.n; i++)
		if (off / CLUSTER >= runs.run[i].vcn && off / CLUSTER < runs.run[i].vcn + runs.run[i].len)
			at = (runs.run[i].lcn - runs.run[i].vcn) * CLUSTER + off;
	prep_ntfs_runs_clear(&runs);
	prep_ntfs_file_clear(&f);
	prep_ntfs_mft_close(&m);
	close_fs(fs);
	return at;
}

static inline uint64_t record_offset(uint64_t record)
{
	return stream_offset(PREP_NTFS_MFT, PREP_NTFS_ATTR_DATA, "", record * 1024);
}

static inline void read_at(uint64_t off, void *buf, size_t len)
{
	struct prep_err err = PREP_ERR_INIT;

	check(prep_disk_read(disk, buf, len, off, &err) == 0, "%s", err.msg);
}

static inline void write_at(uint64_t off, const void *buf, size_t len)
{
	struct prep_err err = PREP_ERR_INIT;

	check(prep_disk_write(disk, buf, len, off, &err) == 0, "%s", err.msg);
}

static inline void flip_bit(uint64_t off, uint64_t bit)
{
	uint8_t b;

	read_at(off + bit / 8, &b, 1);
	b ^= (uint8_t)(1u << (bit & 7));
	write_at(off + bit / 8, &b, 1);
}

/* A record or index block of `size` bytes, its update sequence undone; put_block() does it again. */
static inline void get_block(uint64_t off, uint8_t *p, size_t size, const char *magic)
{
	read_at(off, p, size);
	check(prep_ntfs_fixup(p, size, magic), "no %s at %llu", magic, (unsigned long long)off);
}

static inline void put_block(uint64_t off, uint8_t *p, size_t size)
{
	uint8_t *usa = p + get_le16(p + 4);

	for (size_t i = 1; i <= size / 512; i++) {
		memcpy(usa + 2 * i, p + 512 * i - 2, 2);
		memcpy(p + 512 * i - 2, usa, 2);
	}
	write_at(off, p, size);
}

/* The attribute of this type and instance number `skip` of its kind in a record: its offset. */
static inline uint32_t attr_offset(const uint8_t *record, uint32_t type, unsigned skip)
{
	uint32_t at = get_le16(record + 20);

	while (at < 1000 && get_le32(record + at) != 0xffffffff) {
		if (get_le32(record + at) == type && skip-- == 0)
			return at;
		at += get_le32(record + at + 4);
	}
	check(false, "no attribute %x", type);
	return get_le16(record + 20);
}

#endif
