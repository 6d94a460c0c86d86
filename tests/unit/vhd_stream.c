/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reading a VHD from a pipe: the blocks as they come, and an error for
 * everything that a broken pipe or a hostile file may send.
 */
#include "libprep/disk/vhd_stream.h"

#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/image.h"

#define BLOCK (512u * 1024)

static struct prep_err err;
static struct image im;
static const uint32_t mixed[] = { 6, 0, 3, 1 };

/* A process that writes the first len bytes of the image to a pipe, in pieces. Returns the end to read. */
static int feed(size_t len, pid_t *pid)
{
	int ends[2];

	if (pipe(ends) != 0) {
		perror("pipe");
		exit(1);
	}
	*pid = fork();
	if (*pid == 0) {
		close(ends[0]);
		signal(SIGPIPE, SIG_IGN);
		for (size_t at = 0; at < len;) {
			const size_t n = (size_t)prep_min(len - at, 1 + check_random(100000));
			const ssize_t w = write(ends[1], im.file + at, n);

			if (w < 0)
				break;
			at += (size_t)w;
		}
		_exit(0);
	}
	close(ends[1]);
	return ends[0];
}

/* Read all of the stream, in pieces, into guest: 0, or -1 with err. *first: the order of the blocks. */
static int read_stream(size_t len, unsigned char *guest, uint32_t *order, unsigned *n)
{
	struct prep_vhd_stream *s = NULL;
	uint8_t *head = NULL;
	size_t head_len;
	uint32_t index;
	pid_t pid;
	const int fd = feed(len, &pid);
	int r;

	err = (struct prep_err)PREP_ERR_INIT;
	*n = 0;
	r = prep_vhd_stream_open(fd, "pipe", BLOCK, &s, &head, &head_len, &err);
	if (r == 0)
		r = prep_fail(&err, PREP_EUSAGE, "no stream: %zu bytes of head", head_len);
	while (r > 0 && (r = prep_vhd_stream_next(s, &index, &err)) > 0) {
		const uint64_t off = (uint64_t)index * BLOCK, end = prep_min(off + BLOCK, im.size);

		if (*n < 4)
			order[*n] = index;
		++*n;
		for (uint64_t at = off; r > 0 && at < end;) {
			const size_t step = (size_t)prep_min(end - at, 1 + check_random(BLOCK));

			if (prep_vhd_stream_read(s, guest + at, step, &err) < 0)
				r = -1;
			at += step;
		}
	}
	prep_vhd_stream_close(s);
	free(head);
	close(fd);
	waitpid(pid, NULL, 0);
	return r;
}

static void fresh(uint64_t size, uint32_t align)
{
	image_free(&im);
	check_seed = 40;
	image_dynamic(&im, size, BLOCK, mixed, 4, align);
}

static void blocks_as_they_come(void)
{
	static const struct { uint64_t size; uint32_t align; } layout[] = {
		{ 7 * BLOCK, 512 }, { 7 * BLOCK, 4096 }, { 6 * BLOCK + 512, 4096 },
	};

	for (size_t i = 0; i < sizeof layout / sizeof layout[0]; i++) {
		unsigned char *guest;
		uint32_t order[4];
		unsigned n;

		fresh(layout[i].size, layout[i].align);
		guest = calloc(1, (size_t)im.size);
		CHECK_DONE(read_stream(im.len, guest, order, &n));
		CHECK_EQ(n, 4);
		CHECK(memcmp(order, mixed, sizeof mixed) == 0);
		CHECK(memcmp(guest, im.guest, (size_t)im.size) == 0);
		free(guest);
	}
}

static void clear_bits_are_zeros(void)
{
	static const uint32_t cleared[] = { 0, 7, 8, 500, 1023 };
	unsigned char *guest;
	uint32_t order[4];
	unsigned n;

	fresh(7 * BLOCK, 512);
	for (size_t i = 0; i < sizeof cleared / sizeof cleared[0]; i++) {
		im.file[image_data(&im, 3) - im.bitmap_size + cleared[i] / 8] &=
			(unsigned char)~(0x80 >> cleared[i] % 8);
		memset(im.guest + 3 * BLOCK + (size_t)cleared[i] * 512, 0, 512);
	}
	guest = calloc(1, (size_t)im.size);
	CHECK_DONE(read_stream(im.len, guest, order, &n));
	CHECK(memcmp(guest, im.guest, (size_t)im.size) == 0);
	free(guest);
}

/* Whatever is missing at the end, it is not taken for the whole disk. */
static void cut_off(void)
{
	unsigned char *guest;
	uint32_t order[4];
	unsigned n;

	fresh(7 * BLOCK, 512);
	guest = calloc(1, (size_t)im.size);
	for (size_t len = 4096; len < im.len; len += len < im.len - 1024 ? 99991 : 50)
		CHECK_FAILS(read_stream(len, guest, order, &n), PREP_EDAMAGED, "pipe: the stream ends");
	CHECK_FAILS(read_stream(im.len - 512, guest, order, &n), PREP_EDAMAGED, "without its footer");
	CHECK_FAILS(read_stream(im.len - 2, guest, order, &n), PREP_EDAMAGED, "without its footer");
	/* Virtual Server's footers have 511 bytes. */
	CHECK_DONE(read_stream(im.len - 1, guest, order, &n));
	CHECK(memcmp(guest, im.guest, (size_t)im.size) == 0);
	/* the footer of another disk is not the end of this one */
	im.file[im.len - 512 + 70] ^= 1;
	image_checksum(im.file + im.len - 512, 512, 64);
	CHECK_FAILS(read_stream(im.len, guest, order, &n), PREP_EDAMAGED, "without its footer");
	free(guest);
}

static void damage(void)
{
	unsigned char *guest = calloc(1, 7 * BLOCK);
	uint32_t order[4], first;
	unsigned n;

	fresh(7 * BLOCK, 512);
	first = get_be32(image_bat(&im, 6));
	put_be32(image_bat(&im, 3), first);
	CHECK_FAILS(read_stream(im.len, guest, order, &n), PREP_EDAMAGED, "overlap");
	put_be32(image_bat(&im, 3), first + 10);
	CHECK_FAILS(read_stream(im.len, guest, order, &n), PREP_EDAMAGED, "overlap");
	put_be32(image_bat(&im, 3), 1);
	CHECK_FAILS(read_stream(im.len, guest, order, &n), PREP_EDAMAGED, "block 3");
	put_be32(image_bat(&im, 3), UINT32_MAX - 1);
	CHECK_FAILS(read_stream(im.len, guest, order, &n), PREP_EDAMAGED, "too early");
	fresh(7 * BLOCK, 512);
	im.file[512 + 300] ^= 1;
	CHECK_FAILS(read_stream(im.len, guest, order, &n), PREP_EDAMAGED, "wrong checksum");
	fresh(7 * BLOCK, 512);
	put_be32(im.file + 512 + 28, 6);
	image_seal(&im);
	CHECK_FAILS(read_stream(im.len, guest, order, &n), PREP_EDAMAGED, "holds 6 blocks");
	fresh(7 * BLOCK, 512);
	put_be32(im.file + 60, 4);
	image_seal(&im);
	/* a differencing disk: to be spooled, and read with its parent */
	CHECK_FAILS(read_stream(im.len, guest, order, &n), PREP_EUSAGE, "no stream: 512 bytes of head");
	free(guest);
}

/* What is no VHD for streaming comes back as it was read, to be spooled. */
static void others_come_back(void)
{
	static const size_t lens[] = { 0, 1, 511, 512, 100000 };

	for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
		struct prep_vhd_stream *s;
		unsigned char rest[200000];
		uint8_t *head;
		size_t head_len;
		ssize_t n, more = 0;
		pid_t pid;
		int fd;

		image_free(&im);
		im.file = malloc(100000);
		im.len = lens[i];
		check_seed = i;
		check_noise(im.file, 100000);
		fd = feed(im.len, &pid);
		err = (struct prep_err)PREP_ERR_INIT;
		CHECK_EQ(prep_vhd_stream_open(fd, "pipe", BLOCK, &s, &head, &head_len, &err), 0);
		CHECK(head_len <= lens[i] && (head_len == 0 || memcmp(head, im.file, head_len) == 0));
		while ((n = read(fd, rest + more, sizeof rest - (size_t)more)) > 0)
			more += n;
		CHECK_EQ(head_len + (size_t)more, lens[i]);
		CHECK(memcmp(rest, im.file + head_len, (size_t)more) == 0);
		free(head);
		close(fd);
		waitpid(pid, NULL, 0);
	}
	/* a header or a table that does not follow: the file is a VHD, but not in the order of a stream */
	for (int i = 0; i < 2; i++) {
		struct prep_vhd_stream *s;
		uint8_t *head;
		size_t head_len;
		pid_t pid;
		int fd;

		fresh(7 * BLOCK, 512);
		if (i == 0)
			put_be64(im.file + 16, 2 * PREP_MIB);
		else
			put_be64(im.file + 512 + 16, 2 * PREP_MIB);
		image_seal(&im);
		fd = feed(im.len, &pid);
		err = (struct prep_err)PREP_ERR_INIT;
		CHECK_EQ(prep_vhd_stream_open(fd, "pipe", BLOCK, &s, &head, &head_len, &err), 0);
		CHECK(head_len >= 512 && memcmp(head, im.file, head_len) == 0);
		free(head);
		close(fd);
		waitpid(pid, NULL, 0);
	}
	/* nor are blocks that are smaller than those wanted */
	{
		struct prep_vhd_stream *s;
		uint8_t *head;
		size_t head_len;
		pid_t pid;
		int fd;

		fresh(7 * BLOCK, 512);
		fd = feed(im.len, &pid);
		err = (struct prep_err)PREP_ERR_INIT;
		CHECK_EQ(prep_vhd_stream_open(fd, "pipe", 2 * BLOCK, &s, &head, &head_len, &err), 0);
		CHECK(head_len >= 1536 && memcmp(head, im.file, head_len) == 0);
		free(head);
		close(fd);
		waitpid(pid, NULL, 0);
	}
}

int main(void)
{
	RUN(blocks_as_they_come);
	RUN(clear_bits_are_zeros);
	RUN(cut_off);
	RUN(damage);
	RUN(others_come_back);
	image_free(&im);
	return check_result();
}
