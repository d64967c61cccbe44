# SPDX-License-Identifier: GPL-2.0-or-later
# The small upgrade: the fewest packages that make a real one, a newer kernel and a newer libc6. apt itself chooses
# them against the guest's root. The tar holds a flat apt repository (.debs, Packages, Release) and VERSIONS:
#
#   tar -C /var/tmp -xf small-upgrade.tar
#   dpkg --force-confold --auto-deconfigure -i /var/tmp/small-upgrade/*.deb
# or with apt:
#   echo 'deb [trusted=yes] file:/var/tmp/small-upgrade ./' >/etc/apt/sources.list.d/small.list
#   apt-get -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/small.list -o Dir::Etc::sourceparts=- update
#   apt-get -y --no-install-recommends dist-upgrade
#
# In dom0 it lies at /var/lib/xenmolt-test/small-upgrade.tar. Do not carry it into a guest by ssh: under TCG that took
# 4 minutes for 30 MB.

SMALL_PACKAGES="linux-image-cloud-amd64 libc6"
NEXT_SUITE=trixie
LIBC_COMPANIONS="libc-bin base-files"       # a libc6 of the next release is not installable without these

small_sources() { debian_sources "$SUITE" "$SUITE-updates" "$SUITE-security" "$SUITE-backports" "$NEXT_SUITE"; }

small_paths() {
    SMALL_TAR=$CACHE/small/$(hash_of "$(basename "$GUEST_TAR")" "$(small_sources)" "$SMALL_PACKAGES $LIBC_COMPANIONS" \
        "$(declare -f make_small_upgrade newer_from faster_debs)").tar
}

# newer_from ROOT PACKAGE: the nearest suite with a newer version than the root has, empty for none.
newer_from() {
    local root=$1 package=$2 have suite candidate
    have=$(chroot "$root" dpkg-query -W -f '${Version}' "$package")
    for suite in "$SUITE-security" "$SUITE-updates" "$SUITE-backports" "$NEXT_SUITE"; do
        candidate=$(chroot "$root" apt-cache madison "$package" | awk -F'|' -v s="$suite/main" '
            { split($3, w, " "); v = $2; gsub(/ /, "", v) } w[2] == s { print v; exit }')
        if [ -n "$candidate" ] && dpkg --compare-versions "$candidate" gt "$have"; then
            echo "$suite"
            return 0
        fi
    done
    return 1
}

# faster_debs DIR: the same packages, compressed by zstd: xz takes the guest most of a minute for the kernel.
faster_debs() {
    local d work=$1.work
    for d in "$1"/*.deb; do
        rm -rf "$work"
        dpkg-deb --raw-extract "$d" "$work"
        dpkg-deb -Zzstd -z3 --build "$work" "$d"
    done
    rm -rf "$work"
}

make_small_upgrade() {
    local tar=$1 root=$CACHE/scratch/small dir p suite wanted=() d
    unpack_root "$GUEST_TAR" "$root"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    rm -f "$root"/etc/apt/sources.list.d/*
    small_sources >"$root/etc/apt/sources.list"
    printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n\n' "$SUITE-security" "$SUITE-updates" \
        "$SUITE-backports" "$NEXT_SUITE" >"$root/etc/apt/preferences.d/small"
    chroot "$root" apt-get -q update
    for p in $SMALL_PACKAGES; do
        suite=$(newer_from "$root" "$p")
        wanted+=("$p/$suite")
        if [ "$p/$suite" = "libc6/$NEXT_SUITE" ]; then
            for d in $LIBC_COMPANIONS; do wanted+=("$d/$suite"); done
        fi
    done
    echo "wanted: ${wanted[*]}"
    mkdir -p "$root/var/cache/small/partial"
    chroot "$root" apt-get -q -y --no-install-recommends --download-only -o Dir::Cache::archives=/var/cache/small \
        install "${wanted[@]}"
    dir=$CACHE/scratch/small-upgrade
    rm -rf "$dir"
    mkdir -p "$dir"
    mv "$root"/var/cache/small/*.deb "$dir/"
    faster_debs "$dir"
    for d in "$dir"/*.deb; do
        p=$(dpkg-deb -f "$d" Package)
        printf '%s\t%s\t%s\n' "$p" "$(chroot "$root" dpkg-query -W -f '${Version}' "$p" 2>/dev/null || echo -)" \
            "$(dpkg-deb -f "$d" Version)"
    done | sort | tee "$dir/VERSIONS"
    (cd "$dir" && dpkg-scanpackages -m . >Packages && apt-ftparchive release . >Release.new && mv Release.new Release)
    close_root "$root"
    drop_root "$root"
    tar -C "$CACHE/scratch" -cf "$tar.part" small-upgrade
    mv "$tar.part" "$tar"
    cp "$dir/VERSIONS" "${tar%.tar}.versions"
    rm -rf "$dir"
}

build_small_upgrade() {
    local f
    mkdir -p "$CACHE/small" "$CACHE/scratch"
    small_paths
    for f in "$CACHE"/small/*; do
        case $f in "${SMALL_TAR%.tar}".*) ;; *) rm -f "$f" ;; esac
    done
    [ -f "$SMALL_TAR" ] || step "small upgrade" make_small_upgrade "$SMALL_TAR"
}
