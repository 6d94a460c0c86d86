/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The file of a redo journal (journal.h): written from an overlay's changes,
 * read back and checked. Its format stands in journal_file.c: it never leaves
 * the machine, and is read by the version that wrote it.
 */
#ifndef PREP_DISK_JOURNAL_FILE_H
#define PREP_DISK_JOURNAL_FILE_H

#include <sys/stat.h>

#include "libprep/disk/disk.h"

#define PREP_JOURNAL_SECTOR 512u
#define PREP_JOURNAL_DATA_MAX (64u * 1024) /* pages in a row are one record */
#define PREP_JOURNAL_SECTORS (PREP_JOURNAL_DATA_MAX / PREP_JOURNAL_SECTOR)

enum prep_journal_kind {
	PREP_JOURNAL_DATA = 0,
	PREP_JOURNAL_FILL = 1,
	PREP_JOURNAL_END = 2,
	PREP_JOURNAL_FILL_EXACT = 3, /* one whose range was something before: checked as data is */
	PREP_JOURNAL_HELD = 4,       /* what the disk holds already, and the journal relies on */
	PREP_JOURNAL_HELD_ZERO = 5,
};

struct prep_journal_record {
	uint64_t off, len;                    /* of the disk; a fill may be of any length */
	uint32_t kind;
	uint8_t byte;                         /* of a fill */
	uint32_t crc;                         /* of what is held: CRC-32; nothing is done for these kinds */
	uint32_t was[PREP_JOURNAL_SECTORS];   /* of data and exact fills: CRC-32 of the sectors before the change, */
	uint8_t data[PREP_JOURNAL_DATA_MAX];  /* and the new bytes */
};

/*
 * Write all changes of `overlay` to a new file `path` with owner and permissions of `image`, whose `st` is given; it
 * appears complete and synced. Fails as prep_output_open and prep_output_commit do, and when there is no room for it
 * and for the changes themselves.
 */
int prep_journal_file_write(struct prep_disk *overlay, const char *path, const char *image, const struct stat *st,
			    struct prep_err *err);

struct prep_journal_file;

/*
 * Open a journal, check all of it, and that it is for disk d as this is now. `fresh`: what it relies on has just been
 * written, and is not read again. PREP_EDAMAGED when it is none, or damaged; PREP_EREFUSED when it is for another
 * image, or another version of it. `path` must outlive it.
 */
int prep_journal_file_open(const char *path, struct prep_disk *d, bool fresh, struct prep_journal_file **ret,
			   struct prep_err *err);

/* The next record, inside the disk; after the last one of kind PREP_JOURNAL_END. */
int prep_journal_file_next(struct prep_journal_file *f, struct prep_journal_record *ret, struct prep_err *err);

void prep_journal_file_close(struct prep_journal_file *f); /* NULL is allowed */

#endif
