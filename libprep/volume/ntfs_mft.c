/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/volume/ntfs_mft.h"

#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/base/utf16.h"
#include "libprep/volume/ntfs_internal.h"

/* The stride of the update sequence, whatever the sector size (NTFS_BLOCK_SIZE). */
#define STRIDE 512u

#define WINDOW PREP_MIB

#define RECORD_HEADER 42u /* up to NTFS 3.0; 48 since */
#define RECORD_IN_USE 1u
#define RECORD_IS_DIRECTORY 2u

/* ---- Runs ---- */

int prep_ntfs_runs_add(struct prep_ntfs_runs *runs, uint64_t lcn, uint64_t len, struct prep_err *err)
{
	struct prep_ntfs_run *last = runs->n > 0 ? &runs->run[runs->n - 1] : NULL, *grown;
	const bool hole = last != NULL && last->lcn == PREP_NTFS_HOLE;
	size_t room;

	if (last != NULL && (lcn == PREP_NTFS_HOLE ? hole : !hole && last->lcn + last->len == lcn)) {
		last->len += len;
		runs->end += len;
		return 0;
	}
	if (runs->run == NULL || runs->n == runs->room) {
		room = runs->room > 0 ? 2 * runs->room : 8;
		grown = realloc(runs->run, room * sizeof *grown);
		if (grown == NULL)
			return prep_fail_nomem(err);
		runs->run = grown;
		runs->room = room;
	}
	runs->run[runs->n++] = (struct prep_ntfs_run){ runs->end, lcn, len };
	runs->end += len;
	return 0;
}

void prep_ntfs_runs_clear(struct prep_ntfs_runs *runs)
{
	free(runs->run);
	*runs = (struct prep_ntfs_runs){ .n = 0 };
}

bool prep_ntfs_runs_inside(const struct prep_ntfs *n, const struct prep_ntfs_runs *runs)
{
	for (size_t i = 0; i < runs->n; i++) {
		const struct prep_ntfs_run *r = &runs->run[i];

		if (r->lcn != PREP_NTFS_HOLE && (r->lcn > n->clusters || r->len > n->clusters - r->lcn))
			return false;
	}
	return true;
}

/* The run that holds vcn, which must be below runs->end. */
static size_t run_at(const struct prep_ntfs_runs *runs, uint64_t vcn)
{
	size_t low = 0, high = runs->n;

	while (high - low > 1) {
		const size_t mid = low + (high - low) / 2;

		if (runs->run[mid].vcn <= vcn)
			low = mid;
		else
			high = mid;
	}
	return low;
}

int prep_ntfs_runs_read(struct prep_ntfs *n, const struct prep_ntfs_runs *runs, uint64_t off,
			void *buf, size_t len, struct prep_err *err)
{
	const uint64_t end = runs->end << n->cluster_bits;
	uint8_t *p = buf;
	size_t i;

	if (off < end) {
		for (i = run_at(runs, off >> n->cluster_bits); len > 0 && i < runs->n; i++) {
			const struct prep_ntfs_run *r = &runs->run[i];
			const uint64_t in = off - (r->vcn << n->cluster_bits);
			const size_t part = (size_t)prep_min(len, (r->len << n->cluster_bits) - in);

			if (r->lcn == PREP_NTFS_HOLE) {
				memset(p, 0, part);
			} else {
				if (r->lcn > n->clusters || r->len > n->clusters - r->lcn)
					return prep_fail(err, PREP_EDAMAGED,
							 "%s: clusters %llu to %llu lie outside the volume", n->disk->name,
							 (unsigned long long)r->lcn,
							 (unsigned long long)(r->lcn + r->len - 1));
				if (prep_disk_read(n->disk, p, part, (r->lcn << n->cluster_bits) + in, err) < 0)
					return -1;
			}
			p += part;
			off += part;
			len -= part;
		}
	}
	memset(p, 0, len);
	return 0;
}

/* A little-endian signed integer of `len` bytes, 1 to 8. */
static int64_t get_signed(const uint8_t *p, unsigned len)
{
	uint64_t v = p[len - 1] & 0x80 ? ~(uint64_t)0 : 0;

	for (unsigned i = len; i-- > 0;)
		v = v << 8 | p[i];
	return (int64_t)v;
}

int prep_ntfs_pairs_next(struct prep_ntfs_pairs *pairs, struct prep_ntfs_run *ret)
{
	const uint8_t *p = pairs->p;
	unsigned len_size, lcn_size;
	int64_t len, delta;

	/* The terminating zero may be missing where the attribute ends. */
	if (p == pairs->end || *p == 0)
		return 0;
	len_size = *p & 15;
	lcn_size = *p >> 4;
	if (len_size == 0 || len_size > 8 || lcn_size > 8 ||
	    (size_t)(pairs->end - p) < 1 + len_size + lcn_size)
		return -1;
	len = get_signed(p + 1, len_size);
	if (len <= 0 || (uint64_t)len > INT64_MAX - pairs->vcn)
		return -1;
	ret->vcn = pairs->vcn;
	ret->len = (uint64_t)len;
	ret->lcn = PREP_NTFS_HOLE;
	if (lcn_size > 0) {
		delta = get_signed(p + 1 + len_size, lcn_size);
		if (__builtin_add_overflow(pairs->lcn, delta, &pairs->lcn) || pairs->lcn < -1)
			return -1;
		/* NTFS before 3.0 wrote holes as cluster -1. */
		if (pairs->lcn >= 0)
			ret->lcn = (uint64_t)pairs->lcn;
	}
	pairs->vcn += (uint64_t)len;
	pairs->p = p + 1 + len_size + lcn_size;
	return 1;
}

/* ---- Records and attributes ---- */

bool prep_ntfs_fixup(uint8_t *p, size_t size, const char *magic)
{
	const size_t at = get_le16(p + 4), count = get_le16(p + 6);
	const uint8_t *usa = p + at;

	if (memcmp(p, magic, 4) != 0 || size % STRIDE != 0 || count != size / STRIDE + 1 || at % 2 != 0 ||
	    at < 8 || at + 2 * count > size || at + 2 * count > STRIDE - 2)
		return false;
	for (size_t i = 1; i < count; i++)
		if (memcmp(p + i * STRIDE - 2, usa, 2) != 0)
			return false;
	for (size_t i = 1; i < count; i++)
		memcpy(p + i * STRIDE - 2, usa + 2 * i, 2);
	return true;
}

bool prep_ntfs_fixup_inside(const uint8_t *p, size_t from, size_t to)
{
	const size_t at = get_le16(p + 4);

	return at >= from && at + 2 * (size_t)get_le16(p + 6) <= to;
}

enum prep_ntfs_state prep_ntfs_record_check(uint8_t *p, uint32_t size, uint64_t number,
					    struct prep_ntfs_record *ret, bool *in_use)
{
	const uint16_t flags = get_le16(p + 22);
	uint32_t allocated;

	*in_use = false;
	if (memcmp(p, "BAAD", 4) == 0)
		return PREP_NTFS_TORN;
	if (memcmp(p, "FILE", 4) != 0)
		return PREP_NTFS_BLANK;
	*in_use = (flags & RECORD_IN_USE) != 0;
	if (!prep_ntfs_fixup(p, size, "FILE"))
		return PREP_NTFS_TORN;
	*ret = (struct prep_ntfs_record){
		.p = p,
		.number = number,
		.sequence = get_le16(p + 16),
		.links = get_le16(p + 18),
		.first = get_le16(p + 20),
		.used = get_le32(p + 24),
		.base = get_le64(p + 32),
		.folder = (flags & RECORD_IS_DIRECTORY) != 0,
	};
	if (!*in_use)
		return PREP_NTFS_FREE;
	allocated = get_le32(p + 28);
	if (allocated != size || ret->used > size || ret->used % 8 != 0 || ret->first % 8 != 0 ||
	    ret->first > ret->used - 8 || ret->used < 8 || !prep_ntfs_fixup_inside(p, RECORD_HEADER, ret->first))
		return PREP_NTFS_TORN;
	return PREP_NTFS_USED;
}

/*
 * What $AttrDef has as resident always, and the bytes that its value has at least. libntfs-3g takes that for granted: it
 * would write outside of a record where it is not so.
 */
static bool keeps_to_its_record(const struct prep_ntfs_attr *a)
{
	switch (a->type) {
	case PREP_NTFS_ATTR_STANDARD:
		return a->resident && a->value_len >= 48;
	case PREP_NTFS_ATTR_NAME:
		return a->resident && a->value_len >= 66 && a->value_len >= 66 + 2u * a->value[64];
	case PREP_NTFS_ATTR_VOLUME_NAME:
	case PREP_NTFS_ATTR_VOLUME_INFO:
	case PREP_NTFS_ATTR_INDEX_ROOT:
		return a->resident;
	}
	return true;
}

int prep_ntfs_attr_next(const struct prep_ntfs_record *r, uint32_t *at, struct prep_ntfs_attr *ret)
{
	const uint32_t off = *at > 0 ? *at : r->first, left = r->used - off;
	const uint8_t *p = r->p + off;
	uint32_t len, value, name, name_end;

	if (left < 4)
		return -1;
	if (get_le32(p) == 0xffffffff)
		return 0;
	if (left < 24)
		return -1;
	len = get_le32(p + 4);
	if (len < 24 || len % 8 != 0 || len > left)
		return -1;
	*ret = (struct prep_ntfs_attr){
		.type = get_le32(p),
		.flags = get_le16(p + 12),
		.resident = p[8] == 0,
		.name_len = p[9],
	};
	/* Header, name, and value or mapping pairs, in this order: libntfs-3g, which writes to them, does not look. */
	name = get_le16(p + 10);
	name_end = ret->name_len > 0 ? name + 2u * ret->name_len : 0;
	if (name_end > len || (name_end > 0 && name < (ret->resident ? 24 : 64)))
		return -1;
	ret->name = p + name;
	if (ret->resident) {
		value = get_le16(p + 20);
		ret->value_len = get_le32(p + 16);
		if (value < 24 || value < name_end || value > len || ret->value_len > len - value)
			return -1;
		ret->value = p + value;
	} else {
		const uint32_t pairs = len >= 64 ? get_le16(p + 32) : 0;
		uint64_t highest;

		if (len < 64 || pairs < 64 || pairs < name_end || pairs > len)
			return -1;
		ret->lowest_vcn = get_le64(p + 16);
		highest = get_le64(p + 24);
		ret->end_vcn = highest + 1; /* highest_vcn of an empty stream is -1 */
		if (ret->lowest_vcn > INT64_MAX || ret->end_vcn > INT64_MAX || ret->end_vcn < ret->lowest_vcn)
			return -1;
		ret->allocated = get_le64(p + 40);
		ret->size = get_le64(p + 48);
		ret->initialized = get_le64(p + 56);
		ret->pairs = (struct prep_ntfs_pairs){ .p = p + pairs, .end = p + len, .vcn = ret->lowest_vcn };
	}
	if (!keeps_to_its_record(ret))
		return -1;
	*at = off + len;
	return 1;
}

bool prep_ntfs_attr_named(const struct prep_ntfs_attr *a, const char *name)
{
	const size_t len = strlen(name);

	if (a->name_len != len)
		return false;
	for (size_t i = 0; i < len; i++)
		if (get_le16(a->name + 2 * i) != (unsigned char)name[i])
			return false;
	return true;
}

bool prep_ntfs_name_decode(const uint8_t *value, size_t len, struct prep_ntfs_name *ret)
{
	if (len < 66 || value[64] == 0 || len < 66 + 2 * (size_t)value[64] || value[65] > 3)
		return false;
	*ret = (struct prep_ntfs_name){
		.parent = get_le64(value),
		.size = get_le64(value + 48),
		.attributes = get_le32(value + 56),
		.len = value[64],
		.space = value[65],
		.text = value + 66,
	};
	return true;
}

size_t prep_ntfs_name_utf8(const struct prep_ntfs_name *name, char *out)
{
	return prep_utf16_name_to_utf8(name->text, name->len, out, PREP_NTFS_NAME_ROOM);
}

/* ---- The MFT ---- */

int prep_ntfs_mft_open(struct prep_ntfs_mft *m, struct prep_ntfs *n, struct prep_err *err)
{
	ntfs_attr *na = n->vol->mft_na;
	const runlist_element *rl;
	uint64_t size;

	*m = (struct prep_ntfs_mft){ .n = n };
	if (ntfs_attr_map_whole_runlist(na) != 0)
		return prep_ntfs_fail(n, err, "cannot map $MFT");
	/*
	 * libntfs-3g does not compare runs with the volume's end. More clusters
	 * than the volume has would be no file table but a way to use up memory.
	 */
	for (rl = na->rl; rl->length > 0; rl++) {
		const uint64_t lcn = (uint64_t)rl->lcn, len = (uint64_t)rl->length;

		if (rl->lcn < 0 || lcn > n->clusters || len > n->clusters - lcn ||
		    len > n->clusters - m->runs.end) {
			prep_fail(err, PREP_EDAMAGED, "%s: $MFT has no clusters, or some outside the volume, at %llu",
				  n->disk->name, (unsigned long long)rl->vcn);
			goto fail;
		}
		if (prep_ntfs_runs_add(&m->runs, lcn, len, err) < 0)
			goto fail;
	}
	size = prep_min((uint64_t)na->initialized_size, (uint64_t)na->data_size);
	m->records = prep_min(size, m->runs.end << n->cluster_bits) / n->record_size;
	if (m->records < PREP_NTFS_FIRST_USER - 8) {
		prep_fail(err, PREP_EDAMAGED, "%s: $MFT has only %llu records", n->disk->name,
			  (unsigned long long)m->records);
		goto fail;
	}
	return 0;
fail:
	prep_ntfs_mft_close(m);
	return -1;
}

void prep_ntfs_mft_close(struct prep_ntfs_mft *m)
{
	prep_ntfs_runs_clear(&m->runs);
	free(m->window);
	m->window = NULL;
}

int prep_ntfs_mft_next(struct prep_ntfs_mft *m, uint64_t number, uint8_t **ret, struct prep_err *err)
{
	const uint32_t size = m->n->record_size;

	if (m->window == NULL) {
		m->window = malloc(WINDOW);
		if (m->window == NULL)
			return prep_fail_nomem(err);
	}
	if (number < m->window_first || number >= m->window_end) {
		m->window_first = number;
		m->window_end = prep_min(m->records, number + WINDOW / size);
		if (prep_ntfs_runs_read(m->n, &m->runs, number * size, m->window,
					(size_t)(m->window_end - number) * size, err) < 0) {
			m->window_end = m->window_first;
			return -1;
		}
	}
	*ret = m->window + (size_t)(number - m->window_first) * size;
	return 0;
}

int prep_ntfs_mft_skip_holes(struct prep_ntfs_mft *m, uint64_t number, uint64_t *ret, struct prep_err *err)
{
	const struct prep_ntfs *n = m->n;
	const uint32_t size = n->record_size;
	struct prep_extent e;

	*ret = number;
	if (number >= m->window_first && number < m->window_end)
		return 0;
	while (*ret < m->records) {
		const uint64_t off = *ret * size;
		const struct prep_ntfs_run *r = &m->runs.run[run_at(&m->runs, off >> n->cluster_bits)];
		const uint64_t start = (r->lcn << n->cluster_bits) + off - (r->vcn << n->cluster_bits);
		const uint64_t end = (r->lcn + r->len) << n->cluster_bits;
		uint64_t skipped;

		/* How far data goes is not of interest: it is asked no further than it will be read. */
		if (prep_disk_extent(n->disk, start, prep_min(end, start + WINDOW), &e, err) < 0)
			return -1;
		if (e.kind == PREP_EXTENT_DATA)
			break;
		if (prep_disk_extent(n->disk, start, end, &e, err) < 0)
			return -1;
		skipped = e.len / size;
		if (skipped == 0)
			break;
		*ret = prep_min(m->records, *ret + skipped);
	}
	return 0;
}

void prep_ntfs_mft_rewind(struct prep_ntfs_mft *m)
{
	m->window_first = 0;
	m->window_end = 0;
}

int prep_ntfs_mft_read(struct prep_ntfs_mft *m, uint64_t number, uint8_t *buf, struct prep_err *err)
{
	const uint32_t size = m->n->record_size;

	return prep_ntfs_runs_read(m->n, &m->runs, number * size, buf, size, err);
}
