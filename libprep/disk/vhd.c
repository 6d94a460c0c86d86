/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/vhd.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/disk/raw.h"
#include "libprep/disk/vhd_diff.h"

/* Block data starts on such offsets of the file, as Windows lays it out since version 8. */
#define DATA_ALIGN 4096u

/* What is known of a block's sector bitmap. */
enum { BITMAP_UNKNOWN, BITMAP_FULL, BITMAP_PARTIAL };

struct vhd {
	struct prep_disk disk;
	struct prep_vhd_info info;
	int fd;
	struct prep_disk *fixed;  /* the data of a fixed disk; the rest is then unused */

	uint32_t block_size, bitmap_size;
	uint32_t *bat;            /* sector of each block's bitmap, host byte order */
	_Atomic uint8_t *bitmaps; /* BITMAP_... of each block, filled in when first asked for */
	uint64_t data_end;        /* where the last block, or the metadata if later, ends */
};

static struct vhd *vhd_of(struct prep_disk *d)
{
	return (struct vhd *)d;
}

static uint64_t block_bitmap_offset(const struct vhd *v, uint32_t block)
{
	return (uint64_t)v->bat[block] * PREP_VHD_SECTOR;
}

static uint64_t block_data_offset(const struct vhd *v, uint32_t block)
{
	return block_bitmap_offset(v, block) + v->bitmap_size;
}

/* Bytes of the disk that a block holds: fewer in the last one of an odd size. */
static uint64_t block_bytes(const struct vhd *v, uint32_t block)
{
	return prep_min(v->block_size, v->disk.size - (uint64_t)block * v->block_size);
}

/* Whether bits [first, first+n) are all set; bit 0 is the most significant of byte 0. */
static bool sectors_set(const uint8_t *bitmap, uint32_t first, uint32_t n)
{
	for (; n > 0 && first % 8 != 0; first++, n--)
		if (!(bitmap[first / 8] & 0x80 >> first % 8))
			return false;
	for (; n >= 8; first += 8, n -= 8)
		if (bitmap[first / 8] != 0xFF)
			return false;
	for (; n > 0; first++, n--)
		if (!(bitmap[first / 8] & 0x80 >> first % 8))
			return false;
	return true;
}

/*
 * Where the run of sectors ends whose bits are all as that of the sector at `at`
 * (all in bytes of the block, at < end): *set says how.
 */
static uint64_t bitmap_run(const uint8_t *bitmap, uint64_t at, uint64_t end, bool *set)
{
	const uint32_t last = (uint32_t)((end + PREP_VHD_SECTOR - 1) / PREP_VHD_SECTOR);
	uint32_t s = (uint32_t)(at / PREP_VHD_SECTOR);
	uint8_t same;

	*set = sectors_set(bitmap, s, 1);
	same = *set ? 0xFF : 0;
	while (s < last) {
		if (s % 8 == 0 && bitmap[s / 8] == same)
			s += 8;
		else if (sectors_set(bitmap, s, 1) == *set)
			s++;
		else
			break;
	}
	return prep_min((uint64_t)s * PREP_VHD_SECTOR, end);
}

static int read_bitmap(struct vhd *v, uint32_t block, uint8_t **ret, struct prep_err *err)
{
	*ret = malloc(v->bitmap_size);
	if (*ret == NULL)
		return prep_fail_nomem(err);
	if (prep_file_pread(v->fd, *ret, v->bitmap_size, block_bitmap_offset(v, block), v->disk.name,
			    err) < 0) {
		free(*ret);
		return -1;
	}
	return 0;
}

/* BITMAP_FULL or BITMAP_PARTIAL, or -1. */
static int bitmap_state(struct vhd *v, uint32_t block, struct prep_err *err)
{
	uint8_t *bitmap;

	if (v->bitmaps[block] == BITMAP_UNKNOWN) {
		const uint32_t sectors = (uint32_t)(block_bytes(v, block) / PREP_VHD_SECTOR);

		if (read_bitmap(v, block, &bitmap, err) < 0)
			return -1;
		v->bitmaps[block] = sectors_set(bitmap, 0, sectors) ? BITMAP_FULL : BITMAP_PARTIAL;
		free(bitmap);
	}
	return v->bitmaps[block];
}

/* Read [at, at+len) of an allocated block of which not all sectors are the disk's own. */
static int read_partial(struct vhd *v, uint32_t block, unsigned char *buf, size_t len, uint64_t at,
			struct prep_err *err)
{
	const uint64_t end = at + len;
	uint8_t *bitmap;
	int r = read_bitmap(v, block, &bitmap, err);

	if (r < 0)
		return -1;
	while (at < end && r == 0) {
		bool own;
		const size_t n = (size_t)(bitmap_run(bitmap, at, end, &own) - at);

		r = own ? prep_file_pread(v->fd, buf, n, block_data_offset(v, block) + at, v->disk.name, err)
			: prep_disk_read_below(&v->disk, buf, n, (uint64_t)block * v->block_size + at, err);
		buf += n;
		at += n;
	}
	free(bitmap);
	return r;
}

static int dynamic_read(struct prep_disk *d, void *buf, size_t len, uint64_t off,
			struct prep_err *err)
{
	struct vhd *v = vhd_of(d);
	unsigned char *p = buf;

	while (len > 0) {
		const uint32_t block = (uint32_t)(off / v->block_size);
		const uint64_t at = off % v->block_size;
		const size_t n = (size_t)prep_min(len, v->block_size - at);

		if (v->bat[block] == PREP_VHD_BAT_UNUSED) {
			if (prep_disk_read_below(d, p, n, off, err) < 0)
				return -1;
		} else {
			const int state = bitmap_state(v, block, err);

			if (state < 0 ||
			    (state == BITMAP_PARTIAL
				     ? read_partial(v, block, p, n, at, err)
				     : prep_file_pread(v->fd, p, n, block_data_offset(v, block) + at, d->name, err)) < 0)
				return -1;
		}
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

/*
 * How far the sectors from `at` on in an allocated block are all the disk's own, or
 * all not: *n bytes, inside the disk.
 */
static int own_run(struct vhd *v, uint32_t block, uint64_t at, uint64_t *n, bool *own,
		   struct prep_err *err)
{
	const int state = bitmap_state(v, block, err);
	uint8_t *bitmap;

	*own = true;
	*n = block_bytes(v, block) - at;
	if (state != BITMAP_PARTIAL)
		return state < 0 ? -1 : 0;
	if (read_bitmap(v, block, &bitmap, err) < 0)
		return -1;
	*n = bitmap_run(bitmap, at, block_bytes(v, block), own) - at;
	free(bitmap);
	return 0;
}

static int dynamic_extent(struct prep_disk *d, uint64_t off, struct prep_extent *ret,
			  struct prep_err *err)
{
	struct vhd *v = vhd_of(d);
	uint32_t block = (uint32_t)(off / v->block_size);
	const uint64_t at = off % v->block_size;
	uint64_t end, base, n;
	bool hole, own;

	if (v->bat[block] == PREP_VHD_BAT_UNUSED) {
		do
			block++;
		while ((uint64_t)block * v->block_size < d->size && v->bat[block] == PREP_VHD_BAT_UNUSED);
		end = prep_min((uint64_t)block * v->block_size, d->size);
		return prep_disk_extent_below(d, off, end - off, PREP_EXTENT_HOLE, ret, err);
	}
	if (own_run(v, block, at, &n, &own, err) < 0)
		return -1;
	if (!own)
		return prep_disk_extent_below(d, off, n, PREP_EXTENT_ZERO, ret, err);
	base = block_data_offset(v, block);
	end = prep_file_extent(v->fd, base + at, base + at + n, &hole);
	*ret = (struct prep_extent){ off, end - base - at, hole ? PREP_EXTENT_ZERO : PREP_EXTENT_DATA };
	return 0;
}

static bool dynamic_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret)
{
	struct vhd *v = vhd_of(d);
	const uint32_t block = (uint32_t)(off / v->block_size);
	const uint64_t at = off % v->block_size;
	uint64_t n = block_bytes(v, block) - at;
	struct prep_err err = PREP_ERR_INIT;
	bool own = false;

	if (v->bat[block] != PREP_VHD_BAT_UNUSED && own_run(v, block, at, &n, &own, &err) < 0)
		return false;
	if (own) {
		*ret = (struct prep_backing){ v->fd, d->name, block_data_offset(v, block) + at, n };
		return true;
	}
	return prep_disk_backing_below(d, off, n, ret);
}

/*
 * Make every bit of an allocated block's bitmap set: the data under clear bits becomes the
 * zeros it reads as, first, so that a crash in between changes nothing a reader sees.
 */
static int complete_bitmap(struct vhd *v, uint32_t block, struct prep_err *err)
{
	const uint32_t sectors = (uint32_t)(block_bytes(v, block) / PREP_VHD_SECTOR);
	uint8_t *bitmap;
	int r = -1;

	if (bitmap_state(v, block, err) != BITMAP_PARTIAL)
		return err->code == PREP_DONE ? 0 : -1;
	if (read_bitmap(v, block, &bitmap, err) < 0)
		return -1;
	for (uint32_t s = 0; s < sectors; s++)
		if (!sectors_set(bitmap, s, 1) &&
		    prep_file_zero(v->fd, block_data_offset(v, block) + (uint64_t)s * PREP_VHD_SECTOR,
				   PREP_VHD_SECTOR, v->disk.name, err) < 0)
			goto out;
	memset(bitmap, 0xFF, v->bitmap_size);
	r = prep_file_pwrite(v->fd, bitmap, v->bitmap_size, block_bitmap_offset(v, block), v->disk.name, err);
	if (r == 0)
		v->bitmaps[block] = BITMAP_FULL;
out:
	free(bitmap);
	return r;
}

/*
 * Append a block of zeros to the file. The order keeps the file readable at
 * every moment: the new end with its footer, the block, and last the BAT entry.
 * A crash before that leaves unused bytes, which the next new block takes.
 */
static int allocate_block(struct vhd *v, uint32_t block, struct prep_err *err)
{
	const uint64_t data = prep_round_up(v->data_end + v->bitmap_size, DATA_ALIGN);
	const uint64_t sector = (data - v->bitmap_size) / PREP_VHD_SECTOR;
	const uint64_t end = data + v->block_size;
	const uint64_t file_end = prep_round_up(end + PREP_VHD_FOOTER_SIZE, DATA_ALIGN);
	uint8_t footer[PREP_VHD_FOOTER_SIZE], entry[4];
	uint8_t *bitmap;
	int r;

	if (sector >= PREP_VHD_BAT_UNUSED)
		return prep_fail(err, PREP_EFAIL, "%s: the file cannot grow beyond 2 TiB", v->disk.name);
	bitmap = malloc(v->bitmap_size);
	if (bitmap == NULL)
		return prep_fail_nomem(err);
	/* The new block of a differencing disk shows its parent until something is written. */
	memset(bitmap, v->disk.differencing ? 0 : 0xFF, v->bitmap_size);
	prep_vhd_footer_encode(&v->info.footer, footer);
	put_be32(entry, (uint32_t)sector);
	r = prep_file_pwrite(v->fd, footer, sizeof footer, file_end - sizeof footer, v->disk.name, err);
	/* The old footer, and remains of an earlier attempt, lie where the block's zeros belong. */
	if (r == 0)
		r = prep_file_zero(v->fd, v->data_end, file_end - sizeof footer - v->data_end,
				   v->disk.name, err);
	if (r == 0)
		r = prep_file_pwrite(v->fd, bitmap, v->bitmap_size, data - v->bitmap_size, v->disk.name, err);
	if (r == 0)
		r = prep_file_pwrite(v->fd, entry, sizeof entry,
				     v->info.header.bat_offset + (uint64_t)block * sizeof entry,
				     v->disk.name, err);
	free(bitmap);
	if (r < 0)
		return -1;
	v->bat[block] = (uint32_t)sector;
	v->bitmaps[block] = v->disk.differencing ? BITMAP_PARTIAL : BITMAP_FULL;
	v->data_end = end;
	v->info.blocks_allocated++;
	return 0;
}

/* Put what shows from below into a sector of an allocated block that is not the disk's own yet. */
static int copy_up(struct vhd *v, uint32_t block, const uint8_t *bitmap, uint32_t sector, struct prep_err *err)
{
	const uint64_t at = (uint64_t)sector * PREP_VHD_SECTOR;
	uint8_t buf[PREP_VHD_SECTOR];

	if (sectors_set(bitmap, sector, 1))
		return 0;
	if (prep_disk_read_below(&v->disk, buf, sizeof buf, (uint64_t)block * v->block_size + at, err) < 0)
		return -1;
	return prep_file_pwrite(v->fd, buf, sizeof buf, block_data_offset(v, block) + at, v->disk.name, err);
}

/*
 * Write [at, at+n) of a block of a differencing disk, zeros where p is NULL: first
 * the data, then the bits that make its sectors the disk's own, so that until
 * then everything reads as before.
 */
static int write_own(struct vhd *v, uint32_t block, const unsigned char *p, uint64_t n, uint64_t at,
		     struct prep_err *err)
{
	const uint32_t sectors = (uint32_t)(block_bytes(v, block) / PREP_VHD_SECTOR);
	const uint64_t end = at + n, data = block_data_offset(v, block) + at;
	const uint32_t first = (uint32_t)(at / PREP_VHD_SECTOR);
	const uint32_t last = (uint32_t)((end + PREP_VHD_SECTOR - 1) / PREP_VHD_SECTOR);
	uint8_t *bitmap;
	int r = read_bitmap(v, block, &bitmap, err);

	if (r < 0)
		return -1;
	if (at % PREP_VHD_SECTOR != 0)
		r = copy_up(v, block, bitmap, first, err);
	if (r == 0 && end % PREP_VHD_SECTOR != 0)
		r = copy_up(v, block, bitmap, last - 1, err);
	if (r == 0)
		r = p != NULL ? prep_file_pwrite(v->fd, p, (size_t)n, data, v->disk.name, err)
			      : prep_file_zero(v->fd, data, n, v->disk.name, err);
	if (r == 0 && !sectors_set(bitmap, first, last - first)) {
		for (uint32_t s = first; s < last; s++)
			bitmap[s / 8] |= (uint8_t)(0x80 >> s % 8);
		r = prep_file_pwrite(v->fd, bitmap, v->bitmap_size, block_bitmap_offset(v, block), v->disk.name, err);
		if (r == 0)
			v->bitmaps[block] = sectors_set(bitmap, 0, sectors) ? BITMAP_FULL : BITMAP_PARTIAL;
	}
	free(bitmap);
	return r;
}

static int dynamic_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
			 struct prep_err *err)
{
	struct vhd *v = vhd_of(d);
	const unsigned char *p = buf;

	while (len > 0) {
		const uint32_t block = (uint32_t)(off / v->block_size);
		const uint64_t at = off % v->block_size;
		const size_t n = (size_t)prep_min(len, v->block_size - at);

		if (v->disk.differencing) {
			if ((v->bat[block] == PREP_VHD_BAT_UNUSED && allocate_block(v, block, err) < 0) ||
			    write_own(v, block, p, n, at, err) < 0)
				return -1;
		} else if (v->bat[block] != PREP_VHD_BAT_UNUSED || !prep_is_zero(p, n)) {
			if (v->bat[block] == PREP_VHD_BAT_UNUSED ? allocate_block(v, block, err) < 0
								 : complete_bitmap(v, block, err) < 0)
				return -1;
			if (prep_file_pwrite(v->fd, p, n, block_data_offset(v, block) + at, d->name, err) < 0)
				return -1;
		}
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

static int dynamic_zero(struct prep_disk *d, uint64_t off, uint64_t len, struct prep_err *err)
{
	struct vhd *v = vhd_of(d);

	while (len > 0) {
		const uint32_t block = (uint32_t)(off / v->block_size);
		const uint64_t at = off % v->block_size;
		const uint64_t n = prep_min(len, v->block_size - at);

		if (v->disk.differencing) {
			/* Zeros that are not the disk's own would let the parent's data show. */
			if ((v->bat[block] == PREP_VHD_BAT_UNUSED && allocate_block(v, block, err) < 0) ||
			    write_own(v, block, NULL, n, at, err) < 0)
				return -1;
		} else if (v->bat[block] != PREP_VHD_BAT_UNUSED &&
			   prep_file_zero(v->fd, block_data_offset(v, block) + at, n, d->name, err) < 0) {
			return -1;
		}
		off += n;
		len -= n;
	}
	return 0;
}

static int vhd_flush(struct prep_disk *d, struct prep_err *err)
{
	return prep_file_sync(vhd_of(d)->fd, d->name, err);
}

static void dynamic_close(struct prep_disk *d)
{
	struct vhd *v = vhd_of(d);

	free(v->bat);
	free((void *)v->bitmaps);
	prep_parent_clear(&v->info.parent);
	close(v->fd);
	free(v);
}

static const struct prep_disk_ops dynamic_ops = {
	.kind = "dynamic",
	.read = dynamic_read,
	.write = dynamic_write,
	.zero = dynamic_zero,
	.extent = dynamic_extent,
	.backing = dynamic_backing,
	.flush = vhd_flush,
	.close = dynamic_close,
};

static const struct prep_disk_ops differencing_ops = {
	.kind = "differencing",
	.read = dynamic_read,
	.write = dynamic_write,
	.zero = dynamic_zero,
	.extent = dynamic_extent,
	.backing = dynamic_backing,
	.flush = vhd_flush,
	.close = dynamic_close,
};

/* A fixed disk is a flat file with a footer behind: all but its name and identity are raw's. */

static int fixed_read(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err)
{
	return prep_disk_read(vhd_of(d)->fixed, buf, len, off, err);
}

static int fixed_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
		       struct prep_err *err)
{
	return prep_disk_write(vhd_of(d)->fixed, buf, len, off, err);
}

static int fixed_zero(struct prep_disk *d, uint64_t off, uint64_t len, struct prep_err *err)
{
	return vhd_of(d)->fixed->ops->zero(vhd_of(d)->fixed, off, len, err);
}

static int fixed_extent(struct prep_disk *d, uint64_t off, struct prep_extent *ret,
			struct prep_err *err)
{
	return vhd_of(d)->fixed->ops->extent(vhd_of(d)->fixed, off, ret, err);
}

static bool fixed_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret)
{
	return prep_disk_backing(vhd_of(d)->fixed, off, ret);
}

static void fixed_close(struct prep_disk *d)
{
	prep_disk_close(vhd_of(d)->fixed);
	free(d);
}

static const struct prep_disk_ops fixed_ops = {
	.kind = "fixed",
	.read = fixed_read,
	.write = fixed_write,
	.zero = fixed_zero,
	.extent = fixed_extent,
	.backing = fixed_backing,
	.flush = vhd_flush,
	.close = fixed_close,
};

/* Find the footer to believe: 1 and v->info, 0 when fd is no VHD. *data_limit: where block data must end. */
static int find_footer(struct vhd *v, uint64_t file_size, uint64_t *data_limit, struct prep_err *err)
{
	const char *name = v->disk.name;
	uint8_t head[PREP_VHD_FOOTER_SIZE] = { 0 }, tail[PREP_VHD_FOOTER_SIZE] = { 0 };
	struct prep_vhd_footer first, last;
	uint64_t tail_off;
	bool has_first, has_last;

	if (file_size < PREP_VHD_FOOTER_SIZE - 1)
		return 0;
	*data_limit = file_size;
	/* Virtual Server wrote footers one byte short. */
	tail_off = file_size % PREP_VHD_SECTOR == PREP_VHD_SECTOR - 1 ? file_size - sizeof tail + 1
								      : file_size - sizeof tail;
	if (prep_file_pread(v->fd, head, (size_t)prep_min(file_size, sizeof head), 0, name, err) < 0 ||
	    prep_file_pread(v->fd, tail, (size_t)(file_size - tail_off), tail_off, name, err) < 0)
		return -1;
	has_first = prep_vhd_footer_decode(head, &first);
	has_last = prep_vhd_footer_decode(tail, &last);
	if (has_last && last.checksum_ok) {
		*data_limit = tail_off;
		v->info.footer = last;
		if (last.type == PREP_VHD_FIXED)
			return 1;
		if (!(has_first && first.checksum_ok))
			prep_note(&v->disk.notes, "%s: the footer's copy at offset 0 is missing or damaged", name);
		else if (memcmp(head, tail, sizeof head) != 0)
			prep_note(&v->disk.notes, "%s: the footer and its copy at offset 0 differ: the footer is used", name);
		return 1;
	}
	if (has_first && first.checksum_ok && first.type != PREP_VHD_FIXED) {
		if (has_last)
			*data_limit = tail_off;
		v->info.footer = first;
		v->info.footer_recovered = true;
		prep_note(&v->disk.notes, "%s: the footer at the end is %s: its copy at offset 0 is used", name,
			  has_last ? "damaged" : "missing");
		return 1;
	}
	if (has_first || has_last)
		return prep_fail(err, PREP_EDAMAGED, "%s: %s: wrong checksum%s", name,
				 has_last ? "VHD footer" : "VHD footer copy at offset 0",
				 has_last && has_first ? "s, here and in its copy" : "");
	return 0;
}

static int compare_u32(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Two blocks overlap, whose table entries are these (perhaps equal): say which. */
static int fail_overlap(const struct vhd *v, uint32_t entry, uint32_t other, struct prep_err *err)
{
	uint32_t first = UINT32_MAX, second = UINT32_MAX;

	for (uint32_t i = 0; i < v->info.header.bat_entries && second == UINT32_MAX; i++) {
		if (v->bat[i] != entry && v->bat[i] != other)
			continue;
		if (first == UINT32_MAX)
			first = i;
		else
			second = i;
	}
	return prep_fail(err, PREP_EDAMAGED, "%s: blocks %u and %u overlap at offset %llu", v->disk.name, first, second,
			 (unsigned long long)other * PREP_VHD_SECTOR);
}

/* Every block inside the file, behind or before the metadata but not in it, and no two in one place. */
static int check_bat(struct vhd *v, uint64_t data_limit, struct prep_err *err)
{
	const uint64_t stride = (uint64_t)v->bitmap_size + v->block_size;
	const uint64_t bat_end = v->info.header.bat_offset + (uint64_t)v->info.header.bat_entries * 4;
	const struct { uint64_t off, end; const char *what; } metadata[] = {
		{ 0, PREP_VHD_FOOTER_SIZE, "the footer's copy" },
		{ v->info.footer.data_offset, v->info.footer.data_offset + PREP_VHD_HEADER_SIZE, "the header" },
		{ v->info.header.bat_offset, bat_end, "the block table" },
	};
	uint32_t *sorted = malloc((size_t)v->info.header.bat_entries * sizeof *sorted);
	uint32_t n = 0;

	if (sorted == NULL)
		return prep_fail_nomem(err);
	v->data_end = prep_max(bat_end, metadata[1].end);
	for (unsigned i = 0; v->disk.differencing && i < PREP_VHD_LOCATORS; i++) {
		const struct prep_vhd_locator *l = &v->info.header.locator[i];
		uint64_t used;
		const uint64_t space = prep_vhd_diff_locator_space(l, &used);

		/* New blocks go behind the names of the parent; a locator outside the file has none. */
		if (used > 0 && l->off <= data_limit && used <= data_limit - l->off)
			v->data_end = prep_max(v->data_end, prep_min(l->off + space, data_limit));
	}
	for (uint32_t i = 0; i < v->info.header.bat_entries; i++) {
		const uint64_t off = (uint64_t)v->bat[i] * PREP_VHD_SECTOR;

		if (v->bat[i] == PREP_VHD_BAT_UNUSED)
			continue;
		for (size_t m = 0; m < sizeof metadata / sizeof metadata[0]; m++) {
			if (off < metadata[m].end && off + stride > metadata[m].off) {
				prep_fail(err, PREP_EDAMAGED, "%s: block %u, at offset %llu, overlaps %s", v->disk.name,
					  i, (unsigned long long)off, metadata[m].what);
				goto fail;
			}
		}
		if (off + stride > data_limit) {
			prep_fail(err, PREP_EDAMAGED,
				  "%s: block %u, at offset %llu, ends %llu bytes past the end of the file's data: truncated",
				  v->disk.name, i, (unsigned long long)off,
				  (unsigned long long)(off + stride - data_limit));
			goto fail;
		}
		v->data_end = prep_max(v->data_end, off + stride);
		sorted[n++] = v->bat[i];
	}
	v->info.blocks_allocated = n;
	qsort(sorted, n, sizeof *sorted, compare_u32);
	for (uint32_t i = 1; i < n; i++) {
		if ((uint64_t)(sorted[i] - sorted[i - 1]) * PREP_VHD_SECTOR < stride) {
			fail_overlap(v, sorted[i - 1], sorted[i], err);
			goto fail;
		}
	}
	free(sorted);
	return 0;
fail:
	free(sorted);
	return -1;
}

static int open_dynamic(struct vhd *v, uint64_t data_limit, struct prep_err *err)
{
	const char *name = v->disk.name;
	struct prep_vhd_header *h = &v->info.header;
	uint8_t raw[PREP_VHD_HEADER_SIZE];

	if (v->info.footer.data_offset > data_limit || data_limit - v->info.footer.data_offset < sizeof raw)
		return prep_fail(err, PREP_EDAMAGED, "%s: VHD header at offset %llu, past the end of the file", name,
				 (unsigned long long)v->info.footer.data_offset);
	if (prep_file_pread(v->fd, raw, sizeof raw, v->info.footer.data_offset, name, err) < 0)
		return -1;
	if (!prep_vhd_header_decode(raw, h))
		return prep_fail(err, PREP_EDAMAGED, "%s: no VHD header at offset %llu", name,
				 (unsigned long long)v->info.footer.data_offset);
	if (prep_vhd_header_check(&v->info.footer, h, name, err) < 0)
		return -1;
	if (h->bat_offset > data_limit || data_limit - h->bat_offset < (uint64_t)h->bat_entries * 4)
		return prep_fail(err, PREP_EDAMAGED, "%s: the block table ends past the end of the file", name);
	v->block_size = h->block_size;
	v->bitmap_size = prep_vhd_bitmap_size(h->block_size);
	v->bat = malloc((size_t)h->bat_entries * sizeof *v->bat);
	v->bitmaps = calloc(h->bat_entries, 1);
	if (v->bat == NULL || v->bitmaps == NULL)
		return prep_fail_nomem(err);
	if (prep_file_pread(v->fd, v->bat, (size_t)h->bat_entries * 4, h->bat_offset, name, err) < 0)
		return -1;
	for (uint32_t i = 0; i < h->bat_entries; i++)
		v->bat[i] = be32toh(v->bat[i]);
	return check_bat(v, data_limit, err);
}

static int open_fixed(struct vhd *v, uint64_t data_limit, struct prep_err *err)
{
	const uint64_t size = v->info.footer.current_size;

	if (data_limit < size)
		return prep_fail(err, PREP_EDAMAGED, "%s: truncated: a fixed disk of %llu bytes, %llu are there",
				 v->disk.name, (unsigned long long)size, (unsigned long long)data_limit);
	if (data_limit > size)
		prep_note(&v->disk.notes, "%s: %llu bytes between the disk's end and the footer are ignored",
			  v->disk.name, (unsigned long long)(data_limit - size));
	return prep_raw_open(v->fd, v->disk.name, size, &v->fixed, err);
}

int prep_vhd_open(int fd, const char *name, bool write, struct prep_disk **ret,
		  struct prep_err *err)
{
	struct vhd *v = calloc(1, sizeof *v);
	const off_t file_size = lseek(fd, 0, SEEK_END);
	uint64_t data_limit;
	int r;

	if (v == NULL || (v->disk.name = strdup(name)) == NULL) {
		free(v);
		return prep_fail_nomem(err);
	}
	v->fd = fd;
	if (file_size < 0)
		r = prep_fail_errno(err, "%s", name);
	else
		r = find_footer(v, (uint64_t)file_size, &data_limit, err);
	if (r <= 0)
		goto fail;
	r = -1;
	if (prep_vhd_footer_check(&v->info.footer, name, err) < 0)
		goto fail;
	if (write && v->info.footer.saved_state == 1) {
		prep_fail(err, PREP_EREFUSED,
			  "%s: the footer is marked as in a saved state: start the virtual machine and shut it down", name);
		goto fail;
	}
	v->disk.size = v->info.footer.current_size;
	v->disk.sector_size = PREP_VHD_SECTOR;
	v->disk.differencing = v->info.footer.type == PREP_VHD_DIFFERENCING;
	if (v->info.footer.type == PREP_VHD_FIXED) {
		v->disk.ops = &fixed_ops;
		r = open_fixed(v, data_limit, err);
	} else {
		v->disk.ops = v->disk.differencing ? &differencing_ops : &dynamic_ops;
		r = open_dynamic(v, data_limit, err);
	}
	if (r < 0)
		goto fail;
	if (v->disk.differencing)
		prep_vhd_diff_names(fd, name, &v->info.header, data_limit, &v->info.parent, &v->disk.notes);
	*ret = &v->disk;
	return 1;
fail:
	prep_notes_clear(&v->disk.notes);
	free(v->disk.name);
	free(v->bat);
	free((void *)v->bitmaps);
	free(v);
	return r;
}

const struct prep_vhd_info *prep_vhd_disk_info(const struct prep_disk *d)
{
	if (d->ops != &dynamic_ops && d->ops != &differencing_ops && d->ops != &fixed_ops)
		return NULL;
	return &((const struct vhd *)d)->info;
}

int prep_vhd_peek(int fd, uint8_t id[16])
{
	const off_t file_size = lseek(fd, 0, SEEK_END);
	struct vhd v = { .fd = fd, .disk.name = (char[]){ "" } };
	struct prep_err ignored = PREP_ERR_INIT;
	uint64_t data_limit;
	const bool found = file_size > 0 && find_footer(&v, (uint64_t)file_size, &data_limit, &ignored) > 0;

	prep_notes_clear(&v.disk.notes);
	if (found)
		memcpy(id, v.info.footer.id, sizeof v.info.footer.id);
	return found;
}

uint32_t prep_vhd_block_size(const struct prep_disk *d)
{
	const struct prep_vhd_info *info = prep_vhd_disk_info(d);

	return info != NULL && info->footer.type != PREP_VHD_FIXED ? info->header.block_size
								   : PREP_VHD_BLOCK_SIZE_DEFAULT;
}

int prep_vhd_next_own(struct prep_disk *d, uint64_t off, uint64_t *start, uint64_t *len,
		      struct prep_err *err)
{
	struct vhd *v = vhd_of(d);
	bool own;

	while (off < d->size) {
		const uint32_t block = (uint32_t)(off / v->block_size);

		if (v->bat[block] == PREP_VHD_BAT_UNUSED) {
			off = (uint64_t)(block + 1) * v->block_size;
			continue;
		}
		if (own_run(v, block, off % v->block_size, len, &own, err) < 0)
			return -1;
		if (own) {
			*start = off;
			return 1;
		}
		off += *len;
	}
	return 0;
}

bool prep_vhd_block_allocated(const struct prep_disk *d, uint32_t i)
{
	return ((const struct vhd *)d)->bat[i] != PREP_VHD_BAT_UNUSED;
}

int prep_vhd_check_bitmaps(struct prep_disk *d, uint32_t *partial, uint32_t *hidden,
			   struct prep_err *err)
{
	struct vhd *v = vhd_of(d);
	uint8_t *bitmap, sector[PREP_VHD_SECTOR];

	*partial = *hidden = 0;
	if (d->ops != &dynamic_ops)
		return 0;
	for (uint32_t i = 0; (uint64_t)i * v->block_size < d->size; i++) {
		const uint32_t sectors = (uint32_t)(block_bytes(v, i) / PREP_VHD_SECTOR);
		bool found = false;
		int state;

		if (v->bat[i] == PREP_VHD_BAT_UNUSED)
			continue;
		state = bitmap_state(v, i, err);
		if (state < 0)
			return -1;
		if (state == BITMAP_FULL)
			continue;
		++*partial;
		if (read_bitmap(v, i, &bitmap, err) < 0)
			return -1;
		for (uint32_t s = 0; s < sectors && !found; s++) {
			if (sectors_set(bitmap, s, 1))
				continue;
			if (prep_file_pread(v->fd, sector, sizeof sector,
					    block_data_offset(v, i) + (uint64_t)s * PREP_VHD_SECTOR, d->name,
					    err) < 0) {
				free(bitmap);
				return -1;
			}
			found = !prep_is_zero(sector, sizeof sector);
		}
		*hidden += found;
		free(bitmap);
	}
	return 0;
}
