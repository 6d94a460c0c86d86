/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/hash.h"

int prep_hash_open(struct prep_hash *h, struct prep_err *err)
{
	h->md = EVP_MD_fetch(NULL, "SHA256", NULL);
	h->ctx = EVP_MD_CTX_new();
	if (h->md != NULL && h->ctx != NULL)
		return 0;
	prep_hash_close(h);
	return prep_fail(err, PREP_EFAIL, "cannot set up SHA-256");
}

void prep_hash_close(struct prep_hash *h)
{
	EVP_MD_CTX_free(h->ctx);
	EVP_MD_free(h->md);
	*h = (struct prep_hash){ NULL, NULL };
}

int prep_hash_of(struct prep_hash *h, const void *p, size_t len, uint8_t *ret, struct prep_err *err)
{
	if (EVP_DigestInit_ex2(h->ctx, h->md, NULL) != 1 || EVP_DigestUpdate(h->ctx, p, len) != 1 ||
	    EVP_DigestFinal_ex(h->ctx, ret, NULL) != 1)
		return prep_fail(err, PREP_EFAIL, "cannot compute SHA-256");
	return 0;
}

int prep_hash_once(const void *p, size_t len, uint8_t *ret, struct prep_err *err)
{
	struct prep_hash h;
	int r;

	if (prep_hash_open(&h, err) < 0)
		return -1;
	r = prep_hash_of(&h, p, len, ret, err);
	prep_hash_close(&h);
	return r;
}
