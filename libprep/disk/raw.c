/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/raw.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libprep/base/file.h"

struct raw {
	struct prep_disk disk;
	int fd;
	struct prep_file_run data;
};

static int raw_read(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err)
{
	return prep_file_pread(((struct raw *)d)->fd, buf, len, off, d->name, err);
}

static int raw_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
		     struct prep_err *err)
{
	return prep_file_pwrite(((struct raw *)d)->fd, buf, len, off, d->name, err);
}

static int raw_zero(struct prep_disk *d, uint64_t off, uint64_t len, struct prep_err *err)
{
	struct raw *r = (struct raw *)d;

	prep_file_run_cut(&r->data, off, len);
	return prep_file_zero(r->fd, off, len, d->name, err);
}

static int raw_extent(struct prep_disk *d, uint64_t off, struct prep_extent *ret,
		      struct prep_err *err)
{
	struct raw *r = (struct raw *)d;
	bool hole;
	const uint64_t end = prep_file_extent(r->fd, &r->data, off, d->size, &hole);

	(void)err;
	*ret = (struct prep_extent){ off, end - off, hole ? PREP_EXTENT_HOLE : PREP_EXTENT_DATA };
	return 0;
}

static bool raw_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret)
{
	*ret = (struct prep_backing){ ((struct raw *)d)->fd, d->name, off, d->size - off };
	return true;
}

static int raw_flush(struct prep_disk *d, struct prep_err *err)
{
	return prep_file_sync(((struct raw *)d)->fd, d->name, err);
}

static void raw_close(struct prep_disk *d)
{
	close(((struct raw *)d)->fd);
	free(d);
}

static const struct prep_disk_ops raw_ops = {
	.kind = "raw",
	.read = raw_read,
	.write = raw_write,
	.zero = raw_zero,
	.extent = raw_extent,
	.backing = raw_backing,
	.flush = raw_flush,
	.close = raw_close,
};

int prep_raw_open(int fd, const char *name, uint64_t size, struct prep_disk **ret,
		  struct prep_err *err)
{
	struct raw *r = calloc(1, sizeof *r);

	if (r == NULL || (r->disk.name = strdup(name)) == NULL) {
		free(r);
		return prep_fail_nomem(err);
	}
	r->disk.ops = &raw_ops;
	r->disk.size = size;
	r->disk.sector_size = 512;
	r->fd = fd;
	*ret = &r->disk;
	return 0;
}
