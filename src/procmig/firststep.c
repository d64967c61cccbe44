/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * By ptrace(2): PTRACE_SEIZE of a thread in group-stop, then PTRACE_SYSCALL, which lets it run although its process counts as stopped, up to the entry of a
 * system call. SIGKILL there ends it before the call ("syscall-stops" in ptrace(2); the kernel skips the call of a task that is being killed).
 */
#include "procmig/firststep.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "procmig/carry.h"
#include "procmig/procfs.h"
#include "procmig/standins.h"

#define LOOK_MS       5
#define BUSY_MS       500 /* of running, for a thread that comes to no system call */
#define FAULTS_MAX    64  /* a JVM's faults are its way to stop threads and to find null pointers; each is followed by a step */
#define SYSCALL_STOP  (SIGTRAP | 0x80)

enum progress { RUNS, REACHED, BUSY, LEFT };

struct thread {
    pid_t id;
    enum progress progress;
    unsigned faults;
    bool seen; /* with this much work done (work_of) */
    uint64_t work;
};

struct first_step {
    struct thread *thread;
    size_t n;
};

/* ---- who is let run ---- */

/* A line of /proc/PID/maps, "start-end perms offset major:minor inode   path": shared, of a file that outlives the trial. Where it can be written, what is
 * written there needs no system call; where it is read, its content may be older than the memory that refers to it (not so what is installed): the merge still goes on. */
static bool is_lasting(const char *line)
{
    static const char *const none[] = {"/dev/zero", "/memfd:", "/SYSV", "/[aio]"};
    const char *perms = strchr(line, ' '), *path = strchr(line, '/');

    if (!perms || strlen(perms) < 5 || perms[4] != 's' || !path || molt__carry_wanted(path))
        return false;
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        if (!strncmp(path, none[i], strlen(none[i])))
            return false;
    return perms[2] == 'w' || strncmp(path, "/usr/", 5);
}

/* A file that is not there yet, with zeroes in its place. */
static bool is_absent(const char *line, const char *const *absent)
{
    const char *path = strchr(line, '/');

    return path && absent && molt__standins_for(path, absent);
}

static int is_to_be_left(pid_t id, const char *const *absent, bool *ret, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    char *rest, *line;
    int r = molt__proc_text(id, "maps", &text, err);

    *ret = false;
    for (rest = text; r == 0 && !*ret && (line = strsep(&rest, "\n"));)
        *ret = is_lasting(line) || is_absent(line, absent);
    return r;
}

/* Threads of one process follow each other in most lists: its mappings are read once then. */
static int choose(struct first_step *s, const char *const *absent, struct molt_error **err)
{
    pid_t last = 0;
    bool left = false;

    for (size_t i = 0; i < s->n; i++) {
        CLEANUP_FREE char *status = NULL;
        int r = molt__proc_text(s->thread[i].id, "status", &status, err);
        pid_t process;

        if (r < 0)
            return r;
        process = (pid_t)molt__status_num(status, "Tgid", 0);
        if (process != last && (r = is_to_be_left(process, absent, &left, err)) < 0)
            return r;
        last = process;
        if (left)
            s->thread[i].progress = LEFT;
    }
    return 0;
}

/* ---- what becomes of one ---- */

static int died(const struct thread *t, int status, struct molt_error **err)
{
    if (WIFSIGNALED(status))
        return molt_error_set(err, MOLT_E_CANNOT_MOVE, "thread %d came to life in the trial and was ended by a signal (%s)", (int)t->id, strsignal(WTERMSIG(status)));
    return molt_error_set(err, MOLT_E_CANNOT_MOVE, "thread %d came to life in the trial and ended (status %d)", (int)t->id, WEXITSTATUS(status));
}

static bool catches(pid_t id, int sig)
{
    CLEANUP_FREE char *status = NULL;
    const char *mask;
    unsigned long long bits;

    if (molt__proc_text(id, "status", &status, NULL) < 0 || !(mask = strstr(status, "\nSigCgt:")) || sscanf(mask + 8, "%llx", &bits) != 1)
        return false;
    return bits & 1ull << (sig - 1);
}

/* What to go on with: a signal, or 0 for none; -1: it is not to go on. The kernel's word about the thread's own doing has a positive code (sigaction(2)); what others
 * have sent is kept from it, since nobody is to hear of what it would do then. */
static int hit(struct thread *t, int sig, struct molt_error **err)
{
    siginfo_t si;

    if (ptrace(PTRACE_GETSIGINFO, t->id, 0, &si) < 0 || si.si_code <= 0 || (sig != SIGSEGV && sig != SIGILL && sig != SIGBUS && sig != SIGFPE && sig != SIGTRAP))
        return 0;
    if (sig == SIGBUS) { /* the file behind that memory is as long as the last merge pass made it */
        t->progress = BUSY;
        return -1;
    }
    if (sig != SIGILL && catches(t->id, sig)) {
        if (t->faults++ < FAULTS_MAX)
            return sig;
        t->progress = BUSY;
        return -1;
    }
    molt_error_set(err, MOLT_E_CANNOT_MOVE, "thread %d came to life in the trial and failed at once: %s at %#lx", (int)t->id, strsignal(sig), (unsigned long)(uintptr_t)si.si_addr);
    return -1;
}

static bool at_entry(pid_t id)
{
    struct __ptrace_syscall_info info;

    return ptrace(PTRACE_GET_SYSCALL_INFO, id, sizeof(info), &info) <= 0 || info.op == PTRACE_SYSCALL_INFO_ENTRY;
}

/* It has stopped, or ended. */
static int stopped(struct thread *t, int status, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *e = NULL;
    int sig = 0;

    if (!WIFSTOPPED(status))
        return died(t, status, err);
    if (WSTOPSIG(status) == SYSCALL_STOP && at_entry(t->id)) {
        t->progress = REACHED;
        return 0;
    }
    if (WSTOPSIG(status) != SYSCALL_STOP && status >> 16 != PTRACE_EVENT_STOP)
        sig = hit(t, WSTOPSIG(status), &e);
    if (e) {
        molt_error_move(err, MOLT_STEAL_PTR(e));
        return MOLT_E_CANNOT_MOVE;
    }
    if (sig >= 0 && ptrace(PTRACE_SYSCALL, t->id, 0, sig) < 0 && errno != ESRCH)
        return molt_error_errno(err, "let thread %d run", (int)t->id);
    return 0;
}

/* ---- all ---- */

static int seize(struct first_step *s, struct molt_error **err)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->thread[i].progress == RUNS && ptrace(PTRACE_SEIZE, s->thread[i].id, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) < 0)
            return molt_error_errno(err, "trace thread %d", (int)s->thread[i].id);
    return 0;
}

/* Everything that has happened since; *runs: how many are on their way. */
static int look_once(struct first_step *s, size_t *runs, struct molt_error **err)
{
    *runs = 0;
    for (size_t i = 0; i < s->n; i++) {
        struct thread *t = &s->thread[i];
        int status, r;
        pid_t got;

        while (t->progress == RUNS && (got = waitpid(t->id, &status, WNOHANG | __WALL)) != 0) {
            if (got < 0 && errno == EINTR)
                continue;
            if (got < 0)
                return molt_error_errno(err, "wait for thread %d", (int)t->id);
            if ((r = stopped(t, status, err)) < 0)
                return r;
        }
        *runs += t->progress == RUNS;
    }
    return 0;
}

/* Its state, and a number that grows with what it does: page faults and the time that it ran; '?': it is not there. */
static char work_of(pid_t id, uint64_t *ret)
{
    CLEANUP_FREE char *text = NULL, *name = molt_xasprintf("task/%d/stat", (int)id);
    unsigned long long minor, major, user;
    const char *rest;
    char state;

    *ret = 0;
    if (molt__proc_text(id, name, &text, NULL) < 0 || !(rest = strrchr(text, ')')) ||
        sscanf(rest, ") %c %*d %*d %*d %*d %*d %*u %llu %*u %llu %*u %llu", &state, &minor, &major, &user) != 4)
        return '?';
    *ret = minor + major + user;
    return state;
}

/* One that comes to no system call has enough of a life when it runs, or gets the memory that it asks for. */
static void let_workers_be(struct first_step *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct thread *t = &s->thread[i];
        uint64_t work;

        if (t->progress != RUNS)
            continue;
        if (work_of(t->id, &work) == 'R' || (t->seen && work != t->work))
            t->progress = BUSY;
        t->work = work;
        t->seen = true;
    }
}

static const struct thread *first_that_runs(const struct first_step *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->thread[i].progress == RUNS)
            return &s->thread[i];
    return NULL;
}

static int run(struct first_step *s, int timeout_ms, struct molt_error **err)
{
    const int64_t begun = molt_mono_ms();
    size_t runs;
    int r;

    while ((r = look_once(s, &runs, err)) == 0 && runs > 0) {
        const int64_t ms = molt_mono_ms() - begun;

        if (ms > timeout_ms)
            return molt_error_set(err, MOLT_E_CANNOT_MOVE, "thread %d came to life in the trial, and has waited for its memory for %d ms", (int)first_that_runs(s)->id, timeout_ms);
        if (ms > BUSY_MS)
            let_workers_be(s);
        molt_sleep_ms(LOOK_MS);
    }
    return r;
}

int molt_first_step(const pid_t *id, size_t n, const char *const *absent, int timeout_ms, struct molt_first_step *ret, struct molt_error **err)
{
    CLEANUP_FREE struct thread *thread = molt_xcalloc(n, sizeof(*thread));
    struct first_step s = {.thread = thread, .n = n};
    int r;

    *ret = (struct molt_first_step){0};
    for (size_t i = 0; i < n; i++)
        thread[i].id = id[i];
    r = choose(&s, absent, err);
    if (r == 0)
        r = seize(&s, err);
    if (r == 0)
        r = run(&s, timeout_ms, err);
    for (size_t i = 0; i < n; i++) {
        ret->reached += thread[i].progress == REACHED;
        ret->left += thread[i].progress == LEFT;
        ret->busy += thread[i].progress == BUSY || thread[i].progress == RUNS;
    }
    return r;
}
