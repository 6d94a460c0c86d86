/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Partition tables: MBR with its extended chain, and GPT, whose checksums are put right. */
#include "tests/fuzz/image.h"

#include <zlib.h>

#include "libprep/volume/volumes.h"

static void fix_gpt(struct image *im, size_t at, size_t sector)
{
	uint8_t *h = im->p + at;
	uint64_t array;
	uint32_t size;

	if (im->len < sector || at > im->len - sector || memcmp(h, "EFI PART", 8) != 0)
		return;
	size = get_le32(h + 12);
	if (size < 92 || size > sector)
		return;
	if (!__builtin_mul_overflow(get_le64(h + 72), (uint64_t)sector, &array) && array < im->len &&
	    (uint64_t)get_le32(h + 80) * get_le32(h + 84) <= im->len - array)
		put_le32(h + 88, (uint32_t)crc32(0, im->p + array, get_le32(h + 80) * get_le32(h + 84)));
	put_le32(h + 16, 0);
	put_le32(h + 16, (uint32_t)crc32(0, h, size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct prep_err err = PREP_ERR_INIT;
	struct image_disk disk;
	struct prep_volumes *v;
	struct prep_disk *d;
	struct image im;
	size_t sector;

	if (image_bases == 0)
		image_load("table");
	if (!image_make(data, size, &im))
		return 0;
	sector = im.how & 1 ? 4096 : 512;
	fix_gpt(&im, sector, sector);
	if (im.len >= sector)
		fix_gpt(&im, prep_round_down(im.len - sector, sector), sector);
	d = image_disk(&im, &disk);
	d->sector_size = (uint32_t)sector;
	d->size = prep_round_down(d->size, sector);
	if (prep_volumes_open(d, &v, &err) == 0) {
		for (unsigned i = 0; i < v->table.n; i++) {
			const struct prep_partition *p = &v->table.part[i];

			if (p->off > d->size || p->len > d->size - p->off || memchr(p->name, 0, sizeof p->name) == NULL)
				abort();
			if (prep_partition_type_name(&v->table, p) == NULL)
				abort();
		}
		prep_volumes_changeable(v, im.how >> 1, &err);
		prep_volumes_close(v);
	}
	return 0;
}
