/* SPDX-License-Identifier: GPL-3.0-or-later */
/* vhd-zerofree: zero the free space of a disk's file systems. */
#include <inttypes.h>

#include "cmd/cmd.h"
#include "libprep/prep/zerofree.h"

static const char usage[] =
"Usage: vhd-zerofree [OPTION]... [IMAGE]\n"
"Zero every free cluster of the NTFS, FAT and exFAT volumes of a disk, and the\n"
"bytes behind the data of files, so that vhd-compact can drop them. IMAGE is a\n"
"VHD, VHDX or raw disk; without it, or as '-', standard input. The result, in\n"
"the same format, goes to standard output.\n"
"\n"
"  -o, --output FILE      write the result to FILE ('-': standard output)\n"
"  -i, --in-place         change IMAGE itself: all of it or nothing\n"
"  -n, --dry-run          only tell what would be zeroed\n"
"      --volume N         only partition N (default: every volume)\n"
"      --keep-slack       leave the bytes behind files' data as they are\n"
"      --log              empty the NTFS log ($LogFile) as well\n"
CMD_USAGE_PARENT
"  -f, --force            overwrite an existing FILE\n"
"  -j, --json             report as JSON\n"
"  -p, --progress         show progress although standard error is no terminal\n"
"  -q, --quiet            no report, no progress, no warnings\n"
"  -v, --verbose          report each volume\n"
"      --tmpdir DIR       for what must be kept of a pipe (default: $TMPDIR,\n"
"                         else /var/tmp)\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
"Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, nothing changed,\n"
"4 damaged file system or image.\n";

enum { OPT_VOLUME = CMD_OPT_OWN, OPT_KEEP_SLACK, OPT_LOG };

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	CMD_LONG_EDIT,
	CMD_LONG_PARENT,
	{ "volume", required_argument, NULL, OPT_VOLUME },
	{ "keep-slack", no_argument, NULL, OPT_KEEP_SLACK },
	{ "log", no_argument, NULL, OPT_LOG },
	{ NULL, 0, NULL, 0 },
};

struct opts {
	struct cmd cmd;
	const char *image;
	struct prep_zerofree how;
};

static void parse(struct opts *o, int argc, char **argv)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON CMD_SHORT_EDIT, longopts, NULL)) != -1) {
		switch (c) {
		case OPT_VOLUME:
			o->how.volume = cmd_volume(&o->cmd, optarg);
			break;
		case OPT_KEEP_SLACK:
			o->how.keep_slack = true;
			break;
		case OPT_LOG:
			o->how.log = true;
			break;
		default:
			cmd_option(&o->cmd, c);
		}
	}
	if (argc - optind > 1)
		cmd_usage(&o->cmd, "more than one image: %s", argv[optind + 1]);
	o->image = argv[optind];
	cmd_check_edit(&o->cmd, o->image);
}

static json_t *volume_json(const struct prep_zerofree_volume *v)
{
	return json_pack("{s:i, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "volume", (int)v->number, "file_system",
			 prep_fs_kind_name(v->kind), "done", v->done, "size", (json_int_t)v->size, "free",
			 (json_int_t)v->free, "slack", (json_int_t)v->slack, "log", (json_int_t)v->log, "known_zero",
			 (json_int_t)v->known_zero, "used_unclaimed_clusters", (json_int_t)v->used_unclaimed);
}

static void report(const struct opts *o, const struct cmd_edit *edit,
		   const struct prep_zerofree_report *rep)
{
	struct prep_zerofree_volume sum = { 0 };
	FILE *f = cmd_report(&o->cmd);
	json_t *volumes;
	uint64_t zeroed;

	for (unsigned i = 0; i < rep->n; i++) {
		sum.free += rep->volume[i].free;
		sum.slack += rep->volume[i].slack;
		sum.log += rep->volume[i].log;
		sum.known_zero += rep->volume[i].known_zero;
	}
	/*
	 * In place and in a dry run the free space was read. Written out it was
	 * not: all of it that is not known to be zero counts as zeroed.
	 */
	if (o->cmd.dry_run || o->cmd.in_place)
		zeroed = edit->zeroed;
	else
		zeroed = sum.free + sum.slack - sum.known_zero;
	if (o->cmd.json) {
		volumes = json_array();
		for (unsigned i = 0; i < rep->n; i++)
			json_array_append_new(volumes, volume_json(&rep->volume[i]));
		cmd_print_json(&o->cmd, json_pack("{s:o, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
			"image", cmd_json_text(edit->disk->name), "dry_run", o->cmd.dry_run, "free", (json_int_t)sum.free, "slack",
			(json_int_t)sum.slack, "log", (json_int_t)sum.log, "zeroed", (json_int_t)zeroed, "already_zero",
			(json_int_t)(sum.free + sum.slack - zeroed), "blocks_before", (json_int_t)edit->blocks_before,
			"blocks_after", (json_int_t)edit->blocks_after, "volumes", volumes));
		return;
	}
	if (o->cmd.quiet)
		return;
	for (unsigned i = 0; o->cmd.verbose && i < rep->n; i++) {
		const struct prep_zerofree_volume *v = &rep->volume[i];

		fprintf(f, "volume %u: %s, ", v->number, prep_fs_kind_name(v->kind));
		if (v->done)
			fprintf(f, "%s, %s free, %s slack\n", cmd_size(v->size), cmd_size(v->free),
				cmd_size(v->slack));
		else
			fprintf(f, "%s, left as it is\n", cmd_size(v->size));
	}
	fprintf(f, "%s: %s%s zeroed, %s already zero", edit->disk->name, o->cmd.dry_run ? "would be " : "",
		cmd_size(zeroed), cmd_size(sum.free + sum.slack - zeroed));
	if (edit->blocks_before > 0)
		fprintf(f, "; %" PRIu64 " of %" PRIu64 " blocks %s empty", edit->blocks_before - edit->blocks_after,
			edit->blocks_before, o->cmd.dry_run ? "would be" : "are now");
	fputc('\n', f);
}

static int run(struct opts *o, struct prep_err *err)
{
	struct prep_zerofree_report rep;
	struct cmd_edit edit;
	int r = cmd_edit_open(&o->cmd, o->image, &edit, err);

	if (r == 0)
		r = cmd_refuse_child(&o->cmd, edit.disk, "zeros over its parent's data would make it larger", err);
	if (r == 0)
		r = prep_zerofree(edit.volumes, edit.overlay, &o->how, &rep, &o->cmd.progress, err);
	if (r == 0)
		r = cmd_edit_commit(&o->cmd, &edit, err);
	if (r == 0)
		report(o, &edit, &rep);
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
