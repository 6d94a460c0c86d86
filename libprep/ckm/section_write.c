/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/section_write.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/hash.h"
#include "libprep/ckm/keys.h"

/* Digests, which do not shrink, are most of an index: zstd gets what can be had, and unpacks at once. */
#define INDEX_LEVEL 6

/* The body: the encoded index, packed. *ret has room for a tag. Sets codec and lengths of h. */
static int make_body(const uint8_t *encoded, size_t len, struct prep_ckm_header *h, uint8_t **ret,
		     struct prep_err *err)
{
	struct prep_codec_how how = { PREP_CODEC_ZSTD, INDEX_LEVEL, PREP_CONTENT_OTHER };
	size_t stored = 0;
	int codec;

	*ret = malloc(len + PREP_SEAL_TAG);
	if (*ret == NULL)
		return prep_fail_nomem(err);
	codec = prep_codec_pack(&how, encoded, len, *ret, &stored, err);
	if (codec >= 0 && len > prep_ckm_index_max(stored)) {
		how.codec = PREP_CODEC_STORE;
		codec = prep_codec_pack(&how, encoded, len, *ret, &stored, err);
	}
	if (codec < 0)
		return -1;
	h->body_codec = (uint32_t)codec;
	h->index_len = len;
	h->body_len = stored;
	return 0;
}

static bool has_absent(const struct prep_ckm_index *in)
{
	for (uint32_t i = 0; i < in->frames; i++)
		if (in->frame[i].kind == PREP_FRAME_ABSENT)
			return true;
	return false;
}

/* Put the parts of the section together in p, which has room for them. */
static int fill_section(const struct prep_ckm_header *h, const struct prep_pack_how *how,
			const uint8_t *body, size_t body_len, uint8_t *p, struct prep_err *err)
{
	const uint64_t at = prep_ckm_body_at(h), digest = prep_ckm_digest_at(h);
	uint8_t *signature = p + prep_ckm_signature_at(h);
	size_t len = 32;

	prep_ckm_header_encode(h, p);
	if (how->n_slots > 0)
		memcpy(p + PREP_CKM_HEADER_SIZE, how->slots, (size_t)how->n_slots * PREP_CKM_SLOT_SIZE);
	if (how->seal == NULL)
		memcpy(p + at, body, body_len);
	else if (prep_seal_seal(how->seal, PREP_SEAL_INDEX, 0, p, at, body, body_len, p + at, err) < 0)
		return -1;
	if (prep_hash_once(p, digest, p + digest, err) < 0)
		return -1;
	if (how->sign == NULL)
		return 0;
	put_le32(signature + PREP_CKM_SIGNATURE_KIND, PREP_CKM_SIGNATURE_ED25519);
	put_le32(signature + PREP_CKM_SIGNATURE_KIND + 4, 0);
	if (EVP_PKEY_get_raw_public_key(how->sign, signature + PREP_CKM_SIGNATURE_PUBLIC, &len) != 1)
		return prep_fail(err, PREP_EFAIL, "the cryptographic library failed");
	return prep_key_sign(how->sign, p, (size_t)(signature - p) + PREP_CKM_SIGNATURE_VALUE,
			     signature + PREP_CKM_SIGNATURE_VALUE, err);
}

static int write_all(const struct prep_ckm_header *h, const uint8_t *section, struct prep_output *out,
		     struct prep_output *out_index, struct prep_err *err)
{
	struct prep_ckm_place place = {
		.section_off = prep_output_size(out), .section_len = h->section_len, .package_size = h->package_size,
	};
	uint8_t lead[PREP_CKM_LEAD_SIZE], trailer[PREP_CKM_TRAILER_SIZE];

	memcpy(place.id, h->id, sizeof place.id);
	prep_ckm_lead_encode(&place, lead);
	prep_ckm_trailer_encode(&place, trailer);
	if (prep_output_write(out, section, h->section_len, err) < 0 ||
	    prep_output_write(out, trailer, sizeof trailer, err) < 0 ||
	    prep_output_pwrite(out, lead, sizeof lead, 0, err) < 0)
		return -1;
	return out_index == NULL ? 0 : prep_output_write(out_index, section, h->section_len, err);
}

int prep_section_write(const struct prep_plan *plan, const struct prep_pack_how *how,
		       struct prep_output *out, struct prep_output *out_index,
		       struct prep_pack_report *report, struct prep_err *err)
{
	struct prep_ckm_header h = { .slots = how->n_slots };
	uint8_t *encoded, *body = NULL, *section = NULL, digest[PREP_DIGEST_SIZE];
	size_t len, body_len;
	int r = -1;

	if (prep_ckm_index_encode(&plan->index, &encoded, &len, err) < 0)
		return -1;
	if (make_body(encoded, len, &h, &body, err) < 0 || prep_hash_once(encoded, len, digest, err) < 0)
		goto out;
	body_len = h.body_len;
	memcpy(h.id, how->seal != NULL ? how->seal->id : digest, sizeof h.id);
	h.required = (how->seal != NULL ? PREP_CKM_SEALED : 0) | (has_absent(&plan->index) ? PREP_CKM_DIFFERENCE : 0) |
		     (plan->index.patches > 0 ? PREP_CKM_PATCHES : 0);
	h.body_len += how->seal != NULL ? PREP_SEAL_TAG : 0;
	h.signature_len = how->sign != NULL ? PREP_CKM_SIGNATURE_SIZE : 0;
	h.section_len = prep_ckm_signature_at(&h) + h.signature_len;
	h.package_size = prep_output_size(out) + h.section_len + PREP_CKM_TRAILER_SIZE;
	section = malloc(h.section_len);
	if (section == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	if (fill_section(&h, how, body, body_len, section, err) < 0 ||
	    write_all(&h, section, out, out_index, err) < 0)
		goto out;
	memcpy(report->id, h.id, sizeof report->id);
	report->package_size = h.package_size;
	report->index_size = h.section_len;
	r = 0;
out:
	free(encoded);
	free(body);
	free(section);
	return r;
}
