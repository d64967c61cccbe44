#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The tests of trees once more, on XFS. (Random ones: tests/model.)
set -eu
: "${top_builddir:?}"

skip() { echo "SKIP: $*"; exit 77; }
PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || skip "not root"
command -v mkfs.xfs >/dev/null || skip "no mkfs.xfs (Debian: xfsprogs)"
[ "${1:-}" = mounted ] || exec unshare -m --propagation private sh "$0" mounted

dir=$(mktemp -d)
trap 'umount "$dir/mnt" 2>/dev/null; rm -rf "$dir"' EXIT
truncate -s 2G "$dir/image"
mkfs.xfs -q "$dir/image"
mkdir "$dir/mnt"
mount -o loop "$dir/image" "$dir/mnt" || skip "no XFS or no loop device here"
for t in tree corner differences hostile; do
    echo "test_merge_$t"
    TMPDIR=$dir/mnt "$top_builddir/tests/unit/test_merge_$t" || exit 1
done
