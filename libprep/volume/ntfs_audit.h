/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the two halves of the NTFS audit share: ntfs_audit.c takes all records
 * and counts clusters, ntfs_audit_names.c sets names against index entries.
 */
#ifndef PREP_VOLUME_NTFS_AUDIT_H
#define PREP_VOLUME_NTFS_AUDIT_H

#include "libprep/volume/ntfs_dir.h"
#include "libprep/volume/ntfs_internal.h"

/* Kinds of problems, each noted only a few times. */
enum prep_ntfs_problem {
	PREP_NTFS_P_CROSSLINKED,
	PREP_NTFS_P_OUTSIDE,
	PREP_NTFS_P_CLAIMED_FREE,
	PREP_NTFS_P_UNCLAIMED,
	PREP_NTFS_P_UNREADABLE,
	PREP_NTFS_P_RECORD_BITMAP,
	PREP_NTFS_P_DANGLING,
	PREP_NTFS_P_ORPHAN,
	PREP_NTFS_P_LINK_COUNT,
	PREP_NTFS_PROBLEMS,
};
#define PREP_NTFS_NOTES_EACH 3

/* A cluster whose owners a note shall name: `second` is known, the first is looked for. */
struct prep_ntfs_wanted {
	enum prep_ntfs_problem problem;
	uint64_t lcn;
	uint64_t first, second; /* records, UINT64_MAX: not known */
};

/* Bits of what is known of a record */
#define PREP_NTFS_R_USED 1u
#define PREP_NTFS_R_BASE 2u    /* in use, and no extension */
#define PREP_NTFS_R_LISTED 4u  /* an extension that its base record's list names */
#define PREP_NTFS_R_SUSPECT 8u /* its names and the entries that lead to it do not balance */

struct prep_ntfs_auditor {
	struct prep_ntfs *n;
	struct prep_fs_audit *a;
	struct prep_ntfs_mft mft;
	struct prep_ntfs_tree tree;

	/* A bit a cluster */
	uint8_t *claimed;
	uint8_t *twice;          /* claimed more than once; made when the first one is */
	uint64_t claims;         /* clusters of all claims so far */

	/* Per record */
	uint8_t *marked;         /* a bit each: $MFT's bitmap */
	uint8_t *known;
	uint32_t *balance;       /* sum of its names' hashes, less that of the entries leading to it */

	uint64_t number;         /* of the record being looked at */
	unsigned noted[PREP_NTFS_PROBLEMS];
	struct prep_ntfs_wanted wanted[2 * PREP_NTFS_NOTES_EACH];
	size_t wanted_n;
	uint64_t lost[PREP_NTFS_NOTES_EACH]; /* clusters marked used, claimed by nobody */
	size_t lost_n;
};

/* Whether another note of the kind would be kept; counts it. */
bool prep_ntfs_note_due(struct prep_ntfs_auditor *x, enum prep_ntfs_problem problem);

/* Note "NAME: record N: what (path)". */
int prep_ntfs_note_record(struct prep_ntfs_auditor *x, enum prep_ntfs_problem problem,
			  uint64_t number, const char *what, struct prep_err *err);

/* Take up a base record's names, and where it is a folder the entries in it. */
int prep_ntfs_audit_file(struct prep_ntfs_auditor *x, const struct prep_ntfs_file *f,
			 struct prep_err *err);

/* After all records: find out which names and entries do not match. */
int prep_ntfs_audit_balance(struct prep_ntfs_auditor *x, struct prep_err *err);

#endif
