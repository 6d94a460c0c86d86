/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Inside the VHD reader: a VHD that is open. vhd.c finds and checks its footer,
 * header and block table; vhd_blocks.c reads and writes the blocks of dynamic and
 * differencing disks through them.
 */
#ifndef PREP_DISK_VHD_BLOCKS_H
#define PREP_DISK_VHD_BLOCKS_H

#include "libprep/base/file.h"
#include "libprep/disk/vhd.h"

struct prep_vhd {
	struct prep_disk disk;
	struct prep_vhd_info info;
	int fd;
	struct prep_disk *fixed;  /* the data of a fixed disk; the rest is then unused */

	uint32_t block_size, bitmap_size;
	uint32_t *bat;            /* sector of each block's bitmap, host byte order */
	_Atomic uint8_t *bitmaps; /* what is known of each block's bitmap; zero until it is first asked for */
	struct prep_file_run data; /* of the file */
	uint64_t data_end;        /* where the last block, or the metadata if later, ends */
	uint64_t file_end;        /* where the file ends that is durable, its footer last */

	uint64_t grown_from;      /* the file's size before blocks were appended that no flush has begun to show; 0: none */

	/* What the next flush writes: the bitmaps and table entries of blocks that were written to. */
	uint8_t **fresh;          /* of each block: its bitmap, newer than the file's, or NULL; NULL: of none */
	uint32_t *changed;        /* the blocks that have one */
	size_t n_changed;
};

extern const struct prep_disk_ops prep_vhd_dynamic_ops, prep_vhd_differencing_ops;

#endif
