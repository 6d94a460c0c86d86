/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sweep - run a command that changes an image in place, once for every call
 * at which tests/preload/faults.c can fail or kill it
 *
 * After each run the next command on the image (vhd-info) must find it whole,
 * and the guest must see it as it was or as it was to become.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char usage[] =
"Usage: sweep PRELOAD KINDS BASE IMAGE COMMAND...\n"
"Run COMMAND with every fault of the KINDS (as 'kill eio') that the library\n"
"PRELOAD knows, at every call, on a new copy IMAGE of the file BASE each time.\n"
"IMAGE, a VHD or a raw disk, has its folder for itself.\n";

struct bytes {
	unsigned char *p;
	size_t len;
};

static const char *preload, *image;
static char *folder, *name;
static int messages; /* of the last command, a file in memory */

static void die(const char *what)
{
	fprintf(stderr, "sweep: %s: %s\n", what, strerror(errno));
	exit(2);
}

static struct bytes read_file(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct bytes b = { NULL, 0 };
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		die(path);
	b.len = (size_t)st.st_size;
	b.p = malloc(b.len + 1);
	if (b.p == NULL || pread(fd, b.p, b.len, 0) != (ssize_t)b.len)
		die(path);
	close(fd);
	return b;
}

/* A new file: writing into the old one would be synced by some file systems. Zeros are left out. */
static void write_image(const struct bytes *b)
{
	static const unsigned char zeros[4096];
	int fd;

	unlink(image);
	fd = open(image, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)b->len) != 0)
		die(image);
	for (size_t at = 0; at < b->len; at += 4096) {
		const size_t n = b->len - at < 4096 ? b->len - at : 4096;

		if (memcmp(b->p + at, zeros, n) != 0 && pwrite(fd, b->p + at, n, (off_t)at) != (ssize_t)n)
			die(image);
	}
	close(fd);
}

static uint32_t be32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* What the guest sees. A dynamic VHD is read by hand, all of whose sectors are in use; and what is no such is a raw disk. */
static struct bytes read_guest(void)
{
	const struct bytes f = read_file(image);
	struct bytes g;
	uint32_t block, entries;

	if (f.len < 4096 || memcmp(f.p, "conectix", 8) != 0)
		return f;
	block = be32(f.p + 512 + 32);
	entries = be32(f.p + 512 + 28);
	g.len = be32(f.p + 52);
	g.p = calloc(1, (size_t)entries * block);
	if (g.p == NULL)
		die(image);
	for (uint32_t i = 0; i < entries; i++) {
		const uint32_t sector = be32(f.p + be32(f.p + 512 + 20) + i * 4);
		const size_t at = (size_t)sector * 512 + (block / 4096 < 512 ? 512 : block / 4096);

		if (sector == UINT32_MAX)
			continue;
		if (at > f.len || block > f.len - at) {
			fprintf(stderr, "sweep: block %u is outside the file\n", i);
			exit(1);
		}
		memcpy(g.p + (size_t)i * block, f.p + at, block);
	}
	free(f.p);
	return g;
}

static bool same(const struct bytes *a, const struct bytes *b)
{
	return a->len == b->len && memcmp(a->p, b->p, a->len) == 0;
}

/* Run a command with a fault. Returns its status as a shell has it. */
static int run(const char *how, unsigned long at, char *const *argv)
{
	posix_spawn_file_actions_t files;
	char n[32];
	int status, e;
	pid_t pid;

	if (ftruncate(messages, 0) != 0 || lseek(messages, 0, SEEK_SET) != 0)
		die("messages");
	snprintf(n, sizeof n, "%lu", at);
	/* For the command alone: it is not read here any more. */
	setenv("FAULTS_HOW", how, 1);
	setenv("FAULTS_AT", n, 1);
	setenv("LD_PRELOAD", preload, 1);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&files, messages, STDERR_FILENO);
	e = posix_spawnp(&pid, argv[0], &files, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	errno = e;
	if (e != 0 || waitpid(pid, &status, 0) != pid)
		die(argv[0]);
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static unsigned lines(void)
{
	char c, text[65536];
	unsigned n = 0;
	ssize_t len = pread(messages, text, sizeof text, 0);

	for (ssize_t i = 0; i < len; i++) {
		c = text[i];
		n += c == '\n';
	}
	return n;
}

/* How many names the folder has besides the image's. */
static unsigned beside(void)
{
	DIR *d = opendir(folder);
	const struct dirent *e;
	unsigned n = 0;

	if (d == NULL)
		die(folder);
	while ((e = readdir(d)) != NULL)
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, name) != 0;
	closedir(d);
	return n;
}

/* What is wrong with what a fault came to, or NULL. */
static const char *judge(const char *how, int status, const struct bytes *old, const struct bytes *new,
			 char *const *argv)
{
	char *const info[] = { (char *)"vhd-info", (char *)"--quick", (char *)image, NULL };
	const bool killed = strcmp(how, "kill") == 0 || strcmp(how, "tear") == 0;
	struct bytes now;
	bool is_new, is_old;

	if (killed && status != 137)
		return "it was not killed";
	if (!killed && status != 0 && status != 1)
		return "the status is neither 0 nor 1";
	if (!killed && lines() != (status == 1))
		return "not one message for one error";
	/* whatever it was, the next command has a whole image */
	if (run("none", 0, info) != 0)
		return "vhd-info fails afterwards";
	if (lines() > 0)
		return "vhd-info warns afterwards";
	now = read_guest();
	is_new = same(&now, new);
	is_old = same(&now, old);
	free(now.p);
	if (!is_new && !is_old)
		return "neither old nor new";
	if (!is_new && status == 0)
		return "it succeeded, and the image is old";
	if (beside() == 0)
		return NULL;
	/* only what the next run of the same command takes away again */
	if (strcmp(how, "kill") != 0)
		return "something is left beside the image";
	if (run("none", 0, argv) != 0)
		return "the next run of the command fails";
	return beside() > 0 ? "something stays beside the image" : NULL;
}

/*
 * A second fault, while the next command finishes what the first cut off. The
 * first is the earliest that leaves a journal; 0 where none does.
 */
static unsigned long sweep_recovery(const char *how, const struct bytes *base, const struct bytes *new,
				    char *const *argv)
{
	char *const info[] = { (char *)"vhd-info", (char *)"--quick", (char *)image, NULL };
	unsigned long first = 0, n;
	int status = 137;
	struct bytes now;

	while (status == 137) {
		write_image(base);
		status = run("kill", ++first, argv);
		if (status == 137 && beside() > 0)
			break;
	}
	for (n = 1; status != 0; n++) {
		write_image(base);
		run("kill", first, argv);
		if (run("none", 0, info) == 0 && beside() > 0)
			return 0; /* no journal, and nothing to recover */
		write_image(base);
		run("kill", first, argv);
		status = run(how, n, info);
		if (run("none", 0, info) != 0 || lines() > 0 || beside() > 0) {
			printf("%s at call %lu of the recovery: not whole afterwards\n", how, n);
			exit(1);
		}
		now = read_guest();
		if (!same(&now, new)) {
			printf("%s at call %lu of the recovery: the image is not the new one\n", how, n);
			exit(1);
		}
		free(now.p);
	}
	return n;
}

static unsigned long count_calls(const char *how, char *const *argv)
{
	char path[4096], text[32] = "";
	unsigned long n;
	int fd;

	snprintf(path, sizeof path, "%s/../calls", folder);
	setenv("FAULTS_COUNT", path, 1);
	if (run(how, 0, argv) != 0)
		return 0;
	unsetenv("FAULTS_COUNT");
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
		die(path);
	close(fd);
	unlink(path);
	n = strtoul(text, NULL, 10);
	return n;
}

static unsigned long sweep(const char *how, const struct bytes *base, const struct bytes *old,
			   const struct bytes *new, char *const *argv)
{
	unsigned long n, count;

	write_image(base);
	count = count_calls(how, argv);
	if (count == 0) {
		fprintf(stderr, "sweep: %s: no calls\n", how);
		exit(1);
	}
	for (n = 1; n <= count; n++) {
		const char *wrong;
		char text[4096];
		ssize_t len;
		int status;

		write_image(base);
		status = run(how, n, argv);
		wrong = judge(how, status, old, new, argv);
		if (wrong == NULL)
			continue;
		len = pread(messages, text, sizeof text, 0);
		printf("%s: %s at call %lu of %lu, status %d: %s\n%.*s", argv[0], how, n, count, status, wrong,
		       len > 0 ? (int)len : 0, text);
		exit(1);
	}
	return count;
}

int main(int argc, char **argv)
{
	struct bytes base, old, new;
	unsigned long tried = 0;
	char *kind, *rest;

	if (argc < 6) {
		fputs(usage, argc == 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
		return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
	}
	preload = argv[1];
	image = argv[4];
	folder = strdup(image);
	name = strrchr(folder, '/');
	if (name == NULL)
		return fputs(usage, stderr), 2;
	*name++ = '\0';
	messages = memfd_create("messages", MFD_CLOEXEC);
	base = read_file(argv[3]);
	write_image(&base);
	if (messages < 0 || beside() > 0)
		die("its folder is not empty");
	old = read_guest();
	if (run("none", 0, argv + 5) != 0) {
		fprintf(stderr, "sweep: %s fails without a fault\n", argv[5]);
		return 1;
	}
	new = read_guest();
	for (kind = strtok_r(argv[2], " ", &rest); kind != NULL; kind = strtok_r(NULL, " ", &rest)) {
		tried += sweep(kind, &base, &old, &new, argv + 5);
		if (strcmp(kind, "kill") == 0 || strcmp(kind, "eio") == 0)
			tried += sweep_recovery(kind, &base, &new, argv + 5);
	}
	printf("%lu points\n", tried);
	write_image(&base);
	return run("none", 0, argv + 5);
}
