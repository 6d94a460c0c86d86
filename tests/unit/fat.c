/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * FAT12, FAT16 and FAT32: reading, removing, and an audit that names every
 * kind of damage; on volumes made in memory by tests/unit/fat_image.h.
 */
#include "tests/unit/fat_disk.h"

static const unsigned widths[] = { 12, 16, 32 };
#define WIDTHS (sizeof widths / sizeof widths[0])

static void sample(unsigned bits)
{
	drop_image();
	fat_sample(&im, bits);
	use_image();
}

/* The short slot of a name in all of the image. */
static uint64_t slot_of(const char *shortname)
{
	for (uint64_t off = 0; off + SLOT <= im.size; off += SLOT)
		if (memcmp(im.p + off, shortname, 11) == 0 && im.p[off + 11] != 0x0f)
			return off;
	fprintf(stderr, "%s: not in the image\n", shortname);
	exit(1);
}

static uint32_t first_of(const char *shortname)
{
	return fat_first(&im, slot_of(shortname));
}

static void set_first(const char *shortname, uint32_t first)
{
	const uint64_t off = slot_of(shortname);

	put_le16(im.p + off + 20, (uint16_t)(first >> 16));
	put_le16(im.p + off + 26, (uint16_t)first);
}

/* ---- Sound volumes ---- */

static void expect_sound(unsigned files, unsigned folders)
{
	struct prep_fs_audit a;

	CHECK_DONE(audit_image(&a, &err));
	if (a.problems.n > 0)
		CHECK_FAIL("a problem: %s", a.problems.text[0]);
	CHECK(prep_fs_audit_clusters_sound(&a) && prep_fs_audit_records_sound(&a) && a.used_unclaimed == 0);
	CHECK_EQ(a.files, files);
	CHECK_EQ(a.folders, folders);
	CHECK_EQ(a.records, files + folders);
	CHECK_EQ(a.clusters, im.clusters);
	CHECK_EQ(a.free, fat_count_free(&im));
	CHECK_EQ(a.used + a.free, a.clusters);
	CHECK_EQ(a.bad, 1);
	for (uint32_t c = 2; c < im.clusters + 2; c++)
		if (prep_bit_get(a.free_map, c - 2) != (fat_get(&im, 0, c) == 0))
			CHECK_FAIL("cluster %u", c);
	prep_fs_audit_clear(&a);
}

static void test_sound(void)
{
	for (size_t i = 0; i < WIDTHS && !check_ended; i++) {
		sample(widths[i]);
		expect_sound(8, 3);
	}
}

static void test_info(void)
{
	for (size_t i = 0; i < WIDTHS; i++) {
		char version[8];
		struct prep_fs *fs;

		sample(widths[i]);
		snprintf(version, sizeof version, "%u", widths[i]);
		CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
		CHECK_STR(prep_fs_info(fs)->version, version);
		CHECK_STR(prep_fs_info(fs)->label, "SAMPLE");
		CHECK_EQ(prep_fs_info(fs)->kind, PREP_FS_FAT);
		CHECK_EQ(prep_fs_info(fs)->serial, 0x12345678);
		CHECK_EQ(prep_fs_info(fs)->clusters, im.clusters);
		CHECK_EQ(prep_fs_info(fs)->clusters_off, im.data_off);
		CHECK_EQ(prep_fs_info(fs)->cluster_size, im.cluster_size);
		CHECK_EQ(prep_fs_info(fs)->obstacles, 0);
		CHECK_DONE(prep_fs_close(fs, &err));
	}
}

/* Where FAT12 ends and FAT16 begins. */
static void test_width(void)
{
	static const struct { uint32_t clusters; unsigned bits; } row[] = { { 4084, 12 }, { 4085, 16 }, { 65524, 16 } };
	struct prep_fs *fs;

	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		char version[8];

		drop_image();
		fat_make(&im, row[i].bits, row[i].clusters, 1);
		use_image();
		snprintf(version, sizeof version, "%u", row[i].bits);
		CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
		CHECK_STR(prep_fs_info(fs)->version, version);
		CHECK_DONE(prep_fs_close(fs, &err));
	}
	drop_image();
	fat_make(&im, 16, 65525, 1);
	use_image();
	CHECK_FAILS(prep_fs_open(&disk, 0, &fs, &err), PREP_EDAMAGED, "number of clusters");
}

static void test_walk(void)
{
	static const char paths[] =
		"/WINDOWS/Temp/ONE.TMP\n/WINDOWS/Temp/~two.tmp with spaces\n/WINDOWS/Temp/a folder below/DEEP.DAT\n"
		"/WINDOWS/CAF\xc3\xa9.txt\n/A long name, of more than one slot.txt\n/PIECES.BIN\n/pagefile.sys\n";

	for (size_t i = 0; i < WIDTHS; i++) {
		struct seen seen = { .streams = 0 };
		struct prep_fs *fs;

		sample(widths[i]);
		CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
		CHECK_DONE(prep_fs_walk(fs, PREP_FS_WALK_PATHS, see_stream, &seen, &err));
		CHECK_DONE(prep_fs_close(fs, &err));
		CHECK_EQ(seen.streams, 7);
		CHECK_EQ(seen.wrong, 0);
		CHECK_EQ(seen.bytes, 5000 + 20000 + 30000 + 1000 + 2000 + 3000 + 10);
		CHECK_STR(seen.paths, paths);
	}
}

static int stop(void *arg, const struct prep_fs_stream *s, struct prep_err *e)
{
	++*(unsigned *)arg;
	return prep_fail(e, PREP_EFAIL, "stopped at %s", s->path == NULL ? "?" : s->path);
}

static void test_walk_stops(void)
{
	unsigned calls = 0;
	struct prep_fs *fs;

	sample(16);
	CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
	CHECK_FAILS(prep_fs_walk(fs, PREP_FS_WALK_DATA, stop, &calls, &err), PREP_EFAIL, "stopped at ?");
	CHECK_EQ(calls, 1);
	CHECK_DONE(prep_fs_close(fs, &(struct prep_err)PREP_ERR_INIT));
}

/* ---- Names ---- */

static void test_find(void)
{
	sample(32);
	CHECK_STR(find_paths("/PAGEFILE.SYS", false), "/pagefile.sys\n");
	CHECK_STR(find_paths("\\windows\\temp\\*.tmp", false), "/WINDOWS/Temp/ONE.TMP\n/WINDOWS/Temp/~two.tmp with spaces\n");
	/* By the short name, too, but shown by the long one. */
	CHECK_STR(find_paths("/alongn~1.txt", false), "/A long name, of more than one slot.txt\n");
	CHECK_STR(find_paths("/windows/temp/two~?.tmp", false), "/WINDOWS/Temp/~two.tmp with spaces\n");
	CHECK_STR(find_paths("/*OF MORE*", false), "/A long name, of more than one slot.txt\n");
	CHECK_STR(find_paths("/windows/CAF\xc3\x89.TXT", false), "/WINDOWS/CAF\xc3\xa9.txt\n");
	CHECK_STR(find_paths("/windows/caf?.t*", false), "/WINDOWS/CAF\xc3\xa9.txt\n");
	CHECK_STR(find_paths("/nothing", false), "");
	CHECK_STR(find_paths("/windows/gone.bin", false), "");
	/* The label is no file, nor are '.' and '..'. */
	CHECK_STR(find_paths("/sample", false), "");
	CHECK_STR(find_paths("/windows/*", false), "/WINDOWS/Temp/\n/WINDOWS/CAF\xc3\xa9.txt\n");
	CHECK_STR(find_paths("/*/*/*", false),
		  "/WINDOWS/Temp/ONE.TMP\n/WINDOWS/Temp/~two.tmp with spaces\n/WINDOWS/Temp/a folder below/\n");
	CHECK_STR(find_paths("/windows/temp", true),
		  "/WINDOWS/Temp/ONE.TMP\n/WINDOWS/Temp/~two.tmp with spaces\n/WINDOWS/Temp/a folder below/DEEP.DAT\n"
		  "/WINDOWS/Temp/a folder below/\n/WINDOWS/Temp/\n");
	CHECK(strstr(find_paths("relative", false), "absolute") != NULL);
	CHECK(strstr(find_paths("/", false), "root") != NULL);
}

static void test_find_twice(void)
{
	struct prep_fs_list list = { NULL, 0, 0 };
	struct prep_fs *fs;

	sample(12);
	CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
	CHECK_DONE(prep_fs_find(fs, "/windows/temp/*", true, &list, &err));
	CHECK_EQ(list.n, 4);
	CHECK_DONE(prep_fs_find(fs, "/windows", true, &list, &err));
	CHECK_EQ(list.n, 7);
	CHECK_STR(list.entry[6].path, "/WINDOWS");
	CHECK(list.entry[6].folder && list.entry[6].frees && !list.entry[6].system);
	CHECK_EQ(list.entry[6].allocated, 2 * im.cluster_size);
	CHECK_EQ(list.entry[0].size, 1000);
	CHECK_EQ(list.entry[0].allocated, im.cluster_size);
	prep_fs_list_clear(&list);
	CHECK_DONE(prep_fs_close(fs, &err));
}

/* Long names that are not a short entry's do not count, but do no harm. */
static void test_orphans(void)
{
	struct prep_fs_audit a;

	sample(16);
	im.p[slot_of("ALONGN~1TXT") + 7] = '2';
	CHECK_STR(find_paths("/alongn~?.txt", false), "/ALONGN~2.TXT\n");
	CHECK_DONE(audit_image(&a, &err));
	CHECK(prep_fs_audit_clusters_sound(&a) && prep_fs_audit_records_sound(&a));
	CHECK(has_note(&a, "disk: /: 3 parts of long names belong to no file"));
	prep_fs_audit_clear(&a);
	/* Removing the file leaves them alone. */
	CHECK_DONE(remove_paths("/alongn~2.txt", false, 0, &err));
	CHECK(im.p[slot_of("\xe5LONGN~2TXT") - SLOT] == 1);
}

/* ---- Removing ---- */

/* Chain and slots, and not a byte more. */
static void test_remove(void)
{
	for (size_t i = 0; i < WIDTHS; i++) {
		uint64_t off, changed = 0, expected = 0;
		uint8_t *before;

		sample(widths[i]);
		/* The upper four bits of FAT32's entries are somebody else's. */
		if (widths[i] == 32)
			for (unsigned copy = 0; copy < 2; copy++)
				im.p[im.fat_off + copy * im.fat_len + 4 * first_of("ALONGN~1TXT") + 3] |= 0xa0;
		before = malloc(im.size);
		memcpy(before, im.p, im.size);
		off = slot_of("ALONGN~1TXT");
		CHECK_DONE(remove_paths("/a LONG name*", false, 0, &err));
		for (int slot = 0; slot < 4; slot++) {
			if (im.p[off - (uint64_t)slot * SLOT] != 0xe5)
				CHECK_FAIL("FAT%u: slot %d is not marked", widths[i], slot);
			before[off - (uint64_t)slot * SLOT] = 0xe5;
		}
		for (uint32_t c = 0; c < im.clusters + 2; c++)
			for (unsigned copy = 0; copy < 2; copy++) {
				const uint32_t first = fat_first(&im, off);
				const bool freed = c >= first && c < first + clusters_of(&im, 5000);

				if (freed && (fat_get(&im, copy, c) & 0x0fffffff) != 0)
					CHECK_FAIL("FAT%u: cluster %u is not free in copy %u", widths[i], c, copy);
				expected += freed;
			}
		if (widths[i] == 32) {
			CHECK_EQ(get_le32(im.p + im.fat_off + 4 * fat_first(&im, off)), 0xa0000000);
			CHECK_EQ(get_le32(im.p + SECTOR + 488), fat_count_free(&im) + 1);
			put_le32(before + SECTOR + 488, get_le32(im.p + SECTOR + 488));
		}
		CHECK_EQ(expected, 2 * clusters_of(&im, 5000));
		for (uint64_t j = 0; j < im.size; j++)
			changed += (j < im.fat_off || j >= im.fat_off + 2 * im.fat_len) && im.p[j] != before[j];
		CHECK_EQ(changed, 0);
		free(before);
		CHECK_STR(find_paths("/a long*", false), "");
		if (widths[i] == 32)
			for (unsigned copy = 0; copy < 2; copy++)
				im.p[im.fat_off + copy * im.fat_len + 4 * fat_first(&im, off) + 3] = 0;
		expect_sound(7, 3);
	}
}

/* Everything, in the list's order: nothing remains but the root and the bad cluster. */
static void test_remove_all(void)
{
	for (size_t i = 0; i < WIDTHS && !check_ended; i++) {
		sample(widths[i]);
		CHECK_DONE(remove_paths("/*", true, 0, &err));
		CHECK_EQ(fat_count_free(&im), im.clusters - 1 - (widths[i] == 32 ? 2 : 0));
		expect_sound(0, 0);
	}
}

static void test_remove_refused(void)
{
	struct prep_fs_list list = { NULL, 0, 0 };
	struct prep_fs *fs;

	sample(16);
	CHECK_FAILS(remove_paths("/windows", false, 0, &err), PREP_EREFUSED, "/WINDOWS: the folder is not empty");
	CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
	CHECK_DONE(prep_fs_find(fs, "/empty", false, &list, &err));
	CHECK_EQ(list.n, 1);
	CHECK_FAILS(prep_fs_remove(fs, &list.entry[0], &err), PREP_EREFUSED, "reading only");
	CHECK_DONE(prep_fs_close(fs, &(struct prep_err)PREP_ERR_INIT));
	/* What was found and is gone, or another's by now. */
	CHECK_DONE(prep_fs_open(&disk, PREP_FS_WRITE, &fs, &err));
	CHECK_DONE(prep_fs_remove(fs, &list.entry[0], &err));
	CHECK_FAILS(prep_fs_remove(fs, &list.entry[0], &err), PREP_EFAIL, "/EMPTY: not there any more");
	memcpy(im.p + list.entry[0].id * SLOT, "OTHER      ", 11);
	CHECK_FAILS(prep_fs_remove(fs, &list.entry[0], &err), PREP_EFAIL, "/EMPTY: not there any more");
	CHECK_DONE(prep_fs_close(fs, &(struct prep_err)PREP_ERR_INIT));
	prep_fs_list_clear(&list);
}

/* FAT32 that keeps only one copy: the other is stale, and stays so. */
static void test_not_mirrored(void)
{
	struct prep_fs_audit a;

	sample(32);
	put_le16(im.p + 40, 0x81);
	memset(im.p + im.fat_off, 0x55, im.fat_len);
	CHECK_DONE(audit_image(&a, &err));
	CHECK(a.problems.n == 1 && has_note(&a, "no copy") == false);
	CHECK_EQ(a.copies, 1); /* the copy of the boot sector says otherwise */
	CHECK(has_note(&a, "the copy of the boot sector at offset 3072 contradicts it"));
	prep_fs_audit_clear(&a);
	memcpy(im.p + 6 * SECTOR, im.p, SECTOR);
	CHECK_DONE(audit_image(&a, &err));
	CHECK(prep_fs_audit_records_sound(&a) && a.problems.n == 0);
	prep_fs_audit_clear(&a);
	CHECK_DONE(remove_paths("/*", true, 0, &err));
	CHECK_EQ(im.p[im.fat_off], 0x55);
	CHECK_EQ(im.p[im.fat_off + im.fat_len - 1], 0x55);
	CHECK_EQ(fat_get(&im, 1, im.root + 2), 0);
	put_le16(im.p + 40, 0x82);
	CHECK_FAILS(audit_image(&a, &err), PREP_EDAMAGED, "active copy");
}

/* ---- What stands against a change ---- */

static void expect_obstacle(unsigned obstacle, const char *text)
{
	struct prep_fs *fs;

	CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
	CHECK_EQ(prep_fs_info(fs)->obstacles, obstacle);
	if (strstr(prep_fs_info(fs)->obstacle_text, text) == NULL)
		CHECK_FAIL("'%s' is not about '%s'", prep_fs_info(fs)->obstacle_text, text);
	CHECK_DONE(prep_fs_close(fs, &err));
	CHECK_FAILS(prep_fs_open(&disk, PREP_FS_WRITE, &fs, &err), PREP_EREFUSED, text);
}

static void test_dirty(void)
{
	for (size_t i = 0; i < WIDTHS && !check_ended; i++) {
		const unsigned state = widths[i] == 32 ? 65 : 37;

		sample(widths[i]);
		im.p[state] = 1;
		expect_obstacle(PREP_FS_DIRTY, "the volume is dirty (its flag in the boot sector is set)");
		im.p[state] = 2;
		expect_obstacle(PREP_FS_DIRTY, "errors were met");
		im.p[state] = 0;
		if (widths[i] == 12)
			continue;
		fat_set(&im, 1, widths[i] == 16 ? 0x7fff : 0x07ffffff);
		expect_obstacle(PREP_FS_DIRTY, "the volume is dirty (its clean bit in the FAT is not set)");
		fat_set(&im, 1, widths[i] == 16 ? 0xbfff : 0x0bffffff);
		expect_obstacle(PREP_FS_DIRTY, "errors were met");
	}
}

static void test_hibernated(void)
{
	uint64_t off;

	sample(32);
	off = fat_file(&im, im.root, NULL, "HIBERFILSYS", 50000, 1);
	expect_sound(9, 3);
	if (check_ended)
		return;
	memcpy(im.p + fat_at(&im, fat_first(&im, off)), "hibr", 4);
	expect_obstacle(PREP_FS_HIBERNATED, "a suspended session");
	if (check_ended)
		return;
	CHECK_FAILS(remove_paths("/hiberfil.sys", false, 0, &err), PREP_EREFUSED, "hibernated");
	CHECK_DONE(remove_paths("/hiberfil.sys", false, PREP_FS_DISCARD_HIBERNATION, &err));
	expect_sound(8, 3);
}

/* ---- Damage ---- */

/* The audit finds what `field` of it counts, names it in `text`, and the judgement is as said. */
static void expect_damage(size_t field, uint64_t count, bool clusters_sound, const char *text)
{
	struct prep_fs_audit a;
	uint64_t found;
	bool named;

	CHECK_DONE(audit_image(&a, &err));
	memcpy(&found, (const uint8_t *)&a + field, sizeof found);
	named = has_note(&a, text);
	if (!named)
		CHECK_FAIL("no note of '%s': %s", text, a.problems.n > 0 ? a.problems.text[0] : "no notes");
	if (found != count)
		CHECK_FAIL("%" PRIu64 " found, not %" PRIu64 " (%s)", found, count, text);
	if (prep_fs_audit_clusters_sound(&a) != clusters_sound)
		CHECK_FAIL("clusters are %ssound (%s)", clusters_sound ? "not " : "", text);
	if (prep_fs_audit_records_sound(&a))
		CHECK_FAIL("records are sound (%s)", text);
	prep_fs_audit_clear(&a);
}

#define EXPECT_DAMAGE(field, count, clusters_sound, text)                                              \
	do {                                                                                           \
		expect_damage(offsetof(struct prep_fs_audit, field), count, clusters_sound, text);     \
		if (check_ended)                                                                       \
			return;                                                                        \
	} while (0)

static void walk_fails(const char *text)
{
	struct seen seen = { .streams = 0 };
	struct prep_fs *fs;

	CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
	CHECK_FAILS(prep_fs_walk(fs, PREP_FS_WALK_PATHS, see_stream, &seen, &err), PREP_EDAMAGED, text);
	CHECK_DONE(prep_fs_close(fs, &(struct prep_err)PREP_ERR_INIT));
}

static void damage(unsigned bits)
{
	const uint32_t two = 2;
	uint32_t c;

	/* Chains */
	sample(bits);
	c = first_of("PIECES  BIN");
	fat_set(&im, c + two, c);
	EXPECT_DAMAGE(crosslinked, 1, false, "/PIECES.BIN: its chain runs in a circle");
	walk_fails("circle");

	sample(bits);
	set_first("ONE     TMP", first_of("PAGEFILESYS"));
	EXPECT_DAMAGE(crosslinked, 1, false, "claimed by /WINDOWS/Temp/ONE.TMP and by /pagefile.sys");

	sample(bits);
	fat_set(&im, first_of("ONE     TMP"), first_of("PAGEFILESYS"));
	EXPECT_DAMAGE(crosslinked, 1, false, "claimed by /WINDOWS/Temp/ONE.TMP and by /pagefile.sys");

	sample(bits);
	fat_set(&im, first_of("PIECES  BIN"), im.clusters + 2);
	EXPECT_DAMAGE(outside, 1, false, "/PIECES.BIN: its chain leads out of the volume");
	walk_fails("/PIECES.BIN: its chain leads out of the volume");

	sample(bits);
	fat_set(&im, first_of("PIECES  BIN"), 1);
	EXPECT_DAMAGE(outside, 1, false, "/PIECES.BIN: its chain leads out of the volume");

	sample(bits);
	set_first("PIECES  BIN", im.clusters + 2);
	EXPECT_DAMAGE(outside, 1, false, "/PIECES.BIN: its first cluster lies outside the volume");

	sample(bits);
	fat_set(&im, first_of("PIECES  BIN") + 2 * two, 0);
	EXPECT_DAMAGE(claimed_free, 1, false, "/PIECES.BIN: its chain leads to a free cluster");
	walk_fails("/PIECES.BIN: its chain leads to a free cluster");

	sample(bits);
	fat_set(&im, first_of("PIECES  BIN"), im.clusters - 5);
	EXPECT_DAMAGE(crosslinked, 1, false, "/PIECES.BIN: its chain leads to a bad cluster");
	walk_fails("/PIECES.BIN: its chain leads to a bad cluster");

	/* The copies */
	sample(bits);
	fat_set_copy(&im, 1, first_of("ONE     TMP"), 0);
	fat_set_copy(&im, 1, im.clusters + 1, 7);
	EXPECT_DAMAGE(copies, 2, false, "has 0x7");

	/* Sizes */
	sample(bits);
	put_le32(im.p + slot_of("ONE     TMP") + 28, 100000);
	EXPECT_DAMAGE(sizes, 1, true, "/WINDOWS/Temp/ONE.TMP: its size is 100000 bytes, but it has");
	walk_fails("/WINDOWS/Temp/ONE.TMP: it has fewer clusters than its size needs");

	sample(bits);
	put_le32(im.p + slot_of("PAGEFILESYS") + 28, 10);
	EXPECT_DAMAGE(sizes, 1, true, "/pagefile.sys: its size is 10 bytes, but it has");

	sample(bits);
	put_le32(im.p + slot_of("EMPTY      ") + 28, 10);
	EXPECT_DAMAGE(sizes, 1, true, "/EMPTY: its size is 10 bytes, but it has 0 clusters");

	sample(bits);
	put_le32(im.p + slot_of("ONE     TMP") + 28, 0);
	EXPECT_DAMAGE(sizes, 1, true, "/WINDOWS/Temp/ONE.TMP: its size is 0 bytes, but it has");

	/* Folders */
	sample(bits);
	c = first_of("TEMP       ");
	put_le16(im.p + fat_at(&im, c) + 26, (uint16_t)(c + 1));
	EXPECT_DAMAGE(dangling, 1, true, "/WINDOWS/Temp/.: it leads to another folder");

	sample(bits);
	put_le16(im.p + fat_at(&im, first_of("TEMP       ")) + SLOT + 26, 0);
	EXPECT_DAMAGE(dangling, 1, true, "/WINDOWS/Temp/..: it leads to another folder than its parent");

	sample(bits);
	memcpy(im.p + fat_at(&im, first_of("TEMP       ")) + SLOT, "DOTDOT     ", 11);
	put_le16(im.p + fat_at(&im, first_of("TEMP       ")) + SLOT + 26, 0);
	im.p[fat_at(&im, first_of("TEMP       ")) + SLOT + 11] = 0x20;
	EXPECT_DAMAGE(dangling, 1, true, "/WINDOWS/Temp: the folder has no '..' entry");

	sample(bits);
	set_first("TEMP       ", 0);
	EXPECT_DAMAGE(dangling, 1, true, "/WINDOWS/Temp: a folder without a cluster");

	/* A circle of folders */
	sample(bits);
	set_first("TEMP       ", first_of("WINDOWS    "));
	EXPECT_DAMAGE(crosslinked, 1, false, "claimed by /WINDOWS and by /WINDOWS/Temp");
	walk_fails("circle");

	/* A folder's chain that runs in a circle */
	sample(bits);
	c = first_of("TEMP       ");
	fat_set(&im, c + 1, c);
	memset(im.p + fat_at(&im, c) + 2 * SLOT, 0xe5, 2 * im.cluster_size - 2 * SLOT);
	EXPECT_DAMAGE(crosslinked, 1, false, "/WINDOWS/Temp: its chain runs in a circle");
	walk_fails("circle");

	sample(bits);
	im.p[slot_of("ONE     TMP") + 3] = 0x03;
	EXPECT_DAMAGE(unreadable, 1, false, "an entry whose name cannot be");
	walk_fails("an entry whose name cannot be");
}

static void test_damage(void)
{
	for (size_t i = 0; i < WIDTHS && !check_ended; i++)
		damage(widths[i]);
}

static void test_lost(void)
{
	struct prep_fs_audit a;

	for (size_t i = 0; i < WIDTHS; i++) {
		sample(widths[i]);
		/* A chain that no entry leads to, and reserved numbers: harmless, but not free. */
		fat_chain(&im, 5, 2);
		fat_set(&im, im.clusters, 1);
		CHECK_DONE(audit_image(&a, &err));
		CHECK_EQ(a.used_unclaimed, 6);
		CHECK(prep_fs_audit_records_sound(&a) && has_note(&a, "marked used, but no file claims it"));
		CHECK_EQ(a.free, fat_count_free(&im));
		prep_fs_audit_clear(&a);
	}
}

static void test_backup_boot(void)
{
	struct prep_fs_audit a;

	sample(32);
	im.p[6 * SECTOR + 13] *= 2;
	EXPECT_DAMAGE(copies, 1, false, "the copy of the boot sector at offset 3072 contradicts it");
	sample(32);
	/* What a tool adapts in one of them only. */
	put_le32(im.p + 28, 63);
	memset(im.p + 3, ' ', 8);
	im.p[0x50] ^= 1;
	CHECK_DONE(audit_image(&a, &err));
	CHECK_EQ(a.problems.n, 0);
	prep_fs_audit_clear(&a);
	memset(im.p + 6 * SECTOR, 0, SECTOR);
	CHECK_DONE(audit_image(&a, &err));
	CHECK(prep_fs_audit_records_sound(&a) && has_note(&a, "there is no copy of the boot sector"));
	prep_fs_audit_clear(&a);
}

static void test_bad_boot(void)
{
	static const struct { unsigned bits, off, len; uint32_t value; const char *text; } row[] = {
		{ 32, 44, 4, 0, "the root folder lies outside" },
		{ 32, 44, 4, 402, "the root folder lies outside" },
		{ 32, 17, 2, 16, "neither FAT16's nor FAT32's" },
		{ 16, 17, 2, 0, "neither FAT16's nor FAT32's" },
	};
	struct prep_fs *fs;

	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		sample(row[i].bits);
		if (row[i].len == 4)
			put_le32(im.p + row[i].off, row[i].value);
		else
			put_le16(im.p + row[i].off, (uint16_t)row[i].value);
		err = (struct prep_err)PREP_ERR_INIT;
		CHECK(prep_fs_open(&disk, 0, &fs, &err) < 0);
		/* The probe may see already that it is no FAT. */
		if (err.code == PREP_EDAMAGED && strstr(err.msg, row[i].text) == NULL)
			CHECK_FAIL("'%s' is not about '%s'", err.msg, row[i].text);
	}
	sample(32);
	im.p[42] = 1;
	CHECK_FAILS(prep_fs_open(&disk, 0, &fs, &err), PREP_EREFUSED, "FAT32 of version 0.1");
}

/* Folders in folders, deeper than any path: read to an end, and damage. */
static void test_deep(void)
{
	uint32_t parent;

	drop_image();
	fat_make(&im, 32, 12000, 1);
	use_image();
	parent = im.root;
	for (unsigned i = 0; i < 5000; i++)
		parent = fat_folder(&im, parent, NULL, "D          ");
	EXPECT_DAMAGE(unreadable, 1, false, "nested more deeply than any path");
	walk_fails("nested more deeply than any path");
	CHECK(strstr(find_paths("/d", true), "nested more deeply") != NULL);
}

/* A folder without an end: its chain is longer than a folder can be. */
static void test_endless(void)
{
	uint32_t c;
	struct prep_fs_audit a;

	drop_image();
	fat_make(&im, 32, 8000, 1);
	use_image();
	c = im.next;
	fat_chain(&im, 4500, 1);
	fat_entry(&im, im.root, NULL, "LARGE      ", 0x10, c, 0);
	memset(im.p + fat_at(&im, c), 0xe5, 4500 * SECTOR);
	fat_entry(&im, c + 4500 - 1, NULL, "X          ", 0x20, 0, 0);
	walk_fails("larger than a folder can be");
	CHECK_DONE(audit_image(&a, &err));
	prep_fs_audit_clear(&a);
}

static void test_fuzz(void)
{
	for (size_t i = 0; i < WIDTHS && !check_ended; i++) {
		sample(widths[i]);
		fuzz_image(3000, widths[i], NULL);
	}
}

int main(void)
{
	RUN(test_sound);
	RUN(test_info);
	RUN(test_width);
	RUN(test_walk);
	RUN(test_walk_stops);
	RUN(test_find);
	RUN(test_find_twice);
	RUN(test_orphans);
	RUN(test_remove);
	RUN(test_remove_all);
	RUN(test_remove_refused);
	RUN(test_not_mirrored);
	RUN(test_dirty);
	RUN(test_hibernated);
	RUN(test_damage);
	RUN(test_lost);
	RUN(test_backup_boot);
	RUN(test_bad_boot);
	RUN(test_deep);
	RUN(test_endless);
	RUN(test_fuzz);
	drop_image();
	return check_result();
}
