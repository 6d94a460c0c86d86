/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What forbids changing an NTFS volume: its dirty flag, its log, a hibernated
 * session, shadow copies. libntfs-3g looks at some of this, and says little.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/ntfs_dir.h"
#include "libprep/volume/ntfs_internal.h"

static void found(struct prep_ntfs *n, unsigned obstacle, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void found(struct prep_ntfs *n, unsigned obstacle, const char *fmt, ...)
{
	struct prep_fs_info *info = &n->fs.info;
	const size_t len = strlen(info->obstacle_text);
	va_list ap;
	int more;

	info->obstacles |= obstacle;
	more = snprintf(info->obstacle_text + len, sizeof info->obstacle_text - len, "%s",
			len > 0 ? "; " : "");
	va_start(ap, fmt);
	if (len + (size_t)more < sizeof info->obstacle_text)
		vsnprintf(info->obstacle_text + len + (size_t)more,
			  sizeof info->obstacle_text - len - (size_t)more, fmt, ap);
	va_end(ap);
}

/* Read up to len bytes from the start of a file's unnamed stream: how many there are, or -1. */
static int64_t read_start(struct prep_ntfs *n, struct prep_ntfs_mft *m, uint64_t ref, void *buf,
			  size_t len, uint64_t *size, struct prep_err *err)
{
	struct prep_ntfs_file f;
	struct prep_ntfs_attr a;
	struct prep_ntfs_runs runs;
	int r;

	*size = 0;
	if (prep_ntfs_file_load(m, ref, &f, err) < 0)
		return -1;
	r = prep_ntfs_file_find(n, &f, PREP_NTFS_ATTR_DATA, "", &a, &runs, err);
	if (r > 0)
		*size = a.resident ? a.value_len : a.size;
	len = (size_t)prep_min(len, *size);
	if (r > 0 && a.resident)
		memcpy(buf, a.value, len);
	else if (r > 0)
		r = prep_ntfs_runs_read(n, &runs, 0, buf, len, err);
	prep_ntfs_runs_clear(&runs);
	prep_ntfs_file_clear(&f);
	return r < 0 ? -1 : (int64_t)len;
}

/* ---- $LogFile ---- */

/*
 * Restart pages (RESTART_PAGE_HEADER and RESTART_AREA of <ntfs-3g/logfile.h>):
 * two of them, at 0 and at system_page_size. The one with the higher
 * current_lsn counts. The log is clean when no client has it open
 * (client_in_use_list, before XP) or its flags say so (RESTART_VOLUME_IS_CLEAN).
 */
struct restart {
	bool valid, clean;
	unsigned major, minor;
	uint64_t lsn;
	uint32_t page_size;
};

static struct restart read_restart(uint8_t *p, size_t len)
{
	struct restart r = { .valid = false };
	uint32_t area;

	if (len < 64)
		return r;
	r.page_size = get_le32(p + 16);
	if (!prep_is_pow2(r.page_size) || r.page_size < 512 || r.page_size > len ||
	    (!prep_ntfs_fixup(p, r.page_size, "RSTR") && !prep_ntfs_fixup(p, r.page_size, "CHKD")))
		return r;
	area = get_le16(p + 24);
	if (area % 8 != 0 || area > r.page_size - 48)
		return r;
	r.minor = get_le16(p + 26);
	r.major = get_le16(p + 28);
	r.lsn = get_le64(p + area);
	r.clean = get_le16(p + area + 12) == 0xffff || (get_le16(p + area + 14) & 2) != 0;
	r.valid = true;
	return r;
}

#define LOG_START (128 * PREP_KIB) /* two pages of the largest size */

static int check_log(struct prep_ntfs *n, struct prep_ntfs_mft *m, struct prep_err *err)
{
	uint8_t *p = calloc(1, LOG_START);
	struct restart first, second = { .valid = false }, *last;
	uint64_t size;
	int64_t len;

	if (p == NULL)
		return prep_fail_nomem(err);
	len = read_start(n, m, PREP_NTFS_LOGFILE, p, LOG_START, &size, err);
	if (len < 0) {
		free(p);
		return -1;
	}
	/* An emptied log is all 0xFF; Windows makes a new one. */
	if (len >= 4096 && get_le32(p) == 0xffffffff) {
		free(p);
		return 0;
	}
	first = read_restart(p, (size_t)len);
	for (size_t at = first.valid ? first.page_size : 512; at <= 65536 && at < (size_t)len; at *= 2) {
		second = read_restart(p + at, (size_t)len - at);
		if (first.valid || second.valid)
			break;
	}
	free(p);
	last = second.valid && (!first.valid || second.lsn > first.lsn) ? &second : &first;
	if (!last->valid)
		found(n, PREP_FS_UNCLEAN_LOG, "the log is damaged ($LogFile has no restart page)");
	else if (last->major > 1)
		found(n, PREP_FS_FAST_STARTUP,
		      "Windows was not shut down fully ($LogFile is of version %u.%u, as fast start-up leaves it)",
		      last->major, last->minor);
	else if (!last->clean)
		found(n, PREP_FS_UNCLEAN_LOG, "the log holds changes that were not written back ($LogFile is not clean)");
	return 0;
}

/* ---- hiberfil.sys ---- */

struct lookup {
	struct prep_ntfs *n;
	const char *name; /* ASCII, upper case */
	uint64_t ref;
};

static int match_entry(void *arg, const struct prep_ntfs_name *name, uint64_t ref, struct prep_err *err)
{
	struct lookup *l = arg;

	(void)err;
	if (name->len != strlen(l->name))
		return 0;
	for (size_t i = 0; i < name->len; i++)
		if (prep_ntfs_upcase(l->n, get_le16(name->text + 2 * i)) != (unsigned char)l->name[i])
			return 0;
	l->ref = ref;
	return 0;
}

static void ignore_damage(void *arg, const char *what)
{
	(void)arg;
	(void)what;
}

/*
 * The first page of hiberfil.sys tells: "hibr" (Windows 8 on: "HIBR") is a
 * session to be resumed, "rstr" one that was being resumed, "wake" one that was.
 * Windows zeroes the page after a resume too. A file shorter than a page is
 * what libntfs-3g takes for hibernated: a volume that Windows left mounted.
 */
static int check_hiberfile(struct prep_ntfs *n, struct prep_ntfs_mft *m, struct prep_err *err)
{
	struct lookup l = { .n = n, .name = "HIBERFIL.SYS" };
	const struct prep_ntfs_dir_reader reader = { match_entry, ignore_damage, &l };
	struct prep_ntfs_file root;
	uint8_t page[4096] = { 0 };
	uint64_t size;
	int r;

	if (prep_ntfs_file_load(m, PREP_NTFS_ROOT, &root, err) < 0)
		return -1;
	r = prep_ntfs_dir_read(n, &root, &reader, err);
	prep_ntfs_file_clear(&root);
	if (r < 0 || l.ref == 0)
		return r;
	if (read_start(n, m, l.ref, page, sizeof page, &size, err) < 0)
		return -1;
	if (size < sizeof page)
		found(n, PREP_FS_HIBERNATED, "Windows may be hibernated (/hiberfil.sys has only %llu bytes)",
		      (unsigned long long)size);
	else if (memcmp(page, "hibr", 4) == 0 || memcmp(page, "HIBR", 4) == 0 ||
		 memcmp(page, "rstr", 4) == 0 || memcmp(page, "RSTR", 4) == 0)
		found(n, PREP_FS_HIBERNATED,
		      "Windows is hibernated (/hiberfil.sys holds a suspended session of %llu MiB)",
		      (unsigned long long)(size >> 20));
	return 0;
}

/* ---- Shadow copies ---- */

/*
 * Source: libvshadow, "Volume Shadow Snapshot (VSS) format". The volume header
 * stands at 0x1e00 of the volume: GUID, version, record type 1 at 20, catalog
 * offset at 48, 0 where there is no catalog. A catalog block has 16 KiB:
 * a header (GUID, record type 2 at 20, offset of the next block at 40, 0 in
 * the last), and from 128 on entries of 128 bytes, their type first: 2 and 3
 * describe one shadow copy, 1 is unused, 0 empty.
 */
#define VSS_HEADER 0x1e00
#define VSS_BLOCK 16384
#define VSS_BLOCKS_MAX 64 /* Windows keeps at most 512 shadow copies: 9 blocks */

static const uint8_t vss_id[16] = {
	0x6b, 0x87, 0x08, 0x38, 0x76, 0xc1, 0x48, 0x4e, 0xb7, 0xae, 0x04, 0x04, 0x6e, 0x6c, 0xc7, 0x52,
};

static int check_snapshots(struct prep_ntfs *n, struct prep_err *err)
{
	uint8_t *p = malloc(VSS_BLOCK);
	uint64_t at, copies = 0;
	unsigned blocks = 0;

	if (p == NULL)
		return prep_fail_nomem(err);
	memset(p, 0, 512);
	if (n->disk->size >= VSS_HEADER + 512 && prep_disk_read(n->disk, p, 512, VSS_HEADER, err) < 0)
		goto fail;
	at = memcmp(p, vss_id, 16) == 0 && get_le32(p + 20) == 1 ? get_le64(p + 48) : 0;
	while (at != 0) {
		if (at > n->disk->size || n->disk->size - at < VSS_BLOCK || blocks++ == VSS_BLOCKS_MAX)
			break;
		if (prep_disk_read(n->disk, p, VSS_BLOCK, at, err) < 0)
			goto fail;
		if (memcmp(p, vss_id, 16) != 0 || get_le32(p + 20) != 2)
			break;
		for (size_t i = 128; i < VSS_BLOCK; i += 128)
			copies += get_le64(p + i) == 2;
		at = get_le64(p + 40);
	}
	free(p);
	if (copies > 0)
		found(n, PREP_FS_SNAPSHOTS, "%llu shadow %s (VSS catalog), whose data is in free clusters",
		      (unsigned long long)copies, copies > 1 ? "copies stand" : "copy stands");
	else if (at != 0)
		found(n, PREP_FS_SNAPSHOTS,
		      "shadow copies may stand (the VSS catalog at offset %llu cannot be read)",
		      (unsigned long long)at);
	return 0;
fail:
	free(p);
	return -1;
}

int prep_ntfs_find_obstacles(struct prep_ntfs *n, struct prep_err *err)
{
	struct prep_ntfs_mft m;
	int r;

	if (n->vol->flags & VOLUME_IS_DIRTY)
		found(n, PREP_FS_DIRTY, "the volume is dirty (its flag in $Volume is set)");
	if (prep_ntfs_mft_open(&m, n, err) < 0)
		return -1;
	r = check_log(n, &m, err);
	if (r == 0)
		r = check_hiberfile(n, &m, err);
	if (r == 0)
		r = check_snapshots(n, err);
	prep_ntfs_mft_close(&m);
	return r;
}
