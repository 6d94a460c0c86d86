/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The journal beside an image: the input is all of it but the magic number, the
 * disk's size and the digests, which are made right. The image is raw, so that
 * what is done to it can be told: it is whole pages of its own bytes or of the
 * journal's.
 *
 *   byte 0   records, byte 1 witnesses; then these as the journal has them
 */
#include "tests/fuzz/replay.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/hash.h"
#include "libprep/disk/journal.h"

#define DISK_SIZE (64u << 10)
#define HEADER 24
#define WITNESS 16
#define RECORD 24

static uint8_t disk[DISK_SIZE];
static char folder[32];

static void remove_folder(void)
{
	rmdir(folder);
}

/* Digest of the witnesses' bytes, as far as they are on the disk. */
static void fix_witnesses(uint8_t *p, unsigned n)
{
	struct prep_err err = PREP_ERR_INIT;
	uint8_t *all = malloc((size_t)n * DISK_SIZE + 1);
	size_t len = 0;

	if (all == NULL)
		abort();
	for (unsigned i = 0; i < n; i++) {
		const uint64_t off = get_le64(p + i * WITNESS), l = get_le64(p + i * WITNESS + 8);

		if (off > DISK_SIZE || l > DISK_SIZE - off)
			break;
		memcpy(all + len, disk + off, (size_t)l);
		len += (size_t)l;
	}
	prep_hash_once(all, len, p + (size_t)n * WITNESS, &err);
	free(all);
}

/* What the sectors were, and the record that ends them; p has room for it. Returns where that ends. */
static size_t fix_records(uint8_t *p, size_t len, size_t at, unsigned n)
{
	for (unsigned i = 0; i < n && at + RECORD <= len; i++) {
		const uint64_t off = get_le64(p + at), l = get_le64(p + at + 8);
		const size_t sums = 4 * (size_t)((prep_min(l, DISK_SIZE) + 511) / 512);
		const bool data = get_le32(p + at + 16) == 0;

		at += RECORD;
		if (!data)
			continue;
		if (off > DISK_SIZE || l > DISK_SIZE - off || sums > len - at || l > len - at - sums)
			break;
		for (uint64_t s = 0; s * 512 < l; s++)
			put_le32(p + at + 4 * s, (uint32_t)crc32(0, disk + off + s * 512, (unsigned)prep_min(512, l - s * 512)));
		at += sums + (size_t)l;
	}
	memset(p + at, 0, RECORD);
	put_le32(p + at + 16, 2);
	return at + RECORD;
}

static void save(const char *path, const uint8_t *p, size_t len)
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, p, len) != (ssize_t)len)
		abort();
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char image[64], journal[80];
	struct prep_err err = PREP_ERR_INIT;
	struct stat st;
	uint8_t *p;
	size_t len, end;

	if (image[0] == '\0') {
		/* In memory, where there is such a place that everyone may write to. */
		snprintf(folder, sizeof folder, "%s/journal-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
		if (mkdtemp(folder) == NULL)
			abort();
		atexit(remove_folder);
		snprintf(image, sizeof image, "%s/image", folder);
		snprintf(journal, sizeof journal, "%s.prep-journal", image);
		for (size_t i = 0; i < sizeof disk; i++)
			disk[i] = (uint8_t)(i * 7 + i / 4096);
	}
	if (size < 2 || size - 2 < (size_t)data[1] * WITNESS + 32)
		return 0;
	len = HEADER + size - 2;
	p = malloc(len + RECORD + 32);
	if (p == NULL)
		abort();
	memcpy(p, "prepjrn4", 8);
	put_le64(p + 8, DISK_SIZE);
	put_le64(p + 16, data[1]);
	memcpy(p + HEADER, data + 2, size - 2);
	fix_witnesses(p + HEADER, data[1]);
	end = fix_records(p, len, HEADER + (size_t)data[1] * WITNESS + 32, data[0]);
	if (prep_hash_once(p, end, p + end, &err) < 0)
		abort();
	save(image, disk, sizeof disk);
	save(journal, p, prep_max(end + 32, len));
	if (prep_journal_recover(image, NULL, &err) == 0 && access(journal, F_OK) == 0)
		abort();
	if (stat(image, &st) != 0 || st.st_size != DISK_SIZE)
		abort();
	unlink(image);
	unlink(journal);
	free(p);
	return 0;
}
