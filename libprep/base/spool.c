/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/spool.h"

#include <stdlib.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"

#define SPOOL_BUFFER (1 * PREP_MIB)
#define SPOOL_UNIT 4096

/* Write buf at off but for the units that are zero. */
static int write_data(int fd, const unsigned char *buf, size_t len, uint64_t off,
		      const char *name, struct prep_err *err)
{
	while (len > 0) {
		bool zero;
		const size_t n = prep_zero_run(buf, len, SPOOL_UNIT, &zero);

		if (!zero && prep_file_pwrite(fd, buf, n, off, name, err) < 0)
			return -1;
		buf += n;
		len -= n;
		off += n;
	}
	return 0;
}

int prep_spool(int fd, const void *head, size_t head_len, const char *dir, const char *name,
	       const struct prep_progress *progress, struct prep_err *err)
{
	unsigned char *buf = malloc(SPOOL_BUFFER);
	uint64_t off = head_len;
	int spool = -1;
	int64_t n;

	if (buf == NULL) {
		prep_fail_nomem(err);
		goto fail;
	}
	spool = prep_file_temp(dir, err);
	if (spool < 0 || write_data(spool, head, head_len, 0, "temporary file", err) < 0)
		goto fail;
	while ((n = prep_file_read(fd, buf, SPOOL_BUFFER, name, err)) > 0) {
		if (write_data(spool, buf, (size_t)n, off, "temporary file", err) < 0)
			goto fail;
		off += (uint64_t)n;
		if (prep_progress(progress, "reading", off, 0, err) < 0)
			goto fail;
	}
	if (n < 0)
		goto fail;
	if (ftruncate(spool, (off_t)off) != 0) {
		prep_fail_errno(err, "temporary file: cannot set its size");
		goto fail;
	}
	free(buf);
	return spool;
fail:
	free(buf);
	if (spool >= 0)
		close(spool);
	return -1;
}
