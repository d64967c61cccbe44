/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "base/subprocess.h"
#include "merge/merge.h"

enum { SETTLE_US = 40000 };

static char scratch[64];
static const char *const exclude[] = {"stash", "journal", "lost+found", NULL};
static const char *const names[N_SIDES] = {"base", "active", "upgrade"};

struct world {
    const struct setting *s;
    int fd[N_SIDES];
    int64_t snapshot_ns;
    bool active_wins;
    struct molt_policy *policy;
    struct molt_recorder *recorder;
    struct molt_merge *merge;
    struct molt_merge_server *server;
    struct molt_strbuf reply;
    struct molt_mem mem;
    uint64_t bytes;
};

/* More than once, for another program may take the loop device that was free. */
static void run(const char *const *argv)
{
    const struct molt_run_opts o = {.timeout_ms = 60000};
    for (int tries = 0; tries < 5; tries++) {
        int status = -1;
        struct molt_error *e = NULL;
        bool ok = molt_run((char *const *)argv, &o, &status, NULL, &e) == 0 && status == 0;
        molt_error_free(e);
        if (ok)
            return;
        usleep(200000);
    }
    fprintf(stderr, "%s %s %s failed\n", argv[0], argv[1], argv[2]);
    abort();
}

static void die(const char *what)
{
    perror(what);
    abort();
}

static char *at(const char *name)
{
    return molt_xasprintf("%s/%s", scratch, name);
}

static bool have(const char *tool)
{
    for (size_t i = 0; i < 4; i++) {
        CLEANUP_FREE char *p = molt_xasprintf("%s/%s", ((const char *const[]){"/sbin", "/usr/sbin", "/bin", "/usr/bin"})[i], tool);
        if (access(p, X_OK) == 0)
            return true;
    }
    return false;
}

static bool kernel_has(const char *fs)
{
    CLEANUP_FREE char *all = NULL;
    return molt_read_file("/proc/filesystems", 65536, &all, NULL, NULL) == 0 && strstr(all, fs);
}

static bool owns_namespace(void)
{
    static int state; /* 0: not tried */
    if (state == 0)
        state = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 ? 1 : -1;
    return state > 0;
}

const char *world_start(enum fs fs, bool recorded)
{
    if (geteuid() != 0)
        return "not root";
    if (!owns_namespace())
        return "no mount namespace of our own";
    if (fs == FS_EXT4 && !have("mkfs.ext4"))
        return "no mkfs.ext4";
    if (fs == FS_XFS && !have("mkfs.xfs"))
        return "no mkfs.xfs (Debian: xfsprogs)";
    if (fs == FS_XFS && !kernel_has("\txfs\n"))
        return "the kernel has no XFS";
    if (fs != FS_DIRS && access("/dev/loop-control", F_OK) < 0)
        return "no loop devices";
    if (recorded && fs == FS_DIRS)
        return "recording wants a file system of its own";
    umask(022);
    strcpy(scratch, "/tmp/xenmolt-model-XXXXXX");
    /* In memory, and gone with our namespace, however we end. */
    if (!mkdtemp(scratch) || mount("none", scratch, "tmpfs", 0, "mode=0755") < 0)
        die("scratch directory");
    for (int i = 0; i < N_SIDES; i++) {
        CLEANUP_FREE char *p = at(names[i]);
        if (mkdir(p, 0755) < 0)
            die(p);
    }
    return NULL;
}

void world_end(void)
{
    if (*scratch && umount2(scratch, MNT_DETACH) == 0)
        rmdir(scratch);
    *scratch = '\0';
}

static int open_side(enum side side)
{
    CLEANUP_FREE char *p = at(names[side]);
    int fd = open(p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        die(p);
    return fd;
}

static int open_case(int root, size_t i)
{
    char name[24];
    snprintf(name, sizeof(name), "s%zu", i);
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        die(name);
    return fd;
}

/* Nothing proves that a journal did not change: inodes of another file system, or one that was opened for writing. */
static bool no_beside(const struct setting *s)
{
    return s->fs == FS_DIRS || s->recorded;
}

/* --- the three trees --- */

static size_t fill(int root, const struct ops *v, size_t n)
{
    size_t done = 0;
    for (size_t i = 0; i < n; i++) {
        char name[24];
        snprintf(name, sizeof(name), "s%zu", i);
        mkdirat(root, name, 0755);
        CLEANUP_CLOSE int fd = open_case(root, i);
        for (int k = 0; k < N_TOPS; k++)
            mkdirat(fd, model_tops[k], 0755);
        done += ops_run(&v[i], BASE, 0, fd, -1);
    }
    return done;
}

/* The times of one tree for the same paths of the other. */
static void copy_times(int from, int to)
{
    CLEANUP_CLOSEDIR DIR *d = fdopendir(openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const struct dirent *e;
    while (d && (e = readdir(d))) {
        struct stat st;
        if (strcmp(e->d_name, "..") == 0 || fstatat(from, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (S_ISDIR(st.st_mode) && strcmp(e->d_name, ".") != 0) {
            CLEANUP_CLOSE int x = openat(from, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            CLEANUP_CLOSE int y = openat(to, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (x >= 0 && y >= 0)
                copy_times(x, y);
        }
        const struct timespec ts[2] = {st.st_atim, st.st_mtim};
        utimensat(to, e->d_name, ts, AT_SYMLINK_NOFOLLOW);
    }
}

static void mount_side(const struct world *w, enum side side, const char *image, bool read_only)
{
    const bool xfs = w->s->fs == FS_XFS;
    CLEANUP_FREE char *i = at(image), *dir = at(names[side]);
    const char *opts = xfs ? (read_only ? "loop,nouuid,ro,norecovery" : "loop,nouuid,noatime")
                           : (read_only ? "loop,ro,noload" : "loop,noatime");
    run((const char *const[]){"mount", "-t", xfs ? "xfs" : "ext4", "-o", opts, i, dir, NULL});
}

static void unmount_side(enum side side)
{
    CLEANUP_FREE char *dir = at(names[side]);
    if (umount2(dir, 0) < 0 && umount2(dir, MNT_DETACH) < 0)
        die("umount");
}

static void make_image(const struct world *w)
{
    CLEANUP_FREE char *image = at("image-base");
    const bool xfs = w->s->fs == FS_XFS;
    run((const char *const[]){"rm", "-f", image, NULL});
    run((const char *const[]){"truncate", "-s", xfs ? "320M" : "192M", image, NULL});
    if (xfs)
        run((const char *const[]){"mkfs.xfs", "-q", image, NULL});
    else
        run((const char *const[]){"mkfs.ext4", "-q", "-I", "256", "-O", "^has_journal", "-N", "60000", image, NULL});
}

static size_t world_make(struct world *w, const struct ops *v, size_t n)
{
    size_t done = 0;
    if (w->s->fs == FS_DIRS) {
        for (int i = 0; i < N_SIDES; i++) {
            w->fd[i] = open_side((enum side)i);
            done += fill(w->fd[i], v, n);
        }
        copy_times(w->fd[BASE], w->fd[ACTIVE]);
        copy_times(w->fd[BASE], w->fd[UPGRADE]);
        return done;
    }
    make_image(w);
    mount_side(w, BASE, "image-base", false);
    int fd = open_side(BASE);
    done = fill(fd, v, n);
    close(fd);
    usleep(SETTLE_US); /* a snapshot just after a change would prove nothing of it */
    unmount_side(BASE);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    w->snapshot_ns = now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
    static const char *const images[N_SIDES] = {"image-base", "image-active", "image-upgrade"};
    for (int i = 0; i < N_SIDES; i++) {
        CLEANUP_FREE char *from = at(images[0]), *to = at(images[i]);
        if (i)
            run((const char *const[]){"cp", "--sparse=always", from, to, NULL});
        mount_side(w, (enum side)i, images[i], i == BASE);
        w->fd[i] = open_side((enum side)i);
    }
    return done;
}

static void world_drop(struct world *w)
{
    for (int i = 0; i < N_SIDES; i++) {
        if (w->s->fs == FS_DIRS)
            remove_below(w->fd[i]);
        close(w->fd[i]);
        if (w->s->fs != FS_DIRS)
            unmount_side((enum side)i);
    }
}

/* --- the merge --- */

static int call(void *ctx, enum molt_merge_question q, const void *req, size_t len, struct molt_source *ret, struct molt_error **err)
{
    struct world *w = ctx;
    w->reply.len = 0;
    struct molt_sink sink = molt_sink_strbuf(&w->reply);
    int rc = molt_merge_serve(w->server, q, req, len, &sink, err);
    w->mem = (struct molt_mem){(unsigned char *)w->reply.s, w->reply.len, 0};
    *ret = molt_source_mem(&w->mem);
    return rc;
}

static int record(struct world *w, struct molt_error **err)
{
    CLEANUP_FREE char *root = at(names[ACTIVE]), *journal = at("active/journal");
    const struct molt_record_root roots[] = {{root, exclude}};
    const struct molt_recorder_opts o = {.roots = roots, .n_roots = 1, .journal_dir = journal};
    return w->s->recorded ? molt_recorder_start(&o, &w->recorder, err) : 0;
}

static int merge_begin(struct world *w, struct molt_error **err)
{
    const struct molt_merge_opts o = {.rootfd = w->fd[UPGRADE],
                                      .basefd = w->fd[BASE],
                                      .stash = "stash",
                                      .policy = w->policy,
                                      .on_conflict = w->active_wins ? MOLT_ON_CONFLICT_ACTIVE : MOLT_ON_CONFLICT_UPGRADE,
                                      .exclude = exclude,
                                      .snapshot_ns = w->snapshot_ns};
    w->server = molt_merge_server_new(w->fd[ACTIVE], exclude);
    molt_merge_server_record(w->server, w->recorder, 0, w->recorder ? NULL : "not recorded");
    return molt_merge_new(&o, &w->merge, err);
}

static int one_pass(struct world *w, bool dry, struct molt_error **err)
{
    const struct molt_merge_peer peer = {.call = call, .ctx = w};
    struct molt_pass_stats st;
    if (w->s->settle)
        usleep(SETTLE_US);
    int rc = molt_merge_pass(w->merge, &peer, MOLT_PASS_NO_SYNC | (dry ? MOLT_PASS_DRY : 0), &st, err);
    w->bytes += rc == 0 ? st.bytes : 0;
    if (rc == 0 && w->s->recorded && !st.recorded && !strstr(st.reason, "path is too long"))
        return molt_error_set(err, MOLT_E_STATE, "recording was lost: %s", st.reason);
    if (rc == 0 && st.vanished)
        return molt_error_set(err, MOLT_E_STATE, "%zu paths vanished, and nothing changed meanwhile", st.vanished);
    return rc;
}

static size_t edit_all(struct world *w, enum side side, unsigned phase, const struct ops *v, size_t n)
{
    size_t done = 0;
    for (size_t i = 0; i < n; i++) {
        CLEANUP_CLOSE int fd = open_case(w->fd[side], i), base = open_case(w->fd[BASE], i);
        done += ops_run(&v[i], side, phase, fd, base);
    }
    return done;
}

static int merge_all(struct world *w, const struct ops *v, size_t n, size_t *done, struct molt_error **err)
{
    int rc = merge_begin(w, err);
    for (unsigned pass = 0; rc == 0 && pass < PASSES; pass++) {
        if (pass)
            *done += edit_all(w, ACTIVE, pass, v, n);
        if (pass == 1 && w->s->dry)
            rc = one_pass(w, true, err);
        if (rc == 0)
            rc = one_pass(w, false, err);
    }
    return rc;
}

static struct node **read_all(int root, size_t n)
{
    struct node **t = molt_xcalloc(n + 1, sizeof(struct node *));
    for (size_t i = 0; i < n; i++) {
        CLEANUP_CLOSE int fd = open_case(root, i);
        t[i] = tree_read(fd);
    }
    return t;
}

static void free_all(struct node **t, size_t n)
{
    for (size_t i = 0; i < n; i++)
        tree_free(t[i]);
    free(t);
}

static void compare_all(struct world *w, struct node **upgrade, const struct ops *v, size_t n, bool *fails, FILE *what)
{
    struct node **b = read_all(w->fd[BASE], n), **a = read_all(w->fd[ACTIVE], n), **got = read_all(w->fd[UPGRADE], n);
    for (size_t i = 0; i < n; i++) {
        struct node *want = expect(b[i], a[i], upgrade[i], v[i].active_wins, no_beside(w->s), w->s->wrong);
        fails[i] = compare_trees(NULL, got[i], want, w->s->inodes) > 0;
        if (fails[i] && what) {
            fprintf(what, "seed %u:\n", v[i].seed);
            compare_trees(what, got[i], want, w->s->inodes);
        }
        tree_free(want);
    }
    free_all(b, n);
    free_all(a, n);
    free_all(got, n);
}

size_t world_run(const struct setting *s, const struct ops *v, size_t n, bool *fails, FILE *what, char **ret_error,
                 uint64_t *ret_bytes)
{
    struct world w = {.s = s, .active_wins = n && v[0].active_wins};
    struct molt_error *e = NULL;
    *ret_error = NULL;
    const char *policy = no_beside(s) ? model_policy_no_beside : model_policy;
    if (molt_policy_parse(policy, strlen(policy), "model", &w.policy, &e) < 0)
        die("policy");
    size_t done = world_make(&w, v, n);
    int rc = record(&w, &e);
    if (s->settle)
        usleep(SETTLE_US);
    done += edit_all(&w, ACTIVE, 0, v, n) + edit_all(&w, UPGRADE, 0, v, n);
    struct node **upgrade = read_all(w.fd[UPGRADE], n);
    memset(fails, 0, n * sizeof(*fails));
    if (rc == 0)
        rc = merge_all(&w, v, n, &done, &e);
    if (rc == 0)
        compare_all(&w, upgrade, v, n, fails, what);
    else
        *ret_error = molt_xstrdup(molt_error_text(e));
    if (ret_bytes)
        *ret_bytes = w.bytes;
    free_all(upgrade, n);
    molt_error_free(e);
    molt_merge_free(w.merge);
    molt_merge_server_free(w.server);
    molt_recorder_stop(w.recorder);
    molt_strbuf_free(&w.reply);
    molt_policy_free(w.policy);
    world_drop(&w);
    return done;
}

/* --- shrinking --- */

static bool still_fails(const struct setting *s, const struct ops *o)
{
    bool fails;
    char *error;
    world_run(s, o, 1, &fails, NULL, &error, NULL);
    fails |= error != NULL;
    free(error);
    return fails;
}

static struct ops without(const struct ops *o, size_t from, size_t n)
{
    struct ops c = ops_copy(o);
    memmove(c.v + from, c.v + from + n, (c.n - from - n) * sizeof(*c.v));
    c.n -= n;
    return c;
}

struct ops shrink(const struct setting *s, const struct ops *o, unsigned tries)
{
    struct ops best = ops_copy(o);
    if (!still_fails(s, &best) && !still_fails(s, &best)) {
        best.n = 0;
        return best;
    }
    for (size_t chunk = best.n / 2 ? best.n / 2 : 1; chunk && tries; chunk = chunk == 1 ? 0 : chunk / 2) {
        bool again = true;
        while (again) {
            again = false;
            for (size_t i = best.n; i-- > 0 && tries;) {
                if (i + chunk > best.n)
                    continue;
                struct ops c = without(&best, i, chunk);
                tries--;
                if (still_fails(s, &c)) {
                    struct ops old = best;
                    best = c;
                    c = old;
                    again = chunk == 1;
                    i = i >= chunk ? i - chunk + 1 : 0;
                }
                ops_free(&c);
            }
        }
    }
    return best;
}
