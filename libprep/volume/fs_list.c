/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/volume/fs_list.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"

#define PATHS_MAX (256 * PREP_MIB)

int prep_fs_list_path(struct prep_fs_list_index *x, size_t len, const char *name, struct prep_err *err)
{
	x->path_bytes += len;
	if (x->path_bytes <= PATHS_MAX)
		return 0;
	return prep_fail(err, PREP_EREFUSED,
			 "%s: the paths of the files that this names are longer than %u MiB together: name fewer at a time", name,
			 (unsigned)(PATHS_MAX / PREP_MIB));
}

static size_t slot_of(const struct prep_fs_list_index *x, uint64_t id)
{
	return (size_t)((id * 0x9e3779b97f4a7c15ULL) >> 20) & (x->slots - 1);
}

static void index_entry(const struct prep_fs_list *list, struct prep_fs_list_index *x, size_t i)
{
	size_t s = slot_of(x, list->entry[i].id);

	while (x->slot[s] != 0)
		s = (s + 1) & (x->slots - 1);
	x->slot[s] = i + 1;
}

int prep_fs_list_reserve(struct prep_fs_list *list, struct prep_fs_list_index *x,
			 struct prep_err *err)
{
	if (list->n == list->room) {
		const size_t room = list->room > 0 ? 2 * list->room : 64;
		struct prep_fs_entry *grown = reallocarray(list->entry, room, sizeof *grown);

		if (grown == NULL)
			return prep_fail_nomem(err);
		list->entry = grown;
		list->room = room;
	}
	if (2 * (list->n + 1) > x->slots) {
		free(x->slot);
		x->slots = 256;
		while (x->slots < 4 * (list->n + 1))
			x->slots *= 2;
		x->slot = calloc(x->slots, sizeof *x->slot);
		if (x->slot == NULL)
			return prep_fail_nomem(err);
		for (size_t i = 0; i < list->n; i++)
			index_entry(list, x, i);
	}
	return 0;
}

void prep_fs_list_add(struct prep_fs_list *list, struct prep_fs_list_index *x,
		      const struct prep_fs_entry *e)
{
	list->entry[list->n] = *e;
	index_entry(list, x, list->n);
	list->n++;
}

const struct prep_fs_entry *prep_fs_list_next(const struct prep_fs_list *list,
					      const struct prep_fs_list_index *x, uint64_t id,
					      size_t *at)
{
	/* *at counts the slots that were looked at. */
	for (size_t s; x->slot[s = (slot_of(x, id) + *at) & (x->slots - 1)] != 0;) {
		const struct prep_fs_entry *e = &list->entry[x->slot[s] - 1];

		++*at;
		if (e->id == id)
			return e;
	}
	return NULL;
}

void prep_fs_list_index_clear(struct prep_fs_list_index *x)
{
	free(x->slot);
	*x = (struct prep_fs_list_index){ .slot = NULL };
}
