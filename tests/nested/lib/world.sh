#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in dom0: prints all that an operation might leave changed, in a form that a quiet host prints twice the same.
images=/var/lib/xen/images
state=/var/lib/xenmolt

echo "== domains: name id memory vcpus flags"
xl list | awk 'NR > 1 { s = $5; gsub(/[rb-]/, "", s); print $1, $2, $3, $4, s }'
echo "== configurations"
for name in $(xl list | awk 'NR > 2 { print $1 }'); do
    xl list -l "$name" | jq -Sc '.[].config | {c_info: {name: .c_info.name, uuid: .c_info.uuid},
        b: {kernel: .b_info.kernel, ramdisk: .b_info.ramdisk, cmdline: .b_info.cmdline}, disks, nics}'
done
echo "== xenstore"
xenstore-ls -f /local/domain | grep -E '/name = |backend/vbd/.*/(params|type|mode|dev|state) = |backend/(vif|vbd)/.*/(bridge|mac|frontend|state) = |/data/xenmolt/(version|proto) = '
xenstore-ls -f /xenmolt 2>/dev/null | sed 's/^/xenmolt /'
echo "== images"
find $images -type f | sort | while read -r f; do
    case $f in
    *.qcow2) echo "$f on $(qemu-img info -U --output=json "$f" | jq -r '."backing-filename" // "nothing"')" ;;
    *) echo "$f" ;;
    esac
done
echo "== images in use"
for p in /proc/[0-9]*; do
    # No process for each of them: that would cost some seconds under TCG. It may be gone meanwhile.
    { read -r comm <"$p/comm"; } 2>/dev/null || continue
    case $comm in *qemu*) ls -l "$p/fd" 2>/dev/null ;; esac
done | sed -n "s|.*-> \($images/.*\)|\1|p" | sort -u
echo "== links"
ip -o link | sed -n 's/^[0-9]*: \([^:]*\):.* master \([^ ]*\).*/\1 in \2/p; t; s/^[0-9]*: \([^:]*\):.*/\1/p' | sort
tc qdisc show | grep -E "^qdisc (plug|ingress) " | sort
bridge fdb show | grep -w sticky | sort
echo "== packet filter"
nft list tables
echo "== state"
find $state -mindepth 1 -type f ! -path "$state/ops/*" ! -path "$state/locks/*" 2>/dev/null | sort
echo "== our processes"
pgrep -ax xenmolt | sed 's/^[0-9]* //' || true
