// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/tools/populate/populate.h"

/* ---- digest ---- */

struct line {
	char *path;
	uint64_t size;
	char hash[65];
};

static struct {
	struct line *l;
	size_t n, room;
	bool hash;
} out;

static void out_add(char *path, uint64_t size, const uint8_t *md)
{
	struct line *l;

	if (out.n == out.room) {
		out.room = out.room ? out.room * 2 : 4096;
		out.l = realloc(out.l, out.room * sizeof(*out.l));
		if (!out.l)
			DIE("out of memory");
	}
	l = &out.l[out.n++];
	l->path = path;
	l->size = size;
	memset(l->hash, '-', 64);
	l->hash[64] = 0;
	for (unsigned i = 0; md && i < 32; i++)
		sprintf(l->hash + 2 * i, "%02x", md[i]);
}

static void digest_data(ntfs_attr *na, char *path)
{
	static uint8_t buf[CHUNK];
	static EVP_MD_CTX *ctx;
	uint64_t size = na->data_size;
	uint8_t md[32];

	if (!out.hash) {
		out_add(path, size, NULL);
		return;
	}
	if (!ctx && !(ctx = EVP_MD_CTX_new()))
		DIE("out of memory");
	if (!EVP_DigestInit_ex(ctx, EVP_sha256(), NULL))
		DIE("no SHA-256");
	for (uint64_t at = 0; at < size;) {
		size_t n = size - at < CHUNK ? size - at : CHUNK;

		data_read(na, at, buf, n, path);
		EVP_DigestUpdate(ctx, buf, n);
		at += n;
	}
	EVP_DigestFinal_ex(ctx, md, NULL);
	out_add(path, size, md);
}

static void digest_file(ntfs_inode *ni, const char *path)
{
	char **streams;
	size_t n = list_streams(ni, &streams, path);
	int tag;

	for (size_t i = 0; i < n; i++) {
		ntfs_attr *na = stream_open(ni, streams[i], path);

		digest_data(na, join(path, *streams[i] ? ":" : "", streams[i]));
		ntfs_attr_close(na);
		free(streams[i]);
	}
	free(streams);
	tag = ntfs_get_ntfs_reparse_data(ni, NULL, 0);
	if (tag > 0) {
		uint8_t *b = xalloc(tag), md[32];

		if (ntfs_get_ntfs_reparse_data(ni, (char *)b, tag) != tag || !EVP_Digest(b, tag, md, NULL, EVP_sha256(), NULL))
			DIE("%s: reparse point: %s", path, strerror(errno));
		out_add(join(path, ":", "$REPARSE_POINT"), tag, out.hash ? md : NULL);
		free(b);
	}
}

static void digest_dir(ntfs_volume *vol, uint64_t ref, const char *path)
{
	ntfs_inode *dir = inode_open(vol, ref, path);
	struct entries l;

	list_dir(dir, &l, path);
	if (ref >= FILE_first_user) {
		out_add(join(path, "/", ""), 0, NULL);
		digest_file(dir, path);
	}
	inode_close(dir, path);
	for (size_t i = 0; i < l.n; i++) {
		char *sub = join(path, "/", l.e[i].name);
		ntfs_inode *ni;

		/* what the file system keeps for itself may change, but for what lies in $Extend by a user's hand */
		if (l.e[i].ref < FILE_first_user && l.e[i].ref != FILE_Extend) {
			free(sub);
			continue;
		}
		if (l.e[i].dir) {
			digest_dir(vol, l.e[i].ref, sub);
		} else {
			ni = inode_open(vol, l.e[i].ref, sub);
			if (ni->mrec->flags & MFT_RECORD_IS_DIRECTORY) {	/* a junction */
				inode_close(ni, sub);
				digest_dir(vol, l.e[i].ref, sub);
			} else {
				digest_file(ni, sub);
				inode_close(ni, sub);
			}
		}
		free(sub);
	}
	free_entries(&l);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct line *)a)->path, ((const struct line *)b)->path);
}

void digest(ntfs_volume *vol, bool hash)
{
	out.hash = hash;
	digest_dir(vol, FILE_root, "");
	if (out.n)
		qsort(out.l, out.n, sizeof(*out.l), by_path);
	for (size_t i = 0; i < out.n; i++)
		printf("%s %12" PRIu64 " %s\n", out.l[i].hash, out.l[i].size, out.l[i].path);
	if (fflush(stdout) || ferror(stdout))
		DIE("standard output: %s", strerror(errno));
}

/* ---- export ---- */

bool all_zero(const uint8_t *p, size_t n)
{
	return !n || (!*p && !memcmp(p, p + 1, n - 1));
}

static void make_host_dirs(char *path)
{
	for (char *s = path + 1; (s = strchr(s, '/')); s++) {
		*s = 0;
		if (mkdir(path, 0777) < 0 && errno != EEXIST)
			DIE("%s: %s", path, strerror(errno));
		*s = '/';
	}
}

void export_dir(ntfs_volume *vol, uint64_t ref, const char *path, const char *to, unsigned percent, uint64_t seed)
{
	static uint8_t buf[CHUNK];
	ntfs_inode *dir = inode_open(vol, ref, path);
	struct entries l;

	list_dir(dir, &l, path);
	inode_close(dir, path);
	for (size_t i = 0; i < l.n; i++) {
		char *sub = join(path, "/", l.e[i].name), *host;
		uint64_t h = seed;
		struct timespec ts[2];
		ntfs_inode *ni;
		ntfs_attr *na;
		int fd;

		if (l.e[i].ref < FILE_first_user)
			goto next;
		if (l.e[i].dir) {
			export_dir(vol, l.e[i].ref, sub, to, percent, seed);
			goto next;
		}
		for (const char *s = sub; *s; s++)
			h = mix(h ^ (uint8_t)*s);
		if (ref == FILE_root || h % 100 >= percent)	/* the root holds paging files, which no host shares */
			goto next;
		ni = inode_open(vol, l.e[i].ref, sub);
		na = ntfs_attr_open(ni, AT_DATA, AT_UNNAMED, 0);
		if (!na) {
			inode_close(ni, sub);
			goto next;
		}
		host = join(to, "", sub);
		make_host_dirs(host);
		fd = open(host, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (fd < 0)
			DIE("%s: %s", host, strerror(errno));
		for (s64 at = 0; at < na->data_size;) {
			size_t n = na->data_size - at < CHUNK ? na->data_size - at : CHUNK;

			data_read(na, at, buf, n, sub);
			if (!all_zero(buf, n) && full_pwrite(fd, buf, n, at) < 0)
				DIE("%s: %s", host, strerror(errno));
			at += n;
		}
		if (ftruncate(fd, na->data_size) < 0)
			DIE("%s: %s", host, strerror(errno));
		ts[0] = ts[1] = ntfs2timespec(ni->last_data_change_time);
		if (futimens(fd, ts) < 0 || close(fd) < 0)
			DIE("%s: %s", host, strerror(errno));
		ntfs_attr_close(na);
		inode_close(ni, sub);
		free(host);
next:
		free(sub);
	}
	free_entries(&l);
}

/* ---- place ---- */

/* Copy what is data in @file to @offset of @image; what is a hole in it is left as it is there. */
void place(const char *file, const char *image, uint64_t offset)
{
	static uint8_t buf[CHUNK];
	int in = open(file, O_RDONLY | O_CLOEXEC), fd;
	off_t at = 0, end;

	if (in < 0)
		DIE("%s: %s", file, strerror(errno));
	fd = open(image, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		DIE("%s: %s", image, strerror(errno));
	while ((at = lseek(in, at, SEEK_DATA)) >= 0) {
		end = lseek(in, at, SEEK_HOLE);
		if (end < 0)
			break;
		while (at < end) {
			size_t n = end - at < (off_t)CHUNK ? end - at : (off_t)CHUNK;

			if (full_pread(in, buf, n, at) < 0)
				DIE("%s: %s", file, strerror(errno));
			if (full_pwrite(fd, buf, n, offset + at) < 0)
				DIE("%s: %s", image, strerror(errno));
			at += n;
		}
	}
	if (errno != ENXIO)
		DIE("%s: %s", file, strerror(errno));
	close(in);
	if (close(fd) < 0)
		DIE("%s: %s", image, strerror(errno));
}
