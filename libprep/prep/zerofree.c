/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/zerofree.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/overlay.h"
#include "libprep/prep/gate.h"

#define LOGFILE_ID 2 /* $LogFile's record */
#define BITMAP_ID 6  /* $Bitmap's */

struct range {
	uint64_t off, end; /* of the volume */
};

struct zerofree {
	const struct prep_volume *volume;
	struct prep_disk *overlay;
	const struct prep_zerofree *how;
	struct prep_zerofree_volume *report;
	const struct prep_progress *progress;

	struct range *slack; /* collected, then sorted: fills are cheap in ascending order */
	size_t slacks, slack_room;
};

static int fill(struct zerofree *z, uint64_t off, uint64_t len, uint8_t byte, struct prep_err *err)
{
	return prep_overlay_fill(z->overlay, z->volume->part->off + off, len, byte, err);
}

/* Account for a range that is to be zeros: what is known to be so already. */
static int count(struct zerofree *z, uint64_t off, uint64_t len, struct prep_err *err)
{
	const uint64_t end = off + len;
	struct prep_extent e;

	while (off < end) {
		if (prep_disk_extent(z->volume->slice, off, end, &e, err) < 0)
			return -1;
		if (e.kind != PREP_EXTENT_DATA)
			z->report->known_zero += e.len;
		off += e.len;
	}
	return prep_progress(z->progress, "free space", end, z->volume->slice->size, err);
}

static int stage_free(struct zerofree *z, const struct prep_fs_audit *audit,
		      const struct prep_fs_info *info, struct prep_err *err)
{
	uint64_t lcn = 0;

	for (;;) {
		uint64_t end, off, len;

		lcn = prep_bit_next(audit->free_map, lcn, audit->clusters, true);
		if (lcn == audit->clusters)
			return 0;
		end = prep_bit_next(audit->free_map, lcn, audit->clusters, false);
		off = info->clusters_off + lcn * info->cluster_size;
		len = (end - lcn) * info->cluster_size;
		if (count(z, off, len, err) < 0 || fill(z, off, len, 0, err) < 0)
			return -1;
		z->report->free += len;
		lcn = end;
	}
}

/* Note the clusters' bytes of s from `from` on as slack. */
static int collect_slack(struct zerofree *z, const struct prep_fs_stream *s, uint64_t from,
			 struct prep_err *err)
{
	for (size_t i = s->runs; i-- > 0;) {
		const struct prep_fs_run *run = &s->run[i];
		const uint64_t skip = run->at < from ? from - run->at : 0;

		if (skip >= run->len)
			return 0; /* runs ascend: those before end earlier still */
		if (run->off == PREP_FS_HOLE)
			continue;
		if (z->slacks == z->slack_room) {
			const size_t room = z->slack_room != 0 ? z->slack_room * 2 : 1024;
			struct range *more = reallocarray(z->slack, room, sizeof *more);

			if (more == NULL)
				return prep_fail_nomem(err);
			z->slack = more;
			z->slack_room = room;
		}
		z->slack[z->slacks++] = (struct range){ run->off + skip, run->off + run->len };
	}
	return 0;
}

/* $Bitmap says what is free: all depends on it. $LogFile is emptied on demand. */
static int visit_system(struct zerofree *z, const struct prep_fs_stream *s, struct prep_err *err)
{
	const bool log = s->id == LOGFILE_ID && z->how->log;

	if ((!log && s->id != BITMAP_ID) || s->name[0] != '\0')
		return 0;
	for (size_t i = 0; i < s->runs; i++) {
		const struct prep_fs_run *r = &s->run[i];

		if (r->off == PREP_FS_HOLE)
			continue;
		if (log ? fill(z, r->off, r->len, 0xFF, err) < 0
			: prep_overlay_guard(z->overlay, z->volume->part->off + r->off, r->len, err) < 0)
			return -1;
		z->report->log += log ? r->len : 0;
	}
	return 0;
}

static int visit_stream(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct zerofree *z = arg;

	if (s->system)
		return visit_system(z, s, err);
	/* Compressed and encrypted streams keep other bytes there than the data's own offsets tell. */
	if (z->how->keep_slack || s->compressed || s->encrypted)
		return 0;
	/* A stream whose numbers contradict each other is left alone. */
	if (s->initialized > s->size || s->size > s->allocated)
		return 0;
	return collect_slack(z, s, s->initialized, err);
}

static int compare_ranges(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

/* What says which clusters are free, where no stream shows it: FAT's table, exFAT's bitmap. */
static int guard_marks(struct zerofree *z, struct prep_fs *fs, struct prep_err *err)
{
	const struct prep_fs_run *run;
	const size_t n = prep_fs_marks(fs, &run);

	for (size_t i = 0; i < n; i++)
		if (prep_overlay_guard(z->overlay, z->volume->part->off + run[i].off, run[i].len, err) < 0)
			return -1;
	return 0;
}

static int stage_streams(struct zerofree *z, struct prep_fs *fs, struct prep_err *err)
{
	if (prep_fs_walk(fs, PREP_FS_WALK_DATA, visit_stream, z, err) < 0)
		return -1;
	if (z->slacks == 0)
		return 0;
	qsort(z->slack, z->slacks, sizeof *z->slack, compare_ranges);
	for (size_t i = 0; i < z->slacks; i++) {
		const uint64_t len = z->slack[i].end - z->slack[i].off;

		if (count(z, z->slack[i].off, len, err) < 0 ||
		    prep_overlay_fill_exact(z->overlay, z->volume->part->off + z->slack[i].off, len, 0, err) < 0)
			return -1;
		z->report->slack += len;
	}
	return 0;
}

static int zerofree_volume(struct zerofree *z, struct prep_err *err)
{
	struct prep_fs_audit audit;
	struct prep_fs *fs;
	int r;

	if (prep_gate_open(z->volume, PREP_GATE_CLUSTERS, &fs, &audit, z->progress, err) < 0)
		return -1;
	z->report->used_unclaimed = audit.used_unclaimed;
	r = guard_marks(z, fs, err);
	if (r == 0)
		r = stage_free(z, &audit, prep_fs_info(fs), err);
	if (r == 0)
		r = stage_streams(z, fs, err);
	z->report->done = r == 0;
	free(z->slack);
	prep_fs_audit_clear(&audit);
	if (prep_fs_close(fs, err) < 0)
		r = -1;
	return r;
}

int prep_zerofree(const struct prep_volumes *volumes, struct prep_disk *overlay,
		  const struct prep_zerofree *how, struct prep_zerofree_report *report,
		  const struct prep_progress *progress, struct prep_err *err)
{
	*report = (struct prep_zerofree_report){ .n = 0 };
	if (prep_volumes_changeable(volumes, how->volume, err) < 0)
		return -1;
	for (unsigned i = 0; i < volumes->n; i++) {
		const struct prep_volume *v = &volumes->volume[i];
		struct prep_zerofree_volume *r = &report->volume[report->n];
		struct zerofree z = { v, overlay, how, r, progress, NULL, 0, 0 };

		if (how->volume != 0 && v->part->number != how->volume)
			continue;
		*r = (struct prep_zerofree_volume){ .number = v->part->number, .kind = v->kind, .size = v->part->len };
		report->n++;
		if (prep_fs_known(v->kind) && zerofree_volume(&z, err) < 0)
			return -1;
		if (!prep_fs_known(v->kind) && how->volume != 0)
			return prep_fail(err, PREP_EREFUSED, "%s: %s: its free space is not known", v->slice->name,
					 prep_fs_kind_name(v->kind));
	}
	return 0;
}
