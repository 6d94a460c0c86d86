/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/rmfile.h"

#include <stdlib.h>

#include "libprep/disk/slice.h"
#include "libprep/prep/gate.h"

/* Add what entries [from, list->n) are to a match, and tell the caller of each. */
static int account(const struct prep_rmfile *how, unsigned volume, const struct prep_fs_list *list,
		   size_t from, struct prep_rmfile_match *m, struct prep_err *err)
{
	for (size_t i = from; i < list->n; i++) {
		const struct prep_fs_entry *e = &list->entry[i];

		if (e->system)
			return prep_fail(err, PREP_EREFUSED, "%s: a file of the file system itself: never removed",
					 e->path);
		if (e->folder)
			m->folders++;
		else
			m->files++;
		if (e->frees)
			m->bytes += e->allocated;
		if (how->found != NULL)
			how->found(how->arg, volume, m->what, e);
	}
	return 0;
}

static int find_pattern(struct prep_fs *fs, const struct prep_rmfile *how, const char *pattern,
			bool recursive, unsigned volume, struct prep_fs_list *list,
			struct prep_rmfile_match *m, struct prep_err *err)
{
	const size_t from = list->n;

	if (prep_fs_find(fs, pattern, recursive, list, err) < 0)
		return -1;
	m->found |= list->n > from;
	/* What patterns before it have matched is not listed again. */
	if (!m->found && from > 0) {
		struct prep_fs_list again = { NULL, 0, 0 };

		if (prep_fs_find(fs, pattern, false, &again, err) < 0) {
			prep_fs_list_clear(&again);
			return -1;
		}
		m->found = again.n > 0;
		prep_fs_list_clear(&again);
	}
	for (size_t i = from; !recursive && i < list->n; i++)
		if (list->entry[i].folder && !list->entry[i].system)
			return prep_fail(err, PREP_EUSAGE, "%s: a folder (-r removes it with all it holds)",
					 list->entry[i].path);
	return account(how, volume, list, from, m, err);
}

/* Find everything on one volume, in the order of removal. */
static int find_on_volume(struct prep_fs *fs, const struct prep_rmfile *how, unsigned volume,
			  struct prep_rmfile_report *report, struct prep_fs_list *list,
			  struct prep_err *err)
{
	struct prep_rmfile_match *m = report->match;

	for (size_t i = 0; i < how->patterns; i++, m++)
		if (find_pattern(fs, how, how->pattern[i], how->recursive, volume, list, m, err) < 0)
			return -1;
	for (size_t i = 0; i < how->presets; i++, m++)
		for (const char *const *p = how->preset[i]->patterns; *p != NULL; p++)
			if (find_pattern(fs, how, *p, true, volume, list, m, err) < 0)
				return -1;
	return 0;
}

static int report_init(struct prep_rmfile_report *report, const struct prep_rmfile *how,
		       struct prep_err *err)
{
	struct prep_rmfile_match *m;

	*report = (struct prep_rmfile_report){ .n = how->patterns + how->presets };
	report->match = m = calloc(report->n + 1, sizeof *report->match);
	if (m == NULL)
		return prep_fail_nomem(err);
	for (size_t i = 0; i < how->patterns; i++)
		(m++)->what = how->pattern[i];
	for (size_t i = 0; i < how->presets; i++)
		*m++ = (struct prep_rmfile_match){ .what = how->preset[i]->name, .preset = true };
	return 0;
}

/* Sum up, and see that every pattern found something somewhere. */
static int report_finish(struct prep_rmfile_report *report, const struct prep_rmfile *how,
			 const char *name, struct prep_err *err)
{
	for (size_t i = 0; i < report->n; i++) {
		const struct prep_rmfile_match *m = &report->match[i];

		if (!m->preset && !m->found && !how->ignore_missing)
			return prep_fail(err, PREP_EFAIL, "%s: %s: no such file (--ignore-missing lets it pass)", name,
					 m->what);
		report->files += m->files;
		report->folders += m->folders;
		report->bytes += m->bytes;
	}
	return 0;
}

static bool discards_hibernation(const struct prep_rmfile *how)
{
	for (size_t i = 0; i < how->presets; i++)
		if (how->preset[i]->discards_hibernation)
			return true;
	return false;
}

/* Audit the volume as it would be with what is staged. */
static int audit_result(const struct prep_volume *staged, const struct prep_progress *progress,
			struct prep_err *err)
{
	struct prep_fs_audit audit;
	struct prep_fs *fs;
	int r;

	if (prep_fs_open(staged->slice, 0, &fs, err) < 0)
		return -1;
	r = prep_fs_audit(fs, &audit, progress, err);
	if (r == 0) {
		r = prep_gate_judge(&audit, PREP_GATE_RECORDS, staged->slice->name, err);
		prep_fs_audit_clear(&audit);
	}
	if (prep_fs_close(fs, err) < 0)
		r = -1;
	return r;
}

/* The gate of a removal: as prep_gate_open, but a suspended session may be in what is removed. */
static int pass_gate(const struct prep_volume *v, struct prep_fs *fs, const struct prep_rmfile *how,
		     const struct prep_progress *progress, struct prep_err *err)
{
	const unsigned obstacles = prep_fs_info(fs)->obstacles;
	struct prep_fs_audit audit;
	int r;

	if (obstacles == PREP_FS_HIBERNATED && !discards_hibernation(how))
		return prep_fail(err, PREP_EREFUSED,
				 "%s: %s (--preset hiberfil removes it: the suspended session is then lost)",
				 v->slice->name, prep_fs_info(fs)->obstacle_text);
	if (prep_gate_obstacles(fs, discards_hibernation(how) ? PREP_FS_HIBERNATED : 0, v->slice->name, err) < 0)
		return -1;
	if (prep_fs_audit(fs, &audit, progress, err) < 0)
		return -1;
	r = prep_gate_judge(&audit, PREP_GATE_RECORDS, v->slice->name, err);
	prep_fs_audit_clear(&audit);
	return r;
}

/* Remove what is listed from the volume as the overlay shows it. */
static int remove_list(const struct prep_volume *v, struct prep_disk *overlay,
		       const struct prep_rmfile *how, const struct prep_fs_list *list,
		       const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_volume staged = *v;
	uint64_t bytes = 0, done = 0;
	struct prep_fs *fs;
	int r;

	for (size_t i = 0; i < list->n; i++)
		bytes += list->entry[i].allocated;
	if (prep_slice_open(overlay, v->part->off, v->part->len, v->slice->name, &staged.slice, err) < 0)
		return -1;
	r = prep_fs_open(staged.slice, PREP_FS_WRITE | (discards_hibernation(how) ? PREP_FS_DISCARD_HIBERNATION : 0),
			 &fs, err);
	if (r == 0) {
		for (size_t i = 0; r == 0 && i < list->n; i++) {
			r = prep_fs_remove(fs, &list->entry[i], err);
			done += list->entry[i].allocated;
			if (r == 0)
				r = prep_progress(progress, "removing", done, bytes, err);
		}
		if (prep_fs_close(fs, err) < 0)
			r = -1;
	}
	if (r == 0)
		r = audit_result(&staged, progress, err);
	prep_disk_close(staged.slice);
	return r;
}

/* A session suspended on another volume of the disk knows this one too, and takes it for what it was. */
static int check_others(const struct prep_volumes *volumes, const struct prep_volume *v, const struct prep_rmfile *how,
			struct prep_err *err)
{
	const unsigned suspended = PREP_FS_FAST_STARTUP | (discards_hibernation(how) ? 0 : PREP_FS_HIBERNATED);
	struct prep_err ignored = PREP_ERR_INIT;
	struct prep_fs *fs;
	int r = 0;

	for (unsigned i = 0; i < volumes->n && r == 0 && how->volume == 0; i++) {
		const struct prep_volume *other = &volumes->volume[i];

		if (other == v || !prep_fs_known(other->kind) || prep_fs_open(other->slice, 0, &fs, &ignored) < 0)
			continue;
		if (prep_fs_info(fs)->obstacles & suspended)
			r = prep_gate_obstacles(fs, ~suspended, other->slice->name, err);
		prep_fs_close(fs, &ignored);
	}
	return r;
}

static int rmfile_volume(const struct prep_volumes *volumes, const struct prep_volume *v, struct prep_disk *overlay,
			 const struct prep_rmfile *how, struct prep_rmfile_report *report,
			 const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_fs_list list = { NULL, 0, 0 };
	struct prep_err ignored = PREP_ERR_INIT;
	struct prep_fs *fs;
	int r;

	if (prep_fs_open(v->slice, 0, &fs, err) < 0)
		return -1;
	r = find_on_volume(fs, how, v->part->number, report, &list, err);
	if (r == 0 && overlay != NULL && list.n > 0)
		r = pass_gate(v, fs, how, progress, err);
	if (r == 0 && overlay != NULL && list.n > 0)
		r = check_others(volumes, v, how, err);
	prep_fs_close(fs, &ignored);
	if (r == 0 && overlay != NULL && list.n > 0)
		r = remove_list(v, overlay, how, &list, progress, err);
	prep_fs_list_clear(&list);
	return r;
}

/* With overlay NULL: only find. */
static int run(const struct prep_volumes *volumes, struct prep_disk *overlay,
	       const struct prep_rmfile *how, struct prep_rmfile_report *report,
	       const struct prep_progress *progress, struct prep_err *err)
{
	unsigned looked = 0;

	if (report_init(report, how, err) < 0)
		return -1;
	if (prep_volumes_changeable(volumes, how->volume, err) < 0)
		return -1;
	for (unsigned i = 0; i < volumes->n; i++) {
		const struct prep_volume *v = &volumes->volume[i];

		if (how->volume != 0 && v->part->number != how->volume)
			continue;
		if (!prep_fs_known(v->kind))
			continue;
		looked++;
		if (rmfile_volume(volumes, v, overlay, how, report, progress, err) < 0)
			return -1;
	}
	if (looked == 0)
		return prep_fail(err, PREP_EREFUSED, "%s: no file system that is known here", volumes->disk->name);
	return report_finish(report, how, volumes->disk->name, err);
}

int prep_rmfile_find(const struct prep_volumes *volumes, const struct prep_rmfile *how,
		     struct prep_rmfile_report *report, struct prep_err *err)
{
	return run(volumes, NULL, how, report, NULL, err);
}

int prep_rmfile(const struct prep_volumes *volumes, struct prep_disk *overlay,
		const struct prep_rmfile *how, struct prep_rmfile_report *report,
		const struct prep_progress *progress, struct prep_err *err)
{
	return run(volumes, overlay, how, report, progress, err);
}

void prep_rmfile_report_clear(struct prep_rmfile_report *report)
{
	free(report->match);
	report->match = NULL;
}
