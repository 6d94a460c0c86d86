/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Codecs: bytes packed and unpacked, whole pieces in memory.
 */
#ifndef PREP_CKM_CODEC_H
#define PREP_CKM_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libprep/base/err.h"
#include "libprep/ckm/index.h"

/* "store", "deflate", "xz", "zstd": static; NULL for what is none. */
const char *prep_codec_name(enum prep_codec codec);

/* The codec of a name, or -1. */
int prep_codec_by_name(const char *name);

struct prep_codec_how {
	enum prep_codec codec;
	unsigned level;  /* 0 to 9 */
	enum prep_content content; /* what the bytes are: xz puts its x86 filter before code, and minds their alignment */
};

/*
 * Pack len bytes (1 to PREP_CKM_INDEX_MAX) to out, which has room for len. Returns the codec
 * that was used: what does not get smaller is stored. *stored bytes are
 * written. Deterministic. -1: no memory.
 */
int prep_codec_pack(const struct prep_codec_how *how, const uint8_t *in, size_t len, uint8_t *out,
		    size_t *stored, struct prep_err *err);

/*
 * Unpack exactly `size` bytes to out from exactly `stored` bytes. Memory beyond
 * the buffers is bounded. PREP_EDAMAGED, `what` naming the piece, when they do not agree.
 */
int prep_codec_unpack(enum prep_codec codec, const uint8_t *in, size_t stored, uint8_t *out,
		      size_t size, const char *what, struct prep_err *err);

#endif
