/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * exFAT: audit, walk, search, removal and zeroing. The checksums of the boot
 * regions and of entry sets are put right; that of the upper-case table is not.
 */
#include "tests/fuzz/volumes.h"

#define BOOT_SECTORS 12u

static void fix_boot(struct image *im, size_t at, size_t sector)
{
	uint32_t sum = 0;

	if (im->len < at + BOOT_SECTORS * sector)
		return;
	for (size_t i = 0; i < (BOOT_SECTORS - 1) * sector; i++)
		if (i != 106 && i != 107 && i != 112)
			sum = (sum << 31 | sum >> 1) + im->p[at + i];
	for (size_t i = 0; i < sector; i += 4)
		put_le32(im->p + at + (BOOT_SECTORS - 1) * sector + i, sum);
}

/* What looks like the first entry of a file in one sector. */
static void fix_sets(struct image *im, size_t sector)
{
	for (size_t at = sector; at < sector + IMAGE_SECTOR && at + 96 <= im->len; at += 32) {
		uint8_t *p = im->p + at;
		const size_t len = 32 + (size_t)p[1] * 32;
		uint16_t sum = 0;

		if (p[0] != 0x85 || p[32] != 0xc0 || len > im->len - at)
			continue;
		for (size_t i = 0; i < len; i++)
			if (i != 2 && i != 3)
				sum = (uint16_t)(((uint32_t)sum << 15 | sum >> 1) + p[i]);
		put_le16(p + 2, sum);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_disk disk;
	struct image im;
	size_t sector;

	if (image_bases == 0)
		image_load("exfat");
	if (!image_make(data, size, &im))
		return 0;
	sector = im.len > 512 && im.p[108] >= 9 && im.p[108] <= 12 ? (size_t)1 << im.p[108] : 512;
	for (size_t i = 0; i < im.base->sectors; i++)
		if (im.base->sector[i] >= 24)
			fix_sets(&im, (size_t)im.base->sector[i] * IMAGE_SECTOR);
	fix_boot(&im, 0, sector);
	fix_boot(&im, BOOT_SECTORS * sector, sector);
	volumes_fuzz(image_disk(&im, &disk), im.how);
	return 0;
}
