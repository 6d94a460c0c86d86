// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/tools/populate/populate.h"

/* ---- names and folders ---- */

void path_split(struct path *p, const char *text, bool with_stream)
{
	char *slash, *colon;

	if (text[0] != '/' || !text[1])
		DIE("%s: a path begins with / and names something", text);
	p->text = xstrdup(text);
	p->dir = xstrdup(text);
	slash = strrchr(p->dir, '/');
	*slash = 0;
	p->name = slash + 1;
	colon = strchr(p->name, ':');
	p->stream = NULL;
	if (colon) {
		if (!with_stream)
			DIE("%s: a stream cannot stand here", text);
		*colon = 0;
		p->stream = colon + 1;
	}
	if (!*p->name)
		DIE("%s: empty name", text);
}

void path_free(struct path *p)
{
	free(p->dir);
	free(p->text);
}

int to_ucs(const char *s, ntfschar **u)
{
	int n;

	*u = NULL;
	n = ntfs_mbstoucs(s, u);
	if (n <= 0 || n > 255)
		DIE("%s: not a name for NTFS", s);
	return n;
}

/* MFT number of @name in folder @dir, or -1 when there is none. */
int64_t lookup(ntfs_inode *dir, const char *name)
{
	ntfschar *u;
	int n = to_ucs(name, &u);
	u64 ref = ntfs_inode_lookup_by_name(dir, u, n);

	free(u);
	return ref == (u64)-1 ? -1 : (int64_t)MREF(ref);
}

ntfs_inode *inode_open(ntfs_volume *vol, uint64_t ref, const char *what)
{
	ntfs_inode *ni = ntfs_inode_open(vol, ref);

	if (!ni)
		DIE("%s: %s", what, strerror(errno));
	return ni;
}

void inode_close(ntfs_inode *ni, const char *what)
{
	if (ntfs_inode_close(ni) < 0)
		DIE("%s: %s", what, strerror(errno));
}

ntfs_inode *create(ntfs_inode *dir, const char *name, mode_t type, const char *what)
{
	ntfschar *u;
	int n = to_ucs(name, &u);
	ntfs_inode *ni = ntfs_create(dir, cpu_to_le32(SECURITY_ID), u, n, type);

	free(u);
	if (!ni)
		DIE("%s: cannot create: %s", what, strerror(errno));
	if (type == S_IFREG)
		ni->flags |= FILE_ATTR_ARCHIVE;
	return ni;
}

/* The folder named last is most often the next one's too. */
static struct {
	ntfs_volume *vol;
	char *path;
	uint64_t ref;
} last_dir;

void forget_dir(void)
{
	free(last_dir.path);
	last_dir.path = NULL;
}

/* Open folder @path ("" is the root), and make it where @make. */
ntfs_inode *dir_open(ntfs_volume *vol, const char *path, bool make)
{
	char *copy, *part, *save = NULL;
	ntfs_inode *dir;

	if (last_dir.path && last_dir.vol == vol && !strcmp(last_dir.path, path))
		return inode_open(vol, last_dir.ref, path);
	dir = inode_open(vol, FILE_root, "/");
	copy = xstrdup(path);
	for (part = strtok_r(copy, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
		int64_t ref = lookup(dir, part);
		ntfs_inode *ni;

		if (ref < 0) {
			if (!make)
				DIE("%s: no such folder: %s", path, part);
			ni = create(dir, part, S_IFDIR, path);
			inode_close(dir, path);
		} else {
			inode_close(dir, path);
			ni = inode_open(vol, ref, path);
		}
		dir = ni;
		if (!(dir->mrec->flags & MFT_RECORD_IS_DIRECTORY))
			DIE("%s: %s is not a folder", path, part);
	}
	free(copy);
	forget_dir();
	last_dir.vol = vol;
	last_dir.path = xstrdup(path);
	last_dir.ref = dir->mft_no;
	return dir;
}

/* Open the file @p; create it where @make and it is missing. */
ntfs_inode *file_open(ntfs_volume *vol, const struct path *p, bool make)
{
	ntfs_inode *dir = dir_open(vol, p->dir, make), *ni;
	int64_t ref = lookup(dir, p->name);

	if (ref < 0) {
		if (!make)
			DIE("%s: no such file", p->text);
		ni = create(dir, p->name, S_IFREG, p->text);
		inode_close(dir, p->text);
	} else {
		inode_close(dir, p->text);
		ni = inode_open(vol, ref, p->text);
	}
	return ni;
}

ntfs_attr *data_open(ntfs_inode *ni, const struct path *p)
{
	ntfschar *u = AT_UNNAMED;
	int n = 0;
	ntfs_attr *na;

	if (p->stream)
		n = to_ucs(p->stream, &u);
	na = ntfs_attr_open(ni, AT_DATA, u, n);
	if (!na && errno == ENOENT) {
		if (ntfs_attr_add(ni, AT_DATA, u, n, NULL, 0) < 0)
			DIE("%s: new stream: %s", p->text, strerror(errno));
		na = ntfs_attr_open(ni, AT_DATA, u, n);
	}
	if (!na)
		DIE("%s: %s", p->text, strerror(errno));
	if (p->stream)
		free(u);
	return na;
}

void data_close(ntfs_attr *na, const char *what)
{
	if (ntfs_attr_pclose(na) < 0)
		DIE("%s: %s", what, strerror(errno));
	ntfs_attr_close(na);
}

void data_write(ntfs_attr *na, uint64_t pos, const void *buf, size_t n, const char *what)
{
	const uint8_t *p = buf;

	while (n) {
		s64 put = ntfs_attr_pwrite(na, pos, n, p);

		if (put <= 0)
			DIE("%s: write: %s", what, strerror(put < 0 ? errno : ENOSPC));
		p += put;
		pos += put;
		n -= put;
	}
}

void data_read(ntfs_attr *na, uint64_t pos, void *buf, size_t n, const char *what)
{
	uint8_t *p = buf;

	while (n) {
		s64 got = ntfs_attr_pread(na, pos, n, p);

		if (got <= 0)
			DIE("%s: read at %" PRIu64 ": %s", what, pos, strerror(got < 0 ? errno : EIO));
		p += got;
		pos += got;
		n -= got;
	}
}

void data_gen(ntfs_attr *na, uint64_t pos, const struct gen *g, const char *what)
{
	static uint8_t buf[CHUNK];
	size_t n;

	for (uint64_t at = 0; at < g->size; at += n) {
		n = gen_read(g, at, buf);
		data_write(na, pos + at, buf, n, what);
	}
}

void touch(ntfs_inode *ni)
{
	ntfs_inode_update_times(ni, NTFS_UPDATE_AMCTIME);
	ntfs_inode_mark_dirty(ni);
}

uint8_t *host_read(const char *file, size_t *len)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *b;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		DIE("%s: %s", file, errno ? strerror(errno) : "not a file");
	b = malloc(st.st_size + 1);
	if (!b)
		DIE("%s: out of memory", file);
	if (full_pread(fd, b, st.st_size, 0) < 0)
		DIE("%s: %s", file, strerror(errno));
	close(fd);
	*len = st.st_size;
	return b;
}

/* ---- the walk ---- */

static int collect(void *arg, const ntfschar *name, const int len, const int type, const s64 pos, const MFT_REF ref,
		   const unsigned dt)
{
	struct entries *l = arg;
	char *s = NULL;

	(void)pos;
	(void)dt;
	if (type == FILE_NAME_DOS)	/* the same file comes under its long name too */
		return 0;
	if (ntfs_ucstombs(name, len, &s, 0) < 0)
		return -1;
	if (!strcmp(s, ".") || !strcmp(s, "..")) {
		free(s);
		return 0;
	}
	if (l->n == l->room) {
		l->room = l->room ? l->room * 2 : 64;
		l->e = realloc(l->e, l->room * sizeof(*l->e));
		if (!l->e)
			DIE("out of memory");
	}
	l->e[l->n++] = (struct entry){ .name = s, .ref = MREF(ref), .dir = dt == NTFS_DT_DIR };
	return 0;
}

void list_dir(ntfs_inode *dir, struct entries *l, const char *what)
{
	s64 pos = 0;

	memset(l, 0, sizeof(*l));
	if (ntfs_readdir(dir, &pos, l, collect) < 0)
		DIE("%s: cannot read the folder: %s", what, strerror(errno));
}

void free_entries(struct entries *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->e[i].name);
	free(l->e);
}

char *join(const char *a, const char *sep, const char *b)
{
	char *s = xalloc(strlen(a) + strlen(sep) + strlen(b) + 1);

	sprintf(s, "%s%s%s", a, sep, b);
	return s;
}

/* The names of a file's data streams; "" is the main one. Returns how many. */
size_t list_streams(ntfs_inode *ni, char ***ret, const char *what)
{
	ntfs_attr_search_ctx *ctx = ntfs_attr_get_search_ctx(ni, NULL);
	char **list = NULL;
	size_t n = 0;

	if (!ctx)
		DIE("%s: %s", what, strerror(errno));
	while (!ntfs_attr_lookup(AT_DATA, NULL, 0, CASE_SENSITIVE, 0, NULL, 0, ctx)) {
		ATTR_RECORD *a = ctx->attr;
		char *s = NULL;

		if (a->non_resident && a->lowest_vcn)	/* a later part of one seen already */
			continue;
		if (!a->name_length)
			s = xstrdup("");
		else if (ntfs_ucstombs((ntfschar *)((u8 *)a + le16_to_cpu(a->name_offset)), a->name_length, &s, 0) < 0)
			DIE("%s: stream name: %s", what, strerror(errno));
		list = realloc(list, (n + 1) * sizeof(*list));
		if (!list)
			DIE("out of memory");
		list[n++] = s;
	}
	if (errno != ENOENT)
		DIE("%s: %s", what, strerror(errno));
	ntfs_attr_put_search_ctx(ctx);
	*ret = list;
	return n;
}

ntfs_attr *stream_open(ntfs_inode *ni, const char *stream, const char *what)
{
	ntfschar *u = AT_UNNAMED;
	int n = *stream ? to_ucs(stream, &u) : 0;
	ntfs_attr *na = ntfs_attr_open(ni, AT_DATA, u, n);

	if (!na)
		DIE("%s: %s", what, strerror(errno));
	if (*stream)
		free(u);
	return na;
}
