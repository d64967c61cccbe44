/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_MERGE_PLAN_INTERNAL_H
#define MOLT_MERGE_PLAN_INTERNAL_H

#include "merge/plan.h"

/* In what two entries differ. A weak difference (times, hard-link structure) yields to any strong one. */
#define MOLT__D_TYPE    1u /* or only one of them is there */
#define MOLT__D_CONTENT 2u
#define MOLT__D_META    4u /* mode, owner, inode flags */
#define MOLT__D_XATTR   8u
#define MOLT__D_MTIME   16u
#define MOLT__D_LINK    32u
#define MOLT__D_ATTRS   (MOLT__D_META | MOLT__D_XATTR)
#define MOLT__D_STRONG  (MOLT__D_TYPE | MOLT__D_CONTENT | MOLT__D_ATTRS)

unsigned molt__diff(const struct molt_entry *a, const struct molt_entry *b);
bool molt__same_inode(const struct molt_entry *a, const struct molt_entry *b);
static inline bool molt__is_dir(const struct molt_entry *e)
{
    return e && e->type == MOLT_T_DIR;
}
/* Each attribute from the side that changed it; true in *ret_clash (may be NULL) when both did, differently,
 * and prefer_active decided. Type and content fields are the preferred side's. xattr_hash tells whose xattrs
 * to take. */
struct molt_entry molt__attrs_want(const struct molt_entry *b, const struct molt_entry *a,
                                   const struct molt_entry *u, bool prefer_active, bool *ret_clash);

#endif
