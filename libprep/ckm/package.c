/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/package.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/ckm/codec.h"
#include "libprep/ckm/hash.h"
#include "libprep/ckm/patch.h"
#include "libprep/ckm/seal.h"
#include "libprep/ckm/section.h"

struct prep_ckm {
	char *name;
	int fd;            /* of the .ckm; -1 for an index alone */
	uint8_t *section;
	struct prep_ckm_header header;
	struct prep_ckm_info info;
	struct prep_seal *seal;
	struct prep_ckm_index index;
	bool decoded;
};

/* ---- The section ---- */

static int check_digest(const struct prep_ckm *p, struct prep_err *err)
{
	const uint64_t at = prep_ckm_digest_at(&p->header);
	uint8_t digest[PREP_DIGEST_SIZE];

	if (prep_hash_once(p->section, at, digest, err) < 0)
		return -1;
	if (memcmp(digest, p->section + at, sizeof digest) != 0)
		return prep_fail(err, PREP_EDAMAGED, "%s: the index section is damaged: its digest differs", p->name);
	return 0;
}

static int check_trust(const struct prep_ckm *p, EVP_PKEY *signer, const struct prep_ckm_access *access,
		       struct prep_err *err)
{
	const char *path = access->verify_with;
	struct prep_key_ring own = { .key = NULL }, *ring = access->ring != NULL ? access->ring : &own;
	int r = 0;

	if (ring->signer == NULL && prep_key_public(path, PREP_KEY_ED25519, &ring->signer, err) < 0)
		return -1;
	if (!p->info.is_signed)
		r = prep_fail(err, PREP_EREFUSED, "%s: not signed; a signature by the key in %s is asked for", p->name,
			      path);
	else if (EVP_PKEY_eq(ring->signer, signer) != 1)
		r = prep_fail(err, PREP_EREFUSED, "%s: signed, but not by the key in %s", p->name, path);
	prep_key_ring_clear(&own);
	return r;
}

/* The signature must be good for the key that it names, trusted or not: so damage is always seen. */
static int check_signature(struct prep_ckm *p, const struct prep_ckm_access *access, struct prep_err *err)
{
	const uint64_t at = prep_ckm_signature_at(&p->header);
	const uint8_t *block = p->section + at;
	EVP_PKEY *signer = NULL;
	int r = 0;

	p->info.is_signed = p->header.signature_len != 0;
	if (p->info.is_signed) {
		if (get_le32(block + PREP_CKM_SIGNATURE_KIND) != PREP_CKM_SIGNATURE_ED25519 ||
		    get_le32(block + PREP_CKM_SIGNATURE_KIND + 4) != 0)
			return prep_fail(err, PREP_EREFUSED, "%s: a signature of a kind that is not known", p->name);
		signer = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, block + PREP_CKM_SIGNATURE_PUBLIC, 32);
		if (signer == NULL ||
		    !prep_key_verify(signer, p->section, at + PREP_CKM_SIGNATURE_VALUE, block + PREP_CKM_SIGNATURE_VALUE))
			r = prep_fail(err, PREP_EDAMAGED, "%s: the signature does not match the index section",
				      p->name);
	}
	if (r == 0 && access->verify_with != NULL) {
		r = check_trust(p, signer, access, err);
		p->info.verified = r == 0;
	}
	EVP_PKEY_free(signer);
	return r;
}

static int open_by_key(struct prep_ckm *p, const char *path, struct prep_key_ring *ring, struct prep_err *err)
{
	if (ring->key == NULL && prep_key_private(path, PREP_KEY_X25519, &ring->key, err) < 0)
		return -1;
	return prep_seal_open_key(p->section + PREP_CKM_HEADER_SIZE, p->header.slots, p->header.id, ring->key, &p->seal,
				  err);
}

static int open_by_passphrase(struct prep_ckm *p, const char *path, struct prep_key_ring *ring, struct prep_err *err)
{
	if (ring->passphrase == NULL && prep_passphrase_read(path, PREP_PASSPHRASE_OPENS, &ring->passphrase, err) < 0)
		return -1;
	return prep_seal_open_passphrase(p->section + PREP_CKM_HEADER_SIZE, p->header.slots, p->header.id,
					 ring->passphrase->text, ring->passphrase->len, &p->seal, err);
}

static int open_seal(struct prep_ckm *p, const struct prep_ckm_access *access, struct prep_err *err)
{
	struct prep_key_ring own = { .key = NULL }, *ring = access->ring != NULL ? access->ring : &own;
	int r = 0;

	if (access->key_file == NULL && access->passphrase_file == NULL)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: sealed: a private key (--key) or the passphrase (--passphrase-file) is needed",
				 p->name);
	if (access->key_file != NULL)
		r = open_by_key(p, access->key_file, ring, err);
	if (r == 0 && access->passphrase_file != NULL)
		r = open_by_passphrase(p, access->passphrase_file, ring, err);
	prep_key_ring_clear(&own);
	if (r != 0)
		return r < 0 ? -1 : 0;
	if (access->key_file == NULL)
		return prep_fail(err, PREP_EREFUSED, "%s: the passphrase from %s does not open it", p->name,
				 strcmp(access->passphrase_file, "-") == 0 ? "the terminal" : access->passphrase_file);
	return prep_fail(err, PREP_EREFUSED, "%s: the key in %s%s%s opens none of its %u key slots", p->name,
			 access->key_file, access->passphrase_file != NULL ? " or the passphrase from " : "",
			 access->passphrase_file != NULL ? access->passphrase_file : "", p->header.slots);
}

/* The body, unsealed, unpacked and decoded. */
static int decode_body(struct prep_ckm *p, struct prep_err *err)
{
	const uint64_t at = prep_ckm_body_at(&p->header);
	const uint8_t *body = p->section + at;
	uint8_t *plain = NULL, *encoded = NULL, digest[PREP_DIGEST_SIZE];
	size_t len = p->header.body_len;
	char what[600];
	int r = -1;

	snprintf(what, sizeof what, "%s: the index", p->name);
	if (p->seal != NULL) {
		plain = malloc(len);
		if (plain == NULL) {
			prep_fail_nomem(err);
			goto out;
		}
		if (prep_seal_unseal(p->seal, PREP_SEAL_INDEX, 0, p->section, at, body, len, plain, what, err) < 0)
			goto out;
		body = plain;
		len -= PREP_SEAL_TAG;
	}
	encoded = malloc(p->header.index_len);
	if (encoded == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	if (prep_codec_unpack(p->header.body_codec, body, len, encoded, p->header.index_len, what, err) < 0)
		goto out;
	if (p->seal == NULL) {
		if (prep_hash_once(encoded, p->header.index_len, digest, err) < 0)
			goto out;
		if (memcmp(digest, p->header.id, sizeof p->header.id) != 0) {
			prep_fail(err, PREP_EDAMAGED, "%s: the package's id is not that of its index", p->name);
			goto out;
		}
	}
	r = prep_ckm_index_decode(encoded, p->header.index_len, p->name, &p->index, err);
out:
	free(plain);
	free(encoded);
	return r;
}

/* What the header and the index say of one another. */
static int check_index(const struct prep_ckm *p, struct prep_err *err)
{
	const struct prep_ckm_index *in = &p->index;
	uint64_t end = PREP_CKM_LEAD_SIZE;
	bool absent = false;

	for (uint32_t i = 0; i < in->frames; i++) {
		absent |= in->frame[i].kind == PREP_FRAME_ABSENT;
		end += in->frame[i].stored;
		if (p->info.sealed && in->frame[i].kind != PREP_FRAME_ABSENT &&
		    in->frame[i].stored <= PREP_SEAL_TAG)
			return prep_fail(err, PREP_EDAMAGED, "%s: the index is damaged: frame %u is too short", p->name,
					 i);
		if (!p->info.sealed && in->frame[i].stored > in->frame[i].size)
			return prep_fail(err, PREP_EDAMAGED, "%s: the index is damaged: frame %u takes more than its bytes",
					 p->name, i);
	}
	if (end + p->header.section_len + PREP_CKM_TRAILER_SIZE != p->header.package_size)
		return prep_fail(err, PREP_EDAMAGED, "%s: the index is damaged: the frames do not add up to the package",
				 p->name);
	if (absent != p->info.difference)
		return prep_fail(err, PREP_EDAMAGED,
				 "%s: the index is damaged: absent frames and the difference flag contradict each other",
				 p->name);
	if ((in->patches > 0) != p->info.patches)
		return prep_fail(err, PREP_EDAMAGED,
				 "%s: the index is damaged: patch frames and the flag for them contradict each other",
				 p->name);
	return 0;
}

/* The header of a section of len bytes. */
static int take_header(struct prep_ckm *p, const uint8_t *header, uint64_t len, struct prep_err *err)
{
	if (prep_ckm_header_decode(header, p->name, &p->header, err) < 0)
		return -1;
	if (p->header.section_len != len)
		return prep_fail(err, PREP_EDAMAGED, "%s: the index section has %llu bytes instead of %llu", p->name,
				 (unsigned long long)len, (unsigned long long)p->header.section_len);
	return 0;
}

/* p->section holds len bytes: check and open them. */
static int open_section(struct prep_ckm *p, uint64_t len, const struct prep_ckm_access *access,
			struct prep_err *err)
{
	/* Of what is too short to tell, an empty answer, say, nothing is known to be an index. */
	if (len < 8 || !prep_ckm_is_section(p->section))
		return prep_fail(err, PREP_EREFUSED, "%s: not a CKM index", p->name);
	if (len < PREP_CKM_HEADER_SIZE)
		return prep_fail(err, PREP_EDAMAGED, "%s: the index section is cut off", p->name);
	if (take_header(p, p->section, len, err) < 0)
		return -1;
	memcpy(p->info.id, p->header.id, sizeof p->info.id);
	p->info.sealed = p->header.required & PREP_CKM_SEALED;
	p->info.difference = p->header.required & PREP_CKM_DIFFERENCE;
	p->info.patches = p->header.required & PREP_CKM_PATCHES;
	p->info.slots = p->header.slots;
	p->info.section_len = p->header.section_len;
	p->info.package_size = p->header.package_size;
	if (check_digest(p, err) < 0 || check_signature(p, access, err) < 0 ||
	    prep_seal_slots_check(p->section + PREP_CKM_HEADER_SIZE, p->header.slots, p->name, err) < 0)
		return -1;
	if (p->info.sealed && access->outer_only)
		return 0;
	if (p->info.sealed && open_seal(p, access, err) < 0)
		return -1;
	if (decode_body(p, err) < 0)
		return -1;
	p->decoded = true;
	return check_index(p, err);
}

/* ---- Files ---- */

/* Lead, trailer and header must tell the same. */
static int check_places(const struct prep_ckm *p, const struct prep_ckm_place *lead,
			const struct prep_ckm_place *trailer, struct prep_err *err)
{
	if (memcmp(lead->id, trailer->id, sizeof lead->id) != 0 || lead->section_off != trailer->section_off ||
	    lead->section_len != trailer->section_len || lead->package_size != trailer->package_size)
		return prep_fail(err, PREP_EDAMAGED, "%s: lead and trailer are not of the same package", p->name);
	if (memcmp(lead->id, p->header.id, sizeof lead->id) != 0 || lead->section_len != p->header.section_len ||
	    lead->package_size != p->header.package_size)
		return prep_fail(err, PREP_EDAMAGED, "%s: the index section is not of this package", p->name);
	return 0;
}

/* The header first: it bounds what is to be read. */
static int read_section(struct prep_ckm *p, uint64_t off, uint64_t len, struct prep_err *err)
{
	uint8_t header[PREP_CKM_HEADER_SIZE];

	if (len < sizeof header)
		return prep_fail(err, PREP_EDAMAGED, "%s: the index section is cut off", p->name);
	if (prep_file_pread(p->fd, header, sizeof header, off, p->name, err) < 0 || take_header(p, header, len, err) < 0)
		return -1;
	p->section = malloc(len);
	if (p->section == NULL)
		return prep_fail_nomem(err);
	return prep_file_pread(p->fd, p->section, len, off, p->name, err);
}

static int open_package(struct prep_ckm *p, uint64_t size, const struct prep_ckm_access *access,
			struct prep_err *err)
{
	uint8_t first[PREP_CKM_LEAD_SIZE], last[PREP_CKM_TRAILER_SIZE];
	struct prep_ckm_place lead, trailer;

	if (size < sizeof first + sizeof last)
		return prep_fail(err, PREP_EDAMAGED, "%s: the package is cut off", p->name);
	if (prep_file_pread(p->fd, first, sizeof first, 0, p->name, err) < 0 ||
	    prep_ckm_lead_decode(first, p->name, &lead, err) < 0)
		return -1;
	if (lead.package_size != size)
		return prep_fail(err, PREP_EDAMAGED, "%s: the package has %llu bytes instead of %llu: it is %s",
				 p->name, (unsigned long long)size, (unsigned long long)lead.package_size,
				 size < lead.package_size ? "cut off" : "too long");
	if (prep_file_pread(p->fd, last, sizeof last, size - sizeof last, p->name, err) < 0 ||
	    prep_ckm_trailer_decode(last, p->name, &trailer, err) < 0)
		return -1;
	if (read_section(p, lead.section_off, lead.section_len, err) < 0 ||
	    open_section(p, lead.section_len, access, err) < 0)
		return -1;
	p->info.section_off = lead.section_off;
	return check_places(p, &lead, &trailer, err);
}

static int open_file(struct prep_ckm *p, const struct prep_ckm_access *access, struct prep_err *err)
{
	uint8_t magic[8];
	struct stat st;

	if (fstat(p->fd, &st) != 0)
		return prep_fail_errno(err, "%s", p->name);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < sizeof magic)
		return prep_fail(err, PREP_EREFUSED, "%s: not a CKM package", p->name);
	if (prep_file_pread(p->fd, magic, sizeof magic, 0, p->name, err) < 0)
		return -1;
	if (!prep_ckm_is_section(magic) && !prep_ckm_is_package(magic))
		return prep_fail(err, PREP_EREFUSED, "%s: not a CKM package", p->name);
	if (!prep_ckm_is_section(magic))
		return open_package(p, (uint64_t)st.st_size, access, err);
	if (read_section(p, 0, (uint64_t)st.st_size, err) < 0)
		return -1;
	close(p->fd);
	p->fd = -1;
	return open_section(p, (uint64_t)st.st_size, access, err);
}

static struct prep_ckm *alloc(const char *name, struct prep_err *err)
{
	struct prep_ckm *p = calloc(1, sizeof *p);

	if (p != NULL)
		p->name = strdup(name);
	if (p == NULL || p->name == NULL) {
		free(p);
		prep_fail_nomem(err);
		return NULL;
	}
	p->fd = -1;
	return p;
}

int prep_ckm_open(const char *path, const struct prep_ckm_access *access, struct prep_ckm **ret,
		  struct prep_err *err)
{
	struct prep_ckm *p = alloc(path, err);

	*ret = NULL;
	if (p == NULL)
		return -1;
	p->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (p->fd < 0) {
		prep_fail_errno(err, "%s: cannot open", path);
		goto fail;
	}
	if (open_file(p, access, err) < 0)
		goto fail;
	*ret = p;
	return 0;
fail:
	prep_ckm_close(p);
	return -1;
}

int prep_ckm_open_index(const uint8_t *section, size_t len, const char *name,
			const struct prep_ckm_access *access, struct prep_ckm **ret,
			struct prep_err *err)
{
	struct prep_ckm *p = alloc(name, err);

	*ret = NULL;
	if (p == NULL)
		return -1;
	p->section = malloc(len + 1);
	if (p->section == NULL) {
		prep_fail_nomem(err);
		goto fail;
	}
	if (len > 0)
		memcpy(p->section, section, len);
	if (open_section(p, len, access, err) < 0)
		goto fail;
	*ret = p;
	return 0;
fail:
	prep_ckm_close(p);
	return -1;
}

void prep_ckm_close(struct prep_ckm *p)
{
	if (p == NULL)
		return;
	if (p->fd >= 0)
		close(p->fd);
	prep_seal_free(p->seal);
	prep_ckm_index_clear(&p->index);
	free(p->section);
	free(p->name);
	free(p);
}

const struct prep_ckm_index *prep_ckm_index(const struct prep_ckm *p)
{
	return p->decoded ? &p->index : NULL;
}

const struct prep_ckm_info *prep_ckm_info(const struct prep_ckm *p)
{
	return &p->info;
}

const uint8_t *prep_ckm_section(const struct prep_ckm *p)
{
	return p->section;
}

/* ---- Frames ---- */

int prep_ckm_read_frame(struct prep_ckm *p, uint32_t i, uint8_t *buf, struct prep_err *err)
{
	const struct prep_frame *f = &p->index.frame[i];

	if (f->kind == PREP_FRAME_ABSENT)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: frame %u is not in this difference package: the image it was packed against has it",
				 p->name, i);
	if (p->fd < 0)
		return prep_fail(err, PREP_EREFUSED, "%s: an index alone, without frames", p->name);
	return prep_file_pread(p->fd, buf, f->stored, f->off, p->name, err);
}

static int check_chunks(const struct prep_ckm *p, uint32_t i, struct prep_hash *hash, const uint8_t *buf,
			struct prep_err *err)
{
	const struct prep_frame *f = &p->index.frame[i];
	uint8_t digest[PREP_DIGEST_SIZE];

	for (uint32_t k = 0; k < f->chunks; k++) {
		const uint32_t chunk = prep_frame_chunk(&p->index, f, k);
		const struct prep_chunk *c = &p->index.chunk[chunk];

		if (prep_hash_of(hash, buf, c->size, digest, err) < 0)
			return -1;
		if (memcmp(digest, c->digest, sizeof digest) != 0)
			return prep_fail(err, PREP_EDAMAGED, "%s: frame %u: chunk %u is not what the index says",
					 p->name, i, chunk);
		buf += c->size;
	}
	return 0;
}

/*
 * Check a frame's stored bytes and unseal them. *plain: the packed bytes, *len of
 * them: `stored` itself, or *own, which the caller frees.
 */
static int open_frame(struct prep_ckm *p, uint32_t i, const uint8_t *stored, struct prep_hash *hash,
		      const uint8_t **plain, size_t *len, uint8_t **own, struct prep_err *err)
{
	const struct prep_frame *f = &p->index.frame[i];
	uint8_t digest[PREP_DIGEST_SIZE];
	char what[600];

	*plain = stored;
	*len = f->stored;
	if (prep_hash_of(hash, stored, f->stored, digest, err) < 0)
		return -1;
	if (memcmp(digest, f->digest, sizeof digest) != 0)
		return prep_fail(err, PREP_EDAMAGED, "%s: frame %u is damaged: its digest differs", p->name, i);
	if (p->seal == NULL)
		return 0;
	*plain = *own = malloc(f->stored);
	if (*own == NULL)
		return prep_fail_nomem(err);
	*len -= PREP_SEAL_TAG;
	snprintf(what, sizeof what, "%s: frame %u", p->name, i);
	return prep_seal_unseal(p->seal, PREP_SEAL_FRAME, i, NULL, 0, stored, f->stored, *own, what, err);
}

static int unpack_frame(const struct prep_ckm *p, uint32_t i, const uint8_t *plain, size_t len,
			const uint8_t *reference, uint8_t *buf, struct prep_err *err)
{
	const struct prep_frame *f = &p->index.frame[i];
	char what[600];

	snprintf(what, sizeof what, "%s: frame %u", p->name, i);
	if (f->kind == PREP_FRAME_PATCH)
		return prep_patch_unpack(f->codec, reference, prep_frame_patch(&p->index, i)->size, plain, len, buf,
					 f->size, what, err);
	return prep_codec_unpack(f->codec, plain, len, buf, f->size, what, err);
}

int prep_ckm_decode_frame(struct prep_ckm *p, uint32_t i, const uint8_t *stored, const uint8_t *reference,
			  uint8_t *buf, struct prep_err *err)
{
	struct prep_hash hash = { NULL, NULL };
	const uint8_t *plain;
	uint8_t *own = NULL;
	size_t len;
	int r = -1;

	if (prep_hash_open(&hash, err) == 0 && open_frame(p, i, stored, &hash, &plain, &len, &own, err) == 0 &&
	    unpack_frame(p, i, plain, len, reference, buf, err) == 0)
		r = check_chunks(p, i, &hash, buf, err);
	free(own);
	prep_hash_close(&hash);
	return r;
}

int prep_ckm_check_frame(struct prep_ckm *p, uint32_t i, const uint8_t *stored, struct prep_err *err)
{
	struct prep_hash hash = { NULL, NULL };
	const uint8_t *plain;
	uint8_t *own = NULL;
	size_t len;
	int r = -1;

	if (prep_hash_open(&hash, err) == 0)
		r = open_frame(p, i, stored, &hash, &plain, &len, &own, err);
	free(own);
	prep_hash_close(&hash);
	return r;
}
