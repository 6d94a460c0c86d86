/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Overlay: changes to a disk staged in memory, the disk itself untouched.
 *
 * Reads see the changes. They are committed through the journal (journal.h),
 * or streamed out merged with the base (export.h), or forgotten by closing.
 */
#ifndef PREP_DISK_OVERLAY_H
#define PREP_DISK_OVERLAY_H

#include "libprep/base/progress.h"
#include "libprep/disk/disk.h"

#define PREP_OVERLAY_PAGE 4096u

/* One staged change: bytes of a page, a range filled with one byte, or one copied from elsewhere. */
struct prep_overlay_change {
	uint64_t off, len;
	bool fill, copy;                      /* neither: a page */
	bool exact;                           /* of a fill: by prep_overlay_fill_exact */
	uint8_t byte;                         /* of a fill */
	uint64_t from;                        /* of a copy: where the base holds the bytes */
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

/*
 * The same for bytes that may get data without any guard changing (the slack of a file): the journal
 * knows each of their sectors as it was.
 */
int prep_overlay_fill_exact(struct prep_disk *overlay, uint64_t off, uint64_t len, uint8_t byte,
			    struct prep_err *err);

/*
 * Stage [off, off+len) to hold what the base (not the overlay) holds at `from`:
 * moved data, without bringing it into memory.
 */
int prep_overlay_copy(struct prep_disk *overlay, uint64_t off, uint64_t from, uint64_t len,
		      struct prep_err *err);

/*
 * Stage [off, off+len) to hold what `from`, another disk that outlives the overlay,
 * holds there. Its changes are pages.
 */
int prep_overlay_patch(struct prep_disk *overlay, uint64_t off, uint64_t len, struct prep_disk *from,
		       struct prep_err *err);

/*
 * Carry the staged copies out on the base, which was opened for writing, and
 * make them durable; they are staged no more. Only where nothing refers to
 * their targets yet (free clusters): then a crash afterwards loses nothing.
 */
int prep_overlay_settle(struct prep_disk *overlay, const struct prep_progress *progress,
			struct prep_err *err);

/* Forget changed pages that hold what would be there without them. */
int prep_overlay_tidy(struct prep_disk *overlay, struct prep_err *err);

/*
 * Name bytes of the base that the staged changes depend on and do not touch
 * (an allocation bitmap whose free clusters are filled). The journal knows the
 * image by them too: a change is never finished on another version of it.
 */
int prep_overlay_guard(struct prep_disk *overlay, uint64_t off, uint64_t len, struct prep_err *err);

struct prep_overlay_guard {
	uint64_t off, len;
};
const struct prep_overlay_guard *prep_overlay_guards(const struct prep_disk *overlay, size_t *n);

/*
 * What settling has written: data that the staged changes name from their new place on. Ascending, never overlapping.
 * The journal looks whether it is still there: between a crash and its recovery others may have used what was free.
 */
struct prep_overlay_settled {
	uint64_t off, len; /* of data at most 1 MiB */
	bool zero;
	uint32_t crc;      /* CRC-32 of data */
};
const struct prep_overlay_settled *prep_overlay_settled(const struct prep_disk *overlay, size_t *n);

/* The first change at or after off: 1 and *ret, or 0 when there is none. */
int prep_overlay_change(struct prep_disk *overlay, uint64_t off, struct prep_overlay_change *ret,
			struct prep_err *err);

/* Bytes of changes that are pages, how many ranges are filled or copied, and the disk underneath. */
uint64_t prep_overlay_page_bytes(const struct prep_disk *overlay);
size_t prep_overlay_ranges(const struct prep_disk *overlay);
struct prep_disk *prep_overlay_base(const struct prep_disk *overlay);

#endif
