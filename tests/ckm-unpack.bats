#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# ckm-unpack: the image again, from a package, from seeds, and never half.

load helper

setup() {
	cd "$BATS_TEST_TMPDIR"
	export XDG_CACHE_HOME=$BATS_TEST_TMPDIR/xdg
}

# A package of a small synthetic image, shared by the tests: $gold and $pkg.
use_package() {
	gold=$(cached_image --size 96M)
	pkg=$(image_cache)/unpack-96M.ckm
	(
		flock 9
		[ -e "$pkg" ] || ckm-pack -q -1 -o "$pkg" "$gold"
	) 9>"$pkg.lock"
}

# series: an image, its update, and a host's folder with some of its files, in ./s; shared, not to be written to.
use_series() {
	local dir
	dir=$(image_cache)/unpack-series
	(
		flock 9
		[ -e "$dir/done" ] || {
			"$top/scripts/mkimage" -q --corpus synthetic --size 128M --series "$dir"
			ckm-pack -q -1 -o "$dir/v1.ckm" "$dir/v1.vhd"
			ckm-pack -q -1 --base "$dir/v1.ckm" --difference -o "$dir/v2d.ckm" "$dir/v2.vhd"
			ckm-pack -q -1 --base "$dir/v1.ckm" -o "$dir/v2.ckm" "$dir/v2.vhd"
			touch "$dir/done"
		}
	) 9>"$dir.lock"
	ln -s "$dir" s
}

# field NAME: of the JSON report in $output
field() {
	sed -n 's/^ *"'"$1"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' <<<"$output"
}

@test "the image comes back, in its own format, and keeps its identity" {
	use_package
	run -0 ckm-unpack -o out.vhd "$pkg"
	[[ $output == *"frames unpacked"* ]]
	same_guest "$gold" out.vhd
	sound_ntfs out.vhd
	# id, creator, time stamp and geometry stand in the footer up to the checksum, but for the data offset
	cmp <(tail -c 512 "$gold" | head -c 84) <(tail -c 512 out.vhd | head -c 84)
	skip_without vhdiinfo
	vhdiinfo out.vhd | grep -q Dynamic
}

@test "other formats hold the same disk" {
	use_package
	run -0 ckm-unpack --to raw -o out.raw "$pkg"
	same_guest "$gold" out.raw
	run -0 ckm-unpack --to fixed -o out.vhd "$pkg"
	[ "$(tail -c 452 out.vhd | head -c 4 | od -An -tu1 | tr -d ' ')" = 0002 ]
	same_guest "$gold" out.vhd
	run -0 ckm-unpack --to dynamic -o dyn.vhd "$pkg"
	same_guest "$gold" dyn.vhd
	run -2 ckm-unpack --to qcow2 -o x "$pkg"
}

@test "raw and fixed images come back as what they were" {
	new_image a.raw --size 64M --format raw
	ckm-pack -q -1 -o a.ckm a.raw
	ckm-unpack -q -o b.raw a.ckm
	cmp a.raw b.raw
	ckm-unpack -q --to dynamic -o b.vhd a.ckm
	same_guest a.raw b.vhd
	new_image a.vhd --size 64M --format fixed
	ckm-pack -q -1 -o a.ckm -f a.vhd
	ckm-unpack -q -f -o b.vhd a.ckm
	cmp a.vhd b.vhd
}

@test "the same bytes, however many threads" {
	use_package
	ckm-unpack -q -J1 -o a.vhd "$pkg"
	ckm-unpack -q -J3 -o b.vhd "$pkg"
	cmp a.vhd b.vhd
}

@test "standard output: a pipe, and a file of the shell's" {
	use_package
	ckm-unpack -q -o ref.vhd "$pkg"
	ckm-unpack -o - --tmpdir . "$pkg" 2>report | cmp - ref.vhd
	grep -q 'frames unpacked' report
	ckm-unpack -q -o - "$pkg" >b.vhd
	cmp b.vhd ref.vhd
	[ "$(du -k b.vhd | cut -f1)" -le "$(($(du -k ref.vhd | cut -f1) + 64))" ]
	ckm-unpack -q -o - "$pkg" | vhd-compact -q -o c.vhd
	same_guest "$gold" c.vhd
}

@test "nothing appears under a name that is taken, or not at all" {
	use_package
	echo mine >out.vhd
	run -3 ckm-unpack -o out.vhd "$pkg"
	[ "$(cat out.vhd)" = mine ]
	run -0 ckm-unpack -f -o out.vhd "$pkg"
	same_guest "$gold" out.vhd
	cp "$pkg" p.ckm
	run -2 ckm-unpack -f -o p.ckm p.ckm
	cmp p.ckm "$pkg"
	run -2 ckm-unpack -o x
	run -2 ckm-unpack "$pkg"
	run -2 ckm-unpack -o x "$pkg" "$pkg"
	run -3 ckm-unpack -o x "$gold"
	run -1 ckm-unpack -o no/such/folder "$pkg"
	[ ! -e x ]
	skip_without timeout
	run -1 ckm-unpack -o /dev/full "$pkg"
	[[ $output == *"/dev/full: cannot write"* ]]
}

@test "a damaged package is told of, and gives nothing" {
	use_package
	cp "$pkg" p.ckm
	printf '\377\0\377\0' | dd of=p.ckm bs=1 seek=100000 conv=notrunc status=none
	run -4 ckm-unpack -o x p.ckm
	[[ $output == *frame* ]]
	[ ! -e x ]
	head -c 1000000 "$pkg" >q.ckm
	run -4 ckm-unpack -o x q.ckm
	[[ $output == *"cut off"* ]]
	[ ! -e x ]
}

@test "a dry run tells where everything would come from" {
	use_series
	run -0 ckm-unpack -n --json --seed s/host --seed s/v1.vhd s/v2.ckm
	[ "$(field dry_run)" = true ]
	[ "$(field frames)" -gt 0 ]
	[ "$(field local_bytes)" -gt $((10 << 20)) ]
	[[ $output == *'"kind": "folder"'* && $output == *'"kind": "image"'* ]]
	run -0 ckm-unpack -n --seed s/v1.vhd s/v2.ckm
	[[ $output == *"frames to unpack"* ]]
}

@test "seeds: images, folders, local indexes, other packages" {
	use_series
	run -0 ckm-unpack --json --seed s/v1.vhd -o a.vhd s/v2.ckm
	same_guest s/v2.vhd a.vhd
	[ "$(field local_bytes)" -gt "$(field frame_bytes)" ]
	[ "$(field bad_chunks | head -n 1)" = 0 ]
	run -0 ckm-unpack --json --seed s/host -o b.vhd s/v2.ckm
	same_guest s/v2.vhd b.vhd
	[ "$(field found_bytes)" -gt 0 ]
	ckm-index -q -o local.index s/host s/v1.vhd
	run -0 ckm-unpack --json --seed local.index -o c.vhd s/v2.ckm
	same_guest s/v2.vhd c.vhd
	run -0 ckm-unpack --json --seed s/v1.ckm -o d.vhd s/v2.ckm
	same_guest s/v2.vhd d.vhd
	run -3 ckm-unpack --seed s/v1.ckm.index -o e.vhd s/v2.ckm
	[[ $output == *"has no data"* ]]
	run -1 ckm-unpack --seed s/nothing -o e.vhd s/v2.ckm
	[ ! -e e.vhd ]
	# an index alone is enough where seeds have all
	run -0 ckm-unpack --seed s/v1.vhd -o f.vhd s/v1.ckm.index
	same_guest s/v1.vhd f.vhd
}

@test "a difference package needs what it was made against, and says what is missing" {
	use_series
	run -3 ckm-unpack -o x.vhd s/v2d.ckm
	[[ $output == *"difference package"*"chunks"*"bytes"*"--seed"* ]]
	[[ $output == *"needed by /"* ]]
	run -3 ckm-unpack --seed s/host -o x.vhd s/v2d.ckm
	[ ! -e x.vhd ]
	run -0 ckm-unpack --seed s/v1.vhd -o x.vhd s/v2d.ckm
	same_guest s/v2.vhd x.vhd
	run -0 ckm-unpack --seed s/v1.ckm -o y.vhd s/v2d.ckm
	cmp x.vhd y.vhd
}

@test "seeds are believed only after hashing" {
	use_series
	cp s/v1.vhd old.vhd
	cp -r s/host host
	ckm-index -q -o local.index host old.vhd
	# behind the index's back, stamps put back: every page of the first 40 MB, and every file
	stamp=$(stat -c %y old.vhd)
	for i in $(seq 1000 97 9000); do
		printf 'changed' | dd of=old.vhd bs=4096 seek="$i" conv=notrunc status=none
	done
	touch -d "$stamp" old.vhd
	find host -type f -size +8k | head -n 20 | while read -r f; do
		printf 'changed' | dd of="$f" bs=1 seek=4000 conv=notrunc status=none
	done
	find host -type f -size -8k | head -n 5 | tr '\n' '\0' | xargs -0 rm -f
	run -0 ckm-unpack --json --seed local.index -o x.vhd s/v2.ckm
	[ "$(field bad_chunks | head -n 1)" -gt 0 ]
	same_guest s/v2.vhd x.vhd
	# a difference package cannot make up for it
	run -3 ckm-unpack --seed local.index -o y.vhd s/v2d.ckm
	[ ! -e y.vhd ]
}

@test "the indexes of seeds are kept, where one is told or XDG says" {
	use_series
	ckm-unpack -q --seed s/host -n s/v2.ckm
	[ -n "$(ls "$XDG_CACHE_HOME"/prep/*.index)" ]
	[ "$(stat -c %a "$XDG_CACHE_HOME/prep")" = 700 ]
	rm -r "$XDG_CACHE_HOME"
	ckm-unpack -q --no-cache --seed s/host -n s/v2.ckm
	[ ! -e "$XDG_CACHE_HOME" ]
	ckm-unpack -q --cache deep/er/cache --seed s/host -n s/v2.ckm
	[ -n "$(ls deep/er/cache/*.index)" ]
	[ ! -e "$XDG_CACHE_HOME" ]
	run -2 ckm-unpack --cache x --no-cache --seed s/host -n s/v2.ckm
	# a damaged one is no reason to fail
	for f in deep/er/cache/*.index; do echo x >>"$f"; done
	run -0 ckm-unpack --cache deep/er/cache --seed s/host -n s/v2.ckm
	[[ $output == *"made anew"* ]]
}

@test "a folder's links, pipes and devices are left alone" {
	use_series
	mkdir f
	cp -r s/host f/host
	ln -s / f/root
	ln -s ../f f/loop
	mkfifo f/pipe
	run -0 timeout $((60 * slower)) ckm-unpack --json -n --no-cache --seed f s/v2.ckm
	[ "$(field found_bytes)" -gt 0 ]
}

@test "folders as a ClientSettings.xml lists them" {
	use_series
	mkdir -p root/WINDOWS 'root/Program files'
	cp -r s/host root/WINDOWS/System32
	cat >cs.xml <<-'XML'
		<?xml version="1.0"?>
		<ClientSettings>
		<HostIndexingXP type="System.String[]"><ArrayOfString>
		<string>%WINDIR%</string><string>%ProgramFiles%\MED-V</string>
		</ArrayOfString></HostIndexingXP>
		</ClientSettings>
	XML
	run -0 ckm-unpack --json --client-settings cs.xml --root root -o x.vhd s/v2.ckm
	[[ $output == *'root/WINDOWS"'* ]]
	[ "$(field found_bytes)" -gt 0 ]
	same_guest s/v2.vhd x.vhd
	run -2 ckm-unpack --client-settings cs.xml -o y.vhd s/v2.ckm
}

@test "sealed and signed packages: the right key opens, any other does not" {
	use_package
	openssl genpkey -algorithm X25519 -out key.pem
	openssl pkey -in key.pem -pubout -out pub.pem
	openssl genpkey -algorithm X25519 -out other.pem
	openssl genpkey -algorithm ED25519 -out sign.pem
	openssl pkey -in sign.pem -pubout -out signpub.pem
	openssl genpkey -algorithm ED25519 | openssl pkey -pubout -out otherpub.pem
	echo secret >pass
	echo wrong >badpass
	ckm-pack -q -1 --recipient pub.pem --passphrase-file pass --sign sign.pem -o p.ckm "$gold"
	run -3 ckm-unpack -o x p.ckm
	run -3 ckm-unpack --key other.pem -o x p.ckm
	run -3 ckm-unpack --passphrase-file badpass -o x p.ckm
	run -3 ckm-unpack --key key.pem --verify-with otherpub.pem -o x p.ckm
	run -3 ckm-unpack --verify-with signpub.pem -o x "$pkg"
	[ ! -e x ]
	run -0 ckm-unpack --key key.pem --verify-with signpub.pem -o x p.ckm
	same_guest "$gold" x
	run -0 ckm-unpack --passphrase-file pass -o y p.ckm
	cmp x y
}

@test "no room is told before the work" {
	use_package
	[ -w /dev/shm ] || skip "no /dev/shm"
	ckm-unpack -q -n "$pkg"
	skip_without unshare
	unshare -rm true 2>/dev/null || skip "no name spaces here"
	unshare -rm sh -c "mkdir small && mount -t tmpfs -o size=1m none small &&
		$build/cmd/ckm-unpack -o small/x.vhd '$pkg'; echo \$? >status; ls small >left" 2>message || true
	[ "$(cat status)" = 1 ]
	grep -q 'not enough free space' message
	[ ! -s left ]
}
