/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The VHD reader on disks made byte by byte: sound ones in every layout, then
 * each way of being damaged that facts or malice provide. libvhdi reads what
 * is sound as well; of what is not it reads too much.
 */
#include "libprep/disk/vhd.h"

#include <libvhdi.h>
#include <sys/stat.h>

#include "libprep/disk/disk.h"
#include "tests/unit/image.h"

#define BLOCK (512u * 1024)

static struct prep_err err;
static const uint32_t mixed[] = { 6, 0, 3, 1 };

static bool reads_as(struct prep_disk *d, const unsigned char *guest, uint64_t size)
{
	unsigned char *p = malloc((size_t)size);
	const bool same = d->size == size && prep_disk_read(d, p, (size_t)size, 0, &err) == 0 &&
			  memcmp(p, guest, (size_t)size) == 0;

	free(p);
	return same;
}

static bool libvhdi_reads_as(const char *path, const unsigned char *guest, uint64_t size)
{
	libvhdi_file_t *f = NULL;
	unsigned char *p = malloc((size_t)size);
	size64_t media = 0;
	bool same;

	same = libvhdi_file_initialize(&f, NULL) == 1 &&
	       libvhdi_file_open(f, path, LIBVHDI_OPEN_READ, NULL) == 1 &&
	       libvhdi_file_get_media_size(f, &media, NULL) == 1 && media == size;
	for (uint64_t at = 0; same && at < size;) {
		const ssize_t n = libvhdi_file_read_buffer_at_offset(f, p + at, (size_t)(size - at), (off64_t)at, NULL);

		same = n > 0;
		at += same ? (uint64_t)n : 0;
	}
	same = same && memcmp(p, guest, (size_t)size) == 0;
	libvhdi_file_free(&f, NULL);
	free(p);
	return same;
}

/* ---- Sound disks ---- */

static void sound_layouts(void)
{
	static const struct {
		uint64_t size;
		uint32_t block_size, align;
	} layout[] = {
		{ 7 * BLOCK, BLOCK, 512 },            { 7 * BLOCK, BLOCK, 4096 },
		{ 6 * BLOCK + 512, BLOCK, 512 },      { 7 * BLOCK - 512, BLOCK, 4096 },
		{ 7 * 2 * PREP_MIB, 2 << 20, 512 },   { 6 * 4 * PREP_MIB + 3584, 4 << 20, 4096 },
	};

	for (size_t i = 0; i < sizeof layout / sizeof layout[0]; i++) {
		struct prep_disk *d;
		struct image im;
		const char *path;

		check_seed = i;
		image_dynamic(&im, layout[i].size, layout[i].block_size, mixed, 4, layout[i].align);
		path = image_save(&im, "sound.vhd", im.len);
		CHECK_DONE(prep_disk_open(path, 0, &d, &err));
		CHECK_EQ(d->notes.n, 0);
		CHECK_STR(d->ops->kind, "dynamic");
		CHECK(reads_as(d, im.guest, im.size));
		CHECK_EQ(prep_vhd_disk_info(d)->blocks_allocated, 4);
		CHECK(prep_vhd_block_allocated(d, 6) && !prep_vhd_block_allocated(d, 2));
		prep_disk_close(d);
		CHECK(libvhdi_reads_as(path, im.guest, im.size));
		image_free(&im);
	}
}

static void reads_of_any_size_and_place(void)
{
	struct prep_disk *d;
	struct image im;

	check_seed = 10;
	image_dynamic(&im, 6 * BLOCK + 512, BLOCK, mixed, 4, 512);
	CHECK_DONE(prep_disk_open(image_save(&im, "a.vhd", im.len), 0, &d, &err));
	for (unsigned i = 0; i < 500; i++) {
		const uint64_t off = check_random(im.size + 1);
		const size_t len = (size_t)check_random(prep_min(im.size - off, 2 * BLOCK) + 1);
		unsigned char *p = malloc(len + 1);
		int same;

		CHECK_DONE(prep_disk_read(d, p, len, off, &err));
		same = memcmp(p, im.guest + off, len) == 0;
		free(p);
		CHECK(same);
	}
	CHECK_FAILS(prep_disk_read(d, im.file, 1, im.size, &err), PREP_EDAMAGED, "outside the disk");
	CHECK_FAILS(prep_disk_read(d, im.file, 2, UINT64_MAX, &err), PREP_EDAMAGED, "outside the disk");
	prep_disk_close(d);
	image_free(&im);
}

/* Extents cover the disk without a gap, and what they call zero is. */
static void extents_tell_the_truth(void)
{
	struct prep_disk *d;
	struct prep_extent e;
	struct image im;
	uint64_t holes = 0, zeros = 0;
	int fd;

	check_seed = 11;
	image_dynamic(&im, 7 * BLOCK, BLOCK, mixed, 4, 4096);
	/* a hole of the host's file inside block 3 */
	memset(im.guest + 3 * BLOCK + 65536, 0, 131072);
	memset(im.file + image_data(&im, 3) + 65536, 0, 131072);
	fd = open(image_save(&im, "b.vhd", im.len), O_RDWR);
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)image_data(&im, 3) + 65536, 131072);
	close(fd);
	CHECK_DONE(prep_disk_open(check_path("b.vhd"), 0, &d, &err));
	for (uint64_t at = 0; at < im.size; at += e.len) {
		CHECK_DONE(prep_disk_extent(d, at, im.size, &e, &err));
		CHECK(e.off == at && e.len > 0 && e.len <= im.size - at);
		if (e.kind != PREP_EXTENT_DATA)
			CHECK(prep_is_zero(im.guest + at, (size_t)e.len));
		holes += e.kind == PREP_EXTENT_HOLE ? e.len : 0;
		zeros += e.kind == PREP_EXTENT_ZERO ? e.len : 0;
	}
	CHECK_EQ(holes, 3 * BLOCK);
	CHECK(zeros == 131072 || zeros == 0); /* a host without holes has none to show */
	CHECK(reads_as(d, im.guest, im.size));
	prep_disk_close(d);
	image_free(&im);
}

static void fixed(void)
{
	struct prep_disk *d;
	struct image im;
	const char *path;

	check_seed = 12;
	image_fixed(&im, 3 * PREP_MIB + 512);
	path = image_save(&im, "fixed.vhd", im.len);
	CHECK_DONE(prep_disk_open(path, 0, &d, &err));
	CHECK_STR(d->ops->kind, "fixed");
	CHECK_EQ(d->notes.n, 0);
	CHECK(reads_as(d, im.guest, im.size));
	prep_disk_close(d);
	CHECK(libvhdi_reads_as(path, im.guest, im.size));
	image_free(&im);
}

static void no_vhd_at_all(void)
{
	static const struct {
		const char *name, *magic, *what;
		size_t len, off;
	} other[] = {
		{ "x.qcow2", "QFI\xfb", "qcow", 4, 0 },
		{ "x.vmdk", "KDMV", "VMware", 4, 0 },         { "x2.vmdk", "COWD", "VMware", 4, 0 },
		{ "x3.vmdk", "# Disk DescriptorFile\n", "VMware", 22, 0 },
		{ "x.vdi", "\x7f\x10\xda\xbe", "VirtualBox", 4, 64 },
		{ "x.qed", "QED", "QEMU", 4, 0 },             { "x.hdd", "WithoutFreeSpace", "Parallels", 16, 0 },
		{ "x2.hdd", "WithouFreSpacExt", "Parallels", 16, 0 },
		{ "x.gz", "\x1f\x8b\x08", "gzip", 3, 0 },     { "x.xz", "\xfd" "7zXZ", "xz", 6, 0 },
		{ "x.zst", "\x28\xb5\x2f\xfd", "zstd", 4, 0 },{ "x.bz2", "BZh91AY&SY", "bzip2", 10, 0 },
		{ "x.7z", "7z\xbc\xaf\x27\x1c", "7z", 6, 0 }, { "x.zip", "PK\x03\x04", "zip", 4, 0 },
		{ "x.wim", "MSWIM\0\0", "WIM", 8, 0 },      { "x.ckm", "\x89PCKM\r\n\x1a", "ckm-unpack", 8, 0 },
		{ "x.ckm.index", "\x89PCKI\r\n\x1a", "index of a CKM package", 8, 0 },
	};
	struct prep_disk *d;
	char zeros[4096] = { 0 };
	int fd;

	for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
		fd = check_create(other[i].name);
		check_write(fd, zeros, sizeof zeros, 0);
		check_write(fd, other[i].magic, other[i].len, other[i].off);
		CHECK_FAILS(prep_disk_open(check_path(other[i].name), 0, &d, &err), PREP_EREFUSED, other[i].what);
		CHECK(strstr(err.msg, other[i].name) != NULL);
		close(fd);
	}
	close(check_create("empty"));
	CHECK_FAILS(prep_disk_open(check_path("empty"), 0, &d, &err), PREP_EREFUSED, "empty");
	check_write(check_create("odd"), zeros, 777, 0);
	CHECK_FAILS(prep_disk_open(check_path("odd"), 0, &d, &err), PREP_EREFUSED, "777 bytes");
	CHECK_FAILS(prep_disk_open(check_dir(), 0, &d, &err), PREP_EREFUSED, "neither a file nor a block device");
	CHECK_FAILS(prep_disk_open(check_path("absent"), 0, &d, &err), PREP_EFAIL, "absent: No such file");
	check_write(check_create("raw"), zeros, 4096, 0);
	CHECK_DONE(prep_disk_open(check_path("raw"), 0, &d, &err));
	CHECK_STR(d->ops->kind, "raw");
	CHECK_EQ(d->size, 4096);
	CHECK_EQ(d->notes.n, 0);
	prep_disk_close(d);
	/* one that claims to be a VHD by its name is taken, but not in silence */
	check_write(check_create("raw.VHD"), zeros, 4096, 0);
	CHECK_DONE(prep_disk_open(check_path("raw.VHD"), 0, &d, &err));
	CHECK_EQ(d->notes.n, 1);
	prep_disk_close(d);
}

/* ---- Footers ---- */

static struct image footers; /* a fresh disk for each case */

static void fresh(void)
{
	image_free(&footers);
	check_seed = 20;
	image_dynamic(&footers, 7 * BLOCK, BLOCK, mixed, 4, 512);
}

/* It opens, says `note`, and reads right. */
static void recovers(const char *path, const char *note)
{
	struct prep_disk *d;

	CHECK_DONE(prep_disk_open(path, 0, &d, &err));
	CHECK_EQ(d->notes.n, 1);
	if (strstr(d->notes.text[0], note) == NULL)
		CHECK_FAIL("\"%s\" lacks \"%s\"", d->notes.text[0], note);
	CHECK(reads_as(d, footers.guest, footers.size));
	prep_disk_close(d);
}

static void trailing_footer_lost(void)
{
	struct prep_disk *d;

	fresh();
	recovers(image_save(&footers, "f.vhd", footers.len - 512), "missing");
	recovers(image_save(&footers, "f.vhd", footers.len - 200), "missing");    /* cut */
	recovers(image_save(&footers, "f.vhd", footers.len + 512), "missing");    /* junk behind */
	recovers(image_save(&footers, "f.vhd", footers.len + 4097), "missing");
	footers.file[footers.len - 512 + 200] ^= 1;
	recovers(image_save(&footers, "f.vhd", footers.len), "damaged");
	CHECK_DONE(prep_disk_open(check_path("f.vhd"), 0, &d, &err));
	CHECK(prep_vhd_disk_info(d)->footer_recovered);
	prep_disk_close(d);
}

/* Virtual Server's: the last byte of the footer is not there. */
static void footer_of_511_bytes(void)
{
	struct prep_disk *d;
	const char *path;

	/* 511 bytes at a whole sector: the file is one byte short */
	fresh();
	path = image_save(&footers, "511.vhd", footers.len - 1);
	CHECK_DONE(prep_disk_open(path, 0, &d, &err));
	CHECK(reads_as(d, footers.guest, footers.size));
	prep_disk_close(d);

	/* the same of a fixed disk, which has no copy */
	image_free(&footers);
	image_fixed(&footers, 2 * PREP_MIB);
	path = image_save(&footers, "511.vhd", footers.len - 1);
	CHECK_DONE(prep_disk_open(path, 0, &d, &err));
	CHECK_STR(d->ops->kind, "fixed");
	CHECK(reads_as(d, footers.guest, footers.size));
	prep_disk_close(d);
}

static void copy_lost(void)
{
	fresh();
	memset(footers.file, 0, 512);
	recovers(image_save(&footers, "c.vhd", footers.len), "copy at offset 0");
	fresh();
	footers.file[100] ^= 1;
	recovers(image_save(&footers, "c.vhd", footers.len), "copy at offset 0");
	/* two footers, both whole, of different disks: one of them is a lie */
	fresh();
	footers.file[70] ^= 1;
	image_checksum(footers.file, 512, 64);
	recovers(image_save(&footers, "c.vhd", footers.len), "differ");
}

static void both_footers_bad(void)
{
	struct prep_disk *d;

	fresh();
	footers.file[100] ^= 1;
	footers.file[footers.len - 512 + 100] ^= 1;
	CHECK_FAILS(prep_disk_open(image_save(&footers, "d.vhd", footers.len), 0, &d, &err), PREP_EDAMAGED,
		    "wrong checksum");
	CHECK_FAILS(prep_disk_open(image_save(&footers, "d.vhd", footers.len - 512), 0, &d, &err), PREP_EDAMAGED,
		    "wrong checksum");
	memset(footers.file, 0, 512);
	CHECK_FAILS(prep_disk_open(image_save(&footers, "d.vhd", footers.len), 0, &d, &err), PREP_EDAMAGED,
		    "wrong checksum");
	/* a fixed disk has only the one */
	image_free(&footers);
	image_fixed(&footers, PREP_MIB);
	footers.file[footers.len - 1] ^= 1;
	CHECK_FAILS(prep_disk_open(image_save(&footers, "d.vhd", footers.len), 0, &d, &err), PREP_EDAMAGED,
		    "wrong checksum");
	image_free(&footers);
}

/* Set a field of both footers, checksums right, and open. */
static int open_with(size_t field, size_t len, uint64_t value, unsigned flags, struct prep_disk **d)
{
	fresh();
	for (int i = 0; i < 2; i++) {
		unsigned char *p = i == 0 ? footers.file : footers.file + footers.len - 512;

		if (len == 1)
			p[field] = (unsigned char)value;
		else if (len == 4)
			put_be32(p + field, (uint32_t)value);
		else
			put_be64(p + field, value);
	}
	image_seal(&footers);
	return prep_disk_open(image_save(&footers, "e.vhd", footers.len), flags, d, &err);
}

static void footer_fields(void)
{
	struct prep_disk *d;

	CHECK_FAILS(open_with(60, 4, 4, 0, &d), PREP_EREFUSED, "differencing");
	CHECK_FAILS(open_with(60, 4, 5, 0, &d), PREP_EREFUSED, "unknown type 5");
	CHECK_FAILS(open_with(48, 8, 0, 0, &d), PREP_EDAMAGED, "0 bytes");
	CHECK_FAILS(open_with(48, 8, 1000, 0, &d), PREP_EDAMAGED, "1000 bytes");
	CHECK_FAILS(open_with(48, 8, (uint64_t)1 << 62, 0, &d), PREP_EDAMAGED, "a disk of");
	CHECK_FAILS(open_with(48, 8, 100 * PREP_GIB, 0, &d), PREP_EDAMAGED, "block table");
	CHECK_FAILS(open_with(16, 8, 1 << 30, 0, &d), PREP_EDAMAGED, "past the end");
	CHECK_FAILS(open_with(16, 8, UINT64_MAX, 0, &d), PREP_EDAMAGED, "past the end");
	CHECK_FAILS(open_with(16, 8, UINT64_MAX - 512, 0, &d), PREP_EDAMAGED, "past the end");
	CHECK_FAILS(open_with(16, 8, 1536, 0, &d), PREP_EDAMAGED, "no VHD header at offset 1536");
	/* the current size counts, whatever the original size and the geometry say */
	CHECK_DONE(open_with(40, 8, BLOCK, 0, &d));
	CHECK_EQ(d->size, 7 * BLOCK);
	CHECK_EQ(prep_vhd_disk_info(d)->footer.original_size, BLOCK);
	prep_disk_close(d);
	CHECK_DONE(open_with(48, 8, 6 * BLOCK + 1024, 0, &d));
	CHECK_EQ(d->size, 6 * BLOCK + 1024);
	CHECK(reads_as(d, footers.guest, d->size));
	prep_disk_close(d);
	/* a saved state may be read, not written */
	CHECK_DONE(open_with(84, 1, 1, 0, &d));
	CHECK_EQ(prep_vhd_disk_info(d)->footer.saved_state, 1);
	prep_disk_close(d);
	CHECK_FAILS(open_with(84, 1, 1, PREP_DISK_WRITE, &d), PREP_EREFUSED, "saved state");
}

/* ---- Header and block table ---- */

static int open_with_header(size_t field, size_t len, uint64_t value, struct prep_disk **d)
{
	fresh();
	if (len == 4)
		put_be32(footers.file + 512 + field, (uint32_t)value);
	else
		put_be64(footers.file + 512 + field, value);
	image_seal(&footers);
	return prep_disk_open(image_save(&footers, "h.vhd", footers.len), 0, d, &err);
}

static void header_fields(void)
{
	struct prep_disk *d;

	CHECK_FAILS(open_with_header(16, 8, (uint64_t)1 << 40, &d), PREP_EDAMAGED, "block table ends past the end");
	CHECK_FAILS(open_with_header(16, 8, UINT64_MAX, &d), PREP_EDAMAGED, "block table ends past the end");
	CHECK_FAILS(open_with_header(28, 4, 6, &d), PREP_EDAMAGED, "holds 6 blocks, the disk has 7");
	CHECK_FAILS(open_with_header(28, 4, UINT32_MAX, &d), PREP_EDAMAGED, "block table entries");
	CHECK_FAILS(open_with_header(32, 4, 0, &d), PREP_EREFUSED, "block size 0");
	CHECK_FAILS(open_with_header(32, 4, 4096, &d), PREP_EREFUSED, "block size 4096");
	CHECK_FAILS(open_with_header(32, 4, 3 << 20, &d), PREP_EREFUSED, "block size 3145728");
	CHECK_FAILS(open_with_header(32, 4, 1u << 31, &d), PREP_EREFUSED, "block size");
	fresh();
	footers.file[512 + 200] ^= 1;
	CHECK_FAILS(prep_disk_open(image_save(&footers, "h.vhd", footers.len), 0, &d, &err), PREP_EDAMAGED,
		    "header at offset 512: wrong checksum");
}

/* Point block 3 of a fresh disk at a sector. */
static int open_with_entry(uint32_t sector, struct prep_disk **d)
{
	fresh();
	put_be32(image_bat(&footers, 3), sector);
	return prep_disk_open(image_save(&footers, "t.vhd", footers.len), 0, d, &err);
}

static void block_table(void)
{
	struct prep_disk *d;
	uint32_t first, end;

	fresh();
	first = get_be32(image_bat(&footers, mixed[0]));
	end = (uint32_t)(footers.len / 512);
	CHECK_FAILS(open_with_entry(0, &d), PREP_EDAMAGED, "block 3");
	CHECK(strstr(err.msg, "footer's copy") != NULL);
	CHECK_FAILS(open_with_entry(1, &d), PREP_EDAMAGED, "block 3");
	CHECK(strstr(err.msg, "header") != NULL);
	CHECK_FAILS(open_with_entry(3, &d), PREP_EDAMAGED, "block 3");
	CHECK(strstr(err.msg, "block table") != NULL);
	CHECK_FAILS(open_with_entry(end, &d), PREP_EDAMAGED, "block 3");
	CHECK_FAILS(open_with_entry(UINT32_MAX - 1, &d), PREP_EDAMAGED, "block 3");
	/* the last block would reach into the footer by one sector */
	CHECK_FAILS(open_with_entry(end - 1 - BLOCK / 512, &d), PREP_EDAMAGED, "block 3");
	/* the place of another, all of it, or in part: both are named */
	CHECK_FAILS(open_with_entry(first, &d), PREP_EDAMAGED, "blocks 3 and 6");
	CHECK_FAILS(open_with_entry(first + 1, &d), PREP_EDAMAGED, "blocks 3 and 6");
	CHECK_FAILS(open_with_entry(first + BLOCK / 512, &d), PREP_EDAMAGED, "blocks 3 and 6");
	/* one that is not used reads as zeros */
	CHECK_DONE(open_with_entry(UNUSED_BLOCK, &d));
	memset(footers.guest + 3 * BLOCK, 0, BLOCK);
	CHECK(reads_as(d, footers.guest, footers.size));
	prep_disk_close(d);
}

/* Cut at every place that matters: never a disk that reads wrong, never a crash. */
static void truncated(void)
{
	struct prep_disk *d;
	struct image im;

	fresh();
	for (size_t len = 0; len < footers.len - 512; len += len < 4096 ? 97 : 65521) {
		if (prep_disk_open(image_save(&footers, "cut.vhd", len), 0, &d, &err) == 0) {
			prep_disk_close(d);
			CHECK_FAIL("opened with %zu of %zu bytes", len, footers.len);
		}
		if (err.code != PREP_EDAMAGED && err.code != PREP_EREFUSED)
			CHECK_FAIL("%zu bytes: status %d: %s", len, (int)err.code, err.msg);
		err = (struct prep_err)PREP_ERR_INIT;
	}
	/* one byte of the last block's data is missing */
	CHECK_FAILS(prep_disk_open(image_save(&footers, "cut.vhd", footers.len - 513), 0, &d, &err), PREP_EDAMAGED,
		    "block 1");
	CHECK(strstr(err.msg, "truncated") != NULL);
	/* a fixed disk whose footer stands, but whose data is not all there */
	check_seed = 21;
	image_fixed(&im, 2 * PREP_MIB);
	memmove(im.file + PREP_MIB, im.file + im.len - 512, 512);
	CHECK_FAILS(prep_disk_open(image_save(&im, "cut.vhd", PREP_MIB + 512), 0, &d, &err), PREP_EDAMAGED, "truncated");
	image_free(&im);
}

/* ---- Sector bitmaps ---- */

/* Clear the bit of a sector of block 3. The most significant bit of byte 0 is sector 0. */
static void clear_bit(uint32_t sector)
{
	footers.file[image_data(&footers, 3) - footers.bitmap_size + sector / 8] &= (unsigned char)~(0x80 >> sector % 8);
	memset(footers.guest + 3 * BLOCK + (size_t)sector * 512, 0, 512);
}

static void clear_bits_are_zeros(void)
{
	static const uint32_t cleared[] = { 0, 1, 7, 8, 13, 500, 1022, 1023 };
	struct prep_disk *d;
	uint32_t partial, hidden;
	unsigned char p[3 * 512];

	fresh();
	for (size_t i = 0; i < sizeof cleared / sizeof cleared[0]; i++)
		clear_bit(cleared[i]);
	CHECK_DONE(prep_disk_open(image_save(&footers, "bits.vhd", footers.len), PREP_DISK_WRITE, &d, &err));
	CHECK(reads_as(d, footers.guest, footers.size));
	CHECK_DONE(prep_disk_read(d, p, 700, 3 * BLOCK + 6 * 512 + 100, &err));
	CHECK(memcmp(p, footers.guest + 3 * BLOCK + 6 * 512 + 100, 700) == 0);
	CHECK_DONE(prep_vhd_check_bitmaps(d, &partial, &hidden, &err));
	CHECK_EQ(partial, 1);
	CHECK_EQ(hidden, 1);
	/* a write into the block keeps what was read as zeros */
	check_noise(p, sizeof p);
	memcpy(footers.guest + 3 * BLOCK + 300, p, sizeof p);
	CHECK_DONE(prep_disk_write(d, p, sizeof p, 3 * BLOCK + 300, &err));
	CHECK(reads_as(d, footers.guest, footers.size));
	CHECK_DONE(prep_disk_flush(d, &err));
	prep_disk_close(d);
	/* and so says everybody now */
	CHECK_DONE(prep_disk_open(check_path("bits.vhd"), 0, &d, &err));
	CHECK_DONE(prep_vhd_check_bitmaps(d, &partial, &hidden, &err));
	CHECK_EQ(partial, 0);
	CHECK(reads_as(d, footers.guest, footers.size));
	prep_disk_close(d);
	CHECK(libvhdi_reads_as(check_path("bits.vhd"), footers.guest, footers.size));

	/* clear bits over zeros hide nothing; those past the disk's end do not count */
	fresh();
	clear_bit(100);
	memset(footers.file + image_data(&footers, 3) + 100 * 512, 0, 512);
	CHECK_DONE(prep_disk_open(image_save(&footers, "bits.vhd", footers.len), 0, &d, &err));
	CHECK_DONE(prep_vhd_check_bitmaps(d, &partial, &hidden, &err));
	CHECK_EQ(partial, 1);
	CHECK_EQ(hidden, 0);
	prep_disk_close(d);
}

/* ---- Writing in place ---- */

static void writes(void)
{
	struct prep_disk *d;
	struct image im;
	struct stat before, after;
	const char *path;
	unsigned char *p = malloc(2 * BLOCK);
	uint64_t changed;

	check_seed = 30;
	image_dynamic(&im, 6 * BLOCK + 512, BLOCK, mixed, 4, 512);
	path = image_save(&im, "w.vhd", im.len);
	CHECK_DONE(prep_disk_open(path, PREP_DISK_WRITE, &d, &err));
	CHECK(stat(path, &before) == 0);
	/* zeros never allocate, by any call */
	memset(p, 0, 2 * BLOCK);
	CHECK_DONE(prep_disk_write(d, p, BLOCK, 4 * BLOCK, &err));
	CHECK_DONE(prep_disk_zero(d, 4 * BLOCK, 2 * BLOCK, &changed, &err));
	CHECK_EQ(changed, 0);
	CHECK_EQ(prep_vhd_disk_info(d)->blocks_allocated, 4);
	CHECK(stat(path, &after) == 0);
	CHECK_EQ(after.st_size, before.st_size);
	/* anywhere, of any length, over the borders of blocks that are there and of others */
	for (unsigned i = 0; i < 200; i++) {
		const uint64_t off = check_random(im.size), len = 1 + check_random(prep_min(im.size - off, 2 * BLOCK));

		if (i % 3 == 0) {
			CHECK_DONE(prep_disk_zero(d, off, len, &changed, &err));
			memset(im.guest + off, 0, (size_t)len);
		} else {
			check_noise(p, (size_t)len);
			CHECK_DONE(prep_disk_write(d, p, (size_t)len, off, &err));
			memcpy(im.guest + off, p, (size_t)len);
		}
	}
	CHECK(reads_as(d, im.guest, im.size));
	CHECK_DONE(prep_disk_flush(d, &err));
	CHECK_FAILS(prep_disk_write(d, p, 1, im.size, &err), PREP_EDAMAGED, "outside the disk");
	prep_disk_close(d);
	CHECK_DONE(prep_disk_open(path, 0, &d, &err));
	CHECK_EQ(d->notes.n, 0);
	CHECK_EQ(prep_vhd_disk_info(d)->blocks_allocated, 7);
	CHECK(reads_as(d, im.guest, im.size));
	prep_disk_close(d);
	CHECK(libvhdi_reads_as(path, im.guest, im.size));
	free(p);
	image_free(&im);
}

/* Until it is flushed, a new block is in nobody's way: the old end keeps its footer, and the table is as it was. */
static void new_blocks_wait_for_the_flush(void)
{
	unsigned char noise[8192], *file;
	struct prep_disk *d;
	struct image im;
	const char *path;
	struct stat st;
	size_t len;
	int fd;

	check_seed = 32;
	image_dynamic(&im, 6 * BLOCK + 512, BLOCK, mixed, 4, 4096);
	path = image_save(&im, "n.vhd", im.len);
	check_noise(noise, sizeof noise);
	CHECK_DONE(prep_disk_open(path, PREP_DISK_WRITE, &d, &err));
	CHECK_DONE(prep_disk_write(d, noise, sizeof noise, 4 * BLOCK - 4096, &err));
	file = check_read(path, &len);
	/* Closed without a flush: room that nothing shows is given back. */
	prep_disk_close(d);
	CHECK(stat(path, &st) == 0);
	CHECK_EQ(st.st_size, im.len);
	CHECK(len > im.len + BLOCK);
	CHECK(memcmp(file, im.file, 4096) == 0);
	CHECK(memcmp(file + im.len - 512, im.file + im.len - 512, 512) == 0);
	CHECK(memcmp(file + len - 512, im.file + im.len - 512, 512) == 0);
	/* Killed instead: what the first attempt left behind the blocks is not in the way of the next. */
	fd = open(path, O_RDWR);
	check_write(fd, file, len, 0);
	close(fd);
	free(file);
	CHECK_DONE(prep_disk_open(path, PREP_DISK_WRITE, &d, &err));
	CHECK_DONE(prep_disk_write(d, noise, 100, 4 * BLOCK + 50, &err));
	CHECK_DONE(prep_disk_flush(d, &err));
	prep_disk_close(d);
	memcpy(im.guest + 4 * BLOCK - 4096, noise, 4096);
	memcpy(im.guest + 4 * BLOCK + 50, noise, 100);
	CHECK_DONE(prep_disk_open(path, 0, &d, &err));
	CHECK_EQ(d->notes.n, 0);
	CHECK(reads_as(d, im.guest, im.size));
	prep_disk_close(d);
	CHECK(libvhdi_reads_as(path, im.guest, im.size));
	image_free(&im);
}

static void zeroing_frees_the_host(void)
{
	struct prep_disk *d;
	struct image im;
	struct stat before, after;
	uint64_t changed;
	const char *path;

	check_seed = 31;
	image_dynamic(&im, 7 * BLOCK, BLOCK, mixed, 4, 4096);
	path = image_save(&im, "z.vhd", im.len);
	CHECK(stat(path, &before) == 0);
	CHECK_DONE(prep_disk_open(path, PREP_DISK_WRITE, &d, &err));
	CHECK_DONE(prep_disk_zero(d, 0, 2 * BLOCK, &changed, &err));
	CHECK_EQ(changed, 2 * BLOCK);
	CHECK_DONE(prep_disk_zero(d, 0, 2 * BLOCK, &changed, &err));
	CHECK_EQ(changed, 0);
	CHECK_DONE(prep_disk_flush(d, &err));
	prep_disk_close(d);
	CHECK(stat(path, &after) == 0);
	CHECK_EQ(after.st_size, before.st_size);
	if (after.st_blocks == before.st_blocks)
		CHECK_SKIP("the file system of $TMPDIR has no holes");
	CHECK((before.st_blocks - after.st_blocks) * 512 >= 2 * (int64_t)BLOCK - 16384);
	image_free(&im);
}

/* ---- Geometry ---- */

static void geometry(void)
{
	/* The specification's appendix, worked through by hand or seen on disks of Windows and Virtual PC. */
	static const struct {
		uint64_t size;
		unsigned c, h, s;
	} known[] = {
		{ 4 * PREP_MIB, 120, 4, 17 },        /* Windows 10 diskpart */
		{ 127 * PREP_GIB, 65278, 16, 255 },  /* Virtual PC */
		{ 512, 0, 4, 17 },
		{ 40 * PREP_MIB, 963, 5, 17 },
		{ 200 * PREP_MIB, 825, 16, 31 },
		{ 504 * PREP_MIB, 1024, 16, 63 },
		{ 2040 * PREP_GIB, 65535, 16, 255 }, /* as far as it reaches */
	};

	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		struct prep_vhd_footer f = { .current_size = known[i].size };

		prep_vhd_geometry(known[i].size, &f.cylinders, &f.heads, &f.sectors);
		CHECK_EQ(f.cylinders, known[i].c);
		CHECK_EQ(f.heads, known[i].h);
		CHECK_EQ(f.sectors, known[i].s);
		CHECK(prep_vhd_geometry_size(&f) <= known[i].size);
	}
}

int main(void)
{
	RUN(sound_layouts);
	RUN(reads_of_any_size_and_place);
	RUN(extents_tell_the_truth);
	RUN(fixed);
	RUN(no_vhd_at_all);
	RUN(trailing_footer_lost);
	RUN(footer_of_511_bytes);
	RUN(copy_lost);
	RUN(both_footers_bad);
	RUN(footer_fields);
	RUN(header_fields);
	RUN(block_table);
	RUN(truncated);
	RUN(clear_bits_are_zeros);
	RUN(writes);
	RUN(new_blocks_wait_for_the_flush);
	RUN(zeroing_frees_the_host);
	RUN(geometry);
	image_free(&footers);
	return check_result();
}
