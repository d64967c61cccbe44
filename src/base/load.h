/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_BASE_LOAD_H
#define MOLT_BASE_LOAD_H

#include <stdbool.h>

/* /proc/loadavg, opened; -1 where there is none. The caller closes it. */
int molt_load_open(void);
/* Whether nobody but the caller could run right now: by what molt_load_open returned, for as many processors as get_nprocs(3) tells. False where that cannot be told. */
bool molt_load_idle(int load, int processors);

#endif
