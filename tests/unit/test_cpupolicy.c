/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two domains' CPUID held against each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cpupolicy.h"

#define NONE XEN_CPUID_NO_SUBLEAF
#define N(v) (uint32_t)(sizeof(v) / sizeof(v[0]))

static const xen_cpuid_leaf_t usual[] = {
    {0x0, NONE, 0xd, 0x756e6547, 0x6c65746e, 0x49656e69}, {0x1, NONE, 0x306c3, 0x100800, 0x7ffafbbf, 0xbfebfbff}, {0x4, 0, 0x121, 0x1c0003f, 0x3f, 0},
    {0x7, 0, 0, 0x27ab, 0, 0}, {0xd, 0, 7, 0x340, 0x340, 0}, {0x80000001, NONE, 0, 0, 0x21, 0x2c100800},
};

static bool differ(const xen_cpuid_leaf_t *b, uint32_t n, xen_cpuid_leaf_t *x, xen_cpuid_leaf_t *y)
{
    return molt__cpu_policy_differ(usual, N(usual), b, n, x, y);
}

static void the_same_is_the_same(void **state)
{
    xen_cpuid_leaf_t x, y, other[N(usual) + 1];
    (void)state;
    assert_false(differ(usual, N(usual), &x, &y));
    for (uint32_t i = 0; i < N(usual); i++) /* in another order, and with a leaf of nothing */
        other[i + 1] = usual[N(usual) - 1 - i];
    other[0] = (xen_cpuid_leaf_t){.leaf = 0x14, .subleaf = 0};
    assert_false(differ(other, N(other), &x, &y));
}

static void a_bit_is_found(void **state)
{
    xen_cpuid_leaf_t x, y, other[N(usual)];
    (void)state;
    for (uint32_t i = 0; i < N(usual); i++)
        other[i] = usual[i];
    other[3].b &= ~0x20u; /* AVX2 */
    assert_true(differ(other, N(other), &x, &y));
    assert_int_equal(x.leaf, 0x7);
    assert_int_equal(x.b ^ y.b, 0x20);
}

static void a_leaf_that_one_has_is_found(void **state)
{
    xen_cpuid_leaf_t x, y;
    (void)state;
    assert_true(differ(usual, N(usual) - 1, &x, &y));
    assert_int_equal(x.leaf, 0x80000001);
    assert_int_equal(y.d, 0);
    assert_true(molt__cpu_policy_differ(usual, N(usual) - 1, usual, N(usual), &x, &y));
    assert_int_equal(x.d, 0);
    assert_int_equal(y.d, 0x2c100800);
}

static void where_a_processor_is_does_not_count(void **state)
{
    xen_cpuid_leaf_t x, y, other[N(usual)];
    (void)state;
    for (uint32_t i = 0; i < N(usual); i++)
        other[i] = usual[i];
    other[1].b = 0x200800;
    other[2].a = 0x4000121;
    assert_false(differ(other, N(other), &x, &y));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_is_the_same),
        cmocka_unit_test(a_bit_is_found),
        cmocka_unit_test(a_leaf_that_one_has_is_found),
        cmocka_unit_test(where_a_processor_is_does_not_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
