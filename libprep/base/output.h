/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Output: a file that appears under its name complete or not at all, or a
 * stream (a pipe, a device), behind one interface.
 *
 * A regular file is written without a name (O_TMPFILE; where the file system
 * has none, under a hidden name beside the target), and gets its name after an
 * fsync. A killed process leaves nothing behind, or what the next one takes over. Until it is finished
 * nobody but its owner may read it. An empty regular file that standard output was redirected to is
 * written with holes too; on failure it is left empty.
 */
#ifndef PREP_BASE_OUTPUT_H
#define PREP_BASE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "libprep/base/err.h"

struct prep_output;

/*
 * Start an output. path "-" is standard output; a path that names a pipe or a
 * character device is written as a stream. An existing regular file is
 * PREP_EREFUSED unless `replace`; a replaced file keeps its mode, and its owner
 * where that is allowed. An existing block device or folder is refused, and so
 * are a symbolic link that leads nowhere, and the name of a folder that is not there.
 */
int prep_output_open(const char *path, bool replace, struct prep_output **ret,
		     struct prep_err *err);

/*
 * Start an output whose unfinished file has a name, `part`, on the same file
 * system: it stays when the output is closed without a commit, and a later
 * start goes on with it. *size: bytes that it has already (0: new); appending
 * begins at 0 all the same. PREP_EREFUSED as above; `path` must not be a stream.
 */
int prep_output_open_part(const char *path, bool replace, const char *part, uint64_t *size,
			  struct prep_output **ret, struct prep_err *err);
/* What it refuses about `path`, told before anything is made beside it. */
int prep_output_check_part(const char *path, bool replace, struct prep_err *err);

/* A seekable output without a name, in the folder dir: for what is read back, never committed. */
int prep_output_open_temp(const char *dir, struct prep_output **ret, struct prep_err *err);

/* The descriptor, for reading what was written. Seekable outputs only; it stays the output's. */
int prep_output_fd(const struct prep_output *out);

/* What messages call it. */
const char *prep_output_name(const struct prep_output *out);

/*
 * The permissions of the finished file, where they are neither those that the umask leaves a new one nor
 * those of the file that it replaces.
 */
void prep_output_set_mode(struct prep_output *out, mode_t mode);

/* The same, and its owner and access list, as those of the file `path` with this st. */
void prep_output_set_like(struct prep_output *out, const struct stat *st, const char *path);

/*
 * Ask this, of the file's path, before the commit replaces a file: what could be replaced at the start may be in use by
 * then. 0, or -1 with *err, and the commit fails.
 */
void prep_output_set_check(struct prep_output *out, int (*check)(const char *path, struct prep_err *err));

/* Whether writing at any offset works, and zeros may be left as holes. */
bool prep_output_seekable(const struct prep_output *out);

/*
 * PREP_EREFUSED where a process changes the file `path`, or a virtual machine runs on it: it would go on writing to a file
 * without a name. What cannot be opened is used by nobody that could be asked.
 */
int prep_output_check_unused(const char *path, struct prep_err *err);

/* Whether an output of that name is written as a stream: "-", a pipe or a character device. */
bool prep_output_is_stream(const char *path);

/* Whether out would replace, or is, the file that `st` describes. */
bool prep_output_same(const struct prep_output *out, const struct stat *st);

/* How many bytes the output has so far. */
uint64_t prep_output_size(const struct prep_output *out);

/* PREP_EFAIL unless there is room for `need` bytes where out is written. Streams always have. */
int prep_output_check_space(const struct prep_output *out, uint64_t need, struct prep_err *err);

/* Append. */
int prep_output_write(struct prep_output *out, const void *buf, size_t len, struct prep_err *err);

/* Append len zeros: a hole where the output is seekable. */
int prep_output_zeros(struct prep_output *out, uint64_t len, struct prep_err *err);

/*
 * Append [off, off+len) of the file src_fd without bringing the bytes into
 * this process where the system can: copy_file_range to files, splice to pipes.
 */
int prep_output_copy(struct prep_output *out, int src_fd, uint64_t off, uint64_t len,
		     const char *src_name, struct prep_err *err);

/* Overwrite inside what has been appended; several threads may. Seekable outputs only. */
int prep_output_pwrite(struct prep_output *out, const void *buf, size_t len, uint64_t off,
		       struct prep_err *err);

/*
 * Make the bytes durable; nothing may be appended any more. The commit does so
 * itself: this is for outputs that belong together, all of which are to be
 * ready before the first gets its name.
 */
int prep_output_settle(struct prep_output *out, struct prep_err *err);

/* Make it durable and give it its name. The output stays to be closed. */
int prep_output_commit(struct prep_output *out, struct prep_err *err);

/* Take the name away again that a commit gave, unless that replaced a file: then there is no way back. */
void prep_output_revoke(struct prep_output *out);

/* Bytes the host has allocated for it; for a stream, the bytes written. */
uint64_t prep_output_allocated(const struct prep_output *out);

/* Close; what was not committed is gone. NULL is allowed. */
void prep_output_close(struct prep_output *out);

#endif
