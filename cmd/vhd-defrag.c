/* SPDX-License-Identifier: GPL-3.0-or-later */
/* vhd-defrag: move clusters so that a disk compacts to the fewest blocks. */
#include <inttypes.h>
#include <string.h>

#include "cmd/cmd.h"
#include "libprep/base/bytes.h"
#include "libprep/prep/defrag.h"

static const char usage[] =
"Usage: vhd-defrag [OPTION]... [IMAGE]\n"
"Move clusters of the NTFS volumes of a disk so that vhd-compact leaves the\n"
"fewest blocks. IMAGE is a VHD, VHDX or raw disk; without it, or as '-', standard\n"
"input. The result, in the same format, goes to standard output.\n"
"\n"
"      --goal GOAL        blocks (default): empty as many blocks as can be, by\n"
"                         moving as little as can be; files: first make files\n"
"                         contiguous as well\n"
"      --budget N         with --goal files: move at most N bytes for that, the\n"
"                         largest gain first (suffixes K, M, G)\n"
"      --block-size N     plan for blocks of N: 512K to 256M, a power of two\n"
"                         (default: those of IMAGE, else 2M)\n"
"      --volume N         only partition N (default: every NTFS volume)\n"
"  -o, --output FILE      write the result to FILE ('-': standard output)\n"
"  -i, --in-place         change IMAGE itself: all of it or nothing (with --goal\n"
"                         files in two steps, the files first)\n"
"  -n, --dry-run          only tell what would be gained\n"
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

enum { OPT_GOAL = CMD_OPT_OWN, OPT_BUDGET, OPT_BLOCK_SIZE, OPT_VOLUME };

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	CMD_LONG_EDIT,
	CMD_LONG_PARENT,
	{ "goal", required_argument, NULL, OPT_GOAL },
	{ "budget", required_argument, NULL, OPT_BUDGET },
	{ "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
	{ "volume", required_argument, NULL, OPT_VOLUME },
	{ NULL, 0, NULL, 0 },
};

struct opts {
	struct cmd cmd;
	const char *image;
	bool files;
	bool step_done; /* the image has changed, although the command is not done */
	struct prep_defrag how;
};

static void parse_goal(struct opts *o, const char *text)
{
	if (strcmp(text, "files") != 0 && strcmp(text, "blocks") != 0)
		cmd_usage(&o->cmd, "--goal: blocks or files, not %s", text);
	o->files = strcmp(text, "files") == 0;
}

static void parse(struct opts *o, int argc, char **argv)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON CMD_SHORT_EDIT, longopts, NULL)) != -1) {
		switch (c) {
		case OPT_GOAL:
			parse_goal(o, optarg);
			break;
		case OPT_BUDGET:
			o->how.budget = cmd_number(&o->cmd, "--budget", optarg);
			break;
		case OPT_BLOCK_SIZE:
			o->how.block_size = cmd_block_size(&o->cmd, optarg);
			break;
		case OPT_VOLUME:
			o->how.volume = cmd_volume(&o->cmd, optarg);
			break;
		default:
			cmd_option(&o->cmd, c);
		}
	}
	if (argc - optind > 1)
		cmd_usage(&o->cmd, "more than one image: %s", argv[optind + 1]);
	if (o->how.budget != UINT64_MAX && !o->files)
		cmd_usage(&o->cmd, "--budget is for --goal files");
	o->image = argv[optind];
	cmd_check_edit(&o->cmd, o->image);
}

static json_t *volume_json(const struct prep_defrag_volume *v)
{
	return json_pack("{s:i, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "volume", (int)v->number,
			 "file_system", prep_fs_kind_name(v->kind), "done", v->done, "blocks_before",
			 (json_int_t)v->blocks_before, "blocks_pinned", (json_int_t)v->blocks_pinned, "blocks_bound",
			 (json_int_t)v->blocks_bound, "blocks_after", (json_int_t)v->blocks_after, "moved",
			 (json_int_t)v->moved, "fragments_before", (json_int_t)v->fragments_before, "fragments_after",
			 (json_int_t)v->fragments_after, "fragmented_before", (json_int_t)v->fragmented_before,
			 "fragmented_after", (json_int_t)v->fragmented_after);
}

/* FAT and exFAT, which the other commands change, are said to be left alone even when nobody asks. */
static void print_volume(FILE *f, const struct prep_defrag_volume *v, bool verbose)
{
	if (!v->done && (verbose || prep_fs_known(v->kind)))
		fprintf(f, "volume %u: %s, left as it is: only NTFS is defragmented\n", v->number,
			prep_fs_kind_name(v->kind));
	if (!v->done || !verbose)
		return;
	fprintf(f, "volume %u: %" PRIu64 " blocks in use, now %" PRIu64 " (no fewer than %" PRIu64 ", %" PRIu64
		" cannot be emptied), %" PRIu64 " fragments, now %" PRIu64 ", %s moved\n", v->number, v->blocks_before,
		v->blocks_after, v->blocks_bound, v->blocks_pinned, v->fragments_before, v->fragments_after,
		cmd_size(v->moved));
}

static void report(const struct opts *o, const struct cmd_edit *edit,
		   const struct prep_defrag_report *rep)
{
	struct prep_defrag_volume sum = { 0 };
	FILE *f = cmd_report(&o->cmd);
	json_t *volumes;

	for (unsigned i = 0; i < rep->n; i++) {
		sum.blocks_before += rep->volume[i].blocks_before;
		sum.blocks_after += rep->volume[i].blocks_after;
		sum.blocks_bound += rep->volume[i].blocks_bound;
		sum.fragmented_before += rep->volume[i].fragmented_before;
		sum.fragmented_after += rep->volume[i].fragmented_after;
	}
	if (o->cmd.json) {
		volumes = json_array();
		for (unsigned i = 0; i < rep->n; i++)
			json_array_append_new(volumes, volume_json(&rep->volume[i]));
		cmd_print_json(&o->cmd, json_pack("{s:o, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:o}", "image",
			cmd_json_text(edit->disk->name), "dry_run", o->cmd.dry_run, "goal", o->files ? "files" : "blocks",
			"block_size", (json_int_t)o->how.block_size, "blocks_before", (json_int_t)sum.blocks_before,
			"blocks_after", (json_int_t)sum.blocks_after, "blocks_bound", (json_int_t)sum.blocks_bound,
			"moved", (json_int_t)rep->moved, "volumes", volumes));
		return;
	}
	if (o->cmd.quiet)
		return;
	for (unsigned i = 0; i < rep->n; i++)
		print_volume(f, &rep->volume[i], o->cmd.verbose > 0);
	fprintf(f, "%s: %" PRIu64 " blocks of %s in use %s %" PRIu64 " (no fewer than %" PRIu64 "), %" PRIu64
		" files in pieces %s %" PRIu64 "; %s %smoved\n", edit->disk->name, sum.blocks_before,
		cmd_size(o->how.block_size), o->cmd.dry_run ? "would become" : "became", sum.blocks_after, sum.blocks_bound,
		sum.fragmented_before, o->cmd.dry_run ? "would become" : "became", sum.fragmented_after,
		cmd_size(rep->moved), o->cmd.dry_run ? "would be " : "");
}

/* The figures of both runs as one: from before the first to after the second. */
static void add_run(struct prep_defrag_report *rep, const struct prep_defrag_report *first)
{
	for (unsigned i = 0; i < rep->n; i++) {
		rep->volume[i].blocks_before = first->volume[i].blocks_before;
		rep->volume[i].fragments_before = first->volume[i].fragments_before;
		rep->volume[i].fragmented_before = first->volume[i].fragmented_before;
		rep->volume[i].moved += first->volume[i].moved;
	}
	rep->moved += first->moved;
}

static int defrag(struct opts *o, struct cmd_edit *edit, struct prep_defrag_report *rep,
		  struct prep_err *err)
{
	struct prep_defrag_report first;

	if (!o->files)
		return prep_defrag(edit->volumes, edit->overlay, &o->how, rep, &o->cmd.progress, err);
	/* Two steps: a place that the first has left may be used by the second (defrag.h). */
	o->how.goal = PREP_DEFRAG_FILES;
	if (prep_defrag(edit->volumes, edit->overlay, &o->how, &first, &o->cmd.progress, err) < 0 ||
	    cmd_edit_next(&o->cmd, edit, err) < 0)
		return -1;
	o->step_done = o->cmd.in_place && !o->cmd.dry_run && first.moved > 0;
	o->how.goal = PREP_DEFRAG_BLOCKS;
	if (prep_defrag(edit->volumes, edit->overlay, &o->how, rep, &o->cmd.progress, err) < 0)
		return -1;
	add_run(rep, &first);
	return 0;
}

/* A failure after the first of two steps: the image is sound, but not as it was. */
static void tell_step_done(struct prep_err *err)
{
	const struct prep_err why = *err;

	*err = (struct prep_err)PREP_ERR_INIT;
	prep_fail(err, why.code == PREP_EREFUSED ? PREP_EFAIL : why.code,
		  "%s (the first of two steps is done: files were made contiguous)", why.msg);
}

static int run(struct opts *o, struct prep_err *err)
{
	struct prep_defrag_report rep;
	struct cmd_edit edit;
	int r = cmd_edit_open(&o->cmd, o->image, &edit, err);

	if (r == 0)
		r = cmd_refuse_child(&o->cmd, edit.disk, "what is moved would be in it twice, and make it larger", err);
	if (r == 0 && o->how.block_size == 0)
		o->how.block_size = prep_vhd_block_size(edit.disk);
	if (r == 0)
		r = defrag(o, &edit, &rep, err);
	/* All that a dry run tells is known by now. */
	if (r == 0 && !o->cmd.dry_run)
		r = cmd_edit_commit(&o->cmd, &edit, err);
	if (r == 0)
		report(o, &edit, &rep);
	else if (o->step_done)
		tell_step_done(err);
	cmd_edit_close(&edit);
	return r;
}

int main(int argc, char **argv)
{
	struct prep_err err = PREP_ERR_INIT;
	struct opts o = { .how.budget = UINT64_MAX };

	parse(&o, argc, argv);
	run(&o, &err);
	return cmd_finish(&o.cmd, &err);
}
