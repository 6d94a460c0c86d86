/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Remove files from a disk's file systems, by patterns and presets.
 */
#ifndef PREP_PREP_RMFILE_H
#define PREP_PREP_RMFILE_H

#include "libprep/base/progress.h"
#include "libprep/volume/volumes.h"

/* A named set of patterns for what a gold image does not need. */
struct prep_preset {
	const char *name;
	const char *reason;           /* one sentence */
	const char *loses;            /* what is lost, said before it is done; NULL when nothing is */
	const char *const *patterns;  /* NULL-terminated; matched with what is below folders */
	bool discards_hibernation;
};

extern const struct prep_preset prep_presets[];
extern const size_t prep_preset_count;

/* NULL when there is none of that name. */
const struct prep_preset *prep_preset_find(const char *name);

/* What one pattern or preset matches on one volume. */
struct prep_rmfile_match {
	const char *what;         /* the pattern, or the preset's name */
	bool preset;
	uint64_t files, folders;  /* names */
	uint64_t bytes;           /* of clusters that are freed with them */
	bool found;               /* it matches something, even if all of that was matched before */
};

struct prep_rmfile {
	unsigned volume;                         /* the partition's number; 0: every one */
	const char *const *pattern;
	size_t patterns;
	const struct prep_preset *const *preset;
	size_t presets;
	bool recursive;                          /* patterns may name folders that are not empty */
	bool ignore_missing;                     /* a pattern that matches nothing is no error; presets never are */

	/* Called for every name that is found, in the order of removal; may be NULL. */
	void (*found)(void *arg, unsigned volume, const char *what, const struct prep_fs_entry *e);
	void *arg;
};

struct prep_rmfile_report {
	struct prep_rmfile_match *match; /* patterns, then presets, over all volumes */
	size_t n;
	uint64_t files, folders, bytes;  /* together */
};

/*
 * Find what `how` names, on the volumes of the disk as it is. Nothing is changed.
 * PREP_EUSAGE for a path that cannot be, or that matches a folder without
 * `recursive`, PREP_EREFUSED for the file system's own files, PREP_EFAIL for a pattern
 * without a match.
 */
int prep_rmfile_find(const struct prep_volumes *volumes, const struct prep_rmfile *how,
		     struct prep_rmfile_report *report, struct prep_err *err);

/*
 * Find and remove; the changes are staged in `overlay` (disk/overlay.h), over
 * the disk that `volumes` was opened on. The volume is audited before and
 * after. After a failure forget the overlay.
 */
int prep_rmfile(const struct prep_volumes *volumes, struct prep_disk *overlay,
		const struct prep_rmfile *how, struct prep_rmfile_report *report,
		const struct prep_progress *progress, struct prep_err *err);

void prep_rmfile_report_clear(struct prep_rmfile_report *report);

#endif
