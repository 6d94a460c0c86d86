/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int prep_fail(struct prep_err *err, enum prep_code code, const char *fmt, ...)
{
	va_list ap;

	if (err->code != PREP_DONE)
		return -1;
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	va_end(ap);
	return -1;
}

int prep_fail_errno(struct prep_err *err, const char *fmt, ...)
{
	const int saved = errno;
	va_list ap;
	int n;

	if (err->code != PREP_DONE)
		return -1;
	err->code = PREP_EFAIL;
	va_start(ap, fmt);
	n = vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof err->msg)
		snprintf(err->msg + n, sizeof err->msg - (size_t)n, ": %s", strerror(saved));
	return -1;
}

int prep_fail_nomem(struct prep_err *err)
{
	return prep_fail(err, PREP_EFAIL, "out of memory");
}
