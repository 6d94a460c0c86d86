/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Content: what a file is, by its first bytes.
 */
#ifndef PREP_CKM_CONTENT_H
#define PREP_CKM_CONTENT_H

#include "libprep/ckm/index.h"

/* The kind of a file that begins with p[0..len); len may be anything, 4096 tell enough. */
enum prep_content prep_content_of(const uint8_t *p, size_t len);

#endif
