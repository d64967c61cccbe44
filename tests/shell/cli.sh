#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The command line: help, usage errors, exit statuses; nothing here meets a hypervisor.
. "$(dirname -- "$0")/functions.sh"

# Help: every subcommand, three ways, on standard output.
expect 0 "$XENMOLT" --help
out_has guest-upgrade
commands=$(sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p' "$scratch/out")
[ "$(echo "$commands" | wc -l)" -ge 14 ] || fail "too few subcommands: $commands"
for c in $commands; do
    expect 0 "$XENMOLT" help "$c"
    out_has "Usage: xenmolt $c"
    cp "$scratch/out" "$scratch/help"
    expect 0 "$XENMOLT" "$c" --help
    cmp -s "$scratch/out" "$scratch/help" || fail "$c --help differs from help $c"
done
expect 0 "$XENMOLT" guest-upgrade --json -h
out_has "Usage: xenmolt guest-upgrade"
expect 0 "$XENMOLT" version
out_has "xenmolt "
expect 0 "$XENMOLT" subcommands
out_has op-recover
if grep -q -e shim -e help "$scratch/out"; then fail "subcommands names more than xl should hand over"; fi

# Usage errors: status 2, a line on standard error, nothing on standard output.
bad() {
    expect 2 "$XENMOLT" "$@"
    out_empty
    [ -s "$scratch/err" ] || fail "nothing said: $*"
}
bad
bad no-such-subcommand
err_has "unknown subcommand no-such-subcommand"
bad help no-such-subcommand
bad --no-such-option
bad -Z op-list
bad guest-upgrade
err_has "DOMAIN is missing"
bad guest-upgrade ""
bad guest-upgrade a b
err_has "also b"
bad guest-upgrade --no-such-option web1
err_has "--no-such-option"
bad guest-upgrade -Z web1
bad guest-upgrade web1 --workload
err_has "needs an argument"
bad guest-upgrade --on-conflict everybody web1
err_has "everybody"
bad guest-upgrade --report "$scratch/none/report" web1
err_has "cannot be written"
bad guest-upgrade --report "$scratch" web1
err_has "is a directory"
printf 'active /a\nwin /b\n' >"$scratch/decisions"
bad guest-upgrade --resolve "$scratch/decisions" web1
err_has "$scratch/decisions:2: unknown action 'win'"
printf 'active /a\ndrop /a\n' >"$scratch/decisions"
bad guest-upgrade --resolve "$scratch/decisions" web1
err_has "$scratch/decisions:2: the path of line 1 again"
bad delta-merge --resolve "$scratch/decisions" web1
err_has "$scratch/decisions:2:"
printf 'active etc/passwd\n' >"$scratch/decisions"
bad guest-upgrade --resolve "$scratch/decisions" -n web1
err_has "$scratch/decisions:1: want a path that begins with '/'"
head -c 300000 /dev/zero | tr '\0' '#' >"$scratch/decisions"
bad guest-upgrade --resolve "$scratch/decisions" web1
bad guest-upgrade --resolve "$scratch/no-such-file" web1
err_has "no-such-file"
bad guest-upgrade --resolve "$scratch" web1
for hours in 0 -1 169 soon 1x ''; do
    bad guest-upgrade --wait="$hours" web1
    err_has "1 to 168"
done
bad delta-merge
err_has "DOMAIN is missing"
bad delta-merge -n
bad delta-merge web1 web2
printf 'active /a\n' >"$scratch/decisions"
bad delta-merge -n --resolve "$scratch/decisions" web1
bad op-continue
bad op-continue a b
bad op-list word
bad op-show
bad op-show a b
bad op-log
bad op-abort --wait soon a
err_has "soon"
bad op-abort --wait -1 a
bad op-commit
bad op-commit --json a
bad op-commit --older-than soon
err_has "soon"
bad op-commit --older-than -1
bad op-commit --older-than 24 some-operation
err_has "some-operation"
bad op-recover
bad op-rollback some-operation
err_has "--discard-new-writes"
bad domain-monitor
bad app-compare web1
bad app-compare web1 web1
bad app-migrate web1 web2
bad app-migrate web1 web1 counter
err_has "both"
bad app-overlays
bad app-overlays web1 web2
bad domain-monitor web1
bad domain-monitor 0
bad domain-monitor 99999999999
bad shim-install --xl relative
bad shim-remove word
[ ! -e "$XENMOLT_STATE_DIR" ] || fail "a usage error made the state directory"

# An empty state directory, named by environment and by option.
expect 0 "$XENMOLT" op-list
out_has OPERATION
same "$(wc -l <"$scratch/out")" 1
[ -d "$XENMOLT_STATE_DIR" ] || fail "XENMOLT_STATE_DIR is not used"
expect 0 "$XENMOLT" op-list --json --state-dir "$scratch/other"
same "$(tr -d ' \n' <"$scratch/out")" "[]"
[ -d "$scratch/other" ] || fail "--state-dir is not used"
expect 0 "$XENMOLT" --state-dir "$scratch/third" -v op-list
[ -d "$scratch/third" ] || fail "the global --state-dir is not used"

# Nothing is old enough to be committed.
expect 0 "$XENMOLT" op-commit --older-than 0
out_empty

# No such operation: its own status, the same for all.
for c in op-show op-log op-abort op-commit op-recover "op-rollback --discard-new-writes"; do
    expect 17 "$XENMOLT" $c gu-20000101-000000-0000
    out_empty
    err_has "no operation gu-20000101-000000-0000"
done

for c in op-continue "delta-merge -n" delta-merge "delta-merge --json --resolve $scratch/decisions"; do
    expect 17 "$XENMOLT" $c web1
    out_empty
    err_has "no operation web1"
done

# A state directory that cannot be made.
: >"$scratch/file"
expect 1 "$XENMOLT" op-list --state-dir "$scratch/file/dir"
