/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The packages of two systems compared: which level is the newer one. */
#ifndef MOLT_MERGE_FILESET_H
#define MOLT_MERGE_FILESET_H

#include "base/json.h"

#define MOLT_FILESET_LIST 2000 /* packages that are named; the numbers count all */

/* {"name:arch": "version"} of a dpkg status file. Owned by the caller. */
struct molt_json *molt_fileset_packages(const char *status_text);
/* What the second system has, seen from the first (both as molt_fileset_packages makes them): {"level": "equal", "newer", "older" or "mixed", by the
 * packages that both have; "equal", "newer", "older", "gone", "added": how many; "list": [{"package", "from" (missing: added), "to" (missing:
 * gone), "order": "newer", "older", "gone" or "added"}], sorted by name; "omitted": how many more}. Owned by the caller. */
struct molt_json *molt_fileset_compare(const struct molt_json *from, const struct molt_json *to);

#endif
