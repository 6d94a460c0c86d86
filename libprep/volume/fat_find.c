/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Finding what a pattern names: down into the folders that its components
 * match, and below a match into all.
 */
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"
#include "libprep/volume/fs_list.h"
#include "libprep/volume/pattern.h"

/* The tag of a folder: the component that is to match in it, or that it is a match or below one. */
#define MATCHED UINT32_MAX

struct finder {
	struct prep_fat *f;
	struct prep_fat_tree tree;
	struct prep_pattern pattern;
	struct prep_fs_list *list;
	struct prep_fs_list_index index;
	bool recursive;
	uint64_t claims;   /* clusters of all that was added */
};

static uint16_t upcase(const void *f, uint16_t unit)
{
	return ((const struct prep_fat *)f)->upcase[unit];
}

static int damaged(struct finder *x, const char *path, const char *what, struct prep_err *err)
{
	return prep_fail(err, PREP_EDAMAGED, "%s: %.500s: %s", x->f->disk->name, path, what);
}

/* Bytes of all clusters of a file or folder. */
static int measure(struct finder *x, uint32_t first, bool contiguous, uint64_t size, const char *path,
		   uint64_t *ret, struct prep_err *err)
{
	struct prep_fat_chain c = prep_fat_chain_of(x->f, first, contiguous,
						    contiguous ? prep_fat_clusters_of(x->f, size) : UINT64_MAX);
	uint32_t from, count;
	int r;

	*ret = 0;
	if (first == 0)
		return 0;
	while ((r = prep_fat_chain_next(&c, &from, &count, err)) > 0) {
		x->claims += count;
		if (x->claims > x->f->clusters)
			return damaged(x, path, "its chain runs in a circle, or files share clusters", err);
		*ret += (uint64_t)count * x->f->cluster_size;
	}
	if (r < 0)
		return -1;
	return c.damage != NULL ? damaged(x, path, c.damage, err) : 0;
}

/* The folder at the top of the tree, as parent_id has it. */
static uint64_t parent_id(const struct finder *x)
{
	const struct prep_fat_level *const top = &x->tree.level[x->tree.n - 1];

	return top->first | (top->contiguous ? prep_fat_clusters_of(x->f, top->size) << 32 : 0);
}

static int add(struct finder *x, const struct prep_fs_entry *entry, const char *path, uint32_t first,
	       bool contiguous, uint64_t size, struct prep_err *err)
{
	struct prep_fs_entry e = *entry;
	size_t at = 0;

	if (prep_fs_list_reserve(x->list, &x->index, err) < 0)
		return -1;
	/* A file has one name here. */
	if (prep_fs_list_next(x->list, &x->index, e.id, &at) != NULL)
		return 0;
	if (measure(x, first, contiguous, size, path, &e.allocated, err) < 0)
		return -1;
	e.frees = true;
	if (prep_fs_list_path(&x->index, strlen(path) + 1, x->f->disk->name, err) < 0)
		return -1;
	e.path = strdup(path);
	if (e.path == NULL)
		return prep_fail_nomem(err);
	prep_fs_list_add(x->list, &x->index, &e);
	return 0;
}

static int add_entry(struct finder *x, struct prep_err *err)
{
	const struct prep_fat_entry *const e = &x->tree.entry;
	const struct prep_fs_entry entry = {
		.id = e->id, .parent_id = parent_id(x), .size = e->folder ? 0 : e->size, .folder = e->folder,
	};
	const char *path;

	if (prep_fat_tree_path(&x->tree, &path, err) < 0)
		return -1;
	return add(x, &entry, path, e->first, e->contiguous, e->size, err);
}

static int add_left(struct finder *x, struct prep_err *err)
{
	const struct prep_fat_level *const left = &x->tree.left;
	const struct prep_fs_entry entry = { .id = left->id, .parent_id = parent_id(x), .folder = true };

	return add(x, &entry, prep_fat_tree_left_path(&x->tree), left->first, left->contiguous, left->size, err);
}

static int enter(struct finder *x, uint32_t tag, struct prep_err *err)
{
	const int r = prep_fat_tree_enter(&x->tree, tag, err);
	const char *path;

	if (r != 0 || prep_fat_tree_path(&x->tree, &path, err) < 0)
		return r;
	return damaged(x, path, "nested more deeply than any path", err);
}

static bool matches(const struct finder *x, uint32_t component)
{
	const struct prep_fat_entry *const e = &x->tree.entry;

	return prep_pattern_matches(&x->pattern, component, e->name, e->units) ||
	       (e->alias_units > 0 && prep_pattern_matches(&x->pattern, component, e->alias, e->alias_units));
}

static int visit(struct finder *x, struct prep_err *err)
{
	const struct prep_fat_entry *const e = &x->tree.entry;
	const uint32_t component = x->tree.level[x->tree.n - 1].tag;
	const char *path;

	if (e->kind == PREP_FAT_DAMAGED) {
		if (prep_fat_tree_path(&x->tree, &path, err) < 0)
			return -1;
		return damaged(x, path, e->damage, err);
	}
	if (e->kind != PREP_FAT_FILE || (component != MATCHED && !matches(x, component)))
		return 0;
	if (component == MATCHED || component + 1 == x->pattern.components)
		return e->folder && x->recursive ? enter(x, MATCHED, err) : add_entry(x, err);
	return e->folder ? enter(x, component + 1, err) : 0;
}

static int search(struct finder *x, struct prep_err *err)
{
	int r = prep_fat_tree_open(&x->tree, x->f, false, err);

	while (r >= 0 && (r = prep_fat_tree_next(&x->tree, err)) > PREP_FAT_TREE_END) {
		if (r == PREP_FAT_TREE_ENTRY)
			r = visit(x, err);
		else if (x->tree.left.tag == MATCHED)
			r = add_left(x, err);
	}
	prep_fat_tree_close(&x->tree);
	return r < 0 ? -1 : 0;
}

int prep_fat_load_upcase(struct prep_fat *f, struct prep_err *err)
{
	if (f->upcase != NULL)
		return 0;
	f->upcase = malloc(65536 * sizeof *f->upcase);
	if (f->upcase == NULL)
		return prep_fail_nomem(err);
	if (f->format->load_upcase(f, err) == 0)
		return 0;
	free(f->upcase);
	f->upcase = NULL;
	return -1;
}

int prep_fat_find(struct prep_fs *fs, const char *pattern, bool recursive,
		  struct prep_fs_list *list, struct prep_err *err)
{
	struct finder x = { .f = (struct prep_fat *)fs, .list = list, .recursive = recursive };
	int r = -1;

	if (prep_fat_load_upcase(x.f, err) < 0)
		return -1;
	x.pattern.upcase = upcase;
	x.pattern.arg = x.f;
	if (prep_pattern_parse(&x.pattern, pattern, err) == 0)
		r = search(&x, err);
	prep_pattern_clear(&x.pattern);
	prep_fs_list_index_clear(&x.index);
	return r;
}
