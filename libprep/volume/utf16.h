/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/utf16.h"
