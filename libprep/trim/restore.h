/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Restore: make the disk that an index describes, from seeds and from the
 * frames of its package, wherever those come from.
 *
 * Seeds are read while frames are on their way. Memory: a frame, packed and unpacked, and a
 * chunk for each job, the same of a patch with its reference, and the index.
 */
#ifndef PREP_TRIM_RESTORE_H
#define PREP_TRIM_RESTORE_H

#include "libprep/base/output.h"
#include "libprep/ckm/package.h"
#include "libprep/disk/export.h"
#include "libprep/trim/crew.h"
#include "libprep/trim/supply.h"
#include "libprep/trim/seed.h"

/* Where packed frames come from. Several threads call next, done and bad at once. */
struct prep_frame_source {
	const char *what; /* the step, for progress */
	/* supply->frame[] are needed: they may be asked for from now on. Once more when all of those are done: others are. */
	int (*start)(void *arg, const struct prep_supply *supply, struct prep_err *err);
	/*
	 * Put the stored bytes of a frame into buf: 1 and *frame; -1. When none is there: if `wait`, wait for
	 * one, 0 when all have been handed out and need not be again, or crew->stop is set; else 0.
	 */
	int (*next)(void *arg, struct prep_crew *crew, bool wait, uint8_t *buf, uint32_t *frame, struct prep_err *err);
	/* What was in the frame is on the disk. */
	int (*done)(void *arg, uint32_t frame, struct prep_err *err);
	/* The frame is damaged, as `why` says: 0 when it will come again, -1 with *err. */
	int (*bad)(void *arg, uint32_t frame, const struct prep_err *why, struct prep_err *err);
	void *arg;
};

/* The frames of an opened .ckm. */
struct prep_package_source {
	struct prep_ckm *package;
	const struct prep_supply *supply;
	_Atomic uint32_t next;
};
void prep_package_source(struct prep_ckm *package, struct prep_package_source *ps,
			 struct prep_frame_source *ret);

struct prep_restore {
	struct prep_ckm *package;      /* index and keys */
	struct prep_supply *supply;    /* made, with the seeds' catalogs in it */
	struct prep_seed *const *seed;
	size_t seeds;
	const struct prep_frame_source *source;
	const struct prep_export *how; /* format, block size, identity */
	struct prep_output *out;       /* seekable, nothing appended */
	bool resume;                   /* out's file has bytes of an earlier try at the same: keep what is right */
	unsigned jobs;                 /* threads, 0 for the default */
};

struct prep_restore_report {
	uint64_t file_size;            /* of the image */
	uint32_t blocks;               /* of a dynamic VHD */
	uint64_t resumed_bytes;        /* were on the disk */
	uint64_t seed_chunks, seed_bytes;       /* came from seeds */
	uint64_t bad_chunks, bad_bytes;         /* were promised by seeds, and were something else */
	uint64_t frames, frame_bytes;           /* were unpacked; stored bytes */
	uint64_t patches, patch_bytes;          /* those of them that are patches */
};

/*
 * Restore. Every byte that is written has been verified against the index. So has,
 * before the first frame is asked for, every reference of a patch: where one
 * is not what its seed promised, other frames take the patch's place, or
 * nothing is written to out's name. Does not commit out. PREP_EREFUSED when chunks come from nowhere (supply.h),
 * PREP_EDAMAGED for a damaged frame; PREP_EFAIL when a seed changes meanwhile.
 */
int prep_restore(const struct prep_restore *r, struct prep_restore_report *report,
		 const struct prep_progress *progress, struct prep_err *err);

#endif
