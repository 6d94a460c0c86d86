/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/slice.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"

struct slice {
	struct prep_disk disk;
	struct prep_disk *base;
	uint64_t start; /* in base */
};

static struct slice *slice_of(struct prep_disk *d)
{
	return (struct slice *)d;
}

static int slice_read(struct prep_disk *d, void *buf, size_t len, uint64_t off,
		      struct prep_err *err)
{
	return prep_disk_read(slice_of(d)->base, buf, len, slice_of(d)->start + off, err);
}

static int slice_write(struct prep_disk *d, const void *buf, size_t len, uint64_t off,
		       struct prep_err *err)
{
	return prep_disk_write(slice_of(d)->base, buf, len, slice_of(d)->start + off, err);
}

static int slice_zero(struct prep_disk *d, uint64_t off, uint64_t len, struct prep_err *err)
{
	uint64_t changed;

	return prep_disk_zero(slice_of(d)->base, slice_of(d)->start + off, len, &changed, err);
}

static int slice_extent(struct prep_disk *d, uint64_t off, struct prep_extent *ret,
			struct prep_err *err)
{
	const struct slice *s = slice_of(d);

	if (s->base->ops->extent(s->base, s->start + off, ret, err) < 0)
		return -1;
	ret->off = off;
	ret->len = prep_min(ret->len, d->size - off);
	return 0;
}

static bool slice_backing(struct prep_disk *d, uint64_t off, struct prep_backing *ret)
{
	if (!prep_disk_backing(slice_of(d)->base, slice_of(d)->start + off, ret))
		return false;
	ret->len = prep_min(ret->len, d->size - off);
	return true;
}

static int slice_flush(struct prep_disk *d, struct prep_err *err)
{
	return prep_disk_flush(slice_of(d)->base, err);
}

static void slice_close(struct prep_disk *d)
{
	free(d);
}

static const struct prep_disk_ops slice_ops = {
	.kind = "slice",
	.read = slice_read,
	.write = slice_write,
	.zero = slice_zero,
	.extent = slice_extent,
	.backing = slice_backing,
	.flush = slice_flush,
	.close = slice_close,
};

int prep_slice_open(struct prep_disk *base, uint64_t off, uint64_t len, const char *name,
		    struct prep_disk **ret, struct prep_err *err)
{
	struct slice *s;

	if (off > base->size || len > base->size - off)
		return prep_fail(err, PREP_EDAMAGED, "%s: outside the disk", name);
	s = calloc(1, sizeof *s);
	if (s == NULL || (s->disk.name = strdup(name)) == NULL) {
		free(s);
		return prep_fail_nomem(err);
	}
	s->disk.ops = &slice_ops;
	s->disk.size = len;
	s->disk.sector_size = base->sector_size;
	s->base = base;
	s->start = off;
	*ret = &s->disk;
	return 0;
}
