#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What the agent costs when nothing happens, and that operations begun and undone leave nothing behind.
. "$(dirname "$0")/../lib/case.sh"

AGENT_RSS_KIB=4096
QUIET=30                        # seconds
CPU_TICKS=3                     # 0.1 % of QUIET at 100 a second
OPERATIONS=20

# Of all processes of the agent: how many, resident KiB (not VmRSS, which the kernel updates in steps of 64 pages a
# thread), ticks, open files.
agent() {
    guest_sh <<'END'
n=0 rss=0 ticks=0 files=0
for p in $(pgrep -x xenmolt-agent); do
    n=$((n + 1))
    rss=$((rss + $(awk '/^Rss/ { print $2 }' /proc/$p/smaps_rollup)))
    ticks=$((ticks + $(awk '{ print $14 + $15 }' /proc/$p/stat)))
    files=$((files + $(ls /proc/$p/fd | wc -l)))
done
echo "$n $rss $ticks $files"
END
}

begin
PID_BEFORE=$(main_pid)
expect 0 "a first contact" "xenmolt guest-upgrade -n web1"
sleep 3
world "$scratch/before"
read -r n0 rss0 ticks0 files0 < <(agent)
note "agent: $n0 processes, $rss0 KiB, $files0 files"
check "the agent takes less than $AGENT_RSS_KIB KiB: $rss0" below "$rss0" "$AGENT_RSS_KIB"
sleep $QUIET
read -r _ _ ticks1 _ < <(agent)
check "and less than 0.1 % CPU: $((ticks1 - ticks0)) ticks in $QUIET s" below "$((ticks1 - ticks0))" "$CPU_TICKS"

bad=0 start=$SECONDS
for i in $(seq $OPERATIONS); do
    rc=0
    dom0 "MOLT_FAULT=snapshot xenmolt guest-upgrade web1" >"$scratch/out" 2>&1 || rc=$?
    case $rc in 1|19) ;; *) bad=$((bad + 1)); tail -n 5 "$scratch/out" ;; esac
    if (( i == 2 )); then read -r n0 rss0 _ files0 < <(agent); fi
done
note "$OPERATIONS operations: $((SECONDS - start)) s"
check "$OPERATIONS operations were begun and undone" same "$bad" 0
check "op-list knows them" same "$(dom0 "xenmolt op-list --json | jq '[.[] | select(.state == \"failed\")] | length'")" "$OPERATIONS"
sleep 3
read -r n1 rss1 _ files1 < <(agent)
note "agent: $n1 processes, $rss1 KiB, $files1 files"
check "no process more" same "$n1" "$n0"
check "no file more" same "$files1" "$files0"
check "no growth: $rss0 -> $rss1 KiB" below "$rss1" "$((rss0 + 128))"
world "$scratch/after"
check "the world is as before" same_world "$scratch/before" "$scratch/after"
check "the service runs as the same process" same "$(main_pid)" "$PID_BEFORE"
