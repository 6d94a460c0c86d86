/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What ckm-unpack, ckm-fetch and ckm-index share: options for seeds, keys and
 * formats, the plan's report.
 */
#ifndef CMD_TRIM_H
#define CMD_TRIM_H

#include "cmd/cmd.h"
#include "libprep/trim/client_settings.h"
#include "libprep/trim/restore.h"
#include "libprep/trim/seed.h"
#include "libprep/trim/supply.h"

struct trim {
	struct prep_ckm_access access;
	struct prep_key_ring ring;   /* of access */
	struct trim_seed {
		const char *path;
		bool optional;       /* it is no failure when it cannot be opened */
	} *seed;                     /* --seed, and others, in order */
	size_t seeds;
	const char *client_settings, *root;
	const char *cache;           /* --cache; NULL when not given */
	bool no_cache;
	bool keeps;                  /* the command has something for the cache without seeds too */
	unsigned jobs;               /* 0: the default */
	int format;                  /* --to: enum prep_format, or -1 */

	struct prep_seed **open;     /* what trim_open opened, in order */
	size_t opened;
	char *cache_path;            /* the cache's folder, once trim_confine has found it, or NULL */
};

enum {
	TRIM_OPT_SEED = CMD_OPT_OWN + 64, TRIM_OPT_CLIENT_SETTINGS, TRIM_OPT_ROOT, TRIM_OPT_CACHE,
	TRIM_OPT_NO_CACHE, TRIM_OPT_KEY, TRIM_OPT_PASSPHRASE, TRIM_OPT_VERIFY, TRIM_OPT_TO,
};

/* Threads; keys. */
#define TRIM_SHORT_READ "J:"
#define TRIM_LONG_READ                                                         \
	{ "jobs", required_argument, NULL, 'J' },                              \
	{ "key", required_argument, NULL, TRIM_OPT_KEY },                      \
	{ "passphrase-file", required_argument, NULL, TRIM_OPT_PASSPHRASE },   \
	{ "verify-with", required_argument, NULL, TRIM_OPT_VERIFY }

/* Local data: folders that ClientSettings.xml names, images that are differencing disks. */
#define TRIM_LONG_SETTINGS                                                     \
	CMD_LONG_PARENT,                                                       \
	{ "client-settings", required_argument, NULL, TRIM_OPT_CLIENT_SETTINGS }, \
	{ "root", required_argument, NULL, TRIM_OPT_ROOT }

/* Seeds and the format of what is restored. */
#define TRIM_LONG_RESTORE                                                      \
	{ "to", required_argument, NULL, TRIM_OPT_TO },                        \
	{ "seed", required_argument, NULL, TRIM_OPT_SEED },                    \
	{ "cache", required_argument, NULL, TRIM_OPT_CACHE },                  \
	{ "no-cache", no_argument, NULL, TRIM_OPT_NO_CACHE }

/* Take one of the options above; all others are cmd_option's. */
void trim_option(struct cmd *cmd, struct trim *t, int c);

/* Check that they go together, or exit as cmd_usage. */
void trim_check(const struct cmd *cmd, const struct trim *t);

/* Add a seed as --seed does; the path must outlive t. */
int trim_add_seed(struct trim *t, const char *path, bool optional, struct prep_err *err);

/* The folders of --client-settings below --root; none where there is none. Prints what is missing. */
int trim_folders(struct cmd *cmd, const struct trim *t, struct prep_folder_list *ret, struct prep_err *err);

/* As cmd_may_open for local data of any kind: a folder, an image, a package, or a local index, which names others. */
void trim_may_open(const struct cmd *cmd, struct prep_sandbox *may, const char *path);

/*
 * cmd_confine for the seeds, client settings and keys of t, the cache's folder, which is
 * found and made here, and what `may` has.
 */
int trim_confine(struct cmd *cmd, struct trim *t, struct prep_sandbox *may, struct prep_err *err);

/*
 * Open every seed, the folders of the client settings last, and add them to
 * the supply, unless that is NULL. Prints their notes.
 */
int trim_open(struct cmd *cmd, struct trim *t, bool compare, struct prep_supply *supply,
	      struct prep_err *err);

/* How much of what is missing patches give, if any. */
void trim_print_patches(FILE *f, const struct prep_supply *supply);

/* A table of what each seed has and gives; nothing where there are none. */
void trim_print_origins(FILE *f, const struct prep_supply *supply);

/* The same as a JSON array. */
json_t *trim_origins_json(const struct prep_supply *supply);

void trim_close(struct trim *t);

#endif
