/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static int64_t read_us(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t molt_now_us(void)
{
    return read_us(CLOCK_REALTIME);
}

int64_t molt_mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

int64_t molt_mono_ms(void)
{
    return molt_mono_us() / 1000;
}

const char *molt_stamp(int64_t us, char buf[MOLT_STAMP_MAX])
{
    time_t s = (time_t)(us / 1000000);
    struct tm tm;
    gmtime_r(&s, &tm);
    size_t n = strftime(buf, MOLT_STAMP_MAX, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buf + n, MOLT_STAMP_MAX - n, ".%06dZ", (int)(us % 1000000));
    return buf;
}

void molt_sleep_ms(int ms)
{
    struct timespec ts = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
        ;
}
