/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/carry.h"
#include "procmig/check_internal.h"
#include "procmig/dump.h"
#include "procmig/overlay.h"
#include "procmig/procfs.h"

#define JOURNAL_STDOUT "/run/systemd/journal/stdout"

/* Unit settings that give the service a mount namespace or private system objects of its own. */
static const char NS_PROPS[] =
    "PrivateTmp,PrivateDevices,PrivateNetwork,PrivateUsers,PrivateMounts,PrivateIPC,ProtectSystem,"
    "ProtectHome,"
    "ProtectKernelTunables,ProtectKernelModules,ProtectKernelLogs,ProtectControlGroups,ProtectHostname,"
    "ProtectClock,"
    "ProtectProc,ProcSubset,RootDirectory,RootImage,ReadWritePaths,ReadOnlyPaths,InaccessiblePaths,"
    "NoExecPaths,"
    "TemporaryFileSystem,BindPaths,BindReadOnlyPaths,MountAPIVFS,DynamicUser,TriggeredBy";

void molt_reasons_add(struct molt_reasons *r, const char *what, const char *remedy, const char *fmt, ...)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    va_list ap;

    va_start(ap, fmt);
    molt_strbuf_vaddf(&b, fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < r->n; i++)
        if (!strcmp(r->v[i].what, what) && !strcmp(r->v[i].detail, molt_strbuf_str(&b)))
            return;
    MOLT_GROW(r->v, r->n, r->cap);
    r->v[r->n++] = (struct molt_reason){molt_xstrdup(what), molt_strbuf_steal(&b), molt_xstrdup(remedy)};
}

void molt_reasons_free(struct molt_reasons *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->v[i].what);
        free(r->v[i].detail);
        free(r->v[i].remedy);
    }
    free(r->v);
    *r = (struct molt_reasons)MOLT_REASONS_INIT;
}

struct molt_json *molt_reasons_json(const struct molt_reasons *r)
{
    struct molt_json *list = molt_json_array();

    for (size_t i = 0; i < r->n; i++) {
        struct molt_json *o = molt_json_object();

        molt_json_set_string(o, "what", r->v[i].what);
        molt_json_set_string(o, "detail", r->v[i].detail);
        molt_json_set_string(o, "remedy", r->v[i].remedy);
        molt_json_append(list, o);
    }
    return list;
}

int molt_reasons_parse(const struct molt_json *v, struct molt_reasons *r, struct molt_error **err)
{
    if (molt_json_type(v) != MOLT_JSON_ARRAY || molt_json_size(v) > 100000)
        return molt_error_set(err, MOLT_E_PROTOCOL, "not a list of reasons");
    for (size_t i = 0; i < molt_json_size(v); i++) {
        const struct molt_json *o = molt_json_at(v, i);
        const char *what = molt_json_get_string(o, "what"), *detail = molt_json_get_string(o, "detail");
        const char *remedy = molt_json_get_string(o, "remedy");

        if (!what || !detail || !remedy)
            return molt_error_set(err, MOLT_E_PROTOCOL, "malformed reason %zu", i);
        molt_reasons_add(r, what, remedy, "%s", detail);
    }
    return 0;
}

struct look {
    const struct molt_workload *w;
    const struct molt_proc *p;
    struct molt_reasons *r;
    struct molt__unix_table sk;
    struct molt__inodes own; /* of the sockets that all trees hold; those of this one are the last */
    size_t own_first;
    dev_t root_dev;
};

static bool is_own(const struct look *l, uint64_t ino)
{
    for (size_t i = l->own_first; i < l->own.n; i++)
        if (l->own.v[i] == ino)
            return true;
    return false;
}

static void check_unix(struct look *l, const struct molt__fd *f)
{
    const struct molt__unix_sk *s = molt__unix_find(&l->sk, (uint32_t)f->st.st_ino);
    const struct molt__unix_sk *peer = s ? molt__unix_find(&l->sk, s->peer) : NULL;

    if (!s || !s->peer || is_own(l, s->peer))
        return;
    if (s->type == SOCK_STREAM && peer && !strcmp(peer->name, JOURNAL_STDOUT))
        return;
    if (s->type == SOCK_DGRAM && peer && peer->name[0] == '/')
        return;
    molt_reasons_add(l->r, "connection to another local process", "stop using it, or move both programs",
                     "pid %d (%s) is connected by unix socket fd %d to %s", (int)l->p->pid, l->p->comm, f->fd,
                     peer && peer->name[0] ? peer->name : "a process outside of the service");
}

static void check_socket(struct look *l, const struct molt__fd *f)
{
    CLEANUP_CLOSE int fd = molt__steal_fd(l->p->pid, f->fd);
    int domain = 0, type = 0, proto = 0;
    socklen_t n = sizeof(int);

    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0)
        return;
    n = sizeof(int);
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n);
    n = sizeof(int);
    getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &proto, &n);
    if (domain == AF_UNIX) {
        check_unix(l, f);
        return;
    }
    if ((domain == AF_INET || domain == AF_INET6) &&
        ((type == SOCK_STREAM && proto == IPPROTO_TCP) ||
         (type == SOCK_DGRAM && (proto == IPPROTO_UDP || proto == IPPROTO_UDPLITE))))
        return;
    if (domain == AF_NETLINK && proto == 0 /* NETLINK_ROUTE */)
        return;
    molt_reasons_add(l->r, "socket of a kind that cannot move", "stop using it before the move",
                     "pid %d (%s) has a socket of family %d, type %d, protocol %d open as fd %d",
                     (int)l->p->pid, l->p->comm, domain, type, proto, f->fd);
}

static void check_device(struct look *l, const struct molt__fd *f)
{
    unsigned minor_ok[] = {3, 5, 7, 8, 9}; /* null zero full random urandom */

    for (size_t i = 0; S_ISCHR(f->st.st_mode) && i < sizeof(minor_ok) / sizeof(minor_ok[0]); i++)
        if (major(f->st.st_rdev) == 1 && minor(f->st.st_rdev) == minor_ok[i])
            return;
    molt_reasons_add(l->r, "device open", "close it before the move", "pid %d (%s) has %s open as fd %d",
                     (int)l->p->pid, l->p->comm, f->target, f->fd);
}

static void check_anon(struct look *l, const struct molt__fd *f)
{
    static const char *const ok[] = {"[eventpoll]", "[eventfd]", "[signalfd]", "[timerfd]",
                                     "inotify",     "[inotify]", NULL};
    const char *kind = f->target + strlen("anon_inode:");

    for (size_t i = 0; ok[i]; i++)
        if (!strcmp(kind, ok[i]))
            return;
    molt_reasons_add(l->r, "kernel object that cannot move", "stop using it before the move",
                     "pid %d (%s) has %s open as fd %d", (int)l->p->pid, l->p->comm, kind, f->fd);
}

static void check_regular(struct look *l, const struct molt__fd *f)
{
    if (!strncmp(f->target, "/memfd:", 7) || f->st.st_dev == l->root_dev)
        return;
    /* On another disk or partition: the host merges its file system or hands it over, or it refuses. */
    if (major(f->st.st_dev) != 0)
        return;
    if (molt__carry_wanted(f->target) && (S_ISDIR(f->st.st_mode) || f->st.st_size <= MOLT__CARRY_FILE_MAX))
        return;
    if (!strncmp(f->target, "/proc/", 6) || !strncmp(f->target, "/sys/", 5)) {
        /* By path; fine as long as it exists there, which the rehearsal shows. */
        return;
    }
    molt_reasons_add(l->r, "file on another file system", "move it to a file system on a disk",
                     "pid %d (%s) has %s open as fd %d, which is not on a file system of a disk", (int)l->p->pid,
                     l->p->comm, f->target, f->fd);
}

static int check_fd(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    struct look *l = ctx;

    (void)err;
    if (S_ISSOCK(f->st.st_mode))
        check_socket(l, f);
    else if (S_ISCHR(f->st.st_mode) || S_ISBLK(f->st.st_mode))
        check_device(l, f);
    else if (!strncmp(f->target, "anon_inode:", 11))
        check_anon(l, f);
    else if (S_ISREG(f->st.st_mode) || S_ISDIR(f->st.st_mode))
        check_regular(l, f);
    else if (!strncmp(f->target, "pidfd:", 6))
        molt_reasons_add(l->r, "kernel object that cannot move", "stop using it before the move",
                         "pid %d (%s) has a pidfd open as fd %d", (int)l->p->pid, l->p->comm, f->fd);
    return 0;
}

/* The namespace of that kind of a process; "" when it cannot be told. */
static void namespace_of(pid_t pid, const char *kind, char *ret, size_t size)
{
    char path[64];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, kind);
    n = readlink(path, ret, size - 1);
    ret[n > 0 ? n : 0] = '\0';
}

/* CRIU takes an IPC namespace along as a whole, with its shared memory, semaphores and queues, when it is the main process's; those of the
 * guest's own it cannot tell from other programs'. */
static bool has_ipc_namespace(const struct look *l)
{
    char init[64], main_ns[64], own[64];

    namespace_of(1, "ipc", init, sizeof(init));
    namespace_of(l->w->main_pid, "ipc", main_ns, sizeof(main_ns));
    namespace_of(l->p->pid, "ipc", own, sizeof(own));
    return *own && strcmp(own, init) && !strcmp(own, main_ns);
}

static void check_maps(struct look *l)
{
    CLEANUP_FREE char *text = NULL;
    char *save = NULL;

    if (molt__proc_text(l->p->pid, "maps", &text, NULL) < 0)
        return;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *path = strchr(line, '/');

        if (!path)
            continue;
        if (!strncmp(path, "/SYSV", 5) && !has_ipc_namespace(l))
            molt_reasons_add(l->r, "System V shared memory", "start the service in an IPC namespace of its own (ExecStart=/usr/bin/unshare --ipc ...), or stop using it",
                             "pid %d (%s) has a segment attached", (int)l->p->pid, l->p->comm);
        else if (!strncmp(path, "/SYSV", 5))
            continue;
        else if (!strncmp(path, "/anon_hugepage", 14) || !strncmp(path, "/dev/hugepages", 14))
            molt_reasons_add(l->r, "huge pages of hugetlbfs", "start it without explicit huge pages",
                             "pid %d (%s) maps %s", (int)l->p->pid, l->p->comm, path);
        else if (!strncmp(path, "/dev/", 5) && strncmp(path, "/dev/zero", 9) && strncmp(path, "/dev/shm/", 9))
            molt_reasons_add(l->r, "device mapped", "stop using it before the move", "pid %d (%s) maps %s",
                             (int)l->p->pid, l->p->comm, path);
    }
}

static void name_directives(struct molt_strbuf *b, const char *props)
{
    for (const char *line = props; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        size_t len = strcspn(line, "\n"), key = strcspn(line, "=");
        const char *v = line + key + 1;

        if (key + 1 >= len || !strncmp(line, "TriggeredBy=", 12) || !strncmp(v, "no\n", 3) ||
            !strcmp(v, "no") || !strncmp(v, "default", 7) || !strncmp(v, "all", 3))
            continue;
        molt_strbuf_addf(b, "%s%.*s", b->len ? ", " : "", (int)len, line);
    }
}

static void check_namespaces(struct look *l, const char *props)
{
    static const char *const ns[] = {"mnt", "net", "pid", "ipc", "user", "uts", "cgroup"};

    for (size_t i = 0; i < sizeof(ns) / sizeof(ns[0]); i++) {
        CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
        char init[64], own[64];

        namespace_of(1, ns[i], init, sizeof(init));
        namespace_of(l->p->pid, ns[i], own, sizeof(own));
        if (!*init || !*own || !strcmp(init, own) || (!strcmp(ns[i], "ipc") && has_ipc_namespace(l)))
            continue;
        if (i == 0) {
            CLEANUP_OVERLAY struct molt_overlay *o = NULL;

            if (molt_overlay_load(l->w->unit, &o, NULL) == 0)
                continue; /* it came here by an earlier move */
        }
        name_directives(&b, props);
        molt_reasons_add(l->r, "namespace of its own",
                         "remove the directives from the unit and restart the service",
                         "pid %d (%s) has a %s namespace of its own%s%s", (int)l->p->pid, l->p->comm, ns[i],
                         b.len ? "; the unit sets " : "", molt_strbuf_str(&b));
    }
}

static void check_process(struct look *l)
{
    CLEANUP_FREE char *status = NULL, *lsm = NULL;
    int64_t tracer = 0;

    if (molt__proc_text(l->p->pid, "status", &status, NULL) == 0)
        tracer = molt__status_num(status, "TracerPid", 0);
    if (tracer > 0)
        molt_reasons_add(l->r, "being traced", "detach the debugger or tracer",
                         "pid %d (%s) is traced by pid %d", (int)l->p->pid, l->p->comm, (int)tracer);
    if (molt__proc_text(l->p->pid, "attr/apparmor/current", &lsm, NULL) == 0 && lsm[0] &&
        strncmp(lsm, "unconfined", 10))
        molt_reasons_add(l->r, "AppArmor profile", "run the service without its profile during the move",
                         "pid %d (%s) is confined by %.*s", (int)l->p->pid, l->p->comm,
                         (int)strcspn(lsm, "\n"), lsm);
}

static void check_shape(struct look *l, const char *props)
{
    CLEANUP_FREE char *text = NULL, *by = molt__show_get(props, "TriggeredBy");
    struct molt__stat s;

    if (!l->w->tree_covers_cgroup)
        molt_reasons_add(l->r, "process outside of the main process's tree", "restart the service",
                         "the service's control group holds processes that do not descend from pid %d",
                         (int)l->w->main_pid);
    if (molt__proc_text(l->w->main_pid, "stat", &text, NULL) == 0 && molt__stat_parse(text, &s) &&
        s.session != l->w->main_pid)
        molt_reasons_add(l->r, "session of another process", "start the main process as a session leader",
                         "the main process %d belongs to session %d", (int)l->w->main_pid, (int)s.session);
    if (by && strstr(by, ".socket"))
        molt_reasons_add(l->r, "socket activation", "let the service open its sockets itself",
                         "%s gets its sockets from %s", l->w->unit, by);
}

static int check_one(struct look *l, struct molt_error **err)
{
    const struct molt_workload *w = l->w;
    CLEANUP_FREE char *props = NULL;
    int rc = molt__systemctl_show(w->unit, NS_PROPS, &props, err);

    l->own_first = l->own.n;
    for (size_t i = 0; i < w->procs && rc == 0; i++)
        rc = molt__socket_inodes(w->proc[i].pid, &l->own, err);
    for (size_t i = 0; i < w->procs && rc == 0; i++) {
        l->p = &w->proc[i];
        check_process(l);
        check_namespaces(l, props);
        check_maps(l);
        rc = molt__each_fd(w->proc[i].pid, false, check_fd, l, err);
    }
    if (rc == 0)
        check_shape(l, props);
    return rc;
}

int molt_check(struct molt_workload *const *w, size_t n, const char *toolbox, bool with_criu, struct molt_reasons *r,
               struct molt_error **err)
{
    struct look l = {.r = r};
    CLEANUP_ERROR struct molt_error *criu = NULL;
    struct stat st;
    int rc;

    if (stat("/", &st) < 0)
        return molt_error_errno(err, "look at /");
    l.root_dev = st.st_dev;
    rc = molt__unix_table_read(&l.sk, err);
    for (size_t i = 0; i < n && rc == 0; i++) {
        l.w = w[i];
        rc = check_one(&l, err);
    }
    if (rc == 0 && n > 0)
        molt__check_tcp(w[0]->main_pid, l.own.v, l.own.n, r);
    molt__unix_table_free(&l.sk);
    free(l.own.v);
    if (rc == 0 && with_criu && molt_criu_check(toolbox, &criu) < 0)
        molt_reasons_add(r, "CRIU does not work here", "use a kernel with CONFIG_CHECKPOINT_RESTORE", "%s",
                         molt_error_text(criu));
    return rc;
}
