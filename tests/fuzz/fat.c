/* SPDX-License-Identifier: GPL-3.0-or-later */
/* FAT12, FAT16, FAT32: audit, walk, search, removal and zeroing. */
#include "tests/fuzz/volumes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image_disk disk;
	struct image im;

	if (image_bases == 0)
		image_load("fat");
	if (!image_make(data, size, &im))
		return 0;
	volumes_fuzz(image_disk(&im, &disk), im.how);
	return 0;
}
