#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What goes wrong shortly before the pivot, under clients: a service that does not accept its connections, a trial that fails, a system that it cannot move to, a failure in the freeze and
# one behind the restore. Each time all is as before, the hooks hear of it, and nothing of the network is left.
. "$(dirname "$0")/../lib/case.sh"

# comes_to_nothing STATUS TEXT MESSAGE ARGS...: a guest-upgrade of web1, in the environment ENV.
comes_to_nothing() {
    local status=$1 text=$2 message=$3 op; shift 3
    guest "rm -f /run/hooks"
    expect "$status" "$text" "${ENV:-} xenmolt guest-upgrade --report /tmp/up.json --recipe /tmp/motd $* web1"
    err_has "$message"
    op=$(operation)
    check "the report says so" dom0 "jq -e --arg m '$message' '.result == \"failed\" and (.error | tostring | ascii_downcase | contains(\$m | ascii_downcase))' /tmp/up.json"
    undone "$op" failed "$scratch/before"
    check "nothing of it is left in the guest" same "$(guest "ls -d /run/xenmolt/dump/* /run/xenmolt/frozen /run/xenmolt/turns /var/lib/xenmolt/pins/* /var/lib/xenmolt/overlays/* 2>/dev/null; cat /sys/fs/cgroup/system.slice/*/cgroup.freeze | sort -u" | xargs)" 0
}
told() { same "$(guest "cat /run/hooks 2>/dev/null" | xargs)" "$1"; }

begin
immovable_there
recipe /tmp/motd <<'END'
#!/bin/sh
echo "changed by the upgrade" >/etc/motd
END
guest_sh <<'END'
mkdir -p /etc/xenmolt/hooks.d
printf '%s\n' '#!/bin/sh' 'echo "$1 $XENMOLT_EVENT $XENMOLT_DOMAIN ${XENMOLT_OPERATION%%-*} $XENMOLT_UNITS" >>/run/hooks' >/etc/xenmolt/hooks.d/10-tell
chmod 755 /etc/xenmolt/hooks.d/10-tell
systemd-run -q --unit=stays sleep 1000000
printf '%s\n' '[Service]' 'ExecStart=/usr/local/bin/immovable deaf 7999' >/etc/systemd/system/deaf.service
printf '%s\n' '[Service]' "ExecStart=/usr/local/bin/immovable file /proc/$(systemctl show -P MainPID stays)/status" >/etc/systemd/system/holder.service
systemctl daemon-reload
END
world "$scratch/before"
PID_BEFORE=$(main_pid)
start_load 10

guest "systemctl start deaf"
dom0 "setsid bash -c 'exec 3<>/dev/tcp/$ADDRESS/7999; sleep 1000000' </dev/null >/dev/null 2>&1 & sleep 1"
connected() { dom0 "ss -Htn state established dport = :7999 | wc -l" 2>/dev/null; }
comes_to_nothing 10 "a connection that nobody accepts would be lost" "1 connection to counter.service,deaf.service waits to be accepted" --no-rehearsal --workload counter.service,deaf.service
check "that one still waits" same "$(connected)" 1
check "the hooks were told" told "before-freeze before-freeze web1 gu counter.service deaf.service on-error on-error web1 gu counter.service deaf.service"
dom0 "pkill -f 'sleep 1000000'"
guest "systemctl stop deaf"

guest "systemctl start holder"
comes_to_nothing 10 "a file that the new system does not have: the trial finds it" "trial of the restore of holder.service" --workload counter.service,holder.service
check "no hook was told of a freeze" told ""
check "it says what CRIU could not open" dom0 "jq -r .error.text /tmp/up.json | grep -q 'proc/[0-9]*/status'"
guest "systemctl stop holder"

recipe /tmp/motd <<'END'
#!/bin/sh
echo "changed by the upgrade" >/etc/motd
sed -i 's/^counter:x:[0-9]*:/counter:x:4999:/' /etc/passwd
END
comes_to_nothing 10 "a new system where the service's user has another number" "cannot move to the upgraded system" --no-rehearsal
check "the report has the verdict, and why" dom0 "jq -e '.processes[0] | .verdict == \"restart\" and (.reasons[0].detail | contains(\"4999\"))' /tmp/up.json"
recipe /tmp/motd <<'END'
#!/bin/sh
echo "changed by the upgrade" >/etc/motd
END

ENV="MOLT_FAULT=freeze" comes_to_nothing 1 "a failure in the freeze" "fault point freeze" --no-rehearsal
check "the hooks were told" told "before-freeze before-freeze web1 gu counter.service on-error on-error web1 gu counter.service"
ENV="MOLT_FAULT=restore" comes_to_nothing 1 "a failure behind the restore" "fault point restore" --no-rehearsal
check "the hooks were told" told "before-freeze before-freeze web1 gu counter.service on-error on-error web1 gu counter.service"

load_clean
check "what stood still beside the service goes on" guest "systemctl is-active stays"
check "the guest's files are as before" guest "! grep -q upgrade /etc/motd"
