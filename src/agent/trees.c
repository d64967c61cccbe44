/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent/trees.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/apply.h"

#define BASE_DIR  MOLT_AGENT_RUN "/base"
#define STASH_DIR MOLT_AGENT_LIB "/stash"
/* Where that is on another file system: a name that no merge looks at. */
#define OWN_STASH MOLT_TMP_PREFIX "stash"

const char *const peer_exclude[] = {"proc", "sys", "dev", "run", "var/lib/xenmolt", "lost+found", "usr/sbin/policy-rc.d", NULL};

const char **trees_exclude(const char *prefix)
{
    size_t n = 0, len = strlen(prefix);
    const char **v = molt_xcalloc(sizeof(peer_exclude) / sizeof(peer_exclude[0]) + 1, sizeof(*v));
    for (size_t i = 0; peer_exclude[i]; i++) {
        if (!len)
            v[n++] = peer_exclude[i];
        else if (strcmp(peer_exclude[i], "lost+found") == 0)
            v[n++] = peer_exclude[i];
        else if (strncmp(peer_exclude[i], prefix, len) == 0 && peer_exclude[i][len] == '/')
            v[n++] = peer_exclude[i] + len + 1;
    }
    return v;
}

static void close_tree(struct agent_tree *t)
{
    if (t->rootfd >= 0)
        close(t->rootfd);
    if (t->basefd >= 0)
        close(t->basefd);
    if (t->base_dir) {
        umount2(t->base_dir, MNT_DETACH);
        rmdir(t->base_dir);
    }
    if (t->dm_name)
        mounts_remove_device(t->dm_name);
    if (t->stash) {
        CLEANUP_FREE char *path = molt_xasprintf("%s/%s", *t->prefix ? t->dir : "", t->stash);
        molt_remove_tree(path, NULL);
    }
    free(t->dir);
    free(t->prefix);
    free(t->base_dir);
    free(t->stash);
    free(t->dm_name);
    free(t->exclude);
}

void trees_close(struct agent_trees *t)
{
    for (size_t i = t->n; i-- > 0;)
        close_tree(&t->v[i]);
    t->n = 0;
}

/* All of them on merged disks? A file system across both kinds can be neither merged nor left alone. */
static int is_merged(const struct agent_mount *m, const struct molt_json *disks, bool *ret, struct molt_error **err)
{
    char *names[16];
    size_t n = mounts_disks(m->dev, names, 16), hits = 0;
    for (size_t i = 0; i < n; i++) {
        bool hit = false;
        for (size_t k = 0; k < molt_json_size(disks); k++)
            hit |= molt_streq(molt_json_get_string(molt_json_at(disks, k), "vdev"), names[i]);
        hits += hit;
        free(names[i]);
    }
    *ret = n && hits == n;
    if (hits && hits != n)
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "the file system at %s lies on merged disks and on others", m->dir);
    if (strcmp(m->dir, "/") == 0 && !*ret)
        return molt_error_set(err, MOLT_E_PROTOCOL, "the root file system is not on a disk that is merged");
    return 0;
}

static int mount_base(struct agent_tree *t, const struct agent_mount *m, const struct molt_json *disks, size_t number,
                      struct molt_error **err)
{
    CLEANUP_FREE char *dev = NULL, *dm = molt_xasprintf("xenmolt-base-%zu", number);
    CLEANUP_FREE char *dir = molt_xasprintf(BASE_DIR "/%zu", number);
    bool made;
    int r = mounts_base_device(m->dev, disks, dm, &dev, &made, err);
    if (made)
        t->dm_name = MOLT_STEAL_PTR(dm);
    if (r == 0)
        r = molt_mkdir_p(dir, 0700, err);
    if (r < 0)
        return r;
    /* Frozen at the snapshot, so its journal is empty; it must not be replayed into a read-only disk anyway. */
    const char *opts = !strcmp(m->fstype, "xfs") ? "norecovery,nouuid" : !strncmp(m->fstype, "ext", 3) ? "noload" : NULL;
    if (mount(dev, dir, m->fstype, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, opts) < 0)
        return molt_error_errno(err, "mount the base disk %s", dev);
    t->base_dir = MOLT_STEAL_PTR(dir);
    t->basefd = open(t->base_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return t->basefd < 0 ? molt_error_errno(err, "open the base") : 0;
}

static int open_one(struct agent_tree *t, const struct agent_mount *m, const struct molt_json *disks, size_t number,
                     struct molt_error **err)
{
    struct stat lib;
    *t = (struct agent_tree){.rootfd = -1, .basefd = -1};
    t->dir = molt_xstrdup(m->dir);
    t->prefix = molt_xstrdup(m->dir + 1);
    t->exclude = trees_exclude(t->prefix);
    int r = mount_base(t, m, disks, number, err);
    if (r == 0)
        r = molt_tree_open(t->dir, &t->rootfd, err);
    if (r < 0)
        return r;
    size_t len = strlen(t->prefix);
    bool here = stat(MOLT_AGENT_LIB, &lib) == 0 && lib.st_dev == m->dev;
    t->stash = molt_xstrdup(here ? STASH_DIR + 1 + (len ? len + 1 : 0) : OWN_STASH);
    return 0;
}

int trees_open(const struct molt_json *disks, struct agent_trees *ret, struct molt_error **err)
{
    CLEANUP_MOUNTS struct agent_mounts m = {.n = 0};
    int r = mounts_read(&m, err);
    ret->n = 0;
    for (size_t i = 0; r == 0 && i < m.n; i++) {
        bool merged = false;
        r = is_merged(&m.v[i], disks, &merged, err);
        if (r < 0 || !merged)
            continue;
        size_t k = ret->n++;
        r = open_one(&ret->v[k], &m.v[i], disks, k, err);
        if (r < 0)
            molt_error_prefix(err, "%s", m.v[i].dir);
    }
    if (r < 0)
        trees_close(ret);
    return r;
}
