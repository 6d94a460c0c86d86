/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The thread of a download: requests, what comes in, when to try again, how fast. */
#include <stdio.h>
#include <string.h>

#include "libprep/base/bytes.h"
#include "libprep/base/file.h"
#include "libprep/trim/download_internal.h"

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

static bool finished(struct prep_download *d)
{
	bool ret;

	pthread_mutex_lock(&d->lock);
	ret = d->quit || d->failed || d->done == d->slots;
	pthread_mutex_unlock(&d->lock);
	return ret;
}

/* ---- What comes in ---- */

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
		const struct prep_frame *f = prep_slot_frame(d, l->k);
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
				prep_download_ready(d, l->k);
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
	const uint64_t now = prep_now_ms();
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
	d->answered = true;
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

/*
 * libcurl reads a file of this machine in one go, and cannot pause that: the thread waits, which has
 * nothing else to do. False: for nothing, the download is over.
 */
static bool wait_here(struct prep_download *d)
{
	while (!finished(d)) {
		const uint64_t wait = too_far_ahead(d, PREP_DOWNLOAD_AHEAD) ? 20 : prep_min(must_wait(d), 20);

		if (wait == 0)
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = (long)wait * 1000000 }, NULL);
	}
	return false;
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
	if (d->local) {
		if (!wait_here(d))
			return 0;
	} else if (too_far_ahead(d, PREP_DOWNLOAD_AHEAD) || must_wait(d) > 0) {
		l->paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	d->bytes += n;
	d->budget -= (int64_t)n;
	return keep(l, p, n) < 0 ? 0 : n;
}

/* ---- Requests ---- */

int prep_download_lane(struct prep_download *d, struct lane *l, struct prep_err *err)
{
	l->d = d;
	l->prepared = curl_easy_init();
	if (l->prepared == NULL)
		return prep_fail_nomem(err);
	if (prep_http_prepare(l->prepared, d->url, d->how, err) < 0)
		return -1;
	curl_easy_setopt(l->prepared, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(l->prepared, CURLOPT_WRITEDATA, l);
	curl_easy_setopt(l->prepared, CURLOPT_PRIVATE, l);
	curl_easy_setopt(l->prepared, CURLOPT_MAX_RECV_SPEED_LARGE, (curl_off_t)0);
	return 0;
}

/* Where the next request of a piece begins: its first frame that is not complete. False: it is. */
static bool piece_start(const struct prep_download *d, struct piece *p)
{
	while (p->first < p->end && d->slot[p->first].have == prep_slot_frame(d, p->first)->stored)
		p->first++;
	return p->first < p->end;
}

/* Ask for what is missing of piece number i. */
static void ask(struct prep_download *d, struct lane *l, uint32_t i)
{
	struct piece *p = &d->piece[i];
	const struct prep_frame *last = prep_slot_frame(d, p->end - 1);
	char range[64];

	l->piece = i;
	l->begun = l->wanted = l->paused = false;
	l->stored = 0;
	l->k = p->first;
	l->end = p->end;
	l->asked = l->at = prep_slot_frame(d, p->first)->off + d->slot[p->first].have;
	snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)l->asked,
		 (unsigned long long)(last->off + last->stored - 1));
	curl_easy_cleanup(l->easy);
	l->easy = curl_easy_duphandle(l->prepared);
	if (l->easy == NULL) {
		fail(d, PREP_EFAIL, "out of memory", false);
		return;
	}
	curl_easy_setopt(l->easy, CURLOPT_RANGE, d->no_ranges ? NULL : range);
	if (curl_multi_add_handle(d->multi, l->easy) != CURLM_OK) {
		fail(d, PREP_EFAIL, "libcurl cannot take a request", false);
		return;
	}
	l->busy = p->running = true;
	d->requests++;
}

/*
 * Give work to the lanes that have none. One goes ahead: when it is answered it
 * is known whether the others can share its connection (HTTP/2), need one each,
 * or are of no use as the server gives nothing but the whole.
 */
static void start_lanes(struct prep_download *d)
{
	const unsigned most = d->answered && !d->no_ranges ? d->lanes : 1;
	uint32_t i = 0, pieces;
	unsigned busy = 0;

	if (prep_now_ms() < d->not_before)
		return;
	pthread_mutex_lock(&d->lock);
	pieces = d->pieces;
	pthread_mutex_unlock(&d->lock);
	for (unsigned n = 0; n < d->lanes; n++)
		busy += d->lane[n].busy;
	for (unsigned n = 0; n < d->lanes && i < pieces && busy < most; n++) {
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
	/* What has come by this lane, and proved damaged since, has a piece of its own. */
	p->first = (uint32_t)prep_min(prep_max(p->first, l->k), p->end);
	if (!piece_start(d, p) || in_vain || d->failed)
		return;
	if (outcome == PREP_HTTP_GOOD) {
		prep_fail(&why, PREP_EFAIL, "%s: the answer ends too early", d->url);
		outcome = PREP_HTTP_AGAIN;
	}
	d->retries++;
	/* What came to nothing at the same time on several lanes is one failure. */
	if (l->stored == 0 && prep_now_ms() >= d->not_before) {
		d->failures++;
		d->not_before = prep_now_ms() + prep_http_delay(l->easy, d->failures);
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
		if (wait > 0 || too_far_ahead(d, PREP_DOWNLOAD_AHEAD / 2)) {
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
	const uint64_t now = prep_now_ms();
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

void *prep_download_net(void *arg)
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
		now = prep_now_ms();
		if (d->not_before > now)
			wait = prep_min(wait, d->not_before - now);
		curl_multi_poll(d->multi, NULL, 0, (int)wait, NULL);
	}
	return NULL;
}
