/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Host files: whole reads and writes, holes, locks, free space.
 * Offsets and lengths are bytes. `name` is what messages call the file.
 */
#ifndef PREP_BASE_FILE_H
#define PREP_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libprep/base/err.h"

/* Read exactly len bytes at off. A file that ends before is PREP_EDAMAGED. */
int prep_file_pread(int fd, void *buf, size_t len, uint64_t off,
		    const char *name, struct prep_err *err);

/* Read up to len bytes from the current position; returns fewer only at the end. */
int64_t prep_file_read(int fd, void *buf, size_t len, const char *name, struct prep_err *err);

int prep_file_pwrite(int fd, const void *buf, size_t len, uint64_t off,
		     const char *name, struct prep_err *err);

int prep_file_write(int fd, const void *buf, size_t len, const char *name,
		    struct prep_err *err);

int prep_file_sync(int fd, const char *name, struct prep_err *err);

/* fsync the folder that holds path, so that a rename or unlink in it lasts. */
int prep_file_sync_dir(const char *path, struct prep_err *err);

/*
 * The name of what is kept beside the file `path`: that of the file it leads
 * to, with `suffix` behind. The caller's, or NULL with errno.
 */
char *prep_file_beside(const char *path, const char *suffix);

/*
 * The run of data of a file that was found last, as pages of 4 KiB: the first
 * in the upper half, the one behind the last in the lower. All zero: none.
 */
struct prep_file_run {
	_Atomic uint64_t pages;
};

/*
 * The extent at off, which must be below end: *hole says whether it is a hole
 * of the host's file, the return value where it ends (at most end). File
 * systems without SEEK_HOLE show one extent of data.
 *
 * run, unless NULL, answers for the places in it: some file systems (tmpfs) take
 * as long to find a run's end as it has pages. Several threads may ask.
 */
uint64_t prep_file_extent(int fd, struct prep_file_run *run, uint64_t off, uint64_t end, bool *hole);

/* Zeros were written to [off, off+len): there may be a hole now. Of the run what is behind it stays. */
void prep_file_run_cut(struct prep_file_run *run, uint64_t off, uint64_t len);

/*
 * Make [off, off+len) read as zeros: its whole 4 KiB pages as a hole where the
 * host can. The range must lie inside the file; its size does not change.
 */
int prep_file_zero(int fd, uint64_t off, uint64_t len, const char *name, struct prep_err *err);

/*
 * Lock an image against others, by the protocol of QEMU's image locks
 * (open file description locks on the bytes 100-203: docs/devel of QEMU,
 * block/file-posix.c), so that QEMU and these commands respect each other.
 * A reader keeps writers out, a writer keeps everyone out. PREP_EREFUSED when
 * another process uses the file. Lasts until fd is closed. File systems
 * without locks are let pass.
 */
int prep_file_lock(int fd, bool write, const char *name, struct prep_err *err);

/*
 * An image could not be opened (to be read, or written too), by errno. Returns -1 with *err: PREP_EREFUSED, in use,
 * where its permissions do not forbid it: another process has put it there since this one gave up its rights to all but
 * the old file (sandbox.h).
 */
int prep_file_not_opened(const char *path, bool write, struct prep_err *err);

/*
 * PREP_EFAIL unless the file system that holds fd has `need` bytes free. Where
 * that cannot be told, 0.
 */
int prep_file_check_space(int fd, const char *name, uint64_t need, struct prep_err *err);

/*
 * A new unnamed file in dir, readable and writable by the owner alone, gone
 * when closed. Returns the descriptor.
 */
int prep_file_temp(const char *dir, struct prep_err *err);

#endif
