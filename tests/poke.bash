# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
#
# Bytes of images, read and changed by hand: how the tests damage VHDs and NTFS volumes. Numbers are big-endian in
# VHDs (be) and little-endian in NTFS (le). Load it after the helper.

# Hexadecimal digits as bytes.
unhex() {
	local i out=
	for ((i = 0; i < ${#1}; i += 2)); do
		out+=\\x${1:i:2}
	done
	# shellcheck disable=SC2059 # the escapes are the format
	printf "$out"
}

# poke FILE OFFSET HEX
poke() {
	unhex "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# peek FILE OFFSET COUNT: hexadecimal digits
peek() {
	od -An -v -tx1 -j "$2" -N "$3" "$1" | tr -d ' \n'
}

be() {
	echo $((16#$(peek "$@")))
}

le() {
	local hex out=
	hex=$(peek "$@")
	while [ -n "$hex" ]; do
		out=${hex:0:2}$out
		hex=${hex:2}
	done
	echo $((16#$out))
}

# le_hex NUMBER BYTES: as hexadecimal digits
le_hex() {
	local i hex=
	for ((i = 0; i < $2; i++)); do
		hex+=$(printf %02x $(($1 >> 8 * i & 255)))
	done
	echo "$hex"
}

# zeros FILE OFFSET COUNT
zeros() {
	dd if=/dev/zero of="$1" bs=1 seek="$2" count="$3" conv=notrunc status=none
}

size_of() {
	stat -c %s "$1"
}

# strace, under which the leak sanitizer does not work.
traced() {
	ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 strace "$@"
}

## VHD

# checksum FILE OFFSET LENGTH FIELD: set the checksum of a footer (64) or header (36) right again.
checksum() {
	poke "$1" $(($2 + $4)) 00000000
	poke "$1" $(($2 + $4)) "$(od -An -v -tu1 -j "$2" -N "$3" "$1" |
		awk '{ for (i = 1; i <= NF; i++) s += $i } END { printf "%08x", 4294967295 - s }')"
}

# All checksums of a VHD.
seal_vhd() {
	local end
	end=$(($(size_of "$1") - 512))
	checksum "$1" $end 512 64
	[ "$(peek "$1" 0 8)" != 636f6e6563746978 ] || checksum "$1" 0 512 64
	[ "$(peek "$1" 512 8)" != 6378737061727365 ] || checksum "$1" 512 1024 36
}

# poke_footers FILE FIELD HEX: in the footer and its copy, with right checksums.
poke_footers() {
	poke "$1" $(($(size_of "$1") - 512 + $2)) "$3"
	[ "$(peek "$1" 0 8)" != 636f6e6563746978 ] || poke "$1" "$2" "$3"
	seal_vhd "$1"
}

# Where block N's table entry stands, and where its data does.
bat_entry() {
	echo $(($(be "$1" 528 8) + $2 * 4))
}

block_data() {
	local bitmap
	bitmap=$(($(be "$1" 544 4) / 4096))
	[ $bitmap -ge 512 ] || bitmap=512
	echo $(($(be "$1" "$(bat_entry "$1" "$2")" 4) * 512 + bitmap))
}

# The number of table entries in use, no two of which are alike: od may leave out what repeats itself.
count_blocks() {
	od -An -tx4 -w4 --endian=big -j "$(be "$1" 528 8)" -N $(($(be "$1" 540 4) * 4)) "$1" | grep -cv 'ffffffff\|\*' || true
}

## NTFS: a volume that is a file of its own, with records of 1 KiB and an $MFT whose start is in one piece

cluster_size() {
	echo $(($(le "$1" 11 2) * $(le "$1" 13 1)))
}

# Where record N stands.
record() {
	echo $(($(le "$1" 48 8) * $(cluster_size "$1") + $2 * 1024))
}

# Where the attribute TYPE (hexadecimal, as in 80) of record N stands. The first unnamed one.
attribute() {
	local at end
	at=$(record "$1" "$2")
	end=$((at + 1024))
	at=$((at + $(le "$1" $((at + 20)) 2)))
	while [ $at -lt $end ]; do
		[ "$(peek "$1" $at 4)" != ffffffff ] || break
		if [ "$(peek "$1" $at 1)" = "$3" ] && [ "$(le "$1" $((at + 9)) 1)" -eq 0 ]; then
			echo $at
			return
		fi
		at=$((at + $(le "$1" $((at + 4)) 4)))
	done
	echo "record $2 has no attribute $3" >&2
	return 1
}

# Where the runs of an attribute at OFFSET stand.
runs() {
	echo $(($2 + $(le "$1" $(($2 + 32)) 2)))
}

# The first cluster of the attribute at OFFSET.
first_cluster() {
	local at head
	at=$(runs "$1" "$2")
	head=$(le "$1" "$at" 1)
	le "$1" $((at + 1 + (head & 15))) $((head >> 4))
}

# poke_first_cluster FILE OFFSET CLUSTER: lead its first run elsewhere.
poke_first_cluster() {
	local at head
	at=$(runs "$1" "$2")
	head=$(le "$1" "$at" 1)
	poke "$1" $((at + 1 + (head & 15))) "$(le_hex "$3" $((head >> 4)))"
}

# The record number of a path.
record_of() {
	ifind -n "$2" "$1" | cut -d - -f 1
}

# set_bitmap FILE CLUSTER 0|1
set_bitmap() {
	local at byte
	at=$(($(first_cluster "$1" "$(attribute "$1" 6 80)") * $(cluster_size "$1") + $2 / 8))
	byte=$(le "$1" $at 1)
	if [ "$3" -eq 1 ]; then
		byte=$((byte | 1 << $2 % 8))
	else
		byte=$((byte & ~(1 << $2 % 8)))
	fi
	poke "$1" $at "$(printf %02x $byte)"
}
