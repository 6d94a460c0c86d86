/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The VHD format: its structures between bytes and fields.
 *
 * Source: "Virtual Hard Disk Image Format Specification", version 1.0,
 * Microsoft, October 2006, and what real files show beyond it. All integers
 * are big-endian.
 */
#ifndef PREP_DISK_VHD_FORMAT_H
#define PREP_DISK_VHD_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "libprep/base/err.h"

#define PREP_VHD_SECTOR 512u
#define PREP_VHD_FOOTER_SIZE 512u
#define PREP_VHD_HEADER_SIZE 1024u
#define PREP_VHD_BAT_UNUSED 0xFFFFFFFFu
#define PREP_VHD_BLOCK_SIZE_DEFAULT (2u << 20)
#define PREP_VHD_BLOCK_SIZE_MIN (512u << 10)
#define PREP_VHD_BLOCK_SIZE_MAX (256u << 20)
/* 2040 GiB: what Windows takes; sector numbers in the BAT have 32 bits. */
#define PREP_VHD_SIZE_MAX ((uint64_t)2040 << 30)
/* Time stamps count seconds from 2000-01-01 00:00 UTC: that, in seconds since 1970. */
#define PREP_VHD_EPOCH 946684800
/* The dynamic header's place in every file that Windows, and this library, writes. */
#define PREP_VHD_HEADER_OFFSET 512u
#define PREP_VHD_BAT_OFFSET 1536u

enum prep_vhd_type { PREP_VHD_FIXED = 2, PREP_VHD_DYNAMIC = 3, PREP_VHD_DIFFERENCING = 4 };

struct prep_vhd_footer {
	uint32_t features;
	uint64_t data_offset;   /* of the dynamic header, from the file's start; ~0 for fixed */
	uint32_t time_stamp;    /* seconds since 2000-01-01 00:00 UTC */
	char creator[4];
	uint32_t creator_version;
	char host_os[4];
	uint64_t original_size; /* bytes */
	uint64_t current_size;  /* bytes: the disk's size */
	uint16_t cylinders;
	uint8_t heads, sectors; /* per cylinder, per track */
	uint32_t type;          /* enum prep_vhd_type, or what the file says */
	uint8_t id[16];
	uint8_t saved_state;    /* 1: a virtual machine's saved state belongs to it */
	bool checksum_ok;       /* set by decoding */
};

/* Where a differencing disk keeps one of the names of its parent. */
#define PREP_VHD_LOCATORS 8
struct prep_vhd_locator {
	char code[4];           /* "W2ku", "W2ru", "MacX", ...; all zero where unused */
	uint32_t space;         /* bytes on real files, sectors by the specification */
	uint32_t length;        /* bytes */
	uint64_t off;           /* from the file's start */
};

struct prep_vhd_header {
	uint64_t bat_offset;    /* bytes from the file's start */
	uint32_t version;
	uint32_t bat_entries;
	uint32_t block_size;    /* bytes */
	uint8_t parent_id[16];
	uint32_t parent_time_stamp;
	uint8_t parent_name[512]; /* UTF-16, big-endian by the specification */
	struct prep_vhd_locator locator[PREP_VHD_LOCATORS];
	bool checksum_ok;       /* set by decoding */
};

/* False when p, 512 bytes, does not begin with the cookie "conectix". */
bool prep_vhd_footer_decode(const uint8_t *p, struct prep_vhd_footer *ret);
void prep_vhd_footer_encode(const struct prep_vhd_footer *f, uint8_t *p);

/* False when p, 1024 bytes, does not begin with the cookie "cxsparse". */
bool prep_vhd_header_decode(const uint8_t *p, struct prep_vhd_header *ret);
void prep_vhd_header_encode(const struct prep_vhd_header *h, uint8_t *p);

/*
 * Whether a decoded footer or header describes a disk that can be worked on:
 * PREP_EDAMAGED where its numbers cannot be true, PREP_EREFUSED where they are
 * of a kind that is not supported. `name` is the file's.
 */
int prep_vhd_footer_check(const struct prep_vhd_footer *f, const char *name, struct prep_err *err);
int prep_vhd_header_check(const struct prep_vhd_footer *f, const struct prep_vhd_header *h,
			  const char *name, struct prep_err *err);

/* The geometry that the specification's appendix computes for a size in bytes. */
void prep_vhd_geometry(uint64_t size, uint16_t *cylinders, uint8_t *heads, uint8_t *sectors);

/* The bytes that a footer's geometry addresses. */
uint64_t prep_vhd_geometry_size(const struct prep_vhd_footer *f);

/* The sector bitmap before each block's data: bytes, whole sectors. */
uint32_t prep_vhd_bitmap_size(uint32_t block_size);

#endif
