/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A small QMP client for the device model of a domain (docs/interop/qmp-spec of QEMU). */
#ifndef MOLT_LIBXL_QMP_H
#define MOLT_LIBXL_QMP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"

struct molt_qmp;
int molt_qmp_open_path(const char *path, struct molt_qmp **ret, struct molt_error **err);
int molt_qmp_open(uint32_t domid, struct molt_qmp **ret, struct molt_error **err);
void molt_qmp_close(struct molt_qmp *q);
static inline void molt__cleanup_qmp(struct molt_qmp **q) { molt_qmp_close(*q); }
#define CLEANUP_QMP __attribute__((cleanup(molt__cleanup_qmp)))
/* args is consumed (may be NULL); ret (may be NULL) gets "return". */
int molt_qmp_call(struct molt_qmp *q, const char *command, struct molt_json *args, struct molt_json **ret, struct molt_error **err);

#endif
