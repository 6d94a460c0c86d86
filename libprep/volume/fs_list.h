/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Filling a prep_fs_list: the index that tells which of its entries are names
 * of one file.
 */
#ifndef PREP_VOLUME_FS_LIST_H
#define PREP_VOLUME_FS_LIST_H

#include "libprep/volume/fs.h"

struct prep_fs_list_index {
	size_t *slot;  /* the list's entries by id, open addressing: index + 1 */
	size_t slots;
	uint64_t path_bytes; /* of all paths that were counted */
};

/*
 * Count a path that a search is to hold, of len bytes. PREP_EREFUSED when all of them become too long:
 * a small image can have a path of 64 KiB for each of its files.
 */
int prep_fs_list_path(struct prep_fs_list_index *x, size_t len, const char *name, struct prep_err *err);

/* Make room for one more entry, and index what the list holds. All zero is an empty index. */
int prep_fs_list_reserve(struct prep_fs_list *list, struct prep_fs_list_index *x,
			 struct prep_err *err);

/* Append *e, whose path becomes the list's. Only after prep_fs_list_reserve. */
void prep_fs_list_add(struct prep_fs_list *list, struct prep_fs_list_index *x,
		      const struct prep_fs_entry *e);

/* The next entry of this id, or NULL. *at is 0 before the first call. Only after prep_fs_list_reserve. */
const struct prep_fs_entry *prep_fs_list_next(const struct prep_fs_list *list,
					      const struct prep_fs_list_index *x, uint64_t id,
					      size_t *at);

void prep_fs_list_index_clear(struct prep_fs_list_index *x);

#endif
