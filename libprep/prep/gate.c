/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/prep/gate.h"

int prep_gate_obstacles(const struct prep_fs *fs, unsigned allowed, const char *name,
			struct prep_err *err)
{
	const struct prep_fs_info *info = prep_fs_info(fs);

	if ((info->obstacles & ~allowed) == 0)
		return 0;
	return prep_fail(err, PREP_EREFUSED, "%s: %s: %s", name, info->obstacle_text,
			 prep_fs_advice(info->obstacles & ~allowed));
}

int prep_gate_judge(const struct prep_fs_audit *audit, enum prep_gate gate, const char *name,
		    struct prep_err *err)
{
	if (prep_fs_audit_clusters_sound(audit) &&
	    (gate == PREP_GATE_CLUSTERS || prep_fs_audit_records_sound(audit)))
		return 0;
	/* A note begins with the volume's name. */
	return prep_fail(err, PREP_EDAMAGED, "%s: the file system is damaged: run chkdsk in Windows first",
			 audit->problems.n > 0 ? audit->problems.text[0] : name);
}

int prep_gate_open(const struct prep_volume *v, enum prep_gate gate, struct prep_fs **fs,
		   struct prep_fs_audit *audit, const struct prep_progress *progress,
		   struct prep_err *err)
{
	struct prep_err ignored = PREP_ERR_INIT;

	if (prep_fs_open(v->slice, 0, fs, err) < 0)
		return -1;
	if (prep_gate_obstacles(*fs, 0, v->slice->name, err) < 0)
		goto fail;
	if (prep_fs_audit(*fs, audit, progress, err) < 0)
		goto fail;
	if (prep_gate_judge(audit, gate, v->slice->name, err) == 0)
		return 0;
	prep_fs_audit_clear(audit);
fail:
	prep_fs_close(*fs, &ignored);
	return -1;
}
