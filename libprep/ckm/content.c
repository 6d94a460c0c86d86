/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/content.h"

#include <string.h>

#include "libprep/base/bytes.h"

#define LOOK 4096 /* bytes that are looked at */

/* Samples of a chunk, and what the squares of 1024 noisy bytes stay below: what is expected, and four deviations. */
#define DENSE_SAMPLES 8u
#define DENSE_SAMPLE 128u
#define DENSE_SQUARES (1024u * 1024 / 256 + 1024 + 384)

/* PE: "Microsoft Portable Executable and Common Object File Format Specification" */
#define MZ_PE_OFFSET 0x3C
#define PE_MACHINE 4
#define PE_OPTIONAL 24            /* from "PE\0\0" */
#define PE_MACHINE_I386 0x014C
#define PE_MACHINE_AMD64 0x8664
#define PE32_DIRECTORIES 96       /* in the optional header: the data directories */
#define PE32PLUS_DIRECTORIES 112
#define PE32PLUS_MAGIC 0x020B
#define DIRECTORY_CLR 14

static enum prep_content pe_kind(const uint8_t *p, size_t len)
{
	uint32_t pe, clr;
	uint16_t machine;

	if (len < MZ_PE_OFFSET + 4)
		return PREP_CONTENT_OTHER;
	pe = get_le32(p + MZ_PE_OFFSET);
	if (pe > len || len - pe < PE_OPTIONAL + 2 || memcmp(p + pe, "PE\0", 4) != 0)
		return PREP_CONTENT_OTHER;
	machine = get_le16(p + pe + PE_MACHINE);
	if (machine != PE_MACHINE_I386 && machine != PE_MACHINE_AMD64)
		return PREP_CONTENT_OTHER;
	clr = pe + PE_OPTIONAL + 8 * DIRECTORY_CLR +
	      (get_le16(p + pe + PE_OPTIONAL) == PE32PLUS_MAGIC ? PE32PLUS_DIRECTORIES : PE32_DIRECTORIES);
	return clr + 8 <= len && get_le32(p + clr) != 0 ? PREP_CONTENT_DOTNET : PREP_CONTENT_PE;
}

static bool packed(const uint8_t *p, size_t len)
{
	static const struct {
		uint8_t at, len;
		char magic[9];
	} known[] = {
		{ 0, 4, "PK\3\4" }, { 0, 4, "MSCF" }, { 0, 8, "\x89PNG\r\n\x1A\n" }, { 0, 3, "\xFF\xD8\xFF" },
		{ 0, 3, "\x1F\x8B\x08" }, { 0, 6, "7z\xBC\xAF\x27\x1C" }, { 0, 6, "\xFD" "7zXZ\0" },
		{ 0, 6, "Rar!\x1A\7" }, { 0, 3, "BZh" }, { 0, 4, "\x28\xB5\x2F\xFD" }, { 0, 4, "GIF8" },
		{ 0, 3, "ID3" }, { 0, 4, "OggS" }, { 4, 4, "ftyp" }, { 0, 4, "wOFF" }, { 0, 4, "wOF2" },
		{ 0, 5, "MSWIM" }, { 0, 4, "SZDD" }, { 8, 4, "WEBP" }, { 0, 8, "\x30\x26\xB2\x75\x8E\x66\xCF\x11" },
	};

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		if (len >= (size_t)known[i].at + known[i].len &&
		    memcmp(p + known[i].at, known[i].magic, known[i].len) == 0)
			return true;
	return false;
}

/* No zero byte, and hardly a control character; or UTF-16 with its mark. */
static bool text(const uint8_t *p, size_t len)
{
	size_t odd = 0;

	if (len >= 4 && p[0] == 0xFF && p[1] == 0xFE && (p[2] != 0 || p[3] != 0))
		return true;
	for (size_t i = 0; i < len; i++) {
		if (p[i] == 0)
			return false;
		odd += p[i] == 0x7F || (p[i] < ' ' && (p[i] < '\t' || p[i] > '\r'));
	}
	return odd <= len / 64;
}

enum prep_content prep_content_of(const uint8_t *p, size_t len)
{
	if (len > LOOK)
		len = LOOK;
	if (len >= 2 && memcmp(p, "MZ", 2) == 0)
		return pe_kind(p, len);
	if (len >= 4 && memcmp(p, "regf", 4) == 0)
		return PREP_CONTENT_HIVE;
	if (packed(p, len))
		return PREP_CONTENT_PACKED;
	return text(p, len) ? PREP_CONTENT_TEXT : PREP_CONTENT_OTHER;
}

/*
 * How evenly the byte values are spread, by the sum of the squares of their
 * counts: n * n / 256 + n is what to expect of n bytes of noise. Code has five times that.
 */
bool prep_content_dense(const uint8_t *p, size_t len)
{
	uint16_t count[256] = { 0 };
	uint32_t squares = 0;

	if (len < 2 * DENSE_SAMPLES * DENSE_SAMPLE)
		return false;
	for (size_t i = 0; i < DENSE_SAMPLES; i++)
		for (size_t k = 0; k < DENSE_SAMPLE; k++)
			count[p[i * (len / DENSE_SAMPLES) + k]]++;
	for (unsigned i = 0; i < 256; i++)
		squares += (uint32_t)count[i] * count[i];
	return squares < DENSE_SQUARES;
}
