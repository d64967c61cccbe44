/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/workload.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/procfs.h"

int molt_unit_name(const char *name, char **ret_unit, struct molt_error **err)
{
    size_t len = name ? strlen(name) : 0;
    bool suffix = len > 8 && !strcmp(name + len - 8, ".service");

    if (len == 0 || len + 8 >= MOLT_UNIT_MAX || !isalnum((unsigned char)name[0]))
        return molt_error_set(err, MOLT_E_USAGE, "not a service unit name: '%.200s'", name ? name : "");
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("-_.:@\\", *p))
            return molt_error_set(err, MOLT_E_USAGE, "not a service unit name: '%s'", name);
    if (!suffix && strrchr(name, '.')) {
        const char *dot = strrchr(name, '.');

        for (const char *const *t = (const char *const[]){".socket", ".target", ".timer", ".mount", ".slice",
                                                          ".scope", ".path", ".device", ".swap", NULL};
             *t; t++)
            if (!strcmp(dot, *t))
                return molt_error_set(err, MOLT_E_USAGE, "%s is not a service", name);
    }
    *ret_unit = suffix ? molt_xstrdup(name) : molt_xasprintf("%s.service", name);
    return 0;
}

char *molt__show_get(const char *output, const char *key)
{
    size_t len = strlen(key);

    for (const char *line = output; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (!strncmp(line, key, len) && line[len] == '=')
            return molt_xstrndup(line + len + 1, strcspn(line + len + 1, "\n"));
    return NULL;
}

size_t molt__count_established(const char *text, const uint64_t *ino, size_t n)
{
    size_t count = 0;

    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        unsigned long long i;
        unsigned state;

        if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%*x %*[0-9A-Fa-f]:%*x %x %*x:%*x %*x:%*x %*x %*u %*u %llu",
                   &state, &i) != 2 ||
            state != 1 || i == 0)
            continue;
        for (size_t k = 0; k < n; k++)
            if (ino[k] == i) {
                count++;
                break;
            }
    }
    return count;
}

struct inodes {
    uint64_t *v;
    size_t n, cap;
};

static int add_socket(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    struct inodes *s = ctx;

    (void)err;
    if (!S_ISSOCK(f->st.st_mode))
        return 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i] == f->st.st_ino)
            return 0;
    MOLT_GROW(s->v, s->n, s->cap);
    s->v[s->n++] = f->st.st_ino;
    return 0;
}

static void count_connections(struct molt_workload *w)
{
    struct inodes s = {NULL, 0, 0};

    for (size_t i = 0; i < w->procs; i++)
        (void)molt__each_fd(w->proc[i].pid, false, add_socket, &s, NULL);
    for (int six = 0; six < 2; six++) {
        CLEANUP_FREE char *text = NULL;

        if (molt__proc_text(w->main_pid, six ? "net/tcp6" : "net/tcp", &text, NULL) == 0)
            w->tcp_connections += molt__count_established(text, s.v, s.n);
    }
    free(s.v);
}

/* RSS without what is shared of files would be less; this is what CRIU walks over. */
static uint64_t rss_of(pid_t pid)
{
    CLEANUP_FREE char *text = NULL;
    unsigned long long pages;

    if (molt__proc_text(pid, "statm", &text, NULL) < 0 || sscanf(text, "%*u %llu", &pages) != 1)
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void add_proc(struct molt_workload *w, pid_t pid, pid_t ppid, const char *stat_text)
{
    const char *open = strchr(stat_text, '('), *close = strrchr(stat_text, ')');
    CLEANUP_FREE int *tid = NULL;
    struct molt_proc p = {.pid = pid, .ppid = ppid, .first_tid = w->tids};
    size_t n;
    char path[64];

    p.comm = open && close > open ? molt_xstrndup(open + 1, (size_t)(close - open - 1)) : molt_xstrdup("?");
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    if (molt__numbers(path, &tid, &n, NULL) == 0)
        for (size_t i = 0; i < n; i++) {
            MOLT_GROW(w->tid, w->tids, w->tids_cap);
            w->tid[w->tids++] = tid[i];
        }
    p.tids = w->tids - p.first_tid;
    w->rss_bytes += rss_of(pid);
    MOLT_GROW(w->proc, w->procs, w->procs_cap);
    w->proc[w->procs++] = p;
}

struct candidate {
    pid_t pid, ppid;
    char *stat_text;
    bool in_cgroup, taken;
};

static void take(struct molt_workload *w, struct candidate *c, size_t n, size_t i)
{
    c[i].taken = true;
    add_proc(w, c[i].pid, c[i].ppid, c[i].stat_text);
    for (size_t k = 0; k < n; k++)
        if (!c[k].taken && c[k].ppid == c[i].pid && w->procs < MOLT_TASKS_MAX)
            take(w, c, n, k);
}

static void forget_tree(struct molt_workload *w)
{
    for (size_t i = 0; i < w->procs; i++)
        free(w->proc[i].comm);
    w->procs = w->tids = 0;
    w->rss_bytes = 0;
}

/* pid: of all processes that may be of the tree. */
static int collect_tree(struct molt_workload *w, const int *pid, size_t n, struct molt_error **err)
{
    CLEANUP_FREE struct candidate *c = NULL;
    size_t got = 0;

    c = molt_xcalloc(n ? n : 1, sizeof(*c));
    for (size_t i = 0; i < n; i++) {
        CLEANUP_FREE char *text = NULL, *cg_text = NULL, *cg = NULL;
        struct molt__stat s;

        if (molt__proc_text(pid[i], "stat", &text, NULL) < 0 || !molt__stat_parse(text, &s) ||
            molt__proc_text(pid[i], "cgroup", &cg_text, NULL) < 0)
            continue;
        cg = molt__cgroup_parse(cg_text);
        c[got++] = (struct candidate){pid[i], s.ppid, MOLT_STEAL_PTR(text),
                                      cg && molt__cgroup_within(cg, w->cgroup), false};
    }
    for (size_t i = 0; i < got; i++)
        if (c[i].pid == w->main_pid)
            take(w, c, got, i);
    w->tree_covers_cgroup = true;
    for (size_t i = 0; i < got; i++)
        if (c[i].in_cgroup && !c[i].taken) {
            w->tree_covers_cgroup = false;
            add_proc(w, c[i].pid, c[i].ppid, c[i].stat_text);
        }
    for (size_t i = 0; i < got; i++)
        free(c[i].stat_text);
    if (w->procs == 0 || w->proc[0].pid != w->main_pid)
        return molt_error_set(err, MOLT_E_NO_WORKLOAD, "the main process %d of %s is gone", (int)w->main_pid,
                              w->unit);
    return 0;
}

static void read_uptime(struct molt_workload *w)
{
    CLEANUP_FREE char *text = NULL, *up = NULL;
    struct molt__stat s;
    double now;

    if (molt__proc_text(w->main_pid, "stat", &text, NULL) == 0 && molt__stat_parse(text, &s) &&
        molt_read_file("/proc/uptime", 4096, &up, NULL, NULL) == 0 && sscanf(up, "%lf", &now) == 1)
        w->uptime_s = (int64_t)(now - (double)s.start_ticks / (double)sysconf(_SC_CLK_TCK));
}

static int from_systemd(struct molt_workload *w, struct molt_error **err)
{
    CLEANUP_FREE char *out = NULL, *load = NULL, *active = NULL, *sub = NULL, *pid = NULL;
    int r = molt__systemctl_show(
        w->unit, "LoadState,ActiveState,SubState,MainPID,ControlGroup,Type,FragmentPath", &out, err);

    if (r < 0)
        return r;
    load = molt__show_get(out, "LoadState");
    active = molt__show_get(out, "ActiveState");
    sub = molt__show_get(out, "SubState");
    pid = molt__show_get(out, "MainPID");
    w->type = molt__show_get(out, "Type");
    w->cgroup = molt__show_get(out, "ControlGroup");
    w->fragment = molt__show_get(out, "FragmentPath");
    if (!load || strcmp(load, "loaded"))
        return molt_error_set(err, MOLT_E_NO_WORKLOAD, "there is no unit %s (%s)", w->unit,
                              load ? load : "no answer");
    if (!active || strcmp(active, "active"))
        return molt_error_set(err, MOLT_E_NO_WORKLOAD, "%s is not running (%s, %s)", w->unit,
                              active ? active : "?", sub ? sub : "?");
    w->main_pid = pid ? (pid_t)atoi(pid) : 0;
    if (w->main_pid <= 1)
        return molt_error_set(err, MOLT_E_NO_WORKLOAD, "%s has no main process (%s)", w->unit,
                              sub ? sub : "?");
    if (!w->cgroup || strlen(w->cgroup) < 2)
        return molt_error_set(err, MOLT_E_NO_WORKLOAD, "%s has no control group", w->unit);
    return 0;
}

static void read_cwd(struct molt_workload *w)
{
    char link[64], cwd[PATH_MAX];
    ssize_t len;

    snprintf(link, sizeof(link), "/proc/%d/cwd", (int)w->main_pid);
    len = readlink(link, cwd, sizeof(cwd) - 1);
    if (len > 0)
        w->cwd = molt_xstrndup(cwd, (size_t)len);
}

static int collect_all(struct molt_workload *w, struct molt_error **err)
{
    CLEANUP_FREE int *pid = NULL;
    size_t n;
    int r = molt__numbers("/proc", &pid, &n, err);

    return r < 0 ? r : collect_tree(w, pid, n, err);
}

int molt_workload_scan(const char *unit, struct molt_workload **ret_w, struct molt_error **err)
{
    CLEANUP_WORKLOAD struct molt_workload *w = molt_xcalloc(1, sizeof(*w));
    int r = molt_unit_name(unit, &w->unit, err);

    if (r == 0)
        r = from_systemd(w, err);
    if (r == 0)
        r = collect_all(w, err);
    if (r < 0)
        return r;
    count_connections(w);
    read_uptime(w);
    read_cwd(w);
    *ret_w = MOLT_STEAL_PTR(w);
    return 0;
}

/* Not a look at every process of the guest: it is done in the freeze. What is new is in the control group. */
int molt_workload_refresh(struct molt_workload *w, struct molt_error **err)
{
    CLEANUP_FREE pid_t *group = NULL;
    CLEANUP_FREE int *pid = NULL;
    size_t n = 0;
    int r = molt__cgroup_pids(w->cgroup, &group, &n, err);

    if (r < 0)
        return r;
    pid = molt_xcalloc(n + w->procs + 1, sizeof(*pid));
    for (size_t i = 0; i < n; i++)
        pid[i] = group[i];
    for (size_t i = 0; i < w->procs; i++) {
        size_t k = 0;

        while (k < n && pid[k] != w->proc[i].pid)
            k++;
        pid[k] = w->proc[i].pid;
        n += k == n;
    }
    forget_tree(w);
    return collect_tree(w, pid, n, err);
}

void molt_workload_free(struct molt_workload *w)
{
    if (!w)
        return;
    forget_tree(w);
    free(w->unit);
    free(w->type);
    free(w->cgroup);
    free(w->fragment);
    free(w->cwd);
    free(w->proc);
    free(w->tid);
    free(w);
}

struct molt_json *molt_workload_json(const struct molt_workload *w)
{
    struct molt_json *v = molt_json_object(), *pids = molt_json_array(), *tids = molt_json_array();

    for (size_t i = 0; i < w->procs; i++)
        molt_json_append(pids, molt_json_int(w->proc[i].pid));
    for (size_t i = 0; i < w->tids; i++)
        molt_json_append(tids, molt_json_int(w->tid[i]));
    molt_json_set_string(v, "unit", w->unit);
    molt_json_set_string(v, "type", w->type);
    molt_json_set_string(v, "cgroup", w->cgroup);
    molt_json_set_int(v, "main_pid", w->main_pid);
    molt_json_set(v, "pids", pids);
    molt_json_set(v, "tids", tids);
    molt_json_set_int(v, "rss_bytes", (int64_t)w->rss_bytes);
    molt_json_set_int(v, "connections", (int64_t)w->tcp_connections);
    molt_json_set_int(v, "uptime_s", w->uptime_s);
    if (w->cwd) {
        CLEANUP_FREE char *coded = molt__path_encode(w->cwd);

        molt_json_set_string(v, "cwd", coded);
    }
    return v;
}

int molt_pids_taken(const pid_t *id, size_t n, pid_t **ret_taken, size_t *ret_n, struct molt_error **err)
{
    CLEANUP_FREE pid_t *v = NULL;
    size_t got = 0;

    (void)err;
    v = molt_xcalloc(n ? n : 1, sizeof(*v));
    for (size_t i = 0; i < n; i++) {
        char path[32];

        /* /proc/TID resolves for threads, too, although it is not listed. */
        snprintf(path, sizeof(path), "/proc/%d", (int)id[i]);
        if (access(path, F_OK) == 0)
            v[got++] = id[i];
    }
    *ret_taken = MOLT_STEAL_PTR(v);
    *ret_n = got;
    return 0;
}
