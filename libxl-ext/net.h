/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bridges of an upgrade; the moves of vifs between bridges are in hold.h. */
#ifndef MOLT_LIBXL_NET_H
#define MOLT_LIBXL_NET_H

#include <net/if.h>

#include "context.h"

/* All names derive from the operation id, so that undo after a crash needs no more than the id. */
struct molt_upnet {
    char egress[IFNAMSIZ];   /* bridge of the upgrade phase: NAT to the outside, nothing comes in */
    char isolated[IFNAMSIZ]; /* bridge of the waiting clone: no way out at all */
    char table[32];          /* nftables table */
    char host_ip[16], guest_ip[16], netmask[16];
};
void molt_upnet_names(const char *op_id, struct molt_upnet *ret);
int molt_upnet_create(const struct molt_upnet *n, struct molt_error **err);
int molt_upnet_remove(const struct molt_upnet *n, struct molt_error **err); /* idempotent */
/* dom0's first name server, for guests whose resolver does not run in the upgrade target; malloc'd or NULL. */
char *molt_host_dns(void);

/* "vif<domid>.<devid>" or the configured name; malloc'd. */
char *molt_vif_name(const libxl_device_nic *nic, uint32_t domid);

#endif
