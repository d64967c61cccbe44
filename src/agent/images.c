/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dump's images, from the active's agent to the clone's, as one stream: a round trip a file would be paid inside the blackout. They go
 * while CRIU still writes others: each when it is closed, and at the end once more what was written since. For each file: u16 length of
 * its name, u64 size (both little-endian), name, content; at the end a name's length of 0.
 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/follow.h"
#include "agent/peer.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/fsio.h"
#include "base/strbuf.h"
#include "procmig/dump.h"
#include "procmig/predump.h"

#define HEAD 10
#define MAX_NAME 255
#define MAX_IMAGES 65536 /* files: a few a process */
#define GATHER (256u << 10)
#define EARLY (32u << 10) /* of what gathers while CRIU writes on: sent, */
#define QUIET_MS 20       /* and so it is when nothing came for so long */
#define CLOSING_MS 5
#define FOLLOW_NICE (-10)
#define FOLLOW_MS 120000 /* from one image to the next: one may have all the memory in it */
#define SLACK_MS 10000

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

struct sent {
    char name[MAX_NAME + 1];
    struct stat st; /* as it was then */
};

struct sender {
    struct molt_request *rq;
    int dirfd;
    char *buf;            /* GATHER bytes */
    struct molt_strbuf b; /* small files gather here: one message for many */
    struct sent *sent;
    size_t n_sent, sent_cap;
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

static struct sent *find_sent(const struct sender *s, const char *name)
{
    for (size_t i = 0; i < s->n_sent; i++)
        if (!strcmp(s->sent[i].name, name))
            return &s->sent[i];
    return NULL;
}

static void note_sent(struct sender *s, const char *name, const struct stat *st)
{
    struct sent *old = find_sent(s, name);
    if (!old) {
        MOLT_GROW(s->sent, s->n_sent, s->sent_cap);
        old = &s->sent[s->n_sent++];
        snprintf(old->name, sizeof(old->name), "%s", name);
    }
    old->st = *st;
}

static int send_file(struct sender *s, const char *name, struct molt_error **err)
{
    struct stat st;
    /* Not CRIU's link to the images before these: the other side makes its own. */
    if (fstatat(s->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode))
        return 0;
    CLEANUP_CLOSE int fd = openat(s->dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return molt_error_errno(err, "open the image %s", name);
    uint64_t left = (uint64_t)st.st_size;
    int r = send_head(s, name, left, err);
    while (r == 0 && left > 0) {
        ssize_t n = read(fd, s->buf, left < GATHER ? left : GATHER);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return molt_error_set(err, MOLT_E_INTERNAL, "the image %s became shorter", name);
        left -= (uint64_t)n;
        r = send_bytes(s, s->buf, (size_t)n, err);
    }
    note_sent(s, name, &st);
    return r;
}

/* What CRIU writes beside them is for whoever looks into a dump, and nothing that a restore reads. */
static bool is_image(const char *name)
{
    size_t n = strlen(name);
    bool beside = (n > 4 && !strcmp(name + n - 4, ".log")) || !strcmp(name, "stats-dump");
    return name[0] != '.' && n <= MAX_NAME && !beside;
}

/* Nobody writes it: a lease for reading is only given then (fcntl(2)). */
static bool is_closed(int dirfd, const char *name)
{
    CLEANUP_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 && fcntl(fd, F_SETLEASE, F_RDLCK) == 0; /* given back by close */
}

/* The event comes before the file is closed: on one processor whoever waits for it wakes in between (__fput in fs/file_table.c). */
static bool soon_closed(int dirfd, const char *name)
{
    for (int i = 0; i < CLOSING_MS; i++) {
        if (is_closed(dirfd, name))
            return true;
        molt_sleep_ms(1);
    }
    return is_closed(dirfd, name);
}

static bool as_sent(const struct sender *s, const char *name)
{
    const struct sent *old = find_sent(s, name);
    struct stat st;
    return old && fstatat(s->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == old->st.st_ino && st.st_size == old->st.st_size &&
           st.st_mtim.tv_sec == old->st.st_mtim.tv_sec && st.st_mtim.tv_nsec == old->st.st_mtim.tv_nsec;
}

/* What is in the directory and was not sent as it is now; closed: only what nobody writes any more. */
static int send_rest(struct sender *s, bool closed, struct molt_error **err)
{
    int r = 0, fd = openat(s->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    if (!d) {
        r = molt_error_errno(err, "list the images");
        if (fd >= 0)
            close(fd);
        return r;
    }
    while (r == 0 && (e = readdir(d)))
        if (is_image(e->d_name) && !as_sent(s, e->d_name) && (!closed || is_closed(s->dirfd, e->d_name)))
            r = send_file(s, e->d_name, err);
    return r;
}

/* While they are written. */
static int send_following(struct sender *s, const char *dir, struct molt_error **err)
{
    struct follow f;
    const char *name;
    (void)setpriority(PRIO_PROCESS, 0, FOLLOW_NICE); /* the other guest waits for these, and for nothing else in this one */
    signal(SIGIO, SIG_IGN); /* what the holder of a lease is sent when somebody wants to write; ours are given back at once */
    int r = follow_begin(&f, dir, s->dirfd, MOLT_DUMP_WHOLE, MOLT_DUMP_FAILED, err), more = 0;
    if (r < 0)
        return r;
    r = send_rest(s, true, err);
    if (r == 0)
        r = flush(s, err);
    while (r == 0 && (more = follow_next(&f, s->b.len ? QUIET_MS : FOLLOW_MS, &name, err)) != 0) {
        if (more < 0 && (more != MOLT_E_TIMEOUT || s->b.len == 0))
            break;
        if (more < 0)
            molt_error_clear(err);
        else if (is_image(name) && !as_sent(s, name) && soon_closed(s->dirfd, name))
            r = send_file(s, name, err);
        if (r == 0 && (more < 0 || s->b.len >= EARLY))
            r = flush(s, err);
    }
    follow_end(&f);
    return r < 0 ? r : more;
}

int images_send(struct molt_request *rq, const char *dir, bool follow, struct molt_error **err)
{
    struct sender s = {.rq = rq, .dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (s.dirfd < 0)
        return molt_error_errno(err, "open %s", dir);
    s.buf = molt_xmalloc(GATHER);
    int r = follow ? send_following(&s, dir, err) : 0;
    if (r == 0)
        r = send_rest(&s, false, err);
    if (r == 0)
        r = send_head(&s, "", 0, err);
    if (r == 0)
        r = flush(&s, err);
    if (follow)
        (void)setpriority(PRIO_PROCESS, 0, 0);
    close(s.dirfd);
    free(s.buf);
    free(s.sent);
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
    if (unlinkat(rc->dirfd, name, 0) < 0 && errno != ENOENT) /* it came before, and was written again */
        return molt_error_errno(err, "replace the image %s", name);
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

int images_fetch(struct molt_chan *peer, const char *unit, const char *images, unsigned round, bool follow, uint64_t *ret_bytes, struct molt_error **err)
{
    CLEANUP_FREE char *dir = round ? molt_predump_dir(images, round) : molt_xstrdup(images);
    CLEANUP_JSON struct molt_json *args = molt_json_object();
    CLEANUP_CLOSE int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return molt_error_errno(err, "open %s", dir);
    struct receiver rc = {.dirfd = dirfd, .fd = -1};
    struct molt_call call = {.data = take, .ctx = &rc, .timeout_ms = follow ? FOLLOW_MS + SLACK_MS : 0};
    molt_json_set_string(args, "unit", unit);
    molt_json_set_int(args, "round", round);
    molt_json_set_bool(args, "follow", follow);
    int r = molt_call(peer, "images", args, &call, NULL, err);
    if (rc.fd >= 0)
        close(rc.fd);
    if (r == 0 && !rc.ended)
        r = molt_error_set(err, MOLT_E_PROTOCOL, "the images ended too early");
    *ret_bytes = rc.bytes;
    return r < 0 ? molt_error_prefix(err, "images") : 0;
}
