/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Patches: bytes packed with others at hand that the reader has already, the
 * reference: what both have costs next to nothing.
 */
#ifndef PREP_CKM_PATCH_H
#define PREP_CKM_PATCH_H

#include "libprep/ckm/codec.h"

/*
 * Pack len bytes (1 to PREP_CKM_PATCH_MAX) to out, which has room for len, with ref_len
 * bytes of reference: by raw LZMA2 where how->codec is xz, else by zstd. Returns the codec that was
 * used: what does not get smaller is stored. Deterministic. -1: no memory.
 */
int prep_patch_pack(const struct prep_codec_how *how, const uint8_t *ref, size_t ref_len, const uint8_t *in,
		    size_t len, uint8_t *out, size_t *stored, struct prep_err *err);

/*
 * Whether a reference is worth its while: whether it saves a sixth of what zstd at
 * its fastest makes of the bytes alone. scratch: room for len bytes. -1: no memory.
 */
int prep_patch_worth(const uint8_t *ref, size_t ref_len, const uint8_t *in, size_t len, uint8_t *scratch,
		     struct prep_err *err);

/*
 * Unpack exactly `size` bytes to out from exactly `stored` bytes and the same
 * reference. Memory beyond the buffers: as many bytes as those two have. PREP_EDAMAGED as prep_codec_unpack.
 */
int prep_patch_unpack(unsigned codec, const uint8_t *ref, size_t ref_len, const uint8_t *in, size_t stored,
		      uint8_t *out, size_t size, const char *what, struct prep_err *err);

#endif
