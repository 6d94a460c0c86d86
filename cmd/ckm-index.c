/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ckm-index: show, make and compare indexes. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/trim.h"
#include "libprep/base/file.h"
#include "libprep/ckm/section.h"
#include "libprep/disk/disk.h"
#include "libprep/trim/local_index.h"

static const char usage[] =
"Usage: ckm-index [OPTION]... -o OUT.index PACKAGE\n"
"       ckm-index [OPTION]... -o LOCAL.index [IMAGE|DIR]...\n"
"       ckm-index [OPTION]... --compare NEW OLD...\n"
"       ckm-index [OPTION]... --list PACKAGE\n"
"Extract the index of a package; make or refresh the index of images and\n"
"folders; tell what a transfer of NEW would cost who has OLD; list the files of\n"
"a package and what they cost.\n"
"\n"
"  -o, --output FILE      the index; a local one that exists is refreshed: only\n"
"                         what has changed is hashed\n"
"      --client-settings XML  index the folders that are listed in a\n"
"                         ClientSettings.xml of MED-V,\n"
"      --root DIR         below DIR\n"
CMD_USAGE_PARENT
"      --compare          NEW is a package or its index; OLD too, or an image, a\n"
"                         folder or a local index\n"
"      --cache DIR        keep the indexes of OLD folders and images in DIR\n"
"                         (default: $XDG_CACHE_HOME/prep, else ~/.cache/prep)\n"
"      --no-cache         keep none\n"
"      --list             PACKAGE is a package or its index\n"
"      --key KEY          private key (PEM) that opens a sealed package\n"
"      --passphrase-file FILE  the passphrase, in the first line of FILE\n"
"                         ('-': ask on the terminal)\n"
"      --verify-with KEY  public key (PEM) that must have signed the package\n"
"  -J, --jobs N           threads (default: as many as there are processors)\n"
"  -n, --dry-run          write nothing\n"
"  -f, --force            overwrite an existing FILE that is no local index\n"
"  -j, --json             report as JSON\n"
"  -p, --progress         show progress although standard error is no terminal\n"
"  -q, --quiet            no report, no progress, no warnings\n"
"  -v, --verbose          report more\n"
"      --tmpdir DIR       accepted, not used\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
"Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 damaged input.\n";

enum { OPT_COMPARE = CMD_OPT_OWN, OPT_LIST };

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	TRIM_LONG_READ,
	TRIM_LONG_SETTINGS,
	{ "cache", required_argument, NULL, TRIM_OPT_CACHE },
	{ "no-cache", no_argument, NULL, TRIM_OPT_NO_CACHE },
	{ "dry-run", no_argument, NULL, 'n' },
	{ "force", no_argument, NULL, 'f' },
	{ "output", required_argument, NULL, 'o' },
	{ "compare", no_argument, NULL, OPT_COMPARE },
	{ "list", no_argument, NULL, OPT_LIST },
	{ NULL, 0, NULL, 0 },
};

struct opts {
	struct cmd cmd;
	struct trim trim;
	bool compare, list;
	char **operand;
	int operands;
};

static void parse(struct opts *o, int argc, char **argv)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON TRIM_SHORT_READ "nfo:", longopts, NULL)) != -1) {
		switch (c) {
		case OPT_COMPARE:
			o->compare = true;
			break;
		case OPT_LIST:
			o->list = true;
			break;
		default:
			trim_option(&o->cmd, &o->trim, c);
		}
	}
	o->operand = argv + optind;
	o->operands = argc - optind;
	trim_check(&o->cmd, &o->trim);
	if (o->compare && o->list)
		cmd_usage(&o->cmd, "--compare and --list exclude each other");
	if ((o->compare || o->list) && o->cmd.output != NULL)
		cmd_usage(&o->cmd, "--compare and --list write no index");
	if (o->list && o->operands != 1)
		cmd_usage(&o->cmd, "--list: one package");
	if (o->compare && o->operands < 1)
		cmd_usage(&o->cmd, "--compare: a package, and what is there already");
	if (!o->compare && !o->list && o->cmd.output == NULL && !o->cmd.dry_run)
		cmd_usage(&o->cmd, "where to? -o FILE");
	if (!o->compare && !o->list && o->operands == 0 && o->trim.client_settings == NULL && o->cmd.output == NULL)
		cmd_usage(&o->cmd, "nothing to index");
	/* No image goes to standard output: the report does. */
	o->cmd.in_place = o->compare || o->list;
}

/* Whether a file begins as a package, or its index, does: 1, 0, -1. What cannot be opened is for others to tell. */
static int is_package(const char *path, struct prep_err *err)
{
	/* Not to wait for a pipe's writer. */
	const int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	uint8_t magic[8];
	struct stat st;
	int r = 0;

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= (off_t)sizeof magic)
		r = prep_file_pread(fd, magic, sizeof magic, 0, path, err) < 0 ? -1
			: prep_ckm_is_package(magic) || prep_ckm_is_section(magic);
	close(fd);
	return r;
}

/* ---- Of a package ---- */

static int extract(struct opts *o, struct prep_err *err)
{
	const char *path = o->operand[0];
	struct prep_output *out = NULL;
	struct prep_ckm *p = NULL;
	int r = -1;

	/* What is sealed stays so: no key is needed. */
	o->trim.access.outer_only = true;
	if (cmd_open_output(&o->cmd, o->cmd.output, o->cmd.force, path, &out, err) == 0 &&
	    prep_ckm_open(path, &o->trim.access, &p, err) == 0) {
		const struct prep_ckm_info *info = prep_ckm_info(p);

		r = out == NULL ? 0 : prep_output_write(out, prep_ckm_section(p), (size_t)info->section_len, err);
		if (r == 0 && out != NULL)
			r = prep_output_commit(out, err);
		if (r == 0 && o->cmd.json)
			cmd_print_json(&o->cmd, json_pack("{s:o, s:I, s:b, s:b, s:b}",
				"package", cmd_json_text(path), "index_size", (json_int_t)info->section_len,
				"sealed", info->sealed, "signed", info->is_signed, "verified", info->verified));
		else if (r == 0 && !o->cmd.quiet)
			fprintf(cmd_report(&o->cmd), "%s: an index of %s%s%s\n", path, cmd_size(info->section_len),
				info->sealed ? ", sealed" : "", info->is_signed ? ", signed" : "");
	}
	prep_ckm_close(p);
	prep_output_close(out);
	return r;
}

/* What each stream costs: its share of the stored bytes of the frames that its chunks are in. */
static double *find_shares(const struct prep_ckm_index *in, struct prep_err *err)
{
	uint32_t *users = calloc((size_t)in->chunks + 1, sizeof *users);
	double *share = calloc((size_t)in->streams + 1, sizeof *share);

	if (users == NULL || share == NULL) {
		prep_fail_nomem(err);
		free(share);
		free(users);
		return NULL;
	}
	for (uint32_t i = 0; i < in->refs; i++)
		users[in->ref[i]]++;
	for (uint32_t i = 0; i < in->streams; i++) {
		const struct prep_stream *s = &in->stream[i];

		for (uint32_t k = s->first_ref; k < s->first_ref + s->refs; k++) {
			const struct prep_chunk *c = &in->chunk[in->ref[k]];
			const struct prep_frame *f = &in->frame[c->frame];

			share[i] += (double)f->stored * c->size / f->size / users[in->ref[k]];
		}
	}
	free(users);
	return share;
}

static void list_streams(const struct opts *o, const struct prep_ckm_index *in, const double *share)
{
	FILE *f = stdout;
	json_t *files = json_array();

	if (!o->cmd.json)
		fprintf(f, "%12s %12s %3s %-8s %s\n", "stored", "size", "vol", "content", "path");
	for (uint32_t i = 0; i < in->streams; i++) {
		const struct prep_stream *s = &in->stream[i];

		if (o->cmd.json) {
			json_array_append_new(files, json_pack("{s:o, s:i, s:s, s:I, s:I}",
				"path", cmd_json_text(s->path), "volume", s->volume,
				"content", prep_content_name(s->content), "size", (json_int_t)s->size,
				"stored", (json_int_t)(share[i] + 0.5)));
			continue;
		}
		fprintf(f, "%12.0f %12" PRIu64 " %3u %-8s ", share[i], s->size, s->volume,
			prep_content_name(s->content));
		cmd_print_text(f, s->path[0] != '\0' ? s->path : "-");
		fputc('\n', f);
	}
	if (o->cmd.json) {
		cmd_print_json(&o->cmd, json_pack("{s:o, s:s, s:s, s:s, s:I, s:o}",
			"package", cmd_json_text(o->operand[0]), "name", in->name, "image_version", in->version,
			"comment", in->comment, "disk_size", (json_int_t)in->disk_size, "files", files));
	} else {
		json_decref(files);
	}
}

static int list(struct opts *o, struct prep_err *err)
{
	struct prep_ckm *p;
	double *share;

	if (prep_ckm_open(o->operand[0], &o->trim.access, &p, err) < 0)
		return -1;
	share = find_shares(prep_ckm_index(p), err);
	if (share != NULL)
		list_streams(o, prep_ckm_index(p), share);
	free(share);
	prep_ckm_close(p);
	return share != NULL ? 0 : -1;
}

/* ---- A transfer ---- */

static int report_transfer(const struct opts *o, const struct prep_ckm *p, const struct prep_supply *supply,
			   struct prep_err *err)
{
	const struct prep_ckm_index *in = prep_ckm_index(p);
	const uint64_t index_size = prep_ckm_info(p)->section_len;
	struct prep_supply_range *range;
	uint64_t bytes = 0;
	uint32_t n;

	if (prep_supply_ranges(supply, NULL, PREP_RANGE_GAP, UINT64_MAX, &range, &n, err) < 0)
		return -1;
	for (uint32_t i = 0; i < n; i++)
		bytes += range[i].len;
	free(range);
	if (o->cmd.json) {
		cmd_print_json(&o->cmd, json_pack(
			"{s:o, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
			"package", cmd_json_text(o->operand[0]), "name", in->name, "image_version", in->version,
			"disk_size", (json_int_t)in->disk_size,
			"package_size", (json_int_t)prep_ckm_info(p)->package_size, "index_size", (json_int_t)index_size,
			"chunks", (json_int_t)in->chunks, "wanted_bytes", (json_int_t)supply->wanted_bytes,
			"found_chunks", (json_int_t)supply->found_chunks,
			"found_bytes", (json_int_t)supply->found_bytes,
			"missing_chunks", (json_int_t)supply->nowhere_chunks,
			"missing_bytes", (json_int_t)supply->nowhere_bytes,
			"frames", (json_int_t)supply->frames, "ranges", (json_int_t)n,
			"patches", (json_int_t)supply->patches, "patch_bytes", (json_int_t)supply->patch_bytes,
			"fetch_bytes", (json_int_t)bytes, "sources", trim_origins_json(supply)));
		return 0;
	}
	if (o->cmd.quiet)
		return 0;
	printf("%s: a disk of %s, %s of distinct data in %u chunks\n", o->operand[0], cmd_size(in->disk_size),
	       cmd_size(supply->wanted_bytes), in->chunks);
	trim_print_origins(stdout, supply);
	printf("  found: %s in %" PRIu64 " chunks\n", cmd_size(supply->found_bytes), supply->found_chunks);
	if (supply->nowhere_chunks > 0)
		printf("  missing: %s in %" PRIu64 " chunks, which this difference package leaves to its base\n",
		       cmd_size(supply->nowhere_bytes), supply->nowhere_chunks);
	printf("  to fetch: %s of %s in %u range%s (%u of %u frames), and the index, %s\n", cmd_size(bytes),
	       cmd_size(prep_ckm_info(p)->package_size), n, n == 1 ? "" : "s", supply->frames, in->frames,
	       cmd_size(index_size));
	trim_print_patches(stdout, supply);
	return 0;
}

static int compare(struct opts *o, struct prep_err *err)
{
	struct prep_supply supply = { .index = NULL };
	struct prep_ckm *p;
	int r;

	if (prep_ckm_open(o->operand[0], &o->trim.access, &p, err) < 0)
		return -1;
	/* Signatures are for what is unpacked; what is there is checked chunk by chunk. */
	o->trim.access.verify_with = NULL;
	if (prep_supply_new(prep_ckm_index(p), &supply, err) == 0 &&
	    trim_open(&o->cmd, &o->trim, true, &supply, err) == 0 && prep_supply_make(&supply, err) == 0)
		r = report_transfer(o, p, &supply, err);
	else
		r = -1;
	prep_supply_clear(&supply);
	prep_ckm_close(p);
	return r;
}

/* ---- A local index ---- */

struct local {
	struct prep_catalog known;      /* what FILE has had so far */
	bool refresh;                   /* it is a local index */
	struct prep_catalog catalog;
	struct prep_scan_report *report; /* of each origin */
};

/* Read what is there. */
static int open_local(struct opts *o, struct local *l, struct prep_err *err)
{
	struct prep_err why = PREP_ERR_INIT;

	if (o->cmd.output == NULL || access(o->cmd.output, F_OK) != 0)
		return 0;
	for (int i = 0; i < o->operands; i++)
		if (cmd_same_file(o->operand[i], o->cmd.output))
			return prep_fail(err, PREP_EUSAGE, "%s: input and output are the same file", o->cmd.output);
	if (prep_local_index_read(o->cmd.output, &l->known, &why) == 0) {
		l->refresh = true;
		return 0;
	}
	/* Damaged: it is one, and is made anew, where it is said of what. */
	if (why.code == PREP_EDAMAGED) {
		l->refresh = o->operands > 0 || o->trim.client_settings != NULL;
		if (!l->refresh)
			return prep_fail(err, why.code, "%s: name what it is to list, and it is made anew", why.msg);
		if (!o->cmd.quiet)
			cmd_warn(&o->cmd, "warning: %s (made anew)", why.msg);
		return 0;
	}
	if (o->cmd.force)
		return prep_disk_check_replaced(o->cmd.output, err);
	return prep_fail(err, PREP_EREFUSED, "%s: the file exists, and is no local index (-f overwrites it)", o->cmd.output);
}

static int scan_one(struct opts *o, struct local *l, const char *path, struct prep_err *err)
{
	const struct prep_scan_how how = {
		.known = &l->known, .jobs = o->trim.jobs, .parents = &o->cmd.parents,
	};
	struct prep_scan_report *report = &l->report[l->catalog.origins];
	struct stat st;
	int package;

	package = is_package(path, err);
	if (package != 0)
		return package < 0 ? -1 : prep_fail(err, PREP_EUSAGE, "%s: a package: extract its index alone", path);
	if (stat(path, &st) != 0)
		return prep_fail_errno(err, "%s: cannot open", path);
	return S_ISDIR(st.st_mode)
		       ? prep_catalog_scan_folder(&l->catalog, path, &how, report, &o->cmd.progress, err)
		       : prep_catalog_scan_image(&l->catalog, path, &how, report, &o->cmd.progress, err);
}

/* What is to be indexed: the operands and the settings' folders, or all that the index has. */
static int scan(struct opts *o, struct local *l, struct prep_err *err)
{
	struct prep_folder_list path;
	int r;

	if (trim_folders(&o->cmd, &o->trim, &path, err) < 0)
		return -1;
	r = 0;
	for (int i = 0; i < o->operands && r == 0; i++)
		r = prep_folder_list_add(&path, o->operand[i], err);
	for (uint32_t i = 0; o->operands == 0 && o->trim.client_settings == NULL && i < l->known.origins && r == 0; i++)
		r = prep_folder_list_add(&path, l->known.origin[i].path, err);
	if (r == 0 && path.n == 0)
		r = prep_fail(err, PREP_EUSAGE, "nothing to index");
	l->report = calloc(path.n + 1, sizeof *l->report);
	if (l->report == NULL)
		r = prep_fail_nomem(err);
	for (size_t i = 0; i < path.n && r == 0; i++)
		r = scan_one(o, l, path.path[i], err);
	prep_folder_list_clear(&path);
	return r;
}

static void report_local(const struct opts *o, const struct local *l)
{
	json_t *sources = json_array();
	FILE *f = cmd_report(&o->cmd);

	for (uint32_t i = 0; i < l->catalog.origins; i++) {
		const struct prep_origin *origin = &l->catalog.origin[i];
		const struct prep_scan_report *r = &l->report[i];
		const bool image = origin->kind == PREP_ORIGIN_IMAGE;

		if (o->cmd.json) {
			json_array_append_new(sources, json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I}",
				"path", cmd_json_text(origin->path), "kind", image ? "image" : "folder",
				"files", (json_int_t)r->files, "bytes", (json_int_t)r->bytes,
				"hashed_files", (json_int_t)r->hashed_files, "hashed_bytes", (json_int_t)r->hashed_bytes,
				"skipped", (json_int_t)r->skipped,
				"chunk_bytes", (json_int_t)prep_catalog_bytes(&l->catalog, origin)));
			continue;
		}
		if (o->cmd.quiet)
			continue;
		cmd_print_text(f, origin->path);
		fputs(": ", f);
		if (image)
			fprintf(f, "a disk of %s, %s", cmd_size(r->bytes), r->hashed_files > 0 ? "hashed" : "not changed");
		else
			fprintf(f, "%" PRIu64 " files, %s; %" PRIu64 " of them hashed (%s), %" PRIu64 " not changed", r->files,
				cmd_size(r->bytes), r->hashed_files, cmd_size(r->hashed_bytes), r->files - r->hashed_files);
		if (r->skipped > 0)
			fprintf(f, ", %" PRIu64 " left out", r->skipped);
		fputc('\n', f);
	}
	if (o->cmd.json) {
		cmd_print_json(&o->cmd, json_pack("{s:o*, s:b, s:b, s:I, s:o}",
			"index", o->cmd.output != NULL ? cmd_json_text(o->cmd.output) : NULL,
			"dry_run", o->cmd.dry_run, "refreshed", l->refresh, "chunks", (json_int_t)l->catalog.chunks,
			"sources", sources));
	} else {
		json_decref(sources);
		if (!o->cmd.quiet && o->cmd.verbose > 0)
			fprintf(f, "%u chunks\n", l->catalog.chunks);
	}
}

static int make_local(struct opts *o, struct prep_err *err)
{
	struct local l = { .refresh = false };
	int r = -1;

	if (o->cmd.output != NULL && strcmp(o->cmd.output, "-") == 0)
		return prep_fail(err, PREP_EUSAGE, "a local index goes to a file, where it can be refreshed");
	if (open_local(o, &l, err) == 0 && scan(o, &l, err) == 0)
		r = o->cmd.dry_run ? 0
				   : prep_local_index_write(&l.catalog, o->cmd.output, l.refresh || o->cmd.force, err);
	if (o->cmd.verbose > 0)
		cmd_notes(&o->cmd, &l.catalog.notes);
	if (r == 0)
		report_local(o, &l);
	free(l.report);
	prep_catalog_clear(&l.catalog);
	prep_catalog_clear(&l.known);
	return r;
}

static int confine(struct opts *o, struct prep_err *err)
{
	struct prep_sandbox may = { .network = false };

	if (o->cmd.output != NULL)
		prep_sandbox_output(&may, o->cmd.output);
	/* Of those that are compared all but the first are seeds. */
	for (int i = 0; i < (o->compare ? 1 : o->operands); i++)
		trim_may_open(&o->cmd, &may, o->operand[i]);
	/* What is there is read again, and names what is to be indexed. */
	prep_sandbox_read(&may, o->cmd.output);
	may.read_all |= o->operands == 0;
	return trim_confine(&o->cmd, &o->trim, &may, err);
}

static int run(struct opts *o, struct prep_err *err)
{
	int package = 0;

	for (int i = 1; i < o->operands && o->compare; i++)
		if (trim_add_seed(&o->trim, o->operand[i], false, err) < 0)
			return -1;
	if (confine(o, err) < 0)
		return -1;
	if (o->list)
		return list(o, err);
	if (o->compare)
		return compare(o, err);
	if (o->operands == 1 && o->trim.client_settings == NULL)
		package = is_package(o->operand[0], err);
	if (package < 0)
		return -1;
	return package > 0 ? extract(o, err) : make_local(o, err);
}

int main(int argc, char **argv)
{
	struct prep_err err = PREP_ERR_INIT;
	struct opts o = { .trim = { .format = -1 } };

	parse(&o, argc, argv);
	run(&o, &err);
	trim_close(&o.trim);
	return cmd_finish(&o.cmd, &err);
}
