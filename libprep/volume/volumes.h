/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The volumes of a disk: its partition table, and a slice and a kind for each.
 */
#ifndef PREP_VOLUME_VOLUMES_H
#define PREP_VOLUME_VOLUMES_H

#include "libprep/disk/disk.h"
#include "libprep/volume/fs.h"
#include "libprep/volume/table.h"

struct prep_volume {
	const struct prep_partition *part;
	struct prep_disk *slice; /* named "IMAGE: partition N", or as the disk when there is no table */
	enum prep_fs_kind kind;
};

struct prep_volumes {
	struct prep_disk *disk; /* not owned */
	struct prep_table table;
	struct prep_volume volume[PREP_PARTITIONS_MAX];
	unsigned n;
};

/* Read the table of d, which must outlive this, and look at each partition. Release with prep_volumes_close. */
int prep_volumes_open(struct prep_disk *d, struct prep_volumes **ret, struct prep_err *err);

/* NULL is allowed. */
void prep_volumes_close(struct prep_volumes *v);

/*
 * Whether volume `number` (0: every one) may be changed: PREP_EREFUSED naming
 * what stands against it: a disk of an unsupported scheme, BitLocker, ReFS, LVM.
 * PREP_EUSAGE when there is no such volume.
 */
int prep_volumes_changeable(const struct prep_volumes *v, unsigned number, struct prep_err *err);

#endif
