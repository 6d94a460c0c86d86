/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * powerloss - what a folder may look like after a power loss during a command
 *
 * The command is recorded by tests/preload/record.c. What an fsync has not made
 * durable may be lost or kept, in any order: of a file every sector by itself,
 * its size and its permissions; of a folder every name. The states that are
 * tried at an fsync hold those that are possible anywhere since the one before. Each is
 * made in the folder and shown to the judge.
 */
#include <limits.h>

#include "scenario.h"
#include "tests/preload/record.h"

static const char usage[] =
"Usage: powerloss [--seed N] [--states N] RECORD PRELOAD FOLDER JUDGE COMMAND...\n"
"Run COMMAND in FOLDER under the library RECORD, and the shell command JUDGE,\n"
"under PRELOAD, in each state that a power loss may leave FOLDER in: all subsets\n"
"of up to 7 calls that are not durable, else N (default 20) random ones at each\n"
"fsync, by whole calls and by single sectors.\n";

#define SECTOR 512u
#define EXHAUSTIVE 7u /* calls */

struct op {
	struct record r;
	char *to, *from;           /* below the folder */
	const unsigned char *data;
	size_t file;               /* index in files: of what ino means at that time */
	bool pending, keep;
};

/* A file as it is on the disk for sure; what is not durable yet is in the log. */
struct file {
	uint64_t ino;
	unsigned char *data;
	size_t size;
	mode_t mode;
	bool named;                /* there is or was a name for it */
	bool written;              /* since the beginning */
	struct timespec mtime;     /* at the beginning */
};

struct name {
	char *path;
	size_t file;               /* SIZE_MAX: a folder */
	bool there;
};

static struct scenario scenario;
static struct op *op;
static struct file *file;
static struct name *name;
static size_t ops, files, names;
static uint64_t rng;
static const char *preload, *judge;
static unsigned long states, barriers;

static size_t new_file(uint64_t ino, mode_t mode)
{
	file = grow(file, files, sizeof *file);
	file[files] = (struct file){ .ino = ino, .mode = mode };
	return files++;
}

static size_t file_of(uint64_t ino)
{
	for (size_t i = files; i-- > 0;)
		if (file[i].ino == ino)
			return i;
	return new_file(ino, 0600);
}

static void set_name(struct name **list, size_t *n, const char *path, size_t f, bool there)
{
	for (size_t i = 0; i < *n; i++) {
		if (strcmp((*list)[i].path, path) == 0) {
			(*list)[i].file = f;
			(*list)[i].there = there;
			return;
		}
	}
	*list = grow(*list, *n, sizeof **list);
	(*list)[(*n)++] = (struct name){ text("%s", path), f, there };
}

/* ---- What becomes of a file ---- */

static void resize(unsigned char **data, size_t *size, size_t to)
{
	*data = realloc(*data, to + 1);
	if (*data == NULL)
		die("memory");
	if (to > *size)
		memset(*data + *size, 0, to - *size);
	*size = to;
}

/* Carry o out on [from, to) of what is there of a file; growing it is another thing. */
static void apply_bytes(const struct op *o, unsigned char *data, size_t size, uint64_t from, uint64_t to)
{
	from = from > o->r.off ? from : o->r.off;
	to = to < o->r.off + o->r.len ? to : o->r.off + o->r.len;
	to = to < size ? to : size;
	if (from >= to || o->r.op == RECORD_SIZE)
		return;
	if (o->r.op == RECORD_DATA)
		memcpy(data + from, o->data + (from - o->r.off), to - from);
	else
		memset(data + from, 0, to - from);
}

static size_t size_after(const struct op *o, size_t size)
{
	if (o->r.op == RECORD_SIZE)
		return o->r.off;
	return o->r.op == RECORD_DATA && o->r.off + o->r.len > size ? o->r.off + o->r.len : size;
}

static bool is_content(const struct op *o)
{
	return o->r.op == RECORD_DATA || o->r.op == RECORD_ZERO || o->r.op == RECORD_SIZE;
}

static void make_durable(struct op *o)
{
	struct file *f = &file[o->file];

	if (is_content(o)) {
		const size_t size = size_after(o, f->size);

		if (size != f->size)
			resize(&f->data, &f->size, size);
		apply_bytes(o, f->data, f->size, 0, UINT64_MAX);
		f->written = true;
	} else if (o->r.op == RECORD_MODE) {
		f->mode = (mode_t)o->r.off;
	}
	o->pending = false;
}

/* ---- States ---- */

/* By whole calls: those that have `keep` set. By sectors: each of each call with the chance of `odds` in 8. */
static void build_file(size_t i, size_t end, bool sectors, unsigned odds, struct file *ret)
{
	size_t size = file[i].size, versions = 1, most;

	*ret = file[i];
	ret->data = NULL;
	ret->size = 0;
	for (size_t k = 0; k < end; k++) {
		if (!op[k].pending || op[k].file != i || (!is_content(&op[k]) && op[k].r.op != RECORD_MODE))
			continue;
		if (op[k].r.op == RECORD_MODE) {
			if (sectors ? random_below(&rng, 8) < odds : op[k].keep)
				ret->mode = (mode_t)op[k].r.off;
			continue;
		}
		versions++;
		if (sectors || op[k].keep)
			ret->written = true;
	}
	/* The size: one of those that it has had. */
	most = sectors && random_below(&rng, 2) == 0 ? random_below(&rng, versions) : versions;
	versions = 0;
	for (size_t k = 0; k < end && versions < most; k++) {
		if (!op[k].pending || op[k].file != i || !is_content(&op[k]))
			continue;
		versions++;
		if (sectors || op[k].keep)
			size = size_after(&op[k], size);
	}
	ret->data = malloc((size > file[i].size ? size : file[i].size) + 1);
	if (ret->data == NULL)
		die("memory");
	if (file[i].size > 0)
		memcpy(ret->data, file[i].data, file[i].size);
	ret->size = file[i].size;
	if (size != ret->size)
		resize(&ret->data, &ret->size, size);
	for (size_t k = 0; k < end; k++) {
		const struct record *r = &op[k].r;

		if (!op[k].pending || op[k].file != i || !is_content(&op[k]))
			continue;
		if (!sectors) {
			if (op[k].keep)
				apply_bytes(&op[k], ret->data, ret->size, 0, UINT64_MAX);
			continue;
		}
		for (uint64_t at = r->off / SECTOR * SECTOR; r->op != RECORD_SIZE && at < r->off + r->len && at < size; at += SECTOR)
			if (random_below(&rng, 8) < odds)
				apply_bytes(&op[k], ret->data, ret->size, at, at + SECTOR);
	}
}

static bool is_name(const struct op *o)
{
	return o->r.op == RECORD_LINK || o->r.op == RECORD_MOVE || o->r.op == RECORD_DROP || o->r.op == RECORD_FOLDER;
}

static void apply_name(const struct op *o, struct name **list, size_t *n)
{
	set_name(list, n, o->to, o->r.op == RECORD_FOLDER ? SIZE_MAX : o->file, o->r.op != RECORD_DROP);
	if (o->r.op != RECORD_MOVE)
		return;
	for (size_t i = 0; i < *n; i++)
		if (strcmp((*list)[i].path, o->from) == 0 && (*list)[i].file == o->file)
			(*list)[i].there = false;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct name *)a)->path, ((const struct name *)b)->path);
}

/* Whether the folder that path is in is there. */
static bool has_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *whole = text("%s/%.*s", scenario.folder, slash == NULL ? 0 : (int)(slash - path), path);
	const bool ret = access(whole, F_OK) == 0;

	free(whole);
	return ret;
}

/* Make the state in the folder, and ask the judge. */
static void try(size_t end, bool sectors, unsigned odds, const char *how)
{
	struct name *list = NULL;
	size_t n = 0;

	empty_folder(scenario.folder);
	for (size_t i = 0; i < names; i++)
		set_name(&list, &n, name[i].path, name[i].file, name[i].there);
	for (size_t k = 0; k < end; k++)
		if (op[k].pending && is_name(&op[k]) && (sectors ? random_below(&rng, 8) < odds : op[k].keep))
			apply_name(&op[k], &list, &n);
	qsort(list, n, sizeof *list, by_path); /* folders before what is in them */
	for (size_t i = 0; i < n; i++) {
		char *whole = text("%s/%s", scenario.folder, list[i].path);
		struct file f;

		if (list[i].there && has_folder(list[i].path)) {
			if (list[i].file == SIZE_MAX) {
				if (mkdir(whole, 0755) != 0)
					die(whole);
			} else {
				build_file(list[i].file, end, sectors, odds, &f);
				write_whole(whole, f.data, f.size, f.mode);
				if (!f.written && f.mtime.tv_sec != 0)
					set_mtime(whole, f.mtime);
				free(f.data);
			}
		}
		free(whole);
		free(list[i].path);
	}
	free(list);
	states++;
	if (scenario_judge(&scenario, preload, judge))
		return;
	printf("a power loss at call %zu of %zu, state %lu (%s) leaves what is neither old nor new:\n", end, ops, states, how);
	scenario_show_messages(&scenario);
	exit(1);
}

/* Whether this call can be seen: its file has a name, or gets one by another pending call. */
static bool counts(size_t k)
{
	return op[k].pending && (is_name(&op[k]) || file[op[k].file].named);
}

/* All states before call `end`. */
static void try_all(size_t end, unsigned n)
{
	size_t pending = 0, *which = NULL;

	for (size_t k = 0; k < end; k++) {
		op[k].keep = false;
		if (!counts(k))
			continue;
		which = grow(which, pending, sizeof *which);
		which[pending++] = k;
	}
	if (pending == 0)
		return;
	barriers++;
	if (pending <= EXHAUSTIVE) {
		for (unsigned set = 0; set < 1u << pending; set++) {
			for (size_t i = 0; i < pending; i++)
				op[which[i]].keep = set >> i & 1;
			try(end, false, 0, "whole calls, all subsets");
		}
	} else {
		for (unsigned t = 0; t < n; t++) {
			/* Nothing, everything, all that came before, one alone, all but one, and anything. */
			const size_t cut = random_below(&rng, pending);

			for (size_t i = 0; i < pending; i++)
				op[which[i]].keep = t == 0 ? false : t == 1 ? true : t % 4 == 0 ? i < cut
						    : t % 4 == 1 ? i == cut : t % 4 == 2 ? i != cut : random_below(&rng, 2) == 0;
			try(end, false, 0, t % 4 == 3 ? "whole calls, at random" : "whole calls");
		}
	}
	for (unsigned t = 0; t < n; t++)
		try(end, true, 1 + t % 7, "single sectors");
	free(which);
}

/* ---- The log ---- */

static char *take_name(const unsigned char **p, size_t len)
{
	const size_t skip = strlen(scenario.folder);
	char *whole, *ret = NULL;

	if (len == 0)
		return NULL;
	whole = text("%.*s", (int)len, (const char *)*p);
	*p += len;
	if (strncmp(whole, scenario.folder, skip) == 0 && (whole[skip] == '/' || whole[skip] == '\0'))
		ret = text("%s", whole[skip] == '/' ? whole + skip + 1 : "");
	free(whole);
	return ret;
}

static void read_log(const char *path)
{
	size_t size;
	const unsigned char *p = read_whole(path, &size), *end = p + size;

	while (p < end) {
		struct op o = { .pending = false };

		memcpy(&o.r, p, sizeof o.r);
		p += sizeof o.r;
		o.to = take_name(&p, o.r.to);
		o.from = take_name(&p, o.r.from);
		o.data = p;
		if (o.r.op == RECORD_DATA)
			p += o.r.len;
		/* What happens to names elsewhere is not looked at. */
		if (o.to == NULL && o.r.to != 0)
			continue;
		if (o.r.op == RECORD_NEW)
			o.file = new_file(o.r.ino, (mode_t)o.r.off);
		else if (o.r.ino != 0)
			o.file = file_of(o.r.ino);
		if (o.r.op == RECORD_LINK || o.r.op == RECORD_MOVE)
			file[o.file].named = true;
		op = grow(op, ops, sizeof *op);
		op[ops++] = o;
	}
}

/* The files that were there before the command, under the inodes that it saw. */
static void start_files(void)
{
	for (size_t i = 0; i < scenario.files; i++) {
		const struct scenario_file *s = &scenario.file[i];
		char *whole = text("%s/%s", scenario.folder, s->path);
		struct stat st;
		size_t f = SIZE_MAX;

		if (lstat(whole, &st) != 0)
			die(whole);
		if (!s->folder) {
			f = new_file(st.st_ino, s->mode);
			resize(&file[f].data, &file[f].size, s->size);
			memcpy(file[f].data, s->data, s->size);
			file[f].mtime = s->mtime;
			file[f].named = true;
		}
		set_name(&name, &names, s->path, f, true);
		free(whole);
	}
}

/* Whether a name is in the folder `dir` itself. */
static bool is_in(const char *path, const char *dir)
{
	const char *slash = strrchr(path, '/');
	const size_t len = slash == NULL ? 0 : (size_t)(slash - path);

	return strlen(dir) == len && strncmp(path, dir, len) == 0;
}

static void replay(unsigned n)
{
	for (size_t k = 0; k < ops; k++) {
		const struct op *o = &op[k];

		if (o->r.op != RECORD_SYNC && o->r.op != RECORD_SYNCDIR) {
			op[k].pending = o->r.op != RECORD_NEW;
			continue;
		}
		try_all(k, n);
		for (size_t i = 0; i < k; i++) {
			if (!op[i].pending)
				continue;
			if (o->r.op == RECORD_SYNC && !is_name(&op[i]) && op[i].file == o->file) {
				make_durable(&op[i]);
			} else if (o->r.op == RECORD_SYNCDIR && is_name(&op[i]) && is_in(op[i].to, o->to)) {
				apply_name(&op[i], &name, &names);
				op[i].pending = false;
			}
		}
	}
	try_all(ops, n);
}

int main(int argc, char **argv)
{
	unsigned long n = 20, seed = 0;
	char log[] = "/tmp/powerloss.XXXXXX";
	int fd, status;

	for (; argc > 2 && strncmp(argv[1], "--", 2) == 0; argc -= 2, argv += 2) {
		if (strcmp(argv[1], "--seed") == 0)
			seed = strtoul(argv[2], NULL, 10);
		else if (strcmp(argv[1], "--states") == 0)
			n = strtoul(argv[2], NULL, 10);
		else
			break;
	}
	if (argc < 6 || argv[1][0] == '-') {
		fputs(usage, argc == 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
		return argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
	}
	preload = argv[2];
	judge = argv[4];
	rng = random_start(seed);
	scenario_open(&scenario, argv[3]);
	scenario_restore(&scenario);
	start_files();
	fd = mkstemp(log);
	if (fd < 0)
		die(log);
	setenv("RECORD_LOG", log, 1);
	status = scenario_run(&scenario, argv[1], argv + 5);
	unsetenv("RECORD_LOG");
	if (status != 0) {
		printf("%s: status %d\n", argv[5], status);
		scenario_show_messages(&scenario);
		return 1;
	}
	read_log(log);
	close(fd);
	unlink(log);
	replay((unsigned)n);
	if (barriers == 0) {
		printf("%s: nothing recorded\n", argv[5]);
		return 1;
	}
	printf("%lu states at %lu syncs, seed %lu\n", states, barriers, seed);
	scenario_restore(&scenario);
	return 0;
}
