#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# Differencing VHDs through every command: the whole chain is read, the child alone is written. 7-Zip is the judge: qemu-img
# reads a child as if it had no parent, and libvhdi misreads sector bitmaps that are partly set.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# The pair that Windows made, here.
pair() {
	skip_without 7zz
	sample ntfs-parent.vhd
	sample ntfs-differential.vhd
}

# seven IMAGE: what 7-Zip sees of it
seven() {
	7zz x -tvhd -so "$1" 2>/dev/null
}

# same_disk IMAGE RAW: that our flattened copy is this raw disk
same_disk() {
	vhd-compact -q "${@:3}" --to raw -f -o same.raw "$1"
	cmp same.raw "$2"
}

# A chain of our own: base.vhd, with files, and over it one.vhd and two.vhd, which differ from it and each other.
chain() {
	new_image base.vhd --size 32M --format "${1:-dynamic}"
	vhd-undo create -q base.vhd one.vhd
	vhd-rmfile -q -i --preset pagefile one.vhd
	vhd-undo create -q one.vhd two.vhd
	vhd-rmfile -q -i --preset temp --preset updates two.vhd
}

@test "a pair made by Windows: the disk is what 7-Zip sees" {
	pair
	sha256sum ntfs-* >before
	seven ntfs-differential.vhd >want.raw
	[ "$(size_of want.raw)" -eq 4194304 ]
	same_disk ntfs-differential.vhd want.raw
	run ! cmp -s <(seven ntfs-parent.vhd) want.raw
	sha256sum -c --quiet before
}

@test "sleuthkit sees in the flattened disk what the chain holds: partitions, names and contents" {
	skip_without fls icat mmls jq
	pair
	sample ntfs-parent.vhdx
	sample ntfs-differential.vhdx
	for child in ntfs-differential.vhd ntfs-differential.vhdx; do
		vhd-compact -q --to raw -f -o flat.raw $child
		offset=$(($(vhd-info --quick -j $child | jq '.volumes[0].offset') / 512))
		[ "$(mmls flat.raw | awk '/NTFS/ { print $3 + 0 }')" = $offset ]
		# what sleuthkit reads of every file that is not the volume's own
		fls -r -p -F -o $offset flat.raw | sed -n 's|^r/r \([0-9-]*\):\t\([^$].*\)|\1 \2|p' | while read -r inode path; do
			echo "$(icat -o $offset flat.raw "$inode" | sha256sum | cut -c1-64) /$path"
		done | sort >theirs
		[ "$(wc -l <theirs)" -ge 4 ]
		# and libntfs-3g of what vhd-zerofree writes
		vhd-zerofree -q -f -o whole.vhd $child
		digest whole.vhd | awk '$3 !~ /^\/\$/ && $1 !~ /^-/ && !/:\$REPARSE_POINT$/ { sub(/^([^ ]*) *[^ ]* /, $1 " "); print }' | sort >ours
		diff theirs ours
	done
}

@test "what is made of a child is a disk of its own, which every reader agrees on" {
	pair
	seven ntfs-differential.vhd >want.raw
	for to in dynamic fixed; do
		vhd-compact -q --to $to -o $to.vhd ntfs-differential.vhd
		mkdir $to
		mv $to.vhd $to
		to_raw $to/$to.vhd got.raw
		cmp got.raw want.raw
		seven $to/$to.vhd | cmp - want.raw
		[ "$(peek $to/$to.vhd $(($(size_of $to/$to.vhd) - 512 + 68)) 16)" = 722fa4e259c4c6458456ddb430ac4a19 ]
	done
	[ "$(be dynamic/dynamic.vhd 60 4)" -eq 3 ]
	[ "$(be dynamic/dynamic.vhd 552 8)" -eq 0 ]
	skip_without vhdiinfo
	vhdiinfo dynamic/dynamic.vhd | grep -q 'Disk type.*Dynamic'
}

@test "vhd-info: the chain, in text and JSON" {
	pair
	skip_without jq
	vhd-info -v ntfs-differential.vhd >out
	grep -q '^ntfs-differential.vhd: differencing VHD$' out
	grep -q '^  parent:      ntfs-parent.vhd, fixed VHD, id e7ea9200-8493-954e-a816-9572339be931$' out
	grep -q '^  blocks:      2 of 2 allocated, 2.00 MiB each; 104 KiB its own$' out
	grep -q 'NTFS "TestVolume"' out
	vhd-info -j --check ntfs-differential.vhd >out
	[ "$(jq -r .format out)" = differencing ]
	[ "$(jq -c .parents out)" = '[{"path":"ntfs-parent.vhd","id":"e7ea9200-8493-954e-a816-9572339be931","kind":"fixed"}]' ]
	[ "$(jq -r .vhd.parent_id out)" = e7ea9200-8493-954e-a816-9572339be931 ]
	[ "$(jq -c .vhd.parent_names out)" = '[".\\ntfs-parent.vhd","C:\\Projects\\dfvfs\\test_data\\ntfs-parent.vhd"]' ]
	[ "$(jq '.vhd.own_bytes, .vhd.blocks_allocated' out | tr '\n' ' ')" = '106496 2 ' ]
	[ "$(jq '.volumes[0].check.sound' out)" = true ]
	[ "$(jq '.vhd.blocks_with_partial_bitmap' out)" = null ]
	vhd-info --map --svg x.svg ntfs-differential.vhd >/dev/null
	vhd-info -j ntfs-parent.vhd >out
	[ "$(jq -c '.parents, .undo_disk' out | tr '\n' ' ')" = '[] null ' ]
}

@test "the parent elsewhere: --parent, from a path, a file on stdin and a pipe" {
	pair
	seven ntfs-differential.vhd >want.raw
	mkdir away
	mv ntfs-parent.vhd away/renamed.vhd
	run -3 --separate-stderr vhd-info ntfs-differential.vhd
	[ -z "$output" ]
	[[ $stderr = 'vhd-info: ntfs-differential.vhd: a differencing disk, and its parent .\ntfs-parent.vhd (id e7ea9200-'*'was not found: name it by --parent' ]]
	same_disk ntfs-differential.vhd want.raw --parent away/renamed.vhd
	same_disk - want.raw --parent away/renamed.vhd <ntfs-differential.vhd
	cat ntfs-differential.vhd | same_disk - want.raw --parent away/renamed.vhd
	cat ntfs-differential.vhd | vhd-compact -q --parent away/renamed.vhd -o whole.vhd
	to_raw whole.vhd whole.raw
	cmp whole.raw want.raw
	for c in 'vhd-zerofree -n' 'vhd-rmfile --list' 'vhd-defrag -n' 'vhd-info --quick'; do
		read -r -a words <<<"$c"
		"${words[@]}" -q --parent away/renamed.vhd ntfs-differential.vhd >/dev/null
		run -3 --separate-stderr "${words[@]}" ntfs-differential.vhd
		[[ $stderr = *'name it by --parent' ]]
		run -1 "${words[@]}" --parent away/nothing.vhd ntfs-differential.vhd
	done
	# beside it, in other letters
	cp away/renamed.vhd NTFS-Parent.VHD
	same_disk ntfs-differential.vhd want.raw
}

@test "a wrong parent is refused, with both ids; one that is not needed is said to be" {
	pair
	sample ntfs-fixed.vhd
	mv ntfs-parent.vhd right.vhd
	run -3 vhd-compact -o x.vhd --parent ntfs-fixed.vhd ntfs-differential.vhd
	[[ $output = *'ntfs-fixed.vhd is not its parent: it has the id be061b15-28ce-014a-8fc6-ecc139a451c1, not e7ea9200-8493-954e-a816-9572339be931'* ]]
	[ ! -e x.vhd ]
	cp ntfs-fixed.vhd ntfs-parent.vhd
	run -3 vhd-compact -o x.vhd ntfs-differential.vhd
	[[ $output = *'ntfs-parent.vhd is not its parent'* ]]
	# the right one by hand, although another stands where it should
	run -0 --separate-stderr vhd-compact -q -o x.vhd --parent right.vhd ntfs-differential.vhd
	[ -z "$stderr" ]
	run -0 --separate-stderr vhd-info --quick --parent right.vhd --parent ntfs-fixed.vhd ntfs-differential.vhd
	[ "$stderr" = 'vhd-info: warning: ntfs-fixed.vhd: not a parent of ntfs-differential.vhd: not used' ]
}

@test "loops are refused by name" {
	pair
	# its own parent
	poke ntfs-differential.vhd $((512 + 40)) 722fa4e259c4c6458456ddb430ac4a19
	seal_vhd ntfs-differential.vhd
	cp ntfs-differential.vhd ntfs-parent.vhd
	run -3 vhd-info ntfs-differential.vhd
	[[ $output = *'ntfs-parent.vhd: a differencing disk that is, by its parents, its own parent: a loop' ]]
	rm ntfs-parent.vhd
	ln ntfs-differential.vhd ntfs-parent.vhd
	run -3 vhd-compact -n ntfs-differential.vhd
	[[ $output = *'a loop' ]]
}

# every STATUS TEXT IMAGE [--parent FILE]...: every command that takes an image ends so, with one line that holds the text, and
# nothing is made or changed.
every() {
	local want=$1 text=$2 image=$3 c
	shift 3
	sha256sum ./*.vhd >../sums
	for c in 'vhd-info' 'vhd-info --check --json' 'vhd-zerofree -n' 'vhd-zerofree -o out' 'vhd-zerofree -i' 'vhd-rmfile --list' \
		'vhd-rmfile -o out --preset temp' 'vhd-rmfile -i --preset temp' 'vhd-defrag -n' 'vhd-defrag -o out' \
		'vhd-compact -n' 'vhd-compact -o out' 'vhd-compact --to raw -o out' 'vhd-compact -i' 'ckm-pack -o out.ckm' \
		'ckm-index -o out' 'vhd-undo create'; do
		read -r -a words <<<"$c"
		words+=("$@" "$image")
		[ "$c" != 'vhd-undo create' ] || words+=(out)
		run "-$want" --separate-stderr "${words[@]}"
		echo "${words[*]}: $stderr"
		[ -z "$output" ]
		[ "${#stderr_lines[@]}" -eq 1 ]
		[[ $stderr == *"$text"* ]]
		[ ! -e out ]
		[ ! -e out.ckm ]
	done
	sha256sum -c --quiet ../sums
	[ -z "$(find . -name '*.prep-*')" ]
}

@test "chains that cannot be read are refused by every command, each naming the disk at fault" {
	mkdir in
	cd in
	new_image base.vhd --size 32M
	vhd-undo create -q base.vhd one.vhd
	vhd-undo create -q one.vhd two.vhd
	rm ./*.prep-undo
	chmod u+w ./*
	mkdir ../kept
	cp ./* ../kept
	# missing, at either end of the chain
	rm base.vhd
	every 3 'one.vhd: a differencing disk, and its parent .\base.vhd (id ' two.vhd
	cp ../kept/base.vhd .
	rm one.vhd
	every 3 'two.vhd: a differencing disk, and its parent .\one.vhd (id ' two.vhd
	every 1 'nothing.vhd: No such file or directory' two.vhd --parent nothing.vhd
	# another disk under its name, and by hand
	new_image one.vhd --size 32M --seed 9
	every 3 'one.vhd is not its parent: it has the id ' two.vhd
	every 3 'base.vhd is not its parent: it has the id ' two.vhd --parent base.vhd
	# damaged, so that its id cannot be believed; a file that is no disk
	cp ../kept/one.vhd .
	poke one.vhd 40 ffff
	poke one.vhd $(($(size_of one.vhd) - 512 + 40)) ffff
	every 3 'one.vhd is not its parent, but no disk of that kind, or a damaged one: name the right one (id ' two.vhd
	head -c 1M /dev/urandom >one.vhd
	every 3 'one.vhd is not its parent, but no disk of that kind' two.vhd
	# a table of the parent's that leads outside
	cp ../kept/one.vhd .
	cp ../kept/base.vhd .
	poke base.vhd 1536 00ffffff
	every 4 'base.vhd: block 0, at offset ' two.vhd
	# a loop of two: base is a child of two
	cp ../kept/one.vhd base.vhd
	poke base.vhd $((512 + 40)) "$(peek two.vhd 68 16)"
	poke base.vhd 68 "$(peek ../kept/base.vhd 68 16)"
	poke base.vhd $(($(size_of base.vhd) - 512 + 68)) "$(peek ../kept/base.vhd 68 16)"
	seal_vhd base.vhd
	every 3 'a differencing disk that is, by its parents, its own parent: a loop' two.vhd --parent two.vhd
	# sectors of its parent's size, but another size of disk: zeros beyond its end
	rm base.vhd
	yes | head -c 16M >x.raw
	vhd-compact -q -o base.vhd x.raw
	rm x.raw
	poke base.vhd 68 "$(peek ../kept/base.vhd 68 16)"
	poke base.vhd $(($(size_of base.vhd) - 512 + 68)) "$(peek ../kept/base.vhd 68 16)"
	seal_vhd base.vhd
	vhd-compact -q --to raw -o ../small.raw two.vhd
	[ "$(size_of ../small.raw)" -eq $((32 << 20)) ]
	vhd-compact -q --to raw -o ../want.raw base.vhd
	truncate -s 32M ../want.raw
	cmp ../small.raw ../want.raw
}

@test "a parent that was changed since: read, with a warning by every command" {
	skip_without jq
	pair
	# what Windows leaves zero: the parent's time stamp, here that of its footer; then another one
	stamp=$(peek ntfs-parent.vhd $(($(size_of ntfs-parent.vhd) - 512 + 24)) 4)
	poke ntfs-differential.vhd $((512 + 56)) "$stamp"
	seal_vhd ntfs-differential.vhd
	run -0 --separate-stderr vhd-info ntfs-differential.vhd
	[ -z "$stderr" ]
	poke ntfs-differential.vhd $((512 + 56)) 01020304
	seal_vhd ntfs-differential.vhd
	for c in 'vhd-info' 'vhd-zerofree -o out' 'vhd-rmfile --list' 'vhd-defrag -n' 'vhd-compact -o out' 'ckm-pack -o out.ckm'; do
		read -r -a words <<<"$c"
		run -0 --separate-stderr "${words[@]}" ntfs-differential.vhd
		[[ $stderr == *'warning: ntfs-differential.vhd: its parent ntfs-parent.vhd has another time stamp than when it was made: changed or copied since'* ]]
		rm -f out*
	done
}

@test "as many disks as a chain may have, and one more" {
	skip_without jq
	truncate -s 8M x.raw
	vhd-compact -q -o 1.vhd x.raw
	for n in {2..64}; do
		vhd-undo create -q $((n - 1)).vhd $n.vhd
	done
	[ "$(vhd-info --quick --json 64.vhd | jq '.parents | length')" = 63 ]
	vhd-compact -q --to raw 64.vhd | cmp - x.raw
	run -3 vhd-undo create 64.vhd 65.vhd
	[[ $output = *'64.vhd: 64 disks in a chain of parents already: '* ]]
	[ ! -e 65.vhd ]
	# made by others
	cp 64.vhd 65.vhd
	poke 65.vhd $((512 + 40)) "$(peek 64.vhd 68 16)"
	poke 65.vhd 68 000102030405060708090a0b0c0d0e0f
	poke 65.vhd $(($(size_of 65.vhd) - 512 + 68)) 000102030405060708090a0b0c0d0e0f
	seal_vhd 65.vhd
	for c in vhd-info 'vhd-compact -n' 'vhd-zerofree -n'; do
		read -r -a words <<<"$c"
		run -3 --separate-stderr "${words[@]}" --parent 64.vhd 65.vhd
		[[ $stderr = *'more than 64 disks in a chain of parents' ]]
	done
}

@test "the pair with wrong checksums is refused by every command, and right once they are" {
	skip_without 7zz
	sample image.vhd
	sample image-differential.vhd
	for c in 'vhd-info' 'vhd-compact -n' 'vhd-zerofree -n' 'vhd-rmfile --list' 'vhd-defrag -n'; do
		read -r -a words <<<"$c"
		run -4 "${words[@]}" image.vhd
		[[ $output = *'wrong checksum'* ]]
		run -4 "${words[@]}" image-differential.vhd
		[[ $output = *'wrong checksum'* ]]
	done
	seal_vhd image-differential.vhd
	# the parent is still damaged: found by its id only when its footer can be believed
	run -3 vhd-compact -n image-differential.vhd
	seal_vhd image.vhd
	seven image-differential.vhd >want.raw
	[ "$(size_of want.raw)" -eq 104448 ]
	same_disk image-differential.vhd want.raw
}

@test "a chain of three: read, flattened and listed" {
	skip_without jq 7zz
	for format in dynamic fixed; do
		rm -f ./*
		chain $format
		sha256sum base.vhd one.vhd >before
		seven two.vhd >want.raw
		same_disk two.vhd want.raw
		seven one.vhd >one.raw
		same_disk one.vhd one.raw
		vhd-compact -q -o flat.vhd two.vhd
		same_guest flat.vhd want.raw
		sound_ntfs flat.vhd
		[ "$(vhd-info -j --quick two.vhd | jq -c '[.parents[] | [.path, .kind]]')" = '[["one.vhd","differencing"],["base.vhd","'$format'"]]' ]
		vhd-info --check two.vhd >/dev/null
		sha256sum -c --quiet before
		mkdir a b
		mv one.vhd a
		mv base.vhd b
		same_disk two.vhd want.raw --parent b/base.vhd --parent a/one.vhd
		run -3 vhd-info --parent a/one.vhd two.vhd
		[[ $output = *'a/one.vhd: a differencing disk, and its parent .\base.vhd'* ]]
		chmod -R u+w .
		rm -r a b
	done
}

@test "what other commands write of a child is whole, and the chain as it was" {
	skip_without 7zz
	chain
	sha256sum ./*.vhd >before
	seven two.vhd >want.raw
	vhd-zerofree -q two.vhd | vhd-compact -q -o lean.vhd
	sound_ntfs lean.vhd
	diff <(digest lean.vhd) <(digest want.raw)
	vhd-compact -q -o plain.vhd two.vhd
	[ "$(count_blocks lean.vhd)" -le "$(count_blocks plain.vhd)" ]
	vhd-zerofree -q want.raw >zero.raw
	same_guest lean.vhd zero.raw
	vhd-rmfile -q -o gone.vhd two.vhd --preset hiberfil --ignore-missing
	sound_ntfs gone.vhd
	[ "$(be gone.vhd 60 4)" -eq 3 ]
	vhd-defrag -q -o packed.vhd two.vhd
	diff <(digest packed.vhd) <(digest want.raw)
	sha256sum -c --quiet before
}

@test "in place: a removal changes the child alone" {
	skip_without 7zz
	chain
	sha256sum base.vhd one.vhd >before
	seven two.vhd >old.raw
	digest old.raw >old
	vhd-rmfile -q -i --preset hiberfil two.vhd
	sha256sum -c --quiet before
	seven two.vhd >new.raw
	same_disk two.vhd new.raw
	digest new.raw >new
	run ! cmp -s old new
	[ -z "$(comm -13 <(sort old) <(sort new))" ]
	vhd-compact -q -o flat.vhd two.vhd
	sound_ntfs flat.vhd
	# no larger than what changed: a handful of blocks
	[ "$(count_blocks two.vhd)" -le 4 ]
}

@test "in place: what would make a child larger is refused" {
	chain
	cp two.vhd same.vhd
	for c in vhd-zerofree vhd-compact vhd-defrag; do
		run -3 $c -i two.vhd
		[[ $output = *'two.vhd: a differencing disk: '*': -o FILE writes a disk of its own' ]]
		cmp two.vhd same.vhd
	done
}

@test "killed at any call of a change in place: the child is old or new after the next command" {
	faults=$build/tests/faults.so
	[ -e "$faults" ] || skip "$faults: not built"
	pair
	mkdir work
	cp ntfs-parent.vhd work
	run_faulty() {
		env FAULTS_HOW="$1" FAULTS_AT="$2" FAULTS_COUNT="$BATS_TEST_TMPDIR/count" LD_PRELOAD="$faults" \
			ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0:detect_leaks=0" \
			vhd-rmfile -q -i -r work/ntfs-differential.vhd /a_directory
	}
	seven ntfs-differential.vhd >old.raw
	cp ntfs-differential.vhd work
	run_faulty kill 0
	count=$(cat count)
	seven work/ntfs-differential.vhd >new.raw
	run ! cmp -s old.raw new.raw
	saw_old=0 saw_new=0
	for ((n = 1; n <= count; n++)); do
		cp ntfs-differential.vhd work
		run -137 run_faulty kill $n
		vhd-compact -q --to raw -f -o got.raw work/ntfs-differential.vhd
		if cmp -s got.raw old.raw; then
			saw_old=$((saw_old + 1))
		else
			cmp got.raw new.raw
			saw_new=$((saw_new + 1))
		fi
		[ ! -e work/ntfs-differential.vhd.prep-journal ]
		cmp work/ntfs-parent.vhd ntfs-parent.vhd
	done
	[ "$saw_old" -gt 0 ]
	[ "$saw_new" -gt 0 ]
}

@test "a parent that somebody writes to is in use; one that is read is not" {
	skip_without qemu-io
	pair
	hold ntfs-parent.vhd
	run -3 vhd-info --quick ntfs-differential.vhd
	release
	[[ $output = *'ntfs-parent.vhd: in use by another process' ]]
	vhd-info --quick ntfs-differential.vhd >/dev/null
}

@test "packages take a child with its parents" {
	pair
	[ -x "$build/cmd/ckm-pack" ] || skip "no ckm-pack"
	seven ntfs-differential.vhd >want.raw
	ckm-pack -q -o x.ckm ntfs-differential.vhd
	ckm-unpack -q -o x.vhd x.ckm
	same_guest x.vhd want.raw
	[ "$(be x.vhd 60 4)" -eq 3 ]
	# a parent elsewhere, and a child from a pipe; local data that is a child
	ckm-index -q -o local.index ntfs-differential.vhd
	ckm-unpack -q --no-cache --seed local.index --to raw -o y.raw x.ckm
	cmp y.raw want.raw
	mkdir away
	mv ntfs-parent.vhd away/p.vhd
	run -3 ckm-pack -q -o y.ckm ntfs-differential.vhd
	[[ $output = *'name it by --parent' ]]
	[ ! -e y.ckm ]
	ckm-pack -q --parent away/p.vhd -o y.ckm ntfs-differential.vhd
	cmp x.ckm y.ckm
	cat ntfs-differential.vhd | ckm-pack -q --parent away/p.vhd --name ntfs-differential -o z.ckm
	cmp x.ckm z.ckm
	run -3 ckm-index -q -o y.index ntfs-differential.vhd
	[[ $output = *'its parent '*'was not found'* ]]
	ckm-index -q --parent away/p.vhd -o y.index ntfs-differential.vhd
	cmp y.index local.index
	for seed in ntfs-differential.vhd local.index; do
		rm y.raw
		ckm-unpack --json --no-cache --parent away/p.vhd --seed $seed --to raw -o y.raw x.ckm >json
		cmp y.raw want.raw
		[ "$(jq .frames json)" = 0 ]
	done
	ckm-index --compare --json --no-cache --parent away/p.vhd x.ckm ntfs-differential.vhd >json
	[ "$(jq .missing_bytes json)" = 0 ]
}
