#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The guest and the upgrade change the same files, and no rule says who wins. First: refused before the freeze, by name, with a
# file to decide in. Then an upgrade that waits, and whose command is killed. Then one that is given decisions, waits
# with what is left, is given the rest, and goes on.
. "$(dirname "$0")/../lib/case.sh"

# both_write ARGS...: an upgrade whose recipe and whose guest write the same files.
both_write() {
    guest "rm -f /opt/shop/*; mkdir -p /opt/shop; printf 'base\n' >/opt/shop/prices; printf 'one\ntwo\n' >/opt/shop/list; sync"
    start_upgrade --recipe /tmp/both "$@"
    wait_recipe 600 "waiting for the guest"
    guest "echo active >/opt/shop/prices; printf 'one\nactive\n' >/opt/shop/list; sync"
}
# wait_state STATE SECONDS
wait_state() { dom0 "for i in \$(seq $2); do [ \"\$(xenmolt op-list --json | jq -r '.[-1].state')\" != $1 ] || exit 0; [ ! -f /tmp/up.rc ] || break; sleep 1; done; cat /tmp/up.err; exit 1"; }
# plan FILTER: of the operation that waits.
plan() { dom0 "xenmolt delta-merge -n --json web1 | jq -rc '.plan | $1'"; }

begin
PID_BEFORE=$(main_pid)
guest "mkdir -p /opt/shop"
world "$scratch/before"
recipe /tmp/both <<'END'
#!/bin/sh
echo upgrade >/opt/shop/prices
printf 'one\nupgrade\n' >/opt/shop/list
echo waiting for the guest
sleep 20
END
start_load 20

note "a conflict that nothing settles"
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
dom0 "sed 's|^#active /opt/shop/prices|upgrade /opt/shop/prices|' $OPS/$op/conflicts.resolve >/tmp/prices.resolve; echo 'drop /opt/shop/nosuch' >>/tmp/prices.resolve; echo 'active /opt/shop/list # ours' >/tmp/list.resolve; echo 'win /opt/shop/list' >/tmp/bad.resolve"
expect 2 "a resolve file with an error" "xenmolt guest-upgrade --resolve /tmp/bad.resolve web1"
err_has "/tmp/bad.resolve:1: unknown action 'win'"

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
