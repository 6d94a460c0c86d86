/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Folders: slots of 32 bytes, one after the other along a chain of clusters,
 * and what those of FAT12, FAT16 and FAT32 mean.
 */
#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"
#include "libprep/base/utf16.h"

/* Drivers go no further: 65536 slots, on exFAT 256 MiB (7.4). */
#define DIR_MAX (65536u * PREP_FAT_SLOT)
#define EXFAT_DIR_MAX (256 * PREP_MIB)

/* ---- Slots ---- */

struct prep_fat_dir prep_fat_root(struct prep_fat *f)
{
	struct prep_fat_dir d = prep_fat_dir_of(f, f->root_cluster, false, 0);

	d.fixed = d.exact = f->root_cluster == 0;
	d.end = f->exfat ? EXFAT_DIR_MAX : d.fixed ? f->root_len : DIR_MAX;
	return d;
}

struct prep_fat_dir prep_fat_dir_of(struct prep_fat *f, uint32_t first, bool contiguous,
				    uint64_t size)
{
	return (struct prep_fat_dir){
		.f = f,
		.first = first,
		.cluster = first,
		.contiguous = contiguous,
		.end = f->exfat ? prep_min(size, EXFAT_DIR_MAX) : DIR_MAX,
		.exact = f->exfat,
	};
}

int prep_fat_dir_damaged(const struct prep_fat_dir *d, const char *what, struct prep_err *err)
{
	return prep_fail(err, PREP_EDAMAGED, "%s: the folder at cluster %u: %s", d->f->disk->name,
			 (unsigned)d->first, what);
}

/* The end of what can be read: a failure, unless the caller knows of the damage. */
static int broken(struct prep_fat_dir *d, const char *what, struct prep_err *err)
{
	d->done = true;
	return d->lenient ? 0 : prep_fat_dir_damaged(d, what, err);
}

/* At the start of a cluster: find it, and see that no folder was read from it before. */
static int enter_cluster(struct prep_fat_dir *d, struct prep_err *err)
{
	struct prep_fat *const f = d->f;

	if (d->at > 0 && d->contiguous)
		d->cluster++;
	else if (d->at > 0 && prep_fat_get(f, d->cluster, &d->cluster, err) < 0)
		return -1;
	if (d->cluster == PREP_FAT_END && !d->exact) {
		d->done = true;
		return 0;
	}
	if (!prep_fat_is_cluster(f, d->cluster))
		return broken(d, "its chain is damaged", err);
	if (d->seen != NULL) {
		if (prep_bit_get(d->seen, d->cluster - 2))
			return broken(d, "its chain runs in a circle, or into another folder", err);
		prep_bit_set(d->seen, d->cluster - 2);
	}
	return 1;
}

/* Bytes of the volume at off into f->block, as many of `room` as go in. */
static int load_block(struct prep_fat *f, uint64_t off, uint64_t room, struct prep_err *err)
{
	const size_t len = (size_t)prep_min(room, sizeof f->block);

	f->block_len = 0;
	if (prep_disk_read(f->disk, f->block, len, off, err) < 0)
		return -1;
	f->block_off = off;
	f->block_len = len;
	return 0;
}

int prep_fat_next_slot(struct prep_fat_dir *d, struct prep_err *err)
{
	struct prep_fat *const f = d->f;
	uint64_t off, room;
	int r;

	if (d->done)
		return 0;
	if (d->again) {
		d->again = false;
		d->at -= PREP_FAT_SLOT;
		off = d->slot_off;
		room = PREP_FAT_SLOT;
	} else if (d->at >= d->end) {
		if (!d->exact)
			return broken(d, "it is larger than a folder can be, or its chain runs in a circle", err);
		d->done = true;
		return 0;
	} else if (d->fixed) {
		off = f->root_off + d->at;
		room = d->end - d->at;
	} else {
		if (d->at % f->cluster_size == 0) {
			r = enter_cluster(d, err);
			if (r <= 0)
				return r;
		}
		off = prep_fat_offset(f, d->cluster) + d->at % f->cluster_size;
		room = f->cluster_size - d->at % f->cluster_size;
	}
	if ((off < f->block_off || off + PREP_FAT_SLOT > f->block_off + f->block_len) &&
	    load_block(f, off, room, err) < 0)
		return -1;
	d->slot = f->block + (off - f->block_off);
	d->slot_off = off;
	d->at += PREP_FAT_SLOT;
	if (d->slot[0] == 0) {
		d->done = true;
		return 0;
	}
	return 1;
}

/* ---- Names ---- */

/*
 * Code page 850, of western Europe, from 0x80 on: its letters are those of 437
 * (but for the Greek ones) and more. Which one a system used is written nowhere.
 */
static const uint16_t upper_half[128] = {
	0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7,
	0x00ea, 0x00eb, 0x00e8, 0x00ef, 0x00ee, 0x00ec, 0x00c4, 0x00c5,
	0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9,
	0x00ff, 0x00d6, 0x00dc, 0x00f8, 0x00a3, 0x00d8, 0x00d7, 0x0192,
	0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1, 0x00aa, 0x00ba,
	0x00bf, 0x00ae, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb,
	0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x00c1, 0x00c2, 0x00c0,
	0x00a9, 0x2563, 0x2551, 0x2557, 0x255d, 0x00a2, 0x00a5, 0x2510,
	0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x00e3, 0x00c3,
	0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x00a4,
	0x00f0, 0x00d0, 0x00ca, 0x00cb, 0x00c8, 0x0131, 0x00cd, 0x00ce,
	0x00cf, 0x2518, 0x250c, 0x2588, 0x2584, 0x00a6, 0x00cc, 0x2580,
	0x00d3, 0x00df, 0x00d4, 0x00d2, 0x00f5, 0x00d5, 0x00b5, 0x00fe,
	0x00de, 0x00da, 0x00db, 0x00d9, 0x00fd, 0x00dd, 0x00af, 0x00b4,
	0x00ad, 0x00b1, 0x2017, 0x00be, 0x00b6, 0x00a7, 0x00f7, 0x00b8,
	0x00b0, 0x00a8, 0x00b7, 0x00b9, 0x00b3, 0x00b2, 0x25a0, 0x00a0,
};

unsigned prep_fat_oem_to_utf16(const uint8_t *p, size_t len, uint8_t *out)
{
	while (len > 0 && p[len - 1] == ' ')
		len--;
	for (size_t i = 0; i < len; i++)
		put_le16(out + 2 * i, p[i] < 0x80 ? p[i] : upper_half[p[i] - 0x80]);
	return (unsigned)len;
}

size_t prep_fat_name_utf8(const struct prep_fat_entry *e, char *out)
{
	return prep_utf16_name_to_utf8(e->name, e->units, out, PREP_FAT_NAME_ROOM);
}

/* ---- Entries ---- */

#define FREED 0xe5
#define ATTR_LABEL 0x08
#define ATTR_FOLDER 0x10
#define ATTR_LONG 0x0f
#define ATTR_MASK 0x3f
#define LOWER_BASE 0x08  /* Windows NT's flags at 12: "readme.TXT" without a long name */
#define LOWER_EXT 0x10
#define LONG_LAST 0x40
#define LONG_UNITS 13u
#define LONG_SLOTS 20u

static bool is_long(const uint8_t *slot)
{
	return (slot[11] & ATTR_MASK) == ATTR_LONG;
}

static uint8_t short_checksum(const uint8_t *name)
{
	uint8_t sum = 0;

	for (unsigned i = 0; i < 11; i++)
		sum = (uint8_t)((sum >> 1 | sum << 7) + name[i]);
	return sum;
}

static void lower(uint8_t *text, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		const uint16_t c = get_le16(text + 2 * i);

		if (c >= 'A' && c <= 'Z')
			put_le16(text + 2 * i, c + 32);
	}
}

/* "NAME    EXT" as NAME.EXT: units. */
static unsigned short_name(const uint8_t *slot, uint8_t *out)
{
	uint8_t raw[11];
	unsigned n, base;

	memcpy(raw, slot, sizeof raw);
	if (raw[0] == 0x05)
		raw[0] = 0xe5;
	base = n = prep_fat_oem_to_utf16(raw, 8, out);
	if (slot[12] & LOWER_BASE)
		lower(out, 0, base);
	if (memcmp(raw + 8, "   ", 3) != 0) {
		put_le16(out + 2 * n, '.');
		n += 1 + prep_fat_oem_to_utf16(raw + 8, 3, out + 2 * n + 2);
		if (slot[12] & LOWER_EXT)
			lower(out, base, n);
	}
	return n;
}

/* What no system writes, and no byte of a character of two bytes can be. */
static bool short_name_sound(const uint8_t *slot)
{
	if (slot[0] == ' ')
		return false;
	for (unsigned i = 0; i < 11; i++)
		if ((slot[i] < ' ' && !(i == 0 && slot[i] == 0x05)) || slot[i] == '/')
			return false;
	return true;
}

/* Slots of a long name that stand before their short entry, the last piece first. */
struct long_name {
	uint8_t text[2 * LONG_UNITS * LONG_SLOTS];
	unsigned slots, expected; /* taken; the number that the next one has to have, 0 when all are there */
	uint8_t checksum;
	uint64_t slot[LONG_SLOTS];
};

static void forget_long(struct prep_fat_dir *d, struct long_name *l)
{
	if (l->slots > 0 && d->orphans == 0)
		d->orphan_off = l->slot[0];
	d->orphans += l->slots;
	l->slots = 0;
}

static void take_long(struct prep_fat_dir *d, struct long_name *l)
{
	const uint8_t *p = d->slot;
	const unsigned number = p[0] & 0x1f;
	uint8_t *text;

	if (p[0] & LONG_LAST) {
		forget_long(d, l);
		l->expected = number;
		l->checksum = p[13];
		memset(l->text, 0, sizeof l->text);
	}
	l->slot[l->slots < LONG_SLOTS ? l->slots : 0] = d->slot_off;
	l->slots++;
	if (number == 0 || number > LONG_SLOTS || number != l->expected || p[13] != l->checksum) {
		forget_long(d, l);
		l->expected = 0;
		return;
	}
	text = l->text + 2 * LONG_UNITS * (number - 1);
	memcpy(text, p + 1, 10);
	memcpy(text + 10, p + 14, 12);
	memcpy(text + 22, p + 28, 4);
	l->expected--;
}

/* Whether the long name is that of the short entry: then it becomes the entry's. */
static bool use_long(struct prep_fat_dir *d, struct long_name *l, struct prep_fat_entry *e)
{
	unsigned units = 0;

	if (l->slots == 0)
		return false;
	while (units < LONG_UNITS * LONG_SLOTS && get_le16(l->text + 2 * units) != 0)
		units++;
	if (l->expected != 0 || l->checksum != short_checksum(d->slot) || units == 0 || units > 255) {
		forget_long(d, l);
		return false;
	}
	memcpy(e->name, l->text, 2 * (size_t)units);
	e->units = units;
	memcpy(e->slot, l->slot, l->slots * sizeof *l->slot);
	e->slots = l->slots;
	return true;
}

static void decode(struct prep_fat_dir *d, struct long_name *l, struct prep_fat_entry *e)
{
	const uint8_t *p = d->slot;

	e->damage = NULL;
	e->contiguous = e->foreign = false;
	e->id = d->slot_off / PREP_FAT_SLOT;
	e->folder = (p[11] & ATTR_FOLDER) != 0;
	e->first = get_le16(p + 26) | (d->f->bits == 32 ? (uint32_t)get_le16(p + 20) << 16 : 0);
	e->size = e->initialized = e->folder ? 0 : get_le32(p + 28);
	e->alias_units = 0;
	e->slots = 0;
	if (p[11] & ATTR_LABEL) {
		forget_long(d, l);
		e->kind = PREP_FAT_LABEL;
		e->units = prep_fat_oem_to_utf16(p, 11, e->name);
	} else if (memcmp(p, ".          ", 11) == 0 || memcmp(p, "..         ", 11) == 0) {
		forget_long(d, l);
		e->kind = p[1] == '.' ? PREP_FAT_DOTDOT : PREP_FAT_DOT;
		e->units = short_name(p, e->name);
	} else if (!short_name_sound(p)) {
		forget_long(d, l);
		e->kind = PREP_FAT_DAMAGED;
		e->damage = "an entry whose name cannot be";
		e->units = 0;
	} else {
		e->kind = PREP_FAT_FILE;
		if (use_long(d, l, e))
			e->alias_units = short_name(p, e->alias);
		else
			e->units = short_name(p, e->name);
	}
	e->slot[e->slots++] = d->slot_off;
}

int prep_fat_next_entry(struct prep_fat_dir *d, struct prep_fat_entry *ret, struct prep_err *err)
{
	struct long_name l = { .slots = 0 };
	int r;

	while ((r = prep_fat_next_slot(d, err)) > 0) {
		if (d->slot[0] == FREED) {
			forget_long(d, &l);
		} else if (is_long(d->slot)) {
			take_long(d, &l);
		} else {
			decode(d, &l, ret);
			return 1;
		}
	}
	forget_long(d, &l);
	return r;
}
