/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Opening NTFS: the boot sector is checked before libntfs-3g sees it, then the
 * volume is mounted read-only and looked over, and only where nothing stands
 * against it mounted for writing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <ntfs-3g/logging.h>

#include "libprep/base/bytes.h"
#include "libprep/base/utf16.h"
#include "libprep/volume/ntfs_internal.h"

#include <ntfs-3g/cache.h>

#define CLUSTER_MAX (2 * PREP_MIB)
#define CLUSTERS_MAX UINT32_MAX /* of Windows, too: what takes a bit a cluster stays within bounds */
#define RECORD_MIN 512u
#define RECORD_MAX 65536u

static int bad_boot(struct prep_ntfs *n, const char *what, struct prep_err *err)
{
	return prep_fail(err, PREP_EDAMAGED, "%s: the NTFS boot sector is damaged: %s", n->disk->name, what);
}

/* Clusters, or where negative the power of two of bytes: of file records and index blocks. */
static uint64_t unit_size(int8_t code, uint64_t cluster_size)
{
	return code > 0 ? (uint64_t)code * cluster_size : code >= -31 ? (uint64_t)1 << -code : 0;
}

/* NTFS_BOOT_SECTOR of <ntfs-3g/layout.h> */
static int check_boot(struct prep_ntfs *n, struct prep_err *err)
{
	uint64_t sectors, cluster, record, index;
	uint32_t sector, per_cluster;
	uint8_t p[512];

	if (n->disk->size < 4096)
		return bad_boot(n, "the volume is too small", err);
	if (prep_disk_read(n->disk, p, sizeof p, 0, err) < 0)
		return -1;
	sector = get_le16(p + 11);
	per_cluster = p[13];
	sectors = get_le64(p + 0x28);
	if (!prep_is_pow2(sector) || sector < 256 || sector > 4096)
		return bad_boot(n, "an impossible sector size", err);
	/* Clusters of more than 128 sectors: minus the power of two. */
	if (per_cluster >= 240)
		per_cluster = 1u << (256 - per_cluster);
	cluster = (uint64_t)per_cluster * sector;
	if (!prep_is_pow2(cluster) || cluster < 256 || cluster > CLUSTER_MAX)
		return bad_boot(n, "an impossible cluster size", err);
	if (sectors == 0 || sectors > n->disk->size / sector)
		return prep_fail(err, PREP_EDAMAGED,
				 "%s: the NTFS volume has %llu sectors of %u bytes, more than the partition holds (%llu bytes)",
				 n->disk->name, (unsigned long long)sectors, sector,
				 (unsigned long long)n->disk->size);
	record = unit_size((int8_t)p[0x40], cluster);
	index = unit_size((int8_t)p[0x44], cluster);
	if (!prep_is_pow2(record) || record < RECORD_MIN || record > RECORD_MAX)
		return bad_boot(n, "an impossible size of file records", err);
	if (!prep_is_pow2(index) || index < 256 || index > CLUSTER_MAX)
		return bad_boot(n, "an impossible size of index blocks", err);
	n->cluster_size = (uint32_t)cluster;
	n->cluster_bits = (unsigned)__builtin_ctzll(cluster);
	n->clusters = sectors / per_cluster;
	n->record_size = (uint32_t)record;
	if (n->clusters > CLUSTERS_MAX)
		return bad_boot(n, "more clusters than NTFS can have", err);
	if (get_le64(p + 0x30) >= n->clusters || get_le64(p + 0x38) >= n->clusters)
		return bad_boot(n, "$MFT or $MFTMirr lies outside the volume", err);
	n->fs.info.serial = get_le64(p + 0x48);
	return 0;
}

/* ---- Mounting ---- */

static int unmount(struct prep_ntfs *n)
{
	ntfs_volume *vol = n->vol;

	n->vol = NULL;
	return vol != NULL ? ntfs_umount(vol, FALSE) : 0;
}

/* The first records of $MFT stand again in $MFTMirr; libntfs-3g says no more than EIO when they differ. */
static bool mirror_differs(struct prep_ntfs *n)
{
	const size_t size = n->record_size;
	uint8_t boot[512], *p = malloc(2 * size);
	struct prep_err ignored = PREP_ERR_INIT;
	struct prep_ntfs_record record;
	bool differs = false, in_use;

	if (p == NULL || prep_disk_read(n->disk, boot, sizeof boot, 0, &ignored) < 0)
		goto out;
	for (unsigned i = 0; i < 4 && !differs; i++) {
		if (prep_disk_read(n->disk, p, size, (get_le64(boot + 0x30) << n->cluster_bits) + i * size,
				   &ignored) < 0 ||
		    prep_disk_read(n->disk, p + size, size, (get_le64(boot + 0x38) << n->cluster_bits) + i * size,
				   &ignored) < 0)
			break;
		if (prep_ntfs_record_check(p, (uint32_t)size, i, &record, &in_use) != PREP_NTFS_USED)
			break;
		differs = !prep_ntfs_fixup(p + size, size, "FILE") || memcmp(p, p + size, record.used) != 0;
	}
out:
	free(p);
	return differs;
}

static int cannot_mount(struct prep_ntfs *n, struct prep_err *err)
{
	const int code = errno;

	if (n->device.err.code != PREP_DONE)
		return prep_fail(err, n->device.err.code, "%s", n->device.err.msg);
	switch (code) {
	case ENOMEM:
		return prep_fail_nomem(err);
	case EPERM:
		return prep_fail(err, PREP_EREFUSED, "%s: Windows is hibernated, or was not shut down fully: %s",
				 n->disk->name, prep_fs_advice(PREP_FS_HIBERNATED));
	case EOPNOTSUPP:
		return prep_fail(err, PREP_EREFUSED, "%s: $LogFile is not clean: %s", n->disk->name,
				 prep_fs_advice(PREP_FS_UNCLEAN_LOG));
	case EROFS:
		return prep_fail(err, PREP_EREFUSED, "%s: the disk cannot be written", n->disk->name);
	default:
		return prep_fail(err, PREP_EDAMAGED, "%s: %s: run chkdsk in Windows", n->disk->name,
				 mirror_differs(n) ? "the first records of $MFT and their copy in $MFTMirr differ"
						   : "NTFS is too damaged to be opened");
	}
}

static int mount(struct prep_ntfs *n, bool write, unsigned long flags, struct prep_err *err)
{
	/* The library only calls through the table, though its prototype does not say so. */
	struct ntfs_device *dev = ntfs_device_alloc(n->disk->name, 0,
						    (struct ntfs_device_operations *)&prep_ntfs_device_ops, &n->device);

	if (dev == NULL)
		return prep_fail_nomem(err);
	n->device.write = write;
	n->device.pos = 0;
	n->vol = ntfs_device_mount(dev, (ntfs_mount_flags)flags);
	if (n->vol == NULL) {
		cannot_mount(n, err);
		ntfs_device_free(dev);
		return -1;
	}
	if (n->vol->nr_clusters < 0 || (uint64_t)n->vol->nr_clusters != n->clusters ||
	    n->vol->cluster_size != n->cluster_size || n->vol->mft_record_size != n->record_size) {
		unmount(n);
		return prep_fail(err, PREP_EDAMAGED, "%s: the NTFS boot sector is contradictory", n->disk->name);
	}
	if (write && NVolReadOnly(n->vol)) {
		unmount(n);
		return prep_fail(err, PREP_EREFUSED, "%s: can be opened for reading only", n->disk->name);
	}
	/*
	 * ntfs_mount() makes these, ntfs_device_mount() does not; without them the
	 * look-up of $Extend/$Reparse fails, and a removed junction stays in its index.
	 */
	ntfs_create_lru_caches(n->vol);
	return 0;
}

static int read_label(struct prep_ntfs *n, struct prep_err *err)
{
	struct prep_fs_info *info = &n->fs.info;
	struct prep_ntfs_file f;
	struct prep_ntfs_mft m;
	struct prep_ntfs_runs runs;
	struct prep_ntfs_attr a;
	int r = -1;

	if (prep_ntfs_mft_open(&m, n, err) < 0)
		return -1;
	if (prep_ntfs_file_load(&m, PREP_NTFS_VOLUME, &f, err) == 0) {
		r = prep_ntfs_file_find(n, &f, PREP_NTFS_ATTR_VOLUME_NAME, "", &a, &runs, err);
		if (r > 0 && a.resident)
			prep_utf16_to_utf8(a.value, a.value_len / 2, info->label, sizeof info->label);
		prep_ntfs_runs_clear(&runs);
		prep_ntfs_file_clear(&f);
	}
	prep_ntfs_mft_close(&m);
	return r < 0 ? -1 : 0;
}

static int look_over(struct prep_ntfs *n, struct prep_err *err)
{
	struct prep_fs_info *info = &n->fs.info;

	info->kind = PREP_FS_NTFS;
	info->cluster_size = n->cluster_size;
	info->clusters = n->clusters;
	snprintf(info->version, sizeof info->version, "%u.%u", n->vol->major_ver, n->vol->minor_ver);
	return read_label(n, err) < 0 ? -1 : prep_ntfs_find_obstacles(n, err);
}

static int refuse_obstacles(struct prep_ntfs *n, unsigned flags, struct prep_err *err)
{
	const struct prep_fs_info *info = &n->fs.info;
	unsigned in_the_way = info->obstacles;

	if (flags & PREP_FS_DISCARD_HIBERNATION)
		in_the_way &= ~(unsigned)PREP_FS_HIBERNATED;
	if (in_the_way == 0)
		return 0;
	return prep_fail(err, PREP_EREFUSED, "%s: %s: %s", n->disk->name, info->obstacle_text,
			 prep_fs_advice(in_the_way));
}

static const struct prep_fs_ops ntfs_ops;

static int open_volume(struct prep_ntfs *n, unsigned flags, struct prep_err *err)
{
	unsigned long mode = NTFS_MNT_NONE;

	if (check_boot(n, err) < 0 ||
	    mount(n, false, NTFS_MNT_RDONLY | NTFS_MNT_FORENSIC, err) < 0 || look_over(n, err) < 0)
		return -1;
	if (!(flags & PREP_FS_WRITE))
		return 0;
	if (refuse_obstacles(n, flags, err) < 0)
		return -1;
	if (unmount(n) != 0)
		return prep_ntfs_fail(n, err, "cannot be unmounted");
	if (flags & PREP_FS_DISCARD_HIBERNATION)
		mode |= NTFS_MNT_IGNORE_HIBERFILE;
	if (mount(n, true, mode, err) < 0)
		return -1;
	n->write = true;
	return 0;
}

int prep_ntfs_open(struct prep_disk *volume, unsigned flags, struct prep_fs **ret,
		   struct prep_err *err)
{
	struct prep_ntfs *n = calloc(1, sizeof *n);

	if (n == NULL)
		return prep_fail_nomem(err);
	n->fs.ops = &ntfs_ops;
	n->fs.volume = volume;
	n->disk = volume;
	n->device.disk = volume;
	ntfs_log_set_handler(ntfs_log_handler_null);
	if (open_volume(n, flags, err) < 0) {
		unmount(n);
		free(n);
		return -1;
	}
	*ret = &n->fs;
	return 0;
}

static int ntfs_close(struct prep_fs *fs, struct prep_err *err)
{
	struct prep_ntfs *n = (struct prep_ntfs *)fs;
	int r = prep_ntfs_remove_end(n, err);

	if ((unmount(n) != 0 || n->device.err.code != PREP_DONE) && n->write)
		r = prep_ntfs_fail(n, err, "cannot be unmounted");
	free(n->held);
	free(n->ordinary);
	free(n);
	return r;
}

static const struct prep_fs_ops ntfs_ops = {
	.close = ntfs_close,
	.audit = prep_ntfs_audit,
	.walk = prep_ntfs_walk,
	.find = prep_ntfs_find,
	.remove = prep_ntfs_remove,
	.move_begin = prep_ntfs_move_begin,
	.move_grant = prep_ntfs_move_grant,
	.move_end = prep_ntfs_move_end,
	.move = prep_ntfs_move,
};
