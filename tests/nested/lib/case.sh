# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034,SC2015,SC2119,SC2120
# Shared by the nested cases. A case is a bash script: it sources this file, calls `begin`, and states its checks,
# each of which prints one line "ok - ..." or "not ok - ..."; tests/run counts these lines.
#   XENMOLT_HOST  name of the nested host to use (default suite); a running one of that name is ended first
#   KEEP=1        leave the host up at the end, to look around in it
set -uo pipefail

CASE=$(basename "$0" .sh)
NESTED=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
HOST_NAME=${XENMOLT_HOST:-suite}
DOMAIN=${DOMAIN:-web1}              # both guests have the same address: one runs at a time
ADDRESS=10.77.0.11
IMAGE=/var/lib/xen/images/web1/web1.qcow2
OPS=/var/lib/xenmolt/ops
FAILED=0
scratch=$(mktemp -d)

host() { "$NESTED/host" --name "$HOST_NAME" "$@"; }
dom0() { host ssh "$@" </dev/null; }
guest() { host guest web1 "$@" </dev/null; }
# dom0_sh, guest_sh: a script on standard input.
dom0_sh() { host ssh "bash -s"; }
guest_sh() { host guest web1 "bash -s"; }

note() { printf '   %s\n' "$*"; }
pass() { printf 'ok - %s: %s\n' "$CASE" "$*"; }
fail() { printf 'not ok - %s: %s\n' "$CASE" "$*"; FAILED=$((FAILED + 1)); }
skip() { printf 'skip - %s: %s\n' "$CASE" "$*"; }
# give_up: a failure after which the rest of the case means nothing.
give_up() { fail "$*"; exit 1; }

# check TEXT CMD...: CMD succeeds.
check() {
    local text=$1; shift
    if "$@" >"$scratch/check" 2>&1; then pass "$text"; return 0; fi
    fail "$text"
    tail -n 15 "$scratch/check" | sed 's/^/   | /'
    return 1
}

same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }
newer() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | tail -n 1)" = "$1" ] || { echo "'$1' is not newer than '$2'"; return 1; }; }
below() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a != "null" && a + 0 < b + 0) }' || { echo "'$1' is not below $2"; return 1; }; }

# world FILE: what the host looks like.
world() { dom0_sh <"$NESTED/lib/world.sh" >"$1" 2>&1; }
same_world() { diff -U1 "$1" "$2"; }

begin() {
    local try
    trap end EXIT
    for try in 1 2; do
        note "starting the host from ${1:-web1-ready}"
        host down >/dev/null 2>&1
        host up --from "${1:-web1-ready}" --owner $$ || give_up "the host did not start"
        # A guest whose disk gives no answer before anything of ours has begun would be taken for our doing.
        if [ -n "${1:-}" ] || guest "timeout 60 sh -c 'dd if=/dev/xvda of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null && sync'"; then return; fi
        note "the guest's disk does not answer, and nothing of ours has run yet"
        [ $try = 2 ] || evidence
    done
    give_up "the guest's disk does not answer"
}

# boot CFG: the domain, until all of it is there.
boot() {
    dom0 "xl create -q $1" || give_up "$DOMAIN could not be started"
    check "$DOMAIN serves" service_up 300 || exit 1
    check "its agent is there" dom0 "for i in \$(seq 120); do xenstore-exists /local/domain/\$(xl domid $DOMAIN)/data/xenmolt/proto && exit 0; sleep 1; done; exit 1" || exit 1
    guest "timeout 300 systemctl is-system-running --wait" >/dev/null
}

# begin_web2: the guest with a partitioned disk and a data disk, booted in place of web1.
begin_web2() {
    DOMAIN=web2
    begin dom0-ready
    boot /etc/xen/web2.cfg
}

# volume KIND IMAGE FORMAT NAME: the image of a guest that does not run becomes a volume of that name, thin or classic, in dom0's
# volume group "guests", and is deleted. The group lies on a sparse file, made when there is none.
volume() {
    dom0_sh <<END || give_up "no $1 volume $4"
set -e
modprobe -a loop dm-snapshot dm-thin-pool
if ! vgs guests >/dev/null 2>&1; then
    truncate -s 24G /var/lib/xen/images/guests.vg
    vgcreate -q guests \$(losetup -f --show /var/lib/xen/images/guests.vg)
fi
size=\$(qemu-img info --output=json $2 | jq '."virtual-size"')b
if [ $1 = thin ]; then
    lvs guests/pool >/dev/null 2>&1 || lvcreate -q --type thin-pool -L 10G -n pool guests
    lvcreate -q -V \$size -T guests/pool -n $4
else
    lvcreate -q -y -L \$size -n $4 guests
fi
qemu-img convert -n --target-is-zero -f $3 -O raw $2 /dev/guests/$4
rm $2
END
}

end() {
    local rc=$?
    if (( FAILED || rc )) && [ -z "${KEEP:-}" ]; then evidence; fi
    [ -n "${KEEP:-}" ] || host down --owner $$ >/dev/null 2>&1
    rm -rf "$scratch"
    (( rc == 0 && FAILED == 0 )) || exit 1
}

# evidence: what a failure is understood by; goes into the case's log.
evidence() {
    echo "   ---- evidence"
    timeout 120 "$NESTED/host" --name "$HOST_NAME" ssh "bash -s" <<'END' 2>&1 | sed 's/^/   | /'
echo "-- web1: who waits for a disk, and what its kernel and its agent say"
timeout 30 ssh -o ConnectTimeout=10 10.77.0.11 "ps -eo pid,stat,wchan:24,args | awk '\$2 ~ /^D/'; dmesg | tail -n 4 | cut -c1-200
    journalctl --no-pager -n 8 -u xenmolt-agent -u counter | cut -c1-200" || echo "ssh: exit $?"
xl list
xenmolt op-list
for op in $(ls -t /var/lib/xenmolt/ops 2>/dev/null | head -n 1); do
    xenmolt op-log "$op" | tail -n 15 | cut -c1-300
    tail -n 5 "/var/lib/xenmolt/ops/$op/recipe.log" 2>/dev/null
done
for f in /tmp/up.out /tmp/up.err /var/log/xen/xenmolt-*.log; do [ ! -s $f ] || { echo "-- $f"; grep -v ' progress ' $f | tail -n 10 | cut -c1-300; }; done
dmesg | tail -n 5
END
}

# ---- operations ----

# recipe PATH: an executable in dom0 from standard input.
recipe() { host ssh "cat >$1 && chmod +x $1"; }

# expect STATUS TEXT COMMAND: COMMAND in dom0 exits so; its output in $scratch/out, $scratch/err.
expect() {
    local want=$1 text=$2 rc=0; shift 2
    dom0 "$@" >"$scratch/out" 2>"$scratch/err" || rc=$?
    if [ "$rc" = "$want" ]; then pass "$text (exit $rc)"; return 0; fi
    fail "$text: exit $rc, not $want"
    tail -n 15 "$scratch/out" "$scratch/err" | sed 's/^/   | /'
    return 1
}

err_has() { check "the message says: $1" grep -qiF -e "$1" "$scratch/err"; }

# start_upgrade ARGS...: in the background of dom0; its end is told by upgrade_status.
start_upgrade() {
    dom0 "rm -f /tmp/up.*; setsid sh -c '${UPGRADE:-xenmolt guest-upgrade} --report /tmp/up.json $* $DOMAIN >/tmp/up.out 2>/tmp/up.err; echo \$? >/tmp/up.rc.new; mv /tmp/up.rc.new /tmp/up.rc' </dev/null >/dev/null 2>&1 &"
}

# wait_recipe SECONDS TEXT: until the recipe has printed TEXT.
wait_recipe() {
    local rc=0
    dom0 "for i in \$(seq $1); do grep -qsF -e '$2' $OPS/*/recipe.log && exit 0; [ ! -f /tmp/up.rc ] || exit 1; sleep 1; done; exit 1" || rc=$?
    if (( rc != 0 )); then
        dom0 "cat /tmp/up.rc /tmp/up.err" | tail -n 20 | sed 's/^/   | /'
        give_up "the recipe did not get to: $2"
    fi
}

# upgrade_status SECONDS: waits for the end, prints the exit status.
upgrade_status() {
    dom0 "for i in \$(seq $(($1 * 2))); do [ ! -f /tmp/up.rc ] || { cat /tmp/up.rc; exit 0; }; sleep 0.5; done; echo none"
}

# upgraded SECONDS TEXT: start_upgrade's operation succeeds; else there is nothing more to see.
upgraded() {
    local status
    status=$(upgrade_status "$1")
    if [ "$status" != 0 ]; then
        dom0 "grep -v ' progress ' /tmp/up.err | tail -n 8" | sed 's/^/   | /'
        give_up "$2: exit $status, $(dom0 "grep -v ' progress ' /tmp/up.err | tail -n 1" | cut -c1-300)"
    fi
    pass "$2"
}

# sleeping_upgrade: under load, in its recipe until something ends it. Sets op and PID_BEFORE; the world before it is in
# $scratch/before.
sleeping_upgrade() {
    PID_BEFORE=$(main_pid)
    world "$scratch/before"
    recipe /tmp/sleeper <<'END'
#!/bin/sh
echo sleeping now
sleep 3000
END
    start_load 20
    start_upgrade --recipe /tmp/sleeper
    wait_recipe 600 "sleeping now"
    op=$(operation)
}

# both_write ARGS...: an upgrade whose recipe and whose guest write the same files below /opt/shop, which is there.
both_write() {
    guest "rm -f /opt/shop/*; mkdir -p /opt/shop; printf 'base\n' >/opt/shop/prices; printf 'one\ntwo\n' >/opt/shop/list; sync"
    recipe /tmp/both <<'END'
#!/bin/sh
echo upgrade >/opt/shop/prices
printf 'one\nupgrade\n' >/opt/shop/list
echo waiting for the guest
sleep 20
END
    dom0 "rm -f $OPS/*/recipe.log" # of an operation before: wait_recipe looks into all
    start_upgrade --recipe /tmp/both "$@"
    wait_recipe 600 "waiting for the guest"
    guest "echo active >/opt/shop/prices; printf 'one\nactive\n' >/opt/shop/list; sync"
}

# write_meanwhile: a file of random bytes in the guest; written_meanwhile: it is on its disk.
write_meanwhile() { SUM=$(guest "head -c 4000000 /dev/urandom >/root/meanwhile; sync; sha256sum </root/meanwhile"); }
written_meanwhile() { same "$(guest "echo 3 >/proc/sys/vm/drop_caches; sha256sum </root/meanwhile")" "$SUM"; }

operation() { dom0 "xenmolt op-list --json | jq -r '.[-1].id'"; }
operation_state() { dom0 "xenmolt op-show --json $1 | jq -r .state"; }
report() { dom0 "jq -r '$1' ${2:-/tmp/up.json}"; }

# undone OP STATE BEFORE: the operation ended in STATE, and the world is as in the file BEFORE.
undone() {
    check "the operation ended: $2" same "$(operation_state "$1")" "$2"
    world "$scratch/undone"
    check "the world is as before" same_world "$3" "$scratch/undone"
    check "the service runs as the same process" same "$(main_pid)" "$PID_BEFORE"
}

# immovable_there: the program of tests/nested/client/immovable.c, in the guest.
immovable_there() {
    gcc -O2 -Wall -Wextra -D_GNU_SOURCE -static -o "$scratch/immovable" "$NESTED/client/immovable.c" 2>"$scratch/gcc" || { cat "$scratch/gcc"; give_up "the test's program could not be compiled"; }
    host push "$scratch/immovable" /tmp/immovable
    dom0 "scp -q /tmp/immovable $ADDRESS:/usr/local/bin/" || give_up "the test's program does not come into the guest"
}

# ---- the guest's service and its clients ----

main_pid() { guest "systemctl show -P MainPID counter.service"; }

# start_load [CONNECTIONS]
start_load() {
    LOADS=$((${LOADS:-0} + 1)) # the log on disk may outlive a load: each has names of its own
    dom0 "rm -f /tmp/load.*; setsid loadclient --host $ADDRESS --conns ${1:-20} --interval 5 --prefix load$LOADS- --report /tmp/load.json --status /tmp/load.status </dev/null >/tmp/load.log 2>&1 & echo \$! >/tmp/load.pid; for i in \$(seq 60); do [ \"\$(jq .replies /tmp/load.status 2>/dev/null || echo 0)\" -gt 0 ] && exit 0; sleep 0.5; done; cat /tmp/load.log; exit 1" || give_up "the clients do not get through"
}

stop_load() {
    dom0 "kill \$(cat /tmp/load.pid); for i in \$(seq 100); do [ -f /tmp/load.json ] && exit 0; sleep 1; done; exit 1"
}

# load_clean: ends the clients; nothing was lost, doubled, reset; the log on the guest's disk agrees.
load_clean() {
    local got
    stop_load
    got=$(dom0 "jq -c '[.losses, .duplicates, .resets, (.errors | length), .replies > 0, (.pids | length)]' /tmp/load.json")
    check "clients: 0 lost, 0 duplicated, 0 resets, 0 errors, one pid" same "$got" "[0,0,0,0,true,1]" ||
        dom0 "jq -c '{losses, duplicates, resets, requests, replies, pids, errors: .errors[:5]}' /tmp/load.json" | sed 's/^/   | /'
    check "the log on disk holds each acknowledged request once" \
        dom0 "set -o pipefail; ssh $ADDRESS cat /var/lib/counter/log | logcheck --report /tmp/load.json"
}

service_up() { dom0 "for i in \$(seq ${1:-300}); do timeout 10 bash -c 'exec 3<>/dev/tcp/$ADDRESS/7000; echo STAT >&3; head -n1 <&3' 2>/dev/null | grep -q ^STAT && exit 0; sleep 1; done; exit 1"; }
