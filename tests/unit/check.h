/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the unit tests share. A test is a function without arguments; main
 * names each by RUN and returns check_result(). Each prints one line, "ok NAME",
 * "not ok NAME: FILE:LINE: why" or "skip NAME: why", and ends at its first failure.
 */
#ifndef TESTS_UNIT_CHECK_H
#define TESTS_UNIT_CHECK_H

#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libprep/base/err.h"

static const char *check_name;
static bool check_ended;       /* the test has failed or was skipped */
static unsigned check_failures;

__attribute__((format(printf, 3, 4), unused))
static void check_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	if (check_ended)
		return;
	check_ended = true;
	check_failures++;
	printf("not ok %s: %s:%d: ", check_name, file, line);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* These return from the function they stand in; one that was called by a test tells by check_ended. */
#define CHECK_FAIL(...)                                                        \
	do {                                                                   \
		check_fail(__FILE__, __LINE__, __VA_ARGS__);                   \
		return;                                                        \
	} while (0)

#define CHECK(cond)                                                            \
	do {                                                                   \
		if (!(cond))                                                   \
			CHECK_FAIL("%s", #cond);                               \
	} while (0)

#define CHECK_EQ(a, b)                                                         \
	do {                                                                   \
		const uint64_t a_ = (uint64_t)(a), b_ = (uint64_t)(b);         \
		if (a_ != b_)                                                  \
			CHECK_FAIL("%s is %" PRIu64 ", %s is %" PRIu64, #a, a_, #b, b_); \
	} while (0)

#define CHECK_STR(a, b)                                                        \
	do {                                                                   \
		if (strcmp(a, b) != 0)                                         \
			CHECK_FAIL("%s is \"%s\", not \"%s\"", #a, a, b);      \
	} while (0)

/* A call that takes &err as its last argument and must succeed. */
#define CHECK_DONE(call)                                                       \
	do {                                                                   \
		err = (struct prep_err)PREP_ERR_INIT;                          \
		if ((call) < 0)                                                \
			CHECK_FAIL("%s: %s", #call, err.msg);                  \
		if (err.code != PREP_DONE)                                     \
			CHECK_FAIL("%s: succeeded with an error: %s", #call, err.msg); \
	} while (0)

/* One that must fail with this code and a message that holds `text`. */
#define CHECK_FAILS(call, want, text)                                          \
	do {                                                                   \
		err = (struct prep_err)PREP_ERR_INIT;                          \
		if ((call) >= 0)                                               \
			CHECK_FAIL("%s: succeeded", #call);                    \
		if (err.code != (want) || strstr(err.msg, text) == NULL)       \
			CHECK_FAIL("%s: code %d, \"%s\"; wanted %s, \"%s\"", #call, (int)err.code, \
				   err.msg, #want, text);                      \
	} while (0)

#define CHECK_SKIP(why)                                                        \
	do {                                                                   \
		printf("skip %s: %s\n", check_name, why);                      \
		check_ended = true;                                            \
		return;                                                        \
	} while (0)

/* What has no meaning under memcheck (VALGRIND=1 tests/run). */
#define CHECK_SKIP_UNDER_VALGRIND(why)                                         \
	do {                                                                   \
		if (getenv("PREP_MEMCHECK") != NULL)                           \
			CHECK_SKIP("under valgrind: " why);                    \
	} while (0)

__attribute__((unused))
static void check_run(const char *name, void (*test)(void))
{
	check_name = name;
	check_ended = false;
	test();
	if (!check_ended)
		printf("ok %s\n", name);
	fflush(stdout);
}

#define RUN(test) check_run(#test, test)

__attribute__((unused))
static int check_result(void)
{
	return check_failures > 0;
}

/* ---- Files ---- */

static char check_folder[4096];

static int check_unlink(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static void check_clean(void)
{
	nftw(check_folder, check_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

/* A folder of this program's own in $TMPDIR, removed at its end. */
__attribute__((unused))
static const char *check_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	if (check_folder[0] == '\0') {
		snprintf(check_folder, sizeof check_folder, "%s/unit-XXXXXX", tmp != NULL ? tmp : "/tmp");
		if (mkdtemp(check_folder) == NULL) {
			perror(check_folder);
			exit(1);
		}
		atexit(check_clean);
	}
	return check_folder;
}

/* The path of a file in that folder: in one of eight buffers, used in turn. */
__attribute__((unused))
static const char *check_path(const char *name)
{
	static char path[8][4200];
	static unsigned next;
	char *p = path[next++ % 8];

	snprintf(p, sizeof path[0], "%s/%s", check_dir(), name);
	return p;
}

/* A new file in that folder, open for reading and writing. */
__attribute__((unused))
static int check_create(const char *name)
{
	const int fd = open(check_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	if (fd < 0) {
		perror(name);
		exit(1);
	}
	return fd;
}

__attribute__((unused))
static void check_write(int fd, const void *buf, size_t len, uint64_t off)
{
	if (pwrite(fd, buf, len, (off_t)off) != (ssize_t)len) {
		perror("pwrite");
		exit(1);
	}
}

/* All of a file: the caller frees it. */
__attribute__((unused))
static unsigned char *check_read(const char *path, size_t *len)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	unsigned char *p;

	if (size < 0) {
		perror(path);
		exit(1);
	}
	p = malloc((size_t)size + 1);
	if (p == NULL || pread(fd, p, (size_t)size, 0) != size) {
		perror(path);
		exit(1);
	}
	close(fd);
	*len = (size_t)size;
	return p;
}

/* ---- Chance that repeats itself ---- */

static uint64_t check_seed;

__attribute__((unused))
static uint64_t check_random(uint64_t below)
{
	/* splitmix64, S. Vigna */
	uint64_t z = check_seed += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (z ^ (z >> 31)) % below;
}

/* Bytes none of which is zero. */
__attribute__((unused))
static void check_noise(void *buf, size_t len)
{
	unsigned char *p = buf;

	for (size_t i = 0; i < len; i++)
		p[i] = (unsigned char)(1 + check_random(255));
}

#endif
