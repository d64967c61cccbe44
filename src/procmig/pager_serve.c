/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/pager_serve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/load.h"
#include "base/strbuf.h"

/* CRIU's last word, criu/uffd.c. It is no process's number. */
#define FINISHED 0x52535446

/* Who runs is soon stopped by a missing page, and who waits for one waits for us: were we to wait for the others by turns, an answer would take several times
 * as long (docs/PERFORMANCE.md). So until it is calm we come first. */
#define AGAIN_MS 1  /* where a page could not be put there */
/* The first ones, the likeliest, go without waiting: a page that is asked for instead stops a thread for as long as dozens take here. */
#define BUSY_PIECE 32u /* pages between two looks at who waits, while somebody may */
/* For the others the processor belongs to those who wait for an answer: what nobody asked for is put there when no page was asked for during CALM_MS and
 * nobody else wants to run, or, where that does not happen, MOLT__PAGER_PATIENCE_MS after the first was. Until the first one is, others work towards the thaw, but wait
 * for dom0 most of the time: all that they leave of the processor is ours, and no more (SCHED_IDLE). */
#define CALM_MS     100
#define BUSY_MS     20 /* until it is looked at again whether anybody else wants to run */

struct pager {
    const char *dir;
    uint64_t at_once; /* pages */
    int listener, criu, control, watcher;
    bool pushing, finished, discard, hurries; /* hurries: from a fault on, until it is calm */
    bool busy; /* what was to be pushed was not, since somebody else wanted to run */
    int processors, load; /* load: /proc/loadavg */
    bool left; /* criu has, before the restore was done: whoever asked it tells why, and ends us */
    struct molt__mm **mm;
    size_t n, cap;
    size_t next; /* whose turn it is, of those with the same rank */
    struct molt__page_files files;
    struct molt__mm_count count;
    int64_t begun_us;
    uint64_t faults; /* seen, since there is something to push */
    int64_t first_ms, last_ms; /* when the first and the last of them came; 0: not yet */
};

static int tell(const struct pager *p, struct molt__pager_report *report, int fd, struct molt_error **err)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {report, sizeof(*report)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof(control);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);

        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(c), &fd, sizeof(int));
    }
    if (sendmsg(p->watcher, &m, MSG_NOSIGNAL) != (ssize_t)sizeof(*report))
        return molt_error_errno(err, "tell the one that watches");
    return 0;
}

static int add(struct pager *p, struct molt__mm *mm, pid_t pid, struct molt_error **err)
{
    struct molt__pager_report report = {.what = MOLT__PAGER_SERVES, .pid = pid};

    MOLT_GROW(p->mm, p->n, p->cap);
    p->mm[p->n++] = mm;
    return tell(p, &report, mm->fd, err);
}

static void hurry(struct pager *p, bool on)
{
    molt__pager_urgency(0, on ? MOLT__PAGER_FIRST : MOLT__PAGER_NORMAL);
    p->hurries = on;
}

/* Who watches gives us the lowest priority, and answers when a page that is asked for would give us back a high one. */
static int stand_back(struct pager *p, struct molt_error **err)
{
    struct molt__pager_report report = {.what = MOLT__PAGER_STANDS_BACK};
    char word;
    int r = tell(p, &report, -1, err);

    if (r < 0)
        return r;
    ssize_t n = recv(p->watcher, &word, 1, 0);

    if (n < 0)
        return molt_error_errno(err, "hear from the one that watches");
    return n == 1 ? 0 : molt_error_set(err, MOLT_E_INTERNAL, "the one that watches has ended");
}

static void note_faults(struct pager *p)
{
    if (p->pushing && p->count.faults != p->faults) {
        p->last_ms = molt_mono_ms();
        if (!p->first_ms)
            p->first_ms = p->last_ms;
        if (!p->hurries)
            hurry(p, true);
    }
    p->faults = p->count.faults;
}

/* ---- CRIU ---- */

static int read_fd(int sk, struct molt_error **err)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(sk, &m, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    int fd;

    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
        return molt_error_set(err, MOLT_E_PROTOCOL, "criu sent no userfaultfd");
    memcpy(&fd, CMSG_DATA(c), sizeof(int));
    return fd;
}

/* A number, and a process's memory behind it; a process that has none (a zombie) says so by a negative one. */
static int hear_criu(struct pager *p, struct molt_error **err)
{
    int32_t word;
    ssize_t n = recv(p->criu, &word, sizeof(word), MSG_WAITALL);

    if (n == 0) {
        close(p->criu);
        p->criu = -1;
        p->left = !p->finished;
        return 0;
    }
    if (n != (ssize_t)sizeof(word))
        return molt_error_set(err, MOLT_E_PROTOCOL, "criu said something else than its protocol has");
    if (word == FINISHED)
        p->finished = true;
    if (word == FINISHED || word <= 0)
        return 0;
    if (p->n == 0)
        p->begun_us = molt_mono_us();
    struct molt__mm *mm = molt_xcalloc(1, sizeof(*mm));
    int r = mm->fd = read_fd(p->criu, err);

    if (r >= 0)
        r = molt__lazy_runs(p->dir, word, &p->files, &mm->runs, err);
    if (r < 0) {
        molt__mm_free(mm);
        return r;
    }
    return add(p, mm, word, err);
}

static int hear_control(struct pager *p, struct molt_error **err)
{
    char word[8];
    ssize_t n = recv(p->control, word, sizeof(word), 0);

    if (p->left)
        return molt_error_set(err, MOLT_E_STATE, "criu left before the restore was done");
    if (n <= 0 && !p->pushing)
        return molt_error_set(err, MOLT_E_ABORTED, "the restore was given up");
    if (n <= 0) {
        close(p->control); /* whoever started us may end */
        p->control = -1;
    }
    if (p->pushing)
        return 0;
    p->pushing = true;
    return stand_back(p, err);
}

/* ---- serving ---- */

static int serve(struct pager *p, struct molt__mm *mm, struct molt_error **err)
{
    int r;

    do {
        struct molt__mm *child;

        r = molt__mm_event(mm, &p->files, &p->count, &child, err);
        note_faults(p);
        if (r > 0 && child) {
            p->discard = false; /* two need the same pages now */
            r = add(p, child, -1, err);
            r = r < 0 ? r : 1;
        }
    } while (r > 0);
    return r;
}

static bool all_whole(const struct pager *p)
{
    for (size_t i = 0; i < p->n; i++)
        if (!molt__mm_whole(p->mm[i]))
            return false;
    return true;
}

static bool overdue(const struct pager *p)
{
    return p->first_ms && molt_mono_ms() - p->first_ms >= MOLT__PAGER_PATIENCE_MS;
}

/* Milliseconds until anything may be pushed. */
static int until_calm(const struct pager *p)
{
    const int64_t now = molt_mono_ms();

    if (!p->first_ms || overdue(p))
        return 0;
    return now - p->last_ms < CALM_MS ? (int)(p->last_ms + CALM_MS - now) : 0;
}

/* Of those that miss something likeliest the next in turn, or NULL. */
static struct molt__mm *next_mm(struct pager *p, enum molt__rank *ret_rank)
{
    enum molt__rank best = MOLT__RANKS;
    struct molt__mm *found = NULL;

    for (size_t k = 0; k < p->n; k++) {
        struct molt__mm *mm = p->mm[(p->next + k) % p->n];
        enum molt__rank rank = molt__mm_rank(mm);

        if (rank < best) {
            best = rank;
            found = mm;
        }
    }
    p->next++;
    *ret_rank = best;
    return found;
}

/* 1, 0: nothing could be done now, or is to be done. */
static int push(struct pager *p, struct molt_error **err)
{
    enum molt__rank rank = MOLT__RANKS;
    struct molt__mm *mm = p->pushing ? next_mm(p, &rank) : NULL;
    const bool likely = rank < MOLT__COLD && p->count.pages < p->at_once;

    p->busy = false;
    if (!mm)
        return 0;
    if (!likely && p->first_ms) {
        if (until_calm(p) > 0)
            return 0;
        p->busy = !overdue(p) && !molt_load_idle(p->load, p->processors);
        if (p->busy)
            return 0;
        if (p->hurries)
            hurry(p, false);
    }
    /* What goes at once is not much: its place in the images is not worth the time now. It lies in many small pieces; to look around behind each would
     * take as long as they do. */
    const bool many = p->hurries || !p->first_ms;
    const uint64_t before = p->count.pages, most = many ? BUSY_PIECE : MOLT__PIECE;
    int r;

    do
        r = molt__mm_push(mm, &p->files, most - (p->count.pages - before), p->discard && !likely, &p->count, err);
    while (r > 0 && many && p->count.pages - before < most && molt__mm_rank(mm) == rank);
    return r;
}

static int retry(struct pager *p, bool *ret_waits, struct molt_error **err)
{
    *ret_waits = false;
    for (size_t i = 0; i < p->n; i++) {
        int r = p->mm[i]->n_pending ? molt__mm_retry(p->mm[i], &p->files, &p->count, err) : 0;

        if (r < 0)
            return r;
        *ret_waits = *ret_waits || p->mm[i]->n_pending > 0;
    }
    return 0;
}

/* Waits, unless there is something to do, and answers whoever asks. */
static int turn(struct pager *p, int timeout_ms, struct molt_error **err)
{
    const size_t n = p->n; /* a fork adds to it */
    CLEANUP_FREE struct pollfd *v = molt_xcalloc(n + 2, sizeof(*v));
    int r = 0;

    v[0] = (struct pollfd){.fd = p->criu >= 0 ? p->criu : p->listener, .events = POLLIN};
    v[1] = (struct pollfd){.fd = p->control, .events = POLLIN};
    for (size_t i = 0; i < n; i++)
        v[2 + i] = (struct pollfd){.fd = p->mm[i]->gone ? -1 : p->mm[i]->fd, .events = POLLIN};
    if (poll(v, n + 2, timeout_ms) < 0)
        return errno == EINTR ? 0 : molt_error_errno(err, "wait");
    for (size_t i = 0; i < n && r == 0; i++)
        if (v[2 + i].revents & POLLIN)
            r = serve(p, p->mm[i], err);
        else if (v[2 + i].revents)
            p->mm[i]->gone = true;
    if (r == 0 && v[0].revents && p->criu < 0) {
        p->criu = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
        if (p->criu < 0)
            return molt_error_errno(err, "accept criu");
        close(p->listener);
        p->listener = -1;
    } else if (r == 0 && v[0].revents) {
        r = hear_criu(p, err);
    }
    if (r == 0 && v[1].revents)
        r = hear_control(p, err);
    return r;
}

static int wait_ms(const struct pager *p, bool waits, bool pushed)
{
    int calm = until_calm(p);

    if (pushed || waits)
        return pushed ? 0 : AGAIN_MS;
    if (!calm && p->busy)
        return BUSY_MS;
    return calm ? calm : p->pushing ? AGAIN_MS : -1;
}

static int serve_all(struct pager *p, struct molt_error **err)
{
    bool waits = false;
    int r = 0, pushed = 0;

    while (r == 0 && !(p->finished && p->pushing && all_whole(p))) {
        r = turn(p, wait_ms(p, waits, pushed), err);
        if (r == 0)
            r = retry(p, &waits, err);
        pushed = r == 0 ? push(p, err) : 0;
        if (pushed < 0)
            r = pushed;
    }
    return r;
}

int molt__pager_serve(const struct molt_pager_opts *o, int listener, int control, int watcher)
{
    struct pager p = {.dir = o->dir, .at_once = o->at_once / MOLT_PAGE, .listener = listener, .criu = -1, .control = control, .watcher = watcher, .discard = !o->keep, .processors = get_nprocs(),
                      .load = molt_load_open()};
    CLEANUP_ERROR struct molt_error *e = NULL;

    molt__page_files_room(&p.files);
    (void)mlockall(MCL_CURRENT); /* no fault of its own, nor the copies that a fork makes late, while a process waits for it */
    int r = serve_all(&p, &e);
    struct molt__pager_report end = {.what = MOLT__PAGER_ENDS, .count = p.count, .restored = p.pushing, .us = p.begun_us ? (uint64_t)(molt_mono_us() - p.begun_us) : 0};

    if (r < 0)
        snprintf(end.error, sizeof(end.error), "%s", molt_error_text(e));
    (void)tell(&p, &end, -1, NULL);
    return r < 0 ? 1 : 0; /* whose end closes and unmaps everything */
}
