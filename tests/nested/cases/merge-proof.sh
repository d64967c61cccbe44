#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A real upgrade of the C library while the guest is busy: the merged disk is compared, path by path, with what a plain model
# makes of lists of the base, the active and the upgrade; the workload that moves is a writer whose database, log and mail
# spool are checked row by row afterwards. The guest's disk is a thin volume of LVM.
. "$(dirname "$0")/../lib/case.sh"

SHOP=/var/lib/shop                          # where both write differently, and no rule settles it
# What the upgrade and the active write; not what only lives at run time, nor what the clone's own boot writes, nor the JDK and
# the modules, which a guest here reads for minutes.
PLACES="/etc /opt /srv /home /root /usr/bin /usr/sbin /usr/local /usr/lib/x86_64-linux-gnu/gconv /usr/share/doc /usr/share/lintian"
LIVE=/var/lib/busy SPOOL=/var/mail/busy      # written until the freeze and after it

begin dom0-ready
volume thin "$IMAGE" qcow2 web1
dom0 "sed 's|^disk = .*|disk = [ \"phy:/dev/guests/web1,xvda,w\" ]|' /etc/xen/web1.cfg >/tmp/volume.cfg"
boot /tmp/volume.cfg
gcc -O2 -Wall -Wextra -D_GNU_SOURCE -static -o "$scratch/busy" "$NESTED/client/busy.c" -lsqlite3 -lm -lpthread 2>"$scratch/gcc" &&
    gcc -O2 -Wall -Wextra -D_GNU_SOURCE -static -o "$scratch/treelist" "$NESTED/client/treelist.c" ||
    { cat "$scratch/gcc"; give_up "the test's programs could not be compiled (Debian: libsqlite3-dev)"; }
for p in busy treelist; do host push "$scratch/$p" "/tmp/$p"; done
dom0 "scp -q /tmp/busy /tmp/treelist $ADDRESS:/usr/local/bin/" || give_up "the test's programs did not get into the guest"

note "making 10,000 files, a sparse one of 1 GiB, and a busy service"
guest_sh <<END || give_up "the guest's files could not be made"
set -e
mkdir -p $SHOP $LIVE /srv/many /srv/tree/old /opt/links /var/mail
cat >/etc/systemd/system/busy.service <<UNIT
[Service]
ExecStart=/usr/local/bin/busy run $LIVE $SPOOL
WorkingDirectory=$LIVE
UNIT
systemctl daemon-reload
cd /srv/many
i=0
while [ \$i -lt 9000 ]; do echo \$i >f\$i; i=\$((i + 1)); done
cd /srv/tree/old
while [ \$i -lt 10000 ]; do echo \$i >f\$i; i=\$((i + 1)); done
head -c 3000000 /dev/urandom >/srv/tree/old/large
truncate -s 1G /srv/sparse
echo start | dd of=/srv/sparse conv=notrunc status=none
echo end | dd of=/srv/sparse bs=1M seek=1023 conv=notrunc status=none
seq 1 30 >/etc/proof.conf
echo base >$SHOP/prices
printf 'one\ntwo\n' >$SHOP/list
echo base >/etc/proof.gone
echo base >/etc/proof.mode
echo first >/var/log/proof.log
chattr +a /srv/many/f1
ln /srv/many/f2 /opt/links/two
busy xattr /srv/many/f3 base
systemctl start busy
sync
treelist $PLACES >/run/base.list
END
PID_BEFORE=$(guest "systemctl show -P MainPID busy.service")
check "the busy service runs" test "${PID_BEFORE:-0}" -gt 1

dom0_sh <<END || give_up "no recipe"
set -e
cd /tmp
tar -xf /var/lib/xenmolt-test/small-upgrade.tar
rm -f small-upgrade/linux-*.deb
cat >/tmp/proof-recipe <<'RECIPE'
#!/bin/sh
# xenmolt-recipe: title=a newer C library, and edits of its own
set -eu
dir=\$(mktemp -d /var/tmp/small.XXXXXX)
line=\$(grep -an '^#PAYLOAD\$' "\$0" | head -n 1 | cut -d: -f1)
tail -n +\$((line + 1)) "\$0" | tar -x -C "\$dir" -f -
dpkg --force-confold --auto-deconfigure -i "\$dir"/small-upgrade/*.deb
rm -rf "\$dir"
sed -i 's/^2\$/2 by the upgrade/' /etc/proof.conf
chmod 600 /etc/proof.mode
echo second of the upgrade >>/var/log/proof.log
echo upgrade >$SHOP/prices
printf 'one\nupgrade\n' >$SHOP/list
mkdir -p /opt/new
echo new >/opt/new/file
mkdir -p /var/lib/proof
treelist $PLACES >/var/lib/proof/upgrade.list
echo the upgrade is done
exit 0
#PAYLOAD
RECIPE
tar -cf - small-upgrade >>/tmp/proof-recipe
chmod +x /tmp/proof-recipe
END
libc_before=$(guest "dpkg-query -W -f '\${Version}' libc6")
printf 'upgrade %s # theirs\ndrop %s\n' $SHOP/prices $SHOP/nosuch | host ssh "cat >/tmp/prices.resolve"
echo "active $SHOP/list # ours" | host ssh "cat >/tmp/list.resolve"
start_upgrade --workload busy.service --recipe /tmp/proof-recipe --wait=1 --resolve /tmp/prices.resolve
note "upgrading"
wait_recipe 900 "Unpacking libc6"

note "the active is busy"
guest_sh <<'END' || give_up "the active's edits"
cd /srv/many
for i in $(seq 100 199); do echo "changed $i" >f$i; done
rm -f f2??
chmod 600 f30? && chown 12:34 f31?
chattr -a f1 && echo more >>f1 && chattr +a f1
busy xattr f3 active
ln f4 /opt/links/four
mkfifo pipe && ln -s /nowhere/f5 link
printf x >"$(printf 'no\377utf8')"
mv /srv/tree/old /srv/tree/renamed
dd if=/dev/urandom of=/srv/sparse bs=4096 seek=100000 count=16 conv=notrunc status=none
sed -i 's/^28$/28 by the active/' /etc/proof.conf
rm /etc/proof.gone
echo content >/etc/proof.mode
echo second of the active >>/var/log/proof.log
chmod 700 /usr/bin/pldd
echo mine >/usr/local/share/mine
echo active >/var/lib/shop/prices
printf 'one\nactive\n' >/var/lib/shop/list
sync
END
guest "treelist $PLACES >/run/active.list" && dom0 "scp -q $ADDRESS:/run/base.list $ADDRESS:/run/active.list /tmp/" ||
    give_up "no lists of the base and the active"
check "they were made while the upgrade went on" dom0 "[ ! -f /tmp/up.rc ] && ! xenmolt op-log \$(xenmolt op-list --json | jq -r '.[-1].id') | grep -q freeze"

note "it waits, with a conflict that is open and one that was decided"
# plan FILTER: of the operation that waits.
plan() { dom0 "xenmolt delta-merge -n --json web1 | jq -rc '.plan | $1'"; }
check "it waits" dom0 "for i in \$(seq 900); do [ \"\$(xenmolt op-list --json | jq -r '.[-1].state')\" != waiting ] || exit 0; [ ! -f /tmp/up.rc ] || break; sleep 1; done; cat /tmp/up.err; exit 1"
op=$(operation)
check "the state is shown" dom0 "xenmolt op-show $op | grep -q '^state  *waiting'"
check "one conflict is open, one decided" same "$(plan '[.conflicts_open, (.conflicts[] | [.path, .decision, .open])]')" "[1,[\"$SHOP/list\",\"refuse\",true],[\"$SHOP/prices\",\"upgrade\",false]]"
check "a decision that met none is named" same "$(plan '.unused_decisions[].path')" $SHOP/nosuch
expect 0 "the plan for people" "xenmolt delta-merge -n web1"
check "it has the differences" grep -qx '        +upgrade' "$scratch/out"
expect 11 "op-continue is refused" "xenmolt op-continue web1"
err_has $SHOP/list
expect 11 "a pass is refused" "xenmolt delta-merge web1"
expect 0 "the other decision" "xenmolt delta-merge --resolve /tmp/list.resolve web1"
check "leaves nothing open" grep -q '0 open, 2 listed' "$scratch/out"
guest "printf 'one\nactive\nlater\n' >$SHOP/list; sync"
expect 0 "a pass" "xenmolt delta-merge web1"
expect 0 "op-continue" "xenmolt op-continue web1"
upgraded 900 "guest-upgrade succeeds"
note "blackout $(report .blackout_ms) ms; merge $(report '.merge | {active_only, upgrade_only, both_same, bytes, passes} | tojson')"

guest "treelist $PLACES >/run/merged.list" && dom0 "scp -q $ADDRESS:/run/merged.list $ADDRESS:/var/lib/proof/upgrade.list /tmp/" ||
    give_up "no lists of the upgrade and the result"
for l in base active upgrade merged; do host pull "/tmp/$l.list" "$scratch/$l.list"; done
check "the service is the same process" same "$(guest "systemctl show -P MainPID busy.service")" "$PID_BEFORE"
guest "sleep 3"
check "it goes on, with its open and deleted file" same "$(guest "systemctl is-active busy.service")" active
guest "systemctl stop busy"
check "the database is whole, and nothing of it, the log or the spool is lost" guest "busy check $LIVE $SPOOL" &&
    note "$(tail -n 1 "$scratch/check")"
check "a newer libc6 is installed" newer "$(guest "dpkg-query -W -f '\${Version}' libc6")" "$libc_before"
# The agent keeps services from starting by a file of its own while the recipe runs.
if python3 "$NESTED/lib/treemodel.py" "$scratch/base.list" "$scratch/active.list" "$scratch/upgrade.list" "$scratch/merged.list" /usr/sbin/policy-rc.d >"$scratch/model" 2>&1; then
    pass "the merged disk is what the model says: $(tail -n 1 "$scratch/model")"
else
    fail "the merged disk is what the model says: $(tail -n 1 "$scratch/model")"
    sed 's/^/   | /' "$scratch/model" | cut -c1-600
fi
note "changed by both: $(sed -n 's/^both //p' "$scratch/model" | xargs)"
check "both edits of a text are there" guest "grep -qx '2 by the upgrade' /etc/proof.conf && grep -qx '28 by the active' /etc/proof.conf && [ \$(wc -l </etc/proof.conf) = 30 ]"
check "content of one side, mode of the other" guest "[ \$(stat -c %a /etc/proof.mode) = 600 ] && grep -qx content /etc/proof.mode"
check "both sides' lines of a log are there" guest "printf '%s\n' first 'second of the active' 'second of the upgrade' | cmp - /var/log/proof.log"
check "the sparse file is sparse" guest "[ \$(du -k /srv/sparse | cut -f1) -lt 1000 ]"
check "the upgrade's, as decided" same "$(guest "cat $SHOP/prices")" upgrade
check "the guest's, as it was last" same "$(guest "cat $SHOP/list" | tr '\n' ' ')" "one active later "
check "both stand in the report" same "$(report '[.merge.conflicts[] | [.path, .decision] | join(" ")] | sort | join(", ")')" "$SHOP/list active, $SHOP/prices upgrade"
check "and the decision that met none" same "$(report '.merge.unused_decisions[].path')" $SHOP/nosuch
check "which was a warning" dom0 "grep -q 'warning: .*$SHOP/nosuch is no conflict' /tmp/up.err"
check "nothing listens any more" dom0 "[ ! -e $OPS/$op/control ]"
check "nothing failed in the guest since" same "$(guest "systemctl --failed --no-legend | wc -l")" 0

expect 0 "op-commit" "xenmolt op-commit $op"
check "the volume stands alone, under its name" same "$(dom0 "lvs --noheadings -o lv_name guests; xenstore-read /local/domain/0/backend/vbd/\$(xl domid web1)/51712/params; xl list -l web1 2>/dev/null | jq -r '.[].config.disks[].pdev_path'; sed -n 's/^disk.*target=\([^\"]*\).*/\1/p' /var/lib/xenmolt/domains/web1.cfg" | xargs)" \
    "pool web1 /dev/guests/web1 /dev/guests/web1 /dev/guests/web1"
check "and can be written" guest "echo later >/srv/later && sync && echo 3 >/proc/sys/vm/drop_caches && grep -q later /srv/later"
