/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The overlay against a plain buffer: any sequence of writes, fills and zeros
 * reads the same, its extents tell the truth, and its changes, applied to the
 * base, make the base what the overlay showed.
 */
#include "libprep/disk/overlay.h"

#include "libprep/base/bytes.h"
#include "libprep/disk/raw.h"
#include "tests/unit/check.h"

static struct prep_err err;
static struct prep_disk *base, *overlay;
static unsigned char *model, *before;

/* A raw disk, noise with holes, and an overlay over it. */
static void begin(uint64_t size, uint64_t seed)
{
	const int fd = check_create("base");

	check_seed = seed;
	free(model);
	free(before);
	model = calloc(1, (size_t)size);
	before = calloc(1, (size_t)size);
	for (uint64_t at = 0; at < size; at += 65536)
		if (check_random(3) != 0)
			check_noise(model + at, (size_t)prep_min(65536, size - at));
	memcpy(before, model, (size_t)size);
	/* holes where it is zero */
	for (uint64_t at = 0; at < size; at += 4096) {
		const size_t n = (size_t)prep_min(4096, size - at);

		if (!prep_is_zero(model + at, n))
			check_write(fd, model + at, n, at);
	}
	if (ftruncate(fd, (off_t)size) != 0)
		perror("ftruncate");
	if (prep_raw_open(fd, "base", size, &base, &err) < 0 ||
	    prep_overlay_open(base, check_dir(), &overlay, &err) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		exit(1);
	}
}

static void end(void)
{
	prep_disk_close(overlay);
	prep_disk_close(base);
}

static void change(unsigned char *buf)
{
	const uint64_t size = overlay->size, off = check_random(size);
	const uint64_t len = 1 + check_random(prep_min(size - off, check_random(4) == 0 ? 300000 : 9000));
	uint64_t changed;

	switch (check_random(5)) {
	case 0:
		CHECK_DONE(prep_overlay_fill(overlay, off, len, 0, &err));
		memset(model + off, 0, (size_t)len);
		break;
	case 1:
		CHECK_DONE(prep_overlay_fill(overlay, off, len, 0xFF, &err));
		memset(model + off, 0xFF, (size_t)len);
		break;
	case 2:
		CHECK_DONE(prep_disk_zero(overlay, off, len, &changed, &err));
		CHECK(changed <= len);
		memset(model + off, 0, (size_t)len);
		break;
	case 3: {
		/* of the base, whatever is staged there */
		const uint64_t from = check_random(size - len + 1);

		CHECK_DONE(prep_overlay_copy(overlay, off, from, len, &err));
		memcpy(model + off, before + from, (size_t)len);
		break;
	}
	default:
		check_noise(buf, (size_t)len);
		CHECK_DONE(prep_disk_write(overlay, buf, (size_t)len, off, &err));
		memcpy(model + off, buf, (size_t)len);
	}
}

static void compare(unsigned char *buf)
{
	const uint64_t size = overlay->size;
	struct prep_backing b;
	struct prep_extent e;

	CHECK_DONE(prep_disk_read(overlay, buf, (size_t)size, 0, &err));
	CHECK(memcmp(buf, model, (size_t)size) == 0);
	for (unsigned i = 0; i < 50; i++) {
		const uint64_t off = check_random(size), len = 1 + check_random(prep_min(size - off, 20000));

		CHECK_DONE(prep_disk_read(overlay, buf, (size_t)len, off, &err));
		CHECK(memcmp(buf, model + off, (size_t)len) == 0);
	}
	for (uint64_t at = 0; at < size; at += e.len) {
		CHECK_DONE(prep_disk_extent(overlay, at, size, &e, &err));
		CHECK(e.off == at && e.len > 0 && e.len <= size - at);
		if (e.kind != PREP_EXTENT_DATA)
			CHECK(prep_is_zero(model + at, (size_t)e.len));
		/* where it says that bytes stand in a file, they do */
		if (prep_disk_backing(overlay, at, &b)) {
			const size_t n = (size_t)prep_min(prep_min(b.len, size - at), 100000);

			CHECK(pread(b.fd, buf, n, (off_t)b.off) == (ssize_t)n);
			CHECK(memcmp(buf, model + at, n) == 0);
		}
	}
}

/* The changes ascend, do not overlap, and make the base what the overlay is. */
static void apply(unsigned char *buf)
{
	struct prep_overlay_change c;
	uint64_t off = 0, last = 0;
	int r;

	memcpy(buf, before, (size_t)overlay->size);
	while ((r = prep_overlay_change(overlay, off, &c, &err)) > 0) {
		CHECK(c.off >= last && c.len > 0 && c.len <= overlay->size - c.off);
		CHECK(!(c.fill && c.copy) && (c.fill || c.copy || c.len <= PREP_OVERLAY_PAGE));
		if (c.copy)
			CHECK(c.from <= overlay->size && c.len <= overlay->size - c.from);
		if (c.fill)
			memset(buf + c.off, c.byte, (size_t)c.len);
		else
			memcpy(buf + c.off, c.copy ? before + c.from : c.page, (size_t)c.len);
		off = last = c.off + c.len;
	}
	CHECK_EQ(r, 0);
	CHECK(memcmp(buf, model, (size_t)overlay->size) == 0);
}

static void like_a_plain_buffer(void)
{
	static const uint64_t sizes[] = { 4 << 20, (1 << 20) + 512, 4096, 512, (2 << 20) - 1024, 3 * 4096 + 1536 };

	for (unsigned round = 0; round < 24; round++) {
		const uint64_t size = sizes[round % 6];
		unsigned char *buf = malloc((size_t)prep_max(size, 400000));

		begin(size, 50 + round);
		for (unsigned i = 0; i < 60 && !check_ended; i++) {
			change(buf);
			if (i % 20 == 19)
				compare(buf);
		}
		if (!check_ended)
			apply(buf);
		/* the base itself is untouched */
		if (!check_ended && (prep_disk_read(base, buf, (size_t)size, 0, &err) < 0 ||
				     memcmp(buf, before, (size_t)size) != 0))
			check_fail(__FILE__, __LINE__, "the base has changed");
		end();
		free(buf);
		if (check_ended)
			return;
	}
}

static void nothing_staged_is_no_change(void)
{
	struct prep_overlay_change c;

	begin(1 << 20, 1);
	CHECK_EQ(prep_overlay_change(overlay, 0, &c, &err), 0);
	CHECK_EQ(prep_overlay_page_bytes(overlay), 0);
	CHECK(prep_overlay_base(overlay) == base);
	CHECK_DONE(prep_overlay_fill(overlay, 100, 0, 0, &err));
	CHECK_EQ(prep_overlay_change(overlay, 0, &c, &err), 0);
	end();
}

static void outside_is_refused(void)
{
	unsigned char p[8] = { 0 };

	begin(1 << 20, 2);
	CHECK_FAILS(prep_overlay_fill(overlay, (1 << 20) - 1, 2, 0, &err), PREP_EDAMAGED, "outside");
	CHECK_FAILS(prep_overlay_fill(overlay, UINT64_MAX - 1, 1, 0, &err), PREP_EDAMAGED, "outside");
	CHECK_FAILS(prep_overlay_fill(overlay, 1, UINT64_MAX, 0, &err), PREP_EDAMAGED, "outside");
	CHECK_FAILS(prep_overlay_copy(overlay, 0, (1 << 20) - 1, 2, &err), PREP_EDAMAGED, "outside");
	CHECK_FAILS(prep_overlay_copy(overlay, (1 << 20) - 1, 0, 2, &err), PREP_EDAMAGED, "outside");
	CHECK_FAILS(prep_disk_write(overlay, p, 8, (1 << 20) - 7, &err), PREP_EDAMAGED, "outside");
	CHECK_FAILS(prep_disk_read(overlay, p, 8, (1 << 20) - 7, &err), PREP_EDAMAGED, "outside");
	end();
}

/* Fills, as zeroing sets them: joined where they touch, so that a fragmented disk does not cost memory. */
static void fills_join(void)
{
	struct prep_overlay_change c;
	unsigned n = 0;

	begin(4 << 20, 3);
	for (uint64_t off = 0; off < 2 << 20; off += 4096)
		CHECK_DONE(prep_overlay_fill(overlay, off, 4096, 0, &err));
	for (uint64_t off = 0; prep_overlay_change(overlay, off, &c, &err) > 0; off = c.off + c.len)
		n++;
	CHECK_EQ(n, 1);
	end();
}

/* Copies carried out on the base: it then holds them, the overlay shows what it did, and the rest is staged still. */
static void settles(void)
{
	unsigned char *buf = malloc(4 << 20);
	struct prep_overlay_change c;

	begin(4 << 20, 4);
	CHECK_DONE(prep_overlay_copy(overlay, 3 << 20, 1000, 300000, &err));
	memcpy(model + (3 << 20), before + 1000, 300000);
	CHECK_DONE(prep_overlay_fill(overlay, 0, 5000, 0, &err));
	memset(model, 0, 5000);
	memset(buf, 7, 10000);
	CHECK_DONE(prep_disk_write(overlay, buf, 10000, 2 << 20, &err));
	memset(model + (2 << 20), 7, 10000);
	CHECK_DONE(prep_overlay_settle(overlay, NULL, &err));
	CHECK_DONE(prep_disk_read(base, buf, 300000, 3 << 20, &err));
	CHECK(memcmp(buf, before + 1000, 300000) == 0);
	CHECK_DONE(prep_disk_read(base, buf, 3 << 20, 0, &err));
	CHECK(memcmp(buf, before, 3 << 20) == 0);
	for (uint64_t off = 0; prep_overlay_change(overlay, off, &c, &err) > 0; off = c.off + c.len)
		CHECK(!c.copy);
	CHECK_DONE(prep_disk_read(overlay, buf, 4 << 20, 0, &err));
	CHECK(memcmp(buf, model, 4 << 20) == 0);
	end();
	free(buf);
}

/* More pages than are kept in memory: the rest is in an unnamed file. */
static void spills(void)
{
	const uint64_t size = 48 << 20;
	unsigned char *p = malloc(65536), *q = malloc(65536);

	free(model);
	free(before);
	model = before = NULL;
	CHECK_DONE(prep_raw_open(check_create("base"), "base", size, &base, &err));
	CHECK_DONE(prep_overlay_open(base, check_dir(), &overlay, &err));
	for (int pass = 0; pass < 2; pass++) {
		check_seed = 7;
		for (uint64_t off = 0; off < 40 << 20; off += 65536) {
			check_noise(p, 65536);
			if (pass == 0) {
				CHECK_DONE(prep_disk_write(overlay, p, 65536, off, &err));
			} else {
				CHECK_DONE(prep_disk_read(overlay, q, 65536, off, &err));
				CHECK(memcmp(p, q, 65536) == 0);
			}
		}
	}
	CHECK_EQ(prep_overlay_page_bytes(overlay), 40 << 20);
	CHECK(access(check_path("base"), F_OK) == 0);
	end();
	free(p);
	free(q);
	/* and where there is no room for it, that is told */
	CHECK_DONE(prep_raw_open(check_create("base"), "base", size, &base, &err));
	CHECK_DONE(prep_overlay_open(base, check_path("no such folder"), &overlay, &err));
	p = malloc(33 << 20);
	memset(p, 1, 33 << 20);
	CHECK_FAILS(prep_disk_write(overlay, p, 33 << 20, 0, &err), PREP_EFAIL, "temporary file");
	free(p);
	end();
}

int main(void)
{
	RUN(like_a_plain_buffer);
	RUN(nothing_staged_is_no_change);
	RUN(outside_is_refused);
	RUN(fills_join);
	RUN(settles);
	RUN(spills);
	free(model);
	free(before);
	return check_result();
}
