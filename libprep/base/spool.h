/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Spool: a stream kept in an unnamed file, for work that needs to seek.
 */
#ifndef PREP_BASE_SPOOL_H
#define PREP_BASE_SPOOL_H

#include <stddef.h>

#include "libprep/base/err.h"
#include "libprep/base/progress.h"

/*
 * Copy what is left of `fd` to a new unnamed file in the folder dir, zeros as
 * holes. `head` are bytes already taken from fd, which come first. Returns the
 * new descriptor, which the caller closes.
 */
int prep_spool(int fd, const void *head, size_t head_len, const char *dir, const char *name,
	       const struct prep_progress *progress, struct prep_err *err);

#endif
