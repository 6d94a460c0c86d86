/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Partial: what there is of an image that is being fetched, in the folder
 * OUT.part beside it, so that a later run goes on where this one ends,
 * however it ends.
 *
 *   OUT.part/index    the index of the package, as fetched
 *   OUT.part/state    which version of it that is, and the format of the image (JSON)
 *   OUT.part/disk     the image, in its final layout
 *   OUT.part/frames   a sparse copy of the package: frames, or their beginnings,
 *                     that have come and are not unpacked yet
 *   OUT.part/old, old.index   an unfinished image of an earlier package: a seed
 *
 * None of it is trusted: chunks and frames are hashed, as those from anywhere.
 */
#ifndef PREP_TRIM_PARTIAL_H
#define PREP_TRIM_PARTIAL_H

#include "libprep/disk/export.h"
#include "libprep/trim/http.h"

struct prep_partial {
	char *path;           /* of the folder */
	char *index, *state, *disk, *frames, *old, *old_index; /* of what is in it */
	int fd;               /* of the folder, locked */
	uint8_t *section;     /* the index that is there, or NULL */
	size_t section_len;
	char source[65];      /* SHA-256 of the URL, in hex: a URL may hold what others must not see */
	struct prep_http_version version; /* of the index, at that URL; empty when it came from another */
	int format;           /* of the disk: enum prep_format, -1: there is none */
	uint32_t block_size;
};

/*
 * Open the folder of the image `out`, which is to come from url, and make it where there is none. PREP_EREFUSED when
 * another process has it, and still has it two seconds later. What cannot be read in it counts as not there.
 */
int prep_partial_open(const char *out, const char *url, struct prep_partial *ret, struct prep_err *err);
void prep_partial_close(struct prep_partial *p); /* an all-zero struct is allowed */

/*
 * The package is now the one with this index section. Where it is another than
 * before, the disk of that becomes `old`, and its frames go.
 */
int prep_partial_set_index(struct prep_partial *p, const uint8_t *section, size_t len,
			   const struct prep_http_version *version, struct prep_err *err);

/* The image will have this format. One of another format goes. */
int prep_partial_set_format(struct prep_partial *p, const struct prep_export *how, struct prep_err *err);

/* Remove the folder and all that this file lists. */
void prep_partial_remove(struct prep_partial *p);

#endif
