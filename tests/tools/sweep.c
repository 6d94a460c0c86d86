/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sweep - run a command once for every call at which tests/preload/faults.c can fail or kill it
 *
 * After each run its status and messages must be right, and the judge must find
 * its folder whole. The judge is told HOW and STATUS in its environment.
 */
#include "scenario.h"

static const char usage[] =
"Usage: sweep [--seconds N] [--recover TEXT] PRELOAD KINDS FOLDER JUDGE COMMAND...\n"
"Run COMMAND in FOLDER with every fault of the KINDS (as 'kill eio') that the\n"
"library PRELOAD knows, at every call, and the shell command JUDGE after each.\n"
"FOLDER is each time as it was at first. With --seconds each kind stops after its share\n"
"of that time, the calls taken from all over the command.\n"
"--recover: where a killed COMMAND leaves a file more, the shell command TEXT finishes\n"
"its work; that is killed and failed at each of its calls too.\n";

#define RECOVERIES 3u /* places of the command at which it is killed for that */

static struct scenario scenario;
static const char *preload, *judge;
static unsigned long points;

static int run(const char *how, unsigned long at, char *const *argv)
{
	char n[32];
	int status;

	snprintf(n, sizeof n, "%lu", at);
	setenv("FAULTS_HOW", how, 1);
	setenv("FAULTS_AT", n, 1);
	status = scenario_run(&scenario, preload, argv);
	unsetenv("FAULTS_HOW");
	unsetenv("FAULTS_AT");
	return status;
}

static bool kills(const char *how)
{
	return strcmp(how, "kill") == 0 || strcmp(how, "tear") == 0;
}

/* These are about every call, and no failure. */
static bool harmless(const char *how)
{
	return strcmp(how, "short") == 0 || strcmp(how, "eintr") == 0;
}

__attribute__((noreturn))
static void wrong(const char *how, unsigned long at, unsigned long count, int status, const char *what)
{
	printf("%s at call %lu of %lu, status %d: %s\n", how, at, count, status, what);
	scenario_show_messages(&scenario);
	exit(1);
}

/* Check what the fault came to. */
static void check(const char *how, unsigned long at, unsigned long count, int status)
{
	char n[32];

	if (!kills(how) && status != 0 && status != 1)
		wrong(how, at, count, status, "neither 0 nor 1");
	if (harmless(how) && status != 0)
		wrong(how, at, count, status, "a failure");
	if (!kills(how) && scenario_lines(&scenario) != (status == 1))
		wrong(how, at, count, status, "not one message for one error");
	setenv("HOW", how, 1);
	snprintf(n, sizeof n, "%d", status);
	setenv("STATUS", n, 1);
	if (!scenario_judge(&scenario, preload, judge))
		wrong(how, at, count, status, "the judge says no");
}

static unsigned long count_calls(const char *how, char *const *argv)
{
	char path[] = "/tmp/sweep.XXXXXX", buf[32] = "";
	const int fd = mkstemp(path);
	int status;

	if (fd < 0)
		die(path);
	setenv("FAULTS_COUNT", path, 1);
	scenario_restore(&scenario);
	status = run(how, 0, argv);
	unsetenv("FAULTS_COUNT");
	if (status != 0)
		wrong(how, 0, 0, status, "without a fault");
	if (pread(fd, buf, sizeof buf - 1, 0) <= 0)
		die(path);
	close(fd);
	unlink(path);
	return strtoul(buf, NULL, 10);
}

/* A step that reaches all of 0..count-1 when it is taken count times, and much of it early. */
static unsigned long stride(unsigned long count)
{
	unsigned long step = (unsigned long)((double)count * 0.618) | 1;

	for (;; step++) {
		unsigned long a = count, b = step;

		while (b != 0) {
			const unsigned long c = a % b;

			a = b;
			b = c;
		}
		if (a == 1)
			return step;
	}
}

static void sweep(const char *how, double seconds, char *const *argv)
{
	const unsigned long count = count_calls(how, argv);
	const double end = now() + seconds;
	unsigned long tried = 0, step = stride(count), at = 0;

	if (harmless(how)) {
		check(how, 0, count, 0);
		points++;
		printf(" %s 1 (%lu calls)", how, count);
		return;
	}
	for (; tried < count && (seconds <= 0 || now() < end); tried++) {
		int status;

		at = (at + step) % count;
		scenario_restore(&scenario);
		status = run(how, at + 1, argv);
		/* Threads do not make the same number of calls in every run. */
		if (kills(how) && status != 137 && status != 0)
			wrong(how, at + 1, count, status, "not killed");
		check(how, at + 1, count, status);
	}
	points += tried;
	if (tried < count)
		printf(" %s %lu of %lu", how, tried, count);
	else
		printf(" %s %lu", how, count);
	fflush(stdout);
}

static size_t names_in_folder(void)
{
	DIR *d = opendir(scenario.folder);
	size_t n = 0;

	if (d == NULL)
		die(scenario.folder);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n;
}

/* Faults while what was cut off is finished. Returns how many were tried. */
static unsigned long sweep_recovery(const char *how, const char *recover, char *const *argv, double seconds)
{
	char *const shell[] = { (char *)"sh", (char *)"-c", text("exec %s", recover), NULL };
	const unsigned long count = count_calls("kill", argv);
	unsigned long tried = 0, places = 0;
	double end = 0;

	/* Nothing is left beside by what is cut off in the first half. */
	for (unsigned long first = count / 2 + 1; first <= count && places < RECOVERIES; first++) {
		int status = 137;

		scenario_restore(&scenario);
		if (run("kill", first, argv) != 137 || names_in_folder() == scenario.files + 2)
			continue;
		/* The first such place, and others some way off. */
		places++;
		if (seconds > 0 && end == 0)
			end = now() + seconds;
		for (unsigned long n = 1; status != 0 && (end <= 0 || now() < end); n++, tried++) {
			scenario_restore(&scenario);
			run("kill", first, argv);
			status = run(how, n, shell);
			if (scenario_lines(&scenario) != (status != 0 && status != 137))
				wrong(how, n, 0, status, "of the recovery: not one message for one error");
			setenv("HOW", "recovery", 1);
			setenv("STATUS", "1", 1);
			if (!scenario_judge(&scenario, preload, judge))
				wrong(how, n, 0, status, "of the recovery: the judge says no");
		}
		first += count / (3 * RECOVERIES);
	}
	free(shell[2]);
	points += tried;
	return tried;
}

int main(int argc, char **argv)
{
	const char *recover = NULL;
	double seconds = 0;
	unsigned kinds = 0;
	char *kind, *all, *rest;

	for (; argc > 2 && strncmp(argv[1], "--", 2) == 0; argc -= 2, argv += 2) {
		if (strcmp(argv[1], "--seconds") == 0)
			seconds = strtod(argv[2], NULL);
		else if (strcmp(argv[1], "--recover") == 0)
			recover = argv[2];
		else
			break;
	}
	if (argc < 6 || argv[1][0] == '-') {
		fputs(usage, argc == 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
		return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
	}
	preload = argv[1];
	judge = argv[4];
	scenario_open(&scenario, argv[3]);
	all = text("%s", argv[2]);
	for (kind = strtok_r(all, " ", &rest); kind != NULL; kind = strtok_r(NULL, " ", &rest))
		kinds += !harmless(kind) + (recover != NULL && (strcmp(kind, "kill") == 0 || strcmp(kind, "eio") == 0));
	for (kind = strtok_r(argv[2], " ", &rest); kind != NULL; kind = strtok_r(NULL, " ", &rest)) {
		sweep(kind, seconds / kinds, argv + 5);
		if (recover != NULL && (strcmp(kind, "kill") == 0 || strcmp(kind, "eio") == 0))
			printf(" recovery-%s %lu", kind,
			       sweep_recovery(kind, recover, argv + 5, seconds / kinds));
	}
	if (points == 0)
		wrong(argv[2], 0, 0, 0, "there are no such calls");
	printf("; %lu points\n", points);
	scenario_restore(&scenario);
	return 0;
}
