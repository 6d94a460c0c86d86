/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/chunk.h"

#define UNIT PREP_CHUNK_ZERO_UNIT
#define UNITS_STREAM_MAX (256 * PREP_MIB)

/* $MFT, indexes and bitmaps change by records and pages; $LogFile is rewritten all over. */
#define METADATA_BLOCK 4096u
#define LOGFILE_ID 2
#define FIRST_USER_ID 24

/* What all paths of a layout may take: so much, and so much more for each. */
#define PATHS_MAX (32 * PREP_MIB)
#define PATH_USUAL 256u

/* The order of streams within a volume. */
enum class { CLASS_FILES, CLASS_METADATA, CLASS_UNITS, CLASS_PIECES };

/* A range of the disk that is packed in one way: a partition, or what is between them. */
struct region {
	uint64_t off, end;
	uint8_t volume;
};

struct maker {
	struct prep_layout *l;
	struct prep_disk *disk;
	struct prep_pool *pool;
	const struct prep_progress *progress;
	const struct prep_volume *volume; /* being walked */

	/* Bytes claimed by streams, of the whole disk. */
	struct claim {
		uint64_t off, len;
		size_t stream;
	} *claim;
	size_t claims, claim_room;

	struct prep_layout_piece *small;  /* of a region: pieces around its units; at is not used */
	size_t smalls, small_room;
};

/* Make room for one more item of an array. */
static int grow(void *array, size_t n, size_t *room, size_t item, struct prep_err *err)
{
	void *p;

	if (n < *room)
		return 0;
	memcpy(&p, array, sizeof p);
	p = reallocarray(p, *room != 0 ? *room * 2 : 256, item);
	if (p == NULL)
		return prep_fail_nomem(err);
	memcpy(array, &p, sizeof p);
	*room = *room != 0 ? *room * 2 : 256;
	return 0;
}

/* ---- Streams ---- */

static int add_path(struct prep_layout *l, const struct prep_fs_stream *s, const char **ret,
		    struct prep_err *err)
{
	const char *shown = s->path;
	char *path;
	int len;

	*ret = "";
	if (s->path == NULL || s->path[0] == '\0')
		return 0;
	if (grow(&l->path, l->paths, &l->path_room, sizeof *l->path, err) < 0)
		return -1;
	/* A small image can have a path of 64 KiB for each of its files: names without their folders then. */
	if (l->path_bytes > PATHS_MAX + l->paths * PATH_USUAL)
		shown = strrchr(shown, '/');
	len = asprintf(&path, "%s%s%s", shown, s->name[0] != '\0' ? ":" : "", s->name);
	if (len < 0)
		return prep_fail_nomem(err);
	l->path_bytes += (size_t)len;
	*ret = l->path[l->paths++] = path;
	return 0;
}

static int start_stream(struct prep_layout *l, const struct prep_layout_stream *s, struct prep_err *err)
{
	if (grow(&l->stream, l->streams, &l->stream_room, sizeof *l->stream, err) < 0)
		return -1;
	l->stream[l->streams] = *s;
	l->stream[l->streams].first = l->pieces;
	l->streams++;
	return 0;
}

/* Append to the stream that was started last. */
static int add_piece(struct prep_layout *l, uint64_t off, uint64_t len, struct prep_err *err)
{
	struct prep_layout_stream *s = &l->stream[l->streams - 1];
	struct prep_layout_piece *last = s->pieces > 0 && l->pieces > 0 ? &l->piece[l->pieces - 1] : NULL;

	if (last != NULL && off != PREP_LAYOUT_HOLE && last->off != PREP_LAYOUT_HOLE && last->off + last->len == off) {
		last->len += len;
		s->size += len;
		return 0;
	}
	if (grow(&l->piece, l->pieces, &l->piece_room, sizeof *l->piece, err) < 0)
		return -1;
	l->piece[l->pieces++] = (struct prep_layout_piece){ s->size, off, len };
	s->pieces++;
	s->size += len;
	return 0;
}

static int add_claim(struct maker *m, uint64_t off, uint64_t len, struct prep_err *err)
{
	if (grow(&m->claim, m->claims, &m->claim_room, sizeof *m->claim, err) < 0)
		return -1;
	m->claim[m->claims++] = (struct claim){ off, len, m->l->streams - 1 };
	return 0;
}

/* How a file system's stream is packed. */
static void describe(const struct prep_fs_stream *s, struct prep_layout_stream *ret)
{
	ret->content = PREP_CONTENT_METADATA;
	ret->block = METADATA_BLOCK;
	if (s->system && s->id == LOGFILE_ID)
		ret->block = UNIT;
	else if (s->system && s->data && s->id >= FIRST_USER_ID)
		ret->block = 0; /* $UsnJrnl and the like: they grow at one end and shrink at the other */
	if (!s->system && s->data) {
		ret->is_file = true;
		ret->block = 0;
		ret->content = PREP_CONTENT_OTHER;
	}
}

/*
 * The bytes that count as the stream's. Of a plain file those are its data,
 * that a copy elsewhere has too; of all others the clusters, whatever they mean.
 */
static uint64_t counted_bytes(const struct prep_fs_stream *s, bool is_file)
{
	if (!is_file || s->compressed || s->encrypted || s->initialized > s->size || s->size > s->allocated)
		return UINT64_MAX;
	return s->initialized;
}

static int visit(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct maker *m = arg;
	struct prep_layout_stream stream = { .volume = (uint8_t)m->volume->part->number };
	const uint64_t start = m->volume->part->off;
	bool holes, data = false;
	uint64_t end;

	describe(s, &stream);
	end = counted_bytes(s, stream.is_file);
	/* Raw clusters stand one after the other. */
	holes = end != UINT64_MAX;
	for (size_t i = 0; i < s->runs; i++) {
		const struct prep_fs_run *run = &s->run[i];

		data |= run->off != PREP_FS_HOLE && run->at < end;
		/* A hole of whole units is in no chunk; another could be in one, without a place on the disk. */
		if (run->off == PREP_FS_HOLE)
			holes &= run->at % UNIT == 0 && (run->len % UNIT == 0 || run->at + run->len >= end);
	}
	if (!data)
		return 0;
	if (add_path(m->l, s, &stream.path, err) < 0 || start_stream(m->l, &stream, err) < 0)
		return -1;
	for (size_t i = 0; i < s->runs && s->run[i].at < end; i++) {
		const struct prep_fs_run *run = &s->run[i];
		const uint64_t len = prep_min(run->len, end - run->at);

		if (run->off == PREP_FS_HOLE) {
			if (holes && add_piece(m->l, PREP_LAYOUT_HOLE, len, err) < 0)
				return -1;
			continue;
		}
		if (add_piece(m->l, start + run->off, len, err) < 0 || add_claim(m, start + run->off, len, err) < 0)
			return -1;
	}
	return prep_progress(m->progress, "reading files", m->l->streams, 0, err);
}

/* Take what the file system tells. What it cannot tell stays unclaimed. */
static int walk_volume(struct maker *m, const struct prep_volume *v, struct prep_err *err)
{
	struct prep_err e = PREP_ERR_INIT, ignored = PREP_ERR_INIT;
	struct prep_fs *fs = NULL;

	m->volume = v;
	if (prep_fs_open(v->slice, 0, &fs, &e) == 0)
		prep_fs_walk(fs, PREP_FS_WALK_PATHS, visit, m, &e);
	prep_fs_close(fs, &ignored);
	if (e.code == PREP_DONE)
		return 0;
	if (e.code != PREP_EDAMAGED && e.code != PREP_EREFUSED)
		return prep_fail(err, e.code, "%s", e.msg);
	prep_note(&m->l->notes, "%s: packed without regard to %sfiles", e.msg, m->claims > 0 ? "other " : "");
	return 0;
}

/* ---- Claims ---- */

static int by_offset(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	if (x->off != y->off)
		return x->off < y->off ? -1 : 1;
	return x->stream < y->stream ? -1 : x->stream > y->stream;
}

/*
 * Give up every stream that claims what is claimed already or lies outside its
 * disk, so that no byte is in two. Its other clusters become unclaimed with it.
 */
static int settle_claims(struct maker *m, struct prep_err *err)
{
	struct prep_layout *l = m->l;
	uint64_t end = 0;
	size_t kept = 0, given_up = 0;
	bool *drop = calloc(l->streams + 1, sizeof *drop);

	if (drop == NULL)
		return prep_fail_nomem(err);
	if (m->claims > 0)
		qsort(m->claim, m->claims, sizeof *m->claim, by_offset);
	for (size_t i = 0; i < m->claims; i++) {
		const struct claim *c = &m->claim[i];

		if (c->off < end || c->off > m->disk->size || c->len > m->disk->size - c->off)
			drop[c->stream] = true;
		else
			end = c->off + c->len;
	}
	for (size_t i = 0; i < m->claims; i++)
		if (!drop[m->claim[i].stream])
			m->claim[kept++] = m->claim[i];
	m->claims = kept;
	for (size_t i = 0; i < l->streams; i++) {
		if (!drop[i])
			continue;
		given_up++;
		l->stream[i].size = 0;
		l->stream[i].pieces = 0;
	}
	free(drop);
	if (given_up > 0)
		prep_note(&l->notes, "%s: %zu streams share clusters with others: packed without regard to files",
			  m->disk->name, given_up);
	return 0;
}

/* ---- What nobody claims ---- */

struct zero_job {
	struct prep_job job;
	struct prep_disk *disk;
	struct prep_layout_piece *piece;
	size_t n;
	struct prep_err err;
};

/* Set the length of pieces that are all zero to 0. */
static void find_zero_pieces(struct prep_job *job)
{
	struct zero_job *z = (struct zero_job *)job;
	uint8_t *buf = malloc(2 * UNIT);

	if (buf == NULL)
		prep_fail_nomem(&z->err);
	for (size_t i = 0; i < z->n && z->err.code == PREP_DONE; i++) {
		struct prep_layout_piece *p = &z->piece[i];

		if (prep_disk_read(z->disk, buf, (size_t)p->len, p->off, &z->err) == 0 && prep_is_zero(buf, (size_t)p->len))
			p->len = 0;
	}
	free(buf);
}

static int drop_zero_pieces(struct maker *m, struct prep_err *err)
{
	const size_t jobs = 4 * (size_t)prep_pool_threads(m->pool);
	struct zero_job *z;

	if (m->smalls == 0)
		return 0;
	z = calloc(jobs, sizeof *z);
	if (z == NULL)
		return prep_fail_nomem(err);
	for (size_t i = 0; i < jobs; i++) {
		const size_t from = m->smalls * i / jobs, to = m->smalls * (i + 1) / jobs;

		z[i].job.run = find_zero_pieces;
		z[i].disk = m->disk;
		z[i].piece = m->small + from;
		z[i].n = to - from;
		prep_pool_submit(m->pool, &z[i].job);
	}
	for (size_t i = 0; i < jobs; i++) {
		prep_pool_wait(m->pool, &z[i].job);
		if (z[i].err.code != PREP_DONE)
			prep_fail(err, z[i].err.code, "%s", z[i].err.msg);
	}
	free(z);
	return err->code == PREP_DONE ? 0 : -1;
}

static int add_small(struct maker *m, uint64_t off, uint64_t end, struct prep_err *err)
{
	if (off == end)
		return 0;
	if (grow(&m->small, m->smalls, &m->small_room, sizeof *m->small, err) < 0)
		return -1;
	m->small[m->smalls++] = (struct prep_layout_piece){ 0, off, end - off };
	return 0;
}

/* Units to the stream at hand, or on to another like it: several threads can then share them out. */
static int add_units(struct maker *m, uint64_t off, uint64_t end, struct prep_err *err)
{
	while (off < end) {
		struct prep_layout_stream next = m->l->stream[m->l->streams - 1];
		const uint64_t len = prep_min(end - off, UNITS_STREAM_MAX - next.size);

		if (add_piece(m->l, off, len, err) < 0)
			return -1;
		off += len;
		if (next.size + len < UNITS_STREAM_MAX)
			continue;
		next.size = 0;
		next.pieces = 0;
		if (start_stream(m->l, &next, err) < 0)
			return -1;
	}
	return 0;
}

/* [off, end) of the region is unclaimed: its whole units to the stream at hand, the ends to the small ones. */
static int add_unclaimed(struct maker *m, const struct region *r, uint64_t off, uint64_t end,
			 struct prep_err *err)
{
	const uint64_t first = r->off + prep_round_up(off - r->off, UNIT);
	const uint64_t last = r->off + prep_round_down(end - r->off, UNIT);

	if (off == end)
		return 0;
	if (first >= last)
		return add_small(m, off, end, err);
	if (add_small(m, off, first, err) < 0 || add_units(m, first, last, err) < 0)
		return -1;
	return add_small(m, last, end, err);
}

/* *next: the first claim that may lie in the region; moved on behind it. */
static int add_region(struct maker *m, const struct region *r, size_t *next, struct prep_err *err)
{
	const bool walked = *next < m->claims && m->claim[*next].off < r->end;
	const struct prep_layout_stream stream = {
		.path = "", .volume = r->volume, .block = UNIT,
		.content = walked ? PREP_CONTENT_FREE : r->volume != 0 ? PREP_CONTENT_OPAQUE : PREP_CONTENT_METADATA,
	};
	struct prep_layout_stream pieces = stream;
	uint64_t at = r->off;

	m->smalls = 0;
	if (start_stream(m->l, &stream, err) < 0)
		return -1;
	for (; *next < m->claims && m->claim[*next].off < r->end; ++*next) {
		if (add_unclaimed(m, r, at, m->claim[*next].off, err) < 0)
			return -1;
		at = m->claim[*next].off + m->claim[*next].len;
	}
	if (add_unclaimed(m, r, at, r->end, err) < 0 || drop_zero_pieces(m, err) < 0)
		return -1;
	pieces.block = 0;
	if (start_stream(m->l, &pieces, err) < 0)
		return -1;
	for (size_t i = 0; i < m->smalls; i++)
		if (m->small[i].len > 0 && add_piece(m->l, m->small[i].off, m->small[i].len, err) < 0)
			return -1;
	return 0;
}

static int by_partition(const void *a, const void *b)
{
	const struct region *x = a, *y = b;

	return x->off < y->off ? -1 : x->off > y->off;
}

/* Partitions and the gaps between them, in order: the whole disk. */
static int add_regions(struct maker *m, const struct prep_volumes *v, struct prep_err *err)
{
	struct region part[PREP_PARTITIONS_MAX];
	const unsigned n = v != NULL ? v->n : 0;
	uint64_t at = 0;
	size_t next = 0;

	for (unsigned i = 0; i < n; i++)
		part[i] = (struct region){
			.off = v->volume[i].part->off,
			.end = v->volume[i].part->off + v->volume[i].part->len,
			.volume = (uint8_t)v->volume[i].part->number,
		};
	qsort(part, n, sizeof *part, by_partition);
	for (unsigned i = 0; i < n; i++) {
		const struct region gap = { at, part[i].off, 0 };

		if (add_region(m, &gap, &next, err) < 0 || add_region(m, &part[i], &next, err) < 0)
			return -1;
		at = part[i].end;
	}
	return add_region(m, &(struct region){ at, m->disk->size, 0 }, &next, err);
}

/* ---- The whole ---- */

static enum class class_of(const struct prep_layout_stream *s)
{
	if (s->is_file)
		return CLASS_FILES;
	if (s->path[0] != '\0')
		return CLASS_METADATA;
	return s->block != 0 ? CLASS_UNITS : CLASS_PIECES;
}

static int by_path(const void *a, const void *b)
{
	const struct prep_layout_stream *x = a, *y = b;
	int r = (x->volume > y->volume) - (x->volume < y->volume);

	if (r == 0)
		r = (int)class_of(x) - (int)class_of(y);
	if (r == 0)
		r = strcmp(x->path, y->path);
	/* Streams began in a fixed order: an order of their own for those without a path. */
	return r != 0 ? r : (x->first > y->first) - (x->first < y->first);
}

/* Leave out empty streams, and order the rest. */
static void arrange(struct prep_layout *l)
{
	size_t kept = 0;

	for (size_t i = 0; i < l->streams; i++)
		if (l->stream[i].size > 0)
			l->stream[kept++] = l->stream[i];
	l->streams = kept;
	if (kept > 0)
		qsort(l->stream, kept, sizeof *l->stream, by_path);
}

static int make(struct maker *m, struct prep_err *err)
{
	struct prep_err e = PREP_ERR_INIT;
	struct prep_volumes *v = NULL;
	int r = 0;

	if (prep_volumes_open(m->disk, &v, &e) < 0) {
		if (e.code != PREP_EDAMAGED && e.code != PREP_EREFUSED)
			return prep_fail(err, e.code, "%s", e.msg);
		prep_note(&m->l->notes, "%s: packed without regard to partitions", e.msg);
	}
	for (unsigned i = 0; v != NULL && i < v->n && r == 0; i++)
		if (prep_fs_known(v->volume[i].kind))
			r = walk_volume(m, &v->volume[i], err);
	if (r == 0)
		r = settle_claims(m, err);
	if (r == 0)
		r = add_regions(m, v, err);
	prep_volumes_close(v);
	return r;
}

int prep_layout_make(struct prep_disk *d, struct prep_pool *pool, struct prep_layout *ret,
		     const struct prep_progress *progress, struct prep_err *err)
{
	struct maker m = { .l = ret, .disk = d, .pool = pool, .progress = progress };
	int r;

	*ret = (struct prep_layout){ .disk = d };
	r = make(&m, err);
	free(m.claim);
	free(m.small);
	if (r == 0)
		arrange(ret);
	else
		prep_layout_clear(ret);
	return r;
}

void prep_layout_clear(struct prep_layout *l)
{
	for (size_t i = 0; i < l->paths; i++)
		free(l->path[i]);
	free(l->path);
	free(l->stream);
	free(l->piece);
	prep_notes_clear(&l->notes);
	*l = (struct prep_layout){ .streams = 0 };
}

/* The piece of the stream that holds `at`, which is below its size. */
static const struct prep_layout_piece *find_piece(const struct prep_layout *l,
						  const struct prep_layout_stream *s, uint64_t at)
{
	size_t from = s->first, to = s->first + s->pieces - 1;

	while (from < to) {
		const size_t mid = from + (to - from + 1) / 2;

		if (l->piece[mid].at <= at)
			from = mid;
		else
			to = mid - 1;
	}
	return &l->piece[from];
}

int prep_layout_read(const struct prep_layout *l, const struct prep_layout_stream *s,
		     void *buf, size_t len, uint64_t at, struct prep_err *err)
{
	const struct prep_layout_piece *p;
	uint8_t *to = buf;

	if (len == 0)
		return 0;
	for (p = find_piece(l, s, at);; p++) {
		const uint64_t skip = at - p->at;
		const size_t n = (size_t)prep_min(len, p->len - skip);

		if (p->off == PREP_LAYOUT_HOLE)
			memset(to, 0, n);
		else if (prep_disk_read(l->disk, to, n, p->off + skip, err) < 0)
			return -1;
		to += n;
		at += n;
		len -= n;
		if (len == 0)
			return 0;
	}
}

int prep_layout_zeros(const struct prep_layout *l, const struct prep_layout_stream *s,
		      uint64_t at, uint64_t end, uint64_t *ret, struct prep_err *err)
{
	const struct prep_layout_piece *p;

	*ret = at;
	for (p = find_piece(l, s, at); *ret < end; p++) {
		const uint64_t stop = prep_min(p->at + p->len, end);
		struct prep_extent e;

		while (*ret < stop && p->off != PREP_LAYOUT_HOLE) {
			const uint64_t off = p->off + (*ret - p->at);

			if (prep_disk_extent(l->disk, off, off + (stop - *ret), &e, err) < 0)
				return -1;
			if (e.kind == PREP_EXTENT_DATA)
				return 0;
			*ret += e.len;
		}
		*ret = stop;
	}
	return 0;
}
