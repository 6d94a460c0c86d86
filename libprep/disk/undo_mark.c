/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/undo_mark.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libprep/base/file.h"
#include "libprep/base/output.h"
#include "libprep/disk/parent.h"

/*
 * The file: lines, the path last because it may hold anything.
 *   prep-undo 1
 *   id 00112233-4455-6677-8899-aabbccddeeff
 *   mode 644                       octal
 *   base SIZE SECONDS.NANOSECONDS
 *   state open                     or "commit", then "done"
 *   undo /path
 */

#define FORMAT "prep-undo 1\nid %s\nmode %o\nbase %" PRIu64 " %" PRId64 ".%09" PRIu32 "\nstate %s\nundo %s\n"
#define MARK_MAX 65536

static bool take_id(const char *text, uint8_t id[16])
{
	unsigned n = 0, byte;

	while (n < 16 && text[0] != '\0') {
		if (*text == '-') {
			text++;
			continue;
		}
		if (sscanf(text, "%2x", &byte) != 1 || text[1] == '\0')
			return false;
		id[n++] = (uint8_t)byte;
		text += 2;
	}
	return n == 16;
}

static bool parse(char *text, struct prep_undo_mark *ret)
{
	char id[40], state[8];
	size_t len = strlen(text);
	int path = 0;

	if (sscanf(text, "prep-undo 1 id %39s mode %o base %" SCNu64 " %" SCNd64 ".%" SCNu32 " state %7s undo %n", id,
		   &ret->mode, &ret->size, &ret->sec, &ret->nsec, state, &path) != 6 || path == 0 ||
	    len <= (size_t)path + 1 || text[len - 1] != '\n' || !take_id(id, ret->id))
		return false;
	text[len - 1] = '\0';
	ret->done = strcmp(state, "done") == 0;
	ret->committing = ret->done || strcmp(state, "commit") == 0;
	ret->mode &= 07777;
	ret->path = strdup(text + path);
	return ret->path != NULL;
}

int prep_undo_mark_read(const char *base, struct prep_undo_mark *ret, struct prep_err *err)
{
	char *name = prep_file_beside(base, PREP_UNDO_MARK_SUFFIX), *text = NULL;
	int fd = -1, r = -1;
	struct stat st;
	int64_t n;

	*ret = (struct prep_undo_mark){ .path = NULL };
	/* What is not there has no undo disk. */
	if (name == NULL)
		return errno == ENOMEM ? prep_fail_nomem(err) : 0;
	fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) {
		r = errno == ENOENT ? 0 : prep_fail_errno(err, "%s", name);
		goto out;
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		prep_fail(err, PREP_EDAMAGED, "%s: not the mark of an undo disk, which is a file", name);
		goto out;
	}
	text = calloc(1, MARK_MAX);
	if (text == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	n = prep_file_read(fd, text, MARK_MAX - 1, name, err);
	if (n < 0)
		goto out;
	r = parse(text, ret) ? 1 : prep_fail(err, PREP_EDAMAGED, "%s: not the mark of an undo disk of this version", name);
out:
	if (fd >= 0)
		close(fd);
	free(text);
	free(name);
	return r;
}

int prep_undo_mark_write(const char *base, const struct prep_undo_mark *mark, struct prep_err *err)
{
	char *name = prep_file_beside(base, PREP_UNDO_MARK_SUFFIX), *text = NULL, id[37];
	struct prep_output *out = NULL;
	int r = -1;

	if (name == NULL) {
		prep_fail_errno(err, "%s", base);
		goto out;
	}
	if (asprintf(&text, FORMAT, prep_parent_id_text(mark->id, id), mark->mode, mark->size, mark->sec, mark->nsec,
		     mark->done ? "done" : mark->committing ? "commit" : "open", mark->path) < 0) {
		text = NULL;
		prep_fail_nomem(err);
		goto out;
	}
	if (prep_output_open(name, true, &out, err) == 0 && prep_output_write(out, text, strlen(text), err) == 0)
		r = prep_output_commit(out, err);
	prep_output_close(out);
out:
	free(text);
	free(name);
	return r;
}

int prep_undo_mark_remove(const char *base, struct prep_err *err)
{
	char *name = prep_file_beside(base, PREP_UNDO_MARK_SUFFIX);
	int r;

	if (name == NULL)
		return prep_fail_errno(err, "%s", base);
	r = unlink(name) == 0 || errno == ENOENT ? prep_file_sync_dir(name, err)
						  : prep_fail_errno(err, "%s: cannot remove", name);
	free(name);
	return r;
}

void prep_undo_mark_clear(struct prep_undo_mark *mark)
{
	free(mark->path);
	mark->path = NULL;
}

void prep_undo_mark_take(struct prep_undo_mark *mark, const struct stat *st)
{
	mark->size = (uint64_t)st->st_size;
	mark->sec = st->st_mtim.tv_sec;
	mark->nsec = (uint32_t)st->st_mtim.tv_nsec;
}

bool prep_undo_mark_unchanged(const struct prep_undo_mark *mark, const struct stat *st)
{
	/* A copy by way of an archive keeps whole seconds. */
	return mark->size == (uint64_t)st->st_size && mark->sec == st->st_mtim.tv_sec &&
	       (st->st_mtim.tv_nsec == 0 || mark->nsec == (uint32_t)st->st_mtim.tv_nsec);
}

int prep_undo_mark_check(const char *base, struct prep_err *err)
{
	struct prep_undo_mark mark;
	int r = prep_undo_mark_read(base, &mark, err);
	bool gone;

	if (r <= 0)
		return r;
	gone = access(mark.path, F_OK) != 0 && errno == ENOENT;
	if (mark.done && gone)
		/* The last step of a commit was cut off. */
		r = prep_undo_mark_remove(base, err);
	else if (mark.committing && gone)
		/* Or it was moved, or is on what is not mounted: then the base may hold nothing of it yet. */
		r = prep_fail(err, PREP_EREFUSED,
			      "%s: a commit of its undo disk %s was cut off, and that is not there: run 'vhd-undo commit' again on where it is now",
			      base, mark.path);
	else if (mark.committing)
		r = prep_fail(err, PREP_EREFUSED,
			      "%s: a commit of its undo disk %s was cut off: run 'vhd-undo commit' again", base, mark.path);
	else if (gone)
		r = prep_fail(err, PREP_EREFUSED,
			      "%s: marked as the base of the undo disk %s, which is not there: 'vhd-undo discard --parent %s %s' lifts the mark",
			      base, mark.path, base, mark.path);
	else
		r = prep_fail(err, PREP_EREFUSED,
			      "%s: the undo disk %s stands on it: 'vhd-undo commit' or 'vhd-undo discard' first", base,
			      mark.path);
	prep_undo_mark_clear(&mark);
	return r;
}
