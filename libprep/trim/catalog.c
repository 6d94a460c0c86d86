/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/catalog.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"

/* Make room for `more` items of `size` bytes in *array. */
static int reserve(void *array, uint32_t *room, uint32_t used, uint32_t more, uint32_t max, size_t size,
		   const char *what, struct prep_err *err)
{
	void *old, *grown;
	uint64_t want = (uint64_t)used + more;

	if (want <= *room)
		return 0;
	if (want > max)
		return prep_fail(err, PREP_EFAIL, "too many %s in one local index: more than %u", what, max);
	want = prep_min(prep_max(want, prep_max(64, (uint64_t)*room + *room / 2)), max);
	memcpy(&old, array, sizeof old);
	grown = reallocarray(old, (size_t)want, size);
	if (grown == NULL)
		return prep_fail_nomem(err);
	memcpy(array, &grown, sizeof grown);
	*room = (uint32_t)want;
	return 0;
}

static int add_string(struct prep_catalog *c, const char *s, uint32_t *ret, struct prep_err *err)
{
	const size_t len = strlen(s) + 1;

	if (c->strings_len + len > c->strings_room) {
		const uint64_t want = prep_max(c->strings_len + len, prep_max(4096, c->strings_room * 3 / 2));
		char *grown;

		if (c->strings_len + len > PREP_CATALOG_STRINGS_MAX)
			return prep_fail(err, PREP_EFAIL, "too many paths in one local index: more than 4 GiB");
		grown = realloc(c->strings, (size_t)want);
		if (grown == NULL)
			return prep_fail_nomem(err);
		c->strings = grown;
		c->strings_room = (size_t)want;
	}
	memcpy(c->strings + c->strings_len, s, len);
	*ret = (uint32_t)c->strings_len;
	c->strings_len += len;
	return 0;
}

int prep_catalog_add_origin(struct prep_catalog *c, enum prep_origin_kind kind, const char *path,
			    const struct prep_file_stamp *stamp, struct prep_err *err)
{
	struct prep_origin *o;

	if (reserve(&c->origin, &c->origins_room, c->origins, 1, PREP_CATALOG_ORIGINS_MAX, sizeof *c->origin,
		    "folders and images", err) < 0)
		return -1;
	o = &c->origin[c->origins];
	*o = (struct prep_origin){ .kind = kind, .path = strdup(path), .first_item = c->items };
	if (o->path == NULL)
		return prep_fail_nomem(err);
	if (stamp != NULL)
		o->stamp = *stamp;
	c->origins++;
	return 0;
}

int prep_catalog_add_item(struct prep_catalog *c, const char *path, const struct prep_file_stamp *stamp,
			  struct prep_err *err)
{
	struct prep_item *i;

	if (reserve(&c->item, &c->items_room, c->items, 1, PREP_CATALOG_ITEMS_MAX, sizeof *c->item, "files",
		    err) < 0)
		return -1;
	i = &c->item[c->items];
	*i = (struct prep_item){ .first_chunk = c->chunks, .first_run = c->runs };
	if (stamp != NULL)
		i->stamp = *stamp;
	if (add_string(c, path, &i->path, err) < 0)
		return -1;
	c->items++;
	c->origin[c->origins - 1].items++;
	return 0;
}

int prep_catalog_add_chunk(struct prep_catalog *c, const uint8_t digest[PREP_DIGEST_SIZE], uint64_t at,
			   uint32_t size, struct prep_err *err)
{
	struct prep_item_chunk *k;

	if (reserve(&c->chunk, &c->chunks_room, c->chunks, 1, PREP_CATALOG_CHUNKS_MAX, sizeof *c->chunk, "chunks",
		    err) < 0)
		return -1;
	k = &c->chunk[c->chunks++];
	*k = (struct prep_item_chunk){ .at = at, .size = size };
	memcpy(k->digest, digest, PREP_DIGEST_SIZE);
	c->item[c->items - 1].chunks++;
	return 0;
}

int prep_catalog_add_run(struct prep_catalog *c, uint64_t off, uint64_t len, struct prep_err *err)
{
	if (reserve(&c->run, &c->runs_room, c->runs, 1, PREP_CATALOG_RUNS_MAX, sizeof *c->run, "fragments",
		    err) < 0)
		return -1;
	c->run[c->runs++] = (struct prep_run){ off, len };
	c->item[c->items - 1].runs++;
	return 0;
}

int prep_catalog_copy_item(struct prep_catalog *c, const struct prep_catalog *from, uint32_t i,
			   struct prep_err *err)
{
	const struct prep_item *item = &from->item[i];

	if (prep_catalog_add_item(c, prep_item_path(from, item), &item->stamp, err) < 0)
		return -1;
	for (uint32_t k = item->first_chunk; k < item->first_chunk + item->chunks; k++)
		if (prep_catalog_add_chunk(c, from->chunk[k].digest, from->chunk[k].at, from->chunk[k].size, err) < 0)
			return -1;
	for (uint32_t k = item->first_run; k < item->first_run + item->runs; k++)
		if (prep_catalog_add_run(c, from->run[k].off, from->run[k].len, err) < 0)
			return -1;
	return 0;
}

uint32_t prep_catalog_item_of(const struct prep_catalog *c, uint32_t chunk)
{
	uint32_t from = 0, to = c->items;

	/* The last item that begins at the chunk or before: those without chunks come before it. */
	while (to - from > 1) {
		const uint32_t mid = from + (to - from) / 2;

		if (c->item[mid].first_chunk <= chunk)
			from = mid;
		else
			to = mid;
	}
	return from;
}

uint64_t prep_catalog_bytes(const struct prep_catalog *c, const struct prep_origin *o)
{
	uint64_t sum = 0;

	for (uint32_t i = o->first_item; i < o->first_item + o->items; i++)
		for (uint32_t k = 0; k < c->item[i].chunks; k++)
			sum += c->chunk[c->item[i].first_chunk + k].size;
	return sum;
}

int prep_catalog_add_restored(struct prep_catalog *c, const char *path, const struct prep_file_stamp *stamp,
			      const struct prep_ckm_index *index, struct prep_err *err)
{
	if (prep_catalog_add_origin(c, PREP_ORIGIN_IMAGE, path, stamp, err) < 0)
		return -1;
	for (uint32_t i = 0; i < index->streams; i++) {
		const struct prep_stream *s = &index->stream[i];
		uint64_t at = 0;

		if (prep_catalog_add_item(c, s->path, NULL, err) < 0)
			return -1;
		for (uint32_t k = s->first_ref; k < s->first_ref + s->refs; k++) {
			const struct prep_chunk *chunk = &index->chunk[index->ref[k]];

			if (prep_catalog_add_chunk(c, chunk->digest, at, chunk->size, err) < 0)
				return -1;
			at += chunk->size;
		}
		for (uint32_t k = s->first_run; k < s->first_run + s->runs; k++)
			if (prep_catalog_add_run(c, index->run[k].off, index->run[k].len, err) < 0)
				return -1;
	}
	return 0;
}

static int add_frame(struct prep_catalog *c, const struct prep_ckm_index *index, const struct prep_frame *f,
		     struct prep_err *err)
{
	for (uint32_t k = f->first_chunk; k < f->first_chunk + f->chunks; k++)
		if (prep_catalog_add_chunk(c, index->chunk[k].digest, index->chunk[k].at, index->chunk[k].size, err) < 0)
			return -1;
	return 0;
}

/* Of a patch what no plain frame has. */
static int add_patch(struct prep_catalog *c, const struct prep_ckm_index *index, const struct prep_frame *f,
		     struct prep_err *err)
{
	uint64_t at = 0;

	for (uint32_t k = 0; k < f->chunks; k++) {
		const struct prep_chunk *chunk = &index->chunk[prep_frame_chunk(index, f, k)];

		if (index->frame[chunk->frame].kind != PREP_FRAME_PLAIN) {
			if (prep_catalog_add_chunk(c, chunk->digest, at, chunk->size, err) < 0)
				return -1;
			c->chunk[c->chunks - 1].bad = true;
		}
		at += chunk->size;
	}
	return 0;
}

int prep_catalog_add_package(struct prep_catalog *c, const char *path, const struct prep_ckm_index *index,
			     struct prep_err *err)
{
	if (prep_catalog_add_origin(c, PREP_ORIGIN_PACKAGE, path, NULL, err) < 0)
		return -1;
	for (uint32_t i = 0; i < index->frames; i++) {
		const struct prep_frame *f = &index->frame[i];

		if (prep_catalog_add_item(c, "", NULL, err) < 0)
			return -1;
		/* The item stays, so that item numbers are frame numbers. */
		if (f->kind == PREP_FRAME_PLAIN && add_frame(c, index, f, err) < 0)
			return -1;
		if (f->kind == PREP_FRAME_PATCH && add_patch(c, index, f, err) < 0)
			return -1;
	}
	return 0;
}

void prep_file_stamp_of(const struct stat *st, struct prep_file_stamp *ret)
{
	*ret = (struct prep_file_stamp){
		.size = (uint64_t)st->st_size,
		.inode = st->st_ino,
		.mtime = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
		.ctime = (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec,
	};
}

bool prep_file_stamp_same(const struct prep_file_stamp *a, const struct prep_file_stamp *b)
{
	return a->size == b->size && a->inode == b->inode && a->mtime == b->mtime && a->ctime == b->ctime;
}

void prep_catalog_clear(struct prep_catalog *c)
{
	for (uint32_t i = 0; i < c->origins; i++)
		free(c->origin[i].path);
	free(c->origin);
	free(c->item);
	free(c->chunk);
	free(c->run);
	free(c->strings);
	prep_notes_clear(&c->notes);
	*c = (struct prep_catalog){ .origins = 0 };
}
