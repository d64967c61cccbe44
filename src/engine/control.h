/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How other processes ask the one that runs an operation: a Unix socket in the operation's directory, which only root can
 * reach (the directory is 0700, the socket 0600, and the asker's credentials are checked). One connection carries one
 * request and one answer, each one JSON object (JSON-RPC 2.0), ended by a newline:
 *
 *     {"jsonrpc": "2.0", "id": 1, "method": "plan", "params": {..}}
 *     {"jsonrpc": "2.0", "id": 1, "result": {..}}    or    "error": {"code": -11, "message": "..", "data": "CONFLICT"}
 *
 * The runner serves between its own work, one asker after the other; an asker that dies or hangs costs it nothing but the
 * limits below.
 */
#ifndef MOLT_ENGINE_CONTROL_H
#define MOLT_ENGINE_CONTROL_H

#include "base/error.h"
#include "base/json.h"

#define MOLT_CONTROL_REQUEST_MAX (1u << 20)
#define MOLT_CONTROL_ANSWER_MAX  (32u << 20)
#define MOLT_CONTROL_PEER_MS     5000 /* how long the runner waits for an asker's bytes */

/* Makes DIR/control (an old one is removed). Any length of dir. Returns the descriptor through *ret_fd. */
int molt_control_listen(const char *dir, int *ret_fd, struct molt_error **err);
/* Closes the descriptor (-1 is fine) and removes DIR/control. */
void molt_control_end(const char *dir, int fd);

/* A method: fills *ret_result (owned by the caller; may stay NULL) or fails. */
typedef int (*molt_control_fn)(void *ctx, const char *method, const struct molt_json *params, struct molt_json **ret_result,
                               struct molt_error **err);
/* Waits up to wait_ms for a request and answers it. 1: one was served (also when it failed, or was no request at all), 0:
 * nobody came. */
int molt_control_serve(int fd, int wait_ms, molt_control_fn fn, void *ctx);
/* The asking side. timeout_ms: for the whole answer. MOLT_E_STATE: nobody listens there. params may be NULL. */
int molt_control_call(const char *dir, const char *method, const struct molt_json *params, int timeout_ms,
                      struct molt_json **ret_result, struct molt_error **err);

#endif
