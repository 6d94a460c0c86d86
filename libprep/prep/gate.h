/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The gate: what a volume must pass before anything of it is changed.
 */
#ifndef PREP_PREP_GATE_H
#define PREP_PREP_GATE_H

#include "libprep/base/progress.h"
#include "libprep/volume/volumes.h"

enum prep_gate {
	PREP_GATE_CLUSTERS, /* only free clusters are touched: allocation must be sound */
	PREP_GATE_RECORDS,  /* files are removed or moved: records and directories too */
};

/*
 * Open the file system on v for reading and audit it. PREP_EREFUSED when an
 * obstacle stands, PREP_EDAMAGED when the audit finds damage that forbids the
 * change. The caller releases both.
 */
int prep_gate_open(const struct prep_volume *v, enum prep_gate gate, struct prep_fs **fs,
		   struct prep_fs_audit *audit, const struct prep_progress *progress,
		   struct prep_err *err);

/* The same judgement on an audit that was made: 0, or PREP_EDAMAGED naming the first problem. */
int prep_gate_judge(const struct prep_fs_audit *audit, enum prep_gate gate, const char *name,
		    struct prep_err *err);

/* PREP_EREFUSED naming the obstacles of fs but those in `allowed` (enum prep_fs_obstacle). */
int prep_gate_obstacles(const struct prep_fs *fs, unsigned allowed, const char *name,
			struct prep_err *err);

#endif
