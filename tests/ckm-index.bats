#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# ckm-index: indexes of packages, images and folders, and what a transfer costs.

load helper

setup() {
	cd "$BATS_TEST_TMPDIR"
	export XDG_CACHE_HOME=$BATS_TEST_TMPDIR/xdg
}

use_series() {
	local dir
	dir=$(image_cache)/index-series
	(
		flock 9
		[ -e "$dir/done" ] || {
			"$top/scripts/mkimage" -q --corpus synthetic --size 96M --series "$dir"
			ckm-pack -q -1 -o "$dir/v1.ckm" "$dir/v1.vhd"
			ckm-pack -q -1 --base "$dir/v1.ckm" -o "$dir/v2.ckm" "$dir/v2.vhd"
			ckm-pack -q -1 --base "$dir/v1.ckm" --difference -o "$dir/v2d.ckm" "$dir/v2.vhd"
			touch "$dir/done"
		}
	) 9>"$dir.lock"
	ln -s "$dir" s
}

field() {
	sed -n 's/^ *"'"$1"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' <<<"$output"
}

@test "the index of a package, byte for byte what stands beside it" {
	use_series
	run -0 ckm-index -o x.index s/v1.ckm
	cmp x.index s/v1.ckm.index
	ckm-index -q -o - s/v1.ckm | cmp - s/v1.ckm.index
	run -0 ckm-index -o y.index s/v1.ckm.index
	cmp y.index s/v1.ckm.index
	run -3 ckm-index -o x.index s/v2.ckm
	cmp x.index s/v1.ckm.index
	run -0 ckm-index -f -o x.index s/v2.ckm
	cmp x.index s/v2.ckm.index
}

@test "a sealed index is extracted without its key, and checked" {
	use_series
	echo secret >pass
	ckm-pack -q -1 --passphrase-file pass -o p.ckm s/v1.vhd
	run -0 ckm-index --json -o x.index p.ckm
	[ "$(field sealed)" = true ]
	cmp x.index p.ckm.index
	run -3 ckm-index --list p.ckm
	run -0 ckm-index --list --passphrase-file pass p.ckm
	[[ $output == *explorer.exe* || $output == *Windows* ]]
	printf 'x' | dd of=p.ckm.index bs=1 seek=200 conv=notrunc status=none
	run -4 ckm-index -o y.index p.ckm.index
	[ ! -e y.index ]
}

@test "a local index: only what changed is hashed again" {
	use_series
	cp -r s/host host
	cp s/v1.vhd old.vhd
	run -0 ckm-index --json -o l.index host old.vhd
	files=$(find host -type f -size +0 | wc -l)
	[ "$(field files | head -n 1)" = "$files" ]
	[ "$(field hashed_files | head -n 1)" = "$files" ]
	run -0 ckm-index --json -o l.index host old.vhd
	[ "$(field hashed_files | paste -sd+ | bc)" = 0 ]
	# changed, new, gone; refreshed without being told what
	find host -type f -size +4k | head -n 3 | while read -r f; do echo more >>"$f"; done
	echo new >host/new
	rm "$(find host -type f -size +4k | tail -n 1)"
	run -0 ckm-index --json -o l.index
	[ "$(field hashed_files | head -n 1)" = 4 ]
	[ "$(field hashed_files | tail -n 1)" = 0 ]
	[ "$(field files | head -n 1)" = "$files" ]
	# a moved file is another one
	printf 'x' | dd of=old.vhd bs=1 seek=30000000 conv=notrunc status=none
	run -0 ckm-index -o l.index
	[[ $output == *"old.vhd: a disk of"*", hashed"* ]]
	run -0 ckm-index -n --json -o l.index host
	[ "$(field dry_run)" = true ]
	run -0 ckm-index --json -o l.index
	[ "$(field path | wc -l)" = 2 ]
}

@test "what is no local index is not overwritten" {
	use_series
	echo mine >l.index
	run -3 ckm-index -o l.index s/host
	[ "$(cat l.index)" = mine ]
	run -0 ckm-index -f -o l.index s/host
	# a damaged one is
	printf 'x' | dd of=l.index bs=1 seek=60 conv=notrunc status=none
	run -4 ckm-index -o l.index
	[[ $output != *warning* ]]
	run -0 ckm-index -o l.index s/host
	[[ $output == *"made anew"* ]]
	run -2 ckm-index s/host
	run -2 ckm-index -o x.index
	run -2 ckm-index -o - s/host
	run -2 ckm-index -o x.index s/host s/v1.ckm
	run -1 ckm-index -o x.index nothing
	[ ! -e x.index ]
}

@test "what a transfer would cost, from every kind of source" {
	use_series
	run -0 --separate-stderr ckm-index --compare --json s/v2.ckm
	[ -z "$stderr" ]
	whole=$(field fetch_bytes)
	[ "$(field found_bytes)" = 0 ]
	for old in s/v1.ckm s/v1.ckm.index s/v1.vhd; do
		run -0 ckm-index --compare --json s/v2.ckm.index "$old"
		[ "$(field fetch_bytes)" -gt 0 ]
		[ "$(field fetch_bytes)" -lt $((whole / 3)) ]
		[ "$(field ranges)" -le 3 ]
	done
	run -0 ckm-index --compare --json s/v1.ckm s/host
	[ "$(field found_bytes | head -n 1)" -gt 0 ]
	ckm-index -q -o l.index s/host s/v1.vhd
	run -0 ckm-index --compare --json s/v2.ckm l.index
	[ "$(field path | wc -l)" = 2 ]
	run -0 ckm-index --compare s/v2d.ckm s/host
	[[ $output == *"missing: "* ]]
	run -0 ckm-index --compare s/v2.ckm s/v1.ckm s/host
	[[ $output == *"to fetch: "* ]]
	[ ! -e s/v1.ckm.new ]
}

@test "what is told is what a transfer needs" {
	use_series
	run -0 ckm-index --compare --json s/v2.ckm s/v1.vhd
	frames=$(field frames)
	run -0 ckm-unpack --json --seed s/v1.vhd -o x.vhd s/v2.ckm
	[ "$(field frames)" = "$frames" ]
}

@test "the files of a package, and their share of it" {
	use_series
	run -0 ckm-index --list s/v1.ckm
	[[ $output == *"/Windows/"* ]]
	# all shares together are the frames
	sum=$(awk 'NR > 1 { s += $1 } END { printf "%d", s }' <<<"$output")
	size=$(stat -c %s s/v1.ckm)
	index=$(stat -c %s s/v1.ckm.index)
	[ $((size - index - sum)) -lt 4096 ] && [ $((size - index - sum)) -gt -4096 ]
	# every file of the digest that has clusters of its own is there
	run -0 ckm-index --list --json s/v1.ckm.index
	jq -e '.files | length > 50' <<<"$output" >/dev/null
}

@test "usage" {
	run -2 ckm-index
	run -2 ckm-index --compare
	run -2 ckm-index --list
	run -2 ckm-index --list a b
	run -2 ckm-index --list --compare a
	run -2 ckm-index --list -o x a
	run -1 ckm-index --list nothing
	run -3 ckm-index --list "$BATS_TEST_FILENAME"
}
