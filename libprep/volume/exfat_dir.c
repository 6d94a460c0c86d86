/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * exFAT's directory entries (6, 7): a file is a set of them, a primary one and
 * the secondary ones that follow it, under one checksum.
 */
#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"

/* Entry types, all of them in use: bit 7. Secondary: bit 6. Benign, so that others may pass them over: bit 5. */
#define IN_USE 0x80
#define SECONDARY 0x40
#define BENIGN 0x20
#define TYPE_BITMAP 0x81
#define TYPE_UPCASE 0x82
#define TYPE_LABEL 0x83
#define TYPE_FILE 0x85
#define TYPE_STREAM 0xc0
#define TYPE_NAME 0xc1

#define ATTR_FOLDER 0x10
#define ALLOCATED 0x01   /* general flags: it may have clusters */
#define CONTIGUOUS 0x02  /* NoFatChain */
#define NAME_UNITS 15u

static bool is_secondary(const uint8_t *slot)
{
	return (slot[0] & (IN_USE | SECONDARY)) == (IN_USE | SECONDARY);
}

/* 6.3.3: over the whole set but for the field itself, bytes 2 and 3 of the first entry. */
static uint16_t add_checksum(uint16_t sum, const uint8_t *slot, bool primary)
{
	for (unsigned i = 0; i < PREP_FAT_SLOT; i++)
		if (!primary || (i != 2 && i != 3))
			sum = (uint16_t)(((uint32_t)sum << 15 | sum >> 1) + slot[i]);
	return sum;
}

static int damaged(struct prep_fat_entry *e, const char *what)
{
	if (e->damage == NULL)
		e->damage = what;
	e->kind = PREP_FAT_DAMAGED;
	return 1;
}

static void take_stream(const uint8_t *p, struct prep_fat_entry *e)
{
	e->contiguous = (p[1] & CONTIGUOUS) != 0;
	e->units = p[3];
	e->initialized = get_le64(p + 8);
	e->size = get_le64(p + 24);
	e->first = p[1] & ALLOCATED ? get_le32(p + 20) : 0;
	if (e->units == 0)
		damaged(e, "a file without a name");
	/* 7.6.5, 7.6.7 */
	if (e->initialized > e->size || (e->folder && e->initialized != e->size))
		damaged(e, "a file whose valid length contradicts its length");
	if (e->first == 0 && e->size > 0)
		damaged(e, "a file with data, but without a cluster");
}

/* Take up what follows a file entry, which is at d->slot. */
static int read_file(struct prep_fat_dir *d, struct prep_fat_entry *e, struct prep_err *err)
{
	const unsigned count = d->slot[1];
	const uint16_t checksum = get_le16(d->slot + 2);
	uint16_t sum = add_checksum(0, d->slot, true);
	unsigned named = 0;
	int r;

	e->kind = PREP_FAT_FILE;
	e->folder = (get_le16(d->slot + 4) & ATTR_FOLDER) != 0;
	if (count < 2)
		return damaged(e, "a file of too few entries");
	for (unsigned i = 1; i <= count; i++) {
		r = prep_fat_next_slot(d, err);
		if (r < 0)
			return -1;
		if (r == 0)
			return damaged(e, "a file that its folder's end cuts off");
		if (!is_secondary(d->slot)) {
			d->again = true;
			return damaged(e, "a file that another entry cuts off");
		}
		e->slot[e->slots++] = d->slot_off;
		sum = add_checksum(sum, d->slot, false);
		if (i == 1) {
			if (d->slot[0] != TYPE_STREAM)
				damaged(e, "a file without a stream entry");
			else
				take_stream(d->slot, e);
		} else if (d->slot[0] == TYPE_NAME && named < e->units) {
			const unsigned n = (unsigned)prep_min(NAME_UNITS, e->units - named);

			memcpy(e->name + 2 * (size_t)named, d->slot + 2, 2 * (size_t)n);
			named += n;
		} else if (d->slot[0] & BENIGN) {
			e->foreign |= (d->slot[1] & ALLOCATED) != 0;
		} else {
			damaged(e, "a file with an entry of unknown kind");
		}
	}
	if (sum != checksum)
		return damaged(e, "a file whose checksum is wrong");
	if (named < e->units)
		return damaged(e, "a file whose name is cut off");
	return 1;
}

/* Pass over the secondary entries of a primary one that means nothing here. */
static int skip_secondary(struct prep_fat_dir *d, struct prep_err *err)
{
	int r;

	for (unsigned count = d->slot[1]; count > 0; count--) {
		r = prep_fat_next_slot(d, err);
		if (r <= 0)
			return r;
		if (!is_secondary(d->slot)) {
			d->again = true;
			break;
		}
	}
	return 0;
}

static void take_table(const uint8_t *p, struct prep_fat_entry *e)
{
	e->kind = p[0] == TYPE_BITMAP ? PREP_FAT_BITMAP : PREP_FAT_UPCASE;
	e->checksum = get_le32(p + 4);
	e->first = get_le32(p + 20);
	e->size = e->initialized = get_le64(p + 24);
}

int prep_exfat_next_entry(struct prep_fat_dir *d, struct prep_fat_entry *ret, struct prep_err *err)
{
	int r;

	while ((r = prep_fat_next_slot(d, err)) > 0) {
		const uint8_t *p = d->slot;

		if (!(p[0] & IN_USE))
			continue;
		if (p[0] & SECONDARY) {
			if (d->orphans++ == 0)
				d->orphan_off = d->slot_off;
			continue;
		}
		ret->id = d->slot_off / PREP_FAT_SLOT;
		ret->units = ret->alias_units = 0;
		ret->folder = ret->contiguous = ret->foreign = false;
		ret->first = 0;
		ret->size = ret->initialized = 0;
		ret->damage = NULL;
		ret->slot[0] = d->slot_off;
		ret->slots = 1;
		if (p[0] == TYPE_FILE)
			return read_file(d, ret, err);
		if (p[0] == TYPE_BITMAP || p[0] == TYPE_UPCASE) {
			take_table(p, ret);
			return 1;
		}
		if (p[0] == TYPE_LABEL) {
			ret->kind = PREP_FAT_LABEL;
			ret->units = p[1] > 11 ? 11 : p[1];
			memcpy(ret->name, p + 2, 2 * (size_t)ret->units);
			return 1;
		}
		if (!(p[0] & BENIGN))
			return damaged(ret, "an entry of unknown kind");
		r = skip_secondary(d, err);
		if (r < 0)
			return -1;
	}
	return r;
}
