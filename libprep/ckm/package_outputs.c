/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/package_outputs.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int prep_package_outputs_check(const char *package, const char *index, struct prep_err *err)
{
	char *whole, *whole_index, *want = NULL;
	struct stat st;
	int r = 0;

	if (prep_output_is_stream(package))
		return prep_fail(err, PREP_EUSAGE, "%s: a package goes to a regular file", package);
	if (lstat(package, &st) != 0 || !S_ISLNK(st.st_mode))
		return 0;
	whole = realpath(package, NULL);
	whole_index = realpath(index, NULL);
	if (whole != NULL && asprintf(&want, "%s.index", whole) < 0) {
		want = NULL;
		r = prep_fail_nomem(err);
	} else if (whole != NULL && (whole_index == NULL || strcmp(want, whole_index) != 0)) {
		r = prep_fail(err, PREP_EREFUSED, "%s: a symbolic link to %s: name that, its index is to stand beside it",
			      package, whole);
	}
	free(want);
	free(whole_index);
	free(whole);
	return r;
}

/* A descriptor that holds the lock of the folder, or -1 where there is none to be had: no reason to stop. */
static int lock_folder(const char *path)
{
	char *copy = strdup(path);
	const int fd = copy != NULL ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	free(copy);
	if (fd >= 0)
		(void)!flock(fd, LOCK_EX);
	return fd;
}

/* An index is fetched first, and names what is in the package: that is there before it. */
int prep_package_outputs_commit(struct prep_output *package, struct prep_output *index, struct prep_err *err)
{
	int lock, r;

	if (prep_output_settle(package, err) < 0 || prep_output_settle(index, err) < 0)
		return -1;
	/* One pair at a time: of two that are made at once, one would get the other's index. */
	lock = lock_folder(prep_output_name(package));
	r = prep_output_commit(package, err) == 0 && prep_output_commit(index, err) == 0 ? 0 : -1;
	if (r < 0) {
		prep_output_revoke(index);
		prep_output_revoke(package);
	}
	if (lock >= 0)
		close(lock);
	return r;
}
