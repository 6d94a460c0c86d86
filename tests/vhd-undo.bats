#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# vhd-undo: an undo disk is what Windows, 7-Zip and libvhdi take for one; its base stays as it is until a commit, which
# happens wholly or not at all, wherever it is stopped.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	faults=$build/tests/faults.so
}

teardown() {
	[ -z "${open-}" ] || { chmod -R u+w "$open" && rm -r "$open"; }
}

# A base with files, and what the guest sees of it.
make_base() {
	new_image base.vhd --size 32M --format "${1:-dynamic}"
	to_raw base.vhd base.raw
	sha256sum base.vhd >base.sum
}

# What a virtual machine would do: change the undo disk. Leaves the disk as it then is in new.raw.
use_undo() {
	vhd-rmfile -q -i --preset pagefile --preset temp --preset updates "${1:-undo.vhd}"
	seven "${1:-undo.vhd}" >new.raw
	run ! cmp -s new.raw base.raw
}

# 7-Zip's view of a child and its parents; another reader than ours.
seven() {
	skip_without 7zz
	7zz x -tvhd -so "$1" 2>/dev/null
}

mode() {
	stat -c %a "$1"
}

@test "create: a differencing disk over an unchanged, protected base" {
	make_base
	chmod 664 base.vhd
	run -0 --separate-stderr vhd-undo create base.vhd undo.vhd
	[ "$output" = "$PWD/undo.vhd: undo disk of $PWD/base.vhd made" ]
	[ -z "$stderr" ]
	sha256sum -c --quiet base.sum
	[ "$(mode base.vhd)" = 444 ]
	[ -s base.vhd.prep-undo ]
	# empty, and the same disk
	[ "$(size_of undo.vhd)" -lt 32768 ]
	[ "$(count_blocks undo.vhd)" -eq 0 ]
	seven undo.vhd | cmp - base.raw
	# what is in it: type, the base's id, size and geometry, no time of the parent
	[ "$(be undo.vhd 60 4)" -eq 4 ]
	[ "$(peek undo.vhd 552 16)" = "$(peek base.vhd 68 16)" ]
	[ "$(peek undo.vhd 48 12)" = "$(peek base.vhd 48 12)" ]
	[ "$(be undo.vhd 568 4)" -eq 0 ]
	[ "$(peek undo.vhd 28 4)" = 77696e20 ]
	# locators: absolute and relative, UTF-16LE
	[ "$(peek undo.vhd 1088 4)" = 57326b75 ]
	[ "$(peek undo.vhd 1112 4)" = 57327275 ]
	[ "$(tail -c +$(($(be undo.vhd 1128 8) + 1)) undo.vhd | head -c "$(be undo.vhd 1120 4)" | tr -d '\0')" = '.\base.vhd' ]
	absolute=$(tail -c +$(($(be undo.vhd 1104 8) + 1)) undo.vhd | head -c "$(be undo.vhd 1096 4)" | tr -d '\0')
	[ "${absolute//\\//}" = "C:$PWD/base.vhd" ]
}

@test "libvhdi and qemu-img take an undo disk for what it is" {
	skip_without vhdiinfo
	make_base
	vhd-undo create -q base.vhd undo.vhd
	vhdiinfo base.vhd | sed -n 's/.*Identifier.*: //p' >id
	vhdiinfo undo.vhd >out
	grep -q 'Disk type.*Differential' out
	[ "$(sed -n 's/.*Parent identifier.*: //p' out)" = "$(cat id)" ]
	grep -q "Parent filename.*base.vhd" out
	# its own sectors; it knows no parents
	qemu-img info -f vpc undo.vhd >/dev/null
	[ "$(guest_size undo.vhd)" = "$(guest_size base.vhd)" ]
}

@test "while an undo disk stands, nothing here writes to its base" {
	make_base
	vhd-undo create -q base.vhd undo.vhd
	new_image other.vhd --size 32M
	ckm-pack -q -0 -o other.ckm other.vhd
	for c in 'vhd-rmfile -i base.vhd /pagefile.sys' 'vhd-zerofree -i base.vhd' 'vhd-compact -i base.vhd' \
		'vhd-defrag -i base.vhd' 'vhd-compact -f -o base.vhd other.vhd' 'vhd-zerofree -f -o base.vhd other.vhd' \
		'vhd-info -f --svg base.vhd other.vhd' 'ckm-index -f -o base.vhd other.vhd' 'ckm-unpack -f -o base.vhd other.ckm' \
		"ckm-fetch --no-cache -f -o base.vhd file://$PWD/other.ckm"; do
		read -r -a words <<<"$c"
		run -3 "${words[@]}"
		[[ $output = *": base.vhd: the undo disk $PWD/undo.vhd stands on it: 'vhd-undo commit' or 'vhd-undo discard' first" ]]
		sha256sum -c --quiet base.sum
	done
	ln -s base.vhd link.vhd
	run -3 vhd-zerofree -i link.vhd
	# by a name that has no mark beside it
	ln base.vhd hard.vhd
	for c in 'vhd-zerofree -i' 'vhd-compact -i' 'vhd-defrag -i' 'vhd-rmfile -i --preset temp'; do
		read -r -a words <<<"$c"
		run -3 "${words[@]}" hard.vhd
		[[ $output = *": hard.vhd: read-only, as the base of an undo disk is: 'chmod u+w' if it is none" ]]
	done
	rm hard.vhd
	sha256sum -c --quiet base.sum
	run -3 vhd-undo create base.vhd second.vhd
	[ ! -e second.vhd ]
	run -3 vhd-undo create -f base.vhd undo.vhd
	# read it may be
	vhd-info --quick base.vhd >out
	grep -q "^  undo disk:   $PWD/undo.vhd$" out
	vhd-zerofree -q -o lean.vhd base.vhd
	sha256sum -c --quiet base.sum
}

@test "discard: the undo disk and the protection go, the base is as it was" {
	make_base
	chmod 640 base.vhd
	vhd-undo create -q base.vhd undo.vhd
	use_undo
	vhd-undo discard -n undo.vhd
	[ -e undo.vhd ]
	run -0 vhd-undo discard undo.vhd
	[[ $output = "undo.vhd: undo disk discarded: "*", base.vhd stays as it was" ]]
	sha256sum -c --quiet base.sum
	[ "$(mode base.vhd)" = 640 ]
	[ ! -e undo.vhd ]
	[ ! -e base.vhd.prep-undo ]
	vhd-zerofree -q -i base.vhd
}

@test "commit: the base becomes what the undo disk showed, whatever kind it is" {
	for format in dynamic fixed; do
		make_base $format
		chmod 640 base.vhd
		vhd-undo create -q base.vhd undo.vhd
		use_undo
		vhd-undo commit -q -n undo.vhd
		sha256sum -c --quiet base.sum
		[ "$(mode base.vhd)" = 440 ]
		run -0 vhd-undo commit undo.vhd
		[[ $output = "undo.vhd: undo disk committed: "*" to base.vhd" ]]
		same_guest base.vhd new.raw
		sound_ntfs base.vhd
		[ "$(mode base.vhd)" = 640 ]
		[ "$(echo base.vhd*)" = base.vhd ]
		[ ! -e undo.vhd ]
		[ "$(be base.vhd $(($(size_of base.vhd) - 512 + 60)) 4)" -ne 4 ]
		chmod u+w base.vhd
		rm base.vhd
	done
}

@test "an undo disk over an undo disk: each is committed into the one below" {
	make_base
	vhd-undo create -q base.vhd one.vhd
	vhd-rmfile -q -i --preset pagefile one.vhd
	seven one.vhd >one.raw
	vhd-undo create -q one.vhd two.vhd
	# the lower one is a base now
	run -3 vhd-undo discard one.vhd
	run -3 vhd-undo commit one.vhd
	[[ $output = *'the undo disk '*'two.vhd stands on it'* ]]
	run -3 vhd-rmfile -i --preset temp one.vhd
	use_undo two.vhd
	vhd-undo commit -q two.vhd
	sha256sum -c --quiet base.sum
	seven one.vhd | cmp - new.raw
	vhd-undo commit -q one.vhd
	same_guest base.vhd new.raw
	sound_ntfs base.vhd
}

@test "zeros that an undo disk holds are zeros in the base, and free on the host" {
	skip_without qemu-io
	qemu-img create -q -f vpc -o force_size base.vhd 8M
	qemu-io -f vpc -c 'write -q -P 85 0 4M' base.vhd
	vhd-undo create -q base.vhd undo.vhd
	# qemu does not know the base, and makes the whole block the undo disk's own: zeros but for this. It puts the block
	# behind the table.
	qemu-io -f vpc -c 'write -q -P 102 2M 64k' undo.vhd
	seven undo.vhd >new.raw
	[ "$(be new.raw $((2 * 1048576)) 2)" -eq $((0x6666)) ]
	[ "$(be new.raw $((3 * 1048576)) 2)" -eq 0 ]
	[ "$(be new.raw 0 2)" -eq $((0x5555)) ]
	before=$(stat -c %b base.vhd)
	vhd-undo commit -q undo.vhd
	same_guest base.vhd new.raw
	[ "$(stat -c %b base.vhd)" -lt $((before - 3000)) ]
}

@test "status: what an undo disk holds, by its own name and by its base's" {
	skip_without jq
	make_base
	run -0 vhd-undo status base.vhd
	[ "$output" = 'base.vhd: no undo disk stands on it' ]
	vhd-undo create -q base.vhd undo.vhd
	use_undo
	vhd-undo status -v undo.vhd >out
	grep -q '^  base:        base.vhd, unchanged since$' out
	vhd-undo status -j undo.vhd >a
	vhd-undo status -j base.vhd >b
	[ "$(jq -c '[.base, .undo_present, .base_marked, .commit_begun, .base_changed]' a)" = '["base.vhd",true,true,false,false]' ]
	[ "$(jq -c '[.own_bytes, .blocks]' a)" = "$(jq -c '[.own_bytes, .blocks]' b)" ]
	[ "$(jq .blocks a)" = "$(count_blocks undo.vhd)" ]
	[ "$(jq '.own_bytes % 512' a)" = 0 ]
	[ "$(jq .own_bytes a)" = "$(vhd-info -j undo.vhd | jq .vhd.own_bytes)" ]
}

@test "a base that was changed is noticed, and not committed to" {
	make_base
	vhd-undo create -q base.vhd undo.vhd
	use_undo
	chmod u+w base.vhd
	touch base.vhd
	run -4 --separate-stderr vhd-undo status undo.vhd
	[[ $output = *'base:        base.vhd, CHANGED since'* ]]
	[[ $stderr = 'vhd-undo: base.vhd: changed since undo.vhd was made, which no longer fits it' ]]
	run -3 vhd-undo commit undo.vhd
	[[ $output = *'base.vhd: changed since undo.vhd was made'*'--ignore-changed'* ]]
	run -3 vhd-undo commit -n undo.vhd
	sha256sum -c --quiet base.sum
	vhd-undo commit -q --ignore-changed undo.vhd
	same_guest base.vhd new.raw
}

@test "a copy of the undo disk does not lift the protection while the disk itself stands" {
	make_base
	vhd-undo create -q base.vhd undo.vhd
	cp undo.vhd copy.vhd
	use_undo
	for verb in commit discard 'discard -n'; do
		run -3 vhd-undo $verb copy.vhd
		[[ $output = "vhd-undo: copy.vhd: a copy of $PWD/undo.vhd, the undo disk that stands on base.vhd"* ]]
	done
	[ -e copy.vhd ]
	vhd-undo status copy.vhd | grep -q 'unchanged since'
	run -3 vhd-zerofree -i base.vhd
	sha256sum -c --quiet base.sum
	# under another name it is the same disk
	ln undo.vhd link.vhd
	vhd-undo discard -n link.vhd
	# base and undo disk copied together are a pair of their own, also while the first one stands
	mkdir pair
	cp -p base.vhd base.vhd.prep-undo undo.vhd pair
	vhd-undo commit -q pair/undo.vhd
	[ "$(ls pair)" = base.vhd ]
	same_guest pair/base.vhd new.raw
	sha256sum -c --quiet base.sum
	# and a copy takes the place of one that is lost
	rm undo.vhd
	vhd-undo discard -q copy.vhd
	[ ! -e base.vhd.prep-undo ]
}

@test "in another folder, and moved there afterwards" {
	make_base
	mkdir -p sub/deep
	vhd-undo create -q base.vhd sub/deep/undo.vhd
	[ "$(tail -c +$(($(be sub/deep/undo.vhd 1128 8) + 1)) sub/deep/undo.vhd | head -c "$(be sub/deep/undo.vhd 1120 4)" | tr -d '\0')" = '.\..\..\base.vhd' ]
	# 7-Zip finds a base beside its child alone
	vhd-rmfile -q -i --preset pagefile sub/deep/undo.vhd
	vhd-compact -q --to raw -o new.raw sub/deep/undo.vhd
	run ! cmp -s new.raw base.raw
	# both moved together: relative paths hold
	mkdir other
	mv base.vhd base.vhd.prep-undo sub other
	vhd-undo status other/sub/deep/undo.vhd | grep -q 'unchanged since'
	# apart: by --parent
	mv other/sub/deep/undo.vhd .
	run -3 vhd-undo commit undo.vhd
	vhd-undo commit -q --parent other/base.vhd undo.vhd
	same_guest other/base.vhd new.raw
	[ "$(ls other)" = "$(printf 'base.vhd\nsub')" ]
}

@test "removed by hand: the base is still protected, and can be freed or used again" {
	make_base
	vhd-undo create -q base.vhd undo.vhd
	rm undo.vhd
	run -3 vhd-zerofree -i base.vhd
	[[ $output = *"which is not there: 'vhd-undo discard --parent base.vhd $PWD/undo.vhd' lifts the mark" ]]
	vhd-undo status base.vhd | grep -q 'undo.vhd: undo disk, not there'
	run -1 vhd-undo discard undo.vhd
	run -3 vhd-undo discard --parent base.vhd other.vhd
	vhd-undo create -q base.vhd again.vhd
	rm again.vhd
	vhd-undo discard --parent base.vhd again.vhd
	[ "$(mode base.vhd)" = 644 ]
	[ "$(echo base.vhd*)" = base.vhd ]
}

@test "what cannot have an undo disk, or is none" {
	new_image base.raw --size 32M --format raw
	run -3 vhd-undo create base.raw undo.vhd
	[[ $output = *'base.raw: not a VHD: an undo disk needs one as its base'* ]]
	make_base
	poke_footers base.vhd 84 01
	run -3 vhd-undo create base.vhd undo.vhd
	[[ $output = *'saved state'* ]]
	poke_footers base.vhd 84 00
	touch there.vhd
	run -3 vhd-undo create base.vhd there.vhd
	[[ $output = *'the file exists'* ]]
	[ ! -e base.vhd.prep-undo ]
	[ "$(mode base.vhd)" = 644 ]
	run -2 vhd-undo create -f base.vhd base.vhd
	run -3 vhd-undo discard base.vhd
	[[ $output = *'not an undo disk: no differencing VHD'* ]]
	run -3 vhd-undo commit base.vhd
	[ -e base.vhd ]
	vhd-undo create -q -n base.vhd undo.vhd
	[ "$(echo ./*undo*)" = './*undo*' ]
	vhd-undo create -q -f base.vhd there.vhd
	[ "$(be there.vhd 60 4)" -eq 4 ]
	for c in '' 'frob' 'create base.vhd' 'commit' 'commit a b' 'status' 'discard -f there.vhd' 'status --ignore-changed there.vhd'; do
		read -r -a words <<<"$c"
		run -2 vhd-undo "${words[@]}"
	done
	run -1 vhd-undo create absent.vhd undo.vhd
	run -1 vhd-undo commit absent.vhd
}

@test "made on what is about to be replaced: it is not" {
	make_base
	new_image other.vhd --size 32M
	(cat other.vhd; vhd-undo create -q base.vhd undo.vhd) | { run -3 vhd-compact -f -o base.vhd; echo "$output" >said; }
	grep -q "/base.vhd: the undo disk $PWD/undo.vhd stands on it" said
	sha256sum -c --quiet base.sum
}

@test "a mark that is no file, and one with a name that a terminal would obey" {
	new_image base.vhd --size 32M
	mkfifo base.vhd.prep-undo
	run -4 timeout 10 vhd-info --quick base.vhd
	[[ $output = *'base.vhd.prep-undo: not the mark of an undo disk, which is a file' ]]
	rm base.vhd.prep-undo
	printf '%s\n' 'prep-undo 1' 'id 00112233-4455-6677-8899-aabbccddeeff' 'mode 644' 'base 1 1.000000000' 'state open' \
		"undo /x"$'\e''[2J' >base.vhd.prep-undo
	vhd-info --quick base.vhd >out
	grep -q 'undo disk: */x' out
	run ! grep -q $'\e' out
}

@test "an undo disk or a base that is in use is left alone" {
	skip_without qemu-io
	make_base
	vhd-undo create -q base.vhd undo.vhd
	use_undo
	for file in undo.vhd base.vhd; do
		chmod u+w base.vhd
		options=(-n)
		[ $file = undo.vhd ] || options+=(--ignore-changed)
		hold $file
		run -3 vhd-undo commit undo.vhd
		run -3 vhd-undo commit "${options[@]}" undo.vhd
		release
		[[ $output = *"$file: in use by another process" ]]
		[ -e undo.vhd ]
	done
	chmod 444 base.vhd
	vhd-undo commit -q undo.vhd
	same_guest base.vhd new.raw
}

@test "a pair made by Windows: commit" {
	sample ntfs-parent.vhd
	sample ntfs-differential.vhd
	seven ntfs-differential.vhd >want.raw
	vhd-undo status ntfs-differential.vhd >out
	grep -q 'holds:       104 KiB in 208 sectors of 4.00 MiB' out
	grep -q 'ntfs-parent.vhd, not marked as a base' out
	vhd-undo commit -q ntfs-differential.vhd
	same_guest ntfs-parent.vhd want.raw
	[ "$(echo ntfs*)" = ntfs-parent.vhd ]
	sample ntfs-parent.vhd
	sample ntfs-differential.vhd
	sha256sum ntfs-parent.vhd >before
	vhd-undo discard -q ntfs-differential.vhd
	sha256sum -c --quiet before
	[ "$(echo ntfs*)" = ntfs-parent.vhd ]
}

@test "sizes that differ cannot be committed" {
	qemu-img create -q -f vpc -o force_size base.vhd 8M
	vhd-undo create -q base.vhd undo.vhd
	poke_footers undo.vhd 48 0000000000700000
	run -3 vhd-undo commit undo.vhd
	[[ $output = *'undo.vhd: a disk of 7340032 bytes, its base base.vhd has 8388608'* ]]
	[ "$(mode base.vhd)" = 444 ]
	vhd-undo status base.vhd | grep -q 'unchanged since'
}

# A command with a fault (tests/preload/faults.c).
with_fault() {
	env FAULTS_HOW="$1" FAULTS_AT="$2" FAULTS_COUNT="$BATS_TEST_TMPDIR/count" LD_PRELOAD="$faults" \
		ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0:detect_leaks=0" "${@:3}"
}

# A command as it is, but that it waits for no disk.
quick() {
	with_fault none 0 "$@"
}

# A small pair in made/, and what the disk is before and after a commit.
small_pair() {
	mkdir -p made copy
	sample ntfs-dynamic.vhd made/base.vhd
	vhd-undo create -q made/base.vhd made/undo.vhd
	vhd-rmfile -q -i -r made/undo.vhd /a_directory
	# every kind of change: pages, and zeros
	dd if=/dev/zero of=made/undo.vhd bs=512 count=9 seek=$(($(block_data made/undo.vhd 1) / 512 + 100)) conv=notrunc status=none
	to_raw made/base.vhd old.raw
	seven made/undo.vhd >new.raw
	run ! cmp -s old.raw new.raw
}

fresh() {
	rm -rf copy
	cp -a made copy
	# cp keeps the time, and the mark names the undo disk where it is now
	sed -i "s|^undo .*|undo $PWD/copy/undo.vhd|" copy/base.vhd.prep-undo
}

@test "a commit that is killed or fails at any call: old, or finished by the next try" {
	[ -e "$faults" ] || skip "$faults: not built"
	small_pair
	for how in kill tear eio enospc; do
		fresh
		with_fault $how 0 vhd-undo commit -q copy/undo.vhd
		count=$(cat count)
		[ "$count" -gt 5 ]
		cp copy/base.vhd want.vhd
		same_guest want.vhd new.raw
		old=0
		for ((n = 1; n <= count; n++)); do
			fresh
			status=0
			with_fault $how $n vhd-undo commit -q copy/undo.vhd 2>err || status=$?
			[ $how = eio ] || [ $how = enospc ] || [ $status -eq 137 ]
			echo "$how $n: $status $(head -c 200 err)"
			# in between: nobody else changes the base; who reads it sees it old or new
			if [ -e copy/base.vhd.prep-undo ] && [ -e copy/undo.vhd ]; then
				run -3 quick vhd-zerofree -i copy/base.vhd
			fi
			quick vhd-compact -q --to raw -f -o got.raw copy/base.vhd
			if cmp -s got.raw old.raw; then
				old=$((old + 1))
				[ -e copy/undo.vhd ]
			else
				cmp got.raw new.raw
			fi
			# the undo disk shows the new disk as long as it is there, and its commit can be tried again
			if [ -e copy/undo.vhd ]; then
				quick vhd-compact -q --to raw -f -o got.raw copy/undo.vhd
				cmp got.raw new.raw
				run -0 quick vhd-undo commit -q copy/undo.vhd
			fi
			same_guest copy/base.vhd new.raw
			# the last step may be left to the next command that writes
			[ ! -e copy/base.vhd.prep-undo ] || quick vhd-rmfile -q -i --ignore-missing copy/base.vhd /none
			[ "$(ls -A copy)" = base.vhd ]
			[ "$(mode copy/base.vhd)" = "$(mode want.vhd)" ]
		done
		[ $old -gt 0 ]
	done
}

@test "create and discard killed at any call: they can be done again" {
	[ -e "$faults" ] || skip "$faults: not built"
	mkdir made copy
	sample ntfs-dynamic.vhd made/base.vhd
	to_raw made/base.vhd old.raw
	for how in kill eio; do
		rm -rf copy
		cp -a made copy
		with_fault $how 0 vhd-undo create -q copy/base.vhd copy/undo.vhd
		count=$(cat count)
		for ((n = 1; n <= count; n++)); do
			chmod -R u+w copy
			rm -rf copy
			cp -a made copy
			with_fault $how $n vhd-undo create -q copy/base.vhd copy/undo.vhd 2>err || true
			same_guest copy/base.vhd old.raw
			if [ ! -e copy/undo.vhd ]; then
				run -0 quick vhd-undo create -q copy/base.vhd copy/undo.vhd
			fi
			quick vhd-undo status copy/undo.vhd | grep -q 'unchanged since'
			[ "$(mode copy/base.vhd)" = 444 ]
			quick vhd-undo discard -q copy/undo.vhd
			[ "$(ls -A copy)" = base.vhd ]
			[ "$(mode copy/base.vhd)" = 644 ]
		done
		quick vhd-undo create -q copy/base.vhd copy/undo.vhd
		with_fault $how 0 vhd-undo discard -q copy/undo.vhd
		count=$(cat count)
		for ((n = 1; n <= count; n++)); do
			quick vhd-undo create -q copy/base.vhd copy/undo.vhd
			with_fault $how $n vhd-undo discard -q copy/undo.vhd 2>err || true
			same_guest copy/base.vhd old.raw
			[ ! -e copy/base.vhd.prep-undo ] || quick vhd-undo discard -q --parent copy/base.vhd copy/undo.vhd
			[ "$(ls -A copy)" = base.vhd ]
			[ "$(mode copy/base.vhd)" = 644 ]
		done
	done
}

# As somebody who may read and write files here by their modes alone.
unprivileged() {
	if [ "$(id -u)" -eq 0 ]; then
		setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
	else
		"$@"
	fi
}

@test "a commit that was cut off, where the base or its folder cannot be written: refused, and nothing changed" {
	[ -e "$faults" ] || skip "$faults: not built"
	skip_without setpriv
	# bats' own folders are closed to others
	open=$(mktemp -d -p /tmp)
	chmod 755 "$open"
	unprivileged test -x "$build/cmd/vhd-info" || skip "only root can run what is in $build"
	mkdir "$open/base" "$open/child"
	new_image "$open/base/base.vhd" --size 32M
	vhd-undo create -q "$open/base/base.vhd" "$open/child/undo.vhd"
	vhd-rmfile -q -i "$open/child/undo.vhd" --preset pagefile
	vhd-compact -q --to raw -o new.raw "$open/child/undo.vhd"
	cp -a "$open" before
	with_fault kill 0 vhd-undo commit -q "$open/child/undo.vhd"
	count=$(cat count)
	for ((n = count; n > 0; n--)); do
		chmod -R u+w "$open"
		rm -r "$open/base" "$open/child"
		cp -a before/base before/child "$open"
		with_fault kill "$n" vhd-undo commit -q "$open/child/undo.vhd" || true
		[ ! -e "$open/base/base.vhd.prep-journal" ] || break
	done
	[ $n -gt 0 ]
	chmod 777 "$open/child"
	chmod 666 "$open/child/undo.vhd"
	for mode in 444 666; do
		chmod $mode "$open/base/base.vhd"
		chmod 555 "$open/base"
		sha256sum "$open"/*/* >sums
		for words in "vhd-info $open/base/base.vhd" "vhd-zerofree -o $open/child/x $open/base/base.vhd" \
			"vhd-info $open/child/undo.vhd" "vhd-compact -q --to raw -o - $open/child/undo.vhd" \
			"ckm-pack -q -o $open/child/x $open/child/undo.vhd" "vhd-rmfile -i $open/child/undo.vhd /x" \
			"vhd-undo commit $open/child/undo.vhd"; do
			# shellcheck disable=SC2086 # several words
			run -3 --separate-stderr unprivileged env "PATH=$PATH" $words
			echo "$words: $stderr"
			[ "${#stderr_lines[@]}" -eq 1 ]
			[[ $stderr = *"base.vhd: a change that was cut off waits in "*"/base/base.vhd.prep-journal, and "*" cannot be written to finish it: Permission denied ("* ]]
			case $mode:$words in
			444:*) [[ $stderr = *'and the image cannot'* ]] ;;
			# given the child alone, a command may not write to either
			666:*/base.vhd) [[ $stderr = *'and its folder cannot'* ]] ;;
			esac
		done
		sha256sum "$open"/*/* | cmp - sums
	done
	# as in /tmp: nobody else's file is removed there
	chmod 1777 "$open/base"
	run -3 --separate-stderr unprivileged env "PATH=$PATH" vhd-info "$open/base/base.vhd"
	[[ $stderr = *'and its folder cannot be written to finish it: Operation not permitted ('* ]]
	sha256sum "$open"/*/* | cmp - sums
	# who may, finishes it
	chmod 755 "$open/base"
	vhd-info -q "$open/base/base.vhd"
	[ ! -e "$open/base/base.vhd.prep-journal" ]
	same_guest "$open/base/base.vhd" new.raw
}

@test "a commit that was cut off is not forgotten where the undo disk was moved" {
	make_base
	mkdir w
	mv base.vhd w
	vhd-undo create -q w/base.vhd w/undo.vhd
	vhd-rmfile -q -i --preset pagefile w/undo.vhd
	skip_under_valgrind 'its threads survive being killed'
	open=$PWD/w
	cp -a w before
	for n in $(seq 2 40); do
		chmod -R u+w w
		rm -r w
		cp -a before w
		env FAULTS_HOW=kill FAULTS_AT="$n" LD_PRELOAD="$faults" ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 \
			vhd-undo commit -q w/undo.vhd 2>/dev/null || true
		! grep -q 'state commit' w/base.vhd.prep-undo || [ -e w/base.vhd.prep-journal ] || break
	done
	grep -q 'state commit' w/base.vhd.prep-undo
	mv w moved
	open=$PWD/moved
	run -3 vhd-rmfile -n -i moved/base.vhd /bootmgr
	[[ $output == *'cut off'* ]]
	run -3 vhd-rmfile -i moved/base.vhd /bootmgr
	[ -e moved/base.vhd.prep-undo ]
	chmod -R u+w before moved
	run -0 vhd-undo commit moved/undo.vhd
	[ ! -e moved/base.vhd.prep-undo ]
	vhd-info --check -q moved/base.vhd
	open=$PWD/before
}
