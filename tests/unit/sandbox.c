/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The sandbox: a process in it tries to break out, in each of the ways that it
 * is to close, and does what it may do still.
 */
#include "libprep/base/sandbox.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "libprep/base/file.h"
#include "libprep/base/output.h"
#include "tests/unit/check.h"

static struct prep_err err;
static unsigned stands; /* of the last child: what its sandbox was made of */

/* What a child reports through its status. */
enum { FINE = 0, ABSENT = 77 };

static void fail_child(const char *what)
{
	fprintf(stderr, "# %s: %s\n", what, strerror(errno));
	_exit(1);
}

/* EXDEV is Landlock's answer to a link or a rename from one folder to another. */
#define MUST_FAIL(call)                                                        \
	do {                                                                   \
		errno = 0;                                                     \
		if ((long)(call) != -1)                                        \
			fail_child(#call " succeeded");                        \
		if (errno != EPERM && errno != EACCES && errno != EXDEV)                        \
			fail_child(#call);                                     \
	} while (0)

#define MUST_WORK(call)                                                        \
	do {                                                                   \
		if ((long)(call) == -1)                                        \
			fail_child(#call);                                     \
	} while (0)

/* Run `attempt` in a child: its status. */
static int in_child(void (*attempt)(void))
{
	const pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		attempt();
		_exit(FINE);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void expect_fine(void (*attempt)(void), const char *absent)
{
	const int status = in_child(attempt);

	if (status == ABSENT)
		CHECK_SKIP(absent);
	CHECK_EQ(status, FINE);
}

static void enter(struct prep_sandbox *s, unsigned needed)
{
	const unsigned begun = prep_sandbox_begin();
	const int r = prep_sandbox_enter(s, &err);

	if (r < 0)
		fail_child(err.msg);
	stands = (unsigned)r & (begun | PREP_SANDBOX_FILES);
	if ((stands & needed) != needed)
		_exit(ABSENT);
}

/* ---- Attempts ---- */

static void try_programs(void)
{
	struct prep_sandbox s = { .network = true };
	char *const argv[] = { (char *)"true", NULL }, *const none[] = { NULL };

	enter(&s, PREP_SANDBOX_CALLS);
	MUST_FAIL(execve("/bin/true", argv, none));
	MUST_FAIL(syscall(SYS_execveat, AT_FDCWD, "/bin/true", argv, none, 0));
	MUST_FAIL(kill(getppid(), 0));
	MUST_FAIL(kill(-1, 0));
	MUST_FAIL(kill(0, 0));
	MUST_FAIL(syscall(SYS_tgkill, getppid(), getppid(), 0));
	MUST_FAIL(syscall(SYS_pidfd_open, getppid(), 0));
	MUST_FAIL(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0));
	MUST_FAIL(unshare(CLONE_NEWUSER));
	MUST_FAIL(mount("none", "/mnt", "tmpfs", 0, NULL));
	MUST_FAIL(chroot("/"));
	MUST_FAIL(syscall(SYS_bpf, 0, NULL, 0));
	MUST_FAIL(syscall(SYS_io_uring_setup, 1, NULL));
	MUST_FAIL(syscall(SYS_open_by_handle_at, -1, NULL, 0));
	MUST_WORK(kill(getpid(), 0));
	signal(SIGUSR1, SIG_IGN);
	MUST_WORK(raise(SIGUSR1));
#if !defined(__SANITIZE_ADDRESS__)
	MUST_FAIL(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
	MUST_FAIL(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	MUST_FAIL(fork());
#endif
}

static void try_network(void)
{
	struct prep_sandbox s = { .network = false };

	enter(&s, PREP_SANDBOX_CALLS);
	MUST_FAIL(socket(AF_INET, SOCK_STREAM, 0));
	MUST_FAIL(socket(AF_INET6, SOCK_DGRAM, 0));
	MUST_FAIL(socket(AF_UNIX, SOCK_STREAM, 0));
	MUST_FAIL(socket(AF_NETLINK, SOCK_RAW, 0));
}

static void use_network(void)
{
	struct prep_sandbox s = { .network = true };

	enter(&s, PREP_SANDBOX_CALLS);
	MUST_WORK(socket(AF_INET, SOCK_STREAM, 0));
	MUST_FAIL(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
	MUST_FAIL(socket(AF_PACKET, SOCK_RAW, 0));
	MUST_FAIL(socket(AF_VSOCK, SOCK_STREAM, 0));
}

static void *thread(void *arg)
{
	(void)arg;
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC) == -1 && errno == EACCES ? NULL : arg;
}

static void try_files(void)
{
	struct prep_sandbox s = { .network = false };
	char outside[4400], inside[4400];
	pthread_t t;
	void *ret;

	snprintf(outside, sizeof outside, "%s", check_path("outside"));
	snprintf(inside, sizeof inside, "%s", check_path("in/file"));
	prep_sandbox_write(&s, check_path("in"));
	prep_sandbox_read(&s, check_path("input"));
	prep_sandbox_read(&s, "/nowhere");
	enter(&s, PREP_SANDBOX_CALLS | PREP_SANDBOX_FILES);
	MUST_FAIL(open("/etc/passwd", O_RDONLY));
	MUST_FAIL(open("/etc/shadow", O_RDONLY));
	MUST_FAIL(open("/", O_RDONLY | O_DIRECTORY));
	MUST_FAIL(open("/proc/1/environ", O_RDONLY));
	MUST_FAIL(open("/tmp", O_TMPFILE | O_RDWR, 0600));
	MUST_FAIL(open(outside, O_RDONLY));
	MUST_FAIL(open(outside, O_WRONLY));
	MUST_FAIL(open(check_path("new"), O_WRONLY | O_CREAT, 0600));
	MUST_FAIL(open(check_path("input"), O_WRONLY));
	MUST_FAIL(unlink(outside));
	MUST_FAIL(rename(outside, inside));
	MUST_FAIL(link(outside, inside));
	MUST_FAIL(mkdir(check_path("newdir"), 0700));
	MUST_FAIL(symlink("/etc/passwd", inside));
	MUST_FAIL(mkfifo(inside, 0600));
	MUST_FAIL(chmod(outside, 0777));
	MUST_FAIL(chown(outside, 0, 0));
	MUST_WORK(open(check_path("input"), O_RDONLY));
	MUST_WORK(open(inside, O_WRONLY | O_CREAT, 0600));
	MUST_WORK(rename(inside, check_path("in/other")));
	MUST_WORK(unlink(check_path("in/other")));
	MUST_WORK(open("/dev/null", O_RDONLY));
	if (pthread_create(&t, NULL, thread, &s) != 0 || pthread_join(t, &ret) != 0 || ret != NULL)
		fail_child("a thread is not confined");
}

/* What an edit does after its files are open: a journal or an output beside them, a spool. */
static void work(void)
{
	struct prep_sandbox s = { .network = false };
	struct prep_output *out, *part;
	uint64_t size;
	int fd;

	if (prep_output_open(check_path("in/out"), true, &out, &err) < 0)
		fail_child(err.msg);
	prep_sandbox_output(&s, check_path("in/out"));
	prep_sandbox_output(&s, "-");
	prep_sandbox_write(&s, check_path("tmp"));
	enter(&s, 0);
	if (prep_output_write(out, "new", 3, &err) < 0 || prep_output_commit(out, &err) < 0)
		fail_child(err.msg);
	prep_output_close(out);
	if (prep_output_open(check_path("in/out"), true, &out, &err) < 0 || prep_output_write(out, "two", 3, &err) < 0 ||
	    prep_output_commit(out, &err) < 0)
		fail_child(err.msg);
	prep_output_close(out);
	if (prep_output_open_part(check_path("in/out"), true, check_path("in/part"), &size, &part, &err) < 0 ||
	    prep_output_write(part, "three", 5, &err) < 0 || prep_output_commit(part, &err) < 0)
		fail_child(err.msg);
	prep_output_close(part);
	fd = prep_file_temp(check_path("tmp"), &err);
	if (fd < 0)
		fail_child(err.msg);
}

/* ---- Tests ---- */

static const char *const no_calls = "no seccomp here", *const no_files = "no Landlock here";

static void no_programs(void)
{
	CHECK_SKIP_UNDER_VALGRIND("it ends a process whose execve fails");
	expect_fine(try_programs, no_calls);
}

static void no_network(void)
{
	expect_fine(try_network, no_calls);
}

static void network_where_allowed(void)
{
	expect_fine(use_network, no_calls);
}

static void no_other_files(void)
{
	expect_fine(try_files, no_files);
}

static void outputs_still_work(void)
{
	unsigned char *p;
	size_t len;

	CHECK_EQ(in_child(work), FINE);
	p = check_read(check_path("in/out"), &len);
	CHECK(len == 5 && memcmp(p, "three", 5) == 0);
	free(p);
}

/* The first of a thousand rules, and the last. */
static void try_many_rules(void)
{
	struct prep_sandbox s = { .network = false };

	prep_sandbox_read(&s, check_path("input"));
	for (int i = 0; i < 1000; i++)
		prep_sandbox_read(&s, "/proc/self");
	prep_sandbox_read(&s, check_path("outside"));
	enter(&s, PREP_SANDBOX_FILES);
	MUST_WORK(open(check_path("input"), O_RDONLY));
	MUST_WORK(open(check_path("outside"), O_RDONLY));
	MUST_FAIL(open("/etc/passwd", O_RDONLY));
}

static void many_rules(void)
{
	expect_fine(try_many_rules, no_files);
}

/* What the first gave and the second does not, and what the second would give beyond the first. */
static void try_twice(void)
{
	struct prep_sandbox first = { .read_all = true }, second = { .network = true };

	prep_sandbox_write(&first, check_path("in"));
	enter(&first, PREP_SANDBOX_CALLS | PREP_SANDBOX_FILES);
	MUST_WORK(open("/etc/passwd", O_RDONLY));
	prep_sandbox_read(&second, check_path("input"));
	prep_sandbox_write(&second, check_path("tmp"));
	enter(&second, PREP_SANDBOX_CALLS | PREP_SANDBOX_FILES);
	MUST_WORK(open(check_path("input"), O_RDONLY));
	MUST_FAIL(open("/etc/passwd", O_RDONLY));
	MUST_FAIL(open(check_path("in/file"), O_WRONLY | O_CREAT, 0600));
	MUST_FAIL(open(check_path("tmp/file"), O_WRONLY | O_CREAT, 0600));
	MUST_FAIL(socket(AF_INET, SOCK_STREAM, 0));
}

static void the_second_only_takes(void)
{
	expect_fine(try_twice, no_files);
}

int main(void)
{
	if (mkdir(check_path("in"), 0700) != 0 || mkdir(check_path("tmp"), 0700) != 0)
		return 1;
	close(check_create("outside"));
	close(check_create("input"));
	RUN(no_programs);
	RUN(no_network);
	RUN(network_where_allowed);
	RUN(no_other_files);
	RUN(outputs_still_work);
	RUN(many_rules);
	RUN(the_second_only_takes);
	return check_result();
}
