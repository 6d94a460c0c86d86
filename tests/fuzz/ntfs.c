/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * NTFS: audit, walk, search, removal, zeroing and moves, libntfs-3g included.
 * The copy of the first records in $MFTMirr is put right: where it differs,
 * nothing is opened.
 */
#include "tests/fuzz/volumes.h"

#define RECORD_SIZE 1024u
#define MIRRORED 4u

static void fix_mirror(struct image *im)
{
	const uint64_t cluster = (uint64_t)im->p[13] * get_le16(im->p + 11);
	const uint64_t room = im->len - MIRRORED * RECORD_SIZE;
	uint64_t mft, mirror;

	if (im->len < 8192)
		return;
	if (__builtin_mul_overflow(get_le64(im->p + 0x30), cluster, &mft) ||
	    __builtin_mul_overflow(get_le64(im->p + 0x38), cluster, &mirror) || mft > room || mirror > room)
		return;
	if (memcmp(im->p + mirror, im->p + mft, MIRRORED * RECORD_SIZE) == 0)
		return;
	memmove(im->p + mirror, im->p + mft, MIRRORED * RECORD_SIZE);
	image_touched.at = mirror;
	image_touched.len = MIRRORED * RECORD_SIZE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_disk disk;
	struct image im;

	if (image_bases == 0)
		image_load("ntfs");
	if (!image_make(data, size, &im))
		return 0;
	fix_mirror(&im);
	volumes_fuzz(image_disk(&im, &disk), im.how);
	return 0;
}
