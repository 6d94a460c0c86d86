/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * NTFS: opening and what forbids it, finding, walking. Audit and removal have tests of their own.
 */
#include "tests/unit/ntfs_fixture.h"

#define FRAGMENTS 3000 /* of /fragments.bin */

/* ---- Opening ---- */

/* Open for writing must be refused, in words that include each text. */
static void expect_refusal(unsigned flags, unsigned obstacles, const char *text, const char *advice)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs *fs;

	fs = open_fs(0);
	check(prep_fs_info(fs)->obstacles == obstacles, "obstacles %x: %s", prep_fs_info(fs)->obstacles,
	      prep_fs_info(fs)->obstacle_text);
	close_fs(fs);
	check(prep_fs_open(disk, flags, &fs, &err) < 0, "opened for writing");
	check(err.code == PREP_EREFUSED && strncmp(err.msg, "volume: ", 8) == 0 && strstr(err.msg, text) != NULL &&
		      strstr(err.msg, advice) != NULL,
	      "code %d '%s'", err.code, err.msg);
}

static void test_info(void)
{
	const struct prep_fs_info *info;
	struct prep_fs *fs;

	begin("what a volume tells of itself");
	fs = open_fs(0);
	info = prep_fs_info(fs);
	check(info->kind == PREP_FS_NTFS && strcmp(info->version, "3.1") == 0 && strcmp(info->label, "Fixture") == 0,
	      "version %s, label %s", info->version, info->label);
	check(info->cluster_size == CLUSTER && info->clusters == VOLUME_SIZE / CLUSTER - 1, "%llu clusters",
	      (unsigned long long)info->clusters);
	check(info->obstacles == 0 && info->obstacle_text[0] == '\0', "%s", info->obstacle_text);
	close_fs(fs);
	fs = open_fs(PREP_FS_WRITE);
	close_fs(fs);
	end();
}

static void expect_unopened(const char *text)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs *fs;

	check(prep_fs_open(disk, 0, &fs, &err) < 0, "opened");
	check(err.code == PREP_EDAMAGED && strstr(err.msg, text) != NULL, "code %d '%s'", err.code, err.msg);
}

static void test_boot(void)
{
	static const struct {
		const char *name;
		size_t off, len;
		uint64_t value;
		const char *text;
	} damage[] = {
		{ "a boot sector with sectors of 8192 bytes", 11, 2, 8192, "sector size" },
		{ "a boot sector with sectors of 0 bytes", 11, 2, 0, "sector size" },
		{ "a boot sector with clusters of 3 sectors", 13, 1, 3, "cluster size" },
		{ "a boot sector with clusters of 32 MiB", 13, 1, 240, "cluster size" },
		{ "a boot sector with clusters of 0 sectors", 13, 1, 0, "cluster size" },
		{ "a boot sector with too many sectors", 0x28, 8, VOLUME_SIZE / 512 + 1, "more than the partition holds" },
		{ "a boot sector with no sectors", 0x28, 8, 0, "more than the partition holds" },
		{ "$MFT outside the volume", 0x30, 8, VOLUME_SIZE / CLUSTER, "$MFT" },
		{ "$MFTMirr outside the volume", 0x38, 8, 1ULL << 63, "$MFTMirr" },
		{ "file records of 128 bytes", 0x40, 1, 0xf9, "file records" },
		{ "file records of 2^100 bytes", 0x40, 1, 0x9c, "file records" },
		{ "index blocks of 3 clusters", 0x44, 1, 3, "index blocks" },
	};
	uint8_t v[8];

	for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
		begin(damage[i].name);
		put_le64(v, damage[i].value);
		write_at(damage[i].off, v, damage[i].len);
		expect_unopened(damage[i].text);
		end();
	}

	begin("$MFTMirr that differs");
	flip_bit(stream_offset(1, PREP_NTFS_ATTR_DATA, "", 1024 + 300), 0);
	expect_unopened("$MFTMirr differ");
	end();

	begin("a volume of zeros after the boot sector");
	for (uint64_t off = 8192; off < VOLUME_SIZE; off += sizeof v * 512) {
		static const uint8_t zeros[sizeof v * 512];

		write_at(off, zeros, sizeof zeros);
	}
	expect_unopened("too damaged");
	end();
}

/* A restart page for $LogFile: Windows XP and later keep the log open, and set a flag when it is clean. */
static void put_restart(uint64_t at, uint16_t major, uint16_t minor, uint64_t lsn, bool clean)
{
	uint8_t p[4096] = "RSTR";

	put_le16(p + 4, 30);
	put_le16(p + 6, 9);
	put_le32(p + 16, 4096);
	put_le32(p + 20, 4096);
	put_le16(p + 24, 48);
	put_le16(p + 26, minor);
	put_le16(p + 28, major);
	put_le16(p + 30, 1);
	put_le64(p + 48, lsn);
	put_le16(p + 48 + 8, 1);
	put_le16(p + 48 + 10, 0xffff);
	put_le16(p + 48 + 14, clean ? 2 : 0);
	put_le32(p + 48 + 16, 64 - 16);
	put_le16(p + 48 + 20, 224);
	put_le16(p + 48 + 22, 64);
	put_le64(p + 48 + 24, 0);
	put_block(at, p, sizeof p);
}

static void test_obstacles(void)
{
	uint8_t p[1024], *attr;
	uint64_t off, mirror;
	struct prep_fs *fs;

	begin("a dirty volume");
	off = record_offset(PREP_NTFS_VOLUME);
	get_block(off, p, sizeof p, "FILE");
	attr = p + attr_offset(p, 0x70, 0);
	attr[get_le16(attr + 20) + 10] |= 1;
	/* $MFTMirr has a copy of the record. */
	mirror = stream_offset(1, PREP_NTFS_ATTR_DATA, "", 3 * sizeof p);
	put_block(off, p, sizeof p);
	read_at(off, p, sizeof p);
	write_at(mirror, p, sizeof p);
	expect_refusal(PREP_FS_WRITE, PREP_FS_DIRTY, "the volume is dirty", "run chkdsk");
	end();

	begin("a clean log of Windows");
	off = stream_offset(PREP_NTFS_LOGFILE, PREP_NTFS_ATTR_DATA, "", 0);
	put_restart(off, 1, 1, 1000, true);
	put_restart(off + 4096, 1, 1, 900, false);
	fs = open_fs(0);
	check(prep_fs_info(fs)->obstacles == 0, "%s", prep_fs_info(fs)->obstacle_text);
	close_fs(fs);
	end();

	begin("a log that is not clean");
	put_restart(off, 1, 1, 1000, true);
	put_restart(off + 4096, 1, 1, 1001, false);
	expect_refusal(PREP_FS_WRITE, PREP_FS_UNCLEAN_LOG, "$LogFile is not clean", "start Windows");
	end();

	begin("a log with one torn restart page");
	put_restart(off, 1, 1, 1000, true);
	put_restart(off + 4096, 1, 1, 1001, false);
	flip_bit(off + 510, 0);
	expect_refusal(PREP_FS_WRITE, PREP_FS_UNCLEAN_LOG, "$LogFile is not clean", "start Windows");
	end();

	begin("a log of zeros");
	for (unsigned i = 0; i < 256; i++)
		write_at(off + 4096 * i, (uint8_t[4096]){ 0 }, 4096);
	expect_refusal(PREP_FS_WRITE, PREP_FS_UNCLEAN_LOG, "no restart page", "chkdsk");
	end();

	begin("fast start-up");
	put_restart(off, 2, 0, 1000, true);
	put_restart(off + 4096, 2, 0, 999, true);
	expect_refusal(PREP_FS_WRITE, PREP_FS_FAST_STARTUP, "version 2.0", "powercfg /h off");
	end();
}

static bool populate(const char *lines)
{
	char path[PATH_MAX + 64];
	FILE *f;

	/* A volume of its own, which other tests do not see. */
	snprintf(path, sizeof path, "%s/manifest", work);
	f = fopen(path, "w");
	if (f == NULL)
		return false;
	fputs(lines, f);
	fclose(f);
	return run("cp --sparse=always '%s' '%s/other' && '%s' '%s/other' <'%s/manifest'", volume_path, work, populate_path,
		   work, work);
}

/* Run a test on a copy of the volume, changed by more lines of a manifest. */
static bool begin_with(const char *name, const char *lines)
{
	struct prep_err err = PREP_ERR_INIT;
	char path[PATH_MAX + 16];
	int fd;

	test = name;
	failed = false;
	snprintf(path, sizeof path, "%s/other", work);
	check(populate(lines), "ntfs-populate failed");
	fd = open(path, O_RDWR | O_CLOEXEC);
	check(fd >= 0 && prep_raw_open(fd, "volume", VOLUME_SIZE, &disk, &err) == 0, "%s", err.msg);
	return !failed;
}

static void test_hibernation(void)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs_list list = { .n = 0 };
	struct prep_fs *fs;

	if (begin_with("a hibernated session", "gen /HiberFil.sys hibr 100000 1\n")) {
		expect_refusal(PREP_FS_WRITE, PREP_FS_HIBERNATED, "hiberfil.sys holds a suspended session", "start Windows");
		fs = open_fs(PREP_FS_WRITE | PREP_FS_DISCARD_HIBERNATION);
		check(prep_fs_find(fs, "/hiberfil.sys", false, &list, &err) == 0 && list.n == 1 &&
			      prep_fs_remove(fs, &list.entry[0], &err) == 0, "%s", err.msg);
		prep_fs_list_clear(&list);
		close_fs(fs);
		fs = open_fs(PREP_FS_WRITE);
		close_fs(fs);
	}
	end();

	if (begin_with("a session that was resumed", "gen /hiberfil.sys hiber 100000 1\n")) {
		fs = open_fs(PREP_FS_WRITE);
		check(prep_fs_info(fs)->obstacles == 0, "%s", prep_fs_info(fs)->obstacle_text);
		close_fs(fs);
	}
	end();

	if (begin_with("hibernated and dirty", "gen /hiberfil.sys hibr 100000 1\ndirty\n"))
		expect_refusal(PREP_FS_WRITE | PREP_FS_DISCARD_HIBERNATION, PREP_FS_HIBERNATED | PREP_FS_DIRTY,
			       "the volume is dirty", "chkdsk");
	end();

	if (begin_with("a short hiberfil.sys", "gen /hiberfil.sys text 100 1\n"))
		expect_refusal(PREP_FS_WRITE, PREP_FS_HIBERNATED, "only 100 bytes", "start Windows");
	end();
}

static void test_snapshots(void)
{
	static const uint8_t id[16] = {
		0x6b, 0x87, 0x08, 0x38, 0x76, 0xc1, 0x48, 0x4e, 0xb7, 0xae, 0x04, 0x04, 0x6e, 0x6c, 0xc7, 0x52,
	};
	uint8_t header[512] = { 0 }, block[16384] = { 0 };
	const uint64_t catalog = 40 * PREP_MIB;
	struct prep_fs *fs;

	memcpy(header, id, 16);
	put_le32(header + 16, 1);
	put_le32(header + 20, 1);
	put_le64(header + 24, 0x1e00);

	begin("shadow copies enabled, none stands");
	write_at(0x1e00, header, sizeof header);
	fs = open_fs(PREP_FS_WRITE);
	check(prep_fs_info(fs)->obstacles == 0, "%s", prep_fs_info(fs)->obstacle_text);
	close_fs(fs);
	end();

	memcpy(block, id, 16);
	put_le32(block + 16, 1);
	put_le32(block + 20, 2);
	put_le64(block + 32, catalog);
	put_le64(header + 48, catalog);

	begin("a catalog of no shadow copies");
	write_at(0x1e00, header, sizeof header);
	put_le64(block + 128, 1);
	write_at(catalog, block, sizeof block);
	fs = open_fs(PREP_FS_WRITE);
	check(prep_fs_info(fs)->obstacles == 0, "%s", prep_fs_info(fs)->obstacle_text);
	close_fs(fs);
	end();

	begin("two shadow copies");
	write_at(0x1e00, header, sizeof header);
	put_le64(block + 128, 2);
	put_le64(block + 256, 3);
	put_le64(block + 40, catalog + 16384);
	write_at(catalog, block, sizeof block);
	put_le64(block + 40, 0);
	write_at(catalog + 16384, block, sizeof block);
	expect_refusal(PREP_FS_WRITE, PREP_FS_SNAPSHOTS, "2 shadow copies stand", "vssadmin");
	end();

	begin("a catalog that cannot be read");
	write_at(0x1e00, header, sizeof header);
	expect_refusal(PREP_FS_WRITE, PREP_FS_SNAPSHOTS, "cannot be read", "vssadmin");
	end();

	begin("a catalog that runs in a circle");
	put_le64(block + 40, catalog);
	put_le64(block + 128, 1);
	write_at(0x1e00, header, sizeof header);
	write_at(catalog, block, sizeof block);
	expect_refusal(PREP_FS_WRITE, PREP_FS_SNAPSHOTS, "cannot be read", "vssadmin");
	end();
}

/* ---- Finding ---- */

static void test_find(void)
{
	/* What each pattern finds, in order, joined by commas. */
	static const struct {
		const char *pattern;
		bool recursive;
		const char *found;
	} cases[] = {
		{ "/dir/one.txt", false, "/dir/one.txt" },
		{ "\\DIR\\One.TXT", false, "/dir/one.txt" },
		{ "//dir///one.txt/", false, "/dir/one.txt" },
		{ "/dir/*", false, "/dir/hard.txt,/dir/one.txt,/dir/two.txt" },
		{ "/d?r/?wo.*", false, "/dir/two.txt" },
		{ "/*/o*.txt", false, "/dir/one.txt,/single/only.txt" },
		{ "/dir", true, "/dir/hard.txt,/dir/one.txt,/dir/two.txt,/dir" },
		{ "/tree", true, "/tree/a/b/c/deep.txt,/tree/a/b/c,/tree/a/b/deep.txt,/tree/a/b,/tree/a/other.txt,/tree/a,/tree" },
		{ "/tree/*/*/*.txt", false, "/tree/a/b/deep.txt" },
		{ "/LONGFI~1.TXT", false, "/Long File Name Here.txt" },
		{ "/progra~1/app/*", false, "/Program Files/app/x.exe" },
		{ "/long*", false, "/Long File Name Here.txt" },
		{ "/ünïcode/äöü.TXT", false, "/Ünïcode/ÄÖÜ.txt" },
		{ "/junction", true, "/junction" },
		{ "/junction/*", false, "" },
		{ "/nothing", true, "" },
		{ "/small.txt/x", false, "" },
		{ "/*.sys", false, "" },
		{ "/s*l*.t*t", false, "/small.txt" },
		{ "/$mftm?rr", false, "/$MFTMirr" },
		{ "/[dir]", false, "" },
	};
	static const char *const bad[] = { "", "dir", "/", "\\", "/dir/..", "/./dir", "/\xff" };
	char got[4096], name[128];

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct prep_fs_list list;

		snprintf(name, sizeof name, "finding %s%s", cases[i].pattern, cases[i].recursive ? " and below" : "");
		begin(name);
		list = find(cases[i].pattern, cases[i].recursive);
		got[0] = '\0';
		for (size_t j = 0; j < list.n; j++)
			snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", j > 0 ? "," : "", list.entry[j].path);
		check(strcmp(got, cases[i].found) == 0, "found '%s'", got);
		prep_fs_list_clear(&list);
		end();
	}

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct prep_err err = PREP_ERR_INIT;
		struct prep_fs_list list = { .n = 0 };
		struct prep_fs *fs;

		snprintf(name, sizeof name, "bad pattern %zu", i);
		begin(name);
		fs = open_fs(0);
		check(prep_fs_find(fs, bad[i], false, &list, &err) < 0 && err.code == PREP_EUSAGE, "code %d %s", err.code,
		      err.msg);
		close_fs(fs);
		end();
	}
}

static void test_find_details(void)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs_list list = { .n = 0 };
	const struct prep_fs_entry *e;
	struct prep_fs *fs;

	begin("sizes of a file and its streams");
	list = find("/fragments.bin", false);
	check(list.n == 1 && list.entry[0].size == FRAGMENTS * CLUSTER && list.entry[0].allocated >= FRAGMENTS * CLUSTER &&
		      list.entry[0].frees && !list.entry[0].folder && !list.entry[0].system,
	      "size %llu, allocated %llu", (unsigned long long)list.entry[0].size,
	      (unsigned long long)list.entry[0].allocated);
	prep_fs_list_clear(&list);
	list = find("/sparse.bin", false);
	check(list.n == 1 && list.entry[0].size == 1000000 && list.entry[0].allocated < 200000, "sparse: allocated %llu",
	      (unsigned long long)list.entry[0].allocated);
	prep_fs_list_clear(&list);
	list = find("/small.txt", false);
	check(list.n == 1 && list.entry[0].size == 100 && list.entry[0].allocated == 0, "small");
	prep_fs_list_clear(&list);
	end();

	begin("hard links free their clusters once");
	fs = open_fs(0);
	check(prep_fs_find(fs, "/dir/hard.txt", false, &list, &err) == 0 && list.n == 1, "%s", err.msg);
	check(!list.entry[0].frees && list.entry[0].allocated == 0, "the first link frees");
	check(prep_fs_find(fs, "/noise.bin", false, &list, &err) == 0 && list.n == 2, "%s", err.msg);
	e = &list.entry[1];
	check(e->frees && e->allocated == 25 * CLUSTER + 8 * CLUSTER && e->size == 100000, "allocated %llu",
	      (unsigned long long)e->allocated);
	check(prep_fs_find(fs, "/noise.*", false, &list, &err) == 0 && list.n == 2, "found again");
	close_fs(fs);
	prep_fs_list_clear(&list);
	end();

	begin("system files are marked");
	list = find("/$Extend", true);
	check(list.n >= 4, "%zu found", list.n);
	for (size_t i = 0; i < list.n; i++)
		check(list.entry[i].system, "%s is not marked", list.entry[i].path);
	prep_fs_list_clear(&list);
	list = find("/*", false);
	for (size_t i = 0; i < list.n; i++)
		check(list.entry[i].system == (list.entry[i].path[1] == '$'), "%s", list.entry[i].path);
	prep_fs_list_clear(&list);
	end();

	begin("a folder of many files");
	list = find("/big", true);
	check(list.n == BIG_FILES + 1 && strcmp(list.entry[BIG_FILES].path, "/big") == 0, "%zu found", list.n);
	for (size_t i = 1; i < BIG_FILES && i < list.n; i++)
		check(strcmp(list.entry[i - 1].path, list.entry[i].path) < 0, "out of order at %zu", i);
	prep_fs_list_clear(&list);
	end();

	begin("a circle of folders");
	{
		/* The only entry of /single is made to lead to the root's folder /tree, and /tree/a to /single. */
		const uint64_t from[] = { record_of("/single"), record_of("/tree") };
		const uint64_t to[] = { look_up("/tree").id, look_up("/single").id };

		for (unsigned i = 0; i < 2; i++) {
			const uint64_t off = record_offset(from[i]);
			uint8_t p[1024], *attr, *header;

			get_block(off, p, sizeof p, "FILE");
			attr = p + attr_offset(p, PREP_NTFS_ATTR_INDEX_ROOT, 0);
			header = attr + get_le16(attr + 20) + 16;
			put_le64(header + get_le32(header), to[i]);
			put_block(off, p, sizeof p);
		}
	}
	list = find("/single", true);
	check(list.n == 2, "%zu found", list.n);
	prep_fs_list_clear(&list);
	list = find("/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*/*", true);
	prep_fs_list_clear(&list);
	end();
}

/* ---- Walking ---- */

struct walk {
	struct prep_ntfs *n;
	uint64_t last, data, all, fragments;
	bool seen_stream, seen_hole, seen_journal, seen_compressed;
};

/* Set what the runs hold against what libntfs-3g reads. */
static void compare_data(struct walk *w, const struct prep_fs_stream *s)
{
	uint8_t ours[CLUSTER], theirs[CLUSTER];
	ntfs_inode *ni = ntfs_inode_open(w->n->vol, s->id);
	ntfschar name[32];
	ntfs_attr *na;
	size_t len = strlen(s->name);

	for (size_t i = 0; i < len; i++)
		name[i] = (ntfschar)htole16((unsigned char)s->name[i]);
	na = ni != NULL ? ntfs_attr_open(ni, AT_DATA, len > 0 ? name : AT_UNNAMED, (u32)len) : NULL;
	check(na != NULL, "%s:%s: libntfs-3g cannot open it", s->path, s->name);
	for (size_t i = 0; na != NULL && i < s->runs; i++) {
		for (uint64_t at = 0; at < s->run[i].len; at += CLUSTER) {
			const uint64_t off = s->run[i].at + at;
			const uint64_t n = off < s->size ? prep_min(CLUSTER, s->size - off) : 0;

			if (s->run[i].off == PREP_FS_HOLE)
				memset(ours, 0, sizeof ours);
			else
				read_at(s->run[i].off + at, ours, sizeof ours);
			/* Between the initialized size and the size all is zero, whatever the clusters hold. */
			if (off + CLUSTER > s->initialized)
				memset(ours + (off < s->initialized ? s->initialized - off : 0), 0,
				       (size_t)(CLUSTER - (off < s->initialized ? s->initialized - off : 0)));
			check((uint64_t)ntfs_attr_pread(na, (s64)off, (s64)n, theirs) == n && memcmp(ours, theirs, (size_t)n) == 0,
			      "%s:%s: differs at %llu", s->path, s->name, (unsigned long long)off);
		}
	}
	if (na != NULL)
		ntfs_attr_close(na);
	if (ni != NULL)
		ntfs_inode_close(ni);
}

static int visit(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	struct walk *w = arg;
	uint64_t at = 0;

	(void)err;
	check(s->id >= w->last, "record %llu after %llu", (unsigned long long)s->id, (unsigned long long)w->last);
	w->last = s->id;
	w->all++;
	w->data += s->data;
	for (size_t i = 0; i < s->runs; i++) {
		check(s->run[i].at == at && s->run[i].len > 0, "%s: a gap at %llu", s->path, (unsigned long long)at);
		at += s->run[i].len;
		w->seen_hole |= s->run[i].off == PREP_FS_HOLE && strcmp(s->path, "/sparse.bin") == 0 && s->sparse;
	}
	check(at == s->allocated && s->size <= s->allocated && s->initialized <= s->size, "%s:%s: sizes", s->path, s->name);
	if (strcmp(s->path, "/fragments.bin") == 0)
		w->fragments = s->runs;
	w->seen_stream |= strcmp(s->name, "stream") == 0 && s->size == 30000 &&
			  (strcmp(s->path, "/noise.bin") == 0 || strcmp(s->path, "/dir/hard.txt") == 0);
	w->seen_journal |= strcmp(s->path, "/$Extend/$UsnJrnl") == 0 && strcmp(s->name, "$J") == 0 && s->system;
	w->seen_compressed |= strcmp(s->path, "/compressed.txt") == 0 && s->compressed;
	if (s->data && !s->compressed && s->id != PREP_NTFS_BADCLUS)
		compare_data(w, s);
	return 0;
}

static int stop(void *arg, const struct prep_fs_stream *s, struct prep_err *err)
{
	++*(unsigned *)arg;
	return prep_fail(err, PREP_EFAIL, "stopped at %llu", (unsigned long long)s->id);
}

static void test_walk(void)
{
	struct prep_err err = PREP_ERR_INIT;
	struct walk w = { .last = 0 };
	struct prep_fs *fs;
	unsigned calls = 0;

	begin("walking all streams, compared with libntfs-3g");
	fs = open_fs(0);
	w.n = (struct prep_ntfs *)fs;
	check(prep_fs_walk(fs, PREP_FS_WALK_PATHS, visit, &w, &err) == 0, "%s", err.msg);
	check(w.fragments == FRAGMENTS, "%llu fragments", (unsigned long long)w.fragments);
	check(w.seen_stream, "no alternate stream");
	check(w.seen_hole, "no hole");
	check(w.seen_journal, "no change journal");
	check(w.seen_compressed, "no compressed file");
	check(w.data < w.all, "only data");
	close_fs(fs);
	end();

	begin("walking data alone");
	fs = open_fs(0);
	calls = (unsigned)w.data;
	w = (struct walk){ .n = (struct prep_ntfs *)fs };
	check(prep_fs_walk(fs, PREP_FS_WALK_PATHS | PREP_FS_WALK_DATA, visit, &w, &err) == 0, "%s", err.msg);
	check(w.all == calls && w.data == calls, "%llu of %u", (unsigned long long)w.all, calls);
	calls = 0;
	check(prep_fs_walk(fs, 0, stop, &calls, &err) < 0 && calls == 1 && strcmp(err.msg, "stopped at 0") == 0, "%u calls: %s",
	      calls, err.msg);
	close_fs(fs);
	end();
}

int main(int argc, char **argv)
{
	(void)argc;
	if (make_volume(argv[0]) == NULL)
		return 0;
	test_info();
	test_boot();
	test_obstacles();
	test_hibernation();
	test_snapshots();
	test_find();
	test_find_details();
	test_walk();
	return any_failed;
}
