/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dump's images, from the active's agent to the clone's, as one stream: a round trip a file would be paid inside
 * the blackout. For each file: u16 length of its name, u64 size (both little-endian), name, content; at the end a
 * name's length of 0.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/peer.h"
#include "base/cleanup.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/predump.h"

#define HEAD 10
#define MAX_NAME 255
#define MAX_IMAGES 65536 /* files: a few a process */
#define GATHER (256u << 10)

static void put_le(unsigned char *to, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get_le(const unsigned char *from, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes; i-- > 0;)
        v = v << 8 | from[i];
    return v;
}

/* ---- sending ---- */

struct sender {
    struct molt_request *rq;
    struct molt_strbuf b; /* small files gather here: one message for many */
};

static int flush(struct sender *s, struct molt_error **err)
{
    int r = s->b.len ? molt_request_data(s->rq, s->b.s, s->b.len, err) : 0;
    s->b.len = 0;
    return r;
}

static int send_bytes(struct sender *s, const void *p, size_t len, struct molt_error **err)
{
    molt_strbuf_add(&s->b, p, len);
    return s->b.len >= GATHER ? flush(s, err) : 0;
}

static int send_head(struct sender *s, const char *name, uint64_t size, struct molt_error **err)
{
    unsigned char head[HEAD];
    put_le(head, strlen(name), 2);
    put_le(head + 2, size, 8);
    int r = send_bytes(s, head, sizeof(head), err);
    return r < 0 ? r : send_bytes(s, name, strlen(name), err);
}

static int send_file(struct sender *s, int dirfd, const char *name, char *buf, struct molt_error **err)
{
    struct stat st;
    /* Not CRIU's link to the images before these: the other side makes its own. */
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode))
        return 0;
    CLEANUP_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return molt_error_errno(err, "open the image %s", name);
    uint64_t left = (uint64_t)st.st_size;
    int r = send_head(s, name, left, err);
    while (r == 0 && left > 0) {
        ssize_t n = read(fd, buf, left < GATHER ? left : GATHER);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return molt_error_set(err, MOLT_E_INTERNAL, "the image %s became shorter", name);
        left -= (uint64_t)n;
        r = send_bytes(s, buf, (size_t)n, err);
    }
    return r;
}

int images_send(struct molt_request *rq, const char *dir, struct molt_error **err)
{
    struct sender s = {rq, MOLT_STRBUF_INIT};
    CLEANUP_FREE char *buf = molt_xmalloc(GATHER);
    CLEANUP_CLOSEDIR DIR *d = opendir(dir);
    struct dirent *e;
    int r = 0;
    if (!d)
        return molt_error_errno(err, "open %s", dir);
    while (r == 0 && (e = readdir(d)))
        if (e->d_name[0] != '.')
            r = send_file(&s, dirfd(d), e->d_name, buf, err);
    if (r == 0)
        r = send_head(&s, "", 0, err);
    if (r == 0)
        r = flush(&s, err);
    molt_strbuf_free(&s.b);
    return r;
}

/* ---- receiving ---- */

struct receiver {
    int dirfd, fd;
    unsigned char head[HEAD + MAX_NAME + 1];
    size_t have; /* bytes of head and name that are there */
    uint64_t left, bytes;
    unsigned files;
    bool ended;
};

/* Head and name are whole: opens the file. */
static int begin_file(struct receiver *rc, size_t name_len, struct molt_error **err)
{
    char *name = (char *)rc->head + HEAD;
    name[name_len] = '\0';
    rc->left = get_le(rc->head + 2, 8);
    rc->have = 0;
    if (name[0] == '.' || strchr(name, '/') || strlen(name) != name_len || ++rc->files > MAX_IMAGES)
        return molt_error_set(err, MOLT_E_PROTOCOL, "not an image's name");
    rc->fd = openat(rc->dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (rc->fd < 0)
        return molt_error_errno(err, "make the image %s", name);
    if (rc->left == 0) {
        close(rc->fd);
        rc->fd = -1;
    }
    return 0;
}

/* Takes what it can of head and name; *len is how much that was. */
static int take_head(struct receiver *rc, const unsigned char *p, size_t *len, struct molt_error **err)
{
    size_t name_len = rc->have < HEAD ? 0 : (size_t)get_le(rc->head, 2);
    size_t want = (rc->have < HEAD ? HEAD : HEAD + name_len) - rc->have;
    *len = *len < want ? *len : want;
    memcpy(rc->head + rc->have, p, *len);
    rc->have += *len;
    if (rc->have < HEAD)
        return 0;
    name_len = (size_t)get_le(rc->head, 2);
    if (name_len > MAX_NAME)
        return molt_error_set(err, MOLT_E_PROTOCOL, "an image's name is too long");
    if (name_len == 0) {
        rc->ended = true;
        return 0;
    }
    return rc->have == HEAD + name_len ? begin_file(rc, name_len, err) : 0;
}

static int take(void *ctx, const void *buf, size_t len, struct molt_error **err)
{
    struct receiver *rc = ctx;
    const unsigned char *p = buf;
    int r = 0;
    while (r == 0 && len > 0) {
        size_t n = len;
        if (rc->ended)
            return molt_error_set(err, MOLT_E_PROTOCOL, "data behind the last image");
        if (rc->fd < 0) {
            r = take_head(rc, p, &n, err);
        } else {
            n = n < rc->left ? n : (size_t)rc->left;
            if (molt_write_all(rc->fd, p, n) < 0)
                return molt_error_errno(err, "write an image");
            rc->bytes += n;
            if ((rc->left -= n) == 0) {
                close(rc->fd);
                rc->fd = -1;
            }
        }
        p += n;
        len -= n;
    }
    return r;
}

int images_fetch(struct molt_chan *peer, const char *images, unsigned round, uint64_t *ret_bytes, struct molt_error **err)
{
    CLEANUP_FREE char *dir = round ? molt_predump_dir(images, round) : molt_xstrdup(images);
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    CLEANUP_CLOSE int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return molt_error_errno(err, "open %s", dir);
    struct receiver rc = {.dirfd = dirfd, .fd = -1};
    struct molt_call call = {.data = take, .ctx = &rc};
    molt_json_set_int(args, "round", round);
    int r = molt_call(peer, "images", args, &call, NULL, err);
    if (rc.fd >= 0)
        close(rc.fd);
    if (r == 0 && !rc.ended)
        r = molt_error_set(err, MOLT_E_PROTOCOL, "the images ended too early");
    *ret_bytes = rc.bytes;
    return r < 0 ? molt_error_prefix(err, "images") : 0;
}
