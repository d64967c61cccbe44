/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proto/msg.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"

#define MAX_ERROR_TEXT 4096

struct header {
    uint32_t magic;
    uint16_t version, type;
    uint32_t seq, len;
} __attribute__((packed));

void molt_msg_clear(struct molt_msg *m)
{
    free(m->payload);
    *m = (struct molt_msg){0};
}

int molt_msg_send(struct molt_chan *c, enum molt_msg_type type, uint32_t seq, const void *payload, size_t len, struct molt_error **err)
{
    if (len > MOLT_MSG_MAX)
        return molt_error_set(err, MOLT_E_INTERNAL, "message of %zu bytes is over the limit", len);
    struct header h = {htole32(MOLT_MSG_MAGIC), htole16(MOLT_PROTO_VERSION), htole16((uint16_t)type), htole32(seq), htole32((uint32_t)len)};
    int r = molt_chan_write(c, &h, sizeof(h), c->timeout_ms, err);
    if (r == 0 && len)
        r = molt_chan_write(c, payload, len, c->timeout_ms, err);
    return r;
}

int molt_msg_send_json(struct molt_chan *c, enum molt_msg_type type, uint32_t seq, const struct molt_json *v, struct molt_error **err)
{
    CLEANUP_FREE char *text = molt_json_print(v, false);
    return molt_msg_send(c, type, seq, text, strlen(text), err);
}

int molt_msg_recv(struct molt_chan *c, int timeout_ms, struct molt_msg *m, struct molt_error **err)
{
    struct header h;
    int r = molt_chan_read(c, &h, sizeof(h), timeout_ms, err);
    if (r < 0)
        return r;
    if (le32toh(h.magic) != MOLT_MSG_MAGIC)
        return molt_error_set(err, MOLT_E_PROTOCOL, "not a message of ours (magic %08x)", le32toh(h.magic));
    if (le16toh(h.version) != MOLT_PROTO_VERSION)
        return molt_error_set(err, MOLT_E_AGENT_VERSION, "the other side speaks protocol %u, this side %u", le16toh(h.version), MOLT_PROTO_VERSION);
    uint16_t type = le16toh(h.type);
    uint32_t len = le32toh(h.len);
    if (type < MOLT_MSG_REQUEST || type > MOLT_MSG_DATA_END || len > MOLT_MSG_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "malformed message (type %u, %u bytes)", type, len);
    CLEANUP_FREE char *buf = molt_xmalloc((size_t)len + 1);
    r = len ? molt_chan_read(c, buf, len, c->timeout_ms, err) : 0;
    if (r < 0)
        return r;
    buf[len] = 0;
    m->type = type;
    m->seq = le32toh(h.seq);
    m->len = len;
    m->payload = MOLT_STEAL_PTR(buf);
    return 0;
}

static int upload(struct molt_chan *c, uint32_t seq, const struct molt_call *call, struct molt_error **err)
{
    CLEANUP_FREE char *buf = molt_xmalloc(MOLT_DATA_CHUNK);
    for (;;) {
        long n = call->upload(call->ctx, buf, MOLT_DATA_CHUNK, err);
        if (n < 0)
            return (int)n;
        int r = molt_msg_send(c, n ? MOLT_MSG_DATA : MOLT_MSG_DATA_END, seq, buf, (size_t)n, err);
        if (r < 0 || n == 0)
            return r;
    }
}

/* A peer's error: its code by name, its text cut and made printable. */
static int peer_error(const struct molt_json *reply, struct molt_error **err)
{
    const char *text = molt_json_get_string(reply, "error");
    CLEANUP_FREE char *clean = molt_xstrndup(text ? text : "unknown error", strnlen(text ? text : "unknown error", MAX_ERROR_TEXT));
    for (char *p = clean; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    int code = molt_code_from_name(molt_json_get_string(reply, "code"));
    return molt_error_set(err, code == MOLT_E_OK ? MOLT_E_PROTOCOL : code, "%s", clean);
}

static int take_reply(const struct molt_msg *m, struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *v = NULL;
    int r = molt_json_parse(m->payload, m->len, &v, err);
    if (r < 0)
        return r;
    if (!molt_json_get_bool(v, "ok", false))
        return peer_error(v, err);
    if (ret)
        *ret = MOLT_STEAL_PTR(v);
    return 0;
}

static int ask(struct molt_chan *c, const char *op, const struct molt_json *args, uint32_t *ret_seq, struct molt_error **err)
{
    /* Its answers would be taken for this one's. */
    if (c->broken)
        return molt_error_set(err, MOLT_E_TIMEOUT, "a call before this one got no answer");
    *ret_seq = (uint32_t)(c->bytes_out + 1); /* differs from call to call: bytes_out grows with each */
    CLEANUP_JSON struct molt_json *rq = args ? molt_json_copy(args) : molt_json_object();
    molt_json_set_string(rq, "op", op);
    return molt_msg_send_json(c, MOLT_MSG_REQUEST, *ret_seq, rq, err);
}

/* One message of the answer; *answered: it was the reply. */
static int take_message(struct molt_chan *c, uint32_t seq, const struct molt_call *call, bool *answered, struct molt_json **ret_reply,
                        struct molt_error **err)
{
    CLEANUP_MSG struct molt_msg m = {0};
    /* An endless stream of events must be abortable too, not only silence. */
    if (c->cancelled && c->cancelled(c->cancel_ctx))
        return molt_error_set(err, MOLT_E_ABORTED, "cancelled");
    int r = molt_msg_recv(c, call->timeout_ms ? call->timeout_ms : c->timeout_ms, &m, err);
    if (r < 0)
        return r;
    if (m.seq != seq)
        return molt_error_set(err, MOLT_E_PROTOCOL, "answer to another request");
    if (m.type == MOLT_MSG_REPLY) {
        *answered = true;
        return take_reply(&m, ret_reply, err);
    }
    if (m.type == MOLT_MSG_DATA && call->data)
        return call->data(call->ctx, m.payload, m.len, err);
    if (m.type != MOLT_MSG_EVENT)
        return molt_error_set(err, MOLT_E_PROTOCOL, "unexpected message of type %d", m.type);
    CLEANUP_JSON struct molt_json *ev = NULL;
    r = molt_json_parse(m.payload, m.len, &ev, err);
    if (r == 0 && call->event)
        call->event(call->ctx, ev);
    return r;
}

/* What begins a call with r has come to; a failure is told with its name. */
static int finish(struct molt_chan *c, const char *op, uint32_t seq, const struct molt_call *call, int r, struct molt_json **ret_reply,
                  struct molt_error **err)
{
    bool answered = false;
    while (r == 0 && !answered)
        r = take_message(c, seq, call, &answered, ret_reply, err);
    if (r < 0 && !answered)
        c->broken = true;
    if (r < 0)
        molt_error_prefix(err, "%s", op); /* keeps r also when nobody wants the text */
    return r;
}

static const struct molt_call plain;

int molt_call(struct molt_chan *c, const char *op, const struct molt_json *args, const struct molt_call *call,
              struct molt_json **ret_reply, struct molt_error **err)
{
    uint32_t seq;
    int r = ask(c, op, args, &seq, err);
    if (r == 0 && call && call->upload)
        r = upload(c, seq, call, err);
    return finish(c, op, seq, call ? call : &plain, r, ret_reply, err);
}

int molt_call_begin(struct molt_chan *c, const char *op, const struct molt_json *args, uint32_t *ret_seq, struct molt_error **err)
{
    int r = ask(c, op, args, ret_seq, err);
    if (r < 0) {
        c->broken = true;
        molt_error_prefix(err, "%s", op);
    }
    return r;
}

int molt_call_end(struct molt_chan *c, const char *op, uint32_t seq, const struct molt_call *call, struct molt_json **ret_reply,
                  struct molt_error **err)
{
    return finish(c, op, seq, call ? call : &plain, 0, ret_reply, err);
}

int molt_serve_one(struct molt_chan *c, const struct molt_handler *handlers, void *ctx, int timeout_ms, struct molt_error **err)
{
    CLEANUP_MSG struct molt_msg m = {0};
    CLEANUP_JSON struct molt_json *args = NULL;
    int r = molt_msg_recv(c, timeout_ms, &m, err);
    if (r < 0)
        return r;
    if (m.type != MOLT_MSG_REQUEST)
        return molt_error_set(err, MOLT_E_PROTOCOL, "a request was expected, not type %d", m.type);
    if ((r = molt_json_parse(m.payload, m.len, &args, err)) < 0)
        return r;
    const char *op = molt_json_get_string(args, "op");
    const struct molt_handler *h = handlers;
    while (h->op && !molt_streq(h->op, op))
        h++;
    CLEANUP_JSON struct molt_json *reply = molt_json_object();
    CLEANUP_ERROR struct molt_error *e = NULL;
    struct molt_request rq = {c, m.seq, args, ctx};
    if (h->op)
        r = h->fn(&rq, reply, &e);
    else
        r = molt_error_set(&e, MOLT_E_PROTOCOL, "unknown request");
    molt_json_set_bool(reply, "ok", r == 0);
    if (r < 0) {
        molt_json_set_string(reply, "code", molt_code_name(r));
        molt_json_set_string(reply, "error", molt_error_text(e));
    }
    return molt_msg_send_json(c, MOLT_MSG_REPLY, m.seq, reply, err);
}

int molt_request_event(struct molt_request *rq, const struct molt_json *ev, struct molt_error **err)
{
    return molt_msg_send_json(rq->chan, MOLT_MSG_EVENT, rq->seq, ev, err);
}

int molt_request_data(struct molt_request *rq, const void *buf, size_t len, struct molt_error **err)
{
    const char *p = buf;
    while (len > 0) {
        size_t n = len < MOLT_DATA_CHUNK ? len : MOLT_DATA_CHUNK;
        int r = molt_msg_send(rq->chan, MOLT_MSG_DATA, rq->seq, p, n, err);
        if (r < 0)
            return r;
        p += n;
        len -= n;
    }
    return 0;
}

int molt_request_fd(struct molt_request *rq, int fd, struct molt_error **err)
{
    CLEANUP_FREE char *buf = molt_xmalloc(MOLT_DATA_CHUNK);
    for (;;) {
        ssize_t n = read(fd, buf, MOLT_DATA_CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return molt_error_errno(err, "read");
        if (n == 0)
            return 0;
        int r = molt_request_data(rq, buf, (size_t)n, err);
        if (r < 0)
            return r;
    }
}

int molt_request_upload(struct molt_request *rq, size_t max, int (*sink)(void *ctx, const void *buf, size_t len, struct molt_error **err),
                        void *ctx, struct molt_error **err)
{
    size_t total = 0;
    int failed = 0; /* the rest is read and dropped, so that the error reply stands where it belongs */
    for (;;) {
        CLEANUP_MSG struct molt_msg m = {0};
        int r = molt_msg_recv(rq->chan, rq->chan->timeout_ms, &m, err);
        if (r < 0)
            return r;
        if (m.seq != rq->seq || (m.type != MOLT_MSG_DATA && m.type != MOLT_MSG_DATA_END))
            return molt_error_set(err, MOLT_E_PROTOCOL, "upload: unexpected message of type %d", m.type);
        if (m.type == MOLT_MSG_DATA_END)
            return failed;
        total += m.len;
        if (total > max)
            return molt_error_set(err, MOLT_E_PROTOCOL, "upload: over the limit of %zu bytes", max);
        if (failed == 0)
            failed = sink(ctx, m.payload, m.len, err);
    }
}
