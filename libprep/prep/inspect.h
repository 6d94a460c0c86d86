/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Inspect: what a disk holds, and what the other verbs would gain on it.
 */
#ifndef PREP_PREP_INSPECT_H
#define PREP_PREP_INSPECT_H

#include "libprep/base/progress.h"
#include "libprep/prep/defrag.h"
#include "libprep/prep/rmfile.h"
#include "libprep/volume/volumes.h"

/* What a block of the disk is, as far as dropping it goes. */
enum prep_block_state {
	PREP_BLOCK_ABSENT, /* not in the image file: zeros */
	PREP_BLOCK_ZERO,   /* in the file, and all zero: vhd-compact drops it */
	PREP_BLOCK_FREE,   /* data in free clusters only: vhd-zerofree empties it */
	PREP_BLOCK_PARTLY, /* some clusters in use, some free */
	PREP_BLOCK_FULL,   /* in use throughout, or not of a file system that is known */
	PREP_BLOCK_STATES,
};

#define PREP_INSPECT_PRESETS_MAX 8

struct prep_inspect_volume {
	const struct prep_volume *volume;
	bool opened;                  /* the file system could be read: what follows is known */
	struct prep_fs_info info;
	struct prep_fs_audit audit;
	uint64_t used, free;          /* bytes of clusters; free ones are unclaimed too */
	uint64_t free_nonzero;        /* bytes of free clusters' pages that are not zero (not with quick) */
	struct {
		uint64_t files, bytes;
	} preset[PREP_INSPECT_PRESETS_MAX]; /* what each of prep_presets would remove */
	bool planned;                 /* vhd-defrag's gain is known (sound NTFS; not with quick): */
	struct prep_defrag_volume defrag; /* as prep_defrag_estimate has it, for block_size */
	char problem[256];            /* why it could not be opened, or what is wrong; empty if nothing */
};

struct prep_inspect {
	struct prep_volumes *volumes;
	struct prep_inspect_volume volume[PREP_PARTITIONS_MAX]; /* volumes->n of them */
	bool damaged;                 /* some audit, or a file system that did not open, says so */

	uint64_t block_size;          /* of the dynamic VHD, or 2 MiB */

	/* Not with quick. */
	uint64_t blocks;
	uint8_t *state;               /* enum prep_block_state of each */
	uint64_t count[PREP_BLOCK_STATES];
};

/* quick: read no file data, no free space, no blocks. Release with prep_inspect_clear. */
int prep_inspect(struct prep_disk *d, bool quick, struct prep_inspect *ret,
		 const struct prep_progress *progress, struct prep_err *err);
void prep_inspect_clear(struct prep_inspect *in);

#endif
