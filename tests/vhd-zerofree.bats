#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# vhd-zerofree: every free cluster is zero afterwards, by sleuthkit's word, and not one byte that belongs to anything has
# changed.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# A bare volume on noise, so that everything free, every tail and every residue is noise too.
noise_volume() {
	truncate -s 24M "$1"
	openssl enc -aes-128-ctr -K 0 -iv 0 -in /dev/zero 2>/dev/null | head -c 24M >"$1"
	mkntfs -F -Q -q -T "$1" 2>/dev/null
	"$populate" --stamp "$1" <<-'END'
		gen /file text 50001 1
		gen /aligned noise 40960 2
		gen /resident text 300 3
		gen /a/stream noise 1000 4
		gen /a/stream:second text 70001 5
		compress /compressed
		gen /compressed text 400000 6
		sparse /sparse 2M
		write /sparse 1000000 noise 100001 7
		fragment /pieces 30 noise 8
		gen /encrypted noise 30001 9
		gen /pagefile.sys page 200000 10
		gen /gone noise 300000 11
		rm /gone
		logfile clean
	END
}

# The file system's own clusters and the free ones of every NTFS volume of IMAGE: whether the free ones are all zero.
all_free_zero() {
	local start len n=0
	to_raw "$1" free.raw
	while read -r start len; do
		cut_part free.raw "$start" "$len" free.part
		blkls -A free.part | cmp -n "$(blkls -A free.part | wc -c)" - /dev/zero || { echo "volume at $start"; return 1; }
		n=$((n + 1))
	done < <(ntfs_parts free.raw)
	rm free.raw free.part
	[ $n -gt 0 ]
}

refused() {
	local want=$1 text=$2 before
	shift 2
	before=$(sha256sum <x.raw)
	for args in '-i' '-o out' '-n'; do
		# shellcheck disable=SC2086 # several words
		run "-$want" --separate-stderr vhd-zerofree $args "$@" x.raw
		echo "$stderr"
		[ -z "$output" ]
		[ "${#stderr_lines[@]}" -eq 1 ]
		[[ $stderr == "vhd-zerofree: x.raw"*"$text"* ]]
		[ "$(sha256sum <x.raw)" = "$before" ]
		[ ! -e out ]
		[ ! -e x.raw.prep-journal ]
	done
	run -"$want" sh -c 'cat x.raw | vhd-zerofree "$@" | wc -c; exit '"$want" sh "$@"
	[ "${lines[-1]}" = 0 ] || [ "${lines[0]}" = 0 ]
}

@test "all free clusters are zero: in place, to a file, from and to a pipe; the files are the same" {
	for style in xp win10; do
		new_image x.vhd --size 64M --style $style
		digest x.vhd >want
		run all_free_zero x.vhd
		[ "$status" -ne 0 ]
		vhd-zerofree -q -o a.vhd x.vhd
		cat x.vhd | vhd-zerofree -q | cat >b.vhd
		vhd-zerofree -q <x.vhd >c.vhd
		cmp a.vhd b.vhd
		cmp a.vhd c.vhd
		cp x.vhd d.vhd
		vhd-zerofree -q -i d.vhd
		same_guest a.vhd d.vhd
		digest a.vhd | diff want -
		sound_ntfs a.vhd
		all_free_zero a.vhd
		vhd-info --check a.vhd >/dev/null
		[ "$(vhd-info --json a.vhd | jq '[.volumes[] | select(.file_system == "NTFS") | .free_not_zero] | add')" = 0 ]
		# what identifies the disk is kept
		[ "$(peek a.vhd 68 16)" = "$(peek x.vhd 68 16)" ]
		[ "$(peek a.vhd 24 12)" = "$(peek x.vhd 24 12)" ]
		rm ./*.vhd
	done
}

@test "fixed VHD and raw disk, in place and copied" {
	for format in fixed raw; do
		new_image x.$format --size 48M --format $format
		digest x.$format >want
		cp --sparse=always x.$format y.$format
		before=$(stat -c %b y.$format)
		vhd-zerofree -q -i y.$format
		vhd-zerofree -q -o z.$format x.$format
		cmp y.$format z.$format
		[ "$(size_of y.$format)" = "$(size_of x.$format)" ]
		[ "$(stat -c %b y.$format)" -lt "$before" ]
		[ "$(stat -c %b z.$format)" -lt "$before" ]
		digest y.$format | diff want -
		all_free_zero y.$format
	done
}

@test "not a byte changes but in free clusters and behind data" {
	noise_volume x.raw
	digest x.raw >want
	# an encrypted stream, as far as its flag goes; its tail belongs to it
	flag=$(($(attribute x.raw "$(record_of x.raw /encrypted)" 80) + 12))
	poke x.raw $flag 0040
	cp x.raw keep.raw
	cp x.raw y.raw
	vhd-zerofree -q -i --keep-slack keep.raw
	vhd-zerofree -q -i y.raw
	# with --keep-slack: just the free clusters, all of them
	fsstat x.raw >/dev/null
	blkls -e -a x.raw | cmp - <(blkls -e -a keep.raw)
	blkls -A keep.raw | cmp -n "$(blkls -A keep.raw | wc -c)" - /dev/zero
	# the clusters of compressed and encrypted files, raw, are untouched without it too
	for file in compressed encrypted; do
		n=$(record_of x.raw /$file)
		istat x.raw "$n" | sed -n '/^Type: \$DATA/,$p' | grep '^[0-9]' | tr ' ' '\n' | grep -v '^0*$' >clusters
		[ -s clusters ]
		while read -r c; do
			cmp -i $((c * 4096)) -n 4096 x.raw y.raw
		done <clusters
	done
	# tails of the others are zero, and nothing of the data is
	for file in file a/stream:second; do
		# the last stream's last cluster
		last=$(istat x.raw "$(record_of x.raw "/${file%:*}")" | sed -n '/^Type: \$DATA/,$p' | grep '^[0-9]' |
			tr ' ' '\n' | grep . | tail -n 1)
		tail=$(($(sed -n "s,^[0-9a-f]* *\([0-9]*\) /$file\$,\1,p" want) % 4096))
		[ $tail -gt 0 ]
		cmp -n $((4096 - tail)) -i $((last * 4096 + tail)):0 y.raw /dev/zero
		cmp -i $((last * 4096)) -n $tail x.raw y.raw
	done
	# libntfs-3g does not read encrypted files
	poke y.raw $flag 0000
	digest y.raw | diff want -
	sound_ntfs y.raw
}

@test "tails of files: zero by default, kept by --keep-slack" {
	noise_volume x.raw
	n=$(record_of x.raw /file)
	at=$(attribute x.raw "$n" 80)
	tail=$(($(first_cluster x.raw "$at") * 4096 + 50001))
	poke x.raw $((tail + 10)) 736563726574
	digest x.raw >want
	vhd-zerofree -q -o kept.raw --keep-slack x.raw
	[ "$(peek kept.raw $((tail + 10)) 6)" = 736563726574 ]
	vhd-zerofree -q -o y.raw x.raw
	[ "$(peek y.raw $((tail + 10)) 6)" = 000000000000 ]
	[ "$(peek y.raw $((tail - 16)) 16)" = "$(peek x.raw $((tail - 16)) 16)" ]
	digest y.raw | diff want -
	[ "$(vhd-zerofree -n --json x.raw | jq .slack)" -gt 0 ]
	[ "$(vhd-zerofree -n --json --keep-slack x.raw | jq .slack)" = 0 ]
}

@test "bytes past the initialized size are zero" {
	noise_volume x.raw
	n=$(record_of x.raw /pagefile.sys)
	at=$(attribute x.raw "$n" 80)
	data=$(($(first_cluster x.raw "$at") * 4096))
	poke x.raw $((at + 56)) 10270000 # 10000
	digest x.raw >want
	grep -q '/pagefile.sys$' want
	[ "$(tr -d '\0' <x.raw | wc -c)" -gt 0 ]
	vhd-zerofree -q -o y.raw x.raw
	cmp -i $((data + 10000)):0 -n $((200704 - 10000)) y.raw /dev/zero
	cmp -i "$data" -n 10000 x.raw y.raw
	digest y.raw | diff want -
	[ "$(vhd-zerofree -n --json x.raw | jq .slack)" -ge 190704 ]
	vhd-zerofree -q -o kept.raw --keep-slack x.raw
	cmp -i "$data" -n 200704 x.raw kept.raw
}

@test "clusters that are used but claimed by nobody are not touched" {
	noise_volume x.raw
	set_bitmap x.raw 5000 1
	vhd-zerofree --json -i x.raw >json
	[ "$(jq '.volumes[0].used_unclaimed_clusters' json)" = 1 ]
	run ! cmp -s -i $((5000 * 4096)):0 -n 4096 x.raw /dev/zero
	cmp -i $((4999 * 4096)):0 -n 4096 x.raw /dev/zero
	cmp -i $((5001 * 4096)):0 -n 4096 x.raw /dev/zero
}

@test "--log empties the log, and the volume can still be written" {
	noise_volume x.raw
	log=$(attribute x.raw 2 80)
	at=$(($(first_cluster x.raw "$log") * 4096))
	size=$(le x.raw $((log + 48)) 8)
	digest x.raw >want
	vhd-zerofree -q --log -i x.raw
	[ "$(tail -c +$((at + 1)) x.raw | head -c "$size" | tr -d '\377' | wc -c)" -eq 0 ]
	digest x.raw | diff want -
	sound_ntfs x.raw
	vhd-info --check x.raw >/dev/null
	ntfscp x.raw /etc/passwd passwd
	[ "$(ntfscat x.raw passwd | sha256sum)" = "$(sha256sum </etc/passwd)" ]
	[ "$(vhd-zerofree -n --json --log x.raw | jq .log)" = "$size" ]
	vhd-zerofree -q --log -o y.raw x.raw
	vhd-rmfile -q -i y.raw /file
}

@test "a dynamic VHD never grows, and gives its host blocks back" {
	new_image x.vhd --size 96M --style xp
	size=$(size_of x.vhd)
	blocks=$(count_blocks x.vhd)
	bat=$(peek x.vhd 1536 $((48 * 4)))
	vhd-zerofree -q -n x.vhd >/dev/null
	host=$(stat -c %b x.vhd)
	zeroed=$(vhd-zerofree -i --json x.vhd | jq .zeroed)
	[ "$(size_of x.vhd)" = "$size" ]
	[ "$(count_blocks x.vhd)" = "$blocks" ]
	[ "$(peek x.vhd 1536 $((48 * 4)))" = "$bat" ]
	# nearly all that was zeroed: pages of the host that hold parts of two clusters stay
	[ $(((host - $(stat -c %b x.vhd)) * 512)) -gt $((zeroed / 2)) ]
	[ "$zeroed" -gt 10000000 ]
	# written out, empty blocks are left out at once
	new_image y.vhd --size 96M --style xp
	vhd-zerofree -q -f -o y.vhd y.vhd || vhd-zerofree -q -o z.vhd y.vhd
	[ "$(count_blocks z.vhd)" -lt "$blocks" ]
}

@test "a second run writes nothing to the image" {
	skip_without strace
	for format in dynamic raw; do
		new_image x.$format --size 48M --style xp --format $format
		vhd-zerofree -q -i x.$format
		sum=$(sha256sum <x.$format)
		time=$(stat -c '%y %b' x.$format)
		sleep 0.05
		traced -y -e trace=pwrite64,write,fallocate,ftruncate,copy_file_range -o log vhd-zerofree -i --json x.$format >json
		[ "$(jq .zeroed json)" = 0 ]
		run ! grep "/x\.$format>" log
		[ "$(stat -c '%y %b' x.$format)" = "$time" ]
		[ "$(sha256sum <x.$format)" = "$sum" ]
		[ "$(ls -A | grep -c journal)" -eq 0 ]
	done
}

@test "zeros are not written where zeros are" {
	skip_without strace
	# all free space of this one is zero already, but for one cluster
	truncate -s 24M x.raw
	mkntfs -F -Q -q -T x.raw 2>/dev/null
	poke x.raw $((4000 * 4096 + 77)) 01
	traced -y -e trace=pwrite64,fallocate -o log vhd-zerofree -i --json x.raw >json
	[ "$(jq .zeroed json)" = 4096 ]
	[ "$(grep -c '/x\.raw>' log)" -eq 1 ]
	grep '/x\.raw>' log | grep -q "fallocate.*$((4000 * 4096)), 4096)"
	# and holes are not read
	traced -y -e trace=pread64 -o log vhd-zerofree -i -q x.raw
	[ "$(awk '/\/x\.raw>/ { n += $NF } END { print n }' log)" -lt 4000000 ]
}

@test "-n tells the numbers that -i then does" {
	for style in xp win10; do
		for options in '' --keep-slack --log; do
			new_image x.vhd --size 48M --style $style
			before=$(sha256sum <x.vhd)
			# shellcheck disable=SC2086 # none or one word
			vhd-zerofree -n --json $options x.vhd | jq 'del(.dry_run)' >want
			[ "$(sha256sum <x.vhd)" = "$before" ]
			# shellcheck disable=SC2086
			vhd-zerofree -i --json $options x.vhd | jq 'del(.dry_run)' | diff want -
			[ "$(jq '.zeroed + .already_zero - .free - .slack' want)" = 0 ]
			[ "$(jq .zeroed want)" -gt 1000000 ]
		done
	done
}

@test "what forbids it is refused, with what was found and where" {
	noise_volume base.raw
	for state in unclean:'log holds changes' fast:'fast start-up' zero:'log is damaged'; do
		cp base.raw x.raw
		echo "logfile ${state%%:*}" | "$populate" x.raw
		refused 3 "${state#*:}"
	done
	cp base.raw x.raw
	echo dirty | "$populate" x.raw
	refused 3 'dirty'
	cp base.raw x.raw
	echo 'gen /hiberfil.sys hibr 400000 1' | "$populate" x.raw
	refused 3 'hibernated'
	cp base.raw x.raw
	poke x.raw $((0x1e00)) 6b87083876c1484eb7ae04046e6cc7520100000001000000
	poke x.raw $((0x1e00 + 48)) 0000e00000000000
	poke x.raw $((14 << 20)) 6b87083876c1484eb7ae04046e6cc7520100000002000000
	poke x.raw $(((14 << 20) + 40)) 0000000000000000
	poke x.raw $(((14 << 20) + 128)) 0200000000000000
	refused 3 'shadow cop'
	# what cannot be read at all
	truncate -s 2M x.raw
	poke x.raw 3 2d4656452d46532d
	refused 3 BitLocker
	rm x.raw
	truncate -s 2M x.raw
	poke x.raw 0 eb52904d53574e34
	poke x.raw 0 0000005265465300
	refused 3 ReFS
	rm x.raw
	truncate -s 2M x.raw
	poke x.raw 512 4c4142454c4f4e450100000000000000
	refused 3 LVM
}

@test "disks that are part of something larger are refused, naming the partition" {
	skip_without sfdisk
	noise_volume v.raw
	truncate -s 40M base.raw
	printf 'label: dos\nstart=2048, size=49152, type=7\nstart=53248, size=20480, type=42\n' | sfdisk -q base.raw
	dd if=v.raw of=base.raw bs=1M seek=1 conv=notrunc status=none
	cp base.raw x.raw
	refused 3 'partition 2 is part of a dynamic disk (LDM'
	refused 3 'partition 2' --volume 1
	poke x.raw $((446 + 16 + 4)) 8e
	refused 3 'partition 2 is a physical volume of LVM'
	poke x.raw $((446 + 16 + 4)) 07
	poke x.raw $((53248 * 512 + 3)) 2d4656452d46532d
	refused 3 'partition 2: BitLocker'
	# the other one alone may be done
	vhd-zerofree -q -i --volume 1 x.raw
	for type in 5808C8AA-7E8F-42E0-85D2-E1E90434CFB3:LDM AF9B60A0-1431-4F62-BC68-3311714A69AD:LDM \
		E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D:'Storage Spaces' E6D6D379-F507-44C2-A23C-238F2A3DF928:LVM; do
		rm x.raw
		truncate -s 40M x.raw
		printf 'label: gpt\nstart=2048, size=49152, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\nstart=53248, size=20480, type=%s\n' \
			"${type%%:*}" | sfdisk -q x.raw
		dd if=v.raw of=x.raw bs=1M seek=1 conv=notrunc status=none
		refused 3 'partition 2'
		[[ $stderr == *"${type#*:}"* ]]
	done
}

@test "a damaged file system is refused, status 4, naming the cluster or record" {
	noise_volume base.raw
	file=$(attribute base.raw "$(record_of base.raw /file)" 80)
	aligned=$(attribute base.raw "$(record_of base.raw /aligned)" 80)
	for case in free:'marked free' cross:'claimed by record' outside:'outside the volume' torn:torn mirror:MFTMirr boot:'boot sector'; do
		cp base.raw x.raw
		case $case in
		free:*) set_bitmap x.raw "$(first_cluster x.raw "$file")" 0 ;;
		cross:*) poke_first_cluster x.raw "$file" "$(first_cluster x.raw "$aligned")" ;;
		outside:*) poke_first_cluster x.raw "$file" 32000 ;;
		torn:*) poke x.raw $(($(record x.raw "$(record_of x.raw /aligned)") + 510)) eeee ;;
		mirror:*) poke x.raw $(($(le x.raw 56 8) * 4096 + 60)) eeee ;;
		boot:*) poke x.raw 13 03 ;;
		esac
		refused 4 "${case#*:}"
	done
	# a cluster that is only lost is no damage; an index that misses a file is none for this command
	cp base.raw x.raw
	poke x.raw $(($(record x.raw "$(record_of x.raw /file)") + 18)) 0500
	vhd-zerofree -q -i x.raw
}

@test "partitions of unknown kinds stay as they are, to the byte" {
	skip_without sfdisk
	noise_volume v.raw
	truncate -s 48M x.raw
	openssl enc -aes-128-ctr -K 1 -iv 0 -in /dev/zero 2>/dev/null | head -c 48M >x.raw
	printf 'label: dos\nstart=63, size=10000, type=83\nstart=12345, size=49152, type=7\nstart=70000, size=9999, type=83\n' |
		sfdisk -q --wipe never --wipe-partitions never x.raw
	dd if=v.raw of=x.raw bs=512 seek=12345 conv=notrunc status=none
	vhd-zerofree -q -o y.raw x.raw
	[ "$(size_of y.raw)" = $((48 << 20)) ]
	end=$((12345 * 512 + (24 << 20)))
	cmp -n $((12345 * 512)) x.raw y.raw
	cmp -i $end x.raw y.raw
	run ! cmp -s x.raw y.raw
	cut_part y.raw 12345 49152 part
	blkls -A part | cmp -n "$(blkls -A part | wc -c)" - /dev/zero
	vhd-zerofree -v x.raw 2>&1 >z.raw | grep -q 'volume 1: unknown.*left as it is'
	cmp y.raw z.raw
	# a disk without any volume comes out as it went in
	openssl enc -aes-128-ctr -K 2 -iv 0 -in /dev/zero 2>/dev/null | head -c 3M >n.raw
	vhd-zerofree -q n.raw | cmp - n.raw
	run -3 vhd-zerofree -n --volume 1 n.raw
	run -2 vhd-zerofree -n --volume 2 n.raw
}

@test "clusters of every size, and what lies behind the last of them" {
	for cluster in 512 1024 2048 8192 65536; do
		openssl enc -aes-128-ctr -K 4 -iv 0 -in /dev/zero 2>/dev/null | head -c 20M >x.raw
		head -c 16M x.raw >v.raw
		# the volume ends before the disk does, and not on a cluster
		mkntfs -F -Q -q -T -c $cluster -s 512 v.raw 32001 2>/dev/null
		printf 'gen /a/one text 50001 1\ngen /two noise 1234567 2\ngen /gone noise 500000 3\nrm /gone\nlogfile clean\n' |
			"$populate" --stamp v.raw
		dd if=v.raw of=x.raw conv=notrunc bs=512 count=32001 status=none
		digest x.raw >want
		vhd-zerofree -q -f -o y.raw x.raw
		digest y.raw | diff want -
		blkls -A y.raw | cmp -n "$(blkls -A y.raw | wc -c)" - /dev/zero
		[ "$(blkls -A y.raw | wc -c)" -gt 10000000 ]
		# the backup boot sector and all behind it
		cmp -i $((32000 * 512)) x.raw y.raw
		vhd-info --check y.raw >/dev/null
		head -c $((32001 * 512)) y.raw >z.raw
		sound_ntfs z.raw
		vhd-rmfile -q -i -r y.raw /a /two
		vhd-info --check y.raw >/dev/null
		head -c $((32001 * 512)) y.raw >z.raw
		sound_ntfs z.raw
	done
}

@test "--volume: only that one" {
	new_image x.vhd --size 64M --style win10
	vhd-zerofree -n --json --volume 3 x.vhd >json
	[ "$(jq '.volumes | length' json)" = 1 ]
	[ "$(jq .volumes[0].volume json)" = 3 ]
	vhd-zerofree -q -o y.vhd --volume 4 x.vhd
	to_raw x.vhd x.raw
	to_raw y.vhd y.raw
	read -r start len < <(ntfs_parts x.raw | head -n 1)
	cmp -n $(((start + len) * 512)) x.raw y.raw
	run -2 vhd-zerofree -n --volume 0 x.vhd
	run -2 vhd-zerofree -n --volume x x.vhd
	run -2 vhd-zerofree -n --volume 9 x.vhd
	# the MSR has no file system to be told apart
	run -3 vhd-zerofree -n --volume 2 x.vhd
}

@test "reports: text and JSON, each where the image is not" {
	new_image x.vhd --size 48M
	vhd-zerofree x.vhd 2>err | cat >y.vhd
	grep -q 'zeroed' err
	vhd-zerofree -o z.vhd x.vhd >out 2>err
	grep -q 'zeroed' out
	[ ! -s err ]
	cmp y.vhd z.vhd
	vhd-zerofree --json -f -o z.vhd x.vhd | jq -e '.volumes | length == 4' >/dev/null
	vhd-zerofree --json x.vhd 2>err >y.vhd
	jq -e .free err >/dev/null
	cmp y.vhd z.vhd
	run -0 --separate-stderr vhd-zerofree -q -f -o z.vhd x.vhd
	[ -z "$output$stderr" ]
	vhd-zerofree -v -n x.vhd | grep -q 'volume 3: NTFS, .* free, .* slack'
}

@test "a journal that waits is not applied to a file that has grown within its last cluster" {
	skip_without mkntfs ntfscp ntfscat
	truncate -s 64M x.raw.was
	mkntfs -q -F -f -c 4096 x.raw.was >/dev/null 2>&1
	yes 'line of a log file' | head -c 7000 >long
	head -c 5000 long >short
	# what was longer leaves old data behind its end
	ntfscp -f x.raw.was long log.txt
	ntfscp -f x.raw.was short log.txt
	cut_off x.raw vhd-zerofree -q -i x.raw
	{
		cat short
		yes 'appended by the guest' | head -c 1500
	} >grown
	ntfscp -f x.raw grown log.txt
	run -3 vhd-info x.raw
	ntfscat x.raw log.txt | cmp - grown
}

@test "a volume in the first sector that a partition table has come after is nobody's word on what is free" {
	skip_without mkfs.vfat sfdisk
	for label in dos gpt; do
		rm -f x.raw
		truncate -s 100M x.raw
		mkfs.vfat -F 32 x.raw >/dev/null
		sfdisk -q --wipe never x.raw <<-END
			label: $label
			start=2048
		END
		sha256sum x.raw >sum
		run -3 vhd-zerofree -i x.raw
		[[ $output == *'both a partition table and the beginning of a volume'* ]]
		sha256sum --check --quiet sum
		run -0 vhd-info --quick x.raw
	done
	# mkfs.vfat's table of the whole disk is none of these
	mkfs.vfat -F 32 --mbr=y x.raw >/dev/null
	run -0 vhd-zerofree -n x.raw
}
