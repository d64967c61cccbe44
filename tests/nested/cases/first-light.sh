#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The whole way with a small real upgrade (kernel, libc6) under load; then a commit that is killed, a reboot of the guest,
# and the commit again.
. "$(dirname "$0")/../lib/case.sh"

report_valid() {
    dom0 "jq -e '(.schema == 1) and (.operation | type == \"string\") and (.domain == \"web1\") and (.result == \"success\")
        and all(.os_before, .os_after; (.kernel, .release, .libc) | type == \"string\")
        and (.phases | length >= 10) and all(.phases[]; (.name, .started, .ended) | type == \"string\")
        and all(.phases[]; .started | test(\"^[0-9-]{10}T[0-9:]{8}[.][0-9]{6}Z\$\"))
        and ([.phases[].started] | . == sort)
        and all(.snapshot_pause_ms, .blackout_ms; type == \"number\" and . > 0) and .blackout.started < .blackout.ended
        and (.predump | length > 0) and all(.predump[]; (.pages > 0) and (.frozen_ms < .ms))
        and (.predump[-1].stop | IN(\"few-pages\", \"small-share\", \"no-gain\", \"rounds\")) and all(.predump[:-1][]; has(\"stop\") | not)
        and (.blackout | all(.freeze_ms, .hold_ms, .seize_ms, .final_pass_ms, .dump_ms, .transport_ms, .restore_ms, .pivot_ms, .switch_ms, .release_ms, .thaw_ms; type == \"number\" and . > 0))
        and (.blackout.held | .packets > 0 and .dropped == 0) and (.blackout.settle.unsettled | .waiting == 0)
        and all(.merge.active_only, .merge.upgrade_only, .merge.both_same, .merge.bytes; type == \"number\")
        and (.merge.conflicts | type == \"array\")
        and (.packages.level == \"newer\") and (.processes[0].verdict == \"move-overlay\") and (.processes[0].paged_later | .ok and (.pages > 1000))
        and (.process | (.pid > 1) and (.threads > 1) and (.memory_bytes > 1000000) and (.connections >= 20) and (.pins | length > 0))
        and all(.peak_extra_memory_bytes, .peak_extra_disk_bytes; type == \"number\" and . > 0)
        and (.retained | length > 0)' /tmp/up.json"
}

# Files beside the disk, what it stands on, and how libxl, xenstore and the file for the next `xl create` name it.
disk_of_web1() {
    dom0_sh <<END | xargs
ls $IMAGE*
qemu-img info -U --output=json $IMAGE | jq -r '."backing-filename" // "alone"'
xl list -l web1 | jq -r '.[].config.disks[].pdev_path'
xenstore-read "\$(xl block-list web1 | awk 'END { print \$NF }')/params"
sed -n 's/.*target=\([^"]*\)".*/\1/p' /var/lib/xenmolt/domains/web1.cfg
END
}

begin
guest "echo 8 >/etc/xenmolt/restore-at-once" # this service is so small that nothing of its memory would come later
dom0_sh <"$NESTED/lib/smallrecipe.sh"
kernel_before=$(guest "uname -r")
libc_before=$(guest "dpkg-query -W -f '\${Version}' libc6")
PID_BEFORE=$(main_pid)
starttime=$(guest "cut -d' ' -f22 /proc/$PID_BEFORE/stat")
start_load 20
start_upgrade --recipe /tmp/small-recipe
note "upgrading web1 under load"
upgraded 1500 "guest-upgrade succeeds"
sleep 5                                     # some requests more, served by the clone
load_clean

check "the report is complete" report_valid
check "a newer kernel runs" newer "$(guest "uname -r")" "$kernel_before"
check "a newer libc6 is installed" newer "$(guest "dpkg-query -W -f '\${Version}' libc6")" "$libc_before"
check "the report names the kernel that runs" same "$(report .os_after.kernel)" "$(guest "uname -r")"
check "the report names the old kernel" same "$(report .os_before.kernel)" "$kernel_before"
check "the report's libc is newer" newer "$(report .os_after.libc)" "$(report .os_before.libc)"
check "the packages are in order" guest "test -z \"\$(dpkg --audit)\""
check "new programs use the new libc" guest "ldd --version | grep -F \"\$(dpkg-query -W -f '\${Version}' libc6 | cut -d- -f1)\""
check "the service is active" same "$(guest "systemctl is-active counter.service")" active
check "systemd's main process is the same pid" same "$(main_pid)" "$PID_BEFORE"
check "the process lives in its unit's cgroup" guest "grep -q 'counter.service\$' /proc/$PID_BEFORE/cgroup"
# Not the common workers ("kworker/u2:0-ext4-rsv-..."), which bear the name of what they do: Linux 6.1's and 6.9's own threads.
check "kernel threads of the initramfs are not where the process ids of a workload are" guest \
    "all=\$(pgrep '^ext4-rsv|^kworker/R-ext4'); echo \"\$all\"; for p in \$all; do [ \$p -gt 1000 ] || exit 1; done; [ -n \"\$all\" ]"
note "start time of the process: $starttime before, $(guest "cut -d' ' -f22 /proc/$PID_BEFORE/stat") after"
check "the scheduler's turns were longer, and are as they were" guest "journalctl -b -u xenmolt-agent | grep -q 'turns of the processor are longer' && test ! -e /run/xenmolt/turns &&
    { mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug; } && ls /sys/kernel/debug/sched/*_ns && ! grep -qx 8000000 /sys/kernel/debug/sched/*_ns"
check "the parts of the blackout are all of it" dom0 "jq -e '(.blackout | .freeze_ms + .final_pass_ms + .dump_ms + .transport_ms + .restore_ms + .pivot_ms + .switch_ms) as \$sum | \$sum > 0.9 * .blackout_ms and \$sum < 1.01 * .blackout_ms' /tmp/up.json"
check "app-overlays knows that libc6 was replaced, by what, and when" dom0 "xenmolt app-overlays --json web1 | jq -e --arg old '$libc_before' '.overlays[0].packages[] | select(.package == \"libc6\") | .runs == \$old and .installed != \$old and .replaced_s > 0 and .replaced_s < 3000'"
check "no program of the new system has a process id that the workload might need" guest "max=\$(ls /proc/$PID_BEFORE/task | sort -n | tail -n 1); for p in /proc/[0-9]*; do id=\${p#/proc/}; [ \$id = 1 ] || [ \$id = $PID_BEFORE ] || ! readlink \$p/exe >/dev/null || [ \$id -gt \$max ] || { tr '\\0' ' ' <\$p/cmdline; exit 1; }; done"
check "in the trial all its threads ran to their next system call, or were at work: $(report '.rehearsal[0].threads | tojson')" same "$(report '.rehearsal[0].threads | [.reached > 15, .left] | tojson')" "[true,0]"
check "no conflicts" same "$(report '.merge.conflicts | length')" 0
check "snapshot pause at most 2 s: $(report .snapshot_pause_ms) ms" below "$(report .snapshot_pause_ms)" 2000
check "most of the memory went before the freeze: $(report '[.predump[].pages] | tojson'), then $(report .blackout.criu_dump.pages_written) pages" below "$(report '.blackout.criu_dump.pages_written * 2')" "$(report '.predump[0].pages')"
note "blackout: $(report .blackout_ms) ms: $(report '.blackout | del(.criu_dump, .criu_restore) | tojson'), longest client gap $(report .longest_gap_ms /tmp/load.json) ms"
check "nothing failed in the guest since" same "$(guest "systemctl --failed --no-legend | wc -l")" 0

op=$(operation)
check "op-list says done" same "$(operation_state "$op")" "done"
check "the old domain is kept, paused" dom0 "xl list web1--replaced | tail -n 1 | grep -qE ' --p--- |--p'"
check "web1 runs under its name" dom0 "xl list web1 | tail -n 1 | grep -qvE -- '--p'"
check "no packet filter table of ours is left" dom0 "! nft list tables | grep -q xenmolt"
check "no bridge of ours is left" dom0 "! ip -o link | grep -qE ': xm[uihp]'"
check "a domain monitor watches web1" dom0 "pgrep -ax xenmolt | grep -q 'domain-monitor'"

expect 0 "op-commit of what is an hour old" "xenmolt op-commit --older-than 1"
check "leaves this one alone" same "$(operation_state "$op")" "done"
# Killed when QEMU has just let the overlay go: a reboot must find the disk below, with all that was written since.
expect 137 "op-commit, killed in the fold" "MOLT_FAULT=folded=kill xenmolt op-commit $op; exit \$?"
check "the old domain is gone" dom0 "! xl domid web1--replaced 2>/dev/null"
check "the service still answers" service_up 10
write_meanwhile

note "rebooting web1"
domid=$(dom0 "xl domid web1")
kernel=$(guest "uname -r") boot=$(guest "cat /proc/sys/kernel/random/boot_id")
downtime=$(dom0 "downtime $ADDRESS ssh $ADDRESS systemctl reboot")
check "the service came back" test -n "$downtime"
blackout=$(report .blackout_ms)
check "blackout at most 1/4 of a plain reboot's downtime: $blackout ms, $downtime s" below "$(awk -v b="$blackout" 'BEGIN { print 4 * b / 1000 }')" "$downtime"
check "web1 comes back as another domain" dom0 "for i in \$(seq 240); do d=\$(xl domid web1 2>/dev/null) && [ \"\$d\" != $domid ] && exit 0; sleep 1; done; exit 1"
check "on the new kernel" same "$(guest "uname -r")" "$kernel"
check "with the default target" same "$(guest "systemctl is-active multi-user.target")" active
check "in another boot" test "$(guest "cat /proc/sys/kernel/random/boot_id")" != "$boot"
check "and its agent" dom0 "for i in \$(seq 60); do xenstore-exists /local/domain/\$(xl domid web1)/data/xenmolt/proto && exit 0; sleep 1; done; exit 1"
check "and what it wrote after the kill" written_meanwhile

expect 0 "op-commit of all that has ended" "xenmolt op-commit --older-than 0"
check "the domain has one image again, under its old name, everywhere" same "$(disk_of_web1)" "$IMAGE alone $IMAGE qcow2:$IMAGE $IMAGE"
check "op-list says committed" same "$(operation_state "$op")" committed
check "the service answers on" service_up 10
