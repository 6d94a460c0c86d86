/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/package_outputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

bool prep_package_outputs_same(const struct prep_output *package, const struct prep_output *index, const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && (prep_output_same(package, &st) || prep_output_same(index, &st));
}

/* An index is fetched first, and names what is in the package: that is there before it. */
int prep_package_outputs_commit(struct prep_output *package, struct prep_output *index, struct prep_err *err)
{
	if (prep_output_settle(package, err) < 0 || prep_output_settle(index, err) < 0)
		return -1;
	if (prep_output_commit(package, err) == 0 && prep_output_commit(index, err) == 0)
		return 0;
	prep_output_revoke(index);
	prep_output_revoke(package);
	return -1;
}
