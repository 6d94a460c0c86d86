/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the commands share: common options, input and output, progress,
 * messages, reports.
 */
#ifndef CMD_CMD_H
#define CMD_CMD_H

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "libprep/base/err.h"
#include "libprep/base/output.h"
#include "libprep/base/progress.h"
#include "libprep/base/sandbox.h"
#include "libprep/disk/disk.h"
#include "libprep/disk/parent.h"
#include "libprep/disk/export.h"
#include "libprep/disk/vhd.h"
#include "libprep/volume/volumes.h"

struct cmd {
	const char *prog;
	const char *usage;     /* the whole --help text */

	bool quiet, json, dry_run, force, in_place, show_progress;
	int verbose;
	const char *output;    /* -o; NULL when not given */
	const char *tmpdir;    /* --tmpdir, else $TMPDIR, else /var/tmp */
	uint32_t time_stamp;   /* for new VHDs, seconds since 2000: $SOURCE_DATE_EPOCH, else 0 */
	const char *parent[PREP_PARENT_DEPTH]; /* --parent */
	struct prep_parents parents;

	struct prep_progress progress; /* pass &cmd->progress to the library */
};

/* Options whose long names have no short one begin here; a command's own go on after CMD_OPT_OWN. */
enum { CMD_OPT_TMPDIR = 256, CMD_OPT_PARENT, CMD_OPT_OWN };

/* Every command has these. */
#define CMD_SHORT_COMMON "hVqvjp"
#define CMD_LONG_COMMON                                                        \
	{ "help", no_argument, NULL, 'h' },                                    \
	{ "version", no_argument, NULL, 'V' },                                 \
	{ "quiet", no_argument, NULL, 'q' },                                   \
	{ "verbose", no_argument, NULL, 'v' },                                 \
	{ "json", no_argument, NULL, 'j' },                                    \
	{ "progress", no_argument, NULL, 'p' },                                \
	{ "tmpdir", required_argument, NULL, CMD_OPT_TMPDIR }

/* Those that read an image by cmd_open_image have this. */
#define CMD_LONG_PARENT { "parent", required_argument, NULL, CMD_OPT_PARENT }
#define CMD_USAGE_PARENT                                                       \
"      --parent FILE      where a parent of a differencing disk is now; may be\n" \
"                         given for each of them\n"

/* Those that write an image have these too. */
#define CMD_SHORT_EDIT "nfio:"
#define CMD_LONG_EDIT                                                          \
	{ "dry-run", no_argument, NULL, 'n' },                                 \
	{ "force", no_argument, NULL, 'f' },                                   \
	{ "in-place", no_argument, NULL, 'i' },                                \
	{ "output", required_argument, NULL, 'o' }

/* Set up signals, environment and progress. Call first. */
void cmd_start(struct cmd *cmd, const char *prog, const char *usage);

/*
 * Take one of the common options, c and optarg as getopt_long left them.
 * --help and --version do their work and exit; what is no common option is an
 * unknown one: a message, and exit with status 2.
 */
void cmd_option(struct cmd *cmd, int c);

/* A message about the command line and where to get help; exits with status 2. */
void cmd_usage(const struct cmd *cmd, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), noreturn));

/* Parse a number with an optional suffix k, M, G, T (powers of 1024), or exit as cmd_usage. */
uint64_t cmd_number(const struct cmd *cmd, const char *option, const char *text);

/* Parse --block-size, or exit as cmd_usage. */
uint32_t cmd_block_size(const struct cmd *cmd, const char *text);

/* Parse --volume's partition number, or exit as cmd_usage. */
unsigned cmd_volume(const struct cmd *cmd, const char *text);

/* Parse --jobs's number of threads, or exit as cmd_usage. */
unsigned cmd_jobs(const struct cmd *cmd, const char *text);

/* "PROG: MESSAGE" on standard error. */
void cmd_warn(const struct cmd *cmd, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Print what the library noted, unless quiet. */
void cmd_notes(const struct cmd *cmd, const struct prep_notes *notes);

/*
 * The end of every command: print err, if it is one, and return the exit
 * status. A command that a signal interrupted dies by that signal.
 */
int cmd_finish(struct cmd *cmd, const struct prep_err *err);

/*
 * Open an image for reading, or with PREP_DISK_WRITE: a path, or "-" or NULL for standard input,
 * which is spooled where it is a pipe. Prints the disk's notes.
 */
int cmd_open_image(struct cmd *cmd, const char *path, unsigned flags, struct prep_disk **ret,
		   struct prep_err *err);

/* How cmd_open_image opens what is to be changed in place, if it is: a dry run refuses what the run would. */
unsigned cmd_in_place_flags(const struct cmd *cmd);

/* With -i, PREP_EREFUSED for a differencing disk: `why` says what would come of it. */
int cmd_refuse_child(const struct cmd *cmd, const struct prep_disk *d, const char *why,
		     struct prep_err *err);

/*
 * Spool standard input, of which `head` was read already, and open it. A raw
 * disk that is shorter than its partitions is PREP_EDAMAGED.
 */
int cmd_open_spooled(struct cmd *cmd, const void *head, size_t head_len, struct prep_disk **ret,
		     struct prep_err *err);

/* Whether path means standard input. */
bool cmd_is_stdin(const char *path);

/* Whether both are there, and one file. */
bool cmd_same_file(const char *a, const char *b);

/* Check that -i, -o, -n and the image go together, or exit as cmd_usage. */
void cmd_check_edit(const struct cmd *cmd, const char *image);

/* An image being edited: changes are staged in `overlay`, then written where the options say. */
struct cmd_edit {
	const char *image;
	struct prep_disk *disk, *overlay;
	struct prep_disk *earlier; /* the overlay of the step before, under this one; NULL */
	struct prep_volumes *volumes;
	struct prep_output *out;  /* NULL in place and for a dry run */
	uint64_t blocks_before;   /* of a dynamic disk: allocated */
	uint64_t blocks_after;    /* of those, holding data as far as is known without reading */
	uint64_t zeroed;          /* in place and in a dry run: bytes that were not zero and are (would be) now */
};

/* Open `image` as cmd's options ask for. Close it in any case. */
int cmd_edit_open(struct cmd *cmd, const char *image, struct cmd_edit *edit, struct prep_err *err);

/* Put what is staged into the image, or write the new one. Nothing for a dry run. */
int cmd_edit_commit(struct cmd *cmd, struct cmd_edit *edit, struct prep_err *err);

/*
 * End one step of an edit and begin the next on its result: in place what is
 * staged is committed now, otherwise the next overlay stands on this one.
 */
int cmd_edit_next(struct cmd *cmd, struct cmd_edit *edit, struct prep_err *err);
void cmd_edit_close(struct cmd_edit *edit);

/*
 * From here on the command has no rights but those that `may` gives (sandbox.h), and
 * what --tmpdir takes. Before the first thread. Commands that open one image do it twice: before
 * that, with what opening takes, and after, with what the work takes.
 */
int cmd_confine(struct cmd *cmd, struct prep_sandbox *may, struct prep_err *err);

/*
 * The image `path` and those of --parent are going to be opened: what that takes. Where a change of it, or of a
 * parent beside it, that was cut off waits, that will be completed. Reading is allowed everywhere where it takes
 * files that only the image names.
 */
void cmd_may_open(const struct cmd *cmd, struct prep_sandbox *may, const char *path);

/* As prep_sandbox_read, for a package and the index beside it. */
void cmd_may_read_package(struct prep_sandbox *may, const char *path);

/*
 * Open the output that the options name; refuses to overwrite the input, or a disk on which an undo disk stands. In a dry
 * run what is refused is the same, but *ret is NULL and nothing is written; path may be NULL.
 */
int cmd_open_output(struct cmd *cmd, const char *path, bool replace, const char *image,
		    struct prep_output **ret, struct prep_err *err);

/* Where the report goes: standard output, or standard error where that carries the image. */
FILE *cmd_report(const struct cmd *cmd);

/* Whether a signal has asked the command to stop. */
bool cmd_interrupted(void);

/* Print a JSON report and release it. */
void cmd_print_json(const struct cmd *cmd, json_t *report);

/* A copy of text that need not be UTF-8, as a host's path: then what is beyond ASCII becomes '?'. NULL: no memory. */
char *cmd_utf8(const char *text);

/*
 * The same as a JSON string. Names of files go through it, what a message says of them, and whatever a user typed:
 * Jansson makes nothing of an object for one bad byte. NULL: null.
 */
json_t *cmd_json_text(const char *text);

/* Print text that an image or package holds, such as a file's name: on one line, and with no say over a terminal. */
void cmd_print_text(FILE *f, const char *text);

/* "1.5 GiB": in one of eight buffers, used in turn. */
const char *cmd_size(uint64_t bytes);

#endif
