#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The layers depend on each other only as the table in ARCHITECTURE.md says: each #include "..." of ours is read.
set -eu
top=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)

# arrows TREE TABLE: prints each broken arrow; the table's rows are "| `directory/` | what it may use |".
arrows() {
    (cd "$1" && find src xenstore libxl-ext -name '*.[ch]' -type f | sort | while read -r file; do
        sed -n "s|^[[:space:]]*#[[:space:]]*include[[:space:]]*[\"<]\([^\">]*\)[\">].*|$file \1|p" "$file"
    done) | awk -v table="$2" -v ours="$(cd "$1/libxl-ext" && echo *.h)" '
        BEGIN {
            FS = "|"
            while ((getline line < table) > 0) {
                if (line ~ /^<!-- arrows -->/) on = 1
                if (line ~ /^<!-- end of arrows -->/) on = 0
                if (!on || split(line, cell, "|") < 4 || cell[2] !~ /`/) continue
                gsub(/[` ]/, "", cell[2]); gsub(/[`,]/, " ", cell[3]); gsub(/\/$/, "", cell[2])
                rows++
                names[cell[2]] = 1
                n = split(cell[3], w, " ")
                for (i = 1; i <= n; i++) may[cell[2], w[i]] = 1
            }
            if (rows < 9) { print "no table of arrows in " table; exit }
            FS = " "
            n = split(ours, w, " ")
            for (i = 1; i <= n; i++) private[w[i]] = 1
        }
        # The layer that a path belongs to: src/base/x.c -> src/base, libxl-ext/x.c -> libxl-ext.
        function layer(path, part) {
            split(path, part, "/")
            return part[1] == "src" ? part[1] "/" part[2] : part[1]
        }
        {
            split($0, w, " "); file = w[1]; header = w[2]; from = layer(file); to = ""
            if (!(from in names)) { print file ": " from " does not stand in the table"; next }
            if (header ~ /^(base|proto|engine|merge|procmig|agent|cli|rpcd)\//) to = layer("src/" header)
            else if (header ~ /^xenstore\//) to = "xenstore"
            else if (header == "xenmolt.h") to = "xenmolt.h"
            else if (header ~ /^libxl/) to = "libxl"
            else if (header ~ /^(xs|xenstore)[.]h|^xenstore_lib/) to = "libxenstore"
            else if (header ~ /^libxenvchan/) to = "libxenvchan"
            else if (header ~ /^xenguest/) to = "libxenguest"
            else if (header ~ /^xen(ctrl|call|evtchn|gnttab|toollog)/ ) to = "libxenctrl"
            else if (header ~ /^yajl/) to = "yajl"
            else if (header ~ /^netlink\//) to = "libnl"
            else if (header in private) to = "libxl-ext"
            else next
            if (to == from || (to == "xenmolt.h" && from == "libxl-ext")) next
            if (!((from, to) in may)) print file ": " from " may not use " to " (" header ")"
        }'
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The test itself: a made-up tree with four broken arrows.
mkdir -p "$scratch/src/base" "$scratch/src/merge" "$scratch/src/cli" "$scratch/xenstore" "$scratch/libxl-ext"
echo '#include "engine/engine.h"' >"$scratch/src/base/a.c"
echo '#include "base/error.h"' >"$scratch/src/merge/good.c"
printf '#  include <libxl.h>\n#include <stdio.h>\n' >"$scratch/src/merge/b.c"
echo '#include "disk.h"' >"$scratch/xenstore/d.c"
: >"$scratch/libxl-ext/disk.h"
echo '#include "engine/internal.h"' >"$scratch/src/cli/c.c"
found=$(arrows "$scratch" "$top/ARCHITECTURE.md")
for want in 'src/base/a.c: src/base may not use src/engine' 'src/merge/b.c: src/merge may not use libxl' 'src/cli/c.c: src/cli may not use src/engine' \
    'xenstore/d.c: xenstore may not use libxl-ext'; do
    case $found in *"$want"*) ;; *) echo "FAIL: not found: $want"; echo "$found"; exit 1 ;; esac
done
[ "$(echo "$found" | wc -l)" = 4 ] || { echo "FAIL: found too much"; echo "$found"; exit 1; }

found=$(arrows "$top" "$top/ARCHITECTURE.md")
[ -z "$found" ] || { echo "FAIL: broken arrows"; echo "$found"; exit 1; }
