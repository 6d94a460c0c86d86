/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * All folders, depth first, with a stack and no recursion. No cluster of a
 * folder is read twice, so that circles end; the depth is bounded.
 */
#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"

/* Paths of Windows have at most 32767 units. */
#define DEPTH_MAX 4096

int prep_fat_tree_open(struct prep_fat_tree *t, struct prep_fat *f, bool lenient, struct prep_err *err)
{
	*t = (struct prep_fat_tree){ .f = f, .n = 1, .room = 16, .path_room = 4096 };
	t->level = calloc(t->room, sizeof *t->level);
	t->seen = calloc(1, f->clusters / 8 + 1);
	t->path = malloc(t->path_room);
	if (t->level == NULL || t->seen == NULL || t->path == NULL)
		return prep_fail_nomem(err);
	t->level[0].dir = prep_fat_root(f);
	t->level[0].dir.seen = t->seen;
	t->level[0].dir.lenient = lenient;
	t->level[0].first = f->root_cluster;
	return 0;
}

void prep_fat_tree_close(struct prep_fat_tree *t)
{
	free(t->level);
	free(t->seen);
	free(t->path);
	*t = (struct prep_fat_tree){ .f = NULL };
}

int prep_fat_tree_next(struct prep_fat_tree *t, struct prep_err *err)
{
	int r;

	if (t->n == 0)
		return PREP_FAT_TREE_END;
	r = t->f->format->next_entry(&t->level[t->n - 1].dir, &t->entry, err);
	if (r < 0)
		return -1;
	if (r > 0)
		return PREP_FAT_TREE_ENTRY;
	t->left = t->level[--t->n];
	return PREP_FAT_TREE_LEFT;
}

/* Put "/NAME" of the entry behind the topmost folder's path: its length. */
static int64_t put_name(struct prep_fat_tree *t, struct prep_err *err)
{
	const size_t at = t->level[t->n - 1].path_len;

	if (at + 1 + PREP_FAT_NAME_ROOM > t->path_room) {
		char *grown = realloc(t->path, 2 * t->path_room);

		if (grown == NULL)
			return prep_fail_nomem(err);
		t->path = grown;
		t->path_room *= 2;
	}
	t->path[at] = '/';
	return (int64_t)(at + 1 + prep_fat_name_utf8(&t->entry, t->path + at + 1));
}

int prep_fat_tree_enter(struct prep_fat_tree *t, unsigned tag, struct prep_err *err)
{
	const struct prep_fat_entry *const e = &t->entry;
	struct prep_fat_level *top;
	int64_t len;

	if (t->n > DEPTH_MAX)
		return 0;
	len = put_name(t, err);
	if (len < 0)
		return -1;
	if (t->n == t->room) {
		struct prep_fat_level *grown = reallocarray(t->level, 2 * t->room, sizeof *grown);

		if (grown == NULL)
			return prep_fail_nomem(err);
		t->level = grown;
		t->room *= 2;
	}
	top = &t->level[t->n];
	*top = (struct prep_fat_level){
		.dir = prep_fat_dir_of(t->f, e->first, e->contiguous, e->size),
		.id = e->id,
		.first = e->first,
		.contiguous = e->contiguous,
		.size = e->size,
		.path_len = (size_t)len,
		.tag = tag,
	};
	top->dir.seen = t->seen;
	top->dir.lenient = t->level[0].dir.lenient;
	t->n++;
	return 1;
}

int prep_fat_tree_path(struct prep_fat_tree *t, const char **ret, struct prep_err *err)
{
	if (put_name(t, err) < 0)
		return -1;
	*ret = t->path;
	return 0;
}

const char *prep_fat_tree_left_path(struct prep_fat_tree *t)
{
	t->path[t->left.path_len] = '\0';
	return t->path;
}
