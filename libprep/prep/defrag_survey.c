/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/defrag_survey.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/prep/scan.h"

/* NTFS compresses so many clusters at a time, of 4 KiB at most. */
#define UNIT 16
#define COMPRESSED_CLUSTER_MAX 4096

/* An entry's id is a reference: the record's number is its lower 48 bits. */
#define FILE_OF(entry) ((entry)->id & 0xffffffffffffu)

/*
 * What boot code finds by clusters that it was told, or reads with a driver that
 * knows simple files only; the resume loader reads hiberfil.sys so.
 */
static int find_fixed(struct prep_defrag_survey *s, struct prep_fs *fs, struct prep_err *err)
{
	static const char *const paths[] = { "/bootmgr", "/BOOTNXT", "/ntldr", "/NTDETECT.COM", "/hiberfil.sys", "/ldlinux.sys" };
	struct prep_fs_list list = { .n = 0 };
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof paths / sizeof paths[0]; i++)
		r = prep_fs_find(fs, paths[i], false, &list, err);
	for (size_t i = 0; r == 0 && i < list.n && s->n_fixed < PREP_DEFRAG_FIXED_FILES; i++)
		s->fixed[s->n_fixed++] = FILE_OF(&list.entry[i]);
	prep_fs_list_clear(&list);
	return r;
}

bool prep_defrag_survey_movable(const struct prep_defrag_survey *s, const struct prep_fs_stream *stream)
{
	bool holes = false;

	if (stream->fixed)
		return false;
	for (size_t i = 0; i < s->n_fixed; i++)
		if (stream->id == s->fixed[i])
			return false;
	if (stream->compressed)
		return s->layout.cluster_size <= COMPRESSED_CLUSTER_MAX;
	for (size_t i = 0; i < stream->runs && !holes; i++)
		holes = stream->run[i].off == PREP_FS_HOLE;
	/* libntfs-3g sets the sparse flag by the holes, whenever it writes the runs. */
	return stream->sparse == holes;
}

uint64_t prep_defrag_survey_lcn(const struct prep_defrag_survey *s, const struct prep_fs_stream *stream,
				size_t *run, uint64_t vcn)
{
	const uint64_t cs = s->layout.cluster_size;

	while (*run < stream->runs && (stream->run[*run].at + stream->run[*run].len) / cs <= vcn)
		++*run;
	if (*run == stream->runs || stream->run[*run].at / cs > vcn || stream->run[*run].off == PREP_FS_HOLE)
		return UINT64_MAX;
	return stream->run[*run].off / cs + (vcn - stream->run[*run].at / cs);
}

/* Where the clusters without a hole end that begin at vcn of run i, at most at `end`. */
static uint64_t clusters_end(const struct prep_fs_stream *stream, size_t i, uint64_t cs, uint64_t vcn,
			     uint64_t end)
{
	for (; vcn < end && i < stream->runs && stream->run[i].off != PREP_FS_HOLE && stream->run[i].at / cs <= vcn; i++)
		vcn = (stream->run[i].at + stream->run[i].len) / cs;
	return prep_min(vcn, end);
}

bool prep_defrag_survey_part(const struct prep_defrag_survey *s, const struct prep_fs_stream *stream, size_t *run,
			     uint64_t vcn, struct prep_defrag_survey_part *ret)
{
	const uint64_t cs = s->layout.cluster_size;
	const struct prep_fs_run *r;
	uint64_t end, unit_end;

	for (;; ++*run) {
		if (*run == stream->runs)
			return false;
		r = &stream->run[*run];
		if (r->off != PREP_FS_HOLE && (r->at + r->len) / cs > vcn)
			break;
	}
	vcn = prep_max(vcn, r->at / cs);
	if (!stream->compressed) {
		*ret = (struct prep_defrag_survey_part){ .vcn = vcn, .len = (r->at + r->len) / cs - vcn, .run = *run };
		return true;
	}
	/* The compressed data, then a hole to the unit's end. */
	unit_end = prep_round_down(vcn, UNIT) + UNIT;
	end = clusters_end(stream, *run, cs, vcn, unit_end);
	*ret = (struct prep_defrag_survey_part){ vcn, end - vcn, *run, true, vcn % UNIT != 0 };
	for (size_t i = *run; i < stream->runs && stream->run[i].at / cs < unit_end; i++)
		ret->fixed |= stream->run[i].off != PREP_FS_HOLE && end < unit_end &&
			      (stream->run[i].at + stream->run[i].len) / cs > end;
	return true;
}

static void set_movable(struct prep_defrag_survey *s, const struct prep_fs_stream *stream, size_t run,
			const struct prep_defrag_survey_part *part)
{
	const uint64_t cs = s->layout.cluster_size;
	uint64_t vcn = part->vcn, len;

	for (; vcn < part->vcn + part->len; vcn += len) {
		const uint64_t lcn = prep_defrag_survey_lcn(s, stream, &run, vcn);

		len = prep_min(part->vcn + part->len, (stream->run[run].at + stream->run[run].len) / cs) - vcn;
		prep_bit_fill(s->movable, lcn, len, true);
	}
}

static int look_at_stream(void *arg, const struct prep_fs_stream *stream, struct prep_err *err)
{
	struct prep_defrag_survey *s = arg;
	struct prep_defrag_survey_part part;
	size_t run = 0;

	(void)err;
	if (!prep_defrag_survey_movable(s, stream))
		return 0;
	s->units |= stream->compressed;
	for (uint64_t vcn = 0; prep_defrag_survey_part(s, stream, &run, vcn, &part); vcn = part.vcn + part.len)
		if (!part.fixed)
			set_movable(s, stream, run, &part);
	return 0;
}

/* ---- Blocks ---- */

/* The first cluster from lcn on that is used and cannot be moved, below `end`, or end. */
static uint64_t next_immovable(const struct prep_defrag_survey *s, uint64_t lcn, uint64_t end)
{
	while (lcn < end) {
		lcn = prep_bit_next(s->layout.free, lcn, end, false);
		if (lcn == end || !prep_bit_get(s->movable, lcn))
			break;
		lcn = prep_bit_next(s->movable, lcn, end, false);
	}
	return lcn;
}

static void pin_immovable(struct prep_defrag_survey *s)
{
	struct prep_defrag_layout *l = &s->layout;
	uint64_t lcn = 0;

	while ((lcn = next_immovable(s, lcn, l->clusters)) < l->clusters) {
		prep_bit_set(l->pinned, prep_defrag_layout_first(l, lcn));
		prep_bit_set(l->pinned, prep_defrag_layout_last(l, lcn));
		/* On to the first cluster that is in another block. */
		lcn = prep_max(lcn + 1, ((prep_defrag_layout_last(l, lcn) + l->first_block + 1) * l->block_size - l->start) /
						l->cluster_size);
	}
}

/* Whether [off, end) of the disk holds anything but zeros: 1, 0, or -1. */
static int holds_data(struct prep_disk *disk, uint64_t off, uint64_t end, struct prep_err *err)
{
	uint64_t nonzero = 0;

	for (uint64_t len; off < end && nonzero == 0; off += len) {
		len = prep_min(PREP_MIB, end - off);
		if (prep_scan_nonzero(disk, off, len, &nonzero, err) < 0)
			return -1;
	}
	return nonzero > 0;
}

/* Pin the blocks at both ends that hold something outside of the clusters, as the backup boot sector. */
static int pin_ends(struct prep_defrag_survey *s, struct prep_disk *disk, struct prep_err *err)
{
	struct prep_defrag_layout *l = &s->layout;
	const uint64_t first = l->first_block * l->block_size;
	const uint64_t last = (l->first_block + l->blocks - 1) * l->block_size;
	const uint64_t end = l->start + l->clusters * l->cluster_size;
	const int before = holds_data(disk, first, l->start, err);
	const int behind = before < 0 ? -1 : holds_data(disk, end, prep_min(last + l->block_size, disk->size), err);

	if (behind < 0)
		return -1;
	if (before > 0)
		prep_bit_set(l->pinned, 0);
	if (behind > 0)
		prep_bit_set(l->pinned, l->blocks - 1);
	return 0;
}

/* Mark the blocks (in `live`, one bit each) where the disk may hold data in the volume's clusters. */
static int find_live(const struct prep_defrag_layout *l, struct prep_disk *disk, uint8_t *live, struct prep_err *err)
{
	const uint64_t end = l->start + l->clusters * l->cluster_size;
	struct prep_extent e;

	for (uint64_t off = l->start, next; off < end; off = next) {
		if (prep_disk_extent(disk, off, end, &e, err) < 0)
			return -1;
		next = off + e.len;
		if (e.kind != PREP_EXTENT_DATA)
			continue;
		/* What else its last block holds does not matter. */
		next = (next + l->block_size - 1) / l->block_size * l->block_size;
		prep_bit_fill(live, off / l->block_size - l->first_block, next / l->block_size - off / l->block_size, true);
	}
	return 0;
}

/*
 * Files may have clusters in blocks that are not in the image at all, because
 * nothing was ever written there: a new page file. Such blocks are dropped as they
 * are, so they need not be emptied, and nothing should be moved into them.
 */
static int find_idle(struct prep_defrag_survey *s, struct prep_disk *disk, struct prep_err *err)
{
	const struct prep_defrag_layout *l = &s->layout;
	const uint64_t bytes = l->blocks / 8 + 9;
	uint8_t *live = calloc((size_t)bytes, 1);

	if (live == NULL)
		return prep_fail_nomem(err);
	if (find_live(l, disk, live, err) < 0) {
		free(live);
		return -1;
	}
	for (uint64_t i = 0; i < bytes; i++)
		live[i] |= l->pinned[i];
	memcpy(s->idle, l->free, (size_t)(l->clusters + 7) / 8);
	for (uint64_t lcn = 0, end; lcn < l->clusters; lcn = end) {
		end = prep_defrag_layout_piece(l, lcn);
		if (!prep_bit_get(live, prep_defrag_layout_first(l, lcn)) && !prep_bit_get(live, prep_defrag_layout_last(l, lcn)))
			prep_bit_fill(s->idle, lcn, end - lcn, true);
	}
	free(live);
	return 0;
}

int prep_defrag_survey(const struct prep_volume *v, struct prep_fs *fs, struct prep_disk *disk,
		       const struct prep_fs_audit *audit, uint64_t block_size, struct prep_defrag_survey *ret,
		       struct prep_err *err)
{
	const uint64_t cs = prep_fs_info(fs)->cluster_size;
	struct prep_defrag_layout *l = &ret->layout;
	uint64_t end;

	*ret = (struct prep_defrag_survey){ .n_fixed = 0 };
	if (cs > block_size)
		return prep_fail(err, PREP_EREFUSED, "%s: clusters of %llu bytes are larger than a block", v->slice->name,
				 (unsigned long long)cs);
	*l = (struct prep_defrag_layout){
		.start = v->part->off, .cluster_size = cs, .clusters = audit->clusters, .block_size = block_size,
		.free = audit->free_map, .first_block = v->part->off / block_size,
	};
	end = l->start + l->clusters * cs;
	l->blocks = (end + block_size - 1) / block_size - l->first_block;
	l->pinned = calloc((size_t)(l->blocks / 8 + 9), 1);
	ret->movable = calloc((size_t)(l->clusters / 8 + 9), 1);
	ret->idle = calloc((size_t)(l->clusters / 8 + 9), 1);
	l->idle = ret->idle;
	if (l->pinned == NULL || ret->movable == NULL || ret->idle == NULL)
		return prep_fail_nomem(err);
	if (find_fixed(ret, fs, err) < 0 || prep_fs_walk(fs, 0, look_at_stream, ret, err) < 0)
		return -1;
	pin_immovable(ret);
	return pin_ends(ret, disk, err) < 0 || find_idle(ret, disk, err) < 0 ? -1 : 0;
}

void prep_defrag_survey_clear(struct prep_defrag_survey *s)
{
	free(s->layout.pinned);
	free(s->movable);
	free(s->idle);
	*s = (struct prep_defrag_survey){ .n_fixed = 0 };
}
