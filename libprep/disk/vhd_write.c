/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/vhd_write.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/disk/vhd.h"

#define DATA_ALIGN 4096u
#define FEATURES_RESERVED 2u /* always set, by the specification */

struct prep_vhd_writer {
	struct prep_output *out;
	struct prep_vhd_footer footer;
	struct prep_vhd_header header;
	uint32_t bitmap_size;
	uint8_t *bitmap;          /* all bits set */
	uint8_t *bat;             /* as on disk */
	bool ahead;               /* the layout was known: header and table are written already */

	uint32_t blocks;          /* written */
	bool open;                /* a block is being written: */
	uint32_t index;
	bool begun;               /* its first byte that is not zero has come */
	uint64_t at;              /* bytes of it given so far, zeros included */
};

/* A UUID of version 8 (RFC 9562: 122 bits of the maker's own) from a digest. */
static void id_from_digest(const uint8_t *digest, uint8_t id[16])
{
	memcpy(id, digest, 16);
	id[6] = (uint8_t)((id[6] & 0x0F) | 0x80);
	id[8] = (uint8_t)((id[8] & 0x3F) | 0x80);
}

static int id_from_content(struct prep_disk *d, uint8_t id[16], struct prep_err *err)
{
	const size_t head_len = (size_t)prep_min(d->size, 64 * 1024);
	uint8_t digest[EVP_MAX_MD_SIZE];
	uint8_t *head = malloc(8 + head_len);
	int r;

	if (head == NULL)
		return prep_fail_nomem(err);
	put_le64(head, d->size);
	r = prep_disk_read(d, head + 8, head_len, 0, err);
	if (r == 0 && EVP_Digest(head, 8 + head_len, digest, NULL, EVP_sha256(), NULL) != 1)
		r = prep_fail(err, PREP_EFAIL, "%s: SHA-256 failed", d->name);
	free(head);
	if (r == 0)
		id_from_digest(digest, id);
	return r;
}

int prep_vhd_identity(struct prep_disk *d, uint32_t time_stamp, struct prep_vhd_footer *ret,
		      struct prep_err *err)
{
	const struct prep_vhd_info *info = prep_vhd_disk_info(d);

	if (info != NULL) {
		*ret = info->footer;
		return 0;
	}
	/* Readers that go by the creator take the current size, not the geometry, for "win ". */
	*ret = (struct prep_vhd_footer){
		.features = FEATURES_RESERVED,
		.time_stamp = time_stamp,
		.creator = { 'w', 'i', 'n', ' ' },
		.creator_version = 0x000A0000,
		.host_os = { 'W', 'i', '2', 'k' },
		.original_size = d->size,
	};
	prep_vhd_geometry(d->size, &ret->cylinders, &ret->heads, &ret->sectors);
	return prep_disk_id(d, ret->id) ? 0 : id_from_content(d, ret->id, err);
}

int prep_vhd_identity_renew(struct prep_vhd_footer *identity, uint32_t time_stamp,
			    struct prep_err *err)
{
	if (RAND_bytes(identity->id, sizeof identity->id) != 1)
		return prep_fail(err, PREP_EFAIL, "no random bytes for a new disk id");
	identity->id[6] = (uint8_t)((identity->id[6] & 0x0F) | 0x40);
	identity->id[8] = (uint8_t)((identity->id[8] & 0x3F) | 0x80);
	identity->time_stamp = time_stamp;
	return 0;
}

int prep_vhd_size_check(uint64_t size, const char *name, struct prep_err *err)
{
	if (size <= PREP_VHD_SIZE_MAX)
		return 0;
	return prep_fail(err, PREP_EREFUSED,
			 "%s: a disk of %llu GiB: a VHD holds at most 2040 GiB ('vhd-compact --to raw' makes a raw disk of it)",
			 name, (unsigned long long)(size / PREP_GIB));
}

int prep_vhd_write_fixed_footer(struct prep_output *out, const struct prep_vhd_footer *identity,
				uint64_t size, struct prep_err *err)
{
	struct prep_vhd_footer f = *identity;
	uint8_t raw[PREP_VHD_FOOTER_SIZE];

	f.features |= FEATURES_RESERVED;
	f.data_offset = UINT64_MAX;
	f.current_size = size;
	f.type = PREP_VHD_FIXED;
	prep_vhd_footer_encode(&f, raw);
	return prep_output_write(out, raw, sizeof raw, err);
}

static uint64_t block_file_size(const struct prep_vhd_writer *w)
{
	return prep_round_up((uint64_t)w->bitmap_size + w->header.block_size, DATA_ALIGN);
}

/* Where the n-th block's bitmap stands when blocks follow each other. */
static uint64_t bitmap_offset(const struct prep_vhd_writer *w, uint32_t n)
{
	const uint64_t bat_end = PREP_VHD_BAT_OFFSET + (uint64_t)w->header.bat_entries * 4;

	return prep_round_up(bat_end + w->bitmap_size, DATA_ALIGN) - w->bitmap_size +
	       n * block_file_size(w);
}

/* All blocks of a 2040 GiB disk and their bitmaps may pass what 32-bit sector numbers reach. */
static int check_reach(const struct prep_vhd_writer *w, uint64_t off, struct prep_err *err)
{
	if (off / PREP_VHD_SECTOR < PREP_VHD_BAT_UNUSED)
		return 0;
	return prep_fail(err, PREP_EREFUSED, "%s: a disk of %llu GiB in blocks of %u KiB makes a file of over 2 TiB",
			 prep_output_name(w->out), (unsigned long long)(w->footer.current_size / PREP_GIB),
			 w->header.block_size / 1024);
}

static int write_front(struct prep_vhd_writer *w, struct prep_err *err)
{
	uint8_t front[PREP_VHD_BAT_OFFSET];
	const size_t bat_size = (size_t)prep_round_up((uint64_t)w->header.bat_entries * 4, PREP_VHD_SECTOR);

	prep_vhd_footer_encode(&w->footer, front);
	prep_vhd_header_encode(&w->header, front + PREP_VHD_HEADER_OFFSET);
	if (!w->ahead)
		return prep_output_pwrite(w->out, front, sizeof front, 0, err) < 0 ||
		       prep_output_pwrite(w->out, w->bat, bat_size, PREP_VHD_BAT_OFFSET, err) < 0 ? -1 : 0;
	return prep_output_write(w->out, front, sizeof front, err) < 0 ||
	       prep_output_write(w->out, w->bat, bat_size, err) < 0 ? -1 : 0;
}

int prep_vhd_writer_open(struct prep_output *out, const struct prep_vhd_footer *identity,
			 uint64_t size, uint32_t block_size, const uint8_t *present,
			 struct prep_vhd_writer **ret, struct prep_err *err)
{
	struct prep_vhd_writer *w;
	uint64_t entries, n = 0;

	*ret = NULL;
	if (prep_vhd_size_check(size, prep_output_name(out), err) < 0)
		return -1;
	entries = (size + block_size - 1) / block_size;
	w = calloc(1, sizeof *w);
	if (w == NULL)
		return prep_fail_nomem(err);
	w->out = out;
	w->ahead = present != NULL;
	w->bitmap_size = prep_vhd_bitmap_size(block_size);
	w->footer = *identity;
	w->footer.features |= FEATURES_RESERVED;
	w->footer.data_offset = PREP_VHD_HEADER_OFFSET;
	w->footer.current_size = size;
	w->footer.type = PREP_VHD_DYNAMIC;
	w->header = (struct prep_vhd_header){
		.bat_offset = PREP_VHD_BAT_OFFSET,
		.version = 0x00010000,
		.bat_entries = (uint32_t)entries,
		.block_size = block_size,
	};
	w->bitmap = malloc(w->bitmap_size);
	w->bat = malloc((size_t)prep_round_up(entries * 4, PREP_VHD_SECTOR));
	if (w->bitmap == NULL || w->bat == NULL) {
		prep_vhd_writer_close(w);
		return prep_fail_nomem(err);
	}
	memset(w->bitmap, 0xFF, w->bitmap_size);
	memset(w->bat, 0xFF, (size_t)prep_round_up(entries * 4, PREP_VHD_SECTOR));
	for (uint64_t i = 0; present != NULL && i < entries; i++) {
		if (!prep_bit_get(present, i))
			continue;
		put_be32(w->bat + i * 4, (uint32_t)(bitmap_offset(w, (uint32_t)n) / PREP_VHD_SECTOR));
		n++;
	}
	/* Known to be too much before the first byte, where the layout is. */
	if (check_reach(w, bitmap_offset(w, (uint32_t)n), err) < 0) {
		prep_vhd_writer_close(w);
		return -1;
	}
	if (w->ahead ? write_front(w, err) < 0
		     : prep_output_zeros(out, PREP_VHD_BAT_OFFSET + prep_round_up(entries * 4, PREP_VHD_SECTOR),
					 err) < 0) {
		prep_vhd_writer_close(w);
		return -1;
	}
	*ret = w;
	return 0;
}

/* The block has data: give it its place, its bitmap, and the zeros that came before. */
static int begin_block(struct prep_vhd_writer *w, struct prep_err *err)
{
	const uint64_t off = bitmap_offset(w, w->blocks);
	const uint64_t sector = off / PREP_VHD_SECTOR;

	if (w->ahead && get_be32(w->bat + (size_t)w->index * 4) != sector)
		return prep_fail(err, PREP_EDAMAGED, "block %u changed while it was being read", w->index);
	if (check_reach(w, off, err) < 0 ||
	    prep_output_zeros(w->out, off - prep_output_size(w->out), err) < 0 ||
	    prep_output_write(w->out, w->bitmap, w->bitmap_size, err) < 0 ||
	    prep_output_zeros(w->out, w->at, err) < 0)
		return -1;
	put_be32(w->bat + (size_t)w->index * 4, (uint32_t)sector);
	w->blocks++;
	w->begun = true;
	return 0;
}

static int end_block(struct prep_vhd_writer *w, struct prep_err *err)
{
	if (!w->open)
		return 0;
	w->open = false;
	/* Promised, and then all zero. */
	if (!w->begun && w->ahead && get_be32(w->bat + (size_t)w->index * 4) != PREP_VHD_BAT_UNUSED &&
	    begin_block(w, err) < 0)
		return -1;
	return w->begun ? prep_output_zeros(w->out, w->header.block_size - w->at, err) : 0;
}

int prep_vhd_writer_block(struct prep_vhd_writer *w, uint32_t index, struct prep_err *err)
{
	if (end_block(w, err) < 0)
		return -1;
	w->open = true;
	w->index = index;
	w->begun = false;
	w->at = 0;
	return 0;
}

int prep_vhd_writer_data(struct prep_vhd_writer *w, const void *buf, size_t len, struct prep_err *err)
{
	if ((!w->begun && begin_block(w, err) < 0) || prep_output_write(w->out, buf, len, err) < 0)
		return -1;
	w->at += len;
	return 0;
}

int prep_vhd_writer_zeros(struct prep_vhd_writer *w, uint64_t len, struct prep_err *err)
{
	if (w->begun && prep_output_zeros(w->out, len, err) < 0)
		return -1;
	w->at += len;
	return 0;
}

int prep_vhd_writer_copy(struct prep_vhd_writer *w, const struct prep_backing *from, uint64_t len,
			 struct prep_err *err)
{
	if ((!w->begun && begin_block(w, err) < 0) ||
	    prep_output_copy(w->out, from->fd, from->off, len, from->name, err) < 0)
		return -1;
	w->at += len;
	return 0;
}

int prep_vhd_writer_finish(struct prep_vhd_writer *w, struct prep_err *err)
{
	uint8_t footer[PREP_VHD_FOOTER_SIZE];
	uint64_t end;

	if (end_block(w, err) < 0)
		return -1;
	/* The footer ends on a 4 KiB boundary, like the data. */
	end = prep_round_up(prep_output_size(w->out) + sizeof footer, DATA_ALIGN);
	prep_vhd_footer_encode(&w->footer, footer);
	if (prep_output_zeros(w->out, end - sizeof footer - prep_output_size(w->out), err) < 0 ||
	    prep_output_write(w->out, footer, sizeof footer, err) < 0)
		return -1;
	return w->ahead ? 0 : write_front(w, err);
}

uint64_t prep_vhd_writer_place(const struct prep_vhd_writer *w, uint32_t index)
{
	const uint32_t sector = get_be32(w->bat + (size_t)index * 4);

	return sector == PREP_VHD_BAT_UNUSED ? 0 : (uint64_t)sector * PREP_VHD_SECTOR + w->bitmap_size;
}

uint32_t prep_vhd_writer_blocks(const struct prep_vhd_writer *w)
{
	return w->blocks;
}

void prep_vhd_writer_close(struct prep_vhd_writer *w)
{
	if (w == NULL)
		return;
	free(w->bitmap);
	free(w->bat);
	free(w);
}
