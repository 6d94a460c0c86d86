/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "cmd/cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/base/pool.h"
#include "libprep/base/spool.h"
#include "libprep/base/utf16.h"
#include "libprep/disk/journal.h"
#include "libprep/disk/overlay.h"
#include "libprep/disk/undo_mark.h"
#include "libprep/prep/scan.h"
#include "libprep/version.h"

/* Set by signal handlers. */
static volatile sig_atomic_t interrupted_by, progress_wanted;

static void on_interrupt(int sig)
{
	interrupted_by = sig;
	/* Work that waits for a pipe does not look up: see on_alarm. */
	alarm(1);
}

/* Nobody has looked at the interruption for a second: no clean-up is worth a longer wait. */
static void on_alarm(int sig)
{
	(void)sig;
	raise(interrupted_by);
}

static void on_usr1(int sig)
{
	(void)sig;
	progress_wanted = 1;
}

static void catch(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = { .sa_handler = handler, .sa_flags = flags };

	sigaction(sig, &sa, NULL);
}

/* What was ignored before stays so: nohup(1), and the shell for commands in the background. */
static void catch_interrupt(int sig)
{
	struct sigaction old;

	if (sigaction(sig, NULL, &old) == 0 && old.sa_handler != SIG_IGN)
		catch(sig, on_interrupt, (int)SA_RESETHAND);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The progress line on a terminal. */
static struct {
	double started, shown; /* of this step, and its last line */
	char step[32];
	bool on_line;          /* a line without its end stands on the terminal */
} line;

static void clear_line(void)
{
	if (line.on_line)
		fputs("\r\033[K", stderr);
	line.on_line = false;
}

static void show_progress(const struct cmd *cmd, const char *what, uint64_t done, uint64_t total,
			  bool whole_line)
{
	const double spent = now() - line.started;
	const double rate = spent > 0 ? (double)done / spent : 0;

	if (!whole_line)
		fputs("\r\033[K", stderr);
	if (total > 0)
		fprintf(stderr, "%s: %s: %3.0f %%, %s of %s", cmd->prog, what,
			100.0 * (double)done / (double)total, cmd_size(done), cmd_size(total));
	else
		fprintf(stderr, "%s: %s: %s", cmd->prog, what, cmd_size(done));
	if (spent >= 1)
		fprintf(stderr, ", %s/s", cmd_size((uint64_t)rate));
	if (spent >= 1 && total > done && rate > 0) {
		const uint64_t left = (uint64_t)((double)(total - done) / rate);

		fprintf(stderr, ", %" PRIu64 ":%02" PRIu64 " left", left / 60, left % 60);
	}
	if (whole_line)
		fputc('\n', stderr);
	fflush(stderr);
	line.on_line = !whole_line;
	line.shown = now();
}

static int report_progress(void *arg, const char *what, uint64_t done, uint64_t total)
{
	const struct cmd *cmd = arg;
	double t;

	if (interrupted_by) {
		alarm(0);
		return 1;
	}
	if (!cmd->show_progress && !progress_wanted)
		return 0;
	if (strncmp(line.step, what, sizeof line.step - 1) != 0) {
		snprintf(line.step, sizeof line.step, "%s", what);
		line.started = now();
	}
	if (progress_wanted) {
		progress_wanted = 0;
		clear_line();
		show_progress(cmd, what, done, total, true);
	}
	t = now();
	if (cmd->show_progress && !cmd->quiet && t - line.started >= 1 && t - line.shown >= 0.25)
		show_progress(cmd, what, done, total, false);
	return 0;
}

/*
 * A standard stream that was closed would be the next file that is opened: a
 * report would go into the image. What fails at the first use takes its place.
 */
static void hold_streams(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) == -1 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			_exit(PREP_EFAIL);
}

void cmd_start(struct cmd *cmd, const char *prog, const char *usage)
{
	const char *tmpdir = getenv("TMPDIR"), *epoch = getenv("SOURCE_DATE_EPOCH");
	const char *slash = strrchr(prog, '/');

	*cmd = (struct cmd){
		.prog = slash != NULL ? slash + 1 : prog,
		.usage = usage,
		.tmpdir = tmpdir != NULL && tmpdir[0] != '\0' ? tmpdir : "/var/tmp",
		.show_progress = isatty(STDERR_FILENO),
	};
	hold_streams();
	prep_sandbox_begin();
	cmd->progress.report = report_progress;
	cmd->progress.arg = cmd;
	/* The second signal kills at once. */
	catch_interrupt(SIGINT);
	catch_interrupt(SIGTERM);
	catch_interrupt(SIGHUP);
	catch(SIGALRM, on_alarm, 0);
	catch(SIGUSR1, on_usr1, SA_RESTART);
	/* A reader that left, or a limit on the size of files, is an error to be told, not a silent death. */
	catch(SIGPIPE, SIG_IGN, 0);
	catch(SIGXFSZ, SIG_IGN, 0);
	line.started = now();
	if (epoch != NULL) {
		char *end;
		const unsigned long long t = strtoull(epoch, &end, 10);

		if (*epoch < '0' || *epoch > '9' || *end != '\0')
			cmd_usage(cmd, "SOURCE_DATE_EPOCH is not a number of seconds: %s", epoch);
		cmd->time_stamp = t > PREP_VHD_EPOCH ? (uint32_t)prep_min(t - PREP_VHD_EPOCH, UINT32_MAX) : 0;
	}
}

void cmd_option(struct cmd *cmd, int c)
{
	const struct prep_err done = PREP_ERR_INIT;

	switch (c) {
	case 'h':
		fputs(cmd->usage, stdout);
		exit(cmd_finish(cmd, &done));
	case 'V':
		printf("%s %s\n", cmd->prog, PREP_VERSION);
		exit(cmd_finish(cmd, &done));
	case 'q':
		cmd->quiet = true;
		break;
	case 'v':
		cmd->verbose++;
		break;
	case 'j':
		cmd->json = true;
		break;
	case 'p':
		cmd->show_progress = true;
		break;
	case 'n':
		cmd->dry_run = true;
		break;
	case 'f':
		cmd->force = true;
		break;
	case 'i':
		cmd->in_place = true;
		break;
	case 'o':
		cmd->output = optarg;
		break;
	case CMD_OPT_TMPDIR:
		cmd->tmpdir = optarg;
		break;
	case CMD_OPT_PARENT:
		if (cmd->parents.n == PREP_PARENT_DEPTH)
			cmd_usage(cmd, "--parent: given too often");
		cmd->parent[cmd->parents.n++] = optarg;
		cmd->parents.path = cmd->parent;
		break;
	default:
		/* getopt_long has said what is wrong. */
		fprintf(stderr, "Try '%s --help'.\n", cmd->prog);
		exit(PREP_EUSAGE);
	}
}

void cmd_usage(const struct cmd *cmd, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", cmd->prog);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nTry '%s --help'.\n", cmd->prog);
	exit(PREP_EUSAGE);
}

uint64_t cmd_number(const struct cmd *cmd, const char *option, const char *text)
{
	static const char suffixes[] = "kmgt";
	const char *suffix;
	char *end;
	unsigned long long n;
	unsigned shift = 0;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (end == text || text[0] == '-' || errno != 0)
		cmd_usage(cmd, "%s: not a number: %s", option, text);
	if (*end != '\0') {
		suffix = strchr(suffixes, *end | 0x20);
		if (suffix == NULL || end[1] != '\0')
			cmd_usage(cmd, "%s: not a number: %s", option, text);
		shift = 10 * (unsigned)(suffix - suffixes + 1);
	}
	if (n > UINT64_MAX >> shift)
		cmd_usage(cmd, "%s: too large: %s", option, text);
	return (uint64_t)n << shift;
}

uint32_t cmd_block_size(const struct cmd *cmd, const char *text)
{
	const uint64_t n = cmd_number(cmd, "--block-size", text);

	if (!prep_is_pow2(n) || n < PREP_VHD_BLOCK_SIZE_MIN || n > PREP_VHD_BLOCK_SIZE_MAX)
		cmd_usage(cmd, "--block-size: a power of two from 512K to 256M, not %s", text);
	return (uint32_t)n;
}

unsigned cmd_volume(const struct cmd *cmd, const char *text)
{
	const uint64_t n = cmd_number(cmd, "--volume", text);

	if (n < 1 || n > PREP_PARTITIONS_MAX)
		cmd_usage(cmd, "--volume: a partition's number from 1 to %d, not %s", PREP_PARTITIONS_MAX, text);
	return (unsigned)n;
}

unsigned cmd_jobs(const struct cmd *cmd, const char *text)
{
	const uint64_t n = cmd_number(cmd, "--jobs", text);

	if (n < 1 || n > PREP_POOL_THREADS_MAX)
		cmd_usage(cmd, "--jobs: 1 to %u, not %s", PREP_POOL_THREADS_MAX, text);
	return (unsigned)n;
}

void cmd_warn(const struct cmd *cmd, const char *fmt, ...)
{
	va_list ap;

	clear_line();
	fprintf(stderr, "%s: ", cmd->prog);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void cmd_notes(const struct cmd *cmd, const struct prep_notes *notes)
{
	if (cmd->quiet)
		return;
	for (size_t i = 0; i < notes->n; i++)
		cmd_warn(cmd, "warning: %s", notes->text[i]);
	if (notes->dropped > 0)
		cmd_warn(cmd, "warning: and %zu more", notes->dropped);
}

int cmd_finish(struct cmd *cmd, const struct prep_err *err)
{
	clear_line();
	if (err->code == PREP_DONE) {
		if (fflush(stdout) == 0 && !ferror(stdout))
			return PREP_DONE;
		/* A reader of a report that has seen enough, such as head(1): the silent death it expects. */
		if (errno == EPIPE) {
			signal(SIGPIPE, SIG_DFL);
			raise(SIGPIPE);
		}
		cmd_warn(cmd, "standard output: %s", strerror(errno));
		return PREP_EFAIL;
	}
	cmd_warn(cmd, "%s", err->msg);
	if (interrupted_by) {
		signal(interrupted_by, SIG_DFL);
		raise(interrupted_by);
	}
	return (int)err->code;
}

bool cmd_interrupted(void)
{
	return interrupted_by != 0;
}

bool cmd_is_stdin(const char *path)
{
	return path == NULL || strcmp(path, "-") == 0;
}

/*
 * A raw disk says nowhere how long it is: a stream that was cut off passes for
 * a shorter one. Its partition table may tell.
 */
static int check_cut_off(struct prep_disk *d, struct prep_err *err)
{
	struct prep_err why = PREP_ERR_INIT;
	struct prep_table table;

	if (strcmp(d->ops->kind, "raw") != 0)
		return 0;
	if (prep_table_read(d, &table, &why) == 0) {
		prep_table_clear(&table);
		return 0;
	}
	return prep_fail(err, why.code, "%s (was the stream cut off?)", why.msg);
}

int cmd_open_spooled(struct cmd *cmd, const void *head, size_t head_len, struct prep_disk **ret,
		     struct prep_err *err)
{
	const int fd = prep_spool(STDIN_FILENO, head, head_len, cmd->tmpdir, "standard input", &cmd->progress, err);

	if (fd < 0 || prep_disk_open_fd_chain(fd, "standard input", false, 0, &cmd->parents, ret, err) < 0)
		return -1;
	if (check_cut_off(*ret, err) == 0)
		return 0;
	prep_disk_close(*ret);
	*ret = NULL;
	return -1;
}

static int open_stdin(struct cmd *cmd, struct prep_disk **ret, struct prep_err *err)
{
	struct stat st;
	int fd;

	if (isatty(STDIN_FILENO))
		return prep_fail(err, PREP_EUSAGE, "standard input is a terminal: name an image, or pipe one in");
	if (fstat(STDIN_FILENO, &st) != 0 || !S_ISREG(st.st_mode))
		return cmd_open_spooled(cmd, NULL, 0, ret, err);
	fd = dup(STDIN_FILENO);
	if (fd < 0)
		return prep_fail_errno(err, "standard input");
	return prep_disk_open_fd_chain(fd, "standard input", false, 0, &cmd->parents, ret, err);
}

bool cmd_same_file(const char *a, const char *b)
{
	struct stat x, y;

	return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* A differencing disk is nothing without its parents: they are not overwritten, no more than it is itself. */
static int check_parents_stay(const struct cmd *cmd, const struct prep_disk *d, struct prep_err *err)
{
	if (cmd->output == NULL || strcmp(cmd->output, "-") == 0)
		return 0;
	for (const struct prep_disk *p = d->parent; p != NULL; p = p->parent)
		if (cmd_same_file(p->name, cmd->output))
			return prep_fail(err, PREP_EUSAGE, "%s: would be overwritten, and %s is nothing without its parent",
					 cmd->output, d->name);
	return 0;
}

int cmd_open_image(struct cmd *cmd, const char *path, unsigned flags, struct prep_disk **ret,
		   struct prep_err *err)
{
	if (cmd_is_stdin(path) ? open_stdin(cmd, ret, err) < 0
			       : prep_disk_open_chain(path, flags, &cmd->parents, ret, err) < 0)
		return -1;
	cmd_notes(cmd, &(*ret)->notes);
	if (check_parents_stay(cmd, *ret, err) == 0)
		return 0;
	prep_disk_close(*ret);
	*ret = NULL;
	return -1;
}

unsigned cmd_in_place_flags(const struct cmd *cmd)
{
	return !cmd->in_place ? 0 : cmd->dry_run ? PREP_DISK_TRY : PREP_DISK_WRITE;
}

int cmd_refuse_child(const struct cmd *cmd, const struct prep_disk *d, const char *why,
		     struct prep_err *err)
{
	if (!cmd->in_place || !d->differencing)
		return 0;
	return prep_fail(err, PREP_EREFUSED, "%s: a differencing disk: %s: -o FILE writes a disk of its own", d->name, why);
}

void cmd_check_edit(const struct cmd *cmd, const char *image)
{
	if (cmd->in_place && cmd->output != NULL)
		cmd_usage(cmd, "-i and -o exclude each other");
	if (cmd->in_place && cmd_is_stdin(image))
		cmd_usage(cmd, "-i needs an image by name");
	if (!cmd->in_place && !cmd->dry_run && cmd->output == NULL && isatty(STDOUT_FILENO))
		cmd_usage(cmd, "standard output is a terminal: use -o FILE, -i, or a pipe");
}

int cmd_confine(struct cmd *cmd, struct prep_sandbox *may, struct prep_err *err)
{
	prep_sandbox_write(may, cmd->tmpdir);
	return prep_sandbox_enter(may, err) < 0 ? -1 : 0;
}

static void may_open_one(struct prep_sandbox *may, const char *path)
{
	const bool others = prep_disk_names_others(path);
	char *mark = prep_file_beside(path, PREP_UNDO_MARK_SUFFIX);

	prep_sandbox_read(may, path);
	prep_sandbox_read(may, mark);
	free(mark);
	may->read_all |= others;
	if (others ? prep_journal_waits_near(path) : prep_journal_waits(path))
		prep_sandbox_output(may, path);
}

void cmd_may_open(const struct cmd *cmd, struct prep_sandbox *may, const char *path)
{
	if (!cmd_is_stdin(path))
		may_open_one(may, path);
	for (size_t i = 0; i < cmd->parents.n; i++)
		may_open_one(may, cmd->parents.path[i]);
}

void cmd_may_read_package(struct prep_sandbox *may, const char *path)
{
	char *index;

	prep_sandbox_read(may, path);
	if (asprintf(&index, "%s.index", path) < 0) {
		may->lost = true;
		return;
	}
	prep_sandbox_read(may, index);
	free(index);
}

int cmd_open_output(struct cmd *cmd, const char *path, bool replace, const char *image,
		    struct prep_output **ret, struct prep_err *err)
{
	struct stat st;

	*ret = NULL;
	if (cmd->dry_run && (path == NULL || prep_output_is_stream(path)))
		return 0;
	/* In place the image itself is open, and locked, all the time. */
	if (replace && !prep_output_is_stream(path) &&
	    (cmd->in_place ? prep_undo_mark_check : prep_disk_check_replaced)(path, err) < 0)
		return -1;
	if (prep_output_open(path, replace, ret, err) < 0)
		return -1;
	if ((cmd_is_stdin(image) ? fstat(STDIN_FILENO, &st) : stat(image, &st)) == 0 && S_ISREG(st.st_mode) &&
	    !cmd->in_place && prep_output_same(*ret, &st)) {
		prep_output_close(*ret);
		*ret = NULL;
		return prep_fail(err, PREP_EUSAGE, "%s: input and output are the same file%s", path,
				 strstr(cmd->usage, "--in-place") != NULL ? " (-i changes it in place)" : "");
	}
	if (!cmd->in_place)
		prep_output_set_check(*ret, prep_disk_check_replaced);
	if (cmd->dry_run) {
		prep_output_close(*ret);
		*ret = NULL;
	}
	return 0;
}

int cmd_edit_open(struct cmd *cmd, const char *image, struct cmd_edit *edit, struct prep_err *err)
{
	const bool in_place = cmd->in_place && !cmd->dry_run;
	const char *writes = in_place ? image : cmd->dry_run ? "-" : cmd->output != NULL ? cmd->output : "-";
	struct prep_sandbox may = { .network = false };
	const struct prep_vhd_info *vhd;
	struct stat st;

	*edit = (struct cmd_edit){ .image = image };
	/* A journal beside a device would lie in /dev, gone with the power that it is to survive. */
	if (cmd->in_place && stat(image, &st) == 0 && S_ISBLK(st.st_mode))
		return prep_fail(err, PREP_EREFUSED,
				 "%s: a block device has no room beside it for the journal of a change in place: use -o FILE",
				 image);
	/* The output first: what is wrong with it is better told before a pipe is read. */
	if (!cmd->in_place &&
	    cmd_open_output(cmd, cmd->output != NULL ? cmd->output : "-", cmd->force, image, &edit->out, err) < 0)
		return -1;
	/* The journal of a change in place, or the new file. */
	prep_sandbox_output(&may, writes);
	cmd_may_open(cmd, &may, image);
	if (cmd_confine(cmd, &may, err) < 0 ||
	    cmd_open_image(cmd, image, cmd_in_place_flags(cmd), &edit->disk, err) < 0)
		return -1;
	prep_sandbox_output(&may, writes);
	may.read_all = false;
	if (cmd_confine(cmd, &may, err) < 0)
		return -1;
	vhd = prep_vhd_disk_info(edit->disk);
	if (vhd != NULL && vhd->footer.saved_state == 1)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: the footer is marked as in a saved state: start the virtual machine and shut it down",
				 edit->disk->name);
	if (vhd != NULL && vhd->footer.type == PREP_VHD_DYNAMIC)
		edit->blocks_before = vhd->blocks_allocated;
	if (prep_overlay_open(edit->disk, cmd->tmpdir, &edit->overlay, err) < 0 ||
	    prep_volumes_open(edit->disk, &edit->volumes, err) < 0)
		return -1;
	cmd_notes(cmd, &edit->volumes->table.notes);
	return 0;
}

static int write_out(struct cmd *cmd, struct cmd_edit *edit, struct prep_err *err)
{
	struct prep_export how;
	struct prep_export_report report;
	uint64_t need;

	if (prep_export_same(edit->disk, cmd->time_stamp, &how, err) < 0)
		return -1;
	if (prep_output_seekable(edit->out) &&
	    (prep_export_estimate(edit->overlay, &how, &need, &cmd->progress, err) < 0 ||
	     prep_output_check_space(edit->out, need, err) < 0))
		return -1;
	if (prep_export(edit->overlay, edit->out, &how, &report, &cmd->progress, err) < 0)
		return -1;
	return prep_output_commit(edit->out, err);
}

int cmd_edit_commit(struct cmd *cmd, struct cmd_edit *edit, struct prep_err *err)
{
	const struct prep_vhd_info *vhd = prep_vhd_disk_info(edit->disk);

	if (edit->out != NULL) {
		if (write_out(cmd, edit, err) < 0)
			return -1;
	} else if (cmd->dry_run) {
		if (prep_scan_fills(edit->overlay, &edit->zeroed, &cmd->progress, err) < 0)
			return -1;
	} else if (prep_journal_commit(edit->overlay, edit->image, &edit->zeroed, &cmd->progress, err) < 0) {
		return -1;
	}
	if (vhd != NULL && vhd->footer.type == PREP_VHD_DYNAMIC &&
	    prep_scan_blocks(edit->overlay, vhd->header.block_size, &edit->blocks_after, err) < 0)
		return -1;
	return 0;
}

int cmd_edit_next(struct cmd *cmd, struct cmd_edit *edit, struct prep_err *err)
{
	struct prep_disk *base = edit->overlay;

	prep_volumes_close(edit->volumes);
	edit->volumes = NULL;
	if (cmd->in_place && !cmd->dry_run) {
		if (prep_journal_commit(edit->overlay, edit->image, &edit->zeroed, &cmd->progress, err) < 0)
			return -1;
		prep_disk_close(edit->overlay);
		base = edit->disk;
	} else {
		edit->earlier = edit->overlay;
	}
	edit->overlay = NULL;
	return prep_overlay_open(base, cmd->tmpdir, &edit->overlay, err) < 0 ||
	       prep_volumes_open(base, &edit->volumes, err) < 0 ? -1 : 0;
}

void cmd_edit_close(struct cmd_edit *edit)
{
	prep_volumes_close(edit->volumes);
	prep_disk_close(edit->overlay);
	prep_disk_close(edit->earlier);
	prep_disk_close(edit->disk);
	prep_output_close(edit->out);
}

FILE *cmd_report(const struct cmd *cmd)
{
	const bool image_on_stdout = !cmd->dry_run && !cmd->in_place &&
				     (cmd->output == NULL || strcmp(cmd->output, "-") == 0);

	return image_on_stdout ? stderr : stdout;
}

void cmd_print_json(const struct cmd *cmd, json_t *report)
{
	clear_line();
	/* A text that is not UTF-8 makes nothing of the whole; nobody is to take that for a report. */
	if (report == NULL) {
		cmd_warn(cmd, "the report cannot be put as JSON");
		exit(PREP_EFAIL);
	}
	json_dumpf(report, cmd_report(cmd), JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	fputc('\n', cmd_report(cmd));
	json_decref(report);
}

char *cmd_utf8(const char *text)
{
	char *ret = strdup(text);

	if (ret != NULL && !prep_utf8_valid(ret, strlen(ret)))
		for (char *p = ret; *p != '\0'; p++)
			if ((unsigned char)*p >= 0x80)
				*p = '?';
	return ret;
}

json_t *cmd_json_text(const char *text)
{
	char *copy = text != NULL ? cmd_utf8(text) : NULL;
	json_t *ret = copy != NULL ? json_string(copy) : json_null();

	free(copy);
	return ret;
}

void cmd_print_text(FILE *f, const char *text)
{
	char *copy = strdup(text);

	if (copy == NULL)
		return;
	prep_utf8_one_line(copy);
	fputs(copy, f);
	free(copy);
}

const char *cmd_size(uint64_t bytes)
{
	static const char *const unit[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	static char buf[8][24];
	static unsigned next;
	char *const p = buf[next++ % 8];
	double v = (double)bytes;
	unsigned u = 0;

	while (v >= 1024 && u < 6) {
		v /= 1024;
		u++;
	}
	snprintf(p, sizeof buf[0], u == 0 ? "%.0f %s" : v < 10 ? "%.2f %s" : v < 100 ? "%.1f %s" : "%.0f %s",
		 v, unit[u]);
	return p;
}
