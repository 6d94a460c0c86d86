/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Local index: a catalog of folders and images on disk, so that a later run
 * hashes only what has changed.
 *
 * A cache of this toolkit, not for exchange: another version may make another
 * format, which is then refused, and made anew. All integers little-endian.
 *
 *   0  8  "CKMLOCAL"
 *   8  4  version: 1
 *  12  4  number of origins
 *  16  4  number of items
 *  20  4  number of chunks
 *  24  4  number of runs
 *  28  4  bytes of strings
 *  32     origins, 48 bytes each: u32 kind (1 folder, 2 image), u32 path, stamp, u32 items, u32 zero
 *         items, 44 bytes each: u32 path, u32 chunks, u32 runs, stamp
 *         chunks, 44 bytes each: SHA-256, u64 at, u32 size
 *         runs, 16 bytes each: u64 offset on the disk (all ones: zeros without a place), u64 length
 *         strings: paths, each with its NUL; "path" above is an offset in here
 *         SHA-256 of all that precedes
 *
 * A stamp is u64 size, u64 inode, i64 mtime, i64 ctime (nanoseconds since
 * 1970). Items follow each other as their origins do, chunks and runs as their
 * items do.
 */
#ifndef PREP_TRIM_LOCAL_INDEX_H
#define PREP_TRIM_LOCAL_INDEX_H

#include "libprep/trim/catalog.h"

#define PREP_LOCAL_INDEX_MAGIC "CKMLOCAL"

/*
 * Read one. PREP_EREFUSED: not a local index, or of another version;
 * PREP_EDAMAGED. The caller clears *ret.
 */
int prep_local_index_read(const char *path, struct prep_catalog *ret, struct prep_err *err);

/* The same from memory; `name` is for messages. */
int prep_local_index_decode(const uint8_t *p, size_t len, const char *name, struct prep_catalog *ret,
			    struct prep_err *err);

/* Write one, complete or not at all. The catalog has no packages. */
int prep_local_index_write(const struct prep_catalog *c, const char *path, bool replace,
			   struct prep_err *err);

#endif
