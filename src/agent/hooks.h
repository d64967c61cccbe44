/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guest's own programs that are told of a move: xenmolt-agent(8), "HOOKS". */
#ifndef MOLT_AGENT_HOOKS_H
#define MOLT_AGENT_HOOKS_H

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"

#define MOLT_HOOKS_DIR "/etc/xenmolt/hooks.d"
#define MOLT_HOOK_S    30 /* seconds for one */
#define MOLT_HOOKS_MAX 64

/* Runs the programs of dir in the order of their names, each with `event` as its argument and env as its whole environment, and tells of
 * each: ret gets {"name", "status", "ms", "said" (its last line)} objects. Only those are run that root owns and nobody else can write, in a
 * directory of which the same is true; others are told with "skipped": why. A name that a package manager leaves behind (".dpkg-old", "~")
 * is none. MOLT_E_HOOK: one failed, or took longer than limit_s, or all together longer than four times that; with stop the ones behind it are not run. No directory: nothing to do. */
int hooks_run(const char *dir, const char *event, char *const env[], int limit_s, bool stop, struct molt_json *ret, struct molt_error **err);

#endif
