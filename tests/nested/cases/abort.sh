#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# A second operation is refused; op-abort before the pivot, under load: everything is undone, and what the guest wrote meanwhile is in its image.
. "$(dirname "$0")/../lib/case.sh"

begin
sleeping_upgrade
check "a clone runs" dom0 "xl domid web1--clone"
world "$scratch/busy"
expect 7 "a second operation on the same domain is refused" "xenmolt guest-upgrade web1"
err_has op-list
world "$scratch/still"
check "and changes nothing" same_world "$scratch/busy" "$scratch/still"
write_meanwhile
start=$SECONDS
expect 0 "op-abort" "xenmolt op-abort $op"
check "the command says that it was aborted" same "$(upgrade_status 60)" 16
note "abort took $((SECONDS - start)) s"
undone "$op" aborted "$scratch/before"
check "the report says aborted" same "$(report .result)" aborted
check "the recipe's log is kept" dom0 "grep -q 'sleeping now' $OPS/$op/recipe.log"
load_clean
check "what web1 wrote meanwhile is on its disk" written_meanwhile
expect 18 "a second op-abort is refused" "xenmolt op-abort $op"
dom0 "xl shutdown -w web1" >/dev/null 2>&1
check "the image is in order" dom0 "qemu-img check -q $IMAGE"
check "the image stands alone" same "$(dom0 "qemu-img info --output=json $IMAGE | jq -r '.\"backing-filename\" // \"none\"'")" none
