/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/volume/fs.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fs_ops.h"

/*
 * Where the signatures come from:
 *   NTFS       Microsoft, NTFS boot sector: OEM id "NTFS    " at 3
 *   exFAT      Microsoft, exFAT file system specification, 3.1.2: "EXFAT   " at 3
 *   FAT        Microsoft, FAT32 File System Specification 1.03 (fatgen103), the BPB; what else
 *              looks like one is told apart as util-linux does it (libblkid, superblocks/vfat.c)
 *   BitLocker  libbde, "BitLocker Drive Encryption (BDE) format", volume header: "-FVE-FS-" at 3;
 *              To Go: "MSWIN4.1" at 3 as on FAT, told apart by a GUID at 0x1A8
 *              (also util-linux, libblkid, superblocks/bitlocker.c)
 *   ReFS       util-linux, libblkid, superblocks/refs.c: "\0\0\0ReFS\0" at 0
 *   LVM2       lvm2, lib/label/label.h: "LABELONE" at the start of one of the first four
 *              sectors, which then names its own number at 8
 */

/* 4967d63b-2e29-4ad8-8399-f6a339e3d001 and, for used space only, 92a84d3b-dd80-4d0e-9e4e-b1e3284eaed8. */
static const uint8_t bitlocker_ids[][16] = {
	{ 0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01 },
	{ 0x3b, 0x4d, 0xa8, 0x92, 0x80, 0xdd, 0x0e, 0x4d, 0x9e, 0x4e, 0xb1, 0xe3, 0x28, 0x4e, 0xae, 0xd8 },
};

static bool is_bitlocker_to_go(const uint8_t *p)
{
	if (memcmp(p + 3, "MSWIN4.1", 8) != 0)
		return false;
	for (size_t i = 0; i < sizeof bitlocker_ids / sizeof bitlocker_ids[0]; i++)
		if (memcmp(p + 0x1a8, bitlocker_ids[i], 16) == 0)
			return true;
	return false;
}

static bool is_fat(const uint8_t *p, uint64_t size)
{
	const uint32_t sector = get_le16(p + 11), cluster = p[13], reserved = get_le16(p + 14);
	const uint32_t fats = p[16], root_entries = get_le16(p + 17), media = p[21];
	uint64_t sectors = get_le16(p + 19), fat = get_le16(p + 22), meta, clusters, need;
	unsigned bits;

	if (get_le16(p + 510) != 0xaa55 || (p[0] != 0xe9 && !(p[0] == 0xeb && p[2] == 0x90)))
		return false;
	/* OS/2 put such a header before HPFS and JFS. */
	if (memcmp(p + 54, "HPFS    ", 8) == 0 || memcmp(p + 54, "JFS     ", 8) == 0)
		return false;
	if (!prep_is_pow2(sector) || sector < 512 || sector > 4096 || !prep_is_pow2(cluster) ||
	    reserved == 0 || fats == 0 || fats > 2 || (media != 0xf0 && media < 0xf8))
		return false;
	if (sectors == 0)
		sectors = get_le32(p + 32);
	if (fat == 0 && root_entries == 0)
		fat = get_le32(p + 36); /* FAT32 */
	meta = reserved + fats * fat + ((uint64_t)root_entries * 32 + sector - 1) / sector;
	if (fat == 0 || sectors <= meta || sectors > size / sector)
		return false;
	clusters = (sectors - meta) / cluster;
	bits = root_entries == 0 ? 32 : clusters < 4085 ? 12 : 16;
	need = ((clusters + 2) * bits + 7) / 8;
	return clusters > 0 && fat * sector >= need;
}

static bool is_lvm(const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < 4 && (i + 1) * 512 <= len; i++)
		if (memcmp(p + i * 512, "LABELONE", 8) == 0 && get_le64(p + i * 512 + 8) == i)
			return true;
	return false;
}

int prep_fs_probe(struct prep_disk *volume, enum prep_fs_kind *ret, struct prep_err *err)
{
	uint8_t p[2048] = { 0 };
	const size_t len = (size_t)prep_min(volume->size, sizeof p);

	*ret = PREP_FS_UNKNOWN;
	if (prep_disk_read(volume, p, len, 0, err) < 0)
		return -1;
	if (memcmp(p + 3, "-FVE-FS-", 8) == 0 || is_bitlocker_to_go(p))
		*ret = PREP_FS_BITLOCKER;
	else if (memcmp(p + 3, "NTFS    ", 8) == 0)
		*ret = PREP_FS_NTFS;
	else if (memcmp(p + 3, "EXFAT   ", 8) == 0)
		*ret = PREP_FS_EXFAT;
	else if (memcmp(p, "\0\0\0ReFS\0", 8) == 0)
		*ret = PREP_FS_REFS;
	else if (is_fat(p, volume->size))
		*ret = PREP_FS_FAT;
	else if (is_lvm(p, len))
		*ret = PREP_FS_LVM;
	return 0;
}

const char *prep_fs_kind_name(enum prep_fs_kind kind)
{
	switch (kind) {
	case PREP_FS_NTFS:
		return "NTFS";
	case PREP_FS_FAT:
		return "FAT";
	case PREP_FS_EXFAT:
		return "exFAT";
	case PREP_FS_BITLOCKER:
		return "BitLocker";
	case PREP_FS_REFS:
		return "ReFS";
	case PREP_FS_LVM:
		return "LVM";
	case PREP_FS_UNKNOWN:
		break;
	}
	return "unknown";
}

bool prep_fs_known(enum prep_fs_kind kind)
{
	return kind == PREP_FS_NTFS || kind == PREP_FS_FAT || kind == PREP_FS_EXFAT;
}

const char *prep_fs_advice(unsigned obstacles)
{
	if (obstacles & PREP_FS_HIBERNATED)
		return "start Windows and shut it down fully (shutdown /s), or give the session up by removing hiberfil.sys";
	if (obstacles & PREP_FS_FAST_STARTUP)
		return "start Windows and shut it down fully (shutdown /s, or powercfg /h off first)";
	if (obstacles & (PREP_FS_DIRTY | PREP_FS_UNCLEAN_LOG))
		return "start Windows and shut it down, or run chkdsk";
	return "delete the shadow copies in Windows (vssadmin delete shadows /all) and shut it down";
}

int prep_fs_open(struct prep_disk *volume, unsigned flags, struct prep_fs **ret,
		 struct prep_err *err)
{
	enum prep_fs_kind kind;

	*ret = NULL;
	if (prep_fs_probe(volume, &kind, err) < 0)
		return -1;
	switch (kind) {
	case PREP_FS_NTFS:
		return prep_ntfs_open(volume, flags, ret, err);
	case PREP_FS_BITLOCKER:
		return prep_fail(err, PREP_EREFUSED,
				 "%s: encrypted by BitLocker: decrypt it in Windows first (manage-bde -off)",
				 volume->name);
	case PREP_FS_UNKNOWN:
		return prep_fail(err, PREP_EREFUSED, "%s: no file system that is known here", volume->name);
	case PREP_FS_FAT:
		return prep_fat_open(volume, flags, ret, err);
	case PREP_FS_EXFAT:
		return prep_exfat_open(volume, flags, ret, err);
	case PREP_FS_REFS:
	case PREP_FS_LVM:
		break;
	}
	return prep_fail(err, PREP_EREFUSED, "%s: holds %s, which cannot be opened here", volume->name,
			 prep_fs_kind_name(kind));
}

int prep_fs_close(struct prep_fs *fs, struct prep_err *err)
{
	return fs != NULL ? fs->ops->close(fs, err) : 0;
}

const struct prep_fs_info *prep_fs_info(const struct prep_fs *fs)
{
	return &fs->info;
}

int prep_fs_audit(struct prep_fs *fs, struct prep_fs_audit *ret,
		  const struct prep_progress *progress, struct prep_err *err)
{
	*ret = (struct prep_fs_audit){ .used = 0 };
	if (fs->ops->audit(fs, ret, progress, err) < 0) {
		prep_fs_audit_clear(ret);
		return -1;
	}
	return 0;
}

void prep_fs_audit_clear(struct prep_fs_audit *a)
{
	free(a->free_map);
	prep_notes_clear(&a->problems);
	*a = (struct prep_fs_audit){ .used = 0 };
}

bool prep_fs_audit_clusters_sound(const struct prep_fs_audit *a)
{
	return a->crosslinked == 0 && a->outside == 0 && a->claimed_free == 0 && a->copies == 0 &&
	       a->unreadable == 0 && a->records_unmarked == 0;
}

bool prep_fs_audit_records_sound(const struct prep_fs_audit *a)
{
	return prep_fs_audit_clusters_sound(a) && a->record_bitmap == 0 && a->dangling == 0 &&
	       a->orphans == 0 && a->link_counts == 0 && a->sizes == 0;
}

int prep_fs_walk(struct prep_fs *fs, unsigned flags,
		 int (*fn)(void *arg, const struct prep_fs_stream *s, struct prep_err *err),
		 void *arg, struct prep_err *err)
{
	return fs->ops->walk(fs, flags, fn, arg, err);
}

size_t prep_fs_marks(struct prep_fs *fs, const struct prep_fs_run **ret)
{
	return fs->ops->marks != NULL ? fs->ops->marks(fs, ret) : 0;
}

int prep_fs_find(struct prep_fs *fs, const char *pattern, bool recursive,
		 struct prep_fs_list *list, struct prep_err *err)
{
	return fs->ops->find(fs, pattern, recursive, list, err);
}

void prep_fs_list_clear(struct prep_fs_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->entry[i].path);
	free(list->entry);
	*list = (struct prep_fs_list){ .n = 0 };
}

int prep_fs_remove(struct prep_fs *fs, const struct prep_fs_entry *entry, struct prep_err *err)
{
	return fs->ops->remove(fs, entry, err);
}

int prep_fs_move_begin(struct prep_fs *fs, struct prep_err *err)
{
	if (fs->ops->move == NULL)
		return prep_fail(err, PREP_EREFUSED, "%s: clusters of %s cannot be moved", fs->volume->name,
				 prep_fs_kind_name(fs->info.kind));
	return fs->ops->move_begin(fs, err);
}

int prep_fs_move_grant(struct prep_fs *fs, uint64_t lcn, uint64_t len, struct prep_err *err)
{
	return fs->ops->move_grant(fs, lcn, len, err);
}

int prep_fs_move(struct prep_fs *fs, struct prep_fs_move *m, struct prep_err *err)
{
	m->lacks = 0;
	return fs->ops->move(fs, m, err);
}

int prep_fs_move_end(struct prep_fs *fs, struct prep_err *err)
{
	return fs->ops->move_end(fs, err);
}
