# SPDX-License-Identifier: GPL-2.0-or-later
# The layers in order: roots (a), disks with our packages (b), booted snapshots (c). The name of a layer's
# directory is a hash of all that it depends on, so that build does only what changed.

PACKAGES=$CACHE/packages

make_packages() {
    mkdir -p "$PACKAGES"
    if [ -x "$NESTED/mkpackages" ]; then
        step "our packages" "$NESTED/mkpackages" "$PACKAGES"
    else
        rm -f "$PACKAGES"/*
    fi
}

# packages_hash: of what our packages contain, not of when they were made.
packages_hash() {
    local p
    if [ -f "$PACKAGES/hash" ]; then
        cat "$PACKAGES/hash"
        return
    fi
    for p in "$PACKAGES"/*.deb; do
        [ -f "$p" ] || continue
        dpkg-deb -f "$p"
        dpkg-deb --ctrl-tarfile "$p" | tar -xO | sha256sum
        dpkg-deb --fsys-tarfile "$p" | tar -tv | awk '{ print $1, $2, $3, $6, $7, $8 }'
        dpkg-deb --fsys-tarfile "$p" | tar -xO | sha256sum
    done
}

images_hash() {
    hash_of "$(basename "$DOM0_TAR")" "$(basename "$GUEST_TAR")" "$(basename "$SMALL_TAR")" "$(basename "$KINDS_TAR")" "$(ls "$JVMS_TAR" 2>/dev/null)" \
        "$NESTED/service" "$NESTED/client" "$NESTED/kinds" "$(packages_hash)" \
        "$(debian_sources "$SUITE-updates" "$SUITE-security")" "$(apt_habits)" "$(cat "$KEY.pub" "$CACHE/hostkey.pub")" \
        "$DOM0_DISK $GUEST_DISK $GUEST_ADDRESS $GUEST_MAC $BRIDGE_ADDRESS $QEMU_DNS $IMAGES_IN_DOM0 $FASTER_KERNEL $CPU ${MASKED[*]} $WEB2_ROOT $WEB2_BOOT $WEB2_SWAP $WEB2_DATA" \
        "$(declare -f configure_common configure_guest hand_out_guest make_jvms_guest add_jvms_to_dom0 make_guest_disk lean_boot lean_sources package_lists make_partitioned_guest partition partition_table make_dom0_disk disk_of_root install_package kinds_unit kinds_database kinds_pgbench make_kinds_guest add_kinds_to_dom0)" "$KINDS_DISK $KINDS_ADDRESS6 $KINDS_BRIDGE6" \
        "$(emulator_version)" "$(declare -f launch boot_dom0 boot_web1 warm_service freeze_to)"
}

# current_images: IMAGES and SNAPSHOTS as the last whole build left them, or those being built.
current_images() {
    [ -z "${BUILDING:-}" ] || return 0
    find_emulator
    IMAGES=$(readlink -f "$CACHE/images/current" 2>/dev/null) && [ -f "$IMAGES/dom0.qcow2" ] ||
        { say "nothing is built; run: host build"; return 1; }
    SNAPSHOTS=$IMAGES/snapshots
}

build_disks() {
    local out
    out=$CACHE/images/$(images_hash)
    if [ ! -f "$out/dom0.qcow2" ]; then
        rm -rf "$out" "$out.part"
        mkdir -p "$out.part" "$CACHE/scratch"
        step "guest disk" make_guest_disk "$out.part"
        step "disk of the guest with many kinds" make_kinds_guest "$out.part"
        [ ! -f "$JVMS_TAR" ] || step "disk of the guest with old JVMs" make_jvms_guest "$out.part"
        step "dom0 disk" make_dom0_disk "$out.part"
        rm -rf "$out.part/guest" "$out.part/guest2" "$out.part/guest3" "$out.part/guest4" "$out.part/pgbench"
        mkdir "$out.part/snapshots"
        mv "$out.part" "$out"
    fi
    IMAGES=$out
    SNAPSHOTS=$out/snapshots
}

# publish: the new images are whole; forget the old ones, but for what a running host stands on.
publish() {
    local old
    ln -sfn "$(basename "$IMAGES")" "$CACHE/images/current"
    for old in "$CACHE"/images/*; do
        [ "$old" = "$IMAGES" ] || [ "$old" = "$CACHE/images/current" ] || in_use "$old" || rm -rf "$old"
    done
}

# in_use IMAGES: does a running host stand on them?
in_use() {
    local d pid NAME
    for d in "$HOSTS"/*/; do
        [ -d "$d" ] || continue
        NAME=$(basename "$d")
        if pid=$(qemu_pid) && grep -qaF "$1/" "/proc/$pid/cmdline"; then return 0; fi
    done
    return 1
}

boot_dom0() {
    local dir; dir=$(run_dir)
    rm -rf "$dir"
    mkdir -p "$dir"
    qemu-img create -q -f qcow2 -b "$IMAGES/dom0.qcow2" -F qcow2 "$dir/disk.qcow2"
    launch "$dir/disk.qcow2"
    wait_for 300 "answer from dom0" share_connection
    wait_for 120 "xl" dom0 "xl info >/dev/null && systemctl is-active xen"
    dom0 "timeout 200 systemctl is-system-running --wait; sync" </dev/null
}

boot_web1() {
    dom0 "xl create /etc/xen/web1.cfg"
    wait_for 300 "answer from web1" in_guest web1 true
    wait_for 120 "counting service" service_answers
    if [ -f "$PACKAGES/xenmolt-agent.deb" ]; then
        wait_for 120 "agent in web1" dom0 'xenstore-read /local/domain/$(xl domid web1)/data/xenmolt/version'
    fi
    # One waiting command, not a poll: each login costs the guest seconds.
    in_guest web1 "timeout 300 systemctl is-system-running --wait; sync" </dev/null
    warm_service
}

# warm_service: let the service's JVM compile its common paths, so that the first client does not wait for that.
# Its log then begins with these requests (connections warm-0 to warm-19).
warm_service() { dom0 "loadclient --host $GUEST_ADDRESS --prefix warm- --interval 0.1 --duration 20 --report /root/warm.json"; }

service_answers() {
    dom0 "timeout 20 bash -c 'exec 3<>/dev/tcp/$GUEST_ADDRESS/7000; echo STAT >&3; head -n1 <&3' | grep ^STAT"
}

build_snapshots() {
    local NAME=build
    [ ! -f "$SNAPSHOTS/web1-ready/state" ] || return 0
    trap end_qemu EXIT
    end_qemu
    if [ ! -f "$SNAPSHOTS/dom0-ready/state" ]; then
        step "boot of dom0" boot_dom0
        step "snapshot dom0-ready" freeze_to "$SNAPSHOTS/dom0-ready"
        end_qemu
    fi
    step "start from dom0-ready" up --from dom0-ready
    step "boot of web1" boot_web1
    step "snapshot web1-ready" freeze_to "$SNAPSHOTS/web1-ready"
    end_qemu
    rm -rf "$(run_dir)"
    trap - EXIT
}

build() {
    local BUILDING=yes
    need_tools
    lock_cache
    make_key
    # The lists of a machine whose apt was never updated name no archive.
    [ -n "$(debian_sources "$SUITE" 2>/dev/null)" ] || step "apt update" apt-get -q update
    build_emulator
    build_roots
    build_small_upgrade
    make_packages
    build_disks
    build_snapshots
    publish
    say "ready: $SNAPSHOTS"
}

clean() {
    local NAME d
    for d in "$HOSTS"/*/; do
        [ -d "$d" ] || continue
        NAME=$(basename "$d")
        end_qemu
    done
    for d in guest kinds jvms dom0 small; do drop_root "$CACHE/scratch/$d"; done
    rm -rf "${CACHE:?}"/{roots,images,hosts,log,scratch,packages,build,small,qemu,key,key.pub,hostkey,hostkey.pub,lock}
}
