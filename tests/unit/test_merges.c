/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Several file systems as one merge: rules and reports know the guest's paths, questions go to the right tree. */
#include "test_merge_util.h"

#include "base/json.h"
#include "merge/merges.h"

static const char rules[] = "log append /home/log/**\ndata active /home/kept/**\ndata refuse /**\n";

struct guest {
    struct trees t[2]; /* "/" and "/home" */
    struct peer peer[2];
    size_t now;
    struct molt_policy *policy;
    struct molt_merges *m;
    struct molt_merge_peer vt;
};

static int call(void *ctx, enum molt_merge_question q, const void *req, size_t len, struct molt_source *ret,
                struct molt_error **err)
{
    struct guest *g = ctx;
    return peer_call(&g->peer[g->now], q, req, len, ret, err);
}

static void select_tree(void *ctx, const char *prefix)
{
    ((struct guest *)ctx)->now = strcmp(prefix, "home") == 0;
}

static void begin(struct guest *g)
{
    struct molt_merge_opts o[2];
    assert_ok(molt_policy_parse(rules, sizeof(rules) - 1, "rules", &g->policy, err));
    for (size_t i = 0; i < 2; i++) {
        g->peer[i].server = molt_merge_server_new(g->t[i].a, no_exclude);
        o[i] = (struct molt_merge_opts){.prefix = i ? "home" : "", .rootfd = g->t[i].u, .basefd = g->t[i].b, .stash = "stash",
                                        .policy = g->policy, .exclude = no_exclude};
    }
    assert_ok(molt_merges_new(o, 2, &g->m, err));
    g->vt = (struct molt_merge_peer){.call = call, .ctx = g, .select = select_tree};
}

static int make(void **state)
{
    struct guest *g = molt_xcalloc(1, sizeof(*g));
    trees_make(&g->t[0]);
    trees_make(&g->t[1]);
    *state = g;
    return 0;
}

static int drop(void **state)
{
    struct guest *g = *state;
    molt_merges_free(g->m);
    molt_policy_free(g->policy);
    for (size_t i = 0; i < 2; i++) {
        molt_merge_server_free(g->peer[i].server);
        molt_strbuf_free(&g->peer[i].reply);
        trees_remove(&g->t[i]);
    }
    free(g);
    return 0;
}

static void each_tree_gets_its_own(void **state)
{
    struct guest *g = *state;
    struct molt_pass_stats st;
    mkdir3(&g->t[1], "log");
    mkdir3(&g->t[1], "kept");
    for (size_t i = 0; i < 2; i++)
        put3(&g->t[i], "same", "x\n");
    put3(&g->t[1], "log/l", "1\n");
    put3(&g->t[1], "kept/k", "1\n");
    put(g->t[0].a, "root", "of the root\n", 2000);
    put(g->t[1].a, "user", "of home\n", 2000);
    put(g->t[1].a, "log/l", "1\na\n", 2000);
    put(g->t[1].u, "log/l", "1\nu\n", 2000);
    put(g->t[1].a, "kept/k", "a\n", 2000);
    put(g->t[1].u, "kept/k", "u\n", 2000);
    begin(g);
    assert_ok(molt_merges_pass(g->m, &g->vt, MOLT_PASS_NO_SYNC, &st, err));
    assert_file(g->t[0].u, "root", "of the root\n");
    assert_file(g->t[0].u, "user", NULL);
    assert_file(g->t[1].u, "user", "of home\n");
    assert_file(g->t[1].u, "log/l", "1\na\nu\n");
    assert_file(g->t[1].u, "kept/k", "a\n");
    CLEANUP_JSON struct molt_json *r = molt_merges_report(g->m);
    const struct molt_json *settled = molt_json_get(r, "settled");
    assert_int_equal(molt_json_get_int(r, "active_only", -1), 2);
    assert_int_equal(molt_json_size(settled), 2);
    assert_string_equal(molt_json_get_string(molt_json_at(settled, 0), "path"), "/home/kept/k");
    assert_string_equal(molt_json_get_string(molt_json_at(settled, 1), "path"), "/home/log/l");
    assert_int_equal(molt_json_size(molt_json_get(r, "passes")), 1); /* one, of both trees */
    assert_int_equal(molt_json_get_int(molt_json_at(molt_json_get(r, "passes"), 0), "actions", -1), (int64_t)st.actions);
    assert_int_equal(molt_json_size(molt_json_get(r, "trees")), 2);
}

static void conflicts_have_the_guests_paths(void **state)
{
    struct guest *g = *state;
    struct molt_pass_stats st;
    CLEANUP_JSON struct molt_json *plan = NULL;
    put3(&g->t[1], "c", "1\n");
    put(g->t[1].a, "c", "a\n", 2000);
    put(g->t[1].u, "c", "u\n", 2000);
    begin(g);
    struct molt_error *e = NULL;
    assert_int_equal(molt_merges_pass(g->m, &g->vt, MOLT_PASS_NO_SYNC, NULL, &e), MOLT_E_CONFLICT);
    assert_non_null(strstr(molt_error_text(e), "/home/c (changed-both)"));
    molt_error_free(e);
    assert_ok(molt_merges_plan(g->m, &g->vt, &st, &plan, err));
    assert_int_equal(st.conflicts_open, 1);
    const struct molt_json *c = molt_json_at(molt_json_get(plan, "conflicts"), 0);
    assert_string_equal(molt_json_get_string(c, "path"), "/home/c");
    assert_non_null(molt_json_get_string(c, "diff"));
    /* Decided by the guest's path; a decision that no tree has a conflict for is told once. */
    const struct molt_decision v[] = {{"home/c", MOLT_POLICY_UPGRADE, 1}, {"c", MOLT_POLICY_ACTIVE, 2}};
    CLEANUP_POLICY struct molt_policy *decided = molt_policy_decide(g->policy, v, 2);
    molt_merges_set_policy(g->m, decided);
    assert_ok(molt_merges_pass(g->m, &g->vt, MOLT_PASS_NO_SYNC, &st, err));
    assert_file(g->t[1].u, "c", "u\n");
    CLEANUP_JSON struct molt_json *r = molt_merges_report(g->m);
    const struct molt_json *unused = molt_json_get(r, "unused_decisions");
    assert_int_equal(molt_json_size(unused), 1);
    assert_string_equal(molt_json_get_string(molt_json_at(unused, 0), "path"), "/c");
    molt_merges_free(g->m); /* before the policy that it borrows */
    g->m = NULL;
}

/* The package database may lie in a file system of its own. */
static void packages_are_found_where_they_are(void **state)
{
    struct guest *g = *state;
    static const char before[] = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n";
    static const char after[] = "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 2\n\n";
    struct molt_merge_opts o;
    mkdir3(&g->t[1], "dpkg");
    put3(&g->t[1], "dpkg/status", before);
    put(g->t[1].a, "dpkg/status", after, 2000);
    assert_ok(molt_policy_parse(rules, sizeof(rules) - 1, "rules", &g->policy, err));
    g->peer[0].server = molt_merge_server_new(g->t[1].a, no_exclude);
    g->vt = (struct molt_merge_peer){.call = peer_call, .ctx = &g->peer[0]};
    o = (struct molt_merge_opts){.prefix = "var/lib", .rootfd = g->t[1].u, .basefd = g->t[1].b, .stash = "stash", .policy = g->policy,
                                 .exclude = no_exclude};
    assert_ok(molt_merges_new(&o, 1, &g->m, err));
    struct molt_error *e = NULL;
    assert_int_equal(molt_merges_check_packages(g->m, &g->vt, &e), MOLT_E_CONFLICT);
    assert_non_null(strstr(molt_error_text(e), "a:all 1 -> 2"));
    molt_error_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_tree_gets_its_own, make, drop),
        cmocka_unit_test_setup_teardown(conflicts_have_the_guests_paths, make, drop),
        cmocka_unit_test_setup_teardown(packages_are_found_where_they_are, make, drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
