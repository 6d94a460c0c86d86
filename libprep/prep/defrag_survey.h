/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What of a volume can be moved: the first half of vhd-defrag, which looks at
 * metadata and at what the disk knows of its extents, and reads no data.
 */
#ifndef PREP_PREP_DEFRAG_SURVEY_H
#define PREP_PREP_DEFRAG_SURVEY_H

#include "libprep/prep/defrag_plan.h"
#include "libprep/volume/volumes.h"

#define PREP_DEFRAG_FIXED_FILES 8

struct prep_defrag_survey {
	struct prep_defrag_layout layout; /* .free is the audit's */
	uint8_t *movable;          /* one bit a cluster */
	uint8_t *idle;
	uint64_t fixed[PREP_DEFRAG_FIXED_FILES]; /* files that must stay where they are */
	size_t n_fixed;
	bool units;                /* there are units of 16 clusters that move as one */
};

/*
 * Look at the volume v of `disk`, whose file system `fs` (NTFS) was audited,
 * for blocks of block_size. The audit must outlive the survey. PREP_EREFUSED
 * when a cluster is larger than a block. Release with prep_defrag_survey_clear, also
 * after a failure.
 */
int prep_defrag_survey(const struct prep_volume *v, struct prep_fs *fs, struct prep_disk *disk,
		       const struct prep_fs_audit *audit, uint64_t block_size, struct prep_defrag_survey *ret,
		       struct prep_err *err);
void prep_defrag_survey_clear(struct prep_defrag_survey *s);

/*
 * Not moved: what the file system keeps in place, files that boot code finds by
 * their clusters, and streams whose flags libntfs-3g would change in passing.
 */
bool prep_defrag_survey_movable(const struct prep_defrag_survey *s, const struct prep_fs_stream *stream);

/*
 * The part of a stream, from cluster `vcn` of it on, that moves as one: a piece of
 * a run, or, where NTFS compresses, the clusters of a unit of 16.
 */
struct prep_defrag_survey_part {
	uint64_t vcn, len;     /* clusters of the stream */
	size_t run;            /* that vcn is in */
	bool whole;            /* moved all of it or not at all; else it can be cut anywhere */
	bool fixed;            /* a unit that is not as it should be: not moved */
};

/* *run begins as 0. False after the last part. */
bool prep_defrag_survey_part(const struct prep_defrag_survey *s, const struct prep_fs_stream *stream, size_t *run,
			     uint64_t vcn, struct prep_defrag_survey_part *ret);

/* Where cluster vcn of the stream is, from run `*run` on, which is set to its run; UINT64_MAX in a hole. */
uint64_t prep_defrag_survey_lcn(const struct prep_defrag_survey *s, const struct prep_fs_stream *stream,
				size_t *run, uint64_t vcn);

#endif
