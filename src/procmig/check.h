/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What keeps a workload from being moved, found by looking, before anything is frozen. */
#ifndef MOLT_PROCMIG_CHECK_H
#define MOLT_PROCMIG_CHECK_H

#include "procmig/workload.h"

struct molt_reason {
    char *what;   /* short: "device open" */
    char *detail; /* "pid 812 (java) has /dev/fuse open as fd 7" */
    char *remedy; /* "close it before the move" */
};
struct molt_reasons {
    struct molt_reason *v;
    size_t n, cap;
};
#define MOLT_REASONS_INIT                                                                                    \
    {                                                                                                        \
        NULL, 0, 0                                                                                           \
    }

/* Looks at n workloads that are to move together. Fills r (which the caller frees); 0 with r->n == 0: it can move. An error means that looking itself failed.
 * toolbox NULL: the default directory; with_criu runs `criu check` too. */
int molt_check(struct molt_workload *const *w, size_t n, const char *toolbox, bool with_criu, struct molt_reasons *r,
               struct molt_error **err);
/* For a move into a guest with addresses of its own: every connection of the workloads must be one of `address` ("10.0.0.5", NULL: there is none that
 * moves). */
int molt_check_address(struct molt_workload *const *w, size_t n, const char *address, struct molt_reasons *r, struct molt_error **err);
void molt_reasons_add(struct molt_reasons *r, const char *what, const char *remedy, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void molt_reasons_free(struct molt_reasons *r);
#define CLEANUP_REASONS __attribute__((cleanup(molt_reasons_free)))
struct molt_json *molt_reasons_json(const struct molt_reasons *r); /* [{what, detail, remedy}] */
int molt_reasons_parse(const struct molt_json *v, struct molt_reasons *r, struct molt_error **err);

#endif
