/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Scanning an image: the streams of its disk, as ckm-pack finds and cuts them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "libprep/base/pool.h"
#include "libprep/ckm/layout.h"
#include "libprep/trim/catalog.h"
#include "libprep/trim/crew.h"
#include "libprep/trim/cut.h"

struct scan {
	struct prep_layout *layout;
	struct prep_cut *cut; /* of each stream */
};

/* A stream as the cutter wants it. */
struct reader {
	const struct prep_layout *layout;
	const struct prep_layout_stream *stream;
};

static int read_stream(void *arg, void *buf, size_t len, uint64_t at, struct prep_err *err)
{
	const struct reader *r = arg;

	return prep_layout_read(r->layout, r->stream, buf, len, at, err);
}

static int stream_zeros(void *arg, uint64_t at, uint64_t end, uint64_t *ret, struct prep_err *err)
{
	const struct reader *r = arg;

	return prep_layout_zeros(r->layout, r->stream, at, end, ret, err);
}

static int cut_streams(struct prep_crew *crew, void *arg, struct prep_err *err)
{
	struct scan *s = arg;
	struct prep_chunk_cutter *cutter;
	uint32_t i;
	int r = 0;

	if (prep_chunk_cutter_new(&cutter, err) < 0)
		return -1;
	while (r == 0 && !atomic_load(&crew->stop) &&
	       (i = atomic_fetch_add(&crew->next, 1)) < s->layout->streams) {
		const struct prep_layout_stream *stream = &s->layout->stream[i];
		struct reader reader = { s->layout, stream };
		const struct prep_chunk_source source = {
			.size = stream->size, .read = read_stream, .zeros = stream_zeros, .arg = &reader,
		};

		r = prep_chunk_cut(cutter, &source, stream->block, prep_cut_add, &s->cut[i], err);
		atomic_fetch_add(&crew->done, stream->size);
	}
	prep_chunk_cutter_free(cutter);
	return r;
}

static int collect(struct prep_catalog *c, const struct scan *s, struct prep_err *err)
{
	const struct prep_layout *l = s->layout;

	for (size_t i = 0; i < l->streams; i++) {
		const struct prep_layout_stream *stream = &l->stream[i];

		if (s->cut[i].chunks == 0)
			continue;
		if (prep_catalog_add_item(c, stream->path, NULL, err) < 0 || prep_catalog_add_cut(c, &s->cut[i], err) < 0)
			return -1;
		for (size_t k = stream->first; k < stream->first + stream->pieces; k++) {
			const struct prep_layout_piece *p = &l->piece[k];
			const uint64_t off = p->off == PREP_LAYOUT_HOLE ? PREP_CATALOG_HOLE : p->off;

			if (prep_catalog_add_run(c, off, p->len, err) < 0)
				return -1;
		}
	}
	return 0;
}

static int scan_disk(struct prep_catalog *c, struct prep_disk *d, const struct prep_scan_how *how,
		     const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_layout layout = { .streams = 0 };
	struct scan s = { .layout = &layout };
	struct prep_crew crew = { .what = "hashing the image" };
	struct prep_pool *pool;
	int r;

	if (prep_pool_open(how->jobs, &pool, err) < 0)
		return -1;
	r = prep_layout_make(d, pool, &layout, progress, err);
	prep_pool_close(pool);
	if (r < 0)
		return -1;
	for (size_t i = 0; i < layout.notes.n; i++)
		prep_note(&c->notes, "%s", layout.notes.text[i]);
	s.cut = calloc(layout.streams + 1, sizeof *s.cut);
	if (s.cut == NULL) {
		prep_layout_clear(&layout);
		return prep_fail_nomem(err);
	}
	for (size_t i = 0; i < layout.streams; i++)
		crew.total += layout.stream[i].size;
	r = prep_crew_run(&crew, how->jobs, cut_streams, &s, progress, err);
	if (r == 0)
		r = collect(c, &s, err);
	for (size_t i = 0; i < layout.streams; i++)
		prep_cut_clear(&s.cut[i]);
	free(s.cut);
	prep_layout_clear(&layout);
	return r;
}

/* The image as it was scanned before, or NULL. */
static const struct prep_origin *find_known(const struct prep_catalog *known, const char *path,
					    const struct prep_file_stamp *stamp)
{
	for (uint32_t i = 0; known != NULL && i < known->origins; i++) {
		const struct prep_origin *o = &known->origin[i];

		if (o->kind == PREP_ORIGIN_IMAGE && strcmp(o->path, path) == 0 && prep_file_stamp_same(&o->stamp, stamp))
			return o;
	}
	return NULL;
}

static int scan_image(struct prep_catalog *c, const char *path, const struct prep_scan_how *how,
		      struct prep_scan_report *report, const struct prep_progress *progress,
		      struct prep_err *err)
{
	struct prep_file_stamp stamp;
	const struct prep_origin *known = NULL;
	struct prep_disk *d;
	struct stat st;
	int r = 0;

	/* Before its stamp is taken: opening may complete a change that a crash cut off. */
	if (prep_disk_open_chain(path, 0, how->parents, &d, err) < 0)
		return -1;
	if (stat(path, &st) != 0) {
		prep_disk_close(d);
		return prep_fail_errno(err, "%s", path);
	}
	prep_file_stamp_of(&st, &stamp);
	/* A device has no time of change that could be relied upon. */
	if (S_ISREG(st.st_mode))
		known = find_known(how->known, path, &stamp);
	report->files++;
	report->bytes += d->size;
	if (prep_catalog_add_origin(c, PREP_ORIGIN_IMAGE, path, &stamp, err) < 0) {
		r = -1;
	} else if (known != NULL) {
		for (uint32_t i = known->first_item; r == 0 && i < known->first_item + known->items; i++)
			r = prep_catalog_copy_item(c, how->known, i, err);
	} else {
		report->hashed_files++;
		report->hashed_bytes += d->size;
		r = scan_disk(c, d, how, progress, err);
	}
	prep_disk_close(d);
	return r;
}

int prep_catalog_scan_image(struct prep_catalog *c, const char *path, const struct prep_scan_how *how,
			    struct prep_scan_report *report, const struct prep_progress *progress,
			    struct prep_err *err)
{
	char *whole = realpath(path, NULL);
	int r;

	if (whole == NULL)
		return prep_fail_errno(err, "%s: cannot open", path);
	r = scan_image(c, whole, how, report, progress, err);
	free(whole);
	return r;
}
