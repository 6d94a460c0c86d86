/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/chunk.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/hash.h"

#define BUFFER (1u << 20) /* several chunks and zero units */

/*
 * The gear table: 256 numbers without pattern, from splitmix64 started at 0
 * (S. Vigna, public domain), so that ckm(5) need not print them.
 */
void prep_chunk_gear(uint64_t gear[256])
{
	uint64_t state = 0;

	for (unsigned i = 0; i < 256; i++) {
		uint64_t z = state += 0x9E3779B97F4A7C15;

		z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
		z = (z ^ z >> 27) * 0x94D049BB133111EB;
		gear[i] = z ^ z >> 31;
	}
}

/*
 * 14 bits for an average of 16 KiB; two more before it, two fewer after, so
 * that sizes gather around it. The top bits have seen the most bytes.
 */
#define MASK(bits) (~(uint64_t)0 << (64 - (bits)))
#define MASK_BEFORE MASK(16)
#define MASK_AFTER MASK(12)

struct prep_chunk_cutter {
	uint64_t gear[256];
	struct prep_hash hash;
	uint8_t *buf;
};

/* The length of the first chunk of p[0..len): the rest of a span, or at least its next PREP_CHUNK_MAX bytes. */
static size_t next_cut(const uint64_t gear[256], const uint8_t *p, size_t len)
{
	const size_t end = len < PREP_CHUNK_MAX ? len : PREP_CHUNK_MAX;
	const size_t average = end < PREP_CHUNK_AVERAGE ? end : PREP_CHUNK_AVERAGE;
	uint64_t h = 0;
	size_t i = PREP_CHUNK_MIN;

	if (end <= PREP_CHUNK_MIN)
		return end;
	for (; i < average; i++) {
		h = (h << 1) + gear[p[i]];
		if ((h & MASK_BEFORE) == 0)
			return i + 1;
	}
	for (; i < end; i++) {
		h = (h << 1) + gear[p[i]];
		if ((h & MASK_AFTER) == 0)
			return i + 1;
	}
	return end;
}

int prep_chunk_cutter_new(struct prep_chunk_cutter **ret, struct prep_err *err)
{
	struct prep_chunk_cutter *c = calloc(1, sizeof *c);

	*ret = NULL;
	if (c == NULL)
		return prep_fail_nomem(err);
	prep_chunk_gear(c->gear);
	c->buf = malloc(BUFFER);
	if (c->buf == NULL) {
		prep_chunk_cutter_free(c);
		return prep_fail_nomem(err);
	}
	if (prep_hash_open(&c->hash, err) < 0) {
		prep_chunk_cutter_free(c);
		return -1;
	}
	*ret = c;
	return 0;
}

void prep_chunk_cutter_free(struct prep_chunk_cutter *c)
{
	if (c == NULL)
		return;
	prep_hash_close(&c->hash);
	free(c->buf);
	free(c);
}

/* One stream being cut. */
struct cut {
	struct prep_chunk_cutter *c;
	const struct prep_chunk_source *source;
	uint32_t block;
	int (*fn)(void *arg, const struct prep_chunk_piece *piece, struct prep_err *err);
	void *arg;

	uint64_t at;        /* in the stream, of buf[from] */
	size_t from, have;  /* in the buffer: not cut yet; read */
	size_t span;        /* from here, bytes that are known to belong to one span */
};

static int put_piece(struct cut *x, size_t len, struct prep_err *err)
{
	struct prep_chunk_piece piece = { x->at, (uint32_t)len, x->c->buf + x->from, { 0 } };

	if (x->block == 0 || !prep_is_zero(piece.data, len)) {
		if (prep_hash_of(&x->c->hash, piece.data, len, piece.digest, err) < 0 ||
		    x->fn(x->arg, &piece, err) < 0)
			return -1;
	}
	x->at += len;
	x->from += len;
	x->span -= len;
	return 0;
}

/*
 * Cut what of the span is in the buffer. Unless it ends there, so much is left
 * that the next cut will see enough.
 */
static int cut_span(struct cut *x, bool ended, struct prep_err *err)
{
	while (x->span > 0 && (ended || x->span >= PREP_CHUNK_MAX)) {
		const size_t len = x->block != 0 ? prep_min(x->span, x->block)
						 : next_cut(x->c->gear, x->c->buf + x->from, x->span);

		if (put_piece(x, len, err) < 0)
			return -1;
	}
	return 0;
}

/* Read on: as much as there is room for, to the end of a zero unit or of the stream. */
static int fill(struct cut *x, struct prep_err *err)
{
	const uint64_t pos = x->at + x->span;
	size_t len;

	memmove(x->c->buf, x->c->buf + x->from, x->span);
	x->from = 0;
	len = (size_t)prep_min(BUFFER - x->span, x->source->size - pos);
	if (pos + len < x->source->size)
		len = (size_t)(prep_round_down(pos + len, PREP_CHUNK_ZERO_UNIT) - pos);
	x->have = x->span + len;
	return x->source->read(x->source->arg, x->c->buf + x->span, len, pos, err);
}

/* Pass over what is known to be zero from x->at on, where no span is open: whole units of it. */
static int skip_zeros(struct cut *x, struct prep_err *err)
{
	const uint64_t size = x->source->size;
	uint64_t end;

	if (x->source->zeros == NULL || x->at >= size)
		return 0;
	if (x->source->zeros(x->source->arg, x->at, size, &end, err) < 0)
		return -1;
	x->at = end >= size ? size : prep_round_down(end, PREP_CHUNK_ZERO_UNIT);
	return 0;
}

/* Take the units that were read, one by one. */
static int take_units(struct cut *x, struct prep_err *err)
{
	while (x->from + x->span < x->have) {
		const size_t pos = x->from + x->span;
		const size_t len = (size_t)prep_min(PREP_CHUNK_ZERO_UNIT, x->have - pos);

		if (!prep_is_zero(x->c->buf + pos, len)) {
			x->span += len;
			continue;
		}
		if (cut_span(x, true, err) < 0)
			return -1;
		x->from += len;
		x->at += len;
	}
	return cut_span(x, x->at + x->span == x->source->size, err);
}

int prep_chunk_cut(struct prep_chunk_cutter *c, const struct prep_chunk_source *source,
		   uint32_t block,
		   int (*fn)(void *arg, const struct prep_chunk_piece *piece, struct prep_err *err),
		   void *arg, struct prep_err *err)
{
	struct cut x = { .c = c, .source = source, .block = block, .fn = fn, .arg = arg };

	for (;;) {
		if (x.span == 0 && skip_zeros(&x, err) < 0)
			return -1;
		if (x.at + x.span == source->size)
			return 0;
		if (fill(&x, err) < 0 || take_units(&x, err) < 0)
			return -1;
	}
}
