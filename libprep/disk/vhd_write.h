/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Writing a new dynamic VHD, in one pass and in the order of its bytes:
 * footer copy, header, block table, blocks, footer.
 *
 * Block data is aligned to 4 KiB in the file, as Windows does since version 8,
 * so that host blocks and guest clusters coincide.
 */
#ifndef PREP_DISK_VHD_WRITE_H
#define PREP_DISK_VHD_WRITE_H

#include "libprep/base/output.h"
#include "libprep/disk/disk.h"
#include "libprep/disk/vhd_format.h"

/*
 * The identity for a VHD made from d: that of d where it is a VHD; otherwise a
 * new one, with the id of a VHDX's content, else one derived from the size and
 * the first 64 KiB (which hold the disk's own signature), so that the same input
 * gives the same bytes.
 * time_stamp (seconds since 2000-01-01) is for new ones.
 */
int prep_vhd_identity(struct prep_disk *d, uint32_t time_stamp, struct prep_vhd_footer *ret,
		      struct prep_err *err);

/* A random id and the given time stamp in place of what identity holds. */
int prep_vhd_identity_renew(struct prep_vhd_footer *identity, uint32_t time_stamp,
			    struct prep_err *err);

/* PREP_EREFUSED when a VHD, dynamic or fixed, cannot hold a disk of that size. `name` is for the message. */
int prep_vhd_size_check(uint64_t size, const char *name, struct prep_err *err);

/*
 * Append the footer of a fixed disk of `size` bytes, whose data out holds.
 */
int prep_vhd_write_fixed_footer(struct prep_output *out, const struct prep_vhd_footer *identity,
				uint64_t size, struct prep_err *err);

struct prep_vhd_writer;

/*
 * Start a dynamic VHD in out, which must be empty. `identity` gives id, time,
 * creator and geometry; size and block_size the rest. PREP_EREFUSED when a VHD
 * cannot hold that size, or its blocks reach beyond 2 TiB of the file.
 *
 * `present` has one bit a block (LSB first), set for those that will be
 * written, in ascending order. It may be NULL when out is seekable: then any
 * block may come in any order, and those without data are left out; the block
 * table is written last.
 */
int prep_vhd_writer_open(struct prep_output *out, const struct prep_vhd_footer *identity,
			 uint64_t size, uint32_t block_size, const uint8_t *present,
			 struct prep_vhd_writer **ret, struct prep_err *err);

/* Go on with block `index`; the one before is complete. */
int prep_vhd_writer_block(struct prep_vhd_writer *w, uint32_t index, struct prep_err *err);

/* Append to the block: bytes, zeros, bytes of a host file. A block shorter than block_size ends in zeros. */
int prep_vhd_writer_data(struct prep_vhd_writer *w, const void *buf, size_t len, struct prep_err *err);
int prep_vhd_writer_zeros(struct prep_vhd_writer *w, uint64_t len, struct prep_err *err);
int prep_vhd_writer_copy(struct prep_vhd_writer *w, const struct prep_backing *from, uint64_t len,
			 struct prep_err *err);

/* Complete the last block, write the footer and what was left for last. Does not commit out. */
int prep_vhd_writer_finish(struct prep_vhd_writer *w, struct prep_err *err);

/*
 * Where block `index` has its data in the file: bytes from its start, or 0 for
 * a block without data. Known once the block is begun, or promised in `present`.
 */
uint64_t prep_vhd_writer_place(const struct prep_vhd_writer *w, uint32_t index);

/* Blocks written so far. */
uint32_t prep_vhd_writer_blocks(const struct prep_vhd_writer *w);

/* NULL is allowed. */
void prep_vhd_writer_close(struct prep_vhd_writer *w);

#endif
