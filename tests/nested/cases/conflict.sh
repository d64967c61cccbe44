#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The guest and the upgrade change the same files, and no rule says who wins: refused before the freeze, by name, with a file
# to decide in. (With decisions it goes on: see merge-proof.sh.)
. "$(dirname "$0")/../lib/case.sh"

begin
PID_BEFORE=$(main_pid)
guest "mkdir -p /opt/shop"
world "$scratch/before"
start_load 20
both_write
check "the conflict ends the operation" same "$(upgrade_status 900)" 11
op=$(operation)
check "the message names the file" dom0 "grep -qF /opt/shop/prices /tmp/up.err"
check "and the file to decide in" dom0 "grep -qF $OPS/$op/conflicts.resolve /tmp/up.err"
check "the report lists both" same "$(report '[.merge.conflicts[].path] | sort | join(" ")')" "/opt/shop/list /opt/shop/prices"
check "with both sides" same "$(report '.merge.conflicts[] | select(.path == "/opt/shop/prices") | [.active.size, .upgrade.size, .active.mode, .open] | join(" ")')" "7 8 0644 true"
check "and the file to decide in" same "$(report .merge.resolve_template)" "$OPS/$op/conflicts.resolve"
check "which lists them as comments" same "$(dom0 "grep -c '^#active /opt/shop/' $OPS/$op/conflicts.resolve; grep -vc '^#' $OPS/$op/conflicts.resolve" | tr '\n' ' ')" "2 2 "
check "there was no freeze" same "$(report '[.phases[].name] | index("freeze") // "none"')" none
undone "$op" failed "$scratch/before"
check "the guest keeps its own" same "$(guest "cat /opt/shop/prices")" active
expect 2 "the file is refused with an error in it" "echo 'win /opt/shop/list' >>$OPS/$op/conflicts.resolve; xenmolt guest-upgrade --resolve $OPS/$op/conflicts.resolve web1"
err_has "unknown action 'win'"
load_clean
