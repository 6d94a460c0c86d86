/* SPDX-License-Identifier: GPL-3.0-or-later */
/* VHDX: headers, region tables, metadata, block table. The CRC-32Cs are put right. */
#include "tests/fuzz/image.h"

#include "libprep/disk/disk.h"
#include "libprep/disk/vhdx.h"

/* libvhdi leaks an entry of the metadata table that it does not take. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libvhdi\n";
}

static uint32_t crc32c(const uint8_t *p, size_t len)
{
	static uint32_t table[256];
	uint32_t crc = UINT32_MAX;

	for (uint32_t i = 0; table[255] == 0 && i < 256; i++) {
		uint32_t v = i;

		for (unsigned k = 0; k < 8; k++)
			v = v >> 1 ^ (v & 1 ? 0x82f63b78 : 0);
		table[i] = v;
	}
	for (size_t i = 0; i < len; i++)
		crc = crc >> 8 ^ table[(uint8_t)(crc ^ p[i])];
	return ~crc;
}

static void fix(struct image *im, size_t at, size_t len, const char *magic)
{
	if (im->len < at + len || memcmp(im->p + at, magic, 4) != 0)
		return;
	put_le32(im->p + at + 4, 0);
	put_le32(im->p + at + 4, crc32c(im->p + at, len));
}

static void read_disk(struct prep_disk *d, struct prep_err *err)
{
	uint8_t buf[8192];
	struct prep_extent e;
	unsigned steps = 0;

	for (uint64_t off = 0; off < d->size && steps < 200; off += e.len, steps++) {
		if (prep_disk_extent(d, off, d->size, &e, err) < 0)
			return;
		if (e.off != off || e.len == 0 || e.len > d->size - off)
			abort();
		prep_disk_read(d, buf, (size_t)prep_min(sizeof buf, e.len), off, err);
	}
	prep_disk_read(d, buf, (size_t)prep_min(sizeof buf, d->size), d->size - prep_min(sizeof buf, d->size), err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_disk *d;
	struct image im;
	uint8_t id[16];
	int fd;

	if (image_bases == 0)
		image_load("vhdx");
	if (!image_make(data, size, &im))
		return 0;
	fix(&im, 64 << 10, 4096, "head");
	fix(&im, 128 << 10, 4096, "head");
	fix(&im, 192 << 10, 64 << 10, "regi");
	fix(&im, 256 << 10, 64 << 10, "regi");
	fd = image_fd(&im);
	prep_vhdx_peek(fd, id);
	if (prep_disk_open_fd(fd, "input", PREP_DISK_ALONE, &d, &err) == 0) {
		read_disk(d, &err);
		prep_disk_close(d);
	}
	return 0;
}
