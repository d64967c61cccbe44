/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Messages between host and agent and between two agents. Nothing that a peer says is trusted: fixed little-endian
 * header, bounded payload, versions checked, replies matched by sequence number.
 *
 *   u32 magic "MOLT" | u16 version | u16 type | u32 seq | u32 length | payload
 *
 * A request is answered by any number of EVENT and DATA messages and one REPLY, all with the request's seq.
 * A request that carries bulk data is followed by the requester's own DATA messages and one DATA_END.
 */
#ifndef MOLT_PROTO_MSG_H
#define MOLT_PROTO_MSG_H

#include <stdint.h>

#include "base/json.h"
#include "proto/chan.h"

#define MOLT_PROTO_VERSION 2
#define MOLT_MSG_MAGIC 0x544c4f4du /* "MOLT" */
#define MOLT_MSG_MAX (1u << 20)    /* bytes of payload */
#define MOLT_DATA_CHUNK (256u << 10)

enum molt_msg_type { MOLT_MSG_REQUEST = 1, MOLT_MSG_REPLY, MOLT_MSG_EVENT, MOLT_MSG_DATA, MOLT_MSG_DATA_END };

struct molt_msg {
    enum molt_msg_type type;
    uint32_t seq;
    char *payload; /* malloc'd, NUL-terminated behind len */
    size_t len;
};
void molt_msg_clear(struct molt_msg *m);
#define CLEANUP_MSG __attribute__((cleanup(molt_msg_clear)))

int molt_msg_send(struct molt_chan *c, enum molt_msg_type type, uint32_t seq, const void *payload, size_t len, struct molt_error **err);
int molt_msg_send_json(struct molt_chan *c, enum molt_msg_type type, uint32_t seq, const struct molt_json *v, struct molt_error **err);
/* Receives one message; a header that is not ours is MOLT_E_PROTOCOL, of another version MOLT_E_AGENT_VERSION. */
int molt_msg_recv(struct molt_chan *c, int timeout_ms, struct molt_msg *m, struct molt_error **err);

/* The asking side. */
struct molt_call {
    void (*event)(void *ctx, const struct molt_json *ev);                                     /* may be NULL */
    int (*data)(void *ctx, const void *buf, size_t len, struct molt_error **err);             /* NULL: DATA is an error */
    /* Upload: fills buf; > 0 bytes, 0 end, < 0 error. NULL: no upload. */
    long (*upload)(void *ctx, void *buf, size_t len, struct molt_error **err);
    void *ctx;
    int timeout_ms; /* between two messages of the answer; 0: the channel's default */
};
/* Sends {"op": op, ...args} and reads until the reply. *ret_reply (may be NULL) is the reply's object. An error reply
 * becomes an error with the peer's code and text (both bounded). args may be NULL; it is not consumed. Behind a call
 * that ended without its reply each fails at once (MOLT_E_TIMEOUT): the channel is to be closed. */
int molt_call(struct molt_chan *c, const char *op, const struct molt_json *args, const struct molt_call *call,
              struct molt_json **ret_reply, struct molt_error **err);
/* The same in two parts, for what is to go on at two peers at once: nothing else may be asked on c in between. No upload. */
int molt_call_begin(struct molt_chan *c, const char *op, const struct molt_json *args, uint32_t *ret_seq, struct molt_error **err);
int molt_call_end(struct molt_chan *c, const char *op, uint32_t seq, const struct molt_call *call, struct molt_json **ret_reply,
                  struct molt_error **err);

/* The answering side: one row per operation. */
struct molt_request {
    struct molt_chan *chan;
    uint32_t seq;
    const struct molt_json *args;
    void *ctx;
};
struct molt_handler {
    const char *op;
    /* Fills reply (an object); a failure becomes an error reply. */
    int (*fn)(struct molt_request *rq, struct molt_json *reply, struct molt_error **err);
};
/* Serves one request. 0 served (also when the handler failed), negative: the channel is unusable. */
int molt_serve_one(struct molt_chan *c, const struct molt_handler *handlers, void *ctx, int timeout_ms, struct molt_error **err);
int molt_request_event(struct molt_request *rq, const struct molt_json *ev, struct molt_error **err);
int molt_request_data(struct molt_request *rq, const void *buf, size_t len, struct molt_error **err); /* any length */
int molt_request_fd(struct molt_request *rq, int fd, struct molt_error **err); /* all that can be read from fd */
/* Reads the upload of this request into a sink until DATA_END; max bounds the total. */
int molt_request_upload(struct molt_request *rq, size_t max, int (*sink)(void *ctx, const void *buf, size_t len, struct molt_error **err),
                        void *ctx, struct molt_error **err);

#endif
