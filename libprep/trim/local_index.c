/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/local_index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/base/output.h"
#include "libprep/ckm/hash.h"

#define VERSION 1u
#define HEADER 32u
#define ORIGIN 48u
#define ITEM 44u
#define CHUNK 44u
#define RUN 16u
#define STAMP 32u

/* Header fields. */
#define AT_VERSION 8
#define AT_ORIGINS 12
#define AT_ITEMS 16
#define AT_CHUNKS 20
#define AT_RUNS 24
#define AT_STRINGS 28

static void put_stamp(uint8_t *p, const struct prep_file_stamp *s)
{
	put_le64(p, s->size);
	put_le64(p + 8, s->inode);
	put_le64(p + 16, (uint64_t)s->mtime);
	put_le64(p + 24, (uint64_t)s->ctime);
}

static void get_stamp(const uint8_t *p, struct prep_file_stamp *s)
{
	*s = (struct prep_file_stamp){
		.size = get_le64(p),
		.inode = get_le64(p + 8),
		.mtime = (int64_t)get_le64(p + 16),
		.ctime = (int64_t)get_le64(p + 24),
	};
}

static uint64_t total_size(const struct prep_catalog *c, uint64_t strings)
{
	return HEADER + (uint64_t)c->origins * ORIGIN + (uint64_t)c->items * ITEM + (uint64_t)c->chunks * CHUNK +
	       (uint64_t)c->runs * RUN + strings + PREP_DIGEST_SIZE;
}

static int damaged(const char *name, const char *what, struct prep_err *err)
{
	return prep_fail(err, PREP_EDAMAGED, "%s: the local index is damaged: %s", name, what);
}

static int check_path(const struct prep_catalog *c, uint32_t path, const char *name, struct prep_err *err)
{
	return path < c->strings_len ? 0 : damaged(name, "a path outside the strings", err);
}

static int get_origins(const uint8_t *p, struct prep_catalog *c, uint32_t origins, const char *name,
		       struct prep_err *err)
{
	uint64_t items = 0;

	for (uint32_t i = 0; i < origins; i++, p += ORIGIN) {
		struct prep_origin *o = &c->origin[i];
		const uint32_t path = get_le32(p + 4);

		*o = (struct prep_origin){
			.kind = get_le32(p), .first_item = (uint32_t)items, .items = get_le32(p + 8 + STAMP),
		};
		get_stamp(p + 8, &o->stamp);
		items += o->items;
		if (o->kind != PREP_ORIGIN_FOLDER && o->kind != PREP_ORIGIN_IMAGE)
			return damaged(name, "an origin of a kind that there is not", err);
		if (items > c->items)
			return damaged(name, "more items than there are", err);
		if (check_path(c, path, name, err) < 0)
			return -1;
		o->path = strdup(c->strings + path);
		if (o->path == NULL)
			return prep_fail_nomem(err);
		c->origins++;
	}
	return items == c->items ? 0 : damaged(name, "items of no origin", err);
}

static int get_items(const uint8_t *p, struct prep_catalog *c, const char *name, struct prep_err *err)
{
	uint64_t chunks = 0, runs = 0;

	for (uint32_t i = 0; i < c->items; i++, p += ITEM) {
		struct prep_item *it = &c->item[i];

		*it = (struct prep_item){
			.path = get_le32(p), .chunks = get_le32(p + 4), .runs = get_le32(p + 8),
			.first_chunk = (uint32_t)chunks, .first_run = (uint32_t)runs,
		};
		get_stamp(p + 12, &it->stamp);
		chunks += it->chunks;
		runs += it->runs;
		if (chunks > c->chunks || runs > c->runs)
			return damaged(name, "more chunks or runs than there are", err);
		if (check_path(c, it->path, name, err) < 0)
			return -1;
	}
	return chunks == c->chunks && runs == c->runs ? 0 : damaged(name, "chunks or runs of no item", err);
}

static int get_chunks(const uint8_t *p, struct prep_catalog *c, const char *name, struct prep_err *err)
{
	for (uint32_t i = 0; i < c->chunks; i++, p += CHUNK) {
		struct prep_item_chunk *k = &c->chunk[i];

		*k = (struct prep_item_chunk){
			.at = get_le64(p + PREP_DIGEST_SIZE), .size = get_le32(p + PREP_DIGEST_SIZE + 8),
		};
		memcpy(k->digest, p, PREP_DIGEST_SIZE);
		if (k->size == 0 || k->size > PREP_CKM_CHUNK_MAX || k->at > (uint64_t)INT64_MAX - k->size)
			return damaged(name, "a chunk that cannot be", err);
	}
	return 0;
}

static int get_runs(const uint8_t *p, struct prep_catalog *c, const char *name, struct prep_err *err)
{
	for (uint32_t i = 0; i < c->runs; i++, p += RUN) {
		c->run[i] = (struct prep_run){ get_le64(p), get_le64(p + 8) };

		const uint64_t off = c->run[i].off == PREP_CATALOG_HOLE ? 0 : c->run[i].off;

		if (off > INT64_MAX || c->run[i].len > INT64_MAX - off)
			return damaged(name, "a run that cannot be", err);
	}
	return 0;
}

static int decode(const uint8_t *p, struct prep_catalog *c, uint32_t origins, const char *name,
		  struct prep_err *err)
{
	const uint8_t *const origin = p + HEADER, *const item = origin + (size_t)origins * ORIGIN;
	const uint8_t *const chunk = item + (size_t)c->items * ITEM, *const run = chunk + (size_t)c->chunks * CHUNK;

	c->origin = calloc((size_t)origins + 1, sizeof *c->origin);
	c->item = calloc((size_t)c->items + 1, sizeof *c->item);
	c->chunk = calloc((size_t)c->chunks + 1, sizeof *c->chunk);
	c->run = calloc((size_t)c->runs + 1, sizeof *c->run);
	c->strings = malloc(c->strings_len + 1);
	if (c->origin == NULL || c->item == NULL || c->chunk == NULL || c->run == NULL || c->strings == NULL)
		return prep_fail_nomem(err);
	c->origins_room = origins;
	c->items_room = c->items;
	c->chunks_room = c->chunks;
	c->runs_room = c->runs;
	c->strings_room = c->strings_len;
	memcpy(c->strings, run + (size_t)c->runs * RUN, c->strings_len);
	if (c->strings_len > 0 && c->strings[c->strings_len - 1] != '\0')
		return damaged(name, "a path without an end", err);
	return get_origins(origin, c, origins, name, err) < 0 || get_items(item, c, name, err) < 0 ||
	       get_chunks(chunk, c, name, err) < 0 || get_runs(run, c, name, err) < 0 ? -1 : 0;
}

int prep_local_index_decode(const uint8_t *p, size_t len, const char *name, struct prep_catalog *ret,
			    struct prep_err *err)
{
	uint8_t digest[PREP_DIGEST_SIZE];
	struct prep_catalog sizes;
	uint32_t origins;

	*ret = (struct prep_catalog){ .origins = 0 };
	if (len < HEADER + PREP_DIGEST_SIZE || memcmp(p, PREP_LOCAL_INDEX_MAGIC, 8) != 0)
		return prep_fail(err, PREP_EREFUSED, "%s: not a local index", name);
	if (get_le32(p + AT_VERSION) != VERSION)
		return prep_fail(err, PREP_EREFUSED, "%s: a local index of version %u, which is not known", name,
				 get_le32(p + AT_VERSION));
	origins = get_le32(p + AT_ORIGINS);
	ret->items = get_le32(p + AT_ITEMS);
	ret->chunks = get_le32(p + AT_CHUNKS);
	ret->runs = get_le32(p + AT_RUNS);
	ret->strings_len = get_le32(p + AT_STRINGS);
	sizes = *ret;
	sizes.origins = origins;
	if (origins > PREP_CATALOG_ORIGINS_MAX || ret->items > PREP_CATALOG_ITEMS_MAX ||
	    ret->chunks > PREP_CATALOG_CHUNKS_MAX || ret->runs > PREP_CATALOG_RUNS_MAX ||
	    total_size(&sizes, ret->strings_len) != len) {
		*ret = (struct prep_catalog){ .origins = 0 };
		return damaged(name, "its size is not that of its content", err);
	}
	if (prep_hash_once(p, len - PREP_DIGEST_SIZE, digest, err) < 0 ||
	    (memcmp(digest, p + len - PREP_DIGEST_SIZE, PREP_DIGEST_SIZE) != 0 &&
	     damaged(name, "its digest does not match", err) < 0) ||
	    decode(p, ret, origins, name, err) < 0) {
		prep_catalog_clear(ret);
		return -1;
	}
	return 0;
}

int prep_local_index_read(const char *path, struct prep_catalog *ret, struct prep_err *err)
{
	const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	uint64_t most = 0;
	struct stat st;
	uint8_t *p;
	int r = -1;

	*ret = (struct prep_catalog){ .origins = 0 };
	if (fd < 0)
		return prep_fail_errno(err, "%s: cannot open", path);
	most = total_size(&(struct prep_catalog){ .origins = PREP_CATALOG_ORIGINS_MAX,
						  .items = PREP_CATALOG_ITEMS_MAX,
						  .chunks = PREP_CATALOG_CHUNKS_MAX,
						  .runs = PREP_CATALOG_RUNS_MAX }, UINT32_MAX);
	if (fstat(fd, &st) != 0) {
		prep_fail_errno(err, "%s: cannot read", path);
	} else if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > most) {
		prep_fail(err, PREP_EREFUSED, "%s: not a local index", path);
	} else if ((p = malloc((size_t)st.st_size + 1)) == NULL) {
		prep_fail_nomem(err);
	} else {
		r = prep_file_pread(fd, p, (size_t)st.st_size, 0, path, err);
		if (r == 0)
			r = prep_local_index_decode(p, (size_t)st.st_size, path, ret, err);
		free(p);
	}
	close(fd);
	return r;
}

static uint8_t *encode(const struct prep_catalog *c, uint64_t len, uint64_t strings)
{
	uint8_t *const start = calloc((size_t)len, 1);
	uint8_t *p = start;
	size_t path = c->strings_len;

	if (start == NULL)
		return NULL;
	memcpy(p, PREP_LOCAL_INDEX_MAGIC, 8);
	put_le32(p + AT_VERSION, VERSION);
	put_le32(p + AT_ORIGINS, c->origins);
	put_le32(p + AT_ITEMS, c->items);
	put_le32(p + AT_CHUNKS, c->chunks);
	put_le32(p + AT_RUNS, c->runs);
	put_le32(p + AT_STRINGS, (uint32_t)strings);
	p += HEADER;
	/* The paths of the origins follow those of the items. */
	for (uint32_t i = 0; i < c->origins; i++, p += ORIGIN) {
		put_le32(p, c->origin[i].kind);
		put_le32(p + 4, (uint32_t)path);
		put_stamp(p + 8, &c->origin[i].stamp);
		put_le32(p + 8 + STAMP, c->origin[i].items);
		path += strlen(c->origin[i].path) + 1;
	}
	for (uint32_t i = 0; i < c->items; i++, p += ITEM) {
		put_le32(p, c->item[i].path);
		put_le32(p + 4, c->item[i].chunks);
		put_le32(p + 8, c->item[i].runs);
		put_stamp(p + 12, &c->item[i].stamp);
	}
	for (uint32_t i = 0; i < c->chunks; i++, p += CHUNK) {
		memcpy(p, c->chunk[i].digest, PREP_DIGEST_SIZE);
		put_le64(p + PREP_DIGEST_SIZE, c->chunk[i].at);
		put_le32(p + PREP_DIGEST_SIZE + 8, c->chunk[i].size);
	}
	for (uint32_t i = 0; i < c->runs; i++, p += RUN) {
		put_le64(p, c->run[i].off);
		put_le64(p + 8, c->run[i].len);
	}
	if (c->strings_len > 0)
		memcpy(p, c->strings, c->strings_len);
	p += c->strings_len;
	for (uint32_t i = 0; i < c->origins; i++)
		p = (uint8_t *)stpcpy((char *)p, c->origin[i].path) + 1;
	return start;
}

int prep_local_index_write(const struct prep_catalog *c, const char *path, bool replace,
			   struct prep_err *err)
{
	uint64_t strings = c->strings_len, len;
	struct prep_output *out;
	uint8_t *p;
	int r;

	for (uint32_t i = 0; i < c->origins; i++)
		strings += strlen(c->origin[i].path) + 1;
	if (strings > PREP_CATALOG_STRINGS_MAX)
		return prep_fail(err, PREP_EFAIL, "%s: too many paths for one local index", path);
	len = total_size(c, strings);
	if (prep_output_open(path, replace, &out, err) < 0)
		return -1;
	p = encode(c, len, strings);
	r = p == NULL ? prep_fail_nomem(err)
		      : prep_hash_once(p, (size_t)len - PREP_DIGEST_SIZE, p + len - PREP_DIGEST_SIZE, err);
	if (r == 0 && (prep_output_write(out, p, (size_t)len, err) < 0 || prep_output_commit(out, err) < 0))
		r = -1;
	free(p);
	prep_output_close(out);
	return r;
}
