/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the fuzzers of file systems share: the verbs on a damaged volume, as the
 * commands use them, every change over an overlay. Where a verb succeeds, the
 * result must pass the audit.
 */
#ifndef TESTS_FUZZ_VOLUMES_H
#define TESTS_FUZZ_VOLUMES_H

#include "tests/fuzz/image.h"

#include "libprep/disk/overlay.h"
#include "libprep/prep/defrag.h"
#include "libprep/prep/gate.h"
#include "libprep/prep/inspect.h"
#include "libprep/prep/rmfile.h"
#include "libprep/prep/zerofree.h"

/* libntfs-3g leaks when a mount fails half-way, and inodes that it could not write. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libntfs-3g\n";
}

static const char *const volumes_patterns[] = { "/*", "/dir/*", "/*.txt", "/a*", "/dir", "/noise.bin", "/[" };

static void volumes_audit(struct prep_disk *overlay)
{
	struct prep_err err = PREP_ERR_INIT;
	struct prep_volumes *v;
	struct prep_fs_audit a;
	struct prep_fs *fs;

	if (prep_volumes_open(overlay, &v, &err) < 0)
		abort();
	for (unsigned i = 0; i < v->n; i++) {
		if (!prep_fs_known(v->volume[i].kind))
			continue;
		if (prep_fs_open(v->volume[i].slice, 0, &fs, &err) < 0 || prep_fs_audit(fs, &a, NULL, &err) < 0 ||
		    !prep_fs_audit_clusters_sound(&a)) {
			fprintf(stderr, "what a verb left is damaged: %s\n", err.msg);
			abort();
		}
		prep_fs_audit_clear(&a);
		prep_fs_close(fs, &err);
	}
	prep_volumes_close(v);
}

static void volumes_verb(struct prep_disk *d, uint8_t how)
{
	const char *const pattern[] = { volumes_patterns[(how >> 4) % 7] };
	struct prep_err err = PREP_ERR_INIT;
	struct prep_volumes *v;
	struct prep_disk *overlay;
	struct prep_overlay_change change;
	struct prep_defrag_report *defrag = malloc(sizeof *defrag);
	struct prep_zerofree_report *zerofree = malloc(sizeof *zerofree);
	struct prep_rmfile_report removed = { .match = NULL };
	const struct prep_rmfile rmfile = { .pattern = pattern, .patterns = 1, .recursive = !(how & 8) };
	const struct prep_zerofree zero = { .keep_slack = how & 8, .log = how & 16 };
	const struct prep_defrag move = { .goal = how & 8 ? PREP_DEFRAG_FILES : PREP_DEFRAG_BLOCKS, .block_size = 512 << 10 };
	int r = -1;

	if (defrag == NULL || zerofree == NULL || prep_overlay_open(d, "/tmp", &overlay, &err) < 0)
		abort();
	if (prep_volumes_open(d, &v, &err) == 0) {
		switch (how % 4) {
		case 0:
		case 1:
			r = prep_rmfile(v, overlay, &rmfile, &removed, NULL, &err);
			prep_rmfile_report_clear(&removed);
			break;
		case 2:
			r = prep_zerofree(v, overlay, &zero, zerofree, NULL, &err);
			break;
		case 3:
			r = prep_defrag(v, overlay, &move, defrag, NULL, &err);
			break;
		}
		prep_volumes_close(v);
	}
	if (r == 0 && prep_overlay_change(overlay, 0, &change, &err) > 0)
		volumes_audit(overlay);
	prep_disk_close(overlay);
	free(defrag);
	free(zerofree);
}

static void volumes_fuzz(struct prep_disk *d, uint8_t how)
{
	struct prep_inspect *in = malloc(sizeof *in);
	struct prep_err err = PREP_ERR_INIT;

	if (in == NULL)
		abort();
	if (prep_inspect(d, !(how & 4), in, NULL, &err) == 0)
		prep_inspect_clear(in);
	free(in);
	volumes_verb(d, how);
}

#endif
