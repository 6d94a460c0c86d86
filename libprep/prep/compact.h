/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Compact: leave out every block that is all zero, from a pipe.
 *
 * From a file, compaction is an export that looks for zeros (disk/export.h).
 */
#ifndef PREP_PREP_COMPACT_H
#define PREP_PREP_COMPACT_H

#include "libprep/disk/export.h"
#include "libprep/disk/vhd_stream.h"

/*
 * Write what s holds to out, a dynamic VHD, blocks in the order they come. out
 * must be seekable, and the blocks that `how` asks for no larger than those of
 * s. Does not commit out.
 */
int prep_compact_stream(struct prep_vhd_stream *s, struct prep_output *out,
			const struct prep_export *how, struct prep_export_report *report,
			const struct prep_progress *progress, struct prep_err *err);

#endif
