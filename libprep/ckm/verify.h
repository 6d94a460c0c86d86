/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Verify: every frame of a package read, unsealed, unpacked, and every chunk
 * hashed; nothing written.
 */
#ifndef PREP_CKM_VERIFY_H
#define PREP_CKM_VERIFY_H

#include "libprep/base/pool.h"
#include "libprep/ckm/package.h"

struct prep_verify_damage {
	uint32_t frame;
	char *what; /* "FILE: frame 7 is damaged: ..." */
};

struct prep_verify_report {
	uint32_t frames;   /* checked */
	uint32_t absent;   /* of a difference package */
	uint32_t patches;  /* those of the checked ones that are patches; */
	uint32_t unapplied; /* and of these: only digest and seal were checked, for lack of what they refer to */
	uint64_t stored, bytes; /* of the checked ones, as stored and unpacked */
	struct prep_verify_damage *damage; /* by frame */
	size_t damaged, room;
	bool *hit;         /* of each stream of the index: whether a damaged frame has bytes of it; NULL if none is damaged */
};

/* Where the reference data of patch frames comes from. */
struct prep_verify_references {
	/* That of frame i to buf, verified: 1; 0 where it is not to be had; -1. Several threads call it. */
	int (*read)(void *arg, uint32_t i, uint8_t *buf, struct prep_err *err);
	void *arg;
};

/*
 * Check all frames of p, an opened .ckm, with the pool's threads. Damage is
 * reported, not a failure; so is a frame that cannot be read. references: NULL
 * for none. Release with prep_verify_clear.
 */
int prep_verify(struct prep_ckm *p, const struct prep_verify_references *references, struct prep_pool *pool,
		struct prep_verify_report *ret, const struct prep_progress *progress, struct prep_err *err);
void prep_verify_clear(struct prep_verify_report *r);

#endif
