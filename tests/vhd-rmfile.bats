#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# vhd-rmfile: what is named goes, all of it and nothing else, and the volume stays one that Windows would mount.

load helper
load poke

setup() {
	cd "$BATS_TEST_TMPDIR" || return
}

# A bare volume from a manifest on standard input: FILE [SIZE]
new_volume() {
	truncate -s "${2:-24M}" "$1"
	mkntfs -F -Q -q -T "$1" 2>/dev/null
	"$populate" --stamp "$1"
}

# Paths with their digests, sizes left out: folders have no digest.
paths() {
	digest "$1" | cut -c79-
}

# after IMAGE PATTERN [OTHER]: that IMAGE is what base.raw was without the lines that match PATTERN, and sound
gone() {
	digest base.raw | grep -v "$2" >want
	digest "$1" | diff want -
	sound_ntfs "$1"
	vhd-info --check -q "$1" >/dev/null
}

# A refusal: STATUS TEXT COMMAND... ends with that status, one line that holds the text, and x.raw as it was.
refused() {
	local want=$1 text=$2 before
	shift 2
	before=$(sha256sum <x.raw)
	run "-$want" --separate-stderr "$@"
	echo "$stderr"
	[ -z "$output" ]
	# what is wrong with the command line is followed by where to look
	[ "$want" -eq 2 ] || [ "${#stderr_lines[@]}" -eq 1 ]
	[[ $stderr == *"$text"* ]]
	[ "$(sha256sum <x.raw)" = "$before" ]
	[ ! -e out ]
	[ ! -e x.raw.prep-journal ]
}

small_volume() {
	new_volume base.raw <<-'END'
		mkdir "/WINDOWS/$NtUninstallKB1$"
		gen "/WINDOWS/$NtUninstallKB1$/old.dll" pe 30000 1
		gen "/WINDOWS/$NtUninstallKB2$/old.dll" pe 30000 2
		gen "/WINDOWS/Explorer.exe" pe 50000 3
		gen "/Program Files/A long name.txt" text 5000 4
		short "/Program Files" PROGRA~1
		short "/Program Files/A long name.txt" ALONGN~1.TXT
		gen /pagefile.sys page 100000 5
		gen "/Übergröße/ÄÖÜ.txt" text 600 6
		gen /other noise 100000 7
		mkdir /empty
		logfile clean
	END
}

@test "paths with / and \\, in any case, by long and 8.3 names" {
	small_volume
	for path in /WINDOWS/Explorer.exe /windows/EXPLORER.EXE '\Windows\explorer.exe' '\WINDOWS/explorer.exe' \
		'//windows//explorer.exe'; do
		vhd-rmfile -q base.raw "$path" >x.raw
		gone x.raw '/WINDOWS/Explorer.exe$'
	done
	for path in '/Program Files/A long name.txt' '/PROGRA~1/ALONGN~1.TXT' '\progra~1\a LONG name.txt'; do
		vhd-rmfile -q base.raw "$path" >x.raw
		gone x.raw '/A long name.txt$'
		# its 8.3 name went with it
		run ! ntfscat -f x.raw '/Program Files/ALONGN~1.TXT'
	done
	for path in /Übergröße/ÄÖÜ.txt /üBERGRÖßE/äöü.TXT; do
		vhd-rmfile -q base.raw "$path" >x.raw
		gone x.raw '/ÄÖÜ.txt$'
	done
}

# shellcheck disable=SC2016 # the dollars belong to names
@test "wildcards stand for any part of one name" {
	small_volume
	vhd-rmfile -q -r base.raw '/windows/$ntuninstall*' >x.raw
	gone x.raw '/WINDOWS/.NtUninstallKB'
	vhd-rmfile -q base.raw '/windows/$NtUninstallKB?$/*.DLL' >x.raw
	gone x.raw '/old.dll$'
	vhd-rmfile -q base.raw '/*/?xpl*.e?e' >x.raw
	gone x.raw '/Explorer.exe$'
	vhd-rmfile -q base.raw '/*~1/*' >x.raw
	gone x.raw '/A long name.txt$'
	cp base.raw x.raw
	# not over the border of a folder
	refused 1 'no such file' vhd-rmfile -i x.raw '/*Explorer.exe'
	refused 1 'no such file' vhd-rmfile -i x.raw '/WINDOWS*exe'
	refused 1 'no such file' vhd-rmfile -i x.raw '/?'
}

@test "folders only with -r, empty ones too; the order of the patterns does not matter" {
	small_volume
	cp base.raw x.raw
	refused 2 '-r' vhd-rmfile -i x.raw /WINDOWS
	refused 2 '-r' vhd-rmfile -i x.raw /empty
	refused 2 '-r' vhd-rmfile -i x.raw '/*'
	vhd-rmfile -q -r base.raw /empty >x.raw
	gone x.raw '/empty/$'
	vhd-rmfile -q -r base.raw /windows /WINDOWS/explorer.exe /WINDOWS >x.raw
	gone x.raw '/WINDOWS/'
	vhd-rmfile -q -r base.raw /WINDOWS/explorer.exe /windows >x.raw
	gone x.raw '/WINDOWS/'
	[ "$(vhd-rmfile -n -j -r base.raw /windows /WINDOWS/explorer.exe | jq .files)" = 3 ]
	[ "$(vhd-rmfile -n -j -r base.raw /windows | jq '[.files, .folders] | @csv' -r)" = 3,3 ]
	vhd-rmfile -q -i -r x.raw '/Program Files'
	[ "$(paths x.raw | grep -c 'Program Files')" -eq 0 ]
	# everything that is not the system's, in one go
	vhd-rmfile -q -r base.raw '/[!$]*' --ignore-missing >x.raw
	run -3 vhd-rmfile -q -r -i x.raw '/*'
}

@test "system files are never removed" {
	small_volume
	echo 'usnjrnl 64K 1' | "$populate" base.raw
	cp base.raw x.raw
	# shellcheck disable=SC2016 # the dollars belong to names
	for path in '/$MFT' '/$mftmirr' '/$LogFile' '/$Volume' '/$AttrDef' '/$Bitmap' '/$Boot' '/$BadClus' '/$Secure' '/$UpCase' \
		'/$Extend' '/$Extend/$UsnJrnl' '/$Extend/*' '/$extend/$ObjId' '/$*' '/*'; do
		run -3 --separate-stderr vhd-rmfile -i -r x.raw /other "$path" --ignore-missing
		[[ $stderr == *'never removed' ]]
		cmp base.raw x.raw
	done
	for path in / // '\' /. /.. /WINDOWS/.. /WINDOWS/../other /./other other WINDOWS/Explorer.exe '' $'/\xff'; do
		run -2 vhd-rmfile -i -r x.raw /other "$path"
		cmp base.raw x.raw
	done
}

@test "a path that matches nothing is an error, unless --ignore-missing; presets never are" {
	small_volume
	cp base.raw x.raw
	refused 1 '/absent: no such file' vhd-rmfile -i x.raw /pagefile.sys /absent
	refused 1 '/absent: no such file' vhd-rmfile -o out x.raw /absent
	refused 1 'no such file' vhd-rmfile -i x.raw /pagefile.sys/deeper
	refused 1 'no such file' vhd-rmfile -i x.raw /other:stream
	vhd-rmfile -q -i --ignore-missing x.raw /absent /pagefile.sys
	gone x.raw '/pagefile.sys$'
	before=$(sha256sum <x.raw)
	vhd-rmfile -q -i --ignore-missing x.raw /absent
	vhd-rmfile -q -i --preset hiberfil --preset restore x.raw
	[ "$(sha256sum <x.raw)" = "$before" ]
	refused 2 'nothing to remove' vhd-rmfile -i x.raw
	refused 2 '--preset' vhd-rmfile -i --preset nothing x.raw
	refused 2 'no image' vhd-rmfile -i
}

# shellcheck disable=SC2016 # the dollars belong to names
@test "files of every kind go without a trace: runs, streams, compression, holes, attribute lists" {
	new_volume base.raw <<-'END'
		gen /resident text 100 1
		gen /streams noise 20000 2
		gen /streams:one noise 30000 3
		gen /streams:two text 50 4
		gen "/a folder:with a stream" noise 5000 5
		compress /compressed
		gen /compressed text 400000 6
		sparse /sparse 4M
		write /sparse 2M noise 100000 7
		fragment /pieces 400 noise 8
		reparse /wof 80000017 noise 16 9
		gen /readonly noise 9000 10
		attrib /readonly rhs
		gen /stay1 noise 200000 11
		gen /stay2 text 700 12
		compress /stay3
		gen /stay3 log 300000 13
		logfile clean
	END
	ntfsinfo -f -F /pieces base.raw | grep -q ATTRIBUTE_LIST
	before=$(ntfsinfo -m -f base.raw | sed -n 's/.*Free Clusters: \([0-9]*\).*/\1/p')
	for file in resident streams compressed sparse pieces wof readonly 'a folder'; do
		vhd-rmfile -q -r base.raw "/$file" >x.raw
		gone x.raw "/$file\(/\|:\|$\)"
		# the clusters that it says are freed are those that were
		after=$(ntfsinfo -m -f x.raw | sed -n 's/.*Free Clusters: \([0-9]*\).*/\1/p')
		freed=$(vhd-rmfile -n -r --json base.raw "/$file" | jq .freed)
		echo "$file: $freed, $(((after - before) * 4096))"
		[ "$freed" = $(((after - before) * 4096)) ]
	done
	vhd-rmfile -q -i -r base.raw /resident /streams /compressed /sparse /pieces /wof /readonly '/a folder'
	[ "$(paths base.raw | grep -c '^/stay')" -eq 3 ]
	sound_ntfs base.raw
}

@test "hard links: bytes count once, and are freed with the last name" {
	new_volume base.raw <<-'END'
		gen /one noise 100000 1
		link /two /one
		link /dir/three /one
		gen /alone noise 40000 2
		gen /mixed text 60000 3
		short /mixed MIXED~1
		link /dir/mixed2 /mixed
		logfile clean
	END
	[ "$(vhd-rmfile -n -j base.raw /one | jq .freed)" = 0 ]
	[ "$(vhd-rmfile -n -j base.raw /one /two | jq .freed)" = 0 ]
	[ "$(vhd-rmfile -n -j base.raw /one /two /dir/three | jq .freed)" = 102400 ]
	[ "$(vhd-rmfile -n -j -r base.raw /dir /two /one | jq '[.freed, .files] | @csv' -r)" = 102400,4 ]
	# bytes go to the pattern that takes the last name
	vhd-rmfile -n -j base.raw /one /alone /two /dir/three >json
	[ "$(jq -r '[.matches[].freed] | @csv' json)" = 0,40960,0,102400 ]
	vhd-rmfile -q base.raw /one >x.raw
	gone x.raw '/one$'
	vhd-rmfile -q -i x.raw /two
	gone x.raw '/\(one\|two\)$'
	free=$(ntfsinfo -m -f x.raw | sed -n 's/.*Free Clusters: \([0-9]*\).*/\1/p')
	vhd-rmfile -q -i x.raw /dir/three
	gone x.raw '/\(one\|two\|three\)$'
	[ $(($(ntfsinfo -m -f x.raw | sed -n 's/.*Free Clusters: \([0-9]*\).*/\1/p') - free)) -eq 25 ]
	# the other name has no 8.3 one
	vhd-rmfile -q base.raw /mixed >x.raw
	gone x.raw '/mixed$'
	vhd-rmfile -q base.raw /dir/mixed2 >x.raw
	gone x.raw '/mixed2$'
	[ "$(ntfscat -f x.raw /MIXED~1 | sha256sum)" = "$(ntfscat -f x.raw /mixed | sha256sum)" ]
}

@test "a junction is removed itself, and never followed" {
	new_volume base.raw <<-'END'
		gen /target/inside noise 50000 1
		junction /junction 'C:\target'
		junction /dir/deep 'C:\target'
		gen /dir/file noise 5000 2
		logfile clean
	END
	cp base.raw x.raw
	refused 1 'no such file' vhd-rmfile -i x.raw /junction/inside
	refused 1 'no such file' vhd-rmfile -i x.raw '/junction/*'
	vhd-rmfile -q -r base.raw /junction >x.raw
	gone x.raw '/junction\(/\|:\|$\)'
	vhd-rmfile -q -r base.raw /dir >x.raw
	gone x.raw '/dir/'
	digest x.raw | grep -q '/target/inside$'
}

@test "--list shows what is there, with sizes, and changes nothing" {
	new_image x.vhd --size 64M --style xp
	before=$(sha256sum <x.vhd)
	vhd-rmfile --list x.vhd >list
	grep -q '^ *[0-9]*  /pagefile.sys$' list
	digest x.vhd | sed 's/^[0-9a-f]\{64\} //' | awk '{ print $1, $2 }' | grep '/pagefile.sys$' >want
	awk '/\/pagefile.sys$/ { print $1, $2 }' list | diff want -
	for preset in pagefile hiberfil updates temp restore; do
		grep -q "^preset $preset: [0-9]* files" list
		[ "$(vhd-rmfile --list --json --preset $preset x.vhd | jq '.entries | length')" -ge 1 ]
		[ "$(vhd-rmfile --list --json --preset $preset x.vhd | jq '[.entries[].freed] | add')" = \
			"$(vhd-rmfile --list --json x.vhd | jq ".matches[] | select(.match == \"$preset\") | .freed")" ]
	done
	vhd-rmfile --list --json x.vhd '/WINDOWS/*.log' | jq -r '.entries[].path' | sort >got
	digest x.vhd | cut -c79- | grep '^/WINDOWS/[^/]*\.log$' | sort | diff - got
	run -1 vhd-rmfile --list x.vhd /absent
	[ "$(sha256sum <x.vhd)" = "$before" ]
	# a hibernated disk can be looked at all the same
	new_image h.vhd --size 48M --hibernated
	vhd-rmfile --list h.vhd | grep -q hiberfil.sys
}

@test "-n tells just what -i then does" {
	for style in xp win10; do
		new_image x.vhd --size 64M --style $style
		before=$(sha256sum <x.vhd)
		presets=(--preset pagefile --preset hiberfil --preset updates --preset temp --preset restore)
		vhd-rmfile -q -n --json "${presets[@]}" x.vhd | jq 'del(.dry_run)' >want
		[ "$(sha256sum <x.vhd)" = "$before" ]
		vhd-rmfile -q -i --json "${presets[@]}" x.vhd | jq 'del(.dry_run)' | diff want -
		[ "$(jq '.matches | length' want)" = 5 ]
		[ "$(jq '[.matches[].freed] | add' want)" = "$(jq .freed want)" ]
		sound_ntfs x.vhd
		vhd-info --check x.vhd >/dev/null
		# all gone, and there is nothing left for another run
		[ "$(vhd-rmfile -n --json "${presets[@]}" x.vhd | jq .files)" = 0 ]
		[ "$(vhd-info --json x.vhd | jq '[.volumes[] | .removable // {} | .[].files] | add')" = 0 ]
	done
}

@test "presets take what they name and nothing else, on images of both ages" {
	for style in xp win10; do
		new_image x.vhd --size 64M --style $style
		digest x.vhd >all
		for preset in pagefile hiberfil updates temp restore; do
			vhd-rmfile -q --list --json --preset $preset x.vhd | jq -r '.entries[] | select(.folder | not) | .path' >list
			vhd-rmfile -q -f -o y.vhd --preset $preset x.vhd
			# the files that are left are those that were not listed
			awk 'NR == FNR { gone[$0]; next } { p = substr($0, 79); sub(/:[^\/]*$/, "", p) } !(p in gone)' list all |
				grep -v '/$' >want
			digest y.vhd | grep -v '/$' | diff want -
			sound_ntfs y.vhd
		done
		# the folders that Windows expects to be there stay
		digest y.vhd | cut -c79- | grep -qi '^/windows/prefetch/$'
	done
}

@test "hiberfil.sys: with the preset alone, and then the loss is said" {
	new_image base.vhd --size 48M --hibernated --style xp
	cp base.vhd x.raw
	refused 3 hibernated vhd-rmfile -i x.raw /pagefile.sys
	refused 3 'session is then lost' vhd-rmfile -i x.raw /hiberfil.sys
	refused 3 hibernated vhd-rmfile -o out --preset pagefile x.raw
	run -3 sh -c 'vhd-rmfile --preset temp base.vhd | cat; exit ${PIPESTATUS:-3}'
	run -0 --separate-stderr vhd-rmfile -i --preset hiberfil --preset pagefile x.raw
	[[ $stderr == *'session'*'lost'* ]]
	[ "$(paths x.raw | grep -c '^/\(hiber\|page\)fil')" -eq 0 ]
	sound_ntfs x.raw
	[ "$(vhd-info --json x.raw | jq '[.volumes[].obstacles // [] | .[]] | length')" -eq 0 ]
	# nothing is said where there was no session
	new_image y.vhd --size 48M
	vhd-rmfile -q -i --preset hiberfil y.vhd
	run -0 --separate-stderr vhd-rmfile -i --preset hiberfil y.vhd
	[ -z "$stderr" ]
}

@test "dirty, unclean, fast start-up, shadow copies, damage: refused, nothing changed" {
	small_volume
	for state in unclean fast zero; do
		cp base.raw x.raw
		echo "logfile $state" | "$populate" x.raw
		refused 3 'x.raw: ' vhd-rmfile -i x.raw /other
		# not even by giving up hibernation
		refused 3 'x.raw: ' vhd-rmfile -i x.raw --preset hiberfil /other
	done
	cp base.raw x.raw
	echo dirty | "$populate" x.raw
	refused 3 dirty vhd-rmfile -i x.raw /other
	cp base.raw x.raw
	echo 'gen /hiberfil.sys hibr 100000 1' | "$populate" x.raw
	echo dirty | "$populate" x.raw
	refused 3 dirty vhd-rmfile -i x.raw --preset hiberfil
	# damage of the names is enough here: MFT bitmap, link count, entry that leads nowhere
	for damage in links bitmap; do
		cp base.raw x.raw
		other=$(record_of x.raw /other)
		case $damage in
		links) poke x.raw $(($(record x.raw "$other") + 18)) 0700 ;;
		bitmap) set_bitmap x.raw "$(first_cluster x.raw "$(attribute x.raw "$other" 80)")" 0 ;;
		esac
		refused 4 damaged vhd-rmfile -i x.raw /other
		refused 4 damaged vhd-rmfile -o out x.raw --preset pagefile
		# looking is allowed
		vhd-rmfile --list x.raw /other >/dev/null
	done
}

@test "--volume: one partition alone" {
	new_image base.vhd --size 64M --style win10
	cp base.vhd x.raw
	refused 2 'no volume 9' vhd-rmfile -i --volume 9 x.raw /pagefile.sys
	refused 2 volume vhd-rmfile -i --volume 0 x.raw /pagefile.sys
	refused 1 'no such file' vhd-rmfile -i --volume 4 x.raw /pagefile.sys
	[ "$(vhd-rmfile -n -j --volume 3 x.raw /pagefile.sys | jq .files)" = 1 ]
	[ "$(vhd-rmfile -n -j --volume 4 -r x.raw /Recovery | jq .files)" = 3 ]
	# without it: every one
	vhd-rmfile -q -r -i x.raw /Recovery /pagefile.sys
	sound_ntfs x.raw
	# no NTFS at all
	truncate -s 2M none.raw
	run -3 vhd-rmfile -n none.raw /x
}

@test "to stdout, to a file, in place, from a pipe: the same disk, the same format" {
	new_image base.vhd --size 48M
	SOURCE_DATE_EPOCH=1 vhd-rmfile -q -o a.vhd base.vhd /pagefile.sys
	cat base.vhd | vhd-rmfile -q - /pagefile.sys | cat >b.vhd
	vhd-rmfile -q - /pagefile.sys <base.vhd >c.vhd
	cp base.vhd d.vhd
	vhd-rmfile -q -i d.vhd /pagefile.sys
	digest a.vhd >want
	for file in a b c d; do
		digest $file.vhd | diff want -
		sound_ntfs $file.vhd
		[ "$(peek $file.vhd 0 8)" = 636f6e6563746978 ]
		[ "$(peek $file.vhd 68 16)" = "$(peek base.vhd 68 16)" ]
	done
	for format in fixed raw; do
		new_image base.$format --size 48M --format $format
		vhd-rmfile -q -o x.$format base.$format /pagefile.sys
		[ "$(size_of x.$format)" = "$(size_of base.$format)" ]
		digest x.$format | diff want -
	done
	[ "$(ls -A | grep -c 'journal\|prep-new')" -eq 0 ]
}

@test "the same bytes at any time: folders and files with other names keep their time stamps" {
	skip_without istat fls
	new_volume base.raw <<-'END'
		gen /dir/sub/one noise 30000 1
		gen /dir/sub/two text 300 2
		gen /dir/three noise 5000 3
		gen "/dir/a long name.txt" text 5000 4
		short "/dir/a long name.txt" ALONGN~1.TXT
		gen /other/four noise 70000 5
		link /linked /dir/three
		link /dir/sub/linked /dir/three
		gen /dir/sub/five noise 3000 6
		gen /pagefile.sys page 100000 7
		logfile clean
	END
	stamps() {
		fls -r -p base.raw | sed -n 's/^[^ ]* \([0-9]*\)-[^\t]*\t\([^$].*\)/\1 \2/p' | while read -r inode path; do
			[[ " $2 " != *" $path "* ]] || istat "$1" "$inode" | grep '^\(Created\|File Modified\|MFT Modified\|Accessed\):' |
				sed "s,^,$path ,"
		done | sort -u
	}
	# a file of each folder, folders with what they hold, one of several names
	removal=(-r '/dir/*long*' /other/four /dir/sub/linked /dir/sub /linked /pagefile.sys)
	vhd-rmfile -q -o a.raw "${removal[@]:0:1}" base.raw "${removal[@]:1}"
	vhd-rmfile -q -o b.raw "${removal[@]:0:1}" base.raw "${removal[@]:1}"
	cmp a.raw b.raw
	sound_ntfs a.raw
	for name in dir other dir/three; do
		stamps base.raw $name >before
		[ "$(wc -l <before)" -ge 4 ]
		stamps a.raw $name | diff before -
	done
	# the root folder, which was always there
	istat a.raw 5 | grep Modified: >after
	istat base.raw 5 | grep Modified: | diff - after
	cp base.raw c.raw
	vhd-rmfile -q -i "${removal[@]:0:1}" c.raw "${removal[@]:1}"
	cmp a.raw c.raw
	# presets, on a disk with all that Windows has
	new_image base.vhd --size 48M
	vhd-rmfile -q -o a.vhd base.vhd --preset temp --preset updates --preset pagefile
	vhd-rmfile -q -o b.vhd base.vhd --preset temp --preset updates --preset pagefile
	cmp a.vhd b.vhd
}

@test "names that stay tell the length of extended attributes again" {
	new_volume base.raw <<-'END'
		gen /dir/one noise 5000 1
		ea /dir/one TEST something
		link /dir/zwei /dir/one
		ea /dir ALSO some
		logfile clean
	END
	# told EXPECTED NAME IMAGE: in the entry of the name, which is one of two places with it; -6 bytes from the name
	told() {
		LC_ALL=C grep -obUaP "$(sed 's/./&\\x00/g' <<<"$2")" "$3" | while IFS=: read -r at _; do
			[ "$(le "$3" $((at - 2)) 1)" -ne ${#2} ] || le "$3" $((at - 6)) 2
		done | grep -qx "$1"
	}
	run ! told 18 zwei base.raw
	vhd-rmfile -q -o x.raw base.raw /dir/one
	told 18 zwei x.raw
	told 13 dir x.raw
	sound_ntfs x.raw
}

@test "10,000 files in seconds, and what a name holds does not matter" {
	{
		echo 'gen /stay noise 100000 1'
		for ((i = 0; i < 10000; i++)); do
			echo "gen \"/many/file number $i.tmp\" text $((i % 50 * 40)) $i"
		done
		echo 'logfile clean'
	} | new_volume base.raw 64M
	cp base.raw x.raw
	start=$SECONDS
	vhd-rmfile -q -i x.raw '/many/*'
	[ $((SECONDS - start)) -lt $((20 * slower)) ]
	[ "$(paths x.raw | grep -c '^/many/.')" -eq 0 ]
	sound_ntfs x.raw
	vhd-info --check x.raw >/dev/null
	cp base.raw x.raw
	vhd-rmfile -q -i -r x.raw /many
	[ "$(paths x.raw | grep -v '^/\$' | tr '\n' ' ')" = '/stay ' ]
	sound_ntfs x.raw
}

@test "a name that would drive the terminal, or end a line, is shown without that" {
	printf 'gen "/a\033[31m\tb\302\233c.txt" text 100 1\nmkdir "/d\re"\nlogfile clean\n' | new_volume x.raw 16M
	vhd-rmfile --list -r x.raw '/a*' '/d*' >out
	[ "$(sed -n 1,2p out)" = "           100  /a?[31m?b?c.txt
             0  /d?e/" ]
	# and what is shown, given as a path, is found
	vhd-rmfile --list x.raw '/a?[31m?b?c.txt' >/dev/null
	[ "$(vhd-rmfile --list -j x.raw '/a*' | jq -r '.entries[].path')" = $'/a\033[31m\tb\302\233c.txt' ]
	run -2 vhd-rmfile -n x.raw '/d*'
	[[ $output == *'/d?e: a folder'* ]]
}

@test "verbose and JSON name every file once" {
	small_volume
	vhd-rmfile -v -n -r base.raw /WINDOWS >out
	[ "$(grep -c '^ *[0-9]*  /WINDOWS/' out)" -eq 6 ]
	vhd-rmfile -v -n -j -r base.raw /WINDOWS /pagefile.sys >json
	[ "$(jq '.entries | length' json)" = 7 ]
	[ "$(jq '[.entries[] | select(.folder)] | length' json)" = 3 ]
	[ "$(jq -r '.entries[-1] | [.path, .size, .freed, .match] | @csv' json)" = '"/pagefile.sys",100000,102400,"/pagefile.sys"' ]
	[ "$(jq '[paths(type == "number")] | length' json)" -gt 10 ]
	# the report is not in the way of the image
	vhd-rmfile -v base.raw /pagefile.sys 2>err >x.raw
	grep -q '/pagefile.sys' err
	gone x.raw '/pagefile.sys$'
	vhd-rmfile -q base.raw /pagefile.sys 2>err >x.raw
	[ ! -s err ]
}

@test "a session suspended on another volume keeps files there from being removed" {
	new_image x.vhd --size 64M --hibernated
	before=$(sha256sum <x.vhd)
	run -3 vhd-rmfile -i -r x.vhd /EFI
	[[ $output == *hibernated* ]]
	[ "$(sha256sum <x.vhd)" = "$before" ]
	# who names the volume, or discards the session, knows what is done
	vhd-rmfile -n -r --volume 1 x.vhd /EFI
	run -0 vhd-rmfile -i -r --preset hiberfil x.vhd /EFI
}
