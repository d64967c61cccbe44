/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_PROCMIG_GATE_H
#define MOLT_PROCMIG_GATE_H

#include <stdbool.h>

#include "base/error.h"

/* Closed: what is sent over the loopback device is dropped (a queue that holds nothing; rtnetlink(7), tc-pfifo(8)); TCP sends it again.
 * Open: the device has its own queue again. Idempotent. */
int molt_loopback_gate(bool close, struct molt_error **err);

#endif
