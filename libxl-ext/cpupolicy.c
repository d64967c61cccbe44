/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cpupolicy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"

struct policy {
    xen_cpuid_leaf_t *leaf;
    uint32_t n;
};

static int get(xc_interface *xc, uint32_t domid, struct policy *ret, struct molt_error **err)
{
    xc_cpu_policy_t *p = xc_cpu_policy_init();
    uint32_t leaves = 0, msrs = 0;
    xen_msr_entry_t *msr = NULL;
    int r = p ? xc_cpu_policy_get_size(xc, &leaves, &msrs) : -1;
    if (r == 0) {
        ret->leaf = molt_xcalloc(leaves + 1, sizeof(*ret->leaf));
        msr = molt_xcalloc(msrs + 1, sizeof(*msr));
        r = xc_cpu_policy_get_domain(xc, domid, p);
    }
    if (r == 0)
        r = xc_cpu_policy_serialise(xc, p, ret->leaf, &leaves, msr, &msrs);
    ret->n = leaves;
    free(msr);
    if (p)
        xc_cpu_policy_destroy(p);
    return r == 0 ? 0 : molt_error_errno(err, "ask Xen for the CPU policy of domain %u", domid);
}

static bool is_topology(uint32_t leaf) { return leaf == 0x4 || leaf == 0xb || leaf == 0x1f || leaf == 0x8000001e; }

/* With what is not compared as zeros. */
static xen_cpuid_leaf_t plain(const xen_cpuid_leaf_t *l)
{
    xen_cpuid_leaf_t v = *l;
    if (l->leaf == 0x1)
        v.b = 0;
    if (is_topology(l->leaf))
        v.a = v.b = v.c = v.d = 0;
    return v;
}

static xen_cpuid_leaf_t find(const xen_cpuid_leaf_t *v, uint32_t n, const xen_cpuid_leaf_t *like)
{
    for (uint32_t i = 0; i < n; i++)
        if (v[i].leaf == like->leaf && v[i].subleaf == like->subleaf)
            return plain(&v[i]);
    return (xen_cpuid_leaf_t){.leaf = like->leaf, .subleaf = like->subleaf};
}

bool molt__cpu_policy_differ(const xen_cpuid_leaf_t *a, uint32_t na, const xen_cpuid_leaf_t *b, uint32_t nb, xen_cpuid_leaf_t *ret_a, xen_cpuid_leaf_t *ret_b)
{
    for (uint32_t i = 0; i < na + nb; i++) {
        const xen_cpuid_leaf_t *at = i < na ? &a[i] : &b[i - na];
        *ret_a = find(a, na, at);
        *ret_b = find(b, nb, at);
        if (memcmp(ret_a, ret_b, sizeof(*ret_a)))
            return true;
    }
    return false;
}

int molt_cpu_policy_same(struct molt_cpu_of from, struct molt_cpu_of to, const char *remedy, struct molt_error **err)
{
    struct policy a = {0}, b = {0};
    xen_cpuid_leaf_t x, y;
    char subleaf[16] = "";
    xc_interface *xc = xc_interface_open(NULL, NULL, 0);
    int r = xc ? get(xc, from.domid, &a, err) : molt_error_errno(err, "open Xen's control interface");
    if (r == 0)
        r = get(xc, to.domid, &b, err);
    if (r == 0 && molt__cpu_policy_differ(a.leaf, a.n, b.leaf, b.n, &x, &y)) {
        if (x.subleaf != XEN_CPUID_NO_SUBLEAF)
            snprintf(subleaf, sizeof(subleaf), ":%u", x.subleaf);
        r = molt_error_set(err, MOLT_E_CANNOT_MOVE, "%s and %s do not have the same CPU: CPUID 0x%x%s is %08x %08x %08x %08x in %s and %08x %08x %08x %08x in %s, and a process does not ask again; %s",
                           from.name, to.name, x.leaf, subleaf, x.a, x.b, x.c, x.d, from.name, y.a, y.b, y.c, y.d, to.name, remedy);
    }
    if (xc)
        xc_interface_close(xc);
    free(a.leaf);
    free(b.leaf);
    return r;
}
