/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cmd/map.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "libprep/base/output.h"

static const struct {
	char cell;
	const char *name;
	const char *escape; /* for a terminal */
	const char *fill;   /* for SVG */
} look[PREP_BLOCK_STATES] = {
	[PREP_BLOCK_ABSENT] = { '.', "absent", "\033[90m", "#eeeeee" },
	[PREP_BLOCK_ZERO] = { 'o', "zero", "\033[36m", "#a8d5e2" },
	[PREP_BLOCK_FREE] = { '-', "free data", "\033[33m", "#f9a620" },
	[PREP_BLOCK_PARTLY] = { '+', "partly used", "\033[32m", "#7fb069" },
	[PREP_BLOCK_FULL] = { '#', "full", "\033[1;34m", "#2e5266" },
};

static unsigned terminal_width(void)
{
	struct winsize ws;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col >= 40)
		return ws.ws_col;
	return 80;
}

void map_print(const struct prep_inspect *in)
{
	const bool colour = isatty(STDOUT_FILENO) && getenv("NO_COLOR") == NULL;
	const uint64_t width = terminal_width() - 12;
	int last = -1;

	for (uint64_t i = 0; i < in->blocks; i++) {
		const uint8_t s = in->state[i];

		if (i % width == 0)
			printf("%10.2f  ", (double)(i * in->block_size) / (1 << 30));
		if (colour && s != last)
			fputs(look[s].escape, stdout);
		last = s;
		putchar(look[s].cell);
		if ((i + 1) % width == 0 || i + 1 == in->blocks) {
			fputs(colour ? "\033[0m\n" : "\n", stdout);
			last = -1;
		}
	}
	fputs("     (GiB)  ", stdout);
	for (unsigned s = 0; s < PREP_BLOCK_STATES; s++)
		printf("%s%c %s %" PRIu64, s > 0 ? ", " : "", look[s].cell, look[s].name, in->count[s]);
	putchar('\n');
}

/* Append formatted text to an output. */
static int emit(struct prep_output *out, struct prep_err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int emit(struct prep_output *out, struct prep_err *err, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return prep_output_write(out, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1, err);
}

/*
 * Text in XML: the characters that would be markup are left out of a title, which is a file's name, and need not be
 * UTF-8, which XML is.
 */
static void plain(const char *title, char *ret, size_t room)
{
	char *const utf8 = cmd_utf8(title);
	size_t n = 0;

	for (const char *p = utf8; p != NULL && *p != '\0'; p++) {
		/* what is too long ends between two characters */
		if (n + 4 >= room && ((unsigned char)*p & 0xc0) != 0x80)
			break;
		if (strchr("<>&\"'", *p) == NULL && (unsigned char)*p >= ' ')
			ret[n++] = *p;
	}
	ret[n] = '\0';
	free(utf8);
}

static int draw(const struct prep_inspect *in, const char *title, struct prep_output *out,
		struct prep_err *err)
{
	enum { CELL = 8, COLUMNS = 128, TOP = 48 };
	const uint64_t rows = (in->blocks + COLUMNS - 1) / COLUMNS;
	char text[256];

	plain(title, text, sizeof text);
	if (emit(out, err, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%" PRIu64
		 "\" font-family=\"sans-serif\" font-size=\"12\">\n"
		 "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n"
		 "<text x=\"8\" y=\"16\">%s: %" PRIu64 " blocks of %" PRIu64 " KiB</text>\n",
		 COLUMNS * CELL + 16, rows * CELL + TOP + 8, text, in->blocks, in->block_size / 1024) < 0)
		return -1;
	for (unsigned s = 0; s < PREP_BLOCK_STATES; s++)
		if (emit(out, err, "<rect x=\"%u\" y=\"24\" width=\"12\" height=\"12\" fill=\"%s\"/>"
			 "<text x=\"%u\" y=\"35\">%s %" PRIu64 "</text>\n", 8 + s * 180, look[s].fill, 26 + s * 180,
			 look[s].name, in->count[s]) < 0)
			return -1;
	for (uint64_t i = 0, n; i < in->blocks; i += n) {
		/* Neighbours of one kind in a row are one rectangle. */
		for (n = 1; i + n < in->blocks && (i + n) % COLUMNS != 0 && in->state[i + n] == in->state[i]; n++)
			;
		if (emit(out, err, "<rect x=\"%" PRIu64 "\" y=\"%" PRIu64 "\" width=\"%" PRIu64
			 "\" height=\"%d\" fill=\"%s\"/>\n", 8 + i % COLUMNS * CELL, TOP + i / COLUMNS * CELL,
			 n * CELL - 1, CELL - 1, look[in->state[i]].fill) < 0)
			return -1;
	}
	return emit(out, err, "</svg>\n");
}

int map_svg(const struct prep_inspect *in, const char *title, struct prep_output *out, struct prep_err *err)
{
	return draw(in, title, out, err) < 0 ? -1 : prep_output_commit(out, err);
}
