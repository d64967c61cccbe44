/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/load.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int molt_load_open(void)
{
    return open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
}

/* proc_loadavg(5): the fourth field begins with the number of those who could run, us among them. */
bool molt_load_idle(int load, int processors)
{
    char text[64];
    unsigned running;
    ssize_t n = pread(load, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return sscanf(text, "%*s %*s %*s %u/", &running) == 1 && running <= (unsigned)processors;
}
