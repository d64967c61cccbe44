/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/clonerecord.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/trees.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/apply.h"

#define DIR_  MOLT_AGENT_RUN "/record"
#define SOCK  MOLT_AGENT_RUN "/record.sock"
#define FIRST MOLT_AGENT_RUN "/first-boot"
/* On the root file system itself, whatever is mounted elsewhere, under a name that no merge looks at. */
#define SAVED       "/" MOLT_TMP_PREFIX "record"
#define MAX_JOURNAL (UINT64_C(16) << 20) /* it is memory */

static const char *const roots[] = {"/", NULL};

static struct molt_recorder_opts options(struct molt_log *log)
{
    return (struct molt_recorder_opts){.roots = roots, .exclude = peer_exclude, .journal_dir = DIR_, .socket = SOCK,
                                       .max_journal = MAX_JOURNAL, .log = log};
}

void clonerecord_begin(char *title, bool first_boot, struct molt_log *log)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_recorder_opts o = options(log);
    struct statvfs st;
    o.title = title;
    /* The initrd's own programs may have written already. */
    if (statvfs("/", &st) == 0 && !(st.f_flag & ST_RDONLY))
        molt_error_set(&err, MOLT_E_UNSUPPORTED, "the kernel was given the root file system writable");
    else if (molt_mkdir_p(MOLT_AGENT_RUN, 0755, &err) == 0 && molt_recorder_spawn(&o, &err) == 0 && first_boot)
        molt_write_file(FIRST, "", 0, 0600, &err);
    if (err)
        molt_warn(log, "what changes here is not recorded: %s", molt_error_text(err));
}

int clonerecord_save(struct molt_log *log)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_recorder *r = NULL;
    const struct molt_recorder_opts o = options(log);
    struct statvfs st;
    if (!molt_exists(FIRST))
        return 0; /* no clone, or its last boot */
    int rc = molt_recorder_attach(&o, &r, &err);
    bool was_ro = statvfs("/", &st) == 0 && (st.f_flag & ST_RDONLY);
    if (rc == 0 && was_ro && mount(NULL, "/", NULL, MS_REMOUNT, NULL) < 0)
        rc = molt_error_errno(&err, "remount / writable");
    if (rc == 0)
        rc = molt_recorder_save(r, SAVED, &err);
    if (rc < 0) {
        molt_warn(log, "what changed here is not saved: %s", molt_error_text(err));
        unlink(SAVED);
    }
    if (was_ro)
        mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
    molt_recorder_detach(r);
    return rc < 0 ? 1 : 0;
}

static int by_path(const void *a, const void *b)
{
    return molt_path_cmp(((const struct molt_look *)a)->path, ((const struct molt_look *)b)->path);
}

/* Inodes without a name (one that a link was made of and taken away again, say) are left out, see molt_sparse_add_upgrade. */
static void join_sets(struct clone_changes *c)
{
    size_t out = 0;
    c->v = molt_xcalloc(c->sets[0]->n + c->sets[1]->n + 1, sizeof(*c->v));
    for (int k = 0; k < 2; k++)
        c->n += molt_dirty_looks(c->sets[k], 0, c->v + c->n);
    if (c->n)
        qsort(c->v, c->n, sizeof(*c->v), by_path);
    for (size_t i = 0; i < c->n; i++)
        if (out && strcmp(c->v[out - 1].path, c->v[i].path) == 0)
            c->v[out - 1].subtree |= c->v[i].subtree;
        else
            c->v[out++] = c->v[i];
    c->n = out;
}

void clonerecord_take(struct clone_changes *ret)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_recorder *r = NULL;
    const struct molt_recorder_opts o = options(NULL);
    uint64_t position = 0;
    *ret = (struct clone_changes){.n = 0};
    ret->sets[0] = molt_dirty_set_load(SAVED);
    unlink(SAVED);
    if (molt_recorder_attach(&o, &r, &err) < 0) {
        snprintf(ret->why_not, sizeof(ret->why_not), "%s", molt_error_text(err));
        return;
    }
    ret->sets[1] = molt_recorder_sync(r, &position);
    for (int i = 0; i < 2 && !ret->why_not[0]; i++)
        if (ret->sets[i]->lost)
            snprintf(ret->why_not, sizeof(ret->why_not), "clone, %s boot: %s", i ? "last" : "first", ret->sets[i]->lost);
    if (!ret->why_not[0])
        join_sets(ret);
    molt_recorder_stop(r);
}

void clonerecord_clear(struct clone_changes *c)
{
    molt_dirty_set_free(c->sets[0]);
    molt_dirty_set_free(c->sets[1]);
    free(c->v);
}
