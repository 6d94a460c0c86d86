/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The layout by which packing and seeds read a disk: it must hold whatever the
 * file systems say, for it does without the audit.
 */
#include "tests/fuzz/image.h"

#include "libprep/ckm/layout.h"

static struct prep_pool *pool;

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libntfs-3g\n";
}

static void check_layout(const struct prep_layout *l, const struct prep_disk *d)
{
	uint64_t sum = 0, at;

	for (size_t i = 0; i < l->streams; i++) {
		const struct prep_layout_stream *s = &l->stream[i];

		at = 0;
		for (size_t k = 0; k < s->pieces; k++) {
			const struct prep_layout_piece *p = &l->piece[s->first + k];

			if (p->at != at || p->len > s->size - at)
				abort();
			at += p->len;
			if (p->off == PREP_LAYOUT_HOLE)
				continue;
			if (p->off > d->size || p->len > d->size - p->off)
				abort();
			sum += p->len;
		}
		if (at != s->size)
			abort();
	}
	/* No byte of the disk in two streams. */
	if (sum > d->size)
		abort();
}

static void read_streams(const struct prep_layout *l)
{
	struct prep_err err = PREP_ERR_INIT;
	uint8_t buf[4096];
	uint64_t zeros;

	for (size_t i = 0; i < l->streams && i < 256; i++) {
		const struct prep_layout_stream *s = &l->stream[i];
		const uint64_t tail = s->size - prep_min(s->size, sizeof buf);

		if (prep_layout_read(l, s, buf, (size_t)prep_min(s->size, sizeof buf), 0, &err) < 0 ||
		    prep_layout_read(l, s, buf, (size_t)(s->size - tail), tail, &err) < 0 ||
		    (s->size > 0 && prep_layout_zeros(l, s, 0, s->size, &zeros, &err) < 0))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct prep_err err = PREP_ERR_INIT;
	struct image_disk disk;
	struct prep_layout l;
	struct prep_disk *d;
	struct image im;

	if (pool == NULL) {
		image_load("ntfs");
		image_load("fat");
		image_load("exfat");
		image_load("table");
		if (prep_pool_open(1, &pool, &err) < 0)
			abort();
	}
	if (!image_make(data, size, &im))
		return 0;
	d = image_disk(&im, &disk);
	if (prep_layout_make(d, pool, &l, NULL, &err) == 0) {
		check_layout(&l, d);
		read_streams(&l);
		prep_layout_clear(&l);
	}
	return 0;
}
