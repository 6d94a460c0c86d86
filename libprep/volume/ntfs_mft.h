/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * NTFS on disk: file records, their attributes and mapping pairs, read in bulk.
 *
 * A parser of our own, because libntfs-3g opens one file at a time. All of it
 * is taken for hostile: every length is checked against what holds it.
 *
 * Facts: Linux-NTFS documentation ("NTFS Documentation", Russon and Fledel),
 * and <ntfs-3g/layout.h>, whose names of fields the comments use.
 */
#ifndef PREP_VOLUME_NTFS_MFT_H
#define PREP_VOLUME_NTFS_MFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libprep/base/err.h"

struct prep_ntfs;

/* A reference: the record's number, and in the upper 16 bits its sequence number. */
#define PREP_NTFS_NUMBER(ref) ((ref) & 0xffffffffffffULL)
#define PREP_NTFS_SEQUENCE(ref) ((uint16_t)((ref) >> 48))
#define PREP_NTFS_REF(number, sequence) ((uint64_t)(number) | (uint64_t)(sequence) << 48)

/* Records of the file system itself */
#define PREP_NTFS_MFT 0
#define PREP_NTFS_LOGFILE 2
#define PREP_NTFS_VOLUME 3
#define PREP_NTFS_ROOT 5
#define PREP_NTFS_BITMAP 6
#define PREP_NTFS_BADCLUS 8
#define PREP_NTFS_EXTEND 11
#define PREP_NTFS_FIRST_USER 24 /* below, everything is the system's or reserved */

/* Types of attributes */
#define PREP_NTFS_ATTR_STANDARD 0x10u
#define PREP_NTFS_ATTR_LIST 0x20u
#define PREP_NTFS_ATTR_NAME 0x30u
#define PREP_NTFS_ATTR_VOLUME_NAME 0x60u
#define PREP_NTFS_ATTR_VOLUME_INFO 0x70u
#define PREP_NTFS_ATTR_DATA 0x80u
#define PREP_NTFS_ATTR_INDEX_ROOT 0x90u
#define PREP_NTFS_ATTR_INDEX 0xa0u
#define PREP_NTFS_ATTR_BITMAP 0xb0u

/* ---- Runs ---- */

#define PREP_NTFS_HOLE UINT64_MAX

struct prep_ntfs_run {
	uint64_t vcn, lcn, len; /* clusters; lcn may be PREP_NTFS_HOLE */
};

struct prep_ntfs_runs {
	struct prep_ntfs_run *run; /* ascending by vcn, without gaps, adjacent ones joined */
	size_t n, room;
	uint64_t end;              /* the vcn after the last run */
};

/* Append; -1 for lack of memory. */
int prep_ntfs_runs_add(struct prep_ntfs_runs *runs, uint64_t lcn, uint64_t len, struct prep_err *err);
void prep_ntfs_runs_clear(struct prep_ntfs_runs *runs);
bool prep_ntfs_runs_inside(const struct prep_ntfs *n, const struct prep_ntfs_runs *runs);

/*
 * Read [off, off+len) of the stream; holes and what lies beyond the runs are
 * zeros. Runs outside the volume are PREP_EDAMAGED.
 */
int prep_ntfs_runs_read(struct prep_ntfs *n, const struct prep_ntfs_runs *runs, uint64_t off,
			void *buf, size_t len, struct prep_err *err);

/* Decoder of mapping pairs. */
struct prep_ntfs_pairs {
	const uint8_t *p, *end;
	uint64_t vcn;
	int64_t lcn;
};

/* 1: a run (len > 0; its lcn may lie outside the volume); 0: the end; -1: they are damaged. */
int prep_ntfs_pairs_next(struct prep_ntfs_pairs *pairs, struct prep_ntfs_run *ret);

/* ---- Records and attributes ---- */

enum prep_ntfs_state {
	PREP_NTFS_BLANK, /* not a file record */
	PREP_NTFS_TORN,  /* update sequence or header are wrong, or marked BAAD */
	PREP_NTFS_FREE,
	PREP_NTFS_USED,
};

struct prep_ntfs_record {
	const uint8_t *p;
	uint64_t number;
	uint64_t base;      /* reference of the base record, 0 for a base record */
	uint32_t first;     /* offset of the first attribute */
	uint32_t used;      /* bytes */
	uint16_t sequence;
	uint16_t links;
	bool folder;
};

/*
 * Undo the update sequence of a record or index block of `size` bytes that
 * begins with `magic`. False when it is torn: p is then unchanged.
 */
bool prep_ntfs_fixup(uint8_t *p, size_t size, const char *magic);

/* Whether the update sequence of what was fixed up lies in [from, to) of it: writing puts numbers there. */
bool prep_ntfs_fixup_inside(const uint8_t *p, size_t from, size_t to);

/* Fix up and look at a record of `size` bytes. *in_use is set for TORN ones too where it can be told. */
enum prep_ntfs_state prep_ntfs_record_check(uint8_t *p, uint32_t size, uint64_t number,
					    struct prep_ntfs_record *ret, bool *in_use);

struct prep_ntfs_attr {
	uint32_t type;
	uint16_t flags;        /* 1 compressed, 0x4000 encrypted, 0x8000 sparse */
	const uint8_t *name;   /* UTF-16LE */
	uint8_t name_len;      /* units */
	bool resident;
	/* Resident */
	const uint8_t *value;
	uint32_t value_len;
	/* Not resident */
	uint64_t lowest_vcn;
	uint64_t end_vcn;      /* highest_vcn + 1 */
	uint64_t allocated, size, initialized; /* bytes, where lowest_vcn is 0 */
	struct prep_ntfs_pairs pairs;
};
#define PREP_NTFS_COMPRESSED 0x00ffu
#define PREP_NTFS_ENCRYPTED 0x4000u
#define PREP_NTFS_SPARSE 0x8000u

/* The attribute at *at, which begins as 0: 1, 0 after the last, -1 when the record is damaged. */
int prep_ntfs_attr_next(const struct prep_ntfs_record *r, uint32_t *at, struct prep_ntfs_attr *ret);

/* Whether the attribute's name is the ASCII text. */
bool prep_ntfs_attr_named(const struct prep_ntfs_attr *a, const char *name);

/* The names of a file: $FILE_NAME's value, also the key of an index entry. */
struct prep_ntfs_name {
	uint64_t parent;      /* reference */
	uint64_t size;
	uint32_t attributes;
	uint8_t space;        /* 0 POSIX, 1 Win32, 2 DOS, 3 both */
	uint8_t len;          /* units */
	const uint8_t *text;  /* UTF-16LE */
};
#define PREP_NTFS_WIN32 1
#define PREP_NTFS_DOS 2

bool prep_ntfs_name_decode(const uint8_t *value, size_t len, struct prep_ntfs_name *ret);

/* UTF-8 for paths: '/' and NUL, which no path can hold, become U+FFFD. */
#define PREP_NTFS_NAME_ROOM (255 * 3 + 1)
size_t prep_ntfs_name_utf8(const struct prep_ntfs_name *name, char *out);

/* ---- The MFT ---- */

struct prep_ntfs_mft {
	struct prep_ntfs *n;
	struct prep_ntfs_runs runs;
	uint64_t records;
	uint8_t *window;          /* of consecutive records */
	uint64_t window_first, window_end;
};

int prep_ntfs_mft_open(struct prep_ntfs_mft *m, struct prep_ntfs *n, struct prep_err *err);
void prep_ntfs_mft_close(struct prep_ntfs_mft *m);

/*
 * A record's bytes, for callers that take the records in order: read ahead by
 * a MiB. The caller may change them; they stay until the next call.
 */
int prep_ntfs_mft_next(struct prep_ntfs_mft *m, uint64_t number, uint8_t **ret, struct prep_err *err);

/*
 * For such callers: the first record from `number` on that is not in a hole of the disk, or `records`. What is passed
 * over has never been written: zeros. 0, or -1 with *err.
 */
int prep_ntfs_mft_skip_holes(struct prep_ntfs_mft *m, uint64_t number, uint64_t *ret, struct prep_err *err);

/* Begin again: what was read, and perhaps changed by the caller, is forgotten. */
void prep_ntfs_mft_rewind(struct prep_ntfs_mft *m);

/* One record's bytes, into record_size bytes at buf. number < records. */
int prep_ntfs_mft_read(struct prep_ntfs_mft *m, uint64_t number, uint8_t *buf, struct prep_err *err);

/* ---- Files ---- */

/* A file: its base record and its extension records. */
struct prep_ntfs_file {
	struct prep_ntfs_record *record; /* the base record first */
	size_t n;
	uint8_t *buf;                    /* of the records, where the file owns them */
};

/*
 * The file whose base record is `base`, already checked, with the extension
 * records that its attribute list names. The base record's bytes must outlive
 * the file. A list that cannot be followed is PREP_EDAMAGED.
 */
int prep_ntfs_file_join(struct prep_ntfs_mft *m, const struct prep_ntfs_record *base,
			struct prep_ntfs_file *ret, struct prep_err *err);

/*
 * The file of a reference. PREP_EDAMAGED when there is no such base record in
 * use; a sequence number of 0 matches any.
 */
int prep_ntfs_file_load(struct prep_ntfs_mft *m, uint64_t ref, struct prep_ntfs_file *ret,
			struct prep_err *err);
void prep_ntfs_file_clear(struct prep_ntfs_file *f);

/* All attributes of the file, record by record. */
struct prep_ntfs_cursor {
	size_t record;
	uint32_t at;
};
int prep_ntfs_file_next(const struct prep_ntfs_file *f, struct prep_ntfs_cursor *c,
			struct prep_ntfs_attr *ret);

/*
 * Every stream of clusters: fn gets the first segment's attribute and the runs
 * of all segments joined, which may lie outside the volume. Missing or
 * overlapping segments and wrong sizes are PREP_EDAMAGED.
 */
int prep_ntfs_file_streams(struct prep_ntfs *n, const struct prep_ntfs_file *f,
			   int (*fn)(void *arg, const struct prep_ntfs_attr *a,
				     const struct prep_ntfs_runs *runs, struct prep_err *err),
			   void *arg, struct prep_err *err);

/*
 * One attribute of a file, resident or not: 1 and its runs (resident: none,
 * use ret->value), 0 when it has none such, -1.
 */
int prep_ntfs_file_find(struct prep_ntfs *n, const struct prep_ntfs_file *f, uint32_t type,
			const char *name, struct prep_ntfs_attr *ret, struct prep_ntfs_runs *runs,
			struct prep_err *err);

#endif
