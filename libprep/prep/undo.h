/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Undo disks: a base that is not written, and a differencing VHD over it that
 * takes all changes, to be thrown away or committed.
 *
 * While an undo disk stands, the base is read-only for the host (its write
 * permissions are taken away) and marked (disk/undo_mark.h), so that no command
 * here changes it either.
 */
#ifndef PREP_PREP_UNDO_H
#define PREP_PREP_UNDO_H

#include "libprep/base/progress.h"
#include "libprep/disk/parent.h"

struct prep_undo {
	const struct prep_parents *parents; /* where the base, and its own parents, are now */
	bool dry_run;                       /* check all there is to check, and change nothing */
	bool replace;                       /* create: an existing file may be overwritten */
	bool ignore_changed;                /* commit: although the base was changed since */
	uint32_t time_stamp;                /* create: of the undo disk */
	const char *tmpdir;                 /* commit */
	/*
	 * All but create, which is told both names: called once the base is found by what the undo disk says, before
	 * more is read of either and before anything is changed. -1 ends the work. NULL is allowed.
	 */
	int (*found)(void *arg, const char *base, const char *undo, struct prep_err *err);
	void *arg;
};

/* What is known of an undo disk and its base. Release with prep_undo_report_clear. */
struct prep_undo_report {
	char *base, *undo;     /* paths; undo NULL: none stands on base */
	bool present;          /* the undo disk's file is there */
	bool marked;           /* the base is marked as such */
	bool committing;       /* a commit of it has begun and was not finished */
	bool changed;          /* the base is not as it was when the undo disk was made */
	uint64_t size;         /* of the disk */
	uint64_t block_size, blocks; /* of the undo disk: those that it holds, wholly or in part */
	uint64_t own;          /* bytes that it holds */
};

/*
 * Make `undo`, an undo disk of `base`, a VHD of any kind. PREP_EREFUSED when base is
 * something else, in use, in a saved state or has one already.
 */
int prep_undo_create(const char *base, const char *undo, const struct prep_undo *how,
		     struct prep_undo_report *report, struct prep_err *err);

/*
 * Write what `undo` holds into its base through the redo journal
 * (disk/journal.h), and remove it. After a crash or failure the base is old, and the undo
 * disk stands, or its commit is finished by the next try. PREP_EREFUSED when either is
 * in use, another undo disk stands on the base, or the base was changed since.
 */
int prep_undo_commit(const char *undo, const struct prep_undo *how, struct prep_undo_report *report,
		     const struct prep_progress *progress, struct prep_err *err);

/*
 * Remove `undo` and the mark of its base, and give the base its permissions
 * back. Where the file is gone already, how->parents must name the base.
 */
int prep_undo_discard(const char *undo, const struct prep_undo *how, struct prep_undo_report *report,
		      struct prep_err *err);

/* Tell of `path`, an undo disk or a base. */
int prep_undo_status(const char *path, const struct prep_undo *how, struct prep_undo_report *report,
		     struct prep_err *err);

void prep_undo_report_clear(struct prep_undo_report *report);

#endif
