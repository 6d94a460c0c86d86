/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * guest - the disk that a guest sees in a dynamic or fixed VHD or a raw file, on standard output
 *
 * Reads by hand, independently of the library: a dynamic VHD by its copy of the
 * footer; what is no VHD is a raw disk.
 */
#include "scenario.h"

static uint32_t be32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put(const void *p, size_t len)
{
	if (fwrite(p, 1, len, stdout) != len)
		die("standard output");
}

int main(int argc, char **argv)
{
	unsigned char *f, *zeros;
	uint64_t left;
	size_t len;
	uint32_t block;

	if (argc != 2) {
		fputs("Usage: guest IMAGE\n", stderr);
		return 2;
	}
	f = read_whole(argv[1], &len);
	if (len >= 4096 && memcmp(f, "conectix", 8) != 0 && memcmp(f + len - 512, "conectix", 8) == 0)
		len -= 512;
	if (len < 4096 || memcmp(f, "conectix", 8) != 0) {
		put(f, len);
		return 0;
	}
	block = be32(f + 512 + 32);
	left = (uint64_t)be32(f + 48) << 32 | be32(f + 52);
	zeros = calloc(1, block);
	if (zeros == NULL)
		die(argv[1]);
	for (uint32_t i = 0; left > 0; i++) {
		const uint32_t sector = be32(f + be32(f + 512 + 20) + i * 4);
		const uint32_t bitmap = block / 4096 < 512 ? 512 : block / 4096;
		const size_t at = (size_t)sector * 512 + bitmap, n = left < block ? (size_t)left : block;

		if (sector != UINT32_MAX && (at > len || block > len - at)) {
			fprintf(stderr, "guest: block %u is outside the file\n", i);
			return 1;
		}
		for (uint32_t b = 0; sector != UINT32_MAX && b < n / 512; b++)
			if (!(f[at - bitmap + b / 8] & 0x80 >> b % 8))
				memset(f + at + (size_t)b * 512, 0, 512);
		put(sector != UINT32_MAX ? f + at : zeros, n);
		left -= n;
	}
	return fflush(stdout) == 0 ? 0 : 1;
}
