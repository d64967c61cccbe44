/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/bystanders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/procfs.h"

#define MAX_DEPTH 16
#define MAX_LIST  (1u << 20)

int molt_cgroup_own(char **ret, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    int r = molt__proc_text(getpid(), "cgroup", &text, err);
    CLEANUP_FREE char *own = r == 0 ? molt__cgroup_parse(text) : NULL;
    if (r == 0 && (!own || strlen(own) < 2))
        r = molt_error_set(err, MOLT_E_UNSUPPORTED, "the agent has no cgroup of its own");
    if (r == 0)
        *ret = MOLT_STEAL_PTR(own);
    return r;
}

static const char *root_of(const struct molt_bystanders *b)
{
    return b->root ? b->root : MOLT_CGROUP_ROOT;
}

static int open_file(const struct molt_bystanders *b, const char *cgroup, const char *file, int flags)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s%s/%s", root_of(b), cgroup, file);
    return open(path, flags | O_CLOEXEC);
}

/* -1: no such file. */
static int read_flag(int fd, const char *key)
{
    char text[256];
    ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    const char *at = key ? strstr(text, key) : text;
    return at ? atoi(at + (key ? strlen(key) : 0)) : -1;
}

static int set_frozen(const struct molt_bystanders *b, const char *cgroup, bool on)
{
    CLEANUP_CLOSE int fd = open_file(b, cgroup, "cgroup.freeze", O_WRONLY | O_TRUNC);
    return fd >= 0 && write(fd, on ? "1\n" : "0\n", 2) == 2 ? 0 : -1;
}

enum role { OTHER, KEPT, ABOVE_KEPT };

static enum role role_of(const struct molt_bystanders *b, const char *cgroup)
{
    enum role role = OTHER;
    for (const char *const *k = b->keep; *k; k++) {
        if (molt__cgroup_within(cgroup, *k))
            return KEPT;
        if (molt__cgroup_within(*k, cgroup))
            role = ABOVE_KEPT;
    }
    return role;
}

/* Appends a line for each cgroup below `top` that is to be frozen. */
static int choose(const struct molt_bystanders *b, const char *top, int depth, struct molt_strbuf *out, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s%s", root_of(b), top);
    CLEANUP_CLOSEDIR DIR *d = opendir(path);
    struct dirent *e;
    if (!d)
        return errno == ENOENT ? 0 : molt_error_errno(err, "%s", path);
    while ((e = readdir(d))) {
        if (e->d_type != DT_DIR || e->d_name[0] == '.' || strchr(e->d_name, '\n'))
            continue;
        CLEANUP_FREE char *cgroup = molt_xasprintf("%s/%s", top, e->d_name);
        enum role role = role_of(b, cgroup);
        if (role == ABOVE_KEPT && depth < MAX_DEPTH) {
            int r = choose(b, cgroup, depth + 1, out, err);
            if (r < 0)
                return r;
        } else if (role == OTHER) {
            CLEANUP_CLOSE int fd = open_file(b, cgroup, "cgroup.freeze", O_RDONLY);
            if (read_flag(fd, NULL) == 0) /* 1: it stands still by somebody else's word, and stays so */
                molt_strbuf_addf(out, "%s\n", cgroup);
        }
    }
    return 0;
}

/* fn for each line; the list is cut up. */
static void each_line(char *list, void (*fn)(void *ctx, const char *cgroup), void *ctx)
{
    char *save = NULL;
    for (char *line = strtok_r(list, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        fn(ctx, line);
}

struct freezing {
    const struct molt_bystanders *b;
    size_t done;
    int64_t end;
    char *late;
};

static void freeze_one(void *ctx, const char *cgroup)
{
    struct freezing *f = ctx;
    if (set_frozen(f->b, cgroup, true) == 0) /* a cgroup that ended meanwhile writes nothing */
        f->done++;
}

/* cgroup.events tells of a change by POLLPRI. */
static void wait_one(void *ctx, const char *cgroup)
{
    struct freezing *f = ctx;
    CLEANUP_CLOSE int fd = open_file(f->b, cgroup, "cgroup.events", O_RDONLY);
    while (read_flag(fd, "frozen ") == 0) {
        struct pollfd p = {.fd = fd, .events = POLLPRI};
        int64_t left = f->end - molt_mono_ms();
        if (left <= 0) {
            if (!f->late)
                f->late = molt_xstrdup(cgroup);
            return;
        }
        poll(&p, 1, left < 20 ? (int)left : 20);
    }
}

static void thaw_one(void *ctx, const char *cgroup)
{
    set_frozen(((struct freezing *)ctx)->b, cgroup, false);
}

int molt_bystanders_freeze(const struct molt_bystanders *b, size_t *ret_frozen, char **ret_late, struct molt_error **err)
{
    CLEANUP_FREE char *probe = molt_xasprintf("%s/cgroup.controllers", root_of(b));
    CLEANUP_STRBUF struct molt_strbuf list = MOLT_STRBUF_INIT;
    struct freezing f = {.b = b, .end = molt_mono_ms() + b->timeout_ms};
    *ret_frozen = 0;
    *ret_late = NULL;
    if (!molt_exists(probe))
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "there is no cgroup v2 at %s, which could stop the other processes", root_of(b));
    int r = molt_bystanders_thaw(b, err); /* of somebody who died over it: they would look like somebody else's */
    if (r == 0)
        r = choose(b, "", 0, &list, err);
    if (r == 0)
        r = molt_write_file(b->list, molt_strbuf_str(&list), list.len, 0600, err);
    if (r < 0)
        return r;
    CLEANUP_FREE char *freeze = molt_xstrdup(molt_strbuf_str(&list)), *wait = molt_xstrdup(freeze);
    each_line(freeze, freeze_one, &f);
    each_line(wait, wait_one, &f);
    *ret_frozen = f.done;
    *ret_late = f.late;
    return 0;
}

int molt_bystanders_thaw(const struct molt_bystanders *b, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    struct freezing f = {.b = b};
    if (!molt_exists(b->list))
        return 0;
    int r = molt_read_file(b->list, MAX_LIST, &text, NULL, err);
    if (r < 0)
        return r;
    each_line(text, thaw_one, &f);
    return unlink(b->list) == 0 || errno == ENOENT ? 0 : molt_error_errno(err, "%s", b->list);
}
