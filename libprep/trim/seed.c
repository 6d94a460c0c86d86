/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/seed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/ckm/section.h"
#include "libprep/disk/disk.h"
#include "libprep/trim/folder.h"
#include "libprep/trim/local_index.h"

struct prep_seed_source {
	int folder;              /* descriptor, or -1 */
	struct prep_disk *disk;
	struct prep_ckm *package;
	struct prep_frame_cache *frames; /* of the package */
};

int prep_seed_cache_path(const char *cache, const char *path, char **ret, struct prep_err *err)
{
	uint8_t digest[PREP_DIGEST_SIZE];
	char hex[33];

	*ret = NULL;
	if (prep_hash_once(path, strlen(path), digest, err) < 0)
		return -1;
	for (unsigned i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	if (asprintf(ret, "%s/%s.index", cache, hex) < 0) {
		*ret = NULL;
		return prep_fail_nomem(err);
	}
	return 0;
}

enum what { FOLDER, IMAGE, LOCAL_INDEX, PACKAGE, PACKAGE_INDEX };

static int look_at(const char *path, enum what *ret, struct prep_err *err)
{
	uint8_t magic[8] = { 0 };
	struct stat st;
	int fd;

	if (stat(path, &st) != 0)
		return prep_fail_errno(err, "%s: cannot open", path);
	*ret = S_ISDIR(st.st_mode) ? FOLDER : IMAGE;
	if (!S_ISREG(st.st_mode))
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return prep_fail_errno(err, "%s: cannot open", path);
	if (pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic) {
		if (memcmp(magic, PREP_LOCAL_INDEX_MAGIC, sizeof magic) == 0)
			*ret = LOCAL_INDEX;
		else if (prep_ckm_is_package(magic))
			*ret = PACKAGE;
		else if (prep_ckm_is_section(magic))
			*ret = PACKAGE_INDEX;
	}
	close(fd);
	return 0;
}

bool prep_seed_names_others(const char *path)
{
	struct prep_err ignored = PREP_ERR_INIT;
	enum what what;

	return look_at(path, &what, &ignored) == 0 && what == LOCAL_INDEX;
}

/* Scan a folder or an image, with the cache's help, and keep what was found there. */
static int scan(struct prep_seed *s, const char *path, bool folder, const struct prep_seed_how *how,
		const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_scan_how scan_how = { .jobs = how->jobs, .parents = how->parents };
	struct prep_catalog known = { .origins = 0 };
	struct prep_err ignored = PREP_ERR_INIT;
	char *whole = realpath(path, NULL), *cached = NULL;
	int r = -1;

	if (whole == NULL)
		return prep_fail_errno(err, "%s: cannot open", path);
	if (how->cache != NULL) {
		if (prep_seed_cache_path(how->cache, whole, &cached, err) < 0)
			goto out;
		if (access(cached, F_OK) == 0 && prep_local_index_read(cached, &known, &ignored) < 0)
			prep_note(&s->catalog.notes, "%s (made anew)", ignored.msg);
		scan_how.known = &known;
	}
	r = folder ? prep_catalog_scan_folder(&s->catalog, whole, &scan_how, &s->scan, progress, err)
		   : prep_catalog_scan_image(&s->catalog, whole, &scan_how, &s->scan, progress, err);
	/* Nothing read means nothing new, unless files are gone, which does no harm. */
	if (r == 0 && cached != NULL && s->scan.hashed_files > 0) {
		ignored = (struct prep_err)PREP_ERR_INIT;
		if (prep_local_index_write(&s->catalog, cached, true, &ignored) < 0)
			prep_note(&s->catalog.notes, "%s", ignored.msg);
	}
out:
	prep_catalog_clear(&known);
	free(cached);
	free(whole);
	return r;
}

static struct prep_seed_source *new_sources(uint32_t n, struct prep_err *err)
{
	struct prep_seed_source *ret = calloc((size_t)n + 1, sizeof *ret);

	if (ret == NULL)
		prep_fail_nomem(err);
	for (uint32_t i = 0; ret != NULL && i < n; i++)
		ret[i].folder = -1;
	return ret;
}

static int open_package(struct prep_seed *s, const char *path, const struct prep_seed_how *how,
			struct prep_err *err)
{
	s->source = new_sources(1, err);
	if (s->source == NULL || prep_ckm_open(path, how->access, &s->source[0].package, err) < 0 ||
	    prep_frame_cache_new(s->source[0].package, PREP_FRAME_CACHE_KEEP, &s->source[0].frames, err) < 0)
		return -1;
	return prep_catalog_add_package(&s->catalog, path, prep_ckm_index(s->source[0].package), err);
}

/* Open each folder and image of the catalog for reading. */
static int open_sources(struct prep_seed *s, bool listed, const struct prep_seed_how *how,
			struct prep_err *err)
{
	const struct prep_catalog *c = &s->catalog;

	s->source = new_sources(c->origins, err);
	if (s->source == NULL)
		return -1;
	for (uint32_t i = 0; i < c->origins && !how->compare; i++) {
		const struct prep_origin *o = &c->origin[i];
		struct prep_err why = PREP_ERR_INIT;
		int r = 0;

		if (o->kind == PREP_ORIGIN_IMAGE) {
			r = prep_disk_open_chain(o->path, 0, how->parents, &s->source[i].disk, &why);
		} else {
			s->source[i].folder = prep_folder_open(o->path);
			if (s->source[i].folder < 0)
				r = prep_fail_errno(&why, "%s: cannot open the folder", o->path);
		}
		if (r == 0)
			continue;
		if (!listed)
			return prep_fail(err, why.code, "%s", why.msg);
		prep_note(&s->catalog.notes, "%s", why.msg);
	}
	return 0;
}

int prep_seed_open(const char *path, const struct prep_seed_how *how, struct prep_seed **ret,
		   const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_seed *s = calloc(1, sizeof *s);
	enum what what = IMAGE;
	int r = -1;

	*ret = NULL;
	if (s == NULL)
		return prep_fail_nomem(err);
	if (look_at(path, &what, err) < 0)
		goto fail;
	switch (what) {
	case FOLDER:
	case IMAGE:
		r = scan(s, path, what == FOLDER, how, progress, err);
		break;
	case LOCAL_INDEX:
		r = prep_local_index_read(path, &s->catalog, err);
		break;
	case PACKAGE_INDEX:
		if (!how->compare) {
			prep_fail(err, PREP_EREFUSED,
				  "%s: the index of a package has no data: give the package, or the image, as seed", path);
			break;
		}
		/* fall through */
	case PACKAGE:
		r = open_package(s, path, how, err);
		break;
	}
	if (r < 0 || (s->source == NULL && open_sources(s, what == LOCAL_INDEX, how, err) < 0))
		goto fail;
	*ret = s;
	return 0;
fail:
	prep_seed_close(s);
	return -1;
}

int prep_seed_open_restored(const char *path, const char *index, const struct prep_ckm_access *access,
			    struct prep_seed **ret, struct prep_err *err)
{
	struct prep_seed *s = calloc(1, sizeof *s);
	struct prep_ckm *p = NULL;
	int r = -1;

	*ret = NULL;
	if (s == NULL)
		return prep_fail_nomem(err);
	s->source = new_sources(1, err);
	if (s->source != NULL && prep_ckm_open(index, access, &p, err) == 0 &&
	    prep_disk_open(path, 0, &s->source[0].disk, err) == 0)
		r = prep_catalog_add_restored(&s->catalog, path, NULL, prep_ckm_index(p), err);
	prep_ckm_close(p);
	if (r < 0)
		prep_seed_close(s);
	else
		*ret = s;
	return r;
}

void prep_seed_close(struct prep_seed *s)
{
	if (s == NULL)
		return;
	for (uint32_t i = 0; s->source != NULL && (i < s->catalog.origins || i < 1); i++) {
		if (s->source[i].folder >= 0)
			close(s->source[i].folder);
		prep_disk_close(s->source[i].disk);
		prep_frame_cache_free(s->source[i].frames);
		prep_ckm_close(s->source[i].package);
	}
	free(s->source);
	free(s->reference);
	prep_catalog_clear(&s->catalog);
	free(s);
}

const struct prep_ckm_index *prep_seed_index(const struct prep_seed *s)
{
	return s->source[0].package != NULL ? prep_ckm_index(s->source[0].package) : NULL;
}

int prep_seed_reader_open(struct prep_seed_reader *r, struct prep_err *err)
{
	*r = (struct prep_seed_reader){ .fd = -1 };
	return prep_hash_open(&r->hash, err);
}

static void leave_item(struct prep_seed_reader *r)
{
	if (r->fd >= 0)
		close(r->fd);
	prep_frame_cache_put(r->frame);
	r->fd = -1;
	r->frame = NULL;
	r->seed = NULL;
}

/*
 * From here on a patch is read by reading what it is made of. That is never deeper than twice: seed_link.c gives a patch
 * nothing that patches make.
 */
/* NOLINTBEGIN(misc-no-recursion) */

void prep_seed_reader_close(struct prep_seed_reader *r)
{
	if (r->hash.md == NULL)
		return;
	leave_item(r);
	prep_hash_close(&r->hash);
	free(r->reference);
	if (r->other != NULL)
		prep_seed_reader_close(r->other);
	free(r->other);
}

/* Who reads which seed: what a patch is made of is read for. */
struct patch_reader {
	struct prep_seed_reader *r;
	const struct prep_seed *s;
};

/* prep_frame_references.get, to r->reference. */
static int read_reference(void *arg, uint32_t i, const uint8_t **ret, struct prep_err *err)
{
	struct prep_seed_reader *r = ((struct patch_reader *)arg)->r;
	const struct prep_seed *s = ((struct patch_reader *)arg)->s;
	const struct prep_ckm_index *in = prep_ckm_index(s->source[0].package);
	const struct prep_patch *patch = prep_frame_patch(in, i);
	uint8_t *to;

	if (s->reference == NULL)
		return 0;
	if (r->other == NULL) {
		r->other = calloc(1, sizeof *r->other);
		r->reference = malloc(PREP_CKM_REFERENCE_MAX);
		if (r->other == NULL || r->reference == NULL)
			return prep_fail_nomem(err);
		if (prep_seed_reader_open(r->other, err) < 0)
			return -1;
	}
	to = r->reference;
	for (uint32_t k = 0; k < patch->references; k++) {
		const uint32_t number = in->patch_reference[patch->first + k];
		const struct prep_seed_chunk *c = &s->reference[number];
		const int ok = c->seed == NULL ? 0 : prep_seed_read(r->other, c->seed, c->chunk, to, err);

		if (ok != 1)
			return ok;
		to += in->reference[number].size;
	}
	*ret = r->reference;
	return 1;
}

/* Hold a frame of a seed that is a package. 1 when it could be unpacked. */
static int enter_frame(struct prep_seed_reader *r, const struct prep_seed *s, uint32_t number)
{
	struct patch_reader reader = { r, s };
	const struct prep_frame_references references = { read_reference, &reader };
	struct prep_err ignored = PREP_ERR_INIT;

	return prep_frame_cache_get(s->source[0].frames, number, &references, &r->frame, &ignored) == 1;
}

/* Go to an item: 1, or 0 when it cannot be read. */
static int enter_item(struct prep_seed_reader *r, const struct prep_seed *s, uint32_t item,
		      const struct prep_origin *o, const struct prep_seed_source *source)
{
	struct stat st;
	int ok = 1;

	leave_item(r);
	if (o->kind == PREP_ORIGIN_FOLDER) {
		r->fd = prep_folder_open_below(source->folder, prep_item_path(&s->catalog, &s->catalog.item[item]), 0);
		ok = r->fd >= 0 && fstat(r->fd, &st) == 0 && S_ISREG(st.st_mode);
	} else if (o->kind == PREP_ORIGIN_IMAGE) {
		r->run = s->catalog.item[item].first_run;
		r->run_at = 0;
	} else {
		ok = enter_frame(r, s, item - o->first_item);
	}
	if (ok == 1) {
		r->seed = s;
		r->item = item;
	}
	return ok;
}

/* Bytes of an image's stream, over its runs. */
static int read_runs(struct prep_seed_reader *r, const struct prep_seed *s, struct prep_disk *disk,
		     uint64_t at, uint8_t *buf, size_t len)
{
	const struct prep_item *item = &s->catalog.item[r->item];
	struct prep_err ignored = PREP_ERR_INIT;

	if (at < r->run_at) {
		r->run = item->first_run;
		r->run_at = 0;
	}
	while (len > 0 && r->run < item->first_run + item->runs) {
		const struct prep_run *run = &s->catalog.run[r->run];
		const uint64_t in = at - r->run_at;
		size_t n;

		if (in >= run->len) {
			r->run_at += run->len;
			r->run++;
			continue;
		}
		n = (size_t)prep_min(len, run->len - in);
		if (run->off == PREP_CATALOG_HOLE)
			memset(buf, 0, n);
		else if (prep_disk_read(disk, buf, n, run->off + in, &ignored) < 0)
			return 0;
		buf += n;
		at += n;
		len -= n;
	}
	return len == 0;
}

int prep_seed_read(struct prep_seed_reader *r, const struct prep_seed *s, uint32_t chunk, uint8_t *buf,
		   struct prep_err *err)
{
	const struct prep_catalog *c = &s->catalog;
	const struct prep_item_chunk *k = &c->chunk[chunk];
	const uint32_t item = prep_catalog_item_of(c, chunk);
	struct prep_err ignored = PREP_ERR_INIT;
	uint8_t digest[PREP_DIGEST_SIZE];
	uint32_t n = 0;
	int ok;

	while (item >= c->origin[n].first_item + c->origin[n].items)
		n++;
	const struct prep_origin *o = &c->origin[n];
	const struct prep_seed_source *source = &s->source[n];

	if (source->folder < 0 && source->disk == NULL && source->package == NULL)
		return 0;
	if ((r->seed != s || r->item != item) && enter_item(r, s, item, o, source) != 1)
		return 0;
	if (o->kind == PREP_ORIGIN_FOLDER) {
		ok = prep_file_pread(r->fd, buf, k->size, k->at, "seed", &ignored) == 0;
	} else if (o->kind == PREP_ORIGIN_IMAGE) {
		ok = read_runs(r, s, source->disk, k->at, buf, k->size);
	} else {
		/* Verified as it was unpacked. */
		memcpy(buf, r->frame->data + k->at, k->size);
		return 1;
	}
	if (!ok)
		return 0;
	if (prep_hash_of(&r->hash, buf, k->size, digest, err) < 0)
		return -1;
	return memcmp(digest, k->digest, sizeof digest) == 0;
}

/* NOLINTEND(misc-no-recursion) */
