// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/tools/populate/populate.h"

/* ---- operations ---- */

ntfs_volume *volume;	/* the one that is filled */

uint64_t number(const char *s)
{
	char *end;
	uint64_t v;

	errno = 0;
	v = strtoull(s, &end, 0);
	if (end == s || *s == '-' || errno)
		DIE("%s: not a number", s);
	if (*end == 'K')
		v <<= 10, end++;
	else if (*end == 'M')
		v <<= 20, end++;
	else if (*end == 'G')
		v <<= 30, end++;
	if (*end)
		DIE("%s: not a number", s);
	return v;
}

struct gen gen_of(const char *kind, const char *size, const char *seed)
{
	struct gen g = { .size = number(size), .seed = number(seed) };

	for (unsigned i = 0; i < KINDS; i++)
		if (!strcmp(kind, kind_names[i])) {
			g.kind = i;
			return g;
		}
	DIE("%s: no such kind of contents", kind);
}

static void replace_data(ntfs_attr *na, const char *what)
{
	if (na->data_size && ntfs_attr_truncate(na, 0) < 0)
		DIE("%s: truncate: %s", what, strerror(errno));
}

void op_mkdir(char **a, int n)
{
	(void)n;
	inode_close(dir_open(volume, strcmp(a[1], "/") ? a[1] : "", true), a[1]);
}

/* Fill @path with @b. */
void put_bytes(const char *path, const uint8_t *b, size_t len)
{
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;

	path_split(&p, path, true);
	ni = file_open(volume, &p, true);
	na = data_open(ni, &p);
	replace_data(na, path);
	for (size_t at = 0; at < len; at += CHUNK)
		data_write(na, at, b + at, len - at < CHUNK ? len - at : CHUNK, path);
	data_close(na, path);
	touch(ni);
	inode_close(ni, path);
	path_free(&p);
}

void op_put(char **a, int n)
{
	uint64_t seed = n > 3 ? number(a[3]) : 0;
	size_t len;
	uint8_t *b = host_read(a[2], &len);

	if (seed) {
		uint8_t *new = changed_version(b, len, seed, &len);

		free(b);
		b = new;
	}
	put_bytes(a[1], b, len);
	free(b);
}

/* gen, append and write: they differ in where the data goes */
static void gen_at(const char *path, int64_t pos, const struct gen *g)
{
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;

	path_split(&p, path, true);
	ni = file_open(volume, &p, true);
	na = data_open(ni, &p);
	if (pos == -1)
		replace_data(na, path);
	data_gen(na, pos == -1 ? 0 : pos == -2 ? (uint64_t)na->data_size : (uint64_t)pos, g, path);
	data_close(na, path);
	touch(ni);
	inode_close(ni, path);
	path_free(&p);
}

void op_gen(char **a, int n)
{
	struct gen g = gen_of(a[2], a[3], a[4]);

	(void)n;
	gen_at(a[1], -1, &g);
}

void op_append(char **a, int n)
{
	struct gen g = gen_of(a[2], a[3], a[4]);

	(void)n;
	gen_at(a[1], -2, &g);
}

void op_write(char **a, int n)
{
	struct gen g = gen_of(a[3], a[4], a[5]);

	(void)n;
	gen_at(a[1], number(a[2]), &g);
}

void op_truncate(char **a, int n)
{
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;

	(void)n;
	path_split(&p, a[1], true);
	ni = file_open(volume, &p, true);
	na = data_open(ni, &p);
	if (ntfs_attr_truncate(na, number(a[2])) < 0)
		DIE("%s: truncate: %s", a[1], strerror(errno));
	data_close(na, a[1]);
	touch(ni);
	inode_close(ni, a[1]);
	path_free(&p);
}

void op_compress(char **a, int n)
{
	struct path p;
	ntfs_inode *dir, *ni;
	int64_t ref;

	(void)n;
	path_split(&p, a[1], false);
	dir = dir_open(volume, p.dir, true);
	ref = lookup(dir, p.name);
	ni = ref < 0 ? create(dir, p.name, S_IFREG, a[1]) : inode_open(volume, ref, a[1]);
	inode_close(dir, a[1]);
	/* libntfs-3g passes the flag on to data that is still empty when it is opened */
	ni->flags |= FILE_ATTR_COMPRESSED;
	ntfs_inode_mark_dirty(ni);
	NInoFileNameSetDirty(ni);
	inode_close(ni, a[1]);
	path_free(&p);
}

/* The first run of @n free clusters at or after @lcn; from the volume's start when there is none. */
static LCN free_run(LCN lcn, s64 n)
{
	uint8_t bits[4096];
	s64 have = 0, got = 0, at = -1, start = lcn;

	for (;; lcn++) {
		if (lcn >= volume->nr_clusters) {
			if (!start)
				DIE("no %" PRId64 " free clusters together", n);
			start = lcn = have = 0;
			at = -1;
		}
		if (at < 0 || lcn >= at + got * 8) {
			at = lcn & ~7LL;
			got = ntfs_attr_pread(volume->lcnbmp_na, at / 8, sizeof(bits), bits);
			if (got <= 0)
				DIE("bitmap: %s", strerror(errno));
		}
		have = bits[(lcn - at) / 8] >> (lcn & 7) & 1 ? 0 : have + 1;
		if (have == n)
			return lcn - n + 1;
	}
}

/*
 * Give @na @count more runs of @n clusters, @gap free clusters apart, at or after @cursor. The library's own allocator
 * looks for the largest hole and so keeps files in one piece, which Windows does not.
 */
static LCN place_runs(ntfs_attr *na, LCN cursor, unsigned count, s64 n, s64 gap, const char *what)
{
	runlist_element *rl = xalloc((count + 1) * sizeof(*rl));
	VCN vcn = na->allocated_size >> volume->cluster_size_bits;

	if (ntfs_attr_map_whole_runlist(na) < 0)
		DIE("%s: runs: %s", what, strerror(errno));
	for (unsigned i = 0; i < count; i++, vcn += n) {
		LCN lcn = free_run(cursor, n);

		if (ntfs_bitmap_set_run(volume->lcnbmp_na, lcn, n) < 0)
			DIE("%s: bitmap: %s", what, strerror(errno));
		volume->free_clusters -= n;
		rl[i] = (runlist_element){ .vcn = vcn, .lcn = lcn, .length = n };
		cursor = lcn + n + gap;
	}
	rl[count] = (runlist_element){ .vcn = vcn, .lcn = LCN_ENOENT };
	rl = ntfs_runlists_merge(na->rl, rl);
	if (!rl)
		DIE("%s: runs: %s", what, strerror(errno));
	na->rl = rl;
	na->allocated_size = vcn << volume->cluster_size_bits;
	if (ntfs_attr_update_mapping_pairs(na, 0) < 0)
		DIE("%s: runs: %s", what, strerror(errno));
	return cursor;
}

void op_grow(char **a, int n)
{
	uint64_t count = number(a[2]), seed = number(a[4]);
	int files = n - 5;
	struct path *p = xalloc(files * sizeof(*p));
	ntfs_inode **ni = xalloc(files * sizeof(*ni));
	ntfs_attr **na = xalloc(files * sizeof(*na));
	struct gen g = gen_of(a[3], a[1], "0");
	LCN cursor = -1;

	for (int i = 0; i < files; i++) {
		path_split(&p[i], a[5 + i], true);
		for (int j = 0; j < i; j++)
			if (!strcmp(p[j].dir, p[i].dir) && !strcmp(p[j].name, p[i].name))
				DIE("%s: named twice", p[i].text);
		ni[i] = file_open(volume, &p[i], true);
		na[i] = data_open(ni[i], &p[i]);
	}
	for (uint64_t c = 0; c < count; c++)
		for (int i = 0; i < files; i++) {
			uint64_t end = na[i]->data_size + g.size;
			s64 more = (s64)(end + volume->cluster_size - 1) / volume->cluster_size - (na[i]->allocated_size >> volume->cluster_size_bits);

			/* the first piece goes where the library puts it, and the others follow each other from there */
			if (NAttrNonResident(na[i]) && !(na[i]->data_flags & (ATTR_COMPRESSION_MASK | ATTR_IS_SPARSE)) && more > 0) {
				if (cursor < 0) {
					ntfs_attr_map_whole_runlist(na[i]);
					cursor = na[i]->rl[0].lcn + 1;
				}
				cursor = place_runs(na[i], cursor, 1, more, 0, p[i].text);
			}
			g.seed = mix(seed ^ c << 16 ^ i);
			data_gen(na[i], na[i]->data_size, &g, p[i].text);
		}
	for (int i = 0; i < files; i++) {
		data_close(na[i], p[i].text);
		touch(ni[i]);
		inode_close(ni[i], p[i].text);
		path_free(&p[i]);
	}
	free(na);
	free(ni);
	free(p);
}

void op_fragment(char **a, int n)
{
	uint64_t count = number(a[2]);
	struct gen g = gen_of(a[3], "0", a[4]);
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;

	(void)n;
	if (!count || count > 1 << 20)
		DIE("%s: not so many fragments", a[2]);
	g.size = count * volume->cluster_size;
	path_split(&p, a[1], true);
	ni = file_open(volume, &p, true);
	na = data_open(ni, &p);
	replace_data(na, a[1]);
	/* a cluster of 512 bytes would stay in the record */
	if (ntfs_attr_truncate_solid(na, volume->cluster_size) < 0 || (!NAttrNonResident(na) && ntfs_attr_force_non_resident(na) < 0))
		DIE("%s: %s", a[1], strerror(errno));
	ntfs_attr_map_whole_runlist(na);
	if (count > 1)
		place_runs(na, na->rl[0].lcn + 2, count - 1, 1, 1, a[1]);
	data_gen(na, 0, &g, a[1]);
	data_close(na, a[1]);
	touch(ni);
	inode_close(ni, a[1]);
	path_free(&p);
}

static void delete_entry(const char *dir_path, const char *name, const char *what)
{
	ntfs_inode *dir = dir_open(volume, dir_path, false), *ni;
	int64_t ref = lookup(dir, name);
	ntfschar *u;
	int n;

	if (ref < 0)
		DIE("%s: no such file", what);
	if (ref < FILE_first_user)
		DIE("%s: belongs to the file system", what);
	ni = inode_open(volume, ref, what);
	n = to_ucs(name, &u);
	if (ntfs_delete(volume, NULL, ni, dir, u, n) < 0)	/* closes both */
		DIE("%s: remove: %s", what, strerror(errno));
	free(u);
}

static void remove_tree(uint64_t ref, const char *path)
{
	ntfs_inode *ni = inode_open(volume, ref, path);
	struct entries l;

	if (!(ni->mrec->flags & MFT_RECORD_IS_DIRECTORY) || ni->flags & FILE_ATTR_REPARSE_POINT) {
		inode_close(ni, path);
		return;
	}
	list_dir(ni, &l, path);
	inode_close(ni, path);
	for (size_t i = 0; i < l.n; i++) {
		char *sub = join(path, "/", l.e[i].name);

		remove_tree(l.e[i].ref, sub);
		delete_entry(path, l.e[i].name, sub);
		free(sub);
	}
	free_entries(&l);
}

static void remove_name(const struct path *p)
{
	ntfs_inode *dir = dir_open(volume, p->dir, false);
	int64_t ref = lookup(dir, p->name);

	inode_close(dir, p->text);
	if (ref < 0)
		DIE("%s: no such file", p->text);
	remove_tree(ref, p->text);
	delete_entry(p->dir, p->name, p->text);
	forget_dir();	/* it may be gone */
}

void op_rm(char **a, int n)
{
	struct path p;

	(void)n;
	path_split(&p, a[1], true);
	if (p.stream) {
		ntfs_inode *ni = file_open(volume, &p, false);
		ntfs_attr *na = stream_open(ni, p.stream, a[1]);

		if (ntfs_attr_rm(na) < 0)
			DIE("%s: remove: %s", a[1], strerror(errno));
		ntfs_attr_close(na);
		inode_close(ni, a[1]);
	} else {
		remove_name(&p);
	}
	path_free(&p);
}

void link_name(const char *new, const char *old)
{
	struct path from, to;
	ntfs_inode *ni, *dir;
	ntfschar *u;
	int n;

	path_split(&from, old, false);
	path_split(&to, new, false);
	dir = dir_open(volume, to.dir, true);	/* before the file: it may create */
	inode_close(dir, new);
	ni = file_open(volume, &from, false);
	if (ni->mrec->flags & MFT_RECORD_IS_DIRECTORY)
		DIE("%s: a folder has only one name", old);
	dir = dir_open(volume, to.dir, true);
	n = to_ucs(to.name, &u);
	if (ntfs_link(ni, dir, u, n) < 0)
		DIE("%s: link: %s", new, strerror(errno));
	free(u);
	inode_close(dir, new);
	inode_close(ni, old);
	path_free(&from);
	path_free(&to);
}

void op_link(char **a, int n)
{
	(void)n;
	link_name(a[1], a[2]);
}

static void remove_file(const char *path)
{
	struct path p;

	path_split(&p, path, false);
	delete_entry(p.dir, p.name, path);
	path_free(&p);
}

static void rename_file(const char *old, const char *new)
{
	link_name(new, old);
	remove_file(old);
}

void op_rename(char **a, int n)
{
	(void)n;
	rename_file(a[1], a[2]);
}

static uint8_t *volume_read(const char *path, size_t *len)
{
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;
	uint8_t *b;

	path_split(&p, path, true);
	ni = file_open(volume, &p, false);
	na = data_open(ni, &p);
	*len = na->data_size;
	b = xalloc(*len);
	data_read(na, 0, b, *len, path);
	ntfs_attr_close(na);
	inode_close(ni, path);
	path_free(&p);
	return b;
}

/* As an update does it: the new file is written first and beside, so that it never lies where the old one was. */
static void exchange(const char *path, const uint8_t *b, size_t len, const char *old_path)
{
	char *tmp = join(path, "", ".new");

	put_bytes(tmp, b, len);
	if (old_path)
		rename_file(path, old_path);
	else
		remove_file(path);
	rename_file(tmp, path);
	free(tmp);
}

void op_update(char **a, int n)
{
	size_t len;
	uint8_t *old = volume_read(a[1], &len);
	uint8_t *new = changed_version(old, len, number(a[2]), &len);

	exchange(a[1], new, len, n > 3 ? a[3] : NULL);
	free(old);
	free(new);
}

void op_replace(char **a, int n)
{
	size_t len;
	uint8_t *b = host_read(a[2], &len);

	exchange(a[1], b, len, n > 3 ? a[3] : NULL);
	free(b);
}
