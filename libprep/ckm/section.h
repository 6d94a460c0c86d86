/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The fixed structures of a package between bytes and fields: lead, trailer,
 * and the header of the index section. ckm(5) specifies them; all integers are
 * little-endian.
 */
#ifndef PREP_CKM_SECTION_H
#define PREP_CKM_SECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "libprep/base/err.h"

#define PREP_CKM_VERSION 1u
#define PREP_CKM_LEAD_SIZE 64u
#define PREP_CKM_TRAILER_SIZE 48u
#define PREP_CKM_HEADER_SIZE 96u
#define PREP_CKM_SLOT_SIZE 88u
#define PREP_CKM_SLOTS_MAX 64u

/* The signature block: the kind, four zero bytes, the public key, the signature of all before it. */
#define PREP_CKM_SIGNATURE_SIZE 104u
#define PREP_CKM_SIGNATURE_KIND 0
#define PREP_CKM_SIGNATURE_PUBLIC 8
#define PREP_CKM_SIGNATURE_VALUE 40
#define PREP_CKM_SIGNATURE_ED25519 1u

#define PREP_CKM_PACKAGE_MAX ((uint64_t)1 << 60) /* bytes of a .ckm */

/* Required flags: a reader that does not know one refuses the package. */
#define PREP_CKM_SEALED (1u << 0)
#define PREP_CKM_DIFFERENCE (1u << 1) /* some frames are absent */
#define PREP_CKM_PATCHES (1u << 2)    /* some frames need reference chunks */
#define PREP_CKM_REQUIRED_KNOWN (PREP_CKM_SEALED | PREP_CKM_DIFFERENCE | PREP_CKM_PATCHES)

/* Where the lead and the trailer say the index section is. */
struct prep_ckm_place {
	uint8_t id[16];
	uint64_t section_off, section_len, package_size;
};

struct prep_ckm_header {
	uint32_t compatible, required; /* flags */
	uint8_t id[16];
	uint64_t package_size;  /* of the .ckm */
	uint64_t section_len;   /* of the index section, this header included */
	uint64_t body_len;      /* of the index as it stands there */
	uint64_t index_len;     /* of the encoded index */
	uint32_t slots;
	uint32_t body_codec;    /* enum prep_codec */
	uint32_t signature_len; /* 0 or PREP_CKM_SIGNATURE_SIZE */
};

/* Where the parts of a section begin, from a header that has been checked. */
uint64_t prep_ckm_body_at(const struct prep_ckm_header *h);
uint64_t prep_ckm_digest_at(const struct prep_ckm_header *h);
uint64_t prep_ckm_signature_at(const struct prep_ckm_header *h);

void prep_ckm_lead_encode(const struct prep_ckm_place *in, uint8_t p[PREP_CKM_LEAD_SIZE]);
void prep_ckm_trailer_encode(const struct prep_ckm_place *in, uint8_t p[PREP_CKM_TRAILER_SIZE]);
void prep_ckm_header_encode(const struct prep_ckm_header *in, uint8_t p[PREP_CKM_HEADER_SIZE]);

/* What a file is by its first 8 bytes. */
bool prep_ckm_is_package(const uint8_t *p);
bool prep_ckm_is_section(const uint8_t *p);

/* PREP_EDAMAGED naming lead or trailer; PREP_EREFUSED for a version that is not known. */
int prep_ckm_lead_decode(const uint8_t *p, const char *name, struct prep_ckm_place *ret,
			 struct prep_err *err);
int prep_ckm_trailer_decode(const uint8_t *p, const char *name, struct prep_ckm_place *ret,
			    struct prep_err *err);

/*
 * PREP_EREFUSED: not an index section, a version or a required flag that is not
 * known; PREP_EDAMAGED: lengths that do not add up or are out of bounds.
 */
int prep_ckm_header_decode(const uint8_t *p, const char *name, struct prep_ckm_header *ret,
			   struct prep_err *err);

#endif
