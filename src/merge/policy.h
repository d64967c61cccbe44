/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The merge policy: who wins where both sides changed a path differently. A text file, one rule a line,
 *
 *     CLASS ACTION PATTERN  # reason
 *
 * and the first rule whose pattern matches decides. xenmolt-policy(5) is the reference.
 */
#ifndef MOLT_MERGE_POLICY_H
#define MOLT_MERGE_POLICY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* X(NAME, "text"); in actions, beside: the upgrade's stays, the active's is laid beside it (journals). */
/* clang-format off */
#define MOLT_CLASSES(X)           \
    X(PACKAGE_DB, "package-db")   \
    X(IDENTITY, "identity")       \
    X(LOG, "log")                 \
    X(ETC_TEXT, "etc-text")       \
    X(CACHE, "cache")             \
    X(VOLATILE, "volatile")       \
    X(DATA, "data")               \
    X(REFUSE, "refuse")
#define MOLT_POLICY_ACTIONS(X)    \
    X(ACTIVE, "active")           \
    X(UPGRADE, "upgrade")         \
    X(APPEND, "append")           \
    X(MERGE, "merge")             \
    X(DROP, "drop")               \
    X(REFUSE, "refuse")           \
    X(BESIDE, "beside")
/* clang-format on */

#define MOLT_X(name, text) MOLT_CLASS_##name,
enum molt_class { MOLT_CLASSES(MOLT_X) };
#undef MOLT_X
#define MOLT_X(name, text) MOLT_POLICY_##name,
enum molt_policy_action { MOLT_POLICY_ACTIONS(MOLT_X) };
#undef MOLT_X

struct molt_rule {
    enum molt_class class;
    enum molt_policy_action action;
    const char *pattern; /* without the leading slash */
    const char *reason;  /* "" when none is given */
    int line;            /* 0: the built-in last rule */
    bool decided;        /* an admin's decision about one path (molt_policy_decide) */
};

struct molt_policy;
/* name stands in error messages ("name:12: unknown class ..."), code MOLT_E_USAGE. */
int molt_policy_parse(const char *text, size_t len, const char *name, struct molt_policy **ret,
                      struct molt_error **err);
int molt_policy_load(const char *path, struct molt_policy **ret, struct molt_error **err);
/* The policy for Debian that is built into the program (data/policy/debian.policy). */
int molt_policy_default(struct molt_policy **ret, struct molt_error **err);
extern const char molt_policy_debian_text[];
/* Likewise for distributions with rpm (data/policy/rpm.policy). */
extern const char molt_policy_rpm_text[];
/* The built-in policy for the system in a tree: by its package database, else by os-release. *ret_name (may be NULL):
 * "debian.policy" or "rpm.policy". */
int molt_policy_choose(int rootfd, struct molt_policy **ret, const char **ret_name, struct molt_error **err);
void molt_policy_free(struct molt_policy *p);
static inline void molt__cleanup_policy(struct molt_policy **p)
{
    molt_policy_free(*p);
}
#define CLEANUP_POLICY __attribute__((cleanup(molt__cleanup_policy)))

/* What an admin decided about single paths. */
struct molt_decision {
    const char *path;
    enum molt_policy_action action;
    int line; /* of the resolve file */
};
/* A policy of decisions in front of `under` (borrowed; must outlive it), each path once. A later one may decide anew. */
struct molt_policy *molt_policy_decide(const struct molt_policy *under, const struct molt_decision *v, size_t n);
/* Calls fn for every decision in force. */
void molt_policy_each_decision(const struct molt_policy *p, void (*fn)(void *ctx, const struct molt_rule *r), void *ctx);
/* `of` (borrowed; must outlive it) for the paths of a tree that is mounted at prefix. */
struct molt_policy *molt_policy_below(const struct molt_policy *of, const char *prefix);
/* Paths that their packages declared to be configuration: where a rule would refuse one, it is merged as dpkg treats
 * conffiles, unless the rule's class is refuse. Copied. */
struct molt_conffile {
    char *path, *package;
};
struct molt_conffiles {
    struct molt_conffile *v;
    size_t n, cap;
};
void molt_policy_add_conffiles(struct molt_policy *p, const struct molt_conffiles *c);
bool molt_policy_is_conffile(const struct molt_policy *p, const char *path);
/* -1: no such action. */
int molt_policy_action_of(const char *name);

/* Never NULL: the last resort is "data refuse". */
const struct molt_rule *molt_policy_match(const struct molt_policy *p, const char *path);
/* '*' and '?' within a component, '[a-z]' sets, '**' across components; a trailing slash-'**' matches the
 * directory too. */
bool molt_glob_match(const char *pattern, const char *path);
const char *molt_class_name(enum molt_class c);
const char *molt_policy_action_name(enum molt_policy_action a);

#endif
