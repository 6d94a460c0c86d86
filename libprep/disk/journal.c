/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/disk/journal_file.h"
#include "libprep/disk/overlay.h"

#define JOURNAL_SUFFIX ".prep-journal"

static int apply_fill(struct prep_disk *d, const struct prep_journal_record *r, uint64_t *zeroed, struct prep_err *err)
{
	unsigned char same[64 * 1024], now[64 * 1024];
	uint64_t changed, at = 0;

	if (r->byte == 0) {
		if (prep_disk_zero(d, r->off, r->len, &changed, err) < 0)
			return -1;
		*zeroed += changed;
		return 0;
	}
	memset(same, r->byte, sizeof same);
	while (at < r->len) {
		const size_t n = (size_t)prep_min(r->len - at, sizeof same);

		if (prep_disk_read(d, now, n, r->off + at, err) < 0 ||
		    (memcmp(now, same, n) != 0 && prep_disk_write(d, same, n, r->off + at, err) < 0))
			return -1;
		at += n;
	}
	return 0;
}

/* What cannot be resolved has no journal; opening it will tell why. */
static bool waits(const char *name)
{
	return name != NULL && access(name, F_OK) == 0;
}

/* Carry out the records of the journal `name` on d and sync it, then remove the journal. */
static int apply(struct prep_journal_file *f, const char *name, struct prep_disk *d, uint64_t *zeroed,
		 const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_journal_record r = { .len = 0 };

	*zeroed = 0;
	for (;;) {
		if (prep_journal_file_next(f, &r, err) < 0)
			return -1;
		if (r.kind == PREP_JOURNAL_END)
			break;
		if (r.kind == PREP_JOURNAL_HELD || r.kind == PREP_JOURNAL_HELD_ZERO)
			continue;
		if (r.kind != PREP_JOURNAL_DATA ? apply_fill(d, &r, zeroed, err) < 0
					  : prep_disk_write(d, r.data, (size_t)r.len, r.off, err) < 0)
			return -1;
		if (prep_progress(progress, "writing", r.off + r.len, d->size, err) < 0)
			return -1;
	}
	if (prep_disk_flush(d, err) < 0)
		return -1;
	if (unlink(name) != 0)
		return prep_fail_errno(err, "%s: cannot remove the finished journal", name);
	return prep_file_sync_dir(name, err);
}

int prep_journal_commit(struct prep_disk *overlay, const char *path, uint64_t *zeroed,
			const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_disk *d = prep_overlay_base(overlay);
	char *name = prep_file_beside(path, JOURNAL_SUFFIX);
	struct prep_err first = PREP_ERR_INIT;
	struct prep_journal_file *f = NULL;
	struct prep_overlay_change c;
	struct stat st;
	int r;

	*zeroed = 0;
	if (name == NULL || stat(path, &st) != 0) {
		r = prep_fail_errno(err, "%s", path);
		goto out;
	}
	/* Moved data first: it lies in free clusters until the journal's records name it. */
	r = prep_overlay_settle(overlay, progress, err);
	if (r == 0)
		r = prep_overlay_change(overlay, 0, &c, err);
	/* Nothing changed: nothing to write. */
	if (r == 0)
		goto out;
	if (r > 0)
		r = prep_journal_file_write(overlay, name, path, &st, err);
	if (r < 0)
		goto out;
	r = prep_journal_file_open(name, d, true, &f, &first);
	if (r == 0)
		r = apply(f, name, d, zeroed, progress, &first);
	if (r < 0 && waits(name))
		prep_fail(err, first.code,
			  "%s (the change is kept in %s, and finished by the next command on the image)", first.msg,
			  name);
	else if (r < 0)
		prep_fail(err, first.code, "%s (the change is complete)", first.msg);
	prep_journal_file_close(f);
out:
	free(name);
	return r;
}

bool prep_journal_waits(const char *path)
{
	char *name = prep_file_beside(path, JOURNAL_SUFFIX);
	const bool r = waits(name);

	free(name);
	return r;
}

bool prep_journal_waits_near(const char *path)
{
	char *copy = realpath(path, NULL);
	DIR *d = copy != NULL ? opendir(dirname(copy)) : NULL;
	const struct dirent *e;
	bool r = false;

	while (d != NULL && !r && (e = readdir(d)) != NULL) {
		const size_t len = strlen(e->d_name);

		r = len >= strlen(JOURNAL_SUFFIX) && strcmp(e->d_name + len - strlen(JOURNAL_SUFFIX), JOURNAL_SUFFIX) == 0;
	}
	if (d != NULL)
		closedir(d);
	free(copy);
	return r;
}

/* A parent's folder may be closed to a command that was given the child alone, whoever runs it. */
#define WAY_OUT " ('vhd-info' of the image itself finishes it, by one who may write there)"

/* Whether files can be removed from the folder that `name` stands in: else errno says why. */
static bool can_be_removed(const char *name)
{
	char *copy = strdup(name);
	const char *folder = copy != NULL ? dirname(copy) : NULL;
	bool ret = folder != NULL && eaccess(folder, W_OK | X_OK) == 0;
	struct stat st, of_folder;
	int saved;

	/* Of a folder like /tmp everyone removes his own, but for root and the folder's owner. */
	if (ret && stat(folder, &of_folder) == 0 && (of_folder.st_mode & S_ISVTX) && lstat(name, &st) == 0 &&
	    geteuid() != 0 && geteuid() != st.st_uid && geteuid() != of_folder.st_uid) {
		errno = EPERM;
		ret = false;
	}
	saved = errno;

	free(copy);
	errno = saved;
	return ret;
}

/*
 * The image cannot be written. Whether a journal waits all the same: 1; 0 when it is gone by now; -1 when it
 * is somebody's who is at work on the image just now, and began when this process had given up its rights.
 */
static int waits_for_others(const char *path, const char *name, struct prep_err *err)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	int r;

	if (fd < 0)
		return prep_file_not_opened(path, false, err);
	r = prep_file_lock(fd, false, path, err);
	close(fd);
	return r < 0 ? -1 : waits(name);
}

int prep_journal_recover(const char *path, const struct prep_parents *parents, struct prep_err *err)
{
	char *name = prep_file_beside(path, JOURNAL_SUFFIX);
	struct prep_journal_file *f;
	struct prep_disk *d;
	uint64_t zeroed;
	int fd, r, why;

	if (!waits(name)) {
		free(name);
		return 0;
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		why = errno;
		r = waits_for_others(path, name, err);
		if (r > 0)
			r = prep_fail(err, PREP_EREFUSED,
				      "%s: a change that was cut off waits in %s, and the image cannot be written to finish it: %s" WAY_OUT,
				      path, name, strerror(why));
		goto out;
	}
	/* It would be applied again and again, whatever is written to the image in between. */
	if (!can_be_removed(name)) {
		r = prep_fail(err, PREP_EREFUSED,
			      "%s: a change that was cut off waits in %s, and its folder cannot be written to finish it: %s" WAY_OUT,
			      path, name, strerror(errno));
		close(fd);
		goto out;
	}
	r = prep_disk_open_fd_chain(fd, path, true, PREP_DISK_WRITE | PREP_DISK_NO_RECOVERY, parents, &d, err);
	if (r < 0)
		goto out;
	/* Now that the image is locked: who had it before may have finished on its own. */
	if (waits(name)) {
		r = prep_journal_file_open(name, d, false, &f, err);
		if (r == 0)
			r = apply(f, name, d, &zeroed, NULL, err);
		prep_journal_file_close(f);
	}
	prep_disk_close(d);
out:
	free(name);
	return r;
}
