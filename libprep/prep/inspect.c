/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/vhd.h"
#include "libprep/prep/scan.h"

_Static_assert(PREP_INSPECT_PRESETS_MAX >= 5, "room for every preset");

/* Read the presets' matches on one volume. */
static int find_presets(const struct prep_volumes *volumes, struct prep_inspect_volume *v,
			struct prep_err *err)
{
	for (size_t i = 0; i < prep_preset_count; i++) {
		const struct prep_preset *preset = &prep_presets[i];
		const struct prep_rmfile how = {
			.volume = v->volume->part->number, .preset = &preset, .presets = 1,
		};
		struct prep_rmfile_report report;
		const int r = prep_rmfile_find(volumes, &how, &report, err);

		v->preset[i].files = report.files;
		v->preset[i].bytes = report.bytes;
		prep_rmfile_report_clear(&report);
		if (r < 0)
			return -1;
	}
	return 0;
}

/* Add up the pages of free clusters that are not zero. */
static int scan_free(struct prep_inspect_volume *v, const struct prep_progress *progress,
		     struct prep_err *err)
{
	const uint64_t cluster = v->info.cluster_size;
	uint64_t lcn = 0, end, nonzero;

	for (;; lcn = end) {
		lcn = prep_bit_next(v->audit.free_map, lcn, v->audit.clusters, true);
		if (lcn == v->audit.clusters)
			return 0;
		end = prep_bit_next(v->audit.free_map, lcn, v->audit.clusters, false);
		if (prep_scan_nonzero(v->volume->slice, v->info.clusters_off + lcn * cluster, (end - lcn) * cluster,
				      &nonzero, err) < 0 ||
		    prep_progress(progress, "free space", v->info.clusters_off + end * cluster,
				  v->volume->slice->size, err) < 0)
			return -1;
		v->free_nonzero += nonzero;
	}
}

/* What vhd-defrag would gain, where it can be told. */
static int plan_defrag(const struct prep_inspect *in, struct prep_inspect_volume *v, struct prep_fs *fs,
		       struct prep_err *err)
{
	struct prep_err e = PREP_ERR_INIT;

	if (v->volume->kind != PREP_FS_NTFS || !prep_fs_audit_records_sound(&v->audit))
		return 0;
	v->planned = prep_defrag_estimate(v->volume, fs, in->volumes->disk, &v->audit, in->block_size, &v->defrag,
					  &e) == 0;
	/* No clusters so large that no block holds one, no streams that were never looked at so closely. */
	return v->planned || e.code == PREP_EREFUSED || e.code == PREP_EDAMAGED ? 0
										 : prep_fail(err, e.code, "%s", e.msg);
}

static int inspect_fs(struct prep_inspect *in, struct prep_inspect_volume *v, struct prep_fs *fs,
		      bool quick, const struct prep_progress *progress, struct prep_err *err)
{
	v->info = *prep_fs_info(fs);
	if (prep_fs_audit(fs, &v->audit, progress, err) < 0)
		return -1;
	v->opened = true;
	v->free = v->audit.free * v->info.cluster_size;
	v->used = v->audit.used * v->info.cluster_size;
	if (!prep_fs_audit_records_sound(&v->audit) || !prep_fs_audit_clusters_sound(&v->audit)) {
		in->damaged = true;
		snprintf(v->problem, sizeof v->problem, "damaged: %s",
			 v->audit.problems.n > 0 ? v->audit.problems.text[0] : "the audit failed");
	}
	if (quick)
		return 0;
	return plan_defrag(in, v, fs, err) < 0 ? -1 : scan_free(v, progress, err);
}

static int inspect_volume(struct prep_inspect *in, struct prep_inspect_volume *v, bool quick,
			  const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_err e = PREP_ERR_INIT, ignored = PREP_ERR_INIT;
	struct prep_fs *fs;
	int r;

	if (!prep_fs_known(v->volume->kind))
		return 0;
	if (prep_fs_open(v->volume->slice, 0, &fs, &e) < 0) {
		/* One bad volume does not hide what the others hold. */
		in->damaged |= e.code == PREP_EDAMAGED;
		snprintf(v->problem, sizeof v->problem, "%.*s", (int)sizeof v->problem - 1, e.msg);
		return 0;
	}
	r = inspect_fs(in, v, fs, quick, progress, err);
	prep_fs_close(fs, &ignored);
	if (r == 0 && in->volumes->table.refusal[0] == '\0' && find_presets(in->volumes, v, &e) < 0)
		snprintf(v->problem, sizeof v->problem, "%.*s", (int)sizeof v->problem - 1, e.msg);
	return r;
}

/*
 * Whether [off, end) of the disk has free clusters, and clusters (or bytes
 * outside known file systems) in use.
 */
static void usage_of(const struct prep_inspect *in, uint64_t off, uint64_t end, bool *used, bool *free_too)
{
	uint64_t known = 0;

	*used = *free_too = false;
	for (unsigned i = 0; i < in->volumes->n; i++) {
		const struct prep_inspect_volume *v = &in->volume[i];
		const uint64_t cluster = v->info.cluster_size;
		const uint64_t start = v->volume->part->off + v->info.clusters_off;
		uint64_t from, to, first, last;

		if (!v->opened)
			continue;
		from = prep_max(off, start);
		to = prep_min(end, start + v->audit.clusters * cluster);
		if (from >= to)
			continue;
		known += to - from;
		first = (from - start) / cluster;
		last = (to - start + cluster - 1) / cluster;
		*used |= prep_bit_next(v->audit.free_map, first, last, false) < last;
		*free_too |= prep_bit_next(v->audit.free_map, first, last, true) < last;
	}
	if (known < end - off)
		*used = true;
}

/* Whether [off, end) is all zero: 1, 0, or -1. */
static int all_zero(struct prep_disk *d, uint64_t off, uint64_t end, unsigned char *buf,
		    struct prep_err *err)
{
	struct prep_extent e;

	while (off < end) {
		if (prep_disk_extent(d, off, end, &e, err) < 0)
			return -1;
		for (uint64_t n = 0, step; e.kind == PREP_EXTENT_DATA && n < e.len; n += step) {
			step = prep_min(n == 0 ? 4096 : PREP_MIB, e.len - n);
			if (prep_disk_read(d, buf, (size_t)step, off + n, err) < 0)
				return -1;
			if (!prep_is_zero(buf, (size_t)step))
				return 0;
		}
		off += e.len;
	}
	return 1;
}

static int block_state(const struct prep_inspect *in, struct prep_disk *d, uint64_t block,
		       unsigned char *buf, struct prep_err *err)
{
	const uint64_t off = block * in->block_size, end = prep_min(off + in->block_size, d->size);
	struct prep_extent e;
	bool used, free_too;
	int r;

	if (prep_disk_extent(d, off, end, &e, err) < 0)
		return -1;
	if (e.kind == PREP_EXTENT_HOLE && e.len == end - off)
		return PREP_BLOCK_ABSENT;
	r = all_zero(d, off, end, buf, err);
	if (r != 0)
		return r < 0 ? -1 : PREP_BLOCK_ZERO;
	usage_of(in, off, end, &used, &free_too);
	if (!used)
		return PREP_BLOCK_FREE;
	return free_too ? PREP_BLOCK_PARTLY : PREP_BLOCK_FULL;
}

static int inspect_blocks(struct prep_inspect *in, struct prep_disk *d,
			  const struct prep_progress *progress, struct prep_err *err)
{
	unsigned char *buf;
	int state = 0;

	in->blocks = (d->size + in->block_size - 1) / in->block_size;
	in->state = malloc((size_t)in->blocks);
	buf = malloc(PREP_MIB);
	if (in->state == NULL || buf == NULL) {
		free(buf);
		return prep_fail_nomem(err);
	}
	for (uint64_t i = 0; i < in->blocks; i++) {
		state = block_state(in, d, i, buf, err);
		if (state < 0 || prep_progress(progress, "blocks", i * in->block_size, d->size, err) < 0)
			break;
		in->state[i] = (uint8_t)state;
		in->count[state]++;
	}
	free(buf);
	return err->code == PREP_DONE ? 0 : -1;
}

int prep_inspect(struct prep_disk *d, bool quick, struct prep_inspect *ret,
		 const struct prep_progress *progress, struct prep_err *err)
{
	memset(ret, 0, sizeof *ret);
	ret->block_size = prep_vhd_block_size(d);
	if (prep_volumes_open(d, &ret->volumes, err) < 0)
		return -1;
	for (unsigned i = 0; i < ret->volumes->n; i++) {
		ret->volume[i].volume = &ret->volumes->volume[i];
		if (inspect_volume(ret, &ret->volume[i], quick, progress, err) < 0)
			goto fail;
	}
	if (!quick && inspect_blocks(ret, d, progress, err) < 0)
		goto fail;
	return 0;
fail:
	prep_inspect_clear(ret);
	return -1;
}

void prep_inspect_clear(struct prep_inspect *in)
{
	for (unsigned i = 0; in->volumes != NULL && i < in->volumes->n; i++)
		prep_fs_audit_clear(&in->volume[i].audit);
	prep_volumes_close(in->volumes);
	free(in->state);
	in->volumes = NULL;
	in->state = NULL;
}
