/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/vhd_blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"

/* Block data starts on such offsets of the file, as Windows lays it out since version 8. */
#define DATA_ALIGN 4096u

/* Bytes of bitmaps that may wait for a flush. */
#define FRESH_MAX (16 * PREP_MIB)

/* Shorter runs of sectors than this are not told one by one. */
#define WORTH_A_CALL (64 * PREP_KIB)

/* How many blocks without data are looked at for one extent. */
#define RUN_MAX 64u

/* What is known of a block's sector bitmap. */
enum { BITMAP_UNKNOWN, BITMAP_FULL, BITMAP_PARTIAL };

static struct prep_vhd *vhd_of(struct prep_disk *d)
{
	return (struct prep_vhd *)d;
}

static uint64_t block_bitmap_offset(const struct prep_vhd *v, uint32_t block)
{
	return (uint64_t)v->bat[block] * PREP_VHD_SECTOR;
}

static uint64_t block_data_offset(const struct prep_vhd *v, uint32_t block)
{
	return block_bitmap_offset(v, block) + v->bitmap_size;
}

/* Bytes of the disk that a block holds: fewer in the last one of an odd size. */
static uint64_t block_bytes(const struct prep_vhd *v, uint32_t block)
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

static int read_bitmap(struct prep_vhd *v, uint32_t block, uint8_t **ret, struct prep_err *err)
{
	*ret = malloc(v->bitmap_size);
	if (*ret == NULL)
		return prep_fail_nomem(err);
	if (v->fresh != NULL && v->fresh[block] != NULL) {
		memcpy(*ret, v->fresh[block], v->bitmap_size);
		return 0;
	}
	if (prep_file_pread(v->fd, *ret, v->bitmap_size, block_bitmap_offset(v, block), v->disk.name,
			    err) < 0) {
		free(*ret);
		return -1;
	}
	return 0;
}

/* BITMAP_FULL or BITMAP_PARTIAL, or -1. */
static int bitmap_state(struct prep_vhd *v, uint32_t block, struct prep_err *err)
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

/*
 * The bytes of a block's bitmap that hold the bits of [at, end) of the block, at most `room`: *from is the first sector
 * they tell of. Small pieces of a block are asked for one by one, and its bitmap has up to 64 KiB.
 */
static int read_bits(struct prep_vhd *v, uint32_t block, uint64_t at, uint64_t end, uint8_t *bits, size_t room,
		     uint32_t *from, struct prep_err *err)
{
	const uint64_t first = at / PREP_VHD_SECTOR / 8, last = (end + PREP_VHD_SECTOR * 8 - 1) / PREP_VHD_SECTOR / 8;
	const size_t n = (size_t)prep_min(last - first, room);

	*from = (uint32_t)first * 8;
	if (v->fresh != NULL && v->fresh[block] != NULL) {
		memcpy(bits, v->fresh[block] + first, n);
		return 0;
	}
	return prep_file_pread(v->fd, bits, n, block_bitmap_offset(v, block) + first, v->disk.name, err);
}

/* The sectors that are looked at together: 2 MiB. */
#define BITS 512u
#define BITS_SPAN ((uint64_t)BITS * 8 * PREP_VHD_SECTOR)

/* Of [at, end), at most 2 MiB: how far its sectors are all the disk's own, or all not, into *n. */
static int partial_run(struct prep_vhd *v, uint32_t block, uint64_t at, uint64_t end, uint64_t *n, bool *own,
		       struct prep_err *err)
{
	uint8_t bits[BITS];
	uint32_t from;
	uint64_t base;

	end = prep_min(end, prep_round_down(at, 8 * PREP_VHD_SECTOR) + BITS_SPAN);
	if (read_bits(v, block, at, end, bits, sizeof bits, &from, err) < 0)
		return -1;
	base = (uint64_t)from * PREP_VHD_SECTOR;
	*n = bitmap_run(bits, at - base, end - base, own) + base - at;
	return 0;
}

/* Read [at, at+len) of an allocated block of which not all sectors are the disk's own. */
static int read_partial(struct prep_vhd *v, uint32_t block, unsigned char *buf, size_t len, uint64_t at,
			struct prep_err *err)
{
	const uint64_t end = at + len;

	while (at < end) {
		const uint64_t stop = prep_min(end, prep_round_down(at, 8 * PREP_VHD_SECTOR) + BITS_SPAN);
		uint8_t bits[BITS];
		uint32_t from;
		uint64_t base;

		if (read_bits(v, block, at, stop, bits, sizeof bits, &from, err) < 0)
			return -1;
		base = (uint64_t)from * PREP_VHD_SECTOR;
		/* All at once: its sectors may alternate. */
		if (!v->disk.differencing &&
		    prep_file_pread(v->fd, buf, (size_t)(stop - at), block_data_offset(v, block) + at, v->disk.name, err) < 0)
			return -1;
		while (at < stop) {
			bool own;
			const size_t n = (size_t)(bitmap_run(bits, at - base, stop - base, &own) + base - at);

			if (!v->disk.differencing && !own)
				memset(buf, 0, n);
			else if (v->disk.differencing && (own ? prep_file_pread(v->fd, buf, n, block_data_offset(v, block) + at, v->disk.name, err)
				 : prep_disk_read_below(&v->disk, buf, n, (uint64_t)block * v->block_size + at, err)) < 0)
				return -1;
			buf += n;
			at += n;
		}
	}
	return 0;
}

static int dynamic_read(struct prep_disk *d, void *buf, size_t len, uint64_t off,
			struct prep_err *err)
{
	struct prep_vhd *v = vhd_of(d);
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
static int own_run(struct prep_vhd *v, uint32_t block, uint64_t at, uint64_t *n, bool *own,
		   struct prep_err *err)
{
	const int state = bitmap_state(v, block, err);

	*own = true;
	*n = block_bytes(v, block) - at;
	if (state != BITMAP_PARTIAL)
		return state < 0 ? -1 : 0;
	return partial_run(v, block, at, block_bytes(v, block), n, own, err);
}

static int dynamic_extent(struct prep_disk *d, uint64_t off, struct prep_extent *ret,
			  struct prep_err *err)
{
	struct prep_vhd *v = vhd_of(d);
	uint32_t block = (uint32_t)(off / v->block_size);
	const uint64_t at = off % v->block_size;
	uint64_t end, base, n;
	bool hole, own;

	if (v->bat[block] == PREP_VHD_BAT_UNUSED) {
		/* Not to the end of all: there are a million blocks, and the question may come for each. */
		const uint32_t first = block;

		do
			block++;
		while (block - first < RUN_MAX && (uint64_t)block * v->block_size < d->size &&
		       v->bat[block] == PREP_VHD_BAT_UNUSED);
		end = prep_min((uint64_t)block * v->block_size, d->size);
		return prep_disk_extent_below(d, off, end - off, PREP_EXTENT_HOLE, ret, err);
	}
	if (own_run(v, block, at, &n, &own, err) < 0)
		return -1;
	base = block_data_offset(v, block);
	/*
	 * Sectors that alternate are not worth an extent each: they are known by being read, but in a hole of the file, which
	 * is zeros whatever the bits say, where they do not show a parent.
	 */
	if (v->bitmaps[block] == BITMAP_PARTIAL && n < WORTH_A_CALL && at + n < block_bytes(v, block)) {
		const uint64_t rest = block_bytes(v, block) - at;

		end = prep_file_extent(v->fd, &v->data, base + at, base + at + rest, &hole);
		*ret = hole && !v->disk.differencing
			       ? (struct prep_extent){ off, end - base - at, PREP_EXTENT_ZERO }
			       : (struct prep_extent){ off, prep_min(rest, WORTH_A_CALL), PREP_EXTENT_DATA };
		return 0;
	}
	if (!own)
		return prep_disk_extent_below(d, off, n, PREP_EXTENT_ZERO, ret, err);
	end = prep_file_extent(v->fd, &v->data, base + at, base + at + n, &hole);
	*ret = (struct prep_extent){ off, end - base - at, hole ? PREP_EXTENT_ZERO : PREP_EXTENT_DATA };
	return 0;
}

static bool dynamic_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret)
{
	struct prep_vhd *v = vhd_of(d);
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
 * Have a block's bitmap, which it takes, and its table entry written by the next
 * flush: what they make visible is durable before they are.
 */
static int keep_bitmap(struct prep_vhd *v, uint32_t block, uint8_t *bitmap, struct prep_err *err)
{
	if (v->fresh == NULL)
		v->fresh = calloc(v->info.header.bat_entries, sizeof *v->fresh);
	/* Room for as many as there may be before they are flushed, once. */
	if (v->changed == NULL)
		v->changed = calloc(FRESH_MAX / v->bitmap_size + 1, sizeof *v->changed);
	if (v->fresh == NULL || v->changed == NULL) {
		free(bitmap);
		return prep_fail_nomem(err);
	}
	if (v->fresh[block] == NULL)
		v->changed[v->n_changed++] = block;
	free(v->fresh[block]);
	v->fresh[block] = bitmap;
	return 0;
}

/*
 * Make every bit of an allocated block's bitmap set: the data under clear bits becomes the
 * zeros it reads as, now, and the bits follow with the next flush.
 */
static int complete_bitmap(struct prep_vhd *v, uint32_t block, struct prep_err *err)
{
	const uint32_t sectors = (uint32_t)(block_bytes(v, block) / PREP_VHD_SECTOR);
	uint8_t *bitmap;

	if (bitmap_state(v, block, err) != BITMAP_PARTIAL)
		return err->code == PREP_DONE ? 0 : -1;
	if (read_bitmap(v, block, &bitmap, err) < 0)
		return -1;
	for (uint32_t s = 0; s < sectors; s++)
		if (!sectors_set(bitmap, s, 1) &&
		    prep_file_zero(v->fd, block_data_offset(v, block) + (uint64_t)s * PREP_VHD_SECTOR,
				   PREP_VHD_SECTOR, v->disk.name, err) < 0)
			goto fail;
	memset(bitmap, 0xFF, v->bitmap_size);
	if (keep_bitmap(v, block, bitmap, err) < 0)
		return -1;
	v->bitmaps[block] = BITMAP_FULL;
	return 0;
fail:
	free(bitmap);
	return -1;
}

/*
 * Append a block of zeros to the file. Until the next flush it lies behind the
 * old end, whose footer stays, and no table entry names it: a crash, or a power
 * loss that keeps any part of the writes, leaves a file that reads as before.
 */
static int allocate_block(struct prep_vhd *v, uint32_t block, struct prep_err *err)
{
	const uint64_t data = prep_round_up(prep_max(v->data_end + v->bitmap_size, v->file_end), DATA_ALIGN);
	const uint64_t sector = (data - v->bitmap_size) / PREP_VHD_SECTOR;
	const uint64_t end = data + v->block_size;
	const uint64_t file_end = prep_round_up(end + PREP_VHD_FOOTER_SIZE, DATA_ALIGN);
	uint8_t footer[PREP_VHD_FOOTER_SIZE];
	uint8_t *bitmap;

	if (sector >= PREP_VHD_BAT_UNUSED)
		return prep_fail(err, PREP_EFAIL, "%s: the file cannot grow beyond 2 TiB", v->disk.name);
	if (v->grown_from == 0) {
		const off_t size = lseek(v->fd, 0, SEEK_END);

		v->grown_from = size > 0 ? (uint64_t)size : 0;
	}
	prep_vhd_footer_encode(&v->info.footer, footer);
	if (prep_file_pwrite(v->fd, footer, sizeof footer, file_end - sizeof footer, v->disk.name, err) < 0)
		return -1;
	bitmap = malloc(v->bitmap_size);
	if (bitmap == NULL)
		return prep_fail_nomem(err);
	/* The new block of a differencing disk shows its parent until something is written. */
	memset(bitmap, v->disk.differencing ? 0 : 0xFF, v->bitmap_size);
	if (keep_bitmap(v, block, bitmap, err) < 0)
		return -1;
	v->bat[block] = (uint32_t)sector;
	v->bitmaps[block] = v->disk.differencing ? BITMAP_PARTIAL : BITMAP_FULL;
	v->data_end = end;
	v->info.blocks_allocated++;
	return 0;
}

/* Put what shows from below into a sector of an allocated block that is not the disk's own yet. */
static int copy_up(struct prep_vhd *v, uint32_t block, const uint8_t *bitmap, uint32_t sector, struct prep_err *err)
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
 * Write [at, at+n) of a block of a differencing disk, zeros where p is NULL: now
 * the data, with the next flush the bits that make its sectors the disk's own.
 */
static int write_own(struct prep_vhd *v, uint32_t block, const unsigned char *p, uint64_t n, uint64_t at,
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
		v->bitmaps[block] = sectors_set(bitmap, 0, sectors) ? BITMAP_FULL : BITMAP_PARTIAL;
		return keep_bitmap(v, block, bitmap, err);
	}
	free(bitmap);
	return r;
}

/* Nothing waits any more for the next flush. */
static void forget_changed(struct prep_vhd *v)
{
	for (size_t i = 0; i < v->n_changed; i++) {
		free(v->fresh[v->changed[i]]);
		v->fresh[v->changed[i]] = NULL;
	}
	v->n_changed = 0;
}

/*
 * First data and the new end of the file, then the bitmaps, then the table
 * entries, each durable before what makes it visible is written.
 */
static int dynamic_flush(struct prep_disk *d, struct prep_err *err)
{
	struct prep_vhd *v = vhd_of(d);
	uint8_t entry[4];
	int r = prep_file_sync(v->fd, d->name, err);

	if (r < 0 || v->n_changed == 0)
		return r;
	/* The old footer, where the file ended, may go under a bitmap now. */
	v->grown_from = 0;
	for (size_t i = 0; r == 0 && i < v->n_changed; i++)
		r = prep_file_pwrite(v->fd, v->fresh[v->changed[i]], v->bitmap_size, block_bitmap_offset(v, v->changed[i]),
				     d->name, err);
	if (r == 0)
		r = prep_file_sync(v->fd, d->name, err);
	for (size_t i = 0; r == 0 && i < v->n_changed; i++) {
		put_be32(entry, v->bat[v->changed[i]]);
		r = prep_file_pwrite(v->fd, entry, sizeof entry,
				     v->info.header.bat_offset + (uint64_t)v->changed[i] * sizeof entry, d->name, err);
	}
	if (r == 0)
		r = prep_file_sync(v->fd, d->name, err);
	if (r < 0)
		return -1;
	forget_changed(v);
	v->file_end = prep_max(v->file_end, prep_round_up(v->data_end + PREP_VHD_FOOTER_SIZE, DATA_ALIGN));
	return 0;
}

/* As many bitmaps wait as may: make room. */
static int flush_some(struct prep_vhd *v, struct prep_err *err)
{
	return v->n_changed < FRESH_MAX / v->bitmap_size ? 0 : dynamic_flush(&v->disk, err);
}

static int dynamic_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
			 struct prep_err *err)
{
	struct prep_vhd *v = vhd_of(d);
	const unsigned char *p = buf;

	while (len > 0) {
		const uint32_t block = (uint32_t)(off / v->block_size);
		const uint64_t at = off % v->block_size;
		const size_t n = (size_t)prep_min(len, v->block_size - at);

		if (flush_some(v, err) < 0)
			return -1;
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
	struct prep_vhd *v = vhd_of(d);

	while (len > 0) {
		const uint32_t block = (uint32_t)(off / v->block_size);
		const uint64_t at = off % v->block_size;
		const uint64_t n = prep_min(len, v->block_size - at);

		if (flush_some(v, err) < 0)
			return -1;
		if (v->disk.differencing) {
			/* Zeros that are not the disk's own would let the parent's data show. */
			if ((v->bat[block] == PREP_VHD_BAT_UNUSED && allocate_block(v, block, err) < 0) ||
			    write_own(v, block, NULL, n, at, err) < 0)
				return -1;
		} else if (v->bat[block] != PREP_VHD_BAT_UNUSED) {
			prep_file_run_cut(&v->data, block_data_offset(v, block) + at, n);
			if (prep_file_zero(v->fd, block_data_offset(v, block) + at, n, d->name, err) < 0)
				return -1;
		}
		off += n;
		len -= n;
	}
	return 0;
}

static void dynamic_close(struct prep_disk *d)
{
	struct prep_vhd *v = vhd_of(d);

	/* A failure: what nothing shows is room that the next try would look for in vain. */
	if (v->grown_from != 0 && ftruncate(v->fd, (off_t)v->grown_from) != 0)
		errno = 0;
	forget_changed(v);
	free(v->fresh);
	free(v->changed);
	free(v->bat);
	free((void *)v->bitmaps);
	prep_parent_clear(&v->info.parent);
	close(v->fd);
	free(v);
}

const struct prep_disk_ops prep_vhd_dynamic_ops = {
	.kind = "dynamic",
	.read = dynamic_read,
	.write = dynamic_write,
	.zero = dynamic_zero,
	.extent = dynamic_extent,
	.backing = dynamic_backing,
	.flush = dynamic_flush,
	.close = dynamic_close,
};

const struct prep_disk_ops prep_vhd_differencing_ops = {
	.kind = "differencing",
	.read = dynamic_read,
	.write = dynamic_write,
	.zero = dynamic_zero,
	.extent = dynamic_extent,
	.backing = dynamic_backing,
	.flush = dynamic_flush,
	.close = dynamic_close,
};

int prep_vhd_next_own(struct prep_disk *d, uint64_t off, uint64_t *start, uint64_t *len,
		      struct prep_err *err)
{
	struct prep_vhd *v = vhd_of(d);
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
	return ((const struct prep_vhd *)d)->bat[i] != PREP_VHD_BAT_UNUSED;
}

/* Whether a block holds something in a sector whose bit is clear: 1, 0, or -1. Clear sectors may be every second one. */
static int hides(struct prep_vhd *v, uint32_t block, const uint8_t *bitmap, uint8_t *buf, struct prep_err *err)
{
	const uint32_t sectors = (uint32_t)(block_bytes(v, block) / PREP_VHD_SECTOR), step = WORTH_A_CALL / PREP_VHD_SECTOR;
	const uint64_t data = block_data_offset(v, block);
	uint64_t hole_end = 0;

	for (uint32_t first = 0; first < sectors; first += step) {
		const uint32_t n = (uint32_t)prep_min(step, sectors - first);
		const uint64_t off = data + (uint64_t)first * PREP_VHD_SECTOR, end = off + (uint64_t)n * PREP_VHD_SECTOR;
		bool hole = false;

		if (sectors_set(bitmap, first, n) || end <= hole_end)
			continue;
		hole_end = prep_file_extent(v->fd, NULL, off, data + (uint64_t)sectors * PREP_VHD_SECTOR, &hole);
		if (!hole)
			hole_end = 0;
		if (end <= hole_end)
			continue;
		if (prep_file_pread(v->fd, buf, (size_t)n * PREP_VHD_SECTOR, off, v->disk.name, err) < 0)
			return -1;
		for (uint32_t i = 0; i < n; i++)
			if (!sectors_set(bitmap, first + i, 1) && !prep_is_zero(buf + (size_t)i * PREP_VHD_SECTOR, PREP_VHD_SECTOR))
				return 1;
	}
	return 0;
}

int prep_vhd_check_bitmaps(struct prep_disk *d, uint32_t *partial, uint32_t *hidden,
			   struct prep_err *err)
{
	struct prep_vhd *v = vhd_of(d);
	uint8_t *bitmap, *buf;
	int r = 0;

	*partial = *hidden = 0;
	if (d->ops != &prep_vhd_dynamic_ops)
		return 0;
	buf = malloc(WORTH_A_CALL);
	if (buf == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; r >= 0 && (uint64_t)i * v->block_size < d->size; i++) {
		if (v->bat[i] == PREP_VHD_BAT_UNUSED)
			continue;
		r = bitmap_state(v, i, err);
		if (r < 0 || r == BITMAP_FULL)
			continue;
		++*partial;
		r = read_bitmap(v, i, &bitmap, err);
		if (r < 0)
			break;
		r = hides(v, i, bitmap, buf, err);
		*hidden += r > 0;
		free(bitmap);
	}
	free(buf);
	return r < 0 ? -1 : 0;
}
