/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A part of a disk (a partition) as a disk of its own.
 */
#ifndef PREP_DISK_SLICE_H
#define PREP_DISK_SLICE_H

#include "libprep/disk/disk.h"

/* [off, off+len) of base, which must outlive the slice. PREP_EDAMAGED when it is not inside. */
int prep_slice_open(struct prep_disk *base, uint64_t off, uint64_t len, const char *name,
		    struct prep_disk **ret, struct prep_err *err);

#endif
