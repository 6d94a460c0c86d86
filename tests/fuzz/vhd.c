/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * VHDs: fixed, dynamic, differencing (without their parent); read, written in
 * place, and read as a stream. Checksums of footers and header are put right.
 */
#include "tests/fuzz/image.h"

#include <fcntl.h>

#include "libprep/disk/disk.h"
#include "libprep/disk/vhd.h"
#include "libprep/disk/vhd_stream.h"

static void fix_sum(struct image *im, uint64_t at, size_t len, size_t field)
{
	uint32_t sum = 0;

	if (im->len < len || at > im->len - len)
		return;
	put_be32(im->p + at + field, 0);
	for (size_t i = 0; i < len; i++)
		sum += im->p[at + i];
	put_be32(im->p + at + field, ~sum);
}

static void fix(struct image *im)
{
	if (im->len < 1024)
		return;
	fix_sum(im, im->len - 512, 512, 64);
	if (memcmp(im->p, "conectix", 8) == 0)
		fix_sum(im, 0, 512, 64);
	fix_sum(im, get_be64(im->p + im->len - 512 + 16), 1024, 36);
	fix_sum(im, get_be64(im->p + 16), 1024, 36);
}

static void read_disk(struct prep_disk *d, struct prep_err *err)
{
	uint8_t buf[8192];
	struct prep_extent e;
	uint32_t partial, hidden;
	unsigned steps = 0;

	for (uint64_t off = 0; off < d->size && steps < 200; off += e.len, steps++) {
		if (prep_disk_extent(d, off, d->size, &e, err) < 0)
			return;
		if (e.off != off || e.len == 0 || e.len > d->size - off)
			abort();
		prep_disk_read(d, buf, (size_t)prep_min(sizeof buf, e.len), off, err);
	}
	prep_disk_read(d, buf, (size_t)prep_min(sizeof buf, d->size), d->size - prep_min(sizeof buf, d->size), err);
	if (prep_vhd_disk_info(d) != NULL && prep_vhd_disk_info(d)->footer.type != PREP_VHD_FIXED)
		prep_vhd_check_bitmaps(d, &partial, &hidden, err);
}

static void write_disk(struct prep_disk *d, struct prep_err *err)
{
	static const char bytes[] = "0123456789abcdef";
	const uint64_t at[] = { 0, 3 << 20, d->size / 2, d->size - prep_min(d->size, sizeof bytes) };
	char again[sizeof bytes];
	uint64_t changed;

	for (unsigned i = 0; i < 4; i++) {
		if (at[i] > d->size || sizeof bytes > d->size - at[i] ||
		    prep_disk_write(d, bytes, sizeof bytes, at[i], err) < 0)
			continue;
		if (prep_disk_read(d, again, sizeof again, at[i], err) < 0 || memcmp(bytes, again, sizeof bytes) != 0)
			abort();
	}
	prep_disk_zero(d, 0, prep_min(d->size, 4 << 20), &changed, err);
	prep_disk_flush(d, err);
}

static void stream(int fd)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_vhd_stream *s;
	uint8_t *head = NULL, buf[4096];
	uint32_t block;
	size_t len;

	lseek(fd, 0, SEEK_SET);
	if (prep_vhd_stream_open(fd, "input", 512 << 10, &s, &head, &len, &err) > 0) {
		while (prep_vhd_stream_next(s, &block, &err) > 0)
			if (prep_vhd_stream_read(s, buf, sizeof buf, &err) < 0)
				break;
		prep_vhd_stream_close(s);
	}
	free(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_disk *d;
	struct image im;
	uint8_t id[16];
	int fd;

	if (image_bases == 0)
		image_load("vhd");
	if (!image_make(data, size, &im))
		return 0;
	if (!(im.how & 4))
		fix(&im);
	fd = image_fd(&im);
	prep_vhd_peek(fd, id);
	if (im.how & 1)
		stream(fd);
	if (prep_disk_open_fd(fd, "input", PREP_DISK_ALONE | (im.how & 2 ? PREP_DISK_WRITE : 0), &d, &err) == 0) {
		read_disk(d, &err);
		err = (struct prep_err)PREP_ERR_INIT;
		if (im.how & 2)
			write_disk(d, &err);
		prep_disk_close(d);
	}
	return 0;
}
