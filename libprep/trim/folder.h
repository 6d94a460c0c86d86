/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Opening what is below a folder whose content is not to be trusted.
 */
#ifndef PREP_TRIM_FOLDER_H
#define PREP_TRIM_FOLDER_H

/* The folder itself, links in its path followed. -1 with errno. */
int prep_folder_open(const char *path);

/*
 * A file or folder below it, for reading: no link anywhere in `path` is
 * followed, and neither devices nor pipes are waited for. -1 with errno.
 */
int prep_folder_open_below(int folder, const char *path, int flags);

#endif
