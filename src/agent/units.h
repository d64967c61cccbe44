/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The services that one operation moves: what this side holds of each, and how requests name them. */
#ifndef MOLT_AGENT_UNITS_H
#define MOLT_AGENT_UNITS_H

#include "agent/agent.h"
#include "procmig/predump.h"
#include "procmig/restore.h"

#define MOLT_MAX_UNITS 16

struct unit_move {
    char *unit;
    char *images;                           /* directory of its images, below MOLT_AGENT_DUMP; a round's are below it */
    struct molt_workload *workload;         /* active: what dump-prepare found, NULL: nothing yet */
    struct molt_dump *dump;                 /* active: a criu that waits for the dump, or is at it; NULL: none */
    struct molt_round round[MOLT_PREDUMP_MAX]; /* active: what each round of memory was like */
    bool armed;                             /* active: that criu had waited */
    bool frozen;                            /* active: we stopped it and did not yet give it away */
    bool prepared;                          /* clone: its restore was prepared here and it was not thawed */
    struct molt_restoring *restoring;       /* clone: one that goes on; NULL: none */
    struct molt_json *paged;                /* clone: of the memory that came after the thaw; NULL: none, or not known yet */
    uint64_t image_bytes;                   /* clone: of the dump's images */
};

struct unit_moves {
    struct unit_move *v[MOLT_MAX_UNITS]; /* pointers stay what they are until units_free */
    size_t n;
};

/* MOLT_AGENT_DUMP/UNIT, malloc'd; the name must have been checked. */
char *units_images(const char *unit);
/* An empty directory for its images, on a tmpfs: they never touch a disk. */
int units_fresh_images(const struct unit_move *m, struct molt_error **err);
/* A request's "unit", checked; *ret is the request's. MOLT_E_PROTOCOL, MOLT_E_USAGE. */
int units_name(struct molt_request *rq, const char **ret, struct molt_error **err);
/* The entry of a unit; NULL: there is none. */
struct unit_move *units_find(const struct session *s, const char *unit);
/* The same of the request's "unit", made where there is none. MOLT_E_PROTOCOL: too many. */
int units_of_request(struct molt_request *rq, struct unit_move **ret, struct molt_error **err);
/* fn for each object of the request's "units" ([{"unit", ...}], at least one), with its entry, which is made where there is none. Stops at
 * the first error. */
int units_each(struct molt_request *rq, int (*fn)(struct molt_request *rq, struct unit_move *m, const struct molt_json *args, struct molt_error **err),
               struct molt_error **err);
/* Whether any entry has that mark. */
bool units_frozen(const struct session *s);
void units_free(struct session *s);

#endif
