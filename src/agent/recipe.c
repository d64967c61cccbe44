/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs an upgrade recipe in the clone: root, no terminal, no standard input, bounded in time, every line of output
 * streamed to the host. Services are not started by maintainer scripts (policy-rc.d, Debian's own hook for that).
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"

#define POLICY_RC_D "/usr/sbin/policy-rc.d"
#define DEFAULT_LIMIT_S 3600

struct sink {
    int fd;
};

static int write_chunk(void *ctx, const void *buf, size_t len, struct molt_error **err)
{
    return molt_write_all(((struct sink *)ctx)->fd, buf, len) < 0 ? molt_error_errno(err, "store the recipe") : 0;
}

static int drop_chunk(void *ctx, const void *buf, size_t len, struct molt_error **err)
{
    (void)ctx, (void)buf, (void)len, (void)err;
    return 0;
}

static int store(struct molt_request *rq, const char *path, struct molt_error **err)
{
    int r = molt_mkdir_p(MOLT_AGENT_RECIPE, 0700, err);
    CLEANUP_CLOSE int fd = r < 0 ? -1 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    if (r == 0 && fd < 0)
        r = molt_error_errno(err, "open %s", path);
    struct sink s = {fd};
    if (r < 0) {
        molt_request_upload(rq, MOLT_MAX_RECIPE, drop_chunk, NULL, NULL); /* the reply comes behind the upload */
        return r;
    }
    return molt_request_upload(rq, MOLT_MAX_RECIPE, write_chunk, &s, err);
}

static void send_line(void *ctx, const char *line)
{
    CLEANUP_JSON struct molt_json *ev = molt_json_object();
    molt_json_set_string(ev, "line", line);
    molt_request_event(ctx, ev, NULL);
}

static bool host_gone(void *ctx)
{
    struct molt_request *rq = ctx;
    char probe;
    /* A zero-length look: the channel tells by its read whether it is closed. */
    return rq->chan->ops->read(rq->chan, &probe, 0) < 0;
}

static int package_state(struct molt_error **err)
{
    if (!molt_exists("/var/lib/dpkg/status"))
        return 0;
    char *argv[] = {"dpkg", "--audit", NULL};
    CLEANUP_FREE char *out = NULL;
    int status = 0;
    struct molt_run_opts o = {.timeout_ms = 120000};
    int r = molt_run(argv, &o, &status, &out, err);
    if (r < 0)
        return r;
    if (status != 0 || out[0])
        return molt_error_set(err, MOLT_E_RECIPE, "the recipe left the package system half-configured (dpkg --audit): %.300s", out);
    return 0;
}

int h_recipe(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    static const char deny[] = "#!/bin/sh\nexit 101\n";
    static char *const env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                "DEBIAN_FRONTEND=noninteractive", "DEBIAN_PRIORITY=critical", "APT_LISTCHANGES_FRONTEND=none",
                                "NEEDRESTART_SUSPEND=1", "UCF_FORCE_CONFFOLD=1", "LC_ALL=C.UTF-8", "HOME=/root", "TERM=dumb", NULL};
    const char *arg = molt_json_get_string(rq->args, "arg");
    int64_t limit_s = molt_json_get_int(rq->args, "timeout_s", DEFAULT_LIMIT_S);
    char *path = MOLT_AGENT_RECIPE "/run";
    int r = store(rq, path, err);
    if (r < 0)
        return r;
    bool ours = !molt_exists(POLICY_RC_D);
    if (ours && (r = molt_write_file(POLICY_RC_D, deny, sizeof(deny) - 1, 0755, err)) < 0)
        return r;
    char *argv[] = {path, (char *)arg, NULL};
    struct molt_run_opts o = {.timeout_ms = (int)(limit_s * 1000), .dir = "/", .env = env, .new_session = true,
                              .line = send_line, .line_ctx = rq, .cancelled = host_gone, .cancel_ctx = rq};
    int status = 0;
    r = molt_run(argv, &o, &status, NULL, err);
    if (ours)
        unlink(POLICY_RC_D);
    molt_remove_tree(MOLT_AGENT_RECIPE, NULL);
    sync();
    if (r == MOLT_E_TIMEOUT)
        return molt_error_set(err, MOLT_E_RECIPE, "the recipe did not end within %lld s", (long long)limit_s);
    if (r < 0)
        return r;
    molt_json_set_int(reply, "status", status);
    if (status != 0)
        return molt_error_set(err, MOLT_E_RECIPE, "the recipe ended with status %d", status);
    return package_state(err);
}
