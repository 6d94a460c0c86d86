/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/notes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void prep_note(struct prep_notes *notes, const char *fmt, ...)
{
	va_list ap;
	char *text;
	int n;

	if (notes->n == PREP_NOTES_MAX) {
		notes->dropped++;
		return;
	}
	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		notes->dropped++;
	else
		notes->text[notes->n++] = text;
}

void prep_notes_clear(struct prep_notes *notes)
{
	for (size_t i = 0; i < notes->n; i++)
		free(notes->text[i]);
	*notes = (struct prep_notes){ .n = 0 };
}
