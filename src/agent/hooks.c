/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/hooks.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "base/subprocess.h"

#define SAID_MAX 400

/* As run-parts(8) has it, and dots for names such as "50-jvm.sh". */
static bool is_hook_name(const char *name)
{
    size_t n = strlen(name);
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
            return false;
    return name[0] != '.' && !strstr(name, ".dpkg-") && !strstr(name, ".rpm") && !strstr(name, ".ucf-") && n > 0 && n < 128;
}

static int is_candidate(const struct dirent *e)
{
    return is_hook_name(e->d_name);
}

/* NULL: it may be run as root. */
static const char *why_not(const struct stat *st, mode_t type)
{
    if ((st->st_mode & S_IFMT) != type)
        return type == S_IFDIR ? "not a directory" : "not a regular file";
    if (st->st_uid != 0)
        return "not owned by root";
    if (st->st_mode & (S_IWGRP | S_IWOTH))
        return "writable by others than root";
    return st->st_mode & S_IXUSR ? NULL : "not executable";
}

static void keep_line(void *ctx, const char *line)
{
    char **said = ctx;
    free(*said);
    *said = molt_xstrndup(line, SAID_MAX);
}

static int run_one(const char *path, const char *name, const char *event, char *const env[], int limit_s, struct molt_json *o, struct molt_error **err)
{
    char *argv[] = {(char *)path, (char *)event, NULL};
    CLEANUP_FREE char *said = NULL;
    const struct molt_run_opts opts = {.timeout_ms = limit_s * 1000, .dir = "/", .env = env, .new_session = true, .line = keep_line, .line_ctx = &said};
    int64_t t0 = molt_mono_us();
    int status = -1, r = molt_run(argv, &opts, &status, NULL, err);
    molt_json_set_double(o, "ms", (double)(molt_mono_us() - t0) / 1000);
    molt_json_set_int(o, "status", r == 0 ? status : -1);
    if (said)
        molt_json_set_string(o, "said", said);
    if (r == MOLT_E_TIMEOUT) {
        molt_error_clear(err);
        return molt_error_set(err, MOLT_E_HOOK, "the hook %s did not end within %d s at %s", name, limit_s, event);
    }
    if (r < 0)
        return molt_error_prefix(err, "hook %s", name);
    return status == 0 ? 0 : molt_error_set(err, MOLT_E_HOOK, "the hook %s ended with status %d at %s%s%.*s", name, status, event, said ? ": " : "", SAID_MAX, said ? said : "");
}

int hooks_run(const char *dir, const char *event, char *const env[], int limit_s, bool stop, struct molt_json *ret, struct molt_error **err)
{
    struct dirent **list = NULL;
    struct stat st;
    int64_t end = molt_mono_ms() + (int64_t)limit_s * 4000;
    int result = 0;
    if (stat(dir, &st) < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : molt_error_errno(err, "look at %s", dir);
    const char *bad = why_not(&st, S_IFDIR);
    if (bad)
        return molt_error_set(err, MOLT_E_HOOK, "%s is %s: nothing in it is run", dir, bad);
    int n = scandir(dir, &list, is_candidate, alphasort);
    if (n < 0)
        return molt_error_errno(err, "list %s", dir);
    for (int i = 0; i < n; i++) {
        CLEANUP_FREE char *path = molt_xasprintf("%s/%s", dir, list[i]->d_name);
        struct molt_error *e = NULL;
        struct molt_json *o;
        if ((result < 0 && stop) || i >= MOLT_HOOKS_MAX)
            continue; /* only to be freed */
        o = molt_json_object();
        molt_json_set_string(o, "name", list[i]->d_name);
        bad = stat(path, &st) < 0 ? "not to be found" : why_not(&st, S_IFREG);
        int64_t left = (end - molt_mono_ms()) / 1000;
        int limit = left < 1 ? 1 : left < limit_s ? (int)left : limit_s;
        int r = bad ? 0 : run_one(path, list[i]->d_name, event, env, limit, o, &e);
        if (bad)
            molt_json_set_string(o, "skipped", bad);
        molt_json_append(ret, o);
        if (r < 0 && result == 0) {
            result = r;
            molt_error_move(err, MOLT_STEAL_PTR(e));
        }
        molt_error_free(e);
    }
    for (int i = 0; i < n; i++)
        free(list[i]);
    free(list);
    return result;
}
