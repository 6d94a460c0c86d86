/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Moving clusters: the runs of one attribute by libntfs-3g's own run lists and
 * mapping pairs, $Bitmap by ourselves.
 *
 * While moves are made, $Bitmap as libntfs-3g sees it (the overlay's) has every
 * cluster marked used. n->held knows those that are free to be: targets are
 * taken out of it, what was left is put in, and at the end $Bitmap gets what
 * remains. So libntfs-3g takes no target for itself, and nothing goes where
 * something was left in the same run.
 */
#include "libprep/volume/ntfs_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ntfs-3g/bitmap.h>
#include <ntfs-3g/inode.h>
#include <ntfs-3g/runlist.h>

#include "libprep/base/bytes.h"
#include "libprep/base/utf16.h"

#define BITMAP_STEP (64 * 1024u)

/*
 * What one run takes in mapping pairs at most on volumes of up to 2^39
 * clusters: the head, a length and a distance with its sign. So much of a
 * record may be left unused, because the next run does not fit.
 */
#define PAIR_BYTES 11u
/* An entry of an attribute list with a short name. */
#define LIST_ENTRY_BYTES 48u
/* libntfs-3g lengthens $MFT by so many records at a time. */
#define MFT_STEP 16u

/* A run list under construction. libntfs-3g frees it, and takes its memory to be whole 4 KiB. */
struct list {
	runlist_element *rl;
	size_t n, room;
};

/* Clusters that pieces come from, and where they go. */
struct shift {
	uint64_t from, to, len;
};

struct shifts {
	struct shift *shift;
	size_t n, room;
};

static int append(struct list *l, VCN vcn, LCN lcn, s64 length, struct prep_err *err)
{
	runlist_element *last = l->n > 0 ? &l->rl[l->n - 1] : NULL;

	/* Holes stay as they are: in compressed streams they end units. */
	if (last != NULL && length > 0 && lcn >= 0 && last->lcn >= 0 && last->lcn + last->length == lcn) {
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

static int note_shift(struct shifts *s, uint64_t from, uint64_t to, uint64_t len, struct prep_err *err)
{
	if (s->n == s->room) {
		struct shift *more = reallocarray(s->shift, s->room * 2 + 16, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		s->shift = more;
		s->room = s->room * 2 + 16;
	}
	s->shift[s->n++] = (struct shift){ from, to, len };
	return 0;
}

/* What is wrong with a file's record, and which it is. */
static int fail_at(struct prep_ntfs *n, uint64_t id, struct prep_err *err, const char *what)
{
	const int code = errno;
	char text[96];

	snprintf(text, sizeof text, "record %llu: %s", (unsigned long long)id, what);
	errno = code;
	return prep_ntfs_fail(n, err, text);
}

/* Add the runs of the one of its records that begins at vcn to the list: the cluster behind them, or -1. */
static VCN add_extent(struct prep_ntfs *n, ntfs_attr *na, ntfs_attr_search_ctx *ctx, VCN vcn, struct list *l,
		      struct prep_err *err)
{
	runlist_element *part;
	VCN end = -1;

	if (ntfs_attr_lookup(na->type, na->name, na->name_len, CASE_SENSITIVE, vcn, NULL, 0, ctx) != 0 ||
	    (VCN)le64toh((uint64_t)ctx->attr->lowest_vcn) != vcn)
		return -1;
	part = ntfs_mapping_pairs_decompress(n->vol, ctx->attr, NULL);
	if (part == NULL)
		return -1;
	for (const runlist_element *e = part; e->length > 0; e++) {
		/* Before and behind its own stands what is another record's. */
		if (e->lcn == LCN_RL_NOT_MAPPED)
			continue;
		if (append(l, e->vcn, e->lcn, e->length, err) < 0) {
			end = -1;
			break;
		}
		end = e->vcn + e->length;
	}
	free(part);
	return end;
}

/*
 * Have libntfs-3g know all runs of an attribute. ntfs_attr_map_whole_runlist() joins those of each
 * record with all before them: in a file of a million fragments that is most of the time.
 */
static int map_runs(struct prep_ntfs *n, ntfs_attr *na, uint64_t id, struct prep_err *err)
{
	const VCN clusters = na->allocated_size >> n->cluster_bits;
	ntfs_attr_search_ctx *ctx = ntfs_attr_get_search_ctx(na->ni, NULL);
	struct list l = { NULL, 0, 0 };
	VCN vcn = ctx == NULL ? -1 : 0;

	errno = ctx == NULL ? ENOMEM : EIO;
	while (vcn >= 0 && vcn < clusters)
		vcn = add_extent(n, na, ctx, vcn, &l, err);
	if (ctx != NULL)
		ntfs_attr_put_search_ctx(ctx);
	if (vcn < 0 || append(&l, vcn, LCN_ENOENT, 0, err) < 0) {
		free(l.rl);
		return fail_at(n, id, err, "cannot read the runs of a stream");
	}
	free(na->rl);
	na->rl = l.rl;
	NAttrSetFullyMapped(na);
	return 0;
}

/*
 * Whether the runs that libntfs-3g has are those that the caller saw: what is
 * moved is copied by the one and renamed by the other.
 */
static bool same_runs(const struct prep_ntfs *n, const runlist_element *rl, const struct prep_fs_stream *s)
{
	const unsigned bits = n->cluster_bits;
	size_t i = 0;

	for (; rl->length > 0; rl++) {
		VCN vcn = rl->vcn;
		s64 len;

		if (rl->lcn < 0 && rl->lcn != LCN_HOLE)
			return false;
		for (const VCN end = rl->vcn + rl->length; vcn < end; vcn += len) {
			const struct prep_fs_run *r = &s->run[i];
			LCN lcn;

			if (i == s->runs || vcn < (VCN)(r->at >> bits))
				return false;
			lcn = r->off == PREP_FS_HOLE ? LCN_HOLE : (LCN)((r->off + ((uint64_t)vcn << bits) - r->at) >> bits);
			if (lcn != (rl->lcn == LCN_HOLE ? LCN_HOLE : rl->lcn + (vcn - rl->vcn)))
				return false;
			len = (s64)((r->at + r->len) >> bits) - vcn;
			if (len <= end - vcn)
				i++;
			else
				len = end - vcn;
		}
	}
	return i == s->runs;
}

/* The run list with the pieces at their targets: 1, or 0 where a piece is not all in clusters. */
static int rewrite(const struct prep_ntfs *n, const runlist_element *rl, const struct prep_fs_move *m,
		   struct list *ret, struct shifts *shifts, struct prep_err *err)
{
	const unsigned bits = n->cluster_bits;
	size_t i = 0;

	for (; rl->length > 0; rl++) {
		const VCN end = rl->vcn + rl->length;
		VCN vcn = rl->vcn;

		while (vcn < end) {
			const VCN from = i < m->pieces ? (VCN)(m->piece[i].at >> bits) : end;
			const VCN to = i < m->pieces ? from + (VCN)(m->piece[i].len >> bits) : end;
			const LCN lcn = rl->lcn >= 0 ? rl->lcn + (vcn - rl->vcn) : rl->lcn;
			LCN new;
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
			new = (LCN)(m->piece[i].to >> bits) + (vcn - from);
			if (append(ret, vcn, new, len, err) < 0 ||
			    note_shift(shifts, (uint64_t)lcn, (uint64_t)new, (uint64_t)len, err) < 0)
				return -1;
			vcn += len;
			if (vcn == to)
				i++;
		}
	}
	if (i < m->pieces)
		return 0;
	return append(ret, rl->vcn, LCN_ENOENT, 0, err) < 0 ? -1 : 1;
}

static bool all_held(const struct prep_ntfs *n, uint64_t lcn, uint64_t len)
{
	return lcn < n->clusters && len <= n->clusters - lcn &&
	       prep_bit_next(n->held, lcn, lcn + len, false) == lcn + len;
}

static bool targets_held(const struct prep_ntfs *n, const struct shifts *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (!all_held(n, s->shift[i].to, s->shift[i].len))
			return false;
	return true;
}

/*
 * Clusters that libntfs-3g may want at most to write a run list in place of
 * another: it fills the records that the file has again, each to within one
 * run, and makes new ones for what is more. 0: it cannot be written.
 */
static uint64_t may_want(const struct prep_ntfs *n, const ntfs_inode *ni, const runlist_element *now,
			 const runlist_element *new)
{
	const int was = ntfs_get_size_for_mapping_pairs(n->vol, now, 0, INT_MAX);
	const int is = ntfs_get_size_for_mapping_pairs(n->vol, new, 0, INT_MAX);
	const uint64_t has = (uint64_t)(ni->nr_extents > 0 ? ni->nr_extents : 0) + 1;
	uint64_t more, records, mft, list;

	if (was < 0 || is < 0)
		return 0;
	/* Of a new record a quarter at least is for runs: the rest is its header and what moved there with them. */
	more = (is > was ? (uint64_t)(is - was) : 0) + has * PAIR_BYTES;
	records = more / (n->record_size / 4) + 2;
	mft = (records + MFT_STEP) * n->record_size;
	list = records * LIST_ENTRY_BYTES;
	/* And one each for what begins in a new cluster: $MFT's bitmap, the list and $MFT itself. */
	return ((mft + list) >> n->cluster_bits) + 4;
}

/* Put the new runs in force, and note what is free now. */
static int enforce(struct prep_ntfs *n, ntfs_attr *na, uint64_t id, struct list *l, const struct shifts *s,
		   struct prep_err *err)
{
	free(na->rl);
	na->rl = l->rl;
	l->rl = NULL;
	NAttrSetRunlistDirty(na);
	if (ntfs_attr_update_mapping_pairs(na, 0) != 0)
		return fail_at(n, id, err, "cannot write the new runs of a stream");
	for (size_t i = 0; i < s->n; i++) {
		prep_bit_fill(n->held, s->shift[i].to, s->shift[i].len, false);
		prep_bit_fill(n->held, s->shift[i].from, s->shift[i].len, true);
	}
	return 1;
}

static int move_attr(struct prep_ntfs *n, ntfs_attr *na, struct prep_fs_move *m, struct prep_err *err)
{
	struct list l = { NULL, 0, 0 };
	struct shifts s = { NULL, 0, 0 };
	uint64_t want;
	int r;

	if (!NAttrNonResident(na))
		return 0;
	if (map_runs(n, na, m->stream->id, err) < 0)
		return -1;
	if (!same_runs(n, na->rl, m->stream))
		return 0;
	r = rewrite(n, na->rl, m, &l, &s, err);
	if (r > 0 && !targets_held(n, &s))
		r = 0;
	if (r > 0) {
		want = may_want(n, na->ni, na->rl, l.rl);
		if (want == 0)
			r = 0;
		else if ((uint64_t)n->vol->free_clusters < want) {
			m->lacks = want - (uint64_t)n->vol->free_clusters;
			r = 0;
		}
	}
	if (r > 0)
		r = enforce(n, na, m->stream->id, &l, &s, err);
	free(l.rl);
	free(s.shift);
	return r;
}

int prep_ntfs_move(struct prep_fs *fs, struct prep_fs_move *m, struct prep_err *err)
{
	struct prep_ntfs *n = (struct prep_ntfs *)fs;
	const struct prep_fs_stream *s = m->stream;
	ntfschar name[256] = { 0 };
	const int64_t units = prep_utf8_to_utf16(s->name, strlen(s->name), name, 255);
	ntfs_inode *ni;
	ntfs_attr *na;
	int r;

	if (n->held == NULL)
		return prep_fail(err, PREP_EFAIL, "%s: clusters are moved before the beginning", n->disk->name);
	/* libntfs-3g keeps these mapped itself, or finds its way by them. */
	if (units < 0 || s->fixed || s->id < PREP_NTFS_FIRST_USER || s->type == PREP_NTFS_ATTR_LIST)
		return 0;
	for (int64_t i = 0; i < units; i++)
		name[i] = htole16(name[i]);
	ni = ntfs_inode_open(n->vol, (MFT_REF)s->id);
	if (ni == NULL)
		return fail_at(n, s->id, err, "cannot be opened");
	na = ntfs_attr_open(ni, (ATTR_TYPES)htole32(s->type), name, (u32)units);
	if (na != NULL) {
		r = move_attr(n, na, m, err);
		ntfs_attr_close(na);
	} else {
		/* Not there, or of a kind of compression that libntfs-3g does not know. */
		r = errno == ENOENT || errno == EOPNOTSUPP ? 0 : fail_at(n, s->id, err, "cannot open a stream");
	}
	/*
	 * No size has changed, nor any time: the entries in its folders stay as they are. libntfs-3g would write
	 * them anew, and clear the length of extended attributes in them.
	 */
	NInoFileNameClearDirty(ni);
	if (ntfs_inode_close(ni) != 0 && r >= 0)
		r = fail_at(n, s->id, err, "cannot be written");
	if (r >= 0 && n->device.err.code != PREP_DONE)
		r = prep_fail(err, n->device.err.code, "%s", n->device.err.msg);
	return r;
}

/* ---- $Bitmap ---- */

/* Call fn for $Bitmap's bytes, a part at a time, and write those that it changes. */
static int edit_bitmap(struct prep_ntfs *n, void (*fn)(uint8_t *held, uint8_t *bits, size_t len),
		       struct prep_err *err)
{
	const uint64_t bytes = (n->clusters + 7) / 8;
	uint8_t *now = malloc(2 * (size_t)BITMAP_STEP), *new;
	int r = 0;

	if (now == NULL)
		return prep_fail_nomem(err);
	new = now + BITMAP_STEP;
	for (uint64_t at = 0; r == 0 && at < bytes; at += BITMAP_STEP) {
		const size_t len = (size_t)prep_min(BITMAP_STEP, bytes - at);

		if (ntfs_attr_pread(n->vol->lcnbmp_na, (s64)at, (s64)len, now) != (s64)len) {
			r = prep_ntfs_fail(n, err, "cannot read $Bitmap");
			break;
		}
		memcpy(new, now, len);
		fn(n->held + at, new, len);
		if (memcmp(now, new, len) != 0 && ntfs_attr_pwrite(n->vol->lcnbmp_na, (s64)at, (s64)len, new) != (s64)len)
			r = prep_ntfs_fail(n, err, "cannot write $Bitmap");
	}
	free(now);
	return r;
}

static void hold(uint8_t *held, uint8_t *bits, size_t len)
{
	for (size_t i = 0; i < len; i++)
		held[i] = (uint8_t)~bits[i];
	memset(bits, 0xFF, len);
}

static void release(uint8_t *held, uint8_t *bits, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bits[i] &= (uint8_t)~held[i];
}

int prep_ntfs_move_begin(struct prep_fs *fs, struct prep_err *err)
{
	struct prep_ntfs *n = (struct prep_ntfs *)fs;

	if (!n->write)
		return prep_fail(err, PREP_EREFUSED, "%s: opened for reading only", n->disk->name);
	/* prep_bit_next looks at whole words. */
	n->held = calloc((size_t)(n->clusters / 8 + 16), 1);
	if (n->held == NULL)
		return prep_fail_nomem(err);
	/* libntfs-3g counts down as it takes: so it tells what is left of the grants. */
	n->vol->free_clusters = 0;
	return edit_bitmap(n, hold, err);
}

int prep_ntfs_move_grant(struct prep_fs *fs, uint64_t lcn, uint64_t len, struct prep_err *err)
{
	struct prep_ntfs *n = (struct prep_ntfs *)fs;

	if (n->held == NULL || !all_held(n, lcn, len))
		return prep_fail(err, PREP_EFAIL, "%s: clusters that are not free cannot be granted", n->disk->name);
	prep_bit_fill(n->held, lcn, len, false);
	if (ntfs_bitmap_clear_run(n->vol->lcnbmp_na, (s64)lcn, (s64)len) != 0)
		return prep_ntfs_fail(n, err, "cannot write $Bitmap");
	n->vol->free_clusters += (s64)len;
	/* Where it has looked in vain there is something now. */
	n->vol->full_zones = 0;
	return 0;
}

int prep_ntfs_move_end(struct prep_fs *fs, struct prep_err *err)
{
	struct prep_ntfs *n = (struct prep_ntfs *)fs;
	const int r = edit_bitmap(n, release, err);

	free(n->held);
	n->held = NULL;
	return r;
}
