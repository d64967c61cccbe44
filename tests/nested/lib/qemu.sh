# SPDX-License-Identifier: GPL-2.0-or-later
# One running nested host: QEMU, its disk, its state, ssh into it.
#
# A snapshot is a directory with disk.qcow2 (an overlay, frozen) and state (QEMU's migration stream). A run is a new
# empty overlay on the snapshot's disk, and the stream read back by -incoming: nothing is copied and the snapshot
# cannot be dirtied. (Internal snapshots, savevm, work too, but cost a copy of the whole image for every run.)

HOSTS=$CACHE/hosts
NAME=default

run_dir() { echo "$HOSTS/$NAME"; }

# qemu_pid: the pid of this host's own QEMU, if it runs.
qemu_pid() {
    local pid dir; dir=$(run_dir)
    pid=$(cat "$dir/pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] || return 1
    tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "xenmolt-$NAME-$(cksum <<<"$dir" | cut -d' ' -f1)" || return 1
    echo "$pid"
}

free_port() {
    python3 - <<'END'
import socket
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    print(s.getsockname()[1])
END
}

# On hardware "rep movsb" is the fastest way to copy a page, in the emulator each byte is a turn of a loop: Xen and Linux that do not think so copy pages three to five
# times as fast (docs/PERFORMANCE.md).
CPU=max,-smap,-erms,-fsrm,-fzrm,-fsrs,-fsrc

# launch DISK [STATE]: start QEMU on DISK; with STATE it goes on from there.
launch() {
    local disk=$1 state=${2:-} dir port incoming=()
    dir=$(run_dir)
    port=$(free_port)
    echo "$port" >"$dir/port"
    rm -f "$dir/monitor" "$dir/control"
    [ -z "$state" ] || incoming=(-incoming "exec:cat '$state'")
    "${QEMU[@]}" \
        -name "xenmolt-$NAME-$(cksum <<<"$dir" | cut -d' ' -f1)" \
        -accel tcg,thread=multi,tb-size=1024 -machine pc -cpu $CPU -smp 2 -m 6144 \
        -nodefaults -display none -no-user-config -rtc base=utc \
        -kernel "$IMAGES/xen" \
        -append "dom0_mem=1536M,max:1536M dom0_max_vcpus=2 console=com1 com1=115200,8n1 spec-ctrl=eager-fpu xpti=no pv-l1tf=off" \
        -initrd "$IMAGES/vmlinuz root=/dev/vda ro console=hvc0 net.ifnames=0 quiet $FASTER_KERNEL,$IMAGES/initrd.img" \
        -drive "file=$disk,format=qcow2,if=none,id=disk0,cache=unsafe,discard=unmap" \
        -device virtio-blk-pci,drive=disk0,disable-legacy=on,iommu_platform=on \
        -netdev "user,id=net0,hostfwd=tcp:127.0.0.1:$port-:22" \
        -device virtio-net-pci,netdev=net0,disable-legacy=on,iommu_platform=on,romfile= \
        -device virtio-rng-pci,disable-legacy=on,iommu_platform=on \
        -serial "file:$dir/serial.log" \
        -qmp "unix:$dir/monitor,server=on,wait=off" \
        -pidfile "$dir/pid" "${incoming[@]}" -daemonize 9>&- >"$dir/qemu.log" 2>&1 ||
        { tail -n 5 "$dir/qemu.log" >&2; die "QEMU did not start"; }
    # The stream was taken from a stopped machine, and comes back as one.
    [ -z "$state" ] || qmp until-loaded cont >/dev/null
}

# qmp COMMAND [JSON-ARGUMENTS] ...: run QMP commands in turn, print each result on a line.
# The words "until-migrated" and "until-loaded" wait for the outgoing, the incoming stream to be complete.
qmp() {
    python3 - "$(run_dir)/monitor" "$@" <<'END'
import json, socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.settimeout(600)
s.connect(sys.argv[1])
f = s.makefile("rw")
def call(name, args=None):
    f.write(json.dumps({"execute": name, **({"arguments": args} if args else {})}) + "\n")
    f.flush()
    while True:
        line = f.readline()
        if not line:
            if name == "quit":
                return {}
            sys.exit(f"QMP: closed during {name}")
        r = json.loads(line)
        if "error" in r:
            sys.exit(f"QMP: {name}: {r['error']['desc']}")
        if "return" in r:
            return r["return"]
f.readline()
call("qmp_capabilities")
words = sys.argv[2:]
while words:
    name = words.pop(0)
    if name == "until-migrated":
        while True:
            st = call("query-migrate").get("status")
            if st == "completed":
                break
            if st in ("failed", "cancelled"):
                sys.exit("QMP: migration " + st)
            time.sleep(0.1)
        continue
    if name == "until-loaded":
        while call("query-status")["status"] == "inmigrate":
            time.sleep(0.02)
        continue
    args = json.loads(words.pop(0)) if words and words[0].startswith("{") else None
    print(json.dumps(call(name, args)))
END
}

SSH_OPTIONS=(-F none -i "$KEY" -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null
             -o LogLevel=ERROR -o ConnectTimeout=120 -o ServerAliveInterval=30 -o ServerAliveCountMax=20
             -o PreferredAuthentications=publickey)

# dom0 WORDS...: in dom0, through the shared connection when there is one.
dom0() {
    local dir; dir=$(run_dir)
    ssh "${SSH_OPTIONS[@]}" -o ControlMaster=no -S "$dir/control" -p "$(cat "$dir/port")" root@127.0.0.1 "$@"
}

# in_guest ADDRESS WORDS...: in a guest; the connection is tunnelled through dom0's ssh.
in_guest() {
    local dir address=$1 proxy; shift
    dir=$(run_dir)
    printf -v proxy '%q ' ssh "${SSH_OPTIONS[@]}" -o ControlMaster=no -S "$dir/control" -p "$(cat "$dir/port")" -W "$address:22" root@127.0.0.1
    ssh "${SSH_OPTIONS[@]}" -o ProxyCommand="$proxy" "root@$address" "$@"
}

# share_connection: log in to dom0 once and keep that connection for all later commands.
share_connection() {
    local dir; dir=$(run_dir)
    timeout 60 ssh "${SSH_OPTIONS[@]}" -o ConnectTimeout=30 -M -S "$dir/control" -p "$(cat "$dir/port")" -N -f root@127.0.0.1 \
        </dev/null >/dev/null 2>&1 9>&-
}

# wait_for SECONDS WHAT CMD...: until CMD succeeds.
wait_for() {
    local end=$((SECONDS + $1)) what=$2; shift 2
    until "$@" >/dev/null 2>&1 </dev/null; do
        qemu_pid >/dev/null || { tail -n 20 "$(run_dir)/serial.log" >&2; die "QEMU is gone while waiting for $what"; }
        (( SECONDS < end )) || { tail -n 20 "$(run_dir)/serial.log" >&2; die "no $what in time"; }
        sleep 0.2
    done
}

# freeze_to DIR: write the running machine's state and disk into DIR. The machine stands still afterwards.
freeze_to() {
    local out=$1 dir; dir=$(run_dir)
    rm -rf "$out.part"
    mkdir -p "$out.part"
    qmp stop >/dev/null
    qmp migrate-set-parameters '{"max-bandwidth": 100000000000}' \
        migrate "{\"uri\": \"exec:cat >'$out.part/state'\"}" until-migrated >/dev/null
    cp --sparse=always --reflink=auto "$dir/disk.qcow2" "$out.part/disk.qcow2"
    rm -rf "$out"
    mv "$out.part" "$out"
}

end_qemu() {
    local pid i dir; dir=$(run_dir)
    if pid=$(qemu_pid); then
        [ -S "$dir/control" ] && ssh "${SSH_OPTIONS[@]}" -S "$dir/control" -O exit root@127.0.0.1 >/dev/null 2>&1 || true
        kill "$pid" 2>/dev/null || true
        for i in $(seq 100); do
            [ -d "/proc/$pid" ] || break
            sleep 0.1
            (( i != 50 )) || kill -9 "$pid" 2>/dev/null || true
        done
    fi
    rm -f "$dir/pid" "$dir/monitor" "$dir/control"
}
