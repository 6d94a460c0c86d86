/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/frame_cache.h"

#include <pthread.h>
#include <stdlib.h>

struct prep_frame_cache {
	struct prep_ckm *package;
	uint64_t keep;
	pthread_mutex_t lock;
	pthread_cond_t unpacked;
	uint64_t now;
	struct prep_cached_frame *first; /* without data: its first holder is unpacking it */
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

static void drop(struct prep_cached_frame **at)
{
	struct prep_cached_frame *f = *at;

	*at = f->next;
	free(f->data);
	free(f);
}

void prep_frame_cache_free(struct prep_frame_cache *c)
{
	if (c == NULL)
		return;
	while (c->first != NULL)
		drop(&c->first);
	pthread_cond_destroy(&c->unpacked);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct prep_cached_frame *find(const struct prep_frame_cache *c, uint32_t number)
{
	struct prep_cached_frame *f = c->first;

	while (f != NULL && f->number != number)
		f = f->next;
	return f;
}

/* Of the frames that nobody holds, those put longest ago go. */
static void drop_old(struct prep_frame_cache *c)
{
	const struct prep_frame *frame = prep_ckm_index(c->package)->frame;

	for (;;) {
		struct prep_cached_frame **oldest = NULL;
		uint64_t bytes = 0;

		for (struct prep_cached_frame **at = &c->first; *at != NULL; at = &(*at)->next) {
			if ((*at)->holders > 0)
				continue;
			bytes += frame[(*at)->number].size;
			if (oldest == NULL || (*at)->put < (*oldest)->put)
				oldest = at;
		}
		if (oldest == NULL || bytes <= c->keep)
			return;
		drop(oldest);
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

int prep_frame_cache_get(struct prep_frame_cache *c, uint32_t number, const struct prep_frame_references *references,
			 struct prep_cached_frame **ret, struct prep_err *err)
{
	struct prep_cached_frame *f, **at = &c->first;
	uint8_t *data;
	int ok;

	*ret = NULL;
	pthread_mutex_lock(&c->lock);
	while ((f = find(c, number)) != NULL && f->data == NULL)
		pthread_cond_wait(&c->unpacked, &c->lock);
	if (f != NULL) {
		f->holders++;
		pthread_mutex_unlock(&c->lock);
		*ret = f;
		return 1;
	}
	f = calloc(1, sizeof *f);
	if (f != NULL) {
		*f = (struct prep_cached_frame){ .cache = c, .number = number, .next = c->first, .holders = 1 };
		c->first = f;
	}
	pthread_mutex_unlock(&c->lock);
	if (f == NULL)
		return prep_fail_nomem(err);

	ok = unpack(c->package, number, references, &data, err);

	pthread_mutex_lock(&c->lock);
	f->data = data;
	/* Who waited tries for himself. */
	if (ok != 1) {
		while (*at != f)
			at = &(*at)->next;
		drop(at);
		f = NULL;
	}
	pthread_cond_broadcast(&c->unpacked);
	pthread_mutex_unlock(&c->lock);
	*ret = f;
	return ok;
}

void prep_frame_cache_put(struct prep_cached_frame *f)
{
	struct prep_frame_cache *c;

	if (f == NULL)
		return;
	c = f->cache;
	pthread_mutex_lock(&c->lock);
	f->put = ++c->now;
	if (--f->holders == 0)
		drop_old(c);
	pthread_mutex_unlock(&c->lock);
}
