// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/tools/populate/populate.h"

/* ---- errors ---- */

unsigned line_no;	/* of the manifest; 0: not in one */

_Noreturn void die(int status, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "ntfs-populate: ");
	if (line_no)
		fprintf(stderr, "line %u: ", line_no);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(status);
}

void *xalloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		DIE("out of memory");
	return p;
}

char *xstrdup(const char *s)
{
	char *p = strdup(s);

	if (!p)
		DIE("out of memory");
	return p;
}

/* ---- the clock: libntfs-3g calls these, so that time is the same in every run ---- */

int64_t clock_ns;

int clock_gettime(clockid_t id, struct timespec *ts)
{
	(void)id;
	clock_ns += 1000000;
	ts->tv_sec = clock_ns / 1000000000;
	ts->tv_nsec = clock_ns % 1000000000;
	return 0;
}

time_t time(time_t *t)
{
	time_t now = clock_ns / 1000000000;

	if (t)
		*t = now;
	return now;
}

/* ---- numbers that only look random ---- */

uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

struct rng rng_at(uint64_t a, uint64_t b)
{
	struct rng r = { mix(mix(a) ^ (b * 0xd1342543de82ef95)) | 1 };

	return r;
}

void put_le16(uint8_t *p, uint16_t v)
{
	for (int i = 0; i < 2; i++)
		p[i] = v >> (8 * i);
}

void put_le32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = v >> (8 * i);
}

void put_le64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = v >> (8 * i);
}

uint64_t get_le(const uint8_t *p, int n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | p[n];
	return v;
}

uint64_t get_be(const uint8_t *p, int n)
{
	uint64_t v = 0;

	for (int i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}
