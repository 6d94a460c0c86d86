# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
#
# What the bats files share: load it by `load helper`. It puts the commands first in PATH, so that a test calls them by
# name, and names the rest:
#
#   $top        the source tree           $build     what make built (BUILD=build-san: the sanitized one)
#   $populate   tests/tools/ntfs-populate $samples   disks made by other people's tools
#
# Images are small, synthetic and made once a run (new_image), and judged by other people's tools (same_guest, sound_ntfs,
# digest). IMAGE below is a VHD or a raw disk.

bats_require_minimum_version 1.5.0

top=$(cd "$BATS_TEST_DIRNAME/.." && pwd)
build=${BUILD:-build}
case $build in /*) ;; *) build=$top/$build ;; esac
populate=$build/tests/ntfs-populate
samples=$top/../shared/samples
PATH=$build/cmd:$PATH:/usr/sbin:/sbin
export PATH LC_ALL=C TZ=UTC0 MTOOLS_SKIP_CHECK=1

# Skip the test unless every named tool is there.
skip_without() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null || skip "$tool is not installed"
		[ "$tool" != strace ] || skip_under_valgrind 'strace sees its calls'
	done
}

# Whether the commands run under valgrind: VALGRIND=1 tests/run.
under_valgrind() {
	[ -n "${PREP_MEMCHECK-}" ]
}

# Skip the test there, for this reason.
skip_under_valgrind() {
	! under_valgrind || skip "under valgrind: $1"
}

# How many times as long a command may take that takes too long when it hangs.
slower=1
! under_valgrind || slower=30

# limit_memory KIB: as ulimit -v. What sanitizers and valgrind take for themselves is beyond any limit.
limit_memory() {
	case $build in *san) return ;; esac
	under_valgrind || ulimit -v "$1"
}

# What hostile input may cost a command: limited COMMAND..., 10 s of the processor and 640 MiB of addresses.
limited() {
	limit_memory 655360
	ulimit -t $((10 * slower))
	exec timeout $((60 * slower)) "$@"
}

# Where images are kept for the whole run: tests/run names a folder for all files, bats alone has one for each.
image_cache() {
	echo "${PREP_TEST_CACHE:-$BATS_SUITE_TMPDIR}"
}

# The path of a synthetic image made with these options of scripts/mkimage. Shared: never write to it.
cached_image() {
	local cache path
	cache=$(image_cache)
	path=$cache/image-$(printf '%s\n' "$@" | sha256sum | cut -c1-16)
	(
		flock 9
		[ -e "$path" ] || "$top/scripts/mkimage" -q --corpus synthetic "$@" "$path" >&2
	) 9>"$path.lock" || return
	echo "$path"
}

# new_image FILE [mkimage's options]: a synthetic image of the test's own.
new_image() {
	local from
	from=$(cached_image "${@:2}") || return
	cp --reflink=auto "$from" "$1"
}

# sample NAME [FILE]: unpack samples/NAME.xz to FILE (default: NAME here); skip where there are none.
sample() {
	[ -d "$samples" ] || skip "no samples in ../shared/samples"
	skip_without xz
	xz -dc "$samples/$1.xz" >"${2:-$1}"
}

# The 8 bytes at OFFSET of FILE.
cookie() {
	dd if="$1" bs=1 skip="$2" count=8 status=none | tr '\0' .
}

is_vhd() {
	[ "$(cookie "$1" 0)" = conectix ] || [ "$(tail -c 512 "$1" | cookie /dev/stdin 0)" = conectix ]
}

# How qemu-img opens an image so that a VHD's size is its footer's current size: left to itself it takes the geometry's
# for most creators, which is often smaller.
qemu_image() {
	if is_vhd "$1"; then
		echo "driver=vpc,force_size_calc=current_size,file.driver=file,file.filename=$1"
	else
		echo "driver=raw,file.driver=file,file.filename=$1"
	fi
}

# Bytes of the disk that the guest sees.
guest_size() {
	qemu-img info --output=json --image-opts "$(qemu_image "$1")" |
		sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p' | head -n 1
}

# Whether the guest sees the same disk in two images: size and every byte.
same_guest() {
	local a b
	a=$(guest_size "$1")
	b=$(guest_size "$2")
	[ "$a" = "$b" ] || { echo "sizes differ: $1 $a, $2 $b"; return 1; }
	qemu-img compare --image-opts "$(qemu_image "$1")" "$(qemu_image "$2")"
}

# to_raw IMAGE FILE: what the guest sees, as a raw file.
to_raw() {
	qemu-img convert --image-opts -O raw "$(qemu_image "$1")" "$2"
}

# A line "START LENGTH", in sectors, for every NTFS volume of a raw disk; a bare volume is one that starts at 0.
ntfs_parts() {
	local start len
	if [ "$(cookie "$1" 3)" = 'NTFS    ' ]; then
		echo 0 $(($(stat -c %s "$1") / 512))
		return
	fi
	sfdisk -d "$1" | sed -n 's/.*: start= *\([0-9]*\), size= *\([0-9]*\),.*/\1 \2/p' | while read -r start len; do
		[ "$(cookie "$1" $((start * 512 + 3)))" != 'NTFS    ' ] || echo "$start" "$len"
	done
}

# cut_part RAW START LENGTH FILE: copy a partition out of a raw disk; sectors, as ntfs_parts prints them.
cut_part() {
	dd if="$1" of="$4" bs=1M iflag=skip_bytes,count_bytes skip=$(($2 * 512)) count=$(($3 * 512)) conv=sparse status=none
	truncate -s $(($3 * 512)) "$4"
}

# Whether every NTFS volume of an image is sound, as ntfsresize and ntfsclone see it. There must be one.
sound_ntfs() {
	local dir n=0 start len
	dir=$(mktemp -d -p "$BATS_TEST_TMPDIR") || return
	to_raw "$1" "$dir/raw" || return
	while read -r start len; do
		n=$((n + 1))
		cut_part "$dir/raw" "$start" "$len" "$dir/part" || return
		ntfsresize -i -f "$dir/part" >"$dir/log" 2>&1 || { cat "$dir/log"; return 1; }
		grep -q 'You might resize\|volume is full' "$dir/log" || { cat "$dir/log"; return 1; }
		ntfsclone -f -m -O "$dir/meta" "$dir/part" >"$dir/log" 2>&1 || { cat "$dir/log"; return 1; }
		rm "$dir/part" "$dir/meta"
	done < <(ntfs_parts "$dir/raw")
	rm -r "$dir"
	[ "$n" -gt 0 ] || { echo "$1: no NTFS volume"; return 1; }
}

# SHA-256, size and path of every file and stream of the (largest) NTFS volume, read by libntfs-3g.
digest() {
	"$populate" --digest "$1"
}

# hold FILE: have QEMU open it for writing, in the background, as $pid; end it by release.
hold() {
	sleep 60 | qemu-io -f raw "$1" >/dev/null 3>&- &
	pid=$!
	for _ in {1..100}; do
		sleep 0.1
		! find "/proc/$pid/fd" -lname "*/${1##*/}" 2>/dev/null | grep -q . || break
	done
	sleep 0.3
}

release() {
	kill "$pid"
	wait "$pid" || true
}

# cut_off IMAGE COMMAND...: run the command on a copy of IMAGE.was, killed at the first call at which its journal stands.
cut_off() {
	local image=$1 n
	shift
	skip_under_valgrind 'its threads survive being killed'
	for n in $(seq 2 40) $(seq 42 3 600); do
		rm -f "$image.prep-journal"
		cp --sparse=always "$image.was" "$image"
		# the shell too tells of who was killed
		{
			env FAULTS_HOW=kill FAULTS_AT="$n" LD_PRELOAD="$build/tests/faults.so" \
				ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 "$@" || true
		} 2>/dev/null
		[ ! -e "$image.prep-journal" ] || return 0
	done
	return 1
}
