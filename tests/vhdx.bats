#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# VHDX as input of every command. qemu-img and 7-Zip are the judges of what is in it; libvhdi reads what tests/unit/vhdx.c
# makes.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# What 7-Zip sees of a VHDX.
seven() {
	skip_without 7zz
	7zz x -tvhdx -so "$1" 2>/dev/null
}

# A VHDX with files, made by QEMU: FILE BLOCK_SIZE [mkimage's options]. Its disk is in disk.raw.
new_vhdx() {
	new_image disk.raw --size 32M --format raw "${@:3}"
	qemu-img convert -f raw -O vhdx -o "subformat=dynamic,block_size=$2" disk.raw "$1"
}

# poke_metadata FILE SIZE VALUE: the value of the first metadata item of a VHDX whose value is SIZE (4 bytes), little-endian.
logical_sector() {
	local table i id
	table=$(($(le "$1" $((196608 + 32)) 8)))
	for ((i = 0; i < 2; i++)); do
		[ "$(peek "$1" $((196608 + 16 + 32 * i)) 4)" != 06a27c8b ] || table=$(le "$1" $((196608 + 32 + 32 * i)) 8)
	done
	for ((i = 0; i < $(le "$1" $((table + 10)) 2); i++)); do
		id=$(peek "$1" $((table + 32 + 32 * i)) 4)
		[ "$id" != 1dbf4181 ] || echo $((table + $(le "$1" $((table + 32 + 32 * i + 16)) 4)))
	done
}

@test "disks made by Windows and QEMU: every command reads what qemu-img and 7-Zip read" {
	for name in ntfs-fixed ntfs-parent ext2; do
		sample $name.vhdx
		sha256sum $name.vhdx >before
		qemu-img convert -f vhdx -O raw $name.vhdx want.raw
		seven $name.vhdx | cmp - want.raw
		vhd-compact -q --to raw -f -o got.raw $name.vhdx
		cmp got.raw want.raw
		vhd-compact -q --to raw -f -o got.raw <$name.vhdx
		cmp got.raw want.raw
		cat $name.vhdx | vhd-compact -q --to raw | cmp - want.raw
		for to in dynamic fixed; do
			vhd-compact -q --to $to -f -o got.vhd $name.vhdx
			same_guest got.vhd want.raw
		done
		vhd-compact -q $name.vhdx | cat >piped.vhd
		same_guest piped.vhd want.raw
		vhd-info --check $name.vhdx >out
		vhd-zerofree -q -f -o lean.vhd $name.vhdx
		vhd-zerofree -q want.raw | cmp - <(to_raw lean.vhd lean.raw && cat lean.raw)
		sha256sum -c --quiet before
		if [ $name = ext2 ]; then
			grep -q 'dynamic VHDX$' out
			same_guest lean.vhd want.raw
			run -3 vhd-rmfile -f -o x.vhd $name.vhdx /x
			continue
		fi
		grep -q 'fixed VHDX$' out
		grep -q 'NTFS "TestVolume"' out
		diff <(digest lean.vhd) <(digest want.raw)
		vhd-rmfile -q -f -r --ignore-missing -o gone.vhd $name.vhdx /a_directory
		sound_ntfs gone.vhd
		run ! grep a_directory <(digest gone.vhd)
		vhd-defrag -q -f -o packed.vhd $name.vhdx
		diff <(digest packed.vhd) <(digest want.raw)
		sha256sum -c --quiet before
	done
}

@test "packages of a VHDX" {
	[ -x "$build/cmd/ckm-pack" ] || skip "no ckm-pack"
	sample ntfs-fixed.vhdx
	qemu-img convert -f vhdx -O raw ntfs-fixed.vhdx want.raw
	ckm-pack -q -o x.ckm ntfs-fixed.vhdx
	ckm-unpack -q -o x.vhd x.ckm
	same_guest x.vhd want.raw
}

@test "a differencing pair made by Windows: read with its parent, which may be elsewhere" {
	skip_without jq
	sample ntfs-parent.vhdx
	sample ntfs-differential.vhdx
	seven ntfs-differential.vhdx >want.raw
	[ "$(size_of want.raw)" -eq 4194304 ]
	vhd-compact -q --to raw -o got.raw ntfs-differential.vhdx
	cmp got.raw want.raw
	vhd-compact -q -o flat.vhd ntfs-differential.vhdx
	same_guest flat.vhd want.raw
	vhd-info -j --check ntfs-differential.vhdx >out
	[ "$(jq -r .format out)" = vhdx ]
	[ "$(jq -c '.vhdx | [.differencing, .fixed, .block_size, .sector_size, .physical_sector_size]' out)" = '[true,false,2097152,512,4096]' ]
	[ "$(jq -c .parents out)" = '[{"path":"ntfs-parent.vhdx","id":"7584f8fb-36d3-4091-afb5-b1afe587bfa8","kind":"vhdx"}]' ]
	[ "$(jq -r '.vhdx.parent_names[0]' out)" = '.\ntfs-parent.vhdx' ]
	vhd-info ntfs-differential.vhdx >out
	grep -q '^ntfs-differential.vhdx: differencing VHDX$' out
	grep -q '^  parent:      ntfs-parent.vhdx, fixed VHDX$' out
	mkdir away
	mv ntfs-parent.vhdx away/p
	run -3 vhd-compact -n ntfs-differential.vhdx
	[[ $output = *'its parent .\ntfs-parent.vhdx (id 7584f8fb-36d3-4091-afb5-b1afe587bfa8) was not found: name it by --parent' ]]
	cat ntfs-differential.vhdx | vhd-compact -q --to raw --parent away/p | cmp - want.raw
	sample ntfs-fixed.vhdx ntfs-parent.vhdx
	run -3 vhd-compact -n ntfs-differential.vhdx
	[[ $output = *'ntfs-parent.vhdx is not its parent: it has the id 392e3c45-'* ]]
}

@test "a log that was not written back: refused with advice by every command, and read once QEMU has replayed it" {
	sample dirtylog.vhdx
	sha256sum dirtylog.vhdx >before
	for c in 'vhd-info' 'vhd-compact -n' 'vhd-zerofree -n' 'vhd-rmfile --list' 'vhd-defrag -n'; do
		read -r -a words <<<"$c"
		run -3 --separate-stderr "${words[@]}" dirtylog.vhdx
		[ -z "$output" ]
		[[ $stderr = *"dirtylog.vhdx: the VHDX was not closed properly: its log may hold changes that were not written back: "*"'qemu-img check -r all'"* ]]
	done
	run -3 vhd-compact -o x.vhd dirtylog.vhdx
	[ ! -e x.vhd ]
	sha256sum -c --quiet before
	qemu-img check -q -r all dirtylog.vhdx
	qemu-img convert -f vhdx -O raw dirtylog.vhdx want.raw
	vhd-compact -q --to raw -o got.raw dirtylog.vhdx
	cmp got.raw want.raw
	vhd-info --quick dirtylog.vhdx | grep -q 'size:        10.0 GiB'
}

@test "blocks of every size, and images of many blocks" {
	for size in 1M 2M 16M 256M; do
		new_vhdx x.vhdx $size
		vhd-compact -q -f -o got.vhd x.vhdx
		same_guest got.vhd disk.raw
		sound_ntfs got.vhd
		# holes of the file are holes of the result
		[ "$(count_blocks got.vhd)" -eq "$(vhd-compact -q disk.raw | cat >y.vhd && count_blocks y.vhd)" ]
		vhd-rmfile -q -f -o gone.vhd x.vhdx --preset pagefile
		sound_ntfs gone.vhd
		vhd-zerofree -q x.vhdx | vhd-compact -q -f -o lean.vhd
		diff <(digest lean.vhd) <(digest disk.raw)
	done
}

@test "sectors of 4096 bytes: partitions are found, a VHD is refused, a raw disk is exact" {
	skip_without jq fdisk
	# GPT in sectors of 4 KiB, and NTFS in its partition
	truncate -s 64M disk.raw
	printf 'g\nn\n1\n512\n+40M\nt\n11\nw\n' | fdisk -b 4096 disk.raw >/dev/null
	truncate -s 40M part.raw
	mkntfs -F -Q -q -T -s 4096 -c 4096 part.raw 2>/dev/null
	"$populate" --stamp part.raw <<-'END'
		mkdir /a
		gen /a/one noise 3000000 1
		gen /pagefile.sys page 2000000 5
		gen /gone noise 3000000 7
		rm /gone
		logfile clean
	END
	dd if=part.raw of=disk.raw bs=4096 seek=512 conv=notrunc status=none
	qemu-img convert -f raw -O vhdx -o subformat=dynamic,block_size=1M disk.raw x.vhdx
	poke x.vhdx "$(logical_sector x.vhdx)" 00100000
	seven x.vhdx | cmp - disk.raw

	vhd-info -j --check x.vhdx >out
	[ "$(jq '.vhdx.sector_size' out)" = 4096 ]
	[ "$(jq -c '[.table, .volumes[0].offset, .volumes[0].size, .volumes[0].file_system, .volumes[0].check.sound]' out)" = '["GPT",2097152,41943040,"NTFS",true]' ]
	vhd-info x.vhdx | grep -q '^  sectors:     4096 bytes, physical '
	vhd-rmfile --list x.vhdx --preset pagefile | grep -q '2000000  /pagefile.sys'
	for c in 'vhd-rmfile --preset pagefile' 'vhd-zerofree' 'vhd-compact' 'vhd-compact --to fixed' 'vhd-defrag'; do
		read -r -a words <<<"$c"
		run -3 "${words[@]}" -o y.vhd x.vhdx
		[[ $output = *"x.vhdx: a disk with sectors of 4096 bytes cannot be a VHD, whose sectors have 512 ('vhd-compact --to raw' makes a raw disk of it)" ]]
		[ ! -e y.vhd ]
	done
	vhd-compact -q --to raw -o got.raw x.vhdx
	cmp got.raw disk.raw
	vhd-compact -q --to raw --align 1M -f -o got.raw x.vhdx
	cmp got.raw disk.raw
}

@test "more than 2040 GiB: no VHD, but a raw disk" {
	qemu-img create -q -f vhdx -o block_size=32M x.vhdx 3T >/dev/null
	qemu-io -f vhdx -c 'write -q -P 7 2500G 64k' x.vhdx
	vhd-info --quick x.vhdx | grep -q 'size:        3.00 TiB'
	for c in 'vhd-compact' 'vhd-compact --to fixed' 'vhd-zerofree'; do
		read -r -a words <<<"$c"
		run -3 "${words[@]}" -o y.vhd x.vhdx
		[[ $output = *"x.vhdx: a disk of 3072 GiB: a VHD holds at most 2040 GiB ('vhd-compact --to raw' makes a raw disk of it)" ]]
	done
	truncate -s 3T probe 2>/dev/null || skip "no files of 3 TiB here"
	vhd-compact -q --to raw -o y.raw x.vhdx
	[ "$(size_of y.raw)" -eq $((3 * 1024 ** 4)) ]
	[ "$(peek y.raw $((2500 * 1024 ** 3 + 65535)) 2)" = 0700 ]
	[ "$(stat -c %b y.raw)" -lt 1024 ]
}

@test "never changed in place" {
	sample ntfs-fixed.vhdx
	sha256sum ntfs-fixed.vhdx >before
	for c in 'vhd-rmfile --preset pagefile' 'vhd-zerofree' 'vhd-compact' 'vhd-defrag'; do
		read -r -a words <<<"$c"
		run -3 "${words[@]}" -i ntfs-fixed.vhdx
		[[ $output = *'ntfs-fixed.vhdx: a VHDX cannot be changed in place: -o FILE writes a VHD' ]]
	done
	run -3 vhd-undo create ntfs-fixed.vhdx undo.vhd
	[[ $output = *'ntfs-fixed.vhdx: not a VHD'* ]]
	sha256sum -c --quiet before
	[ "$(echo ntfs*)" = ntfs-fixed.vhdx ]
}

@test "damage: truncated files, and headers that contradict themselves" {
	sample ntfs-fixed.vhdx x.vhdx
	# the first header may be bad, both may not
	poke x.vhdx $((65536 + 8)) ffff
	vhd-info --quick x.vhdx >/dev/null
	poke x.vhdx $((131072 + 8)) ffff
	run -4 vhd-info x.vhdx
	[[ $output = *'VHDX header: missing or with a wrong checksum, both copies' ]]
	for size in 8388607 6291456 3145728 300000 100000 65536; do
		sample ntfs-fixed.vhdx x.vhdx
		truncate -s $size x.vhdx
		run -4 vhd-compact -o y.vhd x.vhdx
		[ ! -e y.vhd ]
	done
}

@test "the size on the host: what is a hole of a VHDX is not read, and none of the result" {
	qemu-img create -q -f vhdx -o block_size=256M x.vhdx 40G >/dev/null
	qemu-io -f vhdx -c 'write -q -P 7 1G 1M' -c 'write -q -P 8 39G 1M' x.vhdx
	vhd-compact -q -o y.vhd x.vhdx
	[ "$(count_blocks y.vhd)" -eq 2 ]
	[ "$(be y.vhd 544 4)" -eq 2097152 ]
	vhd-zerofree -q -n x.vhdx
	vhd-info x.vhdx | grep -q '2 of 160 allocated, 256 MiB each'
}
