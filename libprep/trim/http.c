/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include <openssl/x509_vfy.h>

#include "libprep/base/bytes.h"
#include "libprep/version.h"

#define REDIRECTS 10L
#define FIRST_DELAY 250u   /* milliseconds */
#define MOST_DELAY 30000u
#define STATUS_ROOM 200

/* Whether a user's name and password seem to stand before the host, however wrong the rest is. */
static bool has_password(const char *url)
{
	const char *host = strstr(url, "://");
	const char *end, *colon;

	host = host != NULL ? host + 3 : url;
	end = memrchr(host, '@', strcspn(host, "/?#"));
	colon = memchr(host, ':', strcspn(host, "/?#"));
	return end != NULL && colon != NULL && colon < end;
}

int prep_http_check_url(const char *url, struct prep_err *err)
{
	CURLU *u = curl_url();
	char *scheme = NULL, *password = NULL, *path = NULL;
	bool parsed;
	int r = 0;

	if (u == NULL)
		return prep_fail_nomem(err);
	parsed = curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK;
	/* First: no message may show it. */
	if (has_password(url) || (parsed && curl_url_get(u, CURLUPART_PASSWORD, &password, 0) == CURLUE_OK))
		r = prep_fail(err, PREP_EUSAGE,
			      "a password in the URL is seen by every user of this host: give it by a file");
	else if (!parsed || curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
		 (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0 && strcmp(scheme, "file") != 0))
		r = prep_fail(err, PREP_EUSAGE, "%s: not a URL of http, https or file%s", url,
			      strchr(url, ' ') != NULL ? ": a space in it is written %20" : "");
	else if (curl_url_get(u, CURLUPART_PATH, &path, 0) != CURLUE_OK || path[strlen(path) - 1] == '/')
		r = prep_fail(err, PREP_EUSAGE, "%s: names no file", url);
	curl_free(scheme);
	curl_free(password);
	curl_free(path);
	curl_url_cleanup(u);
	return r;
}

int prep_http_local_path(const char *url, char **ret, struct prep_err *err)
{
	CURLU *u = curl_url();
	char *scheme = NULL, *path = NULL;
	int r = 0;

	*ret = NULL;
	if (u == NULL)
		return prep_fail_nomem(err);
	if (curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK && strcmp(scheme, "file") == 0 &&
	    curl_url_get(u, CURLUPART_PATH, &path, CURLU_URLDECODE) == CURLUE_OK && (*ret = strdup(path)) == NULL)
		r = prep_fail_nomem(err);
	curl_free(scheme);
	curl_free(path);
	curl_url_cleanup(u);
	return r;
}

int prep_http_index_url(const char *url, char **ret, struct prep_err *err)
{
	CURLU *u = curl_url();
	char *path = NULL, *longer = NULL, *whole = NULL;
	bool done = false;

	/* Behind the path, not behind a query. */
	*ret = NULL;
	if (u != NULL && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_PATH, &path, 0) == CURLUE_OK && asprintf(&longer, "%s.index", path) >= 0 &&
	    curl_url_set(u, CURLUPART_PATH, longer, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_URL, &whole, 0) == CURLUE_OK) {
		*ret = strdup(whole);
		done = *ret != NULL;
	}
	curl_free(whole);
	curl_free(path);
	free(longer);
	curl_url_cleanup(u);
	return done ? 0 : prep_fail_nomem(err);
}

/*
 * What is taken slowly must be sent slowly: what the kernel has room for comes
 * at full speed all the same.
 */
static int set_room(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	const struct prep_http_how *how = arg;
	const int room = (int)(how->limit_rate != 0 ? prep_min(prep_max(how->limit_rate / 16, 16 * PREP_KIB), PREP_MIB)
						    : PREP_MIB);

	(void)purpose;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
	return CURL_SOCKOPT_OK;
}

int prep_http_prepare(CURL *easy, const char *url, const struct prep_http_how *how, struct prep_err *err)
{
	const long timeout = how->timeout != 0 ? (long)how->timeout : (long)PREP_HTTP_TIMEOUT;
	CURLcode c = CURLE_OK;

#define SET(option, value) (c = c != CURLE_OK ? c : curl_easy_setopt(easy, option, value))
	SET(CURLOPT_URL, url);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_PROTOCOLS_STR, "http,https,file");
	/* What was to come by TLS is not taken from elsewhere. */
	SET(CURLOPT_REDIR_PROTOCOLS_STR, strncasecmp(url, "https:", 6) == 0 ? "https" : "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 1L);
	SET(CURLOPT_MAXREDIRS, REDIRECTS);
	SET(CURLOPT_USERAGENT, "ckm-fetch/" PREP_VERSION);
	SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	SET(CURLOPT_BUFFERSIZE, 256L * 1024);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_FILETIME, 1L);
	/* A server that accepts and then says nothing is as dead as one that does not accept. */
	SET(CURLOPT_CONNECTTIMEOUT, timeout);
	SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
	SET(CURLOPT_LOW_SPEED_TIME, timeout);
	if (how->cacert != NULL)
		SET(CURLOPT_CAINFO, how->cacert);
	if (how->proxy != NULL)
		SET(CURLOPT_PROXY, how->proxy);
	SET(CURLOPT_PROXYAUTH, CURLAUTH_ANY);
	if (how->netrc) {
		SET(CURLOPT_NETRC, (long)CURL_NETRC_OPTIONAL);
		if (how->netrc_file != NULL)
			SET(CURLOPT_NETRC_FILE, how->netrc_file);
	}
	/* Kerberos knows who you are; libcurl tries it only where there is a name, be it empty. */
	if (how->user != NULL || (how->auth & CURLAUTH_NEGOTIATE) != 0)
		SET(CURLOPT_USERNAME, how->user != NULL ? how->user : "");
	if (how->password != NULL)
		SET(CURLOPT_PASSWORD, how->password);
	if (how->user != NULL || how->netrc || how->auth != 0)
		SET(CURLOPT_HTTPAUTH, how->auth != 0 ? how->auth : CURLAUTH_ANY);
	if (how->limit_rate != 0)
		SET(CURLOPT_MAX_RECV_SPEED_LARGE, (curl_off_t)prep_min(how->limit_rate, INT64_MAX));
	if (how->limit_rate != 0 || how->background) {
		/* The streams of HTTP/2 have windows of their own, which libcurl makes huge. */
		SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
		SET(CURLOPT_SOCKOPTFUNCTION, set_room);
		SET(CURLOPT_SOCKOPTDATA, (void *)how);
	}
#undef SET
	if (c != CURLE_OK)
		return prep_fail(err, PREP_EFAIL, "%s: %s", url, curl_easy_strerror(c));
	return 0;
}

static void copy_header(CURL *easy, const char *name, char ret[256])
{
	struct curl_header *h;

	ret[0] = '\0';
	if (curl_easy_header(easy, name, 0, CURLH_HEADER, -1, &h) != CURLHE_OK || strlen(h->value) >= 256)
		return;
	/* Bytes that are no ASCII are allowed, and no text that could be kept in JSON. */
	for (const char *p = h->value; *p != '\0'; p++)
		if ((unsigned char)*p >= 0x80)
			return;
	strcpy(ret, h->value);
}

void prep_http_version_of(CURL *easy, struct prep_http_version *ret)
{
	copy_header(easy, "ETag", ret->etag);
	copy_header(easy, "Last-Modified", ret->last_modified);
}

bool prep_http_version_differs(const struct prep_http_version *a, const struct prep_http_version *b)
{
	if (a->etag[0] != '\0' && b->etag[0] != '\0' && strcmp(a->etag, b->etag) != 0)
		return true;
	return a->last_modified[0] != '\0' && b->last_modified[0] != '\0' &&
	       strcmp(a->last_modified, b->last_modified) != 0;
}

bool prep_http_range_of(CURL *easy, uint64_t *from, uint64_t *total)
{
	unsigned long long a, b, all;
	char text[256], star;

	/* RFC 9110, 14.4: "bytes 0-99/1234", or "bytes 0-99/" and an asterisk. */
	copy_header(easy, "Content-Range", text);
	if (sscanf(text, "bytes %llu-%llu/%llu", &a, &b, &all) == 3)
		*total = all;
	else if (sscanf(text, "bytes %llu-%llu/%c", &a, &b, &star) == 3 && star == '*')
		*total = UINT64_MAX;
	else
		return false;
	*from = a;
	return b >= a;
}

/* " by basic or ntlm": how a server (or proxy) that asked who we are would hear it. */
static const char *asked_by(CURL *easy, CURLINFO info, char ret[64])
{
	static const struct {
		unsigned long bit;
		const char *name;
	} kind[] = {
		{ CURLAUTH_BASIC, "basic" }, { CURLAUTH_DIGEST, "digest" }, { CURLAUTH_NTLM, "ntlm" },
		{ CURLAUTH_NEGOTIATE, "negotiate" },
	};
	long offered = 0;

	ret[0] = '\0';
	curl_easy_getinfo(easy, info, &offered);
	for (size_t i = 0; i < sizeof kind / sizeof kind[0]; i++)
		if ((unsigned long)offered & kind[i].bit)
			snprintf(ret + strlen(ret), 64 - strlen(ret), "%s%s", ret[0] == '\0' ? " by " : " or ", kind[i].name);
	return ret;
}

/* What a status means, where there is more to say than its number. */
static const char *status_text(CURL *easy, long status, char room[STATUS_ROOM])
{
	char by[64];

	switch (status) {
	case 401:
		asked_by(easy, CURLINFO_HTTPAUTH_AVAIL, by);
		snprintf(room, STATUS_ROOM,
			 "the server asks who you are%s, or does not know you (--user, --password-file, --netrc%s)", by,
			 strstr(by, "negotiate") != NULL ? ", or a Kerberos ticket and --auth negotiate" : "");
		return room;
	case 403:
		return "the server does not allow it";
	case 404:
	case 410:
		return "there is no such file on the server";
	case 407:
		snprintf(room, STATUS_ROOM, "the proxy asks who you are%s, or does not know you",
			 asked_by(easy, CURLINFO_PROXYAUTH_AVAIL, by));
		return room;
	case 412:
	case 416:
		return "the file on the server is not what it was";
	case 429:
		return "the server asks to come back later";
	default:
		return status >= 500 ? "the server has a problem" : "an answer that cannot be used";
	}
}

/* Why a certificate was not accepted. */
static const char *certificate_text(CURL *easy)
{
	long result = X509_V_OK;

	curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &result);
	if (result == X509_V_OK)
		curl_easy_getinfo(easy, CURLINFO_PROXY_SSL_VERIFYRESULT, &result);
	/* libcurl looks at the name itself, and says so by no more than that. */
	if (result == X509_V_OK || result == X509_V_ERR_UNSPECIFIED)
		return "it is for another name";
	return X509_verify_cert_error_string(result);
}

enum prep_http_outcome prep_http_judge(CURL *easy, CURLcode result, const char *url, struct prep_err *err)
{
	long status = 0, os_errno = 0;
	char room[STATUS_ROOM];

	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 300 && status < 400 && (result == CURLE_UNSUPPORTED_PROTOCOL || result == CURLE_TOO_MANY_REDIRECTS)) {
		prep_fail(err, PREP_EFAIL, "%s: a redirect that is not followed: %s (status %ld)", url,
			  curl_easy_strerror(result), status);
		return PREP_HTTP_NEVER;
	}
	/* What went wrong on the way to where a redirect leads is judged as such. */
	if (status >= 400 || (status >= 300 && result == CURLE_OK)) {
		prep_fail(err, PREP_EFAIL, "%s: %s (status %ld)", url, status_text(easy, status, room), status);
		return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505)
			       ? PREP_HTTP_AGAIN
			       : PREP_HTTP_NEVER;
	}
	switch (result) {
	case CURLE_OK:
		return PREP_HTTP_GOOD;
	case CURLE_OPERATION_TIMEDOUT:
		prep_fail(err, PREP_EFAIL, "%s: the server cannot be reached, or sends nothing (--timeout)", url);
		return PREP_HTTP_AGAIN;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
	case CURLE_SSL_CONNECT_ERROR: /* the line breaks while TLS is set up */
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_UNSUPPORTED_PROTOCOL: /* what comes is no HTTP; the URL's scheme has been checked */
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
		curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_errno);
		prep_fail(err, PREP_EFAIL, "%s: %s%s%s", url, curl_easy_strerror(result), os_errno != 0 ? ": " : "",
			  os_errno != 0 ? strerror((int)os_errno) : "");
		return PREP_HTTP_AGAIN;
	case CURLE_PEER_FAILED_VERIFICATION:
		prep_fail(err, PREP_EFAIL, "%s: the server's certificate is not accepted: %s (--cacert)", url,
			  certificate_text(easy));
		return PREP_HTTP_NEVER;
	case CURLE_SSL_CACERT_BADFILE: /* a bare system has none, until ca-certificates is installed */
		prep_fail(err, PREP_EFAIL,
			  "%s: the certificates to trust cannot be read: those of --cacert, else of the system (Debian's ca-certificates)",
			  url);
		return PREP_HTTP_NEVER;
	case CURLE_FILE_COULDNT_READ_FILE:
		prep_fail(err, PREP_EFAIL, "%s: cannot read the file", url);
		return PREP_HTTP_NEVER;
	default:
		prep_fail(err, PREP_EFAIL, "%s: %s", url, curl_easy_strerror(result));
		return PREP_HTTP_NEVER;
	}
}

unsigned prep_http_delay(CURL *easy, unsigned failures)
{
	const unsigned doubled = failures > 8 ? MOST_DELAY : FIRST_DELAY << (failures - 1);
	curl_off_t after = 0;
	struct timespec now;

	curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &after);
	/* Clients that broke off together should not come back together. */
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (unsigned)prep_min(prep_max(doubled + (uint64_t)now.tv_nsec / 1000 % (doubled / 2 + 1),
					   prep_min((uint64_t)prep_max((uint64_t)after, 0), 120) * 1000),
				  4 * MOST_DELAY);
}

/* ---- A whole resource ---- */

struct get {
	CURL *prepared;
	CURL *easy;             /* a request's; its answer is asked for until the next */
	const char *url;
	uint64_t most;
	size_t room;
	struct prep_http_body *body;
	bool begun;             /* the answer's headers have been looked at */
	uint64_t received;      /* by this request */
	const struct prep_progress *progress;
	struct prep_err *err;
};

/* The headers are here. False: the body is not wanted. */
static bool begin(struct get *g)
{
	struct prep_http_version version;
	uint64_t from, total;
	long status = 0;

	g->begun = true;
	curl_easy_getinfo(g->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status != 0 && status != 200 && status != 206)
		return false;
	prep_http_version_of(g->easy, &version);
	/* All of it although a part was asked for, or another version of it: from the start. */
	if (status != 206 || prep_http_version_differs(&version, &g->body->version) ||
	    !prep_http_range_of(g->easy, &from, &total) || from != g->body->len)
		g->body->len = 0;
	if (status == 206 && g->body->len == 0)
		return false;
	g->body->version = version;
	return true;
}

static size_t take(char *p, size_t size, size_t n, void *arg)
{
	struct get *g = arg;
	long status = 0;

	n *= size;
	g->received += n;
	curl_easy_getinfo(g->easy, CURLINFO_RESPONSE_CODE, &status);
	if (!g->begun && !begin(g))
		return status == 206 ? 0 : n;
	if (status >= 300)
		return n;
	if (n > g->most - g->body->len) {
		prep_fail(g->err, PREP_EDAMAGED, "%s: more than %llu bytes: too large for an index", g->url,
			  (unsigned long long)g->most);
		return 0;
	}
	if (g->body->len + n > g->room) {
		const size_t room = (size_t)prep_min(prep_max(g->body->len + n, g->room * 2 + 65536), g->most);
		uint8_t *grown = realloc(g->body->data, room);

		if (grown == NULL) {
			prep_fail_nomem(g->err);
			return 0;
		}
		g->body->data = grown;
		g->room = room;
	}
	memcpy(g->body->data + g->body->len, p, n);
	g->body->len += n;
	return n;
}

static int report(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up)
{
	struct get *g = arg;

	(void)up_total;
	(void)up;
	return prep_progress(g->progress, "fetching the index", (uint64_t)now, (uint64_t)total, g->err) < 0;
}

/* One request, for what is still missing. */
static enum prep_http_outcome request(struct get *g, const struct prep_http_version *known,
				      struct prep_err *why)
{
	struct curl_slist *headers = NULL;
	enum prep_http_outcome outcome;
	char line[300], range[32];
	CURLcode c;
	long status = 0, unmet = 0;

	g->begun = false;
	g->received = 0;
	curl_easy_cleanup(g->easy);
	g->easy = curl_easy_duphandle(g->prepared);
	if (g->easy == NULL) {
		prep_fail_nomem(g->err);
		return PREP_HTTP_NEVER;
	}
	if (g->body->len > 0) {
		snprintf(range, sizeof range, "%zu-", g->body->len);
		curl_easy_setopt(g->easy, CURLOPT_RANGE, range);
	} else if (known != NULL && known->etag[0] != '\0') {
		snprintf(line, sizeof line, "If-None-Match: %s", known->etag);
		headers = curl_slist_append(headers, line);
	}
	curl_easy_setopt(g->easy, CURLOPT_HTTPHEADER, headers);
	c = curl_easy_perform(g->easy);
	curl_slist_free_all(headers);
	curl_easy_getinfo(g->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(g->easy, CURLINFO_CONDITION_UNMET, &unmet);
	if (c == CURLE_OK && status == 304 && known != NULL && g->body->len == 0) {
		g->body->unchanged = true;
		return PREP_HTTP_GOOD;
	}
	/* The rest of something else. */
	if (g->begun && status == 206 && g->body->len == 0) {
		prep_fail(why, PREP_EFAIL, "%s: changed while it was being fetched", g->url);
		return PREP_HTTP_AGAIN;
	}
	outcome = prep_http_judge(g->easy, c, g->url, why);
	if (outcome == PREP_HTTP_NEVER && status == 416 && g->body->len > 0) {
		g->body->len = 0;
		return PREP_HTTP_AGAIN;
	}
	return outcome;
}

static int sleep_ms(struct get *g, unsigned ms)
{
	/* In steps, so that an interruption is seen. */
	for (; ms > 0; ms -= (unsigned)prep_min(ms, 100)) {
		nanosleep(&(struct timespec){ .tv_nsec = (long)prep_min(ms, 100) * 1000000 }, NULL);
		if (prep_progress(g->progress, "waiting for the server", 0, 0, g->err) < 0)
			return -1;
	}
	return 0;
}

static int get(struct get *g, const struct prep_http_how *how, const struct prep_http_version *known,
	       struct prep_http_count *count)
{
	const unsigned retries = how->retries != 0 ? how->retries : PREP_HTTP_RETRIES;
	size_t reached = 0;
	unsigned failures = 0;

	if (prep_http_prepare(g->prepared, g->url, how, g->err) < 0)
		return -1;
	curl_easy_setopt(g->prepared, CURLOPT_WRITEFUNCTION, take);
	curl_easy_setopt(g->prepared, CURLOPT_WRITEDATA, g);
	curl_easy_setopt(g->prepared, CURLOPT_XFERINFOFUNCTION, report);
	curl_easy_setopt(g->prepared, CURLOPT_XFERINFODATA, g);
	curl_easy_setopt(g->prepared, CURLOPT_NOPROGRESS, 0L);
	for (;;) {
		struct prep_err why = PREP_ERR_INIT;
		const enum prep_http_outcome outcome = request(g, known, &why);

		count->requests++;
		count->bytes += g->received;
		if (g->err->code != PREP_DONE)
			return -1;
		if (outcome == PREP_HTTP_GOOD)
			return 0;
		failures = g->body->len > reached ? 0 : failures + 1;
		reached = prep_max(reached, g->body->len);
		if (outcome == PREP_HTTP_NEVER || failures > retries)
			return prep_fail(g->err, why.code, "%s", why.msg);
		count->retries++;
		/* As long as it gets further there is nothing to wait for. */
		if (failures > 0 && sleep_ms(g, prep_http_delay(g->easy, failures)) < 0)
			return -1;
	}
}

int prep_http_get(const char *url, const struct prep_http_how *how, uint64_t most,
		  const struct prep_http_version *known, struct prep_http_body *ret,
		  struct prep_http_count *count, const struct prep_progress *progress,
		  struct prep_err *err)
{
	struct get g = {
		.prepared = curl_easy_init(), .url = url, .most = most, .body = ret, .progress = progress, .err = err,
	};
	int r;

	*ret = (struct prep_http_body){ .data = NULL };
	if (g.prepared == NULL)
		return prep_fail_nomem(err);
	r = get(&g, how, known, count);
	curl_easy_cleanup(g.easy);
	curl_easy_cleanup(g.prepared);
	if (r < 0) {
		free(ret->data);
		ret->data = NULL;
	}
	return r;
}
