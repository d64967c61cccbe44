/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The few requests to the kernel's network (rtnetlink) that we make. rtnl.c is the only user of libnl. */
#ifndef MOLT_LIBXL_RTNL_H
#define MOLT_LIBXL_RTNL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define MOLT_MAC_LEN 6

struct nl_sock;
int molt_rtnl_open(struct nl_sock **ret, struct molt_error **err);
void molt_rtnl_close(struct nl_sock **s);
#define CLEANUP_RTNL __attribute__((cleanup(molt_rtnl_close)))

struct molt_link {
    int index; /* 0: there is no such interface */
    int master;
    unsigned mtu;
    bool bridge; /* of Linux itself */
    bool up;
};
/* 0 also when there is no such interface. */
int molt_rtnl_link(struct nl_sock *s, const char *name, struct molt_link *ret, struct molt_error **err);
/* Interfaces whose names begin so: an array that ends with NULL, freed with molt_rtnl_names_free. */
int molt_rtnl_names(struct nl_sock *s, const char *prefix, char ***ret, struct molt_error **err);
void molt_rtnl_names_free(char **names);
int molt_rtnl_veth_add(struct nl_sock *s, const char *name, const char *peer, unsigned mtu, struct molt_error **err);
int molt_rtnl_up(struct nl_sock *s, int index, struct molt_error **err);
/* A text that the interface carries along (ifalias). get: malloc'd, or NULL. */
int molt_rtnl_note(struct nl_sock *s, int index, const char *text, struct molt_error **err);
char *molt_rtnl_get_note(struct nl_sock *s, const char *name);
int molt_rtnl_down(struct nl_sock *s, int index, struct molt_error **err);
int molt_rtnl_delete(struct nl_sock *s, int index, struct molt_error **err);
/* Into the bridge `master`, out of the one it is in; 0: out. */
int molt_rtnl_enslave(struct nl_sock *s, int index, int master, struct molt_error **err);

/* The bridge's entry for mac goes to this port: for good (it is not learnt anew elsewhere), or as if just learnt. */
int molt_rtnl_fdb(struct nl_sock *s, int port, const uint8_t mac[MOLT_MAC_LEN], bool pinned, struct molt_error **err);
/* All multicast goes to this port, whatever the bridge snooped. */
int molt_rtnl_all_multicast(struct nl_sock *s, int port, struct molt_error **err);

/* A bridge's port. hears: whether the bridge gives it what is for many, or for nobody known (broadcasts, multicast, unknown addresses). speaks: whether the bridge takes
 * what comes from it; if not (a locked port, bridge(8)), what is from no address whose entry leads to that port is dropped, so no entry of the guest's may. The port stays
 * up and in the bridge: to leave or to enter one, and to go up or down, is told to all that watches interfaces (a network manager, udev, the system log), which takes
 * dom0's processors for tens of milliseconds under emulation. */
int molt_rtnl_port(struct nl_sock *s, int port, bool hears, bool speaks, struct molt_error **err);
/* Whether this kernel can keep a port from speaking: Linux 5.16. An older one says nothing, and goes on taking what comes. */
bool molt_rtnl_can_mute(void);

/* The queue of sch_plug at an interface: it begins closed, and drops what is more than limit bytes. */
int molt_rtnl_plug_add(struct nl_sock *s, int index, int limit, struct molt_error **err);
int molt_rtnl_plug(struct nl_sock *s, int index, bool open, struct molt_error **err);
/* What comes in at `index`: frames from `mac` are dropped, all others leave through the interface `to`. */
int molt_rtnl_redirect_add(struct nl_sock *s, int index, const uint8_t mac[MOLT_MAC_LEN], int to, struct molt_error **err);
/* The place for it alone. */
int molt_rtnl_receive(struct nl_sock *s, int index, struct molt_error **err);
/* From now on through this one; mac: and with this receiver, NULL: with the one that they have. */
int molt_rtnl_redirect_to(struct nl_sock *s, int index, const uint8_t *mac, int to, struct molt_error **err);

struct molt_rtnl_address {
    bool v6;
    uint8_t bytes[16]; /* IPv4: the first 4 */
};
/* Has the interface a hook for filters (an ingress or clsact queueing discipline)? */
int molt_rtnl_hooked(struct nl_sock *s, int index, bool *ret, struct molt_error **err);
/* What leaves through `index` for this address leaves through `to` instead; by a clsact hook that the interface gets, and loses at the end. */
int molt_rtnl_divert(struct nl_sock *s, int index, const struct molt_rtnl_address *a, int to, struct molt_error **err);
/* Likewise of what leaves only the first packets of TCP connections (SYN alone, in the first fragment of a packet; of IPv6: without extension headers), for this address, or
 * (NULL) for any. An error where there is a hook already. */
int molt_rtnl_divert_requests(struct nl_sock *s, int index, const struct molt_rtnl_address *a, int to, struct molt_error **err);
/* Also when there is none. What others have put there meanwhile stays. */
int molt_rtnl_divert_end(struct nl_sock *s, int index, struct molt_error **err);

struct molt_queue {
    uint64_t waiting, waiting_bytes, dropped, passed;
};
/* The queue at an interface where packets leave, or its counter where they come in. */
int molt_rtnl_queue(struct nl_sock *s, int index, bool ingress, struct molt_queue *ret, struct molt_error **err);

#endif
