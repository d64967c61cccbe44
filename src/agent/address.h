/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_AGENT_ADDRESS_H
#define MOLT_AGENT_ADDRESS_H

#include "base/error.h"

/* Takes an address ("10.0.0.5/24") from its device. The sockets that have it go on to exist, and hear nothing: what arrives for it is dropped. An
 * address that is not there is no error. MOLT_E_USAGE. */
int address_give(const char *text, struct molt_error **err);
/* Back, if one was taken off (whoever did it: that is on disk), and announced. */
int address_return(struct molt_error **err);
/* It is another guest's for good. */
void address_forget(void);

#endif
