/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host's end of the connection to a guest's agent. */
#ifndef MOLT_LIBXL_GUEST_H
#define MOLT_LIBXL_GUEST_H

#include "context.h"
#include "proto/msg.h"

/* Checks presence and protocol version in xenstore. MOLT_E_NO_AGENT, MOLT_E_AGENT_VERSION. */
int molt_guest_agent_present(struct xenmolt *x, uint32_t domid, struct molt_error **err);
/* Waits for the agent to announce itself (after a boot). */
int molt_guest_wait(struct xenmolt *x, uint32_t domid, int timeout_ms, bool (*cancelled)(void *), void *ctx, struct molt_error **err);
/* Connects and says hello; *ret_hello (may be NULL) is the agent's answer. */
int molt_guest_connect(struct xenmolt *x, uint32_t domid, struct molt_chan **ret, struct molt_json **ret_hello, struct molt_error **err);
/* Receives kernel and initrd into files; checks sizes and that the kernel is a bzImage (Linux boot protocol). */
int molt_guest_fetch_boot(struct molt_chan *c, const char *kernel, const char *initrd, bool *ret_initrd, char **ret_version, struct molt_error **err);
int molt_check_bzimage(const char *path, struct molt_error **err);

#endif
