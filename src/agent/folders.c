/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Directories that go along with a workload from one running guest to another: the merge's trees, on nothing as their base. */
#include "agent/folders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/apply.h"
#include "procmig/procfs.h"

#define EMPTY_DIR MOLT_AGENT_RUN "/nothing"
#define STASH     MOLT_TMP_PREFIX "stash"

/* An absolute path in its normal form that is no system's own. malloc'd or NULL. */
static char *folder_of(const char *text)
{
    CLEANUP_FREE char *path = text ? molt__path_decode(text) : NULL;
    static const char *const never[] = {"/proc", "/sys", "/dev", "/run", "/boot", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/var", "/var/lib", "/var/lib/dpkg", "/var/lib/xenmolt"};
    for (size_t i = 0; path && i < sizeof(never) / sizeof(never[0]); i++)
        if (!strcmp(path, never[i]) || (i < 4 && !strncmp(path, never[i], strlen(never[i])) && path[strlen(never[i])] == '/'))
            return NULL;
    return path && path[1] ? MOLT_STEAL_PTR(path) : NULL;
}

static bool is_empty(const char *path)
{
    CLEANUP_CLOSEDIR DIR *d = opendir(path);
    struct dirent *e;
    while (d && (e = readdir(d)))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            return false;
    return true;
}

static int look(const char *text, struct molt_json *list, struct molt_error **err)
{
    CLEANUP_FREE char *path = folder_of(text);
    struct molt_json *o;
    struct stat st;
    if (!path)
        return molt_error_set(err, MOLT_E_USAGE, "%.200s is no directory that can go along: name one by its absolute path, and none of the system's own", text ? text : "");
    if (lstat(path, &st) < 0 && errno != ENOENT)
        return molt_error_errno(err, "look at %s", path);
    bool there = lstat(path, &st) == 0;
    if (there && !S_ISDIR(st.st_mode))
        return molt_error_set(err, MOLT_E_USAGE, "%s is no directory", path);
    molt_json_append(list, o = molt_json_object());
    molt_json_set_string(o, "path", text);
    molt_json_set_bool(o, "exists", there);
    molt_json_set_bool(o, "empty", !there || is_empty(path));
    if (there) {
        molt_json_set_int(o, "mode", st.st_mode & 07777);
        molt_json_set_int(o, "uid", st.st_uid);
        molt_json_set_int(o, "gid", st.st_gid);
    }
    return 0;
}

/* {"folders": [path]} -> {"folders": [{"path", "exists", "empty", "mode", "uid", "gid"}]}. Reads only. */
int h_folders(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    const struct molt_json *paths = molt_json_get(rq->args, "folders");
    struct molt_json *list = molt_json_array();
    int r = 0;
    molt_json_set(reply, "folders", list);
    for (size_t i = 0; i < molt_json_size(paths) && i < MOUNTS_MAX && r == 0; i++)
        r = look(molt_json_str(molt_json_at(paths, i)), list, err);
    return r;
}

bool folders_has(const struct molt_json *folders, const char *dir)
{
    for (size_t i = 0; i < molt_json_size(folders); i++) {
        CLEANUP_FREE char *path = folder_of(molt_json_str(molt_json_at(folders, i)));
        if (molt_streq(path, dir))
            return true;
    }
    return false;
}

static int make(const char *path, const struct molt_json *o, struct molt_error **err)
{
    CLEANUP_FREE char *parent = molt_xstrdup(path);
    const mode_t mode = (mode_t)(molt_json_get_int(o, "mode", 0755) & 07777);
    *strrchr(parent, '/') = '\0';
    int r = *parent ? molt_mkdir_p(parent, 0755, err) : 0;
    if (r < 0)
        return r;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return molt_error_errno(err, "make %s", path);
    if (!is_empty(path))
        return molt_error_set(err, MOLT_E_CANNOT_MOVE, "%s is not empty here", path);
    if (chown(path, (uid_t)molt_json_get_int(o, "uid", 0), (gid_t)molt_json_get_int(o, "gid", 0)) < 0 || chmod(path, mode) < 0)
        return molt_error_errno(err, "own %s", path);
    return 0;
}

static int open_one(const char *path, struct agent_tree *t, struct molt_error **err)
{
    *t = (struct agent_tree){.rootfd = -1, .basefd = -1};
    t->dir = molt_xstrdup(path);
    t->prefix = molt_xstrdup(path + 1);
    t->exclude = trees_exclude(t->prefix);
    t->stash = molt_xstrdup(STASH);
    int r = molt_mkdir_p(EMPTY_DIR, 0700, err);
    if (r == 0)
        r = molt_tree_open(EMPTY_DIR, &t->basefd, err);
    return r < 0 ? r : molt_tree_open(path, &t->rootfd, err);
}

int folders_open(const struct molt_json *folders, struct agent_trees *ret, struct molt_error **err)
{
    int r = molt_json_size(folders) > MOUNTS_MAX ? molt_error_set(err, MOLT_E_PROTOCOL, "too many directories") : 0;
    ret->n = 0;
    for (size_t i = 0; r == 0 && i < molt_json_size(folders); i++) {
        const struct molt_json *o = molt_json_at(folders, i);
        CLEANUP_FREE char *path = folder_of(molt_json_get_string(o, "path"));
        r = path ? make(path, o, err) : molt_error_set(err, MOLT_E_PROTOCOL, "no directory that can go along");
        if (r == 0)
            r = open_one(path, &ret->v[ret->n++], err);
    }
    if (r < 0)
        trees_close(ret);
    return r;
}

/* {"folders": [{"path", "exists": it was there, empty}]}: what came into them goes. */
int h_folders_drop(struct molt_request *rq, struct molt_json *reply, struct molt_error **err)
{
    struct session *s = rq->ctx;
    const struct molt_json *folders = molt_json_get(rq->args, "folders");
    int r = 0;
    (void)reply;
    merge_free(s);
    for (size_t i = 0; r == 0 && i < molt_json_size(folders) && i < MOUNTS_MAX; i++) {
        const struct molt_json *o = molt_json_at(folders, i);
        CLEANUP_FREE char *path = folder_of(molt_json_get_string(o, "path"));
        if (!path || !molt_exists(path))
            continue;
        r = molt_remove_tree(path, err);
        if (r == 0 && molt_json_get_bool(o, "exists", false))
            r = make(path, o, err);
    }
    return r;
}
