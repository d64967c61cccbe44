/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal: whom the kernel knows on its links (arp(7), RFC 4861). CRIU lets each restored connection send once, before its guest is in the network: the
 * kernel that does not know the peer's link address asks for it, nobody hears that, and it asks again a second later. So what the old kernel knew goes along.
 */
#ifndef MOLT_PROCMIG_NEIGHBOURS_H
#define MOLT_PROCMIG_NEIGHBOURS_H

#include <stdbool.h>

#include "base/json.h"

#define MOLT__NEIGHBOURS_MAX 1024

/* This guest's network devices and their addresses: asked for before the freeze (some hundredths of a second under emulation). */
struct molt__network;
/* With `known` also whom they know, for molt__neighbours_place. *ret: molt__network_free; NULL is fine there. */
int molt__network_look(bool known, struct molt__network **ret, struct molt_error **err);
void molt__network_free(struct molt__network *net);

/* [{"address", "mac", "link": the MAC address of the device that it is seen on}], of IPv4 and IPv6, Ethernet only, and no more than
 * MOLT__NEIGHBOURS_MAX of them: whom the devices of `net` know now. */
int molt__neighbours_collect(const struct molt__network *net, struct molt_json **ret, struct molt_error **err);
/* Those that this kernel did not know then are known from now on, as ones that are to be asked while they are used (NUD_STALE): on the device with that MAC
 * address, else on the one that has an address of the same network. What is on none is left out. ret_placed: how many; may be NULL. MOLT_E_PROTOCOL for
 * what is no such list; what came before stays. */
int molt__neighbours_place(const struct molt__network *net, const struct molt_json *list, size_t *ret_placed, struct molt_error **err);

#endif
