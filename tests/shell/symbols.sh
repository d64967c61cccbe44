#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# libxenmolt.so exports exactly the functions of tests/shell/symbols.txt, under its version. A new function is added
# there by hand; one that was released never goes away.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
lib=${top_builddir:-.}/.libs/libxenmolt.so
[ -f "$lib" ] || { echo "SKIP: $lib is not built"; exit 77; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
nm -D --defined-only "$lib" | awk '{ print $3 }' | grep -v '^XENMOLT_1' | sed 's/@@*/ /' | sort >"$scratch/exported"
grep -v '^#' "$here/symbols.txt" | sort >"$scratch/frozen"
diff -u "$scratch/frozen" "$scratch/exported" || { echo "FAIL: the exported symbols changed"; exit 1; }
# Each is declared in the public header, and nothing is declared there that is not exported.
sed -n 's/.*\b\(xenmolt_[a-z_]*\)(.*/\1/p' "$here/../../libxl-ext/xenmolt.h" | grep -v '^xenmolt_config$' | sort -u >"$scratch/declared"
awk '{ print $1 }' "$scratch/frozen" | diff -u "$scratch/declared" - || { echo "FAIL: header and library differ"; exit 1; }
