/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Files of more than one record: attribute lists followed, segments joined.
 */
#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/ntfs_internal.h"

/* Windows stops at 256 KiB. */
#define LIST_MAX PREP_MIB

/* All records of one file in memory: a million runs take 4 MiB of them. */
#define FILE_MAX (64 * PREP_MIB)

static int damaged(struct prep_ntfs *n, uint64_t number, const char *what, struct prep_err *err)
{
	return prep_fail(err, PREP_EDAMAGED, "%s: record %llu: %s", n->disk->name,
			 (unsigned long long)number, what);
}

/* ---- Joining records ---- */

/* The bytes of the base record's attribute list: NULL and 0 when it has none. */
static int read_list(struct prep_ntfs *n, const struct prep_ntfs_record *base, uint8_t **ret,
		     size_t *len, struct prep_err *err)
{
	struct prep_ntfs_runs runs = { .n = 0 };
	struct prep_ntfs_attr a;
	struct prep_ntfs_run run;
	uint32_t at = 0;
	int r;

	*ret = NULL;
	*len = 0;
	while ((r = prep_ntfs_attr_next(base, &at, &a)) > 0 && a.type < PREP_NTFS_ATTR_LIST)
		;
	if (r < 0)
		return damaged(n, base->number, "its attributes are damaged", err);
	if (r == 0 || a.type != PREP_NTFS_ATTR_LIST)
		return 0;
	*len = a.resident ? a.value_len : (size_t)prep_min(a.size, LIST_MAX + 1);
	if (*len > LIST_MAX || (!a.resident && (a.lowest_vcn != 0 || a.initialized < a.size)))
		return damaged(n, base->number, "its attribute list is damaged", err);
	*ret = malloc(*len + 1);
	if (*ret == NULL)
		return prep_fail_nomem(err);
	if (a.resident) {
		memcpy(*ret, a.value, *len);
		return 0;
	}
	while ((r = prep_ntfs_pairs_next(&a.pairs, &run)) > 0)
		if (prep_ntfs_runs_add(&runs, run.lcn, run.len, err) < 0)
			goto fail;
	if (r < 0 || runs.end > LIST_MAX || runs.end << n->cluster_bits < *len) {
		damaged(n, base->number, "its attribute list is damaged", err);
		goto fail;
	}
	if (prep_ntfs_runs_read(n, &runs, 0, *ret, *len, err) < 0)
		goto fail;
	prep_ntfs_runs_clear(&runs);
	return 0;
fail:
	prep_ntfs_runs_clear(&runs);
	free(*ret);
	*ret = NULL;
	return -1;
}

static int by_value(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The references in a list that lead to other records, each once, ascending. */
static int list_references(struct prep_ntfs *n, const struct prep_ntfs_record *base, const uint8_t *list,
			   size_t len, uint64_t **ret, size_t *count, struct prep_err *err)
{
	uint64_t *ref = malloc((len / 24 + 1) * sizeof *ref);
	size_t found = 0, kept = 0;

	*ret = ref;
	*count = 0;
	if (ref == NULL)
		return prep_fail_nomem(err);
	for (size_t at = 0, step; at < len; at += step) {
		/* The last entry may lack the padding after its name. */
		if (len - at < 26)
			return damaged(n, base->number, "its attribute list is damaged", err);
		step = get_le16(list + at + 4);
		if (step < 26 || step > len - at)
			return damaged(n, base->number, "its attribute list is damaged", err);
		if (PREP_NTFS_NUMBER(get_le64(list + at + 16)) != base->number)
			ref[found++] = get_le64(list + at + 16);
	}
	qsort(ref, found, sizeof *ref, by_value);
	for (size_t i = 0; i < found; i++)
		if (kept == 0 || ref[kept - 1] != ref[i])
			ref[kept++] = ref[i];
	*count = kept;
	return 0;
}

static int load_extension(struct prep_ntfs_mft *m, const struct prep_ntfs_record *base, uint64_t ref,
			  uint8_t *buf, struct prep_ntfs_record *ret, struct prep_err *err)
{
	const uint64_t number = PREP_NTFS_NUMBER(ref);
	bool in_use;

	if (number < m->records && prep_ntfs_mft_read(m, number, buf, err) < 0)
		return -1;
	if (number >= m->records ||
	    prep_ntfs_record_check(buf, m->n->record_size, number, ret, &in_use) != PREP_NTFS_USED ||
	    ret->sequence != PREP_NTFS_SEQUENCE(ref) ||
	    ret->base != PREP_NTFS_REF(base->number, base->sequence))
		return prep_fail(err, PREP_EDAMAGED,
				 "%s: record %llu: its attribute list leads to record %llu, which is no extension of it",
				 m->n->disk->name, (unsigned long long)base->number, (unsigned long long)number);
	return 0;
}

int prep_ntfs_file_join(struct prep_ntfs_mft *m, const struct prep_ntfs_record *base,
			struct prep_ntfs_file *ret, struct prep_err *err)
{
	const uint32_t size = m->n->record_size;
	uint64_t *ref = NULL;
	uint8_t *list;
	size_t len, n = 0;

	*ret = (struct prep_ntfs_file){ .n = 0 };
	if (read_list(m->n, base, &list, &len, err) < 0)
		return -1;
	if (list != NULL && list_references(m->n, base, list, len, &ref, &n, err) < 0)
		goto fail;
	if (n > FILE_MAX / size) {
		damaged(m->n, base->number, "it has too many extension records", err);
		goto fail;
	}
	ret->record = malloc((n + 1) * sizeof *ret->record);
	ret->buf = n > 0 ? malloc(n * size) : NULL;
	if (ret->record == NULL || (n > 0 && ret->buf == NULL)) {
		prep_fail_nomem(err);
		goto fail;
	}
	ret->record[0] = *base;
	for (size_t i = 0; i < n; i++)
		if (load_extension(m, base, ref[i], ret->buf + i * size, &ret->record[i + 1], err) < 0)
			goto fail;
	ret->n = n + 1;
	free(ref);
	free(list);
	return 0;
fail:
	free(ref);
	free(list);
	prep_ntfs_file_clear(ret);
	return -1;
}

int prep_ntfs_file_load(struct prep_ntfs_mft *m, uint64_t ref, struct prep_ntfs_file *ret,
			struct prep_err *err)
{
	const uint64_t number = PREP_NTFS_NUMBER(ref);
	struct prep_ntfs_record base;
	struct prep_ntfs_file rest;
	uint8_t *buf, *grown;
	bool in_use;

	*ret = (struct prep_ntfs_file){ .n = 0 };
	if (number >= m->records)
		return damaged(m->n, number, "there is no such record", err);
	buf = malloc(m->n->record_size);
	if (buf == NULL)
		return prep_fail_nomem(err);
	if (prep_ntfs_mft_read(m, number, buf, err) < 0)
		goto fail;
	if (prep_ntfs_record_check(buf, m->n->record_size, number, &base, &in_use) != PREP_NTFS_USED ||
	    base.base != 0 || (PREP_NTFS_SEQUENCE(ref) != 0 && base.sequence != PREP_NTFS_SEQUENCE(ref))) {
		damaged(m->n, number, "it is not the file that is meant", err);
		goto fail;
	}
	if (prep_ntfs_file_join(m, &base, &rest, err) < 0)
		goto fail;
	/* One buffer for all of them, so that the file owns its base record too. */
	grown = realloc(rest.buf, rest.n * m->n->record_size);
	if (grown == NULL) {
		prep_fail_nomem(err);
		prep_ntfs_file_clear(&rest);
		goto fail;
	}
	rest.buf = grown;
	for (size_t i = 1; i < rest.n; i++)
		rest.record[i].p = grown + (i - 1) * m->n->record_size;
	rest.record[0].p = memcpy(grown + (rest.n - 1) * m->n->record_size, buf, m->n->record_size);
	free(buf);
	*ret = rest;
	return 0;
fail:
	free(buf);
	return -1;
}

void prep_ntfs_file_clear(struct prep_ntfs_file *f)
{
	free(f->record);
	free(f->buf);
	*f = (struct prep_ntfs_file){ .n = 0 };
}

int prep_ntfs_file_next(const struct prep_ntfs_file *f, struct prep_ntfs_cursor *c,
			struct prep_ntfs_attr *ret)
{
	int r;

	while (c->record < f->n) {
		r = prep_ntfs_attr_next(&f->record[c->record], &c->at, ret);
		if (r != 0)
			return r;
		c->record++;
		c->at = 0;
	}
	return 0;
}

/* ---- Joining segments ---- */

static int by_stream(const void *a, const void *b)
{
	const struct prep_ntfs_attr *x = a, *y = b;
	int r;

	if (x->type != y->type)
		return x->type < y->type ? -1 : 1;
	if (x->name_len != y->name_len)
		return x->name_len < y->name_len ? -1 : 1;
	r = memcmp(x->name, y->name, 2 * (size_t)x->name_len);
	if (r != 0)
		return r;
	return x->lowest_vcn < y->lowest_vcn ? -1 : x->lowest_vcn > y->lowest_vcn;
}

static bool same_stream(const struct prep_ntfs_attr *x, const struct prep_ntfs_attr *y)
{
	return x->type == y->type && x->name_len == y->name_len &&
	       memcmp(x->name, y->name, 2 * (size_t)x->name_len) == 0;
}

static int add_segment(struct prep_ntfs *n, uint64_t number, const struct prep_ntfs_attr *a,
		       struct prep_ntfs_runs *runs, struct prep_err *err)
{
	struct prep_ntfs_pairs pairs = a->pairs;
	struct prep_ntfs_run run;
	int r;

	if (a->lowest_vcn != runs->end)
		return damaged(n, number, "a part of a stream is missing or stands twice", err);
	while ((r = prep_ntfs_pairs_next(&pairs, &run)) > 0)
		if (prep_ntfs_runs_add(runs, run.lcn, run.len, err) < 0)
			return -1;
	if (r < 0)
		return damaged(n, number, "its mapping pairs are damaged", err);
	/* A highest_vcn of 0 is also written for an empty stream. */
	if (runs->end != a->end_vcn && !(runs->end == 0 && a->end_vcn == 1))
		return damaged(n, number, "its mapping pairs do not end where the attribute says", err);
	return 0;
}

static int join_segments(struct prep_ntfs *n, uint64_t number, const struct prep_ntfs_attr *a,
			 size_t count, struct prep_ntfs_runs *runs, struct prep_err *err)
{
	runs->n = 0;
	runs->end = 0;
	for (size_t i = 0; i < count; i++)
		if (add_segment(n, number, &a[i], runs, err) < 0)
			return -1;
	/* $BadClus:$Bad is as large as the volume and has sizes of its own kind. */
	if (number == PREP_NTFS_BADCLUS)
		return 0;
	if (runs->end > (uint64_t)INT64_MAX >> n->cluster_bits || a->allocated != runs->end << n->cluster_bits)
		return damaged(n, number, "the allocated size of a stream is not that of its clusters", err);
	if (a->size > a->allocated || a->initialized > a->size)
		return damaged(n, number, "the size of a stream is greater than its allocation", err);
	return 0;
}

/* All non-resident attributes of the file (of one type unless 0), sorted by stream and segment. */
static int collect(struct prep_ntfs *n, const struct prep_ntfs_file *f, uint32_t type,
		   struct prep_ntfs_attr **ret, size_t *count, struct prep_err *err)
{
	struct prep_ntfs_attr *attr = NULL, *grown, a;
	struct prep_ntfs_cursor c = { 0, 0 };
	size_t used = 0, room = 0;
	int r;

	while ((r = prep_ntfs_file_next(f, &c, &a)) > 0) {
		if (a.resident || (type != 0 && a.type != type))
			continue;
		if (used == room) {
			room = room > 0 ? 2 * room : 8;
			grown = realloc(attr, room * sizeof *attr);
			if (grown == NULL) {
				free(attr);
				return prep_fail_nomem(err);
			}
			attr = grown;
		}
		attr[used++] = a;
	}
	if (r < 0) {
		free(attr);
		return damaged(n, f->record[c.record].number, "its attributes are damaged", err);
	}
	if (used > 1)
		qsort(attr, used, sizeof *attr, by_stream);
	*ret = attr;
	*count = used;
	return 0;
}

int prep_ntfs_file_streams(struct prep_ntfs *n, const struct prep_ntfs_file *f,
			   int (*fn)(void *arg, const struct prep_ntfs_attr *a,
				     const struct prep_ntfs_runs *runs, struct prep_err *err),
			   void *arg, struct prep_err *err)
{
	struct prep_ntfs_runs runs = { .n = 0 };
	struct prep_ntfs_attr *attr;
	size_t count, i, next;
	int r = 0;

	if (collect(n, f, 0, &attr, &count, err) < 0)
		return -1;
	for (i = 0; i < count && r == 0; i = next) {
		for (next = i + 1; next < count && same_stream(&attr[i], &attr[next]); next++)
			;
		r = join_segments(n, f->record[0].number, attr + i, next - i, &runs, err);
		if (r == 0)
			r = fn(arg, &attr[i], &runs, err);
	}
	prep_ntfs_runs_clear(&runs);
	free(attr);
	return r;
}

int prep_ntfs_file_find(struct prep_ntfs *n, const struct prep_ntfs_file *f, uint32_t type,
			const char *name, struct prep_ntfs_attr *ret, struct prep_ntfs_runs *runs,
			struct prep_err *err)
{
	struct prep_ntfs_cursor c = { 0, 0 };
	struct prep_ntfs_attr *attr;
	size_t count, from, to;
	int r;

	*runs = (struct prep_ntfs_runs){ .n = 0 };
	while ((r = prep_ntfs_file_next(f, &c, ret)) > 0)
		if (ret->type == type && prep_ntfs_attr_named(ret, name))
			break;
	if (r < 0)
		return damaged(n, f->record[c.record].number, "its attributes are damaged", err);
	if (r == 0 || ret->resident)
		return r;
	if (collect(n, f, type, &attr, &count, err) < 0)
		return -1;
	for (from = 0; from < count && !prep_ntfs_attr_named(&attr[from], name); from++)
		;
	for (to = from; to < count && prep_ntfs_attr_named(&attr[to], name); to++)
		;
	if (from == count) {
		/* It was just found: the analysers cannot know. */
		free(attr);
		return 0;
	}
	*ret = attr[from];
	r = join_segments(n, f->record[0].number, attr + from, to - from, runs, err);
	free(attr);
	if (r < 0) {
		prep_ntfs_runs_clear(runs);
		return -1;
	}
	return 1;
}
