/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Removing one name: its chain is freed in every copy of the FAT (exFAT: in
 * the bitmap), and exactly the slots that make it up are marked unused.
 */
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"

static int gone(struct prep_fat *f, const struct prep_fs_entry *entry, struct prep_err *err)
{
	return prep_fail(err, PREP_EFAIL, "%s: %.500s: not there any more", f->disk->name, entry->path);
}

static struct prep_fat_dir parent_of(struct prep_fat *f, uint64_t parent_id)
{
	const uint32_t first = (uint32_t)parent_id, clusters = (uint32_t)(parent_id >> 32);
	struct prep_fat_dir d;

	if (first == f->root_cluster)
		return prep_fat_root(f);
	d = prep_fat_dir_of(f, first, clusters > 0, clusters > 0 ? (uint64_t)clusters * f->cluster_size : UINT64_MAX);
	d.exact = clusters > 0;
	return d;
}

/* The entry of this id in its folder: removals mostly go on where the last one stood. */
static int locate(struct prep_fat *f, const struct prep_fs_entry *entry, struct prep_fat_entry *ret,
		  struct prep_err *err)
{
	int r;

	if (f->last == NULL) {
		f->last = malloc(sizeof *f->last);
		if (f->last == NULL)
			return prep_fail_nomem(err);
		f->last_parent = ~entry->parent_id;
	}
	for (bool anew = f->last_parent != entry->parent_id;; anew = true) {
		if (anew) {
			*f->last = parent_of(f, entry->parent_id);
			f->last_parent = entry->parent_id;
		}
		while ((r = f->format->next_entry(f->last, ret, err)) > 0)
			if (ret->id == entry->id)
				return 1;
		if (r < 0 || anew)
			return r;
	}
}

/* Whether it is still what was found. */
static bool is_same(const struct prep_fat_entry *e, const struct prep_fs_entry *entry)
{
	const char *const slash = strrchr(entry->path, '/');
	char name[PREP_FAT_NAME_ROOM];

	prep_fat_name_utf8(e, name);
	return e->kind == PREP_FAT_FILE && e->folder == entry->folder && slash != NULL &&
	       strcmp(slash + 1, name) == 0;
}

static int check_empty(struct prep_fat *f, const struct prep_fat_entry *e, const struct prep_fs_entry *entry,
		       struct prep_err *err)
{
	struct prep_fat_dir d = prep_fat_dir_of(f, e->first, e->contiguous, e->size);
	struct prep_fat_entry *inner = malloc(sizeof *inner);
	int r;

	if (inner == NULL)
		return prep_fail_nomem(err);
	while ((r = f->format->next_entry(&d, inner, err)) > 0)
		if (inner->kind == PREP_FAT_FILE || inner->kind == PREP_FAT_DAMAGED) {
			r = prep_fail(err, PREP_EREFUSED, "%s: %.500s: the folder is not empty", f->disk->name,
				      entry->path);
			break;
		}
	free(inner);
	return r;
}

static int free_chain(struct prep_fat *f, const struct prep_fat_entry *e, const struct prep_fs_entry *entry,
		      struct prep_err *err)
{
	struct prep_fat_chain c = prep_fat_chain_of(f, e->first, e->contiguous,
						    e->contiguous ? prep_fat_clusters_of(f, e->size) : f->clusters);
	uint32_t first, count;
	int r;

	if (e->first == 0)
		return 0;
	while ((r = prep_fat_chain_next(&c, &first, &count, err)) > 0)
		if (f->format->free_clusters(f, first, count, err) < 0)
			return -1;
	if (r == 0 && c.damage != NULL)
		return prep_fail(err, PREP_EDAMAGED, "%s: %.500s: %s", f->disk->name, entry->path, c.damage);
	return r;
}

static int mark_slots(struct prep_fat *f, const struct prep_fat_entry *e, struct prep_err *err)
{
	uint8_t mark;

	f->block_len = 0;
	for (unsigned i = 0; i < e->slots; i++) {
		if (prep_disk_read(f->disk, &mark, 1, e->slot[i], err) < 0)
			return -1;
		mark = f->format->freed_mark(mark);
		if (prep_disk_write(f->disk, &mark, 1, e->slot[i], err) < 0)
			return -1;
	}
	return 0;
}

static int remove_entry(struct prep_fat *f, const struct prep_fs_entry *entry, struct prep_fat_entry *e,
			struct prep_err *err)
{
	const int r = locate(f, entry, e, err);

	if (r <= 0 || !is_same(e, entry))
		return r < 0 ? -1 : gone(f, entry, err);
	if (e->foreign)
		return prep_fail(err, PREP_EREFUSED, "%s: %.500s: has clusters of a kind that is not known here",
				 f->disk->name, entry->path);
	if (e->folder && check_empty(f, e, entry, err) < 0)
		return -1;
	f->changed = true;
	return free_chain(f, e, entry, err) < 0 || mark_slots(f, e, err) < 0 ? -1 : 0;
}

int prep_fat_remove(struct prep_fs *fs, const struct prep_fs_entry *entry, struct prep_err *err)
{
	struct prep_fat *f = (struct prep_fat *)fs;
	struct prep_fat_entry *e;
	int r;

	if (!f->write)
		return prep_fail(err, PREP_EREFUSED, "%s: opened for reading only", f->disk->name);
	e = malloc(sizeof *e);
	if (e == NULL)
		return prep_fail_nomem(err);
	r = remove_entry(f, entry, e, err);
	free(e);
	return r;
}
