/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/undo.h"

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
#include "libprep/disk/journal.h"
#include "libprep/disk/overlay.h"
#include "libprep/disk/undo_mark.h"
#include "libprep/disk/vhd.h"
#include "libprep/disk/vhd_diff.h"

#define STEP PREP_MIB
#define ZERO_UNIT 4096
#define WRITERS (S_IWUSR | S_IWGRP | S_IWOTH)

void prep_undo_report_clear(struct prep_undo_report *report)
{
	free(report->base);
	free(report->undo);
	report->base = report->undo = NULL;
}

/* An undo disk, its base, and what connects them. */
struct pair {
	struct prep_disk *undo;     /* by itself, without its base; NULL when its file is gone */
	struct prep_undo_mark mark;
	bool marked;
	struct stat st;             /* of the base */
	struct prep_undo_report *report;
};

static void close_pair(struct pair *p)
{
	prep_disk_close(p->undo);
	prep_undo_mark_clear(&p->mark);
}

/* The mark of the base, and whether the base is still as it was marked. */
static int look_at_base(struct pair *p, struct prep_err *err)
{
	struct prep_undo_report *rep = p->report;
	int r;

	if (stat(rep->base, &p->st) != 0)
		return prep_fail_errno(err, "%s", rep->base);
	r = prep_undo_mark_read(rep->base, &p->mark, err);
	if (r < 0)
		return -1;
	p->marked = rep->marked = r > 0;
	rep->committing = p->marked && p->mark.committing;
	rep->changed = p->marked && !p->mark.committing && !prep_undo_mark_unchanged(&p->mark, &p->st);
	return 0;
}

/* Count what the undo disk holds. */
static int count_own(struct pair *p, struct prep_err *err)
{
	struct prep_undo_report *rep = p->report;
	uint64_t start, len, last = UINT64_MAX;
	int r;

	rep->size = p->undo->size;
	rep->block_size = prep_vhd_block_size(p->undo);
	for (uint64_t off = 0; (r = prep_vhd_next_own(p->undo, off, &start, &len, err)) > 0; off = start + len) {
		/* Runs end with their blocks. */
		rep->blocks += start / rep->block_size != last;
		last = start / rep->block_size;
		rep->own += len;
	}
	return r;
}

/* Whether the file `path` is the VHD with this id. */
static bool is_disk(const char *path, const uint8_t id[16])
{
	const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	uint8_t have[16];
	bool same;

	if (fd < 0)
		return false;
	same = prep_vhd_peek(fd, have) > 0 && memcmp(have, id, sizeof have) == 0;
	close(fd);
	return same;
}

/*
 * Whether `path` is a copy of the undo disk that the mark names and that stands
 * there: the base is protected for that one, and whoever commits a copy, or
 * clears it away, would leave it over a base that changes. Where base and undo
 * disk were copied together, the one that the mark names has its own base.
 */
static bool is_copy(const struct pair *p, const char *path, const struct prep_parent_ref *parent)
{
	struct prep_err err = PREP_ERR_INIT;
	struct stat a, b;
	char *base;
	bool same;

	if (stat(path, &a) != 0 || stat(p->mark.path, &b) != 0 || (a.st_dev == b.st_dev && a.st_ino == b.st_ino) ||
	    !is_disk(p->mark.path, p->mark.id) ||
	    prep_parent_find(p->mark.path, true, parent, NULL, prep_vhd_peek, &base, &err) < 0)
		return false;
	same = stat(base, &a) == 0 && a.st_dev == p->st.st_dev && a.st_ino == p->st.st_ino;
	free(base);
	return same;
}

static int open_undo(struct pair *p, const char *path, unsigned flags, const struct prep_undo *how,
		     struct prep_err *err)
{
	const struct prep_vhd_info *info;

	p->report->undo = strdup(path);
	if (p->report->undo == NULL)
		return prep_fail_nomem(err);
	if (prep_disk_open_chain(path, flags | PREP_DISK_ALONE, NULL, &p->undo, err) < 0)
		return -1;
	p->report->present = true;
	info = prep_vhd_disk_info(p->undo);
	if (info == NULL || !p->undo->differencing)
		return prep_fail(err, PREP_EREFUSED, "%s: not an undo disk: no differencing VHD", path);
	if (prep_parent_find(path, true, &info->parent, how->parents, prep_vhd_peek, &p->report->base, err) < 0 ||
	    look_at_base(p, err) < 0)
		return -1;
	if (p->marked && memcmp(p->mark.id, info->footer.id, sizeof p->mark.id) != 0)
		return prep_fail(err, PREP_EREFUSED, "%s: the undo disk that stands on it is %s, not %s", p->report->base,
				 p->mark.path, path);
	if (p->marked && (flags & PREP_DISK_WRITE) && is_copy(p, path, &info->parent))
		return prep_fail(err, PREP_EREFUSED, "%s: a copy of %s, the undo disk that stands on %s: name that, or remove it",
				 path, p->mark.path, p->report->base);
	if (how->found != NULL && how->found(how->arg, p->report->base, path, err) < 0)
		return -1;
	return count_own(p, err);
}

static int remove_undo(const char *path, struct prep_err *err)
{
	if (unlink(path) != 0 && errno != ENOENT)
		return prep_fail_errno(err, "%s: cannot remove", path);
	return prep_file_sync_dir(path, err);
}

/* Durably: the mark, which knows what they were, may go next. */
static int set_mode(const char *base, unsigned mode, struct prep_err *err)
{
	const int fd = open(base, O_RDONLY | O_CLOEXEC);
	int r;

	if (fd < 0 || fchmod(fd, mode) != 0)
		r = prep_fail_errno(err, "%s: cannot change its permissions", base);
	else
		r = prep_file_sync(fd, base, err);
	if (fd >= 0)
		close(fd);
	return r;
}

/* ---- Create ---- */

/* A base that can have an undo disk, kept open so that nobody writes to it meanwhile. */
static int open_base(const char *base, const struct prep_undo *how, struct pair *p, struct prep_disk **ret,
		     struct prep_err *err)
{
	const struct prep_vhd_info *info;
	unsigned chain = 1;

	if (prep_disk_open_chain(base, 0, how->parents, ret, err) < 0)
		return -1;
	for (const struct prep_disk *d = (*ret)->parent; d != NULL; d = d->parent)
		chain++;
	if (chain == PREP_PARENT_DEPTH)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: %u disks in a chain of parents already: nothing could read one more ('vhd-undo commit', or 'vhd-compact' makes one disk of them)",
				 base, chain);
	info = prep_vhd_disk_info(*ret);
	if (info == NULL)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: not a VHD: an undo disk needs one as its base ('vhd-compact' makes it)", base);
	if (info->footer.saved_state == 1)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: the footer is marked as in a saved state: start the virtual machine and shut it down", base);
	if (look_at_base(p, err) < 0)
		return -1;
	/* An undo disk that someone removed by hand is in nobody's way. */
	if (p->marked && (access(p->mark.path, F_OK) == 0 || p->mark.committing))
		return prep_undo_mark_check(base, err);
	p->report->size = (*ret)->size;
	p->report->block_size = PREP_VHD_BLOCK_SIZE_DEFAULT;
	return 0;
}

/* Everything is ready in out: protect the base, and then let the undo disk appear. */
static int stand(struct pair *p, struct prep_output *out, const uint8_t id[16], struct prep_err *err)
{
	const char *base = p->report->base;
	const unsigned mode = p->marked ? p->mark.mode : p->st.st_mode & 07777;
	struct prep_err later = PREP_ERR_INIT;
	struct prep_undo_mark mark = { .mode = mode, .path = p->report->undo };

	memcpy(mark.id, id, sizeof mark.id);
	prep_undo_mark_take(&mark, &p->st);
	if (prep_undo_mark_write(base, &mark, err) < 0)
		return -1;
	if (set_mode(base, mode & ~WRITERS, err) == 0 && prep_output_commit(out, err) == 0)
		return 0;
	/* It may have its name already, and only that may not last. */
	if (is_disk(p->report->undo, id))
		unlink(p->report->undo);
	set_mode(base, mode, &later);
	prep_undo_mark_remove(base, &later);
	return -1;
}

int prep_undo_create(const char *base, const char *undo, const struct prep_undo *how,
		     struct prep_undo_report *report, struct prep_err *err)
{
	struct pair p = { .report = report };
	struct prep_output *out = NULL;
	struct prep_disk *d = NULL;
	uint8_t id[16];
	int r = -1;

	*report = (struct prep_undo_report){ .base = realpath(base, NULL) };
	if (report->base == NULL)
		return prep_fail_errno(err, "%s", base);
	if (open_base(base, how, &p, &d, err) < 0 || prep_output_open(undo, how->replace, &out, err) < 0)
		goto out;
	if (!prep_output_seekable(out) || prep_output_same(out, &p.st)) {
		prep_fail(err, PREP_EUSAGE, "%s: an undo disk is a file of its own", undo);
		goto out;
	}
	report->undo = strdup(prep_output_name(out));
	if (report->undo == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	prep_output_set_check(out, prep_disk_check_replaced);
	r = how->replace ? prep_disk_check_replaced(report->undo, err) : 0;
	if (r == 0)
		r = prep_vhd_diff_create(out, &prep_vhd_disk_info(d)->footer, report->base, report->undo, how->time_stamp,
					 id, err);
	if (r == 0 && !how->dry_run) {
		r = stand(&p, out, id, err);
		report->present = report->marked = r == 0;
	}
out:
	prep_output_close(out);
	prep_disk_close(d);
	close_pair(&p);
	return r;
}

/* ---- Commit ---- */

/* Stage what the undo disk holds: zeros as zeros, the rest to be taken from it. */
static int stage(struct pair *p, struct prep_disk *overlay, const struct prep_progress *progress,
		 struct prep_err *err)
{
	unsigned char *buf = malloc(STEP);
	uint64_t start, len, n;
	int r = -1;

	if (buf == NULL)
		return prep_fail_nomem(err);
	for (uint64_t off = 0; (r = prep_vhd_next_own(p->undo, off, &start, &len, err)) > 0; off = start + n) {
		n = prep_min(len, STEP);
		r = prep_disk_read(p->undo, buf, (size_t)n, start, err);
		for (size_t at = 0, run; r == 0 && at < n; at += run) {
			bool zero;

			run = prep_zero_run(buf + at, (size_t)n - at, ZERO_UNIT, &zero);
			r = zero ? prep_overlay_fill(overlay, start + at, run, 0, err)
				 : prep_overlay_patch(overlay, start + at, run, p->undo, err);
		}
		if (r < 0 || prep_progress(progress, "reading", start + n, p->undo->size, err) < 0) {
			r = -1;
			break;
		}
	}
	free(buf);
	return r;
}

/* What can be told before anything is begun. */
static int check_commit(struct pair *p, const struct prep_undo *how, struct prep_err *err)
{
	const struct prep_undo_report *rep = p->report;
	struct prep_disk *base;
	int r = 0;

	if (rep->changed && !how->ignore_changed)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: changed since %s was made, which no longer fits it: 'vhd-undo discard', or --ignore-changed if only its time stamp is another",
				 rep->base, rep->undo);
	if (prep_disk_open_chain(rep->base, 0, how->parents, &base, err) < 0)
		return -1;
	if (base->size != p->undo->size)
		r = prep_fail(err, PREP_EREFUSED, "%s: a disk of %llu bytes, its base %s has %llu: they cannot become one",
			      rep->undo, (unsigned long long)p->undo->size, rep->base, (unsigned long long)base->size);
	prep_disk_close(base);
	return r;
}

static int write_base(struct pair *p, const struct prep_undo *how, const struct prep_progress *progress,
		      struct prep_err *err)
{
	struct prep_disk *base = NULL, *overlay = NULL;
	uint64_t zeroed;
	int r = prep_disk_open_chain(p->report->base, PREP_DISK_WRITE | PREP_DISK_UNDO, how->parents, &base, err);

	if (r == 0)
		r = prep_overlay_open(base, how->tmpdir, &overlay, err);
	if (r == 0)
		r = stage(p, overlay, progress, err);
	if (r == 0)
		r = prep_journal_commit(overlay, p->report->base, &zeroed, progress, err);
	prep_disk_close(overlay);
	prep_disk_close(base);
	return r;
}

static bool is_as_it_was(const char *base, const struct stat *before)
{
	struct stat st;

	return stat(base, &st) == 0 && st.st_size == before->st_size && st.st_mtim.tv_sec == before->st_mtim.tv_sec &&
	       st.st_mtim.tv_nsec == before->st_mtim.tv_nsec;
}

/*
 * From the changed mark on, a commit has begun: whatever cuts it off, the undo
 * disk stays and the next try writes all of it again, until it is gone and the
 * mark too. Where nothing was written yet, everything is put back.
 */
static int commit(struct pair *p, const struct prep_undo *how, const struct prep_progress *progress,
		  struct prep_err *err)
{
	const char *base = p->report->base, *undo = p->report->undo;
	struct prep_undo_mark begun = p->mark;
	struct prep_err later = PREP_ERR_INIT;

	if (!p->marked) {
		/* Made elsewhere. */
		prep_undo_mark_take(&begun, &p->st);
		memcpy(begun.id, prep_vhd_disk_info(p->undo)->footer.id, sizeof begun.id);
		begun.mode = p->st.st_mode & 07777;
		begun.path = realpath(undo, NULL);
		if (begun.path == NULL)
			return prep_fail_errno(err, "%s", undo);
		p->mark.path = begun.path;
	}
	begun.committing = true;
	if (prep_undo_mark_write(base, &begun, err) < 0)
		return -1;
	if (set_mode(base, begun.mode, err) < 0 || write_base(p, how, progress, err) < 0) {
		/* Once the base may have been written to, by this try or one before, there is no way back. */
		if (prep_journal_waits(base) || p->mark.committing || !is_as_it_was(base, &p->st))
			return -1;
		set_mode(base, p->st.st_mode & 07777, &later);
		if (p->marked)
			prep_undo_mark_write(base, &p->mark, &later);
		else
			prep_undo_mark_remove(base, &later);
		return -1;
	}
	/* Only now may the mark go when the undo disk is gone: before, that may have been moved. */
	begun.done = true;
	if (prep_undo_mark_write(base, &begun, err) < 0)
		return -1;
	return remove_undo(undo, err) < 0 ? -1 : prep_undo_mark_remove(base, err);
}

int prep_undo_commit(const char *undo, const struct prep_undo *how, struct prep_undo_report *report,
		     const struct prep_progress *progress, struct prep_err *err)
{
	struct pair p = { .report = report };
	int r;

	*report = (struct prep_undo_report){ .undo = NULL };
	/* Locked against every other user: it will go. */
	r = open_undo(&p, undo, PREP_DISK_WRITE, how, err);
	if (r == 0)
		r = check_commit(&p, how, err);
	if (r == 0 && !how->dry_run)
		r = commit(&p, how, progress, err);
	close_pair(&p);
	return r;
}

/* ---- Discard ---- */

/* Whether `path`, which is not there, is what the mark names. */
static bool names_same(const char *path, const char *marked)
{
	char *dir_copy = strdup(path), *name_copy = strdup(path), *real = NULL, *whole = NULL;
	bool same = false;

	if (dir_copy != NULL && name_copy != NULL && (real = realpath(dirname(dir_copy), NULL)) != NULL &&
	    asprintf(&whole, "%s/%s", real, basename(name_copy)) >= 0) {
		same = strcmp(whole, marked) == 0;
		free(whole);
	}
	free(real);
	free(dir_copy);
	free(name_copy);
	return same;
}

/* The undo disk was removed by hand; the base is named by --parent. */
static int find_marked(struct pair *p, const char *undo, const struct prep_undo *how, struct prep_err *err)
{
	if (how->parents == NULL || how->parents->n != 1)
		return prep_fail(err, PREP_EFAIL, "%s: not there: name its base by --parent to lift the base's protection",
				 undo);
	p->report->undo = strdup(undo);
	p->report->base = strdup(how->parents->path[0]);
	if (p->report->undo == NULL || p->report->base == NULL)
		return prep_fail_nomem(err);
	if (look_at_base(p, err) < 0)
		return -1;
	if (!p->marked || !names_same(undo, p->mark.path))
		return prep_fail(err, PREP_EREFUSED, "%s: %s%s", p->report->base,
				 p->marked ? "the undo disk that stands on it is " : "no undo disk stands on it",
				 p->marked ? p->mark.path : "");
	return 0;
}

static bool is_gone(const char *path)
{
	return access(path, F_OK) != 0 && errno == ENOENT;
}

int prep_undo_discard(const char *undo, const struct prep_undo *how, struct prep_undo_report *report,
		      struct prep_err *err)
{
	struct pair p = { .report = report };
	int r;

	*report = (struct prep_undo_report){ .undo = NULL };
	r = is_gone(undo) ? find_marked(&p, undo, how, err) : open_undo(&p, undo, PREP_DISK_WRITE, how, err);
	if (r == 0 && report->committing)
		r = prep_fail(err, PREP_EREFUSED,
			      "%s: a commit of it has begun and may have changed %s: run 'vhd-undo commit' again", undo,
			      report->base);
	if (r == 0 && !how->dry_run) {
		r = remove_undo(undo, err);
		if (r == 0 && p.marked)
			r = set_mode(report->base, p.mark.mode, err);
		if (r == 0 && p.marked)
			r = prep_undo_mark_remove(report->base, err);
	}
	close_pair(&p);
	return r;
}

/* ---- Status ---- */

/* The undo disk of a marked base: where the mark says, or beside the base when both were moved. */
static char *marked_undo(const struct pair *p)
{
	char *copy = strdup(p->report->base), *name = strdup(p->mark.path), *beside = NULL;

	if (!is_gone(p->mark.path)) {
		beside = strdup(p->mark.path);
	} else if (copy != NULL && name != NULL) {
		if (asprintf(&beside, "%s/%s", dirname(copy), basename(name)) < 0)
			beside = NULL;
		if (beside != NULL && is_gone(beside)) {
			free(beside);
			beside = NULL;
		}
	}
	free(copy);
	free(name);
	return beside;
}

static int base_status(struct pair *p, const char *base, const struct prep_undo *how, struct prep_err *err)
{
	const struct prep_parents named = { &base, 1 };
	const struct prep_undo this_one = { .parents = &named, .found = how->found, .arg = how->arg };
	struct prep_undo_report *rep = p->report;
	char *undo = marked_undo(p);
	int r;

	if (undo == NULL) {
		rep->undo = strdup(p->mark.path);
		return rep->undo == NULL ? prep_fail_nomem(err) : 0;
	}
	prep_undo_mark_clear(&p->mark);
	prep_undo_report_clear(rep);
	/* By its own names it may find another copy of the base; this is the one that was asked for. */
	r = open_undo(p, undo, 0, &this_one, err);
	free(undo);
	return r;
}

int prep_undo_status(const char *path, const struct prep_undo *how, struct prep_undo_report *report,
		     struct prep_err *err)
{
	struct pair p = { .report = report };
	struct prep_disk *d = NULL;
	int r;

	*report = (struct prep_undo_report){ .base = strdup(path) };
	if (report->base == NULL)
		return prep_fail_nomem(err);
	r = look_at_base(&p, err);
	if (r == 0 && p.marked) {
		r = base_status(&p, path, how, err);
	} else if (r == 0) {
		r = prep_disk_open_chain(path, PREP_DISK_ALONE, NULL, &d, err);
		if (r == 0 && d->differencing) {
			prep_disk_close(d);
			d = NULL;
			prep_undo_report_clear(report);
			r = open_undo(&p, path, 0, how, err);
		}
	}
	prep_disk_close(d);
	close_pair(&p);
	return r;
}
