/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Opening FAT12, FAT16 and FAT32. Offsets are those of the boot sector in
 * fatgen103, "FAT Type Determination" and the tables before it.
 */
#include <stdio.h>
#include <stdlib.h>

/* libntfs-3g's headers take these for granted. */
#include <stdarg.h>
#include <sys/types.h>
#include <sys/stat.h>
#include <time.h>

#include <ntfs-3g/types.h>
#include <ntfs-3g/volume.h>
#include <ntfs-3g/unistr.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"
#include "libprep/base/utf16.h"

#define CLUSTERS_12 4085u  /* and more are no FAT12 */
#define CLUSTERS_16 65525u

static int bad_boot(struct prep_fat *f, const char *what, struct prep_err *err)
{
	return prep_fail(err, PREP_EDAMAGED, "%s: the FAT boot sector is damaged: %s", f->disk->name, what);
}

/* ---- Parts of opening that exFAT has too ---- */

struct prep_fat *prep_fat_new(struct prep_disk *volume, const struct prep_fat_format *format)
{
	struct prep_fat *f = calloc(1, sizeof *f);

	if (f == NULL)
		return NULL;
	f->page = malloc((size_t)PREP_FAT_PAGES * PREP_FAT_PAGE);
	if (f->page == NULL) {
		free(f);
		return NULL;
	}
	f->fs.volume = volume;
	f->disk = volume;
	f->format = format;
	return f;
}

void prep_fat_free(struct prep_fat *f)
{
	free(f->page);
	free(f->bitmap);
	free(f->upcase);
	free(f->last);
	free(f);
}

void prep_fat_obstacle(struct prep_fat *f, unsigned obstacle, const char *text)
{
	struct prep_fs_info *info = &f->fs.info;
	const size_t len = strlen(info->obstacle_text);

	info->obstacles |= obstacle;
	snprintf(info->obstacle_text + len, sizeof info->obstacle_text - len, "%s%s", len > 0 ? "; " : "", text);
}

static bool is_hiberfile(const struct prep_fat_entry *e)
{
	static const char name[] = "HIBERFIL.SYS";

	if (e->kind != PREP_FAT_FILE || e->folder || e->units != sizeof name - 1)
		return false;
	for (unsigned i = 0; i < e->units; i++)
		if ((get_le16(e->name + 2 * i) | 0x20) != (name[i] | 0x20))
			return false;
	return true;
}

/* As on NTFS: "hibr" is a session to be resumed, "rstr" one that was being resumed, "wake" or zeros one that was. */
static int check_hiberfile(struct prep_fat *f, const struct prep_fat_entry *e, struct prep_err *err)
{
	uint8_t p[4];
	char text[96];

	if (e->size < 4096 || !prep_fat_is_cluster(f, e->first))
		return 0;
	if (prep_disk_read(f->disk, p, sizeof p, prep_fat_offset(f, e->first), err) < 0)
		return -1;
	if (memcmp(p, "hibr", 4) != 0 && memcmp(p, "HIBR", 4) != 0 && memcmp(p, "rstr", 4) != 0 &&
	    memcmp(p, "RSTR", 4) != 0)
		return 0;
	snprintf(text, sizeof text, "Windows is hibernated (/hiberfil.sys holds a suspended session of %llu MiB)",
		 (unsigned long long)(e->size >> 20));
	prep_fat_obstacle(f, PREP_FS_HIBERNATED, text);
	return 0;
}

/* The root tells the label, and of a suspended session. What is damaged there is the audit's to say. */
static int look_over_root(struct prep_fat *f, struct prep_err *err)
{
	struct prep_fat_entry *e = malloc(sizeof *e);
	struct prep_fat_dir root = prep_fat_root(f);
	int r;

	if (e == NULL)
		return prep_fail_nomem(err);
	root.lenient = true;
	while ((r = f->format->next_entry(&root, e, err)) > 0) {
		if (e->kind == PREP_FAT_LABEL)
			prep_utf16_to_utf8(e->name, e->units, f->fs.info.label, sizeof f->fs.info.label);
		if (is_hiberfile(e) && check_hiberfile(f, e, err) < 0) {
			r = -1;
			break;
		}
	}
	free(e);
	return r;
}

static int refuse_obstacles(struct prep_fat *f, unsigned flags, struct prep_err *err)
{
	const struct prep_fs_info *info = &f->fs.info;
	unsigned in_the_way = info->obstacles;

	if (flags & PREP_FS_DISCARD_HIBERNATION)
		in_the_way &= ~(unsigned)PREP_FS_HIBERNATED;
	if (in_the_way == 0)
		return 0;
	return prep_fail(err, PREP_EREFUSED, "%s: %s: %s", f->disk->name, info->obstacle_text,
			 prep_fs_advice(in_the_way));
}

static int fat_close(struct prep_fs *fs, struct prep_err *err)
{
	struct prep_fat *f = (struct prep_fat *)fs;
	int r = 0;

	if (f->write && f->changed)
		r = f->format->finish(f, err);
	prep_fat_free(f);
	return r;
}

static size_t fat_marks(struct prep_fs *fs, const struct prep_fs_run **ret)
{
	struct prep_fat *f = (struct prep_fat *)fs;

	f->table = (struct prep_fs_run){ 0, f->fat_off + f->active * f->fat_len,
					 prep_min(f->fat_len, ((uint64_t)f->clusters + 2) * f->bits / 8 + 1) };
	*ret = f->exfat ? f->bitmap : &f->table;
	return f->exfat ? f->bitmap_runs : 1;
}

static const struct prep_fs_ops fat_ops = {
	.close = fat_close,
	.audit = prep_fat_audit,
	.walk = prep_fat_walk,
	.marks = fat_marks,
	.find = prep_fat_find,
	.remove = prep_fat_remove,
};

int prep_fat_finish_open(struct prep_fat *f, unsigned flags, struct prep_fs **ret, struct prep_err *err)
{
	struct prep_fs_info *info = &f->fs.info;

	f->fs.ops = &fat_ops;
	info->kind = f->exfat ? PREP_FS_EXFAT : PREP_FS_FAT;
	info->cluster_size = f->cluster_size;
	info->clusters = f->clusters;
	info->clusters_off = f->data_off;
	if (look_over_root(f, err) < 0 || ((flags & PREP_FS_WRITE) && refuse_obstacles(f, flags, err) < 0)) {
		prep_fat_free(f);
		return -1;
	}
	f->write = (flags & PREP_FS_WRITE) != 0;
	*ret = &f->fs;
	return 0;
}

/* ---- The boot sector ---- */

/* FAT32's own fields. */
static int check_boot32(struct prep_fat *f, const uint8_t *p, uint32_t reserved, struct prep_err *err)
{
	const uint32_t flags = get_le16(p + 40), info = get_le16(p + 48), backup = get_le16(p + 50);

	if (get_le16(p + 42) != 0)
		return prep_fail(err, PREP_EREFUSED, "%s: FAT32 of version %u.%u, which is not known here",
				 f->disk->name, p[43], p[42]);
	/* Bit 7: only the copy of this number is kept up to date. */
	f->mirrored = !(flags & 0x80);
	f->active = f->mirrored ? 0 : flags & 0xf;
	if (f->active >= f->fats)
		return bad_boot(f, "the active copy of the FAT is one that it does not have", err);
	f->root_cluster = get_le32(p + 44);
	if (!prep_fat_is_cluster(f, f->root_cluster))
		return bad_boot(f, "the root folder lies outside the volume", err);
	if (info != 0 && info < reserved)
		f->info_off = (uint64_t)info * f->sector;
	if (backup != 0 && backup < reserved)
		f->backup_off = (uint64_t)backup * f->sector;
	return 0;
}

static int check_boot(struct prep_fat *f, uint8_t *p, struct prep_err *err)
{
	uint32_t per_cluster, reserved, root_entries, fat_sectors;
	uint64_t sectors, meta, clusters;

	if (prep_disk_read(f->disk, p, 512, 0, err) < 0)
		return -1;
	f->sector = get_le16(p + 11);
	per_cluster = p[13];
	reserved = get_le16(p + 14);
	f->fats = p[16];
	root_entries = get_le16(p + 17);
	sectors = get_le16(p + 19) != 0 ? get_le16(p + 19) : get_le32(p + 32);
	fat_sectors = get_le16(p + 22);
	if (!prep_is_pow2(f->sector) || f->sector < 512 || f->sector > 4096)
		return bad_boot(f, "an impossible sector size", err);
	if (!prep_is_pow2(per_cluster))
		return bad_boot(f, "an impossible cluster size", err);
	if (reserved == 0 || f->fats == 0)
		return bad_boot(f, "no reserved sectors, or no FAT", err);
	if (fat_sectors == 0 && root_entries == 0)
		f->bits = 32;
	else if (fat_sectors == 0 || root_entries == 0)
		return bad_boot(f, "it is neither FAT16's nor FAT32's", err);
	if (f->bits == 32)
		fat_sectors = get_le32(p + 36);
	f->cluster_size = per_cluster * f->sector;
	f->fat_off = (uint64_t)reserved * f->sector;
	f->fat_len = (uint64_t)fat_sectors * f->sector;
	f->root_off = f->fat_off + f->fats * f->fat_len;
	f->root_len = root_entries * PREP_FAT_SLOT;
	meta = f->root_off / f->sector + ((uint64_t)f->root_len + f->sector - 1) / f->sector;
	f->data_off = meta * f->sector;
	if (sectors <= meta || sectors > f->disk->size / f->sector)
		return prep_fail(err, PREP_EDAMAGED, "%s: the FAT volume has %llu sectors of %u bytes: %s", f->disk->name,
				 (unsigned long long)sectors, (unsigned)f->sector,
				 sectors <= meta ? "too few for its tables" : "more than the partition holds");
	clusters = (sectors - meta) / per_cluster;
	if (f->bits == 0)
		f->bits = clusters < CLUSTERS_12 ? 12 : 16;
	/* Drivers tell FAT32 by its fields; formatters make it smaller than the specification allows. */
	if (clusters == 0 || (f->bits == 16 && clusters >= CLUSTERS_16) || clusters > 0x0ffffff5)
		return bad_boot(f, "an impossible number of clusters", err);
	f->clusters = (uint32_t)clusters;
	if (((clusters + 2) * f->bits + 7) / 8 > f->fat_len)
		return bad_boot(f, "the FAT is too short for the clusters", err);
	f->mirrored = true;
	snprintf(f->fs.info.version, sizeof f->fs.info.version, "%u", f->bits);
	return f->bits == 32 ? check_boot32(f, p, reserved, err) : 0;
}

/* What follows the BPB: volume number and label where the signature stands, and Windows NT's state. */
static void read_extended(struct prep_fat *f, const uint8_t *p)
{
	const uint8_t *const x = p + (f->bits == 32 ? 64 : 36);
	struct prep_fs_info *info = &f->fs.info;
	uint8_t text[2 * 11];

	if (x[2] == 0x28 || x[2] == 0x29)
		info->serial = get_le32(x + 3);
	if (x[2] == 0x29 && memcmp(x + 7, "NO NAME    ", 11) != 0 && x[7] >= ' ')
		prep_utf16_to_utf8(text, prep_fat_oem_to_utf16(x + 7, 11, text), info->label, sizeof info->label);
	if (x[1] & 1)
		prep_fat_obstacle(f, PREP_FS_DIRTY, "the volume is dirty (its flag in the boot sector is set)");
	if (x[1] & 2)
		prep_fat_obstacle(f, PREP_FS_DIRTY, "read or write errors were met (the flag in the boot sector is set)");
}

/* The second entry of the FAT is an end marker whose upper bits are cleared when something is wrong; not on FAT12. */
static int check_state(struct prep_fat *f, struct prep_err *err)
{
	uint8_t p[8];
	uint32_t v;

	if (f->bits == 12)
		return 0;
	if (prep_disk_read(f->disk, p, sizeof p, f->fat_off + f->active * f->fat_len, err) < 0)
		return -1;
	v = f->bits == 16 ? get_le16(p + 2) >> 14 : get_le32(p + 4) >> 26;
	if (!(v & 2))
		prep_fat_obstacle(f, PREP_FS_DIRTY, "the volume is dirty (its clean bit in the FAT is not set)");
	if (!(v & 1))
		prep_fat_obstacle(f, PREP_FS_DIRTY, "read or write errors were met (the bit in the FAT is not set)");
	return 0;
}

/* ---- The format ---- */

static uint8_t freed_mark(uint8_t mark)
{
	(void)mark;
	return 0xe5;
}

/* Windows compares names here as on NTFS: by its one table, which libntfs-3g has. */
static int load_upcase(struct prep_fat *f, struct prep_err *err)
{
	ntfschar *table = calloc(65536, sizeof *table);

	if (table == NULL)
		return prep_fail_nomem(err);
	ntfs_upcase_table_build(table, 65536 * sizeof *table);
	for (uint32_t i = 0; i < 65536; i++)
		f->upcase[i] = get_le16(&table[i]);
	free(table);
	return 0;
}

static int count_free(void *arg, uint32_t cluster, uint32_t value, struct prep_err *err)
{
	uint32_t *n = arg;

	(void)cluster;
	(void)err;
	*n += value == PREP_FAT_FREE;
	return 0;
}

/* FSInfo: the number of free clusters, where it is kept. */
static int finish(struct prep_fat *f, struct prep_err *err)
{
	uint8_t p[512];
	uint32_t n = 0;

	if (f->info_off == 0)
		return 0;
	if (prep_disk_read(f->disk, p, sizeof p, f->info_off, err) < 0)
		return -1;
	if (get_le32(p) != 0x41615252 || get_le32(p + 484) != 0x61417272 || get_le32(p + 508) != 0xaa550000)
		return 0;
	if (prep_fat_scan(f, count_free, &n, err) < 0)
		return -1;
	put_le32(p + 488, n);
	return prep_disk_write(f->disk, p + 488, 4, f->info_off + 488, err);
}

static const struct prep_fat_format fat_format = {
	.next_entry = prep_fat_next_entry,
	.load_upcase = load_upcase,
	.free_clusters = prep_fat_clear,
	.freed_mark = freed_mark,
	.finish = finish,
};

int prep_fat_open(struct prep_disk *volume, unsigned flags, struct prep_fs **ret,
		  struct prep_err *err)
{
	struct prep_fat *f = prep_fat_new(volume, &fat_format);
	uint8_t boot[512];

	if (f == NULL)
		return prep_fail_nomem(err);
	if (check_boot(f, boot, err) < 0) {
		prep_fat_free(f);
		return -1;
	}
	read_extended(f, boot);
	if (check_state(f, err) < 0) {
		prep_fat_free(f);
		return -1;
	}
	return prep_fat_finish_open(f, flags, ret, err);
}
