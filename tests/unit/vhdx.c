/* SPDX-License-Identifier: GPL-3.0-or-later */
/* VHDX: made here byte by byte, by [MS-VHDX] and not by the library, and read by libvhdi as well. */
#include <libvhdi.h>
#include <sys/stat.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/disk.h"
#include "libprep/disk/export.h"
#include "libprep/disk/vhdx.h"
#include "tests/unit/check.h"

#define MIB (1024u * 1024)
#define LOG_AT ((uint64_t)1 * MIB)
#define METADATA_AT ((uint64_t)2 * MIB)
#define BAT_AT ((uint64_t)3 * MIB)
#define DATA_AT ((uint64_t)4 * MIB)
#define BLOCKS_MAX 16u

static struct prep_err err;

static uint32_t crc32c(const unsigned char *p, size_t len)
{
	uint32_t crc = ~0u;

	while (len-- > 0) {
		crc ^= *p++;
		for (int k = 0; k < 8; k++)
			crc = crc & 1 ? crc >> 1 ^ 0x82F63B78 : crc >> 1;
	}
	return ~crc;
}

/* A GUID from its text into the order of the file. */
static void guid(const char *text, unsigned char *p)
{
	unsigned v[11];

	sscanf(text, "%8x-%4x-%4x-%2x%2x-%2x%2x%2x%2x%2x%2x", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7, v + 8,
	       v + 9, v + 10);
	put_le32(p, v[0]);
	put_le16(p + 4, (uint16_t)v[1]);
	put_le16(p + 6, (uint16_t)v[2]);
	for (int i = 0; i < 8; i++)
		p[8 + i] = (unsigned char)v[3 + i];
}

struct spec {
	uint64_t size;
	uint32_t block_size, sector_size;
	unsigned state[BLOCKS_MAX]; /* of each block; those of 6 and 7 get noise */
	bool fixed;
	const char *id;             /* data write GUID */
	const char *parent;         /* NULL: not differencing; else the parent's GUID */
	const char *parent_path;    /* relative */
	const unsigned char *below; /* what the parent shows, or NULL */
};

/* The file, and what a guest is to see. */
struct made {
	unsigned char *front; /* everything before the blocks */
	unsigned char *guest;
	char *path;
	uint64_t len;
};

static const char id_a[] = "11111111-2222-3333-4455-66778899aabb", id_b[] = "b1111111-2222-3333-4455-66778899aabb";

static void seal_header(unsigned char *h)
{
	put_le32(h + 4, 0);
	put_le32(h + 4, crc32c(h, 4096));
}

static void seal_regions(unsigned char *t)
{
	put_le32(t + 4, 0);
	put_le32(t + 4, crc32c(t, 65536));
}

static void put_item(unsigned char *metadata, const char *id, uint32_t off, const void *value, uint32_t len,
		     uint32_t flags)
{
	const unsigned n = get_le16(metadata + 10);
	unsigned char *e = metadata + 32 + n * 32;

	guid(id, e);
	put_le32(e + 16, off);
	put_le32(e + 20, len);
	put_le32(e + 24, flags);
	memcpy(metadata + off, value, len);
	put_le16(metadata + 10, (uint16_t)(n + 1));
}

static size_t wide(const char *text, unsigned char *p)
{
	size_t n = strlen(text);

	for (size_t i = 0; i < n; i++)
		put_le16(p + 2 * i, (unsigned char)text[i]);
	return 2 * n;
}

static uint32_t make_locator(const struct spec *s, unsigned char *p)
{
	char linkage[64];
	const char *row[][2] = {
		{ "parent_linkage", linkage }, { "volume_path", "\\\\?\\Volume{0}\\nowhere.vhdx" },
		{ "relative_path", s->parent_path }, { "absolute_win32_path", "D:\\vm\\elsewhere.vhdx" },
	};
	size_t at = 20 + 4 * 12;

	snprintf(linkage, sizeof linkage, "{%s}", s->parent);
	guid("b04aefb7-d19e-4a81-b789-25b8e9445913", p);
	put_le16(p + 18, 4);
	for (int i = 0; i < 4; i++) {
		unsigned char *e = p + 20 + i * 12;

		put_le32(e, (uint32_t)at);
		put_le16(e + 8, (uint16_t)wide(row[i][0], p + at));
		at += get_le16(e + 8);
		put_le32(e + 4, (uint32_t)at);
		put_le16(e + 10, (uint16_t)wide(row[i][1], p + at));
		at += get_le16(e + 10);
	}
	return (uint32_t)at;
}

static unsigned char *entry(const struct made *m, const struct spec *s, unsigned block)
{
	const uint64_t ratio = ((uint64_t)1 << 23) * s->sector_size / s->block_size;

	return m->front + BAT_AT + (block + block / ratio) * 8;
}

static unsigned char *bitmap_entry(const struct made *m, const struct spec *s)
{
	const uint64_t ratio = ((uint64_t)1 << 23) * s->sector_size / s->block_size;

	return m->front + BAT_AT + ratio * 8;
}

static void make_front(struct made *m, const struct spec *s)
{
	unsigned char *f = m->front = calloc(1, DATA_AT), value[4096] = { 0 };

	memcpy(f, "vhdxfile", 8);
	wide("test 1.0", f + 8);
	for (unsigned i = 0; i < 2; i++) {
		unsigned char *h = f + 65536 * (i + 1), *r = f + 65536 * (i + 3);

		memcpy(h, "head", 4);
		put_le64(h + 8, 7 + i);
		guid("77777777-2222-3333-4455-66778899aabb", h + 16);
		guid(s->id, h + 32);
		put_le16(h + 66, 1);
		put_le32(h + 68, MIB);
		put_le64(h + 72, LOG_AT);
		seal_header(h);
		memcpy(r, "regi", 4);
		put_le32(r + 8, 2);
		guid("2dc27766-f623-4200-9d64-115e9bfd4a08", r + 16);
		put_le64(r + 32, BAT_AT);
		put_le32(r + 40, MIB);
		put_le32(r + 44, 1);
		guid("8b7ca206-4790-4b9a-b8fe-575f050f886e", r + 48);
		put_le64(r + 64, METADATA_AT);
		put_le32(r + 72, MIB);
		put_le32(r + 76, 1);
		seal_regions(r);
	}
	memcpy(f + METADATA_AT, "metadata", 8);
	put_le32(value, s->block_size);
	put_le32(value + 4, (s->fixed ? 1 : 0) | (s->parent != NULL ? 2 : 0));
	put_item(f + METADATA_AT, "caa16737-fa36-4d43-b3b6-33f0aa44e76b", 65536, value, 8, 4);
	put_le64(value, s->size);
	put_item(f + METADATA_AT, "2fa54224-cd1b-4876-b211-5dbed83bf4b8", 65544, value, 8, 6);
	put_le32(value, s->sector_size);
	put_item(f + METADATA_AT, "8141bf1d-a96f-4709-ba47-f233a8faab5f", 65552, value, 4, 6);
	put_le32(value, 4096);
	put_item(f + METADATA_AT, "cda348c7-445d-4471-9cc9-e9885251c556", 65556, value, 4, 6);
	guid("beca12ab-b2e6-4523-93ef-c309e000c746", value);
	put_item(f + METADATA_AT, "beca12ab-b2e6-4523-93ef-c309e000c746", 65560, value, 16, 6);
	/* an item of the user's, which nobody needs to know */
	put_item(f + METADATA_AT, "12345678-b2e6-4523-93ef-c309e000c746", 65576, value, 16, 1);
	if (s->parent != NULL) {
		memset(value, 0, sizeof value);
		put_item(f + METADATA_AT, "a8d35f2d-b30b-454d-abf7-d3d84834ab0c", 65600, value, make_locator(s, value), 4);
	}
}

static void save(const struct made *m)
{
	const int fd = open(m->path, O_RDWR | O_CREAT, 0666);

	check_write(fd, m->front, DATA_AT, 0);
	if (ftruncate(fd, (off_t)m->len) != 0)
		perror(m->path);
	close(fd);
}

/* Whether sector i of a partly present block is the disk's own. */
static bool own(const unsigned char *bits, uint64_t sector)
{
	return bits[sector / 8] >> sector % 8 & 1;
}

static void make(struct made *m, const struct spec *s, const char *name)
{
	const unsigned blocks = (unsigned)((s->size + s->block_size - 1) / s->block_size);
	const uint64_t per_block = s->block_size / s->sector_size;
	unsigned char *bits = malloc(MIB), *noise;
	bool partial = false;
	int fd;

	*m = (struct made){ .path = strdup(check_path(name)), .len = DATA_AT };
	m->guest = calloc(1, (size_t)s->size);
	if (s->below != NULL)
		memcpy(m->guest, s->below, (size_t)s->size);
	make_front(m, s);
	fd = open(m->path, O_RDWR | O_CREAT | O_TRUNC, 0666);
	for (unsigned b = 0; b < MIB; b++)
		bits[b] = (unsigned char)(check_random(3) == 0 ? check_random(256) : check_random(2) * 255);
	for (unsigned b = blocks; b-- > 0;) {
		const uint64_t start = (uint64_t)b * s->block_size, n = prep_min(s->block_size, s->size - start);

		put_le64(entry(m, s, b), s->state[b]);
		if (s->state[b] == 1 || s->state[b] == 2 || s->state[b] == 3)
			memset(m->guest + start, 0, (size_t)n);
		if (s->state[b] < 6)
			continue;
		put_le64(entry(m, s, b), m->len | s->state[b]);
		noise = malloc(s->block_size);
		check_noise(noise, s->block_size);
		check_write(fd, noise, s->block_size, m->len);
		for (uint64_t i = 0; i * s->sector_size < n; i++)
			if (s->state[b] == 6 || own(bits, b * per_block + i))
				memcpy(m->guest + start + i * s->sector_size, noise + i * s->sector_size, s->sector_size);
		free(noise);
		partial |= s->state[b] == 7;
		m->len += s->block_size;
	}
	if (partial) {
		check_write(fd, bits, MIB, m->len);
		put_le64(bitmap_entry(m, s), m->len | 6);
		m->len += MIB;
	}
	close(fd);
	free(bits);
	save(m);
}

static void release(struct made *m)
{
	free(m->front);
	free(m->guest);
	free(m->path);
}

static void check_guest(struct prep_disk *d, const unsigned char *guest, uint64_t size)
{
	unsigned char *buf = malloc((size_t)size);
	struct prep_backing from;
	struct prep_extent e;

	CHECK_EQ(d->size, size);
	CHECK_DONE(prep_disk_read(d, buf, (size_t)size, 0, &err));
	CHECK(memcmp(buf, guest, (size_t)size) == 0);
	for (unsigned i = 0; i < 200; i++) {
		const uint64_t off = check_random(size), len = 1 + check_random(prep_min(size - off, 9000));

		CHECK_DONE(prep_disk_read(d, buf, (size_t)len, off, &err));
		CHECK(memcmp(buf, guest + off, (size_t)len) == 0);
	}
	for (uint64_t off = 0; off < size; off += e.len) {
		CHECK_DONE(d->ops->extent(d, off, &e, &err));
		CHECK(e.off == off && e.len > 0 && e.len <= size - off);
		if (e.kind != PREP_EXTENT_DATA) {
			CHECK(prep_is_zero(guest + off, (size_t)e.len));
		} else if (prep_disk_backing(d, off, &from)) {
			const size_t n = (size_t)prep_min(from.len, 100000);

			CHECK(pread(from.fd, buf, n, (off_t)from.off) == (ssize_t)n);
			CHECK(memcmp(buf, guest + off, n) == 0);
		}
	}
	free(buf);
}

/* What libvhdi reads of the same file. */
static void check_libvhdi(const char *path, const char *parent, const unsigned char *guest, uint64_t size,
			  uint32_t sector_size)
{
	libvhdi_file_t *f = NULL, *p = NULL;
	unsigned char *buf = malloc((size_t)size);
	uint32_t bytes = 0;
	size64_t media = 0;

	CHECK(libvhdi_file_initialize(&f, NULL) == 1);
	CHECK(libvhdi_file_open(f, path, LIBVHDI_OPEN_READ, NULL) == 1);
	if (parent != NULL) {
		CHECK(libvhdi_file_initialize(&p, NULL) == 1);
		CHECK(libvhdi_file_open(p, parent, LIBVHDI_OPEN_READ, NULL) == 1);
		CHECK(libvhdi_file_set_parent_file(f, p, NULL) == 1);
	}
	CHECK(libvhdi_file_get_media_size(f, &media, NULL) == 1);
	CHECK_EQ(media, size);
	CHECK(libvhdi_file_get_bytes_per_sector(f, &bytes, NULL) == 1);
	CHECK_EQ(bytes, sector_size);
	for (uint64_t off = 0; off < size;) {
		const ssize_t n = libvhdi_file_read_buffer_at_offset(f, buf + off, (size_t)(size - off), (off64_t)off, NULL);

		CHECK(n > 0);
		off += (uint64_t)n;
	}
	CHECK(memcmp(buf, guest, (size_t)size) == 0);
	libvhdi_file_free(&f, NULL);
	if (p != NULL)
		libvhdi_file_free(&p, NULL);
	free(buf);
}

static void shapes(void)
{
	static const struct spec row[] = {
		{ .size = 7 * MIB, .block_size = MIB, .sector_size = 512, .state = { 6, 0, 0, 6, 2, 3, 1 } },
		{ .size = 4 * MIB + 3 * 512, .block_size = 2 * MIB, .sector_size = 512, .state = { 0, 6, 6 } },
		{ .size = 9 * MIB, .block_size = 4 * MIB, .sector_size = 512, .state = { 6, 6, 6 }, .fixed = true },
		{ .size = 7 * MIB, .block_size = MIB, .sector_size = 4096, .state = { 0, 6, 2, 6, 0, 0, 6 } },
		{ .size = 5 * MIB + 4096, .block_size = 8 * MIB, .sector_size = 4096, .state = { 6 } },
	};
	const struct prep_vhdx_info *info;
	struct prep_export how;
	struct prep_disk *d;
	struct made m;
	uint64_t need;

	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		struct spec s = row[i];
		unsigned held = 0;

		s.id = id_a;
		make(&m, &s, "a.vhdx");
		CHECK_DONE(prep_disk_open(m.path, 0, &d, &err));
		info = prep_vhdx_disk_info(d);
		CHECK_STR(d->ops->kind, "vhdx");
		CHECK(info != NULL && !d->differencing);
		CHECK_EQ(info->block_size, s.block_size);
		CHECK_EQ(d->sector_size, s.sector_size);
		CHECK_EQ(info->physical_sector_size, 4096);
		CHECK_EQ(info->fixed, s.fixed);
		CHECK_STR(info->creator, "test 1.0");
		CHECK(memcmp(info->id, "\x11\x11\x11\x11\x22\x22\x33\x33\x44\x55\x66\x77\x88\x99\xaa\xbb", 16) == 0);
		CHECK(memcmp(info->disk_id, "\xbe\xca\x12\xab\xb2\xe6\x45\x23\x93\xef", 10) == 0);
		for (unsigned b = 0; b < BLOCKS_MAX; b++)
			held += s.state[b] == 6;
		CHECK_EQ(info->blocks_allocated, held);
		check_guest(d, m.guest, s.size);
		check_libvhdi(m.path, NULL, m.guest, s.size, s.sector_size);
		/* what it becomes: a dynamic VHD, if that can be */
		CHECK_DONE(prep_export_same(d, 0, &how, &err));
		CHECK_EQ(how.format, PREP_FORMAT_DYNAMIC);
		CHECK_EQ(how.block_size, 2 * MIB);
		CHECK(memcmp(how.identity.id, info->id, 16) == 0);
		if (s.sector_size == 512)
			CHECK_DONE(prep_export_estimate(d, &how, &need, NULL, &err));
		else
			CHECK_FAILS(prep_export_estimate(d, &how, &need, NULL, &err), PREP_EREFUSED, "sectors of 4096 bytes");
		how.format = PREP_FORMAT_RAW;
		CHECK_DONE(prep_export_check(d, &how, &err));
		prep_disk_close(d);
		release(&m);
	}
}

/* Blocks as large as they may be, on a disk that has more than one chunk of them. */
static void large(void)
{
	struct spec s = { .size = 16 * MIB, .block_size = 16 * MIB, .sector_size = 512, .state = { 6 }, .id = id_a };
	const uint64_t ratio = 16; /* 2^23 * 512 / 256 MiB */
	unsigned char *f, buf[512], value[512];
	struct prep_export how = { .format = PREP_FORMAT_DYNAMIC, .block_size = 2 * MIB };
	struct prep_extent e;
	struct prep_disk *d;
	struct made m;
	int fd;

	make(&m, &s, "large.vhdx");
	f = m.front;
	put_le32(f + METADATA_AT + 65536, 256 * MIB);
	put_le64(f + METADATA_AT + 65544, (uint64_t)3 << 40);
	memset(f + BAT_AT, 0, MIB);
	/* block 20, behind one entry for a bitmap */
	put_le64(f + BAT_AT + (20 + 20 / ratio) * 8, DATA_AT | 6);
	m.len = DATA_AT + 256 * MIB;
	save(&m);
	memset(value, 0x5A, sizeof value);
	fd = open(m.path, O_RDWR);
	check_write(fd, value, sizeof value, DATA_AT + 200 * MIB);
	close(fd);
	CHECK_DONE(prep_disk_open(m.path, 0, &d, &err));
	CHECK_DONE(prep_disk_read(d, buf, sizeof buf, (uint64_t)20 * 256 * MIB + 200 * MIB, &err));
	CHECK(memcmp(buf, value, sizeof buf) == 0);
	CHECK_DONE(prep_disk_read(d, buf, sizeof buf, (uint64_t)3 * 1024 * 1024 * MIB - 512, &err));
	CHECK(prep_is_zero(buf, sizeof buf));
	CHECK_DONE(prep_disk_extent(d, 5, (uint64_t)20 * 256 * MIB, &e, &err));
	CHECK_EQ(e.kind, PREP_EXTENT_HOLE);
	CHECK_EQ(e.len, (uint64_t)20 * 256 * MIB - 5);
	CHECK_FAILS(prep_export_check(d, &how, &err), PREP_EREFUSED, "3072 GiB: a VHD holds at most 2040 GiB");
	prep_disk_close(d);
	release(&m);
}

static void children(void)
{
	struct spec a = { .size = 6 * MIB, .block_size = MIB, .sector_size = 512, .state = { 6, 6, 0, 6, 6, 2 }, .id = id_a };
	struct spec b = { .size = 6 * MIB, .block_size = 2 * MIB, .sector_size = 512, .state = { 7, 6, 7 }, .id = id_b,
			  .parent = id_a, .parent_path = ".\\A.vhdx" };
	struct made ma, mb;
	struct prep_disk *d;

	for (unsigned i = 0; i < 2; i++) {
		a.sector_size = b.sector_size = i == 0 ? 512 : 4096;
		b.block_size = 2 * MIB;
		memcpy(b.state, (unsigned[]){ 7, 6, 7 }, 3 * sizeof b.state[0]);
		make(&ma, &a, "a.vhdx");
		b.below = ma.guest;
		make(&mb, &b, "b.vhdx");
		CHECK_DONE(prep_disk_open(mb.path, 0, &d, &err));
		CHECK(d->differencing && prep_vhdx_disk_info(d->parent) != NULL);
		CHECK_EQ(prep_vhdx_disk_info(d)->parent.n, 3);
		CHECK_STR(prep_vhdx_disk_info(d)->parent.name[0], ".\\A.vhdx");
		check_guest(d, mb.guest, b.size);
		prep_disk_close(d);
		check_libvhdi(mb.path, ma.path, mb.guest, b.size, b.sector_size);
		release(&mb);

		/* Every state; libvhdi looks at sector bitmaps and the parent where the state says zeros. */
		b.block_size = MIB;
		memcpy(b.state, (unsigned[]){ 0, 1, 7, 2, 3, 6 }, 6 * sizeof b.state[0]);
		make(&mb, &b, "b.vhdx");
		CHECK_DONE(prep_disk_open(mb.path, 0, &d, &err));
		check_guest(d, mb.guest, b.size);
		prep_disk_close(d);
		release(&mb);
		release(&ma);
	}
	/* A parent of another kind, sector size, id. */
	a.sector_size = 512;
	b.below = NULL;
	make(&ma, &a, "a.vhdx");
	make(&mb, &b, "b.vhdx");
	CHECK_FAILS(prep_disk_open(mb.path, 0, &d, &err), PREP_EREFUSED, "sectors of another size");
	release(&ma);
	a.id = id_b;
	make(&ma, &a, "a.vhdx");
	CHECK_FAILS(prep_disk_open(mb.path, 0, &d, &err), PREP_EREFUSED,
		    "a.vhdx is not its parent: it has the id b1111111-2222-3333-4455-66778899aabb, not 11111111-");
	unlink(ma.path);
	CHECK_FAILS(prep_disk_open(mb.path, 0, &d, &err), PREP_EREFUSED, ".\\A.vhdx (id 11111111-");
	release(&ma);
	release(&mb);
}

static void headers(void)
{
	struct spec s = { .size = 2 * MIB, .block_size = MIB, .sector_size = 512, .state = { 6, 0 }, .id = id_a };
	struct prep_disk *d;
	struct made m;
	uint8_t id[16];
	unsigned char *f;

	make(&m, &s, "h.vhdx");
	f = m.front;
	/* the later one of two good ones, the good one of two */
	guid(id_b, f + 65536 + 32);
	seal_header(f + 65536);
	save(&m);
	CHECK_DONE(prep_disk_open(m.path, 0, &d, &err));
	CHECK(prep_disk_id(d, id) && id[0] == 0x11);
	prep_disk_close(d);
	f[131072 + 100] ^= 1;
	save(&m);
	CHECK_DONE(prep_disk_open(m.path, 0, &d, &err));
	CHECK(prep_disk_id(d, id) && id[0] == 0xb1);
	prep_disk_close(d);
	/* a log that was not written back, in the header in force */
	f[65536 + 48] = 1;
	seal_header(f + 65536);
	save(&m);
	CHECK_FAILS(prep_disk_open(m.path, 0, &d, &err), PREP_EREFUSED, "not closed properly");
	CHECK(strstr(err.msg, "qemu-img check -r all") != NULL);
	f[65536 + 48] = 0;
	put_le16(f + 65536 + 66, 2);
	seal_header(f + 65536);
	save(&m);
	CHECK_FAILS(prep_disk_open(m.path, 0, &d, &err), PREP_EREFUSED, "version 2");
	f[65536 + 4] ^= 1;
	save(&m);
	CHECK_FAILS(prep_disk_open(m.path, 0, &d, &err), PREP_EDAMAGED, "VHDX header");
	CHECK_FAILS(prep_disk_open(m.path, PREP_DISK_WRITE, &d, &err), PREP_EREFUSED, "cannot be changed in place");
	release(&m);

	make(&m, &s, "h.vhdx");
	f = m.front;
	f[196608 + 17] ^= 1;
	save(&m);
	CHECK_DONE(prep_disk_open(m.path, 0, &d, &err));
	prep_disk_close(d);
	f[262144 + 17] ^= 1;
	save(&m);
	CHECK_FAILS(prep_disk_open(m.path, 0, &d, &err), PREP_EDAMAGED, "region table");
	release(&m);
}

/* One change of a good file, and what is said of it. */
static void damage(void)
{
	struct spec s = { .size = 4 * MIB, .block_size = MIB, .sector_size = 512, .state = { 6, 0, 6, 0 }, .id = id_a };
	static const struct {
		uint64_t at;
		unsigned len;
		uint64_t value;
		enum prep_code code;
		const char *text;
	} row[] = {
		{ METADATA_AT + 65536, 4, 3 * MIB, PREP_EDAMAGED, "blocks of 3145728 bytes" },
		{ METADATA_AT + 65536, 4, 512 * MIB, PREP_EDAMAGED, "blocks of" },
		{ METADATA_AT + 65536, 4, 0, PREP_EDAMAGED, "blocks of 0" },
		{ METADATA_AT + 65536 + 4, 4, 2, PREP_EDAMAGED, "lacks its parent" },
		{ METADATA_AT + 65544, 8, 0, PREP_EDAMAGED, "a VHDX of 0 bytes" },
		{ METADATA_AT + 65544, 8, 1000, PREP_EDAMAGED, "a VHDX of 1000 bytes" },
		{ METADATA_AT + 65544, 8, (uint64_t)1 << 60, PREP_EDAMAGED, "a VHDX of" },
		/* more entries than the table's region has */
		{ METADATA_AT + 65544, 8, (uint64_t)1 << 40, PREP_EDAMAGED, "room for 131072 entries" },
		{ METADATA_AT + 65552, 4, 1024, PREP_EDAMAGED, "sectors of 1024" },
		{ METADATA_AT, 4, 0, PREP_EDAMAGED, "no VHDX metadata" },
		{ METADATA_AT + 10, 2, 2048, PREP_EDAMAGED, "no VHDX metadata" },
		{ METADATA_AT + 10, 2, 1, PREP_EDAMAGED, "lacks its size" },
		{ METADATA_AT + 32 + 16, 4, MIB - 4, PREP_EDAMAGED, "item 0 is outside" },
		{ METADATA_AT + 32 + 20, 4, 0xFFFFFFFF, PREP_EDAMAGED, "item 0 is outside" },
		{ METADATA_AT + 32, 4, 0x01020304, PREP_EREFUSED, "needed and not known" },
		{ BAT_AT, 8, DATA_AT | 6, PREP_EDAMAGED, "block 2 overlaps" },
		{ BAT_AT, 8, METADATA_AT | 6, PREP_EDAMAGED, "overlaps" },
		{ BAT_AT, 8, LOG_AT | 6, PREP_EDAMAGED, "overlaps" },
		{ BAT_AT, 8, 6, PREP_EDAMAGED, "block 0 overlaps" },
		{ BAT_AT, 8, (DATA_AT + 2 * MIB) | 6, PREP_EDAMAGED, "truncated" },
		{ BAT_AT, 8, UINT64_MAX - 1, PREP_EDAMAGED, "truncated" },
		{ BAT_AT, 8, 4, PREP_EDAMAGED, "state 4" },
		{ BAT_AT, 8, DATA_AT | 7, PREP_EDAMAGED, "state 7" },
		{ BAT_AT + 16, 8, DATA_AT | 5, PREP_EDAMAGED, "block 2: state 5" },
	};
	struct prep_disk *d;
	struct made m;

	make(&m, &s, "d.vhdx");
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		unsigned char old[8];

		memcpy(old, m.front + row[i].at, 8);
		for (unsigned k = 0; k < row[i].len; k++)
			m.front[row[i].at + k] = (unsigned char)(row[i].value >> 8 * k);
		save(&m);
		CHECK_FAILS(prep_disk_open(m.path, 0, &d, &err), row[i].code, row[i].text);
		memcpy(m.front + row[i].at, old, 8);
	}
	save(&m);
	CHECK_DONE(prep_disk_open(m.path, 0, &d, &err));
	prep_disk_close(d);
	/* regions: their table has a checksum */
	for (unsigned i = 0; i < 3; i++) {
		static const struct { unsigned at; uint64_t value; enum prep_code code; const char *text; } region[] = {
			{ 32, (uint64_t)100 * MIB, PREP_EDAMAGED, "block table" },
			{ 64, 12345, PREP_EDAMAGED, "metadata" },
			{ 16, 99, PREP_EREFUSED, "needed and not known" },
		};
		unsigned char old[8];

		for (unsigned copy = 0; copy < 2; copy++) {
			unsigned char *r = m.front + 65536 * (3 + copy);

			memcpy(old, r + region[i].at, 8);
			put_le64(r + region[i].at, region[i].value);
			seal_regions(r);
		}
		save(&m);
		CHECK_FAILS(prep_disk_open(m.path, 0, &d, &err), region[i].code, region[i].text);
		for (unsigned copy = 0; copy < 2; copy++) {
			memcpy(m.front + 65536 * (3 + copy) + region[i].at, old, 8);
			seal_regions(m.front + 65536 * (3 + copy));
		}
	}
	/* cut off, anywhere */
	save(&m);
	for (uint64_t len = m.len; len > 0; len = len > 300000 ? len - 300000 : len > 7000 ? len - 7000 : 0) {
		CHECK(truncate(m.path, (off_t)len - 1) == 0);
		err = (struct prep_err)PREP_ERR_INIT;
		CHECK(prep_disk_open(m.path, 0, &d, &err) < 0);
		CHECK(err.code == PREP_EDAMAGED || len < 2000);
	}
	release(&m);
}

/* Whatever bytes change: an answer, and nothing read outside the file (the sanitizers watch). */
static void mutations(void)
{
	struct spec a = { .size = 3 * MIB, .block_size = MIB, .sector_size = 512, .state = { 6, 6, 0 }, .id = id_a };
	struct spec b = { .size = 3 * MIB, .block_size = MIB, .sector_size = 512, .state = { 7, 6, 7 }, .id = id_b,
			  .parent = id_a, .parent_path = "a.vhdx" };
	static const uint64_t place[] = { METADATA_AT, METADATA_AT + 65536, BAT_AT, BAT_AT + 4096 * 8 };
	unsigned char *buf = malloc(3 * MIB);
	struct made ma, mb;
	struct prep_disk *d;
	unsigned opened = 0;

	make(&ma, &a, "a.vhdx");
	b.below = ma.guest;
	make(&mb, &b, "m.vhdx");
	for (unsigned i = 0; i < 400; i++) {
		unsigned char old[1024];
		const uint64_t at = place[check_random(4)];
		const unsigned n = 1 + (unsigned)check_random(4);
		int fd;

		memcpy(old, mb.front + at, sizeof old);
		for (unsigned k = 0; k < n; k++)
			mb.front[at + check_random(check_random(2) ? 64 : sizeof old)] = (unsigned char)check_random(256);
		fd = open(mb.path, O_RDWR);
		check_write(fd, mb.front + at, sizeof old, at);
		err = (struct prep_err)PREP_ERR_INIT;
		if (prep_disk_open(mb.path, 0, &d, &err) == 0) {
			opened++;
			err = (struct prep_err)PREP_ERR_INIT;
			(void)prep_disk_read(d, buf, (size_t)prep_min(d->size, 3 * MIB), 0, &err);
			prep_disk_close(d);
		}
		memcpy(mb.front + at, old, sizeof old);
		check_write(fd, old, sizeof old, at);
		close(fd);
	}
	CHECK(opened > 0);
	free(buf);
	release(&ma);
	release(&mb);
}

int main(void)
{
	RUN(shapes);
	RUN(large);
	RUN(children);
	RUN(headers);
	RUN(damage);
	RUN(mutations);
	return check_result();
}
