/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Moving clusters: the runs of one attribute and $Bitmap, by libntfs-3g's own
 * run lists and mapping pairs.
 */
#include "libprep/volume/ntfs_internal.h"

#include <stdlib.h>

#include <ntfs-3g/bitmap.h>
#include <ntfs-3g/inode.h>
#include <ntfs-3g/runlist.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/utf16.h"

/* The clusters that pieces come from, to be freed once the runs no longer name them. */
struct vacated {
	uint64_t lcn, len;
};

/* A run list under construction. libntfs-3g frees it, and takes its memory to be whole 4 KiB. */
struct list {
	runlist_element *rl;
	size_t n, room;
};

static int append(struct list *l, VCN vcn, LCN lcn, s64 length, struct prep_err *err)
{
	runlist_element *last = l->n > 0 ? &l->rl[l->n - 1] : NULL;

	if (last != NULL && length > 0 &&
	    (lcn >= 0 ? last->lcn >= 0 && last->lcn + last->length == lcn : last->lcn == lcn)) {
		last->length += length;
		return 0;
	}
	if (l->n == l->room) {
		const size_t bytes = (size_t)prep_round_up((l->room * 2 + 16) * sizeof *l->rl, 4096);
		runlist_element *more = realloc(l->rl, bytes);

		if (more == NULL)
			return prep_fail_nomem(err);
		l->rl = more;
		l->room = bytes / sizeof *l->rl;
	}
	l->rl[l->n++] = (runlist_element){ .vcn = vcn, .lcn = lcn, .length = length };
	return 0;
}

/*
 * The run list with the pieces at their targets. 1 and *ret, *old; 0 where a
 * piece is not all in clusters; the caller frees both.
 */
static int rewrite(const struct prep_ntfs *n, const runlist_element *rl, const struct prep_fs_move *m,
		   struct list *ret, struct vacated **old, size_t *olds, struct prep_err *err)
{
	const unsigned bits = n->cluster_bits;
	size_t i = 0, room = 0;

	for (; rl->length > 0; rl++) {
		VCN vcn = rl->vcn;
		const VCN end = rl->vcn + rl->length;

		while (vcn < end) {
			const VCN from = i < m->pieces ? (VCN)(m->piece[i].at >> bits) : end;
			const VCN to = i < m->pieces ? from + (VCN)(m->piece[i].len >> bits) : end;
			const LCN lcn = rl->lcn >= 0 ? rl->lcn + (vcn - rl->vcn) : rl->lcn;
			s64 len;

			if (vcn < from) {
				len = (from < end ? from : end) - vcn;
				if (append(ret, vcn, lcn, len, err) < 0)
					return -1;
				vcn += len;
				continue;
			}
			if (rl->lcn < 0)
				return 0;
			len = (to < end ? to : end) - vcn;
			if (append(ret, vcn, (LCN)(m->piece[i].to >> bits) + (vcn - from), len, err) < 0)
				return -1;
			if (*olds == room) {
				struct vacated *more = reallocarray(*old, room * 2 + 16, sizeof **old);

				if (more == NULL)
					return prep_fail_nomem(err);
				*old = more;
				room = room * 2 + 16;
			}
			(*old)[(*olds)++] = (struct vacated){ (uint64_t)lcn, (uint64_t)len };
			vcn += len;
			if (vcn == to)
				i++;
		}
	}
	if (i < m->pieces)
		return 0;
	return append(ret, rl->vcn, LCN_ENOENT, 0, err) < 0 ? -1 : 1;
}

/* Whether clusters [lcn, lcn+len) are free in $Bitmap: 1, 0, or -1. */
static int is_free(struct prep_ntfs *n, uint64_t lcn, uint64_t len, struct prep_err *err)
{
	const uint64_t first = lcn / 8, bytes = (lcn + len + 7) / 8 - first;
	uint8_t *bits;
	int r;

	if (lcn >= n->clusters || len > n->clusters - lcn)
		return 0;
	/* prep_bit_next looks at whole words. */
	bits = calloc(1, (size_t)bytes + 8);
	if (bits == NULL)
		return prep_fail_nomem(err);
	if (ntfs_attr_pread(n->vol->lcnbmp_na, (s64)first, (s64)bytes, bits) != (s64)bytes)
		r = prep_ntfs_fail(n, err, "cannot read $Bitmap");
	else
		r = prep_bit_next(bits, lcn - first * 8, lcn - first * 8 + len, true) == lcn - first * 8 + len;
	free(bits);
	return r;
}

static int targets_free(struct prep_ntfs *n, struct prep_fs_move *m, struct prep_err *err)
{
	for (size_t i = 0; i < m->pieces; i++) {
		const int r = is_free(n, m->piece[i].to >> n->cluster_bits, m->piece[i].len >> n->cluster_bits, err);

		if (r <= 0) {
			m->taken = i;
			return r;
		}
	}
	return 1;
}

/* Put the new runs in force: take the targets, write the mapping pairs, give the old clusters back. */
static int enforce(struct prep_ntfs *n, ntfs_attr *na, const struct prep_fs_move *m, struct list *l,
		   const struct vacated *old, size_t olds, struct prep_err *err)
{
	const unsigned bits = n->cluster_bits;

	for (size_t i = 0; i < m->pieces; i++)
		if (ntfs_bitmap_set_run(n->vol->lcnbmp_na, (s64)(m->piece[i].to >> bits),
					(s64)(m->piece[i].len >> bits)) != 0)
			return prep_ntfs_fail(n, err, "cannot mark clusters used");
	free(na->rl);
	na->rl = l->rl;
	l->rl = NULL;
	NAttrSetRunlistDirty(na);
	if (ntfs_attr_update_mapping_pairs(na, 0) != 0)
		return prep_ntfs_fail(n, err, "cannot write the new runs of a stream");
	for (size_t i = 0; i < olds; i++)
		if (ntfs_bitmap_clear_run(n->vol->lcnbmp_na, (s64)old[i].lcn, (s64)old[i].len) != 0)
			return prep_ntfs_fail(n, err, "cannot mark clusters free");
	return 1;
}

static int move_attr(struct prep_ntfs *n, ntfs_attr *na, struct prep_fs_move *m,
		     struct prep_err *err)
{
	struct list l = { NULL, 0, 0 };
	struct vacated *old = NULL;
	size_t olds = 0;
	int r;

	if (!NAttrNonResident(na))
		return 0;
	if (ntfs_attr_map_whole_runlist(na) != 0)
		return prep_ntfs_fail(n, err, "cannot read the runs of a stream");
	r = rewrite(n, na->rl, m, &l, &old, &olds, err);
	if (r > 0)
		r = targets_free(n, m, err);
	if (r > 0)
		r = enforce(n, na, m, &l, old, olds, err);
	free(l.rl);
	free(old);
	return r;
}

int prep_ntfs_move(struct prep_fs *fs, struct prep_fs_move *m, struct prep_err *err)
{
	struct prep_ntfs *n = (struct prep_ntfs *)fs;
	ntfschar name[256] = { 0 };
	const int64_t units = prep_utf8_to_utf16(m->name, strlen(m->name), name, 255);
	ntfs_inode *ni;
	ntfs_attr *na;
	int r;

	if (!n->write)
		return prep_fail(err, PREP_EREFUSED, "%s: opened for reading only", n->disk->name);
	/* libntfs-3g keeps these mapped itself, or finds its way by them. */
	if (units < 0 || m->id < PREP_NTFS_FIRST_USER || m->type == PREP_NTFS_ATTR_LIST)
		return 0;
	for (int64_t i = 0; i < units; i++)
		name[i] = htole16(name[i]);
	ni = ntfs_inode_open(n->vol, (MFT_REF)m->id);
	if (ni == NULL)
		return prep_ntfs_fail(n, err, "cannot open a file record");
	na = ntfs_attr_open(ni, (ATTR_TYPES)htole32(m->type), name, (u32)units);
	if (na == NULL) {
		ntfs_inode_close(ni);
		return 0; /* a name that does not survive UTF-8 */
	}
	r = move_attr(n, na, m, err);
	ntfs_attr_close(na);
	if (ntfs_inode_close(ni) != 0 && r >= 0)
		r = prep_ntfs_fail(n, err, "cannot write a file record");
	if (r >= 0 && n->device.err.code != PREP_DONE)
		r = prep_fail(err, n->device.err.code, "%s", n->device.err.msg);
	return r;
}
