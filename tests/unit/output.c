/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Output: complete under its name or not there at all, and never in the way of what was there before. */
#include "libprep/base/output.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>

#include "libprep/base/bytes.h"
#include "tests/unit/check.h"

static struct prep_err err;
static struct prep_output *out;

/* Names in the tests' folder, hidden ones too. */
static unsigned names(void)
{
	DIR *d = opendir(check_dir());
	const struct dirent *e;
	unsigned n = 0;

	while (d != NULL && (e = readdir(d)) != NULL)
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	closedir(d);
	return n;
}

static bool holds(const char *path, const char *text)
{
	size_t len;
	unsigned char *p = check_read(path, &len);
	const bool same = len == strlen(text) && memcmp(p, text, len) == 0;

	free(p);
	return same;
}

/* Of what is written. */
static mode_t mode(void)
{
	struct stat st;

	return fstat(prep_output_fd(out), &st) == 0 ? st.st_mode & 07777 : 0;
}

static void appears_at_commit(void)
{
	const char *path = check_path("new");
	const mode_t mask = umask(027);
	const unsigned before = names();
	struct stat st;

	CHECK_DONE(prep_output_open(path, false, &out, &err));
	CHECK(prep_output_seekable(out));
	CHECK_DONE(prep_output_write(out, "one", 3, &err));
	CHECK_EQ(names(), before);
	CHECK_EQ(mode(), 0600);
	CHECK_DONE(prep_output_commit(out, &err));
	CHECK_EQ(names(), before + 1);
	CHECK(holds(path, "one"));
	CHECK(stat(path, &st) == 0);
	CHECK_EQ(st.st_mode & 07777, 0640);
	CHECK_EQ(prep_output_size(out), 3);
	prep_output_close(out);
	CHECK(holds(path, "one"));
	umask(mask);
	unlink(path);
}

static void gone_without_commit(void)
{
	const unsigned before = names();

	CHECK_DONE(prep_output_open(check_path("gone"), false, &out, &err));
	CHECK_DONE(prep_output_write(out, "one", 3, &err));
	prep_output_close(out);
	CHECK_EQ(names(), before);
	prep_output_close(NULL);
}

static void existing_is_refused(void)
{
	const char *path = check_path("old");

	check_write(check_create("old"), "old", 3, 0);
	CHECK_FAILS(prep_output_open(path, false, &out, &err), PREP_EREFUSED, "exists");
	CHECK(out == NULL);
	CHECK_FAILS(prep_output_open(check_dir(), false, &out, &err), PREP_EREFUSED, "neither");
	CHECK_FAILS(prep_output_open(check_dir(), true, &out, &err), PREP_EREFUSED, "neither");
	CHECK_FAILS(prep_output_open(check_path("no/such/folder"), true, &out, &err), PREP_EFAIL, "no/such/folder");
	CHECK(holds(path, "old"));
	unlink(path);
}

/* Somebody else makes the file while ours is written. */
static void one_that_comes_later_is_refused(void)
{
	const char *path = check_path("race");

	CHECK_DONE(prep_output_open(path, false, &out, &err));
	CHECK_DONE(prep_output_write(out, "ours", 4, &err));
	check_write(check_create("race"), "theirs", 6, 0);
	CHECK_FAILS(prep_output_commit(out, &err), PREP_EREFUSED, "exists");
	prep_output_close(out);
	CHECK(holds(path, "theirs"));
	unlink(path);
}

static void replaces(void)
{
	const char *path = check_path("old"), *link = check_path("link");
	const int fd = check_create("old");
	unsigned before;
	struct stat st;

	check_write(fd, "old content", 11, 0);
	CHECK(fchmod(fd, 0604) == 0);
	CHECK(symlink("old", link) == 0);
	before = names();
	CHECK_DONE(prep_output_open(link, true, &out, &err));
	CHECK_DONE(prep_output_write(out, "new", 3, &err));
	CHECK(holds(path, "old content"));
	CHECK(fstat(fd, &st) == 0 && prep_output_same(out, &st));
	CHECK_EQ(mode(), 0600);
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
	CHECK(holds(path, "new"));
	CHECK_EQ(names(), before);
	/* the link stays one, and what had the old file open keeps it */
	CHECK(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
	CHECK(stat(path, &st) == 0);
	CHECK_EQ(st.st_mode & 07777, 0604);
	CHECK(fstat(fd, &st) == 0 && st.st_size == 11 && st.st_nlink == 0);
	close(fd);

	/* not committed: the old one stays */
	CHECK_DONE(prep_output_open(path, true, &out, &err));
	CHECK_DONE(prep_output_write(out, "lost", 4, &err));
	prep_output_close(out);
	CHECK(holds(path, "new"));
	CHECK_EQ(names(), before);
	unlink(path);
	unlink(link);
}

/* Found before the work, not after it; and "new/" is no file called "new". */
static void names_no_file(void)
{
	const char *link = check_path("astray"), *folder = check_path("missing");
	char slash[PATH_MAX];
	struct stat st;

	CHECK(symlink("nowhere", link) == 0);
	CHECK_FAILS(prep_output_open(link, false, &out, &err), PREP_EREFUSED, "not there");
	CHECK_FAILS(prep_output_open(link, true, &out, &err), PREP_EREFUSED, "not there");
	CHECK(lstat(link, &st) == 0 && S_ISLNK(st.st_mode));
	unlink(link);
	snprintf(slash, sizeof slash, "%s/", folder);
	CHECK_FAILS(prep_output_open(slash, true, &out, &err), PREP_EFAIL, "no such folder");
	CHECK(lstat(folder, &st) != 0);
}

/* What a process that was killed at the wrong moment leaves under the hidden name does not stay for good. */
static void reclaims_what_a_killed_process_left(void)
{
	const unsigned before = names();

	check_write(check_create("gold"), "old", 3, 0);
	check_write(check_create(".gold.prep-new"), "stale", 5, 0);
	CHECK_DONE(prep_output_open(check_path("gold"), true, &out, &err));
	CHECK_DONE(prep_output_write(out, "new", 3, &err));
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
	CHECK(holds(check_path("gold"), "new"));
	CHECK_EQ(names(), before + 1);
	unlink(check_path("gold"));
}

static void holes(void)
{
	const char *path = check_path("holes");
	unsigned char *p;
	struct stat st;
	size_t len;

	CHECK_DONE(prep_output_open(path, false, &out, &err));
	CHECK_DONE(prep_output_zeros(out, 8 * PREP_MIB, &err));
	CHECK_DONE(prep_output_write(out, "x", 1, &err));
	CHECK_DONE(prep_output_zeros(out, 8 * PREP_MIB, &err));
	CHECK_DONE(prep_output_pwrite(out, "y", 1, 5, &err));
	CHECK_EQ(prep_output_size(out), 16 * PREP_MIB + 1);
	CHECK_DONE(prep_output_commit(out, &err));
	CHECK(stat(path, &st) == 0);
	CHECK_EQ(st.st_size, 16 * PREP_MIB + 1);
	CHECK(st.st_blocks * 512 < 1 << 20);
	CHECK_EQ(prep_output_allocated(out), st.st_blocks * 512);
	prep_output_close(out);
	p = check_read(path, &len);
	CHECK(p[5] == 'y' && p[8 * PREP_MIB] == 'x');
	p[5] = p[8 * PREP_MIB] = 0;
	CHECK(prep_is_zero(p, len));
	free(p);
	unlink(path);
}

static void copies(void)
{
	unsigned char *src = malloc(3 * PREP_MIB), *p;
	const int fd = check_create("source");
	size_t len;

	check_seed = 3;
	check_noise(src, 3 * PREP_MIB);
	check_write(fd, src, 3 * PREP_MIB, 0);
	CHECK_DONE(prep_output_open(check_path("copy"), false, &out, &err));
	CHECK_DONE(prep_output_write(out, "head", 4, &err));
	CHECK_DONE(prep_output_copy(out, fd, 1000, 2 * PREP_MIB + 7, "source", &err));
	CHECK_DONE(prep_output_write(out, "tail", 4, &err));
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
	p = check_read(check_path("copy"), &len);
	CHECK_EQ(len, 2 * PREP_MIB + 15);
	CHECK(memcmp(p, "head", 4) == 0 && memcmp(p + 4, src + 1000, 2 * PREP_MIB + 7) == 0 &&
	      memcmp(p + len - 4, "tail", 4) == 0);
	free(p);
	/* a source that ends too early is damage of the source, not a shorter copy */
	CHECK_DONE(prep_output_open(check_path("short"), false, &out, &err));
	CHECK_FAILS(prep_output_copy(out, fd, 0, 4 * PREP_MIB, "source", &err), PREP_EDAMAGED, "source: the file ends");
	prep_output_close(out);
	free(src);
	close(fd);
	unlink(check_path("copy"));
	unlink(check_path("source"));
}

static void streams(void)
{
	const char *path = check_path("fifo");
	char got[64] = { 0 };
	int ends[2], in;

	CHECK(mkfifo(path, 0600) == 0);
	in = open(path, O_RDONLY | O_NONBLOCK);
	CHECK_DONE(prep_output_open(path, false, &out, &err));
	CHECK(!prep_output_seekable(out));
	CHECK_DONE(prep_output_write(out, "one", 3, &err));
	CHECK_DONE(prep_output_zeros(out, 2, &err));
	CHECK_DONE(prep_output_commit(out, &err));
	CHECK_EQ(prep_output_size(out), 5);
	CHECK_EQ(prep_output_allocated(out), 5);
	prep_output_close(out);
	CHECK_EQ(read(in, got, sizeof got), 5);
	CHECK(memcmp(got, "one\0\0", 5) == 0);
	close(in);
	unlink(path);

	/* standard output: a pipe, an empty file, one that has something in it */
	CHECK(pipe(ends) == 0);
	fflush(stdout);
	in = dup(STDOUT_FILENO);
	dup2(ends[1], STDOUT_FILENO);
	CHECK_DONE(prep_output_open("-", false, &out, &err));
	CHECK(!prep_output_seekable(out));
	prep_output_close(out);
	close(ends[0]);
	close(ends[1]);

	dup2(check_create("redirected"), STDOUT_FILENO);
	CHECK_DONE(prep_output_open("-", false, &out, &err));
	CHECK(prep_output_seekable(out));
	CHECK_DONE(prep_output_write(out, "half", 4, &err));
	prep_output_close(out);
	CHECK(holds(check_path("redirected"), ""));

	CHECK(pwrite(STDOUT_FILENO, "before", 6, 0) == 6 && lseek(STDOUT_FILENO, 6, SEEK_SET) == 6);
	CHECK_DONE(prep_output_open("-", false, &out, &err));
	CHECK(!prep_output_seekable(out));
	CHECK_DONE(prep_output_write(out, " after", 6, &err));
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
	dup2(in, STDOUT_FILENO);
	close(in);
	CHECK(holds(check_path("redirected"), "before after"));
	unlink(check_path("redirected"));
}

static void space(void)
{
	CHECK_DONE(prep_output_open(check_path("space"), false, &out, &err));
	CHECK_DONE(prep_output_check_space(out, 1, &err));
	CHECK_FAILS(prep_output_check_space(out, (uint64_t)1 << 60, &err), PREP_EFAIL, "not enough free space");
	prep_output_close(out);
}

int main(void)
{
	RUN(appears_at_commit);
	RUN(gone_without_commit);
	RUN(existing_is_refused);
	RUN(one_that_comes_later_is_refused);
	RUN(replaces);
	RUN(names_no_file);
	RUN(reclaims_what_a_killed_process_left);
	RUN(holes);
	RUN(copies);
	RUN(streams);
	RUN(space);
	return check_result();
}
