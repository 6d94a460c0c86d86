/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * vhdi-cat - what libvhdi reads of a VHD or VHDX, on standard output
 *
 * Its own tools and sleuthkit's cannot be told where the parent of a differencing disk is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libvhdi.h>

#define DEPTH_MAX 8

static const char usage[] =
"Usage: vhdi-cat IMAGE [PARENT]...\n"
"Write what libvhdi reads of IMAGE; each PARENT is that of the file before it.\n";

static void fail(const char *path, libvhdi_error_t *e)
{
	char text[512] = "";

	libvhdi_error_sprint(e, text, sizeof text);
	fprintf(stderr, "vhdi-cat: %s: %s\n", path, text);
	exit(1);
}

int main(int argc, char **argv)
{
	static unsigned char buf[1 << 20];
	libvhdi_file_t *file[DEPTH_MAX] = { NULL };
	libvhdi_error_t *e = NULL;
	size64_t size;
	ssize_t n;

	if (argc < 2 || argc > DEPTH_MAX || strcmp(argv[1], "--help") == 0) {
		fputs(usage, argc == 2 ? stdout : stderr);
		return argc == 2 ? 0 : 2;
	}
	for (int i = 1; i < argc; i++)
		if (libvhdi_file_initialize(&file[i], &e) != 1 ||
		    libvhdi_file_open(file[i], argv[i], LIBVHDI_OPEN_READ, &e) != 1)
			fail(argv[i], e);
	for (int i = argc - 1; i > 1; i--)
		if (libvhdi_file_set_parent_file(file[i - 1], file[i], &e) != 1)
			fail(argv[i], e);
	if (libvhdi_file_get_media_size(file[1], &size, &e) != 1)
		fail(argv[1], e);
	for (size64_t off = 0; off < size; off += (size64_t)n) {
		const size_t want = size - off < sizeof buf ? (size_t)(size - off) : sizeof buf;

		n = libvhdi_file_read_buffer_at_offset(file[1], buf, want, (off64_t)off, &e);
		if (n <= 0)
			fail(argv[1], e);
		if (fwrite(buf, 1, (size_t)n, stdout) != (size_t)n)
			return 1;
	}
	for (int i = 1; i < argc; i++)
		libvhdi_file_free(&file[i], NULL);
	return fflush(stdout) == 0 ? 0 : 1;
}
