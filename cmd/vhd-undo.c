/* SPDX-License-Identifier: GPL-3.0-or-later */
/* vhd-undo: undo disks: try changes on a read-only base, and keep them or throw them away. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "cmd/cmd.h"
#include "libprep/prep/undo.h"

static const char usage[] =
"Usage: vhd-undo create [OPTION]... BASE UNDO\n"
"       vhd-undo commit [OPTION]... UNDO\n"
"       vhd-undo discard [OPTION]... UNDO\n"
"       vhd-undo status [OPTION]... UNDO|BASE\n"
"An undo disk is a differencing VHD over BASE, a VHD: a virtual machine that is\n"
"started with UNDO changes only that. create makes it and protects BASE; commit\n"
"writes its changes into BASE, all or nothing; discard throws them away; status\n"
"tells what it holds.\n"
"\n"
"      --ignore-changed   commit although BASE was changed since\n"
CMD_USAGE_PARENT
"  -n, --dry-run          check everything, and change nothing\n"
"  -f, --force            create: overwrite an existing UNDO\n"
"  -j, --json             report as JSON\n"
"  -p, --progress         show progress although standard error is no terminal\n"
"  -q, --quiet            no report, no progress, no warnings\n"
"  -v, --verbose          tell how many blocks the undo disk has\n"
"      --tmpdir DIR       for temporary data (default: $TMPDIR, else /var/tmp)\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
"Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, nothing changed,\n"
"4 damaged image; status: BASE was changed since.\n";

enum { OPT_IGNORE_CHANGED = CMD_OPT_OWN };

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	CMD_LONG_PARENT,
	{ "dry-run", no_argument, NULL, 'n' },
	{ "force", no_argument, NULL, 'f' },
	{ "ignore-changed", no_argument, NULL, OPT_IGNORE_CHANGED },
	{ NULL, 0, NULL, 0 },
};

enum verb { CREATE, COMMIT, DISCARD, STATUS };

static const struct {
	const char *name;
	int operands;
	const char *done, *would; /* for the report */
} verbs[] = {
	[CREATE] = { "create", 2, "made", "would be made" },
	[COMMIT] = { "commit", 1, "committed", "would be committed" },
	[DISCARD] = { "discard", 1, "discarded", "would be discarded" },
	[STATUS] = { "status", 1, NULL, NULL },
};

struct opts {
	struct cmd cmd;
	enum verb verb;
	char **operand;
	struct prep_undo how;
};

static void parse(struct opts *o, int argc, char **argv)
{
	const char *name;
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON "nf", longopts, NULL)) != -1) {
		if (c == OPT_IGNORE_CHANGED)
			o->how.ignore_changed = true;
		else
			cmd_option(&o->cmd, c);
	}
	if (optind == argc)
		cmd_usage(&o->cmd, "create, commit, discard or status?");
	name = argv[optind++];
	for (o->verb = CREATE; o->verb <= STATUS && strcmp(name, verbs[o->verb].name) != 0;)
		o->verb++;
	if (o->verb > STATUS)
		cmd_usage(&o->cmd, "create, commit, discard or status, not %s", name);
	if (argc - optind != verbs[o->verb].operands)
		cmd_usage(&o->cmd, "%s needs %s", name,
			  o->verb == CREATE ? "BASE and UNDO" : o->verb == STATUS ? "one UNDO or BASE" : "one UNDO");
	if (o->how.ignore_changed && o->verb != COMMIT)
		cmd_usage(&o->cmd, "--ignore-changed is for commit");
	if (o->cmd.force && o->verb != CREATE)
		cmd_usage(&o->cmd, "-f is for create");
	o->operand = argv + optind;
	o->how.parents = &o->cmd.parents;
	o->how.dry_run = o->cmd.dry_run;
	o->how.replace = o->cmd.force;
	o->how.tmpdir = o->cmd.tmpdir;
	/* Its id is random anyway: without a date given, the day. */
	o->how.time_stamp = o->cmd.time_stamp != 0 ? o->cmd.time_stamp : (uint32_t)(time(NULL) - PREP_VHD_EPOCH);
	/* No image goes to standard output: the report does. */
	o->cmd.in_place = true;
}

static void report_json(const struct opts *o, const struct prep_undo_report *rep)
{
	cmd_print_json(&o->cmd, json_pack("{s:s, s:b, s:o, s:o, s:b, s:b, s:b, s:b, s:I, s:I, s:I, s:I}", "action",
		verbs[o->verb].name, "dry_run", o->cmd.dry_run, "base", cmd_json_text(rep->base), "undo",
		cmd_json_text(rep->undo), "undo_present", rep->present, "base_marked", rep->marked, "commit_begun",
		rep->committing, "base_changed", rep->changed, "virtual_size", (json_int_t)rep->size, "block_size",
		(json_int_t)rep->block_size, "blocks", (json_int_t)rep->blocks, "own_bytes", (json_int_t)rep->own));
}

static void report_status(const struct opts *o, const struct prep_undo_report *rep)
{
	if (rep->undo == NULL) {
		printf("%s: no undo disk stands on it\n", rep->base);
		return;
	}
	cmd_print_text(stdout, rep->undo);
	printf(": undo disk%s\n", rep->present ? "" : ", not there");
	if (rep->present) {
		printf("  holds:       %s in %" PRIu64 " sectors of %s\n", cmd_size(rep->own), rep->own / 512,
		       cmd_size(rep->size));
		if (o->cmd.verbose)
			printf("  blocks:      %" PRIu64 " of %s\n", rep->blocks, cmd_size(rep->block_size));
	}
	printf("  base:        %s, %s\n", rep->base,
	       !rep->marked ? "not marked as a base" : rep->committing ? "being committed to: run 'vhd-undo commit' again"
	       : rep->changed ? "CHANGED since" : "unchanged since");
}

static void report(const struct opts *o, const struct prep_undo_report *rep)
{
	if (o->cmd.json) {
		report_json(o, rep);
	} else if (o->verb == STATUS) {
		report_status(o, rep);
	} else if (!o->cmd.quiet) {
		printf("%s: %s%s %s", rep->undo, o->verb == CREATE ? "undo disk of " : "", o->verb == CREATE ? rep->base : "undo disk",
		       o->cmd.dry_run ? verbs[o->verb].would : verbs[o->verb].done);
		if (o->verb == COMMIT)
			printf(": %s to %s", cmd_size(rep->own), rep->base);
		else if (o->verb == DISCARD)
			printf(": %s, %s stays as it was", cmd_size(rep->own), rep->base);
		if (o->cmd.verbose && o->verb != CREATE)
			printf(", %" PRIu64 " blocks", rep->blocks);
		putchar('\n');
	}
}

/* Both are known: their folders, where marks, journals and the undo disk come and go, and parents of the base. */
static int confine(void *arg, const char *base, const char *undo, struct prep_err *err)
{
	struct opts *o = arg;
	struct prep_sandbox may = { .network = false };

	cmd_may_open(&o->cmd, &may, base);
	prep_sandbox_read(&may, undo);
	if (!o->cmd.dry_run && o->verb != STATUS)
		prep_sandbox_output(&may, base);
	if (o->verb == CREATE || (!o->cmd.dry_run && o->verb != STATUS))
		prep_sandbox_output(&may, undo);
	return cmd_confine(&o->cmd, &may, err);
}

/* Which is to change nothing, whatever it finds. */
static int status(struct opts *o, struct prep_undo_report *rep, struct prep_err *err)
{
	struct prep_sandbox may = { .read_all = true };

	cmd_may_open(&o->cmd, &may, o->operand[0]);
	return cmd_confine(&o->cmd, &may, err) < 0 ? -1 : prep_undo_status(o->operand[0], &o->how, rep, err);
}

static int run(struct opts *o, struct prep_err *err)
{
	struct prep_undo_report rep = { .base = NULL };
	int r;

	o->how.found = confine;
	o->how.arg = o;
	switch (o->verb) {
	case CREATE:
		r = confine(o, o->operand[0], o->operand[1], err);
		if (r == 0)
			r = prep_undo_create(o->operand[0], o->operand[1], &o->how, &rep, err);
		break;
	case COMMIT:
		r = prep_undo_commit(o->operand[0], &o->how, &rep, &o->cmd.progress, err);
		break;
	case DISCARD:
		r = prep_undo_discard(o->operand[0], &o->how, &rep, err);
		break;
	default:
		r = status(o, &rep, err);
	}
	if (r == 0)
		report(o, &rep);
	if (r == 0 && o->verb == STATUS && rep.changed)
		r = prep_fail(err, PREP_EDAMAGED, "%s: changed since %s was made, which no longer fits it", rep.base, rep.undo);
	prep_undo_report_clear(&rep);
	return r;
}

int main(int argc, char **argv)
{
	struct prep_err err = PREP_ERR_INIT;
	struct opts o = { .operand = NULL };

	parse(&o, argc, argv);
	run(&o, &err);
	return cmd_finish(&o.cmd, &err);
}
