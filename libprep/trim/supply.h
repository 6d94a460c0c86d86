/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Supply: for each chunk of a wanted disk, where it comes from; and what is
 * left to be taken from its package, in which ranges.
 *
 * A patch frame can be used when the origins have every chunk that it refers
 * to. It is, when that costs fewer bytes than the plain frame of the same chunks.
 */
#ifndef PREP_TRIM_SUPPLY_H
#define PREP_TRIM_SUPPLY_H

#include "libprep/trim/catalog.h"

/* One folder, image or other package, and what it gives. */
struct prep_supply_origin {
	struct prep_catalog *catalog;
	uint32_t origin;        /* number there */
	uint64_t chunks, bytes;             /* that the catalog has */
	uint64_t found_chunks, found_bytes; /* of the wanted disk: those it has */
	uint64_t used_chunks, used_bytes;   /* of those: to be taken from here */
	uint64_t got_chunks, got_bytes;     /* were taken from here */
	uint64_t bad_chunks, bad_bytes;     /* were read from here, and were something else */
};

/* Where a chunk comes from. */
struct prep_supply_from {
	uint32_t origin;        /* number in supply->origin, or one of these: */
#define PREP_FROM_FRAME UINT32_MAX       /* its frame */
#define PREP_FROM_HERE (UINT32_MAX - 1)  /* it is on the disk that is being made */
#define PREP_FROM_NOWHERE (UINT32_MAX - 2) /* a difference package, and no origin has it */
	uint32_t chunk;         /* in the origin's catalog; of PREP_FROM_FRAME: the frame */
};

/* A chunk that patches refer to: in which origin it is. */
struct prep_supply_reference {
	struct prep_supply_from from; /* an origin's, or PREP_FROM_NOWHERE */
	bool good;              /* it has been read, and is what it should be */
	bool used;              /* by a patch frame among the needed ones */
};

/* Frames that stand together in the package, or nearly so. */
struct prep_supply_range {
	uint64_t off, len;      /* bytes of the package */
	uint32_t first, frames; /* in supply->frame */
};

struct prep_supply {
	const struct prep_ckm_index *index;
	struct prep_chunk_table *table;
	struct prep_supply_from *from;    /* of each chunk */
	struct prep_supply_origin *origin;
	uint32_t origins, origins_room;

	/* Where the package has patches. */
	struct prep_ckm_index references; /* its references as chunks, for the table; owns nothing */
	struct prep_chunk_table *reference_table;
	struct prep_supply_reference *reference; /* of each of them */
	uint32_t *patch_of;               /* of each chunk: the patch frame that it is best taken from, or UINT32_MAX */

	/* Made by prep_supply_make. */
	uint32_t *frame;                /* needed ones, ascending by their offset */
	uint32_t frames;
	uint64_t frame_bytes;           /* stored bytes of those */
	uint32_t patches;               /* those of them that are patches, */
	uint64_t patch_bytes, patched_bytes; /* their stored bytes, and of chunks that come from them */
	uint32_t useless;               /* patch frames that lack references */
	uint32_t unchecked;             /* used references that are not known to be good, */
	uint64_t unchecked_bytes;       /* and their bytes */
	uint64_t wanted_bytes;          /* of all chunks */
	uint64_t here_chunks, here_bytes;
	uint64_t local_chunks, local_bytes;     /* to be taken from origins */
	uint64_t found_chunks, found_bytes;     /* that any origin has, or are here */
	uint64_t nowhere_chunks, nowhere_bytes;
};

/* The index must outlive it. Clear with prep_supply_clear. */
int prep_supply_new(const struct prep_ckm_index *index, struct prep_supply *ret, struct prep_err *err);
void prep_supply_clear(struct prep_supply *p);

/* Add the origins of a catalog, which must outlive it; earlier ones are preferred. */
int prep_supply_add(struct prep_supply *p, struct prep_catalog *c, struct prep_err *err);

/* A chunk is on the disk that is being made: it was, or is now, taken from where `from` says. */
void prep_supply_here(struct prep_supply *p, uint32_t chunk);

/* What `from` promised was something else: it is not believed again. */
void prep_supply_bad(struct prep_supply *p, uint32_t chunk);

/* Reference number i was read from where it is said to be, and is that; or is something else. */
void prep_supply_reference_good(struct prep_supply *p, uint32_t i);
void prep_supply_reference_bad(struct prep_supply *p, uint32_t i);

/*
 * Decide for every chunk. A frame is needed when no origin has one of its
 * chunks; then either all its chunks come from it, being verified as it is unpacked,
 * or those that are needed come from patch frames. May be called again after chunks have got here or proved bad.
 */
int prep_supply_make(struct prep_supply *p, struct prep_err *err);

/*
 * PREP_EREFUSED when chunks come from nowhere: how many, and the first files
 * that need them. `name` is the package's.
 */
int prep_supply_check(const struct prep_supply *p, const char *name, struct prep_err *err);

/* A gap of this many bytes costs less than one more request. */
#define PREP_RANGE_GAP (64u << 10)

/*
 * What is missing of the needed frames, as ranges of the package: frames with
 * at most `gap` bytes between them are joined, as long as the range has at
 * most `most` bytes (but for a single frame that has more). have: for each of
 * supply->frame[], how many of its first bytes are there already, which are
 * never in a range; NULL: none. The caller frees *ret.
 */
int prep_supply_ranges(const struct prep_supply *p, const uint32_t *have, uint64_t gap, uint64_t most,
		       struct prep_supply_range **ret, uint32_t *n, struct prep_err *err);

#endif
