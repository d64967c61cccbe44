/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A byte channel between two domains (or, in tests, two processes): the message layer and bulk streams sit on it.
 * All calls are all-or-error; timeout_ms bounds the wait for progress, not the whole transfer (-1: no bound).
 */
#ifndef MOLT_PROTO_CHAN_H
#define MOLT_PROTO_CHAN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct molt_chan;

struct molt_chan_ops {
    /* Moves up to len bytes; > 0 moved, 0 nothing possible now, -1 closed or broken (errno). */
    long (*read)(struct molt_chan *c, void *buf, size_t len);
    long (*write)(struct molt_chan *c, const void *buf, size_t len);
    /* Waits until progress may be possible or wait_ms passed. Returns -1 with errno on a broken channel. */
    int (*wait)(struct molt_chan *c, bool for_write, int wait_ms);
    void (*close)(struct molt_chan *c); /* frees c */
};

struct molt_chan {
    const struct molt_chan_ops *ops;
    int timeout_ms; /* default for reads and writes */
    /* Asked about every 200 ms while waiting; true ends the wait with MOLT_E_ABORTED. May be NULL. */
    bool (*cancelled)(void *ctx);
    void *cancel_ctx;
    size_t bytes_in, bytes_out;
    bool broken; /* a call ended without its reply: what comes next belongs to that */
};

int molt_chan_read(struct molt_chan *c, void *buf, size_t len, int timeout_ms, struct molt_error **err);
int molt_chan_write(struct molt_chan *c, const void *buf, size_t len, int timeout_ms, struct molt_error **err);
void molt_chan_close(struct molt_chan *c); /* NULL is fine */
static inline void molt__cleanup_chan(struct molt_chan **c) { molt_chan_close(*c); }
#define CLEANUP_CHAN __attribute__((cleanup(molt__cleanup_chan)))

/* A channel over a connected stream socket; takes fd over. */
struct molt_chan *molt_chan_from_fd(int fd);

#endif
