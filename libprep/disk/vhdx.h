/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * VHDX files as disks, for reading: fixed, dynamic and differencing, sectors of
 * 512 and 4096 bytes.
 *
 * Source: [MS-VHDX], "Virtual Hard Disk v2 (VHDX) File Format". Integers and
 * GUIDs are little-endian in the file. The log is not replayed: a file whose log
 * may hold something is refused. libvhdi reads the data of fixed and dynamic disks.
 */
#ifndef PREP_DISK_VHDX_H
#define PREP_DISK_VHDX_H

#include "libprep/disk/disk.h"
#include "libprep/disk/parent.h"

/* What a VHDX says of itself. Ids are in the order in which they are written. */
struct prep_vhdx_info {
	uint8_t id[16];             /* of its content (DataWriteGuid): by which children know it */
	uint8_t disk_id[16];        /* of the virtual disk: the same in its children */
	char creator[128];          /* UTF-8, cut */
	uint32_t block_size;        /* bytes: 1 MiB to 256 MiB */
	uint32_t physical_sector_size;
	bool fixed;                 /* its blocks stay allocated */
	uint64_t blocks_allocated;
	struct prep_parent_ref parent; /* differencing only: what it says of its parent */
};

/*
 * Open fd if it is a VHDX: returns 1 and *ret, and fd is the disk's; 0 when it
 * is none. PREP_EDAMAGED: wrong checksums, tables and blocks outside the file or
 * on each other, or what libvhdi cannot open; PREP_EREFUSED: a log that was not written back, what this
 * version of the format does not know, or `write`.
 *
 * A differencing disk's parent is not opened here: disk.parent.
 */
int prep_vhdx_open(int fd, const char *name, bool write, struct prep_disk **ret,
		   struct prep_err *err);

/* NULL when the disk is no VHDX. */
const struct prep_vhdx_info *prep_vhdx_disk_info(const struct prep_disk *d);

/* The id of the VHDX in fd: 1, or 0 when it is none whose header can be believed (parent.h). */
int prep_vhdx_peek(int fd, uint8_t id[16]);

#endif
