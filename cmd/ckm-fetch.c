/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ckm-fetch: rebuild an image from local data, and fetch only the rest. */
#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cmd/trim.h"
#include "libprep/ckm/keys.h"
#include "libprep/disk/disk.h"
#include "libprep/trim/fetch.h"
#include "libprep/trim/target.h"

static const char usage[] =
"Usage: ckm-fetch [OPTION]... -o OUT URL\n"
"Make the disk image whose package (a .ckm) is at URL, http, https or file, from\n"
"what is here already, and fetch only the rest. The index, at URL.index, comes\n"
"first. What is cut off is gone on with by the next run.\n"
"\n"
"  -o, --output OUT       the image\n"
"      --to FORMAT        dynamic, fixed or raw (default: as it was packed)\n"
"      --seed SEED        take what it holds from SEED, an image, a folder, a\n"
"                         local index or another package; repeatable\n"
"      --client-settings XML  take what the folders hold that are listed in a\n"
"                         ClientSettings.xml of MED-V,\n"
"      --root DIR         below DIR\n"
CMD_USAGE_PARENT
"      --package FILE     a pre-staged package, or a folder of some, to be used\n"
"                         before the network; repeatable\n"
"      --cache DIR        keep the indexes of seeds, and of OUT, in DIR\n"
"                         (default: $XDG_CACHE_HOME/prep, else ~/.cache/prep)\n"
"      --no-cache         keep none\n"
"      --key KEY          private key (PEM) that opens a sealed package\n"
"      --passphrase-file FILE  the passphrase, in the first line of FILE\n"
"                         ('-': ask on the terminal)\n"
"      --verify-with KEY  public key (PEM) that must have signed the package\n"
"      --limit-rate R     fetch at most R bytes a second (suffixes K, M, G)\n"
"      --background       lowest priority for processor and disk; give way to\n"
"                         other traffic\n"
"      --connections N    ranges in flight (default 4; in the background 1)\n"
"      --retries N        tries in a row without a byte (default 8)\n"
"      --timeout S        seconds to connect, or without a byte (default 30)\n"
"      --user NAME        at the server\n"
"      --password-file FILE  the password, in the first line of FILE ('-': ask)\n"
"      --auth KIND        basic, digest, ntlm, negotiate or any (default)\n"
"      --netrc            user and password from ~/.netrc\n"
"      --netrc-file FILE  the same from FILE\n"
"      --proxy URL        (default: as the environment says)\n"
"      --cacert FILE      certificates (PEM) to trust instead of the system's\n"
"  -J, --jobs N           threads (default: as many as there are processors)\n"
"  -n, --dry-run          only tell what would be fetched\n"
"  -f, --force            replace an existing OUT, which is a seed then\n"
"  -j, --json             report as JSON\n"
"  -p, --progress         show progress although standard error is no terminal\n"
"  -q, --quiet            no report, no progress, no warnings\n"
"  -v, --verbose          report more\n"
"      --tmpdir DIR       accepted, not used\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
"Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 damaged input.\n";

enum {
	OPT_PACKAGE = CMD_OPT_OWN, OPT_LIMIT_RATE, OPT_BACKGROUND, OPT_CONNECTIONS, OPT_RETRIES, OPT_TIMEOUT, OPT_USER,
	OPT_PASSWORD, OPT_AUTH, OPT_NETRC, OPT_NETRC_FILE, OPT_PROXY, OPT_CACERT,
};

static const struct option longopts[] = {
	CMD_LONG_COMMON,
	TRIM_LONG_READ,
	TRIM_LONG_SETTINGS,
	TRIM_LONG_RESTORE,
	{ "dry-run", no_argument, NULL, 'n' },
	{ "force", no_argument, NULL, 'f' },
	{ "output", required_argument, NULL, 'o' },
	{ "package", required_argument, NULL, OPT_PACKAGE },
	{ "limit-rate", required_argument, NULL, OPT_LIMIT_RATE },
	{ "background", no_argument, NULL, OPT_BACKGROUND },
	{ "connections", required_argument, NULL, OPT_CONNECTIONS },
	{ "retries", required_argument, NULL, OPT_RETRIES },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "user", required_argument, NULL, OPT_USER },
	{ "password-file", required_argument, NULL, OPT_PASSWORD },
	{ "auth", required_argument, NULL, OPT_AUTH },
	{ "netrc", no_argument, NULL, OPT_NETRC },
	{ "netrc-file", required_argument, NULL, OPT_NETRC_FILE },
	{ "proxy", required_argument, NULL, OPT_PROXY },
	{ "cacert", required_argument, NULL, OPT_CACERT },
	{ NULL, 0, NULL, 0 },
};

struct opts {
	struct cmd cmd;
	struct trim trim;
	struct prep_http_how http;
	const char *url, *password_file;
	struct prep_folder_list packages; /* --package: files, and those in folders */
};

/* What fetching works on, and with. */
struct work {
	struct prep_passphrase *password;
	struct prep_fetch *fetch;
	struct prep_supply supply;
	struct prep_export how;
	struct prep_fetch_report fetched;
};

static unsigned parse_count(struct opts *o, const char *option, const char *text, uint64_t most)
{
	const uint64_t n = cmd_number(&o->cmd, option, text);

	if (n < 1 || n > most)
		cmd_usage(&o->cmd, "%s: 1 to %" PRIu64 ", not %s", option, most, text);
	return (unsigned)n;
}

static void parse_auth(struct opts *o, const char *text)
{
	static const struct {
		const char *name;
		unsigned long bits;
	} kind[] = {
		{ "any", CURLAUTH_ANY }, { "basic", CURLAUTH_BASIC }, { "digest", CURLAUTH_DIGEST },
		{ "ntlm", CURLAUTH_NTLM }, { "negotiate", CURLAUTH_NEGOTIATE },
	};

	for (size_t i = 0; i < sizeof kind / sizeof kind[0]; i++)
		if (strcmp(text, kind[i].name) == 0)
			o->http.auth = kind[i].bits;
	if (o->http.auth == 0)
		cmd_usage(&o->cmd, "--auth: basic, digest, ntlm, negotiate or any, not %s", text);
}

/* A package, or the packages in a folder. */
static int add_packages(struct opts *o, const char *path, struct prep_err *err)
{
	struct stat st;
	struct dirent **entry;
	char *whole;
	int n, r = 0;

	if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
		return prep_folder_list_add(&o->packages, path, err);
	n = scandir(path, &entry, NULL, alphasort);
	if (n < 0)
		return prep_fail_errno(err, "%s: cannot read the folder", path);
	for (int i = 0; i < n; i++) {
		const char *name = entry[i]->d_name;
		const size_t len = strlen(name);

		if (r == 0 && len > 4 && strcmp(name + len - 4, ".ckm") == 0) {
			r = asprintf(&whole, "%s/%s", path, name) < 0 ? prep_fail_nomem(err) : 0;
			if (r == 0) {
				if (stat(whole, &st) == 0 && S_ISREG(st.st_mode) && access(whole, R_OK) == 0)
					r = prep_folder_list_add(&o->packages, whole, err);
				free(whole);
			}
		}
		free(entry[i]);
	}
	free(entry);
	return r;
}

static void parse(struct opts *o, int argc, char **argv, struct prep_err *err)
{
	int c;

	cmd_start(&o->cmd, argv[0], usage);
	while ((c = getopt_long(argc, argv, CMD_SHORT_COMMON TRIM_SHORT_READ "nfo:", longopts, NULL)) != -1) {
		switch (c) {
		case OPT_PACKAGE:
			if (add_packages(o, optarg, err) < 0)
				exit(cmd_finish(&o->cmd, err));
			break;
		case OPT_LIMIT_RATE:
			o->http.limit_rate = cmd_number(&o->cmd, "--limit-rate", optarg);
			if (o->http.limit_rate == 0)
				cmd_usage(&o->cmd, "--limit-rate: more than nothing");
			break;
		case OPT_BACKGROUND:
			o->http.background = true;
			break;
		case OPT_CONNECTIONS:
			o->http.connections = parse_count(o, "--connections", optarg, 64);
			break;
		case OPT_RETRIES:
			o->http.retries = parse_count(o, "--retries", optarg, 10000);
			break;
		case OPT_TIMEOUT:
			o->http.timeout = parse_count(o, "--timeout", optarg, 86400);
			break;
		case OPT_USER:
			o->http.user = optarg;
			break;
		case OPT_PASSWORD:
			o->password_file = optarg;
			break;
		case OPT_AUTH:
			parse_auth(o, optarg);
			break;
		case OPT_NETRC_FILE:
			o->http.netrc_file = optarg;
			/* fall through */
		case OPT_NETRC:
			o->http.netrc = true;
			break;
		case OPT_PROXY:
			o->http.proxy = optarg;
			break;
		case OPT_CACERT:
			o->http.cacert = optarg;
			break;
		default:
			trim_option(&o->cmd, &o->trim, c);
		}
	}
	trim_check(&o->cmd, &o->trim);
	if (optind == argc)
		cmd_usage(&o->cmd, "no URL");
	if (argc - optind > 1)
		cmd_usage(&o->cmd, "more than one URL: %s", argv[optind + 1]);
	o->url = argv[optind];
	if (o->cmd.output == NULL && !o->cmd.dry_run)
		cmd_usage(&o->cmd, "where to? -o OUT");
	if (o->cmd.output != NULL && strcmp(o->cmd.output, "-") == 0)
		cmd_usage(&o->cmd, "-o: a file, that can be gone on with when the line breaks");
	if (o->password_file != NULL && o->http.user == NULL)
		cmd_usage(&o->cmd, "--password-file needs --user");
	o->trim.keeps = !o->cmd.dry_run;
}

/* Out of everybody's way. What the system does not allow is no reason to fail. */
static void step_back(void)
{
	const struct sched_param none = { 0 };

	sched_setscheduler(0, SCHED_IDLE, &none);
	setpriority(PRIO_PROCESS, 0, 19);
	syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

/* The output that there is, pre-staged packages, then what the user named. */
static int list_seeds(struct opts *o, struct prep_err *err)
{
	struct trim_seed *named = o->trim.seed;
	const size_t n = o->trim.seeds;
	struct stat st;
	int r = 0;

	o->trim.seed = NULL;
	o->trim.seeds = 0;
	/* What is wrong with it is better told before the work, and before a folder stands beside it. */
	if (o->cmd.output != NULL)
		r = prep_output_check_part(o->cmd.output, o->cmd.force, err);
	if (o->cmd.output != NULL && o->cmd.force && r == 0)
		r = prep_disk_check_replaced(o->cmd.output, err);
	if (o->cmd.output != NULL && r == 0 && stat(o->cmd.output, &st) == 0 && S_ISREG(st.st_mode))
		r = trim_add_seed(&o->trim, o->cmd.output, true, err);
	/* One of a folder that does not open may be meant for someone else. */
	for (size_t i = 0; i < o->packages.n && r == 0; i++)
		r = trim_add_seed(&o->trim, o->packages.path[i], true, err);
	for (size_t i = 0; i < n && r == 0; i++)
		r = trim_add_seed(&o->trim, named[i].path, named[i].optional, err);
	free(named);
	return r;
}

static void report_json(const struct opts *o, const struct work *w, uint32_t ranges, uint64_t bytes)
{
	static const char *const names[] = { "raw", "fixed", "dynamic" };
	const struct prep_ckm_index *in = prep_ckm_index(prep_fetch_package(w->fetch));
	const struct prep_ckm_info *info = prep_ckm_info(prep_fetch_package(w->fetch));
	const struct prep_fetch_report *f = &w->fetched;
	const bool dry = o->cmd.dry_run;
	json_t *root = json_pack("{s:o, s:s, s:s, s:b, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:I}",
		"url", cmd_json_text(o->url), "name", in->name, "image_version", in->version, "dry_run", dry,
		"format", names[w->how.format], "sealed", info->sealed, "verified", info->verified,
		"disk_size", (json_int_t)in->disk_size, "package_size", (json_int_t)info->package_size,
		"index_size", (json_int_t)info->section_len, "chunks", (json_int_t)in->chunks,
		"wanted_bytes", (json_int_t)w->supply.wanted_bytes);

	json_object_update_new(root, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
		"file_size", (json_int_t)f->restored.file_size,
		"resumed_bytes", (json_int_t)f->restored.resumed_bytes,
		"local_chunks", (json_int_t)(dry ? w->supply.local_chunks : f->restored.seed_chunks),
		"local_bytes", (json_int_t)(dry ? w->supply.local_bytes : f->restored.seed_bytes),
		"bad_chunks", (json_int_t)f->restored.bad_chunks,
		"frames", (json_int_t)(dry ? w->supply.frames : f->restored.frames),
		"frame_bytes", (json_int_t)(dry ? w->supply.frame_bytes : f->restored.frame_bytes),
		"requests", (json_int_t)(dry ? ranges + 1 : f->count.requests),
		"fetched_bytes", (json_int_t)(dry ? bytes + info->section_len : f->count.bytes),
		"index_bytes", (json_int_t)(dry ? info->section_len : f->index_bytes),
		"patches", (json_int_t)(dry ? w->supply.patches : f->restored.patches),
		"patch_bytes", (json_int_t)(dry ? w->supply.patch_bytes : f->restored.patch_bytes),
		"retries", (json_int_t)f->count.retries, "restarts", (json_int_t)f->restarts,
		"seeds", trim_origins_json(&w->supply)));
	cmd_print_json(&o->cmd, root);
}

static void report(const struct opts *o, const struct work *w, uint32_t ranges, uint64_t bytes)
{
	const struct prep_ckm *p = prep_fetch_package(w->fetch);
	const struct prep_ckm_index *in = prep_ckm_index(p);
	const struct prep_ckm_info *info = prep_ckm_info(p);
	const struct prep_fetch_report *f = &w->fetched;
	FILE *out = cmd_report(&o->cmd);

	if (o->cmd.json) {
		report_json(o, w, ranges, bytes);
		return;
	}
	if (o->cmd.quiet)
		return;
	fprintf(out, "%s: a disk of %s, %s of distinct data", o->url, cmd_size(in->disk_size),
		cmd_size(w->supply.wanted_bytes));
	if (o->cmd.dry_run) {
		if (w->supply.origins > 0)
			fprintf(out, ", %s of it here", cmd_size(w->supply.found_bytes));
		fprintf(out, "; to fetch: %s of %s in %u range%s, and the index, %s\n", cmd_size(bytes),
			cmd_size(info->package_size), ranges, ranges == 1 ? "" : "s", cmd_size(info->section_len));
		trim_print_patches(out, &w->supply);
		trim_print_origins(out, &w->supply);
		return;
	}
	if (f->restored.seed_bytes > 0)
		fprintf(out, ", %s of it from seeds", cmd_size(f->restored.seed_bytes));
	if (f->restored.resumed_bytes > 0)
		fprintf(out, ", %s from an earlier run", cmd_size(f->restored.resumed_bytes));
	fprintf(out, "; fetched %s in %" PRIu64 " requests; became %s\n", cmd_size(f->count.bytes), f->count.requests,
		cmd_size(f->restored.file_size));
	if (f->restored.bad_chunks > 0)
		fprintf(out, "  %" PRIu64 " chunks (%s) were not what seeds had promised, and came from elsewhere\n",
			f->restored.bad_chunks, cmd_size(f->restored.bad_bytes));
	if (f->restarts > 0)
		fprintf(out, "  the package changed on the server meanwhile: started anew\n");
	if (o->cmd.verbose) {
		fprintf(out, "  %s of it the index, %" PRIu64 " frames, %" PRIu64 " requests after a break\n",
			cmd_size(f->index_bytes), f->restored.frames, f->count.retries);
		trim_print_origins(out, &w->supply);
	}
}

/* Only look: open the seeds and say what would be fetched. */
static int plan(struct opts *o, struct work *w, uint32_t *ranges, uint64_t *bytes, struct prep_err *err)
{
	if (trim_open(&o->cmd, &o->trim, false, &w->supply, err) < 0 || prep_supply_make(&w->supply, err) < 0 ||
	    prep_supply_check(&w->supply, o->url, err) < 0 ||
	    prep_target_choose(prep_ckm_index(prep_fetch_package(w->fetch)), o->trim.format, o->url, &w->how, err) < 0)
		return -1;
	return prep_fetch_estimate(&w->supply, ranges, bytes, err);
}

static int fetch(struct opts *o, struct work *w, struct prep_err *err)
{
	struct prep_fetch_how how = { .replace = o->cmd.force, .format = o->trim.format, .jobs = o->trim.jobs };

	if (trim_open(&o->cmd, &o->trim, false, NULL, err) < 0)
		return -1;
	how.seed = o->trim.open;
	how.seeds = o->trim.opened;
	how.cache = o->trim.cache_path;
	return prep_fetch_run(w->fetch, &how, &w->supply, &w->how, &w->fetched, &o->cmd.progress, err);
}

/* The folder or file that a variable names, with or without its kind. */
static void may_read_named(struct prep_sandbox *may, const char *variable)
{
	const char *path = getenv(variable);

	if (path != NULL && strncmp(path, "FILE:", 5) == 0)
		path += 5;
	prep_sandbox_read(may, path);
}

/* What libcurl and the libraries below it look into for certificates, names and passwords. */
static void may_log_in(const struct opts *o, struct prep_sandbox *may)
{
	const char *home = getenv("HOME");
	char *path;

	prep_sandbox_read(may, o->password_file);
	prep_sandbox_read(may, o->http.cacert);
	may_read_named(may, "SSL_CERT_FILE");
	may_read_named(may, "SSL_CERT_DIR");
	prep_sandbox_read(may, o->http.netrc_file);
	if (o->http.netrc && home != NULL && asprintf(&path, "%s/.netrc", home) >= 0) {
		prep_sandbox_read(may, path);
		free(path);
	}
	/* Kerberos: its settings, and the tickets that there are. */
	may_read_named(may, "KRB5_CONFIG");
	may_read_named(may, "KRB5CCNAME");
	if (asprintf(&path, "/tmp/krb5cc_%u", (unsigned)getuid()) >= 0) {
		prep_sandbox_read(may, path);
		free(path);
	}
}

/* Giving way looks at what the interfaces have received (yield.h). Links lead there: the folders behind them are named. */
static void may_count(struct prep_sandbox *may)
{
	glob_t found;

	if (glob("/sys/class/net/*/statistics", GLOB_NOSORT, NULL, &found) != 0)
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		prep_sandbox_read(may, found.gl_pathv[i]);
	globfree(&found);
}

static int confine(struct opts *o, struct prep_err *err)
{
	struct prep_sandbox may = { .network = true };
	char *local;

	if (prep_http_local_path(o->url, &local, err) < 0)
		return -1;
	if (local != NULL)
		cmd_may_read_package(&may, local);
	free(local);
	may_log_in(o, &may);
	if (o->http.background)
		may_count(&may);
	if (!o->cmd.dry_run)
		prep_sandbox_output(&may, o->cmd.output);
	return trim_confine(&o->cmd, &o->trim, &may, err);
}

static int run(struct opts *o, struct prep_err *err)
{
	struct work w = { .fetch = NULL };
	uint32_t ranges = 0;
	uint64_t bytes = 0;
	int r = -1;

	if (o->http.background)
		step_back();
	/* libcurl goes on without. */
	if (o->http.netrc_file != NULL && access(o->http.netrc_file, R_OK) != 0)
		return prep_fail_errno(err, "%s: cannot read", o->http.netrc_file);
	if (list_seeds(o, err) == 0 && confine(o, err) == 0 &&
	    (o->password_file == NULL ||
	     prep_passphrase_read(o->password_file, PREP_PASSPHRASE_LOGS_IN, &w.password, err) == 0)) {
		o->http.password = w.password != NULL ? w.password->text : NULL;
		if (prep_fetch_open(o->url, &o->http, &o->trim.access, o->cmd.dry_run ? NULL : o->cmd.output, &w.fetch,
				    &o->cmd.progress, err) == 0 &&
		    prep_supply_new(prep_ckm_index(prep_fetch_package(w.fetch)), &w.supply, err) == 0)
			r = o->cmd.dry_run ? plan(o, &w, &ranges, &bytes, err) : fetch(o, &w, err);
	}
	if (r == 0)
		report(o, &w, ranges, bytes);
	prep_supply_clear(&w.supply);
	trim_close(&o->trim);
	prep_fetch_close(w.fetch);
	prep_passphrase_free(w.password);
	prep_folder_list_clear(&o->packages);
	return r;
}

int main(int argc, char **argv)
{
	struct prep_err err = PREP_ERR_INIT;
	struct opts o = { .trim = { .format = -1 } };

	parse(&o, argc, argv, &err);
	run(&o, &err);
	return cmd_finish(&o.cmd, &err);
}
