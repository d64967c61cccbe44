/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Holding in dom0 what comes for one address of a guest that goes on with its others, until another guest has that address.
 *
 * Of the pair that hold.h describes, none stands in a bridge here: a filter at the guest's vif takes the packets for the address out of what
 * leaves there, and the queue keeps them, in order. Release opens it: they, and what comes to the old place until the neighbours know the new
 * one, leave at xmp with the new guest's MAC as their receiver, through its vif.
 *
 *   bridge -> vif of the first guest [address: divert] -> xmh [plug] -> xmp [receiver] -> vif of the other guest, or of the first again
 *
 * All names derive from the operation's id; everything here may be done again.
 */
#ifndef MOLT_LIBXL_DIVERT_H
#define MOLT_LIBXL_DIVERT_H

#include "hold.h"

struct molt_divert {
    char from[16], to[16]; /* interfaces: of who has the address, and of who is to have it */
    uint8_t to_mac[MOLT_MAC_LEN];
    struct molt_rtnl_address address;
};

/* "10.0.0.5/24", or without the prefix's length. */
int molt_divert_address(const char *text, struct molt_rtnl_address *ret, struct molt_error **err);
/* Makes the pair; no packet sees it yet. An error says why packets cannot be held (a hook of somebody else's at the vif, a kernel without the
 * modules); nothing is left then. */
int molt_divert_prepare(const char *op_id, const struct molt_divert *d, struct molt_error **err);
/* Before engage: what asks for new TCP connections is held from now on (hold.h, molt_hold_requests). */
int molt_divert_requests(const char *op_id, const struct molt_divert *d, struct molt_error **err);
/* What comes is held from now on. */
int molt_divert_engage(const char *op_id, const struct molt_divert *d, struct molt_error **err);
/* To the new guest with all of it. ret may be NULL. */
int molt_divert_release(const char *op_id, const struct molt_divert *d, struct molt_hold_stats *ret, struct molt_error **err);
/* To the first guest with all of it, and ours is gone; also where nothing was engaged or made. */
int molt_divert_return(const char *op_id, const struct molt_divert *d, struct molt_error **err);
/* After a release: ours is gone when all has passed. Also when the first guest is gone. */
int molt_divert_remove(const char *op_id, const struct molt_divert *d, struct molt_error **err);

#endif
