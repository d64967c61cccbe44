/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Files: whole reads and writes, atomic replacement, directories, durable removal. Paths are plain host paths. */
#ifndef MOLT_BASE_FSIO_H
#define MOLT_BASE_FSIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

/* Writes all bytes (restarts on EINTR and short writes). 0 or -1 with errno. */
int molt_write_all(int fd, const void *buf, size_t len);
/* Reads exactly len bytes. 1 done, 0 end of file before the first byte, -1 with errno (EPIPE: cut in the middle). */
int molt_read_all(int fd, void *buf, size_t len);
/* Reads up to len bytes at off (restarts on EINTR and short reads): how many, fewer only at the end of the file; -1 with
 * errno. */
ssize_t molt_pread_all(int fd, void *buf, size_t len, uint64_t off);
/* Reads a file of at most max bytes; *ret_text malloc'd, NUL-terminated; *ret_len may be NULL. */
int molt_read_file(const char *path, size_t max, char **ret_text, size_t *ret_len, struct molt_error **err);
int molt_read_file_at(int dirfd, const char *path, size_t max, char **ret_text, size_t *ret_len, struct molt_error **err);
/* Replaces path: writes path.tmp-XXXX beside it, fsync, rename, fsync of the directory. */
int molt_write_file_atomic(const char *path, const void *data, size_t len, mode_t mode, struct molt_error **err);
/* Plain write, no fsync (for /proc, /sys and files in tmpfs). */
int molt_write_file(const char *path, const void *data, size_t len, mode_t mode, struct molt_error **err);
int molt_mkdir_p(const char *path, mode_t mode, struct molt_error **err);
int molt_fsync_dir(const char *path, struct molt_error **err); /* of the directory itself */
/* Removes a tree without following symbolic links or crossing mounts; a missing path is success. */
int molt_remove_tree(const char *path, struct molt_error **err);
bool molt_exists(const char *path); /* lstat */

#endif
