/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The plan of vhd-defrag against every possible plan, on layouts small enough
 * to try all: clusters aligned with blocks and not, volumes that begin and end
 * within a block, blocks that cannot be emptied, clusters without weight.
 */
#include "libprep/prep/defrag_plan.h"

#include "libprep/base/bytes.h"
#include "tests/unit/check.h"

#define BLOCKS_MAX 10
#define CLUSTERS_MAX 700

static struct prep_err err;

static struct prep_defrag_layout layout;
static uint8_t free_map[CLUSTERS_MAX / 8 + 16], idle_map[CLUSTERS_MAX / 8 + 16], pinned_map[16];

static uint64_t first_of(uint64_t lcn)
{
	return (layout.start + lcn * layout.cluster_size) / layout.block_size - layout.first_block;
}

static uint64_t last_of(uint64_t lcn)
{
	return (layout.start + (lcn + 1) * layout.cluster_size - 1) / layout.block_size - layout.first_block;
}

/* shift: bytes by which clusters miss the blocks' edges; 0: aligned. */
static void make_layout(uint64_t shift, bool ends)
{
	const uint64_t per_block = 48 + check_random(17);

	layout = (struct prep_defrag_layout){ .cluster_size = 4096, .free = free_map, .idle = idle_map, .pinned = pinned_map };
	/* a power of two is not needed for the arithmetic */
	layout.block_size = per_block * 4096;
	layout.start = layout.block_size * check_random(3) + shift + (ends ? 4096 * check_random(per_block) : 0);
	layout.clusters = per_block * (3 + check_random(BLOCKS_MAX - 4)) - (ends ? check_random(per_block) : 0);
	layout.first_block = layout.start / layout.block_size;
	layout.blocks = (layout.start + layout.clusters * 4096 + layout.block_size - 1) / layout.block_size -
			layout.first_block;
	memset(free_map, 0, sizeof free_map);
	memset(pinned_map, 0, sizeof pinned_map);
	for (uint64_t i = 0; i < layout.blocks; i++)
		if (check_random(6) == 0)
			prep_bit_set(pinned_map, i);
	/* blocks of all degrees of fullness, in runs */
	for (uint64_t lcn = 0; lcn < layout.clusters;) {
		const uint64_t end = prep_min(layout.clusters, lcn + 1 + check_random(per_block));
		const uint64_t full = check_random(12);

		for (; lcn < end; lcn++)
			if (check_random(10) >= full)
				prep_bit_set(free_map, lcn);
	}
	memcpy(idle_map, free_map, sizeof idle_map);
	/* a block that counts for nothing whatever is in it */
	if (check_random(3) == 0) {
		const uint64_t block = check_random(layout.blocks);

		for (uint64_t lcn = 0; lcn < layout.clusters; lcn++)
			if (first_of(lcn) == block && last_of(lcn) == block)
				prep_bit_set(idle_map, lcn);
	}
}

static bool has(uint64_t set, uint64_t block)
{
	return set >> block & 1;
}

/* The blocks in use, as a set. */
static uint64_t in_use(void)
{
	uint64_t set = 0;

	for (uint64_t i = 0; i < layout.blocks; i++)
		set |= (uint64_t)prep_bit_get(pinned_map, i) << i;
	for (uint64_t lcn = 0; lcn < layout.clusters; lcn++)
		if (!prep_bit_get(idle_map, lcn))
			set |= (uint64_t)1 << first_of(lcn) | (uint64_t)1 << last_of(lcn);
	return set;
}

/* What evacuating a set needs to move, and what room the others have for it. */
static void weigh(uint64_t use, uint64_t set, uint64_t *need, uint64_t *room)
{
	*need = *room = 0;
	for (uint64_t lcn = 0; lcn < layout.clusters; lcn++) {
		const uint64_t i = first_of(lcn), j = last_of(lcn);

		*need += !prep_bit_get(idle_map, lcn) && (has(set, i) || has(set, j));
		*room += prep_bit_get(free_map, lcn) && has(use & ~set, i) && has(use & ~set, j);
	}
}

/* Of all sets of blocks that can be evacuated: the most blocks, and for those the fewest clusters. */
static void try_all(uint64_t use, bool reserve, uint64_t *blocks, uint64_t *moves)
{
	uint64_t pinned = 0, need, room;

	for (uint64_t i = 0; i < layout.blocks; i++)
		pinned |= (uint64_t)prep_bit_get(pinned_map, i) << i;
	*blocks = *moves = 0;
	for (uint64_t set = 1; set < (uint64_t)1 << layout.blocks; set++) {
		const uint64_t n = (uint64_t)__builtin_popcountll(set);

		if ((set & ~use) != 0 || (set & pinned) != 0 || n < *blocks)
			continue;
		weigh(use, set, &need, &room);
		if (need + (reserve ? need / 512 + 16 : 0) > room || (n == *blocks && need >= *moves))
			continue;
		*blocks = n;
		*moves = need;
	}
}

static struct {
	unsigned layouts, fewer, more_moves;
} tally;

static void compare_with_all(uint64_t shift, bool ends)
{
	uint64_t use, set = 0, best, best_moves, all, ignored, need, room;
	struct prep_evacuation e;

	make_layout(shift, ends);
	use = in_use();
	CHECK_DONE(prep_evacuation_choose(&layout, &e, &err));
	CHECK_EQ(e.before, (uint64_t)__builtin_popcountll(use));
	for (uint64_t i = 0; i < layout.blocks; i++) {
		set |= (uint64_t)prep_bit_get(e.evacuate, i) << i;
		CHECK(!prep_bit_get(e.evacuate, i) || (has(use, i) && !prep_bit_get(pinned_map, i)));
		CHECK_EQ(prep_bit_get(e.stays, i), has(use, i) && !prep_bit_get(e.evacuate, i));
	}
	weigh(use, set, &need, &room);
	CHECK(need == 0 || need + need / 512 + 16 <= room);
	CHECK_EQ(e.moves, need);
	CHECK_EQ(e.after, e.before - (uint64_t)__builtin_popcountll(set));
	try_all(use, true, &best, &best_moves);
	CHECK(e.before - e.after <= best);
	tally.layouts++;
	tally.fewer += e.before - e.after < best;
	tally.more_moves += e.before - e.after == best && e.moves > best_moves;
	/* aligned and of one size: the emptiest are the best choice, always */
	if (shift == 0 && !ends) {
		CHECK_EQ(e.before - e.after, best);
		CHECK_EQ(e.moves, best_moves);
	}
	/* never one too few */
	CHECK(best - (e.before - e.after) <= 1);
	/* what is said to be impossible is impossible, with no room kept in reserve */
	try_all(use, false, &all, &ignored);
	CHECK(e.before - all >= e.bound);
	prep_evacuation_clear(&e);
}

static void aligned_plans_are_the_best_there_are(void)
{
	check_seed = 1;
	for (unsigned i = 0; i < 400 && !check_ended; i++)
		compare_with_all(0, false);
}

static void partial_blocks_at_the_ends_cost_next_to_nothing(void)
{
	check_seed = 2;
	tally.layouts = tally.fewer = tally.more_moves = 0;
	for (unsigned i = 0; i < 400 && !check_ended; i++)
		compare_with_all(0, true);
	CHECK(tally.fewer * 100 <= tally.layouts);
	CHECK(tally.more_moves * 100 <= tally.layouts);
}

static void clusters_across_edges_cost_next_to_nothing(void)
{
	check_seed = 3;
	tally.layouts = tally.fewer = tally.more_moves = 0;
	for (unsigned i = 0; i < 400 && !check_ended; i++)
		compare_with_all(512 + 512 * check_random(7), check_random(2) == 0);
	CHECK(tally.fewer * 50 <= tally.layouts);
	CHECK(tally.more_moves * 10 <= tally.layouts);
}

static void pieces_cover_all_and_are_alike(void)
{
	check_seed = 4;
	for (unsigned n = 0; n < 100; n++) {
		make_layout(check_random(8) * 512, true);
		for (uint64_t lcn = 0, end; lcn < layout.clusters; lcn = end) {
			end = prep_defrag_layout_piece(&layout, lcn);
			CHECK(end > lcn && end <= layout.clusters);
			for (uint64_t i = lcn; i < end; i++) {
				CHECK_EQ(prep_defrag_layout_first(&layout, i), first_of(lcn));
				CHECK_EQ(prep_defrag_layout_last(&layout, i), last_of(lcn));
				CHECK_EQ(prep_bit_get(free_map, i), prep_bit_get(free_map, lcn));
				CHECK_EQ(prep_bit_get(idle_map, i), prep_bit_get(idle_map, lcn));
			}
		}
	}
}

static void blocks_in_use_are_those_that_something_touches(void)
{
	uint64_t n;

	check_seed = 5;
	for (unsigned i = 0; i < 100; i++) {
		make_layout(check_random(8) * 512, true);
		CHECK_DONE(prep_defrag_layout_in_use(&layout, &n, &err));
		CHECK_EQ(n, (uint64_t)__builtin_popcountll(in_use()));
	}
}

/* Take all there is, in requests of all sizes: each cluster once, and only those that are free where they may be. */
static void holes_are_taken_once(void)
{
	uint8_t seen[CLUSTERS_MAX / 8 + 16];
	struct prep_evacuation e;
	struct prep_holes *h;
	uint64_t lcn, len, taken, want, least, there;
	bool outside;
	int r;

	check_seed = 6;
	for (unsigned n = 0; n < 200; n++) {
		make_layout(check_random(8) * 512, true);
		outside = n % 2 == 1;
		CHECK_DONE(prep_evacuation_choose(&layout, &e, &err));
		CHECK_DONE(prep_holes_new(&layout, e.stays, outside, &h, &err));
		memset(seen, 0, sizeof seen);
		taken = there = 0;
		for (lcn = 0; lcn < layout.clusters; lcn++)
			there += prep_bit_get(free_map, lcn) && prep_bit_get(e.stays, first_of(lcn)) == !outside &&
				 prep_bit_get(e.stays, last_of(lcn)) == !outside;
		for (;;) {
			want = 1 + check_random(40);
			least = taken > there / 2 ? 1 : 1 + check_random(want);
			r = prep_holes_take(h, want, least, &lcn, &len, &err);
			CHECK(r >= 0);
			if (r == 0 && least == 1)
				break;
			if (r == 0) {
				/* nothing that long is left: then shorter ones */
				r = prep_holes_take(h, want, 1, &lcn, &len, &err);
				if (r == 0)
					break;
				least = 1;
			}
			CHECK(len >= least && len <= want);
			/* now and then some of it is not needed after all */
			if (len > 1 && check_random(4) == 0) {
				CHECK_DONE(prep_holes_give(h, lcn + 1, len - 1, &err));
				len = 1;
			}
			for (uint64_t i = lcn; i < lcn + len; i++) {
				CHECK(prep_bit_get(free_map, i) && !prep_bit_get(seen, i));
				CHECK_EQ(prep_bit_get(e.stays, first_of(i)), !outside);
				CHECK_EQ(prep_bit_get(e.stays, last_of(i)), !outside);
				prep_bit_set(seen, i);
			}
			taken += len;
		}
		CHECK_EQ(taken, there);
		prep_holes_free(h);
		prep_evacuation_clear(&e);
	}
}

static void a_close_fit_is_preferred(void)
{
	uint8_t all[8];
	struct prep_holes *h;
	uint64_t lcn, len;

	memset(all, 0xFF, sizeof all);
	layout = (struct prep_defrag_layout){
		.cluster_size = 4096, .clusters = 600, .block_size = 1 << 20, .blocks = 3, .free = free_map,
		.idle = idle_map, .pinned = pinned_map,
	};
	memset(free_map, 0, sizeof free_map);
	prep_bit_fill(free_map, 10, 3, true);
	prep_bit_fill(free_map, 20, 40, true);
	prep_bit_fill(free_map, 100, 300, true);
	memcpy(idle_map, free_map, sizeof idle_map);
	CHECK_DONE(prep_holes_new(&layout, all, false, &h, &err));
	CHECK_EQ(prep_holes_take(h, 2, 1, &lcn, &len, &err), 1);
	CHECK(lcn == 10 && len == 2);
	CHECK_EQ(prep_holes_take(h, 33, 1, &lcn, &len, &err), 1);
	CHECK(lcn == 20 && len == 33);
	/* across the edge of two blocks that both stay */
	CHECK_EQ(prep_holes_take(h, 400, 1, &lcn, &len, &err), 1);
	CHECK(lcn == 100 && len == 300);
	/* what is left: 1 and 7 */
	CHECK_EQ(prep_holes_take(h, 400, 8, &lcn, &len, &err), 0);
	CHECK_EQ(prep_holes_take(h, 400, 2, &lcn, &len, &err), 1);
	CHECK(lcn == 53 && len == 7);
	prep_holes_free(h);
}

int main(void)
{
	RUN(aligned_plans_are_the_best_there_are);
	RUN(partial_blocks_at_the_ends_cost_next_to_nothing);
	RUN(clusters_across_edges_cost_next_to_nothing);
	RUN(pieces_cover_all_and_are_alike);
	RUN(blocks_in_use_are_those_that_something_touches);
	RUN(holes_are_taken_once);
	RUN(a_close_fit_is_preferred);
	return check_result();
}
