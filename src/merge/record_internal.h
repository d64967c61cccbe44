/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MOLT_MERGE_RECORD_INTERNAL_H
#define MOLT_MERGE_RECORD_INTERNAL_H

#include <fcntl.h>
#include <sys/fanotify.h>
#include <sys/types.h>

#include "base/strbuf.h"
#include "merge/record.h"

/* What the journal holds: records of a kind, a root, then by kind. */
#define REC_PATH  'P' /* flags, counted path */
#define REC_INODE 'I' /* handle type, counted handle */
#define REC_LOST  'L' /* counted reason */
#define REC_ROOT  'R' /* 1: not all of it is known; counted directory. The last one of a root counts. */

/* What is asked: one byte. */
#define REC_ASK  's' /* all that changed until now; answered by struct rec_answer */
#define REC_QUIT 'q' /* a spawned recorder's end */

struct rec_root {
    char *path; /* as in this mount namespace, without a trailing slash: "" for "/" */
    int treefd; /* molt_tree_open */
    int fsfd;   /* open for open_by_handle_at, within the tree's mount */
    char *at;   /* what /proc/self/fd says of it, without a trailing slash */
    const char *const *exclude;
    uint64_t fsid;
    dev_t dev;
};
int rec_open_root(struct rec_root *r, const struct molt_record_root *from, struct molt_error **err);
void rec_close_root(struct rec_root *r);
int rec_mark_root(int fan, const struct rec_root *r, struct molt_error **err);

/* Answer to a sync. */
struct rec_answer {
    uint64_t base, end; /* what the journal holds */
    char broken[200];   /* not empty: the recording is useless for good */
};

/* A set of 128-bit hashes (seeded, so that no file names are made to collide). */
struct rec_set {
    uint64_t (*v)[2];
    size_t n, cap;
};
bool rec_set_add(struct rec_set *s, uint64_t lo, uint64_t hi); /* false: was there */
void rec_set_clear(struct rec_set *s);

union rec_handle {
    struct file_handle h;
    char room[sizeof(struct file_handle) + MOLT_RECORD_HANDLE_MAX];
};
/* O_PATH descriptor, -1 with errno: ESTALE when the inode is gone. */
int rec_open_handle(int fsfd, struct file_handle *h);

/* Looks for what changed on a file system between its mount and its mark. */
struct rec_walk {
    pid_t pid; /* 0: free place */
    int fd;    /* what it finds: a byte of flags and a path with its NUL, each */
    unsigned root;
    struct molt_strbuf got;
};
enum { REC_WALKS = 16 };

struct rec_dir; /* cache of directories' paths */

struct recorder {
    const struct molt_recorder_opts *o;
    struct rec_root *roots;
    size_t n_roots, cap_roots;
    int fan, journal;
    int mounts; /* mountinfo, which can be polled; -1: nothing is followed */
    int64_t since_ns; /* when this began; what changed later is ours to tell */
    struct rec_walk walk[REC_WALKS];
    int ctl;      /* who asks; -1: nobody is there */
    int listener; /* -1: there is one asker, and without it no reason to live */
    uint64_t seed;
    struct rec_set dirty, seen;
    struct rec_dir *dirs;
    size_t n_dirs, cap_dirs, dir_bytes;
    struct molt_strbuf out; /* not yet in the journal */
    uint64_t base, answered, end; /* of the journal: first byte that is there, end at the last sync, end */
    bool lost; /* since the last sync */
    bool may_hush; /* not while a sync is answered: it ends with rec_unhush */
    size_t hushed;
    char broken[200];
};

/* record_loop.c: the child's life. */
void rec_run(struct recorder *c);
void rec_lose(struct recorder *c, const char *why);
/* A path that changed; excluded ones are left out. */
void rec_add(struct recorder *c, unsigned root, const char *path, unsigned flags);
void rec_add_inode(struct recorder *c, unsigned root, int type, const void *handle, unsigned len);
/* path as this mount namespace sees it. False: not below a root. */
bool rec_add_absolute(struct recorder *c, const char *path, unsigned flags, ino_t ino);

void rec_put(struct recorder *c, unsigned kind, unsigned root, uint64_t x, const void *p, size_t len);

/* record_follow.c */
void rec_follow_begin(struct recorder *c);
/* Takes up what is mounted by now. */
void rec_follow(struct recorder *c);
/* Takes what a walk has found, or its end. */
void rec_walk_read(struct recorder *c, struct rec_walk *w);
/* Until all have ended, half a minute at most. */
void rec_walks_finish(struct recorder *c);

/* record_events.c: reads what is queued, at most `limit` events and one read more. Returns how many. */
size_t rec_drain(struct recorder *c, size_t limit);
/* From here on, writes to files that were hushed are told again. */
bool rec_unhush(struct recorder *c);
void rec_forget_dirs(struct recorder *c);

/* record_extra.c: what changes without an event. */
void rec_add_unseen(struct recorder *c);

#endif
