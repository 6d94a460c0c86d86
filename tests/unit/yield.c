/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Giving way: the rule by which a background transfer slows down and recovers,
 * and the URLs and answers of HTTP that need no server.
 */
#include "libprep/trim/yield.h"

#include "libprep/trim/http.h"
#include "tests/unit/check.h"

static struct prep_err err;

#define MB 1000000u

static void alone(void)
{
	CHECK_EQ(prep_yield_next(0, 10 * MB, 10 * MB, 0), 0);
	/* a little of others' is no reason */
	CHECK_EQ(prep_yield_next(0, 10 * MB, 10 * MB, 100000), 0);
	CHECK_EQ(prep_yield_next(0, 0, 0, 0), 0);
}

static void others(void)
{
	uint64_t limit = 0;
	unsigned steps = 0;

	/* half of what it has, again and again, and never nothing */
	CHECK_EQ(prep_yield_next(0, 10 * MB, 6 * MB, 4 * MB), 3 * MB);
	for (; limit != PREP_YIELD_TRICKLE && steps < 100; steps++) {
		const uint64_t own = limit == 0 ? 5 * MB : limit;
		const uint64_t next = prep_yield_next(limit, 10 * MB, own, 10 * MB - own);

		CHECK(next < own || next == PREP_YIELD_TRICKLE);
		limit = next;
	}
	CHECK(steps < 10);
	CHECK_EQ(prep_yield_next(limit, 10 * MB, limit, 10 * MB), PREP_YIELD_TRICKLE);
	/* when they have gone it soon has all again */
	for (steps = 0; limit != 0 && steps < 100; steps++)
		limit = prep_yield_next(limit, 10 * MB, limit, 0);
	CHECK(steps < 12);
}

/* No counter: nothing is known of others. */
static void blind(void)
{
	struct prep_yield y = { .at = 0 };

	CHECK_EQ(prep_yield_step(&y, 0, 1000), 0);
	prep_yield_watch(&y, "192.0.2.1");
	CHECK_STR(y.counter, "");
	prep_yield_watch(&y, "127.0.0.1");
	if (access("/sys/class/net/lo/statistics/rx_bytes", R_OK) != 0)
		CHECK_SKIP("no /sys/class/net");
	CHECK_STR(y.counter, "/sys/class/net/lo/statistics/rx_bytes");
	CHECK_EQ(prep_yield_step(&y, 0, 1000), 0);
}

static void urls(void)
{
	static const char *const bad[] = {
		"", "x.ckm", "/x.ckm", "ftp://h/x.ckm", "http://h/", "http://h", "http://u:p@h/x.ckm", "gopher://h/x", "http://",
	};
	char *index;

	CHECK_DONE(prep_http_check_url("http://h/x.ckm", &err));
	CHECK_DONE(prep_http_check_url("https://u@h:1234/a/b/x.ckm?q=1", &err));
	CHECK_DONE(prep_http_check_url("file:///a/x.ckm", &err));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		err = (struct prep_err)PREP_ERR_INIT;
		if (prep_http_check_url(bad[i], &err) == 0 || err.code != PREP_EUSAGE)
			CHECK_FAIL("%s: code %d", bad[i], (int)err.code);
	}
	CHECK_DONE(prep_http_local_path("http://h/a/x.ckm", &index, &err));
	CHECK(index == NULL);
	CHECK_DONE(prep_http_local_path("/a/x.ckm", &index, &err));
	CHECK(index == NULL);
	CHECK_DONE(prep_http_local_path("file:///a%20b/x.ckm", &index, &err));
	CHECK_STR(index, "/a b/x.ckm");
	free(index);
	CHECK_DONE(prep_http_index_url("http://h/a%20b/x.ckm?sig=1&b=2", &index, &err));
	CHECK_STR(index, "http://h/a%20b/x.ckm.index?sig=1&b=2");
	free(index);
}

static void versions(void)
{
	const struct prep_http_version a = { "\"1\"", "Mon" }, b = { "\"2\"", "Mon" }, c = { "", "Mon" }, d = { "", "Tue" },
				       none = { "", "" };

	CHECK(!prep_http_version_differs(&a, &a));
	CHECK(prep_http_version_differs(&a, &b));
	CHECK(!prep_http_version_differs(&a, &c));
	CHECK(prep_http_version_differs(&a, &d));
	CHECK(!prep_http_version_differs(&a, &none));
}

int main(void)
{
	RUN(alone);
	RUN(others);
	RUN(blind);
	RUN(urls);
	RUN(versions);
	return check_result();
}
