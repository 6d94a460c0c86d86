/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A fuzzer's main where no fuzzing engine brings one: each file named on the
 * command line, and each file of a folder named there, is one input.
 *
 *   clang -fsanitize=fuzzer,address,undefined -DPREP_FUZZ_ENGINE ...
 */
#ifndef TESTS_FUZZ_REPLAY_H
#define TESTS_FUZZ_REPLAY_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifndef PREP_FUZZ_ENGINE
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned replayed;

static int replay_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	FILE *f;
	uint8_t *p;
	size_t n;

	(void)at;
	if (type != FTW_F)
		return 0;
	f = fopen(path, "rb");
	/* Of the input's own size, so that a sanitizer sees a byte read beyond it. */
	p = malloc((size_t)st->st_size + (st->st_size == 0));
	if (f == NULL || p == NULL) {
		perror(path);
		exit(1);
	}
	n = fread(p, 1, (size_t)st->st_size, f);
	fclose(f);
	LLVMFuzzerTestOneInput(p, n);
	free(p);
	replayed++;
	return 0;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (nftw(argv[i], replay_one, 16, FTW_PHYS) != 0) {
			perror(argv[i]);
			return 1;
		}
	printf("%u inputs replayed\n", replayed);
	return 0;
}
#endif

#endif
