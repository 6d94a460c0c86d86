/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Sealing: a random content key, AES-256-GCM under it, and key slots that give
 * the key to those who may have it. ckm(5) specifies the bytes.
 */
#ifndef PREP_CKM_SEAL_H
#define PREP_CKM_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>

#include "libprep/base/err.h"

#define PREP_SEAL_KEY 32
#define PREP_SEAL_TAG 16 /* bytes that sealing adds */

enum prep_seal_kind { PREP_SEAL_FRAME = 1, PREP_SEAL_INDEX = 2 };

/* The content key of one package. Kept out of swap where the system allows it. */
struct prep_seal {
	uint8_t key[PREP_SEAL_KEY];
	uint8_t id[16]; /* the package's */
};

/* A new key for a new package; id is random too. Free with prep_seal_free. */
int prep_seal_new(struct prep_seal **ret, struct prep_err *err);
void prep_seal_free(struct prep_seal *s); /* wipes it; NULL is allowed */

/*
 * The same, with a key slot (PREP_CKM_SLOT_SIZE bytes of `slots` each) for each of n X25519 public keys (PEM
 * files) and, unless NULL, one for the passphrase in a file (prep_passphrase_read).
 */
int prep_seal_new_for(const char *const *recipient, unsigned n, const char *passphrase_file, uint8_t *slots,
		      struct prep_seal **ret, struct prep_err *err);

/*
 * Seal len bytes to out (len + PREP_SEAL_TAG). A key seals one piece of each
 * kind and number, never two. The package's id, kind and number, and
 * aad_len bytes at aad, are authenticated with it.
 */
int prep_seal_seal(const struct prep_seal *s, enum prep_seal_kind kind, uint64_t number,
		   const uint8_t *aad, size_t aad_len, const uint8_t *in, size_t len, uint8_t *out,
		   struct prep_err *err);

/* The reverse: len (>= PREP_SEAL_TAG) bytes to out (len - PREP_SEAL_TAG). PREP_EDAMAGED naming `what`. */
int prep_seal_unseal(const struct prep_seal *s, enum prep_seal_kind kind, uint64_t number,
		     const uint8_t *aad, size_t aad_len, const uint8_t *in, size_t len, uint8_t *out,
		     const char *what, struct prep_err *err);

/* Write a key slot (PREP_CKM_SLOT_SIZE bytes) for an X25519 public key or a passphrase. */
int prep_seal_slot_recipient(const struct prep_seal *s, EVP_PKEY *recipient, uint8_t *slot,
			     struct prep_err *err);
int prep_seal_slot_passphrase(const struct prep_seal *s, const void *passphrase, size_t len,
			      uint8_t *slot, struct prep_err *err);

/*
 * Check n slots, as read: PREP_EREFUSED for a kind that is not known, PREP_EDAMAGED for
 * fields out of bounds, more than one passphrase slot among them.
 */
int prep_seal_slots_check(const uint8_t *slots, unsigned n, const char *name, struct prep_err *err);

/*
 * Open the content key of the package `id` by one of n checked slots, with a private
 * X25519 key or a passphrase: 1 and *ret; 0 when none of the slots opens; -1 on a failure.
 */
int prep_seal_open_key(const uint8_t *slots, unsigned n, const uint8_t id[16], EVP_PKEY *key,
		       struct prep_seal **ret, struct prep_err *err);
int prep_seal_open_passphrase(const uint8_t *slots, unsigned n, const uint8_t id[16],
			      const void *passphrase, size_t len, struct prep_seal **ret,
			      struct prep_err *err);

#endif
