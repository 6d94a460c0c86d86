/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Scanning a folder of the host. */
#include "libprep/trim/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/trim/catalog.h"
#include "libprep/trim/crew.h"
#include "libprep/trim/cut.h"

int prep_folder_open(const char *path)
{
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int prep_folder_open_below(int folder, const char *path, int flags)
{
	const int f = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | flags;
	struct open_how how = {
		.flags = (unsigned)f,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
	};
	const long fd = syscall(SYS_openat2, folder, path, &how, sizeof how);

	/* Before Linux 5.6, and where a sandbox has not heard of it: only the last component is guarded. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		return openat(folder, path, f);
	return (int)fd;
}

/* A file that was found. */
struct found {
	char *path;                   /* below the folder */
	struct prep_file_stamp stamp;
	uint32_t known;               /* its item in the catalog of before, or NONE */
	struct prep_cut cut;          /* when it was hashed now */
	bool skipped;
};
#define NONE UINT32_MAX

struct scan {
	struct prep_catalog *c;
	const char *path;             /* of the folder, for messages */
	int fd;
	dev_t device;
	struct found *file;
	uint32_t files, room;
	char **folder;                /* those still to be read: paths below, "" for itself */
	size_t folders, folders_room;
	struct prep_scan_report *report;
	const struct prep_progress *progress;

	uint32_t *work;               /* files to hash */
	uint32_t works;
};

static void skip(struct scan *s, const char *path, const char *why)
{
	s->report->skipped++;
	prep_note(&s->c->notes, "%s/%s: %s", s->path, path, why);
}

static int push_folder(struct scan *s, char *path, struct prep_err *err)
{
	if (s->folders == s->folders_room) {
		const size_t room = s->folders_room == 0 ? 64 : s->folders_room * 2;
		char **grown = reallocarray(s->folder, room, sizeof *grown);

		if (grown == NULL) {
			free(path);
			return prep_fail_nomem(err);
		}
		s->folder = grown;
		s->folders_room = room;
	}
	s->folder[s->folders++] = path;
	return 0;
}

static int push_file(struct scan *s, char *path, const struct stat *st, struct prep_err *err)
{
	struct found *f;

	if (s->files == s->room) {
		const uint32_t room = s->room == 0 ? 1024 : s->room * 2;
		struct found *grown = NULL;

		if (room <= PREP_CATALOG_ITEMS_MAX)
			grown = reallocarray(s->file, room, sizeof *grown);
		if (grown == NULL) {
			free(path);
			return room > PREP_CATALOG_ITEMS_MAX ? prep_fail(err, PREP_EFAIL, "%s: too many files", s->path)
							     : prep_fail_nomem(err);
		}
		s->file = grown;
		s->room = room;
	}
	f = &s->file[s->files++];
	*f = (struct found){ .path = path, .known = NONE };
	prep_file_stamp_of(st, &f->stamp);
	return 0;
}

/* One name in the folder `dir`. */
static int look_at(struct scan *s, const char *dir, int dir_fd, const char *name, struct prep_err *err)
{
	struct stat st;
	char *path;

	if (asprintf(&path, "%s%s%s", dir, dir[0] != '\0' ? "/" : "", name) < 0)
		return prep_fail_nomem(err);
	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
		skip(s, path, strerror(errno));
	} else if (st.st_dev != s->device) {
		skip(s, path, "on another file system: left out");
	} else if (S_ISDIR(st.st_mode)) {
		return push_folder(s, path, err);
	} else if (S_ISREG(st.st_mode)) {
		/* Empty files have no chunks. */
		if (st.st_size > 0)
			return push_file(s, path, &st, err);
	} else {
		s->report->skipped++;
	}
	free(path);
	return 0;
}

static int read_folder(struct scan *s, const char *dir, struct prep_err *err)
{
	const int fd = prep_folder_open_below(s->fd, dir[0] != '\0' ? dir : ".", O_DIRECTORY);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *e;
	int r = 0;

	if (d == NULL) {
		skip(s, dir, strerror(errno));
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (r == 0 && (errno = 0, e = readdir(d)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			r = look_at(s, dir, fd, e->d_name, err);
	if (r == 0 && errno != 0)
		skip(s, dir, strerror(errno));
	closedir(d);
	return r < 0 ? -1 : prep_progress(s->progress, "looking at folders", 0, 0, err);
}

static int by_path(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static int walk(struct scan *s, struct prep_err *err)
{
	char *top = strdup("");

	if (top == NULL)
		return prep_fail_nomem(err);
	if (push_folder(s, top, err) < 0)
		return -1;
	while (s->folders > 0) {
		char *dir = s->folder[--s->folders];
		const int r = read_folder(s, dir, err);

		free(dir);
		if (r < 0)
			return -1;
	}
	if (s->files > 0)
		qsort(s->file, s->files, sizeof *s->file, by_path);
	return 0;
}

/* Items of a folder in a catalog stand in the order of their paths, as written below. */
static void find_known(struct scan *s, const struct prep_catalog *known)
{
	const struct prep_origin *o = NULL;
	uint32_t i = 0, end;

	for (uint32_t k = 0; known != NULL && k < known->origins; k++)
		if (known->origin[k].kind == PREP_ORIGIN_FOLDER && strcmp(known->origin[k].path, s->path) == 0)
			o = &known->origin[k];
	if (o == NULL)
		return;
	end = o->first_item + o->items;
	i = o->first_item;
	for (uint32_t f = 0; f < s->files && i < end; f++) {
		int r = -1;

		while (i < end && (r = strcmp(prep_item_path(known, &known->item[i]), s->file[f].path)) < 0)
			i++;
		if (i < end && r == 0 && prep_file_stamp_same(&known->item[i].stamp, &s->file[f].stamp))
			s->file[f].known = i;
	}
}

/* A host file as the cutter wants it. */
struct reader {
	int fd;
	const char *name;
};

static int read_file(void *arg, void *buf, size_t len, uint64_t at, struct prep_err *err)
{
	const struct reader *r = arg;

	return prep_file_pread(r->fd, buf, len, at, r->name, err);
}

static int file_zeros(void *arg, uint64_t at, uint64_t end, uint64_t *ret, struct prep_err *err)
{
	const struct reader *r = arg;
	bool hole;
	const uint64_t to = prep_file_extent(r->fd, NULL, at, end, &hole);

	(void)err;
	*ret = hole ? to : at;
	return 0;
}

/* Cut and hash one file. Whatever is wrong with it, it is only skipped: it may be another's, and in use. */
static void hash_file(struct scan *s, struct found *f, struct prep_chunk_cutter *cutter)
{
	struct prep_err err = PREP_ERR_INIT;
	struct reader reader = { .name = f->path };
	struct prep_file_stamp stamp;
	struct stat st;

	reader.fd = prep_folder_open_below(s->fd, f->path, 0);
	if (reader.fd < 0 || fstat(reader.fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		f->skipped = true;
	} else {
		prep_file_stamp_of(&st, &f->stamp);
		const struct prep_chunk_source source = {
			.size = f->stamp.size, .read = read_file, .zeros = file_zeros, .arg = &reader,
		};

		posix_fadvise(reader.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
		if (prep_chunk_cut(cutter, &source, 0, prep_cut_add, &f->cut, &err) < 0 || fstat(reader.fd, &st) != 0)
			f->skipped = true;
		prep_file_stamp_of(&st, &stamp);
		if (!prep_file_stamp_same(&stamp, &f->stamp))
			f->skipped = true;
	}
	if (reader.fd >= 0)
		close(reader.fd);
}

static int hash_files(struct prep_crew *crew, void *arg, struct prep_err *err)
{
	struct scan *s = arg;
	struct prep_chunk_cutter *cutter;
	uint32_t i;

	if (prep_chunk_cutter_new(&cutter, err) < 0)
		return -1;
	while (!atomic_load(&crew->stop) && (i = atomic_fetch_add(&crew->next, 1)) < s->works) {
		struct found *f = &s->file[s->work[i]];
		const uint64_t size = f->stamp.size;

		hash_file(s, f, cutter);
		atomic_fetch_add(&crew->done, size);
	}
	prep_chunk_cutter_free(cutter);
	return 0;
}

/* Put what was found, and hashed or known, into the catalog. */
static int collect(struct scan *s, const struct prep_catalog *known, struct prep_err *err)
{
	for (uint32_t i = 0; i < s->files; i++) {
		struct found *f = &s->file[i];

		if (f->skipped) {
			skip(s, f->path, "cannot be read, or changes while it is read: left out");
			continue;
		}
		s->report->files++;
		s->report->bytes += f->stamp.size;
		if (f->known != NONE) {
			if (prep_catalog_copy_item(s->c, known, f->known, err) < 0)
				return -1;
			continue;
		}
		s->report->hashed_files++;
		s->report->hashed_bytes += f->stamp.size;
		if (prep_catalog_add_item(s->c, f->path, &f->stamp, err) < 0 ||
		    prep_catalog_add_cut(s->c, &f->cut, err) < 0)
			return -1;
		prep_cut_clear(&f->cut);
	}
	return 0;
}

static int scan_folder(struct scan *s, const struct prep_scan_how *how, struct prep_err *err)
{
	struct prep_crew crew = { .what = "hashing files" };
	struct stat st;

	s->fd = prep_folder_open(s->path);
	if (s->fd < 0 || fstat(s->fd, &st) != 0)
		return prep_fail_errno(err, "%s: cannot open the folder", s->path);
	s->device = st.st_dev;
	if (walk(s, err) < 0)
		return -1;
	find_known(s, how->known);
	s->work = malloc(((size_t)s->files + 1) * sizeof *s->work);
	if (s->work == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < s->files; i++) {
		if (s->file[i].known != NONE)
			continue;
		s->work[s->works++] = i;
		crew.total += s->file[i].stamp.size;
	}
	if (s->works > 0 && prep_crew_run(&crew, how->jobs, hash_files, s, s->progress, err) < 0)
		return -1;
	if (prep_catalog_add_origin(s->c, PREP_ORIGIN_FOLDER, s->path, NULL, err) < 0)
		return -1;
	return collect(s, how->known, err);
}

int prep_catalog_scan_folder(struct prep_catalog *c, const char *path, const struct prep_scan_how *how,
			     struct prep_scan_report *report, const struct prep_progress *progress,
			     struct prep_err *err)
{
	struct scan s = { .c = c, .fd = -1, .report = report, .progress = progress };
	char *whole = realpath(path, NULL);
	int r;

	if (whole == NULL)
		return prep_fail_errno(err, "%s: cannot open the folder", path);
	s.path = whole;
	r = scan_folder(&s, how, err);
	for (uint32_t i = 0; i < s.files; i++) {
		free(s.file[i].path);
		prep_cut_clear(&s.file[i].cut);
	}
	for (size_t i = 0; i < s.folders; i++)
		free(s.folder[i]);
	free(s.file);
	free(s.folder);
	free(s.work);
	free(whole);
	if (s.fd >= 0)
		close(s.fd);
	return r;
}
