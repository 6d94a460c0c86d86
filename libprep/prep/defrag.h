/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Defragment a disk's file systems, NTFS so far.
 *
 * For blocks: one used cluster keeps a whole block of a dynamic VHD. The
 * emptiest blocks are evacuated into free clusters of the others, by moving as
 * little as can be. For files: files in pieces are made contiguous. Both
 * are two runs, the files first: nothing is ever moved to a place that the
 * same run has left, so that a crash at any moment loses nothing.
 */
#ifndef PREP_PREP_DEFRAG_H
#define PREP_PREP_DEFRAG_H

#include "libprep/base/progress.h"
#include "libprep/volume/volumes.h"

enum prep_defrag_goal { PREP_DEFRAG_BLOCKS, PREP_DEFRAG_FILES };

struct prep_defrag {
	enum prep_defrag_goal goal;
	unsigned volume;     /* the partition's number; 0: every one that can be */
	uint64_t block_size; /* bytes: of the VHD that the disk is, or will be */
	uint64_t budget;     /* of files: bytes to move at most, the largest gain first; UINT64_MAX: no limit */
};

/* Of one volume. Blocks are those that the volume has a part in. */
struct prep_defrag_volume {
	unsigned number;
	enum prep_fs_kind kind;
	bool done;
	uint64_t blocks_before; /* with clusters in use, or with data of others */
	uint64_t blocks_pinned; /* of those, that nothing can empty */
	uint64_t blocks_bound;  /* no fewer can hold what is in use */
	uint64_t blocks_after;
	uint64_t moved;         /* bytes */
	uint64_t fragments_before, fragments_after; /* of all streams together */
	uint64_t fragmented_before, fragmented_after; /* streams in more than one fragment */
};

struct prep_defrag_report {
	struct prep_defrag_volume volume[PREP_PARTITIONS_MAX];
	unsigned n;
	uint64_t moved;
};

/*
 * Stage the moves in `overlay` (disk/overlay.h) over the disk that `volumes`
 * was opened on: data as copies, metadata as pages, evacuated blocks as zeros,
 * with what free clusters hold in them. Other places left behind are free
 * clusters like any. Each volume is audited before and after. After a failure forget the
 * overlay. PREP_EREFUSED and PREP_EDAMAGED as the gate (gate.h) has it;
 * PREP_EREFUSED also for a volume asked for that is no NTFS, and where a
 * cluster is larger than a block.
 */
int prep_defrag(const struct prep_volumes *volumes, struct prep_disk *overlay,
		const struct prep_defrag *how, struct prep_defrag_report *report,
		const struct prep_progress *progress, struct prep_err *err);

/*
 * Only plan, for blocks: what prep_defrag would reach on volume v of `disk`, an
 * NTFS that was opened and audited, and how much it would move for it.
 */
int prep_defrag_estimate(const struct prep_volume *v, struct prep_fs *fs, struct prep_disk *disk,
			 const struct prep_fs_audit *audit, uint64_t block_size,
			 struct prep_defrag_volume *ret, struct prep_err *err);

#endif
