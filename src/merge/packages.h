/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the package systems' databases in a tree tell the merge. */
#ifndef MOLT_MERGE_PACKAGES_H
#define MOLT_MERGE_PACKAGES_H

#include <stddef.h>

#include "merge/plan.h"

struct molt_merge_peer;

/* Compares the installed packages (name:arch and version, state "installed") of two dpkg status files.
 * Returns how many differ; *ret_list (malloc'd, may be NULL) holds "+name version", "-name version", "name v1
 * -> v2" lines. */
size_t molt_dpkg_status_changed(const char *base_text, const char *active_text, char **ret_list);

/* Appends the conffiles that a dpkg status file lists. */
void molt_dpkg_conffiles(const char *status_text, struct molt_conffiles *ret);
void molt_conffiles_clear(struct molt_conffiles *c);
/* For each path whose ret is NULL: the name of the package (malloc'd) that dpkg's lists in a tree say owns it; stays NULL
 * when there is none. */
void molt_dpkg_owners(int rootfd, const char *const *paths, size_t n, char **ret);

/* For each name: the version of that package, installed by a dpkg status file (malloc'd); NULL when there is none. */
void molt_dpkg_versions(const char *status_text, const char *const *names, size_t n, char **ret);

/* prefix: where the tree is mounted ("" or NULL: the root's); a database that lies elsewhere is not looked for. */
/* Tells the policy of the conffiles that dpkg in this tree knows; no dpkg there: nothing to tell. */
int molt_packages_conffiles(int rootfd, const char *prefix, struct molt_conffiles *ret, struct molt_error **err);
/* MOLT_E_CONFLICT, with the names of packages in the text where they can be read, when the active's set of packages is not
 * the base's. latest (may be NULL): the active as it told last; what it proves to be the base's is not asked for. */
int molt_packages_check(int basefd, const char *prefix, const struct molt_manifest *base, const struct molt_manifest *latest,
                        const struct molt_merge_peer *peer, struct molt_error **err);

#endif
