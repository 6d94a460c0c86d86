#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# Disks made by Windows, Virtual PC, Hyper-V and QEMU, through every command that takes an image, judged by 7-Zip, qemu-img,
# libvhdi and sleuthkit.

load helper
load poke

# What each sample holds, its parent, and whether a judge reads of it what the guest sees: "same", "refused", or "other". Where
# they differ:
#  - qemu-img reads a differencing VHD as if it had no parent: zeros where the parent has data. Wrong by the specification, by
#    which a sector whose bit is clear is the parent's; 7-Zip and libvhdi do that. Differencing VHDX it does not open.
#  - 7-Zip and qemu-img refuse image.vhd and its child, whose checksums are wrong; libvhdi does not look at checksums. Right are
#    those who refuse: nothing else tells a header that was written by halves.
#  - dirtylog.vhdx has changes in its log alone. qemu-img refuses it until its log is replayed, as we do. 7-Zip gives the blocks
#    as they are and says that the log was not replayed, libvhdi gives them without a word: wrong by [MS-VHDX] 2.3, by which
#    the file is not consistent before that.
#  - virtualpc-dynamic.vhd has 127 GiB by its current size (libvhdi, 7-Zip, and Windows), and 2,080,768 bytes fewer by its
#    geometry, which qemu-img goes by unless told: geometry counts whole cylinders and cannot say more.
table='
# name                   holds   parent            7-Zip    qemu-img libvhdi
ntfs-dynamic.vhd         ntfs    -                 same     same     same
ntfs-fixed.vhd           ntfs    -                 same     same     same
ntfs-parent.vhd          ntfs    -                 same     same     same
ntfs-differential.vhd    ntfs    ntfs-parent.vhd   same     other    same
ext2.vhd                 other   -                 same     same     same
virtualpc-dynamic.vhd    empty   -                 -        same     -
ntfs-fixed.vhdx          ntfs    -                 same     same     same
ntfs-parent.vhdx         ntfs    -                 same     same     same
ntfs-differential.vhdx   ntfs    ntfs-parent.vhdx  same     refused  same
ext2.vhdx                other   -                 same     same     same
image.vhd                damaged -                 refused  refused  other
image-differential.vhd   damaged image.vhd         refused  refused  other
dirtylog.vhdx            log     -                 other    refused  other
'

# rows [REGEX]: the table's lines, those whose second field matches.
rows() {
	awk -v kind="^(${1:-.*})$" 'NF == 6 && $1 != "#" && $2 ~ kind' <<<"$table"
}

setup() {
	local name
	mkdir "$BATS_TEST_TMPDIR/work"
	cd "$BATS_TEST_TMPDIR/work" || return
	while read -r name _; do
		sample "$name"
	done < <(rows)
	sha256sum -- * >../sums
}

# After every test: the samples are as they were.
teardown() {
	cd "$BATS_TEST_TMPDIR/work" || return
	[ ! -e ../sums ] || sha256sum --quiet -c ../sums
}

# judged_by JUDGE NAME PARENT: what another program reads of a sample, on standard output; fails where it refuses.
judged_by() {
	local parents=("${@:3}")
	[ "$3" != - ] || parents=()
	case $1 in
	7-Zip) 7zz e "-t${2##*.}" -so "$2" ;;
	libvhdi) "$build/tests/vhdi-cat" "$2" "${parents[@]}" ;;
	qemu-img)
		case $2 in
		*.vhd) to_raw "$2" ../judged ;;
		*.vhdx) qemu-img convert -f vhdx -O raw "$2" ../judged ;;
		esac && cat ../judged
		;;
	esac 2>/dev/null
}

# What the guest sees of a sound sample, by 7-Zip.
guest() {
	judged_by 7-Zip "$1" -
}

# The files of the NTFS volume at sector 128, where the disks of Windows have it: as sleuthkit reads them.
files() {
	fls -o 128 -r -p -F "$1" | awk -F '\t' '{ split($1, n, "[ :]+"); print n[2] "\t" $2 }' | while IFS=$'\t' read -r inode path; do
		echo "$(icat -o 128 "$1" "$inode" | sha256sum | cut -c1-16) $path"
	done
}

# Every command that takes an image, and its status for a sample that holds "ntfs", something "other" or nothing, is "damaged",
# or has a "log". %: the sample. What it writes is out, out.ckm or undo.vhd.
commands='
vhd-info %                                      0 0 4 3
vhd-info --quick --json -v %                    0 0 4 3
vhd-info --check %                              0 0 4 3
vhd-info --check --json %                       0 0 4 3
vhd-info --map --svg out %                      0 0 4 3
vhd-rmfile --list %                             0 3 4 3
vhd-rmfile -n --preset temp --preset restore %  0 3 4 3
vhd-rmfile -o out % --ignore-missing /nothing   0 3 4 3
vhd-zerofree -n %                               0 0 4 3
vhd-zerofree -o out %                           0 0 4 3
vhd-zerofree -o out --keep-slack --log %        0 0 4 3
vhd-defrag -n %                                 0 0 4 3
vhd-defrag -n --goal files %                    0 0 4 3
vhd-defrag -o out %                             0 0 4 3
vhd-compact -n %                                0 0 4 3
vhd-compact -o out %                            0 0 4 3
vhd-compact -o out --block-size 512K --new-id % 0 0 4 3
vhd-compact -o out --to fixed --align 1M %      0 0 4 3
vhd-compact -o out --to raw %                   0 0 4 3
ckm-pack -n -o out.ckm %                        0 0 4 3
ckm-pack -o out.ckm %                           0 0 4 3
ckm-index -o out %                              0 0 4 3
'

@test "every sample through every command: done, or refused in one line that names it" {
	while read -r name holds _; do
		case $holds in
		ntfs) field=1 ;;
		other | empty) field=2 ;;
		damaged) field=3 ;;
		log) field=4 ;;
		esac
		while read -r line; do
			[ "$line" ] || continue
			read -r -a words <<<"$line"
			want=${words[${#words[@]} - 5 + field]}
			words=("${words[@]:0:${#words[@]}-4}")
			run --separate-stderr "${words[@]/#%/$name}"
			echo "${words[*]/#%/$name}: $status, not $want: $stderr"
			[ "$status" -eq "$want" ]
			if [ "$want" -ne 0 ]; then
				[ "${#stderr_lines[@]}" -eq 1 ]
				[[ $stderr == *"$name: "* ]]
				[ -z "$output" ]
				[ -z "$(find . -name 'out*')" ]
			fi
			rm -f out*
		done <<<"$commands"
	done < <(rows)
}

@test "what the guest sees is what every judge reads that reads it right" {
	skip_without 7zz qemu-img
	while read -r name holds parent judgements; do
		ours=0
		vhd-compact -q --to raw -o ../ours "$name" || ours=$?
		for judge in 7-Zip qemu-img libvhdi; do
			want=${judgements%% *}
			judgements=${judgements#"$want"}
			judgements=${judgements#"${judgements%%[! ]*}"}
			echo "$name: $judge: $want"
			case $want in
			same)
				[ $ours -eq 0 ]
				if [ "$holds" = empty ]; then
					same_guest "$name" ../ours
				else
					judged_by $judge "$name" "$parent" | cmp - ../ours
				fi
				;;
			refused) ! judged_by $judge "$name" "$parent" >../theirs || [ ! -s ../theirs ] ;;
			other)
				judged_by $judge "$name" "$parent" | head -c 4M >../theirs
				[ -s ../theirs ]
				# we refuse, or have it from the other judges
				[ $ours -ne 0 ] || ! cmp -s ../theirs ../ours
				;;
			esac
		done
		rm -f ../ours ../theirs ../judged
	done < <(rows)
}

@test "identity, size and kind are what libvhdi's vhdiinfo says" {
	skip_without vhdiinfo jq
	while read -r name _ parent _; do
		vhdiinfo "$name" | sed -n 's/^\t\([A-Z][a-z ]*[a-z]\)\t*: /\1=/p' >theirs
		theirs() {
			sed -n "s/^$1=//p" theirs
		}
		vhd-info --quick --json "$name" >ours
		kind=$(jq -r '(.vhd // .vhdx).id, .virtual_size' ours | paste -sd ' ')
		[ "$kind" = "$(theirs Identifier) $(theirs 'Media size' | sed 's/.*(\([0-9]*\) bytes)/\1/')" ]
		case $(theirs 'Disk type') in
		Differential) [ "$(jq '.parents | length' ours)" = 1 ] ;;
		*) [ "$(jq '.parents | length' ours)" = 0 ] ;;
		esac
		[ "$parent" = - ] || [ "$(jq -r '.parents[0].id' ours)" = "$(theirs 'Parent identifier')" ]
		rm ours theirs
	done < <(rows 'ntfs|other|empty')
}

@test "partitions, volume and files are what sleuthkit sees" {
	skip_without mmls fsstat fls icat jq
	while read -r name holds parent _; do
		echo "$name"
		# sleuthkit opens VHD and VHDX itself, but for those with a parent
		image=$name
		if [ "$parent" != - ]; then
			vhd-compact -q --to raw -o x.raw "$name"
			image=x.raw
		fi
		vhd-info --check --json "$name" >json
		if [ "$holds" = other ]; then
			run ! mmls "$image"
			fsstat "$image" | grep -q '^File System Type: Ext2'
			[ "$(jq -r '[.table, .volumes[0].file_system, .volumes[0].size == .virtual_size] | @csv' json)" = '"none","unknown",true' ]
		else
			[ "$(mmls "$image" | awk '/NTFS/ { print $3 * 512, $5 * 512 }')" = \
				"$(jq -r '.volumes[0] | "\(.offset) \(.size)"' json)" ]
			fsstat -o 128 "$image" >stat
			[ "$(sed -n 's/^Volume Name: //p' stat)" = "$(jq -r '.volumes[0].label' json)" ]
			[ "$(sed -n 's/^Cluster Size: //p' stat)" = "$(jq '.volumes[0].cluster_size' json)" ]
			[ "$(blkls -o 128 -l "$image" | grep -c '|f$')" -eq "$(jq '.volumes[0] | .free / .cluster_size' json)" ]
			fls -o 128 -r -p "$image" | sed -n 's,^[rd]/[rd] [^\t]*\t\([^$]\),/\1,p' | sort >theirs
			vhd-rmfile --list -v --json -r --ignore-missing "$image" '/a*' '/p*' '/s*' | jq -r '.entries[].path' | sort | diff theirs -
			[ "$(wc -l <theirs)" -ge 2 ]
			rm -f stat theirs
		fi
		rm -f x.raw json
	done < <(rows 'ntfs|other')
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

@test "NTFS of Windows: sound, zeroed, moved, files removed, and the rest is as it was" {
	skip_without fls icat blkls
	while read -r name _; do
		echo "$name"
		vhd-compact -q --to raw -o x.raw "$name"
		files x.raw >want
		[ -s want ]
		digest x.raw >digests
		for command in 'vhd-zerofree' 'vhd-defrag' 'vhd-defrag --goal files' 'vhd-compact --block-size 512K'; do
			read -r -a words <<<"$command"
			"${words[@]}" -q -o y.vhd "$name"
			vhd-compact -q --to raw -o y.raw y.vhd
			files y.raw | diff want -
			digest y.vhd | diff digests -
			vhd-info --check y.vhd >/dev/null
			[ "$command" != vhd-zerofree ] || blkls -A -o 128 y.raw | cmp -n "$(blkls -A -o 128 y.raw | wc -c)" - /dev/zero
			rm y.vhd y.raw
		done
		# a file goes, by a name that Windows gave it
		path=$(cut -c79- digests | grep -v '/$\|:\|^/\$' | head -n 1)
		[ "$path" ]
		vhd-rmfile -q -o z.vhd "$name" "$(tr a-z A-Z <<<"$path")"
		grep -vF " $path" digests >want
		digest z.vhd | diff want -
		sound_ntfs z.vhd
		vhd-info --check z.vhd >/dev/null
		rm -f ./x.* ./z.* want digests
	done < <(rows ntfs)
}

@test "in place: VHDs change, those with a parent by a removal alone, VHDX never" {
	while read -r name holds parent _; do
		for command in 'vhd-zerofree -i' 'vhd-zerofree -i --log' 'vhd-compact -i' 'vhd-compact -i --to raw' 'vhd-defrag -i' \
			'vhd-rmfile -i --ignore-missing'; do
			read -r -a words <<<"$command"
			mkdir in
			cp "$name" in
			[ "$parent" = - ] || cp "$parent" in
			echo "${words[*]} $name"
			want=0
			case $name:$holds:$parent:$command in
			*:damaged:*) want=4 ;;
			*.vhdx:* | *:other:*:vhd-rmfile* | *:empty:*:vhd-rmfile*) want=3 ;;
			*:-:* | *:vhd-rmfile*) ;;
			*) want=3 ;;
			esac
			words+=(-q "in/$name")
			[ "${words[0]}" != vhd-rmfile ] || words+=(-r '/a*')
			run --separate-stderr "${words[@]}"
			echo "$status, not $want: $stderr"
			[ "$status" -eq $want ]
			[ $want -eq 0 ] || cmp "$name" "in/$name"
			[ "$parent" = - ] || cmp "$parent" "in/$parent"
			case $want:$holds:$command in
			0:ntfs:*)
				vhd-compact -q --to raw -o in/x.raw "$name"
				vhd-compact -q --to raw -o in/y.raw "in/$name"
				digest in/x.raw | case $command in *rmfile*) grep -v ' /a[^ ]*$' ;; *) cat ;; esac >want
				digest in/y.raw | diff want -
				;;
			0:*) same_guest "$name" "in/$name" ;;
			esac
			rm -rf in want
		done
	done < <(rows)
}

@test "undo disks on every VHD: discarded, the base is as it was; committed, it is what the undo disk showed" {
	skip_without 7zz
	while read -r name holds parent _; do
		echo "$name"
		mkdir in
		cp "$name" in/base
		[ "$parent" = - ] || cp "$parent" in
		case $name:$holds in
		*:damaged) want=4 ;;
		*.vhdx:*) want=3 ;;
		*) want=0 ;;
		esac
		run "-$want" vhd-undo create -q in/base in/undo.vhd
		if [ $want -eq 0 ]; then
			run -3 vhd-zerofree -q -i in/base
			cmp "$name" in/base
			vhd-undo discard -q in/undo.vhd
			cmp "$name" in/base
			[ ! -e in/undo.vhd ]
			vhd-undo create -q in/base in/undo.vhd
			if [ "$holds" = ntfs ]; then
				vhd-rmfile -q -i in/undo.vhd -r '/[a-z]*' --ignore-missing '/a_*'
				cmp "$name" in/base
				vhd-compact -q --to raw -o in/want.raw in/undo.vhd
				7zz x -tvhd -so in/undo.vhd 2>/dev/null | cmp - in/want.raw
			else
				vhd-compact -q --to raw -o in/want.raw in/undo.vhd
			fi
			vhd-undo commit -q in/undo.vhd
			[ ! -e in/undo.vhd ]
			vhd-compact -q --to raw -o in/got.raw in/base
			if [ "$holds" = empty ]; then
				same_guest in/base "$name"
			else
				cmp in/got.raw in/want.raw
			fi
			vhd-info --check in/base >/dev/null
		else
			cmp "$name" in/base
			[ "$(find in -name '*undo*' | wc -l)" -eq 0 ]
		fi
		chmod -R u+w in
		rm -r in
	done < <(rows)
}

@test "packages of every sample: verified, unpacked and indexed, the same disk" {
	while read -r name holds parent _; do
		echo "$name"
		ckm-pack -q -o x.ckm "$name"
		ckm-verify -q x.ckm
		cmp <(ckm-index -q --list x.ckm) <(ckm-index -q --list x.ckm.index)
		vhd-compact -q --to raw -o want.raw "$name"
		for to in dynamic fixed raw; do
			ckm-unpack -q --no-cache --to $to -o "x.$to" x.ckm
			same_guest "x.$to" want.raw
		done
		# all of it from the image itself, by its index
		ckm-index -q -o local.index "$name"
		ckm-unpack --json --no-cache --seed local.index -o y.raw --to raw x.ckm >json
		same_guest y.raw want.raw
		rm -f x.* y.raw want.raw local.index json
	done < <(rows 'ntfs|other|empty')
}

@test "other file systems, empty disks: left as they are, to the byte" {
	for name in ext2.vhd ext2.vhdx; do
		vhd-compact -q --to raw -o x.raw "$name"
		vhd-zerofree -q x.raw | cmp - x.raw
		rm x.raw
	done
	vhd-compact -q -o x.vhd virtualpc-dynamic.vhd
	[ "$(count_blocks x.vhd)" -eq 0 ]
	[ "$(guest_size x.vhd)" = 136365211648 ]
	[ "$(peek x.vhd 68 16)" = "$(peek virtualpc-dynamic.vhd 68 16)" ]
	vhd-zerofree -q virtualpc-dynamic.vhd | vhd-compact -q -o y.vhd
	cmp x.vhd y.vhd
}

@test "a child without its parent is refused" {
	for name in ntfs-differential.vhd ntfs-differential.vhdx; do
		mkdir alone
		cp "$name" alone
		for command in vhd-info 'vhd-zerofree -o out' 'vhd-compact -o out' 'vhd-defrag -n' 'vhd-rmfile --list' \
			'ckm-pack -o out.ckm' 'ckm-index -o out'; do
			# shellcheck disable=SC2086 # several words
			run -3 --separate-stderr $command "alone/$name"
			echo "$stderr"
			[[ $stderr == *"$name: "*parent* ]]
			[ ! -e out ]
			[ ! -e out.ckm ]
		done
		rm -r alone
	done
}
