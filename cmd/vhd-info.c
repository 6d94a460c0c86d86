/* SPDX-License-Identifier: GPL-3.0-or-later */
/* vhd-info: what a disk image is, what it holds, and what the other commands would gain. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cmd/cmd.h"
#include "cmd/map.h"
#include "libprep/disk/undo_mark.h"
#include "libprep/disk/vhdx.h"
#include "libprep/prep/inspect.h"

static const char usage[] =
"Usage: vhd-info [OPTION]... IMAGE...\n"
"Tell what each disk image is and holds, and what vhd-rmfile, vhd-zerofree and\n"
"vhd-compact would gain on it. IMAGE is a VHD, VHDX or raw disk, '-' standard\n"
"input.\n"
"\n"
"      --check            check the file systems: every cluster, record and name;\n"
"                         exit status 4 when damage is found\n"
"      --quick            read no file data and no free space: leave out what\n"
"                         only that tells\n"
"      --map              draw the disk, one cell for each block\n"
"      --svg FILE         draw it into FILE as an SVG picture\n"
CMD_USAGE_PARENT
"  -f, --force            overwrite an existing FILE\n"
"  -j, --json             report as JSON: an array where there are several images\n"
"  -p, --progress         show progress although standard error is no terminal\n"
"  -q, --quiet            no warnings, no progress\n"
"  -v, --verbose          name the identifiers and types of everything\n"
"      --tmpdir DIR       for what must be kept of a pipe (default: $TMPDIR,\n"
"                         else /var/tmp)\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
"Exit status: 0 done, 1 failed, 2 wrong usage, 3 not an image, 4 damage found.\n";

enum { OPT_CHECK = CMD_OPT_OWN, OPT_QUICK, OPT_MAP, OPT_SVG };

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	CMD_LONG_PARENT,
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "quick", no_argument, NULL, OPT_QUICK },
	{ "map", no_argument, NULL, OPT_MAP },
	{ "svg", required_argument, NULL, OPT_SVG },
	{ "force", no_argument, NULL, 'f' },
	{ NULL, 0, NULL, 0 },
};

struct opts {
	struct cmd cmd;
	char **image;
	int images;
	bool check, quick, map;
	struct prep_output *svg; /* NULL: none. cmd.output is its name */
	json_t *all; /* with --json: the reports */
};

/* All that is known of one image. */
struct image {
	const char *path;
	bool piped;                      /* path is no path */
	struct prep_disk *disk;
	const struct prep_vhd_info *vhd; /* NULL: a VHDX, or raw */
	const struct prep_vhdx_info *vhdx; /* NULL: a VHD, or raw */
	uint64_t own;                    /* of a differencing VHD: bytes that it holds itself */
	struct prep_undo_mark undo;      /* path NULL: no undo disk stands on it */
	uint64_t file_size, allocated;   /* of the host's file; 0 where there is none */
	uint32_t partial, hidden;        /* blocks whose sector bitmap has clear bits; over data */
	struct prep_inspect in;
};

static void parse(struct opts *o, int argc, char **argv)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON "f", longopts, NULL)) != -1) {
		switch (c) {
		case OPT_CHECK:
			o->check = true;
			break;
		case OPT_QUICK:
			o->quick = true;
			break;
		case OPT_MAP:
			o->map = true;
			break;
		case OPT_SVG:
			o->cmd.output = optarg;
			break;
		default:
			cmd_option(&o->cmd, c);
		}
	}
	/* The report is what standard output is for, whatever else is asked. */
	o->cmd.dry_run = o->cmd.output == NULL;
	if (optind == argc)
		cmd_usage(&o->cmd, "no image named ('-' is standard input)");
	if (o->cmd.output != NULL && argc - optind > 1)
		cmd_usage(&o->cmd, "--svg draws one image");
	if (o->cmd.output != NULL && strcmp(o->cmd.output, "-") == 0)
		cmd_usage(&o->cmd, "--svg needs a file: standard output carries the report");
	if (o->quick && (o->map || o->cmd.output != NULL))
		cmd_usage(&o->cmd, "--quick leaves out what --map and --svg draw");
}

/* A GUID as it is written: the first three fields are little-endian in GPT, big-endian in VHD. */
static const char *guid(const uint8_t *id, bool little, char text[37])
{
	static const uint8_t le[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
	char *p = text;

	for (unsigned i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += sprintf(p, "%02x", id[little ? le[i] : i]);
	}
	return text;
}

/* Four characters of the file, with what cannot be printed as dots and no padding at the end. */
static const char *tag(const char raw[4], char text[5])
{
	int n = 4;

	while (n > 0 && (raw[n - 1] == ' ' || raw[n - 1] == '\0'))
		n--;
	for (int i = 0; i < n; i++)
		text[i] = raw[i] > ' ' && raw[i] < 127 ? raw[i] : '.';
	text[n] = '\0';
	return text;
}

static const char *time_text(uint32_t stamp, char text[24])
{
	const time_t t = (time_t)stamp + PREP_VHD_EPOCH;
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(text, 24, "%Y-%m-%dT%H:%M:%SZ", &tm);
	return text;
}

static const char *scheme_name(enum prep_table_scheme s)
{
	return s == PREP_TABLE_GPT ? "GPT" : s == PREP_TABLE_MBR ? "MBR" : "none";
}

/* Blocks that a compacted VHD would hold: now, and after vhd-zerofree. */
static uint64_t blocks_compact(const struct prep_inspect *in)
{
	return in->count[PREP_BLOCK_FREE] + in->count[PREP_BLOCK_PARTLY] + in->count[PREP_BLOCK_FULL];
}

static uint64_t blocks_zerofree(const struct prep_inspect *in)
{
	return in->count[PREP_BLOCK_PARTLY] + in->count[PREP_BLOCK_FULL];
}

/* What a disk is, in words. */
static const char *format_name(const struct prep_disk *d)
{
	const struct prep_vhd_info *vhd = prep_vhd_disk_info(d);
	const struct prep_vhdx_info *vhdx = prep_vhdx_disk_info(d);

	if (vhd != NULL)
		return d->differencing ? "differencing VHD" : vhd->footer.type == PREP_VHD_FIXED ? "fixed VHD"
												   : "dynamic VHD";
	if (vhdx != NULL)
		return d->differencing ? "differencing VHDX" : vhdx->fixed ? "fixed VHDX" : "dynamic VHDX";
	return "raw disk";
}

static void print_blocks(const struct image *im, uint64_t allocated, uint64_t block_size)
{
	printf("  blocks:      %" PRIu64 " of %" PRIu64 " allocated, %s each", allocated,
	       (im->disk->size + block_size - 1) / block_size, cmd_size(block_size));
	if (im->own > 0)
		printf("; %s its own", cmd_size(im->own));
	putchar('\n');
}

static void print_parents(const struct opts *o, const struct image *im)
{
	uint8_t raw[16];
	char id[37];

	for (const struct prep_disk *p = im->disk->parent; p != NULL; p = p->parent) {
		fputs(p == im->disk->parent ? "  parent:      " : "               ", stdout);
		cmd_print_text(stdout, p->name);
		printf(", %s", format_name(p));
		if (o->cmd.verbose && prep_disk_id(p, raw))
			printf(", id %s", guid(raw, false, id));
		putchar('\n');
	}
	if (im->undo.path != NULL) {
		fputs("  undo disk:   ", stdout);
		cmd_print_text(stdout, im->undo.path);
		putchar('\n');
	}
}

static void print_vhdx(const struct opts *o, const struct image *im)
{
	const struct prep_vhdx_info *x = im->vhdx;
	char id[37];

	print_blocks(im, x->blocks_allocated, x->block_size);
	if (o->cmd.verbose || im->disk->sector_size != 512)
		printf("  sectors:     %u bytes, physical %u\n", im->disk->sector_size, x->physical_sector_size);
	printf("  id:          %s\n", guid(x->id, false, id));
	if (o->cmd.verbose)
		printf("  disk id:     %s\n", guid(x->disk_id, false, id));
	fputs("  creator:     ", stdout);
	cmd_print_text(stdout, x->creator);
	putchar('\n');
}

static void print_format(const struct opts *o, const struct image *im)
{
	const struct prep_vhd_footer *f;
	char id[37], creator[5], host[5], when[24];

	printf("%s: %s\n", im->path, format_name(im->disk));
	printf("  size:        %s (%" PRIu64 " bytes)\n", cmd_size(im->disk->size), im->disk->size);
	if (im->file_size != 0)
		printf("  file:        %s, %s on the host\n", cmd_size(im->file_size), cmd_size(im->allocated));
	print_parents(o, im);
	if (im->vhdx != NULL)
		print_vhdx(o, im);
	if (im->vhd == NULL)
		return;
	f = &im->vhd->footer;
	if (f->type != PREP_VHD_FIXED)
		print_blocks(im, im->vhd->blocks_allocated, im->vhd->header.block_size);
	printf("  id:          %s\n", guid(f->id, false, id));
	printf("  creator:     %s %u.%u on %s, %s\n", tag(f->creator, creator), f->creator_version >> 16,
	       f->creator_version & 0xFFFF, tag(f->host_os, host), time_text(f->time_stamp, when));
	if (o->cmd.verbose || prep_vhd_geometry_size(f) != f->current_size)
		printf("  geometry:    %u/%u/%u, %" PRIu64 " bytes%s\n", f->cylinders, f->heads, f->sectors,
		       prep_vhd_geometry_size(f),
		       prep_vhd_geometry_size(f) != f->current_size ? " (not the disk's size)" : "");
	if (o->cmd.verbose || f->original_size != f->current_size)
		printf("  original:    %" PRIu64 " bytes%s\n", f->original_size,
		       f->original_size != f->current_size ? " (resized since)" : "");
	if (f->saved_state == 1)
		printf("  state:       saved: belongs to a suspended virtual machine\n");
	if (im->partial > 0)
		printf("  bitmaps:     %u blocks have sectors marked unused%s\n", im->partial,
		       im->hidden > 0 ? ", some over data: readers differ, they are read as zeros here" : "");
}

static void print_presets(const struct prep_inspect_volume *v)
{
	bool any = false;

	for (size_t i = 0; i < prep_preset_count; i++) {
		if (v->preset[i].files == 0)
			continue;
		printf("%s%s %s (%" PRIu64 ")", any ? ", " : "    removable:   ", prep_presets[i].name,
		       cmd_size(v->preset[i].bytes), v->preset[i].files);
		any = true;
	}
	if (any)
		putchar('\n');
}

static void print_audit(const struct prep_fs_audit *a)
{
	const struct { const char *what; uint64_t n; } row[] = {
		{ "clusters claimed more than once", a->crosslinked },
		{ "clusters claimed outside the volume", a->outside },
		{ "clusters claimed but marked free", a->claimed_free },
		{ "clusters marked used but claimed by nobody", a->used_unclaimed },
		{ "differences between copies of the FAT or boot sector", a->copies },
		{ "records that cannot be read", a->unreadable },
		{ "records whose bitmap bit is wrong", a->record_bitmap },
		{ "directory entries that lead nowhere", a->dangling },
		{ "names that no directory holds", a->orphans },
		{ "wrong link counts", a->link_counts },
		{ "files whose size and clusters contradict each other", a->sizes },
	};

	printf("    check:       %" PRIu64 " records, %" PRIu64 " files, %" PRIu64 " folders, %" PRIu64
	       " clusters in use: %s\n", a->records, a->files, a->folders, a->used,
	       prep_fs_audit_clusters_sound(a) && prep_fs_audit_records_sound(a) ? "sound" : "DAMAGED");
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
		if (row[i].n > 0)
			printf("                 %" PRIu64 " %s\n", row[i].n, row[i].what);
	for (size_t i = 0; i < a->problems.n; i++)
		printf("                 %s\n", a->problems.text[i]);
}

static void print_volume(const struct opts *o, const struct prep_inspect *in,
			 const struct prep_inspect_volume *v)
{
	const struct prep_partition *p = v->volume->part;
	char id[37];

	printf("  volume %u:    %s%s", p->number,
	       v->volume->kind == PREP_FS_UNKNOWN ? prep_partition_type_name(&in->volumes->table, p)
						  : prep_fs_kind_name(v->volume->kind),
	       v->opened && v->volume->kind == PREP_FS_FAT ? v->info.version : "");
	if (v->opened && v->info.label[0] != '\0') {
		fputs(" \"", stdout);
		cmd_print_text(stdout, v->info.label);
		putchar('"');
	}
	printf(", %s at %" PRIu64, cmd_size(p->len), p->off);
	if (p->active)
		fputs(", active", stdout);
	putchar('\n');
	if (o->cmd.verbose && in->volumes->table.scheme == PREP_TABLE_GPT) {
		printf("    type:        %s\n", guid(p->gpt_type, true, id));
		printf("    id:          %s\n", guid(p->gpt_id, true, id));
	}
	if (v->opened) {
		const struct prep_fs_audit *a = &v->audit;

		printf("    used:        %s of %s (clusters of %s), free %s", cmd_size(v->used),
		       cmd_size(v->info.clusters * v->info.cluster_size), cmd_size(v->info.cluster_size),
		       cmd_size(v->free));
		if (!o->quick)
			printf(", not zero %s", cmd_size(v->free_nonzero));
		putchar('\n');
		printf("    fragmented:  %" PRIu64 " of %" PRIu64 " files, %.2f fragments each\n", a->fragmented,
		       a->streams, a->streams > 0 ? (double)a->fragments / (double)a->streams : 0.0);
		if (v->planned)
			printf("    defragment:  %" PRIu64 " blocks in use, %" PRIu64 " after vhd-defrag, which moves %s\n",
			       v->defrag.blocks_before, v->defrag.blocks_after, cmd_size(v->defrag.moved));
		print_presets(v);
		if (v->info.obstacles != 0)
			printf("    state:       %s\n", v->info.obstacle_text);
		if (o->check)
			print_audit(a);
	}
	if (v->problem[0] != '\0' && !(o->check && v->opened))
		printf("    problem:     %s\n", v->problem);
}

static void print(const struct opts *o, const struct image *im)
{
	const struct prep_inspect *in = &im->in;

	print_format(o, im);
	printf("  table:       %s\n", scheme_name(in->volumes->table.scheme));
	if (in->volumes->table.refusal[0] != '\0')
		printf("  refused:     %s\n", in->volumes->table.refusal);
	for (unsigned i = 0; i < in->volumes->n; i++)
		print_volume(o, in, &in->volume[i]);
	if (!o->quick)
		printf("  compaction:  %" PRIu64 " blocks of %s remain, %" PRIu64 " (%s) after vhd-zerofree\n",
		       blocks_compact(in), cmd_size(in->block_size), blocks_zerofree(in),
		       cmd_size(blocks_zerofree(in) * in->block_size));
	if (o->map)
		map_print(in);
}

static json_t *int_or_null(bool known, uint64_t n)
{
	return known ? json_integer((json_int_t)n) : json_null();
}

/* The paths by which a differencing disk names its parent. */
static json_t *names_json(const struct prep_parent_ref *ref)
{
	json_t *a = json_array();

	for (size_t i = 0; i < ref->n; i++)
		json_array_append_new(a, cmd_json_text(ref->name[i]));
	return a;
}

static json_t *vhdx_json(const struct image *im)
{
	const struct prep_vhdx_info *x = im->vhdx;
	char id[37], disk_id[37];
	json_t *j;

	if (x == NULL)
		return json_null();
	j = json_pack("{s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:I, s:I}", "id", guid(x->id, false, id), "disk_id",
		      guid(x->disk_id, false, disk_id), "creator", x->creator, "fixed", x->fixed, "differencing",
		      im->disk->differencing, "block_size", (json_int_t)x->block_size, "blocks_allocated",
		      (json_int_t)x->blocks_allocated, "sector_size", (json_int_t)im->disk->sector_size,
		      "physical_sector_size", (json_int_t)x->physical_sector_size);
	if (im->disk->differencing) {
		json_object_set_new(j, "parent_id", json_string(guid(x->parent.id, false, id)));
		json_object_set_new(j, "parent_names", names_json(&x->parent));
	}
	return j;
}

/* The disks behind a differencing one, nearest first. */
static json_t *parents_json(const struct image *im)
{
	json_t *a = json_array();
	uint8_t raw[16];
	char id[37];

	for (const struct prep_disk *p = im->disk->parent; p != NULL; p = p->parent)
		json_array_append_new(a, json_pack("{s:o, s:s, s:s}", "path", cmd_json_text(p->name), "id",
			prep_disk_id(p, raw) ? guid(raw, false, id) : "", "kind", p->ops->kind));
	return a;
}

static json_t *vhd_json(const struct image *im)
{
	const struct prep_vhd_footer *f;
	char id[37], creator[5], host[5], when[24];
	json_t *j;

	if (im->vhd == NULL)
		return json_null();
	f = &im->vhd->footer;
	j = json_pack("{s:s, s:s, s:i, s:s, s:s, s:[iii], s:I, s:I, s:b, s:b}", "id", guid(f->id, false, id),
		      "creator", tag(f->creator, creator), "creator_version", (int)f->creator_version, "host_os",
		      tag(f->host_os, host), "time", time_text(f->time_stamp, when), "geometry", (int)f->cylinders,
		      (int)f->heads, (int)f->sectors, "geometry_size", (json_int_t)prep_vhd_geometry_size(f),
		      "original_size", (json_int_t)f->original_size, "saved_state", f->saved_state == 1,
		      "footer_recovered", im->vhd->footer_recovered);
	if (f->type != PREP_VHD_FIXED) {
		json_object_set_new(j, "block_size", json_integer(im->vhd->header.block_size));
		json_object_set_new(j, "blocks_allocated", json_integer(im->vhd->blocks_allocated));
	}
	if (f->type == PREP_VHD_DIFFERENCING) {
		json_object_set_new(j, "own_bytes", json_integer((json_int_t)im->own));
		json_object_set_new(j, "parent_id", json_string(guid(im->vhd->parent.id, false, id)));
		json_object_set_new(j, "parent_names", names_json(&im->vhd->parent));
	}
	if (f->type == PREP_VHD_DYNAMIC) {
		json_object_set_new(j, "blocks_with_partial_bitmap", json_integer(im->partial));
		json_object_set_new(j, "blocks_with_hidden_data", json_integer(im->hidden));
	}
	return j;
}

static void add_notes(json_t *a, const struct prep_notes *notes)
{
	for (size_t i = 0; i < notes->n; i++)
		json_array_append_new(a, cmd_json_text(notes->text[i]));
}

static json_t *notes_json(const struct prep_notes *notes)
{
	json_t *a = json_array();

	add_notes(a, notes);
	return a;
}

static json_t *audit_json(const struct prep_fs_audit *a)
{
	return json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
		"sound", prep_fs_audit_clusters_sound(a) && prep_fs_audit_records_sound(a),
		"crosslinked_clusters", (json_int_t)a->crosslinked, "outside_clusters", (json_int_t)a->outside,
		"claimed_free_clusters", (json_int_t)a->claimed_free, "used_unclaimed_clusters",
		(json_int_t)a->used_unclaimed, "bad_clusters", (json_int_t)a->bad, "differing_copies",
		(json_int_t)a->copies, "records", (json_int_t)a->records,
		"unreadable_records", (json_int_t)a->unreadable, "record_bitmap_errors", (json_int_t)a->record_bitmap,
		"dangling_entries", (json_int_t)a->dangling, "orphaned_names", (json_int_t)a->orphans,
		"wrong_link_counts", (json_int_t)a->link_counts, "wrong_sizes", (json_int_t)a->sizes, "files",
		(json_int_t)a->files, "folders", (json_int_t)a->folders, "used_clusters", (json_int_t)a->used, "problems", notes_json(&a->problems));
}

static json_t *defrag_json(const struct prep_defrag_volume *d)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "blocks_before", (json_int_t)d->blocks_before, "blocks_pinned",
			 (json_int_t)d->blocks_pinned, "blocks_bound", (json_int_t)d->blocks_bound, "blocks_after",
			 (json_int_t)d->blocks_after, "moved", (json_int_t)d->moved);
}

static json_t *volume_json(const struct opts *o, const struct prep_inspect *in,
			   const struct prep_inspect_volume *v)
{
	static const struct { unsigned bit; const char *name; } obstacle[] = {
		{ PREP_FS_DIRTY, "dirty" }, { PREP_FS_UNCLEAN_LOG, "unclean_log" },
		{ PREP_FS_HIBERNATED, "hibernated" }, { PREP_FS_FAST_STARTUP, "fast_startup" },
		{ PREP_FS_SNAPSHOTS, "shadow_copies" },
	};
	const struct prep_partition *p = v->volume->part;
	const bool gpt = in->volumes->table.scheme == PREP_TABLE_GPT;
	json_t *presets = json_object(), *obstacles = json_array(), *j;
	char id[37];

	for (size_t i = 0; i < prep_preset_count; i++)
		json_object_set_new(presets, prep_presets[i].name, json_pack("{s:I, s:I}", "files",
			(json_int_t)v->preset[i].files, "bytes", (json_int_t)v->preset[i].bytes));
	for (size_t i = 0; i < sizeof obstacle / sizeof obstacle[0]; i++)
		if (v->info.obstacles & obstacle[i].bit)
			json_array_append_new(obstacles, json_string(obstacle[i].name));
	j = json_pack("{s:i, s:s, s:s, s:I, s:I, s:b}", "number", (int)p->number, "type",
		      prep_partition_type_name(&in->volumes->table, p), "file_system", prep_fs_kind_name(v->volume->kind),
		      "offset", (json_int_t)p->off, "size", (json_int_t)p->len, "active", p->active);
	if (gpt) {
		json_object_set_new(j, "type_id", json_string(guid(p->gpt_type, true, id)));
		json_object_set_new(j, "id", json_string(guid(p->gpt_id, true, id)));
		json_object_set_new(j, "name", cmd_json_text(p->name));
	} else if (in->volumes->table.scheme == PREP_TABLE_MBR) {
		json_object_set_new(j, "mbr_type", json_integer(p->mbr_type));
	}
	if (v->opened) {
		json_object_set_new(j, "version", json_string(v->info.version));
		json_object_set_new(j, "label", cmd_json_text(v->info.label));
		json_object_set_new(j, "cluster_size", json_integer(v->info.cluster_size));
		json_object_set_new(j, "clusters", json_integer((json_int_t)v->info.clusters));
		json_object_set_new(j, "used", json_integer((json_int_t)v->used));
		json_object_set_new(j, "free", json_integer((json_int_t)v->free));
		json_object_set_new(j, "free_not_zero", int_or_null(!o->quick, v->free_nonzero));
		json_object_set_new(j, "streams", json_integer((json_int_t)v->audit.streams));
		json_object_set_new(j, "fragmented_streams", json_integer((json_int_t)v->audit.fragmented));
		json_object_set_new(j, "fragments", json_integer((json_int_t)v->audit.fragments));
		json_object_set_new(j, "defrag", v->planned ? defrag_json(&v->defrag) : json_null());
		json_object_set(j, "removable", presets);
		json_object_set(j, "obstacles", obstacles);
		if (o->check)
			json_object_set_new(j, "check", audit_json(&v->audit));
	}
	json_object_set_new(j, "problem", v->problem[0] != '\0' ? cmd_json_text(v->problem) : json_null());
	json_decref(presets);
	json_decref(obstacles);
	return j;
}

static json_t *image_json(const struct opts *o, const struct image *im)
{
	const struct prep_inspect *in = &im->in;
	json_t *volumes = json_array(), *blocks = json_null(), *warnings = notes_json(&im->disk->notes);

	add_notes(warnings, &in->volumes->table.notes);
	for (unsigned i = 0; i < in->volumes->n; i++)
		json_array_append_new(volumes, volume_json(o, in, &in->volume[i]));
	if (!o->quick)
		blocks = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "size",
			(json_int_t)in->block_size, "total", (json_int_t)in->blocks, "absent",
			(json_int_t)in->count[PREP_BLOCK_ABSENT], "zero", (json_int_t)in->count[PREP_BLOCK_ZERO],
			"free_data", (json_int_t)in->count[PREP_BLOCK_FREE], "partly_used",
			(json_int_t)in->count[PREP_BLOCK_PARTLY], "full", (json_int_t)in->count[PREP_BLOCK_FULL],
			"after_compact", (json_int_t)blocks_compact(in), "after_zerofree",
			(json_int_t)blocks_zerofree(in));
	return json_pack("{s:o, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:o*, s:b, s:o, s:o, s:o}", "image",
			 cmd_json_text(im->path),
			 "format", im->disk->ops->kind, "virtual_size", (json_int_t)im->disk->size,
			 "file_size", int_or_null(im->file_size != 0, im->file_size),
			 "allocated", int_or_null(im->file_size != 0, im->allocated), "vhd", vhd_json(im), "vhdx",
			 vhdx_json(im), "parents", parents_json(im), "undo_disk",
			 cmd_json_text(im->undo.path), "table", scheme_name(in->volumes->table.scheme), "refusal",
			 in->volumes->table.refusal[0] != '\0' ? cmd_json_text(in->volumes->table.refusal) : NULL,
			 "damaged", in->damaged, "volumes", volumes, "blocks", blocks, "warnings", warnings);
}

/* What a differencing VHD holds itself. */
static int add_own(struct image *im, struct prep_err *err)
{
	uint64_t start, len;
	int r;

	for (uint64_t off = 0; (r = prep_vhd_next_own(im->disk, off, &start, &len, err)) > 0; off = start + len)
		im->own += len;
	return r;
}

/* What there is to tell before anything in the disk is looked at. */
static int look_at_format(const struct opts *o, struct image *im, struct prep_err *err)
{
	im->vhd = prep_vhd_disk_info(im->disk);
	im->vhdx = prep_vhdx_disk_info(im->disk);
	if (im->vhd == NULL || o->quick)
		return 0;
	if (im->disk->differencing && add_own(im, err) < 0)
		return -1;
	return prep_vhd_check_bitmaps(im->disk, &im->partial, &im->hidden, err);
}

/* Before the first of the last `open` images is opened, and with none after the last. */
static int confine(struct opts *o, int open, struct prep_err *err)
{
	struct prep_sandbox may = { .network = false };

	for (int i = o->images - open; i < o->images; i++)
		cmd_may_open(&o->cmd, &may, o->image[i]);
	if (o->cmd.output != NULL)
		prep_sandbox_output(&may, o->cmd.output);
	return cmd_confine(&o->cmd, &may, err);
}

static int inspect_image(struct opts *o, const char *path, struct prep_err *err)
{
	struct image im = { .path = cmd_is_stdin(path) ? "standard input" : path, .piped = cmd_is_stdin(path) };
	struct stat st;
	int r = cmd_open_image(&o->cmd, path, 0, &im.disk, err);

	if (r == 0 && !im.piped)
		r = prep_undo_mark_read(im.path, &im.undo, err);
	if (r == 0 && path == o->image[o->images - 1])
		r = confine(o, 0, err);
	if (r < 0) {
		prep_undo_mark_clear(&im.undo);
		prep_disk_close(im.disk);
		return -1;
	}
	if (!cmd_is_stdin(path) && stat(path, &st) == 0) {
		im.file_size = (uint64_t)st.st_size;
		im.allocated = (uint64_t)st.st_blocks * 512;
	}
	r = look_at_format(o, &im, err);
	if (r == 0)
		r = prep_inspect(im.disk, o->quick, &im.in, &o->cmd.progress, err);
	if (r < 0) {
		prep_undo_mark_clear(&im.undo);
		prep_disk_close(im.disk);
		return -1;
	}
	cmd_notes(&o->cmd, &im.in.volumes->table.notes);
	if (o->cmd.json)
		json_array_append_new(o->all, image_json(o, &im));
	else
		print(o, &im);
	if (o->svg != NULL)
		r = map_svg(&im.in, im.path, o->svg, err);
	if (r == 0 && o->check && im.in.damaged)
		r = prep_fail(err, PREP_EDAMAGED, "%s: damage found", im.path);
	prep_inspect_clear(&im.in);
	prep_undo_mark_clear(&im.undo);
	prep_disk_close(im.disk);
	return r;
}

int main(int argc, char **argv)
{
	struct prep_err first = PREP_ERR_INIT;
	struct opts o = { .svg = NULL };
	int status = PREP_DONE;

	parse(&o, argc, argv);
	if (o.cmd.json)
		o.all = json_array();
	o.image = argv + optind;
	o.images = argc - optind;
	if (confine(&o, o.images, &first) < 0)
		return cmd_finish(&o.cmd, &first);
	/* What is wrong with the picture's name is told before the work. */
	if (o.cmd.output != NULL && cmd_open_output(&o.cmd, o.cmd.output, o.cmd.force, o.image[0], &o.svg, &first) < 0)
		return cmd_finish(&o.cmd, &first);
	for (int i = optind; i < argc; i++) {
		struct prep_err err = PREP_ERR_INIT;
		int s;

		inspect_image(&o, argv[i], &err);
		s = err.code != PREP_DONE ? cmd_finish(&o.cmd, &err) : PREP_DONE;
		/* The worst of all images, each of which is reported. */
		status = s > status ? s : status;
	}
	if (o.cmd.json) {
		if (argc - optind == 1 && json_array_size(o.all) == 1)
			cmd_print_json(&o.cmd, json_incref(json_array_get(o.all, 0)));
		else if (argc - optind > 1)
			cmd_print_json(&o.cmd, json_incref(o.all));
		json_decref(o.all);
	}
	prep_output_close(o.svg);
	if (status == PREP_DONE) {
		struct prep_err none = PREP_ERR_INIT;

		status = cmd_finish(&o.cmd, &none);
	}
	return status;
}
