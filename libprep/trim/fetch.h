/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Fetch: the image of a package on a web server, of which only what no seed
 * has is downloaded. Trim Transfer.
 *
 * First the index (URL.index), then a plan, then the rest. What a run leaves
 * unfinished is in OUT.part (partial.h), and the next run goes on with it.
 */
#ifndef PREP_TRIM_FETCH_H
#define PREP_TRIM_FETCH_H

#include "libprep/trim/download.h"
#include "libprep/trim/http.h"
#include "libprep/trim/restore.h"

struct prep_fetch;

struct prep_fetch_report {
	struct prep_restore_report restored;
	struct prep_http_count count;  /* the index included */
	uint64_t index_bytes;          /* of those, for the index */
	unsigned restarts;             /* the package changed on the server */
};

/*
 * Fetch the index of the package at url and open it. out: the image that is to
 * be made, whose unfinished part is used and locked; NULL for a dry run. The structs and strings
 * that are passed must outlive it.
 * PREP_EFAIL where the server or the line fails; as prep_ckm_open; PREP_EREFUSED when
 * another process is fetching to `out`.
 */
int prep_fetch_open(const char *url, const struct prep_http_how *http,
		    const struct prep_ckm_access *access, const char *out, struct prep_fetch **ret,
		    const struct prep_progress *progress, struct prep_err *err);
void prep_fetch_close(struct prep_fetch *f); /* NULL is allowed */

/* The opened index; until prep_fetch_run. */
struct prep_ckm *prep_fetch_package(const struct prep_fetch *f);

struct prep_fetch_how {
	struct prep_seed *const *seed;
	size_t seeds;
	bool replace;                /* an existing image is replaced, when the new one is complete */
	int format;                  /* enum prep_format; -1: that of the packed image */
	unsigned jobs;
	const char *cache;           /* folder that keeps local indexes: that of the new image too; or NULL */
};

/*
 * Make the image. supply: made by prep_supply_new for the opened index; the
 * seeds' catalogs are added to it here, and when the package changes on the
 * server, it becomes that for the new one. how_it_is tells the format that was made.
 */
int prep_fetch_run(struct prep_fetch *f, const struct prep_fetch_how *how, struct prep_supply *supply,
		   struct prep_export *how_it_is, struct prep_fetch_report *report,
		   const struct prep_progress *progress, struct prep_err *err);

/* What is to be fetched by a supply that is made, were nothing there: ranges and bytes. */
int prep_fetch_estimate(const struct prep_supply *supply, uint32_t *ranges, uint64_t *bytes,
			struct prep_err *err);

#endif
