/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Seeds: what folders, images and local indexes promise, what is kept between
 * runs, and that nothing is given out that is not what was promised.
 */
#include "libprep/trim/seed.h"

#include <errno.h>
#include <sys/stat.h>

#include "libprep/base/bytes.h"
#include "libprep/trim/client_settings.h"
#include "libprep/trim/local_index.h"
#include "tests/unit/check.h"

static struct prep_err err;

static void make_file(const char *name, size_t len, uint64_t seed)
{
	const int fd = check_create(name);
	unsigned char *p = malloc(len + 1);

	check_seed = seed;
	check_noise(p, len);
	check_write(fd, p, len, 0);
	free(p);
	close(fd);
}

/* A folder with something of everything. */
static const char *make_folder(const char *name)
{
	char path[64];

	mkdir(check_path(name), 0777);
	snprintf(path, sizeof path, "%s/sub", name);
	mkdir(check_path(path), 0777);
	snprintf(path, sizeof path, "%s/large", name);
	make_file(path, 300000, 1);
	snprintf(path, sizeof path, "%s/sub/small", name);
	make_file(path, 1000, 2);
	snprintf(path, sizeof path, "%s/empty", name);
	make_file(path, 0, 3);
	snprintf(path, sizeof path, "%s/pipe", name);
	mkfifo(check_path(path), 0666);
	snprintf(path, sizeof path, "%s/link", name);
	if (symlink("large", check_path(path)) != 0 || symlink("/", check_path("sub-link")) != 0)
		errno = 0;
	snprintf(path, sizeof path, "%s/out", name);
	if (symlink("..", check_path(path)) != 0)
		errno = 0;
	return check_path(name);
}

/* Read every chunk of a seed: how many are what the catalog says. */
static uint32_t count_good(const struct prep_seed *s)
{
	uint8_t *buf = malloc(PREP_CKM_CHUNK_MAX);
	struct prep_seed_reader r;
	uint32_t good = 0;

	if (prep_seed_reader_open(&r, &err) < 0)
		abort();
	for (uint32_t i = 0; i < s->catalog.chunks; i++)
		good += prep_seed_read(&r, s, i, buf, &err) == 1;
	prep_seed_reader_close(&r);
	free(buf);
	return good;
}

static void folder(void)
{
	const struct prep_seed_how how = { .jobs = 2 };
	struct prep_seed *s;

	CHECK_DONE(prep_seed_open(make_folder("folder"), &how, &s, NULL, &err));
	CHECK_EQ(s->catalog.origins, 1);
	CHECK_EQ(s->catalog.items, 2); /* the empty one has nothing to give */
	CHECK_STR(prep_item_path(&s->catalog, &s->catalog.item[0]), "large");
	CHECK_STR(prep_item_path(&s->catalog, &s->catalog.item[1]), "sub/small");
	CHECK_EQ(s->scan.files, 2);
	CHECK_EQ(s->scan.bytes, 301000);
	CHECK_EQ(s->scan.skipped, 3); /* the pipe and two links */
	CHECK_EQ(prep_catalog_bytes(&s->catalog, &s->catalog.origin[0]), 301000);
	CHECK(s->catalog.chunks > 2);
	CHECK_EQ(count_good(s), s->catalog.chunks);
	prep_seed_close(s);
}

static void changed_file(void)
{
	const struct prep_seed_how how = { .jobs = 1 };
	struct prep_seed *s;
	int fd;

	CHECK_DONE(prep_seed_open(make_folder("changed"), &how, &s, NULL, &err));
	/* a byte changes, one file is gone, and a link takes the place of nothing good */
	fd = open(check_path("changed/large"), O_RDWR);
	check_write(fd, "\0", 1, 0);
	close(fd);
	unlink(check_path("changed/sub/small"));
	CHECK(symlink("../large", check_path("changed/sub/small")) == 0);
	CHECK_EQ(count_good(s), s->catalog.chunks - 2);
	/* cut off */
	CHECK(truncate(check_path("changed/large"), 0) == 0);
	CHECK_EQ(count_good(s), 0);
	prep_seed_close(s);
}

static void cache(void)
{
	char *const folder = strdup(check_path("cache"));
	const struct prep_seed_how how = { .jobs = 2, .cache = folder };
	const char *path = make_folder("cached");
	char *kept, *whole = realpath(path, NULL);
	struct prep_seed *s;
	uint32_t chunks;
	int fd;

	mkdir(how.cache, 0777);
	CHECK_DONE(prep_seed_open(path, &how, &s, NULL, &err));
	CHECK_EQ(s->scan.hashed_files, 2);
	chunks = s->catalog.chunks;
	prep_seed_close(s);

	CHECK_DONE(prep_seed_open(path, &how, &s, NULL, &err));
	CHECK_EQ(s->scan.files, 2);
	CHECK_EQ(s->scan.hashed_files, 0);
	CHECK_EQ(s->catalog.chunks, chunks);
	CHECK_EQ(count_good(s), chunks);
	prep_seed_close(s);

	/* new, changed, and gone */
	make_file("cached/new", 5000, 7);
	make_file("cached/large", 300000, 8);
	unlink(check_path("cached/sub/small"));
	CHECK_DONE(prep_seed_open(path, &how, &s, NULL, &err));
	CHECK_EQ(s->scan.files, 2);
	CHECK_EQ(s->scan.hashed_files, 2);
	CHECK_EQ(count_good(s), s->catalog.chunks);
	prep_seed_close(s);

	/* a damaged one is told of, and made anew */
	CHECK_DONE(prep_seed_cache_path(how.cache, whole, &kept, &err));
	fd = open(kept, O_RDWR);
	CHECK(fd >= 0);
	check_write(fd, "\377", 1, 100);
	close(fd);
	CHECK_DONE(prep_seed_open(path, &how, &s, NULL, &err));
	CHECK_EQ(s->scan.hashed_files, 2);
	CHECK_EQ(s->catalog.notes.n, 1);
	prep_seed_close(s);
	CHECK_DONE(prep_seed_open(path, &how, &s, NULL, &err));
	CHECK_EQ(s->scan.hashed_files, 0);
	CHECK_EQ(s->catalog.notes.n, 0);
	prep_seed_close(s);
	free(kept);
	free(whole);
	free(folder);
}

static void image(void)
{
	const struct prep_seed_how how = { .jobs = 2, .cache = check_path("image-cache") };
	struct prep_seed *s;
	int fd;

	mkdir(how.cache, 0777);
	make_file("disk", 1 << 20, 5);
	CHECK(truncate(check_path("disk"), 64 << 20) == 0);
	CHECK_DONE(prep_seed_open(check_path("disk"), &how, &s, NULL, &err));
	CHECK_EQ(s->scan.hashed_files, 1);
	CHECK_EQ(prep_catalog_bytes(&s->catalog, &s->catalog.origin[0]), 1 << 20);
	CHECK_EQ(count_good(s), s->catalog.chunks);
	prep_seed_close(s);
	CHECK_DONE(prep_seed_open(check_path("disk"), &how, &s, NULL, &err));
	CHECK_EQ(s->scan.hashed_files, 0);
	CHECK_EQ(count_good(s), s->catalog.chunks);
	/* the stamp is looked at by the next, the bytes by this one */
	fd = open(check_path("disk"), O_RDWR);
	check_write(fd, "\0", 1, 70000);
	close(fd);
	CHECK_EQ(count_good(s), s->catalog.chunks - 1);
	prep_seed_close(s);
	CHECK_DONE(prep_seed_open(check_path("disk"), &how, &s, NULL, &err));
	CHECK_EQ(s->scan.hashed_files, 1);
	prep_seed_close(s);
}

/* ---- The local index ---- */

static void scan_folder(const char *name, struct prep_catalog *c)
{
	const struct prep_scan_how how = { .jobs = 1 };
	struct prep_scan_report report = { 0 };

	*c = (struct prep_catalog){ .origins = 0 };
	CHECK_DONE(prep_catalog_scan_folder(c, make_folder(name), &how, &report, NULL, &err));
}

static void local_index(void)
{
	struct prep_catalog c, again;
	struct prep_seed *s;
	const struct prep_seed_how how = { .jobs = 1 };

	scan_folder("indexed", &c);
	CHECK_DONE(prep_catalog_add_origin(&c, PREP_ORIGIN_IMAGE, "/gone/image", &(struct prep_file_stamp){ 1, 2, -3, 4 },
					   &err));
	CHECK_DONE(prep_catalog_add_item(&c, "/file", NULL, &err));
	CHECK_DONE(prep_catalog_add_chunk(&c, c.chunk[0].digest, 0, 4096, &err));
	CHECK_DONE(prep_catalog_add_run(&c, 4096, 2048, &err));
	CHECK_DONE(prep_catalog_add_run(&c, PREP_CATALOG_HOLE, 2048, &err));
	CHECK_DONE(prep_local_index_write(&c, check_path("a.index"), false, &err));
	CHECK_FAILS(prep_local_index_write(&c, check_path("a.index"), false, &err), PREP_EREFUSED, "exists");
	CHECK_DONE(prep_local_index_read(check_path("a.index"), &again, &err));
	CHECK_EQ(again.origins, 2);
	CHECK_EQ(again.items, c.items);
	CHECK_EQ(again.chunks, c.chunks);
	CHECK_EQ(again.runs, 2);
	CHECK_EQ(again.origin[1].stamp.mtime, (uint64_t)-3);
	CHECK_STR(again.origin[1].path, "/gone/image");
	CHECK_EQ(again.run[1].off, PREP_CATALOG_HOLE);
	prep_catalog_clear(&again);
	prep_catalog_clear(&c);
	/* as a seed: the image is gone, which is told, and its chunk is not there */
	CHECK_DONE(prep_seed_open(check_path("a.index"), &how, &s, NULL, &err));
	CHECK_EQ(s->catalog.notes.n, 1);
	CHECK_EQ(count_good(s), s->catalog.chunks - 1);
	prep_seed_close(s);
}

static void damaged_index(void)
{
	struct prep_catalog c;
	unsigned char *p, *copy;
	unsigned accepted = 0;
	size_t len;

	scan_folder("damaged", &c);
	CHECK_DONE(prep_local_index_write(&c, check_path("d.index"), false, &err));
	prep_catalog_clear(&c);
	p = check_read(check_path("d.index"), &len);
	copy = malloc(len);
	for (size_t i = 0; i < len; i++) {
		memcpy(copy, p, len);
		copy[i] ^= 0x40;
		err = (struct prep_err)PREP_ERR_INIT;
		if (prep_local_index_decode(copy, len, "d", &c, &err) == 0)
			CHECK_FAIL("byte %zu may be wrong", i);
		if (err.code != PREP_EDAMAGED && err.code != PREP_EREFUSED)
			CHECK_FAIL("byte %zu: %s", i, err.msg);
	}
	for (size_t n = 0; n < len; n += 7) {
		err = (struct prep_err)PREP_ERR_INIT;
		memcpy(copy, p, n);
		if (prep_local_index_decode(copy, n, "d", &c, &err) == 0)
			CHECK_FAIL("cut off after %zu bytes", n);
	}
	/* with a digest that is right: whatever it says, it is bounded or refused */
	check_seed = 99;
	for (unsigned i = 0; i < 20000; i++) {
		memcpy(copy, p, len);
		for (unsigned k = 0; k < 1 + check_random(3); k++)
			copy[8 + check_random(len - 40)] = (unsigned char)check_random(256);
		if (prep_hash_once(copy, len - 32, copy + len - 32, &err) < 0)
			abort();
		err = (struct prep_err)PREP_ERR_INIT;
		if (prep_local_index_decode(copy, len, "d", &c, &err) == 0) {
			accepted++;
			for (uint32_t o = 0; o < c.origins; o++)
				prep_catalog_bytes(&c, &c.origin[o]);
			for (uint32_t k = 0; k < c.chunks; k++)
				if (prep_catalog_item_of(&c, k) >= c.items)
					CHECK_FAIL("chunk %u is of no item", k);
			prep_catalog_clear(&c);
		}
	}
	CHECK(accepted > 1000);
	free(copy);
	free(p);
}

/* ---- ClientSettings.xml ---- */

static void save_text(const char *name, const char *text)
{
	const int fd = check_create(name);

	check_write(fd, text, strlen(text), 0);
	close(fd);
}

static const char settings_xml[] =
	"<?xml version=\"1.0\"?>\n<ClientSettings>\n<Other><string>not this</string></Other>\n"
	"<HostIndexingXP type=\"System.String[]\">\n <ArrayOfString>\n"
	"  <string>%WINDIR%</string>\n  <string> %ProgramFiles%\\Common Files </string>\n </ArrayOfString>\n"
	"</HostIndexingXP>\n"
	"<HostIndexingVista type=\"System.String[]\"><ArrayOfString>\n"
	"<string>%windir%\\SYSTEM32</string><string>%ProgramFiles%\\Microsoft &amp; Office</string>\n"
	"<string>%NOBODY%\\x</string><string>%WINDIR%\\..\\..\\etc</string><string>%WINDIR%\\linked</string>"
	"<string>c:\\Tools</string><string></string></ArrayOfString></HostIndexingVista>\n</ClientSettings>\n";

static void client_settings(void)
{
	struct prep_client_settings s;
	struct prep_folder_list l;
	struct prep_notes notes = { .n = 0 };
	char *root = strdup(check_path("root"));

	save_text("settings.xml", settings_xml);
	CHECK_DONE(prep_client_settings_read(check_path("settings.xml"), &s, &err));
	CHECK_EQ(s.xp.n, 2);
	CHECK_EQ(s.vista.n, 6);
	CHECK_STR(s.xp.path[1], "%ProgramFiles%\\Common Files");
	CHECK_STR(s.vista.path[1], "%ProgramFiles%\\Microsoft & Office");

	mkdir(root, 0777);
	mkdir(check_path("root/WINDOWS"), 0777);
	mkdir(check_path("root/WINDOWS/System32"), 0777);
	mkdir(check_path("root/Program Files"), 0777);
	mkdir(check_path("root/Program Files/Common Files"), 0777);
	mkdir(check_path("root/Program Files/microsoft & OFFICE"), 0777);
	mkdir(check_path("root/tools"), 0777);
	CHECK(symlink("/", check_path("root/WINDOWS/linked")) == 0);
	/* without Users it is an XP */
	CHECK_DONE(prep_client_settings_resolve(&s, root, &l, &notes, &err));
	CHECK_EQ(l.n, 2);
	CHECK_STR(l.path[0], check_path("root/WINDOWS"));
	CHECK_STR(l.path[1], check_path("root/Program Files/Common Files"));
	CHECK_EQ(notes.n, 0);
	prep_folder_list_clear(&l);
	mkdir(check_path("root/users"), 0777);
	CHECK_DONE(prep_client_settings_resolve(&s, root, &l, &notes, &err));
	CHECK_EQ(l.n, 3);
	CHECK_STR(l.path[0], check_path("root/WINDOWS/System32"));
	CHECK_STR(l.path[1], check_path("root/Program Files/microsoft & OFFICE"));
	CHECK_STR(l.path[2], check_path("root/tools"));
	CHECK_EQ(notes.n, 3);
	prep_folder_list_clear(&l);
	prep_notes_clear(&notes);
	CHECK_FAILS(prep_client_settings_resolve(&s, check_path("none"), &l, &notes, &err), PREP_EFAIL, "cannot open");
	prep_client_settings_clear(&s);
	free(root);
}

static void bad_client_settings(void)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{ "", "no element" },
		{ "<a></b>", "mismatched" },
		{ "<a><HostIndexingXP><ArrayOfString/></HostIndexingXP></a>", "names a folder" },
		{ "<a><HostIndexingXP><string>C:<HostIndexingXP></HostIndexingXP></string></HostIndexingXP></a>",
		  "markup inside of a path" },
		{ "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>", "DOCTYPE" },
		{ "\377\376\0", "" },
	};
	struct prep_client_settings s;
	char *large = malloc(70000);

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		save_text("bad.xml", bad[i].text);
		CHECK_FAILS(prep_client_settings_read(check_path("bad.xml"), &s, &err), PREP_EREFUSED, bad[i].why);
	}
	strcpy(large, "<a><HostIndexingXP><string>");
	memset(large + strlen(large), 'x', 2000);
	strcpy(large + 2020, "</string></HostIndexingXP></a>");
	save_text("bad.xml", large);
	CHECK_FAILS(prep_client_settings_read(check_path("bad.xml"), &s, &err), PREP_EREFUSED, "too long");
	strcpy(large, "<a><HostIndexingXP>");
	for (unsigned i = 0; i < 1025; i++)
		strcat(large, "<string>x</string>");
	strcat(large, "</HostIndexingXP></a>");
	save_text("bad.xml", large);
	CHECK_FAILS(prep_client_settings_read(check_path("bad.xml"), &s, &err), PREP_EREFUSED, "too many");
	free(large);
}

int main(void)
{
	RUN(folder);
	RUN(changed_file);
	RUN(cache);
	RUN(image);
	RUN(local_index);
	RUN(damaged_index);
	RUN(client_settings);
	RUN(bad_client_settings);
	return check_result();
}
