/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ckm-verify: check packages without unpacking them. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/trim.h"
#include "libprep/base/file.h"
#include "libprep/base/utf16.h"
#include "libprep/ckm/verify.h"
#include "libprep/trim/reference.h"

static const char usage[] =
"Usage: ckm-verify [OPTION]... PKG...\n"
"Check packages: structure, signature, every frame and every chunk. Nothing is\n"
"written. PKG.index beside a PKG must be the index that PKG has inside.\n"
"\n"
"      --quick            structure and signature only; PKG may be an index\n"
"      --seed SEED        what the patches of an update are made of: the older\n"
"                         image, or its package; repeatable\n"
"      --cache DIR        keep the indexes of seeds in DIR\n"
"                         (default: $XDG_CACHE_HOME/prep, else ~/.cache/prep)\n"
"      --no-cache         keep none\n"
"      --verify-with KEY  public key (PEM) that must have signed the packages\n"
"      --key KEY          private key (PEM) that opens sealed packages\n"
"      --passphrase-file FILE  the passphrase, in the first line of FILE\n"
"                         ('-': ask on the terminal)\n"
"  -J, --jobs N           threads (default: as many as there are processors)\n"
"  -j, --json             report as JSON\n"
"  -p, --progress         show progress although standard error is no terminal\n"
"  -q, --quiet            no report, no progress\n"
"  -v, --verbose          list every file that damage hits, not only the first\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
"Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 damaged.\n";

enum { OPT_QUICK = CMD_OPT_OWN };

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	TRIM_LONG_READ,
	{ "quick", no_argument, NULL, OPT_QUICK },
	{ "seed", required_argument, NULL, TRIM_OPT_SEED },
	{ "cache", required_argument, NULL, TRIM_OPT_CACHE },
	{ "no-cache", no_argument, NULL, TRIM_OPT_NO_CACHE },
	{ NULL, 0, NULL, 0 },
};

#define FILES_SHOWN 20
#define NAME_ROOM 4096

struct opts {
	struct cmd cmd;
	struct trim trim;
	char **package;
	bool quick;
};

static void parse(struct opts *o, int argc, char **argv)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	/* Nothing is written but the report: it goes to standard output. */
	o->cmd.dry_run = true;
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON TRIM_SHORT_READ, longopts, NULL)) != -1) {
		switch (c) {
		case OPT_QUICK:
			o->quick = true;
			break;
		default:
			trim_option(&o->cmd, &o->trim, c);
		}
	}
	if (optind == argc)
		cmd_usage(&o->cmd, "which package?");
	o->package = argv + optind;
	trim_check(&o->cmd, &o->trim);
	if (o->quick && o->trim.seeds > 0)
		cmd_usage(&o->cmd, "--quick applies no patches: --seed is of no use");
	o->trim.access.outer_only = o->quick && o->trim.access.key_file == NULL && o->trim.access.passphrase_file == NULL;
}

/* PATH.index, where there is one, must be what the package has inside. */
static int check_beside(const struct prep_ckm *p, const char *path, struct prep_err *err)
{
	const uint64_t len = prep_ckm_info(p)->section_len;
	uint8_t *buf = NULL;
	char *index;
	struct stat st;
	int fd, r = -1;

	if (asprintf(&index, "%s.index", path) < 0)
		return prep_fail_nomem(err);
	fd = open(index, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		r = errno == ENOENT ? 0 : prep_fail_errno(err, "%s: cannot open", index);
		free(index);
		return r;
	}
	if (fstat(fd, &st) != 0) {
		prep_fail_errno(err, "%s", index);
	} else if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != len) {
		prep_fail(err, PREP_EDAMAGED, "%s: not the index of %s", index, path);
	} else if ((buf = malloc(len)) == NULL) {
		prep_fail_nomem(err);
	} else if (prep_file_pread(fd, buf, len, 0, index, err) == 0) {
		r = memcmp(buf, prep_ckm_section(p), len) == 0
			    ? 0
			    : prep_fail(err, PREP_EDAMAGED, "%s: not the index of %s", index, path);
	}
	free(buf);
	free(index);
	close(fd);
	return r;
}

/* What a stream is called: its path, or where it is. Nothing in it works on a terminal. */
static const char *stream_name(const struct prep_stream *s, char *buf, size_t room)
{
	if (s->path[0] != '\0')
		snprintf(buf, room, "%s", s->path);
	else if (s->volume != 0)
		snprintf(buf, room, "(partition %u: %s)", s->volume, prep_content_name(s->content));
	else
		snprintf(buf, room, "(outside partitions)");
	prep_utf8_one_line(buf);
	return buf;
}

static void report_text(const struct opts *o, const char *path, const struct prep_ckm *p,
			const struct prep_verify_report *v)
{
	const struct prep_ckm_info *info = prep_ckm_info(p);
	const struct prep_ckm_index *in = prep_ckm_index(p);
	char name[NAME_ROOM];
	uint32_t hits = 0;

	for (size_t i = 0; i < v->damaged; i++)
		cmd_warn(&o->cmd, "%s", v->damage[i].what);
	for (uint32_t i = 0; in != NULL && v->hit != NULL && i < in->streams; i++) {
		if (!v->hit[i])
			continue;
		if (o->cmd.verbose || hits < FILES_SHOWN)
			cmd_warn(&o->cmd, "%s: damage hits %s", path, stream_name(&in->stream[i], name, sizeof name));
		hits++;
	}
	if (!o->cmd.verbose && hits > FILES_SHOWN)
		cmd_warn(&o->cmd, "%s: and %u more files (-v lists them)", path, hits - FILES_SHOWN);
	if (o->cmd.quiet || v->damaged > 0)
		return;
	printf("%s: sound: ", path);
	if (o->quick)
		printf("structure only");
	else
		printf("%u frames, %s", v->frames, cmd_size(v->bytes));
	if (v->absent > 0)
		printf(", %u frames left to the base", v->absent);
	if (v->unapplied > 0)
		printf(", %u of %u patches only by their digests (--seed names what they are made of)", v->unapplied,
		       v->patches);
	else if (v->patches > 0)
		printf(", %u of them patches", v->patches);
	printf("%s%s\n", info->sealed ? ", sealed" : "",
	       info->verified ? ", signature good" : info->is_signed ? ", signed by a key that was not asked for" : "");
}

static json_t *report_json(const char *path, const struct prep_ckm *p, const struct prep_verify_report *v,
			   const struct prep_err *err)
{
	const struct prep_ckm_info *info = p != NULL ? prep_ckm_info(p) : NULL;
	const struct prep_ckm_index *in = p != NULL ? prep_ckm_index(p) : NULL;
	char name[NAME_ROOM];
	json_t *frames = json_array(), *files = json_array(), *root;

	for (size_t i = 0; i < v->damaged; i++)
		json_array_append_new(frames, json_pack("{s:i, s:o}", "frame", (int)v->damage[i].frame,
							"error", cmd_json_text(v->damage[i].what)));
	for (uint32_t i = 0; in != NULL && v->hit != NULL && i < in->streams; i++)
		if (v->hit[i])
			json_array_append_new(files, cmd_json_text(stream_name(&in->stream[i], name, sizeof name)));
	root = json_pack("{s:o, s:b, s:o*, s:i, s:i, s:i, s:i, s:I, s:o, s:o}",
		"package", cmd_json_text(path), "sound", err->code == PREP_DONE,
		"error", err->code != PREP_DONE ? cmd_json_text(err->msg) : NULL,
		"frames", (int)v->frames, "absent", (int)v->absent, "patches", (int)v->patches,
		"unapplied", (int)v->unapplied, "bytes", (json_int_t)v->bytes,
		"damaged", frames, "hit", files);
	if (info != NULL) {
		json_object_set_new(root, "sealed", json_boolean(info->sealed));
		json_object_set_new(root, "signed", json_boolean(info->is_signed));
		json_object_set_new(root, "verified", json_boolean(info->verified));
		json_object_set_new(root, "difference", json_boolean(info->difference));
	}
	return root;
}

/* What patches refer to, from the seeds. */
struct references {
	const struct opts *o;
	struct prep_supply supply;
};

static int read_reference(void *arg, uint32_t i, uint8_t *buf, struct prep_err *err)
{
	const struct references *f = arg;
	struct prep_seed_reader reader;
	uint32_t bad;
	int r;

	if (prep_seed_reader_open(&reader, err) < 0)
		return -1;
	r = prep_reference_read(&reader, &f->supply, f->o->trim.open, f->o->trim.opened, i, buf, &bad, err);
	prep_seed_reader_close(&reader);
	return r;
}

/* All frames; patches too, if the seeds have what they refer to. */
static int verify_frames(struct opts *o, const char *path, struct prep_ckm *p, struct prep_pool *pool,
			 struct prep_verify_report *v, struct prep_err *err)
{
	struct references f = { .o = o };
	const struct prep_verify_references references = { read_reference, &f };
	const bool seeds = o->trim.opened > 0 && prep_ckm_info(p)->patches;
	int r = 0;

	if (seeds) {
		r = prep_supply_new(prep_ckm_index(p), &f.supply, err);
		for (size_t i = 0; r == 0 && i < o->trim.opened; i++)
			r = prep_supply_add(&f.supply, &o->trim.open[i]->catalog, err);
		if (r == 0)
			r = prep_supply_make(&f.supply, err);
	}
	if (r == 0)
		r = prep_verify(p, seeds ? &references : NULL, pool, v, &o->cmd.progress, err);
	if (r == 0 && seeds && v->unapplied > 0 && v->damaged == 0)
		r = prep_fail(err, PREP_EREFUSED,
			      "%s: %u of its %u patches are not made of what the seeds hold, or hold no longer", path,
			      v->unapplied, v->patches);
	prep_supply_clear(&f.supply);
	return r;
}

/* One package: whatever is wrong with it is in *err. */
static void verify(struct opts *o, const char *path, struct prep_pool *pool, json_t *list,
		   struct prep_err *err)
{
	struct prep_verify_report v = { .frames = 0 };
	struct prep_ckm *p = NULL;

	if (prep_ckm_open(path, &o->trim.access, &p, err) == 0 && prep_ckm_info(p)->section_off == 0 && !o->quick)
		prep_fail(err, PREP_EREFUSED, "%s: an index alone, without frames (--quick checks it)", path);
	if (err->code == PREP_DONE && prep_ckm_info(p)->section_off != 0)
		check_beside(p, path, err);
	if (err->code == PREP_DONE && !o->quick)
		verify_frames(o, path, p, pool, &v, err);
	if (err->code == PREP_DONE && !o->cmd.json)
		report_text(o, path, p, &v);
	if (v.damaged > 0)
		prep_fail(err, PREP_EDAMAGED, "%s: %zu of %u frames are damaged", path, v.damaged, v.frames);
	if (o->cmd.json)
		json_array_append_new(list, report_json(path, p, &v, err));
	prep_verify_clear(&v);
	prep_ckm_close(p);
}

static int confine(struct opts *o, struct prep_err *err)
{
	struct prep_sandbox may = { .network = false };

	for (char **path = o->package; *path != NULL; path++)
		cmd_may_read_package(&may, *path);
	return trim_confine(&o->cmd, &o->trim, &may, err);
}

/* Every package is looked at; the first that is wrong gives the status. */
static void run(struct opts *o, struct prep_err *err)
{
	struct prep_pool *pool;
	json_t *list;

	if (confine(o, err) < 0)
		return;
	if (trim_open(&o->cmd, &o->trim, false, NULL, err) < 0 || prep_pool_open(o->trim.jobs, &pool, err) < 0) {
		trim_close(&o->trim);
		return;
	}
	list = json_array();
	for (char **path = o->package; *path != NULL; path++) {
		struct prep_err one = PREP_ERR_INIT;

		verify(o, *path, pool, list, &one);
		if (one.code == PREP_DONE)
			continue;
		/* The first is told at the end. */
		if (err->code != PREP_DONE)
			cmd_warn(&o->cmd, "%s", one.msg);
		prep_fail(err, one.code, "%s", one.msg);
		if (cmd_interrupted())
			break;
	}
	prep_pool_close(pool);
	trim_close(&o->trim);
	if (o->cmd.json)
		cmd_print_json(&o->cmd, json_pack("{s:o}", "packages", list));
	else
		json_decref(list);
}

int main(int argc, char **argv)
{
	struct prep_err err = PREP_ERR_INIT;
	struct opts o = { .quick = false };

	parse(&o, argc, argv);
	run(&o, &err);
	return cmd_finish(&o.cmd, &err);
}
