#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# Disks made by Windows, Virtual PC, Hyper-V and qemu, through every command that takes them, judged by 7-Zip, qemu-img
# and sleuthkit.

load helper
load poke

# What the guest sees is known of these; those that end in -differential need the -parent beside them.
sound='ntfs-dynamic.vhd ntfs-fixed.vhd ntfs-parent.vhd ntfs-differential.vhd ext2.vhd ntfs-fixed.vhdx ntfs-parent.vhdx
ntfs-differential.vhdx ext2.vhdx'

setup() {
	mkdir "$BATS_TEST_TMPDIR/work"
	cd "$BATS_TEST_TMPDIR/work" || return
	for name in $sound image.vhd image-differential.vhd virtualpc-dynamic.vhd dirtylog.vhdx; do
		sample "$name"
	done
	sha256sum -- * >../sums
}

# After every test: the samples are as they were, and only what the test made is beside them.
teardown() {
	cd "$BATS_TEST_TMPDIR/work" || return
	[ ! -e ../sums ] || sha256sum --quiet -c ../sums
}

seven_zip() {
	command -v 7zz || command -v 7z || skip '7zz is not installed'
}

# What the guest sees of a sample, by 7-Zip.
judge() {
	case $1 in
	*.vhd) "$(seven_zip)" e -tvhd -so "$1" ;;
	*.vhdx) "$(seven_zip)" e -tvhdx -so "$1" ;;
	esac 2>/dev/null
}

# The files of the NTFS volume at sector 128, where the disks of Windows have it: as sleuthkit reads them.
files() {
	fls -o 128 -r -p -F "$1" | awk -F '\t' '{ split($1, n, "[ :]+"); print n[2] "\t" $2 }' | while IFS=$'\t' read -r inode path; do
		echo "$(icat -o 128 "$1" "$inode" | sha256sum | cut -c1-16) $path"
	done
}

@test "what the guest sees is what 7-Zip reads" {
	seven_zip >/dev/null
	for name in $sound; do
		echo "$name"
		judge "$name" >want
		[ -s want ]
		vhd-compact -q --to raw "$name" | cmp - want
		[ "$(vhd-info --quick --json -q "$name" | jq .virtual_size)" = "$(size_of want)" ]
		vhd-compact -q -o out.vhd "$name"
		vhd-compact -q --to raw out.vhd | cmp - want
		truncate -s "$(size_of want)" want
		same_guest out.vhd want
		rm out.vhd want
	done
}

@test "what Windows wrote of itself is shown" {
	[ "$(vhd-info --json ntfs-dynamic.vhd | jq -r '[.format, .vhd.creator, .vhd.id, .table] | @csv')" = \
		'"dynamic","win","b71b9577-b88c-1646-993c-471798ca53ee","MBR"' ]
	[ "$(vhd-info --json ntfs-dynamic.vhd | jq -r '.volumes[0] | [.label, .offset, .check] | @csv')" = '"TestVolume",65536,' ]
	# its geometry is less than its size
	vhd-info ntfs-dynamic.vhd | grep -q '120/4/17, 4177920 bytes (not the disk'
	[ "$(vhd-info --json virtualpc-dynamic.vhd | jq '[.virtual_size, .vhd.blocks_allocated] | @csv' -r)" = 136365211648,0 ]
	[ "$(vhd-info --quick --json ext2.vhd | jq -r '[.vhd.creator, .volumes[0].file_system] | @csv')" = '"qemu","unknown"' ]
}

@test "NTFS of Windows: sound, zeroed, files removed, and the rest is as it was" {
	for name in ntfs-dynamic.vhd ntfs-fixed.vhd ntfs-parent.vhd; do
		echo "$name"
		vhd-info --check "$name" >/dev/null
		vhd-compact -q --to raw -o x.raw "$name"
		files x.raw >want
		[ -s want ]
		vhd-zerofree -q -o y.vhd "$name"
		vhd-compact -q --to raw -o y.raw y.vhd
		files y.raw | diff want -
		digest "$name" >digests
		digest y.vhd | diff digests -
		blkls -A -o 128 y.raw | cmp -n "$(blkls -A -o 128 y.raw | wc -c)" - /dev/zero
		vhd-info --check y.vhd >/dev/null
		# a file goes, by a name that Windows gave it
		path=$(cut -c79- digests | grep -v '/$\|:\|^/\$' | head -n 1)
		[ "$path" ]
		vhd-rmfile -q -o z.vhd "$name" "$(tr a-z A-Z <<<"$path")"
		grep -vF " $path" digests >want
		digest z.vhd | diff want -
		vhd-info --check z.vhd >/dev/null
		cp "$name" z.vhd
		vhd-zerofree -q -i --log z.vhd
		digest z.vhd | diff digests -
		vhd-info --check z.vhd >/dev/null
		rm -f ./[xyz].*
	done
}

@test "other file systems, empty disks: left as they are, to the byte" {
	for name in ext2.vhd ext2.vhdx; do
		vhd-compact -q --to raw -o x.raw "$name"
		vhd-zerofree -q x.raw | cmp - x.raw
		run -3 vhd-rmfile -n "$name" /x
		rm x.raw
	done
	vhd-compact -q -o x.vhd virtualpc-dynamic.vhd
	[ "$(count_blocks x.vhd)" -eq 0 ]
	[ "$(guest_size x.vhd)" = 136365211648 ]
	[ "$(peek x.vhd 68 16)" = "$(peek virtualpc-dynamic.vhd 68 16)" ]
	vhd-zerofree -q virtualpc-dynamic.vhd | vhd-compact -q -o y.vhd
	cmp x.vhd y.vhd
}

@test "bad checksums and logs that wait are refused, never read wrong" {
	for name in image.vhd image-differential.vhd; do
		for command in vhd-info 'vhd-zerofree -o out' 'vhd-compact -o out' 'vhd-compact -i' 'vhd-zerofree -i' \
			'vhd-rmfile -i --preset temp'; do
			# shellcheck disable=SC2086 # several words
			run -4 --separate-stderr $command $name
			[[ $stderr == *"$name: "*checksum* ]]
			[ "${#stderr_lines[@]}" -eq 1 ]
			[ ! -e out ]
		done
	done
	for command in vhd-info 'vhd-zerofree -o out' 'vhd-compact -o out' 'vhd-rmfile -o out --preset temp'; do
		# shellcheck disable=SC2086 # several words
		run -3 --separate-stderr $command dirtylog.vhdx
		[[ $stderr == *'dirtylog.vhdx: '*log* ]]
		[ ! -e out ]
	done
}

@test "a child without its parent is refused" {
	for name in ntfs-differential.vhd ntfs-differential.vhdx; do
		mkdir alone
		cp "$name" alone
		for command in vhd-info 'vhd-zerofree -o out' 'vhd-compact -o out'; do
			# shellcheck disable=SC2086 # several words
			run -3 --separate-stderr $command "alone/$name"
			echo "$stderr"
			[[ $stderr == *"$name: "*parent* ]]
			[ ! -e out ]
		done
		rm -r alone
	done
}
