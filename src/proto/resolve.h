/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The resolve file: what an admin decided about single paths of a merge. One decision a line,
 *
 *     ACTION PATH  # comment
 *
 * ACTION one of active, upgrade, append, merge, drop; PATH exactly as reports print it (\xNN for bytes that are not
 * printable). The host checks it before anything starts, the agent once more; xenmolt-policy(5) is the reference.
 */
#ifndef MOLT_PROTO_RESOLVE_H
#define MOLT_PROTO_RESOLVE_H

#include <stddef.h>

#include "base/error.h"
#include "base/json.h"

#define MOLT_RESOLVE_MAX      (256u << 10) /* bytes of the text: as a JSON string in a request it must fit MOLT_MSG_MAX */
#define MOLT_RESOLVE_PATH_MAX 32768u       /* bytes of a path */

struct molt_resolve_line {
    char *path;         /* the bytes themselves, without the leading slash */
    const char *action; /* a static string */
    int line;
};
struct molt_resolve {
    struct molt_resolve_line *v; /* in the order of the file */
    size_t n, cap;
};

/* name stands in error messages ("name:12: unknown action ..."), code MOLT_E_USAGE. A path twice is an error. */
int molt_resolve_parse(const char *text, size_t len, const char *name, struct molt_resolve **ret, struct molt_error **err);
/* Reads a file of the host and checks it. *ret_text (malloc'd, may be NULL), *ret_n decisions (may be NULL). */
int molt_resolve_load(const char *path, char **ret_text, size_t *ret_n, struct molt_error **err);
void molt_resolve_free(struct molt_resolve *r);
static inline void molt__cleanup_resolve(struct molt_resolve **r)
{
    molt_resolve_free(*r);
}
#define CLEANUP_RESOLVE __attribute__((cleanup(molt__cleanup_resolve)))

/* A resolve file (malloc'd text) that lists the conflicts of a merge report (xenmolt-report(7), what the guest's agent
 * said) as comments with both sides' attributes; none of them is decided yet. */
char *molt_resolve_template(const char *operation, const char *domain, const struct molt_json *conflicts);
/* "file, 12 bytes, mode 0644, owner 0:0, 2026-..." of one side of a conflict (an object, or null: "not there"). malloc'd */
char *molt_resolve_side(const struct molt_json *side);
/* What an agent's answer may do to a terminal or a file of lines: control characters in its strings become '?', but for
 * newlines and tabs where `multiline` (the key of an object's member, such as "diff") says so. Keys as well. A new value. */
struct molt_json *molt_json_clean(const struct molt_json *v, const char *multiline);

#endif
