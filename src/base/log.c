/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/log.h"

#include <stddef.h>

#include "base/strbuf.h"

void molt_log(struct molt_log *log, enum molt_log_level level, const char *fmt, ...)
{
    if (!log || !log->write || level > log->max)
        return;
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    molt_strbuf_vaddf(&b, fmt, ap);
    va_end(ap);
    log->write(log->ctx, level, molt_strbuf_str(&b));
}

const char *molt_log_level_name(enum molt_log_level level)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    return (unsigned)level < 4 ? names[level] : "?";
}
