/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Seed: local data that may hold chunks of a wanted disk, ready to be read.
 *
 *   a folder              its files, cut and hashed now or known from the cache
 *   an image              the streams of its disk, likewise
 *   a local index         the folders and images that it lists, as it says
 *   a package (.ckm)      its frames; its patches where the other seeds have
 *                         what they are made of
 */
#ifndef PREP_TRIM_SEED_H
#define PREP_TRIM_SEED_H

#include "libprep/ckm/frame_cache.h"
#include "libprep/ckm/hash.h"
#include "libprep/ckm/package.h"
#include "libprep/disk/parent.h"
#include "libprep/trim/catalog.h"

struct prep_seed_how {
	const char *cache;    /* folder that keeps local indexes, or NULL */
	const struct prep_ckm_access *access; /* for packages */
	unsigned jobs;        /* threads that hash */
	const struct prep_parents *parents; /* of images that are differencing disks; may be NULL */
	bool compare;         /* nothing will be read: the index of a package will do */
};

struct prep_seed_source; /* an opened folder, image or package */

/* A chunk of a seed. */
struct prep_seed_chunk {
	const struct prep_seed *seed; /* NULL: no seed has it */
	uint32_t chunk;               /* in its catalog */
};

struct prep_seed {
	struct prep_catalog catalog;
	struct prep_scan_report scan; /* what making the catalog took */
	struct prep_seed_source *source; /* of each origin */
	struct prep_seed_chunk *reference; /* of each reference of a package, once it is linked */
};

/*
 * Open what `path` names. An index in the cache is used and brought up to date; where
 * it is damaged or cannot be written, that is noted (catalog.notes). A folder
 * or image that a local index lists and that is gone is noted too.
 * PREP_EREFUSED: the index of a package, unless how->compare; and as
 * prep_disk_open and prep_ckm_open.
 */
int prep_seed_open(const char *path, const struct prep_seed_how *how, struct prep_seed **ret,
		   const struct prep_progress *progress, struct prep_err *err);

/* Whether opening `path` opens folders and images that it lists, anywhere: a local index. */
bool prep_seed_names_others(const char *path);

/*
 * An image that was restored, wholly or in part, from the package of which
 * `index` is the index: nothing of it is read before it is used.
 */
int prep_seed_open_restored(const char *path, const char *index, const struct prep_ckm_access *access,
			    struct prep_seed **ret, struct prep_err *err);
void prep_seed_close(struct prep_seed *s); /* NULL is allowed */

/*
 * Find what the patches of seeds that are packages are made of, among all the
 * seeds (but not in what other patches make); those patches can be read from then on,
 * as long as all these seeds are open.
 */
int prep_seeds_link(struct prep_seed *const *seed, size_t n, struct prep_err *err);

/* The index of a seed that is a package, or NULL. */
const struct prep_ckm_index *prep_seed_index(const struct prep_seed *s);

/*
 * Where the cache keeps the local index of the folder or image `path` (whole,
 * links resolved). The caller frees *ret.
 */
int prep_seed_cache_path(const char *cache, const char *path, char **ret, struct prep_err *err);

/* One thread's way of reading seeds. Ascending chunks of one item are the cheap order. */
struct prep_seed_reader {
	struct prep_hash hash;
	const struct prep_seed *seed; /* what the rest is of, or NULL */
	uint32_t item;
	int fd;                       /* of a folder's file */
	uint32_t run;                 /* of an image's stream: the last that was read, */
	uint64_t run_at;              /* and where it begins in the stream */
	struct prep_cached_frame *frame; /* of a package: held; or NULL */
	uint8_t *reference;           /* of a patch: what it is made of, */
	struct prep_seed_reader *other; /* and what reads that */
};

int prep_seed_reader_open(struct prep_seed_reader *r, struct prep_err *err);
/* Before the seeds are closed that were read. An all-zero struct is allowed. */
void prep_seed_reader_close(struct prep_seed_reader *r);

/*
 * Read chunk number `chunk` of the seed's catalog to buf (its size) and hash it.
 * 1: it is what the catalog says; 0: it is not, or cannot be read; -1: no memory.
 */
int prep_seed_read(struct prep_seed_reader *r, const struct prep_seed *s, uint32_t chunk, uint8_t *buf,
		   struct prep_err *err);

#endif
