/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/fetch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/section.h"
#include "libprep/disk/disk.h"
#include "libprep/trim/local_index.h"
#include "libprep/trim/partial.h"
#include "libprep/trim/target.h"

#define RESTARTS_MAX 3u        /* of a package that changes again and again */

struct prep_fetch {
	const char *url;
	const struct prep_http_how *http;
	const struct prep_ckm_access *access;
	char *out;             /* links resolved; NULL for a dry run */
	char *index_url;
	struct prep_partial partial;
	struct prep_ckm *package;
	struct prep_seed *old; /* an unfinished image of another package */
	struct prep_http_count count;
	uint64_t index_bytes;
};

/* The image's own path: OUT.part stands beside the file that a link leads to. */
static char *resolve(const char *out, struct prep_err *err)
{
	char *ret = realpath(out, NULL);

	if (ret == NULL)
		ret = strdup(out);
	if (ret == NULL)
		prep_fail_nomem(err);
	return ret;
}

/* The index that an earlier run left, if the server still has that. 0: it has not. */
static int use_known(struct prep_fetch *f, struct prep_err *err)
{
	struct prep_err why = PREP_ERR_INIT;

	if (prep_ckm_open_index(f->partial.section, f->partial.section_len, f->url, f->access, &f->package,
				&why) == 0)
		return 1;
	/* Damaged on this side: fetched again. Anything else will not be better then. */
	return why.code == PREP_EDAMAGED ? 0 : prep_fail(err, why.code, "%s", why.msg);
}

/* Fetch the index, or find that it is the one that is there. */
static int get_index(struct prep_fetch *f, const struct prep_progress *progress, struct prep_err *err)
{
	const bool has_known = f->partial.section != NULL && f->partial.version.etag[0] != '\0';
	struct prep_http_body body;
	struct prep_http_count count = { .requests = 0 };
	unsigned known = has_known, tries = 0;
	int r;

	for (;; known = 0) {
		struct prep_err why = PREP_ERR_INIT;

		r = prep_http_get(f->index_url, f->http, PREP_CKM_INDEX_MAX + PREP_MIB,
				  known ? &f->partial.version : NULL, &body, &count, progress, err);
		if (r < 0)
			break;
		if (body.unchanged) {
			r = use_known(f, err);
			if (r != 0)
				break;
			continue;
		}
		r = prep_ckm_open_index(body.data, body.len, f->url, f->access, &f->package, &why);
		if (r == 0 && f->out != NULL)
			r = prep_partial_set_index(&f->partial, body.data, body.len, &body.version, err);
		free(body.data);
		/* Damaged on the way, perhaps, or lost there: libcurl takes a file that cannot be read for an empty one. */
		if (r < 0 && (why.code == PREP_EDAMAGED || body.len < PREP_CKM_HEADER_SIZE) && tries++ == 0)
			continue;
		if (r < 0)
			prep_fail(err, why.code, "%s", why.msg);
		break;
	}
	f->count.requests += count.requests;
	f->count.bytes += count.bytes;
	f->count.retries += count.retries;
	f->index_bytes += count.bytes;
	return r < 0 ? -1 : 0;
}

int prep_fetch_open(const char *url, const struct prep_http_how *http,
		    const struct prep_ckm_access *access, const char *out, struct prep_fetch **ret,
		    const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_fetch *f = calloc(1, sizeof *f);

	*ret = NULL;
	if (f == NULL)
		return prep_fail_nomem(err);
	f->url = url;
	f->http = http;
	f->access = access;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(f);
		return prep_fail(err, PREP_EFAIL, "libcurl cannot be set up");
	}
	if (prep_http_check_url(url, err) < 0 || prep_http_index_url(url, &f->index_url, err) < 0)
		goto fail;
	if (out != NULL) {
		f->out = resolve(out, err);
		if (f->out == NULL || prep_partial_open(f->out, url, &f->partial, err) < 0)
			goto fail;
	}
	if (get_index(f, progress, err) < 0)
		goto fail;
	*ret = f;
	return 0;
fail:
	prep_fetch_close(f);
	return -1;
}

void prep_fetch_close(struct prep_fetch *f)
{
	if (f == NULL)
		return;
	prep_seed_close(f->old);
	prep_ckm_close(f->package);
	/* A folder in which nothing has come to stand is of no use to anyone. */
	if (f->partial.path != NULL && f->partial.section == NULL)
		rmdir(f->partial.path);
	prep_partial_close(&f->partial);
	free(f->index_url);
	free(f->out);
	free(f);
	curl_global_cleanup();
}

struct prep_ckm *prep_fetch_package(const struct prep_fetch *f)
{
	return f->package;
}

int prep_fetch_estimate(const struct prep_supply *supply, uint32_t *ranges, uint64_t *bytes,
			struct prep_err *err)
{
	struct prep_supply_range *range;

	if (prep_supply_ranges(supply, NULL, PREP_RANGE_GAP, prep_download_range_max(supply), &range, ranges, err) < 0)
		return -1;
	*bytes = 0;
	for (uint32_t i = 0; i < *ranges; i++)
		*bytes += range[i].len;
	free(range);
	return 0;
}

/* An unfinished image of another version is as good as any seed, if it can be opened. */
static int add_old(struct prep_fetch *f, struct prep_supply *supply, struct prep_err *err)
{
	struct prep_ckm_access how = *f->access;
	struct prep_err ignored = PREP_ERR_INIT;

	/* What it holds is checked piece by piece; and nobody is asked for a passphrase out of the blue. */
	how.verify_with = NULL;
	if (how.passphrase_file != NULL && strcmp(how.passphrase_file, "-") == 0 &&
	    (how.ring == NULL || how.ring->passphrase == NULL))
		how.passphrase_file = NULL;
	if (f->old == NULL && (access(f->partial.old, F_OK) != 0 ||
			       prep_seed_open_restored(f->partial.old, f->partial.old_index, &how, &f->old,
						       &ignored) < 0))
		return 0;
	f->old->catalog.unfinished = true;
	return prep_supply_add(supply, &f->old->catalog, err);
}

/* Everything that the image may be made from. */
static int add_seeds(struct prep_fetch *f, const struct prep_fetch_how *how, struct prep_seed **seed,
		     struct prep_supply *supply, struct prep_err *err)
{
	size_t n = 0;

	for (; n < how->seeds; n++) {
		seed[n] = how->seed[n];
		if (prep_supply_add(supply, &seed[n]->catalog, err) < 0)
			return -1;
	}
	if (add_old(f, supply, err) < 0)
		return -1;
	seed[n] = f->old;
	return prep_supply_make(supply, err);
}

/* Bytes that the host has given to the unfinished image. */
static uint64_t allocated(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* One try, with the index as it is now. 1: the package has changed, and the new index is open. */
static int try(struct prep_fetch *f, const struct prep_fetch_how *how, struct prep_seed **seed,
	       struct prep_supply *supply, struct prep_export *export, struct prep_fetch_report *report,
	       const struct prep_progress *progress, struct prep_err *err)
{
	const struct prep_ckm_index *in = prep_ckm_index(f->package);
	struct prep_restore restore = {
		.package = f->package, .supply = supply, .seed = seed, .seeds = how->seeds + (f->old != NULL),
		.how = export, .jobs = how->jobs,
	};
	struct prep_err why = PREP_ERR_INIT;
	struct prep_download *download = NULL;
	struct prep_frame_source source;
	uint64_t size, need;
	bool changed = false;
	int r = -1;

	if (prep_target_choose(in, how->format, f->url, export, err) < 0 ||
	    prep_supply_check(supply, f->url, err) < 0 || prep_partial_set_format(&f->partial, export, err) < 0 ||
	    prep_output_open_part(f->out, how->replace, f->partial.disk, &size, &restore.out, err) < 0)
		return -1;
	restore.resume = size > 0;
	need = prep_target_estimate(in, export) + prep_min(PREP_DOWNLOAD_AHEAD, supply->frame_bytes);
	if (prep_output_check_space(restore.out, need - prep_min(need, allocated(f->partial.disk)), err) == 0 &&
	    prep_download_open(f->url, f->http, in, prep_ckm_info(f->package)->package_size, f->partial.frames,
			       &download, err) == 0) {
		prep_download_source(download, &source);
		restore.source = &source;
		prep_output_set_check(restore.out, prep_disk_check_replaced);
		r = prep_restore(&restore, &report->restored, progress, &why);
		if (r == 0)
			r = prep_output_commit(restore.out, &why);
		changed = r < 0 && prep_download_changed(download);
	}
	if (download != NULL) {
		const struct prep_http_count count = prep_download_count(download);

		f->count.requests += count.requests;
		f->count.bytes += count.bytes;
		f->count.retries += count.retries;
	}
	prep_download_close(download);
	prep_output_close(restore.out);
	if (changed) {
		uint8_t id[16];

		memcpy(id, prep_ckm_info(f->package)->id, sizeof id);
		prep_ckm_close(f->package);
		f->package = NULL;
		if (get_index(f, progress, err) < 0)
			return -1;
		if (memcmp(id, prep_ckm_info(f->package)->id, sizeof id) != 0)
			return 1;
	}
	return r < 0 && why.code != PREP_DONE ? prep_fail(err, why.code, "%s", why.msg) : r;
}

/* The next fetch that takes this image as a seed need not hash it. Only saves time. */
static void keep_index(const struct prep_fetch *f, const char *cache)
{
	struct prep_catalog c = { .origins = 0 };
	struct prep_err ignored = PREP_ERR_INIT;
	struct prep_file_stamp stamp;
	char *path = NULL, *whole = realpath(f->out, NULL);
	struct stat st;

	if (whole != NULL && stat(whole, &st) == 0) {
		prep_file_stamp_of(&st, &stamp);
		if (prep_seed_cache_path(cache, whole, &path, &ignored) == 0 &&
		    prep_catalog_add_restored(&c, whole, &stamp, prep_ckm_index(f->package), &ignored) == 0)
			prep_local_index_write(&c, path, true, &ignored);
	}
	prep_catalog_clear(&c);
	free(path);
	free(whole);
}

int prep_fetch_run(struct prep_fetch *f, const struct prep_fetch_how *how, struct prep_supply *supply,
		   struct prep_export *how_it_is, struct prep_fetch_report *report,
		   const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_seed **seed = calloc(how->seeds + 2, sizeof *seed);
	int r = 0;

	*report = (struct prep_fetch_report){ .restarts = 0 };
	if (seed == NULL)
		return prep_fail_nomem(err);
	for (;;) {
		r = add_seeds(f, how, seed, supply, err);
		if (r == 0)
			r = try(f, how, seed, supply, how_it_is, report, progress, err);
		if (r <= 0)
			break;
		if (report->restarts++ == RESTARTS_MAX) {
			r = prep_fail(err, PREP_EFAIL, "%s: changes again and again on the server", f->url);
			break;
		}
		prep_supply_clear(supply);
		/* What was unfinished just now takes its place. */
		prep_seed_close(f->old);
		f->old = NULL;
		r = prep_supply_new(prep_ckm_index(f->package), supply, err);
		if (r < 0)
			break;
	}
	report->count = f->count;
	report->index_bytes = f->index_bytes;
	if (r == 0) {
		if (how->cache != NULL)
			keep_index(f, how->cache);
		prep_partial_remove(&f->partial);
	}
	free(seed);
	return r;
}
