/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/rehearse.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "procmig/carry.h"
#include "procmig/firststep.h"
#include "procmig/gate.h"
#include "procmig/image.h"
#include "procmig/overlay.h"
#include "procmig/pager.h"
#include "procmig/pb.h"
#include "procmig/procfs.h"
#include "procmig/residue.h"
#include "procmig/sockfiles.h"
#include "procmig/standins.h"

#define LOG          "rehearsal.log"
#define FILES_MAX    (256u << 20)
#define DEATH_MS     20000
#define STOP_MS      5000
#define ANSWER_MAX   65536
#define ENTRY_REG    3 /* file_entry.reg, images/fdinfo.proto */
#define REG_SIZE     8 /* reg_file_entry.size, images/regfile.proto */
#define REG_BUILD_ID 11

/* ---- files.img ---- */

static void copy_field(struct molt_strbuf *b, const struct molt__pb_field *f)
{
    if (f->is_bytes)
        molt__pb_bytes(b, (unsigned)f->number, f->data, f->len);
    else
        molt__pb_int(b, (unsigned)f->number, f->value);
}

/* false: it has fields of a kind that is not read here. */
static bool reg_without_size(const unsigned char *data, size_t len, struct molt_strbuf *b)
{
    struct molt__pb m = molt__pb_over(data, len);
    struct molt__pb_field f;
    int r;

    while ((r = molt__pb_next(&m, &f)) > 0)
        if (f.number != REG_SIZE && f.number != REG_BUILD_ID)
            copy_field(b, &f);
    return r == 0;
}

static bool entry_without_size(const unsigned char *data, size_t len, struct molt_strbuf *b)
{
    struct molt__pb m = molt__pb_over(data, len);
    struct molt__pb_field f;
    int r;

    while ((r = molt__pb_next(&m, &f)) > 0) {
        CLEANUP_STRBUF struct molt_strbuf reg = MOLT_STRBUF_INIT;

        if (f.number != ENTRY_REG || !f.is_bytes)
            copy_field(b, &f);
        else if (reg_without_size(f.data, f.len, &reg))
            molt__pb_bytes(b, ENTRY_REG, reg.s, reg.len);
        else
            return false;
    }
    return r == 0;
}

int molt__files_without_sizes(const void *data, size_t len, struct molt_strbuf *ret, struct molt_error **err)
{
    struct molt__image m;
    const unsigned char *record;
    size_t size;
    int r = molt__image_over(data, len, MOLT_IMAGE_FILES, &m, err);

    if (r < 0)
        return r;
    molt__image_begin(ret, MOLT_IMAGE_FILES);
    while ((r = molt__image_next(&m, &record, &size, err)) > 0) {
        CLEANUP_STRBUF struct molt_strbuf entry = MOLT_STRBUF_INIT;

        if (entry_without_size(record, size, &entry))
            molt__image_put(ret, molt_strbuf_str(&entry), entry.len);
        else
            molt__image_put(ret, record, size);
    }
    return r;
}

static int drop_sizes(const char *dir, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/files.img", dir), *text = NULL;
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    size_t len;
    int r = molt_read_file(path, FILES_MAX, &text, &len, err);

    if (r == 0)
        r = molt__files_without_sizes(text, len, &b, err);
    return r < 0 ? r : molt_write_file(path, b.s, b.len, 0600, err);
}

/* ---- a place of its own ---- */

/* By a plain default route through lo IPv4 would find no way to a peer. */
int molt__isolate_network(struct molt_error **err)
{
    char *up[] = {"ip", "link", "set", "lo", "up", NULL};
    char *routes[][9] = {{"ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo", NULL}, {"ip", "-6", "route", "add", "local", "::/0", "dev", "lo", NULL}};
    const struct molt_run_opts o = {.timeout_ms = 30000};
    int r;

    if (unshare(CLONE_NEWNET) < 0)
        return molt_error_errno(err, "new network namespace");
    if ((r = molt_run_ok(up, &o, NULL, err)) < 0)
        return r;
    for (size_t i = 0; i < 2; i++) {
        const char *file = i ? "/proc/sys/net/ipv6/ip_nonlocal_bind" : "/proc/sys/net/ipv4/ip_nonlocal_bind";

        if (i && !molt_exists(file))
            continue; /* no IPv6 here */
        if ((r = molt_write_file(file, "1\n", 2, 0644, err)) < 0 || (r = molt_run_ok(routes[i], &o, NULL, err)) < 0)
            return r;
    }
    /* What a restore sends (CRIU hands over again what was not sent yet) must find nobody, not even this namespace itself, which would refuse it
     * and end the connection. */
    return molt_loopback_gate(true, err);
}

static int enter_overlay(const char *unit, struct molt_error **err)
{
    CLEANUP_OVERLAY struct molt_overlay *o = NULL;
    int r = molt_overlay_load(unit, &o, err);

    return r < 0 ? r : molt_overlay_enter(o, err);
}

/* ---- restoring, looking, killing ---- */

static int run_criu(const char *dir, const char *toolbox, const struct molt_json *meta, bool lazy, int timeout_ms, struct molt_error **err)
{
    static const char *const fixed[] = {"restore", "-d", "--leave-stopped", "--tcp-established", "--file-locks", "--manage-cgroups=ignore", "--ext-unix-sk", "-v2", "-o", LOG, "-D"};
    const struct molt_json *sockets = molt_json_get(meta, "sockets");
    CLEANUP_FREE char *log = molt_xasprintf("%s/" LOG, dir);
    CLEANUP_CLOSE int nowhere = open("/dev/null", O_RDWR); /* in place of the journal; criu inherits it */
    size_t n = 1 + sizeof(fixed) / sizeof(fixed[0]), words = n + 2 * molt_json_size(sockets) + 3;
    CLEANUP_FREE char **argv = molt_xcalloc(words, sizeof(*argv));
    int r;

    if (nowhere < 0)
        return molt_error_errno(err, "open /dev/null");
    memcpy(argv + 1, fixed, sizeof(fixed));
    argv[n++] = (char *)dir;
    if (lazy)
        argv[n++] = "--lazy-pages";
    size_t first = n;
    for (size_t i = 0; i < molt_json_size(sockets); i++) {
        argv[n++] = "--inherit-fd";
        argv[n++] = molt_xasprintf("fd[%d]:socket:[%" PRId64 "]", nowhere, molt_json_get_int(molt_json_at(sockets, i), "ino", 0));
    }
    r = molt__criu_run(toolbox, argv, 0, timeout_ms, log, err);
    for (size_t i = first + 1; i < n; i += 2)
        free(argv[i]);
    return r;
}

/* As the restore will be: with the memory that can come later left out, and asked for by whoever touches it. */
static int restore(const char *dir, const char *toolbox, const struct molt_json *meta, int timeout_ms, struct molt_pager *pager, struct molt_error **err)
{
    const struct molt_pager_opts o = {.dir = dir, .keep = true};
    const bool lazy = molt_pager_possible(NULL) == 0;
    struct molt_lazy_count count;
    int r = lazy ? molt_lazy_mark(dir, MOLT_LAZY_EAGER_MAX, 0, &count, err) : 0;

    if (r == 0 && lazy)
        r = molt_pager_start(&o, pager, err);
    return r < 0 ? r : run_criu(dir, toolbox, meta, lazy, timeout_ms, err);
}

/* The state of a process or thread; 0: it is not there, or not in our mount namespace (then it is somebody else's). */
static char state_of(pid_t id, const char *ns)
{
    CLEANUP_FREE char *text = NULL;
    char path[64], own[64] = "";
    struct molt__stat s;

    snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)id);
    if (readlink(path, own, sizeof(own) - 1) < 0 || strcmp(own, ns) || molt__proc_text(id, "stat", &text, NULL) < 0 || !molt__stat_parse(text, &s))
        return 0;
    return s.state;
}

/* How many of them stand there stopped, as they are to until the switch; first: one that does not, and its state (0: it is not there). */
static size_t count_stopped(const struct molt_json *ids, const char *ns, pid_t *first, char *first_state)
{
    size_t there = 0;

    *first = 0;
    for (size_t i = 0; i < molt_json_size(ids); i++) {
        pid_t id = (pid_t)molt_json_intval(molt_json_at(ids, i), 0);
        char state = id > 1 ? state_of(id, ns) : 0;

        if (state == 'T' || state == 't') {
            there++;
        } else if (!*first) {
            *first = id;
            *first_state = state;
        }
    }
    return there;
}

/* CRIU has sent them the signal to stop when it ends; on a busy system one may not have had the processor since, and stops when it has. One that is not there at
 * all does not come. */
static int look(const struct molt_json *meta, const char *ns, struct molt_error **err)
{
    const struct molt_json *ids = molt_json_get(meta, "ids");
    const int64_t end = molt_mono_ms() + STOP_MS;
    size_t there;
    pid_t first;
    char state = 0;

    while ((there = count_stopped(ids, ns, &first, &state)) < molt_json_size(ids) && state && molt_mono_ms() < end)
        molt_sleep_ms(20);
    if (there == molt_json_size(ids) && there > 0)
        return 0;
    return molt_error_set(err, MOLT_E_CANNOT_MOVE, "of %zu processes and threads only %zu came to life in the trial, the first that did not is %d (%s%.1s)", molt_json_size(ids), there,
                          (int)first, state ? "state " : "not there", state ? &state : "");
}

/* Where the memory that can come later does, it is asked for by who runs: the pager serves on. */
static int first_step(const struct molt_json *meta, const char *const *absent, struct molt_first_step *ret, struct molt_error **err)
{
    const struct molt_json *ids = molt_json_get(meta, "ids");
    const size_t n = molt_json_size(ids);
    CLEANUP_FREE pid_t *id = molt_xcalloc(n, sizeof(*id));

    for (size_t i = 0; i < n; i++)
        id[i] = (pid_t)molt_json_intval(molt_json_at(ids, i), 0);
    return molt_first_step(id, n, absent, MOLT_FIRST_STEP_MS, ret, err);
}

/* By what they are, not by what a dump said: everything in our mount namespace but ourselves. */
static int kill_all(const char *ns, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + DEATH_MS;

    for (;;) {
        CLEANUP_FREE int *pid = NULL;
        size_t n = 0, left = 0;
        int r = molt__numbers("/proc", &pid, &n, err);

        if (r < 0)
            return r;
        for (size_t i = 0; i < n; i++)
            if (pid[i] != getpid() && pid[i] > 1 && state_of(pid[i], ns)) {
                left++;
                kill(pid[i], SIGKILL);
            }
        if (left == 0)
            return 0;
        if (molt_mono_ms() > end)
            return molt_error_set(err, MOLT_E_TIMEOUT, "%zu processes of the trial do not die", left);
        molt_sleep_ms(20);
    }
}

/* In a child, whose namespaces go with it. */
static int trial(const char *unit, const char *dir, const char *toolbox, const char *const *absent, int timeout_ms, struct molt_first_step *step, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *meta = NULL;
    CLEANUP_ERROR struct molt_error *e = NULL;
    struct molt_pager pager = MOLT_PAGER_NONE;
    struct molt__residue rs = {NULL, 0, 0};
    char ns[64] = "";
    int r = molt__dump_meta_load(dir, &meta, err);

    if (r == 0)
        r = molt__sockfiles_untaken(molt_json_get(meta, "sockfiles"), err); /* a new network namespace would not show them */
    if (r == 0)
        r = molt__isolate_network(err); /* by programs of this system, which may not start below the overlay's libraries */
    if (r == 0)
        r = enter_overlay(unit, err);
    if (r == 0 && absent && absent[0])
        r = molt__standins_lay(dir, absent, err);
    if (r == 0)
        r = drop_sizes(dir, err);
    if (r == 0 && readlink("/proc/self/ns/mnt", ns, sizeof(ns) - 1) < 0)
        r = molt_error_errno(err, "look at the mount namespace");
    if (r < 0)
        return r;
    molt__residue_note(&rs, meta);
    r = molt__carry_place(molt_json_get(meta, "carry"), dir, err);
    if (r == 0)
        r = restore(dir, toolbox, meta, timeout_ms, &pager, err);
    if (r == 0)
        r = look(meta, ns, err);
    if (r == 0)
        r = first_step(meta, absent, step, err);
    if (kill_all(ns, &e) < 0 && r == 0) {
        r = molt_error_code(e);
        molt_error_move(err, MOLT_STEAL_PTR(e));
    }
    molt_pager_end(&pager);
    molt__residue_clear(&rs);
    return r;
}

/* {"ok", "reached", "busy", "left", "code", "error"}, to the parent. */
static void tell(int fd, int r, const struct molt_first_step *step, const struct molt_error *e)
{
    CLEANUP_JSON struct molt_json *v = molt_json_object();
    CLEANUP_FREE char *text = NULL;

    molt_json_set_bool(v, "ok", r == 0);
    molt_json_set_int(v, "reached", (int64_t)step->reached);
    molt_json_set_int(v, "busy", (int64_t)step->busy);
    molt_json_set_int(v, "left", (int64_t)step->left);
    if (r < 0) {
        molt_json_set_string(v, "code", molt_code_name(r));
        molt_json_set_string(v, "error", molt_error_text(e));
    }
    text = molt_json_print(v, false);
    (void)molt_write_all(fd, text, strlen(text));
}

static int hear(int fd, int timeout_ms, struct molt_first_step *step, struct molt_error **err)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_JSON struct molt_json *v = NULL;
    int64_t end = molt_mono_ms() + timeout_ms;
    char buf[4096];

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = end - molt_mono_ms();
        int r = poll(&p, 1, left > 0 ? (int)left : 0);
        ssize_t n;

        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return molt_error_set(err, MOLT_E_TIMEOUT, "the trial of the restore did not end within %d ms", timeout_ms);
        n = read(fd, buf, sizeof(buf));
        if (n <= 0 || b.len + (size_t)n > ANSWER_MAX)
            break;
        molt_strbuf_add(&b, buf, (size_t)n);
    }
    if (b.len == 0 || molt_json_parse(b.s, b.len, &v, NULL) < 0)
        return molt_error_set(err, MOLT_E_INTERNAL, "the trial of the restore ended without a word");
    step->reached = (size_t)molt_json_get_int(v, "reached", 0);
    step->busy = (size_t)molt_json_get_int(v, "busy", 0);
    step->left = (size_t)molt_json_get_int(v, "left", 0);
    if (molt_json_get_bool(v, "ok", false))
        return 0;
    const char *code = molt_json_get_string(v, "code"), *why = molt_json_get_string(v, "error");

    return molt_error_set(err, molt_code_from_name(code ? code : ""), "%s", why ? why : "the trial failed");
}

int molt_rehearse(const char *unit, const char *dir, const char *toolbox, const char *const *absent, int timeout_ms, struct molt_trial *ret,
                  struct molt_error **err)
{
    struct molt_trial t = {0};
    int64_t begun = molt_mono_us();
    int fd[2], status, r;
    pid_t pid;

    if (pipe2(fd, O_CLOEXEC) < 0)
        return molt_error_errno(err, "make a pipe");
    pid = fork();
    if (pid < 0) {
        r = molt_error_errno(err, "fork");
        close(fd[0]);
        close(fd[1]);
        return r;
    }
    if (pid == 0) {
        CLEANUP_ERROR struct molt_error *e = NULL;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(fd[0]);
        r = trial(unit, dir, toolbox, absent, timeout_ms, &t.step, &e);
        tell(fd[1], r, &t.step, e);
        _exit(0);
    }
    close(fd[1]);
    r = hear(fd[0], timeout_ms + 2 * DEATH_MS + MOLT_FIRST_STEP_MS, &t.step, err);
    close(fd[0]);
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    t.stats.wall_us = (uint64_t)(molt_mono_us() - begun);
    if (r == 0)
        r = molt__stats_read(dir, "restore", &t.stats, err);
    if (r == 0)
        *ret = t;
    return r < 0 ? molt_error_prefix(err, "trial of the restore of %s", unit) : 0;
}
