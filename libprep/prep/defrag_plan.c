/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/defrag_plan.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"

uint64_t prep_defrag_layout_first(const struct prep_defrag_layout *l, uint64_t lcn)
{
	return (l->start + lcn * l->cluster_size) / l->block_size - l->first_block;
}

uint64_t prep_defrag_layout_last(const struct prep_defrag_layout *l, uint64_t lcn)
{
	return (l->start + (lcn + 1) * l->cluster_size - 1) / l->block_size - l->first_block;
}

uint64_t prep_defrag_layout_piece(const struct prep_defrag_layout *l, uint64_t lcn)
{
	const uint64_t i = prep_defrag_layout_first(l, lcn);
	uint64_t end;

	if (prep_defrag_layout_last(l, lcn) != i)
		return lcn + 1;
	/* The first cluster that is not wholly in the block. */
	end = prep_min(((i + l->first_block + 1) * l->block_size - l->start) / l->cluster_size, l->clusters);
	end = prep_bit_next(l->free, lcn, end, !prep_bit_get(l->free, lcn));
	return prep_bit_next(l->idle, lcn, end, !prep_bit_get(l->idle, lcn));
}

/*
 * A block's clusters: those inside it, and the one that it may share with the
 * next block. There are millions of blocks on a large disk: small numbers.
 */
struct block {
	uint32_t used, free;  /* inside: not idle; free */
	uint32_t touched;     /* not idle, those shared on both sides included: how much there is to evacuate */
	bool shares_used, shares_free;
};

static void count_blocks(const struct prep_defrag_layout *l, struct block *b)
{
	for (uint64_t lcn = 0, end; lcn < l->clusters; lcn = end) {
		const uint64_t i = prep_defrag_layout_first(l, lcn);
		const bool used = !prep_bit_get(l->idle, lcn), is_free = prep_bit_get(l->free, lcn);

		end = prep_defrag_layout_piece(l, lcn);
		if (prep_defrag_layout_last(l, lcn) != i) {
			b[i].shares_used = used;
			b[i].shares_free = is_free;
			b[i].touched += used;
			b[i + 1].touched += used;
		} else if (used) {
			b[i].used += (uint32_t)(end - lcn);
			b[i].touched += (uint32_t)(end - lcn);
		} else if (is_free) {
			b[i].free += (uint32_t)(end - lcn);
		}
	}
}

static bool in_use(const struct prep_defrag_layout *l, const struct block *b, uint64_t i)
{
	return b[i].touched > 0 || prep_bit_get(l->pinned, i);
}

int prep_defrag_layout_in_use(const struct prep_defrag_layout *l, uint64_t *ret, struct prep_err *err)
{
	struct block *b = calloc((size_t)l->blocks + 1, sizeof *b);

	*ret = 0;
	if (b == NULL)
		return prep_fail_nomem(err);
	count_blocks(l, b);
	for (uint64_t i = 0; i < l->blocks; i++)
		*ret += in_use(l, b, i);
	free(b);
	return 0;
}

/* Room left for longer run lists, which may need file records of their own: libntfs-3g makes 16 at a time. */
static uint64_t reserve(const struct prep_defrag_layout *l, uint64_t need)
{
	return need / 512 + 48 * PREP_KIB / l->cluster_size + 4;
}

/* Whether what the evacuated blocks hold fits into those that stay, and leaves them some room. */
static bool fits(const struct prep_defrag_layout *l, const struct block *b, const uint8_t *evacuate,
		 uint64_t *need)
{
	uint64_t room = 0;

	*need = 0;
	for (uint64_t i = 0; i < l->blocks; i++) {
		const bool go = prep_bit_get(evacuate, i);
		const bool next_goes = i + 1 < l->blocks && prep_bit_get(evacuate, i + 1);
		const bool stays = !go && in_use(l, b, i);

		*need += go ? b[i].used : 0;
		*need += b[i].shares_used && (go || next_goes);
		room += stays ? b[i].free : 0;
		room += b[i].shares_free && stays && i + 1 < l->blocks && !next_goes && in_use(l, b, i + 1);
	}
	return *need == 0 || *need + reserve(l, *need) <= room;
}

/* The n first of the candidates. */
static void mark(uint8_t *evacuate, uint64_t blocks, const uint32_t *candidate, uint64_t n)
{
	memset(evacuate, 0, (size_t)(blocks / 8 + 1));
	for (uint64_t i = 0; i < n; i++)
		prep_bit_set(evacuate, candidate[i]);
}

/*
 * The most candidates, taken in their order, that can be evacuated. One more
 * means more to move and less room: it is found by halving. Leaves them marked.
 */
static uint64_t most_that_fit(const struct prep_defrag_layout *l, const struct block *b,
			      const uint32_t *candidate, uint64_t n, uint8_t *evacuate, uint64_t *moves)
{
	uint64_t lo = 0, hi = n;

	while (lo < hi) {
		const uint64_t mid = lo + (hi - lo + 1) / 2;

		mark(evacuate, l->blocks, candidate, mid);
		if (fits(l, b, evacuate, moves))
			lo = mid;
		else
			hi = mid - 1;
	}
	mark(evacuate, l->blocks, candidate, lo);
	fits(l, b, evacuate, moves);
	return lo;
}

static int by_touched(const void *x, const void *y, void *arg)
{
	const uint32_t i = *(const uint32_t *)x, j = *(const uint32_t *)y;
	const struct block *b = arg;

	if (b[i].touched != b[j].touched)
		return b[i].touched < b[j].touched ? -1 : 1;
	/* Of equals the later goes: what stays is at the disk's front. */
	return i > j ? -1 : 1;
}

/* Put block i, if it is a candidate, before all others. */
static void prefer(uint32_t *candidate, uint64_t n, uint64_t i)
{
	for (uint64_t k = 0; k < n; k++) {
		if (candidate[k] != i)
			continue;
		memmove(candidate + 1, candidate, (size_t)k * sizeof *candidate);
		candidate[0] = (uint32_t)i;
		return;
	}
}

/*
 * The emptiest go first. But the volume's first and last block may have fewer
 * clusters than the others: giving up one of them costs less room, and so may
 * save another block although it is fuller. Hence each choice with them.
 */
static void choose(const struct prep_defrag_layout *l, struct block *b, uint32_t *candidate, uint64_t n,
		   struct prep_evacuation *ret)
{
	uint32_t *order = candidate + n;
	uint64_t best = 0, moves, best_moves = 0;
	unsigned best_way = 0, way;

	qsort_r(candidate, (size_t)n, sizeof *candidate, by_touched, b);
	for (way = 0; way <= 4; way++) {
		/* The last time round the best is made again. */
		const unsigned ends = way < 4 ? way : best_way;
		uint64_t count;

		memcpy(order, candidate, (size_t)n * sizeof *order);
		if (ends & 1)
			prefer(order, n, 0);
		if (ends & 2)
			prefer(order, n, l->blocks - 1);
		count = most_that_fit(l, b, order, n, ret->evacuate, &moves);
		if (way == 0 || count > best || (count == best && moves < best_moves)) {
			best = count;
			best_moves = moves;
			best_way = ends;
		}
	}
	ret->after = ret->before - best;
	ret->moves = best_moves;
}

/* Clusters that touch block i: never fewer than it can hold. */
static uint64_t holds(const struct prep_defrag_layout *l, uint64_t i)
{
	const uint64_t block = (l->first_block + i) * l->block_size;
	const uint64_t from = block > l->start ? (block - l->start) / l->cluster_size : 0;
	const uint64_t to = (block + l->block_size - l->start + l->cluster_size - 1) / l->cluster_size;

	return prep_min(to, l->clusters) - from;
}

/* The fewest blocks that can hold `used` clusters: the pinned ones, and others as needed. */
static uint64_t fewest(const struct prep_defrag_layout *l, uint64_t used, uint64_t pinned)
{
	const uint64_t capacity = l->block_size / l->cluster_size, last = l->blocks - 1;
	uint64_t room = pinned * capacity;

	/* The volume has only a part of the blocks at its ends. */
	if (prep_bit_get(l->pinned, 0))
		room -= capacity - prep_min(capacity, holds(l, 0));
	if (last > 0 && prep_bit_get(l->pinned, last))
		room -= capacity - prep_min(capacity, holds(l, last));
	return pinned + (used > room ? (used - room + capacity - 1) / capacity : 0);
}

int prep_evacuation_choose(const struct prep_defrag_layout *l, struct prep_evacuation *ret,
			   struct prep_err *err)
{
	struct block *b = calloc((size_t)l->blocks + 1, sizeof *b);
	uint32_t *candidate = calloc(2 * (size_t)l->blocks + 1, sizeof *candidate);
	uint64_t n = 0, used = 0;

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
		used += b[i].used + b[i].shares_used;
		if (prep_bit_get(l->pinned, i))
			ret->pinned++;
		else if (b[i].touched > 0)
			candidate[n++] = (uint32_t)i;
	}
	ret->before = ret->pinned + n;
	ret->bound = fewest(l, used, ret->pinned);
	choose(l, b, candidate, n, ret);
	for (uint64_t i = 0; i < l->blocks; i++)
		if (in_use(l, b, i) && !prep_bit_get(ret->evacuate, i))
			prep_bit_set(ret->stays, i);
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
#define TRIES 64 /* holes looked at in a bucket where not every one is large enough */

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

int prep_holes_new(const struct prep_defrag_layout *l, const uint8_t *blocks, bool outside,
		   struct prep_holes **ret, struct prep_err *err)
{
	struct prep_holes *h = calloc(1, sizeof *h);
	uint64_t start = 0, run = 0;

	*ret = NULL;
	if (h == NULL)
		return prep_fail_nomem(err);
	for (uint64_t lcn = 0, end; lcn <= l->clusters; lcn = end) {
		bool usable = false;

		end = l->clusters + 1;
		if (lcn < l->clusters) {
			end = prep_defrag_layout_piece(l, lcn);
			usable = prep_bit_get(l->free, lcn) &&
				 prep_bit_get(blocks, prep_defrag_layout_first(l, lcn)) == !outside &&
				 prep_bit_get(blocks, prep_defrag_layout_last(l, lcn)) == !outside;
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

/* Take a hole of at least `len` clusters out of bucket k, if one is found soon. */
static bool pick(struct prep_holes *h, unsigned k, uint64_t len, struct hole *ret)
{
	struct hole *hole = h->bucket[k].hole;
	size_t n = h->bucket[k].n;

	for (size_t i = n, tries = TRIES; i-- > 0 && tries-- > 0;) {
		if (hole[i].len < len)
			continue;
		*ret = hole[i];
		hole[i] = hole[--h->bucket[k].n];
		return true;
	}
	return false;
}

int prep_holes_take(struct prep_holes *h, uint64_t want, uint64_t least, uint64_t *lcn,
		    uint64_t *len, struct prep_err *err)
{
	const unsigned close = bucket_of(want), low = bucket_of(least);
	struct hole hole;
	bool found = false;

	for (unsigned k = close; k < BUCKETS && !found; k++)
		found = pick(h, k, want, &hole);
	for (unsigned k = close + 1; k-- > low && !found;)
		found = pick(h, k, least, &hole);
	if (!found)
		return 0;
	*lcn = hole.lcn;
	*len = prep_min(want, hole.len);
	return prep_holes_give(h, hole.lcn + *len, hole.len - *len, err) < 0 ? -1 : 1;
}
