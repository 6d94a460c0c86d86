/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/disk/journal.h"
#include "libprep/disk/raw.h"
#include "libprep/disk/vhd.h"

/* Formats that would otherwise pass for raw disks, by the bytes at an offset. */
static const struct foreign {
	size_t off, len;
	const char *magic, *format;
} foreign[] = {
	{ 0, 8, "vhdxfile", "a VHDX disk, which this version cannot read" },
	{ 0, 4, "QFI\xfb", "a QEMU qcow disk" },
	{ 0, 4, "QED\0", "a QEMU QED disk" },
	{ 0, 4, "KDMV", "a VMware disk" },
	{ 0, 4, "COWD", "a VMware disk" },
	{ 0, 21, "# Disk DescriptorFile", "a VMware disk descriptor" },
	{ 64, 4, "\x7f\x10\xda\xbe", "a VirtualBox disk" },
	{ 0, 16, "WithoutFreeSpace", "a Parallels disk" },
	{ 0, 16, "WithouFreSpacExt", "a Parallels disk" },
	{ 0, 8, "MSWIM\0\0", "a WIM archive" },
	{ 0, 4, "PK\x03\x04", "a zip archive" },
	{ 0, 6, "\xfd" "7zXZ\0", "compressed by xz" },
	{ 0, 3, "\x1f\x8b\x08", "compressed by gzip" },
	{ 4, 6, "1AY&SY", "compressed by bzip2" },
	{ 0, 4, "\x28\xb5\x2f\xfd", "compressed by zstd" },
	{ 0, 6, "7z\xbc\xaf\x27\x1c", "a 7z archive" },
};

static int open_raw(int fd, const char *name, uint64_t size, struct prep_disk **ret,
		    struct prep_err *err)
{
	uint8_t head[128] = { 0 };
	const size_t dot = strlen(name) >= 4 ? strlen(name) - 4 : 0;

	if (prep_file_pread(fd, head, (size_t)prep_min(size, sizeof head), 0, name, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
		if (memcmp(head + foreign[i].off, foreign[i].magic, foreign[i].len) == 0)
			return prep_fail(err, PREP_EREFUSED, "%s: %s, not a VHD or raw disk", name,
					 foreign[i].format);
	if (size % PREP_VHD_SECTOR != 0)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: no VHD footer, and %llu bytes are no whole number of sectors: not a disk image",
				 name, (unsigned long long)size);
	if (prep_raw_open(fd, name, size, ret, err) < 0)
		return -1;
	if (strcasecmp(name + dot, ".vhd") == 0)
		prep_note(&(*ret)->notes, "%s: no VHD footer: read as a raw disk", name);
	return 0;
}

static int open_image(int fd, const char *name, unsigned flags, struct prep_disk **ret,
		      struct prep_err *err)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) != 0)
		return prep_fail_errno(err, "%s", name);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return prep_fail(err, PREP_EREFUSED, "%s: neither a file nor a block device", name);
	if (S_ISBLK(st.st_mode))
		st.st_size = lseek(fd, 0, SEEK_END);
	if (st.st_size <= 0)
		return prep_fail(err, PREP_EREFUSED, "%s: empty", name);
	if (prep_file_lock(fd, (flags & PREP_DISK_WRITE) != 0, name, err) < 0)
		return -1;
	r = prep_vhd_open(fd, name, (flags & PREP_DISK_WRITE) != 0, ret, err);
	if (r != 0)
		return r < 0 ? -1 : 0;
	return open_raw(fd, name, (uint64_t)st.st_size, ret, err);
}

int prep_disk_open_fd(int fd, const char *name, unsigned flags, struct prep_disk **ret,
		      struct prep_err *err)
{
	*ret = NULL;
	if (open_image(fd, name, flags, ret, err) < 0) {
		close(fd);
		return -1;
	}
	return 0;
}

int prep_disk_open(const char *path, unsigned flags, struct prep_disk **ret, struct prep_err *err)
{
	int fd;

	*ret = NULL;
	for (;;) {
		if (prep_journal_recover(path, err) < 0)
			return -1;
		fd = open(path, ((flags & PREP_DISK_WRITE) ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			return prep_fail_errno(err, "%s", path);
		if (prep_disk_open_fd(fd, path, flags, ret, err) < 0)
			return -1;
		/* A writer may have died between the first look and the lock. */
		if (!prep_journal_waits(path))
			return 0;
		prep_disk_close(*ret);
		*ret = NULL;
	}
}

static int check_range(const struct prep_disk *d, uint64_t off, uint64_t len, const char *what,
		       struct prep_err *err)
{
	if (off > d->size || len > d->size - off)
		return prep_fail(err, PREP_EDAMAGED, "%s: %s of %llu bytes at offset %llu is outside the disk",
				 d->name, what, (unsigned long long)len, (unsigned long long)off);
	return 0;
}

int prep_disk_read(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err)
{
	if (check_range(d, off, len, "a read", err) < 0)
		return -1;
	return len == 0 ? 0 : d->ops->read(d, buf, len, off, err);
}

int prep_disk_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
		    struct prep_err *err)
{
	if (check_range(d, off, len, "a write", err) < 0)
		return -1;
	if (d->ops->write == NULL)
		return prep_fail(err, PREP_EREFUSED, "%s: a %s disk cannot be written", d->name, d->ops->kind);
	return len == 0 ? 0 : d->ops->write(d, buf, len, off, err);
}

int prep_disk_zero(struct prep_disk *d, uint64_t off, uint64_t len, uint64_t *changed,
		   struct prep_err *err)
{
	const uint64_t end = off + len;
	unsigned char *buf;
	struct prep_extent e;

	*changed = 0;
	if (check_range(d, off, len, "a write", err) < 0)
		return -1;
	/* File tails are zeroed by the thousand: no more than is needed. */
	buf = malloc((size_t)prep_min(len, PREP_MIB));
	if (buf == NULL)
		return len == 0 ? 0 : prep_fail_nomem(err);
	while (off < end) {
		if (prep_disk_extent(d, off, end, &e, err) < 0)
			goto fail;
		if (e.kind != PREP_EXTENT_DATA) {
			off += e.len;
			continue;
		}
		/* Steps end on whole MiB, so that the runs below begin on whole pages. */
		e.len = prep_min(e.len, PREP_MIB - off % PREP_MIB);
		if (prep_disk_read(d, buf, (size_t)e.len, off, err) < 0)
			goto fail;
		for (size_t at = 0, n; at < e.len; at += n) {
			const size_t page = 4096 - (size_t)((off + at) % 4096);
			bool zero;

			n = page < 4096 ? prep_zero_run(buf + at, (size_t)prep_min(page, e.len - at), 4096, &zero)
					: prep_zero_run(buf + at, (size_t)e.len - at, 4096, &zero);
			if (zero)
				continue;
			if (d->ops->zero(d, off + at, n, err) < 0)
				goto fail;
			*changed += n;
		}
		off += e.len;
	}
	free(buf);
	return 0;
fail:
	free(buf);
	return -1;
}

int prep_disk_flush(struct prep_disk *d, struct prep_err *err)
{
	return d->ops->flush != NULL ? d->ops->flush(d, err) : 0;
}

int prep_disk_extent(struct prep_disk *d, uint64_t off, uint64_t end, struct prep_extent *ret,
		     struct prep_err *err)
{
	struct prep_extent next;

	if (check_range(d, off, end - off, "an extent", err) < 0 || d->ops->extent(d, off, ret, err) < 0)
		return -1;
	while (ret->off + ret->len < end) {
		if (d->ops->extent(d, ret->off + ret->len, &next, err) < 0)
			return -1;
		if (next.kind != ret->kind)
			break;
		ret->len += next.len;
	}
	ret->len = prep_min(ret->len, end - off);
	return 0;
}

bool prep_disk_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret)
{
	return off < d->size && d->ops->backing != NULL && d->ops->backing(d, off, ret);
}

void prep_disk_close(struct prep_disk *d)
{
	if (d == NULL)
		return;
	prep_notes_clear(&d->notes);
	free(d->name);
	d->ops->close(d);
}
