/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fat-image KIND FILE [HARM]: write the unit tests' sample volume (tests/unit/fat_image.h)
 * to a file. KIND is 12, 16, 32 or exfat: nothing in Debian puts files on
 * exFAT without mounting it.
 *
 * HARM adds what a reader may never come out of: a file whose chain is a circle (chain), a folder that
 * is in itself (circle); or makes 5000 folders in each other, with names of 255 characters (deep; 32 and exfat).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/fat_image.h"

#define DEEP 5000u

static bool is_exfat(const struct fat_image *im)
{
	return im->bits == 64;
}

static uint32_t folder(struct fat_image *im, uint32_t parent, const char *name)
{
	return is_exfat(im) ? exfat_folder(im, parent, name, false) : fat_folder(im, parent, name, "FOLDER     ");
}

/* Its last cluster leads to its first. */
static void add_chain(struct fat_image *im)
{
	const uint32_t size = 3 * im->cluster_size;
	const uint64_t off = is_exfat(im) ? exfat_file(im, im->root, "loop.bin", size, size, 1)
					  : fat_file(im, im->root, NULL, "LOOP    BIN", size, 1);
	const uint32_t first = is_exfat(im) ? get_le32(im->p + off + SLOT + 20) : fat_first(im, off);

	fat_set(im, first + 2, first);
}

static void add_circle(struct fat_image *im)
{
	const uint32_t one = folder(im, im->root, "one"), two = folder(im, one, "two");

	if (is_exfat(im))
		exfat_entry(im, two, "one again", 0x10, 1, one, 2 * im->cluster_size, 2 * im->cluster_size);
	else
		fat_entry(im, two, NULL, "AGAIN      ", 0x10, one, 0);
}

static void make_deep(struct fat_image *im, bool exfat)
{
	char name[256];
	uint32_t parent;

	memset(name, 'n', 255);
	name[255] = '\0';
	if (exfat)
		exfat_make(im, 3 * DEEP, 1);
	else
		fat_make(im, 32, 70000, 1);
	parent = im->root;
	for (unsigned i = 0; i < DEEP; i++)
		parent = folder(im, parent, name);
}

int main(int argc, char **argv)
{
	const char *const harm = argc == 4 ? argv[3] : "";
	struct fat_image im;
	FILE *f;

	if (argc < 3 || argc > 4) {
		fputs("Usage: fat-image {12|16|32|exfat} FILE [chain|circle|deep]\n", stderr);
		return 2;
	}
	if (strcmp(harm, "deep") == 0)
		make_deep(&im, strcmp(argv[1], "exfat") == 0);
	else if (strcmp(argv[1], "exfat") == 0)
		exfat_sample(&im);
	else
		fat_sample(&im, (unsigned)atoi(argv[1]));
	if (strcmp(harm, "chain") == 0)
		add_chain(&im);
	if (strcmp(harm, "circle") == 0)
		add_circle(&im);
	f = fopen(argv[2], "wb");
	if (f == NULL || fwrite(im.p, 1, im.size, f) != im.size || fclose(f) != 0) {
		perror(argv[2]);
		return 1;
	}
	free(im.p);
	return 0;
}
