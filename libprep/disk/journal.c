/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/base/output.h"
#include "libprep/disk/overlay.h"

/*
 * The file, all integers little-endian:
 *   header   "prepjrn1", u64 disk size, u64 records, u64 samples
 *   samples  u64 offset each
 *   digest   SHA-256 of the samples' pages: the image this is for
 *   records  u64 offset, u64 length, u32 kind, u32 fill byte; pages are followed by their bytes
 *   digest   SHA-256 of everything before
 * It never leaves the machine and is read by the version that wrote it.
 */
#define MAGIC "prepjrn1"
#define JOURNAL_SUFFIX ".prep-journal"
#define HEADER_SIZE 32
#define RECORD_SIZE 24
#define DIGEST_SIZE 32
#define SAMPLES_MAX 64
#define SAMPLE_SIZE 4096u

enum { RECORD_PAGE = 0, RECORD_FILL = 1 };

/* A digest that is fed while a file is written or read. */
struct stream {
	struct prep_output *out; /* writing */
	int fd;                  /* reading, from off on */
	uint64_t off;
	const char *name;
	EVP_MD_CTX *sha;
};

static int put(struct stream *s, const void *buf, size_t len, struct prep_err *err)
{
	if (EVP_DigestUpdate(s->sha, buf, len) != 1)
		return prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", s->name);
	return prep_output_write(s->out, buf, len, err);
}

static int get(struct stream *s, void *buf, size_t len, struct prep_err *err)
{
	if (prep_file_pread(s->fd, buf, len, s->off, s->name, err) < 0)
		return -1;
	s->off += len;
	if (EVP_DigestUpdate(s->sha, buf, len) != 1)
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

/* Digest of the pages at the given offsets of d: what an image is known by while it changes elsewhere. */
static int digest_samples(struct prep_disk *d, const uint64_t *off, uint64_t n,
			  uint8_t ret[DIGEST_SIZE], struct prep_err *err)
{
	uint8_t page[SAMPLE_SIZE];
	EVP_MD_CTX *sha;
	int r = sha_start(&sha, err);

	for (uint64_t i = 0; r == 0 && i < n; i++) {
		const size_t len = (size_t)prep_min(sizeof page, d->size - off[i]);

		r = prep_disk_read(d, page, len, off[i], err);
		if (r == 0 && EVP_DigestUpdate(sha, page, len) != 1)
			r = prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", d->name);
	}
	if (r == 0 && EVP_DigestFinal_ex(sha, ret, NULL) != 1)
		r = prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", d->name);
	EVP_MD_CTX_free(sha);
	return r;
}

/* Pages all over the disk that no change touches. Returns how many, or -1. */
static int choose_samples(struct prep_disk *overlay, uint64_t off[SAMPLES_MAX], struct prep_err *err)
{
	const uint64_t step = prep_max(prep_round_up(overlay->size / SAMPLES_MAX, SAMPLE_SIZE), SAMPLE_SIZE);
	struct prep_overlay_change c;
	int n = 0;

	for (uint64_t at = 0; at < overlay->size && n < SAMPLES_MAX; at += step) {
		const int r = prep_overlay_change(overlay, at, &c, err);

		if (r < 0)
			return -1;
		if (r == 0 || c.off >= at + SAMPLE_SIZE)
			off[n++] = at;
	}
	return n;
}

static int put_record(struct stream *s, const struct prep_overlay_change *c, struct prep_err *err)
{
	uint8_t head[RECORD_SIZE];

	put_le64(head, c->off);
	put_le64(head + 8, c->len);
	put_le32(head + 16, c->fill ? RECORD_FILL : RECORD_PAGE);
	put_le32(head + 20, c->fill ? c->byte : 0);
	if (put(s, head, sizeof head, err) < 0)
		return -1;
	return c->fill ? 0 : put(s, c->page, (size_t)c->len, err);
}

/* Write the journal of all changes of overlay, complete and synced, under its name. */
static int write_journal(struct prep_disk *overlay, const char *path, mode_t mode, struct prep_err *err)
{
	struct stream s = { .name = path };
	struct prep_overlay_change c;
	uint64_t sample[SAMPLES_MAX], records = 0, off;
	uint8_t head[HEADER_SIZE] = MAGIC, digest[DIGEST_SIZE], at[8];
	int n, r;

	for (off = 0; (r = prep_overlay_change(overlay, off, &c, err)) > 0; off = c.off + c.len)
		records++;
	if (r < 0)
		return -1;
	n = choose_samples(overlay, sample, err);
	if (n < 0 || digest_samples(prep_overlay_base(overlay), sample, (uint64_t)n, digest, err) < 0)
		return -1;
	put_le64(head + 8, overlay->size);
	put_le64(head + 16, records);
	put_le64(head + 24, (uint64_t)n);

	r = sha_start(&s.sha, err);
	if (r == 0)
		r = prep_output_open(path, false, &s.out, err);
	/* It holds parts of the image: whoever may not read that may not read this. */
	if (r == 0 && fchmod(prep_output_fd(s.out), mode) != 0)
		r = prep_fail_errno(err, "%s: cannot set its mode", path);
	/* Twice: what is journalled is written to the image as well, perhaps to new blocks. */
	if (r == 0)
		r = prep_output_check_space(s.out, 2 * prep_overlay_page_bytes(overlay) + records * RECORD_SIZE, err);
	if (r == 0)
		r = put(&s, head, sizeof head, err);
	for (int i = 0; r == 0 && i < n; i++) {
		put_le64(at, sample[i]);
		r = put(&s, at, sizeof at, err);
	}
	if (r == 0)
		r = put(&s, digest, sizeof digest, err);
	for (off = 0; r == 0; off = c.off + c.len) {
		r = prep_overlay_change(overlay, off, &c, err);
		if (r <= 0)
			break;
		r = put_record(&s, &c, err);
	}
	if (r == 0 && EVP_DigestFinal_ex(s.sha, digest, NULL) != 1)
		r = prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", path);
	if (r == 0)
		r = prep_output_write(s.out, digest, sizeof digest, err);
	if (r == 0)
		r = prep_output_commit(s.out, err);
	prep_output_close(s.out);
	EVP_MD_CTX_free(s.sha);
	return r;
}

/* The next record: its header checked against the disk, the bytes of a page read. */
static int get_record(struct stream *s, uint64_t disk_size, struct prep_overlay_change *ret,
		      struct prep_err *err)
{
	uint8_t head[RECORD_SIZE];

	if (get(s, head, sizeof head, err) < 0)
		return -1;
	ret->off = get_le64(head);
	ret->len = get_le64(head + 8);
	ret->fill = get_le32(head + 16) == RECORD_FILL;
	ret->byte = (uint8_t)get_le32(head + 20);
	if (ret->off > disk_size || ret->len > disk_size - ret->off ||
	    (!ret->fill && ret->len > sizeof ret->page))
		return prep_fail(err, PREP_EDAMAGED, "%s: the journal is damaged", s->name);
	return ret->fill ? 0 : get(s, ret->page, (size_t)ret->len, err);
}

struct journal {
	struct stream s;
	uint64_t records;
	uint64_t first; /* where the records begin */
};

/* Open a journal, check all of it, and that it is for disk d. */
static int open_journal(struct journal *j, const char *path, struct prep_disk *d, struct prep_err *err)
{
	uint8_t head[HEADER_SIZE], digest[DIGEST_SIZE], want[DIGEST_SIZE], at[8];
	uint64_t sample[SAMPLES_MAX], samples;
	struct prep_overlay_change c;

	j->s = (struct stream){ .fd = open(path, O_RDONLY | O_CLOEXEC), .name = path };
	if (j->s.fd < 0)
		return prep_fail_errno(err, "%s: cannot read", path);
	if (sha_start(&j->s.sha, err) < 0 || get(&j->s, head, sizeof head, err) < 0)
		return -1;
	samples = get_le64(head + 24);
	j->records = get_le64(head + 16);
	if (memcmp(head, MAGIC, 8) != 0 || samples > SAMPLES_MAX)
		return prep_fail(err, PREP_EDAMAGED, "%s: not a journal of this version", path);
	if (get_le64(head + 8) != d->size)
		goto other;
	for (uint64_t i = 0; i < samples; i++) {
		if (get(&j->s, at, sizeof at, err) < 0)
			return -1;
		sample[i] = get_le64(at);
		if (sample[i] >= d->size)
			goto other;
	}
	if (get(&j->s, want, sizeof want, err) < 0)
		return -1;
	j->first = j->s.off;
	for (uint64_t i = 0; i < j->records; i++)
		if (get_record(&j->s, d->size, &c, err) < 0)
			return -1;
	if (EVP_DigestFinal_ex(j->s.sha, digest, NULL) != 1)
		return prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", path);
	if (prep_file_pread(j->s.fd, head, DIGEST_SIZE, j->s.off, path, err) < 0)
		return -1;
	if (memcmp(head, digest, DIGEST_SIZE) != 0)
		return prep_fail(err, PREP_EDAMAGED, "%s: the journal is damaged", path);
	if (digest_samples(d, sample, samples, digest, err) < 0)
		return -1;
	if (memcmp(want, digest, DIGEST_SIZE) == 0)
		return 0;
other:
	return prep_fail(err, PREP_EREFUSED,
			 "%s: holds an unfinished change to another image than %s: move it away if the image was replaced on purpose",
			 path, d->name);
}

static void close_journal(struct journal *j)
{
	if (j->s.fd >= 0)
		close(j->s.fd);
	EVP_MD_CTX_free(j->s.sha);
}

static int apply_fill(struct prep_disk *d, const struct prep_overlay_change *c, uint64_t *zeroed,
		      struct prep_err *err)
{
	unsigned char same[64 * 1024], now[64 * 1024];
	uint64_t changed, at = 0;

	if (c->byte == 0) {
		if (prep_disk_zero(d, c->off, c->len, &changed, err) < 0)
			return -1;
		*zeroed += changed;
		return 0;
	}
	memset(same, c->byte, sizeof same);
	while (at < c->len) {
		const size_t n = (size_t)prep_min(c->len - at, sizeof same);

		if (prep_disk_read(d, now, n, c->off + at, err) < 0 ||
		    (memcmp(now, same, n) != 0 && prep_disk_write(d, same, n, c->off + at, err) < 0))
			return -1;
		at += n;
	}
	return 0;
}

/* Carry out the journal's records on d and sync it, then remove the journal. */
static int apply_journal(struct journal *j, struct prep_disk *d, uint64_t *zeroed,
			 const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_overlay_change c;

	j->s.off = j->first;
	*zeroed = 0;
	for (uint64_t i = 0; i < j->records; i++) {
		if (get_record(&j->s, d->size, &c, err) < 0)
			return -1;
		if (c.fill ? apply_fill(d, &c, zeroed, err) < 0
			   : prep_disk_write(d, c.page, (size_t)c.len, c.off, err) < 0)
			return -1;
		if (prep_progress(progress, "writing", c.off + c.len, d->size, err) < 0)
			return -1;
	}
	if (prep_disk_flush(d, err) < 0)
		return -1;
	if (unlink(j->s.name) != 0)
		return prep_fail_errno(err, "%s: cannot remove the finished journal", j->s.name);
	return prep_file_sync_dir(j->s.name, err);
}

int prep_journal_commit(struct prep_disk *overlay, const char *path, uint64_t *zeroed,
			const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_disk *d = prep_overlay_base(overlay);
	char *name = prep_file_beside(path, JOURNAL_SUFFIX);
	struct prep_err first = PREP_ERR_INIT;
	struct journal j = { .s.fd = -1 };
	struct stat st;
	int r;

	if (name == NULL || stat(path, &st) != 0) {
		r = prep_fail_errno(err, "%s", path);
		goto out;
	}
	/* Moved data first: it lies in free clusters until the journal's records name it. */
	r = prep_overlay_settle(overlay, progress, err);
	if (r == 0)
		r = write_journal(overlay, name, st.st_mode & 0777, err);
	if (r < 0)
		goto out;
	r = open_journal(&j, name, d, &first);
	if (r == 0)
		r = apply_journal(&j, d, zeroed, progress, &first);
	if (r < 0)
		prep_fail(err, first.code,
			  "%s (the change is kept in %s, and finished by the next command on the image)", first.msg,
			  name);
	close_journal(&j);
out:
	free(name);
	return r;
}

/* What cannot be resolved has no journal; opening it will tell why. */
static bool waits(const char *name)
{
	return name != NULL && access(name, F_OK) == 0;
}

bool prep_journal_waits(const char *path)
{
	char *name = prep_file_beside(path, JOURNAL_SUFFIX);
	const bool r = waits(name);

	free(name);
	return r;
}

int prep_journal_recover(const char *path, const struct prep_parents *parents, struct prep_err *err)
{
	char *name = prep_file_beside(path, JOURNAL_SUFFIX);
	struct journal j = { .s.fd = -1 };
	struct prep_disk *d;
	uint64_t zeroed;
	int fd, r;

	if (!waits(name)) {
		free(name);
		return 0;
	}
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		r = prep_fail(err, PREP_EREFUSED,
			      "%s: a change that was cut off waits in %s, and the image cannot be written to finish it: %s",
			      path, name, strerror(errno));
		goto out;
	}
	r = prep_disk_open_fd_chain(fd, path, true, PREP_DISK_WRITE, parents, &d, err);
	if (r < 0)
		goto out;
	/* Now that the image is locked: who had it before may have finished on its own. */
	if (waits(name)) {
		r = open_journal(&j, name, d, err);
		if (r == 0)
			r = apply_journal(&j, d, &zeroed, NULL, err);
		close_journal(&j);
	}
	prep_disk_close(d);
out:
	free(name);
	return r;
}
