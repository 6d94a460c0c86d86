/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * NTFS: what its files share. ntfs.c opens; ntfs_device.c is the disk under
 * libntfs-3g; ntfs_state.c finds what forbids changes; ntfs_mft.c and
 * ntfs_file.c read records, ntfs_dir.c directories, ntfs_tree.c paths;
 * ntfs_audit.c, ntfs_walk.c, ntfs_find.c, ntfs_remove.c and
 * ntfs_move.c are the calls of fs.h.
 */
#ifndef PREP_VOLUME_NTFS_INTERNAL_H
#define PREP_VOLUME_NTFS_INTERNAL_H

/* libntfs-3g's headers take these for granted. */
#include <stdarg.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/stat.h>
#include <time.h>

#include <ntfs-3g/types.h>
#include <ntfs-3g/attrib.h>
#include <ntfs-3g/device.h>
#include <ntfs-3g/volume.h>

#include "libprep/volume/fs_ops.h"
#include "libprep/volume/ntfs_mft.h"

/* What libntfs-3g's device operations work on. */
struct prep_ntfs_device {
	struct prep_disk *disk;
	int64_t pos;
	bool write;
	struct prep_err err; /* the first failure below libntfs-3g, which knows only errno */
};

struct prep_ntfs {
	struct prep_fs fs;
	struct prep_disk *disk;
	struct prep_ntfs_device device;
	ntfs_volume *vol;
	bool write;

	/* From the boot sector, checked */
	uint32_t cluster_size, record_size;
	unsigned cluster_bits;
	uint64_t clusters;

	/* The folder in which names were removed last, and its stamps from before: libntfs-3g writes the clock's. */
	struct prep_ntfs_stamps {
		uint64_t number; /* of its record; 0: none */
		s64 created, written, changed, read;
	} folder;

	/* A bit for each record: a folder that is known not to be the system's, so that not every file goes up again. */
	uint8_t *ordinary;

	/* While clusters are moved, one bit each: free to be, but marked used so that libntfs-3g keeps off. */
	uint8_t *held;
};

extern const struct ntfs_device_operations prep_ntfs_device_ops;

/* The device's first failure where there is one, else what errno says: always -1. */
int prep_ntfs_fail(struct prep_ntfs *n, struct prep_err *err, const char *what);

/* Fill in info.obstacles and info.obstacle_text. */
int prep_ntfs_find_obstacles(struct prep_ntfs *n, struct prep_err *err);

int prep_ntfs_audit(struct prep_fs *fs, struct prep_fs_audit *ret,
		    const struct prep_progress *progress, struct prep_err *err);
int prep_ntfs_walk(struct prep_fs *fs, unsigned flags,
		   int (*fn)(void *arg, const struct prep_fs_stream *s, struct prep_err *err),
		   void *arg, struct prep_err *err);
int prep_ntfs_find(struct prep_fs *fs, const char *pattern, bool recursive,
		   struct prep_fs_list *list, struct prep_err *err);
int prep_ntfs_remove(struct prep_fs *fs, const struct prep_fs_entry *entry, struct prep_err *err);
/* After the last removal. */
int prep_ntfs_remove_end(struct prep_ntfs *n, struct prep_err *err);
int prep_ntfs_move_begin(struct prep_fs *fs, struct prep_err *err);
int prep_ntfs_move_grant(struct prep_fs *fs, uint64_t lcn, uint64_t len, struct prep_err *err);
int prep_ntfs_move_end(struct prep_fs *fs, struct prep_err *err);
int prep_ntfs_move(struct prep_fs *fs, struct prep_fs_move *m, struct prep_err *err);

#endif
