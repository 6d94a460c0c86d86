/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Crew: several threads that share out one list of work, and the caller, who
 * reports progress and is the one to be interrupted.
 */
#ifndef PREP_TRIM_CREW_H
#define PREP_TRIM_CREW_H

#include <stdatomic.h>
#include <stdbool.h>

#include "libprep/base/progress.h"

struct prep_crew {
	const char *what;         /* the step, for progress */
	uint64_t total;           /* bytes, 0 if unknown */
	_Atomic uint64_t done;    /* workers add to it */
	_Atomic uint32_t next;    /* the next piece of work: workers count it up */
	_Atomic bool stop;        /* a worker failed, or the caller was told to stop: leave */
};

/*
 * Run work(crew, arg, err) in `jobs` threads (0: as many as use the machine
 * well) and wait until all have returned. A worker takes pieces until there
 * are none or crew->stop is set. The first failure of any becomes *err. One
 * job too is done beside the caller, so that progress goes on in long pieces.
 */
int prep_crew_run(struct prep_crew *crew, unsigned jobs,
		  int (*work)(struct prep_crew *crew, void *arg, struct prep_err *err), void *arg,
		  const struct prep_progress *progress, struct prep_err *err);

#endif
