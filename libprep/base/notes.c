/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/notes.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/err.h"

void prep_note(struct prep_notes *notes, const char *fmt, ...)
{
	char text[PREP_MESSAGE_ROOM];
	va_list ap;

	if (notes->n == PREP_NOTES_MAX) {
		notes->dropped++;
		return;
	}
	va_start(ap, fmt);
	prep_message(text, "", fmt, ap);
	va_end(ap);
	notes->text[notes->n] = strdup(text);
	if (notes->text[notes->n] == NULL)
		notes->dropped++;
	else
		notes->n++;
}

void prep_notes_clear(struct prep_notes *notes)
{
	for (size_t i = 0; i < notes->n; i++)
		free(notes->text[i]);
	*notes = (struct prep_notes){ .n = 0 };
}
