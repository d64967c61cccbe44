#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The xl shim on a made-up xl, laid out as Debian's: a link to a script that finds the tool by its own name.
. "$(dirname -- "$0")/functions.sh"

usr=$scratch/usr
mkdir -p "$usr/sbin" "$usr/lib/common/bin" "$usr/lib/tools"
cat >"$usr/lib/common/bin/wrapper" <<'EOF'
#!/bin/sh
exec "TOOLS/${0##*/}" "$@"
EOF
sed -i "s|TOOLS|$usr/lib/tools|" "$usr/lib/common/bin/wrapper"
cat >"$usr/lib/tools/xl" <<'EOF'
#!/bin/sh
echo "real xl: $#"
for a do echo "<$a>"; done
case ${1-} in
exit) exit "$2" ;;
term) kill -TERM $$ ;;
pid) echo "pid $$" ;;
cat) cat ;;
esac
EOF
cat >"$scratch/ours's" <<'EOF'
#!/bin/sh
echo "ours: $#"
for a do echo "<$a>"; done
exit 42
EOF
chmod +x "$usr/lib/common/bin/wrapper" "$usr/lib/tools/xl" "$scratch/ours's"
ln -s ../lib/common/bin/wrapper "$usr/sbin/xl"
xl=$usr/sbin/xl
shim="--xl $xl --lib-dir $usr/lib/xenmolt/shim"
before=$(ls -li "$xl")
tree() { (cd "$usr" && find . | sort); }
tree_before=$(tree)

all_real() {
    expect 0 "$xl"
    same "$(cat "$scratch/out")" "real xl: 0"
    expect 0 "$xl" list "two words" "" '*' "it's" '$HOME'
    same "$(cat "$scratch/out")" "$(printf '%s\n' "real xl: 6" "<list>" "<two words>" "<>" "<*>" "<it's>" '<$HOME>')"
    expect 7 "$xl" exit 7
    expect 0 "$xl" -v create guest-upgrade # the first word decides: this is a create
    out_has "real xl: 3"
    expect 0 "$xl" op-listing
    out_has "real xl: 1"
    expect 143 "$xl" term
    # exec all the way: the process that was started is the tool
    sh -c 'echo $$; exec "$0" pid' "$xl" >"$scratch/out"
    same "pid $(head -n 1 "$scratch/out")" "$(tail -n 1 "$scratch/out")"
    same "$(echo input | "$xl" cat | tail -n 1)" input
}

all_real
expect 0 "$XENMOLT" shim-remove $shim # not installed: nothing to do
out_has "was no shim"

expect 0 "$XENMOLT" shim-install $shim --xenmolt "$scratch/ours's"
all_real
for c in $("$XENMOLT" subcommands); do
    expect 42 "$xl" "$c" -n "two words" ""
    same "$(cat "$scratch/out")" "$(printf '%s\n' "ours: 4" "<$c>" "<-n>" "<two words>" "<>")"
done
expect 42 "$xl" -v -N guest-upgrade web1
same "$(sed -n 2p "$scratch/out")" "<-v>"

# Twice is once, and points to the xenmolt named last.
expect 0 "$XENMOLT" shim-install $shim
all_real
expect 0 "$xl" op-list
out_has OPERATION
expect 2 "$xl" guest-upgrade

expect 0 "$XENMOLT" shim-remove $shim
all_real
same "$(ls -li "$xl")" "$before"
rmdir "$usr/lib/xenmolt"
same "$(tree)" "$tree_before"

# By environment; and with the Xen tools removed in between.
XENMOLT_XL=$xl XENMOLT_SHIM_DIR=$usr/lib/shim expect 0 "$XENMOLT" shim-install
rm "$xl.xenmolt-real"
XENMOLT_XL=$xl XENMOLT_SHIM_DIR=$usr/lib/shim expect 0 "$XENMOLT" shim-remove
[ ! -e "$xl" ] && [ ! -L "$xl" ] || fail "the shim stays without an xl"
ln -s ../lib/common/bin/wrapper "$xl"

# Refused: no xl, no xenmolt, a directory.
expect 1 "$XENMOLT" shim-install --xl "$usr/sbin/none" --lib-dir "$usr/lib/shim"
expect 1 "$XENMOLT" shim-install $shim --xenmolt "$usr/none"
expect 2 "$XENMOLT" shim-install --xl "$usr/sbin" --lib-dir "$usr/lib/shim"
all_real

# With dpkg: an update of the package lands beside the shim, and removing finds the new one.
command -v dpkg-divert >/dev/null 2>&1 || exit 0
DPKG_ADMINDIR=$scratch/dpkg
export DPKG_ADMINDIR
mkdir -p "$DPKG_ADMINDIR/info" "$DPKG_ADMINDIR/updates"
: >"$DPKG_ADMINDIR/status"
: >"$DPKG_ADMINDIR/diversions"
expect 0 "$XENMOLT" shim-install $shim --divert
same "$(dpkg-divert --truename "$xl")" "$xl.xenmolt-real"
all_real
rm "$xl.xenmolt-real"
ln -s ../lib/common/bin/wrapper "$xl.xenmolt-real" # what dpkg does
all_real
expect 0 "$XENMOLT" shim-remove $shim --divert
same "$(dpkg-divert --list | grep -c xenmolt-real)" 0
all_real
