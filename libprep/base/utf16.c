/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/utf16.h"

#include "libprep/base/bytes.h"

static size_t put_utf8(uint32_t c, char *out)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

static size_t convert(const uint8_t *p, size_t units, bool name, char *out, size_t room)
{
	size_t n = 0;

	for (size_t i = 0; i < units; i++) {
		uint32_t c = get_le16(p + 2 * i);
		char utf8[4];
		size_t len;

		if (c >= 0xd800 && c < 0xe000) {
			const uint32_t low = i + 1 < units ? get_le16(p + 2 * i + 2) : 0;

			if (c < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
				c = 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
				i++;
			} else {
				c = 0xfffd;
			}
		} else if (name && (c == 0 || c == '/')) {
			c = 0xfffd;
		}
		len = put_utf8(c, utf8);
		if (n + len >= room)
			break;
		memcpy(out + n, utf8, len);
		n += len;
	}
	out[n] = '\0';
	return n;
}

size_t prep_utf16_to_utf8(const uint8_t *p, size_t units, char *out, size_t room)
{
	return convert(p, units, false, out, room);
}

size_t prep_utf16_name_to_utf8(const uint8_t *p, size_t units, char *out, size_t room)
{
	return convert(p, units, true, out, room);
}

/* The character at *p, which is moved on behind it; -1 when it is not UTF-8 in its one form. */
static int32_t get_utf8(const uint8_t **p, const uint8_t *end)
{
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	uint32_t c = *(*p)++;
	const unsigned more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : 4;

	if (more == 4 || (size_t)(end - *p) < more)
		return -1;
	if (more > 0)
		c &= 0x3fu >> more;
	for (unsigned i = 0; i < more; i++, ++*p) {
		if (**p >> 6 != 2)
			return -1;
		c = c << 6 | (**p & 0x3f);
	}
	return c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? -1 : (int32_t)c;
}

int64_t prep_utf8_to_utf16(const char *s, size_t len, uint16_t *out, size_t room)
{
	const uint8_t *p = (const uint8_t *)s, *end = p + len;
	size_t n = 0;

	while (p < end) {
		int32_t c = get_utf8(&p, end);

		if (c < 0 || n + (c >= 0x10000) >= room)
			return -1;
		if (c >= 0x10000) {
			out[n++] = (uint16_t)(0xd800 + ((c - 0x10000) >> 10));
			c = 0xdc00 + (c & 0x3ff);
		}
		out[n++] = (uint16_t)c;
	}
	return (int64_t)n;
}

bool prep_utf8_valid(const char *s, size_t len)
{
	const uint8_t *p = (const uint8_t *)s, *end = p + len;

	while (p < end)
		if (get_utf8(&p, end) < 0)
			return false;
	return true;
}

void prep_utf8_one_line(char *text)
{
	char *to = text;

	for (const uint8_t *p = (const uint8_t *)text; *p != '\0'; p++) {
		/* U+0080 to U+009F, which some terminals obey too */
		const bool c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0;

		*to++ = c1 || *p < ' ' || *p == 0x7f ? '?' : (char)*p;
		p += c1;
	}
	*to = '\0';
}
