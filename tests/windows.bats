#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# What Windows makes of files, through every command: letters of both cases, 8.3 names, junctions and other reparse points,
# system compression, alternate streams, the change journal, hard links, sparse and compressed files. libntfs-3g reads every
# byte of every stream before and after, and sleuthkit, ntfsresize and ntfsclone judge the volume.

load helper
load poke

setup() {
	skip_without mkntfs jq fls
	cd "$BATS_TEST_TMPDIR" || return
	make_volume
}

# base.raw: a volume with all of it, free clusters that hold noise, and files in pieces.
make_volume() {
	local cache
	cache=$(image_cache)/windows.raw
	(
		flock 9
		[ ! -e "$cache" ] || exit 0
		truncate -s 48M "$cache.new"
		head -c 12M /dev/urandom | dd of="$cache.new" bs=1M seek=20 conv=notrunc status=none
		mkntfs -F -Q -q -T "$cache.new" 2>/dev/null
		"$populate" --stamp "$cache.new" <<-'END' || exit
			gen /Windows/System32/KERNEL32.DLL pe 300000 1
			gen /Windows/System32/ntdll.dll pe 200000 2
			gen "/Program Files/Common Files/A Long Name.with.dots.config" text 5000 3
			short "/Program Files" PROGRA~1
			short "/Program Files/Common Files" COMMON~1
			short "/Program Files/Common Files/A Long Name.with.dots.config" ALONGN~1.CON
			gen /cases/readme.txt text 3000 4
			gen /cases/README.TXT text 9000 5
			gen /cases/Readme.Txt text 70000 6
			gen "/Größe/ÄÖÜ ßÿ Ωλ Жш.txt" text 6000 7
			gen "/Größe/日本語のファイル.dat" noise 6000 8
			mkdir /Users/Default
			gen /Users/Default/ntuser.dat hive 262144 9
			junction "/Documents and Settings" C:\Users
			junction /Users/loop C:\
			symlink /Users/symlink ..\download.exe
			reparse /Users/app.exe 8000001b noise 120 11
			reparse /Users/cloud 9000001a noise 40 12
			wof /Windows/System32/wof.exe pe 400000 13
			wof /Windows/System32/small.dll text 300 14
			wof /Windows/System32/linked.exe pe 90000 15
			link /Windows/WinSxS/linked.exe /Windows/System32/linked.exe
			gen /download.exe pe 50000 16
			gen /download.exe:Zone.Identifier text 26 17
			gen "/download.exe:a large stream" noise 400000 18
			gen "/Users:a folder's stream" noise 20000 19
			mkdir /compressed
			compress /compressed/log
			gen /compressed/log log 500000 20
			sparse /sparse 4M
			write /sparse 1M noise 30000 21
			write /sparse 3M text 100 22
			fragment /pieces 300 noise 23
			attrib /pieces rhs
			usnjrnl 256K 24
			gen /gone noise 3M 25
			rm /gone
			logfile clean
		END
		mv "$cache.new" "$cache"
	) 9>"$cache.lock" || return
	cp --sparse=always "$cache" base.raw
	digest base.raw >base.digest
	[ "$(grep -c 'WofCompressedData$\|Zone.Identifier$\|UsnJrnl:\$J$\|/Documents and Settings:\$REPARSE_POINT$' base.digest)" -eq 7 ]
}

# whole IMAGE [PATTERN]: that IMAGE is sound and every stream as in base.raw, but for what matches PATTERN and is gone
whole() {
	vhd-info --check -q "$1" >info || { cat info; return 1; }
	sound_ntfs "$1"
	grep -v "${2:-^nothing}" base.digest >want
	digest "$1" | diff want -
}

@test "looked at: sound, and every name once" {
	vhd-info --check --json base.raw >json
	[ "$(jq '.volumes[0].check | [.sound, .dangling_entries, .wrong_link_counts, .used_unclaimed_clusters] | @csv' -r json)" = 'true,0,0,0' ]
	# all files but the volume's own, as sleuthkit finds them
	fls -r -p base.raw | sed -n 's,^[rd]/[rd] [^\t]*\t\([^$:]*\)$,/\1,p' | sort -u >theirs
	vhd-rmfile --list -v --json -r --ignore-missing base.raw '/[*' '/w*' '/p*' '/c*' '/g*' '/u*' '/d*' '/s*' |
		jq -r '.entries[].path' >ours
	[ -z "$(sort ours | uniq -d)" ]
	sort ours | diff theirs -
	# what removing all files would free: every cluster that they claim
	[ "$(wc -l <ours)" -ge 30 ]
}

@test "zeroed, compacted, moved: every stream is as it was" {
	vhd-zerofree -q -o x.raw base.raw
	whole x.raw
	blkls -A x.raw | cmp -n "$(blkls -A x.raw | wc -c)" - /dev/zero
	[ "$(blkls -A base.raw | tr -d '\0' | wc -c)" -gt 1000000 ]
	vhd-compact -q -o x.vhd x.raw
	whole x.vhd
	same_guest x.vhd x.raw
	for goal in blocks files; do
		vhd-defrag -q --goal $goal --block-size 512K -o y.raw base.raw
		whole y.raw
		vhd-defrag -q --goal $goal --block-size 512K y.raw | cmp - y.raw || [ $goal = files ]
		vhd-zerofree -q -i --log y.raw
		whole y.raw
		rm y.raw
	done
}

@test "packed and unpacked, from nothing and from itself: the same bytes" {
	ckm-pack -q -o x.ckm base.raw
	ckm-verify -q x.ckm
	ckm-unpack -q --no-cache --to raw -o y.raw x.ckm
	cmp y.raw base.raw
	rm y.raw
	ckm-unpack -q --no-cache --seed base.raw --to raw -o y.raw x.ckm
	cmp y.raw base.raw
	# streams are files of the package: by name
	ckm-index --list x.ckm >list
	for name in '/download.exe:a large stream' '/Windows/System32/wof.exe:WofCompressedData' '/Größe/日本語のファイル.dat' \
		'/cases/readme.txt' '/cases/README.TXT' "/Users:a folder's stream"; do
		grep -qF -- "$name" list
	done
	ckm-pack -q --trim -o z.ckm base.raw
	ckm-unpack -q --no-cache --to raw -o z.raw z.ckm
	whole z.raw
}

@test "names: letters of either case, 8.3 names, and what differs in case alone" {
	vhd-rmfile -q base.raw /WINDOWS/system32/Ntdll.DLL >x.raw
	whole x.raw '/ntdll\.dll$'
	# by 8.3 names, of folders as well; both names of the file go
	vhd-rmfile -q base.raw '\progra~1\COMMON~1\alongn~1.con' >x.raw
	whole x.raw '/A Long Name'
	folder=$(fls -p -r base.raw | sed -n 's,^d/d \([0-9]*\)-.*\tProgram Files/Common Files$,\1,p')
	icat base.raw "$folder-144" | grep -aq 'A.L.O.N.G.N.~.1'
	run ! grep -aq 'A.L.O.N.G.N.~.1' <(icat x.raw "$folder-144")
	vhd-rmfile -q -f base.raw '/GRÖSSE/x' --ignore-missing -o x.raw
	whole x.raw
	vhd-rmfile -q -f base.raw '/GRÖßE/äöü ßÿ ωΛ жШ.TXT' -o x.raw
	whole x.raw '/ÄÖÜ'
	vhd-rmfile -q -f base.raw '/größe/日本語*' -o x.raw
	whole x.raw '/日本語'
	# as Windows would open any of them, all of them are meant: listed by their own names, and removed
	[ "$(vhd-rmfile --list -v --json base.raw /CASES/readme.TXT | jq -r '.entries[].path' | sort | tr '\n' ' ')" = \
		'/cases/README.TXT /cases/Readme.Txt /cases/readme.txt ' ]
	vhd-rmfile -q -f base.raw /cases/README.TXT -o x.raw
	whole x.raw '/cases/[rR][eE]'
}

@test "junctions and other reparse points are removed themselves, never followed" {
	run -1 vhd-rmfile -n base.raw '/Documents and Settings/Default/ntuser.dat'
	run -1 vhd-rmfile -n base.raw /Users/loop/Windows/System32/ntdll.dll
	run -1 vhd-rmfile -n base.raw '/Users/loop/*'
	vhd-rmfile -q -r base.raw '/Documents and Settings' /Users/loop >x.raw
	whole x.raw '/Documents and Settings\|/Users/loop'
	vhd-rmfile -q -i x.raw /Users/symlink /users/APP.exe /Users/cloud
	whole x.raw '/Documents and Settings\|/Users/\(loop\|symlink\|app.exe\|cloud\)'
	# the index of reparse points knows them no more
	for image in base.raw:5 x.raw:0; do
		want=${image#*:} image=${image%:*}
		icat "$image" "$(fls -p -r "$image" | sed -n 's,^r/r \([0-9]*-144[^:]*\):\t\$Extend/\$Reparse:\$R$,\1,p')" >index
		od -An -v -tx4 -w4 index | grep -c 'a0000003\|a000000c\|8000001b\|9000001a' >n || true
		[ "$(cat n)" -eq "$want" ]
	done
}

@test "a file of system compression goes with its stream; one with two names stays with the other" {
	[ "$(vhd-rmfile -n --json base.raw /Windows/System32/wof.exe | jq .freed)" = $(((400000 + 97 * 4 + 4095) / 4096 * 4096)) ]
	vhd-rmfile -q base.raw /windows/system32/wof.exe /Windows/System32/small.dll >x.raw
	whole x.raw '/\(wof.exe\|small.dll\)'
	[ "$(vhd-rmfile -n --json x.raw /Windows/System32/linked.exe | jq .freed)" = 0 ]
	vhd-rmfile -q -i x.raw /Windows/System32/linked.exe
	whole x.raw '/\(wof.exe\|small.dll\)\|System32/linked.exe'
	[ "$(vhd-rmfile -n --json x.raw /Windows/WinSxS/linked.exe | jq .freed)" = $(((90000 + 21 * 4 + 4095) / 4096 * 4096)) ]
}

@test "streams: of a file and of a folder, they go with it" {
	[ "$(vhd-rmfile -n --json base.raw /download.exe | jq .freed)" = $(((50000 + 4095) / 4096 * 4096 + (400000 + 4095) / 4096 * 4096)) ]
	run -1 --separate-stderr vhd-rmfile -n base.raw /download.exe:Zone.Identifier
	[[ $stderr == *'/download.exe:Zone.Identifier'* ]]
	vhd-rmfile -q -r base.raw /download.exe /Users >x.raw
	whole x.raw '/download.exe\| /Users\|/Users/'
	vhd-zerofree -q -i x.raw
	run ! grep -aq 'ZoneTransfer' <(blkls -A x.raw)
	whole x.raw '/download.exe\| /Users\|/Users/'
}

@test "the change journal is kept, to the byte, and cannot be removed" {
	before=$(grep 'UsnJrnl' base.digest)
	[ "$(wc -l <<<"$before")" -ge 2 ]
	for path in '/$Extend/$UsnJrnl' '/$EXTEND/$usnjrnl' '/$Extend/$Usn*'; do
		run -3 --separate-stderr vhd-rmfile -n base.raw "$path"
		[[ $stderr == *'never removed'* ]]
	done
	vhd-rmfile -q -r base.raw /Windows | vhd-defrag -q --block-size 512K | vhd-zerofree -q | vhd-compact -q -o x.vhd
	whole x.vhd '/Windows'
	[ "$(digest x.vhd | grep UsnJrnl)" = "$before" ]
	# sparse, as it was: the journal's offset goes on, and takes no room
	[ "$(vhd-info --json base.raw | jq '.volumes[0].used')" -gt "$(vhd-info --json x.vhd | jq '.volumes[0].used')" ]
}

@test "an undo disk takes a removal of all of it, and gives it to its base" {
	vhd-compact -q -o base.vhd base.raw
	vhd-undo create -q base.vhd undo.vhd
	vhd-rmfile -q -i undo.vhd -r /Users /Windows '/Documents and Settings' /cases
	whole undo.vhd '/Users\|/Windows\|/Documents and Settings\|/cases' || {
		# qemu-img cannot judge it: flattened
		vhd-compact -q -o flat.vhd undo.vhd
		whole flat.vhd '/Users\|/Windows\|/Documents and Settings\|/cases'
	}
	vhd-undo commit -q undo.vhd
	whole base.vhd '/Users\|/Windows\|/Documents and Settings\|/cases'
}
