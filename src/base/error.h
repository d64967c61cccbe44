/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors. Every fallible function returns 0 or a negative molt_code and takes `struct molt_error **err` last.
 * The error is set only on failure, carries a code and one line of text, and gains context once a layer
 * ("open /x: No such file" -> "snapshot: open /x: No such file").
 */
#ifndef MOLT_BASE_ERROR_H
#define MOLT_BASE_ERROR_H

#include <stdarg.h>

/* X(NAME, value, exit status, text): the one table that feeds enum, text, exit status and documentation. */
#define MOLT_CODES(X)                                                                  \
    X(OK, 0, 0, "success")                                                             \
    X(INTERNAL, 1, 1, "internal error or failed system call")                          \
    X(USAGE, 2, 2, "bad usage: unknown option, missing or malformed argument")         \
    X(NO_DOMAIN, 3, 3, "no such domain")                                               \
    X(NO_AGENT, 4, 4, "no agent in the guest, or it does not answer")                  \
    X(AGENT_VERSION, 5, 5, "the agent in the guest speaks another version")            \
    X(NO_SPACE, 6, 6, "not enough memory or disk space")                               \
    X(BUSY, 7, 7, "another operation holds the domain, or its name")                   \
    X(UNSUPPORTED, 8, 8, "the domain, disk or workload is of a kind not supported")    \
    X(NO_WORKLOAD, 9, 9, "the workload does not exist or is not running")              \
    X(CANNOT_MOVE, 10, 10, "the workload holds something that cannot be moved")        \
    X(CONFLICT, 11, 11, "merge conflicts that no policy settles")                      \
    X(RECIPE, 12, 12, "the upgrade recipe failed")                                     \
    X(HEALTH, 13, 13, "the upgraded clone failed its health check")                    \
    X(PROTOCOL, 14, 14, "malformed or unexpected message from a peer")                 \
    X(TIMEOUT, 15, 15, "a time limit ran out")                                         \
    X(ABORTED, 16, 16, "aborted on request; the guest runs as before")                 \
    X(NO_OPERATION, 17, 17, "no such operation")                                       \
    X(STATE, 18, 18, "the operation is not in a state that allows this")               \
    X(FAILED_BACK, 19, 19, "a step failed; everything was undone, the guest runs as before") \
    X(NEEDS_RECOVERY, 20, 20, "undo or finish is incomplete; run op-recover")          \
    X(HOOK, 21, 21, "a hook in the guest failed")

enum molt_code {
#define MOLT_X(name, value, status, text) MOLT_E_##name = -(value),
    MOLT_CODES(MOLT_X)
#undef MOLT_X
};

struct molt_error;

/* Makes an error (code is one of MOLT_E_*, negative) and stores it in *err when err is not NULL; returns code.
 * A *err that is already set is replaced and freed. */
int molt_error_set(struct molt_error **err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Same, code MOLT_E_INTERNAL, ": strerror(errno)" appended. errno ENOSPC gives MOLT_E_NO_SPACE. */
int molt_error_errno(struct molt_error **err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " in front of the text of *err; returns its code (MOLT_E_INTERNAL when *err is NULL). */
int molt_error_prefix(struct molt_error **err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *molt_error_text(const struct molt_error *err); /* "" for NULL */
int molt_error_code(const struct molt_error *err);         /* 0 for NULL */
void molt_error_free(struct molt_error *err);
/* Frees *err and sets it to NULL. */
void molt_error_clear(struct molt_error **err);
/* Moves src into *dst (which may be NULL: src is freed). */
void molt_error_move(struct molt_error **dst, struct molt_error *src);

const char *molt_code_name(int code);  /* "NO_DOMAIN"; "UNKNOWN" for a strange code */
const char *molt_code_text(int code);
int molt_code_exit_status(int code);
/* MOLT_E_* for a name as in the table, MOLT_E_INTERNAL for an unknown one (errors that crossed the wire). */
int molt_code_from_name(const char *name);

#endif
