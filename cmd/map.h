/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pictures of a disk, one cell a block.
 */
#ifndef CMD_MAP_H
#define CMD_MAP_H

#include "libprep/prep/inspect.h"

/* To standard output: as wide as the terminal, in colour where it is one and NO_COLOR is not set. */
void map_print(const struct prep_inspect *in);

/* To an SVG file. PREP_EREFUSED when it exists, unless `force`. */
int map_svg(const struct prep_inspect *in, const char *title, const char *path, bool force,
	    struct prep_err *err);

#endif
