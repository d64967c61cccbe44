/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal: small files in places that no merge carries (/tmp, /run, /dev/shm) which the workload has open or
 * mapped, such as the JVM's hsperfdata. Their content travels in the image directory.
 */
#ifndef MOLT_PROCMIG_CARRY_H
#define MOLT_PROCMIG_CARRY_H

#include "procmig/workload.h"

#define MOLT__CARRY_FILE_MAX (64u << 20)
#define MOLT__CARRY_SUM_MAX  (256u << 20)
#define MOLT__CARRY_MAX      4096

bool molt__carry_wanted(const char *path);
/* Copies them to DIR/carry-N; an array of {path, file, mode, uid, gid, dirs [{path, mode, uid, gid}]}. */
int molt__carry_collect(const struct molt_workload *w, const char *dir, struct molt_json **ret_list,
                        struct molt_error **err);
/* Puts them where they were; existing files are replaced. */
int molt__carry_place(const struct molt_json *list, const char *dir, struct molt_error **err);

#endif
