/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether the active's set of packages is still the base's: by name for dpkg, by the database's files for rpm. */
#include "merge/packages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "merge/merge.h"

#define STATUS_PATH  "var/lib/dpkg/status"
#define STATUS_MAX   (64u << 20)
#define NAMES_SHOWN  900 /* bytes of the list in a message */

/* Where rpm keeps its database, by age and distribution. The names in it cannot be read without rpm's own library. A
 * transaction of SQLite may still stand in the write-ahead log alone. */
static const char *const rpm_files[] = {
    "var/lib/rpm/Packages",          "var/lib/rpm/Packages.db",          "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/rpmdb.sqlite-wal",  "usr/lib/sysimage/rpm/Packages",    "usr/lib/sysimage/rpm/Packages.db",
    "usr/lib/sysimage/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite-wal",
};
#define N_RPM (sizeof(rpm_files) / sizeof(rpm_files[0]))

struct fetched {
    struct molt_strbuf text;
    bool found;
};

/* The path within the tree that is mounted at prefix ("" or NULL: the root's); NULL: it is not in there. */
static const char *in_tree(const char *prefix, const char *path)
{
    size_t n = prefix ? strlen(prefix) : 0;
    if (n == 0)
        return path;
    return strncmp(path, prefix, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
}

static int status_begin(void *ctx, size_t index, const struct molt_record *r, struct molt_error **err)
{
    (void)index;
    (void)err;
    ((struct fetched *)ctx)->found = !r->vanished && r->e.type == MOLT_T_REG;
    return 0;
}

static int status_data(void *ctx, uint64_t off, const void *p, size_t len, struct molt_error **err)
{
    struct fetched *f = ctx;
    if (off != f->text.len || f->text.len + len > STATUS_MAX)
        return molt_error_set(err, MOLT_E_PROTOCOL, "the package database is no plain text");
    molt_strbuf_add(&f->text, p, len);
    return 0;
}

static int status_end(void *ctx, uint64_t size, struct molt_error **err)
{
    (void)ctx;
    (void)size;
    (void)err;
    return 0;
}

static int fetch_status(const char *path, const struct molt_merge_peer *peer, struct fetched *f, struct molt_error **err)
{
    const struct molt_pack_path p = {.path = path};
    const struct molt_pack_handler h = {status_begin, status_data, status_end, f};
    CLEANUP_STRBUF struct molt_strbuf req = MOLT_STRBUF_INIT;
    struct molt_source src;
    molt_pack_paths_encode(&p, 1, &req);
    int rc = peer->call(peer->ctx, MOLT_MERGE_Q_PACK, req.s, req.len, &src, err);
    return rc < 0 ? rc : molt_pack_recv(&src, &p, 1, &h, NULL, err);
}

static int read_status(int rootfd, const char *path, struct fetched *f, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = molt_open_beneath(rootfd, path, O_RDONLY | O_NONBLOCK);
    CLEANUP_FREE char *buf = molt_xmalloc(65536);
    ssize_t n = 0;
    if (fd < 0)
        return errno == ENOENT ? 0 : molt_error_errno(err, "open /" STATUS_PATH);
    f->found = true;
    while ((n = molt_pread_all(fd, buf, 65536, f->text.len)) > 0) {
        if (f->text.len + (size_t)n > STATUS_MAX)
            return molt_error_set(err, MOLT_E_PROTOCOL, "the package database is too long");
        molt_strbuf_add(&f->text, buf, (size_t)n);
    }
    return n < 0 ? molt_error_errno(err, "read /" STATUS_PATH) : 0;
}

int molt_packages_conffiles(int rootfd, const char *prefix, struct molt_conffiles *ret, struct molt_error **err)
{
    struct fetched f = {0};
    const char *path = in_tree(prefix, STATUS_PATH);
    int rc = path ? read_status(rootfd, path, &f, err) : 0;
    if (rc == 0 && f.found)
        molt_dpkg_conffiles(molt_strbuf_str(&f.text), ret);
    molt_strbuf_free(&f.text);
    return rc;
}

/* Known to be the base's without a question. */
static bool proven(const struct molt_manifest *base, const struct molt_manifest *latest, const char *path)
{
    if (!latest)
        return false;
    const struct molt_entry *a = molt_manifest_find(latest, path), *b = molt_manifest_find(base, path);
    return a && b ? molt_entry_same_inode(a, b) : a == b;
}

static int check_dpkg(int basefd, const char *path, const struct molt_merge_peer *peer, struct molt_error **err)
{
    struct fetched b = {0}, a = {0};
    int rc = fetch_status(path, peer, &a, err);
    if (rc == 0)
        rc = read_status(basefd, path, &b, err);
    if (rc == 0 && (a.found || b.found)) {
        CLEANUP_FREE char *list = NULL;
        size_t n = molt_dpkg_status_changed(molt_strbuf_str(&b.text), molt_strbuf_str(&a.text), &list);
        for (char *p = list; n && *p; p++)
            if (*p == '\n')
                *p = p[1] ? ',' : '\0';
        if (n)
            rc = molt_error_set(err, MOLT_E_CONFLICT, "%zu packages changed on the running guest since the snapshot: %.*s", n,
                                NAMES_SHOWN, list);
    }
    molt_strbuf_free(&a.text);
    molt_strbuf_free(&b.text);
    return rc;
}

static int ask_hashes(const struct molt_merge_peer *peer, const char *const *paths, size_t n, uint64_t *ret, struct molt_error **err)
{
    struct molt_pack_path v[N_RPM];
    CLEANUP_STRBUF struct molt_strbuf req = MOLT_STRBUF_INIT;
    CLEANUP_FREE char *buf = NULL;
    struct molt_source src;
    size_t len;
    for (size_t i = 0; i < n; i++)
        v[i] = (struct molt_pack_path){.path = paths[i]};
    molt_pack_paths_encode(v, n, &req);
    int rc = peer->call(peer->ctx, MOLT_MERGE_Q_HASHES, req.s, req.len, &src, err);
    if (rc == 0)
        rc = molt_block_read(&src, n * 8, &buf, &len, err);
    if (rc == 0 && len != n * 8)
        rc = molt_error_set(err, MOLT_E_PROTOCOL, "%zu bytes of hashes for %zu paths", len, n);
    for (size_t i = 0; rc == 0 && i < n; i++)
        ret[i] = molt_get_le64((const unsigned char *)buf + i * 8);
    return rc;
}

/* An empty write-ahead log comes and goes with every reader: it counts as none. */
static int hash_of_nothing(uint64_t *ret, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = memfd_create("xenmolt-empty", MFD_CLOEXEC);
    return fd < 0 ? molt_error_errno(err, "memory file") : molt_hash_fd(fd, ret, err);
}

static bool same_database(const char *path, uint64_t a, uint64_t b, uint64_t nothing)
{
    if (strstr(path, "-wal")) {
        a = a == nothing ? 0 : a;
        b = b == nothing ? 0 : b;
    }
    return a == b;
}

static int check_rpm(int basefd, const char *prefix, const struct molt_manifest *base, const struct molt_manifest *latest,
                     const struct molt_merge_peer *peer, struct molt_error **err)
{
    const char *paths[N_RPM];
    uint64_t active[N_RPM], b = 0, nothing = 0;
    size_t n = 0;
    for (size_t i = 0; i < N_RPM; i++) {
        const char *path = in_tree(prefix, rpm_files[i]);
        if (path && !proven(base, latest, path))
            paths[n++] = path;
    }
    int rc = n ? ask_hashes(peer, paths, n, active, err) : 0;
    if (rc == 0)
        rc = hash_of_nothing(&nothing, err);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = molt_hash_path(basefd, paths[i], &b, err);
        if (rc == 0 && !same_database(paths[i], active[i], b, nothing))
            rc = molt_error_set(err, MOLT_E_CONFLICT,
                                "packages changed on the running guest since the snapshot: its rpm database /%s is another one (which "
                                "packages they are, rpm alone can read)",
                                paths[i]);
    }
    return rc;
}

int molt_packages_check(int basefd, const char *prefix, const struct molt_manifest *base, const struct molt_manifest *latest,
                        const struct molt_merge_peer *peer, struct molt_error **err)
{
    const char *status = in_tree(prefix, STATUS_PATH);
    int rc = 0;
    if (status && !proven(base, latest, status))
        rc = check_dpkg(basefd, status, peer, err);
    /* A guest may have both, for instance rpm as a tool on Debian. */
    return rc < 0 ? rc : check_rpm(basefd, prefix, base, latest, peer, err);
}
