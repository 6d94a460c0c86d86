/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/parent.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/utf16.h"

/* As long as Windows lets a path be. */
#define NAME_UNITS_MAX 32768

void prep_parent_add(struct prep_parent_ref *ref, const char *name)
{
	char *copy;

	if (name[0] == '\0' || ref->n == PREP_PARENT_NAMES)
		return;
	for (size_t i = 0; i < ref->n; i++)
		if (strcmp(ref->name[i], name) == 0)
			return;
	copy = strdup(name);
	if (copy != NULL)
		ref->name[ref->n++] = copy;
}

void prep_parent_add_utf16(struct prep_parent_ref *ref, const uint8_t *p, size_t units, bool little)
{
	uint8_t *le;
	char *text;
	size_t n = 0;

	if (units > NAME_UNITS_MAX)
		units = NAME_UNITS_MAX;
	le = malloc(2 * units + 1);
	text = malloc(PREP_UTF8_ROOM(units));
	for (; le != NULL && n < units && (p[2 * n] != 0 || p[2 * n + 1] != 0); n++) {
		le[2 * n] = p[2 * n + !little];
		le[2 * n + 1] = p[2 * n + little];
	}
	if (le != NULL && text != NULL) {
		prep_utf16_to_utf8(le, n, text, PREP_UTF8_ROOM(units));
		prep_parent_add(ref, text);
	}
	free(le);
	free(text);
}

void prep_parent_clear(struct prep_parent_ref *ref)
{
	for (size_t i = 0; i < ref->n; i++)
		free(ref->name[i]);
	ref->n = 0;
}

const char *prep_parent_id_text(const uint8_t id[16], char text[37])
{
	char *p = text;

	for (unsigned i = 0; i < 16; i++)
		p += sprintf(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id[i]);
	return text;
}

static bool is_separator(char c)
{
	return c == '\\' || c == '/';
}

/* The name behind the last separator, either kind. */
static const char *last_part(const char *name)
{
	const char *p = name;

	for (const char *c = name; *c != '\0'; c++)
		if (is_separator(*c))
			p = c + 1;
	return p;
}

/* An entry of the folder `dir` with this name, else with one that differs in case alone: its path. */
static char *find_entry(const char *dir, const char *name, size_t len)
{
	const char *slash = dir[strlen(dir) - 1] == '/' ? "" : "/";
	const char *prefix = strcmp(dir, ".") == 0 ? "" : dir;
	struct dirent *e;
	char *path;
	DIR *d;

	if (*prefix == '\0')
		slash = "";
	if (asprintf(&path, "%s%s%.*s", prefix, slash, (int)len, name) < 0)
		return NULL;
	if (access(path, F_OK) == 0)
		return path;
	free(path);
	path = NULL;
	d = opendir(dir);
	while (d != NULL && path == NULL && (e = readdir(d)) != NULL)
		if (strlen(e->d_name) == len && strncasecmp(e->d_name, name, len) == 0 &&
		    asprintf(&path, "%s%s%s", prefix, slash, e->d_name) < 0)
			path = NULL;
	if (d != NULL)
		closedir(d);
	return path;
}

/* The file that `name`, with separators of either kind, is from the folder `dir` on, or NULL. */
static char *resolve(const char *dir, const char *name)
{
	char *path = strdup(dir);

	while (path != NULL && *name != '\0') {
		const size_t len = strcspn(name, "\\/");
		char *next;

		if (len > 0 && !(len == 1 && name[0] == '.')) {
			next = find_entry(path, name, len);
			free(path);
			path = next;
		}
		name += len;
		name += is_separator(*name);
	}
	return path;
}

struct search {
	const char *child;
	const struct prep_parent_ref *ref;
	prep_parent_peek *peek;
	char *wrong;          /* the first file found that is another disk, */
	uint8_t wrong_id[16];
	bool wrong_has_id;    /* or none that can be read */
};

/* Whether the file `path` (taken) is the parent: then *ret. */
static bool try_file(struct search *s, char *path, char **ret)
{
	uint8_t id[16] = { 0 };
	struct stat st;
	int fd;

	if (path == NULL)
		return false;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		const bool has_id = s->peek(fd, id) > 0;

		if (has_id && memcmp(id, s->ref->id, sizeof id) == 0) {
			close(fd);
			*ret = path;
			return true;
		}
		if (s->wrong == NULL) {
			memcpy(s->wrong_id, id, sizeof id);
			s->wrong_has_id = has_id;
			s->wrong = strdup(path);
		}
	}
	if (fd >= 0)
		close(fd);
	free(path);
	return false;
}

/* Look for all names, seen from one folder. */
static bool try_folder(struct search *s, const char *dir, char **ret)
{
	for (size_t i = 0; i < s->ref->n; i++) {
		const char *name = s->ref->name[i];
		const bool drive = isalpha((unsigned char)name[0]) && name[1] == ':';

		if (!drive && !is_separator(name[0]) && try_file(s, resolve(dir, name), ret))
			return true;
		if (try_file(s, resolve(dir, last_part(name)), ret))
			return true;
		if (drive)
			name += 2;
		/* Two separators: a path on a server. */
		if (is_separator(name[0]) && !is_separator(name[1]) && try_file(s, resolve("/", name), ret))
			return true;
	}
	return false;
}

/* The folder of the path `child`, and of what it leads to where it is a link. */
static bool try_names(struct search *s, char **ret)
{
	char *given = strdup(s->child), *real = realpath(s->child, NULL);
	const char *dir = given != NULL ? dirname(given) : NULL;
	const char *real_dir = real != NULL ? dirname(real) : NULL;
	bool found = dir != NULL && try_folder(s, dir, ret);

	if (!found && real_dir != NULL)
		found = try_folder(s, real_dir, ret);
	free(given);
	free(real);
	return found;
}

static int not_found(const struct search *s, struct prep_err *err)
{
	const char *name = s->ref->n > 0 ? s->ref->name[0] : "(without a name)";
	char want[37], have[37];

	prep_parent_id_text(s->ref->id, want);
	if (s->wrong == NULL)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: a differencing disk, and its parent %s (id %s) was not found: name it by --parent",
				 s->child, name, want);
	if (!s->wrong_has_id)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: a differencing disk, and %s is not its parent, but no disk of that kind, or a damaged one: name the right one (id %s) by --parent",
				 s->child, s->wrong, want);
	return prep_fail(err, PREP_EREFUSED,
			 "%s: a differencing disk, and %s is not its parent: it has the id %s, not %s: name the right one by --parent",
			 s->child, s->wrong, prep_parent_id_text(s->wrong_id, have), want);
}

int prep_parent_find(const char *child, bool named, const struct prep_parent_ref *ref,
		     const struct prep_parents *parents, prep_parent_peek *peek, char **ret,
		     struct prep_err *err)
{
	struct search s = { .child = child, .ref = ref, .peek = peek };
	bool found = false;

	*ret = NULL;
	for (size_t i = 0; !found && parents != NULL && i < parents->n; i++) {
		if (access(parents->path[i], R_OK) != 0) {
			free(s.wrong);
			return prep_fail_errno(err, "%s", parents->path[i]);
		}
		/* One that has been found as the parent of another is no wrong guess for this. */
		if (strcmp(parents->path[i], child) != 0)
			found = try_file(&s, strdup(parents->path[i]), ret);
	}
	if (!found && named)
		found = try_names(&s, ret);
	if (!found)
		not_found(&s, err);
	free(s.wrong);
	return found ? 0 : -1;
}

char *prep_parent_relative(const char *from, const char *to)
{
	size_t same = 0, room;
	char *ret, *p;

	/* What both have in common, in whole folders. */
	for (size_t i = 0; from[i] != '\0' && from[i] == to[i]; i++)
		if (from[i] == '/')
			same = i + 1;
	room = strlen(to) + 3;
	for (const char *c = from + same; *c != '\0'; c++)
		room += *c == '/' ? 3 : 0;
	ret = p = malloc(room);
	if (ret == NULL)
		return NULL;
	p = stpcpy(p, ".\\");
	for (const char *c = from + same; *c != '\0'; c++)
		if (*c == '/')
			p = stpcpy(p, "..\\");
	stpcpy(p, to + same);
	for (; *p != '\0'; p++)
		if (*p == '/')
			*p = '\\';
	return ret;
}
