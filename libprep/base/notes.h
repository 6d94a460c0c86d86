/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Notes: what a reader found odd but could live with (a footer recovered from
 * its copy, a backup table used). The library never prints; the command does.
 */
#ifndef PREP_BASE_NOTES_H
#define PREP_BASE_NOTES_H

#include <stddef.h>

#define PREP_NOTES_MAX 32

struct prep_notes {
	char *text[PREP_NOTES_MAX];
	size_t n;       /* texts held */
	size_t dropped; /* notes beyond PREP_NOTES_MAX, or lost for lack of memory */
};

/* Add a note: "file: message", lower case, no full stop. Never fails. */
void prep_note(struct prep_notes *notes, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Free the texts; the struct is empty afterwards. */
void prep_notes_clear(struct prep_notes *notes);

#endif
