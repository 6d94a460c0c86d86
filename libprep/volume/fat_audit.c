/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The audit: the FAT (exFAT: the bitmap) once from end to end, then every
 * folder, each chain followed once. Needs 4 bits a cluster at most.
 */
#include <stdio.h>
#include <stdlib.h>

#include "libprep/base/bytes.h"
#include "libprep/volume/fat.h"

/* Kinds of problems, each noted only a few times. */
enum problem {
	P_CROSSLINKED,
	P_OUTSIDE,
	P_CLAIMED_FREE,
	P_UNCLAIMED,
	P_COPIES,
	P_UNREADABLE,
	P_SIZES,
	P_DANGLING,
	P_ORPHANS,
	PROBLEMS,
};
#define NOTES_EACH 3

/* Claims of so many times the volume are counted without looking: it is beyond hope, and time counts. */
#define CLAIMS_MAX 16

/* What a folder was seen to have: the tree's tags. */
#define SEEN_DOT 1u
#define SEEN_DOTDOT 2u

/* A cluster that two claim, to be noted with both. */
struct shared {
	uint32_t cluster;
	char *first, *second; /* paths */
};

struct auditor {
	struct prep_fat *f;
	struct prep_fs_audit *a;
	const struct prep_progress *progress;
	struct prep_fat_tree tree;
	bool tree_open;        /* there is an entry to be named */
	bool naming;           /* the second pass: only to find first owners of shared clusters */

	uint8_t *marked;       /* a bit a cluster from 0 on: used by the FAT or the bitmap */
	uint8_t *claimed;
	uint8_t *bad;          /* made when the first is found */
	uint64_t claims;
	uint64_t entries;

	unsigned noted[PROBLEMS];
	struct prep_notes harmless; /* for the end: the first note is the one that a refusal shows */
	struct shared shared[NOTES_EACH];
	size_t shares;
};

/* ---- Notes ---- */

static bool note_due(struct auditor *x, enum problem problem)
{
	return !x->naming && x->noted[problem] < NOTES_EACH && ++x->noted[problem] > 0;
}

static int path_of(struct auditor *x, const char **ret, struct prep_err *err)
{
	*ret = "the root folder";
	return x->tree_open ? prep_fat_tree_path(&x->tree, ret, err) : 0;
}

/* Note "NAME: PATH: what" of the entry at hand. */
static int note_entry(struct auditor *x, enum problem problem, const char *what, struct prep_err *err)
{
	const char *path;

	if (!note_due(x, problem))
		return 0;
	if (path_of(x, &path, err) < 0)
		return -1;
	prep_note(&x->a->problems, "%s: %s: %s", x->f->disk->name, path, what);
	return 0;
}

/* ---- Claims ---- */

static uint64_t mask_of(uint64_t bit, uint64_t end)
{
	const uint64_t mask = ~(uint64_t)0 << (bit & 63);

	return (bit | 63) < end ? mask : mask & ~(~(uint64_t)0 << (end & 63));
}

static void add_saturated(uint64_t *sum, uint64_t v)
{
	if (__builtin_add_overflow(*sum, v, sum))
		*sum = UINT64_MAX;
}

/* `cluster` was claimed before. */
static int share(struct auditor *x, uint32_t cluster, uint64_t count, struct prep_err *err)
{
	const char *path;

	add_saturated(&x->a->crosslinked, count);
	if (x->bad != NULL && prep_bit_get(x->bad, cluster - 2))
		return note_entry(x, P_CROSSLINKED, "its chain leads to a bad cluster", err);
	if (!note_due(x, P_CROSSLINKED))
		return 0;
	if (path_of(x, &path, err) < 0)
		return -1;
	x->shared[x->shares] = (struct shared){ cluster, NULL, strdup(path) };
	return x->shared[x->shares++].second == NULL ? prep_fail_nomem(err) : 0;
}

/* In the second pass: who claims a shared cluster first. */
static int name_owner(struct auditor *x, uint32_t first, uint64_t count, struct prep_err *err)
{
	for (size_t i = 0; x->naming && i < x->shares; i++) {
		struct shared *s = &x->shared[i];
		const char *path;

		if (s->first != NULL || s->cluster < first || s->cluster - first >= count)
			continue;
		if (path_of(x, &path, err) < 0)
			return -1;
		s->first = strdup(path);
		if (s->first == NULL)
			return prep_fail_nomem(err);
	}
	return 0;
}

/* What claiming a file's clusters has shown. */
struct claim {
	uint64_t clusters, fragments;
	bool whole;            /* the chain is sound up to its end */
};

static int outside(struct auditor *x, uint64_t count, const char *what, struct prep_err *err)
{
	add_saturated(&x->a->outside, count);
	return note_entry(x, P_OUTSIDE, what, err);
}

static int claim_contiguous(struct auditor *x, uint32_t first, uint64_t count, struct claim *c,
			    struct prep_err *err)
{
	const uint64_t from = first - 2, inside = prep_min(count, x->f->clusters - from), end = from + inside;

	c->clusters = count;
	c->fragments = 1;
	c->whole = inside == count;
	if (inside < count && outside(x, count - inside, "its clusters lie outside the volume", err) < 0)
		return -1;
	add_saturated(&x->claims, inside);
	if (x->claims / CLAIMS_MAX > x->f->clusters) {
		add_saturated(&x->a->crosslinked, inside);
		return 0;
	}
	if (name_owner(x, first, inside, err) < 0)
		return -1;
	for (uint64_t at = from; at < end; at = (at | 63) + 1) {
		uint8_t *const word = x->claimed + at / 64 * 8;
		const uint64_t mask = mask_of(at, end), before = get_le64(word), twice = before & mask;

		if (twice != 0) {
			c->whole = false;
			if (share(x, (uint32_t)((at & ~(uint64_t)63) + (unsigned)__builtin_ctzll(twice) + 2),
				  (uint64_t)__builtin_popcountll(twice), err) < 0)
				return -1;
		}
		put_le64(word, before | mask);
	}
	return 0;
}

/* Follow the chain until its end, or to where it is not its own. */
static int claim_chain(struct auditor *x, uint32_t first, struct claim *c, struct prep_err *err)
{
	uint32_t cluster = first, next = first, before = 0;

	for (;; cluster = next) {
		if (!prep_fat_is_cluster(x->f, cluster))
			return outside(x, 1, "its chain leads out of the volume", err);
		if (prep_bit_get(x->claimed, cluster - 2))
			return share(x, cluster, 1, err);
		if (prep_fat_get(x->f, cluster, &next, err) < 0 || name_owner(x, cluster, 1, err) < 0)
			return -1;
		prep_bit_set(x->claimed, cluster - 2);
		c->fragments += cluster != before + 1;
		before = cluster;
		c->clusters++;
		x->claims++;
		if (next == PREP_FAT_END)
			break;
		if (next == PREP_FAT_FREE)
			return note_entry(x, P_CLAIMED_FREE, "its chain leads to a free cluster", err);
	}
	c->whole = true;
	return 0;
}

static int claim(struct auditor *x, uint32_t first, bool contiguous, uint64_t size, struct claim *c,
		 struct prep_err *err)
{
	*c = (struct claim){ .whole = false };
	if (!prep_fat_is_cluster(x->f, first))
		return outside(x, 1, "its first cluster lies outside the volume", err);
	return contiguous ? claim_contiguous(x, first, prep_fat_clusters_of(x->f, size), c, err)
			  : claim_chain(x, first, c, err);
}

/* ---- Entries ---- */

static int dangling(struct auditor *x, const char *what, struct prep_err *err)
{
	x->a->dangling++;
	return note_entry(x, P_DANGLING, what, err);
}

static int unreadable(struct auditor *x, const char *what, struct prep_err *err)
{
	x->a->unreadable++;
	return note_entry(x, P_UNREADABLE, what, err);
}

static int audit_folder(struct auditor *x, const struct prep_fat_entry *e, struct prep_err *err)
{
	struct claim c;
	bool fresh;
	int r;

	x->a->folders++;
	if (e->first == 0)
		return dangling(x, "a folder without a cluster", err);
	/* What was read as another folder's is not read again. */
	fresh = prep_fat_is_cluster(x->f, e->first) && !prep_bit_get(x->claimed, e->first - 2);
	if (claim(x, e->first, e->contiguous, e->size, &c, err) < 0)
		return -1;
	if (!fresh)
		return 0;
	if (x->f->exfat && c.whole && c.clusters * x->f->cluster_size != e->size) {
		x->a->sizes++;
		if (note_entry(x, P_SIZES, "the folder's size is not that of its clusters", err) < 0)
			return -1;
	}
	r = prep_fat_tree_enter(&x->tree, 0, err);
	return r == 0 ? unreadable(x, "nested more deeply than any path", err) : r;
}

static int audit_file(struct auditor *x, const struct prep_fat_entry *e, struct prep_err *err)
{
	const uint64_t need = prep_fat_clusters_of(x->f, e->size);
	struct claim c = { .whole = true };
	char what[128];

	x->a->files++;
	if (e->first != 0 && claim(x, e->first, e->contiguous, e->size, &c, err) < 0)
		return -1;
	x->a->streams += c.fragments > 0;
	x->a->fragmented += c.fragments > 1;
	x->a->fragments += c.fragments;
	if (!c.whole || c.clusters == need)
		return 0;
	x->a->sizes++;
	snprintf(what, sizeof what, "its size is %llu bytes, but it has %llu clusters of %u bytes",
		 (unsigned long long)e->size, (unsigned long long)c.clusters, (unsigned)x->f->cluster_size);
	return note_entry(x, P_SIZES, what, err);
}

/* '.' is the folder's own first entry, '..' its second; they say where it begins, and where its parent does. */
static int audit_dot(struct auditor *x, const struct prep_fat_entry *e, struct prep_err *err)
{
	const bool up = e->kind == PREP_FAT_DOTDOT;
	const uint32_t root = x->f->root_cluster;
	struct prep_fat_level *level = &x->tree.level[x->tree.n - 1];
	uint32_t want;

	if (x->tree.n == 1)
		return dangling(x, "it stands in the root folder", err);
	level->tag |= up ? SEEN_DOTDOT : SEEN_DOT;
	want = up ? level[-1].first : level->first;
	/* The root is always 0 here, even where FAT32 has a number for it. */
	if (level->dir.at != (up ? 2 : 1) * PREP_FAT_SLOT || !e->folder ||
	    (e->first != want && !(up && want == root && e->first == 0)))
		return dangling(x, up ? "it leads to another folder than its parent" : "it leads to another folder", err);
	return 0;
}

static int audit_entry(struct auditor *x, struct prep_err *err)
{
	const struct prep_fat_entry *const e = &x->tree.entry;
	struct claim c;

	if (x->entries++ % 256 == 0 &&
	    prep_progress(x->progress, "auditing", x->claims * x->f->cluster_size, 0, err) < 0)
		return -1;
	switch (e->kind) {
	case PREP_FAT_FILE:
		x->a->records++;
		return e->folder ? audit_folder(x, e, err) : audit_file(x, e, err);
	case PREP_FAT_DOT:
	case PREP_FAT_DOTDOT:
		return audit_dot(x, e, err);
	case PREP_FAT_BITMAP:
	case PREP_FAT_UPCASE:
		return claim(x, e->first, false, e->size, &c, err);
	case PREP_FAT_DAMAGED:
		return unreadable(x, e->damage, err);
	case PREP_FAT_LABEL:
		break;
	}
	return 0;
}

/* A folder was read to its end. */
static void audit_left(struct auditor *x)
{
	const struct prep_fat_level *const left = &x->tree.left;
	const char *const path = prep_fat_tree_left_path(&x->tree), *const name = x->f->disk->name;

	/* Parts of long names stay where DOS removes files. */
	if (x->f->exfat)
		x->a->orphans += left->dir.orphans;
	if (left->dir.orphans > 0 && note_due(x, P_ORPHANS))
		prep_note(x->f->exfat ? &x->a->problems : &x->harmless,
			  "%s: %s/: %llu %s to no file, the first at offset %llu", name, path,
			  (unsigned long long)left->dir.orphans,
			  x->f->exfat ? "entries belong" : "parts of long names belong",
			  (unsigned long long)left->dir.orphan_off);
	if (x->f->exfat || x->tree.n == 0 || left->tag == (SEEN_DOT | SEEN_DOTDOT))
		return;
	x->a->dangling++;
	if (note_due(x, P_DANGLING))
		prep_note(&x->a->problems, "%s: %s: the folder has no '%s' entry", name, path,
			  left->tag & SEEN_DOT ? ".." : ".");
}

static int audit_folders(struct auditor *x, struct prep_err *err)
{
	struct claim c;
	int r;

	if (x->f->root_cluster != 0 && claim(x, x->f->root_cluster, false, 0, &c, err) < 0)
		return -1;
	r = prep_fat_tree_open(&x->tree, x->f, true, err);
	while (r >= 0 && (r = prep_fat_tree_next(&x->tree, err)) > PREP_FAT_TREE_END) {
		x->tree_open = r == PREP_FAT_TREE_ENTRY;
		if (x->tree_open)
			r = audit_entry(x, err);
		else
			audit_left(x);
	}
	x->tree_open = false;
	prep_fat_tree_close(&x->tree);
	return r < 0 ? -1 : 0;
}

/* ---- The FAT and its copies ---- */

/* Bad clusters are nobody's: as if a file of bad ones claimed them. */
static int take_value(void *arg, uint32_t cluster, uint32_t value, struct prep_err *err)
{
	struct auditor *x = arg;

	if (value != PREP_FAT_FREE && !x->f->exfat)
		prep_bit_set(x->marked, cluster - 2);
	if (value != PREP_FAT_BAD)
		return 0;
	if (x->bad == NULL) {
		x->bad = calloc(1, x->f->clusters / 8 + 1);
		if (x->bad == NULL)
			return prep_fail_nomem(err);
	}
	x->a->bad++;
	prep_bit_set(x->bad, cluster - 2);
	prep_bit_set(x->claimed, cluster - 2);
	/* Whether exFAT's bitmap has them is not said anywhere. */
	prep_bit_set(x->marked, cluster - 2);
	return 0;
}

static void compare_pieces(struct auditor *x, unsigned copy, const uint8_t *a, const uint8_t *b, uint64_t off,
			   uint64_t len)
{
	const uint64_t end = prep_min((off + len) * 8 / x->f->bits, (uint64_t)x->f->clusters + 2);

	/* The first two are no clusters'. */
	for (uint64_t c = prep_max(off * 8 / x->f->bits, 2); c < end; c++) {
		const uint64_t at = c * x->f->bits / 8 - off;
		const uint32_t v = prep_fat_value(x->f, a + at, c & 1), w = prep_fat_value(x->f, b + at, c & 1);

		if (v == w)
			continue;
		x->a->copies++;
		if (note_due(x, P_COPIES))
			prep_note(&x->a->problems, "%s: cluster %llu: FAT 1 has 0x%x, FAT %u has 0x%x",
				  x->f->disk->name, (unsigned long long)c, (unsigned)v, copy + 1, (unsigned)w);
	}
}

/* Copies that are kept the same must be. */
static int compare_copies(struct auditor *x, struct prep_err *err)
{
	enum { PIECE = 96 * 1024 }; /* a whole number of entries of each width */
	struct prep_fat *const f = x->f;
	const uint64_t len = (((uint64_t)f->clusters + 2) * f->bits + 7) / 8;
	uint8_t *buf;
	int r = 0;

	if (!f->mirrored || f->fats < 2)
		return 0;
	buf = malloc(2 * PIECE);
	if (buf == NULL)
		return prep_fail_nomem(err);
	for (unsigned copy = 1; copy < f->fats && r == 0; copy++)
		for (uint64_t off = 0; off < len && r == 0; off += PIECE) {
			const size_t n = (size_t)prep_min(PIECE, len - off);

			if (prep_disk_read(f->disk, buf, n, f->fat_off + off, err) < 0 ||
			    prep_disk_read(f->disk, buf + PIECE, n, f->fat_off + copy * f->fat_len + off, err) < 0)
				r = -1;
			else if (memcmp(buf, buf + PIECE, n) != 0)
				compare_pieces(x, copy, buf, buf + PIECE, off, n);
		}
	free(buf);
	return r;
}

/* exFAT: what names are compared by. */
static int audit_upcase(struct auditor *x, struct prep_err *err)
{
	struct prep_err damage = PREP_ERR_INIT;

	if (!x->f->exfat || prep_fat_load_upcase(x->f, &damage) == 0)
		return 0;
	if (damage.code != PREP_EDAMAGED)
		return prep_fail(err, damage.code, "%s", damage.msg);
	x->a->unreadable++;
	if (note_due(x, P_UNREADABLE))
		prep_note(&x->a->problems, "%s", damage.msg);
	return 0;
}

static void contradiction(struct auditor *x, const char *what)
{
	x->a->copies++;
	if (note_due(x, P_COPIES))
		prep_note(&x->a->problems, "%s: the copy of the boot sector at offset %llu %s", x->f->disk->name,
			  (unsigned long long)x->f->backup_off, what);
}

/*
 * FAT32's copy of the boot sector must not say of the layout what the boot
 * sector does not: bytes per sector to number of sectors (but for the geometry
 * and the sectors before the volume, which tools adapt in one only), length of
 * the FAT, root folder.
 */
static int compare_boot(struct auditor *x, struct prep_err *err)
{
	uint8_t a[512], b[512];

	if (prep_disk_read(x->f->disk, a, sizeof a, 0, err) < 0 ||
	    prep_disk_read(x->f->disk, b, sizeof b, x->f->backup_off, err) < 0)
		return -1;
	if (get_le16(b + 510) != 0xaa55) {
		prep_note(&x->harmless, "%s: there is no copy of the boot sector at offset %llu", x->f->disk->name,
			  (unsigned long long)x->f->backup_off);
		return 0;
	}
	if (memcmp(a + 11, b + 11, 24 - 11) != 0 || memcmp(a + 32, b + 32, 48 - 32) != 0)
		contradiction(x, "contradicts it");
	return 0;
}

static int audit_boot(struct auditor *x, struct prep_err *err)
{
	int r;

	if (x->f->backup_off == 0)
		return 0;
	if (!x->f->exfat)
		return compare_boot(x, err);
	r = prep_exfat_boot_sound(x->f, x->f->backup_off, err);
	if (r == 0)
		contradiction(x, "has a wrong checksum");
	return r < 0 ? -1 : 0;
}

/* ---- The end ---- */

static size_t map_size(const struct prep_fat *f)
{
	return (size_t)(((uint64_t)f->clusters + 63) / 64 * 8);
}

/* Note the clusters that are shared, each with who claims it first: that takes the folders once more. */
static int note_shared(struct auditor *x, struct prep_err *err)
{
	struct prep_fs_audit *const a = x->a, scratch = { .used = 0 };
	uint8_t *const claimed = x->claimed;
	int r;

	if (x->shares == 0)
		return 0;
	x->claimed = calloc(1, map_size(x->f));
	if (x->claimed == NULL) {
		x->claimed = claimed;
		return prep_fail_nomem(err);
	}
	x->naming = true;
	x->claims = 0;
	x->a = &scratch;
	r = audit_folders(x, err);
	x->naming = false;
	x->a = a;
	free(x->claimed);
	x->claimed = claimed;
	for (size_t i = 0; i < x->shares && r == 0; i++) {
		const struct shared *s = &x->shared[i];

		if (s->first != NULL && strcmp(s->first, s->second) == 0)
			prep_note(&a->problems, "%s: cluster %u: %s: its chain runs in a circle", x->f->disk->name,
				  (unsigned)s->cluster, s->second);
		else
			prep_note(&a->problems, "%s: cluster %u: claimed by %s and by %s", x->f->disk->name,
				  (unsigned)s->cluster, s->first != NULL ? s->first : "another", s->second);
	}
	return r;
}

/* Set the claims against what is marked, which becomes the map of what is free. */
static void compare(struct auditor *x)
{
	const uint64_t clusters = x->f->clusters;
	struct prep_fs_audit *a = x->a;

	for (uint64_t at = 0; at < clusters; at += 64) {
		const uint64_t used = get_le64(x->marked + at / 8), claimed = get_le64(x->claimed + at / 8);
		const uint64_t stolen = claimed & ~used, free_bits = ~(used | claimed) & mask_of(at, clusters);

		a->used += (uint64_t)__builtin_popcountll(used);
		a->free += (uint64_t)__builtin_popcountll(free_bits);
		a->claimed_free += (uint64_t)__builtin_popcountll(stolen);
		/* In a FAT the chain that leads there was noted. */
		if (stolen != 0 && x->f->exfat && note_due(x, P_CLAIMED_FREE))
			prep_note(&a->problems, "%s: cluster %llu: a file's, but marked free in the bitmap",
				  x->f->disk->name, (unsigned long long)at + (unsigned)__builtin_ctzll(stolen) + 2);
		put_le64(x->marked + at / 8, free_bits);
	}
	a->free_map = x->marked;
	a->clusters = clusters;
	x->marked = NULL;
}

/* What is neither free nor claimed. */
static void count_lost(struct auditor *x)
{
	const uint64_t clusters = x->f->clusters;

	for (uint64_t at = 0; at < clusters; at += 64) {
		const uint64_t lost = ~get_le64(x->a->free_map + at / 8) & ~get_le64(x->claimed + at / 8) &
				      mask_of(at, clusters);

		x->a->used_unclaimed += (uint64_t)__builtin_popcountll(lost);
		if (lost != 0 && note_due(x, P_UNCLAIMED))
			prep_note(&x->harmless, "%s: cluster %llu: marked used, but no file claims it",
				  x->f->disk->name, (unsigned long long)at + (unsigned)__builtin_ctzll(lost) + 2);
	}
}

static int audit(struct auditor *x, struct prep_err *err)
{
	if ((x->f->exfat && prep_exfat_read_bitmap(x->f, x->marked, err) < 0) ||
	    prep_fat_scan(x->f, take_value, x, err) < 0 || audit_folders(x, err) < 0 ||
	    note_shared(x, err) < 0 || compare_copies(x, err) < 0 || audit_upcase(x, err) < 0)
		return -1;
	compare(x);
	count_lost(x);
	if (audit_boot(x, err) < 0)
		return -1;
	for (size_t i = 0; i < x->harmless.n; i++)
		prep_note(&x->a->problems, "%s", x->harmless.text[i]);
	return 0;
}

int prep_fat_audit(struct prep_fs *fs, struct prep_fs_audit *ret,
		   const struct prep_progress *progress, struct prep_err *err)
{
	struct auditor x = { .f = (struct prep_fat *)fs, .a = ret, .progress = progress };
	int r;

	x.marked = calloc(1, map_size(x.f));
	x.claimed = calloc(1, map_size(x.f));
	r = x.marked == NULL || x.claimed == NULL ? prep_fail_nomem(err) : audit(&x, err);
	for (size_t i = 0; i < x.shares; i++) {
		free(x.shared[i].first);
		free(x.shared[i].second);
	}
	free(x.marked);
	free(x.claimed);
	free(x.bad);
	prep_notes_clear(&x.harmless);
	return r;
}
