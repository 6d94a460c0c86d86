/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/vhdx_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/file.h"
#include "libprep/base/utf16.h"

#define REGION_TABLE_SIZE (64u * 1024)
#define REGION_ENTRIES_MAX 2047u
#define METADATA_TABLE_SIZE (64u * 1024)
#define METADATA_ENTRIES_MAX 2047u
#define LOCATOR_MAX (256u * 1024)
#define SIZE_MAX_DISK ((uint64_t)64 << 40)
#define CHUNK_SECTORS ((uint64_t)1 << 23)   /* whose bits one sector bitmap block holds */

/* Where both copies of the header and of the region table are. */
static const uint64_t header_at[] = { 64 * PREP_KIB, 128 * PREP_KIB };
static const uint64_t region_at[] = { 192 * PREP_KIB, 256 * PREP_KIB };

/* GUIDs as they stand in the file. */
static const uint8_t guid_bat[16] = {
	0x66, 0x77, 0xC2, 0x2D, 0x23, 0xF6, 0x00, 0x42, 0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08 };
static const uint8_t guid_metadata[16] = {
	0x06, 0xA2, 0x7C, 0x8B, 0x90, 0x47, 0x9A, 0x4B, 0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E };
static const uint8_t guid_parameters[16] = {
	0x37, 0x67, 0xA1, 0xCA, 0x36, 0xFA, 0x43, 0x4D, 0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B };
static const uint8_t guid_size[16] = {
	0x24, 0x42, 0xA5, 0x2F, 0x1B, 0xCD, 0x76, 0x48, 0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8 };
static const uint8_t guid_logical_sector[16] = {
	0x1D, 0xBF, 0x41, 0x81, 0x6F, 0xA9, 0x09, 0x47, 0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F };
static const uint8_t guid_physical_sector[16] = {
	0xC7, 0x48, 0xA3, 0xCD, 0x5D, 0x44, 0x71, 0x44, 0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56 };
static const uint8_t guid_disk_id[16] = {
	0xAB, 0x12, 0xCA, 0xBE, 0xE6, 0xB2, 0x23, 0x45, 0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46 };
static const uint8_t guid_locator[16] = {
	0x2D, 0x5F, 0xD3, 0xA8, 0x0B, 0xB3, 0x4D, 0x45, 0xAB, 0xF7, 0xD3, 0xD8, 0x48, 0x34, 0xAB, 0x0C };
/* The one kind of parent locator there is. */
static const uint8_t guid_vhdx_locator[16] = {
	0xB7, 0xEF, 0x4A, 0xB0, 0x9E, 0xD1, 0x81, 0x4A, 0xB7, 0x89, 0x25, 0xB8, 0xE9, 0x44, 0x59, 0x13 };

/* A GUID of the file in the order in which it is written. */
void prep_vhdx_take_guid(const uint8_t *p, uint8_t ret[16])
{
	put_be32(ret, get_le32(p));
	put_be16(ret + 4, get_le16(p + 4));
	put_be16(ret + 6, get_le16(p + 6));
	memcpy(ret + 8, p + 8, 8);
}

/* CRC-32C (Castagnoli), of p with the four bytes at `field` as zeros. */
static uint32_t crc32c(const uint8_t *p, size_t len, size_t field)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < len; i++) {
		crc ^= i >= field && i < field + 4 ? 0 : p[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (0x82F63B78u & -(crc & 1));
	}
	return ~crc;
}

/* The header in force: of those that are whole, the later one. 1, 0 when there is none, -1. */
int prep_vhdx_read_header(int fd, const char *name, uint64_t file_size, uint8_t ret[HEADER_SIZE],
			  struct prep_err *err)
{
	uint8_t h[HEADER_SIZE];
	int found = 0;

	for (unsigned i = 0; i < 2 && file_size >= header_at[i] + HEADER_SIZE; i++) {
		if (prep_file_pread(fd, h, sizeof h, header_at[i], name, err) < 0)
			return -1;
		if (memcmp(h, "head", 4) != 0 || get_le32(h + 4) != crc32c(h, sizeof h, 4))
			continue;
		if (!found || get_le64(h + 8) > get_le64(ret + 8))
			memcpy(ret, h, sizeof h);
		found = 1;
	}
	return found;
}

static int check_header(struct prep_vhdx *v, const uint8_t *h, struct prep_err *err)
{
	static const uint8_t none[16];

	if (get_le16(h + 66) != 1)
		return prep_fail(err, PREP_EREFUSED, "%s: a VHDX of version %u, which is not known", v->disk.name,
				 get_le16(h + 66));
	if (memcmp(h + 48, none, sizeof none) != 0)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: the VHDX was not closed properly: its log may hold changes that were not written back: let Hyper-V (start and shut down the virtual machine) or 'qemu-img check -r all' do it",
				 v->disk.name);
	prep_vhdx_take_guid(h + 32, v->info.id);
	return 0;
}

/* A region: whole MiB inside the file, behind the headers. */
static int take_region(const struct prep_vhdx *v, const uint8_t *entry, const char *what, uint64_t *off, uint64_t *len,
		       struct prep_err *err)
{
	*off = get_le64(entry + 16);
	*len = get_le32(entry + 24);
	if (*off % UNIT != 0 || *len % UNIT != 0 || *off < UNIT || *len == 0 || *off > v->file_size ||
	    *len > v->file_size - *off)
		return prep_fail(err, PREP_EDAMAGED, "%s: the VHDX's %s, %llu bytes at offset %llu, is outside the file",
				 v->disk.name, what, (unsigned long long)*len, (unsigned long long)*off);
	return 0;
}

static int read_regions(struct prep_vhdx *v, struct prep_err *err)
{
	uint8_t *t = malloc(REGION_TABLE_SIZE);
	uint32_t n = 0;
	bool whole = false;
	int r = -1;

	if (t == NULL)
		return prep_fail_nomem(err);
	for (unsigned i = 0; i < 2 && !whole && v->file_size >= region_at[i] + REGION_TABLE_SIZE; i++) {
		if (prep_file_pread(v->fd, t, REGION_TABLE_SIZE, region_at[i], v->disk.name, err) < 0)
			goto out;
		n = get_le32(t + 8);
		whole = memcmp(t, "regi", 4) == 0 && n <= REGION_ENTRIES_MAX &&
			get_le32(t + 4) == crc32c(t, REGION_TABLE_SIZE, 4);
	}
	if (!whole) {
		prep_fail(err, PREP_EDAMAGED, "%s: VHDX region table: missing or with a wrong checksum, both copies",
			  v->disk.name);
		goto out;
	}
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *e = t + 16 + (size_t)i * 32;

		if (memcmp(e, guid_bat, 16) == 0) {
			if (take_region(v, e, "block table", &v->bat_off, &v->bat_len, err) < 0)
				goto out;
		} else if (memcmp(e, guid_metadata, 16) == 0) {
			if (take_region(v, e, "metadata", &v->metadata_off, &v->metadata_len, err) < 0)
				goto out;
		} else if (get_le32(e + 28) & 1) {
			prep_fail(err, PREP_EREFUSED, "%s: the VHDX has a region that is needed and not known here",
				  v->disk.name);
			goto out;
		}
	}
	if (v->bat_len == 0 || v->metadata_len == 0)
		prep_fail(err, PREP_EDAMAGED, "%s: the VHDX has no %s", v->disk.name,
			  v->bat_len == 0 ? "block table" : "metadata");
	else
		r = 0;
out:
	free(t);
	return r;
}

/* One value of the parent locator: key and value are UTF-16. */
static void take_locator_entry(struct prep_vhdx *v, const uint8_t *p, size_t len, const uint8_t *entry, unsigned pass)
{
	/* In the order in which they are tried. */
	static const char *const path_key[] = { "relative_path", "absolute_win32_path", "volume_path" };
	const uint32_t key = get_le32(entry), value = get_le32(entry + 4);
	const uint16_t key_len = get_le16(entry + 8), value_len = get_le16(entry + 10);
	char name[64], text[64];
	unsigned byte;

	if (key > len || key_len > len - key || value > len || value_len > len - value)
		return;
	prep_utf16_to_utf8(p + key, key_len / 2, name, sizeof name);
	if (pass < 3) {
		if (strcmp(name, path_key[pass]) == 0)
			prep_parent_add_utf16(&v->info.parent, p + value, value_len / 2, true);
		return;
	}
	if (strcmp(name, "parent_linkage") != 0)
		return;
	/* "{00112233-4455-6677-8899-aabbccddeeff}" */
	prep_utf16_to_utf8(p + value, value_len / 2, text, sizeof text);
	for (unsigned n = 0, at = 0; n < 16 && text[at] != '\0';) {
		if (text[at] == '{' || text[at] == '-') {
			at++;
		} else {
			if (sscanf(text + at, "%2x", &byte) != 1 || text[at + 1] == '\0')
				return;
			v->info.parent.id[n++] = (uint8_t)byte;
			at += 2;
		}
	}
}

static int take_locator(struct prep_vhdx *v, const uint8_t *p, size_t len, struct prep_err *err)
{
	const uint32_t n = len >= 20 ? get_le16(p + 18) : 0;

	if (len < 20 || memcmp(p, guid_vhdx_locator, 16) != 0 || n * 12 > len - 20)
		return prep_fail(err, PREP_EDAMAGED, "%s: the VHDX's parent locator is damaged", v->disk.name);
	for (unsigned pass = 0; pass < 4; pass++)
		for (uint32_t i = 0; i < n; i++)
			take_locator_entry(v, p, len, p + 20 + (size_t)i * 12, pass);
	return 0;
}

/* Which items have been found. */
struct items {
	bool parameters, size, sector, locator;
};

static int take_item(struct prep_vhdx *v, const uint8_t *guid, const uint8_t *p, size_t len, bool required,
		     struct items *found, struct prep_err *err)
{
	if (memcmp(guid, guid_parameters, 16) == 0 && len >= 8) {
		v->info.block_size = get_le32(p);
		v->info.fixed = get_le32(p + 4) & 1;
		v->disk.differencing = get_le32(p + 4) & 2;
		found->parameters = true;
	} else if (memcmp(guid, guid_size, 16) == 0 && len >= 8) {
		v->disk.size = get_le64(p);
		found->size = true;
	} else if (memcmp(guid, guid_logical_sector, 16) == 0 && len >= 4) {
		v->disk.sector_size = get_le32(p);
		found->sector = true;
	} else if (memcmp(guid, guid_physical_sector, 16) == 0 && len >= 4) {
		v->info.physical_sector_size = get_le32(p);
	} else if (memcmp(guid, guid_disk_id, 16) == 0 && len >= 16) {
		prep_vhdx_take_guid(p, v->info.disk_id);
	} else if (memcmp(guid, guid_locator, 16) == 0) {
		found->locator = true;
		return take_locator(v, p, len, err);
	} else if (required) {
		return prep_fail(err, PREP_EREFUSED, "%s: the VHDX has metadata that is needed and not known here",
				 v->disk.name);
	}
	return 0;
}

static int check_metadata(const struct prep_vhdx *v, const struct items *found, struct prep_err *err)
{
	const char *name = v->disk.name;

	if (!found->parameters || !found->size || !found->sector || (v->disk.differencing && !found->locator))
		return prep_fail(err, PREP_EDAMAGED, "%s: the VHDX's metadata lacks its %s", name,
				 !found->parameters ? "block size" : !found->size ? "size"
				 : !found->sector ? "sector size" : "parent");
	if (!prep_is_pow2(v->info.block_size) || v->info.block_size < PREP_MIB || v->info.block_size > 256 * PREP_MIB)
		return prep_fail(err, PREP_EDAMAGED, "%s: a VHDX with blocks of %u bytes", name, v->info.block_size);
	if (v->disk.sector_size != 512 && v->disk.sector_size != 4096)
		return prep_fail(err, PREP_EDAMAGED, "%s: a VHDX with sectors of %u bytes", name, v->disk.sector_size);
	if (v->disk.size == 0 || v->disk.size % v->disk.sector_size != 0 || v->disk.size > SIZE_MAX_DISK)
		return prep_fail(err, PREP_EDAMAGED, "%s: a VHDX of %llu bytes", name, (unsigned long long)v->disk.size);
	return 0;
}

static int read_metadata(struct prep_vhdx *v, struct prep_err *err)
{
	struct items found = { .size = false };
	uint8_t *t = malloc(METADATA_TABLE_SIZE), *p = NULL;
	uint32_t n;
	int r = -1;

	if (t == NULL)
		return prep_fail_nomem(err);
	if (prep_file_pread(v->fd, t, METADATA_TABLE_SIZE, v->metadata_off, v->disk.name, err) < 0)
		goto out;
	n = get_le16(t + 10);
	if (memcmp(t, "metadata", 8) != 0 || n > METADATA_ENTRIES_MAX) {
		prep_fail(err, PREP_EDAMAGED, "%s: no VHDX metadata at offset %llu", v->disk.name,
			  (unsigned long long)v->metadata_off);
		goto out;
	}
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *e = t + 32 + (size_t)i * 32;
		const uint32_t off = get_le32(e + 16), len = get_le32(e + 20), flags = get_le32(e + 24);

		/* The user's own items say nothing about the disk. */
		if ((flags & 1) && !(flags & 4))
			continue;
		if (off > v->metadata_len || len > v->metadata_len - off || len > LOCATOR_MAX) {
			prep_fail(err, PREP_EDAMAGED, "%s: VHDX metadata: item %u is outside its region", v->disk.name, i);
			goto out;
		}
		free(p);
		p = malloc((size_t)len + 1);
		if (p == NULL) {
			prep_fail_nomem(err);
			goto out;
		}
		if (prep_file_pread(v->fd, p, len, v->metadata_off + off, v->disk.name, err) < 0 ||
		    take_item(v, e, p, len, flags & 4, &found, err) < 0)
			goto out;
	}
	r = check_metadata(v, &found, err);
out:
	free(p);
	free(t);
	return r;
}

int prep_vhdx_read_entries(const struct prep_vhdx *v, uint64_t index, size_t n, uint8_t *ret, struct prep_err *err)
{
	return prep_file_pread(v->fd, ret, n * ENTRY_SIZE, v->bat_off + index * ENTRY_SIZE, v->disk.name, err);
}

/* Claim the MiB of [off, off+len) in `used`, one bit each: what two things claim is damage. */
static int claim(const struct prep_vhdx *v, uint8_t *used, uint64_t off, uint64_t len, const char *what,
		 uint64_t block, struct prep_err *err)
{
	if (off > v->file_size || len > v->file_size - off)
		return prep_fail(err, PREP_EDAMAGED, "%s: %s %llu, at offset %llu, ends past the end of the file: truncated",
				 v->disk.name, what, (unsigned long long)block, (unsigned long long)off);
	for (uint64_t i = off / UNIT; i < (off + len + UNIT - 1) / UNIT; i++) {
		if (prep_bit_get(used, i))
			return prep_fail(err, PREP_EDAMAGED, "%s: %s %llu overlaps something else at offset %llu",
					 v->disk.name, what, (unsigned long long)block,
					 (unsigned long long)(i * UNIT));
		prep_bit_set(used, i);
	}
	return 0;
}

static int check_block(struct prep_vhdx *v, uint8_t *used, uint64_t block, uint64_t entry, struct prep_err *err)
{
	const unsigned state = entry_state(entry);

	if (state == 4 || state == 5 || (state == PARTIALLY_PRESENT && !v->disk.differencing))
		return prep_fail(err, PREP_EDAMAGED, "%s: block %llu: state %u cannot be", v->disk.name,
				 (unsigned long long)block, state);
	if (state < FULLY_PRESENT)
		return 0;
	v->info.blocks_allocated++;
	return claim(v, used, entry_offset(entry), block_bytes(v, block), "block", block, err);
}

/* Every block and sector bitmap that is there inside the file, and no two in one place. */
static int check_table(struct prep_vhdx *v, uint64_t log_off, uint64_t log_len, struct prep_err *err)
{
	const uint64_t blocks = blocks_of(v);
	const uint64_t entries = v->disk.differencing ? bitmap_index(v, blocks - 1) + 1 : entry_index(v, blocks - 1) + 1;
	uint8_t *used, table[4096];
	bool partial = false;
	int r = -1;

	if (entries > v->bat_len / ENTRY_SIZE)
		return prep_fail(err, PREP_EDAMAGED, "%s: the block table has room for %llu entries, the disk needs %llu",
				 v->disk.name, (unsigned long long)(v->bat_len / ENTRY_SIZE),
				 (unsigned long long)entries);
	used = calloc((size_t)(v->file_size / UNIT / 8 + 2), 1);
	if (used == NULL)
		return prep_fail_nomem(err);
	prep_bit_set(used, 0); /* the headers */
	if (claim(v, used, v->bat_off, v->bat_len, "region", 1, err) < 0 ||
	    claim(v, used, v->metadata_off, v->metadata_len, "region", 2, err) < 0 ||
	    (log_len > 0 && claim(v, used, log_off, log_len, "log", 0, err) < 0))
		goto out;
	for (uint64_t at = 0, n; at < entries; at += n) {
		n = prep_min(entries - at, sizeof table / ENTRY_SIZE);
		if (prep_vhdx_read_entries(v, at, (size_t)n, table, err) < 0)
			goto out;
		for (uint64_t i = at; i < at + n; i++) {
			const uint64_t entry = get_le64(table + (i - at) * ENTRY_SIZE);
			const uint64_t chunk = i / (v->chunk_blocks + 1), in_chunk = i % (v->chunk_blocks + 1);
			const uint64_t block = chunk * v->chunk_blocks + in_chunk;

			if (in_chunk == v->chunk_blocks) {
				const bool there = v->disk.differencing && entry_state(entry) == FULLY_PRESENT;

				if (there && claim(v, used, entry_offset(entry), UNIT, "sector bitmap", chunk, err) < 0)
					goto out;
				if (partial && !there) {
					prep_fail(err, PREP_EDAMAGED,
						  "%s: sector bitmap %llu is missing, and blocks are partly present",
						  v->disk.name, (unsigned long long)chunk);
					goto out;
				}
				partial = false;
			} else if (block < blocks) {
				partial |= entry_state(entry) == PARTIALLY_PRESENT;
				if (check_block(v, used, block, entry, err) < 0)
					goto out;
			}
		}
	}
	r = 0;
out:
	free(used);
	return r;
}

int prep_vhdx_read_layout(struct prep_vhdx *v, struct prep_err *err)
{
	uint8_t h[HEADER_SIZE], creator[512];
	int r = prep_vhdx_read_header(v->fd, v->disk.name, v->file_size, h, err);

	if (r == 0)
		prep_fail(err, PREP_EDAMAGED, "%s: VHDX header: missing or with a wrong checksum, both copies",
			  v->disk.name);
	if (r <= 0 || check_header(v, h, err) < 0 ||
	    prep_file_pread(v->fd, creator, sizeof creator, 8, v->disk.name, err) < 0 || read_regions(v, err) < 0 ||
	    read_metadata(v, err) < 0)
		return -1;
	for (size_t n = 0; n <= sizeof creator / 2; n++) {
		if (n < sizeof creator / 2 && get_le16(creator + 2 * n) != 0)
			continue;
		prep_utf16_to_utf8(creator, n, v->info.creator, sizeof v->info.creator);
		break;
	}
	v->chunk_blocks = CHUNK_SECTORS * v->disk.sector_size / v->info.block_size;
	return check_table(v, get_le64(h + 72), get_le32(h + 68), err);
}
