/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/scan.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/overlay.h"

#define PAGE 4096

int prep_scan_nonzero(struct prep_disk *d, uint64_t off, uint64_t len, uint64_t *ret,
		      struct prep_err *err)
{
	const uint64_t end = off + len;
	struct prep_extent e;
	unsigned char *buf;
	int r = -1;

	*ret = 0;
	buf = malloc(PREP_MIB);
	if (buf == NULL)
		return prep_fail_nomem(err);
	while (off < end) {
		if (prep_disk_extent(d, off, end, &e, err) < 0)
			goto out;
		/* Steps end on whole MiB, so that the pages are those of the disk. */
		if (e.kind == PREP_EXTENT_DATA)
			e.len = prep_min(e.len, PREP_MIB - off % PREP_MIB);
		if (e.kind == PREP_EXTENT_DATA && prep_disk_read(d, buf, (size_t)e.len, off, err) < 0)
			goto out;
		for (size_t at = 0, n; e.kind == PREP_EXTENT_DATA && at < e.len; at += n) {
			n = (size_t)prep_min(PAGE - (off + at) % PAGE, e.len - at);
			if (!prep_is_zero(buf + at, n))
				*ret += n;
		}
		off += e.len;
	}
	r = 0;
out:
	free(buf);
	return r;
}

int prep_scan_fills(struct prep_disk *overlay, uint64_t *ret, const struct prep_progress *progress,
		    struct prep_err *err)
{
	struct prep_disk *base = prep_overlay_base(overlay);
	struct prep_overlay_change c;
	uint64_t n;
	int r;

	*ret = 0;
	for (uint64_t off = 0; (r = prep_overlay_change(overlay, off, &c, err)) > 0; off = c.off + c.len) {
		if (!c.fill || c.byte != 0)
			continue;
		if (prep_scan_nonzero(base, c.off, c.len, &n, err) < 0 ||
		    prep_progress(progress, "free space", c.off + c.len, overlay->size, err) < 0)
			return -1;
		*ret += n;
	}
	return r;
}

int prep_scan_blocks(struct prep_disk *d, uint64_t block_size, uint64_t *ret, struct prep_err *err)
{
	struct prep_extent e;
	uint64_t off = 0;

	*ret = 0;
	while (off < d->size) {
		if (d->ops->extent(d, off, &e, err) < 0)
			return -1;
		if (e.kind == PREP_EXTENT_DATA) {
			/* One is enough: on to the next block. */
			++*ret;
			off = prep_round_down(off, block_size) + block_size;
		} else {
			off += e.len;
		}
	}
	return 0;
}
