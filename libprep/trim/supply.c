/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/supply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"

int prep_supply_new(const struct prep_ckm_index *index, struct prep_supply *ret, struct prep_err *err)
{
	*ret = (struct prep_supply){ .index = index };
	ret->from = malloc(((size_t)index->chunks + 1) * sizeof *ret->from);
	ret->frame = malloc(((size_t)index->frames + 1) * sizeof *ret->frame);
	if (ret->from == NULL || ret->frame == NULL) {
		prep_supply_clear(ret);
		return prep_fail_nomem(err);
	}
	if (prep_chunk_table_new(index, &ret->table, err) < 0) {
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

void prep_supply_bad(struct prep_supply *p, uint32_t chunk)
{
	struct prep_supply_from *from = &p->from[chunk];
	struct prep_supply_origin *o = &p->origin[from->origin];

	o->catalog->chunk[from->chunk].bad = true;
	o->bad_chunks++;
	o->bad_bytes += p->index->chunk[chunk].size;
	from->origin = PREP_FROM_FRAME;
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
		wanted = prep_chunk_table_find(p->table, k->digest);
		if (wanted == UINT32_MAX || k->bad || k->size != p->index->chunk[wanted].size ||
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

/* Which frames are needed; the chunks of those come from them. */
static void choose_frames(struct prep_supply *p)
{
	const struct prep_ckm_index *in = p->index;

	p->frames = 0;
	p->frame_bytes = 0;
	for (uint32_t i = 0; i < in->frames; i++) {
		const struct prep_frame *f = &in->frame[i];
		bool needed = false;

		for (uint32_t k = f->first_chunk; k < f->first_chunk + f->chunks; k++)
			needed |= p->from[k].origin == PREP_FROM_FRAME;
		if (!needed)
			continue;
		for (uint32_t k = f->first_chunk; k < f->first_chunk + f->chunks; k++) {
			if (f->kind == PREP_FRAME_ABSENT) {
				if (p->from[k].origin == PREP_FROM_FRAME)
					p->from[k].origin = PREP_FROM_NOWHERE;
			} else if (p->from[k].origin != PREP_FROM_HERE) {
				p->from[k].origin = PREP_FROM_FRAME;
			}
		}
		if (f->kind == PREP_FRAME_ABSENT)
			continue;
		p->frame[p->frames++] = i;
		p->frame_bytes += f->stored;
	}
	qsort_r(p->frame, p->frames, sizeof *p->frame, by_offset, in->frame);
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
	choose_frames(p);
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
			 "%s: a difference package: %llu chunks (%llu bytes) are neither in it nor in a seed; needed by %s%s%u %s: give the image it was made against as --seed",
			 name, (unsigned long long)p->nowhere_chunks, (unsigned long long)p->nowhere_bytes, files,
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
