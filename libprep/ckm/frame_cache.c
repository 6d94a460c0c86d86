/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/frame_cache.h"

#include <pthread.h>
#include <stdlib.h>

struct entry {
	uint32_t frame;
	unsigned holders;
	uint64_t put;  /* when it was last put */
	uint8_t *data; /* NULL: its first holder is unpacking it */
};

struct prep_frame_cache {
	struct prep_ckm *package;
	uint64_t keep;
	pthread_mutex_t lock;
	pthread_cond_t unpacked;
	uint64_t now;
	struct entry *entry;
	size_t entries, room;
};

int prep_frame_cache_new(struct prep_ckm *package, uint64_t keep, struct prep_frame_cache **ret, struct prep_err *err)
{
	struct prep_frame_cache *c = calloc(1, sizeof *c);

	*ret = c;
	if (c == NULL)
		return prep_fail_nomem(err);
	c->package = package;
	c->keep = keep;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->unpacked, NULL);
	return 0;
}

void prep_frame_cache_free(struct prep_frame_cache *c)
{
	if (c == NULL)
		return;
	for (size_t i = 0; i < c->entries; i++)
		free(c->entry[i].data);
	free(c->entry);
	pthread_cond_destroy(&c->unpacked);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct entry *find(const struct prep_frame_cache *c, uint32_t frame)
{
	for (size_t i = 0; i < c->entries; i++)
		if (c->entry[i].frame == frame)
			return &c->entry[i];
	return NULL;
}

static int add(struct prep_frame_cache *c, uint32_t frame, struct prep_err *err)
{
	if (c->entries == c->room) {
		const size_t room = c->room + 16;
		struct entry *grown = reallocarray(c->entry, room, sizeof *grown);

		if (grown == NULL)
			return prep_fail_nomem(err);
		c->entry = grown;
		c->room = room;
	}
	c->entry[c->entries++] = (struct entry){ .frame = frame, .holders = 1 };
	return 0;
}

static void drop(struct prep_frame_cache *c, struct entry *e)
{
	free(e->data);
	*e = c->entry[--c->entries];
}

/* Of the frames that nobody holds, those put longest ago go. */
static void drop_old(struct prep_frame_cache *c)
{
	const struct prep_frame *frame = prep_ckm_index(c->package)->frame;

	for (;;) {
		struct entry *oldest = NULL;
		uint64_t bytes = 0;

		for (struct entry *e = c->entry; e < c->entry + c->entries; e++) {
			if (e->holders > 0)
				continue;
			bytes += frame[e->frame].size;
			if (oldest == NULL || e->put < oldest->put)
				oldest = e;
		}
		if (bytes <= c->keep)
			return;
		drop(c, oldest);
	}
}

/* 1 and *ret, 0 or -1 as prep_frame_cache_get has it. */
static int unpack(struct prep_ckm *package, uint32_t number, const struct prep_frame_references *references,
		  uint8_t **ret, struct prep_err *err)
{
	const struct prep_frame *f = &prep_ckm_index(package)->frame[number];
	const uint8_t *reference = NULL;
	uint8_t *stored, *data;
	int ok = 1;

	*ret = NULL;
	if (f->kind == PREP_FRAME_PATCH)
		ok = references->get(references->arg, number, &reference, err);
	if (ok != 1)
		return ok;
	stored = malloc((size_t)f->stored + 1);
	data = malloc((size_t)f->size + 1);
	if (stored == NULL || data == NULL)
		ok = prep_fail_nomem(err);
	else if (prep_ckm_read_frame(package, number, stored, err) < 0 ||
		 prep_ckm_decode_frame(package, number, stored, reference, data, err) < 0)
		ok = -1;
	free(stored);
	if (ok == 1)
		*ret = data;
	else
		free(data);
	return ok;
}

int prep_frame_cache_get(struct prep_frame_cache *c, uint32_t frame, const struct prep_frame_references *references,
			 const uint8_t **ret, struct prep_err *err)
{
	struct entry *e;
	uint8_t *data;
	int ok;

	*ret = NULL;
	pthread_mutex_lock(&c->lock);
	while ((e = find(c, frame)) != NULL && e->data == NULL)
		pthread_cond_wait(&c->unpacked, &c->lock);
	if (e != NULL) {
		e->holders++;
		*ret = e->data;
		pthread_mutex_unlock(&c->lock);
		return 1;
	}
	ok = add(c, frame, err);
	pthread_mutex_unlock(&c->lock);
	if (ok < 0)
		return -1;

	ok = unpack(c->package, frame, references, &data, err);

	pthread_mutex_lock(&c->lock);
	e = find(c, frame);
	e->data = data;
	/* Who waited tries for himself. */
	if (ok != 1)
		drop(c, e);
	pthread_cond_broadcast(&c->unpacked);
	pthread_mutex_unlock(&c->lock);
	*ret = data;
	return ok;
}

void prep_frame_cache_put(struct prep_frame_cache *c, uint32_t frame)
{
	struct entry *e;

	pthread_mutex_lock(&c->lock);
	e = find(c, frame);
	e->put = ++c->now;
	if (--e->holders == 0)
		drop_old(c);
	pthread_mutex_unlock(&c->lock);
}
