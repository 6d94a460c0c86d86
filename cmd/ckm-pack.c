/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ckm-pack: pack a disk image into a package. */
#include <inttypes.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "libprep/base/pool.h"
#include "libprep/base/utf16.h"
#include "libprep/ckm/keys.h"
#include "libprep/ckm/pack.h"
#include "libprep/ckm/package_outputs.h"
#include "libprep/ckm/patch_plan.h"
#include "libprep/ckm/section.h"
#include "libprep/disk/overlay.h"
#include "libprep/prep/zerofree.h"

static const char usage[] =
"Usage: ckm-pack [OPTION]... -o OUT.ckm [IMAGE]\n"
"Pack a disk image into OUT.ckm and its index OUT.ckm.index. IMAGE is a VHD, a\n"
"VHDX or a raw disk; without it, or as '-', standard input.\n"
"\n"
"  -o, --output OUT.ckm   the package; both files appear complete or not at all\n"
"      --name NAME        of the image (default: from IMAGE's file name)\n"
"      --image-version V  of the image\n"
"      --comment TEXT     about the image\n"
"      --trim             leave out free clusters and bytes behind files' data\n"
"  -0 ... -9              from fastest to smallest (default 6)\n"
"      --codec NAME       xz, zstd, deflate or store (default: by level)\n"
"      --base INDEX       the package of an older image, or its index: put what\n"
"                         that does not hold in frames of its own\n"
"      --base-image OLD   the older image itself, a VHD, VHDX, raw disk or .ckm,\n"
"                         to make patches of; both options are repeatable: a\n"
"                         client needs one of the bases\n"
"      --patches KIND     also: in addition to what is new (default with\n"
"                         --base-image); only: instead of it, with --difference\n"
"      --difference       leave out what every base holds\n"
"      --base-key KEY     private key (PEM) that opens sealed bases\n"
"      --base-passphrase-file FILE  the passphrase that opens it\n"
"      --recipient KEY    seal for the holder of this X25519 public key (PEM);\n"
"                         repeatable\n"
"      --passphrase-file FILE  seal for those who know the passphrase in the\n"
"                         first line of FILE ('-': ask on the terminal)\n"
"      --sign KEY         sign with this Ed25519 private key (PEM)\n"
CMD_USAGE_PARENT
"  -J, --jobs N           threads (default: as many as there are processors)\n"
"  -n, --dry-run          only tell what would be packed\n"
"  -f, --force            overwrite existing files\n"
"  -j, --json             report as JSON\n"
"  -p, --progress         show progress although standard error is no terminal\n"
"  -q, --quiet            no report, no progress, no warnings\n"
"  -v, --verbose          report more\n"
"      --tmpdir DIR       for what must be kept of a pipe (default: $TMPDIR,\n"
"                         else /var/tmp)\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
"Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 damaged input.\n";

enum {
	OPT_NAME = CMD_OPT_OWN, OPT_IMAGE_VERSION, OPT_COMMENT, OPT_TRIM, OPT_CODEC, OPT_BASE, OPT_BASE_IMAGE, OPT_PATCHES, OPT_DIFFERENCE,
	OPT_BASE_KEY, OPT_BASE_PASSPHRASE, OPT_RECIPIENT, OPT_PASSPHRASE, OPT_SIGN,
};

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	CMD_LONG_PARENT,
	{ "dry-run", no_argument, NULL, 'n' },
	{ "force", no_argument, NULL, 'f' },
	{ "output", required_argument, NULL, 'o' },
	{ "jobs", required_argument, NULL, 'J' },
	{ "name", required_argument, NULL, OPT_NAME },
	{ "image-version", required_argument, NULL, OPT_IMAGE_VERSION },
	{ "comment", required_argument, NULL, OPT_COMMENT },
	{ "trim", no_argument, NULL, OPT_TRIM },
	{ "codec", required_argument, NULL, OPT_CODEC },
	{ "base", required_argument, NULL, OPT_BASE },
	{ "base-image", required_argument, NULL, OPT_BASE_IMAGE },
	{ "patches", required_argument, NULL, OPT_PATCHES },
	{ "difference", no_argument, NULL, OPT_DIFFERENCE },
	{ "base-key", required_argument, NULL, OPT_BASE_KEY },
	{ "base-passphrase-file", required_argument, NULL, OPT_BASE_PASSPHRASE },
	{ "recipient", required_argument, NULL, OPT_RECIPIENT },
	{ "passphrase-file", required_argument, NULL, OPT_PASSPHRASE },
	{ "sign", required_argument, NULL, OPT_SIGN },
	{ NULL, 0, NULL, 0 },
};

#define BASES_MAX 16u

struct opts {
	struct cmd cmd;
	const char *image;
	const char *name, *version, *comment;
	bool trim;
	int codec;      /* enum prep_codec, -1: by level */
	unsigned level, jobs;
	const char *base[BASES_MAX], *base_image[BASES_MAX]; /* the first image belongs to the first base, and so on */
	unsigned indexes, images;
	struct prep_ckm_access base_access;
	struct prep_key_ring base_ring; /* of base_access */
	enum { PATCHES_NONE, PATCHES_ALSO, PATCHES_ONLY } patches;
	bool difference;
	const char *recipient[PREP_CKM_SLOTS_MAX];
	unsigned recipients;
	const char *passphrase_file, *sign;
};

/* What packing works on, and with. */
struct work {
	struct prep_pool *pool;
	struct prep_disk *disk, *overlay;
	struct prep_base base[BASES_MAX];
	unsigned bases;
	struct prep_survey survey;
	struct prep_patches patches;
	struct prep_plan plan;
	struct prep_seal *seal;
	uint8_t slots[PREP_CKM_SLOTS_MAX * PREP_CKM_SLOT_SIZE];
	struct prep_pack_how how;
	struct prep_output *out, *out_index;
	struct prep_pack_report packed;
	uint64_t trimmed; /* bytes */
	struct stat before; /* the image's file, when it was opened */
};

static void parse_codec(struct opts *o, const char *text)
{
	o->codec = prep_codec_by_name(text);
	if (o->codec < 0)
		cmd_usage(&o->cmd, "--codec: xz, zstd, deflate or store, not %s", text);
}

/* Text that goes into the index: its bounds are the index's. */
static const char *parse_text(struct opts *o, const char *option, const char *text, size_t room)
{
	if (strlen(text) >= room)
		cmd_usage(&o->cmd, "%s: longer than %zu bytes", option, room - 1);
	for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++)
		if (*p == 0x7F || (*p < ' ' && *p != '\n' && *p != '\t'))
			cmd_usage(&o->cmd, "%s: a control character", option);
	if (!prep_utf8_valid(text, strlen(text)))
		cmd_usage(&o->cmd, "%s: not UTF-8", option);
	return text;
}

static void add_base(struct opts *o, const char *option, const char **list, unsigned *n, const char *path)
{
	if (*n == BASES_MAX)
		cmd_usage(&o->cmd, "%s: more than %u", option, BASES_MAX);
	list[(*n)++] = path;
}

static void parse_patches(struct opts *o, const char *text)
{
	if (strcmp(text, "also") == 0)
		o->patches = PATCHES_ALSO;
	else if (strcmp(text, "only") == 0)
		o->patches = PATCHES_ONLY;
	else
		cmd_usage(&o->cmd, "--patches: also or only, not %s", text);
}

static void check(struct opts *o)
{
	const struct prep_ckm_index *sizes = NULL;

	if (o->name != NULL) {
		parse_text(o, "--name", o->name, sizeof sizes->name);
		if (o->name[0] == '\0' || !prep_ckm_name_allowed(o->name))
			cmd_usage(&o->cmd, "--name: not empty, and none of space \" < > | \\ / : * ?");
	}
	if (o->version != NULL)
		parse_text(o, "--image-version", o->version, sizeof sizes->version);
	if (o->comment != NULL)
		parse_text(o, "--comment", o->comment, sizeof sizes->comment);
	if (o->cmd.output == NULL && !o->cmd.dry_run)
		cmd_usage(&o->cmd, "where to? -o OUT.ckm");
	if (o->cmd.output != NULL && strcmp(o->cmd.output, "-") == 0)
		cmd_usage(&o->cmd, "-o: a package is two files, which standard output cannot be");
	if (o->difference && o->indexes + o->images == 0)
		cmd_usage(&o->cmd, "--difference needs --base or --base-image");
	if (o->patches == PATCHES_ONLY && !o->difference)
		cmd_usage(&o->cmd, "--patches only goes with --difference");
	if ((o->base_access.key_file != NULL || o->base_access.passphrase_file != NULL) && o->indexes + o->images == 0)
		cmd_usage(&o->cmd, "--base-key and --base-passphrase-file need --base");
	if (o->images > 0 && o->patches == PATCHES_NONE)
		o->patches = PATCHES_ALSO;
	if (o->recipients + (o->passphrase_file != NULL) > PREP_CKM_SLOTS_MAX)
		cmd_usage(&o->cmd, "more than %u who can open the package", PREP_CKM_SLOTS_MAX);
}

static void parse(struct opts *o, int argc, char **argv)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	o->base_access.ring = &o->base_ring;
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON "nfo:J:0123456789", longopts, NULL)) != -1) {
		switch (c) {
		case '0' ... '9':
			o->level = (unsigned)(c - '0');
			break;
		case 'J':
			o->jobs = cmd_jobs(&o->cmd, optarg);
			break;
		case OPT_NAME:
			o->name = optarg;
			break;
		case OPT_IMAGE_VERSION:
			o->version = optarg;
			break;
		case OPT_COMMENT:
			o->comment = optarg;
			break;
		case OPT_TRIM:
			o->trim = true;
			break;
		case OPT_CODEC:
			parse_codec(o, optarg);
			break;
		case OPT_BASE:
			add_base(o, "--base", o->base, &o->indexes, optarg);
			break;
		case OPT_BASE_IMAGE:
			add_base(o, "--base-image", o->base_image, &o->images, optarg);
			break;
		case OPT_PATCHES:
			parse_patches(o, optarg);
			break;
		case OPT_DIFFERENCE:
			o->difference = true;
			break;
		case OPT_BASE_KEY:
			o->base_access.key_file = optarg;
			break;
		case OPT_BASE_PASSPHRASE:
			o->base_access.passphrase_file = optarg;
			break;
		case OPT_RECIPIENT:
			if (o->recipients == PREP_CKM_SLOTS_MAX)
				cmd_usage(&o->cmd, "more than %u recipients", PREP_CKM_SLOTS_MAX);
			o->recipient[o->recipients++] = optarg;
			break;
		case OPT_PASSPHRASE:
			o->passphrase_file = optarg;
			break;
		case OPT_SIGN:
			o->sign = optarg;
			break;
		default:
			cmd_option(&o->cmd, c);
		}
	}
	if (argc - optind > 1)
		cmd_usage(&o->cmd, "more than one image: %s", argv[optind + 1]);
	o->image = argv[optind];
	check(o);
}

static bool is_output(const struct opts *o, const char *index, const char *path)
{
	return cmd_same_file(path, o->cmd.output) || cmd_same_file(path, index);
}

/*
 * What --difference leaves out would be nowhere, were the new package put in its place; and the older image itself
 * is as much an input as the new one.
 */
static int check_base_stays(const struct opts *o, const char *index, const char *path, struct prep_err *err)
{
	if (!is_output(o, index, path))
		return 0;
	return prep_fail(err, PREP_EUSAGE, "%s: would be overwritten%s", path,
			 o->difference ? ", and the package does not unpack without what --difference leaves to it"
				       : ": input and output are the same file");
}

static int check_key_stays(const struct opts *o, const char *index, const char *path, struct prep_err *err)
{
	if (path == NULL || !is_output(o, index, path))
		return 0;
	return prep_fail(err, PREP_EUSAGE, "%s: would be overwritten: a key is no output", path);
}

/* The two files, first of all: what is wrong with them is better told before the work. */
static int open_outputs(struct opts *o, struct work *w, struct prep_err *err)
{
	char *index;
	int r;

	if (o->cmd.output == NULL)
		return 0;
	if (asprintf(&index, "%s.index", o->cmd.output) < 0)
		return prep_fail_nomem(err);
	r = prep_package_outputs_check(o->cmd.output, index, err);
	if (r == 0)
		r = cmd_open_output(&o->cmd, o->cmd.output, o->cmd.force, o->image, &w->out, err);
	if (r == 0)
		r = cmd_open_output(&o->cmd, index, o->cmd.force, o->image, &w->out_index, err);
	for (unsigned i = 0; o->difference && r == 0 && i < o->indexes; i++)
		r = check_base_stays(o, index, o->base[i], err);
	for (unsigned i = 0; r == 0 && i < o->images; i++)
		r = check_base_stays(o, index, o->base_image[i], err);
	for (unsigned i = 0; r == 0 && i < o->recipients; i++)
		r = check_key_stays(o, index, o->recipient[i], err);
	if (r == 0)
		r = check_key_stays(o, index, o->sign, err);
	if (r == 0)
		r = check_key_stays(o, index, o->passphrase_file, err);
	free(index);
	return r;
}

/* Keys, before the work too. */
static int open_keys(struct opts *o, struct work *w, struct prep_err *err)
{
	if (o->sign != NULL && prep_key_private(o->sign, PREP_KEY_ED25519, &w->how.sign, err) < 0)
		return -1;
	w->how.n_slots = o->recipients + (o->passphrase_file != NULL);
	if (w->how.n_slots == 0)
		return 0;
	if (prep_seal_new_for(o->recipient, o->recipients, o->passphrase_file, w->slots, &w->seal, err) < 0)
		return -1;
	w->how.seal = w->seal;
	w->how.slots = w->slots;
	return 0;
}

static int open_bases(struct opts *o, struct work *w, struct prep_err *err)
{
	bool any = false;

	while (w->bases < o->indexes || w->bases < o->images) {
		const struct prep_base_how how = {
			.index = w->bases < o->indexes ? o->base[w->bases] : NULL,
			.image = w->bases < o->images ? o->base_image[w->bases] : NULL,
			.access = o->base_access, .parents = &o->cmd.parents,
		};

		if (prep_base_open(&how, w->pool, &w->base[w->bases], &o->cmd.progress, err) < 0)
			return -1;
		cmd_notes(&o->cmd, &w->base[w->bases].survey.layout.notes);
		any |= w->base[w->bases++].has_content;
	}
	if (o->patches != PATCHES_NONE && !any)
		return prep_fail(err, PREP_EUSAGE,
				 "--patches: an index has no data to make them of: give the older image as --base-image");
	return 0;
}

/* The image's file; not a regular one tells nothing. */
static void look_at_image(const struct opts *o, struct stat *ret)
{
	if ((cmd_is_stdin(o->image) ? fstat(STDIN_FILENO, ret) : stat(o->image, ret)) != 0 || !S_ISREG(ret->st_mode))
		*ret = (struct stat){ .st_size = 0 };
}

/*
 * What was packed is read again as it is compressed, and compared. What is zero, or stands elsewhere
 * too, is read but once: of a change there only the file's time tells.
 */
static int check_unchanged(const struct opts *o, const struct work *w, struct prep_err *err)
{
	struct stat now;

	look_at_image(o, &now);
	if (now.st_size == w->before.st_size && now.st_mtim.tv_sec == w->before.st_mtim.tv_sec &&
	    now.st_mtim.tv_nsec == w->before.st_mtim.tv_nsec)
		return 0;
	return prep_fail(err, PREP_EFAIL, "%s: changed while it was packed", w->disk->name);
}

/* With --trim, what is packed is the disk with its free space zeroed. */
static int trim(struct opts *o, struct work *w, struct prep_err *err)
{
	const struct prep_zerofree how = { .volume = 0 };
	struct prep_zerofree_report report;
	struct prep_volumes *v;
	int r;

	if (prep_overlay_open(w->disk, o->cmd.tmpdir, &w->overlay, err) < 0 ||
	    prep_volumes_open(w->disk, &v, err) < 0)
		return -1;
	r = prep_zerofree(v, w->overlay, &how, &report, &o->cmd.progress, err);
	prep_volumes_close(v);
	for (unsigned i = 0; r == 0 && i < report.n; i++)
		w->trimmed += report.volume[i].free + report.volume[i].slack;
	return r;
}

/* The image's fields of the index. */
static int describe(struct opts *o, struct work *w, struct prep_ckm_index *in, struct prep_err *err)
{
	static const uint32_t type[] = {
		[PREP_FORMAT_RAW] = 0, [PREP_FORMAT_FIXED] = PREP_VHD_FIXED, [PREP_FORMAT_DYNAMIC] = PREP_VHD_DYNAMIC,
	};
	struct prep_export same;
	char *copy, *base, *dot;
	bool text;

	if (prep_export_same(w->disk, o->cmd.time_stamp, &same, err) < 0)
		return -1;
	in->disk_size = w->disk->size;
	in->disk_type = type[same.format];
	in->block_size = same.format == PREP_FORMAT_DYNAMIC ? same.block_size : 0;
	in->identity = same.identity;
	if (w->bases > 0)
		memcpy(in->base_id, w->base[0].id, sizeof in->base_id);
	if (o->version != NULL)
		strcpy(in->version, o->version);
	if (o->comment != NULL)
		strcpy(in->comment, o->comment);
	if (o->name != NULL) {
		strcpy(in->name, o->name);
		return 0;
	}
	copy = strdup(cmd_is_stdin(o->image) ? "image" : o->image);
	if (copy == NULL)
		return prep_fail_nomem(err);
	base = basename(copy);
	dot = strrchr(base, '.');
	if (dot != NULL && dot != base)
		*dot = '\0';
	snprintf(in->name, sizeof in->name, "%s", base);
	free(copy);
	text = prep_utf8_valid(in->name, strlen(in->name));
	for (char *p = in->name; *p != '\0'; p++)
		if (!prep_ckm_name_allowed((char[]){ *p, '\0' }) || (!text && (unsigned char)*p >= 0x80))
			*p = '_';
	return 0;
}

/* Sums for the report. */
struct totals {
	uint64_t streams, bytes, unique, unknown; /* unknown: unique bytes that the base does not hold */
};

static void count(const struct work *w, struct totals *all, struct totals kind[PREP_CONTENT_KINDS])
{
	const struct prep_ckm_index *in = &w->plan.index;

	*all = (struct totals){ 0 };
	memset(kind, 0, PREP_CONTENT_KINDS * sizeof *kind);
	for (uint32_t i = 0; i < in->streams; i++) {
		kind[in->stream[i].content].streams++;
		kind[in->stream[i].content].bytes += in->stream[i].size;
	}
	for (uint32_t i = 0; i < in->frames - in->patches; i++) {
		struct totals *k = &kind[w->plan.content[i]];

		k->unique += in->frame[i].size;
		if (i >= w->plan.kept_frames)
			k->unknown += in->frame[i].size;
	}
	for (unsigned i = 0; i < PREP_CONTENT_KINDS; i++) {
		all->streams += kind[i].streams;
		all->bytes += kind[i].bytes;
		all->unique += kind[i].unique;
		all->unknown += kind[i].unknown;
	}
}

/* The patches: what of the image they give, and what they refer to. */
static void count_patches(const struct prep_ckm_index *in, uint64_t *bytes, uint64_t *reference)
{
	*bytes = *reference = 0;
	for (uint32_t i = in->frames - in->patches; i < in->frames; i++)
		*bytes += in->frame[i].size;
	for (uint32_t i = 0; i < in->references; i++)
		*reference += in->reference[i].size;
}

static void report_json(const struct opts *o, const struct work *w, const struct totals *all,
			const struct totals *kind)
{
	const struct prep_ckm_index *in = &w->plan.index;
	json_t *kinds = json_object(), *root;
	uint64_t patched, reference;

	for (unsigned i = 0; i < PREP_CONTENT_KINDS; i++)
		json_object_set_new(kinds, prep_content_name(i), json_pack("{s:I, s:I, s:I, s:I, s:I}",
			"streams", (json_int_t)kind[i].streams, "bytes", (json_int_t)kind[i].bytes,
			"unique", (json_int_t)kind[i].unique, "new", (json_int_t)kind[i].unknown,
			"stored", (json_int_t)w->packed.stored[i]));
	count_patches(in, &patched, &reference);
	root = json_pack("{s:o, s:o*, s:s, s:s, s:b, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:I, s:I, s:I, s:I, s:o}",
		"image", cmd_json_text(cmd_is_stdin(o->image) ? "-" : o->image),
		"package", o->cmd.output != NULL ? cmd_json_text(o->cmd.output) : NULL,
		"name", in->name, "image_version", in->version,
		"dry_run", o->cmd.dry_run, "sealed", w->seal != NULL, "signed", o->sign != NULL,
		"difference", o->difference,
		"disk_size", (json_int_t)in->disk_size, "bytes", (json_int_t)all->bytes,
		"unique", (json_int_t)all->unique, "new", (json_int_t)all->unknown,
		"trimmed", (json_int_t)w->trimmed, "streams", (json_int_t)in->streams,
		"chunks", (int)in->chunks, "frames", (int)in->frames,
		"package_size", (json_int_t)w->packed.package_size, "index_size", (json_int_t)w->packed.index_size,
		"new_offset", (json_int_t)w->packed.new_off, "new_stored", (json_int_t)w->packed.new_len,
		"content", kinds);
	json_object_set_new(root, "patches", json_pack("{s:I, s:I, s:I, s:I, s:I}",
		"frames", (json_int_t)in->patches, "bytes", (json_int_t)patched, "stored", (json_int_t)w->packed.patches_len,
		"references", (json_int_t)in->references, "reference_bytes", (json_int_t)reference));
	cmd_print_json(&o->cmd, root);
}

static void report(const struct opts *o, const struct work *w)
{
	const struct prep_ckm_index *in = &w->plan.index;
	struct totals all, kind[PREP_CONTENT_KINDS];
	FILE *f = cmd_report(&o->cmd);

	count(w, &all, kind);
	if (o->cmd.json) {
		report_json(o, w, &all, kind);
		return;
	}
	if (o->cmd.quiet)
		return;
	fprintf(f, "%s: a disk of %s, %s of data, %s of it distinct", cmd_is_stdin(o->image) ? "standard input" : o->image,
		cmd_size(in->disk_size), cmd_size(all.bytes), cmd_size(all.unique));
	if (w->bases > 0)
		fprintf(f, ", %s of that new", cmd_size(all.unknown));
	if (!o->cmd.dry_run)
		fprintf(f, "; packed to %s (%.1f %%), %s of it the index", cmd_size(w->packed.package_size),
			all.bytes > 0 ? 100.0 * (double)w->packed.package_size / (double)all.bytes : 100.0,
			cmd_size(w->packed.index_size));
	fputc('\n', f);
	fprintf(f, "  %-9s %9s %12s %12s%s\n", "content", "streams", "data", "distinct",
		o->cmd.dry_run ? "" : "       stored");
	for (unsigned i = 0; i < PREP_CONTENT_KINDS; i++) {
		if (kind[i].streams == 0)
			continue;
		fprintf(f, "  %-9s %9" PRIu64 " %12s %12s", prep_content_name(i), kind[i].streams, cmd_size(kind[i].bytes),
			cmd_size(kind[i].unique));
		if (!o->cmd.dry_run)
			fprintf(f, " %12s", cmd_size(w->packed.stored[i]));
		fputc('\n', f);
	}
	if (o->patches != PATCHES_NONE) {
		uint64_t patched, reference;

		count_patches(in, &patched, &reference);
		fprintf(f, "  patches: %s of what is new", cmd_size(patched));
		if (!o->cmd.dry_run)
			fprintf(f, " for %s, %.1f %% of the package", cmd_size(w->packed.patches_len),
				100.0 * (double)w->packed.patches_len / (double)w->packed.package_size);
		fprintf(f, "; in %u frames, made of %s of %s\n", in->patches, cmd_size(reference),
			w->bases == 1 ? w->base[0].name : "the bases");
	}
	if (o->cmd.verbose)
		fprintf(f, "  %u chunks in %u frames\n", in->chunks, in->frames);
}

/* Levels up to this one are zstd's, those above xz's. */
#define FAST_LEVEL 3

static void choose_codec(const struct opts *o, struct prep_pack_how *how)
{
	how->codec = o->codec >= 0 ? (enum prep_codec)o->codec : o->level <= FAST_LEVEL ? PREP_CODEC_ZSTD : PREP_CODEC_XZ;
	how->level = o->level;
}

/* What the bases can give patches for: asked of a plan without bases. */
static int find_patches(struct opts *o, struct work *w, const struct prep_plan_how *how, struct prep_err *err)
{
	struct prep_plan plain;
	int r;

	if (prep_plan_make(&w->survey, how, &plain, err) < 0)
		return -1;
	r = prep_patches_find(&w->survey, &plain, w->base, w->bases, w->pool, &w->patches, &o->cmd.progress, err);
	prep_plan_clear(&plain);
	return r;
}

static int pack(struct opts *o, struct work *w, struct prep_err *err)
{
	struct prep_chunk_table *table[BASES_MAX];
	struct prep_plan_how how = { .difference = o->difference, .patches_only = o->patches == PATCHES_ONLY };

	if (prep_survey_make(w->overlay != NULL ? w->overlay : w->disk, w->pool, &w->survey, &o->cmd.progress, err) < 0)
		return -1;
	cmd_notes(&o->cmd, &w->survey.layout.notes);
	choose_codec(o, &w->how);
	how.frame_size = prep_pack_frame_size(w->how.codec, w->how.level);
	for (unsigned i = 0; i < w->bases; i++)
		table[i] = w->base[i].table;
	how.base = table;
	if (o->patches != PATCHES_NONE && find_patches(o, w, &how, err) < 0)
		return -1;
	how.bases = w->bases;
	how.patched = w->patches.patched;
	if (prep_plan_make(&w->survey, &how, &w->plan, err) < 0 ||
	    (o->patches != PATCHES_NONE &&
	     prep_patches_add(&w->patches, &w->survey, w->base, w->bases, &w->plan, err) < 0) ||
	    describe(o, w, &w->plan.index, err) < 0)
		return -1;
	if (o->cmd.dry_run)
		return 0;
	if (prep_pack(&w->survey, &w->plan, &w->how, w->pool, w->out, w->out_index, &w->packed, &o->cmd.progress,
		      err) < 0 ||
	    check_unchanged(o, w, err) < 0)
		return -1;
	return prep_package_outputs_commit(w->out, w->out_index, err);
}

static void close_work(struct work *w)
{
	prep_plan_clear(&w->plan);
	prep_patches_clear(&w->patches);
	prep_survey_clear(&w->survey);
	prep_pool_close(w->pool);
	for (unsigned i = 0; i < w->bases; i++)
		prep_base_close(&w->base[i]);
	prep_disk_close(w->overlay);
	prep_disk_close(w->disk);
	prep_seal_free(w->seal);
	EVP_PKEY_free(w->how.sign);
	prep_output_close(w->out_index);
	prep_output_close(w->out);
}

/* Before the first file is read, and once the image and the keys are: bases are opened by and by. */
static int confine(struct opts *o, bool opens, struct prep_err *err)
{
	struct prep_sandbox may = { .network = false };

	/* A dry run only tries whether it could be made. */
	if (o->cmd.output != NULL && (opens || !o->cmd.dry_run))
		prep_sandbox_output(&may, o->cmd.output);
	for (unsigned i = 0; i < o->images; i++)
		cmd_may_open(&o->cmd, &may, o->base_image[i]);
	for (unsigned i = 0; i < o->indexes; i++)
		cmd_may_read_package(&may, o->base[i]);
	prep_sandbox_read(&may, o->base_access.key_file);
	prep_sandbox_read(&may, o->base_access.passphrase_file);
	if (opens) {
		cmd_may_open(&o->cmd, &may, o->image);
		for (unsigned i = 0; i < o->recipients; i++)
			prep_sandbox_read(&may, o->recipient[i]);
		prep_sandbox_read(&may, o->sign);
		prep_sandbox_read(&may, o->passphrase_file);
	}
	return cmd_confine(&o->cmd, &may, err);
}

static int run(struct opts *o, struct prep_err *err)
{
	struct work w = { .pool = NULL };
	int r = -1;

	if (confine(o, true, err) == 0 && open_outputs(o, &w, err) == 0 && open_keys(o, &w, err) == 0 &&
	    cmd_open_image(&o->cmd, o->image, 0, &w.disk, err) == 0 && confine(o, false, err) == 0) {
		look_at_image(o, &w.before);
		if (prep_pool_open(o->jobs, &w.pool, err) == 0 && open_bases(o, &w, err) == 0 &&
		    (!o->trim || trim(o, &w, err) == 0))
			r = pack(o, &w, err);
	}
	if (r == 0)
		report(o, &w);
	close_work(&w);
	prep_key_ring_clear(&o->base_ring);
	return r;
}

int main(int argc, char **argv)
{
	struct prep_err err = PREP_ERR_INIT;
	struct opts o = { .codec = -1, .level = 6 };

	parse(&o, argc, argv);
	run(&o, &err);
	return cmd_finish(&o.cmd, &err);
}
