/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Bytes: integers at named offsets of on-disk structures, rounding, zero test.
 */
#ifndef PREP_BASE_BYTES_H
#define PREP_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PREP_KIB ((uint64_t)1 << 10)
#define PREP_MIB ((uint64_t)1 << 20)
#define PREP_GIB ((uint64_t)1 << 30)

#define PREP_DEFINE_GET_PUT(bits)                                              \
	static inline uint##bits##_t get_be##bits(const void *p)               \
	{                                                                      \
		uint##bits##_t v;                                              \
		memcpy(&v, p, sizeof v);                                       \
		return be##bits##toh(v);                                       \
	}                                                                      \
	static inline uint##bits##_t get_le##bits(const void *p)               \
	{                                                                      \
		uint##bits##_t v;                                              \
		memcpy(&v, p, sizeof v);                                       \
		return le##bits##toh(v);                                       \
	}                                                                      \
	static inline void put_be##bits(void *p, uint##bits##_t v)             \
	{                                                                      \
		v = htobe##bits(v);                                            \
		memcpy(p, &v, sizeof v);                                       \
	}                                                                      \
	static inline void put_le##bits(void *p, uint##bits##_t v)             \
	{                                                                      \
		v = htole##bits(v);                                            \
		memcpy(p, &v, sizeof v);                                       \
	}

PREP_DEFINE_GET_PUT(16)
PREP_DEFINE_GET_PUT(32)
PREP_DEFINE_GET_PUT(64)

/* The unit must be a power of two; the caller has bounded v so that it does not wrap. */
static inline uint64_t prep_round_up(uint64_t v, uint64_t unit)
{
	return (v + unit - 1) & ~(unit - 1);
}

static inline uint64_t prep_round_down(uint64_t v, uint64_t unit)
{
	return v & ~(unit - 1);
}

static inline uint64_t prep_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t prep_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool prep_is_pow2(uint64_t v)
{
	return v != 0 && (v & (v - 1)) == 0;
}

/* Whether all len bytes at p are zero. Leaves at the first that is not. */
bool prep_is_zero(const void *p, size_t len);

/*
 * The length of the leading run of p[0..len) whose units are all zero, or all
 * not zero; *zero says which. The last unit may be short. len must be > 0.
 */
size_t prep_zero_run(const void *p, size_t len, size_t unit, bool *zero);

/* Bit arrays, least significant bit first, as NTFS keeps its bitmaps. */
static inline bool prep_bit_get(const uint8_t *bits, uint64_t i)
{
	return bits[i >> 3] >> (i & 7) & 1;
}

static inline void prep_bit_set(uint8_t *bits, uint64_t i)
{
	bits[i >> 3] |= (uint8_t)(1u << (i & 7));
}

/* Give bits [from, from+len) the value. */
void prep_bit_fill(uint8_t *bits, uint64_t from, uint64_t len, bool value);

/* The first i in [from, end) whose bit is `value`, or end. */
uint64_t prep_bit_next(const uint8_t *bits, uint64_t from, uint64_t end, bool value);

#endif
