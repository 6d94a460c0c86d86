/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Where the clusters of one stream go: the second half of vhd-defrag's
 * planning, after the survey and the choice of blocks. Nothing is moved here.
 */
#ifndef PREP_PREP_DEFRAG_PLACE_H
#define PREP_PREP_DEFRAG_PLACE_H

#include "libprep/prep/defrag_plan.h"
#include "libprep/prep/defrag_survey.h"

/* A fragmented stream that is to be made contiguous. */
struct prep_whole {
	uint64_t id;
	uint32_t type, name_hash;
	uint64_t fragments, clusters;
};

struct prep_place {
	const struct prep_defrag_survey *survey;
	const struct prep_evacuation *plan;
	struct prep_holes *holes;     /* where data may go; owned */

	struct prep_whole *whole;     /* those chosen, by id, type and name; owned */
	size_t wholes, whole_room;

	/* Of the stream at hand: its parts to be placed, and what came of that. */
	struct prep_defrag_survey_part *part;
	size_t parts, part_room;
	struct prep_fs_piece *piece;
	size_t pieces, piece_room;

	/* Parts of evacuated blocks that found no hole; and where to set bits for their blocks (one a block), or NULL. */
	uint64_t stuck;
	uint8_t *pin;
	uint64_t dragged;             /* clusters that go only because the rest of their unit must */
};

/* After it the place can be cleared, also when it fails. `survey` and `plan` must outlive it. */
int prep_place_init(struct prep_place *p, const struct prep_defrag_survey *survey, const struct prep_evacuation *plan,
		    struct prep_err *err);
void prep_place_clear(struct prep_place *p);

/*
 * Choose the fragmented streams of `fs` that are worth being made whole: those
 * that lose most fragments for their bytes first, up to `budget` bytes. *bytes: of all those chosen.
 */
int prep_place_choose_wholes(struct prep_place *p, struct prep_fs *fs, uint64_t budget, uint64_t *bytes,
			     struct prep_err *err);

/*
 * Set p->piece to what is to be moved of s: what lies in evacuated blocks, or
 * all of a stream that was chosen to be made whole. No pieces: it stays. Taken
 * are the holes that the pieces go to; give_back returns them.
 */
int prep_place_evacuated(struct prep_place *p, const struct prep_fs_stream *s, struct prep_err *err);
int prep_place_whole(struct prep_place *p, const struct prep_fs_stream *s, struct prep_err *err);
int prep_place_give_back(struct prep_place *p, struct prep_err *err);

/* Whether cluster lcn touches an evacuated block. */
bool prep_place_goes(const struct prep_place *p, uint64_t lcn);

#endif
