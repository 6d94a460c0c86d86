/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "libprep/base/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* ---- System calls ---- */

/* Numbers of system calls that an older libseccomp or header may not know are left out. */
static int deny(scmp_filter_ctx c, const char *name, int code)
{
	const int nr = seccomp_syscall_resolve_name(name);

	return nr == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(c, SCMP_ACT_ERRNO((uint32_t)code), nr, 0);
}

static int deny_all(scmp_filter_ctx c, const char *const *names, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = deny(c, names[i], EPERM);
	return r;
}

/* Signals go to this process alone. */
static int deny_kill(scmp_filter_ctx c)
{
	static const char *const names[] = { "kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open" };
	const scmp_datum_t self = (scmp_datum_t)getpid();
	int r = 0;

	for (size_t i = 0; i < sizeof names / sizeof names[0] && r == 0; i++)
		r = seccomp_rule_add(c, SCMP_ACT_ERRNO(EPERM), seccomp_syscall_resolve_name(names[i]), 1,
				     SCMP_A0(SCMP_CMP_NE, self, 0));
	/* By a thread's number alone: not told whose it is. */
	return r == 0 ? deny(c, "tkill", EPERM) : r;
}

/* Threads are made, processes are not. */
static int deny_fork(scmp_filter_ctx c)
{
	const scmp_datum_t thread = 0x00010000; /* CLONE_THREAD */
	int r = seccomp_rule_add(c, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
				 SCMP_A0(SCMP_CMP_MASKED_EQ, thread, 0));

	/* Its flags are in memory, which a filter cannot see: ENOSYS makes the C library use clone. */
	if (r == 0)
		r = deny(c, "clone3", ENOSYS);
	if (r == 0)
		r = deny(c, "fork", EPERM);
	return r == 0 ? deny(c, "vfork", EPERM) : r;
}

static scmp_filter_ctx filter_new(void)
{
	scmp_filter_ctx c = seccomp_init(SCMP_ACT_ALLOW);

	/* Calls of another ABI (32 bits) have other numbers: none of them. */
	if (c != NULL && seccomp_attr_set(c, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(EPERM)) != 0) {
		seccomp_release(c);
		return NULL;
	}
	return c;
}

unsigned prep_sandbox_begin(void)
{
	static const char *const names[] = {
		"execve", "execveat", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "setpgid", "setsid",
		"mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsmount", "mount_setattr",
		"unshare", "setns", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "open_by_handle_at",
		"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon",
		"swapoff", "add_key", "keyctl", "request_key", "settimeofday", "clock_settime", "sethostname",
		"setdomainname", "acct", "quotactl", "iopl", "ioperm",
	};
	scmp_filter_ctx c = filter_new();
	int r = c != NULL ? deny_all(c, names, sizeof names / sizeof names[0]) : -1;

	if (r == 0)
		r = deny_kill(c);
	if (r == 0 && !SANITIZED)
		r = deny(c, "ptrace", EPERM);
	if (r == 0 && !SANITIZED)
		r = deny_fork(c);
	if (r == 0)
		r = seccomp_load(c);
	seccomp_release(c);
	return r == 0 ? PREP_SANDBOX_CALLS : 0;
}

/* Landlock knows no sockets before Linux 6.7, and neither modes, owners nor attributes of files. */
static bool confine_calls(bool network)
{
	static const char *const names[] = {
		"chmod", "fchmodat", "chown", "lchown", "fchownat", "setxattr", "lsetxattr", "removexattr", "lremovexattr",
	};
	scmp_filter_ctx c = filter_new();
	int r = c != NULL ? deny_all(c, names, sizeof names / sizeof names[0]) : -1;

	if (r == 0 && !network)
		r = deny(c, "socket", EPERM);
	/* Of those that are numbered between: none that this needs. */
	if (r == 0 && network)
		r = seccomp_rule_add(c, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1,
				     SCMP_A0(SCMP_CMP_GT, AF_NETLINK, 0));
	/* But of netlink, whose sockets the C library makes raw to list interfaces and addresses. */
	if (r == 0 && network)
		r = seccomp_rule_add(c, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 2,
				     SCMP_A0(SCMP_CMP_NE, AF_NETLINK, 0), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xf, SOCK_RAW));
	if (r == 0)
		r = seccomp_load(c);
	seccomp_release(c);
	return r == 0;
}

/* ---- Files ---- */

static void add(struct prep_sandbox *s, const char *path, bool write)
{
	struct prep_sandbox_rule *grown;
	char *copy;

	if (path == NULL)
		return;
	copy = strdup(path);
	grown = reallocarray(s->rule, s->rules + 1, sizeof *grown);
	if (grown != NULL)
		s->rule = grown;
	if (grown == NULL || copy == NULL) {
		s->lost = true;
		free(copy);
		return;
	}
	s->rule[s->rules++] = (struct prep_sandbox_rule){ copy, write };
}

void prep_sandbox_read(struct prep_sandbox *s, const char *path)
{
	add(s, path, false);
}

void prep_sandbox_write(struct prep_sandbox *s, const char *path)
{
	add(s, path, true);
}

void prep_sandbox_output(struct prep_sandbox *s, const char *path)
{
	char *real, *copy;
	struct stat st;

	if (strcmp(path, "-") == 0)
		return;
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		add(s, path, true);
		return;
	}
	real = realpath(path, NULL);
	copy = strdup(real != NULL ? real : path);
	if (copy != NULL)
		add(s, dirname(copy), true);
	else
		s->lost = true;
	free(copy);
	free(real);
}

#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define CHANGE                                                                                                  \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |        \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG)
/* Whatever else there is to be made: by nobody. */
#define NEVER                                                                                                   \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_SOCK |              \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)
#define OF_FILES (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE)
/* From version 3 of the interface on, and younger than Debian 12's header. */
#define FS_TRUNCATE (1ULL << 14)

/* 0; -1 where the kernel refuses. What cannot be opened needs no rule. */
static int allow(int ruleset, const char *path, uint64_t access)
{
	struct landlock_path_beneath_attr rule = { .allowed_access = access };
	struct stat st;
	int r = 0;

	rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd < 0)
		return 0;
	if (fstat(rule.parent_fd, &st) == 0) {
		if (!S_ISDIR(st.st_mode))
			rule.allowed_access &= OF_FILES;
		r = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
		/* Pipes and their like, which Landlock leaves alone. */
		if (r != 0 && errno == EBADFD)
			r = 0;
	}
	close(rule.parent_fd);
	return r;
}

/* What the C library, OpenSSL and libcurl open at run time, however late. */
static int allow_system(int ruleset, bool network)
{
	static const char *const always[] = {
		"/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/ssl", "/etc/pki", "/etc/crypto-policies", "/etc/localtime",
		"/proc/self", "/proc/sys", "/proc/meminfo", "/sys/devices/system/cpu", "/dev/null", "/dev/zero",
		"/dev/urandom", "/dev/random",
	};
	static const char *const names[] = {
		"/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services",
		"/etc/protocols", "/etc/krb5.conf", "/etc/krb5.conf.d", "/etc/ca-certificates",
		"/run/systemd/resolve", "/proc/net",
	};
	int r = 0;

	for (size_t i = 0; i < sizeof always / sizeof always[0] && r == 0; i++)
		r = allow(ruleset, always[i], READ);
	for (size_t i = 0; i < sizeof names / sizeof names[0] && r == 0 && network; i++)
		r = allow(ruleset, names[i], READ);
	return r;
}

/* 1; 0 where the kernel has none; -1. */
static int confine_files(const struct prep_sandbox *s)
{
	const long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	const uint64_t younger = (version >= 2 ? LANDLOCK_ACCESS_FS_REFER : 0) | (version >= 3 ? FS_TRUNCATE : 0);
	const struct landlock_ruleset_attr attr = { .handled_access_fs = READ | CHANGE | NEVER | younger };
	int ruleset, r;

	if (version < 1)
		return 0;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
	if (ruleset < 0)
		return -1;
	r = s->read_all ? allow(ruleset, "/", READ) : allow_system(ruleset, s->network);
	/* Where passphrases are asked for. */
	if (r == 0)
		r = allow(ruleset, "/dev/tty", OF_FILES);
	for (size_t i = 0; i < s->rules && r == 0; i++)
		r = allow(ruleset, s->rule[i].path, s->rule[i].write ? READ | CHANGE | younger : READ);
	if (r == 0)
		r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (r == 0)
		r = (int)syscall(SYS_landlock_restrict_self, ruleset, 0);
	close(ruleset);
	return r == 0 ? 1 : -1;
}

void prep_sandbox_clear(struct prep_sandbox *s)
{
	for (size_t i = 0; i < s->rules; i++)
		free(s->rule[i].path);
	free(s->rule);
	s->rule = NULL;
	s->rules = 0;
}

int prep_sandbox_enter(struct prep_sandbox *s, struct prep_err *err)
{
	int files, r = 0;

	if (s->lost) {
		r = prep_fail_nomem(err);
	} else {
		files = confine_files(s);
		if (files < 0)
			r = prep_fail_errno(err, "the sandbox: Landlock");
		else
			r = (files > 0 ? (int)PREP_SANDBOX_FILES : 0) |
			    (confine_calls(s->network) ? (int)PREP_SANDBOX_CALLS : 0);
	}
	prep_sandbox_clear(s);
	return r;
}
