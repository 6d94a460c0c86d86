/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * SHA-256 of many small pieces: the algorithm is looked up once, not for each.
 */
#ifndef PREP_CKM_HASH_H
#define PREP_CKM_HASH_H

#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>

#include "libprep/base/err.h"

/* For one thread at a time. */
struct prep_hash {
	EVP_MD *md;
	EVP_MD_CTX *ctx;
};

int prep_hash_open(struct prep_hash *h, struct prep_err *err);
void prep_hash_close(struct prep_hash *h); /* an all-zero struct is allowed */

/* SHA-256 of len bytes at p: 32 bytes to ret. */
int prep_hash_of(struct prep_hash *h, const void *p, size_t len, uint8_t *ret, struct prep_err *err);

/* The same for a single piece. */
int prep_hash_once(const void *p, size_t len, uint8_t *ret, struct prep_err *err);

#endif
