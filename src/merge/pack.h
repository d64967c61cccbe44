/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Packs: a stream of file records, sent from one tree for a list of paths, one record for each path and in
 * order. A file that changes while it is read gives a well-formed record (each chunk has its own length); the
 * next pass sees the change by its ctime.
 */
#ifndef MOLT_MERGE_PACK_H
#define MOLT_MERGE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "merge/manifest.h"
#include "merge/wire.h"

#define MOLT_PACK_CHUNK (256u * 1024u)
#define MOLT_PACK_BLOCK (64u * 1024u) /* what is compared, where only differences are sent */

struct molt_pack_path {
    const char *path;
    bool meta_only; /* attributes and xattrs, no content */
    /* Of the version that the asker has: XXH3-64 of each whole block of MOLT_PACK_BLOCK bytes, from the start. Blocks
     * that are the same come not. A log or a database changes at its end or in place; what is shifted is sent whole. */
    const uint64_t *have;
    size_t n_have;
};
/* Hashes the first `size` bytes of fd, whole blocks only, into *ret (malloc'd, *ret_n of them). */
int molt_pack_hash_blocks(int fd, uint64_t size, uint64_t **ret, size_t *ret_n, struct molt_error **err);
/* List of wanted paths <-> bytes (for the request). The decoded array and its strings are one allocation. */
void molt_pack_paths_encode(const struct molt_pack_path *v, size_t n, struct molt_strbuf *out);
int molt_pack_paths_decode(const void *p, size_t len, struct molt_pack_path **ret, size_t *ret_n,
                           struct molt_error **err);

int molt_pack_send(int rootfd, const struct molt_pack_path *v, size_t n, const struct molt_sink *sink,
                   struct molt_error **err);

struct molt_xattr {
    const char *name;
    const unsigned char *value;
    size_t len;
};
struct molt_record {
    struct molt_entry e; /* path, type, mode, owner, size, times, rdev, target, inode flags */
    bool vanished, meta_only;
    bool differences; /* the content is to be laid over the version that was hashed */
    struct molt_xattr *xattrs;
    size_t n_xattrs;
    /* private */
    char *buf;
};
/* Calls in order for each record: begin, data* (regular files with content; holes are not sent), end. Nonzero
 * from a handler must be negative and ends the stream; err is the handler's to set. The record lives until
 * end returns. */
struct molt_pack_handler {
    int (*begin)(void *ctx, size_t index, const struct molt_record *r, struct molt_error **err);
    int (*data)(void *ctx, uint64_t offset, const void *p, size_t len, struct molt_error **err);
    int (*end)(void *ctx, uint64_t size, struct molt_error **err); /* size: of the file as it was read */
    void *ctx;
};
/* Receives exactly n records, which must be for the n paths asked for. *bytes (may be NULL) is added to. */
int molt_pack_recv(const struct molt_source *src, const struct molt_pack_path *v, size_t n,
                   const struct molt_pack_handler *h, uint64_t *bytes, struct molt_error **err);

#endif
