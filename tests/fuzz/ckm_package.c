/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A whole package, or an index section alone. Checksums and digests are made
 * right before it is opened, as far as its own lengths say where they are, so
 * that what stands behind them is reached.
 */
#include "tests/fuzz/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/hash.h"
#include "libprep/ckm/section.h"
#include "libprep/ckm/verify.h"

static void fix_crc(uint8_t *p, size_t at)
{
	put_le32(p + at, (uint32_t)crc32(0, p, (unsigned)at));
}

static void fix_section(uint8_t *p, size_t len)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_ckm_header h;

	if (len < PREP_CKM_HEADER_SIZE)
		return;
	fix_crc(p, PREP_CKM_HEADER_SIZE - 4);
	if (prep_ckm_header_decode(p, "input", &h, &err) == 0 && prep_ckm_digest_at(&h) + PREP_DIGEST_SIZE <= len)
		prep_hash_once(p, prep_ckm_digest_at(&h), p + prep_ckm_digest_at(&h), &err);
}

static void fix_package(uint8_t *p, size_t len)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_ckm_place place;

	fix_crc(p, PREP_CKM_LEAD_SIZE - 4);
	fix_crc(p + len - PREP_CKM_TRAILER_SIZE, 36);
	if (prep_ckm_lead_decode(p, "input", &place, &err) == 0 && place.package_size == len)
		fix_section(p + place.section_off, place.section_len);
}

static void verify(struct prep_ckm *p)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_verify_report v;
	struct prep_pool *pool;

	if (prep_ckm_info(p)->section_off == 0 || prep_pool_open(1, &pool, &err) < 0)
		return;
	if (prep_verify(p, NULL, pool, &v, NULL, &err) == 0)
		prep_verify_clear(&v);
	prep_pool_close(pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct prep_ckm_access access = { .outer_only = true };
	const int fd = memfd_create("input", MFD_CLOEXEC);
	struct prep_err err = PREP_ERR_INIT;
	uint8_t *copy = malloc(size + 1);
	struct prep_ckm *p;
	char path[64];

	if (fd < 0 || copy == NULL)
		abort();
	memcpy(copy, data, size);
	if (size >= 8 && prep_ckm_is_section(copy))
		fix_section(copy, size);
	else if (size >= PREP_CKM_LEAD_SIZE + PREP_CKM_TRAILER_SIZE)
		fix_package(copy, size);
	if (write(fd, copy, size) != (ssize_t)size)
		abort();
	free(copy);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (prep_ckm_open(path, &access, &p, &err) == 0) {
		if (prep_ckm_index(p) != NULL)
			verify(p);
		prep_ckm_close(p);
	}
	close(fd);
	return 0;
}
