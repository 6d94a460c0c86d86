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

/* Whether `how` can be made from s as its blocks come, without a copy in between. */
bool prep_compact_streams(const struct prep_vhd_stream *s, const struct prep_output *out,
			  const struct prep_export *how);

/*
 * Write what s holds to out, a dynamic VHD, blocks in the order they come. Only
 * where prep_compact_streams says so. Does not commit out.
 */
int prep_compact_stream(struct prep_vhd_stream *s, struct prep_output *out,
			const struct prep_export *how, struct prep_export_report *report,
			const struct prep_progress *progress, struct prep_err *err);

#endif
