/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Yield: how fast a transfer in the background may be, so that it takes what
 * others leave of the link.
 *
 * The receiver cannot see the link's capacity, but it sees what else comes in
 * by the same interface of this host: while others receive, the transfer's
 * limit is halved again and again, down to a trickle; when they have gone, it
 * grows again until there is none.
 */
#ifndef PREP_TRIM_YIELD_H
#define PREP_TRIM_YIELD_H

#include <stdint.h>

#define PREP_YIELD_STEP_MS 500u         /* how often to ask */
#define PREP_YIELD_TRICKLE (32u << 10)  /* bytes a second that are never too much */

struct prep_yield {
	char counter[128];      /* file with the bytes that the interface received; empty: not known yet */
	uint64_t total, own;    /* bytes at the last step */
	uint64_t at;            /* milliseconds: its time */
	uint64_t limit;         /* bytes a second, 0: none */
	uint64_t fastest;       /* bytes a second that it has ever had */
};

/* The interface that has this address of the host, as text. */
void prep_yield_watch(struct prep_yield *y, const char *address);

/*
 * One step: `own` bytes received in all by the transfer at `now` milliseconds.
 * Returns the limit from now on, bytes a second, 0: none.
 */
uint64_t prep_yield_step(struct prep_yield *y, uint64_t own, uint64_t now);

/* The rule alone: the next limit, when this transfer and others have had these rates. */
uint64_t prep_yield_next(uint64_t limit, uint64_t fastest, uint64_t own_rate, uint64_t other_rate);

#endif
