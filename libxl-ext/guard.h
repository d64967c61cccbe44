/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * While the active guest is cut off its network, a small process of ours waits for the death of the command. If it
 * dies before the pivot (kill -9), the guard gives the guest its network back, and what was held for it; the agent in the
 * guest, which sees the connection end, lets the workload go on. So the guest runs as before without anybody's help; op-recover tidies up the rest.
 */
#ifndef MOLT_LIBXL_GUARD_H
#define MOLT_LIBXL_GUARD_H

#include "base/error.h"

/* give_back: what the guard then does; it has a copy of what ctx points to (by fork). *ret_fd: to be given to stop. */
int molt_guard_start(const char *op_id, void (*give_back)(const char *op_id, const void *ctx), const void *ctx, int *ret_fd, struct molt_error **err);
void molt_guard_stop(int fd); /* -1: none */

#endif
