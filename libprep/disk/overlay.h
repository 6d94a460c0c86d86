/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Overlay: changes to a disk staged in memory, the disk itself untouched.
 *
 * Reads see the changes. They are committed through the journal (journal.h),
 * or streamed out merged with the base (export.h), or forgotten by closing.
 */
#ifndef PREP_DISK_OVERLAY_H
#define PREP_DISK_OVERLAY_H

#include "libprep/disk/disk.h"

#define PREP_OVERLAY_PAGE 4096u

/* One staged change: bytes of a page, or a range filled with one byte. */
struct prep_overlay_change {
	uint64_t off, len;
	bool fill;
	uint8_t byte;                         /* of a fill */
	uint8_t page[PREP_OVERLAY_PAGE];      /* else the new content: len bytes */
};

/*
 * Stage changes to base, which must outlive the overlay. Beyond 32 MiB of
 * changed pages they go to an unnamed file in tmpdir.
 */
int prep_overlay_open(struct prep_disk *base, const char *tmpdir, struct prep_disk **ret,
		      struct prep_err *err);

/* Stage [off, off+len) to hold `byte` all over. Ascending calls are the cheap ones. */
int prep_overlay_fill(struct prep_disk *overlay, uint64_t off, uint64_t len, uint8_t byte,
		      struct prep_err *err);

/* The first change at or after off: 1 and *ret, or 0 when there is none. */
int prep_overlay_change(struct prep_disk *overlay, uint64_t off, struct prep_overlay_change *ret,
			struct prep_err *err);

/* Bytes of changed pages, and the disk underneath. */
uint64_t prep_overlay_page_bytes(const struct prep_disk *overlay);
struct prep_disk *prep_overlay_base(const struct prep_disk *overlay);

#endif
