/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * badserver: a small HTTP server that serves a folder and does it badly, in one
 * of the ways that servers, proxies and lines have.
 *
 * It listens on a free port of the loopback interface, prints its number, and
 * serves until it is killed. What is wrong applies to requests for names that
 * end in --only's text (default: ".ckm").
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
"Usage: badserver [OPTION]... DIR\n"
"      --only TEXT      what is wrong is so for names that end in TEXT\n"
"      --times N        ... for the first N requests alone\n"
"      --log FILE       a line for each request: name, range, status, bytes sent\n"
"      --no-range       answer a range with the whole\n"
"      --cut N          reset each connection after N bytes of a body\n"
"      --short N        end each body N bytes too early, cleanly\n"
"      --length N       a Content-Length that is N too large (may be negative)\n"
"      --shift N        give a range that begins N bytes later than asked for\n"
"      --total N        a Content-Range whose total is N too large\n"
"      --flip N         flip a bit of the first N bodies\n"
"      --status CODE    answer with CODE\n"
"      --retry-after S  with such an answer\n"
"      --swap DIR       serve from DIR once --after bytes of bodies were sent\n"
"      --after N        (default 0)\n"
"      --etags N        an ETag that is another one at each N-th request\n"
"      --no-etag        neither ETag nor Last-Modified\n"
"      --endless        bodies that do not end\n"
"      --hang           accept, and say nothing\n"
"      --rate N         bytes a second, for each connection\n"
"      --digest USER:PASSWORD  ask everyone for these, by the scheme Digest\n"
"      --ntlm USER:PASSWORD    ... by NTLM, which is for a connection\n"
"      --offer SCHEME   ask everyone by SCHEME, and let nobody in\n";

enum {
	OPT_ONLY = 256, OPT_LOG, OPT_NO_RANGE, OPT_CUT, OPT_SHORT, OPT_LENGTH, OPT_SHIFT, OPT_TOTAL, OPT_FLIP, OPT_STATUS,
	OPT_TIMES, OPT_RETRY_AFTER, OPT_SWAP, OPT_AFTER, OPT_ETAGS, OPT_NO_ETAG, OPT_ENDLESS, OPT_HANG, OPT_RATE,
	OPT_DIGEST, OPT_NTLM, OPT_OFFER,
};

static struct {
	const char *dir, *only, *swap, *digest, *ntlm, *offer;
	FILE *log;
	bool no_range, no_etag, endless, hang;
	long long cut, cut_short, length, shift, total, after, rate;
	long status, times, retry_after, etags;
	atomic_long flips, requests;
	atomic_llong sent;
} how = { .only = ".ckm", .cut = -1, .times = 1000000000 };

/* A request, as far as it is looked at. */
struct request {
	char method[8], path[512], range_text[128];
	long long from, to; /* of the range; from -1: none */
	char if_none_match[256], authorization[2048];
	bool close;
};

/* What is remembered of a connection. */
struct link {
	int fd;
	bool known; /* by NTLM */
};

static bool read_request(int fd, struct request *r)
{
	char buf[8192], *line, *rest = buf;
	size_t len = 0;

	*r = (struct request){ .from = -1, .to = -1 };
	while (len < sizeof buf - 1) {
		const ssize_t n = recv(fd, buf + len, 1, 0);

		if (n <= 0)
			return false;
		len++;
		buf[len] = '\0';
		if (len >= 4 && strcmp(buf + len - 4, "\r\n\r\n") == 0)
			break;
	}
	line = strsep(&rest, "\n");
	if (line == NULL || sscanf(line, "%7s /%511[^ ?]", r->method, r->path) != 2)
		return false;
	while ((line = strsep(&rest, "\n")) != NULL) {
		if (strncasecmp(line, "Range:", 6) == 0) {
			sscanf(line, "%*[^:]: bytes=%127[0-9-]", r->range_text);
			sscanf(r->range_text, "%lld-%lld", &r->from, &r->to);
		} else if (strncasecmp(line, "If-None-Match:", 14) == 0) {
			sscanf(line, "%*[^:]: %255[^\r\n]", r->if_none_match);
		} else if (strncasecmp(line, "Authorization:", 14) == 0) {
			sscanf(line, "%*[^:]: %2047[^\r\n]", r->authorization);
		} else if (strncasecmp(line, "Connection: close", 17) == 0) {
			r->close = true;
		}
	}
	return true;
}

static bool send_all(int fd, const char *p, size_t len)
{
	while (len > 0) {
		const ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static void reset(int fd)
{
	const struct linger now = { 1, 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

static void log_request(const struct request *r, long status, long long sent)
{
	if (how.log != NULL)
		fprintf(how.log, "%s %s %ld %lld\n", r->path, r->range_text[0] != '\0' ? r->range_text : "-", status, sent);
}

/* len bytes of the file from `from` on. False: the connection is to be closed. */
static bool send_body(int fd, int file, long long from, long long len, bool bad, long long *sent)
{
	bool flip = bad && atomic_load(&how.flips) > 0 && atomic_fetch_sub(&how.flips, 1) > 0;
	char buf[16384];

	while (*sent < len || (bad && how.endless)) {
		long long n = (long long)sizeof buf;

		if (!(bad && how.endless) && n > len - *sent)
			n = len - *sent;
		if (bad && how.cut >= 0 && n > how.cut - *sent)
			n = how.cut - *sent;
		if (n == 0) {
			/* let what was sent arrive, then break */
			usleep(50000);
			reset(fd);
			return false;
		}
		memset(buf, 'x', sizeof buf);
		if (pread(file, buf, (size_t)n, from + *sent) < 0)
			return false;
		if (flip) {
			buf[n / 2] ^= 1;
			flip = false;
		}
		if (!send_all(fd, buf, (size_t)n))
			return false;
		*sent += n;
		atomic_fetch_add(&how.sent, n);
		if (bad && how.rate > 0)
			usleep((useconds_t)(n * 1000000 / how.rate));
	}
	return true;
}

/* ---- Who are you? ---- */

/* MD5 of text, in hexadecimal digits. */
static void md5(const char *text, char ret[33])
{
	uint8_t sum[EVP_MAX_MD_SIZE];

	EVP_Digest(text, strlen(text), sum, NULL, EVP_md5(), NULL);
	for (int i = 0; i < 16; i++)
		sprintf(ret + 2 * i, "%02x", sum[i]);
}

/* A field of a Digest response, quoted or not. */
static void field(const char *text, const char *name, char ret[256])
{
	const size_t len = strlen(name);

	ret[0] = '\0';
	for (const char *p = text; (p = strstr(p, name)) != NULL; p += len) {
		if ((p[-1] == ' ' || p[-1] == ',') && p[len] == '=') {
			sscanf(p + len + 1, p[len + 1] == '"' ? "\"%255[^\"]" : "%255[^, ]", ret);
			return;
		}
	}
}

/* RFC 7616, 3.4.1. */
static bool digest_knows(const struct request *r)
{
	char user[256], nonce[256], uri[256], nc[256], cnonce[256], response[256];
	char text[2048], who[33], what[33], expected[33];
	const size_t len = strcspn(how.digest, ":");

	if (strncmp(r->authorization, "Digest ", 7) != 0)
		return false;
	field(r->authorization, "username", user);
	field(r->authorization, "nonce", nonce);
	field(r->authorization, "uri", uri);
	field(r->authorization, "nc", nc);
	field(r->authorization, "cnonce", cnonce);
	field(r->authorization, "response", response);
	snprintf(text, sizeof text, "%s:here:%s", user, how.digest + len + 1);
	md5(text, who);
	snprintf(text, sizeof text, "%s:%s", r->method, uri);
	md5(text, what);
	snprintf(text, sizeof text, "%s:%s:%s:%s:auth:%s", who, nonce, nc, cnonce, what);
	md5(text, expected);
	return strlen(user) == len && strncmp(user, how.digest, len) == 0 && strcmp(nonce, "once") == 0 &&
	       strcmp(uri + 1, r->path) == 0 && strcmp(response, expected) == 0;
}

/* ASCII as UTF-16LE. */
static size_t utf16(const char *text, size_t len, bool upper, uint8_t *ret)
{
	for (size_t i = 0; i < len; i++) {
		ret[2 * i] = (uint8_t)(upper ? toupper((unsigned char)text[i]) : text[i]);
		ret[2 * i + 1] = 0;
	}
	return 2 * len;
}

#define CHALLENGE "\1\2\3\4\5\6\7\10"

/* [MS-NLMP] 2.2.1.3, AUTHENTICATE_MESSAGE; 3.3.2, NTLM v2. */
static bool ntlm_proves(const uint8_t *m, size_t len)
{
	const size_t name = strcspn(how.ntlm, ":"), password = strlen(how.ntlm) - name - 1;
	uint8_t text[2048], key[EVP_MAX_MD_SIZE], hash[EVP_MAX_MD_SIZE], proof[EVP_MAX_MD_SIZE];
	size_t nt_len, nt_off, domain_len, domain_off, n;

	if (len < 64)
		return false;
	nt_len = m[20] | (size_t)m[21] << 8;
	nt_off = m[24] | (size_t)m[25] << 8;
	domain_len = m[28] | (size_t)m[29] << 8;
	domain_off = m[32] | (size_t)m[33] << 8;
	if (nt_len < 24 || nt_off + nt_len > len || domain_off + domain_len > len || domain_len > 512)
		return false;
	n = utf16(how.ntlm + name + 1, password, false, text);
	if (EVP_Digest(text, n, key, NULL, EVP_md4(), NULL) != 1)
		return false;
	n = utf16(how.ntlm, name, true, text);
	memcpy(text + n, m + domain_off, domain_len);
	HMAC(EVP_md5(), key, 16, text, n + domain_len, hash, NULL);
	memcpy(text, CHALLENGE, 8);
	memcpy(text + 8, m + nt_off + 16, nt_len - 16);
	HMAC(EVP_md5(), hash, 16, text, nt_len - 8, proof, NULL);
	return memcmp(proof, m + nt_off, 16) == 0;
}

/* One step of NTLM. True: known now. `ask`: what to ask by. */
static bool ntlm_step(const struct request *r, char ask[256])
{
	/* [MS-NLMP] 2.2.1.2, CHALLENGE_MESSAGE: flags for Unicode, NTLM in its second version, target info (but its end). */
	static const uint8_t challenge[52] = "NTLMSSP\0\2\0\0\0\0\0\0\0\60\0\0\0\1\2\210\0" CHALLENGE
					     "\0\0\0\0\0\0\0\0\4\0\4\0\60\0\0\0\0\0\0";
	uint8_t m[1600];
	const size_t len = strlen(r->authorization);
	int n;

	strcpy(ask, "NTLM");
	if (strncmp(r->authorization, "NTLM ", 5) != 0)
		return false;
	n = EVP_DecodeBlock(m, (const uint8_t *)r->authorization + 5, (int)len - 5);
	if (n > 12 && m[8] == 1)
		EVP_EncodeBlock((uint8_t *)strcpy(ask, "NTLM ") + 5, challenge, sizeof challenge);
	return n > 12 && m[8] == 3 && ntlm_proves(m, (size_t)n);
}

/* Whether the request may be answered; if not, it has been told by what to say who it is. */
static bool allowed(struct link *link, const struct request *r)
{
	char ask[256] = "", head[512];

	if (how.digest != NULL && !digest_knows(r))
		strcpy(ask, "Digest realm=\"here\", qop=\"auth\", nonce=\"once\"");
	if (how.ntlm != NULL && !link->known && ntlm_step(r, ask)) {
		ask[0] = '\0';
		link->known = true;
	}
	if (how.ntlm != NULL && link->known)
		ask[0] = '\0';
	if (how.offer != NULL)
		snprintf(ask, sizeof ask, "%s", how.offer);
	if (ask[0] == '\0')
		return true;
	snprintf(head, sizeof head, "HTTP/1.1 401 Who?\r\nWWW-Authenticate: %s\r\nContent-Length: 3\r\n\r\nno\n", ask);
	log_request(r, 401, 0);
	send_all(link->fd, head, strlen(head));
	return false;
}

static bool answer(int fd, const struct request *r)
{
	const size_t only = strlen(how.only), path_len = strlen(r->path);
	const bool meant = path_len >= only && strcmp(r->path + path_len - only, how.only) == 0;
	const long number = meant ? atomic_fetch_add(&how.requests, 1) : 0;
	const bool bad = meant && number < how.times;
	long long from = 0, len, sent = 0, told;
	char path[1100], head[1024], etag[64];
	long status = 200;
	struct stat st;
	int file;
	bool on;

	if (bad && how.hang) {
		pause();
		return false;
	}
	if (bad && how.status != 0) {
		snprintf(head, sizeof head, "HTTP/1.1 %ld No\r\nContent-Length: 3\r\n%s%ld\r\n\r\nno\n", how.status,
			 how.retry_after > 0 ? "Retry-After: " : "X-Nothing: ", how.retry_after);
		log_request(r, how.status, 0);
		return send_all(fd, head, strlen(head));
	}
	snprintf(path, sizeof path, "%s/%s", how.swap != NULL && atomic_load(&how.sent) >= how.after ? how.swap : how.dir,
		 r->path);
	file = open(path, O_RDONLY);
	if (file < 0 || fstat(file, &st) != 0 || !S_ISREG(st.st_mode)) {
		if (file >= 0)
			close(file);
		log_request(r, 404, 0);
		snprintf(head, sizeof head, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
		return send_all(fd, head, strlen(head));
	}
	snprintf(etag, sizeof etag, "\"%llx-%llx-%lx\"", (unsigned long long)st.st_mtim.tv_nsec,
		 (unsigned long long)st.st_size, bad && how.etags > 0 ? number / how.etags : 0);
	if (!how.no_etag && strcmp(r->if_none_match, etag) == 0) {
		close(file);
		log_request(r, 304, 0);
		snprintf(head, sizeof head, "HTTP/1.1 304 Not Modified\r\nETag: %s\r\n\r\n", etag);
		return send_all(fd, head, strlen(head));
	}
	len = st.st_size;
	if (r->from >= 0 && !(bad && how.no_range)) {
		from = r->from;
		len = (r->to >= 0 && r->to < st.st_size ? r->to + 1 : st.st_size) - from;
		status = len > 0 ? 206 : 416;
	}
	if (bad && status == 206)
		from += how.shift;
	told = status == 416 ? 0 : len + (bad ? how.length : 0);
	snprintf(head, sizeof head, "HTTP/1.1 %ld OK\r\n", status);
	if (!(bad && how.endless))
		snprintf(head + strlen(head), 100, "Content-Length: %lld\r\n", told);
	if (status == 206)
		snprintf(head + strlen(head), 200, "Content-Range: bytes %lld-%lld/%lld\r\n", from, from + len - 1,
			 (long long)st.st_size + (bad ? how.total : 0));
	if (!how.no_etag)
		snprintf(head + strlen(head), 200, "ETag: %s\r\n", etag);
	strcat(head, "\r\n");
	on = send_all(fd, head, strlen(head));
	if (on && status != 416 && strcmp(r->method, "HEAD") != 0)
		on = send_body(fd, file, from, len - (bad ? how.cut_short : 0), bad, &sent);
	close(file);
	log_request(r, status, sent);
	return on && !(bad && (how.cut_short != 0 || how.length != 0));
}

static void *serve(void *arg)
{
	struct link link = { .fd = (int)(intptr_t)arg };
	struct request r;

	while (read_request(link.fd, &r) && (!allowed(&link, &r) || answer(link.fd, &r)) && !r.close)
		;
	close(link.fd);
	return NULL;
}

static void parse(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "only", 1, NULL, OPT_ONLY }, { "log", 1, NULL, OPT_LOG }, { "no-range", 0, NULL, OPT_NO_RANGE },
		{ "cut", 1, NULL, OPT_CUT }, { "short", 1, NULL, OPT_SHORT }, { "length", 1, NULL, OPT_LENGTH },
		{ "shift", 1, NULL, OPT_SHIFT }, { "total", 1, NULL, OPT_TOTAL }, { "flip", 1, NULL, OPT_FLIP },
		{ "status", 1, NULL, OPT_STATUS }, { "times", 1, NULL, OPT_TIMES },
		{ "retry-after", 1, NULL, OPT_RETRY_AFTER }, { "swap", 1, NULL, OPT_SWAP },
		{ "after", 1, NULL, OPT_AFTER }, { "etags", 1, NULL, OPT_ETAGS }, { "no-etag", 0, NULL, OPT_NO_ETAG },
		{ "endless", 0, NULL, OPT_ENDLESS }, { "hang", 0, NULL, OPT_HANG }, { "rate", 1, NULL, OPT_RATE },
		{ "digest", 1, NULL, OPT_DIGEST }, { "ntlm", 1, NULL, OPT_NTLM }, { "offer", 1, NULL, OPT_OFFER },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		const long long n = optarg != NULL ? atoll(optarg) : 0;

		switch (c) {
		case OPT_ONLY: how.only = optarg; break;
		case OPT_LOG: how.log = fopen(optarg, "a"); break;
		case OPT_NO_RANGE: how.no_range = true; break;
		case OPT_CUT: how.cut = n; break;
		case OPT_SHORT: how.cut_short = n; break;
		case OPT_LENGTH: how.length = n; break;
		case OPT_SHIFT: how.shift = n; break;
		case OPT_TOTAL: how.total = n; break;
		case OPT_FLIP: how.flips = (long)n; break;
		case OPT_STATUS: how.status = (long)n; break;
		case OPT_TIMES: how.times = (long)n; break;
		case OPT_RETRY_AFTER: how.retry_after = (long)n; break;
		case OPT_SWAP: how.swap = optarg; break;
		case OPT_AFTER: how.after = n; break;
		case OPT_ETAGS: how.etags = (long)n; break;
		case OPT_NO_ETAG: how.no_etag = true; break;
		case OPT_ENDLESS: how.endless = true; break;
		case OPT_HANG: how.hang = true; break;
		case OPT_RATE: how.rate = n; break;
		case OPT_DIGEST: how.digest = optarg; break;
		case OPT_NTLM: how.ntlm = optarg; break;
		case OPT_OFFER: how.offer = optarg; break;
		default: fputs(usage, stderr); exit(2);
		}
	}
	if (optind + 1 != argc) {
		fputs(usage, stderr);
		exit(2);
	}
	how.dir = argv[optind];
	if (how.log != NULL)
		setvbuf(how.log, NULL, _IOLBF, 0);
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int buffer = 16384; /* what the log has as sent has been taken, or nearly so */
	socklen_t len = sizeof at;
	int fd;

	parse(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	/* NTLM's MD4 is where OpenSSL keeps what should not be used. */
	if (how.ntlm != NULL && (OSSL_PROVIDER_load(NULL, "legacy") == NULL || OSSL_PROVIDER_load(NULL, "default") == NULL)) {
		fputs("badserver: no MD4 here\n", stderr);
		return 1;
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer) != 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 64) != 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
		perror("badserver");
		return 1;
	}
	printf("%u\n", ntohs(at.sin_port));
	fflush(stdout);
	for (;;) {
		pthread_t thread;
		const int c = accept(fd, NULL, NULL);

		if (c < 0 && errno != EINTR && errno != ECONNABORTED)
			break;
		if (c < 0)
			continue;
		if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)c) == 0)
			pthread_detach(thread);
		else
			close(c);
	}
	return 1;
}
