/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/base.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/section.h"

/* What the survey of a base is planned with: only its streams matter. */
#define FRAME_SIZE PREP_CKM_FRAME_MAX

static bool is_package(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	uint8_t magic[8];
	bool ret;

	if (fd < 0)
		return false;
	ret = pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
	      (prep_ckm_is_package(magic) || prep_ckm_is_section(magic));
	close(fd);
	return ret;
}

static int open_package(struct prep_base *b, const char *path, const struct prep_ckm_access *access,
			struct prep_err *err)
{
	if (prep_ckm_open(path, access, &b->package, err) < 0)
		return -1;
	b->index = prep_ckm_index(b->package);
	memcpy(b->id, prep_ckm_info(b->package)->id, sizeof b->id);
	/* An index alone has no offset in a package. */
	b->has_content = prep_ckm_info(b->package)->section_off != 0;
	b->name = path;
	return b->has_content ? prep_frame_cache_new(b->package, PREP_FRAME_CACHE_KEEP, &b->frames, err) : 0;
}

/* The package is the one whose index was named too. */
static int check_index_of(const struct prep_base *b, const char *path, struct prep_err *err)
{
	const struct prep_ckm_access outer = { .outer_only = true };
	struct prep_ckm *p;
	bool same;

	if (prep_ckm_open(path, &outer, &p, err) < 0)
		return -1;
	same = memcmp(prep_ckm_info(p)->id, b->id, sizeof b->id) == 0;
	prep_ckm_close(p);
	return same ? 0 : prep_fail(err, PREP_EREFUSED, "%s: not the package that %s is the index of", b->name, path);
}

static int open_image(struct prep_base *b, const char *path, const struct prep_parents *parents,
		      struct prep_pool *pool, const struct prep_progress *progress, struct prep_err *err)
{
	const struct prep_plan_how how = { .frame_size = FRAME_SIZE };

	if (prep_disk_open_chain(path, 0, parents, &b->disk, err) < 0)
		return -1;
	b->name = path;
	b->has_content = true;
	if (b->index != NULL) {
		if (b->index->disk_size == b->disk->size)
			return 0;
		return prep_fail(err, PREP_EREFUSED, "%s: a disk of %llu bytes; the index is of one of %llu", path,
				 (unsigned long long)b->disk->size, (unsigned long long)b->index->disk_size);
	}
	if (prep_survey_make(b->disk, pool, &b->survey, progress, err) < 0 ||
	    prep_plan_make(&b->survey, &how, &b->plan, err) < 0)
		return -1;
	b->index = &b->plan.index;
	return 0;
}

/* Where each chunk is first used, and where in its stream each run begins. */
static int find_homes(struct prep_base *b, struct prep_err *err)
{
	const struct prep_ckm_index *in = b->index;

	b->home = malloc(((size_t)in->chunks + 1) * sizeof *b->home);
	b->run_at = malloc(((size_t)in->runs + 1) * sizeof *b->run_at);
	if (b->home == NULL || b->run_at == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < in->chunks; i++)
		b->home[i].stream = UINT32_MAX;
	for (uint32_t i = 0; i < in->streams; i++) {
		const struct prep_stream *s = &in->stream[i];
		uint64_t at = 0;

		for (uint32_t k = s->first_ref; k < s->first_ref + s->refs; k++) {
			if (b->home[in->ref[k]].stream == UINT32_MAX)
				b->home[in->ref[k]] = (struct prep_base_home){ i, at };
			at += in->chunk[in->ref[k]].size;
		}
		at = 0;
		for (uint32_t k = s->first_run; k < s->first_run + s->runs; k++) {
			b->run_at[k] = at;
			at += in->run[k].len;
		}
	}
	return 0;
}

int prep_base_open(const struct prep_base_how *how, struct prep_pool *pool, struct prep_base *ret,
		   const struct prep_progress *progress, struct prep_err *err)
{
	const bool packed = how->image != NULL && is_package(how->image);
	int r = 0;

	*ret = (struct prep_base){ .has_content = false };
	/* A package brings its own index, which is that of what is read. */
	if (how->index != NULL && !packed)
		r = open_package(ret, how->index, &how->access, err);
	if (r == 0 && packed) {
		r = open_package(ret, how->image, &how->access, err);
		if (r == 0 && how->index != NULL)
			r = check_index_of(ret, how->index, err);
		if (r == 0 && !ret->has_content)
			r = prep_fail(err, PREP_EREFUSED, "%s: an index alone, without the content", how->image);
	} else if (r == 0 && how->image != NULL) {
		r = open_image(ret, how->image, how->parents, pool, progress, err);
	}
	if (r == 0)
		r = prep_chunk_table_new(ret->index, &ret->table, err);
	if (r == 0 && ret->has_content)
		r = find_homes(ret, err);
	if (r < 0)
		prep_base_close(ret);
	return r;
}

void prep_base_close(struct prep_base *b)
{
	prep_chunk_table_free(b->table);
	prep_plan_clear(&b->plan);
	prep_survey_clear(&b->survey);
	prep_disk_close(b->disk);
	prep_frame_cache_free(b->frames);
	prep_ckm_close(b->package);
	free(b->home);
	free(b->run_at);
	*b = (struct prep_base){ .has_content = false };
}

bool prep_base_readable(const struct prep_base *b, uint32_t chunk)
{
	if (!b->has_content || b->home[chunk].stream == UINT32_MAX)
		return false;
	return b->disk != NULL || b->index->frame[b->index->chunk[chunk].frame].kind == PREP_FRAME_PLAIN;
}

int prep_base_reader_open(struct prep_base_reader *r, struct prep_err *err)
{
	*r = (struct prep_base_reader){ .frame = NULL };
	return prep_hash_open(&r->hash, err);
}

void prep_base_reader_close(struct prep_base_reader *r)
{
	if (r->hash.md == NULL)
		return;
	prep_frame_cache_put(r->frame);
	prep_hash_close(&r->hash);
}

/* Hold a frame of the package. */
static int enter_frame(struct prep_base_reader *r, const struct prep_base *b, uint32_t number, struct prep_err *err)
{
	if (r->frame != NULL && r->frame->cache == b->frames && r->frame->number == number)
		return 0;
	prep_frame_cache_put(r->frame);
	/* Patch frames are no home of a chunk that can be read. */
	return prep_frame_cache_get(b->frames, number, NULL, &r->frame, err) < 0 ? -1 : 0;
}

/* Bytes of a stream, by its runs. */
static int read_runs(const struct prep_base *b, const struct prep_stream *s, uint64_t at, uint8_t *buf, size_t len,
		     struct prep_err *err)
{
	uint32_t from = s->first_run, to = s->first_run + s->runs - 1;

	/* The last run that begins at the place or before. */
	while (from < to) {
		const uint32_t mid = from + (to - from + 1) / 2;

		if (b->run_at[mid] <= at)
			from = mid;
		else
			to = mid - 1;
	}
	for (; len > 0; from++) {
		const struct prep_run *run = &b->index->run[from];
		const uint64_t skip = at - b->run_at[from];
		const size_t n = (size_t)prep_min(len, run->len - skip);

		if (prep_disk_read(b->disk, buf, n, run->off + skip, err) < 0)
			return -1;
		buf += n;
		at += n;
		len -= n;
	}
	return 0;
}

int prep_base_read(struct prep_base_reader *r, const struct prep_base *b, uint32_t chunk, uint8_t *buf,
		   struct prep_err *err)
{
	const struct prep_chunk *c = &b->index->chunk[chunk];
	const struct prep_stream *s = &b->index->stream[b->home[chunk].stream];
	uint8_t digest[PREP_DIGEST_SIZE];

	if (b->disk == NULL) {
		/* Verified as it was unpacked. */
		if (enter_frame(r, b, c->frame, err) < 0)
			return -1;
		memcpy(buf, r->frame->data + c->at, c->size);
		return 0;
	}
	if (read_runs(b, s, b->home[chunk].at, buf, c->size, err) < 0 ||
	    prep_hash_of(&r->hash, buf, c->size, digest, err) < 0)
		return -1;
	if (memcmp(digest, c->digest, sizeof digest) == 0)
		return 0;
	if (b->package == NULL)
		return prep_fail(err, PREP_EFAIL, "%s: changed while it was read", b->name);
	return prep_fail(err, PREP_EREFUSED, "%s: not the image that the index is of, or changed since: %s differs",
			 b->name, s->path[0] != '\0' ? s->path : "what is in no file");
}
