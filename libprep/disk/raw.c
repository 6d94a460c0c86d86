/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/raw.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libprep/base/file.h"

struct raw {
	struct prep_disk disk;
	int fd;

	/* The extent asked for last: some file systems (tmpfs) look at each page to its end, and the next question is about
	 * the same one. Forgotten with every change. */
	pthread_mutex_t lock;
	uint64_t at, end;
	bool hole;
};

static void forget_extent(struct raw *r)
{
	pthread_mutex_lock(&r->lock);
	r->at = r->end = 0;
	pthread_mutex_unlock(&r->lock);
}

static int raw_read(struct prep_disk *d, void *buf, size_t len, uint64_t off, struct prep_err *err)
{
	return prep_file_pread(((struct raw *)d)->fd, buf, len, off, d->name, err);
}

static int raw_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
		     struct prep_err *err)
{
	struct raw *raw = (struct raw *)d;
	const int r = prep_file_pwrite(raw->fd, buf, len, off, d->name, err);

	forget_extent(raw);
	return r;
}

static int raw_zero(struct prep_disk *d, uint64_t off, uint64_t len, struct prep_err *err)
{
	struct raw *raw = (struct raw *)d;
	const int r = prep_file_zero(raw->fd, off, len, d->name, err);

	forget_extent(raw);
	return r;
}

static int raw_extent(struct prep_disk *d, uint64_t off, struct prep_extent *ret,
		      struct prep_err *err)
{
	struct raw *r = (struct raw *)d;

	(void)err;
	pthread_mutex_lock(&r->lock);
	if (off < r->at || off >= r->end) {
		r->at = off;
		r->end = prep_file_extent(r->fd, off, d->size, &r->hole);
	}
	*ret = (struct prep_extent){ off, r->end - off, r->hole ? PREP_EXTENT_HOLE : PREP_EXTENT_DATA };
	pthread_mutex_unlock(&r->lock);
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
	struct raw *r = (struct raw *)d;

	close(r->fd);
	pthread_mutex_destroy(&r->lock);
	free(r);
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
	pthread_mutex_init(&r->lock, NULL);
	r->disk.ops = &raw_ops;
	r->disk.size = size;
	r->disk.sector_size = 512;
	r->fd = fd;
	*ret = &r->disk;
	return 0;
}
