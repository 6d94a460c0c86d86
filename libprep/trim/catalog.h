/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Catalog: which chunks local data holds, and where.
 *
 * An origin is a folder of the host, a disk image or a package. It has items
 * (a file, a stream of an image, a frame), an item has chunks. What a catalog
 * says is a hint: files change. Whoever uses a chunk hashes it first.
 */
#ifndef PREP_TRIM_CATALOG_H
#define PREP_TRIM_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "libprep/base/notes.h"
#include "libprep/base/progress.h"
#include "libprep/ckm/index.h"
#include "libprep/disk/parent.h"

enum prep_origin_kind {
	PREP_ORIGIN_FOLDER = 1,  /* items: its files, paths below it */
	PREP_ORIGIN_IMAGE = 2,   /* items: streams of the disk, with their runs */
	PREP_ORIGIN_PACKAGE = 3, /* items: frames; never stored */
};

/* What tells that a file is the same as when it was looked at. */
struct prep_file_stamp {
	uint64_t size;       /* bytes */
	uint64_t inode;
	int64_t mtime, ctime;/* nanoseconds since 1970 */
};

struct prep_origin {
	enum prep_origin_kind kind;
	char *path;          /* absolute */
	struct prep_file_stamp stamp; /* of an image's file */
	uint32_t first_item, items;
};

struct prep_item {
	uint32_t path;       /* offset in strings; of a folder's file: below the folder, without a leading '/' */
	struct prep_file_stamp stamp; /* of a folder's file */
	uint32_t first_chunk, chunks;
	uint32_t first_run, runs;     /* of an image's stream */
};

struct prep_item_chunk {
	uint8_t digest[PREP_DIGEST_SIZE];
	uint64_t at;         /* bytes from the item's start: of the file, of its runs one after the other, of the frame */
	uint32_t size;       /* bytes */
	bool bad;            /* was read, and was something else; or needs a patch that cannot be applied */
};

/* Bounds, for what is read from a file and for what is found. */
#define PREP_CATALOG_ORIGINS_MAX 4096u
#define PREP_CATALOG_ITEMS_MAX (1u << 26)
#define PREP_CATALOG_CHUNKS_MAX (1u << 28)
#define PREP_CATALOG_RUNS_MAX (1u << 28)
#define PREP_CATALOG_STRINGS_MAX (UINT32_MAX - 1)

#define PREP_CATALOG_HOLE UINT64_MAX

struct prep_catalog {
	struct prep_origin *origin;
	struct prep_item *item;
	struct prep_item_chunk *chunk;
	struct prep_run *run;       /* bytes of the disk; off may be PREP_CATALOG_HOLE: zeros */
	char *strings;
	uint32_t origins, items, chunks, runs;
	size_t strings_len;
	/* Room allocated. */
	uint32_t origins_room, items_room, chunks_room, runs_room;
	size_t strings_room;
	bool doubted;               /* has promised in vain again and again: not looked into any more */
	bool unfinished;            /* of an image that was not restored to its end: much may not be there */
	struct prep_notes notes;    /* what could not be read */
};

void prep_catalog_clear(struct prep_catalog *c);

/*
 * Append. Items belong to the last origin, chunks and runs to the last item.
 * -1 for lack of memory or beyond the bounds above.
 */
int prep_catalog_add_origin(struct prep_catalog *c, enum prep_origin_kind kind, const char *path,
			    const struct prep_file_stamp *stamp, struct prep_err *err);
int prep_catalog_add_item(struct prep_catalog *c, const char *path, const struct prep_file_stamp *stamp,
			  struct prep_err *err);
int prep_catalog_add_chunk(struct prep_catalog *c, const uint8_t digest[PREP_DIGEST_SIZE], uint64_t at,
			   uint32_t size, struct prep_err *err);
int prep_catalog_add_run(struct prep_catalog *c, uint64_t off, uint64_t len, struct prep_err *err);

/* Append item i of `from`, with its chunks and runs, to the last origin of c. */
int prep_catalog_copy_item(struct prep_catalog *c, const struct prep_catalog *from, uint32_t i,
			   struct prep_err *err);

/* The item that holds chunk i. */
uint32_t prep_catalog_item_of(const struct prep_catalog *c, uint32_t chunk);

/* Bytes of an origin's chunks. */
uint64_t prep_catalog_bytes(const struct prep_catalog *c, const struct prep_origin *o);

static inline const char *prep_item_path(const struct prep_catalog *c, const struct prep_item *i)
{
	return c->strings + i->path;
}

void prep_file_stamp_of(const struct stat *st, struct prep_file_stamp *ret);
bool prep_file_stamp_same(const struct prep_file_stamp *a, const struct prep_file_stamp *b);

/* How much was looked at, and how much of it was new or changed. */
struct prep_scan_report {
	uint64_t files, bytes;               /* catalogued; an image counts as one file */
	uint64_t hashed_files, hashed_bytes; /* of those, read and hashed now */
	uint64_t skipped;                    /* not regular, not readable, on another file system, changing */
};

/* How local data is scanned. */
struct prep_scan_how {
	const struct prep_catalog *known; /* of an earlier scan: what has not changed is not read again; may be NULL */
	unsigned jobs;                    /* threads */
	const struct prep_parents *parents; /* of images that are differencing disks; may be NULL */
};

/*
 * Add a folder: its regular files and those in its folders, on the same file
 * system, symbolic links left alone. Files that cannot be read or that change
 * meanwhile are skipped and noted.
 */
int prep_catalog_scan_folder(struct prep_catalog *c, const char *path, const struct prep_scan_how *how,
			     struct prep_scan_report *report, const struct prep_progress *progress,
			     struct prep_err *err);

/* Add an image, cut as ckm-pack cuts it: files from their own start, the rest by blocks. */
int prep_catalog_scan_image(struct prep_catalog *c, const char *path, const struct prep_scan_how *how,
			    struct prep_scan_report *report, const struct prep_progress *progress,
			    struct prep_err *err);

/*
 * Add an image without reading it, by the index of the package that it was
 * restored from.
 */
int prep_catalog_add_restored(struct prep_catalog *c, const char *path, const struct prep_file_stamp *stamp,
			      const struct prep_ckm_index *index, struct prep_err *err);

/*
 * Add the frames of a package. What only its patches have is `bad` until
 * prep_seeds_link finds what they are made of; it comes last.
 */
int prep_catalog_add_package(struct prep_catalog *c, const char *path, const struct prep_ckm_index *index,
			     struct prep_err *err);

#endif
