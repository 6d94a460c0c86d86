/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Loaded into a command by LD_PRELOAD: writes every call that changes a file
 * or a folder, with its data, to the file RECORD_LOG (record.h), and lets it happen.
 *
 * The clock stands still. With RECORD_NO_TMPFILE set, files without a name are refused, as some file
 * systems do.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"
#include "record.h"

#define REAL(name) real_##name
#define FIND(name) (*(void **)&REAL(name) = dlsym(RTLD_NEXT, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the order of the calls is that of the log */
static int log_fd = -1;

static ssize_t (*REAL(pwrite64))(int, const void *, size_t, off64_t);
static ssize_t (*REAL(write))(int, const void *, size_t);
static ssize_t (*REAL(copy_file_range))(int, off64_t *, int, off64_t *, size_t, unsigned);
static int (*REAL(fallocate64))(int, int, off64_t, off64_t);
static int (*REAL(ftruncate64))(int, off64_t);
static int (*REAL(fsync))(int);
static int (*REAL(linkat))(int, const char *, int, const char *, int);
static int (*REAL(link))(const char *, const char *);
static int (*REAL(renameat2))(int, const char *, int, const char *, unsigned);
static int (*REAL(unlink))(const char *);
static int (*REAL(mkdir))(const char *, mode_t);
static int (*REAL(rmdir))(const char *);
static int (*REAL(chmod))(const char *, mode_t);
static int (*REAL(fchmod))(int, mode_t);
static int (*REAL(open64))(const char *, int, ...);
static int (*REAL(mkostemp64))(char *, int);

__attribute__((constructor))
static void start(void)
{
	const char *path = getenv("RECORD_LOG");

	FIND(pwrite64);
	FIND(write);
	FIND(copy_file_range);
	FIND(fallocate64);
	FIND(ftruncate64);
	FIND(fsync);
	FIND(linkat);
	FIND(link);
	FIND(renameat2);
	FIND(unlink);
	FIND(mkdir);
	FIND(rmdir);
	FIND(chmod);
	FIND(fchmod);
	FIND(open64);
	FIND(mkostemp64);
	if (path != NULL)
		log_fd = REAL(open64)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(struct record r, const char *to, const char *from, const void *data)
{
	struct iovec part[4] = {
		{ &r, sizeof r }, { (void *)to, to != NULL ? strlen(to) : 0 }, { (void *)from, from != NULL ? strlen(from) : 0 },
		{ (void *)data, data != NULL ? r.len : 0 },
	};
	size_t all = 0;

	if (log_fd < 0)
		return;
	r.to = (uint16_t)part[1].iov_len;
	r.from = (uint16_t)part[2].iov_len;
	for (int i = 0; i < 4; i++)
		all += part[i].iov_len;
	if (writev(log_fd, part, 4) != (ssize_t)all)
		abort();
}

/* The inode behind fd, if it is one whose changes count. */
static bool is_file(int fd, uint64_t *ino)
{
	struct stat st;

	*ino = 0;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return false;
	*ino = st.st_ino;
	return true;
}

/* The absolute name of a path whose folder is there. */
static const char *absolute(const char *path, char ret[PATH_MAX])
{
	char dir[PATH_MAX], real[PATH_MAX];
	const char *slash = strrchr(path, '/');

	snprintf(dir, sizeof dir, "%.*s", slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path),
		 slash == NULL ? "." : path);
	if (realpath(dir, real) == NULL)
		abort();
	if (snprintf(ret, PATH_MAX, "%s/%s", real, slash == NULL ? path : slash + 1) >= PATH_MAX)
		abort();
	return ret;
}

static void put_name(enum record_op op, const char *to, const char *from)
{
	char a[PATH_MAX], b[PATH_MAX];
	struct stat st = { .st_ino = 0 };

	if (op != RECORD_DROP && lstat(to, &st) != 0)
		abort();
	put((struct record){ .op = op, .ino = st.st_ino }, absolute(to, a), from != NULL ? absolute(from, b) : NULL,
	    NULL);
}

static ssize_t wrote(int fd, const void *buf, ssize_t n, off64_t off)
{
	uint64_t ino;

	if (n > 0 && is_file(fd, &ino))
		put((struct record){ .op = RECORD_DATA, .ino = ino, .off = (uint64_t)off, .len = (uint64_t)n }, NULL, NULL,
		    buf);
	return n;
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
	pthread_mutex_lock(&lock);
	const ssize_t n = wrote(fd, buf, REAL(pwrite64)(fd, buf, len, off), off);
	pthread_mutex_unlock(&lock);
	return n;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	return pwrite64(fd, buf, len, off);
}

/* Pipes may keep it waiting: without the lock. */
ssize_t write(int fd, const void *buf, size_t len)
{
	const off64_t off = lseek64(fd, 0, SEEK_CUR);
	const ssize_t n = REAL(write)(fd, buf, len);

	pthread_mutex_lock(&lock);
	if (off >= 0)
		wrote(fd, buf, n, off);
	pthread_mutex_unlock(&lock);
	return n;
}

ssize_t copy_file_range(int in, off64_t *in_off, int out, off64_t *out_off, size_t len, unsigned flags)
{
	const off64_t from = *in_off, to = *out_off;
	void *buf;
	ssize_t n;

	pthread_mutex_lock(&lock);
	n = REAL(copy_file_range)(in, in_off, out, out_off, len, flags);
	if (n > 0) {
		buf = malloc((size_t)n);
		if (buf == NULL || pread64(in, buf, (size_t)n, from) != n)
			abort();
		wrote(out, buf, n, to);
		free(buf);
	}
	pthread_mutex_unlock(&lock);
	return n;
}

int fallocate64(int fd, int mode, off64_t off, off64_t len)
{
	uint64_t ino;
	int r;

	pthread_mutex_lock(&lock);
	r = REAL(fallocate64)(fd, mode, off, len);
	if (r == 0 && is_file(fd, &ino) && (mode & FALLOC_FL_PUNCH_HOLE))
		put((struct record){ .op = RECORD_ZERO, .ino = ino, .off = (uint64_t)off, .len = (uint64_t)len }, NULL, NULL,
		    NULL);
	pthread_mutex_unlock(&lock);
	return r;
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	return fallocate64(fd, mode, off, len);
}

int ftruncate64(int fd, off64_t len)
{
	uint64_t ino;
	int r;

	pthread_mutex_lock(&lock);
	r = REAL(ftruncate64)(fd, len);
	if (r == 0 && is_file(fd, &ino))
		put((struct record){ .op = RECORD_SIZE, .ino = ino, .off = (uint64_t)len }, NULL, NULL, NULL);
	pthread_mutex_unlock(&lock);
	return r;
}

int ftruncate(int fd, off_t len)
{
	return ftruncate64(fd, len);
}

/* Nothing is synced: it is only recorded that it would be. */
int fsync(int fd)
{
	char link[64], path[PATH_MAX];
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)))
		return REAL(fsync)(fd);
	pthread_mutex_lock(&lock);
	if (S_ISREG(st.st_mode)) {
		put((struct record){ .op = RECORD_SYNC, .ino = st.st_ino }, NULL, NULL, NULL);
	} else {
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		n = readlink(link, path, sizeof path - 1);
		if (n < 0)
			abort();
		path[n] = '\0';
		put((struct record){ .op = RECORD_SYNCDIR }, path, NULL, NULL);
	}
	pthread_mutex_unlock(&lock);
	return 0;
}

int fdatasync(int fd)
{
	return fsync(fd);
}

int linkat(int dir, const char *from, int new_dir, const char *to, int flags)
{
	int r;

	pthread_mutex_lock(&lock);
	r = REAL(linkat)(dir, from, new_dir, to, flags);
	if (r == 0)
		put_name(RECORD_LINK, to, NULL);
	pthread_mutex_unlock(&lock);
	return r;
}

int link(const char *from, const char *to)
{
	return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat2(int dir, const char *from, int new_dir, const char *to, unsigned flags)
{
	int r;

	pthread_mutex_lock(&lock);
	r = REAL(renameat2)(dir, from, new_dir, to, flags);
	if (r == 0)
		put_name(RECORD_MOVE, to, from);
	pthread_mutex_unlock(&lock);
	return r;
}

int rename(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path)
{
	int r;

	pthread_mutex_lock(&lock);
	r = REAL(unlink)(path);
	if (r == 0)
		put_name(RECORD_DROP, path, NULL);
	pthread_mutex_unlock(&lock);
	return r;
}

int mkdir(const char *path, mode_t mode)
{
	int r;

	pthread_mutex_lock(&lock);
	r = REAL(mkdir)(path, mode);
	if (r == 0)
		put_name(RECORD_FOLDER, path, NULL);
	pthread_mutex_unlock(&lock);
	return r;
}

int rmdir(const char *path)
{
	int r;

	pthread_mutex_lock(&lock);
	r = REAL(rmdir)(path);
	if (r == 0)
		put_name(RECORD_DROP, path, NULL);
	pthread_mutex_unlock(&lock);
	return r;
}

static void put_mode(const struct stat *st)
{
	if (S_ISREG(st->st_mode))
		put((struct record){ .op = RECORD_MODE, .ino = st->st_ino, .off = st->st_mode & 07777 }, NULL, NULL, NULL);
}

int chmod(const char *path, mode_t mode)
{
	struct stat st;
	int r;

	pthread_mutex_lock(&lock);
	r = REAL(chmod)(path, mode);
	if (r == 0 && stat(path, &st) == 0)
		put_mode(&st);
	pthread_mutex_unlock(&lock);
	return r;
}

int fchmod(int fd, mode_t mode)
{
	struct stat st;
	int r;

	pthread_mutex_lock(&lock);
	r = REAL(fchmod)(fd, mode);
	if (r == 0 && fstat(fd, &st) == 0)
		put_mode(&st);
	pthread_mutex_unlock(&lock);
	return r;
}

/* A file that an open made or emptied. */
static void opened(int fd, const char *path, int flags, bool was_there)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return;
	if ((flags & O_TMPFILE) == O_TMPFILE || !was_there) {
		put((struct record){ .op = RECORD_NEW, .ino = st.st_ino, .off = st.st_mode & 07777 }, NULL, NULL, NULL);
		if ((flags & O_TMPFILE) != O_TMPFILE)
			put_name(RECORD_LINK, path, NULL);
	} else if (flags & O_TRUNC) {
		put((struct record){ .op = RECORD_SIZE, .ino = st.st_ino }, NULL, NULL, NULL);
	}
}

int open64(const char *path, int flags, ...)
{
	const bool makes = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
	struct stat st;
	mode_t mode = 0;
	va_list ap;
	int fd;

	if (makes) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	if (!makes && !(flags & O_TRUNC))
		return REAL(open64)(path, flags, mode);
	if ((flags & O_TMPFILE) == O_TMPFILE && getenv("RECORD_NO_TMPFILE") != NULL) {
		errno = EOPNOTSUPP;
		return -1;
	}
	pthread_mutex_lock(&lock);
	const bool was_there = lstat(path, &st) == 0;
	fd = REAL(open64)(path, flags, mode);
	opened(fd, path, flags, was_there);
	pthread_mutex_unlock(&lock);
	return fd;
}

int mkostemp64(char *path, int flags)
{
	int fd;

	pthread_mutex_lock(&lock);
	fd = REAL(mkostemp64)(path, flags);
	opened(fd, path, 0, false);
	pthread_mutex_unlock(&lock);
	return fd;
}
