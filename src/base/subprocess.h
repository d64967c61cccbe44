/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Running other programs: no shell, bounded output, a time limit, a line callback. */
#ifndef MOLT_BASE_SUBPROCESS_H
#define MOLT_BASE_SUBPROCESS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct molt_run_opts {
    int timeout_ms;        /* 0: none; on expiry the process group is killed and MOLT_E_TIMEOUT returned */
    const char *dir;       /* working directory or NULL */
    char *const *env;      /* NULL: inherit */
    bool new_session;      /* setsid, so that a time-out kills grandchildren too */
    size_t max_output;     /* keep at most this many bytes of stdout+stderr for ret_output (0: 64 KiB), the tail */
    /* Called for every line of stdout+stderr (no newline); may be NULL. */
    void (*line)(void *ctx, const char *line);
    void *line_ctx;
    /* Polled about every 200 ms; true kills the process group and gives MOLT_E_ABORTED. May be NULL. */
    bool (*cancelled)(void *ctx);
    void *cancel_ctx;
};

/* Runs argv (argv[0] looked up in PATH), stdin from /dev/null, waits. Returns 0 with *ret_status = exit status
 * (128+signal when killed) whenever the program could be started; *ret_output (may be NULL) malloc'd text. */
int molt_run(char *const argv[], const struct molt_run_opts *opts, int *ret_status, char **ret_output, struct molt_error **err);
/* As molt_run, and a status other than 0 is an error that quotes the last line of output. */
int molt_run_ok(char *const argv[], const struct molt_run_opts *opts, char **ret_output, struct molt_error **err);

#endif
