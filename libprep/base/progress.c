/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/progress.h"

#include <stddef.h>

int prep_progress(const struct prep_progress *p, const char *what,
		  uint64_t done, uint64_t total, struct prep_err *err)
{
	if (p == NULL || p->report(p->arg, what, done, total) == 0)
		return 0;
	return prep_fail(err, PREP_EFAIL, "interrupted");
}
