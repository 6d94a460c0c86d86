/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Finding what a pattern names. One component at a time, a set of folders
 * leads to the next; below a match a stack of listings, never recursion. A
 * folder is opened once for each, so that a circle of folders ends.
 */
#include <stdio.h>
#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fs_list.h"
#include "libprep/volume/ntfs_dir.h"
#include "libprep/volume/ntfs_internal.h"
#include "libprep/volume/pattern.h"

/* A name in a folder. */
struct item {
	uint64_t ref;
	size_t text; /* in the listing's text, UTF-16LE */
	uint8_t len, space;
};

struct listing {
	struct prep_ntfs *n;
	struct item *item;
	size_t n_items, room;
	uint8_t *text;
	size_t used, text_room;
};

struct folder {
	uint64_t ref;
	char *path;         /* "" of the root */
	bool system;
	struct listing list;/* where it is open, and how far it is read: */
	size_t next;
};

struct folders {
	struct folder *folder;
	size_t n, room;
};

struct finder {
	struct prep_ntfs *n;
	struct prep_ntfs_mft mft;
	struct prep_fs_list *list;
	bool recursive;

	struct prep_pattern pattern;

	uint8_t *opened;    /* a bit a record: folders opened below a match */
	uint8_t *taken;     /* the same for the set of folders at hand */

	struct prep_fs_list_index index;
};

/* ---- The pattern ---- */

static uint16_t upcase(const void *n, uint16_t unit)
{
	return prep_ntfs_upcase(n, unit);
}

static bool matches(const struct finder *f, size_t component, const struct listing *l,
		    const struct item *item)
{
	return prep_pattern_matches(&f->pattern, component, l->text + item->text, item->len);
}

/* ---- Listings ---- */

static int keep_item(void *arg, const struct prep_ntfs_name *name, uint64_t ref, struct prep_err *err)
{
	struct listing *l = arg;
	void *grown;

	/* The root is an entry of itself, ".". */
	if (PREP_NTFS_NUMBER(ref) == PREP_NTFS_ROOT)
		return 0;
	if (l->n_items == l->room) {
		l->room = l->room > 0 ? 2 * l->room : 32;
		grown = realloc(l->item, l->room * sizeof *l->item);
		if (grown == NULL)
			return prep_fail_nomem(err);
		l->item = grown;
	}
	if (l->used + 510 > l->text_room) {
		l->text_room = l->text_room > 0 ? 2 * l->text_room : 2048;
		grown = realloc(l->text, l->text_room);
		if (grown == NULL)
			return prep_fail_nomem(err);
		l->text = grown;
	}
	memcpy(l->text + l->used, name->text, 2 * (size_t)name->len);
	l->item[l->n_items++] = (struct item){ ref, l->used, name->len, name->space };
	l->used += 2 * (size_t)name->len;
	return 0;
}

static struct prep_ntfs_name name_of(const struct listing *l, const struct item *item)
{
	return (struct prep_ntfs_name){ .len = item->len, .text = l->text + item->text };
}

static int by_name(const void *a, const void *b, void *arg)
{
	const struct listing *l = arg;
	const struct prep_ntfs_name x = name_of(l, a), y = name_of(l, b);

	return prep_ntfs_name_collate(l->n, &x, &y);
}

static void close_listing(struct listing *l)
{
	free(l->item);
	free(l->text);
	*l = (struct listing){ .n_items = 0 };
}

static int open_listing(struct finder *f, uint64_t ref, struct listing *l, struct prep_err *err)
{
	const struct prep_ntfs_dir_reader reader = { keep_item, NULL, l };
	struct prep_ntfs_file dir;
	int r;

	*l = (struct listing){ .n = f->n };
	if (prep_ntfs_file_load(&f->mft, ref, &dir, err) < 0)
		return -1;
	r = prep_ntfs_dir_read(f->n, &dir, &reader, err);
	prep_ntfs_file_clear(&dir);
	if (r < 0) {
		close_listing(l);
		return -1;
	}
	if (l->n_items > 1)
		qsort_r(l->item, l->n_items, sizeof *l->item, by_name, l);
	return 0;
}

/* ---- Sets and stacks of folders ---- */

static char *join_path(struct finder *f, const char *folder, const struct listing *l, const struct item *item,
		       struct prep_err *err)
{
	const struct prep_ntfs_name name = name_of(l, item);
	char text[PREP_NTFS_NAME_ROOM], *path;

	prep_ntfs_name_utf8(&name, text);
	if (prep_fs_list_path(&f->index, strlen(folder) + strlen(text) + 2, f->n->disk->name, err) < 0)
		return NULL;
	if (asprintf(&path, "%s/%s", folder, text) < 0) {
		prep_fail_nomem(err);
		return NULL;
	}
	return path;
}

/* The path becomes the set's. */
static int push(struct folders *s, uint64_t ref, char *path, bool system, struct prep_err *err)
{
	if (s->n == s->room) {
		const size_t room = s->room > 0 ? 2 * s->room : 16;
		struct folder *grown = realloc(s->folder, room * sizeof *grown);

		if (grown == NULL) {
			free(path);
			return prep_fail_nomem(err);
		}
		s->folder = grown;
		s->room = room;
	}
	s->folder[s->n++] = (struct folder){
		.ref = ref,
		.path = path,
		.system = system || PREP_NTFS_NUMBER(ref) == PREP_NTFS_EXTEND,
	};
	return 0;
}

static void pop(struct folders *s)
{
	struct folder *top = &s->folder[--s->n];

	free(top->path);
	close_listing(&top->list);
}

static void clear_folders(struct folders *s)
{
	while (s->n > 0)
		pop(s);
	free(s->folder);
	*s = (struct folders){ .n = 0 };
}

static bool test_and_set(uint8_t *bits, uint64_t i)
{
	const bool set = prep_bit_get(bits, i);

	prep_bit_set(bits, i);
	return set;
}

/* ---- The list ---- */

/* How many entries of the list are names of this file; *same: one of them is this name. */
static unsigned names_listed(const struct finder *f, const struct prep_fs_entry *e, bool *same)
{
	const struct prep_fs_entry *other;
	unsigned n = 0;
	size_t at = 0;

	*same = false;
	while ((other = prep_fs_list_next(f->list, &f->index, e->id, &at)) != NULL) {
		n++;
		*same |= other->parent_id == e->parent_id && strcmp(other->path, e->path) == 0;
	}
	return n;
}

static int sum_clusters(void *arg, const struct prep_ntfs_attr *a, const struct prep_ntfs_runs *runs,
			struct prep_err *err)
{
	uint64_t *clusters = arg;

	(void)a;
	(void)err;
	for (size_t i = 0; i < runs->n; i++)
		if (runs->run[i].lcn != PREP_NTFS_HOLE)
			*clusters += runs->run[i].len;
	return 0;
}

/* What the records tell of an entry's file. */
static int describe(struct finder *f, const struct prep_ntfs_file *file, struct prep_fs_entry *e,
		    unsigned *names, struct prep_err *err)
{
	struct prep_ntfs_cursor c = { 0, 0 };
	struct prep_ntfs_name name;
	struct prep_ntfs_attr a;
	uint64_t clusters = 0;

	*names = 0;
	while (prep_ntfs_file_next(file, &c, &a) > 0) {
		if (a.type == PREP_NTFS_ATTR_NAME && a.resident &&
		    prep_ntfs_name_decode(a.value, a.value_len, &name))
			*names += name.space != PREP_NTFS_DOS;
		if (a.type == PREP_NTFS_ATTR_DATA && a.name_len == 0 && (a.resident || a.lowest_vcn == 0))
			e->size = a.resident ? a.value_len : a.size;
	}
	if (prep_ntfs_file_streams(f->n, file, sum_clusters, &clusters, err) < 0)
		return -1;
	e->allocated = clusters << f->n->cluster_bits;
	return 0;
}

/* The path becomes the list's. */
static int add_entry(struct finder *f, const struct folder *in, const struct prep_ntfs_file *file,
		     char *path, struct prep_err *err)
{
	const struct prep_ntfs_record *base = &file->record[0];
	struct prep_fs_entry e = {
		.path = path,
		.id = PREP_NTFS_REF(base->number, base->sequence),
		.parent_id = in->ref,
		.folder = base->folder,
		.system = in->system || base->number < PREP_NTFS_FIRST_USER,
	};
	unsigned listed, names;
	bool same;

	if (prep_fs_list_reserve(f->list, &f->index, err) < 0)
		goto drop;
	listed = names_listed(f, &e, &same);
	if (same) {
		free(path);
		return 0;
	}
	if (describe(f, file, &e, &names, err) < 0)
		goto drop;
	e.frees = listed + 1 >= names;
	if (!e.frees)
		e.allocated = 0;
	prep_fs_list_add(f->list, &f->index, &e);
	return 0;
drop:
	free(path);
	return -1;
}

/* ---- Walking ---- */

/* The file an entry leads to: 1, or 0 when the entry is stale (damage that the audit tells of). */
static int load_item(struct finder *f, const struct item *item, struct prep_ntfs_file *ret,
		     struct prep_err *err)
{
	struct prep_err damage = PREP_ERR_INIT;

	if (prep_ntfs_file_load(&f->mft, item->ref, ret, &damage) == 0)
		return 1;
	return damage.code == PREP_EDAMAGED ? 0 : prep_fail(err, damage.code, "%s", damage.msg);
}

/* Everything below the folder on top of the stack, children first, then the folder itself. */
static int descend(struct finder *f, struct folders *stack, struct prep_err *err)
{
	struct prep_ntfs_file file;
	int r;

	/* stack->folder[0] is where the first match stands: it is not added. */
	while (stack->n > 1) {
		struct folder *top = &stack->folder[stack->n - 1];
		const struct item *item;
		char *path;

		if (top->next == top->list.n_items) {
			if (prep_ntfs_file_load(&f->mft, top->ref, &file, err) < 0)
				return -1;
			path = top->path;
			top->path = NULL;
			r = add_entry(f, &stack->folder[stack->n - 2], &file, path, err);
			prep_ntfs_file_clear(&file);
			pop(stack);
			if (r < 0)
				return -1;
			continue;
		}
		item = &top->list.item[top->next++];
		if (item->space == PREP_NTFS_DOS)
			continue;
		r = load_item(f, item, &file, err);
		if (r <= 0) {
			if (r < 0)
				return -1;
			continue;
		}
		path = join_path(f, top->path, &top->list, item, err);
		if (path == NULL)
			r = -1;
		else if (!file.record[0].folder)
			r = add_entry(f, top, &file, path, err);
		else if (test_and_set(f->opened, PREP_NTFS_NUMBER(item->ref)))
			free(path);
		else
			r = push(stack, item->ref, path, top->system, err) < 0 ||
			    open_listing(f, item->ref, &stack->folder[stack->n - 1].list, err) < 0 ? -1 : 0;
		prep_ntfs_file_clear(&file);
		if (r < 0)
			return -1;
	}
	return 0;
}

/* A match of the last component. The path becomes somebody's. */
static int found(struct finder *f, const struct folder *in, const struct prep_ntfs_file *file,
		 char *path, struct prep_err *err)
{
	const struct prep_ntfs_record *base = &file->record[0];
	const uint64_t ref = PREP_NTFS_REF(base->number, base->sequence);
	struct folders stack = { .n = 0 };
	int r = -1;

	if (!f->recursive || !base->folder || test_and_set(f->opened, base->number))
		return add_entry(f, in, file, path, err);
	if (push(&stack, in->ref, NULL, in->system, err) < 0)
		free(path);
	else if (push(&stack, ref, path, in->system, err) == 0 &&
		 open_listing(f, ref, &stack.folder[1].list, err) == 0)
		r = descend(f, &stack, err);
	clear_folders(&stack);
	return r;
}

/* A name in `in` that the component matches. */
static int take(struct finder *f, size_t component, const struct folder *in, const struct listing *l,
		const struct item *item, struct folders *next, struct prep_err *err)
{
	struct prep_ntfs_file file;
	char *path;
	int r;

	r = load_item(f, item, &file, err);
	if (r <= 0)
		return r;
	path = join_path(f, in->path, l, item, err);
	if (path == NULL)
		r = -1;
	else if (component + 1 == f->pattern.components)
		r = found(f, in, &file, path, err);
	else if (file.record[0].folder && !test_and_set(f->taken, file.record[0].number))
		r = push(next, item->ref, path, in->system, err);
	else {
		free(path);
		r = 0;
	}
	prep_ntfs_file_clear(&file);
	return r < 0 ? -1 : 0;
}

static int by_ref(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* An 8.3 name is not an entry of its own: where it matches, its file's Win32 name does. */
static int search_folder(struct finder *f, size_t component, const struct folder *in,
			 struct folders *next, struct prep_err *err)
{
	struct listing l;
	uint64_t *dos;
	size_t n_dos = 0;
	int r = 0;

	if (open_listing(f, in->ref, &l, err) < 0)
		return -1;
	dos = malloc((l.n_items + 1) * sizeof *dos);
	if (dos == NULL) {
		close_listing(&l);
		return prep_fail_nomem(err);
	}
	for (size_t i = 0; i < l.n_items; i++)
		if (l.item[i].space == PREP_NTFS_DOS && matches(f, component, &l, &l.item[i]))
			dos[n_dos++] = l.item[i].ref;
	if (n_dos > 1)
		qsort(dos, n_dos, sizeof *dos, by_ref);
	for (size_t i = 0; i < l.n_items && r == 0; i++) {
		const struct item *item = &l.item[i];

		if (item->space == PREP_NTFS_DOS)
			continue;
		if (matches(f, component, &l, item) ||
		    (item->space == PREP_NTFS_WIN32 && n_dos > 0 &&
		     bsearch(&item->ref, dos, n_dos, sizeof *dos, by_ref) != NULL))
			r = take(f, component, in, &l, item, next, err);
	}
	free(dos);
	close_listing(&l);
	return r;
}

static int search(struct finder *f, struct prep_err *err)
{
	struct folders now = { .n = 0 }, next = { .n = 0 };
	struct prep_ntfs_file root;
	uint64_t ref;
	char *path;
	int r;

	if (prep_ntfs_file_load(&f->mft, PREP_NTFS_ROOT, &root, err) < 0)
		return -1;
	ref = PREP_NTFS_REF(PREP_NTFS_ROOT, root.record[0].sequence);
	prep_ntfs_file_clear(&root);
	path = strdup("");
	if (path == NULL)
		return prep_fail_nomem(err);
	r = push(&now, ref, path, false, err);
	for (size_t c = 0; r == 0 && c < f->pattern.components; c++) {
		for (size_t i = 0; r == 0 && i < now.n; i++)
			r = search_folder(f, c, &now.folder[i], &next, err);
		for (size_t i = 0; i < next.n; i++)
			f->taken[PREP_NTFS_NUMBER(next.folder[i].ref) / 8] = 0;
		clear_folders(&now);
		now = next;
		next = (struct folders){ .n = 0 };
	}
	clear_folders(&now);
	return r;
}

int prep_ntfs_find(struct prep_fs *fs, const char *pattern, bool recursive,
		   struct prep_fs_list *list, struct prep_err *err)
{
	struct finder f = { .n = (struct prep_ntfs *)fs, .list = list, .recursive = recursive };
	int r = -1;

	f.pattern.upcase = upcase;
	f.pattern.arg = f.n;
	if (prep_pattern_parse(&f.pattern, pattern, err) == 0 && prep_ntfs_mft_open(&f.mft, f.n, err) == 0) {
		f.opened = calloc(1, (size_t)f.mft.records / 8 + 1);
		f.taken = calloc(1, (size_t)f.mft.records / 8 + 1);
		if (f.opened == NULL || f.taken == NULL)
			prep_fail_nomem(err);
		else
			r = search(&f, err);
		prep_ntfs_mft_close(&f.mft);
	}
	prep_pattern_clear(&f.pattern);
	free(f.opened);
	free(f.taken);
	prep_fs_list_index_clear(&f.index);
	return r;
}
