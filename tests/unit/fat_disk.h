/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the unit tests of FAT and exFAT share: an image in memory as a disk,
 * file systems on it opened, audited, walked and searched, and mutations.
 */
#ifndef TESTS_UNIT_FAT_DISK_H
#define TESTS_UNIT_FAT_DISK_H

#include "libprep/disk/disk.h"
#include "libprep/volume/fs.h"
#include "tests/unit/check.h"
#include "tests/unit/fat_image.h"

static struct fat_image im;
static struct prep_disk disk;
static struct prep_err err;

static int memory_read(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *e)
{
	(void)d;
	(void)e;
	memcpy(buf, im.p + off, len);
	return 0;
}

static int memory_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off, struct prep_err *e)
{
	(void)d;
	(void)e;
	memcpy(im.p + off, buf, len);
	return 0;
}

static const struct prep_disk_ops memory_ops = {
	.kind = "memory", .read = memory_read, .write = memory_write,
};

static char disk_name[] = "disk";

/* The image is made: show it. */
__attribute__((unused))
static void use_image(void)
{
	disk = (struct prep_disk){ .ops = &memory_ops, .name = disk_name, .size = im.size, .sector_size = 512 };
}

__attribute__((unused))
static void drop_image(void)
{
	free(im.p);
	im.p = NULL;
}

/* Open, audit, close. The audit is to be cleared. */
__attribute__((unused))
static int audit_image(struct prep_fs_audit *a, struct prep_err *e)
{
	struct prep_fs *fs;
	int r;

	if (prep_fs_open(&disk, 0, &fs, e) < 0)
		return -1;
	r = prep_fs_audit(fs, a, NULL, e);
	if (prep_fs_close(fs, e) < 0)
		r = -1;
	return r;
}

__attribute__((unused))
static bool has_note(const struct prep_fs_audit *a, const char *text)
{
	for (size_t i = 0; i < a->problems.n; i++)
		if (strstr(a->problems.text[i], text) != NULL)
			return true;
	return false;
}

/* ---- Walks ---- */

struct seen {
	unsigned streams, wrong;
	uint64_t bytes, slack;
	char paths[4096];
};

/* Read a stream by its runs, and compare it with what the image was filled with. */
static int see_stream(void *arg, const struct prep_fs_stream *s, struct prep_err *e)
{
	struct seen *seen = arg;
	uint64_t at = 0;

	(void)e;
	seen->streams++;
	seen->bytes += s->size;
	seen->slack += s->allocated - s->size;
	if (!s->data || s->system || s->name[0] != '\0' || s->runs == 0 || s->allocated % im.cluster_size != 0)
		seen->wrong++;
	for (size_t i = 0; i < s->runs; i++) {
		const uint32_t first = (uint32_t)((s->run[0].off - im.data_off) / im.cluster_size + 2);

		if (s->run[i].at != at || s->run[i].off + s->run[i].len > im.size)
			seen->wrong++;
		for (uint64_t j = 0; j < s->run[i].len; j++, at++)
			if (im.p[s->run[i].off + j] !=
			    (at < s->initialized ? (uint8_t)(1 + (first * 7 + at) % 251) : 0xee))
				seen->wrong++;
	}
	if (at != s->allocated)
		seen->wrong++;
	if (s->path != NULL && strlen(seen->paths) + strlen(s->path) + 2 < sizeof seen->paths) {
		strcat(seen->paths, s->path);
		strcat(seen->paths, "\n");
	}
	return 0;
}

/* ---- Searches ---- */

/* What a pattern finds, one path a line in the order of the list, with '/' behind folders. */
__attribute__((unused))
static const char *find_paths(const char *pattern, bool recursive)
{
	static char text[8192];
	struct prep_fs_list list = { NULL, 0, 0 };
	struct prep_fs *fs;

	text[0] = '\0';
	err = (struct prep_err)PREP_ERR_INIT;
	if (prep_fs_open(&disk, 0, &fs, &err) < 0)
		return err.msg;
	if (prep_fs_find(fs, pattern, recursive, &list, &err) < 0)
		snprintf(text, sizeof text, "%s", err.msg);
	for (size_t i = 0; i < list.n && err.code == PREP_DONE; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s\n", list.entry[i].path,
			 list.entry[i].folder ? "/" : "");
	prep_fs_list_clear(&list);
	prep_fs_close(fs, &err);
	return text;
}

/* Find and remove. */
__attribute__((unused))
static int remove_paths(const char *pattern, bool recursive, unsigned flags, struct prep_err *e)
{
	struct prep_fs_list list = { NULL, 0, 0 };
	struct prep_fs *fs;
	int r;

	if (prep_fs_open(&disk, PREP_FS_WRITE | flags, &fs, e) < 0)
		return -1;
	r = prep_fs_find(fs, pattern, recursive, &list, e);
	for (size_t i = 0; i < list.n && r == 0; i++)
		r = prep_fs_remove(fs, &list.entry[i], e);
	prep_fs_list_clear(&list);
	if (prep_fs_close(fs, e) < 0)
		r = -1;
	return r;
}

/* ---- Mutations ---- */

static int ignore_stream(void *arg, const struct prep_fs_stream *s, struct prep_err *e)
{
	uint64_t *end = arg;

	(void)e;
	for (size_t i = 0; i < s->runs; i++)
		if (s->run[i].off + s->run[i].len > *end)
			return prep_fail(e, PREP_EUSAGE, "a run outside the volume");
	return 0;
}

/* All that reads, then a removal of everything, on whatever the image is now. False: it went out of bounds. */
static bool exercise(bool also_remove)
{
	struct prep_err e = PREP_ERR_INIT, ignored = PREP_ERR_INIT;
	struct prep_fs_list list = { NULL, 0, 0 };
	struct prep_fs_audit a;
	struct prep_fs *fs;
	bool inside = true;

	if (prep_fs_open(&disk, also_remove ? PREP_FS_WRITE : 0, &fs, &e) < 0)
		return e.code == PREP_EDAMAGED || e.code == PREP_EREFUSED;
	if (prep_fs_audit(fs, &a, NULL, &e) == 0) {
		if (a.clusters * prep_fs_info(fs)->cluster_size + prep_fs_info(fs)->clusters_off > disk.size ||
		    a.used + a.free > a.clusters)
			inside = false;
		prep_fs_audit_clear(&a);
	} else if (e.code != PREP_EDAMAGED) {
		inside = false;
	}
	e = (struct prep_err)PREP_ERR_INIT;
	if (prep_fs_walk(fs, PREP_FS_WALK_PATHS, ignore_stream, &disk.size, &e) < 0 && e.code != PREP_EDAMAGED)
		inside = false;
	e = (struct prep_err)PREP_ERR_INIT;
	if (prep_fs_find(fs, "/*", true, &list, &e) < 0 && e.code != PREP_EDAMAGED)
		inside = false;
	for (size_t i = 0; also_remove && i < list.n; i++)
		if (prep_fs_remove(fs, &list.entry[i], &ignored) < 0)
			break;
	prep_fs_list_clear(&list);
	prep_fs_close(fs, &ignored);
	return inside;
}

/* How often, unless the environment says so: FUZZ_ROUNDS. */
static unsigned fuzz_rounds(unsigned rounds)
{
	const char *text = getenv("FUZZ_ROUNDS");

	return text != NULL ? (unsigned)strtoul(text, NULL, 10) : rounds;
}

/*
 * Change up to eight bytes, mostly of what is no file's data, and read; every
 * fourth time remove all there is. `seal` makes checksums right again, so that
 * what is behind them is reached too.
 */
__attribute__((unused))
static void fuzz_image(unsigned rounds, uint64_t seed, void (*seal)(struct fat_image *im))
{
	uint8_t *const clean = malloc(im.size);

	check_seed = seed;
	memcpy(clean, im.p, im.size);
	for (unsigned i = 0; i < fuzz_rounds(rounds); i++) {
		const uint64_t meta = im.data_off + 8 * (uint64_t)im.cluster_size;
		const uint64_t n = 1 + check_random(8);

		for (uint64_t j = 0; j < n; j++) {
			const uint64_t off = check_random(4) == 0 ? check_random(im.size)
						: check_random(3) == 0 ? check_random(128) : check_random(meta);
			static const uint8_t nasty[] = { 0x00, 0x01, 0x02, 0x7f, 0x80, 0xe5, 0xf7, 0xff };

			im.p[off] = check_random(2) == 0 ? nasty[check_random(sizeof nasty)] : (uint8_t)check_random(256);
		}
		if (seal != NULL && check_random(2) == 0)
			seal(&im);
		if (!exercise(i % 4 == 0)) {
			free(clean);
			CHECK_FAIL("round %u: out of bounds, or a wrong kind of failure", i);
		}
		memcpy(im.p, clean, im.size);
	}
	free(clean);
}

#endif
