// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/tools/populate/populate.h"

/* ---- generated contents ---- */

const char *const kind_names[KINDS] = {
	"zero", "noise", "text", "log", "pe", "cab", "hive", "page", "hiber", "hibr", "dump", "scca", "evt"
};

#define OPS 2048

char words[WORDS][16];		/* 15 bytes are always copied, so the rest is padding */
uint8_t word_len[WORDS];
static uint64_t ops[OPS];		/* eight bytes that look like an instruction or two */

void make_tables(void)
{
	static const char *const syl[] = { "in", "ter", "win", "dow", "ser", "vice", "con", "fig", "sys", "tem", "pro", "cess",
		"mod", "ule", "net", "work", "reg", "is", "try", "load", "er", "ver", "sion", "up", "date", "com", "pon", "ent",
		"file", "set", "get", "dis", "play" };
	static const uint8_t first[] = { 0x48, 0x48, 0x48, 0x8b, 0x89, 0xe8, 0x0f, 0x4c, 0xff, 0x74, 0x75, 0xc3, 0x41, 0x83 };
	static const uint8_t second[] = { 0x8b, 0x89, 0x8d, 0x83, 0x85, 0x24, 0x44, 0x4c, 0x84, 0x05, 0x0d, 0xc0 };
	struct rng r = rng_at(0, 7);

	for (unsigned i = 0; i < WORDS; i++) {
		unsigned n = 1 + rnd(&r) % 3;

		while (n--)
			strcat(words[i], syl[(rnd(&r) >> 20) % (sizeof(syl) / sizeof(*syl))]);
		word_len[i] = strlen(words[i]);
		words[i][word_len[i]++] = ' ';
	}
	for (unsigned i = 0; i < OPS; i++) {
		uint8_t *p = (uint8_t *)&ops[i];
		uint64_t v = rnd(&r);

		p[0] = first[v % sizeof(first)];
		p[1] = second[(v >> 8) % sizeof(second)];
		p[2] = v >> 16;
		p[3] = v & 1 ? 0 : v >> 24;
		p[4] = first[(v >> 32) % sizeof(first)];
		p[5] = second[(v >> 40) % sizeof(second)];
		p[6] = v >> 48;
		p[7] = v & 2 ? 0xff : 0;
	}
}

static void fill_noise(struct rng *r, uint8_t *p, size_t n)
{
	uint64_t v;

	for (; n >= 8; n -= 8, p += 8) {
		v = rnd(r);
		memcpy(p, &v, 8);
	}
	v = rnd(r);
	memcpy(p, &v, n);
}

static void fill_code(struct rng *r, uint8_t *p, size_t n)
{
	for (; n >= 8; n -= 8, p += 8) {
		uint64_t v = rnd(r), op = ops[v % OPS];

		if (v >> 63)	/* half of the operands are an address or a number of their own */
			op ^= (v >> 8 & 0xffff) << 16;
		memcpy(p, &op, 8);
	}
	memset(p, 0x90, n);
}

static void fill_text(struct rng *r, uint8_t *p, size_t n, unsigned line)
{
	size_t at = 0, eol = line;

	while (at + 18 < n) {
		uint64_t v = rnd(r);
		/* the product of two makes some words frequent, as in a language */
		unsigned w = ((v & 1023) * (v >> 10 & 1023)) >> 10;

		memcpy(p + at, words[w], 16);
		at += word_len[w];
		if (at >= eol) {
			p[at - 1] = '\r';
			p[at++] = '\n';
			eol = at + line;
		}
	}
	memset(p + at, ' ', n - at);
}

static void fill_log(struct rng *r, uint8_t *p, size_t n, uint64_t start)
{
	size_t at = 0;
	unsigned t = start;

	while (at + 160 < n) {
		uint64_t v = rnd(r);

		t += v & 7;
		at += sprintf((char *)p + at, "2009-%02u-%02u %02u:%02u:%02u:%03u\t%4u\t%3x\tAgent\t", 1 + t / 2678400 % 12,
			      1 + t / 86400 % 28, t / 3600 % 24, t / 60 % 60, t % 60, (unsigned)(v >> 8) % 1000, 1032u,
			      (unsigned)(v >> 20 & 0xfff));
		for (unsigned i = 3 + (v >> 32 & 3); i--;) {
			unsigned w = rnd(r) % WORDS;

			memcpy(p + at, words[w], 16);
			at += word_len[w];
		}
		p[at - 1] = '\r';
		p[at++] = '\n';
	}
	memset(p + at, '.', n - at);
	if (n >= 2)
		memcpy(p + n - 2, "\r\n", 2);
}

static void fill_utf16(struct rng *r, uint8_t *p, size_t n)
{
	size_t at = 0;

	while (at + 36 < n) {
		unsigned w = rnd(r) % WORDS;

		for (unsigned i = 0; i + 1 < word_len[w]; i++, at += 2)
			put_le16(p + at, (uint8_t)words[w][i]);
		put_le16(p + at, 0);
		at += 2;
	}
	memset(p + at, 0, n - at);
}

/* A page of memory, as a paging file or a dump holds it. */
void fill_page(struct rng *r, uint8_t *p, size_t n)
{
	switch (rnd(r) >> 61) {
	case 0: case 1:
		memset(p, 0, n);
		break;
	case 2: case 3: case 4:
		fill_code(r, p, n);
		break;
	case 5:
		fill_utf16(r, p, n);
		break;
	default:
		fill_noise(r, p, n);
	}
}

static void fill_pe_page(struct rng *r, const struct gen *g, uint64_t pos, uint8_t *p, size_t n)
{
	unsigned at = g->size ? pos * 100 / g->size : 0;

	if (at < 58) {
		fill_code(r, p, n);
	} else if (at < 70) {		/* tables of pointers */
		uint64_t v = 0x180000000 + (rnd(r) & 0xffff00);

		for (size_t i = 0; i + 8 <= n; i += 8)
			put_le64(p + i, v += rnd(r) & 0xf8);
		memset(p + (n & ~(size_t)7), 0, n & 7);
	} else if (at < 80) {
		fill_utf16(r, p, n);
	} else if (at < 92) {		/* icons and other packed resources */
		fill_noise(r, p, n);
	} else {			/* relocations, then padding */
		for (size_t i = 0; i + 2 <= n; i += 2)
			put_le16(p + i, 0xa000 | (i * 8 & 0xff8) | (rnd(r) & 8));
		if (n & 1)
			p[n - 1] = 0;
	}
}

static void pe_header(struct rng *r, const struct gen *g, uint8_t *p)
{
	static const char *const sect[] = { ".text", ".rdata", ".data", ".rsrc", ".reloc" };

	memset(p, 0, 1024);
	memcpy(p, "MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff", 14);
	put_le32(p + 60, 128);
	memcpy(p + 78, "This program cannot be run in DOS mode.\r\r\n$", 43);
	memcpy(p + 128, "PE\0\0\x64\x86\5", 7);
	put_le32(p + 136, 0x49000000 + (rnd(r) & 0xffffff));
	put_le16(p + 148, 240);
	put_le16(p + 150, 0x2022);
	put_le16(p + 152, 0x20b);
	put_le32(p + 152 + 56, g->size);
	for (unsigned i = 0; i < 5; i++) {
		uint8_t *s = p + 128 + 24 + 240 + 40 * i;

		memcpy(s, sect[i], strlen(sect[i]));
		put_le32(s + 8, g->size / 5);
		put_le32(s + 12, 4096 + g->size / 5 * i);
		put_le32(s + 16, g->size / 5);
		put_le32(s + 20, 1024 + g->size / 5 * i);
	}
}

/* A bin of a registry hive: key and value cells, most of them alike but for names and times. */
static void fill_hbin(struct rng *r, uint64_t pos, uint8_t *p)
{
	unsigned at = 32;

	memset(p, 0, 4096);
	memcpy(p, "hbin", 4);
	put_le32(p + 4, pos - 4096);
	put_le32(p + 8, 4096);
	while (at + 160 < 4096) {
		uint64_t v = rnd(r);
		unsigned w = v % WORDS, len = 76 + word_len[w] + 7, cell = (len + 4 + 7) & ~7U;

		put_le32(p + at, -cell);
		memcpy(p + at + 4, v & 3 << 20 ? "vk" : "nk", 2);
		put_le64(p + at + 8, 0x01ca000000000000 + (v >> 20));
		put_le32(p + at + 20, v >> 40);
		put_le16(p + at + 76, word_len[w]);
		memcpy(p + at + 80, words[w], word_len[w] - 1);
		at += cell;
		if (v >> 62 == 0) {	/* binary data of a value */
			cell = 72;
			put_le32(p + at, -cell);
			fill_noise(r, p + at + 4, 64);
			at += cell;
		}
	}
	if (at < 4096)
		put_le32(p + at, 4096 - at);
}

/* Block @index of what @g describes: every block follows from the seed alone, so that files may grow in pieces. */
void gen_block(const struct gen *g, uint64_t index, uint8_t *p)
{
	uint64_t pos = index * BLOCK;
	struct rng r = rng_at(g->seed ^ (uint64_t)g->kind << 56, index);
	size_t n = BLOCK;

	if (pos < g->size && g->size - pos < BLOCK)
		n = g->size - pos;
	switch (g->kind) {
	case ZEROS:
		memset(p, 0, n);
		return;
	case TEXT:
		fill_text(&r, p, n, 72);
		return;
	case LOG:
		fill_log(&r, p, n, (mix(g->seed) & 0xffffff) + index * 2000);
		return;
	case NOISE: case CAB: case SCCA:
		fill_noise(&r, p, n);
		break;
	default:
		break;
	}
	for (size_t at = 0; at < n && g->kind >= PE; at += 4096) {
		size_t part = n - at < 4096 ? n - at : 4096;

		switch (g->kind) {
		case PE:
			fill_pe_page(&r, g, pos + at, p + at, part);
			break;
		case HIVE:
			if (part < 4096)
				memset(p + at, 0, part);
			else
				fill_hbin(&r, pos + at, p + at);
			break;
		case EVT:
			fill_utf16(&r, p + at, part);
			break;
		case PAGE: case HIBER: case HIBR: case DUMP:
			fill_page(&r, p + at, part);
			break;
		default:
			break;
		}
	}
	if (index)
		return;
	switch (g->kind) {
	case PE:
		if (n >= 1024)
			pe_header(&r, g, p);
		break;
	case CAB:
		if (n >= 36)
			memcpy(p, "MSCF\0\0\0\0", 8);
		break;
	case HIVE:
		if (n >= 4096) {
			memset(p, 0, 4096);
			memcpy(p, "regf", 4);
			put_le32(p + 4, g->seed);
			put_le32(p + 8, g->seed);
			put_le32(p + 20, 1);
			put_le32(p + 24, 5);
			put_le32(p + 40, g->size - 4096);
		}
		break;
	case HIBER: case HIBR:		/* libntfs-3g refuses to write when the file begins with "hibr" */
		if (n >= 4096) {
			memset(p, 0, 4096);
			memcpy(p, g->kind == HIBR ? "hibr" : "WAKE", 4);
		}
		break;
	case DUMP:
		if (n >= 8)
			memcpy(p, "PAGEDU64", 8);
		break;
	case SCCA:
		if (n >= 84) {
			memset(p, 0, 84);
			memcpy(p, "\x11\0\0\0SCCA\x0f", 9);
			put_le32(p + 12, g->size);
		}
		break;
	case EVT:
		if (n >= 128) {
			memset(p, 0, 128);
			memcpy(p, "ElfFile", 8);
		}
		break;
	default:
		break;
	}
}

/* Up to CHUNK bytes of @g at @pos, a multiple of BLOCK. */
size_t gen_read(const struct gen *g, uint64_t pos, uint8_t *buf)
{
	size_t n = g->size - pos < CHUNK ? g->size - pos : CHUNK;
	size_t at = 0;

	for (; at + BLOCK <= n; at += BLOCK)
		gen_block(g, (pos + at) / BLOCK, buf + at);
	if (at < n)
		gen_block(g, (pos + at) / BLOCK, buf + at);
	return n;
}

/*
 * A later version of @old: bytes patched here and there, as relinking changes addresses, and a few insertions that move
 * what follows them. Returns a new buffer.
 */
uint8_t *changed_version(const uint8_t *old, size_t len, uint64_t seed, size_t *ret_len)
{
	struct rng r = rng_at(seed, 0x6e6577);
	unsigned inserts = len < 4096 ? 1 : 1 + rnd(&r) % 3;
	size_t from = 0, at = 0;
	uint8_t *new = xalloc(len + inserts * 1024);

	for (unsigned i = 0; i <= inserts; i++) {
		size_t to = i == inserts ? len : from + (len - from) / (inserts - i + 1) / 2 + rnd(&r) % (len / 8 + 1);

		if (to > len)
			to = len;
		memcpy(new + at, old + from, to - from);
		at += to - from;
		from = to;
		if (i < inserts) {
			size_t n = 16 + rnd(&r) % 1000;

			fill_code(&r, new + at, n);
			at += n;
		}
	}
	for (size_t p = rnd(&r) % 8192; p + 8 < at; p += 64 + rnd(&r) % 32768)
		fill_noise(&r, new + p, 1 + rnd(&r) % 6);
	*ret_len = at;
	return new;
}
