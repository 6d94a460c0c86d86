// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * ntfs-populate - fill, change and inspect an NTFS volume inside an image file, without a mount and without root
 *
 * The volume is found inside the image: a bare volume, the largest NTFS partition of an MBR or GPT, or whatever starts at
 * --offset. Raw images and fixed VHDs are read and written; dynamic VHDs are only read.
 *
 * A manifest of operations is read from standard input, one a line. Fields are separated by blanks; a field with blanks
 * stands in "double" or 'single' quotes. Empty lines and lines that begin with # are skipped. Paths begin with / and are
 * matched exactly; missing folders above a new file are made. FILE:STREAM names an alternate data stream wherever a
 * PATH's data is written. SIZE, OFFSET and CHUNK are bytes, or have a suffix K, M or G.
 *
 *	mkdir PATH			a folder
 *	put PATH HOSTFILE [SEED]	a file with HOSTFILE's contents, or (SEED not 0) with a changed version of them
 *	gen PATH KIND SIZE SEED		a file of generated contents; replaces what is there
 *	append PATH KIND SIZE SEED	more at the end
 *	write PATH OFFSET KIND SIZE SEED	over what is there, or into a hole
 *	truncate PATH SIZE		cut, or lengthen by a hole
 *	sparse PATH SIZE		a new file that is one hole
 *	compress PATH			a new empty file (or an existing folder) that NTFS compresses
 *	grow CHUNK COUNT KIND SEED PATH...	append CHUNK bytes to each PATH in turn, COUNT times: they interleave
 *	fragment PATH COUNT KIND SEED	a file of COUNT fragments of one cluster each, single free clusters between them
 *	rm PATH				remove a file, or a folder with all in it
 *	link PATH EXISTING		a hard link
 *	rename PATH NEWPATH
 *	update PATH SEED [OLDPATH]	what an update does: the old file moves to OLDPATH (or goes), a changed one is made
 *	replace PATH HOSTFILE [OLDPATH]	the same with HOSTFILE's contents
 *	short PATH NAME83		its 8.3 short name
 *	attrib PATH LETTERS		r read-only, h hidden, s system, a archive, i not indexed
 *	junction PATH TARGET		a folder that is a junction to TARGET, e.g. C:\Users
 *	symlink PATH TARGET		a file that is a symbolic link to TARGET, e.g. ..\file
 *	reparse PATH TAG KIND SIZE SEED	a file with a reparse point of that tag (hexadecimal)
 *	ea PATH NAME TEXT		an extended attribute
 *	wof PATH KIND SIZE SEED		a file as `compact /exe` leaves it: one hole, with its data in a stream of its own
 *	usnjrnl SIZE SEED		$Extend/$UsnJrnl with a sparse $J whose last SIZE bytes are records
 *	bad LCN COUNT			free clusters become bad ones: $BadClus's
 *	import IMAGE [OFFSET]		everything from the NTFS volume in IMAGE, laid out anew
 *	time SECONDS			set the clock (Unix time); it then runs by a millisecond for each look at it
 *	dirty | clean			set or clear the volume's dirty flag
 *	logfile STATE			the journal is empty, zero, clean, unclean, or fast (version 2.0, fast start-up); the
 *					last thing to do, because what is not clean cannot be written again
 *
 * KIND: zero noise text log pe cab hive page hiber hibr dump scca evt
 * (hiber is a hibernation file that was resumed from, hibr one that still holds a session; both are /hiberfil.sys's.)
 *
 * The same manifest, seed and time give the same bytes.
 */
#include "tests/tools/populate/populate.h"

static const char usage[] =
	"Usage: ntfs-populate [OPTION]... IMAGE <MANIFEST\n"
	"       ntfs-populate --digest|--list [--offset BYTES] IMAGE\n"
	"       ntfs-populate --export DIR --percent N [--seed N] IMAGE\n"
	"       ntfs-populate --place FILE --offset BYTES IMAGE\n"
	"       ntfs-populate --make FILE KIND SIZE SEED\n"
	"Fill, change or inspect an NTFS volume inside an image file.\n"
	"\n"
	"      --offset BYTES  the volume starts there (default: look for it)\n"
	"      --seed N        whatever is random follows from N (default 1)\n"
	"      --time SECONDS  the clock's start, Unix time (default: from the seed)\n"
	"      --stamp         first give what `mkntfs -T` made its times and serial\n"
	"      --digest        print SHA-256, size and path of every file and stream,\n"
	"                      sorted by path; folders end in / and have no digest\n"
	"      --list          the same without reading the data\n"
	"      --export DIR    copy N percent of the files to a folder on the host\n"
	"      --place FILE    copy FILE's data, not its holes, to BYTES in IMAGE\n"
	"      --make FILE     make a file on the host with generated contents\n"
	"  -h, --help          this text\n"
	"\n"
	"Manifest (a line each; quote names with blanks; FILE:STREAM for a stream):\n"
	"  mkdir PATH                          rm PATH\n"
	"  put PATH HOSTFILE [SEED]            link PATH EXISTING\n"
	"  gen PATH KIND SIZE SEED             rename PATH NEWPATH\n"
	"  append PATH KIND SIZE SEED          update PATH SEED [OLDPATH]\n"
	"  write PATH OFFSET KIND SIZE SEED    replace PATH HOSTFILE [OLDPATH]\n"
	"  truncate PATH SIZE                  short PATH NAME83\n"
	"  sparse PATH SIZE                    attrib PATH LETTERS (rhsai)\n"
	"  compress PATH                       junction PATH TARGET\n"
	"  grow CHUNK COUNT KIND SEED PATH...  reparse PATH TAG KIND SIZE SEED\n"
	"  fragment PATH COUNT KIND SEED       usnjrnl SIZE SEED\n"
	"  wof PATH KIND SIZE SEED             time SECONDS\n"
	"  import IMAGE [OFFSET]               symlink PATH TARGET\n"
	"  ea PATH NAME TEXT\n"
	"  dirty | clean                       logfile empty|zero|clean|unclean|fast\n"
	"KIND: zero noise text log pe cab hive page hiber hibr dump scca evt\n";

static const struct op {
	const char *name;
	int min, max;		/* fields, the name among them */
	void (*run)(char **fields, int n);
} op_table[] = {
	{ "mkdir", 2, 2, op_mkdir },
	{ "put", 3, 4, op_put },
	{ "gen", 5, 5, op_gen },
	{ "append", 5, 5, op_append },
	{ "write", 6, 6, op_write },
	{ "truncate", 3, 3, op_truncate },
	{ "sparse", 3, 3, op_truncate },
	{ "compress", 2, 2, op_compress },
	{ "grow", 6, 64, op_grow },
	{ "fragment", 5, 5, op_fragment },
	{ "rm", 2, 2, op_rm },
	{ "link", 3, 3, op_link },
	{ "rename", 3, 3, op_rename },
	{ "update", 3, 4, op_update },
	{ "replace", 3, 4, op_replace },
	{ "short", 3, 3, op_short },
	{ "attrib", 3, 3, op_attrib },
	{ "junction", 3, 3, op_junction },
	{ "symlink", 3, 3, op_symlink },
	{ "reparse", 6, 6, op_reparse },
	{ "ea", 4, 4, op_ea },
	{ "wof", 5, 5, op_wof },
	{ "usnjrnl", 3, 3, op_usnjrnl },
	{ "bad", 3, 3, op_bad },
	{ "import", 2, 3, op_import },
	{ "logfile", 2, 2, op_logfile },
	{ "time", 2, 2, op_time },
	{ "dirty", 1, 1, op_dirty },
	{ "clean", 1, 1, op_clean },
};

static int split_fields(char *s, char **f, int max)
{
	int n = 0;

	for (;;) {
		char quote = 0;

		s += strspn(s, " \t\r\n");
		if (!*s)
			return n;
		if (n == max)
			DIE("too many fields");
		if (*s == '"' || *s == '\'')
			quote = *s++;
		f[n++] = s;
		if (quote) {
			s = strchr(s, quote);
			if (!s)
				DIE("quote not closed");
		} else {
			s += strcspn(s, " \t\r\n");
		}
		if (*s)
			*s++ = 0;
	}
}

static void run_manifest(FILE *in)
{
	char *line = NULL, *f[64];
	size_t room = 0;

	while (getline(&line, &room, in) > 0) {
		const struct op *o = op_table, *end = op_table + sizeof(op_table) / sizeof(*op_table);
		int n;

		line_no++;
		if (*line == '#')
			continue;
		n = split_fields(line, f, 64);
		if (!n)
			continue;
		while (o < end && strcmp(o->name, f[0]))
			o++;
		if (o == end)
			die(2, "%s: no such operation", f[0]);
		if (n < o->min || n > o->max)
			die(2, "%s: wrong number of fields", f[0]);
		o->run(f, n);
	}
	if (ferror(in))
		DIE("standard input: %s", strerror(errno));
	line_no = 0;
	free(line);
	forget_dir();
}

/* ---- command line ---- */

static void make_host_file(char **a)
{
	struct gen g = gen_of(a[1], a[2], a[3]);
	int fd = open(a[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	static uint8_t buf[CHUNK];
	struct timespec ts[2];
	size_t n;

	if (fd < 0)
		DIE("%s: %s", a[0], strerror(errno));
	for (uint64_t at = 0; at < g.size; at += n) {
		n = gen_read(&g, at, buf);
		if (full_pwrite(fd, buf, n, at) < 0)
			DIE("%s: %s", a[0], strerror(errno));
	}
	ts[0].tv_sec = ts[1].tv_sec = clock_ns / 1000000000;
	ts[0].tv_nsec = ts[1].tv_nsec = 0;
	if (futimens(fd, ts) < 0 || close(fd) < 0)
		DIE("%s: %s", a[0], strerror(errno));
}

int main(int argc, char **argv)
{
	enum { O_OFFSET = 256, O_SEED, O_TIME, O_STAMP, O_DIGEST, O_LIST, O_EXPORT, O_PERCENT, O_PLACE, O_MAKE };
	static const struct option longopts[] = {
		{ "offset", required_argument, NULL, O_OFFSET },
		{ "seed", required_argument, NULL, O_SEED },
		{ "time", required_argument, NULL, O_TIME },
		{ "stamp", no_argument, NULL, O_STAMP },
		{ "digest", no_argument, NULL, O_DIGEST },
		{ "list", no_argument, NULL, O_LIST },
		{ "export", required_argument, NULL, O_EXPORT },
		{ "percent", required_argument, NULL, O_PERCENT },
		{ "place", required_argument, NULL, O_PLACE },
		{ "make", no_argument, NULL, O_MAKE },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	const char *export_to = NULL, *place_file = NULL;
	int64_t offset = -1, start = -1;
	uint64_t seed = 1, percent = 20;
	bool stamp = false;
	struct image im;
	int c, verb = 0;

	while ((c = getopt_long(argc, argv, "h", longopts, NULL)) != -1) {
		switch (c) {
		case O_OFFSET: offset = number(optarg); break;
		case O_SEED: seed = number(optarg); break;
		case O_TIME: start = number(optarg); break;
		case O_STAMP: stamp = true; break;
		case O_EXPORT: export_to = optarg; verb = c; break;
		case O_PERCENT: percent = number(optarg); break;
		case O_PLACE: place_file = optarg; verb = c; break;
		case O_DIGEST: case O_LIST: case O_MAKE: verb = c; break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs("Try 'ntfs-populate --help'.\n", stderr);
			return 2;
		}
	}
	if (argc - optind != (verb == O_MAKE ? 4 : 1) || (verb == O_PLACE && offset < 0)) {
		fputs(usage, stderr);
		return 2;
	}
	/* some day between 2009 and 2012 */
	clock_ns = (start >= 0 ? start : 1230768000 + (int64_t)(mix(seed) % (3 * 365)) * 86400) * 1000000000;
	make_tables();
	if (verb == O_MAKE) {
		make_host_file(argv + optind);
		return 0;
	}
	if (verb == O_PLACE) {
		place(place_file, argv[optind], offset);
		return 0;
	}

	ntfs_log_set_handler(ntfs_log_handler_null);
	ntfs_set_char_encoding("utf8");
	srandom(mix(seed));
	image_open(&im, argv[optind], offset, verb != 0);
	if (stamp && !verb)
		stamp_volume(&im, seed);
	volume = volume_open(&im);
	switch (verb) {
	case O_DIGEST: case O_LIST:
		digest(volume, verb == O_DIGEST);
		break;
	case O_EXPORT:
		export_dir(volume, FILE_root, "", export_to, percent, seed);
		break;
	default:
		run_manifest(stdin);
	}
	volume_close(volume, &im);
	return 0;
}
