/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Injected logger: no globals; whoever needs to log is given a `struct molt_log *` (NULL: silent). */
#ifndef MOLT_BASE_LOG_H
#define MOLT_BASE_LOG_H

#include <stdarg.h>

enum molt_log_level { MOLT_LOG_ERROR, MOLT_LOG_WARN, MOLT_LOG_INFO, MOLT_LOG_DEBUG };

struct molt_log {
    enum molt_log_level max;                                            /* drop what is chattier than this */
    void (*write)(void *ctx, enum molt_log_level level, const char *line); /* no newline in line */
    void *ctx;
};

void molt_log(struct molt_log *log, enum molt_log_level level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#define molt_err(log, ...) molt_log(log, MOLT_LOG_ERROR, __VA_ARGS__)
#define molt_warn(log, ...) molt_log(log, MOLT_LOG_WARN, __VA_ARGS__)
#define molt_info(log, ...) molt_log(log, MOLT_LOG_INFO, __VA_ARGS__)
#define molt_debug(log, ...) molt_log(log, MOLT_LOG_DEBUG, __VA_ARGS__)
const char *molt_log_level_name(enum molt_log_level level);

#endif
