/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/writer.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "libprep/base/bytes.h"

#define ZERO_UNIT 4096

int prep_writer_open(const struct prep_ckm_index *index, const struct prep_export *how,
		     struct prep_output *out, bool used, struct prep_writer *ret, struct prep_err *err)
{
	*ret = (struct prep_writer){ .index = index, .out = out, .used = used };
	if (prep_places_new(index, &ret->places, err) < 0)
		return -1;
	if (prep_target_write(index, how, out, &ret->target, err) < 0) {
		prep_writer_close(ret);
		return -1;
	}
	return 0;
}

void prep_writer_close(struct prep_writer *w)
{
	prep_places_clear(&w->places);
	prep_target_clear(&w->target);
}

/* In a new file zeros are there already, as holes. */
int prep_writer_flush(const struct prep_writer *w, struct prep_writer_pending *pending, struct prep_err *err)
{
	const uint8_t *p = pending->p;
	size_t len = pending->len;
	uint64_t off = pending->off;

	pending->len = 0;
	if (w->used && len > 0)
		return prep_output_pwrite(w->out, p, len, off, err);
	while (len > 0) {
		bool zero;
		const size_t n = prep_zero_run(p, len, ZERO_UNIT, &zero);

		if (!zero && prep_output_pwrite(w->out, p, n, off, err) < 0)
			return -1;
		p += n;
		len -= n;
		off += n;
	}
	return 0;
}

/* Bytes that stand together in the file. */
static int put(const struct prep_writer *w, struct prep_writer_pending *pending, const uint8_t *p, size_t len,
	       uint64_t off, struct prep_err *err)
{
	if (pending->len > 0 && pending->p + pending->len == p && pending->off + pending->len == off) {
		pending->len += len;
		return 0;
	}
	if (prep_writer_flush(w, pending, err) < 0)
		return -1;
	*pending = (struct prep_writer_pending){ p, len, off };
	return 0;
}

int prep_writer_place(const struct prep_writer *w, struct prep_writer_pending *pending, uint32_t ref,
		      const uint8_t *data, struct prep_err *err)
{
	struct prep_piece piece = { .len = 0 };

	while (prep_places_piece(&w->places, ref, &piece)) {
		for (uint64_t done = 0, n; done < piece.len; done += n) {
			uint64_t off;

			n = prep_target_find(&w->target, piece.off + done, piece.len - done, &off);
			if (put(w, pending, data + piece.at + done, (size_t)n, off, err) < 0)
				return -1;
		}
	}
	return 0;
}

int prep_writer_chunk(const struct prep_writer *w, struct prep_writer_pending *pending, uint32_t chunk,
		      const uint8_t *data, struct prep_err *err)
{
	for (uint32_t i = w->places.first[chunk]; i < w->places.first[chunk + 1]; i++)
		if (prep_writer_place(w, pending, w->places.ref[i], data, err) < 0)
			return -1;
	return 0;
}

/* Bytes of the file; beyond its end, zeros. */
static int get(int fd, uint8_t *p, size_t len, uint64_t off, const char *name, struct prep_err *err)
{
	while (len > 0) {
		const ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return prep_fail_errno(err, "%s: cannot read at offset %llu", name, (unsigned long long)off);
		if (n == 0) {
			memset(p, 0, len);
			return 0;
		}
		p += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

int prep_writer_read(const struct prep_writer *w, uint32_t ref, uint8_t *buf, struct prep_err *err)
{
	struct prep_piece piece = { .len = 0 };

	while (prep_places_piece(&w->places, ref, &piece)) {
		for (uint64_t done = 0, n; done < piece.len; done += n) {
			uint64_t off;

			n = prep_target_find(&w->target, piece.off + done, piece.len - done, &off);
			if (get(prep_output_fd(w->out), buf + piece.at + done, (size_t)n, off, prep_output_name(w->out),
				err) < 0)
				return -1;
		}
	}
	return 0;
}
