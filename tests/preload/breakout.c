/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Loaded into a command by LD_PRELOAD: tries, whenever it reads or writes a file at
 * an offset, as all that parses images and packages does, to open what is not its business.
 *
 *   BREAKOUT_READ    a file that it tries to read
 *   BREAKOUT_WRITE   a folder in which it tries to make a file without a name
 *   BREAKOUT_REPORT  a file that takes, at the end, the line
 *                    CALLS READ-OPEN READ-LAST WRITE-OPEN WRITE-LAST: at how many calls there were tries, at
 *                    how many each succeeded, and whether (1, 0) it did at the last
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static ssize_t (*real_pread64)(int, void *, size_t, off64_t);
static ssize_t (*real_pwrite64)(int, const void *, size_t, off64_t);
static int report_fd = -1;
static atomic_ulong calls, read_open, write_open;
static atomic_int read_last, write_last;

/* Sanitizers call before any constructor has run. */
static void find(void)
{
	if (real_pread64 != NULL && real_pwrite64 != NULL)
		return;
	*(void **)&real_pread64 = dlsym(RTLD_NEXT, "pread64");
	*(void **)&real_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
}

/* At the start: the commands give up opening what is not theirs. */
__attribute__((constructor))
static void start(void)
{
	const char *report = getenv("BREAKOUT_REPORT");

	find();
	if (report != NULL)
		report_fd = open(report, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

__attribute__((destructor))
static void stop(void)
{
	if (report_fd >= 0)
		dprintf(report_fd, "%lu %lu %d %lu %d\n", calls, read_open, read_last, write_open, write_last);
}

static int works(const char *path, int flags)
{
	const int fd = path != NULL ? open(path, flags | O_CLOEXEC, 0600) : -1;

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void attempt(int fd)
{
	struct stat st;

	find();
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return;
	calls++;
	read_last = works(getenv("BREAKOUT_READ"), O_RDONLY);
	read_open += (unsigned long)read_last;
	write_last = works(getenv("BREAKOUT_WRITE"), O_TMPFILE | O_RDWR);
	write_open += (unsigned long)write_last;
}

ssize_t pread64(int fd, void *buf, size_t len, off64_t off)
{
	attempt(fd);
	return real_pread64(fd, buf, len, off);
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

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off)
{
	attempt(fd);
	return real_pwrite64(fd, buf, len, off);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	return pwrite64(fd, buf, len, off);
}
