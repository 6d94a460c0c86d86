// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * What the files of ntfs-populate share. base.c: errors, the clock, numbers that only look random; contents.c: what
 * generated files hold; image.c: the volume in its image; tree.c: names, folders and streams; report.c: digests, export;
 * ops_data.c, ops_names.c and import.c: the operations of a manifest. All end the program by DIE on an error.
 */
#ifndef POPULATE_H
#define POPULATE_H

#include <sys/types.h>
#include <sys/stat.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <openssl/evp.h>
#include <ntfs-3g/types.h>
#include <ntfs-3g/device.h>
#include <ntfs-3g/volume.h>
#include <ntfs-3g/attrib.h>
#include <ntfs-3g/bitmap.h>
#include <ntfs-3g/cache.h>
#include <ntfs-3g/inode.h>
#include <ntfs-3g/dir.h>
#include <ntfs-3g/ea.h>
#include <ntfs-3g/layout.h>
#include <ntfs-3g/logging.h>
#include <ntfs-3g/mst.h>
#include <ntfs-3g/ntfstime.h>
#include <ntfs-3g/reparse.h>
#include <ntfs-3g/runlist.h>
#include <ntfs-3g/unistr.h>

#define CHUNK (4U << 20)	/* libntfs-3g updates metadata for every write: few and big ones */
#define BLOCK (64U << 10)	/* what a generator makes at a time */
#define SECURITY_ID 0x101	/* the descriptor that mkntfs puts into $Secure for ordinary files */

/* ---- base.c ---- */

extern unsigned line_no;	/* of the manifest; 0: not in one */
extern int64_t clock_ns;	/* the clock that libntfs-3g sees */

#define DIE(...) die(1, __VA_ARGS__)

struct rng {
	uint64_t s;
};

static inline uint64_t rnd(struct rng *r)
{
	/* xorshift64*: quick, and good enough to be incompressible */
	r->s ^= r->s >> 12;
	r->s ^= r->s << 25;
	r->s ^= r->s >> 27;
	return r->s * 0x2545f4914f6cdd1d;
}

__attribute__((noreturn)) void die(int status, const char *fmt, ...);
void *xalloc(size_t n);
char *xstrdup(const char *s);
uint64_t mix(uint64_t x);
struct rng rng_at(uint64_t a, uint64_t b);
void put_le16(uint8_t *p, uint16_t v);
void put_le32(uint8_t *p, uint32_t v);
void put_le64(uint8_t *p, uint64_t v);
uint64_t get_le(const uint8_t *p, int n);
uint64_t get_be(const uint8_t *p, int n);

/* ---- contents.c ---- */

enum kind { ZEROS, NOISE, TEXT, LOG, PE, CAB, HIVE, PAGE, HIBER, HIBR, DUMP, SCCA, EVT, KINDS };

extern const char *const kind_names[KINDS];

#define WORDS 1024
extern char words[WORDS][16];	/* that texts and names are made of */
extern uint8_t word_len[WORDS];

struct gen {
	enum kind kind;
	uint64_t size, seed;
};

void make_tables(void);
void fill_page(struct rng *r, uint8_t *p, size_t n);
void gen_block(const struct gen *g, uint64_t index, uint8_t *p);
size_t gen_read(const struct gen *g, uint64_t pos, uint8_t *buf);
uint8_t *changed_version(const uint8_t *old, size_t len, uint64_t seed, size_t *ret_len);

/* ---- image.c ---- */

struct image {
	const char *path;
	int fd;
	bool ro;
	uint64_t size;		/* of the disk in it */
	uint64_t base, len;	/* of the volume on the disk */
	int64_t pos;
	uint32_t *bat, bat_len, block;
};

int full_pread(int fd, void *buf, size_t n, uint64_t off);
int full_pwrite(int fd, const void *buf, size_t n, uint64_t off);
void image_open(struct image *im, const char *path, int64_t offset, bool ro);
ntfs_volume *volume_open(struct image *im);
void volume_close(ntfs_volume *vol, struct image *im);
void stamp_volume(struct image *im, uint64_t seed);

/* ---- tree.c ---- */

struct path {
	char *dir;		/* without the last name, "" for the root */
	char *name;
	const char *stream;	/* or NULL */
	char *text;
};

struct entry {
	char *name;
	uint64_t ref;
	bool dir;
};

struct entries {
	struct entry *e;
	size_t n, room;
};

void path_split(struct path *p, const char *text, bool with_stream);
void path_free(struct path *p);
int to_ucs(const char *s, ntfschar **u);
int64_t lookup(ntfs_inode *dir, const char *name);
ntfs_inode *inode_open(ntfs_volume *vol, uint64_t ref, const char *what);
void inode_close(ntfs_inode *ni, const char *what);
ntfs_inode *create(ntfs_inode *dir, const char *name, mode_t type, const char *what);
void forget_dir(void);
ntfs_inode *dir_open(ntfs_volume *vol, const char *path, bool make);
ntfs_inode *file_open(ntfs_volume *vol, const struct path *p, bool make);
ntfs_attr *data_open(ntfs_inode *ni, const struct path *p);
void data_close(ntfs_attr *na, const char *what);
void data_write(ntfs_attr *na, uint64_t pos, const void *buf, size_t n, const char *what);
void data_read(ntfs_attr *na, uint64_t pos, void *buf, size_t n, const char *what);
void data_gen(ntfs_attr *na, uint64_t pos, const struct gen *g, const char *what);
void touch(ntfs_inode *ni);
uint8_t *host_read(const char *file, size_t *len);
void list_dir(ntfs_inode *dir, struct entries *l, const char *what);
void free_entries(struct entries *l);
char *join(const char *a, const char *sep, const char *b);
size_t list_streams(ntfs_inode *ni, char ***ret, const char *what);
ntfs_attr *stream_open(ntfs_inode *ni, const char *stream, const char *what);

/* ---- report.c ---- */

void digest(ntfs_volume *vol, bool hash);
bool all_zero(const uint8_t *p, size_t n);
void export_dir(ntfs_volume *vol, uint64_t ref, const char *path, const char *to, unsigned percent, uint64_t seed);
void place(const char *file, const char *image, uint64_t offset);

/* ---- ops_data.c, ops_names.c, import.c ---- */

extern ntfs_volume *volume;	/* the one that is filled */

uint64_t number(const char *s);
struct gen gen_of(const char *kind, const char *size, const char *seed);
void put_bytes(const char *path, const uint8_t *b, size_t len);
void link_name(const char *new, const char *old);
void set_short(uint64_t dir_ref, uint64_t ref, const char *name, const char *what);

/* Each takes the fields of a line of the manifest, its own name the first, and their number. */
void op_mkdir(char **a, int n);
void op_put(char **a, int n);
void op_gen(char **a, int n);
void op_append(char **a, int n);
void op_write(char **a, int n);
void op_truncate(char **a, int n);
void op_compress(char **a, int n);
void op_grow(char **a, int n);
void op_fragment(char **a, int n);
void op_rm(char **a, int n);
void op_link(char **a, int n);
void op_rename(char **a, int n);
void op_update(char **a, int n);
void op_replace(char **a, int n);
void op_short(char **a, int n);
void op_attrib(char **a, int n);
void op_junction(char **a, int n);
void op_symlink(char **a, int n);
void op_reparse(char **a, int n);
void op_ea(char **a, int n);
void op_wof(char **a, int n);
void op_usnjrnl(char **a, int n);
void op_bad(char **a, int n);
void op_logfile(char **a, int n);
void op_time(char **a, int n);
void op_dirty(char **a, int n);
void op_clean(char **a, int n);
void op_import(char **a, int n);

#endif
