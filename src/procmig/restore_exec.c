/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The program that systemd starts as the unit's ExecStart= for the time of a restore. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/carry.h"
#include "procmig/procfs.h"
#include "procmig/restore_internal.h"

#define SOCKETS_MAX        1024
#define RESTORE_TIMEOUT_MS 300000

/* Tells the agent an outcome: {"ok", "pid", "code", "error"} in a file that appears whole. */
static void tell(const char *unit, const char *file, const struct molt_error *e)
{
    CLEANUP_FREE char *path = molt__restore_path(unit, file), *part = molt_xasprintf("%s.part", path),
                      *text = NULL;
    CLEANUP_JSON struct molt_json *v = molt_json_object();

    molt_json_set_bool(v, "ok", e == NULL);
    molt_json_set_int(v, "pid", getpid());
    if (e) {
        molt_json_set_string(v, "code", molt_code_name(molt_error_code(e)));
        molt_json_set_string(v, "error", molt_error_text(e));
    }
    text = molt_json_print(v, false);
    if (molt_write_file(part, text, strlen(text), 0600, NULL) == 0)
        (void)rename(part, path);
}

static int load_meta(const char *images, struct molt_json **ret_v, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/%s", images, MOLT_DUMP_META), *text = NULL;
    size_t len;
    int r = molt_read_file(path, 16u << 20, &text, &len, err);

    if (r == 0)
        r = molt_json_parse(text, len, ret_v, err);
    if (r == 0 && molt_json_get_int(*ret_v, "schema", 0) != 1)
        r = molt_error_set(err, MOLT_E_PROTOCOL, "the images have no valid %s", MOLT_DUMP_META);
    return r;
}

/* The unit's own journal streams, kept away from 0 to 2, which criu_run covers. */
static int keep_stream(int fd, struct molt_error **err)
{
    int kept = fcntl(fd, F_DUPFD, 100);

    return kept < 0 ? molt_error_errno(err, "keep descriptor %d", fd) : kept;
}

static int run_restore(const struct molt_restore_spec *s, const struct molt_json *meta, const int stream[2],
                       struct molt_error **err)
{
    CLEANUP_FREE char *pidfile = molt__restore_path(s->unit, "pid");
    CLEANUP_FREE char *log = molt_xasprintf("%s/restore.log", s->images);
    const struct molt_json *sockets = molt_json_get(meta, "sockets");
    char *fixed[] = {NULL,
                     "restore",
                     "-D",
                     s->images,
                     "-o",
                     "restore.log",
                     "-v2",
                     "-d",
                     "--leave-stopped",
                     "--tcp-established",
                     "--file-locks",
                     "--manage-cgroups=ignore",
                     "--ext-unix-sk",
                     "--pidfile",
                     pidfile};
    size_t n = sizeof(fixed) / sizeof(fixed[0]), more = molt_json_size(sockets);
    CLEANUP_FREE char **argv = NULL;
    int r;

    if (more > SOCKETS_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "too many journal sockets in the images");
    argv = molt_xcalloc(n + 2 * more + 1, sizeof(*argv));
    memcpy(argv, fixed, sizeof(fixed));
    for (size_t i = 0; i < more; i++) {
        const struct molt_json *o = molt_json_at(sockets, i);

        argv[n + 2 * i] = "--inherit-fd";
        argv[n + 2 * i + 1] =
            molt_xasprintf("fd[%d]:socket:[%" PRId64 "]", stream[molt_json_get_bool(o, "stderr", false)],
                           molt_json_get_int(o, "ino", 0));
    }
    r = molt__criu_run(s->toolbox, argv, 0, RESTORE_TIMEOUT_MS, log, err);
    for (size_t i = 0; i < more; i++)
        free(argv[n + 2 * i + 1]);
    return r;
}

/* All that is slow and can be done before the freeze. */
static int get_ready(const struct molt_restore_spec *s, int stream[2], struct molt_error **err)
{
    CLEANUP_OVERLAY struct molt_overlay *o = NULL;
    int r = stream[0] = keep_stream(1, err);

    if (r >= 0)
        r = stream[1] = keep_stream(2, err);
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
    /* Brings CRIU and its libraries into memory and its feature cache up to date, in this very namespace. */
    return molt_criu_check(s->toolbox, err);
}

static int wait_go(const struct molt_restore_spec *s, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt__restore_path(s->unit, "go");
    /* Both directions, so that it never meets an end of file before the word is given. */
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    char word[3];

    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    tell(s->unit, "ready", NULL);
    if (molt_read_all(fd, word, sizeof(word)) != 1 || memcmp(word, "go\n", 3))
        return molt_error_set(err, MOLT_E_ABORTED, "told not to restore");
    return 0;
}

static int restore(const struct molt_restore_spec *s, const int stream[2], struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *meta = NULL;
    int r = load_meta(s->images, &meta, err);

    if (r == 0)
        r = molt__carry_place(molt_json_get(meta, "carry"), s->images, err);
    if (r == 0)
        r = run_restore(s, meta, stream, err);
    return r;
}

int molt_restore_exec(const char *spec_path)
{
    struct molt_restore_spec s = {0};
    CLEANUP_ERROR struct molt_error *err = NULL;
    int stream[2] = {-1, -1};
    const char *stage = "ready";

    if (molt__restore_spec_load(spec_path, &s, &err) < 0) {
        fprintf(stderr, "%s: %s\n", spec_path, molt_error_text(err));
        return 1;
    }
    if (get_ready(&s, stream, &err) == 0 && wait_go(&s, &err) == 0) {
        stage = "result";
        (void)restore(&s, stream, &err);
    }
    if (err)
        fprintf(stderr, "restore of %s: %s\n", s.unit, molt_error_text(err));
    tell(s.unit, stage, err);
    molt_restore_spec_clear(&s);
    return err ? 1 : 0;
}
