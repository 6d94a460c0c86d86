/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/utf16.h"

/* Both ends of a text that is too long. */
static void shorten(char *msg, const char *text, size_t len)
{
	static const char gap[] = " ... ";
	size_t head = PREP_MESSAGE_ROOM / 2, tail = len - (PREP_MESSAGE_ROOM - head - sizeof gap);

	/* UTF-8: not within a character */
	while (head > 0 && ((unsigned char)text[head] & 0xc0) == 0x80)
		head--;
	while (((unsigned char)text[tail] & 0xc0) == 0x80)
		tail++;
	memcpy(msg, text, head);
	strcpy(stpcpy(msg + head, gap), text + tail);
}

void prep_message(char msg[PREP_MESSAGE_ROOM], const char *why, const char *fmt, va_list ap)
{
	char *text, *whole;
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(msg, PREP_MESSAGE_ROOM, fmt, ap);
	if (n >= 0 && (size_t)n + strlen(why) < PREP_MESSAGE_ROOM) {
		strcpy(msg + n, why);
	} else if (vasprintf(&text, fmt, again) >= 0) {
		n = asprintf(&whole, "%s%s", text, why);
		free(text);
		if (n >= 0) {
			shorten(msg, whole, (size_t)n);
			free(whole);
		}
	}
	va_end(again);
	prep_utf8_one_line(msg);
}

int prep_fail(struct prep_err *err, enum prep_code code, const char *fmt, ...)
{
	va_list ap;

	if (err->code != PREP_DONE)
		return -1;
	err->code = code;
	va_start(ap, fmt);
	prep_message(err->msg, "", fmt, ap);
	va_end(ap);
	return -1;
}

int prep_fail_errno(struct prep_err *err, const char *fmt, ...)
{
	char why[128];
	va_list ap;

	if (err->code != PREP_DONE)
		return -1;
	snprintf(why, sizeof why, ": %s", strerror(errno));
	err->code = PREP_EFAIL;
	va_start(ap, fmt);
	prep_message(err->msg, why, fmt, ap);
	va_end(ap);
	return -1;
}

int prep_fail_nomem(struct prep_err *err)
{
	return prep_fail(err, PREP_EFAIL, "out of memory");
}
