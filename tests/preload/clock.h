/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The clock stands still, so that what a command writes is the same in every run. */
#ifndef TESTS_PRELOAD_CLOCK_H
#define TESTS_PRELOAD_CLOCK_H

#include <dlfcn.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>

#define STANDS_AT 1600000000

int clock_gettime(clockid_t clock, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *);

	/* Sanitizers call before any constructor has run. */
	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
	if (clock != CLOCK_REALTIME)
		return real(clock, now);
	*now = (struct timespec){ .tv_sec = STANDS_AT };
	return 0;
}

time_t time(time_t *now)
{
	if (now != NULL)
		*now = STANDS_AT;
	return STANDS_AT;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	(void)zone;
	*now = (struct timeval){ .tv_sec = STANDS_AT };
	return 0;
}

#endif
