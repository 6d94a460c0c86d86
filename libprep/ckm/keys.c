/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <termios.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#define KEY_FILE_MAX 32768 /* bytes of a PEM file that are looked at */

void prep_key_guard(void)
{
	const struct rlimit none = { 0, 0 };

	/* Where the system denies it there is nothing better to do. */
	(void)!setrlimit(RLIMIT_CORE, &none);
	(void)!prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* ---- Passphrases ---- */

/* The first line of fd, at most room bytes of it: its length, or -1 with errno; E2BIG when it is longer. */
static ssize_t read_line(int fd, char *buf, size_t room)
{
	size_t n = 0;

	for (;;) {
		char c;
		const ssize_t r = read(fd, &c, 1);

		if (r < 0)
			return -1;
		if (r == 0 || c == '\n')
			break;
		if (n == room) {
			errno = E2BIG;
			return -1;
		}
		buf[n++] = c;
	}
	if (n > 0 && buf[n - 1] == '\r')
		n--;
	return (ssize_t)n;
}

static int take_line(int fd, const char *name, const char *what, struct prep_passphrase *p, struct prep_err *err)
{
	const ssize_t n = read_line(fd, p->text, sizeof p->text);

	if (n < 0 && errno == E2BIG)
		return prep_fail(err, PREP_EREFUSED, "%s: a %s of more than %zu bytes", name, what, sizeof p->text);
	if (n < 0 && errno == EINTR)
		return prep_fail(err, PREP_EFAIL, "interrupted");
	if (n < 0)
		return prep_fail_errno(err, "%s: cannot read the %s", name, what);
	if (n == 0)
		return prep_fail(err, PREP_EREFUSED, "%s: the %s is empty", name, what);
	p->len = (size_t)n;
	return 0;
}

static int ask(int tty, const char *what, const char *prompt, struct prep_passphrase *p, struct prep_err *err)
{
	struct termios normal, silent;
	int r;

	if (tcgetattr(tty, &normal) != 0)
		return prep_fail_errno(err, "terminal: cannot turn off its echo");
	silent = normal;
	silent.c_lflag &= ~(tcflag_t)ECHO;
	if (tcsetattr(tty, TCSAFLUSH, &silent) != 0)
		return prep_fail_errno(err, "terminal: cannot turn off its echo");
	dprintf(tty, "%s: ", prompt);
	r = take_line(tty, "terminal", what, p, err);
	dprintf(tty, "\n");
	tcsetattr(tty, TCSAFLUSH, &normal);
	return r;
}

static struct prep_passphrase *passphrase_alloc(void)
{
	struct prep_passphrase *p = calloc(1, sizeof *p);

	if (p != NULL)
		(void)!mlock(p, sizeof *p);
	return p;
}

static int ask_again(int tty, const char *what, struct prep_passphrase *p, struct prep_err *err)
{
	struct prep_passphrase *again = passphrase_alloc();
	int r;

	if (again == NULL)
		return prep_fail_nomem(err);
	r = ask(tty, what, "The same again", again, err);
	if (r == 0 && (again->len != p->len || CRYPTO_memcmp(again->text, p->text, p->len) != 0))
		r = prep_fail(err, PREP_EREFUSED, "the two %ss differ", what);
	prep_passphrase_free(again);
	return r;
}

static int from_terminal(const char *what, const char *prompt, bool twice, struct prep_passphrase *p, struct prep_err *err)
{
	const int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	int r;

	if (tty < 0)
		return prep_fail_errno(err, "no terminal to ask for the %s on", what);
	r = ask(tty, what, prompt, p, err);
	if (r == 0 && twice)
		r = ask_again(tty, what, p, err);
	close(tty);
	return r;
}

int prep_passphrase_read(const char *path, enum prep_passphrase_use use, struct prep_passphrase **ret,
			 struct prep_err *err)
{
	static const char *const prompts[] = { "Passphrase of the package", "Passphrase for the package", "Password" };
	const char *const what = use == PREP_PASSPHRASE_LOGS_IN ? "password" : "passphrase";
	int fd, r;

	prep_key_guard();
	*ret = passphrase_alloc();
	if (*ret == NULL)
		return prep_fail_nomem(err);
	if (strcmp(path, "-") == 0) {
		r = from_terminal(what, prompts[use], use == PREP_PASSPHRASE_SEALS, *ret, err);
	} else {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			r = prep_fail_errno(err, "%s: cannot open the %s", path, what);
		} else {
			r = take_line(fd, path, what, *ret, err);
			close(fd);
		}
	}
	if (r < 0) {
		prep_passphrase_free(*ret);
		*ret = NULL;
	}
	return r;
}

void prep_passphrase_free(struct prep_passphrase *p)
{
	if (p == NULL)
		return;
	OPENSSL_cleanse(p, sizeof *p);
	munlock(p, sizeof *p);
	free(p);
}

/* ---- Keys ---- */

/* What an encrypted key is opened by. */
struct key_lock {
	const char *path;
	struct prep_passphrase *passphrase; /* NULL until it was asked for */
	struct prep_err err;                /* it could not be had */
};

/*
 * OpenSSL calls it again where the first answer did not help: nobody is asked
 * twice, and an interruption is one. Left to itself it would ask again, and
 * without a terminal read standard input, which may be the image.
 */
static int unlock(char *buf, int room, int writing, void *arg)
{
	struct key_lock *lock = arg;
	char *prompt;

	(void)writing;
	if (lock->err.code != PREP_DONE)
		return -1;
	if (lock->passphrase == NULL) {
		lock->passphrase = passphrase_alloc();
		if (lock->passphrase == NULL || asprintf(&prompt, "Passphrase of the key %s", lock->path) < 0)
			return prep_fail_nomem(&lock->err);
		from_terminal("passphrase", prompt, false, lock->passphrase, &lock->err);
		free(prompt);
		if (lock->err.code != PREP_DONE)
			return -1;
	}
	if (room < 0 || lock->passphrase->len > (size_t)room)
		return -1;
	memcpy(buf, lock->passphrase->text, lock->passphrase->len);
	return (int)lock->passphrase->len;
}

/* A public key has none. */
static int no_passphrase(char *buf, int room, int writing, void *arg)
{
	(void)buf;
	(void)room;
	(void)writing;
	(void)arg;
	return -1;
}

/*
 * The key in the PEM that `openssl genpkey` writes, PKCS #8 without a passphrase
 * (RFC 8410, 7: a fixed head, then 32 bytes); NULL where it is anything else. OpenSSL's own decoders free
 * copies of the key without wiping them.
 */
static EVP_PKEY *decode_private(const char *text, enum prep_key_type type)
{
	static const char begin[] = "-----BEGIN PRIVATE KEY-----\n", end[] = "\n-----END PRIVATE KEY-----";
	uint8_t head[16] = { 0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0, 4, 0x22, 4, 0x20 }, der[48];
	const char *base64 = strstr(text, begin);
	EVP_PKEY *key = NULL;

	head[11] = type == PREP_KEY_X25519 ? 0x6e : 0x70;
	if (base64 == NULL || strlen(base64 += sizeof begin - 1) < 64 || strncmp(base64 + 64, end, sizeof end - 1) != 0)
		return NULL;
	if (EVP_DecodeBlock(der, (const uint8_t *)base64, 64) == 48 && memcmp(der, head, sizeof head) == 0)
		key = EVP_PKEY_new_raw_private_key(type == PREP_KEY_X25519 ? EVP_PKEY_X25519 : EVP_PKEY_ED25519, NULL,
						   der + sizeof head, 32);
	OPENSSL_cleanse(der, sizeof der);
	return key;
}

/* Why there is no key of that kind in text. */
static int fail_key(const char *path, const char *text, bool secret, const struct key_lock *lock, struct prep_err *err)
{
	if (lock->err.code != PREP_DONE)
		return prep_fail(err, lock->err.code, "%s: %s", path, lock->err.msg);
	if (lock->passphrase != NULL)
		return prep_fail(err, PREP_EREFUSED, "%s: the passphrase is wrong, or it is not a private key in PEM", path);
	if (secret)
		return prep_fail(err, PREP_EREFUSED, "%s: not a private key in PEM%s", path,
				 strstr(text, "-----BEGIN PUBLIC KEY-----") != NULL ? ", but a public one" : "");
	return prep_fail(err, PREP_EREFUSED, "%s: not a public key in PEM%s", path,
			 strstr(text, "PRIVATE KEY-----") != NULL
				 ? ", but a private one (openssl pkey -pubout makes the public one of it)" : "");
}

static int read_key(const char *path, bool secret, enum prep_key_type type, EVP_PKEY **ret,
		    struct prep_err *err)
{
	const char *const type_name = type == PREP_KEY_X25519 ? "X25519" : "ED25519";
	struct key_lock lock = { .path = path, .err = PREP_ERR_INIT };
	char buf[BUFSIZ], text[KEY_FILE_MAX];
	BIO *bio;
	size_t n;
	FILE *f;

	*ret = NULL;
	f = fopen(path, "re");
	if (f == NULL)
		return prep_fail_errno(err, "%s: cannot open the key", path);
	/* Its own buffer would be freed with the key in it. */
	setvbuf(f, buf, _IOFBF, sizeof buf);
	n = fread(text, 1, sizeof text - 1, f);
	text[n] = '\0';
	if (ferror(f))
		prep_fail_errno(err, "%s: cannot read the key", path);
	fclose(f);
	bio = BIO_new_mem_buf(text, (int)n);
	if (secret && err->code == PREP_DONE)
		*ret = decode_private(text, type);
	if (*ret == NULL && bio != NULL && err->code == PREP_DONE)
		*ret = secret ? PEM_read_bio_PrivateKey(bio, NULL, unlock, &lock)
			      : PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	/* What went wrong is in a queue of OpenSSL's that nobody else would empty. */
	ERR_clear_error();
	if (*ret == NULL && err->code == PREP_DONE)
		fail_key(path, text, secret, &lock, err);
	prep_passphrase_free(lock.passphrase);
	OPENSSL_cleanse(text, sizeof text);
	OPENSSL_cleanse(buf, sizeof buf);
	if (*ret == NULL)
		return -1;
	if (EVP_PKEY_is_a(*ret, type_name))
		return 0;
	prep_fail(err, PREP_EREFUSED, "%s: a key of type %s where %s is needed", path,
		  EVP_PKEY_get0_type_name(*ret) != NULL ? EVP_PKEY_get0_type_name(*ret) : "unknown", type_name);
	EVP_PKEY_free(*ret);
	*ret = NULL;
	return -1;
}

int prep_key_private(const char *path, enum prep_key_type type, EVP_PKEY **ret, struct prep_err *err)
{
	prep_key_guard();
	return read_key(path, true, type, ret, err);
}

int prep_key_public(const char *path, enum prep_key_type type, EVP_PKEY **ret, struct prep_err *err)
{
	return read_key(path, false, type, ret, err);
}

void prep_key_ring_clear(struct prep_key_ring *r)
{
	EVP_PKEY_free(r->key);
	EVP_PKEY_free(r->signer);
	prep_passphrase_free(r->passphrase);
	*r = (struct prep_key_ring){ .key = NULL };
}

/* ---- Signatures ---- */

int prep_key_sign(EVP_PKEY *key, const uint8_t *p, size_t len, uint8_t ret[64], struct prep_err *err)
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	size_t n = 64;
	const bool ok = c != NULL && EVP_DigestSignInit(c, NULL, NULL, NULL, key) == 1 &&
			EVP_DigestSign(c, ret, &n, p, len) == 1 && n == 64;

	EVP_MD_CTX_free(c);
	return ok ? 0 : prep_fail(err, PREP_EFAIL, "the cryptographic library failed");
}

bool prep_key_verify(EVP_PKEY *key, const uint8_t *p, size_t len, const uint8_t signature[64])
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	const bool ok = c != NULL && EVP_DigestVerifyInit(c, NULL, NULL, NULL, key) == 1 &&
			EVP_DigestVerify(c, signature, 64, p, len) == 1;

	EVP_MD_CTX_free(c);
	ERR_clear_error();
	return ok;
}
