/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * File systems on a volume, behind one interface.
 *
 * A volume is a disk (usually a slice: disk/slice.h). Offsets and lengths are
 * bytes of the volume unless the name ends in _lcn (clusters). Names are UTF-8,
 * paths have '/' between components and begin with one.
 */
#ifndef PREP_VOLUME_FS_H
#define PREP_VOLUME_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libprep/base/err.h"
#include "libprep/base/notes.h"
#include "libprep/base/progress.h"
#include "libprep/disk/disk.h"

/* What a volume holds, by its first sectors. */
enum prep_fs_kind {
	PREP_FS_UNKNOWN,   /* left exactly as it is */
	PREP_FS_NTFS,
	PREP_FS_FAT,       /* FAT12, FAT16, FAT32: fat.h says what the terms below mean there */
	PREP_FS_EXFAT,
	PREP_FS_BITLOCKER, /* refused when a change is asked for */
	PREP_FS_REFS,      /* likewise */
	PREP_FS_LVM,       /* likewise */
};

int prep_fs_probe(struct prep_disk *volume, enum prep_fs_kind *ret, struct prep_err *err);
const char *prep_fs_kind_name(enum prep_fs_kind kind); /* "NTFS", "BitLocker", ...: static */

/* Whether file systems of a kind can be opened: NTFS, FAT, exFAT. */
bool prep_fs_known(enum prep_fs_kind kind);

/* Why a file system must not be changed: bits of prep_fs_info.obstacles. */
enum prep_fs_obstacle {
	PREP_FS_DIRTY = 1 << 0,       /* the volume's dirty flag is set */
	PREP_FS_UNCLEAN_LOG = 1 << 1, /* its log holds changes that were not written back */
	PREP_FS_HIBERNATED = 1 << 2,  /* a suspended session is in hiberfil.sys */
	PREP_FS_FAST_STARTUP = 1 << 3,/* $LogFile of version 2.0: Windows 8 or later was not shut down fully */
	PREP_FS_SNAPSHOTS = 1 << 4,   /* shadow copies stand: free clusters hold their data */
};

struct prep_fs_info {
	enum prep_fs_kind kind;
	char version[8];        /* "3.1"; FAT: "12", "16", "32" */
	char label[256];        /* UTF-8 */
	uint64_t serial;
	uint32_t cluster_size;  /* bytes */
	uint64_t clusters;
	uint64_t clusters_off;  /* where the first of them, bit 0 of a free map, is in the volume; NTFS: 0 */
	unsigned obstacles;     /* enum prep_fs_obstacle */
	char obstacle_text[512];/* one clause for each, joined by "; ": what was found and where; empty if none */
};

/* What to do about obstacles, for the message that refuses: one clause, static. */
const char *prep_fs_advice(unsigned obstacles);

struct prep_fs;

/* Flags of prep_fs_open. */
#define PREP_FS_WRITE 1u              /* for removals; writes go to the volume's disk (an overlay, as a rule) */
#define PREP_FS_DISCARD_HIBERNATION 2u/* open for writing although hiberfil.sys holds a suspended session */

/*
 * Open the file system on a volume, which must outlive it. Without
 * PREP_FS_WRITE an unclean or hibernated file system opens too, never written:
 * see the info. With it every obstacle is PREP_EREFUSED.
 * A volume of a kind that cannot be opened is PREP_EREFUSED, one that is not
 * sound enough to open PREP_EDAMAGED.
 */
int prep_fs_open(struct prep_disk *volume, unsigned flags, struct prep_fs **ret,
		 struct prep_err *err);

/* Unmount. Where it was open for writing a failure means: forget what was staged. NULL is allowed. */
int prep_fs_close(struct prep_fs *fs, struct prep_err *err);

const struct prep_fs_info *prep_fs_info(const struct prep_fs *fs);

/*
 * The audit: every cluster that any file record claims, counted against the
 * allocation bitmap, and records against their bitmap and the directories.
 */
struct prep_fs_audit {
	/* Clusters */
	uint64_t used;            /* marked used */
	uint64_t crosslinked;     /* claimed more than once */
	uint64_t outside;         /* claimed beyond the volume's end */
	uint64_t claimed_free;    /* claimed, marked free */
	uint64_t used_unclaimed;  /* marked used, claimed by nobody: lost, but harmless */
	uint64_t bad;             /* in $BadClus */
	uint64_t copies;          /* what differs between copies of the allocation table or boot sector */

	/* Records */
	uint64_t records;         /* in use, extension records included */
	uint64_t unreadable;      /* in use by the bitmap, but damaged */
	uint64_t record_bitmap;   /* in use and marked free, or the other way round */
	uint64_t records_unmarked;/* of those, in use and marked free */
	uint64_t dangling;        /* directory entries that lead to no matching record */
	uint64_t orphans;         /* names of records that no directory holds */
	uint64_t link_counts;     /* records whose link count is not the number of their names */
	uint64_t sizes;           /* files whose size and clusters contradict each other */

	/* What else one pass over the records tells */
	uint64_t files, folders;
	uint64_t streams;         /* non-resident data streams with clusters */
	uint64_t fragmented;      /* of those, in more than one fragment */
	uint64_t fragments;       /* of all those together */

	/* One bit a cluster, LSB first, set where it is free *and* unclaimed. Owned by the audit. */
	uint8_t *free_map;
	uint64_t clusters;        /* bits in it */
	uint64_t free;            /* bits set in it */

	struct prep_notes problems; /* the first of each kind, naming record and path or cluster */
};

/*
 * Damage that forbids any change: cross-links, claims outside, claimed-but-free
 * clusters, differing copies, unreadable records, records in use but marked free.
 * Damage that forbids removals as well: dangling entries, orphans, link counts, sizes, the rest of the record bitmap.
 */
bool prep_fs_audit_clusters_sound(const struct prep_fs_audit *a);
bool prep_fs_audit_records_sound(const struct prep_fs_audit *a);

/* Damage found is not a failure of the audit. Release with prep_fs_audit_clear. */
int prep_fs_audit(struct prep_fs *fs, struct prep_fs_audit *ret,
		  const struct prep_progress *progress, struct prep_err *err);
void prep_fs_audit_clear(struct prep_fs_audit *a);

/* A piece of a stream: bytes of the volume, or a hole. */
struct prep_fs_run {
	uint64_t at;   /* in the stream */
	uint64_t off;  /* in the volume, or PREP_FS_HOLE */
	uint64_t len;
};
#define PREP_FS_HOLE UINT64_MAX

/* A stream of a file, with clusters of its own. */
struct prep_fs_stream {
	uint64_t id;            /* of its file: the MFT record's number */
	const char *path;       /* NULL unless asked for; of the first name found */
	const char *name;       /* of the stream, "" for the unnamed one */
	uint64_t size;          /* bytes of data */
	uint64_t initialized;   /* bytes before which the data is valid; zeros from there to size */
	uint64_t allocated;     /* bytes of clusters, holes of sparse streams included */
	bool data;              /* a data stream; else an index, a bitmap, ... */
	uint32_t type;          /* as the file system numbers them (NTFS: the attribute's type) */
	bool system;            /* of the file system's own files (NTFS: records below 24, and those in $Extend) */
	bool fixed;             /* cannot be moved: system streams, NTFS's attribute lists, names that are not valid UTF-16 */
	bool compressed;        /* runs hold the raw units, not the data */
	bool encrypted;         /* likewise */
	bool sparse;
	const struct prep_fs_run *run; /* ascending by at, adjacent ones joined */
	size_t runs;
};

#define PREP_FS_WALK_PATHS 1u   /* fill in path */
#define PREP_FS_WALK_DATA 2u    /* data streams only */

/*
 * Call fn for every non-resident stream, extension records joined to one stream,
 * by ascending id (FAT, exFAT: folder by folder). The struct is valid during the call. fn returns -1 to stop
 * the walk with *err set. Streams that are damaged are PREP_EDAMAGED.
 */
int prep_fs_walk(struct prep_fs *fs, unsigned flags,
		 int (*fn)(void *arg, const struct prep_fs_stream *s, struct prep_err *err),
		 void *arg, struct prep_err *err);

/* A name in a directory. */
struct prep_fs_entry {
	char *path;             /* owned by the list */
	uint64_t id, parent_id; /* MFT references with sequence numbers */
	uint64_t size;          /* bytes of the unnamed stream */
	uint64_t allocated;     /* bytes of clusters that all its streams hold, 0 for all but one name of a file in a list */
	bool folder;
	bool frees;             /* its last name, counting the list's names before it: the clusters are freed with it */
	bool system;            /* must not be removed */
};

struct prep_fs_list {
	struct prep_fs_entry *entry;
	size_t n, room;
};

/*
 * Where the file system says which clusters are free, unless a system stream holds that ($Bitmap): the FAT in force,
 * exFAT's bitmap. The number of runs, which are fs's.
 */
size_t prep_fs_marks(struct prep_fs *fs, const struct prep_fs_run **ret);

/*
 * Append to `list` what `pattern` names: an absolute path with '/' or '\',
 * each component compared as the file system does (NTFS: by $UpCase, ignoring
 * case, long names and 8.3 names alike), '*' and '?' as wildcards within a component. A
 * junction or other reparse point is matched itself, never followed. With
 * `recursive` a folder brings everything below it, children first (the order
 * in which they can be removed). An entry already in the list is not added again. Nothing found is no failure: look at list->n.
 */
int prep_fs_find(struct prep_fs *fs, const char *pattern, bool recursive,
		 struct prep_fs_list *list, struct prep_err *err);
void prep_fs_list_clear(struct prep_fs_list *list);

/*
 * Remove one name; its file with it when it is the last. A folder must be
 * empty. System files are PREP_EREFUSED. Only after PREP_FS_WRITE; after a failure
 * forget what was staged.
 */
int prep_fs_remove(struct prep_fs *fs, const struct prep_fs_entry *entry, struct prep_err *err);

/* Where a piece of a stream is to go: [at, at+len) of the stream to `to` of the volume, in whole clusters. */
struct prep_fs_piece {
	uint64_t at, len, to;
};

struct prep_fs_move {
	const struct prep_fs_stream *stream; /* as the walk showed it */
	const struct prep_fs_piece *piece;   /* ascending by at, all of it in clusters, not in holes */
	size_t pieces;
	uint64_t lacks;         /* set: clusters to be granted before this can be done, or 0 */
};

/*
 * Moving clusters, only after PREP_FS_WRITE; after a failure of any of the
 * calls forget what was staged.
 *
 * Between begin and end no cluster is free to the file system but those it is
 * granted: for longer run lists it may need some itself. So the caller alone
 * says where data goes, and nothing is put in a place that was left in between.
 * End marks free what was left and what was not used.
 */
int prep_fs_move_begin(struct prep_fs *fs, struct prep_err *err);

/* Let the file system have clusters [lcn, lcn+len), which were free at the beginning. */
int prep_fs_move_grant(struct prep_fs *fs, uint64_t lcn, uint64_t len, struct prep_err *err);

/*
 * Make the metadata say that the pieces are at their new places, which were
 * free at the beginning. The bytes are the caller's to copy, from where the
 * stream had them. Returns 1; or 0 and nothing done where more clusters must be
 * granted first (m->lacks), or the pieces cannot be moved.
 */
int prep_fs_move(struct prep_fs *fs, struct prep_fs_move *m, struct prep_err *err);

int prep_fs_move_end(struct prep_fs *fs, struct prep_err *err);

#endif
