/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"

#define NAME    "control"
#define BACKLOG 16

/* A socket's address is short, a state directory may be deep: by way of the directory's descriptor it always fits. */
static void address(int dirfd, struct sockaddr_un *sa)
{
    *sa = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/" NAME, dirfd);
}

int molt_control_listen(const char *dir, int *ret_fd, struct molt_error **err)
{
    struct sockaddr_un sa;
    CLEANUP_CLOSE int dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (dirfd < 0 || fd < 0)
        return molt_error_errno(err, "control socket in %s", dir);
    unlinkat(dirfd, NAME, 0);
    address(dirfd, &sa);
    /* The mode before the name: nobody else may connect in between. */
    if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || fchmodat(dirfd, NAME, 0600, 0) < 0 ||
        listen(fd, BACKLOG) < 0)
        return molt_error_errno(err, "control socket in %s", dir);
    *ret_fd = MOLT_STEAL_FD(fd);
    return 0;
}

void molt_control_end(const char *dir, int fd)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/" NAME, dir);
    if (fd >= 0)
        close(fd);
    unlink(path);
}

/* 1: ready, 0: time is over, -1: broken. */
static int ready(int fd, short events, int64_t until)
{
    for (;;) {
        int64_t left = until - molt_mono_ms();
        struct pollfd p = {fd, events, 0};
        int n = poll(&p, 1, left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left);
        if (n >= 0 || errno != EINTR)
            return n;
    }
}

static int send_line(int fd, const struct molt_json *v, int64_t until)
{
    CLEANUP_FREE char *json = molt_json_print(v, false);
    CLEANUP_FREE char *text = molt_xasprintf("%s\n", json);
    const char *p = text;
    size_t left = strlen(text);
    while (left) {
        ssize_t n = send(fd, p, left, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            p += n;
            left -= (size_t)n;
        } else if ((n < 0 && errno != EAGAIN && errno != EINTR) || ready(fd, POLLOUT, until) <= 0) {
            return -1;
        }
    }
    return 0;
}

/* Up to the newline; NULL with *ret_why on anything else. */
static char *receive_line(int fd, size_t max, int64_t until, size_t *ret_len, const char **ret_why)
{
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    CLEANUP_FREE char *buf = molt_xmalloc(65536);
    for (;;) {
        ssize_t n = recv(fd, buf, 65536, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            int r = ready(fd, POLLIN, until);
            *ret_why = r == 0 ? "no answer in time" : "broken";
            if (r <= 0)
                return NULL;
            continue;
        }
        if (n <= 0) {
            *ret_why = "the other side closed it";
            return NULL;
        }
        const char *end = memchr(buf, '\n', (size_t)n);
        molt_strbuf_add(&b, buf, end ? (size_t)(end - buf) : (size_t)n);
        if (b.len > max) {
            *ret_why = "too long";
            return NULL;
        }
        if (end) {
            *ret_len = b.len;
            return molt_strbuf_steal(&b);
        }
    }
}

/* ---- the runner's side ---- */

static bool allowed(int fd)
{
    struct ucred c;
    socklen_t len = sizeof(c);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) == 0 && (c.uid == 0 || c.uid == geteuid());
}

static struct molt_json *answer_error(int code, const char *text)
{
    struct molt_json *e = molt_json_object();
    molt_json_set_int(e, "code", code);
    molt_json_set_string(e, "message", text);
    molt_json_set_string(e, "data", molt_code_name(code));
    return e;
}

static void serve_request(int fd, molt_control_fn fn, void *ctx)
{
    const char *why = "";
    size_t len = 0;
    CLEANUP_JSON struct molt_json *request = NULL, *answer = molt_json_object();
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_json *result = NULL;
    CLEANUP_FREE char *text = receive_line(fd, MOLT_CONTROL_REQUEST_MAX, molt_mono_ms() + MOLT_CONTROL_PEER_MS, &len, &why);
    int r = text ? molt_json_parse(text, len, &request, &err) : molt_error_set(&err, MOLT_E_PROTOCOL, "request: %s", why);
    const char *method = molt_json_get_string(request, "method");
    if (r == 0 && (!method || !molt_streq(molt_json_get_string(request, "jsonrpc"), "2.0")))
        r = molt_error_set(&err, MOLT_E_PROTOCOL, "not a request");
    if (r == 0)
        r = fn(ctx, method, molt_json_get(request, "params"), &result, &err);
    molt_json_set_string(answer, "jsonrpc", "2.0");
    molt_json_set_int(answer, "id", molt_json_get_int(request, "id", 0));
    if (r < 0) {
        molt_json_set(answer, "error", answer_error(r, molt_error_text(err)));
        molt_json_free(result);
    } else {
        molt_json_set(answer, "result", result ? result : molt_json_object());
    }
    send_line(fd, answer, molt_mono_ms() + MOLT_CONTROL_PEER_MS); /* an asker that is gone does not miss it */
}

int molt_control_serve(int fd, int wait_ms, molt_control_fn fn, void *ctx)
{
    if (ready(fd, POLLIN, molt_mono_ms() + wait_ms) <= 0)
        return 0;
    CLEANUP_CLOSE int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (c < 0)
        return 0;
    if (allowed(c))
        serve_request(c, fn, ctx);
    return 1;
}

/* ---- the asker's side ---- */

static int take_answer(const char *text, size_t len, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = molt_json_parse(text, len, &v, err);
    if (r < 0)
        return r;
    const struct molt_json *e = molt_json_get(v, "error");
    if (molt_json_type(e) == MOLT_JSON_OBJECT) {
        const char *message = molt_json_get_string(e, "message");
        int code = molt_code_from_name(molt_json_get_string(e, "data"));
        return molt_error_set(err, code < 0 ? code : MOLT_E_PROTOCOL, "%s", message ? message : "unknown error");
    }
    if (molt_json_type(molt_json_get(v, "result")) != MOLT_JSON_OBJECT)
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed answer");
    if (ret)
        *ret = molt_json_copy(molt_json_get(v, "result"));
    return 0;
}

int molt_control_call(const char *dir, const char *method, const struct molt_json *params, int timeout_ms,
                      struct molt_json **ret, struct molt_error **err)
{
    struct sockaddr_un sa;
    CLEANUP_CLOSE int dirfd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int64_t until = molt_mono_ms() + timeout_ms;
    const char *why = "";
    size_t len = 0;
    if (dirfd < 0 || fd < 0)
        return molt_error_errno(err, "control socket in %s", dir);
    address(dirfd, &sa);
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return molt_error_set(err, MOLT_E_STATE, "nobody listens at %s/" NAME " (%s)", dir, strerror(errno));
    CLEANUP_JSON struct molt_json *request = molt_json_object();
    molt_json_set_string(request, "jsonrpc", "2.0");
    molt_json_set_int(request, "id", 1);
    molt_json_set_string(request, "method", method);
    molt_json_set(request, "params", params ? molt_json_copy(params) : molt_json_object());
    if (send_line(fd, request, until) < 0)
        return molt_error_set(err, MOLT_E_PROTOCOL, "the operation's command does not take the request");
    CLEANUP_FREE char *text = receive_line(fd, MOLT_CONTROL_ANSWER_MAX, until, &len, &why);
    if (!text)
        return molt_error_set(err, molt_mono_ms() >= until ? MOLT_E_TIMEOUT : MOLT_E_PROTOCOL,
                              "the operation's command gave no answer (%s)", why);
    return take_answer(text, len, ret, err);
}
