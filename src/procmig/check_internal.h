/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal: what the parts of the check share. */
#ifndef MOLT_PROCMIG_CHECK_INTERNAL_H
#define MOLT_PROCMIG_CHECK_INTERNAL_H

#include "procmig/check.h"

/* own: inodes of the sockets of all that moves; pid: any process of it. */
void molt__check_tcp(pid_t pid, const uint64_t *own, size_t n, struct molt_reasons *r);
/* The same over the texts of /proc/net/tcp and tcp6 (either may be NULL): how many connections of own sockets have their other end in the
 * same tables in a socket that is not own; *ret_port: the first one's remote port. */
size_t molt__check_tcp_text(const char *tcp, const char *tcp6, const uint64_t *own, size_t n, unsigned *ret_port);

/* How many connections of own sockets are not of `address` (NULL: any); *ret_port: the first one's local port. */
size_t molt__check_address_text(const char *tcp, const char *tcp6, const uint64_t *own, size_t n, const char *address, unsigned *ret_port);

#endif
