/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/section.h"

#include <string.h>
#include <zlib.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/codec.h"
#include "libprep/ckm/hash.h"
#include "libprep/ckm/index.h"
#include "libprep/ckm/seal.h"

/* As in PNG: a byte beyond ASCII, a name, and what text conversions would change. */
static const uint8_t lead_magic[8] = { 0x89, 'P', 'C', 'K', 'M', '\r', '\n', 0x1A };
static const uint8_t header_magic[8] = { 0x89, 'P', 'C', 'K', 'I', '\r', '\n', 0x1A };
static const uint8_t trailer_magic[8] = { 0x89, 'P', 'C', 'K', 'T', '\r', '\n', 0x1A };

/* Lead */
#define LEAD_VERSION 8
#define LEAD_ID 16
#define LEAD_PACKAGE_SIZE 32
#define LEAD_SECTION_OFF 40
#define LEAD_SECTION_LEN 48
#define LEAD_CRC 60

/* Trailer */
#define TRAILER_SECTION_OFF 0
#define TRAILER_SECTION_LEN 8
#define TRAILER_ID 16
#define TRAILER_VERSION 32
#define TRAILER_CRC 36
#define TRAILER_MAGIC 40

/* Header */
#define HEADER_VERSION 8
#define HEADER_COMPATIBLE 12
#define HEADER_REQUIRED 16
#define HEADER_SLOTS 20
#define HEADER_ID 24
#define HEADER_PACKAGE_SIZE 40
#define HEADER_SECTION_LEN 48
#define HEADER_BODY_LEN 56
#define HEADER_INDEX_LEN 64
#define HEADER_BODY_CODEC 72
#define HEADER_SIGNATURE_LEN 76
#define HEADER_RESERVED 80 /* 12 bytes, zero */
#define HEADER_CRC 92

static uint32_t crc_of(const uint8_t *p, unsigned len)
{
	return (uint32_t)crc32(0, p, len);
}

uint64_t prep_ckm_body_at(const struct prep_ckm_header *h)
{
	return PREP_CKM_HEADER_SIZE + (uint64_t)h->slots * PREP_CKM_SLOT_SIZE;
}

uint64_t prep_ckm_digest_at(const struct prep_ckm_header *h)
{
	return prep_ckm_body_at(h) + h->body_len;
}

uint64_t prep_ckm_signature_at(const struct prep_ckm_header *h)
{
	return prep_ckm_digest_at(h) + PREP_DIGEST_SIZE;
}

void prep_ckm_lead_encode(const struct prep_ckm_place *in, uint8_t p[PREP_CKM_LEAD_SIZE])
{
	memset(p, 0, PREP_CKM_LEAD_SIZE);
	memcpy(p, lead_magic, sizeof lead_magic);
	put_le32(p + LEAD_VERSION, PREP_CKM_VERSION);
	memcpy(p + LEAD_ID, in->id, sizeof in->id);
	put_le64(p + LEAD_PACKAGE_SIZE, in->package_size);
	put_le64(p + LEAD_SECTION_OFF, in->section_off);
	put_le64(p + LEAD_SECTION_LEN, in->section_len);
	put_le32(p + LEAD_CRC, crc_of(p, LEAD_CRC));
}

void prep_ckm_trailer_encode(const struct prep_ckm_place *in, uint8_t p[PREP_CKM_TRAILER_SIZE])
{
	put_le64(p + TRAILER_SECTION_OFF, in->section_off);
	put_le64(p + TRAILER_SECTION_LEN, in->section_len);
	memcpy(p + TRAILER_ID, in->id, sizeof in->id);
	put_le32(p + TRAILER_VERSION, PREP_CKM_VERSION);
	put_le32(p + TRAILER_CRC, crc_of(p, TRAILER_CRC));
	memcpy(p + TRAILER_MAGIC, trailer_magic, sizeof trailer_magic);
}

void prep_ckm_header_encode(const struct prep_ckm_header *in, uint8_t p[PREP_CKM_HEADER_SIZE])
{
	memset(p, 0, PREP_CKM_HEADER_SIZE);
	memcpy(p, header_magic, sizeof header_magic);
	put_le32(p + HEADER_VERSION, PREP_CKM_VERSION);
	put_le32(p + HEADER_COMPATIBLE, in->compatible);
	put_le32(p + HEADER_REQUIRED, in->required);
	put_le32(p + HEADER_SLOTS, in->slots);
	memcpy(p + HEADER_ID, in->id, sizeof in->id);
	put_le64(p + HEADER_PACKAGE_SIZE, in->package_size);
	put_le64(p + HEADER_SECTION_LEN, in->section_len);
	put_le64(p + HEADER_BODY_LEN, in->body_len);
	put_le64(p + HEADER_INDEX_LEN, in->index_len);
	put_le32(p + HEADER_BODY_CODEC, in->body_codec);
	put_le32(p + HEADER_SIGNATURE_LEN, in->signature_len);
	put_le32(p + HEADER_CRC, crc_of(p, HEADER_CRC));
}

bool prep_ckm_is_package(const uint8_t *p)
{
	return memcmp(p, lead_magic, sizeof lead_magic) == 0;
}

bool prep_ckm_is_section(const uint8_t *p)
{
	return memcmp(p, header_magic, sizeof header_magic) == 0;
}

static int check_version(uint32_t version, const char *name, struct prep_err *err)
{
	if (version == PREP_CKM_VERSION)
		return 0;
	return prep_fail(err, PREP_EREFUSED, "%s: version %u of the format; this program reads version %u", name,
			 version, PREP_CKM_VERSION);
}

/* Bounds that make every sum of the three safe. */
static bool place_ok(const struct prep_ckm_place *p)
{
	return p->package_size <= PREP_CKM_PACKAGE_MAX && p->section_len <= PREP_CKM_PACKAGE_MAX &&
	       p->section_off >= PREP_CKM_LEAD_SIZE && p->section_off <= PREP_CKM_PACKAGE_MAX &&
	       p->section_off + p->section_len + PREP_CKM_TRAILER_SIZE == p->package_size;
}

int prep_ckm_lead_decode(const uint8_t *p, const char *name, struct prep_ckm_place *ret,
			 struct prep_err *err)
{
	static const uint8_t zeros[4];

	if (!prep_ckm_is_package(p))
		return prep_fail(err, PREP_EREFUSED, "%s: not a CKM package", name);
	if (crc_of(p, LEAD_CRC) != get_le32(p + LEAD_CRC))
		return prep_fail(err, PREP_EDAMAGED, "%s: the lead (the first %u bytes) is damaged", name,
				 PREP_CKM_LEAD_SIZE);
	if (check_version(get_le32(p + LEAD_VERSION), name, err) < 0)
		return -1;
	*ret = (struct prep_ckm_place){
		.package_size = get_le64(p + LEAD_PACKAGE_SIZE),
		.section_off = get_le64(p + LEAD_SECTION_OFF),
		.section_len = get_le64(p + LEAD_SECTION_LEN),
	};
	memcpy(ret->id, p + LEAD_ID, sizeof ret->id);
	if (!place_ok(ret) || memcmp(p + LEAD_VERSION + 4, zeros, 4) != 0 ||
	    memcmp(p + LEAD_CRC - 4, zeros, 4) != 0)
		return prep_fail(err, PREP_EDAMAGED, "%s: the lead contradicts itself", name);
	return 0;
}

int prep_ckm_trailer_decode(const uint8_t *p, const char *name, struct prep_ckm_place *ret,
			    struct prep_err *err)
{
	if (memcmp(p + TRAILER_MAGIC, trailer_magic, sizeof trailer_magic) != 0 ||
	    crc_of(p, TRAILER_CRC) != get_le32(p + TRAILER_CRC))
		return prep_fail(err, PREP_EDAMAGED, "%s: the trailer (the last %u bytes) is damaged or missing", name,
				 PREP_CKM_TRAILER_SIZE);
	if (check_version(get_le32(p + TRAILER_VERSION), name, err) < 0)
		return -1;
	*ret = (struct prep_ckm_place){
		.section_off = get_le64(p + TRAILER_SECTION_OFF),
		.section_len = get_le64(p + TRAILER_SECTION_LEN),
	};
	memcpy(ret->id, p + TRAILER_ID, sizeof ret->id);
	if (ret->section_off <= PREP_CKM_PACKAGE_MAX && ret->section_len <= PREP_CKM_PACKAGE_MAX)
		ret->package_size = ret->section_off + ret->section_len + PREP_CKM_TRAILER_SIZE;
	if (!place_ok(ret))
		return prep_fail(err, PREP_EDAMAGED, "%s: the trailer contradicts itself", name);
	return 0;
}

static int header_damaged(const char *name, const char *what, struct prep_err *err)
{
	return prep_fail(err, PREP_EDAMAGED, "%s: the header of the index section is damaged: %s", name, what);
}

int prep_ckm_header_decode(const uint8_t *p, const char *name, struct prep_ckm_header *ret,
			   struct prep_err *err)
{
	uint32_t unknown;

	if (!prep_ckm_is_section(p))
		return prep_fail(err, PREP_EREFUSED, "%s: not a CKM index", name);
	if (crc_of(p, HEADER_CRC) != get_le32(p + HEADER_CRC))
		return header_damaged(name, "its checksum", err);
	if (check_version(get_le32(p + HEADER_VERSION), name, err) < 0)
		return -1;
	*ret = (struct prep_ckm_header){
		.compatible = get_le32(p + HEADER_COMPATIBLE),
		.required = get_le32(p + HEADER_REQUIRED),
		.slots = get_le32(p + HEADER_SLOTS),
		.package_size = get_le64(p + HEADER_PACKAGE_SIZE),
		.section_len = get_le64(p + HEADER_SECTION_LEN),
		.body_len = get_le64(p + HEADER_BODY_LEN),
		.index_len = get_le64(p + HEADER_INDEX_LEN),
		.body_codec = get_le32(p + HEADER_BODY_CODEC),
		.signature_len = get_le32(p + HEADER_SIGNATURE_LEN),
	};
	memcpy(ret->id, p + HEADER_ID, sizeof ret->id);
	unknown = ret->required & ~PREP_CKM_REQUIRED_KNOWN;
	if (unknown != 0)
		return prep_fail(err, PREP_EREFUSED, "%s: needs features that this version does not know (flags 0x%x)",
				 name, unknown);
	if (ret->slots > PREP_CKM_SLOTS_MAX || (ret->slots != 0) != ((ret->required & PREP_CKM_SEALED) != 0))
		return header_damaged(name, "the number of its key slots", err);
	if (ret->signature_len != 0 && ret->signature_len != PREP_CKM_SIGNATURE_SIZE)
		return header_damaged(name, "the length of the signature", err);
	if (ret->body_codec >= PREP_CODECS || !prep_is_zero(p + HEADER_RESERVED, HEADER_CRC - HEADER_RESERVED))
		return header_damaged(name, "a field that is not known", err);
	if (ret->index_len == 0 || ret->body_len == 0 || ret->body_len > PREP_CKM_INDEX_MAX + PREP_SEAL_TAG ||
	    ret->index_len > prep_ckm_index_max(ret->body_len) ||
	    ret->body_len > ret->index_len + (ret->slots != 0 ? PREP_SEAL_TAG : 0) || ret->package_size > PREP_CKM_PACKAGE_MAX ||
	    ret->section_len != prep_ckm_signature_at(ret) + ret->signature_len ||
	    ret->package_size < PREP_CKM_LEAD_SIZE + ret->section_len + PREP_CKM_TRAILER_SIZE)
		return header_damaged(name, "its lengths", err);
	return 0;
}
