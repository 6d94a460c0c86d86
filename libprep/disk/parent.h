/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The parent of a differencing disk, found on this host.
 *
 * A differencing disk names its parent by an id and by paths of the machine
 * that made it, Windows paths as a rule. The id decides; the paths only say
 * where to look: beside the child first, in any case of letters.
 */
#ifndef PREP_DISK_PARENT_H
#define PREP_DISK_PARENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libprep/base/err.h"

/* Files that the user names, for parents that were moved: looked at first. */
struct prep_parents {
	const char *const *path;
	size_t n;
};

/* So many disks may stand behind each other. */
#define PREP_PARENT_DEPTH 64

#define PREP_PARENT_NAMES 24

/* What a differencing disk says of its parent. */
struct prep_parent_ref {
	uint8_t id[16];                  /* in the order in which it is written */
	char *name[PREP_PARENT_NAMES];   /* paths as the disk has them, in UTF-8, best first; owned */
	size_t n;
};

/* Add a copy of a name. Never fails: one known already, and what finds no room, is left out. */
void prep_parent_add(struct prep_parent_ref *ref, const char *name);

/* The same for `units` units of UTF-16, little-endian or not; it ends at a NUL. */
void prep_parent_add_utf16(struct prep_parent_ref *ref, const uint8_t *p, size_t units, bool little);

void prep_parent_clear(struct prep_parent_ref *ref);

/* The id of the disk in fd: 1, or 0 when it is not of the format that is looked for. */
typedef int prep_parent_peek(int fd, uint8_t id[16]);

/*
 * Find the file that `ref` means, for the image `child`: among `parents` (NULL
 * is allowed), and where `named` (child is a path), by its names: relative ones
 * from the child's folder, the last part of each in that folder, absolute ones
 * without their drive letter. *ret: its path, the caller's. PREP_EREFUSED when no
 * file has the id; the message names those that were found and are others.
 */
int prep_parent_find(const char *child, bool named, const struct prep_parent_ref *ref,
		     const struct prep_parents *parents, prep_parent_peek *peek, char **ret,
		     struct prep_err *err);

/* An id as it is written: 36 characters and a NUL. */
const char *prep_parent_id_text(const uint8_t id[16], char text[37]);

/*
 * The absolute path `to`, as a Windows path relative to the folder of the
 * absolute path `from`: begins with ".\". The caller's, or NULL without memory.
 */
char *prep_parent_relative(const char *from, const char *to);

#endif
