/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal: the clock of TCP's timestamps (RFC 7323) over a move to another kernel. From Linux 6.7 on the lowest bit of TCP_TIMESTAMP asks for a clock
 * of microseconds (do_tcp_setsockopt in net/ipv4/tcp.c); before, it is one of the clock's own. A connection that was dumped there at an odd millisecond
 * would run a thousand times too fast: its peer takes nothing from a socket that goes on in the old kernel after all, and, where the connection was
 * silent for 36 minutes, nothing from the new one.
 */
#ifndef MOLT_PROCMIG_TCPCLOCK_H
#define MOLT_PROCMIG_TCPCLOCK_H

#include <stdbool.h>

#include "base/error.h"

/* Whether this kernel has that meaning for the bit. Needs CAP_NET_ADMIN; false where it cannot be told. Takes some milliseconds. */
bool molt__tcp_bit_means_usec(void);
/* Clears the bit in the images of all connections in dir (tcp-stream-*.img): of a dump from where it means nothing. */
int molt__tcp_clear_bit(const char *dir, struct molt_error **err);

#endif
