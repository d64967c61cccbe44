/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A recorded ext4 image, one side that asks and one that answers. */
#ifndef TEST_MERGE_RECORD_H
#define TEST_MERGE_RECORD_H

#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include <linux/fs.h>

#include "base/subprocess.h"
#include "merge/record.h"
#include "test_merge_util.h"

static char dir[128];
static const char *why_not; /* these tests cannot run */
static int tree = -1;       /* the recorded file system's root */
static const char *const exclude[] = {"journal", "lost+found", "stash", NULL};

static bool run(const char *const *argv)
{
    int status = -1;
    struct molt_error *e = NULL;
    const struct molt_run_opts o = {.timeout_ms = 60000};
    int r = molt_run((char *const *)argv, &o, &status, NULL, &e);
    molt_error_free(e);
    return r == 0 && status == 0;
}

static char *at(const char *name)
{
    return molt_xasprintf("%s/%s", dir, name);
}

UNUSED static bool mount_image(const char *image, const char *where, const char *opts)
{
    CLEANUP_FREE char *i = at(image), *w = at(where), *o = molt_xasprintf("loop,%s", opts);
    mkdir(w, 0755);
    return run((const char *const[]){"mount", "-t", "ext4", "-o", o, i, w, NULL});
}

static const char *prepare(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/xenmolt-record-XXXXXX", tmp ? tmp : "/tmp");
    if (geteuid() != 0)
        return "not root";
    if (!mkdtemp(dir))
        return "no scratch directory";
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return "no mount namespace of our own";
    CLEANUP_FREE char *image = at("image"), *mnt = at("a");
    if (!run((const char *const[]){"truncate", "-s", "96M", image, NULL}) ||
        !run((const char *const[]){"mkfs.ext4", "-q", "-N", "40000", image, NULL}))
        return "no mkfs.ext4";
    if (!mount_image("image", "a", "noatime"))
        return "no loop mount";
    tree = open_dir(AT_FDCWD, mnt);
    return NULL;
}

static struct molt_recorder *start(size_t max_paths, uint64_t max_journal)
{
    CLEANUP_FREE char *root = at("a"), *journal = at("a/journal");
    const struct molt_record_root roots[] = {{root, exclude}};
    const struct molt_recorder_opts o = {
        .roots = roots, .n_roots = 1, .journal_dir = journal, .max_paths = max_paths, .max_journal = max_journal};
    struct molt_recorder *r = NULL;
    assert_ok(molt_recorder_start(&o, &r, err));
    return r;
}

UNUSED static int setup(void **s)
{
    (void)s;
    why_not = prepare();
    if (why_not)
        return 0;
    CLEANUP_FREE char *root = at("a"), *journal = at("a/journal");
    const struct molt_record_root roots[] = {{root, exclude}};
    const struct molt_recorder_opts o = {.roots = roots, .n_roots = 1, .journal_dir = journal};
    struct molt_recorder *r = NULL;
    struct molt_error *e = NULL;
    static char text[300];
    uint64_t pos = 0;
    if (molt_recorder_start(&o, &r, &e) < 0) {
        snprintf(text, sizeof(text), "%s", molt_error_text(e));
        why_not = text;
    } else {
        CLEANUP_DIRTY_SET struct molt_dirty_set *d = molt_recorder_sync(r, &pos);
        if (d->lost) /* an overlay file system that hides where it writes, in a container */
            why_not = strcpy(text, d->lost);
    }
    molt_error_free(e);
    molt_recorder_stop(r);
    return 0;
}

UNUSED static int teardown(void **s)
{
    (void)s;
    if (tree >= 0) {
        close(tree);
        CLEANUP_FREE char *mnt = at("a");
        umount2(mnt, MNT_DETACH);
    }
    if (geteuid() == 0)
        molt_remove_tree(dir, NULL);
    return 0;
}

#define NEED_RECORDING()                                                                                     \
    do {                                                                                                     \
        if (why_not) {                                                                                       \
            print_message("%s: skipped\n", why_not);                                                         \
            return;                                                                                          \
        }                                                                                                    \
    } while (0)

/* --- one side that asks and one that answers --- */

struct side {
    struct molt_recorder *r;
    struct molt_merge_server *server;
    struct molt_manifest *base, *m;
    bool recorded;
    char reason[200];
    size_t bytes;
};

static struct molt_manifest *scan(void)
{
    struct molt_manifest *m = NULL;
    const struct molt_scan_opts o = {.exclude = exclude};
    assert_ok(molt_manifest_scan(tree, &o, &m, err));
    return m;
}

UNUSED static void side_start(struct side *s, size_t max_paths, uint64_t max_journal)
{
    memset(s, 0, sizeof(*s));
    s->r = start(max_paths, max_journal);
    s->base = scan();
    s->server = molt_merge_server_new(tree, exclude);
    molt_merge_server_record(s->server, s->r, 0, NULL);
}

UNUSED static void side_end(struct side *s)
{
    molt_manifest_free(s->m);
    molt_manifest_free(s->base);
    molt_merge_server_free(s->server);
    molt_recorder_stop(s->r);
}

/* As the receiver does it. */
static void pull(struct side *s)
{
    CLEANUP_STRBUF struct molt_strbuf reply = MOLT_STRBUF_INIT;
    CLEANUP_FREE char *head = NULL;
    struct molt_sink sink = molt_sink_strbuf(&reply);
    const char since = s->m ? MOLT_SINCE_LAST : MOLT_SINCE_BASE;
    assert_ok(molt_merge_serve(s->server, MOLT_MERGE_Q_DELTA, &since, 1, &sink, err));
    struct molt_mem mem = {(unsigned char *)reply.s, reply.len, 0};
    struct molt_source src = molt_source_mem(&mem);
    size_t len, n;
    uint64_t against;
    const unsigned char *reason;
    assert_ok(molt_block_read(&src, 4096, &head, &len, err));
    struct molt_mem hm = {(unsigned char *)head, len, 0};
    assert_true(molt_get_num(&hm, &against) && molt_get_bytes(&hm, sizeof(s->reason) - 1, &reason, &n));
    memcpy(s->reason, reason, n);
    s->reason[n] = '\0';
    s->recorded = against == MOLT_SINCE_RECORDED;
    s->bytes = reply.len;
    struct molt_manifest *now = NULL;
    if (s->recorded)
        assert_ok(molt_manifest_recorded_read(s->m ? s->m : s->base, s->m != NULL, &src, &now, err));
    else
        assert_ok(molt_manifest_delta_read(against == MOLT_SINCE_LAST ? s->m : NULL, &src, &now, err));
    assert_int_equal(mem.off, mem.len);
    molt_manifest_free(s->m);
    s->m = now;
}

static const char *difference(const struct molt_entry *x, const struct molt_entry *y)
{
    const unsigned flags = MOLT_EF_INODE | MOLT_EF_MOUNT;
    if (x->type != y->type || x->ino != y->ino)
        return "another file";
    if (x->mode != y->mode || x->uid != y->uid || x->gid != y->gid || ((x->flags ^ y->flags) & flags))
        return "attributes";
    if (x->xattr_hash != y->xattr_hash)
        return "extended attributes";
    if (x->nlink != y->nlink || x->link_sig != y->link_sig)
        return "links";
    if (x->size != y->size || x->rdev != y->rdev || !molt_streq(x->target, y->target))
        return "content";
    if (x->mtime_ns != y->mtime_ns)
        return "mtime";
    return x->ctime_ns != y->ctime_ns ? "ctime" : NULL;
}

static int compare(const struct molt_manifest *got, const struct molt_manifest *want)
{
    int wrong = 0;
    for (size_t i = 0, j = 0; i < got->n || j < want->n;) {
        int c = i == got->n ? 1 : j == want->n ? -1 : molt_path_cmp(got->v[i].path, want->v[j].path);
        const char *d = c < 0 ? "is not there" : c > 0 ? "is missing" : difference(&got->v[i], &want->v[j]);
        if (d) {
            print_error("/%s: %s\n", c > 0 ? want->v[j].path : got->v[i].path, d);
            wrong++;
        }
        i += c <= 0;
        j += c >= 0;
    }
    return wrong;
}

UNUSED static void pull_and_compare(struct side *s, bool recorded)
{
    pull(s);
    CLEANUP_MANIFEST struct molt_manifest *want = scan();
    if (s->recorded != recorded)
        fail_msg("recorded is %d: %s", s->recorded, s->reason);
    assert_int_equal(compare(s->m, want), 0);
}

UNUSED static void empty_tree(void)
{
    CLEANUP_FREE char *all = molt_xasprintf("find %s/a -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +", dir);
    assert_true(run((const char *const[]){"sh", "-c", all, NULL}));
}

#endif
