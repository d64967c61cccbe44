/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"

#define ANSWER_MS 60000
#define CONNECT_MS 10000
#define MAX_LINE (4u << 20)

struct molt_qmp {
    int fd;
    int64_t id;
    struct molt_strbuf in;
};

void molt_qmp_close(struct molt_qmp *q)
{
    if (!q)
        return;
    if (q->fd >= 0)
        close(q->fd);
    molt_strbuf_free(&q->in);
    free(q);
}

/* The next line as JSON. */
static int read_message(struct molt_qmp *q, struct molt_json **ret, struct molt_error **err)
{
    int64_t end = molt_mono_ms() + ANSWER_MS;
    for (;;) {
        char *nl = q->in.len ? memchr(q->in.s, '\n', q->in.len) : NULL;
        if (nl) {
            size_t n = (size_t)(nl - q->in.s) + 1;
            int r = molt_json_parse(q->in.s, n, ret, err);
            memmove(q->in.s, q->in.s + n, q->in.len - n + 1);
            q->in.len -= n;
            return r;
        }
        struct pollfd p = {q->fd, POLLIN, 0};
        int64_t left = end - molt_mono_ms();
        if (left <= 0)
            return molt_error_set(err, MOLT_E_TIMEOUT, "QMP: no answer within %d s", ANSWER_MS / 1000);
        if (poll(&p, 1, (int)left) <= 0)
            continue;
        char buf[8192];
        ssize_t n = read(q->fd, buf, sizeof(buf));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return molt_error_set(err, MOLT_E_INTERNAL, "QMP: the device model closed the connection");
        molt_strbuf_add(&q->in, buf, (size_t)n);
        if (q->in.len > MAX_LINE)
            return molt_error_set(err, MOLT_E_PROTOCOL, "QMP: answer too long");
    }
}

/* No SIGPIPE in the caller's program when the device model dies. */
static int send_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

int molt_qmp_call(struct molt_qmp *q, const char *command, struct molt_json *args, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *rq = molt_json_object();
    molt_json_set_string(rq, "execute", command);
    if (args)
        molt_json_set(rq, "arguments", args);
    molt_json_set_int(rq, "id", ++q->id);
    CLEANUP_FREE char *text = molt_json_print(rq, false);
    if (send_all(q->fd, text, strlen(text)) < 0 || send_all(q->fd, "\n", 1) < 0)
        return molt_error_errno(err, "QMP: send");
    for (;;) {
        CLEANUP_JSON struct molt_json *m = NULL;
        int r = read_message(q, &m, err);
        if (r < 0)
            return r;
        if (molt_json_get_int(m, "id", 0) != q->id)
            continue; /* an event, or the late answer of an earlier call */
        const struct molt_json *e = molt_json_get(m, "error");
        if (e) {
            const char *desc = molt_json_get_string(e, "desc");
            return molt_error_set(err, MOLT_E_INTERNAL, "QMP %s: %.500s", command, desc ? desc : "error");
        }
        if (ret)
            *ret = molt_json_copy(molt_json_get(m, "return"));
        return 0;
    }
}

int molt_qmp_open_path(const char *path, struct molt_qmp **ret, struct molt_error **err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct molt_qmp *q = molt_xcalloc(1, sizeof(*q));
    CLEANUP_JSON struct molt_json *greeting = NULL;
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* One client at a time: libxl may be inside for a moment. */
    int64_t end = molt_mono_ms() + CONNECT_MS;
    while (connect(q->fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        if (errno == ENOENT || errno == ECONNREFUSED || molt_mono_ms() > end) {
            int r = molt_error_errno(err, "QMP: connect to %s", path);
            molt_qmp_close(q);
            return r;
        }
        molt_sleep_ms(50);
    }
    int r = read_message(q, &greeting, err);
    if (r == 0 && !molt_json_get(greeting, "QMP"))
        r = molt_error_set(err, MOLT_E_PROTOCOL, "QMP: no greeting");
    if (r == 0)
        r = molt_qmp_call(q, "qmp_capabilities", NULL, NULL, err);
    if (r < 0) {
        molt_qmp_close(q);
        return r;
    }
    *ret = q;
    return 0;
}

int molt_qmp_open(uint32_t domid, struct molt_qmp **ret, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("/var/run/xen/qmp-libxl-%u", domid);
    return molt_qmp_open_path(path, ret, err);
}
