#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The unit tests of held packets (tests/unit/test_hold, test_divert, test_requests) on dom0's kernel: the build machine's may have no sch_plug, and skips them.
. "$(dirname "$0")/../lib/case.sh"

BUILD=${XENMOLT_BUILD:-$NESTED/../../build}
if [ ! -f "$BUILD/Makefile" ]; then
    skip "no built tree at $BUILD: tests/run unit makes one"
    exit 0
fi
make -s -C "$BUILD" tests/unit/test_hold tests/unit/test_divert tests/unit/test_requests >"$scratch/make" 2>&1 || { cat "$scratch/make"; give_up "the tests do not build"; }
begin dom0-ready
host push "$(ldd "$BUILD/tests/unit/test_hold" | awk '/libcmocka/ { print $3 }')" /root/libcmocka.so.0
dom0 "modprobe tun"
for test in test_hold test_divert test_requests; do
    host push "$BUILD/tests/unit/$test" "/root/$test"
    dom0 "cd /root && LD_LIBRARY_PATH=/root timeout 300 ./$test 2>&1" >"$scratch/out"
    grep -aE '^\[ +(RUN|OK|FAILED) +\]|^\[ +(ERROR|LINE) +\]' "$scratch/out"
    names=$(sed -n 's/^\[ RUN *\] //p' "$scratch/out")
    check "$test ran" test -n "$names" || tail -n 5 "$scratch/out" | sed 's/^/   | /'
    for name in $names; do check "$name" grep -qE "^\[ +OK +\] $name\$" "$scratch/out"; done
done
check "the backlog is as it was" dom0 "[ \$(cat /proc/sys/net/core/netdev_max_backlog) = 1000 ]"
