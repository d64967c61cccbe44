/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One address of a guest that goes on with its other ones, in the little network of hold_net.h. */
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "divert.h"
#include "hold_net.h"

#define OTHER_MAC {0x00, 0x16, 0x3e, 0, 0, 2}

static struct molt_divert one_address(void)
{
    struct molt_divert d = {.from = "vifA.0", .to = "vifB.0", .to_mac = OTHER_MAC};
    assert_int_equal(molt_divert_address("10.9.0.1/24", &d.address, NULL), 0);
    return d;
}

/* The number of the first datagram that is held; the guest's other address goes on. */
static uint32_t divert(struct world *w, const struct molt_divert *d, struct molt_error **err)
{
    send_some(w, 1, 200);
    expect(w->active, w->next - 1, w->next);
    send_to(w, "10.9.0.9", 1, 200);
    expect(w->active, w->next - 1, w->next);
    ok(molt_divert_prepare(OP, d, err), err);
    send_some(w, 100, 200);
    expect(w->active, w->next - 100, w->next);
    ok(molt_divert_engage(OP, d, err), err);
    uint32_t first = w->next;
    send_some(w, HELD, 200);
    expect_nothing(w->active);
    uint32_t between = w->next;
    send_to(w, "10.9.0.9", 5, 200);
    expect(w->active, between, w->next);
    w->next = between; /* so that the held ones count on */
    return first;
}

static void test_divert(void **state)
{
    need_plug();
    struct world *w = *state;
    const struct molt_divert d = one_address();
    struct molt_hold_stats st;
    CLEANUP_ERROR struct molt_error *err = NULL;
    uint8_t mac[6], other[] = OTHER_MAC;
    int fd = new_vif("vifB.0", "brT");
    uint32_t first = divert(w, &d, &err), got;
    ok(molt_divert_release(OP, &d, &st, &err), &err);
    ok(molt_divert_release(OP, &d, NULL, &err), &err); /* again, as after a crash in between */
    send_some(w, 50, 200);
    for (uint32_t want = first; want < w->next; want++) {
        assert_true(receive_as(fd, 3000, &got, mac, false));
        assert_int_equal(got, want);
        assert_memory_equal(mac, other, sizeof(mac));
    }
    assert_int_equal(st.packets, HELD);
    expect_nothing(w->active);
    ok(molt_divert_remove(OP, &d, &err), &err);
    ok(molt_divert_remove(OP, &d, &err), &err);
    expect_clean();
    first = w->next;
    send_some(w, 10, 200); /* to whom the client still takes for its neighbour */
    expect(w->active, first, w->next);
    close(fd);
}

static void test_divert_back(void **state)
{
    need_plug();
    struct world *w = *state;
    const struct molt_divert d = one_address();
    CLEANUP_ERROR struct molt_error *err = NULL;
    uint8_t mac[6];
    int fd = new_vif("vifB.0", "brT");
    uint32_t first = divert(w, &d, &err), got;
    ok(molt_divert_return(OP, &d, &err), &err);
    ok(molt_divert_return(OP, &d, &err), &err);
    send_some(w, 50, 200);
    expect(w->active, first, w->next);
    expect_nothing(w->active);
    assert_false(receive_as(fd, QUIET_MS, &got, mac, false));
    expect_clean();
    close(fd);
}

/* IPv6 has four words to compare; and a hook that an admin has there is not ours. */
static void test_divert_refused(void **state)
{
    need_plug();
    struct molt_divert d = one_address();
    CLEANUP_ERROR struct molt_error *err = NULL;
    int fd = new_vif("vifB.0", "brT");
    (void)state;
    assert_int_equal(molt_divert_address("fd00::5/64", &d.address, NULL), 0);
    ok(molt_divert_prepare(OP, &d, &err), &err);
    ok(molt_divert_engage(OP, &d, &err), &err);
    assert_true(sh("tc filter show dev vifA.0 egress | grep -q 'match fd000000/ffffffff at 24'"));
    ok(molt_divert_return(OP, &d, &err), &err);
    expect_clean();
    assert_true(sh("tc qdisc add dev vifA.0 clsact"));
    assert_int_equal(molt_divert_prepare(OP, &d, &err), MOLT_E_UNSUPPORTED);
    assert_true(sh("tc qdisc show dev vifA.0 | grep -q clsact && ! ip -o link | grep -E 'xm[hp]'"));
    assert_int_equal(molt_divert_address("10.9.0", &d.address, NULL), MOLT_E_USAGE);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_divert, setup, teardown),
        cmocka_unit_test_setup_teardown(test_divert_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_divert_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, net_up, net_down);
}
