/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"

/* Start writing back this often, so that the fsync at the end finds little left. */
#define WRITEBACK_STEP (16 * PREP_MIB)
#define SCATTERED_STEP (64 * PREP_MIB)
#define COPY_BUFFER (1 * PREP_MIB)
#define ACL "system.posix_acl_access"

struct prep_output {
	int fd;
	char *path;      /* the final name, links resolved; "standard output" for "-" */
	char *temp;      /* the hidden name, or NULL: the file has none, or is a stream */
	bool seekable;
	bool replace;
	bool keep;         /* the file under its hidden name outlives a failure */
	bool redirected;   /* seekable, but the shell opened it under its name: nothing to link */
	bool copy_works;   /* copy_file_range or splice has not failed yet */
	bool settled;
	bool named_anew;   /* the commit gave it a name that no file had */
	bool committed;
	int (*check)(const char *path, struct prep_err *err); /* before a file is replaced; NULL: none */
	mode_t mode;       /* of the finished file: until then it is 0600 */
	bool owned;        /* a file is replaced, whose owner it gets */
	uid_t uid;
	gid_t gid;
	void *acl;         /* and its access list, as the system keeps it; NULL: none */
	ssize_t acl_len;
	uint64_t size;
	uint64_t started;  /* write-back has been started up to here */
	pthread_mutex_t writing; /* the system lets one thread write to a file, and others spin: here they sleep */
	uint64_t scattered; /* bytes that prep_output_pwrite has written, anywhere; under the lock */
	unsigned char *buf; /* COPY_BUFFER bytes, for copies that need them */
};

/* Links in the last component are followed: the file they lead to is replaced, not the link. */
static char *resolve(const char *path)
{
	char *whole = realpath(path, NULL);
	char *copy, *dir, *base, *ret = NULL;

	if (whole != NULL || errno != ENOENT)
		return whole;
	copy = strdup(path);
	base = strdup(path);
	dir = copy != NULL ? realpath(dirname(copy), NULL) : NULL;
	if (dir != NULL && base != NULL && asprintf(&ret, "%s/%s", dir, basename(base)) < 0)
		ret = NULL;
	free(dir);
	free(copy);
	free(base);
	return ret;
}

static int find_path(struct prep_output *out, const char *path, struct prep_err *err)
{
	const size_t len = strlen(path);
	struct stat st;

	out->path = resolve(path);
	if (out->path == NULL)
		return prep_fail_errno(err, "%s: cannot create", path);
	if (stat(out->path, &st) == 0)
		return 0;
	/* What would be told at the end of the work otherwise, and with -f not be followed. */
	if (lstat(out->path, &st) == 0 && S_ISLNK(st.st_mode))
		return prep_fail(err, PREP_EREFUSED, "%s: a symbolic link to a file that is not there: name that file",
				 path);
	if (len > 0 && path[len - 1] == '/')
		return prep_fail(err, PREP_EFAIL, "%s: cannot create: no such folder", path);
	return 0;
}

/* A hidden name beside out->path, or NULL. */
static char *hidden_name(const struct prep_output *out, const char *suffix)
{
	const char *slash = strrchr(out->path, '/');
	char *ret;

	return asprintf(&ret, "%.*s/.%.200s%s", (int)(slash - out->path), out->path, slash + 1, suffix) < 0 ? NULL : ret;
}

/* Whether fd is what `name` names, and nobody else has it. It stays locked. */
static bool take(int fd, const char *name)
{
	struct stat st, now;

	return flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &st) == 0 && lstat(name, &now) == 0 &&
	       S_ISREG(st.st_mode) && st.st_uid == geteuid() && now.st_ino == st.st_ino && now.st_dev == st.st_dev;
}

/*
 * Where a file must have a name: always the same, so that what a killed process
 * left goes. -1 where it is another process's, or another user's.
 */
static int open_hidden(const char *name)
{
	for (int i = 0; i < 2; i++) {
		int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		const bool is_new = fd >= 0;

		if (!is_new && errno == EEXIST)
			fd = open(name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			return -1;
		if (take(fd, name)) {
			if (is_new)
				return fd;
			unlink(name);
		}
		close(fd);
	}
	return -1;
}

/* A file without a name, or with a hidden one, in the folder of out->path. */
static int open_temp(struct prep_output *out, struct prep_err *err)
{
	char *copy = strdup(out->path);

	if (copy == NULL)
		return prep_fail_nomem(err);
	out->fd = open(dirname(copy), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	free(copy);
	if (out->fd >= 0)
		return 0;
	if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
		return prep_fail_errno(err, "%s: cannot create", out->path);
	out->temp = hidden_name(out, ".prep-part");
	if (out->temp == NULL)
		return prep_fail_nomem(err);
	out->fd = open_hidden(out->temp);
	if (out->fd < 0) {
		free(out->temp);
		out->temp = hidden_name(out, ".XXXXXX");
		if (out->temp == NULL)
			return prep_fail_nomem(err);
		out->fd = mkostemp(out->temp, O_CLOEXEC);
	}
	if (out->fd < 0) {
		prep_fail_errno(err, "%s: cannot create", out->path);
		free(out->temp);
		out->temp = NULL;
		return -1;
	}
	return 0;
}

/* What the finished file is to be: as the one that it replaces, or what the umask leaves a new one. */
static void plan_mode(struct prep_output *out, const struct stat *replaced, const char *path)
{
	mode_t mask;

	if (replaced != NULL) {
		out->acl_len = getxattr(path, ACL, NULL, 0);
		free(out->acl);
		out->acl = out->acl_len > 0 ? malloc((size_t)out->acl_len) : NULL;
		if (out->acl != NULL)
			out->acl_len = getxattr(path, ACL, out->acl, (size_t)out->acl_len);
		out->mode = replaced->st_mode & 07777;
		out->owned = true;
		out->uid = replaced->st_uid;
		out->gid = replaced->st_gid;
		return;
	}
	mask = umask(0);
	umask(mask);
	out->mode = 0666 & ~mask;
}

static int set_mode(struct prep_output *out, struct prep_err *err)
{
	/* What a group that is another, or would be the one of a list that is lost, may: no more than all may. */
	const mode_t others = (out->mode & ~(mode_t)070) | (out->mode & 07) << 3;
	mode_t mode = out->mode;

	/* The owner not allowed to everyone, and then not needed either. */
	if (out->owned && fchown(out->fd, out->uid, out->gid) != 0 && fchown(out->fd, (uid_t)-1, out->gid) != 0)
		mode = others;
	if (out->acl_len > 0 && (out->acl == NULL || fsetxattr(out->fd, ACL, out->acl, (size_t)out->acl_len, 0) != 0))
		mode = others;
	/* A file system without permissions may refuse. */
	if (fchmod(out->fd, mode) != 0 && errno != EPERM && errno != EOPNOTSUPP)
		return prep_fail_errno(err, "%s: cannot set its mode", out->path);
	return 0;
}

static int open_stream(struct prep_output *out, struct prep_err *err)
{
	/* Fewer switches between the ends of a pipe; a refusal does no harm. */
	fcntl(out->fd, F_SETPIPE_SZ, (int)(1 * PREP_MIB));
	if (isatty(out->fd))
		return prep_fail(err, PREP_EUSAGE,
				 "%s: a terminal: binary output goes to a file or a pipe (-o FILE)", out->path);
	return 0;
}

static int open_stdout(struct prep_output *out, struct prep_err *err)
{
	struct stat st;

	out->path = strdup("standard output");
	if (out->path == NULL)
		return prep_fail_nomem(err);
	out->fd = dup(STDOUT_FILENO);
	if (out->fd < 0)
		return prep_fail_errno(err, "%s: cannot write", out->path);
	/* `cmd > FILE`: a new file, which deserves its holes as much as -o FILE. */
	if (fstat(out->fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0 &&
	    lseek(out->fd, 0, SEEK_CUR) == 0 && (fcntl(out->fd, F_GETFL) & O_APPEND) == 0) {
		out->seekable = true;
		out->redirected = true;
		return 0;
	}
	return open_stream(out, err);
}

static bool is_stream(const struct stat *st)
{
	return S_ISFIFO(st->st_mode) || S_ISCHR(st->st_mode);
}

bool prep_output_is_stream(const char *path)
{
	struct stat st;

	return strcmp(path, "-") == 0 || (stat(path, &st) == 0 && is_stream(&st));
}

static int open_path(struct prep_output *out, const char *path, struct prep_err *err)
{
	struct stat st;

	if (strcmp(path, "-") == 0)
		return open_stdout(out, err);
	if (find_path(out, path, err) < 0)
		return -1;
	if (stat(out->path, &st) != 0) {
		if (errno != ENOENT)
			return prep_fail_errno(err, "%s: cannot create", path);
		plan_mode(out, NULL, NULL);
	} else if (S_ISREG(st.st_mode)) {
		if (!out->replace)
			return prep_fail(err, PREP_EREFUSED, "%s: the file exists (-f overwrites it)", path);
		plan_mode(out, &st, out->path);
	} else if (is_stream(&st)) {
		out->fd = open(out->path, O_WRONLY | O_CLOEXEC);
		if (out->fd < 0)
			return prep_fail_errno(err, "%s: cannot write", path);
		return open_stream(out, err);
	} else {
		return prep_fail(err, PREP_EREFUSED, "%s: neither a regular file nor a pipe", path);
	}
	if (open_temp(out, err) < 0)
		return -1;
	out->seekable = true;
	return 0;
}

static struct prep_output *new_output(bool replace)
{
	struct prep_output *out = calloc(1, sizeof *out);

	if (out != NULL) {
		out->fd = -1;
		out->replace = replace;
		out->copy_works = true;
		pthread_mutex_init(&out->writing, NULL);
	}
	return out;
}

int prep_output_open(const char *path, bool replace, struct prep_output **ret,
		     struct prep_err *err)
{
	struct prep_output *out = new_output(replace);

	*ret = NULL;
	if (out == NULL)
		return prep_fail_nomem(err);
	if (open_path(out, path, err) < 0) {
		prep_output_close(out);
		return -1;
	}
	*ret = out;
	return 0;
}

/* What open_path does for a file, but for what is opened. */
static int plan_part(struct prep_output *out, const char *path, struct prep_err *err)
{
	struct stat st;

	out->seekable = true;
	out->keep = true;
	if (find_path(out, path, err) < 0)
		return -1;
	if (stat(out->path, &st) == 0) {
		if (!S_ISREG(st.st_mode))
			return prep_fail(err, PREP_EREFUSED, "%s: not a regular file", path);
		if (!out->replace)
			return prep_fail(err, PREP_EREFUSED, "%s: the file exists (-f overwrites it)", path);
		plan_mode(out, &st, out->path);
	} else if (errno == ENOENT) {
		plan_mode(out, NULL, NULL);
	} else {
		return prep_fail_errno(err, "%s: cannot create", path);
	}
	return 0;
}

int prep_output_check_unused(const char *path, struct prep_err *err)
{
	const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int r = 0;

	if (fd < 0)
		return 0;
	r = prep_file_lock(fd, false, path, err);
	close(fd);
	return r;
}

int prep_output_check_part(const char *path, bool replace, struct prep_err *err)
{
	struct prep_output *out = new_output(replace);
	int r;

	if (out == NULL)
		return prep_fail_nomem(err);
	r = plan_part(out, path, err);
	prep_output_close(out);
	return r;
}

static int open_part(struct prep_output *out, const char *path, const char *part, uint64_t *size,
		     struct prep_err *err)
{
	struct stat st;

	if (plan_part(out, path, err) < 0)
		return -1;
	out->temp = strdup(part);
	if (out->temp == NULL)
		return prep_fail_nomem(err);
	out->fd = open(part, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out->fd < 0 || fstat(out->fd, &st) != 0)
		return prep_fail_errno(err, "%s: cannot create", part);
	if (!S_ISREG(st.st_mode))
		return prep_fail(err, PREP_EREFUSED, "%s: not a regular file", part);
	*size = (uint64_t)st.st_size;
	return 0;
}

int prep_output_open_part(const char *path, bool replace, const char *part, uint64_t *size,
			  struct prep_output **ret, struct prep_err *err)
{
	struct prep_output *out = new_output(replace);

	*ret = NULL;
	*size = 0;
	if (out == NULL)
		return prep_fail_nomem(err);
	if (open_part(out, path, part, size, err) < 0) {
		prep_output_close(out);
		return -1;
	}
	*ret = out;
	return 0;
}

int prep_output_open_temp(const char *dir, struct prep_output **ret, struct prep_err *err)
{
	struct prep_output *out = new_output(false);

	*ret = NULL;
	if (out == NULL)
		return prep_fail_nomem(err);
	out->seekable = true;
	out->path = strdup("temporary file");
	if (out->path == NULL)
		prep_fail_nomem(err);
	else
		out->fd = prep_file_temp(dir, err);
	if (out->fd < 0) {
		prep_output_close(out);
		return -1;
	}
	*ret = out;
	return 0;
}

int prep_output_fd(const struct prep_output *out)
{
	return out->fd;
}

const char *prep_output_name(const struct prep_output *out)
{
	return out->path;
}

void prep_output_set_check(struct prep_output *out, int (*check)(const char *path, struct prep_err *err))
{
	out->check = check;
}

void prep_output_set_mode(struct prep_output *out, mode_t mode)
{
	out->mode = mode;
}

void prep_output_set_like(struct prep_output *out, const struct stat *st, const char *path)
{
	plan_mode(out, st, path);
}

bool prep_output_seekable(const struct prep_output *out)
{
	return out->seekable;
}

bool prep_output_same(const struct prep_output *out, const struct stat *st)
{
	struct stat now;

	if (out->redirected || !out->seekable ? fstat(out->fd, &now) != 0 : stat(out->path, &now) != 0)
		return false;
	return S_ISREG(now.st_mode) && now.st_dev == st->st_dev && now.st_ino == st->st_ino;
}

uint64_t prep_output_size(const struct prep_output *out)
{
	return out->size;
}

int prep_output_check_space(const struct prep_output *out, uint64_t need, struct prep_err *err)
{
	return out->seekable ? prep_file_check_space(out->fd, out->path, need, err) : 0;
}

static void start_writeback(struct prep_output *out)
{
	if (!out->seekable || out->size - out->started < WRITEBACK_STEP)
		return;
	sync_file_range(out->fd, (off_t)out->started, (off_t)(out->size - out->started),
			SYNC_FILE_RANGE_WRITE);
	out->started = out->size;
}

int prep_output_write(struct prep_output *out, const void *buf, size_t len, struct prep_err *err)
{
	const int r = out->seekable
			      ? prep_file_pwrite(out->fd, buf, len, out->size, out->path, err)
			      : prep_file_write(out->fd, buf, len, out->path, err);

	if (r == 0) {
		out->size += len;
		start_writeback(out);
	}
	return r;
}

int prep_output_zeros(struct prep_output *out, uint64_t len, struct prep_err *err)
{
	static const unsigned char zeros[64 * 1024];

	if (out->seekable) {
		/* The size is set at the commit; until then the hole is one of bookkeeping. */
		out->size += len;
		return 0;
	}
	while (len > 0) {
		const size_t n = (size_t)prep_min(len, sizeof zeros);

		if (prep_output_write(out, zeros, n, err) < 0)
			return -1;
		len -= n;
	}
	return 0;
}

/* One system copy of at most len bytes; 0 where the system cannot do it between these files. */
static ssize_t copy_in_system(struct prep_output *out, int src_fd, uint64_t off, uint64_t len)
{
	off_t in = (off_t)off, to = (off_t)out->size;
	ssize_t n;

	do
		n = out->seekable ? copy_file_range(src_fd, &in, out->fd, &to, len, 0)
				  : splice(src_fd, &in, out->fd, NULL, len, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EINVAL || errno == EXDEV || errno == ENOSYS || errno == EOPNOTSUPP ||
		      errno == EBADF))
		return 0;
	return n;
}

int prep_output_copy(struct prep_output *out, int src_fd, uint64_t off, uint64_t len,
		     const char *src_name, struct prep_err *err)
{
	while (len > 0) {
		const size_t step = (size_t)prep_min(len, out->copy_works ? 16 * PREP_MIB : COPY_BUFFER);

		if (out->copy_works) {
			const ssize_t n = copy_in_system(out, src_fd, off, step);

			if (n < 0)
				return prep_fail_errno(err, "%s: cannot write", out->path);
			if (n > 0) {
				out->size += (uint64_t)n;
				off += (uint64_t)n;
				len -= (uint64_t)n;
				start_writeback(out);
				continue;
			}
			out->copy_works = false; /* or the source ended: the read below tells */
			continue;
		}
		if (out->buf == NULL && (out->buf = malloc(COPY_BUFFER)) == NULL)
			return prep_fail_nomem(err);
		if (prep_file_pread(src_fd, out->buf, step, off, src_name, err) < 0 ||
		    prep_output_write(out, out->buf, step, err) < 0)
			return -1;
		off += step;
		len -= step;
	}
	return 0;
}

int prep_output_pwrite(struct prep_output *out, const void *buf, size_t len, uint64_t off,
		       struct prep_err *err)
{
	uint64_t before;
	int r;

	pthread_mutex_lock(&out->writing);
	before = out->scattered;
	out->scattered += len;
	r = prep_file_pwrite(out->fd, buf, len, off, out->path, err);
	pthread_mutex_unlock(&out->writing);
	if (r == 0 && before / SCATTERED_STEP != (before + len) / SCATTERED_STEP)
		sync_file_range(out->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	return r;
}

/* Whether the process that gave the name is gone: until it has renamed the file, it holds a lock on it. */
static bool left_behind(const char *name)
{
	const int fd = open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	const bool ret = fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0;

	if (fd >= 0)
		close(fd);
	return ret;
}

/* Give the unnamed file a name: the final one, or where that is taken, a hidden one to rename. */
static int link_temp(struct prep_output *out, struct prep_err *err)
{
	char proc[64];

	snprintf(proc, sizeof proc, "/proc/self/fd/%d", out->fd);
	if (linkat(AT_FDCWD, proc, AT_FDCWD, out->path, AT_SYMLINK_FOLLOW) == 0) {
		out->named_anew = true;
		return 0;
	}
	if (errno != EEXIST)
		return prep_fail_errno(err, "%s: cannot create", out->path);
	if (!out->replace)
		return prep_fail(err, PREP_EREFUSED, "%s: the file exists (-f overwrites it)", out->path);
	/*
	 * Always the same name: what a process that was killed between here and
	 * the rename left under it, a finished file, is replaced by the next.
	 */
	out->temp = hidden_name(out, ".prep-new");
	if (out->temp == NULL)
		return prep_fail_nomem(err);
	(void)!flock(out->fd, LOCK_EX | LOCK_NB);
	for (int i = 0; i < 2; i++) {
		if (linkat(AT_FDCWD, proc, AT_FDCWD, out->temp, AT_SYMLINK_FOLLOW) == 0)
			return 0;
		if (errno != EEXIST)
			break;
		if (!left_behind(out->temp)) {
			prep_fail(err, PREP_EFAIL, "%s: another process is just replacing it", out->path);
			break;
		}
		if (unlink(out->temp) != 0 && errno != ENOENT)
			break;
	}
	free(out->temp);
	out->temp = NULL;
	return prep_fail_errno(err, "%s: cannot create", out->path);
}

/* The final name instead of the hidden one: 0, or -1 with errno. */
static int name_temp(struct prep_output *out)
{
	int r = renameat2(AT_FDCWD, out->temp, AT_FDCWD, out->path, RENAME_NOREPLACE);
	struct stat st;

	out->named_anew = r == 0;
	if (r == 0 || (errno == EEXIST && !out->replace))
		return r;
	if (out->replace)
		return rename(out->temp, out->path);
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	/* Some network file systems cannot rename so. */
	r = link(out->temp, out->path);
	out->named_anew = r == 0;
	if (r == 0)
		unlink(out->temp);
	if (r == 0 || errno == EEXIST)
		return r;
	/* And some (vboxsf, many of FUSE) have no links: what remains is to look, and to rename. */
	if (lstat(out->path, &st) == 0) {
		errno = EEXIST;
		return -1;
	}
	r = rename(out->temp, out->path);
	out->named_anew = r == 0;
	return r;
}

int prep_output_settle(struct prep_output *out, struct prep_err *err)
{
	if (out->settled)
		return 0;
	if (out->seekable && !out->redirected && set_mode(out, err) < 0)
		return -1;
	if (out->seekable && ftruncate(out->fd, (off_t)out->size) != 0)
		return prep_fail_errno(err, "%s: cannot set its size", out->path);
	if (prep_file_sync(out->fd, out->path, err) < 0)
		return -1;
	out->settled = true;
	return 0;
}

int prep_output_commit(struct prep_output *out, struct prep_err *err)
{
	if (prep_output_settle(out, err) < 0)
		return -1;
	if (out->redirected || !out->seekable) {
		out->committed = true;
		return 0;
	}
	if (out->replace && out->check != NULL && out->check(out->path, err) < 0)
		return -1;
	if (out->temp == NULL && link_temp(out, err) < 0)
		return -1;
	if (out->temp != NULL) {
		if (name_temp(out) != 0)
			return errno == EEXIST ? prep_fail(err, PREP_EREFUSED, "%s: the file exists (-f overwrites it)", out->path)
					       : prep_fail_errno(err, "%s: cannot rename the finished file", out->path);
		free(out->temp);
		out->temp = NULL;
	}
	out->committed = true;
	if (prep_file_sync_dir(out->path, err) == 0)
		return 0;
	/* Failed: then there is no file, where none was. */
	prep_output_revoke(out);
	return -1;
}

void prep_output_revoke(struct prep_output *out)
{
	if (out->committed && out->named_anew && unlink(out->path) == 0)
		out->committed = out->named_anew = false;
}

uint64_t prep_output_allocated(const struct prep_output *out)
{
	struct stat st;

	if (!out->seekable || fstat(out->fd, &st) != 0)
		return out->size;
	return (uint64_t)st.st_blocks * 512;
}

void prep_output_close(struct prep_output *out)
{
	if (out == NULL)
		return;
	if (out->temp != NULL && !out->keep)
		unlink(out->temp);
	/* What the shell made is not ours to unlink; empty is the nearest to absent. */
	if (out->redirected && !out->committed && ftruncate(out->fd, 0) != 0)
		errno = 0;
	if (out->fd >= 0)
		close(out->fd);
	free(out->temp);
	free(out->path);
	free(out->buf);
	free(out->acl);
	pthread_mutex_destroy(&out->writing);
	free(out);
}
