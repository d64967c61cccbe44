#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Runs in dom0: makes /tmp/small-recipe, the small upgrade (smallupgrade.sh) as one self-extracting recipe.
cat >/tmp/small-recipe <<'END'
#!/bin/sh
# xenmolt-recipe: title=a newer kernel and C library, carried in this file
# xenmolt-recipe: timeout_s=2400
set -eu
dir=$(mktemp -d /var/tmp/small.XXXXXX)
trap 'rm -rf "$dir"' EXIT
line=$(grep -an '^#PAYLOAD$' "$0" | head -n 1 | cut -d: -f1)
tail -n +$((line + 1)) "$0" | tar -x -C "$dir" -f -
cut -f 1,3 "$dir/small-upgrade/VERSIONS"
dpkg --force-confold --auto-deconfigure -i "$dir"/small-upgrade/*.deb
exit 0
#PAYLOAD
END
cat /var/lib/xenmolt-test/small-upgrade.tar >>/tmp/small-recipe
chmod +x /tmp/small-recipe
