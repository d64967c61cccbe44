#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in dom0: prints all that an operation might leave changed, in a form that a quiet host prints twice the same.
images=/var/lib/xen/images
state=/var/lib/xenmolt

echo "== domains: name id memory vcpus flags"
xl list | awk 'NR > 1 { s = $5; gsub(/[rb-]/, "", s); print $1, $2, $3, $4, s }'
echo "== configurations"
for name in $(xl list | awk 'NR > 2 { print $1 }'); do
    # Its warnings (a device that was detached is still in libxl's JSON) are no part of the configuration.
    xl list -l "$name" 2>/dev/null
done | jq -Sc '.[].config | {c_info: {name: .c_info.name, uuid: .c_info.uuid},
    b: {kernel: .b_info.kernel, ramdisk: .b_info.ramdisk, cmdline: .b_info.cmdline, bootloader: .b_info.bootloader}, disks, nics}'
echo "== xenstore"
# Only these: a walk over all of it takes seconds, three calls a node.
for d in 0/backend/qdisk 0/backend/vbd 0/backend/vif $(xenstore-list /local/domain | sed 's|$|/data/xenmolt|'); do
    xenstore-ls -f "/local/domain/$d" 2>/dev/null
done | grep -E '/backend/(qdisk|vbd)/.*/(params|type|mode|dev|state|frontend) = |/backend/vif/.*/(bridge|mac|frontend|state) = |/data/xenmolt/(version|proto) = '
xenstore-ls -f /xenmolt 2>/dev/null | sed 's/^/xenmolt /'
echo "== images"
find $images -type f | sort | while read -r f; do
    case $f in
    *.qcow2) echo "$f on $(qemu-img info -U --output=json "$f" | jq -r '."backing-filename" // "nothing"')" ;;
    *) echo "$f" ;;
    esac
done
echo "== volumes"
lvs --noheadings -o vg_name,lv_name,lv_size,pool_lv,origin 2>/dev/null
# No process for each of them: that would cost some seconds under TCG. One may be gone meanwhile.
ours='' qemus=''
for p in /proc/[0-9]*; do
    { read -r comm <"$p/comm"; } 2>/dev/null || continue
    case $comm in
    *qemu*) qemus="$qemus $p/fd" ;;
    xenmolt*) ours="$ours $p/cmdline" ;;
    esac
done
echo "== images in use"
# shellcheck disable=SC2086
[ -z "$qemus" ] || ls -l $qemus 2>/dev/null | sed -n "s|.*-> \($images/.*\)|\1|p" | sort -u
echo "== links"
ip -o link | sed -n 's/^[0-9]*: \([^:]*\):.* master \([^ ]*\).*/\1 in \2/p; t; s/^[0-9]*: \([^:]*\):.*/\1/p' | sort
tc qdisc show | grep -E "^qdisc (plug|ingress|clsact) " | sort
bridge fdb show | grep -w sticky | sort
echo "== packet filter"
nft list tables
echo "== state"
find $state -mindepth 1 -type f ! -path "$state/ops/*" ! -path "$state/locks/*" 2>/dev/null | sort
echo "== our processes"
for p in $ours; do tr '\0' ' ' <"$p" && echo; done 2>/dev/null | sort
exit 0
