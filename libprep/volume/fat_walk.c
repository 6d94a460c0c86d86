/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"

struct walker {
	struct prep_fat *f;
	struct prep_fat_tree tree;
	unsigned flags;
	int (*fn)(void *arg, const struct prep_fs_stream *s, struct prep_err *err);
	void *arg;

	uint8_t *claimed;      /* a bit a cluster */
	struct prep_fs_run *run;
	size_t runs, room;
};

static int damaged(struct walker *w, const char *what, struct prep_err *err)
{
	const char *path;

	if (prep_fat_tree_path(&w->tree, &path, err) < 0)
		return -1;
	return prep_fail(err, PREP_EDAMAGED, "%s: %.500s: %s", w->f->disk->name, path, what);
}

/* Whether the clusters were nobody's so far; now they are claimed. */
static bool claim(struct walker *w, uint32_t first, uint32_t count)
{
	const uint64_t from = first - 2, end = from + count;

	if (prep_bit_next(w->claimed, from, end, true) < end)
		return false;
	prep_bit_fill(w->claimed, from, count, true);
	return true;
}

static int add_run(struct walker *w, uint64_t at, uint32_t first, uint32_t count, struct prep_err *err)
{
	if (w->runs == w->room) {
		const size_t room = w->room > 0 ? 2 * w->room : 64;
		struct prep_fs_run *grown = reallocarray(w->run, room, sizeof *grown);

		if (grown == NULL)
			return prep_fail_nomem(err);
		w->run = grown;
		w->room = room;
	}
	w->run[w->runs++] = (struct prep_fs_run){
		.at = at,
		.off = prep_fat_offset(w->f, first),
		.len = (uint64_t)count * w->f->cluster_size,
	};
	return 0;
}

/* The clusters that the file's size needs; what a chain may have beyond is not shown. */
static int read_runs(struct walker *w, const struct prep_fat_entry *e, struct prep_err *err)
{
	const uint64_t need = prep_fat_clusters_of(w->f, e->size);
	struct prep_fat_chain c = prep_fat_chain_of(w->f, e->first, e->contiguous, need);
	uint32_t first, count;
	uint64_t got = 0;
	int r;

	w->runs = 0;
	while ((r = prep_fat_chain_next(&c, &first, &count, err)) > 0) {
		if (!claim(w, first, count))
			return damaged(w, "its chain runs in a circle, or into another file", err);
		if (add_run(w, got * w->f->cluster_size, first, count, err) < 0)
			return -1;
		got += count;
	}
	if (r < 0)
		return -1;
	if (got < need)
		return damaged(w, c.damage != NULL ? c.damage : "it has fewer clusters than its size needs", err);
	return 0;
}

static int show(struct walker *w, const struct prep_fat_entry *e, struct prep_err *err)
{
	struct prep_fs_stream s;

	if (e->size == 0)
		return 0;
	if (read_runs(w, e, err) < 0)
		return -1;
	s = (struct prep_fs_stream){
		.id = e->id,
		.name = "",
		.size = e->size,
		.initialized = e->initialized,
		.allocated = prep_fat_clusters_of(w->f, e->size) * w->f->cluster_size,
		.data = true,
		.run = w->run,
		.runs = w->runs,
	};
	if ((w->flags & PREP_FS_WALK_PATHS) && prep_fat_tree_path(&w->tree, &s.path, err) < 0)
		return -1;
	return w->fn(w->arg, &s, err);
}

static int visit(struct walker *w, struct prep_err *err)
{
	const struct prep_fat_entry *const e = &w->tree.entry;
	int r;

	if (e->kind == PREP_FAT_DAMAGED)
		return damaged(w, e->damage, err);
	if (e->kind != PREP_FAT_FILE)
		return 0;
	if (!e->folder)
		return show(w, e, err);
	r = prep_fat_tree_enter(&w->tree, 0, err);
	return r == 0 ? damaged(w, "nested more deeply than any path", err) : r;
}

int prep_fat_walk(struct prep_fs *fs, unsigned flags,
		  int (*fn)(void *arg, const struct prep_fs_stream *s, struct prep_err *err),
		  void *arg, struct prep_err *err)
{
	struct walker w = { .f = (struct prep_fat *)fs, .flags = flags, .fn = fn, .arg = arg };
	int r = prep_fat_tree_open(&w.tree, w.f, false, err);

	w.claimed = calloc(1, w.f->clusters / 8 + 8);
	if (w.claimed == NULL)
		r = prep_fail_nomem(err);
	while (r >= 0 && (r = prep_fat_tree_next(&w.tree, err)) > PREP_FAT_TREE_END)
		if (r == PREP_FAT_TREE_ENTRY)
			r = visit(&w, err);
	prep_fat_tree_close(&w.tree);
	free(w.claimed);
	free(w.run);
	return r < 0 ? -1 : 0;
}
