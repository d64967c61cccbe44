/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "context.h"

#include <libxl_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"

#define DEFAULT_STATE_DIR "/var/lib/xenmolt"

static void log_line(void *ctx, enum molt_log_level level, const char *line)
{
    struct xenmolt *x = ctx;
    if (x->config.log)
        x->config.log(x->config.ctx, (enum xenmolt_level)level, line);
}

static void forward_event(void *ctx, const struct molt_op_event *ev)
{
    struct xenmolt *x = ctx;
    xenmolt_event e = {ev->op_id, ev->kind, ev->name, ev->text, ev->at_us, ev->percent};
    if (x->config.event)
        x->config.event(x->config.ctx, &e);
}

static void log_message(struct xentoollog_logger *logger, xentoollog_level level, int errnoval, const char *context, const char *fmt, va_list al)
{
    struct molt_xtl *l = (struct molt_xtl *)logger;
    CLEANUP_STRBUF struct molt_strbuf b = MOLT_STRBUF_INIT;
    molt_strbuf_addf(&b, "%s: ", context ? context : "libxl");
    molt_strbuf_vaddf(&b, fmt, al);
    if (errnoval >= 0)
        molt_strbuf_addf(&b, ": %s", strerror(errnoval));
    /* libxl's own errors come to the user through ours; its text helps only who looks closer. */
    molt_log(l->log, level >= XTL_WARN ? MOLT_LOG_INFO : MOLT_LOG_DEBUG, "%s", molt_strbuf_str(&b));
}

static void ignore_progress(struct xentoollog_logger *logger, const char *context, const char *doing, int percent, unsigned long done, unsigned long total)
{
    (void)logger, (void)context, (void)doing, (void)percent, (void)done, (void)total;
}

static void keep_logger(struct xentoollog_logger *logger)
{
    (void)logger;
}

int molt_context_need_xen(struct xenmolt *x, struct molt_error **err)
{
    /* libxl shares the process with our own children: it must reap only its own. */
    static const libxl_childproc_hooks hooks = {.chldowner = libxl_sigchld_owner_libxl_always_selective_reap};
    if (x->xl)
        return 0;
    int r = molt_store_open(&x->store, err);
    if (r < 0)
        return r;
    x->xtl = (struct molt_xtl){{log_message, ignore_progress, keep_logger}, &x->log};
    if (libxl_ctx_alloc(&x->xl, LIBXL_VERSION, 0, &x->xtl.vtable) != 0) {
        x->xl = NULL;
        molt_store_close(&x->store);
        return molt_error_set(err, MOLT_E_INTERNAL, "libxl does not start: is this a Xen dom0, and are you root?");
    }
    libxl_childproc_setmode(x->xl, &hooks, NULL);
    return 0;
}

int xenmolt_open(const xenmolt_config *config, xenmolt **ret, xenmolt_error **err)
{
    static const struct molt_op_table *const tables[] = {&molt_guest_upgrade_table, &molt_app_migrate_table, NULL};
    struct xenmolt *x = molt_xcalloc(1, sizeof(*x));
    if (config)
        memcpy(&x->config, config, config->size < sizeof(x->config) ? config->size : sizeof(x->config));
    x->state_dir = molt_xstrdup(x->config.state_dir ? x->config.state_dir : DEFAULT_STATE_DIR);
    x->log = (struct molt_log){(enum molt_log_level)x->config.log_level, log_line, x};
    struct molt_engine_config ec = {x->state_dir, &x->log, forward_event, x, tables, x};
    int r = molt_engine_open(&ec, &x->engine, err);
    if (r < 0) {
        xenmolt_close(x);
        return r;
    }
    *ret = x;
    return 0;
}

void xenmolt_close(xenmolt *x)
{
    if (!x)
        return;
    molt_engine_close(x->engine);
    if (x->xl) {
        libxl_ctx_free(x->xl);
        molt_store_close(&x->store);
    }
    free(x->state_dir);
    free(x);
}

const char *xenmolt_version(void)
{
    return PACKAGE_VERSION;
}

const char *xenmolt_strerror(int code)
{
    return molt_code_text(code);
}

int xenmolt_exit_status(int code)
{
    return molt_code_exit_status(code);
}

const char *xenmolt_error_text(const xenmolt_error *err)
{
    return molt_error_text(err);
}

void xenmolt_error_free(xenmolt_error *err)
{
    molt_error_free(err);
}
