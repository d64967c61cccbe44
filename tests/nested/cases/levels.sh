#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# One process over three levels of the system, never restarted and never without its clients: Debian 12 as installed, Debian 12 with what debian-security
# brings and another build of a library that it uses (guest-upgrade), Debian 13 (app-migrate). It keeps what it was started with.
. "$(dirname "$0")/../lib/case.sh"
. "$NESTED/lib/twoguests.sh"

LIBZ=/usr/lib/x86_64-linux-gnu/libz.so.1
sum_of() { "$1" "sha256sum <\$(readlink -f $LIBZ)" | cut -d' ' -f1; }
# What it has mapped, whatever its path leads to by now.
mapped_there() { there "cd /proc/$PID_BEFORE; sha256sum <map_files/\$(grep -m 1 /libz.so maps | cut -d' ' -f1)" | cut -d' ' -f1; }

# A script that the service may start, and what it starts: which bash runs it, which dpkg that finds.
LEVEL=/var/lib/counter/level

begin_two_guests
guest "printf '%s\n' '#!/bin/bash' 'echo \$BASH_VERSION: \$(dpkg --version)' >$LEVEL; chmod 755 $LEVEL; mkdir -p /etc/xenmolt; printf '%s\n' $LEVEL /usr/bin/dpkg >>/etc/xenmolt/exec"
guest "sed -i '/^Address=/a Address=$SERVICE/24' /etc/systemd/network/eth0.network" # else the clone would not have it
PID_BEFORE=$(main_pid)
starttime=$(guest "cut -d' ' -f22 /proc/$PID_BEFORE/stat")
old=$(guest $LEVEL)
libz=$(sum_of guest) kernel=$(guest "uname -r") version=$(guest "dpkg-query -W -f '\${Version}' zlib1g")
start_load 5
{ sed 's/timeout_s=[0-9]*/timeout_s=2400/' "$NESTED/../../recipes/debian-security"
  printf '%s\n' "file=\$(readlink -f $LIBZ)" 'cp "$file" "$file.new"' 'printf rebuilt >>"$file.new"' 'mv "$file.new" "$file"'
} | recipe /tmp/security
start_upgrade --recipe /tmp/security
upgraded 1500 "to what debian-security brings, and another libz"
check "a newer kernel runs" newer "$(guest "uname -r")" "$kernel"
check "the system has the other libz" test "$(sum_of guest)" != "$libz"
check "the process is the same" same "$(main_pid)" "$PID_BEFORE"
expect 0 "app-overlays knows its package, and since when it is old" "xenmolt app-overlays --json web1"
check "it says so, and the age is that of the file, not of its package" jq -e --arg v "$version" --argjson age "$SECONDS" '.overlays[0].packages[] | select(.package == "zlib1g") | .runs == $v and .installed == $v and .replaced_s > 0 and .replaced_s < $age' "$scratch/out"
expect 0 "op-commit" "xenmolt op-commit --older-than 0"

expect 0 "to Debian 13" "xenmolt app-migrate --address $SERVICE/24 --path /var/lib/counter web1 web3 counter" || exit 1
sleep 10
check "the process is the same" same "$(pid_there)" "$PID_BEFORE"
check "it answers" service_up 60
load_clean
check "it is Debian 13" there "grep -q '^VERSION_CODENAME=trixie' /etc/os-release"
check "it still has the libz that it was started with" same "$(mapped_there)" "$libz"
check "which its overlay tells" dom0 "xenmolt app-overlays --json web3 | jq -e '.overlays[0].files | any(contains(\"libz\")) and any(contains(\"java-17\"))'"
check "a script that it starts has the old interpreter, and the old program" same "$(there "nsenter -t $PID_BEFORE -m $LEVEL")" "$old"
check "others start the new ones" test "$(there $LEVEL)" != "$old"
note "start time of the process: $starttime at first, $(there "cut -d' ' -f22 /proc/$PID_BEFORE/stat") now"
