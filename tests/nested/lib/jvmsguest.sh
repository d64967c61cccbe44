# SPDX-License-Identifier: GPL-2.0-or-later
# web4: a guest of Debian 11, the last with OpenJDK 11, with that and with a JVM under ZGC, and with jcmd; not started by default. It has web1's address.

JVMS_SUITE=bullseye
JVMS_PACKAGES=systemd-sysv,dbus,udev,kmod,linux-image-cloud-amd64,initramfs-tools,lz4,openssh-server,iproute2,\
procps,e2fsprogs,libnl-3-200,libxxhash0,openjdk-11-jre-headless,openjdk-17-jdk-headless

jvms_suites() { echo "$JVMS_SUITE"; } # the release alone: what is out of support loses packages of its other archives
# A mirror may have given it up: then there is no web4, and its case says so.
make_jvms_root() {
    local SUITE=$JVMS_SUITE
    # shellcheck disable=SC2046
    if ! (make_root "$JVMS_TAR" "$JVMS_PACKAGES" "" $(jvms_suites)); then
        rm -f "$JVMS_TAR" "$JVMS_TAR".*
        echo "no root of $JVMS_SUITE: no web4"
    fi
}

make_jvms_guest() {
    local out=$1 ROOT=$CACHE/scratch/jvms SUITE=$JVMS_SUITE
    unpack_root "$JVMS_TAR" "$ROOT"
    configure_guest web4
    chroot "$ROOT" useradd --system --home-dir /var/lib --shell /usr/sbin/nologin kinds
    mkdir -p "$ROOT/opt/kinds"
    javac --release 11 -d "$ROOT/opt/kinds" "$NESTED/kinds/Kinds.java"
    kinds_unit java11 kinds '/usr/lib/jvm/java-11-openjdk-amd64/bin/java -XX:+UseSerialGC -Xmx64m -cp /opt/kinds Kinds 7200 20'
    kinds_unit zgc kinds '/usr/lib/jvm/java-17-openjdk-amd64/bin/java -XX:+UseZGC -Xmx64m -cp /opt/kinds Kinds 7201 20'
    printf '%s\n' java11.service zgc.service | put /etc/xenmolt/workload
    lean_boot
    install_package "$PACKAGES/xenmolt-agent.deb"
    close_root "$ROOT"
    hand_out_guest "$out/guest4" web4
}

# add_jvms_to_dom0 OUT: behind add_kinds_to_dom0.
add_jvms_to_dom0() {
    [ -d "$1/guest4" ] || return 0
    mkdir -p "$ROOT$IMAGES_IN_DOM0/web4"
    cp "$1"/guest4/* "$ROOT$IMAGES_IN_DOM0/web4/"
    sed -e 's/web1/web4/g' "$ROOT/etc/xen/web1.cfg" | put /etc/xen/web4.cfg
}
