/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The virtual disk: what a guest would see, whatever file holds it.
 *
 * One interface over raw files, VHDs, an overlay of staged changes and a slice
 * (a partition). Offsets and lengths are bytes of the disk. Reads and extents
 * of one disk may run in several threads at once; writes may not.
 */
#ifndef PREP_DISK_DISK_H
#define PREP_DISK_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libprep/base/err.h"
#include "libprep/base/notes.h"

enum prep_extent_kind {
	PREP_EXTENT_DATA, /* bytes that must be read to be known */
	PREP_EXTENT_ZERO, /* zeros, known without reading, in space that the format has allocated */
	PREP_EXTENT_HOLE, /* zeros, in space that the format has not allocated */
};

struct prep_extent {
	uint64_t off, len;
	enum prep_extent_kind kind;
};

/* Where bytes of a disk stand verbatim in a host file. */
struct prep_backing {
	int fd;           /* the disk's, not to be closed */
	const char *name;
	uint64_t off;     /* in the file */
	uint64_t len;     /* how far this holds */
};

struct prep_disk;
struct prep_parents;

struct prep_disk_ops {
	const char *kind; /* "raw", "fixed", "dynamic", "differencing", "vhdx", ...: what vhd-info calls it */

	/* [off, off+len) lies inside the disk. */
	int (*read)(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err);

	/* NULL where the kind cannot be written. */
	int (*write)(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
		     struct prep_err *err);

	/* Make the range read as zeros, freeing host space where that is possible. With write. */
	int (*zero)(struct prep_disk *d, uint64_t off, uint64_t len, struct prep_err *err);

	/* The extent that holds off (< size); starts at off, may end anywhere after. */
	int (*extent)(struct prep_disk *d, uint64_t off, struct prep_extent *ret,
		      struct prep_err *err);

	/* Optional: true and *ret filled in where the bytes at off stand in a host file. */
	bool (*backing)(struct prep_disk *d, uint64_t off, struct prep_backing *ret);

	/* Optional: make all writes durable. */
	int (*flush)(struct prep_disk *d, struct prep_err *err);

	/* Free the disk. Does not write, but what was appended to the file and not flushed goes. */
	void (*close)(struct prep_disk *d);
};

/* Every kind embeds this as its first member. */
struct prep_disk {
	const struct prep_disk_ops *ops;
	char *name;           /* what messages call it; owned */
	uint64_t size;        /* bytes, a multiple of the sector size but for raw oddities */
	uint32_t sector_size; /* logical: 512, or 4096 in some VHDX */
	bool differencing;    /* where it holds nothing itself, its parent shows: */
	struct prep_disk *parent; /* owned; NULL where there is none, or it was not opened */
	struct prep_notes notes; /* what was odd when it was opened */
};

#define PREP_DISK_WRITE 1u /* open for writing, locked against every other user */
#define PREP_DISK_ALONE 2u /* a differencing disk without its parent: only what it holds itself can be read */
#define PREP_DISK_UNDO 4u  /* with PREP_DISK_WRITE: although an undo disk stands on it (undo_mark.h), or it is read-only */
#define PREP_DISK_NO_RECOVERY 8u /* a change of the file or of a parent that a crash cut off is refused, not completed */
#define PREP_DISK_TRY 16u /* open for reading, but refuse what PREP_DISK_WRITE refuses: a dry run */

/*
 * Open the image in `path`, or in `fd` (which is then the disk's, closed even
 * on failure), whatever its format. Completes a change that a crash cut off
 * (journal.h) where path has one.
 * PREP_EREFUSED: not an image these commands take, in use, or, for writing, the
 * base of an undo disk, or a file to which nobody has the right to write;
 * PREP_EDAMAGED.
 */
int prep_disk_open(const char *path, unsigned flags, struct prep_disk **ret, struct prep_err *err);
int prep_disk_open_fd(int fd, const char *name, unsigned flags, struct prep_disk **ret,
		      struct prep_err *err);

/*
 * The same where the parents of a differencing disk may be among `parents`
 * (parent.h; NULL is allowed). Parents are opened for reading, whatever flags
 * say; PREP_EREFUSED when one is not found, or the chain is a loop or too long.
 * `named`: fd's name is a path, in whose folder parents may lie. A file of
 * `parents` that is none of them is noted.
 */
int prep_disk_open_chain(const char *path, unsigned flags, const struct prep_parents *parents,
			 struct prep_disk **ret, struct prep_err *err);
int prep_disk_open_fd_chain(int fd, const char *name, bool named, unsigned flags,
			    const struct prep_parents *parents, struct prep_disk **ret,
			    struct prep_err *err);

/*
 * PREP_EREFUSED when the file `path` is not to be replaced by another: an undo disk stands on it, or it is in use
 * (prep_output_check_unused).
 */
int prep_disk_check_replaced(const char *path, struct prep_err *err);

/*
 * Whether opening the image `path` looks for files that the image names, anywhere: it is,
 * by its first and last sector, a differencing VHD, or a VHDX, which may be one.
 * False for what cannot be read.
 */
bool prep_disk_names_others(const char *path);

/* The id by which children know a VHD or VHDX, in the order in which it is written; false for other kinds. */
bool prep_disk_id(const struct prep_disk *d, uint8_t id[16]);

/* The calls below check the range against the disk's size: PREP_EDAMAGED outside. */

int prep_disk_read(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err);
int prep_disk_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
		    struct prep_err *err);

/*
 * Make the range read as zeros. Reads first: what is zero already is not
 * written, and nothing is ever allocated but in a differencing disk, over data of its parent. *changed: bytes that were not zero,
 * in whole 4 KiB pages but at the ends.
 */
int prep_disk_zero(struct prep_disk *d, uint64_t off, uint64_t len, uint64_t *changed,
		   struct prep_err *err);

/*
 * Make all writes durable. A new block of a VHD, or a sector that it now holds
 * itself, is seen by others only after it: without it a file reads there as before.
 */
int prep_disk_flush(struct prep_disk *d, struct prep_err *err);

/*
 * The extent at off, cut to end at `end`; neighbours of one kind are joined.
 * off < end <= size.
 */
int prep_disk_extent(struct prep_disk *d, uint64_t off, uint64_t end, struct prep_extent *ret,
		     struct prep_err *err);

bool prep_disk_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret);

/*
 * For kinds that may be differencing: what shows where the disk itself holds
 * nothing: its parent, zeros beyond the parent's end and where there is none.
 * `zeros` is what zeros count as in [off, off+len). Reading fails where a
 * parent is needed and was not opened.
 */
int prep_disk_read_below(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err);
int prep_disk_extent_below(struct prep_disk *d, uint64_t off, uint64_t len, enum prep_extent_kind zeros,
			   struct prep_extent *ret, struct prep_err *err);
bool prep_disk_backing_below(struct prep_disk *d, uint64_t off, uint64_t len, struct prep_backing *ret);

/* NULL is allowed. Closes the parents too. */
void prep_disk_close(struct prep_disk *d);

#endif
