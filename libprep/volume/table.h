/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Partition tables: MBR with its extended chain, GPT, or a bare volume.
 *
 * Sources: UEFI specification 2.10, chapter 5 (GPT, protective MBR); the
 * extended chain as every PC system reads it (EBRs linked by offsets from the
 * start of the extended partition).
 */
#ifndef PREP_VOLUME_TABLE_H
#define PREP_VOLUME_TABLE_H

#include <stdint.h>

#include "libprep/base/notes.h"
#include "libprep/disk/disk.h"

/* More than any Windows disk has; a chain or table beyond it is damage. */
#define PREP_PARTITIONS_MAX 128

enum prep_table_scheme {
	PREP_TABLE_NONE, /* no table: one volume, the whole disk, or nothing known */
	PREP_TABLE_MBR,
	PREP_TABLE_GPT,
};

struct prep_partition {
	unsigned number;      /* 1, 2, ... in table order, as --volume counts */
	uint64_t off, len;    /* bytes of the disk */
	uint8_t mbr_type;     /* MBR: the type byte */
	bool active;          /* MBR: the boot flag */
	bool logical;         /* MBR: inside the extended partition */
	uint8_t gpt_type[16]; /* GPT: as on disk (mixed-endian GUID) */
	uint8_t gpt_id[16];
	char name[128];       /* GPT: UTF-8 */
};

struct prep_table {
	enum prep_table_scheme scheme;
	struct prep_partition part[PREP_PARTITIONS_MAX];
	unsigned n;
	struct prep_notes notes; /* e.g. the primary GPT is damaged, its backup was used */
	/*
	 * Why no command may change this disk, naming what and where ("partition 2 is
	 * part of a dynamic disk (LDM)"); empty when it may. LDM (MBR type 0x42, the
	 * LDM GPT types), Storage Spaces, LVM.
	 */
	char refusal[256];
};

/*
 * Read the table of d. A damaged table whose backup cannot help is
 * PREP_EDAMAGED. A disk without a table gets scheme NONE and one partition that
 * is the whole disk. Logical sectors are d->sector_size. Every
 * partition is inside the disk or the read fails, naming it; partitions that
 * overlap are PREP_EDAMAGED. Release with prep_table_clear.
 */
int prep_table_read(struct prep_disk *d, struct prep_table *ret, struct prep_err *err);
void prep_table_clear(struct prep_table *t);

/* "NTFS/exFAT", "EFI system", "Microsoft reserved", ...: static text for the type, never NULL. */
const char *prep_partition_type_name(const struct prep_table *t, const struct prep_partition *p);

#endif
