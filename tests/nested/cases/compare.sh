#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# app-compare between two running guests of different releases: web1 (Debian 12) and web3 (13, without a network: it has web1's address, and without POPCNT).
. "$(dirname "$0")/../lib/case.sh"

begin
dom0 "xl create -q /etc/xen/web3.cfg 'vif=[]' memory=1024 maxmem=1024 'cpuid=\"host,popcnt=0\"'" || give_up "web3 could not be started"
check "web3's agent is there" dom0 "for i in \$(seq 300); do xenstore-exists /local/domain/\$(xl domid web3)/data/xenmolt/proto && exit 0; sleep 1; done; exit 1" || exit 1
expect 0 "from web1 to web3" "xenmolt app-compare --json web1 web3" || exit 1
check "web3's level is the newer one" same "$(jq -r '[.packages.level, .packages.newer > 20, .packages.gone > 0, .packages.added > 0] | tojson' "$scratch/out")" '["newer",true,true,true]'
check "and it tells both systems" jq -e '.os_from.libc != .os_to.libc and (.os_from.kernel | length > 0)' "$scratch/out"
check "the counting service has no unit there" same "$(jq -r '.units[] | "\(.unit) \(.verdict)"' "$scratch/out")" "counter.service refuse"
check "with the reason" jq -e '.units[0].reasons | any(.detail | contains("no unit counter.service"))' "$scratch/out"
check "its libc is another one there, by size, content, build-ID and package" jq -e '.units[0].files | any((.path | endswith("/libc.so.6")) and .here == "different"
    and (.build_id | length == 40) and (.build_id_here | length == 40) and .build_id != .build_id_here and (.package | startswith("libc6 2.36")))' "$scratch/out"
check "its JDK is missing there" jq -e '.units[0].files | any((.path | contains("java-17")) and .here == "missing")' "$scratch/out"
expect 0 "as a text" "xenmolt app-compare --all --workload counter web1 web3"
check "that names the packages" grep -qE '^ +newer +libc6:amd64 +2\.36-.* -> 2\.4' "$scratch/out"
expect 10 "to a guest whose CPUID says something else nothing moves" "xenmolt app-migrate -n web1 web3 counter"
err_has "CPUID 0x1 is"
err_has "cpuid="
check "web1 serves on" service_up 30
expect 3 "a domain that is not there" "xenmolt app-compare web1 nosuch"
expect 9 "a service that is not there" "xenmolt app-compare --workload nosuch web1 web3"
expect 0 "nothing runs old code in web1" "xenmolt app-overlays web1"
