// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/tools/populate/populate.h"

/* ---- the image: raw, fixed VHD, or (read only) dynamic VHD ---- */

int full_pread(int fd, void *buf, size_t n, uint64_t off)
{
	while (n) {
		ssize_t got = pread(fd, buf, n, off);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			if (!got)
				errno = EIO;
			return -1;
		}
		buf = (char *)buf + got;
		off += got;
		n -= got;
	}
	return 0;
}

int full_pwrite(int fd, const void *buf, size_t n, uint64_t off)
{
	while (n) {
		ssize_t put = pwrite(fd, buf, n, off);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -1;
		buf = (const char *)buf + put;
		off += put;
		n -= put;
	}
	return 0;
}

static int disk_read(struct image *im, void *buf, size_t n, uint64_t off)
{
	if (!im->bat)
		return full_pread(im->fd, buf, n, off);
	while (n) {
		uint32_t b = off / im->block, in = off % im->block;
		size_t part = im->block - in < n ? im->block - in : n;

		if (b >= im->bat_len) {
			errno = EIO;
			return -1;
		}
		if (im->bat[b] == UINT32_MAX) {
			memset(buf, 0, part);
		} else {
			/* a bit for each sector stands before the data, padded to a sector */
			uint64_t bitmap = (im->block / 512 / 8 + 511) & ~511U;

			if (full_pread(im->fd, buf, part, im->bat[b] * (uint64_t)512 + bitmap + in) < 0)
				return -1;
		}
		buf = (char *)buf + part;
		off += part;
		n -= part;
	}
	return 0;
}

/* A bare volume begins at 0; else the largest NTFS partition of the MBR's four or of the GPT. */
static void find_volume(struct image *im)
{
	uint8_t s[512], best_boot[512];
	uint64_t best = 0, best_at = 0;

	if (disk_read(im, s, 512, 0) < 0)
		DIE("%s: %s", im->path, strerror(errno));
	if (!memcmp(s + 3, "NTFS    ", 8))
		return;
	for (unsigned i = 0; i < 132; i++) {
		uint8_t e[128];
		uint64_t start, sectors;

		if (i < 4) {
			start = get_le(s + 446 + 16 * i + 8, 4);
			sectors = get_le(s + 446 + 16 * i + 12, 4);
		} else {
			if (disk_read(im, e, 128, 1024 + 128 * (i - 4)) < 0)
				break;
			start = get_le(e + 32, 8);
			sectors = get_le(e + 40, 8) - start + 1;
			if (i == 4 && (disk_read(im, best_boot, 512, 512) < 0 || memcmp(best_boot, "EFI PART", 8)))
				break;
		}
		if (!start || start > im->size / 512 || sectors > im->size / 512 - start || sectors <= best)
			continue;
		if (disk_read(im, best_boot, 512, start * 512) < 0 || memcmp(best_boot + 3, "NTFS    ", 8))
			continue;
		best = sectors;
		best_at = start;
	}
	if (!best)
		DIE("%s: no NTFS volume found", im->path);
	im->base = best_at * 512;
	im->len = best * 512;
}

void image_open(struct image *im, const char *path, int64_t offset, bool ro)
{
	uint8_t f[1024];
	struct stat st;

	memset(im, 0, sizeof(*im));
	im->path = path;
	im->ro = ro;
	im->fd = open(path, (ro ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (im->fd < 0 || fstat(im->fd, &st) < 0)
		DIE("%s: %s", path, strerror(errno));
	im->size = st.st_size;
	if (im->size < 1024 || full_pread(im->fd, f, 512, 0) < 0)
		DIE("%s: too small for an image", path);
	if (!memcmp(f, "conectix", 8) && get_be(f + 60, 4) == 3) {
		uint64_t table;

		if (!ro)
			DIE("%s: a dynamic VHD can only be read", path);
		im->size = get_be(f + 48, 8);
		if (full_pread(im->fd, f, 1024, get_be(f + 16, 8)) < 0 || memcmp(f, "cxsparse", 8))
			DIE("%s: bad dynamic header", path);
		table = get_be(f + 16, 8);
		im->bat_len = get_be(f + 28, 4);
		im->block = get_be(f + 32, 4);
		if (im->block < 4096 || im->bat_len > 1U << 22)
			DIE("%s: bad dynamic header", path);
		im->bat = xalloc(im->bat_len * 4ULL);
		if (full_pread(im->fd, im->bat, im->bat_len * 4ULL, table) < 0)
			DIE("%s: block table: %s", path, strerror(errno));
		for (uint32_t i = 0; i < im->bat_len; i++)
			im->bat[i] = get_be((uint8_t *)&im->bat[i], 4);
	} else if (!memcmp(f, "conectix", 8)) {
		DIE("%s: not a VHD that can be read here", path);
	} else if (full_pread(im->fd, f, 512, im->size - 512) == 0 && !memcmp(f, "conectix", 8)) {
		im->size -= 512;
	}
	im->len = im->size;
	if (offset < 0) {
		find_volume(im);
	} else {
		if ((uint64_t)offset >= im->size)
			DIE("%s: nothing at byte %" PRId64, path, offset);
		im->base = offset;
		im->len -= offset;
	}
}

/* libntfs-3g's view of it */

static int dev_open(struct ntfs_device *dev, int flags)
{
	struct image *im = dev->d_private;

	if (NDevOpen(dev)) {
		errno = EBUSY;
		return -1;
	}
	if (im->ro || (flags & O_ACCMODE) == O_RDONLY)
		NDevSetReadOnly(dev);
	NDevSetOpen(dev);
	return 0;
}

static int dev_close(struct ntfs_device *dev)
{
	NDevClearOpen(dev);
	return 0;
}

static s64 dev_seek(struct ntfs_device *dev, s64 offset, int whence)
{
	struct image *im = dev->d_private;
	s64 pos = whence == SEEK_SET ? offset : whence == SEEK_CUR ? im->pos + offset : (s64)im->len + offset;

	if (pos < 0) {
		errno = EINVAL;
		return -1;
	}
	return im->pos = pos;
}

static s64 dev_pread(struct ntfs_device *dev, void *buf, s64 count, s64 offset)
{
	struct image *im = dev->d_private;

	if (offset < 0 || (uint64_t)offset >= im->len)
		return 0;
	if ((uint64_t)count > im->len - offset)
		count = im->len - offset;
	return disk_read(im, buf, count, im->base + offset) < 0 ? -1 : count;
}

static s64 dev_pwrite(struct ntfs_device *dev, const void *buf, s64 count, s64 offset)
{
	struct image *im = dev->d_private;

	if (NDevReadOnly(dev)) {
		errno = EROFS;
		return -1;
	}
	if (offset < 0 || count < 0 || (uint64_t)offset + count > im->len) {
		errno = ENOSPC;
		return -1;
	}
	return full_pwrite(im->fd, buf, count, im->base + offset) < 0 ? -1 : count;
}

static s64 dev_read(struct ntfs_device *dev, void *buf, s64 count)
{
	struct image *im = dev->d_private;
	s64 n = dev_pread(dev, buf, count, im->pos);

	if (n > 0)
		im->pos += n;
	return n;
}

static s64 dev_write(struct ntfs_device *dev, const void *buf, s64 count)
{
	struct image *im = dev->d_private;
	s64 n = dev_pwrite(dev, buf, count, im->pos);

	if (n > 0)
		im->pos += n;
	return n;
}

static int dev_sync(struct ntfs_device *dev)
{
	(void)dev;
	return 0;	/* these are test images: speed before a crash's safety */
}

static int dev_stat(struct ntfs_device *dev, struct stat *st)
{
	return fstat(((struct image *)dev->d_private)->fd, st);
}

static int dev_ioctl(struct ntfs_device *dev, unsigned long request, void *arg)
{
	(void)dev;
	(void)request;
	(void)arg;
	errno = EOPNOTSUPP;
	return -1;
}

static struct ntfs_device_operations dev_ops = {
	.open = dev_open, .close = dev_close, .seek = dev_seek, .read = dev_read, .write = dev_write, .pread = dev_pread,
	.pwrite = dev_pwrite, .sync = dev_sync, .stat = dev_stat, .ioctl = dev_ioctl,
};

ntfs_volume *volume_open(struct image *im)
{
	struct ntfs_device *dev = ntfs_device_alloc(im->path, 0, &dev_ops, im);
	ntfs_volume *vol;

	if (!dev)
		DIE("out of memory");
	vol = ntfs_device_mount(dev, NTFS_MNT_IGNORE_HIBERFILE | (im->ro ? NTFS_MNT_RDONLY : 0));
	if (!vol)
		DIE("%s: cannot open the NTFS volume at byte %" PRIu64 ": %s", im->path, im->base, strerror(errno));
	ntfs_create_lru_caches(vol);	/* ntfs_mount does it; without them the library does not find its own $Reparse */
	NVolSetCompression(vol);
	return vol;
}

void volume_close(ntfs_volume *vol, struct image *im)
{
	if (ntfs_umount(vol, FALSE) < 0)
		DIE("%s: closing the volume: %s", im->path, strerror(errno));
	if (close(im->fd) < 0)
		DIE("%s: %s", im->path, strerror(errno));
	free(im->bat);
}

/*
 * `mkntfs -T` writes 1970 everywhere and the same serial number each time, which makes its output the same in every run.
 * Put the clock's time and a serial from the seed in their place: the constant stands on 8-byte borders in the records
 * of the system files and in the root folder's index block.
 */
static void stamp_records(struct ntfs_device *dev, uint64_t pos, unsigned count, uint32_t size, uint64_t stamp)
{
	uint8_t *b = xalloc(size);

	for (unsigned i = 0; i < count; i++, pos += size) {
		if (dev_pread(dev, b, 4, pos) != 4 || (memcmp(b, "FILE", 4) && memcmp(b, "INDX", 4)))
			break;
		if (ntfs_mst_pread(dev, pos, 1, size, b) != 1)
			DIE("stamp: %s", strerror(errno));
		for (uint32_t at = 0; at < size; at += 8)
			if (get_le(b + at, 8) == (uint64_t)NTFS_TIME_OFFSET)
				put_le64(b + at, stamp);
		if (ntfs_mst_pwrite(dev, pos, 1, size, b) != 1)
			DIE("stamp: %s", strerror(errno));
	}
	free(b);
}

void stamp_volume(struct image *im, uint64_t seed)
{
	uint64_t stamp = NTFS_TIME_OFFSET + (uint64_t)(clock_ns / 100), mft, mirror, index;
	struct ntfs_device *dev = ntfs_device_alloc(im->path, 0, &dev_ops, im);
	bool ro = im->ro;
	uint32_t cluster, rec, sum = 0;
	uint8_t boot[512];
	ntfs_volume *vol;
	ntfs_inode *root;
	ntfs_attr *na;

	im->ro = true;
	vol = volume_open(im);
	root = ntfs_inode_open(vol, FILE_root);
	na = root ? ntfs_attr_open(root, AT_INDEX_ALLOCATION, NTFS_INDEX_I30, 4) : NULL;
	if (!na)
		DIE("stamp: no root folder: %s", strerror(errno));
	index = ntfs_attr_vcn_to_lcn(na, 0);
	cluster = vol->cluster_size;
	rec = vol->mft_record_size;
	mft = vol->mft_lcn * cluster;
	mirror = vol->mftmirr_lcn * cluster;
	index *= cluster;
	ntfs_attr_close(na);
	ntfs_inode_close(root);
	ntfs_umount(vol, FALSE);
	im->ro = ro;

	if (!dev || dev_open(dev, O_RDWR) < 0)
		DIE("out of memory");
	stamp_records(dev, mft, 64, rec, stamp);
	/* $MFTMirr has the first four records, or as many as a cluster holds. */
	stamp_records(dev, mirror, cluster > 4 * rec ? cluster / rec : 4, rec, stamp);
	stamp_records(dev, index, 1, 4096, stamp);
	if (dev_pread(dev, boot, 512, 0) != 512)
		DIE("stamp: %s", strerror(errno));
	put_le64(boot + 72, mix(seed ^ 0x73657269616c));
	for (unsigned i = 0; i < 80; i += 4)
		sum += get_le(boot + i, 4);
	put_le32(boot + 80, sum);
	if (dev_pwrite(dev, boot, 512, 0) != 512 || dev_pwrite(dev, boot, 512, get_le(boot + 40, 8) * 512) != 512)
		DIE("stamp: %s", strerror(errno));
	/* An open device is not freed. */
	dev_close(dev);
	ntfs_device_free(dev);
}
