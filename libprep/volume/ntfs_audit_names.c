/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Names against index entries. Each $FILE_NAME of a file must stand once in
 * its folder's index with a reference to the file, sequence numbers included,
 * and nothing else may stand there. Instead of keeping all of them, each
 * record has a sum: hashes of its names added, hashes of entries that
 * lead to it taken off. Only records whose sum is not 0 are looked at closely.
 */
#include "libprep/volume/ntfs_audit.h"

#include <stdio.h>
#include <stdlib.h>

#include "libprep/base/bytes.h"

static uint64_t mix(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
	return h ^ h >> 32;
}

/* Of a name in `folder` that leads to `ref`. */
static uint32_t hash_name(uint64_t folder, uint64_t ref, const struct prep_ntfs_name *name)
{
	const size_t len = 2 * (size_t)name->len;
	uint64_t h = mix(mix(len, folder), ref);
	uint64_t last = 0;
	size_t i;

	for (i = 0; i + 8 <= len; i += 8)
		h = mix(h, get_le64(name->text + i));
	memcpy(&last, name->text + i, len - i);
	h = mix(h, le64toh(last));
	return (uint32_t)(h ^ h >> 29);
}

/* ---- While the records pass ---- */

struct folder {
	struct prep_ntfs_auditor *x;
	uint64_t ref;
	struct prep_err *err; /* of damaged(), which cannot return one */
};

static void damaged(void *arg, const char *what)
{
	struct folder *d = arg;

	d->x->a->unreadable++;
	prep_ntfs_note_record(d->x, PREP_NTFS_P_UNREADABLE, PREP_NTFS_NUMBER(d->ref), what, d->err);
}

/* Count an entry that leads nowhere; its name and folder are noted. */
static int dangling(struct prep_ntfs_auditor *x, uint64_t folder, const struct prep_ntfs_name *name,
		    uint64_t ref, struct prep_err *err)
{
	struct prep_ntfs_name there = *name;
	const char *path;

	x->a->dangling++;
	if (!prep_ntfs_note_due(x, PREP_NTFS_P_DANGLING))
		return 0;
	there.parent = folder;
	if (prep_ntfs_tree_path(&x->tree, &there, &path, err) < 0)
		return -1;
	prep_note(&x->a->problems, "%s: record %llu: its index entry %s leads to record %llu, which is not that file",
		  x->n->disk->name, (unsigned long long)PREP_NTFS_NUMBER(folder), path,
		  (unsigned long long)PREP_NTFS_NUMBER(ref));
	return 0;
}

static int take_entry(void *arg, const struct prep_ntfs_name *name, uint64_t ref, struct prep_err *err)
{
	struct folder *d = arg;
	const uint64_t child = PREP_NTFS_NUMBER(ref);

	if (child >= d->x->mft.records)
		return dangling(d->x, d->ref, name, ref, err);
	d->x->balance[child] -= hash_name(d->ref, ref, name);
	return 0;
}

int prep_ntfs_audit_file(struct prep_ntfs_auditor *x, const struct prep_ntfs_file *f,
			 struct prep_err *err)
{
	const struct prep_ntfs_record *base = &f->record[0];
	struct folder d = { x, PREP_NTFS_REF(base->number, base->sequence), err };
	const struct prep_ntfs_dir_reader reader = { take_entry, damaged, &d };
	struct prep_err damage = PREP_ERR_INIT;
	struct prep_ntfs_cursor c = { 0, 0 };
	struct prep_ntfs_name name;
	struct prep_ntfs_attr a;
	uint64_t names = 0, parent = 0;
	char what[96];

	while (prep_ntfs_file_next(f, &c, &a) > 0) {
		if (a.type != PREP_NTFS_ATTR_NAME)
			continue;
		names++;
		if (!a.resident || !prep_ntfs_name_decode(a.value, a.value_len, &name)) {
			x->a->unreadable++;
			return prep_ntfs_note_record(x, PREP_NTFS_P_UNREADABLE, base->number,
						     "its name is damaged", err);
		}
		parent = PREP_NTFS_NUMBER(name.parent);
		x->balance[base->number] += hash_name(name.parent, d.ref, &name);
	}
	if (names != base->links) {
		x->a->link_counts++;
		snprintf(what, sizeof what, "its link count is %u, but it has %llu names", base->links,
			 (unsigned long long)names);
		if (prep_ntfs_note_record(x, PREP_NTFS_P_LINK_COUNT, base->number, what, err) < 0)
			return -1;
	}
	if (base->number >= PREP_NTFS_FIRST_USER) {
		if (names == 0) {
			x->a->orphans++;
			if (prep_ntfs_note_record(x, PREP_NTFS_P_ORPHAN, base->number,
						  "it has no name", err) < 0)
				return -1;
		}
		if (parent != PREP_NTFS_EXTEND) {
			x->a->folders += base->folder;
			x->a->files += !base->folder;
		}
	}
	if (!base->folder)
		return 0;
	if (prep_ntfs_dir_read(x->n, f, &reader, &damage) < 0) {
		if (damage.code != PREP_EDAMAGED)
			return prep_fail(err, damage.code, "%s", damage.msg);
		x->a->unreadable++;
		if (prep_ntfs_note_due(x, PREP_NTFS_P_UNREADABLE))
			prep_note(&x->a->problems, "%s", damage.msg);
	}
	return err->code == PREP_DONE ? 0 : -1;
}

/* ---- After them: what does not balance ---- */

struct entry {
	uint64_t child, ref, folder;
	size_t text; /* in entries.text */
	uint8_t len;
	bool met;
};

struct entries {
	struct prep_ntfs_auditor *x;
	uint64_t folder;
	struct entry *entry;
	size_t n, room;
	uint8_t *text;
	size_t used, text_room;
};

static int keep_entry(void *arg, const struct prep_ntfs_name *name, uint64_t ref, struct prep_err *err)
{
	struct entries *e = arg;
	const uint64_t child = PREP_NTFS_NUMBER(ref);
	void *grown;

	if (child >= e->x->mft.records || !(e->x->known[child] & PREP_NTFS_R_SUSPECT))
		return 0;
	if (e->n == e->room) {
		e->room = e->room > 0 ? 2 * e->room : 64;
		grown = realloc(e->entry, e->room * sizeof *e->entry);
		if (grown == NULL)
			return prep_fail_nomem(err);
		e->entry = grown;
	}
	if (e->used + 510 > e->text_room) {
		e->text_room = e->text_room > 0 ? 2 * e->text_room : 65536;
		grown = realloc(e->text, e->text_room);
		if (grown == NULL)
			return prep_fail_nomem(err);
		e->text = grown;
	}
	memcpy(e->text + e->used, name->text, 2 * (size_t)name->len);
	e->entry[e->n++] = (struct entry){ child, ref, e->folder, e->used, name->len, false };
	e->used += 2 * (size_t)name->len;
	return 0;
}

static void ignore_damage(void *arg, const char *what)
{
	(void)arg;
	(void)what;
}

/* All entries that lead to suspect records, from all folders once more. */
static int keep_entries(struct entries *e, struct prep_err *err)
{
	const struct prep_ntfs_dir_reader reader = { keep_entry, ignore_damage, e };
	struct prep_ntfs_auditor *x = e->x;
	struct prep_ntfs_record r;
	struct prep_ntfs_file f;
	uint8_t *p;
	bool in_use;

	prep_ntfs_mft_rewind(&x->mft);
	for (uint64_t i = 0; i < x->mft.records; i++) {
		if (!(x->known[i] & PREP_NTFS_R_BASE))
			continue;

		struct prep_err damage = PREP_ERR_INIT;

		if (prep_ntfs_mft_next(&x->mft, i, &p, err) < 0)
			return -1;
		if (prep_ntfs_record_check(p, x->n->record_size, i, &r, &in_use) != PREP_NTFS_USED || !r.folder)
			continue;
		e->folder = PREP_NTFS_REF(i, r.sequence);
		/* Damage was counted when the records passed. */
		if (prep_ntfs_file_join(&x->mft, &r, &f, &damage) == 0) {
			prep_ntfs_dir_read(x->n, &f, &reader, &damage);
			prep_ntfs_file_clear(&f);
		}
		if (damage.code != PREP_DONE && damage.code != PREP_EDAMAGED)
			return prep_fail(err, damage.code, "%s", damage.msg);
	}
	return 0;
}

static int by_child(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->child != y->child)
		return x->child < y->child ? -1 : 1;
	return x->text < y->text ? -1 : x->text > y->text;
}

/* Pair the names of one file with the entries [from, to) that lead to its record. */
static int match_names(struct entries *e, uint64_t number, size_t from, size_t to, struct prep_err *err)
{
	struct prep_ntfs_auditor *x = e->x;
	struct prep_err damage = PREP_ERR_INIT;
	struct prep_ntfs_cursor c = { 0, 0 };
	struct prep_ntfs_name name;
	struct prep_ntfs_attr a;
	struct prep_ntfs_file f;
	size_t i;
	int r = 0;

	if (prep_ntfs_file_load(&x->mft, number, &f, &damage) < 0)
		return damage.code == PREP_EDAMAGED ? 0 : prep_fail(err, damage.code, "%s", damage.msg);
	while (r == 0 && prep_ntfs_file_next(&f, &c, &a) > 0) {
		if (a.type != PREP_NTFS_ATTR_NAME || !a.resident ||
		    !prep_ntfs_name_decode(a.value, a.value_len, &name))
			continue;
		for (i = from; i < to; i++) {
			struct entry *t = &e->entry[i];

			if (!t->met && t->folder == name.parent &&
			    t->ref == PREP_NTFS_REF(number, f.record[0].sequence) && t->len == name.len &&
			    memcmp(e->text + t->text, name.text, 2 * (size_t)name.len) == 0) {
				t->met = true;
				break;
			}
		}
		if (i == to) {
			x->a->orphans++;
			r = prep_ntfs_note_record(x, PREP_NTFS_P_ORPHAN, number,
						  "a name of it stands in no folder", err);
		}
	}
	prep_ntfs_file_clear(&f);
	return r;
}

static int match_suspects(struct entries *e, struct prep_err *err)
{
	struct prep_ntfs_auditor *x = e->x;
	size_t from = 0, to;

	if (e->n > 1)
		qsort(e->entry, e->n, sizeof *e->entry, by_child);
	for (uint64_t i = 0; i < x->mft.records; i++) {
		if (!(x->known[i] & PREP_NTFS_R_SUSPECT))
			continue;
		for (to = from; to < e->n && e->entry[to].child == i; to++)
			;
		if (match_names(e, i, from, to, err) < 0)
			return -1;
		for (; from < to; from++) {
			const struct entry *t = &e->entry[from];
			const struct prep_ntfs_name name = { .len = t->len, .text = e->text + t->text };

			if (!t->met && dangling(x, t->folder, &name, t->ref, err) < 0)
				return -1;
		}
	}
	return 0;
}

int prep_ntfs_audit_balance(struct prep_ntfs_auditor *x, struct prep_err *err)
{
	struct entries e = { .x = x };
	bool suspects = false;
	int r;

	for (uint64_t i = 0; i < x->mft.records; i++)
		if (x->balance[i] != 0) {
			x->known[i] |= PREP_NTFS_R_SUSPECT;
			suspects = true;
		}
	if (!suspects)
		return 0;
	r = keep_entries(&e, err);
	if (r == 0)
		r = match_suspects(&e, err);
	free(e.entry);
	free(e.text);
	return r;
}
