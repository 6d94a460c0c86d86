/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pictures of a disk, one cell a block.
 */
#ifndef CMD_MAP_H
#define CMD_MAP_H

#include "libprep/base/output.h"
#include "libprep/prep/inspect.h"

/* To standard output: as wide as the terminal, in colour where it is one and NO_COLOR is not set. */
void map_print(const struct prep_inspect *in);

/* As SVG to an output, which is committed. 0, or -1 with *err. */
int map_svg(const struct prep_inspect *in, const char *title, struct prep_output *out, struct prep_err *err);

#endif
