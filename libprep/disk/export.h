/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Export: write a disk, whatever its kind, as a new image.
 */
#ifndef PREP_DISK_EXPORT_H
#define PREP_DISK_EXPORT_H

#include "libprep/base/output.h"
#include "libprep/base/progress.h"
#include "libprep/disk/disk.h"
#include "libprep/disk/vhd_format.h"

enum prep_format { PREP_FORMAT_RAW, PREP_FORMAT_FIXED, PREP_FORMAT_DYNAMIC };

struct prep_export {
	enum prep_format format;
	uint32_t block_size;              /* dynamic only: a power of two, 512 KiB to 256 MiB */
	struct prep_vhd_footer identity;  /* of a VHD (vhd_write.h) */
	uint64_t align;                   /* raw and fixed: zeros behind the disk make its size a multiple; 0: none */
	/*
	 * Look for zeros in the data too: a block of zeros is left out, zeros inside
	 * blocks become holes. Otherwise only what is known to be zero without
	 * reading is left out, and data is copied without passing through this process.
	 */
	bool find_zeros;
};

struct prep_export_report {
	uint64_t blocks;     /* dynamic: written */
	uint64_t data;       /* bytes of the disk written as data */
};

/*
 * The format d has already, with its block size and identity, so that a
 * command changes nothing but what it is for; of a differencing disk or a VHDX a
 * dynamic VHD that holds all of it. time_stamp is for a VHD made
 * from a disk that is none.
 */
int prep_export_same(struct prep_disk *d, uint32_t time_stamp, struct prep_export *ret,
		     struct prep_err *err);

/* The size of the disk that is made: d's, rounded up as how->align says. */
uint64_t prep_export_size(const struct prep_disk *d, const struct prep_export *how);

/*
 * PREP_EREFUSED when d cannot be made into how->format: too large for a VHD, or with
 * sectors that are not of 512 bytes. prep_export and prep_export_estimate check it too.
 */
int prep_export_check(const struct prep_disk *d, const struct prep_export *how, struct prep_err *err);

/*
 * The size in bytes that the export will have at most: of its blocks or data,
 * zeros left out. Reads the disk only where how->find_zeros asks for it.
 */
int prep_export_estimate(struct prep_disk *d, const struct prep_export *how, uint64_t *ret,
			 const struct prep_progress *progress, struct prep_err *err);

/* Write d to out. Does not commit out. */
int prep_export(struct prep_disk *d, struct prep_output *out, const struct prep_export *how,
		struct prep_export_report *report, const struct prep_progress *progress,
		struct prep_err *err);

#endif
