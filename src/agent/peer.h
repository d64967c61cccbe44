/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The clone's side of the ring between the two agents. */
#ifndef MOLT_AGENT_PEER_H
#define MOLT_AGENT_PEER_H

#include "agent/agent.h"
#include "agent/trees.h"
#include "merge/merge.h"

/* A request whose answer is read as a stream. */
struct peer_stream {
    struct molt_chan *chan;
    uint32_t seq;
    struct molt_msg msg;
    size_t off;
    bool open; /* the reply has not been seen */
    struct molt_error *error;
};
int peer_stream_begin(struct peer_stream *p, const char *op, const struct molt_json *args, const void *upload, size_t len,
                      bool with_upload, struct molt_error **err);
/* molt_source's read. */
int peer_stream_read(void *ctx, void *buf, size_t len);
/* Reads to the reply; data that nobody wanted is dropped. The peer's error is returned. */
int peer_stream_end(struct peer_stream *p, struct molt_error **err);
/* The whole answer of a request without upload into a file. */
int peer_fetch_file(struct molt_chan *chan, const char *op, const struct molt_json *args, const char *path, uint64_t *ret_bytes,
                    struct molt_error **err);

/* images.c: the files of dir as the answer to rq; and from the peer a unit's round of memory, or its dump's (round 0), into the directory
 * that is meant for it below (or at) images. follow: they are being written, and the answer ends when the dump has. */
int images_send(struct molt_request *rq, const char *dir, bool follow, struct molt_error **err);
int images_fetch(struct molt_chan *peer, const char *unit, const char *images, unsigned round, bool follow, uint64_t *ret_bytes, struct molt_error **err);

#endif
