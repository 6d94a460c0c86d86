/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libprep/base/file.h"
#include "libprep/disk/vhdx_internal.h"

#define SIGNATURE "vhdxfile"

static struct prep_vhdx *vhdx_of(struct prep_disk *d)
{
	return (struct prep_vhdx *)d;
}

static int read_entry(const struct prep_vhdx *v, uint64_t block, uint64_t *ret, struct prep_err *err)
{
	uint8_t raw[ENTRY_SIZE];

	if (prep_vhdx_read_entries(v, entry_index(v, block), 1, raw, err) < 0)
		return -1;
	*ret = get_le64(raw);
	return 0;
}

/*
 * How far the sectors from `at` on in a partly present block are all the disk's
 * own, or all its parent's: *n bytes, at most to `end`.
 */
static int own_run(const struct prep_vhdx *v, uint64_t block, uint64_t at, uint64_t end, uint64_t *n, bool *own,
		   struct prep_err *err)
{
	const uint64_t sector_size = v->disk.sector_size;
	const uint64_t first_in_chunk = block % v->chunk_blocks * (v->info.block_size / sector_size);
	const uint64_t from = first_in_chunk + at / sector_size;
	const uint64_t to = first_in_chunk + (end + sector_size - 1) / sector_size;
	uint8_t raw[ENTRY_SIZE], bits[1024];
	const uint64_t base = prep_round_down(from, 8);
	const uint64_t have = prep_min(to - base, sizeof bits * 8);
	uint64_t stop;

	if (prep_vhdx_read_entries(v, bitmap_index(v, block), 1, raw, err) < 0 ||
	    prep_file_pread(v->fd, bits, (size_t)((have + 7) / 8), entry_offset(get_le64(raw)) + base / 8, v->disk.name,
			    err) < 0)
		return -1;
	*own = prep_bit_get(bits, from - base);
	stop = base + prep_bit_next(bits, from - base, have, !*own);
	*n = prep_min((stop - first_in_chunk) * sector_size, end) - at;
	return 0;
}

/*
 * What the disk holds at off: bytes of the file, what shows from below, or
 * nothing. It holds for n bytes, not past the block's end, or for all of the
 * block where that has no data.
 */
enum what { PRESENT, BELOW, NOTHING };

struct place {
	enum what what;
	bool no_data;  /* the block as a whole */
	uint64_t n;
	uint64_t file; /* where the bytes stand, if PRESENT */
};

static int look_up(const struct prep_vhdx *v, uint64_t off, struct place *ret, struct prep_err *err)
{
	const uint64_t block = off / v->info.block_size, at = off % v->info.block_size;
	uint64_t entry;
	bool own = true;

	*ret = (struct place){ .n = block_bytes(v, block) - at };
	if (read_entry(v, block, &entry, err) < 0)
		return -1;
	ret->file = entry_offset(entry) + at;
	ret->no_data = entry_state(entry) < FULLY_PRESENT;
	if (ret->no_data) {
		ret->what = entry_state(entry) == NOT_PRESENT && v->disk.differencing ? BELOW : NOTHING;
		return 0;
	}
	if (entry_state(entry) == PARTIALLY_PRESENT && own_run(v, block, at, at + ret->n, &ret->n, &own, err) < 0)
		return -1;
	ret->what = own ? PRESENT : BELOW;
	return 0;
}

static int libvhdi_failed(const struct prep_vhdx *v, const char *what, libvhdi_error_t **error, struct prep_err *err)
{
	char why[256] = "";

	if (*error != NULL)
		libvhdi_error_sprint(*error, why, sizeof why);
	libvhdi_error_free(error);
	return prep_fail(err, PREP_EDAMAGED, "%s: libvhdi cannot %s: %s", v->disk.name, what, why);
}

/*
 * The data of fixed and dynamic disks is read by libvhdi, after all that it
 * would not notice has been checked here. Differencing disks, of which it
 * misreads some (HACKING.md), and files that it cannot open are read here.
 */
static int open_reader(struct prep_vhdx *v, struct prep_err *err)
{
	libvhdi_error_t *error = NULL;
	uint32_t sector_size;
	size64_t size;
	char path[32];

	if (v->disk.differencing)
		return 0;
	/* The file that was checked, whatever has its name now. */
	snprintf(path, sizeof path, "/proc/self/fd/%d", v->fd);
	if (libvhdi_file_initialize(&v->reader, &error) != 1 ||
	    libvhdi_file_open(v->reader, path, LIBVHDI_OPEN_READ, &error) != 1) {
		/* Of a region table it knows the first copy only, which a crash may have left half written. */
		libvhdi_error_free(&error);
		libvhdi_file_free(&v->reader, NULL);
		return 0;
	}
	if (libvhdi_file_get_media_size(v->reader, &size, &error) != 1 ||
	    libvhdi_file_get_bytes_per_sector(v->reader, &sector_size, &error) != 1)
		return libvhdi_failed(v, "tell its size", &error, err);
	if (size != v->disk.size || sector_size != v->disk.sector_size)
		return prep_fail(err, PREP_EDAMAGED,
				 "%s: libvhdi finds a disk of %llu bytes in sectors of %u, not %llu in sectors of %u",
				 v->disk.name, (unsigned long long)size, sector_size,
				 (unsigned long long)v->disk.size, v->disk.sector_size);
	return 0;
}

/* Read bytes that are in the file: at `file` there, off on the disk. */
static int read_present(const struct prep_vhdx *v, void *buf, size_t len, uint64_t file, uint64_t off,
			struct prep_err *err)
{
	libvhdi_error_t *error = NULL;

	if (v->reader == NULL)
		return prep_file_pread(v->fd, buf, len, file, v->disk.name, err);
	for (size_t at = 0; at < len;) {
		const ssize_t n = libvhdi_file_read_buffer_at_offset(v->reader, (char *)buf + at, len - at,
								     (off64_t)(off + at), &error);

		if (n <= 0)
			return libvhdi_failed(v, "read it", &error, err);
		at += (size_t)n;
	}
	return 0;
}

static int vhdx_read(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err)
{
	struct prep_vhdx *v = vhdx_of(d);
	unsigned char *p = buf;

	while (len > 0) {
		struct place at;
		size_t n;

		if (look_up(v, off, &at, err) < 0)
			return -1;
		n = (size_t)prep_min(at.n, len);
		if (at.what == PRESENT ? read_present(v, p, n, at.file, off, err) < 0
				       : at.what == BELOW && prep_disk_read_below(d, p, n, off, err) < 0)
			return -1;
		if (at.what == NOTHING)
			memset(p, 0, n);
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

/* How far blocks from `block` on have the same state, one of those without data: an offset on the disk. */
static int same_state(const struct prep_vhdx *v, uint64_t block, uint64_t *end, struct prep_err *err)
{
	const uint64_t in_chunk = block % v->chunk_blocks;
	uint8_t table[4096];
	uint64_t n = prep_min(prep_min(sizeof table / ENTRY_SIZE, v->chunk_blocks - in_chunk), blocks_of(v) - block);
	uint64_t same = 1;

	if (prep_vhdx_read_entries(v, entry_index(v, block), (size_t)n, table, err) < 0)
		return -1;
	while (same < n &&
	       entry_state(get_le64(table + same * ENTRY_SIZE)) == entry_state(get_le64(table)))
		same++;
	*end = prep_min((block + same) * v->info.block_size, v->disk.size);
	return 0;
}

static int vhdx_extent(struct prep_disk *d, uint64_t off, struct prep_extent *ret, struct prep_err *err)
{
	struct prep_vhdx *v = vhdx_of(d);
	struct place at;
	uint64_t end;
	bool hole;

	if (look_up(v, off, &at, err) < 0)
		return -1;
	if (at.what == PRESENT) {
		end = prep_file_extent(v->fd, &v->data, at.file, at.file + at.n, &hole);
		*ret = (struct prep_extent){ off, end - at.file, hole ? PREP_EXTENT_ZERO : PREP_EXTENT_DATA };
		return 0;
	}
	if (at.no_data) {
		if (same_state(v, off / v->info.block_size, &end, err) < 0)
			return -1;
		at.n = end - off;
	}
	if (at.what == BELOW)
		return prep_disk_extent_below(d, off, at.n, at.no_data ? PREP_EXTENT_HOLE : PREP_EXTENT_ZERO, ret,
					      err);
	*ret = (struct prep_extent){ off, at.n, PREP_EXTENT_HOLE };
	return 0;
}

static bool vhdx_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret)
{
	struct prep_vhdx *v = vhdx_of(d);
	struct prep_err ignored = PREP_ERR_INIT;
	struct place at;

	if (look_up(v, off, &at, &ignored) < 0)
		return false;
	if (at.what == BELOW)
		return prep_disk_backing_below(d, off, at.n, ret);
	*ret = (struct prep_backing){ v->fd, d->name, at.file, at.n };
	return at.what == PRESENT;
}

static void vhdx_close(struct prep_disk *d)
{
	struct prep_vhdx *v = vhdx_of(d);

	libvhdi_file_free(&v->reader, NULL);
	prep_parent_clear(&v->info.parent);
	close(v->fd);
	free(v);
}

static const struct prep_disk_ops vhdx_ops = {
	.kind = "vhdx",
	.read = vhdx_read,
	.extent = vhdx_extent,
	.backing = vhdx_backing,
	.close = vhdx_close,
};

int prep_vhdx_open(int fd, const char *name, bool write, struct prep_disk **ret, struct prep_err *err)
{
	const off_t file_size = lseek(fd, 0, SEEK_END);
	uint8_t head[8];
	struct prep_vhdx *v;

	if (file_size < (off_t)sizeof head)
		return 0;
	if (prep_file_pread(fd, head, sizeof head, 0, name, err) < 0)
		return -1;
	if (memcmp(head, SIGNATURE, sizeof head) != 0)
		return 0;
	if (write)
		return prep_fail(err, PREP_EREFUSED, "%s: a VHDX cannot be changed in place: -o FILE writes a VHD", name);
	v = calloc(1, sizeof *v);
	if (v == NULL || (v->disk.name = strdup(name)) == NULL) {
		free(v);
		return prep_fail_nomem(err);
	}
	v->disk.ops = &vhdx_ops;
	v->fd = fd;
	v->file_size = (uint64_t)file_size;
	if (prep_vhdx_read_layout(v, err) < 0 || open_reader(v, err) < 0) {
		libvhdi_file_free(&v->reader, NULL);
		prep_parent_clear(&v->info.parent);
		prep_notes_clear(&v->disk.notes);
		free(v->disk.name);
		free(v);
		return -1;
	}
	*ret = &v->disk;
	return 1;
}

const struct prep_vhdx_info *prep_vhdx_disk_info(const struct prep_disk *d)
{
	return d->ops == &vhdx_ops ? &((const struct prep_vhdx *)d)->info : NULL;
}

int prep_vhdx_peek(int fd, uint8_t id[16])
{
	const off_t file_size = lseek(fd, 0, SEEK_END);
	struct prep_err ignored = PREP_ERR_INIT;
	uint8_t h[HEADER_SIZE];

	if (file_size < 8 || prep_file_pread(fd, h, 8, 0, "", &ignored) < 0 || memcmp(h, SIGNATURE, 8) != 0 ||
	    prep_vhdx_read_header(fd, "", (uint64_t)file_size, h, &ignored) <= 0)
		return 0;
	prep_vhdx_take_guid(h + 32, id);
	return 1;
}
