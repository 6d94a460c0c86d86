#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What the commands can still open while they parse: each is made to try, at every call that reads an image or a package,
# to read a file and to write to a folder that it has no business with (tests/preload/breakout.c). What the sandbox itself
# closes, tests/unit/sandbox.c checks.

load helper

setup() {
	breakout=$build/tests/breakout.so
	[ -e "$breakout" ] || skip "$breakout: not built"
	skip_under_valgrind 'it knows no Landlock'
	"$build/tests/unit/sandbox" | grep -q '^ok no_other_files' || skip "no Landlock here"
	cd "$BATS_TEST_TMPDIR" || return
	# the commands may write to the folder for temporary files
	mkdir outside tmp in
	echo secret >outside/file
	new_image in/x.vhd --size 32M
}

# tries COMMAND...: run it; sets calls, read_open, read_last, write_open, write_last
tries() {
	rm -f report
	BREAKOUT_READ=$PWD/outside/file BREAKOUT_WRITE=$PWD/outside BREAKOUT_REPORT=$PWD/report TMPDIR=$PWD/tmp \
		LD_PRELOAD=$breakout ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0:detect_leaks=0 "$@" >out
	read -r calls read_open read_last write_open write_last <report
	echo "$*: $(cat report)"
	[ "$calls" -gt 0 ]
}

# Nothing outside is opened from the first byte on that is parsed. Before it, LOOKS calls look at the ends of what is
# named, to see whether it names other files.
closed() {
	local looks=$1
	shift
	tries "$@"
	[ "$calls" -gt "$looks" ]
	[ "$read_open" -le "$looks" ]
	[ "$write_open" -le "$looks" ]
	[ "$read_last$write_last" = 00 ]
}

@test "an image: nothing but it" {
	closed 2 vhd-info --check in/x.vhd
	closed 4 vhd-info -q in/x.vhd in/x.vhd
	closed 2 vhd-compact -q -o in/y.vhd in/x.vhd
	closed 2 vhd-compact -q -n in/x.vhd
	closed 2 vhd-compact -q -i in/y.vhd
	closed 2 vhd-zerofree -q -o in/z.vhd in/x.vhd
	closed 2 vhd-zerofree -q -i in/z.vhd
	closed 2 vhd-rmfile -q -i --preset pagefile in/z.vhd
	closed 2 vhd-rmfile -q -n --preset pagefile in/x.vhd
	closed 2 vhd-defrag -q -i in/z.vhd
	# a pipe is spooled
	cat in/x.vhd | closed 0 vhd-info -q -
}

@test "a package: it, its index, the seeds and keys that are named" {
	mkdir folder
	cp in/x.vhd folder/copy
	closed 2 ckm-pack -q -1 -o in/x.ckm in/x.vhd
	closed 0 ckm-verify -q in/x.ckm
	closed 0 ckm-unpack -q --no-cache -o in/a.vhd in/x.ckm
	closed 3 ckm-unpack -q -f --no-cache --seed in/x.vhd -o in/a.vhd in/x.ckm
	closed 0 ckm-unpack -q -f --no-cache --seed folder -o in/a.vhd in/x.ckm
	closed 3 ckm-verify -q --seed in/x.ckm in/x.ckm
	closed 4 ckm-pack -q -1 -f --base in/x.ckm --base-image in/x.vhd -o in/d.ckm in/x.vhd
	closed 3 ckm-index -q -o in/local in/x.vhd
	closed 3 ckm-index -q --list in/x.ckm
	closed 6 ckm-index -q --no-cache --compare in/x.ckm in/x.vhd
	closed 3 ckm-fetch -q --no-cache --seed in/x.vhd -o in/f.vhd "file://$PWD/in/x.ckm"
	same_guest in/x.vhd in/f.vhd
}

@test "a differencing disk reads everywhere until its parents are open, and writes nowhere" {
	vhd-undo create -q in/x.vhd in/undo.vhd
	tries vhd-info -q in/undo.vhd
	[ "$read_open" -gt 4 ]
	[ "$read_last" = 0 ]
	[ "$write_open" -le 4 ]
	for command in 'vhd-compact -q -o in/y.vhd' 'ckm-pack -q -1 -o in/y.ckm'; do
		# shellcheck disable=SC2086 # several words
		tries $command in/undo.vhd
		[ "$read_last$write_last" = 00 ]
		[ "$write_open" -le 4 ]
	done
	# known by either end: without its first sector the undo disk finds its base all the same
	truncate -s 512 zeros
	dd if=zeros of=in/undo.vhd conv=notrunc status=none
	tries vhd-compact -q -o tmp/z.vhd in/undo.vhd
	same_guest in/y.vhd tmp/z.vhd
}

@test "a VHDX, which may have a parent: the same" {
	skip_without qemu-img
	to_raw in/x.vhd x.raw
	qemu-img convert -q -f raw -O vhdx x.raw in/x.vhdx
	tries vhd-compact -q --to raw -o in/y.raw in/x.vhdx
	cmp in/y.raw x.raw
	[ "$read_open" -gt 2 ]
	[ "$read_last$write_last" = 00 ]
	[ "$write_open" -le 2 ]
}

@test "a local index reads everywhere, and writes nowhere" {
	ckm-pack -q -1 -o in/x.ckm in/x.vhd
	ckm-index -q -o in/local in/x.vhd
	tries ckm-unpack -q --no-cache --seed in/local -o in/a.vhd in/x.ckm
	[ "$read_last" = 1 ]
	[ "$write_open" -le 3 ]
}

@test "an undo disk: nothing but it and its base, once that is found" {
	for verb in discard commit; do
		closed 2 vhd-undo create -q in/x.vhd in/undo.vhd
		vhd-rmfile -q -i --preset pagefile in/undo.vhd
		tries vhd-undo status -q in/undo.vhd
		[ "$read_last$write_last" = 00 ]
		[ "$write_open" -le 2 ]
		tries vhd-undo $verb -q in/undo.vhd
		[ "$read_last$write_last" = 00 ]
		# its own header, and the names in it
		[ "$write_open" -le 16 ]
	done
}
