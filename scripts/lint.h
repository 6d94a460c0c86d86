/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * For scripts/lint alone, included before each file: tells static analysers,
 * which look at one file at a time, that whatever reports a failure returns -1.
 */
#include "libprep/base/err.h"

#define prep_fail(...) ({ prep_fail(__VA_ARGS__); -1; })
#define prep_fail_errno(...) ({ prep_fail_errno(__VA_ARGS__); -1; })
#define prep_fail_nomem(err) ({ prep_fail_nomem(err); -1; })
