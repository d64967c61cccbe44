/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The real kernel in network namespaces of our own: a client on a bridge, two "guests" (TAP devices) with one address and MAC. Numbered datagrams
 * show what is lost, doubled or out of order. Needs root; what needs sch_plug is skipped on a kernel without it.
 */
#ifndef HOLD_NET_H
#define HOLD_NET_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "hold.h"

#define OP "gu-20260102-030405-7f3a"
#define TEST_ETHERTYPE 0x88b5 /* for local experiments */
#define HELD 1000
#define QUIET_MS 300 /* nothing came for so long: nothing comes */

struct world {
    int home, client_ns;                 /* network namespaces */
    int client, listener, active, clone; /* sockets of the client; the guests' ends of their vifs */
    uint32_t next;                       /* number of the next datagram */
};

#define GUEST_MAC "00:16:3e:00:00:01" /* both guests' */

static const struct molt_hold_vif to_clone = {.vif = "vifC.0", .bridge = "brT", .mac = {0x00, 0x16, 0x3e, 0, 0, 1}};
static const struct molt_hold_vif to_active = {.vif = "vifA.0", .bridge = "brT", .mac = {0x00, 0x16, 0x3e, 0, 0, 1}};

/* Around all tests, and around each: a new network for each. */
int net_up(void **state);
int net_down(void **state);
int setup(void **state);
int teardown(void **state);

/* Else the test is skipped. */
void need_netns(void);
void need_plug(void);
void need_mute(void);

bool sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool in_ns(int ns, int home, const char *command);
/* A vif as the backend driver's is: what the bridge sends to it is handed over at once, to the reader of this descriptor. */
int new_vif(const char *name, const char *bridge);

/* n datagrams of so many bytes; send_some: to the address of both guests. */
void send_to(struct world *w, const char *address, int n, size_t size);
void send_some(struct world *w, int n, size_t size);
/* How many datagrams of ours come, and questions for the guest's address. Others may: what the vif's own interface says, a report of the client's (IGMP) from before. */
int heard_ours(int fd);
/* The number of the next datagram at a guest, and whom it was sent to; frames of other kinds are passed over. A guest answers for 10.9.0.1 and 10.9.0.9. */
bool receive_as(int fd, int wait_ms, uint32_t *ret, uint8_t mac[6], bool answers);
bool receive(int fd, int wait_ms, uint32_t *ret);
/* Exactly these, in this order; nothing. */
void expect(int fd, uint32_t from, uint32_t to);
void expect_nothing(int fd);
/* 0, or the error is told. */
void ok(int r, struct molt_error **err);
/* No port, queue or entry of ours. */
void expect_clean(void);

#endif
