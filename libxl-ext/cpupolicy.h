/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What CPUID tells two domains, as Xen has it for each (the CPU policy, XEN_DOMCTL_get_cpu_policy). A process has asked once, when it started: libraries and compiled code of a
 * JVM are chosen by the answer, and saved registers have its size. No guest is asked.
 */
#ifndef MOLT_LIBXL_CPUPOLICY_H
#define MOLT_LIBXL_CPUPOLICY_H

#include <stdbool.h>
#include <stdint.h>
#include <xenctrl.h>
#include <xenguest.h> /* needs the one before */

#include "base/error.h"

struct molt_cpu_of {
    uint32_t domid;
    const char *name;
};
/* 0, or MOLT_E_CANNOT_MOVE with the first difference, and remedy, what lets both have the same. MOLT_E_INTERNAL: Xen does not tell. */
int molt_cpu_policy_same(struct molt_cpu_of from, struct molt_cpu_of to, const char *remedy, struct molt_error **err);

/* Of two policies: the first leaf that differs, or that one of them lacks; false: there is none. Leaves of zeros are as if not there. Those of the topology (0x1 EBX, 0x4, 0xb, 0x1f,
 * 0x8000001e) are not compared: they tell where a processor is. ret_a, ret_b: what either has; zeros: nothing. */
bool molt__cpu_policy_differ(const xen_cpuid_leaf_t *a, uint32_t na, const xen_cpuid_leaf_t *b, uint32_t nb, xen_cpuid_leaf_t *ret_a, xen_cpuid_leaf_t *ret_b);

#endif
