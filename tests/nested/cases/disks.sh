#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# web2: a partitioned disk (/boot, /, /home) that is merged, found by UUID=, a raw data disk that is handed over, and one with a volume
# group of the guest's own, in it an XFS file system that is merged. Upgraded and rolled back; then on a volume of LVM in place of the image, upgraded again and committed: each time the disks stand alone afterwards.
. "$(dirname "$0")/../lib/case.sh"

IMAGES=/var/lib/xen/images/web2
DATA=/var/lib/counter

# Each disk as libxl, xenstore and (after an upgrade) the file for the next xl create name it.
disks_of_web2() {
    dom0_sh <<'END' | xargs
xl list -l web2 2>/dev/null | jq -r '.[].config.disks[].pdev_path'
for be in $(xl block-list web2 | awk 'NR > 1 { print $NF }'); do xenstore-read "$be/params"; done
sed -n '/^disk/ { s/[^=]*=//; s/"[^"]*target=\([^"]*\)"/\1/g; s/[][,]//g; p }' /var/lib/xenmolt/domains/web2.cfg
END
}
images_alone() {
    same "$(dom0 "cd $IMAGES && ls | xargs; qemu-img info -U --output=json web2.qcow2 | jq -r '.\"backing-filename\" // \"alone\"'" | xargs)" \
        "initrd.img inner.raw web2-data.raw web2.qcow2 alone"
}

# upgrade ARGS...: under load, until the guest has been served by the clone for a moment.
upgrade() {
    start_load 10
    start_upgrade --recipe /tmp/files "$@"
    wait_recipe 600 "changed"
    write_data
    upgraded 900 "guest-upgrade"
    check "the restore was tried before, without the disk that is handed over" same "$(report '.rehearsal | length')" 1
    sleep 5
    load_clean
    note "blackout: $(report .blackout_ms) ms: $(report '.blackout | del(.criu_dump, .criu_restore) | tojson')"
}

# write_data: while the clone is upgraded, the guest writes to all its disks.
# Directories that are left out at the root are none of that elsewhere.
write_data() { SUM=$(guest "mkdir -p /home/dev/run; for d in /root /boot /home/admin /home/dev/run /srv; do [ ! -d \$d ] || echo meanwhile >\$d/meanwhile; done; head -c 3000000 /dev/urandom >$DATA/meanwhile; sync; sha256sum <$DATA/meanwhile"); }
data_is_there() { same "$(guest "echo 3 >/proc/sys/vm/drop_caches; sha256sum <$DATA/meanwhile")" "$SUM"; }

# inner_volume: /srv of the running web2 becomes an XFS file system in a volume group of the guest's own, on a disk xvdc. dom0's
# LVM makes it, and gives its program to the guest, which has dmsetup but not LVM.
inner_volume() {
    dom0_sh <<END && guest_sh <<'END2' || give_up "no volume group in the guest"
set -e
modprobe -a loop dm-mod xfs
truncate -s 400M $IMAGES/inner.raw
dev=\$(losetup -f --show $IMAGES/inner.raw)
vgcreate -q inner \$dev
lvcreate -q -y -l 100%FREE -n srv inner
mkfs.xfs -q /dev/inner/srv
vgchange -q -an inner
losetup -d \$dev
cd /
{ dpkg -L lvm2 | grep -E '^/(usr/)?(s?bin|lib/udev|lib/systemd/system)/'; ldd /sbin/lvm | sed -n 's/.*=> \(.*\) (.*/\1/p'; echo /etc/lvm/lvm.conf; } | sort -u >/tmp/lvm.files
tar -chf - --no-recursion -T /tmp/lvm.files 2>/dev/null | ssh $ADDRESS "tar -C / -x --skip-old-files -f -"
xl block-attach web2 "format=raw,backendtype=qdisk,vdev=xvdc,access=rw,target=$IMAGES/inner.raw"
END
set -e
udevadm control --reload
cat >/etc/systemd/system/inner.service <<'UNIT'
[Unit]
DefaultDependencies=no
After=systemd-udevd.service systemd-remount-fs.service
Before=local-fs.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'modprobe -a dm-mod xfs; for i in $(seq 100); do [ -b /dev/xvdc ] && break; sleep 0.1; done; /sbin/lvm vgchange -ay inner && mount /dev/inner/srv /srv'
[Install]
WantedBy=local-fs.target
UNIT
systemctl enable -q inner
systemctl start inner
echo base >/srv/both
mkdir /srv/many
for i in $(seq 50); do echo $i >/srv/many/f$i; done
sync
END2
    check "the guest has a file system of XFS on a volume of its own" same "$(guest "findmnt -no FSTYPE,SOURCE /srv" | xargs)" "xfs /dev/mapper/inner-srv"
}

begin_web2
inner_volume
check "its root was found by UUID" guest "grep -q root=UUID= /proc/cmdline && findmnt -no SOURCE / | grep -x /dev/xvda2"
check "its swap is on" guest "swapon --noheadings | grep -q xvda3"
PID_BEFORE=$(main_pid)
world "$scratch/before"
recipe /tmp/files <<'RECIPE'
#!/bin/sh
set -e
echo "changed by the upgrade" >/etc/motd
echo "changed by the upgrade" >/boot/upgrade
rm -f /home/admin/notes
[ ! -d /srv/many ] || mv /srv/many /srv/renamed
echo "changed by the upgrade" >/srv/upgrade
swapon --noheadings | grep -q xvda3
# The copy that the clone has of the data disk is its own, and is thrown away.
echo "by the upgrade" >/var/lib/counter/upgrade
echo changed
RECIPE

expect 0 "the checks pass" "xenmolt guest-upgrade -n web2"
check "and tell what becomes of the disks" same "$(grep '^disk xv' "$scratch/out" | xargs)" "disk xvda: merged disk xvdb: handed over ($DATA) disk xvdc: merged"
upgrade
op=$(operation)
check "the same process" same "$(main_pid)" "$PID_BEFORE"
check "the upgrade's changes are there, on each file system" guest "grep -q upgrade /etc/motd && grep -q upgrade /boot/upgrade && [ ! -e /home/admin/notes ]"
check "and the guest's own" guest "grep -q meanwhile /home/admin/meanwhile && grep -q meanwhile /boot/meanwhile && grep -q meanwhile /root/meanwhile"
check "in a directory of /home that is called as one of the kernel's" guest "grep -q meanwhile /home/dev/run/meanwhile"
check "what the clone changed was recorded on each of its four file systems" same "$(guest "journalctl -b -o cat -u xenmolt-agent | grep -oE '^(/[a-z]*: [0-9]+ paths changed here, as recorded|/.* is scanned)' | sed 's/:.*//' | sort | xargs")" "/ /boot /home /srv"
check "also on XFS, above a volume group of the guest's own" guest "grep -q upgrade /srv/upgrade && grep -q meanwhile /srv/meanwhile && [ ! -e /srv/many ] && [ \$(ls /srv/renamed | wc -l) = 50 ] && grep -q base /srv/both"
check "/boot and /home are mounted where they were" same "$(guest "findmnt -no SOURCE /boot; findmnt -no SOURCE /home" | xargs)" "/dev/xvda1 /dev/xvda4"
check "the data disk was handed over" data_is_there
check "without what the upgrade wrote there" guest "[ ! -e $DATA/upgrade ]"
check "and is mounted where it was" same "$(guest "findmnt -no SOURCE $DATA")" /dev/xvdb
check "no base disk is left" guest "! ls /dev | grep -qE '^xvd[d-z]' && [ \$(dmsetup ls | wc -l) = 1 ]"
check "the report tells of its part in the blackout" below 0 "$(report .blackout.hand_over_ms)"
check "nothing failed in the guest" same "$(guest "systemctl --failed --no-legend | wc -l")" 0
guest "echo later >$DATA/later; sync"

expect 0 "op-rollback" "xenmolt op-rollback --discard-new-writes $op"
check "the old guest serves" service_up 60
check "as the same process" same "$(main_pid)" "$PID_BEFORE"
check "with its data as of the freeze" data_is_there
check "and nothing of later" guest "[ ! -e $DATA/later ] && ! grep -q upgrade /etc/motd && [ ! -e /boot/upgrade ] && [ -e /home/admin/notes ] && grep -q meanwhile /home/admin/meanwhile && [ -e /srv/many ] && [ ! -e /srv/upgrade ] && grep -q meanwhile /srv/meanwhile"
check "its data disk can be written" guest "echo again >$DATA/again && sync"
world "$scratch/after"
check "the world is as before" same_world "$scratch/before" "$scratch/after"
check "the images stand alone" images_alone

note "the disks become volumes of LVM: a classic one that is merged, a thin one that is handed over"
guest "systemctl disable -q inner" # that disk stays away from here on
dom0 "xl destroy web2; sleep 2; rm $IMAGES/inner.raw; sed 's|^disk = .*|disk = [ \"phy:/dev/guests/web2,xvda,w\", \"phy:/dev/guests/web2-data,xvdb,w\" ]|' /etc/xen/web2.cfg >/tmp/volume.cfg"
volume classic $IMAGES/web2.qcow2 qcow2 web2
volume thin $IMAGES/web2-data.raw raw web2-data
boot /tmp/volume.cfg
PID_BEFORE=$(main_pid)
upgrade
op=$(operation)
check "the same process" same "$(main_pid)" "$PID_BEFORE"
check "the data disk was handed over again" data_is_there
check "the upgrade's changes are there, and the guest's" guest "grep -q upgrade /etc/motd && grep -q upgrade /boot/upgrade && grep -q meanwhile /home/admin/meanwhile"
expect 0 "op-commit" "xenmolt op-commit $op 2>/tmp/commit.err"
check "tells how far it is" dom0 "grep -q 'disk xvda: .*100 %' /tmp/commit.err"
check "the service answers on" service_up 10
check "the volumes stand alone" same "$(dom0 "lvs --noheadings -o lv_name guests; ls $IMAGES; ls /var/lib/xenmolt/disks" | xargs)" "pool web2 web2-data initrd.img"
check "each under its old name, everywhere" same "$(disks_of_web2)" \
    "/dev/guests/web2 /dev/guests/web2-data aio:/dev/guests/web2 /dev/guests/web2-data /dev/guests/web2 /dev/guests/web2-data"
guest "sync"
dom0 "xl destroy web2; sleep 2" >/dev/null
check "the file for the next start starts it" dom0 "for i in \$(seq 20); do xl create -q /var/lib/xenmolt/domains/web2.cfg && exit 0; sleep 1; done; exit 1"
check "from the volumes, by blkback" same "$(dom0 "xenstore-ls /local/domain/0/backend/vbd/\$(xl domid web2) | grep -c 'params = \"/dev/guests/web2'")" 2
check "with its service" service_up 300
check "and its data" data_is_there
