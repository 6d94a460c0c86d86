/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/export.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/vhd.h"
#include "libprep/disk/vhd_write.h"
#include "libprep/disk/vhdx.h"

#define BUFFER (1 * PREP_MIB)
#define ZERO_UNIT 4096
#define WORTH_A_CALL (64 * PREP_KIB) /* extents from this size on are handled by themselves */

struct export {
	struct prep_disk *d;
	struct prep_output *out;
	struct prep_vhd_writer *w; /* dynamic only */
	const struct prep_export *how;
	struct prep_export_report *report;
	const struct prep_progress *progress;
	unsigned char *buf;
};

int prep_export_same(struct prep_disk *d, uint32_t time_stamp, struct prep_export *ret,
		     struct prep_err *err)
{
	const struct prep_vhd_info *info = prep_vhd_disk_info(d);

	*ret = (struct prep_export){ .format = PREP_FORMAT_RAW, .block_size = prep_vhd_block_size(d) };
	if (info != NULL && info->footer.type == PREP_VHD_FIXED)
		ret->format = PREP_FORMAT_FIXED;
	else if (info != NULL || prep_vhdx_disk_info(d) != NULL)
		ret->format = PREP_FORMAT_DYNAMIC;
	return prep_vhd_identity(d, time_stamp, &ret->identity, err);
}

uint64_t prep_export_size(const struct prep_disk *d, const struct prep_export *how)
{
	return how->align != 0 ? (d->size + how->align - 1) / how->align * how->align : d->size;
}

int prep_export_check(const struct prep_disk *d, const struct prep_export *how, struct prep_err *err)
{
	if (how->format == PREP_FORMAT_RAW)
		return 0;
	if (d->sector_size != PREP_VHD_SECTOR)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: a disk with sectors of %u bytes cannot be a VHD, whose sectors have 512 ('vhd-compact --to raw' makes a raw disk of it)",
				 d->name, d->sector_size);
	return prep_vhd_size_check(prep_export_size(d, how), d->name, err);
}

static int put_zeros(struct export *x, uint64_t len, struct prep_err *err)
{
	return x->w != NULL ? prep_vhd_writer_zeros(x->w, len, err) : prep_output_zeros(x->out, len, err);
}

static int put_data(struct export *x, const void *buf, size_t len, struct prep_err *err)
{
	x->report->data += len;
	return x->w != NULL ? prep_vhd_writer_data(x->w, buf, len, err)
			    : prep_output_write(x->out, buf, len, err);
}

static int put_copy(struct export *x, const struct prep_backing *from, uint64_t len,
		    struct prep_err *err)
{
	x->report->data += len;
	return x->w != NULL ? prep_vhd_writer_copy(x->w, from, len, err)
			    : prep_output_copy(x->out, from->fd, from->off, len, from->name, err);
}

/*
 * Put [off, off+n), which stand at p, as data. Between files the system copies
 * them: where files can share blocks, nothing is written at all.
 */
static int put_run(struct export *x, uint64_t off, const unsigned char *p, size_t n,
		   struct prep_err *err)
{
	struct prep_backing from;

	if (n >= WORTH_A_CALL && prep_output_seekable(x->out) && prep_disk_backing(x->d, off, &from) &&
	    from.len >= n)
		return put_copy(x, &from, n, err);
	return put_data(x, p, n, err);
}

/* Read [off, off+len), at most BUFFER, and put what is not zero as data, the rest as zeros. */
static int put_read(struct export *x, uint64_t off, size_t len, struct prep_err *err)
{
	if (prep_disk_read(x->d, x->buf, len, off, err) < 0)
		return -1;
	for (size_t at = 0, n; at < len; at += n) {
		bool zero;

		n = prep_zero_run(x->buf + at, len - at, ZERO_UNIT, &zero);
		if (zero ? put_zeros(x, n, err) < 0 : put_run(x, off + at, x->buf + at, n, err) < 0)
			return -1;
	}
	return 0;
}

/*
 * How far the bytes from off on are best read together: small extents (the
 * zeroed tails of files between their data) are dearer one by one.
 */
static int gather(struct export *x, uint64_t off, uint64_t end, uint64_t *ret, struct prep_err *err)
{
	struct prep_backing from;
	struct prep_extent e;
	uint64_t n = 0;

	end = prep_min(end, off + BUFFER);
	while (off + n < end) {
		if (prep_disk_extent(x->d, off + n, end, &e, err) < 0)
			return -1;
		if (e.len >= WORTH_A_CALL &&
		    (e.kind != PREP_EXTENT_DATA ||
		     (!x->how->find_zeros && prep_disk_backing(x->d, e.off, &from) && from.len >= WORTH_A_CALL)))
			break;
		n += e.len;
	}
	*ret = n;
	return 0;
}

/* Put the bytes [off, end) of the disk. */
static int put_range(struct export *x, uint64_t off, uint64_t end, struct prep_err *err)
{
	struct prep_backing from;
	struct prep_extent e;
	uint64_t n;

	while (off < end) {
		if (gather(x, off, end, &n, err) < 0)
			return -1;
		if (n > 0) {
			if (put_read(x, off, (size_t)n, err) < 0)
				return -1;
		} else {
			/* Not to the end: where data is in many pieces they would be walked again from each. */
			if (prep_disk_extent(x->d, off, prep_min(end, off + 16 * BUFFER), &e, err) < 0)
				return -1;
			n = e.len;
			if (e.kind != PREP_EXTENT_DATA) {
				if (put_zeros(x, n, err) < 0)
					return -1;
			} else {
				if (!prep_disk_backing(x->d, off, &from))
					return prep_fail(err, PREP_EDAMAGED, "%s: changed while it was being read",
							 x->d->name);
				n = prep_min(from.len, n);
				if (put_copy(x, &from, n, err) < 0)
					return -1;
			}
		}
		off += n;
		if (prep_progress(x->progress, "writing", off, x->d->size, err) < 0)
			return -1;
	}
	return 0;
}

/* Whether [off, end) holds a byte that is not zero, or, unless zeros are looked for, data at all. */
static int range_has_data(struct export *x, uint64_t off, uint64_t end, struct prep_err *err)
{
	struct prep_extent e;

	while (off < end) {
		if (prep_disk_extent(x->d, off, end, &e, err) < 0)
			return -1;
		if (e.kind == PREP_EXTENT_DATA && !x->how->find_zeros)
			return 1;
		for (uint64_t n = 0, step = 4096; e.kind == PREP_EXTENT_DATA && n < e.len; n += step) {
			/* Most data shows itself in its first page; what does not is read in larger steps. */
			step = prep_min(n == 0 ? 4096 : BUFFER, e.len - n);
			if (prep_disk_read(x->d, x->buf, (size_t)step, off + n, err) < 0)
				return -1;
			if (!prep_is_zero(x->buf, (size_t)step))
				return 1;
		}
		off += e.len;
	}
	return 0;
}

/* The first block at or after i that may hold data: those before are known to be zero. */
static int64_t next_block(struct export *x, uint64_t i, struct prep_err *err)
{
	const uint64_t bs = x->how->block_size;
	uint64_t off = i * bs;
	struct prep_extent e;

	while (off < x->d->size) {
		/* Not to the disk's end: data would be walked again from every block. */
		if (prep_disk_extent(x->d, off, prep_min(prep_round_down(off, bs) + bs, x->d->size), &e, err) < 0)
			return -1;
		if (e.kind == PREP_EXTENT_DATA)
			return (int64_t)(off / bs);
		off += e.len;
		if (off % bs == 0 && off < x->d->size && e.kind == PREP_EXTENT_HOLE) {
			/* A hole may span thousands of blocks. */
			if (x->d->ops->extent(x->d, off, &e, err) < 0)
				return -1;
			if (e.kind != PREP_EXTENT_DATA)
				off = e.len >= bs ? off + prep_round_down(e.len, bs) : off;
		}
	}
	return (int64_t)((x->d->size + bs - 1) / bs);
}

/* The blocks that hold data, one bit each, or NULL with *err set. */
static uint8_t *find_present(struct export *x, struct prep_err *err)
{
	const uint64_t bs = x->how->block_size, blocks = (x->d->size + bs - 1) / bs;
	uint8_t *present = calloc((size_t)(blocks / 8 + 1), 1);

	if (present == NULL) {
		prep_fail_nomem(err);
		return NULL;
	}
	for (uint64_t i = 0;; i++) {
		const int64_t next = next_block(x, i, err);
		int r;

		if (next < 0)
			goto fail;
		i = (uint64_t)next;
		if (i == blocks)
			break;
		r = range_has_data(x, i * bs, prep_min((i + 1) * bs, x->d->size), err);
		if (r < 0 || prep_progress(x->progress, "looking for zeros", i * bs, x->d->size, err) < 0)
			goto fail;
		if (r > 0)
			prep_bit_set(present, i);
	}
	return present;
fail:
	free(present);
	return NULL;
}

int prep_export_estimate(struct prep_disk *d, const struct prep_export *how, uint64_t *ret,
			 const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_export blocks = *how;
	struct export x = { .d = d, .how = &blocks, .progress = progress, .buf = malloc(BUFFER) };
	uint64_t n = 0, i = 0, total;
	uint8_t *present;

	if (x.buf == NULL)
		return prep_fail_nomem(err);
	if (prep_export_check(d, how, err) < 0) {
		free(x.buf);
		return -1;
	}
	/* A flat file has holes where a dynamic one has no blocks, only finer. */
	if (how->format != PREP_FORMAT_DYNAMIC)
		blocks.block_size = 64 * PREP_KIB;
	total = (d->size + blocks.block_size - 1) / blocks.block_size;
	present = find_present(&x, err);
	free(x.buf);
	if (present == NULL)
		return -1;
	while ((i = prep_bit_next(present, i, total, true)) < total) {
		n++;
		i++;
	}
	free(present);
	*ret = n * (blocks.block_size + (how->format == PREP_FORMAT_DYNAMIC ? 4096 : 0)) + total * 4 + 4096;
	return 0;
}

static int export_dynamic(struct export *x, struct prep_err *err)
{
	const uint64_t bs = x->how->block_size, blocks = (x->d->size + bs - 1) / bs;
	uint8_t *present = NULL;
	int r = -1;

	/* Where the table can be written last, zeros are found while copying. */
	if (!x->how->find_zeros || !prep_output_seekable(x->out)) {
		present = find_present(x, err);
		if (present == NULL)
			return -1;
	}
	if (prep_vhd_writer_open(x->out, &x->how->identity, x->d->size, x->how->block_size, present, &x->w,
				 err) < 0)
		goto out;
	for (uint64_t i = 0;; i++) {
		const int64_t next = present != NULL ? (int64_t)prep_bit_next(present, i, blocks, true)
						     : next_block(x, i, err);

		if (next < 0)
			goto out;
		i = (uint64_t)next;
		if (i == blocks)
			break;
		if (prep_vhd_writer_block(x->w, (uint32_t)i, err) < 0 ||
		    put_range(x, i * bs, prep_min((i + 1) * bs, x->d->size), err) < 0)
			goto out;
	}
	r = prep_vhd_writer_finish(x->w, err);
	x->report->blocks = prep_vhd_writer_blocks(x->w);
out:
	prep_vhd_writer_close(x->w);
	free(present);
	return r;
}

static int export_flat(struct export *x, struct prep_err *err)
{
	struct prep_vhd_footer identity = x->how->identity;
	const uint64_t size = prep_export_size(x->d, x->how);

	if (put_range(x, 0, x->d->size, err) < 0 || put_zeros(x, size - x->d->size, err) < 0)
		return -1;
	if (x->how->format != PREP_FORMAT_FIXED)
		return 0;
	/* A disk that grew has the geometry of its new size; its original size stays what it was. */
	if (size != x->d->size)
		prep_vhd_geometry(size, &identity.cylinders, &identity.heads, &identity.sectors);
	return prep_vhd_write_fixed_footer(x->out, &identity, size, err);
}

int prep_export(struct prep_disk *d, struct prep_output *out, const struct prep_export *how,
		struct prep_export_report *report, const struct prep_progress *progress,
		struct prep_err *err)
{
	struct export x = {
		.d = d, .out = out, .how = how, .report = report, .progress = progress,
		.buf = malloc(BUFFER),
	};
	int r;

	*report = (struct prep_export_report){ 0 };
	if (x.buf == NULL)
		return prep_fail_nomem(err);
	r = prep_export_check(d, how, err);
	if (r == 0)
		r = how->format == PREP_FORMAT_DYNAMIC ? export_dynamic(&x, err) : export_flat(&x, err);
	free(x.buf);
	return r;
}
