# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh disable=SC2034,SC1007
# Shared by the shell tests: where the program is, scratch space, assertions. Exit status 77: skipped.
# XENMOLT: the program; default: the one of the build directory (top_builddir, else the current directory).

set -u
srcdir_top=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
XENMOLT=${XENMOLT:-${top_builddir:-.}/xenmolt}

skip() { echo "SKIP: $*"; exit 77; }
fail() { echo "FAIL: $*"; exit 1; }
requires() {
    for tool in "$@"; do
        command -v "$tool" >/dev/null 2>&1 || skip "$tool is not here"
    done
}

[ -x "$XENMOLT" ] || skip "$XENMOLT is not built"
case $XENMOLT in /*) ;; *) XENMOLT=$PWD/$XENMOLT ;; esac
# What libtool's wrapper does for $XENMOLT itself, for the copies of its path that the tests make.
LD_LIBRARY_PATH=$(dirname "$XENMOLT")/.libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
XENMOLT_STATE_DIR=$scratch/state
export XENMOLT_STATE_DIR
unset XENMOLT_XL XENMOLT_SHIM_DIR

# expect STATUS CMD...: runs CMD, its output in $scratch/out and $scratch/err; fails unless it exits so.
expect() {
    want=$1
    shift
    got=0
    "$@" >"$scratch/out" 2>"$scratch/err" </dev/null || got=$?
    [ "$got" = "$want" ] || { cat "$scratch/out" "$scratch/err"; fail "exit $got, not $want: $*"; }
}
out_has() { grep -qF -e "$1" "$scratch/out" || { cat "$scratch/out"; fail "not on standard output: $1"; }; }
err_has() { grep -qF -e "$1" "$scratch/err" || { cat "$scratch/err"; fail "not on standard error: $1"; }; }
out_empty() { [ ! -s "$scratch/out" ] || { cat "$scratch/out"; fail "standard output is not empty"; }; }
same() { [ "$1" = "$2" ] || fail "'$1' is not '$2'"; }
