/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fat-image KIND FILE: write the unit tests' sample volume (tests/unit/fat_image.h)
 * to a file. KIND is 12, 16, 32 or exfat: nothing in Debian puts files on
 * exFAT without mounting it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/fat_image.h"

int main(int argc, char **argv)
{
	struct fat_image im;
	FILE *f;

	if (argc != 3) {
		fputs("Usage: fat-image {12|16|32|exfat} FILE\n", stderr);
		return 2;
	}
	if (strcmp(argv[1], "exfat") == 0)
		exfat_sample(&im);
	else
		fat_sample(&im, (unsigned)atoi(argv[1]));
	f = fopen(argv[2], "wb");
	if (f == NULL || fwrite(im.p, 1, im.size, f) != im.size || fclose(f) != 0) {
		perror(argv[2]);
		return 1;
	}
	free(im.p);
	return 0;
}
