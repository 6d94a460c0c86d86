// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/tools/populate/populate.h"

/* ---- import: a volume's files laid out anew ---- */

static struct {
	uint64_t *ref;
	char **path;
	size_t n, room;
} links;		/* files with several names, by their record in the source */

static const char *link_of(uint64_t ref, const char *path)
{
	for (size_t i = 0; i < links.n; i++)
		if (links.ref[i] == ref)
			return links.path[i];
	if (links.n == links.room) {
		links.room = links.room ? links.room * 2 : 256;
		links.ref = realloc(links.ref, links.room * sizeof(*links.ref));
		links.path = realloc(links.path, links.room * sizeof(*links.path));
		if (!links.ref || !links.path)
			DIE("out of memory");
	}
	links.ref[links.n] = ref;
	links.path[links.n++] = xstrdup(path);
	return NULL;
}

static void import_stream(ntfs_inode *from, ntfs_inode *to, char *stream, const char *path)
{
	static uint8_t buf[CHUNK];
	struct path p = { .text = (char *)path, .stream = *stream ? stream : NULL };
	ntfs_attr *in = stream_open(from, stream, path), *na = data_open(to, &p);
	bool sparse = in->data_flags & ATTR_IS_SPARSE;

	if (sparse && ntfs_attr_truncate(na, in->data_size) < 0)
		DIE("%s: %s", path, strerror(errno));
	for (s64 at = 0; at < in->data_size;) {
		size_t max = sparse ? BLOCK : CHUNK, n = in->data_size - at < (s64)max ? in->data_size - at : (s64)max;

		data_read(in, at, buf, n, path);
		if (!sparse || !all_zero(buf, n))
			data_write(na, at, buf, n, path);
		at += n;
	}
	data_close(na, path);
	ntfs_attr_close(in);
}

static void import_reparse(ntfs_inode *from, ntfs_inode *to, const char *path)
{
	int n = ntfs_get_ntfs_reparse_data(from, NULL, 0);
	char *b;

	if (n <= 0)
		return;
	b = xalloc(n);
	if (ntfs_get_ntfs_reparse_data(from, b, n) != n || ntfs_set_ntfs_reparse_data(to, b, n, 0) < 0)
		DIE("%s: reparse point: %s", path, strerror(errno));
	free(b);
}

static void import_times(ntfs_inode *from, ntfs_inode *to)
{
	const FILE_ATTR_FLAGS keep = FILE_ATTR_READONLY | FILE_ATTR_HIDDEN | FILE_ATTR_SYSTEM | FILE_ATTR_ARCHIVE |
				     FILE_ATTR_NOT_CONTENT_INDEXED;

	to->creation_time = from->creation_time;
	to->last_data_change_time = from->last_data_change_time;
	to->last_mft_change_time = from->last_mft_change_time;
	to->last_access_time = from->last_access_time;
	to->flags = (to->flags & ~keep) | (from->flags & keep);
	ntfs_inode_mark_dirty(to);
	NInoFileNameSetDirty(to);
}

static void import_dir(ntfs_volume *src, uint64_t src_ref, const char *path)
{
	ntfs_inode *sdir = inode_open(src, src_ref, path), *dir, *from, *to;
	struct entries l;

	list_dir(sdir, &l, path);
	for (size_t i = 0; i < l.n; i++) {
		char *sub = join(path, "/", l.e[i].name), **streams, dos[64];
		uint64_t dir_ref, ref;
		const char *same;
		bool is_dir;
		int short_len;
		size_t n;

		if (l.e[i].ref < FILE_first_user) {
			free(sub);
			continue;
		}
		from = inode_open(src, l.e[i].ref, sub);
		is_dir = from->mrec->flags & MFT_RECORD_IS_DIRECTORY;
		short_len = ntfs_get_ntfs_dos_name(from, sdir, dos, sizeof(dos) - 1);
		same = !is_dir && le16_to_cpu(from->mrec->link_count) > (short_len > 0 ? 2 : 1) ? link_of(l.e[i].ref, sub) : NULL;
		if (same) {
			link_name(sub, same);
			inode_close(from, sub);
			free(sub);
			continue;
		}
		dir = dir_open(volume, path, true);
		dir_ref = dir->mft_no;
		to = create(dir, l.e[i].name, is_dir ? S_IFDIR : S_IFREG, sub);
		ref = to->mft_no;
		inode_close(dir, path);
		if (from->flags & FILE_ATTR_COMPRESSED)
			to->flags |= FILE_ATTR_COMPRESSED;
		n = list_streams(from, &streams, sub);
		for (size_t s = 0; s < n; s++) {
			import_stream(from, to, streams[s], sub);
			free(streams[s]);
		}
		free(streams);
		import_reparse(from, to, sub);
		import_times(from, to);
		inode_close(to, sub);
		if (is_dir && !(from->flags & FILE_ATTR_REPARSE_POINT))
			import_dir(src, l.e[i].ref, sub);
		if (short_len > 0) {
			dos[short_len] = 0;
			set_short(dir_ref, ref, dos, sub);
		}
		to = inode_open(volume, ref, sub);	/* what was put into a folder has changed its times */
		import_times(from, to);
		inode_close(to, sub);
		inode_close(from, sub);
		free(sub);
	}
	inode_close(sdir, path);
	free_entries(&l);
}

void op_import(char **a, int n)
{
	struct image im;
	ntfs_volume *src;

	image_open(&im, a[1], n > 2 ? (int64_t)number(a[2]) : -1, true);
	src = volume_open(&im);
	import_dir(src, FILE_root, "");
	volume_close(src, &im);
}
