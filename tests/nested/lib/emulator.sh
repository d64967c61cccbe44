# SPDX-License-Identifier: GPL-2.0-or-later
# Which QEMU runs the host. That of Debian 12 (7.2) was seen to corrupt single bytes in guests now and then, and is
# slower; so one of at least QEMU_MAJOR is wanted: the machine's own, else that of the backports suite, unpacked in the
# cache (nothing of the machine's is replaced).

QEMU_MAJOR=9
QEMU_PARTS="qemu-system-x86 qemu-system-common qemu-system-data seabios"

own_qemu_is_new() {
    local v
    v=$(qemu-system-x86_64 --version 2>/dev/null | sed -n '1s/.*version \([0-9]*\)\..*/\1/p')
    [ -n "$v" ] && (( v >= QEMU_MAJOR ))
}

# fetch_qemu DIR: the parts from the backports, by apt with lists and cache of its own.
fetch_qemu() {
    local dir=$1 work=$CACHE/scratch/qemu deb options
    rm -rf "$work" "$dir.part"
    mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/debs" "$dir.part"
    debian_sources "$SUITE" "$SUITE-backports" >"$work/sources.list"
    options=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
        -o "Dir::Cache=$work" -o APT::Sandbox::User=root)
    apt-get -q "${options[@]}" update
    # shellcheck disable=SC2086
    (cd "$work/debs" && apt-get -q "${options[@]}" -t "$SUITE-backports" download $QEMU_PARTS)
    for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$dir.part"; done
    ldd "$dir.part/usr/bin/qemu-system-x86_64" | grep 'not found' && return 1
    "$dir.part/usr/bin/qemu-system-x86_64" --version
    rm -rf "$work" "$dir"
    mv "$dir.part" "$dir"
}

build_emulator() {
    if ! own_qemu_is_new && [ ! -x "$CACHE/qemu/usr/bin/qemu-system-x86_64" ]; then
        (step "emulator" fetch_qemu "$CACHE/qemu") || say "no newer QEMU from the mirror: the machine's own will do"
    fi
    find_emulator
}

# find_emulator: QEMU, the command with the options by which it finds its own files.
find_emulator() {
    if own_qemu_is_new || [ ! -x "$CACHE/qemu/usr/bin/qemu-system-x86_64" ]; then
        QEMU=(qemu-system-x86_64)
    else
        QEMU=("$CACHE/qemu/usr/bin/qemu-system-x86_64" -L "$CACHE/qemu/usr/share/qemu" -L "$CACHE/qemu/usr/share/seabios")
    fi
}

emulator_version() { "${QEMU[0]}" --version | head -n 1; }
