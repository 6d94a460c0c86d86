/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/compact.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/vhd_write.h"

#define BUFFER (512 * PREP_KIB) /* divides every block size */
#define ZERO_UNIT 4096

/* Hand buf to the writer: data as data, zeros as zeros. */
static int put(struct prep_vhd_writer *w, const unsigned char *buf, size_t len,
	       struct prep_export_report *report, struct prep_err *err)
{
	while (len > 0) {
		bool zero;
		const size_t n = prep_zero_run(buf, len, ZERO_UNIT, &zero);

		if (zero ? prep_vhd_writer_zeros(w, n, err) < 0 : prep_vhd_writer_data(w, buf, n, err) < 0)
			return -1;
		if (!zero)
			report->data += n;
		buf += n;
		len -= n;
	}
	return 0;
}

int prep_compact_stream(struct prep_vhd_stream *s, struct prep_output *out,
			const struct prep_export *how, struct prep_export_report *report,
			const struct prep_progress *progress, struct prep_err *err)
{
	const uint64_t size = prep_vhd_stream_footer(s)->current_size;
	const uint64_t block_size = prep_vhd_stream_header(s)->block_size;
	const uint64_t total = prep_vhd_stream_blocks(s) * block_size;
	struct prep_vhd_writer *w;
	unsigned char *buf;
	uint64_t done = 0;
	uint32_t index;
	int r = -1;

	*report = (struct prep_export_report){ 0 };
	if (prep_vhd_writer_open(out, &how->identity, size, how->block_size, NULL, &w, err) < 0)
		return -1;
	buf = malloc(BUFFER);
	if (buf == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	while ((r = prep_vhd_stream_next(s, &index, err)) > 0) {
		const uint64_t start = index * block_size;
		const uint64_t end = prep_min(start + block_size, size);

		/* A table may have entries past the disk's end: start is then past it too. */
		for (uint64_t off = start; off < end; off += BUFFER) {
			const size_t n = (size_t)prep_min(BUFFER, end - off);

			r = -1;
			if (off % how->block_size == 0 &&
			    prep_vhd_writer_block(w, (uint32_t)(off / how->block_size), err) < 0)
				goto out;
			if (prep_vhd_stream_read(s, buf, n, err) < 0 || put(w, buf, n, report, err) < 0)
				goto out;
			done += n;
			if (prep_progress(progress, "compacting", done, total, err) < 0)
				goto out;
		}
	}
	if (r == 0)
		r = prep_vhd_writer_finish(w, err);
	report->blocks = prep_vhd_writer_blocks(w);
out:
	free(buf);
	prep_vhd_writer_close(w);
	return r;
}
