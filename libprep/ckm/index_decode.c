/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Decoding the index: nothing in it is believed before it is checked.
 */
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/base/utf16.h"
#include "libprep/ckm/index.h"
#include "libprep/ckm/index_format.h"
#include "libprep/ckm/section.h"
#include "libprep/ckm/seal.h"

#define CHUNK_LEAST (1u + PREP_DIGEST_SIZE) /* bytes of a chunk: its size and digest */
#define STREAM_LEAST_BEHIND 4u              /* of a stream: a reference, a run, two numbers of its path */

/* The payload of a section, being read. */
struct reader {
	const uint8_t *p, *end;
	size_t behind; /* bytes of the sections that follow */
	const char *file, *section;
};

static int damaged(const struct reader *r, const char *what, struct prep_err *err)
{
	return prep_fail(err, PREP_EDAMAGED, "%s: the index is damaged: %s: %s", r->file, r->section, what);
}

static size_t left(const struct reader *r)
{
	return (size_t)(r->end - r->p);
}

static int get_bytes(struct reader *r, size_t len, const uint8_t **ret, struct prep_err *err)
{
	*ret = r->p;
	if (left(r) < len)
		return damaged(r, "it ends too early", err);
	r->p += len;
	return 0;
}

static int get_byte(struct reader *r, uint8_t *ret, struct prep_err *err)
{
	if (left(r) < 1)
		return damaged(r, "it ends too early", err);
	*ret = *r->p++;
	return 0;
}

/* A number of at most `max`, in its shortest form: one value, one encoding. */
static int get_number(struct reader *r, uint64_t max, uint64_t *ret, struct prep_err *err)
{
	uint64_t v = 0;
	unsigned shift = 0;
	uint8_t b = 0;

	do {
		if (get_byte(r, &b, err) < 0)
			return -1;
		if (shift == 63 && b > 1)
			return damaged(r, "a number of more than 64 bits", err);
		v |= (uint64_t)(b & 0x7F) << shift;
		shift += 7;
	} while (b & 0x80);
	if (b == 0 && shift > 7)
		return damaged(r, "a number that is longer than it need be", err);
	if (v > max)
		return damaged(r, "a number out of its bounds", err);
	*ret = v;
	return 0;
}

static int get_u32(struct reader *r, uint32_t max, uint32_t *ret, struct prep_err *err)
{
	uint64_t v;

	if (get_number(r, max, &v, err) < 0)
		return -1;
	*ret = (uint32_t)v;
	return 0;
}

static int get_text(struct reader *r, char *ret, size_t room, struct prep_err *err)
{
	const uint8_t *p;
	uint64_t len;

	if (get_number(r, room - 1, &len, err) < 0 || get_bytes(r, (size_t)len, &p, err) < 0)
		return -1;
	for (size_t i = 0; i < len; i++)
		if (p[i] == 0x7F || (p[i] < ' ' && p[i] != '\n' && p[i] != '\t'))
			return damaged(r, "a control character", err);
	if (!prep_utf8_valid((const char *)p, (size_t)len))
		return damaged(r, "a text that is not UTF-8", err);
	memcpy(ret, p, (size_t)len);
	ret[len] = '\0';
	return 0;
}

static int get_meta(struct reader *r, struct prep_ckm_index *in, struct prep_err *err)
{
	uint8_t again[PREP_VHD_FOOTER_SIZE];
	const uint8_t *p;

	if (get_number(r, INT64_MAX, &in->disk_size, err) < 0 ||
	    get_u32(r, PREP_VHD_DYNAMIC, &in->disk_type, err) < 0 ||
	    get_u32(r, PREP_VHD_BLOCK_SIZE_MAX, &in->block_size, err) < 0)
		return -1;
	if (in->disk_size == 0 || in->disk_size % PREP_VHD_SECTOR != 0)
		return damaged(r, "the size of the disk", err);
	if (in->disk_type == 1)
		return damaged(r, "no such type of disk", err);
	if (in->disk_type == PREP_VHD_DYNAMIC
		    ? !prep_is_pow2(in->block_size) || in->block_size < PREP_VHD_BLOCK_SIZE_MIN
		    : in->block_size != 0)
		return damaged(r, "the block size", err);
	if (get_bytes(r, sizeof again, &p, err) < 0)
		return -1;
	if (!prep_vhd_footer_decode(p, &in->identity) || !in->identity.checksum_ok)
		return damaged(r, "the VHD footer", err);
	prep_vhd_footer_encode(&in->identity, again);
	if (memcmp(p, again, sizeof again) != 0)
		return damaged(r, "the VHD footer", err);
	if (get_bytes(r, sizeof in->base_id, &p, err) < 0)
		return -1;
	memcpy(in->base_id, p, sizeof in->base_id);
	if (get_text(r, in->name, sizeof in->name, err) < 0 ||
	    get_text(r, in->version, sizeof in->version, err) < 0 ||
	    get_text(r, in->comment, sizeof in->comment, err) < 0)
		return -1;
	if (!prep_ckm_name_allowed(in->name))
		return damaged(r, "a character in the name that names cannot have", err);
	return 0;
}

/*
 * Read a count of items, and allocate them. Each takes at least `least` bytes
 * here, and `least_behind` more here or in the sections that follow, so that memory is bounded
 * by the bytes that are there.
 */
static int get_array(struct reader *r, uint32_t max, size_t least, size_t least_behind, size_t item, void *ret,
		     uint32_t *count, struct prep_err *err)
{
	void *array;

	if (get_u32(r, max, count, err) < 0)
		return -1;
	if (*count > left(r) / least || *count > (left(r) + r->behind) / (least + least_behind))
		return damaged(r, "it is too short for its count", err);
	array = calloc((size_t)*count + 1, item);
	if (array == NULL)
		return prep_fail_nomem(err);
	memcpy(ret, &array, sizeof array);
	return 0;
}

static bool frame_possible(unsigned kind, unsigned codec)
{
	switch (kind) {
	case PREP_FRAME_PLAIN:
		return codec < PREP_CODECS;
	case PREP_FRAME_PATCH:
		return codec == PREP_CODEC_STORE || codec == PREP_CODEC_ZSTD || codec == PREP_CODEC_LZMA2;
	case PREP_FRAME_ABSENT:
		return codec == 0;
	default:
		return false;
	}
}

static int get_frames(struct reader *r, struct prep_ckm_index *in, struct prep_err *err)
{
	uint64_t off = PREP_CKM_LEAD_SIZE, chunks = 0, most = PREP_CKM_CHUNKS_MAX;
	const uint8_t *p;
	uint8_t how = 0;

	if (get_array(r, PREP_CKM_FRAMES_MAX, 2, CHUNK_LEAST, sizeof *in->frame, &in->frame, &in->frames, err) < 0)
		return -1;
	for (uint32_t i = 0; i < in->frames; i++) {
		struct prep_frame *f = &in->frame[i];

		if (get_byte(r, &how, err) < 0 || get_u32(r, PREP_CKM_CHUNKS_MAX, &f->chunks, err) < 0)
			return -1;
		f->codec = how & 15;
		f->kind = how >> 4;
		if (!frame_possible(f->kind, f->codec))
			return damaged(r, "a frame of a kind that there is not", err);
		if (f->kind == PREP_FRAME_PATCH && in->patches++ == 0) {
			chunks = 0;
			most = PREP_CKM_REFS_MAX;
		} else if (f->kind != PREP_FRAME_PATCH && in->patches > 0) {
			return damaged(r, "a frame behind the patches", err);
		}
		f->off = off;
		f->first_chunk = (uint32_t)chunks;
		chunks += f->chunks;
		if (f->chunks == 0 || chunks > most)
			return damaged(r, "the number of a frame's chunks", err);
		if (f->kind == PREP_FRAME_ABSENT)
			continue;
		if (get_u32(r, PREP_CKM_FRAME_MAX + PREP_SEAL_TAG, &f->stored, err) < 0 ||
		    get_bytes(r, PREP_DIGEST_SIZE, &p, err) < 0)
			return -1;
		if (f->stored == 0)
			return damaged(r, "an empty frame", err);
		memcpy(f->digest, p, PREP_DIGEST_SIZE);
		off += f->stored;
	}
	in->patch_chunks = in->patches > 0 ? (uint32_t)chunks : 0;
	return 0;
}

static int get_digests(struct reader *r, struct prep_chunk *chunk, uint32_t n, struct prep_err *err)
{
	const uint8_t *p;

	for (uint32_t i = 0; i < n; i++) {
		if (get_bytes(r, PREP_DIGEST_SIZE, &p, err) < 0)
			return -1;
		memcpy(chunk[i].digest, p, PREP_DIGEST_SIZE);
	}
	return 0;
}

static int get_chunk_size(struct reader *r, uint32_t *ret, struct prep_err *err)
{
	if (get_u32(r, PREP_CKM_CHUNK_MAX, ret, err) < 0)
		return -1;
	return *ret != 0 ? 0 : damaged(r, "an empty chunk", err);
}

static int get_chunks(struct reader *r, struct prep_ckm_index *in, struct prep_err *err)
{
	uint32_t next = 0;

	if (get_array(r, PREP_CKM_CHUNKS_MAX, CHUNK_LEAST, 0, sizeof *in->chunk, &in->chunk, &in->chunks, err) < 0)
		return -1;
	for (uint32_t i = 0; i < in->frames - in->patches; i++) {
		struct prep_frame *f = &in->frame[i];
		uint64_t size = 0;

		if (f->chunks > in->chunks - next)
			return damaged(r, "fewer than the frames have", err);
		for (; next < f->first_chunk + f->chunks; next++) {
			struct prep_chunk *c = &in->chunk[next];

			if (get_chunk_size(r, &c->size, err) < 0)
				return -1;
			c->frame = i;
			c->at = (uint32_t)size;
			size += c->size;
			if (size > PREP_CKM_FRAME_MAX)
				return damaged(r, "a frame of too many bytes", err);
		}
		f->size = (uint32_t)size;
		if (f->kind != PREP_FRAME_ABSENT && f->stored > size + PREP_SEAL_TAG)
			return damaged(r, "a frame that takes more than its bytes", err);
	}
	if (next != in->chunks)
		return damaged(r, "more than the frames have", err);
	return get_digests(r, in->chunk, in->chunks, err);
}

static int get_streams(struct reader *r, struct prep_ckm_index *in, struct prep_err *err)
{
	uint64_t refs = 0, runs = 0;

	if (get_array(r, PREP_CKM_STREAMS_MAX, 4, STREAM_LEAST_BEHIND, sizeof *in->stream, &in->stream, &in->streams,
		      err) < 0)
		return -1;
	for (uint32_t i = 0; i < in->streams; i++) {
		struct prep_stream *s = &in->stream[i];

		if (get_byte(r, &s->content, err) < 0 || get_byte(r, &s->volume, err) < 0 ||
		    get_u32(r, PREP_CKM_REFS_MAX, &s->refs, err) < 0 ||
		    get_u32(r, PREP_CKM_RUNS_MAX, &s->runs, err) < 0)
			return -1;
		if (s->content >= PREP_CONTENT_KINDS || s->refs == 0 || s->runs == 0)
			return damaged(r, "a stream that cannot be", err);
		s->first_ref = (uint32_t)refs;
		s->first_run = (uint32_t)runs;
		refs += s->refs;
		runs += s->runs;
		if (refs > PREP_CKM_REFS_MAX || runs > PREP_CKM_RUNS_MAX)
			return damaged(r, "too many chunks or runs", err);
	}
	in->refs = (uint32_t)refs;
	in->runs = (uint32_t)runs;
	return 0;
}

static int get_refs(struct reader *r, struct prep_ckm_index *in, struct prep_err *err)
{
	int64_t expected = 0;
	uint64_t v;

	if (in->refs > left(r))
		return damaged(r, "fewer than the streams have", err);
	in->ref = calloc((size_t)in->refs + 1, sizeof *in->ref);
	if (in->ref == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < in->streams; i++) {
		struct prep_stream *s = &in->stream[i];

		for (uint32_t k = s->first_ref; k < s->first_ref + s->refs; k++) {
			/* Any difference of two chunk numbers has less than 32 bits, the zigzag bit included. */
			if (get_number(r, UINT32_MAX, &v, err) < 0)
				return -1;
			expected += prep_unzigzag(v);
			if (expected < 0 || expected >= in->chunks)
				return damaged(r, "a chunk that there is not", err);
			in->ref[k] = (uint32_t)expected++;
			s->size += in->chunk[in->ref[k]].size;
		}
	}
	return 0;
}

static int get_runs(struct reader *r, struct prep_ckm_index *in, struct prep_err *err)
{
	uint64_t expected = 0, v;

	if (in->runs > left(r))
		return damaged(r, "fewer than the streams have", err);
	in->run = calloc((size_t)in->runs + 1, sizeof *in->run);
	if (in->run == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < in->streams; i++) {
		const struct prep_stream *s = &in->stream[i];
		uint64_t rest = s->size;

		for (uint32_t k = 0; k < s->runs; k++) {
			struct prep_run *run = &in->run[s->first_run + k];

			if (get_number(r, UINT64_MAX, &v, err) < 0)
				return -1;
			run->off = expected + (uint64_t)prep_unzigzag(v);
			run->len = rest;
			if (k + 1 < s->runs && get_number(r, rest, &run->len, err) < 0)
				return -1;
			if (run->len == 0)
				return damaged(r, "an empty run", err);
			if (run->off >= in->disk_size || run->len > in->disk_size - run->off)
				return damaged(r, "a run beyond the end of the disk", err);
			rest -= run->len;
			expected = run->off + run->len;
		}
	}
	return 0;
}

static int get_path(struct reader *r, size_t before, size_t *same, const uint8_t **rest, size_t *len,
		    struct prep_err *err)
{
	uint64_t a, b;

	if (get_number(r, before, &a, err) < 0 || get_number(r, PREP_INDEX_PATH_MAX - a, &b, err) < 0 ||
	    get_bytes(r, (size_t)b, rest, err) < 0)
		return -1;
	*same = (size_t)a;
	*len = (size_t)b;
	if (memchr(*rest, '\0', *len) != NULL)
		return damaged(r, "a path with a zero byte", err);
	return 0;
}

static int get_paths(struct reader *r, struct prep_ckm_index *in, struct prep_err *err)
{
	const uint64_t total_max = prep_index_strings_max(left(r));
	struct reader again = *r;
	size_t same, len, before = 0;
	uint64_t total = 0;
	const uint8_t *rest;
	char *to;

	for (uint32_t i = 0; i < in->streams; i++) {
		if (get_path(r, before, &same, &rest, &len, err) < 0)
			return -1;
		before = same + len;
		total += before + 1;
		if (total > total_max)
			return damaged(r, "too many bytes", err);
	}
	to = malloc((size_t)total + 1);
	if (to == NULL)
		return prep_fail_nomem(err);
	in->strings = to;
	in->strings_len = (size_t)total;
	before = 0;
	for (uint32_t i = 0; i < in->streams; i++) {
		if (get_path(&again, before, &same, &rest, &len, err) < 0)
			return -1;
		if (same < before && len > 0 && in->stream[i - 1].path[same] == (char)rest[0])
			return damaged(r, "a path that has more in common with the one before", err);
		if (same > 0)
			memcpy(to, in->stream[i - 1].path, same);
		memcpy(to + same, rest, len);
		to[same + len] = '\0';
		if (!prep_utf8_valid(to, same + len))
			return damaged(r, "a path that is not UTF-8", err);
		in->stream[i].path = to;
		before = same + len;
		to += before + 1;
	}
	return 0;
}

/* n ascending numbers below `end`, each as how much more it is than the least it can be. */
static int get_ascending(struct reader *r, uint32_t *number, uint32_t n, uint32_t end, struct prep_err *err)
{
	uint64_t next = 0, more;

	for (uint32_t i = 0; i < n; i++) {
		if (get_number(r, UINT32_MAX, &more, err) < 0)
			return -1;
		next += more;
		if (next >= end)
			return damaged(r, "a chunk that there is not", err);
		number[i] = (uint32_t)next++;
	}
	return 0;
}

/* The chunks and the references of frame i, a patch. *room: of in->patch_reference. */
static int get_patch(struct reader *r, struct prep_ckm_index *in, uint32_t i, uint32_t *room, struct prep_err *err)
{
	struct prep_frame *f = &in->frame[i];
	struct prep_patch *p = &in->patch[i - (in->frames - in->patches)];
	uint64_t size = 0, reference = 0;

	if (get_ascending(r, in->patch_chunk + f->first_chunk, f->chunks, in->chunks, err) < 0)
		return -1;
	for (uint32_t k = 0; k < f->chunks; k++)
		size += in->chunk[in->patch_chunk[f->first_chunk + k]].size;
	if (size > PREP_CKM_PATCH_MAX)
		return damaged(r, "a frame of too many bytes", err);
	f->size = (uint32_t)size;
	if (f->stored > size + PREP_SEAL_TAG)
		return damaged(r, "a frame that takes more than its bytes", err);
	if (get_u32(r, in->references, &p->references, err) < 0)
		return -1;
	/* Each takes a byte at least: the room is bounded by what there is. */
	if (p->references == 0 || p->references > left(r) || p->references > PREP_CKM_REFS_MAX - in->patch_references)
		return damaged(r, "the number of a frame's references", err);
	p->first = in->patch_references;
	in->patch_references += p->references;
	if (in->patch_references > *room) {
		uint32_t *more = reallocarray(in->patch_reference, *room = in->patch_references * 2, sizeof *more);

		if (more == NULL)
			return prep_fail_nomem(err);
		in->patch_reference = more;
	}
	if (get_ascending(r, in->patch_reference + p->first, p->references, in->references, err) < 0)
		return -1;
	for (uint32_t k = 0; k < p->references; k++)
		reference += in->reference[in->patch_reference[p->first + k]].size;
	if (reference > PREP_CKM_REFERENCE_MAX || reference > size * PREP_CKM_REFERENCE_RATIO)
		return damaged(r, "a frame of too many reference bytes", err);
	p->size = (uint32_t)reference;
	return 0;
}

static int get_patches(struct reader *r, struct prep_ckm_index *in, struct prep_err *err)
{
	uint32_t room = 0;

	if (get_array(r, PREP_CKM_CHUNKS_MAX, CHUNK_LEAST, 0, sizeof *in->reference, &in->reference, &in->references,
		      err) < 0)
		return -1;
	for (uint32_t i = 0; i < in->references; i++)
		if (get_chunk_size(r, &in->reference[i].size, err) < 0)
			return -1;
	if (get_digests(r, in->reference, in->references, err) < 0)
		return -1;
	if (in->patch_chunks > left(r))
		return damaged(r, "fewer than the frames have", err);
	in->patch = calloc(in->patches, sizeof *in->patch);
	in->patch_chunk = calloc(in->patch_chunks, sizeof *in->patch_chunk);
	if (in->patch == NULL || in->patch_chunk == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = in->frames - in->patches; i < in->frames; i++)
		if (get_patch(r, in, i, &room, err) < 0)
			return -1;
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct prep_run *x = a, *y = b;

	return (x->off > y->off) - (x->off < y->off);
}

/* Two writers of one byte would make the disk depend on their order. */
static int check_overlap(const struct prep_ckm_index *in, const char *name, struct prep_err *err)
{
	const struct reader r = { .file = name, .section = "runs" };
	struct prep_run *sorted;
	bool overlap = false;

	sorted = malloc(((size_t)in->runs + 1) * sizeof *sorted);
	if (sorted == NULL)
		return prep_fail_nomem(err);
	if (in->runs > 0)
		memcpy(sorted, in->run, in->runs * sizeof *sorted);
	qsort(sorted, in->runs, sizeof *sorted, by_offset);
	for (uint32_t i = 1; i < in->runs; i++)
		overlap |= sorted[i].off < sorted[i - 1].off + sorted[i - 1].len;
	free(sorted);
	return overlap ? damaged(&r, "two runs overlap", err) : 0;
}

static int check_unique(const struct prep_ckm_index *in, const char *section, const char *name, struct prep_err *err)
{
	const struct reader r = { .file = name, .section = section };
	struct prep_chunk_table *t;
	bool unique = true;

	if (prep_chunk_table_new(in, &t, err) < 0)
		return -1;
	for (uint32_t i = 0; i < in->chunks && unique; i++)
		unique = prep_chunk_table_find(t, in->chunk[i].digest) == i;
	prep_chunk_table_free(t);
	return unique ? 0 : damaged(&r, "one stands twice", err);
}

static int decode(const uint8_t *p, size_t len, const char *name, struct prep_ckm_index *in,
		  struct prep_err *err)
{
	static const struct {
		const char *name;
		int (*get)(struct reader *r, struct prep_ckm_index *in, struct prep_err *err);
	} section[] = {
		[PREP_INDEX_META] = { "meta", get_meta }, [PREP_INDEX_FRAMES] = { "frames", get_frames },
		[PREP_INDEX_CHUNKS] = { "chunks", get_chunks }, [PREP_INDEX_STREAMS] = { "streams", get_streams },
		[PREP_INDEX_REFS] = { "references", get_refs }, [PREP_INDEX_RUNS] = { "runs", get_runs },
		[PREP_INDEX_PATHS] = { "paths", get_paths }, [PREP_INDEX_PATCHES] = { "patches", get_patches },
	};
	struct reader all = { .p = p, .end = p + len, .file = name, .section = "sections" };

	for (unsigned i = PREP_INDEX_META; i <= PREP_INDEX_PATHS + (in->patches > 0); i++) {
		struct reader one = { .file = name, .section = section[i].name };
		uint64_t one_len;
		uint8_t number = 0;

		if (get_byte(&all, &number, err) < 0)
			return -1;
		if (number != i)
			return damaged(&all, "one is missing or not in its place", err);
		if (get_number(&all, left(&all), &one_len, err) < 0 ||
		    get_bytes(&all, (size_t)one_len, &one.p, err) < 0)
			return -1;
		one.end = one.p + one_len;
		one.behind = left(&all);
		if (section[i].get(&one, in, err) < 0)
			return -1;
		if (one.p != one.end)
			return damaged(&one, "bytes too many", err);
	}
	if (all.p != all.end)
		return damaged(&all, "bytes too many", err);
	if (check_overlap(in, name, err) < 0)
		return -1;
	if (check_unique(in, "chunks", name, err) < 0)
		return -1;
	return check_unique(&(struct prep_ckm_index){ .chunk = in->reference, .chunks = in->references }, "patches", name,
			    err);
}

int prep_ckm_index_decode(const uint8_t *p, size_t len, const char *name, struct prep_ckm_index *ret,
			  struct prep_err *err)
{
	*ret = (struct prep_ckm_index){ .frames = 0 };
	if (decode(p, len, name, ret, err) == 0)
		return 0;
	prep_ckm_index_clear(ret);
	return -1;
}
