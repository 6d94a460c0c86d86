#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# What every command does with its command line, and that its manual page knows the same options.

load helper

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	for source in "$top"/cmd/vhd-*.c "$top"/cmd/ckm-*.c; do
		[ ! -e "$source" ] || commands+=("$(basename "$source" .c)")
	done
	[ "${#commands[@]}" -ge 4 ]
	# set by what goes on to the next command, so that all of them are shown
	bad=
}

# The options that the page's lists describe, one a line, from its mdoc source: `Fl o , Fl -output` or `Fl Fl output`.
page_options() {
	awk '
		/^\.It / {
			for (i = 2; i <= NF; i++) {
				if ($i != "Fl") continue
				o = $(++i)
				if (o == "Fl") o = "-" $(++i)
				gsub(/\\/, "", o)
				if (o != "") print "-" o
			}
		}' "$1" | sort -u
}

# The options that --help lists, one a line.
help_options() {
	sed -n 's/^ \{2,\}\(-.*\)/\1/p' "$1" | sed 's/   *[^ -].*//' | grep -oE '(^|[ ,])--?[A-Za-z0-9][A-Za-z0-9-]*' |
		tr -d ' ,' | sort -u
}

@test "--help and -h: status 0, 80 columns, nothing on stderr" {
	for c in "${commands[@]}"; do
		echo "$c"
		"$c" --help >help 2>err
		[ ! -s err ]
		! grep -nE '.{81}|	' help || bad=1
		head -n 1 help | grep -q "^Usage: $c\( \|$\)"
		grep -q '^Exit status: 0 ' help
		[ "$(tail -c 1 help | od -An -tx1)" = ' 0a' ]
		"$c" -h | cmp - help
	done
	[ ! "$bad" ]
}

@test "--version and -V: status 0, name and version on one line, nothing on stderr" {
	version=$(sed -n 's/^#define PREP_VERSION "\(.*\)"/\1/p' "$top/libprep/version.h")
	for c in "${commands[@]}"; do
		echo "$c"
		"$c" --version >out 2>err
		[ ! -s err ]
		[ "$(cat out)" = "$c $version" ]
		"$c" -V | cmp - out
	done
}

@test "an unknown option: status 2, a message with the command's name, nothing on stdout" {
	for c in "${commands[@]}"; do
		for option in --no-such-option -@ --help=yes; do
			echo "$c $option"
			run -2 --separate-stderr "$c" "$option"
			[ -z "$output" ]
			[ "${stderr#"$c": }" != "$stderr" ]
		done
	done
}

@test "an option without its value: status 2, nothing on stdout" {
	for c in "${commands[@]}"; do
		echo "$c"
		run -2 --separate-stderr "$c" --tmpdir
		[ -z "$output" ]
		[ -n "$stderr" ]
	done
}

@test "a full standard output is an error, not silence" {
	[ -c /dev/full ] || skip "no /dev/full"
	for c in "${commands[@]}"; do
		echo "$c"
		# shellcheck disable=SC2016 # it is the inner shell's
		run -1 sh -c '"$1" --help >/dev/full' sh "$c"
	done
}

@test "a report whose reader has left: a silent end, as head(1) expects" {
	exec 9> >(exec true)
	wait $!
	for c in "${commands[@]}"; do
		rc=0
		"$c" --help >&9 2>err || rc=$?
		[ $rc -eq 141 ]
		[ ! -s err ]
	done
	exec 9>&-
}

@test "every option of --help works as an option: it is not unknown" {
	for c in "${commands[@]}"; do
		"$c" --help >help
		while read -r option; do
			# a value that no option takes, an image that is not there: whatever happens, the option is known
			run --separate-stderr "$c" "$option" /nonexistent/x /nonexistent/y </dev/null
			echo "$c $option: $stderr"
			case $stderr in
			*nrecognized\ option* | *nvalid\ option* | *nknown\ option*) false ;;
			esac
		done < <(help_options help)
	done
}

@test "every option of --help is in the manual page, and the other way round" {
	for c in "${commands[@]}"; do
		echo "$c"
		page=$top/man/$c.1
		[ -e "$page" ] || { echo "$page is missing"; bad=1; continue; }
		"$c" --help >help
		help_options help >in-help
		page_options "$page" >in-page
		[ "$(wc -l <in-help)" -ge 4 ]
		diff in-help in-page || bad=1
	done
	[ ! "$bad" ]
}

@test "an option means the same in every command: one short and one long name, with a value or without" {
	for c in "${commands[@]}"; do
		"$c" --help | sed -n 's/^  \(-[A-Za-z0-9]\), \(--[a-z0-9-]*\)\( [A-Z]\)\{0,1\}.*/\1 \2 \3/p; s/^ \{6\}\(--[a-z0-9-]*\)\( [A-Z]\)\{0,1\}.*/- \1 \2/p' |
			awk -v c="$c" '{ print $2, $1, (NF > 2 ? "value" : "none"), c }'
	done | sort >all
	[ -s all ]
	awk '
		{ now = $2 " " $3 }
		$1 in known && known[$1] != now { print $1 ": " known[$1] " in " where[$1] ", " now " in " $4; bad = 1 }
		$2 != "-" && $2 in long && long[$2] != $1 { print $2 ": " long[$2] " and " $1 " (" $4 ")"; bad = 1 }
		{ known[$1] = now; where[$1] = $4; if ($2 != "-") long[$2] = $1 }
		END { exit bad }' all
}
