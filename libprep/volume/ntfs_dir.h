/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * NTFS directories: the index $I30, read whole, block after block as they
 * stand and not in the order of its tree; and the paths of records.
 */
#ifndef PREP_VOLUME_NTFS_DIR_H
#define PREP_VOLUME_NTFS_DIR_H

#include "libprep/base/err.h"
#include "libprep/volume/ntfs_mft.h"

/* Compare two names as $I30 is sorted: by $UpCase, then by the units themselves. */
int prep_ntfs_name_collate(const struct prep_ntfs *n, const struct prep_ntfs_name *a,
			   const struct prep_ntfs_name *b);

/* One unit in upper case, by the volume's $UpCase. */
uint16_t prep_ntfs_upcase(const struct prep_ntfs *n, uint16_t unit);

struct prep_ntfs_dir_reader {
	/* An entry that leads to `ref`; the name lasts during the call. -1 stops with *err set. */
	int (*entry)(void *arg, const struct prep_ntfs_name *name, uint64_t ref, struct prep_err *err);
	/*
	 * A part of the index is damaged, and reading goes on without it. Where
	 * this is NULL damage ends the reading: PREP_EDAMAGED.
	 */
	void (*damaged)(void *arg, const char *what);
	void *arg;
};

int prep_ntfs_dir_read(struct prep_ntfs *n, const struct prep_ntfs_file *dir,
		       const struct prep_ntfs_dir_reader *reader, struct prep_err *err);

/* ---- Paths ---- */

/* Directories by number, read when they are first asked for. */
struct prep_ntfs_tree {
	struct prep_ntfs_mft *m;
	uint32_t *at;      /* per record: 0 not read yet, 1 no directory, else where in the arena, in 8 bytes */
	uint8_t *arena;
	size_t used, room;
	char *path;        /* the last one built */
	uint64_t parent;   /* reference of the folder whose path stands in `path`, or 0 */
	char *folder;      /* there */
};

int prep_ntfs_tree_open(struct prep_ntfs_tree *t, struct prep_ntfs_mft *m, struct prep_err *err);
void prep_ntfs_tree_close(struct prep_ntfs_tree *t);

/*
 * The path of a name, valid until the next call. Where the chain of parents
 * breaks, or runs in a circle, it begins with "/[record N]".
 */
int prep_ntfs_tree_path(struct prep_ntfs_tree *t, const struct prep_ntfs_name *name,
			const char **ret, struct prep_err *err);

/* Whether the folder of this reference is $Extend or below it: 1 or 0. */
int prep_ntfs_tree_system(struct prep_ntfs_tree *t, uint64_t ref, struct prep_err *err);

/* The name that a file's path is made of: its first that is not a DOS name, else its first. False: none. */
bool prep_ntfs_file_name(const struct prep_ntfs_file *f, struct prep_ntfs_name *ret);

#endif
