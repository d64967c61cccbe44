/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The active's side of recording: begins before the snapshot, ends with the session. */
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/peer.h"
#include "agent/trees.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/record.h"

#define RECORD_DIR MOLT_AGENT_LIB "/record"

/* Of these file systems; false with *why set. */
static bool start(struct session *s, const char *const *roots, struct molt_error **why)
{
    struct molt_record_root v[MOUNTS_MAX];
    struct molt_recorder_opts o = {.roots = v, .journal_dir = RECORD_DIR, .log = s->log};
    for (; roots[o.n_roots]; o.n_roots++)
        v[o.n_roots] = (struct molt_record_root){roots[o.n_roots], trees_exclude(roots[o.n_roots] + 1)};
    bool ok = molt_recorder_start(&o, &s->recorder, why) == 0;
    for (size_t i = 0; i < o.n_roots; i++)
        free((void *)v[i].exclude); /* the recorder's process has a copy */
    for (size_t i = 0; ok && roots[i]; i++)
        s->recorded[i] = molt_xstrdup(roots[i]);
    return ok;
}

/* On one of the disks, or no disks are named. */
static bool is_wanted(const struct agent_mount *m, const struct molt_json *disks)
{
    char *names[16];
    size_t n = disks ? mounts_disks(m->dev, names, 16) : 0;
    bool hit = !disks;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < molt_json_size(disks); k++)
            hit |= molt_streq(molt_json_str(molt_json_at(disks, k)), names[i]);
        free(names[i]);
    }
    return hit;
}

/* {"disks": ["xvda", ...]}: records the file systems on these disks (without it: all) from now on. Reply {"recording": bool,
 * "reason": why not}: not an error, because the scan finds what changed as well. */
int h_record_start(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    static const char *const root_only[] = {"/", NULL};
    struct session *s = rq->ctx;
    CLEANUP_ERROR struct molt_error *why = NULL;
    CLEANUP_MOUNTS struct agent_mounts m = {.n = 0};
    const char *roots[MOUNTS_MAX + 1] = {NULL};
    size_t n = 0;
    record_end(s);
    int r = mounts_read(&m, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < m.n; i++)
        if (n < sizeof(s->recorded) / sizeof(s->recorded[0]) - 1 && is_wanted(&m.v[i], molt_json_get(rq->args, "disks")))
            roots[n++] = m.v[i].dir;
    bool ok = n && start(s, roots, &why);
    if (!ok && n > 1) { /* one that cannot be recorded must not spoil the root's recording */
        molt_warn(s->log, "%s", molt_error_text(why));
        molt_error_clear(&why);
        ok = start(s, root_only, &why);
    }
    if (!ok) {
        s->no_recorder = molt_xstrdup(why ? molt_error_text(why) : "no file system is on the disks that were named");
        molt_warn(s->log, "%s", s->no_recorder);
        molt_json_set_string(reply, "reason", s->no_recorder);
    }
    molt_json_set_bool(reply, "recording", ok);
    return 0;
}

void record_end(struct session *s)
{
    molt_recorder_stop(s->recorder);
    s->recorder = NULL;
    for (size_t i = 0; s->recorded[i]; i++) {
        free(s->recorded[i]);
        s->recorded[i] = NULL;
    }
    free(s->no_recorder);
    s->no_recorder = NULL;
}
