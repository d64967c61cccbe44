/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reference model of the merge: random operations on the three trees, a plain reader of trees, a slow and plain
 * merge that shares no code with src/merge, a comparison, and a shrinker for what fails. HACKING.md says how to run it.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- operations ---- */

/* X(NAME, "text", second path, weight) */
#define OPS(X)                       \
    X(WRITE, "write", 0, 14)         \
    X(APPEND, "append", 0, 8)        \
    X(BLOCK, "block", 0, 8)          \
    X(REPLACE, "replace", 0, 6)      \
    X(BIG, "big", 0, 1)              \
    X(POKE, "poke", 0, 2)            \
    X(TRUNCATE, "truncate", 0, 2)    \
    X(SPARSE, "sparse", 0, 1)        \
    X(PUNCH, "punch", 0, 1)          \
    X(CHMOD, "chmod", 0, 5)          \
    X(CHOWN, "chown", 0, 4)          \
    X(UTIME, "utime", 0, 3)          \
    X(XATTR, "xattr", 0, 4)          \
    X(RMXATTR, "rmxattr", 0, 2)      \
    X(ACL, "acl", 0, 2)              \
    X(DEFACL, "defacl", 0, 1)        \
    X(CAP, "cap", 0, 2)              \
    X(LABEL, "label", 0, 2)          \
    X(CHATTR, "chattr", 0, 2)        \
    X(MKDIR, "mkdir", 0, 8)          \
    X(DEEP, "deep", 0, 1)            \
    X(MANY, "many", 0, 1)            \
    X(SYMLINK, "symlink", 1, 4)      \
    X(FIFO, "fifo", 0, 2)            \
    X(SOCKET, "socket", 0, 1)        \
    X(NODE, "node", 0, 2)            \
    X(LINK, "link", 1, 7)            \
    X(RENAME, "rename", 1, 8)        \
    X(EXCHANGE, "exchange", 1, 3)    \
    X(UNLINK, "unlink", 0, 5)        \
    X(RMTREE, "rmtree", 0, 3)        \
    X(REVERT, "revert", 0, 4)

#define OP_X(name, text, two, weight) OP_##name,
enum op_kind { OPS(OP_X) N_OPS };
#undef OP_X

enum side { BASE, ACTIVE, UPGRADE, N_SIDES };
enum { PASSES = 3, PATH_ROOM = 40 };

/* An operation that cannot be carried out (nothing there, not allowed) does nothing, so that any subset of a list is a
 * list. */
struct op {
    uint8_t kind, side;
    uint8_t phase; /* of the active: before which pass, 0 to PASSES - 1 */
    unsigned arg;
    char path[PATH_ROOM], to[PATH_ROOM]; /* "%" stands for a name that is not UTF-8, "~" for one of 240 bytes */
};

struct ops {
    struct op *v;
    size_t n, cap;
    unsigned seed;
    bool active_wins; /* --on-conflict of what the policy leaves open; else the upgrade */
};

enum { N_TOPS = 7 };
extern const char *const model_tops[N_TOPS]; /* directories that are there from the start, one for each rule of the policy */
extern const char model_policy[], model_policy_no_beside[];

void ops_random(unsigned seed, struct ops *ret);
struct ops ops_copy(const struct ops *o);
void ops_free(struct ops *o);
void ops_print(FILE *to, const struct ops *o);
/* Those of a side and phase, in order, below the case's directory rootfd (basefd: the base's, for revert). Returns how
 * many system calls they were, roughly: the operations that did something. */
size_t ops_run(const struct ops *o, enum side side, unsigned phase, int rootfd, int basefd);
/* A short path as it is on disk; static. */
const char *ops_path(const char *path);
/* Removes what is below fd, whatever its flags. */
void remove_below(int fd);

/* ---- trees ---- */

struct node {
    char *name;
    char type; /* of find -type: f d l p s c b; in an expected tree also 0: not there, but something below it */
    unsigned mode, uid, gid, iflags;
    int64_t mtime, ctime;
    uint64_t rdev, ino, size, allocated;
    uint64_t hash;     /* of content that is not kept */
    char *text;        /* content up to TEXT_ROOM, or target */
    char *xattrs;      /* "name=hex\n", sorted */
    struct node **kid; /* by name */
    size_t n_kids, cap_kids;
    char *links; /* the paths of this inode, sorted, where it has several; NULL otherwise */
    /* of an expected tree */
    const void *group; /* shares an inode with all of the same group; NULL: with none */
    uint64_t keep_ino; /* the inode that it must have where inodes are compared, too; 0: any */
    bool any_content;  /* the model does not know (a text merge of no text) */
    bool any_time;
    bool any_group;
    bool any_mode; /* and ACL */
};
enum { TEXT_ROOM = 16384 };

struct node *tree_read(int fd);
void tree_free(struct node *n);
struct node *tree_kid(const struct node *n, const char *name);
struct node *tree_copy_one(const struct node *n);
void tree_add(struct node *dir, struct node *kid);
/* Fills `links` of a whole tree. */
void tree_find_links(struct node *root);
uint64_t tree_hash(const char *p, size_t n);

/* ---- the plain merge, and the comparison ---- */

/* Deliberate faults, to prove that differences are found and shrunk. */
enum wrong { RIGHT, WRONG_XATTRS, WRONG_LINKS, WRONG_DELETED, WRONG_TIME };

/* no_beside: what is under the rule beside is dropped, as in a world where nothing proves that a journal did not change. */
struct node *expect(const struct node *b, const struct node *a, const struct node *u, bool active_wins, bool no_beside,
                    enum wrong wrong);
/* How many differences; the first ones are printed to `to` (NULL: none). inodes: their numbers, too, where the tree expects one. */
int compare_trees(FILE *to, const struct node *got, const struct node *want, bool inodes);

#endif
