/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The NTFS audit: it finds nothing on sound volumes, and names each kind of
 * damage that is put into one, even where no other tool sees it.
 */
#include "tests/unit/ntfs_fixture.h"

/* ---- Mapping pairs ---- */

static void test_pairs(void)
{
	/* As each should be read: runs as LCN+LENGTH or hole+LENGTH, then "end" or "bad". */
	static const struct {
		const char *name, *bytes;
		size_t len;
		const char *runs;
	} cases[] = {
		{ "no mapping pairs", "", 0, "end" },
		{ "mapping pairs of one run", "\x21\x05\x34\x12\0", 5, "4660+5 end" },
		{ "mapping pairs without their end", "\x21\x05\x34\x12", 4, "4660+5 end" },
		{ "runs forth, back, and a hole", "\x11\x05\x10\x01\x03\x11\x02\xff\0", 9, "16+5 hole+3 15+2 end" },
		{ "a hole of old, at cluster -1", "\x11\x05\xff\0", 4, "hole+5 end" },
		{ "a run at a negative cluster", "\x11\x05\xfe\0", 4, "bad" },
		{ "a run of no clusters", "\x11\0\x10\0", 4, "bad" },
		{ "a run of negative length", "\x11\xff\x10\0", 4, "bad" },
		{ "a length of no bytes", "\x10\x10\0", 3, "bad" },
		{ "a length of 9 bytes", "\x19\1\1\1\1\1\1\1\1\1\x10\0", 12, "bad" },
		{ "a cluster of 9 bytes", "\x91\1\1\1\1\1\1\1\1\1\1\0", 12, "bad" },
		{ "a run that is cut short", "\x11\x05\x10\x21\x05\x34", 6, "16+5 bad" },
		{ "a cluster beyond all numbers",
		  "\x81\1\xff\xff\xff\xff\xff\xff\xff\x7f\x11\1\1\0", 14, "9223372036854775807+1 bad" },
		{ "lengths beyond all numbers", "\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x01\x01\0", 12,
		  "hole+9223372036854775807 bad" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		/* Exactly as many bytes, so that a sanitizer sees the first one too many. */
		uint8_t *const p = malloc(cases[i].len + 1);
		struct prep_ntfs_pairs pairs;
		struct prep_ntfs_run r;
		char got[256] = "";
		size_t n = 0;
		int more;

		if (p == NULL)
			exit(1);
		memcpy(p + 1, cases[i].bytes, cases[i].len);
		pairs = (struct prep_ntfs_pairs){ .p = p + 1, .end = p + 1 + cases[i].len };
		test = cases[i].name;
		failed = false;
		while ((more = prep_ntfs_pairs_next(&pairs, &r)) > 0 && n < 200)
			n += (size_t)(r.lcn == PREP_NTFS_HOLE
					      ? snprintf(got + n, sizeof got - n, "hole+%llu ", (unsigned long long)r.len)
					      : snprintf(got + n, sizeof got - n, "%llu+%llu ", (unsigned long long)r.lcn,
							 (unsigned long long)r.len));
		snprintf(got + n, sizeof got - n, "%s", more < 0 ? "bad" : "end");
		check(strcmp(got, cases[i].runs) == 0, "read as %s", got);
		free(p);
		end();
	}
}

/* ---- Sound volumes ---- */

static void expect_sound(const struct prep_fs_audit *a)
{
	check(prep_fs_audit_records_sound(a) && a->used_unclaimed == 0 && a->problems.n == 0,
	      "%zu problems: %s", a->problems.n, a->problems.n > 0 ? a->problems.text[0] : "");
	check(a->used + a->free == a->clusters, "used and free are not all");
}

static void test_sound(void)
{
	struct prep_fs_audit a;

	begin("a sound volume");
	a = audit();
	expect_sound(&a);
	/* The manifest's: 2 of dir (one a hard link), single, noise, small, long, x, fragments, comp, sparse, wof, 4 trees, 1. */
	check(a.files == 15 + BIG_FILES, "%llu files", (unsigned long long)a.files);
	check(a.folders == 11, "%llu folders", (unsigned long long)a.folders);
	check(a.fragments >= 3000 && a.fragmented >= 1, "%llu fragments", (unsigned long long)a.fragments);
	prep_fs_audit_clear(&a);
	end();
}

/* Volumes of every cluster and sector size that mkntfs makes. */
static void test_sizes(void)
{
	static const char *const options[] = {
		"-c 512", "-c 1024", "-c 2048", "-c 8192", "-c 16384", "-c 32768", "-c 65536", "-c 131072",
		"-c 2097152", "-s 256", "-s 1024", "-s 2048", "-s 4096",
	};
	struct prep_disk *const fixture = base;
	char name[64];

	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
		struct prep_err err = PREP_ERR_INIT;
		struct prep_fs_audit a;
		int fd;

		snprintf(name, sizeof name, "a volume of mkntfs %s", options[i]);
		if (!run("rm -f '%s/other' && truncate -s 1G '%s/other' && mkntfs -q -Q -F %s '%s/other' >/dev/null 2>&1",
			 work, work, options[i], work)) {
			printf("skip %s: mkntfs does not make it\n", name);
			continue;
		}
		snprintf(volume_path, sizeof volume_path, "%s/other", work);
		fd = open(volume_path, O_RDWR | O_CLOEXEC);
		if (prep_raw_open(fd, "other", PREP_GIB, &base, &err) < 0)
			exit(1);
		begin(name);
		a = audit();
		expect_sound(&a);
		prep_fs_audit_clear(&a);
		end();
		prep_disk_close(base);
	}
	base = fixture;
}

/* Disks that Windows made. */
static void test_samples(void)
{
	static const char *const samples[] = { "ntfs-fixed.vhd", "ntfs-parent.vhd" };
	struct prep_disk *const fixture = base;
	char name[64];

	for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
		struct prep_err err = PREP_ERR_INIT;
		struct prep_fs_audit a;
		int fd;

		snprintf(name, sizeof name, "Windows' own %s", samples[i]);
		/* A fixed VHD is the disk and a footer; the volume begins at sector 128. */
		if (!run("xz -dc ../shared/samples/%s.xz 2>/dev/null | tail -c +65537 >'%s/other' && test -s '%s/other'",
			 samples[i], work, work)) {
			printf("skip %s: the sample is not there\n", name);
			continue;
		}
		snprintf(volume_path, sizeof volume_path, "%s/other", work);
		fd = open(volume_path, O_RDWR | O_CLOEXEC);
		if (prep_raw_open(fd, "other", 3080192, &base, &err) < 0)
			exit(1);
		begin(name);
		a = audit();
		expect_sound(&a);
		prep_fs_audit_clear(&a);
		end();
		prep_disk_close(base);
	}
	base = fixture;
}

/* ---- Clusters ---- */

#define expect(a, field, value)                                                               \
	check((a).field == (value), #field " is %llu", (unsigned long long)(a).field)

static uint64_t bitmap_offset(void)
{
	return stream_offset(PREP_NTFS_BITMAP, PREP_NTFS_ATTR_DATA, "", 0);
}

static uint64_t first_cluster(uint64_t record)
{
	return stream_offset(record, PREP_NTFS_ATTR_DATA, "", 0) / CLUSTER;
}

static void test_bitmap(void)
{
	struct prep_fs_audit a;
	uint64_t lcn;

	begin("a bit lost in $Bitmap");
	lcn = first_cluster(record_of("/dir/one.txt"));
	flip_bit(bitmap_offset(), lcn + 1);
	a = audit();
	expect(a, claimed_free, 1);
	expect(a, used_unclaimed, 0);
	check(!prep_fs_audit_clusters_sound(&a), "passed for sound");
	check(noted(&a, "(/dir/one.txt)"), "the file is not named");
	check(!prep_bit_get(a.free_map, lcn + 1), "the cluster passed for free");
	prep_fs_audit_clear(&a);
	end();

	begin("a bit too many in $Bitmap");
	a = audit();
	lcn = prep_bit_next(a.free_map, 0, a.clusters, true);
	prep_fs_audit_clear(&a);
	flip_bit(bitmap_offset(), lcn);
	a = audit();
	expect(a, used_unclaimed, 1);
	check(prep_fs_audit_records_sound(&a), "passed for unsound: it is harmless");
	check(a.problems.n == 1 && noted(&a, "no file claims it"), "not noted");
	check(!prep_bit_get(a.free_map, lcn), "the cluster passed for free");
	prep_fs_audit_clear(&a);
	end();

	begin("bits beyond the volume's end");
	lcn = VOLUME_SIZE / CLUSTER;
	flip_bit(bitmap_offset(), lcn + 3);
	a = audit();
	expect_sound(&a);
	prep_fs_audit_clear(&a);
	end();
}

/* Let the record's stream begin at another cluster. Its mapping pairs are one run, of 2 bytes or fewer each. */
static void redirect(uint64_t record, uint16_t lcn)
{
	const uint64_t off = record_offset(record);
	uint8_t p[1024], *pairs, len;

	get_block(off, p, sizeof p, "FILE");
	pairs = p + attr_offset(p, PREP_NTFS_ATTR_DATA, 0);
	pairs += get_le16(pairs + 32);
	len = pairs[1];
	check((pairs[0] & 15) == 1, "the run is too long");
	pairs[0] = 0x21;
	pairs[1] = len;
	put_le16(pairs + 2, lcn);
	pairs[4] = 0;
	put_block(off, p, sizeof p);
}

static void test_claims(void)
{
	struct prep_fs_audit a;
	uint64_t one, two;

	begin("a cross-link");
	one = record_of("/dir/one.txt");
	two = record_of("/dir/two.txt");
	redirect(two, (uint16_t)(first_cluster(one) + 2));
	a = audit();
	check(a.crosslinked >= 3, "crosslinked is %llu", (unsigned long long)a.crosslinked);
	check(a.used_unclaimed > 0, "the old clusters are not missed");
	check(!prep_fs_audit_clusters_sound(&a), "passed for sound");
	check(noted(&a, "(/dir/one.txt)") && noted(&a, "(/dir/two.txt)"), "the files are not named");
	prep_fs_audit_clear(&a);
	end();

	begin("a run outside the volume");
	redirect(record_of("/dir/two.txt"), 0x7000);
	a = audit();
	expect(a, outside, 5);
	check(!prep_fs_audit_clusters_sound(&a), "passed for sound");
	check(noted(&a, "outside the volume (/dir/two.txt)"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("a run across the volume's end");
	redirect(record_of("/dir/two.txt"), VOLUME_SIZE / CLUSTER - 3);
	a = audit();
	check(a.outside == 3, "outside is %llu", (unsigned long long)a.outside);
	prep_fs_audit_clear(&a);
	end();

	begin("bad clusters");
	{
		const uint64_t off = record_offset(PREP_NTFS_BADCLUS);
		uint8_t p[1024], *attr;
		uint64_t lcn;

		a = audit();
		lcn = prep_bit_next(a.free_map, 1000, a.clusters, true);
		prep_fs_audit_clear(&a);
		get_block(off, p, sizeof p, "FILE");
		attr = p + attr_offset(p, PREP_NTFS_ATTR_DATA, 1);
		/* A hole up to lcn, 1 cluster, a hole to the end: the attribute ends its record, and grows. */
		{
			uint8_t *pairs = attr + get_le16(attr + 32);
			const uint32_t len = (uint32_t)(pairs - attr) + 16;

			memset(pairs, 0, 16);
			pairs[0] = 0x02;
			put_le16(pairs + 1, (uint16_t)lcn);
			pairs[3] = 0x21;
			pairs[4] = 1;
			put_le16(pairs + 5, (uint16_t)lcn);
			pairs[7] = 0x02;
			put_le16(pairs + 8, (uint16_t)(get_le64(attr + 24) - lcn));
			put_le32(p + 24, get_le32(p + 24) + len - get_le32(attr + 4));
			put_le32(attr + 4, len);
			put_le32(attr + len, 0xffffffff);
		}
		put_block(off, p, sizeof p);
		flip_bit(bitmap_offset(), lcn);
		a = audit();
		expect(a, bad, 1);
		expect(a, used_unclaimed, 0);
		check(prep_fs_audit_records_sound(&a), "passed for unsound");
		prep_fs_audit_clear(&a);
	}
	end();
}

/* ---- Records ---- */

static void test_records(void)
{
	struct prep_fs_audit a;
	uint64_t record, off;
	uint8_t p[1024], *attr;

	begin("a record in use but marked free");
	record = record_of("/dir/one.txt");
	flip_bit(stream_offset(PREP_NTFS_MFT, PREP_NTFS_ATTR_BITMAP, "", 0), record);
	a = audit();
	expect(a, record_bitmap, 1);
	expect(a, records_unmarked, 1);
	expect(a, claimed_free, 0);
	check(!prep_fs_audit_clusters_sound(&a), "passed for sound");
	check(noted(&a, "marked free in $MFT's bitmap (/dir/one.txt)"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("a file whose record was freed");
	record = record_of("/dir/one.txt");
	off = record_offset(record);
	get_block(off, p, sizeof p, "FILE");
	put_le16(p + 22, 0);
	put_block(off, p, sizeof p);
	a = audit();
	expect(a, record_bitmap, 1);
	expect(a, records_unmarked, 0);
	expect(a, dangling, 1);
	expect(a, used_unclaimed, 5);
	check(prep_fs_audit_clusters_sound(&a) && !prep_fs_audit_records_sound(&a), "wrong judgement");
	check(noted(&a, "its index entry /dir/one.txt leads to record"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("a torn record");
	record = record_of("/dir/one.txt");
	flip_bit(record_offset(record) + 510, 0);
	a = audit();
	expect(a, unreadable, 1);
	expect(a, dangling, 1);
	check(!prep_fs_audit_clusters_sound(&a), "passed for sound");
	check(noted(&a, "torn"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("a size greater than the allocation");
	record = record_of("/dir/one.txt");
	off = record_offset(record);
	get_block(off, p, sizeof p, "FILE");
	attr = p + attr_offset(p, PREP_NTFS_ATTR_DATA, 0);
	put_le64(attr + 48, 5 * CLUSTER + 1);
	put_block(off, p, sizeof p);
	a = audit();
	expect(a, unreadable, 1);
	check(noted(&a, "greater than its allocation"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("mapping pairs that are cut short");
	record = record_of("/dir/one.txt");
	off = record_offset(record);
	get_block(off, p, sizeof p, "FILE");
	attr = p + attr_offset(p, PREP_NTFS_ATTR_DATA, 0);
	attr[get_le16(attr + 32)] = 0;
	put_block(off, p, sizeof p);
	a = audit();
	expect(a, unreadable, 1);
	expect(a, used_unclaimed, 5);
	prep_fs_audit_clear(&a);
	end();

	/* libntfs-3g would write the value, or the name's or the pairs' place, over what is there. */
	static const struct {
		const char *what;
		uint32_t type, at;
		uint8_t value[4];
		unsigned len;
	} misplaced[] = {
		{ "a value in its own header", PREP_NTFS_ATTR_STANDARD, 20, { 4, 0 }, 2 },
		{ "a name in its own header", PREP_NTFS_ATTR_STANDARD, 8, { 0, 1, 16, 0 }, 4 },
		{ "a value before its name", PREP_NTFS_ATTR_STANDARD, 8, { 0, 1, 40, 0 }, 4 },
		{ "mapping pairs before their name", PREP_NTFS_ATTR_DATA, 8, { 1, 1, 68, 0 }, 4 },
		{ "standard information that is not resident", PREP_NTFS_ATTR_STANDARD, 8, { 1 }, 1 },
	};
	for (size_t i = 0; i < sizeof misplaced / sizeof misplaced[0]; i++) {
		begin(misplaced[i].what);
		off = record_offset(record_of("/dir/one.txt"));
		get_block(off, p, sizeof p, "FILE");
		memcpy(p + attr_offset(p, misplaced[i].type, 0) + misplaced[i].at, misplaced[i].value, misplaced[i].len);
		put_block(off, p, sizeof p);
		a = audit();
		expect(a, unreadable, 1);
		check(!prep_fs_audit_clusters_sound(&a), "passed for sound");
		prep_fs_audit_clear(&a);
		end();
	}

	begin("an update sequence in a record's attributes");
	off = record_offset(record_of("/dir/one.txt"));
	read_at(off, p, sizeof p);
	memcpy(p + 400, p + get_le16(p + 4), 2 * (size_t)get_le16(p + 6));
	put_le16(p + 4, 400);
	write_at(off, p, sizeof p);
	a = audit();
	expect(a, unreadable, 1);
	check(!prep_fs_audit_clusters_sound(&a), "passed for sound");
	prep_fs_audit_clear(&a);
	end();

	begin("a wrong link count");
	off = record_offset(record_of("/dir/one.txt"));
	get_block(off, p, sizeof p, "FILE");
	put_le16(p + 18, 2);
	put_block(off, p, sizeof p);
	a = audit();
	expect(a, link_counts, 1);
	check(prep_fs_audit_clusters_sound(&a) && !prep_fs_audit_records_sound(&a), "wrong judgement");
	check(noted(&a, "its link count is 2, but it has 1 names (/dir/one.txt)"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("an attribute list that names its own file's first record for all");
	{
		const uint64_t list = stream_offset(record_of("/fragments.bin"), 0x20, "", 0);
		const uint64_t self = PREP_NTFS_REF(record_of("/fragments.bin"), 1);
		uint8_t e[1024];

		read_at(list, e, sizeof e);
		for (size_t at = 0; at + 26 <= sizeof e && get_le16(e + at + 4) >= 26; at += get_le16(e + at + 4))
			put_le64(e + at + 16, self);
		write_at(list, e, sizeof e);
	}
	alarm(10);
	a = audit();
	check(!prep_fs_audit_records_sound(&a), "sound");
	prep_fs_audit_clear(&a);
	alarm(0);
	end();

	begin("an extension record that nobody names");
	{
		/* The first one of /fragments.bin: its list's first entry for another record. */
		struct prep_err err = PREP_ERR_INIT;
		struct prep_fs *fs;
		struct prep_ntfs_mft m;
		struct prep_ntfs_file f;

		record = record_of("/fragments.bin");
		fs = open_fs(0);
		check(prep_ntfs_mft_open(&m, (struct prep_ntfs *)fs, &err) == 0 &&
			      prep_ntfs_file_load(&m, record, &f, &err) == 0, "%s", err.msg);
		check(f.n > 2, "only %zu records", f.n);
		record = f.record[1].number;
		prep_ntfs_file_clear(&f);
		prep_ntfs_mft_close(&m);
		close_fs(fs);
	}
	off = record_offset(record);
	get_block(off, p, sizeof p, "FILE");
	put_le64(p + 32, PREP_NTFS_REF(record_of("/dir/one.txt"), 1));
	put_block(off, p, sizeof p);
	a = audit();
	check(a.unreadable == 1 && noted(&a, "which is no extension of it"), "unreadable is %llu",
	      (unsigned long long)a.unreadable);
	check(a.orphans > 1, "orphans is %llu", (unsigned long long)a.orphans);
	expect(a, used_unclaimed, 0);
	expect(a, claimed_free, 0);
	prep_fs_audit_clear(&a);
	end();
}

/* ---- Names ---- */

/* The first index block of /big. */
static uint64_t index_offset(void)
{
	return stream_offset(record_of("/big"), PREP_NTFS_ATTR_INDEX, "$I30", 0);
}

/* Whatever comes of it, it ends. */
static void search(const char *pattern)
{
	struct prep_fs_list list = { .n = 0 };
	struct prep_err ignored = PREP_ERR_INIT;
	struct prep_fs *fs = open_fs(0);

	prep_fs_find(fs, pattern, true, &list, &ignored);
	prep_fs_list_clear(&list);
	close_fs(fs);
}

static void test_names(void)
{
	struct prep_fs_audit a;
	uint64_t off;
	uint8_t p[1024], block[4096], *attr, *header, *entry;
	uint32_t len;

	begin("a name that no folder holds");
	/* The only entry of /single is taken out of its index root. */
	off = record_offset(record_of("/single"));
	get_block(off, p, sizeof p, "FILE");
	attr = p + attr_offset(p, PREP_NTFS_ATTR_INDEX_ROOT, 0);
	header = attr + get_le16(attr + 20) + 16;
	entry = header + get_le32(header);
	len = get_le16(entry + 8);
	memmove(entry, entry + len, get_le32(header + 4) - get_le32(header) - len);
	put_le32(header + 4, get_le32(header + 4) - len);
	put_block(off, p, sizeof p);
	a = audit();
	expect(a, orphans, 1);
	expect(a, dangling, 0);
	check(prep_fs_audit_clusters_sound(&a) && !prep_fs_audit_records_sound(&a), "wrong judgement");
	check(noted(&a, "stands in no folder (/single/only.txt)"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("an entry with a stale sequence number");
	off = index_offset();
	get_block(off, block, sizeof block, "INDX");
	entry = block + 24 + get_le32(block + 24);
	entry[6]++;
	put_block(off, block, sizeof block);
	a = audit();
	expect(a, orphans, 1);
	expect(a, dangling, 1);
	check(noted(&a, "its index entry /big/file-number-"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("an entry that leads beyond the MFT");
	off = index_offset();
	get_block(off, block, sizeof block, "INDX");
	put_le32(block + 24 + get_le32(block + 24), 0x00ffffff);
	put_block(off, block, sizeof block);
	a = audit();
	expect(a, orphans, 1);
	expect(a, dangling, 1);
	prep_fs_audit_clear(&a);
	end();

	begin("a torn index block");
	flip_bit(index_offset() + 1022, 3);
	a = audit();
	check(a.unreadable >= 1 && a.orphans >= 10, "unreadable %llu, orphans %llu", (unsigned long long)a.unreadable,
	      (unsigned long long)a.orphans);
	check(noted(&a, "an index block is torn (/big)"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("an update sequence in an index block's entries");
	off = index_offset();
	read_at(off, block, sizeof block);
	memcpy(block + 400, block + get_le16(block + 4), 2 * (size_t)get_le16(block + 6));
	put_le16(block + 4, 400);
	write_at(off, block, sizeof block);
	a = audit();
	check(noted(&a, "the header of an index block is damaged (/big)"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("an index block out of order");
	off = index_offset();
	get_block(off, block, sizeof block, "INDX");
	entry = block + 24 + get_le32(block + 24);
	entry[16 + 66] = 'z';
	put_block(off, block, sizeof block);
	a = audit();
	expect(a, unreadable, 1);
	expect(a, orphans, 1);
	expect(a, dangling, 1);
	check(noted(&a, "out of order (/big)"), "not noted");
	prep_fs_audit_clear(&a);
	end();

	begin("an index block that is its own child");
	off = index_offset();
	get_block(off, block, sizeof block, "INDX");
	header = block + 24;
	for (entry = header + get_le32(header); !(get_le16(entry + 12) & 2);)
		entry += get_le16(entry + 8);
	/* The last entry, longer by the child's number: its own. */
	put_le16(entry + 8, 24);
	put_le16(entry + 12, 3);
	memcpy(entry + 16, block + 16, 8);
	put_le32(header + 4, get_le32(header + 4) + 8);
	header[12] |= 1;
	put_block(off, block, sizeof block);
	alarm(10);
	a = audit();
	check(a.unreadable > 0 || a.dangling > 0 || a.orphans > 0, "nothing was found wrong");
	check(!prep_fs_audit_records_sound(&a), "sound");
	prep_fs_audit_clear(&a);
	search("/big/*");
	search("/big/file-number-0599.dat");
	alarm(0);
	end();

	begin("an index block that its bitmap calls free");
	{
		uint64_t record = record_of("/big");

		off = record_offset(record);
		get_block(off, p, sizeof p, "FILE");
		attr = p + attr_offset(p, PREP_NTFS_ATTR_BITMAP, 0);
		attr[get_le16(attr + 20)] &= 0xfe;
		put_block(off, p, sizeof p);
	}
	a = audit();
	check(noted(&a, "an index entry leads to a free block (/big)"), "not noted");
	check(a.orphans >= 10, "orphans is %llu", (unsigned long long)a.orphans);
	prep_fs_audit_clear(&a);
	end();

	begin("a DOS name that is gone");
	/* A character of the 8.3 name in the record alone. */
	off = record_offset(record_of("/Long File Name Here.txt"));
	get_block(off, p, sizeof p, "FILE");
	for (unsigned i = 0; i < 2; i++) {
		attr = p + attr_offset(p, PREP_NTFS_ATTR_NAME, i);
		entry = attr + get_le16(attr + 20);
		if (entry[65] == PREP_NTFS_DOS)
			entry[66] = 'Q';
	}
	put_block(off, p, sizeof p);
	a = audit();
	expect(a, orphans, 1);
	expect(a, dangling, 1);
	check(noted(&a, "/LONGFI~1.TXT leads to"), "not noted");
	prep_fs_audit_clear(&a);
	end();
}

/* ---- Anything ---- */

static uint32_t random_state = 1;

static uint32_t random_number(void)
{
	random_state = random_state * 1103515245 + 12345;
	return random_state >> 8;
}

static int ignore_stream(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	uint64_t *sum = arg;

	(void)err;
	*sum += s->size + strlen(s->path) + strlen(s->name);
	return 0;
}

/* Bytes changed at random in records and index blocks: any answer will do, but an answer. */
static void test_noise(void)
{
	uint64_t mft, index, sum = 0;
	unsigned opened = 0;

	begin("bytes at random");
	mft = record_offset(0);
	index = index_offset();
	for (int round = 0; round < 300; round++) {
		struct prep_err err = PREP_ERR_INIT, damage = PREP_ERR_INIT;
		struct prep_fs_list list = { .n = 0 };
		struct prep_fs_audit a;
		struct prep_fs *fs;

		prep_disk_close(disk);
		if (prep_overlay_open(base, work, &disk, &err) < 0)
			exit(1);
		for (int i = 0; i < 20; i++) {
			const bool in_index = random_number() % 4 == 0;
			const uint64_t off = in_index ? index : mft + 1024 * (random_number() % 100);
			const size_t size = in_index ? 4096 : 1024;
			uint8_t p[4096];

			read_at(off, p, size);
			if (!prep_ntfs_fixup(p, size, in_index ? "INDX" : "FILE"))
				continue;
			p[random_number() % (random_number() % 2 ? 300 : size)] = (uint8_t)random_number();
			if (get_le16(p + 4) < 500)
				put_block(off, p, size);
		}
		if (prep_fs_open(disk, 0, &fs, &err) < 0)
			continue;
		opened++;
		if (prep_fs_audit(fs, &a, NULL, &err) == 0)
			prep_fs_audit_clear(&a);
		prep_fs_walk(fs, PREP_FS_WALK_PATHS, ignore_stream, &sum, &damage);
		damage.code = PREP_DONE;
		prep_fs_find(fs, "/*", true, &list, &damage);
		prep_fs_list_clear(&list);
		damage.code = PREP_DONE;
		prep_fs_find(fs, "/*/*/*e*", false, &list, &damage);
		prep_fs_list_clear(&list);
		prep_fs_close(fs, &damage);
	}
	check(opened > 0, "no volume could be opened");
	end();
}

int main(int argc, char **argv)
{
	(void)argc;
	test_pairs();
	if (make_volume(argv[0]) == NULL)
		return any_failed;
	test_sound();
	test_sizes();
	test_samples();
	test_bitmap();
	test_claims();
	test_records();
	test_names();
	test_noise();
	return any_failed;
}
