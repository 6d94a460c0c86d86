#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The stored inputs of the fuzzers, what they once found among them: each is read to its end without a crash, in bounded
# time and memory.

load helper

replay() {
	local inputs
	cd "$top" || return 1
	inputs=$(find "testdata/fuzz/$1" -type f | wc -l)
	[ "$inputs" -gt 0 ]
	limit_memory 1048576
	run timeout $((120 * slower)) "$build/tests/fuzz/$1" "testdata/fuzz/$1"
	[ "$status" -eq 0 ]
	[ "${lines[-1]}" = "$inputs inputs replayed" ]
}

@test "ckm_index" {
	replay ckm_index
}

@test "ckm_package" {
	replay ckm_package
}

@test "client_settings" {
	replay client_settings
}

@test "codec" {
	replay codec
}

@test "exfat" {
	replay exfat
}

@test "fat" {
	replay fat
}

@test "http" {
	replay http
}

@test "journal" {
	replay journal
}

@test "layout" {
	replay layout
}

@test "local_index" {
	replay local_index
}

@test "ntfs" {
	replay ntfs
}

@test "table" {
	replay table
}

@test "vhd" {
	replay vhd
}

@test "vhdx" {
	replay vhdx
}

@test "patch" {
	replay patch
}
