#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# Fixed VHDs and raw disks whose size is a multiple of something, as Azure wants it; and what no command looks into.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# fixed_vhd IMAGE SIZE: whether it is a fixed VHD of that size, footer and geometry included.
fixed_vhd() {
	local end=$2 chs
	[ "$(size_of "$1")" -eq $((end + 512)) ]
	[ "$(be "$1" $((end + 60)) 4)" -eq 2 ]
	[ "$(be "$1" $((end + 48)) 8)" -eq "$2" ]
	[ "$(peek "$1" $((end + 16)) 8)" = ffffffffffffffff ]
	chs=$(($(be "$1" $((end + 56)) 2) * $(be "$1" $((end + 58)) 1) * $(be "$1" $((end + 59)) 1) * 512))
	[ $chs -le "$2" ]
	[ $chs -gt $(($2 - 1048576)) ]
}

@test "--align 1M: zeros behind the disk, the size said, footer and geometry follow" {
	skip_without jq
	sample ext2.vhd
	to_raw ext2.vhd want.raw
	[ "$(size_of want.raw)" -eq 4212736 ]
	truncate -s 5M want.raw
	run -0 vhd-compact --to fixed --align 1M -o a.vhd ext2.vhd
	[[ $output = *', a disk of 5242880 bytes'* ]]
	fixed_vhd a.vhd 5242880
	same_guest a.vhd want.raw
	vhd-info a.vhd | grep -q 'original:    4212736 bytes (resized since)'
	# the id stays
	[ "$(peek a.vhd $((5242880 + 68)) 16)" = "$(peek ext2.vhd 68 16)" ]
	vhd-compact -j --to raw --align 1M -o a.raw ext2.vhd >out
	[ "$(jq -c '[.disk_size, .format]' out)" = '[5242880,"raw"]' ]
	cmp a.raw want.raw
	[ "$(vhd-compact -j -n --to fixed --align 1M ext2.vhd | jq .disk_size)" = 5242880 ]
	# from a pipe and into one
	cat ext2.vhd | vhd-compact -q --to fixed --align 1M | cmp - a.vhd
	# in place, and where nothing is to be added
	cp ext2.vhd b.vhd
	vhd-compact -q -i --to fixed --align 1M b.vhd
	cmp b.vhd a.vhd
	vhd-compact -q --to fixed --align 1M -o c.vhd a.vhd
	cmp c.vhd a.vhd
	vhd-compact -q --to fixed --align 4K -o d.vhd ext2.vhd
	fixed_vhd d.vhd 4214784
}

@test "--align: what makes no sense is wrong usage, what cannot be is refused" {
	sample ext2.vhd
	for args in '--align 1M' '--to dynamic --align 1M' '--to fixed --align 0' '--to fixed --align 1000' '--to raw --align 2G'; do
		read -r -a words <<<"$args"
		run -2 vhd-compact "${words[@]}" -o x.vhd ext2.vhd
		[ ! -e x.vhd ]
	done
	truncate -s $((2040 * 1024 ** 3)) big.raw 2>/dev/null || skip "no files of 2 TiB here"
	vhd-compact -q -n --to fixed --align 1M big.raw
	truncate -s $((2040 * 1024 ** 3 - 512)) big.raw
	vhd-compact -q -n --to fixed --align 1M big.raw
	truncate -s $((2040 * 1024 ** 3 - 1048576 + 512)) big.raw
	run -3 vhd-compact -n --to fixed --align 1000M big.raw
	[[ $output = *'a VHD holds at most 2040 GiB'* ]]
}

@test "a GPT disk that grows: its partitions stay, and its second table where it was" {
	new_image x.vhd --size 64M
	vhd-info --quick x.vhd | grep -q 'table:       GPT'
	to_raw x.vhd x.raw
	truncate -s +512 x.raw
	vhd-compact -q --to fixed --align 1M -o y.vhd x.raw
	[ $((($(size_of y.vhd) - 512) % 1048576)) -eq 0 ]
	diff <(digest x.vhd) <(digest y.vhd)
	sound_ntfs y.vhd
}

@test "an empty disk of Virtual PC, and a volume that nothing here knows: exact" {
	skip_without 7zz
	sample virtualpc-dynamic.vhd
	vhd-compact -q -o a.vhd virtualpc-dynamic.vhd
	[ "$(count_blocks a.vhd)" -eq 0 ]
	[ "$(be a.vhd 48 8)" -eq 136365211648 ]
	vhd-info --check virtualpc-dynamic.vhd | grep -q '^  size:        127 GiB'
	vhd-zerofree -q -o b.vhd virtualpc-dynamic.vhd
	[ "$(be b.vhd 48 8)" -eq 136365211648 ]
	[ "$(count_blocks b.vhd)" -eq 0 ]
	cmp <(head -c 512 b.vhd) <(head -c 512 virtualpc-dynamic.vhd)
	# ext2 in a VHD: packed and compacted as it is
	sample ext2.vhd
	7zz x -tvhd -so ext2.vhd 2>/dev/null >want.raw
	for c in vhd-compact vhd-zerofree vhd-defrag; do
		$c -q -o x.vhd ext2.vhd
		7zz x -tvhd -so x.vhd 2>/dev/null | cmp - want.raw
		rm x.vhd
	done
	[ -x "$build/cmd/ckm-pack" ] || return 0
	ckm-pack -q -o x.ckm ext2.vhd
	ckm-unpack -q -o x.vhd x.ckm
	7zz x -tvhd -so x.vhd 2>/dev/null | cmp - want.raw
}
