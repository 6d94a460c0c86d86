/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Chunks: cuts that depend on the bytes alone, zeros left out, blocks. */
#include "libprep/ckm/chunk.h"

#include <openssl/sha.h>

#include "libprep/base/bytes.h"
#include "tests/unit/check.h"

/* A stream in memory; known: whether zeros tells the zeros that stand there in whole units. */
struct memory {
	const uint8_t *p;
	uint64_t size;
	bool known;
	uint64_t read; /* bytes */
};

static int read_memory(void *arg, void *buf, size_t len, uint64_t at, struct prep_err *err)
{
	struct memory *m = arg;

	if (at > m->size || len > m->size - at)
		return prep_fail(err, PREP_EFAIL, "read outside the stream");
	memcpy(buf, m->p + at, len);
	m->read += len;
	return 0;
}

static int zeros_of_memory(void *arg, uint64_t at, uint64_t end, uint64_t *ret, struct prep_err *err)
{
	const struct memory *m = arg;

	if (at >= end || end > m->size)
		return prep_fail(err, PREP_EFAIL, "asked about a wrong range");
	*ret = at;
	while (m->known && *ret < end && m->p[*ret] == 0)
		++*ret;
	return 0;
}

/* The chunks of a stream: checked one by one, kept for comparison. */
struct list {
	const struct memory *from;
	struct {
		uint64_t at;
		uint32_t size;
		uint8_t digest[PREP_DIGEST_SIZE];
	} item[4096];
	size_t n;
	uint64_t bytes, end;
	uint32_t largest;
	bool wrong;
	int stop_after; /* chunks; 0: never */
};

static int take(void *arg, const struct prep_chunk_piece *p, struct prep_err *err)
{
	struct list *l = arg;
	uint8_t digest[PREP_DIGEST_SIZE];

	SHA256(p->data, p->size, digest);
	l->wrong |= p->size == 0 || p->at < l->end || p->at + p->size > l->from->size ||
		    memcmp(p->data, l->from->p + p->at, p->size) != 0 || memcmp(digest, p->digest, sizeof digest) != 0;
	/* What is passed over is zeros. */
	if (!l->wrong && p->at > l->end)
		l->wrong |= !prep_is_zero(l->from->p + l->end, (size_t)(p->at - l->end));
	l->end = p->at + p->size;
	l->bytes += p->size;
	l->largest = p->size > l->largest ? p->size : l->largest;
	l->item[l->n].at = p->at;
	l->item[l->n].size = p->size;
	memcpy(l->item[l->n].digest, p->digest, sizeof digest);
	l->n++;
	if (l->stop_after > 0 && (int)l->n == l->stop_after)
		return prep_fail(err, PREP_EREFUSED, "enough");
	return 0;
}

static int cut(struct memory *m, uint32_t block, bool zeros, struct list *l, struct prep_err *err)
{
	const struct prep_chunk_source source = { m->size, read_memory, zeros ? zeros_of_memory : NULL, m };
	struct prep_chunk_cutter *c;
	const int stop_after = l->stop_after;
	int r;

	*l = (struct list){ .from = m, .stop_after = stop_after };
	if (prep_chunk_cutter_new(&c, err) < 0)
		return -1;
	r = prep_chunk_cut(c, &source, block, take, l, err);
	prep_chunk_cutter_free(c);
	if (r == 0 && l->end < m->size)
		l->wrong |= !prep_is_zero(m->p + l->end, (size_t)(m->size - l->end));
	return r;
}

static uint8_t *noise(size_t len, uint64_t seed)
{
	uint8_t *p = malloc(len + 1);

	check_seed = seed;
	check_noise(p, len);
	return p;
}

static struct list one, two;

static void sizes_are_bounded_and_average(void)
{
	struct memory m = { noise(8 << 20, 1), 8 << 20, false, 0 };
	struct prep_err err;

	CHECK_DONE(cut(&m, 0, false, &one, &err));
	CHECK(!one.wrong);
	CHECK_EQ(one.bytes, m.size);
	CHECK(one.largest <= PREP_CHUNK_MAX);
	for (size_t i = 0; i + 1 < one.n; i++)
		CHECK(one.item[i].size >= PREP_CHUNK_MIN);
	CHECK(m.size / one.n > PREP_CHUNK_AVERAGE / 2 && m.size / one.n < PREP_CHUNK_AVERAGE * 2);
	free((void *)m.p);
}

/* The cuts are what makes chunks match between packages: this digest of their sizes changes when they do. */
static void cuts_are_those_of_the_format(void)
{
	static const uint8_t want[4] = { 0x4a, 0x91, 0xfa, 0x09 };
	struct memory m = { noise(4 << 20, 2), 4 << 20, false, 0 };
	uint8_t digest[32], sizes[4096 * 4];
	struct prep_err err;

	CHECK_DONE(cut(&m, 0, false, &one, &err));
	for (size_t i = 0; i < one.n; i++)
		put_le32(sizes + 4 * i, one.item[i].size);
	SHA256(sizes, one.n * 4, digest);
	if (memcmp(digest, want, sizeof want) != 0)
		CHECK_FAIL("%02x %02x %02x %02x", digest[0], digest[1], digest[2], digest[3]);
	free((void *)m.p);
}

static void an_insertion_costs_its_neighbourhood(void)
{
	const size_t len = 4 << 20, at = 1000003;
	uint8_t *a = noise(len, 3), *b = malloc(len + 7);
	struct memory ma = { a, len, false, 0 }, mb = { b, len + 7, false, 0 };
	size_t same = 0;
	struct prep_err err;

	memcpy(b, a, at);
	memcpy(b + at, "INSERT!", 7);
	memcpy(b + at + 7, a + at, len - at);
	CHECK_DONE(cut(&ma, 0, false, &one, &err));
	CHECK_DONE(cut(&mb, 0, false, &two, &err));
	CHECK(!one.wrong && !two.wrong);
	for (size_t i = 0; i < two.n; i++)
		for (size_t k = 0; k < one.n; k++)
			same += memcmp(two.item[i].digest, one.item[k].digest, PREP_DIGEST_SIZE) == 0;
	CHECK(same + 4 >= two.n);
	free(a);
	free(b);
}

static void zero_units_are_left_out(void)
{
	const size_t unit = PREP_CHUNK_ZERO_UNIT;
	uint8_t *p = calloc(1, 40 * unit + 100);
	struct memory m = { p, 40 * unit + 100, false, 0 };
	struct prep_err err;

	/* Two spans, the second with a short zero inside; a zero tail. */
	memset(p + unit, 0x11, 3 * unit);
	memset(p + 30 * unit, 0x22, 4 * unit);
	memset(p + 31 * unit + 500, 0, 1000);
	CHECK_DONE(cut(&m, 0, false, &one, &err));
	CHECK(!one.wrong);
	CHECK_EQ(one.bytes, 7 * unit);
	CHECK_EQ(one.item[0].at, unit);
	free(p);
}

static void known_zeros_are_not_read_and_change_nothing(void)
{
	const size_t unit = PREP_CHUNK_ZERO_UNIT, len = 300 * unit + 123;
	uint8_t *p = calloc(1, len);
	struct memory m = { p, len, true, 0 };
	struct prep_err err;

	check_seed = 5;
	check_noise(p + 1000, 90000);
	check_noise(p + 120 * unit - 77, 5 * unit);
	check_noise(p + len - 10, 10);
	CHECK_DONE(cut(&m, 0, false, &one, &err));
	CHECK_EQ(m.read, len);
	m.read = 0;
	CHECK_DONE(cut(&m, 0, true, &two, &err));
	CHECK(!one.wrong && !two.wrong);
	CHECK_EQ(one.n, two.n);
	CHECK(memcmp(one.item, two.item, one.n * sizeof one.item[0]) == 0);
	CHECK(m.read < 60 * unit);
	free(p);
}

static void blocks_are_aligned_and_zero_ones_left_out(void)
{
	uint8_t *p = noise(1 << 20, 6);
	struct memory m = { p, (1 << 20) - 5, false, 0 };
	struct prep_err err;

	memset(p + 8192, 0, 4096);
	CHECK_DONE(cut(&m, 4096, false, &one, &err));
	CHECK(!one.wrong);
	CHECK_EQ(one.n, 255);
	for (size_t i = 0; i < one.n; i++)
		CHECK_EQ(one.item[i].at % 4096, 0);
	CHECK_EQ(one.item[254].size, 4091);
	free(p);
}

static void sizes_around_the_limits(void)
{
	static const size_t size[] = { 0, 1, PREP_CHUNK_MIN - 1, PREP_CHUNK_MIN, PREP_CHUNK_MIN + 1,
				       PREP_CHUNK_ZERO_UNIT - 1, PREP_CHUNK_ZERO_UNIT, PREP_CHUNK_ZERO_UNIT + 1,
				       PREP_CHUNK_MAX, PREP_CHUNK_MAX + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1 };
	uint8_t *p = noise((1 << 20) + 1, 7);
	struct prep_err err;

	for (size_t i = 0; i < sizeof size / sizeof size[0]; i++) {
		struct memory m = { p, size[i], false, 0 };

		CHECK_DONE(cut(&m, 0, true, &one, &err));
		CHECK(!one.wrong);
		CHECK_EQ(one.bytes, size[i]);
	}
	free(p);
}

static void a_stop_stops(void)
{
	struct memory m = { noise(1 << 20, 8), 1 << 20, false, 0 };
	struct prep_err err;

	one.stop_after = 2;
	CHECK_FAILS(cut(&m, 0, false, &one, &err), PREP_EREFUSED, "enough");
	CHECK_EQ(one.n, 2);
	one.stop_after = 0;
	free((void *)m.p);
}

int main(void)
{
	RUN(sizes_are_bounded_and_average);
	RUN(cuts_are_those_of_the_format);
	RUN(an_insertion_costs_its_neighbourhood);
	RUN(zero_units_are_left_out);
	RUN(known_zeros_are_not_read_and_change_nothing);
	RUN(blocks_are_aligned_and_zero_ones_left_out);
	RUN(sizes_around_the_limits);
	RUN(a_stop_stops);
	return check_result();
}
