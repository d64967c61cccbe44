/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * While the active guest is cut off its network, a small process of ours waits for the death of the command. If it
 * dies before the pivot (kill -9), the guard puts the vifs back and gives them what was held for them; the agent in the
 * guest, which sees the connection end, lets the workload go on. So the guest runs as before without anybody's help; op-recover tidies up the rest.
 */
#ifndef MOLT_LIBXL_GUARD_H
#define MOLT_LIBXL_GUARD_H

#include "hold.h"

/* *ret_fd: to be given to stop. The vifs are copied (by fork). */
int molt_guard_start(const char *op_id, const struct molt_hold_vif *v, int n, int *ret_fd, struct molt_error **err);
void molt_guard_stop(int fd); /* -1: none */

#endif
