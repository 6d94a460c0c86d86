/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pack: the second pass, from a plan to a package. Frames are read, packed and
 * sealed by the pool's threads, and written in order; memory is bounded by the
 * number of threads.
 */
#ifndef PREP_CKM_PACK_H
#define PREP_CKM_PACK_H

#include <openssl/evp.h>

#include "libprep/base/output.h"
#include "libprep/ckm/codec.h"
#include "libprep/ckm/plan.h"
#include "libprep/ckm/seal.h"

struct prep_pack_how {
	enum prep_codec codec;
	unsigned level;               /* 0 to 9 */
	const struct prep_seal *seal; /* NULL: not sealed */
	const uint8_t *slots;         /* key slots of a sealed package */
	unsigned n_slots;
	EVP_PKEY *sign;               /* Ed25519, or NULL */
};

struct prep_pack_report {
	uint8_t id[16];
	uint64_t package_size, index_size; /* bytes of the .ckm and of its index section */
	uint64_t stored[PREP_CONTENT_KINDS]; /* bytes of frames */
	uint64_t new_off, new_len;         /* where the frames stand that a base does not hold; not the patches */
	uint64_t patches_len;              /* bytes of patch frames */
};

/* The frame size that suits a codec and level. */
uint32_t prep_pack_frame_size(enum prep_codec codec, unsigned level);

/*
 * Write the package to `out`, which must be seekable, and its index section to
 * out_index too, unless NULL. Image fields of plan->index have been filled in; the rest
 * of the index is completed. Bytes that have changed since the survey are a failure. Commits neither.
 */
int prep_pack(const struct prep_survey *survey, struct prep_plan *plan, const struct prep_pack_how *how,
	      struct prep_pool *pool, struct prep_output *out, struct prep_output *out_index,
	      struct prep_pack_report *report, const struct prep_progress *progress,
	      struct prep_err *err);

#endif
