/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/vhd_stream.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"

struct block {
	uint32_t sector, index;
};

struct prep_vhd_stream {
	int fd;
	char *name;
	struct prep_vhd_footer footer;
	struct prep_vhd_header header;
	uint32_t bitmap_size;
	struct block *block; /* allocated ones, by their place in the file */
	uint32_t blocks, next;
	uint64_t off;        /* read so far */
	uint8_t *bitmap;     /* of the block being read */
	bool partial;        /* it has clear bits */
	uint64_t at;         /* read of the block's data */
};

/* Read on until head holds `want` bytes. 0 when the stream ends before. */
static int fill_head(struct prep_vhd_stream *s, uint8_t **head, size_t *len, size_t want,
		     struct prep_err *err)
{
	uint8_t *more;
	int64_t n;

	if (*len >= want)
		return 1;
	more = realloc(*head, want);
	if (more == NULL)
		return prep_fail_nomem(err);
	*head = more;
	n = prep_file_read(s->fd, more + *len, want - *len, s->name, err);
	if (n < 0)
		return -1;
	*len += (size_t)n;
	return *len == want;
}

static int compare_blocks(const void *a, const void *b)
{
	const struct block *x = a, *y = b;

	return (x->sector > y->sector) - (x->sector < y->sector);
}

static int take_bat(struct prep_vhd_stream *s, const uint8_t *bat, uint64_t front_end,
		    struct prep_err *err)
{
	const uint64_t stride = (uint64_t)s->bitmap_size + s->header.block_size;
	uint64_t end = front_end;

	s->block = malloc(((size_t)s->header.bat_entries + 1) * sizeof *s->block);
	if (s->block == NULL)
		return prep_fail_nomem(err);
	for (uint32_t i = 0; i < s->header.bat_entries; i++) {
		const uint32_t sector = get_be32(bat + (size_t)i * 4);

		if (sector != PREP_VHD_BAT_UNUSED)
			s->block[s->blocks++] = (struct block){ sector, i };
	}
	qsort(s->block, s->blocks, sizeof *s->block, compare_blocks);
	for (uint32_t i = 0; i < s->blocks; i++) {
		const uint64_t off = (uint64_t)s->block[i].sector * PREP_VHD_SECTOR;

		if (off < end)
			return prep_fail(err, PREP_EDAMAGED, "%s: block %u, at offset %llu, overlaps %s", s->name,
					 s->block[i].index, (unsigned long long)off,
					 i > 0 ? "another block" : "the block table");
		end = off + stride;
	}
	return 1;
}

/* 1 when the stream can be read block by block, 0 when not. */
static int read_front(struct prep_vhd_stream *s, uint32_t block_size, uint8_t **head, size_t *len,
		      struct prep_err *err)
{
	uint64_t header_end, bat_end;
	int r = fill_head(s, head, len, PREP_VHD_FOOTER_SIZE, err);

	if (r <= 0 || !prep_vhd_footer_decode(*head, &s->footer) || !s->footer.checksum_ok)
		return r < 0 ? -1 : 0;
	if (prep_vhd_footer_check(&s->footer, s->name, err) < 0)
		return -1;
	/* The front part is small in every file there is; a far header is not worth the memory. */
	if (s->footer.type != PREP_VHD_DYNAMIC || s->footer.data_offset > PREP_MIB)
		return 0;
	header_end = s->footer.data_offset + PREP_VHD_HEADER_SIZE;
	r = fill_head(s, head, len, (size_t)header_end, err);
	if (r <= 0)
		return r;
	if (!prep_vhd_header_decode(*head + s->footer.data_offset, &s->header))
		return prep_fail(err, PREP_EDAMAGED, "%s: no VHD header at offset %llu", s->name,
				 (unsigned long long)s->footer.data_offset);
	if (prep_vhd_header_check(&s->footer, &s->header, s->name, err) < 0)
		return -1;
	if (s->header.block_size < block_size || s->header.bat_offset < header_end || s->header.bat_offset > PREP_MIB)
		return 0;
	bat_end = s->header.bat_offset + (uint64_t)s->header.bat_entries * 4;
	r = fill_head(s, head, len, (size_t)bat_end, err);
	if (r <= 0)
		return r;
	s->off = bat_end;
	s->bitmap_size = prep_vhd_bitmap_size(s->header.block_size);
	s->bitmap = malloc(s->bitmap_size);
	if (s->bitmap == NULL)
		return prep_fail_nomem(err);
	return take_bat(s, *head + s->header.bat_offset, bat_end, err);
}

int prep_vhd_stream_open(int fd, const char *name, uint32_t block_size, struct prep_vhd_stream **ret,
			 uint8_t **head, size_t *head_len, struct prep_err *err)
{
	struct prep_vhd_stream *s = calloc(1, sizeof *s);
	int r;

	*ret = NULL;
	*head = NULL;
	*head_len = 0;
	if (s == NULL || (s->name = strdup(name)) == NULL) {
		free(s);
		return prep_fail_nomem(err);
	}
	s->fd = fd;
	/* Fewer switches between the two ends; a refusal does no harm. */
	fcntl(fd, F_SETPIPE_SZ, (int)PREP_MIB);
	r = read_front(s, block_size, head, head_len, err);
	if (r <= 0) {
		prep_vhd_stream_close(s);
		if (r < 0) {
			free(*head);
			*head = NULL;
		}
		return r;
	}
	free(*head);
	*head = NULL;
	*head_len = 0;
	*ret = s;
	return 1;
}

const struct prep_vhd_footer *prep_vhd_stream_footer(const struct prep_vhd_stream *s)
{
	return &s->footer;
}

const struct prep_vhd_header *prep_vhd_stream_header(const struct prep_vhd_stream *s)
{
	return &s->header;
}

uint32_t prep_vhd_stream_blocks(const struct prep_vhd_stream *s)
{
	return s->blocks;
}

static int read_whole(struct prep_vhd_stream *s, void *buf, size_t len, struct prep_err *err)
{
	const int64_t n = prep_file_read(s->fd, buf, len, s->name, err);

	if (n < 0)
		return -1;
	if ((size_t)n < len)
		return prep_fail(err, PREP_EDAMAGED, "%s: the stream ends at offset %llu, too early", s->name,
				 (unsigned long long)(s->off + (uint64_t)n));
	s->off += len;
	return 0;
}

static int skip(struct prep_vhd_stream *s, uint64_t len, struct prep_err *err)
{
	unsigned char buf[4096];

	while (len > 0) {
		const size_t n = (size_t)prep_min(len, sizeof buf);

		if (read_whole(s, buf, n, err) < 0)
			return -1;
		len -= n;
	}
	return 0;
}

/* Read to the end: the last 512 bytes must be the footer, whole and of the same disk. */
static int read_end(struct prep_vhd_stream *s, struct prep_err *err)
{
	unsigned char buf[64 * 1024], last[2 * PREP_VHD_FOOTER_SIZE] = { 0 };
	struct prep_vhd_footer footer;
	int64_t n;

	while ((n = prep_file_read(s->fd, buf, sizeof buf, s->name, err)) > 0) {
		const size_t keep = (size_t)prep_min((uint64_t)n, PREP_VHD_FOOTER_SIZE);

		/* The end of what was read before, then of this; the last 512 bytes are kept. */
		memcpy(last + PREP_VHD_FOOTER_SIZE, buf + n - keep, keep);
		memmove(last, last + keep, PREP_VHD_FOOTER_SIZE);
		s->off += (uint64_t)n;
	}
	if (n < 0)
		return -1;
	/* Virtual Server wrote footers one byte short. */
	if (s->off % PREP_VHD_SECTOR == PREP_VHD_SECTOR - 1) {
		memmove(last, last + 1, PREP_VHD_FOOTER_SIZE - 1);
		last[PREP_VHD_FOOTER_SIZE - 1] = 0;
	}
	if (!prep_vhd_footer_decode(last, &footer) || !footer.checksum_ok ||
	    footer.current_size != s->footer.current_size || memcmp(footer.id, s->footer.id, 16) != 0)
		return prep_fail(err, PREP_EDAMAGED, "%s: the stream ends at offset %llu without its footer: cut off",
				 s->name, (unsigned long long)s->off);
	return 0;
}

int prep_vhd_stream_next(struct prep_vhd_stream *s, uint32_t *index, struct prep_err *err)
{
	uint64_t off;

	if (s->next > 0 && skip(s, s->header.block_size - s->at, err) < 0)
		return -1;
	if (s->next == s->blocks)
		return read_end(s, err);
	off = (uint64_t)s->block[s->next].sector * PREP_VHD_SECTOR;
	if (skip(s, off - s->off, err) < 0 || read_whole(s, s->bitmap, s->bitmap_size, err) < 0)
		return -1;
	s->partial = false;
	for (uint32_t i = 0; i < s->header.block_size / PREP_VHD_SECTOR / 8 && !s->partial; i++)
		s->partial = s->bitmap[i] != 0xFF;
	s->at = 0;
	*index = s->block[s->next++].index;
	return 1;
}

int prep_vhd_stream_read(struct prep_vhd_stream *s, void *buf, size_t len, struct prep_err *err)
{
	unsigned char *p = buf;

	if (read_whole(s, buf, len, err) < 0)
		return -1;
	if (s->partial) {
		/* A clear bit: a sector of zeros. Bit 0 is the most significant. */
		for (uint64_t at = s->at, end = s->at + len; at < end;) {
			const uint32_t sector = (uint32_t)(at / PREP_VHD_SECTOR);
			const uint64_t next = prep_min(end, ((uint64_t)sector + 1) * PREP_VHD_SECTOR);

			if (!(s->bitmap[sector / 8] & 0x80 >> sector % 8))
				memset(p + (at - s->at), 0, (size_t)(next - at));
			at = next;
		}
	}
	s->at += len;
	return 0;
}

void prep_vhd_stream_close(struct prep_vhd_stream *s)
{
	if (s == NULL)
		return;
	free(s->name);
	free(s->block);
	free(s->bitmap);
	free(s);
}
