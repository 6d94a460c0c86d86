/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Where clusters should go so that the fewest blocks stay in use: the
 * arithmetic of vhd-defrag, on bitmaps and counts alone.
 *
 * A cluster touches one block, or two where clusters are not aligned with
 * blocks (Windows XP's first partition begins at sector 63).
 */
#ifndef PREP_PREP_DEFRAG_PLAN_H
#define PREP_PREP_DEFRAG_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "libprep/base/err.h"

struct prep_defrag_layout {
	uint64_t start;        /* of the first cluster on the disk, bytes */
	uint64_t cluster_size; /* bytes, at most block_size */
	uint64_t clusters;
	uint64_t block_size;   /* bytes */
	const uint8_t *free;   /* one bit a cluster, LSB first: free and nobody's */
	const uint8_t *idle;   /* likewise: free, or used and yet of no weight for the blocks that it touches */
	uint8_t *pinned;       /* one bit a block (of the disk, from first_block on): cannot be emptied */
	uint64_t first_block, blocks; /* those that the clusters touch */
};

/* The blocks, counted from first_block, that a cluster touches first and last. */
uint64_t prep_defrag_layout_first(const struct prep_defrag_layout *l, uint64_t lcn);
uint64_t prep_defrag_layout_last(const struct prep_defrag_layout *l, uint64_t lcn);

/*
 * Where the clusters from lcn on (below l->clusters) end that are all alike in
 * `free` and `idle` and touch the same blocks.
 */
uint64_t prep_defrag_layout_piece(const struct prep_defrag_layout *l, uint64_t lcn);

/* Blocks in use: pinned, or touched by a cluster that is not idle. */
int prep_defrag_layout_in_use(const struct prep_defrag_layout *l, uint64_t *ret, struct prep_err *err);

/* Which blocks to evacuate. */
struct prep_evacuation {
	uint8_t *evacuate;     /* one bit a block; owned */
	uint8_t *stays;        /* likewise: in use, and not evacuated */
	uint64_t before;       /* blocks in use */
	uint64_t pinned;       /* of those */
	uint64_t bound;        /* the fewest that could hold the clusters that are not idle */
	uint64_t after;        /* those that stay, if all goes to plan */
	uint64_t moves;        /* clusters to be moved for it */
};

/*
 * Choose the blocks to evacuate: as many as the free clusters of the others can
 * take, the emptiest. Release with prep_evacuation_clear.
 */
int prep_evacuation_choose(const struct prep_defrag_layout *l, struct prep_evacuation *ret,
			   struct prep_err *err);
void prep_evacuation_clear(struct prep_evacuation *e);

/* Free clusters to move to. */
struct prep_holes;

/* Those that touch only blocks of `blocks` (one bit a block), or with `outside` only others. */
int prep_holes_new(const struct prep_defrag_layout *l, const uint8_t *blocks, bool outside,
		   struct prep_holes **ret, struct prep_err *err);
void prep_holes_free(struct prep_holes *h);

/*
 * Take at most `want` clusters in one run, at least `least`: a hole that holds
 * them all, a close fit if there is one; else a large one. Returns 1; 0 when no
 * hole holds `least`.
 */
int prep_holes_take(struct prep_holes *h, uint64_t want, uint64_t least, uint64_t *lcn,
		    uint64_t *len, struct prep_err *err);

/* Give back what was taken and is not used. */
int prep_holes_give(struct prep_holes *h, uint64_t lcn, uint64_t len, struct prep_err *err);

#endif
