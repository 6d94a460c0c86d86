/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/volume/ntfs_dir.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/ntfs_internal.h"

/* Blocks read at a time where they stand side by side. */
#define CHUNK (256 * PREP_KIB)

#define ENTRY_HAS_CHILD 1u
#define ENTRY_IS_LAST 2u

struct index {
	struct prep_ntfs *n;
	const struct prep_ntfs_dir_reader *reader;
	uint64_t number;       /* of the directory's record */
	uint32_t block_size;
	uint64_t blocks;
	uint64_t vcn_per_block;
	uint8_t *child;        /* a bit a block: some entry leads to it */
};

uint16_t prep_ntfs_upcase(const struct prep_ntfs *n, uint16_t unit)
{
	return unit < n->vol->upcase_len ? get_le16(&n->vol->upcase[unit]) : unit;
}

int prep_ntfs_name_collate(const struct prep_ntfs *n, const struct prep_ntfs_name *a,
			   const struct prep_ntfs_name *b)
{
	const size_t len = a->len < b->len ? a->len : b->len;
	int exact = 0;

	for (size_t i = 0; i < len; i++) {
		const uint16_t x = get_le16(a->text + 2 * i), y = get_le16(b->text + 2 * i);

		if (x != y) {
			const uint16_t ux = prep_ntfs_upcase(n, x), uy = prep_ntfs_upcase(n, y);

			if (ux != uy)
				return ux < uy ? -1 : 1;
			if (exact == 0)
				exact = x < y ? -1 : 1;
		}
	}
	if (a->len != b->len)
		return a->len < b->len ? -1 : 1;
	return exact;
}

/* Tell of damage: 0 to go on without the damaged part. */
static int damaged(struct index *x, struct prep_err *err, const char *what)
{
	if (x->reader->damaged == NULL)
		return prep_fail(err, PREP_EDAMAGED, "%s: record %llu: %s", x->n->disk->name,
				 (unsigned long long)x->number, what);
	x->reader->damaged(x->reader->arg, what);
	return 0;
}

static int note_child(struct index *x, uint64_t vcn, struct prep_err *err)
{
	const uint64_t block = vcn / x->vcn_per_block;

	if (vcn % x->vcn_per_block != 0 || block >= x->blocks)
		return damaged(x, err, "an index entry leads to a block that does not exist");
	if (prep_bit_get(x->child, block))
		return damaged(x, err, "two index entries lead to one block");
	prep_bit_set(x->child, block);
	return 0;
}

/* The entries of a node: `header` is the INDEX_HEADER, with `len` bytes from there. */
static int read_node(struct index *x, const uint8_t *header, size_t len, struct prep_err *err)
{
	struct prep_ntfs_name name, last = { .len = 0 };
	size_t at, end, step;
	unsigned flags;

	if (len < 16)
		return damaged(x, err, "an index node is damaged");
	at = get_le32(header);
	end = get_le32(header + 4);
	if (at < 16 || at % 8 != 0 || end > len)
		return damaged(x, err, "an index node is damaged");
	for (;; at += step) {
		if (at > end || end - at < 16)
			return damaged(x, err, "an index node has no end");
		step = get_le16(header + at + 8);
		flags = get_le16(header + at + 12);
		if (step < 16 || step % 8 != 0 || step > end - at ||
		    ((flags & ENTRY_HAS_CHILD) && step < 24))
			return damaged(x, err, "an index entry is damaged");
		if ((flags & ENTRY_HAS_CHILD) &&
		    note_child(x, get_le64(header + at + step - 8), err) < 0)
			return -1;
		if (flags & ENTRY_IS_LAST)
			return 0;
		if (get_le16(header + at + 10) > step - 16 ||
		    !prep_ntfs_name_decode(header + at + 16, get_le16(header + at + 10), &name))
			return damaged(x, err, "an index entry is damaged");
		if (last.len > 0 && prep_ntfs_name_collate(x->n, &last, &name) >= 0 &&
		    damaged(x, err, "the entries of an index node are out of order") < 0)
			return -1;
		last = name;
		if (x->reader->entry(x->reader->arg, &name, get_le64(header + at), err) < 0)
			return -1;
	}
}

static int read_block(struct index *x, uint8_t *p, uint64_t block, struct prep_err *err)
{
	if (!prep_ntfs_fixup(p, x->block_size, "INDX"))
		return damaged(x, err, "an index block is torn");
	if (get_le64(p + 16) != block * x->vcn_per_block)
		return damaged(x, err, "an index block belongs to another place");
	/* INDEX_BLOCK, which ends in an INDEX_HEADER; the entries count from that. */
	if (!prep_ntfs_fixup_inside(p, 40, 24 + (size_t)get_le32(p + 24)))
		return damaged(x, err, "the header of an index block is damaged");
	return read_node(x, p + 24, x->block_size - 24, err);
}

static int read_blocks(struct index *x, const struct prep_ntfs_runs *runs, const uint8_t *bitmap,
		       struct prep_err *err)
{
	const uint64_t step = CHUNK / x->block_size;
	uint8_t *buf = malloc(CHUNK);
	uint64_t from, to;

	if (buf == NULL)
		return prep_fail_nomem(err);
	for (from = 0; (from = prep_bit_next(bitmap, from, x->blocks, true)) < x->blocks; from = to) {
		to = prep_bit_next(bitmap, from, prep_min(x->blocks, from + step), false);
		if (prep_ntfs_runs_read(x->n, runs, from * x->block_size, buf,
					(size_t)(to - from) * x->block_size, err) < 0)
			goto fail;
		for (uint64_t i = from; i < to; i++)
			if (read_block(x, buf + (size_t)(i - from) * x->block_size, i, err) < 0)
				goto fail;
	}
	free(buf);
	return 0;
fail:
	free(buf);
	return -1;
}

/* $I30's bitmap, padded for x->blocks bits and whole words. */
static int read_bitmap(struct index *x, const struct prep_ntfs_file *dir, uint8_t **ret,
		       struct prep_err *err)
{
	const size_t len = (size_t)(x->blocks + 63) / 64 * 8;
	struct prep_ntfs_runs runs;
	struct prep_ntfs_attr a;
	int r;

	*ret = calloc(1, len + 8);
	if (*ret == NULL)
		return prep_fail_nomem(err);
	r = prep_ntfs_file_find(x->n, dir, PREP_NTFS_ATTR_BITMAP, "$I30", &a, &runs, err);
	if (r < 0)
		return -1;
	if (r == 0 || (a.resident ? a.value_len : a.size) < (x->blocks + 7) / 8) {
		prep_ntfs_runs_clear(&runs);
		return damaged(x, err, "its index has no bitmap, or too short a one");
	}
	if (a.resident)
		memcpy(*ret, a.value, (size_t)(x->blocks + 7) / 8);
	else
		r = prep_ntfs_runs_read(x->n, &runs, 0, *ret, (size_t)(x->blocks + 7) / 8, err);
	prep_ntfs_runs_clear(&runs);
	return r < 0 ? -1 : 0;
}

/* Every block in use must be led to, and every block that is led to must be in use. */
static int check_children(struct index *x, const uint8_t *bitmap, struct prep_err *err)
{
	for (uint64_t i = 0; i < x->blocks; i++) {
		if (prep_bit_get(bitmap, i) == prep_bit_get(x->child, i))
			continue;
		if (damaged(x, err, prep_bit_get(bitmap, i) ? "no index entry leads to an index block"
							    : "an index entry leads to a free block") < 0)
			return -1;
	}
	return 0;
}

/* An index has no holes: else it could have as many blocks as its size claims. */
static bool all_clusters(const struct prep_ntfs *n, const struct prep_ntfs_runs *runs)
{
	for (size_t i = 0; i < runs->n; i++)
		if (runs->run[i].lcn == PREP_NTFS_HOLE)
			return false;
	return runs->end <= n->clusters && prep_ntfs_runs_inside(n, runs);
}

static int read_index(struct index *x, const struct prep_ntfs_file *dir, const uint8_t *root,
		      size_t root_len, struct prep_err *err)
{
	struct prep_ntfs_runs runs;
	struct prep_ntfs_attr a;
	uint8_t *bitmap = NULL;
	int r;

	r = prep_ntfs_file_find(x->n, dir, PREP_NTFS_ATTR_INDEX, "$I30", &a, &runs, err);
	if (r < 0)
		return -1;
	if (r > 0 && (a.resident || runs.end << x->n->cluster_bits < a.size)) {
		prep_ntfs_runs_clear(&runs);
		return damaged(x, err, "its index is damaged");
	}
	if (r > 0 && !all_clusters(x->n, &runs)) {
		prep_ntfs_runs_clear(&runs);
		return damaged(x, err, "its index has holes, or lies outside the volume");
	}
	x->blocks = r > 0 ? prep_min(a.size, a.initialized) / x->block_size : 0;
	x->child = calloc(1, (size_t)x->blocks / 8 + 1);
	if (x->child == NULL) {
		r = prep_fail_nomem(err);
		goto out;
	}
	r = read_node(x, root + 16, root_len - 16, err);
	if (r < 0 || x->blocks == 0)
		goto out;
	r = read_bitmap(x, dir, &bitmap, err);
	if (r == 0)
		r = read_blocks(x, &runs, bitmap, err);
	if (r == 0)
		r = check_children(x, bitmap, err);
out:
	prep_ntfs_runs_clear(&runs);
	free(bitmap);
	free(x->child);
	return r;
}

int prep_ntfs_dir_read(struct prep_ntfs *n, const struct prep_ntfs_file *dir,
		       const struct prep_ntfs_dir_reader *reader, struct prep_err *err)
{
	struct index x = { .n = n, .reader = reader, .number = dir->record[0].number };
	struct prep_ntfs_runs runs;
	struct prep_ntfs_attr root;
	int r;

	r = prep_ntfs_file_find(n, dir, PREP_NTFS_ATTR_INDEX_ROOT, "$I30", &root, &runs, err);
	if (r < 0)
		return -1;
	prep_ntfs_runs_clear(&runs);
	if (r == 0 || !root.resident || root.value_len < 32 || get_le32(root.value) != PREP_NTFS_ATTR_NAME)
		return damaged(&x, err, "it is a directory without an index of names");
	x.block_size = get_le32(root.value + 8);
	if (!prep_is_pow2(x.block_size) || x.block_size < 512 || x.block_size > 65536)
		return damaged(&x, err, "its index has an impossible block size");
	/* VCNs of blocks count clusters, or sectors of 512 where a cluster is larger than a block. */
	x.vcn_per_block = x.block_size / (n->cluster_size <= x.block_size ? n->cluster_size : 512);
	return read_index(&x, dir, root.value, root.value_len, err);
}
