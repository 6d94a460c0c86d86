/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Patterns of paths: components with wildcards, compared without regard to
 * case as a file system's own table has it.
 */
#ifndef PREP_VOLUME_PATTERN_H
#define PREP_VOLUME_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libprep/base/err.h"

struct prep_pattern {
	/* One UTF-16 unit in upper case. */
	uint16_t (*upcase)(const void *arg, uint16_t unit);
	const void *arg;

	uint16_t *text;     /* all components, in upper case */
	size_t *component;  /* where each begins; one more for the end */
	size_t components;  /* at least 1 */
};

/*
 * Take an absolute path with '/' or '\' apart; upcase and arg are the caller's.
 * PREP_EUSAGE for what can name nothing: a relative path, the root, '.' and
 * '..', bytes that are not UTF-8. Release with prep_pattern_clear, even then.
 */
int prep_pattern_parse(struct prep_pattern *p, const char *path, struct prep_err *err);
void prep_pattern_clear(struct prep_pattern *p);

/* Whether a component matches a name of so many UTF-16LE units. '*' and '?' are wildcards. */
bool prep_pattern_matches(const struct prep_pattern *p, size_t component, const uint8_t *name,
			  size_t units);

#endif
