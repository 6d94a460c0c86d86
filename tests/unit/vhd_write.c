/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The VHD writer: what it is given comes back, by the library's own reader and
 * by libvhdi, the same bytes whether the layout was known ahead or not.
 */
#include "libprep/disk/vhd_write.h"

#include <libvhdi.h>

#include "libprep/disk/raw.h"
#include "libprep/disk/vhd.h"
#include "tests/unit/image.h"

static struct prep_err err;

static const struct prep_vhd_footer identity = {
	.features = 0, .time_stamp = 0x01020304, .creator = "vpc ", .creator_version = 0x00050003, .host_os = "Wi2k",
	.original_size = 12345 * 512, .cylinders = 120, .heads = 4, .sectors = 17, .id = "id of this disk",
};

/* Compare all of a disk with the model by libvhdi. It takes the original size, so that must be right. */
static bool libvhdi_reads_as(const char *path, const unsigned char *guest, uint64_t size)
{
	libvhdi_file_t *f = NULL;
	unsigned char *p = malloc(PREP_MIB);
	bool same = libvhdi_file_initialize(&f, NULL) == 1 &&
		    libvhdi_file_open(f, path, LIBVHDI_OPEN_READ, NULL) == 1;

	for (uint64_t at = 0; same && at < size;) {
		const size_t want = (size_t)prep_min(PREP_MIB, size - at);
		const ssize_t n = libvhdi_file_read_buffer_at_offset(f, p, want, (off64_t)at, NULL);

		same = n > 0 && memcmp(p, guest + at, (size_t)n) == 0;
		at += same ? (uint64_t)n : 0;
	}
	libvhdi_file_free(&f, NULL);
	free(p);
	return same;
}

/* Write the disk guest, block by block, in pieces of any length. */
static void write_disk(struct prep_output *out, const unsigned char *guest, uint64_t size, uint32_t block_size,
		       const uint8_t *present, uint64_t seed)
{
	const uint64_t blocks = (size + block_size - 1) / block_size;
	struct prep_vhd_footer f = identity;
	struct prep_vhd_writer *w;
	uint32_t written = 0;

	f.original_size = size;
	check_seed = seed;
	CHECK_DONE(prep_vhd_writer_open(out, &f, size, block_size, present, &w, &err));
	for (uint64_t i = 0; i < blocks; i++) {
		const uint64_t end = prep_min((i + 1) * block_size, size);
		bool data = false;

		/* where the layout is not known, blocks of zeros may be given too: they are left out */
		if (present != NULL && !prep_bit_get(present, i))
			continue;
		CHECK_DONE(prep_vhd_writer_block(w, (uint32_t)i, &err));
		for (uint64_t off = i * block_size, n; off < end; off += n) {
			bool zero;

			n = prep_zero_run(guest + off, (size_t)prep_min(end - off, 1 + check_random(block_size)), 512, &zero);
			if (zero)
				CHECK_DONE(prep_vhd_writer_zeros(w, n, &err));
			else
				CHECK_DONE(prep_vhd_writer_data(w, guest + off, (size_t)n, &err));
			data |= !zero;
		}
		written += data || present != NULL;
	}
	CHECK_DONE(prep_vhd_writer_finish(w, &err));
	CHECK_EQ(prep_vhd_writer_blocks(w), written);
	prep_vhd_writer_close(w);
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
}

static unsigned char *make_guest(uint64_t size, uint32_t block_size, uint8_t *present)
{
	unsigned char *guest = calloc(1, (size_t)size);

	for (uint64_t off = 0; off < size; off += block_size) {
		const uint64_t len = prep_min(block_size, size - off);

		if (check_random(3) == 0)
			continue;
		prep_bit_set(present, off / block_size);
		for (unsigned n = 0; n < 4; n++) {
			const uint64_t at = check_random(len), end = at + 1 + check_random(len - at);

			check_noise(guest + off + at, (size_t)(end - at));
		}
	}
	return guest;
}

static bool same_files(const char *a, const char *b)
{
	size_t la, lb;
	unsigned char *pa = check_read(a, &la), *pb = check_read(b, &lb);
	const bool same = la == lb && memcmp(pa, pb, la) == 0;

	free(pa);
	free(pb);
	return same;
}

static void check_file(const char *path, const unsigned char *guest, uint64_t size, uint32_t block_size,
		       const uint8_t *present)
{
	unsigned char *p = malloc((size_t)size), *file;
	const uint64_t blocks = (size + block_size - 1) / block_size;
	struct prep_disk *d;
	size_t len;
	uint64_t at = 0;

	CHECK_DONE(prep_disk_open(path, 0, &d, &err));
	CHECK_EQ(d->notes.n, 0);
	CHECK_EQ(d->size, size);
	CHECK_EQ(prep_vhd_disk_info(d)->header.block_size, block_size);
	CHECK_DONE(prep_disk_read(d, p, (size_t)size, 0, &err));
	CHECK(memcmp(p, guest, (size_t)size) == 0);
	for (uint64_t i = 0; i < blocks; i++)
		CHECK_EQ(prep_vhd_block_allocated(d, (uint32_t)i), prep_bit_get(present, i));
	prep_disk_close(d);
	free(p);
	CHECK(libvhdi_reads_as(path, guest, size));

	/* what the format says, read by hand */
	file = check_read(path, &len);
	CHECK(len % 4096 == 0);
	CHECK(memcmp(file, file + len - 512, 512) == 0);
	CHECK_EQ(get_be64(file + 16), 512);
	CHECK_EQ(get_be64(file + 512 + 16), 1536);
	CHECK_EQ(get_be32(file + 512 + 28), blocks);
	CHECK_EQ(get_be64(file + 48), size);
	CHECK_EQ(get_be32(file + 8) & 2, 2);
	for (uint64_t i = 0; i < blocks; i++) {
		const uint64_t off = (uint64_t)get_be32(file + 1536 + i * 4) * 512;
		const uint32_t bitmap = block_size / 4096 < 512 ? 512 : block_size / 4096;

		if (!prep_bit_get(present, i))
			continue;
		CHECK_EQ((off + bitmap) % 4096, 0);
		CHECK(off > at && off + bitmap + block_size <= len - 512);
		at = off;
		for (uint32_t b = 0; b < bitmap; b++)
			CHECK(file[off + b] == 0xFF);
	}
	free(file);
}

static void every_block_size(void)
{
	for (uint32_t block_size = 512 << 10; block_size <= 16 << 20; block_size *= 2) {
		/* the last block is full, short by some, and one sector long */
		const uint64_t sizes[] = { 5ull * block_size, 4ull * block_size + 77 * 512, 3ull * block_size + 512 };

		for (unsigned i = 0; i < 3; i++) {
			uint8_t present[1] = { 0 };
			struct prep_output *out;
			unsigned char *guest;

			if (block_size > 4 << 20 && i != 1)
				continue;
			check_seed = block_size + i;
			guest = make_guest(sizes[i], block_size, present);
			CHECK_DONE(prep_output_open(check_path("ahead.vhd"), true, &out, &err));
			write_disk(out, guest, sizes[i], block_size, present, i);
			CHECK_DONE(prep_output_open(check_path("found.vhd"), true, &out, &err));
			write_disk(out, guest, sizes[i], block_size, NULL, 100 + i);
			if (check_ended)
				return;
			CHECK(same_files(check_path("ahead.vhd"), check_path("found.vhd")));
			check_file(check_path("ahead.vhd"), guest, sizes[i], block_size, present);
			free(guest);
			if (check_ended)
				return;
		}
	}
}

static void identity_is_kept(void)
{
	uint8_t present[1] = { 1 };
	unsigned char *guest = calloc(1, PREP_MIB), *file;
	struct prep_vhd_footer f = identity;
	struct prep_output *out;
	struct prep_vhd_writer *w;
	size_t len;

	guest[0] = 1;
	CHECK_DONE(prep_output_open(check_path("id.vhd"), true, &out, &err));
	CHECK_DONE(prep_vhd_writer_open(out, &f, PREP_MIB, 1 << 20, present, &w, &err));
	CHECK_DONE(prep_vhd_writer_block(w, 0, &err));
	CHECK_DONE(prep_vhd_writer_data(w, guest, PREP_MIB, &err));
	CHECK_DONE(prep_vhd_writer_finish(w, &err));
	prep_vhd_writer_close(w);
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
	file = check_read(check_path("id.vhd"), &len);
	CHECK_EQ(get_be32(file + 24), 0x01020304);
	CHECK(memcmp(file + 28, "vpc ", 4) == 0 && memcmp(file + 36, "Wi2k", 4) == 0);
	CHECK_EQ(get_be32(file + 32), 0x00050003);
	CHECK_EQ(get_be64(file + 40), 12345 * 512);
	CHECK_EQ(get_be64(file + 48), PREP_MIB);
	CHECK(get_be16(file + 56) == 120 && file[58] == 4 && file[59] == 17);
	CHECK(memcmp(file + 68, "id of this disk", 16) == 0);
	CHECK_EQ(get_be32(file + 60), 3);
	free(file);
	free(guest);

	/* a fixed disk's footer, of the same identity */
	CHECK_DONE(prep_output_open(check_path("fixed.vhd"), true, &out, &err));
	CHECK_DONE(prep_output_zeros(out, PREP_MIB, &err));
	CHECK_DONE(prep_vhd_write_fixed_footer(out, &f, PREP_MIB, &err));
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
	file = check_read(check_path("fixed.vhd"), &len);
	CHECK_EQ(len, PREP_MIB + 512);
	CHECK_EQ(get_be32(file + PREP_MIB + 60), 2);
	CHECK_EQ(get_be64(file + PREP_MIB + 16), UINT64_MAX);
	CHECK(memcmp(file + PREP_MIB + 68, "id of this disk", 16) == 0);
	free(file);
}

static void identity_of_a_raw_disk(void)
{
	struct prep_vhd_footer a, b, c;
	struct prep_disk *d;
	const int fd = check_create("raw");

	check_write(fd, "the disk's signature", 20, 440);
	CHECK(ftruncate(fd, 3 << 20) == 0);
	CHECK_DONE(prep_raw_open(fd, "raw", 3 << 20, &d, &err));
	CHECK_DONE(prep_vhd_identity(d, 77, &a, &err));
	CHECK_DONE(prep_vhd_identity(d, 77, &b, &err));
	CHECK(memcmp(a.id, b.id, 16) == 0);
	CHECK_EQ(a.time_stamp, 77);
	CHECK_EQ(a.original_size, 3 << 20);
	CHECK_EQ(a.id[6] >> 4, 8);
	CHECK_EQ(a.id[8] >> 6, 2);
	/* another disk is another */
	check_write(fd, "The", 3, 440);
	CHECK_DONE(prep_vhd_identity(d, 77, &c, &err));
	CHECK(memcmp(a.id, c.id, 16) != 0);
	/* renewed: by chance, a UUID of version 4 */
	CHECK_DONE(prep_vhd_identity_renew(&a, 99, &err));
	CHECK_DONE(prep_vhd_identity_renew(&b, 99, &err));
	CHECK(memcmp(a.id, b.id, 16) != 0 && a.time_stamp == 99);
	CHECK_EQ(a.id[6] >> 4, 4);
	prep_disk_close(d);
}

static void too_large(void)
{
	struct prep_output *out;
	struct prep_vhd_writer *w;
	uint8_t *all;

	CHECK_DONE(prep_output_open(check_path("large.vhd"), false, &out, &err));
	CHECK_FAILS(prep_vhd_writer_open(out, &identity, PREP_VHD_SIZE_MAX + 512, 2 << 20, NULL, &w, &err),
		    PREP_EREFUSED, "at most 2040 GiB");
	CHECK(w == NULL);
	/* the largest disk, full: in blocks of 2 MiB its file stays below 2 TiB, the bitmaps of smaller ones are too much */
	all = malloc(4080 * 1024 / 8 + 1);
	memset(all, 0xFF, 4080 * 1024 / 8 + 1);
	CHECK_DONE(prep_vhd_writer_open(out, &identity, PREP_VHD_SIZE_MAX, 2 << 20, all, &w, &err));
	CHECK_EQ(prep_output_size(out), 1536 + 1044480 * 4);
	prep_vhd_writer_close(w);
	CHECK_FAILS(prep_vhd_writer_open(out, &identity, PREP_VHD_SIZE_MAX, 512 << 10, all, &w, &err), PREP_EREFUSED,
		    "over 2 TiB");
	/* but not of a disk that is mostly empty */
	memset(all + 100, 0, 4080 * 1024 / 8 + 1 - 100);
	CHECK_DONE(prep_vhd_writer_open(out, &identity, PREP_VHD_SIZE_MAX, 512 << 10, all, &w, &err));
	prep_vhd_writer_close(w);
	CHECK_DONE(prep_vhd_writer_open(out, &identity, PREP_VHD_SIZE_MAX, 512 << 10, NULL, &w, &err));
	prep_vhd_writer_close(w);
	free(all);
	prep_output_close(out);
}

/* The layout was promised ahead; the disk then turns out otherwise. */
static void broken_promises(void)
{
	unsigned char *data = malloc(PREP_MIB);
	uint8_t present[1] = { 5 };
	struct prep_output *out;
	struct prep_vhd_writer *w;
	struct prep_disk *d;

	check_seed = 5;
	check_noise(data, PREP_MIB);
	/* zeros where data was promised: the block stands, and is zero */
	CHECK_DONE(prep_output_open(check_path("promise.vhd"), true, &out, &err));
	CHECK_DONE(prep_vhd_writer_open(out, &identity, 3 << 20, 1 << 20, present, &w, &err));
	CHECK_DONE(prep_vhd_writer_block(w, 0, &err));
	CHECK_DONE(prep_vhd_writer_zeros(w, PREP_MIB, &err));
	CHECK_DONE(prep_vhd_writer_block(w, 2, &err));
	CHECK_DONE(prep_vhd_writer_data(w, data, PREP_MIB, &err));
	CHECK_DONE(prep_vhd_writer_finish(w, &err));
	prep_vhd_writer_close(w);
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);
	CHECK_DONE(prep_disk_open(check_path("promise.vhd"), 0, &d, &err));
	CHECK_EQ(prep_vhd_disk_info(d)->blocks_allocated, 2);
	CHECK_DONE(prep_disk_read(d, data, PREP_MIB, 0, &err));
	CHECK(prep_is_zero(data, PREP_MIB));
	prep_disk_close(d);
	/* data where none was promised */
	CHECK_DONE(prep_output_open(check_path("promise.vhd"), true, &out, &err));
	CHECK_DONE(prep_vhd_writer_open(out, &identity, 3 << 20, 1 << 20, present, &w, &err));
	CHECK_DONE(prep_vhd_writer_block(w, 1, &err));
	data[0] = 1;
	CHECK_FAILS(prep_vhd_writer_data(w, data, 512, &err), PREP_EDAMAGED, "block 1 changed");
	prep_vhd_writer_close(w);
	prep_output_close(out);
	free(data);
}

int main(void)
{
	RUN(every_block_size);
	RUN(identity_is_kept);
	RUN(identity_of_a_raw_disk);
	RUN(too_large);
	RUN(broken_promises);
	return check_result();
}
