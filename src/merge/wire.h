/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Byte streams and the small encodings that manifests and packs share: LEB128 numbers, counted bytes, a
 * running checksum. Readers bound every length before they allocate; nothing that a peer sends is trusted.
 */
#ifndef MOLT_MERGE_WIRE_H
#define MOLT_MERGE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/strbuf.h"

/* All bytes or an error: 0, or -1 with errno. */
struct molt_sink {
    int (*write)(void *ctx, const void *buf, size_t len);
    void *ctx;
};
struct molt_source {
    int (*read)(void *ctx, void *buf, size_t len);
    void *ctx;
};

/* Ready-made ends. */
struct molt_sink molt_sink_fd(const int *fd);
struct molt_source molt_source_fd(const int *fd);
struct molt_sink molt_sink_strbuf(struct molt_strbuf *b);
struct molt_mem {
    const unsigned char *p;
    size_t len, off;
};
struct molt_source molt_source_mem(struct molt_mem *m);

/* Numbers and counted bytes into a buffer. */
void molt_put_num(struct molt_strbuf *b, uint64_t v);
void molt_put_snum(struct molt_strbuf *b, int64_t v); /* zigzag */
void molt_put_bytes(struct molt_strbuf *b, const void *p, size_t len);
/* The same out of memory; false at the end of the bytes or when malformed (the cursor is then useless). */
bool molt_get_num(struct molt_mem *m, uint64_t *ret);
bool molt_get_snum(struct molt_mem *m, int64_t *ret);
/* Borrowed pointer into m; fails when longer than max. */
bool molt_get_bytes(struct molt_mem *m, size_t max, const unsigned char **ret, size_t *ret_len);

/* Eight bytes, little-endian. */
void molt_put_le64(unsigned char b[8], uint64_t v);
uint64_t molt_get_le64(const unsigned char b[8]);

/* A block: 8 bytes length (little-endian), the bytes, 8 bytes XXH3-64 of them. */
int molt_block_write(const struct molt_sink *sink, const void *p, size_t len, struct molt_error **err);
/* *ret malloc'd with a NUL behind. */
int molt_block_read(const struct molt_source *src, size_t max, char **ret, size_t *ret_len,
                    struct molt_error **err);

/* Relative, not empty unless allow_root, no empty component, no "." or "..", no NUL, at most MOLT_PATH_LIMIT
 * bytes. */
#define MOLT_PATH_LIMIT 65536
#define MOLT_NAME_LIMIT 255
bool molt_path_valid(const char *path, size_t len, bool allow_root);
/* Tree order: a directory, then everything below it, siblings by bytes. */
int molt_path_cmp(const char *a, const char *b);
/* path is dir or lies below it ("" holds everything). */
bool molt_path_below(const char *path, const char *dir);
/* Printable and valid UTF-8: other bytes (and backslash) as \xNN; a leading slash is put in front. malloc'd.
 */
char *molt_path_text(const char *path);

#endif
