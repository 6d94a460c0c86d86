/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Keys and passphrases: read from files or the terminal, signatures.
 *
 * Reading a secret begins with prep_key_guard.
 */
#ifndef PREP_CKM_KEYS_H
#define PREP_CKM_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>

#include "libprep/base/err.h"

/* From now on this process leaves no core dump, and others of the same user cannot trace it (prctl, setrlimit). */
void prep_key_guard(void);

enum prep_key_type { PREP_KEY_X25519, PREP_KEY_ED25519 };

/*
 * Read a PEM file as `openssl genpkey` and `openssl pkey -pubout` make them.
 * The passphrase of an encrypted one is asked for on the terminal, once.
 * PREP_EREFUSED: no such key in it, or one of another type. EVP_PKEY_free
 * releases and wipes.
 */
int prep_key_private(const char *path, enum prep_key_type type, EVP_PKEY **ret, struct prep_err *err);
int prep_key_public(const char *path, enum prep_key_type type, EVP_PKEY **ret, struct prep_err *err);

/* A passphrase. Kept out of swap where the system allows it. */
struct prep_passphrase {
	char text[1024];
	size_t len;
};

/* What one is for: of a package that is sealed; for one that is to be, asked for twice; a password, for a server. */
enum prep_passphrase_use { PREP_PASSPHRASE_OPENS, PREP_PASSPHRASE_SEALS, PREP_PASSPHRASE_LOGS_IN };

/*
 * The first line of a file, without its end; "-": asked for on the terminal
 * without echo. PREP_EREFUSED when it is empty, too long, or the two that were asked for
 * differ. Free with prep_passphrase_free.
 */
int prep_passphrase_read(const char *path, enum prep_passphrase_use use, struct prep_passphrase **ret,
			 struct prep_err *err);
void prep_passphrase_free(struct prep_passphrase *p); /* wipes it; NULL is allowed */

/*
 * What was read is kept for all that it is to open: a pipe is read only once, and
 * nobody is asked for the same twice. NULL: not read yet.
 */
struct prep_key_ring {
	EVP_PKEY *key;    /* private */
	EVP_PKEY *signer; /* public */
	struct prep_passphrase *passphrase;
};

void prep_key_ring_clear(struct prep_key_ring *r); /* wipes them */

/* Ed25519 (RFC 8032, pure). */
int prep_key_sign(EVP_PKEY *key, const uint8_t *p, size_t len, uint8_t ret[64], struct prep_err *err);
bool prep_key_verify(EVP_PKEY *key, const uint8_t *p, size_t len, const uint8_t signature[64]);

#endif
