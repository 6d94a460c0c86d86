#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# A short version of scripts/torture: some points of every command that writes, from all over it; another some in every
# run, by the seed that is printed.

load helper
load poke

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
	skip_under_valgrind 'scripts/torture valgrind runs every scenario under it'
	skip_without mkntfs qemu-img mcopy bc
	cd "$BATS_TEST_TMPDIR" || return
}

@test "killed, torn, failed, interrupted: old or new, the status right, nothing left" {
	torture --seconds 25 crash
	# every scenario was gone through
	[ "$(grep -c '^crash .*; [1-9][0-9]* points' log)" -ge 28 ]
}

@test "files that must have names from the start: the same" {
	export FAULTS_NO_TMPFILE=1 RECORD_NO_TMPFILE=1
	torture --seconds 8 crash.compact_o crash.undo_create crash.pack_new power.compact_o power.pack_f
}

# Cut a command that writes `out` off in the middle, and see who may read what it leaves.
private() {
	local how=(FAULTS_NO_TMPFILE=1 FAULTS_HOW=kill "LD_PRELOAD=$build/tests/faults.so"
		"ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0:detect_leaks=0")
	env "${how[@]}" "FAULTS_COUNT=$PWD/count" "$@"
	[ "$(stat -c %a out)" = 644 ]
	rm out*
	run env "${how[@]}" "FAULTS_AT=$(($(cat count) / 2))" "$@"
	[ "$status" -eq 137 ]
	run find . -path './.*.prep-part' -printf '%m %p\n' -o -path './out.part*' -printf '%m %p\n'
	echo "$*: $output"
	[ -n "$output" ]
	run ! grep -v '^[67]00 ' <<<"$output"
	find . -mindepth 1 ! -path './x.*' -delete
}

@test "what is unfinished is its owner's alone, and then as the umask says" {
	umask 022
	new_image x.vhd --size 32M
	ckm-pack -q -o x.ckm x.vhd
	private vhd-compact -q -o out x.vhd
	private vhd-zerofree -q -o out x.vhd
	private vhd-rmfile -q -o out x.vhd /pagefile.sys
	private vhd-defrag -q -o out x.vhd
	private ckm-pack -q -o out x.vhd
	private ckm-unpack -q -o out x.ckm
	private ckm-index -q -o out x.vhd
	private ckm-fetch -q --no-cache -o out "file://$PWD/x.ckm"
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

@test "where QEMU sees another disk than we do, the judges say no" {
	mkdir want
	new_image x.vhd --size 32M
	judge() {
		want=want PATH=$build/tests:$PATH sh -c '. "$1"; read_disk x.vhd' sh "$top/tests/judges.sh"
	}
	judge
	# sectors that are not in use: zeros, but for QEMU
	poke x.vhd $(($(be x.vhd "$(bat_entry x.vhd 0)" 4) * 512)) 00
	run -1 judge
	[[ $output = *'x.vhd: QEMU sees another disk: '* ]]
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
