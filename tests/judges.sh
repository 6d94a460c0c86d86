# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
#
# Judges: whether a folder is whole after a command in it was cut off, by a fault (tests/tools/sweep.c: HOW and STATUS
# are set) or a power loss (tests/tools/powerloss.c). The current folder is the one that is judged; $want names another,
# with what there was at first (old.*) and what there is to be (new.*). They say on standard error what is wrong.

no() {
	echo "$*" >&2
	ls -lA >&2
	exit 1
}

# The names here, apart from these, as a line.
others() {
	for name in $(ls -A); do
		case " $* " in
		*" $name "*) ;;
		*) printf '%s ' "$name" ;;
		esac
	done
}

is_vhd() {
	[ "$(head -c 8 "$1")" = conectix ] || [ "$(tail -c 512 "$1" | head -c 8)" = conectix ]
}

# The disk in image $1 goes to $want/guest; QEMU, which we did not write, sees the same. It is asked once for each file
# that is met: most points leave one of a few.
read_disk() {
	guest "$1" >"$want/guest" || no "$1: not to be read"
	digest=$(sha256sum "$1" "$want/guest" | cut -c 1-64 | tr -d '\n')
	[ ! -e "$want/qemu.$digest" ] || return 0
	image=driver=raw
	! is_vhd "$1" || image=driver=vpc,force_size_calc=current_size
	said=$(qemu-img compare --image-opts "$image,file.driver=file,file.filename=$1" \
		"driver=raw,file.driver=file,file.filename=$want/guest" 2>&1)
	[ "$said" = 'Images are identical.' ] || no "$1: QEMU sees another disk: $said"
	: >"$want/qemu.$digest"
}

# The disk in image $1 is old or new; sets $is.
old_or_new() {
	read_disk "$1"
	if cmp -s "$want/guest" "$want/new.guest"; then
		is=new
	elif cmp -s "$want/guest" "$want/old.guest"; then
		is=old
	else
		no "$1: neither old nor new"
	fi
}

# A command that said it was done has done it.
as_told() {
	[ "${STATUS-}" != 0 ] || [ "$is" = new ] || no "status 0, and $1 is old"
	[ "${HOW-}" != recovery ] || [ "$is" = new ] || no "recovered, and $1 is old"
}

# judge_in_place IMAGE AGAIN: the next command has a whole image, old or new, and takes away what was left beside it;
# after a kill the command itself may have to be run again for that.
judge_in_place() {
	said=$(vhd-info --quick "$1" 2>&1 >/dev/null) || no "vhd-info: $said"
	[ -z "$said" ] || no "vhd-info: $said"
	old_or_new "$1"
	as_told "$1"
	finish "$2" "$1"
}

# finish AGAIN NAME...: nothing but these names is here, after a kill or power loss once the command has been run again.
finish() {
	again=$1
	shift
	[ -n "$(others "$@")" ] || return 0
	# where files have names from the start, a failing unlink leaves one as well
	case ${HOW-}${FAULTS_NO_TMPFILE:+named} in
	'' | named | kill* | tear* | eionamed) sh -c "$again" >/dev/null || no "the next run fails" ;;
	esac
	[ -z "$(others "$@")" ] || no "left: $(others "$@")"
}

# judge_files IMAGE AGAIN: the same where data is moved: the files are what they were, the volume passes the audit.
judge_files() {
	said=$(vhd-info --check "$1" 2>&1 >/dev/null) || no "vhd-info: $said"
	ntfs-populate --digest "$1" | cmp -s - "$want/old.files" || no "$1: other files than before"
	read_disk "$1"
	cmp -s "$want/guest" "$want/new.guest" && is=new || is=old
	as_told "$1"
	finish "$2" "$1"
}

# judge_output INPUT OUT AGAIN: the input as it was; the output as it is to be, or not there (or the one before).
judge_output() {
	cmp -s "$1" "$want/old.input" || no "$1: the input was changed"
	is=none
	if [ -e "$2" ]; then
		old_or_new "$2"
		is_vhd "$2" || no "$2: no VHD"
	fi
	[ -e "$2" ] || [ ! -e "$want/old.guest" ] || no "$2: gone"
	as_told "$2"
	finish "$3" "$1" "$2"
}

# judge_redirected INPUT OUT AGAIN: the shell opened OUT. It is what it is to be where the command said so, empty where
# that said that it failed; of who was killed it has anything.
judge_redirected() {
	cmp -s "$1" "$want/old.input" || no "$1: the input was changed"
	case ${HOW-} in
	'' | kill* | tear*) ;;
	*)
		if [ "$STATUS" = 0 ]; then
			old_or_new "$2"
		elif [ -s "$2" ]; then
			no "$2: status $STATUS, and it is not empty"
		fi
		;;
	esac
	sh -c "$3" || no "the next run fails"
	old_or_new "$2"
	[ -z "$(others "$1" "$2")" ] || no "left: $(others "$1" "$2")"
}

# A chain as our own reader has it, by its own disk.
chain() {
	vhd-compact -q --to raw "$1" | cat
}

# judge_child UNDO AGAIN: a changed undo disk.
judge_child() {
	said=$(vhd-info --quick "$1" 2>&1 >/dev/null) || no "vhd-info: $said"
	cmp -s base.vhd "$want/base.vhd" || no "the base was changed"
	chain "$1" >"$want/guest"
	if cmp -s "$want/guest" "$want/new.guest"; then
		is=new
	elif cmp -s "$want/guest" "$want/old.guest"; then
		is=old
	else
		no "$1: neither old nor new"
	fi
	as_told "$1"
	finish "$2" base.vhd base.vhd.prep-undo "$1"
}

# The base: as it was, with or without an undo disk; where none stands on it, with its permissions.
same_base() {
	cmp -s base.vhd "$want/base.vhd" || no "the base was changed"
}

lifted() {
	[ "$(stat -c %a base.vhd)" = "$(cat "$want/mode")" ] || no "the base has other permissions than before"
}

judge_undo_create() {
	same_base
	if [ -e undo.vhd ]; then
		is=new
		vhd-info --quick -q undo.vhd >/dev/null || no "undo.vhd: damaged"
		[ -e base.vhd.prep-undo ] || no "an undo disk whose base is not marked"
		chain undo.vhd | cmp -s - "$want/old.guest" || no "undo.vhd: another disk than its base"
	else
		is=old
	fi
	as_told undo.vhd
	[ $is = new ] || vhd-undo create -q base.vhd undo.vhd >/dev/null || no "it cannot be made again"
	[ -z "$(others base.vhd base.vhd.prep-undo undo.vhd)" ] || no "left: $(others base.vhd base.vhd.prep-undo undo.vhd)"
	vhd-undo discard -q undo.vhd || no "it cannot be discarded"
	same_base
	lifted
	[ "$(ls -A)" = base.vhd ] || no "left"
}

# Until the commit is finished the undo disk stands, and shows what is to be; after it the base does.
judge_undo_commit() {
	if [ -e undo.vhd ]; then
		is=old
		chain undo.vhd >"$want/guest" && cmp -s "$want/guest" "$want/new.guest" || no "undo.vhd: not what it was"
		as_told base.vhd
		vhd-undo commit -q undo.vhd || no "the next commit fails"
	fi
	is=new
	vhd-info --quick -q base.vhd >/dev/null || no "base.vhd: damaged"
	read_disk base.vhd
	cmp -s "$want/guest" "$want/new.guest" || no "base.vhd: not what was committed"
	# the next command that writes
	vhd-zerofree -q -i base.vhd || no "base.vhd: cannot be written"
	lifted
	[ "$(ls -A)" = base.vhd ] || no "left"
}

judge_undo_discard() {
	same_base
	if [ -e undo.vhd ]; then
		is=old
		chain undo.vhd | cmp -s - "$want/new.guest" || no "undo.vhd: not what it was"
		as_told undo.vhd
	else
		is=new
	fi
	if [ -e undo.vhd ] || [ -e base.vhd.prep-undo ]; then
		vhd-undo discard -q --parent base.vhd undo.vhd || no "the next discard fails"
	fi
	same_base
	lifted
	[ "$(ls -A)" = base.vhd ] || no "left"
}

# judge_pack OUT AGAIN: each of the two files is whole, old or new; together they fit, or one of the two is not there yet.
judge_pack() {
	cmp -s base.vhd "$want/base.vhd" || no "the input was changed"
	is=none
	[ -e "$1" ] || [ ! -e "$1.index" ] || no "an index without its package"
	for file in "$1" "$1.index"; do
		[ -e "$file" ] || continue
		if cmp -s "$file" "$want/new.$file"; then
			is=$is-new
		elif cmp -s "$file" "$want/old.$file"; then
			is=$is-old
		else
			no "$file: neither old nor new"
		fi
	done
	[ ! -e "$want/old.$1" ] || { [ -e "$1" ] && [ -e "$1.index" ]; } || no "a file is gone"
	[ "${STATUS-}" != 0 ] || [ "$is" = none-new-new ] || no "status 0, and not both files are new"
	# an index is never newer than its package, and a failure that the command lives to tell leaves both or none, but
	# where the package has been replaced
	case ${STATUS-}:$is in
	*-old-new | 1:none-new) no "the two do not fit" ;;
	esac
	# the way out of a crash between the two: the index from the package
	case $is in
	none-new | none-new-old) ckm-index -q -f -o "$1.index" "$1" || no "the index cannot be made again" ;;
	esac
	[ "$is" = none ] || ckm-verify -q "$1" || no "ckm-verify"
	finish "$2" base.vhd "$1" "$1.index"
}

# judge_file OUT AGAIN: a file that is what it is to be, what it was, or not there.
judge_file() {
	is=none
	if [ -e "$1" ]; then
		if cmp -s "$1" "$want/new.$1"; then
			is=new
		elif cmp -s "$1" "$want/old.$1"; then
			is=old
		else
			no "$1: neither old nor new"
		fi
	fi
	[ ! -e "$want/old.$1" ] || [ $is != none ] || no "$1: gone"
	as_told "$1"
	finish "$2" "$1"
}

# judge_fetch OUT AGAIN: what is unfinished stays in OUT.part, and the next run goes on with it, whatever it holds.
judge_fetch() {
	is=none
	[ ! -e "$1" ] || old_or_new "$1"
	[ ! -e "$want/old.guest" ] || [ $is != none ] || no "$1: gone"
	as_told "$1"
	if [ $is != new ] || [ -e "$1.part" ]; then
		sh -c "$2" >/dev/null || no "the next run fails"
	fi
	read_disk "$1"
	cmp -s "$want/guest" "$want/new.guest" || no "$1: not the image after the next run"
	[ -z "$(others "$1")" ] || no "left: $(others "$1")"
}
