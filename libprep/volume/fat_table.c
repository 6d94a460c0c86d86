/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The FAT: for each cluster the next one of its chain. Read through a cache of
 * pages, because a FAT may be larger than it is wise to keep in memory.
 */
#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"

/* Of a scan and of clearing: a whole number of entries of each width. */
#define PIECE (96 * 1024u)

uint32_t prep_fat_value(const struct prep_fat *f, const uint8_t *p, bool odd)
{
	uint32_t v;

	switch (f->bits) {
	case 12:
		v = odd ? get_le16(p) >> 4 : get_le16(p) & 0xfffu;
		return v >= 0xff8 ? PREP_FAT_END : v == 0xff7 ? PREP_FAT_BAD : v;
	case 16:
		v = get_le16(p);
		return v >= 0xfff8 ? PREP_FAT_END : v == 0xfff7 ? PREP_FAT_BAD : v;
	default:
		v = get_le32(p);
		if (f->exfat)
			return v;
		/* The upper four bits are not of the value. */
		v &= 0x0fffffff;
		return v >= 0x0ffffff8 ? PREP_FAT_END : v == 0x0ffffff7 ? PREP_FAT_BAD : v;
	}
}

static int byte_at(struct prep_fat *f, uint64_t off, const uint8_t **ret, struct prep_err *err)
{
	const uint64_t number = off / PREP_FAT_PAGE;
	const size_t i = (size_t)(number % PREP_FAT_PAGES);

	if (f->page_number[i] != number + 1) {
		f->page_number[i] = 0;
		if (prep_disk_read(f->disk, f->page[i],
				   (size_t)prep_min(PREP_FAT_PAGE, f->fat_len - number * PREP_FAT_PAGE),
				   f->fat_off + f->active * f->fat_len + number * PREP_FAT_PAGE, err) < 0)
			return -1;
		f->page_number[i] = number + 1;
	}
	*ret = f->page[i] + off % PREP_FAT_PAGE;
	return 0;
}

int prep_fat_get(struct prep_fat *f, uint32_t cluster, uint32_t *ret, struct prep_err *err)
{
	const uint64_t off = (uint64_t)cluster * f->bits / 8;
	const uint8_t *p;
	uint8_t two[2];

	if (byte_at(f, off, &p, err) < 0)
		return -1;
	/* Entries of 12 bits may lie on two pages. */
	if (f->bits == 12) {
		two[0] = *p;
		if (byte_at(f, off + 1, &p, err) < 0)
			return -1;
		two[1] = *p;
		p = two;
	}
	*ret = prep_fat_value(f, p, cluster & 1);
	return 0;
}

struct prep_fat_chain prep_fat_chain_of(struct prep_fat *f, uint32_t first, bool contiguous,
					uint64_t limit)
{
	return (struct prep_fat_chain){ .f = f, .next = first, .contiguous = contiguous, .left = limit };
}

static int broken(struct prep_fat_chain *c, const char *what)
{
	c->left = 0;
	c->damage = what;
	return 0;
}

static int next_contiguous(struct prep_fat_chain *c, uint32_t *first, uint32_t *count)
{
	if (!prep_fat_is_cluster(c->f, c->next) || c->left > c->f->clusters - (c->next - 2))
		return broken(c, "its clusters lie outside the volume");
	*first = c->next;
	*count = (uint32_t)c->left;
	c->left = 0;
	return 1;
}

int prep_fat_chain_next(struct prep_fat_chain *c, uint32_t *first, uint32_t *count,
			struct prep_err *err)
{
	uint32_t value;

	if (c->left == 0 || c->next == PREP_FAT_END)
		return 0;
	if (c->contiguous)
		return next_contiguous(c, first, count);
	*first = c->next;
	*count = 0;
	do {
		/* What was read so far is a run; the damage is met again by the next call. */
		if (!prep_fat_is_cluster(c->f, c->next))
			return *count > 0 ? 1 : broken(c, "its chain leads out of the volume");
		if (prep_fat_get(c->f, c->next, &value, err) < 0)
			return -1;
		if (value == PREP_FAT_FREE || value == PREP_FAT_BAD)
			return *count > 0 ? 1 : broken(c, value == PREP_FAT_BAD ? "its chain leads to a bad cluster"
										: "its chain leads to a free cluster");
		++*count;
		c->left--;
		c->next = value;
	} while (c->left > 0 && c->next == *first + *count);
	return 1;
}

/* Clear entries of one copy. */
static int clear_copy(struct prep_fat *f, uint64_t copy_off, uint32_t first, uint32_t count, uint8_t *buf,
		      struct prep_err *err)
{
	const uint64_t off = (uint64_t)first * f->bits / 8;
	const size_t len = (size_t)(((uint64_t)(first + count) * f->bits + 7) / 8 - off);

	if (prep_disk_read(f->disk, buf, len, copy_off + off, err) < 0)
		return -1;
	if (f->bits == 12) {
		for (uint32_t c = first; c < first + count; c++) {
			uint8_t *p = buf + ((uint64_t)c * 12 / 8 - off);

			put_le16(p, c & 1 ? get_le16(p) & 0xf : get_le16(p) & 0xf000);
		}
	} else if (f->bits == 16) {
		memset(buf, 0, len);
	} else {
		for (size_t i = 0; i < len; i += 4)
			put_le32(buf + i, get_le32(buf + i) & 0xf0000000);
	}
	return prep_disk_write(f->disk, buf, len, copy_off + off, err);
}

int prep_fat_clear(struct prep_fat *f, uint32_t first, uint32_t count, struct prep_err *err)
{
	const uint32_t step = PIECE * 8 / 32;
	uint8_t *buf = malloc(PIECE);
	int r = 0;

	if (buf == NULL)
		return prep_fail_nomem(err);
	for (uint32_t n; count > 0 && r == 0; first += n, count -= n) {
		n = (uint32_t)prep_min(count, step);
		for (unsigned i = 0; i < f->fats && r == 0; i++)
			if (f->mirrored || i == f->active)
				r = clear_copy(f, f->fat_off + i * f->fat_len, first, n, buf, err);
		for (uint64_t p = (uint64_t)first * f->bits / 8 / PREP_FAT_PAGE;
		     p <= (uint64_t)(first + n) * f->bits / 8 / PREP_FAT_PAGE; p++)
			if (f->page_number[p % PREP_FAT_PAGES] == p + 1)
				f->page_number[p % PREP_FAT_PAGES] = 0;
	}
	free(buf);
	return r;
}

int prep_fat_scan(struct prep_fat *f,
		  int (*fn)(void *arg, uint32_t cluster, uint32_t value, struct prep_err *err),
		  void *arg, struct prep_err *err)
{
	const uint64_t entries = (uint64_t)f->clusters + 2, len = (entries * f->bits + 7) / 8;
	const uint32_t each = PIECE * 8 / f->bits;
	uint8_t *buf = malloc(PIECE);
	uint64_t cluster = 0;
	int r = 0;

	if (buf == NULL)
		return prep_fail_nomem(err);
	for (uint64_t off = 0; off < len && r == 0; off += PIECE) {
		r = prep_disk_read(f->disk, buf, (size_t)prep_min(PIECE, len - off),
				   f->fat_off + f->active * f->fat_len + off, err);
		for (uint32_t i = 0; i < each && cluster < entries && r == 0; i++, cluster++)
			if (cluster >= 2)
				r = fn(arg, (uint32_t)cluster, prep_fat_value(f, buf + (uint64_t)i * f->bits / 8, i & 1), err);
	}
	free(buf);
	return r;
}
