/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who runs old code here, and from which packages. */
#ifndef MOLT_AGENT_OVERLAYS_H
#define MOLT_AGENT_OVERLAYS_H

#include "base/log.h"
#include "procmig/overlay.h"

/* Fills the owner of each pin that has none: of a file that an earlier move brought, what its overlay says, else the package that has the
 * path, with its version. unit: whose pins they are. What is not known stays NULL. */
void overlays_own(struct molt_pins *p, const char *unit);
/* Removes the overlays that nobody uses any more: their services were restarted while nobody looked. */
void overlays_tidy(struct molt_log *log);
/* Of a unit that has just ended (`xenmolt-agent overlay-drop UNIT`, by a line of ours in its unit, see below): exit status. */
int overlays_drop(const char *unit, struct molt_log *log);
/* That line: from now on to the next boot systemd calls overlays_drop when the unit ends. systemd has to be told to reload after it. */
int overlays_watch(const char *unit, struct molt_error **err);
/* The line goes, with the next reload. */
void overlays_unwatch(const char *unit);

#endif
