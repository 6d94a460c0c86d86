/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * exFAT: reading, removing, and an audit that names every kind of damage; on
 * volumes made in memory by tests/unit/fat_image.h.
 */
#include "tests/unit/fat_disk.h"

static void sample(void)
{
	drop_image();
	exfat_sample(&im);
	use_image();
}

/* The file entry of a name in all of the image: ASCII, its first 15 characters at most. */
static uint64_t set_of(const char *name)
{
	const size_t len = strlen(name) < 15 ? strlen(name) : 15;

	for (uint64_t off = im.data_off; off + 3 * SLOT <= im.size; off += SLOT) {
		size_t i = 0;

		while (i < len && get_le16(im.p + off + 64 + 2 + 2 * i) == (uint8_t)name[i])
			i++;
		if (im.p[off] == 0x85 && im.p[off + 64] == 0xc1 && i == len)
			return off;
	}
	fprintf(stderr, "%s: not in the image\n", name);
	exit(1);
}

static uint32_t first_of(const char *name)
{
	return get_le32(im.p + set_of(name) + 52);
}

static bool is_marked(uint32_t cluster)
{
	return im.p[im.bitmap_off + (cluster - 2) / 8] >> (cluster - 2) % 8 & 1;
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
	CHECK_EQ(a.clusters, im.clusters);
	CHECK_EQ(a.used + a.free, a.clusters);
	for (uint32_t c = 2; c < im.clusters + 2; c++)
		if (prep_bit_get(a.free_map, c - 2) == is_marked(c))
			CHECK_FAIL("cluster %u", c);
	prep_fs_audit_clear(&a);
}

static void test_sound(void)
{
	struct prep_fs *fs;

	sample();
	expect_sound(35, 3);
	if (check_ended)
		return;
	CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
	CHECK_EQ(prep_fs_info(fs)->kind, PREP_FS_EXFAT);
	CHECK_STR(prep_fs_info(fs)->version, "1.0");
	CHECK_STR(prep_fs_info(fs)->label, "LABEL");
	CHECK_EQ(prep_fs_info(fs)->serial, 0x12345678);
	CHECK_EQ(prep_fs_info(fs)->clusters_off, im.data_off);
	CHECK_EQ(prep_fs_info(fs)->obstacles, 0);
	CHECK_DONE(prep_fs_close(fs, &err));
}

static void test_walk(void)
{
	struct seen seen = { .streams = 0 };
	struct prep_fs *fs;

	sample();
	CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
	CHECK_DONE(prep_fs_walk(fs, PREP_FS_WALK_PATHS, see_stream, &seen, &err));
	CHECK_DONE(prep_fs_close(fs, &err));
	CHECK_EQ(seen.streams, 34);
	CHECK_EQ(seen.wrong, 0);
	CHECK_EQ(seen.bytes, 5000 + 20000 + 30000 + 3000 + 30 * 1000 + 50 * 435);
	CHECK(strstr(seen.paths, "/Contiguous/below/deep.dat\n") != NULL);
}

static void test_find(void)
{
	sample();
	CHECK_STR(find_paths("/A LONG NAME OF*", false), "/a long name of more than one entry.txt\n");
	CHECK_STR(find_paths("\\contiguous\\BELOW\\*", false), "/Contiguous/below/deep.dat\n");
	CHECK_STR(find_paths("/gone.bin", false), "");
	CHECK_STR(find_paths("/contiguous/below", true), "/Contiguous/below/deep.dat\n/Contiguous/below/\n");
	CHECK_STR(find_paths("/*/file 0?.dat", false),
		  "/Chained/file 01.dat\n/Chained/file 03.dat\n/Chained/file 05.dat\n/Chained/file 07.dat\n"
		  "/Chained/file 09.dat\n/Contiguous/file 00.dat\n/Contiguous/file 02.dat\n/Contiguous/file 04.dat\n"
		  "/Contiguous/file 06.dat\n/Contiguous/file 08.dat\n");
}

/* ---- Removing ---- */

static void test_remove(void)
{
	const char *const names[] = { "file 06.dat", "file 07.dat", "pieces.bin", "empty" };
	const uint8_t slots[] = { 3, 3, 3, 3 };

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		uint64_t off, size, changed = 0;
		uint8_t *before;
		char pattern[32];

		sample();
		off = set_of(names[i]);
		size = get_le64(im.p + off + 56);
		before = malloc(im.size);
		memcpy(before, im.p, im.size);
		snprintf(pattern, sizeof pattern, "%s%s", names[i][0] != 'f' ? "/" : i == 0 ? "/contiguous/" : "/chained/",
			 names[i]);
		CHECK_DONE(remove_paths(pattern, false, 0, &err));
		for (unsigned slot = 0; slot < slots[i]; slot++) {
			CHECK_EQ(im.p[off + slot * SLOT], before[off + slot * SLOT] & 0x7f);
			before[off + slot * SLOT] &= 0x7f;
		}
		/* Nothing else but the bitmap and the percentage. */
		for (uint64_t j = 0; j < im.size; j++)
			changed += im.p[j] != before[j] && j != 112 &&
				   (j < im.bitmap_off || j >= im.bitmap_off + (im.clusters + 7) / 8);
		CHECK_EQ(changed, 0);
		for (uint32_t c = 2, freed = 0; c < im.clusters + 2; c++) {
			freed += !is_marked(c) &&
				 (before[im.bitmap_off + (c - 2) / 8] >> (c - 2) % 8 & 1);
			if (c == im.clusters + 1)
				CHECK_EQ(freed, clusters_of(&im, size));
		}
		CHECK(im.p[112] != 10 || size == 0);
		free(before);
		expect_sound(34, 3);
		if (check_ended)
			return;
	}
}

static void test_remove_all(void)
{
	sample();
	CHECK_FAILS(remove_paths("/chained", false, 0, &err), PREP_EREFUSED, "/Chained: the folder is not empty");
	CHECK_DONE(remove_paths("/*", true, 0, &err));
	expect_sound(0, 0);
	CHECK_EQ(im.p[112], 0);
}

/* Clusters of a kind that is not known here must not be lost. */
static void test_foreign(void)
{
	uint64_t off;

	sample();
	off = set_of("empty");
	im.p[off + 1] = 3;
	im.p[off + 96] = 0xe1;
	im.p[off + 97] = 1;
	exfat_seal_set(&im, off);
	CHECK_FAILS(remove_paths("/empty", false, 0, &err), PREP_EREFUSED, "not known here");
}

static void test_dirty(void)
{
	struct prep_fs *fs;

	for (unsigned bit = 2; bit <= 4; bit *= 2) {
		sample();
		im.p[106] = (uint8_t)bit;
		CHECK_DONE(prep_fs_open(&disk, 0, &fs, &err));
		CHECK_EQ(prep_fs_info(fs)->obstacles, PREP_FS_DIRTY);
		CHECK(strstr(prep_fs_info(fs)->obstacle_text, bit == 2 ? "VolumeDirty" : "MediaFailure") != NULL);
		CHECK_DONE(prep_fs_close(fs, &err));
		CHECK_FAILS(prep_fs_open(&disk, PREP_FS_WRITE, &fs, &err), PREP_EREFUSED, "boot sector is set");
	}
}

/* ---- Damage ---- */

static void expect_damage(size_t field, uint64_t count, bool clusters_sound, const char *text)
{
	struct prep_fs_audit a;
	uint64_t found;

	CHECK_DONE(audit_image(&a, &err));
	memcpy(&found, (const uint8_t *)&a + field, sizeof found);
	if (!has_note(&a, text))
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

static void test_clusters(void)
{
	uint64_t off;

	sample();
	fat_mark(&im, first_of("file 06.dat"), false);
	EXPECT_DAMAGE(claimed_free, 1, false, "a file's, but marked free in the bitmap");

	sample();
	off = set_of("file 06.dat");
	put_le32(im.p + off + 52, first_of("pieces.bin"));
	exfat_seal_set(&im, off);
	EXPECT_DAMAGE(crosslinked, 1, false, "claimed by /Contiguous/file 06.dat and by /pieces.bin");

	sample();
	fat_set(&im, first_of("pieces.bin") + 4, first_of("pieces.bin"));
	EXPECT_DAMAGE(crosslinked, 1, false, "/pieces.bin: its chain runs in a circle");
	walk_fails("circle");

	sample();
	fat_set(&im, first_of("pieces.bin") + 4, im.clusters + 2);
	EXPECT_DAMAGE(outside, 1, false, "/pieces.bin: its chain leads out of the volume");
	walk_fails("leads out of the volume");

	sample();
	off = set_of("preallocated");
	put_le32(im.p + off + 52, im.clusters - 10);
	exfat_seal_set(&im, off);
	EXPECT_DAMAGE(outside, 3, false, "/preallocated: its clusters lie outside the volume");
	walk_fails("outside the volume");

	sample();
	off = set_of("preallocated");
	put_le64(im.p + off + 56, UINT64_MAX - 5);
	exfat_seal_set(&im, off);
	EXPECT_DAMAGE(unreadable, 0, false, "/preallocated: its clusters lie outside the volume");

	sample();
	fat_set(&im, first_of("pieces.bin"), 0xfffffff7);
	EXPECT_DAMAGE(crosslinked, 1, false, "/pieces.bin: its chain leads to a bad cluster");

	/* Lost clusters are harmless, but not free. */
	{
		struct prep_fs_audit a;

		sample();
		fat_mark(&im, im.clusters, true);
		CHECK_DONE(audit_image(&a, &err));
		CHECK(prep_fs_audit_records_sound(&a) && has_note(&a, "marked used, but no file claims it"));
		CHECK_EQ(a.used_unclaimed, 1);
		CHECK(!prep_bit_get(a.free_map, im.clusters - 2));
		prep_fs_audit_clear(&a);
	}
}

static void test_entries(void)
{
	uint64_t off;

	sample();
	im.p[set_of("pieces.bin") + 4] ^= 1;
	EXPECT_DAMAGE(unreadable, 1, false, "a file whose checksum is wrong");
	walk_fails("checksum is wrong");

	sample();
	off = set_of("pieces.bin");
	im.p[off + SLOT] &= 0x7f;
	EXPECT_DAMAGE(unreadable, 1, false, "a file that another entry cuts off");

	sample();
	off = set_of("pieces.bin");
	im.p[off] &= 0x7f;
	EXPECT_DAMAGE(orphans, 2, true, "2 entries belong to no file");

	sample();
	off = set_of("pieces.bin");
	put_le64(im.p + off + 40, 20001);
	exfat_seal_set(&im, off);
	EXPECT_DAMAGE(unreadable, 1, false, "valid length contradicts its length");

	sample();
	off = set_of("pieces.bin");
	put_le64(im.p + off + 40, 10000);
	put_le64(im.p + off + 56, 10000);
	exfat_seal_set(&im, off);
	EXPECT_DAMAGE(sizes, 1, true, "/pieces.bin: its size is 10000 bytes, but it has 10 clusters");

	sample();
	off = set_of("pieces.bin");
	put_le32(im.p + off + 52, 0);
	exfat_seal_set(&im, off);
	EXPECT_DAMAGE(outside, 0, false, "a file with data, but without a cluster");

	sample();
	off = set_of("Chained");
	put_le64(im.p + off + 40, im.cluster_size);
	put_le64(im.p + off + 56, im.cluster_size);
	exfat_seal_set(&im, off);
	EXPECT_DAMAGE(sizes, 1, true, "/Chained: the folder's size is not that of its clusters");

	sample();
	off = set_of("empty");
	im.p[off] = 0x86;
	EXPECT_DAMAGE(unreadable, 1, false, "an entry of unknown kind");
}

static void test_tables(void)
{
	struct prep_fs *fs;

	sample();
	im.p[fat_at(&im, im.root - 1) + 10] ^= 1;
	EXPECT_DAMAGE(unreadable, 1, false, "the up-case table is damaged");
	CHECK(strstr(find_paths("/empty", false), "up-case table") != NULL);

	sample();
	im.p[12 * SECTOR + 120] ^= 1;
	EXPECT_DAMAGE(copies, 1, false, "the copy of the boot sector at offset 6144 has a wrong checksum");

	sample();
	im.p[120] ^= 1;
	CHECK_FAILS(prep_fs_open(&disk, 0, &fs, &err), PREP_EDAMAGED, "checksum is wrong");

	sample();
	im.p[fat_at(&im, im.root) + SLOT] = 0x01;
	CHECK_FAILS(prep_fs_open(&disk, 0, &fs, &err), PREP_EDAMAGED, "no allocation bitmap");

	sample();
	put_le64(im.p + fat_at(&im, im.root) + SLOT + 24, 3);
	CHECK_FAILS(prep_fs_open(&disk, 0, &fs, &err), PREP_EDAMAGED, "bitmap is too short");
}

static void test_bad_boot(void)
{
	static const struct { unsigned off, len; uint64_t value; enum prep_code code; const char *text; } row[] = {
		{ 20, 1, 1, PREP_EDAMAGED, "zeros" },
		{ 72, 8, UINT64_MAX, PREP_EDAMAGED, "more than the partition holds" },
		{ 80, 4, 4, PREP_EDAMAGED, "overlap" },
		{ 84, 4, UINT32_MAX, PREP_EDAMAGED, "overlap" },
		{ 84, 4, 1, PREP_EDAMAGED, "too short" },
		{ 88, 4, UINT32_MAX, PREP_EDAMAGED, "overlap" },
		{ 92, 4, UINT32_MAX, PREP_EDAMAGED, "number of clusters" },
		{ 92, 4, 0, PREP_EDAMAGED, "number of clusters" },
		{ 96, 4, 1, PREP_EDAMAGED, "root folder" },
		{ 105, 1, 2, PREP_EREFUSED, "version 2.0" },
		{ 108, 1, 13, PREP_EDAMAGED, "sector size" },
		{ 109, 1, 17, PREP_EDAMAGED, "cluster size" },
		{ 109, 1, 255, PREP_EDAMAGED, "cluster size" },
		{ 110, 1, 2, PREP_EREFUSED, "TexFAT" },
		{ 110, 1, 0, PREP_EDAMAGED, "number of FATs" },
	};

	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		struct prep_fs *fs;

		sample();
		for (unsigned j = 0; j < row[i].len; j++)
			im.p[row[i].off + j] = (uint8_t)(row[i].value >> 8 * j);
		exfat_seal_boot(&im);
		CHECK_FAILS(prep_fs_open(&disk, 0, &fs, &err), row[i].code, row[i].text);
	}
}

/* Make some of the checksums right: what lies behind them is to be reached. */
static void seal(struct fat_image *image)
{
	exfat_seal_boot(image);
	for (uint64_t off = image->data_off; off + 64 <= image->size && off < image->data_off + 40 * image->cluster_size;
	     off += SLOT)
		if (image->p[off] == 0x85 && image->p[off + SLOT] == 0xc0 &&
		    off + (image->p[off + 1] + 1u) * SLOT <= image->size)
			exfat_seal_set(image, off);
}

static void test_fuzz(void)
{
	sample();
	fuzz_image(4000, 64, seal);
}

int main(void)
{
	RUN(test_sound);
	RUN(test_walk);
	RUN(test_find);
	RUN(test_remove);
	RUN(test_remove_all);
	RUN(test_foreign);
	RUN(test_dirty);
	RUN(test_clusters);
	RUN(test_entries);
	RUN(test_tables);
	RUN(test_bad_boot);
	RUN(test_fuzz);
	drop_image();
	return check_result();
}
