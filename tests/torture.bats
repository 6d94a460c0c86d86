#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# A short version of scripts/torture: some points of every command that writes, from all over it; another some in every
# run, by the seed that is printed.

load helper

torture() {
	local status=0
	BUILD=$build "$top/scripts/torture" "$@" >log 2>&1 || status=$?
	if [ $status -ne 0 ]; then
		cat log
		return $status
	fi
	echo "# $(tail -n 1 log)" >&3
}

setup() {
	skip_without mkntfs qemu-img mcopy bc
	cd "$BATS_TEST_TMPDIR" || return
}

@test "killed, torn, failed, interrupted: old or new, the status right, nothing left" {
	torture --seconds 25 crash
	# every scenario was gone through
	[ "$(grep -c '^crash .*; [1-9][0-9]* points$' log)" -ge 27 ]
}

@test "files that must have names from the start: the same" {
	export FAULTS_NO_TMPFILE=1 RECORD_NO_TMPFILE=1
	torture --seconds 8 crash.compact_o crash.undo_create crash.pack_new power.compact_o power.pack_f
}

@test "a power loss: unsynced writes lost in any order" {
	torture --seconds 15 power
}

@test "two commands on one image, and an image that QEMU has" {
	torture --seconds 2 locks
}

@test "a storm of signals" {
	torture --seconds 10 signals
}

# The judges can say no: dd empties a file before it writes, and syncs nothing.
@test "what loses data is found" {
	local dd=(dd if=../new of=file status=none) judge="cmp -s file ../old || cmp -s file ../new"
	mkdir work
	echo old >old
	echo new >new
	cp old work/file
	run -1 "$build/tests/sweep" "$build/tests/faults.so" kill work "$judge" "${dd[@]}"
	[[ $output == *'the judge says no'* ]]
	run -1 "$build/tests/powerloss" "$build/tests/record.so" "$build/tests/faults.so" work "$judge" "${dd[@]}"
	[[ $output == *'neither old nor new'* ]]
	# and with what is safe they are content
	"$build/tests/sweep" "$build/tests/faults.so" kill work "$judge" true 2>&1 | grep -q 'no such calls'
}
