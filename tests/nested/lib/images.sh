# SPDX-License-Identifier: GPL-2.0-or-later
# Layer (b): the disks. The guest's image lies inside dom0's, at /var/lib/xen/images/web1/.

IMAGES_IN_DOM0=/var/lib/xen/images
DOM0_DISK=25G
GUEST_DISK=6G
GUEST_ADDRESS=10.77.0.11
GUEST_MAC=00:16:3e:77:00:11
BRIDGE_ADDRESS=10.77.0.1
# Nothing to protect in here, and without them a boot takes a fifth less under TCG.
FASTER_KERNEL=mitigations=off
QEMU_DNS=10.0.2.3                   # the resolver in QEMU's user-mode network

# What only costs time at boot, where every process is 30 times slower.
MASKED=(apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer
        dpkg-db-backup.timer systemd-tmpfiles-clean.timer logrotate.timer getty@tty1.service systemd-logind.service
        modprobe@.service sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount
        dev-mqueue.mount systemd-pstore.service systemd-update-utmp.service systemd-update-utmp-runlevel.service
        proc-sys-fs-binfmt_misc.automount)

make_key() {
    [ -f "$KEY" ] || ssh-keygen -q -t ed25519 -N '' -C xenmolt-nested -f "$KEY"
    [ -f "$CACHE/hostkey" ] || ssh-keygen -q -t ed25519 -N '' -C xenmolt-nested-host -f "$CACHE/hostkey"
}

# unpack_root TAR DIR; with the mounts that package scripts want. drop_root undoes it.
unpack_root() {
    local tar=$1 dir=$2
    drop_root "$dir"
    mkdir -p "$dir"
    tar -C "$dir" --numeric-owner --xattrs --xattrs-include='*' -xpf "$tar"
    mount -t proc proc "$dir/proc"
    mount -t tmpfs tmpfs "$dir/tmp"
    printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d"
    chmod 755 "$dir/usr/sbin/policy-rc.d"
}

close_root() {
    local dir=$1 m
    rm -f "$dir/usr/sbin/policy-rc.d"
    for m in proc tmp; do
        if mountpoint -q "$dir/$m"; then umount "$dir/$m"; fi
    done
}

drop_root() {
    local dir=$1
    [ -d "$dir" ] || return 0
    close_root "$dir"
    rm -rf --one-file-system "$dir"
}

# put FILE [MODE]: a file from stdin below $ROOT.
put() {
    mkdir -p "$ROOT$(dirname "$1")"
    cat >"$ROOT$1"
    chmod "${2:-644}" "$ROOT$1"
}

# What dom0 and guest have in common. ROOT is set by the caller.
configure_common() {
    local name=$1
    echo "$name" | put /etc/hostname
    printf '127.0.0.1 localhost\n%s dom0\n%s web1\n' "$BRIDGE_ADDRESS" "$GUEST_ADDRESS" | put /etc/hosts
    rm -f "$ROOT/etc/resolv.conf"
    echo "nameserver $QEMU_DNS" | put /etc/resolv.conf
    install -d -m 700 "$ROOT/root/.ssh"
    cp "$KEY.pub" "$ROOT/root/.ssh/authorized_keys"
    # A cheap login: every process costs 30 times its native price in here.
    put /etc/ssh/sshd_config.d/nested.conf <<'END'
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 100
MaxSessions 100
HostKey /etc/ssh/ssh_host_ed25519_key
END
    install -m 600 "$CACHE/hostkey" "$ROOT/etc/ssh/ssh_host_ed25519_key"
    cp "$CACHE/hostkey.pub" "$ROOT/etc/ssh/ssh_host_ed25519_key.pub"
    sed -i 's/^root:[^:]*:/root:*:/' "$ROOT/etc/shadow"
    apt_habits | put /etc/apt/apt.conf.d/90machine
    rm -f "$ROOT"/etc/apt/sources.list.d/* "$ROOT/etc/apt/sources.list"
    debian_sources "$SUITE" "$SUITE-updates" "$SUITE-security" | put /etc/apt/sources.list
    local u
    for u in "${MASKED[@]}"; do ln -sf /dev/null "$ROOT/etc/systemd/system/$u"; done
    cksum <<<"$name" | tr -d ' ' | md5sum | cut -c1-32 | put /etc/machine-id
    chroot "$ROOT" systemctl enable systemd-networkd ssh >/dev/null
    chroot "$ROOT" systemctl disable systemd-networkd-wait-online >/dev/null
    printf '[Journal]\nStorage=persistent\nSystemMaxUse=64M\n' | put /etc/systemd/journald.conf.d/nested.conf
    rm -rf "$ROOT"/var/cache/apt/*.bin "$ROOT"/var/lib/apt/lists/*
}

# lean_sources: the updates' archives with the one keyring they need (else apt joins all, for each archive, by a shell
# script), and the release itself in a file that is switched off: reading its list costs the guest a minute and more.
lean_sources() {
    local by='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
    debian_sources "$SUITE-updates" "$SUITE-security" | sed "s|^deb |deb $by |" | put /etc/apt/sources.list
    debian_sources "$SUITE" | sed "s|^deb |deb $by |" | put /etc/apt/sources.list.d/release.list.off
}

# package_lists UPDATES: as in any guest that is looked after, today's lists are there (apt-daily.timer brings them;
# reading them anew takes two minutes under TCG). The names of the packages that an upgrade would bring go into UPDATES.
package_lists() {
    local resolver
    resolver=$(cat "$ROOT/etc/resolv.conf")
    cat /etc/resolv.conf >"$ROOT/etc/resolv.conf"
    chroot "$ROOT" apt-get -q update
    chroot "$ROOT" apt-cache gencaches
    chroot "$ROOT" apt-get -s --no-install-recommends dist-upgrade | sed -n 's/^Inst \([^ ]*\) .*/\1/p' >"$1"
    echo "$resolver" >"$ROOT/etc/resolv.conf"
}

# configure_guest NAME [ADDRESS6]: a guest on one disk.
configure_guest() {
    configure_common "$1"
    put /etc/systemd/network/eth0.network <<END
[Match]
Name=eth0
[Network]
Address=$GUEST_ADDRESS/24
${2:+Address=$2/64
}Gateway=$BRIDGE_ADDRESS
LinkLocalAddressing=no
IPv6AcceptRA=no
END
    echo '/dev/xvda / ext4 errors=remount-ro 0 0' | put /etc/fstab
    printf 'xen-gntalloc\nxen-gntdev\nxen-evtchn\n' | put /etc/modules-load.d/xen.conf
}

make_guest_disk() {
    local out=$1 ROOT=$CACHE/scratch/guest
    unpack_root "$GUEST_TAR" "$ROOT"
    configure_guest web1
    echo counter.service | put /etc/xenmolt/workload
    chroot "$ROOT" useradd --system --home-dir /var/lib/counter --shell /usr/sbin/nologin counter
    mkdir -p "$ROOT/opt/counter"
    javac --release 17 -d "$ROOT/opt/counter" "$NESTED/service/Counter.java"
    install -m 644 "$NESTED/service/counter.service" "$ROOT/etc/systemd/system/counter.service"
    install -d -o "$(chroot "$ROOT" id -u counter)" -g "$(chroot "$ROOT" id -g counter)" "$ROOT/var/lib/counter"
    chroot "$ROOT" systemctl enable counter.service
    # For a guest that boots by pygrub (rollback.sh): the links follow the newest kernel.
    put /boot/grub/grub.cfg <<END
set default=0
set timeout=0
menuentry "Debian" {
    linux /vmlinuz root=/dev/xvda ro console=hvc0 net.ifnames=0 quiet $FASTER_KERNEL
    initrd /initrd.img
}
END
    lean_boot
    lean_sources
    package_lists "$out/updates"
    install_package "$PACKAGES/xenmolt-agent.deb"
    close_root "$ROOT"
    mkdir -p "$out/guest"
    cp "$ROOT"/boot/vmlinuz-* "$out/guest/vmlinuz"
    cp "$ROOT"/boot/initrd.img-* "$out/guest/initrd.img"
    disk_of_root "$ROOT" "$out/guest/web1.qcow2" "$GUEST_DISK" web1
    make_partitioned_guest "$ROOT" "$out/guest2"
    drop_root "$ROOT"
}

# What web2's file systems are known by.
WEB2_ROOT=6f9a3c52-1d0e-4a7b-8a4c-3b1f5d2e0001
WEB2_BOOT=6f9a3c52-1d0e-4a7b-8a4c-3b1f5d2e0002
WEB2_SWAP=6f9a3c52-1d0e-4a7b-8a4c-3b1f5d2e0003
WEB2_DATA=6f9a3c52-1d0e-4a7b-8a4c-3b1f5d2e0004

# make_partitioned_guest ROOT OUT: web2, the same guest on other disks, not started by default: a disk with a table of
# partitions (/boot, /, swap, /home; by UUID=, /home by LABEL=), and a raw one with the service's data. Consumes ROOT.
make_partitioned_guest() {
    local ROOT=$1 out=$2 part d
    mkdir -p "$out/parts"
    put /etc/fstab <<END
UUID=$WEB2_ROOT / ext4 errors=remount-ro 0 0
UUID=$WEB2_BOOT /boot ext4 defaults 0 0
LABEL=home2 /home ext4 defaults 0 0
UUID=$WEB2_SWAP none swap sw 0 0
UUID=$WEB2_DATA /var/lib/counter ext4 defaults 0 0
END
    # The initramfs looks for the root by its UUID, which lean_boot leaves out.
    printf '%s\n' '#!/bin/sh' '[ "$1" != prereqs ] || exit 0' '. /usr/share/initramfs-tools/hook-functions' 'copy_exec /sbin/blkid /sbin' |
        put /etc/initramfs-tools/hooks/blkid 755
    chroot "$ROOT" update-initramfs -u
    cp "$ROOT"/boot/initrd.img-* "$out/initrd.img"
    install -d "$ROOT/home/admin"
    echo "of the first day" | put /home/admin/notes
    for d in boot home var/lib/counter; do
        part=$out/parts/$(basename "$d")
        mv "$ROOT/$d" "$part"
        install -d "$ROOT/$d"
    done
    partition "$out/parts/root" 3072 "$ROOT" -U $WEB2_ROOT
    partition "$out/parts/boot" 128 "$out/parts/boot" -U $WEB2_BOOT
    partition "$out/parts/home" 64 "$out/parts/home" -L home2
    partition "$out/parts/counter" 256 "$out/parts/counter" -U $WEB2_DATA
    truncate -s 64M "$out/parts/swap.part"
    mkswap -q -U $WEB2_SWAP "$out/parts/swap.part"
    partition_table "$out/web2.raw" "$out/parts" boot 128 root 3072 swap 64 home 64
    qemu-img convert -O qcow2 "$out/web2.raw" "$out/web2.qcow2"
    cp --sparse=always "$out/parts/counter.part" "$out/web2-data.raw"
    rm -rf "$out/parts" "$out/web2.raw"
}

# partition NAME MIB TREE OPTIONS...: NAME.part, an ext4 file system with that tree.
partition() {
    local file=$1.part size=$2 tree=$3; shift 3
    truncate -s "${size}M" "$file"
    mke2fs -q -t ext4 -m 1 -E "lazy_itable_init=0,lazy_journal_init=0,discard,root_owner=$(stat -c %u:%g "$tree")" "$@" -d "$tree" "$file"
}

# partition_table DISK DIR NAME MIB ...: a disk with a GPT and DIR/NAME.part in its partitions.
partition_table() {
    local disk=$1 dir=$2 at=1 table='label: gpt' parts=() part; shift 2
    while (( $# )); do
        table+=$'\n'"start=${at}MiB, size=${2}MiB"
        parts+=("$1:$at")
        at=$((at + $2))
        shift 2
    done
    truncate -s "$((at + 1))M" "$disk"
    sfdisk -q "$disk" <<<"$table"
    for part in "${parts[@]}"; do
        dd if="$dir/${part%:*}.part" of="$disk" bs=1M seek="${part#*:}" conv=notrunc,sparse status=none
    done
}

# lean_boot: a PV guest has three devices and no firmware; it needs no udev in its initramfs, coldplug of these
# three only, and few of systemd's generators. Saves about half of its boot.
lean_boot() {
    local s g
    for s in init-top/udev init-bottom/udev; do
        printf '#!/bin/sh\nexit 0\n' | put "/etc/initramfs-tools/scripts/$s" 755
    done
    # Nor what these would copy: two thirds of mkinitramfs' processes. klibc's hook copies its programs one by one.
    for s in dmsetup fsck keymap klibc-utils resume thermal udev; do
        [ ! -f "$ROOT/usr/share/initramfs-tools/hooks/$s" ] ||
            chroot "$ROOT" dpkg-statoverride --add --update root root 644 "/usr/share/initramfs-tools/hooks/$s"
    done
    put /etc/initramfs-tools/hooks/lean-klibc 755 <<'END'
#!/bin/sh
[ "$1" != prereqs ] || exit 0
mkdir -p "$DESTDIR/bin" "$DESTDIR/lib"
cp -p /usr/lib/klibc/bin/* "$DESTDIR/bin/"
cp -p /lib/klibc-*.so "$DESTDIR/lib/"
END
    printf '%s\n' ext4 crc32c_generic xen-blkfront xen-netfront | put /etc/initramfs-tools/modules
    chroot "$ROOT" update-initramfs -u
    put /etc/systemd/system/systemd-udev-trigger.service.d/lean.conf <<'END'
[Service]
ExecStart=
ExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=net --subsystem-match=block --subsystem-match=tty
END
    for g in cryptsetup debug gpt-auto hibernate-resume integritysetup rc-local system-update sysv veritysetup; do
        mkdir -p "$ROOT/etc/systemd/system-generators"
        ln -sf /dev/null "$ROOT/etc/systemd/system-generators/systemd-$g-generator"
    done
}

# install_package DEB: into $ROOT, when it was built.
install_package() {
    [ -f "$1" ] || return 0
    cp "$1" "$ROOT/tmp/package.deb"
    DEBIAN_FRONTEND=noninteractive chroot "$ROOT" dpkg --force-confold -i /tmp/package.deb
    rm "$ROOT/tmp/package.deb"
}

# disk_of_root DIR QCOW2 SIZE LABEL [FEATURES]
disk_of_root() {
    local raw=$2.raw
    rm -f "$raw"
    truncate -s "$3" "$raw"
    mke2fs -q -t ext4 -L "$4" -m 1 -E lazy_itable_init=0,lazy_journal_init=0,discard -O "${5:-has_journal}" -i 32768 -d "$1" "$raw"
    qemu-img convert -O qcow2 "$raw" "$2"
    rm "$raw"
}

make_dom0_disk() {
    local out=$1 ROOT=$CACHE/scratch/dom0
    unpack_root "$DOM0_TAR" "$ROOT"
    configure_common dom0
    put /etc/systemd/network/eth0.network <<'END'
[Match]
Name=eth0
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
END
    printf '[NetDev]\nName=xenbr0\nKind=bridge\nMACAddress=fe:00:00:77:00:01\n[Bridge]\nSTP=no\nForwardDelaySec=0\n' \
        | put /etc/systemd/network/xenbr0.netdev
    put /etc/systemd/network/xenbr0.network <<END
[Match]
Name=xenbr0
[Network]
Address=$BRIDGE_ADDRESS/24
ConfigureWithoutCarrier=yes
LinkLocalAddressing=no
END
    echo 'net.ipv4.ip_forward=1' | put /etc/sysctl.d/nested.conf
    put /etc/nftables.conf 755 <<'END'
#!/usr/sbin/nft -f
flush ruleset
table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "eth0" masquerade
    }
}
END
    chroot "$ROOT" systemctl enable nftables >/dev/null
    echo '/dev/vda / ext4 errors=remount-ro 0 0' | put /etc/fstab
    printf 'xen-gntdev\nxen-gntalloc\nxen-evtchn\nxen-blkback\nxen-netback\n' | put /etc/modules-load.d/xen.conf
    # xendomains would save and restore guests behind our back.
    ln -sf /dev/null "$ROOT/etc/systemd/system/xendomains.service"
    install -m 600 "$KEY" "$ROOT/root/.ssh/id_ed25519"
    printf 'Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n' | put /root/.ssh/config 600
    put /etc/xen/web1.cfg <<END
name = "web1"
type = "pv"
kernel = "$IMAGES_IN_DOM0/web1/vmlinuz"
ramdisk = "$IMAGES_IN_DOM0/web1/initrd.img"
extra = "root=/dev/xvda ro console=hvc0 net.ifnames=0 quiet $FASTER_KERNEL"
memory = 1024
maxmem = 1024
vcpus = 1
disk = [ "format=qcow2,vdev=xvda,access=rw,target=$IMAGES_IN_DOM0/web1/web1.qcow2" ]
vif = [ "mac=$GUEST_MAC,bridge=xenbr0" ]
END
    sed -e 's/"web1"/"web2"/; s|web1/initrd.img|web2/initrd.img|; s|root=/dev/xvda|root=UUID='$WEB2_ROOT'|' \
        -e "s|^disk = .*|disk = [ \"format=qcow2,vdev=xvda,access=rw,target=$IMAGES_IN_DOM0/web2/web2.qcow2\", \"format=raw,backendtype=qdisk,vdev=xvdb,access=rw,target=$IMAGES_IN_DOM0/web2/web2-data.raw\" ]|" \
        "$ROOT/etc/xen/web1.cfg" | put /etc/xen/web2.cfg
    add_kinds_to_dom0 "$out"
    add_jvms_to_dom0 "$out"
    mkdir -p "$ROOT$IMAGES_IN_DOM0"/web{1,2}
    cp "$out"/guest/* "$ROOT$IMAGES_IN_DOM0/web1/"
    cp --sparse=always "$out"/guest2/* "$ROOT$IMAGES_IN_DOM0/web2/"
    install -m 755 "$NESTED/client/logcheck" "$NESTED/client/downtime" "$ROOT/usr/local/bin/"
    gcc -O2 -Wall -D_GNU_SOURCE -static -s -o "$ROOT/usr/local/bin/loadclient" "$NESTED/client/loadclient.c"
    install_package "$PACKAGES/xenmolt.deb"
    mkdir -p "$ROOT/var/lib/xenmolt-test"
    cp "$SMALL_TAR" "$ROOT/var/lib/xenmolt-test/small-upgrade.tar"
    cp "${SMALL_TAR%.tar}.versions" "$ROOT/var/lib/xenmolt-test/small-upgrade.versions"
    close_root "$ROOT"
    gzip -dc "$ROOT"/boot/xen-4.17-amd64.gz >"$out/xen"
    cp "$ROOT"/boot/vmlinuz-* "$out/vmlinuz"
    cp "$ROOT"/boot/initrd.img-* "$out/initrd.img"
    disk_of_root "$ROOT" "$out/dom0.qcow2" "$DOM0_DISK" dom0 ^has_journal    # a crash of dom0 is no subject; the guests' flushes cost half a CPU with one
    drop_root "$ROOT"
}
