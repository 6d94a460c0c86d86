#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# vhd-compact: the guest sees the same bytes, by qemu-img's and libvhdi's word, and not a block is left that is all zero.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# Blocks of SIZE bytes in a raw disk that are not all zero. No two of them are alike in these tests, so that od may leave
# out what repeats itself.
data_blocks() {
	od -An -tx8 -w"$2" "$1" | grep -c '[1-9a-f]' || true
}

# compacted IMAGE RAW [BLOCK]: that IMAGE is a dynamic VHD of what the raw disk holds, no larger than it must be
compacted() {
	local block=${3:-2097152} n
	same_guest "$1" "$2"
	n=$(data_blocks "$2" "$block")
	[ "$(count_blocks "$1")" = "$n" ]
	[ "$(be "$1" 544 4)" = "$block" ]
	[ "$(be "$1" 540 4)" = $((($(size_of "$2") + block - 1) / block)) ]
	[ "$(size_of "$1")" -le $((n * (block + 4096) + $(be "$1" 540 4) * 4 + 12288)) ]
	vhd-info --quick "$1" >/dev/null
}

# Data areas begin on 4 KiB in the file, and follow each other.
aligned() {
	local block bitmap
	block=$(be "$1" 544 4)
	bitmap=$((block / 4096 < 512 ? 512 : block / 4096))
	od -An -tu4 -w4 --endian=big -j 1536 -N $(($(be "$1" 540 4) * 4)) "$1" |
		awk -v block="$block" -v bitmap=$bitmap '
			$1 == 4294967295 || $1 == "*" { next }
			{ at = $1 * 512 + bitmap; if (at % 4096 || at < end) bad = 1; end = at + block; n++ }
			END { exit bad }'
}

# A raw disk with data in places: SIZE in MiB, and MiB:KIB:LENGTH in KiB for each piece.
patchy() {
	local piece mib kib
	truncate -s "$2" "$1"
	for piece in "${@:3}"; do
		mib=${piece%%:*} kib=${piece#*:}
		openssl enc -aes-128-ctr -K "$mib" -iv 0 -in /dev/zero 2>/dev/null | head -c $((${kib#*:} * 1024)) |
			dd of="$1" bs=1K seek=$((mib * 1024 + ${kib%:*})) conv=notrunc status=none
	done
}

@test "an output that a machine runs on is not replaced" {
	skip_without qemu-io
	new_image x.vhd --size 32M
	cp x.vhd used.vhd
	hold used.vhd
	run -3 vhd-compact -f -o used.vhd x.vhd
	release
	[[ $output == *'in use'* ]]
	run -0 vhd-compact -f -o used.vhd x.vhd
}

@test "dynamic, fixed and raw in: the same dynamic VHD out, to a file, a pipe and in place" {
	new_image x.raw --size 32M --format raw
	for format in dynamic fixed raw; do
		new_image x.$format --size 32M --format $format
		vhd-compact -q -o a.vhd x.$format
		compacted a.vhd x.raw
		aligned a.vhd
		vhd-compact -q x.$format | cat >b.vhd
		cmp a.vhd b.vhd
		vhd-compact -q <x.$format >c.vhd
		cmp a.vhd c.vhd
		cp x.$format d.vhd
		vhd-compact -q -i d.vhd
		cmp a.vhd d.vhd
		cat x.$format | vhd-compact -q | cat >e.vhd
		cmp a.vhd e.vhd
		# straight from a pipe to a file the blocks come as they lie: here in order
		cat a.vhd | vhd-compact -q -o f.vhd
		cmp a.vhd f.vhd
		rm ./[a-f].vhd
	done
}

@test "from a pipe: blocks that do not lie in order, and what cannot be streamed" {
	# qemu gives blocks their place as they are written
	qemu-img create -q -f vpc -o force_size x.vhd 24M
	for mib in 20 3 11 0; do
		qemu-io -f vpc -c "write -q -P 77 ${mib}M 64k" x.vhd
	done
	cat x.vhd | vhd-compact -q -o y.vhd
	same_guest x.vhd y.vhd
	[ "$(count_blocks y.vhd)" -eq 4 ]
	# the copy at the front is bad: the footer at the end is needed
	zeros x.vhd 0 512
	cat x.vhd | vhd-compact -o z.vhd 2>err
	grep -q "warning: standard input: the footer's copy" err
	same_guest y.vhd z.vhd
	# with the table behind the blocks
	cp y.vhd w.vhd
	end=$(($(size_of w.vhd) - 512))
	tail -c 512 w.vhd >footer
	head -c $end w.vhd >body
	dd if=w.vhd bs=512 skip=3 count=1 status=none >table
	cat body table footer >w.vhd
	poke w.vhd 528 "$(printf %016x $end)"
	zeros w.vhd 1536 512
	seal_vhd w.vhd
	same_guest w.vhd y.vhd
	cat w.vhd | vhd-compact -q -o v.vhd
	same_guest v.vhd y.vhd
}

@test "every block size, sizes that are no multiple of it, one sector, the last block" {
	for size in 8388608 6292992 7339520 512; do
		rm -f x.raw
		case $size in
		512) printf x >x.raw && truncate -s 512 x.raw ;;
		*) patchy x.raw $size 0:0:64 3:100:40 5:0:4 $((size / 1048576 - 1)):1000:20 ;;
		esac
		truncate -s $size x.raw
		for block in 512K 1M 2M 4M 8M 16M; do
			vhd-compact -q -f -o x.vhd --block-size $block x.raw
			case $block in *K) bytes=$((${block%K} << 10)) ;; *) bytes=$((${block%M} << 20)) ;; esac
			compacted x.vhd x.raw $bytes
			aligned x.vhd
			# and back, from each block size to the smallest
			vhd-compact -q --to raw x.vhd | cmp - x.raw
			vhd-compact -q x.vhd --block-size 512K | vhd-compact -q --block-size 512K -f -o y.vhd
			if [ $block = 512K ]; then
				cp y.vhd small.vhd
				compacted y.vhd x.raw 524288
			else
				cmp y.vhd small.vhd
			fi
		done
	done
}

# tests/unit/vhd_write.c reads every byte by libvhdi
@test "libvhdi and 7z know what is written" {
	skip_without vhdiinfo
	new_image x.raw --size 32M --format raw
	for options in '' '--block-size 512K' '--to fixed'; do
		# shellcheck disable=SC2086 # several words
		vhd-compact -q -f -o x.vhd $options x.raw
		vhdiinfo x.vhd >info
		grep -q 'Media size.*(33554432 bytes)' info
		grep -q "Identifier.*$(vhd-info --json x.vhd | jq -r .vhd.id)" info
		! command -v 7z >/dev/null || 7z t -tvhd x.vhd | grep -q 'Everything is Ok'
	done
}

@test "--to fixed and raw: sizes, holes, the way back" {
	new_image x.vhd --size 32M
	to_raw x.vhd want.raw
	vhd-compact -q --to raw -o x.raw x.vhd
	cmp x.raw want.raw
	vhd-compact -q --to fixed -o x.fixed x.vhd
	cmp -n 33554432 x.fixed want.raw
	[ "$(size_of x.fixed)" = 33554944 ]
	same_guest x.fixed x.vhd
	[ "$(peek x.fixed $((33554432 + 60)) 4)" = 00000002 ]
	[ "$(peek x.fixed $((33554432 + 68)) 16)" = "$(peek x.vhd 68 16)" ]
	[ "$(peek x.fixed $((33554432 + 16)) 8)" = ffffffffffffffff ]
	# sparse, and the same through a pipe, where zeros are bytes
	[ $(($(stat -c %b x.raw) * 512)) -lt 30000000 ]
	vhd-compact -q --to raw x.vhd | cmp - want.raw
	vhd-compact -q --to fixed x.vhd | cmp - x.fixed
	cat x.vhd | vhd-compact -q --to fixed | cmp - x.fixed
	vhd-compact -q -o a.vhd x.vhd
	vhd-compact -q -o b.vhd x.fixed
	cmp a.vhd b.vhd
	cp x.vhd y.vhd
	vhd-compact -q -i --to raw y.vhd
	cmp y.vhd want.raw
	run -2 vhd-compact -n --to qcow2 x.vhd
	run -2 vhd-compact -n --to raw --block-size 2M x.vhd
	for size in 3M 256K 512M 0 x 2M2; do
		run -2 vhd-compact -n --block-size $size x.vhd
	done
}

@test "identity is kept, and --new-id gives another" {
	new_image x.vhd --size 32M
	poke_footers x.vhd 40 0000000001000000 # original size
	poke_footers x.vhd 28 76706320000100037769324b
	vhd-compact -q -o y.vhd x.vhd
	for field in 24:4 28:12 40:8 48:8 56:4 68:16; do
		[ "$(peek y.vhd "${field%:*}" "${field#*:}")" = "$(peek x.vhd "${field%:*}" "${field#*:}")" ]
	done
	[ "$(peek y.vhd 0 512)" = "$(peek y.vhd $(($(size_of y.vhd) - 512)) 512)" ]
	SOURCE_DATE_EPOCH=1000000000 vhd-compact -q --new-id -o z.vhd x.vhd
	[ "$(peek z.vhd 68 16)" != "$(peek x.vhd 68 16)" ]
	[ "$(be z.vhd 24 4)" = $((1000000000 - 946684800)) ]
	same_guest x.vhd z.vhd
	vhd-compact -q --new-id -f -o y.vhd x.vhd
	[ "$(peek z.vhd 68 16)" != "$(peek y.vhd 68 16)" ]
}

@test "deterministic: a raw disk becomes the same VHD each time, at any time" {
	patchy x.raw 12M 0:0:100 7:300:900
	vhd-compact -q -o a.vhd x.raw
	sleep 1.1
	cp x.raw 'other name.img'
	cat 'other name.img' | vhd-compact -q >b.vhd
	cmp a.vhd b.vhd
	SOURCE_DATE_EPOCH=1234567890 vhd-compact -q -o c.vhd x.raw
	[ "$(be c.vhd 24 4)" = $((1234567890 - 946684800)) ]
	SOURCE_DATE_EPOCH=1234567890 vhd-compact -q -o d.vhd x.raw
	cmp c.vhd d.vhd
	for epoch in yesterday '' -5 1.5; do
		SOURCE_DATE_EPOCH=$epoch run -2 vhd-compact -q -o e.vhd x.raw
	done
	# of a VHD, its own time stays
	SOURCE_DATE_EPOCH=1 vhd-compact -q -o e.vhd c.vhd
	cmp c.vhd e.vhd
	# another disk has another id
	poke x.raw 0 ee
	vhd-compact -q -f -o e.vhd x.raw
	[ "$(peek e.vhd 68 16)" != "$(peek a.vhd 68 16)" ]
}

@test "zeros inside kept blocks are holes" {
	patchy x.raw 16M 0:0:4 2:1000:8 9:0:1024
	# written zeros, not holes
	cat x.raw >full.raw
	dd if=/dev/zero of=full.raw bs=1M count=3 seek=12 conv=notrunc status=none
	vhd-compact -q -o x.vhd full.raw
	compacted x.vhd x.raw
	[ "$(count_blocks x.vhd)" -eq 3 ]
	[ $(($(stat -c %b x.vhd) * 512)) -lt $((1100 << 10)) ]
	# from a pipe as well
	vhd-compact -q --to dynamic -o y.vhd x.vhd
	cat x.vhd | vhd-compact -q -o z.vhd
	[ $(($(stat -c %b y.vhd) * 512)) -lt $((1100 << 10)) ]
	[ $(($(stat -c %b z.vhd) * 512)) -lt $((1100 << 10)) ]
	cp --sparse=never x.vhd w.vhd
	vhd-compact -q -i w.vhd
	[ $(($(stat -c %b w.vhd) * 512)) -lt $((1100 << 10)) ]
	cmp x.vhd w.vhd
}

@test "in place: another file, the same name, mode and link; nothing beside it" {
	new_image x.vhd --size 32M
	cp x.vhd want.vhd
	chmod 604 x.vhd
	ln -s x.vhd link.vhd
	exec 7<x.vhd
	before=$(stat -c %i x.vhd)
	vhd-compact -q -i link.vhd
	[ -L link.vhd ]
	[ "$(stat -c %a x.vhd)" = 604 ]
	[ "$(stat -c %i x.vhd)" != "$before" ]
	# who had the old one open has it still
	[ "$(sha256sum <&7)" = "$(sha256sum <want.vhd)" ]
	exec 7<&-
	same_guest x.vhd want.vhd
	[ "$(ls -A | tr '\n' ' ')" = 'link.vhd want.vhd x.vhd ' ]
	# a second time nothing is gained
	size=$(size_of x.vhd)
	vhd-compact -q -i x.vhd
	[ "$(size_of x.vhd)" = "$size" ]
}

@test "-n: as many blocks as it then has, and not a byte written" {
	new_image x.vhd --size 32M --style xp
	before=$(sha256sum <x.vhd)
	for options in '' '--block-size 512K' '--block-size 8M' '--to raw' '--to fixed'; do
		# shellcheck disable=SC2086 # several words
		vhd-compact -n --json $options x.vhd >plan
		# shellcheck disable=SC2086
		vhd-compact --json -f -o y.vhd $options x.vhd >report
		[ "$(jq .blocks_after plan)" = "$(jq .blocks_after report)" ]
		[ "$(jq .dry_run plan)" = true ]
		[ "$(jq .size_after plan)" -ge "$(jq .allocated_after report)" ]
		[ "$(jq .size_after report)" = "$(size_of y.vhd)" ]
		[ "$(jq .size_before report)" = "$(size_of x.vhd)" ]
		case $options in
		*block* | '')
			[ "$(jq .blocks_after report)" = "$(count_blocks y.vhd)" ]
			[ "$(jq .size_after plan)" -le $(($(jq .size_after report) + 8192)) ]
			;;
		esac
	done
	vhd-compact -n -i x.vhd
	cat x.vhd | vhd-compact -n
	[ "$(sha256sum <x.vhd)" = "$before" ]
	[ "$(ls -A | grep -c '')" -eq 4 ]
}

@test "2040 GiB, mostly holes, in seconds; more is refused" {
	truncate -s 2040G x.raw || skip 'no files of that size here'
	printf 'near the end' | dd of=x.raw bs=1 seek=$((2040 * 1024 * 1024 * 1024 - 100)) conv=notrunc status=none
	printf 'in the middle' | dd of=x.raw bs=1M seek=1000000 conv=notrunc status=none
	start=$SECONDS
	vhd-compact -q -o x.vhd x.raw
	vhd-compact -n --json x.raw | jq -e '.blocks_after == 2' >/dev/null
	[ $((SECONDS - start)) -lt $((15 * slower)) ]
	[ "$(count_blocks x.vhd)" -eq 2 ]
	[ "$(guest_size x.vhd)" = 2190433320960 ]
	[ "$(size_of x.vhd)" -lt 10000000 ]
	qemu-io -r --image-opts -c 'read -v 2190433320860 12' "$(qemu_image x.vhd)" | grep -q 'near.the.end'
	# through a pipe, smaller blocks, and back
	vhd-compact -q --block-size 512K x.vhd | vhd-compact -q --block-size 512K -o y.vhd
	[ "$(count_blocks y.vhd)" -eq 2 ]
	vhd-compact -q --block-size 512K -f -o y.vhd x.raw
	[ "$(count_blocks y.vhd)" -eq 2 ]
	vhd-compact -q --to raw -o y.raw x.vhd
	[ "$(size_of y.raw)" = 2190433320960 ]
	[ "$(tail -c 100 y.raw | head -c 12)" = 'near the end' ]
	truncate -s +512 x.raw
	for options in '-o z.vhd' '--to fixed -o z.vhd' '-n' '-i'; do
		# shellcheck disable=SC2086 # several words
		run -3 --separate-stderr vhd-compact $options x.raw
		[[ $stderr == *'2040 GiB'* ]]
		[ ! -e z.vhd ]
	done
	run -3 sh -c 'vhd-compact x.raw | wc -c >n; exit 3'
	[ "$(cat n)" -eq 0 ]
	# raw disks may be as large as they like
	vhd-compact -q --to raw -o z.raw x.raw
	[ "$(size_of z.raw)" = 2190433321472 ]
	rm x.raw y.raw z.raw
}

@test "an empty disk, and a full one" {
	truncate -s 20M empty.raw
	vhd-compact -q -o empty.vhd empty.raw
	[ "$(count_blocks empty.vhd)" -eq 0 ]
	[ "$(size_of empty.vhd)" -le 8192 ]
	same_guest empty.vhd empty.raw
	vhd-compact -q <empty.vhd | cmp - empty.vhd
	cat empty.vhd | vhd-compact -q -o again.vhd
	cmp empty.vhd again.vhd
	openssl enc -aes-128-ctr -K 3 -iv 0 -in /dev/zero 2>/dev/null | head -c 20M >full.raw
	vhd-compact -q -o full.vhd full.raw
	[ "$(count_blocks full.vhd)" -eq 10 ]
	same_guest full.vhd full.raw
}

@test "table entries past the disk's end, as some tools keep them" {
	new_image x.vhd --size 32M
	vhd-compact -q -o want.vhd x.vhd
	# the disk is made smaller, its table is not
	poke_footers x.vhd 48 0000000001000200
	to_raw x.vhd small.raw
	[ "$(size_of small.raw)" = 16777728 ]
	vhd-compact -q -o y.vhd x.vhd
	same_guest y.vhd small.raw
	cat x.vhd | vhd-compact -q -o z.vhd
	same_guest z.vhd small.raw
	vhd-compact -q x.vhd | cmp - y.vhd
}

@test "reports: before, after, blocks; where the image is not" {
	new_image x.vhd --size 32M
	vhd-compact -o y.vhd x.vhd >out 2>err
	[ ! -s err ]
	[ "$(wc -l <out)" -eq 1 ]
	grep -q "^x.vhd: .* $(count_blocks x.vhd) blocks, became .*, $(count_blocks y.vhd) blocks of 2.00 MiB" out
	vhd-compact x.vhd 2>err >z.vhd
	grep -q became err
	cmp y.vhd z.vhd
	vhd-compact --json x.vhd 2>err >z.vhd
	jq -e '.blocks_before >= .blocks_after' err >/dev/null
	run -0 --separate-stderr vhd-compact -q -f -o z.vhd x.vhd
	[ -z "$output$stderr" ]
	run -2 vhd-compact -o z.vhd x.vhd y.vhd
}
