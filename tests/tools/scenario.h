/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A scenario: a folder, a command that is run in it again and again, each time
 * with the folder as it was at first, and a judge, a shell command that is run there afterwards.
 *
 * What sweep.c, powerloss.c and storm.c share; they die on whatever they cannot do.
 */
#ifndef TESTS_TOOLS_SCENARIO_H
#define TESTS_TOOLS_SCENARIO_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct scenario_file {
	char *path;          /* below the folder */
	bool folder;
	unsigned char *data;
	size_t size;
	mode_t mode;
	struct timespec mtime;
};

struct scenario {
	const char *folder;  /* absolute, links resolved */
	struct scenario_file *file; /* what the folder held at first, folders before what is in them */
	size_t files;
	int messages;        /* of the last command, a file in memory */
};

__attribute__((noreturn))
static inline void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(2);
}

static inline double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Pseudo-random, below n, from a state that is not 0: xorshift64*. */
static inline uint64_t random_below(uint64_t *state, uint64_t n)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * 0x2545F4914F6CDD1Dull >> 11) % n;
}

static inline uint64_t random_start(uint64_t seed)
{
	return seed * 0x9E3779B97F4A7C15ull + 1;
}

static inline void *grow(void *array, size_t n, size_t size)
{
	/* Doubled whenever n reaches a power of two. */
	if ((n & (n - 1)) == 0)
		array = reallocarray(array, n == 0 ? 1 : 2 * n, size);
	if (array == NULL)
		die("memory");
	return array;
}

__attribute__((format(printf, 1, 2)))
static inline char *text(const char *format, ...)
{
	char *ret;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&ret, format, ap) < 0)
		die("memory");
	va_end(ap);
	return ret;
}

static inline unsigned char *read_whole(const char *path, size_t *size)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned char *data;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		die(path);
	*size = (size_t)st.st_size;
	data = malloc(*size + 1);
	if (data == NULL || pread(fd, data, *size, 0) != (ssize_t)*size)
		die(path);
	close(fd);
	return data;
}

/* A new file; zeros are left out. */
static inline void write_whole(const char *path, const unsigned char *data, size_t size, mode_t mode)
{
	static const unsigned char zeros[4096];
	const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0 || ftruncate(fd, (off_t)size) != 0 || fchmod(fd, mode) != 0)
		die(path);
	for (size_t at = 0, n; at < size; at += n) {
		n = size - at < sizeof zeros ? size - at : sizeof zeros;
		if (memcmp(data + at, zeros, n) != 0 && pwrite(fd, data + at, n, (off_t)at) != (ssize_t)n)
			die(path);
	}
	close(fd);
}

static inline void set_mtime(const char *path, struct timespec mtime)
{
	const struct timespec times[2] = { mtime, mtime };

	if (utimensat(AT_FDCWD, path, times, 0) != 0)
		die(path);
}

/* Remember what is in the folder, below `path` of it. */
static inline void scenario_read(struct scenario *s, const char *path)
{
	char *whole = text("%s/%s", s->folder, path);
	DIR *d = opendir(whole);
	const struct dirent *e;

	if (d == NULL)
		die(whole);
	while ((e = readdir(d)) != NULL) {
		struct scenario_file f = { .path = text("%s%s%s", path, *path != '\0' ? "/" : "", e->d_name) };
		char *name = text("%s/%s", s->folder, f.path);
		struct stat st;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
			free(f.path);
			free(name);
			continue;
		}
		if (lstat(name, &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)))
			die(name);
		f.folder = S_ISDIR(st.st_mode);
		f.mode = st.st_mode & 07777;
		f.mtime = st.st_mtim;
		if (!f.folder)
			f.data = read_whole(name, &f.size);
		s->file = grow(s->file, s->files, sizeof *s->file);
		s->file[s->files++] = f;
		if (f.folder)
			scenario_read(s, f.path);
		free(name);
	}
	closedir(d);
	free(whole);
}

static inline void empty_folder(const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *e;

	if (d == NULL)
		die(path);
	while ((e = readdir(d)) != NULL) {
		char *name = text("%s/%s", path, e->d_name);

		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlink(name) != 0) {
			empty_folder(name);
			if (rmdir(name) != 0)
				die(name);
		}
		free(name);
	}
	closedir(d);
}

static inline void scenario_open(struct scenario *s, const char *folder)
{
	*s = (struct scenario){ .folder = realpath(folder, NULL), .messages = memfd_create("messages", MFD_CLOEXEC) };
	if (s->folder == NULL || s->messages < 0)
		die(folder);
	scenario_read(s, "");
}

/* Make the folder as it was at first. */
static inline void scenario_restore(const struct scenario *s)
{
	empty_folder(s->folder);
	for (size_t i = 0; i < s->files; i++) {
		const struct scenario_file *f = &s->file[i];
		char *name = text("%s/%s", s->folder, f->path);

		if (f->folder && mkdir(name, f->mode) != 0)
			die(name);
		if (!f->folder) {
			write_whole(name, f->data, f->size, f->mode);
			set_mtime(name, f->mtime);
		}
		free(name);
	}
}

/* Start a command in the folder with `preload`. */
static inline pid_t scenario_start(const struct scenario *s, const char *preload, char *const *argv)
{
	posix_spawn_file_actions_t files;
	pid_t pid;
	int e;

	if (ftruncate(s->messages, 0) != 0 || lseek(s->messages, 0, SEEK_SET) != 0)
		die("messages");
	/* For the command alone: it is not read here any more. */
	setenv("LD_PRELOAD", preload, 1);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addchdir_np(&files, s->folder);
	posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&files, s->messages, STDERR_FILENO);
	e = posix_spawnp(&pid, argv[0], &files, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	unsetenv("LD_PRELOAD");
	errno = e;
	if (e != 0)
		die(argv[0]);
	return pid;
}

/* Its status as a shell has it. */
static inline int scenario_wait(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		die("wait");
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static inline int scenario_run(const struct scenario *s, const char *preload, char *const *argv)
{
	return scenario_wait(scenario_start(s, preload, argv));
}

static inline unsigned scenario_lines(const struct scenario *s)
{
	char buf[65536];
	const ssize_t len = pread(s->messages, buf, sizeof buf, 0);
	unsigned n = 0;

	for (ssize_t i = 0; i < len; i++)
		n += buf[i] == '\n';
	return n;
}

static inline void scenario_show_messages(const struct scenario *s)
{
	char buf[4096];
	const ssize_t len = pread(s->messages, buf, sizeof buf, 0);

	printf("%.*s", len > 0 ? (int)len : 0, buf);
}

/* Whether the judge finds the folder whole. */
static inline bool scenario_judge(const struct scenario *s, const char *preload, const char *judge)
{
	char *const argv[] = { (char *)"sh", (char *)"-c", (char *)judge, NULL };

	return scenario_run(s, preload, argv) == 0;
}

#endif
