/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A flat run of bytes in a host file as a disk: a raw image, and the data of a fixed VHD.
 */
#ifndef PREP_DISK_RAW_H
#define PREP_DISK_RAW_H

#include "libprep/disk/disk.h"

/* The first `size` bytes of fd. fd becomes the disk's, unless this fails. */
int prep_raw_open(int fd, const char *name, uint64_t size, struct prep_disk **ret,
		  struct prep_err *err);

#endif
