# SPDX-License-Identifier: GPL-2.0-or-later
# Layer (a): root file systems as tars, made by mmdebstrap from the mirror of the machine's own apt configuration.

SUITE=bookworm

DOM0_PACKAGES=systemd-sysv,dbus,udev,kmod,linux-image-amd64,initramfs-tools,zstd,lz4,openssh-server,\
xen-hypervisor-4.17-amd64,xen-utils-4.17,xenstore-utils,qemu-system-xen,qemu-utils,iproute2,nftables,jq,procps,\
strace,python3,lvm2,thin-provisioning-tools,xfsprogs,rsync,libyajl2,libnl-3-200,libnl-route-3-200,libxxhash0,iputils-ping,e2fsprogs,ca-certificates

GUEST_PACKAGES=systemd-sysv,dbus,udev,kmod,linux-image-cloud-amd64,initramfs-tools,lz4,openssh-server,iproute2,\
procps,openjdk-17-jre-headless,e2fsprogs,libnl-3-200,libxxhash0

LEAN=(--aptopt='APT::Install-Recommends "false"'
      --aptopt='Acquire::Languages "none"'
      --dpkgopt='path-exclude=/usr/share/man/*'
      --dpkgopt='path-include=/usr/share/man/man1/'
      --dpkgopt='path-exclude=/usr/share/doc/*'
      --dpkgopt='path-include=/usr/share/doc/*/copyright'
      --dpkgopt='path-exclude=/usr/share/locale/*'
      --dpkgopt='path-exclude=/usr/share/info/*'
      --dpkgopt=force-unsafe-io)

# debian_sources SUITE...: the "deb" lines of the machine's own Debian archives that carry these suites.
# apt itself reads its files, deb822 and one-line alike; third parties are left out by their Origin.
debian_sources() {
    local want all uri codename origin label main='' sec=''
    all=$(apt-get indextargets --format '$(REPO_URI)|$(CODENAME)|$(ORIGIN)|$(LABEL)' 'Created-By: Packages' | sort -u)
    while IFS='|' read -r uri codename origin label; do
        [ "$origin" = Debian ] || continue
        case $label in
            Debian) main=${uri%/} ;;
            Debian-Security) sec=${uri%/} ;;
        esac
    done <<<"$all"
    [ -n "$main" ] || { say "apt on this machine knows no Debian archive (run apt-get update?)"; return 1; }
    for want in "$@"; do
        case $want in
            *-security) [ -n "$sec" ] && echo "deb $sec $want main" ;;
            *) echo "deb $main $want main" ;;
        esac
    done
}

# apt_habits: the machine's own apt settings for proxies and date checks, as options for another root.
apt_habits() {
    apt-config dump | grep -E '^Acquire::(http|https|Check-Valid-Until|Check-Date|Retries)[: ]' | grep -v ' "";$' || true
}

keyring() { echo /usr/share/keyrings/debian-archive-keyring.gpg; }

# What an upgrade of the guest shall have to bring: its root has everything of the suite's updates but these.
# (With all of them missing, most of an upgrade's time goes into unpacking: 3 minutes for a JDK under TCG, and seconds
# for the smallest package. An old JDK, src:openjdk-17, makes a good experiment all the same.)
OLD_SOURCES="src:linux src:linux-signed-amd64 src:glibc"

# make_root TAR PACKAGES OLD SUITE...: OLD names what is taken from the first suite alone, in the words of apt_preferences(5).
make_root() {
    local tar=$1 packages=$2 old=$3 habits=() line; shift 3
    while IFS= read -r line; do [ -n "$line" ] && habits+=(--aptopt="$line"); done < <(apt_habits)
    debian_sources "$@" >"$tar.list"
    : >"$tar.pins"
    if [ -n "$old" ]; then
        printf 'Package: %s\nPin: release n=%s\nPin-Priority: 990\n' "$old" "$SUITE" >"$tar.pins"
    fi
    mmdebstrap --mode=root --variant=minbase --keyring="$(keyring)" --include="$packages" \
        "${LEAN[@]}" "${habits[@]}" \
        --setup-hook="mkdir -p \"\$1/etc/apt/preferences.d\"; cp '$tar.pins' \"\$1/etc/apt/preferences.d/old\"" \
        --customize-hook='rm "$1/etc/apt/preferences.d/old"' \
        --essential-hook='mkdir -p "$1/usr/share/man/man1" "$1/etc/initramfs-tools/conf.d"' \
        --essential-hook='printf "MODULES=list\nCOMPRESS=lz4\nCOMPRESSLEVEL=1\n" >"$1/etc/initramfs-tools/conf.d/lean"' \
        --essential-hook='printf "%s\n" ext4 crc32c_generic xen-blkfront xen-netfront virtio_pci virtio_blk virtio_net >"$1/etc/initramfs-tools/modules"' \
        --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*_key* "$1/etc/machine-id"; : >"$1/etc/machine-id"' \
        --format=tar "$SUITE" "$tar.part" "$tar.list"
    rm -f "$tar.list" "$tar.pins"
    mv "$tar.part" "$tar"
}

dom0_suites() { echo "$SUITE $SUITE-updates $SUITE-security"; }
guest_suites() { dom0_suites; }

roots_paths() {
    DOM0_TAR=$CACHE/roots/dom0-$(hash_of "$DOM0_PACKAGES" "$(dom0_suites)" "${LEAN[*]}" "$(declare -f make_root)").tar
    GUEST_TAR=$CACHE/roots/guest-$(hash_of "$GUEST_PACKAGES" "$OLD_SOURCES" "$(guest_suites)" "${LEAN[*]}" "$(declare -f make_root)").tar
    JVMS_TAR=$CACHE/roots/jvms-$(hash_of "$JVMS_PACKAGES" "$(jvms_suites)" "${LEAN[*]}" "$(declare -f make_root)").tar
    KINDS_TAR=$CACHE/roots/kinds-$(hash_of "$KINDS_PACKAGES" "$(kinds_suites)" "${LEAN[*]}" "$(declare -f make_root)").tar
}

build_roots() {
    mkdir -p "$CACHE/roots"
    roots_paths
    local f
    for f in "$CACHE"/roots/*; do
        case $f in "$DOM0_TAR"|"$GUEST_TAR"|"$KINDS_TAR"|"$JVMS_TAR") ;; *) rm -f "$f" ;; esac
    done
    # shellcheck disable=SC2046
    [ -f "$GUEST_TAR" ] || step "guest root" make_root "$GUEST_TAR" "$GUEST_PACKAGES" "$OLD_SOURCES" $(guest_suites)
    [ -f "$KINDS_TAR" ] || step "root of the guest with many kinds" make_kinds_root
    [ -f "$JVMS_TAR" ] || step "root of the guest with old JVMs" make_jvms_root
    # shellcheck disable=SC2046
    [ -f "$DOM0_TAR" ] || step "dom0 root" make_root "$DOM0_TAR" "$DOM0_PACKAGES" "" $(dom0_suites)
}
