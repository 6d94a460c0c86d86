/* SPDX-License-Identifier: GPL-3.0-or-later */
/* vhd-compact: leave out the blocks of a disk that are all zero. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "libprep/base/bytes.h"
#include "libprep/disk/vhd.h"
#include "libprep/disk/vhd_write.h"
#include "libprep/prep/compact.h"
#include "libprep/prep/scan.h"

static const char usage[] =
"Usage: vhd-compact [OPTION]... [IMAGE]\n"
"Leave out every block of a disk that is all zero; what the guest sees stays the\n"
"same to the byte. IMAGE is a VHD, VHDX or raw disk; without it, or as '-',\n"
"standard input. The result goes to standard output.\n"
"\n"
"  -o, --output FILE      write the result to FILE ('-': standard output)\n"
"  -i, --in-place         replace IMAGE by the result, when that is complete\n"
"  -n, --dry-run          only tell what would be gained\n"
"      --to FORMAT        dynamic (default), fixed or raw\n"
"      --block-size N     of a dynamic VHD: 512K to 256M, a power of two\n"
"                         (default: that of IMAGE, else 2M)\n"
"      --align N          of a fixed VHD or raw disk: zeros behind the disk make\n"
"                         its size a multiple of N (Azure: 1M)\n"
"      --new-id           give the VHD a new unique id and time stamp\n"
CMD_USAGE_PARENT
"  -f, --force            overwrite an existing FILE\n"
"  -j, --json             report as JSON\n"
"  -p, --progress         show progress although standard error is no terminal\n"
"  -q, --quiet            no report, no progress, no warnings\n"
"  -v, --verbose          tell how much data was written\n"
"      --tmpdir DIR       for what must be kept of a pipe (default: $TMPDIR,\n"
"                         else /var/tmp)\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
"Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 damaged input.\n";

enum { OPT_TO = CMD_OPT_OWN, OPT_BLOCK_SIZE, OPT_ALIGN, OPT_NEW_ID };

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	CMD_LONG_EDIT,
	CMD_LONG_PARENT,
	{ "to", required_argument, NULL, OPT_TO },
	{ "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
	{ "align", required_argument, NULL, OPT_ALIGN },
	{ "new-id", no_argument, NULL, OPT_NEW_ID },
	{ NULL, 0, NULL, 0 },
};

struct opts {
	struct cmd cmd;
	const char *image;
	enum prep_format format;
	uint32_t block_size; /* 0: that of the image */
	uint64_t align;      /* bytes; 0: none */
	bool new_id;
};

/* The input: a disk, or a VHD that comes through a pipe block by block. */
struct input {
	struct prep_disk *disk;
	struct prep_vhd_stream *stream;
	uint64_t file_size, allocated; /* bytes; 0 where not known */
	uint64_t blocks;               /* of a dynamic VHD: allocated */
};

struct result {
	struct prep_export_report written;
	uint64_t disk_size;
	uint64_t file_size, allocated;
};

static void parse_format(struct opts *o, const char *text)
{
	if (strcmp(text, "dynamic") == 0)
		o->format = PREP_FORMAT_DYNAMIC;
	else if (strcmp(text, "fixed") == 0)
		o->format = PREP_FORMAT_FIXED;
	else if (strcmp(text, "raw") == 0)
		o->format = PREP_FORMAT_RAW;
	else
		cmd_usage(&o->cmd, "--to: dynamic, fixed or raw, not %s", text);
}

static void parse_align(struct opts *o, const char *text)
{
	o->align = cmd_number(&o->cmd, "--align", text);
	if (o->align == 0 || o->align % PREP_VHD_SECTOR != 0 || o->align > PREP_GIB)
		cmd_usage(&o->cmd, "--align: a multiple of 512 up to 1G, not %s", text);
}

static void parse(struct opts *o, int argc, char **argv)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	o->format = PREP_FORMAT_DYNAMIC;
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON CMD_SHORT_EDIT, longopts, NULL)) != -1) {
		switch (c) {
		case OPT_TO:
			parse_format(o, optarg);
			break;
		case OPT_BLOCK_SIZE:
			o->block_size = cmd_block_size(&o->cmd, optarg);
			break;
		case OPT_ALIGN:
			parse_align(o, optarg);
			break;
		case OPT_NEW_ID:
			o->new_id = true;
			break;
		default:
			cmd_option(&o->cmd, c);
		}
	}
	if (argc - optind > 1)
		cmd_usage(&o->cmd, "more than one image: %s", argv[optind + 1]);
	o->image = argv[optind];
	if (o->block_size != 0 && o->format != PREP_FORMAT_DYNAMIC)
		cmd_usage(&o->cmd, "--block-size is for dynamic disks");
	if (o->align != 0 && o->format == PREP_FORMAT_DYNAMIC)
		cmd_usage(&o->cmd, "--align is for fixed and raw disks");
	if (o->new_id && o->format == PREP_FORMAT_RAW)
		cmd_usage(&o->cmd, "--new-id is for VHDs: a raw disk has no id");
	cmd_check_edit(&o->cmd, o->image);
}

/* How the result is to be made, from what the input says of itself. */
static int plan(struct opts *o, const struct input *in, struct prep_export *how, struct prep_err *err)
{
	if (in->stream != NULL) {
		*how = (struct prep_export){
			.block_size = prep_vhd_stream_header(in->stream)->block_size,
			.identity = *prep_vhd_stream_footer(in->stream),
		};
	} else if (prep_export_same(in->disk, o->cmd.time_stamp, how, err) < 0) {
		return -1;
	}
	how->format = o->format;
	how->find_zeros = true;
	how->align = o->align;
	if (o->block_size != 0)
		how->block_size = o->block_size;
	if (o->new_id)
		return prep_vhd_identity_renew(&how->identity, o->cmd.time_stamp, err);
	return 0;
}

static int open_disk(struct opts *o, struct input *in, struct prep_err *err)
{
	const struct prep_vhd_info *vhd;
	struct stat st;

	if (cmd_open_image(&o->cmd, o->image, cmd_in_place_flags(&o->cmd), &in->disk, err) < 0)
		return -1;
	if (!cmd_is_stdin(o->image) && stat(o->image, &st) == 0) {
		in->file_size = (uint64_t)st.st_size;
		in->allocated = (uint64_t)st.st_blocks * 512;
	}
	vhd = prep_vhd_disk_info(in->disk);
	if (vhd != NULL)
		in->blocks = vhd->blocks_allocated;
	return cmd_refuse_child(&o->cmd, in->disk, "in its place the whole disk would stand, and take more room", err);
}

/*
 * Open the input. A dynamic VHD in a pipe that can be compacted as it comes
 * is taken as a stream; every other pipe is spooled.
 */
static int open_input(struct opts *o, const struct prep_output *out, struct input *in,
		      struct prep_err *err)
{
	struct stat st;
	uint8_t *head;
	size_t head_len;
	int r;

	if (!cmd_is_stdin(o->image) || isatty(STDIN_FILENO) ||
	    (fstat(STDIN_FILENO, &st) == 0 && S_ISREG(st.st_mode)) || out == NULL ||
	    !prep_output_seekable(out) || o->format != PREP_FORMAT_DYNAMIC)
		return open_disk(o, in, err);
	r = prep_vhd_stream_open(STDIN_FILENO, "standard input", o->block_size, &in->stream, &head, &head_len, err);
	if (r < 0)
		return -1;
	if (r == 0) {
		r = cmd_open_spooled(&o->cmd, head, head_len, &in->disk, err);
		free(head);
		if (r < 0)
			return -1;
		cmd_notes(&o->cmd, &in->disk->notes);
		return 0;
	}
	in->blocks = prep_vhd_stream_blocks(in->stream);
	return 0;
}

/* Room for the result, found out exactly only where the input's size may not fit. */
static int check_space(struct opts *o, const struct input *in, const struct prep_export *how,
		       const struct prep_output *out, struct prep_err *err)
{
	struct prep_err ignored = PREP_ERR_INIT;
	struct prep_export known = *how;
	uint64_t need;

	if (in->disk == NULL || !prep_output_seekable(out))
		return 0;
	known.find_zeros = false;
	if (prep_export_estimate(in->disk, &known, &need, &o->cmd.progress, err) < 0)
		return -1;
	if (prep_output_check_space(out, need, &ignored) == 0)
		return 0;
	if (prep_export_estimate(in->disk, how, &need, &o->cmd.progress, err) < 0)
		return -1;
	return prep_output_check_space(out, need, err);
}

static int dry_run(struct opts *o, const struct input *in, const struct prep_export *how,
		   struct result *res, struct prep_err *err)
{
	if (prep_export_estimate(in->disk, how, &res->file_size, &o->cmd.progress, err) < 0)
		return -1;
	if (how->format == PREP_FORMAT_DYNAMIC) {
		const uint64_t total = (res->disk_size + how->block_size - 1) / how->block_size;

		/* The table of a large disk is longer than a block. */
		res->written.blocks = (res->file_size - total * 4 - 4096) / (how->block_size + 4096);
	} else {
		/* As long as the disk, whatever of it is a hole. */
		res->allocated = res->file_size;
		res->file_size = res->disk_size + (how->format == PREP_FORMAT_FIXED ? PREP_VHD_SECTOR : 0);
	}
	return 0;
}

static int compact(struct opts *o, const struct input *in, const struct prep_export *how,
		   struct prep_output *out, struct result *res, struct prep_err *err)
{
	int r;

	if (check_space(o, in, how, out, err) < 0)
		return -1;
	if (in->stream != NULL)
		r = prep_compact_stream(in->stream, out, how, &res->written, &o->cmd.progress, err);
	else
		r = prep_export(in->disk, out, how, &res->written, &o->cmd.progress, err);
	if (r < 0 || prep_output_commit(out, err) < 0)
		return -1;
	res->file_size = prep_output_size(out);
	res->allocated = prep_output_allocated(out);
	return 0;
}

static void report(const struct opts *o, const struct input *in, const struct prep_export *how,
		   const struct result *res)
{
	static const char *const names[] = { "raw", "fixed", "dynamic" };
	FILE *f = cmd_report(&o->cmd);

	if (o->cmd.json) {
		cmd_print_json(&o->cmd, json_pack("{s:o*, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			"image", o->image != NULL ? cmd_json_text(o->image) : NULL, "format", names[how->format],
			"dry_run", o->cmd.dry_run,
			"disk_size", (json_int_t)res->disk_size,
			"size_before", (json_int_t)in->file_size, "allocated_before", (json_int_t)in->allocated,
			"blocks_before", (json_int_t)in->blocks,
			"size_after", (json_int_t)res->file_size, "allocated_after", (json_int_t)res->allocated,
			"blocks_after", (json_int_t)res->written.blocks,
			"block_size", (json_int_t)(how->format == PREP_FORMAT_DYNAMIC ? how->block_size : 0)));
		return;
	}
	if (o->cmd.quiet)
		return;
	fprintf(f, "%s: ", cmd_is_stdin(o->image) ? "standard input" : o->image);
	if (in->file_size != 0)
		fprintf(f, "%s, ", cmd_size(in->file_size));
	if (in->blocks != 0 && how->format == PREP_FORMAT_DYNAMIC)
		fprintf(f, "%" PRIu64 " blocks, ", in->blocks);
	fprintf(f, "%s %s", !o->cmd.dry_run ? "became" : how->format == PREP_FORMAT_DYNAMIC ? "would become at most"
		: "would become", cmd_size(res->file_size));
	if (how->format == PREP_FORMAT_DYNAMIC)
		fprintf(f, ", %" PRIu64 " blocks of %s", res->written.blocks, cmd_size(how->block_size));
	if (o->align != 0)
		fprintf(f, ", a disk of %" PRIu64 " bytes", res->disk_size);
	if (res->allocated > 0 && res->allocated < res->file_size)
		fprintf(f, " (%s%s on the host)", o->cmd.dry_run ? "at most " : "", cmd_size(res->allocated));
	if (!o->cmd.dry_run && o->cmd.verbose)
		fprintf(f, ", %s of data", cmd_size(res->written.data));
	fputc('\n', f);
}

/* Before the input is opened, and after. */
static int confine(struct opts *o, const struct prep_output *out, bool opens, struct prep_err *err)
{
	struct prep_sandbox may = { .network = false };

	if (opens)
		cmd_may_open(&o->cmd, &may, o->image);
	if (out != NULL)
		prep_sandbox_output(&may, o->cmd.in_place ? o->image : o->cmd.output != NULL ? o->cmd.output : "-");
	return cmd_confine(&o->cmd, &may, err);
}

static int run(struct opts *o, struct prep_err *err)
{
	struct input in = { .disk = NULL };
	struct prep_output *out = NULL;
	struct result res = { .file_size = 0 };
	struct prep_export how;
	int r = -1;

	if ((o->cmd.in_place
		     ? cmd_open_output(&o->cmd, o->image, true, o->image, &out, err)
		     : cmd_open_output(&o->cmd, o->cmd.output != NULL ? o->cmd.output : "-", o->cmd.force, o->image,
				       &out, err)) < 0)
		return -1;
	if (confine(o, out, true, err) == 0 && open_input(o, out, &in, err) == 0 && confine(o, out, false, err) == 0 &&
	    plan(o, &in, &how, err) == 0) {
		res.disk_size = in.disk != NULL ? prep_export_size(in.disk, &how)
						: prep_vhd_stream_footer(in.stream)->current_size;
		r = o->cmd.dry_run ? dry_run(o, &in, &how, &res, err) : compact(o, &in, &how, out, &res, err);
	}
	if (r == 0)
		report(o, &in, &how, &res);
	prep_vhd_stream_close(in.stream);
	prep_disk_close(in.disk);
	prep_output_close(out);
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
