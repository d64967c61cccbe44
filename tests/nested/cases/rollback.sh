#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A guest on a thin volume of LVM, served by blkback, that boots by pygrub: upgraded by `xl guest-upgrade` with a recipe that changes
# files only; then the way back.
# Before that: a raw image in blkback's hands, which is refused.
. "$(dirname "$0")/../lib/case.sh"

begin dom0-ready
dom0 "cd /var/lib/xen/images/web1 && qemu-img convert -O raw web1.qcow2 web1.raw && rm web1.qcow2 &&
    sed 's/format=qcow2/format=raw/; s/web1[.]qcow2/web1.raw/; s/^kernel = .*/bootloader = \"pygrub\"/; /^ramdisk/d; /^extra/d' /etc/xen/web1.cfg >/tmp/phy.cfg && xl create -q -p /tmp/phy.cfg" ||
    give_up "the guest on a raw image could not be started"
expect 8 "a raw image that QEMU does not serve is refused" "xl unpause web1; xenmolt guest-upgrade web1"
err_has backendtype=qdisk
dom0 "xl destroy web1; sleep 2; sed 's|/var/lib/xen/images/web1/web1.raw|/dev/guests/web1|' /tmp/phy.cfg >/tmp/volume.cfg"
volume thin /var/lib/xen/images/web1/web1.raw raw web1
boot /tmp/volume.cfg
check "its disk is blkback's" dom0 "xenstore-ls /local/domain/0/backend/vbd/\$(xl domid web1) | grep -q 'params = \"/dev/guests/web1\"'"

xl_before=$(dom0 "readlink -f /usr/sbin/xl; sha256sum < /usr/sbin/xl; xl info | grep xen_version")
expect 0 "shim-install" "xenmolt shim-install"
check "xl still does its own work" dom0 "xl list web1 && xl info | grep -q xen_version"
expect 1 "and ends as it used to" "xl domid nosuch"
expect 3 "xl guest-upgrade is ours" "xl guest-upgrade nosuch"
err_has nosuch

PID_BEFORE=$(main_pid)
kernel=$(guest "uname -r")
world "$scratch/before"
recipe /tmp/files <<'RECIPE'
#!/bin/sh
echo "changed by the upgrade" >/etc/motd
rm -f /etc/issue.net
mkdir -p /opt/new
echo new >/opt/new/file
RECIPE
start_load 20
# Not the workload: a process that tells dom0 of each line after it wrote it.
gcc -O2 -Wall -Wextra -D_GNU_SOURCE -static -o "$scratch/bystander" "$NESTED/client/bystander.c" -lxenstore -lxentoolcore 2>"$scratch/gcc" ||
    { cat "$scratch/gcc"; give_up "the test's program could not be compiled (Debian: libxen-dev)"; }
host push "$scratch/bystander" /tmp/bystander
dom0 "scp -q /tmp/bystander $ADDRESS:/usr/local/bin/"
guest "systemd-run -q --unit=bystander bystander /var/lib/bystander" || give_up "the process beside the workload does not run"
domid=$(dom0 "xl domid web1")
UPGRADE="xl guest-upgrade" start_upgrade --recipe /tmp/files --keep-active
guest "echo 'written meanwhile' >/root/meanwhile"
upgraded 900 "xl guest-upgrade, a recipe that changes files only"
sleep 5
load_clean
op=$(operation)
check "the same process" same "$(main_pid)" "$PID_BEFORE"
check "the upgrade's files are there" guest "grep -q upgrade /etc/motd && [ -f /opt/new/file ] && [ ! -e /etc/issue.net ]"
check "what the guest wrote meanwhile is there" guest "grep -q meanwhile /root/meanwhile"
told=$(dom0 "xenstore-read /local/domain/$domid/data/bystander")
check "no line of a process beside the workload is lost (${told:-none})" guest "[ ${told:-0} -gt 20 ] && head -n $told /var/lib/bystander | cmp - <(seq $told)"
check "it stood still" same "$(report '.blackout.bystanders | [.cgroups > 0, .late, .error] | tojson')" "[true,null,null]"
check "the same kernel" same "$(guest "uname -r")" "$kernel"
note "blackout: $(report .blackout_ms) ms: $(report '.blackout | del(.criu_dump, .criu_restore) | tojson'), memory $(report '.predump | tojson'), longest client gap $(report .longest_gap_ms /tmp/load.json) ms"
guest "echo 'written after' >/root/after; sync"

expect 0 "op-commit --older-than" "xenmolt op-commit --older-than 0"
check "leaves what was started with --keep-active alone" same "$(operation_state "$op")" "done"
expect 2 "op-rollback wants a confirmation" "xenmolt op-rollback $op"
expect 0 "op-rollback" "xenmolt op-rollback --discard-new-writes $op"
check "op-list says rolled-back" same "$(operation_state "$op")" rolled-back
check "the old guest serves" service_up 60
check "as the same process" same "$(main_pid)" "$PID_BEFORE"
check "and what ran beside it goes on" newer "$(guest "sleep 2; tail -n 1 /var/lib/bystander")" "$told"
guest "systemctl stop bystander"
check "on its own disk" guest "! grep -q upgrade /etc/motd && [ ! -e /opt/new ] && [ -e /etc/issue.net ] && grep -q meanwhile /root/meanwhile && [ ! -e /root/after ]"
expect 18 "a second op-rollback is refused" "xenmolt op-rollback --discard-new-writes $op"
world "$scratch/after"
check "the world is as before" same_world "$scratch/before" "$scratch/after"
check "the volume stands alone" same "$(dom0 "lvs --noheadings -o lv_name guests" | xargs)" "pool web1"
expect 0 "shim-remove" "xenmolt shim-remove"
check "xl is what it was" same "$(dom0 "readlink -f /usr/sbin/xl; sha256sum < /usr/sbin/xl; xl info | grep xen_version")" "$xl_before"
