/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "procmig/standins.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/image.h"
#include "procmig/pb.h"

#define IMAGE_MAX (256u << 20)
#define FILES_MAX 1000000

/* Fields of file_entry (images/fdinfo.proto), reg_file_entry (images/regfile.proto) and remap_file_path_entry (images/remap-file-path.proto) */
#define ENTRY_REG  3
#define REG_ID     1
#define REG_NAME   6
#define REG_SIZE   8
#define REG_MODE   10
#define REMAP_ORIG 1

struct reg {
    uint64_t id, size, mode;
    char *name; /* malloc'd or NULL */
};

static bool parse_reg(const unsigned char *data, size_t len, struct reg *ret)
{
    struct molt__pb m = molt__pb_over(data, len);
    struct molt__pb_field f;
    int r;

    *ret = (struct reg){0};
    while ((r = molt__pb_next(&m, &f)) > 0)
        if (f.number == REG_ID && !f.is_bytes)
            ret->id = f.value;
        else if (f.number == REG_SIZE && !f.is_bytes)
            ret->size = f.value;
        else if (f.number == REG_MODE && !f.is_bytes)
            ret->mode = f.value;
        else if (f.number == REG_NAME && f.is_bytes && !ret->name)
            ret->name = molt_xstrndup((const char *)f.data, f.len);
    return r == 0;
}

/* 1: a regular file or what the list has with those, 0: of another kind. */
static int reg_of_entry(const unsigned char *data, size_t len, struct reg *ret, struct molt_error **err)
{
    struct molt__pb m = molt__pb_over(data, len);
    struct molt__pb_field f;
    int r;

    while ((r = molt__pb_next(&m, &f)) > 0)
        if (f.number == ENTRY_REG && f.is_bytes) {
            if (parse_reg(f.data, f.len, ret))
                return 1;
            r = -1;
            break;
        }
    return r < 0 ? molt_error_set(err, MOLT_E_PROTOCOL, "malformed list of open files") : 0;
}

/* ---- files that were deleted ---- */

struct remaps {
    uint64_t *id;
    size_t n, cap;
};

static int load_remaps(const char *images, struct remaps *ret, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/remap-fpath.img", images), *text = NULL;
    const unsigned char *record;
    struct molt__image m;
    size_t len, size;
    int r;

    if (!molt_exists(path))
        return 0; /* there is none */
    r = molt_read_file(path, IMAGE_MAX, &text, &len, err);
    if (r == 0)
        r = molt__image_over(text, len, MOLT_IMAGE_REMAP_FPATH, &m, err);
    while (r == 0 && (r = molt__image_next(&m, &record, &size, err)) > 0) {
        struct molt__pb fields = molt__pb_over(record, size);
        struct molt__pb_field f;

        r = 0;
        while (molt__pb_next(&fields, &f) > 0)
            if (f.number == REMAP_ORIG && !f.is_bytes) {
                MOLT_GROW(ret->id, ret->n, ret->cap);
                ret->id[ret->n++] = f.value;
            }
    }
    return r;
}

static bool is_remapped(const struct remaps *v, uint64_t id)
{
    for (size_t i = 0; i < v->n; i++)
        if (v->id[i] == id)
            return true;
    return false;
}

/* ---- laying ---- */

bool molt__standins_for(const char *path, const char *const *dirs)
{
    for (size_t i = 0; dirs[i]; i++) {
        size_t n = strlen(dirs[i]);

        if (!strncmp(path, dirs[i], n) && path[n] == '/')
            return true;
    }
    return false;
}

static int make_one(const struct reg *f, struct molt_error **err)
{
    CLEANUP_CLOSE int fd = -1;
    mode_t mode = (mode_t)f->mode & 07777;

    if (S_ISDIR(f->mode))
        return molt_mkdir_p(f->name, mode ? mode : 0755, err);
    if (S_ISFIFO(f->mode))
        return mkfifo(f->name, mode) < 0 && errno != EEXIST ? molt_error_errno(err, "make a stand-in for %s", f->name) : 0;
    if (!S_ISREG(f->mode) && f->mode != 0)
        return 0;
    fd = open(f->name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    /* Sparse: it takes nothing, however long the file is. */
    if (fd < 0 || ftruncate(fd, (off_t)f->size) < 0 || fchmod(fd, f->mode ? mode : 0755) < 0)
        return molt_error_errno(err, "make a stand-in for %s", f->name);
    return 0;
}

static int lay_one(const struct reg *f, const struct remaps *remaps, struct molt_error **err)
{
    CLEANUP_FREE char *dir = molt_xstrdup(f->name);
    int r;

    *strrchr(dir, '/') = '\0'; /* it is below one of dirs */
    r = molt_mkdir_p(dir, 0755, err);
    return r < 0 || is_remapped(remaps, f->id) ? r : make_one(f, err);
}

static int lay_all(const char *images, const char *const *dirs, const struct remaps *remaps, struct molt_error **err)
{
    CLEANUP_FREE char *path = molt_xasprintf("%s/files.img", images), *text = NULL;
    const unsigned char *record;
    struct molt__image m;
    size_t len, size, n = 0;
    int r = molt_read_file(path, IMAGE_MAX, &text, &len, err);

    if (r == 0)
        r = molt__image_over(text, len, MOLT_IMAGE_FILES, &m, err);
    while (r == 0 && (r = molt__image_next(&m, &record, &size, err)) > 0) {
        struct reg f = {0};

        r = reg_of_entry(record, size, &f, err);
        if (r > 0 && f.name && molt__standins_for(f.name, dirs) && !strstr(f.name, "/../"))
            r = ++n > FILES_MAX ? molt_error_set(err, MOLT_E_PROTOCOL, "too many open files in the images") : lay_one(&f, remaps, err);
        free(f.name);
        r = r < 0 ? r : 0;
    }
    return r;
}

int molt__standins_lay(const char *images, const char *const *dirs, struct molt_error **err)
{
    struct remaps remaps = {NULL, 0, 0};
    int r = load_remaps(images, &remaps, err);

    for (size_t i = 0; dirs[i] && r == 0; i++) {
        r = molt_mkdir_p(dirs[i], 0755, err);
        if (r == 0 && mount("xenmolt", dirs[i], "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0)
            r = molt_error_errno(err, "mount a tmpfs at %s", dirs[i]);
    }
    if (r == 0)
        r = lay_all(images, dirs, &remaps, err);
    free(remaps.id);
    return r;
}
