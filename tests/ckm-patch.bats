#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# Updates as patches: ckm-pack --base-image makes them, ckm-unpack, ckm-fetch, ckm-verify and ckm-index use them.

load helper

setup() {
	cd "$BATS_TEST_TMPDIR"
	export XDG_CACHE_HOME=$BATS_TEST_TMPDIR/xdg
	unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
	server=''
}

teardown() {
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
}

# Shared, in ./s: v1, v2 (its update), v3 (v2 laid out anew), and packages: v1; v2 with what is new in frames of its own
# (plain), with patches too (also), and of patches alone (only).
use_series() {
	local dir
	dir=$(image_cache)/patch-series
	(
		flock 9
		[ -e "$dir/done" ] || {
			"$top/scripts/mkimage" -q --corpus synthetic --size 96M --series "$dir"
			ckm-pack -q -1 -o "$dir/v1.ckm" "$dir/v1.vhd"
			ckm-pack -q -1 --base "$dir/v1.ckm" -o "$dir/plain.ckm" "$dir/v2.vhd"
			ckm-pack -q -1 --base "$dir/v1.ckm.index" --base-image "$dir/v1.vhd" --name v2 -o "$dir/also.ckm" "$dir/v2.vhd"
			ckm-pack -q -1 --base "$dir/v1.ckm.index" --base-image "$dir/v1.vhd" --name v2 --difference \
				--patches only -o "$dir/only.ckm" "$dir/v2.vhd"
			touch "$dir/done"
		}
	) 9>"$dir.lock"
	ln -s "$dir" s
}

# field NAME: of the JSON report in $output
field() {
	sed -n 's/^ *"'"$1"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' <<<"$output"
}

# fat FILE FOLDER: a raw FAT disk with what is in the folder.
fat() {
	truncate -s 16M "$1"
	mformat -i "$1" -N 12345678 ::
	mcopy -i "$1" -s "$2"/* ::
}

# Bytes that do not compress: noise FILE BYTES SEED
noise() {
	openssl enc -aes-128-ctr -nosalt -pass "pass:$3" -pbkdf2 -in /dev/zero 2>/dev/null | head -c "$2" >"$1" || true
	[ "$(stat -c %s "$1")" = "$2" ]
}

@test "one package for new clients and for those with the old image" {
	use_series
	run -0 ckm-unpack -n --json --seed s/v1.vhd s/also.ckm
	[ "$(field patches)" -gt 0 ]
	with=$(field frame_bytes)
	run -0 ckm-unpack -n --json --seed s/v1.vhd s/plain.ckm
	[ "$(field patches)" = 0 ]
	[ "$with" -lt $(($(field frame_bytes) / 2)) ]
	run -0 ckm-unpack --json --seed s/v1.vhd -o a.vhd s/also.ckm
	[ "$(field patches)" -gt 0 ]
	[ "$(field frame_bytes)" = "$with" ]
	same_guest s/v2.vhd a.vhd
	# without it, and with one that has nothing of it, the plain frames are taken
	run -0 ckm-unpack --json -o b.vhd s/also.ckm
	[ "$(field patches)" = 0 ]
	cmp a.vhd b.vhd
	truncate -s 1M nothing
	run -0 ckm-unpack -n --seed nothing s/also.ckm
	[[ $output == *"patches are of no use"* ]]
}

@test "patches alone: the smallest update, and nothing without its base" {
	use_series
	[ "$(stat -c %s s/only.ckm)" -lt $(($(stat -c %s s/plain.ckm) / 4)) ]
	ckm-unpack -q --seed s/v1.vhd -o a.vhd s/only.ckm
	same_guest s/v2.vhd a.vhd
	# from the package of the base too
	ckm-unpack -q --seed s/v1.ckm -o b.vhd s/only.ckm
	cmp a.vhd b.vhd
	run -3 ckm-unpack -o c.vhd s/only.ckm
	[[ $output == *"difference package"*"needed by /"*"as --seed"* ]]
	run -3 ckm-unpack --seed s/host -o c.vhd s/only.ckm
	[[ $output == *"neither in it nor in a seed, or in patches of what no seed has"* ]]
	run -3 ckm-unpack -n --seed s/host s/only.ckm
	[ ! -e c.vhd ]
}

@test "the report tells what patches cost" {
	use_series
	run -0 ckm-pack -1 --base-image s/v1.vhd -o p.ckm s/v2.vhd
	[[ $output == *"patches: "*" of what is new for "*" % of the package; in "*" frames, made of "*" of s/v1.vhd"* ]]
	run -0 ckm-pack -n -1 --base-image s/v1.vhd s/v2.vhd
	[[ $output == *"patches: "* ]]
	run -0 ckm-pack -f -1 --json --base-image s/v1.vhd -o p.ckm s/v2.vhd
	for name in bytes references reference_bytes; do
		[ "$(sed -n '/"patches"/,$p' <<<"$output" | sed -n 's/^ *"'$name'": \([0-9]*\),*$/\1/p')" -gt 0 ]
	done
}

@test "the same package whatever the threads, and whatever the old image is in" {
	use_series
	pack() {
		ckm-pack -q -f -1 --name v2 "$@" -o a.ckm s/v2.vhd
		cmp s/also.ckm a.ckm
	}
	pack --base s/v1.ckm.index --base-image s/v1.vhd -J 1
	pack --base s/v1.ckm.index --base-image s/v1.vhd -J 5
	qemu-img convert -f vpc -O raw s/v1.vhd v1.raw
	pack --base s/v1.ckm --base-image v1.raw
	pack --base-image s/v1.ckm
	pack --base s/v1.ckm --patches also
	qemu-img convert -f raw -O vhdx v1.raw v1.vhdx
	pack --base s/v1.ckm.index --base-image v1.vhdx
	for jobs in 1 5; do
		ckm-pack -q -4 -J $jobs --base-image s/v1.vhd --difference --patches only -o $jobs.ckm s/v2.vhd
	done
	cmp 1.ckm 5.ckm
	# cut and hashed here: all but the id of its package
	ckm-pack -q -f -1 --name v2 --base-image v1.raw -o a.ckm s/v2.vhd
	[ "$(stat -c %s a.ckm)" -le $(($(stat -c %s s/also.ckm) + 64)) ]
	ckm-unpack -q --seed s/v1.vhd -o a.vhd a.ckm
	same_guest s/v2.vhd a.vhd
}

@test "an old image that is not the base is named, and nothing is written" {
	use_series
	run -3 ckm-pack -1 --base s/v1.ckm.index --base-image s/v3.vhd -o a.ckm s/v2.vhd
	[[ $output == *"s/v3.vhd: not the image that the index is of, or changed since"* ]]
	truncate -s 10M small
	run -3 ckm-pack -1 --base s/v1.ckm.index --base-image small -o a.ckm s/v2.vhd
	[[ $output == *"small: a disk of 10485760 bytes; the index is of one of "* ]]
	run -3 ckm-pack -1 --base s/plain.ckm.index --base-image s/v1.ckm -o a.ckm s/v2.vhd
	[[ $output == *"s/v1.ckm: not the package that s/plain.ckm.index is the index of"* ]]
	run -3 ckm-pack -1 --base-image s/v1.ckm.index -o a.ckm s/v2.vhd
	[[ $output == *"an index alone, without the content"* ]]
	run -1 ckm-pack -1 --base-image gone.vhd -o a.ckm s/v2.vhd
	[[ $output == *gone.vhd* ]]
	run -2 ckm-pack -1 --base s/v1.ckm.index --patches also -o a.ckm s/v2.vhd
	[[ $output == *"--base-image"* ]]
	run -2 ckm-pack -1 --base-image s/v1.vhd --patches only -o a.ckm s/v2.vhd
	[[ $output == *"--difference"* ]]
	run -2 ckm-pack -1 --base-image s/v1.vhd --patches some -o a.ckm s/v2.vhd
	[ ! -e a.ckm ]
	[ ! -e a.ckm.index ]
}

# spoil FILE: change the old image where it has programs, so that its size stays.
spoil() {
	local at
	grep -obUa 'MZ' "$1" | cut -d: -f1 | awk '{ if ($1 % 512 == 0) print }' | head -n 40 | while read -r at; do
		printf 'spoilt' | dd of="$1" bs=1 seek=$((at + 2048)) conv=notrunc status=none
	done
}

@test "a damaged old image: the plain frames instead, or what is lacking is told" {
	use_series
	cp s/v1.vhd v1.vhd
	# The index is that of the image before it was damaged: it promises what is not there.
	ckm-index -q -o stale.index v1.vhd
	spoil v1.vhd
	run -1 cmp -s s/v1.vhd v1.vhd
	run -0 ckm-unpack --json --seed stale.index -o a.vhd s/also.ckm
	[ "$(field bad_chunks | head -n 1)" -gt 0 ]
	[ "$(field patches)" -gt 0 ]
	same_guest s/v2.vhd a.vhd
	run -3 ckm-unpack --seed stale.index -o b.vhd s/only.ckm
	[[ $output == *"neither in it nor in a seed"*"needed by /"* ]]
	run -3 ckm-unpack --no-cache --seed v1.vhd -o b.vhd s/only.ckm
	[ ! -e b.vhd ]
}

@test "a damaged patch is found, and its files named" {
	use_series
	run -0 ckm-verify s/also.ckm
	[[ $output == *"patches only by their digests (--seed names what they are made of)"* ]]
	run -0 ckm-verify --seed s/v1.vhd s/also.ckm s/only.ckm
	[[ $output == *"of them patches"* ]]
	run -0 ckm-verify --json --seed s/v1.ckm s/only.ckm
	[ "$(field unapplied)" = 0 ]
	[ "$(field patches)" -gt 0 ]
	run -3 ckm-verify --seed s/host s/only.ckm
	[[ $output == *"patches are not made of what the seeds hold"* ]]
	run -2 ckm-verify --quick --seed s/v1.vhd s/only.ckm
	# the last frame is a patch
	cp s/only.ckm bad.ckm
	at=$(($(stat -c %s s/only.ckm) - 48 - $(stat -c %s s/only.ckm.index) - 20))
	printf 'x' | dd of=bad.ckm bs=1 seek=$at conv=notrunc status=none
	run -4 ckm-verify bad.ckm
	[[ $output == *"is damaged: its digest differs"*"damage hits "* ]]
	run -4 ckm-verify --seed s/v1.vhd bad.ckm
	run -4 ckm-unpack --seed s/v1.vhd -o a.vhd bad.ckm
	[ ! -e a.vhd ]
}

@test "sealed and signed, against a sealed base" {
	use_series
	openssl genpkey -algorithm X25519 -out me.pem 2>/dev/null
	openssl pkey -in me.pem -pubout -out me.pub
	openssl genpkey -algorithm ed25519 -out sign.pem 2>/dev/null
	openssl pkey -in sign.pem -pubout -out sign.pub
	ckm-pack -q -1 --recipient me.pub -o v1.ckm s/v1.vhd
	run -3 ckm-pack -1 --base-image v1.ckm -o v2.ckm s/v2.vhd
	[[ $output == *"v1.ckm: sealed"* ]]
	ckm-pack -q -1 --base-image v1.ckm --base-key me.pem --difference --patches only --recipient me.pub --sign sign.pem \
		-o v2.ckm s/v2.vhd
	run -0 ckm-verify --key me.pem --verify-with sign.pub --seed s/v1.vhd v2.ckm
	[[ $output == *"of them patches, sealed, signature good"* ]]
	ckm-unpack -q --key me.pem --verify-with sign.pub --seed s/v1.vhd -o a.vhd v2.ckm
	same_guest s/v2.vhd a.vhd
	run -3 ckm-unpack --seed s/v1.vhd -o b.vhd v2.ckm
	[[ $output == *"sealed"* ]]
}

@test "every codec and level" {
	use_series
	for how in '-0' '-3' '-4' '--codec deflate' '--codec store' '-4 --codec zstd'; do
		# shellcheck disable=SC2086
		ckm-pack -q -f $how --base-image s/v1.vhd --difference --patches only -o a.ckm s/v2.vhd
		[ "$(stat -c %s a.ckm)" -lt $(($(stat -c %s s/plain.ckm) / 2)) ]
		ckm-unpack -q -f --seed s/v1.vhd -o a.vhd a.ckm
		same_guest s/v2.vhd a.vhd
	done
}

@test "one after the other: version 1 to 2 to 3" {
	use_series
	ckm-pack -q -1 --base-image s/v2.vhd --difference --patches only -o 23.ckm s/v3.vhd
	ckm-unpack -q --seed s/v1.vhd -o v2.vhd s/only.ckm
	ckm-unpack -q --seed v2.vhd -o v3.vhd 23.ckm
	same_guest s/v3.vhd v3.vhd
	# the same files laid out anew: nearly nothing of them
	[ "$(stat -c %s 23.ckm)" -lt $(($(stat -c %s s/v1.ckm) / 10)) ]
	run -3 ckm-unpack --seed s/v1.vhd -o x.vhd 23.ckm
	[ ! -e x.vhd ]
	# both updates at once, in whatever order the seeds come
	ckm-unpack -q --seed s/v1.vhd --seed s/only.ckm -o x.vhd 23.ckm
	cmp v3.vhd x.vhd
	ckm-unpack -q -f --seed s/only.ckm --seed s/v1.vhd -o x.vhd 23.ckm
	cmp v3.vhd x.vhd
	ckm-verify -q --seed s/only.ckm --seed s/v1.vhd 23.ckm
}

@test "an update that was brought here by other means is a seed" {
	use_series
	start_server
	run -0 ckm-fetch --json --package s/only.ckm --seed s/v1.vhd -o a.vhd "$url/plain.ckm"
	[ "$(field frames)" = 0 ]
	same_guest s/v2.vhd a.vhd
	run -0 ckm-index --compare --json s/plain.ckm s/only.ckm.index s/v1.vhd
	[ "$(field fetch_bytes)" = 0 ]
	# without the image that it is for, it is of little use, but no harm
	run -0 ckm-fetch --json --package s/only.ckm -o b.vhd "$url/plain.ckm"
	cmp a.vhd b.vhd
}

@test "several bases: any one of them will do" {
	use_series
	ckm-pack -q -1 --base s/v1.ckm.index --base-image s/v1.vhd --base-image s/v2.vhd --difference --patches only \
		-o 3.ckm s/v3.vhd
	for v in v1 v2; do
		ckm-unpack -q -f --seed s/$v.vhd -o v3.vhd 3.ckm
		same_guest s/v3.vhd v3.vhd
	done
	run -3 ckm-unpack -f --seed s/host -o x.vhd 3.ckm
	# each client takes the patches of its own base alone
	run -0 ckm-unpack -n --json --seed s/v2.vhd 3.ckm
	near=$(field frame_bytes)
	run -0 ckm-unpack -n --json --seed s/v1.vhd 3.ckm
	[ "$near" -lt "$(field frame_bytes)" ]
}

# two.ckm: two.raw as patches of one.raw, alone.
pack_update() {
	ckm-pack -q --base-image one.raw --difference --patches only -o two.ckm two.raw
}

update_is_whole() {
	ckm-unpack -q --seed one.raw -o out.raw two.ckm
	cmp two.raw out.raw
}

@test "files are found again under another path, by what they have in common" {
	skip_without mformat mcopy
	mkdir -p one/app-1.0 two/tool-2.0
	noise a 400000 one
	noise b 300000 two
	noise c 200000 three
	# changed every 3000 bytes: no chunk is the same
	change() {
		awk -v n="$(($(stat -c %s "$1") / 3000))" 'BEGIN { for (i = 0; i < n; i++) print i * 3000 }' | while read -r at; do
			printf 'changed' | dd of="$1" bs=1 seek="$at" conv=notrunc status=none
		done
	}
	cp a one/app-1.0/library.dll
	cp b one/app-1.0/other.dat
	cp c one/app-1.0/third.dat
	cp a two/tool-2.0/renamed.bin
	cp b two/tool-2.0/other.dat
	cp c two/tool-2.0/fourth.xyz
	change two/tool-2.0/renamed.bin
	change two/tool-2.0/other.dat
	change two/tool-2.0/fourth.xyz
	fat one.raw one
	fat two.raw two
	pack_update
	# 900000 bytes that do not compress, 2100 of them new
	[ "$(stat -c %s two.ckm)" -lt 40000 ]
	update_is_whole
}

@test "a file of the component store is made of the same component's, not of another's that has its name" {
	local i component old new
	skip_without mformat mcopy
	mkdir one two
	# Below 4096 bytes nothing but names tells what a file was.
	for i in $(seq 10 49); do
		component=amd64_microsoft-windows-part-${i}_31bf3856ad364e35_10.0.19041
		# .10 is sorted before .9: what was is the neighbour on the one side, or on the other.
		old=one/$component.$((i % 2 ? 9 : 1))_none_$(printf %016x $((i * 7919)))
		new=two/$component.10_none_$(printf %016x $((i * 104729)))
		mkdir "$old" "$new"
		noise "$old/settings.dat" 3500 "$i"
		cp "$old/settings.dat" "$new"
		printf 'changed' | dd of="$new/settings.dat" bs=1 seek=$((i * 60)) conv=notrunc status=none
	done
	fat one.raw one
	fat two.raw two
	pack_update
	# 140000 bytes that do not compress, 280 of them new
	[ $(($(stat -c %s two.ckm) - $(stat -c %s two.ckm.index))) -lt 14000 ]
	update_is_whole
}

@test "what is in no file is made of what stood there" {
	noise one.raw 3000000 one
	truncate -s 4M one.raw
	cp one.raw two.raw
	for at in 100000 900000 1700000 2500000; do
		printf 'changed' | dd of=two.raw bs=1 seek=$at conv=notrunc status=none
	done
	pack_update
	[ "$(stat -c %s two.ckm)" -lt 8000 ]
	update_is_whole
}

@test "one small change in a large file costs next to nothing" {
	skip_without mformat mcopy
	mkdir one two
	noise one/large.dat 6000000 one
	cp one/large.dat two
	printf 'changed' | dd of=two/large.dat bs=1 seek=3333333 conv=notrunc status=none
	fat one.raw one
	fat two.raw two
	pack_update
	# the chunk has 4096 bytes at least; the index tells of all chunks
	[ $(($(stat -c %s two.ckm) - $(stat -c %s two.ckm.index))) -lt 1000 ]
	update_is_whole
}

@test "content that has nothing to do with the old gets no patch" {
	noise one.raw 2097152 one
	noise two.raw 2097152 two
	run -0 ckm-pack --json --base-image one.raw -o two.ckm two.raw
	[ "$(sed -n '/"patches"/,$p' <<<"$output" | sed -n 's/^ *"frames": \([0-9]*\),*$/\1/p')" = 0 ]
	# a package like any other then
	[ "$(dd if=two.ckm.index bs=1 skip=16 count=1 status=none | od -An -tu1 | tr -d ' ')" = 0 ]
	ckm-unpack -q -o out.raw two.ckm
	cmp two.raw out.raw
}

@test "ckm-index --compare tells what ckm-fetch -n and ckm-fetch do" {
	use_series
	run -0 ckm-index --compare --json s/also.ckm.index s/v1.vhd
	patches=$(field patches)
	bytes=$(field patch_bytes)
	fetch=$(field fetch_bytes)
	[ "$patches" -gt 0 ]
	run -0 ckm-index --compare s/also.ckm.index s/v1.vhd
	[[ $output == *"patches: "*" of it in $patches frames"* ]]
	run -0 ckm-index --list s/also.ckm
	ckm-index --list s/plain.ckm | awk '{ print $2, $5 }' >plain
	ckm-index --list s/also.ckm | awk '{ print $2, $5 }' | cmp plain -
	start_server
	run -0 ckm-fetch -n --json --seed s/v1.vhd "$url/also.ckm"
	[ "$(field patches)" = "$patches" ]
	[ "$(field patch_bytes)" = "$bytes" ]
	run -0 ckm-fetch --json --seed s/v1.vhd -o a.vhd "$url/also.ckm"
	[ "$(field patches)" = "$patches" ]
	[ "$(field fetched_bytes)" = $((fetch + $(stat -c %s s/also.ckm.index))) ]
	same_guest s/v2.vhd a.vhd
	run -0 ckm-fetch -n --seed s/v1.vhd "$url/also.ckm"
	[[ $output == *"patches: "* ]]
}

# start_server [OPTION]...: tests/badserver with ./s, well-behaved without options: $url
start_server() {
	"$build/tests/badserver" "$@" "$(readlink s)" >port 2>/dev/null 3>&- &
	server=$!
	for _ in $(seq 250); do
		[ ! -s port ] || break
		sleep 0.02
	done
	url=http://127.0.0.1:$(cat port)
	rm port
}

@test "ckm-fetch: over the old image, with a line that breaks, and after a run that was cut off" {
	use_series
	start_server --cut 30000
	cp s/v1.vhd out.vhd
	run -0 ckm-fetch -f --json -o out.vhd "$url/only.ckm"
	[ "$(field patches)" -gt 0 ]
	[ "$(field retries)" -gt 0 ]
	same_guest s/v2.vhd out.vhd
	kill "$server"
	start_server
	cp s/v1.vhd out.vhd
	timeout --foreground -s KILL 2 ckm-fetch -q -f --limit-rate 30000 -o out.vhd "$url/only.ckm" || true
	[ -d out.vhd.part ]
	cmp s/v1.vhd out.vhd
	run -0 ckm-fetch -f --json -o out.vhd "$url/only.ckm"
	same_guest s/v2.vhd out.vhd
	[ ! -e out.vhd.part ]
	kill "$server"
	# a base that is wrong or missing: told, and nothing touched
	start_server
	run -3 ckm-fetch -o new.vhd "$url/only.ckm"
	[[ $output == *"difference package"* ]]
	[ ! -e new.vhd ]
	cp s/v3.vhd wrong.vhd
	run -3 ckm-fetch -f -o wrong.vhd "$url/only.ckm"
	cmp s/v3.vhd wrong.vhd
}
