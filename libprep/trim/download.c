/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/trim/download_internal.h"

#define WAIT_MS 200

void prep_download_ready(struct prep_download *d, uint32_t k)
{
	pthread_mutex_lock(&d->lock);
	d->slot[k].state = READY;
	d->ready[(d->ready_first + d->readies++) % d->slots] = k;
	d->ahead += prep_slot_frame(d, k)->stored;
	pthread_cond_signal(&d->news);
	pthread_mutex_unlock(&d->lock);
}

uint64_t prep_download_range_max(const struct prep_supply *supply)
{
	return prep_max(8 * PREP_MIB, supply->frame_bytes / 16);
}

/* How far the bytes at off, at most len, were written: up to the last that is not zero before a hole. */
static int find_have(int fd, uint64_t off, uint32_t len, uint64_t file_size, uint32_t *ret, struct prep_err *err)
{
	uint64_t end = prep_min(off + len, file_size);
	uint8_t buf[4096];
	bool hole;

	*ret = 0;
	if (off >= end)
		return 0;
	end = prep_file_extent(fd, NULL, off, end, &hole);
	if (hole)
		return 0;
	while (end > off) {
		const size_t n = (size_t)prep_min(sizeof buf, end - off);

		if (prep_file_pread(fd, buf, n, end - n, "the frames that have come", err) < 0)
			return -1;
		for (size_t i = n; i > 0; i--) {
			if (buf[i - 1] != 0) {
				*ret = (uint32_t)(end - n + i - off);
				return 0;
			}
		}
		end -= n;
	}
	return 0;
}

int prep_download_have(int fd, const struct prep_supply *supply, uint32_t **ret, struct prep_err *err)
{
	uint32_t *have = calloc((size_t)supply->frames + 1, sizeof *have);
	struct stat st;

	*ret = have;
	if (have == NULL)
		return prep_fail_nomem(err);
	if (fstat(fd, &st) != 0)
		return prep_fail_errno(err, "the frames that have come");
	for (uint32_t i = 0; i < supply->frames; i++) {
		const struct prep_frame *f = &supply->index->frame[supply->frame[i]];

		if (find_have(fd, f->off, f->stored, (uint64_t)st.st_size, &have[i], err) < 0)
			return -1;
	}
	return 0;
}

static void add_piece(struct prep_download *d, uint32_t first, uint32_t end)
{
	d->piece[d->pieces++] = (struct piece){ .first = first, .end = end };
}

/* What of the frames is there already, and the rest in pieces. */
static int make_pieces(struct prep_download *d, struct prep_err *err)
{
	struct prep_supply_range *range = NULL;
	uint32_t *have = NULL, n = 0;
	int r = prep_download_have(d->fd, d->supply, &have, err);

	if (r == 0)
		r = prep_supply_ranges(d->supply, have, PREP_RANGE_GAP, prep_download_range_max(d->supply), &range, &n,
				       err);
	for (uint32_t k = 0; k < d->slots && r == 0; k++) {
		d->slot_of[d->supply->frame[k]] = k;
		d->slot[k].have = have[k];
		if (have[k] == prep_slot_frame(d, k)->stored)
			prep_download_ready(d, k);
	}
	if (r == 0) {
		d->piece = calloc((size_t)n + d->slots, sizeof *d->piece);
		if (d->piece == NULL)
			r = prep_fail_nomem(err);
	}
	for (uint32_t i = 0; i < n && r == 0; i++)
		add_piece(d, range[i].first, range[i].first + range[i].frames);
	free(range);
	free(have);
	return r;
}

/* The thread has left, or does now. */
static void end_net(struct prep_download *d)
{
	if (d->started)
		pthread_join(d->net, NULL);
	d->started = false;
	for (unsigned i = 0; d->lane != NULL && i < d->lanes; i++) {
		if (d->lane[i].busy)
			curl_multi_remove_handle(d->multi, d->lane[i].easy);
		d->lane[i].busy = false;
	}
	d->whole = NULL;
	free(d->slot);
	free(d->slot_of);
	free(d->ready);
	free(d->piece);
	d->slot = NULL;
	d->slot_of = d->ready = NULL;
	d->piece = NULL;
	d->slots = d->pieces = d->ready_first = d->readies = d->done = 0;
	d->ahead = 0;
}

static int start(void *arg, const struct prep_supply *supply, struct prep_err *err)
{
	struct prep_download *d = arg;
	sigset_t all, before;
	int e;

	end_net(d);
	d->supply = supply;
	d->slots = supply->frames;
	d->slot = calloc(d->slots, sizeof *d->slot);
	d->slot_of = calloc(d->index->frames, sizeof *d->slot_of);
	d->ready = calloc(d->slots, sizeof *d->ready);
	if (d->slot == NULL || d->slot_of == NULL || d->ready == NULL)
		return prep_fail_nomem(err);
	if (make_pieces(d, err) < 0)
		return -1;
	/* Signals are for the thread that started the work. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	e = pthread_create(&d->net, NULL, prep_download_net, d);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (e != 0)
		return prep_fail(err, PREP_EFAIL, "cannot start a thread: %s", strerror(e));
	d->started = true;
	return 0;
}

static void wait_for_news(struct prep_download *d)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += WAIT_MS * 1000000L;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&d->news, &d->lock, &until);
}

static int next(void *arg, struct prep_crew *crew, bool wait, uint8_t *buf, uint32_t *frame, struct prep_err *err)
{
	struct prep_download *d = arg;
	const struct prep_frame *f;
	uint32_t k;

	pthread_mutex_lock(&d->lock);
	/* What another thread has taken may prove damaged, and come again. */
	while (wait && d->readies == 0 && !d->failed && d->done < d->slots && !atomic_load(&crew->stop))
		wait_for_news(d);
	if (d->readies == 0 || d->failed || atomic_load(&crew->stop)) {
		const int r = d->failed ? prep_fail(err, d->err.code, "%s", d->err.msg) : 0;

		pthread_mutex_unlock(&d->lock);
		return r;
	}
	k = d->ready[d->ready_first];
	d->ready_first = (d->ready_first + 1) % d->slots;
	d->readies--;
	d->slot[k].state = TAKEN;
	pthread_mutex_unlock(&d->lock);
	f = prep_slot_frame(d, k);
	*frame = d->supply->frame[k];
	return prep_file_pread(d->fd, buf, f->stored, f->off, d->frames_path, err) < 0 ? -1 : 1;
}

static int done(void *arg, uint32_t frame, struct prep_err *err)
{
	struct prep_download *d = arg;
	const uint32_t k = d->slot_of[frame];
	const struct prep_frame *f = prep_slot_frame(d, k);
	bool wake;

	(void)err;
	/* Where the host has no holes the sparse copy only grows. */
	if (fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)f->off, (off_t)f->stored) != 0)
		errno = 0;
	pthread_mutex_lock(&d->lock);
	d->slot[k].state = DONE;
	d->ahead -= f->stored;
	d->done++;
	if (d->done == d->slots)
		pthread_cond_broadcast(&d->news);
	wake = d->done == d->slots || d->ahead < PREP_DOWNLOAD_AHEAD / 2;
	pthread_mutex_unlock(&d->lock);
	if (wake)
		curl_multi_wakeup(d->multi);
	return 0;
}

static int bad(void *arg, uint32_t frame, const struct prep_err *why, struct prep_err *err)
{
	struct prep_download *d = arg;
	const uint32_t k = d->slot_of[frame];
	const struct prep_frame *f = prep_slot_frame(d, k);

	/* Not to be taken for the beginning of a good one. */
	if (prep_file_zero(d->fd, f->off, f->stored, d->frames_path, err) < 0)
		return -1;
	if (d->slot[k].was_bad) {
		d->changed = true;
		return prep_fail(err, why->code, "%s; and again when it was fetched once more", why->msg);
	}
	pthread_mutex_lock(&d->lock);
	d->slot[k].was_bad = true;
	d->slot[k].have = 0;
	d->slot[k].state = COMING;
	d->ahead -= f->stored;
	add_piece(d, k, k + 1);
	pthread_mutex_unlock(&d->lock);
	curl_multi_wakeup(d->multi);
	return 0;
}

void prep_download_source(struct prep_download *d, struct prep_frame_source *ret)
{
	*ret = (struct prep_frame_source){ "fetching", start, next, done, bad, d };
}

int prep_download_open(const char *url, const struct prep_http_how *how, const struct prep_ckm_index *index,
		       uint64_t package_size, const char *frames, struct prep_download **ret,
		       struct prep_err *err)
{
	struct prep_download *d = calloc(1, sizeof *d);

	*ret = NULL;
	if (d == NULL)
		return prep_fail_nomem(err);
	d->fd = -1;
	d->url = url;
	d->local = strncasecmp(url, "file:", 5) == 0;
	d->how = how;
	d->index = index;
	d->package_size = package_size;
	d->limit = prep_min(how->limit_rate, UINT32_MAX * (uint64_t)1024); /* times seconds it stays in 64 bits */
	d->budget_at = prep_now_ms();
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->news, NULL);
	/* Several connections take a larger share of a busy link than one. */
	d->lanes = how->background ? 1 : how->connections != 0 ? how->connections : PREP_HTTP_CONNECTIONS;
	d->frames_path = strdup(frames);
	d->lane = calloc(d->lanes, sizeof *d->lane);
	d->multi = curl_multi_init();
	if (d->frames_path == NULL || d->lane == NULL || d->multi == NULL) {
		prep_fail_nomem(err);
		goto fail;
	}
	for (unsigned i = 0; i < d->lanes; i++)
		if (prep_download_lane(d, &d->lane[i], err) < 0)
			goto fail;
	d->fd = open(frames, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (d->fd < 0) {
		prep_fail_errno(err, "%s: cannot create", frames);
		goto fail;
	}
	*ret = d;
	return 0;
fail:
	prep_download_close(d);
	return -1;
}

void prep_download_close(struct prep_download *d)
{
	if (d == NULL)
		return;
	if (d->started) {
		pthread_mutex_lock(&d->lock);
		d->quit = true;
		pthread_mutex_unlock(&d->lock);
		curl_multi_wakeup(d->multi);
	}
	end_net(d);
	for (unsigned i = 0; d->lane != NULL && i < d->lanes; i++) {
		curl_easy_cleanup(d->lane[i].easy);
		curl_easy_cleanup(d->lane[i].prepared);
	}
	curl_multi_cleanup(d->multi);
	if (d->fd >= 0)
		close(d->fd);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->news);
	free(d->lane);
	free(d->frames_path);
	free(d);
}

struct prep_http_count prep_download_count(const struct prep_download *d)
{
	return (struct prep_http_count){ .requests = d->requests, .bytes = d->bytes, .retries = d->retries };
}

bool prep_download_changed(const struct prep_download *d)
{
	return d->changed;
}
