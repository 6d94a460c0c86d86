/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the two halves of a download share: the source that restoring takes
 * frames from (download.c), and the thread that gets them (download_net.c).
 */
#ifndef PREP_TRIM_DOWNLOAD_INTERNAL_H
#define PREP_TRIM_DOWNLOAD_INTERNAL_H

#include <pthread.h>
#include <time.h>

#include "libprep/trim/download.h"
#include "libprep/trim/yield.h"

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
	CURL *prepared;
	CURL *easy;           /* of the request that is busy, or the last */
	uint32_t piece;       /* number */
	bool busy, begun, wanted, paused;
	uint64_t asked, at;   /* first byte asked for; offset in the package of the next byte */
	uint32_t k, end;      /* the frame that is coming, and where the piece ends */
	uint64_t stored;      /* bytes kept, of this request */
};

struct prep_download {
	const char *url;
	bool local;               /* of this machine: file: */
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
	bool answered;            /* the server has given something: what it is able to is known */
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

static inline uint64_t prep_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* The frame of a slot. */
static inline const struct prep_frame *prep_slot_frame(const struct prep_download *d, uint32_t k)
{
	return &d->index->frame[d->supply->frame[k]];
}

/* A slot's frame is complete: it can be taken. */
void prep_download_ready(struct prep_download *d, uint32_t k);

/*
 * Set up a lane. Its handle is used for all of its requests: what it has
 * learnt about the server (how to say who we are) holds for the next.
 */
int prep_download_lane(struct prep_download *d, struct lane *l, struct prep_err *err);

/* The thread: gets what is missing until all is done, it fails or is told to quit. arg: struct prep_download. */
void *prep_download_net(void *arg);

#endif
