#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# What the library promises of itself: its names, its layers, and what it leaves to the commands.

load helper

# The layers, lowest first: each includes only itself and those before it.
layers='base disk volume prep ckm trim'

setup() {
	lib=$build/libprep.a
}

@test "every exported symbol begins with prep_" {
	skip_without nm
	nm -g --defined-only "$lib" >"$BATS_TEST_TMPDIR/nm"
	[ "$(grep -c ' prep_' "$BATS_TEST_TMPDIR/nm")" -gt 50 ]
	# the sanitizers add names of their own
	awk 'NF == 3 && $3 !~ /^(prep_|__odr_asan\.)/ { print $3; bad = 1 } END { exit bad }' "$BATS_TEST_TMPDIR/nm"
}

@test "no two symbols or structures of the library have one name" {
	skip_without nm
	cd "$top"
	nm -g --defined-only "$lib" | awk 'NF == 3 && $3 ~ /^prep_/ { print $3 }' | sort | uniq -d >"$BATS_TEST_TMPDIR/twice"
	# a structure is defined once, in a header or in the one file that knows it
	grep -ho '^\(struct\|enum\|union\) prep_[a-z0-9_]* {' libprep/*/*.[ch] | sort | uniq -d >>"$BATS_TEST_TMPDIR/twice"
	cat "$BATS_TEST_TMPDIR/twice"
	[ ! -s "$BATS_TEST_TMPDIR/twice" ]
}

@test "a layer includes only itself and the layers below it" {
	cd "$top"
	for path in libprep/*/; do
		case " $layers " in
		*" $(basename "$path") "*) ;;
		*) echo "$path is no layer"; false ;;
		esac
	done
	grep -n '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' libprep/*/*.[ch] | awk -F '[:"]' -v layers="$layers" '
		BEGIN { n = split(layers, l, " "); for (i = 1; i <= n; i++) rank[l[i]] = i }
		{
			split($1, of, "/")
			n = split($4, to, "/")
			if (n != 3 || to[1] != "libprep" || !(to[2] in rank) || rank[to[2]] > rank[of[2]])
				if ($4 != "libprep/version.h") { print; bad = 1 }
			seen++
		}
		END { exit bad || seen < 10 }'
}

@test "a command includes the library and cmd/ alone" {
	cd "$top"
	grep -n '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' cmd/*.[ch] >"$BATS_TEST_TMPDIR/includes"
	run ! grep -v '"\(libprep/[a-z]*/[a-z0-9_]*\|libprep/version\|cmd/[a-z0-9_]*\)\.h"' "$BATS_TEST_TMPDIR/includes"
}

@test "the library never prints, exits or looks at the environment" {
	skip_without nm
	nm -A -u "$lib" >"$BATS_TEST_TMPDIR/nm"
	awk '
		BEGIN {
			n = split("stdin stdout stderr printf vprintf puts putchar putchar_unlocked perror psignal " \
				"error error_at_line warn warnx vwarn vwarnx err errx verr verrx syslog " \
				"exit _exit _Exit quick_exit abort atexit __assert_fail " \
				"getenv secure_getenv setenv putenv unsetenv clearenv environ __environ setlocale signal sigaction", w, " ")
			for (i = 1; i <= n; i++) { bad[w[i]] = 1; bad["__" w[i] "_chk"] = 1 }
		}
		{ seen++ }
		$NF in bad { print; found = 1 }
		END { exit found || seen < 50 }' "$BATS_TEST_TMPDIR/nm"
}

@test "the library keeps no mutable globals" {
	skip_without objdump
	case $build in *-san) skip "sanitizers add variables of their own" ;; esac
	objdump -t "$lib" >"$BATS_TEST_TMPDIR/symbols"
	[ "$(grep -c 'F \.text' "$BATS_TEST_TMPDIR/symbols")" -gt 50 ]
	awk '
		/file format/ { member = $1 }
		# objects; .data.rel.ro is constant once it is loaded
		$0 ~ /[ \t]O[ \t]/ && $4 ~ /^(\.data|\.bss|\.tdata|\.tbss|\*COM\*)/ && $4 !~ /^\.data\.rel\.ro/ { print member, $NF; bad = 1 }
		END { exit bad }' "$BATS_TEST_TMPDIR/symbols"
}

# Those calls of the C library that change or sync a file or a folder, of them the ones that the commands make. FILEs and what is
# opened in a folder (openat) are only read.
changing_calls() {
	local calls='write pwrite pwrite64 writev pwritev pwritev2 pwritev64 pwritev64v2 copy_file_range sendfile sendfile64 splice
		vmsplice tee fallocate fallocate64 posix_fallocate posix_fallocate64 truncate truncate64 ftruncate ftruncate64 fsync
		fdatasync sync syncfs sync_file_range msync aio_write aio_write64 aio_fsync lio_listio link linkat symlink symlinkat rename
		renameat renameat2 unlink unlinkat remove mkdir mkdirat rmdir mknod mknodat mkfifo mkfifoat chmod fchmod fchmodat lchmod
		chown fchown lchown fchownat utime utimes lutimes futimes futimesat futimens utimensat setxattr lsetxattr fsetxattr
		removexattr lremovexattr fremovexattr creat creat64 open open64 mkstemp mkstemp64 mkstemps mkstemps64 mkostemp
		mkostemp64 mkostemps mkostemps64 mkdtemp tmpfile tmpfile64 freopen freopen64 fdopen'
	# shellcheck disable=SC2086 # a word each
	find "$build/cmd" -type f -perm -100 -exec nm -D --undefined-only {} + | sed -n 's/.* U \([^@]*\).*/\1/p' | sort -u |
		grep -Fxf <(printf '%s\n' $calls)
}

@test "tests/preload knows every call of the commands that changes a file" {
	skip_without nm
	case $build in *-san) skip "sanitizers call for themselves" ;; esac
	cd "$BATS_TEST_TMPDIR"
	changing_calls >calls
	[ "$(wc -l <calls)" -ge 15 ]
	for library in faults record; do
		nm -D --defined-only "$build/tests/$library.so" | awk '{ print $NF }' | sort -u >$library
	done
	run comm -23 calls faults
	[ -z "$output" ]
	# of a power loss: owners and access lists are nobody's content, and a hint makes nothing durable
	run comm -23 calls record
	[ "$output" = "$(printf '%s\n' fchown fsetxattr splice sync_file_range)" ]
	cd "$top"
	run ! grep -rn 'fopen([^"]*"[^r]' libprep cmd
	run ! grep -rn 'openat(.*O_\(WRONLY\|RDWR\|CREAT\)' libprep cmd
}
