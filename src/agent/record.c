/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The active's side of recording: begins before the snapshot, ends with the session. */
#include "agent/agent.h"
#include "agent/peer.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "merge/record.h"

#define RECORD_DIR MOLT_AGENT_LIB "/record"

/* {}: records the root file system from now on. Reply {"recording": bool, "reason": why not}: not an error, because
 * the scan finds what changed as well. */
int h_record_start(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    static const char *const roots[] = {"/", NULL};
    struct session *s = rq->ctx;
    CLEANUP_ERROR struct molt_error *why = NULL;
    (void)err;
    record_end(s);
    const struct molt_recorder_opts o = {.roots = roots, .exclude = peer_exclude, .journal_dir = RECORD_DIR, .log = s->log};
    if (molt_recorder_start(&o, &s->recorder, &why) < 0) {
        s->no_recorder = molt_xstrdup(molt_error_text(why));
        molt_warn(s->log, "%s", s->no_recorder);
        molt_json_set_string(reply, "reason", s->no_recorder);
    }
    molt_json_set_bool(reply, "recording", s->recorder != NULL);
    return 0;
}

void record_end(struct session *s)
{
    molt_recorder_stop(s->recorder);
    s->recorder = NULL;
    free(s->no_recorder);
    s->no_recorder = NULL;
}
