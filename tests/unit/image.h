/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * VHDs made byte by byte, by the specification and not by the library's own
 * encoder, so that the two do not share their errors.
 */
#ifndef TESTS_UNIT_IMAGE_H
#define TESTS_UNIT_IMAGE_H

#include "libprep/base/bytes.h"
#include "tests/unit/check.h"

#define UNUSED_BLOCK 0xFFFFFFFFu

struct image {
	uint64_t size;        /* of the disk */
	uint32_t block_size, entries, bitmap_size;
	unsigned char *guest; /* what the guest is to see */
	unsigned char *file;  /* the VHD */
	size_t len;
};

/* ~ of the sum of the bytes but for the field itself. */
__attribute__((unused))
static void image_checksum(unsigned char *p, size_t len, size_t field)
{
	uint32_t sum = 0;

	put_be32(p + field, 0);
	for (size_t i = 0; i < len; i++)
		sum += p[i];
	put_be32(p + field, ~sum);
}

__attribute__((unused))
static void image_footer(unsigned char *p, uint32_t type, uint64_t size, uint64_t data_offset)
{
	memset(p, 0, 512);
	memcpy(p, "conectix", 8);
	put_be32(p + 8, 2);
	put_be32(p + 12, 0x00010000);
	put_be64(p + 16, data_offset);
	put_be32(p + 24, 0x12345678);
	memcpy(p + 28, "test", 4);
	put_be32(p + 32, 0x00070003);
	memcpy(p + 36, "Wi2k", 4);
	put_be64(p + 40, size);
	put_be64(p + 48, size);
	put_be16(p + 56, (uint16_t)(size / 512 / 4 / 17));
	p[58] = 4;
	p[59] = 17;
	put_be32(p + 60, type);
	memcpy(p + 68, "0123456789abcdef", 16);
	image_checksum(p, 512, 64);
}

__attribute__((unused))
static unsigned char *image_bat(const struct image *im, uint32_t block)
{
	return im->file + 1536 + (size_t)block * 4;
}

/* Where a block's data stands in the file. */
__attribute__((unused))
static uint64_t image_data(const struct image *im, uint32_t block)
{
	return (uint64_t)get_be32(image_bat(im, block)) * 512 + im->bitmap_size;
}

/* The footer at the end, its copy and the header get right checksums again. */
__attribute__((unused))
static void image_seal(struct image *im)
{
	image_checksum(im->file, 512, 64);
	image_checksum(im->file + 512, 1024, 36);
	image_checksum(im->file + im->len - 512, 512, 64);
}

/*
 * A dynamic disk of noise, in the blocks of order[], which stand in the file in
 * that order, data on multiples of `align`.
 */
__attribute__((unused))
static void image_dynamic(struct image *im, uint64_t size, uint32_t block_size, const uint32_t *order,
			  size_t blocks, uint32_t align)
{
	uint64_t at;

	*im = (struct image){
		.size = size, .block_size = block_size,
		.entries = (uint32_t)((size + block_size - 1) / block_size),
		.bitmap_size = block_size / 512 / 8 < 512 ? 512 : block_size / 512 / 8,
	};
	im->guest = calloc(1, (size_t)size);
	im->len = 1536 + im->entries * 4u + 4096 + blocks * (block_size + im->bitmap_size + (size_t)align) + 512;
	im->file = calloc(1, im->len);
	image_footer(im->file, 3, size, 512);
	memcpy(im->file + 512, "cxsparse", 8);
	put_be64(im->file + 512 + 8, UINT64_MAX);
	put_be64(im->file + 512 + 16, 1536);
	put_be32(im->file + 512 + 24, 0x00010000);
	put_be32(im->file + 512 + 28, im->entries);
	put_be32(im->file + 512 + 32, block_size);
	memset(image_bat(im, 0), 0xFF, (size_t)prep_round_up(im->entries * 4u, 512));
	at = 1536 + prep_round_up(im->entries * 4u, 512);
	for (size_t i = 0; i < blocks; i++) {
		const uint64_t off = (uint64_t)order[i] * block_size;
		const uint64_t bytes = prep_min(block_size, size - off);

		at = prep_round_up(at + im->bitmap_size, align) - im->bitmap_size;
		put_be32(image_bat(im, order[i]), (uint32_t)(at / 512));
		memset(im->file + at, 0xFF, im->bitmap_size);
		check_noise(im->guest + off, (size_t)bytes);
		memcpy(im->file + at + im->bitmap_size, im->guest + off, (size_t)bytes);
		at += im->bitmap_size + block_size;
	}
	im->len = (size_t)at + 512;
	memcpy(im->file + at, im->file, 512);
	image_seal(im);
}

__attribute__((unused))
static void image_fixed(struct image *im, uint64_t size)
{
	*im = (struct image){ .size = size, .len = (size_t)size + 512 };
	im->guest = malloc((size_t)size);
	im->file = malloc(im->len);
	check_noise(im->guest, (size_t)size);
	memcpy(im->file, im->guest, (size_t)size);
	image_footer(im->file + size, 2, size, UINT64_MAX);
}

__attribute__((unused))
static void image_free(struct image *im)
{
	free(im->guest);
	free(im->file);
	*im = (struct image){ .size = 0 };
}

/* The file `name` in the tests' folder with the first len bytes of the VHD. Its path. */
__attribute__((unused))
static const char *image_save(const struct image *im, const char *name, size_t len)
{
	const int fd = check_create(name);

	check_write(fd, im->file, prep_min(len, im->len), 0);
	if (len > im->len && ftruncate(fd, (off_t)len) != 0)
		perror(name);
	close(fd);
	return check_path(name);
}

#endif
