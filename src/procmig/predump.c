/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/predump.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"

#define CHECK_MS   120000
#define ROUND_MS   120000

int molt_predump_possible(const char *toolbox, struct molt_error **err)
{
    char *argv[] = {NULL, "check", "-v0", "--feature", "mem_dirty_track", NULL};
    CLEANUP_ERROR struct molt_error *e = NULL;

    if (molt__criu_run(toolbox, argv, 0, CHECK_MS, NULL, &e) == 0)
        return 0;
    return molt_error_set(err, MOLT_E_UNSUPPORTED, "this kernel does not tell which pages were written (soft-dirty bits): %s", molt_error_text(e));
}

char *molt_predump_dir(const char *images, unsigned round)
{
    return molt_xasprintf("%s/pre%u", images, round);
}

static int put_link(const char *dir, const char *target, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" MOLT_PREDUMP_PARENT, dir);

    if (symlink(target, path) < 0)
        return molt_error_errno(err, "make %s", path);
    return 0;
}

static int make_dir(const char *images, unsigned round, char **ret_dir, struct molt_error **err)
{
    CLEANUP_FREE char *dir = molt_predump_dir(images, round);

    if (round < 1 || round > MOLT_ROUNDS_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "no such round of memory: %u", round);
    if (mkdir(dir, 0700) < 0)
        return molt_error_errno(err, "make %s", dir);
    *ret_dir = MOLT_STEAL_PTR(dir);
    return 0;
}

int molt_predump_place(const char *images, unsigned round, struct molt_error **err)
{
    CLEANUP_FREE char *dir = NULL, *before = molt_xasprintf("../pre%u", round - 1);
    int r = make_dir(images, round, &dir, err);

    return r == 0 && round > 1 ? put_link(dir, before, err) : r;
}

int molt_predump_link(const char *images, unsigned rounds, struct molt_error **err)
{
    CLEANUP_FREE char *last = molt_xasprintf("pre%u", rounds);

    if (rounds > MOLT_ROUNDS_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "no such round of memory: %u", rounds);
    return rounds ? put_link(images, last, err) : 0;
}

int molt_predump(const struct molt_workload *w, const struct molt_dump_opts *opts, unsigned round, struct molt_dump_stats *ret_stats, struct molt_error **err)
{
    CLEANUP_FREE char *pid = molt_xasprintf("%d", (int)w->main_pid), *before = molt_xasprintf("../pre%u", round - 1), *dir = NULL;
    int r = make_dir(opts->dir, round, &dir, err);

    if (r < 0)
        return r;
    CLEANUP_FREE char *log = molt_xasprintf("%s/pre-dump.log", dir);
    char *argv[] = {NULL, "pre-dump", "-t", pid, "-D", dir, "-o", "pre-dump.log", "-v2", "--track-mem", "--timeout", "60",
                    round > 1 ? "--prev-images-dir" : NULL, before, NULL};
    struct molt_dump_stats s = {0};
    int64_t begun = molt_mono_us();

    r = molt__criu_run(opts->toolbox, argv, w->main_pid, opts->timeout_ms ? opts->timeout_ms : ROUND_MS, log, err);
    s.wall_us = (uint64_t)(molt_mono_us() - begun);
    if (r == 0)
        r = molt__stats_read(dir, "dump", &s, err);
    if (r == 0)
        *ret_stats = s;
    return r;
}

void molt_predump_forget_pages(const char *images, unsigned round)
{
    CLEANUP_FREE char *dir = molt_predump_dir(images, round);
    CLEANUP_CLOSEDIR DIR *d = opendir(dir);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        struct stat st;
        CLEANUP_CLOSE int fd = strncmp(e->d_name, "pages-", 6) ? -1 : openat(dirfd(d), e->d_name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);

        if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0)
            (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size);
    }
}

const char *molt_predump_stop(const struct molt_round *v, unsigned n)
{
    const struct molt_round *last = &v[n - 1];

    if (last->pages <= MOLT_PREDUMP_FEW)
        return "few-pages";
    /* Hundreds of threads stand still for seconds however few pages they write. */
    if (last->pages <= MOLT_PREDUMP_SOME && last->memory_us * 100 < last->frozen_us * MOLT_PREDUMP_SHARE)
        return "small-share";
    /* The first round takes everything, so its number says nothing of how fast pages are written. */
    if (n > 2 && last->pages * 100 > v[n - 2].pages * MOLT_PREDUMP_GAIN)
        return "no-gain";
    return n >= MOLT_PREDUMP_MAX ? "rounds" : NULL;
}
