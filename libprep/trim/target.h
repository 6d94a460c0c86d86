/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Target: the image that is being restored, and where the disk's bytes stand in it.
 *
 * Known from the index alone, so that chunks can be written in any order: a
 * dynamic VHD has the blocks that any run touches, in ascending order.
 */
#ifndef PREP_TRIM_TARGET_H
#define PREP_TRIM_TARGET_H

#include "libprep/base/output.h"
#include "libprep/ckm/index.h"
#include "libprep/disk/export.h"

struct prep_target {
	enum prep_format format;
	uint64_t disk_size;  /* bytes */
	uint64_t file_size;  /* bytes: of the whole image */
	uint32_t block_size; /* dynamic only */
	uint64_t *block;     /* dynamic only: where each block's data stands in the file, 0: it has none */
	uint32_t blocks, present;
};

/*
 * How the disk is to be restored: in `format` (an enum prep_format) or, where that is negative,
 * as it was packed; identity and block size are those of the packed image. PREP_EREFUSED when a
 * VHD cannot hold the disk. `name` is for the message.
 */
int prep_target_choose(const struct prep_ckm_index *index, int format, const char *name, struct prep_export *ret,
		       struct prep_err *err);

/* The most that the image will take: bytes, for a check of free space. */
uint64_t prep_target_estimate(const struct prep_ckm_index *index, const struct prep_export *how);

/*
 * Lay the disk out in `out`, as prep_target_choose chose, seekable and nothing appended to it yet: write
 * all but the data. Clear with prep_target_clear.
 */
int prep_target_write(const struct prep_ckm_index *index, const struct prep_export *how,
		      struct prep_output *out, struct prep_target *ret, struct prep_err *err);
void prep_target_clear(struct prep_target *l);

/*
 * Where byte `off` of the disk stands in the file. Returns how many bytes from
 * there on stand beside it, at most len; 0 where the file has no place for it.
 */
uint64_t prep_target_find(const struct prep_target *l, uint64_t off, uint64_t len, uint64_t *ret);

#endif
