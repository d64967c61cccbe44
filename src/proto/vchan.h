/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Channels over libxenvchan (libxenvchan.h; xen docs/misc/vchan). */
#ifndef MOLT_PROTO_VCHAN_H
#define MOLT_PROTO_VCHAN_H

#include <stdint.h>

#include "proto/chan.h"

/* Offers a ring to domain `domid` at xenstore path (relative: below the own domain's home). ring: bytes each way. */
int molt_vchan_listen(uint32_t domid, const char *path, size_t ring, struct molt_chan **ret, struct molt_error **err);
/* Waits for the client; timeout_ms -1: for ever. */
int molt_vchan_accept(struct molt_chan *c, int timeout_ms, struct molt_error **err);
/* Connects to the ring that domain domid offers at the absolute path; retries until timeout_ms. */
int molt_vchan_connect(uint32_t domid, const char *path, int timeout_ms, struct molt_chan **ret, struct molt_error **err);

#endif
