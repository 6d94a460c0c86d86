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
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
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
"      --rate N         bytes a second, for each connection\n";

enum {
	OPT_ONLY = 256, OPT_LOG, OPT_NO_RANGE, OPT_CUT, OPT_SHORT, OPT_LENGTH, OPT_SHIFT, OPT_TOTAL, OPT_FLIP, OPT_STATUS,
	OPT_TIMES, OPT_RETRY_AFTER, OPT_SWAP, OPT_AFTER, OPT_ETAGS, OPT_NO_ETAG, OPT_ENDLESS, OPT_HANG, OPT_RATE,
};

static struct {
	const char *dir, *only, *swap;
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
	char if_none_match[256];
	bool close;
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
	const int fd = (int)(intptr_t)arg;
	struct request r;

	while (read_request(fd, &r) && answer(fd, &r) && !r.close)
		;
	close(fd);
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
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof at;

	parse(argc, argv);
	signal(SIGPIPE, SIG_IGN);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 64) != 0 ||
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
