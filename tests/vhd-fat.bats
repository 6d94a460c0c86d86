#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# FAT12, FAT16, FAT32 and exFAT volumes: what vhd-info, vhd-rmfile, vhd-zerofree and vhd-compact do with them, judged by
# dosfstools, mtools, exfatprogs and sleuthkit.

load helper

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	fat_image=$build/tests/fat-image
	export LC_ALL=C.UTF-8 # mtools converts names
}

# A run of noise: noise BYTES SEED
noise() {
	openssl enc -aes-128-ctr -nosalt -pass "pass:$2" -pbkdf2 -iter 1 </dev/zero 2>/dev/null | head -c "$1"
}

# fill_fat IMAGE: put files on a new volume so that some are in pieces and some are gone.
# shellcheck disable=SC2016 # Windows' folders have $ in their names
fill_fat() {
	local i n
	mkdir -p in
	for ((i = 10; i < 40; i++)); do
		noise $((700 + i * 211)) "$i" >"in/F$i.DAT"
		noise $((500 + i * 333)) "long $i" >"in/A longer name, number $i.bin"
	done
	noise 300000 big >'in/in many pieces.bin'
	mmd -i "$1" ::/WINDOWS ::/WINDOWS/Temp ::/RECYCLED '::/WINDOWS/$NtUninstallKB123$' '::/Dokumente und Ünïcode'
	mcopy -i "$1" in/F??.DAT ::/
	mcopy -i "$1" in/A* ::/WINDOWS
	n=()
	for ((i = 10; i < 40; i += 2)); do n+=("::/F$i.DAT" "::/WINDOWS/A longer name, number $i.bin"); done
	mdel -i "$1" "${n[@]}"
	# FAT32 says where free clusters are likely to begin: nowhere in particular, so that the holes are filled
	[ "$(od -An -tu2 -j17 -N2 "$1")" -ne 0 ] ||
		printf '\377\377\377\377' | dd of="$1" bs=1 seek=$((512 + 492)) conv=notrunc status=none
	mcopy -i "$1" 'in/in many pieces.bin' '::/Dokumente und Ünïcode'
	n=()
	for ((i = 11; i < 40; i += 4)); do n+=("::/WINDOWS/A longer name, number $i.bin"); done
	mdel -i "$1" "${n[@]}"
	mcopy -i "$1" in/F1?.DAT ::/WINDOWS/Temp
	mcopy -i "$1" in/F20.DAT ::/RECYCLED/DC1.DAT
	mcopy -i "$1" in/F21.DAT '::/WINDOWS/$NtUninstallKB123$/old.dll'
	noise 150000 page >in/pagefile.sys
	mcopy -i "$1" in/pagefile.sys ::/pagefile.sys
	mdel -i "$1" ::/F2?.DAT
}

# SHA-256 and path of every file, as mtools reads them.
fat_digest() {
	local path
	mdir -i "$1" -/ -b -a :: | grep -v '/$' | while read -r path; do
		printf '%s  %s\n' "$(mtype -i "$1" "$path" | sha256sum | cut -c1-64)" "$path"
	done | sort -k 2
}

# Bytes that are not zero in the free clusters (-A), or behind the files' data (-s), of the volume at a sector of a raw disk.
left_over() {
	blkls "$1" -f "$4" -o "$3" "$2" | tr -d '\0' | wc -c
}

make_fat() {
	truncate -s "$2" "$1"
	mkfs.vfat -F "$3" --invariant -n VOLUME "${@:4}" "$1" >/dev/null
	fill_fat "$1"
	fsck.vfat -n "$1"
}

make_all_fats() {
	skip_without mkfs.vfat fsck.vfat mcopy openssl
	make_fat fat12 6M 12
	make_fat fat16 24M 16
	make_fat fat32 40M 32 -s 1
}

json() {
	jq -e "$2" <<<"$1" >/dev/null || { echo "$2 does not hold of $1"; return 1; }
}

@test "FAT12, FAT16 and FAT32 as mtools leaves them: found sound, with the figures of fsck.vfat" {
	skip_without jq
	make_all_fats
	for image in fat12 fat16 fat32; do
		echo "$image"
		run -0 vhd-info --check --json "$image"
		json "$output" ".volumes[0] | .file_system == \"FAT\" and .version == \"${image#fat}\" and .label == \"VOLUME\""
		json "$output" '.volumes[0].check | .sound and (.problems | length) == 0'
		read -r files used < <(fsck.vfat -n "$image" | sed -n 's/^.*: \([0-9]*\) files, \([0-9]*\)\/.*/\1 \2/p')
		json "$output" ".volumes[0].check | .used_clusters == $used"
		# fsck.vfat counts the label
		json "$output" ".volumes[0].check | .files + .folders == $files - 1"
		json "$output" ".volumes[0] | .fragmented_streams > 0 or .version == \"32\""
		vhd-info "$image" | grep -q "volume 1: *FAT${image#fat} \"VOLUME\""
	done
}

@test "vhd-zerofree leaves nothing in free clusters and slack, and every file as it was" {
	skip_without blkls
	make_all_fats
	for image in fat12 fat16 fat32; do
		echo "$image"
		fat_digest "$image" >before
		[ "$(left_over -A "$image" 0 "$image")" -gt 10000 ]
		cp "$image" keep
		vhd-zerofree -q -i --keep-slack keep
		[ "$(left_over -A keep 0 "$image")" = 0 ]
		[ "$(left_over -s keep 0 "$image")" = "$(left_over -s "$image" 0 "$image")" ]
		vhd-zerofree -o zeroed "$image" >report
		grep -q 'zeroed' report
		[ "$(left_over -A zeroed 0 "$image")" = 0 ]
		[ "$(left_over -s zeroed 0 "$image")" = 0 ]
		fsck.vfat -n zeroed
		fat_digest zeroed | diff before -
		# nothing outside the clusters has changed
		vhd-zerofree -o again zeroed 2>/dev/null
		cmp zeroed again
		rm zeroed again
	done
}

@test "vhd-rmfile frees chains in every FAT, marks long names, and keeps the rest" {
	make_all_fats
	for image in fat12 fat16 fat32; do
		echo "$image"
		fat_digest "$image" >before
		cp "$image" new
		vhd-rmfile -i -r new '/windows/A LONGER*' '\dokumente und ünïcode' '/f1?.dat' '/RECYCLED/DC1.DAT' >report
		run -0 fsck.vfat -n new
		[ "${#lines[@]}" = 2 ] || { echo "$output"; false; }
		fat_digest new >after
		grep -v -e 'A longer' -e 'Dokumente' -e '::/F1.\.DAT' -e DC1 before | diff - after
		[ "$(wc -l <after)" -lt "$(wc -l <before)" ]
		vhd-info --check -q new >/dev/null
		# room for the same again
		mcopy -i new 'in/in many pieces.bin' ::/again.bin
		mtype -i new ::/again.bin | cmp - 'in/in many pieces.bin'
		fsck.vfat -n new
	done
}

@test "the short name finds a file with a long one, and the list shows the long one" {
	make_all_fats
	run -0 vhd-rmfile --list fat32 '/WINDOWS/ALONGE~?.BIN'
	[[ $output == *'/WINDOWS/A longer name, number '* ]]
	[[ $output != *ALONGE~1.BIN$'\n'* ]]
	run -1 vhd-rmfile --list fat32 /nothing
	[[ $output == *'no such file'* ]]
	run -2 vhd-rmfile --list fat32 /WINDOWS
	[[ $output == *'a folder'* ]]
}

# An XP disk: one active FAT32 partition at sector 63, as a dynamic VHD.
make_xp() {
	skip_without mkfs.vfat fsck.vfat mcopy openssl sfdisk qemu-img blkls
	truncate -s 96M xp.raw
	printf 'label: dos\nlabel-id: 0x12345678\nstart=63, size=192000, type=c, bootable\n' | sfdisk -q --no-reread xp.raw
	truncate -s $((192000 * 512)) part
	mkfs.vfat -F 32 -s 1 -h 63 --invariant -n WINXP part >/dev/null
	noise 12000000 setup >setup.cab
	mcopy -i part setup.cab ::/
	fill_fat part
	mdel -i part ::/setup.cab
	dd if=part of=xp.raw bs=512 seek=63 conv=notrunc,sparse status=none
	qemu-img convert -O vpc -o force_size xp.raw xp.vhd
}

@test "an XP disk with FAT32 at sector 63: presets, zeroing, compaction" {
	make_xp
	fat_digest xp.raw@@32256 >before
	run -0 vhd-rmfile -i xp.vhd --preset pagefile --preset temp --preset updates --preset restore
	[[ $output == *'preset pagefile: 1 files'* ]]
	[[ $output == *'preset temp: 11 files'* ]]
	[[ $output == *'preset updates: 1 files, 1 folders'* ]]
	vhd-zerofree -o - xp.vhd 2>/dev/null | vhd-compact -o small.vhd 2>/dev/null
	to_raw small.vhd small.raw
	[ "$(left_over -A small.raw 63 fat32)" = 0 ]
	dd if=small.raw of=part bs=512 skip=63 count=192000 status=none
	fsck.vfat -n part
	fat_digest small.raw@@32256 >after
	grep -v -e pagefile -e /Temp/ -e RECYCLED -e NtUninst before | diff - after
	[ "$(stat -c %s small.vhd)" -lt "$(stat -c %s xp.vhd)" ]
	vhd-info --check -q small.vhd >/dev/null
}

@test "a suspended XP on FAT32 is left alone, unless its session is given up" {
	make_xp
	{ printf hibr; noise 200000 hiber; } >hiberfil.sys
	mcopy -i xp.raw@@32256 hiberfil.sys ::/hiberfil.sys
	sha256sum xp.raw >sum
	run -3 vhd-zerofree -i xp.raw
	[[ $output == *'hibernated'*'hiberfil.sys'* ]]
	run -3 vhd-rmfile -i xp.raw /pagefile.sys
	[[ $output == *'--preset hiberfil'* ]]
	sha256sum -c --quiet sum
	vhd-info xp.raw | grep -q 'state: *Windows is hibernated'
	vhd-rmfile -q -i xp.raw --preset hiberfil
	run ! mdir -i xp.raw@@32256 ::/hiberfil.sys
	vhd-zerofree -q -i xp.raw
	# one that was resumed
	printf wake | dd of=hiberfil.sys conv=notrunc status=none
	mcopy -i xp.raw@@32256 hiberfil.sys ::/hiberfil.sys
	vhd-zerofree -q -i xp.raw
}

@test "an EFI system partition is emptied with the rest of a Windows 10 disk" {
	skip_without blkls fsck.vfat mdir sfdisk jq
	new_image win10.vhd --size 128M --style win10
	to_raw win10.vhd before.raw
	esp=$(sfdisk -d before.raw | sed -n 's/.*start= *\([0-9]*\),.*C12A7328.*/\1/p')
	[ "$(left_over -A before.raw "$esp" fat)" -gt 0 ]
	fat_digest "before.raw@@$((esp * 512))" >before
	run -0 vhd-info --check --json win10.vhd
	json "$output" '.volumes[0] | .file_system == "FAT" and .check.sound and .free_not_zero > 0'
	vhd-rmfile -q -i win10.vhd --preset pagefile
	vhd-zerofree -v -i win10.vhd >report
	grep -q 'volume 1: FAT, .* free' report
	to_raw win10.vhd after.raw
	[ "$(left_over -A after.raw "$esp" fat)" = 0 ]
	fat_digest "after.raw@@$((esp * 512))" | diff before -
	sound_ntfs win10.vhd
	# a file of the EFI system partition, by its volume
	vhd-rmfile -q --volume 1 -i win10.vhd '/efi/microsoft/boot/memtest.efi'
	to_raw win10.vhd after.raw
	fat_digest "after.raw@@$((esp * 512))" | diff <(grep -v memtest before) -
}

@test "a dirty volume is refused, a damaged one too, and nothing is changed" {
	make_all_fats
	for image in fat12:37 fat16:37 fat32:65; do
		cp "${image%:*}" dirty
		printf '\001' | dd of=dirty bs=1 seek="${image#*:}" conv=notrunc status=none
		sha256sum dirty >sum
		run -3 vhd-zerofree -i dirty
		[[ $output == *'the volume is dirty'*'chkdsk'* ]]
		run -3 vhd-rmfile -i dirty /pagefile.sys
		sha256sum -c --quiet sum
		vhd-info --check dirty | grep -q 'state: *the volume is dirty'
	done
	# The second copy of the FAT differs.
	cp fat16 bad
	at=$((512 * ($(od -An -tu2 -j14 -N2 bad) + $(od -An -tu2 -j22 -N2 bad)) + 3000))
	printf '\007' | dd of=bad bs=1 seek=$at conv=notrunc status=none
	sha256sum bad >sum
	run -4 vhd-info --check bad
	[[ $output == *'differences between copies'* ]]
	run -4 vhd-zerofree -i bad
	[[ $output == *'FAT 2 has 0x7'* ]]
	run -4 vhd-rmfile -i bad /pagefile.sys
	sha256sum -c --quiet sum
}

@test "only the volume that is asked for" {
	make_xp
	vhd-zerofree -q --volume 1 -o one.vhd xp.vhd
	run -2 vhd-zerofree --volume 2 -o two.vhd xp.vhd
	head -c 4M /dev/zero >nothing
	run -3 vhd-zerofree --volume 1 -o x nothing
	[[ $output == *'free space is not known'* ]]
	run -3 vhd-rmfile --list nothing /x
	[[ $output == *'no file system that is known here'* ]]
}

# SHA-256 and path of every file of an exFAT volume, as sleuthkit reads them; but it takes no notice of the valid length.
exfat_digest() {
	local inode name valid
	fls -f exfat -F -r -p -u "$1" | grep -v -e '\$' -e 'Volume Label' | sed -n 's,^r/r \([0-9]*\):\t\(.*\)$,\1 \2,p' | while read -r inode name; do
		valid=-0
		[ "$name" != preallocated ] || valid=3000
		printf '%s  %s\n' "$(icat -f exfat "$1" "$inode" | head -c "$valid" | sha256sum | cut -c1-64)" "$name"
	done | sort -k 2
}

@test "exFAT: sound, zeroed, files removed, and clean by fsck.exfat" {
	skip_without fsck.exfat fls icat blkls jq
	"$fat_image" exfat exfat
	fsck.exfat -n exfat
	exfat_digest exfat >before
	[ "$(wc -l <before)" = 35 ]
	run -0 vhd-info --check --json exfat
	json "$output" '.volumes[0] | .file_system == "exFAT" and .check.sound and .check.files == 35 and .check.folders == 3'
	[ "$(left_over -A exfat 0 exfat)" -gt 0 ]
	vhd-zerofree -q -o zeroed exfat
	[ "$(left_over -A zeroed 0 exfat)" = 0 ]
	fsck.exfat -n zeroed
	exfat_digest zeroed | diff before -
	# what lies behind the valid length reads as zeros, and is so on the disk now
	[ "$(icat -f exfat zeroed "$(fls -f exfat zeroed | sed -n 's/^r.r \([0-9]*\):.*preallocated/\1/p')" | tail -c +3001 | tr -d '\0' | wc -c)" = 0 ]
	vhd-rmfile -q -r -o removed zeroed '/PIECES.BIN' '/contiguous/file 0?.dat' /chained
	fsck.exfat -n removed
	exfat_digest removed >after
	grep -v -e pieces.bin -e 'Contiguous/file 0' -e Chained before | diff - after
	run -0 vhd-info --check --json removed
	json "$output" '.volumes[0].check | .sound and .folders == 2'
}

@test "exFAT as mkfs.exfat makes it, in every cluster size" {
	skip_without mkfs.exfat fsck.exfat
	for options in '-c 512' '-c 4K' '-c 32K --pack-bitmap' '-c 128K' '-c 1M' '-c 32M -b 32M'; do
		echo "$options"
		rm -f exfat
		truncate -s 1G exfat
		# shellcheck disable=SC2086 # several words
		mkfs.exfat $options -L LABEL exfat >/dev/null
		run -0 vhd-info --check exfat
		[[ $output == *'exFAT "LABEL"'*': sound'* ]]
		cp exfat zeroed
		vhd-zerofree -q -i zeroed
		fsck.exfat -n zeroed
		cmp exfat zeroed
	done
}

@test "FAT as mkfs.vfat makes it, in every shape" {
	skip_without mkfs.vfat fsck.vfat
	for shape in '1440K -F 12' '24M -F 12 -s 16' '32M -F 12 -s 32 -f 1' '64M -F 16 -s 8' '64M -F 16 -r 1024 -R 9' '300M -F 32' \
		'300M -F 32 -S 4096' '2G -F 32 -s 64' '64M -F 32 -s 1 -b 3 -f 1' '200M -F 16 -S 1024'; do
		echo "$shape"
		rm -f fat
		truncate -s "${shape%% *}" fat
		# shellcheck disable=SC2086 # several words
		mkfs.vfat --invariant ${shape#* } fat >/dev/null
		# mtools knows sectors of 512 bytes, and FAT32 only where it is large
		made=0
		mmd -i fat ::/folder 2>/dev/null && made=1
		run -0 vhd-info --check fat
		[[ $output == *': sound'* ]]
		cp fat zeroed
		vhd-zerofree -q -i zeroed
		cmp fat zeroed
		[ "$made" = 0 ] || vhd-rmfile -q -i -r zeroed /folder
		run -0 fsck.vfat -n zeroed
		[[ $output == *'0 files, '* || $output == *'1 files, '* ]] || { echo "$output"; false; }
	done
}

@test "a journal of zeroing that waits is not applied to a volume that has got files since" {
	skip_without mkfs.vfat mcopy sfdisk
	export MTOOLS_SKIP_CHECK=1
	truncate -s 100M x.raw.was
	echo 'start=2048, type=0c' | sfdisk -q x.raw.was
	mkfs.vfat -F 32 -s 1 --offset 2048 x.raw.was $(((100 * 2048 - 2048) / 2)) >/dev/null
	noise 20000000 old >old.bin
	noise 5000000 new >new.bin
	mcopy -i x.raw.was@@1M old.bin ::old.bin
	mdel -i x.raw.was@@1M ::old.bin
	cut_off x.raw vhd-zerofree -q -i x.raw
	mcopy -i x.raw@@1M new.bin ::new.bin
	run -3 vhd-info x.raw
	[ -e x.raw.prep-journal ]
	mcopy -n -i x.raw@@1M ::new.bin got.bin
	cmp new.bin got.bin
	# and to its own it is
	cut_off x.raw vhd-zerofree -q -i x.raw
	run -0 vhd-info x.raw
	[ ! -e x.raw.prep-journal ]
	vhd-zerofree -n --json x.raw | jq -e '.zeroed == 0'
}
