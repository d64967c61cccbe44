/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/procfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"

#define PROC_TEXT_MAX    (64u << 20)
#define CGROUP_DEPTH_MAX 16

int molt__proc_text(pid_t pid, const char *name, char **ret_text, struct molt_error **err)
{
    char path[128];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    return molt_read_file(path, PROC_TEXT_MAX, ret_text, NULL, err);
}

bool molt__stat_parse(const char *text, struct molt__stat *s)
{
    const char *p = strrchr(text, ')');
    unsigned long long start;
    int ppid, pgrp, session;
    char state;

    if (!p || sscanf(p + 1, " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                     &state, &ppid, &pgrp, &session, &start) != 5)
        return false;
    *s = (struct molt__stat){ppid, pgrp, session, state, start};
    return true;
}

int64_t molt__status_num(const char *text, const char *key, int64_t dflt)
{
    size_t len = strlen(key);
    long long v;

    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (!strncmp(line, key, len) && line[len] == ':')
            return sscanf(line + len + 1, "%lld", &v) == 1 ? v : dflt;
    return dflt;
}

char *molt__cgroup_parse(const char *text)
{
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (!strncmp(line, "0::/", 4))
            return molt_xstrndup(line + 3, strcspn(line + 3, "\n"));
    return NULL;
}

bool molt__cgroup_within(const char *path, const char *top)
{
    size_t len = strlen(top);

    return len > 1 && !strncmp(path, top, len) && (path[len] == '\0' || path[len] == '/');
}

int molt__numbers(const char *dir, int **ret_v, size_t *ret_n, struct molt_error **err)
{
    CLEANUP_CLOSEDIR DIR *d = opendir(dir);
    CLEANUP_FREE int *v = NULL;
    size_t n = 0, cap = 0;
    struct dirent *e;

    if (!d)
        return molt_error_errno(err, "open %s", dir);
    while ((e = readdir(d))) {
        char *end;
        long num = strtol(e->d_name, &end, 10);

        if (!isdigit((unsigned char)e->d_name[0]) || *end || num > INT_MAX)
            continue;
        MOLT_GROW(v, n, cap);
        v[n++] = (int)num;
    }
    *ret_v = MOLT_STEAL_PTR(v);
    *ret_n = n;
    return 0;
}

struct pids {
    pid_t *v;
    size_t n, cap;
};

/* The processes of one directory of the cgroup file system and those below. */
static bool walk_cgroup(const char *dir, struct pids *p, int depth)
{
    CLEANUP_FREE char *procs = molt_xasprintf("%s/cgroup.procs", dir), *text = NULL;
    CLEANUP_CLOSEDIR DIR *d = NULL;
    struct dirent *e;
    char *save = NULL;

    if (depth > CGROUP_DEPTH_MAX || molt_read_file(procs, PROC_TEXT_MAX, &text, NULL, NULL) < 0)
        return false;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        MOLT_GROW(p->v, p->n, p->cap);
        p->v[p->n++] = atoi(line);
    }
    d = opendir(dir);
    while (d && (e = readdir(d)))
        if (e->d_type == DT_DIR && e->d_name[0] != '.') {
            CLEANUP_FREE char *sub = molt_xasprintf("%s/%s", dir, e->d_name);

            (void)walk_cgroup(sub, p, depth + 1);
        }
    return true;
}

/* The slow way, for a guest whose cgroup v2 tree is mounted elsewhere. */
static int search_cgroup(const char *cgroup, struct pids *p, struct molt_error **err)
{
    CLEANUP_FREE int *all = NULL;
    size_t n;
    int r = molt__numbers("/proc", &all, &n, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++) {
        CLEANUP_FREE char *text = NULL, *cg = NULL;

        if (molt__proc_text(all[i], "cgroup", &text, NULL) < 0)
            continue;
        cg = molt__cgroup_parse(text);
        if (!cg || !molt__cgroup_within(cg, cgroup))
            continue;
        MOLT_GROW(p->v, p->n, p->cap);
        p->v[p->n++] = all[i];
    }
    return 0;
}

int molt__cgroup_pids(const char *cgroup, pid_t **ret_v, size_t *ret_n, struct molt_error **err)
{
    CLEANUP_FREE char *dir = molt_xasprintf("/sys/fs/cgroup%s", cgroup);
    struct pids p = {NULL, 0, 0};
    int r = 0;

    if (!walk_cgroup(dir, &p, 0))
        r = search_cgroup(cgroup, &p, err);
    if (r < 0) {
        free(p.v);
        return r;
    }
    *ret_v = p.v;
    *ret_n = p.n;
    return 0;
}

int molt__each_fd(pid_t pid, bool want_flags,
                  int (*fn)(void *ctx, const struct molt__fd *f, struct molt_error **err), void *ctx,
                  struct molt_error **err)
{
    CLEANUP_FREE int *v = NULL;
    char path[64];
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    if (molt__numbers(path, &v, &n, NULL) < 0)
        return 0;
    for (size_t i = 0; i < n; i++) {
        struct molt__fd f = {.fd = v[i]};
        ssize_t len;
        int r;

        snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, v[i]);
        len = readlink(path, f.target, sizeof(f.target) - 1);
        if (len < 0 || stat(path, &f.st) < 0)
            continue;
        f.target[len] = '\0';
        if (want_flags) {
            CLEANUP_FREE char *text = NULL;
            const char *p;

            snprintf(path, sizeof(path), "fdinfo/%d", v[i]);
            if (molt__proc_text(pid, path, &text, NULL) < 0)
                continue;
            p = strstr(text, "flags:");
            if (p)
                sscanf(p + 6, "%o", &f.flags);
        }
        r = fn(ctx, &f, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int note_socket(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    struct molt__inodes *to = ctx;

    (void)err;
    if (S_ISSOCK(f->st.st_mode)) {
        MOLT_GROW(to->v, to->n, to->cap);
        to->v[to->n++] = f->st.st_ino;
    }
    return 0;
}

int molt__socket_inodes(pid_t pid, struct molt__inodes *to, struct molt_error **err)
{
    return molt__each_fd(pid, false, note_socket, to, err);
}

int molt__steal_fd(pid_t pid, int fd)
{
    CLEANUP_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

    return pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
}

static void unix_add(struct molt__unix_table *t, struct nlmsghdr *h)
{
    struct unix_diag_msg *m = NLMSG_DATA(h);
    int len = (int)h->nlmsg_len - (int)NLMSG_LENGTH(sizeof(*m));
    struct molt__unix_sk s = {.ino = m->udiag_ino, .type = m->udiag_type, .state = m->udiag_state};

    for (struct rtattr *a = (struct rtattr *)(m + 1); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
        size_t size = RTA_PAYLOAD(a);

        if (a->rta_type == UNIX_DIAG_PEER && size >= sizeof(s.peer)) {
            memcpy(&s.peer, RTA_DATA(a), sizeof(s.peer));
        } else if (a->rta_type == UNIX_DIAG_NAME && size) {
            if (size > sizeof(s.name) - 1)
                size = sizeof(s.name) - 1;
            memcpy(s.name, RTA_DATA(a), size);
            if (!s.name[0])
                s.name[0] = '@';
        }
    }
    MOLT_GROW(t->v, t->n, t->cap);
    t->v[t->n++] = s;
}

int molt__unix_table_read(struct molt__unix_table *t, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    struct {
        struct nlmsghdr h;
        struct unix_diag_req r;
    } req = {
        .h = {sizeof(req), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0},
        .r = {.sdiag_family = AF_UNIX, .udiag_states = ~0u, .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER}};
    static _Alignas(8) char buf[64 * 1024];

    if (fd < 0 || send(fd, &req, sizeof(req), 0) < 0)
        return molt_error_errno(err, "ask the kernel for unix sockets");
    for (;;) {
        ssize_t got = recv(fd, buf, sizeof(buf), 0);
        int len = (int)got;

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return molt_error_errno(err, "list unix sockets");
        for (struct nlmsghdr *h = (struct nlmsghdr *)buf; NLMSG_OK(h, (unsigned)len);
             h = NLMSG_NEXT(h, len)) {
            if (h->nlmsg_type == NLMSG_DONE)
                return 0;
            if (h->nlmsg_type == NLMSG_ERROR)
                return molt_error_set(err, MOLT_E_INTERNAL,
                                      "the kernel does not list unix sockets (unix_diag)");
            if (h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct unix_diag_msg)))
                unix_add(t, h);
        }
    }
}

const struct molt__unix_sk *molt__unix_find(const struct molt__unix_table *t, uint32_t ino)
{
    for (size_t i = 0; ino && i < t->n; i++)
        if (t->v[i].ino == ino)
            return &t->v[i];
    return NULL;
}

int molt__systemctl(const char *verb, const char *option, const char *unit, struct molt_error **err)
{
    char *argv[5] = {"systemctl", (char *)verb, NULL};
    struct molt_run_opts opts = {.timeout_ms = MOLT__SYSTEMCTL_MS};
    size_t n = 2;

    if (option)
        argv[n++] = (char *)option;
    if (unit)
        argv[n++] = (char *)unit;
    return molt_run_ok(argv, &opts, NULL, err);
}

int molt__systemctl_show(const char *unit, const char *props, char **ret_out, struct molt_error **err)
{
    char *argv[] = {"systemctl", "show", "--no-pager", "-p", (char *)props, "--", (char *)unit, NULL};
    struct molt_run_opts opts = {.timeout_ms = 60000};

    return molt_run_ok(argv, &opts, ret_out, err);
}

char *molt__path_encode(const char *path)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;

    for (const unsigned char *p = (const unsigned char *)path; *p; p++)
        if (*p > ' ' && *p < 0x7f && *p != '%')
            molt_strbuf_add(&b, p, 1);
        else
            molt_strbuf_addf(&b, "%%%02X", *p);
    return molt_strbuf_steal(&b);
}

static bool path_is_normal(const char *path)
{
    if (path[0] != '/' || !path[1] || strlen(path) >= PATH_MAX)
        return false;
    for (const char *p = path; *p;) {
        size_t len = strcspn(++p, "/");

        if (len == 0 || (len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        p += len;
    }
    return true;
}

char *molt__path_decode(const char *text)
{
    CLEANUP_FREE char *out = NULL;
    size_t n = 0;

    if (!text)
        return NULL;
    out = molt_xmalloc(strlen(text) + 1);
    for (const char *p = text; *p; p++) {
        if (*p == '%') {
            char hex[3] = {p[1], p[1] ? p[2] : '\0', '\0'};
            char *end;
            long v = strtol(hex, &end, 16);

            if (!isxdigit((unsigned char)hex[0]) || end != hex + 2 || v == 0)
                return NULL;
            out[n++] = (char)v;
            p += 2;
        } else {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
    return path_is_normal(out) ? MOLT_STEAL_PTR(out) : NULL;
}
