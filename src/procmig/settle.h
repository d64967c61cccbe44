/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Connections that no process holds, right before the workload stands still: those that nobody has accepted yet, and those that are closed while what was written
 * last is still on its way. CRIU moves neither (there is no descriptor of them; a listening socket's queue can be put together again by nobody), and their peers
 * would get a reset. Where dom0 lets no new ones come, both kinds are gone after a moment: the service accepts, and the peers acknowledge.
 */
#ifndef MOLT_PROCMIG_SETTLE_H
#define MOLT_PROCMIG_SETTLE_H

#include "procmig/workload.h"

#define MOLT_SETTLE_MS       5000 /* for those that wait to be accepted, which cannot be left behind */
#define MOLT_SETTLE_OTHER_MS 1000 /* for the other ones: peers that are gone never answer */

struct molt_unsettled {
    unsigned waiting;   /* complete, and not accepted yet */
    unsigned half_open; /* the peer's last word of the three is missing */
    unsigned closing;   /* closed, whoever had opened it; the peer has not acknowledged that, or what was written before */
    unsigned silent;    /* the same, where the peer has not answered what was sent to it again, twice or more: it may be gone, and is not waited for */
};

/* The TCP sockets at which these workloads listen: all processes of their control groups. */
struct molt_listeners;
/* *ret is the caller's: molt_listeners_free (NULL is fine there). address: the one that moves, "ADDRESS" or "ADDRESS/LENGTH", whose closed connections count; NULL: those of
 * all addresses, whoever had them (a closed connection has no owner any more), since no other one will be here; "": none. MOLT_E_USAGE: it is no address. */
int molt_listeners_find(struct molt_workload *const *w, size_t n, const char *address, struct molt_listeners **ret, struct molt_error **err);
void molt_listeners_free(struct molt_listeners *l);

/* Of these listeners, now (sock_diag(7)). A listener that is gone has nothing. */
int molt_unsettled_look(const struct molt_listeners *l, struct molt_unsettled *ret, struct molt_error **err);
/* Until there is nothing of any kind, or these times are over; ret: what there is then. */
int molt_settle(const struct molt_listeners *l, struct molt_unsettled *ret, struct molt_error **err);

static inline bool molt_is_settled(const struct molt_unsettled *u) { return !u->waiting && !u->half_open && !u->closing; }

#endif
