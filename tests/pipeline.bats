#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# The commands together, and what they have in common: pipes, outputs, locks, signals, full disks.

load helper
load poke

setup() {
	# bats keeps files of its own in the folder above
	mkdir "$BATS_TEST_TMPDIR/work"
	cd "$BATS_TEST_TMPDIR/work" || return
}

teardown() {
	[ -z "${daemon-}" ] || kill "$daemon" 2>/dev/null || true
	[ ! -e mnt/.mounted ] || umount mnt
}

# Each command that writes an image, with the arguments that it needs besides the image.
edits=('vhd-rmfile --preset pagefile' 'vhd-zerofree' 'vhd-compact')

# Wait until a file holds a line that matches.
wait_for() {
	local n
	for ((n = 0; n < 100; n++)); do
		! grep -q "$2" "$1" 2>/dev/null || return 0
		sleep 0.05
	done
	echo "$1: no $2 in it" && cat "$1"
	return 1
}

# A whole image, written slowly: the first half, then nothing until the file "go" is there.
half() {
	head -c $(($(size_of "$1") / 2)) "$1"
	while [ ! -e go ]; do
		sleep 0.05
	done
	tail -c +$(($(size_of "$1") / 2 + 1)) "$1"
}

# Its folder as it was: nothing but these names.
only() {
	diff <(printf '%s\n' "$@" | sort) <(ls -A | sort)
}

@test "the whole pipeline: one disk, whatever the way" {
	for style in xp win10; do
		new_image x.vhd --size 64M --style $style
		digest x.vhd | grep -v '/pagefile.sys$\|/swapfile.sys$' >want
		vhd-rmfile -q x.vhd --preset pagefile | vhd-zerofree -q | vhd-compact -q -o all.vhd
		digest all.vhd | diff want -
		sound_ntfs all.vhd
		vhd-info --check all.vhd >/dev/null
		[ "$(peek all.vhd 68 16)" = "$(peek x.vhd 68 16)" ]
		# step by step, of the same first step (which notes the time)
		vhd-rmfile -q -o a.vhd x.vhd --preset pagefile
		vhd-zerofree -q <a.vhd | vhd-compact -q -o b.vhd
		vhd-zerofree -q -i a.vhd
		same_guest a.vhd b.vhd
		vhd-compact -q -i a.vhd
		cmp a.vhd b.vhd
		# there is nothing left to gain
		[ "$(vhd-info --json b.vhd | jq '.blocks | .total - .absent - .after_zerofree')" -eq 0 ]
		[ "$(count_blocks b.vhd)" = "$(count_blocks all.vhd)" ]
		# as raw disks, with the same result
		to_raw x.vhd x.raw
		vhd-rmfile -q x.raw --preset pagefile | vhd-zerofree -q | vhd-compact -q --to raw >y.raw
		digest y.raw | diff want -
		[ "$(size_of y.raw)" = "$(size_of x.raw)" ]
		rm ./*.vhd ./*.raw
	done
}

@test "larger blocks through a pipe" {
	new_image x.raw --size 32M --format raw
	vhd-compact -q --block-size 512K x.raw | vhd-zerofree -q | vhd-compact -q --block-size 4M -o y.vhd
	[ "$(vhd-info --json y.vhd | jq .vhd.block_size)" = 4194304 ]
	vhd-zerofree -q -o z.raw x.raw
	same_guest y.vhd z.raw
}

@test "when an earlier step fails, no output appears" {
	new_image x.vhd --size 48M
	for last in 'vhd-zerofree -q -o out' 'vhd-compact -q -o out' 'vhd-compact -q --to raw -o out' 'vhd-rmfile -q -o out - /x'; do
		# refused before the first byte
		run -3 --separate-stderr sh -c "vhd-rmfile -q x.vhd /absent | $last"
		[ ! -e out ]
		[[ $stderr == *'/absent: no such file'*'standard input: empty'* ]]
	done
	# cut off anywhere
	vhd-compact -q -o y.vhd x.vhd
	vhd-compact -q --to fixed -o y.fixed x.vhd
	vhd-compact -q --to raw -o y.raw x.vhd
	for format in vhd fixed raw; do
		size=$(size_of y.$format)
		for len in 511 512 4096 70000 $((size / 2)) $((size - 9000)) $((size - 700)); do
			for last in 'vhd-zerofree -q -o out' 'vhd-compact -q -o out'; do
				# nothing but the footer is lost, and in a spooled file its copy is used
				[ "$format $len $last" != "vhd $((size - 700)) vhd-zerofree -q -o out" ] || continue
				case $format in
				# a sector or two have no table yet, and what is missing behind the last partition is not missed
				fixed | raw) [ "$len" -gt 4096 ] && [ "$len" -lt $((size - 2000000)) ] || continue ;;
				esac
				echo "$format: $len of $size: $last"
				run --separate-stderr sh -c "head -c $len y.$format | $last"
				echo "status $status: $stderr"
				[ "$status" -eq 3 ] || [ "$status" -eq 4 ]
				[ ! -e out ]
			done
		done
	done
}

@test "a reader that leaves: an error, at once" {
	new_image x.vhd --size 48M
	for command in "${edits[@]}"; do
		read -r -a words <<<"$command"
		"${words[0]}" -q x.vhd "${words[@]:1}" 2>err | head -c 5000 >/dev/null || true
		run sh -c '("$@" 2>err; echo $? >status) | head -c 5000 >/dev/null' sh "${words[0]}" -q x.vhd "${words[@]:1}"
		[ "$(cat status)" = 1 ]
		grep -q "^${words[0]}: standard output: .*Broken pipe" err
	done
}

@test "an existing output is refused, unless -f, which overwrites it and nothing else" {
	new_image x.vhd --size 32M
	for command in "${edits[@]}"; do
		read -r -a words <<<"$command"
		echo precious >out
		chmod 640 out
		run -3 --separate-stderr "${words[@]}" -q -o out x.vhd
		[ "${#stderr_lines[@]}" -eq 1 ]
		[[ $stderr == *': out: the file exists (-f overwrites it)' ]]
		[ "$(cat out)" = precious ]
		"${words[@]}" -q -f -o out x.vhd
		[ "$(stat -c %a out)" = 640 ]
		vhd-info -q out >/dev/null
		# not over a folder
		mkdir dir
		run -3 "${words[@]}" -q -f -o dir x.vhd
		run -1 "${words[@]}" -q -o no/such/out x.vhd
		rmdir dir
		rm out
	done
	# a command that fails leaves the old one
	echo precious >out
	run -1 vhd-rmfile -q -f -o out x.vhd /absent
	[ "$(cat out)" = precious ]
	cp x.vhd d.vhd
	to_raw d.vhd d.raw
	read -r start _ < <(ntfs_parts d.raw)
	echo dirty | "$populate" --offset $((start * 512)) d.raw
	run -3 vhd-zerofree -q -f -o out d.raw
	[ "$(cat out)" = precious ]
}

@test "the output is not the input" {
	new_image x.vhd --size 32M
	sum=$(sha256sum <x.vhd)
	ln -s x.vhd link
	ln x.vhd hard
	for command in "${edits[@]}"; do
		read -r -a words <<<"$command"
		for out in x.vhd ./x.vhd link hard "$PWD/x.vhd"; do
			run --separate-stderr "${words[@]}" -q -f -o "$out" x.vhd
			[ "$status" -eq 2 ] || [ "$status" -eq 3 ]
			[[ $stderr == *same\ file* ]]
			run -3 "${words[@]}" -q -o "$out" x.vhd
		done
		read -r -a words <<<"${command/vhd-rmfile/vhd-rmfile -}"
		run --separate-stderr "${words[@]}" -q -f -o x.vhd <x.vhd
		[ "$status" -eq 2 ] || [ "$status" -eq 3 ]
		[ "$(sha256sum <x.vhd)" = "$sum" ]
	done
	only x.vhd link hard
}

@test "a standard stream that is closed does not become the image" {
	skip_under_valgrind 'its own files are where the streams were'
	new_image x.vhd --size 32M
	vhd-zerofree -q -o want.vhd x.vhd
	cp x.vhd y.vhd
	run -1 sh -c 'vhd-zerofree -v -i y.vhd >&-'
	same_guest y.vhd want.vhd
	cp x.vhd y.vhd
	run -1 sh -c 'vhd-zerofree -v -i y.vhd <&- >&- 2>&-'
	same_guest y.vhd want.vhd
	run sh -c 'vhd-zerofree -q -o z.vhd x.vhd <&- 2>&-'
	cmp z.vhd want.vhd
	run -1 sh -c 'vhd-zerofree -q x.vhd >&-'
	run -1 sh -c 'vhd-info - <&-'
	run -1 sh -c 'vhd-compact -o c.vhd <&-'
	[ ! -e c.vhd ]
}

@test "in place: a dry run refuses what the run refuses of the image, and -n alone does not" {
	new_image x.vhd --size 32M
	vhd-undo create -q x.vhd u.vhd
	new_image base.vhd --size 32M
	new_image saved.vhd --size 32M --format fixed
	# the footer's "saved state", and its checksum
	at=$(($(stat -c %s saved.vhd) - 512))
	poke saved.vhd $((at + 84)) 01
	poke saved.vhd $((at + 64)) "$(printf %08x $((0x$(od -An -tx1 -j $((at + 64)) -N 4 saved.vhd | tr -d ' ') - 1)))"
	chmod a-w base.vhd
	qemu-img create -q -f vhdx new.vhdx 32M
	for command in vhd-zerofree vhd-defrag vhd-compact 'vhd-rmfile --preset temp'; do
		for image in x.vhd base.vhd saved.vhd new.vhdx; do
			echo "$command $image"
			run -3 $command -i $image
			refusal=$output
			run -3 $command -i -n $image
			[ "$output" = "$refusal" ]
		done
		for image in x.vhd base.vhd; do
			$command -n $image >/dev/null
		done
	done
	# what is refused in place alone
	vhd-compact -n saved.vhd >/dev/null
	vhd-rmfile -q -i -n --preset temp u.vhd
}

@test "in place needs a name, and excludes an output" {
	new_image x.vhd --size 32M
	sum=$(sha256sum <x.vhd)
	for command in "${edits[@]}"; do
		read -r -a words <<<"$command"
		run -2 "${words[@]}" -i - <x.vhd
		run -2 "${words[@]}" -i -o y.vhd x.vhd
		[ "${words[0]}" = vhd-rmfile ] || run -2 "${words[@]}" -i <x.vhd
		run -1 "${words[@]}" -i absent.vhd
	done
	[ "$(sha256sum <x.vhd)" = "$sum" ]
	only x.vhd
}

@test "binary to or from a terminal is refused" {
	skip_without script
	new_image x.vhd --size 32M
	sum=$(sha256sum <x.vhd)
	for command in "${edits[@]}"; do
		for args in 'x.vhd' '-o - x.vhd' '-o /dev/tty x.vhd'; do
			status=0
			script -qec "$command $args" log >/dev/null </dev/null || status=$?
			echo "$command $args: $status"
			cat log
			[ "$status" -eq 2 ]
			grep -q 'terminal' log
			[ "$(wc -c <log)" -lt 1000 ]
		done
	done
	for command in 'vhd-info -' 'vhd-zerofree -o out' 'vhd-compact -o out' 'vhd-rmfile -o out - /x'; do
		status=0
		script -qec "$command" log >/dev/null </dev/null || status=$?
		[ "$status" -eq 2 ]
		grep -q 'standard input is a terminal' log
		[ ! -e out ]
	done
	[ "$(sha256sum <x.vhd)" = "$sum" ]
}

@test "SIGUSR1: one line of progress, and on it goes" {
	skip_under_valgrind 'it catches signals before the command does'
	new_image x.vhd --size 48M
	vhd-zerofree -q -o want.vhd x.vhd
	mkfifo pipe
	vhd-zerofree -q -o y.vhd <pipe 2>err &
	daemon=$!
	half x.vhd >pipe &
	# until it knows what to do with the signal: bit 9 of what it catches
	for ((n = 0; n < 200; n++)); do
		caught=$(sed -n 's/^SigCgt:.*\(...\)$/\1/p' /proc/$daemon/status)
		[ $((16#$caught & 0x200)) -eq 0 ] || break
		sleep 0.05
	done
	sleep 0.2
	kill -USR1 $daemon
	[ ! -s err ]
	touch go
	wait $daemon
	daemon=
	cat err
	[ "$(wc -l <err)" -eq 1 ]
	grep -q '^vhd-zerofree: [a-z ]*: .*MiB' err
	run ! grep -q "$(printf '\033\|\r')" err
	cmp y.vhd want.vhd
}

@test "a dry run refuses the output that the run refuses, and makes none" {
	new_image x.vhd --size 48M --style xp
	ckm-pack -q -0 -o x.ckm x.vhd
	ln x.vhd same.vhd
	for command in 'vhd-rmfile --ignore-missing x.vhd /none' 'vhd-zerofree x.vhd' 'vhd-defrag x.vhd' 'vhd-compact x.vhd' 'ckm-pack x.vhd' \
		'ckm-unpack x.ckm' 'ckm-index x.ckm' "ckm-fetch file://$PWD/x.ckm"; do
		for out in x.ckm none/out none; do
			for dry in '' -n; do
				[ "$out$dry" != none ] || continue
				status=0
				# shellcheck disable=SC2086 # several words
				$command -q $dry -o "$out" >log 2>&1 || status=$?
				echo "$command $dry -o $out: $status: $(cat log)"
				case $out in
				x.ckm) [ "$status" = 3 ] && grep -q 'the file exists' log ;;
				none/out) [ "$status" = 1 ] && grep -q 'No such file' log ;;
				none) [ "$status" = 0 ] ;;
				esac
				[ ! -e none ] && [ ! -e none.index ]
			done
		done
	done
	run -2 vhd-compact -n -f -o same.vhd x.vhd
	[[ $output == *"input and output are the same file"* ]]
	run -2 vhd-compact --to raw --new-id -o none x.vhd
	[ ! -e none ]
}

@test "SIGTERM, SIGINT, SIGHUP: death by the signal, nothing left behind" {
	new_image x.vhd --size 48M
	# so that it waits for the input
	wait=0.3
	! under_valgrind || wait=5
	sum=$(sha256sum <x.vhd)
	for case in TERM:143:'vhd-zerofree -q' INT:130:'vhd-zerofree -q' HUP:129:'vhd-zerofree -q' TERM:143:'vhd-compact -q' \
		INT:130:'vhd-compact -q --to raw' TERM:143:'vhd-rmfile -q - /x'; do
		command=${case##*:} sig=${case%%:*}
		mkdir empty
		# the input comes to a halt: the command must not wait for it
		mkfifo pipe
		(
			cd empty || exit
			# what a shell starts in the background ignores SIGINT
			# shellcheck disable=SC2086 # several words
			exec env --default-signal TMPDIR="$PWD" timeout --preserve-status -s "$sig" $wait $command -o out <../pipe 2>../err
		) &
		exec 8>pipe
		head -c 3000000 x.vhd >&8 || true
		status=0
		wait $! || status=$?
		exec 8>&-
		echo "$command: $sig: $status: $(cat err)"
		[ "$status:${case#*:}" = "$status:$status:$command" ]
		[ -z "$(ls -A empty)" ]
		rm -r empty pipe
	done
	[ "$(sha256sum <x.vhd)" = "$sum" ]
}

@test "a signal in the midst of the work, with the status that it gives" {
	new_image x.vhd --size 48M --style xp
	digest x.vhd >want
	for ((n = 1; n <= 7; n++)); do
		cp x.vhd y.vhd
		status=0
		env --default-signal timeout --preserve-status -s TERM 0.00$n vhd-zerofree -q -i y.vhd 2>err || status=$?
		case $status in
		0) [ ! -s err ] ;;
		143) [ "$(wc -l <err)" -le 1 ] ;;
		*) false ;;
		esac
		# the next command finishes what was begun
		vhd-info --quick y.vhd >/dev/null
		digest y.vhd | diff want -
		only x.vhd y.vhd want err
		rm -f out.vhd
		env --default-signal timeout --preserve-status -s INT 0.0$n vhd-compact -q -o out.vhd x.vhd 2>err || status=$?
		[ ! -e out.vhd ] || same_guest x.vhd out.vhd
		rm -f out.vhd
		only x.vhd y.vhd want err
		# what the shell made stays, empty or whole
		env --default-signal timeout --preserve-status -s INT 0.0$n vhd-compact -q x.vhd 2>err >out.vhd || status=$?
		[ ! -s out.vhd ] || same_guest x.vhd out.vhd
		rm -f out.vhd
	done
}

@test "what nohup protects goes on" {
	new_image x.vhd --size 48M
	mkfifo pipe
	(
		trap '' HUP
		exec vhd-zerofree -q -o y.vhd <pipe
	) &
	daemon=$!
	half x.vhd >pipe &
	sleep 0.3
	kill -HUP $daemon
	sleep 0.2
	kill -0 $daemon
	touch go
	wait $daemon
	daemon=
	vhd-zerofree -q x.vhd | cmp - y.vhd
}

@test "locks: QEMU and these commands respect each other" {
	skip_without qemu-nbd qemu-io
	new_image x.vhd --size 32M
	sum=$(sha256sum <x.vhd)
	qemu-nbd -k "$PWD/socket" -f vpc -t x.vhd &
	daemon=$!
	for ((n = 0; n < 100; n++)); do
		[ ! -S socket ] || break
		sleep 0.05
	done
	[ -S socket ]
	for command in "${edits[@]}" vhd-info; do
		for args in '-i' '-o out' ''; do
			[ "$command" != vhd-info ] || [ -z "$args" ] || continue
			# shellcheck disable=SC2086 # several words
			run -3 --separate-stderr sh -c "$command $args x.vhd | cat; "'exit 3'
			[[ $stderr == *'x.vhd: in use by another process' ]]
			[ ! -e out ]
			# shellcheck disable=SC2086
			run -3 $command $args x.vhd </dev/null >/dev/null 2>&1
		done
	done
	kill $daemon
	wait $daemon || true
	daemon=
	[ "$(sha256sum <x.vhd)" = "$sum" ]
	# an image that is only read may be read by others, but not written
	qemu-nbd -k "$PWD/socket2" -r -f vpc -t x.vhd &
	daemon=$!
	for ((n = 0; n < 100; n++)); do
		[ ! -S socket2 ] || break
		sleep 0.05
	done
	vhd-info --quick x.vhd >/dev/null
	vhd-zerofree -q -o y.vhd x.vhd
	run -3 vhd-zerofree -q -i x.vhd
	kill $daemon
	wait $daemon || true
	daemon=
	[ "$(sha256sum <x.vhd)" = "$sum" ]
}

@test "locks: two of the commands at once" {
	new_image x.vhd --size 48M
	cp x.vhd y.vhd
	# a reader whose own reader is slow
	mkfifo pipe
	vhd-zerofree -q x.vhd >pipe &
	exec 8<pipe
	head -c 1000 <&8 >/dev/null
	run -3 --separate-stderr vhd-rmfile -q -i x.vhd /pagefile.sys
	[[ $stderr == *'in use by another process' ]]
	run -3 vhd-zerofree -q -i x.vhd
	run -3 vhd-compact -q -i x.vhd
	vhd-info --quick x.vhd >/dev/null
	[ "$(vhd-zerofree x.vhd 2>/dev/null | sha256sum)" = "$(vhd-zerofree y.vhd 2>/dev/null | sha256sum)" ]
	! command -v qemu-io >/dev/null || run ! qemu-io -f vpc -c 'write 0 512' x.vhd
	cat <&8 >/dev/null
	exec 8<&-
	wait
	vhd-rmfile -q -i x.vhd /pagefile.sys
	# many at once: each waits for nobody, none does harm
	cp y.vhd z.vhd
	pids=
	for ((n = 0; n < 8; n++)); do
		vhd-zerofree -q -i z.vhd 2>"err$n" &
		pids+=" $!"
	done
	done=0
	for pid in $pids; do
		status=0
		wait "$pid" || status=$?
		[ "$status" -eq 0 ] || [ "$status" -eq 3 ]
		[ "$status" -ne 0 ] || done=$((done + 1))
	done
	# two that start in the same moment may refuse each other
	[ $done -ge 1 ] || vhd-zerofree -q -i z.vhd
	vhd-zerofree -q -i y.vhd
	same_guest y.vhd z.vhd
	run ! ls z.vhd.prep-journal
}

@test "a file that may not grow: status 1, a message, nothing left" {
	new_image x.vhd --size 48M
	for command in "${edits[@]}"; do
		read -r -a words <<<"$command"
		run -1 --separate-stderr bash -c 'ulimit -f 5000; "$@" -q -o out x.vhd' bash "${words[@]}"
		[[ $stderr == "${words[0]}: "*'out: '*'File too large' ]]
		only x.vhd
		# redirected: what the shell made is left empty
		run -1 bash -c 'ulimit -f 5000; "$@" -q x.vhd >out' bash "${words[@]}"
		[ ! -s out ]
		rm -f out
		# the spool of a pipe
		read -r -a words <<<"${command/vhd-rmfile/vhd-rmfile -}"
		run -1 bash -c 'ulimit -f 5000; cat x.vhd | TMPDIR=$PWD "$@" -q | cat >/dev/null; exit ${PIPESTATUS[1]}' bash "${words[@]}"
		only x.vhd
	done
}

@test "a full disk: status 1, the need said before the work, nothing left" {
	new_image x.vhd --size 48M
	mkdir mnt
	mount -t tmpfs -o size=8M none mnt 2>/dev/null || skip 'only root can mount a small disk'
	touch mnt/.mounted
	for command in "${edits[@]}"; do
		read -r -a words <<<"$command"
		run -1 --separate-stderr "${words[@]}" -q -o mnt/out x.vhd
		echo "$stderr"
		[[ $stderr == *'mnt/out: not enough free space: up to '*' MiB needed, '*' MiB free' ]]
		[ "${#stderr_lines[@]}" -eq 1 ]
		[ "$(ls -A mnt)" = .mounted ]
		# a pipe does not say how much will come
		read -r -a words <<<"${command/vhd-rmfile/vhd-rmfile -}"
		run -1 --separate-stderr sh -c 'cat x.vhd | "$@"' sh "${words[@]}" -q -o mnt/out
		[[ $stderr == *'No space left on device' || $stderr == *'not enough free space'* ]]
		[ "$(ls -A mnt)" = .mounted ]
		run -1 --separate-stderr sh -c 'cat x.vhd | "$@" -q --tmpdir mnt | wc -c >&2; exit 1' sh "${words[@]}"
		[[ $stderr == *'No space left on device'* ]]
		[ "$(ls -A mnt)" = .mounted ]
	done
	# in place the journal needs a little room; where there is none, the image is as it was
	truncate -s 7M small.raw
	mkntfs -F -Q -q -T small.raw 2>/dev/null
	printf 'gen /a/one noise 300000 1\nfragment /a/two 200 noise 2\nlogfile clean\n' | "$populate" small.raw
	cp --sparse=never small.raw mnt/small.raw
	head -c 8M /dev/zero >mnt/fill 2>/dev/null || true
	sum=$(sha256sum <mnt/small.raw)
	run -1 --separate-stderr vhd-rmfile -q -i -r mnt/small.raw /a
	echo "$stderr"
	[ "$(sha256sum <mnt/small.raw)" = "$sum" ]
	rm mnt/fill
	[ "$(ls -A mnt | sort | tr '\n' ' ')" = '.mounted small.raw ' ]
	vhd-rmfile -q -i -r mnt/small.raw /a
	cp mnt/small.raw small.raw
	sound_ntfs small.raw
}

@test "pipes are kept in --tmpdir, without a name, and no longer than needed" {
	new_image x.vhd --size 48M
	mkdir tmp
	for command in "${edits[@]}"; do
		read -r -a words <<<"${command/vhd-rmfile/vhd-rmfile -}"
		cat x.vhd | "${words[@]}" -q --tmpdir tmp | cat >a.vhd
		cat x.vhd | TMPDIR=tmp "${words[@]}" -q | cat >b.vhd
		[ -z "$(ls -A tmp)" ]
		run -1 --separate-stderr sh -c 'cat x.vhd | "$@" -q --tmpdir absent | cat >c.vhd; exit 1' sh "${words[@]}"
		[[ $stderr == *'absent: cannot make a temporary file'* ]]
		[ ! -s c.vhd ]
	done
	# from a pipe to a file vhd-compact keeps nothing at all
	cat x.vhd | vhd-compact -q --tmpdir absent -o d.vhd
	same_guest d.vhd x.vhd
}

@test "between files the system copies" {
	skip_without strace
	new_image x.vhd --size 48M
	traced -f -c -e trace=copy_file_range,pwrite64 -o log vhd-zerofree -q -o y.vhd x.vhd
	grep -q copy_file_range log
	# into a pipe as well
	traced -f -e trace=splice -o log vhd-zerofree -q x.vhd | cat >z.vhd
	grep -q splice log
	cmp y.vhd z.vhd
}

@test "memory does not grow with the disk" {
	case $build in *-san) skip 'sanitizers take memory of their own' ;; esac
	skip_under_valgrind 'it takes memory of its own'
	# the virtual size of the process: more than it can ever touch
	for size in 1 64; do
		rm -f x.raw
		truncate -s ${size}G x.raw
		mkntfs -F -Q -q -T x.raw 2>/dev/null
		printf 'gen /a/one noise 30000000 1\ngen /gone noise 20000000 2\nrm /gone\nlogfile clean\n' | "$populate" x.raw
		bash -c 'ulimit -v 400000; vhd-info --check x.raw >/dev/null && vhd-rmfile -q -n x.raw /a/one >/dev/null &&
			vhd-zerofree -q -o y.raw x.raw && vhd-compact -q -o y.vhd x.raw && vhd-zerofree -q -i x.raw'
		[ "$(count_blocks y.vhd)" -lt 300 ]
		rm -f y.raw y.vhd
	done
}

@test "what lies in no volume that is known is the same, to the byte, after every step" {
	skip_without sfdisk mkfs.ext4 mkntfs
	# noise between, before and behind the partitions; one of an unknown type, a logical one, one with ext4
	head -c 64M /dev/urandom >disk.raw
	dd if=/dev/zero of=disk.raw bs=512 count=1 conv=notrunc status=none
	sfdisk -q disk.raw <<-'END'
		label: dos
		start=2048, size=40960, type=7, bootable
		start=45056, size=20480, type=83
		start=67584, size=8192, type=da
		start=77824, size=51200, type=f
		start=79872, size=10240, type=7
		start=94208, size=16384, type=27
	END
	truncate -s 20M ntfs
	mkntfs -F -Q -q -T -p 2048 -H 255 -S 63 ntfs 2>/dev/null
	printf 'gen /pagefile.sys noise 3000000 1\ngen /keep noise 4000000 2\ngen /gone noise 2000000 3\nrm /gone\nlogfile clean\n' |
		"$populate" --stamp ntfs
	truncate -s 10M ext4
	mkfs.ext4 -q -F ext4
	head -c 3M /dev/urandom >in-ext4
	debugfs -w -R 'write in-ext4 file' ext4 2>/dev/null
	debugfs -w -R 'rm file' ext4 2>/dev/null
	dd if=ntfs of=disk.raw bs=1M seek=1 conv=notrunc status=none
	dd if=ext4 of=disk.raw bs=1M seek=22 conv=notrunc status=none
	# all but the NTFS volume, which has the first MiB's noise before it, and ends at 21 MiB
	other() {
		vhd-compact -q --to raw "$1" | { head -c 1M; head -c 20M >/dev/null; cat; }
	}
	other disk.raw >want
	[ "$(stat -c %s want)" -eq $((44 << 20)) ]
	vhd-compact -q -o 1.vhd disk.raw
	vhd-rmfile -q -o 2.vhd 1.vhd /pagefile.sys
	vhd-defrag -q -o 3.vhd 2.vhd
	vhd-zerofree -q -o 4.vhd 3.vhd
	vhd-compact -q --block-size 512K -o 5.vhd 4.vhd
	ckm-pack -q --trim -o 5.ckm 5.vhd
	ckm-unpack -q --no-cache -o 6.vhd 5.ckm
	for n in {1..6}; do
		other $n.vhd | cmp - want
		sound_ntfs $n.vhd
	done
	same_guest 5.vhd 6.vhd
	cp 1.vhd x.vhd
	vhd-rmfile -q -i x.vhd /pagefile.sys
	vhd-defrag -q -i x.vhd
	vhd-zerofree -q -i x.vhd
	vhd-compact -q -i x.vhd
	other x.vhd | cmp - want
}
