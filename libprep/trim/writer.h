/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Writer: chunks, in any order and from several threads, to all their places
 * in the image that is being restored.
 */
#ifndef PREP_TRIM_WRITER_H
#define PREP_TRIM_WRITER_H

#include "libprep/trim/places.h"
#include "libprep/trim/target.h"

struct prep_writer {
	const struct prep_ckm_index *index;
	struct prep_output *out;
	struct prep_target target;
	struct prep_places places;
	bool used;   /* the file may hold bytes already: zeros must be written too */
};

/* Lay the image out in `out` (target.h). used: its file is one of an earlier try. Close in any case. */
int prep_writer_open(const struct prep_ckm_index *index, const struct prep_export *how,
		     struct prep_output *out, bool used, struct prep_writer *ret, struct prep_err *err);
void prep_writer_close(struct prep_writer *w);

/*
 * Bytes on their way to the file, which wait for those that adjoin them in memory
 * and in the file: one write for a file's chunks. Of one thread; begins as zeros.
 */
struct prep_writer_pending {
	const uint8_t *p;
	size_t len;
	uint64_t off;
};

/*
 * Write a chunk's bytes, which have been verified, to every place. `data` must stay
 * until the next prep_writer_flush.
 */
int prep_writer_chunk(const struct prep_writer *w, struct prep_writer_pending *pending, uint32_t chunk,
		      const uint8_t *data, struct prep_err *err);

/* The same for one place: reference number ref. */
int prep_writer_place(const struct prep_writer *w, struct prep_writer_pending *pending, uint32_t ref,
		      const uint8_t *data, struct prep_err *err);

/* Write what is pending. */
int prep_writer_flush(const struct prep_writer *w, struct prep_writer_pending *pending, struct prep_err *err);

/* Read back what stands at one place: the chunk's size to buf. What was never written is zeros. */
int prep_writer_read(const struct prep_writer *w, uint32_t ref, uint8_t *buf, struct prep_err *err);

#endif
