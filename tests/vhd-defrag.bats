#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# vhd-defrag: fewer blocks stay in use, as few as can be; every file and stream has its bytes, by libntfs-3g's word; what
# must not move has not moved, by sleuthkit's; ntfsresize, ntfsclone and the audit find nothing.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# volume FILE SIZE CLUSTER: a bare volume on noise, filled by the manifest on standard input.
volume() {
	openssl enc -aes-128-ctr -K 0 -iv 0 -in /dev/zero 2>/dev/null | head -c "$2" >"$1"
	mkntfs -F -Q -q -T -c "$3" "$1" 2>/dev/null
	"$populate" --stamp "$1"
}

# A file of each kind that NTFS knows, in pieces and among others that are gone.
kinds() {
	local i
	for ((i = 0; i < 60; i++)); do
		echo "gen /old/$((i % 7))/f$i noise $((3000 + i * 1999)) $i"
	done
	cat <<-'END'
		gen /resident text 300 1
		gen /streams noise 90001 2
		gen /streams:second text 70001 3
		gen /streams:third noise 50001 4
		compress /compressed
		compress /compressed-too
		grow 30000 12 text 5 /compressed /grown /compressed-too /grown-too
		sparse /sparse 4M
		write /sparse 1000000 noise 100001 6
		write /sparse 3000000 noise 200001 7
		fragment /pieces 700 noise 8
		gen /encrypted noise 60001 9
		gen /linked noise 40001 10
		link /old/0/other-name /linked
		junction /junction C:\old
		reparse /reparse 80000017 noise 12000 11
		usnjrnl 200000 12
		gen /zeros zero 300000 13
		gen /last-file noise 100000 14
		short /last-file LAST-F~1
	END
	for ((i = 0; i < 400; i++)); do
		echo "gen /folder/a-name-that-is-long-enough-for-an-index-of-many-blocks-$i text 100 $i"
	done
	for ((i = 0; i < 60; i++)); do
		[ $((i % 3)) -eq 0 ] || echo "rm /old/$((i % 7))/f$i"
	done
	for ((i = 0; i < 400; i += 2)); do
		echo "rm /folder/a-name-that-is-long-enough-for-an-index-of-many-blocks-$i"
	done
	echo logfile clean
}

# The digests of every NTFS volume of an image.
digests() {
	local start len
	to_raw "$1" digests.raw
	while read -r start len; do
		"$populate" --digest --offset $((start * 512)) digests.raw || return
	done < <(ntfs_parts digests.raw)
	rm digests.raw
}

# Whether IMAGE is sound, and holds what the digests in the file `want` say.
kept() {
	digests "$1" >have
	diff want have
	sound_ntfs "$1"
	vhd-info -q --quick --check "$1" >/dev/null
}

# figure NAME: of the report in the file `report`, for the whole disk.
figure() {
	sed -n "s/^  \"$1\": \([0-9]*\).*/\1/p" "${2:-report}"
}

# Whether the report says that blocks are within 1 % (or one block) of the bound.
near_bound() {
	local after bound
	after=$(figure blocks_after)
	bound=$(figure blocks_bound)
	echo "blocks: $(figure blocks_before) before, $bound at least, $after after; moved $(figure moved)"
	[ "$after" -le $((bound + (bound + 99) / 100)) ]
	[ "$after" -ge "$bound" ]
}

# What vhd-info foretells of a disk's volumes: the sum of FIGURE.
foretold() {
	vhd-info -q --json "$1" | awk -v name="\"$2\":" '/"defrag": \{/ { on = 1 } on && $1 == name { n += $2 } /\}/ { on = 0 } END { print n + 0 }'
}

# Blocks of a VHD that hold data once free space is zero.
compacted() {
	vhd-zerofree -q "$1" | vhd-compact -q "${@:2}" -o compacted.vhd
	count_blocks compacted.vhd
	rm compacted.vhd
}

# refused STATUS TEXT [OPTION]...: on x.raw, in every way, with one line, and nothing is changed.
refused() {
	local want=$1 text=$2 before
	shift 2
	before=$(sha256sum <x.raw)
	for args in -i '-o out' -n '--goal files -i'; do
		# shellcheck disable=SC2086 # several words
		run "-$want" --separate-stderr vhd-defrag $args "$@" x.raw
		echo "$stderr"
		[ -z "$output" ]
		[ "${#stderr_lines[@]}" -eq 1 ]
		[[ $stderr == "vhd-defrag: x.raw"*"$text"* ]]
		[ "$(sha256sum <x.raw)" = "$before" ]
		[ ! -e out ]
		[ ! -e x.raw.prep-journal ]
	done
	run "-$want" bash -c 'vhd-defrag "$@" <x.raw >out' bash "$@"
	[ ! -s out ]
	rm out
}

@test "an aged disk comes to the fewest blocks: to a file, a pipe, in place, as -n and vhd-info foretell" {
	for style in xp win10; do
		new_image x.vhd --size 192M --style $style
		digests x.vhd >want
		before=$(sha256sum <x.vhd)
		vhd-defrag -n --json x.vhd >report
		near_bound
		[ "$(figure blocks_after)" -lt $(($(figure blocks_before) * 3 / 4)) ]
		[ "$(foretold x.vhd blocks_before)" = "$(figure blocks_before)" ]
		[ "$(foretold x.vhd blocks_after)" = "$(figure blocks_after)" ]
		[ "$(foretold x.vhd moved)" = "$(figure moved)" ]
		[ "$(sha256sum <x.vhd)" = "$before" ]
		vhd-defrag --json -o a.vhd x.vhd >report2
		diff <(grep -v dry_run report) <(grep -v dry_run report2)
		kept a.vhd
		cat x.vhd | vhd-defrag -q | cat >b.vhd
		cmp a.vhd b.vhd
		vhd-defrag -q <x.vhd >b.vhd
		cmp a.vhd b.vhd
		cp x.vhd b.vhd
		vhd-defrag --json -i b.vhd >report2
		diff <(grep -v 'dry_run\|image' report) <(grep -v 'dry_run\|image' report2)
		kept b.vhd
		# the same for the guest, but for what free clusters hold
		vhd-zerofree -q -o a2.vhd a.vhd
		vhd-zerofree -q -o b2.vhd b.vhd
		same_guest a2.vhd b2.vhd
		# and twice is as good as once
		vhd-defrag --json -i b.vhd >report2
		[ "$(figure blocks_after report2)" = "$(figure blocks_after)" ]
		[ "$(figure moved report2)" = 0 ]
		# what it is all for
		[ "$(compacted a.vhd)" -lt "$(compacted x.vhd)" ]
		[ "$(compacted b.vhd)" = "$(compacted a.vhd)" ]
		[ "$(compacted a.vhd)" -le $(($(figure blocks_after) + 10)) ]
		rm -f ./*
	done
}

@test "the whole pipeline, with and without" {
	new_image x.vhd --size 192M
	steps='--preset pagefile --preset temp'
	# shellcheck disable=SC2086 # several words
	vhd-rmfile -q $steps x.vhd | vhd-zerofree -q | vhd-compact -q -o without.vhd
	# shellcheck disable=SC2086
	vhd-rmfile -q $steps x.vhd | vhd-defrag -q | vhd-zerofree -q | vhd-compact -q -o with.vhd
	digests without.vhd >want
	kept with.vhd
	[ "$(count_blocks with.vhd)" -lt "$(count_blocks without.vhd)" ]
}

@test "blocks of other sizes: 512K, 4M, 64M" {
	for style in xp win10; do
		new_image x.vhd --size 192M --style $style
		digests x.vhd >want
		for size in 512K 4M 64M; do
			vhd-defrag -n --json --block-size $size x.vhd >report
			near_bound
			[ "$(figure blocks_after)" -le "$(figure blocks_before)" ]
			vhd-defrag --json --block-size $size -o y.vhd x.vhd >report2
			diff <(grep -v 'dry_run' report) <(grep -v 'dry_run' report2)
			kept y.vhd
			[ $size != 512K ] || [ "$(compacted y.vhd --block-size 512K)" -lt "$(compacted x.vhd --block-size 512K)" ]
			rm y.vhd
		done
		# an image of small blocks needs no option
		vhd-compact -q --block-size 512K -o small.vhd x.vhd
		vhd-defrag -q --json -n small.vhd >report
		[ "$(figure block_size)" = 524288 ]
		[ "$(foretold small.vhd blocks_after)" = "$(figure blocks_after)" ]
		rm ./*
	done
}

@test "raw disks and fixed VHDs, in their own format" {
	for format in raw fixed; do
		new_image x.img --size 96M --format $format
		digests x.img >want
		vhd-defrag --json -o y.img x.img >report
		near_bound
		kept y.img
		[ "$(stat -c %s y.img)" = "$(stat -c %s x.img)" ]
		vhd-defrag -q -i x.img
		kept x.img
		rm ./*
	done
}

@test "every kind of attribute, at clusters of 512 bytes, 4 KiB and 64 KiB" {
	for cluster in 512 4096 65536; do
		size=48M
		[ $cluster != 65536 ] || size=128M
		kinds | grep -v "$([ $cluster = 65536 ] && echo '^compress\|^grow' || echo '^#')" | volume x.raw $size $cluster
		"$populate" --digest x.raw >want
		for goal in blocks files; do
			for block in 512K 2M; do
				cp x.raw y.raw
				vhd-defrag --json --goal $goal --block-size $block -i y.raw >report
				echo "$cluster $goal $block"
				near_bound
				[ "$(figure moved)" -gt 0 ]
				kept y.raw
				vhd-defrag -q --goal $goal --block-size $block -o z.raw x.raw
				kept z.raw
				rm y.raw z.raw
			done
		done
		rm ./*
	done
}

# flags_and_sizes FILE RECORD: of the data; allocated, real, initialized, and compressed where there is one.
flags_and_sizes() {
	local at flags
	at=$(attribute "$1" "$2" 80)
	flags=$(peek "$1" $((at + 12)) 2)
	case $flags in
	0080 | 0100) echo "$flags $(peek "$1" $((at + 40)) 32)" ;;
	*) echo "$flags $(peek "$1" $((at + 40)) 24)" ;;
	esac
}

@test "sparse, compressed and encrypted streams stay what they are" {
	skip_without ifind icat
	# each in a block of its own: all of them must move
	volume x.raw 48M 4096 <<-'END'
		gen /gap1 noise 5000000 1
		gen /encrypted noise 600001 2
		gen /gap2 noise 5000000 1
		sparse /sparse 4M
		write /sparse 1000000 noise 100001 3
		write /sparse 3000000 noise 200001 4
		gen /gap3 noise 5000000 1
		compress /compressed
		grow 30000 40 text 5 /compressed /grown
		rm /gap1
		rm /gap2
		rm /gap3
		logfile clean
	END
	for path in /encrypted /sparse /compressed /grown; do
		n=$(record_of x.raw $path)
		# the flag of an encrypted attribute, and of its file
		if [ $path = /encrypted ]; then
			poke x.raw $(($(attribute x.raw "$n" 80) + 12)) 0040
			poke x.raw $(($(attribute x.raw "$n" 10) + 24 + 32)) 2040
		fi
		flags_and_sizes x.raw "$n" >flags-"$n"
		icat "$(realpath x.raw)" "$n" | sha256sum >data-"$n"
	done
	[ "$(cut -c1-4 flags-* | sort | tr -d '\n')" = 0000004000800100 ]
	for goal in blocks files; do
		cp x.raw y.raw
		vhd-defrag -q -i --block-size 512K --goal $goal y.raw
		for path in /encrypted /sparse /compressed /grown; do
			n=$(record_of y.raw $path)
			flags_and_sizes y.raw "$n" | cmp - flags-"$n"
			icat y.raw "$n" | sha256sum | cmp - data-"$n"
			echo "$goal $path"
			run ! cmp -s <(istat x.raw "$n" | sed '1,/^Type: .DATA/d') <(istat y.raw "$n" | sed '1,/^Type: .DATA/d')
		done
		sound_ntfs y.raw
		vhd-info -q --quick --check y.raw >/dev/null
	done
}

# The clusters of what must not move: records below 24, $Extend's, and the files named.
places() {
	local i
	for ((i = 0; i < 24; i++)); do
		# what libntfs-3g may lengthen by itself: $MFT and its bitmap, where they were they stay
		[ $i -eq 0 ] || istat "$1" $i 2>/dev/null | sed -n '/^Type:/,$p'
	done
	for i in '/$Extend' '/$Extend/$UsnJrnl' /bootmgr /BOOTNXT /ntldr /NTDETECT.COM /hiberfil.sys; do
		istat "$1" "$(record_of "$1" "$i")" | sed -n '/^Type:/,$p'
	done
}

# Those of the attribute list of a file of many streams.
list_place() {
	istat "$1" "$(record_of "$1" /many)" | sed -n '/^Type: .ATTRIBUTE_LIST.*Non-Resident/,/^Type: .F/p' | sed '$d'
}

@test "never moved: NTFS's own files, bad clusters, attribute lists, what boot code finds by its place, what nobody claims" {
	skip_without istat ifind
	{
		for name in bootmgr BOOTNXT ntldr NTDETECT.COM; do
			echo "gen /gap$name noise 2500000 1"
			echo "gen /$name noise 60000 2"
		done
		echo 'gen /hiberfil.sys hiber 600000 3'
		for ((i = 0; i < 120; i++)); do
			echo "gen /many:stream-with-a-name-of-some-length-$i text 400 $i"
		done
		kinds
		echo 'append /many noise 500000 5'
		for name in bootmgr BOOTNXT ntldr NTDETECT.COM; do
			echo "rm /gap$name"
		done
		# in a block of their own, far behind
		echo bad 13000 3
		echo bad 13100 1
	} | sed '/^logfile/d' >manifest
	echo logfile clean >>manifest
	volume x.raw 64M 4096 <manifest
	# four clusters that are marked used and belong to nobody, far behind
	lost=12000
	for ((i = 0; i < 4; i++)); do
		set_bitmap x.raw $((lost + i)) 1
	done
	dd if=x.raw of=lost bs=4096 skip=$lost count=4 status=none
	"$populate" --digest x.raw >want
	places x.raw >before
	list_place x.raw >list
	[ -s list ]
	vhd-info --json --check x.raw >info
	grep -q '"bad_clusters": 4,' info
	for goal in files blocks; do
		cp x.raw y.raw
		vhd-defrag --json -i --goal $goal y.raw >report
		[ "$(figure moved)" -gt 100000 ]
		"$populate" --digest y.raw | diff want -
		places y.raw | diff before -
		list_place y.raw | diff list -
		dd if=y.raw bs=4096 skip=$lost count=4 status=none | cmp - lost
		for ((i = 0; i < 4; i++)); do
			cp y.raw z.raw
			set_bitmap z.raw $((lost + i)) 1
			cmp y.raw z.raw
		done
		vhd-info --json --check y.raw >info
		grep -q '"bad_clusters": 4,' info
	done
}

@test "goal files: largest gain first, within the budget" {
	{
		echo 'fragment /a 400 noise 1'
		echo 'fragment /b 100 noise 2'
		echo 'grow 40000 20 noise 3 /large1 /large2'
		echo logfile clean
	} | volume x.raw 48M 4096
	"$populate" --digest x.raw >want
	vhd-defrag --json --goal files -o y.raw x.raw >report
	kept y.raw
	near_bound
	# one block holds the disk: so nothing else moves
	for case in :0 10M:0 3M:1 2000K:2 1700K:3 400K:3 300K:4 0:4; do
		budget=${case%:*}
		vhd-defrag -n --json --goal files ${budget:+--budget $budget} --block-size 64M x.raw >report
		echo "$case $(figure moved)"
		grep -q '"fragmented_before": 4' report
		grep -q "\"fragmented_after\": ${case#*:}$" report
		[ "$(figure moved)" -le "$(numfmt --from=iec "${budget:-1G}")" ]
	done
	# with nothing to spend on files it is the goal blocks
	vhd-defrag -n --json --goal blocks x.raw >report
	vhd-defrag -n --json --goal files --budget 0 x.raw >report2
	[ "$(figure moved)" = "$(figure moved report2)" ]
}

@test "a file of 20,000 pieces and more, in time that grows as it does" {
	skip_under_valgrind 'about time'
	for n in 20000 40000; do
		printf '%s\n' "fragment /pieces $n noise 1" 'gen /a noise 20000000 2' 'logfile clean' | volume x.raw $((n / 50))M 4096
		"$populate" --digest x.raw >want
		for goal in blocks files; do
			cp x.raw y.raw
			TIMEFORMAT='%U %S'
			{ time vhd-defrag --json -i --goal $goal y.raw >report; } 2>cpu
			near_bound
			"$populate" --digest y.raw | diff want -
			vhd-info -q --quick --check y.raw >/dev/null
			echo "$n $goal $(awk '{ print int(100 * ($1 + $2)) }' cpu)" | tee -a times
		done
		[ "$(figure moved)" -gt $((n * 4000)) ]
	done
	# twice as many take no four times as long; tenths of a second may be anything
	awk '{ t[$2, $1] = $3 } END { for (g = 0; g < 2; g++) { k = g ? "files" : "blocks"
		if (t[k, 40000] > 3.2 * t[k, 20000] + 50) exit 1 } }' times
}

@test "a volume that is full to 97 %" {
	awk 'BEGIN {
		srand(5)
		for (t = i = 0; t < 60.4e6; i++) {
			t += s = int(1000 + rand() * rand() * 200000)
			print "gen /d" i % 7 "/f" i " noise " s " " i
		}
		for (j = 0; j < i; j += 120) print "rm /d" j % 7 "/f" j
		print "logfile clean"
	}' >manifest
	volume x.raw 64M 4096 <manifest
	full=$(vhd-info --quick --json x.raw | awk '$1 == "\"used\":" { print int($2 * 100 / (64 * 1048576)) }')
	echo "full to $full %"
	[ "$full" -ge 97 ]
	"$populate" --digest x.raw >want
	for goal in blocks files; do
		for size in 512K 2M; do
			cp x.raw y.raw
			vhd-defrag --json -i --goal $goal --block-size $size y.raw >report
			near_bound
			kept y.raw
		done
	done
}

@test "compressed files among holes too short for their units" {
	awk 'BEGIN {
		for (i = 0; i < 12; i++) { print "compress /c" i; printf "grow 65536 8 text %d /c%d\n", i, i; print "fragment /p" i " 150 noise " i }
		for (i = 0; i < 12; i += 2) print "rm /c" i
		for (i = 1; i < 12; i += 3) print "rm /p" i
		print "logfile clean"
	}' | volume x.raw 32M 4096
	"$populate" --digest x.raw >want
	cp x.raw y.raw
	for size in 512K 1M 2M; do
		vhd-defrag --json -n --block-size $size x.raw >report
		vhd-defrag --json -i --block-size $size y.raw >report2
		cp x.raw y.raw
		diff <(grep -v 'dry_run\|image' report) <(grep -v 'dry_run\|image' report2)
	done
	vhd-defrag --json -i y.raw >report
	[ "$(foretold x.raw blocks_after)" = "$(figure blocks_after)" ]
	[ "$(foretold x.raw moved)" = "$(figure moved)" ]
	kept y.raw
}

@test "two NTFS volumes on a disk: both, or the one asked for" {
	new_image x.vhd --size 192M
	digests x.vhd >want
	vhd-defrag --json -n x.vhd >report
	[ "$(grep -c '"file_system": "NTFS"' report)" = 2 ]
	[ "$(grep -c '"done": true' report)" = 2 ]
	to_raw x.vhd x.raw
	mapfile -t parts < <(ntfs_parts x.raw)
	[ "${#parts[@]}" = 2 ]
	for volume in 3 4; do
		vhd-defrag --json --volume $volume -f -o y.vhd x.vhd >report
		[ "$(grep -c '"done": true' report)" = 1 ]
		grep -q "\"volume\": $volume" report
		kept y.vhd
		to_raw y.vhd y.raw
		for i in 0 1; do
			# shellcheck disable=SC2086 # two words
			cut_part x.raw ${parts[i]} before.part
			# shellcheck disable=SC2086
			cut_part y.raw ${parts[i]} after.part
			same=0
			cmp -s before.part after.part || same=1
			[ $same = $((i + 3 == volume)) ]
		done
		# all around the volumes is as it was
		cmp -n $((${parts[0]% *} * 512)) x.raw y.raw
	done
	# FAT is said to be left alone
	run -0 vhd-defrag -n x.vhd
	[[ ${lines[0]} == 'volume 1: FAT, left as it is: only NTFS is defragmented' ]]
	run -3 --separate-stderr vhd-defrag -n --volume 1 x.vhd
	[[ $stderr == *'FAT: only NTFS can be defragmented'* ]]
	run -3 --separate-stderr vhd-defrag -n --volume 2 x.vhd
	[[ $stderr == *'only NTFS can be defragmented'* ]]
	run -2 vhd-defrag -n --volume 0 x.vhd
	run -2 --separate-stderr vhd-defrag -n --volume 9 x.vhd
	[[ $stderr == *9* ]]
}

@test "disks without NTFS are left alone, with clear words" {
	skip_without mkfs.vfat
	truncate -s 20M fat.raw
	mkfs.vfat --invariant fat.raw >/dev/null
	cp fat.raw before.raw
	run -0 vhd-defrag -i fat.raw
	[[ ${lines[0]} == *'FAT, left as it is: only NTFS is defragmented' ]]
	cmp fat.raw before.raw
	vhd-defrag -q -o copy.raw fat.raw
	cmp copy.raw fat.raw
}

@test "what forbids it is refused, with what was found, and nothing is changed" {
	kinds | volume base.raw 32M 4096
	for state in unclean:'log holds changes' fast:'fast start-up' zero:'log is damaged'; do
		cp base.raw x.raw
		echo "logfile ${state%%:*}" | "$populate" x.raw
		refused 3 "${state#*:}"
	done
	cp base.raw x.raw
	echo dirty | "$populate" x.raw
	refused 3 dirty
	cp base.raw x.raw
	printf '%s\n' 'gen /hiberfil.sys hibr 400000 1' | "$populate" x.raw
	refused 3 hibernated
	cp base.raw x.raw
	poke x.raw 3 2d4656452d46532d
	refused 3 BitLocker
	# damage
	file=$(attribute base.raw "$(record_of base.raw /streams)" 80)
	for case in free:'marked free' cross:'claimed by record' outside:'outside the volume' links:'link'; do
		cp base.raw x.raw
		case $case in
		free:*) set_bitmap x.raw "$(first_cluster x.raw "$file")" 0 ;;
		cross:*) poke_first_cluster x.raw "$file" "$(first_cluster x.raw "$(attribute x.raw 2 80)")" ;;
		outside:*) poke_first_cluster x.raw "$file" 9000 ;;
		links:*) poke x.raw $(($(record x.raw "$(record_of x.raw /streams)") + 18)) 0500 ;;
		esac
		refused 4 "${case#*:}"
	done
}

@test "the report: words, JSON, nothing when quiet" {
	new_image x.vhd --size 96M --style xp
	run -0 --separate-stderr vhd-defrag -n x.vhd
	[ -z "$stderr" ]
	[[ $output == 'x.vhd: '*' blocks of 2.00 MiB in use would become '*' (no fewer than '*' files in pieces would become '*' would be moved' ]]
	run -0 vhd-defrag -n -v x.vhd
	[[ ${lines[0]} == 'volume 1: '*' blocks in use, now '*' cannot be emptied'*' moved' ]]
	run -0 vhd-defrag -n -q x.vhd
	[ -z "$output" ]
	run -0 --separate-stderr vhd-defrag -o y.vhd x.vhd
	[[ $output == *' in use became '* ]]
	vhd-defrag --json x.vhd 2>report | cmp - y.vhd
	for name in image dry_run goal block_size blocks_before blocks_after blocks_bound moved volumes volume file_system \
		'done' blocks_pinned fragments_before fragments_after fragmented_before fragmented_after; do
		grep -q "\"$name\": " report
	done
	name=$(printf 'disk-\351.vhd')
	cp x.vhd "$name"
	vhd-defrag -n --json "$name" | grep -q '"moved": '
	run -3 vhd-defrag -o y.vhd x.vhd
	vhd-defrag -q -f -o y.vhd x.vhd
	for args in '--goal neither' '--goal' '--budget 1M' '--goal files --budget x' '--block-size 3M' '--block-size 256K' '-i -o y' 'x.vhd' '-i -'; do
		# shellcheck disable=SC2086 # several words
		run -2 vhd-defrag $args x.vhd
	done
	run -3 vhd-defrag -q -n /dev/null
}

## Stopped or failed at every call that touches a file

# A small volume of all that moves: pieces, a compressed file, a folder's index, streams, and room to move to.
small_volume() {
	truncate -s 6M "$1"
	mkntfs -F -Q -q -T -c 4096 "$1" 2>/dev/null
	"$populate" --stamp "$1" <<-'END'
		gen /gap1 noise 700000 1
		compress /compressed
		gen /compressed text 200000 2
		gen /stream text 30001 3
		gen /stream:second noise 40001 4
		gen /gap2 noise 600000 5
		fragment /pieces 60 noise 6
		gen /gap3 noise 900000 7
		gen /a/one noise 130001 8
		gen /a/b/two text 700 9
		gen /gap4 noise 500000 10
		gen /last noise 90001 11
		rm /gap1
		rm /gap2
		rm /gap3
		rm /gap4
		logfile clean
	END
}

# survives IMAGE KINDS [OPTION]...: vhd-defrag -i on copies of made/IMAGE with each kind of fault at FAULT_POINTS calls
# spread over all of them (30; "all": every one). Afterwards, and after the next command, all files have their bytes.
survives() {
	local image=$1 kinds=$2 kind n count step status tried=0
	shift 2
	told=0
	for kind in $kinds; do
		cp "made/$image" "work/$image"
		env FAULTS_HOW="$kind" FAULTS_AT=0 FAULTS_COUNT="$PWD/count" LD_PRELOAD="$faults" "$asan" vhd-defrag -q -i "$@" "work/$image"
		count=$(cat count)
		step=$((count / ${FAULT_POINTS/all/1000000} + 1))
		for ((n = 1; n <= count; n += step, tried++)); do
			cp "made/$image" "work/$image"
			status=0
			# the shell's own word on a process that was killed comes with the command's messages
			env FAULTS_HOW="$kind" FAULTS_AT=$n LD_PRELOAD="$faults" "$asan" vhd-defrag -q -i "$@" "work/$image" 2>err || status=$?
			case $kind:$status in
			kill:137 | tear:137) ;;
			e*:1) [ "$(wc -l <err)" = 1 ] ;;
			e*:0) [ ! -s err ] ;;
			*) echo "$kind at call $n of $count: status $status"; cat err; return 1 ;;
			esac
			# of two steps one may be done, and is said to be
			if grep -q 'first of two steps is done' err; then
				told=$((told + 1))
				run -1 cmp -s "made/$image" "work/$image"
			fi
			# a second cut, while the next command finishes the change
			if [ -e "work/$image.prep-journal" ]; then
				env FAULTS_HOW=kill FAULTS_AT=$((n % 40 + 1)) LD_PRELOAD="$faults" "$asan" vhd-info -q --quick "work/$image" >/dev/null 2>&1 || true
			fi
			vhd-info -q --quick --check "work/$image" >/dev/null || { echo "$kind at call $n of $count: unsound"; return 1; }
			[ "$(ls work)" = "$image" ] || [ "$kind" = kill ] || { ls work; return 1; }
			"$populate" --digest "work/$image" | diff made/want - || { echo "$kind at call $n of $count"; return 1; }
			# and what was begun can be done
			if [ $((tried % 5)) = 0 ]; then
				vhd-defrag -q -i "$@" "work/$image"
				"$populate" --digest "work/$image" | diff made/want -
				[ "$(ls work)" = "$image" ]
			fi
			rm -f work/* work/.??*
		done
	done
	echo "# $image $*: $tried points" >&3
}

prepare_faults() {
	faults=$build/tests/faults.so
	[ -e "$faults" ] || skip "$faults: not built"
	asan="ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0:detect_leaks=0"
	FAULT_POINTS=${FAULT_POINTS:-30}
	mkdir made work
	small_volume made/a.raw
	"$populate" --digest made/a.raw >made/want
}

@test "stopped at a write: every file has its bytes, after the next command at the latest" {
	prepare_faults
	vhd-defrag --json -n --block-size 512K made/a.raw >report
	[ "$(figure moved)" -gt 300000 ]
	survives a.raw 'kill tear' --block-size 512K
	survives a.raw 'kill tear' --block-size 512K --goal files
}

@test "a disk that fails or is full: every file has its bytes" {
	prepare_faults
	survives a.raw 'eio enospc eread' --block-size 512K
	[ "$told" = 0 ]
	survives a.raw 'eio enospc' --block-size 512K --goal files
	[ "$told" -gt 0 ]
}

@test "the same for a dynamic VHD that grows" {
	prepare_faults
	vhd-compact -q --block-size 512K -o made/a.vhd made/a.raw
	survives a.vhd 'kill tear eio enospc'
}

@test "a journal that waits is not applied where moved data is no longer there" {
	new_image x.raw.was --size 48M --style xp --format raw
	digest x.raw.was >want
	cut_off x.raw vhd-defrag -q -i x.raw
	cp x.raw y.raw
	cp x.raw.prep-journal y.raw.prep-journal
	# what a file made and deleted since would leave in a cluster that was free
	at=$(cmp -l x.raw.was x.raw | awk 'NR == 1 { print $1 - 1 }')
	[ -n "$at" ]
	poke x.raw "$at" "$(printf %02x $(((16#$(peek x.raw "$at" 1) + 1) % 256)))"
	run -3 vhd-info x.raw
	[ -e x.raw.prep-journal ]
	digest x.raw | diff want -
	run -0 vhd-info y.raw
	[ ! -e y.raw.prep-journal ]
	digest y.raw | diff want -
}
