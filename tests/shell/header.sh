#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# xenmolt.h alone, first and only, as strict C99 and C++; and it names no type of libxl or libxc.
set -eu
header=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)/libxl-ext/xenmolt.h
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf '#include "%s"\n#include "%s"\nint main(void) { xenmolt_config c; c.size = sizeof(c); return c.size ? 0 : xenmolt_exit_status(0); }\n' \
    "$header" "$header" >"$scratch/alone.c"
cp "$scratch/alone.c" "$scratch/alone.cc"
${CC:-cc} -std=c99 -pedantic-errors -Wall -Wextra -Werror -c -o "$scratch/c.o" "$scratch/alone.c" || { echo "FAIL: C99"; exit 1; }
if command -v "${CXX:-c++}" >/dev/null; then
    "${CXX:-c++}" -std=c++98 -Wall -Wextra -Werror -c -o "$scratch/cc.o" "$scratch/alone.cc" || { echo "FAIL: C++"; exit 1; }
else
    echo "SKIP: no C++ compiler here"
    exit 77
fi
! grep -nE '\b(libxl_|xc_|xs_|xentoollog)' "$header" || { echo "FAIL: a Xen type in the public header"; exit 1; }
