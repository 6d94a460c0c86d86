/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Thread pool: jobs run by a fixed number of threads, begun in the order in
 * which they were submitted.
 *
 * The caller keeps the jobs, waits for them in whatever order it likes, and
 * so bounds how much is under way. One thread submits and waits.
 */
#ifndef PREP_BASE_POOL_H
#define PREP_BASE_POOL_H

#include <stdbool.h>

#include "libprep/base/err.h"

#define PREP_POOL_THREADS_MAX 256u

struct prep_pool;

/* Embed it in what the work needs; it must stay where it is until waited for. */
struct prep_job {
	void (*run)(struct prep_job *job); /* in some thread of the pool */
	struct prep_job *next; /* the pool's */
	bool done;             /* the pool's */
};

/* How many threads use the machine well: the processors this process may run on. */
unsigned prep_pool_default_threads(void);

/* threads: 1 to PREP_POOL_THREADS_MAX, 0 for the default. */
int prep_pool_open(unsigned threads, struct prep_pool **ret, struct prep_err *err);

unsigned prep_pool_threads(const struct prep_pool *p);

void prep_pool_submit(struct prep_pool *p, struct prep_job *job);

/* Return when job, which was submitted, has run. */
void prep_pool_wait(struct prep_pool *p, struct prep_job *job);

/* Wait for every job, end the threads. NULL is allowed. */
void prep_pool_close(struct prep_pool *p);

#endif
