#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Small hostile packages that claim or become far more than they hold: every command ends soon, in bounded memory, with
# one line, the right status and no output.

load helper

setup_file() {
	mkdir "$BATS_FILE_TMPDIR/bombs"
	"$build/tests/unit/bomb" "$BATS_FILE_TMPDIR/bombs"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	bombs=$BATS_FILE_TMPDIR/bombs
}

# [told=LINES] bounded STATUS COMMAND...: limited, threads' stacks included
bounded() {
	local want=$1 told=${told:-1}
	shift
	run --separate-stderr limited "$@"
	[ "$status" -eq "$want" ] || { echo "$*: status $status: $stderr"; return 1; }
	[ "$want" -eq 0 ] || [ "${#stderr_lines[@]}" -eq "$told" ] || { echo "$*: $stderr"; return 1; }
	[ ! -e out ]
}

@test "a frame that becomes a thousand times what it says" {
	for codec in zstd xz deflate; do
		told=3 bounded 4 ckm-verify -q -J 2 "$bombs/frame-$codec.ckm"
		[[ ${stderr_lines[0]} = *"frame 0: its $codec data cannot be unpacked" ]]
		[[ ${stderr_lines[2]} = *'1 of 1 frames are damaged' ]]
		bounded 4 ckm-unpack -q -J 2 -o out "$bombs/frame-$codec.ckm"
		bounded 4 ckm-unpack -q -J 2 -f -o out "$bombs/frame-$codec.ckm"
	done
}

@test "an index that becomes more than it says, and one that says too much" {
	truncate -s 1M zeros
	for name in index claim; do
		bounded 4 ckm-verify --quick "$bombs/$name.ckm.index"
		bounded 4 ckm-index --list "$bombs/$name.ckm.index"
		bounded 4 ckm-unpack -q -o out "$bombs/$name.ckm.index"
		bounded 4 ckm-pack -q --base "$bombs/$name.ckm.index" -o out zeros
	done
}

@test "a path of 128 KiB" {
	bounded 0 ckm-verify -q "$bombs/path.ckm"
	bounded 0 ckm-index --list "$bombs/path.ckm"
	bounded 0 ckm-index --list --json "$bombs/path.ckm"
}

@test "a disk of an exabyte: no VHD can hold it, and hardly a file" {
	bounded 0 ckm-verify -q "$bombs/exabyte.ckm"
	bounded 0 ckm-unpack -n "$bombs/exabyte.ckm"
	for format in fixed dynamic; do
		bounded 3 ckm-unpack -q -n --to "$format" "$bombs/exabyte.ckm"
		bounded 3 ckm-unpack -q --to "$format" -o out "$bombs/exabyte.ckm"
		[[ $stderr == *"exabyte.ckm: a disk of 1073741824 GiB: a VHD holds at most 2040 GiB (--to raw)" ]]
	done
	# The file system decides: one in memory takes a file of that size, a hole.
	if truncate -s 1E probe 2>/dev/null; then
		run -0 limited ckm-unpack -q --to raw -o out "$bombs/exabyte.ckm"
		[ "$(stat -c %s out)" -eq $((1 << 60)) ]
	else
		bounded 1 ckm-unpack -q --to raw -o out "$bombs/exabyte.ckm"
	fi
}
