/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Content: what a file is, by its first bytes.
 */
#ifndef PREP_CKM_CONTENT_H
#define PREP_CKM_CONTENT_H

#include <stdbool.h>

#include "libprep/ckm/index.h"

/* The kind of a file that begins with p[0..len); len may be anything, 4096 tell enough. */
enum prep_content prep_content_of(const uint8_t *p, size_t len);

/*
 * Whether a chunk looks compressed or encrypted already, whatever the file around
 * it is. A guess, by a sample: nothing but its place in the package follows from it.
 */
bool prep_content_dense(const uint8_t *p, size_t len);

#endif
