/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The index of a package: what the disk is made of, and where each piece is.
 *
 * In memory. ckm(5) specifies the bytes. Every number has been checked when
 * prep_ckm_index_decode returns: sums agree, ranges lie inside the disk and
 * do not overlap, references exist.
 */
#ifndef PREP_CKM_INDEX_H
#define PREP_CKM_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libprep/base/err.h"
#include "libprep/disk/vhd_format.h"

#define PREP_DIGEST_SIZE 32 /* SHA-256 */

/* Bounds that hold for every index, checked before memory is allocated. */
#define PREP_CKM_CHUNK_MAX (1u << 20)      /* bytes of a chunk */
#define PREP_CKM_FRAME_MAX (64u << 20)     /* bytes of a frame, unpacked */
#define PREP_CKM_PATCH_MAX (4u << 20)      /* the same of a patch frame */
#define PREP_CKM_REFERENCE_MAX (8u << 20)  /* bytes of a patch frame's reference data, */
#define PREP_CKM_REFERENCE_RATIO 16u       /* and how many times its own bytes, so that work is bounded by those */
#define PREP_CKM_CHUNKS_MAX (1u << 27)
#define PREP_CKM_FRAMES_MAX (1u << 24)
#define PREP_CKM_STREAMS_MAX (1u << 24)
#define PREP_CKM_REFS_MAX (1u << 28)
#define PREP_CKM_RUNS_MAX (1u << 28)
#define PREP_CKM_INDEX_MAX ((uint64_t)2 << 30) /* bytes of an encoded index, unpacked */

/*
 * Bytes of an encoded index whose body takes `body` bytes. What compresses better
 * is stored: so no small file makes a reader allocate much.
 */
static inline uint64_t prep_ckm_index_max(uint64_t body)
{
	const uint64_t max = ((uint64_t)8 << 20) + 8 * body;

	return max < PREP_CKM_INDEX_MAX ? max : PREP_CKM_INDEX_MAX;
}

/* How a frame's bytes are packed. */
enum prep_codec {
	PREP_CODEC_STORE = 0,
	PREP_CODEC_DEFLATE = 1, /* zlib format, RFC 1950 */
	PREP_CODEC_XZ = 2,      /* an .xz stream; the x86 BCJ filter is named in it where it was used */
	PREP_CODEC_ZSTD = 3,    /* a zstd frame */
	PREP_CODECS,            /* those above pack whatever stands by itself */
	PREP_CODEC_LZMA2 = PREP_CODECS, /* raw LZMA2: of patch frames alone */
};

enum prep_frame_kind {
	PREP_FRAME_PLAIN = 0,  /* decodes by itself */
	PREP_FRAME_PATCH = 1,  /* decodes with chunks of a base; its chunks are other frames' too. After all others */
	PREP_FRAME_ABSENT = 2, /* a difference package: its chunks are in the base, or in patch frames */
};

struct prep_frame {
	uint64_t off;           /* in the .ckm, of its stored bytes */
	uint32_t stored;        /* bytes there, the seal's tag included; 0 for ABSENT */
	uint32_t size;          /* bytes unpacked: the sum of its chunks' */
	uint8_t codec, kind;
	uint32_t first_chunk, chunks; /* its chunks stand in it one after the other; of a patch: in index->patch_chunk */
	uint8_t digest[PREP_DIGEST_SIZE]; /* of the stored bytes */
};

struct prep_chunk {
	uint8_t digest[PREP_DIGEST_SIZE]; /* of the bytes: SHA-256 */
	uint32_t size;          /* 1 to PREP_CKM_CHUNK_MAX */
	uint32_t frame;         /* derived from the frame table; never a patch frame */
	uint32_t at;            /* in the unpacked frame; derived */
};

/* What a patch frame is decoded with: chunks of a base, one after the other. */
struct prep_patch {
	uint32_t first, references; /* in index->patch_reference */
	uint32_t size;          /* bytes of all of them: at most PREP_CKM_REFERENCE_MAX */
};

/* What a stream's content is, by its first bytes: for grouping and reports. */
enum prep_content {
	PREP_CONTENT_PE,        /* x86 and x64 programs and libraries */
	PREP_CONTENT_DOTNET,    /* PE with a CLR header */
	PREP_CONTENT_TEXT,
	PREP_CONTENT_HIVE,      /* registry */
	PREP_CONTENT_PACKED,    /* compressed already: zip, cab, png, jpeg, ... */
	PREP_CONTENT_OTHER,
	PREP_CONTENT_METADATA,  /* of a file system, tables */
	PREP_CONTENT_OPAQUE,    /* of partitions that are not known */
	PREP_CONTENT_FREE,      /* in clusters that no file claims, and behind files' data */
	PREP_CONTENT_KINDS,
};
const char *prep_content_name(enum prep_content c); /* "pe", "dotnet", ...: static */

/*
 * A stream: bytes in logical order (a file's data, or a range of the disk),
 * cut into chunks, and where on the disk they go. Chunk sizes and run lengths
 * have the same sum.
 */
struct prep_stream {
	const char *path;          /* "" for what is no file; in the index's string space */
	uint8_t content;           /* enum prep_content */
	uint8_t volume;            /* partition number, 0 for none */
	uint64_t size;             /* bytes */
	uint32_t first_ref, refs;  /* in index->ref */
	uint32_t first_run, runs;  /* in index->run */
};

struct prep_run {
	uint64_t off, len;         /* bytes of the disk */
};

/* What is not in any run is zeros. */
struct prep_ckm_index {
	/* The image */
	char name[256], version[64], comment[1024]; /* UTF-8 */
	uint64_t disk_size;
	uint32_t disk_type;        /* enum prep_vhd_type; 0: a raw disk */
	uint32_t block_size;       /* of a dynamic VHD */
	struct prep_vhd_footer identity;
	uint8_t base_id[16];       /* of the package that this was packed against; zeros if none */

	struct prep_frame *frame;
	uint32_t frames;
	struct prep_chunk *chunk;  /* no two with the same digest */
	uint32_t chunks;
	struct prep_stream *stream;
	uint32_t streams;
	uint32_t *ref;             /* chunk numbers */
	uint32_t refs;
	struct prep_run *run;
	uint32_t runs;
	char *strings;             /* the paths, each with its NUL */
	size_t strings_len;

	/* Patches: another way to get chunks, for who holds a base. */
	uint32_t patches;          /* frames of that kind: the last ones of frame[] */
	struct prep_patch *patch;  /* of each of those */
	uint32_t *patch_chunk;     /* chunk numbers, ascending within a frame */
	uint32_t patch_chunks;
	struct prep_chunk *reference; /* chunks of bases, no two with the same digest; frame and at say nothing */
	uint32_t references;
	uint32_t *patch_reference; /* numbers in reference[], ascending within a frame */
	uint32_t patch_references;
};

/* The number of chunk k of a frame. */
static inline uint32_t prep_frame_chunk(const struct prep_ckm_index *in, const struct prep_frame *f, uint32_t k)
{
	return f->kind == PREP_FRAME_PATCH ? in->patch_chunk[f->first_chunk + k] : f->first_chunk + k;
}

/* How frame number i, of kind PATCH, is decoded. */
static inline const struct prep_patch *prep_frame_patch(const struct prep_ckm_index *in, uint32_t i)
{
	return &in->patch[i - (in->frames - in->patches)];
}

/* Whether a name has none of: control characters, space, " < > | \ / : * ? */
bool prep_ckm_name_allowed(const char *name);

/*
 * Encode to the bytes of ckm(5), and back. The encoded bytes are not yet
 * compressed or sealed. Decoding checks all: PREP_EDAMAGED names the section
 * and what is wrong. The caller frees *ret; clears the index.
 */
int prep_ckm_index_encode(const struct prep_ckm_index *in, uint8_t **ret, size_t *len,
			  struct prep_err *err);
int prep_ckm_index_decode(const uint8_t *p, size_t len, const char *name,
			  struct prep_ckm_index *ret, struct prep_err *err);
void prep_ckm_index_clear(struct prep_ckm_index *in);

/* The chunk with a digest, or UINT32_MAX. A table over an index, or over several. */
struct prep_chunk_table;
int prep_chunk_table_new(const struct prep_ckm_index *in, struct prep_chunk_table **ret,
			 struct prep_err *err);
uint32_t prep_chunk_table_find(const struct prep_chunk_table *t, const uint8_t digest[PREP_DIGEST_SIZE]);
void prep_chunk_table_free(struct prep_chunk_table *t);

#endif
