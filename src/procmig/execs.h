/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Programs that a workload may still start after its move. In its overlay it sees the old libraries under their names; a program of the new
 * system, built against newer ones, may not start with those, and a helper of its own (jspawnhelper of a JDK) must be of its own version.
 * So they are pins as well, with the loader and the libraries that they need, and scripts with their interpreters: where the new system's
 * are the same nothing is mounted.
 */
#ifndef MOLT_PROCMIG_EXECS_H
#define MOLT_PROCMIG_EXECS_H

#include "procmig/pins.h"

#define MOLT_EXECS_MAX 256 /* programs */

/* Adds to p: /bin/sh, which system(3) and popen(3) start; programs below `lib` and `libexec` of the directory that the main program is
 * installed in (not /usr itself); and what `list` names, one absolute path a line, comments by '#', of a directory the programs directly in it. A
 * list, or a file, that is not there is no error; MOLT_E_USAGE: a line that is no path. */
int molt_pins_add_execs(struct molt_pins *p, const struct molt_workload *w, const char *list, struct molt_error **err);

/* PREFIX of PREFIX/bin/NAME or PREFIX/sbin/NAME; NULL where that is the system's own or there is none. malloc'd. */
char *molt__exec_prefix(const char *exe);
/* The next path in what the loader prints with --list, from *at on; malloc'd, NULL at the end. */
char *molt__list_next(const char **at);
/* The interpreter in the first line of a script, or NULL. malloc'd. */
char *molt__script_interpreter(const char *text, size_t len);

#endif
