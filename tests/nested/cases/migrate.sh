#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# app-migrate: the counting service moves under load from web1 (Debian 12) to web3 (Debian 13, without a JDK), with its address and its directory;
# before that what is refused, and a failure behind the restore; then back again; at last a C program over IPv6, from Debian 13 to Debian 12.
. "$(dirname "$0")/../lib/case.sh"
. "$NESTED/lib/twoguests.sh"

# what a move may leave in web3
left_there() { there "ls -d /var/lib/counter /var/lib/xenmolt/overlays/* /var/lib/xenmolt/pins/* /run/xenmolt/restore/* /run/systemd/system/counter.service.d 2>/dev/null; cat /proc/sys/net/ipv4/conf/eth0/arp_ignore; ip -o addr show | grep -c $SERVICE; pgrep -c -u counter java; find /tmp /run -user counter"; }
# what the held packets may leave in dom0
held_left() { dom0 "ip -o link | grep -c xm[hp]; tc qdisc show | grep -c -E 'plug|clsact|ingress'; cat /proc/sys/net/core/netdev_max_backlog"; }
# undo_s STEP: seconds, of the operation whose journal is in $scratch/log
undo_s() { date -f <(awk -v s="$1" '$2 ~ /^und(o|one)$/ && $3 == s { print $1 }' "$scratch/log") +%s.%N | awk 'NR == 1 { a = $1 } END { if (NR == 2) printf "%.1f", $1 - a }'; }
MIGRATE="xenmolt app-migrate --address $SERVICE/24 --path /var/lib/counter"

begin_two_guests
there "echo 8 >/etc/xenmolt/restore-at-once" # this service is so small that nothing of its memory would come later
start_load 10

expect 10 "connections without --address" "xenmolt app-migrate -n web1 web3 counter"
err_has "address of its own"
expect 2 "an address that web1 does not have" "xenmolt app-migrate -n --address 10.77.0.99/24 web1 web3 counter"
err_has "10.77.0.99/24"
expect 10 "an address that the connections are not of" "xenmolt app-migrate -n --address 10.77.0.11/24 web1 web3 counter"
err_has "no connection of 10.77.0.11"
there "mkdir /var/lib/counter && touch /var/lib/counter/there"
expect 10 "a directory that is not empty there" "$MIGRATE -n web1 web3 counter"
err_has "/var/lib/counter"
there "rm -r /var/lib/counter"
expect 2 "a directory of the system's own" "xenmolt app-migrate -n --address $SERVICE/24 --path /etc web1 web3 counter"
there "usermod -u $((uid + 1)) counter"
expect 10 "a user who has another number there" "$MIGRATE -n web1 web3 counter"
err_has "user counter ($uid), who is $((uid + 1)) here"
verdict() { dom0 "xenmolt app-compare --json --workload counter $1 $2 | jq -r '.units[0] | \"\(.verdict) \(.reasons | length)\"'"; }
check "app-compare says that it can only be started anew there, with the reason" same "$(verdict web1 web3)" "restart 1"
there "usermod -u $uid counter"
check "and then that it moves with an overlay" same "$(verdict web1 web3)" "move-overlay 0"
expect 2 "the same domain twice" "xenmolt app-migrate -n web1 web1 counter"
expect 9 "a unit that is not there" "xenmolt app-migrate -n web1 web3 nosuch"
expect 0 "all is well" "$MIGRATE -n web1 web3 counter"
PID_BEFORE=$(main_pid)
# What jcmd does to a JVM that it speaks to for the first time: from then on it listens at a socket, whose file it has renamed.
guest "install -o counter -m 600 /dev/null /tmp/.attach_pid$PID_BEFORE; kill -QUIT $PID_BEFORE; for i in \$(seq 100); do [ -S /tmp/.java_pid$PID_BEFORE ] && break; sleep 0.2; done; rm -f /tmp/.attach_pid$PID_BEFORE"
check "the JVM can be attached to" guest "test -S /tmp/.java_pid$PID_BEFORE"
left_there >"$scratch/left"
held_left >"$scratch/held"

guest_sh <<'END'
mkdir -p /etc/xenmolt/hooks.d
cat >/etc/xenmolt/hooks.d/10-tell <<'HOOK'
#!/bin/sh
echo "$1" >>/run/hooks
[ "$1" != before-freeze ] || [ ! -f /run/hook-fails ] || { echo not today; exit 3; }
HOOK
chmod 755 /etc/xenmolt/hooks.d/10-tell
touch /run/hook-fails
END
expect 21 "a hook that fails before the freeze" "$MIGRATE --no-rehearsal web1 web3 counter"
err_has "not today"
check "the hooks were told that it came to nothing" same "$(guest "cat /run/hooks; rm /run/hooks /run/hook-fails" | xargs)" "before-freeze on-error"
check "the service has not noticed" same "$(main_pid) $(has_service) $(has_service_there)" "$PID_BEFORE 1 0"
left_there >"$scratch/left.after"
check "nothing of it is in web3" diff -U1 "$scratch/left" "$scratch/left.after"

rc=0
dom0 "MOLT_FAULT=restore $MIGRATE --no-rehearsal web1 web3 counter" >"$scratch/out" 2>"$scratch/err" || rc=$?
check "a failure behind the restore is one" same "$rc" 1
dom0 "xenmolt op-log \$(xenmolt op-list --json | jq -r '.[-1].id')" >"$scratch/log"
check "only its end was waited for there, the rest is taken away behind the way back (restore $(undo_s restore) s, freeze $(undo_s freeze), connect $(undo_s connect))" below "$(undo_s restore)" "$(undo_s connect)"
check "the service goes on" service_up 60
check "as the same process" same "$(main_pid)" "$PID_BEFORE"
check "the hooks were told of that, too" same "$(guest "cat /run/hooks; rm /run/hooks" | xargs)" "before-freeze on-error"
check "at its address" same "$(has_service) $(has_service_there)" "1 0"
left_there >"$scratch/left.after"
check "nothing of it is in web3" diff -U1 "$scratch/left" "$scratch/left.after"
held_left >"$scratch/held.after"
check "nor of the held packets in dom0" diff -U1 "$scratch/held" "$scratch/held.after"

note "op-abort"
dom0 "rm -f /tmp/mig.rc; setsid sh -c '$MIGRATE web1 web3 counter >/tmp/mig.out 2>/tmp/mig.err; echo \$? >/tmp/mig.rc' </dev/null >/dev/null 2>&1 &"
check "the memory is on its way" dom0 "for i in \$(seq 300); do case \$(xenmolt op-list --json | jq -r '.[-1].step') in predump|rehearse) exit 0 ;; esac; sleep 0.5; done; cat /tmp/mig.err; exit 1"
expect 0 "op-abort of a move" "xenmolt op-abort $(operation)"
check "the command says that it was aborted" same "$(dom0 "for i in \$(seq 200); do [ -f /tmp/mig.rc ] && break; sleep 0.5; done; cat /tmp/mig.rc")" 16
check "the service has not noticed" same "$(main_pid) $(has_service) $(has_service_there)" "$PID_BEFORE 1 0"
left_there >"$scratch/left.after"
check "nothing of it is in web3" diff -U1 "$scratch/left" "$scratch/left.after"
held_left >"$scratch/held.after"
check "nor of the held packets in dom0" diff -U1 "$scratch/held" "$scratch/held.after"

expect 137 "killed in the freeze" "MOLT_FAULT=freeze=kill $MIGRATE --no-rehearsal web1 web3 counter; exit \$?"
check "the service goes on, with nobody's help" service_up 60
check "as the same process, at its address" same "$(main_pid) $(has_service) $(has_service_there)" "$PID_BEFORE 1 0"
expect 0 "op-recover" "xenmolt op-recover \$(xenmolt op-list --json | jq -r '.[-1].id')"
check "the service has not noticed" same "$(main_pid) $(has_service) $(has_service_there)" "$PID_BEFORE 1 0"
held_left >"$scratch/held.after"
check "nothing of the held packets is left in dom0" diff -U1 "$scratch/held" "$scratch/held.after"
left_there >"$scratch/left.after"
check "nothing of it is in web3" diff -U1 "$scratch/left" "$scratch/left.after"
guest "rm /run/hooks"
load_clean

start_load 10 # for the move alone
sleep 10
expect 0 "app-migrate" "$MIGRATE --report /tmp/migrate.json web1 web3 counter" || exit 1
sleep 10
check "the same process" same "$(pid_there)" "$PID_BEFORE"
check "it answers" service_up 60
load_clean
note "blackout: $(dom0 "jq -c '[.blackout_ms, .blackout]' /tmp/migrate.json"), longest client gap $(dom0 "jq .longest_gap_ms /tmp/load.json") ms"
check "packets were held for it, none dropped" dom0 "jq -e '.blackout.held | .packets > 0 and .dropped == 0' /tmp/migrate.json" || dom0 "jq -c '.blackout, .warnings' /tmp/migrate.json" | sed 's/^/   | /'
held_left >"$scratch/held.after"
check "nothing of that is left in dom0" diff -U1 "$scratch/held" "$scratch/held.after"
check "its memory came later" dom0 "jq -e '.processes[0].paged_later | .ok and .pages > 0' /tmp/migrate.json"
check "its address is web3's" same "$(has_service) $(has_service_there)" "0 1"
check "in web1 it has ended, and starts no more" same "$(guest "systemctl is-active counter; systemctl is-enabled counter; pgrep -c -u counter java" | xargs)" "inactive disabled 0"
check "in web3 it starts at the next boot" same "$(there "systemctl is-active counter; systemctl is-enabled counter" | xargs)" "active enabled"
check "the JVM can be attached to" there "test ! -e /tmp/.java_pid$PID_BEFORE.tmp && python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(\"/tmp/.java_pid$PID_BEFORE\")
s.send(b\"1\\0jcmd\\0GC.heap_info\\0\\0\\0\"); assert s.recv(16)[:2] == b\"0\\n\"'"
check "the JDK is web1's" dom0 "xenmolt app-overlays --json web3 | jq -e '.overlays[0].files | any(contains(\"java-17\"))'"
check "what it starts is web1's, too: the shell, and its JDK's helper" same "$(there "nsenter -t $PID_BEFORE -m /bin/sh -c '[ -x /usr/lib/jvm/java-17-openjdk-amd64/lib/jspawnhelper ] && echo started'")" started
check "op-list says done" same "$(dom0 "xenmolt op-list --json | jq -r '.[-1] | \"\(.kind) \(.state)\"'")" "app-migrate done"
expect 8 "it is not rolled back" "xenmolt op-rollback --discard-new-writes \$(xenmolt op-list --json | jq -r '.[-1].id')"

check "app-compare says that it would move back as it is" same "$(verdict web3 web1)" "move 0"
guest "rm -r /var/lib/counter"
start_load 5
expect 0 "and back" "$MIGRATE web3 web1 counter" || exit 1
sleep 10
check "still the same process" same "$(main_pid)" "$PID_BEFORE"
check "web3 has nothing of it but its directory" same "$(there "ls -d /var/lib/xenmolt/overlays/* /var/lib/xenmolt/pins/*/* /run/xenmolt/restore/* /run/systemd/system/counter.service.d 2>/dev/null; pgrep -c -u counter java" | xargs)" 0
check "no overlay is needed here" same "$(dom0 "xenmolt app-overlays --json web1 | jq -c '[.overlays[].files[]]'")" "[]"
load_clean

note "a C program over IPv6: listening, half-closed, full queues, UDP, and much that a process can hold"
SIX=fd77::50
there_sh() { there "$(cat)"; }
there_sh <<'END' || give_up "six does not start in web3"
sed -e 's,/var/lib/native,/var/lib/six,' /etc/systemd/system/native.service >/etc/systemd/system/six.service
install -d -o kinds -g kinds /var/lib/six
ip addr add fd77::50/64 dev eth0 nodad
systemctl daemon-reload
echo 300000 >/proc/sys/kernel/ns_last_pid
systemctl start six
END
kinds_uid=$(there "id -u kinds; id -g kinds" | xargs)
check "web1 has its unit, its user and an address in that network, and not its program" dom0 "ssh $THERE cat /etc/systemd/system/six.service | ssh 10.77.0.11 'cat >/etc/systemd/system/six.service
    groupadd -g ${kinds_uid#* } kinds && useradd --system --uid ${kinds_uid% *} --gid ${kinds_uid#* } kinds && ip addr add fd77::21/64 dev eth0 nodad && systemctl daemon-reload'" || exit 1
dom0 "rm -f /tmp/k.*; setsid kindclient $SIX 7100 /tmp/k.six /tmp/k.six.status </dev/null >/tmp/k.six.log 2>&1 & echo \$! >/tmp/k.pid
    for i in \$(seq 120); do [ \"\$(jq .told /tmp/k.six.status 2>/dev/null || echo 0)\" -gt 0 ] && exit 0; sleep 0.5; done; cat /tmp/k.six.log; exit 1" || give_up "the client does not get through"
six_pid=$(there "systemctl show -P MainPID six")
expect 0 "it moves from Debian 13 to Debian 12" "xenmolt app-migrate --address $SIX/64 --path /var/lib/six --report /tmp/six.json web3 web1 six" || exit 1
note "blackout: $(dom0 "jq -c '[.blackout_ms, .blackout]' /tmp/six.json")"
told=$(dom0 "jq .told /tmp/k.six.status")
check "the same process, active" same "$(dom0 "ssh 10.77.0.11 'systemctl show -P MainPID six; systemctl is-active six'" | xargs)" "$six_pid active"
check "with the libraries of Debian 13" dom0 "xenmolt app-overlays --json web1 | jq -e '[.overlays[] | select(.unit == \"six.service\") | .files[]] | any(contains(\"libc.so.6\"))'"
check "packets were held for it, none dropped" dom0 "jq -e '.blackout.held | .packets > 0 and .dropped == 0' /tmp/six.json"
sleep 15
six=$(dom0 "kill \$(cat /tmp/k.pid); for i in \$(seq 300); do [ -f /tmp/k.six ] && break; sleep 1; done; cat /tmp/k.six || tail -n 5 /tmp/k.six.log >&2")
note "$six"
check "a connection that is closed in one direction goes on, no line lost or doubled" same "$(jq -r --argjson was "${told:-0}" '.half + (.told > $was + 5 | tostring)' <<<"$six")" true
check "full queues arrive, byte by byte, both ways" same "$(jq -r '.flood + (.stuffed > 100000 | tostring)' <<<"$six")" true
check "every datagram is answered" same "$(jq -r '[.udp_lost, .udp_sent > 10] | tojson' <<<"$six")" "[0,true]"
check "and those that were not read when it stood still come to it, from who had sent them" same "$(jq -r .later <<<"$six") $(dom0 "jq -c '.blackout.datagrams | [.moved >= 20, .lost]' /tmp/six.json")" " [true,0]"
check "no new connection is refused or reset" same "$(jq -r '[.knocks_wrong, .knocks > 50] | tojson' <<<"$six")" '["",true]'
check "every look at all that it holds: OK" same "$(jq -r '.checks | unique | tojson' <<<"$six")" '["OK"]'
held_left >"$scratch/held.after"
check "nothing of the held packets is left in dom0" diff -U1 "$scratch/held" "$scratch/held.after"
check "its address is web1's, and no longer web3's" same "$(dom0 "ssh 10.77.0.11 'ip -o addr show' | grep -c $SIX/64") $(there "ip -o addr show" | grep -c "$SIX/64")" "1 0"
