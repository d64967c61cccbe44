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
#include <sys/resource.h>
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
#include "procmig/datagrams.h"
#include "procmig/neighbours.h"
#include "procmig/pb.h"
#include "procmig/procfs.h"
#include "procmig/sockfiles.h"
#include "procmig/tcpclock.h"
#include "procmig/worker.h"

#define FREEZE_MS       5000
#define TRACER_WAIT_MS  30000
#define DUMP_TIMEOUT_MS 120000
#define ARM_TIMEOUT_MS  30000
#define META_SCHEMA     1
#define META_MAX        (16u << 20)
#define SOCKETS_MAX     1024
#define JOURNAL_STDOUT  "/run/systemd/journal/stdout"
#define GHOST_LIMIT     268435456
#define CRIU_LOG_LEVEL  2 /* warnings, too */
#define CRIU_TIMEOUT_S  60
#define DUMP_LOG        "dump.log"

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

static int reuse_fd(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = -1;
    int domain = 0, type = 0, listens = 0, one = 1;
    socklen_t n = sizeof(int);

    (void)err;
    if (!S_ISSOCK(f->st.st_mode) || (fd = molt__steal_fd(*(pid_t *)ctx, f->fd)) < 0)
        return 0;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) == 0 && (domain == AF_INET || domain == AF_INET6) &&
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_STREAM && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) == 0 && !listens)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    return 0;
}

/* Behind a dump after which CRIU itself has ended repair mode: see repair_fd. */
static void keep_reuse(const struct molt_workload *w)
{
    for (size_t i = 0; i < w->procs; i++)
        (void)molt__each_fd(w->proc[i].pid, false, reuse_fd, &(pid_t){w->proc[i].pid}, NULL);
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
    struct molt_json *list, *files; /* streams to the journal; sockfiles.h */
    uint64_t out_ino; /* what the main process has as its standard output */
    pid_t main_pid, pid;
};

static int socket_fd(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    struct sockets *s = ctx;
    const struct molt__unix_sk *sk, *peer;
    struct molt_json *o;
    int r;

    if (!S_ISSOCK(f->st.st_mode))
        return 0;
    if (s->pid == s->main_pid && f->fd == 1)
        s->out_ino = f->st.st_ino;
    sk = molt__unix_find(&s->table, (uint32_t)f->st.st_ino);
    if (!sk)
        return 0;
    if ((r = molt__sockfiles_note(s->files, s->pid, f->fd, sk, err)) < 0)
        return r;
    peer = molt__unix_find(&s->table, sk->peer);
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

/* The tree's streams to the journal, [{ino, stderr}], and the files of its unix sockets. */
static int unix_sockets(const struct molt_workload *w, struct molt_json **ret_list, struct molt_json **ret_files, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *list = molt_json_array(), *files = molt_json_array();
    struct sockets s = {.list = list, .files = files, .main_pid = w->main_pid};
    int r = molt__unix_table_read(&s.table, err);

    for (size_t i = 0; i < w->procs && r == 0; i++) {
        s.pid = w->proc[i].pid;
        r = molt__each_fd(s.pid, false, socket_fd, &s, err);
    }
    molt__unix_table_free(&s.table);
    if (r == 0) {
        *ret_list = MOLT_STEAL_PTR(list);
        *ret_files = MOLT_STEAL_PTR(files);
    }
    return r;
}

static int write_meta(const char *dir, const struct molt_json *meta, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" MOLT_DUMP_META, dir), *text = molt_json_print(meta, false);

    return molt_write_file(path, text, strlen(text), 0600, err);
}

int molt__dump_meta_load(const char *dir, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" MOLT_DUMP_META, dir), *text = NULL;
    CLEANUP_JSON struct molt_json *v = NULL;
    size_t len;
    int r = molt_read_file(path, META_MAX, &text, &len, err);

    if (r == 0)
        r = molt_json_parse(text, len, &v, err);
    if (r == 0 && (molt_json_get_int(v, "schema", 0) != META_SCHEMA || molt_json_size(molt_json_get(v, "ids")) > MOLT_TASKS_MAX ||
                   molt_json_size(molt_json_get(v, "sockets")) > SOCKETS_MAX))
        r = molt_error_set(err, MOLT_E_PROTOCOL, "the images have no valid %s", MOLT_DUMP_META);
    if (r == 0)
        *ret = MOLT_STEAL_PTR(v);
    return r;
}

/* MOLT_DUMP_WHOLE, or MOLT_DUMP_FAILED. */
static int write_outcome(const char *dir, const char *which, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, which);

    return molt_write_file(path, "", 0, 0600, err);
}

/* What the dump does, as criu_opts; dirfd: of the images. */
static void dump_request(struct molt_strbuf *b, const struct molt_workload *w, const struct molt_dump_opts *opts, int dirfd)
{
    static const unsigned wanted[] = {MOLT_CRIU_EXT_UNIX_SK,        MOLT_CRIU_TCP_ESTABLISHED, MOLT_CRIU_FILE_LOCKS, MOLT_CRIU_NOTIFY_SCRIPTS,
                                      MOLT_CRIU_TCP_SKIP_IN_FLIGHT};
    CLEANUP_FREE char *before = molt_xasprintf("%spre%u", opts->trial ? "../" : "", opts->rounds);

    molt__pb_int(b, MOLT_CRIU_IMAGES_DIR_FD, (uint64_t)dirfd);
    molt__pb_int(b, MOLT_CRIU_PID, (uint64_t)w->main_pid);
    molt__pb_int(b, MOLT_CRIU_LOG_LEVEL, CRIU_LOG_LEVEL);
    molt__pb_string(b, MOLT_CRIU_LOG_FILE, DUMP_LOG);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        molt__pb_int(b, wanted[i], 1);
    molt__pb_int(b, opts->trial ? MOLT_CRIU_LEAVE_RUNNING : MOLT_CRIU_LEAVE_STOPPED, 1);
    molt__pb_int(b, MOLT_CRIU_MANAGE_CGROUPS, 0);
    molt__pb_int(b, MOLT_CRIU_NETWORK_LOCK, 3); /* dom0 holds all packets */
    molt__pb_int(b, MOLT_CRIU_GHOST_LIMIT, GHOST_LIMIT);
    molt__pb_int(b, MOLT_CRIU_TIMEOUT, CRIU_TIMEOUT_S);
    if (opts->rounds) {
        molt__pb_int(b, MOLT_CRIU_TRACK_MEM, 1);
        molt__pb_string(b, MOLT_CRIU_PARENT_IMG, before);
    }
}

struct molt_dump {
    struct molt_worker worker;
    struct molt_dump_opts opts;
    char *dir;
    pid_t main_pid;
    bool begun, written, tcp_usec; /* tcp_usec: see tcpclock.h */
    int64_t begun_us;
    struct molt_json *sockets, *sockfiles; /* once it stands still */
    struct molt__network *network;         /* NULL: it could not be looked at */
};

static void dump_free(struct molt_dump *d)
{
    molt_worker_kill(&d->worker);
    molt_json_free(d->sockets);
    molt_json_free(d->sockfiles);
    molt__network_free(d->network);
    free(d->dir);
    free(d);
}

/* Goes on to where criu says that it is at `step`. MOLT_E_CANNOT_MOVE with its own words where it fails before. */
static int wait_step(struct molt_dump *d, const char *step, int timeout_ms, struct molt_error **err)
{
    CLEANUP_FREE char *log = molt_xasprintf("%s/" DUMP_LOG, d->dir);
    int r;

    for (;;) {
        CLEANUP_FREE char *got = NULL;

        r = molt_worker_next(&d->worker, timeout_ms, &got, err);
        if (r < 0 || molt_streq(got, step))
            return r;
        if (!got)
            break;
        r = molt_worker_go_on(&d->worker, NULL, err); /* nothing that we want to know of ("network-lock") */
        if (r < 0)
            return r;
    }
    r = molt_worker_end(&d->worker, "dump", ARM_TIMEOUT_MS, log, err);
    return r < 0 ? r : molt_error_set(err, MOLT_E_PROTOCOL, "criu ended before %s", step);
}

static int ask_dump(struct molt_dump *d, const struct molt_workload *w, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf request = MOLT_STRBUF_INIT;
    CLEANUP_CLOSE int dirfd = open(d->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r;

    if (dirfd < 0)
        return molt_error_errno(err, "open %s", d->dir);
    dump_request(&request, w, &d->opts, dirfd);
    r = molt_worker_ask(&d->worker, MOLT_CRIU_DUMP, &request, err);
    return r < 0 ? r : wait_step(d, "pre-dump", ARM_TIMEOUT_MS, err);
}

int molt_dump_arm(const struct molt_workload *w, const struct molt_dump_opts *opts, struct molt_dump **ret, struct molt_error **err)
{
    struct molt_dump *d = molt_xcalloc(1, sizeof(*d));
    int r = molt_mkdir_p(opts->dir, 0700, err);

    *d = (struct molt_dump){.worker = MOLT_WORKER_NONE, .opts = *opts, .dir = molt_xstrdup(opts->dir), .main_pid = w->main_pid, .tcp_usec = molt__tcp_bit_means_usec()};
    d->opts.dir = d->dir;
    (void)molt__network_look(false, &d->network, NULL);
    if (r == 0 && !on_tmpfs(d->dir))
        molt_warn(opts->log, "%s is not on a tmpfs; the dump will be slower", d->dir);
    if (r == 0)
        r = molt_worker_start(opts->toolbox, w->main_pid, ARM_TIMEOUT_MS, opts->patience_ms, &d->worker, err);
    if (r == 0)
        r = ask_dump(d, w, err);
    if (r < 0) {
        dump_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

void molt_dump_disarm(struct molt_dump *d)
{
    if (!d)
        return;
    if (d->begun && d->worker.pid > 0) { /* parts of it are in the workload's processes */
        molt_worker_abandon(&d->worker);
        (void)molt_worker_end(&d->worker, "dump", d->opts.timeout_ms ? d->opts.timeout_ms : DUMP_TIMEOUT_MS, NULL, NULL);
    }
    dump_free(d);
}

bool molt_dump_fits(const struct molt_dump *d, const struct molt_workload *w, const struct molt_dump_opts *opts)
{
    siginfo_t i = {0};
    /* It stays to be waited for. */
    bool ended = d->worker.pid > 0 && (waitid(P_PID, (id_t)d->worker.pid, &i, WEXITED | WNOHANG | WNOWAIT) < 0 || i.si_pid == d->worker.pid);

    return !ended && d->main_pid == w->main_pid && d->opts.rounds == opts->rounds && d->opts.trial == opts->trial && !strcmp(d->dir, opts->dir);
}

/* What molt_dump_look found. */
static int tell_sockets(struct molt_dump *d, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf more = MOLT_STRBUF_INIT;

    molt__pb_int(&more, MOLT_CRIU_IMAGES_DIR_FD, 0); /* rpc.proto has it as required; here it is not looked at */
    for (size_t i = 0; i < molt_json_size(d->sockets); i++) {
        CLEANUP_FREE char *key = molt_xasprintf("unix[%" PRId64 "]", molt_json_get_int(molt_json_at(d->sockets, i), "ino", 0));

        molt__pb_string(&more, MOLT_CRIU_EXTERNAL, key);
    }
    return molt_worker_go_on(&d->worker, &more, err);
}

int molt_dump_begin(struct molt_dump *d, struct molt_error **err)
{
    int r;

    d->begun_us = molt_mono_us();
    d->begun = true;
    molt_worker_hurry(&d->worker);
    r = molt_worker_go_on(&d->worker, NULL, err);
    /* Where it asks this every thread is seized (cr_dump_tasks in criu/cr-dump.c). */
    return r < 0 ? r : wait_step(d, "query-ext-files", DUMP_TIMEOUT_MS, err);
}

int molt_dump_look(struct molt_dump *d, const struct molt_workload *w, struct molt_error **err)
{
    return d->sockets ? 0 : unix_sockets(w, &d->sockets, &d->sockfiles, err);
}

/* Before CRIU looks at the sockets, whose options are others meanwhile. Nobody is kept from going on by what a network may lose as well. */
static void take_datagrams(const struct molt_dump *d, const struct molt_workload *w)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_datagrams ignored;

    if (!d->opts.trial && molt_datagrams_collect(w, d->dir, &ignored, &err) < 0)
        molt_warn(d->opts.log, "datagrams that wait to be read stay behind: %s", molt_error_text(err));
}

int molt_dump_go_on(struct molt_dump *d, const struct molt_workload *w, struct molt_error **err)
{
    int r = molt_dump_look(d, w, err);

    take_datagrams(d, w);
    if (r == 0)
        (void)setpriority(PRIO_PROCESS, (id_t)d->worker.pid, 0); /* whatever whoever started it has: others work beside it from here on */
    if (r == 0)
        r = tell_sockets(d, err);

    /* To what it asks at its end ("post-dump"), so that it waits for nobody there. */
    return r < 0 ? r : molt_worker_go_on(&d->worker, NULL, err);
}

static int dump_timeout_ms(const struct molt_dump *d)
{
    return d->opts.timeout_ms ? d->opts.timeout_ms : DUMP_TIMEOUT_MS;
}

static int collect_meta(const struct molt_dump *d, const struct molt_workload *w, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = molt_json_object();
    struct molt_json *carry = NULL, *neighbours = NULL, *ids = molt_json_array();
    int r = molt__carry_collect(w, d->dir, &carry, err);

    for (size_t i = 0; i < w->tids; i++)
        molt_json_append(ids, molt_json_int(w->tid[i]));
    molt_json_set_int(v, "schema", META_SCHEMA);
    molt_json_set_int(v, "main_pid", w->main_pid);
    molt_json_set_bool(v, "tcp_usec", d->tcp_usec);
    molt_json_set(v, "ids", ids);
    if (r < 0)
        return r;
    molt_json_set(v, "carry", carry);
    if (d->network && molt__neighbours_collect(d->network, &neighbours, NULL) == 0) /* without them they are asked for */
        molt_json_set(v, "neighbours", neighbours);
    molt_json_set(v, "sockets", molt_json_copy(d->sockets));
    molt_json_set(v, "sockfiles", molt_json_copy(d->sockfiles));
    *ret = MOLT_STEAL_PTR(v);
    return 0;
}

/* What travels beside the images is read while criu works, from what stands still, and goes before them: the other side places it meanwhile. */
static int take_images(struct molt_dump *d, const struct molt_workload *w, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *meta = NULL;
    CLEANUP_ERROR struct molt_error *e = NULL;
    int beside = collect_meta(d, w, &meta, &e);

    if (beside == 0)
        beside = write_meta(d->dir, meta, &e);
    /* Before it asks this all images are closed (cr_dump_finish in criu/cr-dump.c): it is for who sends them elsewhere. */
    int r = wait_step(d, "post-dump", dump_timeout_ms(d), err);

    if (r == 0 && (r = beside) < 0)
        molt_error_move(err, MOLT_STEAL_PTR(e));
    if (r == 0)
        r = write_outcome(d->dir, MOLT_DUMP_WHOLE, err);
    d->written = r == 0;
    return r;
}

int molt_dump_written(struct molt_dump *d, const struct molt_workload *w, struct molt_error **err)
{
    int r = d->written ? 0 : take_images(d, w, err);

    if (r < 0)
        (void)write_outcome(d->dir, MOLT_DUMP_FAILED, NULL);
    return r;
}

/* criu takes itself out of the workload's processes, and ends. */
static int finish_dump(struct molt_dump *d, const struct molt_workload *w, struct molt_dump_stats *ret_stats, struct molt_error **err)
{
    CLEANUP_FREE char *log = molt_xasprintf("%s/" DUMP_LOG, d->dir);
    int r = molt_dump_written(d, w, err);

    if (d->worker.pid > 0) { /* also behind a failure, which is the one that is told */
        int ended = molt_worker_end(&d->worker, "dump", r == MOLT_E_TIMEOUT ? 1 : dump_timeout_ms(d), log, r < 0 ? NULL : err);

        r = r < 0 ? r : ended;
    }
    d->begun = false;
    ret_stats->wall_us = (uint64_t)(molt_mono_us() - d->begun_us);
    return r < 0 ? r : molt__stats_read(d->dir, "dump", ret_stats, err);
}

int molt_dump_end(struct molt_dump *d, const struct molt_workload *w, struct molt_dump_stats *ret_stats, struct molt_error **err)
{
    struct molt_dump_stats s = {0};
    int r = finish_dump(d, w, &s, err);

    if (d->opts.trial)
        keep_reuse(w);
    if (r < 0)
        (void)write_outcome(d->dir, MOLT_DUMP_FAILED, NULL);
    s.image_bytes = dir_bytes(d->dir);
    dump_free(d);
    if (r == 0 && ret_stats)
        *ret_stats = s;
    return r;
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
