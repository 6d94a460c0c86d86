/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/plan.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "libprep/base/bytes.h"

/* What clients with a base need of a package stands together. */
enum class {
	KEPT,     /* all bases hold it, or it is left to patches */
	PATCHED,  /* new, but in patches too */
	NEW,
};

#define CODE_FRAMES 2 /* times as large as others, frames of programs are */

/* A chunk, and what its place depends on. */
struct place {
	uint8_t class;
	uint8_t content;
	bool dense;
	uint32_t rank;    /* of its stream */
	uint32_t chunk;   /* of the survey: ascending within a stream */
};

static int by_place(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	if (x->class != y->class)
		return x->class < y->class ? -1 : 1;
	if (x->content != y->content)
		return x->content < y->content ? -1 : 1;
	/* A codec would look at these in vain, and see less of the others. */
	if (x->dense != y->dense)
		return x->dense ? 1 : -1;
	if (x->rank != y->rank)
		return x->rank < y->rank ? -1 : 1;
	return (x->chunk > y->chunk) - (x->chunk < y->chunk);
}

static const char *file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

static int by_file_name(const void *a, const void *b, void *arg)
{
	const struct prep_layout *l = arg;
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	const int r = strcasecmp(file_name(l->stream[x].path), file_name(l->stream[y].path));

	return r != 0 ? r : (x > y) - (x < y);
}

/*
 * The streams' ranks: by the file's name, whatever its folder. The versions of a file
 * that Windows keeps side by side (in WinSxS, for x86 and x64) come to stand
 * together so, which measured better than an order by folders.
 */
static uint32_t *rank_streams(const struct prep_layout *l, struct prep_err *err)
{
	uint32_t *order = malloc((l->streams + 1) * sizeof *order);
	uint32_t *rank = malloc((l->streams + 1) * sizeof *rank);

	if (order == NULL || rank == NULL) {
		free(order);
		free(rank);
		prep_fail_nomem(err);
		return NULL;
	}
	for (uint32_t i = 0; i < l->streams; i++)
		order[i] = i;
	qsort_r(order, l->streams, sizeof *order, by_file_name, (void *)l);
	for (uint32_t i = 0; i < l->streams; i++)
		rank[order[i]] = i;
	free(order);
	return rank;
}

static enum class class_of(const struct prep_survey *s, const struct prep_plan_how *how, uint32_t chunk)
{
	for (unsigned i = 0; i < how->bases; i++) {
		if (prep_chunk_table_find(how->base[i], s->chunk[chunk].digest) != UINT32_MAX)
			continue;
		if (how->patched != NULL && prep_bit_get(how->patched, chunk))
			return how->patches_only ? KEPT : PATCHED;
		return NEW;
	}
	return KEPT;
}

static struct place *order_chunks(const struct prep_survey *s, const struct prep_plan_how *how, struct prep_err *err)
{
	uint32_t *rank = rank_streams(&s->layout, err);
	struct place *place = NULL;

	if (rank == NULL)
		goto out;
	place = malloc(((size_t)s->chunks + 1) * sizeof *place);
	if (place == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	for (uint32_t i = 0; i < s->chunks; i++)
		place[i] = (struct place){
			.class = (uint8_t)class_of(s, how, i),
			.content = s->layout.stream[s->chunk[i].stream].content,
			.dense = s->chunk[i].dense,
			.rank = rank[s->chunk[i].stream],
			.chunk = i,
		};
	qsort(place, s->chunks, sizeof *place, by_place);
out:
	free(rank);
	return place;
}

static struct prep_frame *start_frame(struct prep_plan *p, size_t *room, uint8_t content, struct prep_err *err)
{
	struct prep_ckm_index *in = &p->index;

	if (in->frames == PREP_CKM_FRAMES_MAX) {
		prep_fail(err, PREP_EREFUSED, "more frames than a package can hold");
		return NULL;
	}
	if (in->frames == *room) {
		const size_t more = *room != 0 ? *room * 2 : 64;
		struct prep_frame *frame = reallocarray(in->frame, more, sizeof *frame);
		uint8_t *kind;

		if (frame != NULL)
			in->frame = frame;
		kind = reallocarray(p->content, more, 1);
		if (kind != NULL)
			p->content = kind;
		if (frame == NULL || kind == NULL) {
			prep_fail_nomem(err);
			return NULL;
		}
		*room = more;
	}
	p->content[in->frames] = content;
	in->frame[in->frames] = (struct prep_frame){ .size = 0 };
	return &in->frame[in->frames++];
}

/* Bytes from which a file has frames of its own. */
#define LARGE (256u << 10)

/* Names of files that may be versions of one another: the same for at least half of the shorter one. */
static bool alike(const char *a, const char *b)
{
	const size_t shorter = prep_min(strlen(a), strlen(b));
	size_t same = 0;

	while (same < shorter && tolower((unsigned char)a[same]) == tolower((unsigned char)b[same]))
		same++;
	return same * 2 >= shorter;
}

/*
 * Whether a frame must end between two neighbouring chunks. Who has a large file,
 * in an older image or a folder of the host, needs none of its frames; who has it
 * not needs all of them. Measured: packages grow by 1.2 to 1.6 % (4 % if versions of a
 * file stood apart too), and a host with a ninth of the data fetches 93 % of them,
 * instead of all. (What the base does not hold everyone lacks.)
 */
static bool stands_apart(const struct prep_survey *s, const struct place *a, const struct place *b)
{
	const struct prep_layout_stream *x = &s->layout.stream[s->chunk[a->chunk].stream];
	const struct prep_layout_stream *y = &s->layout.stream[s->chunk[b->chunk].stream];

	return x != y && b->class != NEW && (x->size >= LARGE || y->size >= LARGE) &&
	       !alike(file_name(x->path), file_name(y->path));
}

/*
 * Programs come in many versions that are nearly the same, megabytes apart: measured,
 * twice the frame takes 7 % off them, 1 % off all else.
 */
static uint32_t frame_size(const struct prep_plan_how *how, uint8_t content)
{
	const bool code = content == PREP_CONTENT_PE || content == PREP_CONTENT_DOTNET;

	return code ? (uint32_t)prep_min((uint64_t)how->frame_size * CODE_FRAMES, PREP_CKM_FRAME_MAX) : how->frame_size;
}

/* Fill frames in that order; a frame holds one kind of content, dense or not. */
static int fill_frames(const struct prep_survey *s, const struct prep_plan_how *how,
		       const struct place *place, struct prep_plan *p, uint32_t *number,
		       struct prep_err *err)
{
	struct prep_ckm_index *in = &p->index;
	struct prep_frame *f = NULL;
	uint32_t limit = how->frame_size;
	size_t room = 0;

	for (uint32_t i = 0; i < s->chunks; i++) {
		const struct prep_survey_chunk *c = &s->chunk[place[i].chunk];
		const bool absent = how->difference && place[i].class == KEPT;

		if (f == NULL || f->size + c->size > limit || place[i].content != p->content[in->frames - 1] ||
		    place[i].class != place[i - 1].class || place[i].dense != place[i - 1].dense ||
		    (!absent && stands_apart(s, &place[i - 1], &place[i]))) {
			f = start_frame(p, &room, place[i].content, err);
			if (f == NULL)
				return -1;
			f->first_chunk = i;
			f->kind = absent ? PREP_FRAME_ABSENT : PREP_FRAME_PLAIN;
			limit = absent ? PREP_CKM_FRAME_MAX : frame_size(how, place[i].content);
			p->kept_frames += how->bases > 0 && place[i].class == KEPT;
		}
		in->chunk[i] = (struct prep_chunk){ .size = c->size, .frame = in->frames - 1, .at = f->size };
		memcpy(in->chunk[i].digest, c->digest, PREP_DIGEST_SIZE);
		p->source[i] = place[i].chunk;
		number[place[i].chunk] = i;
		f->size += c->size;
		f->chunks++;
	}
	in->chunks = s->chunks;
	return 0;
}

/* The runs of one stream, as its chunks come. */
struct run_writer {
	struct prep_ckm_index *in;
	size_t room;
	const struct prep_layout_piece *piece; /* of the stream in the layout */
	struct prep_stream *to;
};

/* [at, at+len) of the stream holds a chunk: note where on the disk that is. */
static int add_runs(struct run_writer *w, uint64_t at, uint64_t len, struct prep_err *err)
{
	struct prep_ckm_index *in = w->in;

	while (len > 0) {
		struct prep_run *last = w->to->runs > 0 && in->run != NULL ? &in->run[in->runs - 1] : NULL;
		uint64_t off, n;

		while (at >= w->piece->at + w->piece->len)
			w->piece++;
		off = w->piece->off + (at - w->piece->at);
		n = prep_min(len, w->piece->at + w->piece->len - at);
		at += n;
		len -= n;
		if (last != NULL && last->off + last->len == off) {
			last->len += n;
			continue;
		}
		if (in->run == NULL || in->runs == w->room) {
			const size_t room = w->room != 0 ? w->room * 2 : 1024;
			struct prep_run *more = reallocarray(in->run, room, sizeof *more);

			if (in->runs == PREP_CKM_RUNS_MAX)
				return prep_fail(err, PREP_EREFUSED, "more fragments than a package can hold");
			if (more == NULL)
				return prep_fail_nomem(err);
			in->run = more;
			w->room = room;
		}
		in->run[in->runs++] = (struct prep_run){ off, n };
		w->to->runs++;
	}
	return 0;
}

static int fill_streams(const struct prep_survey *s, const uint32_t *number, struct prep_plan *p,
			struct prep_err *err)
{
	struct prep_ckm_index *in = &p->index;
	struct run_writer w = { .in = in };

	for (size_t i = 0; i < s->layout.streams; i++) {
		const struct prep_layout_stream *from = &s->layout.stream[i];

		/* Nothing but zeros. */
		if (s->first_ref[i] == s->first_ref[i + 1])
			continue;
		w.to = &in->stream[in->streams++];
		w.piece = &s->layout.piece[from->first];
		*w.to = (struct prep_stream){
			.path = from->path, .content = from->content, .volume = from->volume,
			.first_ref = in->refs, .first_run = in->runs,
		};
		for (size_t k = s->first_ref[i]; k < s->first_ref[i + 1]; k++) {
			const struct prep_survey_chunk *c = &s->chunk[s->ref[k].chunk];

			in->ref[in->refs++] = number[s->ref[k].chunk];
			w.to->refs++;
			w.to->size += c->size;
			if (add_runs(&w, s->ref[k].at, c->size, err) < 0)
				return -1;
		}
	}
	return 0;
}

int prep_plan_make(const struct prep_survey *s, const struct prep_plan_how *how,
		   struct prep_plan *ret, struct prep_err *err)
{
	uint32_t *number = calloc((size_t)s->chunks + 1, sizeof *number); /* of a survey's chunk: the index's */
	struct place *place = NULL;
	int r = -1;

	*ret = (struct prep_plan){ .kept_frames = 0 };
	ret->source = calloc((size_t)s->chunks + 1, sizeof *ret->source);
	ret->index.chunk = calloc((size_t)s->chunks + 1, sizeof *ret->index.chunk);
	ret->index.stream = calloc(s->layout.streams + 1, sizeof *ret->index.stream);
	ret->index.ref = calloc(s->refs + 1, sizeof *ret->index.ref);
	if (number == NULL || ret->source == NULL || ret->index.chunk == NULL || ret->index.stream == NULL ||
	    ret->index.ref == NULL)
		prep_fail_nomem(err);
	else
		place = order_chunks(s, how, err);
	if (place != NULL && fill_frames(s, how, place, ret, number, err) == 0)
		r = fill_streams(s, number, ret, err);
	free(place);
	free(number);
	if (r < 0)
		prep_plan_clear(ret);
	return r;
}

void prep_plan_clear(struct prep_plan *p)
{
	prep_ckm_index_clear(&p->index);
	free(p->source);
	free(p->content);
	free(p->reference);
	*p = (struct prep_plan){ .kept_frames = 0 };
}
