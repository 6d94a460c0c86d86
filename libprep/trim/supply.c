/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/supply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"

static int new_references(struct prep_supply *p, struct prep_err *err)
{
	const struct prep_ckm_index *in = p->index;

	p->references.chunk = in->reference;
	p->references.chunks = in->references;
	p->reference = calloc((size_t)in->references + 1, sizeof *p->reference);
	p->patch_of = malloc(((size_t)in->chunks + 1) * sizeof *p->patch_of);
	if (p->reference == NULL || p->patch_of == NULL)
		return prep_fail_nomem(err);
	return prep_chunk_table_new(&p->references, &p->reference_table, err);
}

int prep_supply_new(const struct prep_ckm_index *index, struct prep_supply *ret, struct prep_err *err)
{
	*ret = (struct prep_supply){ .index = index };
	ret->from = malloc(((size_t)index->chunks + 1) * sizeof *ret->from);
	ret->frame = malloc(((size_t)index->frames + 1) * sizeof *ret->frame);
	if (ret->from == NULL || ret->frame == NULL) {
		prep_supply_clear(ret);
		return prep_fail_nomem(err);
	}
	if (prep_chunk_table_new(index, &ret->table, err) < 0 || (index->patches > 0 && new_references(ret, err) < 0)) {
		prep_supply_clear(ret);
		return -1;
	}
	for (uint32_t i = 0; i < index->chunks; i++)
		ret->from[i].origin = PREP_FROM_FRAME;
	return 0;
}

void prep_supply_clear(struct prep_supply *p)
{
	prep_chunk_table_free(p->table);
	prep_chunk_table_free(p->reference_table);
	free(p->reference);
	free(p->patch_of);
	free(p->from);
	free(p->frame);
	free(p->origin);
	*p = (struct prep_supply){ .index = NULL };
}

int prep_supply_add(struct prep_supply *p, struct prep_catalog *c, struct prep_err *err)
{
	if (p->origins + c->origins > p->origins_room) {
		const uint32_t room = p->origins + c->origins + 16;
		struct prep_supply_origin *grown = reallocarray(p->origin, room, sizeof *grown);

		if (grown == NULL)
			return prep_fail_nomem(err);
		p->origin = grown;
		p->origins_room = room;
	}
	for (uint32_t i = 0; i < c->origins; i++)
		p->origin[p->origins++] = (struct prep_supply_origin){ .catalog = c, .origin = i };
	return 0;
}

void prep_supply_here(struct prep_supply *p, uint32_t chunk)
{
	struct prep_supply_from *from = &p->from[chunk];

	if (from->origin < p->origins) {
		p->origin[from->origin].got_chunks++;
		p->origin[from->origin].got_bytes += p->index->chunk[chunk].size;
	}
	from->origin = PREP_FROM_HERE;
}

static void note_bad(struct prep_supply *p, struct prep_supply_from *from)
{
	struct prep_supply_origin *o = &p->origin[from->origin];
	struct prep_item_chunk *k = &o->catalog->chunk[from->chunk];

	/* It may be wanted, and referred to, and so have been found bad before. */
	if (k->bad)
		return;
	k->bad = true;
	o->bad_chunks++;
	o->bad_bytes += k->size;
}

void prep_supply_bad(struct prep_supply *p, uint32_t chunk)
{
	note_bad(p, &p->from[chunk]);
	p->from[chunk].origin = PREP_FROM_FRAME;
}

void prep_supply_reference_good(struct prep_supply *p, uint32_t i)
{
	p->reference[i].good = true;
}

void prep_supply_reference_bad(struct prep_supply *p, uint32_t i)
{
	note_bad(p, &p->reference[i].from);
	p->reference[i].from.origin = PREP_FROM_NOWHERE;
}

/* A chunk of an origin may be one that patches refer to. */
static void offer_reference(struct prep_supply *p, uint32_t n, uint32_t i, const struct prep_item_chunk *k)
{
	const uint32_t r = prep_chunk_table_find(p->reference_table, k->digest);

	if (r != UINT32_MAX && !k->bad && !p->origin[n].catalog->doubted && k->size == p->index->reference[r].size &&
	    p->reference[r].from.origin == PREP_FROM_NOWHERE)
		p->reference[r].from = (struct prep_supply_from){ n, i };
}

/* Offer each chunk of origin number n to the wanted ones. `seen`: those it has offered. */
static void search(struct prep_supply *p, uint32_t n, uint8_t *seen)
{
	struct prep_supply_origin *o = &p->origin[n];
	const struct prep_catalog *c = o->catalog;
	const struct prep_origin *origin = &c->origin[o->origin];
	uint32_t first, end;

	o->chunks = o->bytes = o->found_chunks = o->found_bytes = o->used_chunks = o->used_bytes = 0;
	if (origin->items == 0)
		return;
	first = c->item[origin->first_item].first_chunk;
	end = c->item[origin->first_item + origin->items - 1].first_chunk +
	      c->item[origin->first_item + origin->items - 1].chunks;
	for (uint32_t i = first; i < end; i++) {
		const struct prep_item_chunk *k = &c->chunk[i];
		uint32_t wanted;

		o->chunks++;
		o->bytes += k->size;
		if (p->reference != NULL)
			offer_reference(p, n, i, k);
		wanted = prep_chunk_table_find(p->table, k->digest);
		if (wanted == UINT32_MAX || k->bad || c->doubted || k->size != p->index->chunk[wanted].size ||
		    prep_bit_get(seen, wanted))
			continue;
		prep_bit_set(seen, wanted);
		o->found_chunks++;
		o->found_bytes += k->size;
		if (p->from[wanted].origin == PREP_FROM_FRAME)
			p->from[wanted] = (struct prep_supply_from){ n, i };
	}
}

static int by_offset(const void *a, const void *b, void *arg)
{
	const struct prep_frame *frame = arg;
	const uint64_t x = frame[*(const uint32_t *)a].off, y = frame[*(const uint32_t *)b].off;

	return (x > y) - (x < y);
}

static bool usable(const struct prep_supply *p, const struct prep_patch *patch)
{
	for (uint32_t k = 0; k < patch->references; k++)
		if (p->reference[p->index->patch_reference[patch->first + k]].from.origin == PREP_FROM_NOWHERE)
			return false;
	return true;
}

/* For each chunk the patch frame that can be used and has the best ratio. */
static void find_patches(struct prep_supply *p)
{
	const struct prep_ckm_index *in = p->index;

	p->useless = 0;
	memset(p->patch_of, 0xFF, (size_t)in->chunks * sizeof *p->patch_of);
	for (uint32_t i = in->frames - in->patches; i < in->frames; i++) {
		const struct prep_frame *f = &in->frame[i];

		if (!usable(p, prep_frame_patch(in, i))) {
			p->useless++;
			continue;
		}
		for (uint32_t k = 0; k < f->chunks; k++) {
			uint32_t *best = &p->patch_of[prep_frame_chunk(in, f, k)];

			if (*best == UINT32_MAX ||
			    (uint64_t)f->stored * in->frame[*best].size < (uint64_t)in->frame[*best].stored * f->size)
				*best = i;
		}
	}
}

static void need_frame(struct prep_supply *p, uint32_t i)
{
	const struct prep_ckm_index *in = p->index;

	p->frame[p->frames++] = i;
	p->frame_bytes += in->frame[i].stored;
	if (in->frame[i].kind != PREP_FRAME_PATCH || p->reference == NULL)
		return;
	p->patches++;
	p->patch_bytes += in->frame[i].stored;
	for (uint32_t k = 0; k < prep_frame_patch(in, i)->references; k++) {
		const uint32_t number = in->patch_reference[prep_frame_patch(in, i)->first + k];
		struct prep_supply_reference *r = &p->reference[number];

		if (!r->used && !r->good) {
			p->unchecked++;
			p->unchecked_bytes += in->reference[number].size;
		}
		r->used = true;
	}
}

/*
 * Whether the chunks that are needed of frame f can all come from patch frames,
 * for fewer bytes than f has. needed: the patch frames that are anyway. asked: of each, when it was last counted.
 */
static bool patches_cost_less(const struct prep_supply *p, const struct prep_frame *f, uint32_t now,
			      const uint8_t *needed, uint32_t *asked)
{
	const uint32_t plain = p->index->frames - p->index->patches;
	uint64_t cost = 0;

	for (uint32_t k = f->first_chunk; k < f->first_chunk + f->chunks; k++) {
		uint32_t patch;

		if (p->from[k].origin != PREP_FROM_FRAME)
			continue;
		if (p->patch_of[k] == UINT32_MAX)
			return false;
		patch = p->patch_of[k] - plain;
		if (asked[patch] != now && !prep_bit_get(needed, patch))
			cost += p->index->frame[p->patch_of[k]].stored;
		asked[patch] = now;
	}
	return f->kind == PREP_FRAME_ABSENT || cost < f->stored;
}

/* Which frames are needed; the chunks of those come from them. */
static int choose_frames(struct prep_supply *p, struct prep_err *err)
{
	const struct prep_ckm_index *in = p->index;
	const uint32_t plain = in->frames - in->patches;
	uint8_t *needed = calloc((size_t)in->patches / 8 + 1, 1);
	uint32_t *asked = calloc((size_t)in->patches + 1, sizeof *asked);

	if (needed == NULL || asked == NULL) {
		free(needed);
		free(asked);
		return prep_fail_nomem(err);
	}
	p->frames = p->patches = p->unchecked = 0;
	p->frame_bytes = p->patch_bytes = p->patched_bytes = p->unchecked_bytes = 0;
	for (uint32_t i = 0; i < plain; i++) {
		const struct prep_frame *f = &in->frame[i];
		const bool absent = f->kind == PREP_FRAME_ABSENT;
		bool wanted = false, patched;

		for (uint32_t k = f->first_chunk; k < f->first_chunk + f->chunks; k++)
			wanted |= p->from[k].origin == PREP_FROM_FRAME;
		if (!wanted)
			continue;
		patched = in->patches > 0 && (absent || patches_cost_less(p, f, i + 1, needed, asked));
		for (uint32_t k = f->first_chunk; k < f->first_chunk + f->chunks; k++) {
			if (!patched && !absent && p->from[k].origin != PREP_FROM_HERE) {
				p->from[k] = (struct prep_supply_from){ PREP_FROM_FRAME, i };
			} else if (p->from[k].origin == PREP_FROM_FRAME && patched && p->patch_of[k] != UINT32_MAX) {
				p->from[k].chunk = p->patch_of[k];
				p->patched_bytes += in->chunk[k].size;
				prep_bit_set(needed, p->patch_of[k] - plain);
			} else if (p->from[k].origin == PREP_FROM_FRAME) {
				p->from[k].origin = PREP_FROM_NOWHERE;
			}
		}
		if (!patched && !absent)
			need_frame(p, i);
	}
	for (uint32_t i = 0; i < in->patches; i++)
		if (prep_bit_get(needed, i))
			need_frame(p, plain + i);
	free(needed);
	free(asked);
	qsort_r(p->frame, p->frames, sizeof *p->frame, by_offset, in->frame);
	return 0;
}

static void count(struct prep_supply *p)
{
	p->wanted_bytes = p->here_chunks = p->here_bytes = p->local_chunks = p->local_bytes = 0;
	p->nowhere_chunks = p->nowhere_bytes = 0;
	for (uint32_t i = 0; i < p->index->chunks; i++) {
		const uint32_t size = p->index->chunk[i].size, origin = p->from[i].origin;

		p->wanted_bytes += size;
		if (origin == PREP_FROM_HERE) {
			p->here_chunks++;
			p->here_bytes += size;
		} else if (origin == PREP_FROM_NOWHERE) {
			p->nowhere_chunks++;
			p->nowhere_bytes += size;
		} else if (origin != PREP_FROM_FRAME) {
			p->local_chunks++;
			p->local_bytes += size;
			p->origin[origin].used_chunks++;
			p->origin[origin].used_bytes += size;
		}
	}
}

int prep_supply_make(struct prep_supply *p, struct prep_err *err)
{
	const size_t bits = (size_t)p->index->chunks / 8 + 1;
	uint8_t *seen = malloc(bits);

	if (seen == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < p->index->chunks; i++)
		if (p->from[i].origin != PREP_FROM_HERE)
			p->from[i].origin = PREP_FROM_FRAME;
	for (uint32_t i = 0; i < p->index->references && p->reference != NULL; i++) {
		p->reference[i].used = false;
		if (!p->reference[i].good)
			p->reference[i].from.origin = PREP_FROM_NOWHERE;
	}
	for (uint32_t i = 0; i < p->origins; i++) {
		memset(seen, 0, bits);
		search(p, i, seen);
	}
	free(seen);
	p->found_chunks = p->found_bytes = 0;
	for (uint32_t i = 0; i < p->index->chunks; i++) {
		if (p->from[i].origin == PREP_FROM_FRAME)
			continue;
		p->found_chunks++;
		p->found_bytes += p->index->chunk[i].size;
	}
	if (p->reference != NULL)
		find_patches(p);
	if (choose_frames(p, err) < 0)
		return -1;
	count(p);
	return 0;
}

int prep_supply_check(const struct prep_supply *p, const char *name, struct prep_err *err)
{
	const struct prep_ckm_index *in = p->index;
	char files[512] = "";
	size_t len = 0;
	uint32_t named = 0, streams = 0;

	if (p->nowhere_chunks == 0)
		return 0;
	for (uint32_t i = 0; i < in->streams; i++) {
		const struct prep_stream *s = &in->stream[i];
		bool needs = false;

		for (uint32_t k = s->first_ref; k < s->first_ref + s->refs && !needs; k++)
			needs = p->from[in->ref[k]].origin == PREP_FROM_NOWHERE;
		if (!needs)
			continue;
		streams++;
		if (s->path[0] == '\0' || named == 3 || len + strlen(s->path) + 3 > sizeof files)
			continue;
		len += (size_t)snprintf(files + len, sizeof files - len, "%s%s", named > 0 ? ", " : "", s->path);
		named++;
	}
	return prep_fail(err, PREP_EREFUSED,
			 "%s: a difference package: %llu chunks (%llu bytes) are neither in it nor in a seed%s; needed by %s%s%u %s: give the image it was made against as --seed",
			 name, (unsigned long long)p->nowhere_chunks, (unsigned long long)p->nowhere_bytes,
			 p->useless > 0 ? ", or in patches of what no seed has" : "", files,
			 named > 0 ? " and " : "", streams - named,
			 named > 0 ? "more" : "parts of the disk that are no files");
}

int prep_supply_ranges(const struct prep_supply *p, const uint32_t *have, uint64_t gap, uint64_t most,
		       struct prep_supply_range **ret, uint32_t *n, struct prep_err *err)
{
	struct prep_supply_range *range = malloc(((size_t)p->frames + 1) * sizeof *range);

	*ret = range;
	*n = 0;
	if (range == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < p->frames; i++) {
		const struct prep_frame *f = &p->index->frame[p->frame[i]];
		const uint32_t some = have != NULL ? have[i] : 0;
		struct prep_supply_range *r = *n > 0 ? &range[*n - 1] : NULL;

		if (some == f->stored)
			continue;
		/* Nothing that is there lies between it and the range before. */
		if (r != NULL && some == 0 && r->first + r->frames == i && f->off - (r->off + r->len) <= gap &&
		    f->off + f->stored - r->off <= most) {
			r->len = f->off + f->stored - r->off;
			r->frames++;
			continue;
		}
		range[(*n)++] = (struct prep_supply_range){ f->off + some, f->stored - some, i, 1 };
	}
	return 0;
}
