/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Differencing VHDs: chains, sector bitmaps, the ways to a parent, writing, and new ones. */
#include <sys/stat.h>

#include "libprep/base/output.h"
#include "libprep/disk/overlay.h"
#include "libprep/disk/parent.h"
#include "libprep/disk/vhd.h"
#include "libprep/disk/vhd_diff.h"
#include "tests/unit/image.h"

#define BLOCK (512u * 1024)
#define SECTOR 512u

static struct prep_err err;

/* A level of a chain: the file's bytes, and what a guest sees through it and all below. */
struct level {
	struct image im;
	const char *path;
};

static void put_id(struct image *im, const char *id, const char *parent)
{
	memcpy(im->file + 68, id, 16);
	memcpy(im->file + im->len - 512 + 68, id, 16);
	memcpy(im->file + 512 + 40, parent, 16);
}

/* A name for the parent, at offset `at` of the file, which has room there. */
static void put_locator(struct image *im, unsigned i, const char *code, const void *name, size_t len, uint64_t at)
{
	unsigned char *l = im->file + 512 + 576 + i * 24;

	memcpy(l, code, 4);
	put_be32(l + 4, 512);
	put_be32(l + 8, (uint32_t)len);
	put_be32(l + 12, 0);
	put_be64(l + 16, at);
	memcpy(im->file + at, name, len);
}

static size_t utf16(const char *text, bool little, unsigned char *ret)
{
	const size_t n = strlen(text);

	for (size_t i = 0; i < n; i++) {
		ret[2 * i + !little] = (unsigned char)text[i];
		ret[2 * i + little] = 0;
	}
	return 2 * n;
}

/*
 * A child over `below` (NULL: over a parent that is not looked at): blocks of
 * order[], about half of their sectors its own, noise under all of them.
 */
static void make_child(struct image *im, const struct image *below, uint64_t size, const uint32_t *order,
		       size_t blocks)
{
	unsigned char *seen = calloc(1, (size_t)size);

	if (below != NULL)
		memcpy(seen, below->guest, (size_t)prep_min(size, below->size));
	image_dynamic(im, size, BLOCK, order, blocks, 4096);
	im->file[63] = 4;
	/* Without blocks there is no room for names: make some before the footer. */
	if (blocks == 0) {
		memset(im->file + im->len - 512, 0, 512);
		im->len += 2048;
	}
	memcpy(im->file + im->len - 512, im->file, 512);
	for (size_t i = 0; i < blocks; i++) {
		unsigned char *bits = im->file + image_data(im, order[i]) - im->bitmap_size;
		const uint64_t start = (uint64_t)order[i] * BLOCK;

		for (uint32_t b = 0; b < BLOCK / SECTOR / 8; b++)
			/* Whole bytes and mixed ones. */
			bits[b] = (unsigned char)(check_random(3) == 0 ? check_random(256) : check_random(2) * 255);
		for (uint32_t s = 0; s < BLOCK / SECTOR && start + (s + 1) * SECTOR <= size; s++)
			if (bits[s / 8] & 0x80 >> s % 8)
				memcpy(seen + start + s * SECTOR, im->file + image_data(im, order[i]) + s * SECTOR, SECTOR);
	}
	free(im->guest);
	im->guest = seen;
}

/* Save it under `name`, with `parent` as its relative locator and id as given. */
static const char *save_child(struct image *im, const char *name, const char *id, const char *parent_id,
			      const char *parent)
{
	unsigned char wide[512];
	char relative[256];
	size_t len;

	snprintf(relative, sizeof relative, ".\\%s", parent);
	len = utf16(relative, true, wide);
	put_id(im, id, parent_id);
	/* Behind the table, which ends before 2048 here. */
	put_locator(im, 0, "W2ru", wide, len, 2048);
	image_seal(im);
	return image_save(im, name, im->len);
}

static void check_guest(struct prep_disk *d, const unsigned char *guest, uint64_t size)
{
	unsigned char *buf = malloc((size_t)size);

	CHECK_EQ(d->size, size);
	CHECK_DONE(prep_disk_read(d, buf, (size_t)size, 0, &err));
	CHECK(memcmp(buf, guest, (size_t)size) == 0);
	for (unsigned i = 0; i < 200; i++) {
		const uint64_t off = check_random(size), len = 1 + check_random(prep_min(size - off, 3000));

		CHECK_DONE(prep_disk_read(d, buf, (size_t)len, off, &err));
		CHECK(memcmp(buf, guest + off, (size_t)len) == 0);
	}
	free(buf);
}

/* Extents and backing tell the truth, and go forward. */
static void check_extents(struct prep_disk *d, const unsigned char *guest)
{
	unsigned char buf[8192];
	struct prep_backing from;
	struct prep_extent e;
	uint64_t data = 0;

	for (uint64_t off = 0; off < d->size; off += e.len) {
		CHECK_DONE(d->ops->extent(d, off, &e, &err));
		CHECK(e.off == off && e.len > 0 && e.len <= d->size - off);
		if (e.kind != PREP_EXTENT_DATA) {
			CHECK(prep_is_zero(guest + off, (size_t)e.len));
			continue;
		}
		data += e.len;
		if (prep_disk_backing(d, off, &from)) {
			const size_t n = (size_t)prep_min(from.len, sizeof buf);

			CHECK_EQ(pread(from.fd, buf, n, (off_t)from.off), n);
			CHECK(memcmp(buf, guest + off, n) == 0);
		}
	}
	CHECK(data > 0);
}

static const char id_a[] = "aaaaaaaaaaaaaaa", id_b[] = "bbbbbbbbbbbbbbb", id_c[] = "ccccccccccccccc";

/* a: the base, fixed or dynamic; b over it; c over b. Sizes differ where asked. */
struct chain {
	struct image a, b, c;
	const char *path[3];
};

static void make_chain(struct chain *ch, bool fixed, uint64_t size_a, uint64_t size_b, uint64_t size_c)
{
	static const uint32_t order_a[] = { 3, 0, 2 }, order_b[] = { 1, 2, 5 }, order_c[] = { 4, 2, 0 };

	if (fixed) {
		image_fixed(&ch->a, size_a);
		memcpy(ch->a.file + size_a + 68, id_a, 16);
		image_checksum(ch->a.file + size_a, 512, 64);
	} else {
		image_dynamic(&ch->a, size_a, BLOCK, order_a, 3, 512);
		put_id(&ch->a, id_a, id_a);
		image_seal(&ch->a);
	}
	ch->path[0] = image_save(&ch->a, "a.vhd", ch->a.len);
	make_child(&ch->b, &ch->a, size_b, order_b, size_b > 5 * BLOCK ? 3 : 2);
	ch->path[1] = save_child(&ch->b, "b.vhd", id_b, id_a, "a.vhd");
	make_child(&ch->c, &ch->b, size_c, order_c, 3);
	ch->path[2] = save_child(&ch->c, "c.vhd", id_c, id_b, "B.VHD");
}

static void free_chain(struct chain *ch)
{
	image_free(&ch->a);
	image_free(&ch->b);
	image_free(&ch->c);
}

static void chains(void)
{
	static const struct {
		bool fixed;
		uint64_t a, b, c;
	} shape[] = {
		{ true, 6 * BLOCK, 6 * BLOCK, 6 * BLOCK },
		{ false, 6 * BLOCK, 6 * BLOCK, 6 * BLOCK },
		/* larger and smaller parents, ends within blocks */
		{ false, 4 * BLOCK, 6 * BLOCK, 7 * BLOCK + 3 * SECTOR },
		{ true, 9 * BLOCK, 5 * BLOCK - SECTOR, 6 * BLOCK },
		{ true, 2 * BLOCK + 5 * SECTOR, 6 * BLOCK, 5 * BLOCK - 7 * SECTOR },
	};
	struct prep_disk *d;
	struct chain ch;
	uint8_t id[16];

	for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++) {
		make_chain(&ch, shape[i].fixed, shape[i].a, shape[i].b, shape[i].c);
		CHECK_DONE(prep_disk_open(ch.path[2], 0, &d, &err));
		CHECK(d->differencing && d->parent->differencing && !d->parent->parent->differencing);
		CHECK(prep_disk_id(d->parent, id) && memcmp(id, id_b, 16) == 0);
		CHECK_STR(d->ops->kind, "differencing");
		CHECK_EQ(d->notes.n, 0);
		check_guest(d, ch.c.guest, ch.c.size);
		check_extents(d, ch.c.guest);
		check_guest(d->parent, ch.b.guest, ch.b.size);
		prep_disk_close(d);
		free_chain(&ch);
	}
}

static void alone(void)
{
	uint64_t start, len, sum = 0;
	unsigned char buf[SECTOR];
	struct prep_disk *d;
	struct chain ch;
	int r;

	make_chain(&ch, true, 6 * BLOCK, 6 * BLOCK, 6 * BLOCK);
	CHECK_DONE(prep_disk_open(ch.path[2], PREP_DISK_ALONE, &d, &err));
	CHECK(d->parent == NULL);
	for (uint64_t off = 0; (r = prep_vhd_next_own(d, off, &start, &len, &err)) > 0; off = start + len) {
		CHECK(start >= off && len > 0 && start % SECTOR == 0 && len % SECTOR == 0);
		CHECK_DONE(prep_disk_read(d, buf, sizeof buf, start + len - SECTOR, &err));
		CHECK(memcmp(buf, ch.c.guest + start + len - SECTOR, SECTOR) == 0);
		if (start > off && start / BLOCK == off / BLOCK)
			CHECK_FAILS(prep_disk_read(d, buf, sizeof buf, start - SECTOR, &err), PREP_EREFUSED, "without its parent");
		sum += len;
	}
	CHECK_EQ(r, 0);
	CHECK(sum > 0 && sum < 3 * BLOCK);
	CHECK_FAILS(prep_disk_read(d, buf, sizeof buf, BLOCK, &err), PREP_EREFUSED, "without its parent");
	prep_disk_close(d);
	free_chain(&ch);
}

static void writes(void)
{
	unsigned char *before, *after, *buf = malloc(3 * BLOCK);
	struct prep_disk *d;
	size_t len, len2;
	struct chain ch;

	make_chain(&ch, false, 6 * BLOCK, 6 * BLOCK, 6 * BLOCK + 3 * SECTOR);
	before = check_read(ch.path[1], &len);
	CHECK_DONE(prep_disk_open(ch.path[2], PREP_DISK_WRITE, &d, &err));
	for (unsigned i = 0; i < 300; i++) {
		const uint64_t off = check_random(d->size);
		const size_t n = (size_t)(1 + check_random(prep_min(d->size - off, i % 10 == 0 ? 2 * BLOCK : 5000)));
		uint64_t changed;

		if (i % 3 == 0) {
			memset(ch.c.guest + off, 0, n);
			CHECK_DONE(prep_disk_zero(d, off, n, &changed, &err));
		} else {
			check_noise(buf, n);
			if (i % 5 == 0)
				memset(buf, 0, n);
			memcpy(ch.c.guest + off, buf, n);
			CHECK_DONE(prep_disk_write(d, buf, n, off, &err));
		}
	}
	check_guest(d, ch.c.guest, ch.c.size);
	CHECK_DONE(prep_disk_flush(d, &err));
	prep_disk_close(d);
	CHECK_DONE(prep_disk_open(ch.path[2], 0, &d, &err));
	check_guest(d, ch.c.guest, ch.c.size);
	check_extents(d, ch.c.guest);
	prep_disk_close(d);
	/* The parent is as it was. */
	after = check_read(ch.path[1], &len2);
	CHECK(len == len2 && memcmp(before, after, len) == 0);
	free(before);
	free(after);
	free(buf);
	free_chain(&ch);
}

/* Zeros over nothing but zeros cost nothing; over the parent's data they are kept. */
static void zeros(void)
{
	static const uint32_t order[] = { 1 };
	struct prep_disk *d;
	struct image a, c;
	uint64_t changed;

	image_dynamic(&a, 4 * BLOCK, BLOCK, order, 1, 512);
	put_id(&a, id_a, id_a);
	image_seal(&a);
	image_save(&a, "a.vhd", a.len);
	make_child(&c, &a, 4 * BLOCK, order, 0);
	CHECK_DONE(prep_disk_open(save_child(&c, "c.vhd", id_c, id_a, "a.vhd"), PREP_DISK_WRITE, &d, &err));
	CHECK_DONE(prep_disk_zero(d, 2 * BLOCK, 2 * BLOCK, &changed, &err));
	CHECK_EQ(changed, 0);
	CHECK_EQ(prep_vhd_disk_info(d)->blocks_allocated, 0);
	CHECK_DONE(prep_disk_zero(d, BLOCK - 4096, 8192, &changed, &err));
	CHECK_EQ(changed, 4096);
	CHECK_EQ(prep_vhd_disk_info(d)->blocks_allocated, 1);
	memset(c.guest + BLOCK - 4096, 0, 8192);
	check_guest(d, c.guest, c.size);
	/* Its names stand where a new block would have gone. */
	CHECK_EQ(prep_vhd_disk_info(d)->parent.n, 1);
	CHECK_DONE(prep_disk_flush(d, &err));
	prep_disk_close(d);
	CHECK_DONE(prep_disk_open(check_path("c.vhd"), 0, &d, &err));
	check_guest(d, c.guest, c.size);
	prep_disk_close(d);
	image_free(&a);
	image_free(&c);
}

/* ---- The way to the parent ---- */

static struct image child;

/* A child without blocks whose only name for its parent is this one. */
static const char *named(const char *code, const void *name, size_t len)
{
	static const uint32_t none[1];

	image_free(&child);
	make_child(&child, NULL, BLOCK, none, 0);
	put_id(&child, id_c, id_a);
	if (code != NULL)
		put_locator(&child, 3, code, name, len, 2048);
	else
		memcpy(child.file + 512 + 64, name, len);
	image_seal(&child);
	return image_save(&child, "child.vhd", child.len);
}

static int open_named(const char *code, const char *name, bool wide, bool little, struct prep_disk **d)
{
	unsigned char text[1024];
	size_t len = strlen(name);

	if (wide)
		len = utf16(name, little, text);
	else
		memcpy(text, name, len);
	return prep_disk_open(named(code, text, len), 0, d, &err);
}

static void make_base(const char *name)
{
	struct image a;

	image_fixed(&a, BLOCK);
	memcpy(a.file + a.size + 68, id_a, 16);
	image_checksum(a.file + a.size, 512, 64);
	image_save(&a, name, a.len);
	image_free(&a);
}

static void names(void)
{
	char absolute[4400], url[4400];
	struct prep_disk *d;

	make_base("Gold base.vhd");
	CHECK(mkdir(check_path("Sub"), 0777) == 0);
	make_base("Sub/deep.vhd");
	CHECK(unlink(check_path("Sub/deep.vhd")) == 0);

	CHECK_DONE(open_named("W2ru", ".\\Gold base.vhd", true, true, &d));
	CHECK_STR(strrchr(d->parent->name, '/'), "/Gold base.vhd");
	prep_disk_close(d);
	CHECK_DONE(open_named("W2ru", ".\\gOLD BASE.VHD", true, true, &d));
	prep_disk_close(d);
	CHECK_DONE(open_named("W2ru", ".\\sub\\..\\Gold base.vhd", true, true, &d));
	prep_disk_close(d);
	/* a folder of another machine: what counts is beside the child */
	CHECK_DONE(open_named("W2ku", "D:\\Images\\Gold base.vhd", true, true, &d));
	prep_disk_close(d);
	CHECK_DONE(open_named("W2ku", "\\\\server\\share\\gold base.vhd", true, true, &d));
	prep_disk_close(d);
	CHECK_DONE(open_named("W2ru", "..\\elsewhere\\Gold base.vhd", true, true, &d));
	prep_disk_close(d);
	CHECK_DONE(open_named("MacX", "file://localhost/Users/x/Gold%20base.vhd", false, false, &d));
	prep_disk_close(d);
	CHECK_DONE(open_named("Wi2r", ".\\Gold base.vhd", false, false, &d));
	prep_disk_close(d);
	CHECK_DONE(open_named(NULL, "Gold base.vhd", true, false, &d));
	prep_disk_close(d);
	CHECK_DONE(open_named(NULL, "C:\\x\\Gold base.vhd", true, true, &d));
	prep_disk_close(d);

	/* this machine's absolute path, with and without a drive */
	CHECK(rename(check_path("Gold base.vhd"), check_path("Sub/other.vhd")) == 0);
	snprintf(absolute, sizeof absolute, "C:%s/Sub/other.vhd", check_dir());
	for (char *c = absolute; *c != '\0'; c++)
		*c = *c == '/' ? '\\' : *c;
	CHECK_DONE(open_named("W2ku", absolute, true, true, &d));
	prep_disk_close(d);
	snprintf(url, sizeof url, "file://%s/Sub/other.vhd", check_dir());
	CHECK_DONE(open_named("MacX", url, false, false, &d));
	prep_disk_close(d);
	CHECK_DONE(open_named("W2ru", ".\\SUB\\Other.VHD", true, true, &d));
	prep_disk_close(d);

	CHECK_FAILS(open_named("W2ru", ".\\Gold base.vhd", true, true, &d), PREP_EREFUSED, ".\\Gold base.vhd (id 61616161-");
	CHECK_FAILS(open_named("W2ru", ".\\Sub", true, true, &d), PREP_EREFUSED, "was not found");
	CHECK_FAILS(open_named(NULL, "", true, true, &d), PREP_EREFUSED, "without a name");
	/* without a path there is no folder to look in */
	CHECK_FAILS(prep_disk_open_fd(open(named("W2ru", "", 0), O_RDONLY), "pipe", 0, &d, &err), PREP_EREFUSED, "--parent");
}

static void bad_locators(void)
{
	struct prep_disk *d;

	make_base("base.vhd");
	named(NULL, "\0b\0a\0s\0e\0.\0v\0h\0d", 16);
	put_locator(&child, 0, "W2ku", "", 0, 1u << 30);
	put_be32(child.file + 512 + 576 + 8, 100);
	put_locator(&child, 1, "W2ru", "", 0, 2048);
	put_be32(child.file + 512 + 576 + 24 + 8, 0xFFFFFFFF);
	image_seal(&child);
	CHECK_DONE(prep_disk_open(image_save(&child, "child.vhd", child.len), 0, &d, &err));
	CHECK_EQ(d->notes.n, 2);
	CHECK(strstr(d->notes.text[0], "outside the file") != NULL);
	prep_disk_close(d);
}

static void given_parents(void)
{
	/* check_path has eight buffers, used in turn. */
	char *moved = strdup(check_path("moved.vhd")), *stranger = strdup(check_path("stranger.vhd"));
	const char *path[2] = { moved, stranger };
	struct prep_parents parents = { path, 1 };
	struct prep_disk *d;
	struct image a;

	make_base("moved.vhd");
	image_fixed(&a, BLOCK);
	image_save(&a, "stranger.vhd", a.len);
	image_free(&a);
	CHECK_DONE(prep_disk_open_chain(named("W2ru", "x\0y\0", 4), 0, &parents, &d, &err));
	CHECK_STR(d->parent->name, path[0]);
	CHECK_EQ(d->notes.n, 0);
	prep_disk_close(d);
	CHECK_DONE(prep_disk_open_fd_chain(open(check_path("child.vhd"), O_RDONLY), "pipe", false, 0, &parents, &d, &err));
	prep_disk_close(d);
	parents.n = 2;
	CHECK_DONE(prep_disk_open_chain(check_path("child.vhd"), 0, &parents, &d, &err));
	CHECK_EQ(d->notes.n, 1);
	CHECK(strstr(d->notes.text[0], "stranger.vhd: not a parent of") != NULL);
	prep_disk_close(d);
	/* not needed by a disk without parents */
	CHECK_DONE(prep_disk_open_chain(path[0], 0, &parents, &d, &err));
	CHECK_EQ(d->notes.n, 2);
	prep_disk_close(d);
	/* a wrong one alone: named, with both ids */
	parents = (struct prep_parents){ path + 1, 1 };
	CHECK_FAILS(prep_disk_open_chain(check_path("child.vhd"), 0, &parents, &d, &err), PREP_EREFUSED,
		    "stranger.vhd is not its parent: it has the id 30313233-");
	path[1] = check_path("absent.vhd");
	CHECK_FAILS(prep_disk_open_chain(check_path("child.vhd"), 0, &parents, &d, &err), PREP_EFAIL,
		    "absent.vhd: No such file");
	free(moved);
	free(stranger);
}

static void loops(void)
{
	static const uint32_t none[1];
	struct prep_disk *d;
	struct image im;

	make_child(&im, NULL, BLOCK, none, 0);
	CHECK_FAILS(prep_disk_open(save_child(&im, "self.vhd", id_a, id_a, "self.vhd"), 0, &d, &err), PREP_EREFUSED, "a loop");
	/* a child opened for writing holds its own lock: the loop is what must be told */
	CHECK_FAILS(prep_disk_open(check_path("self.vhd"), PREP_DISK_WRITE, &d, &err), PREP_EREFUSED, "a loop");
	save_child(&im, "x.vhd", id_a, id_b, "y.vhd");
	save_child(&im, "y.vhd", id_b, id_a, "x.vhd");
	CHECK_FAILS(prep_disk_open(check_path("x.vhd"), 0, &d, &err), PREP_EREFUSED, "x.vhd: a differencing disk that is");
	image_free(&im);
}

static void deep(void)
{
	char id[16] = "level          ", above[16] = "level          ", name[16], parent[16];
	static const uint32_t none[1];
	struct prep_disk *d;
	struct image im;

	make_base("0.vhd");
	make_child(&im, NULL, BLOCK, none, 0);
	for (int i = 1; i <= PREP_PARENT_DEPTH; i++) {
		snprintf(name, sizeof name, "%d.vhd", i);
		snprintf(parent, sizeof parent, "%d.vhd", i - 1);
		id[6] = (char)i;
		above[6] = (char)(i - 1);
		save_child(&im, name, id, i == 1 ? id_a : above, parent);
	}
	snprintf(name, sizeof name, "%d.vhd", PREP_PARENT_DEPTH - 1);
	CHECK_DONE(prep_disk_open(check_path(name), 0, &d, &err));
	prep_disk_close(d);
	snprintf(name, sizeof name, "%d.vhd", PREP_PARENT_DEPTH);
	CHECK_FAILS(prep_disk_open(check_path(name), 0, &d, &err), PREP_EREFUSED, "more than 64 disks");
	image_free(&im);
}

static void time_stamps(void)
{
	static const char relative[] = "b\0a\0s\0e\0.\0v\0h\0d";
	struct prep_disk *d;
	struct stat st;

	make_base("base.vhd");
	named("W2ru", relative, 16);
	CHECK(stat(check_path("base.vhd"), &st) == 0);
	/* none, the file's, the footer's, and another */
	for (unsigned i = 0; i < 4; i++) {
		put_be32(child.file + 512 + 56, i == 0 ? 0 : i == 1 ? (uint32_t)(st.st_mtime - PREP_VHD_EPOCH)
							    : i == 2 ? 0x12345678 : 77);
		image_seal(&child);
		CHECK_DONE(prep_disk_open(image_save(&child, "child.vhd", child.len), 0, &d, &err));
		CHECK_EQ(d->notes.n, i == 3);
		if (i == 3)
			CHECK(strstr(d->notes.text[0], "time stamp") != NULL);
		prep_disk_close(d);
	}
}

static void relative_paths(void)
{
	static const struct {
		const char *from, *to, *want;
	} row[] = {
		{ "/a/b/c.vhd", "/a/b/d.vhd", ".\\d.vhd" },
		{ "/a/b/c.vhd", "/a/b/b2/d.vhd", ".\\b2\\d.vhd" },
		{ "/a/b/c.vhd", "/a/x/d.vhd", ".\\..\\x\\d.vhd" },
		{ "/a/b/c.vhd", "/a/bc.vhd", ".\\..\\bc.vhd" },
		{ "/c.vhd", "/x/y/d.vhd", ".\\x\\y\\d.vhd" },
		{ "/a/b/c.vhd", "/d.vhd", ".\\..\\..\\d.vhd" },
	};

	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		char *got = prep_parent_relative(row[i].from, row[i].to);

		CHECK(got != NULL);
		CHECK_STR(got, row[i].want);
		free(got);
	}
}

/* A new one: what its fields say, byte by byte, and that it finds its parent. */
static void creation(void)
{
	char base[4400], path[4402];
	struct prep_output *out;
	struct prep_disk *d;
	unsigned char *file, wide[9000];
	uint8_t id[16], sum[1024];
	struct prep_vhd_footer footer;
	size_t len, n, bat;

	make_base("parent.vhd");
	snprintf(base, sizeof base, "%s/parent.vhd", check_dir());
	snprintf(path, sizeof path, "%s/new.vhd", check_dir());
	CHECK_DONE(prep_disk_open(base, 0, &d, &err));
	footer = prep_vhd_disk_info(d)->footer;
	prep_disk_close(d);
	CHECK_DONE(prep_output_open(path, false, &out, &err));
	CHECK_DONE(prep_vhd_diff_create(out, &footer, base, path, 1234, id, &err));
	CHECK_DONE(prep_output_commit(out, &err));
	prep_output_close(out);

	file = check_read(path, &len);
	CHECK_EQ(len % 4096, 0);
	CHECK(memcmp(file, file + len - 512, 512) == 0);
	CHECK_EQ(get_be32(file + 60), 4);
	CHECK_EQ(get_be32(file + 24), 1234);
	CHECK_EQ(get_be64(file + 48), BLOCK);
	CHECK(memcmp(file + 28, "win ", 4) == 0);
	CHECK(memcmp(file + 68, id, 16) == 0 && memcmp(id, id_a, 16) != 0);
	memcpy(sum, file, 512);
	image_checksum(sum, 512, 64);
	CHECK(memcmp(sum, file, 512) == 0);
	memcpy(sum, file + 512, 1024);
	image_checksum(sum, 1024, 36);
	CHECK(memcmp(sum, file + 512, 1024) == 0);
	CHECK(memcmp(file + 512 + 40, id_a, 16) == 0);
	CHECK_EQ(get_be32(file + 512 + 56), 0);
	bat = (size_t)get_be64(file + 512 + 16);
	CHECK_EQ(get_be32(file + bat), UNUSED_BLOCK);
	CHECK(bat >= get_be64(file + 512 + 600 + 16) + get_be32(file + 512 + 600 + 4));
	/* both locators: little-endian, without a NUL, each on a page of its own */
	CHECK(memcmp(file + 512 + 576, "W2ku", 4) == 0 && memcmp(file + 512 + 576 + 24, "W2ru", 4) == 0);
	strcpy(stpcpy(path, "C:"), base);
	for (char *c = path; *c != '\0'; c++)
		*c = *c == '/' ? '\\' : *c;
	n = utf16(path, true, wide);
	CHECK_EQ(get_be32(file + 512 + 576 + 8), n);
	CHECK(memcmp(file + get_be64(file + 512 + 576 + 16), wide, n) == 0);
	n = utf16(".\\parent.vhd", true, wide);
	CHECK_EQ(get_be32(file + 512 + 600 + 8), n);
	CHECK_EQ(get_be32(file + 512 + 600 + 4) % 4096, 0);
	CHECK(memcmp(file + get_be64(file + 512 + 600 + 16), wide, n) == 0);
	/* the header's own name: big-endian */
	CHECK(strlen(path) > 255 || (file[512 + 64] == 0 && file[512 + 65] == 'C'));
	free(file);

	CHECK_DONE(prep_disk_open(check_path("new.vhd"), PREP_DISK_WRITE, &d, &err));
	CHECK_EQ(prep_vhd_disk_info(d)->parent.n, 2);
	CHECK_DONE(prep_disk_write(d, "x", 1, 5000, &err));
	CHECK_EQ(prep_vhd_disk_info(d)->blocks_allocated, 1);
	CHECK_DONE(prep_disk_flush(d, &err));
	prep_disk_close(d);
	file = check_read(check_path("new.vhd"), &len);
	/* block data on a page, one sector its own, the rest of it copied up */
	n = (size_t)get_be32(file + bat) * 512;
	CHECK_EQ((n + 512) % 4096, 0);
	CHECK_EQ(file[n + 1], 0x40);
	CHECK(file[n] == 0 && prep_is_zero(file + n + 2, 510));
	CHECK(memcmp(file, file + len - 512, 512) == 0);
	free(file);
}

/* Changes taken from another disk, as a commit takes them. */
static void patches(void)
{
	struct prep_disk *base, *other, *overlay;
	struct prep_overlay_change c;
	unsigned char *model, buf[8192];
	struct image a, b;
	uint64_t seen = 0;
	int r;

	image_fixed(&a, BLOCK);
	image_fixed(&b, BLOCK);
	CHECK_DONE(prep_disk_open(image_save(&a, "a.vhd", a.len), 0, &base, &err));
	CHECK_DONE(prep_disk_open(image_save(&b, "b.vhd", b.len), 0, &other, &err));
	CHECK_DONE(prep_overlay_open(base, check_dir(), &overlay, &err));
	model = malloc(BLOCK);
	memcpy(model, a.guest, BLOCK);
	CHECK_DONE(prep_overlay_patch(overlay, 512, 9 * 512, other, &err));
	memcpy(model + 512, b.guest + 512, 9 * 512);
	CHECK_DONE(prep_overlay_patch(overlay, 20 * 512, 512, other, &err));
	memcpy(model + 20 * 512, b.guest + 20 * 512, 512);
	CHECK_DONE(prep_overlay_fill(overlay, 3 * 512, 512, 0, &err));
	memset(model + 3 * 512, 0, 512);
	CHECK_DONE(prep_disk_write(overlay, "hello", 5, 4 * 512, &err));
	memcpy(model + 4 * 512, "hello", 5);
	CHECK_EQ(prep_overlay_page_bytes(overlay), 9 * 512 + 4096);
	CHECK_DONE(prep_overlay_settle(overlay, NULL, &err));
	check_guest(overlay, model, BLOCK);
	check_extents(overlay, model);
	for (uint64_t off = 0; (r = prep_overlay_change(overlay, off, &c, &err)) > 0; off = c.off + c.len) {
		CHECK(!c.copy && c.off >= off && c.len <= sizeof buf);
		memset(buf, c.byte, sizeof buf);
		CHECK(memcmp(c.fill ? buf : c.page, model + c.off, (size_t)c.len) == 0);
		seen += c.len;
	}
	CHECK_EQ(r, 0);
	/* the page that was written to counts whole */
	CHECK_EQ(seen, 4096 + 2 * 512 + 512);
	prep_disk_close(overlay);
	prep_disk_close(other);
	prep_disk_close(base);
	image_free(&a);
	image_free(&b);
	free(model);
}

int main(void)
{
	RUN(chains);
	RUN(alone);
	RUN(writes);
	RUN(zeros);
	RUN(names);
	RUN(bad_locators);
	RUN(given_parents);
	RUN(loops);
	RUN(deep);
	RUN(time_stamps);
	RUN(relative_paths);
	RUN(creation);
	RUN(patches);
	image_free(&child);
	return check_result();
}
