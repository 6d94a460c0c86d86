/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Zero the free space of a disk's file systems.
 */
#ifndef PREP_PREP_ZEROFREE_H
#define PREP_PREP_ZEROFREE_H

#include "libprep/base/progress.h"
#include "libprep/volume/volumes.h"

struct prep_zerofree {
	unsigned volume;  /* the partition's number; 0: every one that can be read */
	bool keep_slack;  /* leave the bytes behind files' data alone */
	bool log;         /* empty $LogFile: all 0xFF */
};

/* Of one volume; bytes. */
struct prep_zerofree_volume {
	unsigned number;
	enum prep_fs_kind kind;
	bool done;             /* false: left as it is (no file system that is known) */
	uint64_t size;
	uint64_t free;         /* free and unclaimed clusters */
	uint64_t slack;        /* behind files' data */
	uint64_t log;          /* of the emptied log */
	uint64_t known_zero;   /* of free and slack: zero without reading */
	uint64_t used_unclaimed; /* clusters lost by the file system: not touched */
};

struct prep_zerofree_report {
	struct prep_zerofree_volume volume[PREP_PARTITIONS_MAX];
	unsigned n;
};

/*
 * Stage in `overlay` (disk/overlay.h) that every free and unclaimed cluster
 * reads as zeros, by fills alone: nothing is read for it but metadata
 * (prep_scan_fills tells how much of it is not zero yet). The volumes are those of the overlay's base. Nothing is staged on a failure that
 * matters: forget the overlay then.
 * PREP_EREFUSED: an obstacle (volume/fs.h); PREP_EDAMAGED: the audit says so.
 */
int prep_zerofree(const struct prep_volumes *volumes, struct prep_disk *overlay,
		  const struct prep_zerofree *how, struct prep_zerofree_report *report,
		  const struct prep_progress *progress, struct prep_err *err);

#endif
