/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The library's object and what its parts share. */
#ifndef MOLT_LIBXL_CONTEXT_H
#define MOLT_LIBXL_CONTEXT_H

#include <libxl.h>
#include <xentoollog.h>

#include "base/log.h"
#include "engine/engine.h"
#include "xenmolt.h"
#include "xenstore/store.h"

struct molt_xtl {
    xentoollog_logger vtable; /* first */
    struct molt_log *log;
};

struct xenmolt {
    xenmolt_config config;
    char *state_dir;
    struct molt_log log;
    struct molt_engine *engine;
    /* Opened on first use: looking at operations needs no Xen. */
    libxl_ctx *xl;
    struct molt_xtl xtl;
    struct molt_store store;
};

/* Makes xl and store usable. */
int molt_context_need_xen(struct xenmolt *x, struct molt_error **err);
/* The tables that the engine knows. */
extern const struct molt_op_table molt_guest_upgrade_table, molt_app_migrate_table;

#endif
