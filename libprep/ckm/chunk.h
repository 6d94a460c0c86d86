/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Chunks: where a stream of bytes is cut, and what each piece's digest is.
 *
 * The cuts depend on nothing but the bytes from the stream's start and the way
 * of cutting, so that a file gives the same chunks wherever it lies: in an
 * image, however fragmented, or in a host's folder, sparse or not.
 *
 * A stream is looked at in units of 64 KiB from its start (the last may be
 * shorter). A unit that is all zero is never part of a chunk. Each run of
 * other units, a span, is cut from its own start: at content-defined places,
 * or by blocks. So long zeros cost nothing, and those known without reading
 * are not even read.
 */
#ifndef PREP_CKM_CHUNK_H
#define PREP_CKM_CHUNK_H

#include <stddef.h>
#include <stdint.h>

#include "libprep/base/err.h"
#include "libprep/ckm/index.h"

#define PREP_CHUNK_ZERO_UNIT (64u << 10)

/*
 * Content-defined cutting: a gear hash with two masks around the average
 * (normalised chunking: W. Xia et al., "FastCDC", USENIX ATC 2016). Part of
 * what makes chunks match between packages: not to be changed.
 */
#define PREP_CHUNK_MIN (4u << 10)
#define PREP_CHUNK_AVERAGE (16u << 10)
#define PREP_CHUNK_MAX (64u << 10)

/* The table of the gear hash. */
void prep_chunk_gear(uint64_t gear[256]);

/* Where a stream's bytes come from. */
struct prep_chunk_source {
	uint64_t size; /* bytes */
	int (*read)(void *arg, void *buf, size_t len, uint64_t at, struct prep_err *err);
	/*
	 * Optional: a place in (at, end] up to which the bytes from `at` on are known
	 * to be zeros without reading, or `at` where they are not. Only saves time.
	 */
	int (*zeros)(void *arg, uint64_t at, uint64_t end, uint64_t *ret, struct prep_err *err);
	void *arg;
};

/* A chunk of the stream. */
struct prep_chunk_piece {
	uint64_t at;           /* in the stream */
	uint32_t size;         /* bytes */
	const uint8_t *data;   /* valid during the call */
	uint8_t digest[PREP_DIGEST_SIZE]; /* SHA-256 of data */
};

/* Buffer and hash of one thread. */
struct prep_chunk_cutter;
int prep_chunk_cutter_new(struct prep_chunk_cutter **ret, struct prep_err *err);
void prep_chunk_cutter_free(struct prep_chunk_cutter *c); /* NULL is allowed */

/*
 * Cut the stream, and call fn for each chunk in order. block: 0 for
 * content-defined cutting, which is what a file's data gets; else the size of
 * the blocks, a power of two up to PREP_CHUNK_ZERO_UNIT. Blocks that are all
 * zero are left out too. fn and the source's calls return -1 with *err set to stop.
 */
int prep_chunk_cut(struct prep_chunk_cutter *c, const struct prep_chunk_source *source,
		   uint32_t block,
		   int (*fn)(void *arg, const struct prep_chunk_piece *piece, struct prep_err *err),
		   void *arg, struct prep_err *err);

#endif
