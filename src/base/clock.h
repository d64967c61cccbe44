/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_BASE_CLOCK_H
#define MOLT_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define MOLT_STAMP_MAX 32
int64_t molt_now_us(void);  /* CLOCK_REALTIME, microseconds since the epoch */
int64_t molt_mono_ms(void); /* CLOCK_MONOTONIC, milliseconds */
int64_t molt_mono_us(void);
/* RFC 3339 UTC with microseconds, "2026-01-02T03:04:05.000006Z". */
const char *molt_stamp(int64_t us, char buf[MOLT_STAMP_MAX]);
void molt_sleep_ms(int ms);

#endif
