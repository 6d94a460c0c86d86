/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/volume/volumes.h"

#include <stdio.h>
#include <stdlib.h>

#include "libprep/disk/slice.h"

static int open_slice(struct prep_disk *d, const struct prep_volumes *v,
		      const struct prep_partition *part, struct prep_disk **ret, struct prep_err *err)
{
	char *name;
	int r;

	if (v->table.scheme == PREP_TABLE_NONE)
		return prep_slice_open(d, part->off, part->len, d->name, ret, err);
	if (asprintf(&name, "%s: partition %u", d->name, part->number) < 0)
		return prep_fail_nomem(err);
	r = prep_slice_open(d, part->off, part->len, name, ret, err);
	free(name);
	return r;
}

int prep_volumes_open(struct prep_disk *d, struct prep_volumes **ret, struct prep_err *err)
{
	struct prep_volumes *v = calloc(1, sizeof *v);

	*ret = NULL;
	if (v == NULL)
		return prep_fail_nomem(err);
	v->disk = d;
	if (prep_table_read(d, &v->table, err) < 0)
		goto fail;
	for (unsigned i = 0; i < v->table.n; i++) {
		struct prep_volume *vol = &v->volume[i];

		vol->part = &v->table.part[i];
		if (open_slice(d, v, vol->part, &vol->slice, err) < 0)
			goto fail;
		v->n++;
		if (prep_fs_probe(vol->slice, &vol->kind, err) < 0)
			goto fail;
	}
	*ret = v;
	return 0;
fail:
	prep_volumes_close(v);
	return -1;
}

void prep_volumes_close(struct prep_volumes *v)
{
	if (v == NULL)
		return;
	for (unsigned i = 0; i < v->n; i++)
		prep_disk_close(v->volume[i].slice);
	prep_table_clear(&v->table);
	free(v);
}

int prep_volumes_changeable(const struct prep_volumes *v, unsigned number, struct prep_err *err)
{
	bool found = number == 0;

	if (v->table.refusal[0] != '\0')
		return prep_fail(err, PREP_EREFUSED, "%s: %s", v->disk->name, v->table.refusal);
	for (unsigned i = 0; i < v->n; i++) {
		const struct prep_volume *vol = &v->volume[i];

		if (number != 0 && vol->part->number != number)
			continue;
		found = true;
		if (vol->kind == PREP_FS_BITLOCKER || vol->kind == PREP_FS_REFS || vol->kind == PREP_FS_LVM)
			return prep_fail(err, PREP_EREFUSED, "%s: %s, which cannot be changed from outside%s",
					 vol->slice->name, prep_fs_kind_name(vol->kind),
					 number == 0 && v->n > 1 ? " (--volume N picks another volume)" : "");
	}
	if (!found)
		return prep_fail(err, PREP_EUSAGE, "%s: no volume %u: the disk has %u", v->disk->name, number, v->n);
	return 0;
}
