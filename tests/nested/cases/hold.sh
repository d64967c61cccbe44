#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The unit test of held packets (tests/unit/test_hold) on dom0's kernel: the build machine's may have no sch_plug, and skips it.
. "$(dirname "$0")/../lib/case.sh"

BUILD=${XENMOLT_BUILD:-$NESTED/../../build}
if [ ! -f "$BUILD/Makefile" ]; then
    skip "no built tree at $BUILD: tests/run unit makes one"
    exit 0
fi
make -s -C "$BUILD" tests/unit/test_hold >"$scratch/make" 2>&1 || { cat "$scratch/make"; give_up "test_hold does not build"; }
begin dom0-ready
host push "$BUILD/tests/unit/test_hold" /root/test_hold
host push "$(ldd "$BUILD/tests/unit/test_hold" | awk '/libcmocka/ { print $3 }')" /root/libcmocka.so.0
dom0 "modprobe tun; cd /root && LD_LIBRARY_PATH=/root timeout 300 ./test_hold 2>&1" >"$scratch/out"
grep -aE '^\[ +(RUN|OK|FAILED) +\]|^\[ +(ERROR|LINE) +\]' "$scratch/out"
names=$(sed -n 's/^\[ RUN *\] //p' "$scratch/out")
check "it ran" test -n "$names" || tail -n 5 "$scratch/out" | sed 's/^/   | /'
for name in $names; do check "$name" grep -qE "^\[ +OK +\] $name\$" "$scratch/out"; done
check "the backlog is as it was" dom0 "[ \$(cat /proc/sys/net/core/netdev_max_backlog) = 1000 ]"
