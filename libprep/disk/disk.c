/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/base/output.h"
#include "libprep/disk/journal.h"
#include "libprep/disk/parent.h"
#include "libprep/disk/raw.h"
#include "libprep/disk/undo_mark.h"
#include "libprep/disk/vhd.h"
#include "libprep/disk/vhdx.h"

/* Formats that would otherwise pass for raw disks, by the bytes at an offset. */
static const struct foreign {
	size_t off, len;
	const char *magic, *format;
} foreign[] = {
	{ 0, 4, "QFI\xfb", "a QEMU qcow disk" },
	{ 0, 4, "QED\0", "a QEMU QED disk" },
	{ 0, 4, "KDMV", "a VMware disk" },
	{ 0, 4, "COWD", "a VMware disk" },
	{ 0, 21, "# Disk DescriptorFile", "a VMware disk descriptor" },
	{ 64, 4, "\x7f\x10\xda\xbe", "a VirtualBox disk" },
	{ 0, 16, "WithoutFreeSpace", "a Parallels disk" },
	{ 0, 16, "WithouFreSpacExt", "a Parallels disk" },
	{ 0, 8, "\x89PCKM\r\n\x1a", "a CKM package (ckm-unpack makes the image of it)" },
	{ 0, 8, "\x89PCKI\r\n\x1a", "the index of a CKM package" },
	{ 0, 8, "MSWIM\0\0", "a WIM archive" },
	{ 0, 4, "PK\x03\x04", "a zip archive" },
	{ 0, 6, "\xfd" "7zXZ\0", "compressed by xz" },
	{ 0, 3, "\x1f\x8b\x08", "compressed by gzip" },
	{ 4, 6, "1AY&SY", "compressed by bzip2" },
	{ 0, 4, "\x28\xb5\x2f\xfd", "compressed by zstd" },
	{ 0, 6, "7z\xbc\xaf\x27\x1c", "a 7z archive" },
};

static int open_raw(int fd, const char *name, uint64_t size, struct prep_disk **ret,
		    struct prep_err *err)
{
	uint8_t head[128] = { 0 };
	const size_t dot = strlen(name) >= 4 ? strlen(name) - 4 : 0;

	if (prep_file_pread(fd, head, (size_t)prep_min(size, sizeof head), 0, name, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
		if (memcmp(head + foreign[i].off, foreign[i].magic, foreign[i].len) == 0)
			return prep_fail(err, PREP_EREFUSED, "%s: %s, not a VHD or raw disk", name,
					 foreign[i].format);
	if (size % PREP_VHD_SECTOR != 0)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: no VHD footer, and %llu bytes are no whole number of sectors: not a disk image",
				 name, (unsigned long long)size);
	if (prep_raw_open(fd, name, size, ret, err) < 0)
		return -1;
	if (strcasecmp(name + dot, ".vhd") == 0)
		prep_note(&(*ret)->notes, "%s: no VHD footer: read as a raw disk", name);
	return 0;
}

/* The files of a chain of parents, from the image that was asked for on. */
struct chain {
	struct {
		dev_t dev;
		ino_t ino;
	} file[PREP_PARENT_DEPTH];
	unsigned n;
};

bool prep_disk_id(const struct prep_disk *d, uint8_t id[16])
{
	const struct prep_vhd_info *vhd = prep_vhd_disk_info(d);
	const struct prep_vhdx_info *vhdx = prep_vhdx_disk_info(d);

	if (vhd != NULL)
		memcpy(id, vhd->footer.id, sizeof vhd->footer.id);
	else if (vhdx != NULL)
		memcpy(id, vhdx->id, sizeof vhdx->id);
	return vhd != NULL || vhdx != NULL;
}

bool prep_disk_names_others(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	const off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	uint8_t head[PREP_VHD_FOOTER_SIZE] = { 0 }, tail[PREP_VHD_FOOTER_SIZE] = { 0 };
	struct prep_vhd_footer footer;
	bool r = false;

	/* A footer may be one byte short. */
	const off_t tail_at = size - (off_t)sizeof tail + (size % (off_t)sizeof tail == (off_t)sizeof tail - 1);

	if (tail_at >= 0 && pread(fd, head, sizeof head, 0) > 0 && pread(fd, tail, sizeof tail, tail_at) > 0)
		r = memcmp(head, "vhdxfile", 8) == 0 ||
		    (prep_vhd_footer_decode(head, &footer) && footer.type == PREP_VHD_DIFFERENCING) ||
		    (prep_vhd_footer_decode(tail, &footer) && footer.type == PREP_VHD_DIFFERENCING);
	if (fd >= 0)
		close(fd);
	return r;
}

/* Not in the chain already, and room in it. */
static int add_link(struct chain *c, const struct stat *st, const char *name, struct prep_err *err)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->file[i].dev == st->st_dev && c->file[i].ino == st->st_ino)
			return prep_fail(err, PREP_EREFUSED,
					 "%s: a differencing disk that is, by its parents, its own parent: a loop", name);
	if (c->n == PREP_PARENT_DEPTH)
		return prep_fail(err, PREP_EREFUSED, "%s: more than %d disks in a chain of parents", name,
				 PREP_PARENT_DEPTH);
	c->file[c->n].dev = st->st_dev;
	c->file[c->n++].ino = st->st_ino;
	return 0;
}

/* A parent that was changed after its child was made no longer fits, though the id stays. */
static void check_time(struct prep_disk *d, const char *path)
{
	const struct prep_vhd_info *child = prep_vhd_disk_info(d), *parent = prep_vhd_disk_info(d->parent);
	const int64_t want = child != NULL ? child->header.parent_time_stamp : 0;
	struct stat st;

	if (want == 0 || parent->footer.time_stamp == want ||
	    (stat(path, &st) == 0 && (int64_t)st.st_mtim.tv_sec == want + PREP_VHD_EPOCH))
		return;
	prep_note(&d->notes, "%s: its parent %s has another time stamp than when it was made: changed or copied since",
		  d->name, path);
}

/* The disk in fd by itself. */
static int open_alone(int fd, const char *name, unsigned flags, struct chain *c, struct prep_disk **ret,
		      struct prep_err *err)
{
	const bool for_writing = (flags & (PREP_DISK_WRITE | PREP_DISK_TRY)) != 0;
	struct stat st;
	int r;

	if (fstat(fd, &st) != 0)
		return prep_fail_errno(err, "%s", name);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return prep_fail(err, PREP_EREFUSED, "%s: neither a file nor a block device", name);
	if (S_ISBLK(st.st_mode))
		st.st_size = lseek(fd, 0, SEEK_END);
	if (st.st_size <= 0)
		return prep_fail(err, PREP_EREFUSED, "%s: empty", name);
	if (add_link(c, &st, name, err) < 0)
		return -1;
	if (prep_file_lock(fd, (flags & PREP_DISK_WRITE) != 0, name, err) < 0)
		return -1;
	r = prep_vhd_open(fd, name, for_writing, ret, err);
	if (r == 0)
		r = prep_vhdx_open(fd, name, for_writing, ret, err);
	if (r != 0)
		return r < 0 ? -1 : 0;
	return open_raw(fd, name, (uint64_t)st.st_size, ret, err);
}

/*
 * Whether a file may be changed in place. That nobody may write to it binds root as well: by another name, or moved
 * away from its mark, the base of an undo disk is known by nothing else.
 */
static int check_writable(const char *path, struct prep_err *err)
{
	struct stat st;

	if (prep_undo_mark_check(path, err) < 0)
		return -1;
	if (stat(path, &st) != 0)
		return prep_fail_errno(err, "%s", path);
	if (S_ISREG(st.st_mode) && (st.st_mode & (S_IWUSR | S_IWGRP | S_IWOTH)) == 0)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: read-only, as the base of an undo disk is: 'chmod u+w' if it is none", path);
	return 0;
}

int prep_disk_check_replaced(const char *path, struct prep_err *err)
{
	return prep_undo_mark_check(path, err) < 0 ? -1 : prep_output_check_unused(path, err);
}

/*
 * open() has failed. Who is kept from writing by the protection of an undo disk's base is told so, as root is, whom it
 * would not have kept.
 */
static int not_opened(const char *path, unsigned flags, struct prep_err *err)
{
	const int why = errno;

	if (why == EACCES && (flags & PREP_DISK_WRITE) && !(flags & PREP_DISK_UNDO) && check_writable(path, err) < 0)
		return -1;
	errno = why;
	prep_file_not_opened(path, flags & PREP_DISK_WRITE, err);
	return -1;
}

/* The disk in the file `path` by itself, a change that was cut off completed. */
static int open_file(const char *path, unsigned flags, const struct prep_parents *parents, struct chain *c,
		     struct prep_disk **ret, struct prep_err *err)
{
	const unsigned n = c->n;
	int fd;

	for (;; c->n = n) {
		*ret = NULL;
		if (!(flags & PREP_DISK_NO_RECOVERY) && prep_journal_recover(path, parents, err) < 0)
			return -1;
		fd = open(path, ((flags & PREP_DISK_WRITE) ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			return not_opened(path, flags, err);
		if (open_alone(fd, path, flags, c, ret, err) < 0) {
			close(fd);
			return -1;
		}
		/* A writer may have died between the first look and the lock. */
		if (!prep_journal_waits(path))
			return 0;
		prep_disk_close(*ret);
		*ret = NULL;
		if (flags & PREP_DISK_NO_RECOVERY)
			return prep_fail(err, PREP_EREFUSED,
					 "%s: a change of it was cut off: run vhd-info on it, which finishes that", path);
	}
}

/* Find and open the parent of d. */
static int open_parent(struct prep_disk *d, bool named, unsigned flags, const struct prep_parents *parents,
		       struct chain *c, struct prep_err *err)
{
	const struct prep_vhd_info *vhd = prep_vhd_disk_info(d);
	const struct prep_parent_ref *ref = vhd != NULL ? &vhd->parent : &prep_vhdx_disk_info(d)->parent;
	uint8_t id[16];
	char *path;
	int r;

	if (prep_parent_find(d->name, named, ref, parents, vhd != NULL ? prep_vhd_peek : prep_vhdx_peek, &path, err) <
	    0)
		return -1;
	r = open_file(path, flags & PREP_DISK_NO_RECOVERY, parents, c, &d->parent, err);
	/* The file was closed in between. */
	if (r == 0 && ((vhd != NULL) != (prep_vhd_disk_info(d->parent) != NULL) || !prep_disk_id(d->parent, id) ||
		       memcmp(id, ref->id, sizeof id) != 0))
		r = prep_fail(err, PREP_EREFUSED, "%s: changed while it was being opened", path);
	if (r == 0 && d->parent->sector_size != d->sector_size)
		r = prep_fail(err, PREP_EREFUSED, "%s: its parent %s has sectors of another size", d->name, path);
	if (r == 0)
		check_time(d, path);
	free(path);
	return r;
}

/* Open what stands behind d, which closes d on a failure. What is odd about the parents is odd about d. */
static int open_parents(struct prep_disk **d, bool named, unsigned flags, const struct prep_parents *parents,
			struct chain *c, struct prep_err *err)
{
	if (flags & PREP_DISK_ALONE)
		return 0;
	for (struct prep_disk *p = *d; p->differencing; p = p->parent) {
		if (open_parent(p, named, flags, parents, c, err) < 0) {
			prep_disk_close(*d);
			*d = NULL;
			return -1;
		}
		named = true;
	}
	for (struct prep_disk *p = (*d)->parent; p != NULL; p = p->parent) {
		for (size_t i = 0; i < p->notes.n; i++)
			prep_note(&(*d)->notes, "%s", p->notes.text[i]);
		prep_notes_clear(&p->notes);
	}
	return 0;
}

/* Say which of `parents` is no parent of d: a mistake, perhaps. */
static void note_strangers(struct prep_disk *d, const struct prep_parents *parents)
{
	for (size_t i = 0; parents != NULL && i < parents->n; i++) {
		const struct prep_disk *p = d->parent;

		while (p != NULL && strcmp(p->name, parents->path[i]) != 0)
			p = p->parent;
		if (p == NULL)
			prep_note(&d->notes, "%s: not a parent of %s: not used", parents->path[i], d->name);
	}
}

int prep_disk_open_fd_chain(int fd, const char *name, bool named, unsigned flags,
			    const struct prep_parents *parents, struct prep_disk **ret,
			    struct prep_err *err)
{
	struct chain c = { .n = 0 };

	*ret = NULL;
	if (open_alone(fd, name, flags, &c, ret, err) < 0) {
		close(fd);
		return -1;
	}
	if (open_parents(ret, named, flags, parents, &c, err) < 0)
		return -1;
	note_strangers(*ret, parents);
	return 0;
}

int prep_disk_open_fd(int fd, const char *name, unsigned flags, struct prep_disk **ret,
		      struct prep_err *err)
{
	return prep_disk_open_fd_chain(fd, name, false, flags, NULL, ret, err);
}

int prep_disk_open_chain(const char *path, unsigned flags, const struct prep_parents *parents,
			 struct prep_disk **ret, struct prep_err *err)
{
	struct chain c = { .n = 0 };

	if (open_file(path, flags, parents, &c, ret, err) < 0 ||
	    open_parents(ret, true, flags, parents, &c, err) < 0)
		return -1;
	/* Now that it is locked, no undo disk can be made for it. */
	if ((flags & (PREP_DISK_WRITE | PREP_DISK_TRY)) && !(flags & PREP_DISK_UNDO) && check_writable(path, err) < 0) {
		prep_disk_close(*ret);
		*ret = NULL;
		return -1;
	}
	note_strangers(*ret, parents);
	return 0;
}

int prep_disk_open(const char *path, unsigned flags, struct prep_disk **ret, struct prep_err *err)
{
	return prep_disk_open_chain(path, flags, NULL, ret, err);
}

static int check_range(const struct prep_disk *d, uint64_t off, uint64_t len, const char *what,
		       struct prep_err *err)
{
	if (off > d->size || len > d->size - off)
		return prep_fail(err, PREP_EDAMAGED, "%s: %s of %llu bytes at offset %llu is outside the disk",
				 d->name, what, (unsigned long long)len, (unsigned long long)off);
	return 0;
}

int prep_disk_read(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err)
{
	if (check_range(d, off, len, "a read", err) < 0)
		return -1;
	return len == 0 ? 0 : d->ops->read(d, buf, len, off, err);
}

int prep_disk_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
		    struct prep_err *err)
{
	if (check_range(d, off, len, "a write", err) < 0)
		return -1;
	if (d->ops->write == NULL)
		return prep_fail(err, PREP_EREFUSED, "%s: a %s disk cannot be written", d->name, d->ops->kind);
	return len == 0 ? 0 : d->ops->write(d, buf, len, off, err);
}

/* The bytes of [off, off+len) that are not zero, in whole pages but at the ends; they lie in [*first, *last). */
static uint64_t not_zero(const unsigned char *buf, size_t len, uint64_t off, uint64_t *first, uint64_t *last)
{
	uint64_t sum = 0;

	*first = *last = off;
	for (size_t at = 0, n; at < len; at += n) {
		const size_t page = 4096 - (size_t)((off + at) % 4096);
		bool zero;

		n = prep_zero_run(buf + at, page < 4096 ? (size_t)prep_min(page, len - at) : len - at, 4096, &zero);
		if (zero)
			continue;
		if (sum == 0)
			*first = off + at;
		*last = off + at + n;
		sum += n;
	}
	return sum;
}

int prep_disk_zero(struct prep_disk *d, uint64_t off, uint64_t len, uint64_t *changed,
		   struct prep_err *err)
{
	const uint64_t end = off + len;
	/*
	 * A hole for each page is a journal entry, or a discard, for each: what lies between goes with
	 * them. Where a differencing disk holds nothing itself, zeros would be something.
	 */
	const uint64_t between = d->differencing ? 0 : PREP_MIB;
	uint64_t from = off, to = off; /* to be zeroed, once it is known where it ends */
	unsigned char *buf;
	struct prep_extent e;
	int r = -1;

	*changed = 0;
	if (check_range(d, off, len, "a write", err) < 0)
		return -1;
	/* File tails are zeroed by the thousand: no more than is needed. */
	buf = malloc((size_t)prep_min(len, PREP_MIB));
	if (buf == NULL)
		return len == 0 ? 0 : prep_fail_nomem(err);
	for (; off < end; off += e.len) {
		uint64_t first, last, n;

		if (prep_disk_extent(d, off, end, &e, err) < 0)
			goto out;
		if (e.kind != PREP_EXTENT_DATA)
			continue;
		/* Steps end on whole MiB, so that what is found begins on whole pages. */
		e.len = prep_min(e.len, PREP_MIB - off % PREP_MIB);
		if (prep_disk_read(d, buf, (size_t)e.len, off, err) < 0)
			goto out;
		n = not_zero(buf, (size_t)e.len, off, &first, &last);
		if (n == 0)
			continue;
		*changed += n;
		if (from < to && first - to > between) {
			if (d->ops->zero(d, from, to - from, err) < 0)
				goto out;
			to = from;
		}
		if (from == to)
			from = first;
		to = last;
	}
	if (from < to && d->ops->zero(d, from, to - from, err) < 0)
		goto out;
	r = 0;
out:
	free(buf);
	return r;
}

int prep_disk_flush(struct prep_disk *d, struct prep_err *err)
{
	return d->ops->flush != NULL ? d->ops->flush(d, err) : 0;
}

int prep_disk_extent(struct prep_disk *d, uint64_t off, uint64_t end, struct prep_extent *ret,
		     struct prep_err *err)
{
	struct prep_extent next;

	if (check_range(d, off, end - off, "an extent", err) < 0 || d->ops->extent(d, off, ret, err) < 0)
		return -1;
	while (ret->off + ret->len < end) {
		if (d->ops->extent(d, ret->off + ret->len, &next, err) < 0)
			return -1;
		if (next.kind != ret->kind)
			break;
		ret->len += next.len;
	}
	ret->len = prep_min(ret->len, end - off);
	return 0;
}

bool prep_disk_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret)
{
	return off < d->size && d->ops->backing != NULL && d->ops->backing(d, off, ret);
}

int prep_disk_read_below(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err)
{
	unsigned char *p = buf;
	size_t n = 0;

	if (d->differencing && d->parent == NULL)
		return prep_fail(err, PREP_EREFUSED, "%s: opened without its parent", d->name);
	if (d->parent != NULL && off < d->parent->size)
		n = (size_t)prep_min(len, d->parent->size - off);
	if (n > 0 && prep_disk_read(d->parent, p, n, off, err) < 0)
		return -1;
	memset(p + n, 0, len - n);
	return 0;
}

int prep_disk_extent_below(struct prep_disk *d, uint64_t off, uint64_t len, enum prep_extent_kind zeros,
			   struct prep_extent *ret, struct prep_err *err)
{
	*ret = (struct prep_extent){ off, len, zeros };
	if (d->parent == NULL || off >= d->parent->size)
		return 0;
	if (d->parent->ops->extent(d->parent, off, ret, err) < 0)
		return -1;
	ret->len = prep_min(ret->len, len);
	if (ret->kind != PREP_EXTENT_DATA)
		ret->kind = zeros;
	return 0;
}

bool prep_disk_backing_below(struct prep_disk *d, uint64_t off, uint64_t len, struct prep_backing *ret)
{
	if (d->parent == NULL || !prep_disk_backing(d->parent, off, ret))
		return false;
	ret->len = prep_min(ret->len, len);
	return true;
}

void prep_disk_close(struct prep_disk *d)
{
	while (d != NULL) {
		struct prep_disk *parent = d->parent;

		prep_notes_clear(&d->notes);
		free(d->name);
		d->ops->close(d);
		d = parent;
	}
}
