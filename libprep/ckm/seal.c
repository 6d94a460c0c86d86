/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/seal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/keys.h"
#include "libprep/ckm/section.h"

/* EVP counts in int. */
#define STEP (1u << 30)

/* A slot: what it is for, then what opens it, then the content key, sealed. */
#define SLOT_KIND 0
#define SLOT_LOG_N 4        /* scrypt: N = 2^this */
#define SLOT_R 5
#define SLOT_P 6
#define SLOT_OPENER 8       /* X25519: the ephemeral public key; scrypt: the salt */
#define SLOT_KEY 40
#define SLOT_X25519 1u
#define SLOT_SCRYPT 2u

/* 128 MiB and about half a second on today's machines. */
#define LOG_N 17
#define R 8
#define P 1
#define SCRYPT_MEMORY_MAX (256 * PREP_MIB)
#define P_MAX 4

static const char x25519_info[] = "ckm 1 x25519 slot";

static int failed(struct prep_err *err)
{
	return prep_fail(err, PREP_EFAIL, "the cryptographic library failed");
}

static struct prep_seal *seal_alloc(void)
{
	struct prep_seal *s = calloc(1, sizeof *s);

	prep_key_guard();
	/* Where the limit on locked memory is used up the key may be swapped: no reason to stop. */
	if (s != NULL)
		(void)!mlock(s, sizeof *s);
	return s;
}

int prep_seal_new(struct prep_seal **ret, struct prep_err *err)
{
	struct prep_seal *s = seal_alloc();

	*ret = NULL;
	if (s == NULL)
		return prep_fail_nomem(err);
	if (RAND_priv_bytes(s->key, sizeof s->key) != 1 || RAND_bytes(s->id, sizeof s->id) != 1) {
		prep_seal_free(s);
		return failed(err);
	}
	*ret = s;
	return 0;
}

void prep_seal_free(struct prep_seal *s)
{
	if (s == NULL)
		return;
	OPENSSL_cleanse(s, sizeof *s);
	munlock(s, sizeof *s);
	free(s);
}

/*
 * One pass of AES-256-GCM. The tag stands behind the sealed bytes. Returns 1, 0
 * when the tag is wrong, -1 on failure.
 */
static int gcm(bool seal, const uint8_t *key, const uint8_t nonce[12], const uint8_t *const aad[2],
	       const size_t aad_len[2], const uint8_t *in, size_t len, uint8_t *out)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	uint8_t tag[PREP_SEAL_TAG];
	int n, r = -1;

	if (c == NULL || EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce, seal) != 1)
		goto out;
	for (unsigned i = 0; i < 2; i++)
		if (aad_len[i] > 0 && EVP_CipherUpdate(c, NULL, &n, aad[i], (int)aad_len[i]) != 1)
			goto out;
	if (!seal) {
		memcpy(tag, in + len, sizeof tag);
		if (EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) != 1)
			goto out;
	}
	for (size_t at = 0; at < len; at += (size_t)n) {
		const size_t step = len - at < STEP ? len - at : STEP;

		if (EVP_CipherUpdate(c, out + at, &n, in + at, (int)step) != 1 || n != (int)step)
			goto out;
	}
	if (EVP_CipherFinal_ex(c, out + len, &n) != 1) {
		r = seal ? -1 : 0;
		goto out;
	}
	if (seal && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, PREP_SEAL_TAG, out + len) != 1)
		goto out;
	r = 1;
out:
	EVP_CIPHER_CTX_free(c);
	return r;
}

/* A piece of the package: kind and number make the nonce, and are bound with the package's id. */
static int gcm_piece(bool seal, const struct prep_seal *s, enum prep_seal_kind kind, uint64_t number,
		     const uint8_t *aad, size_t aad_len, const uint8_t *in, size_t len, uint8_t *out)
{
	uint8_t bound[28];
	const uint8_t *const parts[2] = { bound, aad };
	const size_t lens[2] = { sizeof bound, aad_len };

	memcpy(bound, s->id, 16);
	put_le32(bound + 16, kind);
	put_le64(bound + 20, number);
	return gcm(seal, s->key, bound + 16, parts, lens, in, len, out);
}

int prep_seal_seal(const struct prep_seal *s, enum prep_seal_kind kind, uint64_t number,
		   const uint8_t *aad, size_t aad_len, const uint8_t *in, size_t len, uint8_t *out,
		   struct prep_err *err)
{
	return gcm_piece(true, s, kind, number, aad, aad_len, in, len, out) == 1 ? 0 : failed(err);
}

int prep_seal_unseal(const struct prep_seal *s, enum prep_seal_kind kind, uint64_t number,
		     const uint8_t *aad, size_t aad_len, const uint8_t *in, size_t len, uint8_t *out,
		     const char *what, struct prep_err *err)
{
	int r = 0;

	if (len >= PREP_SEAL_TAG)
		r = gcm_piece(false, s, kind, number, aad, aad_len, in, len - PREP_SEAL_TAG, out);
	if (r < 0)
		return failed(err);
	return r == 1 ? 0 : prep_fail(err, PREP_EDAMAGED, "%s: its seal is broken", what);
}

/* ---- Slots ---- */

/* The content key in a slot, sealed under a key that is used for nothing else: the nonce may be zero. */
static int slot_key(bool seal, const uint8_t *wrap, const uint8_t id[16], const uint8_t *slot,
		    const uint8_t *in, uint8_t *out)
{
	static const uint8_t nonce[12];
	const uint8_t *const parts[2] = { id, slot };
	const size_t lens[2] = { 16, SLOT_KEY };

	return gcm(seal, wrap, nonce, parts, lens, in, PREP_SEAL_KEY, out);
}

static EVP_PKEY *ephemeral_key(void)
{
	return EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
}

static bool raw_public(EVP_PKEY *key, uint8_t ret[32])
{
	size_t len = 32;

	return EVP_PKEY_get_raw_public_key(key, ret, &len) == 1 && len == 32;
}

/* The key that wraps, from one side's private key and the other's public one. */
static bool agree(EVP_PKEY *own, EVP_PKEY *peer, const uint8_t ephemeral[32], const uint8_t recipient[32],
		  const uint8_t id[16], uint8_t wrap[32])
{
	uint8_t shared[32], salt[64], info[sizeof x25519_info - 1 + 16];
	EVP_PKEY_CTX *derive = EVP_PKEY_CTX_new(own, NULL);
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *c = EVP_KDF_CTX_new(kdf);
	size_t len = sizeof shared;
	bool ok;

	memcpy(salt, ephemeral, 32);
	memcpy(salt + 32, recipient, 32);
	memcpy(info, x25519_info, sizeof x25519_info - 1);
	memcpy(info + sizeof x25519_info - 1, id, 16);
	/* A peer's key of small order makes the derivation fail: no shared secret of zeros. */
	ok = derive != NULL && c != NULL && EVP_PKEY_derive_init(derive) == 1 &&
	     EVP_PKEY_derive_set_peer(derive, peer) == 1 && EVP_PKEY_derive(derive, shared, &len) == 1 &&
	     len == sizeof shared;
	if (ok) {
		OSSL_PARAM params[] = {
			OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){ "SHA256" }, 0),
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, shared, sizeof shared),
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt, sizeof salt),
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof info),
			OSSL_PARAM_construct_end(),
		};

		ok = EVP_KDF_derive(c, wrap, 32, params) == 1;
	}
	OPENSSL_cleanse(shared, sizeof shared);
	EVP_KDF_CTX_free(c);
	EVP_KDF_free(kdf);
	EVP_PKEY_CTX_free(derive);
	return ok;
}

int prep_seal_slot_recipient(const struct prep_seal *s, EVP_PKEY *recipient, uint8_t *slot,
			     struct prep_err *err)
{
	EVP_PKEY *ephemeral = ephemeral_key();
	uint8_t to[32], wrap[32];
	bool ok;

	memset(slot, 0, PREP_CKM_SLOT_SIZE);
	put_le32(slot + SLOT_KIND, SLOT_X25519);
	ok = ephemeral != NULL && raw_public(ephemeral, slot + SLOT_OPENER) && raw_public(recipient, to) &&
	     agree(ephemeral, recipient, slot + SLOT_OPENER, to, s->id, wrap) &&
	     slot_key(true, wrap, s->id, slot, s->key, slot + SLOT_KEY) == 1;
	OPENSSL_cleanse(wrap, sizeof wrap);
	EVP_PKEY_free(ephemeral);
	return ok ? 0 : failed(err);
}

static bool stretch(const void *passphrase, size_t len, const uint8_t *slot, uint8_t wrap[32])
{
	return EVP_PBE_scrypt(passphrase, len, slot + SLOT_OPENER, 32, (uint64_t)1 << slot[SLOT_LOG_N],
			      slot[SLOT_R], slot[SLOT_P], SCRYPT_MEMORY_MAX + 4 * PREP_MIB, wrap, 32) == 1;
}

int prep_seal_slot_passphrase(const struct prep_seal *s, const void *passphrase, size_t len,
			      uint8_t *slot, struct prep_err *err)
{
	uint8_t wrap[32];
	bool ok;

	memset(slot, 0, PREP_CKM_SLOT_SIZE);
	put_le32(slot + SLOT_KIND, SLOT_SCRYPT);
	slot[SLOT_LOG_N] = LOG_N;
	slot[SLOT_R] = R;
	slot[SLOT_P] = P;
	ok = RAND_bytes(slot + SLOT_OPENER, 32) == 1 && stretch(passphrase, len, slot, wrap) &&
	     slot_key(true, wrap, s->id, slot, s->key, slot + SLOT_KEY) == 1;
	OPENSSL_cleanse(wrap, sizeof wrap);
	return ok ? 0 : failed(err);
}

static int slot_for_recipient(const struct prep_seal *s, const char *path, uint8_t *slot, struct prep_err *err)
{
	EVP_PKEY *key;
	int r;

	if (prep_key_public(path, PREP_KEY_X25519, &key, err) < 0)
		return -1;
	r = prep_seal_slot_recipient(s, key, slot, err);
	EVP_PKEY_free(key);
	return r;
}

static int slot_for_passphrase(const struct prep_seal *s, const char *path, uint8_t *slot, struct prep_err *err)
{
	struct prep_passphrase *p;
	int r;

	if (prep_passphrase_read(path, PREP_PASSPHRASE_SEALS, &p, err) < 0)
		return -1;
	r = prep_seal_slot_passphrase(s, p->text, p->len, slot, err);
	prep_passphrase_free(p);
	return r;
}

int prep_seal_new_for(const char *const *recipient, unsigned n, const char *passphrase_file, uint8_t *slots,
		      struct prep_seal **ret, struct prep_err *err)
{
	int r = prep_seal_new(ret, err);

	for (unsigned i = 0; r == 0 && i < n; i++)
		r = slot_for_recipient(*ret, recipient[i], slots + i * PREP_CKM_SLOT_SIZE, err);
	if (r == 0 && passphrase_file != NULL)
		r = slot_for_passphrase(*ret, passphrase_file, slots + n * PREP_CKM_SLOT_SIZE, err);
	if (r < 0) {
		prep_seal_free(*ret);
		*ret = NULL;
	}
	return r;
}

int prep_seal_slots_check(const uint8_t *slots, unsigned n, const char *name, struct prep_err *err)
{
	unsigned passphrases = 0;

	for (unsigned i = 0; i < n; i++) {
		const uint8_t *s = slots + i * PREP_CKM_SLOT_SIZE;
		const uint32_t kind = get_le32(s + SLOT_KIND);
		bool ok;

		if (kind != SLOT_X25519 && kind != SLOT_SCRYPT)
			return prep_fail(err, PREP_EREFUSED, "%s: key slot %u is of a kind that is not known (%u)",
					 name, i, kind);
		if (kind == SLOT_X25519) {
			ok = get_le32(s + SLOT_LOG_N) == 0;
		} else {
			ok = s[SLOT_LOG_N] >= 10 && s[SLOT_LOG_N] <= 21 && s[SLOT_R] >= 1 && s[SLOT_R] <= 32 &&
			     s[SLOT_P] >= 1 && s[SLOT_P] <= P_MAX && s[SLOT_P + 1] == 0 &&
			     /* RFC 7914, 2: N is less than 2^(128 * r / 8) */
			     s[SLOT_LOG_N] < 16 * s[SLOT_R] &&
			     ((uint64_t)128 * s[SLOT_R]) << s[SLOT_LOG_N] <= SCRYPT_MEMORY_MAX;
			passphrases++;
		}
		if (!ok || passphrases > 1)
			return prep_fail(err, PREP_EDAMAGED, "%s: key slot %u is damaged", name, i);
	}
	return 0;
}

static int open_slot(const uint8_t *slot, const uint8_t *wrap, const uint8_t id[16],
		     struct prep_seal **ret, struct prep_err *err)
{
	struct prep_seal *s = seal_alloc();
	int r;

	if (s == NULL)
		return prep_fail_nomem(err);
	memcpy(s->id, id, sizeof s->id);
	r = slot_key(false, wrap, id, slot, slot + SLOT_KEY, s->key);
	if (r == 1)
		*ret = s;
	else
		prep_seal_free(s);
	return r < 0 ? failed(err) : r;
}

int prep_seal_open_key(const uint8_t *slots, unsigned n, const uint8_t id[16], EVP_PKEY *key,
		       struct prep_seal **ret, struct prep_err *err)
{
	uint8_t own[32], wrap[32];
	int r = 0;

	*ret = NULL;
	if (!raw_public(key, own))
		return failed(err);
	for (unsigned i = 0; i < n && r == 0; i++) {
		const uint8_t *slot = slots + i * PREP_CKM_SLOT_SIZE;
		EVP_PKEY *peer;

		if (get_le32(slot + SLOT_KIND) != SLOT_X25519)
			continue;
		peer = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, slot + SLOT_OPENER, 32);
		if (peer != NULL && agree(key, peer, slot + SLOT_OPENER, own, id, wrap))
			r = open_slot(slot, wrap, id, ret, err);
		EVP_PKEY_free(peer);
	}
	OPENSSL_cleanse(wrap, sizeof wrap);
	return r;
}

int prep_seal_open_passphrase(const uint8_t *slots, unsigned n, const uint8_t id[16],
			      const void *passphrase, size_t len, struct prep_seal **ret,
			      struct prep_err *err)
{
	uint8_t wrap[32];
	int r = 0;

	*ret = NULL;
	for (unsigned i = 0; i < n && r == 0; i++) {
		const uint8_t *slot = slots + i * PREP_CKM_SLOT_SIZE;

		if (get_le32(slot + SLOT_KIND) != SLOT_SCRYPT)
			continue;
		if (!stretch(passphrase, len, slot, wrap))
			r = failed(err);
		else
			r = open_slot(slot, wrap, id, ret, err);
	}
	OPENSSL_cleanse(wrap, sizeof wrap);
	return r;
}
