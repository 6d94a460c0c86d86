/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Secrets: a process that holds one leaves no core, keeps it out of swap, and
 * when it is released nothing of it is left in memory.
 */
#include "libprep/ckm/keys.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <openssl/crypto.h>

#include "libprep/ckm/seal.h"
#include "libprep/ckm/section.h"
#include "tests/unit/check.h"

#define MASK 0x5a
#define SECRET 48

static struct prep_err err;

/* The secret is kept masked, so that to search memory for it does not put it there. */
static uint8_t masked[SECRET];

static void write_secret(void)
{
	const int fd = check_create("secret");
	uint8_t plain[SECRET + 1];

	for (int i = 0; i < SECRET; i++)
		plain[i] = (uint8_t)('a' + check_random(26));
	plain[SECRET] = '\n';
	for (int i = 0; i < SECRET; i++)
		masked[i] = plain[i] ^ MASK;
	check_write(fd, plain, sizeof plain, 0);
	OPENSSL_cleanse(plain, sizeof plain);
	close(fd);
}

static bool is_masked(const uint8_t *p, const uint8_t *want, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((p[i] ^ MASK) != want[i])
			return false;
	return true;
}

/* How often it stands in what this process can write: heap, stacks, data. -1: cannot be read. */
static int find(const uint8_t *want, size_t len)
{
	static uint8_t buf[1 << 20];
	FILE *maps = fopen("/proc/self/maps", "re");
	const int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	unsigned long long from, to;
	char line[512];
	int found = 0;

	if (maps == NULL || mem < 0)
		return -1;
	while (fgets(line, sizeof line, maps) != NULL) {
		/* A sanitizer's shadow is terabytes of nothing. */
		if (sscanf(line, "%llx-%llx rw", &from, &to) != 2 || strstr(line, " rw") == NULL || to - from > 1u << 30)
			continue;
		for (; from < to; from += sizeof buf - len) {
			const size_t room = to - from < sizeof buf ? (size_t)(to - from) : sizeof buf;
			const ssize_t n = pread(mem, buf, room, (off_t)from);

			/* Nor is this function's own copy one. */
			if (from < (uintptr_t)buf + sizeof buf && from + room > (uintptr_t)buf)
				continue;
			for (ssize_t i = 0; i + (ssize_t)len <= n; i++)
				found += is_masked(buf + i, want, len);
			if (room < sizeof buf)
				break;
		}
	}
	fclose(maps);
	close(mem);
	return found;
}

static unsigned long locked_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long n = 0;
	char line[256];

	while (f != NULL && fgets(line, sizeof line, f) != NULL)
		if (sscanf(line, "VmLck: %lu kB", &n) == 1)
			break;
	if (f != NULL)
		fclose(f);
	return n;
}

static int child_status(void (*run)(void))
{
	const pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		run();
		_exit(check_ended);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid ? status : -1;
}

static void hold_and_abort(void)
{
	const struct rlimit any = { RLIM_INFINITY, RLIM_INFINITY };
	struct prep_passphrase *p;
	struct rlimit now;

	(void)!setrlimit(RLIMIT_CORE, &any);
	(void)!chdir(check_dir());
	CHECK_DONE(prep_passphrase_read(check_path("secret"), PREP_PASSPHRASE_OPENS, &p, &err));
	CHECK(is_masked((const uint8_t *)p->text, masked, SECRET));
	CHECK_EQ(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
	CHECK(getrlimit(RLIMIT_CORE, &now) == 0 && now.rlim_cur == 0 && now.rlim_max == 0);
	/* In a way that no handler of a sanitizer takes up. */
	signal(SIGQUIT, SIG_DFL);
	raise(SIGQUIT);
}

static void no_core_is_left(void)
{
	const int status = child_status(hold_and_abort);
	char found[4300];

	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGQUIT && !WCOREDUMP(status));
	snprintf(found, sizeof found, "ls '%s' | grep -q '^core'", check_dir());
	CHECK(system(found) != 0);
}

static void locked(void)
{
	struct prep_passphrase *p;
	struct rlimit most;
	unsigned long before = locked_kib();

	CHECK_DONE(prep_passphrase_read(check_path("secret"), PREP_PASSPHRASE_OPENS, &p, &err));
#if !defined(__SANITIZE_ADDRESS__) /* which makes mlock do nothing */
	if (getrlimit(RLIMIT_MEMLOCK, &most) != 0 || most.rlim_cur < 65536)
		CHECK_SKIP("no memory may be locked here");
	CHECK(locked_kib() > before);
#else
	(void)most;
	(void)before;
#endif
	prep_passphrase_free(p);
}

/* Through everything that uses them: key derivation, sealing, opening. */
static void nothing_of_a_passphrase_is_left(void)
{
	uint8_t slot[PREP_CKM_SLOT_SIZE], key[PREP_SEAL_KEY], text[64] = "text", sealed[64 + PREP_SEAL_TAG];
	struct prep_passphrase *p;
	struct prep_seal *s, *opened;
	int n;

	CHECK_DONE(prep_passphrase_read(check_path("secret"), PREP_PASSPHRASE_OPENS, &p, &err));
	CHECK_DONE(prep_seal_new(&s, &err));
	CHECK_DONE(prep_seal_slot_passphrase(s, p->text, p->len, slot, &err));
	CHECK_DONE(prep_seal_open_passphrase(slot, 1, s->id, p->text, p->len, &opened, &err));
	CHECK_DONE(prep_seal_seal(opened, PREP_SEAL_FRAME, 1, NULL, 0, text, sizeof text, sealed, &err));
	for (unsigned i = 0; i < sizeof key; i++)
		key[i] = s->key[i] ^ MASK;
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	n = find(masked, SECRET);
	if (n < 0)
		CHECK_SKIP("/proc/self/mem cannot be read");
	/* What is to be searched for is found while it is there. */
	CHECK(n >= 1 && find(key, sizeof key) >= 2);
	prep_seal_free(s);
	prep_seal_free(opened);
	prep_passphrase_free(p);
	CHECK_EQ(find(masked, SECRET), 0);
	CHECK_EQ(find(key, sizeof key), 0);
}

/* Neither as its file has it nor as bytes. */
static void nothing_of_a_private_key_is_left(void)
{
	char command[4400], path[4300];
	uint8_t pem[256], der[48], hidden_pem[40], hidden_raw[32];
	EVP_PKEY *key;
	ssize_t n;
	int fd;

	snprintf(path, sizeof path, "%s", check_path("key.pem"));
	snprintf(command, sizeof command, "openssl genpkey -algorithm x25519 -out '%s' 2>/dev/null", path);
	if (system(command) != 0)
		CHECK_SKIP("openssl is missing");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = read(fd, pem, sizeof pem);
	close(fd);
	/* The second line, which is the key: its last part. */
	CHECK(n > 90 && memcmp(pem, "-----BEGIN PRIVATE KEY-----\n", 28) == 0);
	for (unsigned i = 0; i < sizeof hidden_pem; i++)
		hidden_pem[i] = pem[28 + 20 + i] ^ MASK;
	/* By hand: OpenSSL's export leaves a copy. */
	CHECK_EQ(EVP_DecodeBlock(der, pem + 28, 64), sizeof der);
	for (unsigned i = 0; i < sizeof hidden_raw; i++)
		hidden_raw[i] = der[16 + i] ^ MASK;
	OPENSSL_cleanse(pem, sizeof pem);
	OPENSSL_cleanse(der, sizeof der);
	CHECK_DONE(prep_key_private(path, PREP_KEY_X25519, &key, &err));
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	if (find(hidden_raw, sizeof hidden_raw) < 0)
		CHECK_SKIP("/proc/self/mem cannot be read");
	CHECK(find(hidden_raw, sizeof hidden_raw) >= 1);
	EVP_PKEY_free(key);
	CHECK_EQ(find(hidden_raw, sizeof hidden_raw), 0);
	CHECK_EQ(find(hidden_pem, sizeof hidden_pem), 0);
}

int main(void)
{
	check_seed = 7;
	write_secret();
	RUN(no_core_is_left);
	RUN(locked);
	RUN(nothing_of_a_passphrase_is_left);
	RUN(nothing_of_a_private_key_is_left);
	return check_result();
}
