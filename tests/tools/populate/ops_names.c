// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/tools/populate/populate.h"

/* ---- operations on names, reparse points, the journals ---- */

void set_short(uint64_t dir_ref, uint64_t ref, const char *name, const char *what)
{
	ntfs_inode *dir = inode_open(volume, dir_ref, what), *ni = inode_open(volume, ref, what);

	if (ntfs_set_ntfs_dos_name(ni, dir, name, strlen(name), 0) < 0)	/* closes both */
		DIE("%s: short name %s: %s", what, name, strerror(errno));
}

void op_short(char **a, int n)
{
	ntfs_inode *dir;
	struct path p;
	int64_t ref;
	uint64_t dir_ref;

	(void)n;
	path_split(&p, a[1], false);
	dir = dir_open(volume, p.dir, false);
	dir_ref = dir->mft_no;
	ref = lookup(dir, p.name);
	inode_close(dir, a[1]);
	if (ref < 0)
		DIE("%s: no such file", a[1]);
	set_short(dir_ref, ref, a[2], a[1]);
	path_free(&p);
}

void op_attrib(char **a, int n)
{
	struct path p;
	ntfs_inode *ni;

	(void)n;
	path_split(&p, a[1], false);
	ni = file_open(volume, &p, false);
	for (const char *s = a[2]; *s; s++)
		switch (*s) {
		case 'r': ni->flags |= FILE_ATTR_READONLY; break;
		case 'h': ni->flags |= FILE_ATTR_HIDDEN; break;
		case 's': ni->flags |= FILE_ATTR_SYSTEM; break;
		case 'a': ni->flags |= FILE_ATTR_ARCHIVE; break;
		case 'i': ni->flags |= FILE_ATTR_NOT_CONTENT_INDEXED; break;
		default: DIE("%s: no such attribute: %c", a[1], *s);
		}
	ntfs_inode_mark_dirty(ni);
	NInoFileNameSetDirty(ni);
	inode_close(ni, a[1]);
	path_free(&p);
}

/*
 * REPARSE_DATA_BUFFER of a mount point or symbolic link: offset and length of the name that counts and of the one that is
 * shown, flags of a symbolic link (1: relative), and the names as UTF-16.
 */
static void set_link(ntfs_inode *ni, uint32_t tag, const char *subst, const char *shown, const char *path)
{
	const unsigned names = tag == 0xa000000c ? 20 : 16;
	ntfschar *u1 = NULL, *u2 = NULL;
	int n1 = ntfs_mbstoucs(subst, &u1), n2 = ntfs_mbstoucs(shown, &u2);
	uint8_t b[2048] = { 0 };
	uint16_t len;

	if (n1 <= 0 || n2 <= 0 || n1 + n2 > 900)
		DIE("%s: not a target", shown);
	len = names - 8 + (n1 + n2 + 2) * 2;
	put_le32(b, tag);
	put_le16(b + 4, len);
	put_le16(b + 8, 0);
	put_le16(b + 10, n1 * 2);
	put_le16(b + 12, n1 * 2 + 2);
	put_le16(b + 14, n2 * 2);
	if (names == 20)
		put_le32(b + 16, 1);
	memcpy(b + names, u1, n1 * 2);
	memcpy(b + names + n1 * 2 + 2, u2, n2 * 2);
	if (ntfs_set_ntfs_reparse_data(ni, (char *)b, 8 + len, 0) < 0)
		DIE("%s: link: %s", path, strerror(errno));
	inode_close(ni, path);
	free(u1);
	free(u2);
}

void op_junction(char **a, int n)
{
	char *subst = join("\\??\\", "", a[2]);

	(void)n;
	set_link(dir_open(volume, a[1], true), 0xa0000003, subst, a[2], a[1]);
	forget_dir();
	free(subst);
}

void op_symlink(char **a, int n)
{
	struct path p;

	(void)n;
	path_split(&p, a[1], false);
	set_link(file_open(volume, &p, true), 0xa000000c, a[2], a[2], a[1]);
	path_free(&p);
}

void op_reparse(char **a, int n)
{
	struct gen g = gen_of(a[3], a[4], a[5]);
	uint8_t *b = xalloc(8 + BLOCK);
	ntfs_inode *ni;
	struct path p;

	(void)n;
	if (g.size > 16000)
		DIE("%s: reparse data is at most 16000 bytes", a[1]);
	path_split(&p, a[1], false);
	put_le32(b, strtoul(a[2], NULL, 16));
	put_le16(b + 4, g.size);
	gen_block(&g, 0, b + 8);
	ni = file_open(volume, &p, true);
	if (ntfs_set_ntfs_reparse_data(ni, (char *)b, 8 + g.size, 0) < 0)
		DIE("%s: reparse point: %s", a[1], strerror(errno));
	inode_close(ni, a[1]);
	path_free(&p);
	free(b);
}

/* $EA, an entry: its length, flags, the name's length, the value's, the name with its NUL, the value. */
void op_ea(char **a, int n)
{
	const size_t name = strlen(a[2]), value = strlen(a[3]), len = (8 + name + 1 + value + 3) & ~(size_t)3;
	uint8_t *b = xalloc(len);
	ntfs_inode *ni;
	struct path p;

	(void)n;
	if (name > 255 || value > 60000)
		DIE("%s: extended attributes are not that long", a[1]);
	put_le32(b, len);
	b[5] = (uint8_t)name;
	put_le16(b + 6, value);
	memcpy(b + 8, a[2], name);
	memcpy(b + 8 + name + 1, a[3], value);
	path_split(&p, a[1], false);
	ni = file_open(volume, &p, false);
	if (ntfs_set_ntfs_ea(ni, (char *)b, len, 0) < 0)
		DIE("%s: extended attribute: %s", a[1], strerror(errno));
	inode_close(ni, a[1]);
	path_free(&p);
	free(b);
}

/*
 * System compression: the Windows Overlay Filter reads the file from its stream WofCompressedData. That holds the offsets
 * of all chunks of 4 KiB but the first, from the end of these offsets on, and the chunks, each of which may be stored as it
 * is: what Windows does with those that do not get smaller. The reparse point says: version 1, provider 2 (a file's own
 * stream); version 1, algorithm 0 (XPRESS, 4 KiB).
 */
void op_wof(char **a, int n)
{
	struct gen g = gen_of(a[2], a[3], a[4]);
	const uint32_t chunks = (uint32_t)((g.size + 4095) / 4096);
	const size_t table = chunks > 1 ? 4 * (size_t)(chunks - 1) : 0;
	uint8_t *b = xalloc(table + g.size + BLOCK), reparse[8 + 16] = { 0 };
	char *stream = join(a[1], ":", "WofCompressedData");
	ntfs_inode *ni;
	struct path p;

	(void)n;
	if (g.size >> 32)
		DIE("%s: larger than the offsets of its chunks can tell", a[1]);
	for (uint32_t i = 1; i < chunks; i++)
		put_le32(b + 4 * (i - 1), i * 4096);
	for (uint64_t at = 0; at < g.size; at += CHUNK)
		gen_read(&g, at, b + table + at);
	op_truncate((char *[]){ a[0], a[1], a[3] }, 3);
	put_bytes(stream, b, table + g.size);
	put_le32(reparse, 0x80000017);
	put_le16(reparse + 4, 16);
	put_le32(reparse + 8, 1);
	put_le32(reparse + 12, 2);
	put_le32(reparse + 16, 1);
	path_split(&p, a[1], false);
	ni = file_open(volume, &p, false);
	if (ntfs_set_ntfs_reparse_data(ni, (char *)reparse, sizeof reparse, 0) < 0)
		DIE("%s: reparse point: %s", a[1], strerror(errno));
	inode_close(ni, a[1]);
	path_free(&p);
	free(stream);
	free(b);
}

/*
 * The change journal: $Max tells its size and id, $J is sparse but for its end, because records are numbered by their
 * offset and old ones are cut off at the front.
 */
void op_usnjrnl(char **a, int n)
{
	static const char name[] = "/$Extend/$UsnJrnl";
	uint64_t size = number(a[1]) & ~4095ULL, start = 64ULL << 20;
	struct rng r = rng_at(number(a[2]), 0x75736e);
	uint8_t *b = xalloc(size + 4096), max[32] = { 0 };
	struct path p;
	ntfs_inode *ni;
	ntfs_attr *na;

	(void)n;
	for (uint64_t at = 0; at + 512 < size;) {
		uint64_t v = rnd(&r);
		unsigned w = v % WORDS, chars = word_len[w] - 1, len = (60 + 2 * (chars + 4) + 7) & ~7U;
		uint8_t *rec = b + at;

		if (at % 4096 + len > 4096) {	/* a record never crosses a page */
			at = (at + 4095) & ~4095ULL;
			continue;
		}
		put_le32(rec, len);
		put_le16(rec + 4, 2);
		put_le64(rec + 8, (v >> 10 & 0xffff) | 1ULL << 48);
		put_le64(rec + 16, (v >> 26 & 0xfff) | 1ULL << 48);
		put_le64(rec + 24, start + at);
		put_le64(rec + 32, NTFS_TIME_OFFSET + clock_ns / 100 - (size - at) * 1000);
		put_le32(rec + 40, 1U << (v >> 40 & 15));
		put_le32(rec + 48, SECURITY_ID);
		put_le32(rec + 52, 0x20);
		put_le16(rec + 56, 2 * (chars + 4));
		put_le16(rec + 58, 60);
		for (unsigned i = 0; i < chars; i++)
			put_le16(rec + 60 + 2 * i, (uint8_t)words[w][i]);
		for (unsigned i = 0; i < 4; i++)
			put_le16(rec + 60 + 2 * (chars + i), (uint8_t)".dat"[i]);
		at += len;
	}
	path_split(&p, name, false);
	p.stream = "$Max";
	ni = file_open(volume, &p, true);
	ni->mrec->flags |= MFT_RECORD_IS_4;
	ni->flags = FILE_ATTR_HIDDEN | FILE_ATTR_SYSTEM;
	na = data_open(ni, &p);
	put_le64(max, 32 << 20);
	put_le64(max + 8, 8 << 20);
	put_le64(max + 16, NTFS_TIME_OFFSET + clock_ns / 100);
	put_le64(max + 24, start);
	data_write(na, 0, max, 32, name);
	data_close(na, name);
	p.stream = "$J";
	na = data_open(ni, &p);
	if (ntfs_attr_truncate(na, start) < 0)
		DIE("%s: %s", name, strerror(errno));
	data_write(na, start, b, size, name);
	data_close(na, name);
	touch(ni);
	inode_close(ni, name);
	path_free(&p);
	free(b);
}

/*
 * What chkdsk /r leaves: clusters that cannot be read are $Bad's, whose run list is a hole as long as the volume but
 * for them. Written into the record, because libntfs-3g would call the stream sparse for its holes.
 */
void op_bad(char **a, int n)
{
	static ntfschar bad[] = { const_cpu_to_le16('$'), const_cpu_to_le16('B'), const_cpu_to_le16('a'),
				  const_cpu_to_le16('d'), const_cpu_to_le16('\0') };
	const int64_t lcn = (int64_t)number(a[1]), count = (int64_t)number(a[2]);
	ntfs_inode *ni = inode_open(volume, FILE_BadClus, "$BadClus");
	ntfs_attr *na = ntfs_attr_open(ni, AT_DATA, bad, 4);
	ntfs_attr_search_ctx *ctx = ntfs_attr_get_search_ctx(ni, NULL);
	runlist_element *run = xalloc(2 * sizeof *run), *all;
	unsigned at;
	int len;

	(void)n;
	if (!na || !ctx || ntfs_attr_map_whole_runlist(na) < 0 || ntfs_attr_lookup(AT_DATA, bad, 4, CASE_SENSITIVE, 0, NULL, 0, ctx) < 0)
		DIE("$BadClus: %s", strerror(errno));
	if (count == 0 || lcn + count > volume->nr_clusters)
		DIE("%s: not clusters of the volume", a[1]);
	run[0] = (runlist_element){ lcn, lcn, count };
	run[1] = (runlist_element){ lcn + count, LCN_ENOENT, 0 };
	all = ntfs_runlists_merge(na->rl, run);
	if (!all || ntfs_bitmap_set_run(volume->lcnbmp_na, lcn, count) < 0)
		DIE("%s: cannot be made bad: %s", a[1], strerror(errno));
	na->rl = all;
	at = le16_to_cpu(ctx->attr->mapping_pairs_offset);
	len = ntfs_get_size_for_mapping_pairs(volume, all, 0, 1024);
	if (len < 0 || ntfs_attr_record_resize(ctx->mrec, ctx->attr, (at + len + 7) & ~7U) < 0 ||
	    ntfs_mapping_pairs_build(volume, (uint8_t *)ctx->attr + at, len, all, 0, NULL) < 0)
		DIE("$BadClus: %s", strerror(errno));
	ntfs_inode_mark_dirty(ni);
	ntfs_attr_put_search_ctx(ctx);
	ntfs_attr_close(na);
	inode_close(ni, "$BadClus");
}

/*
 * The journal, $LogFile. Only its restart pages matter to those who ask whether it is clean: a client (NTFS itself) in the
 * list of those in use means that the volume was not closed. Windows 8 and later write version 2.0 where they only
 * hibernated the kernel (fast start-up). Layouts as in ntfs-3g's logfile.h.
 */
void op_logfile(char **a, int n)
{
	static const char *const states[] = { "empty", "zero", "clean", "unclean", "fast" };
	static uint8_t buf[CHUNK];
	struct path none = { .text = (char *)"$LogFile" };
	ntfs_inode *ni = inode_open(volume, FILE_LogFile, none.text);
	ntfs_attr *na = data_open(ni, &none);
	uint64_t size = na->data_size, used = size / 4 & ~4095ULL;
	unsigned state = 0, bits = 0;
	struct rng r = rng_at(clock_ns, 0x6c6f67);

	(void)n;
	while (state < 5 && strcmp(a[1], states[state]))
		state++;
	if (state == 5)
		DIE("%s: no such state of the journal", a[1]);
	for (uint64_t v = size; v; v >>= 1)
		bits++;
	memset(buf, state == 1 ? 0 : 0xff, sizeof(buf));
	for (uint64_t at = 0; at < size; at += CHUNK)
		data_write(na, at, buf, size - at < CHUNK ? size - at : CHUNK, none.text);
	for (uint64_t at = 0; state >= 2 && at < used; at += 4096) {
		uint8_t *rs = buf, *area = buf + 48;

		memset(buf, 0, 4096);
		if (at >= 8192) {	/* records of what was done last, which only Windows reads */
			memcpy(rs, "RCRD", 4);
			put_le16(rs + 4, 40);
			put_le16(rs + 6, 9);
			put_le64(rs + 8, 0x100000 + at / 8);
			fill_page(&r, rs + 64, 3000);
		} else {
			memcpy(rs, "RSTR", 4);
			put_le16(rs + 4, 30);
			put_le16(rs + 6, 9);
			put_le32(rs + 16, 4096);
			put_le32(rs + 20, 4096);
			put_le16(rs + 24, 48);
			put_le16(rs + 26, state == 4 ? 0 : 1);
			put_le16(rs + 28, state == 4 ? 2 : 1);
			put_le64(area, 0x100000 + at / 8);
			put_le16(area + 8, 1);
			put_le16(area + 10, state == 2 ? 0 : 0xffff);
			put_le16(area + 12, state == 2 ? 0xffff : 0);
			put_le16(area + 14, state == 2 ? 2 : 0);
			put_le32(area + 16, 67 - bits);
			put_le16(area + 20, 48 + 160);
			put_le16(area + 22, 48);
			put_le64(area + 24, size);
			put_le16(area + 36, 48);
			put_le16(area + 38, 64);
			put_le64(area + 48, 0x100000);
			put_le16(area + 48 + 16, 0xffff);
			put_le16(area + 48 + 18, 0xffff);
			put_le32(area + 48 + 28, 8);
			memcpy(area + 48 + 32, "N\0T\0F\0S", 7);
		}
		if (ntfs_mst_pre_write_fixup((NTFS_RECORD *)buf, 4096) < 0)
			DIE("%s: %s", none.text, strerror(errno));
		data_write(na, at, buf, 4096, none.text);
	}
	data_close(na, none.text);
	inode_close(ni, none.text);
}

void op_time(char **a, int n)
{
	(void)n;
	clock_ns = (int64_t)number(a[1]) * 1000000000;
}

static void set_dirty(bool on)
{
	le16 flags = on ? volume->flags | VOLUME_IS_DIRTY : volume->flags & ~VOLUME_IS_DIRTY;

	if (ntfs_volume_write_flags(volume, flags) < 0)
		DIE("volume flags: %s", strerror(errno));
}

void op_dirty(char **a, int n)
{
	(void)a;
	(void)n;
	set_dirty(true);
}

void op_clean(char **a, int n)
{
	(void)a;
	(void)n;
	set_dirty(false);
}
