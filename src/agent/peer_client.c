/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "proto/vchan.h"

#define CONNECT_MS 60000

int peer_stream_begin(struct peer_stream *p, const char *op, const struct molt_json *args, const void *upload, size_t len,
                      bool with_upload, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *rq = args ? molt_json_copy(args) : molt_json_object();
    p->seq = (uint32_t)(p->chan->bytes_out + 1);
    p->off = 0;
    molt_json_set_string(rq, "op", op);
    int r = molt_msg_send_json(p->chan, MOLT_MSG_REQUEST, p->seq, rq, err);
    const char *u = upload;
    while (r == 0 && with_upload && len > 0) {
        size_t n = len < MOLT_DATA_CHUNK ? len : MOLT_DATA_CHUNK;
        r = molt_msg_send(p->chan, MOLT_MSG_DATA, p->seq, u, n, err);
        u += n;
        len -= n;
    }
    if (r == 0 && with_upload)
        r = molt_msg_send(p->chan, MOLT_MSG_DATA_END, p->seq, NULL, 0, err);
    p->open = r == 0;
    return r;
}

/* Takes the next message of the answer. 1: data; 0: the reply came (p->error set when it is an error). */
static int next(struct peer_stream *p)
{
    molt_msg_clear(&p->msg);
    p->off = 0;
    if (molt_msg_recv(p->chan, p->chan->timeout_ms, &p->msg, &p->error) < 0)
        return -1;
    if (p->msg.seq != p->seq) {
        molt_error_set(&p->error, MOLT_E_PROTOCOL, "answer to another request");
        return -1;
    }
    if (p->msg.type == MOLT_MSG_DATA)
        return 1;
    if (p->msg.type == MOLT_MSG_EVENT)
        return next(p);
    p->open = false;
    CLEANUP_JSON struct molt_json *v = NULL;
    if (p->msg.type != MOLT_MSG_REPLY || molt_json_parse(p->msg.payload, p->msg.len, &v, &p->error) < 0) {
        molt_error_set(&p->error, MOLT_E_PROTOCOL, "malformed answer");
        return -1;
    }
    if (!molt_json_get_bool(v, "ok", false))
        molt_error_set(&p->error, molt_code_from_name(molt_json_get_string(v, "code")), "%.1000s",
                       molt_json_get_string(v, "error") ? molt_json_get_string(v, "error") : "unknown error");
    molt_msg_clear(&p->msg);
    return 0;
}

int peer_stream_read(void *ctx, void *buf, size_t len)
{
    struct peer_stream *p = ctx;
    char *to = buf;
    while (len > 0) {
        if (p->off == p->msg.len) {
            if (!p->open || next(p) <= 0) {
                errno = EPIPE;
                return -1;
            }
            continue;
        }
        size_t n = p->msg.len - p->off < len ? p->msg.len - p->off : len;
        memcpy(to, p->msg.payload + p->off, n);
        p->off += n;
        to += n;
        len -= n;
    }
    return 0;
}

int peer_stream_end(struct peer_stream *p, struct molt_error **err)
{
    int r = 1;
    while (p->open && r > 0)
        r = next(p);
    molt_msg_clear(&p->msg);
    p->off = 0;
    if (p->error) {
        int code = molt_error_code(p->error);
        molt_error_move(err, MOLT_STEAL_PTR(p->error));
        return code;
    }
    return 0;
}

struct file_sink {
    int fd;
    uint64_t bytes;
};

static int to_file(void *ctx, const void *buf, size_t len, struct molt_error **err)
{
    struct file_sink *s = ctx;
    s->bytes += len;
    return molt_write_all(s->fd, buf, len) < 0 ? molt_error_errno(err, "write") : 0;
}

int peer_fetch_file(struct molt_chan *chan, const char *op, const struct molt_json *args, const char *path, uint64_t *ret_bytes,
                    struct molt_error **err)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return molt_error_errno(err, "open %s", path);
    struct file_sink s = {fd, 0};
    struct molt_call call = {.data = to_file, .ctx = &s};
    int r = molt_call(chan, op, args, &call, NULL, err);
    if (r == 0 && ret_bytes)
        *ret_bytes += s.bytes;
    return r < 0 ? molt_error_prefix(err, "%s", path) : 0;
}

/* {"domid": N, "path": "/local/domain/N/data/xenmolt/peer-..."} */
int h_peer_connect(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const char *path = molt_json_get_string(rq->args, "path");
    int64_t domid = molt_json_get_int(rq->args, "domid", -1);
    (void)reply;
    if (!path || domid <= 0)
        return molt_error_set(err, MOLT_E_PROTOCOL, "peer-connect: bad arguments");
    molt_chan_close(s->peer);
    s->peer = NULL;
    int r = molt_vchan_connect((uint32_t)domid, path, CONNECT_MS, &s->peer, err);
    if (r == 0)
        s->peer->timeout_ms = 600000; /* hashing and scanning send nothing meanwhile */
    return r;
}
