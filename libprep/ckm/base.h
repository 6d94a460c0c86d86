/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Base: an older image that a package is made against. Its index tells which
 * chunks it has; where its content is at hand too, patches can be made of that.
 */
#ifndef PREP_CKM_BASE_H
#define PREP_CKM_BASE_H

#include "libprep/ckm/frame_cache.h"
#include "libprep/ckm/hash.h"
#include "libprep/ckm/package.h"
#include "libprep/ckm/plan.h"
#include "libprep/disk/parent.h"

struct prep_base_how {
	const char *index;  /* a package, or its index; NULL: the image is surveyed */
	const char *image;  /* a VHD, VHDX or raw disk, or a whole package; NULL: the content is index's, if that has any */
	struct prep_ckm_access access;
	const struct prep_parents *parents; /* of a differencing disk: as prep_disk_open_chain has them */
};

struct prep_base {
	const char *name;                   /* of what the content is read from */
	const struct prep_ckm_index *index;
	struct prep_chunk_table *table;
	uint8_t id[16];                     /* of the package; zeros where the image was surveyed */
	bool has_content;

	/* Private. */
	struct prep_ckm *package;
	struct prep_frame_cache *frames;    /* where the content is the package's */
	struct prep_disk *disk;
	struct prep_plan plan;              /* of a surveyed image: owns the index */
	struct prep_survey survey;
	struct prep_base_home {             /* of each chunk: where it is first used */
		uint32_t stream;
		uint64_t at;
	} *home;
	uint64_t *run_at;                   /* of each run: where it begins in its stream */
};

/*
 * Open a base. As prep_ckm_open and prep_disk_open fail; PREP_EREFUSED when image and
 * index are of disks of different size, or of different packages. The strings must outlive it.
 */
int prep_base_open(const struct prep_base_how *how, struct prep_pool *pool, struct prep_base *ret,
		   const struct prep_progress *progress, struct prep_err *err);
void prep_base_close(struct prep_base *b); /* an all-zero struct is allowed */

/* Whether the content of a chunk can be read: a difference package lacks some. */
bool prep_base_readable(const struct prep_base *b, uint32_t chunk);

/* One thread's way of reading a base. */
struct prep_base_reader {
	struct prep_hash hash;
	struct prep_cached_frame *frame; /* of a package: the one read last, held; or NULL */
};
int prep_base_reader_open(struct prep_base_reader *r, struct prep_err *err);
/* Before the bases are closed that were read. An all-zero struct is allowed. */
void prep_base_reader_close(struct prep_base_reader *r);

/*
 * Read a chunk, verified, to buf. PREP_EREFUSED when it is not what the index
 * says: another image than the index is of; the message names both.
 */
int prep_base_read(struct prep_base_reader *r, const struct prep_base *b, uint32_t chunk, uint8_t *buf,
		   struct prep_err *err);

#endif
