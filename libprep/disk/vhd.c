/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/vhd.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/disk/raw.h"
#include "libprep/disk/vhd_blocks.h"
#include "libprep/disk/vhd_diff.h"

static struct prep_vhd *vhd_of(struct prep_disk *d)
{
	return (struct prep_vhd *)d;
}

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

static int fixed_flush(struct prep_disk *d, struct prep_err *err)
{
	return prep_disk_flush(vhd_of(d)->fixed, err);
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
	.flush = fixed_flush,
	.close = fixed_close,
};

/* Find the footer to believe: 1 and v->info, 0 when fd is no VHD. *data_limit: where block data must end. */
static int find_footer(struct prep_vhd *v, uint64_t file_size, uint64_t *data_limit, struct prep_err *err)
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
static int fail_overlap(const struct prep_vhd *v, uint32_t entry, uint32_t other, struct prep_err *err)
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
static int check_bat(struct prep_vhd *v, uint64_t data_limit, struct prep_err *err)
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

static int open_dynamic(struct prep_vhd *v, uint64_t data_limit, struct prep_err *err)
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

static int open_fixed(struct prep_vhd *v, uint64_t data_limit, struct prep_err *err)
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
	struct prep_vhd *v = calloc(1, sizeof *v);
	const off_t file_size = lseek(fd, 0, SEEK_END);
	uint64_t data_limit;
	int r;

	if (v == NULL || (v->disk.name = strdup(name)) == NULL) {
		free(v);
		return prep_fail_nomem(err);
	}
	v->fd = fd;
	v->file_end = (uint64_t)file_size;
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
		v->disk.ops = v->disk.differencing ? &prep_vhd_differencing_ops : &prep_vhd_dynamic_ops;
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
	if (d->ops != &prep_vhd_dynamic_ops && d->ops != &prep_vhd_differencing_ops && d->ops != &fixed_ops)
		return NULL;
	return &((const struct prep_vhd *)d)->info;
}

int prep_vhd_peek(int fd, uint8_t id[16])
{
	const off_t file_size = lseek(fd, 0, SEEK_END);
	struct prep_vhd v = { .fd = fd, .disk.name = (char[]){ "" } };
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
