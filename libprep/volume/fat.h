/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * FAT12, FAT16, FAT32 and exFAT: what their files share. fat.c and exfat.c
 * open; fat_table.c reads and clears chains of clusters; fat_dir.c and
 * exfat_dir.c read folders, fat_tree.c all of them, one below the other;
 * exfat_tables.c is the bitmap and the up-case table. fat_audit.c, fat_walk.c,
 * fat_find.c and fat_remove.c are the calls of fs.h, for all four.
 *
 * Sources: Microsoft, FAT32 File System Specification 1.03 (fatgen103), with
 * its long names; Microsoft, exFAT file system specification (revision 1.00,
 * 2019). Numbers in comments are of the latter's sections.
 *
 * What fs.h's terms mean here:
 *   cluster numbers   of maps and messages: as in the FAT, the first is 2; of
 *                     free maps: from 0, at info.clusters_off of the volume
 *   id                of a file: the place of its short entry (exFAT: its file
 *                     entry) in the volume, in slots of 32 bytes
 *   parent_id         the folder's first cluster, 0 of FAT12's and FAT16's root;
 *                     in the upper half how many clusters it has, where exFAT
 *                     keeps it in contiguous ones
 *   version           "12", "16", "32"; of exFAT its revision, "1.0"
 *   streams           one for each file that has clusters. Folders, tables and
 *                     exFAT's bitmap are metadata, outside all streams
 * and the fields of the audit:
 *   used              clusters whose entry in the FAT is not 0 (exFAT: whose bit
 *                     is set), bad ones included
 *   crosslinked       clusters where a chain meets another or itself, or a bad
 *                     cluster; what follows in the chain is not counted again
 *   outside           links to clusters that the volume does not have
 *   claimed_free      clusters of a chain that are marked free: it breaks off
 *   used_unclaimed    lost chains
 *   bad               clusters marked bad; they are never free
 *   copies            entries in which the copies of the FAT differ; a copy of
 *                     the boot sector that contradicts it, or is damaged
 *   records           entries of files and folders, the root not among them
 *   unreadable        entries, or sets of them, that are damaged; folders that
 *                     are nested too deeply
 *   sizes             files whose size and number of clusters do not go together
 *   dangling          folders without a cluster, or whose '.' and '..' lead elsewhere
 *   orphans           exFAT: secondary entries without their file. (Parts of long
 *                     names without theirs are noted, and do no harm)
 *   link_counts, record_bitmap, records_unmarked   always 0
 */
#ifndef PREP_VOLUME_FAT_H
#define PREP_VOLUME_FAT_H

#include "libprep/volume/fs_ops.h"

#define PREP_FAT_SLOT 32u         /* bytes of an entry in a folder */
#define PREP_FAT_SLOTS_MAX 256u   /* of one file: exFAT's count is a byte */

/* What the FAT says of a cluster, whatever the width: a number, or one of these. */
#define PREP_FAT_FREE 0u
#define PREP_FAT_BAD 0xfffffff7u
#define PREP_FAT_END 0xffffffffu

#define PREP_FAT_PAGE 4096u
#define PREP_FAT_PAGES 256u

struct prep_fat;
struct prep_fat_dir;
struct prep_fat_entry;

/* What FAT and exFAT do differently. */
struct prep_fat_format {
	/* The next entry of a folder, those not in use passed over: 1, 0 at its end, -1. */
	int (*next_entry)(struct prep_fat_dir *d, struct prep_fat_entry *ret, struct prep_err *err);
	/* Fill in f->upcase, which is there. */
	int (*load_upcase)(struct prep_fat *f, struct prep_err *err);
	/* Mark the clusters of a chain that was read free. */
	int (*free_clusters)(struct prep_fat *f, uint32_t first, uint32_t count, struct prep_err *err);
	/* What a slot's first byte becomes when its file is removed. */
	uint8_t (*freed_mark)(uint8_t mark);
	/* After removals: put right what says how much is free. */
	int (*finish)(struct prep_fat *f, struct prep_err *err);
};

struct prep_fat {
	struct prep_fs fs;
	const struct prep_fat_format *format;
	struct prep_disk *disk;
	bool write, exfat;
	bool changed;             /* something was removed: summaries must be put right at the end */

	/* Layout, checked to lie inside the volume; bytes */
	unsigned bits;            /* of an entry of the FAT: 12, 16, 32 */
	uint32_t sector, cluster_size;
	uint32_t clusters;        /* numbered from 2 */
	uint64_t fat_off, fat_len;/* the first copy; the length of each */
	unsigned fats, active;    /* copies, and the one that counts */
	bool mirrored;            /* the others are kept the same */
	uint64_t data_off;        /* cluster 2 */
	uint64_t root_off;        /* FAT12, FAT16 */
	uint32_t root_len;
	uint32_t root_cluster;    /* FAT32, exFAT; else 0 */
	uint64_t info_off;        /* FAT32: FSInfo; 0: there is none */
	uint64_t backup_off;      /* copy of the boot sector (exFAT: boot region); 0: there is none */

	/* exFAT: files of its own */
	struct prep_fs_run *bitmap;
	size_t bitmap_runs;
	struct prep_fs_run table; /* the FAT in force, of FAT12 to FAT32 */
	uint32_t upcase_cluster, upcase_checksum;
	uint64_t upcase_len;

	uint16_t *upcase;         /* 65536 units; NULL until prep_fat_load_upcase */

	/* Pages of the active FAT, each where its number says */
	uint8_t (*page)[PREP_FAT_PAGE];
	uint64_t page_number[PREP_FAT_PAGES]; /* + 1; 0: none */

	/* The piece of a folder that was read last */
	uint8_t block[4096];
	uint64_t block_off;
	size_t block_len;

	struct prep_fat_dir *last; /* the folder of the last removal, and how far it was read */
	uint64_t last_parent;
};

/* ---- fat_table.c ---- */

static inline bool prep_fat_is_cluster(const struct prep_fat *f, uint32_t cluster)
{
	return cluster >= 2 && cluster - 2 < f->clusters;
}

static inline uint64_t prep_fat_offset(const struct prep_fat *f, uint32_t cluster)
{
	return f->data_off + (uint64_t)(cluster - 2) * f->cluster_size;
}

static inline uint64_t prep_fat_clusters_of(const struct prep_fat *f, uint64_t bytes)
{
	return bytes / f->cluster_size + (bytes % f->cluster_size != 0);
}

/* What the FAT says of a cluster of the volume. */
int prep_fat_get(struct prep_fat *f, uint32_t cluster, uint32_t *ret, struct prep_err *err);

/* The same, of an entry that stands at p (FAT12: its first byte; `odd` ones begin in the middle of it). */
uint32_t prep_fat_value(const struct prep_fat *f, const uint8_t *p, bool odd);

/* A chain of clusters, read run by run. */
struct prep_fat_chain {
	struct prep_fat *f;
	uint32_t next;            /* first cluster of the next run */
	bool contiguous;          /* exFAT: the FAT is not asked */
	uint64_t left;            /* clusters that may still come */
	const char *damage;       /* why the chain broke off; NULL */
};

/* At most `limit` clusters; one that goes on is then cut off without a word. Contiguous chains have as many. */
struct prep_fat_chain prep_fat_chain_of(struct prep_fat *f, uint32_t first, bool contiguous,
					uint64_t limit);

/* The next run: 1, or 0 at the end, proper or not (damage), -1 for other failures. */
int prep_fat_chain_next(struct prep_fat_chain *c, uint32_t *first, uint32_t *count,
			struct prep_err *err);

/* Mark clusters free in every copy of the FAT that is in use. */
int prep_fat_clear(struct prep_fat *f, uint32_t first, uint32_t count, struct prep_err *err);

/* Go through all entries of the active FAT, from cluster 2 on. */
int prep_fat_scan(struct prep_fat *f,
		  int (*fn)(void *arg, uint32_t cluster, uint32_t value, struct prep_err *err),
		  void *arg, struct prep_err *err);

/* ---- fat_dir.c, exfat_dir.c ---- */

enum prep_fat_kind {
	PREP_FAT_FILE,            /* or a folder */
	PREP_FAT_LABEL,
	PREP_FAT_DOT,             /* '.' */
	PREP_FAT_DOTDOT,
	PREP_FAT_BITMAP,          /* exFAT: files of its own */
	PREP_FAT_UPCASE,
	PREP_FAT_DAMAGED,         /* what it was to be does not matter: see damage */
};

struct prep_fat_entry {
	enum prep_fat_kind kind;
	uint64_t id;
	uint8_t name[2 * 255];    /* UTF-16LE, the long name where there is one */
	uint8_t alias[2 * 12];    /* the 8.3 name of a file with a long one */
	unsigned units, alias_units;
	bool folder;
	bool contiguous;          /* exFAT: its clusters follow each other, and are not in the FAT */
	uint32_t first;           /* cluster; 0: none */
	uint32_t checksum;        /* exFAT: of the up-case table */
	uint64_t size;            /* bytes of data; of folders: 0, on exFAT that of its clusters */
	uint64_t initialized;
	const char *damage;
	bool foreign;             /* exFAT: it has clusters besides its data */
	unsigned slots;           /* the entries that make it up: where they stand in the volume */
	uint64_t slot[PREP_FAT_SLOTS_MAX];
};

/* A folder being read. */
struct prep_fat_dir {
	struct prep_fat *f;
	uint32_t first, cluster;
	bool fixed;               /* the root of FAT12 and FAT16, which has no clusters */
	bool contiguous;
	uint64_t at;              /* bytes read so far */
	uint64_t end;             /* bytes that it can have; those that it has where `exact` */
	bool exact;
	bool lenient;             /* a damaged chain is the folder's end, not a failure */
	bool again, done;         /* the slot at hand is to be given once more; there are no more */
	const uint8_t *slot;
	uint64_t slot_off;
	uint64_t orphans;         /* slots seen that belong to nothing; the first of them: */
	uint64_t orphan_off;
	uint8_t *seen;            /* where not NULL: a bit a cluster that some folder was read from */
};

/* The root, or a folder's clusters. */
struct prep_fat_dir prep_fat_root(struct prep_fat *f);
struct prep_fat_dir prep_fat_dir_of(struct prep_fat *f, uint32_t first, bool contiguous,
				    uint64_t size);

/* The next slot, until the marker of the end: 1 and d->slot, d->slot_off; 0 at the end, -1. */
int prep_fat_next_slot(struct prep_fat_dir *d, struct prep_err *err);

/* See next_entry. */
int prep_fat_next_entry(struct prep_fat_dir *d, struct prep_fat_entry *ret, struct prep_err *err);
int prep_exfat_next_entry(struct prep_fat_dir *d, struct prep_fat_entry *ret, struct prep_err *err);

/* Always -1: the folder is damaged. */
int prep_fat_dir_damaged(const struct prep_fat_dir *d, const char *what, struct prep_err *err);

/* A long name has at most 255 units. */
#define PREP_FAT_NAME_ROOM (255 * 3 + 1)
size_t prep_fat_name_utf8(const struct prep_fat_entry *e, char *out);

/* 11 bytes of a short name or label as UTF-16LE: units. */
unsigned prep_fat_oem_to_utf16(const uint8_t *p, size_t len, uint8_t *out);

/* ---- fat_tree.c ---- */

/* A folder on the way down. */
struct prep_fat_level {
	struct prep_fat_dir dir;
	uint64_t id;              /* of the folder's entry, as the next three; 0 of the root */
	uint32_t first;
	bool contiguous;
	uint64_t size;
	size_t path_len;          /* of its path, without '/' at the end */
	unsigned tag;             /* the caller's */
};

struct prep_fat_tree {
	struct prep_fat *f;
	struct prep_fat_level *level; /* the root first */
	size_t n, room;
	struct prep_fat_entry entry;  /* the one just read, of the topmost folder */
	struct prep_fat_level left;   /* the folder just left */
	uint8_t *seen;
	char *path;
	size_t path_room;
};

enum { PREP_FAT_TREE_END, PREP_FAT_TREE_ENTRY, PREP_FAT_TREE_LEFT };

/* Begin with the root. lenient: as prep_fat_dir has it. Close it even after a failure. */
int prep_fat_tree_open(struct prep_fat_tree *t, struct prep_fat *f, bool lenient, struct prep_err *err);
void prep_fat_tree_close(struct prep_fat_tree *t);

/* The next entry of the topmost folder, or where it has none the folder itself again, left; -1. */
int prep_fat_tree_next(struct prep_fat_tree *t, struct prep_err *err);

/* Go into the folder that was just read. 0, and not entered, when it is nested deeper than any path. */
int prep_fat_tree_enter(struct prep_fat_tree *t, unsigned tag, struct prep_err *err);

/* The path of the entry just read; after PREP_FAT_TREE_LEFT that of the folder, "" of the root. Until the next call. */
int prep_fat_tree_path(struct prep_fat_tree *t, const char **ret, struct prep_err *err);
const char *prep_fat_tree_left_path(struct prep_fat_tree *t);

/* ---- fat.c, exfat.c: opening ---- */

/* An empty volume, to be filled in by the kind's check of its boot sector; NULL without memory. */
struct prep_fat *prep_fat_new(struct prep_disk *volume, const struct prep_fat_format *format);
void prep_fat_free(struct prep_fat *f);

/* Record an obstacle. */
void prep_fat_obstacle(struct prep_fat *f, unsigned obstacle, const char *text);

/* The rest of opening: the label, and what stands against writing. Takes f, even on failure. */
int prep_fat_finish_open(struct prep_fat *f, unsigned flags, struct prep_fs **ret, struct prep_err *err);

/* ---- exfat_tables.c ---- */

/* All of the bitmap, into (clusters + 63) / 64 words. */
int prep_exfat_read_bitmap(struct prep_fat *f, uint8_t *map, struct prep_err *err);
int prep_exfat_free_clusters(struct prep_fat *f, uint32_t first, uint32_t count, struct prep_err *err);
int prep_exfat_load_upcase(struct prep_fat *f, struct prep_err *err);

/* Whether the boot region at `off` has the checksum that it says: 1, 0 or -1. */
int prep_exfat_boot_sound(struct prep_fat *f, uint64_t off, struct prep_err *err);

/* ---- fat_find.c ---- */

/* Make f->upcase, unless it is there. */
int prep_fat_load_upcase(struct prep_fat *f, struct prep_err *err);

/* ---- The calls of fs.h ---- */

int prep_fat_audit(struct prep_fs *fs, struct prep_fs_audit *ret,
		   const struct prep_progress *progress, struct prep_err *err);
int prep_fat_walk(struct prep_fs *fs, unsigned flags,
		  int (*fn)(void *arg, const struct prep_fs_stream *s, struct prep_err *err),
		  void *arg, struct prep_err *err);
int prep_fat_find(struct prep_fs *fs, const char *pattern, bool recursive,
		  struct prep_fs_list *list, struct prep_err *err);
int prep_fat_remove(struct prep_fs *fs, const struct prep_fs_entry *entry, struct prep_err *err);

#endif
