/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Patches that were found, as frames of a plan. */
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/patch_plan.h"

struct adder {
	const struct prep_patches *patches;
	const struct prep_survey *survey;
	const struct prep_base *base;
	unsigned bases;
	struct prep_plan *plan;
	uint32_t *number;     /* of each chunk of the survey: that of the index */
	uint32_t *reference;  /* of the chunks of all bases: the number among the references, or UINT32_MAX */
	size_t *first;        /* of each base: where its chunks begin there */
};

static uint32_t *number_of(const struct adder *a, const struct prep_plan_reference *r)
{
	return &a->reference[a->first[r->base] + r->chunk];
}

/* The same chunk in another base is the same reference: the first that can give it stands for all. */
static struct prep_plan_reference first_of(const struct adder *a, uint32_t base, uint32_t chunk)
{
	const uint8_t *digest = a->base[base].index->chunk[chunk].digest;

	for (uint32_t b = 0; b < base; b++) {
		const uint32_t same = prep_chunk_table_find(a->base[b].table, digest);

		if (same != UINT32_MAX && prep_base_readable(&a->base[b], same))
			return (struct prep_plan_reference){ b, same };
	}
	return (struct prep_plan_reference){ base, chunk };
}

static int by_home(const void *x, const void *y, void *arg)
{
	const struct prep_plan_reference *p = x, *q = y;
	const struct prep_base *base = arg;
	const struct prep_base_home *h, *i;

	if (p->base != q->base)
		return p->base < q->base ? -1 : 1;
	h = &base[p->base].home[p->chunk];
	i = &base[q->base].home[q->chunk];
	if (h->stream != i->stream)
		return h->stream < i->stream ? -1 : 1;
	return h->at < i->at ? -1 : h->at > i->at;
}

/* List what the groups refer to, each chunk once, in the order in which it stands in the bases. */
static int add_references(struct adder *a, struct prep_err *err)
{
	struct prep_ckm_index *in = &a->plan->index;
	const struct prep_patches *p = a->patches;

	a->plan->reference = malloc(((size_t)p->references + 1) * sizeof *a->plan->reference);
	if (a->plan->reference == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < p->groups; i++) {
		const struct prep_patch_group *g = &p->group[i];

		for (uint32_t k = 0; g->worth && k < g->references; k++) {
			const struct prep_plan_reference r = first_of(a, g->base, p->reference[g->first_reference + k]);
			uint32_t *number = number_of(a, &r);

			/* A group is of one of the bases. */
			if (*number != UINT32_MAX) /* NOLINT(clang-analyzer-core.NullDereference) */
				continue;
			*number = in->references;
			a->plan->reference[in->references++] = r;
		}
	}
	qsort_r(a->plan->reference, in->references, sizeof *a->plan->reference, by_home, (void *)a->base);
	in->reference = calloc((size_t)in->references + 1, sizeof *in->reference);
	if (in->reference == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < in->references; i++) {
		const struct prep_plan_reference *r = &a->plan->reference[i];
		const struct prep_chunk *c = &a->base[r->base].index->chunk[r->chunk];

		*number_of(a, r) = i;
		memcpy(in->reference[i].digest, c->digest, PREP_DIGEST_SIZE);
		in->reference[i].size = c->size;
	}
	return 0;
}

static int ascending(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void add_frame(struct adder *a, const struct prep_patch_group *g)
{
	struct prep_ckm_index *in = &a->plan->index;
	const struct prep_patches *p = a->patches;
	const struct prep_survey_chunk *first = &a->survey->chunk[p->chunk[g->first_chunk]];
	struct prep_patch *patch = &in->patch[in->patches];
	uint32_t *chunk = in->patch_chunk + in->patch_chunks;
	uint32_t *reference = in->patch_reference + in->patch_references;

	*patch = (struct prep_patch){ .first = in->patch_references, .references = g->references,
				      .size = g->reference_size };
	in->frame[in->frames] = (struct prep_frame){
		.size = g->size, .kind = PREP_FRAME_PATCH, .first_chunk = in->patch_chunks, .chunks = g->chunks,
	};
	a->plan->content[in->frames] = a->survey->layout.stream[first->stream].content;
	for (uint32_t k = 0; k < g->chunks; k++)
		chunk[k] = a->number[p->chunk[g->first_chunk + k]];
	for (uint32_t k = 0; k < g->references; k++) {
		const struct prep_plan_reference r = first_of(a, g->base, p->reference[g->first_reference + k]);

		reference[k] = *number_of(a, &r);
	}
	qsort(chunk, g->chunks, sizeof *chunk, ascending);
	qsort(reference, g->references, sizeof *reference, ascending);
	in->frames++;
	in->patches++;
	in->patch_chunks += g->chunks;
	in->patch_references += g->references;
}

static int add_frames(struct adder *a, struct prep_err *err)
{
	struct prep_ckm_index *in = &a->plan->index;
	const struct prep_patches *p = a->patches;
	struct prep_frame *frame;
	uint32_t groups = 0;
	uint8_t *content;

	for (uint32_t i = 0; i < p->groups; i++)
		groups += p->group[i].worth;
	if (groups > PREP_CKM_FRAMES_MAX - in->frames)
		return prep_fail(err, PREP_EREFUSED, "more frames than a package can hold");
	frame = reallocarray(in->frame, (size_t)in->frames + groups + 1, sizeof *frame);
	if (frame != NULL)
		in->frame = frame;
	content = realloc(a->plan->content, (size_t)in->frames + groups + 1);
	if (content != NULL)
		a->plan->content = content;
	in->patch = calloc((size_t)groups + 1, sizeof *in->patch);
	in->patch_chunk = calloc((size_t)p->chunks + 1, sizeof *in->patch_chunk);
	in->patch_reference = calloc((size_t)p->references + 1, sizeof *in->patch_reference);
	if (frame == NULL || content == NULL || in->patch == NULL || in->patch_chunk == NULL ||
	    in->patch_reference == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < p->groups; i++)
		if (p->group[i].worth)
			add_frame(a, &p->group[i]);
	return 0;
}

int prep_patches_add(const struct prep_patches *p, const struct prep_survey *s, const struct prep_base *base,
		     unsigned bases, struct prep_plan *plan, struct prep_err *err)
{
	struct adder a = { .patches = p, .survey = s, .base = base, .bases = bases, .plan = plan };
	size_t all = 0;
	int r = -1;

	plan->base = base;
	a.first = calloc((size_t)bases + 1, sizeof *a.first);
	for (unsigned b = 0; a.first != NULL && b < bases; b++) {
		a.first[b] = all;
		all += base[b].index->chunks;
	}
	a.number = malloc(((size_t)s->chunks + 1) * sizeof *a.number);
	a.reference = malloc((all + 1) * sizeof *a.reference);
	if (a.first == NULL || a.number == NULL || a.reference == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	memset(a.reference, 0xFF, (all + 1) * sizeof *a.reference);
	for (uint32_t i = 0; i < plan->index.chunks; i++)
		a.number[plan->source[i]] = i;
	r = add_references(&a, err) < 0 ? -1 : add_frames(&a, err);
out:
	free(a.first);
	free(a.number);
	free(a.reference);
	return r;
}
