/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Frame cache: unpacked frames of a package, for threads that read it here and
 * there. A frame is unpacked once as long as any of them holds it, and while it
 * is among those that were held last.
 */
#ifndef PREP_CKM_FRAME_CACHE_H
#define PREP_CKM_FRAME_CACHE_H

#include "libprep/ckm/package.h"

/* What to keep: the frames where a reader goes back and forth, at the sizes that ckm-pack makes. */
#define PREP_FRAME_CACHE_KEEP (64u << 20)

struct prep_frame_cache;

/* A frame that somebody holds. */
struct prep_cached_frame {
	struct prep_frame_cache *cache;
	uint32_t number;
	uint8_t *data;                  /* frame.size bytes */

	/* Private. */
	unsigned holders;
	struct prep_cached_frame *older, *newer; /* of those that nobody holds, by when they were put */
};

/* keep: bytes of frames that stay although nobody holds them. The package must outlive the cache. */
int prep_frame_cache_new(struct prep_ckm *package, uint64_t keep, struct prep_frame_cache **ret, struct prep_err *err);
void prep_frame_cache_free(struct prep_frame_cache *c); /* of which nothing is held; NULL is allowed */

/*
 * What gives the references of a patch frame: 1 and *ret, prep_patch.size bytes,
 * each verified, until it is called again; 0: they are not to be had; -1: failed.
 */
struct prep_frame_references {
	int (*get)(void *arg, uint32_t frame, const uint8_t **ret, struct prep_err *err);
	void *arg;
};

/*
 * Hold a frame until it is put: 1 and *ret; 0: a patch frame whose references
 * are not to be had; -1: as prep_ckm_read_frame and prep_ckm_decode_frame fail. While another thread unpacks the
 * frame, this one waits. references: NULL where no patch frames are asked for.
 */
int prep_frame_cache_get(struct prep_frame_cache *c, uint32_t number, const struct prep_frame_references *references,
			 struct prep_cached_frame **ret, struct prep_err *err);
void prep_frame_cache_put(struct prep_cached_frame *f); /* NULL is allowed */

#endif
