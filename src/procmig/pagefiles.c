/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/pagefiles.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"

int molt__page_files_open(struct molt__page_files *files, const char *dir, uint64_t id, unsigned *ret, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/pages-%u.img", dir, (unsigned)id);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return molt_error_errno(err, "open %s", path);
    MOLT_GROW(files->v, files->n, files->cap);
    *ret = (unsigned)files->n;
    files->v[files->n++] = (struct molt__page_file){.fd = MOLT_STEAL_FD(fd), .len = (uint64_t)st.st_size};
    return 0;
}

void molt__page_files_room(struct molt__page_files *files)
{
    files->room = molt_xcalloc(MOLT__PIECE + MOLT__WINDOWS * MOLT__WINDOW_PAGES, MOLT_PAGE);
    for (size_t i = 0; i < MOLT__WINDOWS; i++)
        files->windows[i] = (struct molt__window){.v = files->room + (MOLT__PIECE + i * MOLT__WINDOW_PAGES) * MOLT_PAGE};
}

/* The window that has a place of a file, read anew if none had; NULL: errno. */
static struct molt__window *window_at(struct molt__page_files *files, unsigned file, uint64_t off)
{
    struct molt__window *w = &files->windows[0];

    for (size_t i = 0; i < MOLT__WINDOWS; i++) {
        struct molt__window *x = &files->windows[i];

        if (x->pages > 0 && x->file == file && off >= x->off && off < x->off + x->pages * MOLT_PAGE)
            return x;
        if (x->used < w->used)
            w = x;
    }
    const uint64_t left = (files->v[file].len - off) / MOLT_PAGE, pages = left < MOLT__WINDOW_PAGES ? left : MOLT__WINDOW_PAGES;
    const ssize_t len = (ssize_t)(pages * MOLT_PAGE), n = molt_pread_all(files->v[file].fd, w->v, (size_t)len, off);

    w->file = file;
    w->off = off;
    w->pages = n == len ? pages : 0;
    if (n >= 0 && n != len)
        errno = EIO;
    return w->pages ? w : NULL;
}

int molt__page_files_read(struct molt__page_files *files, unsigned file, uint64_t off, uint64_t pages, unsigned char *to)
{
    while (pages > 0) {
        struct molt__window *w = window_at(files, file, off);

        if (!w)
            return -1;
        const uint64_t have = w->pages - (off - w->off) / MOLT_PAGE, n = have < pages ? have : pages;

        memcpy(to, w->v + (off - w->off), (size_t)(n * MOLT_PAGE));
        w->used = ++files->reads;
        to += n * MOLT_PAGE;
        off += n * MOLT_PAGE;
        pages -= n;
    }
    return 0;
}

void molt__page_files_close(struct molt__page_files *files)
{
    for (size_t i = 0; i < files->n; i++)
        close(files->v[i].fd);
    free(files->v);
    free(files->room);
    *files = (struct molt__page_files){0};
}
