/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Internal: what a restore, or its trial, puts into the file system that was not there, so that it can be taken away again. */
#ifndef MOLT_PROCMIG_RESIDUE_H
#define MOLT_PROCMIG_RESIDUE_H

#include "base/json.h"

struct molt__residue {
    char **v; /* paths, parents first */
    size_t n, cap;
};

/* The files that the meta of a dump's images carries, their directories, and the unix sockets' files, as far as they are not there yet. */
void molt__residue_note(struct molt__residue *rs, const struct molt_json *meta);
/* For whoever undoes the restore. */
int molt__residue_save(const struct molt__residue *rs, const char *file, struct molt_error **err);
/* A file that is not there is no residue. */
int molt__residue_load(struct molt__residue *rs, const char *file, struct molt_error **err);
/* Removes what is there of it (files, sockets, empty directories), last first, and forgets it. */
void molt__residue_clear(struct molt__residue *rs);
/* Forgets it only. */
void molt__residue_free(struct molt__residue *rs);

#endif
