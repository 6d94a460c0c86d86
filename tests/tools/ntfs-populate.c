// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * ntfs-populate - fill, change and inspect an NTFS volume inside an image file, without a mount and without root
 *
 * The volume is found inside the image: a bare volume, the largest NTFS partition of an MBR or GPT, or whatever starts at
 * --offset. Raw images and fixed VHDs are read and written; dynamic VHDs are only read.
 *
 * A manifest of operations is read from standard input, one a line. Fields are separated by blanks; a field with blanks
 * stands in "double" or 'single' quotes. Empty lines and lines that begin with # are skipped. Paths begin with / and are
 * matched exactly; missing folders above a new file are made. FILE:STREAM names an alternate data stream wherever a
 * PATH's data is written. SIZE, OFFSET and CHUNK are bytes, or have a suffix K, M or G.
 *
 *	mkdir PATH			a folder
 *	put PATH HOSTFILE [SEED]	a file with HOSTFILE's contents, or (SEED not 0) with a changed version of them
 *	gen PATH KIND SIZE SEED		a file of generated contents; replaces what is there
 *	append PATH KIND SIZE SEED	more at the end
 *	write PATH OFFSET KIND SIZE SEED	over what is there, or into a hole
 *	truncate PATH SIZE		cut, or lengthen by a hole
 *	sparse PATH SIZE		a new file that is one hole
 *	compress PATH			a new empty file (or an existing folder) that NTFS compresses
 *	grow CHUNK COUNT KIND SEED PATH...	append CHUNK bytes to each PATH in turn, COUNT times: they interleave
 *	fragment PATH COUNT KIND SEED	a file of COUNT fragments of one cluster each, single free clusters between them
 *	rm PATH				remove a file, or a folder with all in it
 *	link PATH EXISTING		a hard link
 *	rename PATH NEWPATH
 *	update PATH SEED [OLDPATH]	what an update does: the old file moves to OLDPATH (or goes), a changed one is made
 *	replace PATH HOSTFILE [OLDPATH]	the same with HOSTFILE's contents
 *	short PATH NAME83		its 8.3 short name
 *	attrib PATH LETTERS		r read-only, h hidden, s system, a archive, i not indexed
 *	junction PATH TARGET		a folder that is a junction to TARGET, e.g. C:\Users
 *	symlink PATH TARGET		a file that is a symbolic link to TARGET, e.g. ..\file
 *	reparse PATH TAG KIND SIZE SEED	a file with a reparse point of that tag (hexadecimal)
 *	wof PATH KIND SIZE SEED		a file as `compact /exe` leaves it: one hole, with its data in a stream of its own
 *	usnjrnl SIZE SEED		$Extend/$UsnJrnl with a sparse $J whose last SIZE bytes are records
 *	import IMAGE [OFFSET]		everything from the NTFS volume in IMAGE, laid out anew
 *	time SECONDS			set the clock (Unix time); it then runs by a millisecond for each look at it
 *	dirty | clean			set or clear the volume's dirty flag
 *	logfile STATE			the journal is empty, zero, clean, unclean, or fast (version 2.0, fast start-up); the
 *					last thing to do, because what is not clean cannot be written again
 *
 * KIND: zero noise text log pe cab hive page hiber hibr dump scca evt
 * (hiber is a hibernation file that was resumed from, hibr one that still holds a session; both are /hiberfil.sys's.)
 *
 * The same manifest, seed and time give the same bytes.
 */
#include <sys/types.h>
#include <sys/stat.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#include <ntfs-3g/types.h>
#include <ntfs-3g/device.h>
#include <ntfs-3g/volume.h>
#include <ntfs-3g/attrib.h>
#include <ntfs-3g/bitmap.h>
#include <ntfs-3g/cache.h>
#include <ntfs-3g/inode.h>
#include <ntfs-3g/dir.h>
#include <ntfs-3g/layout.h>
#include <ntfs-3g/logging.h>
#include <ntfs-3g/mst.h>
#include <ntfs-3g/ntfstime.h>
#include <ntfs-3g/reparse.h>
#include <ntfs-3g/runlist.h>
#include <ntfs-3g/unistr.h>

#define CHUNK (4U << 20)	/* libntfs-3g updates metadata for every write: few and big ones */
#define BLOCK (64U << 10)	/* what a generator makes at a time */
#define SECURITY_ID 0x101	/* the descriptor that mkntfs puts into $Secure for ordinary files */

static const char usage[] =
	"Usage: ntfs-populate [OPTION]... IMAGE <MANIFEST\n"
	"       ntfs-populate --digest|--list [--offset BYTES] IMAGE\n"
	"       ntfs-populate --export DIR --percent N [--seed N] IMAGE\n"
	"       ntfs-populate --place FILE --offset BYTES IMAGE\n"
	"       ntfs-populate --make FILE KIND SIZE SEED\n"
	"Fill, change or inspect an NTFS volume inside an image file.\n"
	"\n"
	"      --offset BYTES  the volume starts there (default: look for it)\n"
	"      --seed N        whatever is random follows from N (default 1)\n"
	"      --time SECONDS  the clock's start, Unix time (default: from the seed)\n"
	"      --stamp         first give what `mkntfs -T` made its times and serial\n"
	"      --digest        print SHA-256, size and path of every file and stream,\n"
	"                      sorted by path; folders end in / and have no digest\n"
	"      --list          the same without reading the data\n"
	"      --export DIR    copy N percent of the files to a folder on the host\n"
	"      --place FILE    copy FILE's data, not its holes, to BYTES in IMAGE\n"
	"      --make FILE     make a file on the host with generated contents\n"
	"  -h, --help          this text\n"
	"\n"
	"Manifest (a line each; quote names with blanks; FILE:STREAM for a stream):\n"
	"  mkdir PATH                          rm PATH\n"
	"  put PATH HOSTFILE [SEED]            link PATH EXISTING\n"
	"  gen PATH KIND SIZE SEED             rename PATH NEWPATH\n"
	"  append PATH KIND SIZE SEED          update PATH SEED [OLDPATH]\n"
	"  write PATH OFFSET KIND SIZE SEED    replace PATH HOSTFILE [OLDPATH]\n"
	"  truncate PATH SIZE                  short PATH NAME83\n"
	"  sparse PATH SIZE                    attrib PATH LETTERS (rhsai)\n"
	"  compress PATH                       junction PATH TARGET\n"
	"  grow CHUNK COUNT KIND SEED PATH...  reparse PATH TAG KIND SIZE SEED\n"
	"  fragment PATH COUNT KIND SEED       usnjrnl SIZE SEED\n"
	"  wof PATH KIND SIZE SEED             time SECONDS\n"
	"  import IMAGE [OFFSET]               symlink PATH TARGET\n"
	"  dirty | clean                       logfile empty|zero|clean|unclean|fast\n"
	"KIND: zero noise text log pe cab hive page hiber hibr dump scca evt\n";

/* ---- errors ---- */

static unsigned line_no;	/* of the manifest; 0: not in one */

static _Noreturn void die(int status, const char *fmt, ...)
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

#define DIE(...) die(1, __VA_ARGS__)

static void *xalloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		DIE("out of memory");
	return p;
}

static char *xstrdup(const char *s)
{
	char *p = strdup(s);

	if (!p)
		DIE("out of memory");
	return p;
}

/* ---- the clock: libntfs-3g calls these, so that time is the same in every run ---- */

static int64_t clock_ns;

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

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

struct rng {
	uint64_t s;
};

static inline uint64_t rnd(struct rng *r)
{
	/* xorshift64*: quick, and good enough to be incompressible */
	r->s ^= r->s >> 12;
	r->s ^= r->s << 25;
	r->s ^= r->s >> 27;
	return r->s * 0x2545f4914f6cdd1d;
}

static struct rng rng_at(uint64_t a, uint64_t b)
{
	struct rng r = { mix(mix(a) ^ (b * 0xd1342543de82ef95)) | 1 };

	return r;
}

static void put_le16(uint8_t *p, uint16_t v)
{
	for (int i = 0; i < 2; i++)
		p[i] = v >> (8 * i);
}

static void put_le32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = v >> (8 * i);
}

static void put_le64(uint8_t *p, uint64_t v)
{
	for (int i = 0; i < 8; i++)
		p[i] = v >> (8 * i);
}

static uint64_t get_le(const uint8_t *p, int n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | p[n];
	return v;
}

static uint64_t get_be(const uint8_t *p, int n)
{
	uint64_t v = 0;

	for (int i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

/* ---- generated contents ---- */

enum kind { ZEROS, NOISE, TEXT, LOG, PE, CAB, HIVE, PAGE, HIBER, HIBR, DUMP, SCCA, EVT, KINDS };

static const char *const kind_names[KINDS] = {
	"zero", "noise", "text", "log", "pe", "cab", "hive", "page", "hiber", "hibr", "dump", "scca", "evt"
};

struct gen {
	enum kind kind;
	uint64_t size, seed;
};

#define WORDS 1024
#define OPS 2048

static char words[WORDS][16];		/* 15 bytes are always copied, so the rest is padding */
static uint8_t word_len[WORDS];
static uint64_t ops[OPS];		/* eight bytes that look like an instruction or two */

static void make_tables(void)
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
static void fill_page(struct rng *r, uint8_t *p, size_t n)
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
static void gen_block(const struct gen *g, uint64_t index, uint8_t *p)
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
static size_t gen_read(const struct gen *g, uint64_t pos, uint8_t *buf)
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
static uint8_t *changed_version(const uint8_t *old, size_t len, uint64_t seed, size_t *ret_len)
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

/* ---- the image: raw, fixed VHD, or (read only) dynamic VHD ---- */

struct image {
	const char *path;
	int fd;
	bool ro;
	uint64_t size;		/* of the disk in it */
	uint64_t base, len;	/* of the volume on the disk */
	int64_t pos;
	uint32_t *bat, bat_len, block;
};

static int full_pread(int fd, void *buf, size_t n, uint64_t off)
{
	while (n) {
		ssize_t got = pread(fd, buf, n, off);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			if (!got)
				errno = EIO;
			return -1;
		}
		buf = (char *)buf + got;
		off += got;
		n -= got;
	}
	return 0;
}

static int full_pwrite(int fd, const void *buf, size_t n, uint64_t off)
{
	while (n) {
		ssize_t put = pwrite(fd, buf, n, off);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -1;
		buf = (const char *)buf + put;
		off += put;
		n -= put;
	}
	return 0;
}

static int disk_read(struct image *im, void *buf, size_t n, uint64_t off)
{
	if (!im->bat)
		return full_pread(im->fd, buf, n, off);
	while (n) {
		uint32_t b = off / im->block, in = off % im->block;
		size_t part = im->block - in < n ? im->block - in : n;

		if (b >= im->bat_len) {
			errno = EIO;
			return -1;
		}
		if (im->bat[b] == UINT32_MAX) {
			memset(buf, 0, part);
		} else {
			/* a bit for each sector stands before the data, padded to a sector */
			uint64_t bitmap = (im->block / 512 / 8 + 511) & ~511U;

			if (full_pread(im->fd, buf, part, im->bat[b] * (uint64_t)512 + bitmap + in) < 0)
				return -1;
		}
		buf = (char *)buf + part;
		off += part;
		n -= part;
	}
	return 0;
}

/* A bare volume begins at 0; else the largest NTFS partition of the MBR's four or of the GPT. */
static void find_volume(struct image *im)
{
	uint8_t s[512], best_boot[512];
	uint64_t best = 0, best_at = 0;

	if (disk_read(im, s, 512, 0) < 0)
		DIE("%s: %s", im->path, strerror(errno));
	if (!memcmp(s + 3, "NTFS    ", 8))
		return;
	for (unsigned i = 0; i < 132; i++) {
		uint8_t e[128];
		uint64_t start, sectors;

		if (i < 4) {
			start = get_le(s + 446 + 16 * i + 8, 4);
			sectors = get_le(s + 446 + 16 * i + 12, 4);
		} else {
			if (disk_read(im, e, 128, 1024 + 128 * (i - 4)) < 0)
				break;
			start = get_le(e + 32, 8);
			sectors = get_le(e + 40, 8) - start + 1;
			if (i == 4 && (disk_read(im, best_boot, 512, 512) < 0 || memcmp(best_boot, "EFI PART", 8)))
				break;
		}
		if (!start || start > im->size / 512 || sectors > im->size / 512 - start || sectors <= best)
			continue;
		if (disk_read(im, best_boot, 512, start * 512) < 0 || memcmp(best_boot + 3, "NTFS    ", 8))
			continue;
		best = sectors;
		best_at = start;
	}
	if (!best)
		DIE("%s: no NTFS volume found", im->path);
	im->base = best_at * 512;
	im->len = best * 512;
}

static void image_open(struct image *im, const char *path, int64_t offset, bool ro)
{
	uint8_t f[1024];
	struct stat st;

	memset(im, 0, sizeof(*im));
	im->path = path;
	im->ro = ro;
	im->fd = open(path, (ro ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (im->fd < 0 || fstat(im->fd, &st) < 0)
		DIE("%s: %s", path, strerror(errno));
	im->size = st.st_size;
	if (im->size < 1024 || full_pread(im->fd, f, 512, 0) < 0)
		DIE("%s: too small for an image", path);
	if (!memcmp(f, "conectix", 8) && get_be(f + 60, 4) == 3) {
		uint64_t table;

		if (!ro)
			DIE("%s: a dynamic VHD can only be read", path);
		im->size = get_be(f + 48, 8);
		if (full_pread(im->fd, f, 1024, get_be(f + 16, 8)) < 0 || memcmp(f, "cxsparse", 8))
			DIE("%s: bad dynamic header", path);
		table = get_be(f + 16, 8);
		im->bat_len = get_be(f + 28, 4);
		im->block = get_be(f + 32, 4);
		if (im->block < 4096 || im->bat_len > 1U << 22)
			DIE("%s: bad dynamic header", path);
		im->bat = xalloc(im->bat_len * 4ULL);
		if (full_pread(im->fd, im->bat, im->bat_len * 4ULL, table) < 0)
			DIE("%s: block table: %s", path, strerror(errno));
		for (uint32_t i = 0; i < im->bat_len; i++)
			im->bat[i] = get_be((uint8_t *)&im->bat[i], 4);
	} else if (!memcmp(f, "conectix", 8)) {
		DIE("%s: not a VHD that can be read here", path);
	} else if (full_pread(im->fd, f, 512, im->size - 512) == 0 && !memcmp(f, "conectix", 8)) {
		im->size -= 512;
	}
	im->len = im->size;
	if (offset < 0) {
		find_volume(im);
	} else {
		if ((uint64_t)offset >= im->size)
			DIE("%s: nothing at byte %" PRId64, path, offset);
		im->base = offset;
		im->len -= offset;
	}
}

/* libntfs-3g's view of it */

static int dev_open(struct ntfs_device *dev, int flags)
{
	struct image *im = dev->d_private;

	if (NDevOpen(dev)) {
		errno = EBUSY;
		return -1;
	}
	if (im->ro || (flags & O_ACCMODE) == O_RDONLY)
		NDevSetReadOnly(dev);
	NDevSetOpen(dev);
	return 0;
}

static int dev_close(struct ntfs_device *dev)
{
	NDevClearOpen(dev);
	return 0;
}

static s64 dev_seek(struct ntfs_device *dev, s64 offset, int whence)
{
	struct image *im = dev->d_private;
	s64 pos = whence == SEEK_SET ? offset : whence == SEEK_CUR ? im->pos + offset : (s64)im->len + offset;

	if (pos < 0) {
		errno = EINVAL;
		return -1;
	}
	return im->pos = pos;
}

static s64 dev_pread(struct ntfs_device *dev, void *buf, s64 count, s64 offset)
{
	struct image *im = dev->d_private;

	if (offset < 0 || (uint64_t)offset >= im->len)
		return 0;
	if ((uint64_t)count > im->len - offset)
		count = im->len - offset;
	return disk_read(im, buf, count, im->base + offset) < 0 ? -1 : count;
}

static s64 dev_pwrite(struct ntfs_device *dev, const void *buf, s64 count, s64 offset)
{
	struct image *im = dev->d_private;

	if (NDevReadOnly(dev)) {
		errno = EROFS;
		return -1;
	}
	if (offset < 0 || count < 0 || (uint64_t)offset + count > im->len) {
		errno = ENOSPC;
		return -1;
	}
	return full_pwrite(im->fd, buf, count, im->base + offset) < 0 ? -1 : count;
}

static s64 dev_read(struct ntfs_device *dev, void *buf, s64 count)
{
	struct image *im = dev->d_private;
	s64 n = dev_pread(dev, buf, count, im->pos);

	if (n > 0)
		im->pos += n;
	return n;
}

static s64 dev_write(struct ntfs_device *dev, const void *buf, s64 count)
{
	struct image *im = dev->d_private;
	s64 n = dev_pwrite(dev, buf, count, im->pos);

	if (n > 0)
		im->pos += n;
	return n;
}

static int dev_sync(struct ntfs_device *dev)
{
	(void)dev;
	return 0;	/* these are test images: speed before a crash's safety */
}

static int dev_stat(struct ntfs_device *dev, struct stat *st)
{
	return fstat(((struct image *)dev->d_private)->fd, st);
}

static int dev_ioctl(struct ntfs_device *dev, unsigned long request, void *arg)
{
	(void)dev;
	(void)request;
	(void)arg;
	errno = EOPNOTSUPP;
	return -1;
}

static struct ntfs_device_operations dev_ops = {
	.open = dev_open, .close = dev_close, .seek = dev_seek, .read = dev_read, .write = dev_write, .pread = dev_pread,
	.pwrite = dev_pwrite, .sync = dev_sync, .stat = dev_stat, .ioctl = dev_ioctl,
};

static ntfs_volume *volume_open(struct image *im)
{
	struct ntfs_device *dev = ntfs_device_alloc(im->path, 0, &dev_ops, im);
	ntfs_volume *vol;

	if (!dev)
		DIE("out of memory");
	vol = ntfs_device_mount(dev, NTFS_MNT_IGNORE_HIBERFILE | (im->ro ? NTFS_MNT_RDONLY : 0));
	if (!vol)
		DIE("%s: cannot open the NTFS volume at byte %" PRIu64 ": %s", im->path, im->base, strerror(errno));
	ntfs_create_lru_caches(vol);	/* ntfs_mount does it; without them the library does not find its own $Reparse */
	NVolSetCompression(vol);
	return vol;
}

static void volume_close(ntfs_volume *vol, struct image *im)
{
	if (ntfs_umount(vol, FALSE) < 0)
		DIE("%s: closing the volume: %s", im->path, strerror(errno));
	if (close(im->fd) < 0)
		DIE("%s: %s", im->path, strerror(errno));
	free(im->bat);
}

/*
 * `mkntfs -T` writes 1970 everywhere and the same serial number each time, which makes its output the same in every run.
 * Put the clock's time and a serial from the seed in their place: the constant stands on 8-byte borders in the records
 * of the system files and in the root folder's index block.
 */
static void stamp_records(struct ntfs_device *dev, uint64_t pos, unsigned count, uint32_t size, uint64_t stamp)
{
	uint8_t *b = xalloc(size);

	for (unsigned i = 0; i < count; i++, pos += size) {
		if (dev_pread(dev, b, 4, pos) != 4 || (memcmp(b, "FILE", 4) && memcmp(b, "INDX", 4)))
			break;
		if (ntfs_mst_pread(dev, pos, 1, size, b) != 1)
			DIE("stamp: %s", strerror(errno));
		for (uint32_t at = 0; at < size; at += 8)
			if (get_le(b + at, 8) == (uint64_t)NTFS_TIME_OFFSET)
				put_le64(b + at, stamp);
		if (ntfs_mst_pwrite(dev, pos, 1, size, b) != 1)
			DIE("stamp: %s", strerror(errno));
	}
	free(b);
}

static void stamp_volume(struct image *im, uint64_t seed)
{
	uint64_t stamp = NTFS_TIME_OFFSET + (uint64_t)(clock_ns / 100), mft, mirror, index;
	struct ntfs_device *dev = ntfs_device_alloc(im->path, 0, &dev_ops, im);
	bool ro = im->ro;
	uint32_t cluster, rec, sum = 0;
	uint8_t boot[512];
	ntfs_volume *vol;
	ntfs_inode *root;
	ntfs_attr *na;

	im->ro = true;
	vol = volume_open(im);
	root = ntfs_inode_open(vol, FILE_root);
	na = root ? ntfs_attr_open(root, AT_INDEX_ALLOCATION, NTFS_INDEX_I30, 4) : NULL;
	if (!na)
		DIE("stamp: no root folder: %s", strerror(errno));
	index = ntfs_attr_vcn_to_lcn(na, 0);
	cluster = vol->cluster_size;
	rec = vol->mft_record_size;
	mft = vol->mft_lcn * cluster;
	mirror = vol->mftmirr_lcn * cluster;
	index *= cluster;
	ntfs_attr_close(na);
	ntfs_inode_close(root);
	ntfs_umount(vol, FALSE);
	im->ro = ro;

	if (!dev || dev_open(dev, O_RDWR) < 0)
		DIE("out of memory");
	stamp_records(dev, mft, 64, rec, stamp);
	/* $MFTMirr has the first four records, or as many as a cluster holds. */
	stamp_records(dev, mirror, cluster > 4 * rec ? cluster / rec : 4, rec, stamp);
	stamp_records(dev, index, 1, 4096, stamp);
	if (dev_pread(dev, boot, 512, 0) != 512)
		DIE("stamp: %s", strerror(errno));
	put_le64(boot + 72, mix(seed ^ 0x73657269616c));
	for (unsigned i = 0; i < 80; i += 4)
		sum += get_le(boot + i, 4);
	put_le32(boot + 80, sum);
	if (dev_pwrite(dev, boot, 512, 0) != 512 || dev_pwrite(dev, boot, 512, get_le(boot + 40, 8) * 512) != 512)
		DIE("stamp: %s", strerror(errno));
	/* An open device is not freed. */
	dev_close(dev);
	ntfs_device_free(dev);
}

/* ---- names and folders ---- */

struct path {
	char *dir;		/* without the last name, "" for the root */
	char *name;
	const char *stream;	/* or NULL */
	char *text;
};

static void path_split(struct path *p, const char *text, bool with_stream)
{
	char *slash, *colon;

	if (text[0] != '/' || !text[1])
		DIE("%s: a path begins with / and names something", text);
	p->text = xstrdup(text);
	p->dir = xstrdup(text);
	slash = strrchr(p->dir, '/');
	*slash = 0;
	p->name = slash + 1;
	colon = strchr(p->name, ':');
	p->stream = NULL;
	if (colon) {
		if (!with_stream)
			DIE("%s: a stream cannot stand here", text);
		*colon = 0;
		p->stream = colon + 1;
	}
	if (!*p->name)
		DIE("%s: empty name", text);
}

static void path_free(struct path *p)
{
	free(p->dir);
	free(p->text);
}

static int to_ucs(const char *s, ntfschar **u)
{
	int n;

	*u = NULL;
	n = ntfs_mbstoucs(s, u);
	if (n <= 0 || n > 255)
		DIE("%s: not a name for NTFS", s);
	return n;
}

/* MFT number of @name in folder @dir, or -1 when there is none. */
static int64_t lookup(ntfs_inode *dir, const char *name)
{
	ntfschar *u;
	int n = to_ucs(name, &u);
	u64 ref = ntfs_inode_lookup_by_name(dir, u, n);

	free(u);
	return ref == (u64)-1 ? -1 : (int64_t)MREF(ref);
}

static ntfs_inode *inode_open(ntfs_volume *vol, uint64_t ref, const char *what)
{
	ntfs_inode *ni = ntfs_inode_open(vol, ref);

	if (!ni)
		DIE("%s: %s", what, strerror(errno));
	return ni;
}

static void inode_close(ntfs_inode *ni, const char *what)
{
	if (ntfs_inode_close(ni) < 0)
		DIE("%s: %s", what, strerror(errno));
}

static ntfs_inode *create(ntfs_inode *dir, const char *name, mode_t type, const char *what)
{
	ntfschar *u;
	int n = to_ucs(name, &u);
	ntfs_inode *ni = ntfs_create(dir, cpu_to_le32(SECURITY_ID), u, n, type);

	free(u);
	if (!ni)
		DIE("%s: cannot create: %s", what, strerror(errno));
	if (type == S_IFREG)
		ni->flags |= FILE_ATTR_ARCHIVE;
	return ni;
}

/* The folder named last is most often the next one's too. */
static struct {
	ntfs_volume *vol;
	char *path;
	uint64_t ref;
} last_dir;

static void forget_dir(void)
{
	free(last_dir.path);
	last_dir.path = NULL;
}

/* Open folder @path ("" is the root), and make it where @make. */
static ntfs_inode *dir_open(ntfs_volume *vol, const char *path, bool make)
{
	char *copy, *part, *save = NULL;
	ntfs_inode *dir;

	if (last_dir.path && last_dir.vol == vol && !strcmp(last_dir.path, path))
		return inode_open(vol, last_dir.ref, path);
	dir = inode_open(vol, FILE_root, "/");
	copy = xstrdup(path);
	for (part = strtok_r(copy, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
		int64_t ref = lookup(dir, part);
		ntfs_inode *ni;

		if (ref < 0) {
			if (!make)
				DIE("%s: no such folder: %s", path, part);
			ni = create(dir, part, S_IFDIR, path);
			inode_close(dir, path);
		} else {
			inode_close(dir, path);
			ni = inode_open(vol, ref, path);
		}
		dir = ni;
		if (!(dir->mrec->flags & MFT_RECORD_IS_DIRECTORY))
			DIE("%s: %s is not a folder", path, part);
	}
	free(copy);
	forget_dir();
	last_dir.vol = vol;
	last_dir.path = xstrdup(path);
	last_dir.ref = dir->mft_no;
	return dir;
}

/* Open the file @p; create it where @make and it is missing. */
static ntfs_inode *file_open(ntfs_volume *vol, const struct path *p, bool make)
{
	ntfs_inode *dir = dir_open(vol, p->dir, make), *ni;
	int64_t ref = lookup(dir, p->name);

	if (ref < 0) {
		if (!make)
			DIE("%s: no such file", p->text);
		ni = create(dir, p->name, S_IFREG, p->text);
		inode_close(dir, p->text);
	} else {
		inode_close(dir, p->text);
		ni = inode_open(vol, ref, p->text);
	}
	return ni;
}

static ntfs_attr *data_open(ntfs_inode *ni, const struct path *p)
{
	ntfschar *u = AT_UNNAMED;
	int n = 0;
	ntfs_attr *na;

	if (p->stream)
		n = to_ucs(p->stream, &u);
	na = ntfs_attr_open(ni, AT_DATA, u, n);
	if (!na && errno == ENOENT) {
		if (ntfs_attr_add(ni, AT_DATA, u, n, NULL, 0) < 0)
			DIE("%s: new stream: %s", p->text, strerror(errno));
		na = ntfs_attr_open(ni, AT_DATA, u, n);
	}
	if (!na)
		DIE("%s: %s", p->text, strerror(errno));
	if (p->stream)
		free(u);
	return na;
}

static void data_close(ntfs_attr *na, const char *what)
{
	if (ntfs_attr_pclose(na) < 0)
		DIE("%s: %s", what, strerror(errno));
	ntfs_attr_close(na);
}

static void data_write(ntfs_attr *na, uint64_t pos, const void *buf, size_t n, const char *what)
{
	const uint8_t *p = buf;

	while (n) {
		s64 put = ntfs_attr_pwrite(na, pos, n, p);

		if (put <= 0)
			DIE("%s: write: %s", what, strerror(put < 0 ? errno : ENOSPC));
		p += put;
		pos += put;
		n -= put;
	}
}

static void data_read(ntfs_attr *na, uint64_t pos, void *buf, size_t n, const char *what)
{
	uint8_t *p = buf;

	while (n) {
		s64 got = ntfs_attr_pread(na, pos, n, p);

		if (got <= 0)
			DIE("%s: read at %" PRIu64 ": %s", what, pos, strerror(got < 0 ? errno : EIO));
		p += got;
		pos += got;
		n -= got;
	}
}

static void data_gen(ntfs_attr *na, uint64_t pos, const struct gen *g, const char *what)
{
	static uint8_t buf[CHUNK];
	size_t n;

	for (uint64_t at = 0; at < g->size; at += n) {
		n = gen_read(g, at, buf);
		data_write(na, pos + at, buf, n, what);
	}
}

static void touch(ntfs_inode *ni)
{
	ntfs_inode_update_times(ni, NTFS_UPDATE_AMCTIME);
	ntfs_inode_mark_dirty(ni);
}

static uint8_t *host_read(const char *file, size_t *len)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *b;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		DIE("%s: %s", file, errno ? strerror(errno) : "not a file");
	b = malloc(st.st_size + 1);
	if (!b)
		DIE("%s: out of memory", file);
	if (full_pread(fd, b, st.st_size, 0) < 0)
		DIE("%s: %s", file, strerror(errno));
	close(fd);
	*len = st.st_size;
	return b;
}

/* ---- the walk ---- */

struct entry {
	char *name;
	uint64_t ref;
	bool dir;
};

struct entries {
	struct entry *e;
	size_t n, room;
};

static int collect(void *arg, const ntfschar *name, const int len, const int type, const s64 pos, const MFT_REF ref,
		   const unsigned dt)
{
	struct entries *l = arg;
	char *s = NULL;

	(void)pos;
	(void)dt;
	if (type == FILE_NAME_DOS)	/* the same file comes under its long name too */
		return 0;
	if (ntfs_ucstombs(name, len, &s, 0) < 0)
		return -1;
	if (!strcmp(s, ".") || !strcmp(s, "..")) {
		free(s);
		return 0;
	}
	if (l->n == l->room) {
		l->room = l->room ? l->room * 2 : 64;
		l->e = realloc(l->e, l->room * sizeof(*l->e));
		if (!l->e)
			DIE("out of memory");
	}
	l->e[l->n++] = (struct entry){ .name = s, .ref = MREF(ref), .dir = dt == NTFS_DT_DIR };
	return 0;
}

static void list_dir(ntfs_inode *dir, struct entries *l, const char *what)
{
	s64 pos = 0;

	memset(l, 0, sizeof(*l));
	if (ntfs_readdir(dir, &pos, l, collect) < 0)
		DIE("%s: cannot read the folder: %s", what, strerror(errno));
}

static void free_entries(struct entries *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->e[i].name);
	free(l->e);
}

static char *join(const char *a, const char *sep, const char *b)
{
	char *s = xalloc(strlen(a) + strlen(sep) + strlen(b) + 1);

	sprintf(s, "%s%s%s", a, sep, b);
	return s;
}

/* The names of a file's data streams; "" is the main one. Returns how many. */
static size_t list_streams(ntfs_inode *ni, char ***ret, const char *what)
{
	ntfs_attr_search_ctx *ctx = ntfs_attr_get_search_ctx(ni, NULL);
	char **list = NULL;
	size_t n = 0;

	if (!ctx)
		DIE("%s: %s", what, strerror(errno));
	while (!ntfs_attr_lookup(AT_DATA, NULL, 0, CASE_SENSITIVE, 0, NULL, 0, ctx)) {
		ATTR_RECORD *a = ctx->attr;
		char *s = NULL;

		if (a->non_resident && a->lowest_vcn)	/* a later part of one seen already */
			continue;
		if (!a->name_length)
			s = xstrdup("");
		else if (ntfs_ucstombs((ntfschar *)((u8 *)a + le16_to_cpu(a->name_offset)), a->name_length, &s, 0) < 0)
			DIE("%s: stream name: %s", what, strerror(errno));
		list = realloc(list, (n + 1) * sizeof(*list));
		if (!list)
			DIE("out of memory");
		list[n++] = s;
	}
	if (errno != ENOENT)
		DIE("%s: %s", what, strerror(errno));
	ntfs_attr_put_search_ctx(ctx);
	*ret = list;
	return n;
}

static ntfs_attr *stream_open(ntfs_inode *ni, const char *stream, const char *what)
{
	ntfschar *u = AT_UNNAMED;
	int n = *stream ? to_ucs(stream, &u) : 0;
	ntfs_attr *na = ntfs_attr_open(ni, AT_DATA, u, n);

	if (!na)
		DIE("%s: %s", what, strerror(errno));
	if (*stream)
		free(u);
	return na;
}

/* ---- digest ---- */

struct line {
	char *path;
	uint64_t size;
	char hash[65];
};

static struct {
	struct line *l;
	size_t n, room;
	bool hash;
} out;

static void out_add(char *path, uint64_t size, const uint8_t *md)
{
	struct line *l;

	if (out.n == out.room) {
		out.room = out.room ? out.room * 2 : 4096;
		out.l = realloc(out.l, out.room * sizeof(*out.l));
		if (!out.l)
			DIE("out of memory");
	}
	l = &out.l[out.n++];
	l->path = path;
	l->size = size;
	memset(l->hash, '-', 64);
	l->hash[64] = 0;
	for (unsigned i = 0; md && i < 32; i++)
		sprintf(l->hash + 2 * i, "%02x", md[i]);
}

static void digest_data(ntfs_attr *na, char *path)
{
	static uint8_t buf[CHUNK];
	static EVP_MD_CTX *ctx;
	uint64_t size = na->data_size;
	uint8_t md[32];

	if (!out.hash) {
		out_add(path, size, NULL);
		return;
	}
	if (!ctx && !(ctx = EVP_MD_CTX_new()))
		DIE("out of memory");
	if (!EVP_DigestInit_ex(ctx, EVP_sha256(), NULL))
		DIE("no SHA-256");
	for (uint64_t at = 0; at < size;) {
		size_t n = size - at < CHUNK ? size - at : CHUNK;

		data_read(na, at, buf, n, path);
		EVP_DigestUpdate(ctx, buf, n);
		at += n;
	}
	EVP_DigestFinal_ex(ctx, md, NULL);
	out_add(path, size, md);
}

static void digest_file(ntfs_inode *ni, const char *path)
{
	char **streams;
	size_t n = list_streams(ni, &streams, path);
	int tag;

	for (size_t i = 0; i < n; i++) {
		ntfs_attr *na = stream_open(ni, streams[i], path);

		digest_data(na, join(path, *streams[i] ? ":" : "", streams[i]));
		ntfs_attr_close(na);
		free(streams[i]);
	}
	free(streams);
	tag = ntfs_get_ntfs_reparse_data(ni, NULL, 0);
	if (tag > 0) {
		uint8_t *b = xalloc(tag), md[32];

		if (ntfs_get_ntfs_reparse_data(ni, (char *)b, tag) != tag || !EVP_Digest(b, tag, md, NULL, EVP_sha256(), NULL))
			DIE("%s: reparse point: %s", path, strerror(errno));
		out_add(join(path, ":", "$REPARSE_POINT"), tag, out.hash ? md : NULL);
		free(b);
	}
}

static void digest_dir(ntfs_volume *vol, uint64_t ref, const char *path)
{
	ntfs_inode *dir = inode_open(vol, ref, path);
	struct entries l;

	list_dir(dir, &l, path);
	if (ref >= FILE_first_user) {
		out_add(join(path, "/", ""), 0, NULL);
		digest_file(dir, path);
	}
	inode_close(dir, path);
	for (size_t i = 0; i < l.n; i++) {
		char *sub = join(path, "/", l.e[i].name);
		ntfs_inode *ni;

		/* what the file system keeps for itself may change, but for what lies in $Extend by a user's hand */
		if (l.e[i].ref < FILE_first_user && l.e[i].ref != FILE_Extend) {
			free(sub);
			continue;
		}
		if (l.e[i].dir) {
			digest_dir(vol, l.e[i].ref, sub);
		} else {
			ni = inode_open(vol, l.e[i].ref, sub);
			if (ni->mrec->flags & MFT_RECORD_IS_DIRECTORY) {	/* a junction */
				inode_close(ni, sub);
				digest_dir(vol, l.e[i].ref, sub);
			} else {
				digest_file(ni, sub);
				inode_close(ni, sub);
			}
		}
		free(sub);
	}
	free_entries(&l);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct line *)a)->path, ((const struct line *)b)->path);
}

static void digest(ntfs_volume *vol, bool hash)
{
	out.hash = hash;
	digest_dir(vol, FILE_root, "");
	if (out.n)
		qsort(out.l, out.n, sizeof(*out.l), by_path);
	for (size_t i = 0; i < out.n; i++)
		printf("%s %12" PRIu64 " %s\n", out.l[i].hash, out.l[i].size, out.l[i].path);
	if (fflush(stdout) || ferror(stdout))
		DIE("standard output: %s", strerror(errno));
}

/* ---- export ---- */

static bool all_zero(const uint8_t *p, size_t n)
{
	return !n || (!*p && !memcmp(p, p + 1, n - 1));
}

static void make_host_dirs(char *path)
{
	for (char *s = path + 1; (s = strchr(s, '/')); s++) {
		*s = 0;
		if (mkdir(path, 0777) < 0 && errno != EEXIST)
			DIE("%s: %s", path, strerror(errno));
		*s = '/';
	}
}

static void export_dir(ntfs_volume *vol, uint64_t ref, const char *path, const char *to, unsigned percent, uint64_t seed)
{
	static uint8_t buf[CHUNK];
	ntfs_inode *dir = inode_open(vol, ref, path);
	struct entries l;

	list_dir(dir, &l, path);
	inode_close(dir, path);
	for (size_t i = 0; i < l.n; i++) {
		char *sub = join(path, "/", l.e[i].name), *host;
		uint64_t h = seed;
		struct timespec ts[2];
		ntfs_inode *ni;
		ntfs_attr *na;
		int fd;

		if (l.e[i].ref < FILE_first_user)
			goto next;
		if (l.e[i].dir) {
			export_dir(vol, l.e[i].ref, sub, to, percent, seed);
			goto next;
		}
		for (const char *s = sub; *s; s++)
			h = mix(h ^ (uint8_t)*s);
		if (ref == FILE_root || h % 100 >= percent)	/* the root holds paging files, which no host shares */
			goto next;
		ni = inode_open(vol, l.e[i].ref, sub);
		na = ntfs_attr_open(ni, AT_DATA, AT_UNNAMED, 0);
		if (!na) {
			inode_close(ni, sub);
			goto next;
		}
		host = join(to, "", sub);
		make_host_dirs(host);
		fd = open(host, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (fd < 0)
			DIE("%s: %s", host, strerror(errno));
		for (s64 at = 0; at < na->data_size;) {
			size_t n = na->data_size - at < CHUNK ? na->data_size - at : CHUNK;

			data_read(na, at, buf, n, sub);
			if (!all_zero(buf, n) && full_pwrite(fd, buf, n, at) < 0)
				DIE("%s: %s", host, strerror(errno));
			at += n;
		}
		if (ftruncate(fd, na->data_size) < 0)
			DIE("%s: %s", host, strerror(errno));
		ts[0] = ts[1] = ntfs2timespec(ni->last_data_change_time);
		if (futimens(fd, ts) < 0 || close(fd) < 0)
			DIE("%s: %s", host, strerror(errno));
		ntfs_attr_close(na);
		inode_close(ni, sub);
		free(host);
next:
		free(sub);
	}
	free_entries(&l);
}

/* ---- place ---- */

/* Copy what is data in @file to @offset of @image; what is a hole in it is left as it is there. */
static void place(const char *file, const char *image, uint64_t offset)
{
	static uint8_t buf[CHUNK];
	int in = open(file, O_RDONLY | O_CLOEXEC), fd;
	off_t at = 0, end;

	if (in < 0)
		DIE("%s: %s", file, strerror(errno));
	fd = open(image, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		DIE("%s: %s", image, strerror(errno));
	while ((at = lseek(in, at, SEEK_DATA)) >= 0) {
		end = lseek(in, at, SEEK_HOLE);
		if (end < 0)
			break;
		while (at < end) {
			size_t n = end - at < (off_t)CHUNK ? end - at : (off_t)CHUNK;

			if (full_pread(in, buf, n, at) < 0)
				DIE("%s: %s", file, strerror(errno));
			if (full_pwrite(fd, buf, n, offset + at) < 0)
				DIE("%s: %s", image, strerror(errno));
			at += n;
		}
	}
	if (errno != ENXIO)
		DIE("%s: %s", file, strerror(errno));
	close(in);
	if (close(fd) < 0)
		DIE("%s: %s", image, strerror(errno));
}

/* ---- operations ---- */

static ntfs_volume *vol;	/* the one that is filled */

static uint64_t number(const char *s)
{
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(s, &end, 0);
	if (end == s || *s == '-' || errno)
		DIE("%s: not a number", s);
	if (*end == 'K')
		v <<= 10, end++;
	else if (*end == 'M')
		v <<= 20, end++;
	else if (*end == 'G')
		v <<= 30, end++;
	if (*end)
		DIE("%s: not a number", s);
	return v;
}

static struct gen gen_of(const char *kind, const char *size, const char *seed)
{
	struct gen g = { .size = number(size), .seed = number(seed) };

	for (unsigned i = 0; i < KINDS; i++)
		if (!strcmp(kind, kind_names[i])) {
			g.kind = i;
			return g;
		}
	DIE("%s: no such kind of contents", kind);
}

static void replace_data(ntfs_attr *na, const char *what)
{
	if (na->data_size && ntfs_attr_truncate(na, 0) < 0)
		DIE("%s: truncate: %s", what, strerror(errno));
}

static void op_mkdir(char **a, int n)
{
	(void)n;
	inode_close(dir_open(vol, strcmp(a[1], "/") ? a[1] : "", true), a[1]);
}

/* Fill @path with @b. */
static void put_bytes(const char *path, const uint8_t *b, size_t len)
{
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;

	path_split(&p, path, true);
	ni = file_open(vol, &p, true);
	na = data_open(ni, &p);
	replace_data(na, path);
	for (size_t at = 0; at < len; at += CHUNK)
		data_write(na, at, b + at, len - at < CHUNK ? len - at : CHUNK, path);
	data_close(na, path);
	touch(ni);
	inode_close(ni, path);
	path_free(&p);
}

static void op_put(char **a, int n)
{
	uint64_t seed = n > 3 ? number(a[3]) : 0;
	size_t len;
	uint8_t *b = host_read(a[2], &len);

	if (seed) {
		uint8_t *new = changed_version(b, len, seed, &len);

		free(b);
		b = new;
	}
	put_bytes(a[1], b, len);
	free(b);
}

/* gen, append and write: they differ in where the data goes */
static void gen_at(const char *path, int64_t pos, const struct gen *g)
{
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;

	path_split(&p, path, true);
	ni = file_open(vol, &p, true);
	na = data_open(ni, &p);
	if (pos == -1)
		replace_data(na, path);
	data_gen(na, pos == -1 ? 0 : pos == -2 ? (uint64_t)na->data_size : (uint64_t)pos, g, path);
	data_close(na, path);
	touch(ni);
	inode_close(ni, path);
	path_free(&p);
}

static void op_gen(char **a, int n)
{
	struct gen g = gen_of(a[2], a[3], a[4]);

	(void)n;
	gen_at(a[1], -1, &g);
}

static void op_append(char **a, int n)
{
	struct gen g = gen_of(a[2], a[3], a[4]);

	(void)n;
	gen_at(a[1], -2, &g);
}

static void op_write(char **a, int n)
{
	struct gen g = gen_of(a[3], a[4], a[5]);

	(void)n;
	gen_at(a[1], number(a[2]), &g);
}

static void op_truncate(char **a, int n)
{
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;

	(void)n;
	path_split(&p, a[1], true);
	ni = file_open(vol, &p, true);
	na = data_open(ni, &p);
	if (ntfs_attr_truncate(na, number(a[2])) < 0)
		DIE("%s: truncate: %s", a[1], strerror(errno));
	data_close(na, a[1]);
	touch(ni);
	inode_close(ni, a[1]);
	path_free(&p);
}

static void op_compress(char **a, int n)
{
	struct path p;
	ntfs_inode *dir, *ni;
	int64_t ref;

	(void)n;
	path_split(&p, a[1], false);
	dir = dir_open(vol, p.dir, true);
	ref = lookup(dir, p.name);
	ni = ref < 0 ? create(dir, p.name, S_IFREG, a[1]) : inode_open(vol, ref, a[1]);
	inode_close(dir, a[1]);
	/* libntfs-3g passes the flag on to data that is still empty when it is opened */
	ni->flags |= FILE_ATTR_COMPRESSED;
	ntfs_inode_mark_dirty(ni);
	NInoFileNameSetDirty(ni);
	inode_close(ni, a[1]);
	path_free(&p);
}

/* The first run of @n free clusters at or after @lcn; from the volume's start when there is none. */
static LCN free_run(LCN lcn, s64 n)
{
	uint8_t bits[4096];
	s64 have = 0, got = 0, at = -1, start = lcn;

	for (;; lcn++) {
		if (lcn >= vol->nr_clusters) {
			if (!start)
				DIE("no %" PRId64 " free clusters together", n);
			start = lcn = have = 0;
			at = -1;
		}
		if (at < 0 || lcn >= at + got * 8) {
			at = lcn & ~7LL;
			got = ntfs_attr_pread(vol->lcnbmp_na, at / 8, sizeof(bits), bits);
			if (got <= 0)
				DIE("bitmap: %s", strerror(errno));
		}
		have = bits[(lcn - at) / 8] >> (lcn & 7) & 1 ? 0 : have + 1;
		if (have == n)
			return lcn - n + 1;
	}
}

/*
 * Give @na @count more runs of @n clusters, @gap free clusters apart, at or after @cursor. The library's own allocator
 * looks for the largest hole and so keeps files in one piece, which Windows does not.
 */
static LCN place_runs(ntfs_attr *na, LCN cursor, unsigned count, s64 n, s64 gap, const char *what)
{
	runlist_element *rl = xalloc((count + 1) * sizeof(*rl));
	VCN vcn = na->allocated_size >> vol->cluster_size_bits;

	if (ntfs_attr_map_whole_runlist(na) < 0)
		DIE("%s: runs: %s", what, strerror(errno));
	for (unsigned i = 0; i < count; i++, vcn += n) {
		LCN lcn = free_run(cursor, n);

		if (ntfs_bitmap_set_run(vol->lcnbmp_na, lcn, n) < 0)
			DIE("%s: bitmap: %s", what, strerror(errno));
		vol->free_clusters -= n;
		rl[i] = (runlist_element){ .vcn = vcn, .lcn = lcn, .length = n };
		cursor = lcn + n + gap;
	}
	rl[count] = (runlist_element){ .vcn = vcn, .lcn = LCN_ENOENT };
	rl = ntfs_runlists_merge(na->rl, rl);
	if (!rl)
		DIE("%s: runs: %s", what, strerror(errno));
	na->rl = rl;
	na->allocated_size = vcn << vol->cluster_size_bits;
	if (ntfs_attr_update_mapping_pairs(na, 0) < 0)
		DIE("%s: runs: %s", what, strerror(errno));
	return cursor;
}

static void op_grow(char **a, int n)
{
	uint64_t count = number(a[2]), seed = number(a[4]);
	int files = n - 5;
	struct path *p = xalloc(files * sizeof(*p));
	ntfs_inode **ni = xalloc(files * sizeof(*ni));
	ntfs_attr **na = xalloc(files * sizeof(*na));
	struct gen g = gen_of(a[3], a[1], "0");
	LCN cursor = -1;

	for (int i = 0; i < files; i++) {
		path_split(&p[i], a[5 + i], true);
		for (int j = 0; j < i; j++)
			if (!strcmp(p[j].dir, p[i].dir) && !strcmp(p[j].name, p[i].name))
				DIE("%s: named twice", p[i].text);
		ni[i] = file_open(vol, &p[i], true);
		na[i] = data_open(ni[i], &p[i]);
	}
	for (uint64_t c = 0; c < count; c++)
		for (int i = 0; i < files; i++) {
			uint64_t end = na[i]->data_size + g.size;
			s64 more = (s64)(end + vol->cluster_size - 1) / vol->cluster_size - (na[i]->allocated_size >> vol->cluster_size_bits);

			/* the first piece goes where the library puts it, and the others follow each other from there */
			if (NAttrNonResident(na[i]) && !(na[i]->data_flags & (ATTR_COMPRESSION_MASK | ATTR_IS_SPARSE)) && more > 0) {
				if (cursor < 0) {
					ntfs_attr_map_whole_runlist(na[i]);
					cursor = na[i]->rl[0].lcn + 1;
				}
				cursor = place_runs(na[i], cursor, 1, more, 0, p[i].text);
			}
			g.seed = mix(seed ^ c << 16 ^ i);
			data_gen(na[i], na[i]->data_size, &g, p[i].text);
		}
	for (int i = 0; i < files; i++) {
		data_close(na[i], p[i].text);
		touch(ni[i]);
		inode_close(ni[i], p[i].text);
		path_free(&p[i]);
	}
	free(na);
	free(ni);
	free(p);
}

static void op_fragment(char **a, int n)
{
	uint64_t count = number(a[2]);
	struct gen g = gen_of(a[3], "0", a[4]);
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;

	(void)n;
	if (!count || count > 1 << 20)
		DIE("%s: not so many fragments", a[2]);
	g.size = count * vol->cluster_size;
	path_split(&p, a[1], true);
	ni = file_open(vol, &p, true);
	na = data_open(ni, &p);
	replace_data(na, a[1]);
	/* a cluster of 512 bytes would stay in the record */
	if (ntfs_attr_truncate_solid(na, vol->cluster_size) < 0 || (!NAttrNonResident(na) && ntfs_attr_force_non_resident(na) < 0))
		DIE("%s: %s", a[1], strerror(errno));
	ntfs_attr_map_whole_runlist(na);
	if (count > 1)
		place_runs(na, na->rl[0].lcn + 2, count - 1, 1, 1, a[1]);
	data_gen(na, 0, &g, a[1]);
	data_close(na, a[1]);
	touch(ni);
	inode_close(ni, a[1]);
	path_free(&p);
}

static void delete_entry(const char *dir_path, const char *name, const char *what)
{
	ntfs_inode *dir = dir_open(vol, dir_path, false), *ni;
	int64_t ref = lookup(dir, name);
	ntfschar *u;
	int n;

	if (ref < 0)
		DIE("%s: no such file", what);
	if (ref < FILE_first_user)
		DIE("%s: belongs to the file system", what);
	ni = inode_open(vol, ref, what);
	n = to_ucs(name, &u);
	if (ntfs_delete(vol, NULL, ni, dir, u, n) < 0)	/* closes both */
		DIE("%s: remove: %s", what, strerror(errno));
	free(u);
}

static void remove_tree(uint64_t ref, const char *path)
{
	ntfs_inode *ni = inode_open(vol, ref, path);
	struct entries l;

	if (!(ni->mrec->flags & MFT_RECORD_IS_DIRECTORY) || ni->flags & FILE_ATTR_REPARSE_POINT) {
		inode_close(ni, path);
		return;
	}
	list_dir(ni, &l, path);
	inode_close(ni, path);
	for (size_t i = 0; i < l.n; i++) {
		char *sub = join(path, "/", l.e[i].name);

		remove_tree(l.e[i].ref, sub);
		delete_entry(path, l.e[i].name, sub);
		free(sub);
	}
	free_entries(&l);
}

static void remove_name(const struct path *p)
{
	ntfs_inode *dir = dir_open(vol, p->dir, false);
	int64_t ref = lookup(dir, p->name);

	inode_close(dir, p->text);
	if (ref < 0)
		DIE("%s: no such file", p->text);
	remove_tree(ref, p->text);
	delete_entry(p->dir, p->name, p->text);
	forget_dir();	/* it may be gone */
}

static void op_rm(char **a, int n)
{
	struct path p;

	(void)n;
	path_split(&p, a[1], true);
	if (p.stream) {
		ntfs_inode *ni = file_open(vol, &p, false);
		ntfs_attr *na = stream_open(ni, p.stream, a[1]);

		if (ntfs_attr_rm(na) < 0)
			DIE("%s: remove: %s", a[1], strerror(errno));
		ntfs_attr_close(na);
		inode_close(ni, a[1]);
	} else {
		remove_name(&p);
	}
	path_free(&p);
}

static void link_name(const char *new, const char *old)
{
	struct path from, to;
	ntfs_inode *ni, *dir;
	ntfschar *u;
	int n;

	path_split(&from, old, false);
	path_split(&to, new, false);
	dir = dir_open(vol, to.dir, true);	/* before the file: it may create */
	inode_close(dir, new);
	ni = file_open(vol, &from, false);
	if (ni->mrec->flags & MFT_RECORD_IS_DIRECTORY)
		DIE("%s: a folder has only one name", old);
	dir = dir_open(vol, to.dir, true);
	n = to_ucs(to.name, &u);
	if (ntfs_link(ni, dir, u, n) < 0)
		DIE("%s: link: %s", new, strerror(errno));
	free(u);
	inode_close(dir, new);
	inode_close(ni, old);
	path_free(&from);
	path_free(&to);
}

static void op_link(char **a, int n)
{
	(void)n;
	link_name(a[1], a[2]);
}

static void remove_file(const char *path)
{
	struct path p;

	path_split(&p, path, false);
	delete_entry(p.dir, p.name, path);
	path_free(&p);
}

static void rename_file(const char *old, const char *new)
{
	link_name(new, old);
	remove_file(old);
}

static void op_rename(char **a, int n)
{
	(void)n;
	rename_file(a[1], a[2]);
}

static uint8_t *volume_read(const char *path, size_t *len)
{
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;
	uint8_t *b;

	path_split(&p, path, true);
	ni = file_open(vol, &p, false);
	na = data_open(ni, &p);
	*len = na->data_size;
	b = xalloc(*len);
	data_read(na, 0, b, *len, path);
	ntfs_attr_close(na);
	inode_close(ni, path);
	path_free(&p);
	return b;
}

/* As an update does it: the new file is written first and beside, so that it never lies where the old one was. */
static void exchange(const char *path, const uint8_t *b, size_t len, const char *old_path)
{
	char *tmp = join(path, "", ".new");

	put_bytes(tmp, b, len);
	if (old_path)
		rename_file(path, old_path);
	else
		remove_file(path);
	rename_file(tmp, path);
	free(tmp);
}

static void op_update(char **a, int n)
{
	size_t len;
	uint8_t *old = volume_read(a[1], &len);
	uint8_t *new = changed_version(old, len, number(a[2]), &len);

	exchange(a[1], new, len, n > 3 ? a[3] : NULL);
	free(old);
	free(new);
}

static void op_replace(char **a, int n)
{
	size_t len;
	uint8_t *b = host_read(a[2], &len);

	exchange(a[1], b, len, n > 3 ? a[3] : NULL);
	free(b);
}

static void set_short(uint64_t dir_ref, uint64_t ref, const char *name, const char *what)
{
	ntfs_inode *dir = inode_open(vol, dir_ref, what), *ni = inode_open(vol, ref, what);

	if (ntfs_set_ntfs_dos_name(ni, dir, name, strlen(name), 0) < 0)	/* closes both */
		DIE("%s: short name %s: %s", what, name, strerror(errno));
}

static void op_short(char **a, int n)
{
	ntfs_inode *dir;
	struct path p;
	int64_t ref;
	uint64_t dir_ref;

	(void)n;
	path_split(&p, a[1], false);
	dir = dir_open(vol, p.dir, false);
	dir_ref = dir->mft_no;
	ref = lookup(dir, p.name);
	inode_close(dir, a[1]);
	if (ref < 0)
		DIE("%s: no such file", a[1]);
	set_short(dir_ref, ref, a[2], a[1]);
	path_free(&p);
}

static void op_attrib(char **a, int n)
{
	struct path p;
	ntfs_inode *ni;

	(void)n;
	path_split(&p, a[1], false);
	ni = file_open(vol, &p, false);
	for (const char *s = a[2]; *s; s++)
		switch (*s) {
		case 'r': ni->flags |= FILE_ATTR_READONLY; break;
		case 'h': ni->flags |= FILE_ATTR_HIDDEN; break;
		case 's': ni->flags |= FILE_ATTR_SYSTEM; break;
		case 'a': ni->flags |= FILE_ATTR_ARCHIVE; break;
		case 'i': ni->flags |= FILE_ATTR_NOT_CONTENT_INDEXED; break;
		default: DIE("%s: no such attribute: %c", a[1], *s);
		}
	ntfs_inode_mark_dirty(ni);
	NInoFileNameSetDirty(ni);
	inode_close(ni, a[1]);
	path_free(&p);
}

/*
 * REPARSE_DATA_BUFFER of a mount point or symbolic link: offset and length of the name that counts and of the one that is
 * shown, flags of a symbolic link (1: relative), and the names as UTF-16.
 */
static void set_link(ntfs_inode *ni, uint32_t tag, const char *subst, const char *shown, const char *path)
{
	const unsigned names = tag == 0xa000000c ? 20 : 16;
	ntfschar *u1 = NULL, *u2 = NULL;
	int n1 = ntfs_mbstoucs(subst, &u1), n2 = ntfs_mbstoucs(shown, &u2);
	uint8_t b[2048] = { 0 };
	uint16_t len;

	if (n1 <= 0 || n2 <= 0 || n1 + n2 > 900)
		DIE("%s: not a target", shown);
	len = names - 8 + (n1 + n2 + 2) * 2;
	put_le32(b, tag);
	put_le16(b + 4, len);
	put_le16(b + 8, 0);
	put_le16(b + 10, n1 * 2);
	put_le16(b + 12, n1 * 2 + 2);
	put_le16(b + 14, n2 * 2);
	if (names == 20)
		put_le32(b + 16, 1);
	memcpy(b + names, u1, n1 * 2);
	memcpy(b + names + n1 * 2 + 2, u2, n2 * 2);
	if (ntfs_set_ntfs_reparse_data(ni, (char *)b, 8 + len, 0) < 0)
		DIE("%s: link: %s", path, strerror(errno));
	inode_close(ni, path);
	free(u1);
	free(u2);
}

static void op_junction(char **a, int n)
{
	char *subst = join("\\??\\", "", a[2]);

	(void)n;
	set_link(dir_open(vol, a[1], true), 0xa0000003, subst, a[2], a[1]);
	forget_dir();
	free(subst);
}

static void op_symlink(char **a, int n)
{
	struct path p;

	(void)n;
	path_split(&p, a[1], false);
	set_link(file_open(vol, &p, true), 0xa000000c, a[2], a[2], a[1]);
	path_free(&p);
}

static void op_reparse(char **a, int n)
{
	struct gen g = gen_of(a[3], a[4], a[5]);
	uint8_t *b = xalloc(8 + BLOCK);
	ntfs_inode *ni;
	struct path p;

	(void)n;
	if (g.size > 16000)
		DIE("%s: reparse data is at most 16000 bytes", a[1]);
	path_split(&p, a[1], false);
	put_le32(b, strtoul(a[2], NULL, 16));
	put_le16(b + 4, g.size);
	gen_block(&g, 0, b + 8);
	ni = file_open(vol, &p, true);
	if (ntfs_set_ntfs_reparse_data(ni, (char *)b, 8 + g.size, 0) < 0)
		DIE("%s: reparse point: %s", a[1], strerror(errno));
	inode_close(ni, a[1]);
	path_free(&p);
	free(b);
}

/*
 * System compression: the Windows Overlay Filter reads the file from its stream WofCompressedData. That holds the offsets
 * of all chunks of 4 KiB but the first, from the end of these offsets on, and the chunks, each of which may be stored as it
 * is: what Windows does with those that do not get smaller. The reparse point says: version 1, provider 2 (a file's own
 * stream); version 1, algorithm 0 (XPRESS, 4 KiB).
 */
static void op_wof(char **a, int n)
{
	struct gen g = gen_of(a[2], a[3], a[4]);
	const uint32_t chunks = (uint32_t)((g.size + 4095) / 4096);
	const size_t table = chunks > 1 ? 4 * (size_t)(chunks - 1) : 0;
	uint8_t *b = xalloc(table + g.size + BLOCK), reparse[8 + 16] = { 0 };
	char *stream = join(a[1], ":", "WofCompressedData");
	ntfs_inode *ni;
	struct path p;

	(void)n;
	if (g.size >> 32)
		DIE("%s: larger than the offsets of its chunks can tell", a[1]);
	for (uint32_t i = 1; i < chunks; i++)
		put_le32(b + 4 * (i - 1), i * 4096);
	for (uint64_t at = 0; at < g.size; at += CHUNK)
		gen_read(&g, at, b + table + at);
	op_truncate((char *[]){ a[0], a[1], a[3] }, 3);
	put_bytes(stream, b, table + g.size);
	put_le32(reparse, 0x80000017);
	put_le16(reparse + 4, 16);
	put_le32(reparse + 8, 1);
	put_le32(reparse + 12, 2);
	put_le32(reparse + 16, 1);
	path_split(&p, a[1], false);
	ni = file_open(vol, &p, false);
	if (ntfs_set_ntfs_reparse_data(ni, (char *)reparse, sizeof reparse, 0) < 0)
		DIE("%s: reparse point: %s", a[1], strerror(errno));
	inode_close(ni, a[1]);
	path_free(&p);
	free(stream);
	free(b);
}

/*
 * The change journal: $Max tells its size and id, $J is sparse but for its end, because records are numbered by their
 * offset and old ones are cut off at the front.
 */
static void op_usnjrnl(char **a, int n)
{
	static const char name[] = "/$Extend/$UsnJrnl";
	uint64_t size = number(a[1]) & ~4095ULL, start = 64ULL << 20;
	struct rng r = rng_at(number(a[2]), 0x75736e);
	uint8_t *b = xalloc(size + 4096), max[32] = { 0 };
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;

	(void)n;
	for (uint64_t at = 0; at + 512 < size;) {
		uint64_t v = rnd(&r);
		unsigned w = v % WORDS, chars = word_len[w] - 1, len = (60 + 2 * (chars + 4) + 7) & ~7U;
		uint8_t *rec = b + at;

		if (at % 4096 + len > 4096) {	/* a record never crosses a page */
			at = (at + 4095) & ~4095ULL;
			continue;
		}
		put_le32(rec, len);
		put_le16(rec + 4, 2);
		put_le64(rec + 8, (v >> 10 & 0xffff) | 1ULL << 48);
		put_le64(rec + 16, (v >> 26 & 0xfff) | 1ULL << 48);
		put_le64(rec + 24, start + at);
		put_le64(rec + 32, NTFS_TIME_OFFSET + clock_ns / 100 - (size - at) * 1000);
		put_le32(rec + 40, 1U << (v >> 40 & 15));
		put_le32(rec + 48, SECURITY_ID);
		put_le32(rec + 52, 0x20);
		put_le16(rec + 56, 2 * (chars + 4));
		put_le16(rec + 58, 60);
		for (unsigned i = 0; i < chars; i++)
			put_le16(rec + 60 + 2 * i, (uint8_t)words[w][i]);
		for (unsigned i = 0; i < 4; i++)
			put_le16(rec + 60 + 2 * (chars + i), (uint8_t)".dat"[i]);
		at += len;
	}
	path_split(&p, name, false);
	p.stream = "$Max";
	ni = file_open(vol, &p, true);
	ni->mrec->flags |= MFT_RECORD_IS_4;
	ni->flags = FILE_ATTR_HIDDEN | FILE_ATTR_SYSTEM;
	na = data_open(ni, &p);
	put_le64(max, 32 << 20);
	put_le64(max + 8, 8 << 20);
	put_le64(max + 16, NTFS_TIME_OFFSET + clock_ns / 100);
	put_le64(max + 24, start);
	data_write(na, 0, max, 32, name);
	data_close(na, name);
	p.stream = "$J";
	na = data_open(ni, &p);
	if (ntfs_attr_truncate(na, start) < 0)
		DIE("%s: %s", name, strerror(errno));
	data_write(na, start, b, size, name);
	data_close(na, name);
	touch(ni);
	inode_close(ni, name);
	path_free(&p);
	free(b);
}

/* ---- import: a volume's files laid out anew ---- */

static struct {
	uint64_t *ref;
	char **path;
	size_t n, room;
} links;		/* files with several names, by their record in the source */

static const char *link_of(uint64_t ref, const char *path)
{
	for (size_t i = 0; i < links.n; i++)
		if (links.ref[i] == ref)
			return links.path[i];
	if (links.n == links.room) {
		links.room = links.room ? links.room * 2 : 256;
		links.ref = realloc(links.ref, links.room * sizeof(*links.ref));
		links.path = realloc(links.path, links.room * sizeof(*links.path));
		if (!links.ref || !links.path)
			DIE("out of memory");
	}
	links.ref[links.n] = ref;
	links.path[links.n++] = xstrdup(path);
	return NULL;
}

static void import_stream(ntfs_inode *from, ntfs_inode *to, char *stream, const char *path)
{
	static uint8_t buf[CHUNK];
	struct path p = { .text = (char *)path, .stream = *stream ? stream : NULL };
	ntfs_attr *in = stream_open(from, stream, path), *na = data_open(to, &p);
	bool sparse = in->data_flags & ATTR_IS_SPARSE;

	if (sparse && ntfs_attr_truncate(na, in->data_size) < 0)
		DIE("%s: %s", path, strerror(errno));
	for (s64 at = 0; at < in->data_size;) {
		size_t max = sparse ? BLOCK : CHUNK, n = in->data_size - at < (s64)max ? in->data_size - at : (s64)max;

		data_read(in, at, buf, n, path);
		if (!sparse || !all_zero(buf, n))
			data_write(na, at, buf, n, path);
		at += n;
	}
	data_close(na, path);
	ntfs_attr_close(in);
}

static void import_reparse(ntfs_inode *from, ntfs_inode *to, const char *path)
{
	int n = ntfs_get_ntfs_reparse_data(from, NULL, 0);
	char *b;

	if (n <= 0)
		return;
	b = xalloc(n);
	if (ntfs_get_ntfs_reparse_data(from, b, n) != n || ntfs_set_ntfs_reparse_data(to, b, n, 0) < 0)
		DIE("%s: reparse point: %s", path, strerror(errno));
	free(b);
}

static void import_times(ntfs_inode *from, ntfs_inode *to)
{
	const FILE_ATTR_FLAGS keep = FILE_ATTR_READONLY | FILE_ATTR_HIDDEN | FILE_ATTR_SYSTEM | FILE_ATTR_ARCHIVE |
				     FILE_ATTR_NOT_CONTENT_INDEXED;

	to->creation_time = from->creation_time;
	to->last_data_change_time = from->last_data_change_time;
	to->last_mft_change_time = from->last_mft_change_time;
	to->last_access_time = from->last_access_time;
	to->flags = (to->flags & ~keep) | (from->flags & keep);
	ntfs_inode_mark_dirty(to);
	NInoFileNameSetDirty(to);
}

static void import_dir(ntfs_volume *src, uint64_t src_ref, const char *path)
{
	ntfs_inode *sdir = inode_open(src, src_ref, path), *dir, *from, *to;
	struct entries l;

	list_dir(sdir, &l, path);
	for (size_t i = 0; i < l.n; i++) {
		char *sub = join(path, "/", l.e[i].name), **streams, dos[64];
		uint64_t dir_ref, ref;
		const char *same;
		bool is_dir;
		int short_len;
		size_t n;

		if (l.e[i].ref < FILE_first_user) {
			free(sub);
			continue;
		}
		from = inode_open(src, l.e[i].ref, sub);
		is_dir = from->mrec->flags & MFT_RECORD_IS_DIRECTORY;
		short_len = ntfs_get_ntfs_dos_name(from, sdir, dos, sizeof(dos) - 1);
		same = !is_dir && le16_to_cpu(from->mrec->link_count) > (short_len > 0 ? 2 : 1) ? link_of(l.e[i].ref, sub) : NULL;
		if (same) {
			link_name(sub, same);
			inode_close(from, sub);
			free(sub);
			continue;
		}
		dir = dir_open(vol, path, true);
		dir_ref = dir->mft_no;
		to = create(dir, l.e[i].name, is_dir ? S_IFDIR : S_IFREG, sub);
		ref = to->mft_no;
		inode_close(dir, path);
		if (from->flags & FILE_ATTR_COMPRESSED)
			to->flags |= FILE_ATTR_COMPRESSED;
		n = list_streams(from, &streams, sub);
		for (size_t s = 0; s < n; s++) {
			import_stream(from, to, streams[s], sub);
			free(streams[s]);
		}
		free(streams);
		import_reparse(from, to, sub);
		import_times(from, to);
		inode_close(to, sub);
		if (is_dir && !(from->flags & FILE_ATTR_REPARSE_POINT))
			import_dir(src, l.e[i].ref, sub);
		if (short_len > 0) {
			dos[short_len] = 0;
			set_short(dir_ref, ref, dos, sub);
		}
		to = inode_open(vol, ref, sub);	/* what was put into a folder has changed its times */
		import_times(from, to);
		inode_close(to, sub);
		inode_close(from, sub);
		free(sub);
	}
	inode_close(sdir, path);
	free_entries(&l);
}

static void op_import(char **a, int n)
{
	struct image im;
	ntfs_volume *src;

	image_open(&im, a[1], n > 2 ? (int64_t)number(a[2]) : -1, true);
	src = volume_open(&im);
	import_dir(src, FILE_root, "");
	volume_close(src, &im);
}

/*
 * The journal, $LogFile. Only its restart pages matter to those who ask whether it is clean: a client (NTFS itself) in the
 * list of those in use means that the volume was not closed. Windows 8 and later write version 2.0 where they only
 * hibernated the kernel (fast start-up). Layouts as in ntfs-3g's logfile.h.
 */
static void op_logfile(char **a, int n)
{
	static const char *const states[] = { "empty", "zero", "clean", "unclean", "fast" };
	static uint8_t buf[CHUNK];
	struct path none = { .text = (char *)"$LogFile" };
	ntfs_inode *ni = inode_open(vol, FILE_LogFile, none.text);
	ntfs_attr *na = data_open(ni, &none);
	uint64_t size = na->data_size, used = size / 4 & ~4095ULL;
	unsigned state = 0, bits = 0;
	struct rng r = rng_at(clock_ns, 0x6c6f67);

	(void)n;
	while (state < 5 && strcmp(a[1], states[state]))
		state++;
	if (state == 5)
		DIE("%s: no such state of the journal", a[1]);
	for (uint64_t v = size; v; v >>= 1)
		bits++;
	memset(buf, state == 1 ? 0 : 0xff, sizeof(buf));
	for (uint64_t at = 0; at < size; at += CHUNK)
		data_write(na, at, buf, size - at < CHUNK ? size - at : CHUNK, none.text);
	for (uint64_t at = 0; state >= 2 && at < used; at += 4096) {
		uint8_t *rs = buf, *area = buf + 48;

		memset(buf, 0, 4096);
		if (at >= 8192) {	/* records of what was done last, which only Windows reads */
			memcpy(rs, "RCRD", 4);
			put_le16(rs + 4, 40);
			put_le16(rs + 6, 9);
			put_le64(rs + 8, 0x100000 + at / 8);
			fill_page(&r, rs + 64, 3000);
		} else {
			memcpy(rs, "RSTR", 4);
			put_le16(rs + 4, 30);
			put_le16(rs + 6, 9);
			put_le32(rs + 16, 4096);
			put_le32(rs + 20, 4096);
			put_le16(rs + 24, 48);
			put_le16(rs + 26, state == 4 ? 0 : 1);
			put_le16(rs + 28, state == 4 ? 2 : 1);
			put_le64(area, 0x100000 + at / 8);
			put_le16(area + 8, 1);
			put_le16(area + 10, state == 2 ? 0 : 0xffff);
			put_le16(area + 12, state == 2 ? 0xffff : 0);
			put_le16(area + 14, state == 2 ? 2 : 0);
			put_le32(area + 16, 67 - bits);
			put_le16(area + 20, 48 + 160);
			put_le16(area + 22, 48);
			put_le64(area + 24, size);
			put_le16(area + 36, 48);
			put_le16(area + 38, 64);
			put_le64(area + 48, 0x100000);
			put_le16(area + 48 + 16, 0xffff);
			put_le16(area + 48 + 18, 0xffff);
			put_le32(area + 48 + 28, 8);
			memcpy(area + 48 + 32, "N\0T\0F\0S", 7);
		}
		if (ntfs_mst_pre_write_fixup((NTFS_RECORD *)buf, 4096) < 0)
			DIE("%s: %s", none.text, strerror(errno));
		data_write(na, at, buf, 4096, none.text);
	}
	data_close(na, none.text);
	inode_close(ni, none.text);
}

static void op_time(char **a, int n)
{
	(void)n;
	clock_ns = (int64_t)number(a[1]) * 1000000000;
}

static void set_dirty(bool on)
{
	le16 flags = on ? vol->flags | VOLUME_IS_DIRTY : vol->flags & ~VOLUME_IS_DIRTY;

	if (ntfs_volume_write_flags(vol, flags) < 0)
		DIE("volume flags: %s", strerror(errno));
}

static void op_dirty(char **a, int n)
{
	(void)a;
	(void)n;
	set_dirty(true);
}

static void op_clean(char **a, int n)
{
	(void)a;
	(void)n;
	set_dirty(false);
}

static const struct op {
	const char *name;
	int min, max;		/* fields, the name among them */
	void (*run)(char **fields, int n);
} op_table[] = {
	{ "mkdir", 2, 2, op_mkdir },
	{ "put", 3, 4, op_put },
	{ "gen", 5, 5, op_gen },
	{ "append", 5, 5, op_append },
	{ "write", 6, 6, op_write },
	{ "truncate", 3, 3, op_truncate },
	{ "sparse", 3, 3, op_truncate },
	{ "compress", 2, 2, op_compress },
	{ "grow", 6, 64, op_grow },
	{ "fragment", 5, 5, op_fragment },
	{ "rm", 2, 2, op_rm },
	{ "link", 3, 3, op_link },
	{ "rename", 3, 3, op_rename },
	{ "update", 3, 4, op_update },
	{ "replace", 3, 4, op_replace },
	{ "short", 3, 3, op_short },
	{ "attrib", 3, 3, op_attrib },
	{ "junction", 3, 3, op_junction },
	{ "symlink", 3, 3, op_symlink },
	{ "reparse", 6, 6, op_reparse },
	{ "wof", 5, 5, op_wof },
	{ "usnjrnl", 3, 3, op_usnjrnl },
	{ "import", 2, 3, op_import },
	{ "logfile", 2, 2, op_logfile },
	{ "time", 2, 2, op_time },
	{ "dirty", 1, 1, op_dirty },
	{ "clean", 1, 1, op_clean },
};

static int split_fields(char *s, char **f, int max)
{
	int n = 0;

	for (;;) {
		char quote = 0;

		s += strspn(s, " \t\r\n");
		if (!*s)
			return n;
		if (n == max)
			DIE("too many fields");
		if (*s == '"' || *s == '\'')
			quote = *s++;
		f[n++] = s;
		if (quote) {
			s = strchr(s, quote);
			if (!s)
				DIE("quote not closed");
		} else {
			s += strcspn(s, " \t\r\n");
		}
		if (*s)
			*s++ = 0;
	}
}

static void run_manifest(FILE *in)
{
	char *line = NULL, *f[64];
	size_t room = 0;

	while (getline(&line, &room, in) > 0) {
		const struct op *o = op_table, *end = op_table + sizeof(op_table) / sizeof(*op_table);
		int n;

		line_no++;
		if (*line == '#')
			continue;
		n = split_fields(line, f, 64);
		if (!n)
			continue;
		while (o < end && strcmp(o->name, f[0]))
			o++;
		if (o == end)
			die(2, "%s: no such operation", f[0]);
		if (n < o->min || n > o->max)
			die(2, "%s: wrong number of fields", f[0]);
		o->run(f, n);
	}
	if (ferror(in))
		DIE("standard input: %s", strerror(errno));
	line_no = 0;
	free(line);
	forget_dir();
}

/* ---- command line ---- */

static void make_host_file(char **a)
{
	struct gen g = gen_of(a[1], a[2], a[3]);
	int fd = open(a[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	static uint8_t buf[CHUNK];
	struct timespec ts[2];
	size_t n;

	if (fd < 0)
		DIE("%s: %s", a[0], strerror(errno));
	for (uint64_t at = 0; at < g.size; at += n) {
		n = gen_read(&g, at, buf);
		if (full_pwrite(fd, buf, n, at) < 0)
			DIE("%s: %s", a[0], strerror(errno));
	}
	ts[0].tv_sec = ts[1].tv_sec = clock_ns / 1000000000;
	ts[0].tv_nsec = ts[1].tv_nsec = 0;
	if (futimens(fd, ts) < 0 || close(fd) < 0)
		DIE("%s: %s", a[0], strerror(errno));
}

int main(int argc, char **argv)
{
	enum { O_OFFSET = 256, O_SEED, O_TIME, O_STAMP, O_DIGEST, O_LIST, O_EXPORT, O_PERCENT, O_PLACE, O_MAKE };
	static const struct option longopts[] = {
		{ "offset", required_argument, NULL, O_OFFSET },
		{ "seed", required_argument, NULL, O_SEED },
		{ "time", required_argument, NULL, O_TIME },
		{ "stamp", no_argument, NULL, O_STAMP },
		{ "digest", no_argument, NULL, O_DIGEST },
		{ "list", no_argument, NULL, O_LIST },
		{ "export", required_argument, NULL, O_EXPORT },
		{ "percent", required_argument, NULL, O_PERCENT },
		{ "place", required_argument, NULL, O_PLACE },
		{ "make", no_argument, NULL, O_MAKE },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	const char *export_to = NULL, *place_file = NULL;
	int64_t offset = -1, start = -1;
	uint64_t seed = 1, percent = 20;
	bool stamp = false;
	struct image im;
	int c, verb = 0;

	while ((c = getopt_long(argc, argv, "h", longopts, NULL)) != -1) {
		switch (c) {
		case O_OFFSET: offset = number(optarg); break;
		case O_SEED: seed = number(optarg); break;
		case O_TIME: start = number(optarg); break;
		case O_STAMP: stamp = true; break;
		case O_EXPORT: export_to = optarg; verb = c; break;
		case O_PERCENT: percent = number(optarg); break;
		case O_PLACE: place_file = optarg; verb = c; break;
		case O_DIGEST: case O_LIST: case O_MAKE: verb = c; break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs("Try 'ntfs-populate --help'.\n", stderr);
			return 2;
		}
	}
	if (argc - optind != (verb == O_MAKE ? 4 : 1) || (verb == O_PLACE && offset < 0)) {
		fputs(usage, stderr);
		return 2;
	}
	/* some day between 2009 and 2012 */
	clock_ns = (start >= 0 ? start : 1230768000 + (int64_t)(mix(seed) % (3 * 365)) * 86400) * 1000000000;
	make_tables();
	if (verb == O_MAKE) {
		make_host_file(argv + optind);
		return 0;
	}
	if (verb == O_PLACE) {
		place(place_file, argv[optind], offset);
		return 0;
	}

	ntfs_log_set_handler(ntfs_log_handler_null);
	ntfs_set_char_encoding("utf8");
	srandom(mix(seed));
	image_open(&im, argv[optind], offset, verb != 0);
	if (stamp && !verb)
		stamp_volume(&im, seed);
	vol = volume_open(&im);
	switch (verb) {
	case O_DIGEST: case O_LIST:
		digest(vol, verb == O_DIGEST);
		break;
	case O_EXPORT:
		export_dir(vol, FILE_root, "", export_to, percent, seed);
		break;
	default:
		run_manifest(stdin);
	}
	volume_close(vol, &im);
	return 0;
}
