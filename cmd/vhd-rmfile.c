/* SPDX-License-Identifier: GPL-3.0-or-later */
/* vhd-rmfile: remove files from a disk's file systems. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "libprep/prep/rmfile.h"

static const char usage[] =
"Usage: vhd-rmfile [OPTION]... IMAGE [PATH]...\n"
"Remove files from the NTFS, FAT and exFAT volumes of a disk. IMAGE is a VHD,\n"
"VHDX or raw disk, '-' standard input. PATH is absolute, with / or \\, in any\n"
"case; * and ? stand for any part of a name. The result, in the same format,\n"
"goes to standard output.\n"
"\n"
"  -r, --recursive        remove folders with all they hold\n"
"      --preset NAME      remove what a gold image does not need: pagefile,\n"
"                         hiberfil (a suspended session is lost), updates (they\n"
"                         can no longer be uninstalled), temp, restore\n"
"      --list             only list what is found, with sizes; without PATH and\n"
"                         --preset, what every preset would find\n"
"      --ignore-missing   a PATH that matches nothing is no error\n"
"      --volume N         only partition N (default: every volume)\n"
"  -o, --output FILE      write the result to FILE ('-': standard output)\n"
"  -i, --in-place         change IMAGE itself: all of it or nothing\n"
"  -n, --dry-run          do all but write: tell what would be removed\n"
CMD_USAGE_PARENT
"  -f, --force            overwrite an existing FILE\n"
"  -j, --json             report as JSON\n"
"  -p, --progress         show progress although standard error is no terminal\n"
"  -q, --quiet            no report, no progress, no warnings\n"
"  -v, --verbose          name every file\n"
"      --tmpdir DIR       for what must be kept of a pipe (default: $TMPDIR,\n"
"                         else /var/tmp)\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
"Exit status: 0 done, 1 failed or no such file, 2 wrong usage, 3 refused, nothing\n"
"changed, 4 damaged file system or image.\n";

enum { OPT_PRESET = CMD_OPT_OWN, OPT_LIST, OPT_IGNORE_MISSING, OPT_VOLUME };

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	CMD_LONG_EDIT,
	CMD_LONG_PARENT,
	{ "recursive", no_argument, NULL, 'r' },
	{ "preset", required_argument, NULL, OPT_PRESET },
	{ "list", no_argument, NULL, OPT_LIST },
	{ "ignore-missing", no_argument, NULL, OPT_IGNORE_MISSING },
	{ "volume", required_argument, NULL, OPT_VOLUME },
	{ NULL, 0, NULL, 0 },
};

#define PRESETS_MAX 16

struct opts {
	struct cmd cmd;
	const char *image;
	bool list;
	struct prep_rmfile how;
	const struct prep_preset *preset[PRESETS_MAX];
	json_t *entries; /* with --list --json, or -v --json */
};

static void add_preset(struct opts *o, const char *name)
{
	const struct prep_preset *p = prep_preset_find(name);

	if (p == NULL)
		cmd_usage(&o->cmd, "--preset: pagefile, hiberfil, updates, temp or restore, not %s", name);
	if (o->how.presets == PRESETS_MAX)
		cmd_usage(&o->cmd, "--preset: given too often");
	o->preset[o->how.presets++] = p;
}

static void parse(struct opts *o, int argc, char **argv)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON CMD_SHORT_EDIT "r", longopts, NULL)) != -1) {
		switch (c) {
		case 'r':
			o->how.recursive = true;
			break;
		case OPT_PRESET:
			add_preset(o, optarg);
			break;
		case OPT_LIST:
			o->list = o->cmd.dry_run = true;
			break;
		case OPT_IGNORE_MISSING:
			o->how.ignore_missing = true;
			break;
		case OPT_VOLUME:
			o->how.volume = cmd_volume(&o->cmd, optarg);
			break;
		default:
			cmd_option(&o->cmd, c);
		}
	}
	if (optind == argc)
		cmd_usage(&o->cmd, "no image named ('-' is standard input)");
	o->image = argv[optind++];
	o->how.pattern = (const char *const *)argv + optind;
	o->how.patterns = (size_t)(argc - optind);
	if (o->how.patterns + o->how.presets == 0) {
		if (!o->list)
			cmd_usage(&o->cmd, "nothing to remove: no PATH and no --preset");
		for (size_t i = 0; i < prep_preset_count; i++)
			o->preset[o->how.presets++] = &prep_presets[i];
	}
	o->how.preset = o->preset;
	cmd_check_edit(&o->cmd, o->image);
}

/* Called for every name found. */
static void found(void *arg, unsigned volume, const char *what, const struct prep_fs_entry *e)
{
	const struct opts *o = arg;
	FILE *f = cmd_report(&o->cmd);

	if (o->entries != NULL) {
		json_array_append_new(o->entries, json_pack("{s:o, s:i, s:s, s:b, s:I, s:I}", "path", cmd_json_text(e->path),
			"volume", (int)volume, "match", what, "folder", e->folder, "size", (json_int_t)e->size, "freed",
			(json_int_t)(e->frees ? e->allocated : 0)));
	} else if (!o->cmd.json) {
		fprintf(f, "%14" PRIu64 "  ", e->size);
		cmd_print_text(f, e->path);
		fputs(e->folder ? "/\n" : "\n", f);
	}
}

static void report(struct opts *o, const struct cmd_edit *edit, const struct prep_rmfile_report *rep)
{
	FILE *f = cmd_report(&o->cmd);
	json_t *matches, *j;

	if (o->cmd.json) {
		matches = json_array();
		for (size_t i = 0; i < rep->n; i++)
			json_array_append_new(matches, json_pack("{s:s, s:b, s:I, s:I, s:I}", "match",
				rep->match[i].what, "preset", rep->match[i].preset, "files",
				(json_int_t)rep->match[i].files, "folders", (json_int_t)rep->match[i].folders, "freed",
				(json_int_t)rep->match[i].bytes));
		j = json_pack("{s:o, s:b, s:I, s:I, s:I, s:o}", "image", cmd_json_text(edit->disk->name), "dry_run",
			      o->cmd.dry_run, "files", (json_int_t)rep->files, "folders", (json_int_t)rep->folders,
			      "freed", (json_int_t)rep->bytes, "matches", matches);
		if (o->entries != NULL)
			json_object_set(j, "entries", o->entries);
		cmd_print_json(&o->cmd, j);
		return;
	}
	if (o->cmd.quiet)
		return;
	for (size_t i = 0; i < rep->n; i++) {
		const struct prep_rmfile_match *m = &rep->match[i];

		fprintf(f, "%s%s: %" PRIu64 " files, %" PRIu64 " folders, %s\n", m->preset ? "preset " : "", m->what,
			m->files, m->folders, cmd_size(m->bytes));
	}
	fprintf(f, "%s: %" PRIu64 " files and %" PRIu64 " folders %s, %s freed\n", edit->disk->name, rep->files,
		rep->folders, o->list ? "found" : o->cmd.dry_run ? "would be removed" : "removed",
		cmd_size(rep->bytes));
}

/* What goes for good is said, whoever asked for it. */
static void warn_of_losses(const struct opts *o, const struct prep_rmfile_report *rep)
{
	for (size_t i = 0; !o->cmd.quiet && !o->list && i < o->how.presets; i++)
		if (o->preset[i]->loses != NULL && rep->match[o->how.patterns + i].files > 0)
			cmd_warn(&o->cmd, "preset %s: %s", o->preset[i]->name, o->preset[i]->loses);
}

static int run(struct opts *o, struct prep_err *err)
{
	struct prep_rmfile_report rep = { .match = NULL };
	struct cmd_edit edit;
	int r = cmd_edit_open(&o->cmd, o->image, &edit, err);

	if (o->cmd.json && (o->list || o->cmd.verbose))
		o->entries = json_array();
	if (o->list || o->cmd.verbose) {
		o->how.found = found;
		o->how.arg = o;
	}
	if (r == 0)
		r = o->list ? prep_rmfile_find(edit.volumes, &o->how, &rep, err)
			    : prep_rmfile(edit.volumes, edit.overlay, &o->how, &rep, &o->cmd.progress, err);
	if (r == 0) {
		warn_of_losses(o, &rep);
		r = cmd_edit_commit(&o->cmd, &edit, err);
	}
	if (r == 0)
		report(o, &edit, &rep);
	json_decref(o->entries);
	prep_rmfile_report_clear(&rep);
	cmd_edit_close(&edit);
	return r;
}

int main(int argc, char **argv)
{
	struct prep_err err = PREP_ERR_INIT;
	struct opts o = { .image = NULL };

	parse(&o, argc, argv);
	run(&o, &err);
	return cmd_finish(&o.cmd, &err);
}
