/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "merge/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/strbuf.h"
#include "merge/packages.h"

static const char *type_name(uint8_t type)
{
    static const char *const names[] = {"?",         "file",        "directory", "symlink",
                                        "character device", "block device", "fifo",      "socket"};
    return names[type <= MOLT_T_MAX ? type : 0];
}

/* One side of a conflict; JSON null: not there. */
static struct molt_json *side_json(const struct molt_manifest *m, const char *path)
{
    const struct molt_entry *e = m ? molt_manifest_find(m, path) : NULL;
    char mode[16], stamp[MOLT_STAMP_MAX];
    if (!e)
        return molt_json_null();
    struct molt_json *o = molt_json_object();
    snprintf(mode, sizeof(mode), "%04o", (unsigned)(e->mode & 07777));
    molt_json_set_string(o, "type", type_name(e->type));
    molt_json_set_int(o, "size", (int64_t)e->size);
    molt_json_set_string(o, "mode", mode);
    molt_json_set_int(o, "uid", e->uid);
    molt_json_set_int(o, "gid", e->gid);
    molt_json_set_string(o, "mtime", molt_stamp(e->mtime_ns / 1000, stamp));
    if (e->target) {
        CLEANUP_FREE char *target = molt_path_text(e->target);
        molt_json_set_string(o, "target", target + 1);
    }
    return o;
}

static struct molt_json *conflict_json(const struct molt__view_conflict *x)
{
    const struct molt_conflict *c = &x->c;
    struct molt_json *o = molt_json_object();
    CLEANUP_FREE char *path = molt_path_text(c->path);
    molt_json_set_string(o, "path", path);
    molt_json_set_string(o, "class", molt_class_name(c->rule->class));
    molt_json_set_string(o, "decision", x->overlap ? "active" : c->decision);
    molt_json_set_string(o, "kind", x->overlap ? "text-overlap" : c->kind);
    CLEANUP_FREE char *reason = molt_path_text(c->rule->reason);
    molt_json_set_string(o, "reason", reason + 1);
    CLEANUP_FREE char *rule = molt_path_text(c->rule->pattern);
    molt_json_set_string(o, "rule", rule);
    return o;
}

/* The upgrade's database knows what is there now, the base's what was removed. */
static void set_owners(const struct molt__view *w, struct molt_json *list, const char *const *paths)
{
    size_t n = molt_json_size(list);
    CLEANUP_FREE char **owner = molt_xcalloc(n + 1, sizeof(*owner));
    if (n) {
        molt_dpkg_owners(w->rootfd, paths, n, owner);
        molt_dpkg_owners(w->basefd, paths, n, owner);
    }
    for (size_t i = 0; i < n; i++) {
        struct molt_json *o = (struct molt_json *)molt_json_at(list, i); /* the list is ours */
        CLEANUP_FREE char *text = owner[i] ? molt_path_text(owner[i]) : NULL;
        if (text)
            molt_json_set_string(o, "package", text + 1);
        molt_json_set_bool(o, "conffile", molt_policy_is_conffile(w->policy, paths[i]));
        free(owner[i]);
    }
}

struct unused {
    const struct molt__view *w;
    struct molt_json *list;
};

/* A decision about a path that is no conflict: a typing error, or no longer needed. */
static void add_unused(void *ctx, const struct molt_rule *r)
{
    struct unused *u = ctx;
    for (size_t i = 0; i < u->w->n; i++)
        if (u->w->v[i].c.rule == r)
            return;
    if (molt_json_size(u->list) >= MOLT_REPORT_UNUSED || strlen(r->pattern) > MOLT_REPORT_BYTES / MOLT_REPORT_UNUSED)
        return;
    struct molt_json *o = molt_json_object();
    CLEANUP_FREE char *path = molt_path_text(r->pattern);
    molt_json_set_string(o, "path", path);
    molt_json_set_string(o, "action", molt_policy_action_name(r->action));
    molt_json_set_int(o, "line", r->line);
    molt_json_append(u->list, o);
}

void molt__report_conflicts(const struct molt_merge *m, struct molt_json *o)
{
    struct molt__view w;
    molt__merge_view(m, &w);
    struct molt_json *list = molt_json_array(), *settled = molt_json_array();
    CLEANUP_FREE const char **paths = molt_xcalloc(MOLT_REPORT_CONFLICTS + 1, sizeof(*paths));
    size_t open = 0, shown[2] = {0}, bytes[2] = {0}, omitted[2] = {0}; /* settled, listed */
    for (size_t i = 0; i < w.n; i++) {
        const struct molt__view_conflict *x = &w.v[i];
        bool is_listed = molt__view_listed(x);
        open += x->c.open;
        /* A path may be long, and be four times so as text; it stands in an entry, and its rule's pattern may be it. */
        bytes[is_listed] += 400 + 2 * strlen(x->c.path);
        if (shown[is_listed] >= (is_listed ? MOLT_REPORT_CONFLICTS : MOLT_REPORT_SETTLED) || bytes[is_listed] > MOLT_REPORT_BYTES) {
            omitted[is_listed]++;
            continue;
        }
        struct molt_json *c = conflict_json(x);
        if (is_listed) {
            paths[shown[true]] = x->c.path;
            molt_json_set_bool(c, "open", x->c.open);
            molt_json_set(c, "base", side_json(w.base, x->c.path));
            molt_json_set(c, "active", side_json(w.latest, x->c.path));
            molt_json_set(c, "upgrade", side_json(w.upgrade, x->c.path));
        }
        shown[is_listed]++;
        molt_json_append(is_listed ? list : settled, c);
    }
    set_owners(&w, list, paths);
    struct unused u = {&w, molt_json_array()};
    molt_policy_each_decision(w.policy, add_unused, &u);
    molt_json_set_int(o, "conflicts_open", (int64_t)open);
    molt_json_set(o, "conflicts", list);
    molt_json_set(o, "settled", settled);
    molt_json_set(o, "unused_decisions", u.list);
    if (omitted[true])
        molt_json_set_int(o, "conflicts_omitted", (int64_t)omitted[true]);
    if (omitted[false])
        molt_json_set_int(o, "settled_omitted", (int64_t)omitted[false]);
    free(w.v);
}

int molt_merge_plan(struct molt_merge *m, const struct molt_merge_peer *peer, struct molt_pass_stats *ret_stats,
                    struct molt_json **ret, struct molt_error **err)
{
    struct molt__view w;
    int rc = molt_merge_pass(m, peer, MOLT_PASS_DRY, ret_stats, err);
    if (rc < 0)
        return rc;
    molt__merge_view(m, &w);
    rc = molt__predict_overlaps(m, &w, peer, err);
    free(w.v);
    if (rc < 0)
        return molt_error_prefix(err, "merge");
    struct molt_json *o = molt_merge_report(m), *acts = molt_json_object();
    molt__merge_view(m, &w);
    for (int a = 0; a < MOLT_N_ACTS; a++)
        if (w.counts.by_act[a])
            molt_json_set_int(acts, molt_act_name((enum molt_act)a), (int64_t)w.counts.by_act[a]);
    molt_json_set(o, "actions", acts);
    molt_json_set_int(o, "bytes_to_move", (int64_t)w.counts.bytes);
    rc = molt__report_diffs(&w, peer, molt_json_get_mutable(o, "conflicts"), err);
    free(w.v);
    if (rc < 0)
        molt_json_free(o);
    else
        *ret = o;
    return rc < 0 ? molt_error_prefix(err, "merge") : 0;
}
