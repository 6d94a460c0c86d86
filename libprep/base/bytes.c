/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/bytes.h"

#include <string.h>

bool prep_is_zero(const void *p, size_t len)
{
	const unsigned char *b = p;
	size_t i;

	/* Data mostly shows itself early; memcmp then runs at vector speed. */
	for (i = 0; i < 16 && i < len; i++)
		if (b[i])
			return false;
	return len <= 16 || memcmp(b, b + 16, len - 16) == 0;
}

size_t prep_zero_run(const void *p, size_t len, size_t unit, bool *zero)
{
	const unsigned char *b = p;
	size_t n = unit < len ? unit : len;

	*zero = prep_is_zero(b, n);
	while (n < len) {
		const size_t next = unit < len - n ? unit : len - n;

		if (prep_is_zero(b + n, next) != *zero)
			break;
		n += next;
	}
	return n;
}

void prep_bit_fill(uint8_t *bits, uint64_t from, uint64_t len, bool value)
{
	const uint64_t end = from + len;

	while (from < end) {
		if ((from & 7) == 0 && end - from >= 8) {
			memset(bits + (from >> 3), value ? 0xFF : 0, (size_t)((end - from) >> 3));
			from = end & ~(uint64_t)7;
			continue;
		}
		if (value)
			bits[from >> 3] |= (uint8_t)(1u << (from & 7));
		else
			bits[from >> 3] &= (uint8_t)~(1u << (from & 7));
		from++;
	}
}

uint64_t prep_bit_next(const uint8_t *bits, uint64_t from, uint64_t end, bool value)
{
	const uint64_t none = value ? 0 : ~(uint64_t)0;
	uint64_t i = from;

	while (i < end) {
		if ((i & 63) == 0) {
			/* Whole words of the other value are passed over at once. */
			while (end - i >= 64 && get_le64(bits + (i >> 3)) == none)
				i += 64;
			if (i >= end)
				break;
		}
		if (prep_bit_get(bits, i) == value)
			return i;
		i++;
	}
	return end;
}
