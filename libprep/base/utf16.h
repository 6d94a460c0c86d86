/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * UTF-16 names, as NTFS, FAT, GPT, VHD and VHDX keep them, and UTF-8.
 */
#ifndef PREP_BASE_UTF16_H
#define PREP_BASE_UTF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of UTF-8 that so many units of UTF-16 need at most, with the terminating NUL. */
#define PREP_UTF8_ROOM(units) ((size_t)(units) * 3 + 1)

/*
 * Convert `units` little-endian units at p. An unpaired surrogate becomes
 * U+FFFD. Returns the length; out is terminated, and cut between characters
 * where room (> 0) does not suffice.
 */
size_t prep_utf16_to_utf8(const uint8_t *p, size_t units, char *out, size_t room);

/* The same for a name in a path: '/' and NUL, which a path cannot show, become U+FFFD too. */
size_t prep_utf16_name_to_utf8(const uint8_t *p, size_t units, char *out, size_t room);

/*
 * Convert len bytes at s to at most `room` units in the host's order. Returns
 * how many, or -1 when s is not UTF-8 or too long.
 */
int64_t prep_utf8_to_utf16(const char *s, size_t len, uint16_t *out, size_t room);

bool prep_utf8_valid(const char *s, size_t len);

/*
 * Make one line of text that came from elsewhere, in place: a name in an image may hold what ends a line or drives a
 * terminal. Control characters become '?'.
 */
void prep_utf8_one_line(char *text);

#endif
