/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/patch.h"

#include <lzma.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "libprep/base/bytes.h"

/* Levels up to this one have tables for less than a reference, which would push itself out of them. */
#define ZSTD_SMALL_TABLES 12

/* A reference and the bytes together lie in the window: the far end is as good as the near one. */
static int window_log(size_t len)
{
	int log = 10;

	while ((size_t)1 << log < len)
		log++;
	return log;
}

/* zstd's result: its size; 0 when it is not below `room`; -1. */
static int64_t by_zstd(int level, const uint8_t *ref, size_t ref_len, const uint8_t *in, size_t len, uint8_t *out,
		       size_t room, struct prep_err *err)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();
	size_t n;

	if (c == NULL)
		return prep_fail_nomem(err);
	ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
	ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, window_log(ref_len + len));
	if (level <= ZSTD_SMALL_TABLES)
		ZSTD_CCtx_setParameter(c, ZSTD_c_hashLog, window_log(ref_len + len) - 1);
	ZSTD_CCtx_refPrefix(c, ref, ref_len);
	n = ZSTD_compress2(c, out, room, in, len);
	ZSTD_freeCCtx(c);
	if (!ZSTD_isError(n))
		return n < room ? (int64_t)n : 0;
	return ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation ? prep_fail_nomem(err) : 0;
}

/*
 * The x86 filter is not for patches: it turns the same call at another place into
 * other bytes, and what has moved no longer matches (measured: 12 % more).
 */
static void lzma2_filters(lzma_options_lzma *lzma, const uint8_t *ref, size_t ref_len, size_t len, lzma_filter *ret)
{
	lzma->dict_size = (uint32_t)prep_max(ref_len + len, LZMA_DICT_SIZE_MIN);
	lzma->preset_dict = ref;
	lzma->preset_dict_size = (uint32_t)ref_len;
	ret[0] = (lzma_filter){ LZMA_FILTER_LZMA2, lzma };
	ret[1] = (lzma_filter){ LZMA_VLI_UNKNOWN, NULL };
}

static int64_t by_lzma2(unsigned level, const uint8_t *ref, size_t ref_len, const uint8_t *in, size_t len,
			uint8_t *out, struct prep_err *err)
{
	lzma_options_lzma lzma;
	lzma_filter filter[2];
	size_t at = 0;

	if (lzma_lzma_preset(&lzma, level | (level == 9 ? LZMA_PRESET_EXTREME : 0)))
		return prep_fail(err, PREP_EFAIL, "liblzma knows no preset %u", level);
	lzma2_filters(&lzma, ref, ref_len, len, filter);
	switch (lzma_raw_buffer_encode(filter, NULL, in, len, out, &at, len)) {
	case LZMA_OK:
		return at < len ? (int64_t)at : 0;
	case LZMA_BUF_ERROR:
		return 0;
	default:
		return prep_fail_nomem(err);
	}
}

int prep_patch_pack(const struct prep_codec_how *how, const uint8_t *ref, size_t ref_len, const uint8_t *in,
		    size_t len, uint8_t *out, size_t *stored, struct prep_err *err)
{
	/* The library's own levels. */
	static const int level[10] = { 3, 3, 5, 6, 7, 9, 12, 15, 17, 19 };
	const bool xz = how->codec == PREP_CODEC_XZ;
	const int64_t n = xz ? by_lzma2(how->level, ref, ref_len, in, len, out, err)
			     : by_zstd(level[how->level], ref, ref_len, in, len, out, len, err);

	if (n < 0)
		return -1;
	if (n > 0) {
		*stored = (size_t)n;
		return xz ? PREP_CODEC_LZMA2 : PREP_CODEC_ZSTD;
	}
	memcpy(out, in, len);
	*stored = len;
	return PREP_CODEC_STORE;
}

int prep_patch_worth(const uint8_t *ref, size_t ref_len, const uint8_t *in, size_t len, uint8_t *scratch,
		     struct prep_err *err)
{
	int64_t alone = by_zstd(1, NULL, 0, in, len, scratch, len, err), with;

	if (alone < 0)
		return -1;
	if (alone == 0)
		alone = (int64_t)len;
	with = by_zstd(1, ref, ref_len, in, len, scratch, len, err);
	return with < 0 ? -1 : with > 0 && with < alone - alone / 6;
}

/* One frame, and nothing after it. */
static bool unpack_zstd(const uint8_t *ref, size_t ref_len, const uint8_t *in, size_t stored, uint8_t *out, size_t size)
{
	const size_t frame = ZSTD_findFrameCompressedSize(in, stored);
	ZSTD_DCtx *d;
	bool ok;

	if (ZSTD_isError(frame) || frame != stored)
		return false;
	d = ZSTD_createDCtx();
	if (d == NULL)
		return false;
	ok = !ZSTD_isError(ZSTD_DCtx_refPrefix(d, ref, ref_len)) &&
	     ZSTD_decompressDCtx(d, out, size, in, stored) == size;
	ZSTD_freeDCtx(d);
	return ok;
}

static bool unpack_lzma2(const uint8_t *ref, size_t ref_len, const uint8_t *in, size_t stored, uint8_t *out,
			 size_t size)
{
	lzma_options_lzma lzma = { .preset_dict = NULL };
	lzma_filter filter[2];
	size_t at = 0, to = 0;

	lzma2_filters(&lzma, ref, ref_len, size, filter);
	return lzma_raw_buffer_decode(filter, NULL, in, &at, stored, out, &to, size) == LZMA_OK && at == stored &&
	       to == size;
}

int prep_patch_unpack(unsigned codec, const uint8_t *ref, size_t ref_len, const uint8_t *in, size_t stored,
		      uint8_t *out, size_t size, const char *what, struct prep_err *err)
{
	bool ok = false;

	switch (codec) {
	case PREP_CODEC_STORE:
		ok = stored == size;
		if (ok)
			memcpy(out, in, size);
		break;
	case PREP_CODEC_ZSTD:
		ok = unpack_zstd(ref, ref_len, in, stored, out, size);
		break;
	case PREP_CODEC_LZMA2:
		ok = unpack_lzma2(ref, ref_len, in, stored, out, size);
		break;
	default:
		break;
	}
	return ok ? 0 : prep_fail(err, PREP_EDAMAGED, "%s: its patch cannot be applied", what);
}
