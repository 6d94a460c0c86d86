/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * HTTP by libcurl: how requests are made, what answers mean, when to try again.
 *
 * URLs are http, https or file. Redirects are followed, to http and https
 * alone, from https to https alone; proxies are those of the settings, else those that libcurl finds in the environment.
 */
#ifndef PREP_TRIM_HTTP_H
#define PREP_TRIM_HTTP_H

#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libprep/base/progress.h"

#define PREP_HTTP_CONNECTIONS 4u /* ranges in flight, by default */
#define PREP_HTTP_RETRIES 8u     /* in a row without a byte, by default */
#define PREP_HTTP_TIMEOUT 30u    /* seconds to connect, or without a byte, by default */

struct prep_http_how {
	const char *user, *password;   /* NULL: none */
	unsigned long auth;            /* CURLAUTH_ bits, 0 for any that the server offers */
	bool netrc;                    /* look into netrc_file, or ~/.netrc where that is NULL */
	const char *netrc_file;
	const char *proxy;             /* NULL: as the environment says */
	const char *cacert;            /* PEM file of certificates to trust; NULL: the system's */
	uint64_t limit_rate;           /* bytes a second, 0: none */
	bool background;               /* give way to other traffic of this host (yield.h) */
	unsigned connections, retries, timeout; /* 0: the defaults above */
};

/* What identifies the state of a resource: strings of at most 255 bytes, empty where not told. */
struct prep_http_version {
	char etag[256], last_modified[256];
};

/* Bytes, and requests. */
struct prep_http_count {
	uint64_t requests, bytes;      /* bytes of bodies received */
	uint64_t retries;              /* requests that went on with what had broken off */
};

/*
 * PREP_EUSAGE unless url is one that can be fetched: http, https or file,
 * without a password in it.
 */
int prep_http_check_url(const char *url, struct prep_err *err);

/* The path of a file URL; *ret NULL: url is another, or none. The caller frees *ret. */
int prep_http_local_path(const char *url, char **ret, struct prep_err *err);

/* The URL of the index of a package: ".index" behind its path. The caller frees *ret. */
int prep_http_index_url(const char *url, char **ret, struct prep_err *err);

/*
 * Set up a handle for GET. PREP_EFAIL where libcurl cannot. Each request is made by a duplicate of it: up to 8.1.0
 * libcurl keeps a pointer to the last answer's headers in a handle that is used again, and frees what it points to; a
 * server can have it read and moved there, by a first header that begins with a blank (curl issue 11101).
 */
int prep_http_prepare(CURL *easy, const char *url, const struct prep_http_how *how, struct prep_err *err);

/* ETag and Last-Modified of the answer that is coming in. */
void prep_http_version_of(CURL *easy, struct prep_http_version *ret);

/* Whether both tell something of the same kind, and it differs. */
bool prep_http_version_differs(const struct prep_http_version *a, const struct prep_http_version *b);

/*
 * The Content-Range of a 206 answer that is coming in: its first byte and the
 * size of the whole (UINT64_MAX where the server does not tell). False when there is none.
 */
bool prep_http_range_of(CURL *easy, uint64_t *from, uint64_t *total);

/* What came of a request. */
enum prep_http_outcome {
	PREP_HTTP_GOOD,  /* complete */
	PREP_HTTP_AGAIN, /* broken off, or the server is not able now: may be tried again */
	PREP_HTTP_NEVER, /* no use in trying again */
};

/* Judge a finished request. In err, unless GOOD, why: "URL: reason", PREP_EFAIL. */
enum prep_http_outcome prep_http_judge(CURL *easy, CURLcode result, const char *url, struct prep_err *err);

/*
 * Milliseconds to wait before try number `failures` (1, 2, ...) in a row:
 * doubling, with some chance in it, and at least what the server asks for.
 */
unsigned prep_http_delay(CURL *easy, unsigned failures);

struct prep_http_body {
	uint8_t *data;
	size_t len;
	struct prep_http_version version;
	bool unchanged;                /* it still is `known`: there is no data */
};

/*
 * Get all of a resource of at most `most` bytes; what breaks off is gone on
 * with. known: a version of this URL that is there already, or NULL; asked for by its ETag alone: by a
 * date, a server that went back to an older file would say that it is unchanged. The caller frees ret->data.
 */
int prep_http_get(const char *url, const struct prep_http_how *how, uint64_t most,
		  const struct prep_http_version *known, struct prep_http_body *ret,
		  struct prep_http_count *count, const struct prep_progress *progress,
		  struct prep_err *err);

#endif
