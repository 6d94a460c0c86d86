/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/sketch.h"

#include <string.h>

/* One place of 64 is looked at: its hash has six zeros on top, which have seen the most bytes. */
#define CHOSEN(h) ((h) >> 58 == 0)

static void put(struct prep_sketch *s, uint64_t v)
{
	unsigned i = s->n;

	if (i == PREP_SKETCH_SIZE && v >= s->value[i - 1])
		return;
	while (i > 0 && s->value[i - 1] > v)
		i--;
	if (i > 0 && s->value[i - 1] == v)
		return;
	if (s->n < PREP_SKETCH_SIZE)
		s->n++;
	memmove(s->value + i + 1, s->value + i, (s->n - 1 - i) * sizeof *s->value);
	s->value[i] = v;
}

void prep_sketch_add(struct prep_sketch *s, const uint64_t gear[256], const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		s->h = (s->h << 1) + gear[p[i]];
		/* Mixed, so that which are smallest does not depend on which are chosen. */
		if (CHOSEN(s->h))
			put(s, s->h * 0x9E3779B97F4A7C15);
	}
}
