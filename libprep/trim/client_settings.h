/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ClientSettings.xml of MED-V 1.0: which folders of the host are indexed for
 * Trim Transfer.
 *
 *   <HostIndexingXP type="System.String[]">
 *     <ArrayOfString><string>%WINDIR%</string> ... </ArrayOfString>
 *   </HostIndexingXP>
 *   <HostIndexingVista ...> likewise
 *
 * Source: "MED-V Trim Transfer Technology", Microsoft. All else in the file is
 * passed over.
 */
#ifndef PREP_TRIM_CLIENT_SETTINGS_H
#define PREP_TRIM_CLIENT_SETTINGS_H

#include <stddef.h>

#include "libprep/base/err.h"
#include "libprep/base/notes.h"

/* Bounds of a file that is accepted. */
#define PREP_CLIENT_SETTINGS_SIZE_MAX (1u << 20)
#define PREP_CLIENT_SETTINGS_FOLDERS_MAX 1024u
#define PREP_CLIENT_SETTINGS_PATH_MAX 1024u

struct prep_folder_list {
	char **path;
	size_t n;
};

struct prep_client_settings {
	struct prep_folder_list xp, vista; /* as written: Windows paths with %VARIABLES% */
};

/* PREP_EREFUSED: not XML, a DOCTYPE, out of bounds, or neither list in it. */
int prep_client_settings_read(const char *path, struct prep_client_settings *ret, struct prep_err *err);
void prep_client_settings_clear(struct prep_client_settings *s);

/*
 * The folders that the settings name below `root`, which stands for the
 * system drive of a Windows host: the list for Vista where root has a folder
 * "Users", as Windows has since Vista, else the list for XP; where there is
 * only one, that. Each component is compared ignoring the case of ASCII
 * letters; links below root are not followed. What does not exist, or names a variable that is not
 * known, is noted. Clear with prep_folder_list_clear.
 */
int prep_client_settings_resolve(const struct prep_client_settings *s, const char *root,
				 struct prep_folder_list *ret, struct prep_notes *notes,
				 struct prep_err *err);

int prep_folder_list_add(struct prep_folder_list *l, const char *path, struct prep_err *err);
void prep_folder_list_clear(struct prep_folder_list *l);

#endif
