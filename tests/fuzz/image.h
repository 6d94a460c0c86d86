/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Images as a fuzzer's input: one of a few stored images, and changes to it.
 *
 * A fuzzer that had to invent a file system from bytes alone would never get
 * beyond its first sector. The stored images are testdata/fuzz/base/NAME-N.xz;
 * an input is
 *
 *   byte 0   N
 *   byte 1   how the target is to use the image: its own business
 *   then 16 bytes each, changes: u32 where, u8 what, u8 length, 2 bytes of nothing, 8 bytes of value
 *
 * `where` counts the bytes of sectors that hold something worth changing, and
 * wraps. What cannot be a change is none: every input is some image.
 */
#ifndef TESTS_FUZZ_IMAGE_H
#define TESTS_FUZZ_IMAGE_H

#include "tests/fuzz/replay.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <lzma.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/disk.h"

#define IMAGE_BASES 16
#define IMAGE_MOST (64u << 20)
#define IMAGE_CHANGE 16
#define IMAGE_HEAD 2
#define IMAGE_SECTOR 512u
#define IMAGE_PAGE 4096u

enum { IMAGE_SET, IMAGE_ADD, IMAGE_COPY, IMAGE_CUT, IMAGE_WHATS };

struct image_base {
	uint8_t *p, *scratch;
	size_t len;
	uint32_t *sector; /* those worth changing */
	size_t sectors;
	uint8_t *zero;    /* one bit a page of IMAGE_PAGE: it is zero, and stays so */
};

/* What a target changed beyond that: to be undone. */
static struct {
	size_t at, len;
} image_touched;

static struct image_base image_base[IMAGE_BASES];
static unsigned image_bases;

/* The expanded input. The bytes are the image_base's, until the next. */
struct image {
	uint8_t *p;
	size_t len;
	uint8_t how;
	const struct image_base *base;
};

/* All one byte, or the table of upper-case letters, which is mostly each letter itself. */
static bool image_dull(const uint8_t *p)
{
	unsigned same = 0, ascending = 0;

	for (unsigned i = 2; i < IMAGE_SECTOR; i += 2) {
		same += p[i] == p[0] && p[i + 1] == p[0];
		ascending += (uint16_t)(get_le16(p + i) - get_le16(p + i - 2)) == 1;
	}
	return same == IMAGE_SECTOR / 2 - 1 || ascending > IMAGE_SECTOR / 4;
}

static bool image_load_one(const char *name, unsigned number, struct image_base *b)
{
	static uint8_t in[256 << 10];
	uint64_t memory = 128 << 20;
	size_t packed, read = 0;
	char path[64];
	FILE *f;

	snprintf(path, sizeof path, "testdata/fuzz/base/%s-%u.xz", name, number);
	f = fopen(path, "rb");
	if (f == NULL)
		return false;
	packed = fread(in, 1, sizeof in, f);
	fclose(f);
	b->p = malloc(IMAGE_MOST);
	if (b->p == NULL || lzma_stream_buffer_decode(&memory, 0, NULL, in, &read, packed, b->p, &b->len,
							IMAGE_MOST) != LZMA_OK) {
		fprintf(stderr, "%s: cannot be read\n", path);
		exit(1);
	}
	b->sector = malloc((b->len / IMAGE_SECTOR + 1) * sizeof *b->sector);
	b->scratch = malloc(b->len + 1);
	b->zero = calloc(b->len / IMAGE_PAGE / 8 + 1, 1);
	if (b->sector == NULL || b->scratch == NULL || b->zero == NULL)
		abort();
	memcpy(b->scratch, b->p, b->len);
	for (size_t i = 0; i < b->len / IMAGE_PAGE; i++)
		if (prep_is_zero(b->p + i * IMAGE_PAGE, IMAGE_PAGE))
			prep_bit_set(b->zero, i);
	for (uint32_t i = 0; i < b->len / IMAGE_SECTOR; i++)
		if (!image_dull(b->p + (size_t)i * IMAGE_SECTOR))
			b->sector[b->sectors++] = i;
	return b->sectors > 0;
}

/* Those of a name, after those that were loaded before. */
static void image_load(const char *name)
{
	for (unsigned i = 0; image_bases < IMAGE_BASES && image_load_one(name, i, &image_base[image_bases]); i++)
		image_bases++;
	if (image_bases == 0) {
		fprintf(stderr, "%s: no image in testdata/fuzz/base: run from the top of the source\n", name);
		exit(1);
	}
}

static size_t image_place(const struct image_base *b, uint32_t where)
{
	const size_t at = where % (b->sectors * IMAGE_SECTOR);

	return (size_t)b->sector[at / IMAGE_SECTOR] * IMAGE_SECTOR + at % IMAGE_SECTOR;
}

static void image_change(struct image *im, const struct image_base *b, const uint8_t *c)
{
	const size_t at = image_place(b, get_le32(c));
	const size_t n = 1 + c[5] % 8;
	uint64_t v = 0;

	switch (c[4] % IMAGE_WHATS) {
	case IMAGE_SET:
		memcpy(im->p + at, c + 8, prep_min(n, b->len - at));
		break;
	case IMAGE_ADD:
		if (n > b->len - at)
			break;
		memcpy(&v, im->p + at, n);
		v += get_le64(c + 8);
		memcpy(im->p + at, &v, n);
		break;
	case IMAGE_COPY:
		/* A whole sector, or a record of two. */
		memmove(im->p + prep_round_down(at, IMAGE_SECTOR),
			im->p + prep_round_down(image_place(b, get_le32(c + 8)), IMAGE_SECTOR), IMAGE_SECTOR);
		break;
	case IMAGE_CUT:
		im->len = prep_min(im->len, at);
		break;
	}
}

/* The sectors that changes can reach; those may end in the next. */
static void image_restore(struct image_base *b)
{
	for (size_t i = 0; i < b->sectors; i++) {
		const size_t at = (size_t)b->sector[i] * IMAGE_SECTOR;

		memcpy(b->scratch + at, b->p + at, prep_min(2 * IMAGE_SECTOR, b->len - at));
	}
	if (image_touched.len > 0 && image_touched.at + image_touched.len <= b->len)
		memcpy(b->scratch + image_touched.at, b->p + image_touched.at, image_touched.len);
	image_touched.len = 0;
}

/* False where the input is none. */
static bool image_make(const uint8_t *data, size_t size, struct image *im)
{
	static struct image_base *last;
	struct image_base *b;

	if (size < IMAGE_HEAD || data[0] >= image_bases)
		return false;
	b = &image_base[data[0]];
	if (last != NULL)
		image_restore(last);
	last = b;
	*im = (struct image){ .p = b->scratch, .len = b->len, .how = data[1], .base = b };
	for (size_t at = IMAGE_HEAD; at + IMAGE_CHANGE <= size; at += IMAGE_CHANGE)
		image_change(im, b, data + at);
	return true;
}

/* The image as a file without a name, its zeros as holes. */
__attribute__((unused))
static int image_fd(const struct image *im)
{
	const int fd = memfd_create("image", MFD_CLOEXEC);
	bool zero;

	if (fd < 0 || ftruncate(fd, (off_t)im->len) != 0)
		abort();
	for (size_t at = 0, n; at < im->len; at += n) {
		n = prep_zero_run(im->p + at, im->len - at, 4096, &zero);
		if (!zero && pwrite(fd, im->p + at, n, (off_t)at) != (ssize_t)n)
			abort();
	}
	return fd;
}

/* ---- The image as a disk ---- */

struct image_disk {
	struct prep_disk disk;
	const struct image *im;
};

static int image_read(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err)
{
	(void)err;
	memcpy(buf, ((struct image_disk *)d)->im->p + off, len);
	return 0;
}

static int image_extent(struct prep_disk *d, uint64_t off, struct prep_extent *ret, struct prep_err *err)
{
	const struct image *im = ((struct image_disk *)d)->im;
	const uint64_t pages = im->base->len / IMAGE_PAGE, page = off / IMAGE_PAGE;
	const bool zero = page < pages && prep_bit_get(im->base->zero, page) && image_touched.len == 0;
	const uint64_t end = image_touched.len == 0 ? prep_bit_next(im->base->zero, page, pages, !zero) : pages;

	(void)err;
	*ret = (struct prep_extent){ off, (end < pages ? prep_min(end * IMAGE_PAGE, d->size) : d->size) - off,
				     zero ? PREP_EXTENT_ZERO : PREP_EXTENT_DATA };
	/* What is behind the last whole page is data. */
	if (zero && end == pages)
		ret->len = prep_min(pages * IMAGE_PAGE, d->size) - off;
	return 0;
}

static void image_close(struct prep_disk *d)
{
	(void)d;
}

__attribute__((unused))
static struct prep_disk *image_disk(const struct image *im, struct image_disk *ret)
{
	static const struct prep_disk_ops ops = {
		.kind = "memory", .read = image_read, .extent = image_extent, .close = image_close,
	};
	static char name[] = "image";

	*ret = (struct image_disk){
		.disk = { .ops = &ops, .name = name, .size = prep_round_down(im->len, IMAGE_SECTOR), .sector_size = 512 },
		.im = im,
	};
	return &ret->disk;
}

/* ---- Mutations that keep changes whole ---- */

#ifdef PREP_FUZZ_ENGINE
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

static uint32_t image_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 33);
}

static void image_new_change(uint8_t *c, const struct image_base *b, uint64_t *rnd)
{
	static const uint64_t telling[] = {
		0, 1, 2, 4, 8, 0x10, 0x18, 0x20, 0x30, 0x38, 0x40, 0x7f, 0x80, 0xff, 0x100, 0x200, 0x3ff, 0x400, 0x7fff,
		0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff, 0x100000000, INT64_MAX,
		(uint64_t)INT64_MIN, UINT64_MAX - 7, UINT64_MAX,
	};
	static const uint8_t lengths[] = { 0, 1, 3, 7 };
	uint64_t v = telling[image_random(rnd) % (sizeof telling / sizeof telling[0])];

	/* The beginnings of sectors, where headers are, as often as all the rest. */
	put_le32(c, image_random(rnd) % 2 ? (uint32_t)(image_random(rnd) % b->sectors * IMAGE_SECTOR + image_random(rnd) % 96)
					  : image_random(rnd) % (uint32_t)(b->sectors * IMAGE_SECTOR));
	c[4] = image_random(rnd) % 16 == 0 ? IMAGE_COPY : image_random(rnd) % 64 == 0 ? IMAGE_CUT
							: image_random(rnd) % 4 == 0  ? IMAGE_ADD : IMAGE_SET;
	c[5] = lengths[image_random(rnd) % 4];
	c[6] = c[7] = 0;
	if (image_random(rnd) % 3 == 0)
		v = image_random(rnd) % 512;
	if (image_random(rnd) % 8 == 0)
		v = (uint64_t)image_random(rnd) << 32 | image_random(rnd);
	if (c[4] == IMAGE_COPY)
		v = image_random(rnd);
	if (image_random(rnd) % 2)
		put_be64(c + 8, v << (56 - 8 * c[5])); /* big-endian, as VHDs have it */
	else
		put_le64(c + 8, c[4] == IMAGE_ADD && image_random(rnd) % 2 ? 0 - v : v);
	/* Most fields stand at multiples of their size. */
	if (image_random(rnd) % 8 != 0)
		put_le32(c, get_le32(c) & ~(uint32_t)c[5]);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	uint64_t rnd = seed;
	size_t n;
	uint8_t *c;

	if (image_bases == 0 || max < IMAGE_HEAD + IMAGE_CHANGE)
		return size;
	if (size < IMAGE_HEAD || data[0] >= image_bases) {
		data[0] = (uint8_t)(image_random(&rnd) % image_bases);
		data[1] = (uint8_t)image_random(&rnd);
		size = IMAGE_HEAD;
	}
	n = (size - IMAGE_HEAD) / IMAGE_CHANGE;
	size = IMAGE_HEAD + n * IMAGE_CHANGE;
	c = data + IMAGE_HEAD + (n > 0 ? image_random(&rnd) % n : 0) * IMAGE_CHANGE;
	switch (image_random(&rnd) % 8) {
	case 0: /* another use, or another image */
		if (image_random(&rnd) % 8 == 0)
			data[0] = (uint8_t)(image_random(&rnd) % image_bases);
		else
			data[1] = (uint8_t)image_random(&rnd);
		return size;
	case 1: /* one change less */
		if (n == 0)
			break;
		memmove(c, data + size - IMAGE_CHANGE, IMAGE_CHANGE);
		return size - IMAGE_CHANGE;
	case 2: /* near another change */
		if (n == 0)
			break;
		put_le32(c, get_le32(c) + image_random(&rnd) % 64 - 32);
		return size;
	case 3: /* the engine's own idea, with what it saw compared */
		if (n == 0)
			break;
		LLVMFuzzerMutate(c + 8, 8, 8);
		return size;
	case 4: /* another in place of one */
		if (n == 0)
			break;
		image_new_change(c, &image_base[data[0]], &rnd);
		return size;
	}
	if (size + IMAGE_CHANGE > max)
		return size;
	image_new_change(data + size, &image_base[data[0]], &rnd);
	return size + IMAGE_CHANGE;
}
#endif

#endif
