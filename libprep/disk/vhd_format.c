/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/vhd_format.h"

#include "libprep/base/bytes.h"

#define FOOTER_CHECKSUM 64
#define HEADER_CHECKSUM 36
#define HEADER_LOCATORS 576
#define LOCATOR_SIZE 24

static uint32_t checksum(const uint8_t *p, size_t len, size_t field)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		if (i < field || i >= field + 4)
			sum += p[i];
	return ~sum;
}

bool prep_vhd_footer_decode(const uint8_t *p, struct prep_vhd_footer *ret)
{
	if (memcmp(p, "conectix", 8) != 0)
		return false;
	*ret = (struct prep_vhd_footer){
		.features = get_be32(p + 8),
		.data_offset = get_be64(p + 16),
		.time_stamp = get_be32(p + 24),
		.creator_version = get_be32(p + 32),
		.original_size = get_be64(p + 40),
		.current_size = get_be64(p + 48),
		.cylinders = get_be16(p + 56),
		.heads = p[58],
		.sectors = p[59],
		.type = get_be32(p + 60),
		.saved_state = p[84],
		.checksum_ok = get_be32(p + FOOTER_CHECKSUM) == checksum(p, PREP_VHD_FOOTER_SIZE, FOOTER_CHECKSUM),
	};
	memcpy(ret->creator, p + 28, 4);
	memcpy(ret->host_os, p + 36, 4);
	memcpy(ret->id, p + 68, 16);
	return true;
}

void prep_vhd_footer_encode(const struct prep_vhd_footer *f, uint8_t *p)
{
	memset(p, 0, PREP_VHD_FOOTER_SIZE);
	memcpy(p, "conectix", 8);
	put_be32(p + 8, f->features);
	put_be32(p + 12, 0x00010000);
	put_be64(p + 16, f->data_offset);
	put_be32(p + 24, f->time_stamp);
	memcpy(p + 28, f->creator, 4);
	put_be32(p + 32, f->creator_version);
	memcpy(p + 36, f->host_os, 4);
	put_be64(p + 40, f->original_size);
	put_be64(p + 48, f->current_size);
	put_be16(p + 56, f->cylinders);
	p[58] = f->heads;
	p[59] = f->sectors;
	put_be32(p + 60, f->type);
	memcpy(p + 68, f->id, 16);
	p[84] = f->saved_state;
	put_be32(p + FOOTER_CHECKSUM, checksum(p, PREP_VHD_FOOTER_SIZE, FOOTER_CHECKSUM));
}

bool prep_vhd_header_decode(const uint8_t *p, struct prep_vhd_header *ret)
{
	if (memcmp(p, "cxsparse", 8) != 0)
		return false;
	*ret = (struct prep_vhd_header){
		.bat_offset = get_be64(p + 16),
		.version = get_be32(p + 24),
		.bat_entries = get_be32(p + 28),
		.block_size = get_be32(p + 32),
		.parent_time_stamp = get_be32(p + 56),
		.checksum_ok = get_be32(p + HEADER_CHECKSUM) == checksum(p, PREP_VHD_HEADER_SIZE, HEADER_CHECKSUM),
	};
	memcpy(ret->parent_id, p + 40, 16);
	memcpy(ret->parent_name, p + 64, sizeof ret->parent_name);
	for (unsigned i = 0; i < PREP_VHD_LOCATORS; i++) {
		const uint8_t *l = p + HEADER_LOCATORS + i * LOCATOR_SIZE;

		memcpy(ret->locator[i].code, l, 4);
		ret->locator[i].space = get_be32(l + 4);
		ret->locator[i].length = get_be32(l + 8);
		ret->locator[i].off = get_be64(l + 16);
	}
	return true;
}

void prep_vhd_header_encode(const struct prep_vhd_header *h, uint8_t *p)
{
	memset(p, 0, PREP_VHD_HEADER_SIZE);
	memcpy(p, "cxsparse", 8);
	put_be64(p + 8, UINT64_MAX);
	put_be64(p + 16, h->bat_offset);
	put_be32(p + 24, h->version);
	put_be32(p + 28, h->bat_entries);
	put_be32(p + 32, h->block_size);
	memcpy(p + 40, h->parent_id, 16);
	put_be32(p + 56, h->parent_time_stamp);
	memcpy(p + 64, h->parent_name, sizeof h->parent_name);
	for (unsigned i = 0; i < PREP_VHD_LOCATORS; i++) {
		uint8_t *l = p + HEADER_LOCATORS + i * LOCATOR_SIZE;

		memcpy(l, h->locator[i].code, 4);
		put_be32(l + 4, h->locator[i].space);
		put_be32(l + 8, h->locator[i].length);
		put_be64(l + 16, h->locator[i].off);
	}
	put_be32(p + HEADER_CHECKSUM, checksum(p, PREP_VHD_HEADER_SIZE, HEADER_CHECKSUM));
}

int prep_vhd_footer_check(const struct prep_vhd_footer *f, const char *name, struct prep_err *err)
{
	if (f->type != PREP_VHD_FIXED && f->type != PREP_VHD_DYNAMIC && f->type != PREP_VHD_DIFFERENCING)
		return prep_fail(err, PREP_EREFUSED, "%s: VHD of unknown type %u", name, f->type);
	if (f->current_size == 0 || f->current_size % PREP_VHD_SECTOR != 0 || f->current_size > (uint64_t)64 << 40)
		return prep_fail(err, PREP_EDAMAGED, "%s: VHD footer: a disk of %llu bytes", name,
				 (unsigned long long)f->current_size);
	return 0;
}

int prep_vhd_header_check(const struct prep_vhd_footer *footer, const struct prep_vhd_header *h,
			  const char *name, struct prep_err *err)
{
	if (!h->checksum_ok)
		return prep_fail(err, PREP_EDAMAGED, "%s: VHD header at offset %llu: wrong checksum", name,
				 (unsigned long long)footer->data_offset);
	if (!prep_is_pow2(h->block_size) || h->block_size < PREP_VHD_BLOCK_SIZE_MIN ||
	    h->block_size > PREP_VHD_BLOCK_SIZE_MAX)
		return prep_fail(err, PREP_EREFUSED,
				 "%s: block size %u: only powers of two from 512 KiB to 256 MiB are supported", name,
				 h->block_size);
	if (h->bat_entries > footer->current_size / h->block_size + PREP_VHD_SIZE_MAX / h->block_size)
		return prep_fail(err, PREP_EDAMAGED, "%s: VHD header: %u block table entries", name, h->bat_entries);
	if ((uint64_t)h->bat_entries * h->block_size < footer->current_size)
		return prep_fail(err, PREP_EDAMAGED, "%s: the block table holds %u blocks, the disk has %llu", name,
				 h->bat_entries,
				 (unsigned long long)((footer->current_size + h->block_size - 1) / h->block_size));
	return 0;
}

void prep_vhd_geometry(uint64_t size, uint16_t *cylinders, uint8_t *heads, uint8_t *sectors)
{
	const uint64_t most = (uint64_t)65535 * 16 * 255;
	const uint64_t total = prep_min(size / PREP_VHD_SECTOR, most);
	uint64_t tracks, spt, h;

	if (total >= (uint64_t)65535 * 16 * 63) {
		spt = 255;
		h = 16;
		tracks = total / spt;
	} else {
		spt = 17;
		tracks = total / spt;
		h = (tracks + 1023) / 1024;
		if (h < 4)
			h = 4;
		if (tracks >= h * 1024 || h > 16) {
			spt = 31;
			h = 16;
			tracks = total / spt;
		}
		if (tracks >= h * 1024) {
			spt = 63;
			h = 16;
			tracks = total / spt;
		}
	}
	*cylinders = (uint16_t)(tracks / h);
	*heads = (uint8_t)h;
	*sectors = (uint8_t)spt;
}

uint64_t prep_vhd_geometry_size(const struct prep_vhd_footer *f)
{
	return (uint64_t)f->cylinders * f->heads * f->sectors * PREP_VHD_SECTOR;
}

uint32_t prep_vhd_bitmap_size(uint32_t block_size)
{
	/* One bit a sector. */
	return (uint32_t)prep_round_up(block_size / PREP_VHD_SECTOR / 8, PREP_VHD_SECTOR);
}
