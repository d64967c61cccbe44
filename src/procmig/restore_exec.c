/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The program that systemd starts as the unit's ExecStart= for the time of a restore. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/early.h"
#include "procmig/pager.h"
#include "procmig/pb.h"
#include "procmig/procfs.h"
#include "procmig/restore_internal.h"
#include "procmig/sockfiles.h"
#include "procmig/tcpclock.h"
#include "procmig/worker.h"

#define HURRY              (-15) /* a nice value */
#define RESTORE_TIMEOUT_MS 300000
#define WORKER_TIMEOUT_MS  30000
#define RESTORE_LOG        "restore.log"

/* Microseconds of CLOCK_MONOTONIC; 0: not yet. */
struct times {
    int64_t go, asked, answered;
};

/* Tells the agent an outcome: {"ok", "pid", "code", "error", "before_us", "asked_us"} in a file that appears whole. */
static void tell(const char *unit, const char *file, const struct times *t, const struct molt_error *e)
{
    CLEANUP_FREE char *path = molt__restore_path(unit, file), *part = molt_xasprintf("%s.part", path),
                      *text = NULL;
    CLEANUP_JSON struct molt_json *v = molt_json_object();

    molt_json_set_bool(v, "ok", e == NULL);
    molt_json_set_int(v, "pid", getpid());
    if (t->answered) {
        molt_json_set_int(v, "before_us", t->asked - t->go);
        molt_json_set_int(v, "asked_us", t->answered - t->asked);
    }
    if (e) {
        molt_json_set_string(v, "code", molt_code_name(molt_error_code(e)));
        molt_json_set_string(v, "error", molt_error_text(e));
    }
    text = molt_json_print(v, false);
    if (molt_write_file(part, text, strlen(text), 0600, NULL) == 0)
        (void)rename(part, path);
}

/* The unit's own journal streams, kept away from 0 to 2, which criu_run covers. */
static int keep_stream(int fd, struct molt_error **err)
{
    int kept = fcntl(fd, F_DUPFD, 100);

    return kept < 0 ? molt_error_errno(err, "keep descriptor %d", fd) : kept;
}

/* What the restore does, as criu_opts; dirfd: of the images. */
static void restore_request(struct molt_strbuf *b, const struct molt_json *meta, const int stream[2], int dirfd, bool lazy)
{
    static const unsigned wanted[] = {MOLT_CRIU_EXT_UNIX_SK, MOLT_CRIU_TCP_ESTABLISHED, MOLT_CRIU_FILE_LOCKS, MOLT_CRIU_LEAVE_STOPPED};
    const struct molt_json *sockets = molt_json_get(meta, "sockets");

    molt__pb_int(b, MOLT_CRIU_IMAGES_DIR_FD, (uint64_t)dirfd);
    molt__pb_int(b, MOLT_CRIU_LOG_LEVEL, 2);
    molt__pb_string(b, MOLT_CRIU_LOG_FILE, RESTORE_LOG);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        molt__pb_int(b, wanted[i], 1);
    if (lazy)
        molt__pb_int(b, MOLT_CRIU_LAZY_PAGES, 1);
    molt__pb_int(b, MOLT_CRIU_MANAGE_CGROUPS, 0);
    for (size_t i = 0; i < molt_json_size(sockets); i++) {
        const struct molt_json *o = molt_json_at(sockets, i);
        CLEANUP_FREE char *key = molt_xasprintf("socket:[%" PRId64 "]", molt_json_get_int(o, "ino", 0));
        CLEANUP_STRBUF struct molt_strbuf one = MOLT_STRBUF_INIT;

        molt__pb_string(&one, 1, key);
        molt__pb_int(&one, 2, (uint64_t)stream[molt_json_get_bool(o, "stderr", false)]);
        molt__pb_bytes(b, MOLT_CRIU_INHERIT_FD, one.s, one.len);
    }
}

/* For systemd, which takes the process as the unit's main one. */
static int write_pid(const struct molt_restore_spec *s, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt__restore_path(s->unit, "pid"), *text = molt_xasprintf("%d\n", (int)s->main_pid);

    return molt_write_file(path, text, strlen(text), 0644, err);
}

/* Goes on to criu's answer, behind which the tree stands there; its end, which takes the blackout's time, need not be waited for. */
static int wait_answer(struct molt_worker *w, const char *log, struct molt_error **err)
{
    char *step = NULL;
    int r;

    do {
        free(step);
        r = molt_worker_next(w, RESTORE_TIMEOUT_MS, &step, err);
        if (r == 0 && step)
            (void)molt_worker_go_on(w, NULL, NULL);
    } while (r == 0 && step);
    free(step);
    if (r == 0 && w->well)
        molt_worker_linger(w);
    if (r < 0 || w->well)
        return r;
    r = molt_worker_end(w, "restore", RESTORE_TIMEOUT_MS, log, err);
    return r < 0 ? r : molt_error_set(err, MOLT_E_PROTOCOL, "criu ended without an answer");
}

/* What waits ready. */
struct helpers {
    struct molt_worker worker;
    struct molt_pager pager; /* NONE: all of the memory is restored at once */
    bool lazy;               /* the pager has something to bring */
    bool usec;               /* this kernel gives a meaning to the bit of tcpclock.h */
    struct molt__network *network; /* NULL: it could not be looked at */
    struct molt__early early;
    int stream[2];
    int words; /* the agent's: "go\n", and "on\n" when the workload is whole */
    struct times times;
};

static int run_restore(const struct molt_restore_spec *s, struct helpers *h, const struct molt_json *meta, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf request = MOLT_STRBUF_INIT;
    CLEANUP_FREE char *log = molt_xasprintf("%s/" RESTORE_LOG, s->images);
    CLEANUP_CLOSE int dirfd = open(s->images, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = dirfd < 0 ? molt_error_errno(err, "open %s", s->images) : 0;

    restore_request(&request, meta, h->stream, dirfd, h->lazy);
    h->times.asked = molt_mono_us();
    if (r == 0)
        r = molt_worker_ask(&h->worker, MOLT_CRIU_RESTORE, &request, err);
    if (r == 0)
        r = wait_answer(&h->worker, log, err);
    h->times.answered = molt_mono_us();
    if (r == 0)
        r = molt__sockfiles_rename(molt_json_get(meta, "sockfiles"), err);
    return r == 0 && h->lazy ? molt_pager_push(&h->pager, err) : r;
}

/* Where this kernel can do it. It lives in the unit's control group, and ends with what it serves. */
static int start_pager(const struct molt_restore_spec *s, struct molt_pager *ret, struct molt_error **err)
{
    CLEANUP_FREE char *result = molt__restore_path(s->unit, MOLT__PAGED), *mark = molt__restore_path(s->unit, MOLT__PAGING);
    CLEANUP_FREE char *text = NULL, *cgroup = NULL;
    CLEANUP_ERROR struct molt_error *e = NULL;
    int r;

    if (molt_pager_possible(&e) < 0) {
        fprintf(stderr, "%s: all of the memory is restored in the pause\n", molt_error_text(e));
        return 0;
    }
    if ((r = molt__proc_text(getpid(), "cgroup", &text, err)) < 0)
        return r;
    cgroup = molt__cgroup_parse(text);
    if (!cgroup || !strstr(cgroup, s->unit))
        return molt_error_set(err, MOLT_E_STATE, "not in the control group of %s", s->unit);
    const struct molt_pager_opts o = {.dir = s->images, .result = result, .cgroup = cgroup, .at_once = MOLT_PAGER_AT_ONCE};

    r = molt_pager_start(&o, ret, err);
    return r < 0 ? r : molt_write_file(mark, "", 0, 0600, err);
}

/* All that is slow and can be done before the freeze. */
static int get_ready(const struct molt_restore_spec *s, struct helpers *h, struct molt_error **err)
{
    CLEANUP_FREE char *residue = molt__restore_path(s->unit, MOLT__RESIDUE);
    CLEANUP_OVERLAY struct molt_overlay *o = NULL;
    int r = h->stream[0] = keep_stream(1, err);

    if (r >= 0)
        r = h->stream[1] = keep_stream(2, err);
    if (r < 0)
        return r;
    if (s->overlay) {
        r = molt_overlay_load(s->unit, &o, err);
        if (r == 0)
            r = molt_overlay_placeholders(o, err);
        if (r == 0)
            r = molt_overlay_enter(o, err);
        if (r < 0)
            return r;
    }
    h->usec = molt__tcp_bit_means_usec();
    (void)molt__network_look(true, &h->network, NULL);
    r = molt_criu_warm(s->toolbox, err);
    if (r == 0)
        r = start_pager(s, &h->pager, err);
    molt__early_begin(&h->early, s, residue, h->network, h->pager.pid > 0);
    (void)setpriority(PRIO_PROCESS, 0, HURRY); /* CRIU inherits it, and gives each process its own */
    if (r == 0)
        r = molt_worker_start(s->toolbox, 0, WORKER_TIMEOUT_MS, 0, &h->worker, err);
    (void)mlockall(MCL_CURRENT | MCL_FUTURE); /* what it does in the pause meets no fault */
    return r;
}

/* Until a word comes, what arrives of the images is looked at. */
static void wait_word(struct helpers *h)
{
    for (;;) {
        struct pollfd p[2] = {{.fd = h->words, .events = POLLIN}, {.fd = h->early.watch, .events = POLLIN}};
        int n = poll(p, 2, -1);

        if (n < 0 ? errno != EINTR : p[0].revents != 0)
            return;
        if (n > 0 && p[1].revents)
            molt__early_look(&h->early);
    }
}

static bool hear(const struct helpers *h, const char *want)
{
    char word[3];

    return molt_read_all(h->words, word, sizeof(word)) == 1 && !memcmp(word, want, sizeof(word));
}

static int wait_go(const struct molt_restore_spec *s, struct helpers *h, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt__restore_path(s->unit, "go");

    /* Both directions, so that it never meets an end of file before the word is given. */
    h->words = open(path, O_RDWR | O_CLOEXEC);
    if (h->words < 0)
        return molt_error_errno(err, "open %s", path);
    tell(s->unit, "ready", &h->times, NULL);
    wait_word(h);
    if (!hear(h, "go\n"))
        return molt_error_set(err, MOLT_E_ABORTED, "told not to restore");
    h->times.go = molt_mono_us();
    return 0;
}

/* Nothing comes later. */
static void forget_paging(const char *unit)
{
    CLEANUP_FREE char *mark = molt__restore_path(unit, MOLT__PAGING);

    (void)unlink(mark);
}

static int restore(const struct molt_restore_spec *s, struct helpers *h, struct molt_error **err)
{
    struct molt_lazy_count count = {0, 0};
    int r = molt__early_end(&h->early, &count, err);

    if (r == 0 && h->usec && !molt_json_get_bool(h->early.meta, "tcp_usec", false))
        r = molt__tcp_clear_bit(s->images, err);
    h->lazy = count.lazy > 0;
    if (!h->lazy)
        forget_paging(s->unit);
    if (r == 0)
        r = run_restore(s, h, h->early.meta, err);
    return r;
}

int molt_restore_exec(const char *spec_path)
{
    struct molt_restore_spec s = {0};
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct helpers h = {.worker = MOLT_WORKER_NONE, .pager = MOLT_PAGER_NONE, .early = MOLT__EARLY_NONE, .stream = {-1, -1}, .words = -1};
    const char *stage = "ready";

    if (molt__restore_spec_load(spec_path, &s, &err) < 0) {
        fprintf(stderr, "%s: %s\n", spec_path, molt_error_text(err));
        return 1;
    }
    if (get_ready(&s, &h, &err) == 0 && wait_go(&s, &h, &err) == 0) {
        stage = "result";
        (void)restore(&s, &h, &err);
    }
    if (err)
        fprintf(stderr, "restore of %s: %s\n", s.unit, molt_error_text(err));
    tell(s.unit, stage, &h.times, err);
    /* systemd's work on a unit that has started would be done before the workload's own: it hears of it when the workload has what it needs. */
    if (!h.lazy)
        molt_pager_end(&h.pager);
    if (!err && hear(&h, "on\n") && write_pid(&s, &err) == 0)
        (void)molt_worker_end(&h.worker, "restore", WORKER_TIMEOUT_MS, NULL, NULL);
    molt_worker_kill(&h.worker);
    molt__early_free(&h.early);
    molt__network_free(h.network);
    molt_restore_spec_clear(&s);
    return err ? 1 : 0; /* the pager serves on; one that was never told to push ends what it served */
}
