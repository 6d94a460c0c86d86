/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/base/utf16.h"
#include "libprep/volume/ntfs_dir.h"
#include "libprep/volume/ntfs_internal.h"

struct walker {
	struct prep_ntfs *n;
	struct prep_ntfs_mft mft;
	struct prep_ntfs_tree tree;
	unsigned flags;
	int (*fn)(void *arg, const struct prep_fs_stream *s, struct prep_err *err);
	void *arg;

	/* Of the file at hand */
	const struct prep_ntfs_file *file;
	bool known;         /* the next two are found out */
	const char *path;
	bool system;

	struct prep_fs_run *run;
	size_t room;
};

/* The path, and whether it is below $Extend: only found out for files with streams to be shown. */
static int look_up(struct walker *w, struct prep_err *err)
{
	struct prep_ntfs_name name;
	int r = 0;

	if (w->known)
		return 0;
	w->known = true;
	w->path = NULL;
	w->system = w->file->record[0].number < PREP_NTFS_FIRST_USER;
	if (!prep_ntfs_file_name(w->file, &name)) {
		/* Reserved records have none. */
		name = (struct prep_ntfs_name){ .parent = w->file->record[0].number };
	} else if (!w->system) {
		r = prep_ntfs_tree_system(&w->tree, name.parent, err);
		w->system = r > 0;
	}
	if (r < 0)
		return -1;
	return w->flags & PREP_FS_WALK_PATHS ? prep_ntfs_tree_path(&w->tree, &name, &w->path, err) : 0;
}

static int fill_runs(struct walker *w, const struct prep_ntfs_runs *runs, struct prep_err *err)
{
	const unsigned bits = w->n->cluster_bits;

	if (runs->n > w->room) {
		struct prep_fs_run *grown = realloc(w->run, runs->n * sizeof *grown);

		if (grown == NULL)
			return prep_fail_nomem(err);
		w->run = grown;
		w->room = runs->n;
	}
	for (size_t i = 0; i < runs->n; i++)
		w->run[i] = (struct prep_fs_run){
			.at = runs->run[i].vcn << bits,
			.off = runs->run[i].lcn == PREP_NTFS_HOLE ? PREP_FS_HOLE : runs->run[i].lcn << bits,
			.len = runs->run[i].len << bits,
		};
	return 0;
}

/* Whether the name found again from its UTF-8 is this one, not another that looks the same. */
static bool survives(const char *utf8, const struct prep_ntfs_attr *a)
{
	uint16_t unit[255];
	const int64_t n = prep_utf8_to_utf16(utf8, strlen(utf8), unit, 255);

	for (int64_t i = 0; i < n && i < a->name_len; i++)
		if (unit[i] != get_le16(a->name + 2 * i))
			return false;
	return n == a->name_len;
}

static int show(void *arg, const struct prep_ntfs_attr *a, const struct prep_ntfs_runs *runs,
		struct prep_err *err)
{
	struct walker *w = arg;
	char name[PREP_UTF8_ROOM(255)];
	struct prep_fs_stream s;

	if ((w->flags & PREP_FS_WALK_DATA) && a->type != PREP_NTFS_ATTR_DATA)
		return 0;
	if (!prep_ntfs_runs_inside(w->n, runs))
		return prep_fail(err, PREP_EDAMAGED, "%s: record %llu: a stream has clusters outside the volume",
				 w->n->disk->name, (unsigned long long)w->file->record[0].number);
	if (look_up(w, err) < 0 || fill_runs(w, runs, err) < 0)
		return -1;
	prep_utf16_to_utf8(a->name, a->name_len, name, sizeof name);
	s = (struct prep_fs_stream){
		.id = w->file->record[0].number,
		.path = w->path,
		.name = name,
		.size = a->size,
		.initialized = a->initialized,
		.allocated = runs->end << w->n->cluster_bits,
		.data = a->type == PREP_NTFS_ATTR_DATA,
		.type = a->type,
		.system = w->system,
		.fixed = w->system || a->type == PREP_NTFS_ATTR_LIST || !survives(name, a),
		.compressed = (a->flags & PREP_NTFS_COMPRESSED) != 0,
		.encrypted = (a->flags & PREP_NTFS_ENCRYPTED) != 0,
		.sparse = (a->flags & PREP_NTFS_SPARSE) != 0,
		.run = w->run,
		.runs = runs->n,
	};
	return w->fn(w->arg, &s, err);
}

static int walk_record(struct walker *w, uint64_t number, uint8_t *p, struct prep_err *err)
{
	struct prep_ntfs_record r;
	struct prep_ntfs_file f;
	enum prep_ntfs_state state;
	bool in_use;
	int ret;

	state = prep_ntfs_record_check(p, w->n->record_size, number, &r, &in_use);
	if (state == PREP_NTFS_TORN && in_use)
		return prep_fail(err, PREP_EDAMAGED, "%s: record %llu: it is torn or damaged", w->n->disk->name,
				 (unsigned long long)number);
	if (state != PREP_NTFS_USED || r.base != 0)
		return 0;
	if (prep_ntfs_file_join(&w->mft, &r, &f, err) < 0)
		return -1;
	w->file = &f;
	w->known = false;
	ret = prep_ntfs_file_streams(w->n, &f, show, w, err);
	prep_ntfs_file_clear(&f);
	return ret;
}

int prep_ntfs_walk(struct prep_fs *fs, unsigned flags,
		   int (*fn)(void *arg, const struct prep_fs_stream *s, struct prep_err *err),
		   void *arg, struct prep_err *err)
{
	struct walker w = { .n = (struct prep_ntfs *)fs, .flags = flags, .fn = fn, .arg = arg };
	uint8_t *p;
	int r;

	if (prep_ntfs_mft_open(&w.mft, w.n, err) < 0)
		return -1;
	r = prep_ntfs_tree_open(&w.tree, &w.mft, err);
	for (uint64_t i = 0; r == 0; i++) {
		r = prep_ntfs_mft_skip_holes(&w.mft, i, &i, err);
		if (r < 0 || i == w.mft.records)
			break;
		r = prep_ntfs_mft_next(&w.mft, i, &p, err);
		if (r == 0)
			r = walk_record(&w, i, p, err);
	}
	prep_ntfs_tree_close(&w.tree);
	prep_ntfs_mft_close(&w.mft);
	free(w.run);
	return r;
}
