/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Download: the frames of a package on a server, as a source for restore.h.
 *
 * A thread of its own keeps several ranges in flight. What comes goes at once
 * into a file, at its place in a sparse copy of the package, and is removed
 * from it when it is unpacked; so memory does not depend on the line, and a
 * later run has all that had come when this one was killed.
 *
 * A range that breaks off goes on where it broke off. A server, or a proxy,
 * that answers a range with the whole is read in one pass.
 */
#ifndef PREP_TRIM_DOWNLOAD_H
#define PREP_TRIM_DOWNLOAD_H

#include "libprep/trim/http.h"
#include "libprep/trim/restore.h"

/* Bytes that may have come and not be unpacked, on the disk; then the line waits. */
#define PREP_DOWNLOAD_AHEAD (128u << 20)

struct prep_download;

/*
 * The package at `url` has this index, and package_size bytes. `frames` is the
 * path of the sparse copy, which is made where it does not exist. url, how and
 * index must outlive it.
 */
int prep_download_open(const char *url, const struct prep_http_how *how, const struct prep_ckm_index *index,
		       uint64_t package_size, const char *frames, struct prep_download **ret,
		       struct prep_err *err);
void prep_download_close(struct prep_download *d); /* stops it; NULL is allowed */

void prep_download_source(struct prep_download *d, struct prep_frame_source *ret);

/* So far. */
struct prep_http_count prep_download_count(const struct prep_download *d);

/* After a failure: whether the package may have changed on the server, so that its index should be looked at again. */
bool prep_download_changed(const struct prep_download *d);

/*
 * How many of its first bytes the sparse copy `fd` has of each of
 * supply->frame[]: what a cut-off run left. *ret is the caller's to free.
 */
int prep_download_have(int fd, const struct prep_supply *supply, uint32_t **ret, struct prep_err *err);

/* The most bytes of a range, so that several are in flight, and few are needed. */
uint64_t prep_download_range_max(const struct prep_supply *supply);

#endif
