/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on disk: the state directory, ids, making an operation, finding and loading one. */
#include "engine/internal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"

int molt_engine_open(const struct molt_engine_config *cfg, struct molt_engine **ret, struct molt_error **err)
{
    CLEANUP_FREE char *ops = molt_xasprintf("%s/ops", cfg->state_dir);
    CLEANUP_FREE char *locks = molt_xasprintf("%s/locks", cfg->state_dir);
    struct molt_engine *e;

    int r = molt_mkdir_p(ops, 0700, err);

    if (r == 0)
        r = molt_mkdir_p(locks, 0700, err);
    if (r < 0) {
        molt_error_prefix(err, "state directory");
        return r;
    }
    e = molt_xcalloc(1, sizeof(*e));
    e->cfg = *cfg;
    e->state_dir = molt_xstrdup(cfg->state_dir);
    e->cfg.state_dir = e->state_dir;
    e->ops_dir = MOLT_STEAL_PTR(ops);
    *ret = e;
    return 0;
}

void molt_engine_close(struct molt_engine *e)
{
    if (!e)
        return;
    free(e->state_dir);
    free(e->ops_dir);
    free(e);
}

/* ---- looking ---- */

static int visible(const struct dirent *d) { return d->d_name[0] != '.'; }

int molt__ops_each(struct molt_engine *e, int (*fn)(void *ctx, const char *id, struct molt_error **err),
                   void *ctx, struct molt_error **err)
{
    struct dirent **names = NULL;
    int n = scandir(e->ops_dir, &names, visible, alphasort), r = 0;

    if (n < 0)
        return molt_error_errno(err, "read %s", e->ops_dir);
    for (int i = 0; i < n; i++) {
        if (r == 0)
            r = fn(ctx, names[i]->d_name, err);
        free(names[i]);
    }
    free(names);
    return r;
}

struct resolve {
    const char *want;
    char *found;
    unsigned n;
};

static int resolve_one(void *ctx, const char *id, struct molt_error **err)
{
    struct resolve *s = ctx;

    (void)err;
    if (strncmp(id, s->want, strlen(s->want)) != 0)
        return 0;
    free(s->found);
    s->found = molt_xstrdup(id);
    s->n++;
    if (strcmp(id, s->want) != 0)
        return 0;
    s->n = 1;
    return 1; /* the whole id: stop here */
}

int molt__op_resolve(struct molt_engine *e, const char *id, char **ret_id, struct molt_error **err)
{
    struct resolve s = {.want = id};
    int r = id[0] ? molt__ops_each(e, resolve_one, &s, err) : 0;

    if (r < 0 || s.n != 1) {
        free(s.found);
        if (r < 0)
            return r;
        return molt_error_set(err, MOLT_E_NO_OPERATION,
                              s.n ? "%s: more than one operation begins so" : "%s: no such operation", id);
    }
    *ret_id = s.found;
    return 0;
}

static void load_record(void *ctx, const struct molt_json *rec) { molt__op_apply(ctx, rec); }

static int load(struct molt_engine *e, const char *id, bool lenient, off_t *ret_end, int64_t *ret_seq,
                struct molt_op **ret, struct molt_error **err)
{
    CLEANUP_ERROR struct molt_error *local = NULL;
    struct molt_op *op = molt__op_new(e, id);
    CLEANUP_FREE char *path = molt__op_path(op, "journal");
    int r = molt__journal_read(path, load_record, op, ret_end, ret_seq, &local);

    if (r == 0 && op->created_us == 0)
        r = molt_error_set(&local, MOLT_E_PROTOCOL, "%s: no first record", path);
    if (r < 0 && !lenient) {
        molt_op_close(op);
        molt_error_move(err, MOLT_STEAL_PTR(local));
        molt_error_prefix(err, "operation %s", id);
        return r;
    }
    if (r < 0) {
        op->damaged = true;
        op->damage = molt_xstrdup(molt_error_text(local));
    }
    *ret = op;
    return 0;
}

int molt__op_load(struct molt_engine *e, const char *id, bool lenient, struct molt_op **ret,
                  struct molt_error **err)
{
    CLEANUP_FREE char *full = NULL;
    int r = molt__op_resolve(e, id, &full, err);

    return r < 0 ? r : load(e, full, lenient, NULL, NULL, ret, err);
}

int molt__op_load_locked(struct molt_engine *e, const char *id, struct molt_op **ret, struct molt_error **err)
{
    struct molt_op *look = NULL, *op = NULL;
    CLEANUP_FREE char *path = NULL;
    CLEANUP_CLOSE int lock = -1;
    off_t end = 0;
    int64_t seq = 0;
    int r = molt__op_load(e, id, false, &look, err);

    if (r < 0)
        return r;
    r = molt__lock_take(e->state_dir, look->subject_key, look->id, &lock, err);
    if (r < 0)
        molt_error_prefix(err, "operation %s", look->id);
    else
        r = load(e, look->id, false, &end, &seq, &op,
                 err); /* again: it may have gone on until we had the lock */
    molt_op_close(look);
    if (r < 0)
        return r;
    path = molt__op_path(op, "journal");
    r = molt__journal_open(path, end, seq, &op->journal, err);
    if (r < 0) {
        molt_op_close(op);
        return r;
    }
    op->lock_fd = MOLT_STEAL_FD(lock);
    *ret = op;
    return 0;
}

/* ---- making ---- */

struct busy {
    struct molt_engine *e;
    const char *key;
};

static int busy_one(void *ctx, const char *id, struct molt_error **err)
{
    struct busy *b = ctx;
    struct molt_op *op = NULL;
    pid_t pid;
    int r = load(b->e, id, true, NULL, NULL, &op, err);

    if (r < 0)
        return r;
    /* One whose first record cannot be read may be on any subject. */
    bool ours = molt_streq(op->subject_key, b->key) || op->created_us == 0;
    if (!ours || (molt_op_state_ended(op->state) && !op->damaged)) {
        molt_op_close(op);
        return 0;
    }
    pid = molt__lock_holder(b->e->state_dir, b->key, id);
    if (pid > 0)
        r = molt_error_set(err, MOLT_E_BUSY, "operation %s (%s of %s) is %s, run by process %ld", id,
                           op->kind, op->subject, molt_op_state_text(op->state), (long)pid);
    else if (op->damaged)
        r = molt_error_set(err, MOLT_E_BUSY, "operation %s (%s of %s) has a damaged journal: %s", id,
                           op->kind, op->subject, op->damage);
    else
        r = molt_error_set(err, MOLT_E_BUSY,
                           "operation %s (%s of %s) was left %s by a runner that is gone; bring it "
                           "to an end with: xenmolt op-recover %s",
                           id, op->kind, op->subject, molt_op_state_text(op->state), id);
    molt_op_close(op);
    return r;
}

/* "gu-20261122-014954-7f3a": the initials of the kind, UTC, and enough chance to tell two of one second
 * apart. */
static void make_id(const char *kind, char *buf, size_t size)
{
    char initials[8], stamp[32];
    size_t n = 0;
    unsigned short chance = (unsigned short)getpid();
    time_t now = time(NULL);
    struct tm tm;

    for (const char *p = kind; *p && n < sizeof(initials) - 1; p++) {
        if (p == kind || p[-1] == '-')
            initials[n++] = (char)(isalnum((unsigned char)*p) ? *p : 'x');
    }
    initials[n] = '\0';
    gmtime_r(&now, &tm);
    strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &tm);
    if (getrandom(&chance, sizeof(chance), GRND_NONBLOCK) < 0)
        chance = (unsigned short)getpid();
    snprintf(buf, size, "%s-%s-%04x", initials, stamp, chance);
}

/* What a creator left that was killed before its first record was durable: a directory that bears its process
 * id. */
static void sweep_unborn(struct molt_engine *e)
{
    CLEANUP_CLOSEDIR DIR *d = opendir(e->ops_dir);
    struct dirent *ent;

    while (d && (ent = readdir(d))) {
        const char *dot = strrchr(ent->d_name, '.');

        if (strncmp(ent->d_name, ".new-", 5) == 0 && dot && kill((pid_t)atol(dot + 1), 0) < 0 &&
            errno == ESRCH) {
            CLEANUP_FREE char *path = molt_xasprintf("%s/%s", e->ops_dir, ent->d_name);

            molt_remove_tree(path, NULL);
        }
    }
}

/* The directory gets its name only once the first record is durable, so an operation exists wholly or not at
 * all. */
static int create_dir(struct molt_op *op, struct molt_json *first, struct molt_error **err)
{
    CLEANUP_JSON struct molt_json *rec = first;
    CLEANUP_FREE char *tmp = molt_xasprintf("%s/.new-%s.%ld", op->engine->ops_dir, op->id, (long)getpid());
    CLEANUP_FREE char *path = molt_xasprintf("%s/journal", tmp);
    int r;

    if (mkdir(tmp, 0700) < 0)
        return molt_error_errno(err, "create %s", tmp);
    r = molt__journal_create(path, &op->journal, err);
    if (r == 0)
        r = molt__op_record(op, MOLT_STEAL_PTR(rec), MOLT__NOW, err);
    if (r == 0)
        r = molt_fsync_dir(tmp, err);
    if (r == 0 && rename(tmp, op->dir) < 0)
        r = molt_error_errno(err, "rename %s", tmp);
    if (r == 0)
        r = molt_fsync_dir(op->engine->ops_dir, err);
    if (r < 0) {
        molt__journal_close(&op->journal);
        molt_remove_tree(tmp, NULL);
        molt_remove_tree(op->dir, NULL);
    }
    return r;
}

int molt_op_create(struct molt_engine *e, const char *kind, const char *subject, const char *subject_key,
                   const struct molt_json *params, struct molt_op **ret, struct molt_error **err)
{
    struct busy busy = {.e = e, .key = subject_key};
    CLEANUP_CLOSE int lock = -1;
    struct molt_json *rec;
    struct molt_op *op;
    char id[64];
    int r;

    make_id(kind, id, sizeof(id));
    r = molt__lock_take(e->state_dir, subject_key, id, &lock, err);
    if (r < 0 && r != MOLT_E_BUSY)
        return r;
    /* Also when the lock is taken: the scan names who has it. */
    int scan = molt__ops_each(e, busy_one, &busy, err);
    if (scan < 0 || r < 0)
        return scan < 0 ? scan : r;
    sweep_unborn(e);
    op = molt__op_new(e, id);
    rec = molt__op_rec("create", NULL);
    molt_json_set_int(rec, "version", 1);
    molt_json_set_string(rec, "id", id);
    molt_json_set_string(rec, "kind", kind);
    molt_json_set_string(rec, "subject", subject);
    molt_json_set_string(rec, "subject_key", subject_key);
    molt_json_set(rec, "params", params ? molt_json_copy(params) : molt_json_object());
    r = create_dir(op, rec, err);
    if (r == 0 && !op->table)
        r = molt_error_set(err, MOLT_E_INTERNAL, "no step table for %s", kind);
    if (r == 0)
        r = molt__table_check(op->table, err);
    if (r < 0) {
        molt_op_close(op);
        molt_error_prefix(err, "new operation");
        return r;
    }
    op->lock_fd = MOLT_STEAL_FD(lock);
    *ret = op;
    return 0;
}
