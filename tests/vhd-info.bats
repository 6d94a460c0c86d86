#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# vhd-info: what it says is what qemu-img, sfdisk, the ntfs tools and sleuthkit say, and what it foretells comes true.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# info FILTER IMAGE...: one value of the JSON report
info() {
	vhd-info --json "${@:2}" | jq -r "$1"
}

# A bare NTFS volume with a few files, to be damaged.
new_volume() {
	truncate -s 16M "$1"
	mkntfs -F -Q -q -T -L Disk "$1" 2>/dev/null
	"$populate" --stamp "$1" <<-'END'
		gen /one.dll pe 300000 1
		gen /two.txt text 500000 2
		gen "/a folder/three" noise 200000 3
		gen /pagefile.sys page 400000 4
		gen /gone noise 500000 5
		rm /gone
		logfile clean
	END
}

# Status, one line of message that holds the text, nothing on standard output, the file as it was.
refuses() {
	local status_wanted=$1 text=$2 file=$3 before
	before=$(sha256sum <"$file")
	run -"$status_wanted" --separate-stderr vhd-info "$file"
	[ -z "$output" ]
	[ "${#stderr_lines[@]}" -eq 1 ]
	echo "$stderr"
	[ "${stderr#vhd-info: "$file": }" != "$stderr" ]
	[[ $stderr == *"$text"* ]]
	[ "$(sha256sum <"$file")" = "$before" ]
}

# It opens with a warning that holds the text; -q says nothing, and JSON has it among the warnings.
warns() {
	run -0 --separate-stderr vhd-info --quick "$2"
	[ "${#stderr_lines[@]}" -eq 1 ]
	echo "$stderr"
	[[ $stderr == "vhd-info: warning: $2: "*"$1"* ]]
	run -0 --separate-stderr vhd-info --quick -q "$2"
	[ -z "$stderr" ]
	[[ $(info '.warnings[0]' --quick -q "$2") == *"$1"* ]]
}

@test "a dynamic VHD: sizes, blocks, identity" {
	new_image x.vhd --size 64M
	[ "$(info .format x.vhd)" = dynamic ]
	[ "$(info .virtual_size x.vhd)" = "$(guest_size x.vhd)" ]
	[ "$(info .file_size x.vhd)" = "$(stat -c %s x.vhd)" ]
	[ "$(info .allocated x.vhd)" = $(($(stat -c %b x.vhd) * 512)) ]
	[ "$(info .vhd.blocks_allocated x.vhd)" = "$(count_blocks x.vhd)" ]
	[ "$(info .vhd.block_size x.vhd)" = 2097152 ]
	[ "$(info .vhd.id x.vhd | tr -d -)" = "$(peek x.vhd 68 16)" ]
	[ "$(info .vhd.creator x.vhd)" = win ]
	[ "$(info .vhd.time x.vhd)" = "$(date -u -d "@$(($(be x.vhd 24 4) + 946684800))" +%Y-%m-%dT%H:%M:%SZ)" ]
	[ "$(info '.vhd.geometry | @csv' x.vhd)" = "$(be x.vhd 56 2),$(be x.vhd 58 1),$(be x.vhd 59 1)" ]
	# libvhdi says the same
	vhdiinfo x.vhd >libvhdi
	grep -q "Identifier.*$(info .vhd.id x.vhd)" libvhdi
	# and so does the text
	vhd-info x.vhd >text
	grep -q "$(info .vhd.id x.vhd)" text
	grep -q "(67108864 bytes)" text
	grep -q "$(count_blocks x.vhd) of 32 allocated" text
	run ! grep -E '.{200}' text
}

@test "fixed VHD and raw disk" {
	new_image x.vhd --size 48M --format fixed
	[ "$(info .format x.vhd)" = fixed ]
	[ "$(info '[.virtual_size, .file_size] | @csv' x.vhd)" = 50331648,50332160 ]
	[ "$(info .vhd.blocks_allocated x.vhd)" = null ]
	new_image x.raw --size 48M --format raw
	[ "$(info '[.format, .vhd] | @csv' x.raw)" = '"raw",' ]
	# the same disk: the same volumes
	[ "$(info .volumes x.raw)" = "$(info .volumes x.vhd)" ]
}

@test "partitions are sfdisk's, volumes are what the ntfs tools and sleuthkit see" {
	for style in xp win10; do
		new_image x.vhd --size 64M --style $style
		to_raw x.vhd x.raw
		sfdisk -d x.raw | sed -n 's/.*start= *\([0-9]*\), size= *\([0-9]*\),.*/\1 \2/p' |
			awk '{ printf "%d,%d\n", $1 * 512, $2 * 512 }' >want
		info '.volumes[] | [.offset, .size] | @csv' x.vhd >got
		diff want got
		while read -r start len; do
			cut_part x.raw "$start" "$len" part
			volume=$(vhd-info --json x.vhd | jq ".volumes[] | select(.offset == $start * 512)")
			[ "$(jq -r .file_system <<<"$volume")" = NTFS ]
			ntfsinfo -m -f part >ntfsinfo
			[ "$(jq -r .label <<<"$volume")" = "$(sed -n 's/.*Volume Name: //p' ntfsinfo)" ]
			[ "$(jq .cluster_size <<<"$volume")" = "$(sed -n 's/.*Cluster Size: //p' ntfsinfo)" ]
			[ "$(jq .clusters <<<"$volume")" = "$(sed -n 's/.*Volume Size in Clusters: //p' ntfsinfo)" ]
			free=$(sed -n 's/.*Free Clusters: \([0-9]*\).*/\1/p' ntfsinfo)
			[ "$(jq .free <<<"$volume")" = $((free * 4096)) ]
			[ "$(jq .used <<<"$volume")" = $((($(jq .clusters <<<"$volume") - free) * 4096)) ]
			# free clusters that are not zero, by sleuthkit: pages of the disk may hold parts of two
			blkls -A part | od -An -v -tx8 -w4096 | tr -d ' 0' | grep -c . >blkls || true
			nonzero=$(($(jq .free_not_zero <<<"$volume") / 4096))
			[ $((nonzero - $(cat blkls))) -ge -1 ]
			[ $((nonzero - $(cat blkls))) -le $(($(cat blkls) / 20 + 2)) ]
			rm part
		done < <(ntfs_parts x.raw)
	done
}

@test "what it foretells comes true: presets, zerofree, compaction" {
	for style in xp win10; do
		new_image x.vhd --size 96M --style $style
		vhd-info --json x.vhd >before
		vhd-rmfile --list --json x.vhd >list
		for preset in pagefile hiberfil updates temp restore; do
			[ "$(jq "[.volumes[] | .removable.$preset.bytes // 0] | add" before)" = \
				"$(jq ".matches[] | select(.match == \"$preset\") | .freed" list)" ]
			[ "$(jq "[.volumes[] | .removable.$preset.files // 0] | add" before)" = \
				"$(jq ".matches[] | select(.match == \"$preset\") | .files" list)" ]
		done
		[ "$(jq .removable.updates.files <(jq '.volumes[] | select(.label == "System")' before))" -gt 3 ]
		vhd-compact -q -o compact.vhd x.vhd
		[ "$(count_blocks compact.vhd)" = "$(jq .blocks.after_compact before)" ]
		vhd-zerofree -q --keep-slack x.vhd | vhd-compact -q -f -o both.vhd
		[ "$(count_blocks both.vhd)" = "$(jq .blocks.after_zerofree before)" ]
		[ "$(jq '.blocks | .absent + .zero + .free_data + .partly_used + .full - .total' before)" -eq 0 ]
		[ "$(info .blocks.after_compact both.vhd)" = "$(count_blocks both.vhd)" ]
		[ "$(info '[.volumes[] | .free_not_zero // 0] | add' both.vhd)" -eq 0 ]
		rm compact.vhd
	done
}

@test "--map and --svg draw what the numbers say" {
	new_image x.vhd --size 96M --style xp
	vhd-info --json x.vhd >json
	vhd-info --map x.vhd | sed -n '/^ *[0-9.]*  [-.o+#]*$/p' | awk '{ print $2 }' | tr -d '\n' >cells
	[ "$(wc -c <cells)" = "$(jq .blocks.total json)" ]
	[ "$(tr -cd . <cells | wc -c)" = "$(jq .blocks.absent json)" ]
	[ "$(tr -cd o <cells | wc -c)" = "$(jq .blocks.zero json)" ]
	[ "$(tr -cd -- - <cells | wc -c)" = "$(jq .blocks.free_data json)" ]
	[ "$(tr -cd + <cells | wc -c)" = "$(jq .blocks.partly_used json)" ]
	[ "$(tr -cd '#' <cells | wc -c)" = "$(jq .blocks.full json)" ]
	[ "$(jq .blocks.absent json)" = $((48 - $(count_blocks x.vhd))) ]
	# no escapes where it is no terminal, and no line too wide for one
	run ! grep -q "$(printf '\033')" <(vhd-info --map x.vhd)
	run ! grep -E '^ +[0-9.]+  .{69}' <(vhd-info --map x.vhd)
	vhd-info -q --svg map.svg x.vhd >/dev/null
	[ "$(head -c 4 map.svg)" = '<svg' ]
	[ "$(tail -n 1 map.svg)" = '</svg>' ]
	! command -v xmllint >/dev/null || xmllint --noout map.svg
	# an existing file is kept, unless -f
	cp map.svg before.svg
	run -3 vhd-info --svg map.svg x.vhd
	cmp map.svg before.svg
	vhd-info -f --svg map.svg x.vhd >/dev/null
	cmp map.svg before.svg
	run -2 vhd-info --svg map.svg x.vhd x.vhd
	run -2 vhd-info --svg - x.vhd
	sha256sum x.vhd >sum
	run -2 vhd-info -f --svg x.vhd x.vhd
	sha256sum -c --quiet sum
	run -2 vhd-info --map --quick x.vhd
	run -3 vhd-info -f --svg . x.vhd
}

@test "states that forbid changes are told, and are no error" {
	new_volume base.raw
	[ "$(info '.volumes[0].obstacles | length' base.raw)" -eq 0 ]
	cp base.raw x.raw
	echo dirty | "$populate" x.raw
	[ "$(info '.volumes[0].obstacles | @csv' x.raw)" = '"dirty"' ]
	vhd-info x.raw | grep -q 'state: .*dirty'
	for state in unclean:unclean_log fast:fast_startup zero:unclean_log empty: clean:; do
		cp base.raw x.raw
		echo "logfile ${state%:*}" | "$populate" x.raw
		[ "$(info '.volumes[0].obstacles | join(",")' x.raw)" = "${state#*:}" ]
	done
	cp base.raw x.raw
	echo 'gen /hiberfil.sys hibr 400000 1' | "$populate" x.raw
	[ "$(info '.volumes[0].obstacles | @csv' x.raw)" = '"hibernated"' ]
	vhd-info x.raw | grep -q 'state: .*hibernated'
	# a hiberfil.sys without a session is only removable
	cp base.raw x.raw
	echo 'gen /hiberfil.sys hiber 400000 1' | "$populate" x.raw
	[ "$(info '.volumes[0].obstacles | length' x.raw)" -eq 0 ]
	[ "$(info '.volumes[0].removable.hiberfil.bytes' x.raw)" -eq 401408 ]
	# a catalog of shadow copies: header, then a block with one entry of type 2
	cp base.raw x.raw
	poke x.raw $((0x1e00)) 6b870838 && poke x.raw $((0x1e04)) 76c1484eb7ae04046e6cc752
	poke x.raw $((0x1e00 + 16)) 0100000001000000
	[ "$(info '.volumes[0].obstacles | length' x.raw)" -eq 0 ]
	free=$((15 << 20))
	poke x.raw $((0x1e00 + 48)) 0000f00000000000
	poke x.raw $free 6b87083876c1484eb7ae04046e6cc752
	poke x.raw $((free + 16)) 0100000002000000
	[ "$(info '.volumes[0].obstacles | length' x.raw)" -eq 0 ]
	poke x.raw $((free + 128)) 0200000000000000
	[ "$(info '.volumes[0].obstacles | @csv' x.raw)" = '"shadow_copies"' ]
	vhd-info x.raw | grep -q 'state: .*shadow cop'
	# a catalog that cannot be read is not taken for none
	zeros x.raw $free 16
	[ "$(info '.volumes[0].obstacles | @csv' x.raw)" = '"shadow_copies"' ]
	# all of these with --check too, status 0: nothing is damaged
	vhd-info --check x.raw >/dev/null
}

@test "--check: a sound volume, and each damage counted apart, status 4" {
	new_volume base.raw
	vhd-info --check base.raw | grep -q 'check: .*: sound'
	[ "$(info '.volumes[0].check | [.sound, .files] | @csv' --check base.raw)" = true,4 ]
	two=$(record_of base.raw /two.txt)
	run=$(attribute base.raw "$two" 80)
	cluster=$(first_cluster base.raw "$run")
	one=$(first_cluster base.raw "$(attribute base.raw "$(record_of base.raw /one.dll)" 80)")
	three=$(record_of base.raw '/a folder/three')
	# DAMAGE:COUNTER:WHAT
	for case in 'free:claimed_free_clusters:/two.txt' 'cross:crosslinked_clusters:/one.dll' \
		'outside:outside_clusters:/two.txt' 'record:record_bitmap_errors:' 'dangling:dangling_entries:' \
		'links:wrong_link_counts:/two.txt' 'torn:unreadable_records:'; do
		damage=${case%%:*} counter=${case#*:}
		what=${counter#*:} counter=${counter%%:*}
		echo "$case"
		cp base.raw x.raw
		case $damage in
		free) set_bitmap x.raw "$cluster" 0 ;;
		cross) poke_first_cluster x.raw "$run" "$one" ;;
		outside) poke_first_cluster x.raw "$run" 32767 ;;
		record)
			at=$(attribute x.raw 0 b0)
			at=$(($(first_cluster x.raw "$at") * $(cluster_size x.raw) + two / 8))
			poke x.raw $at "$(printf %02x $(($(le x.raw $at 1) & ~(1 << two % 8))))"
			;;
		dangling) poke x.raw $(($(record x.raw "$three") + 22)) 0000 ;;
		links) poke x.raw $(($(record x.raw "$two") + 18)) 0500 ;;
		torn) poke x.raw $(($(record x.raw "$two") + 510)) eeee ;;
		esac
		run -4 --separate-stderr vhd-info --check --json x.raw
		[ "$stderr" = 'vhd-info: x.raw: damage found' ]
		echo "$output" >json
		[ "$(jq .damaged json)" = true ]
		[ "$(jq ".volumes[0].check.$counter" json)" -ge 1 ]
		[ "$(jq .volumes[0].check.sound json)" = false ]
		jq -r '.volumes[0].check.problems[]' json >problems
		cat problems
		grep -qF "$what" problems
		run -4 vhd-info --check x.raw
		[[ $output == *DAMAGED* ]]
		# without --check it is told all the same, but is no error
		run -0 vhd-info x.raw
	done
	# a cluster that is marked used and claimed by nobody is lost, not damage
	cp base.raw x.raw
	set_bitmap x.raw 3000 1
	run -0 vhd-info --check --json x.raw
	[ "$(jq .volumes[0].check.used_unclaimed_clusters <<<"$output")" = 1 ]
	# the mirror of $MFT
	cp base.raw x.raw
	at=$(($(le x.raw 56 8) * $(cluster_size x.raw)))
	poke x.raw $((at + 60)) ffff
	run -4 vhd-info --check x.raw
	[[ $output == *MFTMirr* ]]
	# the volume is longer than what holds it
	head -c 12M base.raw >x.raw
	run -4 vhd-info --check x.raw
	[[ $output == *'more than the partition holds'* ]]
}

@test "footers: recovered from the copy, with a warning, or refused" {
	new_image base.vhd --size 32M
	size=$(size_of base.vhd)
	want=$(info .volumes base.vhd)
	for case in cut:missing junk:missing damaged:damaged copy:'copy at offset 0' differ:differ; do
		cp base.vhd x.vhd
		case $case in
		cut:*) truncate -s $((size - 512)) x.vhd ;;
		junk:*) head -c 3000 base.vhd >>x.vhd ;;
		damaged:*) poke x.vhd $((size - 300)) ff ;;
		copy:*) zeros x.vhd 0 512 ;;
		differ:*) poke x.vhd 70 ff && checksum x.vhd 0 512 64 ;;
		esac
		warns "${case#*:}" x.vhd
		[ "$(info .volumes -q x.vhd)" = "$want" ]
	done
	[ "$(info .vhd.footer_recovered -q x.vhd)" = false ]
	truncate -s $((size - 512)) x.vhd
	[ "$(info .vhd.footer_recovered -q x.vhd)" = true ]
	# Virtual Server's footers are a byte short
	cp base.vhd x.vhd
	truncate -s $((size - 1)) x.vhd
	run -0 --separate-stderr vhd-info --quick x.vhd
	[ -z "$stderr" ]
	# both bad
	cp base.vhd x.vhd
	poke x.vhd $((size - 300)) ff && poke x.vhd 300 ff
	refuses 4 'wrong checksum' x.vhd
	cp base.vhd x.vhd
	poke x.vhd $((512 + 300)) ff
	refuses 4 'header at offset 512: wrong checksum' x.vhd
	head -c $((size / 2)) base.vhd >x.vhd
	refuses 4 truncated x.vhd
	new_image fixed.vhd --size 32M --format fixed
	poke fixed.vhd $(($(size_of fixed.vhd) - 300)) ff
	refuses 4 'wrong checksum' fixed.vhd
	# a fixed disk of which a part is lost, footer and all, cannot be told from a raw one; its table can
	head -c 20M fixed.vhd >cut.vhd
	run vhd-info cut.vhd
	[ "$status" -eq 4 ]
	[[ $output == *'beyond the disk'* || $output == *GPT* ]]
}

@test "the block table: every wrong entry is named" {
	new_image base.vhd --size 32M
	blocks=$(($(be base.vhd 540 4)))
	used=
	for ((i = 0; i < blocks; i++)); do
		[ "$(peek base.vhd "$(bat_entry base.vhd $i)" 4)" = ffffffff ] || used+="$i "
	done
	read -r a b _ <<<"$used"
	sectors=$(($(size_of base.vhd) / 512))
	entry=$(peek base.vhd "$(bat_entry base.vhd "$b")" 4)
	for case in "00000000:block $a," "00000001:block $a," "00000003:block $a," "$(printf %08x $sectors):block $a," \
		"fffffffe:block $a," "$(printf %08x $((sectors - 4097))):block $a," "$entry:blocks $a and $b" \
		"$(printf %08x $((16#$entry + 7))):blocks $a and $b"; do
		cp base.vhd x.vhd
		poke x.vhd "$(bat_entry x.vhd "$a")" "${case%%:*}"
		refuses 4 "${case#*:}" x.vhd
	done
	cp base.vhd x.vhd
	poke x.vhd 540 00000003 && seal_vhd x.vhd
	refuses 4 'holds 3 blocks' x.vhd
	cp base.vhd x.vhd
	poke x.vhd 528 00000000fffffe00 && seal_vhd x.vhd
	refuses 4 'block table ends past the end' x.vhd
}

@test "sizes that differ: the current size counts, the others are shown" {
	new_image x.vhd --size 32M
	cp x.vhd y.vhd
	poke_footers y.vhd 40 0000000001000000
	poke_footers y.vhd 56 00640411
	[ "$(info .virtual_size y.vhd)" = 33554432 ]
	[ "$(info '[.vhd.original_size, .vhd.geometry_size] | @csv' y.vhd)" = 16777216,3481600 ]
	vhd-info y.vhd >text
	grep -q '16777216 bytes (resized since)' text
	grep -q '100/4/17, 3481600 bytes (not the disk' text
	[ "$(info .volumes y.vhd)" = "$(info .volumes x.vhd)" ]
	# a saved state is shown
	poke_footers y.vhd 84 01
	vhd-info y.vhd | grep -q 'state: *saved'
	[ "$(info .vhd.saved_state y.vhd)" = true ]
}

@test "sectors marked unused are read as zeros, and reported" {
	new_image x.vhd --size 32M
	block=0
	while [ "$(peek x.vhd "$(bat_entry x.vhd $block)" 4)" = ffffffff ]; do
		block=$((block + 1))
	done
	data=$(block_data x.vhd $block)
	sector=0
	while [ "$(peek x.vhd $((data + sector * 512)) 512)" = "$(printf '0%.0s' {1..1024})" ]; do
		sector=$((sector + 1))
	done
	[ "$(info '[.vhd.blocks_with_partial_bitmap, .vhd.blocks_with_hidden_data] | @csv' x.vhd)" = 0,0 ]
	to_raw x.vhd want.raw
	# the most significant bit of a byte is its first sector
	poke x.vhd $((data - 512 + sector / 8)) "$(printf %02x $((255 & ~(128 >> sector % 8))))"
	zeros want.raw $((block * 2097152 + sector * 512)) 512
	[ "$(info '[.vhd.blocks_with_partial_bitmap, .vhd.blocks_with_hidden_data] | @csv' -q x.vhd)" = 1,1 ]
	run vhd-info -q x.vhd
	[[ $output == *'1 blocks have sectors marked unused, some over data'* ]]
	vhd-compact -q --to raw -o got.raw x.vhd
	cmp want.raw got.raw
	vhd-compact -q --to raw - <x.vhd | cmp - want.raw
	cat x.vhd | vhd-compact -q -o y.vhd
	same_guest y.vhd want.raw
}

@test "what is no VHD or raw disk is refused with its name" {
	new_image x.raw --size 32M --format raw
	for format in qcow2 vmdk vdi qed parallels; do
		qemu-img convert -f raw -O $format x.raw x.$format 2>/dev/null || continue
		before=$(sha256sum <x.$format)
		for command in 'vhd-info' 'vhd-zerofree -i' 'vhd-compact -i' 'vhd-compact -q -o out' 'vhd-rmfile -i --preset temp'; do
			run -3 --separate-stderr $command x.$format
			[ "${#stderr_lines[@]}" -eq 1 ]
			echo "$stderr"
			case $format:$stderr in
			qcow2:*QEMU* | vmdk:*VMware* | vdi:*VirtualBox* | qed:*QEMU* | parallels:*Parallels*) ;;
			*) false ;;
			esac
			[ "$(sha256sum <x.$format)" = "$before" ]
			[ ! -e out ]
		done
	done
	for tool in gzip:gzip xz:xz zstd:zstd bzip2:bzip2; do
		command -v "${tool%:*}" >/dev/null || continue
		head -c 1M x.raw | "${tool%:*}" -c >z
		refuses 3 "${tool#*:}" z
		# from a pipe too
		run -3 vhd-info - <z
		run -3 sh -c 'cat z | vhd-compact -o out'
		[ ! -e out ]
	done
	cp x.raw x.vhd
	qemu-img convert -f raw -O vpc -o force_size x.raw y.vhd
	poke_footers y.vhd 60 00000004
	refuses 3 'differencing' y.vhd
	poke_footers y.vhd 60 00000007
	refuses 3 'unknown type 7' y.vhd
	: >empty
	refuses 3 empty empty
	head -c 1000 x.raw >odd
	refuses 3 '1000 bytes' odd
	run -3 vhd-info .
	run -1 vhd-info absent
	[ "$output" = 'vhd-info: absent: No such file or directory' ]
	run -3 vhd-info /dev/null
	# named as a VHD, but none: read as raw, not in silence
	warns 'no VHD footer' x.vhd
}

@test "several images: each reported, an array of JSON, the worst status" {
	new_image a.vhd --size 32M
	cp a.vhd b.vhd
	truncate -s 300000 b.vhd
	: >c.vhd
	run -4 --separate-stderr vhd-info --json --quick a.vhd b.vhd c.vhd a.vhd
	[ "$(jq length <<<"$output")" = 2 ]
	[ "$(jq -r '.[1].image' <<<"$output")" = a.vhd ]
	[ "${#stderr_lines[@]}" -eq 2 ]
	run -0 vhd-info --json --quick a.vhd a.vhd
	[ "$(jq length <<<"$output")" = 2 ]
	run -0 vhd-info --json --quick a.vhd
	[ "$(jq -r .image <<<"$output")" = a.vhd ]
	run -2 vhd-info
	run -2 vhd-info --json
}

@test "JSON: integers, one object, whatever the file's name" {
	new_image x.vhd --size 32M
	vhd-info --json --check x.vhd >json
	[ "$(jq -s length json)" = 1 ]
	# no number with a fraction or an exponent
	run ! grep -E '[0-9](\.[0-9]|[eE][-+]?[0-9])' <(grep -vE '"(id|type_id|problem|image|time|version)":' json)
	[ "$(jq '[paths(type == "number")] | length' json)" -gt 50 ]
	run ! grep -qE '"[^"]*[A-Z-][^"]*":' json
	for name in 'a b.vhd' 'a"b\.vhd' $'new\nline.vhd' $'not utf-8 \xff.vhd' '-dash.vhd'; do
		ln -f x.vhd "./$name"
		# -s: of an empty report jq -e alone thinks no ill
		vhd-info --json --quick -- "$name" >json
		jq -es '.[0].virtual_size' json >/dev/null
		vhd-zerofree -n --json -- "$name" | jq -es '.[0].free' >/dev/null
		vhd-compact -n --json -- "$name" | jq -es '.[0].size_after' >/dev/null
		vhd-rmfile --list --json -- "$name" | jq -es '.[0].files' >/dev/null
		vhd-defrag -n --json -- "$name" | jq -es '.[0].moved' >/dev/null
		vhd-undo status --json -- "$name" | jq -es '.[0].base' >/dev/null
		vhd-info --svg map.svg --force -- "$name" >/dev/null
		iconv -f UTF-8 -t UTF-16 map.svg >/dev/null
		rm -- "./$name"
	done
}

@test "from standard input, file or pipe; to a full disk" {
	new_image x.vhd --size 32M
	vhd-info --json x.vhd | jq 'del(.image, .file_size, .allocated)' >want
	vhd-info --json - <x.vhd | jq 'del(.image, .file_size, .allocated)' | diff want -
	cat x.vhd | vhd-info --json - | jq 'del(.image, .file_size, .allocated)' | diff want -
	[ "$(cat x.vhd | vhd-info --json - | jq .file_size)" = null ]
	run -3 vhd-info - </dev/null
	if [ -c /dev/full ]; then
		run -1 sh -c 'vhd-info x.vhd >/dev/full'
		run -1 sh -c 'vhd-info --json x.vhd >/dev/full'
	fi
}

@test "an image is only read" {
	new_image x.vhd --size 32M
	chmod 400 x.vhd
	before=$(stat -c '%Y %Z %b' x.vhd)
	sum=$(sha256sum <x.vhd)
	vhd-info --check --map -v x.vhd >/dev/null
	[ "$(stat -c '%Y %Z %b' x.vhd)" = "$before" ]
	[ "$(sha256sum <x.vhd)" = "$sum" ]
	[ "$(ls -A)" = x.vhd ]
	skip_without strace
	traced -f -e trace=openat,pwrite64,fallocate,ftruncate,unlink,rename -o log vhd-info --check x.vhd >/dev/null
	grep -q 'x.vhd.*O_RDONLY' log
	run ! grep -E 'x\.vhd.*O_(RDWR|WRONLY)|pwrite64|fallocate|ftruncate|unlink|rename' log
}

@test "extended partitions, a damaged GPT and its backup, a table that leads outside" {
	skip_without sfdisk
	truncate -s 64M x.raw
	sfdisk -q x.raw <<-'END'
		label: dos
		start=2048, size=20480, type=7
		start=22528, size=100000, type=f
		start=24576, size=40960, type=7, bootable
		start=67584, size=20480, type=7
	END
	truncate -s 20M v
	mkntfs -F -Q -q -L Logical v 2>/dev/null
	dd if=v of=x.raw bs=512 seek=24576 conv=notrunc status=none
	sfdisk -d x.raw | sed -n 's/.*start= *\([0-9]*\), size= *\([0-9]*\), type=7.*/\1 \2/p' |
		awk '{ printf "%d,%d\n", $1 * 512, $2 * 512 }' >want
	info '.volumes[] | [.offset, .size] | @csv' x.raw | diff want -
	[ "$(info '.volumes[1].label' x.raw)" = Logical ]
	# a chain that bites its tail
	at=$(((22528 + $(le x.raw $((22528 * 512 + 446 + 16 + 8)) 4)) * 512))
	poke x.raw $((at + 446 + 16 + 4)) 05
	poke x.raw $((at + 446 + 16 + 8)) 0000000001000000
	run -4 vhd-info x.raw
	# GPT
	new_image g.vhd --size 64M --style win10
	want=$(info .volumes g.vhd)
	to_raw g.vhd g.raw
	cp g.raw x.raw
	poke x.raw $((512 + 60)) ff
	warns 'primary GPT' x.raw || true
	run --separate-stderr vhd-info --json x.raw
	[[ $stderr == *'primary GPT in sector 1'*'backup was used'* ]]
	[ "$(jq -S .volumes <<<"$output")" = "$(jq -S . <<<"$want")" ]
	poke x.raw $((67108864 - 512 + 60)) ff
	run -4 vhd-info x.raw
	cp g.raw x.raw
	poke x.raw $((67108864 - 512 + 60)) ff
	run --separate-stderr vhd-info --json x.raw
	[[ $stderr == *'backup GPT'* ]]
	[[ $(jq -r '.warnings[]' <<<"$output") == *'backup GPT'* ]]
	[ "$(jq -S .volumes <<<"$output")" = "$(jq -S . <<<"$want")" ]
	# a partition beyond the disk
	new_image m.vhd --size 64M --style xp
	to_raw m.vhd m.raw
	truncate -s 32M m.raw
	run -4 vhd-info m.raw
	[[ $output == *'beyond the disk'* ]]
}
