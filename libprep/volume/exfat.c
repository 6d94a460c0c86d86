/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Opening exFAT. Offsets are those of the main boot sector (3.1).
 */
#include <stdio.h>
#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"

#define BOOT_SECTORS 12u        /* of a boot region; the last is the checksum, again and again */
#define CLUSTERS_MAX (1u << 30) /* what takes a bit a cluster stays within bounds */

static int bad_boot(struct prep_fat *f, const char *what, struct prep_err *err)
{
	return prep_fail(err, PREP_EDAMAGED, "%s: the exFAT boot sector is damaged: %s", f->disk->name, what);
}

/* 3.4: over the first eleven sectors, but for VolumeFlags and PercentInUse, which change all the time. */
int prep_exfat_boot_sound(struct prep_fat *f, uint64_t off, struct prep_err *err)
{
	const size_t len = (size_t)(BOOT_SECTORS - 1) * f->sector;
	uint8_t *p = malloc(len + f->sector);
	uint32_t sum = 0;
	int r = 1;

	if (p == NULL)
		return prep_fail_nomem(err);
	if (prep_disk_read(f->disk, p, len + f->sector, off, err) < 0) {
		free(p);
		return -1;
	}
	for (size_t i = 0; i < len; i++)
		if (i != 106 && i != 107 && i != 112)
			sum = (sum << 31 | sum >> 1) + p[i];
	for (size_t i = 0; i < f->sector; i += 4)
		if (get_le32(p + len + i) != sum)
			r = 0;
	free(p);
	return r;
}

static int check_layout(struct prep_fat *f, const uint8_t *p, struct prep_err *err)
{
	const uint64_t sectors = get_le64(p + 72), fat = get_le32(p + 80), fat_sectors = get_le32(p + 84);
	const uint64_t heap = get_le32(p + 88), clusters = get_le32(p + 92);
	const unsigned sector_bits = p[108], cluster_bits = p[109];

	if (sector_bits < 9 || sector_bits > 12)
		return bad_boot(f, "an impossible sector size", err);
	if (cluster_bits > 25 - sector_bits)
		return bad_boot(f, "an impossible cluster size", err);
	f->sector = 1u << sector_bits;
	f->cluster_size = f->sector << cluster_bits;
	if (sectors > f->disk->size / f->sector)
		return prep_fail(err, PREP_EDAMAGED,
				 "%s: the exFAT volume has %llu sectors of %u bytes, more than the partition holds (%llu bytes)",
				 f->disk->name, (unsigned long long)sectors, (unsigned)f->sector,
				 (unsigned long long)f->disk->size);
	if (fat < 2 * BOOT_SECTORS || fat + fat_sectors > heap || heap > sectors)
		return bad_boot(f, "its parts overlap", err);
	if (clusters == 0 || clusters > (sectors - heap) >> cluster_bits)
		return bad_boot(f, "an impossible number of clusters", err);
	if ((clusters + 2) * 4 > fat_sectors << sector_bits)
		return bad_boot(f, "the FAT is too short for the clusters", err);
	if (clusters > CLUSTERS_MAX)
		return prep_fail(err, PREP_EREFUSED, "%s: exFAT with %llu clusters, more than can be handled here",
				 f->disk->name, (unsigned long long)clusters);
	f->clusters = (uint32_t)clusters;
	f->fat_off = fat << sector_bits;
	f->fat_len = fat_sectors << sector_bits;
	f->data_off = heap << sector_bits;
	f->root_cluster = get_le32(p + 96);
	if (!prep_fat_is_cluster(f, f->root_cluster))
		return bad_boot(f, "the root folder lies outside the volume", err);
	return 0;
}

static int check_boot(struct prep_fat *f, struct prep_err *err)
{
	const unsigned flags_dirty = 2, flags_failure = 4;
	uint8_t p[512];
	unsigned flags;
	int r;

	if (f->disk->size < sizeof p)
		return bad_boot(f, "the volume is too small", err);
	if (prep_disk_read(f->disk, p, sizeof p, 0, err) < 0)
		return -1;
	/* Where FAT has its parameters there are zeros, so that nobody takes it for that. */
	if (get_le16(p + 510) != 0xaa55 || !prep_is_zero(p + 11, 53))
		return bad_boot(f, "it has no signature, or not the zeros that it has to have", err);
	snprintf(f->fs.info.version, sizeof f->fs.info.version, "%u.%u", p[105], p[104]);
	if (p[105] != 1)
		return prep_fail(err, PREP_EREFUSED, "%s: exFAT of version %s, which is not known here", f->disk->name,
				 f->fs.info.version);
	if (p[110] == 2)
		return prep_fail(err, PREP_EREFUSED, "%s: exFAT with two FATs (TexFAT), which is not known here",
				 f->disk->name);
	if (p[110] != 1)
		return bad_boot(f, "an impossible number of FATs", err);
	if (check_layout(f, p, err) < 0)
		return -1;
	r = prep_exfat_boot_sound(f, 0, err);
	if (r <= 0)
		return r < 0 ? -1 : bad_boot(f, "the boot region's checksum is wrong", err);
	f->backup_off = (uint64_t)BOOT_SECTORS * f->sector;
	f->bits = 32;
	f->fats = 1;
	f->mirrored = true;
	f->fs.info.serial = get_le32(p + 100);
	flags = get_le16(p + 106);
	if (flags & flags_dirty)
		prep_fat_obstacle(f, PREP_FS_DIRTY, "the volume is dirty (VolumeDirty in the boot sector is set)");
	if (flags & flags_failure)
		prep_fat_obstacle(f, PREP_FS_DIRTY,
				  "read or write errors were met (MediaFailure in the boot sector is set)");
	return 0;
}

/* ---- The bitmap and the up-case table, which the root leads to ---- */

static int map_bitmap(struct prep_fat *f, const struct prep_fat_entry *e, struct prep_err *err)
{
	const uint64_t need = ((uint64_t)f->clusters + 7) / 8;
	struct prep_fat_chain c = prep_fat_chain_of(f, e->first, false, prep_fat_clusters_of(f, need));
	uint32_t first, count;
	uint64_t at = 0;
	size_t room = 0;
	int r;

	while ((r = prep_fat_chain_next(&c, &first, &count, err)) > 0) {
		if (f->bitmap_runs == room) {
			struct prep_fs_run *grown;

			room = room > 0 ? 2 * room : 4;
			grown = reallocarray(f->bitmap, room, sizeof *grown);
			if (grown == NULL)
				return prep_fail_nomem(err);
			f->bitmap = grown;
		}
		f->bitmap[f->bitmap_runs++] = (struct prep_fs_run){
			at, prep_fat_offset(f, first), (uint64_t)count * f->cluster_size,
		};
		at += (uint64_t)count * f->cluster_size;
	}
	if (r < 0)
		return -1;
	if (e->size < need || at < need)
		return prep_fail(err, PREP_EDAMAGED, "%s: the allocation bitmap is too short%s%s", f->disk->name,
				 c.damage != NULL ? ": " : "", c.damage != NULL ? c.damage : "");
	return 0;
}

static int find_tables(struct prep_fat *f, struct prep_err *err)
{
	struct prep_fat_entry *e = malloc(sizeof *e);
	struct prep_fat_dir root = prep_fat_root(f);
	bool bitmap = false;
	int r;

	if (e == NULL)
		return prep_fail_nomem(err);
	root.lenient = true;
	while ((r = prep_exfat_next_entry(&root, e, err)) > 0) {
		if (e->kind == PREP_FAT_BITMAP && !bitmap) {
			bitmap = true;
			if (map_bitmap(f, e, err) < 0) {
				r = -1;
				break;
			}
		} else if (e->kind == PREP_FAT_UPCASE && f->upcase_cluster == 0) {
			f->upcase_cluster = e->first;
			f->upcase_len = e->size;
			f->upcase_checksum = e->checksum;
		}
	}
	free(e);
	if (r == 0 && !bitmap)
		r = prep_fail(err, PREP_EDAMAGED, "%s: the root folder has no allocation bitmap", f->disk->name);
	return r;
}

/* ---- The format ---- */

static uint8_t freed_mark(uint8_t mark)
{
	return mark & 0x7f;
}

/* PercentInUse of the boot sector, where it is kept. */
static int finish(struct prep_fat *f, struct prep_err *err)
{
	const size_t len = (size_t)(((uint64_t)f->clusters + 63) / 64 * 8);
	uint8_t *map = malloc(len), percent = 0xff;
	uint64_t used = 0;
	int r = -1;

	if (map == NULL)
		return prep_fail_nomem(err);
	if (prep_disk_read(f->disk, &percent, 1, 112, err) == 0 && prep_exfat_read_bitmap(f, map, err) == 0) {
		for (size_t i = 0; i < len; i += 8)
			used += (uint64_t)__builtin_popcountll(get_le64(map + i));
		if (percent <= 100)
			percent = (uint8_t)(used * 100 / f->clusters);
		r = prep_disk_write(f->disk, &percent, 1, 112, err);
	}
	free(map);
	return r;
}

static const struct prep_fat_format exfat_format = {
	.next_entry = prep_exfat_next_entry,
	.load_upcase = prep_exfat_load_upcase,
	.free_clusters = prep_exfat_free_clusters,
	.freed_mark = freed_mark,
	.finish = finish,
};

int prep_exfat_open(struct prep_disk *volume, unsigned flags, struct prep_fs **ret,
		    struct prep_err *err)
{
	struct prep_fat *f = prep_fat_new(volume, &exfat_format);

	if (f == NULL)
		return prep_fail_nomem(err);
	f->exfat = true;
	if (check_boot(f, err) < 0 || find_tables(f, err) < 0) {
		prep_fat_free(f);
		return -1;
	}
	return prep_fat_finish_open(f, flags, ret, err);
}
