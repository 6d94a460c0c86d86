/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "libprep/base/bytes.h"

#define PAGE 4096u

int prep_file_pread(int fd, void *buf, size_t len, uint64_t off,
		    const char *name, struct prep_err *err)
{
	unsigned char *p = buf;

	while (len > 0) {
		const ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return prep_fail_errno(err, "%s: cannot read at offset %llu", name,
					       (unsigned long long)off);
		if (n == 0)
			return prep_fail(err, PREP_EDAMAGED, "%s: the file ends at offset %llu, too early",
					 name, (unsigned long long)off);
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

int64_t prep_file_read(int fd, void *buf, size_t len, const char *name, struct prep_err *err)
{
	unsigned char *p = buf;
	size_t have = 0;

	while (have < len) {
		const ssize_t n = read(fd, p + have, len - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return prep_fail_errno(err, "%s: cannot read", name);
		if (n == 0)
			break;
		have += (size_t)n;
	}
	return (int64_t)have;
}

int prep_file_pwrite(int fd, const void *buf, size_t len, uint64_t off,
		     const char *name, struct prep_err *err)
{
	const unsigned char *p = buf;

	while (len > 0) {
		const ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return prep_fail_errno(err, "%s: cannot write at offset %llu", name,
					       (unsigned long long)off);
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

int prep_file_write(int fd, const void *buf, size_t len, const char *name, struct prep_err *err)
{
	const unsigned char *p = buf;

	while (len > 0) {
		const ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return prep_fail_errno(err, "%s: cannot write", name);
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int prep_file_sync(int fd, const char *name, struct prep_err *err)
{
	int r;

	do
		r = fsync(fd);
	while (r != 0 && errno == EINTR);
	/* Pipes and some devices cannot be synced, and need not be. */
	if (r != 0 && errno != EINVAL && errno != EROFS)
		return prep_fail_errno(err, "%s: cannot write to stable storage", name);
	return 0;
}

int prep_file_sync_dir(const char *path, struct prep_err *err)
{
	char *copy = strdup(path);
	int fd, r;

	if (copy == NULL)
		return prep_fail_nomem(err);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	if (fd < 0)
		return prep_fail_errno(err, "%s: cannot open its folder", path);
	r = prep_file_sync(fd, path, err);
	close(fd);
	return r;
}

char *prep_file_beside(const char *path, const char *suffix)
{
	char *whole = realpath(path, NULL), *ret;

	if (whole == NULL || asprintf(&ret, "%s%s", whole, suffix) < 0)
		ret = NULL;
	free(whole);
	return ret;
}

uint64_t prep_file_extent(int fd, struct prep_file_run *run, uint64_t off, uint64_t end, bool *hole)
{
	const uint64_t known = run != NULL ? atomic_load(&run->pages) : 0;
	const uint64_t known_end = (known & UINT32_MAX) * PAGE;
	off_t data, next;

	*hole = false;
	if (off >= (known >> 32) * PAGE && off < known_end)
		return prep_min(known_end, end);
	data = lseek(fd, (off_t)off, SEEK_DATA);
	if (data < 0) {
		/* ENXIO: nothing but a hole from here on; anything else: holes are unknown here. */
		*hole = errno == ENXIO;
		return end;
	}
	if ((uint64_t)data > off) {
		*hole = true;
		return prep_min((uint64_t)data, end);
	}
	next = lseek(fd, (off_t)off, SEEK_HOLE);
	if (next < 0 || (uint64_t)next <= off)
		return end;
	if (run != NULL && (uint64_t)next / PAGE <= UINT32_MAX)
		atomic_store(&run->pages, prep_round_up(off, PAGE) / PAGE << 32 | (uint64_t)next / PAGE);
	return prep_min((uint64_t)next, end);
}

void prep_file_run_cut(struct prep_file_run *run, uint64_t off, uint64_t len)
{
	const uint64_t known = atomic_load(&run->pages), last = known & UINT32_MAX;
	const uint64_t from = prep_round_up(off + len, PAGE) / PAGE;

	if (off < last * PAGE && from > known >> 32)
		atomic_store(&run->pages, from < last ? from << 32 | last : 0);
}

static int write_zeros(int fd, uint64_t off, uint64_t len, const char *name, struct prep_err *err)
{
	static const unsigned char zeros[64 * 1024];

	while (len > 0) {
		const size_t n = (size_t)prep_min(len, sizeof zeros);

		if (prep_file_pwrite(fd, zeros, n, off, name, err) < 0)
			return -1;
		off += n;
		len -= n;
	}
	return 0;
}

int prep_file_zero(int fd, uint64_t off, uint64_t len, const char *name, struct prep_err *err)
{
	const uint64_t end = off + len;
	const uint64_t first = prep_round_up(off, PAGE), last = prep_round_down(end, PAGE);
	int r;

	/* A hole of part of a page frees nothing, and is dearer than the zeros. */
	if (first >= last)
		return write_zeros(fd, off, len, name, err);
	do
		r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)first,
			      (off_t)(last - first));
	while (r != 0 && errno == EINTR);
	if (r != 0) {
		if (errno != EOPNOTSUPP && errno != ENOSYS && errno != ENODEV)
			return prep_fail_errno(err, "%s: cannot free %llu bytes at offset %llu", name,
					       (unsigned long long)(last - first), (unsigned long long)first);
		return write_zeros(fd, off, len, name, err);
	}
	if (write_zeros(fd, off, first - off, name, err) < 0)
		return -1;
	return write_zeros(fd, last, end - last, name, err);
}

/* QEMU's permission bytes: who uses a permission read-locks QEMU_PERM + bit, who
 * does not share it read-locks QEMU_UNSHARED + bit. */
#define QEMU_PERM 100
#define QEMU_UNSHARED 200
#define QEMU_PERM_READ (1u << 0)
#define QEMU_PERM_WRITE (1u << 1)
#define QEMU_PERM_RESIZE (1u << 3)
#define QEMU_PERM_BITS 5

static int lock_byte(int fd, int cmd, short type, off_t byte, bool *taken)
{
	struct flock fl = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

	*taken = false;
	if (fcntl(fd, cmd, &fl) != 0) {
		if (errno != EAGAIN && errno != EACCES)
			return -1;
		*taken = true;
	} else if (cmd == F_OFD_GETLK && fl.l_type != F_UNLCK) {
		*taken = true;
	}
	return 0;
}

int prep_file_lock(int fd, bool write, const char *name, struct prep_err *err)
{
	const unsigned uses = QEMU_PERM_READ | (write ? QEMU_PERM_WRITE | QEMU_PERM_RESIZE : 0);
	const unsigned unshared = write ? (1u << QEMU_PERM_BITS) - 1
					: QEMU_PERM_WRITE | QEMU_PERM_RESIZE;
	bool taken;

	/* First take all of ours, then look for a conflict: of two that start at
	 * once at least one sees the other. */
	for (unsigned i = 0; i < QEMU_PERM_BITS; i++) {
		if ((uses & 1u << i) && lock_byte(fd, F_OFD_SETLK, F_RDLCK, QEMU_PERM + i, &taken) != 0)
			return 0;
		if ((unshared & 1u << i) &&
		    lock_byte(fd, F_OFD_SETLK, F_RDLCK, QEMU_UNSHARED + i, &taken) != 0)
			return 0;
	}
	for (unsigned i = 0; i < QEMU_PERM_BITS; i++) {
		bool used = false, kept = false;

		if ((unshared & 1u << i) &&
		    lock_byte(fd, F_OFD_GETLK, F_WRLCK, QEMU_PERM + i, &used) != 0)
			return 0;
		if ((uses & 1u << i) &&
		    lock_byte(fd, F_OFD_GETLK, F_WRLCK, QEMU_UNSHARED + i, &kept) != 0)
			return 0;
		if (used || kept)
			return prep_fail(err, PREP_EREFUSED, "%s: in use by another process", name);
	}
	return 0;
}

int prep_file_not_opened(const char *path, bool write, struct prep_err *err)
{
	const int why = errno;

	if (why == EACCES && access(path, write ? W_OK : R_OK) == 0)
		return prep_fail(err, PREP_EREFUSED, "%s: in use by another process, which has just replaced it", path);
	errno = why;
	return prep_fail_errno(err, "%s", path);
}

int prep_file_check_space(int fd, const char *name, uint64_t need, struct prep_err *err)
{
	struct statvfs vfs;

	if (fstatvfs(fd, &vfs) != 0 || vfs.f_blocks == 0 || vfs.f_frsize == 0)
		return 0;
	if (need / vfs.f_frsize >= vfs.f_bavail)
		return prep_fail(err, PREP_EFAIL, "%s: not enough free space: up to %llu MiB needed, %llu MiB free",
				 name, (unsigned long long)((need + PREP_MIB - 1) / PREP_MIB),
				 (unsigned long long)((uint64_t)vfs.f_bavail * vfs.f_frsize / PREP_MIB));
	return 0;
}

int prep_file_temp(const char *dir, struct prep_err *err)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
	char *path;

	if (fd >= 0)
		return fd;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		return prep_fail_errno(err, "%s: cannot make a temporary file", dir);
	path = malloc(strlen(dir) + sizeof "/prep-XXXXXX");
	if (path == NULL)
		return prep_fail_nomem(err);
	strcpy(path, dir);
	strcat(path, "/prep-XXXXXX");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		prep_fail_errno(err, "%s: cannot make a temporary file", dir);
	else
		unlink(path);
	free(path);
	return fd;
}
