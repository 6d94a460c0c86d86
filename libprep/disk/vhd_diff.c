/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/disk/vhd_diff.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/base/utf16.h"
#include "libprep/disk/vhd_write.h"

/* As long as Windows lets a path be, in UTF-16. */
#define LOCATOR_MAX (64u * 1024)
#define LOCATOR_ALIGN 4096u

uint64_t prep_vhd_diff_locator_space(const struct prep_vhd_locator *l, uint64_t *used)
{
	static const char none[4];

	*used = memcmp(l->code, none, sizeof none) != 0 ? l->length : 0;
	if (*used == 0)
		return 0;
	/* What is too small to be bytes is sectors. */
	return l->space >= l->length ? l->space : (uint64_t)l->space * PREP_VHD_SECTOR;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
	     : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "file://HOST/PATH", with escapes, becomes "/PATH", in place. */
static const char *url_path(char *text)
{
	char *from = text, *to = text;

	if (strncmp(text, "file://", 7) != 0)
		return text;
	from = strchr(text + 7, '/');
	if (from == NULL)
		return "";
	while (*from != '\0') {
		const int high = *from == '%' ? hex_digit(from[1]) : -1;
		const int low = high >= 0 ? hex_digit(from[2]) : -1;

		if (high * 16 + low > 0 && low >= 0) {
			*to++ = (char)(high * 16 + low);
			from += 3;
		} else {
			*to++ = *from++;
		}
	}
	*to = '\0';
	return text;
}

/* Add the name that a locator holds. */
static void add_locator(int fd, const char *name, const struct prep_vhd_locator *l, uint64_t file_size,
			struct prep_parent_ref *ret, struct prep_notes *notes)
{
	struct prep_err err = PREP_ERR_INIT;
	char *text;

	if (l->length > LOCATOR_MAX || l->off > file_size || l->length > file_size - l->off) {
		prep_note(notes, "%s: a parent locator of %u bytes at offset %llu is outside the file: ignored", name,
			  l->length, (unsigned long long)l->off);
		return;
	}
	text = calloc(1, (size_t)l->length + 1);
	if (text == NULL || prep_file_pread(fd, text, l->length, l->off, name, &err) < 0)
		prep_note(notes, "%s: a parent locator at offset %llu cannot be read: ignored", name,
			  (unsigned long long)l->off);
	else if (l->code[0] == 'W' && l->code[1] == '2')
		prep_parent_add_utf16(ret, (const uint8_t *)text, l->length / 2, true);
	else
		prep_parent_add(ret, url_path(text));
	free(text);
}

void prep_vhd_diff_names(int fd, const char *name, const struct prep_vhd_header *h, uint64_t file_size,
			 struct prep_parent_ref *ret, struct prep_notes *notes)
{
	/* Relative before absolute, Unicode before the older kinds. "Mac " is an alias that only a Mac can read. */
	static const char *const order[] = { "W2ru", "W2ku", "Wi2r", "Wi2k", "MacX" };
	const uint8_t *p = h->parent_name;

	memcpy(ret->id, h->parent_id, sizeof ret->id);
	for (size_t o = 0; o < sizeof order / sizeof order[0]; o++)
		for (unsigned i = 0; i < PREP_VHD_LOCATORS; i++)
			if (memcmp(h->locator[i].code, order[o], 4) == 0 && h->locator[i].length > 0)
				add_locator(fd, name, &h->locator[i], file_size, ret, notes);
	/* Big-endian by the specification; both are met. No path begins with U+3A00 or its like. */
	prep_parent_add_utf16(ret, p, sizeof h->parent_name / 2, p[0] != 0 && p[1] == 0);
}

/* A path as UTF-16 for a locator, with the drive that Windows wants of an absolute one. */
struct wide {
	uint16_t unit[LOCATOR_MAX / 2];
	size_t n;
};

static int widen(const char *prefix, const char *path, struct wide *ret, struct prep_err *err)
{
	char *text;
	int64_t n;

	if (asprintf(&text, "%s%s", prefix, path) < 0)
		return prep_fail_nomem(err);
	for (char *c = text; *c != '\0'; c++)
		if (*c == '/')
			*c = '\\';
	n = prep_utf8_to_utf16(text, strlen(text), ret->unit, sizeof ret->unit / sizeof ret->unit[0]);
	free(text);
	if (n < 0)
		return prep_fail(err, PREP_EREFUSED, "%s: a path that is not UTF-8, or too long, cannot be kept in a VHD",
				 path);
	ret->n = (size_t)n;
	return 0;
}

/* The header's own name: the whole path where it has room, else the file's name. */
static void put_header_name(struct prep_vhd_header *h, const struct wide *w)
{
	const size_t room = sizeof h->parent_name / 2 - 1;
	size_t from = 0;

	for (size_t i = 0; w->n > room && i < w->n; i++)
		if (w->unit[i] == '\\')
			from = i + 1;
	for (size_t i = from; i < w->n && i - from < room; i++)
		put_be16(h->parent_name + 2 * (i - from), w->unit[i]);
}

static struct prep_vhd_locator locator(const char *code, const struct wide *w, uint64_t *off)
{
	const uint32_t length = (uint32_t)(2 * w->n);
	struct prep_vhd_locator l = {
		.space = (uint32_t)prep_round_up(length, LOCATOR_ALIGN), .length = length, .off = *off,
	};

	memcpy(l.code, code, 4);
	*off += l.space;
	return l;
}

static int write_locator(struct prep_output *out, const struct prep_vhd_locator *l, struct wide *w,
			 struct prep_err *err)
{
	for (size_t i = 0; i < w->n; i++)
		put_le16(&w->unit[i], w->unit[i]);
	if (prep_output_zeros(out, l->off - prep_output_size(out), err) < 0)
		return -1;
	return prep_output_write(out, w->unit, l->length, err);
}

static int write_bat(struct prep_output *out, uint32_t entries, struct prep_err *err)
{
	uint64_t left = prep_round_up((uint64_t)entries * 4, PREP_VHD_SECTOR);
	uint8_t unused[PREP_VHD_SECTOR];

	memset(unused, 0xFF, sizeof unused);
	for (; left > 0; left -= sizeof unused)
		if (prep_output_write(out, unused, sizeof unused, err) < 0)
			return -1;
	return 0;
}

int prep_vhd_diff_create(struct prep_output *out, const struct prep_vhd_footer *parent,
			 const char *parent_path, const char *path, uint32_t time_stamp, uint8_t id[16],
			 struct prep_err *err)
{
	const uint64_t size = parent->current_size, block_size = PREP_VHD_BLOCK_SIZE_DEFAULT;
	struct prep_vhd_footer f = {
		.features = 2, .data_offset = PREP_VHD_HEADER_OFFSET, .creator = { 'w', 'i', 'n', ' ' },
		.creator_version = 0x000A0000, .host_os = { 'W', 'i', '2', 'k' }, .original_size = size,
		.current_size = size, .cylinders = parent->cylinders, .heads = parent->heads,
		.sectors = parent->sectors, .type = PREP_VHD_DIFFERENCING,
	};
	struct prep_vhd_header h = {
		.version = 0x00010000,
		.bat_entries = (uint32_t)((size + block_size - 1) / block_size), .block_size = (uint32_t)block_size,
	};
	/* The names come before the table: QEMU puts new blocks right behind that, whatever stands there. */
	uint64_t off = LOCATOR_ALIGN;
	struct wide *absolute = malloc(sizeof *absolute), *relative = malloc(sizeof *relative);
	char *rel = prep_parent_relative(path, parent_path);
	uint8_t front[PREP_VHD_HEADER_OFFSET + PREP_VHD_HEADER_SIZE];
	int r = -1;

	if (absolute == NULL || relative == NULL || rel == NULL) {
		prep_fail_nomem(err);
		goto out;
	}
	if (prep_vhd_size_check(size, parent_path, err) < 0 || prep_vhd_identity_renew(&f, time_stamp, err) < 0 ||
	    widen("C:", parent_path, absolute, err) < 0 || widen("", rel, relative, err) < 0)
		goto out;
	memcpy(id, f.id, sizeof f.id);
	memcpy(h.parent_id, parent->id, sizeof h.parent_id);
	put_header_name(&h, absolute);
	h.locator[0] = locator("W2ku", absolute, &off);
	h.locator[1] = locator("W2ru", relative, &off);
	h.bat_offset = off;
	prep_vhd_footer_encode(&f, front);
	prep_vhd_header_encode(&h, front + PREP_VHD_HEADER_OFFSET);
	if (prep_output_write(out, front, sizeof front, err) < 0 ||
	    write_locator(out, &h.locator[0], absolute, err) < 0 ||
	    write_locator(out, &h.locator[1], relative, err) < 0 ||
	    prep_output_zeros(out, h.bat_offset - prep_output_size(out), err) < 0 ||
	    write_bat(out, h.bat_entries, err) < 0)
		goto out;
	/* As in every file: the footer is the last sector of a page. */
	off = prep_round_up(prep_output_size(out) + PREP_VHD_FOOTER_SIZE, LOCATOR_ALIGN) - PREP_VHD_FOOTER_SIZE;
	r = prep_output_zeros(out, off - prep_output_size(out), err);
	if (r == 0)
		r = prep_output_write(out, front, PREP_VHD_FOOTER_SIZE, err);
out:
	free(absolute);
	free(relative);
	free(rel);
	return r;
}
