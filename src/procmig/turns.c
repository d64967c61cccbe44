/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/turns.h"

#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"

#define SYSCTL "/proc/sys/kernel"

/* Of each of them a kernel has one name at most. */
static const struct setting {
    const char *name;
    bool debugfs;
} settings[] = {
    {"sched/min_granularity_ns", true}, {"sched/wakeup_granularity_ns", true}, {"sched/base_slice_ns", true},
    {"sched_min_granularity_ns", false}, {"sched_wakeup_granularity_ns", false},
};

#define N_SETTINGS (sizeof(settings) / sizeof(settings[0]))

/* A mount of debugfs that nobody else sees (fsmount(2), Linux 5.2), as a directory of this process's; -1: there is none. */
static int open_debugfs(void)
{
    CLEANUP_CLOSE int fs = (int)syscall(SYS_fsopen, "debugfs", FSOPEN_CLOEXEC);

    if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    return (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
}

static char *path_of(const struct setting *s, const char *debugfs, const char *sysctl)
{
    const char *dir = s->debugfs ? debugfs : sysctl;

    return dir ? molt_xasprintf("%s/%s", dir, s->name) : NULL;
}

/* Nanoseconds; -1: this kernel has no such setting. */
static long long get(const char *path)
{
    CLEANUP_FREE char *text = NULL;
    char *end;

    if (!path || !molt_exists(path) || molt_read_file(path, 64, &text, NULL, NULL) < 0)
        return -1;
    long long v = strtoll(text, &end, 10);

    return end == text || (*end && *end != '\n') ? -1 : v;
}

static bool set(const char *path, long long v)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "%lld\n", v);

    return molt_write_file(path, text, (size_t)n, 0600, NULL) == 0;
}

/* Where a record is there already the settings may be ours: that one is to be given back. */
int molt__turns_begin(const char *debugfs, const char *sysctl, const char *record, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    bool shorter[N_SETTINGS];
    int n = 0;

    molt__turns_end(debugfs, sysctl, record);
    for (size_t i = 0; i < N_SETTINGS; i++) {
        CLEANUP_FREE char *path = path_of(&settings[i], debugfs, sysctl);
        long long was = get(path);

        shorter[i] = was >= 0 && was < MOLT_TURN_NS;
        if (shorter[i])
            molt_strbuf_addf(&b, "%s %lld\n", settings[i].name, was);
    }
    if (b.len == 0)
        return 0;
    int r = molt_write_file(record, b.s, b.len, 0600, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < N_SETTINGS; i++) {
        CLEANUP_FREE char *path = shorter[i] ? path_of(&settings[i], debugfs, sysctl) : NULL;

        n += path && set(path, MOLT_TURN_NS);
    }
    if (n == 0)
        (void)unlink(record);
    return n;
}

void molt__turns_end(const char *debugfs, const char *sysctl, const char *record)
{
    CLEANUP_FREE char *text = NULL;
    char *rest, *line;

    if (!molt_exists(record) || molt_read_file(record, 4096, &text, NULL, NULL) < 0)
        return;
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char name[64];
        long long was;

        if (sscanf(line, "%63s %lld", name, &was) != 2)
            continue;
        for (size_t i = 0; i < N_SETTINGS; i++) {
            CLEANUP_FREE char *path = strcmp(name, settings[i].name) ? NULL : path_of(&settings[i], debugfs, sysctl);

            if (path && get(path) == MOLT_TURN_NS)
                (void)set(path, was);
        }
    }
    (void)unlink(record);
}

int molt_turns_begin(const char *record, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = open_debugfs();
    CLEANUP_FREE char *debugfs = fd < 0 ? NULL : molt_xasprintf("/proc/self/fd/%d", fd);

    return molt__turns_begin(debugfs, SYSCTL, record, err);
}

void molt_turns_end(const char *record)
{
    if (!molt_exists(record))
        return;
    CLEANUP_CLOSE int fd = open_debugfs();
    CLEANUP_FREE char *debugfs = fd < 0 ? NULL : molt_xasprintf("/proc/self/fd/%d", fd);

    molt__turns_end(debugfs, SYSCTL, record);
}
