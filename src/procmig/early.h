/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Internal: what a restore needs beside CRIU, done with each of the images when it arrives, while the last of them are still written. Nothing is lost with what
 * cannot be done then: it is done, and its failure told, when all are there.
 */
#ifndef MOLT_PROCMIG_EARLY_H
#define MOLT_PROCMIG_EARLY_H

#include "procmig/lazy.h"
#include "procmig/neighbours.h"
#include "procmig/restore.h"

struct molt__early {
    const struct molt_restore_spec *spec;
    char *residue;                       /* the file for it (residue.h) */
    const struct molt__network *network; /* NULL: it could not be looked at */
    struct molt_marking *marking;        /* NULL: all of the memory is restored at once */
    struct molt_json *meta;              /* NULL: not there yet, or not all of what it says is done */
    int watch;                           /* -1: nothing is done early */
    bool noted;                          /* what is new here, for an undo */
};
#define MOLT__EARLY_NONE {.watch = -1}

/* Looks for images in the directory of s from here on; s and net live as long. residue: where what is new here is noted. paged: memory may come later. */
void molt__early_begin(struct molt__early *e, const struct molt_restore_spec *s, const char *residue, const struct molt__network *net, bool paged);
/* Some have arrived: e->watch is readable. */
void molt__early_look(struct molt__early *e);
/* All are there: what is left to do. With 0 e->meta is there. count: none where all is restored at once. */
int molt__early_end(struct molt__early *e, struct molt_lazy_count *count, struct molt_error **err);
void molt__early_free(struct molt__early *e);

#endif
