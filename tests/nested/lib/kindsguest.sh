# SPDX-License-Identifier: GPL-2.0-or-later
# web3: a guest of Debian 13 with services of many kinds (tests/nested/kinds), IPv4 and IPv6, not started by default. It has web1's
# address. dom0 gets its pgbench, with loader and libraries, since its own release's would be an older one.

KINDS_SUITE=trixie
KINDS_JDKS="21 25"
KINDS_PACKAGES=systemd-sysv,dbus,udev,kmod,linux-image-cloud-amd64,initramfs-tools,lz4,openssh-server,iproute2,\
procps,e2fsprogs,libnl-3-200,libxxhash0,openjdk-21-jre-headless,openjdk-25-jre-headless,python3,postgresql-17
KINDS_DISK=8G
KINDS_ADDRESS6=fd77::11
KINDS_BRIDGE6=fd77::1

kinds_suites() { echo "$KINDS_SUITE $KINDS_SUITE-updates $KINDS_SUITE-security"; }
make_kinds_root() {
    local SUITE=$KINDS_SUITE
    # shellcheck disable=SC2046
    make_root "$KINDS_TAR" "$KINDS_PACKAGES" "" $(kinds_suites)
}

# kinds_unit NAME USER COMMAND [LINES]: a service with a directory of its own.
kinds_unit() {
    local name=$1 user=$2 command=$3 lines=${4:-}
    put "/etc/systemd/system/$name.service" <<END
[Unit]
Description=$name of the xenmolt tests
After=network.target

[Service]
User=$user
WorkingDirectory=/var/lib/$name
ExecStart=$command
SuccessExitStatus=143
$lines

[Install]
WantedBy=multi-user.target
END
    install -d "$ROOT/var/lib/$name"
    chroot "$ROOT" chown "$user" "/var/lib/$name"
    chroot "$ROOT" systemctl enable -q "$name.service"
}

# PostgreSQL as Debian has it, but for a namespace of its own for System V shared memory, which CRIU needs.
kinds_database() {
    local etc=/etc/postgresql/17/main
    chroot "$ROOT" systemctl disable -q postgresql.service
    rm -f "$ROOT/etc/systemd/system/multi-user.target.wants/postgresql.service"
    echo manual | put $etc/start.conf
    printf '%s\n' 'local all all trust' 'host all all 0.0.0.0/0 trust' 'host all all ::/0 trust' | put $etc/pg_hba.conf
    printf '%s\n' "listen_addresses = '*'" 'shared_buffers = 16MB' 'jit = off' 'max_connections = 50' | put $etc/conf.d/nested.conf
    kinds_unit db root "/usr/bin/unshare --ipc /usr/bin/setpriv --reuid postgres --regid postgres --init-groups /usr/lib/postgresql/17/bin/postgres -D /var/lib/postgresql/17/main -c config_file=$etc/postgresql.conf" 'KillMode=mixed'
}

# The client program with all it needs, as packaging/mktoolbox does it for CRIU.
kinds_pgbench() {
    local out=$1 libs=$ROOT/usr/lib/x86_64-linux-gnu program=$ROOT/usr/lib/postgresql/17/bin/pgbench name path _
    mkdir -p "$out"
    cp "$program" "$out/pgbench.bin"
    cp -L "$libs/ld-linux-x86-64.so.2" "$out/"
    "$libs/ld-linux-x86-64.so.2" --library-path "$libs" --list "$program" | while read -r name _ path _; do
        case $path in "$libs"/*) cp -L "$path" "$out/$(basename "$name")" ;; esac
    done
}

make_kinds_guest() {
    local out=$1 ROOT=$CACHE/scratch/kinds SUITE=$KINDS_SUITE v
    unpack_root "$KINDS_TAR" "$ROOT"
    configure_guest web3 $KINDS_ADDRESS6
    chroot "$ROOT" useradd --system --home-dir /var/lib --shell /usr/sbin/nologin kinds
    mkdir -p "$ROOT/opt/kinds"
    gcc -O2 -Wall -D_GNU_SOURCE -o "$ROOT/opt/kinds/kinds" "$NESTED/kinds/kinds.c" -pthread
    javac --release 17 -d "$ROOT/opt/kinds" "$NESTED/kinds/Kinds.java"
    install -m 755 "$NESTED/kinds/kinds.py" "$ROOT/opt/kinds/"
    kinds_unit native kinds '/opt/kinds/kinds 7100' 'RuntimeDirectory=kinds'
    kinds_unit python kinds '/opt/kinds/kinds.py 7300'
    kinds_unit java21 kinds '/usr/lib/jvm/java-21-openjdk-amd64/bin/java -XX:+UseG1GC -Xmx96m -cp /opt/kinds Kinds 7200 500'
    kinds_unit java25 kinds '/usr/lib/jvm/java-25-openjdk-amd64/bin/java -XX:+UseParallelGC -Xmx64m -cp /opt/kinds Kinds 7201 20'
    kinds_database
    printf '%s\n' native.service python.service java21.service java25.service db.service | put /etc/xenmolt/workload
    lean_boot
    rm "$ROOT/etc/systemd/system-generators/systemd-debug-generator" # systemd.mask= on the kernel's command line, for cases that need few of the services
    install_package "$PACKAGES/xenmolt-agent.deb"
    kinds_pgbench "$out/pgbench"
    close_root "$ROOT"
    hand_out_guest "$out/guest3" web3
}

# hand_out_guest DIR NAME: its kernel, initrd and disk. Consumes ROOT.
hand_out_guest() {
    mkdir -p "$1"
    cp "$ROOT"/boot/vmlinuz-* "$1/vmlinuz"
    cp "$ROOT"/boot/initrd.img-* "$1/initrd.img"
    disk_of_root "$ROOT" "$1/$2.qcow2" "$KINDS_DISK" "$2"
    drop_root "$ROOT"
}

# add_kinds_to_dom0 OUT: the guest's files and configuration, its IPv6 neighbour's address, pgbench.
add_kinds_to_dom0() {
    local out=$1
    mkdir -p "$ROOT$IMAGES_IN_DOM0/web3" "$ROOT/opt"
    cp "$out"/guest3/* "$ROOT$IMAGES_IN_DOM0/web3/"
    cp -r "$out/pgbench" "$ROOT/opt/pgbench"
    printf '#!/bin/sh\nexec /opt/pgbench/ld-linux-x86-64.so.2 --library-path /opt/pgbench /opt/pgbench/pgbench.bin "$@"\n' | put /usr/local/bin/pgbench 755
    install -m 755 "$NESTED/client/kindclient" "$ROOT/usr/local/bin/"
    sed -e 's/web1/web3/g; s/1024/2048/' "$ROOT/etc/xen/web1.cfg" | put /etc/xen/web3.cfg
    sed -i "/^Address=/a Address=$KINDS_BRIDGE6/64" "$ROOT/etc/systemd/network/xenbr0.network"
}
