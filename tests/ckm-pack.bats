#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# ckm-pack: packages that hold the image to the bit, are the same whatever the threads, and appear complete or not at all.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	shopt -s dotglob
}

# A number of a JSON report's top level.
number() {
	sed -n "s/^  \"$1\": \([0-9]*\),*$/\1/p" "$2"
}

# Keys, as openssl makes them.
make_keys() {
	skip_without openssl
	openssl genpkey -algorithm X25519 -out me.pem
	openssl pkey -in me.pem -pubout -out me.pub
	openssl genpkey -algorithm ed25519 -out sign.pem
	openssl pkey -in sign.pem -pubout -out sign.pub
}

# round_trip IMAGE [ckm-pack's options]: pack, verify, unpack, and the guest sees the same disk.
round_trip() {
	ckm-pack -q -f -o trip.ckm "${@:2}" "$1"
	ckm-verify -q trip.ckm
	cmp trip.ckm.index <(tail -c $(($(stat -c %s trip.ckm.index) + 48)) trip.ckm | head -c -48)
	ckm-unpack -q -f --to raw -o trip.raw trip.ckm
	same_guest "$1" trip.raw
}

@test "every codec and both kinds of table: what is packed is unpacked" {
	new_image a.vhd --size 96M
	for codec in xz zstd deflate store; do
		echo "$codec"
		round_trip a.vhd --codec "$codec" -1
	done
	new_image b.vhd --size 64M --style xp
	round_trip b.vhd -2
	new_image c.img --size 48M --table none --format raw
	round_trip c.img -1
}

@test "the VHD's identity and kind come back" {
	new_image a.vhd --size 64M
	ckm-pack -q -1 -o a.ckm a.vhd
	ckm-unpack -q -o back.vhd a.ckm
	same_guest a.vhd back.vhd
	# The footer's id, creator and time
	cmp <(tail -c 512 a.vhd | head -c 36 | tail -c 12) <(tail -c 512 back.vhd | head -c 36 | tail -c 12)
	cmp <(tail -c 512 a.vhd | tail -c +69 | head -c 16) <(tail -c 512 back.vhd | tail -c +69 | head -c 16)
}

# every_way IMAGE WANT: packed with each codec, sealed or not, by one thread and by two, it is unpacked to WANT, raw.
every_way() {
	local codec seal open jobs
	for codec in xz zstd deflate store; do
		for seal in '' '--recipient me.pub --sign sign.pem'; do
			open=${seal:+--key me.pem --verify-with sign.pub}
			for jobs in 1 2; do
				echo "$1: $codec $seal, $jobs threads"
				# shellcheck disable=SC2086 # options
				ckm-pack -q -f -2 --codec $codec $seal -J $jobs --name same -o way-$jobs.ckm "$1"
				# shellcheck disable=SC2086
				ckm-unpack -q -f $open -J $jobs --to raw -o way.raw way-$jobs.ckm
				cmp way.raw "$2"
			done
			[ -n "$seal" ] || cmp way-1.ckm way-2.ckm
		done
	done
}

@test "disks of Windows and qemu, with every codec, sealed or not" {
	make_keys
	for name in ntfs-parent.vhd ntfs-parent.vhdx ntfs-dynamic.vhd ntfs-fixed.vhd ntfs-fixed.vhdx ntfs-differential.vhd \
		ntfs-differential.vhdx ext2.vhd ext2.vhdx; do
		sample "$name"
		vhd-compact -q -f --to raw -o want.raw "$name"
		every_way "$name" want.raw
	done
	sample virtualpc-dynamic.vhd
	round_trip virtualpc-dynamic.vhd
	for name in image.vhd dirtylog.vhdx; do
		sample "$name"
		run ckm-pack -q -o never.ckm "$name"
		[ "$status" -eq 3 ] || [ "$status" -eq 4 ]
		[[ $output == *"$name: "* ]]
		[ ! -e never.ckm ]
		[ ! -e never.ckm.index ]
	done
}

@test "generated images, with every codec, sealed or not" {
	make_keys
	new_image a.vhd --size 64M
	to_raw a.vhd a.raw
	every_way a.vhd a.raw
	new_image b.vhd --size 48M --style xp --format fixed
	to_raw b.vhd b.raw
	every_way b.vhd b.raw
}

@test "the same bytes, whatever the number of threads" {
	new_image a.vhd --size 64M
	for level in 1 4; do
		ckm-pack -q -J 1 -$level --name same -o one-$level.ckm a.vhd
		ckm-pack -q -J 2 -$level --name same -o two-$level.ckm a.vhd
		ckm-pack -q -J 7 -$level --name same -o seven-$level.ckm - <a.vhd
		cmp one-$level.ckm two-$level.ckm
		cmp one-$level.ckm seven-$level.ckm
		cmp one-$level.ckm.index two-$level.ckm.index
	done
}

@test "a pipe on standard input" {
	new_image a.vhd --size 64M
	vhd-compact a.vhd | ckm-pack -q -1 --name piped -o a.ckm
	ckm-unpack -q -o back.vhd a.ckm
	same_guest a.vhd back.vhd
}

@test "the package's id is that of its index, and its body what zstd unpacks" {
	skip_without zstd sha256sum
	new_image a.vhd --size 48M
	ckm-pack -q -1 -o a.ckm a.vhd
	len=$(od -An -tu8 -j 56 -N 8 a.ckm.index | tr -d ' ')
	tail -c +97 a.ckm.index | head -c "$len" | zstd -dc >encoded
	[ "$(stat -c %s encoded)" -eq "$(od -An -tu8 -j 64 -N 8 a.ckm.index)" ]
	[ "$(sha256sum <encoded | cut -c1-32)" = "$(od -An -tx1 -j 24 -N 16 a.ckm.index | tr -d ' \n')" ]
	[ "$(head -c $((96 + len)) a.ckm.index | sha256sum | cut -c1-64)" = \
		"$(tail -c 32 a.ckm.index | od -An -tx1 | tr -d ' \n')" ]
}

@test "-n tells the same data as packing does, and writes nothing" {
	new_image a.vhd --size 64M
	ckm-pack -n -j a.vhd >dry
	ckm-pack -j -1 -o a.ckm a.vhd >wet
	for field in disk_size bytes unique streams chunks; do
		[ "$(number $field dry)" -gt 0 ]
		[ "$(number $field dry)" -eq "$(number $field wet)" ]
	done
	[ "$(number package_size dry)" -eq 0 ]
	[ "$(number package_size wet)" -eq "$(stat -c %s a.ckm)" ]
	[ "$(number index_size wet)" -eq "$(stat -c %s a.ckm.index)" ]
	ckm-pack -n -o never.ckm a.vhd
	[ ! -e never.ckm ]
}

@test "--trim is packing after vhd-zerofree" {
	new_image a.vhd --size 96M --deleted 60
	vhd-zerofree -q -o zeroed.vhd a.vhd
	ckm-pack -q -1 --name same -o zeroed.ckm zeroed.vhd
	ckm-pack -q -1 --name same --trim -o trimmed.ckm a.vhd
	ckm-unpack -q --to raw -o a.raw trimmed.ckm
	ckm-unpack -q --to raw -o b.raw zeroed.ckm
	cmp a.raw b.raw
	same_guest zeroed.vhd a.raw
	ckm-pack -q -1 --name same -o whole.ckm a.vhd
	[ "$(stat -c %s trimmed.ckm)" -lt "$(stat -c %s whole.ckm)" ]
}

@test "--trim refuses what vhd-zerofree refuses; without it the image is packed as it is" {
	new_image a.vhd --size 64M --hibernated
	run -3 ckm-pack -q --trim -1 -o a.ckm a.vhd
	[[ $output == *hibern* ]]
	[ ! -e a.ckm ]
	[ ! -e a.ckm.index ]
	round_trip a.vhd -1
}

@test "a file system that is damaged is packed to the bit all the same" {
	new_image a.img --size 48M --table none --format raw
	# a torn MFT record of a file; then a boot sector that leads nowhere
	mft=$(($(od -An -tu8 -j 48 -N 8 a.img) * $(od -An -tu1 -j 13 -N 1 a.img) * 512))
	record=$((mft + 1024 * 100))
	while [ "$(od -An -tu2 -j $((record + 22)) -N 2 a.img)" -ne 1 ]; do
		record=$((record + 1024))
	done
	printf 'XX' | dd of=a.img bs=1 seek=$((record + 510)) conv=notrunc status=none
	run -0 ckm-pack -f -1 -o a.ckm a.img
	[[ $output == *'without regard to'* ]]
	round_trip a.img -1
	printf '\377\377\377\377' | dd of=a.img bs=1 seek=48 conv=notrunc status=none
	run -0 ckm-pack -f -1 -o a.ckm a.img
	[[ $output == *'without regard to files'* ]]
	round_trip a.img -1
}

@test "files that share clusters, leave the volume or are free by the bitmap: packed to the bit, no byte twice" {
	skip_without ifind
	truncate -s 16M base.raw
	mkntfs -F -Q -q -T -L Disk base.raw 2>/dev/null
	"$populate" --stamp base.raw <<-'END'
		gen /one.dll pe 300000 1
		gen /two.txt text 500000 2
		gen /three noise 200000 3
		sparse /holes 3000000
		write /holes 1000000 text 100000 4
		write /holes 2300000 noise 150000 5
		gen /packed text 400000 6
		compress /packed
		logfile clean
	END
	round_trip base.raw -1
	two=$(attribute base.raw "$(record_of base.raw /two.txt)" 80)
	one=$(first_cluster base.raw "$(attribute base.raw "$(record_of base.raw /one.dll)" 80)")
	for damage in cross inside outside free; do
		cp base.raw x.raw
		case $damage in
		cross) poke_first_cluster x.raw "$two" "$one" ;;
		inside) poke_first_cluster x.raw "$two" $((one + 7)) ;;
		outside) poke_first_cluster x.raw "$two" 32767 ;;
		free) set_bitmap x.raw "$one" 0 ;;
		esac
		round_trip x.raw -1
		if [ $damage != outside ]; then
			run -4 ckm-pack -q -f -1 --trim -o trim.ckm x.raw
		fi
	done
}

@test "disks without a table, of odd sizes, empty, of noise" {
	truncate -s 10M zero.raw
	round_trip zero.raw
	head -c 1000000 /dev/urandom >noise.raw
	truncate -s 1000448 noise.raw
	round_trip noise.raw -9
	head -c 512 /dev/urandom >small.raw
	round_trip small.raw
}

@test "a sparse disk of 2 TiB packs at once" {
	truncate -s 2T big.raw || skip "no files of 2 TiB here"
	printf 'here' | dd of=big.raw bs=1 seek=1099511627776 conv=notrunc status=none
	printf 'end' | dd of=big.raw bs=1 seek=2199023255549 conv=notrunc status=none
	timeout $((20 * slower)) ckm-pack -q -o big.ckm big.raw
	[ "$(stat -c %s big.ckm)" -lt 4096 ]
	timeout $((20 * slower)) ckm-verify big.ckm
	timeout $((20 * slower)) ckm-unpack -q -o back.raw big.ckm
	[ "$(stat -c %s back.raw)" -eq "$(stat -c %s big.raw)" ]
	[ "$(du -k back.raw | cut -f1)" -lt 1024 ]
	[ "$(dd if=back.raw bs=1 skip=1099511627776 count=4 status=none)" = here ]
	[ "$(dd if=back.raw bs=1 skip=2199023255549 count=3 status=none)" = end ]
	# as large as a dynamic VHD can be
	truncate -s 2040G big.raw
	timeout $((20 * slower)) ckm-pack -q -f -o big.ckm big.raw
	timeout $((20 * slower)) ckm-unpack -q --to dynamic -o back.vhd big.ckm
	[ "$(guest_size back.vhd)" -eq $((2040 << 30)) ]
	timeout $((20 * slower)) ckm-pack -q -f -o big.ckm back.vhd
	timeout $((20 * slower)) ckm-unpack -q --to raw -o again.raw big.ckm
	[ "$(dd if=again.raw bs=1 skip=1099511627776 count=4 status=none)" = here ]
}

@test "--base: new data contiguous; --difference holds nothing else, and unpacks with the base as seed" {
	new_image a.vhd --size 96M
	ckm-pack -q -1 -o v1.ckm a.vhd
	to_raw a.vhd b.raw
	head -c 3000000 /dev/urandom | dd of=b.raw bs=1M seek=30 conv=notrunc status=none
	ckm-pack -q -1 -o v2.ckm --base v1.ckm.index b.raw
	ckm-pack -j -1 -o v2-difference.ckm --base v1.ckm --difference b.raw >report
	[ "$(number new report)" -ge 3000000 ]
	[ "$(number new report)" -lt 6000000 ]
	[ "$(stat -c %s v2-difference.ckm)" -lt 7000000 ]
	ckm-verify -q v2.ckm v2-difference.ckm
	ckm-unpack -q --to raw -o back.raw v2.ckm
	cmp b.raw back.raw
	ckm-unpack -q --to raw --seed a.vhd -o back2.raw v2-difference.ckm
	cmp b.raw back2.raw
	run ! ckm-unpack -q --to raw -o back3.raw v2-difference.ckm
	[ ! -e back3.raw ]
}

@test "sealed for keys and a passphrase, each of which opens it" {
	make_keys
	openssl genpkey -algorithm X25519 -out other.pem
	openssl pkey -in other.pem -pubout -out other.pub
	echo 'correct horse' >phrase
	new_image a.vhd --size 48M
	ckm-pack -q -1 --recipient me.pub --recipient other.pub --passphrase-file phrase --sign sign.pem -o a.ckm a.vhd
	for open in '--key me.pem' '--key other.pem' '--passphrase-file phrase'; do
		# shellcheck disable=SC2086 # two words
		ckm-verify -q $open --verify-with sign.pub a.ckm
	done
	ckm-unpack -q --key me.pem --to raw -o back.raw a.ckm
	same_guest a.vhd back.raw
	# Nothing of the image shows: no path, no digest.
	run ! grep -aq 'Windows' a.ckm.index
	# Another key each time
	ckm-pack -q -1 --recipient me.pub -o b.ckm a.vhd
	ckm-pack -q -1 --recipient me.pub -o c.ckm a.vhd
	run ! cmp -s b.ckm c.ckm
	# A sealed base
	run -3 ckm-pack -n --base b.ckm.index a.vhd
	[[ $output == *sealed* ]]
	ckm-pack -j -n --base b.ckm.index --base-key me.pem a.vhd >report
	[ "$(number new report)" -eq 0 ]
}

@test "an encrypted private key asks for its passphrase on a terminal; --passphrase-file - too, twice" {
	make_keys
	skip_without script
	openssl pkey -in me.pem -aes256 -passout pass:inner -out locked.pem
	head -c 100000 /dev/urandom >a.raw
	truncate -s 100352 a.raw
	ckm-pack -q --recipient me.pub -o a.ckm a.raw
	# once, whatever it is to open
	cp a.ckm a2.ckm
	{ sleep 1; echo inner; } | timeout 20 script -qec 'ckm-verify --key locked.pem a.ckm a2.ckm' /dev/null >out
	[ "$(grep -c 'sound' out)" = 2 ]
	[ "$(grep -o 'Passphrase of the key locked.pem' out | wc -l)" = 1 ]
	{ sleep 1; echo other; } | script -qec 'ckm-verify --key locked.pem a.ckm' /dev/null >out || true
	grep -q 'locked.pem: the passphrase is wrong' out
	# an interruption is one, not a wrong answer that is asked for again
	{ sleep 1; printf '\003'; sleep 1; } | timeout 20 script -qec 'ckm-verify --key locked.pem a.ckm' /dev/null >out || true
	grep -q 'interrupted' out
	{ sleep 1; echo typed; sleep 1; echo typed; } | script -qec 'ckm-pack -q --passphrase-file - -o b.ckm a.raw' /dev/null >out
	run ! grep -q typed out
	echo typed >phrase
	ckm-verify -q --passphrase-file phrase b.ckm
	{ sleep 1; echo one; sleep 1; echo two; } | script -qec 'ckm-pack -q --passphrase-file - -o c.ckm a.raw' /dev/null >out || true
	grep -q 'differ' out
	[ ! -e c.ckm ]
}

@test "without a terminal nobody is asked: standard input is not read for a passphrase" {
	make_keys
	skip_without setsid
	openssl pkey -in sign.pem -aes256 -passout pass:inner -out locked.pem
	{ echo inner; head -c 100346 /dev/urandom; } >a.raw
	run -1 setsid -w ckm-pack -q -1 --sign locked.pem -o a.ckm - <a.raw
	[[ $output == *'locked.pem: no terminal to ask'* ]]
	[ ! -e a.ckm ]
}

@test "keys and passphrases that come by a pipe open all that they fit" {
	make_keys
	head -c 100352 /dev/urandom >a.raw
	echo typed >phrase
	ckm-pack -q -1 --recipient me.pub --passphrase-file phrase --sign sign.pem -o a.ckm a.raw
	cp a.ckm b.ckm
	ckm-verify --key <(cat me.pem) --verify-with <(cat sign.pub) a.ckm b.ckm
	ckm-verify --passphrase-file <(cat phrase) a.ckm b.ckm
	ckm-unpack -q --seed a.ckm --passphrase-file <(cat phrase) -o b.raw b.ckm
	cmp a.raw b.raw
	ckm-pack -q -1 --base a.ckm.index --base b.ckm --base-passphrase-file <(cat phrase) -o c.ckm a.raw
}

@test "while a content key is in memory no core can be dumped" {
	make_keys
	[ -r /proc/self/limits ] || skip "no /proc"
	mkfifo pipe
	(ulimit -c unlimited 2>/dev/null; exec ckm-pack -q --recipient me.pub -o a.ckm - <pipe) &
	exec 7>pipe
	for _ in {1..100}; do
		grep -q '^Max core file size *0 *0 ' "/proc/$!/limits" && break
		sleep 0.1
	done
	grep '^Max core file size *0 *0 ' "/proc/$!/limits"
	exec 7>&-
	run ! wait $!
	[ ! -e a.ckm ]
}

@test "a signature that openssl verifies" {
	make_keys
	new_image a.vhd --size 48M
	ckm-pack -q -1 --sign sign.pem -o a.ckm a.vhd
	head -c -64 a.ckm.index >signed
	tail -c 64 a.ckm.index >signature
	openssl pkeyutl -verify -pubin -inkey sign.pub -rawin -in signed -sigfile signature
}

@test "keys of the wrong kind are refused before anything is written" {
	make_keys
	head -c 100352 /dev/urandom >a.raw
	run -3 ckm-pack -q --recipient sign.pub -o a.ckm a.raw
	[[ $output == *'sign.pub: a key of type ED25519 where X25519 is needed'* ]]
	run -3 ckm-pack -q --sign me.pem -o a.ckm a.raw
	run -3 ckm-pack -q --sign me.pub -o a.ckm a.raw
	run -3 ckm-pack -q --recipient me.pem -o a.ckm a.raw
	[[ $output == *'me.pem: not a public key in PEM, but a private one'* ]]
	run -3 ckm-pack -q --sign sign.pub -o a.ckm a.raw
	[[ $output == *'sign.pub: not a private key in PEM, but a public one'* ]]
	run -1 ckm-pack -q --sign . -o a.ckm a.raw
	[[ $output == *'Is a directory'* ]]
	run -1 ckm-pack -q --recipient nowhere.pub -o a.ckm a.raw
	: >empty
	run -3 ckm-pack -q --passphrase-file empty -o a.ckm a.raw
	[ ! -e a.ckm ]
	[ ! -e a.ckm.index ]
}

@test "names follow the original's rule" {
	head -c 100352 /dev/urandom >'My Image: 1.raw'
	for bad in 'a b' 'a"b' 'a<b' 'a>b' 'a|b' 'a\b' 'a/b' 'a:b' 'a*b' 'a?b' ''; do
		run -2 ckm-pack -n --name "$bad" 'My Image: 1.raw'
	done
	ckm-pack -n -j 'My Image: 1.raw' | grep -q '"name": "My_Image__1"'
	ckm-pack -n -j --name 'Größe-1.0' --image-version 2 'My Image: 1.raw' | grep -q '"name": "Größe-1.0"'
	run -2 ckm-pack -n --comment $'\033[2J' 'My Image: 1.raw'
	run -2 ckm-pack -n --comment $'caf\xe9' 'My Image: 1.raw'
	cp 'My Image: 1.raw' $'caf\xe9.raw'
	ckm-pack -j -o $'caf\xe9.ckm' $'caf\xe9.raw' | grep -q '"name": "caf_"'
	ckm-index -j --list $'caf\xe9.ckm' >list
	grep -q '"name": "caf_"' list
	run -2 ckm-pack -n --image-version "$(printf 'x%.0s' {1..64})" 'My Image: 1.raw'
}

@test "what exists is not overwritten without -f, and a failure leaves it as it was" {
	head -c 1000448 /dev/urandom >a.raw
	echo old >a.ckm
	run -3 ckm-pack -q -o a.ckm a.raw
	[ "$(cat a.ckm)" = old ]
	mv a.ckm a.ckm.index
	run -3 ckm-pack -q -o a.ckm a.raw
	[ ! -e a.ckm ]
	[ "$(cat a.ckm.index)" = old ]
	echo old >a.ckm
	printf 'not a disk' >bad.vhdx
	run ! ckm-pack -q -f -o a.ckm nowhere.raw
	[ "$(cat a.ckm)" = old ]
	[ "$(cat a.ckm.index)" = old ]
	files=(*)
	[ "${#files[@]}" -eq 4 ]
	ckm-pack -q -f -o a.ckm a.raw
	ckm-verify -q a.ckm
	files=(*)
	[ "${#files[@]}" -eq 4 ]
}

@test "an image, or what a difference leaves out, is not overwritten by the package of it" {
	head -c 1000448 /dev/urandom >a.raw
	ckm-pack -q -1 -o a.ckm a.raw
	sha256sum a.* >sums
	# there is no -i that would be the way
	run -2 ckm-pack -q -f -o a.raw a.raw
	[[ $output == *'same file' ]]
	ln -s a.ckm link
	for base in '--base a.ckm' '--base a.ckm.index' '--base-image a.ckm' '--base-image link --patches only'; do
		# shellcheck disable=SC2086
		run -2 ckm-pack -q -1 -f --difference $base -o a.ckm a.raw
		[[ $output == *'would be overwritten'* ]]
	done
	run -2 ckm-pack -q -1 -f --difference --base-image a.raw -o a.raw - <a.ckm
	sha256sum -c sums
	# all of it is in the new one
	ckm-pack -q -1 -f --base a.ckm -o a.ckm a.raw
	ckm-unpack -q -o b.raw a.ckm
	cmp a.raw b.raw
}

@test "a package and its index are a pair, through links too; a pipe is no place for them" {
	head -c 1000448 /dev/urandom >a.raw
	mkdir there
	ckm-pack -q -0 -o there/a.ckm a.raw
	ln -s there/a.ckm link.ckm
	sha256sum there/* >sums
	head -c 500224 a.raw >b.raw
	run -3 ckm-pack -q -0 -f -o link.ckm b.raw
	[[ $output == *"link.ckm: a symbolic link to $(realpath there)/a.ckm: name that"* ]]
	sha256sum -c sums
	[ ! -e link.ckm.index ]
	ln -s there/a.ckm.index link.ckm.index
	ckm-pack -q -0 -f -o link.ckm b.raw
	[ -L link.ckm ] && [ -L link.ckm.index ]
	ckm-verify -q link.ckm there/a.ckm
	# nobody reads it: it is not waited for
	mkfifo pipe.ckm
	run -2 timeout 10 ckm-pack -q -0 -f -o pipe.ckm a.raw
	[[ $output == *'goes to a regular file'* ]]
}

@test "no room: status 1, nothing left" {
	[ -w /dev/full ] || skip "no /dev/full"
	head -c 8000512 /dev/urandom >a.raw
	run -1 bash -c 'ulimit -f 2000; trap "" XFSZ; ckm-pack -q --codec store -o a.ckm a.raw'
	[ "$(ls -A)" = a.raw ]
}

@test "what is sure not to fit is told before it is packed" {
	skip_without unshare
	unshare -rm true 2>/dev/null || skip "no name spaces here"
	head -c 8000512 /dev/urandom >a.raw
	unshare -rm sh -c "mkdir small && mount -t tmpfs -o size=1m none small &&
		$build/cmd/ckm-pack --codec store -o small/a.ckm a.raw; echo \$? >status; ls small >left" 2>message || true
	[ "$(cat status)" = 1 ]
	grep -q 'not enough free space' message
	[ ! -s left ]
}

@test "wrong usage" {
	truncate -s 1M a.raw
	run -2 ckm-pack a.raw
	run -2 ckm-pack -o - a.raw
	run -2 ckm-pack -o a.ckm a.raw b.raw
	run -2 ckm-pack -o a.ckm --codec lzma a.raw
	run -2 ckm-pack -o a.ckm --difference a.raw
	run -2 ckm-pack -o a.ckm --base-key x a.raw
	run -2 ckm-pack -o a.ckm -J 0 a.raw
	run -2 ckm-pack -f -o a.raw a.raw
	[ "$(ls -A)" = a.raw ]
}

@test "an older image, a base and a parent are inputs: never overwritten" {
	head -c 300K /dev/urandom >old.raw
	cp old.raw new.raw
	sum=$(sha256sum <old.raw)
	for dry in '' -n; do
		# shellcheck disable=SC2086 # nothing, or an option
		run -2 ckm-pack $dry -f -1 --base-image old.raw -o old.raw new.raw
		[[ $output == *'old.raw: would be overwritten'* ]]
		[ "$(sha256sum <old.raw)" = "$sum" ]
	done
	ckm-pack -q -1 -o old.ckm old.raw
	run -2 ckm-pack -n -f -1 --difference --base old.ckm -o old.ckm new.raw
	vhd-compact -q -o parent.vhd old.raw
	vhd-undo create -q parent.vhd child.vhd
	chmod u+w parent.vhd
	rm parent.vhd.prep-undo
	sum=$(sha256sum <parent.vhd)
	run -2 vhd-compact -f -o parent.vhd child.vhd
	[[ $output == *'is nothing without its parent'* ]]
	run -2 ckm-pack -f -1 -o parent.vhd child.vhd
	[ "$(sha256sum <parent.vhd)" = "$sum" ]
	openssl genpkey -algorithm ed25519 -out sign.pem 2>/dev/null
	sum=$(sha256sum <sign.pem)
	run -2 ckm-pack -f -1 --sign sign.pem -o sign.pem new.raw
	[ "$(sha256sum <sign.pem)" = "$sum" ]
}
