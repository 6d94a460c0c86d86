/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Sandbox: a process gives up, for good, what its work does not need, so that a
 * hostile image or package that takes it over gains little.
 *
 * Two parts, each where the kernel has it, and else absent without an error:
 * system calls are denied by seccomp (through libseccomp), the opening of files
 * by Landlock (Linux 5.13; linux/landlock.h, landlock(7)). What is denied fails
 * with EPERM or EACCES. Descriptors that are open stay as they are. All threads
 * of the process must come after: call these before the first is made.
 *
 * Built with AddressSanitizer, ptrace and fork stay allowed: its leak check is a
 * child that traces its parent.
 */
#ifndef PREP_BASE_SANDBOX_H
#define PREP_BASE_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "libprep/base/err.h"

/* What a process may still do with files and networks. All zero: neither. */
struct prep_sandbox {
	bool network;           /* sockets of IP, and those that looking up names takes */
	bool read_all;          /* reading is allowed everywhere */
	struct prep_sandbox_rule {
		char *path;
		bool write;
	} *rule;
	size_t rules;
	bool lost;              /* one, for lack of memory */
};

/* Allow reading the file `path`, or all below the folder. What does not exist is left out. NULL is allowed. */
void prep_sandbox_read(struct prep_sandbox *s, const char *path);

/* The same, and changing it: writing, making, renaming and removing files below a folder. */
void prep_sandbox_write(struct prep_sandbox *s, const char *path);

/*
 * Allow what putting a file under the name `path` takes: changes in the folder of the file
 * that the name leads to; where path is a pipe or a device, writing to it. "-" takes nothing.
 */
void prep_sandbox_output(struct prep_sandbox *s, const char *path);

/* What stands. */
#define PREP_SANDBOX_CALLS 1u
#define PREP_SANDBOX_FILES 2u

/*
 * For every command, before anything is read: no other program is started or
 * traced, no process but this one gets signals, nothing is mounted, no kernel
 * interface is used that goes around these rules. Returns PREP_SANDBOX_CALLS, or 0.
 */
unsigned prep_sandbox_begin(void);

/*
 * Only the files and networks of s from now on; besides, reading what the
 * system's libraries need at run time. A second time it takes away more, and gives
 * nothing back. The rules are freed. Returns bits of what stands; -1 where rules
 * were lost, or the kernel refuses what it says it has.
 */
int prep_sandbox_enter(struct prep_sandbox *s, struct prep_err *err);

/* Free the rules, where it does not come to that. */
void prep_sandbox_clear(struct prep_sandbox *s);

#endif
