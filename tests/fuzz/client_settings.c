/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ClientSettings.xml, and finding what it names below a folder. */
#include "tests/fuzz/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libprep/trim/client_settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const int fd = memfd_create("input", MFD_CLOEXEC);
	struct prep_err err = PREP_ERR_INIT;
	struct prep_notes notes = { .n = 0 };
	struct prep_client_settings s;
	struct prep_folder_list l;
	char path[64];

	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (prep_client_settings_read(path, &s, &err) == 0) {
		if (prep_client_settings_resolve(&s, "testdata", &l, &notes, &err) == 0)
			prep_folder_list_clear(&l);
		prep_notes_clear(&notes);
		prep_client_settings_clear(&s);
	}
	close(fd);
	return 0;
}
