/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Progress: long work tells how far it is, and asks whether to go on.
 */
#ifndef PREP_BASE_PROGRESS_H
#define PREP_BASE_PROGRESS_H

#include <stdint.h>

#include "libprep/base/err.h"

struct prep_progress {
	/*
	 * Called often, from the thread that does the work. `what` names the
	 * step ("zeroing"); done and total are bytes, total 0 if unknown.
	 * Returns non-zero to stop the work, which then fails as interrupted.
	 */
	int (*report)(void *arg, const char *what, uint64_t done, uint64_t total);
	void *arg;
};

/* Report to p, which may be NULL. -1 with PREP_EFAIL "interrupted" when told to stop. */
int prep_progress(const struct prep_progress *p, const char *what,
		  uint64_t done, uint64_t total, struct prep_err *err);

#endif
