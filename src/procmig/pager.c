/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/pager.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/pager_serve.h"
#include "procmig/procfs.h"

#define SOCKET     "lazy-pages.socket" /* CRIU's name for it */
#define KILL_MS    20000
#define NICE_FIRST (-10)

static bool set_priority(pid_t pid, int policy, int priority)
{
    const struct sched_param p = {.sched_priority = priority};

    return sched_setscheduler(pid, policy, &p) == 0;
}

bool molt_pager_realtime(int priority)
{
    return set_priority(0, priority > 0 ? SCHED_FIFO | SCHED_RESET_ON_FORK : SCHED_OTHER, priority);
}

void molt__pager_urgency(pid_t pid, enum molt__pager_urgency u)
{
    (void)set_priority(pid, u == MOLT__PAGER_IDLE ? SCHED_IDLE : SCHED_OTHER, 0);
    (void)setpriority(PRIO_PROCESS, (id_t)pid, u == MOLT__PAGER_FIRST ? NICE_FIRST : 0);
    if (u == MOLT__PAGER_FIRST)
        (void)set_priority(pid, SCHED_FIFO | SCHED_RESET_ON_FORK, MOLT_PAGER_RT);
}

int molt_pager_possible(struct molt_error **err)
{
    return molt__uffd_possible(err);
}

/* ---- the one that watches ---- */

struct watched {
    int sk;
    pid_t server;
    bool realtime; /* we are */
    bool back;     /* the server stands back */
    int64_t until; /* at most: milliseconds of the monotonic clock */
    struct process {
        int pidfd, uffd;
    } *v;
    size_t n, cap;
    struct molt__pager_report end;
    bool ended;
};

/* 1, 0 at the end. */
static int hear(struct watched *w)
{
    struct molt__pager_report report;
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {&report, sizeof(report)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(w->sk, &m, MSG_CMSG_CLOEXEC);

    if (n < 0 && errno == EINTR)
        return 1;
    if (n != (ssize_t)sizeof(report))
        return 0;
    if (report.what == MOLT__PAGER_ENDS) {
        w->end = report;
        w->ended = true;
        return 1;
    }
    if (report.what == MOLT__PAGER_STANDS_BACK) {
        if (w->realtime) { /* else it might not get away from there */
            molt__pager_urgency(w->server, MOLT__PAGER_IDLE);
            w->back = true;
            w->until = molt_mono_ms() + MOLT__PAGER_PATIENCE_MS;
        }
        return send(w->sk, "", 1, MSG_NOSIGNAL) == 1;
    }
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    struct process p = {.pidfd = report.pid > 0 ? (int)syscall(SYS_pidfd_open, report.pid, 0) : -1, .uffd = -1};

    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
        memcpy(&p.uffd, CMSG_DATA(c), sizeof(int));
    MOLT_GROW(w->v, w->n, w->cap);
    w->v[w->n++] = p;
    return 1;
}

static void raise_server(struct watched *w, enum molt__pager_urgency u)
{
    molt__pager_urgency(w->server, u);
    w->back = false;
}

/* While the server stands back, the first that misses a page would have to wait until nobody has anything to do: it is raised from here. So it is when nobody
 * misses one for long, in a guest where somebody else always has something to do. 1, 0 at the end. */
static int wait_and_hear(struct watched *w)
{
    const size_t n = w->back ? w->n : 0;
    CLEANUP_FREE struct pollfd *v = molt_xcalloc(n + 1, sizeof(*v));
    int timeout = -1;

    v[0] = (struct pollfd){.fd = w->sk, .events = POLLIN};
    for (size_t i = 0; i < n; i++)
        v[1 + i] = (struct pollfd){.fd = w->v[i].uffd, .events = POLLIN};
    if (w->back) {
        const int64_t left = w->until - molt_mono_ms();

        timeout = left > 0 ? (int)left : 0;
    }
    if (poll(v, n + 1, timeout) < 0)
        return errno == EINTR;
    for (size_t i = 0; i < n; i++)
        if (w->back && v[1 + i].revents)
            raise_server(w, MOLT__PAGER_FIRST);
    if (w->back && molt_mono_ms() >= w->until)
        raise_server(w, MOLT__PAGER_NORMAL);
    return v[0].revents ? hear(w) : 1;
}

/* A fork may be under way: until nobody is left but us. */
static void kill_cgroup(const char *cgroup)
{
    int64_t end = molt_mono_ms() + KILL_MS;
    size_t others = 1;

    while (others > 0 && molt_mono_ms() < end) {
        CLEANUP_FREE pid_t *v = NULL;
        size_t n = 0;

        others = 0;
        if (molt__cgroup_pids(cgroup, &v, &n, NULL) < 0)
            return;
        for (size_t i = 0; i < n; i++)
            if (v[i] != getpid() && kill(v[i], SIGKILL) == 0)
                others++;
        if (others > 0)
            molt_sleep_ms(10);
    }
}

static void write_result(const char *path, const struct molt__pager_report *end, bool ended)
{
    CLEANUP_FREE char *part = path ? molt_xasprintf("%s.part", path) : NULL, *text = NULL;
    CLEANUP_JSON struct molt_json *v = molt_json_object();

    if (!path)
        return;
    molt_json_set_bool(v, "ok", ended && end->error[0] == '\0');
    if (!ended || end->error[0])
        molt_json_set_string(v, "error", ended ? end->error : "who brings the workload's memory died, and the workload was killed");
    molt_json_set_int(v, "pages", (int64_t)end->count.pages);
    molt_json_set_int(v, "zero_pages", (int64_t)end->count.zero);
    molt_json_set_int(v, "faults", (int64_t)end->count.faults);
    molt_json_set_double(v, "ms", (double)end->us / 1000);
    text = molt_json_print(v, false);
    if (molt_write_file(part, text, strlen(text), 0600, NULL) == 0)
        (void)rename(part, path);
}

static int watch(int sk, pid_t server, const struct molt_pager_opts *o)
{
    struct watched w = {.sk = sk, .server = server, .realtime = molt_pager_realtime(MOLT_PAGER_RT)};

    while (wait_and_hear(&w) > 0)
        ;
    (void)molt_pager_realtime(0);
    const bool well = w.ended && w.end.error[0] == '\0';

    if (!well) {
        if (o->cgroup && (!w.ended || w.end.restored)) /* before that the group is theirs who restore, and have to tell what went wrong */
            kill_cgroup(o->cgroup);
        for (size_t i = 0; i < w.n; i++)
            if (w.v[i].pidfd >= 0)
                (void)syscall(SYS_pidfd_send_signal, w.v[i].pidfd, SIGKILL, NULL, 0);
    }
    write_result(o->result, &w.end, w.ended);
    return well ? 0 : 1; /* its end closes the last userfaultfds */
}

/* ---- starting ---- */

static int listen_in(const char *dir, struct molt_error **err)
{
    CLEANUP_CLOSE int d = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_CLOSE int sk = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (d < 0 || sk < 0)
        return molt_error_errno(err, "listen in %s", dir);
    snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/" SOCKET, d); /* the directory's own name may be too long for a socket's */
    (void)unlink(a.sun_path);
    if (bind(sk, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(sk, 4) < 0)
        return molt_error_errno(err, "listen in %s", dir);
    return MOLT_STEAL_FD(sk);
}

static void alone(const char *name)
{
    static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE}; /* it ends when it is done, or is killed with the workload */

    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    prctl(PR_SET_NAME, name);
    (void)molt_write_file("/proc/self/oom_score_adj", "-1000", 5, 0644, NULL);
}

/* The process that watches, which forks the one that serves. */
static _Noreturn void run(const struct molt_pager_opts *o, int listener, int control)
{
    int sk[2];

    alone("molt-pager-watch");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) < 0)
        _exit(1);
    pid_t pid = fork();

    if (pid < 0)
        _exit(1);
    if (pid == 0) {
        close(sk[0]);
        prctl(PR_SET_NAME, "molt-pager");
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(molt__pager_serve(o, listener, control, sk[1]));
    }
    close(sk[1]);
    close(listener);
    close(control);
    _exit(watch(sk[0], pid, o));
}

int molt_pager_start(const struct molt_pager_opts *opts, struct molt_pager *ret, struct molt_error **err)
{
    int listener = listen_in(opts->dir, err), control[2];

    if (listener < 0)
        return listener;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0) {
        close(listener);
        return molt_error_errno(err, "make a socket");
    }
    pid_t pid = fork();

    if (pid == 0) {
        close(control[0]);
        run(opts, listener, control[1]);
    }
    close(listener);
    close(control[1]);
    if (pid < 0) {
        close(control[0]);
        return molt_error_errno(err, "fork");
    }
    *ret = (struct molt_pager){.pid = pid, .control = control[0]};
    return 0;
}

int molt_pager_push(struct molt_pager *p, struct molt_error **err)
{
    if (send(p->control, "push", 4, MSG_NOSIGNAL) != 4)
        return molt_error_set(err, MOLT_E_INTERNAL, "who brings the workload's memory has ended");
    return 0;
}

void molt_pager_end(struct molt_pager *p)
{
    if (p->pid > 0) {
        close(p->control);
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    *p = (struct molt_pager)MOLT_PAGER_NONE;
}
