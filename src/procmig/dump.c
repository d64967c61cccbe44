/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/dump.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/carry.h"
#include "procmig/gate.h"
#include "procmig/procfs.h"

#define FREEZE_MS       5000
#define TRACER_WAIT_MS  30000
#define DUMP_TIMEOUT_MS 120000
#define ARM_TIMEOUT_MS  30000
#define META_SCHEMA     1
#define JOURNAL_STDOUT  "/run/systemd/journal/stdout"
#define GHOST_LIMIT     "268435456"

/* ---- freeze ---- */

static bool thread_runs(pid_t pid, int tid)
{
    CLEANUP_FREE char *text = NULL;
    struct molt__stat s;
    char name[48];

    snprintf(name, sizeof(name), "task/%d/stat", tid);
    if (molt__proc_text(pid, name, &text, NULL) < 0 || !molt__stat_parse(text, &s))
        return false;
    return !strchr("TtZXx", s.state);
}

static bool process_runs(pid_t pid)
{
    CLEANUP_FREE int *tid = NULL;
    char path[48];
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    if (molt__numbers(path, &tid, &n, NULL) < 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (thread_runs(pid, tid[i]))
            return true;
    return false;
}

/* One look at the cgroup: stops what runs; *ret_running tells whether anything did. */
static int stop_round(const char *cgroup, bool *ret_running, struct molt_error **err)
{
    CLEANUP_FREE pid_t *pid = NULL;
    size_t n;
    int r = molt__cgroup_pids(cgroup, &pid, &n, err);

    if (r < 0)
        return r;
    *ret_running = false;
    for (size_t i = 0; i < n; i++)
        if (process_runs(pid[i])) {
            *ret_running = true;
            if (kill(pid[i], SIGSTOP) < 0 && errno != ESRCH)
                return molt_error_errno(err, "stop process %d", (int)pid[i]);
        }
    return 0;
}

static int cont_all(const char *cgroup, struct molt_error **err)
{
    CLEANUP_FREE pid_t *pid = NULL;
    size_t n;
    int r = molt__cgroup_pids(cgroup, &pid, &n, err);

    /* Children first: the main process then finds them running. */
    for (size_t i = n; r == 0 && i-- > 0;)
        if (kill(pid[i], SIGCONT) < 0 && errno != ESRCH)
            r = molt_error_errno(err, "continue process %d", (int)pid[i]);
    return r;
}

int molt_freeze(const struct molt_workload *w, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + FREEZE_MS;
    bool running = true;

    while (running) {
        int r = stop_round(w->cgroup, &running, err);

        if (r == 0 && running && molt_mono_ms() > end)
            r = molt_error_set(err, MOLT_E_TIMEOUT, "%s did not stop within %d ms", w->unit, FREEZE_MS);
        if (r < 0) {
            (void)cont_all(w->cgroup, NULL);
            return r;
        }
        if (running)
            molt_sleep_ms(2);
    }
    return 0;
}

/* ---- TCP repair ---- */

static int repair_fd(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    const struct {
        pid_t pid;
        bool on;
    } *want = ctx;
    CLEANUP_CLOSE int fd = -1;
    int domain = 0, type = 0, now = 0, value = want->on, one = 1;
    socklen_t n = sizeof(int);

    (void)err;
    if (!S_ISSOCK(f->st.st_mode) || (fd = molt__steal_fd(want->pid, f->fd)) < 0)
        return 0;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) < 0 || (domain != AF_INET && domain != AF_INET6) ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_STREAM ||
        getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &now, &n) < 0 || now == value)
        return 0;
    /* Fails for listening sockets, which never enter repair mode. */
    if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &value, sizeof(value)) == 0 && !want->on)
        /* Leaving repair mode drops SO_REUSEADDR in the kernel; without it a restart meets "address in use".
         */
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    return 0;
}

void molt__tcp_repair(pid_t pid, bool on)
{
    struct {
        pid_t pid;
        bool on;
    } want = {pid, on};

    (void)molt__each_fd(pid, false, repair_fd, &want, NULL);
}

/* ---- images ---- */

static bool on_tmpfs(const char *dir)
{
    struct statfs fs;

    return statfs(dir, &fs) == 0 && (unsigned long)fs.f_type == TMPFS_MAGIC;
}

static bool is_mount_point(const char *dir)
{
    CLEANUP_FREE char *up = molt_xasprintf("%s/..", dir);
    struct stat a, b;

    return stat(dir, &a) == 0 && stat(up, &b) == 0 && a.st_dev != b.st_dev;
}

int molt_images_mount(const char *dir, struct molt_error **err)
{
    int r = molt_mkdir_p(dir, 0700, err);

    if (r < 0 || (on_tmpfs(dir) && is_mount_point(dir)))
        return r;
    if (mount("xenmolt", dir, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700,size=90%") < 0)
        return molt_error_errno(err, "mount a tmpfs at %s", dir);
    return 0;
}

int molt_images_umount(const char *dir, struct molt_error **err)
{
    if (!molt_exists(dir))
        return 0;
    if (is_mount_point(dir) && umount2(dir, MNT_DETACH) < 0)
        return molt_error_errno(err, "unmount %s", dir);
    return molt_remove_tree(dir, err);
}

static uint64_t dir_bytes(const char *dir)
{
    CLEANUP_CLOSEDIR DIR *d = opendir(dir);
    struct dirent *e;
    struct stat st;
    uint64_t sum = 0;

    while (d && (e = readdir(d)))
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            sum += (uint64_t)st.st_size;
    return sum;
}

/* ---- dump ---- */

struct sockets {
    struct molt__unix_table table;
    struct molt_json *list;
    uint64_t out_ino; /* what the main process has as its standard output */
    pid_t main_pid, pid;
};

static int socket_fd(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    struct sockets *s = ctx;
    const struct molt__unix_sk *sk, *peer;
    struct molt_json *o;

    (void)err;
    if (!S_ISSOCK(f->st.st_mode))
        return 0;
    if (s->pid == s->main_pid && f->fd == 1)
        s->out_ino = f->st.st_ino;
    sk = molt__unix_find(&s->table, (uint32_t)f->st.st_ino);
    peer = sk ? molt__unix_find(&s->table, sk->peer) : NULL;
    if (!peer || sk->type != SOCK_STREAM || strcmp(peer->name, JOURNAL_STDOUT))
        return 0;
    for (size_t i = 0; i < molt_json_size(s->list); i++)
        if (molt_json_get_int(molt_json_at(s->list, i), "ino", 0) == (int64_t)f->st.st_ino)
            return 0;
    o = molt_json_object();
    molt_json_set_int(o, "ino", (int64_t)f->st.st_ino);
    molt_json_set_bool(o, "stderr", f->fd == 2 && f->st.st_ino != s->out_ino);
    molt_json_append(s->list, o);
    return 0;
}

/* The tree's streams to the journal: [{ino, stderr}]. */
static int journal_sockets(const struct molt_workload *w, struct molt_json **ret_list,
                           struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array();
    struct sockets s = {.list = list, .main_pid = w->main_pid};
    int r = molt__unix_table_read(&s.table, err);

    for (size_t i = 0; i < w->procs && r == 0; i++) {
        s.pid = w->proc[i].pid;
        r = molt__each_fd(s.pid, false, socket_fd, &s, err);
    }
    molt__unix_table_free(&s.table);
    if (r == 0)
        *ret_list = MOLT_STEAL_PTR(list);
    return r;
}

static int write_meta(const struct molt_workload *w, const char *dir, const struct molt_json *sockets,
                      struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = molt_json_object();
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, MOLT_DUMP_META), *text = NULL;
    struct molt_json *carry = NULL, *ids = molt_json_array();
    int r = molt__carry_collect(w, dir, &carry, err);

    for (size_t i = 0; i < w->tids; i++)
        molt_json_append(ids, molt_json_int(w->tid[i]));
    molt_json_set_int(v, "schema", META_SCHEMA);
    molt_json_set_int(v, "main_pid", w->main_pid);
    molt_json_set(v, "ids", ids);
    if (r < 0)
        return r;
    molt_json_set(v, "carry", carry);
    molt_json_set(v, "sockets", molt_json_copy(sockets));
    text = molt_json_print(v, false);
    return molt_write_file(path, text, strlen(text), 0600, err);
}

/* gate: NULL: it begins at once. */
static int start_dump(const struct molt_workload *w, const struct molt_dump_opts *opts, const struct molt_json *sockets,
                      const struct molt_gate *gate, pid_t *ret_pid, struct molt_error **err)
{
    CLEANUP_FREE char *pid = molt_xasprintf("%d", (int)w->main_pid), *before = molt_xasprintf("pre%u", opts->rounds);
    char *tracked[] = {"--track-mem", "--prev-images-dir", before};
    char *gated[] = {"--action-script", gate ? gate->script : NULL};
    char *fixed[] = {NULL,
                     "dump",
                     "-t",
                     pid,
                     "-D",
                     (char *)opts->dir,
                     "-o",
                     "dump.log",
                     "-v2",
                     "--leave-stopped",
                     "--tcp-established",
                     "--skip-in-flight",
                     "--file-locks",
                     "--network-lock",
                     "skip",
                     "--manage-cgroups=ignore",
                     "--ghost-limit",
                     GHOST_LIMIT,
                     "--ext-unix-sk",
                     "--timeout",
                     "60"};
    const size_t n_fixed = sizeof(fixed) / sizeof(fixed[0]), n_tracked = opts->rounds ? sizeof(tracked) / sizeof(tracked[0]) : 0;
    const size_t n_gated = gate ? sizeof(gated) / sizeof(gated[0]) : 0, more = molt_json_size(sockets);
    CLEANUP_FREE char **argv = molt_xcalloc(n_fixed + 2 * more + n_tracked + n_gated + 1, sizeof(*argv));
    size_t n = n_fixed;
    int r;

    memcpy(argv, fixed, sizeof(fixed));
    for (size_t i = 0; i < more; i++) {
        argv[n++] = "--external";
        argv[n++] = molt_xasprintf("unix[%" PRId64 "]", molt_json_get_int(molt_json_at(sockets, i), "ino", 0));
    }
    for (size_t i = 0; i < n_tracked; i++)
        argv[n++] = tracked[i];
    for (size_t i = 0; i < n_gated; i++)
        argv[n++] = gated[i];
    r = molt__criu_start(opts->toolbox, argv, w->main_pid, ret_pid, err);
    for (size_t i = 0; i < more; i++)
        free(argv[n_fixed + 2 * i + 1]);
    return r;
}

static int wait_dump(pid_t pid, const struct molt_dump_opts *opts, struct molt_error **err)
{
    CLEANUP_FREE char *log = molt_xasprintf("%s/dump.log", opts->dir);

    return molt__criu_wait(pid, "dump", opts->timeout_ms ? opts->timeout_ms : DUMP_TIMEOUT_MS, log, err);
}

/* ---- a criu that waits ---- */

struct molt_dump_armed {
    struct molt_gate gate;
    pid_t pid;   /* 0: none, or waited for */
    pid_t main_pid;
    unsigned rounds;
    char *sockets; /* those it was told of */
};

int molt_dump_arm(const struct molt_workload *w, const struct molt_dump_opts *opts, const char *gate_dir, const char *program,
                  struct molt_dump_armed **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *sockets = NULL;
    struct molt_dump_armed *a = molt_xcalloc(1, sizeof(*a));
    int r = molt_gate_make(gate_dir, program, &a->gate, err);

    a->main_pid = w->main_pid;
    a->rounds = opts->rounds;
    if (r == 0)
        r = molt_mkdir_p(opts->dir, 0700, err);
    if (r == 0)
        r = journal_sockets(w, &sockets, err);
    if (r == 0)
        r = start_dump(w, opts, sockets, &a->gate, &a->pid, err);
    if (r == 0)
        r = molt_gate_wait(&a->gate, a->pid, ARM_TIMEOUT_MS, err);
    if (r < 0) {
        molt_dump_disarm(a);
        return r;
    }
    a->sockets = molt_json_print(sockets, false);
    *ret = a;
    return 0;
}

void molt_dump_disarm(struct molt_dump_armed *a)
{
    if (!a)
        return;
    if (a->pid > 0)
        kill(a->pid, SIGKILL); /* it has not begun */
    molt_gate_close(&a->gate);
    while (a->pid > 0 && waitpid(a->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    free(a->sockets);
    free(a);
}

static bool has_ended(pid_t pid)
{
    siginfo_t i = {0};

    /* It stays to be waited for. */
    return waitid(P_PID, (id_t)pid, &i, WEXITED | WNOHANG | WNOWAIT) < 0 || i.si_pid == pid;
}

/* False: it was told of something else than what is to be dumped, or has ended. */
static bool still_fits(const struct molt_dump_armed *a, const struct molt_workload *w, const struct molt_dump_opts *opts,
                       const struct molt_json *sockets)
{
    CLEANUP_FREE char *now = molt_json_print(sockets, false);

    return !has_ended(a->pid) && a->main_pid == w->main_pid && a->rounds == opts->rounds && !strcmp(a->sockets, now);
}

/* armed: NULL: none waits. */
static int run_dump(const struct molt_workload *w, const struct molt_dump_opts *opts, const struct molt_json *sockets,
                    struct molt_dump_armed *armed, struct molt_error **err)
{
    pid_t pid;
    int r = armed ? molt_gate_open(&armed->gate, err) : start_dump(w, opts, sockets, NULL, &pid, err);

    if (r < 0)
        return r;
    if (armed) {
        pid = armed->pid;
        armed->pid = 0; /* waited for here */
    }
    return wait_dump(pid, opts, err);
}

int molt_dump(const struct molt_workload *w, const struct molt_dump_opts *opts, struct molt_dump_armed *armed,
              struct molt_dump_stats *ret_stats, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *sockets = NULL;
    struct molt_dump_stats s = {0};
    int64_t begun = molt_mono_us();
    int r = molt_mkdir_p(opts->dir, 0700, err);

    if (r == 0 && !on_tmpfs(opts->dir))
        molt_warn(opts->log, "%s is not on a tmpfs; the dump will be slower", opts->dir);
    if (r == 0)
        r = journal_sockets(w, &sockets, err);
    if (r == 0 && armed && !still_fits(armed, w, opts, sockets)) {
        molt_dump_disarm(armed); /* first: both would write the same log */
        armed = NULL;
    }
    s.armed = armed != NULL;
    if (r == 0)
        r = run_dump(w, opts, sockets, armed, err);
    s.wall_us = (uint64_t)(molt_mono_us() - begun);
    molt_dump_disarm(armed);
    if (r == 0)
        r = write_meta(w, opts->dir, sockets, err);
    if (r == 0)
        r = molt__stats_read(opts->dir, "dump", &s, err);
    if (r < 0)
        return r;
    s.image_bytes = dir_bytes(opts->dir);
    if (ret_stats)
        *ret_stats = s;
    return 0;
}

/* ---- resume ---- */

/* Waits for a criu that still works on the process; at the end of its time it is killed. */
static int settle_tracer(pid_t pid, int64_t end, struct molt_error **err)
{
    bool killed = false;

    for (;;) {
        CLEANUP_FREE char *text = NULL, *comm = NULL;
        pid_t tracer;

        if (molt__proc_text(pid, "status", &text, NULL) < 0)
            return 0;
        tracer = (pid_t)molt__status_num(text, "TracerPid", 0);
        if (tracer <= 0)
            return 0;
        if (molt__proc_text(tracer, "comm", &comm, NULL) == 0 && strncmp(comm, "criu", 4))
            return 0; /* somebody else's debugger */
        if (molt_mono_ms() > end && !killed) {
            kill(tracer, SIGKILL);
            killed = true;
        } else if (molt_mono_ms() > end + FREEZE_MS) {
            return molt_error_set(err, MOLT_E_TIMEOUT, "process %d stays traced by %d", (int)pid,
                                  (int)tracer);
        }
        molt_sleep_ms(10);
    }
}

int molt_dump_resume(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE char *out = NULL, *cgroup = NULL, *name = NULL;
    CLEANUP_FREE pid_t *pid = NULL;
    int64_t end = molt_mono_ms() + TRACER_WAIT_MS;
    size_t n = 0;
    int r = molt_unit_name(unit, &name, err);

    if (r == 0)
        r = molt__systemctl_show(name, "ControlGroup", &out, err);
    if (r < 0)
        return r;
    cgroup = molt__show_get(out, "ControlGroup");
    if (!cgroup || strlen(cgroup) < 2)
        return molt_error_set(err, MOLT_E_NO_WORKLOAD, "%s is not running", name);
    r = molt__cgroup_pids(cgroup, &pid, &n, err);
    for (size_t i = 0; i < n && r == 0; i++)
        r = settle_tracer(pid[i], end, err);
    for (size_t i = 0; i < n && r == 0; i++)
        molt__tcp_repair(pid[i], false);
    return r < 0 ? r : cont_all(cgroup, err);
}
