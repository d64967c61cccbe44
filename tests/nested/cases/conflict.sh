#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The guest and the upgrade change the same file, and no rule says who wins: refused before the freeze, by name.
. "$(dirname "$0")/../lib/case.sh"

begin
PID_BEFORE=$(main_pid)
guest "mkdir -p /opt/shop; echo base >/opt/shop/prices; sync"
world "$scratch/before"
recipe /tmp/both <<'END'
#!/bin/sh
echo upgrade >/opt/shop/prices
echo waiting for the guest
sleep 20
END
start_load 20
start_upgrade --recipe /tmp/both
wait_recipe 600 "waiting for the guest"
guest "echo active >/opt/shop/prices; sync"
check "the conflict ends the operation" same "$(upgrade_status 900)" 11
check "the message names the file" dom0 "grep -qF /opt/shop/prices /tmp/up.err"
check "the report lists it" same "$(report '.merge.conflicts[].path' | head -n 1)" /opt/shop/prices
check "there was no freeze" same "$(report '[.phases[].name] | index("freeze") // "none"')" none
undone "$(operation)" failed "$scratch/before"
check "the guest keeps its own" same "$(guest "cat /opt/shop/prices")" active
load_clean
