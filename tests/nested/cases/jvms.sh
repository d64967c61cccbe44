#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Debian 11 with the two JVMs that no other case has: OpenJDK 11 (Serial), and OpenJDK 17 with ZGC, whose heap is shared memory. Both move together,
# under clients, onto changed libraries.
DOMAIN=web4
. "$(dirname "$0")/../lib/case.sh"

UNITS="java11.service zgc.service"
PORTS="7200 7201"
pids() { guest "systemctl show -P MainPID $UNITS" | xargs; }
ask() { dom0 "exec 3<>/dev/tcp/$ADDRESS/$1; echo '$2' >&3; timeout 60 head -n1 <&3"; }

begin dom0-ready
if ! dom0 "test -f /etc/xen/web4.cfg"; then
    skip "there is no web4: the mirror had no packages of Debian 11 when the host was built"
    exit 0
fi
dom0 "xl create -q /etc/xen/web4.cfg" || give_up "web4 could not be started"
dom0 "for i in \$(seq 300); do ssh -o ConnectTimeout=5 $ADDRESS true 2>/dev/null && exit 0; sleep 1; done; exit 1" || give_up "web4 does not answer"
check "both services run" guest "timeout 400 systemctl is-system-running --wait >/dev/null; systemctl is-active $UNITS" || exit 1
check "its agent is there" dom0 "for i in \$(seq 120); do xenstore-exists /local/domain/\$(xl domid web4)/data/xenmolt/proto && exit 0; sleep 1; done; exit 1" || exit 1
check "both ports answer" dom0 "for p in $PORTS; do for i in \$(seq 180); do timeout 5 bash -c \"exec 3<>/dev/tcp/$ADDRESS/\$p\" 2>/dev/null && break; sleep 1; done || exit 1; done" || exit 1
for port in $PORTS; do check "port $port: all is there" same "$(ask "$port" CHECK)" OK; done
note "kernel $(guest "uname -r"), $(guest "ldd --version | head -n 1")"
check "one is OpenJDK 11, the other's heap is ZGC's" guest "cd /proc; for u in $UNITS; do p=\$(systemctl show -P MainPID \$u); readlink \$p/exe; grep -c 'memfd:java_heap' \$p/maps; done | xargs |
    grep -q '^/usr/lib/jvm/java-11-openjdk-amd64/bin/java 0 /usr/lib/jvm/java-17-openjdk-amd64/bin/java [1-9]'"
check "one collects serially" guest "jcmd \$(systemctl show -P MainPID java11) VM.flags | tr ' ' '\n' | grep -x -- -XX:+UseSerialGC"
# For one of the two: a start of jcmd takes ten seconds here, and a hook may take thirty.
check "it takes the example hook, which needs jcmd" host ssh "ssh $ADDRESS 'command -v jcmd && mkdir -p /etc/xenmolt/hooks.d && cat >/etc/xenmolt/hooks.d/50-jvm && chmod 755 /etc/xenmolt/hooks.d/50-jvm'" \
    < <(sed 's/^for pid in .*/for pid in ${XENMOLT_PIDS##* }; do/' "$NESTED/../../examples/hooks.d/50-jvm")
expect 0 "both can move" "xenmolt guest-upgrade -n --recipe debian-security web4" || exit 1
before=$(pids)
recipe /tmp/rebuild <<'END'
#!/bin/sh
set -e
for lib in libz.so.1 libm.so.6 libc.so.6; do
    file=$(readlink -f $(ldconfig -p | sed -n "s/^.$lib .* => //p" | head -n 1))
    cp "$file" "$file.new"
    printf rebuilt >>"$file.new"
    mv "$file.new" "$file"
done
echo rebuilt
END
for port in $PORTS; do
    dom0 "setsid loadclient --host $ADDRESS --port $port --conns 4 --interval 5 --prefix p$port- --report /tmp/k.$port --status /tmp/s.$port </dev/null >/tmp/k.$port.log 2>&1 &"
done
start_upgrade --recipe /tmp/rebuild
upgraded 1400 "both move"
sleep 10
note "blackout $(report .blackout_ms) ms: $(report '.blackout | del(.criu_dump, .criu_restore) | tojson')"
check "each is the same process" same "$(pids)" "$before"
check "each is active" guest "systemctl is-active $UNITS"
check "the hook had a JVM tell of its heap, before the freeze and after the thaw" dom0 "jq -e '[.hooks[] | select(.name == \"50-jvm\")] | map([.event, .status]) == [[\"before-freeze\", 0], [\"after-thaw\", 0]] and
    all(.said | test(\"^[0-9]+ .*[0-9]+[KM]\"))' /tmp/up.json" || report '.hooks | tojson' | sed 's/^/   | /'
note "hooks: $(report '[.hooks[] | [.event, .ms, .said]] | tojson')"
check "the restore of each was tried before" same "$(report '[.rehearsal[].unit] | unique | length')" 2
check "each has old files until its restart" same "$(report '[.processes[] | .pins | length > 0] | all')" true
dom0 "pkill -TERM loadclient; for i in \$(seq 90); do [ -f /tmp/k.7201 ] && [ -f /tmp/k.7200 ] && exit 0; sleep 1; done"
for port in $PORTS; do
    check "port $port: 0 lost, doubled, reset, one process" same \
        "$(dom0 "jq -c '[.losses, .duplicates, .resets, (.errors | length), .replies > 0, (.pids | length)]' /tmp/k.$port")" "[0,0,0,0,true,1]"
    check "port $port: all is there" same "$(ask "$port" CHECK)" OK
    note "port $port: longest client gap $(dom0 "jq .longest_gap_ms /tmp/k.$port") ms"
done
check "nothing failed in the guest" same "$(guest "systemctl --failed --no-legend | wc -l")" 0
check "each can be restarted on the new system" guest "systemctl restart $UNITS && systemctl is-active $UNITS"
expect 0 "app-overlays has none then" "xenmolt app-overlays web4"
check "says so" grep -q "no service of web4" "$scratch/out"
