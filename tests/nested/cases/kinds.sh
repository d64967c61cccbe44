#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Five services of many kinds (tests/nested/kinds) move together, on Debian 13, under clients of each over IPv4 and IPv6: a C program with
# almost all that a process may hold, Python, two JVMs (one with 500 threads), PostgreSQL under pgbench.
DOMAIN=web3
. "$(dirname "$0")/../lib/case.sh"
ADDRESS6=fd77::11
UNITS="native python java21 java25 db"

pids() { guest "systemctl show -P MainPID ${UNITS// /.service }.service" | xargs; }
# ask PORT LINE...: the last answer.
ask() { dom0 "exec 3<>/dev/tcp/$ADDRESS/$1; echo '$2' >&3; timeout 60 head -n1 <&3"; }
# what a move may leave in dom0 or in the guest between services and clients
filters() {
    dom0 "nft list tables; tc qdisc show | grep -vE 'qdisc (noqueue|mq|fq_codel) '; ip -o link | grep -oE ': xm[a-z0-9]*' ; true"
    guest "tc qdisc show dev lo; ls /proc/net/ip_tables_names 2>/dev/null; lsmod | grep -cE '^nf_(tables|conntrack)' ; true"
}
# addresses with their MAC, and routes: what clients and neighbours know of the guest
network() { guest "cat /sys/class/net/eth0/address; ip -o addr show dev eth0 | sed 's/ valid_lft.*//'; ip route; ip -6 route show dev eth0 | sed 's/ expires [0-9]*sec//'"; }
told() { dom0 "jq .told /tmp/k.kinds$1.status"; }
# Another process cannot have the JVMs' locks, and is told that somebody else has them.
locks() {
    guest_sh <<'END' | xargs
for d in java21 java25; do python3 -c '
import fcntl, sys
f = open(sys.argv[1], "r+")
try:
    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print(sys.argv[2], "free")
except BlockingIOError:
    print(sys.argv[2], "locked")' /var/lib/$d/mapped $d; done
END
}

start_clients() {
    local port n=0
    dom0 "rm -f /tmp/k.*"
    for port in 7100 7300 7200 7201; do
        n=$((n + 1))
        dom0 "setsid loadclient --host $ADDRESS --port $port --conns 4 --interval 10 --prefix v4-$port- --report /tmp/k.$port.v4 </dev/null >/tmp/k.$port.v4.log 2>&1 &
            setsid loadclient --host $ADDRESS6 --port $port --conns 4 --interval 10 --prefix v6-$port- --report /tmp/k.$port.v6 </dev/null >/tmp/k.$port.v6.log 2>&1 &"
    done
    dom0 "setsid kindclient $ADDRESS 7100 /tmp/k.kinds4 /tmp/k.kinds4.status </dev/null >/tmp/k.kinds4.log 2>&1 &
        setsid kindclient $ADDRESS6 7100 /tmp/k.kinds6 /tmp/k.kinds6.status </dev/null >/tmp/k.kinds6.log 2>&1 &
        for v in 4 6; do for i in \$(seq 120); do [ \"\$(jq .told /tmp/k.kinds\$v.status 2>/dev/null || echo 0)\" -gt 0 ] && continue 2; sleep 0.5; done; cat /tmp/k.kinds\$v.log; exit 1; done" || give_up "the clients do not get through"
}

begin dom0-ready
dom0 "xl create -q /etc/xen/web3.cfg" || give_up "web3 could not be started"
dom0 "for i in \$(seq 300); do ssh -o ConnectTimeout=5 $ADDRESS true 2>/dev/null && exit 0; sleep 1; done; exit 1" || give_up "web3 does not answer"
check "all services of web3 run" guest "timeout 400 systemctl is-system-running --wait >/dev/null; systemctl is-active ${UNITS// /.service }.service" || exit 1
check "its agent is there" dom0 "for i in \$(seq 120); do xenstore-exists /local/domain/\$(xl domid web3)/data/xenmolt/proto && exit 0; sleep 1; done; exit 1" || exit 1
# systemd takes a JVM for started long before it listens
check "all ports answer" dom0 "for p in 7100 7300 7200 7201 5432; do for i in \$(seq 180); do timeout 5 bash -c \"exec 3<>/dev/tcp/$ADDRESS/\$p\" 2>/dev/null && break; sleep 1; done || exit 1; done" || exit 1
for port in 7100 7300 7200 7201; do check "port $port: all is there" same "$(ask $port CHECK)" OK; done
check "a database for pgbench" dom0 "pgbench -q -i -s 1 -h $ADDRESS -U postgres postgres"
expect 0 "all five can move" "xenmolt guest-upgrade -n --recipe debian-security web3" || exit 1
before=$(pids)
check "the JVMs hold their locks" same "$(locks)" "java21 locked java25 locked"
check "one has 500 threads of its own" guest "[ \$(ls /proc/\$(systemctl show -P MainPID java21)/task | wc -l) -gt 500 ]"
collectors() { guest "for u in java21 java25; do cat /proc/\$(systemctl show -P MainPID \$u)/task/*/comm | grep -oE '^G1 Service|^GC Thread' | sort -u | tr '\n' ,; done"; }
check "one collects with G1, the other in parallel without it" same "$(collectors)" "G1 Service,GC Thread,GC Thread,"
check "and their defaults: perf data, and the archive of classes" guest "for u in java21 java25; do p=\$(systemctl show -P MainPID \$u); grep -q hsperfdata /proc/\$p/maps && grep -q '[.]jsa' /proc/\$p/maps || exit 1; done"
network >"$scratch/network"
filters >"$scratch/filters"

guest_sh <<'END'
mkdir -p /etc/xenmolt/hooks.d
printf '%s\n' '#!/bin/sh' 'echo "$1 $XENMOLT_DOMAIN $(echo $XENMOLT_UNITS | wc -w) $(readlink /proc/${XENMOLT_PIDS##* }/exe)" | tee -a /var/lib/native/hooks' >/etc/xenmolt/hooks.d/10-tell
chmod 755 /etc/xenmolt/hooks.d/10-tell
END

# A changed library under each of them, so that each has pins.
recipe /tmp/rebuild <<'END'
#!/bin/sh
set -e
cd /usr/lib/x86_64-linux-gnu
for lib in libz.so.1 libm.so.6 libssl.so.3 libc.so.6; do
    file=$(readlink -f $lib)
    cp "$file" "$file.new"
    printf 'rebuilt' >>"$file.new"
    mv "$file.new" "$file"
done
echo rebuilt
END
start_upgrade --recipe /tmp/rebuild --wait=2
note "upgrading web3"
check "the upgrade waits" dom0 "for i in \$(seq 1500); do [ \"\$(xenmolt op-list --json | jq -r '.[-1].state')\" = waiting ] && exit 0; [ ! -f /tmp/up.rc ] || break; sleep 1; done; tail -n 5 /tmp/up.err; exit 1" || exit 1
expect 0 "it goes on" "xenmolt op-continue web3"
# Not all the way: the guest has one emulated processor.
dom0 "for i in \$(seq 900); do case \$(xenmolt op-list --json | jq -r '.[-1].step') in predump|rehearse) exit 0 ;; esac; [ ! -f /tmp/up.rc ] || exit 1; sleep 1; done; exit 1" || give_up "it did not come to the rounds of memory"
start_clients
dom0 "setsid pgbench -n -c 4 -R 1 -T 420 -P 10 -h $ADDRESS -U postgres postgres </dev/null >/tmp/k.pgbench 2>&1 &"
upgraded 900 "five services move"
thawed=$(guest "date +%s") told4=$(told 4) told6=$(told 6)
sleep 10
note "blackout $(report .blackout_ms) ms: $(report '.blackout | del(.criu_dump, .criu_restore) | tojson')"
for unit in $UNITS; do
    note "$unit: $(report ".processes[] | select(.unit == \"$unit.service\") | \"\\(.processes) processes, \\(.threads) threads, \\(.memory_bytes / 1048576 | floor) MiB, frozen \\(.criu_dump.frozen_us / 1000 | floor) ms, restore \\(.criu_restore.restore_us / 1000 | floor) ms\"")"
done
check "each is the same process" same "$(pids)" "$before"
check "each is active" guest "systemctl is-active ${UNITS// /.service }.service"
check "packets were held for them, none dropped" dom0 "jq -e '.blackout.held | .packets > 0 and .dropped == 0' /tmp/up.json"
check "and datagrams that nobody had read, none lost" dom0 "jq -e '.blackout.datagrams | .moved >= 40 and .lost == 0' /tmp/up.json"
check "before that all connections were accepted" dom0 "jq -e '.blackout.settle | .unsettled.waiting == 0 and .unsettled.half_open == 0' /tmp/up.json"
note "settled: $(report '.blackout.settle | tojson'); held $(report '.blackout.held | tojson')"
network >"$scratch/network.after"
check "the same MAC, addresses and routes" diff -U1 "$scratch/network" "$scratch/network.after"
check "the JVMs still hold their locks" same "$(locks)" "java21 locked java25 locked"
check "and all 500 threads" guest "[ \$(ls /proc/\$(systemctl show -P MainPID java21)/task | wc -l) -gt 500 ]"
check "and their collectors" same "$(collectors)" "G1 Service,GC Thread,GC Thread,"
check "perf data and archive are mapped" guest "for u in java21 java25; do p=\$(systemctl show -P MainPID \$u); grep -q hsperfdata /proc/\$p/maps && grep -q '[.]jsa' /proc/\$p/maps || exit 1; done"
check "the restore of each was tried before" same "$(report '[.rehearsal[].unit] | unique | length')" 5
check "and the database's processes ran to their next system call, or were at work" same "$(report '.rehearsal[] | select(.unit == "db.service") | .threads | [.reached > 5, .left] | tojson')" "[true,0]"
note "in the trials: $(report '[.rehearsal[] | "\(.unit) \(.threads | tojson)"] | join(", ")')"
check "the hooks were told, in the old guest and in the new one" same "$(guest "cat /var/lib/native/hooks" | xargs)" \
    "before-freeze web3 5 /usr/lib/postgresql/17/bin/postgres after-thaw web3 5 /usr/lib/postgresql/17/bin/postgres"
check "and the report has them" same "$(report '[.hooks[] | "\(.event) \(.name) \(.status)"] | join(", ")')" "before-freeze 10-tell 0, after-thaw 10-tell 0"
expect 0 "app-overlays lists them" "xenmolt app-overlays --json web3"
check "all five, with packages" same "$(jq -c '[(.overlays | length), (.overlays | all(.packages | length > 0)), ([.overlays[].packages[].package] | unique | contains(["libc6", "zlib1g"]))]' "$scratch/out")" "[5,true,true]"
check "each has old files until its restart" same "$(report '[.processes[] | .pins | length > 0] | all')" true
check "nothing failed in the guest" same "$(guest "systemctl --failed --no-legend | wc -l")" 0

dom0 "pkill -TERM loadclient; pkill -TERM -f kindclient; for i in \$(seq 400); do [ -f /tmp/k.kinds4 ] && [ -f /tmp/k.kinds6 ] && exit 0; sleep 1; done"
for port in 7100 7300 7200 7201; do
    for family in v4 v6; do
        check "port $port, $family: 0 lost, doubled, reset, one process" same \
            "$(dom0 "jq -c '[.losses, .duplicates, .resets, (.errors | length), .replies > 0, (.pids | length)]' /tmp/k.$port.$family")" "[0,0,0,0,true,1]"
    done
    check "port $port: all is there" same "$(ask $port CHECK)" OK
    note "port $port: longest client gap $(dom0 "jq -c '.longest_gap_ms, (.gaps | sort_by(.ms) | last)' /tmp/k.$port.v4 /tmp/k.$port.v6" | xargs)"
done
for v in 4 6; do
    kinds=$(dom0 "cat /tmp/k.kinds$v || tail -n 5 /tmp/k.kinds$v.log >&2")
    note "IPv$v: $kinds"
    was=told$v
    check "IPv$v: a connection that is closed in one direction goes on after the move, no line lost or doubled" same "$(jq -r --argjson was "${!was:-0}" '.half + (.told > $was + 5 | tostring)' <<<"$kinds")" true
    check "IPv$v: full queues arrive, byte by byte, both ways" same "$(jq -r '.flood + (.stuffed > 100000 | tostring)' <<<"$kinds")" true
    check "IPv$v: UDP: every datagram is answered, one of them was held" same "$(jq -r '[.udp_lost, .udp_sent > 10, .udp_longest_s > 3] | tojson' <<<"$kinds")" "[0,true,true]"
    check "IPv$v: datagrams that were not read when the service stood still come to it, from who had sent them" same "$(jq -r .later <<<"$kinds")" ""
    check "IPv$v: no new connection is refused or reset, one of them waited" same "$(jq -r '[.knocks_wrong, .knocks > 50, .knocks_longest_s > 3] | tojson' <<<"$kinds")" '["",true,true]'
    check "IPv$v: every look at all that the C program holds: OK" same "$(jq -r '.checks | unique | tojson' <<<"$kinds")" '["OK"]'
done
for unit in native python java21 java25; do
    check "what $unit says still goes to the journal" guest "journalctl -q -u $unit.service --since @$thawed -o cat | grep -q 'checked: '"
done

check "pgbench ends" dom0 "for i in \$(seq 480); do grep -q '^tps' /tmp/k.pgbench && exit 0; pgrep -f pgbench.bin >/dev/null || break; sleep 1; done; tail -n 5 /tmp/k.pgbench; exit 1"
check "pgbench: no failed transaction" same "$(dom0 "sed -n 's/^number of failed transactions: \\([0-9]*\\).*/\\1/p' /tmp/k.pgbench; grep -ciE 'error|abort|fatal' /tmp/k.pgbench" | xargs)" "0 0"
note "$(dom0 "grep -E '^number of transactions|^latency av|^tps' /tmp/k.pgbench" | xargs)"
sql() { guest "setpriv --reuid postgres --regid postgres --init-groups psql -AtX -c \"$1\" postgres"; }
check "each transaction is there once" same "$(sql "select count(*) from pgbench_history")" "$(dom0 "sed -n 's/^number of transactions actually processed: \\([0-9]*\\).*/\\1/p' /tmp/k.pgbench")"
check "and the sums agree" same "$(sql "select (select sum(delta) from pgbench_history) = (select sum(abalance) from pgbench_accounts) and (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches) and (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers)")" t
filters >"$scratch/filters.after"
check "no filter, queue or lock is left, in dom0 or in the guest" same_world "$scratch/filters" "$scratch/filters.after"
check "each can be restarted on the new system" guest "systemctl restart ${UNITS// /.service }.service && systemctl is-active ${UNITS// /.service }.service"
check "no old files are left then" same "$(guest "cat /var/lib/xenmolt/overlays/* 2>/dev/null | wc -c; find /var/lib/xenmolt/pins -type f 2>/dev/null | wc -l" | xargs)" "0 0"
expect 0 "and app-overlays has none" "xenmolt app-overlays web3"
check "says so" grep -q "no service of web3" "$scratch/out"
