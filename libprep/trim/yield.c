/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/trim/yield.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "libprep/base/bytes.h"

static bool has_address(const struct ifaddrs *i, const char *address)
{
	uint8_t wanted[16];

	if (i->ifa_addr == NULL || strchr(i->ifa_name, '/') != NULL)
		return false;
	if (i->ifa_addr->sa_family == AF_INET)
		return inet_pton(AF_INET, address, wanted) == 1 &&
		       memcmp(&((const struct sockaddr_in *)i->ifa_addr)->sin_addr, wanted, 4) == 0;
	return i->ifa_addr->sa_family == AF_INET6 && inet_pton(AF_INET6, address, wanted) == 1 &&
	       memcmp(&((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr, wanted, 16) == 0;
}

void prep_yield_watch(struct prep_yield *y, const char *address)
{
	struct ifaddrs *all;

	if (getifaddrs(&all) != 0)
		return;
	for (const struct ifaddrs *i = all; i != NULL; i = i->ifa_next)
		if (has_address(i, address))
			snprintf(y->counter, sizeof y->counter, "/sys/class/net/%.*s/statistics/rx_bytes",
				 (int)strcspn(i->ifa_name, ":"), i->ifa_name); /* "eth0:1" is a label of an address of eth0 */
	freeifaddrs(all);
}

static bool read_counter(const char *path, uint64_t *ret)
{
	FILE *f = path[0] != '\0' ? fopen(path, "re") : NULL;
	unsigned long long n;
	bool ok = false;

	if (f != NULL) {
		ok = fscanf(f, "%llu", &n) == 1;
		*ret = ok ? n : 0;
		fclose(f);
	}
	return ok;
}

uint64_t prep_yield_next(uint64_t limit, uint64_t fastest, uint64_t own_rate, uint64_t other_rate)
{
	/* A link is busy when others get a sixteenth of what it is known to carry. */
	const uint64_t busy = prep_max(fastest / 16, PREP_YIELD_TRICKLE);

	if (other_rate > busy)
		return prep_max((limit != 0 ? prep_min(limit, prep_max(own_rate, PREP_YIELD_TRICKLE)) : own_rate) / 2,
				PREP_YIELD_TRICKLE);
	if (limit == 0)
		return 0;
	limit *= 2;
	return limit > fastest ? 0 : limit;
}

uint64_t prep_yield_step(struct prep_yield *y, uint64_t own, uint64_t now)
{
	const uint64_t ms = now - y->at;
	uint64_t total, own_rate, all_rate;

	if (!read_counter(y->counter, &total))
		return y->limit;
	if (y->at != 0 && ms > 0 && total >= y->total) {
		/* What the interface counts beyond the bodies: headers, acknowledgements, TLS. */
		own_rate = (own - y->own) * 1000 / ms;
		all_rate = (total - y->total) * 1000 / ms;
		y->fastest = prep_max(y->fastest, all_rate);
		y->limit = prep_yield_next(y->limit, y->fastest, own_rate,
					   all_rate > own_rate + own_rate / 8 ? all_rate - own_rate - own_rate / 8 : 0);
	}
	y->total = total;
	y->own = own;
	y->at = now;
	return y->limit;
}
