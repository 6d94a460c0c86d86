/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/index.h"

#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/ckm/index_format.h"

const char *prep_content_name(enum prep_content c)
{
	static const char *const name[PREP_CONTENT_KINDS] = {
		[PREP_CONTENT_PE] = "pe",           [PREP_CONTENT_DOTNET] = "dotnet",
		[PREP_CONTENT_TEXT] = "text",       [PREP_CONTENT_HIVE] = "hive",
		[PREP_CONTENT_PACKED] = "packed",   [PREP_CONTENT_OTHER] = "other",
		[PREP_CONTENT_METADATA] = "metadata", [PREP_CONTENT_OPAQUE] = "opaque",
		[PREP_CONTENT_FREE] = "free",
	};

	return (unsigned)c < PREP_CONTENT_KINDS ? name[c] : "unknown";
}

bool prep_ckm_name_allowed(const char *name)
{
	for (const unsigned char *p = (const unsigned char *)name; *p != '\0'; p++)
		if (*p <= ' ' || *p == 0x7F || strchr("\"<>|\\/:*?", *p) != NULL)
			return false;
	return true;
}

void prep_ckm_index_clear(struct prep_ckm_index *in)
{
	free(in->frame);
	free(in->chunk);
	free(in->stream);
	free(in->ref);
	free(in->run);
	free(in->strings);
	free(in->patch);
	free(in->patch_chunk);
	free(in->reference);
	free(in->patch_reference);
	*in = (struct prep_ckm_index){ .frames = 0 };
}

/* Growing bytes. A failure sticks, so that it is looked at once, at the end. */
struct buf {
	uint8_t *p;
	size_t len, room;
	bool failed;
};

static void put(struct buf *b, const void *p, size_t len)
{
	if (b->failed)
		return;
	if (b->p == NULL || b->room - b->len < len) {
		const size_t room = (b->room + len + 32) * 2;
		uint8_t *grown = realloc(b->p, room);

		if (grown == NULL) {
			b->failed = true;
			return;
		}
		b->p = grown;
		b->room = room;
	}
	if (len > 0)
		memcpy(b->p + b->len, p, len);
	b->len += len;
}

static void put_byte(struct buf *b, uint8_t v)
{
	put(b, &v, 1);
}

/* LEB128: seven bits a byte, low ones first, the top bit set on all but the last. */
static void put_varint(struct buf *b, uint64_t v)
{
	uint8_t p[10];
	size_t n = 0;

	do {
		p[n] = v & 0x7F;
		v >>= 7;
		if (v != 0)
			p[n] |= 0x80;
		n++;
	} while (v != 0);
	put(b, p, n);
}

static void put_text(struct buf *b, const char *text)
{
	put_varint(b, strlen(text));
	put(b, text, strlen(text));
}

static void put_meta(struct buf *b, const struct prep_ckm_index *in)
{
	uint8_t footer[PREP_VHD_FOOTER_SIZE];

	put_varint(b, in->disk_size);
	put_varint(b, in->disk_type);
	put_varint(b, in->block_size);
	prep_vhd_footer_encode(&in->identity, footer);
	put(b, footer, sizeof footer);
	put(b, in->base_id, sizeof in->base_id);
	put_text(b, in->name);
	put_text(b, in->version);
	put_text(b, in->comment);
}

static void put_frames(struct buf *b, const struct prep_ckm_index *in)
{
	put_varint(b, in->frames);
	for (uint32_t i = 0; i < in->frames; i++) {
		const struct prep_frame *f = &in->frame[i];

		put_byte(b, (uint8_t)(f->kind << 4 | f->codec));
		put_varint(b, f->chunks);
		if (f->kind == PREP_FRAME_ABSENT)
			continue;
		put_varint(b, f->stored);
		put(b, f->digest, sizeof f->digest);
	}
}

static void put_chunk_list(struct buf *b, const struct prep_chunk *chunk, uint32_t n)
{
	put_varint(b, n);
	for (uint32_t i = 0; i < n; i++)
		put_varint(b, chunk[i].size);
	for (uint32_t i = 0; i < n; i++)
		put(b, chunk[i].digest, PREP_DIGEST_SIZE);
}

static void put_chunks(struct buf *b, const struct prep_ckm_index *in)
{
	put_chunk_list(b, in->chunk, in->chunks);
}

static void put_streams(struct buf *b, const struct prep_ckm_index *in)
{
	put_varint(b, in->streams);
	for (uint32_t i = 0; i < in->streams; i++) {
		put_byte(b, in->stream[i].content);
		put_byte(b, in->stream[i].volume);
		put_varint(b, in->stream[i].refs);
		put_varint(b, in->stream[i].runs);
	}
}

static void put_refs(struct buf *b, const struct prep_ckm_index *in)
{
	int64_t expected = 0;

	for (uint32_t i = 0; i < in->refs; i++) {
		put_varint(b, prep_zigzag((int64_t)in->ref[i] - expected));
		expected = (int64_t)in->ref[i] + 1;
	}
}

/* The last run of a stream is as long as what its chunks have left. */
static void put_runs(struct buf *b, const struct prep_ckm_index *in)
{
	uint64_t expected = 0;

	for (uint32_t i = 0; i < in->streams; i++) {
		const struct prep_stream *s = &in->stream[i];

		for (uint32_t k = 0; k < s->runs; k++) {
			const struct prep_run *run = &in->run[s->first_run + k];

			put_varint(b, prep_zigzag((int64_t)(run->off - expected)));
			if (k + 1 < s->runs)
				put_varint(b, run->len);
			expected = run->off + run->len;
		}
	}
}

static void put_paths(struct buf *b, const struct prep_ckm_index *in)
{
	const char *before = "";

	for (uint32_t i = 0; i < in->streams; i++) {
		const char *path = in->stream[i].path;
		size_t same = 0;

		while (path[same] != '\0' && path[same] == before[same])
			same++;
		put_varint(b, same);
		put_text(b, path + same);
		before = path;
	}
}

/* Whether a reader would take the paths, that take len bytes encoded. */
static bool paths_fit(const struct prep_ckm_index *in, size_t len)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < in->streams; i++) {
		const size_t n = strlen(in->stream[i].path);

		if (n > PREP_INDEX_PATH_MAX)
			return false;
		total += n + 1;
	}
	return total <= prep_index_strings_max(len);
}

/* Ascending numbers, each less the least that it can be. */
static void put_ascending(struct buf *b, const uint32_t *number, uint32_t n)
{
	uint32_t least = 0;

	for (uint32_t i = 0; i < n; i++) {
		put_varint(b, number[i] - least);
		least = number[i] + 1;
	}
}

static void put_patches(struct buf *b, const struct prep_ckm_index *in)
{
	put_chunk_list(b, in->reference, in->references);
	for (uint32_t i = in->frames - in->patches; i < in->frames; i++) {
		const struct prep_frame *f = &in->frame[i];
		const struct prep_patch *p = prep_frame_patch(in, i);

		put_ascending(b, in->patch_chunk + f->first_chunk, f->chunks);
		put_varint(b, p->references);
		put_ascending(b, in->patch_reference + p->first, p->references);
	}
}

int prep_ckm_index_encode(const struct prep_ckm_index *in, uint8_t **ret, size_t *len,
			  struct prep_err *err)
{
	static void (*const section[])(struct buf *b, const struct prep_ckm_index *in) = {
		[PREP_INDEX_META] = put_meta, [PREP_INDEX_FRAMES] = put_frames,
		[PREP_INDEX_CHUNKS] = put_chunks, [PREP_INDEX_STREAMS] = put_streams,
		[PREP_INDEX_REFS] = put_refs, [PREP_INDEX_RUNS] = put_runs,
		[PREP_INDEX_PATHS] = put_paths, [PREP_INDEX_PATCHES] = put_patches,
	};
	const unsigned last = in->patches > 0 ? PREP_INDEX_PATCHES : PREP_INDEX_PATHS;
	struct buf all = { .p = NULL }, one = { .p = NULL };
	bool fits = true;

	*ret = NULL;
	for (unsigned i = PREP_INDEX_META; i <= last; i++) {
		one.len = 0;
		section[i](&one, in);
		put_byte(&all, (uint8_t)i);
		put_varint(&all, one.len);
		put(&all, one.p, one.len);
		if (i == PREP_INDEX_PATHS)
			fits = paths_fit(in, one.len);
	}
	free(one.p);
	if (one.failed || all.failed) {
		free(all.p);
		return prep_fail_nomem(err);
	}
	if (all.len > PREP_CKM_INDEX_MAX) {
		free(all.p);
		return prep_fail(err, PREP_EREFUSED, "the index would take %llu MiB, more than a package can have",
				 (unsigned long long)(all.len / PREP_MIB));
	}
	if (!fits) {
		free(all.p);
		return prep_fail(err, PREP_EREFUSED, "the paths of the files are longer than a package can hold");
	}
	*ret = all.p;
	*len = all.len;
	return 0;
}
