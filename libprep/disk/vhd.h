/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * VHD files as disks: fixed, dynamic and differencing, read and written in place.
 */
#ifndef PREP_DISK_VHD_H
#define PREP_DISK_VHD_H

#include "libprep/disk/disk.h"
#include "libprep/disk/parent.h"
#include "libprep/disk/vhd_format.h"

/* What a VHD says of itself. */
struct prep_vhd_info {
	struct prep_vhd_footer footer; /* the one that was believed */
	struct prep_vhd_header header; /* dynamic and differencing only */
	struct prep_parent_ref parent; /* differencing only: what it says of its parent */
	bool footer_recovered;         /* the trailing footer is missing or bad: the copy was used */
	uint32_t blocks_allocated;     /* BAT entries in use */
};

/*
 * Open fd if it is a VHD: returns 1 and *ret, and fd is the disk's; 0 when it
 * is no VHD. PREP_EDAMAGED: wrong checksums, or a header or BAT that points
 * outside the file, into the metadata or twice to one place; PREP_EREFUSED:
 * a saved state when opened for writing, or when that is tried.
 *
 * A sector whose bit in its block's bitmap is clear reads as zeros, as the
 * specification has it; in a differencing disk as the parent has it, and as
 * zeros beyond the parent's end. The parent is not opened here: until the
 * caller sets disk.parent, such sectors cannot be read. Writing sets bits, and
 * never touches the parent.
 */
int prep_vhd_open(int fd, const char *name, bool write, struct prep_disk **ret,
		  struct prep_err *err);

/* NULL when the disk is no VHD. */
const struct prep_vhd_info *prep_vhd_disk_info(const struct prep_disk *d);

/* The id of the VHD in fd: 1, or 0 when it is none whose footer can be believed (parent.h). */
int prep_vhd_peek(int fd, uint8_t id[16]);

/* The block size of a dynamic or differencing disk; of every other, what a VHD made from it gets. */
uint32_t prep_vhd_block_size(const struct prep_disk *d);

/*
 * Differencing disks: the first run of sectors at or after off that the disk
 * itself holds, cut at its block's end: 1, or 0 when there is none.
 */
int prep_vhd_next_own(struct prep_disk *d, uint64_t off, uint64_t *start, uint64_t *len,
		      struct prep_err *err);

/* Dynamic and differencing disks: whether block i (< header.bat_entries) is allocated. */
bool prep_vhd_block_allocated(const struct prep_disk *d, uint32_t i);

/*
 * Check every sector bitmap of a dynamic disk: how many blocks have clear bits,
 * and how many of those hold data that is not zero under a clear bit, which
 * readers disagree about. Clear bits of a differencing disk are as they should be.
 */
int prep_vhd_check_bitmaps(struct prep_disk *d, uint32_t *partial, uint32_t *hidden,
			   struct prep_err *err);

#endif
