/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Partition tables and probing, on small disks made in memory.
 */
#include "libprep/volume/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include "libprep/base/bytes.h"
#include "libprep/base/utf16.h"
#include "libprep/volume/fs.h"

#define SECTORS 8192u
#define SIZE (SECTORS * 512u)

/* ---- A disk in memory ---- */

static uint8_t *image;

static int memory_read(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err)
{
	(void)d;
	(void)err;
	memcpy(buf, image + off, len);
	return 0;
}

static const struct prep_disk_ops memory_ops = { .kind = "memory", .read = memory_read };

static char disk_name[] = "disk";

static struct prep_disk disk_of(uint64_t size)
{
	return (struct prep_disk){ .ops = &memory_ops, .name = disk_name, .size = size, .sector_size = 512 };
}

/* ---- Checks ---- */

static const char *test;
static bool failed, any_failed;

static void begin(const char *name)
{
	test = name;
	failed = false;
	memset(image, 0, SIZE);
}

static void check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void check(bool ok, const char *fmt, ...)
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

static void end(void)
{
	if (!failed)
		printf("ok %s\n", test);
}

/* Read the table, expecting success. */
static struct prep_table read_table(uint64_t size)
{
	struct prep_disk d = disk_of(size);
	struct prep_err err = PREP_ERR_INIT;
	static struct prep_table t;

	check(prep_table_read(&d, &t, &err) == 0, "failed: %s", err.msg);
	return t;
}

/* Read the table, expecting damage, told in words that include `text`. */
static void expect_damage(const char *text)
{
	struct prep_disk d = disk_of(SIZE);
	struct prep_err err = PREP_ERR_INIT;
	static struct prep_table t;
	const int r = prep_table_read(&d, &t, &err);

	check(r < 0, "no failure, %u partitions", t.n);
	check(r == 0 || (err.code == PREP_EDAMAGED && strstr(err.msg, text) != NULL),
	      "code %d, '%s' is not about '%s'", err.code, err.msg, text);
	if (r == 0)
		prep_table_clear(&t);
}

static void expect_part(const struct prep_table *t, unsigned i, uint64_t first, uint64_t count)
{
	check(i < t->n, "only %u partitions", t->n);
	check(i >= t->n || (t->part[i].number == i + 1 && t->part[i].off == first * 512 &&
			    t->part[i].len == count * 512),
	      "partition %u is number %u, at sector %llu, %llu sectors long", i, t->part[i].number,
	      (unsigned long long)t->part[i].off / 512, (unsigned long long)t->part[i].len / 512);
}

/* ---- MBR ---- */

static void put_entry(uint64_t sector, int i, uint8_t boot, uint8_t type, uint32_t first, uint32_t count)
{
	uint8_t *p = image + sector * 512 + 446 + 16 * i;

	put_le16(image + sector * 512 + 510, 0xaa55);
	p[0] = boot;
	p[4] = type;
	put_le32(p + 8, first);
	put_le32(p + 12, count);
}

static void test_mbr(void)
{
	struct prep_table t;

	begin("no table");
	t = read_table(SIZE);
	check(t.scheme == PREP_TABLE_NONE && t.n == 1 && t.part[0].len == SIZE, "scheme %d, %u parts", t.scheme, t.n);
	end();

	begin("a disk of one sector");
	t = read_table(512);
	check(t.scheme == PREP_TABLE_NONE && t.n == 1 && t.part[0].len == 512, "scheme %d", t.scheme);
	end();

	begin("an empty table");
	put_le16(image + 510, 0xaa55);
	t = read_table(SIZE);
	check(t.scheme == PREP_TABLE_MBR && t.n == 0, "scheme %d, %u parts", t.scheme, t.n);
	end();

	begin("MBR with primary partitions");
	put_entry(0, 0, 0x80, 0x07, 63, 1000);
	put_entry(0, 2, 0, 0x0c, 2048, 6144);
	t = read_table(SIZE);
	check(t.scheme == PREP_TABLE_MBR && t.n == 2, "scheme %d, %u parts", t.scheme, t.n);
	expect_part(&t, 0, 63, 1000);
	expect_part(&t, 1, 2048, 6144);
	check(t.part[0].active && !t.part[1].active && t.part[0].mbr_type == 7, "flags are wrong");
	check(strcmp(prep_partition_type_name(&t, &t.part[0]), "NTFS/exFAT") == 0, "type name");
	check(t.refusal[0] == '\0', "refused: %s", t.refusal);
	end();

	begin("the extended chain");
	put_entry(0, 0, 0, 0x07, 63, 100);
	put_entry(0, 1, 0, 0x0f, 1000, 5000);
	put_entry(0, 3, 0, 0x83, 7000, 100);
	put_entry(1000, 0, 0, 0x07, 63, 500);
	put_entry(1000, 1, 0, 0x05, 2000, 1000);
	put_entry(3000, 0, 0, 0x06, 63, 600);
	put_entry(3000, 1, 0, 0x05, 1000, 900);
	put_entry(2000, 0, 0, 0x83, 1, 200);
	t = read_table(SIZE);
	check(t.n == 5, "%u partitions", t.n);
	expect_part(&t, 0, 63, 100);
	expect_part(&t, 1, 7000, 100);
	expect_part(&t, 2, 1063, 500);
	expect_part(&t, 3, 3063, 600);
	expect_part(&t, 4, 2001, 200);
	check(!t.part[1].logical && t.part[2].logical, "logical flags");
	end();

	begin("a chain that runs in a circle");
	put_entry(0, 0, 0, 0x05, 1000, 5000);
	put_entry(1000, 1, 0, 0x05, 1000, 900);
	put_entry(2000, 1, 0, 0x05, 0, 900);
	expect_damage("does not end");
	end();

	begin("a chain that leads out of the disk");
	put_entry(0, 0, 0, 0x05, 1000, 5000);
	put_entry(1000, 1, 0, 0x05, SECTORS, 900);
	expect_damage("beyond the disk");
	end();

	begin("a chain without a signature");
	put_entry(0, 0, 0, 0x05, 1000, 5000);
	expect_damage("no signature in sector 1000");
	end();

	begin("a partition beyond the disk");
	put_entry(0, 0, 0, 0x07, 63, SECTORS - 62);
	expect_damage("partition 1");
	end();

	begin("partitions that overlap");
	put_entry(0, 0, 0, 0x07, 2000, 1000);
	put_entry(0, 1, 0, 0x07, 100, 1901);
	expect_damage("partitions 2 and 1 overlap");
	end();

	begin("a dynamic disk (LDM) is refused");
	put_entry(0, 0, 0, 0x07, 63, 100);
	put_entry(0, 1, 0, 0x42, 200, 1000);
	t = read_table(SIZE);
	check(strstr(t.refusal, "partition 2") != NULL && strstr(t.refusal, "LDM") != NULL, "refusal '%s'", t.refusal);
	end();

	begin("LVM is refused");
	memcpy(image + 512, "LABELONE\1\0\0\0\0\0\0\0", 16);
	t = read_table(SIZE);
	check(t.scheme == PREP_TABLE_NONE && strstr(t.refusal, "LVM") != NULL, "refusal '%s'", t.refusal);
	end();
}

/* ---- GPT ---- */

static const uint8_t basic_data[16] = {
	0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7,
};
static const uint8_t ldm_data[16] = {
	0xa0, 0x60, 0x9b, 0xaf, 0x31, 0x14, 0x62, 0x4f, 0xbc, 0x68, 0x33, 0x11, 0x71, 0x4a, 0x69, 0xad,
};
static const uint8_t storage_spaces[16] = {
	0x8f, 0xaf, 0x5c, 0xe7, 0x80, 0xf6, 0xee, 0x4c, 0xaf, 0xa3, 0xb0, 0x01, 0xe5, 0x6e, 0xfc, 0x2d,
};

static void put_gpt_entry(int i, const uint8_t *type, uint64_t first, uint64_t last, const char *name)
{
	for (int copy = 0; copy < 2; copy++) {
		uint8_t *e = image + (copy ? SECTORS - 33 : 2) * 512 + 128 * i;

		memcpy(e, type, 16);
		memset(e + 16, 0x11 + i, 16);
		put_le64(e + 32, first);
		put_le64(e + 40, last);
		for (int j = 0; name[j] != '\0'; j++)
			put_le16(e + 56 + 2 * j, (unsigned char)name[j]);
	}
}

/* Write both headers with right checksums. */
static void seal_gpt(void)
{
	for (int copy = 0; copy < 2; copy++) {
		uint8_t *h = image + (copy ? SECTORS - 1 : 1) * 512;

		memcpy(h, "EFI PART", 8);
		put_le32(h + 8, 0x10000);
		put_le32(h + 12, 92);
		put_le32(h + 16, 0);
		put_le64(h + 24, copy ? SECTORS - 1 : 1);
		put_le64(h + 32, copy ? 1 : SECTORS - 1);
		put_le64(h + 72, copy ? SECTORS - 33 : 2);
		put_le32(h + 80, 128);
		put_le32(h + 84, 128);
		put_le32(h + 88, (uint32_t)crc32(0, image + (copy ? SECTORS - 33 : 2) * 512, 128 * 128));
		put_le32(h + 16, (uint32_t)crc32(0, h, 92));
	}
	put_entry(0, 0, 0, 0xee, 1, SECTORS - 1);
}

static void begin_gpt(const char *name)
{
	begin(name);
	put_gpt_entry(0, basic_data, 2048, 4095, "Basic data");
	put_gpt_entry(3, basic_data, 40, 2047, "second");
	seal_gpt();
}

static void test_gpt(void)
{
	struct prep_table t;

	begin_gpt("GPT");
	t = read_table(SIZE);
	check(t.scheme == PREP_TABLE_GPT && t.n == 2 && t.notes.n == 0, "scheme %d, %u parts, %zu notes", t.scheme,
	      t.n, t.notes.n);
	expect_part(&t, 0, 2048, 2048);
	expect_part(&t, 1, 40, 2008);
	check(strcmp(t.part[0].name, "Basic data") == 0, "name '%s'", t.part[0].name);
	check(t.part[1].gpt_id[0] == 0x14, "id %x", t.part[1].gpt_id[0]);
	check(strcmp(prep_partition_type_name(&t, &t.part[0]), "basic data") == 0, "type name");
	end();

	begin_gpt("a damaged primary GPT");
	image[512 + 40] ^= 1;
	t = read_table(SIZE);
	check(t.n == 2 && t.notes.n == 1 && strstr(t.notes.text[0], "its backup was used") != NULL, "%u parts, %zu notes",
	      t.n, t.notes.n);
	prep_table_clear(&t);
	end();

	begin_gpt("a damaged primary table of entries");
	image[2 * 512 + 33] ^= 1;
	t = read_table(SIZE);
	check(t.n == 2 && t.part[0].off == 2048 * 512, "%u parts", t.n);
	prep_table_clear(&t);
	end();

	begin_gpt("a damaged backup GPT");
	image[(SECTORS - 1) * 512] ^= 1;
	t = read_table(SIZE);
	check(t.n == 2 && t.notes.n == 1 && strstr(t.notes.text[0], "backup") != NULL, "%u parts, %zu notes", t.n,
	      t.notes.n);
	prep_table_clear(&t);
	end();

	begin_gpt("both GPTs damaged");
	image[512 + 40] ^= 1;
	image[(SECTORS - 1) * 512 + 40] ^= 1;
	expect_damage("the GPT is damaged");
	end();

	begin_gpt("GPT without its protective MBR");
	memset(image, 0, 512);
	t = read_table(SIZE);
	check(t.scheme == PREP_TABLE_GPT && t.n == 2 && t.notes.n == 1, "scheme %d", t.scheme);
	prep_table_clear(&t);
	end();

	begin_gpt("an MBR over an old GPT");
	put_entry(0, 0, 0, 0x07, 63, 1000);
	t = read_table(SIZE);
	check(t.scheme == PREP_TABLE_MBR && t.n == 1, "scheme %d", t.scheme);
	end();

	begin_gpt("a GPT partition that ends before it begins");
	put_gpt_entry(1, basic_data, 5000, 4999, "");
	seal_gpt();
	expect_damage("partition 2");
	end();

	begin_gpt("a GPT partition beyond the disk");
	put_gpt_entry(1, basic_data, 5000, UINT64_MAX - 1, "");
	seal_gpt();
	expect_damage("partition 2");
	end();

	begin_gpt("GPT partitions that overlap");
	put_gpt_entry(1, basic_data, 4095, 5000, "");
	seal_gpt();
	expect_damage("overlap");
	end();

	begin_gpt("a GPT header that claims a huge table");
	put_le32(image + 512 + 80, 0xffffffff);
	put_le32(image + 512 + 16, 0);
	put_le32(image + 512 + 16, (uint32_t)crc32(0, image + 512, 92));
	t = read_table(SIZE);
	check(t.n == 2 && t.notes.n == 1, "%u parts", t.n);
	prep_table_clear(&t);
	end();

	begin_gpt("LDM on GPT is refused");
	put_gpt_entry(1, ldm_data, 5000, 5999, "LDM");
	seal_gpt();
	t = read_table(SIZE);
	check(strstr(t.refusal, "partition 2") != NULL && strstr(t.refusal, "LDM") != NULL, "refusal '%s'", t.refusal);
	end();

	begin_gpt("Storage Spaces are refused");
	put_gpt_entry(1, storage_spaces, 5000, 5999, "pool");
	seal_gpt();
	t = read_table(SIZE);
	check(strstr(t.refusal, "Storage Spaces") != NULL, "refusal '%s'", t.refusal);
	end();
}

/* ---- Probing ---- */

static void expect_kind(enum prep_fs_kind kind)
{
	struct prep_disk d = disk_of(SIZE);
	struct prep_err err = PREP_ERR_INIT;
	struct prep_table t;
	enum prep_fs_kind got;

	check(prep_fs_probe(&d, &got, &err) == 0, "failed: %s", err.msg);
	check(got == kind, "taken for %s", prep_fs_kind_name(got));
	t = read_table(SIZE);
	check(t.scheme == PREP_TABLE_NONE && t.n == 1, "taken for a partition table of scheme %d", t.scheme);
}

/* A FAT boot sector: FAT32 where root_entries is 0. */
static void put_fat(unsigned root_entries, unsigned per_cluster, unsigned fat)
{
	memcpy(image, "\xeb\x58\x90MSWIN4.1", 11);
	put_le16(image + 11, 512);
	image[13] = (uint8_t)per_cluster;
	put_le16(image + 14, 32);
	image[16] = 2;
	put_le16(image + 17, (uint16_t)root_entries);
	image[21] = 0xf8;
	put_le16(image + 22, root_entries > 0 ? (uint16_t)fat : 0);
	put_le32(image + 32, SECTORS);
	put_le32(image + 36, root_entries > 0 ? 0 : fat);
	put_le16(image + 510, 0xaa55);
}

static void test_probe(void)
{
	static const struct {
		const char *name;
		size_t off;
		const char *bytes;
		size_t len;
		enum prep_fs_kind kind;
	} plain[] = {
		{ "NTFS is known", 0, "\xeb\x52\x90NTFS    ", 11, PREP_FS_NTFS },
		{ "exFAT is known", 0, "\xeb\x76\x90" "EXFAT   ", 11, PREP_FS_EXFAT },
		{ "BitLocker is known", 0, "\xeb\x58\x90-FVE-FS-", 11, PREP_FS_BITLOCKER },
		{ "ReFS is known", 0, "\0\0\0ReFS\0\0\0\0", 11, PREP_FS_REFS },
	};

	for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
		begin(plain[i].name);
		memcpy(image + plain[i].off, plain[i].bytes, plain[i].len);
		put_le16(image + 510, 0xaa55);
		expect_kind(plain[i].kind);
		end();
	}

	begin("FAT16 is known");
	put_fat(512, 1, 32);
	expect_kind(PREP_FS_FAT);
	end();

	begin("FAT32 is known");
	put_fat(0, 1, 64);
	expect_kind(PREP_FS_FAT);
	end();

	begin("BitLocker To Go is not taken for FAT");
	put_fat(0, 1, 64);
	memcpy(image + 0x1a8, "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01", 16);
	expect_kind(PREP_FS_BITLOCKER);
	end();

	begin("a FAT too small for its clusters is none");
	put_fat(0, 1, 3);
	{
		struct prep_disk d = disk_of(SIZE);
		struct prep_err err = PREP_ERR_INIT;
		enum prep_fs_kind got;

		if (prep_fs_probe(&d, &got, &err) < 0)
			check(false, "%s", err.msg);
		else
			check(got == PREP_FS_UNKNOWN, "taken for %s", prep_fs_kind_name(got));
	}
	end();

	begin("LVM is known in each of four sectors");
	for (unsigned i = 0; i < 5; i++) {
		struct prep_disk d = disk_of(SIZE);
		struct prep_err err = PREP_ERR_INIT;
		enum prep_fs_kind got;

		memset(image, 0, 4096);
		memcpy(image + 512 * i, "LABELONE", 8);
		put_le64(image + 512 * i + 8, i);
		check(prep_fs_probe(&d, &got, &err) == 0 && got == (i < 4 ? PREP_FS_LVM : PREP_FS_UNKNOWN), "sector %u: %s", i,
		      prep_fs_kind_name(got));
	}
	end();

	begin("what cannot be opened is refused by name");
	memcpy(image, "\xeb\x58\x90-FVE-FS-", 11);
	{
		struct prep_disk d = disk_of(SIZE);
		struct prep_err err = PREP_ERR_INIT;
		struct prep_fs *fs;

		check(prep_fs_open(&d, 0, &fs, &err) < 0 && err.code == PREP_EREFUSED && fs == NULL &&
			      strstr(err.msg, "disk: encrypted by BitLocker") != NULL, "code %d '%s'", err.code, err.msg);
	}
	end();
}

/* ---- UTF-16 ---- */

static void test_utf16(void)
{
	static const uint8_t text[] = { 'a', 0, 0xe4, 0, 0xac, 0x20, 0x3d, 0xd8, 0x00, 0xde, 0x00, 0xd8, 'b', 0, 0x00, 0xdc };
	const char *utf8 = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbd" "b\xef\xbf\xbd";
	uint16_t units[8];
	char out[32];

	begin("UTF-16 to UTF-8");
	check(prep_utf16_to_utf8(text, 8, out, sizeof out) == strlen(utf8) && strcmp(out, utf8) == 0, "'%s'", out);
	check(prep_utf16_to_utf8(text, 8, out, 6) == 3 && strcmp(out, "a\xc3\xa4") == 0, "cut: '%s'", out);
	end();

	begin("UTF-8 to UTF-16");
	check(prep_utf8_to_utf16("a\xe2\x82\xac\xf0\x9f\x98\x80", 8, units, 8) == 4 && units[0] == 'a' &&
		      units[1] == 0x20ac && units[2] == 0xd83d && units[3] == 0xde00, "wrong units");
	check(prep_utf8_to_utf16("\xc0\xaf", 2, units, 8) < 0, "overlong");
	check(prep_utf8_to_utf16("\xed\xa0\x80", 3, units, 8) < 0, "surrogate");
	check(prep_utf8_to_utf16("\xe2\x82", 2, units, 8) < 0, "cut short");
	check(prep_utf8_to_utf16("\xff", 1, units, 8) < 0, "no UTF-8");
	strcpy(out, "\033[1m\xc3\xa4\n\xc2\x9b\x7f\xc2\xa0\xc2");
	prep_utf8_one_line(out);
	check(strcmp(out, "?[1m\xc3\xa4???\xc2\xa0\xc2") == 0, "one line: '%s'", out);
	check(prep_utf8_to_utf16("\xf4\x90\x80\x80", 4, units, 8) < 0, "beyond Unicode");
	check(prep_utf8_to_utf16("abc", 3, units, 2) < 0, "too long");
	check(prep_utf8_valid("", 0) && prep_utf8_valid("a\xe2\x82\xac\xf0\x9f\x98\x80", 8), "taken for invalid");
	check(!prep_utf8_valid("\xe2\x82\xac", 2) && !prep_utf8_valid("a\xed\xa0\x80", 4), "taken for valid");
	end();
}

int main(void)
{
	image = malloc(SIZE);
	if (image == NULL)
		return 1;
	test_mbr();
	test_gpt();
	test_probe();
	test_utf16();
	free(image);
	return any_failed;
}
