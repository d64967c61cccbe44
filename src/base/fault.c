/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/fault.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often the armed point was passed: one process has one armed point, so one counter is enough. */
static unsigned passages;

bool molt_fault(const char *name)
{
    const char *spec = getenv("MOLT_FAULT");
    if (!spec)
        return false;
    /* Names contain colons; the count is what follows the last colon when it is a number. */
    const char *action = strrchr(spec, '=');
    size_t spec_len = action ? (size_t)(action - spec) : strlen(spec);
    size_t len = strlen(name);
    unsigned long nth = 1;
    if (spec_len < len || strncmp(spec, name, len) != 0)
        return false;
    if (spec_len > len) {
        char *end;
        if (spec[len] != ':')
            return false;
        nth = strtoul(spec + len + 1, &end, 10);
        if (end != spec + spec_len || end == spec + len + 1)
            return false;
    }
    if (++passages != nth)
        return false;
    if (action && !strcmp(action, "=kill"))
        kill(getpid(), SIGKILL);
    if (action && !strcmp(action, "=stop"))
        kill(getpid(), SIGSTOP);
    if (action && !strcmp(action, "=sleep"))
        sleep(10);
    return !action || !strcmp(action, "=fail");
}
