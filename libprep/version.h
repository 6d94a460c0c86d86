/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef PREP_VERSION_H
#define PREP_VERSION_H

#define PREP_VERSION "0.1.0"

#endif
