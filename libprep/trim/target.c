/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/target.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/vhd_write.h"

static enum prep_format packed_format(const struct prep_ckm_index *index)
{
	return index->disk_type == PREP_VHD_DYNAMIC ? PREP_FORMAT_DYNAMIC
	       : index->disk_type == PREP_VHD_FIXED ? PREP_FORMAT_FIXED
						    : PREP_FORMAT_RAW;
}

int prep_target_choose(const struct prep_ckm_index *index, int format, const char *name, struct prep_export *ret,
		       struct prep_err *err)
{
	*ret = (struct prep_export){
		.format = format < 0 ? packed_format(index) : (enum prep_format)format,
		.block_size = index->disk_type == PREP_VHD_DYNAMIC ? index->block_size : PREP_VHD_BLOCK_SIZE_DEFAULT,
		.identity = index->identity,
	};
	if (ret->format == PREP_FORMAT_RAW || index->disk_size <= PREP_VHD_SIZE_MAX)
		return 0;
	return prep_fail(err, PREP_EREFUSED, "%s: a disk of %llu GiB: a VHD holds at most 2040 GiB (--to raw)", name,
			 (unsigned long long)(index->disk_size / PREP_GIB));
}

/* One bit for each block of `size` bytes that a run touches, or NULL. */
static uint8_t *find_present(const struct prep_ckm_index *index, uint64_t size, uint64_t blocks)
{
	uint8_t *present = calloc((size_t)(blocks / 8 + 1), 1);

	for (uint32_t i = 0; present != NULL && i < index->runs; i++) {
		const struct prep_run *run = &index->run[i];

		for (uint64_t b = run->off / size; b <= (run->off + run->len - 1) / size; b++)
			prep_bit_set(present, b);
	}
	return present;
}

uint64_t prep_target_estimate(const struct prep_ckm_index *index, const struct prep_export *how)
{
	uint64_t sum = 0;

	/* Without blocks: what is written, in whole pages, the rest being holes. */
	for (uint32_t i = 0; i < index->runs; i++)
		sum += prep_round_up(index->run[i].len, 4096);
	if (how->format == PREP_FORMAT_DYNAMIC) {
		const uint64_t blocks = (index->disk_size + how->block_size - 1) / how->block_size;

		/* Blocks are holes but for their bitmaps and what is written. */
		sum += blocks * 4 + prep_min(blocks, sum / 4096 + 1) * 4096;
	}
	return prep_min(sum, index->disk_size + index->disk_size / 64) + 8192;
}

static int write_dynamic(const struct prep_ckm_index *index, const struct prep_export *how,
			 struct prep_output *out, struct prep_target *l, struct prep_err *err)
{
	const uint64_t blocks = (index->disk_size + how->block_size - 1) / how->block_size;
	struct prep_vhd_writer *w = NULL;
	uint8_t *present;
	int r = -1;

	present = find_present(index, how->block_size, blocks);
	l->blocks = (uint32_t)blocks;
	l->block = calloc((size_t)blocks + 1, sizeof *l->block);
	if (present == NULL || l->block == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	if (prep_vhd_writer_open(out, &how->identity, index->disk_size, how->block_size, present, &w, err) < 0)
		goto out;
	for (uint32_t i = 0; i < l->blocks; i++) {
		if (!prep_bit_get(present, i))
			continue;
		/* A block that was promised and not given gets its bitmap, and a hole. */
		if (prep_vhd_writer_block(w, i, err) < 0)
			goto out;
		l->block[i] = prep_vhd_writer_place(w, i);
		l->present++;
	}
	r = prep_vhd_writer_finish(w, err);
out:
	prep_vhd_writer_close(w);
	free(present);
	return r;
}

int prep_target_write(const struct prep_ckm_index *index, const struct prep_export *how,
		      struct prep_output *out, struct prep_target *ret, struct prep_err *err)
{
	int r;

	*ret = (struct prep_target){
		.format = how->format, .disk_size = index->disk_size, .block_size = how->block_size,
	};
	if (how->format == PREP_FORMAT_DYNAMIC) {
		r = write_dynamic(index, how, out, ret, err);
	} else {
		r = prep_output_zeros(out, index->disk_size, err);
		if (r == 0 && how->format == PREP_FORMAT_FIXED)
			r = prep_vhd_write_fixed_footer(out, &how->identity, index->disk_size, err);
	}
	ret->file_size = prep_output_size(out);
	if (r < 0)
		prep_target_clear(ret);
	return r;
}

void prep_target_clear(struct prep_target *l)
{
	free(l->block);
	l->block = NULL;
}

uint64_t prep_target_find(const struct prep_target *l, uint64_t off, uint64_t len, uint64_t *ret)
{
	uint64_t in;

	if (l->format != PREP_FORMAT_DYNAMIC) {
		*ret = off;
		return len;
	}
	in = off % l->block_size;
	if (l->block[off / l->block_size] == 0)
		return 0;
	*ret = l->block[off / l->block_size] + in;
	return prep_min(len, l->block_size - in);
}
