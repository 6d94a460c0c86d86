/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reading packages: the .ckm and its .ckm.index.
 *
 *   .ckm        lead | frames | index section | trailer
 *   .ckm.index  index section
 *
 * The index section carries header, key slots, the index (compressed, sealed
 * where the package is) and the signature. ckm(5) specifies the bytes.
 */
#ifndef PREP_CKM_PACKAGE_H
#define PREP_CKM_PACKAGE_H

#include "libprep/base/progress.h"
#include "libprep/ckm/index.h"
#include "libprep/ckm/keys.h"

/* How a sealed or signed package is opened. All may be NULL. */
struct prep_ckm_access {
	const char *key_file;        /* X25519 private key, PEM */
	const char *passphrase_file; /* its first line; "-": asked for on the terminal, without echo */
	const char *verify_with;     /* Ed25519 public key, PEM: no or another signature is PREP_EREFUSED */
	bool outer_only;             /* do not unseal: of a sealed package prep_ckm_index is NULL then */
	struct prep_key_ring *ring;  /* keeps what is read of these files for the next package; NULL: each reads them */
};

struct prep_ckm; /* an opened package or index */

struct prep_ckm_info {
	uint8_t id[16];
	bool sealed, difference, patches;
	bool is_signed;         /* a signature is there */
	bool verified;          /* and was checked with access->verify_with */
	unsigned slots;         /* key slots */
	uint64_t section_off, section_len; /* of the index section in the .ckm; off 0 for a lone .index */
	uint64_t package_size;  /* bytes of the whole .ckm, as the index has it */
};

/*
 * Open a .ckm, or a .ckm.index alone (then frames cannot be read). Checks the
 * structure, the signature where asked, unseals and decodes the index.
 * PREP_EREFUSED: not a package, a version or feature that is not known, a wrong
 * or missing key (which is named), a signature that is missing or not of that
 * key; PREP_EDAMAGED: all else, naming the section.
 */
int prep_ckm_open(const char *path, const struct prep_ckm_access *access, struct prep_ckm **ret,
		  struct prep_err *err);
/* The same for an index section in memory (as fetched), which is copied; NULL when len is 0. */
int prep_ckm_open_index(const uint8_t *section, size_t len, const char *name,
			const struct prep_ckm_access *access, struct prep_ckm **ret,
			struct prep_err *err);
void prep_ckm_close(struct prep_ckm *p); /* wipes the key; NULL is allowed */

const struct prep_ckm_index *prep_ckm_index(const struct prep_ckm *p);
const struct prep_ckm_info *prep_ckm_info(const struct prep_ckm *p);

/* The index section's bytes, section_len of them. */
const uint8_t *prep_ckm_section(const struct prep_ckm *p);

/*
 * Read frame i's stored bytes from the .ckm into buf (frame.stored bytes).
 * Several threads may read and decode at once.
 */
int prep_ckm_read_frame(struct prep_ckm *p, uint32_t i, uint8_t *buf, struct prep_err *err);

/*
 * Unpack frame i from its stored bytes, from wherever they came: checks the
 * digest of the stored bytes, unseals, decompresses to buf (frame.size bytes) and checks every
 * chunk's digest. reference: of a patch frame, its references one after the other
 * (prep_patch.size bytes), each verified; else it is not looked at. PREP_EDAMAGED names the frame.
 */
int prep_ckm_decode_frame(struct prep_ckm *p, uint32_t i, const uint8_t *stored, const uint8_t *reference,
			  uint8_t *buf, struct prep_err *err);

/* As much of that as can be done without the references: digest and seal. */
int prep_ckm_check_frame(struct prep_ckm *p, uint32_t i, const uint8_t *stored, struct prep_err *err);

#endif
