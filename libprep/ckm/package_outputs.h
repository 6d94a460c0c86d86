/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Package outputs: the two files that a package is, PACKAGE and PACKAGE.index
 * beside it. Both appear complete, or neither.
 */
#ifndef PREP_CKM_PACKAGE_OUTPUTS_H
#define PREP_CKM_PACKAGE_OUTPUTS_H

#include "libprep/base/output.h"

/*
 * Whether the two can be written under these names. PREP_EUSAGE: the package is a
 * stream. PREP_EREFUSED: it is a symbolic link, and the index is not one to the same folder: what is
 * overwritten there would be left with the index of what it was.
 */
int prep_package_outputs_check(const char *package, const char *index, struct prep_err *err);

/* Give both their names, or on a failure neither, unless a file was replaced: then there is no way back. */
int prep_package_outputs_commit(struct prep_output *package, struct prep_output *index, struct prep_err *err);

#endif
