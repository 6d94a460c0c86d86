/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * storm - run a command again and again, and send it signals at random times
 */
#include <signal.h>

#include "scenario.h"

static const char usage[] =
"Usage: storm [--runs N] [--seed N] PRELOAD FOLDER JUDGE COMMAND...\n"
"Run COMMAND in FOLDER N times (default 50), send it up to four signals each time,\n"
"and run the shell command JUDGE after it.\n";

static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGPIPE, SIGALRM };
#define SIGNALS (sizeof signals / sizeof signals[0])

static struct scenario scenario;
static uint64_t rng;

static void pause_for(double seconds)
{
	const struct timespec t = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };

	nanosleep(&t, NULL);
}

/* Whether a signal that was sent may end the command so. */
static bool allowed(int status, unsigned sent)
{
	if (status == 0)
		return true;
	for (size_t i = 0; i < SIGNALS; i++)
		if ((sent & 1u << i) && status == 128 + signals[i])
			return true;
	return false;
}

static void show(int status, unsigned sent, const char *what)
{
	printf("status %d after signals", status);
	for (size_t i = 0; i < SIGNALS; i++)
		if (sent & 1u << i)
			printf(" %s", sigabbrev_np(signals[i]));
	printf(": %s\n", what);
	scenario_show_messages(&scenario);
	exit(1);
}

int main(int argc, char **argv)
{
	unsigned long runs = 50, seed = 0, ended = 0;
	const char *preload, *judge;
	double length;

	for (; argc > 2 && strncmp(argv[1], "--", 2) == 0; argc -= 2, argv += 2) {
		if (strcmp(argv[1], "--runs") == 0)
			runs = strtoul(argv[2], NULL, 10);
		else if (strcmp(argv[1], "--seed") == 0)
			seed = strtoul(argv[2], NULL, 10);
		else
			break;
	}
	if (argc < 5 || argv[1][0] == '-') {
		fputs(usage, argc == 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
		return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
	}
	preload = argv[1];
	judge = argv[3];
	rng = random_start(seed);
	scenario_open(&scenario, argv[2]);
	/* As from a terminal, whatever started this. */
	for (size_t i = 0; i < SIGNALS; i++)
		signal(signals[i], SIG_DFL);
	length = now();
	if (scenario_run(&scenario, preload, argv + 4) != 0)
		show(1, 0, "without a signal");
	length = now() - length;
	for (unsigned long r = 0; r < runs; r++) {
		const unsigned n = 1 + (unsigned)random_below(&rng, 4);
		unsigned sent = 0;
		char text[16];
		int status;
		pid_t pid;

		scenario_restore(&scenario);
		pid = scenario_start(&scenario, preload, argv + 4);
		for (unsigned i = 0; i < n; i++) {
			const unsigned which = (unsigned)random_below(&rng, SIGNALS);

			pause_for(length * (double)random_below(&rng, 1000) / 1000 / n);
			/* Not waited for yet: the id is still its own. */
			if (kill(pid, signals[which]) == 0)
				sent |= 1u << which;
		}
		status = scenario_wait(pid);
		ended += status != 0;
		if (!allowed(status, sent))
			show(status, sent, "not a status that these give");
		setenv("HOW", "kill", 1);
		snprintf(text, sizeof text, "%d", status);
		setenv("STATUS", text, 1);
		if (!scenario_judge(&scenario, preload, judge))
			show(status, sent, "the judge says no");
	}
	printf("%lu runs, %lu of them ended by a signal, seed %lu\n", runs, ended, seed);
	scenario_restore(&scenario);
	return 0;
}
