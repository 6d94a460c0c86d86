/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A dynamic VHD read from a pipe, block by block as the blocks come, with no
 * copy on disk. It works for every VHD whose header and block table stand
 * before its blocks: all that vhd_write.h, Windows and QEMU write.
 */
#ifndef PREP_DISK_VHD_STREAM_H
#define PREP_DISK_VHD_STREAM_H

#include "libprep/disk/vhd_format.h"
#include "libprep/base/notes.h"

struct prep_vhd_stream;

/*
 * Start reading from fd, which stays the caller's. Returns 1 and *ret; or 0
 * with what was read so far in *head (the caller frees it; it may be empty)
 * when this is no VHD or not one for streaming: spool it (base/spool.h).
 * A VHD whose blocks are smaller than block_size is none for streaming either.
 * PREP_EDAMAGED, PREP_EREFUSED as prep_vhd_open.
 */
int prep_vhd_stream_open(int fd, const char *name, uint32_t block_size, struct prep_vhd_stream **ret,
			 uint8_t **head, size_t *head_len, struct prep_err *err);

const struct prep_vhd_footer *prep_vhd_stream_footer(const struct prep_vhd_stream *s);
const struct prep_vhd_header *prep_vhd_stream_header(const struct prep_vhd_stream *s);
uint32_t prep_vhd_stream_blocks(const struct prep_vhd_stream *s); /* allocated */

/*
 * Go to the next block in the file's order: 1 and its index; 0 at the end, when
 * the footer there has been found whole. A stream that ends early is PREP_EDAMAGED.
 */
int prep_vhd_stream_next(struct prep_vhd_stream *s, uint32_t *index, struct prep_err *err);

/* Read the next len bytes of the block's data. */
int prep_vhd_stream_read(struct prep_vhd_stream *s, void *buf, size_t len, struct prep_err *err);

/* NULL is allowed. */
void prep_vhd_stream_close(struct prep_vhd_stream *s);

#endif
