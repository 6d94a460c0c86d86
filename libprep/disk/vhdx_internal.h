/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the two halves of a VHDX share: vhdx_open.c checks all that the file
 * says of its layout, vhdx.c reads by it. Source: [MS-VHDX], as in vhdx.h.
 */
#ifndef PREP_DISK_VHDX_INTERNAL_H
#define PREP_DISK_VHDX_INTERNAL_H

#include <libvhdi.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/disk/vhdx.h"

#define UNIT PREP_MIB /* of everything in the file */
#define HEADER_SIZE 4096u
#define ENTRY_SIZE 8u

/* The low three bits of a table entry. */
enum {
	NOT_PRESENT = 0, UNDEFINED = 1, ZERO = 2, UNMAPPED = 3, /* 4 and 5 are reserved */
	FULLY_PRESENT = 6, PARTIALLY_PRESENT = 7,
};

struct prep_vhdx {
	struct prep_disk disk;
	struct prep_vhdx_info info;
	int fd;
	libvhdi_file_t *reader;       /* of data, or NULL */
	struct prep_file_run data;    /* of the file */
	uint64_t file_size;
	uint64_t bat_off, bat_len;    /* the table: entries are read from the file as they are needed */
	uint64_t metadata_off, metadata_len;
	uint64_t chunk_blocks;        /* blocks between two entries for sector bitmaps */
};

/*
 * The header in force: of those that are whole, the later one. 1, 0 when there
 * is none, -1.
 */
int prep_vhdx_read_header(int fd, const char *name, uint64_t file_size, uint8_t ret[HEADER_SIZE],
			  struct prep_err *err);

/* A GUID of the file in the order in which it is written. */
void prep_vhdx_take_guid(const uint8_t *p, uint8_t ret[16]);

/* From fd, file_size and disk.name, everything else but the reader; errors as of prep_vhdx_open. */
int prep_vhdx_read_layout(struct prep_vhdx *v, struct prep_err *err);

/* Entries of the block table, from number `index` on, as they stand in the file. */
int prep_vhdx_read_entries(const struct prep_vhdx *v, uint64_t index, size_t n, uint8_t *ret, struct prep_err *err);

static inline uint64_t blocks_of(const struct prep_vhdx *v)
{
	return (v->disk.size + v->info.block_size - 1) / v->info.block_size;
}

/* Bytes of the disk that a block holds: fewer in the last one of an odd size. */
static inline uint64_t block_bytes(const struct prep_vhdx *v, uint64_t block)
{
	return prep_min(v->info.block_size, v->disk.size - block * v->info.block_size);
}

/* The place in the table of a block's entry, and of that for the sector bitmap behind its chunk's. */
static inline uint64_t entry_index(const struct prep_vhdx *v, uint64_t block)
{
	return block + block / v->chunk_blocks;
}

static inline uint64_t bitmap_index(const struct prep_vhdx *v, uint64_t block)
{
	return (block / v->chunk_blocks + 1) * (v->chunk_blocks + 1) - 1;
}

static inline unsigned entry_state(uint64_t entry)
{
	return entry & 7;
}

static inline uint64_t entry_offset(uint64_t entry)
{
	return prep_round_down(entry, UNIT);
}

#endif
