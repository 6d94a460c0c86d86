/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cmd/trim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "libprep/disk/export.h"

static void parse_format(struct cmd *cmd, struct trim *t, const char *text)
{
	if (strcmp(text, "dynamic") == 0)
		t->format = PREP_FORMAT_DYNAMIC;
	else if (strcmp(text, "fixed") == 0)
		t->format = PREP_FORMAT_FIXED;
	else if (strcmp(text, "raw") == 0)
		t->format = PREP_FORMAT_RAW;
	else
		cmd_usage(cmd, "--to: dynamic, fixed or raw, not %s", text);
}

int trim_add_seed(struct trim *t, const char *path, bool optional, struct prep_err *err)
{
	struct trim_seed *grown = reallocarray(t->seed, t->seeds + 1, sizeof *grown);

	if (grown == NULL)
		return prep_fail_nomem(err);
	t->seed = grown;
	t->seed[t->seeds++] = (struct trim_seed){ path, optional };
	return 0;
}

void trim_option(struct cmd *cmd, struct trim *t, int c)
{
	struct prep_err err = PREP_ERR_INIT;

	t->access.ring = &t->ring;
	switch (c) {
	case 'J':
		t->jobs = cmd_jobs(cmd, optarg);
		break;
	case TRIM_OPT_SEED:
		if (trim_add_seed(t, optarg, false, &err) < 0)
			exit(cmd_finish(cmd, &err));
		break;
	case TRIM_OPT_CLIENT_SETTINGS:
		t->client_settings = optarg;
		break;
	case TRIM_OPT_ROOT:
		t->root = optarg;
		break;
	case TRIM_OPT_CACHE:
		t->cache = optarg;
		break;
	case TRIM_OPT_NO_CACHE:
		t->no_cache = true;
		break;
	case TRIM_OPT_KEY:
		t->access.key_file = optarg;
		break;
	case TRIM_OPT_PASSPHRASE:
		t->access.passphrase_file = optarg;
		break;
	case TRIM_OPT_VERIFY:
		t->access.verify_with = optarg;
		break;
	case TRIM_OPT_TO:
		parse_format(cmd, t, optarg);
		break;
	default:
		cmd_option(cmd, c);
	}
}

void trim_check(const struct cmd *cmd, const struct trim *t)
{
	if ((t->client_settings != NULL) != (t->root != NULL))
		cmd_usage(cmd, "--client-settings and --root go together");
	if (t->cache != NULL && t->no_cache)
		cmd_usage(cmd, "--cache and --no-cache exclude each other");
}

int trim_folders(struct cmd *cmd, const struct trim *t, struct prep_folder_list *ret, struct prep_err *err)
{
	struct prep_client_settings settings;
	struct prep_notes notes = { .n = 0 };
	int r;

	*ret = (struct prep_folder_list){ NULL, 0 };
	if (t->client_settings == NULL)
		return 0;
	if (prep_client_settings_read(t->client_settings, &settings, err) < 0)
		return -1;
	r = prep_client_settings_resolve(&settings, t->root, ret, &notes, err);
	if (cmd->verbose > 0)
		cmd_notes(cmd, &notes);
	if (r == 0 && ret->n == 0)
		cmd_warn(cmd, "warning: %s: none of its folders is below %s", t->client_settings, t->root);
	prep_notes_clear(&notes);
	prep_client_settings_clear(&settings);
	return r;
}

/* Make a folder, and those above it. */
static int make_folders(const char *path, struct prep_err *err)
{
	char *copy = strdup(path);
	int r = 0;

	if (copy == NULL)
		return prep_fail_nomem(err);
	for (char *p = copy + 1; *p != '\0' && r == 0; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		/* What it names is the user's own data: nobody else's business. */
		r = mkdir(copy, 0700) != 0 && errno != EEXIST ? -1 : 0;
		*p = '/';
	}
	if (r < 0 || (mkdir(copy, 0700) != 0 && errno != EEXIST))
		r = prep_fail_errno(err, "%s: cannot make the folder of the cache", path);
	free(copy);
	return r;
}

/* The folder of the cache, made where need be; *ret NULL: none. The caller frees it. */
static int find_cache(struct cmd *cmd, const struct trim *t, char **ret, struct prep_err *err)
{
	const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	struct prep_err why = PREP_ERR_INIT;

	*ret = NULL;
	if (t->no_cache)
		return 0;
	if (t->cache != NULL) {
		*ret = strdup(t->cache);
	} else if (xdg != NULL && xdg[0] == '/') {
		if (asprintf(ret, "%s/prep", xdg) < 0)
			*ret = NULL;
	} else if (home != NULL && home[0] == '/') {
		if (asprintf(ret, "%s/.cache/prep", home) < 0)
			*ret = NULL;
	} else {
		return 0;
	}
	if (*ret == NULL)
		return prep_fail_nomem(err);
	if (make_folders(*ret, &why) == 0)
		return 0;
	if (t->cache != NULL)
		return prep_fail(err, why.code, "%s", why.msg);
	/* One that was not asked for is no reason to fail. */
	if (!cmd->quiet)
		cmd_warn(cmd, "warning: %s", why.msg);
	free(*ret);
	*ret = NULL;
	return 0;
}

static int open_seed(struct cmd *cmd, struct trim *t, const struct trim_seed *seed,
		     const struct prep_seed_how *how, struct prep_supply *supply, struct prep_err *err)
{
	struct prep_err why = PREP_ERR_INIT;
	struct prep_seed *s;

	if (prep_seed_open(seed->path, how, &s, &cmd->progress, &why) < 0) {
		if (!seed->optional || why.code == PREP_EFAIL)
			return prep_fail(err, why.code, "%s", why.msg);
		if (!cmd->quiet)
			cmd_warn(cmd, "warning: %s (not used)", why.msg);
		return 0;
	}
	t->open[t->opened++] = s;
	cmd_notes(cmd, &s->catalog.notes);
	return supply != NULL ? prep_supply_add(supply, &s->catalog, err) : 0;
}

void trim_may_open(const struct cmd *cmd, struct prep_sandbox *may, const char *path)
{
	cmd_may_open(cmd, may, path);
	cmd_may_read_package(may, path);
	may->read_all |= prep_seed_names_others(path);
}

int trim_confine(struct cmd *cmd, struct trim *t, struct prep_sandbox *may, struct prep_err *err)
{
	if ((t->keeps || t->seeds > 0 || t->client_settings != NULL) && find_cache(cmd, t, &t->cache_path, err) < 0) {
		prep_sandbox_clear(may);
		return -1;
	}
	prep_sandbox_write(may, t->cache_path);
	for (size_t i = 0; i < t->seeds; i++)
		trim_may_open(cmd, may, t->seed[i].path);
	prep_sandbox_read(may, t->client_settings);
	prep_sandbox_read(may, t->root);
	prep_sandbox_read(may, t->access.key_file);
	prep_sandbox_read(may, t->access.passphrase_file);
	prep_sandbox_read(may, t->access.verify_with);
	return cmd_confine(cmd, may, err);
}

int trim_open(struct cmd *cmd, struct trim *t, bool compare, struct prep_supply *supply,
	      struct prep_err *err)
{
	struct prep_seed_how how = {
		.access = &t->access, .jobs = t->jobs, .compare = compare, .parents = &cmd->parents,
	};
	struct prep_folder_list folders;
	int r = 0;

	if (trim_folders(cmd, t, &folders, err) < 0)
		return -1;
	how.cache = t->cache_path;
	t->open = calloc(t->seeds + folders.n + 1, sizeof *t->open);
	if (t->open == NULL)
		r = prep_fail_nomem(err);
	for (size_t i = 0; i < t->seeds && r == 0; i++)
		r = open_seed(cmd, t, &t->seed[i], &how, supply, err);
	for (size_t i = 0; i < folders.n && r == 0; i++)
		r = open_seed(cmd, t, &(struct trim_seed){ folders.path[i], false }, &how, supply, err);
	if (r == 0)
		r = prep_seeds_link(t->open, t->opened, err);
	prep_folder_list_clear(&folders);
	return r;
}

static const char *origin_kind(const struct prep_supply_origin *o)
{
	static const char *const names[] = {
		[PREP_ORIGIN_FOLDER] = "folder", [PREP_ORIGIN_IMAGE] = "image", [PREP_ORIGIN_PACKAGE] = "package",
	};

	return names[o->catalog->origin[o->origin].kind];
}

static const char *origin_path(const struct prep_supply_origin *o)
{
	return o->catalog->origin[o->origin].path;
}

void trim_print_patches(FILE *f, const struct prep_supply *supply)
{
	if (supply->patches > 0)
		fprintf(f, "  patches: %s of it in %u frames, %s\n", cmd_size(supply->patched_bytes), supply->patches,
			cmd_size(supply->patch_bytes));
	if (supply->useless > 0)
		fprintf(f, "  %u patches are of no use: no seed has what they are made of\n", supply->useless);
}

void trim_print_origins(FILE *f, const struct prep_supply *supply)
{
	if (supply->origins == 0)
		return;
	fprintf(f, "  %10s %10s %6s %10s  %s\n", "holds", "wanted", "hits", "used", "seed");
	for (uint32_t i = 0; i < supply->origins; i++) {
		const struct prep_supply_origin *o = &supply->origin[i];

		fprintf(f, "  %10s %10s %4.0f %% %10s  ", cmd_size(o->bytes), cmd_size(o->found_bytes),
			o->bytes > 0 ? 100.0 * (double)o->found_bytes / (double)o->bytes : 0.0,
			cmd_size(o->used_bytes + o->got_bytes));
		cmd_print_text(f, origin_path(o));
		fputc('\n', f);
	}
}

json_t *trim_origins_json(const struct prep_supply *supply)
{
	json_t *ret = json_array();

	for (uint32_t i = 0; i < supply->origins; i++) {
		const struct prep_supply_origin *o = &supply->origin[i];

		json_array_append_new(ret, json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			"path", cmd_json_text(origin_path(o)), "kind", origin_kind(o),
			"chunks", (json_int_t)o->chunks, "bytes", (json_int_t)o->bytes,
			"found_chunks", (json_int_t)o->found_chunks, "found_bytes", (json_int_t)o->found_bytes,
			"used_chunks", (json_int_t)(o->used_chunks + o->got_chunks),
			"used_bytes", (json_int_t)(o->used_bytes + o->got_bytes),
			"bad_chunks", (json_int_t)o->bad_chunks, "bad_bytes", (json_int_t)o->bad_bytes));
	}
	return ret;
}

void trim_close(struct trim *t)
{
	for (size_t i = 0; i < t->opened; i++)
		prep_seed_close(t->open[i]);
	prep_key_ring_clear(&t->ring);
	free(t->open);
	free(t->seed);
	free(t->cache_path);
}
