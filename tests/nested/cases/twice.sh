#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Two upgrades one after another with the process never restarted: the second one takes the files along that the first one had pinned, and
# those that it changes itself. The first goes without a rehearsal, and without rounds of memory.
. "$(dirname "$0")/../lib/case.sh"

LIBS=/usr/lib/x86_64-linux-gnu
# rebuild TEXT LIB...: a recipe that makes these libraries other files.
rebuild() {
    local text=$1; shift
    recipe /tmp/rebuild <<END
#!/bin/sh
set -e
for lib in $*; do
    file=\$(readlink -f $LIBS/\$lib)
    cp "\$file" "\$file.new"
    printf '$text' >>"\$file.new"
    mv "\$file.new" "\$file"
done
echo rebuilt
END
}
overlay_files() { dom0 "xenmolt app-overlays --json web1" | jq -r '.overlays[] | .files[]' | sort | xargs; }
# real LIB...: the files behind the names.
real() { guest "cd $LIBS; readlink -f $*" | sort | xargs; }

begin
# As `systemctl edit` makes it: a drop-in with a command of its own must not win over the restore's.
guest "mkdir -p /etc/systemd/system/counter.service.d; { echo '[Service]'; echo ExecStart=; systemctl cat counter.service | grep ^ExecStart=; } >/etc/systemd/system/counter.service.d/override.conf; systemctl daemon-reload"
PID_BEFORE=$(main_pid)
both=$(real libz.so.1 libm.so.6) first=$(real libz.so.1)
version=$(guest "dpkg-query -W -f '\${Version}' zlib1g")
rebuild first libz.so.1
# As on a kernel that does not tell which pages were written.
guest "cd /usr/lib/xenmolt/toolbox && mv criu criu.real && printf '%s\n' '#!/bin/sh' 'case \"\$*\" in *mem_dirty_track*) exit 1 ;; esac' 'exec /usr/lib/xenmolt/toolbox/criu.real \"\$@\"' >criu && chmod 755 criu" || give_up "CRIU could not be made to look old"
start_load 5
start_upgrade --no-rehearsal --recipe /tmp/rebuild
upgraded 1500 "the first upgrade succeeds"
sleep 5
check "without a trial" same "$(report '.rehearsal | length')" 0
check "without rounds of memory, all of it in the freeze: $(report .blackout.criu_dump.pages_written) pages, $(report .blackout_ms) ms" same "$(report '[(.predump | length), .blackout.criu_dump.pages_written > 5000] | tojson')" "[0,true]"
check "and the log says why" dom0 "xenmolt op-log $(operation) | grep -q 'memory is not copied before the freeze: this kernel does not tell' || grep -q 'memory is not copied before the freeze: this kernel does not tell' /tmp/up.err"
guest "cd /usr/lib/xenmolt/toolbox && mv criu.real criu"
check "the same process" same "$(main_pid)" "$PID_BEFORE"
check "it goes on with the old libz" same "$(overlay_files)" "$first"
check "which app-overlays finds in its package" same "$(dom0 "xenmolt app-overlays --json web1" | jq -r '.overlays[0].packages[] | "\(.package) \(.runs)"')" "zlib1g $version"
expect 0 "op-commit" "xenmolt op-commit --older-than 0"

rebuild second libm.so.6
start_upgrade --recipe /tmp/rebuild
upgraded 1500 "the second upgrade succeeds"
sleep 5
load_clean
check "with rounds of memory" same "$(report '.predump | length > 0')" true
check "after a trial" same "$(report '.rehearsal | length')" 1
check "still the same process" same "$(main_pid)" "$PID_BEFORE"
check "it has both old files" same "$(overlay_files)" "$both"
check "the system has the new ones" guest "tail -c 5 \$(readlink -f $LIBS/libz.so.1) | grep -q first; tail -c 6 \$(readlink -f $LIBS/libm.so.6) | grep -q second"
check "the pins of the first move are gone" same "$(guest "ls /var/lib/xenmolt/pins | wc -l")" 1
check "a restart ends it" guest "systemctl restart counter.service"
check "no overlay is left" same "$(guest "ls /var/lib/xenmolt/overlays /var/lib/xenmolt/pins/* 2>/dev/null | grep -c service")" 0
check "and the service runs on the new files" guest "p=\$(systemctl show -P MainPID counter.service); [ \$p != $PID_BEFORE ] && [ \$(readlink /proc/\$p/ns/mnt) = \$(readlink /proc/1/ns/mnt) ]"
check "it serves" service_up 60
expect 0 "op-commit" "xenmolt op-commit --older-than 0"
