/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The mark of a disk on which an undo disk stands: the file BASE.prep-undo.
 *
 * While it is there, the base is not opened for writing and not replaced. It
 * also tells how the base was when the undo disk was made.
 */
#ifndef PREP_DISK_UNDO_MARK_H
#define PREP_DISK_UNDO_MARK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "libprep/base/err.h"

#define PREP_UNDO_MARK_SUFFIX ".prep-undo"

struct prep_undo_mark {
	uint8_t id[16];      /* of the undo disk */
	char *path;          /* of the undo disk, absolute, when it was made; owned */
	unsigned mode;       /* permission bits that the base had */
	uint64_t size;       /* of the base's file, bytes */
	int64_t sec;         /* when the base was last modified: since 1970, and */
	uint32_t nsec;       /* nanoseconds */
	bool committing;     /* a commit has begun: the base holds none, part or all of it */
	bool done;           /* and all of it is there: the undo disk goes now, and then the mark */
};

/* The base's mark: 1, 0 when it has none. PREP_EDAMAGED when the mark cannot be understood. */
int prep_undo_mark_read(const char *base, struct prep_undo_mark *ret, struct prep_err *err);

/* Write or replace it, or remove it, durably. */
int prep_undo_mark_write(const char *base, const struct prep_undo_mark *mark, struct prep_err *err);
int prep_undo_mark_remove(const char *base, struct prep_err *err);

void prep_undo_mark_clear(struct prep_undo_mark *mark);

/* Put into mark what st, of the base, says; and whether that is still so. */
void prep_undo_mark_take(struct prep_undo_mark *mark, const struct stat *st);
bool prep_undo_mark_unchanged(const struct prep_undo_mark *mark, const struct stat *st);

/* PREP_EREFUSED, naming the undo disk, when one stands on `base`, which may not exist. */
int prep_undo_mark_check(const char *base, struct prep_err *err);

#endif
