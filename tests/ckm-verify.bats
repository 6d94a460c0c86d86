#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# ckm-verify: sound packages pass, damaged ones never, and the frame and the files that are hit are named.

load helper

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# flip FILE OFFSET: change one bit of that byte.
flip() {
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1")
	# shellcheck disable=SC2059 # the format is the byte
	printf "\\$(printf %o $((byte ^ 1 << $2 % 8)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

small_package() {
	head -c 301056 /dev/urandom >a.raw
	yes 'all work and no play' | head -c 300032 >>a.raw
	ckm-pack -q -1 --name small -o a.ckm a.raw
	size=$(stat -c %s a.ckm)
	index=$(stat -c %s a.ckm.index)
}

@test "sound packages: status 0, a line for each" {
	small_package
	cp a.ckm b.ckm
	run -0 --separate-stderr ckm-verify a.ckm b.ckm
	[ "${#lines[@]}" -eq 2 ]
	[[ ${lines[0]} == 'a.ckm: sound: '* ]]
	[ -z "$stderr" ]
	run -0 --separate-stderr ckm-verify -q a.ckm
	[ -z "$output" ]
	run -0 ckm-verify --quick a.ckm a.ckm.index
}

@test "every byte of lead, index section and trailer: a flipped bit is found" {
	small_package
	for at in $(seq 0 63) $(seq $((size - index - 48)) $((size - 1))); do
		cp a.ckm b.ckm
		flip b.ckm "$at"
		run ckm-verify -q --quick b.ckm
		[ "$status" -eq 3 ] || [ "$status" -eq 4 ] || { echo "byte $at of $size: $output"; false; }
		case $output in *b.ckm:*) ;; *) echo "byte $at: $output"; false ;; esac
	done
}

@test "a sample of the frames: a flipped bit is found, and the frame named" {
	small_package
	for at in $(seq 64 7001 $((size - index - 49))); do
		cp a.ckm b.ckm
		flip b.ckm "$at"
		run -0 ckm-verify -q --quick b.ckm
		run -4 ckm-verify -q b.ckm
		[[ $output == *'frame '*' is damaged'* ]]
	done
}

@test "cut off at every section, or longer than it should be" {
	small_package
	for n in 0 1 8 63 64 65 1000 $((size - index - 49)) $((size - index - 48)) $((size - index)) $((size - 49)) $((size - 48)) $((size - 1)); do
		head -c "$n" a.ckm >b.ckm
		run ckm-verify -q b.ckm
		[ "$status" -eq 3 ] || [ "$status" -eq 4 ] || { echo "$n of $size bytes: $output"; false; }
	done
	cat a.ckm a.raw >b.ckm
	run -4 ckm-verify -q b.ckm
	[[ $output == *'too long'* ]]
	for n in 0 95 96 200 $((index - 1)); do
		head -c "$n" a.ckm.index >b.ckm.index
		run ckm-verify -q --quick b.ckm.index
		[ "$status" -eq 3 ] || [ "$status" -eq 4 ] || { echo "$n of $index bytes: $output"; false; }
	done
}

@test "a short file of another kind is no package, rather than one that is cut off" {
	echo 'some short text' >text
	run -3 ckm-verify text
	[[ $output == *'text: not a CKM package' ]]
	run -3 ckm-index --list text
	[[ $output == *'text: not a CKM package' ]]
}

@test "the files that damage hits are listed" {
	new_image a.vhd --size 48M
	ckm-pack -q -1 -o a.ckm a.vhd
	flip a.ckm 5000
	run -4 ckm-verify -v a.ckm
	[[ $output == *'a.ckm: frame 0 is damaged: its digest differs'* ]]
	[[ $output == *'a.ckm: damage hits /'* ]]
	run -4 --separate-stderr ckm-verify -j a.ckm
	[[ $output == *'"sound": false'* ]]
	[[ $output == *'"frame": 0'* ]]
	[[ $output == *'"hit": ['*'"/'* ]]
}

@test "parts of another package are not of this one" {
	small_package
	# a name of the same length, so that the sizes agree
	ckm-pack -q -1 --name smalk -o b.ckm a.raw
	[ "$(stat -c %s b.ckm)" -eq "$size" ] || skip "the two do not have the same size"
	# the other's index section; its trailer; its lead
	{ head -c $((size - index - 48)) a.ckm; tail -c $((index + 48)) b.ckm | head -c "$index"; tail -c 48 a.ckm; } >c.ckm
	run -4 ckm-verify -q c.ckm
	[[ $output == *'not of this package'* ]]
	{ head -c -48 a.ckm; tail -c 48 b.ckm; } >c.ckm
	run -4 ckm-verify -q c.ckm
	[[ $output == *'lead and trailer'* ]]
	{ head -c 64 b.ckm; tail -c +65 a.ckm; } >c.ckm
	run -4 ckm-verify -q c.ckm
	# an index beside it that is another's
	cp a.ckm d.ckm
	cp b.ckm.index d.ckm.index
	run -4 ckm-verify -q --quick d.ckm
	[[ $output == *'d.ckm.index: not the index of d.ckm'* ]]
	# one that cannot be read is not passed over
	rm d.ckm.index
	ln -s d.ckm.index d.ckm.index
	run -1 ckm-verify -q --quick d.ckm
	[[ $output == *'d.ckm.index: cannot open'* ]]
}

@test "every package is looked at, the first that is wrong gives the status" {
	small_package
	cp a.ckm b.ckm
	flip b.ckm 100
	run -4 ckm-verify b.ckm a.ckm nowhere.ckm
	[[ $output == *'a.ckm: sound'* ]]
	[[ $output == *'nowhere.ckm: cannot open'* ]]
	# nor does one that cannot be read end it
	run -1 ckm-verify nowhere.ckm b.ckm a.ckm
	[[ $output == *'a.ckm: sound'* ]]
	run -1 --separate-stderr ckm-verify --json nowhere.ckm a.ckm
	[ "$(jq -c '[.packages[].sound]' <<<"$output")" = '[false,true]' ]
	run -3 ckm-verify a.raw b.ckm
	[[ $output == *'a.raw: not a CKM package'* ]]
	[[ $output == *'b.ckm: '* ]]
	run -2 ckm-verify
}

@test "keys and signatures: wrong or missing ones are named" {
	skip_without openssl
	for key in me other; do
		openssl genpkey -algorithm X25519 -out $key.pem
		openssl pkey -in $key.pem -pubout -out $key.pub
		openssl genpkey -algorithm ed25519 -out sign-$key.pem
		openssl pkey -in sign-$key.pem -pubout -out sign-$key.pub
	done
	small_package
	echo right >right
	echo wrong >wrong
	ckm-pack -q -f -1 --recipient me.pub --passphrase-file right --sign sign-me.pem -o s.ckm a.raw
	run -3 ckm-verify -q s.ckm
	[[ $output == *'s.ckm: sealed: '* ]]
	run -3 ckm-verify -q --key other.pem s.ckm
	[[ $output == *'the key in other.pem opens none of its 2 key slots'* ]]
	run -3 ckm-verify -q --passphrase-file wrong s.ckm
	[[ $output == *'the passphrase from wrong does not open it'* ]]
	run -0 ckm-verify --key me.pem --verify-with sign-me.pub s.ckm
	[[ $output == *'sealed, signature good'* ]]
	run -0 ckm-verify -q --key other.pem --passphrase-file right s.ckm
	run -3 ckm-verify -q --key me.pem --verify-with sign-other.pub s.ckm
	[[ $output == *'signed, but not by the key in sign-other.pub'* ]]
	run -3 ckm-verify -q --verify-with sign-me.pub a.ckm
	[[ $output == *'not signed'* ]]
	# without a key: structure and signature
	run -0 ckm-verify --quick --verify-with sign-me.pub s.ckm s.ckm.index
	for at in 30 150 300 $(($(stat -c %s s.ckm.index) - 100)) $(($(stat -c %s s.ckm.index) - 1)); do
		cp s.ckm.index t.index
		flip t.index "$at"
		run ckm-verify -q --quick t.index
		[ "$status" -eq 3 ] || [ "$status" -eq 4 ]
	done
}

@test "a frame of a sealed package put into another, sealed for the same people" {
	skip_without openssl
	openssl genpkey -algorithm X25519 -out me.pem
	openssl pkey -in me.pem -pubout -out me.pub
	small_package
	ckm-pack -q -1 --codec store --name x --recipient me.pub -o s.ckm a.raw
	ckm-pack -q -1 --codec store --name x --recipient me.pub -o t.ckm a.raw
	[ "$(stat -c %s s.ckm)" -eq "$(stat -c %s t.ckm)" ]
	dd if=s.ckm of=t.ckm bs=1 skip=64 seek=64 count=300000 conv=notrunc status=none
	run -4 ckm-verify -q --key me.pem t.ckm
	[[ $output == *'t.ckm: frame 0 is damaged'* ]]
}

@test "-J changes nothing but the time" {
	new_image a.vhd --size 64M
	ckm-pack -q -1 -o a.ckm a.vhd
	for jobs in 1 2 9; do
		ckm-verify -J $jobs -j a.ckm >out-$jobs
		cmp out-1 out-$jobs
	done
	run -2 ckm-verify -J 0 a.ckm
}
