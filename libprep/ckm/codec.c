/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/codec.h"

#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "libprep/base/bytes.h"

/* Of a decoder: its dictionary, at most a frame. */
#define XZ_DICT_MAX PREP_CKM_FRAME_MAX
#define XZ_MEMORY_MAX (96 * PREP_MIB)

/* Windows that zstd is made to look back over: a frame of any size. */
#define ZSTD_WINDOW_LOG_MIN 10
#define ZSTD_WINDOW_LOG_MAX 26

static const char *const names[PREP_CODECS] = {
	[PREP_CODEC_STORE] = "store",
	[PREP_CODEC_DEFLATE] = "deflate",
	[PREP_CODEC_XZ] = "xz",
	[PREP_CODEC_ZSTD] = "zstd",
};

const char *prep_codec_name(enum prep_codec codec)
{
	return (unsigned)codec < PREP_CODECS ? names[codec] : NULL;
}

int prep_codec_by_name(const char *name)
{
	for (int i = 0; i < PREP_CODECS; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	return -1;
}

/* The packers return 1 when the result is shorter than the input, 0 when not, -1 on failure. */

static int pack_deflate(const struct prep_codec_how *how, const uint8_t *in, size_t len, uint8_t *out,
			size_t *stored, struct prep_err *err)
{
	uLongf n = len;

	switch (compress2(out, &n, in, len, how->level == 0 ? 1 : (int)how->level)) {
	case Z_OK:
		*stored = n;
		return n < len;
	case Z_BUF_ERROR:
		return 0;
	default:
		return prep_fail_nomem(err);
	}
}

static int pack_zstd(const struct prep_codec_how *how, const uint8_t *in, size_t len, uint8_t *out,
		     size_t *stored, struct prep_err *err)
{
	/* The library's own levels, as far as they are worth their time here. */
	static const int level[10] = { 1, 2, 3, 6, 7, 8, 10, 13, 16, 19 };
	ZSTD_CCtx *c = ZSTD_createCCtx();
	int window = ZSTD_WINDOW_LOG_MIN;
	size_t n;

	if (c == NULL)
		return prep_fail_nomem(err);
	/*
	 * Files that are alike stand megabytes apart in a frame. The fast levels look
	 * back much less, unless they are told to, and then need larger tables, or long
	 * distance matching, to find what is there.
	 */
	while (window < ZSTD_WINDOW_LOG_MAX && (size_t)1 << window < len)
		window++;
	ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level[how->level]);
	ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, window);
	if (how->level < 2)
		ZSTD_CCtx_setParameter(c, ZSTD_c_hashLog, 17 + (int)how->level);
	else
		ZSTD_CCtx_setParameter(c, ZSTD_c_enableLongDistanceMatching, 1);
	n = ZSTD_compress2(c, out, len, in, len);
	ZSTD_freeCCtx(c);
	if (ZSTD_isError(n)) {
		if (ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation)
			return prep_fail_nomem(err);
		return 0;
	}
	*stored = n;
	return n < len;
}

/*
 * Whether zstd at its fastest gets less than 1/64 out of the bytes: then xz
 * would get little more, at its slowest.
 */
static bool looks_packed(const uint8_t *in, size_t len, uint8_t *out)
{
	const size_t n = ZSTD_compress(out, len, in, len, 1);

	return ZSTD_isError(n) ? ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall : n > len - len / 64;
}

/*
 * LZMA's literal context and alignment, as they measured best: tables of numbers
 * and records of a fixed size gain from knowing a byte's place in its word.
 */
static void tune_lzma(enum prep_content content, lzma_options_lzma *lzma)
{
	static const struct {
		uint8_t lc, lp, pb;
	} best[PREP_CONTENT_KINDS] = {
		[PREP_CONTENT_PE] = { 3, 0, 2 },       [PREP_CONTENT_DOTNET] = { 3, 0, 1 },
		[PREP_CONTENT_TEXT] = { 3, 0, 1 },     [PREP_CONTENT_HIVE] = { 0, 2, 2 },
		[PREP_CONTENT_PACKED] = { 3, 0, 2 },   [PREP_CONTENT_OTHER] = { 0, 2, 2 },
		[PREP_CONTENT_METADATA] = { 0, 3, 3 }, [PREP_CONTENT_OPAQUE] = { 3, 0, 2 },
		[PREP_CONTENT_FREE] = { 3, 0, 2 },
	};

	lzma->lc = best[content].lc;
	lzma->lp = best[content].lp;
	lzma->pb = best[content].pb;
}

static int pack_xz(const struct prep_codec_how *how, const uint8_t *in, size_t len, uint8_t *out,
		   size_t *stored, struct prep_err *err)
{
	lzma_options_lzma lzma;
	lzma_filter filter[3];
	unsigned n = 0;
	size_t at = 0;

	if (lzma_lzma_preset(&lzma, how->level | (how->level == 9 ? LZMA_PRESET_EXTREME : 0)))
		return prep_fail(err, PREP_EFAIL, "liblzma knows no preset %u", how->level);
	if (looks_packed(in, len, out))
		return 0;
	tune_lzma(how->content, &lzma);
	lzma.dict_size = (uint32_t)prep_min(XZ_DICT_MAX, prep_max(len, LZMA_DICT_SIZE_MIN));
	if (how->content == PREP_CONTENT_PE)
		filter[n++] = (lzma_filter){ LZMA_FILTER_X86, NULL };
	filter[n++] = (lzma_filter){ LZMA_FILTER_LZMA2, &lzma };
	filter[n] = (lzma_filter){ LZMA_VLI_UNKNOWN, NULL };
	/* The digests are check enough. */
	switch (lzma_stream_buffer_encode(filter, LZMA_CHECK_NONE, NULL, in, len, out, &at, len)) {
	case LZMA_OK:
		*stored = at;
		return at < len;
	case LZMA_BUF_ERROR:
		return 0;
	default:
		return prep_fail_nomem(err);
	}
}

int prep_codec_pack(const struct prep_codec_how *how, const uint8_t *in, size_t len, uint8_t *out,
		    size_t *stored, struct prep_err *err)
{
	int r = 0;

	switch (how->codec) {
	case PREP_CODEC_DEFLATE:
		r = pack_deflate(how, in, len, out, stored, err);
		break;
	case PREP_CODEC_XZ:
		r = pack_xz(how, in, len, out, stored, err);
		break;
	case PREP_CODEC_ZSTD:
		r = pack_zstd(how, in, len, out, stored, err);
		break;
	default:
		break;
	}
	if (r < 0)
		return -1;
	if (r > 0)
		return (int)how->codec;
	memcpy(out, in, len);
	*stored = len;
	return PREP_CODEC_STORE;
}

/* The unpackers return true when exactly all of `in` gave exactly all of `out`. */

static bool unpack_deflate(const uint8_t *in, size_t stored, uint8_t *out, size_t size)
{
	uLongf n = size;
	uLong used = stored;

	return uncompress2(out, &n, in, &used) == Z_OK && n == size && used == stored;
}

static bool unpack_xz(const uint8_t *in, size_t stored, uint8_t *out, size_t size)
{
	uint64_t memory = XZ_MEMORY_MAX;
	size_t at = 0, to = 0;

	return lzma_stream_buffer_decode(&memory, 0, NULL, in, &at, stored, out, &to, size) == LZMA_OK &&
	       at == stored && to == size;
}

/* One frame that says its own size, and nothing after it. */
static bool unpack_zstd(const uint8_t *in, size_t stored, uint8_t *out, size_t size)
{
	const size_t frame = ZSTD_findFrameCompressedSize(in, stored);

	return !ZSTD_isError(frame) && frame == stored && ZSTD_decompress(out, size, in, stored) == size;
}

int prep_codec_unpack(enum prep_codec codec, const uint8_t *in, size_t stored, uint8_t *out,
		      size_t size, const char *what, struct prep_err *err)
{
	bool ok = false;

	switch (codec) {
	case PREP_CODEC_STORE:
		ok = stored == size;
		if (ok)
			memcpy(out, in, size);
		break;
	case PREP_CODEC_DEFLATE:
		ok = unpack_deflate(in, stored, out, size);
		break;
	case PREP_CODEC_XZ:
		ok = unpack_xz(in, stored, out, size);
		break;
	case PREP_CODEC_ZSTD:
		ok = unpack_zstd(in, stored, out, size);
		break;
	default:
		break;
	}
	return ok ? 0 : prep_fail(err, PREP_EDAMAGED, "%s: its %s data cannot be unpacked", what,
				  prep_codec_name(codec) != NULL ? prep_codec_name(codec) : "unknown");
}
