/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * VHD files as disks: fixed and dynamic, read and written in place.
 */
#ifndef PREP_DISK_VHD_H
#define PREP_DISK_VHD_H

#include "libprep/disk/disk.h"
#include "libprep/disk/vhd_format.h"

/* What a VHD says of itself. */
struct prep_vhd_info {
	struct prep_vhd_footer footer; /* the one that was believed */
	struct prep_vhd_header header; /* dynamic only */
	bool footer_recovered;         /* the trailing footer is missing or bad: the copy was used */
	uint32_t blocks_allocated;     /* BAT entries in use */
};

/*
 * Open fd if it is a VHD: returns 1 and *ret, and fd is the disk's; 0 when it
 * is no VHD. PREP_EDAMAGED: wrong checksums, or a header or BAT that points
 * outside the file, into the metadata or twice to one place; PREP_EREFUSED:
 * a differencing disk, or a saved state when opened for writing.
 *
 * A sector whose bit in its block's bitmap is clear reads as zeros, as the
 * specification has it.
 */
int prep_vhd_open(int fd, const char *name, bool write, struct prep_disk **ret,
		  struct prep_err *err);

/* NULL when the disk is no VHD. */
const struct prep_vhd_info *prep_vhd_disk_info(const struct prep_disk *d);

/* Dynamic disks: whether block i (< header.bat_entries) is allocated. */
bool prep_vhd_block_allocated(const struct prep_disk *d, uint32_t i);

/*
 * Check every sector bitmap of a dynamic disk: how many blocks have clear bits,
 * and how many of those hold data that is not zero under a clear bit, which
 * readers disagree about.
 */
int prep_vhd_check_bitmaps(struct prep_disk *d, uint32_t *partial, uint32_t *hidden,
			   struct prep_err *err);

#endif
