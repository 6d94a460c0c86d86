/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * exFAT's own files: the allocation bitmap (7.1) and the up-case table (7.2).
 */
#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"

/* Read or write bytes of the bitmap. */
static int bitmap_io(struct prep_fat *f, uint8_t *buf, uint64_t at, uint64_t len, bool write,
		     struct prep_err *err)
{
	for (size_t i = 0; i < f->bitmap_runs && len > 0; i++) {
		const struct prep_fs_run *run = &f->bitmap[i];
		uint64_t n;

		if (at >= run->at + run->len)
			continue;
		n = prep_min(len, run->at + run->len - at);
		if ((write ? prep_disk_write(f->disk, buf, (size_t)n, run->off + (at - run->at), err)
			   : prep_disk_read(f->disk, buf, (size_t)n, run->off + (at - run->at), err)) < 0)
			return -1;
		buf += n;
		at += n;
		len -= n;
	}
	return len == 0 ? 0 : prep_fail(err, PREP_EDAMAGED, "%s: the allocation bitmap is too short", f->disk->name);
}

int prep_exfat_read_bitmap(struct prep_fat *f, uint8_t *map, struct prep_err *err)
{
	const uint64_t len = ((uint64_t)f->clusters + 7) / 8, words = ((uint64_t)f->clusters + 63) / 64;

	memset(map + 8 * (words - 1), 0, 8);
	if (bitmap_io(f, map, 0, len, false, err) < 0)
		return -1;
	if (f->clusters % 8 != 0)
		map[len - 1] &= (uint8_t)(0xff >> (8 - f->clusters % 8));
	return 0;
}

int prep_exfat_free_clusters(struct prep_fat *f, uint32_t first, uint32_t count, struct prep_err *err)
{
	const uint32_t from = first - 2, end = from + count;
	uint8_t buf[4096] = { 0 };

	/* The FAT of a free cluster means nothing: it stays as it is. */
	for (uint32_t bit = from; bit < end;) {
		const uint64_t at = bit / 8;
		const uint64_t len = prep_min(sizeof buf, (uint64_t)(end - 1) / 8 - at + 1);
		const uint32_t stop = (uint32_t)prep_min(end, (at + len) * 8);

		if (bitmap_io(f, buf, at, len, false, err) < 0)
			return -1;
		for (; bit < stop; bit++)
			buf[bit / 8 - at] &= (uint8_t)~(1u << (bit % 8));
		if (bitmap_io(f, buf, at, len, true, err) < 0)
			return -1;
	}
	return 0;
}

/* ---- The up-case table ---- */

static uint32_t table_checksum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (sum << 31 | sum >> 1) + p[i];
	return sum;
}

/* 0xFFFF and a number stand for so many units that are their own upper case. */
static void expand(const uint8_t *p, size_t units, uint16_t *table)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < 65536; i++)
		table[i] = (uint16_t)i;
	for (size_t i = 0; i < units && at < 65536; i++) {
		if (get_le16(p + 2 * i) == 0xffff && i + 1 < units)
			at += get_le16(p + 2 * ++i);
		else
			table[at++] = get_le16(p + 2 * i);
	}
}

int prep_exfat_load_upcase(struct prep_fat *f, struct prep_err *err)
{
	struct prep_fat_chain c;
	uint8_t *p;
	uint64_t got = 0;
	uint32_t first, count;
	int r;

	if (f->upcase_cluster == 0 || f->upcase_len > 2 * 65536 || f->upcase_len % 2 != 0)
		return prep_fail(err, PREP_EDAMAGED, "%s: the up-case table is missing, or of an impossible size",
				 f->disk->name);
	p = malloc((size_t)f->upcase_len + 1);
	if (p == NULL)
		return prep_fail_nomem(err);
	c = prep_fat_chain_of(f, f->upcase_cluster, false, prep_fat_clusters_of(f, f->upcase_len));
	while ((r = prep_fat_chain_next(&c, &first, &count, err)) > 0) {
		const uint64_t n = prep_min(f->upcase_len - got, (uint64_t)count * f->cluster_size);

		r = prep_disk_read(f->disk, p + got, (size_t)n, prep_fat_offset(f, first), err);
		if (r < 0)
			break;
		got += n;
	}
	if (r == 0 && (got < f->upcase_len || table_checksum(p, (size_t)got) != f->upcase_checksum))
		r = prep_fail(err, PREP_EDAMAGED, "%s: the up-case table is damaged", f->disk->name);
	if (r == 0)
		expand(p, (size_t)got / 2, f->upcase);
	free(p);
	return r;
}
