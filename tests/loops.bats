#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Links that lead nowhere, or round and round, and paths without an end: each in a small image that a reader might never
# come out of. Every command ends soon, in bounded memory, with one line that says what it is, and the right status.

load helper
load poke

setup() {
	skip_without mkntfs
	PATH=$build/tests:$PATH
	cd "$BATS_TEST_TMPDIR" || return
}

# bounded STATUS TEXT COMMAND...: limited; a refusal is a line with TEXT
bounded() {
	local want=$1 text=$2
	shift 2
	run --separate-stderr limited "$@"
	[ "$status" -eq "$want" ] || { echo "$*: status $status: $stderr"; return 1; }
	[ "$want" -eq 0 ] || [[ "${#stderr_lines[@]}" -eq 1 && ${#stderr} -lt 1000 && $stderr = *"$text"* ]] ||
		{ echo "$*: $stderr"; return 1; }
}

# damaged IMAGE TEXT [zerofree]: damage that TEXT tells. No command changes it, but for what the third may: zeroing needs no
# names. It is packed all the same.
damaged() {
	local before
	before=$(sha256sum <"$1")
	bounded 4 'damage found' vhd-info --check "$1"
	[[ $output = *"$2"* ]] || { echo "$output"; return 1; }
	if [ "$(dd if="$1" bs=1 skip=3 count=4 status=none)" = NTFS ]; then
		bounded 4 "$2" vhd-rmfile -i "$1" /pagefile.sys
		vhd-compact -q -f -o x.vhd "$1"
		bounded 4 "$2" vhd-defrag -o not.vhd x.vhd
		[ ! -e not.vhd ]
	fi
	[ "${3-}" = zerofree ] || bounded 4 "$2" vhd-zerofree -i "$1"
	[ "$(sha256sum <"$1")" = "$before" ]
	packed "$1"
	[ "${3-}" != zerofree ] || bounded 0 '' vhd-zerofree -i "$1"
}

# packed IMAGE: by pack and unpack the disk it was
packed() {
	bounded 0 '' ckm-pack -q -1 -f -o x.ckm "$1"
	bounded 0 '' ckm-index --list x.ckm
	bounded 0 '' ckm-index -q -f -o x.index "$1"
	bounded 0 '' ckm-unpack -q -f --to raw -o back.raw x.ckm
	cmp "$1" back.raw
}

# ntfs IMAGE SIZE: from a manifest on standard input
ntfs() {
	truncate -s "$2" "$1"
	mkntfs -F -Q -q -T -c 4096 "$1" 2>/dev/null
	{
		echo 'gen /pagefile.sys page 200000 2'
		cat
		echo 'logfile clean'
	} | ntfs-populate --stamp "$1"
}

# nested COUNT NAME: a path
nested() {
	local i
	for ((i = 0; i < $1; i++)); do
		printf '/%s' "$2"
	done
}

# index_header FILE NUMBER: of the index of folder NUMBER, which attribute() passes over for its name
index_header() {
	local at
	at=$(record "$1" "$2")
	at=$((at + $(le "$1" $((at + 20)) 2)))
	while [ "$(peek "$1" $at 1)" != 90 ]; do
		at=$((at + $(le "$1" $((at + 4)) 4)))
	done
	echo $((at + $(le "$1" $((at + 20)) 2) + 16))
}

# first_entry FILE HEADER
first_entry() {
	echo $(($2 + $(le "$1" "$2" 4)))
}

reference() {
	peek "$1" $(($(record "$1" "$2") + 44)) 4
	echo "0000$(peek "$1" $(($(record "$1" "$2") + 16)) 2)"
}

@test "NTFS: folders in folders, deeper than any path" {
	{
		echo "gen $(nested 5000 d)/bottom noise 5000 1"
		echo "gen $(nested 10 e)/bottom noise 5000 1"
	} | ntfs deep.raw 40M
	bounded 0 '' vhd-info --check deep.raw
	bounded 0 '' vhd-info --json deep.raw
	cp deep.raw x.raw
	bounded 3 '/bottom: nested more deeply than any path' vhd-rmfile -i -r x.raw /d
	cmp deep.raw x.raw
	bounded 0 '' vhd-rmfile -i -r x.raw /e /pagefile.sys
	bounded 0 '' vhd-info --check x.raw
	bounded 0 '' vhd-zerofree -i x.raw
	vhd-compact -q -o x.vhd deep.raw
	bounded 0 '' vhd-defrag -i --goal files x.vhd
	bounded 0 '' vhd-info --check x.vhd
	packed deep.raw
}

@test "NTFS: folders that go up again and again are not read anew for each that is below them" {
	skip_without strace
	echo "gen $(nested 1000 d)/bottom noise 5000 1" | ntfs x.raw 40M
	traced -f -e trace=pread64 -o calls vhd-rmfile -q -i -r x.raw /d
	[ "$(wc -l <calls)" -lt 20000 ]
	bounded 0 '' vhd-info --check x.raw
}

# Longer than PATH_MAX, and than the 32767 characters of Windows; all paths together are a hundred times the image.
@test "NTFS: names of 255 characters, one below the other" {
	name=$(nested 1 "$(printf 'n%.0s' {1..255})")
	echo "gen $(nested 2000 "${name#/}")/bottom noise 5000 1" | ntfs long.raw 40M
	bounded 0 '' vhd-info --check long.raw
	cp long.raw x.raw
	bounded 3 'the paths of the files that this names are longer than 256 MiB together' vhd-rmfile -i -r x.raw '/n*'
	cmp long.raw x.raw
	bounded 0 '' vhd-rmfile -i x.raw /pagefile.sys
	bounded 0 '' vhd-info --check x.raw
	packed long.raw
	# what can be named can be removed
	echo "gen $(nested 150 "${name#/}")/bottom noise 5000 1" | ntfs x.raw 40M
	bounded 0 '' vhd-rmfile -i -r x.raw '/n*'
	bounded 0 '' vhd-info --check x.raw
}

@test "NTFS: a folder in itself" {
	skip_without ifind
	echo 'mkdir /one/two/three' | ntfs x.raw 20M
	one=$(record_of x.raw /one) two=$(record_of x.raw /one/two)
	entry=$(first_entry x.raw "$(index_header x.raw "$two")")
	# three's entry leads to one
	poke x.raw "$entry" "$(reference x.raw "$one" | tr -d '\n')"
	damaged x.raw '/one/two/three' zerofree
	bounded 4 '' vhd-rmfile -n -r x.raw /one
}

@test "NTFS: two folders, each of which calls the other its parent" {
	skip_without ifind
	printf '%s\n' 'mkdir /one/two' 'gen /one/two/file noise 5000 1' | ntfs x.raw 20M
	one=$(record_of x.raw /one) two=$(record_of x.raw /one/two)
	name=$(attribute x.raw "$one" 30)
	poke x.raw $((name + $(le x.raw $((name + 20)) 2))) "$(reference x.raw "$two" | tr -d '\n')"
	damaged x.raw '/one' zerofree
	bounded 4 'a name of it stands in no folder' vhd-rmfile -n x.raw /one/two/file
}

@test "NTFS: an attribute list whose extensions are the file itself" {
	skip_without ifind
	echo 'fragment /pieces 3000 noise 1' | ntfs x.raw 60M
	n=$(record_of x.raw /pieces)
	list=$(attribute x.raw "$n" 20)
	[ "$(peek x.raw $((list + 8)) 1)" = 01 ]
	at=$(($(first_cluster x.raw "$list") * 4096))
	end=$((at + $(le x.raw $((list + 48)) 8)))
	while [ $at -lt $end ]; do
		poke x.raw $((at + 16)) "$(reference x.raw "$n" | tr -d '\n')"
		at=$((at + $(le x.raw $((at + 4)) 2)))
	done
	damaged x.raw "record $n"
}

@test "NTFS: an index block that is its own child" {
	skip_without ifind
	for i in {1000..2500}; do
		echo "gen /big/a-name-that-takes-some-room-$i noise 10 1"
	done | ntfs x.raw 40M
	n=$(record_of x.raw /big)
	at=$(record x.raw "$n")
	at=$((at + $(le x.raw $((at + 20)) 2)))
	while [ "$(peek x.raw $at 1)" != a0 ]; do
		at=$((at + $(le x.raw $((at + 4)) 4)))
	done
	blocks=$(first_cluster x.raw $at)
	entry=$(first_entry x.raw "$(index_header x.raw "$n")")
	vcn=$(le x.raw $((entry + $(le x.raw $((entry + 8)) 2) - 8)) 8)
	block=$(((blocks + vcn) * 4096))
	[ "$(peek x.raw $block 4)" = 494e4458 ]
	# it has children
	[ "$(peek x.raw $((block + 36)) 1)" = 01 ]
	entry=$(first_entry x.raw $((block + 24)))
	poke x.raw $((entry + $(le x.raw $((entry + 8)) 2) - 8)) "$(printf %02x $vcn)"
	damaged x.raw "record $n"
	bounded 4 "record $n" vhd-rmfile -n -r x.raw /big
}

@test "FAT and exFAT: a chain that is a circle, a folder in itself" {
	for kind in 12 16 32 exfat; do
		fat-image $kind x.raw chain
		damaged x.raw 'its chain runs in a circle'
		fat-image $kind x.raw circle
		damaged x.raw 'claimed by /one and by /one/two'
	done
}

@test "FAT and exFAT: 5000 folders in folders, with names of 255 characters" {
	for kind in 32 exfat; do
		fat-image $kind x.raw deep
		damaged x.raw 'nested more deeply than any path'
		bounded 4 'nested more deeply than any path' vhd-rmfile -n -r x.raw '/n*'
		rm x.raw
	done
}

@test "NTFS: a file table of 900 GiB, almost all of which was never written" {
	truncate -s 1000G x.raw || skip 'no sparse file of 1000 GiB can be made here'
	ntfs x.raw 1000G </dev/null
	clusters=$((900 << 18)) bitmap=$((900 << 5))
	data=$(attribute x.raw 0 80)
	bits=$(attribute x.raw 0 b0)
	for copy in 0 $(($(le x.raw 56 8) * 4096 - $(record x.raw 0))); do
		grow() {
			poke x.raw $((copy + $1 + 24)) "$(le_hex $(($2 - 1)) 8)"
			for field in 40 48 56; do
				poke x.raw $((copy + $1 + field)) "$(le_hex $(($2 * 4096)) 8)"
			done
			poke x.raw $((copy + $(runs x.raw "$1"))) "$3"
		}
		grow "$data" $clusters "14$(le_hex $clusters 4)0400"
		grow "$bits" $bitmap "12$(le_hex $bitmap 2)0200"
	done
	for c in 'vhd-info' 'vhd-zerofree -n'; do
		run --separate-stderr bash -c "ulimit -t $((10 * slower)); exec $c x.raw"
		[[ "$output $stderr" = *'damage'* ]]
		[ "$status" -eq 0 ] || [ "$status" -eq 4 ]
	done
}
