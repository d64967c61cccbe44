#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# An upgrade that waits. First one whose command is killed meanwhile. Then one that is given a decision, waits with the other
# conflict, is asked, is given the rest, and goes on to its end.
. "$(dirname "$0")/../lib/case.sh"

# wait_state STATE SECONDS
wait_state() { dom0 "for i in \$(seq $2); do [ \"\$(xenmolt op-list --json | jq -r '.[-1].state')\" != $1 ] || exit 0; [ ! -f /tmp/up.rc ] || break; sleep 1; done; cat /tmp/up.err; exit 1"; }
# plan FILTER: of the operation that waits.
plan() { dom0 "xenmolt delta-merge -n --json web1 | jq -rc '.plan | $1'"; }

begin
PID_BEFORE=$(main_pid)
guest "mkdir -p /opt/shop"
world "$scratch/before"
start_load 20

note "the command of an upgrade that waits is killed"
both_write --wait
check "it waits in spite of the conflicts" wait_state waiting 900
op=$(operation)
check "the state is shown" dom0 "xenmolt op-show $op | grep -q '^state  *waiting'"
check "the plan shows what is open" same "$(plan '[.conflicts_open, (.conflicts | length)]')" "[2,2]"
dom0 "kill -9 \$(xenmolt op-show --json $op | jq .runner)"
check "the command is dead" same "$(upgrade_status 30)" 137
expect 20 "delta-merge says so" "xenmolt delta-merge -n web1"
err_has "op-recover $op"
expect 0 "op-recover" "xenmolt op-recover $op"
undone "$op" failed "$scratch/before"

note "decisions before and while it waits"
dom0 "sed 's|^#active /opt/shop/prices|upgrade /opt/shop/prices|' $OPS/$op/conflicts.resolve >/tmp/prices.resolve; echo 'drop /opt/shop/nosuch' >>/tmp/prices.resolve; echo 'active /opt/shop/list # ours' >/tmp/list.resolve"
both_write --wait=1 --resolve /tmp/prices.resolve
check "it waits with the other conflict" wait_state waiting 900
op=$(operation)
check "one conflict is open, one decided" same "$(plan '[.conflicts_open, (.conflicts[] | [.path, .decision, .open])]')" '[1,["/opt/shop/list","refuse",true],["/opt/shop/prices","upgrade",false]]'
check "a decision that met none is named" same "$(plan '.unused_decisions[].path')" /opt/shop/nosuch
expect 0 "the plan for people" "xenmolt delta-merge -n web1"
check "it has the differences" grep -qx '        +upgrade' "$scratch/out"
expect 11 "op-continue is refused" "xenmolt op-continue web1"
err_has /opt/shop/list
expect 11 "a pass is refused" "xenmolt delta-merge web1"
check "the guest serves on" service_up 10
expect 0 "the other decision" "xenmolt delta-merge --resolve /tmp/list.resolve web1"
check "leaves nothing open" grep -q '0 open, 2 listed' "$scratch/out"
guest "printf 'one\nactive\nlater\n' >/opt/shop/list; sync"
expect 0 "a pass" "xenmolt delta-merge web1"
expect 18 "op-continue of another operation is refused" "xenmolt op-continue \$(xenmolt op-list --json | jq -r '.[0].id')"
expect 0 "op-continue" "xenmolt op-continue web1"
check "the upgrade goes to its end" same "$(upgrade_status 900)" 0
check "the upgrade's, as decided" same "$(guest "cat /opt/shop/prices")" upgrade
check "the guest's, as it was last" same "$(guest "cat /opt/shop/list" | tr '\n' ' ')" "one active later "
check "both stand in the report" same "$(report '[.merge.conflicts[] | [.path, .decision] | join(" ")] | sort | join(", ")')" "/opt/shop/list active, /opt/shop/prices upgrade"
check "and the decision that met none" same "$(report '.merge.unused_decisions[].path')" /opt/shop/nosuch
check "which was a warning" dom0 "grep -q 'warning: .*/opt/shop/nosuch is no conflict' /tmp/up.err"
check "nothing listens any more" dom0 "[ ! -e $OPS/$op/control ]"
load_clean
