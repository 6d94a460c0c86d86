/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/restore.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/trim/places.h"
#include "libprep/trim/reference.h"
#include "libprep/trim/resume.h"
#include "libprep/trim/target.h"
#include "libprep/trim/writer.h"

#define ROUNDS_MAX 64u  /* a seed that is wrong once more after so many is not looked into again */
#define SEED_BATCH 128u /* chunks of one file or stream that a thread takes at once */

/* A chunk to be read from a seed. */
struct fetch {
	uint32_t origin, chunk; /* in the supply; in its catalog */
	uint32_t wanted;        /* in the index: a chunk, or */
	bool reference;         /* a reference, only to be checked */
};

enum outcome { UNTRIED, GOOD, BAD };

struct restore {
	const struct prep_restore *how;
	const struct prep_ckm_index *index;
	struct prep_restore_report *report;
	struct prep_writer writer;

	/* From seeds. */
	struct fetch *fetch;
	uint32_t fetches;
	uint32_t *batch;        /* where each begins in fetch[], and the end */
	uint32_t batches;
	uint8_t *outcome;       /* of each fetch: enum outcome */
	unsigned rounds;

	/* From frames. */
	bool unpacks;           /* those that the supply names; else seeds alone are read */
	uint32_t stored_max, size_max, reference_max;
	_Atomic uint64_t frames, frame_bytes, patches, patch_bytes;
};

/* What a thread works with. */
struct tools {
	struct prep_seed_reader reader;
	uint8_t *chunk;                  /* of a seed */
	uint8_t *stored, *reference, *data; /* of a frame: packed, what a patch is made of, unpacked */
};

/* ---- Seeds ---- */

static int by_place(const void *a, const void *b)
{
	const struct fetch *x = a, *y = b;

	if (x->origin != y->origin)
		return x->origin < y->origin ? -1 : 1;
	if (x->chunk != y->chunk)
		return x->chunk < y->chunk ? -1 : 1;
	return x->reference - y->reference;
}

static bool same_place(const struct fetch *a, const struct fetch *b)
{
	return a->origin == b->origin && a->chunk == b->chunk;
}

static uint32_t size_of(const struct restore *r, const struct fetch *f)
{
	return f->reference ? r->index->reference[f->wanted].size : r->index->chunk[f->wanted].size;
}

/*
 * Whether f begins a batch: another item than that of the one before, or a batch is full. A
 * package's frame is never divided: who takes the second half would wait until it is unpacked for the first.
 */
static bool begins_batch(const struct prep_supply *supply, const struct fetch *f, bool same_item, uint32_t in_batch)
{
	const struct prep_supply_origin *o = &supply->origin[f->origin];

	return !same_item || (in_batch >= SEED_BATCH && !same_place(f, f - 1) &&
			      o->catalog->origin[o->origin].kind != PREP_ORIGIN_PACKAGE);
}

/* Of the sorted fetches those from where a reference is: what is wanted and referred to is read once. */
static void keep_references(struct restore *r)
{
	uint32_t kept = 0, end;

	for (uint32_t i = 0; i < r->fetches; i = end) {
		bool any = false;

		for (end = i; end < r->fetches && same_place(&r->fetch[end], &r->fetch[i]); end++)
			any |= r->fetch[end].reference;
		for (uint32_t k = i; k < end && any; k++)
			r->fetch[kept++] = r->fetch[k];
	}
	r->fetches = kept;
}

static void divide(struct restore *r)
{
	const struct prep_supply *supply = r->how->supply;
	uint32_t item = 0, in_batch = 0;

	for (uint32_t i = 0; i < r->fetches; i++) {
		const struct fetch *f = &r->fetch[i];
		const uint32_t this = prep_catalog_item_of(supply->origin[f->origin].catalog, f->chunk);

		if (begins_batch(supply, f, i > 0 && f->origin == f[-1].origin && this == item, in_batch)) {
			r->batch[r->batches++] = i;
			in_batch = 0;
		}
		item = this;
		in_batch++;
	}
	r->batch[r->batches] = r->fetches;
}

/*
 * What is to be taken from seeds, in the order in which it is best read, in batches. While references
 * are not known to be good: what is where they are, and no more.
 */
static int list_fetches(struct restore *r, uint64_t *bytes, struct prep_err *err)
{
	const struct prep_supply *supply = r->how->supply;
	const size_t most = (size_t)supply->local_chunks + supply->unchecked;

	r->fetches = r->batches = 0;
	r->fetch = malloc((most + 1) * sizeof *r->fetch);
	r->batch = malloc((most + 2) * sizeof *r->batch);
	r->outcome = calloc(most + 1, 1);
	if (r->fetch == NULL || r->batch == NULL || r->outcome == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < r->index->chunks; i++)
		if (supply->from[i].origin < supply->origins)
			r->fetch[r->fetches++] = (struct fetch){ supply->from[i].origin, supply->from[i].chunk, i, false };
	for (uint32_t i = 0; supply->unchecked > 0 && i < r->index->references; i++) {
		const struct prep_supply_reference *ref = &supply->reference[i];

		if (ref->used && !ref->good)
			r->fetch[r->fetches++] = (struct fetch){ ref->from.origin, ref->from.chunk, i, true };
	}
	qsort(r->fetch, r->fetches, sizeof *r->fetch, by_place);
	if (supply->unchecked > 0)
		keep_references(r);
	divide(r);
	for (uint32_t i = 0; i < r->fetches; i++)
		*bytes += size_of(r, &r->fetch[i]);
	return 0;
}

static int read_batch(struct restore *r, struct tools *t, uint32_t batch, struct prep_crew *crew,
		      struct prep_err *err)
{
	const struct prep_restore *how = r->how;
	struct prep_writer_pending pending = { .len = 0 };
	int ok = 0;

	for (uint32_t i = r->batch[batch]; i < r->batch[batch + 1] && !atomic_load(&crew->stop); i++) {
		const struct fetch *f = &r->fetch[i];

		/* What is wanted and referred to is read once. */
		if (i == r->batch[batch] || !same_place(f, f - 1))
			ok = prep_seed_read(&t->reader, prep_seed_of(how->supply, f->origin, how->seed, how->seeds),
					    f->chunk, t->chunk, err);
		if (ok < 0 || (ok == 1 && !f->reference &&
			       (prep_writer_chunk(&r->writer, &pending, f->wanted, t->chunk, err) < 0 ||
				prep_writer_flush(&r->writer, &pending, err) < 0)))
			return -1;
		r->outcome[i] = ok == 1 ? GOOD : BAD;
		atomic_fetch_add(&crew->done, size_of(r, f));
	}
	return 0;
}

/* Tell the supply what the seeds had, and what of it was something else. */
static void settle_seeds(struct restore *r)
{
	struct prep_supply *supply = r->how->supply;

	for (uint32_t i = 0; i < r->fetches; i++) {
		const struct fetch *f = &r->fetch[i];

		if (r->outcome[i] == GOOD && f->reference) {
			prep_supply_reference_good(supply, f->wanted);
		} else if (r->outcome[i] == GOOD) {
			r->report->seed_chunks++;
			r->report->seed_bytes += size_of(r, f);
			prep_supply_here(supply, f->wanted);
		} else {
			if (!supply->origin[f->origin].catalog->unfinished) {
				r->report->bad_chunks++;
				r->report->bad_bytes += size_of(r, f);
			}
			supply->origin[f->origin].catalog->doubted |= r->rounds > ROUNDS_MAX;
			if (f->reference)
				prep_supply_reference_bad(supply, f->wanted);
			else
				prep_supply_bad(supply, f->wanted);
		}
	}
}

/* ---- Frames ---- */

static int write_frame(struct restore *r, uint32_t i, const uint8_t *data, struct prep_err *err)
{
	const struct prep_frame *f = &r->index->frame[i];
	struct prep_writer_pending pending = { .len = 0 };

	for (uint32_t k = 0; k < f->chunks; k++) {
		const uint32_t chunk = prep_frame_chunk(r->index, f, k);
		const struct prep_supply_from *from = &r->how->supply->from[chunk];

		if (from->origin == PREP_FROM_FRAME && from->chunk == i &&
		    prep_writer_chunk(&r->writer, &pending, chunk, data, err) < 0)
			return -1;
		data += r->index->chunk[chunk].size;
	}
	return prep_writer_flush(&r->writer, &pending, err);
}

/* Of a patch frame: its references, once more, from the seeds that had them a moment ago. */
static int read_reference(const struct restore *r, struct tools *t, uint32_t i, struct prep_err *err)
{
	const struct prep_restore *how = r->how;
	const struct prep_catalog *c;
	uint32_t bad = 0;
	int ok;

	if (r->index->frame[i].kind != PREP_FRAME_PATCH)
		return 0;
	ok = prep_reference_read(&t->reader, how->supply, how->seed, how->seeds, i, t->reference, &bad, err);
	if (ok != 0)
		return ok < 0 ? -1 : 0;
	c = how->supply->origin[how->supply->reference[bad].from.origin].catalog;
	return prep_fail(err, PREP_EFAIL, "%s: changed while it was read",
			 c->origin[how->supply->origin[how->supply->reference[bad].from.origin].origin].path);
}

/* The frame whose packed bytes are in t->stored. */
static int unpack_frame(struct restore *r, struct tools *t, uint32_t i, struct prep_crew *crew, struct prep_err *err)
{
	const struct prep_frame_source *source = r->how->source;
	struct prep_err why = PREP_ERR_INIT;

	if (read_reference(r, t, i, err) < 0)
		return -1;
	if (prep_ckm_decode_frame(r->how->package, i, t->stored, t->reference, t->data, &why) < 0)
		return why.code != PREP_EDAMAGED ? prep_fail(err, why.code, "%s", why.msg)
						 : source->bad(source->arg, i, &why, err);
	if (write_frame(r, i, t->data, err) < 0 || source->done(source->arg, i, err) < 0)
		return -1;
	atomic_fetch_add(&crew->done, r->index->frame[i].stored);
	atomic_fetch_add(&r->frames, 1);
	atomic_fetch_add(&r->frame_bytes, r->index->frame[i].stored);
	if (r->index->frame[i].kind == PREP_FRAME_PATCH) {
		atomic_fetch_add(&r->patches, 1);
		atomic_fetch_add(&r->patch_bytes, r->index->frame[i].stored);
	}
	return 0;
}

static void measure_frames(struct restore *r)
{
	const struct prep_supply *supply = r->how->supply;

	for (uint32_t i = 0; i < supply->frames; i++) {
		const struct prep_frame *f = &r->index->frame[supply->frame[i]];

		r->stored_max = (uint32_t)prep_max(r->stored_max, f->stored);
		r->size_max = (uint32_t)prep_max(r->size_max, f->size);
		if (f->kind == PREP_FRAME_PATCH)
			r->reference_max = (uint32_t)prep_max(r->reference_max,
							      prep_frame_patch(r->index, supply->frame[i])->size);
	}
}

/* Every needed frame has been unpacked. */
static void settle_frames(struct restore *r)
{
	struct prep_supply *supply = r->how->supply;

	for (uint32_t i = 0; i < r->index->chunks; i++)
		if (supply->from[i].origin == PREP_FROM_FRAME)
			prep_supply_here(supply, i);
}

/* ---- Both at once ---- */

/* A frame that has come is unpacked; while none has, seeds are read; and when that is done, frames are waited for. */
static int take_turns(struct restore *r, struct tools *t, struct prep_crew *crew, struct prep_err *err)
{
	const struct prep_frame_source *source = r->how->source;

	while (!atomic_load(&crew->stop)) {
		const bool wait = atomic_load(&crew->next) >= r->batches;
		uint32_t i;
		int got = 0;

		if (r->unpacks)
			got = source->next(source->arg, crew, wait, t->stored, &i, err);
		if (got < 0 || (got > 0 && unpack_frame(r, t, i, crew, err) < 0))
			return -1;
		if (got > 0)
			continue;
		if (wait)
			return 0;
		i = atomic_fetch_add(&crew->next, 1);
		if (i < r->batches && read_batch(r, t, i, crew, err) < 0)
			return -1;
	}
	return 0;
}

static int work(struct prep_crew *crew, void *arg, struct prep_err *err)
{
	struct restore *r = arg;
	struct tools t = {
		.reader = { .fd = -1 },
		.chunk = malloc(r->batches > 0 ? PREP_CKM_CHUNK_MAX : 1),
		.stored = malloc((size_t)r->stored_max + 1), .reference = malloc((size_t)r->reference_max + 1),
		.data = malloc((size_t)r->size_max + 1),
	};
	int ret;

	if (t.chunk == NULL || t.stored == NULL || t.reference == NULL || t.data == NULL)
		ret = prep_fail_nomem(err);
	else
		ret = prep_seed_reader_open(&t.reader, err);
	if (ret == 0)
		ret = take_turns(r, &t, crew, err);
	prep_seed_reader_close(&t.reader);
	free(t.chunk);
	free(t.stored);
	free(t.reference);
	free(t.data);
	return ret;
}

/*
 * What the supply says, once: references are checked before the first frame is asked for, then chunks come from seeds
 * and frames at once.
 */
static int run_round(struct restore *r, const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_supply *supply = r->how->supply;
	const struct prep_frame_source *source = r->how->source;
	struct prep_crew crew = { .what = "copying local data" };
	int ret = list_fetches(r, &crew.total, err);

	r->rounds++;
	r->unpacks = supply->unchecked == 0 && supply->frames > 0;
	if (ret == 0 && r->unpacks) {
		crew.what = source->what;
		crew.total += supply->frame_bytes;
		measure_frames(r);
		ret = source->start(source->arg, supply, err);
	}
	if (ret == 0)
		ret = prep_crew_run(&crew, r->how->jobs, work, r, progress, err);
	if (ret == 0 && r->unpacks)
		settle_frames(r);
	if (ret == 0)
		settle_seeds(r);
	free(r->fetch);
	free(r->batch);
	free(r->outcome);
	return ret;
}

/*
 * What one seed promised in vain another may hold, or else a frame: each round settles every
 * chunk or reference that it tries. A list of the same files under ever new names would make for ever more rounds.
 */
static int run_rounds(struct restore *r, const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_supply *supply = r->how->supply;

	for (;;) {
		if (prep_supply_make(supply, err) < 0 || prep_supply_check(supply, "the package", err) < 0)
			return -1;
		if (supply->local_chunks + supply->unchecked + supply->frames == 0)
			break;
		if (run_round(r, progress, err) < 0)
			return -1;
	}
	r->report->frames = atomic_load(&r->frames);
	r->report->frame_bytes = atomic_load(&r->frame_bytes);
	r->report->patches = atomic_load(&r->patches);
	r->report->patch_bytes = atomic_load(&r->patch_bytes);
	return 0;
}

/* ---- The frames of a package file ---- */

static int package_start(void *arg, const struct prep_supply *supply, struct prep_err *err)
{
	struct prep_package_source *ps = arg;

	(void)err;
	ps->supply = supply;
	atomic_store(&ps->next, 0);
	return 0;
}

static int package_next(void *arg, struct prep_crew *crew, bool wait, uint8_t *buf, uint32_t *frame,
			struct prep_err *err)
{
	struct prep_package_source *ps = arg;
	uint32_t n = atomic_load(&ps->next);

	(void)wait;
	while (n < ps->supply->frames && !atomic_compare_exchange_weak(&ps->next, &n, n + 1))
		;
	if (n >= ps->supply->frames || atomic_load(&crew->stop))
		return 0;
	*frame = ps->supply->frame[n];
	return prep_ckm_read_frame(ps->package, *frame, buf, err) < 0 ? -1 : 1;
}

static int package_done(void *arg, uint32_t frame, struct prep_err *err)
{
	(void)arg;
	(void)frame;
	(void)err;
	return 0;
}

static int package_bad(void *arg, uint32_t frame, const struct prep_err *why, struct prep_err *err)
{
	(void)arg;
	(void)frame;
	return prep_fail(err, why->code, "%s", why->msg);
}

void prep_package_source(struct prep_ckm *package, struct prep_package_source *ps,
			 struct prep_frame_source *ret)
{
	*ps = (struct prep_package_source){ .package = package };
	*ret = (struct prep_frame_source){ "unpacking", package_start, package_next, package_done, package_bad, ps };
}

/* ---- The whole ---- */

int prep_restore(const struct prep_restore *how, struct prep_restore_report *report,
		 const struct prep_progress *progress, struct prep_err *err)
{
	struct restore r = { .how = how, .index = prep_ckm_index(how->package), .report = report };
	int ret;

	*report = (struct prep_restore_report){ 0 };
	if (prep_writer_open(r.index, how->how, how->out, how->resume, &r.writer, err) < 0)
		return -1;
	report->file_size = r.writer.target.file_size;
	report->blocks = r.writer.target.present;
	ret = how->resume ? prep_resume(&r.writer, how->supply, how->jobs, &report->resumed_bytes, progress, err) : 0;
	if (ret == 0)
		ret = run_rounds(&r, progress, err);
	prep_writer_close(&r.writer);
	return ret;
}
