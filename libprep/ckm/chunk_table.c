/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Chunks by digest: an array sorted by digest, and a directory of where each
 * leading number begins. A hostile index cannot make it slow, as it could a
 * hash table.
 */
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/index.h"

struct prep_chunk_table {
	const struct prep_ckm_index *in;
	uint32_t *order;   /* chunk numbers by digest */
	uint32_t *start;   /* of each leading number, and the end */
	unsigned bits;     /* of the leading number */
};

static uint32_t leading(const uint8_t *digest, unsigned bits)
{
	return bits == 0 ? 0 : get_be32(digest) >> (32 - bits);
}

static int by_digest(const void *a, const void *b, void *arg)
{
	const struct prep_chunk *chunk = arg;
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	const int r = memcmp(chunk[x].digest, chunk[y].digest, PREP_DIGEST_SIZE);

	return r != 0 ? r : (x > y) - (x < y);
}

int prep_chunk_table_new(const struct prep_ckm_index *in, struct prep_chunk_table **ret,
			 struct prep_err *err)
{
	struct prep_chunk_table *t = calloc(1, sizeof *t);
	uint32_t *next;

	*ret = NULL;
	if (t == NULL)
		return prep_fail_nomem(err);
	t->in = in;
	while (t->bits < 24 && (uint32_t)1 << t->bits < in->chunks)
		t->bits++;
	t->order = malloc(((size_t)in->chunks + 1) * sizeof *t->order);
	t->start = calloc(((size_t)1 << t->bits) + 2, sizeof *t->start);
	if (t->order == NULL || t->start == NULL) {
		prep_chunk_table_free(t);
		return prep_fail_nomem(err);
	}
	/* Counting sort by the leading number, then each of the short ranges by the whole digest. */
	next = t->start + 1;
	for (uint32_t i = 0; i < in->chunks; i++)
		next[leading(in->chunk[i].digest, t->bits) + 1]++;
	for (uint32_t i = 1; i <= (uint32_t)1 << t->bits; i++)
		next[i] += next[i - 1];
	for (uint32_t i = 0; i < in->chunks; i++)
		t->order[next[leading(in->chunk[i].digest, t->bits)]++] = i;
	/* Each count has moved on to where the next number begins: start[] is complete. */
	for (uint32_t i = 0; i < (uint32_t)1 << t->bits; i++) {
		const uint32_t n = t->start[i + 1] - t->start[i];

		if (n > 1)
			qsort_r(t->order + t->start[i], n, sizeof *t->order, by_digest, in->chunk);
	}
	*ret = t;
	return 0;
}

uint32_t prep_chunk_table_find(const struct prep_chunk_table *t, const uint8_t digest[PREP_DIGEST_SIZE])
{
	const uint32_t number = leading(digest, t->bits);
	uint32_t from = t->start[number], to = t->start[number + 1];

	/* The first that is not below the digest. */
	while (from < to) {
		const uint32_t mid = from + (to - from) / 2;

		if (memcmp(t->in->chunk[t->order[mid]].digest, digest, PREP_DIGEST_SIZE) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	if (from == t->start[number + 1] ||
	    memcmp(t->in->chunk[t->order[from]].digest, digest, PREP_DIGEST_SIZE) != 0)
		return UINT32_MAX;
	return t->order[from];
}

void prep_chunk_table_free(struct prep_chunk_table *t)
{
	if (t == NULL)
		return;
	free(t->order);
	free(t->start);
	free(t);
}
