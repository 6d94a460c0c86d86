#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# scripts/mkimage and the helper behind it, judged by the field's own tools.

bats_require_minimum_version 1.5.0

setup() {
	PATH=$PATH:/usr/sbin:/sbin
	top=$BATS_TEST_DIRNAME/..
	mkimage=$top/scripts/mkimage
	populate=$top/build/tests/ntfs-populate
	cd "$BATS_TEST_TMPDIR" || return
}

make_image() {
	"$mkimage" -q --corpus synthetic "$@"
}

# Partition N of raw image $2 as file part.
cut_part() {
	sfdisk -d "$2" | sed -n "s/^$2$1 *: start= *\([0-9]*\), size= *\([0-9]*\),.*/\1 \2/p" >where
	read -r start len <where
	dd if="$2" of=part bs=512 skip="$start" count="$len" conv=sparse status=none
}

sound_ntfs() {
	ntfsresize -i -f "$1" | grep -q 'You might resize'
	ntfsclone -f -m -O meta "$1" >/dev/null 2>&1
	rm -f meta
}

@test "help: 80 columns, nothing on stderr" {
	for prog in "$mkimage" "$populate"; do
		"$prog" --help >out 2>err
		[ ! -s err ]
		run ! grep -E '.{81}' out
	done
}

@test "wrong usage is status 2 and makes nothing" {
	for args in --frob '--size 12' '--size 8M' '--size' '--style vista' '--fill 101' '--fill 95' '--seed x' '--format qcow2' \
		'--corpus nowhere' '--series d --format raw' 'a b'; do
		# shellcheck disable=SC2086 # several words
		run "$mkimage" -q $args x.vhd
		[ "$status" -eq 2 ]
	done
	run "$mkimage"
	[ "$status" -eq 2 ]
	run ls -A
	[ -z "$output" ]
}

@test "an existing output is kept, status 3, unless --force" {
	echo old >x.vhd
	run make_image --size 32M x.vhd
	[ "$status" -eq 3 ]
	[ "$(cat x.vhd)" = old ]
	make_image --size 32M --force x.vhd
	[ "$(head -c 8 x.vhd)" = conectix ]
}

@test "a failure half way leaves nothing behind" {
	run sh -c 'ulimit -f 20000; "$1" -q --corpus synthetic --size 64M x.vhd' sh "$mkimage"
	[ "$status" -ne 0 ]
	run ls -A
	[ -z "$output" ]
}

@test "xp: one bootable NTFS partition at sector 63, sound" {
	make_image --size 96M --style xp x.vhd
	[ "$(qemu-img info --output=json x.vhd | sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p')" = 100663296 ]
	qemu-img convert -O raw x.vhd x.raw
	sfdisk -d x.raw | grep -q 'start= *63,.*type=7, bootable'
	cut_part 1 x.raw
	sound_ntfs part
	fls -r -p part | grep -q 'WINDOWS/system32/config/SOFTWARE'
}

@test "win10: GPT with EFI, MSR, NTFS and recovery, each sound" {
	make_image --size 96M --style win10 x.vhd
	qemu-img convert -O raw x.vhd x.raw
	sgdisk -v x.raw | grep -q 'No problems found'
	[ "$(sfdisk -d x.raw | grep -c 'start=')" -eq 4 ]
	cut_part 1 x.raw
	fsck.vfat -n part
	mdir -/ -b -i part :: | grep -q bootmgfw.efi
	for n in 3 4; do
		cut_part $n x.raw
		sound_ntfs part
	done
}

@test "the same seed gives the same bytes, another seed others" {
	for style in xp win10; do
		make_image --size 48M --style $style --seed 7 a.vhd
		sleep 1.1
		make_image --size 48M --style $style --seed 7 b.vhd
		make_image --size 48M --style $style --seed 8 c.vhd
		cmp a.vhd b.vhd
		run ! cmp -s a.vhd c.vhd
		rm ./*.vhd
	done
}

@test "dynamic, fixed and raw hold the same files" {
	for format in dynamic fixed raw; do
		make_image --size 64M --format $format x.$format
		"$populate" --digest x.$format >$format
	done
	cmp dynamic fixed
	cmp dynamic raw
	cmp -n 67108864 x.fixed x.raw
	[ "$(tail -c 512 x.fixed | head -c 8)" = conectix ]
}

# shellcheck disable=SC2016 # the dollars belong to names
@test "what precompaction removes is there" {
	for style in xp win10; do
		make_image --size 64M --style $style --table none x.raw --format raw
		"$populate" --list x.raw >list
		for what in ' /pagefile.sys$' ' /hiberfil.sys$' '/\$NtUninstallKB[0-9]*\$/' '/SoftwareDistribution/Download/.*cab$' \
			'/Temp/.*tmp$' '/Prefetch/.*pf$' '/Minidump/.*dmp$' '/_restore{.*}/RP1/' '/RECYCLER/S-1-5-21\|/\$Recycle.Bin/S-1-5-21' \
			':Zone.Identifier$' '\$Extend/\$UsnJrnl:\$J$'; do
			grep -qi "$what" list
		done
		rm x.raw
	done
}

@test "deleted files leave residue, and fragments, links, compression and short names exist" {
	make_image --size 64M --table none --format raw x.raw
	# free clusters that are not zero, in MiB
	[ "$(blkls -A x.raw | tr -d '\0' | wc -c)" -gt 4000000 ]
	ntfsinfo -f -v -F /Users/"All Users"/"Application Data"/Search/index.edb x.raw >info
	grep -q 'ATTRIBUTE_LIST' info
	[ "$(sed -n 's/.*(fragments: \([0-9]*\)).*/\1/p' info)" -gt 50 ]
	fls -r -p x.raw | awk -F '[\t:]' '{ print $1 }' | sort | uniq -c | awk '$1 > 1 { n++ } END { exit !n }'
	make_image --size 64M --table none --format raw --deleted 0 --fill 30 y.raw
	[ "$(blkls -A y.raw | tr -d '\0' | wc -c)" -lt 2000000 ]
}

@test "--hibernated: nothing will write to it, else it may be written" {
	make_image --size 32M --table none --format raw --hibernated x.raw
	run ntfscp x.raw /etc/passwd passwd
	[ "$status" -ne 0 ]
	make_image --size 32M --table none --format raw y.raw
	ntfscp y.raw /etc/passwd passwd
}

@test "--series: an update in place, the same laid out anew, a host that shares files" {
	make_image --size 96M --series s
	for v in 1 2 3; do
		"$populate" --digest s/v$v.vhd | grep -v UsnJrnl >$v
	done
	cmp 2 3
	run ! cmp -s 1 2
	[ "$(comm -12 1 2 | wc -l)" -gt "$(comm -13 1 2 | wc -l)" ]
	grep -q 'New Application 2.0/' 2
	run ! cmp -s s/v2.vhd s/v3.vhd
	find s/host -path s/host/own -prune -o -type f -exec sha256sum {} + | cut -c1-64 | sort >have
	cut -c1-64 1 | sort >want
	[ "$(wc -l <have)" -gt 20 ]
	[ -z "$(comm -23 have want)" ]
}

@test "--corpus DIR: the files of a folder" {
	mkdir files
	cp /bin/ls files/one.exe
	cp /bin/cat files/two.dll
	make_image --corpus files --size 32M x.vhd
	"$populate" --digest x.vhd | grep -q "$(sha256sum <files/one.exe | cut -c1-64)"
	mkdir none
	run make_image --corpus none --size 32M y.vhd
	[ "$status" -eq 1 ]
	[ ! -e y.vhd ]
}

# shellcheck disable=SC2016 # the dollars belong to names
@test "ntfs-populate: every operation, and the volume stays sound" {
	truncate -s 64M x.raw
	mkntfs -F -Q -q -T x.raw 2>/dev/null
	cat >manifest <<-'END'
		# comment

		mkdir "/a folder/with another"
		put /put /bin/cat
		put /put2 /bin/cat 5
		gen /gen text 1K 1
		gen '/put:a stream' noise 100000 1
		append /gen text 1 2
		write /gen 10 zero 5 1
		truncate /gen 1000
		sparse /sparse 1M
		write /sparse 512K noise 4096 1
		compress /small
		gen /small text 1M 3
		grow 4096 20 log 1 /log1 /log2
		fragment /pieces 900 noise 1
		gen /gone/a noise 1M 1
		rm /gone
		link /dir/link /put
		rename /put2 "/a folder/put3"
		update "/a folder/put3" 9 "/a folder/old"
		replace /gen /bin/ls
		short "/a folder" AFOLDE~1
		attrib /gen rhsai
		junction /junction 'C:\put'
		symlink /symlink 'put'
		reparse /reparse 80000013 noise 16 1
		wof /wof noise 10000 1
		usnjrnl 64K 1
		time 1234567890
		dirty
		clean
		logfile clean
	END
	"$populate" --stamp --seed 3 x.raw <manifest
	sound_ntfs x.raw
	"$populate" --digest x.raw >digest
	grep -q "$(sha256sum </bin/cat | cut -c1-64).* /dir/link$" digest
	grep -q "$(sha256sum </bin/ls | cut -c1-64).* /gen$" digest
	[ "$(grep -c '/put:a stream$\|/junction:\$REPARSE_POINT$\|/\(wof\|reparse\|symlink\):\$REPARSE_POINT$' digest)" -eq 5 ]
	# behind the offsets of the other two chunks
	"$populate" --make data noise 10000 1
	[ "$(grep '/wof:WofCompressedData$' digest | cut -c1-64)" = "$(printf '\0\020\0\0\0\040\0\0' | cat - data | sha256sum | cut -c1-64)" ]
	[ "$(grep '/wof$' digest | cut -c1-64)" = "$(head -c 10000 /dev/zero | sha256sum | cut -c1-64)" ]
	run ! grep -q /gone digest
	[ "$(ntfscat x.raw /put | sha256sum)" = "$(sha256sum </bin/cat)" ]
	[ "$(ntfsinfo -f -v -F /pieces x.raw | sed -n 's/.*(fragments: \([0-9]*\)).*/\1/p')" -ge 900 ]
	truncate -s 64M y.raw
	mkntfs -F -Q -q -T y.raw 2>/dev/null
	echo 'import x.raw' | "$populate" --stamp y.raw
	sound_ntfs y.raw
	"$populate" --digest y.raw >again
	grep -v UsnJrnl digest | cmp - again
}

@test "ntfs-populate: an error names line and path" {
	truncate -s 16M x.raw
	mkntfs -F -Q -q x.raw 2>/dev/null
	run sh -c 'printf "mkdir /a\nrm /b\n" | "$1" x.raw' sh "$populate"
	[ "$status" -eq 1 ]
	[ "$output" = "ntfs-populate: line 2: /b: no such file" ]
	run sh -c 'echo "frob /b" | "$1" x.raw' sh "$populate"
	[ "$status" -eq 2 ]
	run sh -c 'echo "rm /\$MFT" | "$1" x.raw' sh "$populate"
	[ "$status" -eq 1 ]
	run sh -c 'echo "gen /big noise 1G 1" | "$1" x.raw' sh "$populate"
	[ "$status" -eq 1 ]
}

@test "ntfs-populate: a journal that is not clean is refused by who would write" {
	for state in empty clean unclean fast zero; do
		rm -f x.raw
		truncate -s 16M x.raw
		mkntfs -F -Q -q x.raw 2>/dev/null
		echo "logfile $state" | "$populate" x.raw
		run ntfscp x.raw /etc/passwd passwd
		case $state in
		empty | clean) [ "$status" -eq 0 ] ;;
		*) [ "$status" -ne 0 ] ;;
		esac
	done
}
