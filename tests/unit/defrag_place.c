/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * From streams to the places where their clusters go: the survey and the placing
 * of vhd-defrag, on volumes of random streams that only this test knows: plain
 * ones, sparse ones, compressed ones with units in pieces, ones that stay.
 */
#include "libprep/prep/defrag_place.h"

#include <sys/mman.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/raw.h"
#include "libprep/volume/fs_ops.h"
#include "tests/unit/check.h"

#define CLUSTER 4096u
#define CLUSTERS 2000u
#define BLOCK (64 * CLUSTER)
#define BLOCKS_MAX 40u
#define STREAMS 24u
#define RUNS_MAX 600u
#define UNIT 16u
#define BITS(n) ((n) / 8 + 9)

static struct prep_err err;

/* The volume: streams, whose clusters are, and what should be made of them. */
static struct prep_fs_stream stream[STREAMS];
static struct prep_fs_run runs[STREAMS][RUNS_MAX];
static uint64_t start;
static uint8_t free_map[BITS(CLUSTERS)], moves[BITS(CLUSTERS)], live[BITS(BLOCKS_MAX)];
static uint64_t boot_id; /* of the file that is found as /bootmgr; 0: none */

static uint64_t first_of(uint64_t lcn)
{
	return (start + lcn * CLUSTER) / BLOCK - start / BLOCK;
}

static uint64_t last_of(uint64_t lcn)
{
	return (start + (lcn + 1) * CLUSTER - 1) / BLOCK - start / BLOCK;
}

/* ---- A file system of these streams ---- */

static int fake_walk(struct prep_fs *fs, unsigned flags,
		     int (*fn)(void *arg, const struct prep_fs_stream *s, struct prep_err *err), void *arg,
		     struct prep_err *e)
{
	(void)fs;
	(void)flags;
	for (unsigned i = 0; i < STREAMS; i++)
		if (fn(arg, &stream[i], e) < 0)
			return -1;
	return 0;
}

static int fake_find(struct prep_fs *fs, const char *pattern, bool recursive, struct prep_fs_list *list,
		     struct prep_err *e)
{
	(void)fs;
	(void)recursive;
	(void)e;
	if (boot_id == 0 || strcmp(pattern, "/bootmgr") != 0)
		return 0;
	/* an entry's id has the record's sequence number above its own */
	list->entry = calloc(1, sizeof *list->entry);
	list->entry[0].path = strdup(pattern);
	list->entry[0].id = 7ull << 48 | boot_id;
	list->n = 1;
	return 0;
}

static const struct prep_fs_ops fake_ops = { .walk = fake_walk, .find = fake_find };
static struct prep_fs fake = { .ops = &fake_ops, .info.cluster_size = CLUSTER };

/* Add len clusters at lcn (or a hole) to a stream that ends at vcn. */
static void add_run(struct prep_fs_stream *s, uint64_t vcn, uint64_t lcn, uint64_t len)
{
	struct prep_fs_run *r = &runs[s - stream][s->runs], *before = r - 1;
	const uint64_t off = lcn == PREP_FS_HOLE ? PREP_FS_HOLE : lcn * CLUSTER;

	if (s->runs > 0 && (off == PREP_FS_HOLE ? before->off == PREP_FS_HOLE
						: before->off != PREP_FS_HOLE && before->off + before->len == off)) {
		before->len += len * CLUSTER;
		return;
	}
	*r = (struct prep_fs_run){ vcn * CLUSTER, off, len * CLUSTER };
	s->runs++;
}

/* Take at most n free clusters in a row somewhere: how many, from *lcn on; 0: there was no luck. */
static uint64_t take(uint64_t n, uint64_t *lcn)
{
	uint64_t got = 0;

	*lcn = check_random(CLUSTERS);
	while (got < n && *lcn + got < CLUSTERS && prep_bit_get(free_map, *lcn + got))
		got++;
	prep_bit_fill(free_map, *lcn, got, false);
	return got;
}

/* n clusters from vcn on, in as many pieces as come. Returns where they end. */
static uint64_t fill_clusters(struct prep_fs_stream *s, uint64_t vcn, uint64_t n)
{
	for (unsigned tries = 0; n > 0 && tries < 50 && s->runs < RUNS_MAX - 2; tries++) {
		uint64_t lcn;
		const uint64_t got = take(check_random(3) == 0 ? 1 : n, &lcn);

		if (got > 0)
			add_run(s, vcn, lcn, got);
		vcn += got;
		n -= got;
	}
	return vcn;
}

static void make_stream(struct prep_fs_stream *s)
{
	uint64_t vcn = 0;

	for (unsigned parts = 1 + check_random(8); parts > 0; parts--) {
		const uint64_t at = vcn;

		if (s->compressed) {
			/* a unit: data, and a hole behind */
			vcn = fill_clusters(s, vcn, 1 + check_random(UNIT));
			if (vcn == at)
				return;
			if (vcn < at + UNIT)
				add_run(s, vcn, PREP_FS_HOLE, at + UNIT - vcn);
			vcn = at + UNIT;
			continue;
		}
		vcn = fill_clusters(s, vcn, 1 + check_random(30));
		if (vcn == at)
			return;
		if (s->sparse) {
			add_run(s, vcn, PREP_FS_HOLE, 5);
			vcn += 5;
		}
	}
}

static void make_volume(uint64_t shift)
{
	start = BLOCK * check_random(3) + shift;
	memset(free_map, 0, sizeof free_map);
	memset(moves, 0, sizeof moves);
	prep_bit_fill(free_map, 0, CLUSTERS, true);
	for (unsigned i = 0; i < STREAMS; i++) {
		struct prep_fs_stream *s = &stream[i];
		const unsigned kind = check_random(12);

		*s = (struct prep_fs_stream){
			.id = 24 + i, .name = "", .data = true, .type = 0x80, .run = runs[i],
			.fixed = kind == 0, .compressed = kind >= 1 && kind <= 3, .sparse = kind >= 4 && kind <= 5,
		};
		make_stream(s);
		/* what says sparse and has no hole stays: libntfs-3g would change the flag */
		s->sparse |= kind == 6;
		for (size_t r = 0; r < s->runs && !s->fixed && s->id != boot_id && kind != 6; r++)
			if (s->run[r].off != PREP_FS_HOLE)
				prep_bit_fill(moves, s->run[r].off / CLUSTER, s->run[r].len / CLUSTER, true);
	}
}

/* The volume on a disk: data in a used cluster of most blocks, nothing in the others. */
static struct prep_disk *make_disk(void)
{
	const uint64_t size = start + (uint64_t)CLUSTERS * CLUSTER;
	static unsigned char data[CLUSTER];
	uint8_t written[BITS(BLOCKS_MAX)] = { 0 };
	struct prep_disk *d;
	const int fd = memfd_create("disk", MFD_CLOEXEC);

	memset(data, 0xAA, sizeof data);
	memset(live, 0, sizeof live);
	for (uint64_t i = 0; i < BLOCKS_MAX; i++)
		if (check_random(8) > 0)
			prep_bit_set(live, i);
	for (uint64_t lcn = 0; lcn < CLUSTERS; lcn++) {
		if (prep_bit_get(free_map, lcn) || !prep_bit_get(live, first_of(lcn)) || !prep_bit_get(live, last_of(lcn)) ||
		    (prep_bit_get(written, first_of(lcn)) && prep_bit_get(written, last_of(lcn))))
			continue;
		check_write(fd, data, sizeof data, start + lcn * CLUSTER);
		prep_bit_set(written, first_of(lcn));
		prep_bit_set(written, last_of(lcn));
	}
	if (ftruncate(fd, (off_t)size) != 0 || prep_raw_open(fd, "disk", size, &d, &err) < 0)
		exit(1);
	return d;
}

static struct prep_partition part;
static struct prep_volume volume = { .part = &part };

static int survey(struct prep_disk *d, struct prep_defrag_survey *ret)
{
	const struct prep_fs_audit audit = { .free_map = free_map, .clusters = CLUSTERS };

	part = (struct prep_partition){ .off = start, .len = (uint64_t)CLUSTERS * CLUSTER };
	volume.slice = d;
	return prep_defrag_survey(&volume, &fake, d, &audit, BLOCK, ret, &err);
}

static void the_survey_knows_what_moves(void)
{
	struct prep_defrag_survey s;
	struct prep_disk *d;

	check_seed = 90;
	for (unsigned i = 0; i < 60; i++) {
		uint8_t pinned[BITS(BLOCKS_MAX)] = { 0 };

		boot_id = i % 3 == 0 ? 24 + check_random(STREAMS) : 0;
		make_volume(check_random(8) * 512);
		d = make_disk();
		CHECK_DONE(survey(d, &s));
		CHECK(s.layout.blocks <= BLOCKS_MAX);
		for (uint64_t lcn = 0; lcn < CLUSTERS; lcn++) {
			CHECK_EQ(prep_bit_get(s.movable, lcn), prep_bit_get(moves, lcn));
			if (prep_bit_get(free_map, lcn) || prep_bit_get(moves, lcn))
				continue;
			prep_bit_set(pinned, first_of(lcn));
			prep_bit_set(pinned, last_of(lcn));
		}
		for (uint64_t b = 0; b < s.layout.blocks; b++)
			CHECK_EQ(prep_bit_get(s.layout.pinned, b), prep_bit_get(pinned, b));
		/* without weight is what is free, and nothing else in a block that holds data or must stay */
		for (uint64_t lcn = 0; lcn < CLUSTERS; lcn++) {
			CHECK(!prep_bit_get(free_map, lcn) || prep_bit_get(s.idle, lcn));
			if (!prep_bit_get(free_map, lcn) && (prep_bit_get(pinned, first_of(lcn)) || prep_bit_get(pinned, last_of(lcn)) ||
			     (prep_bit_get(live, first_of(lcn)) && prep_bit_get(live, last_of(lcn)))))
				CHECK(!prep_bit_get(s.idle, lcn));
		}
		prep_defrag_survey_clear(&s);
		prep_disk_close(d);
	}
	fake.info.cluster_size = 2 * BLOCK;
	d = make_disk();
	CHECK_FAILS(survey(d, &s), PREP_EREFUSED, "larger than a block");
	prep_defrag_survey_clear(&s);
	prep_disk_close(d);
	fake.info.cluster_size = CLUSTER;
}

/* Cluster of the volume where vcn of s is, PREP_FS_HOLE in a hole and behind the end. */
static uint64_t lcn_of(const struct prep_fs_stream *s, uint64_t vcn)
{
	for (size_t i = 0; i < s->runs; i++)
		if (vcn * CLUSTER >= s->run[i].at && vcn * CLUSTER < s->run[i].at + s->run[i].len)
			return s->run[i].off == PREP_FS_HOLE ? PREP_FS_HOLE : (s->run[i].off + vcn * CLUSTER - s->run[i].at) / CLUSTER;
	return PREP_FS_HOLE;
}

static uint64_t stream_end(const struct prep_fs_stream *s)
{
	return s->runs == 0 ? 0 : (s->run[s->runs - 1].at + s->run[s->runs - 1].len) / CLUSTER;
}

/* The target of vcn, or PREP_FS_HOLE when no piece has it. */
static uint64_t target_of(const struct prep_place *p, uint64_t vcn)
{
	for (size_t i = 0; i < p->pieces; i++)
		if (vcn * CLUSTER >= p->piece[i].at && vcn * CLUSTER < p->piece[i].at + p->piece[i].len)
			return (p->piece[i].to + vcn * CLUSTER - p->piece[i].at) / CLUSTER;
	return PREP_FS_HOLE;
}

/* Pieces ascend and do not overlap; what they hold is the stream's, and goes to free clusters that may be used, each once. */
static void check_pieces(const struct prep_place *p, const struct prep_fs_stream *s, const uint8_t *stays, uint8_t *taken)
{
	for (size_t i = 0; i < p->pieces; i++) {
		const struct prep_fs_piece *piece = &p->piece[i];

		CHECK(piece->len > 0 && piece->at % CLUSTER == 0 && piece->len % CLUSTER == 0 && piece->to % CLUSTER == 0);
		CHECK(i == 0 || piece->at >= piece[-1].at + piece[-1].len);
		for (uint64_t n = 0; n < piece->len / CLUSTER; n++) {
			const uint64_t to = piece->to / CLUSTER + n;

			CHECK(lcn_of(s, piece->at / CLUSTER + n) != PREP_FS_HOLE);
			CHECK(prep_bit_get(free_map, to) && !prep_bit_get(taken, to));
			CHECK(prep_bit_get(stays, first_of(to)) && prep_bit_get(stays, last_of(to)));
			prep_bit_set(taken, to);
		}
	}
}

/* What lies in evacuated blocks goes, units as a whole and into one run, nothing else. Returns what was dragged along. */
static uint64_t check_evacuated(const struct prep_place *p, const struct prep_fs_stream *s, uint64_t stuck)
{
	const uint64_t end = stream_end(s);
	uint64_t dragged = 0;

	for (uint64_t vcn = 0, next; vcn < end; vcn = next) {
		const uint64_t lcn = lcn_of(s, vcn), to = target_of(p, vcn);
		bool must = lcn != PREP_FS_HOLE && prep_place_goes(p, lcn);

		next = vcn + 1;
		if (s->compressed && lcn != PREP_FS_HOLE) {
			for (; next % UNIT != 0 && lcn_of(s, next) != PREP_FS_HOLE; next++) {
				must |= prep_place_goes(p, lcn_of(s, next));
				if (target_of(p, next) != (to == PREP_FS_HOLE ? to : to + (next - vcn)))
					check_fail(__FILE__, __LINE__, "a unit was torn");
			}
			for (uint64_t v = vcn; to != PREP_FS_HOLE && v < next; v++)
				dragged += !prep_place_goes(p, lcn_of(s, v));
		}
		if (to != PREP_FS_HOLE && !must)
			check_fail(__FILE__, __LINE__, "what stays was placed");
		if (to == PREP_FS_HOLE && must && stuck == 0)
			check_fail(__FILE__, __LINE__, "what must go was not placed");
	}
	return dragged;
}

/* A volume, surveyed, and which of its blocks to evacuate. */
struct planned {
	struct prep_disk *disk;
	struct prep_defrag_survey survey;
	struct prep_evacuation plan;
};

static void make_plan(struct planned *v)
{
	make_volume(check_random(8) * 512);
	v->disk = make_disk();
	CHECK_DONE(survey(v->disk, &v->survey));
	CHECK_DONE(prep_evacuation_choose(&v->survey.layout, &v->plan, &err));
}

static void clear_plan(struct planned *v)
{
	prep_evacuation_clear(&v->plan);
	prep_defrag_survey_clear(&v->survey);
	prep_disk_close(v->disk);
}

/* Clusters that a place has left to give. */
static uint64_t left_in(struct prep_place *p)
{
	uint64_t lcn, len, sum = 0;

	while (prep_holes_take(p->holes, CLUSTERS, 1, &lcn, &len, &err) == 1)
		sum += len;
	return sum;
}

static void evacuated_blocks_are_emptied(void)
{
	bool seen_dragged = false, seen_stuck = false;

	check_seed = 91;
	boot_id = 0;
	for (unsigned i = 0; i < 150 && !check_ended; i++) {
		uint8_t taken[BITS(CLUSTERS)] = { 0 }, pin[BITS(BLOCKS_MAX)] = { 0 };
		uint64_t there = 0, used = 0, dragged = 0;
		struct prep_place p;
		struct planned v;

		make_plan(&v);
		if (check_ended)
			return;
		CHECK_DONE(prep_place_init(&p, &v.survey, &v.plan, &err));
		p.pin = pin;
		for (uint64_t lcn = 0; lcn < CLUSTERS; lcn++)
			there += prep_bit_get(free_map, lcn) && prep_bit_get(v.plan.stays, first_of(lcn)) &&
				 prep_bit_get(v.plan.stays, last_of(lcn));
		for (unsigned n = 0; n < STREAMS && !check_ended; n++) {
			const uint64_t stuck = p.stuck;

			if (!prep_defrag_survey_movable(&v.survey, &stream[n]))
				continue;
			CHECK_DONE(prep_place_evacuated(&p, &stream[n], &err));
			/* now and then it cannot be moved after all: its holes are there for the others again */
			if (check_random(4) == 0) {
				uint8_t scratch[BITS(CLUSTERS)];

				memcpy(scratch, taken, sizeof scratch);
				check_pieces(&p, &stream[n], v.plan.stays, scratch);
				CHECK_DONE(prep_place_give_back(&p, &err));
			} else {
				check_pieces(&p, &stream[n], v.plan.stays, taken);
			}
			dragged += check_evacuated(&p, &stream[n], p.stuck - stuck);
		}
		CHECK(p.stuck > 0 || p.dragged == dragged);
		seen_dragged |= p.stuck == 0 && dragged > 0;
		seen_stuck |= p.stuck > 0;
		for (uint64_t lcn = 0; lcn < CLUSTERS; lcn++)
			used += prep_bit_get(taken, lcn);
		CHECK_EQ(left_in(&p), there - used);
		/* a block of each part that found no hole is kept */
		CHECK_EQ(p.stuck > 0, prep_bit_next(pin, 0, BLOCKS_MAX, true) < BLOCKS_MAX);
		prep_place_clear(&p);
		clear_plan(&v);
	}
	CHECK(seen_dragged && seen_stuck);
}

/* With every block to stay and room enough: fragmented streams come out whole, those that gain most for the budget first. */
static void chosen_streams_are_made_whole(void)
{
	check_seed = 92;
	boot_id = 0;
	for (unsigned i = 0; i < 60 && !check_ended; i++) {
		uint8_t taken[BITS(CLUSTERS)] = { 0 };
		uint64_t bytes, all, placed = 0, budget;
		struct prep_place p;
		struct planned v;

		make_plan(&v);
		if (check_ended)
			return;
		memset(v.plan.evacuate, 0, (size_t)(v.survey.layout.blocks / 8 + 9));
		memset(v.plan.stays, 0xFF, (size_t)(v.survey.layout.blocks / 8 + 9));
		CHECK_DONE(prep_place_init(&p, &v.survey, &v.plan, &err));
		CHECK_DONE(prep_place_choose_wholes(&p, &fake, UINT64_MAX, &all, &err));
		prep_place_clear(&p);
		budget = i % 2 == 0 ? UINT64_MAX : all / 3;
		CHECK_DONE(prep_place_init(&p, &v.survey, &v.plan, &err));
		CHECK_DONE(prep_place_choose_wholes(&p, &fake, budget, &bytes, &err));
		CHECK(bytes <= budget && bytes <= all);
		CHECK(i % 2 != 0 || bytes == all);
		for (unsigned n = 0; n < STREAMS && !check_ended; n++) {
			uint64_t clusters = 0, went = 0, targets = 0, next = UINT64_MAX;

			CHECK_DONE(prep_place_whole(&p, &stream[n], &err));
			check_pieces(&p, &stream[n], v.plan.stays, taken);
			for (uint64_t vcn = 0; vcn < stream_end(&stream[n]); vcn++) {
				const uint64_t to = target_of(&p, vcn);

				clusters += lcn_of(&stream[n], vcn) != PREP_FS_HOLE;
				went += to != PREP_FS_HOLE;
				targets += to != PREP_FS_HOLE && to != next;
				next = to != PREP_FS_HOLE ? to + 1 : next;
			}
			placed += went * CLUSTER;
			CHECK(went == 0 || prep_defrag_survey_movable(&v.survey, &stream[n]));
			/* in one run, or, where none is long enough, in few long ones from the front on */
			if (went == clusters && went > 0)
				CHECK(targets < stream[n].runs);
		}
		CHECK(placed <= bytes);
		prep_place_clear(&p);
		clear_plan(&v);
	}
}

/* A unit of compressed data is not cut, and a part that is not as it should be is left alone. */
static void parts_of_compressed_streams(void)
{
	static const struct prep_fs_run run[] = {
		{ 0, 100 * CLUSTER, 6 * CLUSTER },                   /* one unit, in two runs */
		{ 6 * CLUSTER, 50 * CLUSTER, 2 * CLUSTER },
		{ 8 * CLUSTER, PREP_FS_HOLE, 8 * CLUSTER },
		{ 16 * CLUSTER, 200 * CLUSTER, 20 * CLUSTER },       /* a full unit, and 4 clusters of the next */
		{ 36 * CLUSTER, PREP_FS_HOLE, 8 * CLUSTER },
		{ 44 * CLUSTER, 300 * CLUSTER, 4 * CLUSTER },        /* data behind a unit's hole: not as it should be */
	};
	const struct prep_fs_stream s = { .compressed = true, .run = run, .runs = 6 };
	const struct prep_defrag_survey v = { .layout.cluster_size = CLUSTER };
	static const struct prep_defrag_survey_part want[] = {
		{ 0, 8, 0, true, false }, { 16, 16, 3, true, false }, { 32, 4, 3, true, true }, { 44, 4, 5, true, true },
	};
	struct prep_defrag_survey_part got;
	uint64_t vcn = 0;
	size_t at = 0;

	for (unsigned i = 0; i < 4; i++) {
		CHECK(prep_defrag_survey_part(&v, &s, &at, vcn, &got));
		CHECK_EQ(got.vcn, want[i].vcn);
		CHECK_EQ(got.len, want[i].len);
		CHECK_EQ(got.run, want[i].run);
		CHECK_EQ(got.whole, true);
		CHECK_EQ(got.fixed, want[i].fixed);
		vcn = got.vcn + got.len;
	}
	CHECK(!prep_defrag_survey_part(&v, &s, &at, vcn, &got));
}

int main(void)
{
	RUN(the_survey_knows_what_moves);
	RUN(evacuated_blocks_are_emptied);
	RUN(chosen_streams_are_made_whole);
	RUN(parts_of_compressed_streams);
	return check_result();
}
