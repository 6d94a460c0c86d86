/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What tests/preload/record.c writes and tests/tools/powerloss.c reads: the
 * calls of a run that change files and folders, in their order, with their data.
 */
#ifndef TESTS_PRELOAD_RECORD_H
#define TESTS_PRELOAD_RECORD_H

#include <stdint.h>

enum record_op {
	RECORD_NEW,     /* inode `ino` is a new, empty file */
	RECORD_DATA,    /* len bytes at off, which follow the names */
	RECORD_ZERO,    /* len bytes at off became zeros, the size stays */
	RECORD_SIZE,    /* the size became off */
	RECORD_MODE,    /* the permissions became off */
	RECORD_SYNC,    /* all of the file is durable */
	RECORD_LINK,    /* the name `to` now means ino */
	RECORD_MOVE,    /* so, and the name `from` is gone */
	RECORD_DROP,    /* the name `to` is gone */
	RECORD_FOLDER,  /* the folder `to` was made */
	RECORD_SYNCDIR, /* the names in the folder `to` are durable */
};

struct record {
	uint32_t op;
	uint16_t to, from; /* lengths of the absolute names that follow, `to` first */
	uint64_t ino, off, len;
};

#endif
