/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Holding a guest's packets in dom0 while nobody can take them.
 *
 * For each vif there is a pair of our own interfaces, xmhTAIL.I and xmpTAIL.I. The first one stands in the bridge, and from engage on it hears
 * there in place of the active's vif, which only speaks until it is muted, and its queue (sch_plug) keeps what comes for the guest, in order. Release opens
 * the queue: the packets leave at the second one, and a filter there hands them to the vif of whoever goes on. All names
 * derive from the operation's id, so that another process can go on; everything here may be done again.
 *
 *   bridge -> xmh [plug] -> xmp [own frames: drop; others: redirect] -> vif of the clone, or of the active again
 */
#ifndef MOLT_LIBXL_HOLD_H
#define MOLT_LIBXL_HOLD_H

#include "rtnl.h"

#define MOLT_HOLD_LIMIT (16 << 20) /* bytes a vif; what is more is dropped, as it would be without us */
/* Packets that left the queue wait in the backlog of a CPU (net.core.netdev_max_backlog, 1000 by default, and more are dropped), where a busy dom0
 * leaves them for a while. From prepare to remove it has this at least. */
#define MOLT_HOLD_BACKLOG 65536

/* Indexes of interfaces; 0: there is none. */
struct molt_hold_at {
    int vif, bridge;
    bool placed, up; /* the vif is in the bridge, is up */
    int port, out; /* ours */
    bool held;     /* our port is in a bridge */
    bool aimed;    /* what leaves ours goes to the vif */
};
struct molt_hold_vif {
    char *vif, *bridge;
    uint8_t mac[MOLT_MAC_LEN]; /* the guest's */
    bool requests;             /* molt_hold_requests may have been called for it: mute and release take that back */
    struct molt_hold_at at;    /* molt_hold_look's, or molt_hold_place's; zeroes: engage and release look by themselves */
};
struct molt_hold_stats {
    uint64_t packets, bytes; /* held when they were released */
    uint64_t dropped;        /* because too many came */
};

/* Makes the interfaces, and brings ours into the bridges; no packet sees them yet. An error says why packets cannot be held here (no bridge of Linux's, or
 * one with VLANs; a kernel without sch_plug); nothing is left then, and the calls below only move the vifs. */
int molt_hold_prepare(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err);
/* Notes where everything is, so that engage need not ask in the pause: right before it, since interfaces come and go. */
int molt_hold_look(const char *op_id, struct molt_hold_vif *v, int n, struct molt_error **err);
/* Whether molt_hold_requests can do something for them; into their `requests`. Not where somebody else has a hook for filters at a vif (it
 * returns how many those are), or ours is not there. */
int molt_hold_can_requests(const char *op_id, struct molt_hold_vif *v, int n);
/* Before engage: holds what asks for new TCP connections, where `requests` says so, while all else goes on: a connection that the workload has not accepted when it stands
 * still cannot be moved (procmig/settle.h). In the same queue, by a filter at the vif. */
int molt_hold_requests(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err);
/* Holds what comes for them. What they send goes on its way: an answer that leaves while the workload is being brought to a stop would, if it were lost, be sent again only
 * behind the restore, when the kernel's first retransmission timeout of a second is over. */
int molt_hold_engage(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err);
/* Behind engage, when nobody in the guest has anything more to send: what they send is dropped; where that cannot be (rtnl.h, molt_rtnl_can_mute), or nothing is held, they
 * leave their bridges. Until release (or molt_vif_to_bridge) gives them back; a vif that is not given back is to leave its bridge before remove. */
int molt_hold_mute(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err);
/* Behind prepare, before release: brings these vifs into their bridges, but deaf and mute, or down (neither side hears the other), and turns what is held to them.
 * Release then has less to do: to leave one bridge and enter another takes some hundredths of a second, and so does a filter. A release for other vifs turns it to those. Not
 * for vifs of a domain that may have to go on without a release. */
int molt_hold_place(const char *op_id, struct molt_hold_vif *v, int n, struct molt_error **err);
/* Puts these vifs (the same order, maybe another domain's) into the bridges and gives them what was held and what comes
 * now. ret may be NULL. */
int molt_hold_release(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_hold_stats *ret, struct molt_error **err);
/* After a release: when all have passed, packets take the straight way to the vif, and ours are deleted, which keeps dom0's udev and its network manager busy.
 * Also a second time. With n = 0 or without a release: what is held is dropped. */
int molt_hold_remove(const char *op_id, const struct molt_hold_vif *v, int n, struct molt_error **err);

/* Puts an interface of dom0 into a bridge (NULL: out of the one it is in). Idempotent. */
int molt_vif_to_bridge(const char *ifname, const char *bridge, struct molt_error **err);

#endif
