/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Scan: how much of a disk is zero, by reading what is not known to be.
 */
#ifndef PREP_PREP_SCAN_H
#define PREP_PREP_SCAN_H

#include "libprep/base/progress.h"
#include "libprep/disk/disk.h"

/* Bytes of [off, off+len) in 4 KiB pages (of the disk) that are not all zero. */
int prep_scan_nonzero(struct prep_disk *d, uint64_t off, uint64_t len, uint64_t *ret,
		      struct prep_err *err);

/*
 * Bytes in such pages under the zero fills staged in `overlay` (disk/overlay.h):
 * just what a commit of them would count as zeroed.
 */
int prep_scan_fills(struct prep_disk *overlay, uint64_t *ret, const struct prep_progress *progress,
		    struct prep_err *err);

/*
 * Blocks of block_size bytes that are not known to be zero without reading:
 * what a dynamic VHD made from d would hold.
 */
int prep_scan_blocks(struct prep_disk *d, uint64_t block_size, uint64_t *ret, struct prep_err *err);

#endif
