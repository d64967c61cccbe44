#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Everything that guest-upgrade refuses: exit code, message, and a world that has not changed. One start for all.
. "$(dirname "$0")/../lib/case.sh"

# refused STATUS TEXT NEEDLE ARGS...: xenmolt guest-upgrade ARGS is refused so, and names NEEDLE.
refused() {
    local want=$1 text=$2 needle=$3 rc=0; shift 3
    dom0 "xenmolt guest-upgrade $*" >"$scratch/out" 2>"$scratch/err" || rc=$?
    if [ "$rc" != "$want" ]; then
        fail "$text: exit $rc, not $want"
        tail -n 10 "$scratch/out" "$scratch/err" | sed 's/^/   | /'
    elif ! grep -qiF -e "$needle" "$scratch/err"; then
        fail "$text: the message does not say: $needle"
        tail -n 10 "$scratch/err" | sed 's/^/   | /'
    else
        pass "$text (exit $rc): $(tail -n 1 "$scratch/err" | cut -c1-150)"
    fi
}

# looks_like FILE: the world does.
looks_like() { world "$scratch/now"; same_world "$scratch/$1" "$scratch/now"; }
# unchanged TEXT: the world is as at the start (a look takes seconds; what a refusal needed was taken back before).
unchanged() { check "$1 changed nothing" looks_like start; }

begin
world "$scratch/start"
PID_BEFORE=$(main_pid)
domid=$(dom0 "xl domid web1")
data=/local/domain/$domid/data/xenmolt

expect 0 "a dry run finds nothing" "xenmolt guest-upgrade -n web1"
check "and says what it may" dom0 "xenmolt guest-upgrade -n --json web1 | jq -e '(.workloads | map([.unit, .verdict])) == [[\"counter.service\", \"move\"]]'"
check "it prints its checks" grep -qE '^ok .*memory' "$scratch/out"
check "it prints an estimate" grep -q estimate "$scratch/out"

refused 3 "unknown domain" nosuch nosuch
refused 8 "dom0 itself" dom0 Domain-0
refused 2 "unknown option" --frobnicate --frobnicate web1
refused 2 "no domain named" DOMAIN ""
refused 2 "recipe that does not exist" /tmp/nosuch --recipe /tmp/nosuch web1
dom0 "echo '#!/bin/sh' >/tmp/plain; chmod -x /tmp/plain; printf 'true, no interpreter' >/tmp/text; chmod +x /tmp/text"
refused 2 "recipe that is not executable" executable --recipe /tmp/plain web1
refused 2 "recipe that is no program" "neither a script" --recipe /tmp/text web1
refused 2 "recipe without its argument" argument --recipe debian-release web1
refused 2 "report that cannot be written" /nosuch/r.json --report /nosuch/r.json web1
unchanged "the dry run, and what is wrong on the command line,"

refused 9 "workload that does not exist" nosuch.service --workload nosuch.service web1
guest "printf '[Service]\nExecStart=/bin/sleep 1000\n' >/run/systemd/system/idle.service; systemctl daemon-reload"
refused 9 "workload that does not run" idle.service --workload idle.service web1
guest "mv /etc/xenmolt/workload /etc/xenmolt/workload.away"
refused 9 "no workload named" workload web1
guest "mv /etc/xenmolt/workload.away /etc/xenmolt/workload; systemd-run -q --unit=devholder sh -c 'exec 3</dev/xvda; sleep 100000'"
refused 10 "process that CRIU cannot dump (a device is open)" devholder --workload devholder.service web1
expect 10 "as JSON" "xenmolt guest-upgrade -n --json --workload devholder.service web1"
check "with the verdict and the reasons" jq -e '(.workloads | map([.unit, .verdict])) == [["devholder.service", "refuse"]] and (.reasons | any(.what == "device open"))' "$scratch/out"
guest "systemctl stop devholder"
immovable_there
# cannot_move NEEDLE HOW...: a service that systemd-run starts so is refused, and named.
cannot_move() {
    local needle=$1 state; shift
    guest "systemd-run -q --unit=immovable $*"
    sleep 1
    state=$(guest "systemctl show -P ActiveState -P ExecMainStatus immovable" | xargs)
    case $state in
    "0 active") refused 10 "service with ${*##*immovable }" "$needle" -n --workload immovable.service web1 ;;
    "77 failed") skip "${*##*immovable }: this guest's kernel has no such thing" ;;
    *) fail "the service with ${*##*immovable } does not run: $state" ;;
    esac
    guest "systemctl stop immovable; systemctl reset-failed immovable 2>/dev/null; true"
}
cannot_move "socket of family 17" immovable packet
cannot_move "socket of family 2, type 3" immovable raw
cannot_move "socket of family 16" immovable uevent
cannot_move "socket of family 38" immovable alg
cannot_move "socket of family 40" immovable vsock
cannot_move "protocol 262" immovable mptcp
cannot_move "[io_uring]" immovable uring
cannot_move "[perf_event]" immovable perf
cannot_move "bpf-map" immovable bpf
cannot_move "[userfaultfd]" immovable userfaultfd
cannot_move "pidfd" immovable pidfd
cannot_move "[fanotify]" immovable fanotify
cannot_move "segment attached" immovable sysv
cannot_move "maps /dev/xvda" immovable mapped /dev/xvda
cannot_move "connected by unix socket" immovable unix /run/dbus/system_bus_socket
cannot_move "PrivateTmp=yes" -p PrivateTmp=yes immovable pidfd
cannot_move "is traced by" immovable traced
unchanged "a workload that cannot be moved"

dom0 "xl rename web1 web1--clone"
world "$scratch/prepared"
refused 7 "guest under another operation's name" web1--clone web1--clone
check "it was not touched" looks_like prepared
dom0 "xl rename web1--clone web1"
unchanged "another operation's name"

dom0 "xl pause web1"
world "$scratch/prepared"
refused 18 "paused guest" paused web1
check "it was not touched" looks_like prepared
dom0 "xl unpause web1"
unchanged "a paused guest"

dom0 "qemu-img create -q -f raw /var/tmp/second.img 16M; xl block-attach web1 format=raw,vdev=xvdb,access=rw,target=/var/tmp/second.img"
refused 8 "second disk, by blkback" xvdb web1
dom0 "xl block-detach web1 xvdb; sleep 1; rm -f /var/tmp/second.img"
guest "mount --bind /srv /mnt"
refused 8 "bind mount" /mnt web1
guest "umount /mnt"
refused 2 "disk to be merged that it does not have" xvdc --merge-disk xvdc web1
unchanged "a disk or a mount that is not supported"

free=$(dom0 "df --output=avail -B1M /var/lib/xen/images | tail -n 1")
dom0 "fallocate -l $((free - 300))M /var/tmp/filler"
refused 6 "not enough disk space" MiB web1
dom0 "rm /var/tmp/filler"

free=$(dom0 "xl info free_memory")
dom0 "printf 'name = \"ballast\"\ntype = \"pv\"\nkernel = \"/var/lib/xen/images/web1/vmlinuz\"\nmemory = %s\nvcpus = 1\n' $((free - 600)) >/tmp/ballast.cfg; xl create -q -p /tmp/ballast.cfg" ||
    fail "the domain that takes the memory could not be made"
refused 6 "not enough memory" "MiB of memory" web1
dom0 "xl destroy ballast"
unchanged "too little space or memory"

version=$(dom0 "xenstore-read $data/proto")
dom0 "xenstore-write $data/proto 99"
refused 5 "agent of another version" 99 web1
dom0 "xenstore-write $data/proto $version"
guest "systemctl stop xenmolt-agent"
dom0 "xenstore-rm $data"
refused 4 "domain without agent" "install" web1
guest "systemctl start xenmolt-agent"
check "the agent comes back" dom0 "for i in \$(seq 60); do xenstore-exists $data/proto && exit 0; sleep 1; done; exit 1"
unchanged "a missing or unknown agent"
check "the service runs as the same process" same "$(main_pid)" "$PID_BEFORE"
