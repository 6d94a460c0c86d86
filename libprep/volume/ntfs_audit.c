/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The audit: one pass over the MFT as it stands on disk, each record taken
 * once. Needs 5 bytes a record and 2 bits a cluster.
 */
#include "libprep/volume/ntfs_audit.h"

#include <stdio.h>
#include <stdlib.h>

#include "libprep/base/bytes.h"

/* Claims of so many times the volume are counted without looking: it is beyond hope, and time counts. */
#define CLAIMS_MAX 16

/* ---- Notes ---- */

bool prep_ntfs_note_due(struct prep_ntfs_auditor *x, enum prep_ntfs_problem problem)
{
	return x->noted[problem] < PREP_NTFS_NOTES_EACH && ++x->noted[problem] > 0;
}

/* " (path)" of a record, or nothing where it has none. */
static int path_of(struct prep_ntfs_auditor *x, uint64_t number, char *out, size_t room,
		   struct prep_err *err)
{
	struct prep_err damage = PREP_ERR_INIT;
	struct prep_ntfs_name name;
	struct prep_ntfs_file f;
	const char *path;
	int r = 0;

	out[0] = '\0';
	if (prep_ntfs_file_load(&x->mft, number, &f, &damage) < 0)
		return damage.code == PREP_EDAMAGED ? 0 : prep_fail(err, damage.code, "%s", damage.msg);
	if (prep_ntfs_file_name(&f, &name)) {
		r = prep_ntfs_tree_path(&x->tree, &name, &path, err);
		if (r == 0)
			snprintf(out, room, " (%s)", path);
	}
	prep_ntfs_file_clear(&f);
	return r;
}

int prep_ntfs_note_record(struct prep_ntfs_auditor *x, enum prep_ntfs_problem problem,
			  uint64_t number, const char *what, struct prep_err *err)
{
	char path[512];

	if (!prep_ntfs_note_due(x, problem))
		return 0;
	if (path_of(x, number, path, sizeof path, err) < 0)
		return -1;
	prep_note(&x->a->problems, "%s: record %llu: %s%s", x->n->disk->name,
		  (unsigned long long)number, what, path);
	return 0;
}

/* Count a damaged record, whose damage is told by an error. Other errors pass on. */
static int unreadable(struct prep_ntfs_auditor *x, const struct prep_err *damage, struct prep_err *err)
{
	if (damage->code != PREP_EDAMAGED)
		return prep_fail(err, damage->code, "%s", damage->msg);
	x->a->unreadable++;
	if (prep_ntfs_note_due(x, PREP_NTFS_P_UNREADABLE))
		prep_note(&x->a->problems, "%s", damage->msg);
	return 0;
}

static void want(struct prep_ntfs_auditor *x, enum prep_ntfs_problem problem, uint64_t lcn,
		 uint64_t second)
{
	if (prep_ntfs_note_due(x, problem))
		x->wanted[x->wanted_n++] = (struct prep_ntfs_wanted){ problem, lcn, UINT64_MAX, second };
}

/* ---- Clusters ---- */

static void add_saturated(uint64_t *sum, uint64_t v)
{
	if (__builtin_add_overflow(*sum, v, sum))
		*sum = UINT64_MAX;
}

/* The bits of [lcn, end) that are in the word at lcn. */
static uint64_t mask_of(uint64_t lcn, uint64_t end)
{
	const uint64_t mask = ~(uint64_t)0 << (lcn & 63);

	return (lcn | 63) < end ? mask : mask & ~(~(uint64_t)0 << (end & 63));
}

static size_t map_size(uint64_t clusters)
{
	return (size_t)((clusters + 63) / 64 * 8);
}

/* Some of the clusters in `bits`, of the word that begins at lcn, were claimed before. */
static int claim_again(struct prep_ntfs_auditor *x, uint64_t lcn, uint64_t bits, struct prep_err *err)
{
	uint64_t before;

	if (x->twice == NULL) {
		x->twice = calloc(1, map_size(x->n->clusters));
		if (x->twice == NULL)
			return prep_fail_nomem(err);
	}
	before = get_le64(x->twice + lcn / 8);
	add_saturated(&x->a->crosslinked, (uint64_t)__builtin_popcountll(bits & ~before));
	put_le64(x->twice + lcn / 8, before | bits);
	if (before == 0)
		want(x, PREP_NTFS_P_CROSSLINKED, lcn + (uint64_t)__builtin_ctzll(bits), x->number);
	return 0;
}

static int claim(struct prep_ntfs_auditor *x, uint64_t lcn, uint64_t len, struct prep_err *err)
{
	const uint64_t clusters = x->n->clusters;
	const uint64_t inside = lcn >= clusters ? 0 : prep_min(len, clusters - lcn), end = lcn + inside;
	char what[96];

	if (inside < len) {
		add_saturated(&x->a->outside, len - inside);
		snprintf(what, sizeof what, "it claims clusters %llu to %llu, outside the volume",
			 (unsigned long long)(lcn + inside), (unsigned long long)(lcn + len - 1));
		if (prep_ntfs_note_record(x, PREP_NTFS_P_OUTSIDE, x->number, what, err) < 0)
			return -1;
	}
	add_saturated(&x->claims, inside);
	if (x->claims / CLAIMS_MAX > clusters) {
		add_saturated(&x->a->crosslinked, inside);
		return 0;
	}
	for (uint64_t at = lcn; at < end; at = (at | 63) + 1) {
		uint8_t *const word = x->claimed + at / 64 * 8;
		const uint64_t mask = mask_of(at, end), before = get_le64(word);

		if ((before & mask) != 0 && claim_again(x, at & ~(uint64_t)63, before & mask, err) < 0)
			return -1;
		put_le64(word, before | mask);
	}
	return 0;
}

/* Every attribute of one record claims its clusters, whatever else is wrong with its file. */
static int claim_record(struct prep_ntfs_auditor *x, const struct prep_ntfs_record *r, bool *damaged,
			struct prep_err *err)
{
	struct prep_ntfs_attr a;
	struct prep_ntfs_run run;
	uint32_t at = 0;
	int more, runs;

	*damaged = false;
	while ((more = prep_ntfs_attr_next(r, &at, &a)) > 0) {
		if (a.resident)
			continue;
		while ((runs = prep_ntfs_pairs_next(&a.pairs, &run)) > 0) {
			if (run.lcn == PREP_NTFS_HOLE)
				continue;
			if (claim(x, run.lcn, run.len, err) < 0)
				return -1;
			if (r->number == PREP_NTFS_BADCLUS && prep_ntfs_attr_named(&a, "$Bad"))
				add_saturated(&x->a->bad, run.len);
		}
		*damaged |= runs < 0;
	}
	*damaged |= more < 0;
	return 0;
}

/* ---- Files ---- */

static int count_stream(void *arg, const struct prep_ntfs_attr *a, const struct prep_ntfs_runs *runs,
			struct prep_err *err)
{
	struct prep_ntfs_auditor *x = arg;
	uint64_t next = UINT64_MAX, fragments = 0;

	(void)err;
	if (a->type != PREP_NTFS_ATTR_DATA)
		return 0;
	for (size_t i = 0; i < runs->n; i++) {
		if (runs->run[i].lcn == PREP_NTFS_HOLE)
			continue;
		/* What follows a hole but stands right behind on the disk is no new fragment. */
		fragments += runs->run[i].lcn != next;
		next = runs->run[i].lcn + runs->run[i].len;
	}
	x->a->streams += fragments > 0;
	x->a->fragmented += fragments > 1;
	x->a->fragments += fragments;
	return 0;
}

static int audit_base(struct prep_ntfs_auditor *x, const struct prep_ntfs_record *r, struct prep_err *err)
{
	struct prep_err damage = PREP_ERR_INIT;
	struct prep_ntfs_file f;
	int ret;

	if (prep_ntfs_file_join(&x->mft, r, &f, &damage) < 0)
		return unreadable(x, &damage, err);
	for (size_t i = 1; i < f.n; i++)
		x->known[f.record[i].number] |= PREP_NTFS_R_LISTED;
	ret = prep_ntfs_file_streams(x->n, &f, count_stream, x, &damage);
	if (ret < 0)
		ret = unreadable(x, &damage, err);
	if (ret == 0)
		ret = prep_ntfs_audit_file(x, &f, err);
	prep_ntfs_file_clear(&f);
	return ret;
}

static int audit_used(struct prep_ntfs_auditor *x, const struct prep_ntfs_record *r, struct prep_err *err)
{
	bool damaged;

	x->a->records++;
	x->known[r->number] |= PREP_NTFS_R_USED | (r->base == 0 ? PREP_NTFS_R_BASE : 0);
	if (claim_record(x, r, &damaged, err) < 0)
		return -1;
	if (damaged) {
		x->a->unreadable++;
		return prep_ntfs_note_record(x, PREP_NTFS_P_UNREADABLE, r->number,
					     "its attributes are damaged", err);
	}
	return r->base == 0 ? audit_base(x, r, err) : 0;
}

/* Records 12 to 23 are reserved, and systems differ in what they say of them. */
static bool is_reserved(uint64_t number)
{
	return number > PREP_NTFS_EXTEND && number < PREP_NTFS_FIRST_USER;
}

/* Records of [from, to) are nothing that begins as a record does. */
static int audit_blank(struct prep_ntfs_auditor *x, uint64_t from, uint64_t to, struct prep_err *err)
{
	for (uint64_t i = from; (i = prep_bit_next(x->marked, i, to, true)) < to; i++) {
		if (is_reserved(i))
			continue;
		x->a->unreadable++;
		if (prep_ntfs_note_record(x, PREP_NTFS_P_UNREADABLE, i, "marked used, but it is no file record", err) < 0)
			return -1;
	}
	return 0;
}

static int audit_record(struct prep_ntfs_auditor *x, uint64_t number, uint8_t *p, struct prep_err *err)
{
	const bool marked = prep_bit_get(x->marked, number);
	struct prep_ntfs_record r;
	bool in_use;

	x->number = number;
	switch (prep_ntfs_record_check(p, x->n->record_size, number, &r, &in_use)) {
	case PREP_NTFS_USED:
		if (!marked) {
			x->a->record_bitmap++;
			x->a->records_unmarked++;
			if (prep_ntfs_note_record(x, PREP_NTFS_P_RECORD_BITMAP, number,
						  "in use, but marked free in $MFT's bitmap", err) < 0)
				return -1;
		}
		return audit_used(x, &r, err);
	case PREP_NTFS_TORN:
		if (!marked && !in_use)
			return 0;
		x->a->unreadable++;
		return prep_ntfs_note_record(x, PREP_NTFS_P_UNREADABLE, number, "it is torn or damaged", err);
	case PREP_NTFS_BLANK:
		return audit_blank(x, number, number + 1, err);
	case PREP_NTFS_FREE:
		break;
	}
	if (!marked || is_reserved(number))
		return 0;
	x->a->record_bitmap++;
	return prep_ntfs_note_record(x, PREP_NTFS_P_RECORD_BITMAP, number,
				     "free, but marked used in $MFT's bitmap", err);
}

static int audit_records(struct prep_ntfs_auditor *x, const struct prep_progress *progress,
			 struct prep_err *err)
{
	const uint64_t total = x->mft.records * x->n->record_size;
	uint64_t next;
	uint8_t *p;

	for (uint64_t i = 0;; i = next + 1) {
		if (prep_ntfs_mft_skip_holes(&x->mft, i, &next, err) < 0 || audit_blank(x, i, next, err) < 0)
			return -1;
		if (next == x->mft.records)
			break;
		if (next % 1024 == 0 &&
		    prep_progress(progress, "auditing", next * x->n->record_size, total, err) < 0)
			return -1;
		if (prep_ntfs_mft_next(&x->mft, next, &p, err) < 0 || audit_record(x, next, p, err) < 0)
			return -1;
	}
	for (uint64_t i = 0; i < x->mft.records; i++) {
		if (!(x->known[i] & PREP_NTFS_R_USED) ||
		    (x->known[i] & (PREP_NTFS_R_BASE | PREP_NTFS_R_LISTED)))
			continue;
		x->a->orphans++;
		if (prep_ntfs_note_record(x, PREP_NTFS_P_ORPHAN, i,
					  "an extension record that no file names", err) < 0)
			return -1;
	}
	return prep_progress(progress, "auditing", total, total, err);
}

/* ---- Bitmaps ---- */

/* The first `bits` bits of a bitmap attribute, in whole words, the rest of them 0: the caller's, or NULL on a failure. */
static uint8_t *read_bits(struct prep_ntfs_auditor *x, uint64_t number, uint32_t type, uint64_t bits,
			  struct prep_err *err)
{
	const uint64_t len = (bits + 7) / 8;
	struct prep_ntfs_file f;
	struct prep_ntfs_runs runs;
	struct prep_ntfs_attr a;
	uint8_t *map = NULL;
	int r;

	if (prep_ntfs_file_load(&x->mft, number, &f, err) < 0)
		return NULL;
	r = prep_ntfs_file_find(x->n, &f, type, "", &a, &runs, err);
	if (r >= 0 && (r == 0 || (a.resident ? a.value_len : a.initialized) < len))
		r = prep_fail(err, PREP_EDAMAGED, "%s: record %llu: the %s bitmap is missing or too short",
			      x->n->disk->name, (unsigned long long)number,
			      number == PREP_NTFS_MFT ? "records'" : "clusters'");
	if (r >= 0) {
		map = calloc(1, map_size(bits));
		if (map == NULL)
			r = prep_fail_nomem(err);
		else if (a.resident)
			memcpy(map, a.value, (size_t)len);
		else
			r = prep_ntfs_runs_read(x->n, &runs, 0, map, (size_t)len, err);
	}
	prep_ntfs_runs_clear(&runs);
	prep_ntfs_file_clear(&f);
	if (r < 0) {
		free(map);
		return NULL;
	}
	if (bits % 8 != 0)
		map[bits / 8] &= (uint8_t)(0xff >> (8 - bits % 8));
	return map;
}

/* Set the claims against $Bitmap, which becomes the map of what is free. */
static int compare(struct prep_ntfs_auditor *x, struct prep_err *err)
{
	const uint64_t clusters = x->n->clusters;
	struct prep_fs_audit *a = x->a;
	uint8_t *map = read_bits(x, PREP_NTFS_BITMAP, PREP_NTFS_ATTR_DATA, clusters, err);

	if (map == NULL)
		return -1;
	for (uint64_t at = 0; at < clusters; at += 64) {
		const uint64_t used = get_le64(map + at / 8), claimed = get_le64(x->claimed + at / 8);
		const uint64_t lost = used & ~claimed, stolen = claimed & ~used;
		const uint64_t free_bits = ~(used | claimed) & mask_of(at, clusters);

		a->used += (uint64_t)__builtin_popcountll(used);
		a->free += (uint64_t)__builtin_popcountll(free_bits);
		if (stolen != 0) {
			a->claimed_free += (uint64_t)__builtin_popcountll(stolen);
			want(x, PREP_NTFS_P_CLAIMED_FREE, at + (uint64_t)__builtin_ctzll(stolen), UINT64_MAX);
		}
		if (lost != 0) {
			a->used_unclaimed += (uint64_t)__builtin_popcountll(lost);
			if (prep_ntfs_note_due(x, PREP_NTFS_P_UNCLAIMED))
				x->lost[x->lost_n++] = at + (uint64_t)__builtin_ctzll(lost);
		}
		put_le64(map + at / 8, free_bits);
	}
	a->free_map = map;
	a->clusters = clusters;
	return 0;
}

/* ---- Owners of clusters that are to be noted ---- */

static void match_wanted(struct prep_ntfs_auditor *x, const struct prep_ntfs_run *run)
{
	for (size_t i = 0; i < x->wanted_n; i++) {
		struct prep_ntfs_wanted *w = &x->wanted[i];

		if (w->first == UINT64_MAX && x->number != w->second && run->lcn != PREP_NTFS_HOLE &&
		    w->lcn >= run->lcn && w->lcn - run->lcn < run->len)
			w->first = x->number;
	}
}

static int note_wanted(struct prep_ntfs_auditor *x, const struct prep_ntfs_wanted *w,
		       struct prep_err *err)
{
	const uint64_t owner = w->first != UINT64_MAX ? w->first : w->second;
	char path[512], other[512];

	if (path_of(x, owner, path, sizeof path, err) < 0)
		return -1;
	if (w->problem == PREP_NTFS_P_CLAIMED_FREE)
		prep_note(&x->a->problems, "%s: cluster %llu: marked free, but record %llu%s claims it",
			  x->n->disk->name, (unsigned long long)w->lcn, (unsigned long long)owner, path);
	else if (w->first == UINT64_MAX)
		prep_note(&x->a->problems, "%s: cluster %llu: claimed twice by record %llu%s",
			  x->n->disk->name, (unsigned long long)w->lcn, (unsigned long long)owner, path);
	else if (path_of(x, w->second, other, sizeof other, err) < 0)
		return -1;
	else
		prep_note(&x->a->problems, "%s: cluster %llu: claimed by record %llu%s and by record %llu%s",
			  x->n->disk->name, (unsigned long long)w->lcn, (unsigned long long)owner, path,
			  (unsigned long long)w->second, other);
	return 0;
}

static int find_owners(struct prep_ntfs_auditor *x, struct prep_err *err)
{
	struct prep_ntfs_record r;
	struct prep_ntfs_attr a;
	struct prep_ntfs_run run;
	uint32_t at;
	uint8_t *p;
	bool in_use;

	prep_ntfs_mft_rewind(&x->mft);
	for (uint64_t i = 0; x->wanted_n > 0 && i < x->mft.records; i++) {
		if (!(x->known[i] & PREP_NTFS_R_USED))
			continue;
		if (prep_ntfs_mft_next(&x->mft, i, &p, err) < 0)
			return -1;
		if (prep_ntfs_record_check(p, x->n->record_size, i, &r, &in_use) != PREP_NTFS_USED)
			continue;
		x->number = i;
		at = 0;
		while (prep_ntfs_attr_next(&r, &at, &a) > 0)
			while (!a.resident && prep_ntfs_pairs_next(&a.pairs, &run) > 0)
				match_wanted(x, &run);
	}
	for (size_t i = 0; i < x->wanted_n; i++)
		if (note_wanted(x, &x->wanted[i], err) < 0)
			return -1;
	return 0;
}

/* ---- All of it ---- */

static int run_audit(struct prep_ntfs_auditor *x, const struct prep_progress *progress,
		     struct prep_err *err)
{
	const size_t records = (size_t)x->mft.records;

	x->marked = read_bits(x, PREP_NTFS_MFT, PREP_NTFS_ATTR_BITMAP, records, err);
	if (x->marked == NULL)
		return -1;
	x->claimed = calloc(1, map_size(x->n->clusters));
	x->known = calloc(records, sizeof *x->known);
	x->balance = calloc(records, sizeof *x->balance);
	if (x->claimed == NULL || x->known == NULL || x->balance == NULL)
		return prep_fail_nomem(err);
	if (audit_records(x, progress, err) < 0 || compare(x, err) < 0)
		return -1;
	if (find_owners(x, err) < 0 || prep_ntfs_audit_balance(x, err) < 0)
		return -1;
	/* Last, because it is harmless: whoever tells one problem tells the first. */
	for (size_t i = 0; i < x->lost_n; i++)
		prep_note(&x->a->problems, "%s: cluster %llu: marked used, but no file claims it",
			  x->n->disk->name, (unsigned long long)x->lost[i]);
	return 0;
}

int prep_ntfs_audit(struct prep_fs *fs, struct prep_fs_audit *ret,
		    const struct prep_progress *progress, struct prep_err *err)
{
	struct prep_ntfs_auditor x = { .n = (struct prep_ntfs *)fs, .a = ret };
	int r = -1;

	if (prep_ntfs_mft_open(&x.mft, x.n, err) < 0)
		return -1;
	if (prep_ntfs_tree_open(&x.tree, &x.mft, err) == 0) {
		r = run_audit(&x, progress, err);
		prep_ntfs_tree_close(&x.tree);
	}
	prep_ntfs_mft_close(&x.mft);
	free(x.claimed);
	free(x.twice);
	free(x.marked);
	free(x.known);
	free(x.balance);
	return r;
}
