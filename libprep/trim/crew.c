/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/crew.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "libprep/base/pool.h"

#define REPORT_NS 100000000 /* ten times a second */

struct shift {
	struct prep_crew *crew;
	int (*work)(struct prep_crew *crew, void *arg, struct prep_err *err);
	void *arg;
	pthread_mutex_t lock;
	pthread_cond_t left;   /* a worker has */
	unsigned at_work;
	struct prep_err err;   /* the first failure */
};

struct worker {
	struct prep_job job;   /* first: the pool hands this back */
	struct shift *shift;
};

static void run_worker(struct prep_job *job)
{
	struct shift *s = ((struct worker *)job)->shift;
	struct prep_err err = PREP_ERR_INIT;
	const int r = s->work(s->crew, s->arg, &err);

	if (r < 0)
		atomic_store(&s->crew->stop, true);
	pthread_mutex_lock(&s->lock);
	if (r < 0)
		prep_fail(&s->err, err.code, "%s", err.msg);
	s->at_work--;
	pthread_cond_signal(&s->left);
	pthread_mutex_unlock(&s->lock);
}

/* Until every worker has left. */
static int attend(struct shift *s, const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_crew *crew = s->crew;
	struct timespec until;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	while (s->at_work > 0) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += REPORT_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		pthread_cond_timedwait(&s->left, &s->lock, &until);
		if (r < 0)
			continue;
		pthread_mutex_unlock(&s->lock);
		r = prep_progress(progress, crew->what, atomic_load(&crew->done), crew->total, err);
		if (r < 0)
			atomic_store(&crew->stop, true);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

int prep_crew_run(struct prep_crew *crew, unsigned jobs,
		  int (*work)(struct prep_crew *crew, void *arg, struct prep_err *err), void *arg,
		  const struct prep_progress *progress, struct prep_err *err)
{
	struct shift s = { .crew = crew, .work = work, .arg = arg, .err = PREP_ERR_INIT };
	pthread_condattr_t attr;
	struct prep_pool *pool;
	struct worker *worker;
	int r;

	if (prep_pool_open(jobs, &pool, err) < 0)
		return -1;
	s.at_work = prep_pool_threads(pool);
	worker = calloc(s.at_work, sizeof *worker);
	if (worker == NULL) {
		prep_pool_close(pool);
		return prep_fail_nomem(err);
	}
	pthread_mutex_init(&s.lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s.left, &attr);
	pthread_condattr_destroy(&attr);
	for (unsigned i = 0; i < prep_pool_threads(pool); i++) {
		worker[i] = (struct worker){ .job = { .run = run_worker }, .shift = &s };
		prep_pool_submit(pool, &worker[i].job);
	}
	r = attend(&s, progress, err);
	prep_pool_close(pool);
	if (r == 0 && s.err.code != PREP_DONE)
		r = prep_fail(err, s.err.code, "%s", s.err.msg);
	pthread_cond_destroy(&s.left);
	pthread_mutex_destroy(&s.lock);
	free(worker);
	return r;
}
