/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Removing one name, by libntfs-3g, which would as readily remove $Volume:
 * so it is guarded here, whatever the caller has looked at. It also stamps the
 * folder, and a file that has other names, with the clock. They get their old
 * stamps again, so that the same removal makes the same bytes at any time; and
 * the length of extended attributes, which it clears in their folders' entries.
 */
#include "libprep/volume/ntfs_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <ntfs-3g/dir.h>
#include <ntfs-3g/index.h>
#include <ntfs-3g/inode.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/ntfs_dir.h"

#define DEPTH_MAX 4096

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

/* The name as it stands on disk, which the path shows as UTF-8: into `text`, units returned. */
static int name_on_disk(struct prep_ntfs *n, struct prep_ntfs_mft *m, const struct prep_fs_entry *entry,
			ntfschar *text, struct prep_err *err)
{
	struct prep_ntfs_cursor c = { 0, 0 };
	char utf8[PREP_NTFS_NAME_ROOM];
	struct prep_ntfs_name name;
	struct prep_ntfs_attr a;
	struct prep_ntfs_file f;
	int len = 0;

	if (prep_ntfs_file_load(m, entry->id, &f, err) < 0)
		return -1;
	while (len == 0 && prep_ntfs_file_next(&f, &c, &a) > 0) {
		if (a.type != PREP_NTFS_ATTR_NAME || !a.resident ||
		    !prep_ntfs_name_decode(a.value, a.value_len, &name) ||
		    name.space == PREP_NTFS_DOS || name.parent != entry->parent_id)
			continue;
		prep_ntfs_name_utf8(&name, utf8);
		if (strcmp(utf8, base_name(entry->path)) != 0)
			continue;
		memcpy(text, name.text, 2 * (size_t)name.len);
		len = name.len;
	}
	prep_ntfs_file_clear(&f);
	if (len == 0)
		return prep_fail(err, PREP_EFAIL, "%s: %s: not there any more", n->disk->name, entry->path);
	return len;
}

/* Whether a folder is $Extend or below it, or its parents lead nowhere, which is no better. 2: it has too many. */
static int is_system_folder(struct prep_ntfs *n, struct prep_ntfs_mft *m, uint64_t ref, struct prep_err *err)
{
	uint64_t above[DEPTH_MAX];
	struct prep_ntfs_name name;
	struct prep_ntfs_file f;
	unsigned depth;
	bool known;

	if (n->ordinary == NULL && (n->ordinary = calloc(1, m->records / 8 + 1)) == NULL)
		return prep_fail_nomem(err);
	prep_bit_set(n->ordinary, PREP_NTFS_ROOT);
	for (depth = 0; depth < DEPTH_MAX; depth++) {
		above[depth] = PREP_NTFS_NUMBER(ref);
		if (above[depth] < m->records && prep_bit_get(n->ordinary, above[depth]))
			break;
		if (above[depth] < PREP_NTFS_FIRST_USER)
			return 1;
		if (prep_ntfs_file_load(m, ref, &f, err) < 0)
			return -1;
		known = prep_ntfs_file_name(&f, &name);
		if (known)
			ref = name.parent;
		prep_ntfs_file_clear(&f);
		if (!known)
			return 1;
	}
	if (depth == DEPTH_MAX)
		return 2;
	while (depth-- > 0)
		prep_bit_set(n->ordinary, above[depth]);
	return 0;
}

static int check(struct prep_ntfs *n, struct prep_ntfs_mft *m, const struct prep_fs_entry *entry,
		 struct prep_err *err)
{
	const char *const name = base_name(entry->path);
	int r;

	if (!n->write)
		return prep_fail(err, PREP_EREFUSED, "%s: opened for reading only", n->disk->name);
	r = entry->system || PREP_NTFS_NUMBER(entry->id) < PREP_NTFS_FIRST_USER || name[0] == '\0' ||
	    strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
	if (!r)
		r = is_system_folder(n, m, entry->parent_id, err);
	if (r < 0)
		return -1;
	if (r == 0)
		return 0;
	return prep_fail(err, PREP_EREFUSED, "%s: %s: %s", n->disk->name, entry->path,
			 r == 2 ? "nested more deeply than any path" : "a system file of NTFS, which cannot be removed");
}

static int remove_failed(struct prep_ntfs *n, const struct prep_fs_entry *entry, struct prep_err *err)
{
	char what[512];

	if (errno == ENOTEMPTY)
		return prep_fail(err, PREP_EREFUSED, "%s: %s: the folder is not empty", n->disk->name,
				 entry->path);
	snprintf(what, sizeof what, "%s: cannot be removed", entry->path);
	return prep_ntfs_fail(n, err, what);
}

static struct prep_ntfs_stamps stamps_of(const ntfs_inode *ni)
{
	return (struct prep_ntfs_stamps){
		.number = ni->mft_no, .created = sle64_to_cpu(ni->creation_time),
		.written = sle64_to_cpu(ni->last_data_change_time), .changed = sle64_to_cpu(ni->last_mft_change_time),
		.read = sle64_to_cpu(ni->last_access_time),
	};
}

/* Put the packed length of extended attributes into one of a file's entries. 0, or -1 with errno. */
static int tell_ea_length(ntfs_volume *vol, FILE_NAME_ATTR *name, le16 length)
{
	ntfs_inode *dir = ntfs_inode_open(vol, MREF_LE(name->parent_directory));
	ntfs_index_context *index;
	int r = -1;

	if (dir == NULL)
		return -1;
	index = ntfs_index_ctx_get(dir, NTFS_INDEX_I30, 4);
	if (index != NULL && ntfs_index_lookup(name, sizeof *name, index) == 0) {
		((FILE_NAME_ATTR *)index->data)->packed_ea_size = length;
		ntfs_index_entry_mark_dirty(index);
		r = 0;
	}
	if (index != NULL)
		ntfs_index_ctx_put(index);
	return ntfs_inode_close(dir) == 0 ? r : -1;
}

/*
 * The length that $EA_INFORMATION has, in the entry of each name: a reparse point's tag has its place there (packed_ea_size
 * and reparse_point_tag in <ntfs-3g/layout.h>). 0, or -1 with errno.
 */
static int tell_ea_lengths(ntfs_inode *ni)
{
	ntfs_attr_search_ctx *ctx;
	EA_INFORMATION info;
	ntfs_attr *na;
	int r;

	if (ni->flags & FILE_ATTR_REPARSE_POINT)
		return 0;
	na = ntfs_attr_open(ni, AT_EA_INFORMATION, NULL, 0);
	if (na == NULL)
		return errno == ENOENT ? 0 : -1;
	r = ntfs_attr_pread(na, 0, sizeof info, &info) == sizeof info ? 0 : -1;
	ntfs_attr_close(na);
	/* By itself it would be written when it is closed, and clear them once more. */
	if (r < 0 || ntfs_inode_sync(ni) != 0)
		return -1;
	ctx = ntfs_attr_get_search_ctx(ni, NULL);
	if (ctx == NULL)
		return -1;
	while (r == 0 && ntfs_attr_lookup(AT_FILE_NAME, NULL, 0, 0, 0, NULL, 0, ctx) == 0)
		r = tell_ea_length(ni->vol, (FILE_NAME_ATTR *)((u8 *)ctx->attr + le16_to_cpu(ctx->attr->value_offset)),
				   info.ea_length);
	ntfs_attr_put_search_ctx(ctx);
	return r;
}

/* Give a record, where it is still in use, its stamps again, and the names by which it is known too. */
static int restore(struct prep_ntfs *n, const struct prep_ntfs_stamps *s, struct prep_err *err)
{
	ntfs_inode *ni;
	int r, saved;

	if (s->number == 0)
		return 0;
	ni = ntfs_inode_open(n->vol, s->number);
	if (ni == NULL)
		return errno == ENOENT ? 0 : prep_ntfs_fail(n, err, "cannot open a file record for its time stamps");
	ni->creation_time = cpu_to_sle64(s->created);
	ni->last_data_change_time = cpu_to_sle64(s->written);
	ni->last_mft_change_time = cpu_to_sle64(s->changed);
	ni->last_access_time = cpu_to_sle64(s->read);
	NInoFileNameSetDirty(ni);
	NInoSetDirty(ni);
	r = tell_ea_lengths(ni);
	saved = errno;
	if (ntfs_inode_close(ni) == 0 && r == 0)
		return 0;
	if (r < 0)
		errno = saved;
	return prep_ntfs_fail(n, err, "cannot write the time stamps of a file record");
}

int prep_ntfs_remove_end(struct prep_ntfs *n, struct prep_err *err)
{
	const struct prep_ntfs_stamps folder = n->folder;

	n->folder.number = 0;
	return restore(n, &folder, err);
}

int prep_ntfs_remove(struct prep_fs *fs, const struct prep_fs_entry *entry, struct prep_err *err)
{
	struct prep_ntfs *n = (struct prep_ntfs *)fs;
	struct prep_ntfs_stamps folder, file = { .number = 0 };
	ntfs_inode *ni, *dir;
	struct prep_ntfs_mft m;
	ntfschar text[255];
	int len = -1;

	if (prep_ntfs_mft_open(&m, n, err) < 0)
		return -1;
	if (check(n, &m, entry, err) == 0)
		len = name_on_disk(n, &m, entry, text, err);
	prep_ntfs_mft_close(&m);
	if (len < 0)
		return -1;
	/* Before another folder is begun, which this one may lie in: what is removed has its old stamps as well. */
	if (n->folder.number != PREP_NTFS_NUMBER(entry->parent_id) && prep_ntfs_remove_end(n, err) < 0)
		return -1;
	dir = ntfs_inode_open(n->vol, entry->parent_id);
	if (dir == NULL)
		return remove_failed(n, entry, err);
	ni = ntfs_inode_open(n->vol, entry->id);
	if (ni == NULL) {
		const int saved = errno;

		ntfs_inode_close(dir);
		errno = saved;
		return remove_failed(n, entry, err);
	}
	folder = n->folder.number == 0 ? stamps_of(dir) : n->folder;
	/* Its own 8.3 name counts as well. */
	if (le16_to_cpu(ni->mrec->link_count) > 1)
		file = stamps_of(ni);
	/* Closes both, whatever comes of it. */
	if (ntfs_delete(n->vol, NULL, ni, dir, text, (u8)len) != 0)
		return remove_failed(n, entry, err);
	n->folder = folder;
	if (n->device.err.code != PREP_DONE)
		return prep_fail(err, n->device.err.code, "%s", n->device.err.msg);
	return restore(n, &file, err);
}
