/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The end of packing: the index section, the trailer and the lead.
 */
#ifndef PREP_CKM_SECTION_WRITE_H
#define PREP_CKM_SECTION_WRITE_H

#include "libprep/ckm/pack.h"
#include "libprep/ckm/section.h"

/* out holds room for the lead, and the frames. Fills in the report's id and sizes. */
int prep_section_write(const struct prep_plan *plan, const struct prep_pack_how *how,
		       struct prep_output *out, struct prep_output *out_index,
		       struct prep_pack_report *report, struct prep_err *err);

#endif
