/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/ckm/frame_cache.h"

#include <pthread.h>
#include <stdlib.h>

struct prep_frame_cache {
	struct prep_ckm *package;
	uint64_t keep;
	pthread_mutex_t lock;
	pthread_cond_t unpacked;
	struct prep_cached_frame **frame; /* by number; NULL: not here; without data: its first holder is unpacking it */
	struct prep_cached_frame *oldest, *newest; /* that nobody holds, */
	uint64_t idle;                    /* and their bytes */
};

int prep_frame_cache_new(struct prep_ckm *package, uint64_t keep, struct prep_frame_cache **ret, struct prep_err *err)
{
	struct prep_frame_cache *c = calloc(1, sizeof *c);

	*ret = NULL;
	if (c == NULL)
		return prep_fail_nomem(err);
	c->frame = calloc((size_t)prep_ckm_index(package)->frames + 1, sizeof *c->frame);
	if (c->frame == NULL) {
		free(c);
		return prep_fail_nomem(err);
	}
	*ret = c;
	c->package = package;
	c->keep = keep;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->unpacked, NULL);
	return 0;
}

static uint64_t size_of(const struct prep_frame_cache *c, const struct prep_cached_frame *f)
{
	return prep_ckm_index(c->package)->frame[f->number].size;
}

/* Nobody holds it any more. */
static void add_idle(struct prep_frame_cache *c, struct prep_cached_frame *f)
{
	f->older = c->newest;
	f->newer = NULL;
	*(c->newest != NULL ? &c->newest->newer : &c->oldest) = f;
	c->newest = f;
	c->idle += size_of(c, f);
}

static void remove_idle(struct prep_frame_cache *c, struct prep_cached_frame *f)
{
	*(f->older != NULL ? &f->older->newer : &c->oldest) = f->newer;
	*(f->newer != NULL ? &f->newer->older : &c->newest) = f->older;
	c->idle -= size_of(c, f);
}

static void drop(struct prep_frame_cache *c, struct prep_cached_frame *f)
{
	c->frame[f->number] = NULL;
	free(f->data);
	free(f);
}

/* Of the frames that nobody holds, those put longest ago go. */
static void drop_old(struct prep_frame_cache *c, uint64_t keep)
{
	struct prep_cached_frame *f;

	while ((f = c->oldest) != NULL && c->idle > keep) {
		c->oldest = f->newer;
		*(c->oldest != NULL ? &c->oldest->older : &c->newest) = NULL;
		c->idle -= size_of(c, f);
		drop(c, f);
	}
}

void prep_frame_cache_free(struct prep_frame_cache *c)
{
	if (c == NULL)
		return;
	drop_old(c, 0);
	pthread_cond_destroy(&c->unpacked);
	pthread_mutex_destroy(&c->lock);
	free(c->frame);
	free(c);
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
	struct prep_cached_frame *f;
	uint8_t *data;
	int ok;

	*ret = NULL;
	pthread_mutex_lock(&c->lock);
	while ((f = c->frame[number]) != NULL && f->data == NULL)
		pthread_cond_wait(&c->unpacked, &c->lock);
	if (f != NULL) {
		if (f->holders++ == 0)
			remove_idle(c, f);
		pthread_mutex_unlock(&c->lock);
		*ret = f;
		return 1;
	}
	f = calloc(1, sizeof *f);
	if (f != NULL) {
		*f = (struct prep_cached_frame){ .cache = c, .number = number, .holders = 1 };
		c->frame[number] = f;
	}
	pthread_mutex_unlock(&c->lock);
	if (f == NULL)
		return prep_fail_nomem(err);

	ok = unpack(c->package, number, references, &data, err);

	pthread_mutex_lock(&c->lock);
	f->data = data;
	/* Who waited tries for himself. */
	if (ok != 1) {
		drop(c, f);
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
	if (--f->holders == 0) {
		add_idle(c, f);
		drop_old(c, c->keep);
	}
	pthread_mutex_unlock(&c->lock);
}
