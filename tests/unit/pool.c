/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The thread pool: every job runs once, whatever the order of waiting. */
#include "libprep/base/pool.h"

#include <stdatomic.h>

#include "tests/unit/check.h"

#define JOBS 1000

struct count_job {
	struct prep_job job;
	_Atomic unsigned ran;
};

static struct count_job job[JOBS];

static void count(struct prep_job *j)
{
	((struct count_job *)j)->ran++;
}

static void every_job_runs_once(void)
{
	static const unsigned threads[] = { 1, 2, 7 };
	struct prep_pool *p;
	struct prep_err err;

	for (size_t t = 0; t < 3; t++) {
		CHECK_DONE(prep_pool_open(threads[t], &p, &err));
		CHECK_EQ(prep_pool_threads(p), threads[t]);
		for (size_t i = 0; i < JOBS; i++) {
			job[i] = (struct count_job){ .job.run = count };
			prep_pool_submit(p, &job[i].job);
		}
		/* The last first, then the others. */
		for (size_t i = JOBS; i-- > 0;) {
			prep_pool_wait(p, &job[i].job);
			CHECK_EQ(job[i].ran, 1);
		}
		prep_pool_close(p);
	}
}

static void a_job_may_be_used_again(void)
{
	struct prep_pool *p;
	struct prep_err err;

	CHECK_DONE(prep_pool_open(2, &p, &err));
	job[0] = (struct count_job){ .job.run = count };
	for (unsigned i = 1; i <= 100; i++) {
		prep_pool_submit(p, &job[0].job);
		prep_pool_wait(p, &job[0].job);
		CHECK_EQ(job[0].ran, i);
	}
	prep_pool_close(p);
}

static void closing_waits_for_what_is_under_way(void)
{
	struct prep_pool *p;
	struct prep_err err;

	CHECK_DONE(prep_pool_open(3, &p, &err));
	for (size_t i = 0; i < JOBS; i++) {
		job[i] = (struct count_job){ .job.run = count };
		prep_pool_submit(p, &job[i].job);
	}
	prep_pool_close(p);
	for (size_t i = 0; i < JOBS; i++)
		CHECK_EQ(job[i].ran, 1);
	prep_pool_close(NULL);
}

static void the_default_is_at_least_one(void)
{
	CHECK(prep_pool_default_threads() >= 1);
	CHECK(prep_pool_default_threads() <= PREP_POOL_THREADS_MAX);
}

int main(void)
{
	RUN(every_job_runs_once);
	RUN(a_job_may_be_used_again);
	RUN(closing_waits_for_what_is_under_way);
	RUN(the_default_is_at_least_one);
	return check_result();
}
