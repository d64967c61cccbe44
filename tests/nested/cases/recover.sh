#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The command is killed in mid-upgrade; op-recover takes everything back.
. "$(dirname "$0")/../lib/case.sh"

begin
sleeping_upgrade
write_meanwhile
expect 7 "op-recover of a running operation is refused" "xenmolt op-recover $op"
dom0 "kill -9 \$(xenmolt op-show --json $op | jq .runner)"
check "the command is dead" same "$(upgrade_status 30)" 137
check "the guest serves on" service_up 10
expect 7 "a new operation is refused meanwhile" "xenmolt guest-upgrade -n web1"
err_has "op-list"
start=$SECONDS
expect 0 "op-recover" "xenmolt op-recover $op"
note "recovery took $((SECONDS - start)) s"
case $(operation_state "$op") in
    failed|aborted) state=$(operation_state "$op") ;;
    *) state="failed or aborted" ;;
esac
undone "$op" "$state" "$scratch/before"
expect 0 "a second op-recover does nothing" "xenmolt op-recover $op"
world "$scratch/after"
check "and changes nothing" same_world "$scratch/before" "$scratch/after"
load_clean
check "what web1 wrote meanwhile is on its disk" written_meanwhile
expect 0 "a new operation is possible" "xenmolt guest-upgrade -n web1"
