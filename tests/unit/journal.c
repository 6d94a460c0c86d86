/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The redo journal: a change is all there or not at all, and what is not a
 * journal of this image is never applied to it. scripts/torture stops the
 * commands at every call; here the journal itself is taken apart.
 */
#include "libprep/disk/journal.h"

#include <sys/stat.h>

#include "libprep/ckm/hash.h"
#include "libprep/disk/overlay.h"
#include "libprep/disk/raw.h"
#include "tests/unit/image.h"

#define SIZE (4u << 20)

static struct prep_err err;
static unsigned char old[SIZE], new[SIZE];
static uint64_t zeroed;

static const char *image(void)
{
	return check_path("image");
}

static const char *journal(void)
{
	return check_path("image.prep-journal");
}

static void make_image(void)
{
	int fd;

	unlink(journal());
	unlink(image());
	check_seed = 60;
	check_noise(old, SIZE);
	memset(old + SIZE / 2, 0, 65536);
	fd = check_create("image");
	check_write(fd, old, SIZE, 0);
	close(fd);
}

/* Stage the same changes over d, and make them in `new`. */
static void stage(struct prep_disk *d, struct prep_disk **overlay)
{
	static unsigned char many[200000]; /* pages in a row, of several records */
	unsigned char p[9000];

	memcpy(new, old, SIZE);
	CHECK_DONE(prep_overlay_open(d, check_dir(), overlay, &err));
	check_noise(many, sizeof many);
	CHECK_DONE(prep_disk_write(*overlay, many, sizeof many, 3000001, &err));
	memcpy(new + 3000001, many, sizeof many);
	check_noise(p, sizeof p);
	CHECK_DONE(prep_disk_write(*overlay, p, sizeof p, 100000, &err));
	memcpy(new + 100000, p, sizeof p);
	CHECK_DONE(prep_disk_write(*overlay, p, 512, SIZE - 512, &err));
	memcpy(new + SIZE - 512, p, 512);
	CHECK_DONE(prep_overlay_fill(*overlay, 200001, 70000, 0, &err));
	memset(new + 200001, 0, 70000);
	CHECK_DONE(prep_overlay_fill(*overlay, SIZE / 2, 65536, 0, &err));
	CHECK_DONE(prep_overlay_fill(*overlay, 1 << 20, 5000, 0xFF, &err));
	memset(new + (1 << 20), 0xFF, 5000);
}

static bool image_is(const unsigned char *want)
{
	size_t len;
	unsigned char *p = check_read(image(), &len);
	const bool same = len == SIZE && memcmp(p, want, SIZE) == 0;

	free(p);
	return same;
}

/*
 * Leave the image old, with a complete journal beside it: the image is open for
 * reading only, so that applying fails at the first write.
 */
static void leave_journal(void)
{
	struct prep_disk *d, *overlay;

	make_image();
	CHECK_DONE(prep_raw_open(open(image(), O_RDONLY), image(), SIZE, &d, &err));
	stage(d, &overlay);
	CHECK_FAILS(prep_journal_commit(overlay, image(), &zeroed, NULL, &err), PREP_EFAIL,
		    "finished by the next command");
	prep_disk_close(overlay);
	prep_disk_close(d);
	CHECK(image_is(old));
	CHECK(access(journal(), F_OK) == 0);
}

static void commits(void)
{
	struct prep_disk *d, *overlay;
	struct stat a, b;

	make_image();
	CHECK_DONE(prep_disk_open(image(), PREP_DISK_WRITE, &d, &err));
	stage(d, &overlay);
	CHECK_DONE(prep_journal_commit(overlay, image(), &zeroed, NULL, &err));
	prep_disk_close(overlay);
	prep_disk_close(d);
	CHECK(image_is(new));
	CHECK(access(journal(), F_OK) != 0);
	/* the zeros that were there already are not counted */
	CHECK(zeroed >= 70000 && zeroed < 70000 + 2 * 4096);

	/* again, nothing to change: the image is not even touched */
	memcpy(old, new, SIZE);
	CHECK(stat(image(), &a) == 0);
	CHECK_DONE(prep_disk_open(image(), PREP_DISK_WRITE, &d, &err));
	CHECK_DONE(prep_overlay_open(d, check_dir(), &overlay, &err));
	CHECK_DONE(prep_overlay_fill(overlay, 200001, 70000, 0, &err));
	CHECK_DONE(prep_overlay_fill(overlay, 1 << 20, 5000, 0xFF, &err));
	CHECK_DONE(prep_journal_commit(overlay, image(), &zeroed, NULL, &err));
	prep_disk_close(overlay);
	prep_disk_close(d);
	CHECK_EQ(zeroed, 0);
	CHECK(stat(image(), &b) == 0);
	CHECK(a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec);
	CHECK(image_is(new));
}

static void the_next_open_finishes(void)
{
	struct prep_disk *d;

	leave_journal();
	CHECK_DONE(prep_disk_open(image(), 0, &d, &err));
	prep_disk_close(d);
	CHECK(image_is(new));
	CHECK(access(journal(), F_OK) != 0);
}

/* Stopped in the middle of applying, any number of times. */
static void may_be_applied_again(void)
{
	unsigned char *saved;
	size_t len;
	int fd;

	leave_journal();
	saved = check_read(journal(), &len);
	for (int i = 0; i < 3; i++) {
		/* part of the change is there already, as a crash may leave it: whole sectors, of torn pages too */
		fd = open(image(), O_RDWR);
		check_write(fd, new + 195 * 512, 8 * 512, 195 * 512);
		check_write(fd, new + 5900 * 512, i * 100 * 512, 5900 * 512);
		check_write(fd, new + 200001, i * 20000u, 200001);
		close(fd);
		fd = check_create("image.prep-journal");
		check_write(fd, saved, len, 0);
		close(fd);
		CHECK_DONE(prep_journal_recover(image(), NULL, &err));
		CHECK(image_is(new));
		CHECK(access(journal(), F_OK) != 0);
	}
	CHECK_DONE(prep_journal_recover(image(), NULL, &err));
	free(saved);
}

/* An older or newer state of the image, put back beside the journal: nothing may be finished on it. */
static void refused_on_another_version(void)
{
	unsigned char other[512];
	int fd;

	leave_journal();
	memset(other, 0x5A, sizeof other);
	fd = open(image(), O_RDWR);
	check_write(fd, other, sizeof other, 196 * 512);
	close(fd);
	CHECK_FAILS(prep_journal_recover(image(), NULL, &err), PREP_EREFUSED, "another version");
	CHECK(access(journal(), F_OK) == 0);
	unlink(journal());
}

/* Through a symbolic link and a relative path it is the same journal. */
static void found_by_any_path(void)
{
	char here[4096];

	leave_journal();
	CHECK(getcwd(here, sizeof here) != NULL && chdir(check_dir()) == 0);
	CHECK(symlink("image", "other name") == 0);
	CHECK_DONE(prep_journal_recover("other name", NULL, &err));
	CHECK(chdir(here) == 0);
	CHECK(image_is(new));
	CHECK(access(journal(), F_OK) != 0);
	unlink(check_path("other name"));
}

static void damaged_journals_change_nothing(void)
{
	unsigned char *saved;
	size_t len;
	int fd;

	leave_journal();
	saved = check_read(journal(), &len);
	/* cut at many places, and a bit flipped at many */
	for (size_t at = 0; at < len; at += len / 40 + 1) {
		fd = check_create("image.prep-journal");
		check_write(fd, saved, at, 0);
		close(fd);
		CHECK_FAILS(prep_journal_recover(image(), NULL, &err), PREP_EDAMAGED, "prep-journal");
		CHECK(image_is(old));
		fd = check_create("image.prep-journal");
		saved[at] ^= 4;
		check_write(fd, saved, len, 0);
		saved[at] ^= 4;
		close(fd);
		err = (struct prep_err)PREP_ERR_INIT;
		CHECK(prep_journal_recover(image(), NULL, &err) < 0);
		CHECK(err.code == PREP_EDAMAGED || err.code == PREP_EREFUSED);
		CHECK(image_is(old));
	}
	unlink(journal());
	free(saved);
	/* Nobody will ever write to the pipe. */
	CHECK(mkfifo(journal(), 0600) == 0);
	CHECK_FAILS(prep_journal_recover(image(), NULL, &err), PREP_EDAMAGED, "not a journal");
	unlink(journal());
	CHECK(mkdir(journal(), 0700) == 0);
	CHECK_FAILS(prep_journal_recover(image(), NULL, &err), PREP_EDAMAGED, "not a journal");
	rmdir(journal());
	CHECK(image_is(old));
}

/* Its digests are right, but that of the witnesses, which takes reading the disk 4096 times to know. */
static void a_journal_that_wants_too_much_read_is_damaged(void)
{
	const size_t witnesses = 24, digest = witnesses + 4096 * 16, end = digest + 32, len = end + 24 + 32;
	unsigned char *p = calloc(1, len);
	int fd;

	make_image();
	memcpy(p, "prepjrn4", 8);
	put_le64(p + 8, SIZE);
	put_le64(p + 16, 4096);
	for (size_t at = witnesses; at < digest; at += 16)
		put_le64(p + at + 8, SIZE);
	put_le32(p + end + 16, 2);
	CHECK_DONE(prep_hash_once(p, len - 32, p + len - 32, &err));
	fd = check_create("image.prep-journal");
	check_write(fd, p, len, 0);
	close(fd);
	free(p);
	CHECK_FAILS(prep_journal_recover(image(), NULL, &err), PREP_EDAMAGED, "the journal is damaged");
	unlink(journal());
}

static void of_another_image(void)
{
	unsigned char other[4096];
	struct prep_disk *d;
	int fd;

	/* the image was replaced by another of the same size */
	leave_journal();
	fd = open(image(), O_RDWR);
	check_noise(other, sizeof other);
	check_write(fd, other, sizeof other, 0);
	close(fd);
	CHECK_FAILS(prep_disk_open(image(), 0, &d, &err), PREP_EREFUSED, "another image");
	CHECK(access(journal(), F_OK) == 0);
	/* of another size */
	leave_journal();
	CHECK(truncate(image(), SIZE + 512) == 0);
	CHECK_FAILS(prep_disk_open(image(), 0, &d, &err), PREP_EREFUSED, "another image");
	CHECK(truncate(image(), SIZE - 512) == 0);
	CHECK_FAILS(prep_disk_open(image(), 0, &d, &err), PREP_EREFUSED, "another image");
	unlink(journal());
}

static void in_use_or_not_writable(void)
{
	struct prep_disk *d, *second;

	leave_journal();
	/* somebody reads the image */
	CHECK_DONE(prep_disk_open_fd(open(image(), O_RDONLY), "reader", 0, &d, &err));
	CHECK_FAILS(prep_disk_open(image(), 0, &second, &err), PREP_EREFUSED, "in use");
	CHECK(image_is(old));
	prep_disk_close(d);
	if (geteuid() != 0) {
		CHECK(chmod(image(), 0400) == 0);
		CHECK_FAILS(prep_disk_open(image(), 0, &d, &err), PREP_EREFUSED, "cannot be written");
		CHECK(chmod(image(), 0600) == 0);
	}
	CHECK_DONE(prep_disk_open(image(), 0, &d, &err));
	prep_disk_close(d);
	CHECK(image_is(new));
}

/* A dynamic VHD grows while the journal is applied, and again after a crash. */
static void new_blocks_of_a_vhd(void)
{
	static const uint32_t order[] = { 2, 0 };
	struct prep_disk *d, *overlay;
	unsigned char *want, *got, p[5000], *saved;
	struct image im;
	size_t len, cut;
	int fd;

	check_seed = 61;
	image_dynamic(&im, 4 << 20, 1 << 20, order, 2, 512);
	want = malloc(4 << 20);
	got = malloc(4 << 20);
	memcpy(want, im.guest, 4 << 20);
	check_noise(p, sizeof p);
	memcpy(want + (1 << 20) + 100, p, sizeof p);
	memcpy(want + (3 << 20) - 100, p, sizeof p);
	image_save(&im, "image", im.len);
	CHECK_DONE(prep_disk_open_fd(open(image(), O_RDONLY), image(), 0, &d, &err));
	CHECK_DONE(prep_overlay_open(d, check_dir(), &overlay, &err));
	CHECK_DONE(prep_disk_write(overlay, p, sizeof p, (1 << 20) + 100, &err));
	CHECK_DONE(prep_disk_write(overlay, p, sizeof p, (3 << 20) - 100, &err));
	CHECK_FAILS(prep_journal_commit(overlay, image(), &zeroed, NULL, &err), PREP_EFAIL, "finished by the next command");
	prep_disk_close(overlay);
	prep_disk_close(d);
	saved = check_read(journal(), &len);
	CHECK_DONE(prep_journal_recover(image(), NULL, &err));
	CHECK_DONE(prep_disk_open(image(), 0, &d, &err));
	CHECK_EQ(d->notes.n, 0);
	CHECK_DONE(prep_disk_read(d, got, 4 << 20, 0, &err));
	CHECK(memcmp(got, want, 4 << 20) == 0);
	prep_disk_close(d);

	/* the crash came when the file had grown, at any length, and no table entry stood yet */
	for (cut = im.len; cut < im.len + (3 << 20); cut += 250007) {
		image_save(&im, "image", cut);
		fd = check_create("image.prep-journal");
		check_write(fd, saved, len, 0);
		close(fd);
		CHECK_DONE(prep_disk_open(image(), 0, &d, &err));
		CHECK_DONE(prep_disk_read(d, got, 4 << 20, 0, &err));
		CHECK(memcmp(got, want, 4 << 20) == 0);
		prep_disk_close(d);
		CHECK(access(journal(), F_OK) != 0);
	}
	free(saved);
	free(want);
	free(got);
	image_free(&im);
}

int main(void)
{
	RUN(commits);
	RUN(the_next_open_finishes);
	RUN(may_be_applied_again);
	RUN(refused_on_another_version);
	RUN(found_by_any_path);
	RUN(damaged_journals_change_nothing);
	RUN(a_journal_that_wants_too_much_read_is_damaged);
	RUN(of_another_image);
	RUN(in_use_or_not_writable);
	RUN(new_blocks_of_a_vhd);
	return check_result();
}
