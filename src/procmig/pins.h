/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pins: the files that a process maps, runs or reads, which must look the same to it after the move. The
 * active side collects them, the clone compares them with its own files, fetches the ones that differ into a
 * directory on disk (DIR + path) and checks what it fetched.
 */
#ifndef MOLT_PROCMIG_PINS_H
#define MOLT_PROCMIG_PINS_H

#include "procmig/workload.h"

enum molt_pin_use { MOLT_PIN_MAP = 1, MOLT_PIN_EXE = 2, MOLT_PIN_FD = 4, MOLT_PIN_EXEC = 8 /* it may start it */ };
enum molt_pin_need { MOLT_PIN_SAME, MOLT_PIN_DIFFERENT, MOLT_PIN_MISSING, MOLT_PIN_UNKNOWN };

struct molt_pin {
    char *path;   /* absolute; without " (deleted)" */
    char *owner;  /* "libc6 2.36-9": package and version that it is of, or NULL; whoever knows sets it (malloc'd) */
    char *source; /* where to read the content now: path, or /proc/PID/map_files/A-B for a deleted one */
    uint64_t dev, ino, size;
    int64_t mtime_ns, ctime_ns;
    uint64_t hash; /* XXH3, 64 bits; where hashed */
    bool hashed;
    unsigned mode, uid, gid, use;
    bool deleted;
    enum molt_pin_need need; /* set by molt_pins_compare */
};
struct molt_pins {
    struct molt_pin *v;
    size_t n, cap;
};

/* On the active side. Nothing is hashed yet: most files are the same inode on both sides, unchanged since the snapshot. Files that the workload
 * has open for writing are data, not pins. */
int molt_pins_collect(const struct molt_workload *w, struct molt_pins **ret_p, struct molt_error **err);
/* One more file, as process pid sees it under that name (symbolic links are followed). What is not there, or no plain file, is none.
 * false: that, or it was noted so before. */
bool molt__pins_add(struct molt_pins *p, pid_t pid, const char *path, enum molt_pin_use use);
/* On the active side, what the clone asks for (a JDK has files of 150 MB). */
int molt_pin_hash(struct molt_pin *pin, struct molt_error **err);
void molt_pins_free(struct molt_pins *p);
static inline void molt__cleanup_pins(struct molt_pins **p)
{
    molt_pins_free(*p);
}
#define CLEANUP_PINS __attribute__((cleanup(molt__cleanup_pins)))
/* {"schema": 1, "pins": [{path, source, dev, ino, size, mtime_ns, hash, mode, uid, gid, use, deleted, need}]}
 */
struct molt_json *molt_pins_json(const struct molt_pins *p);
/* From the peer: every field is checked (absolute normal path, bounds). MOLT_E_PROTOCOL. */
int molt_pins_parse(const struct molt_json *v, struct molt_pins **ret_p, struct molt_error **err);
/* On the clone: sets need of each pin by looking at this system's files below root ("" or "/": the real ones). The same: one inode of the
 * snapshot that neither side has touched since (its time of change, which no program can set, is the same), or the same size and hash.
 * Where that takes a hash which is not there: MOLT_PIN_UNKNOWN, not counted; compare again when it is. */
int molt_pins_compare(struct molt_pins *p, const char *root, size_t *ret_needed, uint64_t *ret_bytes,
                      struct molt_error **err);
/* On the clone, after the lead fetched every pin with need != SAME from its `source` on the active side to
 * pin_dir + path: checks size and hash, sets mode, owner and times. Fails naming the first wrong path. */
int molt_pins_check_fetched(const struct molt_pins *p, const char *pin_dir, struct molt_error **err);
/* Creates pin_dir + dirname(path) for every pin that is needed. */
int molt_pins_make_dirs(const struct molt_pins *p, const char *pin_dir, struct molt_error **err);
/* An owner's text as it may come from elsewhere: two words of plain characters, of bounded length. */
bool molt_pin_owner_ok(const char *owner);
/* XXH3 of a file by path; symbolic links are followed. */
int molt_file_hash(const char *path, uint64_t *ret_hash, uint64_t *ret_size, struct molt_error **err);

#define MOLT_PINS_DIR "/var/lib/xenmolt/pins"

/* One line of /proc/PID/maps; false when it maps no file with a path. path points into line (modified). */
struct molt__map {
    uint64_t start, end, off, ino; /* off: in the file, bytes */
    unsigned major, minor;
    bool deleted, shared, write;
    char *path;
};
bool molt__map_parse(char *line, struct molt__map *m);

#endif
