/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Recording: which paths of a tree changed, by fanotify, so that a pass costs what changed and not what is there. A
 * child process reads the events and appends paths to a journal; whoever serves the merge asks it for all that
 * happened until now. What cannot be told for sure is told as lost, and the scan takes its place.
 */
#ifndef MOLT_MERGE_RECORD_H
#define MOLT_MERGE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "base/log.h"
#include "merge/manifest.h"

#define MOLT_RECORD_MAX_PATHS   (512u << 10)           /* between two syncs; beyond it: lost */
#define MOLT_RECORD_MAX_JOURNAL (UINT64_C(128) << 20)  /* bytes on disk */
#define MOLT_RECORD_HANDLE_MAX  128                    /* MAX_HANDLE_SZ */

struct molt_record_root {
    const char *dir;            /* on a file system of its own */
    const char *const *exclude; /* as in the scan, below it; NULL: nothing */
};
/* File systems that are mounted later. */
struct molt_record_follow {
    char **(*list)(void); /* where file systems are mounted now: NULL-terminated, malloc'd, and so are its strings; NULL: not known */
    const char **(*exclude)(const char *prefix); /* for that of /prefix; malloc'd, its strings static */
};
struct molt_recorder_opts {
    const struct molt_record_root *roots;
    size_t n_roots;
    /* For molt_recorder_spawn: each file system is recorded from when it is mounted on; the roots after `roots`. What changed before
     * it was marked is found by its time of change (record_follow.c). NULL: only the roots. */
    const struct molt_record_follow *follow;
    /* Made when missing, removed with the journal by molt_recorder_stop. Where it lies on a recorded file system, it
     * must be below an excluded path. */
    const char *journal_dir;
    /* For molt_recorder_spawn and _attach: where the recorder listens (only root may get there). */
    const char *socket;
    /* For molt_recorder_spawn: argv[0] of this process. The recorder's begins with '@', so that systemd leaves it alive
     * until the end (systemd.io, "Storage Daemons for the Root File System"). NULL: it does not. */
    char *title;
    size_t max_paths;     /* 0: MOLT_RECORD_MAX_PATHS */
    uint64_t max_journal; /* 0: MOLT_RECORD_MAX_JOURNAL */
    struct molt_log *log;
};

struct molt_recorder;
/* When it returns 0, everything from now on is recorded. MOLT_E_UNSUPPORTED: the kernel or the file system cannot. */
int molt_recorder_start(const struct molt_recorder_opts *o, struct molt_recorder **ret, struct molt_error **err);
/* Ends the child, frees. In a process forked from the one that started it: frees only its own part. */
void molt_recorder_stop(struct molt_recorder *r);
pid_t molt_recorder_pid(const struct molt_recorder *r);

/* A recorder that outlives its parent; whoever attaches asks it. When spawn returns 0, everything from now on is recorded.
 * One who is attached ends it by molt_recorder_stop, or leaves it by molt_recorder_detach. */
int molt_recorder_spawn(const struct molt_recorder_opts *o, struct molt_error **err);
/* roots, journal_dir and socket as the one who spawned it gave them. */
int molt_recorder_attach(const struct molt_recorder_opts *o, struct molt_recorder **ret, struct molt_error **err);
void molt_recorder_detach(struct molt_recorder *r);
/* All that was recorded, into the new file path (synced): what a boot leaves for the next. */
int molt_recorder_save(struct molt_recorder *r, const char *path, struct molt_error **err);

#define MOLT_DIRTY_SUBTREE 1u /* everything below it must be looked at, too */

struct molt_dirty {
    const char *path; /* relative to its root */
    unsigned root, flags;
};
/* An inode that changed and whose name is not known (it has several, or the one used is gone). */
struct molt_dirty_inode {
    unsigned root;
    int handle_type;
    unsigned handle_len;
    const unsigned char *handle;
};
/* A file system that was followed, and whether all its changes are known. */
struct molt_dirty_root {
    unsigned root;
    bool lost;
    const char *dir;
};
struct molt_dirty_set {
    struct molt_dirty_root *roots; /* a recorder that follows tells of its first root, too, before any other */
    size_t n_roots, cap_roots;
    struct molt_dirty *v; /* in tree order within a root, each path once */
    size_t n, cap;
    struct molt_dirty_inode *inodes; /* may repeat */
    size_t n_inodes, cap_inodes;
    char *lost; /* why nothing is known of this time; NULL: the lists are complete */
    char *buf;
};
/* All that changed between *position and now; moves *position to now. 0 is the start. Every system call that had
 * returned before this one is in it. Never fails: what fails is a loss. Callable from any process forked from the one
 * that started the recorder, one at a time. */
struct molt_dirty_set *molt_recorder_sync(struct molt_recorder *r, uint64_t *position);
/* Its paths below one root as molt_manifest_look takes them, in the same order; ret has room for s->n. Strings are
 * borrowed. Returns how many. */
size_t molt_dirty_looks(const struct molt_dirty_set *s, unsigned root, struct molt_look *ret);
/* Which root dir ("/home") is: 1, *ret set; 0: it was not mounted, and nothing of it changed; -1: that cannot be told. */
int molt_dirty_root_of(const struct molt_dirty_set *s, const char *dir, unsigned *ret);
/* What molt_recorder_save wrote; a file that is missing or damaged is a loss. */
struct molt_dirty_set *molt_dirty_set_load(const char *path);
void molt_dirty_set_free(struct molt_dirty_set *s);
static inline void molt__cleanup_dirty_set(struct molt_dirty_set **s)
{
    molt_dirty_set_free(*s);
}
#define CLEANUP_DIRTY_SET __attribute__((cleanup(molt__cleanup_dirty_set)))

/* O_PATH descriptor of the inode; -1 with errno (ESTALE: it is gone). */
int molt_recorder_open_inode(const struct molt_recorder *r, const struct molt_dirty_inode *i);

#endif
