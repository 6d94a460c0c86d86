#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# The commands that change an image in place, stopped or failed at every call that touches a file
# (tests/preload/faults.c): the guest sees the disk as it was or as it was to become, never anything between, after the
# next command at the latest; nothing else is left beside it.

load helper

setup() {
	faults=$build/tests/faults.so
	[ -e "$faults" ] || skip "$faults: not built"
	cd "$BATS_TEST_TMPDIR" || return
	mkdir made work
	make_small made/base.raw
}

# A small volume, so that every call can be tried: fragments, a page file, deleted data, zeros.
make_small() {
	truncate -s 3M "$1"
	head -c 1M /dev/urandom | dd of="$1" bs=1M seek=1 conv=notrunc status=none
	mkntfs -F -Q -q -T -c 4096 "$1" 2>/dev/null
	"$populate" --stamp "$1" <<-'END'
		mkdir /a/b
		gen /a/one noise 30000 1
		gen /a/b/two text 700 2
		fragment /a/pieces 10 noise 3
		gen /keep noise 100000 4
		gen /pagefile.sys page 200000 5
		gen /zeros zero 300000 6
		gen /gone noise 200000 7
		rm /gone
		logfile clean
	END
}

# A command with a fault: HOW N COMMAND... "none 0" has no other effect than that the clock stands still and nothing is
# synced. The shell's own word on a process that was killed comes with the command's messages.
with_fault() {
	env FAULTS_HOW="$1" FAULTS_AT="$2" FAULTS_COUNT="$BATS_TEST_TMPDIR/count" LD_PRELOAD="$faults" \
		ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0:detect_leaks=0" "${@:3}"
}

# Whether status and messages (in err) are what they should be: HOW STATUS.
told() {
	case $1:$2 in
	kill:137 | tear:137) ! grep -qv ' Killed ' err ;;
	eio:1 | enospc:1 | eread:1) [ "$(wc -l <err)" -eq 1 ] ;;
	# a fault that does no harm
	e*:0) [ ! -s err ] ;;
	*) false ;;
	esac
}

# sweep IMAGE KINDS COMMAND...: the command on work/IMAGE, which is made/IMAGE before, with every fault of these kinds at
# every call (tests/tools/sweep.c). Leaves the new image there.
sweep() {
	local image=$1
	shift
	ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}verify_asan_link_order=0:detect_leaks=0 \
		"$build/tests/sweep" "$faults" "$1" "made/$image" "work/$image" "${@:2}" >points || { cat points; return 1; }
	echo "# $2: $(cat points)" >&3
}

@test "vhd-rmfile -i on a raw disk" {
	sweep base.raw 'kill tear eio enospc eread' vhd-rmfile -q -i -r work/base.raw /pagefile.sys /a
	run ! cmp -s made/base.raw work/base.raw
}

@test "vhd-zerofree -i on a raw disk" {
	sweep base.raw 'kill tear eio enospc' vhd-zerofree -q -i --log work/base.raw
	run ! cmp -s made/base.raw work/base.raw
}

@test "vhd-zerofree -i and vhd-rmfile -i on a dynamic VHD" {
	qemu-img convert -f raw -O vpc -o force_size made/base.raw made/base.vhd
	sweep base.vhd 'kill eio' vhd-zerofree -q -i work/base.vhd
	sweep base.vhd 'kill tear' vhd-rmfile -q -i work/base.vhd /pagefile.sys
}

@test "vhd-compact -i" {
	sweep base.raw 'kill tear eio enospc eread' vhd-compact -q -i --to raw work/base.raw
	rm work/base.raw
	vhd-compact -q -o made/base.vhd made/base.raw
	sweep base.vhd 'kill eio' vhd-compact -q -i --block-size 512K work/base.vhd
}

@test "short and interrupted reads and writes are no failure" {
	for how in short eintr; do
		for args in 'vhd-rmfile -r /pagefile.sys /a' 'vhd-zerofree --log' 'vhd-compact --to raw'; do
			read -r -a command <<<"$args"
			cp made/base.raw work/a.raw
			cp made/base.raw work/b.raw
			with_fault none 0 "${command[0]}" -q -i work/a.raw "${command[@]:1}"
			with_fault "$how" 0 "${command[0]}" -q -i work/b.raw "${command[@]:1}"
			[ "$(cat count)" -gt 10 ]
			cmp work/a.raw work/b.raw
			rm -f work/c.vhd work/d.vhd
			vhd-compact -q -o work/c.vhd made/base.raw
			with_fault "$how" 0 vhd-compact -q -o work/d.vhd made/base.raw
			cmp work/c.vhd work/d.vhd
		done
	done
	rm work/[abcd].*
	[ -z "$(ls -A work)" ]
}

@test "an output that cannot be finished does not appear" {
	for how in kill eio enospc; do
		for command in 'vhd-compact' 'vhd-zerofree' 'vhd-rmfile -r'; do
			read -r -a words <<<"$command"
			[ "${words[0]}" != vhd-rmfile ] || words+=(/a)
			with_fault "$how" 0 "${words[0]}" -q -o work/out.vhd made/base.raw "${words[@]:1}"
			count=$(cat count)
			rm work/out.vhd
			for ((n = 1; n <= count; n++)); do
				status=0
				with_fault "$how" "$n" "${words[0]}" -q -o work/out.vhd made/base.raw "${words[@]:1}" 2>err ||
					status=$?
				told "$how" "$status" || { echo "${words[0]}: $how $n: $status"; cat err; false; }
				# complete, with its last sync outstanding, or not there
				if [ -e work/out.vhd ]; then
					vhd-info -q --check work/out.vhd >/dev/null
					rm work/out.vhd
				fi
				[ -z "$(ls -A work)" ]
			done
		done
	done
}
