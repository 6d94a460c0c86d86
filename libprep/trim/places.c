/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/places.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"

int prep_places_new(const struct prep_ckm_index *index, struct prep_places *ret, struct prep_err *err)
{
	*ret = (struct prep_places){
		.index = index,
		.first = calloc((size_t)index->chunks + 2, sizeof *ret->first),
		.ref = malloc(((size_t)index->refs + 1) * sizeof *ret->ref),
		.at = malloc(((size_t)index->refs + 1) * sizeof *ret->at),
		.run_at = malloc(((size_t)index->runs + 1) * sizeof *ret->run_at),
	};
	if (ret->first == NULL || ret->ref == NULL || ret->at == NULL || ret->run_at == NULL) {
		prep_places_clear(ret);
		return prep_fail_nomem(err);
	}
	/* Counted one further on, so that filling moves each to where the next begins. */
	for (uint32_t i = 0; i < index->refs; i++)
		ret->first[index->ref[i] + 2]++;
	for (uint32_t i = 2; i <= index->chunks; i++)
		ret->first[i] += ret->first[i - 1];
	for (uint32_t i = 0; i < index->refs; i++)
		ret->ref[ret->first[index->ref[i] + 1]++] = i;
	for (uint32_t i = 0; i < index->streams; i++) {
		const struct prep_stream *s = &index->stream[i];
		uint64_t at = 0;

		for (uint32_t k = s->first_ref; k < s->first_ref + s->refs; k++) {
			ret->at[k] = at;
			at += index->chunk[index->ref[k]].size;
		}
		at = 0;
		for (uint32_t k = s->first_run; k < s->first_run + s->runs; k++) {
			ret->run_at[k] = at;
			at += index->run[k].len;
		}
	}
	return 0;
}

void prep_places_clear(struct prep_places *p)
{
	free(p->first);
	free(p->ref);
	free(p->at);
	free(p->run_at);
	*p = (struct prep_places){ .index = NULL };
}

/* The stream of a reference: streams stand in the order of theirs. */
static const struct prep_stream *stream_of(const struct prep_ckm_index *index, uint32_t ref)
{
	uint32_t from = 0, to = index->streams;

	while (to - from > 1) {
		const uint32_t mid = from + (to - from) / 2;

		if (index->stream[mid].first_ref <= ref)
			from = mid;
		else
			to = mid;
	}
	return &index->stream[from];
}

bool prep_places_piece(const struct prep_places *p, uint32_t ref, struct prep_piece *piece)
{
	const struct prep_stream *s = stream_of(p->index, ref);
	const uint32_t size = p->index->chunk[p->index->ref[ref]].size;
	const uint32_t done = piece->at + piece->len;
	const uint64_t at = p->at[ref] + done;
	uint32_t from = s->first_run, to = s->first_run + s->runs;

	if (done == size)
		return false;
	/* The last run that begins at the byte or before. */
	while (to - from > 1) {
		const uint32_t mid = from + (to - from) / 2;

		if (p->run_at[mid] <= at)
			from = mid;
		else
			to = mid;
	}
	*piece = (struct prep_piece){
		.off = p->index->run[from].off + (at - p->run_at[from]),
		.at = done,
		.len = (uint32_t)prep_min(size - done, p->index->run[from].len - (at - p->run_at[from])),
	};
	return true;
}
