/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Loaded into a command by LD_PRELOAD: fails it, or kills it, at its N-th call
 * that changes a file, so that a test can go through all of them.
 *
 *   FAULTS_HOW    kill    SIGKILL in place of the call
 *                 tear    SIGKILL when a write is half done; four bytes or fewer are never torn: nothing
 *                         copies half of a table's entry
 *                 eio     the call fails with EIO
 *                 enospc  a call that needs room fails with ENOSPC, a write after half of it
 *                 eread   a read of a file fails with EIO
 *                 short   writes and reads do half of what they are asked
 *                 eintr   every second call is interrupted
 *   FAULTS_AT     N, counted from 1 among the calls that FAULTS_HOW is about; 0 or unset: none,
 *                 but for short and eintr, which are about every call
 *   FAULTS_COUNT  a file that the number of those calls is written to at the end
 *   FAULTS_NO_TMPFILE  if set, files without a name are refused, as some file systems do
 *
 * Only regular files count, and names: messages and pipes do not. The clock
 * stands still, so that what a file system notes of its changes is always the same.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "clock.h"

enum call { WRITE, GROW, SYNC, NAME, READ };
enum how { NONE, KILL, TEAR, EIO_, ENOSPC_, EREAD, SHORT, EINTR_ };

static enum how how;
static unsigned long at;
static atomic_ulong count;

#define REAL(name) real_##name
#define FIND(name) (*(void **)&REAL(name) = dlsym(RTLD_NEXT, #name))

static ssize_t (*REAL(pwrite64))(int, const void *, size_t, off64_t);
static ssize_t (*REAL(write))(int, const void *, size_t);
static ssize_t (*REAL(pread64))(int, void *, size_t, off64_t);
static ssize_t (*REAL(read))(int, void *, size_t);
static ssize_t (*REAL(splice))(int, off64_t *, int, off64_t *, size_t, unsigned);
static ssize_t (*REAL(copy_file_range))(int, off64_t *, int, off64_t *, size_t, unsigned);
static int (*REAL(fallocate64))(int, int, off64_t, off64_t);
static int (*REAL(ftruncate64))(int, off64_t);
static int (*REAL(linkat))(int, const char *, int, const char *, int);
static int (*REAL(link))(const char *, const char *);
static int (*REAL(rename))(const char *, const char *);
static int (*REAL(renameat2))(int, const char *, int, const char *, unsigned);
static int (*REAL(mkdir))(const char *, mode_t);
static int (*REAL(rmdir))(const char *);
static int (*REAL(chmod))(const char *, mode_t);
static int (*REAL(fchmod))(int, mode_t);
static int (*REAL(fchown))(int, uid_t, gid_t);
static int (*REAL(fsetxattr))(int, const char *, const void *, size_t, int);
static int (*REAL(mkostemp64))(char *, int);
static int (*REAL(open64))(const char *, int, ...);
static int (*REAL(unlink))(const char *);

/* Sanitizers call before any constructor has run. */
static void find(void)
{
	static const char *const names[] = { "", "kill", "tear", "eio", "enospc", "eread", "short", "eintr" };
	const char *h = getenv("FAULTS_HOW"), *n = getenv("FAULTS_AT");

	if (REAL(unlink) != NULL)
		return;
	FIND(pwrite64);
	FIND(write);
	FIND(pread64);
	FIND(read);
	FIND(splice);
	FIND(copy_file_range);
	FIND(fallocate64);
	FIND(ftruncate64);
	FIND(linkat);
	FIND(link);
	FIND(rename);
	FIND(renameat2);
	FIND(mkdir);
	FIND(rmdir);
	FIND(chmod);
	FIND(fchmod);
	FIND(fchown);
	FIND(fsetxattr);
	FIND(mkostemp64);
	FIND(open64);
	FIND(unlink);
	at = n != NULL ? strtoul(n, NULL, 10) : 0;
	for (unsigned i = 1; h != NULL && i < sizeof names / sizeof names[0]; i++)
		if (strcmp(h, names[i]) == 0)
			how = (enum how)i;
}

static int count_fd = -1;

/* At the start: the commands give up opening what is not theirs. */
static void open_count(void)
{
	const char *path = getenv("FAULTS_COUNT");

	if (path == NULL || how == NONE)
		return;
	count_fd = REAL(open64)(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (count_fd < 0)
		abort();
}

static void write_count(void)
{
	char text[32];
	const int n = snprintf(text, sizeof text, "%lu\n", (unsigned long)count);

	if (count_fd >= 0 && REAL(write)(count_fd, text, (size_t)n) != n)
		abort();
}

__attribute__((constructor))
static void start(void)
{
	find();
	open_count();
}

__attribute__((destructor))
static void stop(void)
{
	write_count();
}

static bool about(enum call call)
{
	switch (how) {
	case KILL:
	case EIO_:
		return call != READ;
	case TEAR:
		return call == WRITE;
	case ENOSPC_:
		return call == WRITE || call == GROW;
	case EREAD:
		return call == READ;
	case SHORT:
		return call == WRITE || call == READ;
	case EINTR_:
		return call == WRITE || call == READ || call == SYNC;
	case NONE:
		break;
	}
	return false;
}

/* Whether this call is the one, or one of those. */
static bool due(enum call call, int fd)
{
	unsigned long n;
	struct stat st;

	find();
	if (!about(call) || (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))))
		return false;
	n = ++count;
	if (how == SHORT)
		return true;
	if (how == EINTR_)
		return n % 2 == 1;
	if (n != at)
		return false;
	if (how == KILL)
		kill(getpid(), SIGKILL);
	return true;
}

static int fail(void)
{
	errno = how == ENOSPC_ ? ENOSPC : how == EINTR_ ? EINTR : EIO;
	return -1;
}

/* How much of a transfer that is due is done before it fails. */
static size_t part(size_t len)
{
	if (how == SHORT)
		return len - len / 2;
	return how == TEAR || how == ENOSPC_ ? len / 2 & ~(size_t)3 : 0;
}

/* What comes of a transfer that did `done` of its part. */
static ssize_t after(ssize_t done)
{
	if (how == TEAR)
		kill(getpid(), SIGKILL);
	/* A full disk takes what fits, and refuses the rest the next time. */
	if (how == ENOSPC_ && done > 0) {
		at = count + 1;
		return done;
	}
	return how == SHORT ? done : fail();
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
	if (!due(WRITE, fd))
		return REAL(pwrite64)(fd, buf, len, off);
	return after(part(len) > 0 ? REAL(pwrite64)(fd, buf, part(len), off) : 0);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	return pwrite64(fd, buf, len, off);
}

ssize_t write(int fd, const void *buf, size_t len)
{
	if (!due(WRITE, fd))
		return REAL(write)(fd, buf, len);
	return after(part(len) > 0 ? REAL(write)(fd, buf, part(len)) : 0);
}

ssize_t copy_file_range(int in, off64_t *in_off, int out, off64_t *out_off, size_t len, unsigned flags)
{
	if (!due(WRITE, out))
		return REAL(copy_file_range)(in, in_off, out, out_off, len, flags);
	return after(part(len) > 0 ? REAL(copy_file_range)(in, in_off, out, out_off, part(len), flags) : 0);
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t off)
{
	if (!due(READ, fd))
		return REAL(pread64)(fd, buf, len, off);
	return after(part(len) > 0 ? REAL(pread64)(fd, buf, part(len), off) : 0);
}

ssize_t read(int fd, void *buf, size_t len)
{
	if (!due(READ, fd))
		return REAL(read)(fd, buf, len);
	return after(part(len) > 0 ? REAL(read)(fd, buf, part(len)) : 0);
}

/* From a file to a pipe. */
ssize_t splice(int in, off64_t *in_off, int out, off64_t *out_off, size_t len, unsigned flags)
{
	if (!due(READ, in))
		return REAL(splice)(in, in_off, out, out_off, len, flags);
	return after(part(len) > 0 ? REAL(splice)(in, in_off, out, out_off, part(len), flags) : 0);
}

ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
	return pread64(fd, buf, len, off);
}

/* What _FORTIFY_SOURCE makes of pread. */
ssize_t __pread64_chk(int fd, void *buf, size_t len, off64_t off, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t len, off64_t off, size_t room)
{
	if (len > room)
		abort();
	return pread64(fd, buf, len, off);
}

int fallocate64(int fd, int mode, off64_t off, off64_t len)
{
	return due(GROW, fd) ? fail() : REAL(fallocate64)(fd, mode, off, len);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	return fallocate64(fd, mode, off, len);
}

int ftruncate64(int fd, off64_t len)
{
	return due(GROW, fd) ? fail() : REAL(ftruncate64)(fd, len);
}

int ftruncate(int fd, off_t len)
{
	return ftruncate64(fd, len);
}

/* Nothing is synced: what a process wrote outlives it without that, and the tests last a tenth of the time. */
int fsync(int fd)
{
	(void)fd;
	return due(SYNC, -1) ? fail() : 0;
}

int fdatasync(int fd)
{
	return fsync(fd);
}

/* A hint: a command may not mind that it fails. */
int sync_file_range(int fd, off64_t off, off64_t len, unsigned flags)
{
	(void)off;
	(void)len;
	(void)flags;
	return fsync(fd);
}

int linkat(int dir, const char *from, int new_dir, const char *to, int flags)
{
	return due(NAME, -1) ? fail() : REAL(linkat)(dir, from, new_dir, to, flags);
}

int link(const char *from, const char *to)
{
	return due(NAME, -1) ? fail() : REAL(link)(from, to);
}

int rename(const char *from, const char *to)
{
	return due(NAME, -1) ? fail() : REAL(rename)(from, to);
}

int renameat2(int dir, const char *from, int new_dir, const char *to, unsigned flags)
{
	return due(NAME, -1) ? fail() : REAL(renameat2)(dir, from, new_dir, to, flags);
}

int unlink(const char *path)
{
	return due(NAME, -1) ? fail() : REAL(unlink)(path);
}

int mkdir(const char *path, mode_t mode)
{
	return due(NAME, -1) ? fail() : REAL(mkdir)(path, mode);
}

int rmdir(const char *path)
{
	return due(NAME, -1) ? fail() : REAL(rmdir)(path);
}

int chmod(const char *path, mode_t mode)
{
	return due(NAME, -1) ? fail() : REAL(chmod)(path, mode);
}

int fchmod(int fd, mode_t mode)
{
	return due(NAME, -1) ? fail() : REAL(fchmod)(fd, mode);
}

int fchown(int fd, uid_t uid, gid_t gid)
{
	return due(NAME, -1) ? fail() : REAL(fchown)(fd, uid, gid);
}

int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
	return due(NAME, -1) ? fail() : REAL(fsetxattr)(fd, name, value, size, flags);
}

int mkostemp64(char *path, int flags)
{
	return due(NAME, -1) ? fail() : REAL(mkostemp64)(path, flags);
}

/* The making of a file is a call that changes something; opening one is not. */
int open64(const char *path, int flags, ...)
{
	const bool makes = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
	mode_t mode = 0;
	va_list ap;

	find();
	if (!makes)
		return REAL(open64)(path, flags);
	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	if ((flags & O_TMPFILE) == O_TMPFILE && getenv("FAULTS_NO_TMPFILE") != NULL) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return due(NAME, -1) ? fail() : REAL(open64)(path, flags, mode);
}
