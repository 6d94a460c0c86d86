/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/volume/pattern.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/base/utf16.h"

#define PATTERN_MAX 32767 /* units of the longest path of Windows */

static int bad_pattern(const char *path, const char *what, struct prep_err *err)
{
	return prep_fail(err, PREP_EUSAGE, "%s: %s", path, what);
}

int prep_pattern_parse(struct prep_pattern *p, const char *path, struct prep_err *err)
{
	const size_t len = strlen(path);
	const char *s = path;
	size_t used = 0;

	p->text = NULL;
	p->component = NULL;
	p->components = 0;
	if (*s != '/' && *s != '\\')
		return bad_pattern(path, "not an absolute path: it must begin with / or \\", err);
	p->text = malloc((len + 1) * sizeof *p->text);
	p->component = malloc((len + 1) * sizeof *p->component);
	if (p->text == NULL || p->component == NULL)
		return prep_fail_nomem(err);
	while (*s != '\0') {
		const size_t part = strcspn(s, "/\\");
		int64_t units;

		if (part == 0) {
			s++;
			continue;
		}
		if ((part == 1 && s[0] == '.') || (part == 2 && s[0] == '.' && s[1] == '.'))
			return bad_pattern(path, "'.' and '..' are no names here", err);
		units = prep_utf8_to_utf16(s, part, p->text + used, len + 1 - used);
		if (units < 0)
			return bad_pattern(path, "not valid UTF-8", err);
		for (int64_t i = 0; i < units; i++)
			p->text[used + (size_t)i] = p->upcase(p->arg, p->text[used + (size_t)i]);
		p->component[p->components++] = used;
		used += (size_t)units;
		s += part;
	}
	p->component[p->components] = used;
	if (p->components == 0)
		return bad_pattern(path, "the root folder itself cannot be meant", err);
	if (used > PATTERN_MAX)
		return bad_pattern(path, "longer than any path", err);
	return 0;
}

void prep_pattern_clear(struct prep_pattern *p)
{
	free(p->text);
	free(p->component);
	p->text = NULL;
	p->component = NULL;
}

/* U+FFFD stands for what a path cannot show: see prep_utf16_name_to_utf8. */
static bool unit_matches(uint16_t pattern, uint16_t unit)
{
	return pattern == unit || pattern == '?' ||
	       (pattern == 0xfffd && (unit == 0 || unit == '/' || (unit >= 0xd800 && unit < 0xe000)));
}

bool prep_pattern_matches(const struct prep_pattern *p, size_t component, const uint8_t *name,
			  size_t units)
{
	const uint16_t *c = p->text + p->component[component];
	const uint16_t *const end = p->text + p->component[component + 1], *star = NULL;
	size_t i = 0, back = 0;

	while (i < units) {
		if (c < end && *c == '*') {
			star = ++c;
			back = i;
		} else if (c < end && unit_matches(*c, p->upcase(p->arg, get_le16(name + 2 * i)))) {
			c++;
			i++;
		} else if (star != NULL) {
			c = star;
			i = ++back;
		} else {
			return false;
		}
	}
	while (c < end && *c == '*')
		c++;
	return c == end;
}
