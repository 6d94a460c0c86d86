/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Differencing VHDs: the names by which they know their parent, and new ones.
 *
 * What is read and written through them is in vhd_blocks.c.
 */
#ifndef PREP_DISK_VHD_DIFF_H
#define PREP_DISK_VHD_DIFF_H

#include "libprep/base/notes.h"
#include "libprep/base/output.h"
#include "libprep/disk/parent.h"
#include "libprep/disk/vhd_format.h"

/*
 * Read the id and names of the parent from the header h of fd, whose first
 * file_size bytes may be read: relative locators, absolute ones, and last the
 * header's own name. Locators that lie elsewhere or cannot be read are noted
 * and left out.
 */
void prep_vhd_diff_names(int fd, const char *name, const struct prep_vhd_header *h, uint64_t file_size,
			 struct prep_parent_ref *ret, struct prep_notes *notes);

/* Bytes of the file from l->off on that are l's; *used: of those, that hold the name. 0 where l is unused. */
uint64_t prep_vhd_diff_locator_space(const struct prep_vhd_locator *l, uint64_t *used);

/*
 * Write an empty differencing disk: footer, header, locators, and a block table
 * without blocks. `parent` is the parent's footer, which gives id, size and
 * geometry; parent_path and path are the absolute paths of the parent and of
 * what out will be. Everything else is as Windows writes it: "win " as creator, no
 * parent time stamp. Does not commit out. id: the new disk's, random.
 */
int prep_vhd_diff_create(struct prep_output *out, const struct prep_vhd_footer *parent,
			 const char *parent_path, const char *path, uint32_t time_stamp, uint8_t id[16],
			 struct prep_err *err);

#endif
