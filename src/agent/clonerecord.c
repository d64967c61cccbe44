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

/* All of them on disks, and writable; the data disks that the clone gets later come after the merge has begun. */
static char **mounted(void)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    CLEANUP_MOUNTS struct agent_mounts m = {.n = 0};
    if (mounts_list(&m, &err) < 0) /* at both ends of a boot the root is read-only */
        return NULL;
    char **v = molt_xcalloc(m.n + 1, sizeof(*v));
    for (size_t i = 0; i < m.n; i++)
        v[i] = MOLT_STEAL_PTR(m.v[i].dir);
    return v;
}

static struct molt_recorder_opts options(struct molt_log *log)
{
    static const struct molt_record_root root = {"/", peer_exclude};
    static const struct molt_record_follow follow = {mounted, trees_exclude};
    return (struct molt_recorder_opts){.roots = &root, .n_roots = 1, .follow = &follow, .journal_dir = DIR_, .socket = SOCK,
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

/* Whether each file system that was followed is one of the trees. Of one that was mounted elsewhere than it is now, a tree's changes
 * may be. */
static bool all_known(const struct molt_dirty_set *s, const struct agent_trees *t)
{
    for (size_t i = 0; i < s->n_roots; i++) {
        size_t k = 0;
        while (k < t->n && strcmp(t->v[k].dir, s->roots[i].dir) != 0)
            k++;
        if (k == t->n)
            return false;
    }
    return true;
}

/* Inodes without a name (one that a link was made of and taken away again, say) are left out, see molt_sparse_add_upgrade. */
bool clonerecord_of(const struct clone_changes *c, const struct agent_trees *t, const char *dir, struct molt_look **ret, size_t *ret_n)
{
    size_t n = 0, out = 0;
    *ret = NULL;
    *ret_n = 0;
    if (c->why_not[0])
        return false;
    CLEANUP_FREE struct molt_look *v = molt_xcalloc(c->sets[0]->n + c->sets[1]->n + 1, sizeof(*v));
    for (int k = 0; k < 2; k++) {
        unsigned root;
        int known = molt_dirty_root_of(c->sets[k], dir, &root);
        if (known < 0 || (known == 0 && !all_known(c->sets[k], t)))
            return false;
        n += known ? molt_dirty_looks(c->sets[k], root, v + n) : 0;
    }
    if (n)
        qsort(v, n, sizeof(*v), by_path);
    for (size_t i = 0; i < n; i++)
        if (out && strcmp(v[out - 1].path, v[i].path) == 0)
            v[out - 1].subtree |= v[i].subtree;
        else
            v[out++] = v[i];
    *ret_n = out;
    *ret = MOLT_STEAL_PTR(v);
    return true;
}

void clonerecord_take(struct clone_changes *ret)
{
    CLEANUP_ERROR struct molt_error *err = NULL;
    struct molt_recorder *r = NULL;
    const struct molt_recorder_opts o = options(NULL);
    uint64_t position = 0;
    *ret = (struct clone_changes){.why_not = ""};
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
    molt_recorder_stop(r);
}

void clonerecord_clear(struct clone_changes *c)
{
    molt_dirty_set_free(c->sets[0]);
    molt_dirty_set_free(c->sets[1]);
}
