/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a kernel knows of its neighbours, in a network namespace of each test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "procmig/neighbours.h"

#define OLD "ip link add old type veth peer name far && ip link set old address 02:00:00:00:00:01 && ip link set old up && ip link set far up && ip addr add 10.9.0.1/24 dev old && ip addr add fd00:9::1/64 dev old nodad"

static bool sh(const char *command)
{
    return system(command) == 0;
}

static void fresh(void)
{
    if (unshare(CLONE_NEWNET) < 0) {
        print_message("a network namespace of its own cannot be had here\n");
        skip();
    }
    assert_true(sh("ip link set lo up"));
}

static struct molt__network *look(void)
{
    struct molt__network *net = NULL;

    assert_int_equal(molt__network_look(true, &net, NULL), 0);
    return net;
}

static void place(const struct molt_json *list, size_t *placed)
{
    struct molt__network *net = look();

    assert_int_equal(molt__neighbours_place(net, list, placed, NULL), 0);
    molt__network_free(net);
}

static struct molt_json *known_to_the_old(void)
{
    struct molt_json *list = NULL;

    fresh();
    assert_true(sh(OLD " && ip neigh add 10.9.0.7 lladdr 02:00:00:00:00:07 dev old nud stale && ip neigh add fd00:9::7 lladdr 02:00:00:00:00:07 dev old nud reachable"
                       " && ip neigh add fe80::7 lladdr 02:00:00:00:00:07 dev old nud stale && ip neigh add 10.9.0.8 lladdr 02:00:00:00:00:08 dev old nud permanent"
                       " && ip neigh add 10.9.0.9 dev old nud failed && ip neigh add proxy 10.9.0.10 dev old"));
    struct molt__network *net = look();
    assert_int_equal(molt__neighbours_collect(net, &list, NULL), 0);
    molt__network_free(net);
    return list;
}

static const struct molt_json *find(const struct molt_json *list, const char *address)
{
    for (size_t i = 0; i < molt_json_size(list); i++)
        if (!strcmp(molt_json_get_string(molt_json_at(list, i), "address"), address))
            return molt_json_at(list, i);
    return NULL;
}

static void who_is_known_is_told(void **state)
{
    (void)state;
    CLEANUP_JSON struct molt_json *list = known_to_the_old();
    const struct molt_json *o = find(list, "10.9.0.7");

    assert_non_null(o);
    assert_string_equal(molt_json_get_string(o, "mac"), "02:00:00:00:00:07");
    assert_string_equal(molt_json_get_string(o, "link"), "02:00:00:00:00:01");
    assert_non_null(find(list, "fd00:9::7"));
    assert_non_null(find(list, "fe80::7"));
    assert_non_null(find(list, "10.9.0.8"));
    assert_int_equal(molt_json_size(list), 4); /* nobody who was asked for in vain, nobody for whom we answer */
}

/* The clone: the same MAC address, another name. What it has asked for in vain is known at once. */
static void it_is_known_on_the_device_with_the_same_address(void **state)
{
    (void)state;
    CLEANUP_JSON struct molt_json *list = known_to_the_old();
    size_t placed = 0;

    fresh();
    assert_true(sh("ip link add other type veth peer name far2 && ip link set other up && ip addr add 10.9.0.99/24 dev other"));
    assert_true(sh("ip link add new type veth peer name far && ip link set new address 02:00:00:00:00:01 && ip link set new up && ip link set far up"
                   " && ip addr add 10.9.0.1/24 dev new && ip neigh add 10.9.0.7 dev new nud failed && ip neigh add 10.9.0.8 lladdr 02:00:00:00:00:88 dev new nud permanent"));
    place(list, &placed);
    assert_int_equal(placed, 3);
    assert_true(sh("ip neigh show 10.9.0.7 dev new | grep -q '02:00:00:00:00:07 STALE'"));
    assert_true(sh("ip neigh show fe80::7 dev new | grep -q '02:00:00:00:00:07 STALE'"));
    assert_true(sh("ip neigh show 10.9.0.8 dev new | grep -q '02:00:00:00:00:88 PERMANENT'")); /* it knows better */
    assert_true(sh("! ip neigh show dev other | grep ."));
}

/* Another guest on the same network, to which a service goes. */
static void it_is_known_on_the_device_of_the_same_network(void **state)
{
    (void)state;
    CLEANUP_JSON struct molt_json *list = known_to_the_old();
    size_t placed = 0;

    fresh();
    assert_true(sh("ip link add new type veth peer name far && ip link set new up && ip link set far up && ip addr add 10.9.0.2/24 dev new"));
    place(list, &placed);
    assert_int_equal(placed, 2);
    assert_true(sh("ip neigh show 10.9.0.7 dev new | grep -q '02:00:00:00:00:07 STALE'"));
    assert_true(sh("! ip neigh show dev new | grep -e fe80::7 -e fd00"));
    place(list, &placed);
    assert_int_equal(placed, 0);
}

static void what_is_no_such_list_is_refused(void **state)
{
    static const char *const bad[] = {
        "[{\"address\": \"10.9.0.7\", \"mac\": \"02:00:00:00:00:07\"}]",
        "[{\"address\": \"10.9.0\", \"mac\": \"02:00:00:00:00:07\", \"link\": \"02:00:00:00:00:01\"}]",
        "[{\"address\": \"10.9.0.7\", \"mac\": \"02:00:00:00:00\", \"link\": \"02:00:00:00:00:01\"}]",
        "[{\"address\": \"10.9.0.7\", \"mac\": \"02:00:00:00:00:07:08\", \"link\": \"02:00:00:00:00:01\"}]",
        "[{\"address\": \"fe80::7%old\", \"mac\": \"02:00:00:00:00:07\", \"link\": \"02:00:00:00:00:01\"}]",
        "[7]",
    };

    struct molt__network *net = look();

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CLEANUP_ERROR struct molt_error *err = NULL;
        CLEANUP_JSON struct molt_json *list = NULL;

        assert_int_equal(molt_json_parse(bad[i], strlen(bad[i]), &list, NULL), 0);
        assert_int_equal(molt__neighbours_place(net, list, NULL, &err), MOLT_E_PROTOCOL);
    }
    CLEANUP_JSON struct molt_json *many = molt_json_array();

    for (int i = 0; i <= MOLT__NEIGHBOURS_MAX; i++)
        molt_json_append(many, molt_json_object());
    assert_int_equal(molt__neighbours_place(net, many, NULL, NULL), MOLT_E_PROTOCOL);
    assert_int_equal(molt__neighbours_place(net, NULL, NULL, NULL), 0); /* an older agent's */
    molt__network_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_known_is_told),
        cmocka_unit_test(it_is_known_on_the_device_with_the_same_address),
        cmocka_unit_test(it_is_known_on_the_device_of_the_same_network),
        cmocka_unit_test(what_is_no_such_list_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
