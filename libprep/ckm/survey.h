/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Survey: a disk's streams cut into chunks, each distinct chunk once. The
 * first of the two passes of packing, and all of a dry run.
 */
#ifndef PREP_CKM_SURVEY_H
#define PREP_CKM_SURVEY_H

#include <stdbool.h>

#include "libprep/ckm/layout.h"

struct prep_survey_chunk {
	uint8_t digest[PREP_DIGEST_SIZE];
	uint32_t size;
	uint32_t stream; /* in survey->layout: where it was first found */
	uint64_t at;     /* in that stream */
	uint64_t crc;    /* CRC-64 of the bytes: by it the second pass sees that they are still the same */
	bool dense;      /* nothing to be gained by packing, it seems (content.h) */
};

/* What a stream consists of, in order. */
struct prep_survey_ref {
	uint64_t at;     /* in the stream; what lies between two is zeros */
	uint32_t chunk;
};

struct prep_survey {
	struct prep_layout layout; /* its streams' content is known now */
	struct prep_survey_chunk *chunk;
	uint32_t chunks;
	struct prep_survey_ref *ref;
	size_t refs;
	size_t *first_ref; /* of each stream, and the end */
};

/*
 * Survey d, which must outlive it, by the pool's threads. Memory grows with the
 * number of chunks, not with their bytes. Release with prep_survey_clear.
 */
int prep_survey_make(struct prep_disk *d, struct prep_pool *pool, struct prep_survey *ret,
		     const struct prep_progress *progress, struct prep_err *err);
void prep_survey_clear(struct prep_survey *s);

/* Read the bytes of n chunks, one after the other, to buf. Several threads may. */
int prep_survey_read(const struct prep_survey *s, const uint32_t *chunk, uint32_t n, uint8_t *buf,
		     struct prep_err *err);

#endif
