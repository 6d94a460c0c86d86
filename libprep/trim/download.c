/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/download.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/trim/yield.h"

#define AHEAD_MAX (128 * PREP_MIB) /* bytes that have come and are not unpacked */
#define WAIT_MS 200

/* A needed frame. */
enum frame_state {
	COMING,   /* not complete in the sparse copy */
	READY,    /* complete, to be unpacked */
	TAKEN,    /* handed out */
	DONE,
};

struct slot {
	_Atomic uint32_t have; /* bytes of it in the sparse copy; the net thread's while it is COMING */
	uint8_t state;      /* enum frame_state; under the lock */
	bool was_bad;       /* has come once before, damaged */
};

/* Neighbouring frames that are asked for together. */
struct piece {
	uint32_t first, end;  /* in supply->frame; the net thread moves first on */
	bool running;
};

/* A connection, or a stream of one. */
struct lane {
	struct prep_download *d;
	CURL *easy;
	uint32_t piece;       /* number */
	bool busy, begun, wanted, paused;
	uint64_t asked, at;   /* first byte asked for; offset in the package of the next byte */
	uint32_t k, end;      /* the frame that is coming, and where the piece ends */
	uint64_t stored;      /* bytes kept, of this request */
};

struct prep_download {
	const char *url;
	const struct prep_http_how *how;
	const struct prep_ckm_index *index;
	const struct prep_supply *supply;
	uint64_t package_size;
	char *frames_path;
	int fd;                   /* of the sparse copy */

	struct slot *slot;        /* of each of supply->frame[] */
	uint32_t *slot_of;        /* of each frame of the index, its slot */
	uint32_t slots;

	/* The net thread's. */
	pthread_t net;
	bool started;
	CURLM *multi;
	struct lane *lane;
	unsigned lanes;
	bool no_ranges;           /* the server gives nothing but the whole: */
	struct lane *whole;       /* which is coming by this one */
	struct prep_http_version version;
	unsigned failures;        /* in a row, without a byte from anywhere */
	uint64_t not_before;      /* milliseconds: when the next request may be made */
	struct prep_yield yield;
	uint64_t yield_at;
	uint64_t limit;           /* bytes a second of all lanes together, 0: none */
	int64_t budget;           /* bytes that may come now, for the limit */
	uint64_t budget_at;       /* milliseconds: up to when it has been filled */

	pthread_mutex_t lock;
	pthread_cond_t news;      /* a frame is ready, all are done, or it failed */
	struct piece *piece;      /* room for one more for every slot: they do not move */
	uint32_t pieces;
	uint32_t *ready;          /* a ring of slot numbers, room for all */
	uint32_t ready_first, readies;
	uint32_t done;
	uint64_t ahead;           /* bytes of READY and TAKEN frames */
	bool quit;
	struct prep_err err;

	_Atomic bool failed, changed;
	_Atomic uint64_t requests, bytes, retries;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static const struct prep_frame *frame_of(const struct prep_download *d, uint32_t k)
{
	return &d->index->frame[d->supply->frame[k]];
}

/* The first failure is the one that is told. */
static void fail(struct prep_download *d, enum prep_code code, const char *msg, bool changed)
{
	pthread_mutex_lock(&d->lock);
	prep_fail(&d->err, code, "%s", msg);
	if (changed)
		d->changed = true;
	d->failed = true;
	pthread_cond_broadcast(&d->news);
	pthread_mutex_unlock(&d->lock);
}

/* ---- What comes in ---- */

static void frame_complete(struct prep_download *d, uint32_t k)
{
	pthread_mutex_lock(&d->lock);
	d->slot[k].state = READY;
	d->ready[(d->ready_first + d->readies++) % d->slots] = k;
	d->ahead += frame_of(d, k)->stored;
	pthread_cond_signal(&d->news);
	pthread_mutex_unlock(&d->lock);
}

static bool too_far_ahead(struct prep_download *d, uint64_t most)
{
	bool ret;

	pthread_mutex_lock(&d->lock);
	ret = d->ahead > most;
	pthread_mutex_unlock(&d->lock);
	return ret;
}

/* Keep what is wanted of the bytes at l->at. -1 when they cannot be written. */
static int keep(struct lane *l, const char *p, size_t n)
{
	struct prep_download *d = l->d;
	struct prep_err err = PREP_ERR_INIT;

	while (n > 0 && l->k < l->end) {
		const struct prep_frame *f = frame_of(d, l->k);
		struct slot *s = &d->slot[l->k];
		const uint64_t next = f->off + s->have;
		size_t len;

		/* Once it is complete it is no longer this thread's. */
		if (s->have == f->stored || next < l->at) {
			l->k++;
			continue;
		}
		len = (size_t)prep_min(n, next > l->at ? next - l->at : f->stored - s->have);
		if (next == l->at) {
			if (prep_file_pwrite(d->fd, p, len, l->at, d->frames_path, &err) < 0) {
				fail(d, err.code, err.msg, false);
				return -1;
			}
			l->stored += len;
			d->failures = 0;
			s->have += (uint32_t)len;
			if (s->have == f->stored) {
				frame_complete(d, l->k);
				l->k++;
			}
		}
		l->at += len;
		p += len;
		n -= len;
	}
	return 0;
}

/*
 * How many milliseconds the limit asks to wait before more is taken. (libcurl's
 * own limit is each handle's, and lets seconds' worth through at first.)
 */
static uint64_t must_wait(struct prep_download *d)
{
	const uint64_t now = now_ms();
	const int64_t most = (int64_t)prep_max(d->limit / 8, 16 * PREP_KIB);

	if (d->limit == 0)
		return 0;
	d->budget += (int64_t)(d->limit * prep_min(now - d->budget_at, 10000) / 1000);
	d->budget = d->budget < most ? d->budget : most;
	d->budget_at = now;
	return d->budget > 0 ? 0 : (uint64_t)-d->budget * 1000 / d->limit + 1;
}

static void package_differs(struct prep_download *d, const char *what)
{
	char msg[600];

	snprintf(msg, sizeof msg, "%s: not the package that its index describes: %s", d->url, what);
	fail(d, PREP_EDAMAGED, msg, true);
}

/* The headers of an answer are here: what will its body be? */
static void begin(struct lane *l)
{
	struct prep_download *d = l->d;
	struct prep_http_version version;
	uint64_t from, total;
	curl_off_t len = -1;
	char *local;
	long status = 0;

	l->begun = true;
	curl_easy_getinfo(l->easy, CURLINFO_RESPONSE_CODE, &status);
	l->wanted = status == 0 || status == 200 || status == 206;
	if (!l->wanted)
		return;
	if (d->how->background && d->yield.counter[0] == '\0' &&
	    curl_easy_getinfo(l->easy, CURLINFO_LOCAL_IP, &local) == CURLE_OK && local != NULL)
		prep_yield_watch(&d->yield, local);
	prep_http_version_of(l->easy, &version);
	/* Servers that share the work may name one file differently: the digests decide, but a doubt remains. */
	if (prep_http_version_differs(&version, &d->version))
		d->changed = true;
	d->version = version;
	if (status == 206) {
		if (!prep_http_range_of(l->easy, &from, &total) || from != l->asked)
			package_differs(d, "the server's answer is another range than was asked for");
		else if (total != UINT64_MAX && total != d->package_size)
			package_differs(d, "it has another size");
	} else if (status == 200) {
		curl_easy_getinfo(l->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &len);
		if (len >= 0 && (uint64_t)len != d->package_size) {
			package_differs(d, "it has another size");
		} else if (d->whole == NULL) {
			/* All of it, although a part was asked for: then this answer will serve for all. */
			d->no_ranges = true;
			d->whole = l;
			l->at = 0;
			l->k = 0;
			l->end = d->slots;
		}
	}
}

static size_t take(char *p, size_t size, size_t n, void *arg)
{
	struct lane *l = arg;
	struct prep_download *d = l->d;

	n *= size;
	if (!l->begun)
		begin(l);
	if (!l->wanted) {
		d->bytes += n;
		return n;
	}
	/* Another lane has found that this one asks in vain; or more comes than was asked for, or is needed. */
	if (d->failed || (d->no_ranges && l != d->whole) || l->k == l->end)
		return 0;
	if (too_far_ahead(d, AHEAD_MAX) || must_wait(d) > 0) {
		l->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	d->bytes += n;
	d->budget -= (int64_t)n;
	return keep(l, p, n) < 0 ? 0 : n;
}

/* ---- The net thread ---- */

/* Where the next request of a piece begins: its first frame that is not complete. False: it is. */
static bool piece_start(const struct prep_download *d, struct piece *p)
{
	while (p->first < p->end && d->slot[p->first].have == frame_of(d, p->first)->stored)
		p->first++;
	return p->first < p->end;
}

/* Ask for what is missing of piece number i. */
static void ask(struct prep_download *d, struct lane *l, uint32_t i)
{
	struct piece *p = &d->piece[i];
	const struct prep_frame *last = frame_of(d, p->end - 1);
	struct prep_err err = PREP_ERR_INIT;
	char range[64];

	l->piece = i;
	l->begun = l->wanted = l->paused = false;
	l->stored = 0;
	l->k = p->first;
	l->end = p->end;
	l->asked = l->at = frame_of(d, p->first)->off + d->slot[p->first].have;
	curl_easy_reset(l->easy);
	if (prep_http_prepare(l->easy, d->url, d->how, &err) < 0) {
		fail(d, err.code, err.msg, false);
		return;
	}
	curl_easy_setopt(l->easy, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(l->easy, CURLOPT_WRITEDATA, l);
	curl_easy_setopt(l->easy, CURLOPT_PRIVATE, l);
	curl_easy_setopt(l->easy, CURLOPT_MAX_RECV_SPEED_LARGE, (curl_off_t)0);
	if (!d->no_ranges) {
		snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)l->asked,
			 (unsigned long long)(last->off + last->stored - 1));
		curl_easy_setopt(l->easy, CURLOPT_RANGE, range);
	}
	if (curl_multi_add_handle(d->multi, l->easy) != CURLM_OK) {
		fail(d, PREP_EFAIL, "libcurl cannot take a request", false);
		return;
	}
	l->busy = p->running = true;
	d->requests++;
}

/* Give work to the lanes that have none. */
static void start_lanes(struct prep_download *d)
{
	uint32_t i = 0, pieces;
	unsigned busy = 0;

	if (now_ms() < d->not_before)
		return;

	pthread_mutex_lock(&d->lock);
	pieces = d->pieces;
	pthread_mutex_unlock(&d->lock);
	for (unsigned n = 0; n < d->lanes; n++)
		busy += d->lane[n].busy;
	for (unsigned n = 0; n < d->lanes && i < pieces && !(d->no_ranges && busy > 0); n++) {
		if (d->lane[n].busy)
			continue;
		for (; i < pieces; i++) {
			struct piece *p = &d->piece[i];

			if (p->running || !piece_start(d, p))
				continue;
			ask(d, &d->lane[n], i++);
			busy++;
			break;
		}
	}
}

/* A request has ended. */
static void finish(struct prep_download *d, struct lane *l, CURLcode result)
{
	const unsigned retries = d->how->retries != 0 ? d->how->retries : PREP_HTTP_RETRIES;
	struct piece *const p = &d->piece[l->piece];
	const bool in_vain = d->no_ranges && l != d->whole && l->begun;
	struct prep_err why = PREP_ERR_INIT;
	enum prep_http_outcome outcome;
	long status = 0;

	curl_easy_getinfo(l->easy, CURLINFO_RESPONSE_CODE, &status);
	outcome = prep_http_judge(l->easy, result, d->url, &why);
	curl_multi_remove_handle(d->multi, l->easy);
	l->busy = p->running = false;
	if (l == d->whole)
		d->whole = NULL;
	if (!piece_start(d, p) || in_vain || d->failed)
		return;
	if (outcome == PREP_HTTP_GOOD) {
		prep_fail(&why, PREP_EFAIL, "%s: the answer ends too early", d->url);
		outcome = PREP_HTTP_AGAIN;
	}
	d->retries++;
	/* What came to nothing at the same time on several lanes is one failure. */
	if (l->stored == 0 && now_ms() >= d->not_before) {
		d->failures++;
		d->not_before = now_ms() + prep_http_delay(l->easy, d->failures);
	}
	if (outcome == PREP_HTTP_NEVER || d->failures > retries)
		fail(d, why.code, why.msg, status == 404 || status == 410 || status == 412 || status == 416);
}

/*
 * Let paused lanes go on when the unpacking has caught up, and the limit
 * allows it. Returns in how many milliseconds to look again.
 */
static uint64_t go_on(struct prep_download *d)
{
	const uint64_t wait = must_wait(d);
	uint64_t ret = 1000;

	for (unsigned i = 0; i < d->lanes; i++) {
		if (!d->lane[i].paused)
			continue;
		if (wait > 0 || too_far_ahead(d, AHEAD_MAX / 2)) {
			ret = wait > 0 ? prep_min(ret, wait) : prep_min(ret, 20);
			continue;
		}
		d->lane[i].paused = false;
		curl_easy_pause(d->lane[i].easy, CURLPAUSE_CONT);
		if (d->lane[i].paused)
			ret = prep_min(ret, prep_max(must_wait(d), 1));
	}
	return ret;
}

/* In the background: give way to others. */
static void give_way(struct prep_download *d)
{
	const uint64_t now = now_ms();
	uint64_t limit;

	if (!d->how->background || now < d->yield_at)
		return;
	d->yield_at = now + PREP_YIELD_STEP_MS;
	limit = prep_yield_step(&d->yield, d->bytes, now);
	if (d->how->limit_rate != 0)
		limit = limit != 0 ? prep_min(limit, d->how->limit_rate) : d->how->limit_rate;
	if (d->limit == 0) {
		d->budget = 0;
		d->budget_at = now;
	}
	d->limit = limit;
}

static bool finished(struct prep_download *d)
{
	bool ret;

	pthread_mutex_lock(&d->lock);
	ret = d->quit || d->failed || d->done == d->slots;
	pthread_mutex_unlock(&d->lock);
	return ret;
}

static void *run_net(void *arg)
{
	struct prep_download *d = arg;
	int running, left;
	CURLMsg *msg;

	while (!finished(d)) {
		uint64_t wait = 1000, now;
		char *lane;

		start_lanes(d);
		give_way(d);
		curl_multi_perform(d->multi, &running);
		while ((msg = curl_multi_info_read(d->multi, &left)) != NULL) {
			if (msg->msg != CURLMSG_DONE)
				continue;
			curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &lane);
			finish(d, (struct lane *)(void *)lane, msg->data.result);
			wait = 0;
		}
		wait = prep_min(wait, go_on(d));
		if (d->how->background)
			wait = prep_min(wait, PREP_YIELD_STEP_MS);
		now = now_ms();
		if (d->not_before > now)
			wait = prep_min(wait, d->not_before - now);
		curl_multi_poll(d->multi, NULL, 0, (int)wait, NULL);
	}
	return NULL;
}

/* ---- The source ---- */

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
	end = prep_file_extent(fd, off, end, &hole);
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
		if (have[k] == frame_of(d, k)->stored)
			frame_complete(d, k);
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

static int start(void *arg, const struct prep_supply *supply, struct prep_err *err)
{
	struct prep_download *d = arg;
	sigset_t all, before;
	int e;

	d->supply = supply;
	d->slots = supply->frames;
	if (d->slots == 0)
		return 0;
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
	e = pthread_create(&d->net, NULL, run_net, d);
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

static int next(void *arg, struct prep_crew *crew, uint8_t *buf, uint32_t *frame, struct prep_err *err)
{
	struct prep_download *d = arg;
	const struct prep_frame *f;
	uint32_t k;

	pthread_mutex_lock(&d->lock);
	/* What another thread has taken may prove damaged, and come again. */
	while (d->readies == 0 && !d->failed && d->done < d->slots && !atomic_load(&crew->stop))
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
	f = frame_of(d, k);
	*frame = d->supply->frame[k];
	return prep_file_pread(d->fd, buf, f->stored, f->off, d->frames_path, err) < 0 ? -1 : 1;
}

static int done(void *arg, uint32_t frame, struct prep_err *err)
{
	struct prep_download *d = arg;
	const uint32_t k = d->slot_of[frame];
	const struct prep_frame *f = frame_of(d, k);
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
	wake = d->done == d->slots || d->ahead < AHEAD_MAX / 2;
	pthread_mutex_unlock(&d->lock);
	if (wake)
		curl_multi_wakeup(d->multi);
	return 0;
}

static int bad(void *arg, uint32_t frame, const struct prep_err *why, struct prep_err *err)
{
	struct prep_download *d = arg;
	const uint32_t k = d->slot_of[frame];
	const struct prep_frame *f = frame_of(d, k);

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
	d->how = how;
	d->index = index;
	d->package_size = package_size;
	d->limit = prep_min(how->limit_rate, UINT32_MAX * (uint64_t)1024); /* times seconds it stays in 64 bits */
	d->budget_at = now_ms();
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
	for (unsigned i = 0; i < d->lanes; i++) {
		d->lane[i].d = d;
		d->lane[i].easy = curl_easy_init();
		if (d->lane[i].easy == NULL) {
			prep_fail_nomem(err);
			goto fail;
		}
	}
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
		pthread_join(d->net, NULL);
	}
	for (unsigned i = 0; d->lane != NULL && i < d->lanes; i++) {
		if (d->lane[i].busy)
			curl_multi_remove_handle(d->multi, d->lane[i].easy);
		curl_easy_cleanup(d->lane[i].easy);
	}
	curl_multi_cleanup(d->multi);
	if (d->fd >= 0)
		close(d->fd);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->news);
	free(d->lane);
	free(d->slot);
	free(d->slot_of);
	free(d->ready);
	free(d->piece);
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
