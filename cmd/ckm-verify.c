/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ckm-verify: check packages without unpacking them. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "libprep/base/file.h"
#include "libprep/ckm/verify.h"

static const char usage[] =
"Usage: ckm-verify [OPTION]... PKG...\n"
"Check packages: structure, signature, every frame and every chunk. Nothing is\n"
"written. PKG.index beside a PKG must be the index that PKG has inside.\n"
"\n"
"      --quick            structure and signature only; PKG may be an index\n"
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

enum { OPT_QUICK = CMD_OPT_OWN, OPT_VERIFY_WITH, OPT_KEY, OPT_PASSPHRASE };

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	{ "jobs", required_argument, NULL, 'J' },
	{ "quick", no_argument, NULL, OPT_QUICK },
	{ "verify-with", required_argument, NULL, OPT_VERIFY_WITH },
	{ "key", required_argument, NULL, OPT_KEY },
	{ "passphrase-file", required_argument, NULL, OPT_PASSPHRASE },
	{ NULL, 0, NULL, 0 },
};

#define FILES_SHOWN 20
#define NAME_ROOM 4096

struct opts {
	struct cmd cmd;
	char **package;
	unsigned jobs;
	bool quick;
	struct prep_ckm_access access;
};

static void parse(struct opts *o, int argc, char **argv)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	/* Nothing is written but the report: it goes to standard output. */
	o->cmd.dry_run = true;
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON "J:", longopts, NULL)) != -1) {
		switch (c) {
		case 'J':
			o->jobs = cmd_jobs(&o->cmd, optarg);
			break;
		case OPT_QUICK:
			o->quick = true;
			break;
		case OPT_VERIFY_WITH:
			o->access.verify_with = optarg;
			break;
		case OPT_KEY:
			o->access.key_file = optarg;
			break;
		case OPT_PASSPHRASE:
			o->access.passphrase_file = optarg;
			break;
		default:
			cmd_option(&o->cmd, c);
		}
	}
	if (optind == argc)
		cmd_usage(&o->cmd, "which package?");
	o->package = argv + optind;
	o->access.outer_only = o->quick && o->access.key_file == NULL && o->access.passphrase_file == NULL;
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
		free(index);
		return 0;
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
	for (unsigned char *p = (unsigned char *)buf; *p != '\0'; p++)
		if (*p < ' ' || *p == 0x7F)
			*p = '?';
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
	root = json_pack("{s:o, s:b, s:o*, s:i, s:i, s:I, s:o, s:o}",
		"package", cmd_json_text(path), "sound", err->code == PREP_DONE,
		"error", err->code != PREP_DONE ? cmd_json_text(err->msg) : NULL,
		"frames", (int)v->frames, "absent", (int)v->absent, "bytes", (json_int_t)v->bytes,
		"damaged", frames, "hit", files);
	if (info != NULL) {
		json_object_set_new(root, "sealed", json_boolean(info->sealed));
		json_object_set_new(root, "signed", json_boolean(info->is_signed));
		json_object_set_new(root, "verified", json_boolean(info->verified));
		json_object_set_new(root, "difference", json_boolean(info->difference));
	}
	return root;
}

/* One package: whatever is wrong with it is in *err. */
static void verify(struct opts *o, const char *path, struct prep_pool *pool, json_t *list,
		   struct prep_err *err)
{
	struct prep_verify_report v = { .frames = 0 };
	struct prep_ckm *p = NULL;

	if (prep_ckm_open(path, &o->access, &p, err) == 0 && prep_ckm_info(p)->section_off == 0 && !o->quick)
		prep_fail(err, PREP_EREFUSED, "%s: an index alone, without frames (--quick checks it)", path);
	if (err->code == PREP_DONE && prep_ckm_info(p)->section_off != 0)
		check_beside(p, path, err);
	if (err->code == PREP_DONE && !o->quick)
		prep_verify(p, pool, &v, &o->cmd.progress, err);
	if (err->code == PREP_DONE && !o->cmd.json)
		report_text(o, path, p, &v);
	if (v.damaged > 0)
		prep_fail(err, PREP_EDAMAGED, "%s: %zu of %u frames are damaged", path, v.damaged, v.frames);
	if (o->cmd.json)
		json_array_append_new(list, report_json(path, p, &v, err));
	prep_verify_clear(&v);
	prep_ckm_close(p);
}

/* Every package is looked at; the first that is wrong gives the status. */
static void run(struct opts *o, struct prep_err *err)
{
	struct prep_pool *pool;
	json_t *list;

	if (prep_pool_open(o->jobs, &pool, err) < 0)
		return;
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
		if (one.code == PREP_EFAIL)
			break;
	}
	prep_pool_close(pool);
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
