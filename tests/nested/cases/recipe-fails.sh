#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Recipes that fail, ask, hang, or leave packages half-configured: the guest is untouched, the log is kept.
. "$(dirname "$0")/../lib/case.sh"

# fails TEXT LOG MESSAGE: the recipe /tmp/bad ends the operation; LOG stands in its log, MESSAGE in the error.
fails() {
    local text=$1 log=$2 message=$3 op
    note "$text"
    expect 12 "$text" "xenmolt guest-upgrade --recipe /tmp/bad web1" || return
    err_has "$message"
    op=$(operation)
    check "its log is kept" dom0 "grep -qF -e '$log' $OPS/$op/recipe.log"
    undone "$op" failed "$scratch/before"
}

begin
PID_BEFORE=$(main_pid)
world "$scratch/before"
packages=$(guest "dpkg-query -W | sha256sum")
start_load 5

recipe /tmp/bad <<'END'
#!/bin/sh
echo "is there an answer?"
if read -r answer; then echo "answer: $answer"; else echo "no answer: end of input"; fi
echo gone >/etc/hostname
exit 3
END
fails "a recipe that asks, then fails" "no answer: end of input" "status 3"

recipe /tmp/bad <<'END'
#!/bin/sh
# xenmolt-recipe: timeout_s=15
echo "hanging"
(trap '' TERM; sleep 3000) &
sleep 3000
END
fails "a recipe that hangs" "hanging" "did not end within 15 s"

recipe /tmp/bad <<'END'
#!/bin/sh
d=$(mktemp -d)
mkdir "$d/DEBIAN"
printf 'Package: broken\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: breaks\n' >"$d/DEBIAN/control"
printf '#!/bin/sh\nexit 1\n' >"$d/DEBIAN/postinst"
chmod 755 "$d" "$d/DEBIAN/postinst"
dpkg-deb --build "$d" /tmp/broken.deb
dpkg -i /tmp/broken.deb
echo "done all the same"
exit 0
END
fails "a recipe that leaves a package half-configured" "done all the same" "half-configured"

load_clean
check "the guest's packages are as before" same "$(guest "dpkg-query -W | sha256sum")" "$packages"
check "the guest's files are as before" same "$(guest "cat /etc/hostname")" web1
