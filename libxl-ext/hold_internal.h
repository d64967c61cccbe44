/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What hold.c and divert.c share: the pair of interfaces, of which one has the queue. */
#ifndef MOLT_LIBXL_HOLD_INTERNAL_H
#define MOLT_LIBXL_HOLD_INTERNAL_H

#include <net/if.h>

#include "hold.h"

struct molt__ends {
    char port[IFNAMSIZ], out[IFNAMSIZ];
};
/* Pair i of an operation. */
struct molt__ends molt__hold_ends(const char *op_id, int i);
/* Makes it: down, the queue closed. With the first of an operation the kernel's backlog grows (hold.c). */
int molt__hold_pair(struct nl_sock *s, const struct molt__ends *e, unsigned mtu, struct molt_link *port, struct molt_link *out, struct molt_error **err);
/* Until what left the queue of port has come in at out, and none waits. */
int molt__hold_drain(struct nl_sock *s, int port, int out, struct molt_error **err);
/* An interface that has to be there. */
int molt__need_link(struct nl_sock *s, const char *name, struct molt_link *ret, struct molt_error **err);

#endif
