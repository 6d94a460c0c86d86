/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/defrag_plan.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"

uint64_t prep_layout_first(const struct prep_layout *l, uint64_t lcn)
{
	return (l->start + lcn * l->cluster_size) / l->block_size - l->first_block;
}

uint64_t prep_layout_last(const struct prep_layout *l, uint64_t lcn)
{
	return (l->start + (lcn + 1) * l->cluster_size - 1) / l->block_size - l->first_block;
}

uint64_t prep_layout_piece(const struct prep_layout *l, uint64_t lcn)
{
	const uint64_t i = prep_layout_first(l, lcn);
	uint64_t end;

	if (prep_layout_last(l, lcn) != i)
		return lcn + 1;
	/* The first cluster that is not wholly in the block. */
	end = ((i + l->first_block + 1) * l->block_size - l->start) / l->cluster_size;
	return prep_bit_next(l->free, lcn, prep_min(end, l->clusters), !prep_bit_get(l->free, lcn));
}

/* A block's clusters: those inside it, and the one that it shares with the next block, if any. */
struct block {
	uint32_t used, free;  /* inside */
	bool shares, shares_used; /* with the next block */
	uint64_t touched;     /* used clusters inside and on both sides: how much there is to evacuate */
	uint32_t number;
};

static void count_blocks(const struct prep_layout *l, struct block *b)
{
	for (uint64_t lcn = 0, end; lcn < l->clusters; lcn = end) {
		const uint64_t i = prep_layout_first(l, lcn);
		const bool used = !prep_bit_get(l->free, lcn);

		end = prep_layout_piece(l, lcn);
		if (prep_layout_last(l, lcn) != i) {
			b[i].shares = true;
			b[i].shares_used = used;
			b[i].touched += used;
			b[i + 1].touched += used;
		} else if (used) {
			b[i].used += (uint32_t)(end - lcn);
			b[i].touched += end - lcn;
		} else {
			b[i].free += (uint32_t)(end - lcn);
		}
	}
}

int prep_layout_in_use(const struct prep_layout *l, uint64_t *ret, struct prep_err *err)
{
	struct block *b = calloc((size_t)l->blocks + 1, sizeof *b);

	*ret = 0;
	if (b == NULL)
		return prep_fail_nomem(err);
	count_blocks(l, b);
	for (uint64_t i = 0; i < l->blocks; i++)
		*ret += b[i].touched > 0 || prep_bit_get(l->pinned, i);
	free(b);
	return 0;
}

/*
 * Whether what the evacuated blocks hold fits into those that stay, and leaves
 * them some room: longer run lists may need file records of their own.
 */
static bool fits(const struct prep_layout *l, const struct block *b, const uint8_t *evacuate)
{
	uint64_t need = 0, room = 0;

	for (uint64_t i = 0; i < l->blocks; i++) {
		const bool go = prep_bit_get(evacuate, i);

		if (go)
			need += b[i].used;
		else if (b[i].touched > 0 || prep_bit_get(l->pinned, i))
			room += b[i].free;
		if (b[i].shares && b[i].shares_used && i + 1 < l->blocks && (go || prep_bit_get(evacuate, i + 1)))
			need++;
	}
	return need + need / 512 + 16 <= room;
}

static int by_touched(const void *a, const void *b)
{
	const struct block *x = *(const struct block *const *)a, *y = *(const struct block *const *)b;

	if (x->touched != y->touched)
		return x->touched < y->touched ? -1 : 1;
	/* Of equals the later goes: what stays is at the disk's front. */
	return x->number > y->number ? -1 : 1;
}

/* Mark the n emptiest of the sorted candidates. */
static void mark(uint8_t *evacuate, uint64_t blocks, struct block *const *candidate, uint64_t n)
{
	memset(evacuate, 0, (size_t)(blocks / 8 + 1));
	for (uint64_t i = 0; i < n; i++)
		prep_bit_set(evacuate, candidate[i]->number);
}

int prep_evacuation_choose(const struct prep_layout *l, struct prep_evacuation *ret,
			   struct prep_err *err)
{
	struct block *b = calloc((size_t)l->blocks + 1, sizeof *b);
	struct block **candidate = calloc((size_t)l->blocks + 1, sizeof *candidate);
	const uint64_t capacity = prep_max(l->block_size / l->cluster_size, 1);
	uint64_t n = 0, lo, hi, used = 0;

	*ret = (struct prep_evacuation){
		.evacuate = calloc((size_t)(l->blocks / 8 + 9), 1),
		.stays = calloc((size_t)(l->blocks / 8 + 9), 1),
	};
	if (b == NULL || candidate == NULL || ret->evacuate == NULL || ret->stays == NULL) {
		free(b);
		free(candidate);
		prep_evacuation_clear(ret);
		return prep_fail_nomem(err);
	}
	count_blocks(l, b);
	for (uint64_t i = 0; i < l->blocks; i++) {
		b[i].number = (uint32_t)i;
		used += b[i].used + b[i].shares_used;
		if (prep_bit_get(l->pinned, i))
			ret->pinned++;
		else if (b[i].touched > 0)
			candidate[n++] = &b[i];
	}
	ret->before = ret->pinned + n;
	qsort(candidate, (size_t)n, sizeof *candidate, by_touched);
	/* One more evacuated means more to move and less room: the most that fits is found by halving. */
	for (lo = 0, hi = n; lo < hi;) {
		const uint64_t mid = lo + (hi - lo + 1) / 2;

		mark(ret->evacuate, l->blocks, candidate, mid);
		if (fits(l, b, ret->evacuate))
			lo = mid;
		else
			hi = mid - 1;
	}
	mark(ret->evacuate, l->blocks, candidate, lo);
	for (uint64_t i = 0; i < l->blocks; i++)
		if ((b[i].touched > 0 || prep_bit_get(l->pinned, i)) && !prep_bit_get(ret->evacuate, i))
			prep_bit_set(ret->stays, i);
	ret->after = ret->before - lo;
	ret->bound = prep_max(ret->pinned, (used + capacity - 1) / capacity);
	free(candidate);
	free(b);
	return 0;
}

void prep_evacuation_clear(struct prep_evacuation *e)
{
	free(e->evacuate);
	free(e->stays);
	e->evacuate = e->stays = NULL;
}

/* Holes by size: bucket k holds those of 2^k to 2^(k+1)-1 clusters. */
struct hole {
	uint64_t lcn, len;
};

#define BUCKETS 48

struct prep_holes {
	struct {
		struct hole *hole;
		size_t n, room;
	} bucket[BUCKETS];
};

static unsigned bucket_of(uint64_t len)
{
	const unsigned k = 63u - (unsigned)__builtin_clzll(len);

	return k < BUCKETS ? k : BUCKETS - 1;
}

int prep_holes_give(struct prep_holes *h, uint64_t lcn, uint64_t len, struct prep_err *err)
{
	const unsigned k = len > 0 ? bucket_of(len) : 0;

	if (len == 0)
		return 0;
	if (h->bucket[k].n == h->bucket[k].room) {
		const size_t room = h->bucket[k].room * 2 + 16;
		struct hole *more = reallocarray(h->bucket[k].hole, room, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		h->bucket[k].hole = more;
		h->bucket[k].room = room;
	}
	h->bucket[k].hole[h->bucket[k].n++] = (struct hole){ lcn, len };
	return 0;
}

int prep_holes_new(const struct prep_layout *l, const struct prep_evacuation *e,
		   struct prep_holes **ret, struct prep_err *err)
{
	struct prep_holes *h = calloc(1, sizeof *h);
	uint64_t start = 0, run = 0;

	*ret = NULL;
	if (h == NULL)
		return prep_fail_nomem(err);
	/* A block that holds nothing now must not be taken into use: it would be one more. */
	for (uint64_t lcn = 0, end; lcn <= l->clusters; lcn = end) {
		bool usable = false;

		end = l->clusters + 1;
		if (lcn < l->clusters) {
			end = prep_layout_piece(l, lcn);
			usable = prep_bit_get(l->free, lcn) && prep_bit_get(e->stays, prep_layout_first(l, lcn)) &&
				 prep_bit_get(e->stays, prep_layout_last(l, lcn));
		}
		if (usable) {
			start = run == 0 ? lcn : start;
			run += end - lcn;
			continue;
		}
		if (prep_holes_give(h, start, run, err) < 0) {
			prep_holes_free(h);
			return -1;
		}
		run = 0;
	}
	*ret = h;
	return 0;
}

void prep_holes_free(struct prep_holes *h)
{
	if (h == NULL)
		return;
	for (unsigned k = 0; k < BUCKETS; k++)
		free(h->bucket[k].hole);
	free(h);
}

uint64_t prep_holes_largest(const struct prep_holes *h)
{
	uint64_t most = 0;

	for (unsigned k = BUCKETS; k-- > 0 && most == 0;)
		for (size_t i = 0; i < h->bucket[k].n; i++)
			most = prep_max(most, h->bucket[k].hole[i].len);
	return most;
}

/* Take hole i of bucket k away. */
static struct hole pick(struct prep_holes *h, unsigned k, size_t i)
{
	const struct hole hole = h->bucket[k].hole[i];

	h->bucket[k].hole[i] = h->bucket[k].hole[--h->bucket[k].n];
	return hole;
}

int prep_holes_take(struct prep_holes *h, uint64_t want, uint64_t unit, uint64_t *lcn,
		    uint64_t *len, struct prep_err *err)
{
	struct hole hole = { 0, 0 };
	unsigned k = bucket_of(want);

	/* In its own bucket a few are looked at; any of a larger bucket will do. */
	for (size_t i = h->bucket[k].n, tries = 64; i-- > 0 && tries-- > 0 && hole.len == 0;)
		if (h->bucket[k].hole[i].len >= want)
			hole = pick(h, k, i);
	for (unsigned j = k + 1; j < BUCKETS && hole.len == 0; j++)
		if (h->bucket[j].n > 0)
			hole = pick(h, j, h->bucket[j].n - 1);
	for (unsigned j = k + 1; j-- > 0 && hole.len == 0;)
		for (size_t i = h->bucket[j].n; i-- > 0 && hole.len == 0;)
			if (h->bucket[j].hole[i].len >= unit)
				hole = pick(h, j, i);
	if (hole.len == 0)
		return 0;
	*lcn = hole.lcn;
	*len = prep_min(want, hole.len / unit * unit);
	return prep_holes_give(h, hole.lcn + *len, hole.len - *len, err) < 0 ? -1 : 1;
}
