/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

struct prep_pool {
	pthread_mutex_t lock;
	pthread_cond_t submitted, finished;
	struct prep_job *first, **last; /* the queue */
	bool closing;
	unsigned threads;
	pthread_t thread[];
};

unsigned prep_pool_default_threads(void)
{
	cpu_set_t set;
	int n;

	/* More processors than the set can tell are no fewer than it has room for. */
	if (sched_getaffinity(0, sizeof set, &set) != 0)
		return errno == EINVAL ? PREP_POOL_THREADS_MAX : 1;
	n = CPU_COUNT(&set);
	return n < 1 ? 1 : n > (int)PREP_POOL_THREADS_MAX ? PREP_POOL_THREADS_MAX : (unsigned)n;
}

static void *work(void *arg)
{
	struct prep_pool *p = arg;
	struct prep_job *job;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (p->first == NULL && !p->closing)
			pthread_cond_wait(&p->submitted, &p->lock);
		job = p->first;
		if (job == NULL)
			break;
		p->first = job->next;
		if (p->first == NULL)
			p->last = &p->first;
		pthread_mutex_unlock(&p->lock);
		job->run(job);
		pthread_mutex_lock(&p->lock);
		job->done = true;
		pthread_cond_signal(&p->finished);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int prep_pool_open(unsigned threads, struct prep_pool **ret, struct prep_err *err)
{
	struct prep_pool *p;
	sigset_t all, before;
	int r = 0;

	if (threads == 0)
		threads = prep_pool_default_threads();
	*ret = NULL;
	p = calloc(1, sizeof *p + threads * sizeof p->thread[0]);
	if (p == NULL)
		return prep_fail_nomem(err);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->submitted, NULL);
	pthread_cond_init(&p->finished, NULL);
	p->last = &p->first;
	/* Signals are for the thread that started the work. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (p->threads < threads && r == 0) {
		r = pthread_create(&p->thread[p->threads], NULL, work, p);
		if (r == 0)
			p->threads++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	/* Fewer threads than asked for do the work as well. */
	if (p->threads == 0) {
		prep_pool_close(p);
		errno = r;
		return prep_fail_errno(err, "cannot start a thread");
	}
	*ret = p;
	return 0;
}

unsigned prep_pool_threads(const struct prep_pool *p)
{
	return p->threads;
}

void prep_pool_submit(struct prep_pool *p, struct prep_job *job)
{
	job->next = NULL;
	job->done = false;
	pthread_mutex_lock(&p->lock);
	*p->last = job;
	p->last = &job->next;
	pthread_cond_signal(&p->submitted);
	pthread_mutex_unlock(&p->lock);
}

void prep_pool_wait(struct prep_pool *p, struct prep_job *job)
{
	pthread_mutex_lock(&p->lock);
	while (!job->done)
		pthread_cond_wait(&p->finished, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

void prep_pool_close(struct prep_pool *p)
{
	if (p == NULL)
		return;
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	pthread_cond_broadcast(&p->submitted);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->threads; i++)
		pthread_join(p->thread[i], NULL);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->submitted);
	pthread_cond_destroy(&p->finished);
	free(p);
}
