/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/volume/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include "libprep/base/bytes.h"
#include "libprep/base/utf16.h"
#include "libprep/volume/fs.h"

#define MBR_ENTRIES 446
#define MBR_SIGNATURE 510
#define MBR_LDM 0x42
#define MBR_LVM 0x8e
#define MBR_PROTECTIVE 0xee

/* More entries than this in a GPT are damage: the usual table has 128. */
#define GPT_ARRAY_MAX PREP_MIB

/*
 * Sources of the GUIDs: Microsoft's PARTITION_INFORMATION_GPT (winioctl.h) for its own, the UEFI
 * specification for the EFI system partition, the Discoverable Partitions Specification for Linux.
 */
static const struct gpt_type {
	uint32_t a;
	uint16_t b, c;
	uint8_t d[8];
	const char *name;
	const char *refusal;
} gpt_types[] = {
	{ 0xc12a7328, 0xf81f, 0x11d2, { 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b }, "EFI system", NULL },
	{ 0xe3c9e316, 0x0b5c, 0x4db8, { 0x81, 0x7d, 0xf9, 0x2d, 0xf0, 0x02, 0x15, 0xae }, "Microsoft reserved", NULL },
	{ 0xebd0a0a2, 0xb9e5, 0x4433, { 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7 }, "basic data", NULL },
	{ 0xde94bba4, 0x06d1, 0x4d40, { 0xa1, 0x6a, 0xbf, 0xd5, 0x01, 0x79, 0xd6, 0xac }, "Windows recovery", NULL },
	{ 0x5808c8aa, 0x7e8f, 0x42e0, { 0x85, 0xd2, 0xe1, 0xe9, 0x04, 0x34, 0xcf, 0xb3 }, "LDM metadata",
	  "is part of a dynamic disk (LDM metadata)" },
	{ 0xaf9b60a0, 0x1431, 0x4f62, { 0xbc, 0x68, 0x33, 0x11, 0x71, 0x4a, 0x69, 0xad }, "LDM data",
	  "is part of a dynamic disk (LDM data)" },
	{ 0xe75caf8f, 0xf680, 0x4cee, { 0xaf, 0xa3, 0xb0, 0x01, 0xe5, 0x6e, 0xfc, 0x2d }, "Storage Spaces",
	  "belongs to Storage Spaces" },
	{ 0xe6d6d379, 0xf507, 0x44c2, { 0xa2, 0x3c, 0x23, 0x8f, 0x2a, 0x3d, 0xf9, 0x28 }, "Linux LVM",
	  "is a physical volume of LVM" },
	{ 0x0fc63daf, 0x8483, 0x4772, { 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4 }, "Linux", NULL },
	{ 0x21686148, 0x6449, 0x6e6f, { 0x74, 0x4e, 0x65, 0x65, 0x64, 0x45, 0x46, 0x49 }, "BIOS boot", NULL },
};

static const struct {
	uint8_t type;
	const char *name;
} mbr_types[] = {
	{ 0x01, "FAT12" },
	{ 0x04, "FAT16" },
	{ 0x06, "FAT16" },
	{ 0x07, "NTFS/exFAT" },
	{ 0x0b, "FAT32" },
	{ 0x0c, "FAT32 (LBA)" },
	{ 0x0e, "FAT16 (LBA)" },
	{ 0x12, "OEM" },
	{ 0x17, "NTFS, hidden" },
	{ 0x1b, "FAT32, hidden" },
	{ 0x1c, "FAT32 (LBA), hidden" },
	{ 0x27, "Windows recovery" },
	{ MBR_LDM, "LDM dynamic disk" },
	{ 0x82, "Linux swap" },
	{ 0x83, "Linux" },
	{ MBR_LVM, "Linux LVM" },
	{ MBR_PROTECTIVE, "GPT protective" },
	{ 0xef, "EFI system" },
};

static const struct gpt_type *gpt_type_of(const uint8_t *p)
{
	for (size_t i = 0; i < sizeof gpt_types / sizeof gpt_types[0]; i++) {
		const struct gpt_type *t = &gpt_types[i];

		if (get_le32(p) == t->a && get_le16(p + 4) == t->b && get_le16(p + 6) == t->c &&
		    memcmp(p + 8, t->d, 8) == 0)
			return t;
	}
	return NULL;
}

const char *prep_partition_type_name(const struct prep_table *t, const struct prep_partition *p)
{
	const struct gpt_type *g;

	if (t->scheme == PREP_TABLE_NONE)
		return "no table";
	if (t->scheme == PREP_TABLE_GPT) {
		g = gpt_type_of(p->gpt_type);
		return g != NULL ? g->name : "unknown";
	}
	for (size_t i = 0; i < sizeof mbr_types / sizeof mbr_types[0]; i++)
		if (mbr_types[i].type == p->mbr_type)
			return mbr_types[i].name;
	return "unknown";
}

static void refuse(struct prep_table *t, unsigned number, const char *why)
{
	if (t->refusal[0] == '\0')
		snprintf(t->refusal, sizeof t->refusal, "partition %u %s", number, why);
}

/* A new partition of [start, start+sectors) sectors, inside the disk. */
static struct prep_partition *add(struct prep_disk *d, struct prep_table *t, uint64_t start,
				  uint64_t sectors, struct prep_err *err)
{
	const uint64_t disk_sectors = d->size / d->sector_size;
	struct prep_partition *p;

	if (t->n == PREP_PARTITIONS_MAX) {
		prep_fail(err, PREP_EDAMAGED, "%s: the partition table has more than %d partitions", d->name,
			  PREP_PARTITIONS_MAX);
		return NULL;
	}
	if (start > disk_sectors || sectors > disk_sectors - start) {
		prep_fail(err, PREP_EDAMAGED,
			  "%s: partition %u (sectors %llu to %llu) ends beyond the disk, which has %llu sectors",
			  d->name, t->n + 1, (unsigned long long)start,
			  (unsigned long long)(start + (sectors - 1)), (unsigned long long)disk_sectors);
		return NULL;
	}
	p = &t->part[t->n++];
	*p = (struct prep_partition){
		.number = t->n,
		.off = start * d->sector_size,
		.len = sectors * d->sector_size,
	};
	return p;
}

static int by_offset(const void *a, const void *b)
{
	const struct prep_partition *p = *(const struct prep_partition *const *)a;
	const struct prep_partition *q = *(const struct prep_partition *const *)b;

	return p->off < q->off ? -1 : p->off > q->off;
}

static int check_overlap(struct prep_disk *d, const struct prep_table *t, struct prep_err *err)
{
	const struct prep_partition *sorted[PREP_PARTITIONS_MAX];

	for (unsigned i = 0; i < t->n; i++)
		sorted[i] = &t->part[i];
	qsort(sorted, t->n, sizeof sorted[0], by_offset);
	for (unsigned i = 1; i < t->n; i++)
		if (sorted[i]->off < sorted[i - 1]->off + sorted[i - 1]->len)
			return prep_fail(err, PREP_EDAMAGED, "%s: partitions %u and %u overlap at offset %llu",
					 d->name, sorted[i - 1]->number, sorted[i]->number,
					 (unsigned long long)sorted[i]->off);
	return 0;
}

/* ---- MBR ---- */

static bool is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0f || type == 0x85;
}

static int add_mbr(struct prep_disk *d, struct prep_table *t, const uint8_t *entry, uint64_t base,
		   bool logical, struct prep_err *err)
{
	struct prep_partition *p = add(d, t, base + get_le32(entry + 8), get_le32(entry + 12), err);

	if (p == NULL)
		return -1;
	p->mbr_type = entry[4];
	p->active = entry[0] == 0x80;
	p->logical = logical;
	if (p->mbr_type == MBR_LDM)
		refuse(t, p->number, "is part of a dynamic disk (LDM, type 0x42)");
	if (p->mbr_type == MBR_LVM)
		refuse(t, p->number, "is a physical volume of LVM (type 0x8e)");
	return 0;
}

/*
 * The chain of an extended partition: each EBR holds a logical partition, its
 * start counted from that EBR, and a link, counted from the extended partition.
 */
static int read_chain(struct prep_disk *d, struct prep_table *t, uint64_t start, struct prep_err *err)
{
	uint64_t at = start;
	uint8_t ebr[512];

	for (unsigned n = 0; n < PREP_PARTITIONS_MAX; n++) {
		const uint8_t *logical = ebr + MBR_ENTRIES, *link = logical + 16;

		if (at >= d->size / d->sector_size)
			return prep_fail(err, PREP_EDAMAGED,
					 "%s: the extended partition's chain leads to sector %llu, beyond the disk",
					 d->name, (unsigned long long)at);
		if (prep_disk_read(d, ebr, sizeof ebr, at * d->sector_size, err) < 0)
			return -1;
		if (get_le16(ebr + MBR_SIGNATURE) != 0xaa55)
			return prep_fail(err, PREP_EDAMAGED,
					 "%s: the extended partition's chain is broken: no signature in sector %llu",
					 d->name, (unsigned long long)at);
		if (logical[4] != 0 && get_le32(logical + 12) != 0 && !is_extended(logical[4]) &&
		    add_mbr(d, t, logical, at, true, err) < 0)
			return -1;
		if (!is_extended(link[4]) || get_le32(link + 12) == 0)
			return 0;
		at = start + get_le32(link + 8);
	}
	return prep_fail(err, PREP_EDAMAGED, "%s: the extended partition's chain does not end", d->name);
}

static int read_mbr(struct prep_disk *d, struct prep_table *t, const uint8_t *mbr,
		    struct prep_err *err)
{
	t->scheme = PREP_TABLE_MBR;
	for (int i = 0; i < 4; i++) {
		const uint8_t *e = mbr + MBR_ENTRIES + 16 * i;

		if (e[4] != 0 && get_le32(e + 12) != 0 && !is_extended(e[4]) &&
		    add_mbr(d, t, e, 0, false, err) < 0)
			return -1;
	}
	/* Logical partitions count after the primary ones. */
	for (int i = 0; i < 4; i++) {
		const uint8_t *e = mbr + MBR_ENTRIES + 16 * i;

		if (is_extended(e[4]) && get_le32(e + 12) != 0 &&
		    read_chain(d, t, get_le32(e + 8), err) < 0)
			return -1;
	}
	return 0;
}

/* ---- GPT ---- */

struct gpt {
	uint64_t alternate, array;
	uint32_t entries, entry_size, array_crc;
	uint8_t disk_id[16];
	uint8_t *entry;
};

/* 1: a sound header and array at this sector; 0: *why says what is wrong; -1. */
static int load_gpt(struct prep_disk *d, uint64_t sector, struct gpt *g, const char **why,
		    struct prep_err *err)
{
	const uint64_t disk_sectors = d->size / d->sector_size;
	uint8_t *h;
	uint32_t size, crc;
	int r = 0;

	*g = (struct gpt){ .entry = NULL };
	*why = "lies beyond the disk";
	if (sector >= disk_sectors)
		return 0;
	h = malloc(d->sector_size);
	if (h == NULL)
		return prep_fail_nomem(err);
	if (prep_disk_read(d, h, d->sector_size, sector * d->sector_size, err) < 0) {
		free(h);
		return -1;
	}
	size = get_le32(h + 12);
	crc = get_le32(h + 16);
	*why = "has no signature";
	if (memcmp(h, "EFI PART", 8) != 0)
		goto out;
	*why = "has a wrong size";
	if (size < 92 || size > d->sector_size)
		goto out;
	*why = "has a wrong checksum";
	put_le32(h + 16, 0);
	if (crc32(0, h, size) != crc)
		goto out;
	*why = "belongs to another place";
	if (get_le64(h + 24) != sector)
		goto out;
	g->alternate = get_le64(h + 32);
	memcpy(g->disk_id, h + 56, 16);
	g->array = get_le64(h + 72);
	g->entries = get_le32(h + 80);
	g->entry_size = get_le32(h + 84);
	g->array_crc = get_le32(h + 88);
	*why = "describes an impossible table";
	if (!prep_is_pow2(g->entry_size) || g->entry_size < 128 || g->entry_size > 4096 ||
	    g->entries == 0 || g->entries > GPT_ARRAY_MAX / g->entry_size ||
	    g->array >= disk_sectors ||
	    (uint64_t)g->entries * g->entry_size > d->size - g->array * d->sector_size)
		goto out;
	g->entry = malloc((size_t)g->entries * g->entry_size);
	if (g->entry == NULL) {
		r = prep_fail_nomem(err);
		goto out;
	}
	if (prep_disk_read(d, g->entry, (size_t)g->entries * g->entry_size, g->array * d->sector_size,
			   err) < 0) {
		r = -1;
		goto out;
	}
	*why = "has a table with a wrong checksum";
	r = crc32(0, g->entry, (uInt)(g->entries * g->entry_size)) == g->array_crc;
out:
	if (r <= 0) {
		free(g->entry);
		g->entry = NULL;
	}
	free(h);
	return r;
}

static int add_gpt(struct prep_disk *d, struct prep_table *t, const struct gpt *g,
		   struct prep_err *err)
{
	static const uint8_t unused[16];

	t->scheme = PREP_TABLE_GPT;
	for (uint32_t i = 0; i < g->entries; i++) {
		const uint8_t *e = g->entry + (size_t)i * g->entry_size;
		const uint64_t first = get_le64(e + 32), last = get_le64(e + 40);
		const struct gpt_type *type = gpt_type_of(e);
		struct prep_partition *p;
		size_t units = 0;

		if (memcmp(e, unused, 16) == 0)
			continue;
		if (last < first || last == UINT64_MAX)
			return prep_fail(err, PREP_EDAMAGED, "%s: partition %u ends before it begins", d->name,
					 t->n + 1);
		p = add(d, t, first, last - first + 1, err);
		if (p == NULL)
			return -1;
		memcpy(p->gpt_type, e, 16);
		memcpy(p->gpt_id, e + 16, 16);
		while (units < 36 && get_le16(e + 56 + 2 * units) != 0)
			units++;
		prep_utf16_to_utf8(e + 56, units, p->name, sizeof p->name);
		if (type != NULL && type->refusal != NULL)
			refuse(t, p->number, type->refusal);
	}
	return 0;
}

/* 1 when a GPT was read, 0 when the disk has none and `must` is not set. */
static int read_gpt(struct prep_disk *d, struct prep_table *t, bool must, struct prep_err *err)
{
	const uint64_t last = d->size / d->sector_size - 1;
	const char *why, *why_backup;
	struct gpt primary, backup;
	int r, rb;

	r = load_gpt(d, 1, &primary, &why, err);
	if (r < 0)
		return -1;
	if (r == 0 && !must)
		return 0;
	rb = load_gpt(d, r ? primary.alternate : last, &backup, &why_backup, err);
	if (rb < 0) {
		free(primary.entry);
		return -1;
	}
	if (!r && !rb)
		return prep_fail(err, PREP_EDAMAGED,
				 "%s: the GPT is damaged: the primary one in sector 1 %s, the backup in sector %llu %s",
				 d->name, why, (unsigned long long)last, why_backup);
	if (!r)
		prep_note(&t->notes, "%s: the primary GPT in sector 1 %s: its backup was used", d->name, why);
	else if (!rb)
		prep_note(&t->notes, "%s: the backup GPT in sector %llu %s", d->name,
			  (unsigned long long)primary.alternate, why_backup);
	else if (primary.array_crc != backup.array_crc || memcmp(primary.disk_id, backup.disk_id, 16) != 0)
		prep_note(&t->notes, "%s: the backup GPT differs from the primary one", d->name);
	r = add_gpt(d, t, r ? &primary : &backup, err);
	free(primary.entry);
	free(backup.entry);
	return r < 0 ? -1 : 1;
}

/* ---- Which of them ---- */

static int read_whole(struct prep_disk *d, struct prep_table *t, enum prep_fs_kind kind)
{
	t->scheme = PREP_TABLE_NONE;
	t->n = 1;
	t->part[0] = (struct prep_partition){ .number = 1, .len = d->size };
	if (kind == PREP_FS_LVM)
		snprintf(t->refusal, sizeof t->refusal, "the disk is a physical volume of LVM");
	return 0;
}

static bool is_mbr(const uint8_t *p)
{
	if (get_le16(p + MBR_SIGNATURE) != 0xaa55)
		return false;
	for (int i = 0; i < 4; i++)
		if ((p[MBR_ENTRIES + 16 * i] & 0x7f) != 0)
			return false;
	return true;
}

/*
 * Whether a sector that begins as a volume's has partitions as well: tools that write a table leave the rest of
 * the sector, with the volume that the whole disk was before. A partition from sector 0 on is what mkfs.vfat
 * --mbr makes of the volume itself.
 */
static bool has_partitions(const struct prep_disk *d, const uint8_t *p)
{
	for (int i = 0; is_mbr(p) && i < 4; i++) {
		const uint8_t *e = p + MBR_ENTRIES + 16 * i;

		if (e[4] != 0 && get_le32(e + 8) > 0 && get_le32(e + 8) < d->size / d->sector_size && get_le32(e + 12) > 0)
			return true;
	}
	return false;
}

static int read_table(struct prep_disk *d, struct prep_table *t, struct prep_err *err)
{
	enum prep_fs_kind kind;
	bool protective = false;
	uint8_t mbr[512];
	int r;

	/* A volume's boot sector ends in the signature of an MBR too. */
	if (prep_fs_probe(d, &kind, err) < 0)
		return -1;
	if (d->size < 4 * (uint64_t)d->sector_size)
		return read_whole(d, t, kind);
	if (prep_disk_read(d, mbr, sizeof mbr, 0, err) < 0)
		return -1;
	if (kind != PREP_FS_UNKNOWN && kind != PREP_FS_LVM) {
		if (has_partitions(d, mbr))
			snprintf(t->refusal, sizeof t->refusal,
				 "its first sector is both a partition table and the beginning of a volume (%s): which of them is left from before cannot be told (wipefs removes one)",
				 prep_fs_kind_name(kind));
		return read_whole(d, t, kind);
	}
	if (!is_mbr(mbr)) {
		r = kind == PREP_FS_UNKNOWN ? read_gpt(d, t, false, err) : 0;
		if (r > 0)
			prep_note(&t->notes, "%s: the protective MBR is missing: the GPT was used", d->name);
		return r != 0 ? r : read_whole(d, t, kind);
	}
	for (int i = 0; i < 4; i++)
		protective |= mbr[MBR_ENTRIES + 16 * i + 4] == MBR_PROTECTIVE;
	if (protective)
		return read_gpt(d, t, true, err);
	r = read_mbr(d, t, mbr, err);
	/* LVM may keep a boot sector before its label, with an empty table in it. */
	return r == 0 && t->n == 0 && kind == PREP_FS_LVM ? read_whole(d, t, kind) : r;
}

int prep_table_read(struct prep_disk *d, struct prep_table *ret, struct prep_err *err)
{
	*ret = (struct prep_table){ .scheme = PREP_TABLE_NONE };
	if (read_table(d, ret, err) < 0 || check_overlap(d, ret, err) < 0) {
		prep_table_clear(ret);
		return -1;
	}
	return 0;
}

void prep_table_clear(struct prep_table *t)
{
	prep_notes_clear(&t->notes);
	t->n = 0;
	t->refusal[0] = '\0';
}
