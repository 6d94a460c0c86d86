/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdio.h>
#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/ntfs_dir.h"
#include "libprep/volume/ntfs_internal.h"

/* Paths of Windows have at most 32767 units; deeper chains than this are circles. */
#define PATH_ROOM (32767 * 3 + 1024)
#define DEPTH_MAX 4096

/* A directory in the arena, in units of 8 bytes */
#define NODE_PARENT 0    /* reference */
#define NODE_SEQUENCE 8  /* 16 bits */
#define NODE_LEN 10      /* 16 bits */
#define NODE_SYSTEM 12   /* 0 not known, else one of: */
#define NODE_NAME 16     /* UTF-8 */
#define SYSTEM_NO 1
#define SYSTEM_YES 2

#define NO_DIRECTORY 1u

int prep_ntfs_tree_open(struct prep_ntfs_tree *t, struct prep_ntfs_mft *m, struct prep_err *err)
{
	*t = (struct prep_ntfs_tree){ .m = m, .used = 16 };
	t->at = calloc(m->records, sizeof *t->at);
	t->path = malloc(PATH_ROOM);
	if (t->at == NULL || t->path == NULL) {
		prep_ntfs_tree_close(t);
		return prep_fail_nomem(err);
	}
	return 0;
}

void prep_ntfs_tree_close(struct prep_ntfs_tree *t)
{
	free(t->at);
	free(t->arena);
	free(t->path);
	*t = (struct prep_ntfs_tree){ .m = NULL };
}

bool prep_ntfs_file_name(const struct prep_ntfs_file *f, struct prep_ntfs_name *ret)
{
	struct prep_ntfs_cursor c = { 0, 0 };
	struct prep_ntfs_attr a;
	struct prep_ntfs_name name;
	bool found = false;

	while (prep_ntfs_file_next(f, &c, &a) > 0) {
		if (a.type != PREP_NTFS_ATTR_NAME || !a.resident ||
		    !prep_ntfs_name_decode(a.value, a.value_len, &name))
			continue;
		if (!found || name.space != PREP_NTFS_DOS)
			*ret = name;
		found = true;
		if (name.space != PREP_NTFS_DOS)
			break;
	}
	return found;
}

static int add_node(struct prep_ntfs_tree *t, const struct prep_ntfs_file *f, struct prep_err *err)
{
	const uint64_t number = f->record[0].number;
	char text[PREP_NTFS_NAME_ROOM];
	struct prep_ntfs_name name;
	uint8_t *node, *grown;
	size_t len, room;

	t->at[number] = NO_DIRECTORY;
	if (!f->record[0].folder || !prep_ntfs_file_name(f, &name))
		return 0;
	len = prep_ntfs_name_utf8(&name, text);
	if (t->arena == NULL || t->used + NODE_NAME + PREP_NTFS_NAME_ROOM + 8 > t->room) {
		room = t->room > 0 ? 2 * t->room : PREP_MIB;
		if (room / 8 > UINT32_MAX)
			return prep_fail_nomem(err);
		grown = realloc(t->arena, room);
		if (grown == NULL)
			return prep_fail_nomem(err);
		t->arena = grown;
		t->room = room;
	}
	node = t->arena + t->used;
	put_le64(node + NODE_PARENT, name.parent);
	put_le16(node + NODE_SEQUENCE, f->record[0].sequence);
	put_le16(node + NODE_LEN, (uint16_t)len);
	node[NODE_SYSTEM] = number == PREP_NTFS_EXTEND ? SYSTEM_YES : number == PREP_NTFS_ROOT ? SYSTEM_NO : 0;
	memcpy(node + NODE_NAME, text, len);
	t->at[number] = (uint32_t)(t->used / 8);
	t->used += prep_round_up(NODE_NAME + len, 8);
	return 0;
}

/* The node of a directory: NULL when there is no such directory. */
static int node_of(struct prep_ntfs_tree *t, uint64_t ref, uint8_t **ret, struct prep_err *err)
{
	const uint64_t number = PREP_NTFS_NUMBER(ref);
	struct prep_err damage = PREP_ERR_INIT;
	struct prep_ntfs_file f;
	int r;

	*ret = NULL;
	if (number >= t->m->records)
		return 0;
	if (t->at[number] == 0) {
		t->at[number] = NO_DIRECTORY;
		if (prep_ntfs_file_load(t->m, number, &f, &damage) == 0) {
			r = add_node(t, &f, err);
			prep_ntfs_file_clear(&f);
			if (r < 0)
				return -1;
		} else if (damage.code != PREP_EDAMAGED) {
			return prep_fail(err, damage.code, "%s", damage.msg);
		}
	}
	if (t->at[number] == NO_DIRECTORY)
		return 0;
	*ret = t->arena + (size_t)t->at[number] * 8;
	/* A stale reference means that its directory is gone. */
	if (PREP_NTFS_SEQUENCE(ref) != 0 && PREP_NTFS_SEQUENCE(ref) != get_le16(*ret + NODE_SEQUENCE))
		*ret = NULL;
	return 0;
}

/* Put the path of a folder, which ends in '/', before `end`: *ret is where it begins. */
static int folder_path(struct prep_ntfs_tree *t, uint64_t ref, char *end, char **ret,
		       struct prep_err *err)
{
	char lost[48], *p = end;
	uint8_t *node = NULL;
	unsigned depth;
	size_t len;

	*--p = '/';
	for (depth = 0; PREP_NTFS_NUMBER(ref) != PREP_NTFS_ROOT; depth++) {
		if (node_of(t, ref, &node, err) < 0)
			return -1;
		if (node != NULL && depth < DEPTH_MAX) {
			len = get_le16(node + NODE_LEN);
			if ((size_t)(p - t->path) > len + sizeof lost) {
				p -= len;
				memcpy(p, node + NODE_NAME, len);
				*--p = '/';
				ref = get_le64(node + NODE_PARENT);
				continue;
			}
		}
		/* Cut a circle here, so that nobody walks it again. */
		if (node != NULL)
			t->at[PREP_NTFS_NUMBER(ref)] = NO_DIRECTORY;
		len = (size_t)snprintf(lost, sizeof lost, "/[record %llu]",
				       (unsigned long long)PREP_NTFS_NUMBER(ref));
		p -= len;
		memcpy(p, lost, len);
		break;
	}
	*ret = p;
	return 0;
}

int prep_ntfs_tree_path(struct prep_ntfs_tree *t, const struct prep_ntfs_name *name,
			const char **ret, struct prep_err *err)
{
	/* The name stands at the buffer's end, its folder's path before it. */
	char *const start = t->path + PATH_ROOM - PREP_NTFS_NAME_ROOM;

	if (t->parent != name->parent || t->folder == NULL) {
		t->folder = NULL;
		if (folder_path(t, name->parent, start, &t->folder, err) < 0)
			return -1;
		t->parent = name->parent;
	}
	prep_ntfs_name_utf8(name, start);
	*ret = t->folder;
	/* The root is called "." and its own parent. */
	if (PREP_NTFS_NUMBER(name->parent) == PREP_NTFS_ROOT && strcmp(start, ".") == 0)
		*ret = "/";
	return 0;
}

int prep_ntfs_tree_system(struct prep_ntfs_tree *t, uint64_t ref, struct prep_err *err)
{
	uint64_t up = ref;
	uint8_t *node = NULL;
	unsigned depth;
	uint8_t known = 0;

	for (depth = 0; known == 0 && depth < DEPTH_MAX; depth++) {
		if (node_of(t, up, &node, err) < 0)
			return -1;
		if (node == NULL)
			break;
		known = node[NODE_SYSTEM];
		up = get_le64(node + NODE_PARENT);
	}
	if (known == 0)
		known = SYSTEM_NO;
	if (node_of(t, ref, &node, err) < 0)
		return -1;
	if (node != NULL)
		node[NODE_SYSTEM] = known;
	return known == SYSTEM_YES;
}
