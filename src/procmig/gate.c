/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Connections between services that are restored one after another: until all are there none may speak. */
#include "procmig/gate.h"

#include <errno.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include "base/rtreq.h"

int molt_loopback_gate(bool close, struct molt_error **err)
{
    const struct tc_fifo_qopt one_byte = {.limit = 1};
    const struct tcmsg body = {.tcm_ifindex = (int)if_nametoindex("lo"), .tcm_parent = TC_H_ROOT, .tcm_handle = close ? 0x58450000 : 0}; /* its number 5845: */
    struct molt_rtreq m;
    molt_rtreq_begin(&m, close ? RTM_NEWQDISC : RTM_DELQDISC, close ? NLM_F_CREATE | NLM_F_REPLACE : 0, &body, sizeof(body));
    if (close) {
        molt_rtreq_put(&m, TCA_KIND, "bfifo", 6);
        molt_rtreq_put(&m, TCA_OPTIONS, &one_byte, sizeof(one_byte));
    }
    int r = molt_rtreq_send(&m);
    if (r == 0 || (!close && (r == -ENOENT || r == -EINVAL))) /* there is none to be removed */
        return 0;
    errno = -r;
    return molt_error_errno(err, "%s the loopback device", close ? "hold back what is sent over" : "open");
}
