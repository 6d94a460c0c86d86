/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/client_settings.h"

#include <dirent.h>
#include <errno.h>
#include <expat.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "libprep/base/file.h"
#include "libprep/trim/folder.h"

int prep_folder_list_add(struct prep_folder_list *l, const char *path, struct prep_err *err)
{
	char **grown = reallocarray(l->path, l->n + 1, sizeof *grown);

	if (grown == NULL)
		return prep_fail_nomem(err);
	l->path = grown;
	l->path[l->n] = strdup(path);
	if (l->path[l->n] == NULL)
		return prep_fail_nomem(err);
	l->n++;
	return 0;
}

void prep_folder_list_clear(struct prep_folder_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->path[i]);
	free(l->path);
	*l = (struct prep_folder_list){ NULL, 0 };
}

void prep_client_settings_clear(struct prep_client_settings *s)
{
	prep_folder_list_clear(&s->xp);
	prep_folder_list_clear(&s->vista);
}

/* ---- Reading ---- */

struct parse {
	XML_Parser parser;
	const char *name;                /* of the file */
	struct prep_client_settings *s;
	struct prep_folder_list *list;   /* that is open, or NULL */
	bool in_string;
	char text[PREP_CLIENT_SETTINGS_PATH_MAX + 1]; /* of the string, so far */
	size_t len;
	struct prep_err *err;
};

static void refuse(struct parse *p, const char *what)
{
	prep_fail(p->err, PREP_EREFUSED, "%s: line %lu: %s", p->name,
		  (unsigned long)XML_GetCurrentLineNumber(p->parser), what);
	XML_StopParser(p->parser, XML_FALSE);
}

static void XMLCALL start_element(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	struct parse *p = arg;

	(void)attributes;
	if (p->in_string) {
		refuse(p, "markup inside of a path");
	} else if (strcmp(name, "HostIndexingXP") == 0) {
		p->list = &p->s->xp;
	} else if (strcmp(name, "HostIndexingVista") == 0) {
		p->list = &p->s->vista;
	} else if (p->list != NULL && strcmp(name, "string") == 0) {
		p->in_string = true;
		p->len = 0;
	}
}

static void XMLCALL end_element(void *arg, const XML_Char *name)
{
	struct parse *p = arg;
	char *from = p->text;

	if (p->in_string && strcmp(name, "string") == 0) {
		p->in_string = false;
		while (p->len > 0 && strchr(" \t\r\n", p->text[p->len - 1]) != NULL)
			p->len--;
		p->text[p->len] = '\0';
		from += strspn(from, " \t\r\n");
		if (*from == '\0')
			return;
		if (p->list->n == PREP_CLIENT_SETTINGS_FOLDERS_MAX)
			refuse(p, "too many folders");
		else if (prep_folder_list_add(p->list, from, p->err) < 0)
			XML_StopParser(p->parser, XML_FALSE);
	} else if (strcmp(name, "HostIndexingXP") == 0 || strcmp(name, "HostIndexingVista") == 0) {
		p->list = NULL;
	}
}

static void XMLCALL text(void *arg, const XML_Char *s, int len)
{
	struct parse *p = arg;

	if (!p->in_string)
		return;
	if ((size_t)len > PREP_CLIENT_SETTINGS_PATH_MAX - p->len) {
		refuse(p, "a path that is too long");
		return;
	}
	memcpy(p->text + p->len, s, (size_t)len);
	p->len += (size_t)len;
}

static void XMLCALL doctype(void *arg, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid,
			    int internal)
{
	(void)name;
	(void)sysid;
	(void)pubid;
	(void)internal;
	refuse(arg, "a DOCTYPE, which these settings do not have");
}

static int parse(struct parse *p, const char *buf, size_t len)
{
	p->parser = XML_ParserCreate(NULL);
	if (p->parser == NULL)
		return prep_fail_nomem(p->err);
	XML_SetUserData(p->parser, p);
	XML_SetElementHandler(p->parser, start_element, end_element);
	XML_SetCharacterDataHandler(p->parser, text);
	XML_SetStartDoctypeDeclHandler(p->parser, doctype);
	if (XML_Parse(p->parser, buf, (int)len, 1) != XML_STATUS_OK)
		refuse(p, XML_ErrorString(XML_GetErrorCode(p->parser)));
	XML_ParserFree(p->parser);
	if (p->err->code == PREP_DONE && p->s->xp.n == 0 && p->s->vista.n == 0)
		prep_fail(p->err, PREP_EREFUSED, "%s: neither HostIndexingXP nor HostIndexingVista names a folder",
			  p->name);
	return p->err->code == PREP_DONE ? 0 : -1;
}

int prep_client_settings_read(const char *path, struct prep_client_settings *ret, struct prep_err *err)
{
	struct parse p = { .name = path, .s = ret, .err = err };
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *buf = malloc(PREP_CLIENT_SETTINGS_SIZE_MAX + 1);
	int64_t len;
	int r = -1;

	*ret = (struct prep_client_settings){ .xp = { NULL, 0 } };
	if (fd < 0)
		prep_fail_errno(err, "%s: cannot open", path);
	else if (buf == NULL)
		prep_fail_nomem(err);
	else if ((len = prep_file_read(fd, buf, PREP_CLIENT_SETTINGS_SIZE_MAX + 1, path, err)) < 0)
		r = -1;
	else if (len > PREP_CLIENT_SETTINGS_SIZE_MAX)
		prep_fail(err, PREP_EREFUSED, "%s: too large for a ClientSettings.xml", path);
	else
		r = parse(&p, buf, (size_t)len);
	if (r < 0)
		prep_client_settings_clear(ret);
	free(buf);
	if (fd >= 0)
		close(fd);
	return r;
}

/* ---- Finding the folders ---- */

/* What the variables stand for, below the root: the first that exists. */
static const struct {
	const char *name, *folder;
} variable[] = {
	{ "WINDIR", "Windows" },
	{ "WINDIR", "WINNT" },
	{ "SystemRoot", "Windows" },
	{ "SystemRoot", "WINNT" },
	{ "ProgramFiles", "Program Files" },
	{ "ProgramFiles(x86)", "Program Files (x86)" },
	{ "ProgramW6432", "Program Files" },
	{ "CommonProgramFiles", "Program Files\\Common Files" },
	{ "CommonProgramFiles(x86)", "Program Files (x86)\\Common Files" },
	{ "ProgramData", "ProgramData" },
	{ "ALLUSERSPROFILE", "ProgramData" },
	{ "ALLUSERSPROFILE", "Documents and Settings\\All Users" },
	{ "SystemDrive", "" },
};

/* The name that `dir` has for a component of len bytes, its case ignored. The caller frees it; NULL: none. */
static char *find_name(int dir, const char *component, size_t len)
{
	const int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *e;
	char *found = NULL;

	if (d == NULL) {
		if (fd >= 0)
			close(fd);
		return NULL;
	}
	while ((e = readdir(d)) != NULL) {
		if (strlen(e->d_name) != len || strncasecmp(e->d_name, component, len) != 0)
			continue;
		/* Of several the one that is spelt alike, else the first by name: not by chance. */
		if (found == NULL || strncmp(e->d_name, component, len) == 0 ||
		    (strncmp(found, component, len) != 0 && strcmp(e->d_name, found) < 0)) {
			free(found);
			found = strdup(e->d_name);
		}
	}
	closedir(d);
	return found;
}

/*
 * Go from `root` by the components of a Windows path. Returns the path below
 * root as the host spells it, NULL where a component is missing or is no folder.
 */
static char *find_folder(const char *root, const char *path)
{
	char *ret = strdup(root), *longer, *name;
	int fd = prep_folder_open(root), next;

	while (ret != NULL && fd >= 0) {
		size_t len;

		path += strspn(path, "\\/");
		len = strcspn(path, "\\/");
		if (len == 0)
			break;
		name = len <= 2 && strncmp(path, "..", len) == 0 ? NULL : find_name(fd, path, len);
		next = name != NULL ? prep_folder_open_below(fd, name, O_DIRECTORY) : -1;
		if (next < 0 || asprintf(&longer, "%s%s%s", ret, ret[strlen(ret) - 1] == '/' ? "" : "/", name) < 0)
			longer = NULL;
		free(name);
		free(ret);
		ret = longer;
		close(fd);
		fd = next;
		path += len;
	}
	if (fd < 0) {
		free(ret);
		ret = NULL;
	} else {
		close(fd);
	}
	return ret;
}

/* The folder that one entry names, by each meaning that its variable may have. NULL with a note. */
static char *resolve(const char *root, const char *entry, struct prep_notes *notes)
{
	const char *rest = entry, *end;
	bool known = false;
	char *found = NULL, *path;

	/* A drive letter: the root is that drive, whichever it was. */
	if (rest[0] != '%') {
		if (rest[0] != '\0' && rest[1] == ':')
			rest += 2;
		found = find_folder(root, rest);
		known = true;
	} else if ((end = strchr(rest + 1, '%')) != NULL) {
		const size_t len = (size_t)(end - rest - 1);

		for (size_t i = 0; i < sizeof variable / sizeof variable[0] && found == NULL; i++) {
			if (strlen(variable[i].name) != len || strncasecmp(variable[i].name, rest + 1, len) != 0)
				continue;
			known = true;
			if (asprintf(&path, "%s\\%s", variable[i].folder, end + 1) < 0)
				continue;
			found = find_folder(root, path);
			free(path);
		}
	}
	if (found == NULL)
		prep_note(notes, "%s: %s", entry,
			  known ? "no such folder below the root" : "a variable that is not known");
	return found;
}

int prep_client_settings_resolve(const struct prep_client_settings *s, const char *root,
				 struct prep_folder_list *ret, struct prep_notes *notes,
				 struct prep_err *err)
{
	const struct prep_folder_list *list;
	const int fd = prep_folder_open(root);
	char *users;
	int r = 0;

	*ret = (struct prep_folder_list){ NULL, 0 };
	if (fd < 0)
		return prep_fail_errno(err, "%s: cannot open the folder", root);
	close(fd);
	users = find_folder(root, "Users");
	list = s->vista.n > 0 && (users != NULL || s->xp.n == 0) ? &s->vista : &s->xp;
	if (list->n == 0)
		list = &s->vista;
	free(users);
	for (size_t i = 0; i < list->n && r == 0; i++) {
		char *found = resolve(root, list->path[i], notes);

		if (found != NULL)
			r = prep_folder_list_add(ret, found, err);
		free(found);
	}
	if (r < 0)
		prep_folder_list_clear(ret);
	return r;
}
