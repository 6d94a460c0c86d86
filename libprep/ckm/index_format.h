/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the encoder and the decoder of the index share. ckm(5) has the whole.
 */
#ifndef PREP_CKM_INDEX_FORMAT_H
#define PREP_CKM_INDEX_FORMAT_H

#include <stdint.h>

/* Sections, in this order: number, length, payload. */
enum prep_index_section {
	PREP_INDEX_META = 1,
	PREP_INDEX_FRAMES,
	PREP_INDEX_CHUNKS,
	PREP_INDEX_STREAMS,
	PREP_INDEX_REFS,
	PREP_INDEX_RUNS,
	PREP_INDEX_PATHS,
	PREP_INDEX_PATCHES, /* where there are patch frames */
};

#define PREP_INDEX_PATH_MAX (1u << 17)           /* bytes of a path */

/* Bytes of all paths, each with its zero byte, that may come of a section of `len` bytes. */
static inline uint64_t prep_index_strings_max(uint64_t len)
{
	const uint64_t max = ((uint64_t)1 << 27) + 16 * len;

	return max < (uint64_t)1 << 30 ? max : (uint64_t)1 << 30;
}

/* Small signed numbers to small unsigned ones: 0, -1, 1, -2, 2, ... */
static inline uint64_t prep_zigzag(int64_t v)
{
	return (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0);
}

static inline int64_t prep_unzigzag(uint64_t v)
{
	return (int64_t)(v >> 1 ^ -(v & 1));
}

#endif
