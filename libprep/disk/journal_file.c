/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/journal_file.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/base/output.h"
#include "libprep/disk/overlay.h"

/*
 * The file, all integers little-endian:
 *   header   "prepjrn4", u64 disk size, u64 witnesses
 *   witness  u64 offset, u64 length each: bytes that no record touches
 *   digest   SHA-256 of the witnesses' bytes
 *   records  u64 offset, u64 length, u32 kind, u32 fill byte; data are followed by
 *            u32 CRC-32 of each of their sectors before the change, and their new bytes,
 *            exact fills, which are no longer than data, by the former alone; before all of these, ascending,
 *            what moved data holds already: data of at most 1 MiB with its CRC-32 as fill byte, or zeros;
 *            the last is of kind "end"
 *   digest   SHA-256 of everything before
 *
 * The witnesses, and the sectors that must be as they were or as they are to
 * be, tell the image from any other, and from another version of itself.
 */
#define MAGIC "prepjrn4"
#define HEADER_SIZE 24
#define HELD_MAX (1024u * 1024)
#define RECORD_SIZE 24
#define DIGEST_SIZE 32
#define SAMPLES 64          /* pages all over the disk, besides what the overlay guards */
#define SAMPLE_SIZE 4096u
#define WITNESSES_MAX 4096u
#define BUFFER (64u * 1024)

#define SECTOR PREP_JOURNAL_SECTOR
#define SECTORS PREP_JOURNAL_SECTORS
#define DATA_MAX PREP_JOURNAL_DATA_MAX

/* A digest that is fed while a file is written or read, in parts of at most BUFFER bytes. */
struct stream {
	struct prep_output *out; /* writing */
	int fd;                  /* reading, from off on */
	uint64_t off, size;
	const char *name;
	EVP_MD_CTX *sha;         /* NULL once a file has been read through, and is read again */
	uint8_t buf[BUFFER];     /* what is not written yet, or what the file holds at `at` */
	uint64_t at;
	size_t used;
};

/* Write what waits. */
static int put_out(struct stream *s, struct prep_err *err)
{
	const size_t n = s->used;

	s->used = 0;
	if (EVP_DigestUpdate(s->sha, s->buf, n) != 1)
		return prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", s->name);
	return prep_output_write(s->out, s->buf, n, err);
}

static int put(struct stream *s, const void *buf, size_t len, struct prep_err *err)
{
	if (len > BUFFER - s->used && put_out(s, err) < 0)
		return -1;
	memcpy(s->buf + s->used, buf, len);
	s->used += len;
	return 0;
}

static int get(struct stream *s, void *buf, size_t len, struct prep_err *err)
{
	if (s->off < s->at || s->off + len > s->at + s->used) {
		/* At least what is asked for: reading past the end fails, and says where. */
		const size_t n = (size_t)prep_max(prep_min(BUFFER, s->size - prep_min(s->off, s->size)), len);

		s->used = 0;
		if (prep_file_pread(s->fd, s->buf, n, s->off, s->name, err) < 0)
			return -1;
		s->at = s->off;
		s->used = n;
	}
	memcpy(buf, s->buf + (s->off - s->at), len);
	s->off += len;
	if (s->sha != NULL && EVP_DigestUpdate(s->sha, buf, len) != 1)
		return prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", s->name);
	return 0;
}

static int sha_start(EVP_MD_CTX **sha, struct prep_err *err)
{
	*sha = EVP_MD_CTX_new();
	if (*sha == NULL || EVP_DigestInit_ex(*sha, EVP_sha256(), NULL) != 1)
		return prep_fail_nomem(err);
	return 0;
}

struct witness {
	uint64_t off, len;
};

/* Digest of the witnesses' bytes of d: what an image is known by while it changes elsewhere. */
static int digest_witnesses(struct prep_disk *d, const struct witness *w, size_t n,
			    uint8_t ret[DIGEST_SIZE], struct prep_err *err)
{
	uint8_t *buf = malloc(64 * 1024);
	EVP_MD_CTX *sha = NULL;
	int r = buf == NULL ? prep_fail_nomem(err) : sha_start(&sha, err);

	for (size_t i = 0; r == 0 && i < n; i++) {
		for (uint64_t at = 0, len; r == 0 && at < w[i].len; at += len) {
			len = prep_min(64 * 1024, w[i].len - at);
			r = prep_disk_read(d, buf, (size_t)len, w[i].off + at, err);
			if (r == 0 && EVP_DigestUpdate(sha, buf, (size_t)len) != 1)
				r = prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", d->name);
		}
	}
	if (r == 0 && EVP_DigestFinal_ex(sha, ret, NULL) != 1)
		r = prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", d->name);
	EVP_MD_CTX_free(sha);
	free(buf);
	return r;
}

/* Whether no change touches [off, off+len): 1, 0, or -1. */
static int untouched(struct prep_disk *overlay, uint64_t off, uint64_t len, struct prep_err *err)
{
	struct prep_overlay_change c;
	const int r = prep_overlay_change(overlay, off, &c, err);

	if (r < 0)
		return -1;
	return r == 0 || c.off >= off + len;
}

/*
 * Bytes of witnesses: much more than the bitmaps and samples have, and the FAT of clusters of 512 bytes, which has 1 GiB
 * at most; and read in a moment whoever wrote the journal.
 */
static uint64_t witness_bytes_max(uint64_t disk_size)
{
	return disk_size / 1024 + prep_min(disk_size / 64, PREP_GIB) + 64 * PREP_MIB;
}

/* What the overlay guards, and pages all over the disk. The caller frees *ret. */
static int choose_witnesses(struct prep_disk *overlay, struct witness **ret, size_t *n,
			    struct prep_err *err)
{
	const uint64_t step = prep_max(prep_round_up(overlay->size / SAMPLES, SAMPLE_SIZE), SAMPLE_SIZE);
	size_t guards;
	const struct prep_overlay_guard *g = prep_overlay_guards(overlay, &guards);
	struct witness *w = calloc(WITNESSES_MAX, sizeof *w);
	uint64_t bytes = SAMPLES * SAMPLE_SIZE;
	int r = 0;

	*ret = w;
	*n = 0;
	if (w == NULL)
		return prep_fail_nomem(err);
	for (uint64_t at = 0; r >= 0 && at < overlay->size; at += step) {
		const struct witness sample = { at, prep_min(SAMPLE_SIZE, overlay->size - at) };

		r = untouched(overlay, sample.off, sample.len, err);
		if (r > 0)
			w[(*n)++] = sample;
	}
	for (size_t i = 0; r >= 0 && i < guards && *n < WITNESSES_MAX; i++) {
		/* One that is too large does not take the place of others. */
		if (g[i].len > witness_bytes_max(overlay->size) - bytes)
			continue;
		bytes += g[i].len;
		r = untouched(overlay, g[i].off, g[i].len, err);
		if (r > 0)
			w[(*n)++] = (struct witness){ g[i].off, g[i].len };
	}
	return r < 0 ? -1 : 0;
}

/* What d holds where r's data go, and CRC-32 of each sector of it; the last of a disk may be short. */
static int read_now(struct prep_disk *d, const struct prep_journal_record *r, uint8_t now[DATA_MAX], uint32_t sum[SECTORS],
		    struct prep_err *err)
{
	if (prep_disk_read(d, now, (size_t)r->len, r->off, err) < 0)
		return -1;
	for (uint32_t i = 0; i * SECTOR < r->len; i++)
		sum[i] = (uint32_t)crc32(0, now + i * SECTOR, (uInt)prep_min(SECTOR, r->len - i * SECTOR));
	return 0;
}

/* The changes of an overlay, one after the other. */
struct changes {
	struct prep_disk *overlay;
	struct prep_overlay_change next;
	int more; /* 1: next is one, 0: there are no more, -1: reading failed */
};

static void next_change(struct changes *c, uint64_t off, struct prep_err *err)
{
	c->more = prep_overlay_change(c->overlay, off, &c->next, err);
}

/* The next change or pages in a row as a record, what was there before from d. "end" after the last. */
static int next_record(struct changes *c, struct prep_disk *d, struct prep_journal_record *r, struct prep_err *err)
{
	const struct prep_overlay_change *next = &c->next;
	uint8_t now[DATA_MAX];

	r->off = r->len = r->byte = 0;
	r->kind = PREP_JOURNAL_END;
	if (c->more <= 0)
		return c->more;
	r->off = next->off;
	r->kind = next->exact ? PREP_JOURNAL_FILL_EXACT : next->fill ? PREP_JOURNAL_FILL : PREP_JOURNAL_DATA;
	if (next->exact) {
		r->byte = next->byte;
		r->len = prep_min(next->len, DATA_MAX);
		next_change(c, r->off + r->len, err);
		return c->more < 0 ? -1 : read_now(d, r, now, r->was, err);
	}
	do {
		if (next->fill)
			r->byte = next->byte;
		else
			memcpy(r->data + r->len, next->page, (size_t)next->len);
		r->len += next->len;
		next_change(c, next->off + next->len, err);
	} while (r->kind == PREP_JOURNAL_DATA && c->more > 0 && !next->fill && next->off == r->off + r->len &&
		 r->len + next->len <= DATA_MAX);
	if (c->more < 0 || r->kind == PREP_JOURNAL_FILL)
		return c->more < 0 ? -1 : 0;
	return read_now(d, r, now, r->was, err);
}

static int put_record(struct stream *s, const struct prep_journal_record *r, struct prep_err *err)
{
	uint8_t head[RECORD_SIZE], sums[4 * SECTORS];
	const uint32_t sectors = (uint32_t)((r->len + SECTOR - 1) / SECTOR);

	put_le64(head, r->off);
	put_le64(head + 8, r->len);
	put_le32(head + 16, r->kind);
	put_le32(head + 20, r->kind == PREP_JOURNAL_HELD ? r->crc : r->byte);
	if (put(s, head, sizeof head, err) < 0)
		return -1;
	if (r->kind != PREP_JOURNAL_DATA && r->kind != PREP_JOURNAL_FILL_EXACT)
		return 0;
	for (uint32_t i = 0; i < sectors; i++)
		put_le32(sums + 4 * i, r->was[i]);
	if (put(s, sums, 4 * sectors, err) < 0)
		return -1;
	return r->kind == PREP_JOURNAL_DATA ? put(s, r->data, (size_t)r->len, err) : 0;
}

static int put_held(struct stream *s, const struct prep_disk *overlay, struct prep_err *err)
{
	struct prep_journal_record r = { .len = 0 };
	size_t n;
	const struct prep_overlay_settled *held = prep_overlay_settled(overlay, &n);

	for (size_t i = 0; i < n; i++) {
		r.off = held[i].off;
		r.len = held[i].len;
		r.kind = held[i].zero ? PREP_JOURNAL_HELD_ZERO : PREP_JOURNAL_HELD;
		r.crc = held[i].crc;
		if (put_record(s, &r, err) < 0)
			return -1;
	}
	return 0;
}

int prep_journal_file_write(struct prep_disk *overlay, const char *path, const char *image, const struct stat *st,
			    struct prep_err *err)
{
	struct stream s = { .name = path };
	struct changes changes = { .overlay = overlay };
	struct prep_disk *d = prep_overlay_base(overlay);
	uint8_t head[HEADER_SIZE] = MAGIC, digest[DIGEST_SIZE], at[16];
	struct witness *w = NULL;
	struct prep_journal_record record = { .len = 0 };
	size_t n, held;
	int r;

	prep_overlay_settled(overlay, &held);
	if (choose_witnesses(overlay, &w, &n, err) < 0 || digest_witnesses(d, w, n, digest, err) < 0) {
		free(w);
		return -1;
	}
	put_le64(head + 8, overlay->size);
	put_le64(head + 16, n);

	r = sha_start(&s.sha, err);
	if (r == 0)
		r = prep_output_open(path, false, &s.out, err);
	/* It holds parts of the image: whoever may not read that may not read this. */
	if (r == 0)
		prep_output_set_like(s.out, st, image);
	/* Twice: what is journalled is written to the image as well, perhaps to new blocks. */
	if (r == 0)
		r = prep_output_check_space(s.out, 2 * prep_overlay_page_bytes(overlay) +
						   (prep_overlay_ranges(overlay) + held) * RECORD_SIZE, err);
	if (r == 0)
		r = put(&s, head, sizeof head, err);
	for (size_t i = 0; r == 0 && i < n; i++) {
		put_le64(at, w[i].off);
		put_le64(at + 8, w[i].len);
		r = put(&s, at, sizeof at, err);
	}
	if (r == 0)
		r = put(&s, digest, sizeof digest, err);
	if (r == 0)
		r = put_held(&s, overlay, err);
	next_change(&changes, 0, err);
	do {
		if (r == 0)
			r = next_record(&changes, d, &record, err);
		if (r == 0)
			r = put_record(&s, &record, err);
	} while (r == 0 && record.kind != PREP_JOURNAL_END);
	if (r == 0)
		r = put_out(&s, err);
	if (r == 0 && EVP_DigestFinal_ex(s.sha, digest, NULL) != 1)
		r = prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", path);
	if (r == 0)
		r = prep_output_write(s.out, digest, sizeof digest, err);
	if (r == 0)
		r = prep_output_commit(s.out, err);
	prep_output_close(s.out);
	EVP_MD_CTX_free(s.sha);
	free(w);
	return r;
}

struct prep_journal_file {
	struct stream s;
	uint64_t first; /* where the records begin */
	uint64_t disk_size;
};

int prep_journal_file_next(struct prep_journal_file *f, struct prep_journal_record *r, struct prep_err *err)
{
	struct stream *s = &f->s;
	uint8_t head[RECORD_SIZE], sums[4 * SECTORS];
	uint32_t sectors;

	if (get(s, head, sizeof head, err) < 0)
		return -1;
	r->off = get_le64(head);
	r->len = get_le64(head + 8);
	r->kind = get_le32(head + 16);
	r->crc = get_le32(head + 20);
	r->byte = (uint8_t)r->crc;
	if (r->off > f->disk_size || r->len > f->disk_size - r->off || r->kind > PREP_JOURNAL_HELD_ZERO ||
	    (r->kind == PREP_JOURNAL_HELD && r->len > HELD_MAX) ||
	    ((r->kind == PREP_JOURNAL_DATA || r->kind == PREP_JOURNAL_FILL_EXACT) && r->len > DATA_MAX))
		return prep_fail(err, PREP_EDAMAGED, "%s: the journal is damaged", s->name);
	if (r->kind != PREP_JOURNAL_DATA && r->kind != PREP_JOURNAL_FILL_EXACT)
		return 0;
	sectors = (uint32_t)((r->len + SECTOR - 1) / SECTOR);
	if (get(s, sums, 4 * sectors, err) < 0)
		return -1;
	for (uint32_t i = 0; i < sectors; i++)
		r->was[i] = get_le32(sums + 4 * i);
	if (r->kind == PREP_JOURNAL_DATA)
		return get(s, r->data, (size_t)r->len, err);
	memset(r->data, r->byte, (size_t)r->len);
	return 0;
}

/* Whether each sector is as it was, or as it is to be: a crash may have torn the data. 1, 0, or -1. */
static int data_fits(struct prep_disk *d, const struct prep_journal_record *r, struct prep_err *err)
{
	uint8_t now[DATA_MAX];
	uint32_t sum[SECTORS];

	if (read_now(d, r, now, sum, err) < 0)
		return -1;
	for (uint32_t i = 0; i * SECTOR < r->len; i++)
		if (sum[i] != r->was[i] && memcmp(now + i * SECTOR, r->data + i * SECTOR,
						  (size_t)prep_min(SECTOR, r->len - i * SECTOR)) != 0)
			return 0;
	return 1;
}

/* Whether what moved data holds is still there: 1, 0, or -1. Holes are not read, so no more is than the image has. */
static int held_fits(struct prep_disk *d, const struct prep_journal_record *r, uint8_t *buf, struct prep_err *err)
{
	const bool zero = r->kind == PREP_JOURNAL_HELD_ZERO;
	struct prep_extent e;

	for (uint64_t off = r->off, end = r->off + r->len; off < end; off += e.len) {
		if (prep_disk_extent(d, off, end, &e, err) < 0)
			return -1;
		if (e.kind != PREP_EXTENT_DATA && zero)
			continue;
		if (e.kind != PREP_EXTENT_DATA && e.len == r->len)
			return 0;
		e.len = prep_min(e.len, HELD_MAX);
		if (!zero)
			break;
		if (prep_disk_read(d, buf, (size_t)e.len, off, err) < 0)
			return -1;
		if (!prep_is_zero(buf, (size_t)e.len))
			return 0;
	}
	if (zero)
		return 1;
	if (prep_disk_read(d, buf, (size_t)r->len, r->off, err) < 0)
		return -1;
	return crc32(0, buf, (uInt)r->len) == r->crc;
}

/* Read the journal through, and check it against itself: 1 when it is for disk d, 0 when not, or -1. */
static int read_through(struct prep_journal_file *f, struct prep_disk *d, bool fresh, struct witness *w, uint8_t *buf,
			struct prep_err *err)
{
	uint8_t head[HEADER_SIZE], digest[DIGEST_SIZE], want[DIGEST_SIZE], end[DIGEST_SIZE], at[16];
	struct stream *s = &f->s;
	struct prep_journal_record record = { .len = 0 };
	uint64_t n, bytes = 0, held = 0;
	int fits = 1;

	if (get(s, head, sizeof head, err) < 0)
		return -1;
	n = get_le64(head + 16);
	if (memcmp(head, MAGIC, 8) != 0 || n > WITNESSES_MAX)
		return prep_fail(err, PREP_EDAMAGED, "%s: not a journal of this version", s->name);
	if (get_le64(head + 8) != d->size)
		return 0;
	for (uint64_t i = 0; i < n; i++) {
		if (get(s, at, sizeof at, err) < 0)
			return -1;
		w[i] = (struct witness){ get_le64(at), get_le64(at + 8) };
		if (w[i].off > d->size || w[i].len > d->size - w[i].off)
			return prep_fail(err, PREP_EDAMAGED, "%s: the journal is damaged", s->name);
		bytes += w[i].len;
		if (bytes > witness_bytes_max(d->size))
			return prep_fail(err, PREP_EDAMAGED, "%s: the journal is damaged", s->name);
	}
	if (get(s, want, sizeof want, err) < 0)
		return -1;
	f->first = s->off;
	do {
		if (prep_journal_file_next(f, &record, err) < 0)
			return -1;
		if (fits > 0 && (record.kind == PREP_JOURNAL_DATA || record.kind == PREP_JOURNAL_FILL_EXACT))
			fits = data_fits(d, &record, err);
		if (record.kind == PREP_JOURNAL_HELD || record.kind == PREP_JOURNAL_HELD_ZERO) {
			if (record.off < held)
				return prep_fail(err, PREP_EDAMAGED, "%s: the journal is damaged", s->name);
			held = record.off + record.len;
			if (fits > 0 && !fresh)
				fits = held_fits(d, &record, buf, err);
		}
		if (fits < 0)
			return -1;
	} while (record.kind != PREP_JOURNAL_END);
	if (EVP_DigestFinal_ex(s->sha, digest, NULL) != 1)
		return prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", s->name);
	EVP_MD_CTX_free(s->sha);
	s->sha = NULL;
	if (prep_file_pread(s->fd, end, DIGEST_SIZE, s->off, s->name, err) < 0)
		return -1;
	if (memcmp(end, digest, DIGEST_SIZE) != 0)
		return prep_fail(err, PREP_EDAMAGED, "%s: the journal is damaged", s->name);
	if (digest_witnesses(d, w, n, digest, err) < 0)
		return -1;
	s->off = f->first;
	return fits && memcmp(want, digest, DIGEST_SIZE) == 0;
}

static int open_stream(struct stream *s, const char *path, struct prep_err *err)
{
	struct stat st;

	/* Not to wait for who might write to a pipe of that name. */
	*s = (struct stream){ .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), .name = path };
	if (s->fd < 0 || fstat(s->fd, &st) != 0)
		return prep_fail_errno(err, "%s: cannot read", path);
	if (!S_ISREG(st.st_mode))
		return prep_fail(err, PREP_EDAMAGED, "%s: not a journal, which is a file", path);
	s->size = (uint64_t)st.st_size;
	return sha_start(&s->sha, err);
}

int prep_journal_file_open(const char *path, struct prep_disk *d, bool fresh, struct prep_journal_file **ret,
			   struct prep_err *err)
{
	struct prep_journal_file *f = calloc(1, sizeof *f);
	struct witness *w = calloc(WITNESSES_MAX, sizeof *w);
	uint8_t *buf = malloc(HELD_MAX);
	int r = -1;

	*ret = NULL;
	if (f == NULL || w == NULL || buf == NULL) {
		prep_fail_nomem(err);
		free(f);
		free(w);
		free(buf);
		return -1;
	}
	f->disk_size = d->size;
	if (open_stream(&f->s, path, err) == 0)
		r = read_through(f, d, fresh, w, buf, err);
	free(w);
	free(buf);
	if (r == 1) {
		*ret = f;
		return 0;
	}
	prep_journal_file_close(f);
	if (r == 0)
		prep_fail(err, PREP_EREFUSED,
			  "%s: holds an unfinished change to another image than %s, or another version of it: move it away if the image was replaced on purpose",
			  path, d->name);
	return -1;
}

void prep_journal_file_close(struct prep_journal_file *f)
{
	if (f == NULL)
		return;
	if (f->s.fd >= 0)
		close(f->s.fd);
	EVP_MD_CTX_free(f->s.sha);
	free(f);
}
