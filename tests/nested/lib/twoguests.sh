# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash disable=SC2034
# For cases of app-migrate, behind case.sh: web1 (Debian 12) with the counting service, and beside it web3 (Debian 13, without a JDK of its release's).

SERVICE=10.77.0.50 # the service's own address
THERE=10.77.0.13   # web3's; the image has web1's
there() { dom0 "ssh -o StrictHostKeyChecking=no $THERE $(printf %q "$*")"; }
pid_there() { there "systemctl show -P MainPID counter.service"; }
has_service() { guest "ip -o addr show" | grep -c "$SERVICE/24"; }
has_service_there() { there "ip -o addr show" | grep -c "$SERVICE/24"; }

# begin_two_guests: both run; the service has an address of its own, and process ids and a user's number that web3 has not given to others; web3 has its user
# and its unit, and no Java. ADDRESS is the service's from here on.
begin_two_guests() {
    begin dom0-ready
    # Not what web3 has services for, here
    dom0_sh <<'END' || give_up "web3 could not be started"
sed 's/mac=[0-9a-f:]*/mac=00:16:3e:77:00:13/; s/mitigations=off/mitigations=off systemd.mask=java21.service systemd.mask=java25.service systemd.mask=db.service systemd.mask=native.service systemd.mask=python.service/' /etc/xen/web3.cfg >/tmp/web3.cfg
xl create -q /tmp/web3.cfg memory=1024 maxmem=1024
for i in $(seq 300); do ssh -o ConnectTimeout=5 10.77.0.11 true 2>/dev/null && exit 0; sleep 1; done
exit 1
END
    dom0 "ssh 10.77.0.11 'timeout 400 systemctl is-system-running --wait >/dev/null; sed -i s/10.77.0.11/10.77.0.13/ /etc/systemd/network/eth0.network; systemd-run -q --on-active=1 systemctl restart systemd-networkd'"
    dom0 "for i in \$(seq 60); do ssh -o StrictHostKeyChecking=no -o ConnectTimeout=5 $THERE 'ip -o addr show | grep -q 10.77.0.11' 2>/dev/null || ssh -o ConnectTimeout=5 $THERE true 2>/dev/null && exit 0; sleep 1; done; exit 1" || give_up "web3 does not take its address"
    there "ip addr del 10.77.0.11/24 dev eth0" 2>/dev/null
    dom0 "ip neigh flush all"
    boot /etc/xen/web1.cfg
    check "web3's agent is there" dom0 "xenstore-exists /local/domain/\$(xl domid web3)/data/xenmolt/proto" || exit 1

    uid=7777 # the cases use it, too
    guest "ip addr add $SERVICE/24 dev eth0; systemctl stop counter; groupmod -g $uid counter; usermod -u $uid -g $uid counter; chown -R counter: /var/lib/counter
        echo 200000 >/proc/sys/kernel/ns_last_pid; systemctl start counter" || give_up "the service does not start again"
    dom0 "ssh $ADDRESS 'tar -C / -cf - opt/counter etc/systemd/system/counter.service' | ssh $THERE 'tar -C / -xf - && groupadd -g $uid counter && useradd --system --uid $uid --gid $uid counter && systemctl daemon-reload'" || give_up "web3 has no unit"
    ADDRESS=$SERVICE
    check "the service answers at its own address" service_up 300 || exit 1
}
