#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The manual pages: well-formed, and true to the program (exit statuses, options, subcommands).
. "$(dirname -- "$0")/functions.sh"
requires podchecker pod2text
man=$srcdir_top/docs/man

for page in "$man"/*.pod; do
    podchecker -warnings "$page" >"$scratch/out" 2>&1 || { cat "$scratch/out"; fail "$page"; }
    if grep -q WARNING "$scratch/out"; then cat "$scratch/out"; fail "$page"; fi
done

# The table of exit statuses stands in xenmolt(8) word for word.
"$XENMOLT" help exit-codes >"$scratch/codes"
sed -n '/^=head1 EXIT STATUS/,/^=head1 [^E]/s/^ \( *[0-9][0-9]*  .*\)/\1/p' "$man/xenmolt.8.pod" >"$scratch/page"
diff "$scratch/codes" "$scratch/page" || fail "the exit statuses of xenmolt.8 are not those of the program"

# Every subcommand is named in xenmolt(8); every option of a subcommand's help in the page that describes it.
for c in $("$XENMOLT" --help | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p'); do
    grep -qF "B<$c>" "$man/xenmolt.8.pod" || fail "xenmolt.8 does not name $c"
    case $c in
    guest-upgrade) page=xenmolt-guest-upgrade.8 ;;
    delta-merge) page=xenmolt-delta-merge.8 ;;
    app-*) page=xenmolt-app.8 ;;
    op-*) page=xenmolt-op.8 ;;
    *) page=xenmolt.8 ;;
    esac
    "$XENMOLT" help "$c" | grep -oE '(^|[ ,])--[a-z][a-z-]*' | tr -d ' ,' | sort -u | while read -r option; do
        case $option in --help|--verbose|--state-dir) continue ;; esac
        grep -qF -e "B<$option" -e "B<-n>, B<$option" "$man/$page.pod" || { echo "FAIL: $page: no $option"; exit 1; }
    done || exit 1
done
