/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "merge/wire.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/cleanup.h"
#include "base/fsio.h"

static int fd_write(void *ctx, const void *buf, size_t len)
{
    return molt_write_all(*(const int *)ctx, buf, len);
}

static int fd_read(void *ctx, void *buf, size_t len)
{
    if (len == 0)
        return 0;
    int r = molt_read_all(*(const int *)ctx, buf, len);
    if (r == 0)
        errno = EPIPE;
    return r == 1 ? 0 : -1;
}

static int strbuf_write(void *ctx, const void *buf, size_t len)
{
    molt_strbuf_add(ctx, buf, len);
    return 0;
}

static int mem_read(void *ctx, void *buf, size_t len)
{
    struct molt_mem *m = ctx;
    if (m->len - m->off < len) {
        errno = EPIPE;
        return -1;
    }
    if (len)
        memcpy(buf, m->p + m->off, len);
    m->off += len;
    return 0;
}

struct molt_sink molt_sink_fd(const int *fd)
{
    return (struct molt_sink){fd_write, (void *)fd};
}
struct molt_source molt_source_fd(const int *fd)
{
    return (struct molt_source){fd_read, (void *)fd};
}
struct molt_sink molt_sink_strbuf(struct molt_strbuf *b)
{
    return (struct molt_sink){strbuf_write, b};
}
struct molt_source molt_source_mem(struct molt_mem *m)
{
    return (struct molt_source){mem_read, m};
}

void molt_put_num(struct molt_strbuf *b, uint64_t v)
{
    unsigned char t[10];
    size_t n = 0;
    do {
        t[n] = (unsigned char)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
        n++;
    } while (v);
    molt_strbuf_add(b, t, n);
}

void molt_put_snum(struct molt_strbuf *b, int64_t v)
{
    molt_put_num(b, ((uint64_t)v << 1) ^ (uint64_t)(v < 0 ? -1 : 0));
}

void molt_put_bytes(struct molt_strbuf *b, const void *p, size_t len)
{
    molt_put_num(b, len);
    molt_strbuf_add(b, p, len);
}

bool molt_get_num(struct molt_mem *m, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (m->off >= m->len)
            return false;
        unsigned char c = m->p[m->off++];
        if (shift == 63 && c > 1)
            return false;
        v |= (uint64_t)(c & 0x7f) << shift;
        if (!(c & 0x80)) {
            *ret = v;
            return true;
        }
    }
    return false;
}

bool molt_get_snum(struct molt_mem *m, int64_t *ret)
{
    uint64_t v;
    if (!molt_get_num(m, &v))
        return false;
    *ret = (int64_t)((v >> 1) ^ (~(v & 1) + 1));
    return true;
}

bool molt_get_bytes(struct molt_mem *m, size_t max, const unsigned char **ret, size_t *ret_len)
{
    uint64_t n;
    if (!molt_get_num(m, &n) || n > max || n > m->len - m->off)
        return false;
    *ret = m->p + m->off;
    *ret_len = n;
    m->off += n;
    return true;
}

void molt_put_le64(unsigned char b[8], uint64_t v)
{
    for (int i = 0; i < 8; i++)
        b[i] = (unsigned char)(v >> (8 * i));
}

uint64_t molt_get_le64(const unsigned char b[8])
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | b[i];
    return v;
}

int molt_block_write(const struct molt_sink *sink, const void *p, size_t len, struct molt_error **err)
{
    unsigned char head[8], tail[8];
    molt_put_le64(head, len);
    molt_put_le64(tail, XXH3_64bits(p, len));
    if (sink->write(sink->ctx, head, 8) < 0 || (len && sink->write(sink->ctx, p, len) < 0) ||
        sink->write(sink->ctx, tail, 8) < 0)
        return molt_error_errno(err, "send");
    return 0;
}

int molt_block_read(const struct molt_source *src, size_t max, char **ret, size_t *ret_len,
                    struct molt_error **err)
{
    unsigned char num[8];
    if (src->read(src->ctx, num, 8) < 0)
        return molt_error_errno(err, "receive");
    uint64_t len = molt_get_le64(num);
    if (len > max)
        return molt_error_set(err, MOLT_E_PROTOCOL, "block of %llu bytes, at most %zu are allowed",
                              (unsigned long long)len, max);
    /* Grown as the bytes arrive, so that a false length costs nothing. */
    CLEANUP_FREE char *buf = NULL;
    size_t got = 0, cap = 0;
    while (got < len || !buf) {
        size_t step = len - got < 1u << 20 ? len - got : 1u << 20;
        if (cap < got + step + 1) {
            cap = (got + step) * 2 < len ? (got + step) * 2 + 1 : len + 1;
            buf = molt_xrealloc(buf, cap);
        }
        if (step && src->read(src->ctx, buf + got, step) < 0)
            return molt_error_errno(err, "receive");
        got += step;
    }
    buf[len] = '\0';
    if (src->read(src->ctx, num, 8) < 0)
        return molt_error_errno(err, "receive");
    if (molt_get_le64(num) != XXH3_64bits(buf, len))
        return molt_error_set(err, MOLT_E_PROTOCOL, "checksum of a block of %llu bytes is wrong",
                              (unsigned long long)len);
    *ret = MOLT_STEAL_PTR(buf);
    if (ret_len)
        *ret_len = len;
    return 0;
}

bool molt_path_valid(const char *path, size_t len, bool allow_root)
{
    if (len == 0)
        return allow_root;
    if (len > MOLT_PATH_LIMIT || memchr(path, '\0', len))
        return false;
    for (size_t i = 0; i < len;) {
        const char *end = memchr(path + i, '/', len - i);
        size_t n = end ? (size_t)(end - path) - i : len - i;
        if (n == 0 || n > MOLT_NAME_LIMIT || (n == 1 && path[i] == '.') ||
            (n == 2 && path[i] == '.' && path[i + 1] == '.'))
            return false;
        i += n + 1;
        if (end && i == len)
            return false;
    }
    return true;
}

int molt_path_cmp(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    if (*a == *b)
        return 0;
    /* The end sorts first, then the slash, then everything else; the root "" is before all. */
    int x = *a == '\0' ? 0 : *a == '/' ? 1 : (unsigned char)*a + 1;
    int y = *b == '\0' ? 0 : *b == '/' ? 1 : (unsigned char)*b + 1;
    return x < y ? -1 : 1;
}

bool molt_path_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return n == 0 || (strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0'));
}

/* Length of the valid UTF-8 sequence at s that needs no escape, or 0. */
static size_t utf8_len(const unsigned char *s)
{
    if (s[0] < 0x80)
        return s[0] >= 0x20 && s[0] != 0x7f && s[0] != '\\' ? 1 : 0;
    size_t n = s[0] >= 0xc2 && s[0] <= 0xdf   ? 2
               : (s[0] & 0xf0) == 0xe0        ? 3
               : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                              : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

char *molt_path_text(const char *path)
{
    struct molt_strbuf b = MOLT_STRBUF_INIT;
    molt_strbuf_add(&b, "/", 1);
    for (const unsigned char *p = (const unsigned char *)path; *p;) {
        size_t n = utf8_len(p);
        if (n)
            molt_strbuf_add(&b, p, n);
        else
            molt_strbuf_addf(&b, "\\x%02x", *p);
        p += n ? n : 1;
    }
    return molt_strbuf_steal(&b);
}
