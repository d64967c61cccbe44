/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The clone's side before, between and after: drop-in, starting, waiting, adoption, undo. */
#include "procmig/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "procmig/lazy.h"
#include "procmig/procfs.h"
#include "procmig/residue.h"
#include "procmig/restore_internal.h"

#define SPEC_SCHEMA  1
#define BEFORE_MB_MAX (1 << 20)
#define PAGED_POLL_MS 200 /* each look takes from a workload that has a pause to make up for */
#define IDENT_CHARS  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@:-+"

char *molt__restore_path(const char *unit, const char *file)
{
    return molt_xasprintf("%s/restore/%s%s%s", MOLT_RUN_DIR, unit, file ? "/" : "", file ? file : "");
}

void molt_restore_spec_clear(struct molt_restore_spec *s)
{
    free(s->unit);
    free(s->images);
    free(s->toolbox);
    free(s->agent);
    free(s->cwd);
    free(s->id);
    *s = (struct molt_restore_spec){0};
}

static void set_path(struct molt_json *v, const char *key, const char *path)
{
    CLEANUP_FREE char *coded = path ? molt__path_encode(path) : NULL;

    if (coded)
        molt_json_set_string(v, key, coded);
}

struct molt_json *molt_restore_spec_json(const struct molt_restore_spec *s)
{
    struct molt_json *v = molt_json_object(), *ids = molt_json_array();

    for (size_t i = 0; i < s->ids; i++)
        molt_json_append(ids, molt_json_int(s->id[i]));
    molt_json_set_int(v, "schema", SPEC_SCHEMA);
    molt_json_set_string(v, "unit", s->unit);
    set_path(v, "images", s->images);
    set_path(v, "toolbox", s->toolbox ? s->toolbox : MOLT_TOOLBOX_DIR);
    set_path(v, "agent", s->agent);
    set_path(v, "cwd", s->cwd);
    molt_json_set_int(v, "main_pid", s->main_pid);
    molt_json_set(v, "ids", ids);
    molt_json_set_bool(v, "overlay", s->overlay);
    molt_json_set_int(v, "before_mb", (int64_t)s->before_mb);
    return v;
}

int molt_restore_spec_parse(const struct molt_json *v, struct molt_restore_spec *s, struct molt_error **err)
{
    const struct molt_json *ids = molt_json_get(v, "ids");
    const char *cwd = molt_json_get_string(v, "cwd"), *toolbox = molt_json_get_string(v, "toolbox");
    struct molt_restore_spec got = {0};
    int64_t pid = molt_json_get_int(v, "main_pid", 0), before = molt_json_get_int(v, "before_mb", MOLT_LAZY_BEFORE_MB);
    bool ok = before >= 0 && before <= BEFORE_MB_MAX && molt_json_get_int(v, "schema", 0) == SPEC_SCHEMA && pid > 1 && pid <= INT_MAX &&
              molt_json_type(ids) == MOLT_JSON_ARRAY && molt_json_size(ids) <= MOLT_TASKS_MAX &&
              molt_unit_name(molt_json_get_string(v, "unit"), &got.unit, NULL) == 0;

    got.images = molt__path_decode(molt_json_get_string(v, "images"));
    got.toolbox = toolbox ? molt__path_decode(toolbox) : molt_xstrdup(MOLT_TOOLBOX_DIR);
    got.agent = molt__path_decode(molt_json_get_string(v, "agent"));
    /* "/" is a working directory, but not a path that we decode. */
    got.cwd = cwd && strcmp(cwd, "/") ? molt__path_decode(cwd) : NULL;
    ok = ok && got.images && got.toolbox && got.agent && (!cwd || !strcmp(cwd, "/") || got.cwd);
    if (ok) {
        got.main_pid = (pid_t)pid;
        got.before_mb = (uint64_t)before;
        got.overlay = molt_json_get_bool(v, "overlay", false);
        got.id = molt_xcalloc(molt_json_size(ids) + 1, sizeof(*got.id));
        for (size_t i = 0; i < molt_json_size(ids) && ok; i++) {
            int64_t id = molt_json_intval(molt_json_at(ids, i), 0);

            ok = id > 1 && id <= INT_MAX;
            got.id[got.ids++] = (pid_t)id;
        }
    }
    if (!ok) {
        molt_restore_spec_clear(&got);
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed restore specification");
    }
    *s = got;
    return 0;
}

int molt__restore_spec_load(const char *path, struct molt_restore_spec *s, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int r = molt_read_file(path, 16u << 20, &text, &len, err);

    if (r == 0)
        r = molt_json_parse(text, len, &v, err);
    if (r == 0)
        r = molt_restore_spec_parse(v, s, err);
    return r;
}

/* systemd's own quoting: '%' doubled, quotes and backslashes escaped. */
static char *quote(const char *text)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;

    molt_strbuf_add(&b, "\"", 1);
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\')
            molt_strbuf_add(&b, "\\", 1);
        else if (*p == '%' || *p == '$')
            molt_strbuf_add(&b, p, 1);
        molt_strbuf_add(&b, p, 1);
    }
    molt_strbuf_add(&b, "\"", 1);
    return molt_strbuf_steal(&b);
}

char *molt__dropin_text(const struct molt_restore_spec *s, const char *spec_path, const char *ident)
{
    CLEANUP_FREE char *agent = quote(s->agent), *spec = quote(spec_path),
                      *pid = molt__restore_path(s->unit, "pid");

    return molt_xasprintf("# Made by xenmolt for the time of one restore.\n"
                          "[Unit]\n"
                          "StartLimitIntervalSec=0\n"
                          "[Service]\n"
                          "Type=forking\n"
                          "WorkingDirectory=/\n" /* its own may be on a disk that comes only in the blackout */
                          "PIDFile=%s\n"
                          "GuessMainPID=no\n"
                          "Restart=no\n"
                          "TimeoutStartSec=infinity\n"
                          "TimeoutStopSec=30\n"
                          "WatchdogSec=0\n"
                          "ExecCondition=\n"
                          "ExecStartPre=\n"
                          "ExecStartPost=\n"
                          "ExecStop=\n"
                          "ExecStopPost=\n"
                          "ExecStart=\n"
                          "ExecStart=+%s restore-exec %s\n"
                          "%s%s%s",
                          pid, agent, spec, ident ? "SyslogIdentifier=" : "", ident ? ident : "",
                          ident ? "\n" : "");
}

/* systemd reads drop-ins in the order of their names, whichever directory they are in, and the last word wins: ours has
 * to be behind the admin's (systemd.unit(5)). */
#define DROPIN "zzzz-xenmolt.conf"

static char *dropin_path(const char *unit)
{
    return molt_xasprintf("/run/systemd/system/%s.d/" DROPIN, unit);
}

/* The first of SHOW's DropInPaths that would be read after ours; malloc'd, NULL: none. */
char *molt__dropin_after(const char *show)
{
    CLEANUP_FREE char *paths = molt__show_get(show, "DropInPaths");
    char *save = NULL;

    for (char *p = paths ? strtok_r(paths, " ", &save) : NULL; p; p = strtok_r(NULL, " ", &save)) {
        const char *name = strrchr(p, '/');

        if (strcmp(name ? name + 1 : p, DROPIN) > 0)
            return molt_xstrdup(p);
    }
    return NULL;
}

/* What the journal calls the unit's output: its own setting (NULL: leave it), else the program's name, as
 * systemd would choose it; with our ExecStart= it would choose the agent's. malloc'd. */
char *molt__ident_of(const char *show)
{
    CLEANUP_FREE char *set = molt__show_get(show, "SyslogIdentifier"),
                      *exec = molt__show_get(show, "ExecStart");
    const char *path = exec ? strstr(exec, "path=/") : NULL, *name;
    size_t len;

    if ((set && *set) || !path)
        return NULL;
    path += strlen("path=");
    len = strcspn(path, " ;");
    for (name = path + len; name[-1] != '/'; name--)
        ;
    len -= (size_t)(name - path);
    if (len == 0 || len > 64 || strspn(name, IDENT_CHARS) < len)
        return NULL;
    return molt_xstrndup(name, len);
}

static int check_unit(const struct molt_restore_spec *s, char **ret_ident, struct molt_error **err)
{
    CLEANUP_FREE char *out = NULL, *load = NULL, *active = NULL, *after = NULL;
    int r = molt__systemctl_show(s->unit, "LoadState,ActiveState,SyslogIdentifier,ExecStart,DropInPaths", &out, err);

    if (r < 0)
        return r;
    *ret_ident = molt__ident_of(out);
    load = molt__show_get(out, "LoadState");
    active = molt__show_get(out, "ActiveState");
    if (!load || strcmp(load, "loaded"))
        return molt_error_set(err, MOLT_E_CANNOT_MOVE, "the upgraded guest has no unit %s (%s)", s->unit,
                              load ? load : "?");
    after = molt__dropin_after(out);
    if (after)
        return molt_error_set(err, MOLT_E_CANNOT_MOVE, "%s is read after the restore's own " DROPIN " and would win; rename it", after);
    if (!active || (strcmp(active, "inactive") && strcmp(active, "failed")))
        return molt_error_set(err, MOLT_E_CANNOT_MOVE, "%s is %s already", s->unit, active ? active : "?");
    if (!strcmp(active, "failed"))
        r = molt__systemctl("reset-failed", NULL, s->unit, err);
    return r;
}

static int check_place(const struct molt_restore_spec *s, char **ret_ident, struct molt_error **err)
{
    CLEANUP_FREE pid_t *taken = NULL;
    struct stat st;
    size_t n;
    int r = check_unit(s, ret_ident, err);

    if (r == 0)
        r = molt_pids_taken(s->id, s->ids, &taken, &n, err);
    if (r < 0)
        return r;
    if (n > 0) {
        CLEANUP_FREE char *comm = NULL;

        (void)molt__proc_text(taken[0], "comm", &comm, NULL);
        return molt_error_set(err, MOLT_E_CANNOT_MOVE,
                              "%zu of the workload's process ids are taken here, first %d (%.*s)", n,
                              (int)taken[0], comm ? (int)strcspn(comm, "\n") : 1, comm ? comm : "?");
    }
    if (s->cwd && (stat(s->cwd, &st) < 0 || !S_ISDIR(st.st_mode)))
        return molt_error_set(err, MOLT_E_CANNOT_MOVE,
                              "the workload's working directory %s does not exist here", s->cwd);
    return 0;
}

static int write_files(const struct molt_restore_spec *s, const char *ident, struct molt_error **err)
{
    CLEANUP_FREE char *dir = molt__restore_path(s->unit, NULL),
                      *spec = molt__restore_path(s->unit, "spec.json");
    CLEANUP_FREE char *go = molt__restore_path(s->unit, "go"), *dropin = dropin_path(s->unit),
                      *conf_dir = NULL;
    CLEANUP_FREE char *text = NULL, *conf = molt__dropin_text(s, spec, ident);
    CLEANUP_JSON struct molt_json *v = molt_restore_spec_json(s);
    int r = molt_remove_tree(dir, err);

    if (r == 0)
        r = molt_mkdir_p(dir, 0700, err);
    if (r < 0)
        return r;
    if (mkfifo(go, 0600) < 0)
        return molt_error_errno(err, "make %s", go);
    text = molt_json_print(v, false);
    conf_dir = molt_xstrdup(dropin);
    *strrchr(conf_dir, '/') = '\0';
    r = molt_write_file(spec, text, strlen(text), 0600, err);
    if (r == 0)
        r = molt_mkdir_p(conf_dir, 0755, err);
    if (r == 0)
        r = molt_write_file_atomic(dropin, conf, strlen(conf), 0644, err);
    return r;
}

/* What UNIT's result file says, {"ok": bool, "error": text}, as 0 or an error; MOLT_E_STATE while there is
 * none. *ret: with 0, the whole of it; ret may be NULL. */
static int read_result(const char *unit, const char *file, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt__restore_path(unit, file), *text = NULL;
    CLEANUP_JSON struct molt_json *v = NULL;
    const char *why;
    size_t len;

    if (!molt_exists(path))
        return MOLT_E_STATE;
    if (molt_read_file(path, 65536, &text, &len, err) < 0 || molt_json_parse(text, len, &v, err) < 0)
        return MOLT_E_INTERNAL;
    if (molt_json_get_bool(v, "ok", false)) {
        if (ret)
            *ret = MOLT_STEAL_PTR(v);
        return 0;
    }
    why = molt_json_get_string(v, "error");
    return molt_error_set(
        err, molt_code_from_name(molt_json_get_string(v, "code") ? molt_json_get_string(v, "code") : ""),
        "%s", why ? why : "the restore failed");
}

static bool unit_is_starting(const char *unit)
{
    CLEANUP_FREE char *out = NULL, *active = NULL, *job = NULL;

    if (molt__systemctl_show(unit, "ActiveState,Job", &out, NULL) < 0)
        return true;
    active = molt__show_get(out, "ActiveState");
    job = molt__show_get(out, "Job");
    return molt_streq(active, "activating") || (job && *job && strcmp(job, "0"));
}

/* Before the freeze: waits for the restore program to stand ready; looks at the unit now and then so that a start
 * that failed is noticed. */
static int wait_ready(const char *unit, int timeout_ms, struct molt_error **err)
{
    int64_t begun = molt_mono_ms(), look = begun + 1000;
    int r;

    while ((r = read_result(unit, "ready", NULL, err)) == MOLT_E_STATE) {
        int64_t now = molt_mono_ms();

        if (now > begun + timeout_ms)
            return molt_error_set(err, MOLT_E_TIMEOUT, "%s: the restore program did not answer within %d ms",
                                  unit, timeout_ms);
        if (now > look) {
            if (!unit_is_starting(unit) && read_result(unit, "ready", NULL, NULL) == MOLT_E_STATE)
                return molt_error_set(err, MOLT_E_INTERNAL, "%s: the start failed (see journalctl -u %s)",
                                      unit, unit);
            look = molt_mono_ms() + 2000;
        }
        molt_sleep_ms(20);
    }
    return r;
}

/* The pid that the restore program left with the word that it is ready; or 0. */
static pid_t ready_pid(const char *unit)
{
    CLEANUP_JSON struct molt_json *v = NULL;

    return read_result(unit, "ready", &v, NULL) == 0 ? (pid_t)molt_json_get_int(v, "pid", 0) : 0;
}

int molt_restore_lay(const struct molt_restore_spec *s, struct molt_error **err)
{
    CLEANUP_FREE char *ident = NULL;
    int r = check_place(s, &ident, err);

    return r < 0 ? r : write_files(s, ident, err);
}

int molt_restore_start(const char *unit, struct molt_error **err)
{
    /* Nothing but this unit may start: the rest of the guest is the caller's. */
    char *argv[] = {"systemctl", "start", "--no-block", "--job-mode=ignore-dependencies", (char *)unit, NULL};
    struct molt_run_opts opts = {.timeout_ms = MOLT__SYSTEMCTL_MS};

    return molt_run_ok(argv, &opts, NULL, err);
}

int molt_restore_ready(const char *unit, int timeout_ms, struct molt_error **err)
{
    return wait_ready(unit, timeout_ms, err);
}

struct molt_restoring {
    char *unit, *images;
    int watch, pidfd; /* the appearance of its result, and its death without one */
    int64_t begun_us;
};

static void restoring_free(struct molt_restoring *x)
{
    if (x->watch >= 0)
        close(x->watch);
    if (x->pidfd >= 0)
        close(x->pidfd);
    free(x->unit);
    free(x->images);
    free(x);
}

/* To the restore program; false: none waits. */
static bool say(const char *unit, const char *word)
{
    CLEANUP_FREE char *go = molt__restore_path(unit, "go");
    CLEANUP_CLOSE int fd = open(go, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

    return fd >= 0 && molt_write_all(fd, word, strlen(word)) == 0;
}

int molt_restore_begin(const char *unit, struct molt_restoring **ret, struct molt_error **err)
{
    CLEANUP_FREE char *dir = molt__restore_path(unit, NULL), *spec = molt__restore_path(unit, "spec.json");
    struct molt_restore_spec s = {0};
    int r = molt__restore_spec_load(spec, &s, err);

    if (r < 0)
        return r;
    struct molt_restoring *x = molt_xcalloc(1, sizeof(*x));

    *x = (struct molt_restoring){.unit = molt_xstrdup(unit), .images = MOLT_STEAL_PTR(s.images), .begun_us = molt_mono_us()};
    molt_restore_spec_clear(&s);
    x->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    x->pidfd = (int)syscall(SYS_pidfd_open, ready_pid(unit), 0);
    if (x->watch < 0 || inotify_add_watch(x->watch, dir, IN_MOVED_TO) < 0)
        r = molt_error_errno(err, "watch %s", dir);
    else if (x->pidfd < 0 || !say(unit, "go\n"))
        r = molt_error_set(err, MOLT_E_STATE, "%s: no restore program waits (%s)", unit, strerror(errno));
    if (r < 0)
        restoring_free(x);
    else
        *ret = x;
    return r;
}

/* In the blackout: sleeps until the result appears, or whoever would write it is dead. Nothing here may take the processor from the restore
 * (a call of systemctl would be a tenth of the blackout). */
static int wait_result(const struct molt_restoring *x, int timeout_ms, struct molt_json **ret, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + timeout_ms;
    char events[4096];

    for (;;) {
        struct pollfd p[2] = {{.fd = x->watch, .events = POLLIN}, {.fd = x->pidfd, .events = POLLIN}};
        int64_t left = end - molt_mono_ms();
        int n = poll(p, 2, left > 0 ? (int)left : 0);

        if (n < 0 && errno != EINTR)
            return molt_error_errno(err, "wait for the restore program");
        /* Looked at after the death: it may have been the last that it did. */
        int r = read_result(x->unit, "result", ret, err);

        if (r != MOLT_E_STATE)
            return r;
        if (n > 0 && p[1].revents)
            return molt_error_set(err, MOLT_E_INTERNAL, "%s: the restore program ended without a result (see journalctl -u %s)", x->unit, x->unit);
        if (n == 0 && left <= 0)
            return molt_error_set(err, MOLT_E_TIMEOUT, "%s: the restore did not end within %d ms", x->unit, timeout_ms);
        while (read(x->watch, events, sizeof(events)) > 0)
            ;
    }
}

int molt_restore_end(struct molt_restoring *x, int timeout_ms, struct molt_dump_stats *ret_stats, struct molt_error **err)
{
    struct molt_dump_stats stats = {0};
    CLEANUP_JSON struct molt_json *told = NULL;
    int r = wait_result(x, timeout_ms, &told, err);

    stats.wall_us = (uint64_t)(molt_mono_us() - x->begun_us);
    stats.before_us = (uint64_t)molt_json_get_int(told, "before_us", 0);
    stats.asked_us = (uint64_t)molt_json_get_int(told, "asked_us", 0);
    if (r == 0)
        r = molt__stats_read(x->images, "restore", &stats, err);
    if (r == 0 && ret_stats)
        *ret_stats = stats;
    restoring_free(x);
    return r;
}

static int main_pid_is(const char *unit, pid_t want, char **ret_state, struct molt_error **err)
{
    CLEANUP_FREE char *out = NULL, *active = NULL, *sub = NULL, *pid = NULL;
    int r = molt__systemctl_show(unit, "ActiveState,SubState,MainPID", &out, err);

    if (r < 0)
        return r;
    active = molt__show_get(out, "ActiveState");
    sub = molt__show_get(out, "SubState");
    pid = molt__show_get(out, "MainPID");
    *ret_state =
        molt_xasprintf("%s, %s, main process %s", active ? active : "?", sub ? sub : "?", pid ? pid : "?");
    return molt_streq(active, "active") && molt_streq(sub, "running") && pid && atoi(pid) == want;
}

static int wait_main_pid(const char *unit, pid_t want, int timeout_ms, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + timeout_ms;

    for (;;) {
        CLEANUP_FREE char *state = NULL;
        int r = main_pid_is(unit, want, &state, err);

        if (r != 0)
            return r < 0 ? r : 0;
        if (molt_mono_ms() > end)
            return molt_error_set(err, MOLT_E_INTERNAL,
                                  "systemd did not take process %d as %s's main process (%s)", (int)want,
                                  unit, state);
        molt_sleep_ms(20);
    }
}

static int load_main_pid(const char *unit, pid_t *ret_pid, struct molt_error **err)
{
    CLEANUP_FREE char *spec = molt__restore_path(unit, "spec.json");
    struct molt_restore_spec s = {0};
    int r = molt__restore_spec_load(spec, &s, err);

    if (r == 0)
        *ret_pid = s.main_pid;
    molt_restore_spec_clear(&s);
    return r;
}

int molt_restore_adopted(const char *unit, int timeout_ms, struct molt_error **err)
{
    pid_t pid;
    int r = load_main_pid(unit, &pid, err);

    (void)say(unit, "on\n"); /* a second time nobody may be there to hear it */
    return r < 0 ? r : wait_main_pid(unit, pid, timeout_ms, err);
}

/* The processes of the cgroup that the main process is in, from /proc alone (systemctl is slow). */
static int tree_of(const char *unit, pid_t **ret_v, size_t *ret_n, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL, *cg = NULL;
    pid_t pid;
    int r = load_main_pid(unit, &pid, err);

    if (r == 0)
        r = molt__proc_text(pid, "cgroup", &text, err);
    if (r < 0)
        return r;
    cg = molt__cgroup_parse(text);
    if (!cg || strlen(cg) < 2 || !strstr(cg, unit))
        return molt_error_set(err, MOLT_E_STATE, "process %d is not in the control group of %s", (int)pid,
                              unit);
    return molt__cgroup_pids(cg, ret_v, ret_n, err);
}

int molt_restore_thaw(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE pid_t *v = NULL;
    size_t n = 0;
    CLEANUP_FREE char *mark = molt__restore_path(unit, "thawed");
    int r = tree_of(unit, &v, &n, err);

    if (r == 0)
        r = molt_write_file(mark, "", 0, 0600, err);
    for (size_t i = n; r == 0 && i-- > 0;)
        if (kill(v[i], SIGCONT) < 0 && errno != ESRCH)
            r = molt_error_errno(err, "continue process %d", (int)v[i]);
    return r;
}

/* systemd knows of it until it is told to reload. */
static int remove_dropin(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE char *path = dropin_path(unit), *dir = molt_xstrdup(path);

    if (unlink(path) < 0 && errno != ENOENT)
        return molt_error_errno(err, "remove %s", path);
    *strrchr(dir, '/') = '\0';
    (void)rmdir(dir);
    return 0;
}

int molt_restore_paged(const char *unit, int timeout_ms, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_FREE char *paging = molt__restore_path(unit, MOLT__PAGING);
    int64_t end = molt_mono_ms() + timeout_ms;
    int r;

    *ret = NULL;
    if (!molt_exists(paging))
        return 0;
    while ((r = read_result(unit, MOLT__PAGED, ret, err)) == MOLT_E_STATE) {
        if (molt_mono_ms() > end)
            return molt_error_set(err, MOLT_E_TIMEOUT, "%s: not all of its memory was there within %d ms", unit, timeout_ms);
        molt_sleep_ms(PAGED_POLL_MS);
    }
    return r;
}

int molt_restore_settle(const char *unit, struct molt_error **err)
{
    pid_t pid;
    int r = load_main_pid(unit, &pid, err);

    if (r == 0)
        r = wait_main_pid(unit, pid, 30000, err);
    return r < 0 ? r : remove_dropin(unit, err);
}

int molt_restore_reload(struct molt_error **err)
{
    return molt__systemctl("daemon-reload", NULL, NULL, err);
}

int molt_restore_finish(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE char *dir = molt__restore_path(unit, NULL);
    pid_t pid;
    int r = load_main_pid(unit, &pid, err);

    if (r == 0)
        r = wait_main_pid(unit, pid, 30000, err);
    if (r == 0)
        r = molt_remove_tree(dir, err);
    return r;
}

/* Who was restored and does not go on. Silent sockets send no FIN or RST when their process dies. */
static int kill_tree(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE pid_t *v = NULL;
    size_t n = 0;
    int r = tree_of(unit, &v, &n, err);

    for (size_t i = 0; i < n; i++)
        molt__tcp_repair(v[i], true);
    for (size_t i = 0; i < n; i++)
        kill(v[i], SIGKILL);
    return r;
}

static int may_be_undone(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE char *mark = molt__restore_path(unit, "thawed");

    return molt_exists(mark) ? molt_error_set(err, MOLT_E_STATE, "%s serves here already; it can only be finished", unit) : 0;
}

int molt_restore_kill(const char *unit, struct molt_error **err)
{
    int r = may_be_undone(unit, err);

    return r < 0 ? r : kill_tree(unit, err);
}

int molt_restore_undo(const char *unit, struct molt_error **err)
{
    CLEANUP_FREE char *dropin = dropin_path(unit), *dir = molt__restore_path(unit, NULL);
    CLEANUP_FREE char *residue = molt__restore_path(unit, MOLT__RESIDUE);
    struct molt__residue rs = {NULL, 0, 0};
    int r;

    if (!molt_exists(dropin) && !molt_exists(dir))
        return 0;
    if ((r = may_be_undone(unit, err)) < 0)
        return r;
    (void)kill_tree(unit, NULL);
    if (molt_exists(dropin)) {
        (void)molt__systemctl("kill", "--signal=SIGKILL", unit, NULL);
        r = molt__systemctl("stop", NULL, unit, err);
        (void)molt__systemctl("reset-failed", NULL, unit, NULL);
    }
    if (r == 0)
        r = molt__residue_load(&rs, residue, err);
    molt__residue_clear(&rs);
    if (r == 0)
        r = remove_dropin(unit, err);
    if (r == 0)
        r = molt_restore_reload(err);
    if (r == 0)
        r = molt_remove_tree(dir, err);
    return r;
}
