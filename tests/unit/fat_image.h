/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * FAT and exFAT volumes made byte by byte in memory, by the specifications and
 * not by the library's code, so that the two do not share their errors; and
 * the disk that shows them to the library.
 */
#ifndef TESTS_UNIT_FAT_IMAGE_H
#define TESTS_UNIT_FAT_IMAGE_H

#include <stdlib.h>

#include "libprep/base/bytes.h"

#define SECTOR 512u
#define SLOT 32u

struct fat_image {
	uint8_t *p;
	size_t size;
	unsigned bits;        /* 12, 16, 32; 64: exFAT */
	uint32_t cluster_size, clusters;
	uint64_t fat_off, fat_len, root_off, data_off;
	unsigned fats;
	uint32_t root;        /* its first cluster; 0: at root_off */
	uint32_t next;        /* clusters from here on are free */
	uint64_t bitmap_off;  /* exFAT */
};

__attribute__((unused))
static uint64_t fat_at(const struct fat_image *im, uint32_t cluster)
{
	return im->data_off + (uint64_t)(cluster - 2) * im->cluster_size;
}

/* ---- The table ---- */

__attribute__((unused))
static void fat_set_copy(struct fat_image *im, unsigned copy, uint32_t cluster, uint32_t value)
{
	uint8_t *p = im->p + im->fat_off + copy * im->fat_len;

	switch (im->bits) {
	case 12:
		p += cluster / 2 * 3;
		if (cluster & 1) {
			p[1] = (uint8_t)((p[1] & 0x0f) | (value & 0xf) << 4);
			p[2] = (uint8_t)(value >> 4);
		} else {
			p[0] = (uint8_t)value;
			p[1] = (uint8_t)((p[1] & 0xf0) | (value >> 8 & 0xf));
		}
		break;
	case 16:
		put_le16(p + 2 * cluster, (uint16_t)value);
		break;
	case 32:
		put_le32(p + 4 * cluster, (get_le32(p + 4 * cluster) & 0xf0000000) | (value & 0x0fffffff));
		break;
	default:
		put_le32(p + 4 * cluster, value);
	}
}

__attribute__((unused))
static void fat_set(struct fat_image *im, uint32_t cluster, uint32_t value)
{
	for (unsigned i = 0; i < im->fats; i++)
		fat_set_copy(im, i, cluster, value);
}

__attribute__((unused))
static uint32_t fat_get(const struct fat_image *im, unsigned copy, uint32_t cluster)
{
	const uint8_t *p = im->p + im->fat_off + copy * im->fat_len;

	switch (im->bits) {
	case 12:
		p += cluster / 2 * 3;
		return cluster & 1 ? (uint32_t)(p[1] >> 4 | p[2] << 4) : (uint32_t)(p[0] | (p[1] & 0xf) << 8);
	case 16:
		return get_le16(p + 2 * cluster);
	default:
		return get_le32(p + 4 * cluster);
	}
}

__attribute__((unused))
static uint32_t fat_count_free(const struct fat_image *im)
{
	uint32_t n = 0;

	for (uint32_t c = 2; c < im->clusters + 2; c++)
		n += fat_get(im, 0, c) == 0;
	return n;
}

#define FAT_EOC 0xffffffffu /* cut to the width */

__attribute__((unused))
static uint32_t fat_bad_mark(const struct fat_image *im)
{
	return im->bits == 12 ? 0xff7 : im->bits == 16 ? 0xfff7 : im->bits == 32 ? 0x0ffffff7 : 0xfffffff7;
}

__attribute__((unused))
static void fat_mark(struct fat_image *im, uint32_t cluster, bool used)
{
	uint8_t *p = im->p + im->bitmap_off + (cluster - 2) / 8;
	const uint8_t bit = (uint8_t)(1u << (cluster - 2) % 8);

	if (im->bits == 64)
		*p = (uint8_t)(used ? *p | bit : *p & ~bit);
}

/* A chain of n clusters, every stride-th one from im->next on; its first. 0 clusters: 0. */
__attribute__((unused))
static uint32_t fat_chain(struct fat_image *im, uint32_t n, uint32_t stride)
{
	const uint32_t first = im->next;

	for (uint32_t i = 0; i < n; i++, im->next += stride) {
		fat_set(im, im->next, i + 1 < n ? im->next + stride : FAT_EOC);
		fat_mark(im, im->next, true);
	}
	return n > 0 ? first : 0;
}

/* Fill a chain's first bytes with a file's noise, and the rest of its clusters with slack. */
__attribute__((unused))
static void fat_fill(struct fat_image *im, uint32_t first, uint32_t n, uint32_t stride, uint64_t size)
{
	for (uint64_t i = 0; i < (uint64_t)n * im->cluster_size; i++)
		im->p[fat_at(im, first + (uint32_t)(i / im->cluster_size) * stride) + i % im->cluster_size] =
			i < size ? (uint8_t)(1 + (first * 7 + i) % 251) : 0xee;
}

__attribute__((unused))
static uint32_t clusters_of(const struct fat_image *im, uint64_t size)
{
	return (uint32_t)((size + im->cluster_size - 1) / im->cluster_size);
}

/* ---- FAT12, FAT16, FAT32 ---- */

__attribute__((unused))
static void fat_make(struct fat_image *im, unsigned bits, uint32_t clusters, uint32_t per_cluster)
{
	const uint32_t reserved = bits == 32 ? 32 : 1, root_entries = bits == 32 ? 0 : 64;
	const uint32_t fat = (uint32_t)(((uint64_t)(clusters + 2) * bits / 8 + SECTOR) / SECTOR);
	const uint32_t meta = reserved + 2 * fat + root_entries * SLOT / SECTOR;
	const uint32_t sectors = meta + clusters * per_cluster;
	uint8_t *p, *x;

	*im = (struct fat_image){
		.p = calloc(sectors, SECTOR), .size = (size_t)sectors * SECTOR, .bits = bits,
		.cluster_size = per_cluster * SECTOR, .clusters = clusters,
		.fat_off = reserved * SECTOR, .fat_len = fat * SECTOR, .fats = 2,
		.root_off = (uint64_t)(reserved + 2 * fat) * SECTOR, .data_off = (uint64_t)meta * SECTOR,
		.next = 2,
	};
	p = im->p;
	memcpy(p, "\xeb\x58\x90MSWIN4.1", 11);
	put_le16(p + 11, SECTOR);
	p[13] = (uint8_t)per_cluster;
	put_le16(p + 14, (uint16_t)reserved);
	p[16] = 2;
	put_le16(p + 17, (uint16_t)root_entries);
	if (sectors < 65536 && bits != 32)
		put_le16(p + 19, (uint16_t)sectors);
	else
		put_le32(p + 32, sectors);
	p[21] = 0xf8;
	put_le16(p + 24, 63);
	put_le16(p + 26, 255);
	if (bits == 32)
		put_le32(p + 36, fat);
	else
		put_le16(p + 22, (uint16_t)fat);
	x = p + (bits == 32 ? 64 : 36);
	x[2] = 0x29;
	put_le32(x + 3, 0x12345678);
	memcpy(x + 7, "SAMPLE     ", 11);
	put_le16(p + 510, 0xaa55);
	fat_set(im, 0, 0xfffffff8);
	fat_set(im, 1, FAT_EOC);
	if (bits == 32) {
		im->root = fat_chain(im, 2, 1);
		put_le32(p + 44, im->root);
		put_le16(p + 48, 1);
		put_le16(p + 50, 6);
		memcpy(p + SECTOR, "RRaA", 4);
		memcpy(p + SECTOR + 484, "rrAa", 4);
		put_le32(p + SECTOR + 488, 0xffffffff);
		put_le32(p + SECTOR + 492, 3);
		put_le32(p + SECTOR + 508, 0xaa550000);
		memcpy(p + 6 * SECTOR, p, SECTOR);
	}
}

/* The first free slot of a folder: its clusters follow each other. */
__attribute__((unused))
static uint64_t fat_slot(const struct fat_image *im, uint32_t folder)
{
	uint64_t off = folder == 0 ? im->root_off : fat_at(im, folder);

	while (im->p[off] != 0)
		off += SLOT;
	return off;
}

__attribute__((unused))
static uint8_t fat_checksum(const char *name)
{
	uint8_t sum = 0;

	for (int i = 0; i < 11; i++)
		sum = (uint8_t)((sum << 7 | sum >> 1) + (uint8_t)name[i]);
	return sum;
}

/* Put a long name (ASCII) before its short entry. */
__attribute__((unused))
static uint64_t fat_put_long(struct fat_image *im, uint64_t off, const char *name, uint8_t checksum)
{
	static const uint8_t place[13] = { 1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30 };
	const size_t len = strlen(name), slots = (len + 12) / 13;

	for (size_t i = slots; i > 0; i--, off += SLOT) {
		uint8_t *p = im->p + off;

		p[0] = (uint8_t)(i | (i == slots ? 0x40 : 0));
		p[11] = 0x0f;
		p[13] = checksum;
		for (size_t j = 0; j < 13; j++) {
			const size_t at = (i - 1) * 13 + j;

			put_le16(p + place[j], at < len ? (uint8_t)name[at] : at == len ? 0 : 0xffff);
		}
	}
	return off;
}

/* An entry; where its short slot is. name: NULL where there is no long one; shortname: 11 characters. */
__attribute__((unused))
static uint64_t fat_entry(struct fat_image *im, uint32_t folder, const char *name, const char *shortname,
			  uint8_t attributes, uint32_t first, uint32_t size)
{
	uint64_t off = fat_slot(im, folder);
	uint8_t *p;

	if (name != NULL)
		off = fat_put_long(im, off, name, fat_checksum(shortname));
	p = im->p + off;
	memcpy(p, shortname, 11);
	p[11] = attributes;
	put_le16(p + 20, (uint16_t)(first >> 16));
	put_le16(p + 26, (uint16_t)first);
	put_le32(p + 28, size);
	return off;
}

/* A file with its clusters; where its short slot is. */
__attribute__((unused))
static uint64_t fat_file(struct fat_image *im, uint32_t folder, const char *name, const char *shortname,
			 uint32_t size, uint32_t stride)
{
	const uint32_t n = clusters_of(im, size), first = fat_chain(im, n, stride);

	fat_fill(im, first, n, stride, size);
	return fat_entry(im, folder, name, shortname, 0x20, first, size);
}

/* A folder of two clusters; its first. */
__attribute__((unused))
static uint32_t fat_folder(struct fat_image *im, uint32_t parent, const char *name, const char *shortname)
{
	const uint32_t first = fat_chain(im, 2, 1);

	fat_entry(im, parent, name, shortname, 0x10, first, 0);
	fat_entry(im, first, NULL, ".          ", 0x10, first, 0);
	fat_entry(im, first, NULL, "..         ", 0x10, parent == im->root ? 0 : parent, 0);
	return first;
}

/* The first cluster that the entry at `off` names. */
__attribute__((unused))
static uint32_t fat_first(const struct fat_image *im, uint64_t off)
{
	return (uint32_t)get_le16(im->p + off + 20) << 16 | get_le16(im->p + off + 26);
}

/* ---- exFAT ---- */

#define EXFAT_CONTIGUOUS 2u

__attribute__((unused))
static uint32_t exfat_sum32(const uint8_t *p, size_t len, bool boot)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		if (!boot || (i != 106 && i != 107 && i != 112))
			sum = (sum << 31 | sum >> 1) + p[i];
	return sum;
}

/* The boot region's checksum, and its copy. */
__attribute__((unused))
static void exfat_seal_boot(struct fat_image *im)
{
	const uint32_t sum = exfat_sum32(im->p, 11 * SECTOR, true);

	for (unsigned i = 0; i < SECTOR; i += 4)
		put_le32(im->p + 11 * SECTOR + i, sum);
	memcpy(im->p + 12 * SECTOR, im->p, 12 * SECTOR);
}

__attribute__((unused))
static void exfat_make(struct fat_image *im, uint32_t clusters, unsigned per_cluster_bits)
{
	const uint32_t fat_sectors = ((clusters + 2) * 4 + SECTOR - 1) / SECTOR;
	const uint32_t heap = (24 + fat_sectors + 63) / 64 * 64;
	const uint32_t sectors = heap + (clusters << per_cluster_bits);
	uint8_t table[60], *p;
	uint32_t first;

	*im = (struct fat_image){
		.p = calloc(sectors, SECTOR), .size = (size_t)sectors * SECTOR, .bits = 64,
		.cluster_size = SECTOR << per_cluster_bits, .clusters = clusters,
		.fat_off = 24 * SECTOR, .fat_len = (uint64_t)fat_sectors * SECTOR, .fats = 1,
		.data_off = (uint64_t)heap * SECTOR, .next = 2,
	};
	p = im->p;
	memcpy(p, "\xeb\x76\x90" "EXFAT   ", 11);
	put_le64(p + 72, sectors);
	put_le32(p + 80, 24);
	put_le32(p + 84, fat_sectors);
	put_le32(p + 88, heap);
	put_le32(p + 92, clusters);
	put_le32(p + 100, 0x12345678);
	put_le16(p + 104, 0x0100);
	p[108] = 9;
	p[109] = (uint8_t)per_cluster_bits;
	p[110] = 1;
	p[111] = 0x80;
	p[112] = 50;
	put_le16(p + 510, 0xaa55);
	for (unsigned i = 1; i < 9; i++)
		put_le32(p + i * SECTOR + 508, 0xaa550000);
	fat_set(im, 0, 0xfffffff8);
	fat_set(im, 1, FAT_EOC);
	im->bitmap_off = im->data_off;
	first = fat_chain(im, clusters_of(im, (clusters + 7) / 8), 1);
	/* Identity but for a to z, in the compressed form. */
	put_le16(table, 0xffff);
	put_le16(table + 2, 'a');
	for (unsigned i = 0; i < 26; i++)
		put_le16(table + 4 + 2 * i, (uint16_t)('A' + i));
	put_le16(table + 56, 0xffff);
	put_le16(table + 58, (uint16_t)(0x10000 - 'z' - 1));
	memcpy(p + fat_at(im, im->next), table, sizeof table);
	im->root = im->next + 1;
	fat_chain(im, 1, 1);
	fat_chain(im, 2, 1);
	put_le32(p + 96, im->root);
	p += fat_at(im, im->root);
	p[0] = 0x83;
	p[1] = 5;
	for (unsigned i = 0; i < 5; i++)
		put_le16(p + 2 + 2 * i, (uint16_t)"LABEL"[i]);
	p[32] = 0x81;
	put_le32(p + 52, first);
	put_le64(p + 56, (clusters + 7) / 8);
	p[64] = 0x82;
	put_le32(p + 68, exfat_sum32(table, sizeof table, false));
	put_le32(p + 84, im->root - 1);
	put_le64(p + 88, sizeof table);
	exfat_seal_boot(im);
}

/* The checksum of the set at `off`. */
__attribute__((unused))
static void exfat_seal_set(struct fat_image *im, uint64_t off)
{
	uint8_t *p = im->p + off;
	uint16_t sum = 0;

	for (unsigned i = 0; i < (p[1] + 1u) * SLOT; i++)
		if (i != 2 && i != 3)
			sum = (uint16_t)(((uint32_t)sum << 15 | sum >> 1) + p[i]);
	put_le16(p + 2, sum);
}

/* A set of entries in a folder, which is contiguous in the image; where it begins. */
__attribute__((unused))
static uint64_t exfat_entry(struct fat_image *im, uint32_t folder, const char *name, uint16_t attributes,
			    unsigned flags, uint32_t first, uint64_t valid, uint64_t size)
{
	const uint64_t off = fat_slot(im, folder);
	const size_t len = strlen(name), names = (len + 14) / 15;
	uint8_t *p = im->p + off;
	uint16_t hash = 0;

	for (size_t i = 0; i < len; i++) {
		const uint8_t c = (uint8_t)(name[i] >= 'a' && name[i] <= 'z' ? name[i] - 32 : name[i]);

		hash = (uint16_t)(((uint32_t)hash << 15 | hash >> 1) + c);
		hash = (uint16_t)((uint32_t)hash << 15 | hash >> 1);
		put_le16(p + 64 + i / 15 * SLOT + 2 + 2 * (i % 15), (uint8_t)name[i]);
	}
	p[0] = 0x85;
	p[1] = (uint8_t)(1 + names);
	put_le16(p + 4, attributes);
	/* 1 January 2010 */
	for (unsigned i = 8; i < 20; i += 4)
		put_le32(p + i, 30u << 25 | 1u << 21 | 1u << 16);
	p[32] = 0xc0;
	p[33] = (uint8_t)(1 | flags);
	p[35] = (uint8_t)len;
	put_le16(p + 36, hash);
	put_le64(p + 40, valid);
	put_le32(p + 52, first);
	put_le64(p + 56, size);
	for (size_t i = 0; i < names; i++)
		p[64 + i * SLOT] = 0xc1;
	exfat_seal_set(im, off);
	return off;
}

/* A file with its clusters: contiguous (stride 0, and not in the FAT), or a chain. */
__attribute__((unused))
static uint64_t exfat_file(struct fat_image *im, uint32_t folder, const char *name, uint64_t valid,
			   uint64_t size, uint32_t stride)
{
	const uint32_t n = clusters_of(im, size), step = stride == 0 ? 1 : stride, first = fat_chain(im, n, step);

	fat_fill(im, first, n, step, valid);
	for (uint32_t i = 0; stride == 0 && i < n; i++)
		fat_set(im, first + i, 0);
	return exfat_entry(im, folder, name, 0x20, stride == 0 && n > 0 ? EXFAT_CONTIGUOUS : 0, first, valid, size);
}

/* A folder of two clusters; its first. */
__attribute__((unused))
static uint32_t exfat_folder(struct fat_image *im, uint32_t parent, const char *name, bool contiguous)
{
	const uint64_t size = 2 * (uint64_t)im->cluster_size;
	const uint32_t first = fat_chain(im, 2, 1);

	if (contiguous) {
		fat_set(im, first, 0);
		fat_set(im, first + 1, 0);
	}
	exfat_entry(im, parent, name, 0x10, contiguous ? EXFAT_CONTIGUOUS : 0, first, size, size);
	return first;
}

/* ---- Samples ---- */

/* Files of every shape. What the tests look for in it they find by name. */
__attribute__((unused))
static void fat_sample(struct fat_image *im, unsigned bits)
{
	uint32_t windows, temp, deep;
	uint64_t off;

	fat_make(im, bits, bits == 16 ? 4200 : 400, bits == 16 ? 1 : 4);
	fat_entry(im, im->root, NULL, "SAMPLE     ", 0x08, 0, 0);
	windows = fat_folder(im, im->root, NULL, "WINDOWS    ");
	fat_file(im, im->root, "A long name, of more than one slot.txt", "ALONGN~1TXT", 5000, 1);
	fat_file(im, im->root, NULL, "PIECES  BIN", 20000, 2);
	fat_file(im, im->root, NULL, "EMPTY      ", 0, 1);
	fat_file(im, im->root, "pagefile.sys", "PAGEFILESYS", 30000, 1);
	temp = fat_folder(im, windows, "Temp", "TEMP       ");
	fat_file(im, temp, NULL, "ONE     TMP", 1000, 1);
	fat_file(im, temp, "~two.tmp with spaces", "TWO~1   TMP", 2000, 3);
	deep = fat_folder(im, temp, "a folder below", "AFOLDE~1   ");
	fat_file(im, deep, NULL, "DEEP    DAT", 3000, 1);
	/* "caf\x82" of code page 850, and Windows NT's lower case */
	off = fat_file(im, windows, NULL, "CAF\x82    TXT", 10, 1);
	im->p[off + 12] = 0x10;
	/* Removed: the residue stays in the cluster and in the folder. */
	off = fat_file(im, windows, NULL, "GONE    BIN", 4000, 1);
	for (uint32_t c = fat_first(im, off); c < im->next; c++)
		fat_set(im, c, 0);
	im->p[off] = 0xe5;
	im->p[fat_at(im, im->clusters)] = 0xdd;
	fat_set(im, im->clusters - 5, fat_bad_mark(im));
	if (bits == 32)
		put_le32(im->p + SECTOR + 488, fat_count_free(im));
}

__attribute__((unused))
static void exfat_sample(struct fat_image *im)
{
	uint32_t chained, contiguous;
	uint64_t off;

	exfat_make(im, 600, 2);
	chained = exfat_folder(im, im->root, "Chained", false);
	contiguous = exfat_folder(im, im->root, "Contiguous", true);
	exfat_file(im, im->root, "a long name of more than one entry.txt", 5000, 5000, 0);
	exfat_file(im, im->root, "pieces.bin", 20000, 20000, 2);
	exfat_file(im, im->root, "empty", 0, 0, 0);
	exfat_file(im, im->root, "preallocated", 3000, 30000, 0);
	for (unsigned i = 0; i < 30; i++) {
		char name[16] = "file 00.dat";

		name[5] = (char)('0' + i / 10);
		name[6] = (char)('0' + i % 10);
		exfat_file(im, i & 1 ? chained : contiguous, name, 1000 + 50 * i, 1000 + 50 * i, i % 3);
	}
	exfat_file(im, exfat_folder(im, contiguous, "below", true), "deep.dat", 3000, 3000, 1);
	/* Removed */
	off = exfat_file(im, im->root, "gone.bin", 4000, 4000, 0);
	for (uint32_t i = 0; i < 2; i++)
		fat_mark(im, get_le32(im->p + off + 52) + i, false);
	for (unsigned i = 0; i < 3; i++)
		im->p[off + i * SLOT] &= 0x7f;
	im->p[112] = 10;
}

#endif
