/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ckm-unpack: make the image of a package again. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "cmd/trim.h"
#include "libprep/base/file.h"
#include "libprep/trim/target.h"

static const char usage[] =
"Usage: ckm-unpack [OPTION]... -o OUT PACKAGE\n"
"Make the disk image that was packed into PACKAGE (a .ckm): what the guest sees\n"
"is the same to the byte, and a VHD keeps its identity.\n"
"\n"
"  -o, --output OUT       the image ('-': standard output)\n"
"      --to FORMAT        dynamic, fixed or raw (default: as it was packed)\n"
"      --seed SEED        take what it holds from SEED, an image, a folder, a\n"
"                         local index or another package; repeatable\n"
"      --client-settings XML  take what the folders hold that are listed in a\n"
"                         ClientSettings.xml of MED-V,\n"
"      --root DIR         below DIR\n"
CMD_USAGE_PARENT
"      --cache DIR        keep the indexes of seeds in DIR\n"
"                         (default: $XDG_CACHE_HOME/prep, else ~/.cache/prep)\n"
"      --no-cache         keep none\n"
"      --key KEY          private key (PEM) that opens a sealed package\n"
"      --passphrase-file FILE  the passphrase, in the first line of FILE\n"
"                         ('-': ask on the terminal)\n"
"      --verify-with KEY  public key (PEM) that must have signed the package\n"
"  -J, --jobs N           threads (default: as many as there are processors)\n"
"  -n, --dry-run          only tell what would come from where\n"
"  -f, --force            overwrite an existing OUT\n"
"  -j, --json             report as JSON\n"
"  -p, --progress         show progress although standard error is no terminal\n"
"  -q, --quiet            no report, no progress, no warnings\n"
"  -v, --verbose          report more\n"
"      --tmpdir DIR       for what goes to a pipe (default: $TMPDIR, else\n"
"                         /var/tmp)\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
"Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 damaged input.\n";

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	TRIM_LONG_READ,
	TRIM_LONG_SETTINGS,
	TRIM_LONG_RESTORE,
	{ "dry-run", no_argument, NULL, 'n' },
	{ "force", no_argument, NULL, 'f' },
	{ "output", required_argument, NULL, 'o' },
	{ NULL, 0, NULL, 0 },
};

struct opts {
	struct cmd cmd;
	struct trim trim;
	const char *package;
};

/* What unpacking works on, and with. */
struct work {
	struct prep_ckm *package;
	struct prep_supply supply;
	struct prep_export how;
	struct prep_output *out;   /* what the user gets */
	struct prep_output *temp;  /* what is written first, where that is a stream */
	struct prep_restore_report restored;
};

static void parse(struct opts *o, int argc, char **argv)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON TRIM_SHORT_READ "nfo:", longopts, NULL)) != -1)
		trim_option(&o->cmd, &o->trim, c);
	trim_check(&o->cmd, &o->trim);
	if (optind == argc)
		cmd_usage(&o->cmd, "no package");
	if (argc - optind > 1)
		cmd_usage(&o->cmd, "more than one package: %s", argv[optind + 1]);
	o->package = argv[optind];
	if (o->cmd.output == NULL && !o->cmd.dry_run)
		cmd_usage(&o->cmd, "where to? -o OUT, or -o - for standard output");
}

/* The output first: what is wrong with it is better told before the work. */
static int open_output(struct opts *o, struct work *w, struct prep_err *err)
{
	if (cmd_open_output(&o->cmd, o->cmd.output, o->cmd.force, o->package, &w->out, err) < 0)
		return -1;
	return o->cmd.dry_run || prep_output_seekable(w->out) ? 0 : prep_output_open_temp(o->cmd.tmpdir, &w->temp, err);
}

/* The finished image into a pipe, holes as zeros. */
static int stream_out(struct opts *o, struct work *w, struct prep_err *err)
{
	const uint64_t size = prep_output_size(w->temp);
	const int fd = prep_output_fd(w->temp);
	uint64_t at = 0;

	if (ftruncate(fd, (off_t)size) != 0)
		return prep_fail_errno(err, "temporary file: cannot set its size");
	while (at < size) {
		bool hole;
		const uint64_t most = size - at < (4 << 20) ? size : at + (4 << 20);
		const uint64_t end = prep_file_extent(fd, NULL, at, most, &hole);

		if (hole ? prep_output_zeros(w->out, end - at, err) < 0
			 : prep_output_copy(w->out, fd, at, end - at, "temporary file", err) < 0)
			return -1;
		at = end;
		if (prep_progress(&o->cmd.progress, "writing", at, size, err) < 0)
			return -1;
	}
	return 0;
}

static int unpack(struct opts *o, struct work *w, struct prep_err *err)
{
	struct prep_frame_source source;
	struct prep_package_source package;
	const struct prep_restore how = {
		.package = w->package,
		.supply = &w->supply,
		.seed = o->trim.open,
		.seeds = o->trim.opened,
		.source = &source,
		.how = &w->how,
		.out = w->temp != NULL ? w->temp : w->out,
		.jobs = o->trim.jobs,
	};

	prep_package_source(w->package, &package, &source);
	if (prep_output_check_space(how.out, prep_target_estimate(prep_ckm_index(w->package), &w->how), err) < 0 ||
	    prep_restore(&how, &w->restored, &o->cmd.progress, err) < 0)
		return -1;
	if (w->temp != NULL && stream_out(o, w, err) < 0)
		return -1;
	return prep_output_commit(w->out, err);
}

static void report_json(const struct opts *o, const struct work *w)
{
	static const char *const names[] = { "raw", "fixed", "dynamic" };
	const struct prep_ckm_index *in = prep_ckm_index(w->package);
	const struct prep_ckm_info *info = prep_ckm_info(w->package);
	const struct prep_restore_report *r = &w->restored;

	cmd_print_json(&o->cmd, json_pack(
		"{s:o, s:s, s:s, s:b, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
		"package", cmd_json_text(o->package), "name", in->name, "image_version", in->version,
		"dry_run", o->cmd.dry_run, "format", names[w->how.format],
		"sealed", info->sealed, "verified", info->verified,
		"disk_size", (json_int_t)in->disk_size, "chunks", (json_int_t)in->chunks,
		"wanted_bytes", (json_int_t)w->supply.wanted_bytes,
		"file_size", (json_int_t)r->file_size, "blocks", (json_int_t)r->blocks,
		"local_chunks", (json_int_t)(o->cmd.dry_run ? w->supply.local_chunks : r->seed_chunks),
		"local_bytes", (json_int_t)(o->cmd.dry_run ? w->supply.local_bytes : r->seed_bytes),
		"bad_chunks", (json_int_t)r->bad_chunks,
		"frames", (json_int_t)(o->cmd.dry_run ? w->supply.frames : r->frames),
		"frame_bytes", (json_int_t)(o->cmd.dry_run ? w->supply.frame_bytes : r->frame_bytes),
		"patches", (json_int_t)(o->cmd.dry_run ? w->supply.patches : r->patches),
		"patch_bytes", (json_int_t)(o->cmd.dry_run ? w->supply.patch_bytes : r->patch_bytes),
		"seeds", trim_origins_json(&w->supply)));
}

static void report(const struct opts *o, const struct work *w)
{
	const struct prep_ckm_index *in = prep_ckm_index(w->package);
	const struct prep_restore_report *r = &w->restored;
	FILE *f = cmd_report(&o->cmd);

	if (o->cmd.json) {
		report_json(o, w);
		return;
	}
	if (o->cmd.quiet)
		return;
	fprintf(f, "%s: a disk of %s, %s of distinct data", o->package, cmd_size(in->disk_size),
		cmd_size(w->supply.wanted_bytes));
	if (o->cmd.dry_run) {
		if (w->supply.origins > 0)
			fprintf(f, "; %s of it in seeds", cmd_size(w->supply.found_bytes));
		fprintf(f, "; %u of %u frames to unpack, %s\n", w->supply.frames, in->frames,
			cmd_size(w->supply.frame_bytes));
		trim_print_patches(f, &w->supply);
		trim_print_origins(f, &w->supply);
		return;
	}
	if (r->seed_bytes > 0)
		fprintf(f, ", %s of it from seeds", cmd_size(r->seed_bytes));
	fprintf(f, "; %" PRIu64 " of %u frames unpacked, %s; became %s", r->frames, in->frames,
		cmd_size(r->frame_bytes), cmd_size(r->file_size));
	if (w->how.format == PREP_FORMAT_DYNAMIC)
		fprintf(f, ", %u blocks of %s", r->blocks, cmd_size(w->how.block_size));
	fputc('\n', f);
	if (r->bad_chunks > 0)
		fprintf(f, "  %" PRIu64 " chunks (%s) were not what seeds had promised, and came from elsewhere\n",
			r->bad_chunks, cmd_size(r->bad_bytes));
	if (o->cmd.verbose)
		trim_print_origins(f, &w->supply);
}

static int run(struct opts *o, struct prep_err *err)
{
	struct prep_sandbox may = { .network = false };
	struct work w = { .package = NULL };
	int r = -1;

	if (o->cmd.output != NULL)
		prep_sandbox_output(&may, o->cmd.output);
	cmd_may_read_package(&may, o->package);
	if (trim_confine(&o->cmd, &o->trim, &may, err) == 0 && open_output(o, &w, err) == 0 &&
	    prep_ckm_open(o->package, &o->trim.access, &w.package, err) == 0 &&
	    prep_target_choose(prep_ckm_index(w.package), o->trim.format, o->package, &w.how, err) == 0 &&
	    prep_supply_new(prep_ckm_index(w.package), &w.supply, err) == 0 &&
	    trim_open(&o->cmd, &o->trim, false, &w.supply, err) == 0 &&
	    prep_supply_make(&w.supply, err) == 0) {
		r = prep_supply_check(&w.supply, o->package, err);
		if (r == 0 && !o->cmd.dry_run)
			r = unpack(o, &w, err);
	}
	if (r == 0)
		report(o, &w);
	prep_supply_clear(&w.supply);
	trim_close(&o->trim);
	prep_ckm_close(w.package);
	prep_output_close(w.temp);
	prep_output_close(w.out);
	return r;
}

int main(int argc, char **argv)
{
	struct prep_err err = PREP_ERR_INIT;
	struct opts o = { .trim = { .format = -1 } };

	parse(&o, argc, argv);
	run(&o, &err);
	return cmd_finish(&o.cmd, &err);
}
