/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Layout: every byte of a disk as part of exactly one stream.
 *
 * A file's data is a stream, in logical order however fragmented. So is what
 * else holds clusters: indexes, $MFT. What no stream claims (free clusters,
 * what lies behind a file's data in its last cluster, boot sectors) is divided into whole units of 64 KiB, counted from the
 * partition's start, and the pieces around them: the units are one stream of
 * each partition, the pieces that are not all zero another.
 *
 * Nothing here needs the file system to be sound: a stream whose clusters another
 * claimed first, or that leaves its volume, is given up, and its bytes are
 * among the unclaimed. A volume that cannot be read at all is unclaimed as a whole.
 */
#ifndef PREP_CKM_LAYOUT_H
#define PREP_CKM_LAYOUT_H

#include "libprep/base/pool.h"
#include "libprep/base/progress.h"
#include "libprep/ckm/index.h"
#include "libprep/volume/volumes.h"

#define PREP_LAYOUT_HOLE UINT64_MAX

/* A piece of a stream: bytes of the disk, or zeros without a place. */
struct prep_layout_piece {
	uint64_t at;  /* in the stream */
	uint64_t off; /* of the disk, or PREP_LAYOUT_HOLE: such a piece is of whole zero units (chunk.h), and in no chunk */
	uint64_t len;
};

struct prep_layout_stream {
	const char *path;       /* "" for what is no file */
	uint8_t content;        /* enum prep_content; of a file's data found out later */
	uint8_t volume;         /* the partition's number, 0 for none */
	bool is_file;           /* a file's data: the content is to be looked at */
	uint32_t block;         /* as prep_chunk_cut takes it */
	uint64_t size;
	size_t first, pieces;   /* in layout->piece */
};

struct prep_layout {
	struct prep_layout_stream *stream; /* by volume, files by path, then the rest */
	size_t streams;
	struct prep_layout_piece *piece;   /* those of a stream by ascending `at` */
	size_t pieces;
	struct prep_notes notes;           /* what could not be packed by files, and why */

	/* Private. */
	struct prep_disk *disk;
	size_t stream_room, piece_room;
	char **path; /* owned */
	size_t paths, path_room, path_bytes;
};

/*
 * Make the layout of d, which must outlive it. The pool's threads read the
 * small pieces. Release with prep_layout_clear.
 */
int prep_layout_make(struct prep_disk *d, struct prep_pool *pool, struct prep_layout *ret,
		     const struct prep_progress *progress, struct prep_err *err);
void prep_layout_clear(struct prep_layout *l);

/* Read bytes of a stream. Several threads may. */
int prep_layout_read(const struct prep_layout *l, const struct prep_layout_stream *s,
		     void *buf, size_t len, uint64_t at, struct prep_err *err);

/* prep_chunk_source.zeros of a stream. */
int prep_layout_zeros(const struct prep_layout *l, const struct prep_layout_stream *s,
		      uint64_t at, uint64_t end, uint64_t *ret, struct prep_err *err);

#endif
