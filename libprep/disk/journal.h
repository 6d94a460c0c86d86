/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The redo journal: all changes of one command to an image, or none.
 *
 * The changes staged in an overlay are written to IMAGE.prep-journal, which
 * appears complete and synced; then they are applied to the image, which is
 * synced; then the journal goes. Before the journal stands, the image is
 * untouched; from then on the next command that opens the image applies the
 * journal again (every record may be applied any number of times).
 */
#ifndef PREP_DISK_JOURNAL_H
#define PREP_DISK_JOURNAL_H

#include "libprep/base/progress.h"
#include "libprep/disk/disk.h"

/*
 * Commit what `overlay` (overlay.h) holds to its base disk, which was opened
 * for writing from the file `path`. *zeroed: bytes that were not zero and now
 * are, by the overlay's zero fills. After a failure the image is old, or the
 * journal stands and the message says so.
 */
int prep_journal_commit(struct prep_disk *overlay, const char *path, uint64_t *zeroed,
			const struct prep_progress *progress, struct prep_err *err);

/*
 * Finish what a journal beside `path` holds, if there is one. PREP_EREFUSED
 * when it belongs to another image, or the image or its folder cannot be written or is in
 * use; PREP_EDAMAGED when the journal is. parents: as for prep_disk_open_chain.
 */
int prep_journal_recover(const char *path, const struct prep_parents *parents, struct prep_err *err);

/* Whether there is one beside `path`; and whether one is in its folder, be it another image's. */
bool prep_journal_waits(const char *path);
bool prep_journal_waits_near(const char *path);

#endif
