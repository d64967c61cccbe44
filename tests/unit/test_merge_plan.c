/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The plan, rule by rule, on manifests made by hand. */
#include "test_merge_util.h"

static const char rules[] =
    "package-db upgrade /db/**\nidentity active /id/**\nlog append /log/**\nlog beside /jnl/**\n"
    "etc-text merge /etc/**\ncache drop /tmp/**\ndata refuse /**\n";

/* Descriptions: "path type ino content [mode]", content is the hash and the size; lines in tree order. */
static struct molt_manifest *mk(const char *text)
{
    struct molt_manifest *m = molt_manifest_new();
    molt_manifest_add(
        m, &(struct molt_entry){.path = "", .type = MOLT_T_DIR, .ino = 2, .ctime_ns = 1, .mode = 0755});
    while (*text) {
        char path[64], type;
        unsigned ino, content, mode, nlink;
        int used = 0;
        assert_int_equal(
            sscanf(text, "%63s %c %u %u %o %u;%n", path, &type, &ino, &content, &mode, &nlink, &used), 6);
        struct molt_entry e = {
            .path = path, .ino = ino, .ctime_ns = ino, .mtime_ns = ino, .mode = mode, .nlink = nlink};
        e.type = type == 'd' ? MOLT_T_DIR : type == 'l' ? MOLT_T_LNK : MOLT_T_REG;
        e.target = type == 'l' ? "target" : NULL;
        if (type == 'f')
            e.size = e.content_hash = content;
        molt_manifest_add(m, &e);
        text += used;
        text += strspn(text, " ");
    }
    assert_ok(molt_manifest_finish(m, err));
    return m;
}

struct made {
    struct molt_manifest *b, *p, *a, *u;
    struct molt_policy *policy;
    struct molt_plan *plan;
};

static struct made plan_of(const char *b, const char *p, const char *a, const char *u,
                           enum molt_on_conflict oc)
{
    struct made x = {.b = mk(b), .a = mk(a), .u = mk(u)};
    x.p = p ? mk(p) : x.b;
    assert_ok(molt_policy_parse(rules, sizeof(rules) - 1, "rules", &x.policy, err));
    assert_ok(molt_plan_pass(x.b, x.p, x.a, x.u, x.policy, oc, &x.plan, err));
    return x;
}

static void done(struct made *x)
{
    molt_plan_free(x->plan);
    molt_policy_free(x->policy);
    if (x->p != x->b)
        molt_manifest_free(x->p);
    molt_manifest_free(x->b);
    molt_manifest_free(x->a);
    molt_manifest_free(x->u);
}

/* The plan as "act path, act path" without the closing directory attributes. */
static char *summary(const struct molt_plan *p)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    for (size_t i = 0; i < p->n; i++)
        if (p->v[i].act != MOLT_ACT_DIR_META)
            molt_strbuf_addf(&b, "%s%s %s%s%s", b.len ? ", " : "", molt_act_name(p->v[i].act), p->v[i].path,
                             p->v[i].link ? "=" : "", p->v[i].link ? p->v[i].link : "");
    return molt_strbuf_steal(&b);
}

static char *conflicts(const struct molt_plan *p)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    for (size_t i = 0; i < p->n_conflicts; i++)
        molt_strbuf_addf(&b, "%s%s:%s:%s%s", b.len ? ", " : "", p->conflicts[i].path, p->conflicts[i].kind,
                         p->conflicts[i].decision, p->conflicts[i].open ? "!" : "");
    return molt_strbuf_steal(&b);
}

static void expect(const char *b, const char *a, const char *u, enum molt_on_conflict oc, const char *acts,
                   const char *confl)
{
    struct made x = plan_of(b, NULL, a, u, oc);
    CLEANUP_FREE char *s = summary(x.plan), *c = conflicts(x.plan);
    assert_string_equal(s, acts);
    assert_string_equal(c, confl);
    done(&x);
}

#define REFUSE                MOLT_ON_CONFLICT_REFUSE
#define F(path, ino, content) path " f " #ino " " #content " 0644 1; "
#define D(path, ino)          path " d " #ino " 0 0755 2; "

static void active_only(void **s)
{
    (void)s;
    expect(F("x", 10, 1), F("x", 11, 2), F("x", 10, 1), REFUSE, "put x", "");
    expect("", F("x", 11, 2), "", REFUSE, "put x", "");
    expect(F("x", 10, 1), "", F("x", 10, 1), REFUSE, "delete x", "");
}

static void upgrade_only(void **s)
{
    (void)s;
    expect(F("x", 10, 1), F("x", 10, 1), F("x", 12, 2), REFUSE, "", "");
    expect("", "", F("x", 12, 2), REFUSE, "", "");
    expect(F("x", 10, 1), F("x", 10, 1), "", REFUSE, "", "");
}

static void both_the_same(void **s)
{
    (void)s;
    expect(F("x", 10, 1), F("x", 11, 2), F("x", 12, 2), REFUSE, "", "");
    expect(F("x", 10, 1), "", "", REFUSE, "", "");
    expect("", F("x", 11, 2), F("x", 12, 2), REFUSE, "", "");
    struct made x = plan_of(F("x", 10, 1), NULL, F("x", 11, 2), F("x", 12, 2), REFUSE);
    assert_int_equal(x.plan->both_same, 1);
    assert_int_equal(x.plan->active_only + x.plan->upgrade_only, 0);
    done(&x);
}

#define BOTH(dir) D(dir, 3) F(dir "/x", 10, 1), D(dir, 3) F(dir "/x", 11, 2), D(dir, 3) F(dir "/x", 12, 3)

static void both_by_policy(void **s)
{
    (void)s;
    expect(BOTH("db"), REFUSE, "", "db/x:changed-both:upgrade");
    expect(BOTH("id"), REFUSE, "put id/x", "id/x:changed-both:active");
    expect(BOTH("log"), REFUSE, "append log/x", "log/x:changed-both:append");
    expect(BOTH("jnl"), REFUSE, "beside jnl/x", "jnl/x:changed-both:beside");
    expect(BOTH("etc"), REFUSE, "merge-text etc/x", "etc/x:changed-both:merge");
    expect(BOTH("tmp"), REFUSE, "", "tmp/x:changed-both:drop");
    expect(BOTH("srv"), REFUSE, "", "srv/x:changed-both:refuse!");
    expect(BOTH("srv"), MOLT_ON_CONFLICT_ACTIVE, "put srv/x", "srv/x:changed-both:active");
    expect(BOTH("srv"), MOLT_ON_CONFLICT_UPGRADE, "", "srv/x:changed-both:upgrade");
}

static void deleted_against_changed(void **s)
{
    (void)s;
    expect(F("x", 10, 1), "", F("x", 12, 3), REFUSE, "", "x:deleted-vs-changed:refuse!");
    expect(F("x", 10, 1), F("x", 11, 2), "", REFUSE, "", "x:deleted-vs-changed:refuse!");
    expect(F("x", 10, 1), "", F("x", 12, 3), MOLT_ON_CONFLICT_ACTIVE, "delete x",
           "x:deleted-vs-changed:active");
    expect(D("log", 3) F("log/x", 10, 1), D("log", 3), D("log", 3) F("log/x", 12, 3), REFUSE, "",
           "log/x:deleted-vs-changed:append");
    expect(D("log", 3) F("log/x", 10, 1), D("log", 3) F("log/x", 11, 2), D("log", 3), REFUSE, "put log/x",
           "log/x:deleted-vs-changed:append");
    /* dpkg's habit: a deleted conffile stays deleted, the new one lies beside */
    expect(D("etc", 3) F("etc/x", 10, 1), D("etc", 3), D("etc", 3) F("etc/x", 12, 3), REFUSE,
           "keep-beside etc/x", "etc/x:deleted-vs-changed:active");
}

static void file_against_directory(void **s)
{
    (void)s;
    /* only the active changed the type: the deletions clear the way */
    expect(D("x", 3) F("x/y", 10, 1), F("x", 11, 2), D("x", 3) F("x/y", 10, 1), REFUSE, "delete x/y, put x",
           "");
    expect(F("x", 10, 1), D("x", 11) F("x/y", 12, 2), F("x", 10, 1), REFUSE, "put-dir x, put x/y", "");
    /* the upgrade changed something below */
    expect(D("x", 3) F("x/y", 10, 1), F("x", 11, 2), D("x", 3) F("x/y", 12, 2), REFUSE, "",
           "x:file-vs-directory:refuse!");
    expect(D("x", 3) F("x/y", 10, 1), F("x", 11, 2), D("x", 3) F("x/y", 12, 2) F("x/z", 13, 2),
           MOLT_ON_CONFLICT_ACTIVE, "delete x/z, delete x/y, put x", "x:file-vs-directory:active");
    expect(D("x", 3) F("x/y", 10, 1), F("x", 11, 2), D("x", 3) F("x/y", 12, 2), MOLT_ON_CONFLICT_UPGRADE, "",
           "x:file-vs-directory:upgrade");
    /* a sibling whose name sorts between "x" and "x/" as bytes is not below */
    expect(D("x", 3) F("x/y", 10, 1) F("x-z", 14, 1), F("x", 11, 2) F("x-z", 14, 1),
           D("x", 3) F("x/y", 12, 2) F("x-z", 14, 1), MOLT_ON_CONFLICT_ACTIVE, "delete x/y, put x",
           "x:file-vs-directory:active");
}

static void entries_out_of_order_are_refused(void **s)
{
    (void)s;
    struct molt_manifest *m = molt_manifest_new();
    molt_manifest_add(m, &(struct molt_entry){.path = "b", .type = MOLT_T_REG});
    molt_manifest_add(m, &(struct molt_entry){.path = "a", .type = MOLT_T_REG});
    assert_code(MOLT_E_PROTOCOL, molt_manifest_finish(m, err));
    molt_manifest_free(m);
}

static void deleted_parent_stays_when_something_stays_in_it(void **s)
{
    (void)s;
    expect(D("x", 3) F("x/y", 10, 1), "", D("x", 4) F("x/new", 12, 2) F("x/y", 10, 1), REFUSE, "delete x/y",
           "");
    expect(D("x", 3) F("x/y", 10, 1), D("x", 5) F("x/new", 12, 2) F("x/y", 10, 1), "", REFUSE,
           "put-dir x, put x/new", "");
}

static void directory_times_are_no_conflict(void **s)
{
    (void)s;
    struct made x = plan_of(D("x", 3), NULL, D("x", 4), D("x", 5), REFUSE);
    assert_int_equal(x.plan->n_conflicts, 0);
    assert_int_equal(x.plan->n, 1); /* the upgrade's time stays */
    assert_int_equal(x.plan->v[0].act, MOLT_ACT_DIR_META);
    assert_int_equal(x.plan->v[0].want.mtime_ns, 5);
    done(&x);
    x = plan_of(D("x", 3), NULL, D("x", 4), D("x", 3), REFUSE);
    assert_int_equal(x.plan->v[x.plan->n - 1].want.mtime_ns, 4); /* the active alone changed it */
    done(&x);
}

static void directory_attributes_merge_one_by_one(void **s)
{
    (void)s;
    struct made x = plan_of(D("x", 3), NULL, "x d 4 0 0700 2; ", D("x", 5), REFUSE);
    assert_int_equal(x.plan->n_conflicts, 0);
    assert_int_equal(x.plan->v[0].act, MOLT_ACT_PUT_DIR);
    assert_int_equal(x.plan->v[0].want.mode, 0700);
    done(&x);
    expect(D("x", 3), "x d 4 0 0700 2; ", "x d 5 0 0711 2; ", REFUSE, "", "x:attributes:refuse!");
}

static void content_by_one_attributes_by_the_other(void **s)
{
    (void)s;
    struct made x = plan_of(F("x", 10, 1), NULL, "x f 11 1 0600 1; ", F("x", 12, 2), REFUSE);
    assert_int_equal(x.plan->n_conflicts, 0);
    assert_int_equal(x.plan->v[0].act, MOLT_ACT_SET_META);
    assert_int_equal(x.plan->v[0].want.mode, 0600);
    done(&x);
    x = plan_of(F("x", 10, 1), NULL, F("x", 11, 2), "x f 12 1 0600 1; ", REFUSE);
    assert_int_equal(x.plan->v[0].act, MOLT_ACT_PUT);
    assert_int_equal(x.plan->v[0].want.mode, 0600);
    assert_true(x.plan->v[0].stash);
    done(&x);
}

static void attributes_only_cost_no_content(void **s)
{
    (void)s;
    struct made x = plan_of(F("x", 10, 1), NULL, "x f 11 1 0600 1; ", F("x", 10, 1), REFUSE);
    assert_int_equal(x.plan->v[0].act, MOLT_ACT_SET_META);
    assert_int_equal(x.plan->v[0].fetch, MOLT_FETCH_NONE);
    done(&x);
}

static void time_only_yields_to_content(void **s)
{
    (void)s;
    expect(F("x", 10, 1), F("x", 11, 1), F("x", 12, 2), REFUSE, "", "");
    expect(F("x", 10, 1), F("x", 11, 2), F("x", 12, 1), REFUSE, "put x", "");
    expect(F("x", 10, 1), F("x", 11, 1), F("x", 10, 1), REFUSE, "set-meta x", "");
}

static void hard_links_are_made_again(void **s)
{
    (void)s;
    expect("", "a f 20 5 0644 2; b f 20 5 0644 2; ", "", REFUSE, "put a, hardlink b=a", "");
    /* the first name is the upgrade's by then: the second leads */
    expect(F("a", 10, 1), "a f 20 1 0644 3; b f 20 1 0644 3; c f 20 1 0644 3; ", F("a", 12, 2), REFUSE,
           "put b, hardlink c=b", "");
    /* a link taken apart */
    expect("a f 20 5 0644 2; b f 20 5 0644 2; ", "a f 21 6 0644 1; b f 22 5 0644 1; ",
           "a f 20 5 0644 2; b f 20 5 0644 2; ", REFUSE, "put a, put b", "");
}

static void rename_is_delete_and_add(void **s)
{
    (void)s;
    expect(F("old", 10, 1), F("new", 11, 1), F("old", 10, 1), REFUSE, "put new, delete old", "");
}

static void later_pass_takes_only_what_changed(void **s)
{
    (void)s;
    const char *b = F("x", 10, 1) F("y", 20, 1), *p = F("x", 11, 2) F("y", 20, 1);
    struct made x = plan_of(b, p, p, b, REFUSE);
    assert_int_equal(x.plan->n, 0);
    assert_int_equal(x.plan->active_only, 1);
    done(&x);
    x = plan_of(b, p, F("x", 11, 2) F("y", 21, 2), b, REFUSE);
    CLEANUP_FREE char *sum = summary(x.plan);
    assert_string_equal(sum, "put y");
    done(&x);
}

static void later_pass_undoes_what_is_the_upgrades_again(void **s)
{
    (void)s;
    struct made x = plan_of(D("id", 3) F("id/x", 10, 1), D("id", 3) F("id/x", 11, 2),
                            D("id", 3) F("id/x", 10, 1), D("id", 3) F("id/x", 12, 3), REFUSE);
    CLEANUP_FREE char *sum = summary(x.plan);
    assert_string_equal(sum, "restore id/x");
    done(&x);
}

static void mount_points_are_left_alone(void **s)
{
    (void)s;
    struct made x = {.b = mk(D("proc", 3) F("proc/x", 10, 1)),
                     .a = mk(D("proc", 4)),
                     .u = mk(D("proc", 3) F("proc/x", 12, 2))};
    x.p = x.b;
    molt_manifest_find(x.a, "proc")->flags |= MOLT_EF_MOUNT;
    assert_ok(molt_policy_parse("", 0, "none", &x.policy, err));
    assert_ok(molt_plan_pass(x.b, x.p, x.a, x.u, x.policy, REFUSE, &x.plan, err));
    assert_int_equal(x.plan->n, 0);
    assert_int_equal(x.plan->n_conflicts, 0);
    done(&x);
}

static void need_hash_asks_for_little(void **s)
{
    (void)s;
    struct molt_need_hash h;
    struct made x = plan_of(F("a", 10, 5) F("b", 20, 5) F("c", 30, 5) F("d", 40, 5), NULL,
                            F("a", 11, 5) F("b", 21, 6) F("c", 30, 5) F("d", 41, 5),
                            F("a", 12, 5) F("b", 22, 7) F("c", 32, 5) F("d", 40, 5), REFUSE);
    for (size_t i = 0; i < x.b->n; i++)
        x.b->v[i].content_hash = x.a->v[i].content_hash = x.u->v[i].content_hash = 0;
    molt_plan_need_hash(x.b, x.a, x.u, x.policy, &h);
    /* b: all sizes differ; c: the active did not change it; d: its new time says enough */
    assert_int_equal(h.n_active, 1);
    assert_string_equal(h.active[0], "a");
    assert_string_equal(h.upgrade[0], "a");
    assert_string_equal(h.base[0], "a");
    molt_need_hash_free(&h);
    done(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(active_only),
        cmocka_unit_test(upgrade_only),
        cmocka_unit_test(both_the_same),
        cmocka_unit_test(both_by_policy),
        cmocka_unit_test(deleted_against_changed),
        cmocka_unit_test(file_against_directory),
        cmocka_unit_test(entries_out_of_order_are_refused),
        cmocka_unit_test(deleted_parent_stays_when_something_stays_in_it),
        cmocka_unit_test(directory_times_are_no_conflict),
        cmocka_unit_test(directory_attributes_merge_one_by_one),
        cmocka_unit_test(content_by_one_attributes_by_the_other),
        cmocka_unit_test(attributes_only_cost_no_content),
        cmocka_unit_test(time_only_yields_to_content),
        cmocka_unit_test(hard_links_are_made_again),
        cmocka_unit_test(rename_is_delete_and_add),
        cmocka_unit_test(later_pass_takes_only_what_changed),
        cmocka_unit_test(later_pass_undoes_what_is_the_upgrades_again),
        cmocka_unit_test(mount_points_are_left_alone),
        cmocka_unit_test(need_hash_asks_for_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
