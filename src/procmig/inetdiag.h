/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal: the kernel's list of TCP and UDP sockets of this network namespace (sock_diag(7), NETLINK_SOCK_DIAG). */
#ifndef MOLT_PROCMIG_INETDIAG_H
#define MOLT_PROCMIG_INETDIAG_H

#include <linux/inet_diag.h>
#include <netinet/in.h>
#include <stdint.h>

#include "base/error.h"

/* fn for each of IPv4 and then IPv6; protocol: IPPROTO_TCP or IPPROTO_UDP; states: bits of 1 << TCP_LISTEN and so on. A kernel without IPv6 has none of it; nor one without tcp_diag or
 * udp_diag of theirs, and then CRIU has no such socket to move either. */
int molt__inet_sockets(uint8_t protocol, uint32_t states, void (*fn)(void *ctx, const struct inet_diag_msg *m), void *ctx, struct molt_error **err);

/* An IPv4 address, in network order, as an IPv4-mapped one (RFC 4291, 2.5.5.2). */
void molt__map_ipv4(const void *ipv4, struct in6_addr *ret);

#endif
