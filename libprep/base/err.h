/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Errors: one caller-owned struct, always the last argument.
 *
 * A function that can fail returns 0 (or a useful non-negative value) and -1
 * with *err filled in. The first failure wins: clean-up that fails later does
 * not overwrite it. The code is the exit status that a command ends with.
 */
#ifndef PREP_BASE_ERR_H
#define PREP_BASE_ERR_H

#include <stdarg.h>
#include <stddef.h>

enum prep_code {
	PREP_DONE = 0,
	PREP_EFAIL = 1,    /* I/O, space, memory, interrupted */
	PREP_EUSAGE = 2,   /* wrong usage */
	PREP_EREFUSED = 3, /* refused, nothing changed */
	PREP_EDAMAGED = 4, /* the data is damaged or differs */
};

#define PREP_MESSAGE_ROOM 768

struct prep_err {
	enum prep_code code;
	char msg[PREP_MESSAGE_ROOM]; /* "file: message", lower case, no full stop */
};

#define PREP_ERR_INIT { PREP_DONE, "" }

/*
 * Make a message, with `why` ("" for none) behind it. One that is too long loses its middle: an image may
 * have paths of many KB, and what is wrong stands behind them. It is one line, whatever these paths hold.
 */
void prep_message(char msg[PREP_MESSAGE_ROOM], const char *why, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

/* Record a failure unless one is recorded already. Always returns -1. */
int prep_fail(struct prep_err *err, enum prep_code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same with ": strerror(errno)" appended and code PREP_EFAIL. */
int prep_fail_errno(struct prep_err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Out of memory. Always returns -1. */
int prep_fail_nomem(struct prep_err *err);

#endif
