# SPDX-License-Identifier: GPL-2.0-or-later
# Shared by every part of the nested host: paths, messages, running steps, what the build machine needs.

CACHE=${XENMOLT_CACHE:-/var/cache/xenmolt}
KEY=$CACHE/key

say() { printf 'host: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# step TITLE CMD...: run CMD with its output in a log; print one line, and on failure the log's tail.
step() {
    local title=$1 log start=$SECONDS rc=0; shift
    mkdir -p "$CACHE/log"
    log=$CACHE/log/$(tr -c 'a-z0-9\n' - <<<"${title,,}").log
    say "$title ..."
    # Not "CMD || ...": that would switch off errexit inside CMD.
    set +e
    ( set -eE; trap 'echo "failed: line $LINENO: $BASH_COMMAND"' ERR; "$@" ) >"$log" 2>&1 </dev/null
    rc=$?
    set -e
    if (( rc != 0 )); then
        say "$title FAILED (exit $rc), end of $log:"
        tail -n 30 "$log" >&2
        exit 1
    fi
    say "$title: $((SECONDS - start)) s"
}

# hash_of FILE-OR-STRING...: short hash over the contents of files and over strings.
hash_of() {
    local a
    for a in "$@"; do
        if [ -d "$a" ]; then (cd "$a" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
        elif [ -f "$a" ]; then sha256sum <"$a"
        else printf '%s\n' "$a"; fi
    done | sha256sum | cut -c1-12
}

# need_tools: install what the build machine lacks, only then.
need_tools() {
    local missing=() t pair
    for pair in qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils mmdebstrap:mmdebstrap \
                mke2fs:e2fsprogs sfdisk:fdisk ssh:openssh-client javac:default-jdk-headless \
                dpkg-scanpackages:dpkg-dev apt-ftparchive:apt-utils python3:python3-minimal; do
        t=${pair%%:*}
        command -v "$t" >/dev/null 2>&1 || missing+=("${pair#*:}")
    done
    [ -f /usr/include/sqlite3.h ] || missing+=(libsqlite3-dev)
    (( ${#missing[@]} == 0 )) && return 0
    step "installing ${missing[*]}" apt_install "${missing[@]}"
}

apt_install() {
    apt-get -q update
    DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@"
}

# lock_cache: one build at a time.
lock_cache() {
    mkdir -p "$CACHE"
    exec 9>"$CACHE/lock"
    flock -n 9 || { say "another build holds the cache; waiting"; flock 9; }
}
