/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "merge/merges.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/strbuf.h"

struct one {
    struct molt_merge *m;
    char *prefix; /* "" for the root */
};

struct molt_merges {
    struct one *v;
    size_t n;
};

void molt_merges_free(struct molt_merges *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++) {
        molt_merge_free(s->v[i].m);
        free(s->v[i].prefix);
    }
    free(s->v);
    free(s);
}

int molt_merges_new(const struct molt_merge_opts *v, size_t n, struct molt_merges **ret, struct molt_error **err)
{
    struct molt_merges *s = molt_xcalloc(1, sizeof(*s));
    s->v = molt_xcalloc(n + 1, sizeof(*s->v));
    int rc = 0;
    for (; rc == 0 && s->n < n; s->n++) {
        struct molt_merge_opts o = v[s->n];
        struct one *x = &s->v[s->n];
        o.prefix = x->prefix = molt_xstrdup(o.prefix ? o.prefix : "");
        rc = molt_merge_new(&o, &x->m, err);
        if (rc < 0 && *x->prefix)
            molt_error_prefix(err, "/%s", x->prefix);
    }
    if (rc < 0)
        molt_merges_free(s);
    else
        *ret = s;
    return rc;
}

static void select_tree(const struct molt_merge_peer *peer, const struct one *x)
{
    if (peer->select)
        peer->select(peer->ctx, x->prefix);
}

static void add_stats(struct molt_pass_stats *sum, const struct molt_pass_stats *st, bool first)
{
    sum->number = first ? st->number : sum->number;
    sum->recorded = (first || sum->recorded) && st->recorded;
    sum->whole |= st->whole;
    sum->actions += st->actions;
    sum->vanished += st->vanished;
    sum->conflicts_open += st->conflicts_open;
    sum->looked_at += st->looked_at;
    sum->bytes += st->bytes;
    sum->ms += st->ms;
    sum->scan_ms += st->scan_ms;
    if (!sum->reason[0])
        memcpy(sum->reason, st->reason, sizeof(sum->reason));
}

int molt_merges_pass(struct molt_merges *s, const struct molt_merge_peer *peer, unsigned flags, struct molt_pass_stats *ret,
                     struct molt_error **err)
{
    struct molt_pass_stats sum = {0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s->n; i++) {
        struct molt_pass_stats st = {0};
        select_tree(peer, &s->v[i]);
        rc = molt_merge_pass(s->v[i].m, peer, flags, &st, err);
        add_stats(&sum, &st, i == 0);
    }
    if (ret)
        *ret = sum;
    return rc;
}

int molt_merges_check_packages(struct molt_merges *s, const struct molt_merge_peer *peer, struct molt_error **err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < s->n; i++) {
        select_tree(peer, &s->v[i]);
        rc = molt_merge_check_packages(s->v[i].m, peer, err);
    }
    return rc;
}

void molt_merges_set_policy(struct molt_merges *s, const struct molt_policy *policy)
{
    for (size_t i = 0; i < s->n; i++)
        molt_merge_set_policy(s->v[i].m, policy);
}

/* --- reports --- */

static void set_prefix(struct molt_json *list, const char *prefix)
{
    for (size_t i = 0; *prefix && i < molt_json_size(list); i++) {
        struct molt_json *o = (struct molt_json *)molt_json_at(list, i); /* the list is ours */
        const char *path = molt_json_get_string(o, "path");
        CLEANUP_FREE char *outer = path ? molt_path_text(prefix) : NULL;
        CLEANUP_FREE char *whole = outer ? molt_xasprintf("%s%s", outer, strcmp(path, "/") ? path : "") : NULL;
        if (whole)
            molt_json_set_string(o, "path", whole);
    }
}

static void add_ints(struct molt_json *sum, const struct molt_json *x)
{
    for (size_t i = 0; i < molt_json_size(x); i++) {
        const struct molt_json *v = molt_json_at(x, i);
        const char *key = molt_json_key_at(x, i);
        if (molt_json_type(v) == MOLT_JSON_INT)
            molt_json_set_int(sum, key, molt_json_get_int(sum, key, 0) + molt_json_intval(v, 0));
    }
}

static void append_all(struct molt_json *sum, const char *key, const struct molt_json *list)
{
    struct molt_json *to = molt_json_get_mutable(sum, key);
    for (size_t i = 0; to && i < molt_json_size(list); i++)
        molt_json_append(to, molt_json_copy(molt_json_at(list, i)));
}

/* A decision is of no use when no tree had one for it. */
static void keep_common(struct molt_json *sum, const struct molt_json *list)
{
    struct molt_json *both = molt_json_array();
    const struct molt_json *mine = molt_json_get(sum, "unused_decisions");
    for (size_t i = 0; i < molt_json_size(mine); i++)
        for (size_t k = 0; k < molt_json_size(list); k++)
            if (molt_streq(molt_json_get_string(molt_json_at(mine, i), "path"), molt_json_get_string(molt_json_at(list, k), "path"))) {
                molt_json_append(both, molt_json_copy(molt_json_at(mine, i)));
                break;
            }
    molt_json_set(sum, "unused_decisions", both);
}

/* The n-th passes of all trees are the n-th pass. */
static void add_passes(struct molt_json *sum, const struct molt_json *list)
{
    struct molt_json *to = molt_json_get_mutable(sum, "passes");
    for (size_t i = 0; to && i < molt_json_size(list); i++) {
        const struct molt_json *x = molt_json_at(list, i);
        struct molt_json *p = (struct molt_json *)molt_json_at(to, i); /* ours */
        if (!p) {
            molt_json_append(to, molt_json_copy(x));
            continue;
        }
        int64_t number = molt_json_get_int(p, "number", 0);
        add_ints(p, x);
        molt_json_set_int(p, "number", number);
        molt_json_set_bool(p, "recorded", molt_json_get_bool(p, "recorded", false) && molt_json_get_bool(x, "recorded", false));
        if (!molt_json_get_string(p, "reason") && molt_json_get_string(x, "reason"))
            molt_json_set_string(p, "reason", molt_json_get_string(x, "reason"));
    }
}

/* x is a tree's report, sum the one of the trees before it. */
static void join(struct molt_json *sum, const struct molt_json *x)
{
    static const char *const lists[] = {"conflicts", "settled"};
    add_ints(sum, x);
    for (size_t i = 0; i < 2; i++)
        append_all(sum, lists[i], molt_json_get(x, lists[i]));
    keep_common(sum, molt_json_get(x, "unused_decisions"));
    add_passes(sum, molt_json_get(x, "passes"));
    struct molt_json *acts = molt_json_get_mutable(sum, "actions");
    if (acts)
        add_ints(acts, molt_json_get(x, "actions"));
}

/* Takes v. */
static struct molt_json *join_next(struct molt_json *sum, struct molt_json *v, const struct one *x)
{
    set_prefix(molt_json_get_mutable(v, "conflicts"), x->prefix);
    set_prefix(molt_json_get_mutable(v, "settled"), x->prefix);
    if (!sum)
        return v;
    join(sum, v);
    molt_json_free(v);
    return sum;
}

static void set_trees(const struct molt_merges *s, struct molt_json *o)
{
    struct molt_json *list = molt_json_array();
    for (size_t i = 0; i < s->n; i++) {
        CLEANUP_FREE char *text = molt_path_text(s->v[i].prefix);
        molt_json_append(list, molt_json_string(text));
    }
    molt_json_set(o, "trees", list);
}

struct molt_json *molt_merges_report(const struct molt_merges *s)
{
    struct molt_json *sum = NULL;
    for (size_t i = 0; i < s->n; i++)
        sum = join_next(sum, molt_merge_report(s->v[i].m), &s->v[i]);
    set_trees(s, sum);
    return sum;
}

int molt_merges_plan(struct molt_merges *s, const struct molt_merge_peer *peer, struct molt_pass_stats *ret_stats,
                     struct molt_json **ret, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *sum = NULL;
    struct molt_pass_stats all = {0};
    for (size_t i = 0; i < s->n; i++) {
        struct molt_json *v;
        struct molt_pass_stats st = {0};
        select_tree(peer, &s->v[i]);
        int rc = molt_merge_plan(s->v[i].m, peer, &st, &v, err);
        if (rc < 0)
            return rc;
        add_stats(&all, &st, i == 0);
        sum = join_next(sum, v, &s->v[i]);
    }
    set_trees(s, sum);
    if (ret_stats)
        *ret_stats = all;
    *ret = MOLT_STEAL_PTR(sum);
    return 0;
}
