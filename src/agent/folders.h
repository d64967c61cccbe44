/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_AGENT_FOLDERS_H
#define MOLT_AGENT_FOLDERS_H

#include "agent/trees.h"

/* Whether dir is one of those that dom0 named ([path]). */
bool folders_has(const struct molt_json *folders, const char *dir);
/* Where the workload arrives: [{"path", "mode", "uid", "gid"}] become empty directories (which is all they may have been), and trees to be merged
 * into. Closed by trees_close; what came into them stays. */
int folders_open(const struct molt_json *folders, struct agent_trees *ret, struct molt_error **err);

#endif
