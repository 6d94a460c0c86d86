/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/base/output.h"
#include "libprep/ckm/hash.h"
#include "libprep/ckm/index.h"

#define STATE_MAX 4096
#define LOCK_WAIT_MS 2000u /* a process that was killed has the lock until its last write has ended */

static int set_source(struct prep_partial *p, const char *url, struct prep_err *err)
{
	uint8_t digest[PREP_DIGEST_SIZE];

	if (prep_hash_once(url, strlen(url), digest, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof digest; i++)
		snprintf(p->source + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

static int set_paths(struct prep_partial *p, const char *out, struct prep_err *err)
{
	char **const path[] = { &p->index, &p->state, &p->disk, &p->frames, &p->old, &p->old_index };
	static const char *const name[] = { "index", "state", "disk", "frames", "old", "old.index" };

	if (asprintf(&p->path, "%s.part", out) < 0) {
		p->path = NULL;
		return prep_fail_nomem(err);
	}
	for (size_t i = 0; i < sizeof path / sizeof path[0]; i++) {
		if (asprintf(path[i], "%s/%s", p->path, name[i]) < 0) {
			*path[i] = NULL;
			return prep_fail_nomem(err);
		}
	}
	return 0;
}

/* A whole small file: NULL where there is none that can be read, or it has more than `most` bytes. */
static uint8_t *read_file(const char *path, uint64_t most, size_t *len)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct prep_err ignored = PREP_ERR_INIT;
	uint8_t *ret = NULL;
	struct stat st;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size <= most) {
		*len = (size_t)st.st_size;
		ret = malloc(*len + 1);
		if (ret != NULL && prep_file_pread(fd, ret, *len, 0, path, &ignored) < 0) {
			free(ret);
			ret = NULL;
		}
	}
	close(fd);
	return ret;
}

static int write_file(const char *path, const void *data, size_t len, struct prep_err *err)
{
	struct prep_output *out;
	struct stat st;
	int r;

	/* An output replaces what a link leads to. There are none here, unless somebody made one. */
	if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
		unlink(path);
	if (prep_output_open(path, true, &out, err) < 0)
		return -1;
	prep_output_set_mode(out, 0600);
	r = prep_output_write(out, data, len, err);
	if (r == 0)
		r = prep_output_commit(out, err);
	prep_output_close(out);
	return r;
}

static void get_text(const json_t *state, const char *key, char ret[256])
{
	const char *s = json_string_value(json_object_get(state, key));

	ret[0] = '\0';
	if (s != NULL && strlen(s) < 256 && strpbrk(s, "\r\n") == NULL)
		strcpy(ret, s);
}

static void read_state(struct prep_partial *p)
{
	json_int_t format, block_size;
	char source[256];
	json_t *state;
	uint8_t *text;
	size_t len;

	p->format = -1;
	text = read_file(p->state, STATE_MAX, &len);
	if (text == NULL)
		return;
	state = json_loadb((const char *)text, len, 0, NULL);
	free(text);
	if (state == NULL)
		return;
	get_text(state, "source", source);
	if (strcmp(source, p->source) == 0) {
		get_text(state, "etag", p->version.etag);
		get_text(state, "last_modified", p->version.last_modified);
	}
	format = json_integer_value(json_object_get(state, "format"));
	block_size = json_integer_value(json_object_get(state, "block_size"));
	if (format >= PREP_FORMAT_RAW && format <= PREP_FORMAT_DYNAMIC && block_size >= 0 &&
	    block_size <= PREP_VHD_BLOCK_SIZE_MAX) {
		p->format = (int)format;
		p->block_size = (uint32_t)block_size;
	}
	json_decref(state);
}

static int write_state(const struct prep_partial *p, struct prep_err *err)
{
	json_t *state = json_pack("{s:s, s:s, s:s, s:i, s:i}", "source", p->source, "etag", p->version.etag, "last_modified",
				  p->version.last_modified, "format", p->format, "block_size", (int)p->block_size);
	char *text = state != NULL ? json_dumps(state, JSON_COMPACT) : NULL;
	int r = text != NULL ? write_file(p->state, text, strlen(text), err)
			     : prep_fail(err, PREP_EFAIL, "%s: cannot be written", p->state);

	free(text);
	json_decref(state);
	return r;
}

/* Where everybody may make files but not rename those of others (/tmp): a folder of ours by name that somebody else made. */
static bool planted(const char *path, const struct stat *st)
{
	char *copy = strdup(path);
	struct stat above;
	bool ret;

	ret = copy == NULL || stat(dirname(copy), &above) != 0 ||
	      ((above.st_mode & S_ISVTX) != 0 && st->st_uid != geteuid() && st->st_uid != above.st_uid);
	free(copy);
	return ret;
}

/* Make the folder where there is none, and lock it. */
static int open_folder(struct prep_partial *p, struct prep_err *err)
{
	struct stat opened, there;

	for (unsigned ms = 0;; ms += 50) {
		/* Whoever is to read the image reads it when it is finished. */
		if (mkdir(p->path, 0700) != 0 && errno != EEXIST)
			return prep_fail_errno(err, "%s: cannot make the folder", p->path);
		p->fd = open(p->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (p->fd < 0 && errno != ENOENT)
			return prep_fail_errno(err, "%s: cannot open the folder", p->path);
		/* Where locks are unknown nothing is locked; and whoever had it may have removed it. */
		if (p->fd >= 0 && (flock(p->fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) &&
		    fstat(p->fd, &opened) == 0 && stat(p->path, &there) == 0 && opened.st_ino == there.st_ino &&
		    opened.st_dev == there.st_dev)
			return !planted(p->path, &opened)
				       ? 0
				       : prep_fail(err, PREP_EREFUSED, "%s: another user's folder: remove it, or name another file",
						   p->path);
		if (ms >= LOCK_WAIT_MS)
			return prep_fail(err, PREP_EREFUSED, "%s: another process is fetching this image", p->path);
		if (p->fd >= 0)
			close(p->fd);
		p->fd = -1;
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	}
}

int prep_partial_open(const char *out, const char *url, struct prep_partial *ret, struct prep_err *err)
{
	*ret = (struct prep_partial){ .fd = -1, .format = -1 };
	if (set_source(ret, url, err) < 0 || set_paths(ret, out, err) < 0 || open_folder(ret, err) < 0) {
		prep_partial_close(ret);
		return -1;
	}
	read_state(ret);
	ret->section = read_file(ret->index, PREP_CKM_INDEX_MAX + PREP_MIB, &ret->section_len);
	return 0;
}

void prep_partial_close(struct prep_partial *p)
{
	if (p->path != NULL && p->fd >= 0)
		close(p->fd);
	free(p->path);
	free(p->index);
	free(p->state);
	free(p->disk);
	free(p->frames);
	free(p->old);
	free(p->old_index);
	free(p->section);
	*p = (struct prep_partial){ .fd = -1 };
}

int prep_partial_set_index(struct prep_partial *p, const uint8_t *section, size_t len,
			   const struct prep_http_version *version, struct prep_err *err)
{
	const bool same = p->section != NULL && p->section_len == len && memcmp(p->section, section, len) == 0;
	uint8_t *copy;

	p->version = *version;
	if (same)
		return write_state(p, err);
	copy = malloc(len + 1);
	if (copy == NULL)
		return prep_fail_nomem(err);
	memcpy(copy, section, len);
	/* In this order: whenever it is cut short, an image never stands beside another's index. */
	unlink(p->frames);
	if (p->section != NULL && access(p->disk, F_OK) == 0) {
		unlink(p->old_index);
		if (rename(p->disk, p->old) != 0 || rename(p->index, p->old_index) != 0)
			unlink(p->disk);
	} else {
		unlink(p->disk);
	}
	free(p->section);
	p->section = copy;
	p->section_len = len;
	p->format = -1;
	/* Nor does the state of one beside another: it would be believed that the server still has that. */
	unlink(p->index);
	return write_state(p, err) < 0 || write_file(p->index, section, len, err) < 0 ? -1 : 0;
}

int prep_partial_set_format(struct prep_partial *p, const struct prep_export *how, struct prep_err *err)
{
	const uint32_t block_size = how->format == PREP_FORMAT_DYNAMIC ? how->block_size : 0;

	if (p->format == (int)how->format && p->block_size == block_size)
		return 0;
	unlink(p->disk);
	p->format = (int)how->format;
	p->block_size = block_size;
	return write_state(p, err);
}

void prep_partial_remove(struct prep_partial *p)
{
	unlink(p->disk);
	unlink(p->frames);
	unlink(p->old);
	unlink(p->old_index);
	unlink(p->state);
	unlink(p->index);
	rmdir(p->path);
}
