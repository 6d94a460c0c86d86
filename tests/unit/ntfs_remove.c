/* SPDX-License-Identifier: GPL-3.0-or-later */
/* NTFS: removing, judged by the audit and by other programs; what is never removed. */
#include "tests/unit/ntfs_fixture.h"

static void expect_removed(const char *pattern)
{
	struct prep_fs_list list = find(pattern, true);
	struct prep_fs_audit a = audit();

	check(list.n == 0, "%s is still there", pattern);
	check(prep_fs_audit_records_sound(&a) && a.used_unclaimed == 0 && a.problems.n == 0, "unsound after %s: %s", pattern,
	      a.problems.n > 0 ? a.problems.text[0] : "");
	prep_fs_audit_clear(&a);
	prep_fs_list_clear(&list);
}

/* Remove what the pattern finds; the clusters that the list announced must be free then. */
static void remove_all(const char *pattern, bool recursive)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs_list list = { .n = 0 };
	struct prep_fs_audit before = audit(), after;
	struct prep_fs *fs = open_fs(PREP_FS_WRITE);
	uint64_t clusters = 0;

	check(prep_fs_find(fs, pattern, recursive, &list, &err) == 0 && list.n > 0, "%s: %s", pattern, err.msg);
	for (size_t i = 0; i < list.n; i++) {
		clusters += list.entry[i].allocated / CLUSTER;
		check(prep_fs_remove(fs, &list.entry[i], &err) == 0, "%s: %s", list.entry[i].path, err.msg);
	}
	close_fs(fs);
	after = audit();
	check(after.free >= before.free + clusters, "%s: %llu clusters announced, %lld freed", pattern,
	      (unsigned long long)clusters, (long long)(after.free - before.free));
	prep_fs_audit_clear(&before);
	prep_fs_audit_clear(&after);
	prep_fs_list_clear(&list);
	expect_removed(pattern);
}

/* The judges of others, on what the overlay shows. */
static void ask_judges(void)
{
	uint8_t *p = malloc(PREP_MIB);
	char path[PATH_MAX + 16];
	FILE *f;

	snprintf(path, sizeof path, "%s/judged", work);
	f = fopen(path, "w");
	if (p == NULL || f == NULL)
		exit(1);
	for (uint64_t off = 0; off < VOLUME_SIZE; off += PREP_MIB) {
		read_at(off, p, PREP_MIB);
		check(fwrite(p, 1, PREP_MIB, f) == PREP_MIB, "%s: cannot be written", path);
	}
	check(fclose(f) == 0, "%s: cannot be written", path);
	free(p);
	check(run("ntfsresize -i -f -P '%s' >/dev/null 2>&1", path), "ntfsresize finds damage");
	check(run("ntfsclone -m -f -O '%s.clone' '%s' >/dev/null 2>&1", path, path), "ntfsclone finds damage");
	check(run("ntfsls -R -a -f '%s' >/dev/null 2>&1", path), "ntfsls finds damage");
	check(run("ntfsfix -n '%s' >/dev/null 2>&1", path), "ntfsfix finds damage");
	unlink(path);
}

static void test_remove(void)
{
	static const struct {
		const char *name, *pattern;
		bool recursive;
	} cases[] = {
		{ "removing a file", "/dir/one.txt", false },
		{ "removing a file of many extension records", "/fragments.bin", false },
		{ "removing a compressed file", "/compressed.txt", false },
		{ "removing a sparse file", "/sparse.bin", false },
		{ "removing a file with an 8.3 name", "/Long File Name Here.txt", false },
		{ "removing a folder with an 8.3 name", "/PROGRA~1", true },
		{ "removing a junction", "/junction", true },
		{ "removing a reparse point", "/wof.exe", false },
		{ "removing a tree", "/tree", true },
		{ "removing a folder of many files", "/big", true },
		{ "removing some of many files", "/big/*7*", false },
		{ "removing what has an umlaut", "/ünïcode", true },
		{ "removing a hard link", "/dir/hard.txt", false },
		{ "removing both names and the stream", "/*/hard.txt", false },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		begin(cases[i].name);
		remove_all(cases[i].pattern, cases[i].recursive);
		if (strstr(cases[i].name, "both") != NULL)
			remove_all("/noise.bin", false);
		ask_judges();
		end();
	}

	begin("removing everything");
	{
		static const char *const all[] = {
			"/big", "/compressed.txt", "/dir", "/fragments.bin", "/junction", "/long*", "/noise.bin", "/pro*", "/s*",
			"/tree", "/wof.exe", "/Ü*",
		};

		for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
			remove_all(all[i], true);
	}
	ask_judges();
	end();
}

static void expect_kept(struct prep_fs *fs, struct prep_fs_entry e, char *path, enum prep_code code, const char *text)
{
	struct prep_err err = PREP_ERR_INIT;

	e.path = path;
	check(prep_fs_remove(fs, &e, &err) < 0 && err.code == code && strstr(err.msg, text) != NULL, "%s: code %d '%s'", path,
	      err.code, err.msg);
}

static void test_guards(void)
{
	const uint64_t root = PREP_NTFS_REF(PREP_NTFS_ROOT, PREP_NTFS_ROOT);
	struct prep_fs_entry e;
	struct prep_overlay_change change;
	struct prep_err err = PREP_ERR_INIT;
	struct prep_fs *fs;
	char path[64];

	begin("what must not be removed");
	{
		const struct prep_fs_entry journal = look_up("/$Extend/$UsnJrnl"), dir = look_up("/dir");
		struct prep_fs_entry file = look_up("/dir/one.txt");

		fs = open_fs(PREP_FS_WRITE);
		e = (struct prep_fs_entry){ .id = PREP_NTFS_REF(3, 3), .parent_id = root };
		expect_kept(fs, e, strcpy(path, "/$Volume"), PREP_EREFUSED, "system file");
		e = (struct prep_fs_entry){ .id = root, .parent_id = root };
		expect_kept(fs, e, strcpy(path, "/."), PREP_EREFUSED, "system file");
		e = (struct prep_fs_entry){ .id = PREP_NTFS_REF(11, 11), .parent_id = root };
		expect_kept(fs, e, strcpy(path, "/$Extend"), PREP_EREFUSED, "system file");
		e = journal;
		e.system = false;
		expect_kept(fs, e, strcpy(path, "/$Extend/$UsnJrnl"), PREP_EREFUSED, "system file");
		e = dir;
		expect_kept(fs, e, strcpy(path, "/."), PREP_EREFUSED, "system file");
		expect_kept(fs, e, strcpy(path, "/.."), PREP_EREFUSED, "system file");
		expect_kept(fs, e, strcpy(path, "/dir"), PREP_EREFUSED, "not empty");
		expect_kept(fs, file, strcpy(path, "/dir/two.txt"), PREP_EFAIL, "not there");
		file.id += 1ULL << 48;
		expect_kept(fs, file, strcpy(path, "/dir/one.txt"), PREP_EDAMAGED, "not the file that is meant");
		prep_fs_close(fs, &err);
		fs = open_fs(0);
		expect_kept(fs, look_up("/dir/two.txt"), strcpy(path, "/dir/two.txt"), PREP_EREFUSED, "reading only");
		close_fs(fs);
	}
	check(prep_overlay_change(disk, 0, &change, &err) == 0, "something was written at %llu", (unsigned long long)change.off);
	end();

	begin("a write that fails");
	{
		/* The disk cannot be written, which libntfs-3g learns at the first write. */
		const struct prep_disk_ops *const ops = disk->ops;
		struct prep_disk_ops broken = *ops;

		e = look_up("/dir/one.txt");
		fs = open_fs(PREP_FS_WRITE);
		broken.write = NULL;
		disk->ops = &broken;
		expect_kept(fs, e, strcpy(path, "/dir/one.txt"), PREP_EREFUSED, "cannot be written");
		check(prep_fs_close(fs, &err) < 0, "closed as if nothing had failed");
		disk->ops = ops;
	}
	end();
}

int main(int argc, char **argv)
{
	(void)argc;
	if (make_volume(argv[0]) == NULL)
		return 0;
	test_remove();
	test_guards();
	return any_failed;
}
