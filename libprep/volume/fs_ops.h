/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a kind of file system implements; fs.c dispatches by it. The contract
 * of each call is that of the prep_fs_* function of the same name (fs.h).
 */
#ifndef PREP_VOLUME_FS_OPS_H
#define PREP_VOLUME_FS_OPS_H

#include "libprep/volume/fs.h"

struct prep_fs_ops {
	int (*close)(struct prep_fs *fs, struct prep_err *err);
	int (*audit)(struct prep_fs *fs, struct prep_fs_audit *ret,
		     const struct prep_progress *progress, struct prep_err *err);
	int (*walk)(struct prep_fs *fs, unsigned flags,
		    int (*fn)(void *arg, const struct prep_fs_stream *s, struct prep_err *err),
		    void *arg, struct prep_err *err);
	/* NULL where a system stream holds them. */
	size_t (*marks)(struct prep_fs *fs, const struct prep_fs_run **ret);
	int (*find)(struct prep_fs *fs, const char *pattern, bool recursive,
		    struct prep_fs_list *list, struct prep_err *err);
	int (*remove)(struct prep_fs *fs, const struct prep_fs_entry *entry, struct prep_err *err);

	/* NULL, all four, where nothing can be moved. */
	int (*move_begin)(struct prep_fs *fs, struct prep_err *err);
	int (*move_grant)(struct prep_fs *fs, uint64_t lcn, uint64_t len, struct prep_err *err);
	int (*move_end)(struct prep_fs *fs, struct prep_err *err);
	int (*move)(struct prep_fs *fs, struct prep_fs_move *m, struct prep_err *err);
};

/* Every kind embeds this as its first member. */
struct prep_fs {
	const struct prep_fs_ops *ops;
	struct prep_disk *volume;
	struct prep_fs_info info;
};

/* The kinds' prep_fs_open, called once the probe has named the kind. */
int prep_ntfs_open(struct prep_disk *volume, unsigned flags, struct prep_fs **ret,
		   struct prep_err *err);
int prep_fat_open(struct prep_disk *volume, unsigned flags, struct prep_fs **ret,
		  struct prep_err *err);
int prep_exfat_open(struct prep_disk *volume, unsigned flags, struct prep_fs **ret,
		    struct prep_err *err);

#endif
