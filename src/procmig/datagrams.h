/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Datagrams that had come for a workload's UDP sockets and were not read when it stood still. CRIU leaves them behind; they go along beside its images, and come
 * once more behind the restore, from who had sent them, in their order, before anything newer does.
 */
#ifndef MOLT_PROCMIG_DATAGRAMS_H
#define MOLT_PROCMIG_DATAGRAMS_H

#include <stddef.h>

#include "procmig/workload.h"

#define MOLT_DATAGRAMS         "datagrams" /* in the directory of the images; not there where there are none */
#define MOLT_DATAGRAMS_SUM_MAX (8u << 20)  /* bytes, of one workload; what is beyond that stays behind */

struct molt_datagrams {
    size_t moved; /* collected, or placed */
    size_t lost;  /* not to be taken along: more than there is room for, or for an address that is no single one of this guest's (multicast, broadcast, link-local); or
                   * dropped here, for want of a socket (one that is bound to a device) or of room in its queue. A socket that could not be looked at counts as one */
};

/* Of a workload that stands still: what waits at its UDP sockets (udp(7)), IPv4 and IPv6, is copied to DIR/MOLT_DATAGRAMS and stays there (MSG_PEEK, SO_PEEK_OFF in socket(7)). Sockets keep their
 * options; what an undone move does not give back is an error that waited there (an ICMP message that was to be told at the next call). ret: where there are none, zeroes, and no file;
 * of those that are lost the file tells, too. */
int molt_datagrams_collect(const struct molt_workload *w, const char *dir, struct molt_datagrams *ret, struct molt_error **err);
/* Of images that were restored here: sent to this kernel itself, by raw sockets (raw(7), IP_HDRINCL) with the sender's address. Nothing of it leaves this guest. MOLT_E_PROTOCOL: the file is none
 * such; what came before is placed. */
int molt_datagrams_place(const char *dir, struct molt_datagrams *ret, struct molt_error **err);

#endif
