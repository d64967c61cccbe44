/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Manifests: what one file system tree holds, one entry a path, in tree order (molt_path_cmp). Paths are raw
 * bytes, relative to the root without a leading slash; the root itself is "".
 */
#ifndef MOLT_MERGE_MANIFEST_H
#define MOLT_MERGE_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "merge/wire.h"

enum molt_type { MOLT_T_REG = 1, MOLT_T_DIR, MOLT_T_LNK, MOLT_T_CHR, MOLT_T_BLK, MOLT_T_FIFO, MOLT_T_SOCK };
#define MOLT_T_MAX MOLT_T_SOCK

/* Entry flags. The first two are inode attributes; the others qualify the entry and are never a difference.
 */
#define MOLT_EF_IMMUTABLE 1u
#define MOLT_EF_APPEND    2u
#define MOLT_EF_MOUNT     4u /* a mount point: attributes are the mount's, contents not listed */
#define MOLT_RACY_NS      20000000 /* well above a kernel tick, the grain of ctime */
#define MOLT_EF_RACY      8u /* changed so shortly before the scan that an equal ctime proves nothing */
#define MOLT_EF_AS_BASE   16u /* the base's own entry, or the same for sure; never on the wire */
#define MOLT_EF_INODE     (MOLT_EF_IMMUTABLE | MOLT_EF_APPEND)
#define MOLT_EF_ALL       15u

struct molt_entry {
    const char *path;
    const char *target; /* of a symlink, else NULL */
    uint64_t ino, size, rdev;
    uint64_t xattr_hash;   /* names and values, sorted (ACLs and capabilities are among them); 0: none */
    uint64_t content_hash; /* of a regular file; 0: not known */
    uint64_t link_sig; /* over all paths of this inode in this manifest; 0: only this one. Not on the wire. */
    int64_t mtime_ns, ctime_ns;
    uint32_t mode; /* permission bits, 07777 */
    uint32_t uid, gid, nlink;
    uint8_t type;
    uint8_t flags;
};

struct molt_arena;
struct molt_manifest {
    struct molt_entry *v;
    size_t n, cap;
    struct molt_arena *arena;
};

struct molt_scan_opts {
    const char *const *exclude; /* NULL-terminated; each path and all below it are left out; may be NULL */
    const struct molt_manifest
        *ref; /* earlier manifest of this file system or of its base: saves xattr calls */
    /* Entries whose ctime is this or later are racy (see MOLT_EF_RACY). 0: 20 ms before the scan began. For a
     * base disk give the moment of the snapshot, less some ticks. */
    int64_t racy_from_ns;
};

/* The tree of path ("/") without whatever is mounted over its directories: a detached clone of the mount
 * where the caller may make one (CAP_SYS_ADMIN), otherwise a plain directory. The descriptor serves as rootfd
 * everywhere. */
int molt_tree_open(const char *path, int *ret_fd, struct molt_error **err);
/* Opens path below rootfd without following any symlink on the way or leaving the mount; "" is the root
 * itself. Any length of path. Returns the descriptor or -1 with errno. */
int molt_open_beneath(int rootfd, const char *path, int flags);
/* Opens the directory that holds path; *ret_name points to the last component within path. -1 with errno. */
int molt_open_parent(int rootfd, const char *path, const char **ret_name);

int molt_manifest_scan(int rootfd, const struct molt_scan_opts *opts, struct molt_manifest **ret,
                       struct molt_error **err);

/* path is left out by exclude, or is one of our own temporary files. */
bool molt_path_excluded(const char *path, const char *const *exclude);

/* Only these paths, in tree order. ret (new): the entries as they are now, for a subtree with all below it, listed
 * ones racy. drop (new): paths of which nothing is left, itself or below, but what ret says. */
struct molt_look {
    const char *path;
    bool subtree;
};
int molt_manifest_look(int rootfd, const struct molt_scan_opts *opts, const struct molt_look *v, size_t n,
                       struct molt_manifest *ret, struct molt_manifest *drop, struct molt_error **err);
/* The entries of these paths as they are, none forced to be racy, for a subtree with all below it. ref is not used. */
int molt_manifest_stat(int rootfd, const struct molt_scan_opts *opts, const struct molt_look *v, size_t n,
                       struct molt_manifest *ret, struct molt_error **err);
/* The entry of an open file (O_PATH serves), path "", target malloc'd. -1: cannot be read. */
int molt_entry_of_fd(int fd, struct molt_entry *ret);

/* By hand (tests, decoders): entries in tree order; strings are copied. finish computes link_sig, checks the
 * order. */
struct molt_manifest *molt_manifest_new(void);
struct molt_entry *molt_manifest_add(struct molt_manifest *m, const struct molt_entry *e);
/* Into tree order, of equal paths one. */
void molt_manifest_sort(struct molt_manifest *m);
int molt_manifest_finish(struct molt_manifest *m, struct molt_error **err);
void molt_manifest_free(struct molt_manifest *m);
static inline void molt__cleanup_manifest(struct molt_manifest **m)
{
    molt_manifest_free(*m);
}
#define CLEANUP_MANIFEST __attribute__((cleanup(molt__cleanup_manifest)))

struct molt_entry *molt_manifest_find(const struct molt_manifest *m,
                                      const char *path); /* NULL when not there */
/* Index of the first entry that is path or comes behind it. */
size_t molt_manifest_lower(const struct molt_manifest *m, const char *path);
/* Each of these paths (in tree order, each once) becomes as set says: replaced, added (strings are copied), or removed
 * when set has it not. link_sig is taken as it is: molt_manifest_relink computes it anew for the whole manifest. */
void molt_manifest_update(struct molt_manifest *m, const struct molt_manifest *set, const char *const *paths, size_t n);
void molt_manifest_relink(struct molt_manifest *m);
/* Provably the same, at one path: inode, ctime and type agree and neither is racy; or both are as in the base. */
bool molt_entry_same_inode(const struct molt_entry *a, const struct molt_entry *b);

/* What is known of files by their numbers: under their other names they have the same new attributes. */
struct molt_inodes {
    const struct molt_entry **v; /* borrowed, by number */
    size_t n, cap;
};
/* The files of m; only_linked: those with several names. */
void molt_inodes_add(struct molt_inodes *l, const struct molt_manifest *m, bool only_linked);
/* e becomes what is known of its number, racy and of unknown content; false: nothing is. */
bool molt_inodes_follow(const struct molt_inodes *l, struct molt_entry *e);
void molt_inodes_clear(struct molt_inodes *l);
#define CLEANUP_INODES __attribute__((cleanup(molt_inodes_clear)))

/* Wire form: one block (wire.h), front-coded paths. */
#define MOLT_MANIFEST_MAX_BYTES (256u << 20)
int molt_manifest_write(const struct molt_manifest *m, const struct molt_sink *sink, struct molt_error **err);
int molt_manifest_read(const struct molt_source *src, struct molt_manifest **ret, struct molt_error **err);
/* What changed from older to newer (older NULL: everything). */
int molt_manifest_delta_write(const struct molt_manifest *older, const struct molt_manifest *newer,
                              const struct molt_sink *sink, struct molt_error **err);
/* A new manifest = older with the delta applied; entries not named keep what is known of them (hashes). */
int molt_manifest_delta_read(const struct molt_manifest *older, const struct molt_source *src,
                             struct molt_manifest **ret, struct molt_error **err);

/* The same by recording: set, drop as molt_manifest_look gives them; inodes: entries whose names the other side finds by
 * their number, each under a path of its own, in order. */
int molt_manifest_recorded_write(const struct molt_manifest *set, const struct molt_manifest *drop,
                                 const struct molt_manifest *inodes, const struct molt_sink *sink,
                                 struct molt_error **err);
/* The three parts by themselves, checked; each is new. */
int molt_manifest_recorded_parts(const struct molt_source *src, struct molt_manifest **ret_set,
                                 struct molt_manifest **ret_drop, struct molt_manifest **ret_inodes,
                                 struct molt_error **err);
/* What is not named is proven to be as in older. proven: older's content was fetched whole, so that nothing of the rest
 * is racy any more, neither in the result nor in older itself. */
int molt_manifest_recorded_read(struct molt_manifest *older, bool proven, const struct molt_source *src,
                                struct molt_manifest **ret, struct molt_error **err);

/* Content hash of one regular file; 0 with *ret_hash = 0 when it is gone or no regular file. Never 0
 * otherwise. */
int molt_hash_path(int rootfd, const char *path, uint64_t *ret_hash, struct molt_error **err);
int molt_hash_fd(int fd, uint64_t *ret_hash, struct molt_error **err);
/* Fills content_hash of the listed entries. */
int molt_manifest_hash_paths(int rootfd, struct molt_manifest *m, const char *const *paths, size_t n,
                             struct molt_error **err);
/* Hash of the extended attributes of name in dirfd (not followed); name "": of what dirfd has open. */
uint64_t molt_xattr_hash(int dirfd, const char *name);

#endif
