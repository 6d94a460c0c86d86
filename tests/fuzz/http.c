/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Answers of a server to ckm-fetch's request for the index, in a real
 * connection over loopback: each run of bytes up to a NUL is what one
 * connection sends before it is closed.
 */
#include "tests/fuzz/replay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "libprep/trim/http.h"

#define BODY_MOST 65536u

static int listener = -1;
static char url[64];
static struct {
	pthread_mutex_t lock;
	const uint8_t *p;
	size_t len;
} answers = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Retries come at once: waiting for them would be all that is done. */
int nanosleep(const struct timespec *wanted, struct timespec *left)
{
	(void)wanted;
	(void)left;
	return 0;
}

static void answer(int fd)
{
	const uint8_t *p, *end;
	char request[4096];
	size_t n = 0, len;
	ssize_t r;

	do {
		r = recv(fd, request + n, sizeof request - 1 - n, 0);
		n += r > 0 ? (size_t)r : 0;
		request[n] = '\0';
	} while (r > 0 && strstr(request, "\r\n\r\n") == NULL);
	pthread_mutex_lock(&answers.lock);
	p = answers.p;
	end = answers.len > 0 ? memchr(p, '\0', answers.len) : NULL;
	len = end != NULL ? (size_t)(end - p) : answers.len;
	for (size_t at = 0; at < len; at += (size_t)r) {
		r = send(fd, p + at, len - at, MSG_NOSIGNAL);
		if (r <= 0)
			break;
	}
	answers.p += len + (end != NULL);
	answers.len -= len + (end != NULL);
	pthread_mutex_unlock(&answers.lock);
}

static void *serve(void *arg)
{
	(void)arg;
	for (;;) {
		const int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			continue;
		answer(fd);
		shutdown(fd, SHUT_RDWR);
		close(fd);
	}
	return NULL;
}

static void start(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	pthread_t thread;

	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, len) != 0 || listen(listener, 16) != 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &len) != 0 || pthread_create(&thread, NULL, serve, NULL) != 0)
		abort();
	snprintf(url, sizeof url, "http://127.0.0.1:%u/a.ckm.index", ntohs(a.sin_port));
	unsetenv("http_proxy");
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct prep_http_how how = { .retries = 2, .timeout = 5 };
	const struct prep_http_version known = { .etag = "\"a\"" };
	struct prep_err err = PREP_ERR_INIT;
	struct prep_http_count count = { .requests = 0 };
	struct prep_http_body body;

	if (listener < 0)
		start();
	pthread_mutex_lock(&answers.lock);
	answers.p = data;
	answers.len = size;
	pthread_mutex_unlock(&answers.lock);
	if (prep_http_get(url, &how, BODY_MOST, size % 2 ? &known : NULL, &body, &count, NULL, &err) == 0) {
		if (body.len > BODY_MOST || memchr(body.version.etag, 0, sizeof body.version.etag) == NULL)
			abort();
		free(body.data);
	}
	pthread_mutex_lock(&answers.lock);
	answers.len = 0;
	pthread_mutex_unlock(&answers.lock);
	return 0;
}
