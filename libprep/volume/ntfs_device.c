/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * libntfs-3g's device operations over a disk. They work to the byte, and
 * errno is all they can say: the reason is kept beside.
 */
#include "libprep/volume/ntfs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "libprep/base/bytes.h"

static struct prep_ntfs_device *device_of(struct ntfs_device *dev)
{
	return dev->d_private;
}

static int device_open(struct ntfs_device *dev, int flags)
{
	if (NDevOpen(dev)) {
		errno = EBUSY;
		return -1;
	}
	if ((flags & O_ACCMODE) == O_RDONLY)
		NDevSetReadOnly(dev);
	NDevSetOpen(dev);
	return 0;
}

static int device_close(struct ntfs_device *dev)
{
	if (!NDevOpen(dev)) {
		errno = EBADF;
		return -1;
	}
	NDevClearOpen(dev);
	return 0;
}

static s64 device_seek(struct ntfs_device *dev, s64 offset, int whence)
{
	struct prep_ntfs_device *d = device_of(dev);
	const s64 from = whence == SEEK_CUR ? d->pos : whence == SEEK_END ? (s64)d->disk->size : 0;
	s64 pos;

	if (__builtin_add_overflow(from, offset, &pos) || pos < 0) {
		errno = EINVAL;
		return -1;
	}
	return d->pos = pos;
}

/* How many of count bytes at offset lie on the disk: reads and writes are cut there, as of a file's. */
static s64 clip(const struct prep_ntfs_device *d, s64 count, s64 offset)
{
	if (offset < 0 || count < 0)
		return -1;
	if ((uint64_t)offset >= d->disk->size)
		return 0;
	return (s64)prep_min((uint64_t)count, d->disk->size - (uint64_t)offset);
}

static s64 failed(int code)
{
	errno = code;
	return -1;
}

static s64 device_pread(struct ntfs_device *dev, void *buf, s64 count, s64 offset)
{
	struct prep_ntfs_device *d = device_of(dev);
	const s64 n = clip(d, count, offset);

	if (n < 0)
		return failed(EINVAL);
	if (prep_disk_read(d->disk, buf, (size_t)n, (uint64_t)offset, &d->err) < 0)
		return failed(EIO);
	return n;
}

static s64 device_pwrite(struct ntfs_device *dev, const void *buf, s64 count, s64 offset)
{
	struct prep_ntfs_device *d = device_of(dev);
	const s64 n = clip(d, count, offset);

	if (NDevReadOnly(dev) || !d->write)
		return failed(EROFS);
	if (n < 0)
		return failed(EINVAL);
	if (n == 0 && count > 0)
		return failed(ENOSPC);
	if (prep_disk_write(d->disk, buf, (size_t)n, (uint64_t)offset, &d->err) < 0)
		return failed(EIO);
	NDevSetDirty(dev);
	return n;
}

static s64 device_read(struct ntfs_device *dev, void *buf, s64 count)
{
	struct prep_ntfs_device *d = device_of(dev);
	const s64 n = device_pread(dev, buf, count, d->pos);

	if (n > 0)
		d->pos += n;
	return n;
}

static s64 device_write(struct ntfs_device *dev, const void *buf, s64 count)
{
	struct prep_ntfs_device *d = device_of(dev);
	const s64 n = device_pwrite(dev, buf, count, d->pos);

	if (n > 0)
		d->pos += n;
	return n;
}

/* Durability is the business of whoever owns the disk: here all is staged. */
static int device_sync(struct ntfs_device *dev)
{
	NDevClearDirty(dev);
	return 0;
}

static int device_stat(struct ntfs_device *dev, struct stat *st)
{
	memset(st, 0, sizeof *st);
	st->st_mode = S_IFREG | 0600;
	st->st_size = (off_t)device_of(dev)->disk->size;
	return 0;
}

static int device_ioctl(struct ntfs_device *dev, unsigned long request, void *arg)
{
	(void)dev;
	(void)request;
	(void)arg;
	errno = EOPNOTSUPP;
	return -1;
}

const struct ntfs_device_operations prep_ntfs_device_ops = {
	.open = device_open,
	.close = device_close,
	.seek = device_seek,
	.read = device_read,
	.write = device_write,
	.pread = device_pread,
	.pwrite = device_pwrite,
	.sync = device_sync,
	.stat = device_stat,
	.ioctl = device_ioctl,
};

int prep_ntfs_fail(struct prep_ntfs *n, struct prep_err *err, const char *what)
{
	const int code = errno;

	if (n->device.err.code != PREP_DONE)
		return prep_fail(err, n->device.err.code, "%s", n->device.err.msg);
	if (code == ENOMEM)
		return prep_fail_nomem(err);
	/* With the disk below in order these mean that the structures are not what they should be. */
	return prep_fail(err, code == EIO || code == EINVAL || code == ENOENT || code == ERANGE
				      ? PREP_EDAMAGED : PREP_EFAIL,
			 "%s: %s: %s", n->disk->name, what, strerror(code));
}
