/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/pins.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/procfs.h"

#define PINS_SCHEMA 1
#define OWNER_MAX 400 /* bytes */
#define PINS_MAX    100000
#define HASH_CHUNK  (256u << 10)
#define DELETED     " (deleted)"

bool molt__map_parse(char *line, struct molt__map *m)
{
    char perm[5];
    int at = 0;
    size_t len;

    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n", &m->start, &m->end, perm,
               &m->off, &m->major, &m->minor, &m->ino, &at) != 7 ||
        at == 0 || line[at] != '/' || m->ino == 0)
        return false;
    m->path = line + at;
    m->write = perm[1] == 'w';
    m->shared = perm[3] == 's';
    len = strlen(m->path);
    m->deleted = len > strlen(DELETED) && !strcmp(m->path + len - strlen(DELETED), DELETED);
    if (m->deleted)
        m->path[len - strlen(DELETED)] = '\0';
    return true;
}

static int hash_fd(int fd, const char *name, uint64_t *ret_hash, uint64_t *ret_size, struct molt_error **err)
{
    CLEANUP_FREE char *buf = molt_xmalloc(HASH_CHUNK);
    XXH3_state_t *state = XXH3_createState();
    uint64_t size = 0;
    ssize_t got;

    if (!state)
        return molt_error_set(err, MOLT_E_INTERNAL, "no memory to hash %s", name);
    XXH3_64bits_reset(state);
    while ((got = read(fd, buf, HASH_CHUNK)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            XXH3_freeState(state);
            return molt_error_errno(err, "read %s", name);
        }
        XXH3_64bits_update(state, buf, (size_t)got);
        size += (uint64_t)got;
    }
    *ret_hash = XXH3_64bits_digest(state);
    *ret_size = size;
    XXH3_freeState(state);
    return 0;
}

int molt_file_hash(const char *path, uint64_t *ret_hash, uint64_t *ret_size, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return molt_error_errno(err, "open %s", path);
    if (!S_ISREG(st.st_mode))
        return molt_error_set(err, MOLT_E_UNSUPPORTED, "%s is not a regular file", path);
    return hash_fd(fd, path, ret_hash, ret_size, err);
}

static struct molt_pin *find(const struct molt_pins *p, const char *path, uint64_t dev, uint64_t ino,
                             bool deleted)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->v[i].ino == ino && p->v[i].dev == dev && p->v[i].deleted == deleted &&
            !strcmp(p->v[i].path, path))
            return &p->v[i];
    return NULL;
}

/* Notes one file that is seen through `source`; hashing comes later. */
static void note(struct molt_pins *p, const char *path, char *source, const struct stat *st, bool deleted,
                 enum molt_pin_use use)
{
    struct molt_pin *have = find(p, path, st->st_dev, st->st_ino, deleted);

    if (have) {
        have->use |= use;
        free(source);
        return;
    }
    MOLT_GROW(p->v, p->n, p->cap);
    p->v[p->n++] =
        (struct molt_pin){.path = molt_xstrdup(path),
                          .source = source,
                          .dev = st->st_dev,
                          .ino = st->st_ino,
                          .size = (uint64_t)st->st_size,
                          .mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
                          .ctime_ns = (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec,
                          .mode = st->st_mode & 07777,
                          .uid = st->st_uid,
                          .gid = st->st_gid,
                          .use = use,
                          .deleted = deleted};
}

struct collect {
    struct molt_pins *p;
    pid_t pid;
    struct {
        uint64_t dev, ino;
    } * written; /* open for writing or mapped shared and writable: data */
    size_t n, cap;
};

static void note_written(struct collect *c, const struct stat *st)
{
    MOLT_GROW(c->written, c->n, c->cap);
    c->written[c->n].dev = st->st_dev;
    c->written[c->n++].ino = st->st_ino;
}

static int collect_maps(struct collect *c, struct molt_error **err)
{
    CLEANUP_FREE char *text = NULL;
    char *save = NULL;
    int r = molt__proc_text(c->pid, "maps", &text, err);

    if (r < 0)
        return r;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        CLEANUP_FREE char *source = NULL;
        struct molt__map m;
        struct stat st;

        if (!molt__map_parse(line, &m) || !strncmp(m.path, "/dev/", 5) || !strncmp(m.path, "/memfd:", 7) ||
            !strncmp(m.path, "/SYSV", 5))
            continue;
        source = m.deleted
                     ? molt_xasprintf("/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)c->pid, m.start, m.end)
                     : molt_xasprintf("/proc/%d/root%s", (int)c->pid, m.path);
        if (stat(source, &st) < 0)
            return molt_error_errno(err, "mapped file %s of process %d", m.path, (int)c->pid);
        if (!S_ISREG(st.st_mode))
            continue;
        if (m.shared && m.write)
            note_written(c, &st);
        else
            note(c->p, m.path, MOLT_STEAL_PTR(source), &st, m.deleted, MOLT_PIN_MAP);
    }
    return 0;
}

static int collect_fd(void *ctx, const struct molt__fd *f, struct molt_error **err)
{
    struct collect *c = ctx;

    (void)err;
    if (!S_ISREG(f->st.st_mode) || f->target[0] != '/')
        return 0;
    if ((f->flags & O_ACCMODE) != O_RDONLY) {
        note_written(c, &f->st);
    } else if (f->st.st_nlink > 0 && strncmp(f->target, "/proc/", 6) && strncmp(f->target, "/sys/", 5)) {
        char *source = molt_xasprintf("/proc/%d/root%s", (int)c->pid, f->target);
        struct stat st;

        if (stat(source, &st) == 0 && st.st_ino == f->st.st_ino)
            note(c->p, f->target, source, &f->st, false, MOLT_PIN_FD);
        else
            free(source);
    }
    return 0;
}

static int collect_exe(struct collect *c)
{
    char path[64], target[PATH_MAX];
    struct stat st;
    ssize_t len;
    bool deleted;

    snprintf(path, sizeof(path), "/proc/%d/exe", (int)c->pid);
    len = readlink(path, target, sizeof(target) - 1);
    if (len <= 0 || stat(path, &st) < 0)
        return 0;
    target[len] = '\0';
    deleted = st.st_nlink == 0;
    if (deleted && (size_t)len > strlen(DELETED))
        target[(size_t)len - strlen(DELETED)] = '\0';
    note(c->p, target,
         molt_xasprintf("/proc/%d/%s%s", (int)c->pid, deleted ? "exe" : "root", deleted ? "" : target), &st,
         deleted, MOLT_PIN_EXE);
    return 0;
}

/* What is open for writing anywhere in the tree is the workload's data and moves with the merge. */
static void drop_written(struct collect *c)
{
    size_t kept = 0;

    for (size_t i = 0; i < c->p->n; i++) {
        struct molt_pin *pin = &c->p->v[i];
        bool data = false;

        for (size_t k = 0; k < c->n && !data; k++)
            data = c->written[k].dev == pin->dev && c->written[k].ino == pin->ino;
        if (data) {
            free(pin->path);
            free(pin->source);
            free(pin->owner);
        } else {
            c->p->v[kept++] = *pin;
        }
    }
    c->p->n = kept;
}

int molt_pins_collect(const struct molt_workload *w, struct molt_pins **ret_p, struct molt_error **err)
{
    CLEANUP_PINS struct molt_pins *p = molt_xcalloc(1, sizeof(*p));
    struct collect c = {.p = p};
    int r = 0;

    for (size_t i = 0; i < w->procs && r == 0; i++) {
        c.pid = w->proc[i].pid;
        r = collect_maps(&c, err);
        if (r == 0)
            r = collect_exe(&c);
        if (r == 0)
            r = molt__each_fd(c.pid, true, collect_fd, &c, err);
    }
    if (r == 0)
        drop_written(&c);
    free(c.written);
    if (r == 0)
        *ret_p = MOLT_STEAL_PTR(p);
    return r;
}

bool molt__pins_add(struct molt_pins *p, pid_t pid, const char *path, enum molt_pin_use use)
{
    CLEANUP_FREE char *real = realpath(path, NULL), *source = NULL;
    const struct molt_pin *have;
    struct stat st;

    if (!real || strlen(real) >= PATH_MAX)
        return false;
    source = molt_xasprintf("/proc/%d/root%s", (int)pid, real);
    if (stat(source, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    have = find(p, real, st.st_dev, st.st_ino, false);
    if (have && (have->use & use))
        return false;
    note(p, real, MOLT_STEAL_PTR(source), &st, false, use);
    return true;
}

int molt_pin_hash(struct molt_pin *pin, struct molt_error **err)
{
    int r = pin->hashed ? 0 : molt_file_hash(pin->source, &pin->hash, &pin->size, err);

    pin->hashed = r == 0;
    return r;
}

void molt_pins_free(struct molt_pins *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++) {
        free(p->v[i].path);
        free(p->v[i].source);
        free(p->v[i].owner);
    }
    free(p->v);
    free(p);
}

struct molt_json *molt_pins_json(const struct molt_pins *p)
{
    struct molt_json *v = molt_json_object(), *list = molt_json_array();

    for (size_t i = 0; i < p->n; i++) {
        const struct molt_pin *pin = &p->v[i];
        struct molt_json *o = molt_json_object();
        CLEANUP_FREE char *path = molt__path_encode(pin->path), *source = molt__path_encode(pin->source);
        char hash[17];

        if (pin->hashed) {
            snprintf(hash, sizeof(hash), "%016" PRIx64, pin->hash);
            molt_json_set_string(o, "hash", hash);
        }
        molt_json_set_string(o, "path", path);
        molt_json_set_string(o, "source", source);
        if (pin->owner)
            molt_json_set_string(o, "owner", pin->owner);
        molt_json_set_int(o, "dev", (int64_t)pin->dev);
        molt_json_set_int(o, "ino", (int64_t)pin->ino);
        molt_json_set_int(o, "size", (int64_t)pin->size);
        molt_json_set_int(o, "mtime_ns", pin->mtime_ns);
        molt_json_set_int(o, "ctime_ns", pin->ctime_ns);
        molt_json_set_int(o, "mode", pin->mode);
        molt_json_set_int(o, "uid", pin->uid);
        molt_json_set_int(o, "gid", pin->gid);
        molt_json_set_int(o, "use", pin->use);
        molt_json_set_bool(o, "deleted", pin->deleted);
        molt_json_set_int(o, "need", pin->need);
        molt_json_append(list, o);
    }
    molt_json_set_int(v, "schema", PINS_SCHEMA);
    molt_json_set(v, "pins", list);
    return v;
}

bool molt_pin_owner_ok(const char *owner)
{
    size_t n = strlen(owner), first = strcspn(owner, " ");

    if (n > OWNER_MAX || first == 0 || first + 2 > n || strchr(owner + first + 1, ' '))
        return false;
    for (const char *p = owner; *p; p++)
        if (*p < ' ' || *p > '~')
            return false;
    return true;
}

static bool parse_pin(const struct molt_json *o, struct molt_pin *pin)
{
    const char *hash = molt_json_get_string(o, "hash");
    int64_t size = molt_json_get_int(o, "size", -1), mode = molt_json_get_int(o, "mode", -1);
    int64_t uid = molt_json_get_int(o, "uid", -1), gid = molt_json_get_int(o, "gid", -1);
    int64_t use = molt_json_get_int(o, "use", -1), need = molt_json_get_int(o, "need", 0);

    pin->path = molt__path_decode(molt_json_get_string(o, "path"));
    pin->source = molt__path_decode(molt_json_get_string(o, "source"));
    if (molt_json_get_string(o, "owner"))
        pin->owner = molt_xstrdup(molt_json_get_string(o, "owner"));
    if (pin->owner && !molt_pin_owner_ok(pin->owner))
        return false;
    if (molt_json_get(o, "hash") && (!hash || strlen(hash) != 16 || strspn(hash, "0123456789abcdef") != 16))
        return false;
    if (!pin->path || !pin->source || strncmp(pin->source, "/proc/", 6) || size < 0 || mode < 0 || mode > 07777 || uid < 0 ||
        uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX || use < 1 || use > 15 || need < MOLT_PIN_SAME ||
        need > MOLT_PIN_MISSING)
        return false;
    pin->hashed = hash != NULL;
    pin->hash = hash ? strtoull(hash, NULL, 16) : 0;
    pin->ctime_ns = molt_json_get_int(o, "ctime_ns", 0);
    pin->size = (uint64_t)size;
    pin->dev = (uint64_t)molt_json_get_int(o, "dev", 0);
    pin->ino = (uint64_t)molt_json_get_int(o, "ino", 0);
    pin->mtime_ns = molt_json_get_int(o, "mtime_ns", 0);
    pin->mode = (unsigned)mode;
    pin->uid = (unsigned)uid;
    pin->gid = (unsigned)gid;
    pin->use = (unsigned)use;
    pin->need = (enum molt_pin_need)need;
    pin->deleted = molt_json_get_bool(o, "deleted", false);
    return true;
}

int molt_pins_parse(const struct molt_json *v, struct molt_pins **ret_p, struct molt_error **err)
{
    CLEANUP_PINS struct molt_pins *p = molt_xcalloc(1, sizeof(*p));
    const struct molt_json *list = molt_json_get(v, "pins");
    size_t n = molt_json_size(list);

    if (molt_json_get_int(v, "schema", 0) != PINS_SCHEMA || molt_json_type(list) != MOLT_JSON_ARRAY ||
        n > PINS_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "not a list of pins of schema %d", PINS_SCHEMA);
    for (size_t i = 0; i < n; i++) {
        struct molt_pin pin = {0};

        if (!parse_pin(molt_json_at(list, i), &pin)) {
            free(pin.path);
            free(pin.source);
            free(pin.owner);
            return molt_error_set(err, MOLT_E_PROTOCOL, "malformed pin %zu", i);
        }
        MOLT_GROW(p->v, p->n, p->cap);
        p->v[p->n++] = pin;
    }
    *ret_p = MOLT_STEAL_PTR(p);
    return 0;
}

/* Both disks began as one. */
static bool is_untouched(const struct molt_pin *pin, const struct stat *st)
{
    return pin->ctime_ns != 0 && pin->ino == st->st_ino && pin->ctime_ns == (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec &&
           pin->mtime_ns == (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

/* CRIU dumps a deleted file's content itself (a ghost file), so it needs no pin. */
static int compare_one(struct molt_pin *pin, const char *root, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s%s", molt_streq(root, "/") ? "" : root, pin->path);
    uint64_t hash, size;
    struct stat st;

    if (pin->deleted) {
        pin->need = MOLT_PIN_SAME;
        return 0;
    }
    if (stat(path, &st) < 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            return molt_error_errno(err, "look at %s", path);
        pin->need = MOLT_PIN_MISSING;
        return 0;
    }
    if (!S_ISREG(st.st_mode))
        return molt_error_set(err, MOLT_E_CANNOT_MOVE,
                              "%s is in use by the workload, and not a regular file here", pin->path);
    pin->need = MOLT_PIN_DIFFERENT;
    if ((uint64_t)st.st_size == pin->size && is_untouched(pin, &st)) {
        pin->need = MOLT_PIN_SAME;
    } else if ((uint64_t)st.st_size == pin->size && !pin->hashed) {
        pin->need = MOLT_PIN_UNKNOWN;
    } else if ((uint64_t)st.st_size == pin->size) {
        int r = molt_file_hash(path, &hash, &size, err);

        if (r < 0)
            return r;
        if (hash == pin->hash && size == pin->size)
            pin->need = MOLT_PIN_SAME;
    }
    return 0;
}

int molt_pins_compare(struct molt_pins *p, const char *root, size_t *ret_needed, uint64_t *ret_bytes,
                      struct molt_error **err)
{
    size_t needed = 0;
    uint64_t bytes = 0;

    for (size_t i = 0; i < p->n; i++) {
        int r = compare_one(&p->v[i], root ? root : "", err);

        if (r < 0)
            return r;
        if (p->v[i].need != MOLT_PIN_SAME && p->v[i].need != MOLT_PIN_UNKNOWN) {
            needed++;
            bytes += p->v[i].size;
        }
    }
    if (ret_needed)
        *ret_needed = needed;
    if (ret_bytes)
        *ret_bytes = bytes;
    return 0;
}

int molt_pins_make_dirs(const struct molt_pins *p, const char *pin_dir, struct molt_error **err)
{
    int r = molt_mkdir_p(pin_dir, 0755, err);

    for (size_t i = 0; i < p->n && r == 0; i++) {
        CLEANUP_FREE char *dir = NULL;

        if (p->v[i].need == MOLT_PIN_SAME)
            continue;
        dir = molt_xasprintf("%s%s", pin_dir, p->v[i].path);
        *strrchr(dir, '/') = '\0';
        r = molt_mkdir_p(dir, 0755, err);
    }
    return r;
}

int molt_pins_check_fetched(const struct molt_pins *p, const char *pin_dir, struct molt_error **err)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct molt_pin *pin = &p->v[i];
        CLEANUP_FREE char *path = molt_xasprintf("%s%s", pin_dir, pin->path);
        CLEANUP_CLOSE int fd = -1;
        struct timespec t[2];
        uint64_t hash, size;
        struct stat st;
        int r;

        if (pin->need == MOLT_PIN_SAME)
            continue;
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) < 0)
            return molt_error_errno(err, "pin %s", pin->path);
        if (!S_ISREG(st.st_mode))
            return molt_error_set(err, MOLT_E_PROTOCOL, "pin %s is not a regular file", pin->path);
        r = hash_fd(fd, path, &hash, &size, err);
        if (r < 0)
            return r;
        if (!pin->hashed || hash != pin->hash || size != pin->size)
            return molt_error_set(err, MOLT_E_PROTOCOL,
                                  "pin %s: size or hash differs from what the workload has", pin->path);
        t[0].tv_sec = t[1].tv_sec = pin->mtime_ns / 1000000000;
        t[0].tv_nsec = t[1].tv_nsec = pin->mtime_ns % 1000000000;
        if (fchown(fd, pin->uid, pin->gid) < 0 || fchmod(fd, pin->mode) < 0 || futimens(fd, t) < 0)
            return molt_error_errno(err, "set mode and owner of pin %s", pin->path);
    }
    return 0;
}
